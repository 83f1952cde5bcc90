//! The power is cut at every step, with every kind of leftover; then once more during recovery.
//!
//! With a journal every block is old or new. Without one a block with a write that no flush covers
//! may also be unreadable: an error, and never anything else.

use super::disk::Step;
use super::*;
use crate::integrity::JournalState;
use ::integrity::superblock::AREA_SECTORS;
use std::collections::BTreeMap;
use std::time::Duration;

/// In bitmap mode many regions, and bits that are soon cleared.
fn small_regions(mode: Mode) -> Options {
    let log2_blocks_per_bitmap_bit = (mode == Mode::Bitmap).then_some(3);
    Options { log2_blocks_per_bitmap_bit, ..in_mode(mode) }
}

/// What the test did, and between which marks.
struct History {
    /// For each block, its versions with the mark before their submission.
    writes: BTreeMap<u64, Vec<(usize, u64)>>,
    /// (mark when a flush was complete, everything submitted before this mark was completed then).
    flushes: Vec<(usize, usize)>,
}

impl History {
    /// The versions that block `sector` may have after a cut behind mark `mark`.
    fn legal(&self, sector: u64, mark: usize) -> Vec<u64> {
        let flushed =
            self.flushes.iter().filter(|(done, _)| *done <= mark).map(|(_, of)| *of).max();
        let mut legal = vec![0];
        for &(submitted, version) in self.writes.get(&sector).into_iter().flatten() {
            if submitted > mark {
                break;
            }
            if flushed.is_some_and(|flushed| submitted < flushed) {
                legal.clear();
            }
            legal.push(version);
        }
        legal
    }
}

/// Images that a power cut behind `steps[..cut]` can leave: what was flushed is there; of the rest
/// all, nothing, and some choices, in which single sectors of a write may be missing.
pub(super) fn leftovers(base: &[u8], steps: &[Step], cut: usize, choices: u64) -> Vec<Vec<u8>> {
    let flushed =
        steps[..cut].iter().rposition(|step| matches!(step, Step::Flush)).map_or(0, |at| at + 1);
    let mut durable = base.to_vec();
    let apply = |image: &mut Vec<u8>, step: &Step, keep: &mut dyn FnMut() -> bool| {
        if let Step::Write { at, bytes, forced } = step {
            for (index, sector) in bytes.chunks(512).enumerate() {
                if keep() || *forced {
                    let start = at + index * 512;
                    image[start..start + sector.len()].copy_from_slice(sector);
                }
            }
        }
    };
    for step in &steps[..flushed] {
        apply(&mut durable, step, &mut || true);
    }
    let loose = &steps[flushed..cut];
    if !loose.iter().any(|step| matches!(step, Step::Write { .. })) {
        return vec![durable];
    }
    let mut images = vec![durable.clone()];
    for choice in 0..=choices {
        let mut image = durable.clone();
        let mut dice = choice.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ cut as u64;
        for step in loose {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(choice);
            let fate = dice >> 62;
            let mut torn = dice;
            apply(&mut image, step, &mut || {
                torn = torn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(11);
                choice == 0 || fate == 0 || fate == 1 && torn >> 63 == 0
            });
        }
        images.push(image);
    }
    images
}

/// Writes and flushes at random on a small volume, and remembers.
async fn workload(disk: &Rc<Disk>, mode: Mode, seed: u64, close: bool, rounds: usize) -> History {
    let volume = Integrity::open(disk.device(), small_regions(mode)).await.unwrap();
    let device = volume.device();
    let spb = device.limits().logical_block.sectors();
    let blocks = device.limits().sectors.min(400) / spb;
    let mut history = History { writes: BTreeMap::new(), flushes: Vec::new() };
    let mut dice = seed;
    let mut roll = move |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for round in 0..rounds {
        let submitted = round * 2;
        disk.mark(submitted);
        let version = round as u64 + 1;
        match roll(8) {
            0 => {
                device.flush().await.unwrap();
                history.flushes.push((submitted + 1, submitted));
            }
            7 if mode != Mode::Journal => runtime::sleep(Duration::from_secs(11)).await,
            kind => {
                let start = roll(blocks) * spb;
                let count = (1 + roll(if kind == 1 { blocks } else { 20 })) * spb;
                let count = count.min(blocks * spb - start);
                let version = if kind < 3 { 0 } else { version };
                for sector in (start..start + count).step_by(usize_of(spb)) {
                    history.writes.entry(sector).or_default().push((submitted, version));
                }
                if version == 0 {
                    let mut zero = Bio::write_zeroes(Sector(start), count, kind == 2);
                    device.submit(&mut zero).await.unwrap();
                } else {
                    put(&device, start, count, version).await.unwrap();
                }
            }
        }
        disk.mark(submitted + 1);
    }
    if close {
        volume.close().await.unwrap();
        history.flushes.push((rounds * 2, rounds * 2));
        disk.mark(rounds * 2);
    }
    history
}

