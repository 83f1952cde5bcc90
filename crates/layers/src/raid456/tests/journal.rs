//! The write journal: after a crash, and with any members missing that parity replaces, every block is old or new,
//! and what was flushed is new.

use super::crash::{allowed, check, remains, run_all};
use super::*;
use crate::array::testing::Entry;
use md::journal::{BLOCK_SECTORS, Ended, Found, Head, NewRow};
use md::superblock::ResyncOffset;

/// Whole blocks, wrapped round the ring more than once.
const WRITES: [(u64, u64); 8] =
    [(0, 48), (8, 16), (64, 80), (72, 8), (40, 8), (48, 48), (160, 24), (32, 72)];

fn journalled(level: ParityLevel, count: u8, tagged: bool) -> Bench {
    let rig = Rig::with_journal(level_of(level), count, tagged);
    Bench::open(rig, &ALL[..usize::from(count) + 1], geometry(level, 8, count), false)
}

fn found(bench: &Bench) -> Found {
    bench.rig.journal(bench.geometry, DATA_SECTORS).found
}

fn nothing_in(bench: &Bench) -> bool {
    let found = found(bench);
    found.ended == Ended::Here && found.rows.blocks() == 0
}

/// All disks but `gone`.
fn without(count: u8, gone: &[usize]) -> Vec<usize> {
    (0..=usize::from(count)).filter(|disk| !gone.contains(disk)).collect()
}

/// Who may be missing, nobody first.
fn losses(level: ParityLevel, count: u8) -> Vec<Vec<usize>> {
    let members = 0..usize::from(count);
    let mut all = vec![Vec::new()];
    all.extend(members.clone().map(|one| vec![one]));
    if level == ParityLevel::Raid6 {
        all.extend(members.clone().flat_map(|a| members.clone().map(move |b| vec![a, b])));
        all.retain(|gone| gone.is_sorted_by(|a, b| a < b));
    }
    all
}

#[test]
fn after_any_crash_whoever_is_missing_every_block_is_old_or_new() {
    for (level, count, tagged) in [
        (ParityLevel::Raid4, 3, false),
        (ParityLevel::Raid5, 3, true),
        (ParityLevel::Raid6, 4, false),
    ] {
        runtime::block_on(async move {
            let bench = journalled(level, count, tagged);
            let content = bench.fill().await;
            let bench = bench.reopen(&without(count, &[])).await;
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            let deeds = run_all(&bench, &WRITES).await;
            assert!(nothing_in(&bench));
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            for cut in (0..=log.len()).rev() {
                let allowed = allowed(&content, &deeds, cut);
                for (choice, gone) in (0..4)
                    .flat_map(|one| losses(level, count).into_iter().map(move |gone| (one, gone)))
                {
                    let what =
                        format!("cut {cut} of {}, choice {choice}, without {gone:?}", log.len());
                    let rig = remains(&start, &log, cut, choice, tagged);
                    let bench = Bench::open(rig, &without(count, &gone), bench.geometry, false);
                    bench.raid.replay().await.unwrap();
                    assert_eq!(bench.raid.resynced(), None, "{what}");
                    let found = bench.read(0, bench.sectors()).await;
                    check(&found.unwrap(), &allowed, &what);
                    assert!(!gone.is_empty() || bench.parity_is_true(), "{what}");
                }
            }
        });
    }
}

#[test]
fn a_crash_of_a_degraded_array_leaves_old_or_new() {
    for (level, count) in [(ParityLevel::Raid5, 3), (ParityLevel::Raid6, 4)] {
        runtime::block_on(async move {
            for gone in losses(level, count) {
                let bench = journalled(level, count, false);
                let content = bench.fill().await;
                let here = without(count, &gone);
                let bench = bench.reopen(&here).await;
                bench.rig.log.borrow_mut().clear();
                let start = bench.rig.images();
                let deeds = run_all(&bench, &WRITES).await;
                let log: Vec<Entry> = bench.rig.log.borrow().clone();
                for (cut, choice) in
                    (0..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one)))
                {
                    let what =
                        format!("cut {cut} of {}, choice {choice}, without {gone:?}", log.len());
                    let rig = remains(&start, &log, cut, choice, false);
                    let bench = Bench::open(rig, &here, bench.geometry, false);
                    bench.raid.replay().await.unwrap();
                    let found = bench.read(0, bench.sectors()).await;
                    check(&found.unwrap(), &allowed(&content, &deeds, cut), &what);
                }
            }
        });
    }
}

