//! Members that are filled while the array is used, and what a crash leaves of that.

use super::*;
use crate::array::EVERYTHING;
use crate::array::testing::{Entry, crashed};
use bio::Finding;
use md::assemble::Slot;

const LEVELS: [(ParityLevel, u8); 3] =
    [(ParityLevel::Raid4, 3), (ParityLevel::Raid5, 4), (ParityLevel::Raid6, 5)];

/// An array with content, whose member 1 is gone, closed; and a spare, the last disk.
async fn degraded(level: ParityLevel, count: u8, tagged: bool) -> (Rig, Vec<u8>, Vec<usize>) {
    without(1, level, count, tagged).await
}

/// The same without another member.
async fn without(
    gone: usize,
    level: ParityLevel,
    count: u8,
    tagged: bool,
) -> (Rig, Vec<u8>, Vec<usize>) {
    let bench = Bench::new(level, count, tagged, 8);
    let content = bench.fill().await;
    bench.raid.close().await.unwrap();
    let rig = bench.rig.with_spare(tagged);
    let present = (0..=usize::from(count)).filter(|disk| *disk != gone).collect();
    (rig, content, present)
}

fn open(rig: Rig, level: ParityLevel, count: u8, present: &[usize]) -> Bench {
    Bench::open(rig, present, geometry(level, 8, count), false)
}

