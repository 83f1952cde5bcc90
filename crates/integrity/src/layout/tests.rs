use super::*;
use crate::superblock::tag_size_max;
use proptest::prelude::*;

const MIB: u64 = 2048;

type Numbers = [u64; 4];

fn options(block: u64, tag_size: u16) -> FormatOptions {
    FormatOptions::new(BlockSize::from_bytes(block).unwrap(), tag_size, [9; 16])
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

#[test]
fn inline_volumes_have_neither_journal_nor_runs() {
    let inline = FormatOptions { inline: true, ..options(4096, 4) };
    let device = DeviceSectors::Interleaved(64 * MIB + 5);
    let (superblock, layout) = format(device, &inline).unwrap();
    assert_eq!((superblock.version, superblock.journal_sections), (6, 0));
    assert_eq!(Layout::of(&superblock, device), Ok(layout));
    // Section 8: data at 8 + n; the greedy search ends at a multiple of eight.
    assert_eq!((layout.initial_sectors, layout.provided_sectors), (8, 64 * MIB - 8));
    assert_eq!(layout.run(Sector(131_000), 64).data, Sector(131_008));
    assert_eq!(layout.run(Sector(0), 131_000).sectors, 131_000, "in one piece");
    assert_eq!(layout.sector_of_tag(8 * 512), None);
    let refused = |device, options: &FormatOptions| format(device, options).map(drop).unwrap_err();
    let separate = DeviceSectors::Separate { metadata: 8 * MIB, data: 64 * MIB };
    let what = |what| FormatError::Inline { what };
    assert_eq!(refused(separate, &inline), what("a metadata device"));
    let journal = FormatOptions { journal_sectors: Some(100), ..inline };
    assert_eq!(refused(device, &journal), what("a journal"));
    let mac = FormatOptions { journal_mac: true, ..inline };
    assert_eq!(refused(device, &mac), what("a journal MAC"));
    let tag = |tag_size| FormatOptions { tag_size, ..inline };
    assert!(format(device, &tag(2048)).is_ok());
    assert_eq!(refused(device, &tag(2049)), FormatError::TagSize { found: 2049, max: 2048 });
    let small = DeviceSectors::Interleaved(15);
    assert_eq!(refused(small, &inline), FormatError::TooSmall { sectors: 15 });
    let least = format(DeviceSectors::Interleaved(16), &inline).unwrap().1;
    assert_eq!(least.provided_sectors, 8);
}

#[test]
fn buffers_never_reach_beyond_a_run() {
    // The buffer_sectors of the kernel's tables: section 3, step 12, section 12 and the images.
    let of = |block, tag, interleave_sectors| {
        let layout = made(16 * MIB, &FormatOptions { interleave_sectors, ..options(block, tag) });
        buffer_sectors(&layout, None)
    };
    let found = [
        of(512, 4, None),
        of(4096, 4, None),
        of(2048, 20, None),
        of(512, 5, None),
        of(512, 4, Some(8192)),
        of(512, 32, None),
    ];
    assert_eq!(found, [128, 32, 64, 64, 64, 128]);
    let layout = made(16 * MIB, &options(512, 32));
    assert_eq!(buffer_sectors(&layout, Some(100)), 64);
    assert_eq!(buffer_sectors(&layout, Some(0)), 1);
    assert_eq!(buffer_sectors(&layout, Some(u64::MAX)), 2048, "a run of 2048");
    let device = DeviceSectors::Separate { metadata: 8 * MIB, data: 64 * MIB };
    let (_, layout) = format(device, &options(512, 4)).unwrap();
    assert_eq!(buffer_sectors(&layout, Some(u64::MAX)), 1 << 22);
}

#[test]
fn a_metadata_device_gives_the_journal_what_the_buffers_leave() {
    // 64 MiB need 1024 sectors of tags, a multiple of every buffer; 67 MiB need 1072 of them.
    let journal = |metadata, data, buffer_sectors| {
        let options = FormatOptions { buffer_sectors, ..options(512, 4) };
        let device = DeviceSectors::Separate { metadata, data };
        format(device, &options).map(|(_, layout)| layout.journal.sections)
    };
    assert_eq!(journal(1024 + 888, 64 * MIB, None), Ok(5));
    assert_eq!(journal(1024 + 887, 64 * MIB, None), Ok(4));
    assert_eq!(journal(1072 + 888, 67 * MIB, None), Ok(4), "tags end at 1152");
    assert_eq!(journal(1072 + 888, 67 * MIB, Some(16)), Ok(5), "tags end at 1072");
    assert_eq!(journal(1072 + 184, 67 * MIB, None), Ok(1), "with smaller buffers");
    let too_small = Err(FormatError::TooSmall { sectors: 1072 + 183 });
    assert_eq!(journal(1072 + 183, 67 * MIB, None), too_small);
}

#[test]
fn the_bitmap_is_as_fine_as_asked_or_as_its_area_allows() {
    let bits = |sectors, sectors_per_bit| {
        let options = FormatOptions { sectors_per_bit, ..options(4096, 4) };
        let device = DeviceSectors::Interleaved(sectors);
        format(device, &options).unwrap().0.log2_blocks_per_bitmap_bit
    };
    assert_eq!(bits(64 * MIB, None), 12);
    assert_eq!(bits(64 * MIB, Some(65_536)), 13);
    assert_eq!(bits(64 * MIB, Some(100)), 3, "rounded down to 64 sectors");
    assert_eq!(bits(64 * MIB, Some(1)), 0, "not less than a block");
    // 2^44 sectors: 536 million bits of 32768; the journal, 392 x 334 sectors, has a few less.
    assert_eq!(bits(1 << 44, None), 13);
}

#[test]
fn the_eighty_billion_sectors_of_cryptsetups_big_device_are_addressed() {
    let sectors = 80_000_000_000;
    let device = DeviceSectors::Interleaved(sectors);
    for (block, tag) in [(512, 4), (4096, 4), (512, 64), (4096, 32)] {
        let (superblock, layout) = format(device, &options(block, tag)).unwrap();
        assert_eq!(Superblock::decode(&superblock.encode()).unwrap(), superblock);
        assert_eq!(Layout::of(&superblock, device), Ok(layout));
        assert_eq!(layout.journal.sectors() / 8 * 8, layout.journal.sectors());
        assert!(layout.journal.sectors() <= 131_072);
        let spb = layout.block.sectors();
        let last = Sector(layout.provided_sectors - spb);
        let run = layout.run(last, spb);
        assert!(run.data.0 + spb <= sectors, "the last block lies on the device");
        assert_eq!(layout.sector_of_tag(run.tag_byte), Some(last));
        // Section 4 in 128 bits.
        let (n, l) = (u128::from(last.0), u32::from(layout.log2_interleave.unwrap()));
        let (a, o) = (n >> l, n & ((1 << l) - 1));
        let (init, metadata) = (layout.initial_sectors, layout.metadata_run);
        let (init, metadata) = (u128::from(init), u128::from(metadata));
        assert_eq!(u128::from(run.data.0), init + (a << l) + (a + 1) * metadata + o);
        let tag = (init + a * ((1 << l) + metadata)) * 512 + o / u128::from(spb) * u128::from(tag);
        assert_eq!(u128::from(run.tag_byte), tag);
        // Eight more would not fit.
        let mut more = superblock;
        more.provided_sectors += 8;
        assert!(matches!(Layout::of(&more, device), Err(LayoutError::Device { .. })));
    }
}

#[test]
fn the_largest_device_is_taken_and_none_larger() {
    let all = u64::MAX / SECTOR;
    let layout = made(all, &options(512, 4));
    assert!(layout.provided_sectors > all / 100 * 98);
    assert!(layout.run(Sector(layout.provided_sectors - 8), 8).data.bytes() > u64::MAX / 100 * 99);
}

#[test]
fn a_grown_device_gives_more_and_moves_nothing() {
    let device = |mib| DeviceSectors::Interleaved(mib * MIB);
    let (superblock, layout) = format(device(64), &options(512, 4)).unwrap();
    assert_eq!(resize(&superblock, device(64)), Ok((superblock.clone(), layout)));
    let (grown, large) = resize(&superblock, device(1000)).unwrap();
    // As made for 1000 MiB, but for the journal.
    let journal_sectors = Some(layout.journal.sectors());
    let made = FormatOptions { journal_sectors, ..options(512, 4) };
    assert_eq!(format(device(1000), &made), Ok((grown.clone(), large)));
    assert_eq!(layout.run(Sector(100_000), 8), large.run(Sector(100_000), 8));
    assert_eq!(resize(&grown, device(64)), Ok((superblock, layout)), "and back");
}

#[test]
fn a_resized_volume_keeps_what_recalculation_needs_to_know() {
    let device = |mib| DeviceSectors::Interleaved(mib * MIB);
    let (mut superblock, _) = format(device(64), &options(512, 4)).unwrap();
    superblock.flags = superblock.flags.with(Flags::RECALCULATING);
    superblock.recalc_sector = superblock.provided_sectors;
    assert_eq!(superblock.recalculated_until(), None);
    let (grown, _) = resize(&superblock, device(100)).unwrap();
    assert_eq!(grown.recalculated_until(), Some(129_160), "the new part is not valid yet");
    let (shrunk, _) = resize(&superblock, device(32)).unwrap();
    assert_eq!(shrunk.recalc_sector, shrunk.provided_sectors, "section 9.4");
}

#[test]
fn a_size_that_cannot_be_is_refused_by_name() {
    let device = |mib| DeviceSectors::Interleaved(mib * MIB);
    let (superblock, _) = format(device(64), &options(512, 4)).unwrap();
    let journal = LayoutError::Journal { sections: 5, end: 888, device: 896 };
    let stump = DeviceSectors::Interleaved(896);
    assert_eq!(resize(&superblock, stump), Err(ResizeError::Layout(journal)));
    let no_data = DeviceSectors::Interleaved(888 + 256);
    let refused = ResizeError::TooSmall { sectors: 888 + 256 };
    assert_eq!(resize(&superblock, no_data), Err(refused));
    let least = resize(&superblock, DeviceSectors::Interleaved(888 + 256 + 8)).unwrap().1;
    assert_eq!(least.provided_sectors, 8);

    let separate = |metadata, data| DeviceSectors::Separate { metadata, data };
    let wrong = ResizeError::Layout(LayoutError::Interleave { separate: true });
    assert_eq!(resize(&superblock, separate(64 * MIB, 64 * MIB)), Err(wrong));
    let (flat, _) = format(separate(2048, 64 * MIB), &options(512, 4)).unwrap();
    assert_eq!(resize(&flat, separate(2048, 72 * MIB)).unwrap().0.provided_sectors, 72 * MIB);
    let tags = LayoutError::Device { needed: 888 + 1280, device: 2048 };
    assert_eq!(resize(&flat, separate(2048, 80 * MIB)), Err(ResizeError::Layout(tags)));
    assert_eq!(
        resize(&flat, separate(2048, 0)),
        Err(ResizeError::TooSmall { sectors: 0 }),
        "no data at all"
    );
}

#[test]
fn a_bitmap_in_use_limits_growth_and_another_gets_coarser() {
    // One section of 176 sectors has 720896 bits: with a bit for each sector, 352 MiB.
    let fine =
        FormatOptions { sectors_per_bit: Some(1), journal_sectors: Some(1), ..options(512, 4) };
    let device = |mib| DeviceSectors::Interleaved(mib * MIB);
    let (mut superblock, _) = format(device(300), &fine).unwrap();
    assert_eq!(superblock.log2_blocks_per_bitmap_bit, 0);
    let (grown, layout) = resize(&superblock, device(600)).unwrap();
    assert_eq!(grown.log2_blocks_per_bitmap_bit, 1);
    assert!(layout.provided_sectors / 2 < layout.bitmap_bits_max());
    superblock.flags = superblock.flags.with(Flags::DIRTY_BITMAP);
    let refused = ResizeError::DirtyBitmap { bits: layout.provided_sectors, max: 720_896 };
    assert_eq!(resize(&superblock, device(600)), Err(refused));
    assert!(resize(&superblock, device(340)).is_ok());
}

#[test]
fn inline_volumes_are_resized_too() {
    let inline = FormatOptions { inline: true, ..options(512, 4) };
    let device = |mib| DeviceSectors::Interleaved(mib * MIB);
    let small = format(device(64), &inline).unwrap();
    assert_eq!(
        resize(&small.0, device(100)),
        format(device(100), &inline).map_err(|_| unreachable!())
    );
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
    fn any_size_gives_the_most_that_fits_and_a_way_back(
        made_for in 2000u64..200_000,
        resized_to in any::<u64>(),
        small in any::<bool>(),
        log2_block in 0u8..4,
        tag_size in 1u16..65,
        interleave in 3u32..32,
        fix_padding in any::<bool>(),
    ) {
        let options = FormatOptions {
            block: BlockSize::from_log2_sectors(log2_block).unwrap(),
            interleave_sectors: Some(1 << interleave),
            fix_padding,
            ..options(512, tag_size)
        };
        let made = format(DeviceSectors::Interleaved(made_for), &options);
        prop_assume!(made.is_ok());
        let (superblock, layout) = made.unwrap();
        let sectors = if small { resized_to % 300_000 } else { resized_to / SECTOR };
        let device = DeviceSectors::Interleaved(sectors);
        let Ok((resized, other)) = resize(&superblock, device) else {
            prop_assert!(sectors < layout.initial_sectors + layout.metadata_run + 16);
            return Ok(());
        };
        prop_assert_eq!(Layout::of(&resized, device), Ok(other));
        let mut more = resized.clone();
        more.provided_sectors += 8;
        prop_assert!(Layout::of(&more, device).is_err(), "no eight sectors are given away");
        let (mut back, same) = resize(&resized, DeviceSectors::Interleaved(made_for)).unwrap();
        // A bitmap that had to get coarser stays so.
        prop_assert!(back.log2_blocks_per_bitmap_bit >= superblock.log2_blocks_per_bitmap_bit);
        back.log2_blocks_per_bitmap_bit = superblock.log2_blocks_per_bitmap_bit;
        prop_assert_eq!((back, same), (superblock, layout));
        let common = other.provided_sectors.min(layout.provided_sectors);
        let last = Sector(common - 8);
        prop_assert_eq!(other.run(last, 8), layout.run(last, 8));
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
