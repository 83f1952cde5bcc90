//! The partial parity log of a RAID 5: what closes the write hole.
//!
//! ```text
//!   the log of one member              a record
//!   +--------+--------+-----+----      +------------------+---------+---------+----
//!   | record | record | ... | zeroes   | header, 4096 B   | parity  | parity  | ...    a piece for
//!   +--------+--------+-----+----      |  entry, entry, ..| of the 1st, 2nd entry        each entry
//!                                      +------------------+---------+---------+----
//! ```
//! A record lies on the member that holds the parity of the rows that it names. Before data of a row is
//! written, the *partial parity* is logged: XOR of the data strips that are not. With it parity can be
//! made from what the written strips hold, whichever of the writes a crash let through, and without
//! reading the others: one of them may be missing.
//!
//! Only the last record of a member counts. One is written when everything that the one before it names is
//! durable. Records follow each other from the start of the log as long as generations do not fall.
//!
//! Source: the md specification, section 13, and Linux 6.12 (`docs/formats/md-v1.md` says what was seen).

mod update;

pub use update::{EntryError, Plan, Unproven, Update};

use crate::superblock::Uuid;
use checksum::crc32c;
use units::{u64_of, usize_of};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 4096;
/// The most entries of one record.
pub const ENTRIES_MAX: usize = 148;
/// Bytes of the header before its entries.
pub const ENTRIES_AT: usize = 536;

#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
struct RawHeader {
    reserved: [u8; 512],
    signature: U32,
    padding: U32,
    generation: U64,
    entries_count: U32,
    checksum: U32,
    entries: [RawEntry; ENTRIES_MAX],
    tail: [u8; 8],
}

#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
struct RawEntry {
    data_sector: U64,
    pp_size: U32,
    data_size: U32,
    parity_disk: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PplError {
    /// Not enough bytes.
    #[error("{found} bytes are too few for a header of {HEADER_BYTES}")]
    Short {
        /// Bytes given.
        found: usize,
    },
    /// Another array's, or none at all.
    #[error("signature is {found:#010x}, expected {expected:#010x}")]
    Signature {
        /// The signature.
        found: u32,
        /// This array's.
        expected: u32,
    },
    /// The header is damaged.
    #[error("checksum is {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// The checksum that it bears.
        found: u32,
        /// Its own.
        expected: u32,
    },
    /// More entries than a header holds.
    #[error("{found} entries, at most {ENTRIES_MAX}")]
    Count {
        /// Entries.
        found: u32,
    },
    /// The parity reaches beyond the end of the log.
    #[error("a record of {needed} bytes where {room} are left")]
    Room {
        /// Bytes of header and parity.
        needed: u64,
        /// Bytes to the log's end.
        room: u64,
    },
}

/// Rows of a stripe that are about to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Where in the array the first strip that is written begins to be, in sectors of 512 bytes whatever the
    /// array's logical block is: so Linux 6.12 has it, which stops in the kernel where it finds something else.
    pub data_sector: u64,
    /// Bytes of partial parity: as many as the rows of one strip; 0 if all data strips are written.
    pub parity_bytes: u32,
    /// Bytes of all the strips that are written.
    pub data_bytes: u32,
    /// The slot that holds parity.
    pub parity_slot: u32,
    /// CRC-32C of the partial parity, 0 for none.
    pub checksum: u32,
}

/// An entry with its partial parity.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Logged {
    /// What it names.
    pub entry: Entry,
    /// The partial parity, as it lies in the log.
    pub parity: Vec<u8>,
}

impl Logged {
    /// Whether the partial parity is what was meant to be logged. If not, the record was never finished,
    /// and nothing that it names was written.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.parity.is_empty() || crc32c(&self.parity) == self.entry.checksum
    }
}

/// One record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Where it begins in the log, in bytes.
    pub start_bytes: u64,
    /// Which one it is: the last one counts.
    pub generation: u64,
    /// What it names.
    pub entries: Vec<Logged>,
}

/// The log of one member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    records: Vec<Record>,
}

impl Log {
    /// The log in `area`, of a member of the array `set`.
    ///
    /// # Errors
    /// [`PplError`] if it does not begin with a record: then nothing is known of what was being written.
    pub fn decode(area: &[u8], set: Uuid) -> Result<Self, PplError> {
        let first = decode_record(area, 0, set)?;
        let mut next = first.end_bytes();
        let mut records = vec![first];
        while let Ok(record) = decode_record(area, next, set) {
            if records.last().is_some_and(|last| record.generation < last.generation) {
                break;
            }
            next = record.end_bytes();
            records.push(record);
        }
        Ok(Self { records })
    }

