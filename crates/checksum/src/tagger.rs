//! Tags of blocks, one or many at a time.

use crate::crc::{Castagnoli, Ieee, flipped_bit};
use crate::digest::{Digest, is_stored, store};
use crate::hash::{Blocks, Hash, Hasher, with_hash};
use crate::{Algorithm, Key, KeyError};
use std::fmt;
use units::BlockSize;

/// Bytes of salt in a superblock that has the salt flag.
pub const SALT_BYTES: usize = 16;

/// What each byte of the tag of a discarded block is, unless the superblock asks for keyed tags
/// there (the dm-integrity specification, section 5.1).
pub const DISCARD_FILLER: u8 = 0xF6;

/// Makes and checks the tags of one volume.
///
/// `tag = H(salt || LE64(sector of the block's first sector) || data)`, cut or followed by zeros to
/// the volume's tag size. (The dm-integrity specification, section 5.) Key and salt are fed once,
/// here; sectors count 512 bytes whatever the block size is.
#[derive(Clone)]
pub struct BlockTagger {
    algorithm: Algorithm,
    /// Behind key and salt.
    salted: Hasher,
    block: BlockSize,
    tag_bytes: usize,
}

impl BlockTagger {
    /// For a volume with this key (if the algorithm takes one), this salt (if its superblock has
    /// the salt flag) and block size, whose tags are the whole digest.
    ///
    /// # Errors
    /// [`KeyError::Missing`] or [`KeyError::Unwanted`].
    pub fn new(
        algorithm: Algorithm,
        key: Option<&Key>,
        salt: Option<[u8; SALT_BYTES]>,
        block: BlockSize,
    ) -> Result<Self, KeyError> {
        let mut salted = Hasher::new(algorithm, key)?;
        salted.update(salt.as_ref().map_or(&[], |salt| salt.as_slice()));
        Ok(Self { algorithm, salted, block, tag_bytes: algorithm.digest_len() })
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

    /// What the tags are made with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
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

    /// The whole digest of the block at `sector`.
    ///
    /// # Panics
    /// If `data` is not one block.
    #[must_use]
    pub fn tag(&self, sector: u64, data: &[u8]) -> Digest {
        assert_eq!(data.len(), self.block.bytes(), "the data is one block");
        self.behind_sector(sector, data)
    }

    /// Writes the stored tags of consecutive blocks, the first at `first_sector`, to `tags`.
    ///
    /// # Panics
    /// If `data` is not a whole number of blocks, or `tags` has not one tag for each.
    pub fn tags(&self, first_sector: u64, data: &[u8], tags: &mut [u8]) {
        self.assert_lengths(data, tags);
        let blocks = Blocks { first_sector, block: self.block, data };
        with_hash!(&self.salted, hash => make(hash, blocks, tags, self.tag_bytes));
    }

    /// Compares consecutive blocks, the first at `first_sector`, with their stored tags: the index
    /// of the first block that differs, if one does. To look on, verify again from behind it.
    ///
    /// # Panics
    /// If `data` is not a whole number of blocks, or `tags` has not one tag for each.
    #[must_use]
    pub fn verify(&self, first_sector: u64, data: &[u8], tags: &[u8]) -> Option<usize> {
        self.assert_lengths(data, tags);
        let blocks = Blocks { first_sector, block: self.block, data };
        with_hash!(&self.salted, hash => check(hash, blocks, tags, self.tag_bytes))
    }

    /// Which bit of the block at `sector` was turned, if one was: turned back (bit `n % 8` of byte
    /// `n / 8`), the block has the stored tag. None: no single bit explains it, or the algorithm
    /// does not tell (only a CRC does), or too little of the digest is stored.
    ///
    /// That one bit explains it is no proof: of blocks with arbitrary damage, one of 2^17 looks so.
    ///
    /// # Panics
    /// If `data` is not one block, or `stored` not one tag.
    #[must_use]
    pub fn flipped_bit(&self, sector: u64, data: &[u8], stored: &[u8]) -> Option<usize> {
        self.assert_lengths(data, stored);
        let computed = self.tag(sector, data);
        let (stored, zeros) = stored.split_first_chunk::<4>()?;
        let computed: [u8; 4] = computed.as_bytes().try_into().ok()?;
        if zeros.iter().any(|&byte| byte != 0) {
            return None;
        }
        let difference = u32::from_le_bytes(computed) ^ u32::from_le_bytes(*stored);
        match self.algorithm {
            Algorithm::Crc32c => flipped_bit::<Castagnoli>(difference, data.len()),
            Algorithm::Crc32 => flipped_bit::<Ieee>(difference, data.len()),
            _ => None,
        }
    }

    /// Writes the tags that say, on a volume with keyed discards (superblock flag 0x40), that the
    /// consecutive blocks from `first_sector` hold nothing: `H(salt || LE64(sector))`. (The
    /// dm-integrity specification, section 5.1; only keyed algorithms are used so.)
    ///
    /// # Panics
    /// If `tags` is not a whole number of tags.
    pub fn discard_tags(&self, first_sector: u64, tags: &mut [u8]) {
        assert!(tags.len().is_multiple_of(self.tag_bytes), "the tags are whole");
        let mut sector = first_sector;
        for stored in tags.chunks_exact_mut(self.tag_bytes) {
            store(stored, self.behind_sector(sector, &[]).as_bytes());
            sector = sector.wrapping_add(self.block.sectors());
        }
    }

    /// Whether `stored` is the tag that [`discard_tags`](Self::discard_tags) gives the block at
    /// `sector`.
    #[must_use]
    pub fn is_discard_tag(&self, sector: u64, stored: &[u8]) -> bool {
        stored.len() == self.tag_bytes
            && is_stored(stored, self.behind_sector(sector, &[]).as_bytes())
    }

    /// The digest of what stands behind the salt.
    fn behind_sector(&self, sector: u64, data: &[u8]) -> Digest {
        let mut hasher = self.salted.clone();
        hasher.update(&sector.to_le_bytes());
        hasher.update(data);
        hasher.finish()
    }

    fn assert_lengths(&self, data: &[u8], tags: &[u8]) {
        let block_bytes = self.block.bytes();
        assert!(data.len().is_multiple_of(block_bytes), "the data is a whole number of blocks");
        let expected = data.len() / block_bytes * self.tag_bytes;
        assert_eq!(tags.len(), expected, "there is one tag for each block");
    }

    /// State behind key and salt.
    pub(crate) const fn salted(&self) -> &Hasher {
        &self.salted
    }
}

impl fmt::Debug for BlockTagger {
    /// Nothing of key and salt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { algorithm, block, tag_bytes, .. } = self;
        write!(f, "BlockTagger({algorithm}, blocks of {block}, tags of {tag_bytes})")
    }
}

