//! Writing to all members.
//!
//! 1. The array is marked dirty, if it is not (see [`crate::array`]). Crash: dirty, no difference.
//! 2. The range is locked: overlapping writes reach every member in the same order.
//! 3. All members are written together. Crash: some have it, some have not; the array is dirty,
//!    and resync makes them agree.
//! 4. Members that did not take it are failed, which is recorded on the others. Crash: as 3, or
//!    they are stale.
//! 5. The write completes, and lets the array become clean again.
//!
//! A write that no member took, or that some could not take for lack of space, is an error to the
//! client, and the copies may differ: the array counts as not in sync from there on until they
//! were made to agree.

use super::Inner;
use super::placement::Site;
use crate::array::{Member, in_runs};
use bio::{Bio, Extent, IoError, IoErrorKind, IoResult, Op, Segments};
use std::rc::Rc;
use units::{Sector, usize_of};

impl Inner {
    pub(super) async fn write(self: &Rc<Self>, bio: &mut Bio) -> IoResult {
        let range = bio.sector.0..bio.end().0;
        let intent = self.array.begin_write(range.clone()).await;
        let _intent = intent.map_err(|error| error.kind.at(bio.sector))?;
        let _lock = self.ranges.lock(range).await;
        let run = |sector| self.run_sectors(sector);
        let outcome = in_runs(bio, run, async |piece| self.write_run(piece).await).await;
        if outcome.is_err() {
            Self::start_resync(self);
        }
        outcome
    }

    /// Steps 3 and 4 for what lies in one run.
    async fn write_run(&self, bio: &Bio) -> IoResult {
        let run = Extent { sector: bio.sector, sectors: bio.sectors() };
        let writes = self.targets(run).into_iter().map(|site| async move {
            let result = self.write_one(&site, bio).await;
            if result.is_ok() {
                site.set_filled(run);
            }
            (site.member, result)
        });
        let outcomes = runtime::join_all(writes).await;
        let written = outcomes.iter().filter(|(_, result)| result.is_ok()).count();
        let failures: Vec<(Rc<Member>, IoError)> = outcomes
            .into_iter()
            .filter_map(|(member, result)| result.err().map(|error| (member, error)))
            .collect();
        if failures.is_empty() && written > 0 {
            return Ok(());
        }
        let outcome = self.settle_failures(bio, written, failures).await;
        if outcome.is_err() {
            // Copies are made to agree; a member on its way is filled anew instead.
            let targets = self.targets(run).into_iter();
            targets.filter(|site| site.member.is_on_its_way()).for_each(|site| {
                site.set_lacking(run);
            });
            self.array.set_unsynced(bio.sector.0..bio.end().0);
        }
        outcome
    }

    /// Steps 4 and 5 for a write that not everybody took.
    async fn settle_failures(
        &self,
        bio: &Bio,
        written: usize,
        failures: Vec<(Rc<Member>, IoError)>,
    ) -> IoResult {
        if written == 0 {
            let first = failures.first().map(|(_, error)| *error);
            return Err(first.unwrap_or(IoErrorKind::Unavailable.at(bio.sector)));
        }
        let mut outcome = Ok(());
        for (member, error) in failures {
            // Space may be made; the member is as good as before, but without this write.
            let settled = match error.kind {
                IoErrorKind::NoSpace => Err(error),
                _ => self.array.fail(&member, error).await,
            };
            outcome = outcome.and(settled);
        }
        outcome
    }

    /// Writes to one member, and once more block by block if it could not take all of it.
    async fn write_one(&self, site: &Site, bio: &Bio) -> IoResult {
        let result = site.submit(&mut part(bio, bio.data.clone(), bio.sector)).await;
        let retry = result.is_err_and(|error| error.kind.is_damage());
        if !retry || !matches!(bio.op, Op::Write { .. }) {
            return result;
        }
        let block = self.block();
        for index in 0..bio.sectors() / block.sectors() {
            let at = usize_of(index) * block.bytes();
            let data = bio.data.slice(at..at + block.bytes());
            let sector = bio.sector + index * block.sectors();
            site.submit(&mut part(bio, data, sector)).await?;
        }
        Ok(())
    }
}

/// The part of a write that has `data` and begins at `sector`.
fn part(bio: &Bio, data: Segments, sector: Sector) -> Bio {
    Bio {
        op: bio.op,
        sector,
        data,
        tags: Segments::default(),
        seed: bio.seed + (sector - bio.sector),
        bypass: false,
        reason: bio.reason,
    }
}
