//! The write-intent bitmap: which chunks may be out of sync after a crash.
//!
//! ```text
//!  0      4         8                 24       32              40          48
//! +------+---------+-----------------+--------+---------------+-----------+------------------
//! | bitm | version | uuid of the set | events | events_cleared| sync_size | state, chunk, ...
//! +------+---------+-----------------+--------+---------------+-----------+------------------
//!  256: one bit per chunk, lowest bit of a byte first; bits beyond the last chunk mean nothing
//! ```
//! This module reads: enough to say whether a bitmap is there, may be believed, and what it calls
//! dirty. Nothing here writes one yet.
//!
//! Source: the md specification, section 11.

use crate::superblock::{Superblock, Uuid};
use units::u64_of;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header; the bits follow it.
pub const HEADER_BYTES: usize = 256;

#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
struct Raw {
    magic: U32,
    version: U32,
    uuid: [u8; 16],
    events: U64,
    events_cleared: U64,
    sync_size: U64,
    state: U32,
    chunksize: U32,
    daemon_sleep: U32,
    write_behind: U32,
    sectors_reserved: U32,
    nodes: U32,
    cluster_name: [u8; 64],
    pad: [u8; 120],
}

const _: () = assert!(size_of::<Raw>() == HEADER_BYTES);

/// The header of a bitmap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BitmapHeader {
    raw: Raw,
}

/// Why bytes are not the header of a bitmap that can be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BitmapError {
    /// Not enough bytes.
    #[error("{found} bytes are too few for a bitmap header of {HEADER_BYTES}")]
    Short {
        /// Bytes given.
        found: usize,
    },
    /// The first four bytes are not `bitm`.
    #[error("magic is {found:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// What they are.
        found: u32,
    },
    /// Host-endian (3), lockless (6) and unknown versions are not read.
    #[error("bitmap version is {found}, expected 4 or 5")]
    Version {
        /// The version.
        found: u32,
    },
    /// The chunk is not a power of two of at least 512 bytes.
    #[error("bitmap chunk of {found} bytes, expected a power of two of at least 512")]
    Chunk {
        /// Its bytes.
        found: u32,
    },
}

/// Why an intact bitmap must be taken as "everything is dirty".
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Stale {
    /// It belongs to another array.
    #[error("the bitmap belongs to array {found}, the superblock to {expected}")]
    Uuid {
        /// Its array.
        found: Uuid,
        /// The superblock's.
        expected: Uuid,
    },
    /// Writes happened that it does not know of.
    #[error("the bitmap is of event {found}, the superblock of {expected}")]
    Events {
        /// Its events.
        found: u64,
        /// The superblock's.
        expected: u64,
    },
    /// It says so itself.
    #[error("the bitmap is marked stale or failed (state {state:#x})")]
    State {
        /// Its state word.
        state: u32,
    },
}

