//! The superblock: what a dm-integrity volume says about itself.
//!
//! ```text
//!   sector 0 of the (metadata) device            8 sectors, 4096 bytes, zeroed at format
//!   +---------------------------------------------------------------+
//!   | 64 bytes: the fields below | zero ... | MAC of the first sector|  sector 0
//!   | zero                                                           |  sectors 1 to 7
//!   +---------------------------------------------------------------+
//! ```
//!
//! The byte map is in `docs/formats/dm-integrity.md`; a test compares it with [`Raw`].
//!
//! It has **no checksum** (unless a journal MAC is in use), so a decoded superblock is only
//! plausible: a flipped bit in the salt or the interleave decodes well and makes every tag wrong.
//! Whoever opens a volume for writing must see some tag verify first. The hash algorithm is not
//! recorded at all.
//!
//! Unknown flags and the unused bytes survive decode and encode.

use units::BlockSize;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the fields; the rest of the area is zero or a MAC.
pub const SUPERBLOCK_BYTES: usize = 64;
/// Bytes of the area that the superblock owns on disk.
pub const AREA_BYTES: usize = 4096;
/// Sectors of the area that the superblock owns on disk.
pub const AREA_SECTORS: u64 = 8;
/// The first eight bytes of every volume.
pub const MAGIC: [u8; 8] = *b"integrt\0";
/// The newest version that is understood.
pub const VERSION_MAX: u8 = 7;

/// The fields exactly as they lie on disk (specification, section 2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Raw {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// 1 to 7; only its upper bound means anything, the flags say the rest.
    pub version: u8,
    /// Binary logarithm of the data sectors in one run; 0 with a separate metadata device.
    pub log2_interleave_sectors: u8,
    /// Bytes of tag stored for each block.
    pub integrity_tag_size: U16,
    /// Sections of the journal; 0 in inline mode only.
    pub journal_sections: U32,
    /// Size of the exposed device in sectors.
    pub provided_data_sectors: U64,
    /// See [`Flags`].
    pub flags: U32,
    /// Binary logarithm of the sectors in a block.
    pub log2_sectors_per_block: u8,
    /// Binary logarithm of the blocks under one bit of the dirty bitmap.
    pub log2_blocks_per_bitmap_bit: u8,
    /// Zero so far.
    pub pad: [u8; 2],
    /// Tags are valid below this sector. Only meaningful with [`Flags::RECALCULATING`].
    pub recalc_sector: U64,
    /// Zero so far.
    pub pad2: [u8; 8],
    /// Hashed in front of every block with [`Flags::FIX_HMAC`], else zero.
    pub salt: [u8; 16],
}

const _: () = assert!(size_of::<Raw>() == SUPERBLOCK_BYTES);

/// The flag word (specification, section 2.1). Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flags(pub u32);

impl Flags {
    /// Journal sections carry a MAC, and entries leave room for it.
    pub const JOURNAL_MAC: Self = Self(0x01);
    /// Tags at and beyond the recalc sector are not valid. Stays set when recalculation finished.
    pub const RECALCULATING: Self = Self(0x02);
    /// The journal area holds the dirty bitmap.
    pub const DIRTY_BITMAP: Self = Self(0x04);
    /// Metadata runs are rounded to 4 KiB instead of 128 KiB.
    pub const FIX_PADDING: Self = Self(0x08);
    /// The salt is hashed, section MACs cover the section number, the superblock has a MAC.
    pub const FIX_HMAC: Self = Self(0x10);
    /// Tags live in the hardware's per-sector metadata.
    pub const INLINE: Self = Self(0x20);
    /// Discarded blocks carry a keyed tag.
    pub const DISCARD_KEYED: Self = Self(0x40);

    /// Every flag with the name that the kernel's tools print.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::JOURNAL_MAC, "have_journal_mac"),
        (Self::RECALCULATING, "recalculating"),
        (Self::DIRTY_BITMAP, "dirty_bitmap"),
        (Self::FIX_PADDING, "fix_padding"),
        (Self::FIX_HMAC, "fix_hmac"),
        (Self::INLINE, "inline"),
        (Self::DISCARD_KEYED, "discard_keyed"),
    ];

    /// Whether every bit of `flags` is set.
    #[must_use]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and `flags`.
    #[must_use]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }

    /// The bits that no known kernel sets.
    #[must_use]
    pub const fn unknown(self) -> u32 {
        self.0 & !0x7f
    }
}

