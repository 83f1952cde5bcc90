//! The application's stream over tags: any bytes, every type, never an escape.

use super::*;
use crate::{Coding, TagStream, TagStreamError, Tuple};

fn any_coding() -> impl Strategy<Value = Coding> {
    prop::sample::select(&[Coding::Plain, Coding::Safe][..])
}

#[test]
fn tags_hold_what_the_specification_says() {
    use ProtectionType::{One, Three, Two};
    for (guard, kind, bytes) in [
        (Guard::Crc16, One, 2),
        (Guard::Ip, Two, 2),
        (Guard::Crc64, Two, 2),
        (Guard::Crc16, Three, 6),
        (Guard::Crc64, Three, 8),
        // With the smallest storage tag, of 16 bits.
        (Guard::Crc32c, Three, 10),
    ] {
        let profile = Oracle::new(guard, 4096, kind).profile();
        assert_eq!(profile.application_bytes(), bytes);
        let stream = |coding| TagStream::new(profile, coding);
        assert_eq!(stream(Coding::Plain).capacity(8), 8 * bytes);
        // One bit of each tag less: eight tags have a byte less.
        assert_eq!(stream(Coding::Safe).capacity(8), 8 * bytes - 1);
        assert_eq!(stream(Coding::Safe).capacity(0), 0);
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is_changed_nor_escaped(
        oracle in any_oracle(),
        coding in any_coding(),
        intervals in 1_usize..9,
        bytes in prop::collection::vec(prop_oneof![Just(0xff), any::<u8>()], 0..90),
        cuts in any_cuts(),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = oracle.filled(intervals, seed);
        let stream = TagStream::new(oracle.profile(), coding);
        let capacity = stream.capacity(intervals);
        let mut written = metadata.clone();
        let outcome = stream.write(&bytes, intervals, cut_mut(&mut written, &cuts));
        match outcome {
            Err(TagStreamError::TooLong { .. }) => prop_assert!(bytes.len() > capacity),
            Err(TagStreamError::Escape { interval, .. }) => {
                prop_assert_eq!(coding, Coding::Plain);
                let unit = oracle.profile().application_bytes();
                let at = unit * usize::try_from(interval).unwrap();
                prop_assert_eq!(&bytes[at..at + unit], &vec![0xff; unit]);
            }
            Err(other) => panic!("{other}"),
            Ok(()) => {}
        }
        if outcome.is_err() {
            prop_assert_eq!(written, metadata, "nothing was written");
            return Ok(());
        }
        let mut back = vec![1; bytes.len()];
        stream.read(&written, &mut back).unwrap();
        prop_assert_eq!(&back, &bytes);
        let mut all = vec![1; capacity];
        stream.read(&written, &mut all).unwrap();
        prop_assert!(all.starts_with(&bytes) && all[bytes.len()..].iter().all(|byte| *byte == 0));

        // Guards, places and storage tags are as they were, and checked.
        let expected = Expected {
            reference: oracle.reference,
            storage: oracle.storage,
            storage_mask: u64::MAX,
            ..Expected::default()
        };
        let strict = Checks { escape: false, ..Checks::ALL };
        let protection = Protection::new(oracle.profile(), expected, strict).unwrap();
        prop_assert_eq!(protection.verify([&data[..]], [&written[..]]), Ok(()));
        let format = oracle.format();
        for (old, new) in metadata.chunks(oracle.metadata).zip(written.chunks(oracle.metadata)) {
            let tuple = oracle.tuple_at()..oracle.tuple_at() + oracle.tuple_bytes();
            prop_assert_eq!(&old[..tuple.start], &new[..tuple.start]);
            prop_assert_eq!(&old[tuple.end..], &new[tuple.end..]);
            let new = Tuple::decode(&format, &new[tuple]);
            prop_assert!(coding == Coding::Plain || new.application >> 15 == 0);
        }
    }
}

#[test]
fn bytes_that_spell_the_escape_are_refused_with_nothing_written() {
    for (kind, length) in
        [(ProtectionType::One, 2), (ProtectionType::Two, 2), (ProtectionType::Three, 6)]
    {
        let oracle = Oracle::new(Guard::Crc16, 512, kind);
        let (_, metadata) = oracle.filled(4, 1);
        let mut bytes = vec![0x5a; 4 * length];
        bytes[2 * length..3 * length].fill(0xff);
        let mut written = metadata.clone();
        let plain = TagStream::new(oracle.profile(), Coding::Plain);
        let refused = plain.write(&bytes, 4, [&mut written[..]]).unwrap_err();
        assert_eq!(refused, TagStreamError::Escape { interval: 2, offset: 2 * length });
        assert_eq!(written, metadata);

        // With one bit of each tag given up, and so with room for a byte less, any bytes go.
        bytes.pop();
        TagStream::new(oracle.profile(), Coding::Safe)
            .write(&bytes, 4, [&mut written[..]])
            .unwrap();
    }
}

#[test]
fn an_application_tag_of_all_ones_alone_is_no_escape_of_type_three() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::Three);
    let (data, mut metadata) = oracle.filled(1, 1);
    let stream = TagStream::new(oracle.profile(), Coding::Plain);
    let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    stream.write(&bytes, 1, [&mut metadata[..]]).unwrap();
    let mut back = [0; 6];
    stream.read(&metadata, &mut back).unwrap();
    assert_eq!(back, bytes);
    let strict = Checks { application: false, escape: false, ..Checks::ALL };
    let protection = oracle.protection().with_checks(strict);
    assert_eq!(protection.verify([&data[..]], [&metadata[..]]), Ok(()));
}

