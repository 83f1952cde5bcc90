//! Every level that this processor has, against the bit-serial oracle.

use super::*;
use crate::tests::{bit_serial, noise};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn any_guard() -> impl Strategy<Value = Guard> {
    prop::sample::select(&Guard::ALL[..])
}

proptest! {
    #[test]
    fn every_level_has_the_guard_of_the_oracle_at_any_length_and_alignment(
        guard in any_guard(),
        length in prop_oneof![0_usize..700, 0_usize..5000],
        skip in 0_usize..70,
        seed: u64,
    ) {
        let data = noise(length + skip, seed);
        let data = &data[skip..];
        let (start, expected) = (Running::new(guard), bit_serial(guard, data));
        for level in Level::available() {
            let register = feed_at(level, guard, start.register(), data);
            prop_assert_eq!(start.finished(register), expected, "{:?}", level);
        }
    }

    #[test]
    fn every_level_goes_on_from_any_register(
        guard in any_guard(),
        length in 0_usize..1200,
        skip in 0_usize..70,
        register: u64,
        seed: u64,
    ) {
        let data = noise(length + skip, seed);
        let data = &data[skip..];
        let register = register >> (64 - 8 * guard.bytes());
        let expected = feed_at(Level::Portable, guard, register, data);
        for level in Level::available() {
            prop_assert_eq!(feed_at(level, guard, register, data), expected, "{:?}", level);
        }
    }

    #[test]
    fn every_level_makes_and_copies_many_at_once(
        guard in any_guard(),
        interval in prop_oneof![
            prop::sample::select(vec![128_usize, 256, 384, 512, 1024, 1536, 2048, 4096]),
            1_usize..1100,
        ],
        count in 0_usize..=BATCH,
        gaps in prop::array::uniform2(0_usize..70),
        skip in 0_usize..70,
        seed: u64,
    ) {
        let [stride, copy_stride] = gaps.map(|gap| interval + gap);
        let data = noise(stride * count + skip, seed);
        let data = &data[skip..];
        let expected: Vec<u64> =
            data.chunks(stride).map(|block| bit_serial(guard, &block[..interval])).collect();
        let intervals = Intervals { bytes: data, interval, stride };
        for level in Level::available() {
            let mut values = vec![0; count];
            guards_at(level, guard, intervals, None, &mut values);
            prop_assert_eq!(&values, &expected, "{:?}", level);

            let mut room = vec![0xee; copy_stride * count + 70];
            let copies = Copies { bytes: &mut room[skip..], stride: copy_stride };
            values.fill(0);
            guards_at(level, guard, intervals, Some(copies), &mut values);
            prop_assert_eq!(&values, &expected, "{:?}, copying", level);
            let mut expected_room = vec![0xee; copy_stride * count + 70];
            let places = expected_room[skip..].chunks_exact_mut(copy_stride);
            for (place, block) in places.zip(data.chunks(stride)) {
                place[..interval].copy_from_slice(&block[..interval]);
            }
            prop_assert_eq!(&room, &expected_room, "{:?}, copying", level);
        }
    }
}

#[test]
fn the_best_level_is_available() {
    let best = Level::best();
    assert_eq!(Level::available().next(), Some(best));
    assert_eq!(Level::best(), best);
}

#[test]
fn sums_of_all_ones_have_every_carry() {
    for level in Level::available() {
        for length in [2, 512, 4096, 1 << 20] {
            let data = vec![0xff; length];
            assert_eq!(feed_at(level, Guard::Ip, 0, &data), 0xffff, "{level:?}, {length}");
        }
    }
}
