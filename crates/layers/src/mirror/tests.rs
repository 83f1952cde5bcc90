use super::*;
use crate::array::testing::{DATA_OFFSET, DATA_SECTORS, Entry, Rig, crashed};
use bio::{
    Buf, Decision, Event, EventKind, Finding, Findings, IoErrorKind, Scrub, ScrubMode, Trust,
};
use md::superblock::{Level, ResyncOffset, Role};
use proptest::prelude::*;
use runtime::{block_on, join_all, sleep, spawn};
use std::time::Duration;
use units::{SECTOR_BYTES, u64_of, usize_of};

mod beyond;
mod crash;
mod raid10;
mod scrub;
mod tags;
mod unchecked;

use scrub::scrubbed;

fn rig(count: u8) -> Rc<Rig> {
    Rc::new(Rig::new(Level::Raid1, count, true))
}

fn open(rig: &Rig) -> Rc<Mirror> {
    let present: Vec<usize> = (0..rig.disks.len()).collect();
    open_on(rig, &present)
}

fn open_on(rig: &Rig, present: &[usize]) -> Rc<Mirror> {
    Mirror::with_window(rig.open(present, false), placement(rig), 16).unwrap()
}

/// As the superblocks say.
fn placement(rig: &Rig) -> Placement {
    match rig.superblock(0).mirrors() {
        None => Placement::Everywhere,
        Some(mirrors) => Placement::Dealt(mirrors.unwrap()),
    }
}

/// What each copy of a sector is, and where: disk and sector of the disk.
fn copies(rig: &Rig, sector: u64) -> Vec<(usize, u64)> {
    match placement(rig) {
        Placement::Everywhere => (0..rig.disks.len()).map(|disk| (disk, sector)).collect(),
        Placement::Dealt(mirrors) => (0..mirrors.copies())
            .map(|copy| mirrors.locate(Sector(sector), copy))
            .map(|spot| (spot.slot, spot.member_sector.0))
            .collect(),
    }
}

/// All copies of the first `sectors` sectors are the same.
fn agree(rig: &Rig, sectors: u64) -> bool {
    (0..sectors).all(|sector| {
        let spots = copies(rig, sector).into_iter();
        let mut bytes = spots.map(|(disk, at)| rig.disks[disk].sector(DATA_OFFSET + at));
        let first = bytes.next().unwrap();
        bytes.all(|other| other == first)
    })
}

fn sector_of(byte: u8, sectors: u64) -> Buf {
    Buf::copy_of(&vec![byte; usize_of(Sector(sectors).bytes())])
}

async fn write(raid: &Rc<Mirror>, sector: u64, sectors: u64, byte: u8) -> IoResult {
    raid.device().write(Sector(sector), sector_of(byte, sectors)).await
}

/// The first byte of each sector.
async fn read(raid: &Rc<Mirror>, sector: u64, sectors: u64) -> IoResult<Vec<u8>> {
    let bytes = raid.device().read(Sector(sector), sectors).await?;
    for sector in bytes.as_slice().chunks(SECTOR_BYTES) {
        // A healed flip of the first bit is no longer in the data, and the rest is one byte.
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
    }
    Ok(bytes.as_slice().chunks(SECTOR_BYTES).map(|sector| sector[0]).collect())
}

fn events(rig: &Rig, wanted: impl Fn(&EventKind) -> bool) -> Vec<Event> {
    rig.events.borrow().iter().filter(|event| wanted(&event.kind)).cloned().collect()
}

fn healed(vouched: bool) -> EventKind {
    EventKind::Healed { source: "mirror", vouched }
}

#[test]
fn every_member_gets_every_write_and_the_array_closes_clean() {
    let rig = rig(3);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 5, 3, 7).await.unwrap();
        raid.device().submit(&mut Bio::write_zeroes(Sector(6), 1, false)).await.unwrap();
        assert_eq!(read(&raid, 4, 5).await.unwrap(), [0, 7, 0, 7, 0]);
        raid.close().await.unwrap();
    });
    for disk in 0..3 {
        assert_eq!(rig.disks[disk].sector(DATA_OFFSET + 5), [7; 512]);
        assert_eq!(rig.disks[disk].sector(DATA_OFFSET + 6), [0; 512]);
    }
    assert_eq!(rig.assembly(&[0, 1, 2]).resync, ResyncOffset::Clean);
    assert!(rig.events.borrow().is_empty());
}

