//! Mirrors that are filled while they are used, and what a crash leaves of that.

use super::*;
use crate::array::EVERYTHING;
use crate::array::testing::{DATA_OFFSET, DATA_SECTORS, Rig, crashed};
use bio::{Buf, EventKind};
use md::superblock::Level;
use runtime::block_on;
use std::time::Duration;
use units::usize_of;

fn open(rig: &Rig, present: &[usize]) -> Rc<Mirror> {
    Mirror::with_window(rig.open(present, false), Placement::Everywhere, 16).unwrap()
}

fn content() -> Vec<u8> {
    (0..usize_of(DATA_SECTORS) * 512).map(|at| (at / 512 % 251).to_le_bytes()[0]).collect()
}

/// A closed mirror with content, and a spare, disk 2.
async fn written(tagged: bool) -> Rig {
    let rig = Rig::new(Level::Raid1, 2, tagged);
    let raid = open(&rig, &[0, 1]);
    raid.device().write(Sector::ZERO, Buf::copy_of(&content())).await.unwrap();
    raid.close().await.unwrap();
    rig.with_spare(tagged)
}

async fn rebuilt(raid: &Mirror) {
    raid.start();
    while raid.array().is_rebuilding() {
        runtime::sleep(Duration::from_millis(5)).await;
    }
}

fn data(rig: &Rig, disk: usize) -> Vec<u8> {
    rig.disks[disk].bytes.borrow()[usize_of(DATA_OFFSET) * 512..].to_vec()
}

#[test]
fn a_spare_becomes_a_copy_and_a_crash_on_the_way_loses_nothing() {
    for there in [0, 1] {
        block_on(crashes_with(there));
    }
}

async fn crashes_with(there: usize) {
    let rig = written(false).await;
    let start = rig.images();
    let raid = open(&rig, &[there, 2]);
    rebuilt(&raid).await;
    raid.close().await.unwrap();
    assert_eq!(rig.assembly(&[there, 2]).missing_count(), 0);
    assert!(data(&rig, 2) == content());
    let log = rig.log.borrow().clone();
    assert!(log.len() > 20, "in several steps");
    for length in 0..=log.len() {
        for keep in [|_| false, |_| true, |at| at % 2 == 0, |at| at % 2 == 1] {
            let images = start.iter().zip(0..);
            let images = images.map(|(one, disk)| crashed(one, &log, length, disk, keep));
            let rig = Rig::of_images(images.collect(), false);
            let raid = open(&rig, &[there, 2]);
            for sector in 0..DATA_SECTORS {
                let read = raid.device().read(Sector(sector), 1).await.unwrap();
                let at = usize_of(sector) * 512;
                assert!(read.as_slice() == &content()[at..at + 512], "cut at {length}");
            }
            rebuilt(&raid).await;
            raid.close().await.unwrap();
            assert!(data(&rig, 2) == content(), "cut at {length}");
        }
    }
}

#[test]
fn a_block_that_no_copy_has_stays_unreadable_on_the_new_one() {
    block_on(async {
        let rig = written(true).await;
        rig.disks[0].flip(DATA_OFFSET + 40);
        let raid = open(&rig, &[0, 2]);
        rebuilt(&raid).await;
        let device = raid.device();
        assert_eq!(raid.array().member(1).unwrap().lacking_sectors(), 1);
        assert_eq!(device.read(Sector(40), 1).await.unwrap_err().kind, IoErrorKind::Protection);
        rig.disks[0].gone.set(true);
        assert!(device.read(Sector(40), 1).await.is_err());
        assert!(device.read(Sector(39), 1).await.is_ok());
        let lost = |event: &&bio::Event| event.kind == EventKind::Lost;
        assert_eq!(rig.events.borrow().iter().filter(lost).count(), 2, "as a volume, and on it");
    });
}

#[test]
fn a_block_that_no_copy_has_is_recorded_where_there_is_a_log() {
    block_on(async {
        let rig = written(true).await.with_logs(true);
        rig.disks[0].flip(DATA_OFFSET + 40);
        let raid = open(&rig, &[0, 2]);
        rebuilt(&raid).await;
        let member = raid.array().member(1).unwrap();
        assert_eq!((member.lacking_sectors(), member.given_up_sectors()), (0, 1));
        raid.close().await.unwrap();
        assert_eq!(rig.assembly(&[0, 2]).missing_count(), 0);
        let raid = open(&rig, &[0, 2]);
        rig.disks[0].gone.set(true);
        let device = raid.device();
        assert_eq!(device.read(Sector(40), 1).await.unwrap_err().kind, IoErrorKind::Medium);
        let rest = device.read(Sector(41), DATA_SECTORS - 41).await.unwrap();
        assert!(rest.as_slice() == &content()[41 * 512..]);
    });
}

#[test]
fn a_replacement_takes_over_without_a_moment_of_less_redundancy() {
    block_on(async {
        let rig = written(true).await;
        let raid = open(&rig, &[0, 1]);
        let mut found = rig.found(2);
        found.slot = 0;
        raid.array().join(found, true, EVERYTHING).await.unwrap();
        assert_eq!(raid.array().missing_count(), 0);
        // What is written meanwhile reaches all three.
        let new = [0x77; 512];
        raid.device().write(Sector(100), Buf::copy_of(&new)).await.unwrap();
        rebuilt(&raid).await;
        assert_eq!(&**raid.array().member(0).unwrap().name(), "disk2");
        raid.close().await.unwrap();
        let mut expected = content();
        expected[51200..51712].copy_from_slice(&new);
        assert!(data(&rig, 1) == expected && data(&rig, 2) == expected);
        let assembly = rig.assembly(&[0, 1, 2]);
        assert_eq!(assembly.in_sync().collect::<Vec<_>>(), [(0, 2), (1, 1)]);
    });
}
