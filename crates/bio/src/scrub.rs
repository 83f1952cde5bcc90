//! How a volume is read whole, past every cache, and what is found.
//!
//! Every layer that keeps redundancy or tags answers [`Scrub`]; the driver (crate `scrub`) walks
//! the range in steps, shows progress and adds up the findings.

use crate::LocalFuture;
use std::rc::Rc;
use units::Sector;

/// What a scrub may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ScrubMode {
    /// Writes nothing, ever.
    Check,
    /// Heals what a checksum decides.
    Repair,
    /// The same, and what an operator decides.
    Decide(Decision),
}

impl ScrubMode {
    /// Whether anything may be written.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Check)
    }

    /// What an operator decided.
    #[must_use]
    pub fn decision(self) -> Decision {
        match self {
            Self::Decide(decision) => decision,
            Self::Check | Self::Repair => Decision::default(),
        }
    }
}

/// What an operator decides about redundancy that disagrees where no tag does. Only what is listed as
/// [`Finding::Inferred`] or [`Finding::Inconsistent`] is touched by it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Decision {
    /// What redundancy alone names as wrong is written.
    pub inferred: bool,
    /// What is to be believed.
    pub trust: Option<Trust>,
}

/// What is to be believed where redundancy disagrees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// Parity: all data; parity is made of it anew.
    Data,
    /// RAID 6: P and Q; the one data strip that they name is computed from them. Where they name
    /// none, nothing is done.
    Parity,
    /// Mirrors: the copy of this slot; the others get it.
    Member(usize),
    /// Everybody but this slot, if the others agree among themselves: it gets what they say.
    AllBut(usize),
}

/// A run of sectors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// The first sector.
    pub sector: Sector,
    /// How many.
    pub sectors: u64,
}

/// What was wrong with one run of sectors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Damaged on a member; rebuilt, written back and read again.
    Healed,
    /// Damaged on a member; redundancy has it; nothing was written.
    Healable,
    /// Damaged, and nothing can give it back.
    Unreadable,
    /// All tags are valid (or there are none) and the redundancy disagrees.
    Inconsistent,
    /// There are no tags, and the redundancy alone names this block as the wrong one: P and Q, or
    /// most of the copies. That is likely, not proven; nothing was written.
    Inferred,
    /// Written as an operator decided, and read again.
    Decided,
    /// An unfinished write of an unclean array: redundancy was made true again.
    Resynced,
}

/// What one scrub step found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Member sectors read and checked.
    pub checked_sectors: u64,
    /// Each finding: what, on which member (none: a whole stripe, in volume sectors), where.
    pub found: Vec<(Finding, Option<Rc<str>>, Extent)>,
}

impl Findings {
    /// Adds one finding, joining it to the last if it continues that.
    pub fn push(&mut self, finding: Finding, member: Option<Rc<str>>, extent: Extent) {
        if let Some((last, of, run)) = self.found.last_mut()
            && *last == finding
            && *of == member
            && run.sector + run.sectors == extent.sector
        {
            run.sectors += extent.sectors;
            return;
        }
        self.found.push((finding, member, extent));
    }

    /// Adds what another step found.
    pub fn merge(&mut self, other: Self) {
        self.checked_sectors += other.checked_sectors;
        self.found.extend(other.found);
    }
}

/// A layer that can be read whole.
pub trait Scrub {
    /// The length of what is walked, in steps. Each step is a bounded piece of work (at most a few
    /// MiB of each member).
    fn steps(&self) -> u64;

    /// The volume's sectors that step `step` stands for (the part of the volume that is hurt if it
    /// is unreadable). May be empty beyond the end of the volume.
    fn step_extent(&self, step: u64) -> Extent;

    /// Does step `step`: reads every sector of every member concerned, past every cache.
    fn scrub(&self, step: u64, mode: ScrubMode) -> LocalFuture<'_, Findings>;
}
