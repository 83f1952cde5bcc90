use super::ordering::PROMISE;
use super::testing::{DATA_OFFSET, Entry, Rig, crashed};
use super::*;
use md::assemble::{LeftOut, Slot};
use md::shape::Tolerance;
use md::superblock::{Level, Role};
use runtime::{block_on, join_all, sleep, spawn};
use units::usize_of;

const DIRTY: ResyncOffset = ResyncOffset::Below(Sector::ZERO);

/// Writes one sector of the member's data under a guard, as a RAID layer does.
async fn write(array: &Rc<Array>, slots: &[usize], byte: u8) -> IoResult {
    let _guard = array.begin_write(0..8).await?;
    for slot in slots {
        let Some(member) = array.member(*slot) else { continue };
        let data = bio::Buf::copy_of(&[byte; 512]);
        if let Err(error) = member.data().write(Sector(0), data).await {
            array.fail(&member, error).await?;
        }
    }
    Ok(())
}

#[test]
fn the_first_write_marks_every_member_dirty_and_quiet_marks_them_clean() {
    let rig = Rc::new(Rig::new(Level::Raid1, 3, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1, 2], false);
        for (session, events) in [(0u8, 1u64), (1, 3)] {
            write(&array, &[0, 1, 2], session).await.unwrap();
            for disk in 0..3 {
                let superblock = held.superblock(disk);
                assert_eq!((superblock.events(), superblock.resync()), (events, DIRTY));
            }
            sleep(Duration::from_millis(500)).await;
            for disk in 0..3 {
                let superblock = held.superblock(disk);
                let clean = (events + 1, ResyncOffset::Clean);
                assert_eq!((superblock.events(), superblock.resync()), clean);
            }
        }
    });
    // Superblocks, each durable, then the data; never anything else.
    let log = rig.log.borrow();
    let first_data = log
        .iter()
        .position(|entry| matches!(entry, Entry::Write { sector, .. } if sector.0 >= DATA_OFFSET));
    assert_eq!(first_data, Some(3));
    for entry in &log[..3] {
        assert!(matches!(entry, Entry::Write { sector: Sector(8), fua: true, .. }));
    }
}

#[test]
fn the_array_stays_dirty_while_a_guard_is_held() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        let guard = array.begin_write(0..8).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(held.superblock(0).resync(), DIRTY);
        drop(guard);
        array.close().await.unwrap();
        assert_eq!(held.superblock(1).resync(), ResyncOffset::Clean);
        let refused = array.begin_write(0..8).await.err().unwrap();
        assert_eq!(refused.kind, IoErrorKind::Unavailable);
    });
}

#[test]
fn an_array_that_is_not_in_sync_closes_with_its_checkpoint() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        write(&array, &[0, 1], 1).await.unwrap();
        array.set_unsynced(128..u64::MAX);
        assert!(array.in_sync(&(0..128)) && !array.in_sync(&(127..129)));
        array.close().await.unwrap();
        let checkpoint = ResyncOffset::Below(Sector(128));
        assert_eq!(held.assembly(&[0, 1]).resync, checkpoint);
        // Writing again makes everything doubtful again, on disk only.
        let array = held.open(&[0, 1], false);
        write(&array, &[0, 1], 2).await.unwrap();
        assert_eq!((held.assembly(&[0, 1]).resync, array.synced()), (DIRTY, checkpoint));
        array.close().await.unwrap();
        assert_eq!(held.assembly(&[0, 1]).resync, checkpoint);
    });
}

#[test]
fn read_only_arrays_write_nothing() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0], true);
        assert_eq!(array.begin_write(0..8).await.err().unwrap().kind, IoErrorKind::ReadOnly);
        array.count_corrected(&array.member(0).unwrap(), 8);
        array.close().await.unwrap();
    });
    assert!(rig.log.borrow().is_empty());
}

#[test]
fn starting_degraded_makes_the_absent_member_stale_before_the_first_write() {
    let rig = Rc::new(Rig::new(Level::Raid5, 4, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1, 3], false);
        assert_eq!(array.missing_count(), 1);
        write(&array, &[0, 1, 3], 1).await.unwrap();
        array.close().await.unwrap();
    });
    let assembly = rig.assembly(&[0, 1, 2, 3]);
    assert_eq!(assembly.left_out, [(2, LeftOut::Stale { events: 0, newest: 3 })]);
    assert_eq!(rig.superblock(0).role_of(2), Some(Role::Faulty));
}

#[test]
fn opening_degraded_without_writing_leaves_the_absent_member_welcome() {
    let rig = Rc::new(Rig::new(Level::Raid5, 4, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        held.open(&[0, 1, 3], false).close().await.unwrap();
    });
    assert_eq!(rig.assembly(&[0, 1, 2, 3]).missing_count(), 0);
}

