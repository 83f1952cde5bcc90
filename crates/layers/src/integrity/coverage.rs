//! What may be believed of a block whose tag does not agree with it.
//!
//! A block whose tag agrees is always given out. One whose tag does not is an error, but for two
//! answers that the format itself has:
//!
//! - Its tag says that it was **discarded**: the opening allowed that, or the tag is keyed. It is what
//!   the device below gives back.
//! - Its tag **need not be valid**: it lies at or beyond the recalculation's position, in a region that
//!   a crash in bitmap mode left in doubt, or this is recovery mode, which compares nothing. It is
//!   *unverified*: given out only if the opening asked for such blocks, counted, and told once.
//!
//! In a doubtful region nobody can tell an unfinished write from damage. Unless such blocks were asked
//! for they are mismatches like all others.
//!
//! Neither answer ever vouches for data ([`bio::Op::Vouch`]), and a rotten copy in the journal is no
//! such block: its tag was valid when it was written.
//!
//! (Specification, sections 5.1, 7, 8, 9.2.)

use super::{Inner, Integrity, Journal, Options};
use ::integrity::discard::DiscardTags;
use ::integrity::open::Mode;
use ::integrity::recalculate::Recalculation;
use ::integrity::{Flags, Superblock};
use bio::EventKind;
use std::cell::Cell;
use units::{Sector, u64_of};

/// The one place that knows which tags may disagree.
pub(super) struct Coverage {
    /// Which tags stand for a discarded block.
    pub discards: DiscardTags,
    /// Whether new ones are to be written.
    pub discards_asked: bool,
    /// Tags at and beyond its position were never said to be valid; none: all were.
    recalculation: Cell<Option<Recalculation>>,
    /// Nothing is compared.
    recovery: bool,
    /// Whoever opened the volume asked for unverified blocks.
    asked: bool,
    /// Unverified blocks that were given out.
    given_out: Cell<u64>,
}

impl Coverage {
    /// As `superblock` says, for an opening with `options`.
    pub fn new(superblock: &Superblock, options: &Options) -> Self {
        let flags = superblock.flags;
        // Keyed tags are authentic: nobody has to allow what the key's owner wrote.
        let keyed = flags.has(Flags::DISCARD_KEYED) && options.has_key();
        let allowed = keyed || (options.allow_discards && !flags.has(Flags::DISCARD_KEYED));
        Self {
            discards: DiscardTags::of(flags, allowed),
            discards_asked: options.allow_discards,
            recalculation: Cell::new(Recalculation::of(superblock)),
            recovery: options.mode == Some(Mode::Recovery),
            asked: options.unverified,
            given_out: Cell::new(0),
        }
    }

    /// How far recalculation has come, if there ever was one.
    pub fn recalculation(&self) -> Option<Recalculation> {
        self.recalculation.get()
    }

    /// What recalculation has still to do, as first sector and sectors; none if nothing.
    pub fn to_be_recalculated(&self) -> Option<(Sector, u64)> {
        let state = self.recalculation.get().filter(|state| !state.is_finished())?;
        Some((Sector(state.position()), state.left()))
    }

    /// Recalculation has come so far.
    pub fn recalculated(&self, state: Recalculation) {
        self.recalculation.set(Some(state));
    }

    /// Whether the tag of the block at `sector` was never said to be valid.
    pub fn is_uncovered(&self, sector: Sector) -> bool {
        let beyond = |state: Recalculation| state.covered(sector, 1) == 0;
        self.recovery || self.recalculation.get().is_some_and(beyond)
    }
}

impl Inner {
    /// Why the tag of the block at `sector`, at home, need not agree with its data; none if it must.
    pub(super) fn excuse(&self, sector: Sector) -> Option<Excuse> {
        let coverage = &self.coverage;
        if coverage.is_uncovered(sector) {
            return Some(Excuse::NeverValid);
        }
        (coverage.asked && self.is_suspect(sector)).then_some(Excuse::InDoubt)
    }

    /// Whether a crash in bitmap mode left the block at `sector` in doubt.
    fn is_suspect(&self, sector: Sector) -> bool {
        if let Journal::Direct(direct) = &self.journal
            && let Some(regions) = &direct.regions
        {
            return regions.is_suspect(sector, self.layout.block.sectors());
        }
        let after = self.suspect.partition_point(|(from, _)| *from <= sector);
        after.checked_sub(1).is_some_and(|index| {
            let (from, sectors) = self.suspect[index];
            sector < from + sectors
        })
    }

    /// Whether blocks that have an [`Excuse`] are given out.
    pub(super) fn gives_out_unverified(&self) -> bool {
        self.coverage.asked
    }

    /// Counts blocks with an excuse, and tells of those that were not told of: neighbours at once.
    pub(super) fn tell_unverified(&self, found: &[(Sector, Excuse)]) {
        let (coverage, block) = (&self.coverage, self.layout.block.sectors());
        if coverage.asked {
            coverage.given_out.set(coverage.given_out.get() + u64_of(found.len()));
        }
        let untold = found.iter().filter(|(sector, _)| self.tell_once(sector.0));
        let untold: Vec<(Sector, Excuse)> = untold.copied().collect();
        for run in untold.chunk_by(|a, b| a.0 + block == b.0 && a.1 == b.1) {
            let what = if coverage.asked { "given out as it is" } else { "not given out" };
            let detail = format!("{}: {what}", run[0].1.text());
            let sectors = u64_of(run.len()) * block;
            self.events.emit_detail(EventKind::Unverified, run[0].0, sectors, detail);
        }
    }
}

/// Why a tag need not agree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Excuse {
    /// It was never said to be valid.
    NeverValid,
    /// Its region was being written when bitmap mode ended.
    InDoubt,
}

impl Excuse {
    const fn text(self) -> &'static str {
        match self {
            Self::NeverValid => "its tag was never said to be valid",
            Self::InDoubt => "was being written when bitmap mode ended, and its tag does not fit",
        }
    }
}

impl Integrity {
    /// Blocks that nothing vouches for and that were given out because the opening asked for such
    /// blocks ([`Options::unverified`]), since opening. A block that is read twice counts twice.
    #[must_use]
    pub fn unverified(&self) -> u64 {
        self.inner.coverage.given_out.get()
    }

    /// The first sector whose tag was not yet recalculated, the volume's end when all were; none for
    /// a volume that was never recalculated.
    #[must_use]
    pub fn recalculated(&self) -> Option<Sector> {
        self.inner.coverage.recalculation().map(|state| Sector(state.position()))
    }
}
