//! The worked examples of the specification, byte for byte.

use super::*;
use crate::{Tuple, dix};
use std::format;
use std::string::String;

/// Bytes from hexadecimal digits, as the specification prints them.
fn hex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    assert!(digits.len().is_multiple_of(2));
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn with(guard: Guard, interval: usize, kind: ProtectionType) -> Oracle {
    Oracle { application: 0x1234, ..Oracle::new(guard, interval, kind) }
}

#[test]
fn worked_examples_of_section_2_7() {
    use ProtectionType::{One, Two};
    let inc = ascending;
    let mixed = [vec![0; 512], vec![0xff; 512], inc(512)].concat();
    let crc64 = with(Guard::Crc64, 4096, One);
    let cases = [
        (
            Oracle { reference: 0x1_2345_6789, ..Oracle::new(Guard::Crc16, 512, One) },
            inc(512),
            "4F10 0000 23456789",
        ),
        (
            Oracle { reference: 0xffff_fffe, ..with(Guard::Crc16, 512, Two) },
            mixed,
            "0000 1234 FFFFFFFE E6A1 1234 FFFFFFFF 4F10 1234 00000000",
        ),
        (
            Oracle { reference: 0x1234_5678_9abc, ..crc64 },
            inc(4096),
            "3E729F5F6750449C 1234 123456789ABC",
        ),
        (
            Oracle { storage_bits: 16, storage: 0xcafe, reference: 0x1122_3344, ..crc64 },
            inc(4096),
            "3E729F5F6750449C 1234 CAFE 11223344",
        ),
        (
            Oracle {
                storage: 0xcafe,
                reference: 0x1122_3344_5566_7788,
                ..with(Guard::Crc32c, 4096, One)
            },
            inc(4096),
            "9C71FE32 1234 CAFE 1122334455667788",
        ),
        (
            Oracle {
                storage_bits: 8,
                storage: 0xab,
                reference: 0x12_3456,
                ..with(Guard::Crc16, 512, One)
            },
            inc(512),
            "4F10 1234 AB123456",
        ),
        (
            Oracle { reference: 0x8000, ..Oracle::new(Guard::Crc16, 512, Two) },
            inc(4096),
            "4F10 0000 00008000 4F10 0000 00008001 4F10 0000 00008002 4F10 0000 00008003
             4F10 0000 00008004 4F10 0000 00008005 4F10 0000 00008006 4F10 0000 00008007",
        ),
    ];
    for (example, data, tuples) in cases {
        let expected = hex(tuples);
        let mut made = vec![0; expected.len()];
        example.protection().generate([&data[..]], [&mut made[..]]);
        assert_eq!(made, expected, "{example:?}");
        assert_eq!(example.protection().verify([&data[..]], [&made[..]]), Ok(()));
    }
}

#[test]
fn a_tuple_that_is_last_has_a_guard_of_the_data_and_then_of_the_metadata_before_it() {
    let cases = [
        (Guard::Crc16, 56, 0x645a_u64, 0x8f6d),
        (Guard::Crc32c, 48, 0xe0b3_8f7c, 0x9c71_fe32),
        (Guard::Crc64, 48, 0x520e_98e8_8a44_7d27, 0x3e72_9f5f_6750_449c),
    ];
    for (guard, prefix, covered, alone) in cases {
        for (first, expected) in [(false, covered), (true, alone)] {
            let oracle =
                Oracle { metadata: 64, first, ..Oracle::new(guard, 4096, ProtectionType::One) };
            let (data, mut metadata) = (ascending(4096), vec![0x11; 64]);
            oracle.protection().generate([&data[..]], [&mut metadata[..]]);
            let (at, owner) = if first { (0, 64 - prefix..64) } else { (prefix, 0..prefix) };
            assert_eq!(metadata[owner], vec![0x11; prefix]);
            let tuple = Tuple::decode(&oracle.format(), &metadata[at..][..64 - prefix]);
            assert_eq!(tuple.guard, expected, "{guard}, first: {first}");
        }
    }
}

