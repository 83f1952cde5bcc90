//! Tags of blocks that hold zeros, without looking at a single zero.
//!
//! The CRC register is linear, so the tag of a zero block is an affine function of its sector
//! number: `tag(a ^ b) = tag(a) ^ tag(b) ^ tag(0)`. A group of 1024 aligned blocks therefore needs
//! one real tag, that of its first block, and a table of differences which all groups share.

use crate::polynomial::{feed_u64, feed_zero_block};
use crate::tagger::{BlockTagger, store};
use units::{BlockSize, u64_of, usize_of};

/// Writes the tags of zero blocks as fast as memory takes them.
#[derive(Clone, Debug)]
pub struct ZeroTags {
    /// Register after the salt.
    salted: u32,
    /// Difference between the tags of block i and of block 0.
    differences: Box<[u32]>,
    block: BlockSize,
    tag_bytes: usize,
}

impl ZeroTags {
    /// For the volume whose tags `tagger` makes.
    #[must_use]
    pub fn new(tagger: &BlockTagger) -> Self {
        let block = tagger.block();
        let mut zeros = Self {
            salted: tagger.salted(),
            differences: Box::default(),
            block,
            tag_bytes: tagger.tag_bytes(),
        };
        let origin = zeros.tag(0);
        zeros.differences =
            (0..GROUP_BLOCKS).map(|i| zeros.tag(i * block.sectors()) ^ origin).collect();
        zeros
    }

    /// The digest of a zero block at `sector`.
    #[must_use]
    pub fn tag(&self, sector: u64) -> u32 {
        !feed_zero_block(feed_u64(self.salted, sector), self.block)
    }

    /// Writes the stored tags of consecutive zero blocks, the first at `first_sector`.
    ///
    /// # Panics
    /// If `first_sector` is not a multiple of the block size, or `tags` not a whole number of tags.
    pub fn fill(&self, first_sector: u64, tags: &mut [u8]) {
        assert!(self.block.divides(first_sector), "a block starts at a multiple of its size");
        assert!(tags.len().is_multiple_of(self.tag_bytes), "the tags are whole");
        let mut block = first_sector / self.block.sectors();
        let mut rest = tags;
        while !rest.is_empty() {
            let within = block % GROUP_BLOCKS;
            let differences = &self.differences[usize_of(within)..];
            let count = differences.len().min(rest.len() / self.tag_bytes);
            let (group, behind) = rest.split_at_mut(count * self.tag_bytes);
            self.fill_group((block - within) * self.block.sectors(), differences, group);
            block += u64_of(count);
            rest = behind;
        }
    }

    /// Writes tags of one group, whose first block is at `sector`.
    fn fill_group(&self, sector: u64, differences: &[u32], tags: &mut [u8]) {
        let origin = self.tag(sector);
        if let (tags, []) = tags.as_chunks_mut::<4>()
            && self.tag_bytes == 4
        {
            for (stored, difference) in tags.iter_mut().zip(differences) {
                *stored = (origin ^ difference).to_le_bytes();
            }
        } else {
            for (stored, difference) in tags.chunks_exact_mut(self.tag_bytes).zip(differences) {
                store(stored, origin ^ difference);
            }
        }
    }
}

/// Blocks that share one computed tag; a power of two, so that a block's index within its group
/// and the group's first sector have no bit in common. 4 KiB of differences stay in the first
/// cache.
const GROUP_BLOCKS: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_the_tags_of_zeros(
            salt in proptest::option::of(any::<[u8; 16]>()),
            log2 in 0u8..4,
            tag_bytes in 1usize..9,
            first_block in prop_oneof![0u64..5000, 0u64..1 << 50],
            count in 0usize..3000,
        ) {
            let block = BlockSize::from_log2_sectors(log2).unwrap();
            let tagger = BlockTagger::new(salt, block).with_tag_bytes(tag_bytes);
            let zeros = ZeroTags::new(&tagger);
            let first_sector = first_block * block.sectors();
            let mut tags = vec![0xEE; count * tag_bytes];
            zeros.fill(first_sector, &mut tags);
            let mut expected = vec![0x11; count * tag_bytes];
            tagger.tags(first_sector, &vec![0; count * block.bytes()], &mut expected);
            prop_assert!(tags == expected);
            let alone = tagger.tag(first_sector, &vec![0; block.bytes()]);
            prop_assert_eq!(zeros.tag(first_sector), alone);
        }
    }
}
