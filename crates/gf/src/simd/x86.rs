//! Vectors of x86-64.

use super::vector::Vector;
use super::{Job, Level, kernels};
use crate::field::{REDUCTION, mul};
use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_add_epi8, _mm_and_si128, _mm_cmpgt_epi8, _mm_loadu_si128,
    _mm_set1_epi8, _mm_setzero_si128, _mm_shuffle_epi8, _mm_srli_epi64, _mm_storeu_si128,
    _mm_xor_si128, _mm256_add_epi8, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_cmpgt_epi8, _mm256_gf2p8affine_epi64_epi8, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64,
    _mm256_storeu_si256, _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512,
    _mm512_set1_epi64, _mm512_storeu_si512, _mm512_xor_si512,
};

/// The levels this processor has, best first.
pub(super) fn available() -> impl Iterator<Item = Level> {
    let gfni = is_x86_feature_detected!("gfni");
    let avx2 = is_x86_feature_detected!("avx2");
    let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    let ssse3 = is_x86_feature_detected!("ssse3");
    [
        (avx512 && gfni).then_some(Level::Avx512),
        (avx2 && gfni).then_some(Level::Avx2Gfni),
        avx2.then_some(Level::Avx2),
        ssse3.then_some(Level::Ssse3),
    ]
    .into_iter()
    .flatten()
}

/// # Safety
/// As for [`kernels::run`], like its siblings below.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
pub(super) unsafe fn run_avx512(job: Job<'_>) {
    // SAFETY: this function has the features; the caller vouches for the job.
    unsafe { kernels::run::<Zmm>(job) }
}

#[target_feature(enable = "avx2,gfni")]
pub(super) unsafe fn run_avx2_gfni(job: Job<'_>) {
    // SAFETY: this function has the features; the caller vouches for the job.
    unsafe { kernels::run::<YmmGfni>(job) }
}

#[target_feature(enable = "avx2")]
pub(super) unsafe fn run_avx2(job: Job<'_>) {
    // SAFETY: this function has the features; the caller vouches for the job.
    unsafe { kernels::run::<Ymm>(job) }
}

#[target_feature(enable = "ssse3")]
pub(super) unsafe fn run_ssse3(job: Job<'_>) {
    // SAFETY: this function has the features; the caller vouches for the job.
    unsafe { kernels::run::<Xmm>(job) }
}

/// AVX-512 with GFNI.
#[derive(Clone, Copy)]
struct Zmm(__m512i);

/// AVX2 with GFNI.
#[derive(Clone, Copy)]
struct YmmGfni(__m256i);

/// AVX2 alone.
#[derive(Clone, Copy)]
struct Ymm(__m256i);

/// SSSE3.
#[derive(Clone, Copy)]
struct Xmm(__m128i);

/// Multiplication by `constant` as the affine instruction takes it: its matrix of bits, the row of
/// output bit 0 in the highest byte. Bit j of the row of output bit i says whether i is set in
/// `constant * 2^j`.
const fn matrix(constant: u8) -> i64 {
    let mut rows = [0; 8];
    let mut j = 0;
    while j < 8 {
        let product = mul(constant, 1 << j);
        let mut i = 0;
        while i < 8 {
            rows[7 - i] |= (product >> i & 1) << j;
            i += 1;
        }
        j += 1;
    }
    i64::from_le_bytes(rows)
}

const DOUBLE: i64 = matrix(2);

/// Multiplication by `constant` as two look-ups: products of the low and of the high half-byte.
const fn half_byte_products(constant: u8) -> [[u8; 16]; 2] {
    let mut tables = [[0; 16]; 2];
    let mut half: u8 = 0;
    while half < 16 {
        tables[0][half as usize] = mul(constant, half);
        tables[1][half as usize] = mul(constant, half << 4);
        half += 1;
    }
    tables
}

