//! Polynomials over GF(2) modulo those of the CRCs, and what follows for their registers.
//!
//! A CRC is the remainder of the message, read as a polynomial, after division by P. In the
//! reflected form used here bit 31 of a word is the coefficient of x^0 and bit 0 that of x^31.
//! Two facts carry all fast paths:
//!
//! - the register is linear: feeding `a ^ b` from state `s ^ t` ends in the sum of both ends;
//! - feeding n zero bytes multiplies the register by x^(8n) modulo P.

use crc_fast::{CrcAlgorithm, Digest};
use units::BlockSize;

/// One of the two polynomials, and how the CRC that is called after it uses the register.
pub(crate) trait Polynomial: Copy + 'static {
    /// P without its leading term, reflected.
    const P: u32;
    /// How often x must be multiplied by itself to come back to 1 modulo P.
    const ORDER_OF_X: u64;
    /// What the register starts at, and what is summed to it at the end.
    const MASK: u32;
    /// Whether the processor's `crc32` instructions are made for it.
    const IS_CASTAGNOLI: bool = Self::P == Castagnoli::P;

    /// Its tables.
    fn tables() -> &'static Tables;

    /// The register after `bytes`, from all ones, by other people's fastest code.
    fn from_ones(bytes: &[u8]) -> u32;

    /// The register after `bytes`, from `register`, by the same code.
    fn from_register(register: u32, bytes: &[u8]) -> u32;

    /// `a` times `b` modulo P.
    fn multiply(a: u32, b: u32) -> u32 {
        multiply(Self::P, a, b)
    }

    /// x to the power `exponent`, which may be negative: x has an inverse modulo P.
    fn power_of_x(exponent: i64) -> u32 {
        power_of_x(Self::P, Self::ORDER_OF_X, exponent)
    }

    /// The register after the eight bytes of `word` in little-endian order, from `register`.
    fn feed_u64(register: u32, word: u64) -> u32 {
        let bytes = (word ^ u64::from(register)).to_le_bytes();
        let mut next = 0;
        for (table, &byte) in Self::tables().bytes.iter().zip(bytes.iter().rev()) {
            next ^= table[usize::from(byte)];
        }
        next
    }

    /// The register after one block of zeros, from `register`: times x^(8 * bytes), by table.
    fn feed_zero_block(register: u32, block: BlockSize) -> u32 {
        let table = &Self::tables().zero_blocks[usize::from(block.log2_sectors())];
        let bytes = register.to_le_bytes();
        bytes.iter().zip(table).fold(0, |next, (&byte, table)| next ^ table[usize::from(byte)])
    }
}

/// The polynomial of CRC-32C, which starts at all ones and is inverted at the end.
#[derive(Clone, Copy)]
pub(crate) struct Castagnoli;

impl Polynomial for Castagnoli {
    const P: u32 = 0x82F6_3B78;
    /// P is (x + 1) times a primitive polynomial of degree 31.
    const ORDER_OF_X: u64 = (1 << 31) - 1;
    const MASK: u32 = u32::MAX;

    fn tables() -> &'static Tables {
        static TABLES: Tables = Tables::new(Castagnoli::P, Castagnoli::ORDER_OF_X);
        &TABLES
    }

    fn from_ones(bytes: &[u8]) -> u32 {
        !crc_fast::crc32_iscsi(bytes)
    }

    fn from_register(register: u32, bytes: &[u8]) -> u32 {
        crc_fast_from(CrcAlgorithm::Crc32Iscsi, register, bytes)
    }
}

/// The polynomial of IEEE 802.3, which dm-integrity's CRC-32 uses without any inversion: the
/// register starts at zero and is stored as it is (the dm-integrity specification, section 5).
#[derive(Clone, Copy)]
pub(crate) struct Ieee;

impl Polynomial for Ieee {
    const P: u32 = 0xEDB8_8320;
    /// P is primitive.
    const ORDER_OF_X: u64 = (1 << 32) - 1;
    const MASK: u32 = 0;

