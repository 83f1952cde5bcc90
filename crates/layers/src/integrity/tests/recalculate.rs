//! Recalculation: what it makes readable, what it leaves alone, and what it leaves when it is
//! interrupted.

use super::*;
use crate::integrity::{Lower, Recalculate};
use ::integrity::recalculate::Insecure;
use ::integrity::{Flags, Superblock};
use bio::{EventKind, IoErrorKind};
use std::time::Duration;

/// A volume that was never wiped, over bytes of version 7.
pub(super) async fn unwiped(sectors: u64, block: u64) -> (Rc<Disk>, ::integrity::Layout) {
    let disk = Disk::holding(vec![0xa5; usize_of(sectors * 512)]);
    let new = NewVolume::new(format_options(block, 600), Algorithm::Crc32c, Wipe::Nothing);
    let (_, layout) = create(disk.device(), &new, |_, _| {}).await.unwrap();
    for run in layout.runs(Sector(0), layout.provided_sectors) {
        disk.set(run.data.bytes(), &pattern(run.sector.0, run.sectors, 7));
    }
    (disk, layout)
}

pub(super) fn recalculating(recalculate: Recalculate) -> Options {
    Options { recalculate, ..options() }
}

/// With regions of 64 blocks.
pub(super) fn recalculating_in(mode: Mode, recalculate: Recalculate) -> Options {
    let log2_blocks_per_bitmap_bit = (mode == Mode::Bitmap).then_some(6);
    Options { recalculate, log2_blocks_per_bitmap_bit, ..in_mode(mode) }
}

const MODES: [Mode; 3] = [Mode::Journal, Mode::Direct, Mode::Bitmap];

pub(super) fn superblock(disk: &Disk) -> Superblock {
    Superblock::decode(&disk.content()[..4096]).unwrap()
}

async fn open(disk: &Rc<Disk>, options: Options) -> Rc<Integrity> {
    Integrity::open(disk.device(), options).await.unwrap()
}

#[test]
fn what_was_never_wiped_becomes_readable_as_it_lies_there() {
    for (mode, block) in MODES.into_iter().flat_map(|mode| [(mode, 512), (mode, 4096)]) {
        runtime::block_on(async move {
            let (disk, layout) = unwiped(16384, block).await;
            let provided = layout.provided_sectors;
            let volume = open(&disk, recalculating_in(mode, Recalculate::Reset)).await;
            let device = volume.device();
            put(&device, 800, 80, 2).await.unwrap();
            volume.recalculation_done().await.unwrap();
            assert_eq!(volume.recalculated(), Some(Sector(provided)));
            assert_holds(&device, 0, 800, 7).await;
            assert_holds(&device, 800, 80, 2).await;
            volume.close().await.unwrap();
            let stored = superblock(&disk);
            assert!(stored.flags.has(Flags::RECALCULATING), "the flag stays");
            assert_eq!((stored.recalc_sector, stored.version), (provided, 5));
            let volume = opened(&disk).await;
            assert_holds(&volume.device(), 800, 80, 2).await;
            assert_holds(&volume.device(), 880, provided - 880, 7).await;
            assert_eq!((volume.mismatches(), volume.unverified()), (0, 0));
        });
    }
}

#[test]
fn nothing_is_recalculated_that_nobody_asked_for() {
    runtime::block_on(async {
        let (disk, _) = unwiped(16384, 512).await;
        for recalculate in [Recalculate::No, Recalculate::Continue] {
            let options = Options { sample: false, ..recalculating(recalculate) };
            let volume = open(&disk, options).await;
            volume.recalculation_done().await.unwrap();
            assert_eq!(volume.recalculated(), None);
            assert!(read(&volume.device(), 100, 1).await.is_err());
            volume.close().await.unwrap();
        }
        let read_only = recalculating(Recalculate::Reset).read_only();
        let before = disk.content();
        open(&disk, read_only).await.recalculation_done().await.unwrap();
        assert!(disk.content() == before);
    });
}

