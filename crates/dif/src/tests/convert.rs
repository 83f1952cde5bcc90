//! One guard for another: every pair, nothing laundered.

use super::*;
use crate::ConvertError;

/// Two profiles of the same intervals that tuples may go between, and back if nothing is cut.
fn any_pair() -> impl Strategy<Value = (Oracle, Oracle)> {
    let guard = prop::sample::select(&Guard::ALL[..]);
    (any_oracle(), guard, 0_u8..49).prop_filter_map(
        "profiles go together",
        |(from, guard, more)| {
            let mut to = Oracle { guard, interval: from.interval, ..from };
            to.metadata = from.metadata - from.tuple_bytes() + to.tuple_bytes();
            let (fewest, most) = match guard {
                Guard::Crc16 | Guard::Ip => (0, 32),
                Guard::Crc32c => (16, 64),
                Guard::Crc64 => (0, 48),
            };
            to.storage_bits = (from.storage_bits + more % 9).max(fewest);
            let fits = to.storage_bits <= most
                && (from.kind != ProtectionType::Three
                    || from.reference_bits() <= to.reference_bits());
            fits.then_some((from, to))
        },
    )
}

/// What the new side's tuples ought to be: of type 3 the reference tag is what the old one held.
fn target(from: &Oracle, to: &Oracle) -> Oracle {
    let mask = ones(from.reference_bits());
    let is_third = from.kind == ProtectionType::Three;
    Oracle { reference: if is_third { from.reference & mask } else { from.reference }, ..*to }
}

