//! Power cuts at every write, with any subset of what was not durable.

use super::*;

/// What a block may hold after a crash: the last flushed value and all later ones.
type Allowed = Vec<Vec<u8>>;

/// Writes with flushes in between; after each step, where the log ends and what is allowed.
fn history(rig: &Rc<Rig>, script: Vec<(u64, u64, bool)>) -> Vec<(usize, Allowed)> {
    let held = Rc::clone(rig);
    block_on(async move {
        let raid = open(&held);
        let mut allowed: Allowed = vec![vec![0]; 16];
        let mut steps = vec![(0, allowed.clone())];
        for (value, (sector, sectors, flush)) in (1..).zip(script) {
            for block in &mut allowed[usize_of(sector)..usize_of(sector + sectors)] {
                block.push(value);
            }
            // While it runs, old and new are allowed.
            let last = steps.last_mut().expect("the first is there");
            last.1 = allowed.clone();
            write(&raid, sector, sectors, value).await.unwrap();
            if flush {
                raid.device().flush().await.unwrap();
                for block in &mut allowed {
                    block.drain(..block.len() - 1);
                }
            }
            let end = held.log.borrow().len();
            steps.push((end, allowed.clone()));
            if value % 3 == 0 {
                sleep(Duration::from_secs(1)).await;
            }
        }
        steps
    })
}

/// Opens what a crash left: what is read is allowed, stays so through resync, and is then on every
/// member.
fn check_crash(images: Vec<Vec<u8>>, allowed: &Allowed) {
    let rig = Rc::new(Rig::of_images(images, true));
    let held = Rc::clone(&rig);
    let allowed = allowed.clone();
    block_on(async move {
        let raid = open(&held);
        let before = read(&raid, 0, 16).await.unwrap();
        for (sector, value) in before.iter().enumerate() {
            assert!(allowed[sector].contains(value), "{sector}: {value} of {:?}", allowed[sector]);
        }
        raid.resync().await.unwrap();
        assert_eq!(read(&raid, 0, 16).await.unwrap(), before);
        raid.close().await.unwrap();
    });
    assert!(agree(&rig, 16));
    let all: Vec<usize> = (0..rig.disks.len()).collect();
    assert_eq!(rig.assembly(&all).resync, ResyncOffset::Clean);
}

/// RAID 1 and each kind of RAID 10, the smallest in which it is more than RAID 1.
fn shapes() -> impl Strategy<Value = (Level, u32, u8)> {
    prop::sample::select(vec![
        (Level::Raid1, 0, 2),
        (Level::Raid10, 0x102, 3),
        (Level::Raid10, 0x201, 2),
        (Level::Raid10, 0x1_0201, 3),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn after_a_crash_anywhere_flushed_writes_are_there_and_the_copies_agree(
        script in prop::collection::vec((0u64..16, 1u64..8, any::<bool>()), 1..7),
        seed in any::<u64>(),
        (level, layout, count) in shapes(),
    ) {
        let script: Vec<_> =
            script.into_iter().map(|(at, n, flush)| (at, n.min(16 - at), flush)).collect();
        let rig = Rc::new(Rig::shaped(level, layout, count, true));
        let start = rig.images();
        let steps = history(&rig, script);
        let log = rig.log.borrow().clone();
        for length in 0..=log.len() {
            let allowed = steps.iter().rev().find(|(end, _)| *end <= length);
            let (_, allowed) = allowed.expect("the first step ends at 0");
            for salt in 0..3u64 {
                // Any subset of what was not durable survives, each disk for itself.
                let keep = |at: usize| {
                    let mixed = (seed ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64_of(at))
                        .wrapping_mul(0xBF58_476D_1CE4_E5B9);
                    salt == 0 || mixed >> 63 == 0
                };
                let images = start.iter().zip(0..);
                let images = images.map(|(start, disk)| crashed(start, &log, length, disk, keep));
                check_crash(images.collect(), allowed);
            }
        }
    }

    #[test]
    fn healing_and_resyncing_never_undo_a_write(
        damaged in prop::collection::vec((0usize..2, 0u64..32), 0..24),
        delays in prop::collection::vec(0u64..40, 32),
    ) {
        let rig = dirty(2, true);
        for (disk, sector) in damaged {
            rig.disks[disk].flip(DATA_OFFSET + sector);
        }
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            raid.start();
            // Each sector is written once, at some moment of the healing reads and the resync.
            let writes = delays.into_iter().zip(0..).map(|(delay, sector)| {
                let raid = Rc::clone(&raid);
                spawn(async move {
                    for _ in 0..delay {
                        runtime::yield_now().await;
                    }
                    // What nobody has is an error; what was written is not.
                    let _ = raid.device().read(Sector(sector), 1).await;
                    write(&raid, sector, 1, 200).await.unwrap();
                    assert_eq!(read(&raid, sector, 1).await.unwrap(), [200]);
                })
            });
            let writes: Vec<_> = writes.collect();
            for _ in 0..3 {
                let _ = raid.device().read(Sector(0), 32).await;
            }
            join_all(writes).await;
            raid.close().await.unwrap();
        });
        for disk in 0..2 {
            for sector in 0..32 {
                prop_assert_eq!(rig.disks[disk].sector(DATA_OFFSET + sector), [200; 512]);
            }
        }
    }

    #[test]
    fn overlapping_writes_leave_the_same_on_every_member(
        writes in prop::collection::vec((0u64..32, 1u64..16), 1..12),
    ) {
        let rig = rig(3);
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            let all = writes.into_iter().zip(1..).map(|((sector, sectors), value)| {
                let raid = Rc::clone(&raid);
                async move { write(&raid, sector, sectors, value).await.unwrap() }
            });
            join_all(all).await;
            raid.close().await.unwrap();
        });
        let data = |disk: usize| rig.disks[disk].bytes.borrow()[8192..].to_vec();
        prop_assert!(data(0) == data(1) && data(0) == data(2));
    }
}

#[test]
fn a_log_of_a_crash_test_holds_what_the_members_were_sent() {
    let rig = rig(2);
    let steps = history(&rig, vec![(0, 1, true)]);
    assert_eq!(steps[1].0, rig.log.borrow().len());
    let to_data =
        |entry: &&Entry| matches!(entry, Entry::Write { sector, .. } if sector.0 >= DATA_OFFSET);
    assert_eq!(rig.log.borrow().iter().filter(to_data).count(), 2);
}
