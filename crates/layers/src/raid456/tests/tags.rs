//! Tags are part of a row: what the application said of a block is as redundant as the block.

use super::*;
use crate::array::testing::{BEFORE, Model, Protected, Step, on_member, profiles, step};
use crate::array::testing::{lies_as_given, tags_for};
use bio::{Decision, Finding, ScrubMode};
use dif::{Checks, Format, Guard, Profile, Protection, ProtectionType, Tag};
use proptest::prelude::*;

const SHAPES: [(ParityLevel, u8); 3] =
    [(ParityLevel::Raid4, 4), (ParityLevel::Raid5, 4), (ParityLevel::Raid6, 5)];

/// Sectors of each member.
const SECTORS: u64 = 128;

/// A level over those members in memory that are present.
fn over_memory(
    rig: &Protected,
    (level, count): (ParityLevel, u8),
    present: &[usize],
) -> Result<Rc<Raid456>, OpenError> {
    let (geometry, cache_bytes) = (geometry(level, 8, count), 64 << 10);
    let options = Options { geometry, member_sectors: SECTORS, force: false, cache_bytes };
    Ok(Rc::new(Raid456::new(&rig.open(present), &options)?))
}

/// Everything on a member carries tuples of the place where it lies, with a guard that is right.
async fn all_vouch(profile: Profile, member: &Device) {
    let (block, checks) = (member.limits().logical_block, Checks { escape: false, ..Checks::ALL });
    for at in (BEFORE..BEFORE + SECTORS).step_by(usize_of(block.sectors())) {
        let (data, tags) = on_member(member, Sector(at)).await;
        let first = Sector(at).bytes() / u64_of(profile.format.interval());
        let protection = Protection::at(profile, first).with_checks(checks);
        protection.verify_each([&data[..]], [&tags[..]], |mismatch| {
            // Parity may spell the escape.
            assert_eq!(mismatch.tag, Tag::Application, "{mismatch} at sector {at}");
        });
    }
}

async fn small_writes(model: &mut Model) {
    for at in [0, 3, 9, 17, 30, 31, 44] {
        let length = 1 + at % 5;
        model.step(&Step::Write { at, length, tagged: true, fua: at % 2 == 0 }).await;
    }
    model.device.flush().await.unwrap();
}

#[test]
fn data_strips_have_the_submitters_tuples_and_parity_its_own() {
    for profile in profiles() {
        for shape in SHAPES {
            runtime::block_on(async move {
                let all = &ALL[..shape.1.into()];
                let rig = Protected::new(profile, shape.1.into(), SECTORS, true);
                let raid = over_memory(&rig, shape, all).unwrap();
                let mut model = Model::new(Device::shared(Rc::clone(&raid)));
                model.fill().await;
                small_writes(&mut model).await;
                model.check().await;
                let block = raid.inner.block.sectors();
                for number in 0..model.blocks.len() {
                    let place = raid.inner.geometry.locate(Sector(u64_of(number) * block));
                    let member = &rig.members[place.slot];
                    lies_as_given(&model, number, member, place.member_sector).await;
                }
                for member in &rig.members {
                    all_vouch(profile, member).await;
                }
                raid.close().await.unwrap();
            });
        }
    }
}

