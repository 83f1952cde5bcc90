//! Redundancy of an array that was found dirty is made true, stripe after stripe, from the start of
//! what is not known to be in sync.
//!
//! Each step locks some stripes, reads all of them verified, and stores parity where it disagrees
//! with the data. The position then moves on; it reaches the superblocks when the array is idle,
//! after the members were flushed. A crash in between leaves an older position: some stripes are
//! compared again.
//!
//! With a member missing there is nothing to compare: the position stays, and the array dirty.

use super::Inner;
use super::heal::Healing;
use bio::{EventKind, IoResult};
use std::rc::Rc;
use std::time::Duration;

/// Runs the resync in the background, unless it runs or there is nothing to do.
pub(super) fn start(inner: &Rc<Inner>) {
    let Some(position) = inner.rows.position() else { return };
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
        } else if inner.rows.position().is_none() {
            let first = position / inner.geometry.chunk_sectors();
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
        let Some(position) = self.rows.position() else { return Ok(false) };
        if self.limits.read_only || self.array.missing_count() > 0 {
            return Ok(false);
        }
        let chunk = self.geometry.chunk_sectors();
        let first = position / chunk;
        let end = (first + self.stripes_per_step()).min(self.stripes);
        if first < end {
            self.verify(first..end, Healing::Write, false).await?;
            // A member that failed meanwhile took its part of the comparison with it.
            if self.array.missing_count() > 0 {
                return Ok(false);
            }
        }
        if end < self.stripes {
            self.rows.set_position(Some(end * chunk));
            self.publish();
            return Ok(true);
        }
        self.rows.set_position(None);
        self.publish();
        self.array.settle().await?;
        Ok(false)
    }
}

const STEP_SECTORS: u64 = 2048;
const STEPS_PER_CHECKPOINT: u64 = 512;
const COURTESY: Duration = Duration::from_millis(2);
