//! The dirty bitmap: which regions may have tags that do not fit their data.
//!
//! ```text
//!   journal area, from its first byte         one bit for each 2^n blocks, lowest bit of a byte first
//!   | 03 00 00 00 | ff ff ff ff ...           here 4 bits are managed: regions 0 and 1 are dirty;
//!                                             what follows is left over from the journal
//! ```
//!
//! In bitmap mode data and tags go straight home; a region's bit is durable before. So a crash
//! leaves wrong tags in dirty regions only. What the bits then mean depends on who opens:
//! [`verdict`].
//!
//! An order of writes that keeps it so, with what a crash leaves after each step:
//!
//! 1. The flag [`Flags::DIRTY_BITMAP`] is durable before the first bit is written over the journal.
//!    Before: a journal that is replayed. After: the journal's bytes as bits, which makes more
//!    regions dirty than are.
//! 2. A region's bit is durable before data or tags of it are written. Region dirty, nothing wrong.
//! 3. Data and tags are written in any order. Region dirty, tags perhaps wrong.
//! 4. All of that is durable before bits are cleared. Regions dirty, nothing wrong.
//! 5. At the end the journal is initialised before the flag is cleared. A bitmap of other bytes; as
//!    in 1.
//!
//! Only the bits of [0, provided sectors) are ever looked at or changed. (Specification, section 7.
//! The order of bits is that of little-endian hosts; what big-endian kernels store is unknown.)

use crate::layout::Layout;
use crate::open::Mode;
use crate::superblock::{Flags, Superblock};
use std::ops::Range;
use units::{Sector, u64_of, usize_of};

/// Bytes in which the bitmap is read and written.
pub const UNIT_BYTES: usize = 4096;
const BITS_PER_UNIT: u64 = 8 * 4096;

/// A bit for each region of a volume. At most as large as the journal's area.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bitmap {
    log2_sectors: u8,
    provided: u64,
    bits: u64,
    words: Vec<u64>,
}

/// Why there is no such bitmap.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BitmapError {
    /// More bits than the journal's area has; none at all in inline mode.
    #[error("a bitmap of {bits} bits does not fit the journal's area, which has room for {max}")]
    TooFine {
        /// Bits needed.
        bits: u64,
        /// Bits that fit.
        max: u64,
    },
    /// A region larger than any device.
    #[error("log2 of blocks per bitmap bit is {found}, expected at most {max}")]
    Granularity {
        /// As stored.
        found: u8,
        /// Largest for this block.
        max: u8,
    },
    /// Not all of the bitmap was read.
    #[error("{found} bytes are too few for a bitmap of {expected}")]
    TooShort {
        /// Bytes given.
        found: usize,
        /// Bytes that hold managed bits.
        expected: usize,
    },
}

impl Bitmap {
    /// A bitmap with nothing dirty, each bit for `2^log2_blocks_per_bit` blocks.
    ///
    /// # Errors
    /// [`BitmapError::TooFine`], [`BitmapError::Granularity`]; nothing is allocated before.
    pub fn new(layout: &Layout, log2_blocks_per_bit: u8) -> Result<Self, BitmapError> {
        let log2_block = layout.block.log2_sectors();
        let (found, max) = (log2_blocks_per_bit, 63 - log2_block);
        if found > max {
            return Err(BitmapError::Granularity { found, max });
        }
        let log2_sectors = found + log2_block;
        let provided = layout.provided_sectors;
        let (bits, max) = (provided.div_ceil(1 << log2_sectors), layout.bitmap_bits_max());
        if bits > max {
            return Err(BitmapError::TooFine { bits, max });
        }
        let words = vec![0; usize_of(bits.div_ceil(64))];
        Ok(Self { log2_sectors, provided, bits, words })
    }

