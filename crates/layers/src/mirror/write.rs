//! Writing to all members.
//!
//! 1. The array is marked dirty, if it is not (see [`crate::array`]). Crash: dirty, no difference.
//! 2. The range is locked: overlapping writes reach every member in the same order.
//! 3. All members are written together. Crash: some have it, some have not; the array is dirty,
//!    and resync makes them agree.
//! 4. What a member's medium did not take is recorded in its bad block log; members that did not take it
//!    otherwise are failed, which is recorded on the others. Crash: as 3, or they are stale.
//! 5. The write completes, and lets the array become clean again.
//!
//! A write that no member took, or that some could not take for lack of space, is an error to the
//! client, and the copies may differ: the array counts as not in sync from there on until they
//! were made to agree.

use super::Inner;
use super::placement::Site;
use crate::array::{Member, in_runs};
use bio::{Bio, Extent, IoError, IoErrorKind, IoResult, Op, Segments};
use std::collections::BTreeSet;
use std::ops::Range;
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
            return outcome;
        }
        match bio.op {
            Op::Write { fua: true } => self.array.recorded().await,
            _ => Ok(()),
        }
    }

    /// Steps 3 and 4 for what lies in one run.
    async fn write_run(&self, bio: &Bio) -> IoResult {
        let run = Extent { sector: bio.sector, sectors: bio.sectors() };
        let writes = self.targets(run).into_iter().map(|site| async move {
            let failures = self.write_one(&site, bio).await;
            if failures.is_empty() {
                site.set_filled(run);
            }
            failures
        });
        let outcomes = runtime::join_all(writes).await;
        let copies = outcomes.len();
        let failures: Vec<Failure> = outcomes.into_iter().flatten().collect();
        if failures.is_empty() && copies > 0 {
            return Ok(());
        }
        let outcome = self.settle_failures(bio, copies, failures).await;
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

    /// Steps 4 and 5 for a write to so many copies that not all of them took.
    async fn settle_failures(&self, bio: &Bio, copies: usize, failures: Vec<Failure>) -> IoResult {
        if copies == 0 {
            return Err(IoErrorKind::Unavailable.at(bio.sector));
        }
        let mut outcome = Ok(());
        for failure in &failures {
            let same = failures.iter().filter(|other| other.overlaps(failure));
            let without =
                same.map(|other| Rc::as_ptr(&other.member)).collect::<BTreeSet<_>>().len();
            let settled = match failure.error.kind {
                // Space may be made; the member is as good as before, but without this write.
                IoErrorKind::NoSpace => Err(failure.error),
                _ if without >= copies => Err(failure.error),
                _ => {
                    let sectors = failure.on_member.clone();
                    self.array.cannot_take(&failure.member, sectors, failure.error).await
                }
            };
            outcome = outcome.and(settled);
        }
        outcome
    }

    /// Writes to one member, and once more block by block if it could not take all of it. What it did
    /// not take.
    async fn write_one(&self, site: &Site, bio: &Bio) -> Vec<Failure> {
        let failure = |sector: Sector, sectors: u64, error| Failure {
            member: Rc::clone(&site.member),
            sectors: sector.0..sector.0 + sectors,
            on_member: site.on_member(sector, sectors),
            error,
        };
        let mut whole = part(bio, (bio.data.clone(), bio.tags.clone()), bio.sector);
        let result = site.submit(&mut whole).await;
        let Err(error) = result else { return Vec::new() };
        if !error.kind.is_damage() || !matches!(bio.op, Op::Write { .. }) {
            return vec![failure(bio.sector, bio.sectors(), error)];
        }
        let (block, mut failures) = (self.block(), Vec::new());
        for index in 0..bio.sectors() / block.sectors() {
            let nth = |all: &Segments, each: usize| {
                let at = usize_of(index) * each;
                all.slice(at..at + each)
            };
            let tag_size = if bio.tags.is_empty() { 0 } else { self.tagging.tag_size() };
            let both = (nth(&bio.data, block.bytes()), nth(&bio.tags, tag_size));
            let sector = bio.sector + index * block.sectors();
            if let Err(error) = site.submit(&mut part(bio, both, sector)).await {
                failures.push(failure(sector, block.sectors(), error));
            }
        }
        failures
    }
}

/// What one member did not take.
struct Failure {
    member: Rc<Member>,
    /// Of the array.
    sectors: Range<u64>,
    /// The same, of the member's data.
    on_member: Range<u64>,
    error: IoError,
}

impl Failure {
    fn overlaps(&self, other: &Self) -> bool {
        self.sectors.start < other.sectors.end && other.sectors.start < self.sectors.end
    }
}

/// The part of a write that has this data, these tags, and begins at `sector`.
fn part(bio: &Bio, (data, tags): (Segments, Segments), sector: Sector) -> Bio {
    Bio { op: bio.op, sector, data, tags, bypass: false, reason: bio.reason }
}
