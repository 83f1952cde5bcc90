//! Making parity: of whole stripes, and of a change to one strip.

use crate::simd::{self, Job, Level};
use crate::{DATA_STRIPS_MAX, exp};

/// Adds `source` to `target`: XOR.
///
/// # Panics
/// If the lengths differ.
pub fn xor_into(target: &mut [u8], source: &[u8]) {
    simd::run(Level::best(), Job::Sum { sources: &[source], target, keep: true });
}

/// Writes to `p` the XOR of `data`.
///
/// # Panics
/// If there is no data or lengths differ.
pub fn p(data: &[&[u8]], p: &mut [u8]) {
    assert!(!data.is_empty(), "a stripe has data");
    simd::run(Level::best(), Job::Sum { sources: data, target: p, keep: false });
}

/// Writes to `p` and `q` the syndromes of `data`; the strip at index i has exponent i.
///
/// # Panics
/// If there is no data, more than [`DATA_STRIPS_MAX`] strips, or lengths differ.
pub fn pq(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
    assert!(data.len() <= DATA_STRIPS_MAX, "Q tells 255 data strips apart");
    simd::run(Level::best(), Job::Syndromes { data, p, q });
}

/// Whether `p`, and `q` where there is one, are the parity of `data`; the strip at index i has
/// exponent i. Each strip is read once, and nothing is allocated by the strips' length: parity is
/// made of a piece that fits the nearest cache, and compared there.
///
/// # Panics
/// If there is no data, lengths differ, or there is Q of more than [`DATA_STRIPS_MAX`] strips.
#[must_use]
pub fn agree(data: &[&[u8]], p: &[u8], q: Option<&[u8]>) -> bool {
    let length = p.len();
    let all = data.iter().copied().chain(q);
    assert!(all.clone().all(|strip| strip.len() == length), "strips have one length");
    let mut made = [[0; PIECE_BYTES]; 2];
    let mut pieces: Vec<&[u8]> = Vec::with_capacity(data.len());
    for from in (0..length).step_by(PIECE_BYTES) {
        let piece = from..length.min(from + PIECE_BYTES);
        pieces.clear();
        pieces.extend(data.iter().map(|strip| &strip[piece.clone()]));
        let [made_p, made_q] = &mut made;
        let (made_p, made_q) = (&mut made_p[..piece.len()], &mut made_q[..piece.len()]);
        let agrees = match q {
            None => {
                self::p(&pieces, made_p);
                true
            }
            Some(q) => {
                pq(&pieces, made_p, made_q);
                *made_q == q[piece.clone()]
            }
        };
        if !agrees || *made_p != p[piece] {
            return false;
        }
    }
    true
}

/// Bytes of each strip that are looked at together.
const PIECE_BYTES: usize = 4096;

/// Corrects `p` in place for one data strip that changes from `old` to `new`.
///
/// # Panics
/// If lengths differ.
pub fn p_update(old: &[u8], new: &[u8], p: &mut [u8]) {
    simd::run(Level::best(), Job::Sum { sources: &[old, new], target: p, keep: true });
}

/// Corrects `p` and `q` in place for the data strip of `exponent` that changes from `old` to
/// `new`.
///
/// # Panics
/// If `exponent` is not below [`DATA_STRIPS_MAX`] or lengths differ.
pub fn pq_update(exponent: usize, old: &[u8], new: &[u8], p: &mut [u8], q: &mut [u8]) {
    assert!(exponent < DATA_STRIPS_MAX, "Q tells 255 data strips apart");
    simd::run(Level::best(), Job::Update { factor: exp(exponent), old, new, p, q });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parity_by_hand() {
        let data: [&[u8]; 3] = [&[1, 0x80], &[2, 0x80], &[4, 0x80]];
        let (mut p, mut q) = ([0; 2], [0; 2]);
        pq(&data, &mut p, &mut q);
        assert_eq!(p, [7, 0x80]);
        // 1 + 2*2 + 4*4; 0x80 + 0x1D + 0x3A.
        assert_eq!(q, [1 ^ 4 ^ 16, 0x80 ^ 0x1D ^ 0x3A]);
    }

    proptest! {
        #[test]
        fn parity_agrees_exactly_as_long_as_no_byte_is_changed(
            count in 1usize..12,
            length in 1usize..10_000,
            six: bool,
            strip in any::<proptest::sample::Index>(),
            at in any::<proptest::sample::Index>(),
            flip in 1u8..,
        ) {
            let byte = |strip: usize, i: usize| (i * 37 + strip * 101).to_le_bytes()[0];
            let mut strips: Vec<Vec<u8>> =
                (0..count).map(|strip| (0..length).map(|i| byte(strip, i)).collect()).collect();
            let data: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
            let (mut made, mut q) = (vec![0; length], vec![0; length]);
            pq(&data, &mut made, &mut q);
            prop_assert!(agree(&data, &made, six.then_some(&q)));
            strips.extend([made, q]);
            let changed = strip.index(count + 1 + usize::from(six));
            strips[changed][at.index(length)] ^= flip;
            let all: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
            prop_assert!(!agree(&all[..count], all[count], six.then_some(all[count + 1])));
        }

        #[test]
        fn updating_parity_is_making_it_anew(
            count in 1usize..12,
            length in 0usize..300,
            at in any::<proptest::sample::Index>(),
            seed: u8,
        ) {
            let mut strips: Vec<Vec<u8>> = (0..count)
                .map(|strip| {
                    let byte = |i: usize| (i * 37 + strip * 101).to_le_bytes()[0] ^ seed;
                    (0..length).map(byte).collect()
                })
                .collect();
            let make = |strips: &[Vec<u8>]| {
                let data: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
                let (mut made, mut q) = (vec![0; length], vec![0; length]);
                pq(&data, &mut made, &mut q);
                (made, q)
            };
            let (mut both_p, mut both_q) = make(&strips);
            let mut only_p = both_p.clone();
            let changed = at.index(count);
            let old = strips[changed].clone();
            strips[changed].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(3) ^ 0x5A);
            p_update(&old, &strips[changed], &mut only_p);
            pq_update(changed, &old, &strips[changed], &mut both_p, &mut both_q);
            let (anew_p, anew_q) = make(&strips);
            prop_assert_eq!(&only_p, &anew_p);
            prop_assert_eq!(both_p, anew_p);
            prop_assert_eq!(both_q, anew_q);
        }
    }

    #[test]
    #[should_panic(expected = "one length")]
    fn strips_of_different_lengths_are_a_bug_of_the_caller() {
        p(&[&[0; 8], &[0; 7]], &mut [0; 8]);
    }
}
