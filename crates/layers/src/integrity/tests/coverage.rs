//! Which blocks are given out although their tag does not agree.

use super::damage::{with_flags, written};
use super::*;
use ::integrity::open::Mode;
use ::integrity::{Flags, Layout};
use bio::{EventKind, IoErrorKind};

/// A volume with version 1 below sector 2000, of which recalculation has done 1024 sectors; sector
/// 500 is damaged below its position, sector 1500 beyond.
async fn half() -> (Rc<Disk>, Layout) {
    let (disk, layout) = written(512).await;
    with_flags(&disk, |superblock| {
        superblock.flags = superblock.flags.with(Flags::RECALCULATING);
        superblock.recalc_sector = 1024;
    });
    for sector in [500, 1500] {
        disk.flip(layout.run(Sector(sector), 1).tag_byte, 1);
    }
    (disk, layout)
}

fn protection(sector: u64) -> IoResult {
    Err(IoErrorKind::Protection.at(Sector(sector)))
}

async fn told(volume: &Rc<Integrity>, sector: u64) -> IoResult {
    volume.device().read(Sector(sector), 1).await.map(drop)
}

#[test]
fn beyond_the_position_what_verifies_is_given_out_and_what_does_not_only_if_asked_for() {
    runtime::block_on(async {
        for read_only in [true, false] {
            let (disk, _) = half().await;
            let volume =
                Integrity::open(disk.device(), Options { read_only, ..options() }).await.unwrap();
            assert_eq!(volume.restrictions(), []);
            assert_eq!(volume.recalculated(), Some(Sector(1024)));
            let device = volume.device();
            assert_holds(&device, 1024, 476, 1).await;
            assert_eq!(
                (told(&volume, 500).await, told(&volume, 1500).await),
                (protection(500), protection(1500))
            );
            assert_eq!((volume.unverified(), volume.mismatches()), (0, 1));
            volume.close().await.unwrap();

            let (options, heard) = listening();
            let options = Options { read_only, unverified: true, ..options };
            let volume = Integrity::open(disk.device(), options).await.unwrap();
            let device = volume.device();
            for _ in 0..2 {
                assert_holds(&device, 1024, 900, 1).await;
                assert_eq!(device.read(Sector(0), 1024).await.map(drop), protection(500));
            }
            assert_eq!(volume.unverified(), 2);
            let unverified: Vec<Sector> = (heard.borrow().iter())
                .filter(|event| event.kind == EventKind::Unverified)
                .map(|event| event.sector)
                .collect();
            assert_eq!(unverified, [Sector(1500)], "told once");
            // It is given out, and still nobody vouches for it.
            let same = Buf::copy_of(&pattern(1500, 1, 1));
            assert_eq!(device.submit(&mut Bio::vouch(Sector(1500), same)).await, protection(1500));
            volume.close().await.unwrap();
        }
    });
}

#[test]
fn a_block_beyond_the_position_that_is_written_has_a_tag_like_any_other() {
    runtime::block_on(async {
        let (disk, layout) = half().await;
        let volume = opened(&disk).await;
        put(&volume.device(), 1490, 20, 2).await.unwrap();
        assert_holds(&volume.device(), 1490, 20, 2).await;
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 1490, 20, 2).await;
        assert_eq!(volume.recalculated(), Some(Sector(1024)), "nobody asked to go on");
        disk.flip(layout.run(Sector(1495), 1).data.bytes(), 4);
        let found = volume.device().submit(&mut Bio::read(Sector(1495), 1).bypassing()).await;
        assert_eq!(found, protection(1495));
    });
}

#[test]
fn a_volume_of_which_nothing_is_recalculated_yet_opens_with_whatever_it_holds() {
    runtime::block_on(async {
        let (disk, _) = half().await;
        with_flags(&disk, |superblock| {
            superblock.recalc_sector = 0;
            superblock.salt[0] ^= 1;
        });
        // No block is damaged: none ever claimed to be valid.
        let volume = opened(&disk).await;
        assert_eq!(told(&volume, 0).await, protection(0));
        put(&volume.device(), 0, 1, 2).await.unwrap();
        assert_holds(&volume.device(), 0, 1, 2).await;
    });
}

#[test]
fn a_position_within_a_block_or_behind_the_end_breaks_nothing() {
    runtime::block_on(async {
        for (stored, means) in [(1029, 1024), (u64::MAX, 0)] {
            let (disk, layout) = written(4096).await;
            with_flags(&disk, |superblock| {
                superblock.flags = superblock.flags.with(Flags::RECALCULATING);
                superblock.recalc_sector = stored;
            });
            let volume = opened(&disk).await;
            let means = if means == 0 { layout.provided_sectors } else { means };
            assert_eq!(volume.recalculated(), Some(Sector(means)));
            assert_holds(&volume.device(), 0, 2000, 1).await;
        }
    });
}

#[test]
fn recovery_mode_looks_at_home_alone_and_writes_nothing() {
    runtime::block_on(async {
        let (disk, layout) = super::damage::unreplayed().await;
        disk.flip(layout.run(Sector(700), 1).data.bytes(), 1);
        let before = disk.content();
        let (options, heard) = listening();
        let recovery = Options { mode: Some(Mode::Recovery), ..options };
        let volume = Integrity::open(disk.device(), recovery.clone()).await.unwrap();
        assert_eq!(*volume.journal_state(), super::super::JournalState::Ignored);
        assert!(volume.device().limits().read_only);
        assert_holds(&volume.device(), 0, 700, 1).await;
        assert_eq!(told(&volume, 700).await, protection(700));
        let unverified = Options { unverified: true, ..recovery };
        let volume = Integrity::open(disk.device(), unverified).await.unwrap();
        let mut expected = pattern(0, 2000, 1);
        expected[700 * 512] ^= 1;
        assert!(read(&volume.device(), 0, 2000).await.unwrap() == expected);
        assert_eq!(volume.unverified(), 1);
        assert!(heard.borrow().iter().all(|event| event.kind == EventKind::Unverified));
        volume.close().await.unwrap();
        assert!(disk.content() == before);
    });
}