#[test]
fn superblocks_say_clean_while_the_array_is_written_and_a_flush_leaves_the_members_alone() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid5, 3, false);
        bench.fill().await;
        bench.rig.log.borrow_mut().clear();
        bench.write(0, &pattern(3, 0, 40)).await.unwrap();
        bench.device.flush().await.unwrap();
        let clean = (0..4).all(|disk| bench.rig.superblock(disk).resync() == ResyncOffset::Clean);
        assert!(clean && found(&bench).rows.blocks() > 0);
        let log = bench.rig.log.borrow();
        let flushes = log.iter().filter_map(|entry| match entry {
            Entry::Flush { disk } => Some(*disk),
            Entry::Write { .. } => None,
        });
        assert!(flushes.clone().count() > 0 && flushes.into_iter().all(|disk| disk == 3));
    });
}

/// Data alone for some blocks of the array, as mode write-back leaves it, behind a mark.
fn cached(bench: &Bench, blocks: &[(u64, Vec<u8>)]) {
    let journal = bench.rig.journal(bench.geometry, DATA_SECTORS);
    let mut head = Head::behind(journal.seed, journal.length, (journal.tail, &journal.found), 5);
    let tail = head.at();
    let rows: Vec<NewRow<'_>> = blocks
        .iter()
        .map(|(sector, block)| NewRow {
            row: bench.geometry.locate(Sector(*sector)).member_sector,
            data: vec![(Sector(*sector), block.as_slice())],
            parity: Vec::new(),
        })
        .collect();
    for rows in [&[][..], &rows] {
        let (place, bytes) = head.append(rows).unwrap();
        bench.rig.put_in_journal(Sector(place.at), &bytes, tail);
    }
}

#[test]
fn data_that_had_no_parity_is_there_after_any_number_of_crashes() {
    // Two of a row, or so many that the ring is full before they are home.
    let (some, many) = (vec![0, 8, 40, 104], vec![0, 16, 32, 48, 64, 80, 96, 112]);
    let cases = losses(ParityLevel::Raid5, 3).into_iter();
    let cases = cases.flat_map(|gone| [(gone.clone(), some.clone()), (gone, many.clone())]);
    for (gone, blocks) in cases {
        runtime::block_on(async move {
            let bench = journalled(ParityLevel::Raid5, 3, false);
            let mut content = vec![0; bytes(bench.sectors())];
            let blocks = blocks.into_iter().map(|at| (at, pattern(9, at, BLOCK_SECTORS)));
            let blocks: Vec<(u64, Vec<u8>)> = blocks.collect();
            cached(&bench, &blocks);
            for (at, block) in &blocks {
                content[bytes(*at)..bytes(*at) + block.len()].copy_from_slice(block);
            }
            let (start, here) = (bench.rig.images(), without(3, &gone));
            let rig = Rig::of_images(start.clone(), false);
            let replayed = Bench::open(rig, &here, bench.geometry, false);
            replayed.raid.replay().await.unwrap();
            assert!(replayed.read(0, replayed.sectors()).await.unwrap() == content);
            replayed.raid.close().await.unwrap();
            assert!(nothing_in(&replayed));
            let log: Vec<Entry> = replayed.rig.log.borrow().clone();
            for (cut, choice) in (0..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one))) {
                let what = format!("cut {cut} of {}, choice {choice}, without {gone:?}", log.len());
                let first = remains(&start, &log, cut, choice, false);
                let bench = Bench::open(first, &here, bench.geometry, false);
                bench.raid.replay().await.unwrap();
                assert!(bench.read(0, bench.sectors()).await.unwrap() == content, "{what}");
                assert!(!gone.is_empty() || bench.parity_is_true(), "{what}");
            }
        });
    }
}

