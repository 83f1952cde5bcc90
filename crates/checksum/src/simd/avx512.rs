//! Folding with 64-byte carry-less multiplication.
//!
//! 512 bytes are 32 lanes of 128 bits. A lane that lies D bits before the end counts x^D times as
//! much as the last one; its two halves are brought there by one multiplication each, all lanes
//! independently, and the sum is one lane that two `crc32` instructions reduce:
//!
//! ```text
//!   |lane 0|lane 1| ... |lane 31|      each:  low half * x^(D+64) + high half * x^D  (mod P)
//!        \     \    ...    |                  all of them summed -> 128 bits -> 32
//! ```
//!
//! A longer string keeps the 32 lanes and multiplies them forward by 512 bytes per step.
//!
//! **The constants.** `vpclmulqdq` on reflected halves gives the product times x, and a 32-bit
//! constant in the low half of a 64-bit word counts x^32 times itself: the constant for a shift by
//! n bits is therefore x^(n-33).

use crate::crc::polynomial;
use crate::crc::{Castagnoli, Polynomial};
use crate::hash::Blocks;
use std::arch::x86_64::{
    __m512i, _mm_crc32_u8, _mm_crc32_u64, _mm_cvtsi32_si128, _mm_cvtsi128_si64, _mm_extract_epi64,
    _mm_xor_si128, _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_xor_si256,
    _mm512_castsi512_si256, _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64,
    _mm512_loadu_si512, _mm512_set_epi64, _mm512_ternarylogic_epi64, _mm512_xor_si512,
    _mm512_zextsi128_si512,
};
use units::SECTOR_BYTES;

/// Whether the kernels here may run.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("sse4.2")
}

type Sector = [[u8; VECTOR_BYTES]; VECTORS];

/// The register after `bytes`, from `register`.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq,pclmulqdq,sse4.2")]
pub(super) fn feed(register: u32, bytes: &[u8]) -> u32 {
    let (vectors, _) = bytes.as_chunks::<VECTOR_BYTES>();
    let (sectors, _) = vectors.as_chunks::<VECTORS>();
    let (_, rest) = bytes.split_at(sectors.len() * SECTOR_BYTES);
    let mut register = fold(register, sectors);
    let (words, bytes) = rest.as_chunks::<8>();
    for &word in words {
        register = feed_u64(register, u64::from_le_bytes(word));
    }
    for &byte in bytes {
        register = _mm_crc32_u8(register, byte);
    }
    register
}

/// See [`super::each_register`]. One loop, so that the processor overlaps a block's reduction with
/// the next block's folding.
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq,pclmulqdq,sse4.2")]
pub(super) fn each_register(
    salted: u32,
    blocks: Blocks<'_>,
    mut each: impl FnMut(u32) -> bool,
) -> Option<usize> {
    for (index, (sector, data)) in blocks.iter().enumerate() {
        let (vectors, _) = data.as_chunks::<VECTOR_BYTES>();
        let (sectors, _) = vectors.as_chunks::<VECTORS>();
        if !each(fold(feed_u64(salted, sector), sectors)) {
            return Some(index);
        }
    }
    None
}

/// The register after `sectors`, from `register`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq,pclmulqdq,sse4.2")]
fn fold(register: u32, sectors: &[Sector]) -> u32 {
    let Some((first, rest)) = sectors.split_first() else { return register };
    let mut lanes: [__m512i; VECTORS] = std::array::from_fn(|i| load(&first[i]));
    // The register stands before the first four bytes.
    let register = _mm512_zextsi128_si512(_mm_cvtsi32_si128(register.cast_signed()));
    lanes[0] = _mm512_xor_si512(lanes[0], register);

    let step = constants(&BY_A_SECTOR);
    for sector in rest {
        for (lane, bytes) in lanes.iter_mut().zip(sector) {
            *lane = multiply_add(*lane, step, load(bytes));
        }
    }

    let mut sum = _mm512_set_epi64(0, 0, 0, 0, 0, 0, 0, 0);
    for (lane, to_end) in lanes.into_iter().zip(&TO_THE_END) {
        sum = multiply_add(lane, constants(to_end), sum);
    }
    let sum = _mm256_xor_si256(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
    let sum = _mm_xor_si128(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
    let low = feed_u64(0, _mm_cvtsi128_si64(sum).cast_unsigned());
    feed_u64(low, _mm_extract_epi64::<1>(sum).cast_unsigned())
}

/// Each lane's halves times the constant's halves, summed with `addend`.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,vpclmulqdq")]
fn multiply_add(lanes: __m512i, constant: __m512i, addend: __m512i) -> __m512i {
    let low = _mm512_clmulepi64_epi128::<0x00>(lanes, constant);
    let high = _mm512_clmulepi64_epi128::<0x11>(lanes, constant);
    _mm512_ternarylogic_epi64::<XOR3>(low, high, addend)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; VECTOR_BYTES]) -> __m512i {
    // SAFETY: reads 64 bytes at no particular alignment, and the reference vouches for 64.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn constants(words: &[u64; 8]) -> __m512i {
    // SAFETY: reads 64 bytes at no particular alignment, and the reference vouches for 64.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse4.2")]
fn feed_u64(register: u32, word: u64) -> u32 {
    let [a, b, c, d, ..] = _mm_crc32_u64(u64::from(register), word).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The pair that moves a lane forward by `bits`: for its low half (the earlier eight bytes, worth
/// x^64 more) and for its high half.
const fn shift(bits: i64) -> [u64; 2] {
    [power_of_x(bits + 64 - 33) as u64, power_of_x(bits - 33) as u64]
}

const fn power_of_x(exponent: i64) -> u32 {
    polynomial::power_of_x(Castagnoli::P, Castagnoli::ORDER_OF_X, exponent)
}

const fn by_a_sector() -> [u64; 8] {
    let [low, high] = shift(8 * 512);
    [low, high, low, high, low, high, low, high]
}

const fn to_the_end() -> [[u64; 8]; VECTORS] {
    let mut all = [[0; 8]; VECTORS];
    let mut vector = 0;
    let mut bits = 128 * 31;
    while vector < VECTORS {
        let mut lane = 0;
        while lane < 4 {
            let [low, high] = shift(bits);
            all[vector][2 * lane] = low;
            all[vector][2 * lane + 1] = high;
            bits -= 128;
            lane += 1;
        }
        vector += 1;
    }
    all
}

const VECTOR_BYTES: usize = 64;
const VECTORS: usize = SECTOR_BYTES / VECTOR_BYTES;
/// Truth table of a ^ b ^ c.
const XOR3: i32 = 0x96;

static BY_A_SECTOR: [u64; 8] = by_a_sector();
static TO_THE_END: [[u64; 8]; VECTORS] = to_the_end();