#[test]
fn eight_intervals_of_a_block_lie_each_before_its_tuple() {
    // P_I_EXPONENT 3 (section 2.6): 512, 8, 512, 8, ...
    let oracle =
        Oracle { reference: 0x8000, ..Oracle::new(Guard::Crc16, 512, ProtectionType::Two) };
    let data = ascending(4096);
    let mut block = vec![0; 4096 + 8 * 8];
    oracle.protection().insert([&data[..]], [&mut block[..]]);
    for (index, interval) in block.chunks(520).enumerate() {
        assert_eq!(interval[..512], data[..512]);
        assert_eq!(interval[512..], hex(&format!("4F10 0000 0000800{index}")));
    }
}

#[test]
fn worked_examples_of_section_4() {
    // Type 2, initial 0000FFF0, four blocks.
    let oracle =
        Oracle { reference: 0xfff0, ..Oracle::new(Guard::Crc16, 512, ProtectionType::Two) };
    let (data, mut tuples) = (vec![0; 2048], vec![0; 32]);
    oracle.protection().generate([&data[..]], [&mut tuples[..]]);
    assert_eq!(
        tuples,
        hex("0000 0000 0000FFF0 0000 0000 0000FFF1 0000 0000 0000FFF2 0000 0000 0000FFF3")
    );

    // An application tag of FFFF with any guard passes types 1 and 2; type 3 only if the reference tag is
    // all ones as well.
    let data = ascending(512);
    for (kind, tuple, passes) in [
        (ProtectionType::One, "BAD0 FFFF 00000000", true),
        (ProtectionType::Two, "BAD0 FFFF 00000000", true),
        (ProtectionType::Three, "BAD0 FFFF 00000000", false),
        (ProtectionType::Three, "BAD0 FFFF FFFFFFFF", true),
        (ProtectionType::Three, "BAD0 FFFE FFFFFFFF", false),
        (ProtectionType::One, "BAD0 0000 FFFFFFFF", false),
    ] {
        let protection = Protection::at(Oracle::new(Guard::Crc16, 512, kind).profile(), 5);
        let verdict = protection.verify([&data[..]], [&hex(tuple)[..]]);
        assert_eq!(verdict.is_ok(), passes, "{kind:?} {tuple}");
    }
}

#[test]
fn the_worked_example_of_section_5_converts_both_ways() {
    let tuples =
        [(Guard::Ip, hex("7F80 BEEF 00001000")), (Guard::Crc16, hex("4F10 BEEF 00001000"))];
    let data = ascending(512);
    let [ip, crc] = [0, 1].map(|at: usize| {
        let (guard, tuple) = &tuples[at];
        let profile = Oracle::new(*guard, 512, ProtectionType::One).profile();
        let expected = Expected::at(0x1000).with_application(0xbeef);
        (Protection::new(profile, expected, Checks::ALL).unwrap(), tuple)
    });
    for ((from, old), (to, new)) in [(ip, crc), (crc, ip)] {
        let conversion = from.with_other_guard(to.format().guard()).unwrap();
        let mut made = [0; 8];
        conversion.run([&data[..]], [&old[..]], [&mut made[..]], |found| panic!("{found}"));
        assert_eq!(made[..], new[..]);
    }

    // The same through an adapter.
    let exchange = dix::Exchange { host: Some(ip.0), wire: Some(crc.0), verify: true };
    let mut wire = [0; 520];
    let buffers = dix::Buffers::Write { data: &data, metadata: ip.1, wire: &mut wire };
    assert_eq!(exchange.run(buffers).unwrap(), dix::Operation::WritePass);
    assert_eq!(wire[512..], crc.1[..]);
}