    fn tables() -> &'static Tables {
        static TABLES: Tables = Tables::new(Ieee::P, Ieee::ORDER_OF_X);
        &TABLES
    }

    fn from_ones(bytes: &[u8]) -> u32 {
        !crc_fast::crc32_iso_hdlc(bytes)
    }

    fn from_register(register: u32, bytes: &[u8]) -> u32 {
        crc_fast_from(CrcAlgorithm::Crc32IsoHdlc, register, bytes)
    }
}

fn crc_fast_from(algorithm: CrcAlgorithm, register: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(algorithm, u64::from(register));
    digest.update(bytes);
    u32::try_from(digest.get_state()).expect("a 32-bit CRC has a 32-bit register")
}

/// What feeding does, looked up.
pub(crate) struct Tables {
    /// `[k][byte]`: the register after `byte` and then k zero bytes, from register zero.
    bytes: [[u32; 256]; 8],
    /// `[log2 of the sectors][k][byte]`: the register after the block's zeros, where it had `byte`
    /// as its k-th byte before and zeros else.
    zero_blocks: [[[u32; 256]; 4]; 4],
}

impl Tables {
    const fn new(p: u32, order_of_x: u64) -> Self {
        let mut zero_blocks = [[[0; 256]; 4]; 4];
        let mut log2_sectors = 0;
        while log2_sectors < 4 {
            let bits = (8 * 512) << log2_sectors;
            zero_blocks[log2_sectors] = zero_block(p, power_of_x(p, order_of_x, bits));
            log2_sectors += 1;
        }
        Self { bytes: bytes(p), zero_blocks }
    }

    /// The register after `bytes`, one by one: what everything faster is held to.
    #[cfg(test)]
    pub(crate) fn bytewise(&self, register: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(register, |register, &byte| {
            let [low, ..] = register.to_le_bytes();
            (register >> 8) ^ self.bytes[0][usize::from(low ^ byte)]
        })
    }
}

/// x^0.
const ONE: u32 = 1 << 31;

const fn multiply(p: u32, mut a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    while b != 0 {
        // Walk b from x^0 upwards; a is multiplied by x on the way.
        if b & ONE != 0 {
            product ^= a;
        }
        b <<= 1;
        a = times_x(p, a);
    }
    product
}

/// x to the power `exponent` modulo `p`, where x has the order `order_of_x`.
pub(crate) const fn power_of_x(p: u32, order_of_x: u64, exponent: i64) -> u32 {
    let mut rest = exponent.rem_euclid(order_of_x.cast_signed()).cast_unsigned();
    let (mut power, mut square) = (ONE, ONE >> 1);
    while rest != 0 {
        if rest & 1 != 0 {
            power = multiply(p, power, square);
        }
        square = multiply(p, square, square);
        rest >>= 1;
    }
    power
}

const fn times_x(p: u32, a: u32) -> u32 {
    if a & 1 != 0 { (a >> 1) ^ p } else { a >> 1 }
}

const fn zero_block(p: u32, shift: u32) -> [[u32; 256]; 4] {
    let mut table = [[0; 256]; 4];
    let mut k = 0;
    while k < 4 {
        let mut byte: u32 = 1;
        while byte < 256 {
            // Linear: the lowest bit alone, and the rest, which is already there.
            let lowest = byte & byte.wrapping_neg();
            table[k][byte as usize] = if lowest == byte {
                multiply(p, byte << (8 * k), shift)
            } else {
                table[k][lowest as usize] ^ table[k][(byte ^ lowest) as usize]
            };
            byte += 1;
        }
        k += 1;
    }
    table
}