#[test]
fn reads_are_spread_and_a_sequence_stays_on_one_member() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        for sector in 0..20 {
            read(&raid, sector * 2, 2).await.unwrap();
        }
        let reads: Vec<u64> = held.disks.iter().map(|disk| disk.reads.get()).collect();
        assert_eq!(reads.iter().max(), Some(&20));
        join_all((0..20).map(|n| read(&raid, 100 + n, 1))).await;
        let reads: Vec<u64> = held.disks.iter().map(|disk| disk.reads.get()).collect();
        assert!(reads.iter().all(|reads| *reads >= 9), "{reads:?}");
    });
}

#[test]
fn a_damaged_copy_is_healed_and_its_own_tag_vouches() {
    for slot in 0..2 {
        let rig = rig(2);
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            write(&raid, 0, 16, 9).await.unwrap();
            for sector in [3, 4, 9] {
                held.disks[slot].flip(DATA_OFFSET + sector);
            }
            // Both members are asked for something, whoever begins.
            join_all((0..2).map(|_| read(&raid, 0, 16))).await.into_iter().for_each(|bytes| {
                assert_eq!(bytes.unwrap(), [9; 16]);
            });
            raid.close().await.unwrap();
        });
        assert!([3, 4, 9].iter().all(|at| rig.disks[slot].intact(DATA_OFFSET + at)));
        let told = rig.events.borrow();
        let places: Vec<(u64, u64)> = told.iter().map(|e| (e.sector.0, e.sectors)).collect();
        assert_eq!(places, [(DATA_OFFSET + 3, 2), (DATA_OFFSET + 9, 1)]);
        assert!(told.iter().all(|event| event.kind == healed(true)));
        assert!(told.iter().all(|e| e.member.as_deref() == Some(&format!("disk{slot}"))));
        assert_eq!(rig.superblock(slot).corrected_reads(), 3);
    }
}

#[test]
fn a_damaged_tag_cannot_vouch_and_the_verified_copy_heals_it() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 0, 4, 9).await.unwrap();
        held.disks[0].flip_tag(DATA_OFFSET + 1);
        held.disks[0].flip(DATA_OFFSET + 2);
        assert_eq!(read(&raid, 0, 4).await.unwrap(), [9; 4]);
        assert_eq!(read(&raid, 0, 4).await.unwrap(), [9; 4]);
    });
    assert!((0..4).all(|at| rig.disks[0].intact(DATA_OFFSET + at)));
    let kinds: Vec<EventKind> = rig.events.borrow().iter().map(|e| e.kind.clone()).collect();
    assert_eq!(kinds, [healed(false), healed(true)]);
}

#[test]
fn the_copy_that_the_damaged_members_tag_vouches_for_is_the_one() {
    let rig = rig(3);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 0, 1, 9).await.unwrap();
        // Slot 1 lost a write: an older copy, with a tag that is valid.
        held.disks[1].replace(DATA_OFFSET, &[8; 512]);
        held.disks[0].flip(DATA_OFFSET);
        let damaged = &raid.inner.sites(Extent { sector: Sector(0), sectors: 1 })[0];
        let extent = bio::Extent { sector: Sector(0), sectors: 1 };
        let bytes = raid.inner.heal(damaged, extent, IoErrorKind::Protection);
        assert_eq!(bytes.await.unwrap().as_slice(), [9; 512]);
    });
    assert_eq!(rig.events.borrow()[0].kind, healed(true));
}