#[test]
fn without_as_many_members_as_parity_replaces_every_tag_comes_back() {
    for profile in profiles() {
        for ((level, count), lost) in [
            ((ParityLevel::Raid4, 4), [3, 3]),
            ((ParityLevel::Raid5, 4), [0, 0]),
            ((ParityLevel::Raid6, 5), [1, 4]),
            ((ParityLevel::Raid6, 5), [2, 3]),
        ] {
            runtime::block_on(async move {
                let (shape, all) = ((level, count), &ALL[..count.into()]);
                let rig = Protected::new(profile, shape.1.into(), SECTORS, true);
                let raid = over_memory(&rig, shape, all).unwrap();
                let mut model = Model::new(Device::shared(Rc::clone(&raid)));
                model.fill().await;
                small_writes(&mut model).await;
                raid.close().await.unwrap();
                let left: Vec<usize> =
                    all.iter().copied().filter(|slot| !lost.contains(slot)).collect();
                let raid = over_memory(&rig, shape, &left).unwrap();
                model.device = Device::shared(Rc::clone(&raid));
                model.check().await;
                // Also what is written to those that are not there.
                small_writes(&mut model).await;
                model.check().await;
                raid.close().await.unwrap();
                for slot in left {
                    all_vouch(profile, &rig.members[slot]).await;
                }
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_requests_with_and_without_members_leave_data_and_tags(
        profile in proptest::sample::select(profiles()),
        shape in proptest::sample::select(&SHAPES[..]),
        lost in 0usize..4,
        before in proptest::collection::vec(step(), 1..30),
        after in proptest::collection::vec(step(), 1..30),
    ) {
        runtime::block_on(async move {
            let all = &ALL[..shape.1.into()];
            let rig = Protected::new(profile, shape.1.into(), SECTORS, true);
            let raid = over_memory(&rig, shape, all).unwrap();
            let mut model = Model::new(Device::shared(Rc::clone(&raid)));
            model.fill().await;
            for step in before {
                model.step(&step).await;
            }
            model.check().await;
            raid.close().await.unwrap();
            let left: Vec<usize> = all.iter().copied().filter(|slot| *slot != lost).collect();
            let raid = over_memory(&rig, shape, &left).unwrap();
            model.device = Device::shared(Rc::clone(&raid));
            for step in after {
                model.step(&step).await;
            }
            model.check().await;
            raid.close().await.unwrap();
        });
    }
}

#[test]
fn a_write_whose_tuples_are_wrong_is_refused_before_anything_is_stored() {
    let profile = profiles()[0];
    runtime::block_on(async move {
        let rig = Protected::new(profile, 4, SECTORS, true);
        let raid = over_memory(&rig, SHAPES[1], &ALL[..4]).unwrap();
        let mut model = Model::new(Device::shared(Rc::clone(&raid)));
        model.fill().await;
        // A guard of other data; a reference of another block.
        let (limits, data) = (model.device.limits().clone(), pattern(5, 3, 2));
        let mut wrong_guard = tags_for(&limits, 3, &data, &[7; 16]);
        wrong_guard[8] ^= 0x40;
        let mut wrong_place = tags_for(&limits, 3, &data, &[7; 16]);
        wrong_place[15] ^= 1;
        for tags in [wrong_guard.clone(), wrong_place] {
            for op in [Op::Write { fua: false }, Op::Write { fua: true }] {
                let mut write = Bio::write(Sector(3), Buf::copy_of(&data));
                write = Bio { op, ..write.tagged(Buf::copy_of(&tags)) };
                let refused = model.device.submit(&mut write).await.unwrap_err();
                assert_eq!(refused, IoErrorKind::Protection.at(Sector(4)));
                assert_eq!(write.tags.into_single().as_slice(), tags);
            }
        }
        model.check().await;
        // Whoever does not want to be checked says so.
        wrong_guard[10..12].fill(0xff);
        let write = Bio::write_fua(Sector(3), Buf::copy_of(&data));
        let mut write = write.tagged(Buf::copy_of(&wrong_guard));
        model.device.submit(&mut write).await.unwrap();
        let mut read = Bio::read(Sector(3), 2).tagged(Buf::alloc(16));
        model.device.submit(&mut read).await.unwrap();
        assert_eq!(read.tags.into_single().as_slice(), wrong_guard);
        raid.close().await.unwrap();
    });
}

#[test]
fn what_was_never_written_or_is_discarded_is_blank_and_agrees() {
    for profile in profiles() {
        for shape in SHAPES {
            runtime::block_on(async move {
                let all = &ALL[..shape.1.into()];
                let rig = Protected::new(profile, shape.1.into(), SECTORS, true);
                let raid = over_memory(&rig, shape, all).unwrap();
                let mut model = Model::new(Device::shared(Rc::clone(&raid)));
                model.check().await;
                let scrub = async || {
                    for step in 0..raid.steps() {
                        assert_eq!(raid.scrub(step, ScrubMode::Repair).await.found, []);
                    }
                };
                scrub().await;
                small_writes(&mut model).await;
                model.step(&Step::Write { at: 60, length: 3, tagged: false, fua: false }).await;
                scrub().await;
                // Whole stripes and parts.
                model.step(&Step::Zero { at: 2, length: 40 }).await;
                scrub().await;
                model.check().await;
                raid.close().await.unwrap();
                let raid = over_memory(&rig, shape, &all[1..]).unwrap();
                model.device = Device::shared(Rc::clone(&raid));
                model.check().await;
            });
        }
    }
}

#[test]
fn parity_that_spells_the_escape_is_checked_all_the_same() {
    let profile = profiles()[0];
    runtime::block_on(async move {
        let rig = Protected::new(profile, 4, SECTORS, true);
        let raid = over_memory(&rig, SHAPES[1], &ALL[..4]).unwrap();
        let device = Device::shared(Rc::clone(&raid));
        let sectors = device.limits().sectors;
        let data = pattern(5, 0, sectors);
        let own = [0, 0, 0x00, 0xff, 0, 0, 0, 0].repeat(usize_of(sectors));
        let tags = tags_for(device.limits(), 0, &data, &own);
        let mut write = Bio::write(Sector(0), Buf::copy_of(&data)).tagged(Buf::copy_of(&tags));
        device.submit(&mut write).await.unwrap();
        device.flush().await.unwrap();
        // P of stripe 0 rots, and has the escape.
        let (slot, at) = (raid.inner.geometry.p_slot(0), Sector(BEFORE + 5));
        let (mut rotten, kept) = on_member(&rig.members[slot], at).await;
        assert_eq!(kept[2..4], [0xff; 2]);
        let whole = rotten.clone();
        rotten[100] ^= 1;
        let mut rot = Bio::write(at, Buf::copy_of(&rotten)).tagged(Buf::copy_of(&kept));
        rig.members[slot].submit(&mut rot).await.unwrap();
        let found = raid.scrub(0, ScrubMode::Repair).await.found;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, Finding::Healed);
        assert_eq!(on_member(&rig.members[slot], at).await, (whole, kept));
        raid.close().await.unwrap();
    });
}

#[test]
fn what_is_healed_has_its_tag_again() {
    for (kept, (level, count)) in
        [Kept::Bytes(8), Kept::Protected].into_iter().flat_map(|kept| SHAPES.map(|one| (kept, one)))
    {
        runtime::block_on(async move {
            let bench = Bench::keeping(level, count, true, 8, kept);
            let content = bench.fill().await;
            let before: Vec<Vec<u8>> =
                bench.rig.disks.iter().map(|disk| disk.metadata.borrow().clone()).collect();
            // A block of every disk, each in a stripe of its own: data, P or Q.
            for (disk, at) in bench.rig.disks.iter().zip((DATA_OFFSET + 3..).step_by(8)) {
                disk.flip(at);
                disk.keep(at, b"nonsense");
            }
            for step in 0..bench.raid.steps() {
                bench.raid.scrub(step, ScrubMode::Repair).await;
            }
            assert_eq!(bench.healed().len(), usize::from(count));
            for (disk, before) in bench.rig.disks.iter().zip(before) {
                assert!(*disk.metadata.borrow() == before);
            }
            // A reader heals, too.
            let (disk, at) = bench.flip(40);
            bench.rig.disks[disk].keep(at, b"nonsense");
            assert!(bench.read_all(0, bench.sectors()).await.unwrap() == content);
            assert_ne!(bench.rig.disks[disk].kept(at), b"nonsense");
            bench.raid.close().await.unwrap();
        });
    }
}

#[test]
fn a_spare_is_given_tags_like_those_of_the_member_that_is_gone() {
    for (kept, (level, count)) in
        [Kept::Bytes(8), Kept::Protected].into_iter().flat_map(|kept| SHAPES.map(|one| (kept, one)))
    {
        for damaged in [false, true] {
            runtime::block_on(async move {
                let bench = Bench::keeping(level, count, true, 8, kept);
                let content = bench.fill().await;
                let geometry = bench.geometry;
                bench.raid.close().await.unwrap();
                let rig = bench.rig.with_spare(true);
                if damaged && level == ParityLevel::Raid6 {
                    rig.disks[0].flip(DATA_OFFSET + 11);
                }
                let gone = rig.disks[1].metadata.borrow().clone();
                let present: Vec<usize> =
                    (0..=usize::from(count)).filter(|disk| *disk != 1).collect();
                let bench = Bench::open(rig, &present, geometry, false);
                bench.raid.start_resync();
                while bench.raid.array().is_rebuilding() {
                    runtime::sleep(std::time::Duration::from_millis(5)).await;
                }
                assert!(bench.read_all(0, bench.sectors()).await.unwrap() == content);
                bench.raid.close().await.unwrap();
                let data = usize_of(DATA_OFFSET) * 8;
                let spare = bench.rig.disks[usize::from(count)].metadata.borrow().clone();
                assert!(spare[data..] == gone[data..]);
            });
        }
    }
}

async fn scrubbed(bench: &Bench, mode: ScrubMode) -> Vec<Finding> {
    let mut found = Vec::new();
    for step in 0..bench.raid.steps() {
        found.extend(bench.raid.scrub(step, mode).await.found.into_iter().map(|(f, ..)| f));
    }
    found
}

#[test]
fn a_scrub_compares_what_the_application_said() {
    for (level, count) in SHAPES {
        runtime::block_on(async move {
            let bench = Bench::keeping(level, count, false, 8, Kept::Bytes(8));
            let content = bench.fill().await;
            assert_eq!(scrubbed(&bench, ScrubMode::Repair).await, []);
            let (disk, at) = bench.place(30);
            let kept = bench.rig.disks[disk].kept(at);
            bench.rig.disks[disk].keep(at, b"somebody");
            let raid6 = level == ParityLevel::Raid6;
            let first = if raid6 { Finding::Inferred } else { Finding::Inconsistent };
            assert_eq!(scrubbed(&bench, ScrubMode::Repair).await, [first]);
            assert_eq!(bench.rig.disks[disk].kept(at), b"somebody");
            let decision = Decision { inferred: true, trust: None };
            let decided = scrubbed(&bench, ScrubMode::Decide(decision)).await;
            assert_eq!(decided, [if raid6 { Finding::Decided } else { first }]);
            if raid6 {
                assert_eq!(bench.rig.disks[disk].kept(at), kept);
                assert!(bench.read_all(0, bench.sectors()).await.unwrap() == content);
            }
        });
    }
}

#[test]
fn after_a_crash_parity_of_tags_is_made_anew() {
    for kept in [Kept::Bytes(8), Kept::Protected] {
        for (level, count) in SHAPES {
            runtime::block_on(async move {
                let bench = Bench::keeping(level, count, true, 8, kept);
                let mut content = bench.fill().await;
                let geometry = bench.geometry;
                // Dirty, and a block of which the tag arrived, parity of it did not.
                let new = bench.pattern(99, 30, 1);
                let (disk, at) = bench.place(30);
                let own: Vec<u8> = new[512..].to_vec();
                let each = new.len();
                let Bench { rig, raid, device, .. } = bench;
                drop((raid, device));
                let mut tag = rig.disks[disk].kept(at);
                tag[2..4].copy_from_slice(&own[2..4]);
                rig.disks[disk].keep(at, &tag);
                content[30 * each + 514..30 * each + 516].copy_from_slice(&own[2..4]);
                let bench = Bench::open(rig, &ALL[..count.into()], geometry, false);
                assert!(bench.raid.resynced().is_some());
                // Its tag vouches for the data of a neighbour, and nobody for what was said of it.
                let (other, place) = bench.flip(38);
                assert_eq!(place, at);
                let error = bench.read_all(38, 1).await.unwrap_err();
                assert_eq!(error, IoErrorKind::Protection.at(Sector(38)));
                bench.rig.disks[other].flip(place);
                while bench.raid.resync_step().await.unwrap() {}
                assert!(bench.read_all(0, bench.sectors()).await.unwrap() == content);
                bench.raid.close().await.unwrap();
                // Without the disk its tag comes from parity.
                let left: Vec<usize> = (0..usize::from(count)).filter(|one| *one != disk).collect();
                let bench = Bench::open(bench.rig, &left, geometry, false);
                assert!(bench.read_all(0, bench.sectors()).await.unwrap() == content);
            });
        }
    }
}

#[test]
fn tags_that_parity_cannot_keep_and_tuples_that_nobody_checks_are_refused() {
    let rig = Rig::new(Level::Raid5, 4, true).keeping(true, |disk| Kept::Bytes(disk % 2 * 8));
    let refused = Bench::try_open(rig, &ALL[..4], geometry(ParityLevel::Raid5, 8, 4), false, false);
    let words = "disk0 keeps no tags and disk1 keeps 8 bytes of tag for each 512 bytes";
    assert!(refused.err().unwrap().to_string().starts_with(words));
    let format = Format::new(Guard::Crc16, 512).unwrap().with_storage_bits(12).unwrap();
    for (kind, refused) in [(ProtectionType::One, true), (ProtectionType::Three, false)] {
        let rig = Protected::new(Profile { format, kind }, 4, SECTORS, true);
        let opened = over_memory(&rig, SHAPES[1], &ALL[..4]);
        assert_eq!(matches!(opened, Err(OpenError::StorageTag { bits: 12 })), refused);
    }
    let rig = Protected::new(profiles()[0], 4, SECTORS, false);
    let opened = over_memory(&rig, SHAPES[1], &ALL[..4]);
    assert_eq!(opened.err(), Some(OpenError::Unverified { slot: 0 }));
}
