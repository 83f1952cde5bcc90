//! A copy of a block is the block with its tag.

use super::*;
use crate::array::EVERYTHING;
use crate::array::testing::{Kept, Model, Protected, Step, lies_as_given, profiles, step};
use md::geometry::Mirrors;

/// Level, layout and members; any one member can be spared.
const SHAPES: [(Level, u32, u8); 4] = [
    (Level::Raid1, 0, 3),
    (Level::Raid10, 0x102, 4),
    (Level::Raid10, 0x301, 5),
    (Level::Raid10, 0x1_0201, 3),
];

fn keeping((level, layout, count): (Level, u32, u8), tagged: bool) -> Rc<Rig> {
    Rc::new(Rig::shaped(level, layout, count, tagged).keeping(tagged, |_| Kept::Bytes(8)))
}

/// All copies of all sectors are what the model says, data and tag.
fn copies_are(rig: &Rig, model: &Model, but: &[usize]) {
    for (sector, block) in (0..).zip(&model.blocks) {
        for (disk, at) in copies(rig, sector) {
            let disk_at = (disk, DATA_OFFSET + at);
            if but.contains(&disk) {
                continue;
            }
            let found = (rig.disks[disk].sector(disk_at.1), rig.disks[disk].kept(disk_at.1));
            assert!(found.0 == block[..SECTOR_BYTES], "data of {sector} on {disk_at:?}");
            assert_eq!(found.1, &block[SECTOR_BYTES..], "tags of {sector} on {disk_at:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Ask(Step),
    /// A sector of one disk rots, or cannot be read.
    Hurt {
        row: u64,
        how: u8,
    },
    /// One disk goes away.
    Gone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => step().prop_map(Event::Ask),
        4 => (0u64..240, 0u8..3).prop_map(|(row, how)| Event::Hurt { row, how }),
        1 => Just(Event::Gone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn data_and_tags_survive_damage_and_loss_of_a_member(
        shape in proptest::sample::select(&SHAPES[..]),
        victim in 0usize..3,
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let rig = keeping(shape, true);
        block_on(async move {
            let raid = open(&rig);
            let mut model = Model::new(raid.device());
            model.fill().await;
            let mut gone = Vec::new();
            for event in events {
                match event {
                    Event::Ask(step) => model.step(&step).await,
                    Event::Hurt { row, how } => {
                        let (disk, place) = (&rig.disks[victim], DATA_OFFSET + row);
                        match how {
                            0 => disk.flip(place),
                            1 => disk.flip_tag(place),
                            _ => drop(disk.unreadable.borrow_mut().insert(place)),
                        }
                    }
                    Event::Gone => {
                        rig.disks[victim].gone.set(true);
                        gone = vec![victim];
                    }
                }
            }
            model.check().await;
            if gone.is_empty() {
                for step in 0..raid.steps() {
                    raid.scrub(step, ScrubMode::Repair).await;
                }
            }
            copies_are(&rig, &model, &gone);
            raid.close().await.unwrap();
        });
    }
}

#[test]
fn a_spare_and_a_replacement_are_given_the_tags() {
    for replaces in [false, true] {
        block_on(async move {
            let rig = keeping((Level::Raid1, 0, 2), true);
            let raid = open(&rig);
            let mut model = Model::new(raid.device());
            model.fill().await;
            raid.close().await.unwrap();
            let rig = rig.with_spare(true);
            let raid = open_on(&rig, if replaces { &[0, 1] } else { &[1, 2] });
            model.device = raid.device();
            if replaces {
                let mut found = rig.found(2);
                found.slot = 0;
                raid.array().join(found, true, EVERYTHING).await.unwrap();
            }
            model.step(&Step::Write { at: 50, length: 20, tagged: true, fua: false }).await;
            raid.start();
            while raid.array().is_rebuilding() {
                sleep(Duration::from_millis(5)).await;
            }
            model.check().await;
            raid.close().await.unwrap();
            for (sector, block) in (0..).zip(&model.blocks) {
                assert_eq!(rig.disks[2].kept(DATA_OFFSET + sector), &block[SECTOR_BYTES..]);
            }
        });
    }
}

#[test]
fn after_a_crash_copies_agree_in_their_tags_too() {
    for tagged in [true, false] {
        block_on(async move {
            let rig = keeping((Level::Raid1, 0, 3), tagged);
            let raid = open(&rig);
            let mut model = Model::new(raid.device());
            model.fill().await;
            drop(raid);
            rig.disks[0].keep(DATA_OFFSET + 9, b"the one.");
            rig.disks[2].keep(DATA_OFFSET + 30, b"another.");
            model.blocks[9][SECTOR_BYTES..].copy_from_slice(b"the one.");
            let raid = open(&rig);
            model.device = raid.device();
            // A reader is given what all are given.
            model.step(&Step::Read { at: 9, length: 1, tagged: true }).await;
            assert_eq!(rig.disks[1].kept(DATA_OFFSET + 9), b"the one.");
            raid.resync().await.unwrap();
            model.check().await;
            copies_are(&rig, &model, &[]);
            raid.close().await.unwrap();
        });
    }
}

#[test]
fn copies_that_differ_in_a_tag_alone_are_listed_and_decided_like_others() {
    let rig = keeping((Level::Raid1, 0, 3), false);
    rig.disks[1].keep(DATA_OFFSET + 10, &[0, 0, 7, 0, 0, 0, 0, 0]);
    let found = |mode| -> Vec<Finding> {
        scrubbed(&rig, mode).found.into_iter().map(|(finding, ..)| finding).collect()
    };
    assert_eq!(found(ScrubMode::Repair), [Finding::Inferred]);
    assert_eq!(rig.disks[1].kept(DATA_OFFSET + 10)[2], 7);
    let told = events(&rig, |kind| *kind == EventKind::Inconsistent);
    let words = "against disk1; tag byte 2 there is 07 and would be 00";
    assert!(told[0].detail.contains(words), "{}", told[0].detail);
    let decision = Decision { inferred: true, trust: None };
    assert_eq!(found(ScrubMode::Decide(decision)), [Finding::Decided]);
    assert_eq!(rig.disks[1].kept(DATA_OFFSET + 10), [0; 8]);
    assert_eq!(found(ScrubMode::Check), []);
}

#[test]
fn members_that_keep_different_tags_are_refused_and_named() {
    let rig = Rig::new(Level::Raid1, 2, true).keeping(true, |disk| Kept::Bytes(disk * 8));
    let refused = Mirror::new(rig.open(&[0, 1], false), placement(&rig)).err().unwrap();
    let words = "disk0 keeps no tags and disk1 keeps 8 bytes of tag for each 512 bytes: \
                 all members of an array keep the same";
    assert_eq!(refused.to_string(), words);
}

#[test]
fn a_member_that_keeps_no_tags_cannot_join() {
    block_on(async {
        let rig = keeping((Level::Raid1, 0, 2), true)
            .with_spare(true)
            .keeping(true, |disk| Kept::Bytes(if disk == 2 { 0 } else { 8 }));
        let raid = open_on(&rig, &[0, 1]);
        let mut found = rig.found(2);
        found.slot = 0;
        let refused = raid.array().join(found, true, EVERYTHING).await.err().unwrap();
        let words = "it keeps no tags, the array's members keep 8 bytes of tag for each 512 bytes";
        assert_eq!(refused.to_string(), words);
        raid.close().await.unwrap();
    });
}

#[test]
fn guard_and_application_tag_reach_every_member_and_the_reference_is_the_members_block() {
    let far = Placement::Dealt(Mirrors::new(0x201, 8, 4, DATA_SECTORS).unwrap());
    for (placement, count) in [(Placement::Everywhere, 2), (far, 4)] {
        for profile in profiles() {
            block_on(async move {
                let all: Vec<usize> = (0..count).collect();
                let rig = Protected::new(profile, count, DATA_SECTORS, true);
                let raid = Mirror::new(rig.open(&all), placement).unwrap();
                let mut model = Model::new(raid.device());
                model.fill().await;
                model.check().await;
                let block = raid.device().limits().logical_block.sectors();
                for number in 0..model.blocks.len() {
                    let sector = Sector(u64_of(number) * block);
                    let spots = match placement {
                        Placement::Everywhere => (0..count).map(|slot| (slot, sector)).collect(),
                        Placement::Dealt(mirrors) => (0..mirrors.copies())
                            .map(|copy| mirrors.locate(sector, copy))
                            .map(|spot| (spot.slot, spot.member_sector))
                            .collect::<Vec<_>>(),
                    };
                    for (slot, own) in spots {
                        lies_as_given(&model, number, &rig.members[slot], own).await;
                    }
                }
                raid.close().await.unwrap();
            });
        }
    }
}
