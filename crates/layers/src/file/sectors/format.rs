//! What each sector of such a disk consists of, as text and as numbers.
//!
//! ```text
//!   format   = DATA "+" METADATA [ "/" profile ]          512+8, 4096+64/t10-dif-type1-crc64-first
//!   profile  = "t10-dif-type" TYPE "-" GUARD { "-" more }
//!   TYPE     = "1" | "2" | "3"         GUARD = "crc16" | "ip" | "crc32c" | "crc64"
//!   more     = "first"                 the tuple is first in metadata larger than it, else last
//!            | "interval" BYTES        the protection interval, else the block
//!            | "storage" BITS          bits of storage tag, else the fewest
//! ```

use dif::{Format, FormatError, Guard, Place, Profile, ProtectionType};
use std::fmt;
use std::str::FromStr;
use units::{BlockSize, u64_of};

/// Where the metadata of such sectors lies.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SectorLayout {
    /// Behind each block.
    #[default]
    Interleaved,
    /// Behind all blocks: QEMU's NVMe device keeps a namespace so.
    AtEnd,
}

/// What each sector of such a disk consists of. As text `512+8`: data, metadata.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SectorFormat {
    /// The data.
    pub block: BlockSize,
    /// Bytes of metadata with it, at least one.
    pub metadata: u16,
    /// Where that is.
    pub layout: SectorLayout,
    /// What it is, if that is known: tuples of these intervals, which together are the block.
    pub protection: Option<Profile>,
}

/// Text that names no format of sectors.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SectorFormatError {
    /// No such sizes.
    #[error(
        "sectors of '{found}' bytes, expected 512, 1024, 2048 or 4096 with metadata behind it, such \
         as 512+8 or 4096+64"
    )]
    Sizes {
        /// As given.
        found: String,
    },
    /// No such profile.
    #[error(
        "'{found}' names no protection information, expected such as t10-dif-type1-crc16, of types 1 \
         to 3 with crc16, ip, crc32c or crc64, perhaps with -first, -interval512 or -storage16"
    )]
    Profile {
        /// As given.
        found: String,
    },
    /// The profile does not go with the sizes.
    #[error("'{found}': {error}")]
    Format {
        /// As given.
        found: String,
        /// Why.
        error: FormatError,
    },
    /// The intervals are no parts of the block.
    #[error("'{found}': the intervals and their metadata are not equal parts of the sector")]
    Interval {
        /// As given.
        found: String,
    },
}

impl SectorFormat {
    /// Interleaved, of metadata without a meaning here.
    #[must_use]
    pub const fn new(block: BlockSize, metadata: u16) -> Self {
        Self { block, metadata, layout: SectorLayout::Interleaved, protection: None }
    }

    /// Bytes of a whole sector in the file.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.block.bytes() + usize::from(self.metadata)
    }

    /// Bytes of data that metadata follows when it is interleaved, and of that metadata.
    #[must_use]
    pub(super) fn unit(self) -> (usize, usize) {
        match &self.protection {
            Some(profile) => (profile.format.interval(), profile.format.metadata()),
            None => (self.block.bytes(), self.metadata.into()),
        }
    }

    /// Bytes that a file must have for `data_bytes` bytes of data, in whole blocks.
    #[must_use]
    pub fn file_bytes(self, data_bytes: u64) -> u64 {
        (data_bytes / u64_of(self.block.bytes())).saturating_mul(u64_of(self.bytes()))
    }

    /// Where byte `byte` of the data lies in the file.
    #[must_use]
    pub fn file_byte(self, byte: u64) -> u64 {
        match self.layout {
            SectorLayout::AtEnd => byte,
            SectorLayout::Interleaved => {
                let (data, metadata) = self.unit();
                byte / u64_of(data) * u64_of(data + metadata) + byte % u64_of(data)
            }
        }
    }

    /// Where the metadata of the block with byte `byte` of the data starts, in a file of `blocks` blocks
    /// (of interleaved intervals, that of the first one).
    #[must_use]
    pub fn metadata_byte(self, byte: u64, blocks: u64) -> u64 {
        let block = u64_of(self.block.bytes());
        match self.layout {
            SectorLayout::AtEnd => blocks * block + byte / block * u64::from(self.metadata),
            SectorLayout::Interleaved => {
                self.file_byte(byte / block * block) + u64_of(self.unit().0)
            }
        }
    }

    /// The same with `text`'s profile.
    fn with_profile(self, text: &str) -> Result<Self, SectorFormatError> {
        let wrong = || SectorFormatError::Profile { found: text.to_owned() };
        let mut words = text.strip_prefix(PROFILE).ok_or_else(wrong)?.split('-');
        let kind = words.next().and_then(|word| word.parse().ok());
        let kind = kind.and_then(ProtectionType::from_number).ok_or_else(wrong)?;
        let guard = words.next().and_then(Guard::from_name).ok_or_else(wrong)?;
        let (mut place, mut interval, mut storage) = (Place::Last, self.block.bytes(), None);
        for word in words {
            if word == "first" {
                place = Place::First;
            } else if let Some(bytes) = word.strip_prefix("interval") {
                interval = bytes.parse().map_err(|_| wrong())?;
            } else if let Some(bits) = word.strip_prefix("storage") {
                storage = Some(bits.parse().map_err(|_| wrong())?);
            } else {
                return Err(wrong());
            }
        }
        let refused = |error| SectorFormatError::Format { found: text.to_owned(), error };
        let uneven = || SectorFormatError::Interval { found: text.to_owned() };
        let mut format = Format::new(guard, interval).map_err(refused)?;
        let (block, metadata) = (self.block.bytes(), usize::from(self.metadata));
        let count = block / interval;
        if !block.is_multiple_of(interval) || !metadata.is_multiple_of(count) {
            return Err(uneven());
        }
        format = format.with_metadata(metadata / count, place).map_err(refused)?;
        if let Some(bits) = storage {
            format = format.with_storage_bits(bits).map_err(refused)?;
        }
        Ok(Self { protection: Some(Profile { format, kind }), ..self })
    }
}

