use super::*;
use crate::superblock::Role;
use proptest::prelude::*;

fn array(level: Level) -> NewArray {
    let mirror = level == Level::Raid1;
    NewArray {
        level,
        layout: if mirror { 0 } else { LEFT_SYMMETRIC },
        chunk_sectors: if mirror { 0 } else { 128 },
        minor: Minor::V2,
        set_uuid: Uuid([1; 16]),
        set_name: set_name(Some("lab"), "tst").unwrap(),
        ctime: Time::new(1_795_243_000, 0),
        resync: ResyncOffset::Clean,
        data_offset: None,
        ppl: false,
        size: None,
    }
}

fn members(count: u8, device_sectors: u64) -> Vec<NewMember> {
    (0..count).map(|n| NewMember { device_sectors, device_uuid: Uuid([n; 16]) }).collect()
}

#[test]
fn the_mirror_of_the_specification_comes_out() {
    let made = create(&array(Level::Raid1), &members(2, 81920)).unwrap();
    let first = &made[0];
    assert_eq!((first.size(), first.data_size(), first.data_offset().0), (79872, 79872, 2048));
    assert_eq!((first.super_offset().0, first.name().as_str()), (8, "lab:tst"));
    assert_eq!(first.bad_block_log().unwrap().sector, Sector(24));
    assert_eq!((first.events(), first.resync()), (0, ResyncOffset::Clean));
    let roles: Vec<Role> = made[1].roles().collect();
    assert_eq!(roles.len(), 128);
    assert_eq!(roles[..3], [Role::Active(0), Role::Active(1), Role::Spare]);
    assert_eq!(made[1].role(), Some(Role::Active(1)));
}

#[test]
fn metadata_at_the_end_comes_out_as_specified() {
    let array = NewArray { minor: Minor::V0, ..array(Level::Raid1) };
    let made = create(&array, &members(2, 81920)).unwrap();
    let first = &made[0];
    assert_eq!((first.super_offset().0, first.size(), first.data_size()), (81904, 81792, 81888));
    assert_eq!(first.bad_block_log().unwrap().sector, Sector(81896));
}

#[test]
fn a_mirror_is_rounded_to_64_kib() {
    let array = NewArray { data_offset: Some(Sector(2048)), ..array(Level::Raid1) };
    let made = create(&array, &members(2, 2048 + 30280)).unwrap();
    assert_eq!((made[0].data_size(), made[0].size()), (30280, 30208));
}

#[test]
fn headroom_grows_with_the_member_and_the_chunk() {
    assert_eq!(default_data_offset(81920, 0, bitmap_space(81920)), Sector(2048));
    assert_eq!(default_data_offset(65536, 128, bitmap_space(65536)), Sector(2048));
    assert_eq!(default_data_offset(65536, MDADM_CHUNK_SECTORS, bitmap_space(65536)), Sector(4096));
    assert_eq!(default_data_offset(1 << 28, 0, bitmap_space(1 << 28)), Sector(264_192));
    assert_eq!(
        default_data_offset(1 << 35, MDADM_CHUNK_SECTORS, bitmap_space(1 << 35)),
        Sector(264_192)
    );
}

#[test]
fn the_smallest_member_sets_the_size() {
    let mut members = members(4, 65536);
    members[2].device_sectors = 40_000;
    let made = create(&array(Level::Raid5), &members).unwrap();
    assert_eq!(made[0].size(), (40_000 - 2048) / 128 * 128);
    assert_eq!(made[0].data_size(), 65536 - 2048);
    assert_eq!(made[2].data_size(), 40_000 - 2048);
}

#[test]
fn without_redundancy_each_member_gives_what_it_has() {
    let unequal = [members(1, 65536), members(1, 131_072)].concat();
    for (level, layout, features) in [
        (Level::Linear, 0, Features::default()),
        (Level::Raid0, 0, Features::default()),
        (Level::Raid0, 1, Features::RAID0_LAYOUT),
    ] {
        let made = create(&NewArray { layout, ..array(level) }, &unequal).unwrap();
        for (superblock, data_size) in made.iter().zip([63_488, 129_024]) {
            assert_eq!((superblock.size(), superblock.data_size()), (0, data_size));
            assert_eq!((superblock.features(), superblock.layout()), (features, layout));
            // No room is left for a bitmap.
            assert_eq!(superblock.bad_block_log().unwrap().sector, Sector(16));
        }
        let shape = made[0].shape(&[63_488, 129_024]).unwrap();
        assert_eq!(shape.array_sectors(), Some(63_488 + 129_024));
    }
}

