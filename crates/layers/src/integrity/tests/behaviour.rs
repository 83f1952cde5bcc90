//! What the layer does on a sound disk.

use super::disk::Step;
use super::*;
use bio::{IoErrorKind, Op};
use std::time::Duration;

/// Block sizes with a journal of a few sections each.
const SHAPES: [(u64, u64); 4] = [(512, 1000), (1024, 900), (2048, 1300), (4096, 2000)];

#[test]
fn what_was_written_is_read_before_and_after_every_stage() {
    for (block, journal) in SHAPES {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(block, journal)).await;
            let volume = opened(&disk).await;
            let device = volume.device();
            assert_holds(&device, 0, device.limits().sectors, 0).await;
            put(&device, 200, 400, 1).await.unwrap();
            put(&device, 304, 8, 2).await.unwrap();
            let check = async |device: &Device| {
                assert_holds(device, 0, 200, 0).await;
                assert_holds(device, 200, 104, 1).await;
                assert_holds(device, 304, 8, 2).await;
                assert_holds(device, 312, 288, 1).await;
                let whole = read(device, 0, 2000).await.unwrap();
                let expected = [
                    pattern(0, 200, 0),
                    pattern(200, 104, 1),
                    pattern(304, 8, 2),
                    pattern(312, 288, 1),
                    pattern(600, 1400, 0),
                ];
                assert!(whole == expected.concat());
            };
            check(&device).await;
            device.flush().await.unwrap();
            check(&device).await;
            volume.close().await.unwrap();
            assert_eq!(put(&device, 0, 8, 9).await, Err(IoErrorKind::Unavailable.at(Sector(0))));
            let volume = opened(&disk).await;
            check(&volume.device()).await;
            assert_eq!(volume.mismatches(), 0);
        });
    }
}

#[test]
fn a_journal_much_smaller_than_what_is_written_goes_round_and_round() {
    for (block, journal) in [(512, 1), (512, 400), (4096, 1), (4096, 900)] {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(block, journal)).await;
            let volume = opened(&disk).await;
            let device = volume.device();
            for version in 1..4 {
                for at in (0..8192).step_by(2048) {
                    put(&device, at, 2048, version).await.unwrap();
                }
            }
            assert_holds(&device, 0, 8192, 3).await;
            volume.close().await.unwrap();
            let again = opened(&disk).await;
            assert_holds(&again.device(), 0, 8192, 3).await;
            let past = read_past_cache(&again.device(), 0, 8192).await.unwrap();
            assert!(past == pattern(0, 8192, 3));
        });
    }
}

#[test]
fn many_writers_and_readers_at_once_see_whole_blocks() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 600)).await;
        disk.record(77);
        let volume = opened(&disk).await;
        let device = volume.device();
        let tasks: Vec<_> = (0..24_u64)
            .map(|task| {
                let device = device.clone();
                runtime::spawn(async move {
                    for round in 1..20 {
                        let at = (task * 37 + round * 11) % 12 * 64;
                        put(&device, at, 64, task * 100 + round).await.unwrap();
                        if round % 5 == 0 {
                            device.flush().await.unwrap();
                        }
                        read(&device, at, 128).await.unwrap();
                    }
                })
            })
            .collect();
        runtime::join_all(tasks).await;
        volume.close().await.unwrap();
        assert_eq!(volume.mismatches(), 0);
        let volume = opened(&disk).await;
        assert!(read(&volume.device(), 0, 12 * 64).await.is_ok());
    });
}

#[test]
fn a_flush_with_nothing_new_writes_nothing() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 1000)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        put(&device, 0, 8, 1).await.unwrap();
        device.flush().await.unwrap();
        disk.record(1);
        device.flush().await.unwrap();
        assert!(disk.steps().is_empty());
    });
}

#[test]
fn a_write_is_committed_in_time_without_a_flush() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 1000)).await;
        let volume = opened(&disk).await;
        disk.record(1);
        put(&volume.device(), 0, 8, 1).await.unwrap();
        runtime::sleep(Duration::from_secs(9)).await;
        assert!(disk.steps().is_empty());
        runtime::sleep(Duration::from_secs(2)).await;
        assert!(!disk.steps().is_empty());
    });
}

#[test]
fn a_clean_close_leaves_the_laps_that_the_kernel_leaves() {
    runtime::block_on(async {
        // 64 MiB, defaults: five sections; three flushed writes use three of them.
        let options = FormatOptions {
            journal_sectors: None,
            interleave_sectors: None,
            ..format_options(512, 0)
        };
        let disk = made(131_072, &options).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        for at in [0, 32760, 40000] {
            put(&device, at, 8, 1).await.unwrap();
            device.flush().await.unwrap();
        }
        volume.close().await.unwrap();
        let laps: Vec<u8> = (0..5_usize)
            .map(|section| disk.content()[4096 + section * 176 * 512 + 510] >> 4)
            .collect();
        // Base ids 0x2222.. for lap 1, 0x3333.. for lap 2 (section 6.4 of the specification).
        assert_eq!(laps, [3, 3, 3, 2, 2]);
    });
}

#[test]
fn zeroes_are_zeroes_whatever_was_there() {
    for unmap in [false, true] {
        runtime::block_on(async move {
            let disk = made(16384, &format_options(512, 600)).await;
            let volume = opened(&disk).await;
            let device = volume.device();
            put(&device, 100, 3000, 1).await.unwrap();
            device.flush().await.unwrap();
            put(&device, 600, 10, 2).await.unwrap();
            device.submit(&mut Bio::write_zeroes(Sector(500), 2000, unmap)).await.unwrap();
            assert_holds(&device, 500, 2000, 0).await;
            assert_holds(&device, 100, 400, 1).await;
            assert_holds(&device, 2500, 600, 1).await;
            volume.close().await.unwrap();
            let volume = opened(&disk).await;
            assert_holds(&volume.device(), 500, 2000, 0).await;
            assert_holds(&volume.device(), 2500, 600, 1).await;
        });
    }
}

