use super::*;
use proptest::prelude::*;

const DEVICE_SECTORS: u64 = 65536;

fn sample() -> Superblock {
    Superblock::new(&NewSuperblock {
        minor: Minor::V2,
        features: Features::default(),
        super_offset: Sector(8),
        set_uuid: Uuid([0xA5; 16]),
        set_name: *b"lab:sample\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ctime: Time::new(1_795_243_000, 0),
        level: Level::Raid5,
        layout: 2,
        size: 63488,
        chunk_sectors: 128,
        raid_disks: 4,
        data_offset: Sector(2048),
        data_size: 63488,
        dev_number: 1,
        device_uuid: Uuid([0x5A; 16]),
        bblog_offset: 16,
        resync: ResyncOffset::Clean,
        roles: &[0, 1, 2, 3, UNSET_ROLE, UNSET_ROLE],
    })
}

/// Changes the bytes behind a superblock and gives them a valid checksum again.
fn forge(change: impl FnOnce(&mut [u8])) -> Superblock {
    let mut bytes = sample().encode();
    change(&mut bytes);
    seal(&mut bytes);
    Superblock::decode(&bytes, Minor::V2, DEVICE_SECTORS).unwrap()
}

fn seal(bytes: &mut [u8; SUPERBLOCK_BYTES]) {
    let slots = u32::from_le_bytes(bytes[220..224].try_into().unwrap()).min(SLOTS_MAX);
    let sum = checksum(bytes, slots);
    bytes[216..220].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn what_was_made_decodes_to_itself() {
    let made = sample();
    let read = Superblock::decode(&made.encode(), Minor::V2, DEVICE_SECTORS).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.validate(DEVICE_SECTORS), Ok(()));
    assert_eq!((read.name().as_str(), read.role()), ("lab:sample", Some(Role::Active(1))));
    assert_eq!(read.roles().last(), Some(Role::Spare));
}

#[test]
fn the_checksum_is_looked_at_before_the_fields() {
    let mut bytes = sample().encode();
    bytes[160] ^= 1;
    let error = Superblock::decode(&bytes, Minor::V2, DEVICE_SECTORS).unwrap_err();
    let SuperblockError::Checksum { stored, computed } = error else { panic!("{error}") };
    assert_eq!(u64::from(stored) + 1 - u64::from(computed), 2);
    assert!(error.to_string().contains(&format!("{stored:#010x}")));
    assert!(error.to_string().contains(&format!("{computed:#010x}")));
}

#[test]
fn bytes_that_are_no_superblock_say_why() {
    let good = sample().encode();
    let decode = |bytes: &[u8]| Superblock::decode(bytes, Minor::V2, DEVICE_SECTORS).unwrap_err();
    assert_eq!(decode(&good[..4095]), SuperblockError::Short { found: 4095 });
    assert_eq!(decode(&[0; 4096]), SuperblockError::Magic { found: 0 });
    let mut bytes = good;
    bytes[4] = 2;
    assert_eq!(decode(&bytes), SuperblockError::Version { found: 2 });
    let mut bytes = good;
    bytes[220..224].copy_from_slice(&1921u32.to_le_bytes());
    assert_eq!(decode(&bytes), SuperblockError::Slots { found: 1921 });
    let elsewhere = Superblock::decode(&good, Minor::V1, DEVICE_SECTORS);
    assert_eq!(elsewhere, Err(SuperblockError::Place { stored: 8, found: 0 }));
    let small = Superblock::decode(&good, Minor::V2, 15);
    assert_eq!(small, Err(SuperblockError::Small { sectors: 15, minor: Minor::V2 }));
}

#[test]
fn a_member_that_md_would_not_take_says_why() {
    use SuperblockError::{
        DataEnd, DataOffset, DataSize, DeviceNumber, Excluding, Features, Pad, Raid0Layout,
        RaidDisks, Size,
    };
    type Case = (usize, Vec<u8>, SuperblockError);
    let max = u64::MAX;
    let cases: Vec<Case> = vec![
        (8, vec![0, 0x20, 0, 0], Features { unknown: 0x2000 }),
        (8, vec![1, 4, 0, 0], Excluding { first: "ppl", second: "bitmap" }),
        (8, vec![0, 10, 0, 0], Excluding { first: "multiple_ppl", second: "journal" }),
        (8, vec![0, 16, 0, 0], Raid0Layout { level: Level::Raid5 }),
        (13, vec![1], Pad { offset: 13 }),
        (255, vec![1], Pad { offset: 255 }),
        (160, vec![6, 0], DeviceNumber { found: 6, slots: 6 }),
        (92, vec![0; 4], RaidDisks { found: 0 }),
        (92, vec![0, 0, 1, 0], RaidDisks { found: 65536 }),
        (136, vec![9, 0], DataSize { found: 9 }),
        (128, vec![8, 0], DataOffset { found: 8, end: 9 }),
        (136, vec![1, 0xF8], DataEnd { end: 65537, limit: 65536 }),
        (128, vec![0xFF; 8], DataEnd { end: u128::from(max) + 63488, limit: 65536 }),
        (80, vec![1, 0xF8], Size { size: 63489, data_size: 63488 }),
    ];
    for (at, new, expected) in cases {
        let forged = forge(|bytes| bytes[at..at + new.len()].copy_from_slice(&new));
        assert_eq!(forged.validate(DEVICE_SECTORS), Err(expected));
    }
}