#[test]
fn a_member_that_fails_is_recorded_before_the_write_that_missed_it_completes() {
    let rig = Rc::new(Rig::new(Level::Raid5, 4, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1, 2, 3], false);
        write(&array, &[0, 1, 2, 3], 1).await.unwrap();
        held.disks[1].gone.set(true);
        write(&array, &[1, 2], 2).await.unwrap();
        // The power fails here.
        let assembly = held.assembly(&[0, 1, 2, 3]);
        assert_eq!(assembly.left_out, [(1, LeftOut::Dropped(Role::Faulty))]);
        assert_eq!(array.missing_count(), 1);
        // The next one cannot be spared, stays, and the write fails.
        held.disks[2].gone.set(true);
        let error = write(&array, &[2], 3).await.unwrap_err();
        assert_eq!((error.kind, array.missing_count()), (IoErrorKind::Unavailable, 1));
    });
    let failed = |event: &&bio::Event| event.kind == EventKind::MemberFailed;
    assert_eq!(rig.events.borrow().iter().filter(failed).count(), 1);
}

#[test]
fn a_superblock_that_cannot_be_written_costs_its_member_and_no_other() {
    let rig = Rc::new(Rig::new(Level::Raid5, 4, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        held.disks[0].unwritable.borrow_mut().insert(8);
        let array = held.open(&[0, 1, 2, 3], false);
        write(&array, &[0, 1, 2, 3], 1).await.unwrap();
        let left_out = held.assembly(&[0, 1, 2, 3]).left_out;
        assert!(matches!(left_out[..], [(0, LeftOut::Stale { events: 0, newest: 2 })]));
        // A second one is too many: writing ends, and says so.
        held.disks[1].unwritable.borrow_mut().insert(8);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(write(&array, &[1], 2).await.unwrap_err().kind, IoErrorKind::Medium);
        assert_eq!(array.missing_count(), 1);
        assert!(array.close().await.is_err());
        assert_eq!(held.assembly(&[1, 2, 3]).missing_count(), 1);
    });
}

#[test]
fn a_flush_that_failed_costs_the_member_or_ends_writing() {
    let rig = Rc::new(Rig::new(Level::Raid5, 4, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1, 2, 3], false);
        write(&array, &[0, 1, 2, 3], 1).await.unwrap();
        held.disks[3].flush_error.set(Some(IoErrorKind::NoSpace));
        assert_eq!(array.flush(PROMISE).await.unwrap_err().kind, IoErrorKind::NoSpace);
        assert_eq!(array.missing_count(), 0);
        held.disks[3].flush_error.set(Some(IoErrorKind::Medium));
        array.flush(PROMISE).await.unwrap();
        assert!(array.member(3).is_none());
        held.disks[0].flush_error.set(Some(IoErrorKind::Medium));
        assert!(array.flush(PROMISE).await.is_err());
        held.disks[0].flush_error.set(None);
        assert!(array.flush(PROMISE).await.is_err(), "a failed flush is not retried as success");
        assert!(array.begin_write(0..8).await.is_err());
    });
}

#[test]
fn corrections_are_counted_on_disk() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        array.count_corrected(&array.member(1).unwrap(), 8);
        array.close().await.unwrap();
        assert_eq!(held.superblock(0).corrected_reads(), 0);
        assert_eq!(held.superblock(1).corrected_reads(), 8);
        assert_eq!(held.assembly(&[0, 1]).resync, ResyncOffset::Clean);
    });
}

/// A life of an array: writes, quiet, a member lost, writes, closed.
async fn life(rig: Rc<Rig>, present: Vec<usize>, lose: Option<usize>) {
    let array = rig.open(&present, false);
    write(&array, &[0, 1, 2, 3], 1).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let both = [write(&array, &[0, 1], 2), write(&array, &[2, 3], 3)];
    join_all(both).await.into_iter().for_each(Result::unwrap);
    if let Some(slot) = lose {
        rig.disks[slot].gone.set(true);
    }
    write(&array, &[0, 1, 2, 3], 4).await.unwrap();
    array.close().await.unwrap();
}

#[test]
fn after_a_crash_anywhere_the_array_starts_and_is_dirty_if_data_may_differ() {
    let whole = vec![0, 1, 2, 3];
    for (present, lose) in [(whole.clone(), None), (whole, Some(2)), (vec![0, 1, 3], None)] {
        let rig = Rc::new(Rig::new(Level::Raid6, 4, false));
        let start = rig.images();
        block_on(life(Rc::clone(&rig), present.clone(), lose));
        let log = rig.log.borrow().clone();
        for length in 0..=log.len() {
            // Nothing, all, and every other one of what was not durable.
            for keep in [|_| false, |_| true, |at| at % 2 == 0, |at| at % 2 == 1] {
                let images = start.iter().zip(0..);
                let images =
                    images.map(|(start, disk)| crashed(start, &log, length, disk, keep)).collect();
                check_crash(&Rig::of_images(images, false), &present, lose, &log[..length]);
            }
        }
    }
}

