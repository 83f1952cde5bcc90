//! What is checked and what is not: escapes, selection, orders, masks, wraps, and what a mismatch says.

use super::*;
use crate::{Order, ProtectionError, Tuple};
use std::format;

const REFERENCE: u64 = 0x1_2345_6789;

/// With a tuple of one interval that is wrong in every tag.
fn all_wrong(guard: Guard, kind: ProtectionType, storage_bits: u8) -> (Oracle, Vec<u8>, Vec<u8>) {
    let oracle = Oracle {
        storage_bits,
        application: 0x1234,
        storage: 1 & ones(storage_bits),
        reference: REFERENCE,
        ..Oracle::new(guard, 4096, kind)
    };
    let data = ascending(4096);
    let right = oracle.guard_of(&data, &[0; 16]);
    let reference = oracle.reference_of(0);
    let tuple = oracle.tuple(right ^ 1, 0x1235, 3 & ones(storage_bits), reference ^ 1);
    (oracle, data, tuple)
}

fn only(tag: Tag) -> Checks {
    Checks {
        guard: tag == Tag::Guard,
        application: tag == Tag::Application,
        reference: tag == Tag::Reference,
        storage: tag == Tag::Storage,
        ..Checks::NONE
    }
}

const TAGS: [Tag; 4] = [Tag::Guard, Tag::Application, Tag::Reference, Tag::Storage];

#[test]
fn a_tag_is_found_wrong_exactly_if_it_is_checked() {
    for guard in Guard::ALL {
        for kind in ProtectionType::ALL {
            let (oracle, data, tuple) = all_wrong(guard, kind, 16);
            let computed = oracle.guard_of(&data, &[0; 16]);
            for tag in TAGS {
                let protection = oracle.protection().with_checks(only(tag));
                let found: Vec<_> = found(&protection, &data, &tuple).iter().map(said).collect();
                let reference = oracle.reference_of(0);
                let expected = match tag {
                    Tag::Guard => vec![(tag, 0, REFERENCE, computed ^ 1, computed)],
                    Tag::Application => vec![(tag, 0, REFERENCE, 0x1235, 0x1234)],
                    // Of type 3 it is opaque.
                    Tag::Reference if kind == ProtectionType::Three => vec![],
                    Tag::Reference => vec![(tag, 0, REFERENCE, reference ^ 1, reference)],
                    Tag::Storage => vec![(tag, 0, REFERENCE, 3, 1)],
                };
                assert_eq!(found, expected, "{guard} {kind:?} {tag:?}");
            }
            let protection = oracle.protection().with_checks(Checks::NONE);
            assert_eq!(found(&protection, &data, &tuple), []);
        }
    }
}

#[test]
fn tags_are_looked_at_in_order_and_the_first_that_disagrees_is_told() {
    let (oracle, data, mut tuple) = all_wrong(Guard::Crc16, ProtectionType::One, 8);
    let right = oracle.tuple(oracle.guard_of(&data, &[]), 0x1234, 1, oracle.reference_of(0));
    // Mended one after the other, each time the next is told.
    for (tag, mended) in
        [(Tag::Guard, 0..2), (Tag::Application, 2..4), (Tag::Reference, 5..8), (Tag::Storage, 4..5)]
    {
        let told = oracle.protection().verify([&data[..]], [&tuple[..]]).unwrap_err();
        assert_eq!(told.tag, tag);
        tuple[mended.clone()].copy_from_slice(&right[mended]);
    }
    assert_eq!(oracle.protection().verify([&data[..]], [&tuple[..]]), Ok(()));
}

#[test]
fn in_the_order_of_linux_the_reference_comes_before_the_guard_and_nothing_else_comes() {
    let linux = Checks { order: Order::Linux, ..Checks::ALL };
    let (oracle, data, mut tuple) = all_wrong(Guard::Crc16, ProtectionType::One, 8);
    let right = oracle.tuple(oracle.guard_of(&data, &[]), 0x1234, 1, oracle.reference_of(0));
    let protection = oracle.protection().with_checks(linux);
    for (tag, mended) in [(Tag::Reference, 5..8), (Tag::Guard, 0..2)] {
        let told = protection.verify([&data[..]], [&tuple[..]]).unwrap_err();
        assert_eq!(told.tag, tag);
        tuple[mended.clone()].copy_from_slice(&right[mended]);
    }
    assert_ne!(tuple, right, "application and storage tag are still wrong");
    assert_eq!(protection.verify([&data[..]], [&tuple[..]]), Ok(()));

    let (oracle, data, tuple) = all_wrong(Guard::Crc16, ProtectionType::Three, 8);
    let told = oracle.protection().with_checks(linux).verify([&data[..]], [&tuple[..]]);
    assert_eq!(told.unwrap_err().tag, Tag::Guard);
}

