//! Runs of intervals are checked in words first: whatever is found must be what one tuple after the other
//! says.

use super::*;
use crate::{Order, Tuple};

proptest! {
    #[test]
    fn a_run_finds_what_one_tuple_after_the_other_does(
        oracle in any_oracle(),
        masks in any::<(u16, u64)>(),
        switches in any::<[bool; 6]>(),
        changes in prop::collection::vec((0_usize..4, 0_usize..16, any::<u8>()), 0..6),
        escaped in prop::option::of(0_usize..4),
        seed: u64,
    ) {
        let (data, mut metadata) = oracle.filled(4, seed);
        let (at, length) = (oracle.tuple_at(), oracle.tuple_bytes());
        for (interval, byte, change) in changes {
            metadata[interval * oracle.metadata + at + byte % length] ^= change;
        }
        if let Some(interval) = escaped {
            metadata[interval * oracle.metadata + at + oracle.guard.bytes()..][..2].fill(0xff);
        }
        let [guard, application, reference, storage, escape, linux] = switches;
        let order = if linux { Order::Linux } else { Order::Guard };
        let checks = Checks { guard, application, reference, storage, escape, order };
        let whole = oracle.protection();
        let expected =
            Expected { application_mask: masks.0, storage_mask: masks.1, ..*whole.expected() };
        let protection = Protection::new(oracle.profile(), expected, checks).unwrap();

        let mut one_by_one = Vec::new();
        let intervals = data.chunks(oracle.interval).zip(metadata.chunks(oracle.metadata));
        for (index, (data, metadata)) in (0..).zip(intervals) {
            let tuple = Tuple::decode(protection.format(), &metadata[at..at + length]);
            one_by_one
                .extend(protection.check(index, &tuple, oracle.guard_of(data, metadata)).err());
        }
        let mut found = Vec::new();
        protection.verify_each([&data[..]], [&metadata[..]], |mismatch| found.push(mismatch));
        prop_assert_eq!(&found, &one_by_one);
        let blocks = oracle.interleaved(&data, &metadata);
        let mut found = Vec::new();
        protection.verify_interleaved_each([&blocks[..]], |mismatch| found.push(mismatch));
        prop_assert_eq!(&found, &one_by_one);
        let (mut stripped, mut found) = (vec![0; data.len()], Vec::new());
        protection
            .strip([&blocks[..]], [&mut stripped[..]], |mismatch| found.push(mismatch));
        prop_assert_eq!(&found, &one_by_one);
        prop_assert!(stripped == data);
    }
}
