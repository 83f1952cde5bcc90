use super::*;
use crate::geometry::{Geometry, ParityLevel};
use proptest::prelude::*;

/// The array whose journals Linux 6.12 wrote below.
const KERNEL_RAID6: Uuid =
    Uuid(*b"\xfa\xbc\xfd\xf3\x56\xf2\x23\x53\xa8\xfd\xe0\xb5\x36\xb5\x14\x36");
const KERNEL_RAID5: Uuid =
    Uuid(*b"\x03\x9d\x8a\xb9\x3b\x4d\xdc\x0f\x5b\xa5\x66\xd5\x35\xea\x94\x1e");

/// A meta block of the kernel's, as far as it is not zero.
fn kernels(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let mut bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    bytes.resize(BLOCK_BYTES, 0);
    bytes
}

fn both_ways(set: Uuid, bytes: &[u8]) -> Block {
    let block = Block::decode(bytes, Seed::of(set)).unwrap();
    assert_eq!(block.encode(Seed::of(set)), bytes);
    block
}

/// 4 KiB at array sector 40 of a RAID 6, in mode write-through.
#[test]
fn what_the_kernel_logs_before_it_writes_home_is_data_with_both_parities() {
    let block = both_ways(
        KERNEL_RAID6,
        &kernels(
            "09c53364d689297a010000004c000000eaae3b4e00000000e0270000000000000000000008000000\
             280000000000000052b5228e01000000100000002800000000000000c907665fbbc73247",
        ),
    );
    let data = Payload::Data { sector: Sector(40), checksums: vec![0x8E22_B552] };
    let parity = Payload::Parity { row: Sector(40), checksums: vec![0x5F66_07C9, 0x4732_C7BB] };
    let payloads = vec![data, parity];
    assert_eq!(block, Block { sequence: 0x4E3B_AEEA, position: 10208, payloads });
}

#[test]
fn what_the_kernel_caches_is_data_alone() {
    let block = both_ways(
        KERNEL_RAID5,
        &kernels(
            "09c53364fe62cb050100000034000000a89adfc200000000501100000000000000000000080000000\
             801000000000000733f1a1a",
        ),
    );
    let data = Payload::Data { sector: Sector(264), checksums: vec![0x1A1A_3F73] };
    assert_eq!(block.payloads, [data]);
}

#[test]
fn rows_that_the_kernel_has_written_home_are_flushed() {
    let block = both_ways(
        KERNEL_RAID5,
        &kernels(
            "09c533646dbba2be01000000a0000000959adfc200000000680f00000000000002000000080000008\
             003000000000000020000000800000088030000000000000200000008000000900300000000000002\
             00000008000000980300000000000002000000080000 00a0030000000000000200000008000000a80\
             30000000000000200000008000000b0030000000000000200000008000000b803000000000000"
                .replace(' ', "")
                .as_str(),
        ),
    );
    let flush = |row| Payload::Flush { rows: vec![Sector(row)] };
    assert_eq!(block.payloads, (896..960).step_by(8).map(flush).collect::<Vec<_>>());
}

const SET: Uuid = Uuid([7; 16]);
/// Sectors that are used of each member.
const SIZE: u64 = 1280;
const RING: u64 = 64 * BLOCK_SECTORS;

fn raid5() -> Geometry {
    Geometry::new(ParityLevel::Raid5, 2, 128, 3).unwrap()
}

fn raid6() -> Geometry {
    Geometry::new(ParityLevel::Raid6, 2, 128, 4).unwrap()
}

/// What a kernel would write.
struct Writer {
    ring: Vec<u8>,
    at: u64,
    sequence: u64,
}

impl Writer {
    fn at(at: u64) -> Self {
        Self { ring: vec![0; usize_of(RING * SECTOR)], at, sequence: 100 }
    }

    /// A block of the ring.
    fn block(&mut self, at: u64) -> &mut [u8] {
        let from = usize_of(at * SECTOR);
        &mut self.ring[from..from + BLOCK_BYTES]
    }

