//! Making copies agree that a crash may have left different.
//!
//! A window at a time, with the range locked:
//!
//! 1. The first copy that is there is read, and healed where it is damaged. It is
//!    what readers were given before, and are given after.
//! 2. The others are read and compared; where they differ or are damaged they are rewritten. Crash:
//!    the window is looked at again.
//! 3. If anything was healed or rewritten, all members are flushed. Crash before: nobody was given the copy,
//!    and another may be chosen. After: every member holds what readers are given, also if the
//!    first is lost with the power.
//! 4. The array counts as in sync up to here. The superblocks learn it when the array is idle, at
//!    checkpoints, and at the end, always after a flush of all members. Crash: it starts again at
//!    the last checkpoint.
//!
//! Members with tags vouch for each copy; both copies of an unfinished write are right, and one is
//! chosen. Members without tags can only be believed, as md does.

use super::Inner;
use super::heal::{Evidence, vouches};
use super::placement::Site;
use super::read::Copy;
use crate::array::ordering::AGREED;
use bio::{Buf, EventKind, Extent, IoErrorKind, IoResult};
use std::rc::Rc;
use std::time::Duration;
use units::Sector;

impl Inner {
    /// Runs [`Self::resync`] as a task, unless one runs or there is nothing to do.
    pub(super) fn start_resync(inner: &Rc<Self>) {
        let idle = inner.array.next_unsynced(0).is_none()
            || inner.limits.read_only
            || inner.resyncing.get()
            || inner.stop.get();
        if idle {
            return;
        }
        let tasks = inner.tasks.clone();
        let inner = Rc::clone(inner);
        tasks.spawn(async move {
            if let Err(error) = inner.resync().await {
                let detail = format!("resync stopped: {error}");
                inner.array.events().emit_detail(EventKind::Note, error.sector, 0, detail);
            }
        });
    }

    pub(super) async fn resync(&self) -> IoResult {
        if self.limits.read_only || self.resyncing.replace(true) {
            return Ok(());
        }
        let result = self.resync_windows().await;
        self.resyncing.set(false);
        self.resync_ended.notify_all();
        result
    }

    async fn resync_windows(&self) -> IoResult {
        let Some(first) = self.array.next_unsynced(0) else { return Ok(()) };
        // With one copy there is nothing to compare, and nothing is claimed of absent ones.
        if self.stop.get() || self.array.members().count() < 2 {
            return Ok(());
        }
        self.tell_start(Sector(first.start));
        let (block, mut windows) = (self.block().sectors(), 0u64);
        while let Some(next) = self.array.next_unsynced(0) {
            if next.start >= self.limits.sectors {
                // Beyond the array there is nothing to agree.
                self.array.set_in_sync(self.limits.sectors..u64::MAX);
                break;
            }
            if self.stop.get() {
                return Ok(());
            }
            let start = next.start - next.start % block;
            let end = next.end.min(start + self.window_sectors).next_multiple_of(block);
            let end = end.min(self.limits.sectors);
            self.resync_window(Extent { sector: Sector(start), sectors: end - start }).await?;
            windows += 1;
            if windows.is_multiple_of(WINDOWS_PER_CHECKPOINT) {
                self.array.settle().await?;
            }
            // Clients first.
            if self.array.in_flight() > 0 {
                runtime::sleep(YIELD).await;
            } else {
                runtime::yield_now().await;
            }
        }
        self.array.settle().await
    }

    fn tell_start(&self, start: Sector) {
        let tagged = self.array.members().all(|member| member.data().limits().verified);
        let rule = if tagged {
            "copies that differ are of unfinished writes; the first in order is kept"
        } else {
            "without tags nobody can tell which copy is newer; the first in order is kept"
        };
        let sectors = self.limits.sectors - start.0.min(self.limits.sectors);
        self.array.events().emit_detail(EventKind::Dirty, start, sectors, rule.to_owned());
    }

    async fn resync_window(&self, window: Extent) -> IoResult {
        let range = window.sector.0..window.sector.0 + window.sectors;
        let _lock = self.ranges.lock(range.clone()).await;
        let runs = self.runs(window).map(|run| self.agree(run));
        runtime::join_all(runs).await.into_iter().collect::<IoResult>()?;
        self.array.set_in_sync(range);
        Ok(())
    }

    /// Before a run is given to a reader, makes it what all members hold, if a crash may have
    /// left it different: else damage to the copy that was read would bring back another one.
    pub(super) async fn settle_for_reader(&self, run: Extent) {
        let range = run.sector.0..run.sector.0 + run.sectors;
        let settled = || self.array.in_sync(&range) || self.sites(run).len() < 2;
        if self.limits.read_only || settled() {
            return;
        }
        let _lock = self.ranges.lock(range.clone()).await;
        // What could not be rewritten is the resync's to tell; the copy to be read is there.
        if !settled() && self.agree(run).await.is_ok() {
            self.array.set_in_sync(range);
        }
    }