// Almost every volume stores the whole digest: its length is then known when this is compiled, and
// storing or comparing a CRC is one instruction.

fn make<H: Hash>(salted: &H, blocks: Blocks<'_>, tags: &mut [u8], tag_bytes: usize) {
    if tag_bytes == size_of::<H::Digest>() {
        let mut tags = tags.chunks_exact_mut(size_of::<H::Digest>());
        salted.each_tag(blocks, |digest| {
            tags.next().map(|stored| stored.copy_from_slice(digest.as_ref())).is_some()
        });
    } else {
        let mut tags = tags.chunks_exact_mut(tag_bytes);
        salted.each_tag(blocks, |digest| {
            tags.next().map(|stored| store(stored, digest.as_ref())).is_some()
        });
    }
}

fn check<H: Hash>(salted: &H, blocks: Blocks<'_>, tags: &[u8], tag_bytes: usize) -> Option<usize> {
    if tag_bytes == size_of::<H::Digest>() {
        let mut tags = tags.chunks_exact(size_of::<H::Digest>());
        salted.each_tag(blocks, |digest| tags.next() == Some(digest.as_ref()))
    } else {
        let mut tags = tags.chunks_exact(tag_bytes);
        salted.each_tag(blocks, |digest| {
            tags.next().is_some_and(|stored| is_stored(stored, digest.as_ref()))
        })
    }
}

#[cfg(test)]
mod tests;
