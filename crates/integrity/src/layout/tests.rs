use super::*;
use proptest::prelude::*;

const MIB: u64 = 2048;

type Numbers = [u64; 4];

fn options(block: u64, tag_size: u16) -> FormatOptions {
    FormatOptions {
        block: BlockSize::from_bytes(block).unwrap(),
        tag_size,
        journal_sectors: None,
        interleave_sectors: None,
        fix_padding: true,
        fix_hmac: true,
        journal_mac: false,
        salt: [9; 16],
    }
}

fn made(sectors: u64, options: &FormatOptions) -> Layout {
    let (superblock, layout) = format(DeviceSectors::Interleaved(sectors), options).unwrap();
    assert_eq!(Layout::of(&superblock, DeviceSectors::Interleaved(sectors)), Ok(layout));
    layout
}

/// P, journal sections, init, run: the columns of the specification's table.
fn numbers(layout: &Layout) -> Numbers {
    let sections = layout.journal.sections;
    [layout.provided_sectors, sections.into(), layout.initial_sectors, layout.metadata_run]
}

#[test]
fn table_3_1_holds() {
    let table: [(u64, Numbers, Numbers, Numbers); 8] = [
        (1, [1608, 1, 184, 256], [1616, 1, 400, 32], [0; 4]),
        (2, [3656, 1, 184, 256], [3664, 1, 400, 32], [1952, 1, 96, 2048]),
        (16, [32328, 1, 184, 256], [32336, 1, 400, 32], [30536, 2, 184, 2048]),
        (32, [64664, 2, 360, 256], [65072, 1, 400, 32], [60992, 5, 448, 2048]),
        (64, [129160, 5, 888, 256], [130152, 2, 792, 32], [121904, 11, 976, 2048]),
        (100, [201416, 9, 1592, 256], [203000, 4, 1576, 32], [190920, 18, 1592, 2048]),
        (256, [516136, 23, 4056, 256], [519848, 10, 3928, 32], [489512, 46, 4056, 2048]),
        (1000, [2016280, 90, 15848, 256], [2030328, 40, 15688, 32], [1911232, 181, 15936, 2048]),
    ];
    for (mib, crc_512, crc_4096, sha_512) in table {
        assert_eq!(numbers(&made(mib * MIB, &options(512, 4))), crc_512, "{mib} MiB");
        assert_eq!(numbers(&made(mib * MIB, &options(4096, 4))), crc_4096, "{mib} MiB");
        if mib == 1 {
            let refused = format(DeviceSectors::Interleaved(MIB), &options(512, 32));
            assert_eq!(refused.map(drop), Err(FormatError::TooSmall { sectors: MIB }));
        } else {
            assert_eq!(numbers(&made(mib * MIB, &options(512, 32))), sha_512, "{mib} MiB");
        }
    }
}

#[test]
fn legacy_padding_rounds_runs_to_128_kib() {
    let legacy = |block, tag| FormatOptions { fix_padding: false, ..options(block, tag) };
    assert_eq!(numbers(&made(32 * MIB, &legacy(4096, 4)))[..1], [64624]);
    assert_eq!(made(32 * MIB, &legacy(4096, 4)).metadata_run, 256);
    assert_eq!(numbers(&made(32 * MIB, &legacy(512, 20))), [62552, 4, 424, 1280]);
    let sha_4096 = made(64 * MIB, &legacy(4096, 32));
    assert_eq!((sha_4096.provided_sectors, sha_4096.journal.sections), (129_248, 3));
    assert_eq!(sha_4096.metadata_run, 256);
}

#[test]
fn the_size_fingerprints_hold() {
    // Section 12: 32 MiB, legacy padding.
    let legacy = |block, tag| {
        made(32 * MIB, &FormatOptions { fix_padding: false, ..options(block, tag) })
            .provided_sectors
    };
    let found = [(512, 4), (512, 8), (512, 20), (4096, 16), (512, 32), (4096, 32)]
        .map(|(b, t)| legacy(b, t));
    assert_eq!(found, [64664, 64152, 62552, 64688, 60992, 64752]);
    assert_eq!(made(32 * MIB, &options(4096, 4)).provided_sectors, 65072);
}

#[test]
fn the_extra_block_sizes_hold() {
    let provided_and_journal = |block, tag| {
        let layout = made(16 * MIB, &options(block, tag));
        (layout.provided_sectors, layout.journal.sectors())
    };
    assert_eq!(provided_and_journal(1024, 4), (32384, 248));
    assert_eq!(provided_and_journal(2048, 20), (32208, 232));
    assert_eq!(provided_and_journal(512, 64), (28440, 224));
    assert_eq!(provided_and_journal(512, 5).0, 32264);
    assert_eq!(provided_and_journal(512, 8).0, 32072);
}

