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
    // SAFETY: what is asked is what the caller vouches for.
    unsafe {
        match target {
            Some(target) => run::<V, LANES, true>(intervals, target, sums),
            None => run::<V, LANES, false>(intervals, Target::NOWHERE, sums),
        }
    }
}

/// # Safety
/// As for [`each`], with a target if `COPY`.
#[inline(always)]
unsafe fn run<V: Vector<LANES>, const LANES: usize, const COPY: bool>(
    Intervals { mut bytes, interval, stride }: Intervals<'_>,
    target: Target,
    sums: &mut [u64],
) {
    let mut to = target.at;
    // As many as a vector has lanes share what comes after their last addition.
    let is_piece = interval.is_multiple_of(16 * LANES) && interval <= PIECE_BYTES;
    let together = if is_piece { sums.len() - sums.len() % LANES } else { 0 };
    let (groups, last) = sums.split_at_mut(together);
    // SAFETY: what is asked is what the caller vouches for, one interval after the other.
    unsafe {
        for sums in groups.as_chunks_mut::<LANES>().0 {
            let mut totals = [V::everywhere([0; 2]); LANES];
            for total in &mut totals {
                *total = whole::<V, LANES, COPY>(&bytes[..interval], to);
                (bytes, to) = (&bytes[stride..], to.wrapping_add(target.stride));
            }
            *sums = totals_of::<V, LANES>(totals).map(ip::swapped);
        }
        for sum in last {
            *sum = one::<V, LANES, COPY>(&bytes[..interval], to);
            (bytes, to) = (&bytes[stride..], to.wrapping_add(target.stride));
        }
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
            let mut totals = [V::everywhere([0; 2]); LANES];
            totals[0] = whole::<V, LANES, COPY>(piece, to);
            sum += ip::swapped(totals_of::<V, LANES>(totals)[0]);
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

/// Words whose sum is that of all halves of words of `data`.
///
/// # Safety
/// As for [`one`]; and `data` is whole vectors, [`PIECE_BYTES`] at most.
#[inline(always)]
unsafe fn whole<V: Vector<LANES>, const LANES: usize, const COPY: bool>(
    data: &[u8],
    target: *mut u8,
) -> V {
    // SAFETY: each vector is read and written within the data and what the caller vouches for.
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
        words.without_high(high_halves).plus(high_halves)
    }
}

/// The sum of each vector's words.
///
/// # Safety
/// The features of `V` are there.
#[inline(always)]
unsafe fn totals_of<V: Vector<LANES>, const LANES: usize>(vectors: [V; LANES]) -> [u64; LANES] {
    // SAFETY: this is what the caller vouches for.
    unsafe {
        let totals = V::totals(vectors);
        totals.plus(totals.low_as_high()).high_words()
    }
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
