//! What a crash in bitmap mode left in doubt: given out when asked for, blessed when asked for, and
//! nothing else with it.

use super::crash::leftovers;
use super::modes::{crashed, flag};
use super::*;
use crate::integrity::Recalculate;
use ::integrity::recalculate::Insecure;
use bio::{EventKind, IoErrorKind};
use std::time::Duration;

const MODES: [Mode; 3] = [Mode::Journal, Mode::Direct, Mode::Bitmap];

/// A volume whose power was cut when blocks 100 to 104 had their data and not yet their tags; and one
/// block in a region that was not being written is damaged.
async fn crashed_and_damaged() -> Rc<Disk> {
    let disk = crashed().await;
    let volume = Integrity::open(disk.device(), options().read_only()).await.unwrap();
    disk.flip(volume.layout().run(Sector(3000), 1).data.bytes(), 1);
    disk
}

fn opening(mode: Mode, options: Options) -> Options {
    let log2_blocks_per_bitmap_bit = (mode == Mode::Bitmap).then_some(6);
    Options { mode: Some(mode), log2_blocks_per_bitmap_bit, ..options }
}

async fn found(volume: &Rc<Integrity>, sector: u64) -> IoResult {
    volume.device().read(Sector(sector), 1).await.map(drop)
}

fn protection(sector: u64) -> IoResult {
    Err(IoErrorKind::Protection.at(Sector(sector)))
}

#[test]
fn doubtful_blocks_are_given_out_only_if_asked_for_counted_and_told_as_one_range() {
    for (mode, read_only) in MODES.into_iter().flat_map(|mode| [(mode, true), (mode, false)]) {
        runtime::block_on(async move {
            let disk = crashed_and_damaged().await;
            let image = disk.content();
            let (listening, heard) = listening();
            let asking = Options { unverified: true, read_only, ..listening };
            let volume = Integrity::open(disk.device(), opening(mode, asking)).await.unwrap();
            let device = volume.device();
            assert_holds(&device, 90, 10, 0).await;
            assert_eq!(volume.unverified(), 0);
            assert_holds(&device, 100, 4, 1).await;
            assert_eq!(volume.unverified(), 4);
            assert_holds(&device, 64, 36, 0).await;
            assert_eq!(found(&volume, 3000).await, protection(3000), "that is damage");
            let told: Vec<_> = (heard.borrow().iter())
                .filter(|event| event.kind == EventKind::Unverified)
                .map(|event| (event.sector, event.sectors))
                .collect();
            assert_eq!(told, [(Sector(100), 4)], "{mode:?}");
            // Nobody vouches for them, and no walk acquits them.
            let same = Buf::copy_of(&pattern(100, 1, 1));
            assert_eq!(device.submit(&mut Bio::vouch(Sector(100), same)).await, protection(100));
            runtime::sleep(Duration::from_secs(30)).await;
            assert!(volume.suspect().contains(&(Sector(64), 64)), "{mode:?}");
            volume.close().await.unwrap();
            assert!(!read_only || disk.content() == image);
            let disk = Disk::holding(image);
            let volume = Integrity::open(disk.device(), opening(mode, options())).await.unwrap();
            assert_eq!(found(&volume, 100).await, protection(100));
            assert_eq!((volume.unverified(), volume.mismatches()), (0, 1));
        });
    }
}