    /// The bitmap that `area`, from the start of the journal's area on, holds. What lies behind its
    /// bits is ignored.
    ///
    /// # Errors
    /// Those of [`Self::new`], and [`BitmapError::TooShort`].
    pub fn decode(
        layout: &Layout,
        log2_blocks_per_bit: u8,
        area: &[u8],
    ) -> Result<Self, BitmapError> {
        let mut bitmap = Self::new(layout, log2_blocks_per_bit)?;
        let (found, expected) = (area.len(), usize_of(bitmap.stored_bytes()));
        if found < expected {
            return Err(BitmapError::TooShort { found, expected });
        }
        for (word, bytes) in bitmap.words.iter_mut().zip(area[..expected].chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        let managed = bitmap.managed(bitmap.words.len() - 1);
        if let Some(last) = bitmap.words.last_mut() {
            *last &= managed;
        }
        Ok(bitmap)
    }

    /// Puts the bits of unit `unit` of the stored bitmap into `target`, whose other bits stay as
    /// they were found on disk.
    ///
    /// # Panics
    /// If `target` is not one unit long, or there is no such unit.
    pub fn encode_unit(&self, unit: u64, target: &mut [u8]) {
        assert_eq!(target.len(), UNIT_BYTES, "one unit");
        assert!(unit < self.units(), "the unit exists");
        let first = usize_of(unit * BITS_PER_UNIT / 64);
        let words = self.words.iter().enumerate().skip(first);
        for ((index, word), bytes) in words.zip(target.chunks_exact_mut(8)) {
            let mut stored = [0; 8];
            stored.copy_from_slice(bytes);
            let kept = u64::from_le_bytes(stored) & !self.managed(index);
            bytes.copy_from_slice(&(kept | word).to_le_bytes());
        }
    }

    /// The bits of a word that stand for regions.
    fn managed(&self, word: usize) -> u64 {
        match self.bits - 64 * u64_of(word) {
            left @ 0..64 => (1 << left) - 1,
            _ => u64::MAX,
        }
    }

    /// Sectors under one bit.
    #[must_use]
    pub const fn sectors_per_bit(&self) -> u64 {
        1 << self.log2_sectors
    }

    /// Regions in all.
    #[must_use]
    pub const fn bit_count(&self) -> u64 {
        self.bits
    }

    /// Bytes from the start of the journal's area on that hold a managed bit.
    #[must_use]
    pub const fn stored_bytes(&self) -> u64 {
        self.bits.div_ceil(8)
    }

    /// Units of [`UNIT_BYTES`] that hold a managed bit.
    #[must_use]
    pub const fn units(&self) -> u64 {
        self.bits.div_ceil(BITS_PER_UNIT)
    }

    /// Makes every region that a range touches dirty. The units that changed, to be durable before
    /// the range is written; none if all of it was dirty before.
    ///
    /// # Panics
    /// If the range is empty or ends behind the volume, as in all functions here.
    pub fn mark(&mut self, sector: Sector, sectors: u64) -> Option<Range<u64>> {
        let touched = self.touched(sector, sectors);
        let first = touched.clone().find(|bit| !self.bit(*bit))?;
        let last = touched.rev().find(|bit| !self.bit(*bit))?;
        for bit in first..=last {
            self.words[usize_of(bit / 64)] |= 1 << (bit % 64);
        }
        Some(first / BITS_PER_UNIT..last / BITS_PER_UNIT + 1)
    }

    /// Cleans the regions that lie wholly in a range. The units that changed, if any.
    pub fn clean(&mut self, sector: Sector, sectors: u64) -> Option<Range<u64>> {
        let touched = self.touched(sector, sectors);
        let end = sector.0 + sectors;
        let skip_first = !sector.0.is_multiple_of(self.sectors_per_bit());
        let skip_last = !end.is_multiple_of(self.sectors_per_bit()) && end != self.provided;
        let whole = touched.start + u64::from(skip_first)..touched.end - u64::from(skip_last);
        let first = whole.clone().find(|bit| self.bit(*bit))?;
        let last = whole.rev().find(|bit| self.bit(*bit))?;
        for bit in first..=last {
            self.words[usize_of(bit / 64)] &= !(1 << (bit % 64));
        }
        Some(first / BITS_PER_UNIT..last / BITS_PER_UNIT + 1)
    }

    /// Cleans everything.
    pub fn clean_all(&mut self) {
        self.words.fill(0);
    }

    /// Makes everything dirty.
    pub fn mark_all(&mut self) {
        for index in 0..self.words.len() {
            self.words[index] = self.managed(index);
        }
    }

    /// Whether a range touches a dirty region.
    #[must_use]
    pub fn is_dirty(&self, sector: Sector, sectors: u64) -> bool {
        let touched = self.touched(sector, sectors);
        self.next(touched.start, true).is_some_and(|bit| bit < touched.end)
    }

    /// Whether a range touches dirty regions only.
    #[must_use]
    pub fn is_all_dirty(&self, sector: Sector, sectors: u64) -> bool {
        let touched = self.touched(sector, sectors);
        self.next(touched.start, false).is_none_or(|bit| bit >= touched.end)
    }

    /// Makes dirty what is dirty in `other`, a bitmap of the same regions.
    ///
    /// # Panics
    /// If its regions are others.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!(
            (self.log2_sectors, self.bits),
            (other.log2_sectors, other.bits),
            "same regions"
        );
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Cleans what is not dirty in `other`, a bitmap of the same regions.
    ///
    /// # Panics
    /// If its regions are others.
    pub fn restrict(&mut self, other: &Self) {
        assert_eq!(
            (self.log2_sectors, self.bits),
            (other.log2_sectors, other.bits),
            "same regions"
        );
        for (word, kept) in self.words.iter_mut().zip(&other.words) {
            *word &= kept;
        }
    }

