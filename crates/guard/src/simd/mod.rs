//! Kernels, and the choice between them.
//!
//! | level | asks for | CRCs | checksum of IP |
//! |---|---|---|---|
//! | `Avx512` | AVX-512 F+BW+VL, VPCLMULQDQ, GFNI | folded, 64 bytes at once | 64 bytes at once |
//! | `Avx2` | AVX2, VPCLMULQDQ | folded, 32 bytes at once | 32 bytes at once |
//! | `Sse` | PCLMULQDQ, SSSE3, SSE4.1 | folded, 16 bytes at once | 16 bytes at once |
//! | `Pmull` | aarch64 with PMULL, little-endian | folded, 16 bytes at once | 16 bytes at once |
//! | `Portable` | nothing | tables, 8 bytes at once | as the compiler has it |
//!
//! Folding is written once over the trait in `vector`, in `kernels`; `folding` derives its constants. The
//! level is found once. All levels give the same numbers: tests hold each of them to the bit-serial oracle.
#![allow(unsafe_code, reason = "vector kernels: one of the homes of unsafe, see STYLE.md")]
#![cfg_attr(
    not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))),
    allow(dead_code, reason = "other processors have no level but the portable one")
)]

/// The functions of a level: they switch on the features that its vectors need.
macro_rules! level {
    ($each:ident, $feed:ident, $sums:ident, $vector:ident, $lanes:literal, $features:literal) => {
        /// # Safety
        /// As for [`kernels::each`](super::kernels::each).
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $each<C: super::Crc>(
            register: u64,
            intervals: super::Intervals<'_>,
            target: Option<super::kernels::Target>,
            registers: &mut [u64],
        ) {
            // SAFETY: this function has the features; the caller vouches for the rest.
            unsafe {
                super::kernels::each::<$vector, C, $lanes>(register, intervals, target, registers)
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn $feed<C: super::Crc>(register: u64, data: &[u8]) -> u64 {
            // SAFETY: this function has the features.
            unsafe { super::kernels::feed::<$vector, C, $lanes>(register, data) }
        }

        /// # Safety
        /// As for [`sums::each`](super::sums::each).
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $sums(
            intervals: super::Intervals<'_>,
            target: Option<super::kernels::Target>,
            values: &mut [u64],
        ) {
            // SAFETY: this function has the features; the caller vouches for the rest.
            unsafe { super::sums::each::<$vector, $lanes>(intervals, target, values) }
        }
    };
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod arm;
mod folding;
mod kernels;
mod sums;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::polynomial::{CRC16, CRC32C, CRC64, Polynomial};
use crate::{Guard, Running, ip};
use core::sync::atomic::{AtomicU8, Ordering};

/// A way of computing; ordered by preference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Sse,
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Pmull,
    Portable,
}

impl Level {
    const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Sse,
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        Self::Pmull,
        Self::Portable,
    ];

    /// The levels this processor has, best first. Nothing else makes a level that computes.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|level| level.is_detected())
    }

    fn is_detected(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::has_avx512(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Sse => x86::has_sse(),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Pmull => arm::has_pmull(),
            Self::Portable => true,
        }
    }

    /// The best level, found once: `cpuid` is slow, in a virtual machine above all.
    pub(crate) fn best() -> Self {
        /// Which of `ALL`; two threads that find it at once find the same.
        static BEST: AtomicU8 = AtomicU8::new(UNKNOWN);
        const UNKNOWN: u8 = u8::MAX;
        let known = BEST.load(Ordering::Relaxed);
        if let Some(level) = Self::ALL.get(usize::from(known)) {
            return *level;
        }
        let best = Self::available().next().unwrap_or(Self::Portable);
        for (index, level) in (0..UNKNOWN).zip(Self::ALL) {
            if *level == best {
                BEST.store(index, Ordering::Relaxed);
            }
        }
        best
    }

    /// Bytes that folding takes as a unit; none where nothing is folded.
    const fn block_bytes(self) -> Option<usize> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Some(64 * folding::VECTORS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => Some(32 * folding::VECTORS),
            #[cfg(target_arch = "x86_64")]
            Self::Sse => Some(16 * folding::VECTORS),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Self::Pmull => Some(16 * folding::VECTORS),
            Self::Portable => None,
        }
    }
}

/// Intervals, one every `stride` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Intervals<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) interval: usize,
    pub(crate) stride: usize,
}

/// Where intervals are copied to, one every `stride` bytes.
pub(crate) struct Copies<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) stride: usize,
}

