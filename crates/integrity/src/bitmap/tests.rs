use super::*;
use crate::layout::{DeviceSectors, FormatOptions, format};
use proptest::prelude::*;
use units::{BlockSize, SECTOR};

fn volume(sectors: u64, block: BlockSize) -> (Superblock, Layout) {
    let options = FormatOptions::new(block, 4, [1; 16]);
    format(DeviceSectors::Interleaved(sectors), &options).unwrap()
}

/// 64 MiB: 129160 sectors, 32768 under a bit, so four bits.
fn worked() -> (Superblock, Layout) {
    volume(131_072, BlockSize::B512)
}

#[test]
fn the_worked_area_has_two_dirty_regions_and_stale_bytes() {
    // Section 7: `03 00 00 00 ff ff ff ff ..`
    let (superblock, layout) = worked();
    let mut area = [0xff; 4096];
    area[..4].copy_from_slice(&[3, 0, 0, 0]);
    let log2 = superblock.log2_blocks_per_bitmap_bit;
    let bitmap = Bitmap::decode(&layout, log2, &area).unwrap();
    assert_eq!((bitmap.bit_count(), bitmap.sectors_per_bit(), bitmap.units()), (4, 32_768, 1));
    assert_eq!(bitmap.dirty().collect::<Vec<_>>(), [(Sector(0), 65_536)]);
    assert!(bitmap.is_dirty(Sector(65_535), 2));
    assert!(!bitmap.is_dirty(Sector(65_536), 129_160 - 65_536));
    let stale = [0xff; 4096];
    assert_eq!(Bitmap::decode(&layout, log2, &stale).unwrap().dirty_count(), 4);
    let short = Bitmap::decode(&layout, log2, &[]);
    assert_eq!(short, Err(BitmapError::TooShort { found: 0, expected: 1 }));
}

#[test]
fn stale_bytes_survive_an_encoding() {
    let (superblock, layout) = worked();
    let mut bitmap = Bitmap::new(&layout, superblock.log2_blocks_per_bitmap_bit).unwrap();
    assert_eq!(bitmap.mark(Sector(32_767), 2), Some(0..1));
    let mut unit = [0xa5; UNIT_BYTES];
    bitmap.encode_unit(0, &mut unit);
    assert_eq!(unit[0], 0xa3, "the low half is the bitmap's");
    assert_eq!(unit[1..], [0xa5; UNIT_BYTES - 1]);
}

#[test]
fn marking_again_changes_nothing_and_cleaning_needs_the_whole_region() {
    let (_, layout) = worked();
    let mut bitmap = Bitmap::new(&layout, 15).unwrap();
    assert_eq!(bitmap.mark(Sector(40_000), 1), Some(0..1));
    assert_eq!(bitmap.mark(Sector(40_001), 7), None);
    assert_eq!(bitmap.clean(Sector(32_769), 96_391), None, "the region starts one sector earlier");
    assert_eq!(bitmap.clean(Sector(32_768), 32_768), Some(0..1));
    assert_eq!(bitmap.dirty_count(), 0);
    bitmap.mark_all();
    assert_eq!(bitmap.dirty().collect::<Vec<_>>(), [(Sector(0), 129_160)]);
    // The last region is whole although it is short.
    assert_eq!(bitmap.clean(Sector(98_304), 129_160 - 98_304), Some(0..1));
    assert_eq!(bitmap.dirty().collect::<Vec<_>>(), [(Sector(0), 98_304)]);
    bitmap.clean_all();
    assert_eq!(bitmap.dirty().count(), 0);
}

#[test]
fn volumes_of_many_tebibytes_have_bitmaps_no_larger_than_their_journal() {
    let (superblock, layout) = volume(80_000_000_000, BlockSize::B512);
    let bitmap = Bitmap::new(&layout, superblock.log2_blocks_per_bitmap_bit).unwrap();
    assert_eq!(bitmap.bit_count(), layout.provided_sectors.div_ceil(32_768));
    assert!(bitmap.stored_bytes() <= layout.journal.sectors() * SECTOR);
    // A bit for every block would need ten gigabytes.
    let fine = Bitmap::new(&layout, 0);
    let max = layout.journal.sectors() * SECTOR * 8;
    assert_eq!(fine, Err(BitmapError::TooFine { bits: layout.provided_sectors, max }));
    let absurd = Bitmap::new(&layout, 64);
    assert_eq!(absurd, Err(BitmapError::Granularity { found: 64, max: 63 }));
    let coarsest = Bitmap::new(&layout, 63).unwrap();
    assert_eq!((coarsest.bit_count(), coarsest.units()), (1, 1));
}

