//! Where the bytes of protection information lie: a guard, an interval, the metadata beside it.
//!
//! ```text
//!   one interval                                        the next
//!   +---------------------------------------------------+--------------------------
//!   | data, `interval` bytes | metadata, `metadata` bytes| data ...   interleaved (DIF, on the wire)
//!   +---------------------------------------------------+--------------------------
//!
//!   +------------------------+------------------------+     +----------+----------+
//!   | data                   | data                   | ... | metadata | metadata | ...   separate (DIX)
//!   +------------------------+------------------------+     +----------+----------+
//!
//!   metadata:   | tuple | the owner's ... |     first: the guard covers the data
//!               | the owner's ... | tuple |     last: the guard covers the data and the owner's bytes
//! ```

use guard::Guard;

/// Where the tuple lies in metadata that is larger than it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Place {
    /// At its start; what follows is not covered by the guard.
    First,
    /// At its end; what precedes is covered by the guard, after the data.
    #[default]
    Last,
}

/// What the bytes of an interval and its metadata are. (The specification of protection information,
/// sections 2.1 to 2.6.)
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Format {
    guard: Guard,
    interval: u32,
    metadata: u16,
    place: Place,
    storage_bits: u8,
}

/// Why there is no such format.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// There are no intervals of that length.
    #[error("an interval of {interval} bytes; it is a multiple of {unit}, at most {max}")]
    Interval {
        /// Bytes asked for.
        interval: usize,
        /// What it must be a multiple of.
        unit: usize,
        /// The most.
        max: usize,
    },
    /// The metadata cannot hold the tuple.
    #[error(
        "{metadata} bytes of metadata for each interval; a tuple with a {guard} guard has {tuple}, and at most 65535 fit"
    )]
    Metadata {
        /// Bytes asked for.
        metadata: usize,
        /// The guard.
        guard: Guard,
        /// Bytes of its tuple.
        tuple: usize,
    },
    /// The storage tag takes bits that it may not have.
    #[error("a storage tag of {bits} bits; with a {guard} guard it has {min} to {max}")]
    StorageBits {
        /// Bits asked for.
        bits: u8,
        /// The guard.
        guard: Guard,
        /// The fewest.
        min: u8,
        /// The most.
        max: u8,
    },
}

impl Format {
    /// `interval` bytes of data with a tuple alone beside them, and the smallest storage tag: none, but
    /// for CRC-32C, whose tuple has at least 16 bits of it.
    ///
    /// The NVM command set has the wide guards over 4096 bytes and more (section 2.6); Linux and QEMU make and
    /// take CRC-64 over 512, too. The guards are as good there, so they are taken over whatever CRC-16 is.
    ///
    /// # Errors
    /// [`FormatError::Interval`].
    pub fn new(guard: Guard, interval: usize) -> Result<Self, FormatError> {
        let refused = FormatError::Interval { interval, unit: INTERVAL_UNIT, max: INTERVAL_MAX };
        if interval == 0 || !interval.is_multiple_of(INTERVAL_UNIT) || interval > INTERVAL_MAX {
            return Err(refused);
        }
        Ok(Self {
            guard,
            interval: u32::try_from(interval).map_err(|_| refused)?,
            metadata: if guard.bytes() == 2 { 8 } else { 16 },
            place: Place::Last,
            storage_bits: storage_range(guard).0,
        })
    }

    /// The same with `metadata` bytes beside each interval, and the tuple at one end of them. Where the
    /// tuple fills them both ends are the same, and the place is [`Place::Last`] whatever was said: equal
    /// bytes are equal formats.
    ///
    /// # Errors
    /// [`FormatError::Metadata`].
    pub fn with_metadata(self, metadata: usize, place: Place) -> Result<Self, FormatError> {
        let (guard, tuple) = (self.guard, self.tuple_bytes());
        let refused = FormatError::Metadata { metadata, guard, tuple };
        let bytes = u16::try_from(metadata).map_err(|_| refused)?;
        if metadata < tuple {
            return Err(refused);
        }
        let place = if metadata == tuple { Place::Last } else { place };
        Ok(Self { metadata: bytes, place, ..self })
    }