#[test]
fn the_worked_example_of_section_6_is_remapped_and_what_was_wrong_stays_wrong() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let (data, mut tuples) = oracle.filled(3, 6);
    let mut corrupt = tuples.clone();
    let remapped = oracle.profile().remap([&mut tuples[..]], 0, 0x10_0000);
    assert_eq!((remapped.changed, remapped.left), (3, 0));
    let references: Vec<&[u8]> = tuples.chunks(8).map(|tuple| &tuple[4..]).collect();
    assert_eq!(references, [hex("00100000"), hex("00100001"), hex("00100002")]);
    assert_eq!(oracle.profile().remap([&mut tuples[..]], 0x10_0000, 0).changed, 3);
    assert_eq!(tuples, corrupt);

    corrupt[15] = 7;
    let remapped = oracle.profile().remap([&mut corrupt[..]], 0, 0x10_0000);
    assert_eq!((remapped.changed, remapped.left, corrupt[15]), (2, 1, 7));
    let target = Protection::at(oracle.profile(), 0x10_0000);
    let found: Vec<_> = found(&target, &data, &corrupt).iter().map(said).collect();
    assert_eq!(found, [(Tag::Reference, 1, 0x10_0001, 7, 0x10_0001)]);
}

#[test]
fn the_worked_example_of_section_7_lies_over_eight_tags() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let (_, mut tuples) = oracle.filled(8, 7);
    let stream = crate::TagStream::new(oracle.profile(), crate::Coding::Plain);
    let value = hex("00112233445566778899AABBCCDDEEFF");
    stream.write(&value, 8, [&mut tuples[..]]).unwrap();
    let tags: Vec<u8> = tuples.chunks(8).flat_map(|tuple| &tuple[2..4]).copied().collect();
    assert_eq!(tags, value);
}

#[test]
fn zeroes_with_a_tuple_of_zeroes_pass_the_guard_and_are_told_by_the_reference() {
    // The note of section 3: a lost write of metadata over zeroes.
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let protection = Protection::at(oracle.profile(), 0);
    let found = found(&protection, &[0; 1024], &[0; 16]);
    assert_eq!(found.iter().map(said).collect::<Vec<_>>(), [(Tag::Reference, 1, 1, 0, 1)]);
}

#[test]
fn formats_that_there_are_not_are_refused_and_told() {
    let new = |guard, interval| Format::new(guard, interval).map(|_| ()).unwrap_err();
    let text = |error: crate::FormatError| format!("{error}");
    assert_eq!(
        text(new(Guard::Crc16, 0)),
        "an interval of 0 bytes; it is a multiple of 512, at most 16777216"
    );
    for (guard, interval) in [(Guard::Ip, 520), (Guard::Crc32c, 4104), (Guard::Crc16, 1 << 25)] {
        new(guard, interval);
    }
    let format = Format::new(Guard::Crc16, 512).unwrap();
    assert_eq!(
        text(format.with_metadata(7, Place::First).unwrap_err()),
        "7 bytes of metadata for each interval; a tuple with a crc16 guard has 8, and at most 65535 fit"
    );
    format.with_metadata(65536, Place::First).unwrap_err();
    format.with_metadata(65535, Place::First).unwrap();
    assert_eq!(
        text(format.with_storage_bits(33).unwrap_err()),
        "a storage tag of 33 bits; with a crc16 guard it has 0 to 32"
    );
    for (guard, fewest, most) in [(Guard::Crc32c, 16, 64), (Guard::Crc64, 0, 48)] {
        let format = Format::new(guard, 4096).unwrap();
        assert_eq!(format.storage_bits(), fewest);
        assert_eq!(format.with_storage_bits(most).unwrap().storage_bits(), most);
        format.with_storage_bits(most + 1).unwrap_err();
        if let Some(fewer) = fewest.checked_sub(1) {
            format.with_storage_bits(fewer).unwrap_err();
        }
    }
}

