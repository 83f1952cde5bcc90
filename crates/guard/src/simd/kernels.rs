//! CRCs by folding, written once over any vector.
//!
//! An interval is blocks of eight vectors. The first block's vectors are sums that each following block's
//! are added to, shifted by a block; at the end each lane is shifted to the end and all are summed:
//!
//! ```text
//!   block 0  |v0|v1| ... |v7|
//!             \* \*       \*       * x^block, plus
//!   block 1  |v0|v1| ... |v7|
//!               \  \ ... /         each lane * x^(where it lies), summed over all lanes
//!                 |lane|           128 bits, reduced to the register
//! ```
//!
//! As many intervals as a vector has lanes are summed into one vector and reduced together, and the
//! processor begins with the next ones meanwhile. Short ones, whose every lane has its own shift to the end,
//! go abreast, a vector of each in turn: given one whole interval after the other, a processor has its queue
//! full of multiplications that all wait for the port that does them (512 bytes, in a prototype that does nothing
//! else: 77 GB/s four abreast, 53 one after the other). What is copied goes one after the other: there the writes are what is waited for.
//!
//! No closures over vectors here: a closure does not get the features of the function around it.

use super::folding::{Fold, LANES_MAX, VECTORS};
use super::vector::Vector;
use super::{Copies, Intervals};

/// Where the copies go: one every `stride` bytes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) at: *mut u8,
    pub(super) stride: usize,
}

impl Target {
    /// Where nothing is copied.
    pub(super) const NOWHERE: Self = Self { at: core::ptr::null_mut(), stride: 0 };

    pub(super) fn of(Copies { bytes, stride }: Copies<'_>) -> Self {
        Self { at: bytes.as_mut_ptr(), stride }
    }
}

/// The registers, from `register`, after each of `intervals`, which are copied on the way if there is a
/// target.
///
/// # Safety
/// The features of `V` are there; intervals are blocks of `VECTORS` vectors, as many as `registers` or
/// more; the target is good for writing an interval every `stride` bytes, and is not among them.
#[inline(always)]
pub(super) unsafe fn each<V: Vector<LANES>, C: Fold, const LANES: usize>(
    register: u64,
    intervals: Intervals<'_>,
    target: Option<Target>,
    registers: &mut [u64],
) {
    // SAFETY: what is asked is what the caller vouches for.
    unsafe {
        match target {
            Some(target) => run::<V, C, LANES, true>(register, intervals, target, registers),
            None => run::<V, C, LANES, false>(register, intervals, Target::NOWHERE, registers),
        }
    }
}

#[inline(always)]
unsafe fn run<V: Vector<LANES>, C: Fold, const LANES: usize, const COPY: bool>(
    register: u64,
    intervals: Intervals<'_>,
    target: Target,
    registers: &mut [u64],
) {
    let block = 16 * LANES * VECTORS;
    // SAFETY: the caller vouches for the intervals that `registers` has room for and for their blocks, of
    // which the first is one; features likewise.
    unsafe {
        let start = at_start::<V, C, LANES>(register);
        let (mut from, mut to) = (intervals.bytes.as_ptr(), target.at);
        let rest = intervals.interval / block - 1;
        let (groups, last) = registers.as_chunks_mut::<LANES>();
        let lanes = intervals.interval / 16;
        let shifts = (!COPY && lanes <= LANES_MAX).then(|| C::FOLDING.to_end(lanes));
        for registers in groups {
            let mut vectors = [start; LANES];
            if let Some(shifts) = shifts {
                vectors = abreast::<V, C, LANES>(start, from, intervals.stride, shifts);
            } else {
                for (i, vector) in vectors.iter_mut().enumerate() {
                    let from = from.wrapping_add(i * intervals.stride);
                    let to = to.wrapping_add(i * target.stride);
                    *vector =
                        fold::<V, C, LANES, COPY>(start, from, from.wrapping_add(block), rest, to);
                }
            }
            from = from.wrapping_add(LANES * intervals.stride);
            to = to.wrapping_add(LANES * target.stride);
            *registers = reduce::<V, C, LANES>(V::sums(vectors));
        }
        for register in last {
            let vector = fold::<V, C, LANES, COPY>(start, from, from.wrapping_add(block), rest, to);
            *register = one::<V, C, LANES>(vector);
            from = from.wrapping_add(intervals.stride);
            to = to.wrapping_add(target.stride);
        }
    }
}