    /// Units in which two bitmaps of the same regions differ, in order.
    ///
    /// # Panics
    /// If their regions are not the same.
    pub fn differing_units(&self, other: &Self) -> impl Iterator<Item = u64> + '_ {
        assert_eq!(
            (self.log2_sectors, self.bits),
            (other.log2_sectors, other.bits),
            "same regions"
        );
        let words_per_unit = UNIT_BYTES / 8;
        let pairs = self.words.chunks(words_per_unit).zip(other.words.chunks(words_per_unit));
        let differs: Vec<bool> = pairs.map(|(a, b)| a != b).collect();
        (0..).zip(differs).filter_map(|(unit, differs)| differs.then_some(unit))
    }

    /// Dirty regions.
    #[must_use]
    pub fn dirty_count(&self) -> u64 {
        self.words.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// The dirty parts of the volume in order, neighbouring regions together: first sector and
    /// sectors of each.
    pub fn dirty(&self) -> impl Iterator<Item = (Sector, u64)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at, true)?;
            at = self.next(first, false).unwrap_or(self.bits);
            let start = first << self.log2_sectors;
            let end = at.saturating_mul(self.sectors_per_bit());
            Some((Sector(start), end.min(self.provided) - start))
        })
    }

    fn bit(&self, bit: u64) -> bool {
        self.words[usize_of(bit / 64)] >> (bit % 64) & 1 == 1
    }

    /// The first bit from `from` on that is `set` or not.
    fn next(&self, from: u64, set: bool) -> Option<u64> {
        let mut start = from;
        while start < self.bits {
            let word = self.words[usize_of(start / 64)];
            let wanted = if set { word } else { !word } >> (start % 64);
            if wanted != 0 {
                let found = start + u64::from(wanted.trailing_zeros());
                return (found < self.bits).then_some(found);
            }
            start = (start / 64 + 1) * 64;
        }
        None
    }

    fn touched(&self, sector: Sector, sectors: u64) -> Range<u64> {
        assert!(sectors > 0 && sectors <= self.provided, "a range within the volume");
        assert!(sector.0 <= self.provided - sectors, "a range within the volume");
        sector.0 >> self.log2_sectors..((sector.0 + sectors - 1) >> self.log2_sectors) + 1
    }
}

/// Which tags a stored bitmap makes doubtful.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// None: the bitmap is not in use, or nothing is dirty.
    Nothing,
    /// Those of the dirty regions. Recalculation starts at sector 0 and does these.
    Regions,
    /// All of them. Recalculation starts at sector 0 and does everything.
    Everything,
}

/// What the bitmap `stored` of a volume that is opened in `mode` says. `wanted` is the bitmap's
/// granularity that the opener asks for, if any; `reset` is whether recalculation starts anew.
///
/// In recovery mode tags are not looked at, so nothing can be doubtful. The kernel recalculates what
/// is doubtful from the data that is there, whatever it is; above redundancy, the peers know better.
#[must_use]
pub fn verdict(
    superblock: &Superblock,
    stored: &Bitmap,
    mode: Mode,
    wanted: Option<u8>,
    reset: bool,
) -> Verdict {
    let in_use = superblock.flags.has(Flags::DIRTY_BITMAP);
    if !in_use || matches!(mode, Mode::Recovery | Mode::Inline) {
        return Verdict::Nothing;
    }
    let other = wanted.is_some_and(|log2| log2 != superblock.log2_blocks_per_bitmap_bit);
    match (other, stored.dirty_count(), mode) {
        (true, _, _) => Verdict::Everything,
        (false, 0, _) => Verdict::Nothing,
        (false, _, Mode::Bitmap) if !reset => Verdict::Regions,
        (false, _, _) => Verdict::Everything,
    }
}

#[cfg(test)]
mod tests;
