//! Writing without a journal.

use super::crash::leftovers;
use super::disk::Step;
use super::*;
use bio::IoErrorKind;
use std::time::Duration;

const MODES: [Mode; 2] = [Mode::Direct, Mode::Bitmap];

async fn opened_in(disk: &Rc<Disk>, mode: Mode) -> Rc<Integrity> {
    Integrity::open(disk.device(), in_mode(mode)).await.unwrap()
}

#[test]
fn what_was_written_is_read_at_once_and_after_closing_by_every_mode() {
    for (mode, block) in MODES.into_iter().flat_map(|mode| [(mode, 512), (mode, 4096)]) {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(block, 900)).await;
            let before = disk.content();
            let volume = opened_in(&disk, mode).await;
            let end = usize_of(volume.layout().initial_sectors * 512);
            let device = volume.device();
            put(&device, 200, 3000, 1).await.unwrap();
            put(&device, 304, 8, 2).await.unwrap();
            device.submit(&mut Bio::write_zeroes(Sector(1000), 400, true)).await.unwrap();
            device.submit(&mut Bio::discard(Sector(2000), 8)).await.unwrap();
            let check = async |device: &Device| {
                assert_holds(device, 0, 200, 0).await;
                assert_holds(device, 200, 104, 1).await;
                assert_holds(device, 304, 8, 2).await;
                assert_holds(device, 312, 688, 1).await;
                assert_holds(device, 1000, 400, 0).await;
                assert_holds(device, 1400, 600, 1).await;
                assert_holds(device, 2000, 8, 0).await;
                assert_holds(device, 2008, 1192, 1).await;
                assert!(read_past_cache(device, 0, 4000).await.is_ok());
            };
            check(&device).await;
            device.flush().await.unwrap();
            check(&device).await;
            volume.close().await.unwrap();
            assert_eq!(put(&device, 0, 8, 9).await, Err(IoErrorKind::Unavailable.at(Sector(0))));
            check(&device).await;
            assert!(disk.content()[..end] == before[..end], "{mode:?}: superblock and journal");
            for next in [Mode::Journal, mode] {
                let volume = opened_in(&disk, next).await;
                check(&volume.device()).await;
                assert_eq!(volume.mismatches(), 0);
                volume.close().await.unwrap();
            }
        });
    }
}

#[test]
fn readers_never_see_data_and_tag_of_two_writes() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 600)).await;
            disk.record(78);
            // Two pages of tags in memory: every task waits for another's page.
            let options = Options { tag_cache_bytes: 8192, ..in_mode(mode) };
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            let device = volume.device();
            let tasks: Vec<_> = (0..24_u64)
                .map(|task| {
                    let device = device.clone();
                    runtime::spawn(async move {
                        for round in 1..20 {
                            let at = (task * 37 + round * 11) % 12 * 250;
                            put(&device, at, 64, task * 100 + round).await.unwrap();
                            if round % 5 == 0 {
                                device.flush().await.unwrap();
                            }
                            read(&device, at, 128).await.unwrap();
                            read_past_cache(&device, at, 300).await.unwrap();
                        }
                    })
                })
                .collect();
            runtime::join_all(tasks).await;
            volume.close().await.unwrap();
            assert_eq!(volume.mismatches(), 0);
            let volume = opened(&disk).await;
            assert!(read(&volume.device(), 0, 3000).await.is_ok());
        });
    }
}

#[test]
fn tags_stay_in_memory_until_a_flush_and_no_longer_than_the_time() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 600)).await;
            let volume = opened_in(&disk, mode).await;
            let device = volume.device();
            let tag = usize_of(volume.layout().run(Sector(300), 1).tag_byte);
            let stored = || disk.content()[tag..tag + 4].to_vec();
            let before = stored();
            put(&device, 300, 4, 1).await.unwrap();
            assert_eq!(stored(), before);
            device.flush().await.unwrap();
            let flushed = stored();
            assert_ne!(flushed, before);
            put(&device, 300, 4, 2).await.unwrap();
            runtime::sleep(Duration::from_secs(9)).await;
            assert_eq!(stored(), flushed);
            runtime::sleep(Duration::from_secs(2)).await;
            assert_ne!(stored(), flushed);
            volume.close().await.unwrap();
        });
    }
}