#[test]
fn a_record_never_undoes_what_was_stored_without_one() {
    for tagged in [false, true] {
        runtime::block_on(async move {
            let bench = journalled(ParityLevel::Raid5, 4, tagged);
            let content = bench.fill().await;
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            bench.write(0, &pattern(5, 0, 8)).await.unwrap();
            bench.device.flush().await.unwrap();
            // Its row loses a neighbour and parity, so that the next write of it has none.
            let (parity, neighbour) = (bench.geometry.p_slot(0), bench.place(8));
            let lost = [(parity, DATA_OFFSET), neighbour];
            for (disk, sector) in lost {
                let mut lost = bench.rig.disks[disk].unreadable.borrow_mut();
                lost.extend(sector..sector + 8);
            }
            let before = bench.rig.log.borrow().len();
            let new = pattern(6, 0, 8);
            bench.write(0, &new).await.unwrap();
            bench.device.flush().await.unwrap();
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            for (cut, choice) in
                (before..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one)))
            {
                let rig = remains(&start, &log, cut, choice, tagged);
                for (disk, sector) in lost {
                    let mut lost = rig.disks[disk].unreadable.borrow_mut();
                    lost.extend(sector..sector + 8);
                }
                let bench = Bench::open(rig, &ALL[..5], bench.geometry, false);
                bench.raid.replay().await.unwrap();
                let what = format!("cut {cut} of {before} to {}, choice {choice}", log.len());
                let found = bench.read(0, 8).await.unwrap();
                let old = (0..8usize).all(|sector| {
                    let at = sector * 512..(sector + 1) * 512;
                    found[at.clone()] == new[at.clone()]
                        || cut < log.len() && found[at.clone()] == pattern(5, 0, 8)[at]
                });
                assert!(old, "{what}");
                let rest = bench.read(24, bench.sectors() - 24).await.unwrap();
                assert!(rest == content[bytes(24)..], "{what}");
            }
        });
    }
}

#[test]
fn data_that_had_no_parity_never_undoes_what_was_stored_without_a_record() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid5, 4, false);
        bench.fill().await;
        bench.raid.close().await.unwrap();
        cached(&bench, &[(0, pattern(9, 0, BLOCK_SECTORS))]);
        let (parity, neighbour) = (bench.geometry.p_slot(0), bench.place(8));
        let lose = |rig: &Rig| {
            for (disk, sector) in [(parity, DATA_OFFSET), neighbour] {
                rig.disks[disk].unreadable.borrow_mut().extend(sector..sector + 8);
            }
        };
        lose(&bench.rig);
        let bench = Bench::open(bench.rig, &ALL[..5], bench.geometry, false);
        bench.raid.replay().await.unwrap();
        assert!(bench.read(0, 8).await.unwrap() == pattern(9, 0, 8));
        let new = pattern(6, 0, 8);
        bench.write(0, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        let rig = Rig::of_images(bench.rig.images(), false);
        lose(&rig);
        let bench = Bench::open(rig, &ALL[..5], bench.geometry, false);
        bench.raid.replay().await.unwrap();
        assert!(bench.read(0, 8).await.unwrap() == new);
    });
}

