//! Durability: one sync at a time, and a failed one is final.
//!
//! The kernel reports a write that it lost to the first sync that asks, once. Were two syncs under
//! way together, the one that is not told could be the one whose caller is answered first. So there
//! is one at a time; whoever asks meanwhile shares the next, which begins after all of them asked.

use super::kind_of;
use bio::{IoErrorKind, IoResult};
use runtime::{File, Notify};
use std::cell::Cell;
use units::Sector;

/// What syncs there were.
#[derive(Default)]
pub(super) struct SyncState {
    started: Cell<u64>,
    completed: Cell<u64>,
    running: Cell<bool>,
    failed: Cell<Option<IoErrorKind>>,
    ended: Notify,
}

impl SyncState {
    /// From now on nothing is durable any more.
    pub(super) fn fail(&self, kind: IoErrorKind) {
        if self.failed.get().is_none() {
            self.failed.set(Some(kind));
        }
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        !self.running.get() && self.started.get() == self.completed.get()
    }

    pub(super) fn refuse_if_failed(&self, sector: Sector) -> IoResult {
        self.failed.get().map_or(Ok(()), |kind| Err(kind.at(sector)))
    }
}

/// A sync under way. Dropped before it has ended, nobody will know what it would have said.
struct Running<'a>(&'a SyncState);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.running.replace(false) {
            self.0.fail(IoErrorKind::Medium);
            self.0.ended.notify_all();
        }
    }
}

impl SyncState {
    /// Makes all that was written to `file`, the one that this is about, before durable.
    pub(super) async fn flush(&self, file: &File) -> IoResult {
        let state = self;
        let wanted = state.started.get() + 1;
        while state.completed.get() < wanted {
            state.refuse_if_failed(Sector::ZERO)?;
            if state.running.get() {
                state.ended.notified().await;
                continue;
            }
            let number = state.started.get() + 1;
            state.started.set(number);
            state.running.set(true);
            let running = Running(state);
            let result = file.sync_data().await;
            state.running.set(false);
            drop(running);
            match result {
                Ok(()) => state.completed.set(number),
                Err(error) => state.fail(kind_of(&error)),
            }
            state.ended.notify_all();
        }
        state.refuse_if_failed(Sector::ZERO)
    }
}