/// The register after `data`, from `register`; for the checksum of IP, whose register is the sum, `data`
/// starts at an even byte.
pub(crate) fn feed(guard: Guard, register: u64, data: &[u8]) -> u64 {
    feed_at(Level::best(), guard, register, data)
}

fn feed_at(level: Level, guard: Guard, register: u64, data: &[u8]) -> u64 {
    if data.is_empty() {
        return register;
    }
    match guard {
        Guard::Crc16 => feed_crc::<Crc16>(level, register, data),
        Guard::Crc32c => feed_crc::<Crc32c>(level, register, data),
        Guard::Crc64 => feed_crc::<Crc64>(level, register, data),
        Guard::Ip => {
            let mut sum = [0];
            let (interval, stride) = (data.len(), data.len());
            sums_of(level, Intervals { bytes: data, interval, stride }, None, &mut sum);
            ip::fold(register + sum[0])
        }
    }
}

/// [`Guard::each_spaced`], checked.
pub(crate) fn each_spaced(
    guard: Guard,
    blocks: &[u8],
    interval: usize,
    stride: usize,
    mut found: impl FnMut(&[u8], &[u64]),
) {
    let (level, mut values) = (Level::best(), [0; BATCH]);
    for bytes in blocks.chunks(stride.saturating_mul(BATCH)) {
        let values = &mut values[..bytes.len() / stride];
        guards_at(level, guard, Intervals { bytes, interval, stride }, None, values);
        found(bytes, values);
    }
}

/// [`Guard::each_spaced_mut`], checked.
pub(crate) fn each_spaced_mut(
    guard: Guard,
    blocks: &mut [u8],
    interval: usize,
    stride: usize,
    mut found: impl FnMut(&mut [u8], &[u64]),
) {
    let (level, mut values) = (Level::best(), [0; BATCH]);
    for bytes in blocks.chunks_mut(stride.saturating_mul(BATCH)) {
        let values = &mut values[..bytes.len() / stride];
        guards_at(level, guard, Intervals { bytes, interval, stride }, None, values);
        found(bytes, values);
    }
}

/// [`Guard::each_gathered`], checked.
pub(crate) fn each_gathered(
    guard: Guard,
    blocks: &[u8],
    interval: usize,
    stride: usize,
    target: &mut [u8],
    mut found: impl FnMut(&[u8], &[u64]),
) {
    let (level, mut values) = (Level::best(), [0; BATCH]);
    let target = &mut target[..blocks.len() / stride * interval];
    let batches = blocks.chunks(stride.saturating_mul(BATCH));
    for (bytes, copies) in batches.zip(target.chunks_mut(interval.saturating_mul(BATCH))) {
        let values = &mut values[..bytes.len() / stride];
        let intervals = Intervals { bytes, interval, stride };
        let copies = Copies { bytes: copies, stride: interval };
        guards_at(level, guard, intervals, Some(copies), values);
        found(bytes, values);
    }
}

/// [`Guard::each_copied`], checked.
pub(crate) fn each_copied(
    guard: Guard,
    source: &[u8],
    interval: usize,
    target: &mut [u8],
    stride: usize,
    mut found: impl FnMut(&mut [u8], &[u64]),
) {
    let (level, mut values) = (Level::best(), [0; BATCH]);
    let target = &mut target[..source.len() / interval * stride];
    let batches = source.chunks(interval.saturating_mul(BATCH));
    for (bytes, copies) in batches.zip(target.chunks_mut(stride.saturating_mul(BATCH))) {
        let values = &mut values[..bytes.len() / interval];
        let intervals = Intervals { bytes, interval, stride: interval };
        guards_at(level, guard, intervals, Some(Copies { bytes: copies, stride }), values);
        found(copies, values);
    }
}

/// The guards of as many intervals as there are `values`, which are copied on the way if there is a place
/// for copies.
///
/// # Panics
/// If there are fewer intervals or places.
fn guards_at(
    level: Level,
    guard: Guard,
    intervals: Intervals<'_>,
    copies: Option<Copies<'_>>,
    values: &mut [u64],
) {
    let Intervals { bytes, interval, stride } = intervals;
    let fit = |bytes: usize, stride: usize| stride >= interval && bytes / stride >= values.len();
    assert!(interval > 0 && fit(bytes.len(), stride), "each value has its interval");
    assert!(
        copies.as_ref().is_none_or(|copies| fit(copies.bytes.len(), copies.stride)),
        "each interval has its place"
    );
    let start = Running::new(guard);
    match guard {
        Guard::Crc16 => crcs::<Crc16>(level, start.register(), intervals, copies, values),
        Guard::Crc32c => crcs::<Crc32c>(level, start.register(), intervals, copies, values),
        Guard::Crc64 => crcs::<Crc64>(level, start.register(), intervals, copies, values),
        Guard::Ip => sums_of(level, intervals, copies, values),
    }
    for value in values {
        *value = start.finished(*value);
    }
}

