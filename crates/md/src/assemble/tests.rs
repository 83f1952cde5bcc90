use super::*;
use crate::create::{NewArray, NewMember, create};
use crate::superblock::{Minor, Time};

const DEVICE_SECTORS: u64 = 65536;

fn array(level: Level, count: u8) -> Vec<Superblock> {
    let layout = match level {
        Level::Linear | Level::Raid0 | Level::Raid1 => 0,
        Level::Raid10 => 0x102,
        _ => 2,
    };
    let array = NewArray {
        level,
        layout,
        chunk_sectors: if level == Level::Raid1 { 0 } else { 128 },
        minor: Minor::V2,
        set_uuid: Uuid([1; 16]),
        set_name: [0; 32],
        ctime: Time(0),
        resync: ResyncOffset::Clean,
        data_offset: None,
        ppl: false,
        size: None,
    };
    let members: Vec<NewMember> = (0..count)
        .map(|n| NewMember { device_sectors: DEVICE_SECTORS, device_uuid: Uuid([n; 16]) })
        .collect();
    let mut made = create(&array, &members).unwrap();
    made.iter_mut().for_each(|superblock| superblock.set_events(10));
    made
}

fn judged(superblocks: &[Superblock]) -> Result<Assembly, AssembleError> {
    let candidates: Vec<Candidate<'_>> = superblocks
        .iter()
        .map(|superblock| Candidate { superblock, device_sectors: DEVICE_SECTORS })
        .collect();
    assemble(&candidates)
}

/// With other bytes at an offset, sealed again.
fn forged(superblock: &Superblock, at: usize, new: &[u8]) -> Superblock {
    let mut bytes = superblock.encode();
    bytes[at..at + new.len()].copy_from_slice(new);
    let words = bytes[..512].as_chunks::<4>().0;
    let sum: u64 = words
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 54)
        .map(|(_, word)| u64::from(u32::from_le_bytes(*word)))
        .sum();
    let sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
    bytes[216..220].copy_from_slice(&sum.to_le_bytes()[..4]);
    Superblock::decode(&bytes, Minor::V2, DEVICE_SECTORS).unwrap()
}

#[test]
fn order_of_the_candidates_does_not_matter() {
    let mut members = array(Level::Raid5, 4);
    members.reverse();
    let assembly = judged(&members).unwrap();
    assert_eq!(assembly.in_sync().collect::<Vec<_>>(), [(0, 3), (1, 2), (2, 1), (3, 0)]);
    assert_eq!((assembly.cannot_start.len(), assembly.cannot_write.len()), (0, 0));
    assert_eq!(assembly.resync, ResyncOffset::Clean);
}

#[test]
fn one_event_behind_is_a_crash_and_two_are_stale() {
    let mut members = array(Level::Raid5, 4);
    members[1].set_events(9);
    assert_eq!(judged(&members).unwrap().missing_count(), 0);
    members[1].set_events(8);
    let assembly = judged(&members).unwrap();
    assert_eq!(assembly.left_out, [(1, LeftOut::Stale { events: 8, newest: 10 })]);
    assert_eq!((assembly.missing_count(), assembly.cannot_start.len()), (1, 0));
    members[2].set_events(7);
    assert!(matches!(
        judged(&members).unwrap().cannot_start[..],
        [CannotStart::Missing { missing: 2, raid_disks: 4, level: Level::Raid5, allowed: 1 }]
    ));
}

#[test]
fn whom_the_freshest_counts_as_faulty_is_stale_even_one_event_behind() {
    let mut members = array(Level::Raid1, 2);
    members[0].set_events(11);
    members[0].set_role(1, Role::Faulty);
    let assembly = judged(&members).unwrap();
    assert_eq!(assembly.left_out, [(1, LeftOut::Dropped(Role::Faulty))]);
    assert_eq!(assembly.slots, [Slot::InSync(0), Slot::Missing]);
}

#[test]
fn two_halves_that_ran_apart_are_never_mixed() {
    let mut members = array(Level::Raid1, 2);
    members[0].set_events(12);
    members[1].set_events(12);
    members[1].set_role(0, Role::Faulty);
    let assembly = judged(&members).unwrap();
    assert_eq!(assembly.left_out, [(1, LeftOut::Diverged(Role::Faulty))]);
    members[0].set_role(1, Role::Faulty);
    let assembly = judged(&members).unwrap();
    assert_eq!(assembly.left_out, [(1, LeftOut::Dropped(Role::Faulty))]);
}

