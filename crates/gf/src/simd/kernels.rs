//! The four jobs, written once over any vector.
//!
//! Each walks the strips side by side, a few vectors at a time, so that every byte of data is
//! touched once whatever is computed from it. Q is Horner's rule from the last strip down: double,
//! add, double, add. What is left behind the last whole vector, [`scalar`] does.
//!
//! No closures over vectors here: a closure does not get the features of the function around it,
//! and where the compiler leaves it a call of its own, each instruction in it becomes a call too.

use super::Job;
use super::vector::Vector;
use crate::field::mul;
use crate::scalar;

/// Runs `job`.
///
/// # Safety
/// The features of `V` are there, and the job is consistent: its strips have one length, and there
/// is at least one.
#[inline(always)]
pub(super) unsafe fn run<V: Vector>(job: Job<'_>) {
    // SAFETY: what the kernels ask is what the caller vouches for.
    unsafe {
        match job {
            Job::Sum { sources, target, keep } => sum::<V>(sources, target, keep),
            Job::Syndromes { data, p, q } => syndromes::<V>(data, p, q),
            Job::Solve { data, p, q, rows, x, y } => solve::<V>(data, [p, q], rows, x, y),
            Job::Update { factor, old, new, p, q } => update::<V>(factor, old, new, p, q),
        }
    }
}

/// Calls `step(at)` for each group of `WIDE` vectors and then `single(at)` for each vector that
/// fits in `length`; gives the bytes covered.
macro_rules! walk {
    ($vector:ty, $length:expr, |$at:ident| $wide:expr, $single:expr) => {{
        let mut $at = 0;
        while $at + WIDE * <$vector>::BYTES <= $length {
            $wide;
            $at += WIDE * <$vector>::BYTES;
        }
        while $at + <$vector>::BYTES <= $length {
            $single;
            $at += <$vector>::BYTES;
        }
        $at
    }};
}

#[inline(always)]
unsafe fn sum<V: Vector>(sources: &[&[u8]], target: &mut [u8], keep: bool) {
    // SAFETY: `walk` stays within the length that all strips have; features as for `run`.
    let done = unsafe {
        walk!(
            V,
            target.len(),
            |at| sum_step::<V, WIDE>(sources, target.as_mut_ptr().add(at), at, keep),
            sum_step::<V, 1>(sources, target.as_mut_ptr().add(at), at, keep)
        )
    };
    for (at, byte) in target.iter_mut().enumerate().skip(done) {
        *byte = scalar::sum_at(sources, at) ^ if keep { *byte } else { 0 };
    }
}

#[inline(always)]
unsafe fn sum_step<V: Vector, const N: usize>(
    sources: &[&[u8]],
    target: *mut u8,
    at: usize,
    keep: bool,
) {
    // SAFETY: the caller vouches for N vectors at `at` of each source and at `target`, and that
    // there is a source unless `keep`.
    unsafe {
        let (mut total, rest) = if keep {
            (load::<V, N>(target), sources)
        } else {
            let (first, rest) = sources.split_first().unwrap_unchecked();
            (load::<V, N>(first.as_ptr().add(at)), rest)
        };
        for strip in rest {
            let strip = load::<V, N>(strip.as_ptr().add(at));
            for i in 0..N {
                total[i] = total[i].xor(strip[i]);
            }
        }
        store(total, target);
    }
}

#[inline(always)]
unsafe fn syndromes<V: Vector>(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
    // SAFETY: `walk` stays within the length that all strips have; features as for `run`.
    let done = unsafe {
        walk!(
            V,
            p.len(),
            |at| {
                let [sp, sq] = both_sums::<V, WIDE>(data, at);
                store(sp, p.as_mut_ptr().add(at));
                store(sq, q.as_mut_ptr().add(at));
            },
            {
                let [sp, sq] = both_sums::<V, 1>(data, at);
                store(sp, p.as_mut_ptr().add(at));
                store(sq, q.as_mut_ptr().add(at));
            }
        )
    };
    for at in done..p.len() {
        (p[at], q[at]) = scalar::syndromes_at(data, at);
    }
}

#[inline(always)]
unsafe fn solve<V: Vector>(
    data: &[&[u8]],
    parity: [&[u8]; 2],
    rows: [[u8; 2]; 2],
    x: &mut [u8],
    mut y: Option<&mut [u8]>,
) {
    let length = x.len();
    let x_at = x.as_mut_ptr();
    let y_at = y.as_mut().map(|y| y.as_mut_ptr());
    // SAFETY: `walk` stays within the length that all strips have; features as for `run`.
    let done = unsafe {
        let [[xp, xq], [yp, yq]] = rows;
        let factors = [[V::factor(xp), V::factor(xq)], [V::factor(yp), V::factor(yq)]];
        walk!(
            V,
            length,
            |at| solve_step::<V, WIDE>(data, parity, factors, at, x_at, y_at),
            solve_step::<V, 1>(data, parity, factors, at, x_at, y_at)
        )
    };
    for at in done..length {
        let (p, q) = scalar::syndromes_at(data, at);
        let sums = [p ^ parity[0][at], q ^ parity[1][at]];
        let row = |[a, b]: [u8; 2]| mul(a, sums[0]) ^ mul(b, sums[1]);
        x[at] = row(rows[0]);
        if let Some(y) = &mut y {
            y[at] = row(rows[1]);
        }
    }
}

