//! A copy whose tuple is an escape is one without tags.

use super::*;
use crate::array::testing::{BEFORE, Model, Protected, on_member, profiles};
use dif::{Profile, ProtectionType, Tuple};

/// A mirror of protected memory, filled.
struct Bench {
    rig: Protected,
    raid: Rc<Mirror>,
    model: Model,
    profile: Profile,
}

type Stored = (Vec<u8>, Vec<u8>);

impl Bench {
    async fn new(profile: Profile, count: usize) -> Self {
        let all: Vec<usize> = (0..count).collect();
        let rig = Protected::new(profile, count, DATA_SECTORS, true);
        let raid = Mirror::new(rig.open(&all), Placement::Everywhere).unwrap();
        let mut model = Model::new(raid.device());
        model.fill().await;
        Self { rig, raid, model, profile }
    }

    /// What lies in the first block of each.
    async fn stored(&self) -> Vec<Stored> {
        let mut stored = Vec::new();
        for member in &self.rig.members {
            stored.push(on_member(member, Sector(BEFORE)).await);
        }
        stored
    }

    async fn put(&self, slot: usize, (data, tags): &Stored) {
        let write = Bio::write(Sector(BEFORE), Buf::copy_of(data));
        self.rig.members[slot].submit(&mut write.tagged(Buf::copy_of(tags))).await.unwrap();
    }

    /// Other data in the first block of `slot`, which nobody may check: its tuple became an escape, or all
    /// of it is as if nobody had given any.
    async fn escape(&self, slot: usize, seed: u8, blank: bool) {
        let (mut data, mut tags) = self.stored().await.swap_remove(slot);
        data[..9].iter_mut().for_each(|byte| *byte ^= seed);
        let format = self.profile.format;
        let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
        let mut tuple = Tuple::decode(&format, &tags[place.clone()]);
        tuple.application = u16::MAX;
        if self.profile.kind == ProtectionType::Three {
            tuple.reference = format.reference_mask();
        }
        tuple.encode(&format, &mut tags[place]);
        if blank {
            tags.fill(u8::MAX);
        }
        self.put(slot, &(data, tags)).await;
    }

    async fn damage(&self, slot: usize) {
        let (mut data, tags) = self.stored().await.swap_remove(slot);
        data[20] ^= 0x11;
        self.put(slot, &(data, tags)).await;
    }

    async fn scrub(&self, mode: ScrubMode) -> Vec<Finding> {
        self.raid.scrub(0, mode).await.found.into_iter().map(|(finding, ..)| finding).collect()
    }
}

#[test]
fn a_copy_that_was_checked_wins_over_one_that_was_not_and_heals_it() {
    for profile in profiles() {
        for (slot, blank) in [(0, false), (1, false), (0, true), (1, true)] {
            block_on(async move {
                let bench = Bench::new(profile, 2).await;
                let before = bench.stored().await;
                bench.escape(slot, 7, blank).await;
                // Both members are asked, whoever begins; with tags and without.
                for _ in 0..3 {
                    bench.model.check().await;
                    let block = bench.raid.inner.block().sectors();
                    let read = bench.raid.device().read(Sector(0), block).await.unwrap();
                    assert!(read.as_slice() == before[0].0);
                }
                assert_eq!(bench.scrub(ScrubMode::Repair).await, []);
                assert!(bench.stored().await == before);
                // A scrub does the same.
                bench.escape(slot, 9, blank).await;
                assert_eq!(bench.scrub(ScrubMode::Check).await, [Finding::Healable]);
                assert_eq!(bench.scrub(ScrubMode::Repair).await, [Finding::Healed]);
                assert!(bench.stored().await == before);
            });
        }
    }
}

#[test]
fn of_copies_that_nobody_checked_none_heals_another_unless_they_are_the_same() {
    block_on(async {
        let bench = Bench::new(profiles()[0], 2).await;
        bench.escape(0, 1, false).await;
        bench.escape(1, 2, false).await;
        let before = bench.stored().await;
        assert_eq!(bench.scrub(ScrubMode::Repair).await, [Finding::Inconsistent]);
        assert!(bench.stored().await == before);
        // Of three, one damaged: two others that differ say nothing.
        let bench = Bench::new(profiles()[0], 3).await;
        bench.escape(0, 1, false).await;
        bench.escape(1, 2, true).await;
        bench.damage(2).await;
        let before = bench.stored().await;
        let found = bench.scrub(ScrubMode::Repair).await;
        assert!(found.contains(&Finding::Unreadable) && found.contains(&Finding::Inconsistent));
        assert!(bench.stored().await == before);
        let one = Extent { sector: Sector(0), sectors: 1 };
        let damaged = &bench.raid.inner.sites(one)[2];
        let healed = bench.raid.inner.heal(damaged, one, IoErrorKind::Protection);
        assert!(healed.await.is_err());
        // The same in both is what nobody gave tags.
        let blank = before[1].clone();
        bench.put(0, &blank).await;
        assert_eq!(bench.scrub(ScrubMode::Repair).await, [Finding::Healed]);
        assert!(bench.stored().await.iter().all(|stored| *stored == blank));
    });
}

#[test]
fn of_three_copies_without_tags_most_are_an_inference_and_a_checked_one_outweighs_them() {
    block_on(async {
        let bench = Bench::new(profiles()[0], 3).await;
        let before = bench.stored().await;
        bench.escape(0, 1, true).await;
        bench.escape(2, 1, true).await;
        assert_eq!(bench.scrub(ScrubMode::Repair).await, [Finding::Healed; 2]);
        assert!(bench.stored().await == before);
        for slot in 0..3 {
            bench.escape(slot, if slot == 1 { 3 } else { 1 }, true).await;
        }
        assert_eq!(bench.scrub(ScrubMode::Repair).await, [Finding::Inferred]);
        let decision = Decision { inferred: true, trust: None };
        assert_eq!(bench.scrub(ScrubMode::Decide(decision)).await, [Finding::Decided]);
        let after = bench.stored().await;
        assert!(after.iter().all(|one| *one == after[0]));
    });
}

#[test]
fn checked_copies_that_differ_are_not_decided_by_one_that_was_not() {
    block_on(async {
        let bench = Bench::new(profiles()[0], 3).await;
        let mut old = bench.stored().await;
        let mut model = Model::new(bench.raid.device());
        model.fill().await;
        model.fill().await;
        bench.put(1, &old.swap_remove(1)).await;
        bench.escape(2, 1, false).await;
        let before = bench.stored().await;
        assert_eq!(bench.scrub(ScrubMode::Repair).await, [Finding::Inconsistent]);
        assert!(bench.stored().await == before);
    });
}

#[test]
fn tuples_that_nobody_checks_below_are_refused() {
    let rig = Protected::new(profiles()[0], 2, DATA_SECTORS, false);
    let refused = Mirror::new(rig.open(&[0, 1]), Placement::Everywhere).err();
    assert_eq!(refused, Some(MirrorError::Unverified { slot: 0 }));
}
