use super::*;
use crate::geometry::{Geometry, ParityLevel};
use proptest::prelude::*;
use std::ops::Range;

const SET: Uuid = Uuid([7; 16]);
/// Sectors of each member.
const SIZE: u64 = 1280;

fn shape() -> Geometry {
    Geometry::new(ParityLevel::Raid5, 2, 128, 4).unwrap()
}

fn record(generation: u64, entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let headers: Vec<Entry> = entries.iter().map(|(entry, _)| *entry).collect();
    let mut bytes = encode_header(SET, generation, &headers);
    entries.iter().for_each(|(_, parity)| bytes.extend_from_slice(parity));
    bytes
}

fn entry(data_sector: u64, parity_bytes: u32, data_bytes: u32, parity_slot: u32) -> Entry {
    Entry { data_sector, parity_bytes, data_bytes, parity_slot, checksum: 0 }
}

fn update(entry: Entry) -> Result<(u64, Range<u64>, Range<usize>), EntryError> {
    entry.update(&shape(), SIZE, 1).map(|found| (found.stripe, found.rows, found.strips))
}

/// What Linux 6.12 logged for writes at known places of an array of this shape.
#[test]
fn entries_of_the_kernel_name_the_rows_that_it_was_told_to_write() {
    // 4 KiB at sector 0; one sector at 385; the last two strips of stripe 3, in two halves.
    assert_eq!(update(entry(0, 4096, 4096, 3)), Ok((0, 0..8, 0..1)));
    assert_eq!(update(entry(384, 4096, 4096, 2)), Ok((1, 0..8, 0..1)));
    assert_eq!(update(entry(1280, 32768, 65536, 0)), Ok((3, 0..64, 1..3)));
    assert_eq!(update(entry(1344, 32768, 65536, 0)), Ok((3, 64..128, 1..3)));
    // A whole stripe.
    assert_eq!(update(entry(1536, 0, 98304, 3)), Ok((4, 0..64, 0..3)));
    // In an array of larger blocks the place is in the same unit, and a block's.
    let large = |sector| entry(sector, 4096, 4096, 2).update(&shape(), SIZE, 8);
    assert_eq!(large(384).map(|found| (found.stripe, found.rows)), Ok((1, 0..8)));
    assert_eq!(large(385), Err(EntryError::Place { sector: 385 }));
}

#[test]
fn entries_that_are_no_rows_of_one_stripe_are_refused_with_what_they_say() {
    let lengths = |data_bytes, parity_bytes| Err(EntryError::Lengths { data_bytes, parity_bytes });
    assert_eq!(update(entry(0, 4096, 4097, 3)), lengths(4097, 4096));
    assert_eq!(update(entry(0, 4096, 0, 3)), lengths(0, 4096));
    assert_eq!(update(entry(0, 0, 0, 3)), lengths(0, 0));
    assert_eq!(update(entry(0, 100, 100, 3)), lengths(100, 100));
    // Beyond the strip, beyond the stripe, and a whole stripe that begins in its middle.
    assert_eq!(update(entry(124, 4096, 4096, 3)), lengths(4096, 4096));
    assert_eq!(update(entry(256, 4096, 8192, 3)), lengths(8192, 4096));
    assert_eq!(update(entry(128, 0, 98304, 3)), lengths(98304, 0));
    assert_eq!(update(entry(0, u32::MAX, u32::MAX, 3)), lengths(u32::MAX, u32::MAX));
    let sectors = SIZE * 3;
    let place = |sector| Err(EntryError::Place { sector });
    assert_eq!(update(entry(sectors, 4096, 4096, 3)), place(sectors));
    assert_eq!(update(entry(u64::MAX, 4096, 4096, 3)), place(u64::MAX));
    let slot = EntryError::Slot { found: 2, expected: 3 };
    assert_eq!(update(entry(0, 4096, 4096, 2)), Err(slot));
}

#[test]
fn the_last_record_counts_and_generations_do_not_fall() {
    let part = [3; 512];
    let one = entry(0, 512, 512, 3);
    let records = [record(5, &[(one, &part)]), record(5, &[]), record(9, &[(one, &part)])];
    let mut area = records.concat();
    area.extend(record(8, &[]));
    let log = Log::decode(&area, SET).unwrap();
    let generations: Vec<u64> = log.records().iter().map(|record| record.generation).collect();
    assert_eq!((generations, log.last().start_bytes), (vec![5, 5, 9], 4608 + 4096));
    // What is damaged behind the first ends the log there.
    area[4608 + 600] ^= 1;
    assert_eq!(Log::decode(&area, SET).unwrap().last().generation, 5);
}

