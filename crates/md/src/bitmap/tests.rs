use super::*;
use crate::create::{NewArray, NewMember, create};
use crate::superblock::{Level, Minor, ResyncOffset, Time};
use proptest::prelude::*;
use units::{Sector, usize_of};

fn header(sync_sectors: u64, chunk: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..4].copy_from_slice(b"bitm");
    bytes[4] = 4;
    bytes[40..48].copy_from_slice(&sync_sectors.to_le_bytes());
    bytes[52..56].copy_from_slice(&chunk.to_le_bytes());
    bytes
}

fn bitmap(sync_sectors: u64, chunk: u32, bits: &[u8]) -> Result<Bitmap, BitmapError> {
    Bitmap::decode([&header(sync_sectors, chunk)[..], bits].concat())
}

#[test]
fn bits_beyond_the_last_chunk_do_not_count() {
    // The specification's example: one bit, clean, stored as `fe ff ff ff`.
    let one = bitmap(63488, 64 << 20, &[0xFE, 0xFF, 0xFF, 0xFF]).unwrap();
    assert_eq!((one.header().bit_count(), one.dirty_count()), (1, 0));
    assert_eq!(bitmap(63488, 64 << 20, &[0xFF]).unwrap().dirty_count(), 1);
    let eleven = bitmap(8 * 11 - 3, 4096, &[0x81, 0xFC]).unwrap();
    assert_eq!((eleven.header().bit_count(), eleven.dirty_count()), (11, 3));
    assert_eq!(eleven.dirty().collect::<Vec<_>>(), [0..1, 7..8, 10..11]);
    // The last chunk is cut at the end of what is covered.
    assert_eq!(eleven.dirty_sectors().last(), Some(80..85));
    let short = bitmap(8 * 11 - 3, 4096, &[0x81]).unwrap_err();
    assert_eq!(short, BitmapError::Room { needed: 258, room: 257 });
}

#[test]
fn lengths_that_no_area_holds_are_refused_without_being_believed() {
    let huge = bitmap(u64::MAX, 512, &[0]).unwrap_err();
    assert_eq!(huge, BitmapError::Room { needed: 256 + (1 << 61), room: 257 });
}

#[test]
fn other_bytes_are_refused_by_name() {
    let good = header(8, 4096);
    let forged = |at: usize, value: u8| {
        let mut bytes = good;
        bytes[at] = value;
        BitmapHeader::decode(&bytes).unwrap_err()
    };
    assert_eq!(forged(0, 0), BitmapError::Magic { found: 0x6D74_6900 });
    assert_eq!(forged(4, 3), BitmapError::Version { found: 3 });
    assert_eq!(forged(53, 0), BitmapError::Chunk { found: 0 });
    assert_eq!(forged(52, 1), BitmapError::Chunk { found: 4097 });
    assert_eq!(BitmapHeader::decode(&good[..255]), Err(BitmapError::Short { found: 255 }));
}

proptest! {
    #[test]
    fn any_header_survives(
        mut bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES),
        log in 9u32..32,
    ) {
        bytes[..8].copy_from_slice(&header(0, 512)[..8]);
        bytes[52..56].copy_from_slice(&(1u32 << log).to_le_bytes());
        let decoded = BitmapHeader::decode(&bytes).unwrap();
        prop_assert_eq!(&decoded.encode()[..], &bytes[..]);
    }

    #[test]
    fn a_bitmap_is_a_set_of_chunks_and_leaves_its_filler_alone(
        bits in 1u64..40,
        filler in any::<u8>(),
        steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..40), 0..20),
    ) {
        let area = vec![filler; usize_of(bits.div_ceil(8)) + 3];
        let mut bitmap = bitmap(bits * 8, 4096, &area).unwrap();
        bitmap.fill(false);
        let before = bitmap.encode(0..bitmap.area_bytes());
        let mut model = std::collections::BTreeSet::new();
        for (set, start, end) in steps {
            let chunks = start.min(bits)..end.clamp(start.min(bits), bits);
            let change = if set { bitmap.set(chunks.clone()) } else { bitmap.clear(chunks.clone()) };
            for chunk in chunks.clone() {
                if set { model.insert(chunk); } else { model.remove(&chunk); }
            }
            prop_assert!(change.is_none_or(|range| range.start >= 256 && range.len() <= 5));
            prop_assert_eq!(bitmap.dirty_count(), u64_of(model.len()));
            prop_assert!(!set || bitmap.is_set(&chunks));
        }
        let found: Vec<u64> = bitmap.dirty().flatten().collect();
        prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
        bitmap.clear(0..bits);
        prop_assert_eq!(bitmap.encode(0..bitmap.area_bytes()), before);
    }
}