/// Two flushes at once after a write beside lost blocks, which no record names: whichever is the first to say
/// that it is done, the write is durable.
#[test]
fn a_flush_waits_for_what_is_in_no_record_also_if_another_is_under_way() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid5, 4, false);
        bench.fill().await;
        let lost = [(bench.geometry.p_slot(0), DATA_OFFSET), bench.place(8)];
        let lose = |rig: &Rig| {
            for (disk, sector) in lost {
                rig.disks[disk].unreadable.borrow_mut().extend(sector..sector + 8);
            }
        };
        lose(&bench.rig);
        for round in 0..8 {
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            let new = pattern(100 + round, 0, 8);
            bench.write(0, &new).await.unwrap();
            let flushes = (0..3).map(|late| {
                let bench = &bench;
                async move {
                    for _ in 0..late * round {
                        runtime::yield_now().await;
                    }
                    bench.device.flush().await.unwrap();
                    bench.rig.log.borrow().len()
                }
            });
            for done in runtime::join_all(flushes).await {
                let log: Vec<Entry> = bench.rig.log.borrow().clone();
                let rig = remains(&start, &log, done, 0, false);
                lose(&rig);
                let bench = Bench::open(rig, &ALL[..5], bench.geometry, false);
                bench.raid.replay().await.unwrap();
                let what = format!("round {round}, done at {done} of {}", log.len());
                assert!(bench.read(0, 8).await.unwrap() == new, "{what}");
            }
        }
    });
}

/// The same while one flush is busy with another stripe and the write goes home meanwhile, for want of room.
#[test]
fn a_flush_has_nothing_of_a_write_that_is_not_stored_yet() {
    for late in 0..48 {
        runtime::block_on(async move {
            let bench = journalled(ParityLevel::Raid5, 4, false);
            bench.fill().await;
            let bench = bench.reopen(&ALL[..5]).await;
            let array = bench.rig.open(&ALL[..5], false);
            let (geometry, cache_bytes) = (bench.geometry, 4096);
            let options =
                Options { geometry, member_sectors: DATA_SECTORS, force: false, cache_bytes };
            let journal = bench.rig.journal(geometry, DATA_SECTORS);
            let raid = Rc::new(Raid456::journalled(&array, &options, Some(&journal)).unwrap());
            let bench = Bench { device: Device::shared(Rc::clone(&raid)), raid, ..bench };
            let lost = [(geometry.p_slot(0), DATA_OFFSET), bench.place(8)];
            let lose = |rig: &Rig| {
                for (disk, sector) in lost {
                    rig.disks[disk].unreadable.borrow_mut().extend(sector..sector + 8);
                }
            };
            lose(&bench.rig);
            bench.rig.log.borrow_mut().clear();
            let (start, new) = (bench.rig.images(), pattern(7, 0, 8));
            bench.write(48, &pattern(7, 48, 8)).await.unwrap();
            let busy = async { bench.device.flush().await.map(|()| 0) };
            let write = async {
                for _ in 0..late {
                    runtime::yield_now().await;
                }
                bench.write(0, &new).await?;
                bench.write(96, &pattern(7, 96, 8)).await?;
                bench.device.flush().await?;
                Ok(bench.rig.log.borrow().len())
            };
            let both: [bio::LocalFuture<'_, IoResult<usize>>; 2] =
                [Box::pin(busy), Box::pin(write)];
            let done = runtime::join_all(both).await.into_iter().map(Result::unwrap).max().unwrap();
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            let rig = remains(&start, &log, done, 0, false);
            lose(&rig);
            let bench = Bench::open(rig, &ALL[..5], geometry, false);
            bench.raid.replay().await.unwrap();
            assert!(bench.read(0, 8).await.unwrap() == new, "{late} late");
        });
    }
}

#[test]
fn what_goes_past_the_journal_is_admitted_so_nothing_is_made_of_stale_parity() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid5, 4, false);
        bench.fill().await;
        let bench = bench.reopen(&ALL[..5]).await;
        // A block and its neighbour are lost, parity is not: what is written has no old content to correct it by.
        let neighbour = bench.place(8);
        let lose = |rig: &Rig, (disk, sector): (usize, u64)| {
            rig.disks[disk].unreadable.borrow_mut().extend(sector..sector + 8);
        };
        lose(&bench.rig, bench.place(0));
        lose(&bench.rig, neighbour);
        bench.rig.log.borrow_mut().clear();
        let start = bench.rig.images();
        let new = pattern(6, 0, 8);
        bench.write(0, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        let log: Vec<Entry> = bench.rig.log.borrow().clone();
        for (cut, choice) in (0..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one))) {
            let rig = remains(&start, &log, cut, choice, false);
            lose(&rig, neighbour);
            let first = rig.disks[bench.place(0).0].sector(DATA_OFFSET);
            let bench = Bench::open(rig, &ALL[..5], bench.geometry, false);
            bench.raid.replay().await.unwrap();
            let what = format!("cut {cut} of {}, choice {choice}", log.len());
            // Once any of the new block is there.
            let begun = first == new[..512];
            assert!(!begun || bench.read(8, 1).await.is_err(), "{what}");
            assert!(begun || cut < log.len(), "{what}");
        }
    });
}