#[test]
fn closed_in_between_it_goes_on_where_it_stopped_and_only_if_told_to() {
    for (mode, next) in MODES.into_iter().flat_map(|mode| MODES.map(|next| (mode, next))) {
        runtime::block_on(async move {
            let (disk, layout) = unwiped(16384, 512).await;
            let volume = open(&disk, recalculating_in(mode, Recalculate::Reset)).await;
            while volume.recalculated() == Some(Sector(0)) {
                runtime::yield_now().await;
            }
            volume.close().await.unwrap();
            let stored = superblock(&disk);
            let position = stored.recalc_sector;
            assert!((256..layout.provided_sectors).contains(&position), "{position}");
            assert!(!stored.flags.has(Flags::DIRTY_BITMAP));
            let stopped = volume.recalculation_done().await;
            assert_eq!(stopped, Err(IoErrorKind::Unavailable.at(Sector(position))));

            let volume = open(&disk, recalculating_in(next, Recalculate::No)).await;
            assert_eq!(volume.recalculated(), Some(Sector(position)));
            assert_holds(&volume.device(), 0, position, 7).await;
            assert!(read(&volume.device(), position, 1).await.is_err());
            volume.close().await.unwrap();
            assert_eq!(superblock(&disk).recalc_sector, position);

            let volume = open(&disk, recalculating_in(next, Recalculate::Continue)).await;
            volume.recalculation_done().await.unwrap();
            assert_holds(&volume.device(), 0, layout.provided_sectors, 7).await;
            volume.close().await.unwrap();
            assert!(!superblock(&disk).flags.has(Flags::DIRTY_BITMAP));
        });
    }
}

#[test]
fn dropped_it_writes_nothing_more_and_the_position_on_disk_is_true() {
    for mode in MODES {
        runtime::block_on(async move {
            let (disk, _) = unwiped(16384, 512).await;
            let volume = open(&disk, recalculating_in(mode, Recalculate::Reset)).await;
            while volume.recalculated().unwrap() < Sector(600) {
                runtime::yield_now().await;
            }
            drop(volume);
            runtime::sleep(Duration::from_millis(20)).await;
            let after = disk.content();
            runtime::sleep(Duration::from_millis(50)).await;
            assert!(disk.content() == after);
            let volume = open(&disk, options().read_only()).await;
            let position = volume.recalculated().unwrap();
            if position > Sector(0) {
                assert_holds(&volume.device(), 0, position.0, 7).await;
            }
        });
    }
}

#[test]
fn readers_and_writers_find_nothing_wrong_while_it_runs() {
    for mode in MODES {
        runtime::block_on(async move {
            let (disk, layout) = unwiped(8192, 512).await;
            let provided = layout.provided_sectors;
            disk.record(31);
            let options = Options {
                // So few pages that tags are written while others are computed.
                tag_cache_bytes: 3 * 4096,
                ..recalculating_in(mode, Recalculate::Reset)
            };
            let volume = open(&disk, options).await;
            let tasks: Vec<_> = (0..12_u64)
                .map(|task| {
                    let (device, volume) = (volume.device(), Rc::clone(&volume));
                    runtime::spawn(async move {
                        for round in 0..20 {
                            // Each its own blocks, spread over everything.
                            let at = (task + 12 * (round * 7 % 40)) * 16 % (provided - 16);
                            let at = at / 16 * 16;
                            put(&device, at, 8, 100 + task).await.unwrap();
                            assert_holds(&device, at, 8, 100 + task).await;
                            let below = volume.recalculated().unwrap().0.min(at);
                            read(&device, 0, below.max(1)).await.map(drop).unwrap_or_else(
                                |error| {
                                    assert!(below == 0, "{error} below {below}");
                                },
                            );
                            if round % 6 == 0 {
                                device.flush().await.unwrap();
                            }
                        }
                    })
                })
                .collect();
            runtime::join_all(tasks).await;
            volume.recalculation_done().await.unwrap();
            assert!(read(&volume.device(), 0, provided).await.is_ok());
            volume.close().await.unwrap();
            assert!(read(&opened(&disk).await.device(), 0, provided).await.is_ok());
        });
    }
}

#[test]
fn a_block_that_cannot_be_read_stays_unreadable_is_told_and_counted() {
    for mode in MODES {
        runtime::block_on(async move { unreadable_in(mode).await });
    }
}

