//! Every copy is damaged: what lies in one, and another's tag vouches for.

use super::*;
use crate::array::testing::{BEFORE, Model, Protected, on_member, profiles};
use md::geometry::Mirrors;

/// Level, layout and members, two of which hold sector 0.
const SHAPES: [(Level, u32, u8); 3] =
    [(Level::Raid1, 0, 2), (Level::Raid10, 0x102, 4), (Level::Raid10, 0x201, 4)];

/// How the two copies of a sector are hurt.
type Harms = [fn(&crate::array::testing::Disk, u64); 2];

/// Copies of sector 0 hurt; what a reader and a scrub are given then.
fn read_and_scrubbed(shape: (Level, u32, u8), harms: Harms) -> (Rc<Rig>, Option<u8>, Vec<Finding>) {
    let hurt = || {
        let rig = Rc::new(Rig::shaped(shape.0, shape.1, shape.2, true));
        let held = Rc::clone(&rig);
        block_on(async move {
            let raid = open(&held);
            write(&raid, 0, 32, 9).await.unwrap();
            raid.close().await.unwrap();
        });
        for (harm, (disk, at)) in harms.iter().zip(copies(&rig, 0)) {
            harm(&rig.disks[disk], DATA_OFFSET + at);
        }
        rig
    };
    let rig = hurt();
    let checked = scrubbed(&rig, ScrubMode::Check).found;
    let mut found: Vec<Finding> =
        scrubbed(&rig, ScrubMode::Repair).found.into_iter().map(|f| f.0).collect();
    found.extend(checked.into_iter().map(|f| f.0));
    let rig = hurt();
    let held = Rc::clone(&rig);
    let byte = block_on(async move {
        let raid = open(&held);
        let byte = read(&raid, 0, 1).await.ok().map(|bytes| bytes[0]);
        raid.close().await.unwrap();
        byte
    });
    (rig, byte, found)
}

#[test]
fn data_of_one_copy_for_which_the_tag_of_another_vouches_heals_both() {
    for shape in SHAPES {
        for harms in [
            [|disk, at| disk.flip_tag(at), |disk, at| disk.garble(at)] as Harms,
            [|disk, at| disk.garble(at), |disk, at| disk.flip_tag(at)],
            // A single bit that the copy's own tag names, and another tag agrees.
            [|disk, at| disk.flip(at), |disk, at| disk.garble(at)],
            [|disk, at| disk.flip(at), |disk, at| disk.flip(at)],
            [
                |disk, at| disk.flip_tag(at),
                |disk, at| {
                    disk.unreadable.borrow_mut().insert(at);
                },
            ],
        ] {
            let (rig, byte, found) = read_and_scrubbed(shape, harms);
            assert_eq!(byte, Some(9));
            use Finding::{Healable, Healed};
            assert_eq!(found, [Healed, Healed, Healable, Healable]);
            for (disk, at) in copies(&rig, 0) {
                assert!(rig.disks[disk].intact(DATA_OFFSET + at));
                assert_eq!(rig.disks[disk].sector(DATA_OFFSET + at), [9; 512]);
            }
            assert!(events(&rig, |kind| *kind == EventKind::Lost).is_empty());
            let told = events(&rig, |kind| matches!(kind, EventKind::Healed { .. }));
            assert_eq!(told.len(), 2);
            assert!(told.iter().any(|event| event.kind == healed(true)));
        }
    }
}

#[test]
fn what_no_tag_of_another_copy_vouches_for_stays_lost() {
    for harms in [
        [|disk, at| disk.garble(at), |disk, at| disk.garble(at)] as Harms,
        [|disk, at| disk.flip_tag(at), |disk, at| disk.flip_tag(at)],
        [
            |disk, at| disk.flip_tag(at),
            |disk, at| {
                disk.garble(at);
                disk.flip_tag(at);
            },
        ],
    ] {
        for shape in SHAPES {
            let (rig, byte, found) = read_and_scrubbed(shape, harms);
            assert_eq!((byte, &found[..]), (None, &[Finding::Unreadable; 2][..]));
            assert_eq!(events(&rig, |kind| *kind == EventKind::Lost).len(), 1);
            assert!(
                copies(&rig, 0).iter().all(|&(disk, at)| !rig.disks[disk].intact(DATA_OFFSET + at))
            );
        }
    }
}

type Stored = (Vec<u8>, Vec<u8>);

async fn put(device: &Device, at: Sector, (data, tags): &Stored) {
    let mut write = Bio::write(at, Buf::copy_of(data)).tagged(Buf::copy_of(tags));
    device.submit(&mut write).await.unwrap();
}

#[test]
fn a_block_comes_back_with_the_tuple_that_vouched_for_it() {
    let far = Placement::Dealt(Mirrors::new(0x201, 8, 4, DATA_SECTORS).unwrap());
    for (placement, count) in [(Placement::Everywhere, 2), (far, 4)] {
        for profile in profiles() {
            block_on(async move {
                let all: Vec<usize> = (0..count).collect();
                let rig = Protected::new(profile, count, DATA_SECTORS, true);
                let raid = Mirror::new(rig.open(&all), placement).unwrap();
                let mut model = Model::new(raid.device());
                model.fill().await;
                let block = raid.inner.block().sectors();
                for number in [3u64, 8] {
                    let one = Extent { sector: Sector(number * block), sectors: block };
                    let mut stored = Vec::new();
                    for site in raid.inner.sites(one) {
                        let at = Sector(BEFORE) + site.own(one.sector).0;
                        let member = rig.members[site.member.slot()].clone();
                        stored.push((on_member(&member, at).await, member, at));
                    }
                    let (rotten, tuple) = (&stored[0], &stored[1]);
                    let (mut data, mut tags) = (rotten.0.0.clone(), tuple.0.1.clone());
                    data[..16].iter_mut().for_each(|byte| *byte ^= 0xA5);
                    tags.iter_mut().for_each(|byte| *byte ^= 0x5A);
                    put(&rotten.1, rotten.2, &(data, rotten.0.1.clone())).await;
                    put(&tuple.1, tuple.2, &(tuple.0.0.clone(), tags)).await;
                    model.check().await;
                    for (before, member, at) in &stored {
                        assert_eq!(on_member(member, *at).await, *before);
                    }
                }
                raid.close().await.unwrap();
            });
        }
    }
}

#[test]
fn of_two_copies_whose_tuples_were_exchanged_none_is_believed() {
    block_on(async {
        let rig = Protected::new(profiles()[0], 2, DATA_SECTORS, true);
        let raid = Mirror::new(rig.open(&[0, 1]), Placement::Everywhere).unwrap();
        let mut model = Model::new(raid.device());
        let mut stored = Vec::new();
        for member in &rig.members {
            model.fill().await;
            stored.push(on_member(member, Sector(BEFORE)).await);
        }
        let [one, other] = &stored[..] else { unreachable!("two members") };
        put(&rig.members[0], Sector(BEFORE), &(one.0.clone(), other.1.clone())).await;
        put(&rig.members[1], Sector(BEFORE), &(other.0.clone(), one.1.clone())).await;
        let error = raid.device().read(Sector(0), 1).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Protection.at(Sector(0)));
        assert_eq!(
            on_member(&rig.members[0], Sector(BEFORE)).await,
            (one.0.clone(), other.1.clone())
        );
        raid.close().await.unwrap();
    });
}
