//! Reference tags counted anew, in any pieces, both ways.

use super::*;
use crate::{Remapped, Tuple};

/// What the specification says of `prepare` and `complete`, one tuple after the other.
fn remapped(oracle: &Oracle, metadata: &[u8], from: u64, to: u64) -> (Vec<u8>, Remapped) {
    let (mask, mut counts) = (ones(oracle.reference_bits()), Remapped::default());
    let mut made = metadata.to_vec();
    if oracle.kind == ProtectionType::Three || mask == 0 {
        return (made, counts);
    }
    for (index, place) in (0..).zip(made.chunks_mut(oracle.metadata)) {
        let place = &mut place[oracle.tuple_at()..][..oracle.tuple_bytes()];
        let old = place.to_vec();
        let number =
            |bytes: &[u8]| bytes.iter().fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
        let space_at = oracle.guard.bytes() + 2;
        let space = number(&old[space_at..]);
        let is_escape = old[space_at - 2..space_at] == [0xff; 2];
        if is_escape || space & u128::from(mask) != u128::from(from.wrapping_add(index) & mask) {
            counts.left += 1;
            continue;
        }
        counts.changed += 1;
        let space = space & !u128::from(mask) | u128::from(to.wrapping_add(index) & mask);
        let bytes = space.to_be_bytes();
        place[space_at..].copy_from_slice(&bytes[16 - (old.len() - space_at)..]);
    }
    (made, counts)
}

proptest! {
    #[test]
    fn tuples_that_are_expected_are_counted_anew_and_others_are_left(
        oracle in any_oracle(),
        intervals in 0_usize..6,
        to in any::<u64>(),
        (metadata_cuts, block_cuts) in (any_cuts(), any_cuts()),
        (wrong, escaped) in (0_usize..12, 0_usize..12),
        seed in any::<u64>(),
    ) {
        let (data, mut metadata) = oracle.filled(intervals, seed);
        for (at, bytes) in [(wrong, [0xa5; 16]), (escaped, [0xff; 16])] {
            if at < intervals {
                let place = &mut metadata[at * oracle.metadata + oracle.tuple_at()..];
                place[..oracle.tuple_bytes()].copy_from_slice(&bytes[..oracle.tuple_bytes()]);
            }
        }
        let (expected, counts) = remapped(&oracle, &metadata, oracle.reference, to);
        let mut made = metadata.clone();
        let profile = oracle.profile();
        let told = profile.remap(cut_mut(&mut made, &metadata_cuts), oracle.reference, to);
        prop_assert_eq!((&made, told), (&expected, counts));

        let mut blocks = oracle.interleaved(&data, &metadata);
        let told = profile.remap_interleaved(cut_mut(&mut blocks, &block_cuts), oracle.reference, to);
        prop_assert_eq!((blocks, told), (oracle.interleaved(&data, &expected), counts));

        // The way back. (A reference that happened to be the other's would come back as what it was not.)
        let (back, _) = remapped(&oracle, &expected, to, oracle.reference);
        let mut again = made;
        profile.remap(cut_mut(&mut again, &metadata_cuts), to, oracle.reference);
        prop_assert_eq!(&again, &back);
        if wrong >= intervals {
            prop_assert_eq!(again, metadata);
        }
    }

    #[test]
    fn tuples_that_were_right_above_are_right_below(
        oracle in any_oracle(),
        to in any::<u64>(),
        seed in any::<u64>(),
    ) {
        let (data, mut metadata) = oracle.filled(3, seed);
        oracle.profile().remap([&mut metadata[..]], oracle.reference, to);
        let below = Oracle { reference: to, ..oracle };
        let below = if oracle.kind == ProtectionType::Three { oracle } else { below };
        prop_assert_eq!(below.protection().verify([&data[..]], [&metadata[..]]), Ok(()));
    }
}

#[test]
fn a_transfer_that_was_cut_short_is_remapped_as_far_as_it_came() {
    let oracle = Oracle { reference: 40, ..Oracle::new(Guard::Crc16, 512, ProtectionType::One) };
    let (_, mut metadata) = oracle.filled(4, 1);
    let profile = oracle.profile();
    assert_eq!(profile.remap([&mut metadata[..]], 40, 1040).changed, 4);
    // Two intervals were done, and only they are counted as above again.
    assert_eq!(profile.remap([&mut metadata[..16]], 1040, 40).changed, 2);
    let references: Vec<u64> =
        metadata.chunks(8).map(|tuple| Tuple::decode(&oracle.format(), tuple).reference).collect();
    assert_eq!(references, [40, 41, 1042, 1043]);
}

#[test]
fn parts_of_a_request_that_count_for_themselves_are_remapped_each_by_its_own() {
    // Two requests merged: each with its own numbers above, one run below.
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let [first, second] = [7, 900].map(|reference| Oracle { reference, ..oracle });
    let ((data, mut metadata), (more, behind)) = (first.filled(2, 1), second.filled(3, 2));
    metadata.extend(behind);
    let profile = oracle.profile();
    let (a, b) = metadata.split_at_mut(16);
    assert_eq!(profile.remap([a], 7, 5000).changed + profile.remap([b], 900, 5002).changed, 5);
    let target = Protection::at(profile, 5000);
    assert_eq!(target.verify([&data[..], &more], [&metadata[..]]), Ok(()));
}

#[test]
fn type_three_has_no_reference_to_count() {
    let oracle = Oracle { reference: 3, ..Oracle::new(Guard::Crc64, 4096, ProtectionType::Three) };
    let (_, mut metadata) = oracle.filled(3, 1);
    let before = metadata.clone();
    assert_eq!(oracle.profile().remap([&mut metadata[..]], 3, 9), Remapped::default());
    assert_eq!(metadata, before);
}

#[test]
fn a_tuple_in_sixteen_pieces_is_put_back_into_each() {
    for oracle in [
        Oracle::new(Guard::Crc64, 4096, ProtectionType::One),
        Oracle {
            metadata: 40,
            first: true,
            ..Oracle::new(Guard::Crc32c, 4096, ProtectionType::Two)
        },
    ] {
        let (_, mut metadata) = oracle.filled(3, 1);
        let (expected, _) = remapped(&oracle, &metadata, 0, 0x0102_0304_0506_0708);
        oracle.profile().remap(cut_mut(&mut metadata, &[1]), 0, 0x0102_0304_0506_0708);
        assert_eq!(metadata, expected);
    }
}

#[test]
#[should_panic = "there is metadata for each interval"]
fn metadata_that_ends_within_a_tuple_is_not_remapped() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    oracle.profile().remap([&mut [0; 12][..]], 0, 1);
}