async fn rebuilt(bench: &Bench) {
    bench.raid.start_resync();
    while bench.raid.array().is_rebuilding() {
        runtime::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Everything on `disk` that the array uses is what belongs to slot 1.
fn holds_all(bench: &Bench, disk: usize) -> bool {
    holds_all_of(1, bench, disk)
}

fn holds_all_of(slot: usize, bench: &Bench, disk: usize) -> bool {
    let stripes = DATA_SECTORS / bench.geometry.chunk_sectors();
    let found = bench.rig.disks[disk].bytes.borrow().clone();
    bench.rig.disks[slot].bytes.replace(found);
    (0..stripes).all(|stripe| bench.stripe_is_true(stripe))
}

#[test]
fn a_spare_takes_the_place_of_a_member_that_is_gone() {
    for (level, count) in LEVELS {
        for tagged in [false, true] {
            runtime::block_on(async move {
                let (rig, content, present) = degraded(level, count, tagged).await;
                let bench = open(rig, level, count, &present);
                rebuilt(&bench).await;
                assert_eq!(bench.raid.array().missing_count(), 0);
                bench.raid.close().await.unwrap();
                let spare = usize::from(count);
                let assembly = bench.rig.assembly(&present);
                let held: Vec<usize> = assembly.in_sync().map(|(_, member)| member).collect();
                assert_eq!((held.len(), assembly.missing_count()), (spare, 0));
                assert!(held.contains(&(present.len() - 1)), "the spare holds a slot");
                assert!(holds_all(&bench, spare));
                // And it gives back what is asked of it.
                let bench = open(bench.rig, level, count, &present);
                assert!(bench.read(0, bench.sectors()).await.unwrap() == content);
                assert_eq!(bench.count(|kind| *kind == EventKind::Lost), 0);
            });
        }
    }
}

#[test]
fn a_member_that_fails_while_clients_write_is_rebuilt_on_the_spare() {
    for (level, count) in LEVELS {
        runtime::block_on(async move {
            let bench = Bench::new(level, count, true, 8);
            let mut content = bench.fill().await;
            bench.raid.close().await.unwrap();
            let rig = bench.rig.with_spare(true);
            let present: Vec<usize> = (0..=usize::from(count)).collect();
            let bench = open(rig, level, count, &present);
            bench.rig.disks[1].gone.set(true);
            for turn in 0..60u64 {
                let at = turn * 37 % (bench.sectors() - 30);
                let new = pattern(turn + 9, at, 1 + turn % 29);
                bench.write(at, &new).await.unwrap();
                content[usize_of(at) * 512..][..new.len()].copy_from_slice(&new);
                runtime::sleep(std::time::Duration::from_millis(1)).await;
                let read = bench.read(0, bench.sectors()).await.unwrap();
                assert!(read == content, "turn {turn}");
            }
            bench.device.flush().await.unwrap();
            rebuilt(&bench).await;
            assert_eq!(bench.count(|kind| *kind == EventKind::Rebuilt), 1);
            bench.raid.close().await.unwrap();
            let rest: Vec<usize> = present.iter().copied().filter(|disk| *disk != 1).collect();
            assert_eq!(bench.rig.assembly(&rest).missing_count(), 0);
            assert!(holds_all(&bench, usize::from(count)));
        });
    }
}

#[test]
fn a_crash_anywhere_in_a_rebuild_leaves_all_that_was_there() {
    for (gone, (level, count)) in LEVELS.into_iter().enumerate() {
        runtime::block_on(async move {
            let (rig, content, present) = without(gone, level, count, false).await;
            let start = rig.images();
            let bench = open(rig, level, count, &present);
            rebuilt(&bench).await;
            bench.raid.close().await.unwrap();
            let log = bench.rig.log.borrow().clone();
            let spare = usize::from(count);
            let data = |entry: &&Entry| matches!(entry, Entry::Write { disk, sector, .. } if *disk == spare && sector.0 > 8);
            assert!(log.iter().filter(data).count() > 1, "it is filled in several steps");
            for length in 0..=log.len() {
                for keep in [|_| false, |_| true, |at| at % 2 == 0, |at| at % 2 == 1] {
                    let images = start
                        .iter()
                        .zip(0..)
                        .map(|(start, disk)| crashed(start, &log, length, disk, keep));
                    let rig = Rig::of_images(images.collect(), false);
                    let bench = open(rig, level, count, &present);
                    let read = bench.read(0, bench.sectors()).await.unwrap();
                    assert!(read == content, "cut at {length}");
                    // It goes on where it was.
                    rebuilt(&bench).await;
                    bench.raid.close().await.unwrap();
                    assert_eq!(bench.rig.assembly(&present).missing_count(), 0, "cut at {length}");
                    assert!(holds_all_of(gone, &bench, spare), "cut at {length}");
                }
            }
        });
    }
}

#[test]
fn what_nobody_can_give_stays_unreadable_and_everything_else_is_rebuilt() {
    runtime::block_on(async {
        let (rig, mut content, present) = degraded(ParityLevel::Raid5, 4, true).await;
        let bench = open(rig, ParityLevel::Raid5, 4, &present);
        // A row of which slot 1, which is gone, holds data, and another block is damaged.
        let lost = (0..bench.sectors()).find(|at| bench.place(*at).0 == 1).unwrap();
        let (_, place) = bench.place(lost);
        let other = (0..bench.sectors()).find(|at| bench.place(*at) == (0, place)).unwrap();
        bench.flip(other);
        rebuilt(&bench).await;
        let member = bench.raid.array().member(1).unwrap();
        assert_eq!((&**member.name(), member.lacking_sectors()), ("disk4", 1));
        assert_eq!(bench.count(|kind| *kind == EventKind::Lost), 2);
        // After opening again, too.
        let bench = bench.reopen(&present).await;
        for at in 0..bench.sectors() {
            let read = bench.read(at, 1).await;
            let expected = &content[usize_of(at) * 512..][..512];
            match at == lost || at == other {
                true => assert_eq!(read.unwrap_err().kind, IoErrorKind::Protection),
                false => assert_eq!(read.unwrap(), expected, "{at}"),
            }
        }
        // Written whole they are readable again, and the member holds everything.
        for at in [lost, other] {
            let new = pattern(77, at, 1);
            bench.write(at, &new).await.unwrap();
            content[usize_of(at) * 512..][..512].copy_from_slice(&new);
        }
        bench.device.flush().await.unwrap();
        assert!(bench.read(0, bench.sectors()).await.unwrap() == content);
        rebuilt(&bench).await;
        assert_eq!(bench.raid.array().missing_count(), 0);
        let bench = bench.reopen(&present).await;
        assert_eq!(bench.rig.assembly(&present).missing_count(), 0);
        assert!(holds_all(&bench, 4));
    });
}

#[test]
fn what_nobody_can_give_is_recorded_where_there_is_a_log_and_the_rebuild_ends() {
    runtime::block_on(async {
        let (rig, mut content, present) = degraded(ParityLevel::Raid5, 4, true).await;
        let bench = open(rig.with_logs(true), ParityLevel::Raid5, 4, &present);
        // An early row, with much behind it.
        let lost = (0..bench.sectors()).find(|at| bench.place(*at).0 == 1).unwrap();
        let (_, place) = bench.place(lost);
        let other = (0..bench.sectors()).find(|at| bench.place(*at) == (0, place)).unwrap();
        bench.flip(other);
        rebuilt(&bench).await;
        let member = bench.raid.array().member(1).unwrap();
        assert_eq!((member.lacking_sectors(), member.given_up_sectors()), (0, 1));
        assert_eq!(bench.raid.array().missing_count(), 0);
        let bench = bench.reopen(&present).await;
        assert_eq!(bench.rig.assembly(&present).missing_count(), 0);
        let bad = bench.rig.logs(4).bad_blocks.unwrap();
        assert_eq!(bad.ranges().collect::<Vec<_>>(), [place..place + 1]);
        // Nothing is filled again, and exactly what is lost is an error.
        bench.rig.log.borrow_mut().clear();
        rebuilt(&bench).await;
        assert!(bench.rig.log.borrow().is_empty());
        for at in 0..bench.sectors() {
            let read = bench.read(at, 1).await;
            match at == lost || at == other {
                true => assert!(read.is_err_and(|error| error.kind.is_damage()), "{at}"),
                false => assert_eq!(read.unwrap(), content[usize_of(at) * 512..][..512], "{at}"),
            }
        }
        // Written whole they are readable again, and the log forgets.
        for at in [lost, other] {
            let new = pattern(78, at, 1);
            bench.write(at, &new).await.unwrap();
            content[usize_of(at) * 512..][..512].copy_from_slice(&new);
        }
        bench.device.flush().await.unwrap();
        let bench = bench.reopen(&present).await;
        assert!(bench.read(0, bench.sectors()).await.unwrap() == content);
        assert!(bench.rig.logs(4).bad_blocks.unwrap().is_empty());
        assert!(holds_all(&bench, 4));
    });
}

#[test]
fn a_crash_anywhere_in_a_rebuild_with_a_loss_gives_out_nothing_else_for_what_is_lost() {
    runtime::block_on(async {
        let (rig, content, present) = degraded(ParityLevel::Raid5, 4, true).await;
        let rig = rig.with_logs(true);
        let bench = open(rig, ParityLevel::Raid5, 4, &present);
        let lost = (0..bench.sectors()).find(|at| bench.place(*at).0 == 1).unwrap();
        let (_, place) = bench.place(lost);
        let other = (0..bench.sectors()).find(|at| bench.place(*at) == (0, place)).unwrap();
        let start = bench.rig.images();
        bench.flip(other);
        rebuilt(&bench).await;
        bench.raid.close().await.unwrap();
        let log = bench.rig.log.borrow().clone();
        for length in (0..=log.len()).filter(|length| length % 3 == 0 || log.len() - length < 12) {
            for keep in [|_| false, |_| true, |at| at % 2 == 0] {
                let images = start.iter().zip(0..);
                let images = images.map(|(start, disk)| crashed(start, &log, length, disk, keep));
                let rig = Rig::of_images(images.collect(), true);
                rig.disks[0].flip(place);
                let bench = open(rig, ParityLevel::Raid5, 4, &present);
                rebuilt(&bench).await;
                for at in 0..bench.sectors() {
                    let read = bench.read(at, 1).await;
                    match at == lost || at == other {
                        true => assert!(read.is_err(), "cut at {length}: {at}"),
                        false => assert_eq!(read.unwrap(), content[usize_of(at) * 512..][..512]),
                    }
                }
            }
        }
    });
}

#[test]
fn a_replacement_is_filled_from_the_member_it_replaces_and_takes_its_place() {
    for (level, count) in LEVELS {
        runtime::block_on(async move {
            let bench = Bench::new(level, count, true, 8);
            let content = bench.fill().await;
            bench.raid.close().await.unwrap();
            let rig = bench.rig.with_spare(true);
            let all: Vec<usize> = (0..usize::from(count)).collect();
            let bench = open(rig, level, count, &all);
            let start = bench.rig.images();
            // Damage that redundancy still knows: it is not copied.
            bench.rig.disks[1].flip(DATA_OFFSET + 3);
            let damaged = bench.rig.images();
            let spare = usize::from(count);
            let mut found = bench.rig.found(spare);
            found.slot = 1;
            bench.raid.array().join(found, true, EVERYTHING).await.unwrap();
            assert_eq!(bench.raid.array().missing_count(), 0);
            rebuilt(&bench).await;
            let holder = bench.raid.array().member(1).unwrap();
            assert_eq!((&**holder.name(), holder.replaces()), (&*format!("disk{spare}"), false));
            bench.raid.close().await.unwrap();
            let log = bench.rig.log.borrow().clone();
            let present: Vec<usize> = (0..=spare).collect();
            assert_eq!(bench.rig.assembly(&present).slots[1], Slot::InSync(spare));
            assert_eq!(bench.rig.assembly(&present).left_out.len(), 1);
            assert!(holds_all(&bench, spare));
            assert!(start != damaged);
            for length in 0..=log.len() {
                for keep in [|_| false, |_| true, |at| at % 2 == 0] {
                    let images = start
                        .iter()
                        .zip(0..)
                        .map(|(start, disk)| crashed(start, &log, length, disk, keep));
                    let rig = Rig::of_images(images.collect(), true);
                    let bench = open(rig, level, count, &present);
                    assert_eq!(bench.raid.array().missing_count(), 0, "cut at {length}");
                    assert!(bench.read(0, bench.sectors()).await.unwrap() == content);
                }
            }
        });
    }
}

#[test]
fn a_scrub_of_what_was_rebuilt_finds_nothing() {
    runtime::block_on(async {
        let (rig, _, present) = degraded(ParityLevel::Raid6, 5, true).await;
        let bench = open(rig, ParityLevel::Raid6, 5, &present);
        rebuilt(&bench).await;
        for step in 0..bench.raid.steps() {
            let found = bench.raid.scrub(step, bio::ScrubMode::Check).await.found;
            assert_eq!(found, Vec::<(Finding, _, _)>::new());
        }
    });
}
