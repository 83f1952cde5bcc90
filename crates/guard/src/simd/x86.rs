//! Vectors of x86-64.

use super::vector::Vector;
use core::arch::x86_64::{
    __cpuid_count, __m128i, __m256i, __m512i, _MM_HINT_T0, _mm_add_epi64, _mm_and_si128,
    _mm_clmulepi64_si128, _mm_extract_epi64, _mm_loadu_si128, _mm_prefetch, _mm_set_epi64x,
    _mm_set1_epi8, _mm_shuffle_epi8, _mm_slli_epi64, _mm_slli_si128, _mm_srli_epi64,
    _mm_storeu_si128, _mm_sub_epi64, _mm_xor_si128, _mm256_add_epi64, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_bslli_epi128, _mm256_clmulepi64_epi128,
    _mm256_extract_epi64, _mm256_loadu_si256, _mm256_permute2x128_si256, _mm256_set1_epi8,
    _mm256_shuffle_epi8, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_sub_epi64, _mm256_xor_si256, _mm512_add_epi64, _mm512_broadcast_i32x4,
    _mm512_bslli_epi128, _mm512_castsi512_si256, _mm512_clmulepi64_epi128,
    _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_permutexvar_epi64, _mm512_set_epi64,
    _mm512_set1_epi64, _mm512_shuffle_i64x2, _mm512_slli_epi64, _mm512_srli_epi64,
    _mm512_storeu_si512, _mm512_sub_epi64, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

cpufeatures::new!(
    avx512,
    "avx512f",
    "avx512bw",
    "avx512vl",
    "gfni",
    "vpclmulqdq",
    "pclmulqdq",
    "avx2",
    "sse4.1"
);
cpufeatures::new!(avx2, "avx2", "pclmulqdq", "ssse3", "sse4.1");
cpufeatures::new!(sse, "pclmulqdq", "ssse3", "sse4.1");

/// Whether [`Zmm`] may be used.
pub(super) fn has_avx512() -> bool {
    avx512::get()
}

/// Whether [`Ymm`] may be used.
pub(super) fn has_avx2() -> bool {
    /// The bit of VPCLMULQDQ in ECX of leaf 7, subleaf 0 (Intel SDM, volume 2, CPUID). `cpufeatures` asks
    /// for the state of AVX-512 as well, without which there are processors that have it for 32 bytes.
    const VPCLMULQDQ: u32 = 1 << 10;
    avx2::get() && __cpuid_count(7, 0).ecx & VPCLMULQDQ != 0
}

/// Whether [`Xmm`] may be used.
pub(super) fn has_sse() -> bool {
    sse::get()
}

level!(
    each_avx512,
    feed_avx512,
    sums_avx512,
    Zmm,
    4,
    "avx512f,avx512bw,avx512vl,gfni,vpclmulqdq,pclmulqdq"
);
level!(each_avx2, feed_avx2, sums_avx2, Ymm, 2, "avx2,vpclmulqdq,pclmulqdq");
level!(each_sse, feed_sse, sums_sse, Xmm, 1, "pclmulqdq,ssse3,sse4.1");

/// Brings the line of `at` near.
#[inline(always)]
fn fetch(at: *const u8) {
    // SAFETY: a hint; it reads nothing that anybody sees and never faults (Intel SDM, PREFETCHh).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

/// AVX-512 with VPCLMULQDQ and GFNI.
#[derive(Clone, Copy)]
struct Zmm(__m512i);

/// AVX2 with VPCLMULQDQ.
#[derive(Clone, Copy)]
struct Ymm(__m256i);

/// PCLMULQDQ with SSSE3.
#[derive(Clone, Copy)]
struct Xmm(__m128i);

/// Truth table of a ^ b ^ c.
const XOR3: i32 = 0x96;

/// The matrix that turns the bits of a byte round, as the affine instruction takes it: the row of output
/// bit 0 in the highest byte. Output bit i is input bit 7 - i.
const TURN: i64 = {
    let mut rows = [0; 8];
    let mut i = 0;
    while i < 8 {
        rows[7 - i] = 1 << (7 - i);
        i += 1;
    }
    i64::from_le_bytes(rows)
};

/// Half-bytes turned round: as the low half of a byte comes out high, and as the high half comes out low.
const TURNED_HALVES: [[u8; 16]; 2] = {
    let mut tables = [[0; 16]; 2];
    let mut half: u8 = 0;
    while half < 16 {
        tables[0][half as usize] = half.reverse_bits();
        tables[1][half as usize] = half.reverse_bits() >> 4;
        half += 1;
    }
    tables
};

// SAFETY: moves 64 bytes for four lanes; its features are those of `each_avx512`.
unsafe impl Vector<4> for Zmm {
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
    fn expect(at: *const u8) {
        fetch(at);
    }

    #[inline(always)]
    unsafe fn everywhere([low, high]: [u64; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let lane = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
            Self(_mm512_broadcast_i32x4(lane))
        }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_xor_si512(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn turned(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(self.0, _mm512_set1_epi64(TURN)) })
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factors: Self, addend: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let low = _mm512_clmulepi64_epi128::<0x00>(self.0, factors.0);
            let high = _mm512_clmulepi64_epi128::<0x11>(self.0, factors.0);
            Self(_mm512_ternarylogic_epi64::<XOR3>(low, high, addend.0))
        }
    }

    #[inline(always)]
    unsafe fn low_by_low(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_clmulepi64_epi128::<0x00>(self.0, factors.0) })
    }

    #[inline(always)]
    unsafe fn low_by_high(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_clmulepi64_epi128::<0x10>(self.0, factors.0) })
    }

    #[inline(always)]
    unsafe fn low_as_high(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_bslli_epi128::<8>(self.0) })
    }

    #[inline(always)]
    unsafe fn sums([a, b, c, d]: [Self; 4]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let [[a, b], [c, d]] = [halves(a, b), halves(c, d)];
            let [even, odd] = halves(a.xor(b), c.xor(d));
            even.xor(odd)
        }
    }

    #[inline(always)]
    unsafe fn totals([a, b, c, d]: [Self; 4]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let [[a, b], [c, d]] = [halves(a, b), halves(c, d)];
            let [even, odd] = halves(a.plus(b), c.plus(d));
            even.plus(odd)
        }
    }

    #[inline(always)]
    unsafe fn high_words(self) -> [u64; 4] {
        let mut words = [0; 4];
        // SAFETY: writes the 32 bytes that there are; the caller vouches for the features.
        unsafe {
            let high = _mm512_permutexvar_epi64(_mm512_set_epi64(7, 5, 3, 1, 7, 5, 3, 1), self.0);
            _mm256_storeu_si256(words.as_mut_ptr().cast(), _mm512_castsi512_si256(high));
        }
        words
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn high_halves(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_srli_epi64::<32>(self.0) })
    }

    #[inline(always)]
    unsafe fn without_high(self, halves: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm512_sub_epi64(self.0, _mm512_slli_epi64::<32>(halves.0)) })
    }
}