#[test]
fn a_safe_stream_of_all_ones_has_the_tags_of_the_picture() {
    // 15 bits of each: 0x7fff, again and again.
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let (_, mut metadata) = oracle.filled(3, 1);
    let stream = TagStream::new(oracle.profile(), Coding::Safe);
    stream.write(&[0xff; 5], 3, [&mut metadata[..]]).unwrap();
    let tags: Vec<_> = metadata.chunks(8).map(|tuple| [tuple[2], tuple[3]]).collect();
    // 40 of 45 bits are ones, the rest zeroes.
    assert_eq!(tags, [[0x7f, 0xff], [0x7f, 0xff], [0x7f, 0xe0]]);
}

#[test]
fn tags_that_nobody_wrote_as_a_stream_are_not_read_as_one() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let (_, mut metadata) = oracle.filled(4, 1);
    for coding in [Coding::Plain, Coding::Safe] {
        let stream = TagStream::new(oracle.profile(), coding);
        let mut unwritten = metadata.clone();
        stream.write(&[1, 2, 3, 4], 4, [&mut unwritten[..]]).unwrap();
        unwritten[16..24].fill(0xff);
        let mut bytes = [0; 6];
        let foreign = Err(TagStreamError::Foreign { interval: 2 });
        assert_eq!(stream.read(&unwritten, &mut bytes), foreign);
        let mut bytes = [0; 3];
        assert_eq!(
            stream.read(&unwritten, &mut bytes),
            Ok(()),
            "intervals behind are not looked at"
        );
        assert_eq!(bytes, [1, 2, 3]);
    }
    metadata[2] = 0x80;
    let safe = TagStream::new(oracle.profile(), Coding::Safe);
    assert_eq!(safe.read(&metadata, &mut [0]), Err(TagStreamError::Foreign { interval: 0 }));
}

#[test]
fn more_than_there_is_room_for_is_neither_written_nor_read() {
    let oracle = Oracle::new(Guard::Crc16, 512, ProtectionType::One);
    let (_, mut metadata) = oracle.filled(2, 1);
    let stream = TagStream::new(oracle.profile(), Coding::Plain);
    let refused = TagStreamError::TooLong { bytes: 5, intervals: 2, capacity: 4 };
    let before = metadata.clone();
    assert_eq!(stream.write(&[0; 5], 2, [&mut metadata[..]]), Err(refused));
    assert_eq!(metadata, before);
    assert_eq!(stream.read(&metadata, &mut [0; 5]), Err(refused));
}