#[test]
fn the_most_members_that_a_parity_array_and_a_mirror_can_have() {
    let many = |count: u16| -> Vec<NewMember> {
        let uuid = |n: u16| Uuid([n.to_le_bytes(); 8].concat().try_into().unwrap());
        let member = |n| NewMember { device_sectors: 65536, device_uuid: uuid(n) };
        (0..count).map(member).collect()
    };
    for (level, layout, count) in
        [(Level::Raid10, 0x102, 384), (Level::Raid0, 0, 384), (Level::Raid10, 0x180, 1920)]
    {
        let made = create(&NewArray { layout, ..array(level) }, &many(count)).unwrap();
        let last = made.last().unwrap();
        assert_eq!(last.role(), Some(Role::Active(count - 1)));
        last.validate(65536).unwrap();
        let mut bytes = last.encode();
        assert_eq!(Superblock::decode(&bytes, Minor::V2, 65536).as_ref(), Ok(last));
        bytes[256 + 2 * usize::from(count) - 1] ^= 1;
        assert!(Superblock::decode(&bytes, Minor::V2, 65536).is_err(), "the table is covered");
    }
    let too_many = create(&array(Level::Raid5), &many(384)).unwrap_err();
    assert!(matches!(too_many, CreateError::Geometry(GeometryError::Disks { found: 384, .. })));
}

#[test]
fn impossible_arrays_are_named() {
    let make = |array: &NewArray, members: &[NewMember]| create(array, members).unwrap_err();
    let unknown = array(Level::Unknown(7));
    assert_eq!(make(&unknown, &members(2, 65536)), CreateError::Level(Level::Unknown(7)));
    let error = CreateError::Mirrors(MirrorsError::Layout { layout: 2 });
    assert_eq!(make(&array(Level::Raid10), &members(2, 65536)), error);
    let unequal = [members(1, 10_000), members(2, 65536)].concat();
    let striped = NewArray { layout: 0, ..array(Level::Raid0) };
    let error = CreateError::Stripes(StripesError::Ambiguous { sector: 3 * (7952 / 128 * 128) });
    assert_eq!(make(&striped, &unequal), error);
    assert!(matches!(
        make(&array(Level::Raid6), &members(3, 65536)),
        CreateError::Geometry(GeometryError::Disks { found: 3, min: 4, .. })
    ));
    let chunked = NewArray { chunk_sectors: 128, ..array(Level::Raid1) };
    assert!(matches!(make(&chunked, &members(2, 65536)), CreateError::MirrorShape { .. }));
    assert_eq!(make(&array(Level::Raid1), &[]), CreateError::Members { found: 0 });
    let small = make(&array(Level::Raid5), &members(3, 2100));
    assert_eq!(small, CreateError::Small { member: 0, found: 2100, min: 2048 + 128 });
    let early = NewArray { data_offset: Some(Sector(8)), ..array(Level::Raid1) };
    let error = CreateError::DataOffset { found: 8, min: 16 };
    assert_eq!(make(&early, &members(2, 65536)), error);
    let large = NewArray { size: Some(70_000), ..array(Level::Raid1) };
    let error = CreateError::Size { size: 70_000, member: 0, available: 63488 };
    assert_eq!(make(&large, &members(2, 65536)), error);
    assert_eq!(set_name(None, &"n".repeat(33)), Err(CreateError::Name { found: 33 }));
}

#[test]
fn long_names_lose_their_host() {
    fn trimmed(host: Option<&str>, name: &str) -> String {
        let stored = set_name(host, name).unwrap();
        String::from_utf8(stored.to_vec()).unwrap().trim_end_matches('\0').to_owned()
    }
    assert_eq!(trimmed(Some("lab"), "v"), "lab:v");
    assert_eq!(trimmed(Some("lab"), "a:b"), "a:b");
    assert_eq!(trimmed(Some("lab"), &"n".repeat(27)), format!("lab:{}", "n".repeat(27)));
    assert_eq!(trimmed(Some("lab"), &"n".repeat(28)), "n".repeat(28));
    assert_eq!(trimmed(None, "v"), "v");
}

