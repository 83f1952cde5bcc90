//! The vectors of the specification, a bit-serial oracle, and the ways of making a guard against each
//! other.

use super::*;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A CRC bit by bit, as its definition has it: nothing in common with the code that it judges.
pub(crate) fn bit_serial(guard: Guard, data: &[u8]) -> u64 {
    let (width, polynomial, start, reflected) = match guard {
        Guard::Crc16 => (16, 0x8bb7_u64, 0, false),
        Guard::Crc32c => (32, 0x1edc_6f41, 0xffff_ffff, true),
        Guard::Crc64 => (64, 0xad93_d235_94c9_3659, u64::MAX, true),
        Guard::Ip => return rfc1071(data),
    };
    let mask = u64::MAX >> (64 - width);
    let mut register: u64 = start;
    for byte in data {
        for bit in 0..8 {
            let bit = u64::from(if reflected { byte >> bit } else { byte >> (7 - bit) } & 1);
            let carry = register >> (width - 1) & 1;
            register = register << 1 & mask;
            if carry ^ bit == 1 {
                register ^= polynomial;
            }
        }
    }
    if reflected { !register.reverse_bits() >> (64 - width) & mask } else { register }
}

fn rfc1071(data: &[u8]) -> u64 {
    let mut sum: u64 = 0;
    for word in data.chunks(2) {
        sum += u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum & 0xffff
}

fn ascending(length: usize) -> Vec<u8> {
    (0..=255).cycle().take(length).collect()
}

fn descending(length: usize) -> Vec<u8> {
    (0..=255).rev().cycle().take(length).collect()
}

#[test]
fn the_vectors_of_the_specification() {
    // pi.md, section 3: CRC-16, IP, CRC-32C, CRC-64.
    let cases: &[(Vec<u8>, [u64; 4])] = &[
        (b"123456789".to_vec(), [0xd0db, 0xf62a, 0xe306_9283, 0xae8b_1486_0a79_9888]),
        (vec![0; 32], [0, 0xffff, 0x8a91_36aa, 0xcf34_7343_4d4e_cf3b]),
        (vec![0xff; 32], [0xa293, 0, 0x62a8_ab43, 0xa0a0_6974_c34d_63c4]),
        (ascending(32), [0x0224, 0x0eff, 0x46dd_794e, 0xb9d9_d4a8_492c_bd7f]),
        ((0..32).rev().collect(), [0xc39a, 0xff0e, 0x113f_db5c, 0x1711_5a71_2025_f5af]),
        (vec![0; 512], [0, 0xffff, 0x30fc_edc0, 0x1de6_0e28_68a7_82e9]),
        (vec![0xff; 512], [0xe6a1, 0, 0x5bd9_9297, 0x5277_682d_daeb_44b6]),
        (ascending(512), [0x4f10, 0x7f80, 0xae10_ee5a, 0x65f4_8632_094a_1b07]),
        (descending(512), [0xa9b1, 0x807f, 0xc535_910d, 0x2a65_e037_bb06_dd58]),
        (vec![0xa5; 512], [0x9ec6, 0x5a5a, 0x7be5_157d, 0x489c_3fdb_d283_f79a]),
        (vec![0; 4096], [0, 0xffff, 0x98f9_4189, 0x6482_d367_eb22_b64e]),
        (vec![0xff; 4096], [0x8b5d, 0, 0x25c1_fe13, 0xc0dd_ba73_02ec_a3ac]),
        (ascending(4096), [0x8f6d, 0xfc03, 0x9c71_fe32, 0x3e72_9f5f_6750_449c]),
        (descending(4096), [0x0430, 0x03fc, 0x2149_41a8, 0x9a2d_f64b_8e9e_517e]),
    ];
    for (data, expected) in cases {
        for (guard, expected) in Guard::ALL.into_iter().zip(expected) {
            assert_eq!(guard.of(data), *expected, "{guard} of {} bytes", data.len());
            assert_eq!(bit_serial(guard, data), *expected, "{guard}, bit by bit");
        }
    }
}

#[test]
fn the_checksum_of_ip_does_not_notice_words_that_change_places_and_the_crc_does() {
    let mut data = ascending(512);
    let (first, second) = data[..4].split_at_mut(2);
    first.swap_with_slice(second);
    assert_eq!((Guard::Crc16.of(&data), Guard::Ip.of(&data)), (0x2add, 0x7f80));
}

#[test]
fn where_two_bits_explain_a_difference_or_none_no_bit_is_named() {
    // The polynomial of CRC-16 has order 65535: the first bit of 8192 bytes and the last are as one.
    let zeroes = vec![0; 8192];
    let turned = |at: usize, mask: u8| {
        let mut data = zeroes.clone();
        data[at] ^= mask;
        bit_serial(Guard::Crc16, &data)
    };
    let (first, last, between) = (turned(0, 0x80), turned(8191, 1), turned(0, 0x40));
    assert_eq!(first, last);
    assert_eq!(Guard::Crc16.flipped_bit(first, 0, 8192), None);
    assert_eq!(Guard::Crc16.flipped_bit(between, 0, 8192), Some(6));
    assert_eq!(Guard::Crc16.flipped_bit(first ^ between, 0, 4), None);
    assert_eq!(Guard::Ip.flipped_bit(0xffff, 0xfffe, 512), None);
}

#[test]
fn names_lead_back_to_their_guard() {
    for guard in Guard::ALL {
        assert_eq!(Guard::from_name(guard.name()), Some(guard));
    }
    assert_eq!(Guard::from_name("crc"), None);
}

#[test]
fn a_seed_of_the_standard_changes_nothing() {
    for (guard, seed) in Guard::ALL.into_iter().zip([0, 0, 0xffff_ffff, u64::MAX]) {
        assert_eq!(Running::seeded(guard, seed), Running::new(guard));
    }
}

fn any_guard() -> impl Strategy<Value = Guard> {
    prop::sample::select(&Guard::ALL[..])
}

proptest! {
    #[test]
    fn any_bytes_have_the_guard_of_the_bit_serial_oracle(
        guard in any_guard(),
        data in prop::collection::vec(any::<u8>(), 0..1500),
        skipped in 0_usize..70,
    ) {
        let data = &data[skipped.min(data.len())..];
        prop_assert_eq!(guard.of(data), bit_serial(guard, data));
    }

    #[test]
    fn pieces_of_any_length_make_the_same_guard(
        guard in any_guard(),
        data in prop::collection::vec(any::<u8>(), 0..1500),
        cuts in prop::collection::vec(0_usize..200, 0..12),
    ) {
        let (mut running, mut rest) = (Running::new(guard), &data[..]);
        for cut in cuts {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            running.update(piece);
            rest = behind;
        }
        running.update(rest);
        prop_assert_eq!(running.value(), guard.of(&data));
    }

    #[test]
    fn many_at_once_are_the_same_as_one_by_one(
        guard in any_guard(),
        interval in prop::sample::select(vec![1_usize, 7, 8, 64, 512, 520, 1024, 4096]),
        intervals in 0_usize..40,
        gap in 0_usize..70,
        seed in any::<u64>(),
    ) {
        let data = noise(interval * intervals, seed);
        let each: Vec<u64> = data.chunks(interval).map(|bytes| bit_serial(guard, bytes)).collect();
        let mut seen = Vec::new();
        guard.each(&data, interval, |guards| seen.extend_from_slice(guards));
        prop_assert_eq!(&seen, &each);

        let stride = interval + gap;
        let mut spaced = Vec::new();
        for bytes in data.chunks(interval) {
            spaced.extend_from_slice(bytes);
            spaced.resize(spaced.len() + gap, 0xdd);
        }
        let (mut rest, mut read) = (&spaced[..], Vec::new());
        guard.each_spaced(&spaced, interval, stride, |blocks, guards| {
            let (now, behind) = rest.split_at(guards.len() * stride);
            assert_eq!(blocks, now);
            rest = behind;
            read.extend_from_slice(guards);
        });
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&read, &each);
        let (mut gathered, mut found) = (vec![0xee; data.len() + 3], Vec::new());
        let mut rest = &spaced[..];
        guard.each_gathered(&spaced, interval, stride, &mut gathered, |blocks, guards| {
            let (now, behind) = rest.split_at(guards.len() * stride);
            assert_eq!(blocks, now);
            rest = behind;
            found.extend_from_slice(guards);
        });
        prop_assert!(rest.is_empty());
        prop_assert_eq!(&found, &each);
        prop_assert!(gathered[..data.len()] == data[..] && gathered[data.len()..] == [0xee; 3]);
        let mut made = Vec::new();
        guard.each_spaced_mut(&mut spaced, interval, stride, |blocks, guards| {
            assert_eq!(blocks.len(), guards.len() * stride);
            blocks.chunks_exact_mut(stride).for_each(|block| block[interval..].fill(0xcc));
            made.extend_from_slice(guards);
        });
        prop_assert_eq!(&made, &each);
        prop_assert!(spaced.chunks(stride).all(|block| block[interval..].iter().all(|byte| *byte == 0xcc)));

        let mut target = vec![0xee; stride * intervals + 3];
        let mut copied = Vec::new();
        guard.each_copied(&data, interval, &mut target, stride, |blocks, guards| {
            assert_eq!(blocks.len(), guards.len() * stride);
            copied.extend_from_slice(guards);
        });
        prop_assert_eq!(copied, each);
        for (place, bytes) in target.chunks(stride).zip(data.chunks(interval)) {
            prop_assert_eq!(&place[..interval], bytes);
            prop_assert!(place[interval..].iter().all(|byte| *byte == 0xee));
        }
        prop_assert_eq!(&target[stride * intervals..], &[0xee; 3]);
    }

    #[test]
    fn a_single_bit_that_was_turned_is_named(
        guard in prop::sample::select(&[Guard::Crc16, Guard::Crc32c, Guard::Crc64][..]),
        length in prop_oneof![1_usize..600, 600_usize..=4096],
        at in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let mut data = noise(length, seed);
        let stored = bit_serial(guard, &data);
        let bit = at.index(8 * length);
        data[bit / 8] ^= 1 << (bit % 8);
        let computed = bit_serial(guard, &data);
        prop_assert_eq!(guard.flipped_bit(stored, computed, length), Some(bit));
        prop_assert_eq!(guard.flipped_bit(stored, stored, length), None);
    }

    #[test]
    fn a_bit_that_is_named_explains_the_difference(
        guard in any_guard(),
        length in 1_usize..600,
        stored: u64,
        seed in any::<u64>(),
    ) {
        let mut data = noise(length, seed);
        let stored = stored >> (64 - 8 * guard.bytes());
        if let Some(bit) = guard.flipped_bit(stored, bit_serial(guard, &data), length) {
            data[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(bit_serial(guard, &data), stored);
        }
    }

    #[test]
    fn a_part_that_changes_changes_the_guard_as_the_whole_does(
        guard in any_guard(),
        half in 1_usize..300,
        from in 0_usize..600,
        length in 0_usize..600,
        seed in any::<u64>(),
    ) {
        let mut data = noise(2 * half, seed);
        let before = guard.of(&data);
        let from = from.min(data.len());
        let to = (from + length).min(data.len());
        let (old, new) = (data[from..to].to_vec(), noise(to - from, !seed));
        data[from..to].copy_from_slice(&new);
        if let Some(after) = guard.updated(before, &old, &new, data.len() - to) {
            prop_assert_eq!(after, guard.of(&data));
        } else {
            let is_zero = [before, rfc1071(&data)].iter().any(|sum| sum % 0xffff == 0);
            prop_assert!(guard == Guard::Ip && is_zero);
        }
    }
}

/// Bytes that look random and are not.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (*state >> 56).to_be_bytes()[7]
    };
    (0..length).map(|_| next(&mut state)).collect()
}
