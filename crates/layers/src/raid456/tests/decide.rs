//! Redundancy that disagrees where no tag does: what is inferred, what an operator decides, and that
//! nothing else is touched. (The ideas of mdadm's tests 19raid6check, 19raid6repair and
//! 19repair-does-not-destroy.)

use super::*;
use bio::{Decision, Finding, ScrubMode, Trust};
use proptest::prelude::*;

const INFERRED: ScrubMode = ScrubMode::Decide(Decision { inferred: true, trust: None });

fn trusting(trust: Trust) -> ScrubMode {
    ScrubMode::Decide(Decision { inferred: false, trust: Some(trust) })
}

impl Bench {
    fn of_layout(layout: u32, count: u8) -> Self {
        let geometry = Geometry::new(ParityLevel::Raid6, layout, 8, count.into()).unwrap();
        let rig = Rig::new(Level::Raid6, count, false);
        Self::open(rig, &ALL[..count.into()], geometry, false)
    }

    async fn scrub(&self, mode: ScrubMode) -> Vec<(Finding, Option<String>, u64, u64)> {
        let mut found = bio::Findings::default();
        for step in 0..self.raid.steps() {
            found.merge(self.raid.scrub(step, mode).await);
        }
        let found = found.found.into_iter().map(|(finding, member, extent)| {
            (finding, member.map(|m| m.to_string()), extent.sector.0, extent.sectors)
        });
        found.collect()
    }

    /// Other bytes on one disk, with valid tags where there are any.
    fn spoil(&self, disk: usize, place: u64, sectors: u64) {
        let seed = 900 + u64_of(disk);
        self.rig.disks[disk].replace(place, &pattern(seed, place, sectors));
    }
}

#[test]
fn a_wrong_strip_is_inferred_in_every_layout_on_every_member_and_written_only_if_asked() {
    for layout in [0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 19, 20] {
        runtime::block_on(async move {
            let bench = Bench::of_layout(layout, 5);
            bench.fill().await;
            let sound = bench.rig.images();
            assert_eq!(bench.scrub(INFERRED).await, []);
            for disk in 0..5 {
                // A whole chunk, of another stripe for each member.
                let place = DATA_OFFSET + 8 * (2 * u64_of(disk) + 1);
                bench.spoil(disk, place, 8);
            }
            let spoilt = bench.rig.images();
            let named = |finding| {
                let of_disk =
                    |n: u64| (finding, Some(format!("disk{n}")), DATA_OFFSET + 8 * (2 * n + 1), 8);
                (0..5).map(of_disk).collect::<Vec<_>>()
            };
            for mode in [ScrubMode::Check, ScrubMode::Repair, ScrubMode::Check] {
                assert_eq!(bench.scrub(mode).await, named(Finding::Inferred), "layout {layout}");
                assert!(bench.rig.images() == spoilt, "layout {layout}");
            }
            assert_eq!(bench.count(|kind| *kind == EventKind::Inconsistent), 5);
            assert_eq!(bench.scrub(INFERRED).await, named(Finding::Decided), "layout {layout}");
            assert!(bench.rig.images() == sound, "layout {layout}");
            assert_eq!(bench.scrub(ScrubMode::Check).await, []);
        });
    }
}

#[test]
fn two_wrong_strips_are_listed_and_left_alone() {
    for layout in [2, 8, 16] {
        runtime::block_on(async move {
            let bench = Bench::of_layout(layout, 5);
            bench.fill().await;
            for (a, b) in (0..5).flat_map(|a| (0..a).map(move |b| (a, b))) {
                let place = DATA_OFFSET + 8 * 3;
                let before = bench.rig.images();
                // Whole chunks; and one block each, in different rows.
                for (first, second, sectors) in [(place, place, 8), (place, place + 5, 1)] {
                    bench.spoil(a, first, sectors);
                    bench.spoil(b, second, sectors);
                    let spoilt = bench.rig.images();
                    for mode in [ScrubMode::Repair, INFERRED, trusting(Trust::Parity)] {
                        let found = bench.scrub(mode).await;
                        let finding = found.iter().map(|(finding, ..)| *finding);
                        assert!(finding.eq([Finding::Inconsistent]), "{a} {b}: {found:?}");
                    }
                    assert!(bench.rig.images() == spoilt);
                    let restored = bench.rig.disks.iter().zip(&before);
                    restored.for_each(|(disk, was)| disk.bytes.borrow_mut().clone_from(was));
                }
            }
        });
    }
}