    /// A meta block with its own, each of which is filled with a byte; where they lie.
    fn log(&mut self, what: &[(Payload, u8)]) -> Vec<u64> {
        let ring = Ring::new(RING);
        let position = self.at;
        let mut at = ring.after(position, BLOCK_SECTORS);
        let mut places = Vec::new();
        let mut payloads = Vec::new();
        for (payload, fill) in what {
            let content = [*fill; BLOCK_BYTES];
            let count = usize_of(payload.blocks());
            let sums = vec![Seed::of(SET).checksum(&content); count];
            for _ in 0..count {
                self.block(at).copy_from_slice(&content);
                places.push(at);
                at = ring.after(at, BLOCK_SECTORS);
            }
            payloads.push(match payload.clone() {
                Payload::Data { sector, .. } => Payload::Data { sector, checksums: sums },
                Payload::Parity { row, .. } => Payload::Parity { row, checksums: sums },
                flush @ Payload::Flush { .. } => flush,
            });
        }
        let block = Block { sequence: self.sequence, position, payloads };
        self.block(position).copy_from_slice(&block.encode(Seed::of(SET)));
        (self.at, self.sequence) = (at, self.sequence + 1);
        places
    }

    fn scan(&self, tail: u64, shape: Geometry) -> Found {
        self.scan_without(tail, shape, u64::MAX)
    }

    /// One block cannot be read.
    fn scan_without(&self, tail: u64, shape: Geometry, bad: u64) -> Found {
        let ring = Ring::new(RING);
        let mut scan = Scan::new(Seed::of(SET), ring, tail, (shape, SIZE));
        while let Some(wanted) = scan.wanted() {
            let mut bytes = Vec::new();
            let mut readable = true;
            for range in ring.ranges(wanted) {
                readable &= !range.contains(&bad);
                let (from, to) = (usize_of(range.start * SECTOR), usize_of(range.end * SECTOR));
                bytes.extend_from_slice(&self.ring[from..to]);
            }
            scan.feed(readable.then_some(bytes.as_slice()));
        }
        scan.finish()
    }
}

fn data(sector: u64) -> Payload {
    Payload::Data { sector: Sector(sector), checksums: vec![0] }
}

fn parity(row: u64, count: usize) -> Payload {
    Payload::Parity { row: Sector(row), checksums: vec![0; count] }
}

fn flush(row: u64) -> Payload {
    Payload::Flush { rows: vec![Sector(row)] }
}

/// Slots, and where the block of each is.
type Places = Vec<(usize, u64)>;

/// Row, slots of what is complete with places, and of what is data alone.
fn held(found: &Found) -> Vec<(u64, Places, Places)> {
    let places = |list: &[(usize, Place)]| {
        let mut places: Vec<_> = list.iter().map(|(slot, place)| (*slot, place.at)).collect();
        places.sort_unstable();
        places
    };
    let row =
        |(sector, row): (Sector, &Row)| (sector.0, places(&row.complete), places(&row.data_only));
    found.rows.iter().map(row).collect()
}

// In `raid5()`, stripe 0 has its data in slots 0 and 1 and its parity in slot 2; in `raid6()`, data in
// slots 1 and 2, Q in slot 0, P in slot 3.

#[test]
fn data_and_the_parity_after_it_are_complete() {
    let mut writer = Writer::at(8);
    writer.log(&[]);
    let places = writer.log(&[(data(16), 1), (data(144), 2), (parity(16, 1), 3)]);
    let found = writer.scan(8, raid5());
    let [a, b, p] = places[..] else { panic!("three blocks") };
    assert_eq!(held(&found), [(16, vec![(0, a), (1, b), (2, p)], vec![])]);
    assert_eq!((found.ended, found.meta_blocks, found.first), (Ended::Here, 2, Some(100)));
    assert_eq!(found.rows.of_slot(2).map(|(row, _)| row.0).collect::<Vec<_>>(), [16]);
}

#[test]
fn both_parities_of_a_raid6_go_to_their_slots() {
    let mut writer = Writer::at(0);
    let places = writer.log(&[(data(0), 1), (parity(0, 2), 3)]);
    let found = writer.scan(0, raid6());
    let [d, p, q] = places[..] else { panic!("three blocks") };
    assert_eq!(held(&found), [(0, vec![(0, q), (1, d), (3, p)], vec![])]);
}