#[test]
fn the_least_member_is_enough_and_one_sector_less_is_not() {
    for level in [Level::Raid1, Level::Raid5] {
        for minor in Minor::PROBE_ORDER {
            let array = NewArray { minor, ..array(level) };
            let least = member_sectors_min(&array);
            assert!(create(&array, &members(3, least)).is_ok(), "{minor} {least}");
            assert!(create(&array, &members(3, least - 1)).is_err(), "{minor} {least}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_made_is_valid(
        sectors in 16u64..1 << 40,
        chunk_log in 3u32..12,
        minor in prop::sample::select(Minor::PROBE_ORDER.to_vec()),
        offset in prop::option::of(16u64..10_000),
    ) {
        let offset = offset.map(Sector);
        let array = NewArray {
            minor, chunk_sectors: 1 << chunk_log, data_offset: offset, ..array(Level::Raid5)
        };
        match create(&array, &members(4, sectors)) {
            Ok(made) => for superblock in made {
                prop_assert_eq!(superblock.validate(sectors), Ok(()));
                let bytes = superblock.encode();
                prop_assert_eq!(Superblock::decode(&bytes, minor, sectors), Ok(superblock));
            },
            Err(error) => prop_assert!(matches!(error, CreateError::Small { .. }), "{}", error),
        }
    }
}

#[test]
fn who_joins_is_a_spare_with_its_data_where_the_others_have_theirs() {
    for minor in Minor::PROBE_ORDER {
        let array = NewArray { minor, ..array(Level::Raid5) };
        let mut made = create(&array, &members(3, 81920)).unwrap();
        made[0].set_role(1, Role::Faulty);
        let number = free_number(&made[0], &[]);
        assert_eq!(number, Some(3), "a number that was never used comes first");
        let new = NewMember { device_sectors: 100_000, device_uuid: Uuid([9; 16]) };
        let spare = join(&made[0], &new, number).unwrap();
        assert_eq!(spare.validate(100_000), Ok(()));
        assert_eq!((spare.role(), spare.dev_number()), (Some(Role::Spare), 3));
        assert_eq!((spare.data_offset(), spare.size()), (made[0].data_offset(), made[0].size()));
        assert_eq!((spare.set_uuid(), spare.device_uuid()), (Uuid([1; 16]), Uuid([9; 16])));
        let small = NewMember { device_sectors: 81_000, ..new };
        assert!(matches!(join(&made[0], &small, number), Err(CreateError::Small { .. })));
        let all: Vec<u32> = (0..128).collect();
        assert_eq!(free_number(&made[0], &all[3..]), Some(1), "then one whose device is gone");
        assert_eq!(free_number(&made[0], &all), None);
    }
}

/// `mdadm --examine` of RAID 5 with `--consistency-policy=ppl` over members of 16 MiB, on Linux 6.12.
#[test]
fn room_for_a_partial_parity_log_is_where_mdadm_leaves_it() {
    let made = |minor, chunk_sectors| {
        let array = NewArray { minor, chunk_sectors, ppl: true, ..array(Level::Raid5) };
        let made = create(&array, &members(3, 32768)).unwrap();
        let place = made[1].ppl().unwrap();
        assert_eq!((place.sectors, made[1].bitmap_sector()), (2048, None));
        let log = made[1].bad_block_log().unwrap().sector.0;
        (place.sector.0, log, made[1].data_offset().0, made[1].data_size())
    };
    assert_eq!(made(Minor::V0, 128), (32752 - 2056, 32752 - 8, 0, 30696));
    assert_eq!(made(Minor::V1, 128), (8, 2056, 4096, 28672));
    assert_eq!(made(Minor::V2, 2048), (16, 2064, 8192, 24576));
    let six = create(&NewArray { ppl: true, ..array(Level::Raid6) }, &members(4, 32768));
    assert_eq!(six, Err(CreateError::Ppl(Level::Raid6)));
}

#[test]
fn a_write_journal_is_named_by_all_and_excludes_what_does_the_same() {
    for minor in Minor::PROBE_ORDER {
        let array = NewArray { minor, ..array(Level::Raid6) };
        let mut made = create(&array, &members(4, 65536)).unwrap();
        let device = NewMember { device_sectors: 8192, device_uuid: Uuid([9; 16]) };
        let journal = add_journal(&array, &mut made, &device).unwrap();
        assert_eq!(journal.validate(8192), Ok(()));
        assert_eq!((journal.role(), journal.journal_tail()), (Some(Role::Journal), Some(0)));
        assert_eq!((journal.size(), journal.dev_number()), (made[0].size(), 4));
        assert!(journal.data_size() < journal.size(), "its ring is as long as its device");
        for superblock in made.iter().chain([&journal]) {
            assert_eq!(superblock.features(), Features::JOURNAL);
            assert_eq!(superblock.role_of(4), Some(Role::Journal));
        }
        assert_eq!(made[3].role(), Some(Role::Active(3)));
    }
    let device = NewMember { device_sectors: 65536, device_uuid: Uuid([9; 16]) };
    let refused = |array: &NewArray, made: &mut Vec<Superblock>, device: &NewMember| {
        let before = made.clone();
        let error = add_journal(array, made, device).unwrap_err();
        assert!(*made == before, "they say nothing of it");
        error
    };
    let mirror = array(Level::Raid1);
    let mut made = create(&mirror, &members(2, 65536)).unwrap();
    assert_eq!(refused(&mirror, &mut made, &device), CreateError::JournalLevel(Level::Raid1));
    let logged = NewArray { ppl: true, ..array(Level::Raid5) };
    let mut made = create(&logged, &members(3, 65536)).unwrap();
    assert_eq!(refused(&logged, &mut made, &device), CreateError::JournalAndPpl);

    // 1 MiB of ring behind 1 MiB; more for rows of many members.
    let plain = array(Level::Raid5);
    let mut made = create(&plain, &members(3, 65536)).unwrap();
    let small = NewMember { device_sectors: 4095, ..device };
    let error = CreateError::JournalSmall { found: 4095, min: 4096 };
    assert_eq!(refused(&plain, &mut made, &small), error);
    let least = NewMember { device_sectors: 4096, ..device };
    assert_eq!(add_journal(&plain, &mut made, &least).unwrap().data_size(), 2048);
    let mut made = create(&plain, &members(100, 65536)).unwrap();
    let error = CreateError::JournalSmall { found: 4096, min: 2048 + 4 * 102 * 8 };
    assert_eq!(refused(&plain, &mut made, &least), error);
    let mut made = create(&plain, &members(128, 65536)).unwrap();
    assert_eq!(refused(&plain, &mut made, &device), CreateError::Numbers { slots: 128 });
}