async fn unreadable_in(mode: Mode) {
    let (disk, layout) = unwiped(16384, 512).await;
    let (options, heard) = listening();
    let bad = layout.run(Sector(300), 1).data;
    disk.bad.borrow_mut().insert(bad.0);
    let recalculate = Recalculate::Reset;
    let volume = open(&disk, Options { recalculate, mode: Some(mode), ..options }).await;
    volume.recalculation_done().await.unwrap();
    assert_eq!(volume.recalculation_unreadable(), 1);
    let of_300: Vec<EventKind> = (heard.borrow().iter())
        .filter(|event| event.sector == Sector(300))
        .map(|event| event.kind.clone())
        .collect();
    assert_eq!(of_300, [EventKind::MediumError]);
    volume.close().await.unwrap();
    // The disk gives something back again: it is not taken for what was there.
    disk.bad.borrow_mut().clear();
    disk.set(bad.bytes(), &[0; 512]);
    let volume = opened(&disk).await;
    let error = volume.device().read(Sector(300), 1).await.unwrap_err();
    assert_eq!(error, IoErrorKind::Protection.at(Sector(300)));
    assert_holds(&volume.device(), 0, 300, 7).await;
    assert_holds(&volume.device(), 301, 3000, 7).await;
}

#[test]
fn a_block_that_replay_declared_lost_is_not_blessed() {
    for mode in MODES {
        runtime::block_on(async move { lost_in(mode).await });
    }
}

async fn lost_in(mode: Mode) {
    let (disk, layout) = super::damage::unreplayed().await;
    let journal = layout.journal;
    let section = (0..journal.sections)
        .find(|&n| disk.content()[usize_of(journal.section_start(n).bytes()) + 7] == 0)
        .unwrap();
    let data = journal.section_start(section).bytes() + journal.data_offset(3) as u64;
    disk.flip(data + 17, 0x20);
    let volume = open(&disk, recalculating_in(mode, Recalculate::Reset)).await;
    volume.recalculation_done().await.unwrap();
    let lost = volume.device().read(Sector(103), 1).await.map(drop);
    assert_eq!(lost, Err(IoErrorKind::Protection.at(Sector(103))));
    assert_holds(&volume.device(), 104, 6, 2).await;
    assert_holds(&volume.device(), 110, 1000, 1).await;
}

#[test]
fn a_key_is_not_made_to_sign_what_lies_there_unless_somebody_insists() {
    runtime::block_on(async {
        let key = checksum::Key::new([3; 32]).unwrap();
        let disk = Disk::holding(vec![0xa5; 16384 * 512]);
        let format = ::integrity::FormatOptions { tag_size: 32, ..format_options(512, 600) };
        let mut new = NewVolume::new(format, Algorithm::HmacSha256, Wipe::Nothing);
        new.key = Some(key.clone());
        create(disk.device(), &new, |_, _| {}).await.unwrap();
        let keyed = Options {
            integrity_key: Some(key),
            recalculate: Recalculate::Reset,
            ..Options::new(Algorithm::HmacSha256, Events::none())
        };
        let error = refused(&disk, keyed.clone()).await;
        assert!(matches!(error, OpenError::Insecure(Insecure)), "{error}");
        let insisting = Options { legacy_recalculate: true, ..keyed };
        let volume = open(&disk, insisting).await;
        volume.recalculation_done().await.unwrap();
        assert!(read(&volume.device(), 0, 1000).await.unwrap() == vec![0xa5; 512_000]);
    });
}

#[test]
fn a_data_device_of_its_own_is_only_read_and_a_sealed_superblock_stays_sealed() {
    runtime::block_on(async {
        let (metadata, data) = (Disk::new(4096), Disk::holding(pattern(0, 4096, 7)));
        let lower = Lower { metadata: metadata.device(), data: Some(data.device()) };
        let mac = checksum::Key::new([8; 32]).unwrap();
        let format = ::integrity::FormatOptions { journal_mac: true, ..format_options(512, 600) };
        let mut new = NewVolume::new(format, Algorithm::Crc32c, Wipe::Nothing);
        new.journal.mac = Some((Algorithm::HmacSha256, Some(mac)));
        create(lower.clone(), &new, |_, _| {}).await.unwrap();
        data.record(5);
        let sealed = Options { journal: new.journal.clone(), ..recalculating(Recalculate::Reset) };
        let volume = Integrity::open(lower.clone(), sealed).await.unwrap();
        volume.recalculation_done().await.unwrap();
        volume.close().await.unwrap();
        let writes = data.steps();
        assert!(!writes.iter().any(|step| matches!(step, super::disk::Step::Write { .. })));
        let again = Options { journal: new.journal, ..options() };
        let volume = Integrity::open(lower, again).await.unwrap();
        assert_holds(&volume.device(), 0, volume.layout().provided_sectors, 7).await;
    });
}