#[test]
fn the_worked_addresses_of_64_mib_hold() {
    let at = |layout: &Layout, sector| {
        let run = layout.run(Sector(sector), layout.block.sectors());
        (run.tag_byte, run.data.bytes())
    };
    let crc = made(64 * MIB, &options(512, 4));
    assert_eq!((crc.journal.section_start(0).bytes(), crc.journal.sectors()), (4096, 880));
    assert_eq!(at(&crc, 0), (454_656, 585_728));
    assert_eq!(at(&crc, 32768), (17_362_944, 17_494_016));
    assert_eq!(at(&made(64 * MIB, &options(4096, 32)), 0), (409_600, 540_672));
    assert_eq!(at(&made(64 * MIB, &options(4096, 4)), 0), (405_504, 421_888));
    let sha1 = made(64 * MIB, &options(512, 20));
    assert_eq!(numbers(&sha1)[1..], [9, 944, 1280]);
    assert_eq!(at(&sha1, 0), (483_328, 1_138_688));
    let narrow = FormatOptions {
        interleave_sectors: Some(1024),
        journal_sectors: Some(MIB),
        ..options(512, 4)
    };
    let narrow = made(64 * MIB, &narrow);
    assert_eq!(numbers(&narrow), [128_120, 11, 1944, 8]);
    assert_eq!(at(&narrow, 0), (995_328, 999_424));
    assert_eq!(at(&narrow, 1024), (1_523_712, 1_527_808));
}

#[test]
fn the_worked_superblock_of_64_mib_is_made() {
    let device = DeviceSectors::Interleaved(64 * MIB);
    let (superblock, _) = format(device, &options(512, 4)).unwrap();
    let bytes = superblock.encode();
    let expected = [
        0x69, 0x6e, 0x74, 0x65, 0x67, 0x72, 0x74, 0x00, 0x05, 0x0f, 0x04, 0x00, 0x05, 0, 0, 0,
        0x88, 0xf8, 0x01, 0, 0, 0, 0, 0, 0x18, 0, 0, 0, 0x00, 0x0f, 0, 0,
    ];
    assert_eq!(bytes[..32], expected);
    assert_eq!(bytes[32..48], [0; 16]);
    assert_eq!(bytes[48..], [9; 16]);
    let (coarse, _) = format(device, &options(4096, 4)).unwrap();
    assert_eq!(coarse.log2_blocks_per_bitmap_bit, 12);
    let plain = FormatOptions { fix_hmac: false, ..options(512, 4) };
    let (plain, _) = format(device, &plain).unwrap();
    assert_eq!((plain.version, plain.salt), (4, [0; 16]));
}

#[test]
fn a_metadata_device_holds_a_flat_array_of_tags() {
    let device = DeviceSectors::Separate { metadata: 8 * MIB, data: 64 * MIB };
    let (superblock, layout) = format(device, &options(512, 4)).unwrap();
    assert_eq!(superblock.log2_interleave, None);
    assert_eq!(Layout::of(&superblock, device), Ok(layout));
    assert_eq!((layout.journal.sections, layout.initial_sectors), (5, 888));
    let run = layout.run(Sector(131_071), 1);
    assert_eq!((run.tag_byte, run.data), (978_940, Sector(131_071)));
    let equal = DeviceSectors::Separate { metadata: 32 * MIB, data: 32 * MIB };
    assert_eq!(format(equal, &options(512, 4)).unwrap().1.provided_sectors, 65536);
    // 64 MiB of data need 1024 sectors of tags: no journal fits beside them here.
    let small = DeviceSectors::Separate { metadata: 1100, data: 64 * MIB };
    assert_eq!(format(small, &options(512, 4)), Err(FormatError::TooSmall { sectors: 1100 }));
}

#[test]
fn a_journal_mac_takes_room_from_the_entries() {
    let with_mac = FormatOptions { journal_mac: true, ..options(4096, 20) };
    let journal = made(64 * MIB, &with_mac).journal;
    assert_eq!(journal.entry_bytes, 96);
    assert_eq!(journal.entries_per_sector, 496 / 96);
    let journal = made(64 * MIB, &FormatOptions { journal_mac: true, ..options(512, 4) }).journal;
    assert_eq!(journal.entries_per_sector, 20);
}

#[test]
fn a_truncated_device_is_refused_with_both_numbers() {
    let device = DeviceSectors::Interleaved(64 * MIB);
    let (superblock, _) = format(device, &options(512, 4)).unwrap();
    let cut = Layout::of(&superblock, DeviceSectors::Interleaved(64 * MIB - 8));
    assert_eq!(cut, Err(LayoutError::Device { needed: 131_072, device: 131_064 }));
    let stump = Layout::of(&superblock, DeviceSectors::Interleaved(800));
    assert_eq!(stump, Err(LayoutError::Journal { sections: 5, end: 888, device: 800 }));
    let separate = DeviceSectors::Separate { metadata: 64 * MIB, data: 64 * MIB };
    let refused = Layout::of(&superblock, separate);
    assert_eq!(refused, Err(LayoutError::Interleave { separate: true }));
}

