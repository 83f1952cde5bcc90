use super::*;
use proptest::prelude::*;
use std::mem::offset_of;

/// The worked superblock of section 2: 64 MiB, defaults, here with a visible salt.
const WORKED: [u8; 64] = {
    let mut bytes = [0; 64];
    let head = [
        0x69, 0x6e, 0x74, 0x65, 0x67, 0x72, 0x74, 0x00, 0x05, 0x0f, 0x04, 0x00, 0x05, 0x00, 0x00,
        0x00, 0x88, 0xf8, 0x01, 0, 0, 0, 0, 0, 0x18, 0, 0, 0, 0x00, 0x0f,
    ];
    let mut index = 0;
    while index < head.len() {
        bytes[index] = head[index];
        index += 1;
    }
    while index < 64 {
        bytes[index] = if index < 48 { 0 } else { 0xa5 };
        index += 1;
    }
    bytes
};

fn altered(offset: usize, bytes: &[u8]) -> [u8; 64] {
    let mut area = WORKED;
    area[offset..offset + bytes.len()].copy_from_slice(bytes);
    area
}

#[test]
fn the_worked_superblock_decodes_to_its_description() {
    let superblock = Superblock::decode(&WORKED).unwrap();
    assert_eq!(superblock.version, 5);
    assert_eq!(superblock.log2_interleave, Some(15));
    assert_eq!(superblock.tag_size, 4);
    assert_eq!(superblock.journal_sections, 5);
    assert_eq!(superblock.provided_sectors, 129_160);
    assert_eq!(superblock.flags, Flags::FIX_PADDING.with(Flags::FIX_HMAC));
    assert_eq!(superblock.log2_blocks_per_bitmap_bit, 15);
    assert_eq!(superblock.hashed_salt(), Some([0xa5; 16]));
    assert_eq!(superblock.encode(), WORKED);
}

#[test]
fn each_field_out_of_range_is_named_with_what_was_found() {
    use SuperblockError::*;
    let cases: [(&[u8], SuperblockError); 9] = [
        (&WORKED[..63], TooShort { found: 63 }),
        (&[0; 4096], Blank),
        (&altered(0, b"INTEGRT\0"), Magic { found: *b"INTEGRT\0" }),
        (&altered(8, &[0]), Version { found: 0 }),
        (&altered(8, &[8]), Version { found: 8 }),
        (&altered(28, &[4]), BlockSize { found: 4 }),
        (&altered(10, &[0, 0]), TagSize { found: 0, max: 488 }),
        (&altered(9, &[32]), Interleave { found: 32 }),
        (&altered(12, &[0; 4]), JournalSections { found: 0, inline: false }),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Superblock::decode(bytes), Err(expected));
    }
    let odd = Superblock::decode(&altered(28, &[1])).map(|_| ());
    assert_eq!(odd, Ok(()), "129160 is a multiple of two");
    let inline = altered(24, &[0x38]);
    assert_eq!(Superblock::decode(&inline), Err(JournalSections { found: 5, inline: true }));
}

#[test]
fn the_largest_tag_leaves_room_for_one_entry() {
    // Section 10: 424 bytes with a MAC and 4096-byte blocks.
    assert_eq!(tag_size_max(BlockSize::B4096, Flags::JOURNAL_MAC), 424);
    assert_eq!(tag_size_max(BlockSize::B512, Flags::default()), 488);
}

#[test]
fn a_finished_recalculation_keeps_its_flag_and_is_believed() {
    let mut superblock = Superblock::decode(&WORKED).unwrap();
    superblock.recalc_sector = 8;
    assert_eq!(superblock.recalculated_until(), None, "without the flag it means nothing");
    superblock.flags = superblock.flags.with(Flags::RECALCULATING);
    assert_eq!(superblock.recalculated_until(), Some(8));
    superblock.recalc_sector = superblock.provided_sectors;
    assert_eq!(superblock.recalculated_until(), None);
}

#[test]
fn the_version_follows_the_first_rule_that_matches() {
    let none = Flags::default();
    let cases = [
        (none, false, false, 1),
        (none, true, false, 2),
        (Flags::RECALCULATING, false, false, 2),
        (none, false, true, 3),
        (Flags::DIRTY_BITMAP, true, false, 3),
        (Flags::FIX_PADDING, true, true, 4),
        (Flags::FIX_PADDING.with(Flags::FIX_HMAC), false, false, 5),
        (Flags::INLINE.with(Flags::FIX_HMAC), false, false, 6),
        (Flags(0x7f), false, false, 7),
    ];
    for (flags, metadata_device, bitmap, version) in cases {
        assert_eq!(version_for(flags, metadata_device, bitmap), version, "{flags:?}");
    }
}

#[test]
fn the_byte_map_in_the_documentation_is_the_struct() {
    let map = include_str!("../../../../docs/formats/dm-integrity.md");
    let fields = [
        ("magic", offset_of!(Raw, magic), 8),
        ("version", offset_of!(Raw, version), 1),
        ("log2_interleave_sectors", offset_of!(Raw, log2_interleave_sectors), 1),
        ("integrity_tag_size", offset_of!(Raw, integrity_tag_size), 2),
        ("journal_sections", offset_of!(Raw, journal_sections), 4),
        ("provided_data_sectors", offset_of!(Raw, provided_data_sectors), 8),
        ("flags", offset_of!(Raw, flags), 4),
        ("log2_sectors_per_block", offset_of!(Raw, log2_sectors_per_block), 1),
        ("log2_blocks_per_bitmap_bit", offset_of!(Raw, log2_blocks_per_bitmap_bit), 1),
        ("pad", offset_of!(Raw, pad), 2),
        ("recalc_sector", offset_of!(Raw, recalc_sector), 8),
        ("pad2", offset_of!(Raw, pad2), 8),
        ("salt", offset_of!(Raw, salt), 16),
    ];
    let documented: Vec<(usize, usize, &str)> = map
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
            let offset = cells.next()?.parse().ok()?;
            let size = cells.next()?.parse().ok()?;
            Some((offset, size, cells.next()?.trim_matches('`')))
        })
        .collect();
    let expected: Vec<_> = fields.iter().map(|&(name, at, size)| (at, size, name)).collect();
    assert_eq!(documented, expected);
}

proptest! {
    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        mut bytes in prop::array::uniform32(any::<u8>()),
        tail in prop::array::uniform32(any::<u8>()),
        version in 1u8..=7,
        log2_block in 0u8..4,
    ) {
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = version;
        bytes[9] = if bytes[9] < 128 { 0 } else { 3 + bytes[9] % 29 };
        bytes[11] = 0;
        bytes[28] = log2_block;
        bytes[16] &= 0xf8;
        let mut area = [0; 64];
        area[..32].copy_from_slice(&bytes);
        area[32..].copy_from_slice(&tail);
        if let Ok(superblock) = Superblock::decode(&area) {
            prop_assert_eq!(superblock.encode(), area);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Superblock::decode(&bytes);
    }
}