    /// The same with a storage tag of `bits` bits, taken from the reference tag.
    ///
    /// # Errors
    /// [`FormatError::StorageBits`].
    pub fn with_storage_bits(self, bits: u8) -> Result<Self, FormatError> {
        let (min, max) = storage_range(self.guard);
        if !(min..=max).contains(&bits) {
            return Err(FormatError::StorageBits { bits, guard: self.guard, min, max });
        }
        Ok(Self { storage_bits: bits, ..self })
    }

    /// The same with another guard whose tuple has the same bytes for everything else (CRC-16 and IP).
    #[must_use]
    pub(crate) fn with_guard(self, guard: Guard) -> Option<Self> {
        (guard.bytes() == 2 && self.guard.bytes() == 2).then_some(Self { guard, ..self })
    }

    /// The kind of guard.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.guard
    }

    /// Bytes of data that one tuple vouches for.
    #[must_use]
    pub const fn interval(&self) -> usize {
        self.interval as usize
    }

    /// Bytes of metadata beside each interval.
    #[must_use]
    pub const fn metadata(&self) -> usize {
        self.metadata as usize
    }

    /// Where in them the tuple is.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Bits of storage tag.
    #[must_use]
    pub const fn storage_bits(&self) -> u8 {
        self.storage_bits
    }

    /// Bytes of an interval with its metadata.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.interval() + self.metadata()
    }

    /// Bytes of a tuple.
    #[must_use]
    pub const fn tuple_bytes(&self) -> usize {
        match self.guard {
            Guard::Crc16 | Guard::Ip => 8,
            Guard::Crc32c | Guard::Crc64 => 16,
        }
    }

    /// Where in the metadata the tuple starts, in bytes.
    #[must_use]
    pub const fn tuple_offset(&self) -> usize {
        match self.place {
            Place::First => 0,
            Place::Last => self.metadata() - self.tuple_bytes(),
        }
    }

    /// Bytes of metadata that the guard covers: those before a tuple that is last.
    #[must_use]
    pub const fn covered_metadata(&self) -> usize {
        self.tuple_offset()
    }

    /// Bits of storage and reference tag together.
    #[must_use]
    pub const fn space_bits(&self) -> u8 {
        match self.guard {
            Guard::Crc16 | Guard::Ip => 32,
            Guard::Crc32c => 80,
            Guard::Crc64 => 48,
        }
    }

    /// Bits of reference tag, 0 to 64.
    #[must_use]
    pub const fn reference_bits(&self) -> u8 {
        self.space_bits() - self.storage_bits
    }

    /// The reference tag with all bits set.
    #[must_use]
    pub const fn reference_mask(&self) -> u64 {
        low_bits(self.reference_bits())
    }

    /// The storage tag with all bits set; 0 if there is none.
    #[must_use]
    pub const fn storage_mask(&self) -> u64 {
        low_bits(self.storage_bits)
    }
}

const fn low_bits(bits: u8) -> u64 {
    match bits {
        0 => 0,
        bits => u64::MAX >> (64 - bits),
    }
}

/// The bits that a storage tag may have. (Section 2.4: a storage tag is mandatory with CRC-32C.)
const fn storage_range(guard: Guard) -> (u8, u8) {
    match guard {
        Guard::Crc16 | Guard::Ip => (0, 32),
        Guard::Crc32c => (16, 64),
        Guard::Crc64 => (0, 48),
    }
}

/// Section 2.6: of 16-bit guards.
const INTERVAL_UNIT: usize = 512;
/// Ours: far beyond any block that exists, so that sums of lengths never overflow.
const INTERVAL_MAX: usize = 1 << 24;