#[test]
fn what_nobody_has_is_an_error_for_exactly_that_and_no_member_is_failed() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 0, 64, 9).await.unwrap();
        for sector in 0..64 {
            held.disks[usize_of(sector % 2)].flip(DATA_OFFSET + sector);
        }
        (0..2).for_each(|disk| held.disks[disk].garble(DATA_OFFSET + 20));
        for _ in 0..2 {
            let error = raid.device().read(Sector(16), 8).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Protection.at(Sector(20)));
        }
        for sector in (0..64).filter(|sector| *sector != 20) {
            assert_eq!(read(&raid, sector, 1).await.unwrap(), [9]);
        }
        assert_eq!(raid.array().missing_count(), 0);
        // Writing it whole makes it readable again.
        write(&raid, 20, 1, 5).await.unwrap();
        assert_eq!(read(&raid, 20, 1).await.unwrap(), [5]);
    });
    let lost = events(&rig, |kind| *kind == EventKind::Lost);
    assert_eq!((lost.len(), lost[0].sector), (1, Sector(20)));
}

#[test]
fn a_read_only_opening_reconstructs_and_writes_nothing() {
    let rig = rig(2);
    for disk in 0..2 {
        rig.disks[disk].replace(DATA_OFFSET, &[9; 512]);
    }
    rig.disks[0].flip(DATA_OFFSET);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = Mirror::new(held.open(&[0, 1], true), Placement::Everywhere).unwrap();
        for _ in 0..3 {
            let heads = &raid.inner.heads;
            heads[1].next.set(u64::MAX);
            heads[0].next.set(0);
            assert_eq!(read(&raid, 0, 1).await.unwrap(), [9]);
        }
        assert_eq!(write(&raid, 0, 1, 1).await.unwrap_err().kind, IoErrorKind::ReadOnly);
        raid.device().flush().await.unwrap();
        let findings = raid.scrub(0, ScrubMode::Repair).await;
        assert_eq!(findings.found[0].0, Finding::Healable);
        raid.close().await.unwrap();
    });
    assert!(rig.log.borrow().is_empty());
    assert_eq!(events(&rig, |kind| *kind == EventKind::Healable).len(), 1);
}

#[test]
fn members_without_tags_heal_unreadable_sectors() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        assert!(!raid.limits().verified);
        write(&raid, 0, 8, 9).await.unwrap();
        held.disks[0].unreadable.borrow_mut().extend([DATA_OFFSET + 2, DATA_OFFSET + 3]);
        held.disks[1].unreadable.borrow_mut().extend([DATA_OFFSET + 6]);
        for _ in 0..4 {
            join_all((0..2).map(|_| read(&raid, 0, 8))).await.into_iter().for_each(|bytes| {
                assert_eq!(bytes.unwrap(), [9; 8]);
            });
        }
    });
    assert!(rig.disks.iter().all(|disk| disk.unreadable.borrow().is_empty()));
    assert_eq!(events(&rig, |kind| *kind == healed(false)).len(), 2);
}

#[test]
fn a_sector_that_cannot_be_rewritten_does_not_cost_the_member() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 0, 1, 9).await.unwrap();
        held.disks[0].flip(DATA_OFFSET);
        held.disks[0].unwritable.borrow_mut().insert(DATA_OFFSET);
        for _ in 0..3 {
            raid.inner.heads[1].next.set(u64::MAX);
            raid.inner.heads[0].next.set(0);
            assert_eq!(read(&raid, 0, 1).await.unwrap(), [9]);
        }
        assert_eq!(raid.array().missing_count(), 0);
    });
    assert_eq!(events(&rig, |kind| *kind == EventKind::Note).len(), 1);
}

