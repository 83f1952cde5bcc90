//! Tags of blocks, one or many at a time.

use crate::simd::{self, Blocks, Level};
use crate::{Algorithm, Crc32c};
use units::BlockSize;

/// Bytes of salt in a superblock that has the salt flag.
pub const SALT_BYTES: usize = 16;

/// Makes and checks the CRC-32C tags of one volume.
///
/// `tag = crc32c(salt || LE64(sector of the block's first sector) || data)`, stored little-endian,
/// cut or followed by zeros to the volume's tag size. (The dm-integrity specification, section 5.)
/// The salt is fed once, here; sectors count 512 bytes whatever the block size is.
#[derive(Clone, Copy, Debug)]
pub struct BlockTagger {
    salted: u32,
    block: BlockSize,
    tag_bytes: usize,
    level: Level,
}

impl BlockTagger {
    /// For a volume with this salt (none if its superblock has no salt flag) and block size, whose
    /// tags are the whole digest.
    #[must_use]
    pub fn new(salt: Option<[u8; SALT_BYTES]>, block: BlockSize) -> Self {
        let mut crc = Crc32c::new();
        crc.update(salt.as_ref().map_or(&[], |salt| salt.as_slice()));
        let tag_bytes = Algorithm::Crc32c.digest_len();
        Self { salted: crc.register(), block, tag_bytes, level: Level::best() }
    }

    /// The same with tags of `tag_bytes`: shorter ones are the digest's beginning, longer ones end
    /// in zeros.
    ///
    /// # Panics
    /// If `tag_bytes` is zero: such a volume has no tags to make.
    #[must_use]
    pub fn with_tag_bytes(self, tag_bytes: usize) -> Self {
        assert!(tag_bytes > 0, "a tag has at least one byte");
        Self { tag_bytes, ..self }
    }

    /// Bytes of one stored tag.
    #[must_use]
    pub const fn tag_bytes(&self) -> usize {
        self.tag_bytes
    }

    /// The size of the blocks it tags.
    #[must_use]
    pub const fn block(&self) -> BlockSize {
        self.block
    }

    /// The digest of the block at `sector`; store it little-endian.
    ///
    /// # Panics
    /// If `data` is not one block.
    #[must_use]
    pub fn tag(&self, sector: u64, data: &[u8]) -> u32 {
        assert_eq!(data.len(), self.block.bytes(), "the data is one block");
        let mut found = 0;
        simd::each_tag(self.level, self.blocks(sector, data), |_, tag| {
            found = tag;
            true
        });
        found
    }

    /// Writes the stored tags of consecutive blocks, the first at `first_sector`, to `tags`.
    ///
    /// # Panics
    /// If `data` is not a whole number of blocks, or `tags` has not one tag for each.
    pub fn tags(&self, first_sector: u64, data: &[u8], tags: &mut [u8]) {
        self.assert_lengths(data, tags);
        let blocks = self.blocks(first_sector, data);
        if let (tags, []) = tags.as_chunks_mut::<4>()
            && self.tag_bytes == 4
        {
            let mut tags = tags.iter_mut();
            simd::each_tag(self.level, blocks, |_, tag| {
                tags.next().map(|stored| *stored = tag.to_le_bytes()).is_some()
            });
        } else {
            let mut tags = tags.chunks_exact_mut(self.tag_bytes);
            simd::each_tag(self.level, blocks, |_, tag| {
                tags.next().map(|stored| store(stored, tag)).is_some()
            });
        }
    }

    /// Compares consecutive blocks, the first at `first_sector`, with their stored tags: the index
    /// of the first block that differs, if one does. To look on, verify again from behind it.
    ///
    /// # Panics
    /// If `data` is not a whole number of blocks, or `tags` has not one tag for each.
    #[must_use]
    pub fn verify(&self, first_sector: u64, data: &[u8], tags: &[u8]) -> Option<usize> {
        self.assert_lengths(data, tags);
        let blocks = self.blocks(first_sector, data);
        if let (tags, []) = tags.as_chunks::<4>()
            && self.tag_bytes == 4
        {
            simd::each_tag(self.level, blocks, |i, tag| u32::from_le_bytes(tags[i]) == tag)
        } else {
            let mut tags = tags.chunks_exact(self.tag_bytes);
            simd::each_tag(self.level, blocks, |_, tag| {
                tags.next().is_some_and(|stored| is_stored(stored, tag))
            })
        }
    }

    fn blocks<'a>(&self, first_sector: u64, data: &'a [u8]) -> Blocks<'a> {
        Blocks { salted: self.salted, first_sector, block: self.block, data }
    }

    fn assert_lengths(&self, data: &[u8], tags: &[u8]) {
        let block_bytes = self.block.bytes();
        assert!(data.len().is_multiple_of(block_bytes), "the data is a whole number of blocks");
        let expected = data.len() / block_bytes * self.tag_bytes;
        assert_eq!(tags.len(), expected, "there is one tag for each block");
    }

    /// Register after the salt.
    pub(crate) const fn salted(&self) -> u32 {
        self.salted
    }
}

