//! Linear and RAID 0: every sector on one member.
//!
//! ```text
//!   a request                 |   run   |   run   |  run |
//!                                  |         |        |
//!   Stripes::locate              member    member   member      at once, then joined
//! ```
//! The layer cuts requests where a run on a member ends, moves their addresses, and passes them on. It
//! has no redundancy: what a member cannot give is an error for exactly that sector of the volume, told
//! once, and every member has to be there. Nothing that is written makes the superblocks untrue (there
//! is nothing to be in sync), so they are not touched.
//!
//! A crash leaves what it leaves on each member: flushed is there, unflushed is old or new block by
//! block. A flush completes when every member's has; if one fails, writing ends, since what that member
//! acknowledged may be gone.

use crate::array::ordering::PROMISE;
use crate::array::{Array, Disagreement, Member, in_runs, submit_at};
use bio::{
    Allocation, Bio, BlockDevice, Device, EventKind, Extent, Finding, Findings, IoErrorKind,
    IoResult, Limits, LocalFuture, Op, Scrub, ScrubMode,
};
use md::geometry::{Run, Stripes};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use units::Sector;

/// The layer. Writing ones are [closed](Self::close).
pub struct Striped {
    array: Rc<Array>,
    stripes: Stripes,
    limits: Limits,
    /// Sectors whose loss was told already.
    told: RefCell<HashSet<u64>>,
}

/// Why members cannot be such an array.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StripedError {
    /// A slot is empty, and nothing else has what it held.
    #[error("slot {slot} has no member, and without redundancy every one is needed")]
    Missing {
        /// The slot.
        slot: usize,
    },
    /// Members keep different tags.
    #[error(transparent)]
    Tags(#[from] Disagreement),
    /// A run would begin within a block.
    #[error("runs of {sectors} sectors are not whole blocks of {block} bytes")]
    Unaligned {
        /// A chunk, or all that is used of a member.
        sectors: u64,
        /// The largest logical block among the members, in bytes.
        block: usize,
    },
}

impl Striped {
    /// The array that `stripes` describes over `array`'s members. Nothing is written.
    ///
    /// # Errors
    /// [`StripedError`] if a member is missing, members keep different tags, or a block would lie on
    /// two members.
    pub fn new(array: Rc<Array>, stripes: Stripes) -> Result<Rc<Self>, StripedError> {
        let empty = (0..array.raid_disks()).find(|&slot| array.member(slot).is_none());
        if let Some(slot) = empty.or_else(|| (array.raid_disks() == 0).then_some(0)) {
            return Err(StripedError::Missing { slot });
        }
        array.tagging()?;
        let mut limits = array.common_limits().expect("there are members");
        let block = limits.logical_block;
        let unaligned = stripes.run_lengths().find(|&sectors| !block.divides(sectors));
        if let Some(sectors) = unaligned {
            return Err(StripedError::Unaligned { sectors, block: block.bytes() });
        }
        limits.sectors = stripes.array_sectors();
        // Nothing can be out of sync, whatever the superblocks say.
        array.set_in_sync(0..u64::MAX);
        Ok(Rc::new(Self { array, stripes, limits, told: RefCell::default() }))
    }

    /// As a device.
    #[must_use]
    pub fn device(self: &Rc<Self>) -> Device {
        Device::shared(Rc::clone(self))
    }

    /// Makes durable what was written. Writes after this fail with `Unavailable`.
    ///
    /// # Errors
    /// What the members say.
    pub async fn close(&self) -> IoResult {
        // The superblocks were never said to be dirty, so becoming clean flushes nothing.
        let flushed = match self.limits.read_only {
            true => Ok(()),
            false => self.array.flush(PROMISE).await,
        };
        flushed.and(self.array.close().await)
    }

    fn locate(&self, sector: Sector) -> IoResult<(Run, Rc<Member>)> {
        let run = self.stripes.locate(sector);
        let member = self.array.member(run.slot);
        Ok((run, member.ok_or(IoErrorKind::Unavailable.at(sector))?))
    }

    /// Does what lies in one run on its member. Errors come back in the array's addresses.
    async fn pass(&self, bio: &mut Bio) -> IoResult {
        let (run, member) = self.locate(bio.sector)?;
        submit_at(member.data(), bio, run.member_sector).await
    }