/// What must hold after any crash in [`life`].
fn check_crash(after: &Rig, present: &[usize], lose: Option<usize>, log: &[Entry]) {
    let at = log.len();
    let all = after.assembly(&[0, 1, 2, 3]);
    // Members that were never absent take part.
    for disk in present.iter().filter(|disk| Some(**disk) != lose) {
        assert_eq!(all.slots[*disk], Slot::InSync(*disk), "crash after {at}: {:?}", all.left_out);
    }
    // Where the content of those that take part differs, the array is dirty.
    let content = |disk: usize| after.disks[disk].sector(DATA_OFFSET);
    let mut contents: Vec<Vec<u8>> = all.in_sync().map(|(_, disk)| content(disk)).collect();
    contents.dedup();
    let wrote = log
        .iter()
        .any(|entry| matches!(entry, Entry::Write { sector, .. } if sector.0 >= DATA_OFFSET));
    if contents.len() > 1 {
        assert!(wrote);
        assert_eq!(all.resync, DIRTY, "crash after {at} of the log");
    }
    // Nor does anything break by opening that, and crashing again at any point.
    let again = Rc::new(Rig::of_images(after.images(), false));
    let start = again.images();
    let held = Rc::clone(&again);
    let taking_part: Vec<usize> = all.in_sync().map(|(_, disk)| disk).collect();
    let second = taking_part.clone();
    block_on(async move {
        let array = held.open(&second, false);
        write(&array, &second, 9).await.unwrap();
    });
    let log = again.log.borrow().clone();
    for length in 0..=log.len() {
        let images = start.iter().zip(0..);
        let images = images.map(|(start, disk)| crashed(start, &log, length, disk, |_| true));
        let twice = Rig::of_images(images.collect(), false).assembly(&[0, 1, 2, 3]);
        for disk in &taking_part {
            let held = twice.slots[*disk];
            assert_eq!(held, Slot::InSync(*disk), "{at} then {length}: {:?}", twice.left_out);
        }
    }
}

#[test]
fn without_superblocks_the_same_states_are_kept_in_memory() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let found = held.disks.iter().enumerate().map(|(slot, disk)| Found {
            slot,
            name: format!("disk{slot}").into(),
            device: disk.device(),
            data: disk.device(),
            superblock: None,
            logs: Logs::default(),
        });
        let options = Options {
            read_only: false,
            tolerance: Tolerance::Any(1),
            synced: ResyncOffset::Clean,
            events: Events::none(),
            clock: Rc::new(wall_clock),
        };
        let array = Array::new(2, found.collect(), None, options);
        drop(array.begin_write(0..8).await.unwrap());
        held.disks[0].gone.set(true);
        let first = array.member(0).unwrap();
        array.fail(&first, IoErrorKind::Unavailable.at(Sector(1))).await.unwrap();
        assert_eq!((array.missing_count(), usize_of(1)), (1, 1));
        array.close().await.unwrap();
    });
    let writes = |entry: &Entry| matches!(entry, Entry::Write { .. });
    assert!(!rig.log.borrow().iter().any(writes));
}

#[test]
fn nothing_is_promised_on_the_survivors_alone_before_their_superblocks_say_so() {
    let rig = Rc::new(Rig::new(Level::Raid1, 2, false));
    let held = Rc::clone(&rig);
    block_on(async move {
        let array = held.open(&[0, 1], false);
        let guard = array.begin_write(0..8).await.unwrap();
        let superblocks = array.hold_superblocks().await;
        held.disks[0].gone.set(true);
        let gone = array.member(0).unwrap();
        let failing = Rc::clone(&array);
        let failed =
            spawn(
                async move { failing.fail(&gone, IoErrorKind::Unavailable.at(Sector::ZERO)).await },
            );
        let promising = Rc::clone(&array);
        let promised = Rc::new(Cell::new(false));
        let told = Rc::clone(&promised);
        let flushed = spawn(async move {
            let flushed = promising.flush(PROMISE).await;
            told.set(true);
            flushed
        });
        sleep(Duration::from_secs(1)).await;
        assert!(array.member(0).is_none() && !promised.get());
        drop(superblocks);
        flushed.await.unwrap();
        assert_eq!(held.superblock(1).role_of(0), Some(Role::Faulty));
        failed.await.unwrap();
        array.recorded().await.unwrap();
        drop(guard);
        array.close().await.unwrap();
    });
}
