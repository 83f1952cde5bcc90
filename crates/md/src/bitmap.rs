//! The write-intent bitmap: which chunks may be out of sync after a crash.
//!
//! ```text
//!  0      4         8                 24       32              40          48
//! +------+---------+-----------------+--------+---------------+-----------+------------------
//! | bitm | version | uuid of the set | events | events_cleared| sync_size | state, chunk, ...
//! +------+---------+-----------------+--------+---------------+-----------+------------------
//!  256: one bit per chunk, lowest bit of a byte first; bits beyond the last chunk mean nothing
//! ```
//! A [`Bitmap`] keeps the whole area that it was decoded from, filler too, so that encoding it again
//! gives it back; it changes exactly the fields and the bits that it is asked to change. When its
//! parts are written, and what a crash leaves, is for whoever runs the array.
//!
//! Source: the md specification, section 11.

mod bits;

pub use bits::{Bitmap, NewBitmap};

use crate::superblock::{Superblock, Uuid};
use units::{SECTOR, u64_of};
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
    /// The bits do not fit where they lie.
    #[error("a bitmap of {needed} bytes lies where {room} are free")]
    Room {
        /// Bytes of header and bits.
        needed: u64,
        /// Bytes from its start to whatever comes next.
        room: u64,
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
    /// It covers something else than the array.
    #[error("the bitmap covers {found} sectors, the array has {expected}")]
    Size {
        /// Sectors that it covers.
        found: u64,
        /// Sectors that there are.
        expected: u64,
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
        let (found, expected) = (self.sync_sectors(), superblock.bitmap_sectors());
        if found != expected {
            return Err(Stale::Size { found, expected });
        }
        Ok(())
    }

    /// The set that it belongs to.
    #[must_use]
    pub fn set_uuid(&self) -> Uuid {
        Uuid(self.raw.uuid)
    }

    /// The layout of its bytes: 4, or 5 of an array that several hosts share.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.raw.version.get()
    }

    /// Its state: bit 1 says that it is stale, bit 2 that writing it failed.
    #[must_use]
    pub fn state(&self) -> u32 {
        self.raw.state.get()
    }

    /// How long a chunk should be left alone before its bit is cleared, in seconds; half of it.
    #[must_use]
    pub fn daemon_sleep_seconds(&self) -> u32 {
        self.raw.daemon_sleep.get()
    }

    /// Writes that a write-mostly member may be behind.
    #[must_use]
    pub fn write_behind(&self) -> u32 {
        self.raw.write_behind.get()
    }

    /// Sectors of one chunk.
    #[must_use]
    pub fn chunk_sectors(&self) -> u64 {
        u64::from(self.chunk_bytes()) / SECTOR
    }

    /// Bytes of the header and of all bits that mean something.
    #[must_use]
    pub fn area_bytes(&self) -> u64 {
        u64_of(HEADER_BYTES) + self.bit_count().div_ceil(8)
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
}

/// mdadm's default chunk: 64 MiB.
pub const CHUNK_BYTES: u32 = 64 << 20;
/// The least that mdadm makes: 4 KiB.
pub const CHUNK_BYTES_MIN: u32 = 4096;
/// The largest bitmap that is read or made here: the bits of a PiB in chunks of 4 MiB.
pub const AREA_BYTES_MAX: u64 = 32 << 20;
/// mdadm's default for the time between two looks.
const DAEMON_SLEEP_SECONDS: u32 = 5;
const MAGIC: u32 = 0x6D74_6962;
const STATE_STALE: u32 = 1 << 1;
const STATE_WRITE_ERROR: u32 = 1 << 2;

#[cfg(test)]
mod tests;