// SAFETY: moves 64 bytes; its features are those of `run_avx512`.
unsafe impl Vector for Zmm {
    type Factor = __m512i;

    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for 64 bytes and the features.
        Self(unsafe { _mm512_loadu_si512(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: the caller vouches for 64 bytes and the features.
        unsafe { _mm512_storeu_si512(at.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(self.0, _mm512_set1_epi64(DOUBLE)) })
    }

    #[inline(always)]
    unsafe fn factor(constant: u8) -> __m512i {
        // SAFETY: the caller vouches for the features.
        unsafe { _mm512_set1_epi64(matrix(constant)) }
    }

    #[inline(always)]
    unsafe fn times(self, factor: __m512i) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(self.0, factor) })
    }
}

// SAFETY: moves 32 bytes; its features are those of `run_avx2_gfni`.
unsafe impl Vector for YmmGfni {
    type Factor = __m256i;

    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for 32 bytes and the features.
        Self(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: the caller vouches for 32 bytes and the features.
        unsafe { _mm256_storeu_si256(at.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(self.0, _mm256_set1_epi64x(DOUBLE)) })
    }

    #[inline(always)]
    unsafe fn factor(constant: u8) -> __m256i {
        // SAFETY: the caller vouches for the features.
        unsafe { _mm256_set1_epi64x(matrix(constant)) }
    }

    #[inline(always)]
    unsafe fn times(self, factor: __m256i) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_gf2p8affine_epi64_epi8::<0>(self.0, factor) })
    }
}

// SAFETY: moves 32 bytes; its features are those of `run_avx2`.
unsafe impl Vector for Ymm {
    type Factor = [__m256i; 2];

    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for 32 bytes and the features.
        Self(unsafe { _mm256_loadu_si256(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: the caller vouches for 32 bytes and the features.
        unsafe { _mm256_storeu_si256(at.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let carries = _mm256_cmpgt_epi8(_mm256_setzero_si256(), self.0);
            let reduction = _mm256_and_si256(carries, _mm256_set1_epi8(REDUCTION.cast_signed()));
            Self(_mm256_xor_si256(_mm256_add_epi8(self.0, self.0), reduction))
        }
    }

    #[inline(always)]
    unsafe fn factor(constant: u8) -> [__m256i; 2] {
        let [low, high] = half_byte_products(constant);
        // SAFETY: reads the 16 bytes that each table has; the caller vouches for the features.
        unsafe {
            let low = _mm_loadu_si128(low.as_ptr().cast());
            let high = _mm_loadu_si128(high.as_ptr().cast());
            [_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(high)]
        }
    }

    #[inline(always)]
    unsafe fn times(self, [low, high]: [__m256i; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let half = _mm256_set1_epi8(0x0F);
            let high_half = _mm256_and_si256(_mm256_srli_epi64::<4>(self.0), half);
            let low = _mm256_shuffle_epi8(low, _mm256_and_si256(self.0, half));
            Self(_mm256_xor_si256(low, _mm256_shuffle_epi8(high, high_half)))
        }
    }
}

// SAFETY: moves 16 bytes; its features are those of `run_ssse3`.
unsafe impl Vector for Xmm {
    type Factor = [__m128i; 2];

    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for 16 bytes and the features.
        Self(unsafe { _mm_loadu_si128(at.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: the caller vouches for 16 bytes and the features.
        unsafe { _mm_storeu_si128(at.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_xor_si128(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let carries = _mm_cmpgt_epi8(_mm_setzero_si128(), self.0);
            let reduction = _mm_and_si128(carries, _mm_set1_epi8(REDUCTION.cast_signed()));
            Self(_mm_xor_si128(_mm_add_epi8(self.0, self.0), reduction))
        }
    }

    #[inline(always)]
    unsafe fn factor(constant: u8) -> [__m128i; 2] {
        let [low, high] = half_byte_products(constant);
        // SAFETY: reads the 16 bytes that each table has; the caller vouches for the features.
        unsafe { [_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())] }
    }

    #[inline(always)]
    unsafe fn times(self, [low, high]: [__m128i; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let half = _mm_set1_epi8(0x0F);
            let high_half = _mm_and_si128(_mm_srli_epi64::<4>(self.0), half);
            let low = _mm_shuffle_epi8(low, _mm_and_si128(self.0, half));
            Self(_mm_xor_si128(low, _mm_shuffle_epi8(high, high_half)))
        }
    }
}