    async fn read(&self, bio: &mut Bio) -> IoResult {
        let result = self.pass(bio).await;
        if let Err(error) = result
            && error.kind.is_damage()
        {
            let block = self.limits.logical_block.sectors();
            self.lost(Extent { sector: error.sector, sectors: block });
        }
        result
    }

    /// Says once that nobody has it.
    fn lost(&self, extent: Extent) {
        let mut told = self.told.borrow_mut();
        if told.len() < TOLD_MAX && told.insert(extent.sector.0) {
            self.array.events().emit(EventKind::Lost, extent.sector, extent.sectors);
        }
    }

    async fn write(&self, bio: &mut Bio) -> IoResult {
        self.array.refuse_writing().map_err(|error| error.kind.at(bio.sector))?;
        let end = bio.end();
        let run = |sector| self.stripes.locate(sector).sectors;
        let result = in_runs(bio, run, async |piece| self.pass(piece).await).await;
        if result.is_ok() {
            // What was lost there is no longer.
            self.told.borrow_mut().retain(|told| !(bio.sector.0..end.0).contains(told));
        }
        result
    }

    /// Reads a run past every cache, in ever smaller parts where it fails.
    async fn look(&self, run: Extent) -> Findings {
        let mut findings = Findings { checked_sectors: run.sectors, ..Findings::default() };
        let block = self.limits.logical_block.sectors();
        let mut parts = vec![run];
        while let Some(part) = parts.pop() {
            let mut bio = Bio::read(part.sector, part.sectors).bypassing();
            let Err(error) = self.pass(&mut bio).await else { continue };
            if error.kind.is_damage() && part.sectors > block {
                // Later parts first, so that the earlier is popped next.
                let half = (part.sectors / 2).next_multiple_of(block);
                let (sector, sectors) = (part.sector + half, part.sectors - half);
                parts.push(Extent { sector, sectors });
                parts.push(Extent { sector: part.sector, sectors: half });
                continue;
            }
            self.lost(part);
            findings.found.push((Finding::Unreadable, None, part));
        }
        findings
    }

    async fn look_at(&self, window: Extent) -> Findings {
        let (mut at, end) = (window.sector, window.sector + window.sectors);
        let mut findings = Findings::default();
        while at < end {
            let mut runs = Vec::new();
            while at < end && runs.len() < RUNS_MAX {
                let sectors = self.stripes.locate(at).sectors.min(end - at);
                runs.push(self.look(Extent { sector: at, sectors }));
                at += sectors;
            }
            for found in runtime::join_all(runs).await {
                findings.merge(found);
            }
        }
        findings
    }
}

impl BlockDevice for Striped {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let run = |sector| self.stripes.locate(sector).sectors;
        match bio.op {
            Op::Read => in_runs(bio, run, async |piece| self.read(piece).await).await,
            Op::Write { .. } | Op::Discard { .. } | Op::WriteZeroes { .. } => self.write(bio).await,
            Op::Flush if self.limits.read_only => Ok(()),
            Op::Flush => self.array.flush(PROMISE).await,
            Op::Vouch | Op::Peek { .. } => {
                in_runs(bio, run, async |piece| self.pass(piece).await).await
            }
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let (run, member) = self.locate(sector)?;
        let sectors = sectors.min(run.sectors);
        let result = member.data().allocation(run.member_sector, sectors).await;
        result.map_err(|error| error.kind.at(sector))
    }
}

impl Scrub for Striped {
    fn steps(&self) -> u64 {
        self.limits.sectors.div_ceil(WINDOW_SECTORS)
    }

    fn step_extent(&self, step: u64) -> Extent {
        let end = self.limits.sectors;
        let sector = step.saturating_mul(WINDOW_SECTORS).min(end);
        Extent { sector: Sector(sector), sectors: WINDOW_SECTORS.min(end - sector) }
    }

    fn scrub(&self, step: u64, _mode: ScrubMode) -> LocalFuture<'_, Findings> {
        // There is nothing to repair with.
        Box::pin(self.look_at(self.step_extent(step)))
    }
}

/// Sectors that a step of a scrub reads: 1 MiB.
const WINDOW_SECTORS: u64 = 2048;
/// Runs that a scrub reads at once.
const RUNS_MAX: usize = 64;
/// Places remembered so as not to be told twice.
const TOLD_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests;
