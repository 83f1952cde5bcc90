//! Redundancy of an array that was found dirty is made true, stripe after stripe, of what is not
//! known to be in sync.
//!
//! Each step locks some stripes, reads all of them verified, and stores parity where it disagrees
//! with the data. Up to where redundancy is true reaches the superblocks when the array is idle,
//! after the members were flushed. A crash in between leaves an older position: some stripes are
//! compared again. Rows with lost data stay as they are, and the array dirty.
//!
//! With a member missing there is nothing to compare, and nothing changes.

use super::Inner;
use super::heal::Healing;
use bio::{EventKind, IoResult};
use std::rc::Rc;
use std::time::Duration;

/// Runs the resync in the background, unless it runs or there is nothing to do.
pub(super) fn start(inner: &Rc<Inner>) {
    let Some(first) = inner.array.next_unsynced(0) else { return };
    if inner.limits.read_only || inner.closing.get() || inner.resyncing.replace(true) {
        return;
    }
    let tasks = inner.tasks.clone();
    let inner = Rc::clone(inner);
    tasks.spawn(async move {
        let result = run(&inner).await;
        if let Err(error) = result {
            let detail = format!("the resync stopped: {error}");
            inner.array.events().emit_detail(EventKind::Note, error.sector, 0, detail);
        } else if inner.array.next_unsynced(0).is_none() {
            let first = first.start / inner.geometry.chunk_sectors();
            let extent = inner.extent_of(&(first..inner.stripes));
            inner.array.events().emit(EventKind::Resynced, extent.sector, extent.sectors);
        }
        inner.resyncing.set(false);
    });
}

async fn run(inner: &Inner) -> IoResult {
    let mut steps = 0u64;
    while !inner.closing.get() && inner.resync_step().await? {
        steps += 1;
        if steps.is_multiple_of(STEPS_PER_CHECKPOINT) {
            inner.array.settle().await?;
        }
        // Whoever serves clients comes first.
        if inner.locks.entries() > 0 {
            runtime::sleep(COURTESY).await;
        } else {
            runtime::yield_now().await;
        }
    }
    Ok(())
}

impl Inner {
    /// Stripes of one step: about a MiB of each member.
    pub(super) fn stripes_per_step(&self) -> u64 {
        (STEP_SECTORS / self.geometry.chunk_sectors()).max(1)
    }

    /// See [`super::Raid456::resync_step`].
    pub(super) async fn resync_step(&self) -> IoResult<bool> {
        if self.limits.read_only || self.array.missing_count() > 0 {
            return Ok(false);
        }
        let chunk = self.geometry.chunk_sectors();
        let next = self.array.next_unsynced(self.resynced_to.get());
        let Some(next) = next else {
            self.resynced_to.set(0);
            self.array.settle().await?;
            return Ok(false);
        };
        let first = next.start / chunk;
        let end = next.end.div_ceil(chunk).min(first + self.stripes_per_step()).min(self.stripes);
        self.verify(first..end, Healing::Write, false).await?;
        // A member that failed meanwhile took its part of the comparison with it.
        if self.array.missing_count() > 0 {
            return Ok(false);
        }
        self.resynced_to.set(end * chunk);
        Ok(true)
    }
}

const STEP_SECTORS: u64 = 2048;
const STEPS_PER_CHECKPOINT: u64 = 512;
const COURTESY: Duration = Duration::from_millis(2);
