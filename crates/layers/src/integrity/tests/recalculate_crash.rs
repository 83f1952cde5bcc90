//! The power is cut at every step of a volume whose tags are computed while it is written to.
//!
//! Blocks are of 512 bytes, which no disk tears. In small runs there are many steps, so that the
//! position is stored in between too.

use super::crash::leftovers;
use super::disk::Step;
use super::recalculate::{recalculating_in, superblock};
use super::*;
use crate::integrity::Recalculate;
use ::integrity::Flags;
use bio::IoErrorKind;
use std::collections::BTreeMap;
use std::time::Duration;

/// What lay there before anything was written.
const BEFORE: u64 = 7;
/// Sectors that are looked at.
const SECTORS: u64 = 256;

/// For each block its versions with the mark before their submission; and marks of flushes: what was
/// submitted before the second is durable from the first on.
#[derive(Default)]
struct History {
    writes: BTreeMap<u64, Vec<(usize, u64)>>,
    flushes: Vec<(usize, usize)>,
}

impl History {
    /// What the block may hold after a cut behind `mark`.
    fn legal(&self, sector: u64, mark: usize) -> Vec<u64> {
        let done = self.flushes.iter().filter(|(done, _)| *done <= mark);
        let flushed = done.map(|(_, of)| *of).max().unwrap_or(0);
        let mut legal = vec![BEFORE];
        for &(submitted, version) in self.writes.get(&sector).into_iter().flatten() {
            if submitted > mark {
                break;
            }
            if submitted < flushed {
                legal.clear();
            }
            legal.push(version);
        }
        legal
    }
}

/// A volume over bytes that were never tagged.
async fn untagged() -> Rc<Disk> {
    let disk = Disk::holding(vec![0xa5; 1400 * 512]);
    let format = FormatOptions { interleave_sectors: Some(16), ..format_options(512, 300) };
    let new = NewVolume::new(format, Algorithm::Crc32c, Wipe::Nothing);
    let (_, layout) = create(disk.device(), &new, |_, _| {}).await.unwrap();
    assert!(layout.provided_sectors > SECTORS);
    for run in layout.runs(Sector(0), layout.provided_sectors) {
        disk.set(run.data.bytes(), &pattern(run.sector.0, run.sectors, BEFORE));
    }
    disk
}

/// Regions of 8 blocks.
fn in_small_regions(mode: Mode, recalculate: Recalculate) -> Options {
    let log2_blocks_per_bitmap_bit = (mode == Mode::Bitmap).then_some(3);
    Options { log2_blocks_per_bitmap_bit, ..recalculating_in(mode, recalculate) }
}

/// Recalculates, and writes and flushes at random meanwhile.
async fn worked_on(disk: &Rc<Disk>, mode: Mode, seed: u64) -> History {
    let volume = Integrity::open(disk.device(), in_small_regions(mode, Recalculate::Reset)).await;
    let volume = volume.unwrap();
    let device = volume.device();
    let mut history = History::default();
    let mut dice = seed;
    let mut roll = move |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for round in 0..14_usize {
        let submitted = round * 2;
        disk.mark(submitted);
        match roll(6) {
            0 => {
                device.flush().await.unwrap();
                history.flushes.push((submitted + 1, submitted));
            }
            1 => runtime::sleep(Duration::from_secs(11)).await,
            2 => {
                for _ in 0..roll(200) {
                    runtime::yield_now().await;
                }
            }
            _ => {
                let start = roll(SECTORS);
                let count = (1 + roll(24)).min(SECTORS - start);
                let version = 100 + u64::try_from(round).unwrap();
                for sector in start..start + count {
                    history.writes.entry(sector).or_default().push((submitted, version));
                }
                put(&device, start, count, version).await.unwrap();
            }
        }
        disk.mark(submitted + 1);
    }
    if seed.is_multiple_of(2) {
        volume.recalculation_done().await.unwrap();
    }
    volume.close().await.unwrap();
    history.flushes.push((28, 28));
    disk.mark(28);
    history
}

/// Whether every block is legal, or an error that is excused.
async fn assert_legal(
    volume: &Rc<Integrity>,
    excused: impl Fn(u64, &[u64]) -> bool,
    history: &History,
    mark: usize,
    what: &str,
) {
    let device = volume.device();
    let whole = read(&device, 0, SECTORS).await;
    for sector in 0..SECTORS {
        let legal = history.legal(sector, mark);
        let block = match &whole {
            Ok(whole) => Ok(whole[bytes(sector)..bytes(sector + 1)].to_vec()),
            Err(_) => read(&device, sector, 1).await,
        };
        let ok = match &block {
            Ok(block) => legal.iter().any(|&version| *block == pattern(sector, 1, version)),
            Err(error) => error.kind == IoErrorKind::Protection && excused(sector, &legal),
        };
        let found = block.map(drop);
        assert!(ok, "{what}: sector {sector} is none of versions {legal:?}: {found:?}");
    }
}