/// The even lanes of `a`, then those of `b`; and the odd ones likewise.
#[inline(always)]
unsafe fn halves(a: Zmm, b: Zmm) -> [Zmm; 2] {
    // SAFETY: the caller vouches for the features.
    unsafe {
        let even = _mm512_shuffle_i64x2::<0b10_00_10_00>(a.0, b.0);
        let odd = _mm512_shuffle_i64x2::<0b11_01_11_01>(a.0, b.0);
        [Zmm(even), Zmm(odd)]
    }
}

// SAFETY: moves 32 bytes for two lanes; its features are those of `each_avx2`.
unsafe impl Vector<2> for Ymm {
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
    fn expect(at: *const u8) {
        fetch(at);
    }

    #[inline(always)]
    unsafe fn everywhere([low, high]: [u64; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let lane = _mm_set_epi64x(high.cast_signed(), low.cast_signed());
            Self(_mm256_broadcastsi128_si256(lane))
        }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_xor_si256(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn turned(self) -> Self {
        // SAFETY: reads the 16 bytes that each table has; the caller vouches for the features.
        unsafe {
            let [low, high] = TURNED_HALVES.each_ref().map(|half| half.as_ptr().cast());
            let low = _mm256_broadcastsi128_si256(_mm_loadu_si128(low));
            let high = _mm256_broadcastsi128_si256(_mm_loadu_si128(high));
            let half = _mm256_set1_epi8(0x0f);
            let high_half = _mm256_and_si256(_mm256_srli_epi64::<4>(self.0), half);
            let low = _mm256_shuffle_epi8(low, _mm256_and_si256(self.0, half));
            Self(_mm256_xor_si256(low, _mm256_shuffle_epi8(high, high_half)))
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factors: Self, addend: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let low = _mm256_clmulepi64_epi128::<0x00>(self.0, factors.0);
            let high = _mm256_clmulepi64_epi128::<0x11>(self.0, factors.0);
            Self(_mm256_xor_si256(_mm256_xor_si256(low, high), addend.0))
        }
    }

    #[inline(always)]
    unsafe fn low_by_low(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_clmulepi64_epi128::<0x00>(self.0, factors.0) })
    }