const fn bytes(p: u32) -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte: u32 = 0;
    while byte < 256 {
        let mut register = byte;
        let mut row = 0;
        while row < 8 {
            let mut bit = 0;
            while bit < 8 {
                register = times_x(p, register);
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
    fn x_has_the_orders_that_negative_powers_rest_on() {
        fn holds<P: Polynomial>(other_primes: &[u64]) {
            let full = P::ORDER_OF_X.cast_signed();
            // Not reduced: the exponent is split in two below the order.
            let half = P::power_of_x(full / 2);
            assert_eq!(P::multiply(P::multiply(half, half), P::power_of_x(1)), ONE);
            for prime in other_primes {
                let part = (P::ORDER_OF_X / prime).cast_signed();
                assert_ne!(P::power_of_x(part), ONE, "a divisor of the order is not the order");
            }
            assert_eq!(P::multiply(P::power_of_x(-1), P::power_of_x(1)), ONE);
        }
        // 2^31 - 1 is prime; 2^32 - 1 is the product of the Fermat primes.
        holds::<Castagnoli>(&[]);
        holds::<Ieee>(&[3, 5, 17, 257, 65537]);
    }

    fn is_a_ring<P: Polynomial>(a: u32, b: u32, c: u32) {
        let multiply = P::multiply;
        assert_eq!(multiply(a, ONE), a);
        assert_eq!(multiply(a, b), multiply(b, a));
        assert_eq!(multiply(a, b ^ c), multiply(a, b) ^ multiply(a, c));
        assert_eq!(multiply(multiply(a, b), c), multiply(a, multiply(b, c)));
    }

    fn powers_add<P: Polynomial>(m: i64, n: i64) {
        assert_eq!(P::multiply(P::power_of_x(m), P::power_of_x(n)), P::power_of_x(m + n));
    }

    fn zeros_multiply<P: Polynomial>(register: u32, block: BlockSize) {
        let shift = P::power_of_x((8 * 512) << block.log2_sectors());
        assert_eq!(P::feed_zero_block(register, block), P::multiply(register, shift));
        let zeros = vec![0; block.bytes()];
        assert_eq!(P::feed_zero_block(register, block), P::tables().bytewise(register, &zeros));
    }

    fn one_by_one<P: Polynomial>(register: u32, word: u64) {
        let mut expected = register;
        for byte in word.to_le_bytes() {
            expected ^= u32::from(byte);
            for _ in 0..8 {
                expected = times_x(P::P, expected);
            }
        }
        assert_eq!(P::feed_u64(register, word), expected);
        assert_eq!(P::tables().bytewise(register, &word.to_le_bytes()), expected);
    }

    fn crc_fast_agrees<P: Polynomial>(register: u32, bytes: &[u8]) {
        assert_eq!(P::from_ones(bytes), P::tables().bytewise(u32::MAX, bytes));
        assert_eq!(P::from_register(register, bytes), P::tables().bytewise(register, bytes));
    }

    proptest! {
        #[test]
        fn multiplication_is_a_ring(a: u32, b: u32, c: u32) {
            is_a_ring::<Castagnoli>(a, b, c);
            is_a_ring::<Ieee>(a, b, c);
        }

        #[test]
        fn powers_of_x_add(m in -10_000i64..10_000, n in -10_000i64..10_000) {
            powers_add::<Castagnoli>(m, n);
            powers_add::<Ieee>(m, n);
        }

        #[test]
        fn a_block_of_zeros_is_a_multiplication(register: u32, log2 in 0u8..4) {
            let block = BlockSize::from_log2_sectors(log2).unwrap();
            zeros_multiply::<Castagnoli>(register, block);
            zeros_multiply::<Ieee>(register, block);
        }

        #[test]
        fn eight_bytes_at_once_are_eight_bytes_one_by_one(register: u32, word: u64) {
            one_by_one::<Castagnoli>(register, word);
            one_by_one::<Ieee>(register, word);
        }

        #[test]
        fn other_peoples_code_moves_the_same_register(
            register: u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            crc_fast_agrees::<Castagnoli>(register, &bytes);
            crc_fast_agrees::<Ieee>(register, &bytes);
        }
    }
}