#[test]
fn a_log_that_does_not_begin_with_a_record_says_why() {
    let sound = record(1, &[(entry(0, 512, 512, 3), &[0; 512])]);
    let refused = |bytes: &[u8]| Log::decode(bytes, SET).unwrap_err();
    assert_eq!(refused(&sound[..4095]), PplError::Short { found: 4095 });
    assert_eq!(refused(&sound[..4200]), PplError::Room { needed: 512, room: 104 });
    assert!(matches!(refused(&void_header()), PplError::Signature { found: 0, .. }));
    let mut turned = sound.clone();
    turned[0] = 0xFE;
    assert!(matches!(refused(&turned), PplError::Checksum { .. }));
    turned = sound;
    turned[528] = 200;
    turned[532..536].fill(0);
    let sum = crc32c(&turned[..HEADER_BYTES]).to_le_bytes();
    turned[532..536].copy_from_slice(&sum);
    assert_eq!(refused(&turned), PplError::Count { found: 200 });
}

#[test]
fn what_changes_in_a_header_lies_in_what_a_device_writes_as_one() {
    assert_eq!([512, 1024, 2048, 4096, 8192].map(entries_at_once), [20, 20, 63, 148, 148]);
    let changed = |count: usize| {
        let entries = vec![entry(8, 4096, 4096, 3); count];
        let (old, new) = (encode_header(SET, 0, &[]), encode_header(SET, 1, &entries));
        let mut differing = (0..HEADER_BYTES).filter(|&at| old[at] != new[at]);
        let first = differing.next();
        (first.unwrap(), differing.next_back().unwrap())
    };
    assert!(changed(20).0 >= 512 && changed(20).1 < 1024);
    assert!(changed(21).1 >= 1024 && changed(63).1 < 2048);
}

#[test]
fn a_missing_member_is_lost_only_among_several_that_were_written_at_once() {
    let part = [0; 512];
    let logs: Vec<Log> = [(3, 0, 512), (2, 384, 1024), (1, 768, 512), (0, 1152, 512)]
        .into_iter()
        .map(|(slot, block, data)| {
            let mut one = entry(block, 512, data, slot);
            one.checksum = crc32c(&part);
            Log::decode(&record(1, &[(one, &part)]), SET).unwrap()
        })
        .collect();
    let pairs = || [3, 2, 1, 0].into_iter().zip(logs.iter().map(Some));
    let plan = Plan::new(&shape(), SIZE, 1, pairs()).unwrap();
    assert_eq!((plan.updates.len(), plan.unlogged.len()), (4, 0));
    // Stripe 1 has its first two strips in slots 3 and 0, and parity in slot 2.
    let lost =
        |missing: usize| plan.lost(&shape(), move |slot| slot != missing).collect::<Vec<_>>();
    assert_eq!([lost(3), lost(0)], [vec![128..129], vec![128..129]]);
    assert_eq!([lost(1), lost(2)], [vec![], vec![]]);
    let absent = pairs().map(|(slot, log)| (slot, log.filter(|_| slot != 2)));
    assert_eq!(Plan::new(&shape(), SIZE, 1, absent), Err(Unproven::Log { slot: 2 }));
    let swapped = [(2, Some(&logs[0]))].into_iter();
    let why = EntryError::Slot { found: 3, expected: 2 };
    assert_eq!(Plan::new(&shape(), SIZE, 1, swapped), Err(Unproven::Entry { slot: 2, why }));
}

proptest! {
    #[test]
    fn what_is_written_of_a_strip_is_read_as_that(
        stripe in 0..10_u64, strip in 0..3_usize, start in 0..120_u64, length in 1..8_u64,
        torn: bool,
    ) {
        let rows = start..start + length;
        let parity = vec![0xA5; usize_of(length * 512)];
        let made = Entry::new(&shape(), (stripe, strip), &rows, &parity, 1);
        let mut bytes = record(3, &[(made, &parity)]);
        let last = bytes.len() - 1;
        bytes[last] ^= u8::from(torn);
        let log = Log::decode(&bytes, SET).unwrap();
        let found = &log.last().entries[0];
        prop_assert_eq!(found.is_intact(), !torn);
        let meant = found.entry.update(&shape(), SIZE, 1).unwrap();
        prop_assert_eq!(meant, Update { stripe, rows, strips: strip..strip + 1 });
    }

    #[test]
    fn no_bytes_are_too_hostile(mut bytes in proptest::collection::vec(any::<u8>(), 0..9000), mend: bool) {
        if mend && bytes.len() >= HEADER_BYTES {
            bytes[..536].copy_from_slice(&encode_header(SET, 1, &[])[..536]);
            bytes[528] %= 150;
            bytes[532..536].fill(0);
            let sum = crc32c(&bytes[..HEADER_BYTES]).to_le_bytes();
            bytes[532..536].copy_from_slice(&sum);
        }
        if let Ok(log) = Log::decode(&bytes, SET) {
            drop(Plan::new(&shape(), SIZE, 1, [(3, Some(&log))].into_iter()));
        }
    }
}
