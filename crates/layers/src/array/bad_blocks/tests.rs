use super::*;
use crate::array::Array;
use crate::array::member::Member;
use crate::array::testing::{BEHIND_LOGS, Entry, Rig, crashed};
use crate::mirror::{Mirror, Placement};
use bio::Events;
use md::superblock::{Level, ResyncOffset};
use runtime::{Semaphore, block_on};

const SECTORS: u64 = BEHIND_LOGS + 256;
/// Where the log lies.
const LOG: u64 = 24;

fn rig() -> Rc<Rig> {
    Rc::new(Rig::with_bitmap(Level::Raid1, 2, SECTORS, 4096))
}

fn bad(rig: &Rig, disk: usize) -> Vec<Range<u64>> {
    rig.logs(disk).bad_blocks.unwrap().ranges().collect()
}

fn said(rig: &Rig, disk: usize) -> bool {
    rig.superblock(disk).features().contains(Features::BAD_BLOCKS)
}

/// The first of `count` sectors from `sector` on that `slot` does not give, if any.
async fn read(array: &Array, slot: usize, sector: u64, count: u64) -> Option<bio::IoError> {
    array.member(slot).unwrap().data().read(Sector(sector), count).await.err()
}

#[test]
fn what_is_recorded_is_refused_and_stays_so_until_it_is_written() {
    let rig = rig();
    block_on(async move {
        let array = rig.open(&[0, 1], false);
        let member = array.member(1).unwrap();
        member.record_bad(10..12).await.unwrap();
        assert_eq!((bad(&rig, 1), said(&rig, 1)), (vec![BEHIND_LOGS + 10..BEHIND_LOGS + 12], true));
        assert!(bad(&rig, 0).is_empty() && !said(&rig, 0));
        assert_eq!(read(&array, 1, 8, 8).await, Some(IoErrorKind::Medium.at(Sector(10))));
        assert_eq!(read(&array, 1, 12, 8).await, None);
        assert!(member.is_bad(&(11..20)) && !member.is_bad(&(12..20)));
        drop(array);
        // Somebody else opens it.
        let array = rig.open(&[0, 1], false);
        assert_eq!(read(&array, 1, 11, 1).await, Some(IoErrorKind::Medium.at(Sector(11))));
        let guard = array.begin_write(10..11).await.unwrap();
        let member = array.member(1).unwrap();
        member.data().write(Sector(10), Buf::copy_of(&[1; 512])).await.unwrap();
        drop(guard);
        assert_eq!((read(&array, 1, 10, 1).await, member.is_bad(&(11..12))), (None, true));
        assert_eq!(bad(&rig, 1).len(), 1, "on disk only after a flush");
        array.settle().await.unwrap();
        assert_eq!((bad(&rig, 1), said(&rig, 1)), (vec![BEHIND_LOGS + 11..BEHIND_LOGS + 12], true));
        member.data().write(Sector(11), Buf::copy_of(&[1; 512])).await.unwrap();
        array.close().await.unwrap();
        assert_eq!((bad(&rig, 1), said(&rig, 1)), (vec![], false));
    });
}

#[test]
fn a_write_completes_with_its_bad_sectors_recorded_durably_on_the_member_that_stays() {
    let rig = rig();
    let start = rig.images();
    let held = Rc::clone(&rig);
    block_on(async move {
        let mirror = Mirror::new(held.open(&[0, 1], false), Placement::Everywhere).unwrap();
        held.disks[1].unwritable.borrow_mut().insert(BEHIND_LOGS + 21);
        mirror.device().write(Sector(16), Buf::copy_of(&[7; 8 * 512])).await.unwrap();
        assert_eq!(mirror.array().missing_count(), 0);
        let read = mirror.device().read(Sector(16), 8).await.unwrap();
        assert!(read.as_slice().iter().all(|&byte| byte == 7));
        // Both refuse it: the client is told.
        held.disks[0].unwritable.borrow_mut().insert(BEHIND_LOGS + 40);
        held.disks[1].unwritable.borrow_mut().insert(BEHIND_LOGS + 40);
        let refused = mirror.device().write(Sector(40), Buf::copy_of(&[8; 512])).await;
        assert_eq!(refused, Err(IoErrorKind::Medium.at(Sector(40))));
        assert_eq!(mirror.array().missing_count(), 0);
    });
    assert_eq!(bad(&rig, 1), [BEHIND_LOGS + 21..BEHIND_LOGS + 22]);
    // The power fails as the first write completes: nobody is given what lies there.
    let log = rig.log.borrow();
    let recorded = log
        .iter()
        .rposition(|entry| matches!(entry, Entry::Write { sector: Sector(8), disk: 1, .. }));
    let images =
        [0, 1].map(|disk| crashed(&start[disk], &log, recorded.unwrap() + 1, disk, |_| false));
    let after = Rig::of_images(images.to_vec(), false);
    assert_eq!((bad(&after, 1), said(&after, 1)), (vec![BEHIND_LOGS + 21..BEHIND_LOGS + 22], true));
}

#[test]
fn a_log_without_room_costs_the_member() {
    let rig = rig();
    block_on(async move {
        let array = rig.open(&[0, 1], false);
        let member = array.member(1).unwrap();
        // As many entries as fit: they are of single sectors that do not touch, over and over.
        let mut log = BadBlocks::empty(8);
        while log.record(&(0..1)) && log.used().0 < 512 {
            let n = u64_of(log.used().0);
            assert!(log.record(&(n * 2..n * 2 + 1)));
        }
        *member.bad().log.borrow_mut() = Some((log, Sector(LOG)..Sector(LOG + 8)));
        assert_eq!(
            member.record_bad(5..6).await,
            Err(IoErrorKind::Unsupported.at(Sector(BEHIND_LOGS + 5)))
        );
        let error = IoErrorKind::Medium.at(Sector(5));
        let guard = array.begin_write(5..6).await.unwrap();
        array.cannot_take(&member, 5..6, error).await.unwrap();
        drop(guard);
        assert_eq!(array.missing_count(), 1);
    });
}