#[test]
fn where_tags_are_valid_nothing_is_inferred() {
    runtime::block_on(async {
        let bench = Bench::raid6(true);
        bench.fill().await;
        bench.spoil(1, DATA_OFFSET + 16, 8);
        let spoilt = bench.rig.images();
        for mode in [ScrubMode::Check, ScrubMode::Repair, INFERRED] {
            let found = bench.scrub(mode).await;
            assert!(matches!(found[..], [(Finding::Inconsistent, None, ..)]), "{found:?}");
        }
        assert!(bench.rig.images() == spoilt);
    });
}

#[test]
fn an_operator_decides_which_part_is_right() {
    runtime::block_on(async {
        for tagged in [false, true] {
            // The parity is what is made anew.
            let bench = Bench::raid5(tagged);
            bench.fill().await;
            let sound = bench.rig.images();
            bench.spoil(2, DATA_OFFSET + 16, 1);
            let wrong = bench.rig.disks[2].sector(DATA_OFFSET + 16);
            let found = bench.scrub(trusting(Trust::Data)).await;
            assert!(matches!(found[..], [(Finding::Decided, Some(_), _, 1)]), "{found:?}");
            assert!(bench.parity_is_true());
            assert_eq!(bench.rig.disks[2].sector(DATA_OFFSET + 16), wrong);
            assert_eq!(bench.scrub(ScrubMode::Check).await, []);

            // A member is what is wrong.
            for (bench, disk) in [(Bench::raid5(tagged), 3), (Bench::raid6(tagged), 0)] {
                bench.fill().await;
                let sound = bench.rig.images();
                bench.spoil(disk, DATA_OFFSET + 8, 8);
                let found = bench.scrub(trusting(Trust::AllBut(disk))).await;
                let expected = (Finding::Decided, Some(format!("disk{disk}")), DATA_OFFSET + 8, 8);
                assert_eq!(found, [expected]);
                assert!(bench.rig.images() == sound);
            }

            // P and Q are right.
            let bench = Bench::raid6(tagged);
            bench.fill().await;
            let of_six = bench.rig.images();
            let (disk, place) = bench.place(40);
            bench.spoil(disk, place, 1);
            let found = bench.scrub(trusting(Trust::Parity)).await;
            assert_eq!(found, [(Finding::Decided, Some(format!("disk{disk}")), place, 1)]);
            assert!(bench.rig.images() == of_six && sound.len() == 4);
        }
    });
}

#[test]
fn a_member_that_is_not_the_wrong_one_is_not_rewritten_on_raid6() {
    runtime::block_on(async {
        let bench = Bench::raid6(false);
        bench.fill().await;
        bench.spoil(1, DATA_OFFSET + 16, 8);
        let spoilt = bench.rig.images();
        for slot in [0, 2, 3, 4] {
            bench.scrub(trusting(Trust::AllBut(slot))).await;
            assert!(bench.rig.images() == spoilt, "slot {slot}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is sound is never changed, whatever is decided, and one wrong strip is restored exactly.
    #[test]
    fn only_what_disagrees_is_touched(
        stripe in 0u64..20,
        spoilt in proptest::collection::vec((0usize..5, 0u64..8, 1u64..4), 0..3),
        inferred: bool,
        trust in prop_oneof![
            Just(None),
            Just(Some(Trust::Data)),
            Just(Some(Trust::Parity)),
            (0usize..5).prop_map(|slot| Some(Trust::AllBut(slot))),
        ],
    ) {
        runtime::block_on(async move {
            let bench = Bench::raid6(false);
            bench.fill().await;
            let sound = bench.rig.images();
            let start = DATA_OFFSET + stripe * 8;
            for (disk, at, sectors) in spoilt {
                bench.spoil(disk, start + at, sectors.min(8 - at));
            }
            bench.scrub(ScrubMode::Decide(Decision { inferred, trust })).await;
            let within = usize_of(start) * 512..usize_of(start + 8) * 512;
            for (disk, sound) in bench.rig.disks.iter().zip(&sound) {
                let bytes = disk.bytes.borrow();
                assert!(bytes[..within.start] == sound[..within.start]);
                assert!(bytes[within.end..] == sound[within.end..]);
            }
        });
    }
}
