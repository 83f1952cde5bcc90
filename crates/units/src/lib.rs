//! Sectors, block sizes and exact conversions: the words every other crate measures with.
//!
//! A *sector* is 512 bytes, always, whatever the device's logical block is. Arithmetic that could
//! leave the range of `u64` is checked where the numbers come from disk; here it is exact or it
//! panics.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// Bytes in a sector.
pub const SECTOR: u64 = 512;
/// Bytes in a sector, for slices.
pub const SECTOR_BYTES: usize = 512;

const _: () = assert!(usize::BITS == 64, "lengths and offsets are 64 bits wide throughout");

/// A length in memory as a 64-bit number. Lossless: only 64-bit hosts are supported.
#[must_use]
pub const fn u64_of(length: usize) -> u64 {
    length as u64
}

/// A 64-bit number as a length in memory. Lossless: only 64-bit hosts are supported.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "usize is 64 bits, asserted above")]
pub const fn usize_of(length: u64) -> usize {
    length as usize
}

/// An address, or a count, in units of 512 bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Sector(pub u64);

impl Sector {
    /// The first sector.
    pub const ZERO: Self = Self(0);

    /// Byte offset of the sector's first byte.
    ///
    /// # Panics
    /// If the offset does not fit in 64 bits: decoders refuse such addresses first.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self.0.checked_mul(SECTOR) {
            Some(bytes) => bytes,
            None => panic!("sector address fits in 64 bits of bytes"),
        }
    }

    /// The sector that holds byte `offset`; rounds down.
    #[must_use]
    pub const fn containing(offset: u64) -> Self {
        Self(offset / SECTOR)
    }

    /// The sector that starts at byte `offset`, if one does.
    #[must_use]
    pub const fn at(offset: u64) -> Option<Self> {
        if offset.is_multiple_of(SECTOR) { Some(Self(offset / SECTOR)) } else { None }
    }
}

impl fmt::Display for Sector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<u64> for Sector {
    type Output = Self;
    fn add(self, sectors: u64) -> Self {
        Self(self.0 + sectors)
    }
}

impl AddAssign<u64> for Sector {
    fn add_assign(&mut self, sectors: u64) {
        self.0 += sectors;
    }
}

impl Sub<Sector> for Sector {
    type Output = u64;
    /// Distance in sectors.
    fn sub(self, other: Self) -> u64 {
        self.0 - other.0
    }
}

/// A logical block: 512, 1024, 2048 or 4096 bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockSize {
    log2_sectors: u8,
}

impl BlockSize {
    /// 512 bytes.
    pub const B512: Self = Self { log2_sectors: 0 };
    /// 4096 bytes.
    pub const B4096: Self = Self { log2_sectors: 3 };

    /// From a number of bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self { log2_sectors: 0 }),
            1024 => Some(Self { log2_sectors: 1 }),
            2048 => Some(Self { log2_sectors: 2 }),
            4096 => Some(Self { log2_sectors: 3 }),
            _ => None,
        }
    }

    /// From the binary logarithm of its sectors, 0 to 3.
    #[must_use]
    pub const fn from_log2_sectors(log2_sectors: u8) -> Option<Self> {
        if log2_sectors <= 3 { Some(Self { log2_sectors }) } else { None }
    }

    /// Binary logarithm of its sectors.
    #[must_use]
    pub const fn log2_sectors(self) -> u8 {
        self.log2_sectors
    }

    /// Sectors in a block.
    #[must_use]
    pub const fn sectors(self) -> u64 {
        1 << self.log2_sectors
    }

    /// Bytes in a block.
    #[must_use]
    pub const fn bytes(self) -> usize {
        SECTOR_BYTES << self.log2_sectors
    }

    /// Whether `sectors` is a whole number of blocks.
    #[must_use]
    pub const fn divides(self, sectors: u64) -> bool {
        sectors & (self.sectors() - 1) == 0
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_is_512_bytes() {
        assert_eq!(Sector(8).bytes(), 4096);
        assert_eq!(Sector::containing(4097), Sector(8));
        assert_eq!(Sector::at(4097), None);
        assert_eq!(Sector(9) - Sector(4), 5);
    }

    #[test]
    fn only_four_block_sizes_exist() {
        let sizes: Vec<u64> = (0..=8192).filter(|&b| BlockSize::from_bytes(b).is_some()).collect();
        assert_eq!(sizes, [512, 1024, 2048, 4096]);
        for log2 in 0..4 {
            let size = BlockSize::from_log2_sectors(log2).unwrap();
            assert_eq!(BlockSize::from_bytes(u64_of(size.bytes())), Some(size));
            assert!(size.divides(size.sectors() * 7));
        }
        assert!(!BlockSize::B4096.divides(9));
    }
}