#[test]
fn data_waits_for_its_parity_and_newer_data_takes_its_place() {
    let mut writer = Writer::at(0);
    let first = writer.log(&[(data(0), 1)])[0];
    let second = writer.log(&[(data(0), 2)])[0];
    let found = writer.scan(0, raid5());
    assert_eq!(held(&found), [(0, vec![], vec![(0, second)])]);
    assert_ne!(first, second);
    let p = writer.log(&[(parity(0, 1), 3)])[0];
    assert_eq!(held(&writer.scan(0, raid5())), [(0, vec![(0, second), (2, p)], vec![])]);
    // What comes after it waits for the next.
    let third = writer.log(&[(data(128), 4)])[0];
    let found = writer.scan(0, raid5());
    assert_eq!(held(&found), [(0, vec![(0, second), (2, p)], vec![(1, third)])]);
    assert_eq!(found.rows.data_only().map(|(sector, _)| sector.0).collect::<Vec<_>>(), [128]);
    assert_eq!(found.rows.blocks(), 3);
}

#[test]
fn a_flush_forgets_what_came_before_it_of_its_rows() {
    let mut writer = Writer::at(0);
    writer.log(&[(data(0), 1), (parity(0, 1), 2), (data(8), 3)]);
    writer.log(&[(flush(0), 0)]);
    let found = writer.scan(0, raid5());
    assert_eq!(held(&found).iter().map(|row| row.0).collect::<Vec<_>>(), [8]);
    let again = writer.log(&[(data(128), 4)])[0];
    assert_eq!(held(&writer.scan(0, raid5()))[0], (0, vec![], vec![(1, again)]));
}

#[test]
fn a_ring_goes_on_at_its_start_also_within_what_a_block_names() {
    for tail in (0..RING).step_by(8) {
        let mut writer = Writer::at(tail);
        writer.log(&[(data(0), 1), (data(128), 2), (parity(0, 1), 3)]);
        writer.log(&[(data(8), 4)]);
        let found = writer.scan(tail, raid5());
        assert_eq!((found.meta_blocks, found.sectors, found.rows.blocks()), (2, 48, 4), "{tail}");
    }
}

#[test]
fn a_full_ring_ends_at_its_tail() {
    let mut writer = Writer::at(24);
    for number in 0..RING / 16 {
        writer.log(&[(data(number * 8), 1)]);
    }
    let found = writer.scan(24, raid5());
    assert_eq!((found.sectors, found.ended), (RING, Ended::Here));
    assert_eq!(found.rows.blocks(), RING / 16);
}

#[test]
fn what_was_torn_at_the_end_is_not_there() {
    let mut writer = Writer::at(0);
    writer.log(&[(data(0), 1)]);
    let torn = writer.log(&[(data(8), 2), (parity(8, 1), 3)]);
    let whole = writer.scan(0, raid5()).rows.blocks();
    assert_eq!(whole, 3);
    // Each of its blocks, and the meta block itself.
    for at in [torn[0] - 8, torn[0], torn[1]] {
        writer.block(at)[4000] ^= 1;
        let found = writer.scan(0, raid5());
        assert_eq!((found.rows.blocks(), found.ended), (1, Ended::Here), "torn at {at}");
        writer.block(at)[4000] ^= 1;
    }
    // One of an earlier round is not the next.
    writer.sequence = 7;
    writer.log(&[(data(16), 1)]);
    assert_eq!(writer.scan(0, raid5()).rows.blocks(), whole);
}

