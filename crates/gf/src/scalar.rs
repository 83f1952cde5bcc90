//! The same arithmetic byte by byte, as the definitions read: the oracle of the vector kernels,
//! and what computes their last few bytes.

use crate::field::{exp, mul};

/// XOR of the bytes at `at`.
#[must_use]
pub fn sum_at(strips: &[&[u8]], at: usize) -> u8 {
    strips.iter().fold(0, |sum, strip| sum ^ strip[at])
}

/// P and Q of the bytes at `at`; strip i has exponent i.
#[must_use]
pub fn syndromes_at(data: &[&[u8]], at: usize) -> (u8, u8) {
    let q = data.iter().enumerate().fold(0, |q, (i, strip)| q ^ mul(exp(i), strip[at]));
    (sum_at(data, at), q)
}

/// Writes P of `data`.
///
/// # Panics
/// If a strip is shorter than `p`.
pub fn p(data: &[&[u8]], p: &mut [u8]) {
    for (at, p) in p.iter_mut().enumerate() {
        *p = sum_at(data, at);
    }
}

/// Writes P and Q of `data`.
///
/// # Panics
/// If a strip is shorter than `p`.
pub fn pq(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
    for (at, (p, q)) in p.iter_mut().zip(q).enumerate() {
        (*p, *q) = syndromes_at(data, at);
    }
}