#[test]
fn a_tuple_alone_in_its_metadata_is_one_format_whichever_end_it_is_said_to_be_at() {
    let format = Format::new(Guard::Crc16, 512).unwrap();
    let [first, last] = [Place::First, Place::Last].map(|place| format.with_metadata(8, place));
    assert_eq!(first, last);
    let [first, last] = [Place::First, Place::Last].map(|place| format.with_metadata(9, place));
    assert_ne!(first, last);
}

#[test]
fn profiles_have_the_names_that_linux_shows() {
    use Guard::{Crc16, Crc32c, Crc64, Ip};
    use ProtectionType::{One, Three, Two};
    let name = |oracle: Oracle| oracle.profile().linux_name();
    for (guard, kind, expected) in [
        (Crc16, One, Some("T10-DIF-TYPE1-CRC")),
        (Crc16, Two, Some("T10-DIF-TYPE1-CRC")),
        (Crc16, Three, Some("T10-DIF-TYPE3-CRC")),
        (Ip, One, Some("T10-DIF-TYPE1-IP")),
        (Ip, Two, Some("T10-DIF-TYPE1-IP")),
        (Ip, Three, Some("T10-DIF-TYPE3-IP")),
        (Crc64, One, Some("EXT-DIF-TYPE1-CRC64")),
        (Crc64, Two, Some("EXT-DIF-TYPE1-CRC64")),
        (Crc64, Three, Some("EXT-DIF-TYPE3-CRC64")),
        (Crc32c, One, None),
    ] {
        assert_eq!(name(Oracle::new(guard, 4096, kind)), expected);
    }
    assert_eq!(name(Oracle { storage_bits: 8, ..Oracle::new(Crc16, 512, One) }), None);
}

#[test]
fn a_profile_says_what_is_unusual_of_it() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    assert_eq!(format!("{}", oracle.profile()), "type 1, crc16, 512 + 8 bytes");
    let oracle = Oracle {
        metadata: 64,
        first: true,
        storage_bits: 9,
        ..Oracle::new(Guard::Crc64, 4096, ProtectionType::Three)
    };
    assert_eq!(
        format!("{}", oracle.profile()),
        "type 3, crc64, 4096 + 64 bytes, tuple first, storage tag of 9 bits"
    );
}

proptest! {
    #[test]
    fn tuples_have_the_bytes_of_the_oracle_and_come_back(
        oracle in any_oracle(),
        guard in any::<u64>(),
        application in any::<u16>(),
    ) {
        let format = oracle.format();
        let guard = guard & ones(u8::try_from(8 * oracle.guard.bytes()).unwrap());
        let reference = oracle.reference & ones(oracle.reference_bits());
        let tuple = Tuple { guard, application, storage: oracle.storage, reference };
        let mut bytes = vec![0; oracle.tuple_bytes()];
        tuple.encode(&format, &mut bytes);
        prop_assert_eq!(&bytes, &oracle.tuple(guard, application, oracle.storage, reference));
        prop_assert_eq!(Tuple::decode(&format, &bytes), tuple);
    }

    #[test]
    fn any_bytes_are_a_tuple_that_has_the_same_bytes(
        oracle in any_oracle(),
        bytes in prop::array::uniform16(any::<u8>()),
    ) {
        let bytes = &bytes[..oracle.tuple_bytes()];
        let mut again = vec![0; bytes.len()];
        Tuple::decode(&oracle.format(), bytes).encode(&oracle.format(), &mut again);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn an_unwritten_tuple_is_all_ones_and_passes_every_check(oracle in any_oracle()) {
        let mut bytes = vec![0; oracle.tuple_bytes()];
        Tuple::unwritten(&oracle.format()).encode(&oracle.format(), &mut bytes);
        prop_assert!(bytes.iter().all(|byte| *byte == 0xff));
        let metadata = vec![0xff; oracle.metadata];
        let data = noise(oracle.interval, 1);
        prop_assert_eq!(oracle.protection().verify([&data[..]], [&metadata[..]]), Ok(()));
    }
}
