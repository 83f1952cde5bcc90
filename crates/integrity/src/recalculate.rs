//! Recalculation: tags are computed from the data on disk, from the first sector to the last.
//!
//! ```text
//!   0                  recalc sector                         provided sectors
//!   | tags are valid    | tags mean nothing yet               |
//!                       | one step, within a run |
//! ```
//!
//! It makes volumes that were never wiped readable, and blesses whatever lies there: it cannot know
//! better. The flag stays set when it has finished; then the recalc sector is the end.
//!
//! A step, and what a crash after each part leaves: tags of a step are written (the position on disk
//! is older: the step is done again from the same data), they become durable (the same), the
//! superblock is written with the new position (it is true). Never the last before the second: tags
//! that were not written would be called valid.
//!
//! (Specification, section 9.)

use crate::layout::{Layout, Run};
use crate::superblock::{Flags, Superblock};
use units::Sector;

/// Sectors that one step covers at most.
pub const STEP_SECTORS: u64 = 32_768;
/// After so many steps the superblock is written.
pub const STEPS_PER_SUPERBLOCK: u32 = 16;

/// How far a recalculation has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recalculation {
    next: u64,
    provided: u64,
    steps_unsaved: u32,
}

impl Recalculation {
    /// The one that `superblock` tells of; none without [`Flags::RECALCULATING`]. A position behind
    /// the end means the end (section 9.4), one within a block (no kernel stores such) its start.
    #[must_use]
    pub fn of(superblock: &Superblock) -> Option<Self> {
        let provided = superblock.provided_sectors;
        let next = superblock.recalc_sector.min(provided);
        let next = next - next % superblock.block.sectors();
        let marked = superblock.flags.has(Flags::RECALCULATING);
        marked.then_some(Self { next, provided, steps_unsaved: 0 })
    }

    /// A new one, of all `provided` sectors.
    #[must_use]
    pub const fn from_the_start(provided: u64) -> Self {
        Self { next: 0, provided, steps_unsaved: 0 }
    }

    /// The first sector whose tag is not valid; the end when it has finished. This is what the
    /// superblock stores.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// How many sectors, to the end, have tags that are not valid.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.provided - self.next
    }

    /// Whether all tags are valid.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.next == self.provided
    }

    /// How many sectors at the head of a range have valid tags. The rest may be read, but nothing
    /// vouches for it.
    #[must_use]
    pub fn covered(&self, sector: Sector, sectors: u64) -> u64 {
        self.next.saturating_sub(sector.0).min(sectors)
    }

    /// Whether the kernel verifies a read: all of it or nothing (section 9.2).
    #[must_use]
    pub fn kernel_verifies(&self, sector: Sector, sectors: u64) -> bool {
        self.covered(sector, sectors) == sectors
    }

    /// What is to be computed next; none when it has finished.
    #[must_use]
    pub fn step(&self, layout: &Layout) -> Option<Run> {
        let left = self.left();
        (left > 0).then(|| layout.run(Sector(self.next), left.min(STEP_SECTORS)))
    }

    /// The tags of `step` were written. Whether the superblock is to be written now, when they are
    /// durable: after 16 steps and at the end. (Whoever stops in between does so too, or does those
    /// steps again.)
    ///
    /// # Panics
    /// If `step` does not start at the position.
    pub fn advance(&mut self, step: &Run) -> bool {
        assert_eq!(step.sector.0, self.next, "steps follow each other");
        self.next += step.sectors;
        self.steps_unsaved += 1;
        let due = self.steps_unsaved == STEPS_PER_SUPERBLOCK || self.is_finished();
        if due {
            self.steps_unsaved = 0;
        }
        due
    }
}

/// The keys of a volume that is opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Keys {
    /// The tags are keyed.
    pub integrity: bool,
    /// The journal has a MAC with a key.
    pub journal_mac: bool,
}

/// Recalculation would let somebody who can change the disk have any data blessed by the key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("recalculating the tags of this volume would sign whatever lies on the disk with its key")]
pub struct Insecure;

