//! What a write reads, stores and leaves when members are missing.

use super::*;
use crate::array::testing::Entry;

#[test]
fn a_write_of_whole_stripes_reads_nothing() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let content = bench.fill().await;
        assert_eq!(bench.reads(), 0);
        // Stripes that follow each other are one request to each member.
        let is_data = |entry: &&Entry| match entry {
            Entry::Write { sector, .. } => sector.0 >= DATA_OFFSET,
            Entry::Flush { .. } => false,
        };
        assert_eq!(bench.rig.log.borrow().iter().filter(is_data).count(), 5);
        assert!(bench.parity_is_true());
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        assert_eq!(bench.raid.cached_bytes(), 0);
    });
}

#[test]
fn small_sequential_writes_become_whole_stripes() {
    runtime::block_on(async {
        let bench = Bench::new(ParityLevel::Raid5, 4, true, 64);
        let content = pattern(3, 0, 768);
        for at in (0..768).step_by(16) {
            let part = &content[usize_of(at) * 512..usize_of(at + 16) * 512];
            bench.write(at, part).await.unwrap();
        }
        bench.device.flush().await.unwrap();
        assert_eq!(bench.reads(), 0);
        assert!(bench.parity_is_true());
        assert_eq!(bench.read(0, 768).await.unwrap(), content);
    });
}