#[test]
fn units_of_a_large_bitmap_are_named_where_they_change() {
    // 1 GiB with a bit for each 8 sectors: 252 thousand bits in 8 units.
    let (_, layout) = volume(2_097_152, BlockSize::B4096);
    let mut bitmap = Bitmap::new(&layout, 0).unwrap();
    assert_eq!(bitmap.units(), 8);
    let unit_sectors = 8 * 32_768;
    assert_eq!(bitmap.mark(Sector(unit_sectors - 8), 16), Some(0..2));
    assert_eq!(bitmap.mark(Sector(unit_sectors - 8), 24), Some(1..2));
    assert_eq!(bitmap.clean(Sector(0), unit_sectors), Some(0..1));
    assert_eq!(bitmap.dirty().collect::<Vec<_>>(), [(Sector(unit_sectors), 16)]);
}

#[test]
fn who_opens_decides_what_a_dirty_bitmap_means() {
    use Mode::{Bitmap as B, Direct, Inline, Journal, Recovery};
    let (mut superblock, layout) = worked();
    let clean = Bitmap::new(&layout, 15).unwrap();
    let mut dirty = clean.clone();
    dirty.mark(Sector(0), 1);
    let (nothing, regions, all) = (Verdict::Nothing, Verdict::Regions, Verdict::Everything);
    assert_eq!(verdict(&superblock, &dirty, B, Some(15), false), nothing, "not in use: stale");
    superblock.flags = superblock.flags.with(Flags::DIRTY_BITMAP);
    let cases = [
        (B, &dirty, Some(15), false, regions),
        (B, &dirty, Some(15), true, all),
        (B, &dirty, Some(14), false, all),
        (B, &clean, Some(15), false, nothing),
        (B, &clean, Some(14), false, all),
        (Journal, &dirty, None, false, all),
        (Journal, &dirty, Some(15), false, all),
        (Journal, &clean, None, false, nothing),
        (Journal, &clean, Some(16), false, all),
        (Direct, &dirty, None, false, all),
        (Recovery, &dirty, None, false, nothing),
        (Inline, &dirty, None, false, nothing),
    ];
    for (mode, stored, wanted, reset, expected) in cases {
        let found = verdict(&superblock, stored, mode, wanted, reset);
        assert_eq!(found, expected, "{mode:?} {wanted:?} {reset}");
    }
}

proptest! {
    #[test]
    fn a_bitmap_is_what_a_set_of_regions_is(
        log2 in 5u8..12,
        changes in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u16>()), 1..40),
    ) {
        let (_, layout) = volume(32_768, BlockSize::B512);
        let mut bitmap = Bitmap::new(&layout, log2).unwrap();
        let (size, total) = (bitmap.sectors_per_bit(), layout.provided_sectors);
        let mut set = vec![false; usize_of(bitmap.bit_count())];
        for (mark, sector, sectors) in changes {
            let sector = u64::from(sector) % total;
            let sectors = (u64::from(sectors) + 1).min(total - sector);
            let before = set.clone();
            for (bit, dirty) in (0..).zip(&mut set) {
                let (start, end) = (bit * size, ((bit + 1) * size).min(total));
                if mark && start < sector + sectors && end > sector {
                    *dirty = true;
                } else if !mark && start >= sector && end <= sector + sectors {
                    *dirty = false;
                }
            }
            let changed = if mark {
                bitmap.mark(Sector(sector), sectors)
            } else {
                bitmap.clean(Sector(sector), sectors)
            };
            prop_assert_eq!(changed.is_some(), before != set);
            for (bit, dirty) in (0..).zip(&set) {
                let start = bit * size;
                prop_assert_eq!(bitmap.is_dirty(Sector(start), size.min(total - start)), *dirty);
            }
        }
        let dirty: u64 = bitmap.dirty().map(|(_, sectors)| sectors).sum();
        let expected: u64 = (0..).zip(&set).filter(|(_, dirty)| **dirty)
            .map(|(bit, _)| size.min(total - bit * size)).sum();
        prop_assert_eq!(dirty, expected);

        let mut area = vec![0xff; usize_of(bitmap.units()) * UNIT_BYTES];
        for (unit, bytes) in (0..).zip(area.chunks_mut(UNIT_BYTES)) {
            bitmap.encode_unit(unit, bytes);
        }
        prop_assert_eq!(Bitmap::decode(&layout, log2, &area), Ok(bitmap));
    }
}