/// Vectors whose lanes' sums, modulo the polynomial, are the registers after as many intervals, one every
/// `stride` bytes from `from` on, of which `shifts` has one for each lane. Their first bytes meet `start`.
///
/// # Safety
/// The features of `V` are there; the intervals are good for reading, and blocks of `VECTORS` vectors.
#[inline(always)]
unsafe fn abreast<V: Vector<LANES>, C: Fold, const LANES: usize>(
    start: V,
    mut from: *const u8,
    stride: usize,
    shifts: &[[u64; 2]],
) -> [V; LANES] {
    // SAFETY: the caller vouches for the intervals, whose blocks are those of the shifts, and for the
    // features.
    unsafe {
        // What the first bytes meet comes to the end as they do.
        let first = V::load(shifts.as_ptr().cast());
        let met = ordered::<V, C, LANES>(start).multiply_add(first, V::everywhere([0; 2]));
        let mut sums = [met; LANES];
        for block in shifts.chunks_exact(VECTORS * LANES) {
            for vector in 0..VECTORS {
                let shift = V::load(block.as_ptr().wrapping_add(vector * LANES).cast());
                for (i, sum) in sums.iter_mut().enumerate() {
                    let data = V::load(from.wrapping_add(i * stride));
                    *sum = ordered::<V, C, LANES>(data).multiply_add(shift, *sum);
                }
                from = from.wrapping_add(16 * LANES);
            }
        }
        sums
    }
}

/// The register after `data`, from `register`.
///
/// # Safety
/// The features of `V` are there.
#[inline(always)]
pub(super) unsafe fn feed<V: Vector<LANES>, C: Fold, const LANES: usize>(
    mut register: u64,
    data: &[u8],
) -> u64 {
    let block = 16 * LANES * VECTORS;
    let (head, blocks) = data.split_at(data.len() % block);
    if head.len() >= size_of::<u64>() && data.len() >= SHORT {
        // Zeroes in front change nothing: the head becomes a block. The register stands before it.
        let mut first = [0; 16 * 4 * VECTORS];
        let room = &mut first[block - head.len()..block];
        room.copy_from_slice(head);
        for (byte, from) in room.iter_mut().zip(C::POLYNOMIAL.to_bytes(register)) {
            *byte ^= from;
        }
        // SAFETY: `first` is a block, what is behind the head is whole blocks; nothing is copied.
        unsafe {
            let (first, rest) = (first.as_ptr(), blocks.len() / block);
            let nowhere = core::ptr::null_mut();
            let none = V::everywhere([0; 2]);
            let sum = fold::<V, C, LANES, false>(none, first, blocks.as_ptr(), rest, nowhere);
            return one::<V, C, LANES>(sum);
        }
    }
    register = C::POLYNOMIAL.feed(register, head);
    if blocks.is_empty() {
        return register;
    }
    // SAFETY: these are whole blocks, and at least one; nothing is copied.
    unsafe {
        let (first, rest) = (blocks.as_ptr(), blocks.len() / block - 1);
        let start = at_start::<V, C, LANES>(register);
        let second = first.wrapping_add(block);
        let sum = fold::<V, C, LANES, false>(start, first, second, rest, core::ptr::null_mut());
        one::<V, C, LANES>(sum)
    }
}

/// The register as what the first bytes of the data meet.
#[inline(always)]
unsafe fn at_start<V: Vector<LANES>, C: Fold, const LANES: usize>(register: u64) -> V {
    let mut bytes = [0; 16 * 4];
    bytes[..8].copy_from_slice(&C::POLYNOMIAL.to_bytes(register));
    // SAFETY: no vector has more than four lanes; the caller vouches for the features.
    unsafe { V::load(bytes.as_ptr()) }
}

