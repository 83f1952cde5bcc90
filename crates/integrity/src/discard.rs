//! The tags of discarded blocks.
//!
//! A discarded block's data is whatever the lower device gives back, so no tag of data can fit. Its
//! tag says instead that it was given up:
//!
//! - bytes of 0xF6 ([`DISCARD_FILLER`]), which anybody can write, and which a tag may be by chance;
//! - with [`Flags::DISCARD_KEYED`], the keyed hash of salt and sector number without any data. Then
//!   the filler is no longer accepted: that is what the flag is for.
//!
//! Whether such a tag is accepted at all is said at open, not on disk; a volume that was used with
//! discards and is opened without has blocks that fail. The tag is to be durable before the discard
//! goes down: a crash between leaves the old data with a tag that accepts it. (Specification,
//! section 5.1.)

use crate::superblock::Flags;
use checksum::{BlockTagger, DISCARD_FILLER};
use units::Sector;

/// Which tags stand for a discarded block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiscardTags {
    /// None: every block must fit its tag.
    None,
    /// All bytes [`DISCARD_FILLER`].
    Filler,
    /// The hash of salt and sector number alone.
    Keyed,
}

impl DiscardTags {
    /// Those of a volume with `flags`, opened with discards `allowed` or not.
    #[must_use]
    pub const fn of(flags: Flags, allowed: bool) -> Self {
        match (allowed, flags.has(Flags::DISCARD_KEYED)) {
            (false, _) => Self::None,
            (true, false) => Self::Filler,
            (true, true) => Self::Keyed,
        }
    }

    /// Whether the tag `stored` says that the block at `sector` was discarded.
    #[must_use]
    pub fn accept(self, tagger: &BlockTagger, sector: Sector, stored: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Filler => !stored.is_empty() && stored.iter().all(|byte| *byte == DISCARD_FILLER),
            Self::Keyed => tagger.is_discard_tag(sector.0, stored),
        }
    }

    /// Writes the tags of discarded blocks, the first at `sector`, to `tags`.
    ///
    /// # Panics
    /// If `tags` is not a whole number of tags, or discards are not allowed.
    pub fn write(self, tagger: &BlockTagger, sector: Sector, tags: &mut [u8]) {
        match self {
            Self::None => unreachable!("discards are refused before"),
            Self::Filler => tags.fill(DISCARD_FILLER),
            Self::Keyed => tagger.discard_tags(sector.0, tags),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checksum::{Algorithm, Key, Mac};
    use units::BlockSize;

    #[test]
    fn a_tag_counts_as_a_discards_only_under_the_rule_it_was_written_by() {
        let key = Key::new([5; 32]).unwrap();
        let (hash, salt) = (Algorithm::HmacSha256, [3; 16]);
        let tagger = BlockTagger::new(hash, Some(&key), Some(salt), BlockSize::B4096).unwrap();
        // Section 5.1: H(salt || LE64(n)).
        let mac = Mac::new(hash, Some(&key)).unwrap();
        let keyed = mac.digest(&[&salt, &16_u64.to_le_bytes()]);
        let plain = Flags::FIX_HMAC;
        let with_key = plain.with(Flags::DISCARD_KEYED);
        let cases = [
            (plain, false, false, false),
            (plain, true, true, false),
            (with_key, false, false, false),
            (with_key, true, false, true),
        ];
        for (flags, allowed, filler, hashed) in cases {
            let tags = DiscardTags::of(flags, allowed);
            assert_eq!(tags.accept(&tagger, Sector(16), &[0xf6; 32]), filler, "{tags:?}");
            assert_eq!(tags.accept(&tagger, Sector(16), keyed.as_bytes()), hashed, "{tags:?}");
            assert!(!tags.accept(&tagger, Sector(24), keyed.as_bytes()), "another block's");
            let mut nearly = [0xf6; 32];
            nearly[31] = 0xf7;
            assert!(!tags.accept(&tagger, Sector(16), &nearly));
            assert!(!tags.accept(&tagger, Sector(16), &[]));
        }
    }

    #[test]
    fn what_is_written_is_accepted() {
        let key = Key::new([5; 32]).unwrap();
        let tagger =
            BlockTagger::new(Algorithm::HmacSha256, Some(&key), None, BlockSize::B512).unwrap();
        for tags in [DiscardTags::Filler, DiscardTags::Keyed] {
            let mut stored = [0; 96];
            tags.write(&tagger, Sector(7), &mut stored);
            for (sector, tag) in (7..).zip(stored.chunks(32)) {
                assert!(tags.accept(&tagger, Sector(sector), tag));
            }
        }
    }
}
