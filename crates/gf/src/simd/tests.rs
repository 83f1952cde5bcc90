//! Each level that this processor has is the oracle's equal, whatever lengths and alignments.

use super::*;
use crate::field::mul;
use crate::scalar;
use proptest::prelude::*;

/// Strips of noise that start at odd addresses, each at another.
struct Noise {
    bytes: Vec<u8>,
    length: usize,
}

impl Noise {
    fn of(count: usize, length: usize, mut seed: u64) -> Self {
        let bytes = (0..(count + 1) * (length + 3) + 64)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x5851_F42D);
                seed.to_be_bytes()[0]
            })
            .collect();
        Self { bytes, length }
    }

    fn strip(&self, index: usize, skip: usize) -> &[u8] {
        let from = index * (self.length + 3) + skip;
        &self.bytes[from..from + self.length]
    }

    fn strips(&self, count: usize, skip: usize) -> Vec<&[u8]> {
        (0..count).map(|index| self.strip(index, skip)).collect()
    }
}

fn any_length() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..700, Just(4096usize), 4000usize..4600]
}

proptest! {
    #[test]
    fn sums(count in 0usize..30, length in any_length(), skip in 0usize..64, keep: bool, seed: u64) {
        prop_assume!(keep || count > 0);
        let noise = Noise::of(count + 1, length, seed);
        let sources = noise.strips(count, skip);
        let before = noise.strip(count, skip).to_vec();
        let mut expected = vec![0; length];
        scalar::p(&sources, &mut expected);
        if keep {
            expected.iter_mut().zip(&before).for_each(|(e, b)| *e ^= b);
        }
        for level in Level::available() {
            let mut target = before.clone();
            run(level, Job::Sum { sources: &sources, target: &mut target, keep });
            prop_assert!(target == expected, "{:?}", level);
        }
    }

    #[test]
    fn syndromes(count in 1usize..30, length in any_length(), skip in 0usize..64, seed: u64) {
        let noise = Noise::of(count, length, seed);
        let data = noise.strips(count, skip);
        let (mut expected_p, mut expected_q) = (vec![0; length], vec![0; length]);
        scalar::pq(&data, &mut expected_p, &mut expected_q);
        for level in Level::available() {
            // Room in front, so that the targets are unaligned too.
            let (mut p, mut q) = (vec![0xEE; length + skip], vec![0xEE; length + skip]);
            run(level, Job::Syndromes { data: &data, p: &mut p[skip..], q: &mut q[skip..] });
            prop_assert!(p[skip..] == expected_p && q[skip..] == expected_q, "{:?}", level);
            prop_assert!(p[..skip].iter().chain(&q[..skip]).all(|&byte| byte == 0xEE));
        }
    }

    #[test]
    fn solutions(
        count in 1usize..20,
        length in any_length(),
        skip in 0usize..64,
        rows: [[u8; 2]; 2],
        two: bool,
        seed: u64,
    ) {
        let noise = Noise::of(count + 2, length, seed);
        let data = noise.strips(count, skip);
        let (p, q) = (noise.strip(count, skip), noise.strip(count + 1, skip));
        let expected = rows.map(|[a, b]| -> Vec<u8> {
            let byte = |at| {
                let (sp, sq) = scalar::syndromes_at(&data, at);
                mul(a, sp ^ p[at]) ^ mul(b, sq ^ q[at])
            };
            (0..length).map(byte).collect()
        });
        for level in Level::available() {
            let (mut x, mut y) = (vec![0; length], vec![0; length]);
            let wanted_y = two.then_some(y.as_mut_slice());
            run(level, Job::Solve { data: &data, p, q, rows, x: &mut x, y: wanted_y });
            prop_assert!(x == expected[0], "{:?}", level);
            prop_assert!(!two || y == expected[1], "{:?}", level);
        }
    }

    #[test]
    fn updates(factor: u8, length in any_length(), skip in 0usize..64, seed: u64) {
        let noise = Noise::of(4, length, seed);
        let [old, new, p, q] = [0, 1, 2, 3].map(|index| noise.strip(index, skip));
        let change = |at: usize| old[at] ^ new[at];
        let expected_p: Vec<u8> = (0..length).map(|at| p[at] ^ change(at)).collect();
        let expected_q: Vec<u8> = (0..length).map(|at| q[at] ^ mul(factor, change(at))).collect();
        for level in Level::available() {
            let (mut p, mut q) = (p.to_vec(), q.to_vec());
            run(level, Job::Update { factor, old, new, p: &mut p, q: &mut q });
            prop_assert!(p == expected_p && q == expected_q, "{:?}", level);
        }
    }
}

#[test]
fn every_constant_times_every_number() {
    let numbers: Vec<u8> = (0..=255).collect();
    let zeros = [0; 256];
    for level in Level::available() {
        for factor in 0..=255 {
            let (mut p, mut q) = ([0; 256], [0; 256]);
            let (old, new) = (&numbers, &zeros);
            run(level, Job::Update { factor, old, new, p: &mut p, q: &mut q });
            for number in 0..=255 {
                assert_eq!(q[usize::from(number)], mul(factor, number), "{level:?}");
            }
        }
    }
}

#[test]
fn the_best_level_is_available() {
    assert!(Level::available().any(|level| level == Level::best()));
}