    /// Makes all copies of a run what the first says, durably. Called under the range's lock.
    pub(super) async fn agree(&self, run: Extent) -> IoResult {
        if self.sites(run).len() < 2 {
            // Nothing is claimed of absent copies: their members are stale.
            return Ok(());
        }
        let (first, lost) = self.reference(run).await?;
        // What was healed in the first is not durable yet either: what lies there may be newer, and be
        // readable again after a power cut.
        let mut rewritten = !first.damaged.is_empty();
        for site in self.sites(run) {
            if site.is(&first.site) {
                continue;
            }
            match self.copy_of(&site, run.sector, run.sectors, false).await {
                Ok(copy) => rewritten |= self.align(&first, &copy, &lost, run).await?,
                Err(error) if error.kind == IoErrorKind::Unavailable => {
                    self.give_up(&site.member, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        if rewritten { self.array.flush(AGREED).await } else { Ok(()) }
    }

    /// The copy that all others are to agree with, and the runs that nobody has.
    pub(super) async fn reference(&self, run: Extent) -> IoResult<(Copy, Vec<Extent>)> {
        loop {
            let first = self.sites(run).into_iter().next();
            let first = first.ok_or(IoErrorKind::Unavailable.at(run.sector))?;
            match self.copy_of(&first, run.sector, run.sectors, false).await {
                Ok(copy) => {
                    let (mut copy, lost) = self.fill(copy).await;
                    if self.tagging.is_escaped(copy.bytes.as_slice()) {
                        for (one, bytes) in self.checked_instead(run).await {
                            copy.put(one.sector, bytes.as_slice());
                        }
                    }
                    return Ok((copy, lost));
                }
                Err(error) if error.kind == IoErrorKind::Unavailable => {
                    self.give_up(&first.member, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Heals what is damaged in `copy`; blocks that nobody has are returned.
    async fn fill(&self, mut copy: Copy) -> (Copy, Vec<Extent>) {
        let block = self.block().sectors();
        let mut lost = Vec::new();
        for (run, kind) in copy.damaged.clone() {
            if let Ok(bytes) = self.heal_locked(&copy.site, run, kind).await {
                copy.put(run.sector, bytes.as_slice());
                continue;
            }
            // Part of it may be there.
            for one in blocks(run, block) {
                match self.heal_locked(&copy.site, one, kind).await {
                    Ok(bytes) => copy.put(one.sector, bytes.as_slice()),
                    Err(_) => lost.push(one),
                }
            }
        }
        (copy, lost)
    }

    /// Makes `copy` agree with `first`, except where that has nothing to give; whether it did not.
    async fn align(
        &self,
        first: &Copy,
        copy: &Copy,
        lost: &[Extent],
        window: Extent,
    ) -> IoResult<bool> {
        let differences = self.differences(first, copy, lost, window);
        let differed = !differences.is_empty();
        for (run, damaged) in differences {
            let bytes = Buf::copy_of(first.piece(run));
            if damaged {
                let vouched = vouches(&copy.site, run.sector, &bytes).await;
                // If not it stays damaged, as it was.
                let _ = self.write_back(&copy.site, run, &Evidence { bytes, vouched }).await;
                continue;
            }
            match self.rewrite(&copy.site, run, &bytes).await {
                Ok(()) => tell_resynced(&copy.site, run),
                // It holds an older copy than the others and cannot take the newer.
                Err(error) if error.kind != IoErrorKind::NoSpace => {
                    let sectors = copy.site.on_member(run.sector, run.sectors);
                    self.array.cannot_take(&copy.site.member, sectors, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(differed)
    }

    /// Runs of blocks in which `copy` is damaged (true) or differs from `first` (false).
    fn differences(
        &self,
        first: &Copy,
        copy: &Copy,
        lost: &[Extent],
        window: Extent,
    ) -> Vec<(Extent, bool)> {
        let block = self.block().sectors();
        let mut runs: Vec<(Extent, bool)> = Vec::new();
        for one in blocks(window, block) {
            let damaged = copy.damaged_at(one.sector);
            if lost.contains(&one) || (!damaged && first.piece(one) == copy.piece(one)) {
                continue;
            }
            match runs.last_mut() {
                Some((run, kind)) if *kind == damaged && run.sector + run.sectors == one.sector => {
                    run.sectors += block;
                }
                _ => runs.push((one, damaged)),
            }
        }
        runs
    }
}

pub(super) fn tell_resynced(site: &Site, run: Extent) {
    site.member.events().emit(EventKind::Resynced, site.place(run.sector), run.sectors);
}

/// The blocks of a run, one by one.
pub(super) fn blocks(run: Extent, block: u64) -> impl Iterator<Item = Extent> {
    (0..run.sectors / block)
        .map(move |index| Extent { sector: run.sector + index * block, sectors: block })
}

/// Windows between two looks at whether the superblocks can learn how far it is.
const WINDOWS_PER_CHECKPOINT: u64 = 512;
/// Pause between windows while clients write.
const YIELD: Duration = Duration::from_millis(5);