#[test]
fn dirty_is_whatever_the_freshest_say() {
    let mut members = array(Level::Raid5, 4);
    let dirty = ResyncOffset::Below(Sector(0));
    // A crash while being marked dirty: the first member already is.
    members[0].set_events(11);
    members[0].set_resync(dirty);
    assert_eq!(judged(&members).unwrap().resync, dirty);
    // A crash while being marked clean: the data was complete before the first member was written.
    let mut members = array(Level::Raid5, 4);
    for member in &mut members[1..] {
        member.set_events(9);
        member.set_resync(dirty);
    }
    assert_eq!(judged(&members).unwrap().resync, ResyncOffset::Clean);
    // Equally fresh and not of one opinion: the one that claims less.
    members[3].set_events(10);
    assert_eq!(judged(&members).unwrap().resync, dirty);
}

#[test]
fn dirty_and_degraded_needs_force_where_there_is_parity() {
    for (level, refused) in [(Level::Raid1, false), (Level::Raid5, true), (Level::Raid6, true)] {
        let mut members = array(level, 4);
        members.iter_mut().for_each(|m| m.set_resync(ResyncOffset::Below(Sector(128))));
        assert_eq!(judged(&members).unwrap().cannot_start, []);
        members.pop();
        let reasons = judged(&members).unwrap().cannot_start;
        assert_eq!(reasons == [CannotStart::DirtyAndDegraded], refused, "{level} {reasons:?}");
        assert!(reasons.iter().all(CannotStart::forceable));
    }
}

#[test]
fn what_is_not_one_array_is_refused() {
    assert_eq!(judged(&[]), Err(AssembleError::NoMembers));
    let members = array(Level::Raid1, 2);
    let other = forged(&members[1], 16, &[9; 16]);
    let uuids = [Uuid([1; 16]), Uuid([9; 16])];
    let error = judged(&[members[0].clone(), other]).unwrap_err();
    assert_eq!(error, AssembleError::MixedArrays { members: [0, 1], uuids });
    let error = judged(&[members[0].clone(), members[0].clone()]).unwrap_err();
    let device_uuid = Uuid([0; 16]);
    assert_eq!(error, AssembleError::SameMember { members: [0, 1], device_uuid });
    let copy = forged(&members[0], 168, &[7; 16]);
    let error = judged(&[members[0].clone(), members[1].clone(), copy]).unwrap_err();
    assert_eq!(error, AssembleError::SameSlot { members: [0, 2], slot: 0 });
    let only_refused = judged(&[forged(&members[0], 12, &[1])]).unwrap_err();
    assert!(matches!(only_refused, AssembleError::NoneUsable { left_out } if left_out.len() == 1));
}

#[test]
fn members_that_describe_another_array_are_left_out() {
    let members = array(Level::Raid5, 4);
    let cases: [(usize, &[u8], &str); 4] = [
        (76, &[0], "layout"),
        (88, &[0, 1], "chunk"),
        (92, &[5], "raid_disks"),
        (80, &[0, 0xF0], "size"),
    ];
    for (at, new, name) in cases {
        let mut members = members.clone();
        members[2] = forged(&members[2], at, new);
        let assembly = judged(&members).unwrap();
        let [(2, LeftOut::Disagrees { field, .. })] = assembly.left_out[..] else {
            panic!("{:?}", assembly.left_out)
        };
        assert_eq!(field, name);
    }
}

#[test]
fn spares_need_no_events_and_hold_no_slot() {
    let mut members = array(Level::Raid1, 2);
    let mut spare = forged(&members[0], 160, &[2]);
    spare = forged(&spare, 168, &[3; 16]);
    spare.set_events(1);
    members.push(spare);
    let assembly = judged(&members).unwrap();
    assert_eq!((&assembly.spares, assembly.missing_count()), (&vec![2], 0));
    // It was given a slot, but does not know it yet: nothing of the array is on it.
    members[0].set_role(2, Role::Active(1));
    members[0].set_role(1, Role::Faulty);
    members[0].set_events(11);
    members[2].set_events(10);
    let assembly = judged(&members).unwrap();
    assert_eq!((&assembly.spares, assembly.missing_count()), (&vec![2], 1));
}

#[test]
fn features_that_we_do_not_maintain_forbid_writing_by_name() {
    let cases: [(u32, Level, &str); 4] = [
        (0x800, Level::Raid6, "a partial parity log of another level than RAID 5"),
        (0x200, Level::Raid5, "an array without its journal device"),
        (4, Level::Raid5, "a reshape"),
        (0x101, Level::Raid1, "use by several hosts"),
    ];
    for (bits, level, name) in cases {
        let members: Vec<Superblock> =
            array(level, 4).iter().map(|m| forged(m, 8, &bits.to_le_bytes())).collect();
        let assembly = judged(&members).unwrap();
        assert_eq!(assembly.cannot_write[0].feature, name);
        assert!(assembly.cannot_write[0].to_string().contains(name));
        let reshapes = |why: &CannotStart| matches!(why, CannotStart::Reshape(_));
        assert_eq!(assembly.cannot_start.iter().any(reshapes), bits == 4, "to level 0");
    }
}