#[inline(always)]
unsafe fn solve_step<V: Vector, const N: usize>(
    data: &[&[u8]],
    parity: [&[u8]; 2],
    factors: [[V::Factor; 2]; 2],
    at: usize,
    x: *mut u8,
    y: Option<*mut u8>,
) {
    // SAFETY: the caller vouches for N vectors at `at` of each strip.
    unsafe {
        let [mut sp, mut sq] = both_sums::<V, N>(data, at);
        let p = load::<V, N>(parity[0].as_ptr().add(at));
        let q = load::<V, N>(parity[1].as_ptr().add(at));
        for i in 0..N {
            (sp[i], sq[i]) = (sp[i].xor(p[i]), sq[i].xor(q[i]));
        }
        store(combine(sp, sq, factors[0]), x.add(at));
        if let Some(y) = y {
            store(combine(sp, sq, factors[1]), y.add(at));
        }
    }
}

/// `a * sp + b * sq`.
#[inline(always)]
unsafe fn combine<V: Vector, const N: usize>(
    sp: [V; N],
    sq: [V; N],
    [a, b]: [V::Factor; 2],
) -> [V; N] {
    let mut combined = sp;
    for i in 0..N {
        // SAFETY: features as for `run`.
        combined[i] = unsafe { sp[i].times(a).xor(sq[i].times(b)) };
    }
    combined
}

/// P and Q of the N vectors at `at` of each strip.
#[inline(always)]
unsafe fn both_sums<V: Vector, const N: usize>(data: &[&[u8]], at: usize) -> [[V; N]; 2] {
    // SAFETY: the caller vouches for N vectors at `at` of each strip and for a strip.
    unsafe {
        let (last, before) = data.split_last().unwrap_unchecked();
        let mut p = load::<V, N>(last.as_ptr().add(at));
        let mut q = p;
        for strip in before.iter().rev() {
            let strip = load::<V, N>(strip.as_ptr().add(at));
            for i in 0..N {
                p[i] = p[i].xor(strip[i]);
                q[i] = q[i].double().xor(strip[i]);
            }
        }
        [p, q]
    }
}

#[inline(always)]
unsafe fn update<V: Vector>(factor: u8, old: &[u8], new: &[u8], p: &mut [u8], q: &mut [u8]) {
    // SAFETY: `walk` stays within the length that all strips have; features as for `run`.
    let done = unsafe {
        let prepared = V::factor(factor);
        let [old, new] = [old.as_ptr(), new.as_ptr()];
        let length = p.len();
        let [p, q] = [p.as_mut_ptr(), q.as_mut_ptr()];
        walk!(
            V,
            length,
            |at| update_step::<V, WIDE>(prepared, old.add(at), new.add(at), p.add(at), q.add(at)),
            update_step::<V, 1>(prepared, old.add(at), new.add(at), p.add(at), q.add(at))
        )
    };
    for at in done..p.len() {
        let change = old[at] ^ new[at];
        p[at] ^= change;
        q[at] ^= mul(factor, change);
    }
}

#[inline(always)]
unsafe fn update_step<V: Vector, const N: usize>(
    factor: V::Factor,
    old: *const u8,
    new: *const u8,
    p: *mut u8,
    q: *mut u8,
) {
    // SAFETY: the caller vouches for N vectors at each pointer.
    unsafe {
        let (old, new) = (load::<V, N>(old), load::<V, N>(new));
        let (mut sp, mut sq) = (load::<V, N>(p), load::<V, N>(q));
        for i in 0..N {
            let change = old[i].xor(new[i]);
            sp[i] = sp[i].xor(change);
            sq[i] = sq[i].xor(change.times(factor));
        }
        store(sp, p);
        store(sq, q);
    }
}

#[inline(always)]
unsafe fn load<V: Vector, const N: usize>(at: *const u8) -> [V; N] {
    // SAFETY: the caller vouches for N vectors.
    unsafe {
        let mut vectors = [V::load(at); N];
        for (i, vector) in vectors.iter_mut().enumerate().skip(1) {
            *vector = V::load(at.add(i * V::BYTES));
        }
        vectors
    }
}

#[inline(always)]
unsafe fn store<V: Vector, const N: usize>(vectors: [V; N], at: *mut u8) {
    for (i, vector) in vectors.into_iter().enumerate() {
        // SAFETY: the caller vouches for N vectors.
        unsafe { vector.store(at.add(i * V::BYTES)) }
    }
}

/// Vectors that a step works on together: enough to hide the latency of the doubling, few enough
/// that both sums of each stay in registers (2 * 4 sums + 4 loads of 16).
const WIDE: usize = 4;
