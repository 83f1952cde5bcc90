//! Every way of losing strips, at every level.

use super::*;
use crate::scalar;
use proptest::prelude::*;

struct Stripe {
    strips: Vec<Vec<u8>>,
}

impl Stripe {
    /// `count` data strips of noise, then P and Q made by the oracle.
    fn of(count: usize, length: usize, mut seed: u64) -> Self {
        let mut noise = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x5851_F42D);
            seed.to_be_bytes()[0]
        };
        let mut strips: Vec<Vec<u8>> =
            (0..count).map(|_| (0..length).map(|_| noise()).collect()).collect();
        let (mut p, mut q) = (vec![0; length], vec![0; length]);
        let data: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
        scalar::pq(&data, &mut p, &mut q);
        strips.extend([p, q]);
        Self { strips }
    }

    /// Loses the strips of `lost`, wants back those of `wanted`, and compares.
    fn lose(&self, level: Level, lost: &[usize], wanted: &[usize]) -> Result<(), Unrecoverable> {
        let length = self.strips[0].len();
        let mut buffers: Vec<Vec<u8>> = wanted.iter().map(|_| vec![0xEE; length]).collect();
        let mut strips: Vec<Strip<'_>> =
            self.strips.iter().map(|bytes| Strip::Known(bytes)).collect();
        for &i in lost {
            strips[i] = Strip::Absent;
        }
        for (&i, buffer) in wanted.iter().zip(&mut buffers) {
            strips[i] = Strip::Wanted(buffer);
        }
        let q = strips.pop().unwrap();
        let p = strips.pop().unwrap();
        recover_at(level, &mut strips, p, q)?;
        drop(strips);
        for (&i, buffer) in wanted.iter().zip(&buffers) {
            assert!(*buffer == self.strips[i], "{level:?}: strip {i} of {lost:?}");
        }
        Ok(())
    }
}

#[test]
fn any_two_erasures_recover() {
    for count in [1, 2, 3, 4, 6, 8, 17, 30] {
        let stripe = Stripe::of(count, 131, 7);
        for level in Level::available() {
            for x in 0..count + 2 {
                stripe.lose(level, &[], &[x]).unwrap();
                for y in 0..count + 2 {
                    if x != y {
                        stripe.lose(level, &[x, y], &[x, y]).unwrap();
                        stripe.lose(level, &[x, y], &[x]).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn the_widest_stripe_recovers() {
    let stripe = Stripe::of(DATA_STRIPS_MAX, 70, 3);
    for (x, y) in [(0, 254), (253, 254), (0, 1), (100, 255), (254, 256), (255, 256)] {
        stripe.lose(Level::best(), &[x, y], &[x, y]).unwrap();
    }
}

#[test]
fn raid5_needs_no_q_and_no_limit_of_strips() {
    let stripe = Stripe::of(300, 64, 9);
    let q = stripe.strips.len() - 1;
    for x in [0, 17, 299, 300] {
        stripe.lose(Level::best(), &[x, q], &[x]).unwrap();
    }
}

#[test]
fn three_erasures_are_refused_with_the_count() {
    let stripe = Stripe::of(4, 64, 1);
    let best = Level::best();
    let refused = |data_unknown, parity_known| Err(Unrecoverable { data_unknown, parity_known });
    assert_eq!(stripe.lose(best, &[0, 1, 2], &[0]), refused(3, 2));
    assert_eq!(stripe.lose(best, &[0, 1, 4], &[0, 1]), refused(2, 1));
    assert_eq!(stripe.lose(best, &[3, 4, 5], &[3]), refused(1, 0));
}

#[test]
fn nothing_wanted_is_nothing_done() {
    let stripe = Stripe::of(4, 64, 1);
    stripe.lose(Level::best(), &[0, 1], &[]).unwrap();
    stripe.lose(Level::best(), &[], &[]).unwrap();
}

#[test]
#[should_panic(expected = "one length")]
fn a_strip_of_another_length_is_a_bug_of_the_caller() {
    let (known, p, q) = ([0; 64], [0; 64], [0; 63]);
    let (mut x, mut y) = ([0; 64], [0; 64]);
    let mut data = [Strip::Known(&known), Strip::Wanted(&mut x), Strip::Wanted(&mut y)];
    let _ = recover(&mut data, Strip::Known(&p), Strip::Known(&q));
}

proptest! {
    #[test]
    fn any_two_erasures_recover_at_any_length(
        count in 2usize..20,
        length in prop_oneof![0usize..600, 4000usize..9000],
        x in any::<proptest::sample::Index>(),
        y in any::<proptest::sample::Index>(),
        seed: u64,
    ) {
        let (x, y) = (x.index(count + 2), y.index(count + 2));
        prop_assume!(x != y);
        let stripe = Stripe::of(count, length, seed);
        for level in Level::available() {
            stripe.lose(level, &[x, y], &[x, y]).unwrap();
        }
    }
}