    #[inline(always)]
    unsafe fn low_by_high(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_clmulepi64_epi128::<0x10>(self.0, factors.0) })
    }

    #[inline(always)]
    unsafe fn low_as_high(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_bslli_epi128::<8>(self.0) })
    }

    #[inline(always)]
    unsafe fn sums([a, b]: [Self; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let [low, high] = apart(a, b);
            low.xor(high)
        }
    }

    #[inline(always)]
    unsafe fn totals([a, b]: [Self; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let [low, high] = apart(a, b);
            low.plus(high)
        }
    }

    #[inline(always)]
    unsafe fn high_words(self) -> [u64; 2] {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let [first, second] =
                [_mm256_extract_epi64::<1>(self.0), _mm256_extract_epi64::<3>(self.0)];
            [first.cast_unsigned(), second.cast_unsigned()]
        }
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn high_halves(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_srli_epi64::<32>(self.0) })
    }

    #[inline(always)]
    unsafe fn without_high(self, halves: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm256_sub_epi64(self.0, _mm256_slli_epi64::<32>(halves.0)) })
    }
}

/// The low lanes of both, and the high ones.
#[inline(always)]
unsafe fn apart(a: Ymm, b: Ymm) -> [Ymm; 2] {
    // SAFETY: the caller vouches for the features.
    unsafe {
        let low = _mm256_permute2x128_si256::<0x20>(a.0, b.0);
        let high = _mm256_permute2x128_si256::<0x31>(a.0, b.0);
        [Ymm(low), Ymm(high)]
    }
}

// SAFETY: moves 16 bytes for one lane; its features are those of `each_sse`.
unsafe impl Vector<1> for Xmm {
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
    fn expect(at: *const u8) {
        fetch(at);
    }

    #[inline(always)]
    unsafe fn everywhere([low, high]: [u64; 2]) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_set_epi64x(high.cast_signed(), low.cast_signed()) })
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_xor_si128(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn turned(self) -> Self {
        // SAFETY: reads the 16 bytes that each table has; the caller vouches for the features.
        unsafe {
            let [low, high] = TURNED_HALVES.each_ref().map(|half| half.as_ptr().cast());
            let (low, high) = (_mm_loadu_si128(low), _mm_loadu_si128(high));
            let half = _mm_set1_epi8(0x0f);
            let high_half = _mm_and_si128(_mm_srli_epi64::<4>(self.0), half);
            let low = _mm_shuffle_epi8(low, _mm_and_si128(self.0, half));
            Self(_mm_xor_si128(low, _mm_shuffle_epi8(high, high_half)))
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factors: Self, addend: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        unsafe {
            let low = _mm_clmulepi64_si128::<0x00>(self.0, factors.0);
            let high = _mm_clmulepi64_si128::<0x11>(self.0, factors.0);
            Self(_mm_xor_si128(_mm_xor_si128(low, high), addend.0))
        }
    }

    #[inline(always)]
    unsafe fn low_by_low(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_clmulepi64_si128::<0x00>(self.0, factors.0) })
    }

    #[inline(always)]
    unsafe fn low_by_high(self, factors: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_clmulepi64_si128::<0x10>(self.0, factors.0) })
    }

    #[inline(always)]
    unsafe fn low_as_high(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_slli_si128::<8>(self.0) })
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
        [unsafe { _mm_extract_epi64::<1>(self.0) }.cast_unsigned()]
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn high_halves(self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_srli_epi64::<32>(self.0) })
    }

    #[inline(always)]
    unsafe fn without_high(self, halves: Self) -> Self {
        // SAFETY: the caller vouches for the features.
        Self(unsafe { _mm_sub_epi64(self.0, _mm_slli_epi64::<32>(halves.0)) })
    }
}
