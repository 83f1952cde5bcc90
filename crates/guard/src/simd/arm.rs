//! Vectors of aarch64.
//!
//! Tested where there is no such machine, too (Debian: gcc-aarch64-linux-gnu, qemu-user):
//!
//! ```console
//! $ rustup target add aarch64-unknown-linux-gnu
//! $ export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
//! $ export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
//! $ cargo test --target aarch64-unknown-linux-gnu -p steadfast-guard
//! ```

use super::vector::Vector;
use core::arch::aarch64::{
    uint8x16_t, vaddq_u64, vcombine_u64, vcreate_u64, vdupq_n_u8, veorq_u8, vextq_u8,
    vgetq_lane_u64, vld1q_u8, vmull_high_p64, vmull_p64, vrbitq_u8, vreinterpretq_p64_u8,
    vreinterpretq_u8_p128, vreinterpretq_u8_u64, vreinterpretq_u64_u8, vshlq_n_u64, vshrq_n_u64,
    vst1q_u8, vsubq_u64,
};

cpufeatures::new!(pmull, "aes");

/// Whether [`Neon`] may be used. What is asked for is AES; no processor has that without PMULL (Arm ARM,
/// ID_AA64ISAR0_EL1: the field of both is 0 or 2), and the compiler takes both for one feature.
pub(super) fn has_pmull() -> bool {
    pmull::get()
}

level!(each_pmull, feed_pmull, sums_pmull, Neon, 1, "neon,aes");

/// NEON with PMULL.
#[derive(Clone, Copy)]
struct Neon(uint8x16_t);

// SAFETY: moves 16 bytes for one lane; its features are those of `each_pmull`. On a little-endian machine the
// bytes of a vector are the bytes of its words, lowest first.
unsafe impl Vector<1> for Neon {
    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for 16 bytes and the features.
        Self(unsafe { vld1q_u8(at) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: the caller vouches for 16 bytes and the features.
        unsafe { vst1q_u8(at, self.0) }
    }

    /// Nothing: its prefetch has no stable name, and these processors see a run of writes by themselves.
    #[inline(always)]
    fn expect(_: *const u8) {}

    #[inline(always)]
    unsafe fn everywhere([low, high]: [u64; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(low), vcreate_u64(high))) })
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { veorq_u8(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn turned(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { vrbitq_u8(self.0) })
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factors: Self, addend: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let high = Self(high_by_high(self.0, factors.0));
            self.low_by_low(factors).xor(high).xor(addend)
        }
    }

    #[inline(always)]
    unsafe fn low_by_low(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { product(self.words()[0], factors.words()[0]) })
    }

    #[inline(always)]
    unsafe fn low_by_high(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { product(self.words()[0], factors.words()[1]) })
    }

    #[inline(always)]
    unsafe fn low_as_high(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { vextq_u8::<8>(vdupq_n_u8(0), self.0) })
    }

    #[inline(always)]
    unsafe fn sums([only]: [Self; 1]) -> Self {
        only
    }

    #[inline(always)]
    unsafe fn totals([only]: [Self; 1]) -> Self {
        only
    }

    #[inline(always)]
    unsafe fn high_words(self) -> [u64; 1] {
        // SAFETY: the caller vouches for the features.
        [unsafe { self.words() }[1]]
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let sum = vaddq_u64(vreinterpretq_u64_u8(self.0), vreinterpretq_u64_u8(other.0));
            Self(vreinterpretq_u8_u64(sum))
        }
    }

    #[inline(always)]
    unsafe fn high_halves(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { vreinterpretq_u8_u64(vshrq_n_u64::<32>(vreinterpretq_u64_u8(self.0))) })
    }

    #[inline(always)]
    unsafe fn without_high(self, halves: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let halves = vshlq_n_u64::<32>(vreinterpretq_u64_u8(halves.0));
            Self(vreinterpretq_u8_u64(vsubq_u64(vreinterpretq_u64_u8(self.0), halves)))
        }
    }
}

impl Neon {
    /// # Safety
    /// The features are there.
    #[inline(always)]
    unsafe fn words(self) -> [u64; 2] {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let words = vreinterpretq_u64_u8(self.0);
            [vgetq_lane_u64::<0>(words), vgetq_lane_u64::<1>(words)]
        }
    }
}

/// The carry-less product.
#[inline]
#[target_feature(enable = "neon,aes")]
fn product(a: u64, b: u64) -> uint8x16_t {
    vreinterpretq_u8_p128(vmull_p64(a, b))
}

/// That of the high words.
#[inline]
#[target_feature(enable = "neon,aes")]
fn high_by_high(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    vreinterpretq_u8_p128(vmull_high_p64(vreinterpretq_p64_u8(a), vreinterpretq_p64_u8(b)))
}
