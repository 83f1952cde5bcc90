//! Checksums of IP, written once over any vector.
//!
//! See `ip::sum`, which does the same word by word, and what is behind the last whole vector.

use super::Intervals;
use super::folding::VECTORS;
use super::kernels::{self, Target};
use super::vector::Vector;
use crate::ip;

/// The sum of each of `intervals`, which are copied on the way if there is a target.
///
/// # Safety
/// The features of `V` are there; there are as many intervals as `sums` or more; the target is good for
/// writing an interval every `stride` bytes, and is not among them.
#[inline(always)]
pub(super) unsafe fn each<V: Vector<LANES>, const LANES: usize>(
    intervals: Intervals<'_>,
    target: Option<Target>,
    sums: &mut [u64],
) {
    let Intervals { mut bytes, interval, stride } = intervals;
    let Target { at: mut to, stride: apart } =
        target.unwrap_or(Target { at: core::ptr::null_mut(), stride: 0 });
    for sum in sums {
        let data = &bytes[..interval];
        // SAFETY: what is asked is what the caller vouches for, one interval after the other.
        *sum = unsafe {
            if target.is_some() {
                one::<V, LANES, true>(data, to)
            } else {
                one::<V, LANES, false>(data, to)
            }
        };
        bytes = &bytes[stride..];
        to = to.wrapping_add(apart);
    }
}

/// The sum of `data`, which is copied to `target` if `COPY`.
///
/// # Safety
/// The features of `V` are there; if `COPY`, `target` is good for writing as many bytes, none of which are
/// the data.
#[inline(always)]
unsafe fn one<V: Vector<LANES>, const LANES: usize, const COPY: bool>(
    data: &[u8],
    target: *mut u8,
) -> u64 {
    let rest = data.len() % (16 * LANES);
    let (vectors, rest) = data.split_at(data.len() - rest);
    let mut sum = 0;
    // SAFETY: `vectors` is whole vectors and `piece` a part of it; the target has room for them and for
    // what is behind them; the caller vouches for the features.
    unsafe {
        let mut to = target;
        for piece in vectors.chunks(PIECE_BYTES) {
            sum += whole::<V, LANES, COPY>(piece, to);
            to = to.wrapping_add(piece.len());
        }
        if rest.is_empty() {
            return sum;
        }
        if COPY {
            core::ptr::copy_nonoverlapping(rest.as_ptr(), to, rest.len());
        }
    }
    ip::fold(sum + ip::sum(rest))
}

/// # Safety
/// As for [`one`]; and `data` is whole vectors, [`PIECE_BYTES`] at most.
#[inline(always)]
unsafe fn whole<V: Vector<LANES>, const LANES: usize, const COPY: bool>(
    data: &[u8],
    target: *mut u8,
) -> u64 {
    let mut bytes = [[0; 16]; 4];
    // SAFETY: each vector is read and written within the data and what the caller vouches for; no vector
    // has more than four lanes.
    unsafe {
        let mut words = V::everywhere([0; 2]);
        let mut high_halves = words;
        let mut at = 0;
        while at + VECTORS * 16 * LANES <= data.len() {
            for _ in 0..VECTORS {
                [words, high_halves] = add::<V, LANES, COPY>(
                    [words, high_halves],
                    data.as_ptr().wrapping_add(at),
                    target.wrapping_add(at),
                );
                at += 16 * LANES;
            }
        }
        while at < data.len() {
            [words, high_halves] = add::<V, LANES, COPY>(
                [words, high_halves],
                data.as_ptr().wrapping_add(at),
                target.wrapping_add(at),
            );
            at += 16 * LANES;
        }
        words.without_high(high_halves).plus(high_halves).store(bytes.as_mut_ptr().cast());
    }
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_flattened().as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    for half in [4, 2, 1] {
        for i in 0..half {
            words[i] += words[i + half];
        }
    }
    ip::swapped(words[0])
}

/// The sums of words and of high halves, with a vector more.
///
/// # Safety
/// The features of `V` are there; a vector is good for reading at `from` and, if `COPY`, for writing at `to`.
#[inline(always)]
unsafe fn add<V: Vector<LANES>, const LANES: usize, const COPY: bool>(
    [words, high_halves]: [V; 2],
    from: *const u8,
    to: *mut u8,
) -> [V; 2] {
    // SAFETY: this is what the caller vouches for.
    unsafe {
        let vector = V::load(from);
        if COPY {
            kernels::copy::<V, LANES>(vector, to);
        }
        [words.plus(vector), high_halves.plus(vector.high_halves())]
    }
}

/// All halves of words in so many bytes have a sum that 64 bits hold.
const PIECE_BYTES: usize = 1 << 30;
