//! Vector kernels and the choice between them.
//!
//! | level | asks for | bytes at once | times a constant |
//! |---|---|---|---|
//! | `Avx512` | AVX-512 F+BW, GFNI | 64 | one affine instruction |
//! | `Avx2Gfni` | AVX2, GFNI | 32 | one affine instruction |
//! | `Avx2` | AVX2 | 32 | two 16-entry look-ups |
//! | `Ssse3` | SSSE3 | 16 | two 16-entry look-ups |
//! | `Portable` | nothing | 8, in a plain word | eight doublings |
//!
//! A [`Job`] is checked once, in [`run`], and then runs in `kernels`, written once for all levels
//! over the trait in `vector`. The level is found once per process.
#![allow(unsafe_code, reason = "vector kernels: one of the homes of unsafe, see STYLE.md")]

mod kernels;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

/// Longest piece of a stripe that [`Job::Solve`] is given at a time: the pieces of the unknown
/// strips, all zeros, stay in the first cache.
pub(crate) const SOLVE_BYTES_MAX: usize = 4096;

/// A way of computing; ordered by preference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2Gfni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Ssse3,
    Portable,
}

impl Level {
    /// The levels this processor has, best first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vectors = x86::available();
        #[cfg(not(target_arch = "x86_64"))]
        let vectors = std::iter::empty();
        vectors.chain([Self::Portable])
    }

    /// The best level, found once.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().next().unwrap_or(Self::Portable))
    }
}

/// Something to compute over strips of one length.
pub(crate) enum Job<'a> {
    /// The XOR of `sources`, to `target`; on top of what is there if `keep`.
    Sum { sources: &'a [&'a [u8]], target: &'a mut [u8], keep: bool },
    /// P and Q of `data`; the strip at index i has exponent i.
    Syndromes { data: &'a [&'a [u8]], p: &'a mut [u8], q: &'a mut [u8] },
    /// With sP = P of `data` XOR `p` and sQ = Q of `data` XOR `q`: to `x` and `y` each
    /// `row[0] * sP ^ row[1] * sQ`.
    Solve {
        data: &'a [&'a [u8]],
        p: &'a [u8],
        q: &'a [u8],
        rows: [[u8; 2]; 2],
        x: &'a mut [u8],
        y: Option<&'a mut [u8]>,
    },
    /// `p ^= old ^ new`, `q ^= factor * (old ^ new)`.
    Update { factor: u8, old: &'a [u8], new: &'a [u8], p: &'a mut [u8], q: &'a mut [u8] },
}

/// Runs `job` at `level`.
///
/// # Panics
/// If strips of the job differ in length, or it has no data: the kernels rely on both.
pub(crate) fn run(level: Level, job: Job<'_>) {
    assert!(job.is_consistent(), "strips have one length and there is at least one");
    match level {
        // SAFETY: each level is only made, in `available`, where its features were detected, and
        // the job was just checked.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::run_avx512(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2Gfni => unsafe { x86::run_avx2_gfni(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::run_avx2(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Ssse3 => unsafe { x86::run_ssse3(job) },
        // SAFETY: a plain word needs no feature, and the job was just checked.
        Level::Portable => unsafe { kernels::run::<vector::Word>(job) },
    }
}

impl Job<'_> {
    fn is_consistent(&self) -> bool {
        let all = |strips: &[&[u8]], length| strips.iter().all(|strip| strip.len() == length);
        match self {
            Self::Sum { sources, target, keep } => {
                (*keep || !sources.is_empty()) && all(sources, target.len())
            }
            Self::Syndromes { data, p, q } => {
                !data.is_empty() && all(data, p.len()) && q.len() == p.len()
            }
            Self::Solve { data, p, q, x, y, .. } => {
                !data.is_empty()
                    && all(data, x.len())
                    && all(&[p, q], x.len())
                    && y.as_ref().is_none_or(|y| y.len() == x.len())
            }
            Self::Update { old, new, p, q, .. } => all(&[old, new, p], q.len()),
        }
    }
}

#[cfg(test)]
mod tests;