/// Superblocks of the array of the specification's section 6, at 1.2 or 1.0.
fn placed(minor: Minor, device_sectors: u64) -> Superblock {
    let array = NewArray {
        level: Level::Raid1,
        layout: 0,
        chunk_sectors: 0,
        minor,
        set_uuid: Uuid([3; 16]),
        set_name: [0; 32],
        ctime: Time(0),
        resync: ResyncOffset::Clean,
        data_offset: None,
        ppl: false,
        size: None,
    };
    let members = [0, 1].map(|n| NewMember { device_sectors, device_uuid: Uuid([n; 16]) });
    let mut made = create(&array, &members).unwrap().remove(0);
    made.place_bitmap(device_sectors);
    made
}

#[test]
fn a_new_bitmap_lies_where_mdadm_puts_it() {
    // 8 sectors between superblock and bad block log, and at the end the same.
    for (minor, sector) in [(Minor::V2, 16), (Minor::V1, 8), (Minor::V0, 81904 - 16)] {
        let superblock = placed(minor, 81920);
        assert_eq!(superblock.bitmap_sector(), Some(Sector(sector)), "{minor}");
        assert_eq!(superblock.bitmap_room(81920), Some(4096), "{minor}");
        assert_eq!(superblock.validate(81920), Ok(()), "{minor}");
    }
}

#[test]
fn a_new_bitmap_is_as_fine_as_fits() {
    let superblock = placed(Minor::V2, 81920);
    let new = |chunk_bytes, dirty| {
        Bitmap::new(&NewBitmap { superblock: &superblock, room_bytes: 4096, chunk_bytes, dirty })
    };
    let default = new(None, false).unwrap();
    assert_eq!((default.header().chunk_bytes(), default.dirty_count()), (64 << 20, 0));
    assert_eq!(default.header().believe(&superblock), Ok(()));
    // One bit, and the rest of its byte as mdadm leaves it.
    assert_eq!(default.encode(256..257), [0xFE]);
    let fine = new(Some(4096), true).unwrap();
    assert_eq!((fine.dirty_count(), fine.area_bytes()), (9984, 256 + 1248));
    assert_eq!(new(Some(2048), false), Err(BitmapError::Chunk { found: 2048 }));
    assert_eq!(new(Some(12288), false), Err(BitmapError::Chunk { found: 12288 }));
    // 8 TiB: 131072 chunks of 64 MiB do not fit 4 KiB, those of 512 MiB do.
    let large = placed(Minor::V2, 1 << 34);
    let new = |room_bytes, chunk_bytes| {
        Bitmap::new(&NewBitmap { superblock: &large, room_bytes, chunk_bytes, dirty: false })
    };
    assert_eq!(new(4096, None).unwrap().header().chunk_bytes(), 512 << 20);
    let tight = new(4096, Some(64 << 20)).unwrap_err();
    assert!(matches!(tight, BitmapError::Room { room: 4096, .. }), "{tight}");
}

#[test]
fn a_bitmap_that_covers_something_else_is_stale() {
    let superblock = placed(Minor::V2, 81920);
    let new =
        NewBitmap { superblock: &superblock, room_bytes: 4096, chunk_bytes: None, dirty: false };
    let mut made = Bitmap::new(&new).unwrap();
    let mut newer = superblock.clone();
    newer.set_events(1);
    let stale = made.header().believe(&newer).unwrap_err();
    assert_eq!(stale, Stale::Events { found: 0, expected: 1 });
    made.set_events(2);
    assert_eq!(made.header().believe(&newer), Ok(()));
    let longer = placed(Minor::V2, 163_840);
    let stale = made.header().believe(&longer).unwrap_err();
    assert_eq!(stale, Stale::Size { found: 79872, expected: 161_792 });
}

#[test]
fn joining_takes_bits_and_no_filler() {
    let mut one = bitmap(8 * 11, 4096, &[0x01, 0x00, 7]).unwrap();
    one.join(&bitmap(8 * 11, 4096, &[0x80, 0xFC]).unwrap());
    assert_eq!(one.encode(256..259), [0x81, 0x04, 7]);
}