#[test]
fn damage_with_something_whole_after_it_is_told() {
    let mut writer = Writer::at(RING - 24);
    writer.log(&[(data(0), 1)]);
    let rotten = writer.log(&[(data(8), 2)])[0];
    writer.log(&[(data(16), 3)]);
    let meta = RING - 8;
    for at in [meta, rotten] {
        writer.block(at)[1000] ^= 4;
        let found = writer.scan(RING - 24, raid5());
        let damage = Damage::Middle { at: meta, later: 102 };
        assert_eq!((found.rows.blocks(), found.ended), (1, Ended::Damaged(damage)));
        writer.block(at)[1000] ^= 4;
        let found = writer.scan_without(RING - 24, raid5(), at);
        assert!(found.rows.blocks() == 1 && matches!(found.ended, Ended::Damaged(_)));
    }
    assert_eq!(writer.scan(RING - 24, raid5()).ended, Ended::Here);
}

#[test]
fn what_cannot_be_read_is_not_taken_for_the_end() {
    let mut writer = Writer::at(0);
    writer.log(&[(data(0), 1)]);
    let found = writer.scan_without(0, raid5(), 16);
    assert_eq!(found.ended, Ended::Damaged(Damage::Unreadable { at: 16 }));
}

#[test]
fn a_first_block_that_does_not_hold_is_told() {
    let mut writer = Writer::at(8);
    let named = writer.log(&[(data(0), 1)])[0];
    let first = |found: Found| match found.ended {
        Ended::Damaged(Damage::First { at, error }) => (at, error),
        other => panic!("{other:?}"),
    };
    writer.block(named)[0] ^= 1;
    assert_eq!(first(writer.scan(8, raid5())), (8, BlockError::Named));
    let moved = writer.block(8).to_vec();
    writer.block(0).copy_from_slice(&moved);
    let position = BlockError::Position { found: 8, expected: 0 };
    assert_eq!(first(writer.scan(0, raid5())), (0, position));
    assert_eq!(first(writer.scan(24, raid5())), (24, BlockError::Magic { found: 0 }));
    for tail in [RING, 12, u64::MAX] {
        let damage = Damage::Tail { tail, sectors: RING };
        assert_eq!(writer.scan(tail, raid5()).ended, Ended::Damaged(damage));
    }
}

#[test]
fn a_journal_that_was_never_started_is_empty() {
    let found = Writer::at(0).scan(0, raid5());
    assert_eq!((found.ended, found.first, found.rows.blocks()), (Ended::Here, None, 0));
}

#[test]
fn what_holds_and_means_nothing_here_is_told() {
    let sectors = SIZE * 2;
    for (payload, why) in [
        (data(sectors), Senseless::Data { sector: sectors }),
        (data(4), Senseless::Data { sector: 4 }),
        (data(u64::MAX - 7), Senseless::Data { sector: u64::MAX - 7 }),
        (parity(SIZE, 1), Senseless::Row { row: SIZE, end: SIZE }),
        (parity(12, 1), Senseless::Row { row: 12, end: SIZE }),
        (parity(8, 2), Senseless::Parity { found: 2, expected: 1 }),
        (flush(SIZE), Senseless::Row { row: SIZE, end: SIZE }),
    ] {
        let mut writer = Writer::at(0);
        writer.log(&[]);
        writer.log(&[(payload, 1)]);
        let found = writer.scan(0, raid5());
        assert_eq!(found.ended, Ended::Damaged(Damage::Senseless { at: 8, why }));
        assert_eq!(found.rows.blocks(), 0);
    }
}

#[test]
fn blocks_that_are_no_meta_blocks_say_why() {
    let seed = Seed::of(SET);
    let sound = Block { sequence: 1, position: 0, payloads: vec![data(0)] }.encode(seed);
    assert_eq!(Block::decode(&sound[..9], seed), Err(BlockError::Length { found: 9 }));
    let other = Block::decode(&sound, Seed::of(Uuid([8; 16])));
    assert!(matches!(other, Err(BlockError::Checksum { .. })));
    let changed = |at: usize, value: &[u8]| {
        let mut bytes = sound.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes[4..8].fill(0);
        let sum = seed.checksum(&bytes).to_le_bytes();
        bytes[4..8].copy_from_slice(&sum);
        Block::decode(&bytes, seed)
    };
    assert_eq!(changed(0, &[1, 2, 3, 4]), Err(BlockError::Magic { found: 0x0403_0201 }));
    assert_eq!(changed(8, &[2]), Err(BlockError::Version { found: 2 }));
    for size in [31_u32, 4097, u32::MAX] {
        assert_eq!(changed(12, &size.to_le_bytes()), Err(BlockError::Size { found: size }));
    }
    let payload = |kind, flags, size| Err(BlockError::Payload { at: 32, kind, flags, size });
    assert_eq!(changed(32, &[3]), payload(3, 0, 8));
    assert_eq!(changed(34, &[1]), payload(0, 1, 8));
    assert_eq!(changed(36, &[9]), payload(0, 0, 9));
    assert_eq!(changed(36, &[0]), payload(0, 0, 0));
    assert_eq!(changed(36, &[16]), payload(0, 0, 16));
    assert_eq!(changed(36, &[0xFF; 4]), payload(0, 0, u32::MAX));
    // A rest that is too short for a payload.
    let rest = BlockError::Payload { at: 52, kind: 0, flags: 0, size: 0 };
    assert_eq!(changed(12, &[56]), Err(rest));
}

