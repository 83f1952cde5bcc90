//! The write journal of a RAID 4, 5 or 6 (`mdadm --write-journal`; r5l): what closes the write hole, and in
//! mode write-back holds what was acknowledged and is nowhere else yet.
//!
//! ```text
//!   the data area of the journal device, a ring
//!   +------+------+------+------+------+------+------+------+-----
//!   |      | meta | data |parity| meta | data | meta | meta | old ...
//!   +------+------+------+------+------+------+------+------+-----
//!          ^ journal_tail  sequence + 1 ->  ^ + 1 ->  ^ + 1, and so on
//! ```
//! Everything is in blocks of 4096 bytes. A meta block names what follows it, in its order: blocks of the
//! array's *data*, and *parity* of a *row* (the same 4096 bytes of every member); or it names rows that
//! have come home (*flush*), of which nothing before it counts. An empty meta block marks a flush.
//!
//! A row's data with parity after it is complete: it is to be written home, all of it. Data without
//! parity was acknowledged by an array in mode write-back, which has touched nothing at home for it.
//!
//! The array's superblocks say "clean" at all times: only the journal knows what is not home.
//!
//! Source: the md specification, section 13, and Linux 6.12 (`docs/formats/md-v1.md` says what was seen).

mod head;
mod rows;
mod scan;

pub use head::{Full, Head, NewRow};
pub use rows::{Place, Row, Rows, Senseless};
pub use scan::{Damage, Ended, Found, Ring, Scan, Wanted};

use crate::superblock::Uuid;
use checksum::crc32c_register;
use units::{SECTOR, Sector, u64_of, usize_of};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a meta block, and of every block that is logged.
pub const BLOCK_BYTES: usize = 4096;
/// The same in sectors.
pub const BLOCK_SECTORS: u64 = 8;

/// Bytes of a meta block that payloads may take.
const LIST_BYTES: usize = BLOCK_BYTES - HEADER_BYTES;
const MAGIC: u32 = 0x6433_C509;
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    checksum: U32,
    /// One byte of version, three of padding that are zero.
    version: U32,
    meta_size: U32,
    sequence: U64,
    position: U64,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPayload {
    kind: U16,
    flags: U16,
    /// Sectors of data or parity; bytes of a flush's list.
    size: U32,
}

const DATA: u16 = 0;
const PARITY: u16 = 1;
const FLUSH: u16 = 2;

/// What the checksums of one array's journal start from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seed(u32);

impl Seed {
    /// That of the array `set`.
    #[must_use]
    pub fn of(set: Uuid) -> Self {
        Self(crc32c_register(u32::MAX, &set.0))
    }

    /// CRC-32C of `bytes`, started by the array and not inverted in the end.
    #[must_use]
    pub fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c_register(self.0, bytes)
    }
}

/// Why bytes are not a meta block.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BlockError {
    /// Not as many bytes as a meta block has.
    #[error("{found} bytes, expected {BLOCK_BYTES}")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Another kind of block, or never written.
    #[error("magic is {found:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// What is there.
        found: u32,
    },
    /// Damaged, or another array's.
    #[error("checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// What it bears.
        found: u32,
        /// Its own.
        expected: u32,
    },
    /// A later format.
    #[error("version is {found:#x}, expected {VERSION}")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A copy of a block of another place; only a scan knows.
    #[error("position is {found}, expected {expected}")]
    Position {
        /// What it says, in sectors of the ring.
        found: u64,
        /// Where it lies.
        expected: u64,
    },
    /// A block that it names is another, or damaged; only a scan knows.
    #[error("a block that it names does not have its checksum")]
    Named,
    /// Its payloads do not end within it.
    #[error("meta_size is {found}, expected {HEADER_BYTES} to {BLOCK_BYTES}")]
    Size {
        /// What it says.
        found: u32,
    },
    /// A payload of an unknown kind, with flags, or of an impossible length.
    #[error("payload at byte {at}: type {kind}, flags {flags:#x}, size {size}")]
    Payload {
        /// Where it begins in the block.
        at: usize,
        /// Its type.
        kind: u16,
        /// Its flags.
        flags: u16,
        /// Its size.
        size: u32,
    },
}

/// The first block of a ring in which nothing was logged yet, as mdadm leaves it: empty, at sector 0, of a
/// sequence that is to be chosen by chance, so that no block of a life before follows it. The tail is 0.
#[must_use]
pub fn blank_ring(set: Uuid, sequence: u32) -> Vec<u8> {
    Block { sequence: sequence.into(), position: 0, payloads: Vec::new() }.encode(Seed::of(set))
}

/// What a meta block names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Payload {
    /// Consecutive blocks of the array's data.
    Data {
        /// Where they belong in the array.
        sector: Sector,
        /// The checksum of each.
        checksums: Vec<u32>,
    },
    /// The parity of a row: P, and Q in a RAID 6.
    Parity {
        /// The row, in sectors of a member's data.
        row: Sector,
        /// The checksum of each.
        checksums: Vec<u32>,
    },
    /// Rows that are home.
    Flush {
        /// In sectors of a member's data.
        rows: Vec<Sector>,
    },
}

impl Payload {
    /// How many blocks of it follow the meta block.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        match self {
            Self::Data { checksums, .. } | Self::Parity { checksums, .. } => {
                u64_of(checksums.len())
            }
            Self::Flush { .. } => 0,
        }
    }
}