#[test]
fn a_truncated_member_is_not_taken() {
    let error = sample().validate(DEVICE_SECTORS - 1).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
}

#[test]
fn a_field_counts_only_with_its_feature() {
    let superblock = forge(|bytes| {
        bytes[96..100].copy_from_slice(&(-8i32).to_le_bytes());
        bytes[152..160].copy_from_slice(&77u64.to_le_bytes());
    });
    assert_eq!((superblock.bitmap_sector(), superblock.recovery_offset()), (None, None));
    assert_eq!((superblock.ppl(), superblock.reshape()), (None, None));
    let with = |bits: u32, offset: [u8; 4]| {
        forge(|bytes| {
            bytes[8..12].copy_from_slice(&bits.to_le_bytes());
            bytes[96..100].copy_from_slice(&offset);
            bytes[152..160].copy_from_slice(&77u64.to_le_bytes());
        })
    };
    let bitmap = with(3, (-8i32).to_le_bytes());
    assert_eq!(bitmap.bitmap_sector(), Some(Sector(0)));
    assert_eq!(bitmap.recovery_offset(), Some(Sector(77)));
    assert_eq!(with(1, (-9i32).to_le_bytes()).bitmap_sector(), None);
    let ppl = with(0x800, [8, 0, 0, 8]).ppl();
    assert_eq!(ppl, Some(Ppl { sector: Sector(16), sectors: 2048 }));
}

#[test]
fn setters_change_what_they_name_and_no_more() {
    let mut superblock = sample();
    let before = superblock.encode();
    superblock.set_events(7);
    superblock.set_resync(ResyncOffset::Below(Sector(128)));
    superblock.set_utime(Time::new(1, 2));
    superblock.set_role(3, Role::Faulty);
    superblock.add_corrected_reads(8);
    let after = superblock.encode();
    let changed: Vec<usize> = (0..4096).filter(|&at| before[at] != after[at]).collect();
    let allowed = |at: &usize| {
        let fields = [164..168, 192..216, 216..220, 262..264];
        fields.iter().any(|field| field.contains(at))
    };
    assert!(changed.iter().all(allowed), "{changed:?}");
    let read = Superblock::decode(&after, Minor::V2, DEVICE_SECTORS).unwrap();
    assert_eq!((read.events(), read.role_of(3)), (7, Some(Role::Faulty)));
    assert_eq!((read.resync().number(), read.corrected_reads()), (128, 8));
}

#[test]
fn the_byte_map_of_the_documentation_is_the_struct() {
    let text = include_str!("../../../../../docs/formats/md-v1.md");
    let documented: Vec<(usize, usize, String)> = text
        .lines()
        .skip_while(|line| !line.starts_with("## Fields"))
        .take_while(|line| !line.starts_with("## Where a sector lies"))
        .filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let offset = cells.next()?.parse().ok()?;
            let size = cells.next()?.parse().ok()?;
            Some((offset, size, cells.next()?.trim_matches('`').to_owned()))
        })
        .collect();
    macro_rules! fields {
        ($($name:ident),*) => {{
            let raw = Raw::new_zeroed();
            vec![$((offset_of!(Raw, $name), size_of_val(&raw.$name), stringify!($name).to_owned())),*]
        }};
    }
    let declared = fields!(
        magic,
        major_version,
        feature_map,
        pad0,
        set_uuid,
        set_name,
        ctime,
        level,
        layout,
        size,
        chunksize,
        raid_disks,
        bitmap_offset,
        new_level,
        reshape_position,
        delta_disks,
        new_layout,
        new_chunk,
        new_offset,
        data_offset,
        data_size,
        super_offset,
        recovery_offset,
        dev_number,
        cnt_corrected_read,
        device_uuid,
        devflags,
        bblog_shift,
        bblog_size,
        bblog_offset,
        utime,
        events,
        resync_offset,
        sb_csum,
        max_dev,
        pad3
    );
    assert_eq!(declared.iter().map(|(_, size, _)| size).sum::<usize>(), FIXED_BYTES);
    assert_eq!(documented, declared);
}

proptest! {
    #[test]
    fn any_sealed_bytes_survive_decode_and_encode(
        mut bytes in prop::collection::vec(any::<u8>(), SUPERBLOCK_BYTES),
        slots in 0..=SLOTS_MAX,
    ) {
        bytes[..8].copy_from_slice(&[0xFC, 0x4E, 0x2B, 0xA9, 1, 0, 0, 0]);
        bytes[144..152].copy_from_slice(&8u64.to_le_bytes());
        bytes[220..224].copy_from_slice(&slots.to_le_bytes());
        let mut bytes: [u8; SUPERBLOCK_BYTES] = bytes.try_into().unwrap();
        seal(&mut bytes);
        let superblock = Superblock::decode(&bytes, Minor::V2, 1 << 40).unwrap();
        prop_assert_eq!(superblock.encode(), bytes);
        // Hostile fields may be refused, never panic.
        let _ = superblock.validate(1 << 40);
        let _ = (superblock.bitmap_sector(), superblock.ppl(), superblock.bad_block_log());
        let _ = (superblock.reshape(), superblock.role(), superblock.name());
    }

    #[test]
    fn one_flipped_bit_of_what_is_covered_is_caught(bit in 0usize..(256 + 12) * 8) {
        let mut bytes = sample().encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Superblock::decode(&bytes, Minor::V2, DEVICE_SECTORS).is_err());
    }
}