prop_compose! {
    fn payloads()(
        list in prop::collection::vec((0..3_u8, any::<u64>(), prop::collection::vec(any::<u32>(), 1..5)), 0..60),
    ) -> Vec<Payload> {
        list.into_iter().map(|(kind, place, checksums)| match kind {
            0 => Payload::Data { sector: Sector(place), checksums },
            1 => Payload::Parity { row: Sector(place), checksums },
            _ => Payload::Flush { rows: checksums.into_iter().map(|row| Sector(row.into())).collect() },
        }).collect()
    }
}

proptest! {
    #[test]
    fn a_meta_block_comes_back(
        payloads in payloads(), sequence: u64, position: u64, bit in 0..BLOCK_BYTES * 8,
    ) {
        let seed = Seed::of(SET);
        let block = Block { sequence, position, payloads };
        let mut bytes = block.encode(seed);
        prop_assert_eq!(&Block::decode(&bytes, seed), &Ok(block));
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Block::decode(&bytes, seed).is_err());
    }

    /// Wherever the power goes, what was whole before is found, and nothing else.
    #[test]
    fn a_scan_finds_all_that_was_logged_before_the_cut(
        writes in prop::collection::vec((0..SIZE * 2 / 8, any::<bool>()), 1..20),
        cut in 0..20_usize,
        tail in 0..RING / 8,
    ) {
        let mut writer = Writer::at(tail * 8);
        let cut = cut.min(writes.len());
        let mut expected = std::collections::BTreeMap::new();
        for (number, &(block, whole)) in writes.iter().enumerate() {
            let spot = raid5().locate(Sector(block * 8));
            let mut what = vec![(data(block * 8), 1)];
            if whole {
                what.push((parity(spot.member_sector.0, 1), 2));
            }
            let at = writer.log(&what);
            if number < cut {
                expected.insert((spot.member_sector.0, spot.slot), at[0]);
            } else {
                writer.block(at[0]).fill(0xEE);
            }
        }
        let found = writer.scan(tail * 8, raid5());
        if cut == 0 {
            let first = matches!(found.ended, Ended::Damaged(Damage::First { .. }));
            prop_assert!(first);
        }
        let parity_slot = |row: u64| raid5().p_slot(row / 128);
        let mut all = std::collections::BTreeMap::new();
        for (row, held) in found.rows.iter() {
            // Data without parity is newer.
            for (slot, place) in held.complete.iter().chain(&held.data_only) {
                if *slot != parity_slot(row.0) {
                    all.insert((row.0, *slot), place.at);
                }
            }
        }
        prop_assert_eq!(all, expected);
    }
}

#[test]
fn a_blank_ring_begins_with_one_empty_block_and_holds_nothing() {
    let set = Uuid([7; 16]);
    let bytes = blank_ring(set, u32::MAX);
    let block = Block::decode(&bytes, Seed::of(set)).unwrap();
    let expected = Block { sequence: u64::from(u32::MAX), position: 0, payloads: Vec::new() };
    assert_eq!(block, expected);
    assert!(Block::decode(&bytes, Seed::of(Uuid([8; 16]))).is_err(), "it is this array's");
}