/// Writes `tag` as it is stored.
pub(crate) fn store(stored: &mut [u8], tag: u32) {
    let digest = tag.to_le_bytes();
    let cut = stored.len().min(digest.len());
    let (head, rest) = stored.split_at_mut(cut);
    head.copy_from_slice(&digest[..cut]);
    rest.fill(0);
}

/// Whether `stored` is `tag` as it is stored.
fn is_stored(stored: &[u8], tag: u32) -> bool {
    let digest = tag.to_le_bytes();
    let (head, rest) = stored.split_at(stored.len().min(digest.len()));
    digest.starts_with(head) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ZeroTags, crc32c};
    use proptest::prelude::*;

    const SALT: [u8; SALT_BYTES] = *b"sixteen of salt.";

    /// The specification's sentence, word by word.
    fn by_definition(salt: Option<[u8; SALT_BYTES]>, sector: u64, data: &[u8]) -> u32 {
        let mut message = salt.map_or_else(Vec::new, Vec::from);
        message.extend(sector.to_le_bytes());
        message.extend(data);
        crc32c(&message)
    }

    fn any_block() -> impl Strategy<Value = BlockSize> {
        (0u8..4).prop_map(|log2| BlockSize::from_log2_sectors(log2).unwrap())
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 11).to_le_bytes()[0]).collect()
    }

    proptest! {
        #[test]
        fn tags_are_what_the_specification_says(
            salt in proptest::option::of(any::<[u8; SALT_BYTES]>()),
            block in any_block(),
            tag_bytes in 1usize..9,
            first_sector in 0u64..1 << 60,
            count in 0usize..5,
        ) {
            let data = pattern(count * block.bytes());
            let tagger = BlockTagger::new(salt, block).with_tag_bytes(tag_bytes);
            let mut tags = vec![0xEE; count * tag_bytes];
            tagger.tags(first_sector, &data, &mut tags);
            prop_assert_eq!(tagger.verify(first_sector, &data, &tags), None);
            let mut sector = first_sector;
            for (data, stored) in data.chunks(block.bytes()).zip(tags.chunks(tag_bytes)) {
                let tag = by_definition(salt, sector, data);
                let mut expected = tag.to_le_bytes().to_vec();
                expected.resize(tag_bytes, 0);
                prop_assert_eq!(stored, expected);
                prop_assert_eq!(tagger.tag(sector, data), tag);
                sector += block.sectors();
            }
        }

        #[test]
        fn one_flipped_bit_is_caught_in_its_block(
            block in any_block(),
            at in any::<proptest::sample::Index>(),
            bit in 0u8..8,
        ) {
            let mut data = pattern(4 * block.bytes());
            let tagger = BlockTagger::new(Some(SALT), block);
            let mut tags = [0; 16];
            tagger.tags(64, &data, &mut tags);
            let at = at.index(data.len());
            data[at] ^= 1 << bit;
            prop_assert_eq!(tagger.verify(64, &data, &tags), Some(at / block.bytes()));
        }

        #[test]
        fn one_flipped_bit_of_a_tag_is_caught_padding_included(
            tag_bytes in 1usize..9,
            at in any::<proptest::sample::Index>(),
            bit in 0u8..8,
        ) {
            let data = pattern(4 * 512);
            let tagger = BlockTagger::new(None, BlockSize::B512).with_tag_bytes(tag_bytes);
            let mut tags = vec![0; 4 * tag_bytes];
            tagger.tags(7, &data, &mut tags);
            let at = at.index(tags.len());
            tags[at] ^= 1 << bit;
            prop_assert_eq!(tagger.verify(7, &data, &tags), Some(at / tag_bytes));
        }
    }

    #[test]
    fn the_kernel_stored_this_tag() {
        // Golden image crc32c-512 (Linux 6.12): its salt, and the tag of sector 2000, all zeros.
        let salt = 0xC1FF_7540_F896_7714_9306_4D0F_97CF_B84A_u128.to_be_bytes();
        let tagger = BlockTagger::new(Some(salt), BlockSize::B512);
        let stored = [0xB2, 0x86, 0x47, 0xFB];
        assert_eq!(tagger.verify(2000, &[0; 512], &stored), None);
        let mut tag = [0; 4];
        ZeroTags::new(&tagger).fill(2000, &mut tag);
        assert_eq!(tag, stored);
    }

    #[test]
    fn a_block_in_the_wrong_place_is_caught() {
        let data = pattern(512);
        let tagger = BlockTagger::new(Some(SALT), BlockSize::B512);
        let mut tags = [0; 4];
        tagger.tags(1000, &data, &mut tags);
        assert_eq!(tagger.verify(1001, &data, &tags), Some(0));
    }

    #[test]
    #[should_panic(expected = "one tag for each block")]
    fn a_missing_tag_is_a_bug_of_the_caller() {
        BlockTagger::new(None, BlockSize::B512).tags(0, &[0; 1024], &mut [0; 4]);
    }
}
