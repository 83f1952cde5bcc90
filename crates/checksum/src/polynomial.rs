//! Polynomials over GF(2) modulo the Castagnoli polynomial, and what follows for CRC-32C.
//!
//! A CRC is the remainder of the message, read as a polynomial, after division by P. In the
//! reflected form used here bit 31 of a word is the coefficient of x^0 and bit 0 that of x^31.
//! Two facts carry all fast paths:
//!
//! - the register is linear: feeding `a ^ b` from state `s ^ t` ends in the sum of both ends;
//! - feeding n zero bytes multiplies the register by x^(8n) modulo P.

use units::BlockSize;

/// P without its leading term, reflected.
const P: u32 = 0x82F6_3B78;

/// The order of x modulo P: P is (x + 1) times a primitive polynomial of degree 31.
const ORDER_OF_X: u64 = (1 << 31) - 1;

/// x^0.
const ONE: u32 = 1 << 31;

/// `a` times `b` modulo P.
pub(crate) const fn multiply(mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while b != 0 {
        // Walk b from x^0 upwards; a is multiplied by x on the way.
        if b & ONE != 0 {
            product ^= a;
        }
        b <<= 1;
        a = times_x(a);
    }
    product
}

/// x to the power `exponent`, which may be negative: x has an inverse modulo P.
pub(crate) const fn power_of_x(exponent: i64) -> u32 {
    let mut rest = exponent.rem_euclid(ORDER_OF_X.cast_signed()).cast_unsigned();
    let (mut power, mut square) = (ONE, ONE >> 1);
    while rest != 0 {
        if rest & 1 != 0 {
            power = multiply(power, square);
        }
        square = multiply(square, square);
        rest >>= 1;
    }
    power
}

/// `TABLES[k][byte]`: the register after `byte` and then k zero bytes, from register zero.
pub(crate) static TABLES: [[u32; 256]; 8] = tables();

/// The register after the eight bytes of `word` in little-endian order, from `state`.
pub(crate) fn feed_u64(state: u32, word: u64) -> u32 {
    let bytes = (word ^ u64::from(state)).to_le_bytes();
    let mut next = 0;
    for (zeros, &byte) in bytes.iter().rev().enumerate() {
        next ^= TABLES[zeros][usize::from(byte)];
    }
    next
}

/// The register after one block of zeros, from `register`: `multiply` by x^(8 * bytes), by table.
pub(crate) fn feed_zero_block(register: u32, block: BlockSize) -> u32 {
    let table = &ZERO_BLOCKS[usize::from(block.log2_sectors())];
    let bytes = register.to_le_bytes();
    bytes.iter().zip(table).fold(0, |next, (&byte, table)| next ^ table[usize::from(byte)])
}

/// `ZERO_BLOCKS[log2 of the sectors][k][byte]`: the register after the block's zeros, where it had
/// `byte` as its k-th byte before and zeros else.
static ZERO_BLOCKS: [[[u32; 256]; 4]; 4] =
    [zero_block(8 * 512), zero_block(8 * 1024), zero_block(8 * 2048), zero_block(8 * 4096)];

const fn zero_block(bits: i64) -> [[u32; 256]; 4] {
    let shift = power_of_x(bits);
    let mut table = [[0; 256]; 4];
    let mut k = 0;
    while k < 4 {
        let mut byte: u32 = 1;
        while byte < 256 {
            // Linear: the lowest bit alone, and the rest, which is already there.
            let lowest = byte & byte.wrapping_neg();
            table[k][byte as usize] = if lowest == byte {
                multiply(byte << (8 * k), shift)
            } else {
                table[k][lowest as usize] ^ table[k][(byte ^ lowest) as usize]
            };
            byte += 1;
        }
        k += 1;
    }
    table
}

const fn times_x(a: u32) -> u32 {
    if a & 1 != 0 { (a >> 1) ^ P } else { a >> 1 }
}

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut register = byte;
        let mut row = 0;
        while row < 8 {
            let mut bit = 0;
            while bit < 8 {
                register = times_x(register);
                bit += 1;
            }
            tables[row][byte as usize] = register;
            row += 1;
        }
        byte += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn x_has_the_order_that_negative_powers_rest_on() {
        assert_eq!(power_of_x(0), ONE);
        assert_eq!(multiply(power_of_x(-1), power_of_x(1)), ONE);
        assert_eq!(power_of_x(i64::from(u32::MAX)), power_of_x(1), "2^32-1 = 2*(2^31-1) + 1");
    }

    proptest! {
        #[test]
        fn multiplication_is_a_ring(a: u32, b: u32, c: u32) {
            prop_assert_eq!(multiply(a, ONE), a);
            prop_assert_eq!(multiply(a, b), multiply(b, a));
            prop_assert_eq!(multiply(a, b ^ c), multiply(a, b) ^ multiply(a, c));
            prop_assert_eq!(multiply(multiply(a, b), c), multiply(a, multiply(b, c)));
        }

        #[test]
        fn powers_add(m in -10_000i64..10_000, n in -10_000i64..10_000) {
            prop_assert_eq!(multiply(power_of_x(m), power_of_x(n)), power_of_x(m + n));
        }

        #[test]
        fn a_block_of_zeros_is_a_multiplication(register: u32, log2 in 0u8..4) {
            let block = BlockSize::from_log2_sectors(log2).unwrap();
            let shift = power_of_x((8 * 512) << log2);
            prop_assert_eq!(feed_zero_block(register, block), multiply(register, shift));
        }

        #[test]
        fn eight_bytes_at_once_are_eight_bytes_one_by_one(state: u32, word: u64) {
            let mut register = state;
            for byte in word.to_le_bytes() {
                register ^= u32::from(byte);
                for _ in 0..8 {
                    register = times_x(register);
                }
            }
            prop_assert_eq!(feed_u64(state, word), register);
        }
    }
}