#[test]
fn an_unaddressable_journal_is_refused_without_overflow() {
    let device = DeviceSectors::Interleaved(64 * MIB);
    let (mut superblock, _) = format(device, &options(4096, 4)).unwrap();
    superblock.journal_sections = u32::MAX;
    superblock.provided_sectors = !7;
    let refused = Layout::of(&superblock, DeviceSectors::Interleaved(u64::MAX));
    assert!(matches!(refused, Err(LayoutError::Journal { .. })), "{refused:?}");
    superblock.journal_sections = 1;
    let refused = Layout::of(&superblock, DeviceSectors::Interleaved(u64::MAX));
    assert!(matches!(refused, Err(LayoutError::Device { .. })), "{refused:?}");
}

/// Sectors of data and bytes of tags that some block claims, each claimed once.
fn assert_bijection(layout: &Layout, device: u64) {
    let mut owners = vec![0_u8; units::usize_of(device * SECTOR)];
    let mut claim = |range: std::ops::Range<u64>| {
        for byte in &mut owners[units::usize_of(range.start)..units::usize_of(range.end)] {
            assert_eq!(*byte, 0, "claimed twice");
            *byte = 1;
        }
    };
    claim(0..layout.initial_sectors * SECTOR);
    let spb = layout.block.sectors();
    for block in 0..layout.provided_sectors / spb {
        let run = layout.run(Sector(block * spb), spb);
        claim(run.data.bytes()..(run.data + spb).bytes());
        let tags = run.tag_byte..run.tag_byte + units::u64_of(layout.tag_bytes);
        assert!(tags.end <= layout.tags_end(&run));
        assert_eq!(layout.sector_of_tag(tags.start), Some(run.sector));
        assert_eq!(layout.sector_of_tag(tags.end - 1), Some(run.sector));
        claim(tags);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_byte_of_a_small_device_is_used_twice(
        sectors in 600u64..6000,
        log2_block in 0u8..4,
        tag_size in 1u16..65,
        interleave in 3u32..9,
        fix_padding in any::<bool>(),
    ) {
        let options = FormatOptions {
            block: BlockSize::from_log2_sectors(log2_block).unwrap(),
            interleave_sectors: Some(1 << interleave),
            fix_padding,
            ..options(512, tag_size)
        };
        let device = DeviceSectors::Interleaved(sectors);
        if let Ok((superblock, layout)) = format(device, &options) {
            prop_assert_eq!(Layout::of(&superblock, device), Ok(layout));
            assert_bijection(&layout, sectors);
            let larger = layout.provided_sectors + 8;
            let grown = Superblock { provided_sectors: larger, ..superblock };
            prop_assert!(Layout::of(&grown, device).is_err(), "as much as fits is provided");
        }
    }

    #[test]
    fn runs_are_what_each_sector_says(
        start in 0u64..129_000, sectors in 1u64..100_000,
    ) {
        let layout = made(64 * MIB, &FormatOptions {
            interleave_sectors: Some(64), ..options(512, 4)
        });
        let sectors = sectors.min(layout.provided_sectors - start.min(layout.provided_sectors - 1));
        let start = start.min(layout.provided_sectors - sectors);
        let mut next = start;
        for run in layout.runs(Sector(start), sectors) {
            prop_assert_eq!(run.sector.0, next);
            next += run.sectors;
            let last = layout.run(Sector(next - 1), 1);
            prop_assert_eq!(last.data, run.data + (run.sectors - 1));
            prop_assert_eq!(last.tag_byte, run.tag_byte + (run.sectors - 1) * 4);
        }
        prop_assert_eq!(next, start + sectors);
    }

    #[test]
    fn no_superblock_makes_the_arithmetic_overflow(
        provided in 1u64.., sections in 1u32.., log2 in 3u8..32, tag in 1u16..400,
        log2_block in 0u8..4, flags in any::<u32>(), device in any::<u64>(),
    ) {
        let block = BlockSize::from_log2_sectors(log2_block).unwrap();
        let (mut superblock, _) =
            format(DeviceSectors::Interleaved(64 * MIB), &options(512, 4)).unwrap();
        superblock.block = block;
        superblock.flags = Flags(flags);
        superblock.tag_size = tag.min(tag_size_max(block, superblock.flags));
        superblock.journal_sections = sections;
        superblock.log2_interleave = Some(log2);
        superblock.provided_sectors = (provided & !7).max(8);
        let _ = Layout::of(&superblock, DeviceSectors::Interleaved(device));
    }
}
