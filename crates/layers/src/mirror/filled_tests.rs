//! Mirrors that are filled while they are used, and what a crash leaves of that.

use super::*;
use crate::array::testing::{BEHIND_LOGS, DATA_OFFSET, DATA_SECTORS, Entry, Rig, crashed};
use crate::array::{EVERYTHING, JoinError};
use bio::{Buf, EventKind};
use md::missed::NotByBitmap;
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

/// A mirror with a bitmap whose disk 1 was away while some of it was written, closed.
async fn left() -> (Rig, Vec<u8>) {
    let rig = Rig::with_bitmap(Level::Raid1, 2, BITMAP_SECTORS, 4096);
    let mut content: Vec<u8> = content()[..256 * 512].to_vec();
    let raid = open(&rig, &[0, 1]);
    raid.device().write(Sector::ZERO, Buf::copy_of(&content)).await.unwrap();
    raid.close().await.unwrap();
    let raid = open(&rig, &[0]);
    for at in [20, 100, 101] {
        let new = [0x5A; 512];
        raid.device().write(Sector(at), Buf::copy_of(&new)).await.unwrap();
        content[usize_of(at) * 512..][..512].copy_from_slice(&new);
    }
    raid.close().await.unwrap();
    (rig, content)
}

/// Behind superblock, bitmap and log, 32 chunks of 8 sectors.
const BITMAP_SECTORS: u64 = BEHIND_LOGS + 256;

fn data_behind(rig: &Rig, disk: usize) -> Vec<u8> {
    rig.disks[disk].bytes.borrow()[usize_of(BEHIND_LOGS) * 512..].to_vec()
}

#[test]
fn a_member_that_comes_back_is_given_what_it_missed_and_nothing_else() {
    block_on(async {
        let (rig, mut content) = left().await;
        let raid = open(&rig, &[0]);
        rig.log.borrow_mut().clear();
        let member = raid.array().rejoin(rig.found(1)).await.unwrap();
        assert_eq!(member.lacking_sectors(), 16);
        // What is written meanwhile reaches it, too.
        raid.device().write(Sector(200), Buf::copy_of(&[0x66; 512])).await.unwrap();
        content[200 * 512..201 * 512].copy_from_slice(&[0x66; 512]);
        rebuilt(&raid).await;
        raid.close().await.unwrap();
        assert!(data_behind(&rig, 1) == content);
        let log = rig.log.borrow();
        let given = log.iter().filter_map(|entry| match entry {
            Entry::Write { disk: 1, sector, bytes, .. } if sector.0 >= BEHIND_LOGS => {
                Some(bytes.len() / 512)
            }
            _ => None,
        });
        assert_eq!(given.sum::<usize>(), 17);
        assert_eq!(rig.assembly(&[0, 1]).missing_count(), 0);
    });
}

#[test]
fn a_crash_while_a_member_comes_back_leaves_what_was_written() {
    block_on(async {
        let (rig, content) = left().await;
        let start = rig.images();
        rig.log.borrow_mut().clear();
        let raid = open(&rig, &[0]);
        raid.array().rejoin(rig.found(1)).await.unwrap();
        rebuilt(&raid).await;
        raid.close().await.unwrap();
        let log = rig.log.borrow().clone();
        for length in 0..=log.len() {
            for keep in [|_| false, |_| true, |at| at % 2 == 0, |at| at % 2 == 1] {
                let images = start.iter().zip(0..);
                let images = images.map(|(one, disk)| crashed(one, &log, length, disk, keep));
                let rig = Rig::of_images(images.collect(), false);
                let raid = open(&rig, &[0, 1]);
                if raid.array().member(1).is_none() {
                    raid.array().rejoin(rig.found(1)).await.unwrap();
                }
                let read = raid.device().read(Sector::ZERO, 256).await.unwrap();
                assert!(read.as_slice() == content, "cut at {length}");
                rebuilt(&raid).await;
                raid.close().await.unwrap();
                assert!(data_behind(&rig, 1) == content, "cut at {length}");
                assert_eq!(rig.assembly(&[0, 1]).missing_count(), 0, "cut at {length}");
            }
        }
    });
}

#[test]
fn a_member_that_went_on_alone_does_not_come_back_by_the_bitmap() {
    block_on(async {
        let (rig, _) = left().await;
        let other = Rig::of_images(left().await.0.images(), false);
        // The other half, used without the first: as if it had been another machine.
        other.disks[0].gone.set(true);
        let raid = open(&other, &[1]);
        raid.device().write(Sector(3), Buf::copy_of(&[0x77; 512])).await.unwrap();
        raid.close().await.unwrap();
        let raid = open(&rig, &[0]);
        let refused = raid.array().rejoin(other.found(1)).await.err();
        assert_eq!(refused, Some(JoinError::Missed(NotByBitmap::Diverged { number: 0 })));
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