#[test]
fn a_member_that_goes_away_is_recorded_and_the_other_serves() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 0, 4, 9).await.unwrap();
        held.disks[0].gone.set(true);
        assert_eq!(read(&raid, 0, 4).await.unwrap(), [9; 4]);
        write(&raid, 0, 4, 8).await.unwrap();
        assert_eq!(held.superblock(1).role_of(0), Some(Role::Faulty));
        // The last one stays, with its error.
        held.disks[1].gone.set(true);
        assert_eq!(read(&raid, 0, 4).await.unwrap_err().kind, IoErrorKind::Unavailable);
        assert_eq!(write(&raid, 0, 4, 7).await.unwrap_err().kind, IoErrorKind::Unavailable);
    });
    assert_eq!(rig.assembly(&[0, 1]).in_sync().collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn a_write_error_is_tried_again_in_blocks_and_then_costs_the_member() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        held.disks[1].unwritable.borrow_mut().insert(DATA_OFFSET + 2);
        write(&raid, 0, 4, 9).await.unwrap();
        assert_eq!(raid.array().missing_count(), 1);
        assert_eq!(held.assembly(&[0, 1]).in_sync().collect::<Vec<_>>(), [(0, 0)]);
        assert_eq!(read(&raid, 0, 4).await.unwrap(), [9; 4]);
        // The only one left has the same trouble: the client hears of it.
        held.disks[0].unwritable.borrow_mut().insert(DATA_OFFSET + 3);
        let error = write(&raid, 0, 4, 7).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Medium.at(Sector(3)));
    });
    assert_eq!(rig.disks[1].sector(DATA_OFFSET + 1), [9; 512]);
}

#[test]
fn no_space_on_one_member_is_the_clients_error_and_copies_agree_again_later() {
    let rig = rig(2);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        held.disks[1].write_error.set(IoErrorKind::NoSpace);
        held.disks[1].unwritable.borrow_mut().insert(DATA_OFFSET + 8);
        let error = write(&raid, 8, 1, 9).await.unwrap_err();
        assert_eq!(error, IoErrorKind::NoSpace.at(Sector(8)));
        assert_eq!((raid.array().missing_count(), read(&raid, 8, 1).await), (0, Ok(vec![9])));
        sleep(Duration::from_secs(2)).await;
        assert_ne!(held.assembly(&[0, 1]).resync, ResyncOffset::Clean);
        held.disks[1].unwritable.borrow_mut().clear();
        raid.resync().await.unwrap();
        raid.close().await.unwrap();
    });
    assert_eq!(rig.disks[1].sector(DATA_OFFSET + 8), [9; 512]);
    assert_eq!(rig.assembly(&[0, 1]).resync, ResyncOffset::Clean);
}

/// A rig whose superblocks say that a crash interrupted writes.
fn dirty(count: u8, tagged: bool) -> Rc<Rig> {
    let rig = Rc::new(Rig::new(Level::Raid1, count, tagged));
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        write(&raid, 0, 8, 1).await.unwrap();
    });
    Rc::new(Rig::of_images(rig.images(), tagged))
}

#[test]
fn after_a_crash_the_first_copy_is_read_and_then_given_to_all() {
    for tagged in [true, false] {
        let rig = dirty(3, tagged);
        rig.disks[0].replace(DATA_OFFSET + 1, &[2; 1024]);
        rig.disks[2].replace(DATA_OFFSET + 4, &[3; 512]);
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            let before = join_all((0..9).map(|_| read(&raid, 0, 8))).await;
            for bytes in before {
                assert_eq!(bytes.unwrap(), [1, 2, 2, 1, 1, 1, 1, 1]);
            }
            raid.start();
            sleep(Duration::from_secs(1)).await;
            assert_eq!(raid.array().synced(), ResyncOffset::Clean);
            assert_eq!(read(&raid, 0, 8).await.unwrap(), [1, 2, 2, 1, 1, 1, 1, 1]);
            // On disk without anybody writing or closing.
            assert_eq!(held.assembly(&[0, 1, 2]).resync, ResyncOffset::Clean);
        });
        let start = usize_of(Sector(DATA_OFFSET).bytes());
        let data = |disk: usize| rig.disks[disk].bytes.borrow()[start..].to_vec();
        assert!(data(0) == data(1) && data(0) == data(2));
        let resynced = events(&rig, |kind| *kind == EventKind::Resynced);
        let places: Vec<u64> = resynced.iter().map(|event| event.sector.0 - DATA_OFFSET).collect();
        assert_eq!(places, [1, 1, 4]);
        let rule = events(&rig, |kind| *kind == EventKind::Dirty).remove(0).detail;
        assert_eq!(rule.contains("without tags"), !tagged, "{rule}");
    }
}