#[test]
fn a_log_that_cannot_be_read_makes_everything_bad() {
    let new = rig();
    let mut images = new.images();
    let mut superblock = new.superblock(0);
    superblock.set_has_bad_blocks(true);
    images[0][4096..8192].copy_from_slice(&superblock.encode());
    let rig = Rc::new(Rig::of_images(images, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        // Zeroes: entries of no sectors.
        let mirror = Mirror::new(held.open(&[0, 1], false), Placement::Everywhere).unwrap();
        assert_eq!(read(mirror.array(), 0, 0, 1).await, Some(IoErrorKind::Medium.at(Sector::ZERO)));
        mirror.device().read(Sector(0), 256).await.unwrap();
        mirror.close().await.unwrap();
    });
    let events = rig.events.borrow();
    assert!(events.iter().any(|event| event.detail.contains("nothing on it is known to be good")));
    assert_eq!(rig.superblock(0).resync(), ResyncOffset::Clean);
    // All of it was written, so an empty one is in its place.
    assert!(bad(&rig, 0).is_empty() && !said(&rig, 0));
    let at = usize_of(Sector(LOG).bytes());
    let lies = rig.disks[0].bytes.borrow()[at..at + 4096].to_vec();
    assert_eq!(BadBlocks::decode(&lies, 0), Ok(BadBlocks::empty(8)));
}

#[test]
fn a_power_cut_while_a_log_is_put_in_the_place_of_an_unread_one_leaves_it_unread_or_whole() {
    let new = rig();
    let mut images = new.images();
    let mut superblock = new.superblock(0);
    superblock.set_has_bad_blocks(true);
    images[0][4096..8192].copy_from_slice(&superblock.encode());
    let mut full = BadBlocks::empty(8);
    (0..200).for_each(|n| assert!(full.record(&(BEHIND_LOGS + n..BEHIND_LOGS + n + 1))));
    let at = usize_of(Sector(LOG).bytes());
    images[0][at..at + 4096].copy_from_slice(&full.encode());
    // One of its sectors makes no sense.
    images[0][at + 512..at + 1024].fill(0);
    let rig = Rc::new(Rig::of_images(images, false));
    let (start, held) = (rig.images(), Rc::clone(&rig));
    let left = BEHIND_LOGS + 40..BEHIND_LOGS + 256;
    block_on(async move {
        let array = held.open(&[0, 1], false);
        let guard = array.begin_write(0..40).await.unwrap();
        array.member(0).unwrap().data().write(Sector(0), Buf::zeroed(40 * 512)).await.unwrap();
        drop(guard);
        array.close().await.unwrap();
    });
    assert_eq!(bad(&rig, 0), std::slice::from_ref(&left));
    let log = rig.log.borrow();
    let mut whole = 0;
    for cut in 0..=log.len() {
        let image = crashed(&start[0], &log, cut, 0, |_| false);
        let Ok(found) = BadBlocks::decode(&image[at..at + 4096], 0) else { continue };
        let found: Vec<Range<u64>> = found.ranges().collect();
        assert_eq!(found, std::slice::from_ref(&left), "cut at {cut} of {}", log.len());
        whole += 1;
    }
    assert!((1..log.len()).contains(&whole), "{whole}");
}

#[test]
fn what_is_recorded_has_no_tag_to_ask_and_what_nobody_knows_has() {
    for unread in [false, true] {
        let rig = Rig::new(Level::Raid1, 2, true).with_logs(true);
        let mut superblock = rig.superblock(0);
        superblock.set_has_bad_blocks(true);
        rig.disks[0].replace(8, &superblock.encode());
        let mut log = BadBlocks::empty(8);
        assert!(log.record(&(16..24)));
        rig.disks[0].replace(0, &if unread { vec![0; 4096] } else { log.encode() });
        block_on(async move {
            let mut found = rig.found(0);
            let own = found.superblock.clone().unwrap();
            found.logs.bad_blocks = read_bad_blocks(&found.device, &own).await;
            assert_eq!(found.logs.bad_blocks.is_err(), unread);
            let member = Member::new(found, &Events::none(), &Rc::new(Semaphore::new(1)));
            let there = Buf::copy_of(&rig.disks[0].sector(20));
            let other = Buf::copy_of(&[9; 512]);
            let mut asked = [there, other].map(|data| Bio::vouch(Sector(4), data));
            let [there, other] = &mut asked;
            assert_eq!(member.data().submit(there).await.is_ok(), unread);
            member.data().submit(other).await.unwrap_err();
            member.data().read(Sector(4), 1).await.unwrap_err();
        });
    }
}

#[test]
fn a_log_where_something_else_lies_is_none() {
    let rig = rig();
    let device = rig.disks[0].device();
    let mut superblock = rig.superblock(0);
    assert_eq!(place(&device, &superblock), Some(Sector(LOG)..Sector(LOG + 8)));
    for (offset, sectors, apart) in [(8, 8, true), (8, 9, false), (24, 8, true), (23, 8, false)] {
        superblock.set_ppl(offset, sectors);
        assert_eq!(place(&device, &superblock).is_some(), apart, "{offset} {sectors}");
    }
}