/// Looks at what a crash left, then goes on to the end.
async fn judge(image: Vec<u8>, mode: Mode, history: &History, mark: usize, what: &str) -> Rc<Disk> {
    let disk = Disk::holding(image.clone());
    {
        let read_only = in_small_regions(mode, Recalculate::No).read_only();
        let volume = Integrity::open(disk.device(), read_only).await.unwrap();
        let begun = volume.superblock().flags.has(Flags::RECALCULATING);
        let position = volume.recalculated().map_or(0, |position| position.0);
        let suspect = volume.suspect();
        let excused = |sector: u64, legal: &[u64]| {
            let within =
                |(from, length): &(Sector, u64)| (*from..*from + *length).contains(&Sector(sector));
            let in_doubt = mode == Mode::Direct || suspect.iter().any(within);
            !begun || sector >= position || (mode != Mode::Journal && legal.len() > 1 && in_doubt)
        };
        assert_legal(&volume, excused, history, mark, &format!("{what}, read only")).await;
    }
    assert!(disk.content() == image, "{what}: read-only wrote");
    let begun = superblock(&disk).flags.has(Flags::RECALCULATING);
    disk.record(mark as u64);
    let go_on = if begun { Recalculate::Continue } else { Recalculate::Reset };
    let volume = Integrity::open(disk.device(), in_small_regions(mode, go_on)).await.unwrap();
    volume.recalculation_done().await.unwrap();
    // What was left in doubt was asked for too; only direct mode does not know what that is.
    let excused = |_: u64, legal: &[u64]| mode == Mode::Direct && legal.len() > 1;
    assert_legal(&volume, excused, history, mark, what).await;
    volume.close().await.unwrap();
    assert_eq!(superblock(&disk).recalculated_until(), None, "{what}");
    assert!(!superblock(&disk).flags.has(Flags::DIRTY_BITMAP), "{what}");
    disk
}

async fn cut_everywhere(mode: Mode, seed: u64) {
    let disk = untagged().await;
    let base = disk.content();
    disk.record(seed);
    let history = worked_on(&disk, mode, seed).await;
    let steps = disk.steps();
    let stores = steps.iter().filter(|step| matches!(step, Step::Write { at: 0, .. })).count();
    assert!(stores >= 3, "the position is stored in between too: {stores}");
    let mut mark = 0;
    for cut in 0..=steps.len() {
        if let Some(Step::Mark(reached)) = cut.checked_sub(1).map(|last| &steps[last]) {
            mark = *reached;
            continue;
        }
        // Most is undecided just before a flush.
        let undecided = steps.get(cut).is_none_or(|step| matches!(step, Step::Flush));
        if !undecided && !(cut + usize_of(seed)).is_multiple_of(7) {
            continue;
        }
        for (choice, image) in leftovers(&base, &steps, cut, 2).into_iter().enumerate() {
            let what = format!("{} seed {seed} cut {cut}.{choice}", mode.letter());
            let again = judge(image.clone(), mode, &history, mark, &what).await.steps();
            if choice != 0 {
                continue;
            }
            let flushes = again.iter().enumerate().filter(|(_, s)| matches!(s, Step::Flush));
            for second in flushes.map(|(at, _)| at).step_by(3) {
                for image in leftovers(&image, &again, second, 1) {
                    let what = format!("{what}, then cut {second}");
                    judge(image, mode, &history, mark, &what).await;
                }
            }
        }
    }
}

#[test]
fn in_journal_mode_every_cut_leaves_old_or_new() {
    runtime::block_on(cut_everywhere(Mode::Journal, 1));
    runtime::block_on(cut_everywhere(Mode::Journal, 2));
}

#[test]
fn in_direct_mode_every_cut_leaves_old_or_new_or_an_error() {
    runtime::block_on(cut_everywhere(Mode::Direct, 3));
    runtime::block_on(cut_everywhere(Mode::Direct, 4));
}

#[test]
fn in_bitmap_mode_every_cut_leaves_old_or_new_and_errors_only_where_a_bit_is_set() {
    runtime::block_on(cut_everywhere(Mode::Bitmap, 5));
    runtime::block_on(cut_everywhere(Mode::Bitmap, 6));
}

/// The kernel goes by the bits alone: after a crash it takes for valid what has none.
#[test]
fn bits_beyond_the_position_are_set_before_it_begins_and_until_it_has_passed() {
    runtime::block_on(async {
        let disk = untagged().await;
        disk.record(9);
        let options = in_small_regions(Mode::Bitmap, Recalculate::Reset);
        let volume = Integrity::open(disk.device(), options.clone()).await.unwrap();
        let regions = usize_of(volume.layout().provided_sectors / 8);
        volume.recalculation_done().await.unwrap();
        runtime::sleep(Duration::from_secs(30)).await;
        assert_eq!(disk.content()[4096..4096 + regions / 8], vec![0; regions / 8][..]);
        volume.close().await.unwrap();
        // At every step what is not set below the position stored then is tagged; all beyond is set.
        let mut image = untagged().await.content();
        let mut begun = false;
        for step in disk.steps() {
            let Step::Write { at, bytes, .. } = step else { continue };
            image[at..at + bytes.len()].copy_from_slice(&bytes);
            let superblock = ::integrity::Superblock::decode(&image[..4096]).unwrap();
            if !superblock.flags.has(Flags::DIRTY_BITMAP) {
                assert!(!begun || superblock.recalculated_until().is_none());
                continue;
            }
            begun |= superblock.flags.has(Flags::RECALCULATING);
            if !begun {
                continue;
            }
            let bit = |region: usize| image[4096 + region / 8] >> (region % 8) & 1 == 1;
            let crashed = Disk::holding(image.clone());
            let volume =
                Integrity::open(crashed.device(), options.clone().read_only()).await.unwrap();
            for region in (0..regions).filter(|region| !bit(*region)) {
                let found = volume.device().read(Sector(units::u64_of(region) * 8), 8).await;
                assert!(found.is_ok(), "region {region} has no bit and no tags");
            }
        }
        assert!(begun);
    });
}
