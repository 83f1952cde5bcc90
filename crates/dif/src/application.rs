//! Bytes of the application's own, laid over the tags of a request. (Section 7.)
//!
//! A file system that writes 4096 bytes to a disk of 512-byte intervals has eight application tags: with
//! two bytes each, room for 16 bytes (an inode number, a back pointer) that come back with the block.
//!
//! ```text
//!   bytes            00 11 | 22 33 | 44 55 | ...
//!   application tags  0011    2233    4455         types 1 and 2: 2 bytes of each tuple
//!                                                  type 3: 2 + 4 (+ 6, + 8) bytes, the reference tag too
//! ```
//!
//! The bytes are in the order of the stream on every machine. One value of a tag is taken: the escape,
//! which would turn checking off. [`Coding::Plain`] refuses bytes that would spell it; [`Coding::Safe`]
//! takes any, and gives up one bit of each tag.

use crate::format::Format;
use crate::profile::Profile;
use crate::remap::each_tuple;
use crate::tuple::Tuple;

/// How bytes become tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Coding {
    /// As they are.
    Plain,
    /// The first bit of every application tag stays 0.
    Safe,
}

/// Bytes that cannot be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TagStreamError {
    /// More than there is room for.
    #[error(
        "{bytes} bytes for the application tags of {intervals} intervals, which hold {capacity}"
    )]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// Intervals.
        intervals: usize,
        /// What they hold.
        capacity: usize,
    },
    /// Read: an interval's tags were not written as such a stream: they are the escape, or [`Coding::Safe`]
    /// would not have written them.
    #[error("the application tag of interval {interval} was not written as a stream")]
    Foreign {
        /// The interval, from 0.
        interval: u64,
    },
    /// They would spell the escape.
    #[error(
        "the bytes from {offset} on would spell the escape in interval {interval}, and turn its checks off"
    )]
    Escape {
        /// The interval, from 0.
        interval: u64,
        /// Which of the bytes.
        offset: usize,
    },
}

/// The application's bytes in the tags of a request.
#[derive(Clone, Copy, Debug)]
pub struct TagStream {
    profile: Profile,
    coding: Coding,
}

impl TagStream {
    /// Over the tags of a device with that profile, whose application owns them (ATO of SCSI's control
    /// mode page).
    #[must_use]
    pub const fn new(profile: Profile, coding: Coding) -> Self {
        Self { profile, coding }
    }

    /// Bits of each tuple that carry the stream.
    const fn bits(&self) -> usize {
        8 * self.profile.application_bytes() - matches!(self.coding, Coding::Safe) as usize
    }

    /// Bytes that the tags of so many intervals hold.
    #[must_use]
    pub const fn capacity(&self, intervals: usize) -> usize {
        intervals.saturating_mul(self.bits()) / 8
    }

    /// Lays `bytes` over the tags in `metadata` (separate, in any pieces); what is left of the tags becomes
    /// zeroes. Guards, storage tags and the owner's metadata stay as they are.
    ///
    /// # Errors
    /// [`TagStreamError`]; nothing was written then.
    ///
    /// # Panics
    /// If the metadata is not that of `intervals` whole intervals.
    pub fn write<'m>(
        &self,
        bytes: &[u8],
        intervals: usize,
        metadata: impl IntoIterator<Item = &'m mut [u8]>,
    ) -> Result<(), TagStreamError> {
        let capacity = self.capacity(intervals);
        if bytes.len() > capacity {
            return Err(TagStreamError::TooLong { bytes: bytes.len(), intervals, capacity });
        }
        let mut bits = Bits { bytes, at: 0 };
        for interval in (0_u64..).take(intervals) {
            let offset = bits.at / 8;
            if self.is_escape(bits.next(self.bits())) {
                return Err(TagStreamError::Escape { interval, offset });
            }
        }
        let mut bits = Bits { bytes, at: 0 };
        let mut seen = 0;
        self.each(metadata, |tuple| {
            let value = bits.next(self.bits());
            let reference = self.reference_bits();
            tuple.application = low_16(value >> reference);
            if reference > 0 {
                tuple.reference = low_64(value) & low_64((1 << reference) - 1);
            }
            seen += 1;
        });
        assert_eq!(seen, intervals, "there is metadata for each interval");
        Ok(())
    }

    /// Reads the stream back: as many bytes as `bytes` has room for. Intervals that hold none of them are
    /// not looked at.
    ///
    /// # Errors
    /// [`TagStreamError::TooLong`]; [`TagStreamError::Foreign`], and what `bytes` holds then means nothing.
    ///
    /// # Panics
    /// If the metadata is not that of whole intervals.
    pub fn read(&self, metadata: &[u8], bytes: &mut [u8]) -> Result<(), TagStreamError> {
        let format = &self.profile.format;
        let intervals = metadata.len() / format.metadata();
        assert_eq!(intervals * format.metadata(), metadata.len(), "metadata of whole intervals");
        let capacity = self.capacity(intervals);
        if bytes.len() > capacity {
            return Err(TagStreamError::TooLong { bytes: bytes.len(), intervals, capacity });
        }
        bytes.fill(0);
        let needed = (8 * bytes.len()).div_ceil(self.bits());
        let each = metadata.chunks_exact(format.metadata()).take(needed);
        for (interval, (index, metadata)) in (0_u64..).zip(each.enumerate()) {
            let tuple = &metadata[format.tuple_offset()..][..format.tuple_bytes()];
            let tuple = Tuple::decode(format, tuple);
            let is_marked = self.coding == Coding::Safe && tuple.application >> 15 == 1;
            if is_marked || tuple.is_escaped(format, self.profile.kind) {
                return Err(TagStreamError::Foreign { interval });
            }
            let reference = self.reference_bits();
            let reference_tag = u128::from(tuple.reference) & ((1 << reference) - 1);
            let value = u128::from(tuple.application) << reference | reference_tag;
            for bit in 0..self.bits() {
                let at = index * self.bits() + bit;
                if value >> (self.bits() - 1 - bit) & 1 == 1 && at / 8 < bytes.len() {
                    bytes[at / 8] |= 0x80 >> (at % 8);
                }
            }
        }
        Ok(())
    }

    fn each<'m>(
        &self,
        metadata: impl IntoIterator<Item = &'m mut [u8]>,
        mut each: impl FnMut(&mut Tuple),
    ) {
        let format: &Format = &self.profile.format;
        each_tuple(format, metadata, (format.metadata(), format.tuple_offset()), |_, bytes| {
            let mut tuple = Tuple::decode(format, bytes);
            each(&mut tuple);
            tuple.encode(format, bytes);
        });
    }

    /// Bits of the reference tag that belong to the stream.
    const fn reference_bits(&self) -> usize {
        8 * (self.profile.application_bytes() - 2)
    }

    /// Whether these bits of a tuple would turn its checks off. (Of type 3 with a storage tag of odd bits
    /// some bits of the reference tag do not belong to the stream; they may be ones.)
    const fn is_escape(&self, value: u128) -> bool {
        let all = (1_u128 << (8 * self.profile.application_bytes())) - 1;
        value == all
    }
}

/// A stream's bits, the first highest; zeroes behind its end.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// The next `count`, at most 128.
    fn next(&mut self, count: usize) -> u128 {
        let mut value = 0;
        for at in self.at..self.at + count {
            let byte = self.bytes.get(at / 8).copied().unwrap_or(0);
            value = value << 1 | u128::from(byte >> (7 - at % 8) & 1);
        }
        self.at += count;
        value
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low_16(value: u128) -> u16 {
    value as u16
}

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low_64(value: u128) -> u64 {
    value as u64
}
