//! The constants of folding, derived from the polynomials.
//!
//! **One width.** A CRC of w bits is treated as one of 64: its polynomial times x^(64-w), whose registers
//! are those of the narrow one times x^(64-w). In a reflected register, where bit i is the coefficient of
//! x^(63-i), that factor leaves the number as it is: the taps and the register of [`Polynomial`] are
//! already those of 64 bits. CRC-16/T10-DIF is not reflected, but with the bits of every byte of the data
//! turned round it is the reflected CRC of the turned polynomial, and its register comes out turned.
//!
//! **Folding.** A lane is 128 bits: a low word, which comes first in the data and so counts x^64 times as
//! much as the high word behind it. Carry-less multiplication of two reflected words gives the reflected
//! product times x. To shift a lane by n bits, its high word is multiplied by x^(n-1), its low word by
//! x^(n+63), both modulo the polynomial, and the products are summed. All the exponents needed are
//! 63 + 64k: [`Folding::powers`].
//!
//! **Reducing.** Lanes are folded to where the register is, 64 bits behind the end of the data, so that
//! their sum only has to be taken modulo the polynomial P. Read as a number whose lowest bit comes first,
//! P is odd (its highest coefficient is 1), so there is a multiple q of it that equals the sum in the low
//! word: q = low * P^-1 modulo 2^64. Take it away, and what is left in the high word is the register.

use super::Crc;
use crate::polynomial::Polynomial;

/// Vectors of a block: so many sums are under way together, which hides how long a multiplication takes.
pub(super) const VECTORS: usize = 8;

/// Lanes in a block of the widest vectors.
pub(super) const LANES_MAX: usize = VECTORS * 4;

/// A CRC by folding.
pub(super) trait Fold: Crc {
    /// Its constants.
    const FOLDING: &'static Folding;
}

impl<C: Crc> Fold for C {
    const FOLDING: &'static Folding = &Folding::of(C::POLYNOMIAL);
}

/// The constants of a polynomial.
pub(super) struct Folding {
    /// For each lane of the last block, first lane first: shifts it to 64 bits behind the data's end. A
    /// smaller block takes the last ones.
    to_end: [[u64; 2]; LANES_MAX],
    /// By block of 8, 16 and 32 lanes: shifts a lane by the block.
    by_block: [[u64; 2]; 3],
    /// P^-1 modulo 2^64, and P without its bit 64, lowest bit first.
    pub(super) reduction: [u64; 2],
    /// P has a bit 64: the width is 64.
    pub(super) has_bit_64: bool,
}

impl Folding {
    const fn of(polynomial: &Polynomial) -> Self {
        let taps = polynomial.reflected_taps();
        let powers = Self::powers(taps);
        let mut to_end = [[0; 2]; LANES_MAX];
        let mut lane = 0;
        while lane < LANES_MAX {
            // 128 * behind + 64 bits to go.
            let behind = LANES_MAX - 1 - lane;
            to_end[lane] = [powers[2 * behind + 1], powers[2 * behind]];
            lane += 1;
        }
        let mut by_block = [[0; 2]; 3];
        let mut size = 0;
        while size < 3 {
            let words = (2 * VECTORS) << size;
            by_block[size] = [powers[words], powers[words - 1]];
            size += 1;
        }
        let odd = taps << 1 | 1;
        Self { to_end, by_block, reduction: [inverse(odd), odd], has_bit_64: taps >> 63 == 1 }
    }

    /// x^(63 + 64k) modulo the polynomial, for each k; the first is below any polynomial of 64 bits.
    const fn powers(taps: u64) -> [u64; 2 * LANES_MAX + 1] {
        let mut powers = [1; 2 * LANES_MAX + 1];
        let mut k = 1;
        while k < powers.len() {
            let (mut power, mut bit) = (powers[k - 1], 0);
            while bit < 64 {
                power = (power >> 1) ^ if power & 1 == 1 { taps } else { 0 };
                bit += 1;
            }
            powers[k] = power;
            k += 1;
        }
        powers
    }

    /// Shift the last so many lanes of the data to 64 bits behind its end; there are [`LANES_MAX`] of them.
    pub(super) const fn to_end(&self, lanes: usize) -> &[[u64; 2]] {
        self.to_end.split_at(LANES_MAX - lanes).1
    }

    /// Shifts a lane by a block of vectors of so many lanes.
    pub(super) const fn by_block(&self, vector_lanes: usize) -> [u64; 2] {
        self.by_block[vector_lanes.ilog2() as usize]
    }
}

/// The carry-less inverse of an odd number modulo 2^64, by Newton's step: if `odd * inverse` is 1 + e,
/// then `odd * (odd * inverse^2)` is 1 + e^2, right in twice as many bits.
const fn inverse(odd: u64) -> u64 {
    let (mut inverse, mut right_bits) = (1, 1);
    while right_bits < 64 {
        inverse = low_product(odd, low_product(inverse, inverse));
        right_bits *= 2;
    }
    inverse
}

/// The carry-less product modulo 2^64.
const fn low_product(a: u64, b: u64) -> u64 {
    let (mut product, mut bit) = (0, 0);
    while bit < 64 {
        if b >> bit & 1 == 1 {
            product ^= a << bit;
        }
        bit += 1;
    }
    product
}