#[test]
fn without_its_journal_an_array_is_not_started_though_it_is_clean_and_with_it_it_is() {
    let features = 0x200_u32.to_le_bytes();
    let mut members: Vec<Superblock> =
        array(Level::Raid5, 4).iter().map(|m| forged(m, 8, &features)).collect();
    let journal = forged(&members[1], 160, &[4]);
    // Its ring may be shorter than what is used of the others.
    let journal = forged(&journal, 136, &64_u64.to_le_bytes());
    let mut journal = forged(&journal, 168, &[9; 16]);
    members.iter_mut().chain([&mut journal]).for_each(|member| member.set_role(4, Role::Journal));
    let missing = judged(&members).unwrap();
    assert_eq!(missing.resync, ResyncOffset::Clean);
    assert_eq!(missing.cannot_start, [CannotStart::JournalMissing]);
    assert!(CannotStart::JournalMissing.forceable());

    let fresh = [&members[..], &[journal.clone()]].concat();
    let assembly = judged(&fresh).unwrap();
    assert_eq!((&assembly.journals[..], &assembly.cannot_start[..]), (&[4][..], &[][..]));
    // One that missed what the others know is none.
    members.iter_mut().for_each(|member| member.set_events(member.events() + 2));
    let stale = judged(&[&members[..], &[journal]].concat()).unwrap();
    assert_eq!((&stale.journals[..], stale.left_out.len()), (&[][..], 1));
    assert_eq!(stale.cannot_start, [CannotStart::JournalMissing]);
}

#[test]
fn a_member_under_rebuild_counts_as_missing_and_one_with_bad_blocks_does_not() {
    let mut members = array(Level::Raid5, 4);
    members[1] = forged(&members[1], 8, &[2]);
    let assembly = judged(&members).unwrap();
    assert_eq!(assembly.slots[1], Slot::Rebuilding { member: 1, filled: Sector(0) });
    assert_eq!((assembly.missing_count(), assembly.cannot_write.len()), (1, 0));

    let mut members = array(Level::Raid5, 4);
    members[1] = forged(&members[1], 8, &[8]);
    let assembly = judged(&members).unwrap();
    assert_eq!((assembly.missing_count(), &assembly.left_out[..]), (0, &[][..]));
    assert_eq!(assembly.cannot_write.len(), 0);
}

/// The member of slot 1 copied as device 4, with these features: beside it, or in its place.
fn with_replacement(features: u8) -> Vec<Superblock> {
    let mut members = array(Level::Raid5, 4);
    let mut new = forged(&members[1], 160, &[4]);
    new = forged(&new, 168, &[9; 16]);
    members.push(forged(&new, 8, &[features]));
    members.iter_mut().for_each(|member| member.set_role(4, Role::Active(1)));
    members
}

#[test]
fn a_replacement_stands_beside_its_holder_and_takes_its_place_when_that_is_gone() {
    for (features, held) in
        [(16, Slot::InSync(4)), (16 + 2, Slot::Rebuilding { member: 4, filled: Sector(0) })]
    {
        let members = with_replacement(features);
        let assembly = judged(&members).unwrap();
        assert_eq!((assembly.slots[1], &assembly.replacements), (Slot::InSync(1), &vec![4]));
        assert_eq!(assembly.cannot_write, []);
        let mut gone = members;
        gone.iter_mut().for_each(|member| member.set_role(1, Role::Faulty));
        let assembly = judged(&gone).unwrap();
        assert_eq!((assembly.slots[1], &assembly.replacements), (held, &vec![]));
        assert_eq!(assembly.left_out, [(1, LeftOut::Dropped(Role::Faulty))]);
    }
}

#[test]
fn two_replacements_of_one_member_are_refused() {
    let mut members = with_replacement(16);
    let mut second = forged(&members[4], 160, &[5]);
    second = forged(&second, 168, &[10; 16]);
    members.push(second);
    members.iter_mut().for_each(|member| member.set_role(5, Role::Active(1)));
    let same = AssembleError::SameSlot { members: [4, 5], slot: 1 };
    assert_eq!(judged(&members), Err(same.clone()));
    // Also where the first of them would take the place of a member that is gone.
    members.iter_mut().for_each(|member| member.set_role(1, Role::Faulty));
    assert_eq!(judged(&members), Err(same));
}