/// Every block is one of its legal versions; read-only first, which must not write.
async fn assert_legal(
    image: Vec<u8>,
    mode: Mode,
    history: &History,
    mark: usize,
    what: &str,
) -> Rc<Disk> {
    let disk = Disk::holding(image.clone());
    {
        let volume = Integrity::open(disk.device(), small_regions(mode).read_only()).await.unwrap();
        assert_blocks(&volume, mode, history, mark, what).await;
    }
    assert!(disk.content() == image, "{what}: read-only wrote");
    disk.record(mark as u64);
    let volume = Integrity::open(disk.device(), small_regions(mode)).await.unwrap();
    assert_blocks(&volume, mode, history, mark, what).await;
    disk
}

async fn assert_blocks(
    volume: &Rc<Integrity>,
    mode: Mode,
    history: &History,
    mark: usize,
    what: &str,
) {
    let device = volume.device();
    let spb = device.limits().logical_block.sectors();
    let total = device.limits().sectors.min(400) / spb * spb;
    let whole = read(&device, 0, total).await;
    for (index, sector) in (0..total).step_by(usize_of(spb)).enumerate() {
        let legal = history.legal(sector, mark);
        let block = match &whole {
            Ok(whole) => Ok(whole[index * bytes(spb)..][..bytes(spb)].to_vec()),
            Err(_) => read(&device, sector, spb).await,
        };
        let ok = match &block {
            Ok(block) => legal.iter().any(|&version| *block == pattern(sector, spb, version)),
            Err(error) => {
                let suspect = || {
                    let within = |(from, length)| (from..from + length).contains(&Sector(sector));
                    mode != Mode::Bitmap || volume.suspect().into_iter().any(within)
                };
                let excused = mode != Mode::Journal && legal.len() > 1 && suspect();
                excused && error.kind == bio::IoErrorKind::Protection
            }
        };
        let found = block.map(drop);
        assert!(ok, "{what}: sector {sector} is none of versions {legal:?}: {found:?}");
    }
    if mode == Mode::Journal {
        assert_eq!(volume.mismatches(), 0, "{what}");
    }
}

/// What is written, how, and how often it is cut.
#[derive(Clone, Copy)]
struct Torture {
    mode: Mode,
    block: u64,
    journal: u64,
    seed: u64,
    close: bool,
    rounds: usize,
    every: usize,
}

impl Torture {
    const fn new(block: u64, journal: u64, seed: u64, close: bool, rounds: usize) -> Self {
        Self { mode: Mode::Journal, block, journal, seed, close, rounds, every: 3 }
    }

    fn run(self) {
        runtime::block_on(self.cut_everywhere());
    }

    async fn cut_everywhere(self) {
        let Self { mode, block, journal, seed, close, rounds, every } = self;
        let disk = made(journal + 700, &format_options(block, journal)).await;
        let base = disk.content();
        disk.record(seed);
        let history = workload(&disk, mode, seed, close, rounds).await;
        let steps = disk.steps();
        let mut mark = 0;
        for cut in 0..=steps.len() {
            if let Some(Step::Mark(reached)) = cut.checked_sub(1).map(|last| &steps[last]) {
                mark = *reached;
                continue;
            }
            if !(cut + usize_of(seed)).is_multiple_of(every) {
                continue;
            }
            for (choice, image) in leftovers(&base, &steps, cut, 2).into_iter().enumerate() {
                let letter = mode.letter();
                let what = format!("{letter} {block}/{journal} seed {seed} cut {cut}.{choice}");
                let recovered = assert_legal(image.clone(), mode, &history, mark, &what).await;
                // Cut again while that was recovering.
                // Most is undecided just before a flush.
                let again = recovered.steps();
                let flushes = again.iter().enumerate().filter(|(_, s)| matches!(s, Step::Flush));
                for second in flushes.map(|(at, _)| at).chain([again.len()]) {
                    for image in leftovers(&image, &again, second, 3) {
                        let what = format!("{what}, recovery cut {second}");
                        assert_legal(image, mode, &history, mark, &what).await;
                    }
                }
            }
        }
    }
}