#[test]
fn escapes_turn_every_check_off_by_type_and_nothing_less_does() {
    let ones = |oracle: &Oracle| ones(oracle.reference_bits());
    for guard in Guard::ALL {
        for kind in ProtectionType::ALL {
            let (oracle, data, _) = all_wrong(guard, kind, 16);
            let is_third = kind == ProtectionType::Three;
            for (application, reference, is_escape) in [
                (0xffff, 7, !is_third),
                (0xffff, ones(&oracle) ^ 1, !is_third),
                (0xffff, ones(&oracle), true),
                (0xfffe, ones(&oracle), false),
            ] {
                let tuple = oracle.tuple(0xbad, application, 3, reference);
                for order in [Order::Guard, Order::Linux] {
                    let checks = Checks { order, ..Checks::ALL };
                    let protection = oracle.protection().with_checks(checks);
                    let verdict = protection.verify([&data[..]], [&tuple[..]]);
                    assert_eq!(verdict.is_ok(), is_escape, "{guard} {kind:?} {application:x}");
                }
                let format = oracle.format();
                assert_eq!(Tuple::decode(&format, &tuple).is_escaped(&format, kind), is_escape);
            }
        }
    }
}

#[test]
fn an_escape_that_is_not_honoured_is_an_error_of_the_application_tag_whatever_else_is_checked() {
    for kind in ProtectionType::ALL {
        let (oracle, data, _) = all_wrong(Guard::Crc16, kind, 0);
        let tuple = oracle.tuple(0xbad, 0xffff, 0, 0xffff_ffff);
        for checks in [Checks::ALL, Checks::NONE, Checks { order: Order::Linux, ..Checks::ALL }] {
            let protection = oracle.protection().with_checks(Checks { escape: false, ..checks });
            let told = protection.verify([&data[..]], [&tuple[..]]).unwrap_err();
            assert_eq!(said(&told), (Tag::Application, 0, REFERENCE, 0xffff, 0x1234));
        }
    }
}

#[test]
fn bits_outside_of_a_mask_may_differ_and_bits_within_may_not() {
    let oracle = Oracle {
        storage_bits: 16,
        application: 0x1200,
        storage: 0xab00,
        ..Oracle::new(Guard::Crc64, 4096, ProtectionType::One)
    };
    let (data, metadata) = oracle.filled(1, 1);
    let flipped = |at: usize, bit: u8| {
        let mut metadata = metadata.clone();
        metadata[at] ^= bit;
        metadata
    };
    let expected = *oracle.protection().expected();
    let masked = Expected { application_mask: 0xff00, storage_mask: 0xff00, ..expected };
    let protection = Protection::new(oracle.profile(), masked, Checks::ALL).unwrap();
    for (at, bit, tag) in [
        (8, 0x01, Some(Tag::Application)),
        (9, 0x80, None),
        (10, 0x01, Some(Tag::Storage)),
        (11, 0x80, None),
    ] {
        let verdict = protection.verify([&data[..]], [&flipped(at, bit)[..]]);
        assert_eq!(verdict.err().map(|found| found.tag), tag, "byte {at}");
    }
    // What is written is the whole tag, whatever its mask.
    let mut written = [0; 16];
    protection.generate([&data[..]], [&mut written[..]]);
    assert_eq!(written[8..12], [0x12, 0x00, 0xab, 0x00]);
}

#[test]
fn reference_tags_wrap_at_every_width_and_intervals_behind_the_wrap_are_checked() {
    for (guard, bits) in [
        (Guard::Crc16, 0_u8),
        (Guard::Crc16, 8),
        (Guard::Crc16, 31),
        (Guard::Crc16, 32),
        (Guard::Ip, 1),
        (Guard::Crc32c, 16),
        (Guard::Crc32c, 17),
        (Guard::Crc32c, 64),
        (Guard::Crc64, 0),
        (Guard::Crc64, 47),
        (Guard::Crc64, 48),
    ] {
        let mut oracle = Oracle::new(guard, 4096, ProtectionType::Two);
        oracle.storage_bits = bits;
        let width = oracle.reference_bits();
        oracle.reference = ones(width).wrapping_sub(1) & ones(width);
        let (data, metadata) = oracle.filled(4, 2);
        let mut made = noise(metadata.len(), !2);
        oracle.protection().generate([&data[..]], [&mut made[..]]);
        assert_eq!(made, metadata, "{guard}, {width} bits of reference");
        let format = oracle.format();
        let references: Vec<u64> = metadata
            .chunks(oracle.metadata)
            .map(|tuple| Tuple::decode(&format, tuple).reference)
            .collect();
        let last = ones(width);
        assert_eq!(references, [last.wrapping_sub(1) & last, last, 0, 1 & last]);
        assert_eq!(found(&oracle.protection(), &data, &metadata), []);

        // An interval that lies where its neighbour should: found if there is a bit to tell it by.
        let moved = oracle.protection().skip(1);
        assert_eq!(moved.verify([&data[..]], [&metadata[..]]).is_err(), width > 0);
    }
}

