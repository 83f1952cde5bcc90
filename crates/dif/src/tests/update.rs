//! A guard when a part of its interval changes.

use super::*;

proptest! {
    #[test]
    fn a_part_that_changes_makes_the_tuple_that_the_whole_makes(
        oracle in any_oracle(),
        (from, to) in any::<(prop::sample::Index, prop::sample::Index)>(),
        seed in any::<u64>(),
    ) {
        let (mut data, mut metadata) = oracle.filled(1, seed);
        let covered = oracle.interval + oracle.tuple_at();
        let (from, to) = (from.index(covered + 1), to.index(covered + 1));
        let (from, to) = (from.min(to), from.max(to));
        let old = [&data[..], &metadata[..oracle.tuple_at()]].concat()[from..to].to_vec();
        let new = noise(to - from, !seed);
        let tuple_at = oracle.tuple_at();
        let tuple = &mut metadata[tuple_at..][..oracle.tuple_bytes()];
        let before = tuple.to_vec();
        let is_done = oracle.profile().update(tuple, from, &old, &new);
        let made = tuple.to_vec();

        for (at, byte) in (from..).zip(new) {
            if at < data.len() {
                data[at] = byte;
            } else {
                metadata[at - oracle.interval] = byte;
            }
        }
        oracle.sign(&data, &mut metadata);
        if is_done {
            prop_assert_eq!(&made, &metadata[tuple_at..][..oracle.tuple_bytes()]);
        } else {
            // Only where the checksum of IP cannot know.
            prop_assert_eq!((&made, oracle.guard), (&before, Guard::Ip));
            let is_zero = |tuple: &[u8]| tuple.starts_with(&[0; 2]) || tuple.starts_with(&[0xff; 2]);
            prop_assert!(is_zero(&before) || is_zero(&metadata[tuple_at..]));
        }
    }

    #[test]
    fn a_guard_that_was_wrong_stays_wrong(
        oracle in any_oracle(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
        seed in any::<u64>(),
    ) {
        let (mut data, mut metadata) = oracle.filled(1, seed);
        // Rotten outside of what changes.
        let at = 64 + at.index(oracle.interval - 64);
        data[at] ^= flip;
        let new = noise(64, !seed);
        let tuple = &mut metadata[oracle.tuple_at()..][..oracle.tuple_bytes()];
        if oracle.profile().update(tuple, 0, &data[..64], &new) {
            data[..64].copy_from_slice(&new);
            let told = oracle.protection().verify([&data[..]], [&metadata[..]]).unwrap_err();
            prop_assert_eq!(told.tag, Tag::Guard);
        }
    }
}

#[test]
fn the_checksum_of_ip_over_an_odd_end_counts_a_zero_behind_it() {
    // 9 bytes of metadata, the tuple last: 513 bytes are covered.
    let oracle = Oracle { metadata: 9, ..Oracle::new(Guard::Ip, 512, ProtectionType::One) };
    let (mut data, mut metadata) = oracle.filled(1, 1);
    for at in [0, 1, 510, 511, 512] {
        let place = if at < 512 { &mut data[at] } else { &mut metadata[0] };
        let (old, new) = ([*place], [place.wrapping_add(0x31)]);
        *place = new[0];
        assert!(oracle.profile().update(&mut metadata[1..], at, &old, &new));
        assert_eq!(oracle.protection().verify([&data[..]], [&metadata[..]]), Ok(()), "byte {at}");
    }
}

#[test]
fn a_tuple_that_was_lost_over_zeroes_does_not_become_right() {
    // Zeroes have the checksum FFFF; 0000 says the same of any other data, and is wrong of these.
    let oracle = Oracle::new(Guard::Ip, 512, ProtectionType::One);
    let mut tuple = [0; 8];
    assert!(!oracle.profile().update(&mut tuple, 0, &[0, 0], &[1, 2]));
    assert_eq!(tuple, [0; 8]);
}

#[test]
fn an_escape_stays_one() {
    for kind in ProtectionType::ALL {
        let oracle = Oracle::new(Guard::Crc16, 512, kind);
        let mut tuple = oracle.tuple(0xbad, 0xffff, 0, 0xffff_ffff);
        let before = tuple.clone();
        assert!(oracle.profile().update(&mut tuple, 0, &[1], &[2]));
        assert_eq!(tuple, before);
    }
}

#[test]
#[should_panic = "the guard covers what changes"]
fn bytes_behind_what_the_guard_covers_do_not_change_it() {
    let oracle =
        Oracle { metadata: 16, first: true, ..Oracle::new(Guard::Crc16, 512, ProtectionType::One) };
    let _ = oracle.profile().update(&mut [0; 8], 512, &[1], &[2]);
}