#[test]
fn recalculation_blesses_what_was_left_in_doubt_and_no_damage_elsewhere() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = crashed_and_damaged().await;
            let (listening, heard) = listening();
            let recalculating = Options { recalculate: Recalculate::Continue, ..listening };
            let volume = Integrity::open(disk.device(), opening(mode, recalculating)).await;
            let volume = volume.unwrap();
            volume.recalculation_done().await.unwrap();
            let told = heard.take();
            assert!(told.iter().all(|event| event.kind == EventKind::Note), "{told:?}");
            assert!(told.iter().any(|event| (event.sector, event.sectors) == (Sector(64), 64)));
            assert_eq!(volume.suspect(), []);
            assert_eq!(volume.recalculated(), None, "nothing else was done");
            for closed in [false, true] {
                assert_holds(&volume.device(), 100, 4, 1).await;
                assert_holds(&volume.device(), 0, 100, 0).await;
                assert_holds(&volume.device(), 104, 2896, 0).await;
                assert_eq!(found(&volume, 3000).await, protection(3000));
                if !closed {
                    volume.close().await.unwrap();
                }
            }
            assert!(!flag(&disk), "{mode:?}");
            let volume = opened(&disk).await;
            assert_holds(&volume.device(), 100, 4, 1).await;
            assert_eq!(found(&volume, 3000).await, protection(3000));
        });
    }
}

#[test]
fn a_crash_while_it_does_so_leaves_it_in_doubt_or_done() {
    for mode in MODES {
        runtime::block_on(async move {
            let disk = crashed_and_damaged().await;
            let base = disk.content();
            disk.record(4);
            let recalculating = Options { recalculate: Recalculate::Continue, ..options() };
            let recalculating = opening(mode, recalculating);
            let volume = Integrity::open(disk.device(), recalculating.clone()).await.unwrap();
            volume.recalculation_done().await.unwrap();
            runtime::sleep(Duration::from_secs(30)).await;
            volume.close().await.unwrap();
            let steps = disk.steps();
            for cut in 0..=steps.len() {
                for image in leftovers(&base, &steps, cut, 3) {
                    let disk = Disk::holding(image);
                    let read_only = opening(mode, options()).read_only();
                    let volume = Integrity::open(disk.device(), read_only).await.unwrap();
                    let suspect = volume.suspect();
                    let is_suspect = |sector: u64| {
                        suspect.iter().any(|&(from, sectors)| {
                            (from..from + sectors).contains(&Sector(sector))
                        })
                    };
                    let readable = read(&volume.device(), 100, 4).await.is_ok();
                    assert!(is_suspect(100) || readable, "{mode:?} cut {cut}");
                    // Where the journal is made anew its bytes are bits until the flag is cleared.
                    let more = is_suspect(3000);
                    assert!(!more || readable, "{mode:?} cut {cut}: only at the very end");
                    let volume = Integrity::open(disk.device(), recalculating.clone()).await;
                    let volume = volume.unwrap();
                    volume.recalculation_done().await.unwrap();
                    assert_holds(&volume.device(), 100, 4, 1).await;
                    if !more {
                        assert_eq!(found(&volume, 3000).await, protection(3000), "{mode:?} {cut}");
                    }
                }
            }
        });
    }
}

#[test]
fn a_key_does_not_sign_what_was_left_in_doubt_unless_somebody_insists() {
    runtime::block_on(async {
        let key = checksum::Key::new([3; 32]).unwrap();
        let disk = Disk::new(16384);
        let format = FormatOptions { tag_size: 32, ..format_options(512, 600) };
        let mut new = NewVolume::new(format, Algorithm::HmacSha256, Wipe::Zeroes);
        new.key = Some(key.clone());
        create(disk.device(), &new, |_, _| {}).await.unwrap();
        let keyed = Options {
            integrity_key: Some(key),
            mode: Some(Mode::Bitmap),
            ..Options::new(Algorithm::HmacSha256, Events::none())
        };
        let volume = Integrity::open(disk.device(), keyed.clone()).await.unwrap();
        put(&volume.device(), 100, 4, 1).await.unwrap();
        let disk = Disk::holding(disk.content());
        let recalculating = Options { recalculate: Recalculate::Continue, ..keyed };
        let error = refused(&disk, recalculating.clone()).await;
        assert!(matches!(error, OpenError::Insecure(Insecure)), "{error}");
        let insisting = Options { legacy_recalculate: true, ..recalculating };
        let volume = Integrity::open(disk.device(), insisting).await.unwrap();
        volume.recalculation_done().await.unwrap();
        assert_holds(&volume.device(), 100, 4, 1).await;
    });
}