#[test]
fn discarding_what_was_never_written_needs_no_journal() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(4096, 900)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        let journal_end = usize_of(volume.layout().initial_sectors * 512);
        let before = disk.content()[..journal_end].to_vec();
        let sectors = device.limits().sectors;
        device.submit(&mut Bio::discard(Sector(0), sectors)).await.unwrap();
        volume.close().await.unwrap();
        assert!(disk.content()[..journal_end] == before);
        let found = device.allocation(Sector(0), sectors).await.unwrap();
        assert!(found.iter().all(|run| run.hole), "{found:?}");
    });
}

#[test]
fn a_hole_below_with_another_tag_is_not_reported_as_one() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 600)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        put(&device, 16, 16, 1).await.unwrap();
        device.flush().await.unwrap();
        let holes = |found: Vec<bio::Allocation>| {
            found.iter().map(|run| (run.sectors, run.hole)).collect::<Vec<_>>()
        };
        let pending = holes(device.allocation(Sector(0), 64).await.unwrap());
        assert_eq!(pending, [(16, true), (16, false), (32, true)]);
        volume.close().await.unwrap();
        let place = volume.layout().run(Sector(20), 4).data.bytes();
        disk.set(place, &[0; 4 * 512]);
        let lost = holes(device.allocation(Sector(0), 64).await.unwrap());
        assert_eq!(lost, [(16, true), (16, false), (32, true)]);
    });
}

#[test]
fn stored_tags_vouch_for_the_newest_data_and_no_other() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(512, 600)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        let vouch = async |version| {
            let data = Buf::copy_of(&pattern(248, 16, version));
            device.submit(&mut Bio::vouch(Sector(248), data)).await
        };
        assert_eq!(vouch(0).await, Ok(()));
        put(&device, 256, 8, 1).await.unwrap();
        assert_eq!(vouch(0).await, Err(IoErrorKind::Protection.at(Sector(256))));
        assert_eq!(vouch(1).await, Err(IoErrorKind::Protection.at(Sector(248))));
        put(&device, 248, 8, 1).await.unwrap();
        assert_eq!(vouch(1).await, Ok(()));
        volume.close().await.unwrap();
        assert_eq!(vouch(1).await, Ok(()));
        // Damaged data, intact tag: the tag still tells right from wrong.
        disk.flip(volume.layout().run(Sector(250), 1).data.bytes(), 4);
        assert_eq!(vouch(1).await, Ok(()));
        assert!(read(&device, 248, 16).await.is_err());
        assert_eq!(device.limits().verified, Op::Vouch == Op::Vouch);
    });
}

#[test]
fn memory_is_bounded_by_what_was_asked_for() {
    runtime::block_on(async {
        let disk = made(65536, &format_options(4096, 16384)).await;
        let small = Options { memory_bytes: 1, ..options() };
        let volume = Integrity::open(disk.device(), small).await.unwrap();
        let device = volume.device();
        put(&device, 0, 8192, 1).await.unwrap();
        assert_holds(&device, 0, 8192, 1).await;
        volume.close().await.unwrap();
        let volume = opened(&disk).await;
        assert_holds(&volume.device(), 0, 8192, 1).await;
    });
}

#[test]
fn a_read_into_odd_pieces_is_verified_and_filled() {
    runtime::block_on(async {
        let disk = made(16384, &format_options(4096, 900)).await;
        let volume = opened(&disk).await;
        let device = volume.device();
        let source = pattern(0, 64, 5);
        let pieces: Vec<Buf> = source.chunks(1000).map(Buf::copy_of).collect();
        device.write(Sector(0), pieces).await.unwrap();
        put(&device, 24, 8, 6).await.unwrap();
        volume.inner.flush().await.unwrap();
        for volume_closed in [false, true] {
            if volume_closed {
                volume.close().await.unwrap();
            }
            let lengths = [512, 7000, 100, 25_156];
            let pieces: Vec<Buf> = lengths.into_iter().map(Buf::alloc).collect();
            let mut bio = Bio::read_into(Sector(0), pieces);
            device.submit(&mut bio).await.unwrap();
            let mut expected = source.clone();
            expected[bytes(24)..bytes(32)].copy_from_slice(&pattern(24, 8, 6));
            assert!(bio.data.into_single().as_slice() == &expected[..bytes(64)]);
        }
    });
}

/// Of two flushes at once the later one does not take the earlier one's for done.
#[test]
fn no_flush_is_answered_before_space_that_was_given_back_is_durable() {
    for seed in 1..200 {
        runtime::block_on(async move {
            let disk = made(2000, &format_options(512, 600)).await;
            let volume = opened(&disk).await;
            let device = volume.device();
            disk.record(seed);
            device.submit(&mut Bio::write_zeroes(Sector(8), 8, true)).await.unwrap();
            let flush = async |mark| {
                device.flush().await.unwrap();
                disk.mark(mark);
            };
            runtime::join_all([flush(1), flush(2)]).await;
            let steps = disk.steps();
            let place = |wanted: fn(&Step) -> bool| steps.iter().position(wanted);
            let first = place(|step| matches!(step, Step::Mark(_))).unwrap();
            let covered = place(|step| matches!(step, Step::Flush)).unwrap();
            assert!(covered < first, "seed {seed}: {steps:?}");
        });
    }
}