/// A CRC, as a type.
trait Crc {
    const POLYNOMIAL: &'static Polynomial;
}

struct Crc16;
struct Crc32c;
struct Crc64;

impl Crc for Crc16 {
    const POLYNOMIAL: &'static Polynomial = &CRC16;
}

impl Crc for Crc32c {
    const POLYNOMIAL: &'static Polynomial = &CRC32C;
}

impl Crc for Crc64 {
    const POLYNOMIAL: &'static Polynomial = &CRC64;
}

fn feed_crc<C: Crc>(level: Level, register: u64, data: &[u8]) -> u64 {
    match level {
        // SAFETY: each level is only made, in `available`, where its features were detected.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { x86::feed_avx512::<C>(register, data) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::feed_avx2::<C>(register, data) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Sse => unsafe { x86::feed_sse::<C>(register, data) },
        // SAFETY: as above.
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        Level::Pmull => unsafe { arm::feed_pmull::<C>(register, data) },
        Level::Portable => C::POLYNOMIAL.feed(register, data),
    }
}

/// The registers, from `start`, after each interval; see [`guards_at`], which has checked.
fn crcs<C: Crc>(
    level: Level,
    start: u64,
    intervals: Intervals<'_>,
    copies: Option<Copies<'_>>,
    registers: &mut [u64],
) {
    if level.block_bytes().is_some_and(|block| intervals.interval.is_multiple_of(block)) {
        let target = copies.map(kernels::Target::of);
        // SAFETY: each level is only made, in `available`, where its features were detected.
        // `guards_at` has checked that there is an interval and a place for each register, and an
        // interval is whole blocks. Places are borrowed mutably, so no interval is among them.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::each_avx512::<C>(start, intervals, target, registers),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::each_avx2::<C>(start, intervals, target, registers),
                #[cfg(target_arch = "x86_64")]
                Level::Sse => x86::each_sse::<C>(start, intervals, target, registers),
                #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
                Level::Pmull => arm::each_pmull::<C>(start, intervals, target, registers),
                Level::Portable => {}
            }
        }
        return;
    }
    one_by_one(intervals, copies, registers, |bytes| feed_crc::<C>(level, start, bytes));
}

/// The sum of each interval; see [`guards_at`], which has checked.
fn sums_of(level: Level, intervals: Intervals<'_>, copies: Option<Copies<'_>>, sums: &mut [u64]) {
    if level != Level::Portable {
        let target = copies.map(kernels::Target::of);
        // SAFETY: each level is only made, in `available`, where its features were detected.
        // `guards_at` has checked that there is an interval and a place for each sum. Places are
        // borrowed mutably, so no interval is among them.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => x86::sums_avx512(intervals, target, sums),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => x86::sums_avx2(intervals, target, sums),
                #[cfg(target_arch = "x86_64")]
                Level::Sse => x86::sums_sse(intervals, target, sums),
                #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
                Level::Pmull => arm::sums_pmull(intervals, target, sums),
                Level::Portable => {}
            }
        }
        return;
    }
    one_by_one(intervals, copies, sums, ip::sum);
}

fn one_by_one(
    Intervals { bytes, interval, stride }: Intervals<'_>,
    copies: Option<Copies<'_>>,
    values: &mut [u64],
    of: impl Fn(&[u8]) -> u64,
) {
    let intervals = bytes.chunks_exact(stride).map(|block| &block[..interval]).zip(values);
    let Some(copies) = copies else {
        return intervals.for_each(|(bytes, value)| *value = of(bytes));
    };
    for ((bytes, value), place) in intervals.zip(copies.bytes.chunks_exact_mut(copies.stride)) {
        let copy = &mut place[..interval];
        copy.copy_from_slice(bytes);
        *value = of(copy);
    }
}

/// Intervals whose guards are made before the first of them is looked at: so many that choosing the level
/// is nothing, so few that 512-byte intervals are still in the first cache when their metadata is.
const BATCH: usize = 32;

#[cfg(test)]
mod tests;