#[test]
fn a_failed_flush_is_the_end_of_writing() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 600)).await;
            let volume = opened_in(&disk, mode).await;
            let device = volume.device();
            put(&device, 0, 8, 1).await.unwrap();
            disk.fail_flush.set(true);
            assert!(device.flush().await.is_err());
            disk.fail_flush.set(false);
            assert!(device.flush().await.is_err());
            assert!(put(&device, 0, 8, 2).await.is_err());
            assert!(volume.close().await.is_err());
        });
    }
}

#[test]
fn a_write_that_fails_leaves_the_block_that_was_there() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 600)).await;
            let volume = opened_in(&disk, mode).await;
            let device = volume.device();
            put(&device, 1000, 8, 1).await.unwrap();
            disk.full_from.set(volume.layout().run(Sector(1000), 1).data.0);
            assert_eq!(put(&device, 1000, 8, 2).await, Err(IoErrorKind::NoSpace.at(Sector(1000))));
            assert_holds(&device, 1000, 8, 1).await;
            volume.close().await.unwrap();
            assert_holds(&opened(&disk).await.device(), 1000, 8, 1).await;
        });
    }
}

#[test]
fn tags_that_went_astray_are_written_again_and_bring_no_zeroes_back() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 900)).await;
            let volume = opened_in(&disk, mode).await;
            let place = volume.layout().run(Sector(2), 1);
            // The padding of the page covers the data of block 2, whose tag is in it.
            disk.astray.set((place.tag_byte / 4096 * 8, Some(place.data.0 - 2), 1));
            put(&volume.device(), 2, 1, 1).await.unwrap();
            volume.close().await.unwrap();
            assert_eq!(disk.astray.get().2, 0);
            let volume = opened(&disk).await;
            let found = read(&volume.device(), 2, 1).await;
            assert_eq!(found, Err(IoErrorKind::Protection.at(Sector(2))));
        });
    }
}

#[test]
fn neighbours_whose_tags_were_lost_stay_unreadable_until_written() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 900)).await;
            let tags = opened(&disk).await.layout().run(Sector(0), 1).tag_byte / 512;
            disk.bad.borrow_mut().insert(tags);
            let volume = opened_in(&disk, mode).await;
            let device = volume.device();
            put(&device, 5, 1, 1).await.unwrap();
            for closed in [false, true] {
                assert_holds(&device, 5, 1, 1).await;
                assert_eq!(read(&device, 4, 1).await, Err(IoErrorKind::Protection.at(Sector(4))));
                assert_holds(&device, 128, 100, 0).await;
                if !closed {
                    volume.close().await.unwrap();
                }
            }
        });
    }
}

pub(super) fn flag(disk: &Disk) -> bool {
    disk.content()[24] & 4 != 0
}

/// Regions of 64 blocks of 512 bytes.
fn with_bitmap() -> Options {
    Options { log2_blocks_per_bitmap_bit: Some(6), ..in_mode(Mode::Bitmap) }
}

async fn opened_with(disk: &Rc<Disk>, options: Options) -> Rc<Integrity> {
    Integrity::open(disk.device(), options).await.unwrap()
}

/// A volume whose power was cut when blocks 100 to 104 had their data and not yet their tags.
pub(super) async fn crashed() -> Rc<Disk> {
    let disk = made(16384, &format_options(512, 900)).await;
    let volume = opened_with(&disk, with_bitmap()).await;
    put(&volume.device(), 100, 4, 1).await.unwrap();
    put(&volume.device(), 700, 4, 1).await.unwrap();
    let image = disk.content();
    drop(volume);
    let crashed = Disk::holding(image);
    // Of the second write nothing arrived.
    let volume = Integrity::open(crashed.device(), with_bitmap().read_only()).await.unwrap();
    crashed.set(volume.layout().run(Sector(700), 4).data.bytes(), &[0; 4 * 512]);
    crashed
}

#[test]
fn a_region_is_dirty_on_the_disk_before_it_is_written_and_until_it_is_durable() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 900)).await;
        let volume = opened_with(&disk, with_bitmap()).await;
        let (device, bits) = (volume.device(), || disk.content()[4096..4104].to_vec());
        assert_eq!(bits(), [0; 8]);
        disk.record(5);
        put(&device, 64 * 3 - 1, 2, 1).await.unwrap();
        let steps = disk.steps();
        let Step::Write { at: 4096, bytes, forced: true } = &steps[0] else { panic!("{steps:?}") };
        assert_eq!(bytes[0], 0b1100);
        runtime::sleep(Duration::from_secs(9)).await;
        assert_eq!(bits()[0], 0b1100);
        put(&device, 64 * 7, 2, 1).await.unwrap();
        runtime::sleep(Duration::from_secs(2)).await;
        assert_eq!(bits()[0], 0);
        put(&device, 64 * 8, 2, 1).await.unwrap();
        assert_eq!(bits()[..2], [0, 1]);
        runtime::sleep(Duration::from_secs(30)).await;
        assert_eq!(bits(), [0; 8]);
        volume.close().await.unwrap();
        assert!(!flag(&disk));
    });
}

