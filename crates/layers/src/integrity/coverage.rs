//! What may be believed of a block whose tag does not agree with it.
//!
//! A block whose tag agrees is always given out. One whose tag does not is an error, but for two
//! answers that the format itself has:
//!
//! - Its tag says that it was **discarded**: the opening allowed that, or the tag is keyed. It is what
//!   the device below gives back.
//! - Its tag was **never said to be valid**: it lies at or beyond the recalculation's position, or
//!   this is recovery mode, which compares nothing. It is *unverified*: given out only if the opening
//!   asked for such blocks, counted, and told once.
//!
//! Neither answer ever vouches for data ([`bio::Op::Vouch`]), and a rotten copy in the journal is no
//! such block: its tag was valid when it was written.
//!
//! (Specification, sections 5.1, 8, 9.2.)

use super::{Inner, Integrity, Options};
use ::integrity::discard::DiscardTags;
use ::integrity::open::Mode;
use ::integrity::recalculate::Recalculation;
use ::integrity::{Flags, Superblock, explain};
use bio::EventKind;
use std::cell::Cell;
use units::Sector;

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
    /// Whether the block at `sector`, at home, whose tag `stored` does not agree with `data`, may be
    /// given out nevertheless. Counts it, and tells it once, either way.
    pub(super) fn give_out_unverified(&self, sector: Sector, stored: &[u8], data: &[u8]) -> bool {
        let coverage = &self.coverage;
        if !coverage.is_uncovered(sector) {
            self.tell_mismatch(sector.0, stored, data);
            return false;
        }
        if coverage.asked {
            coverage.given_out.set(coverage.given_out.get() + 1);
        }
        if self.tell_once(sector.0) {
            let what = if coverage.asked { "given out as it is" } else { "not given out" };
            let stored = explain::tag_text(stored);
            let detail = format!("its tag {stored} was never said to be valid: {what}");
            let sectors = self.layout.block.sectors();
            self.events.emit_detail(EventKind::Unverified, sector, sectors, detail);
        }
        coverage.asked
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