/// Lanes whose sum, modulo the polynomial, is the register after the block at `first` and `rest` blocks
/// at `second`, which are copied to `target` if `COPY`. The data's first bytes meet `start`.
///
/// # Safety
/// The features of `V` are there; the blocks are good for reading; if `COPY`, so many are good for writing
/// at `target`, and none of the data is among them.
#[inline(always)]
unsafe fn fold<V: Vector<LANES>, C: Fold, const LANES: usize, const COPY: bool>(
    start: V,
    first: *const u8,
    second: *const u8,
    rest: usize,
    target: *mut u8,
) -> V {
    let (mut from, mut to) = (second, target);
    let bytes = 16 * LANES;
    // SAFETY: the caller vouches for the blocks, each of which is read once, and for the features; there
    // are constants for every lane of a block.
    unsafe {
        let mut vectors = [start; VECTORS];
        for (i, vector) in vectors.iter_mut().enumerate() {
            let data = V::load(first.wrapping_add(i * bytes));
            if COPY {
                copy::<V, LANES>(data, to.wrapping_add(i * bytes));
            }
            *vector = ordered::<V, C, LANES>(if i == 0 { data.xor(start) } else { data });
        }
        let by_block = V::everywhere(C::FOLDING.by_block(LANES));
        for _ in 0..rest {
            to = to.wrapping_add(VECTORS * bytes);
            for (i, vector) in vectors.iter_mut().enumerate() {
                let data = V::load(from.wrapping_add(i * bytes));
                if COPY {
                    copy::<V, LANES>(data, to.wrapping_add(i * bytes));
                }
                *vector = vector.multiply_add(by_block, ordered::<V, C, LANES>(data));
            }
            from = from.wrapping_add(VECTORS * bytes);
        }
        let to_end = C::FOLDING.to_end(VECTORS * LANES).as_ptr().cast::<u8>();
        let mut sum = V::everywhere([0; 2]);
        for (i, vector) in vectors.into_iter().enumerate() {
            sum = vector.multiply_add(V::load(to_end.wrapping_add(i * bytes)), sum);
        }
        sum
    }
}

/// Stores a vector. A processor begins to fetch a line when it is written to, and each vector of an interval
/// that has metadata behind it is written to two of them; so they are asked for before.
///
/// # Safety
/// As for [`Vector::store`].
#[inline(always)]
pub(super) unsafe fn copy<V: Vector<LANES>, const LANES: usize>(data: V, to: *mut u8) {
    V::expect(to.wrapping_add(AHEAD_BYTES));
    // SAFETY: this is what the caller vouches for.
    unsafe { data.store(to) }
}

/// The data with the first bit of each byte lowest, or what was made of such data, back again.
#[inline(always)]
unsafe fn ordered<V: Vector<LANES>, C: Fold, const LANES: usize>(data: V) -> V {
    if C::POLYNOMIAL.is_reflected() {
        data
    } else {
        // SAFETY: the caller vouches for the features.
        unsafe { data.turned() }
    }
}

/// [`reduce`] of a single vector's lanes.
#[inline(always)]
unsafe fn one<V: Vector<LANES>, C: Fold, const LANES: usize>(vector: V) -> u64 {
    // SAFETY: the caller vouches for the features.
    unsafe {
        let mut vectors = [V::everywhere([0; 2]); LANES];
        vectors[0] = vector;
        reduce::<V, C, LANES>(V::sums(vectors))[0]
    }
}

/// Each lane modulo the polynomial (see `folding`): registers.
#[inline(always)]
unsafe fn reduce<V: Vector<LANES>, C: Fold, const LANES: usize>(sums: V) -> [u64; LANES] {
    // SAFETY: the caller vouches for the features.
    let mut registers = unsafe {
        let constants = V::everywhere(C::FOLDING.reduction);
        let multiple = sums.low_by_low(constants);
        let mut left = sums.xor(multiple.low_by_high(constants));
        if C::FOLDING.has_bit_64 {
            left = left.xor(multiple.low_as_high());
        }
        ordered::<V, C, LANES>(left).high_words()
    };
    for register in &mut registers {
        *register = C::POLYNOMIAL.register_of(register.to_le_bytes());
    }
    registers
}

/// Shorter than this, tables are as fast.
const SHORT: usize = 64;
/// How far ahead of writing a line is asked for: of 512 to 2048 the best here.
const AHEAD_BYTES: usize = 512;