#[test]
fn nothing_is_written_behind_a_record_that_failed() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid5, 3, false);
        bench.fill().await;
        let journal = bench.rig.journal(bench.geometry, DATA_SECTORS);
        let next = DATA_OFFSET + journal.length.after(journal.tail, journal.found.sectors);
        bench.rig.disks[3].unwritable.borrow_mut().extend(next..next + 8);
        let writes = (0..6).map(|stripe| {
            let (device, at) = (bench.device.clone(), stripe * 16);
            async move {
                let data = Buf::copy_of(&pattern(4, at, 16));
                device.submit(&mut bio::Bio::write_fua(Sector(at), data)).await
            }
        });
        let results = runtime::join_all(writes).await;
        assert!(results.iter().all(Result::is_err), "{results:?}");
    });
}

#[test]
fn what_rots_in_the_journal_before_it_is_home_is_an_error_and_not_written() {
    for alone in [false, true] {
        runtime::block_on(async move {
            let bench = journalled(ParityLevel::Raid5, 3, false);
            bench.fill().await;
            if alone {
                bench.raid.close().await.unwrap();
                cached(&bench, &[(0, pattern(9, 0, BLOCK_SECTORS))]);
            } else {
                bench.write(0, &pattern(9, 0, 8)).await.unwrap();
                bench.device.flush().await.unwrap();
            }
            let rig = Rig::of_images(bench.rig.images(), false);
            let bench = Bench::open(rig, &ALL[..4], bench.geometry, false);
            let found = found(&bench).rows;
            let places = |row: &md::journal::Row| [row.complete.clone(), row.data_only.clone()];
            let places = found.iter().flat_map(|(_, row)| places(row)).flatten();
            let before = (0..3).map(|disk| bench.rig.disks[disk].bytes.borrow().clone());
            let before: Vec<Vec<u8>> = before.collect();
            places.for_each(|(_, place)| bench.rig.disks[3].flip(DATA_OFFSET + place.at));
            let error = bench.raid.replay().await.unwrap_err();
            assert_eq!(error.kind, IoErrorKind::Protection);
            for (disk, before) in before.iter().enumerate() {
                let data = bytes(DATA_OFFSET)..;
                let now = bench.rig.disks[disk].bytes.borrow();
                assert!(now[data.clone()] == before[data], "disk {disk}");
            }
        });
    }
}

#[test]
fn whoever_fails_and_whenever_the_power_goes_the_journal_stays_the_arrays() {
    for failing in 0..3 {
        runtime::block_on(async move {
            let bench = journalled(ParityLevel::Raid5, 3, false);
            let content = bench.fill().await;
            let bench = bench.reopen(&ALL[..4]).await;
            bench.rig.log.borrow_mut().clear();
            let start = bench.rig.images();
            let new = pattern(5, 0, 32);
            bench.rig.disks[failing].gone.set(true);
            bench.write(0, &new).await.unwrap();
            bench.device.flush().await.unwrap();
            let log: Vec<Entry> = bench.rig.log.borrow().clone();
            for (cut, choice) in (0..=log.len()).flat_map(|cut| (0..4).map(move |one| (cut, one))) {
                let what = format!("cut {cut} of {}, choice {choice}, {failing} fails", log.len());
                let rig = remains(&start, &log, cut, choice, false);
                let bench = Bench::open(rig, &ALL[..4], bench.geometry, false);
                assert!(bench.raid.array().has_journal(), "{what}");
                bench.raid.replay().await.unwrap();
                let found = bench.read(0, bench.sectors()).await.unwrap();
                assert!(found[bytes(32)..] == content[bytes(32)..], "{what}");
                let done = cut == log.len();
                for (sector, found) in found[..bytes(32)].chunks(512).enumerate() {
                    let at = sector * 512..(sector + 1) * 512;
                    let old = !done && found == &content[at.clone()];
                    assert!(old || found == &new[at], "sector {sector}, {what}");
                }
            }
        });
    }
}

