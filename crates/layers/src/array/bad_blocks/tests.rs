use super::*;
use crate::array::Array;
use crate::array::testing::{BEHIND_LOGS, Entry, Rig, crashed};
use crate::mirror::{Mirror, Placement};
use md::superblock::{Level, ResyncOffset};
use runtime::block_on;

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
}