/// A superblock whose fields are in range. It may still be wrong: nothing vouches for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Superblock {
    /// As stored. Writers recompute it with [`version_for`].
    pub version: u8,
    /// Binary logarithm of the data sectors between metadata runs, 3 to 31; none where the
    /// metadata has a device of its own, and in inline mode none is used.
    pub log2_interleave: Option<u8>,
    /// Bytes of tag stored for each block, at least 1 and small enough for a journal entry.
    pub tag_size: u16,
    /// Sections of the journal; not 0, except in inline mode, where it is.
    pub journal_sections: u32,
    /// Size of the exposed device in sectors as the last writer saw it. To be believed only when
    /// it fits the device: [`crate::Layout::of`] checks.
    pub provided_sectors: u64,
    /// What the volume uses.
    pub flags: Flags,
    /// The block that each tag covers.
    pub block: BlockSize,
    /// Binary logarithm of the blocks under one bitmap bit. Only of use with the bitmap.
    pub log2_blocks_per_bitmap_bit: u8,
    /// Tags are valid below this sector; only to be believed with [`Flags::RECALCULATING`].
    pub recalc_sector: u64,
    /// Hashed in front of each block; only to be used with [`Flags::FIX_HMAC`].
    pub salt: [u8; 16],
    /// Two unused bytes, kept as found.
    pub pad: [u8; 2],
    /// Eight unused bytes, kept as found.
    pub pad2: [u8; 8],
}

/// Why some bytes are not a superblock that can be worked with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SuperblockError {
    /// Fewer bytes than the fields need.
    #[error("{found} bytes are too few for a dm-integrity superblock of {SUPERBLOCK_BYTES}")]
    TooShort {
        /// Bytes given.
        found: usize,
    },
    /// Zeroes where the magic should be: never formatted, or wiped.
    #[error("no dm-integrity superblock: the area is zero")]
    Blank,
    /// Something else lies here.
    #[error("no dm-integrity superblock: starts with {found:02x?}, expected \"integrt\\0\"")]
    Magic {
        /// The first eight bytes.
        found: [u8; 8],
    },
    /// A version that no known kernel writes.
    #[error("dm-integrity superblock version is {found}, expected 1 to {VERSION_MAX}")]
    Version {
        /// As stored.
        found: u8,
    },
    /// A block size that does not exist.
    #[error("log2 of sectors per block is {found}, expected 0 to 3")]
    BlockSize {
        /// As stored.
        found: u8,
    },
    /// A tag that is empty or does not fit a journal entry.
    #[error("tag size is {found} bytes, expected 1 to {max}")]
    TagSize {
        /// As stored.
        found: u16,
        /// Largest tag for this block size.
        max: u16,
    },
    /// An interleave outside what the kernel accepts.
    #[error("log2 of interleave sectors is {found}, expected 3 to 31 (or 0: metadata device)")]
    Interleave {
        /// As stored.
        found: u8,
    },
    /// No journal where one must be, or one where none may be.
    #[error("journal has {found} sections, expected {}", if *.inline { "none (inline)" } else { "some" })]
    JournalSections {
        /// As stored.
        found: u32,
        /// Whether the inline flag is set.
        inline: bool,
    },
    /// Nothing is exposed.
    #[error("provided data sectors is {found}, expected a positive multiple of {expected}")]
    ProvidedSectors {
        /// As stored.
        found: u64,
        /// Sectors in a block.
        expected: u64,
    },
}

