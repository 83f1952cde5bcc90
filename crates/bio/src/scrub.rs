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