#[test]
fn what_a_reader_was_given_after_a_crash_is_durable_on_every_member() {
    for scrubbed in [false, true] {
        let rig = dirty(2, true);
        rig.disks[0].replace(DATA_OFFSET + 1, &[2; 512]);
        let before = rig.images();
        let held = Rc::clone(&rig);
        let log_end = block_on(async move {
            let raid = open(&held);
            if scrubbed {
                drop(raid.scrub(0, ScrubMode::Repair).await);
            }
            assert_eq!(read(&raid, 0, 4).await.unwrap(), [1, 2, 1, 1]);
            held.log.borrow().len()
        });
        // The power is cut now, and the first member never comes back.
        let log = rig.log.borrow().clone();
        let second = crashed(&before[1], &log, log_end, 1, |_| false);
        let at = usize_of(Sector(DATA_OFFSET + 1).bytes());
        assert_eq!(second[at..at + 512], [2; 512], "scrubbed: {scrubbed}");
    }
}

#[test]
fn resync_goes_by_the_first_copy_that_can_be_read() {
    let rig = dirty(2, true);
    rig.disks[0].flip(DATA_OFFSET + 3);
    rig.disks[1].replace(DATA_OFFSET + 3, &[4; 512]);
    rig.disks[1].flip(DATA_OFFSET + 5);
    rig.disks[0].garble(DATA_OFFSET + 7);
    rig.disks[1].garble(DATA_OFFSET + 7);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        raid.resync().await.unwrap();
        assert_eq!(read(&raid, 0, 7).await.unwrap(), [1, 1, 1, 4, 1, 1, 1]);
        assert!(read(&raid, 7, 1).await.is_err());
        raid.close().await.unwrap();
    });
    for disk in 0..2 {
        assert_eq!(rig.disks[disk].sector(DATA_OFFSET + 3), [4; 512]);
        assert!(rig.disks[disk].intact(DATA_OFFSET + 5));
        assert!(!rig.disks[disk].intact(DATA_OFFSET + 7), "lost stays unreadable");
    }
    assert_eq!(events(&rig, |kind| *kind == EventKind::Lost).len(), 1);
}

#[test]
fn clients_write_while_it_resyncs_and_closing_leaves_a_checkpoint() {
    let rig = dirty(2, true);
    rig.disks[1].replace(DATA_OFFSET + 200, &[6; 512]);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        raid.start();
        let writers = (0..20u8).map(|n| {
            let raid = Rc::clone(&raid);
            spawn(async move { write(&raid, u64::from(n) * 9, 9, n).await.unwrap() })
        });
        join_all(writers.collect::<Vec<_>>()).await;
        raid.close().await.unwrap();
    });
    let resync = rig.assembly(&[0, 1]).resync;
    assert!((1..DATA_SECTORS).contains(&resync.number()), "closed on the way: {resync:?}");
    let again = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&again);
        assert_eq!(raid.array().synced(), resync);
        raid.resync().await.unwrap();
        raid.close().await.unwrap();
    });
    assert_eq!(rig.disks[0].bytes.borrow()[8192..], rig.disks[1].bytes.borrow()[8192..]);
    assert_eq!(rig.assembly(&[0, 1]).resync, ResyncOffset::Clean);
}

#[test]
fn members_of_other_sizes_and_blocks_make_the_common_one() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, true));
    let raid = open(&rig);
    assert_eq!(raid.limits().sectors, DATA_SECTORS);
    assert!(raid.limits().verified);
    let held = Rc::clone(&rig);
    block_on(async move {
        let raid = open(&held);
        let runs = raid.device().allocation(Sector(0), 16).await.unwrap();
        assert_eq!(runs, [Allocation { sectors: 16, hole: false }]);
        write(&raid, 0, 2, 3).await.unwrap();
        let vouch = |byte| Bio::vouch(Sector(0), sector_of(byte, 2));
        assert_eq!(raid.device().submit(&mut vouch(3)).await, Ok(()));
        assert!(raid.device().submit(&mut vouch(4)).await.is_err());
    });
}