impl Superblock {
    /// Reads the superblock from the start of its area; `bytes` may be longer.
    ///
    /// # Errors
    /// What is out of the range that section 2.4 of the specification allows, in the order in
    /// which it is stored. Flags are not judged here: what is not implemented is refused by
    /// whoever would have to implement it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SuperblockError> {
        let Ok((raw, _)) = Raw::read_from_prefix(bytes) else {
            return Err(SuperblockError::TooShort { found: bytes.len() });
        };
        if raw.magic != MAGIC {
            let blank = bytes.iter().all(|&byte| byte == 0);
            return Err(if blank {
                SuperblockError::Blank
            } else {
                SuperblockError::Magic { found: raw.magic }
            });
        }
        if !(1..=VERSION_MAX).contains(&raw.version) {
            return Err(SuperblockError::Version { found: raw.version });
        }
        let flags = Flags(raw.flags.get());
        let inline = flags.has(Flags::INLINE);
        let block = BlockSize::from_log2_sectors(raw.log2_sectors_per_block)
            .ok_or(SuperblockError::BlockSize { found: raw.log2_sectors_per_block })?;
        let (found, max) = (raw.integrity_tag_size.get(), tag_size_max(block, flags));
        if found == 0 || found > max {
            return Err(SuperblockError::TagSize { found, max });
        }
        let log2_interleave = match raw.log2_interleave_sectors {
            0 => None,
            log2 @ 3..=31 => Some(log2),
            found => return Err(SuperblockError::Interleave { found }),
        };
        let found = raw.journal_sections.get();
        if (found == 0) != inline {
            return Err(SuperblockError::JournalSections { found, inline });
        }
        let provided_sectors = raw.provided_data_sectors.get();
        if provided_sectors == 0 || !block.divides(provided_sectors) {
            let expected = block.sectors();
            return Err(SuperblockError::ProvidedSectors { found: provided_sectors, expected });
        }
        Ok(Self {
            version: raw.version,
            log2_interleave,
            tag_size: raw.integrity_tag_size.get(),
            journal_sections: raw.journal_sections.get(),
            provided_sectors,
            flags,
            block,
            log2_blocks_per_bitmap_bit: raw.log2_blocks_per_bitmap_bit,
            recalc_sector: raw.recalc_sector.get(),
            salt: raw.salt,
            pad: raw.pad,
            pad2: raw.pad2,
        })
    }

    /// The fields as they lie on disk. Only these 64 bytes are the superblock's: the rest of the
    /// area is to be kept as it was found.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let raw = Raw {
            magic: MAGIC,
            version: self.version,
            log2_interleave_sectors: self.log2_interleave.unwrap_or(0),
            integrity_tag_size: self.tag_size.into(),
            journal_sections: self.journal_sections.into(),
            provided_data_sectors: self.provided_sectors.into(),
            flags: self.flags.0.into(),
            log2_sectors_per_block: self.block.log2_sectors(),
            log2_blocks_per_bitmap_bit: self.log2_blocks_per_bitmap_bit,
            pad: self.pad,
            recalc_sector: self.recalc_sector.into(),
            pad2: self.pad2,
            salt: self.salt,
        };
        zerocopy::transmute!(raw)
    }

    /// The salt that goes in front of each hashed block, if this volume hashes one.
    #[must_use]
    pub fn hashed_salt(&self) -> Option<[u8; 16]> {
        self.flags.has(Flags::FIX_HMAC).then_some(self.salt)
    }

    /// The first sector whose tag is not to be believed, if recalculation has not finished.
    #[must_use]
    pub fn recalculated_until(&self) -> Option<u64> {
        let unfinished = self.recalc_sector < self.provided_sectors;
        (self.flags.has(Flags::RECALCULATING) && unfinished).then_some(self.recalc_sector)
    }
}

/// The version that a writer stores (specification, section 2.2; the first match wins).
#[must_use]
pub fn version_for(flags: Flags, metadata_device: bool, bitmap_mode: bool) -> u8 {
    if flags.has(Flags::DISCARD_KEYED) {
        7
    } else if flags.has(Flags::INLINE) {
        6
    } else if flags.has(Flags::FIX_HMAC) {
        5
    } else if flags.has(Flags::FIX_PADDING) {
        4
    } else if bitmap_mode || flags.has(Flags::DIRTY_BITMAP) {
        3
    } else if metadata_device || flags.has(Flags::RECALCULATING) {
        2
    } else {
        1
    }
}

/// The largest tag for which one journal entry still fits a metadata sector; in inline mode, the
/// largest that a kernel takes from the hardware's metadata (specification, section 8).
#[must_use]
pub fn tag_size_max(block: BlockSize, flags: Flags) -> u16 {
    if flags.has(Flags::INLINE) {
        return 2048;
    }
    let room = if flags.has(Flags::JOURNAL_MAC) { 496 } else { 504 };
    room - 8 - 8 * (1 << block.log2_sectors())
}

/// What a kernel writes where the superblock's area is new: the fields, then zeroes. With a journal
/// MAC and [`Flags::FIX_HMAC`], [`crate::mac::seal_superblock`] completes it.
#[must_use]
pub fn superblock_area(superblock: &Superblock) -> [u8; AREA_BYTES] {
    let mut area = [0; AREA_BYTES];
    let fields = superblock.encode();
    area[..fields.len()].copy_from_slice(&fields);
    area
}

#[cfg(test)]
mod tests;