#[test]
fn levels_without_an_implementation_are_named() {
    let members: Vec<Superblock> =
        array(Level::Raid1, 2).iter().map(|m| forged(m, 72, &[7])).collect();
    assert_eq!(judged(&members).unwrap().cannot_start, [CannotStart::Level(Level::Unknown(7))]);
    let members: Vec<Superblock> =
        array(Level::Raid5, 4).iter().map(|m| forged(m, 76, &[77])).collect();
    assert!(matches!(judged(&members).unwrap().cannot_start[..], [CannotStart::Geometry(_)]));
    let members: Vec<Superblock> =
        array(Level::Raid1, 2).iter().map(|m| forged(m, 80, &[0; 8])).collect();
    assert_eq!(judged(&members).unwrap().cannot_start, [CannotStart::Size { size: 0 }]);
}

#[test]
fn of_a_raid10_it_matters_which_members_are_missing() {
    for (lost, lost_sector) in
        [([0, 2], None), ([1, 2], None), ([0, 1], Some(0)), ([2, 3], Some(128))]
    {
        let mut members = array(Level::Raid10, 4);
        members.remove(lost[1]);
        members.remove(lost[0]);
        let assembly = judged(&members).unwrap();
        let why = lost_sector.map(|sector| CannotStart::MissingCopies {
            missing: 2,
            raid_disks: 4,
            sector,
        });
        assert_eq!(assembly.cannot_start, why.into_iter().collect::<Vec<_>>(), "{lost:?}");
    }
}

#[test]
fn a_degraded_raid10_that_was_not_closed_cleanly_starts() {
    // As with RAID 1: the copy that is left is right, the old one or the new.
    let mut members = array(Level::Raid10, 4);
    members.iter_mut().for_each(|m| m.set_resync(ResyncOffset::Below(Sector(0))));
    members.remove(1);
    assert_eq!(judged(&members).unwrap().cannot_start, []);
}

#[test]
fn without_redundancy_every_member_is_needed() {
    for level in [Level::Linear, Level::Raid0] {
        let mut members = array(level, 3);
        assert_eq!(judged(&members).unwrap().cannot_start, []);
        members.remove(1);
        let why = CannotStart::Missing { missing: 1, raid_disks: 3, level, allowed: 0 };
        assert_eq!(judged(&members).unwrap().cannot_start, [why]);
    }
}

#[test]
fn shapes_that_make_no_sense_are_refused_with_their_number() {
    let refused = |level, count, at, bytes: &[u8]| {
        let members = array(level, count);
        let members: Vec<Superblock> = members.iter().map(|m| forged(m, at, bytes)).collect();
        let reasons = judged(&members).unwrap().cannot_start;
        reasons.first().map(ToString::to_string).unwrap_or_default()
    };
    let most = [255; 4];
    for (level, count, at, bytes, says) in [
        (Level::Raid10, 4, 76, &[0, 0, 0, 0][..], "no layout 0x0"),
        (Level::Raid10, 4, 76, &most[..], "no layout 0xffffffff"),
        (Level::Raid10, 4, 76, &[5, 1, 0, 0], "5 copies, but there are 4 members"),
        (Level::Raid10, 4, 88, &[0, 0, 0, 0], "chunk of 0 sectors"),
        (Level::Raid10, 4, 88, &[24, 0, 0, 0], "chunk of 24 sectors"),
        (Level::Raid10, 4, 88, &[0, 0, 0, 128], "no usable size"),
        (Level::Raid10, 4, 80, &[0; 8], "0 sectors of each member make no usable size"),
        (Level::Raid0, 3, 88, &[0, 0, 0, 0], "chunk of 0 sectors"),
        (Level::Raid0, 3, 88, &most, "member 0 has 63488 sectors for data"),
        (Level::Linear, 3, 88, &most, "member 0 has 63488 sectors for data"),
        (Level::Raid0, 3, 8, &[0, 16, 0, 0], "no layout 0, expected 1 (original) or 2"),
        (Level::Raid5, 3, 88, &[0, 0, 0, 0], "chunk of 0 sectors"),
        (Level::Raid5, 3, 88, &[24, 0, 0, 0], "chunk of 24 sectors"),
        (Level::Raid5, 3, 76, &[6, 0, 0, 0], "RAID 5 has no layout 6"),
        (Level::Raid6, 4, 76, &[7, 0, 0, 0], "RAID 6 has no layout 7"),
        (Level::Raid6, 4, 76, &most, "RAID 6 has no layout 4294967295"),
        (Level::Raid5, 3, 72, &[6, 0, 0, 0], "RAID 6 over 3 members, expected 4 to 255"),
        (Level::Raid1, 2, 72, &[99, 0, 0, 0], "unknown level 99"),
    ] {
        let said = refused(level, count, at, bytes);
        assert!(said.contains(says), "{level} with {bytes:?} at {at}: '{said}', expected '{says}'");
    }
    // A chunk that is no power of two is fine for RAID 0.
    assert_eq!(refused(Level::Raid0, 3, 88, &[24, 0, 0, 0]), "");
}
