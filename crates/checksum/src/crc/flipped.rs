//! Which single bit was turned, from what it did to a CRC.
//!
//! A CRC is linear: the difference of two tags is that of their blocks alone, whatever stands in
//! front. A turned bit that `n` bits follow leaves `x^n` times the polynomial's own remainder; these
//! are all different up to lengths that no block reaches, so a difference names at most one bit.
//!
//! ```text
//!   bits as they are fed:    0   1   2   ...   last
//!   difference left:                   step(step(P))   step(P)   P
//! ```

use super::Polynomial;

/// The bit (number `n % 8` of byte `n / 8`) whose turning in a block of `length` bytes makes this
/// `difference` of tags. None: no single bit does.
pub(crate) fn flipped_bit<P: Polynomial>(difference: u32, length: usize) -> Option<usize> {
    let step = |left: u32| (left >> 1) ^ if left & 1 == 1 { P::P } else { 0 };
    let mut left = P::P;
    for bit in (0..length * 8).rev() {
        if left == difference {
            return Some(bit);
        }
        left = step(left);
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::{Algorithm, BlockTagger};
    use proptest::prelude::*;
    use units::BlockSize;

    fn tagger(algorithm: Algorithm, block: BlockSize) -> BlockTagger {
        BlockTagger::new(algorithm, None, Some([9; 16]), block).unwrap()
    }

    proptest! {
        #[test]
        fn any_single_bit_is_found(
            castagnoli: bool,
            log2 in 0u8..4,
            seed: u8,
            sector: u64,
            at in any::<proptest::sample::Index>(),
        ) {
            let algorithm = if castagnoli { Algorithm::Crc32c } else { Algorithm::Crc32 };
            let block = BlockSize::from_log2_sectors(log2).unwrap();
            let tagger = tagger(algorithm, block);
            let mut data: Vec<u8> = (0..block.bytes()).map(|i| i.to_le_bytes()[0] ^ seed).collect();
            let tag = tagger.tag(sector, &data);
            let bit = at.index(data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(tagger.flipped_bit(sector, &data, tag.as_bytes()), Some(bit));
        }

        /// CRC-32C tells any two bits from any one (its minimum distance is 4 at these lengths).
        #[test]
        fn two_bits_are_never_taken_for_one(
            log2 in 0u8..4,
            first in any::<proptest::sample::Index>(),
            second in any::<proptest::sample::Index>(),
        ) {
            let block = BlockSize::from_log2_sectors(log2).unwrap();
            let tagger = tagger(Algorithm::Crc32c, block);
            let mut data = vec![0x5A; block.bytes()];
            let tag = tagger.tag(8, &data);
            let bits = [first, second].map(|at| at.index(data.len() * 8));
            prop_assume!(bits[0] != bits[1]);
            bits.iter().for_each(|bit| data[bit / 8] ^= 1 << (bit % 8));
            prop_assert_eq!(tagger.flipped_bit(8, &data, tag.as_bytes()), None);
        }
    }

    #[test]
    fn what_is_no_crc_or_stores_too_little_of_it_names_nothing() {
        let block = BlockSize::B512;
        let mut data = vec![1; 512];
        let sha = tagger(Algorithm::Sha256, block);
        let tag = sha.tag(0, &data);
        data[0] ^= 1;
        assert_eq!(sha.flipped_bit(0, &data, tag.as_bytes()), None);
        let short = tagger(Algorithm::Crc32c, block).with_tag_bytes(3);
        let mut stored = [0; 3];
        short.tags(0, &[1; 512], &mut stored);
        assert_eq!(short.flipped_bit(0, &data, &stored), None);
    }
}