#[test]
fn every_cut_leaves_old_or_new_with_blocks_of_512() {
    for seed in 1..5 {
        Torture::new(512, 600, seed, seed % 2 == 0, 24).run();
    }
}

#[test]
fn every_cut_leaves_old_or_new_with_blocks_of_4096() {
    for seed in 1..5 {
        Torture::new(4096, 1600, seed, seed % 2 == 1, 30).run();
    }
}

#[test]
fn every_cut_leaves_old_or_new_with_a_journal_of_one_or_two_sections() {
    Torture::new(512, 1, 5, true, 16).run();
    Torture::new(512, 360, 6, true, 16).run();
    Torture::new(4096, 1, 7, true, 16).run();
}

#[test]
fn without_a_journal_a_cut_leaves_old_or_new_or_an_error() {
    for (mode, seed) in
        [(Mode::Direct, 11), (Mode::Direct, 12), (Mode::Bitmap, 13), (Mode::Bitmap, 14)]
    {
        Torture { mode, ..Torture::new(512, 360, seed, seed % 2 == 0, 20) }.run();
        Torture { mode, ..Torture::new(4096, 1, seed, seed % 2 == 1, 20) }.run();
    }
}

/// What the journal held is home, and is not found again behind what was written without it.
#[test]
fn a_journal_left_by_a_crash_is_replayed_once_and_then_never() {
    for (mode, journal) in [(Mode::Direct, 1), (Mode::Direct, 900), (Mode::Bitmap, 400)] {
        runtime::block_on(async move {
            let disk = made(journal + 700, &format_options(512, journal)).await;
            let volume = opened(&disk).await;
            for version in 1..6 {
                put(&volume.device(), 3, 8, version).await.unwrap();
                volume.device().flush().await.unwrap();
                let image = disk.content();
                let disk = Disk::holding(image.clone());
                disk.record(version);
                let direct = Integrity::open(disk.device(), small_regions(mode)).await.unwrap();
                assert_holds(&direct.device(), 3, 8, version).await;
                let opening = disk.steps();
                put(&direct.device(), 5, 4, 77).await.unwrap();
                direct.close().await.unwrap();
                let after = Integrity::open(disk.device(), options()).await.unwrap();
                assert_eq!(after.journal_state(), &JournalState::Clean);
                assert_holds(&after.device(), 3, 2, version).await;
                assert_holds(&after.device(), 5, 4, 77).await;
                for cut in 0..=opening.len() {
                    for image in leftovers(&image, &opening, cut, 3) {
                        let disk = Disk::holding(image);
                        let volume = Integrity::open(disk.device(), options()).await.unwrap();
                        assert_holds(&volume.device(), 3, 8, version).await;
                    }
                }
            }
        });
    }
}

/// Bits lie where the journal lies. If of what closing writes the superblock were there and the journal
/// made anew were not, they would be taken for an entry, whose tag goes to the block that they happen to
/// name, or nothing could be replayed with certainty. Every cut here leaves of what is not durable only
/// the superblock.
#[test]
fn bits_are_never_taken_for_a_journal() {
    let few_and_none_and_many = [(2000, 3, 40), (2000, 0, 0), (12_000, 0, 40)];
    for (sectors, log2, written) in few_and_none_and_many {
        runtime::block_on(async move {
            let disk = made(sectors, &format_options(512, 900)).await;
            let options =
                Options { log2_blocks_per_bitmap_bit: Some(log2), ..in_mode(Mode::Bitmap) };
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            if written > 0 {
                put(&volume.device(), 0, written, 1).await.unwrap();
            }
            volume.device().flush().await.unwrap();
            let mut durable = disk.content();
            disk.record(1);
            volume.close().await.unwrap();
            let mut image = durable.clone();
            for step in disk.steps() {
                match step {
                    Step::Write { at, bytes, .. } => {
                        let is_superblock = at < usize_of(AREA_SECTORS * 512);
                        durable[at..at + bytes.len()].copy_from_slice(&bytes);
                        if is_superblock {
                            image[at..at + bytes.len()].copy_from_slice(&bytes);
                        }
                    }
                    Step::Flush => image.clone_from(&durable),
                    Step::Mark(_) => unreachable!("there is none"),
                }
                let after = opened(&Disk::holding(image.clone())).await;
                assert!(after.restrictions().is_empty(), "{sectors}: {:?}", after.restrictions());
                assert_holds(&after.device(), 0, 40, u64::from(written > 0)).await;
            }
        });
    }
}