#[test]
fn a_journal_without_room_to_be_brought_home_is_refused_before_anything_is_written() {
    let bench = journalled(ParityLevel::Raid5, 3, false);
    let blocks: Vec<(u64, Vec<u8>)> =
        (0..20).map(|n| (n * 8, pattern(9, n * 8, BLOCK_SECTORS))).collect();
    cached(&bench, &blocks);
    let rig = Rig::of_images(bench.rig.images(), false);
    let before = rig.images();
    let array = rig.open(&ALL[..4], false);
    let (geometry, cache_bytes) = (bench.geometry, 256 << 10);
    let options = Options { geometry, member_sectors: DATA_SECTORS, force: false, cache_bytes };
    let journal = rig.journal(geometry, DATA_SECTORS);
    let refused = Raid456::journalled(&array, &options, Some(&journal)).err();
    assert!(matches!(refused, Some(OpenError::JournalFull(_))), "{refused:?}");
    assert!(rig.images() == before);
}

#[test]
fn writing_ends_when_the_journal_cannot_be_written_and_reading_goes_on() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid5, 3, false);
        let content = bench.fill().await;
        bench.rig.disks[3].unwritable.borrow_mut().extend(0..DATA_SECTORS + DATA_OFFSET);
        let mut write = bio::Bio::write_fua(Sector(8), Buf::copy_of(&pattern(4, 8, 8)));
        assert!(bench.device.submit(&mut write).await.is_err());
        let found = bench.read(0, bench.sectors()).await.unwrap();
        assert!(found[..bytes(8)] == content[..bytes(8)]);
        assert!(found[bytes(16)..] == content[bytes(16)..]);
        assert!(bench.parity_is_true());
        let told = bench.count(|kind| *kind == EventKind::Note);
        assert!(told > 0 && bench.raid.close().await.is_err());
    });
}

#[test]
fn what_no_journal_can_hold_is_refused() {
    let rig = Rig::with_journal(Level::Raid5, 3, false);
    let array = rig.open(&ALL[..4], false);
    let geometry = geometry(ParityLevel::Raid5, 8, 3);
    let options =
        Options { geometry, member_sectors: DATA_SECTORS, force: false, cache_bytes: 256 << 10 };
    let mut journal = rig.journal(geometry, DATA_SECTORS);
    journal.length = md::journal::Ring::new(15 * BLOCK_SECTORS);
    let refused = Raid456::journalled(&array, &options, Some(&journal)).err();
    assert_eq!(refused, Some(OpenError::Journal(Full { needed: 128, free: 120 })));
    let kept = Rig::with_journal(Level::Raid5, 3, false).keeping(false, |_| Kept::Bytes(8));
    let array = kept.open(&ALL[..4], false);
    let refused = Raid456::journalled(&array, &options, Some(&rig.journal(geometry, DATA_SECTORS)));
    assert_eq!(refused.err(), Some(OpenError::JournalTags));
}

#[test]
fn zeroes_go_through_the_journal_as_all_else() {
    runtime::block_on(async {
        let bench = journalled(ParityLevel::Raid6, 4, false);
        bench.fill().await;
        let limits = bench.device.limits();
        assert!(!limits.discard && !limits.fast_zeroes);
        let mut zeroes = bio::Bio::write_zeroes(Sector(8), 120, false);
        bench.device.submit(&mut zeroes).await.unwrap();
        bench.device.flush().await.unwrap();
        assert!(bench.read(8, 120).await.unwrap().iter().all(|&byte| byte == 0));
        assert!(bench.parity_is_true() && found(&bench).rows.blocks() > 0);
    });
}
