//! Tags of blocks that hold zeros: for the CRCs, without looking at a single zero.
//!
//! A CRC's register is linear, so the tag of a zero block is an affine function of its sector
//! number: `tag(a ^ b) = tag(a) ^ tag(b) ^ tag(0)`. A group of 1024 aligned blocks therefore needs
//! one real tag, that of its first block, and a table of differences which all groups share.
//!
//! Other hashes have no such shortcut: the sector number stands before the zeros, so nothing
//! behind it is shared, and each block is hashed whole.

use crate::crc::{Crc, Polynomial};
use crate::digest::store;
use crate::hash::Hasher;
use crate::tagger::BlockTagger;
use units::{BlockSize, u64_of, usize_of};

/// Writes the tags of zero blocks as fast as the algorithm allows.
#[derive(Clone, Debug)]
pub struct ZeroTags {
    tagger: BlockTagger,
    linear: Option<Linear>,
}

/// What a CRC needs to know.
#[derive(Clone, Debug)]
struct Linear {
    /// The tag of the zero block at a sector, from the register after the salt.
    tag: fn(u32, u64, BlockSize) -> u32,
    /// Register after the salt.
    salted: u32,
    /// Difference between the tags of block i and of block 0.
    differences: Box<[u32]>,
}

impl ZeroTags {
    /// For the volume whose tags `tagger` makes.
    #[must_use]
    pub fn new(tagger: &BlockTagger) -> Self {
        let linear = match tagger.salted() {
            Hasher::Crc32c(crc) => Some(Linear::new(*crc, tagger.block())),
            Hasher::Crc32(crc) => Some(Linear::new(*crc, tagger.block())),
            _ => None,
        };
        Self { tagger: tagger.clone(), linear }
    }

    /// Writes the stored tags of consecutive zero blocks, the first at `first_sector`.
    ///
    /// # Panics
    /// If `first_sector` is not a multiple of the block size, or `tags` not a whole number of tags.
    pub fn fill(&self, first_sector: u64, tags: &mut [u8]) {
        let (block, tag_bytes) = (self.tagger.block(), self.tagger.tag_bytes());
        assert!(block.divides(first_sector), "a block starts at a multiple of its size");
        assert!(tags.len().is_multiple_of(tag_bytes), "the tags are whole");
        if let Some(linear) = &self.linear {
            linear.fill(first_sector, block, tags, tag_bytes);
        } else {
            let zeros = &ZEROS[..block.bytes()];
            let mut sector = first_sector;
            for stored in tags.chunks_exact_mut(tag_bytes) {
                self.tagger.tags(sector, zeros, stored);
                sector = sector.wrapping_add(block.sectors());
            }
        }
    }
}

impl Linear {
    fn new<P: Polynomial>(salted: Crc<P>, block: BlockSize) -> Self {
        let (tag, salted) = (tag::<P>, salted.register());
        let origin = tag(salted, 0, block);
        let of = |i| tag(salted, i * block.sectors(), block) ^ origin;
        Self { tag, salted, differences: (0..GROUP_BLOCKS).map(of).collect() }
    }

    fn fill(&self, first_sector: u64, block: BlockSize, tags: &mut [u8], tag_bytes: usize) {
        let mut index = first_sector / block.sectors();
        let mut rest = tags;
        while !rest.is_empty() {
            let within = index % GROUP_BLOCKS;
            let differences = &self.differences[usize_of(within)..];
            let count = differences.len().min(rest.len() / tag_bytes);
            let (group, behind) = rest.split_at_mut(count * tag_bytes);
            let origin = (self.tag)(self.salted, (index - within) * block.sectors(), block);
            fill_group(origin, differences, group, tag_bytes);
            index += u64_of(count);
            rest = behind;
        }
    }
}

/// Writes tags of one group, whose first block has the tag `origin`.
fn fill_group(origin: u32, differences: &[u32], tags: &mut [u8], tag_bytes: usize) {
    if let (tags, []) = tags.as_chunks_mut::<4>()
        && tag_bytes == 4
    {
        for (stored, difference) in tags.iter_mut().zip(differences) {
            *stored = (origin ^ difference).to_le_bytes();
        }
    } else {
        for (stored, difference) in tags.chunks_exact_mut(tag_bytes).zip(differences) {
            store(stored, &(origin ^ difference).to_le_bytes());
        }
    }
}

fn tag<P: Polynomial>(salted: u32, sector: u64, block: BlockSize) -> u32 {
    P::feed_zero_block(P::feed_u64(salted, sector), block) ^ P::MASK
}

/// Blocks that share one computed tag; a power of two, so that a block's index within its group
/// and the group's first sector have no bit in common. 4 KiB of differences stay in the first
/// cache.
const GROUP_BLOCKS: u64 = 1024;

/// A block of the largest size.
static ZEROS: [u8; 4096] = [0; 4096];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Algorithm;
    use crate::tests::{any_key_for, block_of};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_the_tags_of_zeros(
            salt in proptest::option::of(any::<[u8; 16]>()),
            algorithm in proptest::sample::select(&[Algorithm::Crc32c, Algorithm::Crc32][..]),
            log2 in 0u8..4,
            tag_bytes in 1usize..9,
            first_block in prop_oneof![0u64..5000, 0u64..1 << 50],
            count in 0usize..3000,
        ) {
            let tagger = BlockTagger::new(algorithm, None, salt, block_of(log2)).unwrap();
            are_tags_of_zeros(&tagger.with_tag_bytes(tag_bytes), first_block, count);
        }

        #[test]
        fn they_are_the_tags_of_zeros_where_each_is_hashed(
            salt in proptest::option::of(any::<[u8; 16]>()),
            algorithm in proptest::sample::select(Algorithm::ALL),
            log2 in 0u8..4,
            tag_bytes in 1usize..70,
            first_block in 0u64..1 << 50,
            count in 0usize..4,
        ) {
            let key = any_key_for(algorithm);
            let tagger = BlockTagger::new(algorithm, key.as_ref(), salt, block_of(log2)).unwrap();
            are_tags_of_zeros(&tagger.with_tag_bytes(tag_bytes), first_block, count);
        }
    }

    fn are_tags_of_zeros(tagger: &BlockTagger, first_block: u64, count: usize) {
        let first_sector = first_block * tagger.block().sectors();
        let mut tags = vec![0xEE; count * tagger.tag_bytes()];
        ZeroTags::new(tagger).fill(first_sector, &mut tags);
        let mut expected = vec![0x11; tags.len()];
        tagger.tags(first_sector, &vec![0; count * tagger.block().bytes()], &mut expected);
        assert!(tags == expected);
    }
}