    /// All that follow each other, oldest first; never none.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The one that counts.
    ///
    /// # Panics
    /// Never: a log begins with a record.
    #[must_use]
    pub fn last(&self) -> &Record {
        self.records.last().expect("a log begins with a record")
    }
}

impl Record {
    fn end_bytes(&self) -> u64 {
        let parity: usize = self.entries.iter().map(|logged| logged.parity.len()).sum();
        self.start_bytes + u64_of(HEADER_BYTES + parity)
    }
}

fn decode_record(area: &[u8], start_bytes: u64, set: Uuid) -> Result<Record, PplError> {
    let rest = area.get(usize_of(start_bytes)..).unwrap_or_default();
    let short = PplError::Short { found: rest.len() };
    let (mut raw, mut parity) = RawHeader::read_from_prefix(rest).map_err(|_| short)?;
    let (found, expected) = (raw.signature.get(), signature(set));
    if found != expected {
        return Err(PplError::Signature { found, expected });
    }
    let found = raw.checksum.get();
    raw.checksum.set(0);
    let expected = crc32c(raw.as_bytes());
    if found != expected {
        return Err(PplError::Checksum { found, expected });
    }
    let found = raw.entries_count.get();
    let raws = raw.entries.get(..usize_of(found.into())).ok_or(PplError::Count { found })?;
    let needed: u64 = raws.iter().map(|raw| u64::from(raw.pp_size.get())).sum();
    let room = u64_of(parity.len());
    if needed > room {
        return Err(PplError::Room { needed, room });
    }
    let mut entries = Vec::with_capacity(raws.len());
    for raw in raws {
        let (own, rest) = parity.split_at(usize_of(raw.pp_size.get().into()));
        parity = rest;
        entries.push(Logged { entry: raw.entry(), parity: own.to_vec() });
    }
    Ok(Record { start_bytes, generation: raw.generation.get(), entries })
}

/// The header of a record of the array `set`; the partial parities follow it, in the order of `entries`.
///
/// # Panics
/// If there are more than [`ENTRIES_MAX`] entries.
#[must_use]
pub fn encode_header(set: Uuid, generation: u64, entries: &[Entry]) -> Vec<u8> {
    let mut raw = RawHeader {
        reserved: [0xFF; 512],
        signature: signature(set).into(),
        padding: 0.into(),
        generation: generation.into(),
        entries_count: u32::try_from(entries.len()).unwrap_or(u32::MAX).into(),
        checksum: 0.into(),
        entries: [RawEntry::NONE; ENTRIES_MAX],
        tail: [0; 8],
    };
    assert!(entries.len() <= ENTRIES_MAX, "a record has room for {ENTRIES_MAX} entries");
    for (raw, entry) in raw.entries.iter_mut().zip(entries) {
        *raw = RawEntry::of(entry);
    }
    raw.checksum = crc32c(raw.as_bytes()).into();
    raw.as_bytes().to_vec()
}

/// A header that says that nothing is known, which every reader takes as a reason to compare all of the
/// array.
#[must_use]
pub fn void_header() -> Vec<u8> {
    vec![0; HEADER_BYTES]
}

/// How many entries lie in the header's part that a device with logical blocks of `block_bytes` writes as
/// one: the rest of it is the same in every header without more.
#[must_use]
pub fn entries_at_once(block_bytes: usize) -> usize {
    // Of the first 512 bytes nothing changes.
    let end = block_bytes.clamp(1024, HEADER_BYTES);
    ((end - ENTRIES_AT) / size_of::<RawEntry>()).min(ENTRIES_MAX)
}

/// What the array's records begin with.
fn signature(set: Uuid) -> u32 {
    crc32c(&set.0)
}

impl RawEntry {
    const NONE: Self = Self {
        data_sector: U64::ZERO,
        pp_size: U32::ZERO,
        data_size: U32::ZERO,
        parity_disk: U32::ZERO,
        checksum: U32::ZERO,
    };

    fn of(entry: &Entry) -> Self {
        Self {
            data_sector: entry.data_sector.into(),
            pp_size: entry.parity_bytes.into(),
            data_size: entry.data_bytes.into(),
            parity_disk: entry.parity_slot.into(),
            checksum: entry.checksum.into(),
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            data_sector: self.data_sector.get(),
            parity_bytes: self.pp_size.get(),
            data_bytes: self.data_size.get(),
            parity_slot: self.parity_disk.get(),
            checksum: self.checksum.get(),
        }
    }
}

#[cfg(test)]
mod tests;