impl BitmapHeader {
    /// The header at the start of `bytes`.
    ///
    /// # Errors
    /// [`BitmapError`] with what was found. There is no checksum: see [`Self::believe`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BitmapError> {
        let short = |_| BitmapError::Short { found: bytes.len() };
        let (raw, _) = Raw::read_from_prefix(bytes).map_err(short)?;
        if raw.magic != MAGIC {
            return Err(BitmapError::Magic { found: raw.magic.get() });
        }
        if ![4, 5].contains(&raw.version.get()) {
            return Err(BitmapError::Version { found: raw.version.get() });
        }
        let chunk = raw.chunksize.get();
        if !chunk.is_power_of_two() || chunk < 512 {
            return Err(BitmapError::Chunk { found: chunk });
        }
        Ok(Self { raw })
    }

    /// The bytes as they lie on the member.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(self.raw.as_bytes());
        bytes
    }

    /// Whether the bits say something about the array of `superblock` in its present state.
    ///
    /// # Errors
    /// [`Stale`]: then every chunk counts as dirty.
    pub fn believe(&self, superblock: &Superblock) -> Result<(), Stale> {
        let (found, expected) = (Uuid(self.raw.uuid), superblock.set_uuid());
        if found != expected {
            return Err(Stale::Uuid { found, expected });
        }
        let (found, expected) = (self.events(), superblock.events());
        if found < expected {
            return Err(Stale::Events { found, expected });
        }
        let state = self.raw.state.get();
        if state & (STATE_STALE | STATE_WRITE_ERROR) != 0 {
            return Err(Stale::State { state });
        }
        Ok(())
    }

    /// The array's event count when the bitmap was last written.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.raw.events.get()
    }

    /// The event count since which no bit was cleared while a member was missing.
    #[must_use]
    pub fn events_cleared(&self) -> u64 {
        self.raw.events_cleared.get()
    }

    /// Bytes that one bit covers.
    #[must_use]
    pub fn chunk_bytes(&self) -> u32 {
        self.raw.chunksize.get()
    }

    /// Sectors that the bits cover: of a member, or of the array for RAID 10.
    #[must_use]
    pub fn sync_sectors(&self) -> u64 {
        self.raw.sync_size.get()
    }

    /// How many bits mean something.
    #[must_use]
    pub fn bit_count(&self) -> u64 {
        self.sync_sectors().div_ceil(u64::from(self.chunk_bytes()) / units::SECTOR)
    }

    /// How many chunks `bits` (the bytes after the header) calls dirty. Bits that `bits` is too
    /// short for count as dirty; bits beyond the last chunk do not count.
    #[must_use]
    pub fn dirty_count(&self, bits: &[u8]) -> u64 {
        let wanted = self.bit_count();
        let given = u64_of(bits.len()).saturating_mul(8).min(wanted);
        let whole = units::usize_of(given / 8);
        let set: u64 = bits[..whole].iter().map(|byte| u64::from(byte.count_ones())).sum();
        let rest = match given % 8 {
            0 => 0,
            tail => u64::from((bits[whole] & ((1 << tail) - 1)).count_ones()),
        };
        set + rest + (wanted - given)
    }
}

const MAGIC: u32 = 0x6D74_6962;
const STATE_STALE: u32 = 1 << 1;
const STATE_WRITE_ERROR: u32 = 1 << 2;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(sync_sectors: u64, chunk: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(b"bitm");
        bytes[4] = 4;
        bytes[40..48].copy_from_slice(&sync_sectors.to_le_bytes());
        bytes[52..56].copy_from_slice(&chunk.to_le_bytes());
        bytes
    }

    #[test]
    fn bits_beyond_the_last_chunk_do_not_count() {
        // The specification's example: one bit, clean, stored as `fe ff ff ff`.
        let one = BitmapHeader::decode(&header(63488, 64 << 20)).unwrap();
        assert_eq!(one.bit_count(), 1);
        assert_eq!(one.dirty_count(&[0xFE, 0xFF, 0xFF, 0xFF]), 0);
        assert_eq!(one.dirty_count(&[0xFF]), 1);
        let eleven = BitmapHeader::decode(&header(8 * 11 - 3, 4096)).unwrap();
        assert_eq!(eleven.bit_count(), 11);
        assert_eq!(eleven.dirty_count(&[0x81, 0xFC]), 3);
        assert_eq!(eleven.dirty_count(&[0x81]), 2 + 3);
    }

    #[test]
    fn other_bytes_are_refused_by_name() {
        let good = header(8, 4096);
        let forged = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            BitmapHeader::decode(&bytes).unwrap_err()
        };
        assert_eq!(forged(0, 0), BitmapError::Magic { found: 0x6D74_6900 });
        assert_eq!(forged(4, 3), BitmapError::Version { found: 3 });
        assert_eq!(forged(53, 0), BitmapError::Chunk { found: 0 });
        assert_eq!(forged(52, 1), BitmapError::Chunk { found: 4097 });
        assert_eq!(BitmapHeader::decode(&good[..255]), Err(BitmapError::Short { found: 255 }));
    }

    proptest! {
        #[test]
        fn any_header_survives_and_any_length_is_counted(
            mut bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES),
            log in 9u32..32,
            bits in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            bytes[..8].copy_from_slice(&header(0, 512)[..8]);
            bytes[52..56].copy_from_slice(&(1u32 << log).to_le_bytes());
            let decoded = BitmapHeader::decode(&bytes).unwrap();
            prop_assert_eq!(&decoded.encode()[..], &bytes[..]);
            prop_assert!(decoded.dirty_count(&bits) <= decoded.bit_count());
        }
    }
}