proptest! {
    #[test]
    fn what_is_converted_is_what_the_oracle_signs(
        (from, to) in any_pair(),
        intervals in 0_usize..4,
        (data_cuts, old_cuts, new_cuts) in (any_cuts(), any_cuts(), any_cuts()),
        seed in any::<u64>(),
    ) {
        let (data, metadata) = from.filled(intervals, seed);
        let conversion = from.protection().converted_to(to.profile()).unwrap();
        let mut converted = noise(intervals * to.metadata, !seed);
        conversion.run(
            cut(&data, &data_cuts),
            cut(&metadata, &old_cuts),
            cut_mut(&mut converted, &new_cuts),
            |found| panic!("{found}"),
        );
        // The owner's bytes come from the old metadata.
        let mut expected = Vec::new();
        for (data, old) in data.chunks(from.interval).zip(metadata.chunks(from.metadata)) {
            let owner = [&old[..from.tuple_at()], &old[from.tuple_at() + from.tuple_bytes()..]].concat();
            let (before, behind) = owner.split_at(to.tuple_at());
            let mut new = [before, &vec![0; to.tuple_bytes()], behind].concat();
            let index = u64::try_from(expected.len() / to.metadata).unwrap();
            let target = target(&from, &to);
            let is_third = from.kind == ProtectionType::Three;
            let reference = target.reference.wrapping_add(if is_third { 0 } else { index });
            Oracle { reference, ..target }.sign(data, &mut new);
            expected.extend(new);
        }
        prop_assert_eq!(&converted, &expected);

        // And back, where nothing was cut.
        if let Ok(back) = target(&from, &to).protection().converted_to(from.profile()) {
            let mut again = vec![0; metadata.len()];
            back.run([&data[..]], [&converted[..]], [&mut again[..]], |found| panic!("{found}"));
            prop_assert_eq!(again, metadata);
        }
    }

    #[test]
    fn what_was_wrong_is_told_and_stays_wrong(
        (from, to) in any_pair(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
        in_metadata in any::<bool>(),
        seed in any::<u64>(),
    ) {
        const INTERVALS: usize = 3;
        let (mut data, mut metadata) = from.filled(INTERVALS, seed);
        let bytes = if in_metadata { &mut metadata } else { &mut data };
        let at = at.index(bytes.len());
        bytes[at] ^= flip;

        let before: Vec<_> = found(&from.protection(), &data, &metadata).iter().map(said).collect();
        let conversion = from.protection().converted_to(to.profile()).unwrap();
        let (mut converted, mut told) = (vec![0; INTERVALS * to.metadata], Vec::new());
        conversion.run([&data[..]], [&metadata[..]], [&mut converted[..]], |found| {
            told.push(said(&found));
        });
        prop_assert_eq!(&told, &before);
        let after = found(&target(&from, &to).protection(), &data, &converted);
        let intervals = |found: &[(Tag, u64, u64, u64, u64)]| -> Vec<u64> {
            found.iter().map(|found| found.1).collect()
        };
        let after: Vec<_> = after.iter().map(said).collect();
        prop_assert_eq!(intervals(&after), intervals(&before));
        // Whoever checks nothing but the guard finds it as well.
        let guard_only = Checks { guard: true, ..Checks::NONE };
        let alone = target(&from, &to).protection().with_checks(guard_only);
        let alone: Vec<_> = found(&alone, &data, &converted).iter().map(said).collect();
        prop_assert_eq!(intervals(&alone), intervals(&before));
    }

    #[test]
    fn escapes_stay_escapes_whatever_the_data_is(
        (from, to) in any_pair(),
        garbage in prop::array::uniform16(any::<u8>()),
        seed in any::<u64>(),
    ) {
        let (data, mut metadata) = from.filled(2, seed);
        let mut tuple = garbage[..from.tuple_bytes()].to_vec();
        let application = from.guard.bytes();
        let end = if from.kind == ProtectionType::Three { tuple.len() } else { application + 2 };
        tuple[application..end].fill(0xff);
        metadata[from.tuple_at()..][..tuple.len()].copy_from_slice(&tuple);

        let conversion = from.protection().converted_to(to.profile()).unwrap();
        let mut converted = vec![0; 2 * to.metadata];
        conversion.run([&data[..]], [&metadata[..]], [&mut converted[..]], |found| panic!("{found}"));
        let format = to.format();
        let made = crate::Tuple::decode(&format, &converted[to.tuple_at()..][..to.tuple_bytes()]);
        prop_assert!(made.is_escaped(&format, to.kind));
        if to.format().with_guard(from.guard) == Some(from.format()) {
            prop_assert_eq!(converted[to.tuple_at()..][..to.tuple_bytes()].to_vec(), tuple);
        }
        let strict = Checks { escape: false, ..Checks::ALL };
        let told = found(&target(&from, &to).protection().with_checks(strict), &data, &converted);
        prop_assert_eq!((told.len(), told[0].tag, told[0].interval), (1, Tag::Application, 0));

        // Who does not honour it is told, and what is made is the same.
        let (mut again, mut told) = (vec![0; converted.len()], Vec::new());
        let conversion = from.protection().with_checks(strict).converted_to(to.profile()).unwrap();
        conversion.run([&data[..]], [&metadata[..]], [&mut again[..]], |found| told.push(found.tag));
        prop_assert_eq!((told, again), (vec![Tag::Application], converted));
    }
}

#[test]
fn a_guard_is_verified_also_by_whoever_asked_for_nothing() {
    let oracle = Oracle::new(Guard::Ip, 512, ProtectionType::One);
    let (mut data, metadata) = oracle.filled(2, 1);
    data[600] ^= 1;
    let conversion =
        oracle.protection().with_checks(Checks::NONE).with_other_guard(Guard::Crc16).unwrap();
    let (mut converted, mut told) = (vec![0; 16], Vec::new());
    conversion.run([&data[..]], [&metadata[..]], [&mut converted[..]], |found| told.push(found));
    assert_eq!((told.len(), told[0].tag, told[0].interval), (1, Tag::Guard, 1));
    let crc = Protection::at(Oracle { guard: Guard::Crc16, ..oracle }.profile(), 0);
    assert_eq!(found(&crc, &data, &converted).len(), 1);
}

#[test]
fn an_address_that_loses_or_gains_bits_is_verified_also_by_whoever_asked_for_nothing() {
    let narrow = Oracle::new(Guard::Crc16, 4096, ProtectionType::One);
    let wide = Oracle::new(Guard::Crc64, 4096, ProtectionType::One);
    for (from, to) in [(narrow, wide), (wide, narrow)] {
        // Elsewhere by 2^32 blocks: only the wide one can tell.
        let [here, there] = [5, (1 << 32) + 5].map(|reference| Oracle { reference, ..from });
        let (data, metadata) = there.filled(1, 1);
        let conversion =
            here.protection().with_checks(Checks::NONE).converted_to(to.profile()).unwrap();
        let (mut converted, mut told) = (vec![0; to.metadata], Vec::new());
        conversion.run([&data[..]], [&metadata[..]], [&mut converted[..]], |found| {
            told.push(found.tag);
        });
        let is_wide = from.guard == Guard::Crc64;
        assert_eq!(told, if is_wide { vec![Tag::Reference] } else { vec![] });
        let here = Oracle { reference: 5, ..to };
        assert_eq!(found(&here.protection(), &data, &converted).is_empty(), !is_wide);
    }
    // Of equal width nothing is lost, and nothing that was not asked for is looked at.
    let ip = Oracle { guard: Guard::Ip, ..narrow };
    let (data, metadata) = Oracle { reference: 9, ..narrow }.filled(1, 1);
    let conversion = narrow.protection().with_checks(Checks::NONE).converted_to(ip.profile());
    let mut converted = vec![0; 8];
    conversion.unwrap().run([&data[..]], [&metadata[..]], [&mut converted[..]], |found| {
        panic!("{found}");
    });
    assert_eq!(found(&ip.protection(), &data, &converted)[0].tag, Tag::Reference);
}

#[test]
fn pairs_that_would_lose_or_guess_something_are_refused() {
    use ProtectionType::{One, Three, Two};
    let crc16 = Oracle::new(Guard::Crc16, 4096, One);
    let (crc32c, crc64) =
        (Oracle::new(Guard::Crc32c, 4096, One), Oracle::new(Guard::Crc64, 4096, One));
    let refused = |from: Oracle, to: Oracle| {
        from.protection().converted_to(to.profile()).map(|_| ()).unwrap_err()
    };
    let interval = ConvertError::Interval { from: 4096, to: 512 };
    assert_eq!(refused(crc16, Oracle { interval: 512, ..crc16 }), interval);
    let owner = ConvertError::Owner { from: 0, to: 8 };
    assert_eq!(refused(crc16, Oracle { metadata: 16, ..crc16 }), owner);
    let larger = Oracle { metadata: 64, ..crc16 };
    let owner = ConvertError::Owner { from: 56, to: 56 };
    assert_eq!(refused(larger, Oracle { first: true, ..larger }), owner);
    let kind = ConvertError::Kind { from: 1, to: 2 };
    assert_eq!(refused(crc16, Oracle { kind: Two, ..crc16 }), kind);
    let storage = ConvertError::Storage { from: 16, to: 0 };
    assert_eq!(refused(crc32c, crc64), storage);
    let [crc64, crc16] = [crc64, crc16].map(|oracle| Oracle { kind: Three, ..oracle });
    let reference = ConvertError::Reference { from: 48, to: 32 };
    assert_eq!(refused(crc64, crc16), reference);
    assert!(crc16.protection().converted_to(crc64.profile()).is_ok());
    assert!(crc16.protection().with_other_guard(Guard::Crc64).is_none());
}

#[test]
#[should_panic = "there is metadata for each interval"]
fn more_metadata_than_data_is_not_converted() {
    let oracle = Oracle::new(Guard::Ip, 512, ProtectionType::One);
    let conversion = oracle.protection().with_other_guard(Guard::Crc16).unwrap();
    let (data, metadata) = oracle.filled(2, 1);
    conversion.run([&data[..512]], [&metadata[..]], [&mut [0; 16][..]], |_| ());
}
