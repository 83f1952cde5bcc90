//! What a kernel asks of a vector, and the plain word that is one everywhere.

use crate::field::REDUCTION;

/// A register of field elements.
///
/// # Safety
/// `load` and `store` move exactly `BYTES` bytes at any alignment. The methods may use processor
/// features: they are called only where the level that names the type was detected. All are
/// inlined into the one function per level that switches those features on.
pub(super) unsafe trait Vector: Copy {
    /// A constant, prepared for multiplying by it.
    type Factor: Copy;

    /// Elements in a vector.
    const BYTES: usize;

    /// # Safety
    /// `at` is good for reading `BYTES` bytes; the type's features are there.
    unsafe fn load(at: *const u8) -> Self;
    /// # Safety
    /// `at` is good for writing `BYTES` bytes; the type's features are there.
    unsafe fn store(self, at: *mut u8);
    /// # Safety
    /// The type's features are there.
    unsafe fn xor(self, other: Self) -> Self;
    /// Times g.
    /// # Safety
    /// The type's features are there.
    unsafe fn double(self) -> Self;
    /// # Safety
    /// The type's features are there.
    unsafe fn factor(constant: u8) -> Self::Factor;
    /// # Safety
    /// The type's features are there.
    unsafe fn times(self, factor: Self::Factor) -> Self;
}

/// Eight elements in a 64-bit word.
#[derive(Clone, Copy)]
pub(super) struct Word(u64);

const fn in_each_byte(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

// SAFETY: moves eight bytes, needs no features.
unsafe impl Vector for Word {
    /// For each bit of the constant, all ones or all zeros: no branches, so that the compiler can
    /// make vectors of whatever the target has.
    type Factor = [u64; 8];

    const BYTES: usize = 8;

    #[inline(always)]
    unsafe fn load(at: *const u8) -> Self {
        // SAFETY: the caller vouches for eight bytes.
        Self(unsafe { at.cast::<u64>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut u8) {
        // SAFETY: the caller vouches for eight bytes.
        unsafe { at.cast::<u64>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        let carries = (self.0 >> 7) & in_each_byte(1);
        let shifted = (self.0 << 1) & in_each_byte(0xFE);
        Self(shifted ^ (carries * u64::from(REDUCTION)))
    }

    #[inline(always)]
    unsafe fn factor(constant: u8) -> [u64; 8] {
        std::array::from_fn(|bit| u64::from(constant >> bit & 1).wrapping_neg())
    }

    #[inline(always)]
    unsafe fn times(self, factor: [u64; 8]) -> Self {
        let (mut product, mut power) = (Self(0), self);
        for mask in factor {
            product.0 ^= power.0 & mask;
            // SAFETY: a word needs no features.
            power = unsafe { power.double() };
        }
        product
    }
}