/// Whether tags may be recalculated at all (section 9.3). `legacy` is the word of somebody who wants
/// it in spite of that.
///
/// # Errors
/// [`Insecure`].
pub fn permit(flags: Flags, keys: Keys, legacy: bool) -> Result<(), Insecure> {
    let insecure = if flags.has(Flags::FIX_HMAC) {
        keys.integrity && !keys.journal_mac
    } else {
        keys.integrity || keys.journal_mac
    };
    if insecure && !legacy { Err(Insecure) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DeviceSectors, FormatOptions, format};
    use proptest::prelude::*;
    use units::BlockSize;

    fn volume(mib: u64) -> (Superblock, Layout) {
        let options = FormatOptions::new(BlockSize::B512, 4, [1; 16]);
        format(DeviceSectors::Interleaved(mib * 2048), &options).unwrap()
    }

    #[test]
    fn a_volume_takes_a_step_a_run_and_saves_every_sixteenth() {
        let (mut superblock, layout) = volume(1000);
        assert_eq!(Recalculation::of(&superblock), None);
        superblock.flags = superblock.flags.with(Flags::RECALCULATING);
        let mut state = Recalculation::of(&superblock).unwrap();
        let mut saved = Vec::new();
        let mut steps = 0;
        while let Some(step) = state.step(&layout) {
            steps += 1;
            assert_eq!(step.sector.0 % 32_768, 0);
            if state.advance(&step) {
                saved.push(state.position());
            }
        }
        // 2016280 sectors are 61.5 steps.
        assert_eq!(steps, 62);
        assert_eq!(saved, [524_288, 1_048_576, 1_572_864, 2_016_280]);
        assert!(state.is_finished());
    }

    #[test]
    fn a_position_behind_the_end_is_the_end() {
        let (mut superblock, layout) = volume(16);
        superblock.flags = superblock.flags.with(Flags::RECALCULATING);
        superblock.recalc_sector = u64::MAX;
        let state = Recalculation::of(&superblock).unwrap();
        assert_eq!((state.position(), state.step(&layout)), (32_328, None));
        assert!(state.kernel_verifies(Sector(32_320), 8));
    }

    #[test]
    fn a_position_within_a_block_is_the_blocks_start() {
        let options = FormatOptions::new(BlockSize::B4096, 4, [1; 16]);
        let (mut superblock, layout) =
            format(DeviceSectors::Interleaved(32_768), &options).unwrap();
        superblock.flags = superblock.flags.with(Flags::RECALCULATING);
        superblock.recalc_sector = 4101;
        let state = Recalculation::of(&superblock).unwrap();
        assert_eq!(state.step(&layout).unwrap().sector, Sector(4096));
    }

    #[test]
    fn the_kernel_verifies_a_read_below_the_position_only() {
        let state = Recalculation { next: 100, provided: 1000, steps_unsaved: 0 };
        let cases = [(0, 100, 100), (0, 101, 100), (96, 8, 4), (100, 1, 0), (500, 8, 0)];
        for (sector, sectors, covered) in cases {
            assert_eq!(state.covered(Sector(sector), sectors), covered);
            assert_eq!(state.kernel_verifies(Sector(sector), sectors), covered == sectors);
        }
    }

    #[test]
    fn the_refusals_of_section_9_3() {
        let keys = |integrity, journal_mac| Keys { integrity, journal_mac };
        let fixed = Flags::FIX_HMAC;
        let cases = [
            (Flags::default(), keys(false, false), true),
            (Flags::default(), keys(true, false), false),
            (Flags::default(), keys(false, true), false),
            (Flags::default(), keys(true, true), false),
            (fixed, keys(false, false), true),
            (fixed, keys(true, false), false),
            (fixed, keys(false, true), true),
            (fixed, keys(true, true), true),
        ];
        for (flags, keys, allowed) in cases {
            assert_eq!(permit(flags, keys, false).is_ok(), allowed, "{flags:?} {keys:?}");
            assert_eq!(permit(flags, keys, true), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn steps_cover_every_sector_once_within_runs(
            mib in 16u64..64, log2_interleave in 3u32..18, start in any::<u64>(),
        ) {
            let options = FormatOptions {
                interleave_sectors: Some(1 << log2_interleave.max(10)),
                ..FormatOptions::new(BlockSize::B512, 4, [1; 16])
            };
            let (mut superblock, layout) =
                format(DeviceSectors::Interleaved(mib * 2048), &options).unwrap();
            superblock.flags = superblock.flags.with(Flags::RECALCULATING);
            superblock.recalc_sector = start % layout.provided_sectors;
            let mut state = Recalculation::of(&superblock).unwrap();
            let mut next = superblock.recalc_sector;
            while let Some(step) = state.step(&layout) {
                prop_assert_eq!(step.sector.0, next);
                prop_assert!(step.sectors <= STEP_SECTORS);
                prop_assert_eq!(step, layout.run(step.sector, step.sectors), "one run");
                next += step.sectors;
                state.advance(&step);
            }
            prop_assert_eq!(next, layout.provided_sectors);
        }
    }
}