#[test]
fn a_small_write_reads_only_its_own_columns() {
    runtime::block_on(async {
        let bench = Bench::new(ParityLevel::Raid6, 6, true, 64);
        let mut content = bench.fill().await;
        let new = pattern(5, 70, 2);
        bench.write(70, &new).await.unwrap();
        content[70 * 512..72 * 512].copy_from_slice(&new);
        let log = bench.rig.log.borrow().len();
        bench.device.flush().await.unwrap();
        let entries = bench.rig.log.borrow()[log..].to_vec();
        let written: usize = entries
            .iter()
            .map(|entry| match entry {
                Entry::Write { sector, bytes, .. } if sector.0 >= DATA_OFFSET => bytes.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(written, 3 * 1024);
        assert_eq!(bench.reads(), 3); // old data, P, Q
        assert!(bench.parity_is_true());
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn cached_writes_are_visible_at_once_and_stored_when_left_alone() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let mut content = bench.fill().await;
        let new = pattern(7, 5, 6);
        bench.write(5, &new).await.unwrap();
        content[5 * 512..11 * 512].copy_from_slice(&new);
        assert!(bench.raid.cached_bytes() > 0);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        assert_eq!(bench.read(6, 1).await.unwrap(), content[6 * 512..7 * 512]);
        runtime::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(bench.raid.cached_bytes(), 0);
        assert!(bench.parity_is_true());
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn a_write_through_is_on_the_members_when_it_completes() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let new = pattern(7, 3, 2);
        let data = Buf::copy_of(&new);
        bench.device.submit(&mut Bio::write_fua(Sector(3), data)).await.unwrap();
        let (disk, place) = bench.place(3);
        assert_eq!(bench.rig.disks[disk].sector(place), new[..512]);
        let log = bench.rig.log.borrow();
        let durable = log.iter().all(|entry| match entry {
            Entry::Write { fua, .. } => *fua,
            Entry::Flush { .. } => true,
        });
        assert!(durable && bench.parity_is_true());
    });
}

#[test]
fn more_writes_than_the_cache_holds_wait_for_room() {
    runtime::block_on(async {
        let bench = Bench::new(ParityLevel::Raid5, 4, true, 8);
        let mut content = bench.fill().await;
        let writes = (0..bench.sectors()).step_by(3).map(|at| {
            let new = pattern(11, at, 1);
            content[usize_of(at) * 512..][..512].copy_from_slice(&new);
            let device = bench.device.clone();
            async move { device.write(Sector(at), Buf::copy_of(&new)).await }
        });
        let writes: Vec<_> = writes.collect();
        for result in runtime::join_all(writes).await {
            result.unwrap();
        }
        assert!(bench.raid.cached_bytes() <= 256 << 10);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        bench.device.flush().await.unwrap();
        assert!(bench.parity_is_true());
    });
}

/// With every set of members missing that the level allows: reads, and writes to every sector, also
/// to those of the missing; and what the survivors then hold reconstructs it.
#[test]
fn degraded_arrays_read_and_write_everything() {
    for (level, count, gone) in [
        (ParityLevel::Raid5, 4, vec![0]),
        (ParityLevel::Raid5, 4, vec![2]),
        (ParityLevel::Raid6, 5, vec![1]),
        (ParityLevel::Raid6, 5, vec![0, 3]),
        (ParityLevel::Raid6, 5, vec![3, 4]),
        (ParityLevel::Raid4, 3, vec![2]),
    ] {
        runtime::block_on(async move {
            let bench = Bench::new(level, count, true, 8);
            let mut content = bench.fill().await;
            bench.raid.close().await.unwrap();
            let present: Vec<usize> =
                (0..usize::from(count)).filter(|slot| !gone.contains(slot)).collect();
            let bench = Bench::open(bench.rig, &present, bench.geometry, false);
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
            for (at, length) in [(0, 1), (9, 3), (15, 20), (100, 64), (301, 2), (310, 1), (330, 9)]
            {
                let new = pattern(13, at, length);
                bench.write(at, &new).await.unwrap();
                content[usize_of(at) * 512..][..new.len()].copy_from_slice(&new);
            }
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
            bench.device.flush().await.unwrap();
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
            for at in (0..bench.sectors()).step_by(5) {
                assert_eq!(bench.read(at, 1).await.unwrap(), content[usize_of(at) * 512..][..512]);
            }
            let bench = bench.reopen(&present).await;
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        });
    }
}

#[test]
fn a_member_that_stops_answering_is_failed_and_nothing_is_lost() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let mut content = bench.fill().await;
        bench.rig.disks[1].gone.set(true);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        let new = pattern(17, 40, 3);
        bench.write(40, &new).await.unwrap();
        content[40 * 512..43 * 512].copy_from_slice(&new);
        bench.device.flush().await.unwrap();
        assert_eq!(bench.raid.array().missing_count(), 1);
        assert_eq!(bench.count(|kind| *kind == EventKind::MemberFailed), 1);
        let bench = bench.reopen(&[0, 2, 3]).await;
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn a_member_that_fails_in_the_middle_of_a_write_does_not_fail_the_write() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let mut content = bench.fill().await;
        bench.rig.disks[2].unwritable.borrow_mut().extend(0..1000);
        let new = pattern(19, 0, 30);
        bench.write(0, &new).await.unwrap();
        bench.device.flush().await.unwrap();
        content[..30 * 512].copy_from_slice(&new);
        assert_eq!(bench.raid.array().missing_count(), 1);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn no_space_is_the_clients_error_and_parity_stays_true() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        bench.fill().await;
        let (disk, place) = bench.place(8);
        bench.rig.disks[disk].write_error.set(IoErrorKind::NoSpace);
        bench.rig.disks[disk].unwritable.borrow_mut().insert(place);
        bench.write(0, &pattern(23, 0, 24)).await.unwrap_err();
        assert_eq!(bench.raid.array().missing_count(), 0);
        assert!(bench.parity_is_true());
        bench.write(8, &pattern(23, 8, 1)).await.unwrap(); // waits in memory
        let error = bench.device.flush().await.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::NoSpace);
        assert_eq!(bench.read(8, 1).await.unwrap(), pattern(23, 8, 1));
        bench.rig.disks[disk].unwritable.borrow_mut().clear();
        bench.device.flush().await.unwrap();
        assert!(bench.parity_is_true());
        assert_eq!(bench.rig.disks[disk].sector(place), pattern(23, 8, 1));
        bench.raid.close().await.unwrap();
        assert_eq!(bench.rig.superblock(0).resync(), ResyncOffset::Clean);
    });
}