impl FromStr for SectorFormat {
    type Err = SectorFormatError;

    /// Interleaved; where the metadata lies, the text does not say.
    fn from_str(text: &str) -> Result<Self, SectorFormatError> {
        let (sizes, profile) = match text.split_once('/') {
            Some((sizes, profile)) => (sizes, Some(profile)),
            None => (text, None),
        };
        let parsed = sizes.split_once('+').and_then(|(block, metadata)| {
            let block = BlockSize::from_bytes(block.parse().ok()?)?;
            let metadata = metadata.parse().ok().filter(|&bytes| bytes > 0)?;
            Some(Self::new(block, metadata))
        });
        let plain = parsed.ok_or_else(|| SectorFormatError::Sizes { found: sizes.to_owned() })?;
        profile.map_or(Ok(plain), |profile| plain.with_profile(profile))
    }
}

impl fmt::Display for SectorFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.block.bytes(), self.metadata)?;
        let Some(Profile { format, kind }) = &self.protection else { return Ok(()) };
        write!(f, "/{PROFILE}{}-{}", kind.number(), format.guard())?;
        if format.place() == Place::First {
            f.write_str("-first")?;
        }
        if format.interval() != self.block.bytes() {
            write!(f, "-interval{}", format.interval())?;
        }
        if format.storage_bits() > 0 {
            write!(f, "-storage{}", format.storage_bits())?;
        }
        Ok(())
    }
}

const PROFILE: &str = "t10-dif-type";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_data_plus_metadata_and_nothing_else() {
        for text in ["512+8", "520+8", "4096+0", "4096", "+8", "512+", "512+65536", "512+-8", "0+8"]
        {
            let parsed = text.parse::<SectorFormat>();
            assert_eq!(parsed.is_ok(), text == "512+8", "{text}");
        }
        let found: SectorFormat = "4096+64".parse().unwrap();
        assert_eq!((found.to_string(), found.bytes()), ("4096+64".to_owned(), 4160));
        assert_eq!(found.file_bytes(3 * 4096 + 7), 3 * 4160);
        assert_eq!(found.file_byte(4096 + 5), 4160 + 5);
        assert_eq!(found.metadata_byte(4096 + 5, 10), 4160 + 4096);
        let at_end = SectorFormat { layout: SectorLayout::AtEnd, ..found };
        assert_eq!(at_end.file_bytes(3 * 4096 + 7), 3 * 4160);
        assert_eq!(at_end.file_byte(4096 + 5), 4096 + 5);
        assert_eq!(at_end.metadata_byte(4096 + 5, 10), 40_960 + 64);
    }

    #[test]
    fn a_profile_is_read_as_it_is_printed() {
        for text in [
            "512+8/t10-dif-type1-crc16",
            "4096+64/t10-dif-type2-ip-interval512",
            "4096+64/t10-dif-type3-crc64-first-storage16",
            "4096+16/t10-dif-type1-crc32c-storage16",
        ] {
            let format: SectorFormat = text.parse().unwrap();
            assert_eq!(format.to_string(), text);
            let profile = format.protection.unwrap();
            let count = format.block.bytes() / profile.format.interval();
            assert_eq!(profile.format.metadata() * count, usize::from(format.metadata));
        }
        for wrong in [
            "512+8/",
            "512+8/t10-dif-type4-crc16",
            "512+8/t10-dif-type1",
            "512+8/t10-dif-type1-crc17",
            "512+8/t10-dif-type1-crc16-last",
            "512+8/t10-dif-type1-crc64",
            "512+8/t10-dif-type1-crc16-interval0",
            "512+4/t10-dif-type1-crc16",
            "4096+8/t10-dif-type1-crc16-interval512",
            "4096+9/t10-dif-type1-crc16-interval512",
            "4096+8/t10-dif-type1-crc16-storage33",
            "4096+8/t10-dif-type1-crc16-interval1536",
        ] {
            assert!(wrong.parse::<SectorFormat>().is_err(), "{wrong}");
        }
    }
}