#[test]
fn a_suspect_region_is_not_until_every_tag_in_it_was_found_valid() {
    runtime::block_on(async {
        let disk = crashed().await;
        let volume = opened_with(&disk, with_bitmap()).await;
        let device = volume.device();
        assert_eq!(volume.suspect(), [(Sector(64), 64), (Sector(640), 64)]);
        runtime::sleep(Duration::from_secs(30)).await;
        // What has its old tag and its old data is right; what has new data is not.
        assert_eq!(volume.suspect(), [(Sector(64), 64)]);
        assert!(read(&device, 100, 1).await.is_err());
        assert_holds(&device, 700, 4, 0).await;
        volume.close().await.unwrap();
        assert!(flag(&disk), "closing does not forget");
        assert_eq!(disk.content()[4096..4098], [0b10, 0]);

        let volume = opened_with(&disk, with_bitmap()).await;
        assert_eq!(volume.suspect(), [(Sector(64), 64)]);
        put(&volume.device(), 100, 4, 2).await.unwrap();
        runtime::sleep(Duration::from_secs(30)).await;
        assert_eq!(volume.suspect(), []);
        assert_eq!(disk.content()[4096..4098], [0, 0]);
        volume.close().await.unwrap();
        assert!(!flag(&disk));
        assert_holds(&opened(&disk).await.device(), 100, 4, 2).await;
    });
}

#[test]
fn in_another_mode_what_is_suspect_is_told_and_the_bitmap_is_no_more() {
    for mode in [Mode::Journal, Mode::Direct] {
        runtime::block_on(async move {
            let disk = crashed().await;
            let (listening, heard) = listening();
            let volume = opened_with(&disk, Options { mode: Some(mode), ..listening }).await;
            let told: Vec<_> =
                heard.borrow().iter().map(|event| (event.sector, event.sectors)).collect();
            assert_eq!(told, [(Sector(64), 64), (Sector(640), 64)]);
            assert_eq!(volume.suspect(), told);
            assert!(!flag(&disk));
            assert!(read(&volume.device(), 100, 1).await.is_err());
            put(&volume.device(), 100, 4, 2).await.unwrap();
            volume.close().await.unwrap();
            assert_holds(&opened(&disk).await.device(), 100, 4, 2).await;
        });
    }
}

#[test]
fn regions_of_another_size_make_everything_suspect_at_every_cut() {
    for log2 in [4, 9] {
        runtime::block_on(async move {
            let disk = crashed().await;
            let image = disk.content();
            disk.record(log2.into());
            let other = |mode| Options { log2_blocks_per_bitmap_bit: Some(log2), ..in_mode(mode) };
            let volume = opened_with(&disk, other(Mode::Bitmap)).await;
            let all = [(Sector::ZERO, volume.device().limits().sectors)];
            assert_eq!(volume.suspect(), all);
            let steps = disk.steps();
            for cut in 0..=steps.len() {
                for image in leftovers(&image, &steps, cut, 2) {
                    let volume = opened_with(&Disk::holding(image), other(Mode::Bitmap)).await;
                    assert_eq!(volume.suspect(), all, "{cut}");
                }
            }
        });
    }
}

#[test]
fn a_bitmap_that_cannot_be_is_refused_and_what_is_stored_of_one_makes_all_suspect() {
    runtime::block_on(async {
        let disk = crashed().await;
        let impossible = Options { log2_blocks_per_bitmap_bit: Some(200), ..in_mode(Mode::Bitmap) };
        assert!(matches!(refused(&disk, impossible).await, OpenError::Bitmap(_)));
        disk.set(29, &[200]);
        assert!(matches!(refused(&disk, in_mode(Mode::Bitmap)).await, OpenError::Bitmap(_)));
        let volume = Integrity::open(disk.device(), options().read_only()).await.unwrap();
        let all = [(Sector::ZERO, volume.device().limits().sectors)];
        assert_eq!(volume.suspect(), all);
        let volume = opened_with(&disk, with_bitmap()).await;
        assert_eq!(volume.suspect(), all);
        volume.close().await.unwrap();
    });
}