/// A meta block.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// One more than that of the block before.
    pub sequence: u64,
    /// Its own place in the ring, in sectors.
    pub position: u64,
    /// In the order in which their blocks follow.
    pub payloads: Vec<Payload>,
}

impl Block {
    /// The meta block in `bytes`, of an array's journal.
    ///
    /// # Errors
    /// [`BlockError`] with what was found.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<Self, BlockError> {
        let length = BlockError::Length { found: bytes.len() };
        let bytes: &[u8; BLOCK_BYTES] = bytes.try_into().map_err(|_| length)?;
        let (header, rest) = RawHeader::read_from_prefix(bytes).map_err(|_| length)?;
        if header.magic.get() != MAGIC {
            return Err(BlockError::Magic { found: header.magic.get() });
        }
        let (found, expected) = (header.checksum.get(), own_checksum(header, rest, seed));
        if found != expected {
            return Err(BlockError::Checksum { found, expected });
        }
        if header.version.get() != VERSION {
            return Err(BlockError::Version { found: header.version.get() });
        }
        let found = header.meta_size.get();
        let size = usize_of(found.into());
        let mut list = bytes.get(HEADER_BYTES..size).ok_or(BlockError::Size { found })?;
        let mut payloads = Vec::new();
        while !list.is_empty() {
            let (payload, rest) = decode_payload(list, size - list.len())?;
            payloads.push(payload);
            list = rest;
        }
        let (sequence, position) = (header.sequence.get(), header.position.get());
        Ok(Self { sequence, position, payloads })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If it names more than there is room for.
    #[must_use]
    pub fn encode(&self, seed: Seed) -> Vec<u8> {
        let mut list = Vec::new();
        self.payloads.iter().for_each(|payload| encode_payload(payload, &mut list));
        let size = HEADER_BYTES + list.len();
        assert!(size <= BLOCK_BYTES, "{size} bytes of payloads in one meta block");
        list.resize(LIST_BYTES, 0);
        let mut header = RawHeader {
            magic: MAGIC.into(),
            checksum: U32::ZERO,
            version: VERSION.into(),
            meta_size: u32::try_from(size).unwrap_or(u32::MAX).into(),
            sequence: self.sequence.into(),
            position: self.position.into(),
        };
        header.checksum = own_checksum(header, &list, seed).into();
        [header.as_bytes(), &list].concat()
    }

    /// How many blocks follow it that are its own.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.payloads.iter().map(Payload::blocks).sum()
    }
}

/// The checksum that belongs into a meta block.
fn own_checksum(mut header: RawHeader, rest: &[u8], seed: Seed) -> u32 {
    header.checksum = U32::ZERO;
    crc32c_register(seed.checksum(header.as_bytes()), rest)
}

/// The first payload of `list`, which begins at byte `at` of its block, and what follows it.
fn decode_payload(list: &[u8], at: usize) -> Result<(Payload, &[u8]), BlockError> {
    let nothing = BlockError::Payload { at, kind: 0, flags: 0, size: 0 };
    let (raw, rest) = RawPayload::read_from_prefix(list).map_err(|_| nothing)?;
    let (kind, flags, size) = (raw.kind.get(), raw.flags.get(), raw.size.get());
    let wrong = BlockError::Payload { at, kind, flags, size };
    let unit = if kind == FLUSH { u64_of(size_of::<U64>()) } else { BLOCK_SECTORS };
    let (size, count) = (u64::from(size), usize_of(u64::from(size) / unit));
    if kind > FLUSH || flags != 0 || count == 0 || !size.is_multiple_of(unit) {
        return Err(wrong);
    }
    if kind == FLUSH {
        let (rows, rest) = <[U64]>::ref_from_prefix_with_elems(rest, count).map_err(|_| wrong)?;
        let rows = rows.iter().map(|row| Sector(row.get())).collect();
        return Ok((Payload::Flush { rows }, rest));
    }
    let (place, rest) = U64::read_from_prefix(rest).map_err(|_| wrong)?;
    let (sums, rest) = <[U32]>::ref_from_prefix_with_elems(rest, count).map_err(|_| wrong)?;
    let (place, checksums) = (Sector(place.get()), sums.iter().map(|sum| sum.get()).collect());
    let payload = if kind == DATA {
        Payload::Data { sector: place, checksums }
    } else {
        Payload::Parity { row: place, checksums }
    };
    Ok((payload, rest))
}

fn encode_payload(payload: &Payload, list: &mut Vec<u8>) {
    let mut begin = |kind: u16, size: usize| {
        let size = u32::try_from(size).unwrap_or(u32::MAX).into();
        let raw = RawPayload { kind: kind.into(), flags: U16::ZERO, size };
        list.extend_from_slice(raw.as_bytes());
    };
    let (place, checksums) = match payload {
        Payload::Flush { rows } => {
            begin(FLUSH, rows.len() * size_of::<U64>());
            rows.iter().for_each(|row| list.extend_from_slice(&row.0.to_le_bytes()));
            return;
        }
        Payload::Data { sector, checksums } => (sector, checksums),
        Payload::Parity { row, checksums } => (row, checksums),
    };
    let kind = if matches!(payload, Payload::Data { .. }) { DATA } else { PARITY };
    begin(kind, checksums.len() * BLOCK_BYTES / usize_of(SECTOR));
    list.extend_from_slice(&place.0.to_le_bytes());
    checksums.iter().for_each(|sum| list.extend_from_slice(&sum.to_le_bytes()));
}

#[cfg(test)]
mod tests;