#[test]
fn zeroes_and_discards_are_zero_and_parity_is_true() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        let mut content = bench.fill().await;
        for (at, length) in [(5u64, 2u64), (20, 9), (30, 100), (240, 48), (300, 468)] {
            bench.write(at, &pattern(29, at, 1)).await.unwrap();
            let mut zeroes = Bio::write_zeroes(Sector(at), length, true);
            bench.device.submit(&mut zeroes).await.unwrap();
            content[usize_of(at) * 512..usize_of(at + length) * 512].fill(0);
            assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
        }
        bench.device.flush().await.unwrap();
        assert!(bench.parity_is_true());
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

#[test]
fn closing_leaves_a_clean_array_with_everything_stored() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        let mut content = bench.fill().await;
        bench.write(33, &pattern(31, 33, 2)).await.unwrap();
        content[33 * 512..35 * 512].copy_from_slice(&pattern(31, 33, 2));
        assert_eq!(bench.rig.superblock(0).resync(), ResyncOffset::Below(Sector::ZERO));
        let bench = bench.reopen(&[0, 1, 2, 3]).await;
        assert_eq!(bench.raid.resynced(), None);
        assert_eq!(bench.read(0, bench.sectors()).await.unwrap(), content);
    });
}

/// Its members are closed next: what they then say is about nothing.
#[test]
fn an_array_that_could_not_be_closed_touches_its_members_no_more() {
    runtime::block_on(async {
        let bench = Bench::raid5(true);
        bench.fill().await;
        bench.rig.disks[0].unwritable.borrow_mut().extend(DATA_OFFSET..DATA_OFFSET + DATA_SECTORS);
        bench.rig.disks[0].write_error.set(bio::IoErrorKind::NoSpace);
        bench.write(0, &pattern(67, 0, 3)).await.unwrap();
        let error = bench.raid.close().await.unwrap_err();
        assert_eq!(error.kind, bio::IoErrorKind::NoSpace);
        for disk in &bench.rig.disks {
            disk.flush_error.set(Some(bio::IoErrorKind::Unavailable));
        }
        let before = bench.rig.log.borrow().len();
        runtime::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(bench.rig.log.borrow().len(), before);
        assert_eq!(bench.raid.array().missing_count(), 0);
    });
}

/// A block of a row is lost with its member, another is damaged and written whole: parity cannot be made,
/// and is recorded as bad where there is a log, so that the array need not stay dirty.
#[test]
fn a_degraded_row_with_a_loss_costs_its_parity_and_not_the_whole_array() {
    runtime::block_on(async {
        for with_logs in [true, false] {
            let bench = Bench::raid5(true);
            let content = bench.fill().await;
            bench.raid.close().await.unwrap();
            let rig = if with_logs { bench.rig.with_logs(true) } else { bench.rig };
            let present = [0, 2, 3];
            let bench = Bench::open(rig, &present, geometry(ParityLevel::Raid5, 8, 4), false);
            let lost = (0..bench.sectors()).find(|at| bench.place(*at).0 == 1).unwrap();
            let (_, place) = bench.place(lost);
            let other = (0..bench.sectors()).find(|at| bench.place(*at) == (0, place)).unwrap();
            bench.garble(other);
            bench.write(other, &pattern(79, other, 1)).await.unwrap();
            bench.device.flush().await.unwrap();
            bench.raid.close().await.unwrap();
            let assembly = bench.rig.assembly(&present);
            assert_eq!(assembly.cannot_start.is_empty(), with_logs, "{:?}", assembly.cannot_start);
            if !with_logs {
                continue;
            }
            let bench = Bench::open(bench.rig, &present, geometry(ParityLevel::Raid5, 8, 4), false);
            for at in 0..bench.sectors() {
                let read = bench.read(at, 1).await;
                let expected = &content[usize_of(at) * 512..][..512];
                match at {
                    _ if at == lost => assert!(read.is_err(), "{at}"),
                    _ if at == other => assert_eq!(read.unwrap(), pattern(79, other, 1)),
                    _ => assert_eq!(read.unwrap(), expected, "{at}"),
                }
            }
        }
    });
}