#[test]
fn a_run_further_on_continues_the_same_run() {
    for kind in ProtectionType::ALL {
        let oracle = Oracle { reference: REFERENCE, ..Oracle::new(Guard::Crc16, 512, kind) };
        let (data, mut metadata) = oracle.filled(5, 3);
        let behind = oracle.protection().skip(2);
        assert_eq!(found(&behind, &data[1024..], &metadata[16..]), []);
        metadata[24] ^= 0x10;
        let told: Vec<_> = found(&behind, &data[1024..], &metadata[16..]);
        assert_eq!((told[0].interval, told[0].address), (1, REFERENCE + 3), "{kind:?}");
    }
}

#[test]
fn addresses_may_be_counted_apart_from_reference_tags() {
    let oracle = Oracle { reference: 9, ..Oracle::new(Guard::Crc16, 512, ProtectionType::Three) };
    let (mut data, metadata) = oracle.filled(3, 3);
    data[1024] ^= 1;
    let protection = oracle.protection().with_address(u64::MAX);
    assert_eq!(found(&protection, &data, &metadata)[0].address, 1, "it wraps, and nothing panics");
    let protection = oracle.protection().with_address(700).skip(2);
    assert_eq!(found(&protection, &data[1024..], &metadata[16..])[0].address, 702);
}

#[test]
fn a_mismatch_says_tag_address_and_both_values_in_as_many_digits_as_there_are() {
    let text = |guard, bits, tag| {
        let (oracle, data, tuple) = all_wrong(guard, ProtectionType::One, bits);
        let protection = oracle.protection().with_checks(only(tag));
        format!("{}", protection.verify([&data[..]], [&tuple[..]]).unwrap_err())
    };
    assert_eq!(
        text(Guard::Crc16, 0, Tag::Guard),
        "guard tag of interval 4886718345 is 0x8f6c, the data says 0x8f6d"
    );
    assert_eq!(
        text(Guard::Crc64, 0, Tag::Guard),
        "guard tag of interval 4886718345 is 0x3e729f5f6750449d, the data says 0x3e729f5f6750449c"
    );
    assert_eq!(
        text(Guard::Crc16, 8, Tag::Application),
        "application tag of interval 4886718345 is 0x1235, expected 0x1234"
    );
    assert_eq!(
        text(Guard::Crc16, 8, Tag::Reference),
        "reference tag of interval 4886718345 is 0x456788, expected 0x456789"
    );
    assert_eq!(
        text(Guard::Crc64, 9, Tag::Storage),
        "storage tag of interval 4886718345 is 0x003, expected 0x001"
    );
}

#[test]
fn no_protection_is_made_with_tags_that_are_the_escape_or_do_not_fit() {
    let refused = |kind, application, reference, storage| {
        let profile = Oracle::new(Guard::Crc16, 512, kind).profile();
        let expected =
            Expected { storage, ..Expected::at(reference).with_application(application) };
        Protection::new(profile, expected, Checks::ALL).err()
    };
    use ProtectionType::{One, Three, Two};
    for kind in [One, Two] {
        let escape = Some(ProtectionError::Escape { with_reference: false });
        assert_eq!(refused(kind, 0xffff, 5, 0), escape);
        assert_eq!(refused(kind, 0xfffe, u64::MAX, 0), None);
    }
    let told = ProtectionError::Escape { with_reference: true };
    let escape = Some(told);
    assert_eq!(refused(Three, 0xffff, 0xffff_ffff, 0), escape);
    assert_eq!(refused(Three, 0xffff, 0x7_ffff_ffff, 0), escape, "the low bits count");
    assert_eq!(refused(Three, 0xffff, 0xffff_fffe, 0), None);
    let storage = Some(ProtectionError::Storage { storage: 1, bits: 0 });
    assert_eq!(refused(One, 0, 0, 1), storage);
    assert_eq!(
        format!("{}", told),
        "application tag 0xffff with a reference tag of all ones is the escape: \
         nothing written with it would ever be checked"
    );
}
