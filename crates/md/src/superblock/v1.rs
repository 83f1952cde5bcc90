//! The superblock of metadata 1.x: its bytes, when they may be believed, and the transitions that
//! a running array makes in them.
//!
//! ```text
//!   0 ............ 63  64 ............ 127  128 ........... 191  192 .. 223 .. 255  256 ....... 4095
//! +------------------+--------------------+--------------------+------------------+--------------+
//! | magic, set uuid, | the array: level,  | this member: data, | utime, events,   | dev_roles,   |
//! | set name         | size, members      | offsets, own uuid  | resync, checksum | then filler  |
//! +------------------+--------------------+--------------------+------------------+--------------+
//! ```
//! A [`Superblock`] keeps the bytes that it was decoded from, unknown ones too, so encoding it
//! again gives them back; setters change exactly the fields they name. Decoding proves that the
//! bytes are a superblock that lies where it says; [`Superblock::validate`] applies the further
//! checks under which md would take the member. Byte map: `docs/formats/md-v1.md`.
//!
//! Source: the md specification, sections 1 to 4.

use super::fields::{Features, Level, Minor, ResyncOffset, Role, Time, Uuid};
pub use access::{BadBlockLog, Ppl, Reshape};
use std::mem::offset_of;
use units::{SECTOR, Sector, u64_of, usize_of};
use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a superblock as they are read and written: the largest one fits exactly.
pub const SUPERBLOCK_BYTES: usize = 4096;
/// The same in sectors.
pub const SUPERBLOCK_SECTORS: u64 = 8;
/// Most slots that a device table may have; also the most members that an array may have here.
pub const SLOTS_MAX: u32 = 1920;

/// The fixed part as it lies on the member. Sectors are of 512 bytes, numbers little-endian.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
pub(super) struct Raw {
    magic: U32,
    major_version: U32,
    feature_map: U32,
    pad0: [u8; 4],
    set_uuid: [u8; 16],
    set_name: [u8; 32],
    ctime: U64,
    level: I32,
    layout: U32,
    size: U64,
    chunksize: U32,
    raid_disks: U32,
    /// Signed sectors from the superblock; with PPL two 16-bit numbers instead.
    bitmap_offset: [u8; 4],
    new_level: I32,
    reshape_position: U64,
    delta_disks: I32,
    new_layout: U32,
    new_chunk: U32,
    new_offset: I32,
    data_offset: U64,
    data_size: U64,
    super_offset: U64,
    recovery_offset: U64,
    dev_number: U32,
    cnt_corrected_read: U32,
    device_uuid: [u8; 16],
    devflags: u8,
    bblog_shift: u8,
    bblog_size: U16,
    bblog_offset: I32,
    utime: U64,
    events: U64,
    resync_offset: U64,
    sb_csum: U32,
    max_dev: U32,
    pad3: [u8; 32],
}

const _: () = {
    assert!(offset_of!(Raw, ctime) == 64);
    assert!(offset_of!(Raw, data_offset) == 128);
    assert!(offset_of!(Raw, utime) == 192);
    assert!(size_of::<Raw>() == FIXED_BYTES);
    assert!(FIXED_BYTES + 2 * SLOTS_MAX as usize == SUPERBLOCK_BYTES);
};

/// Why bytes are not a superblock, or one that must not be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the numbers are")]
pub enum SuperblockError {
    #[error("{found} bytes are too few for a superblock of {SUPERBLOCK_BYTES}")]
    Short { found: usize },
    #[error("a member of {sectors} sectors is too small for metadata {minor}")]
    Small { sectors: u64, minor: Minor },
    #[error("magic is {found:#010x}, expected {MAGIC:#010x}")]
    Magic { found: u32 },
    #[error("major version is {found}, expected 1")]
    Version { found: u32 },
    #[error("the device table has {found} slots, expected at most {SLOTS_MAX}")]
    Slots { found: u32 },
    #[error("checksum is {stored:#010x}, the superblock's bytes say {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("super_offset says sector {stored}, but it was found at sector {found}")]
    Place { stored: u64, found: u64 },
    #[error("feature bits {unknown:#x} are unknown")]
    Features { unknown: u32 },
    #[error("bytes that must be zero are not (offset {offset}): perhaps a newer feature")]
    Pad { offset: usize },
    #[error("features {first} and {second} exclude each other")]
    Excluding { first: &'static str, second: &'static str },
    #[error("the RAID 0 layout feature is set on {level}")]
    Raid0Layout { level: Level },
    #[error("data_size is {found} sectors, expected at least {DATA_SECTORS_MIN}")]
    DataSize { found: u64 },
    #[error("data starts at sector {found}, within the metadata that ends at sector {end}")]
    DataOffset { found: u64, end: u64 },
    #[error(
        "data ends at sector {end}, but the member has room only up to sector {limit}: truncated?"
    )]
    DataEnd { end: u128, limit: u64 },
    #[error("the array uses {size} sectors of each member, but this one has {data_size}")]
    Size { size: u64, data_size: u64 },
    #[error("dev_number is {found}, but the device table has {slots} slots")]
    DeviceNumber { found: u32, slots: u32 },
    #[error("raid_disks is {found}, expected 1 to {SLOTS_MAX}")]
    RaidDisks { found: u32 },
}

/// A superblock whose checksum held, or that was made here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Superblock {
    minor: Minor,
    raw: Raw,
    /// What follows the fixed part: the device table, then bytes of no known meaning.
    rest: Box<[u8; SUPERBLOCK_BYTES - FIXED_BYTES]>,
}

/// What a new superblock says; the rest is the same for all (section 6).
pub(crate) struct NewSuperblock<'a> {
    pub minor: Minor,
    pub features: Features,
    pub super_offset: Sector,
    pub set_uuid: Uuid,
    pub set_name: [u8; 32],
    pub ctime: Time,
    pub level: Level,
    pub layout: u32,
    pub size: u64,
    pub chunk_sectors: u32,
    pub raid_disks: u32,
    pub data_offset: Sector,
    pub data_size: u64,
    pub dev_number: u32,
    pub device_uuid: Uuid,
    pub bblog_offset: i32,
    pub resync: ResyncOffset,
    pub roles: &'a [u16],
}

impl Superblock {
    /// The superblock in `bytes` (at least 4096), read from where a member of `device_sectors`
    /// sectors carries metadata of this minor version.
    ///
    /// # Errors
    /// [`SuperblockError`] up to `Place`: these bytes are no superblock of this member. The
    /// checksum is verified before any field but magic, version and the length that it covers.
    pub fn decode(
        bytes: &[u8],
        minor: Minor,
        device_sectors: u64,
    ) -> Result<Self, SuperblockError> {
        let found = minor
            .super_offset(device_sectors)
            .ok_or(SuperblockError::Small { sectors: device_sectors, minor })?;
        let bytes = bytes
            .first_chunk::<SUPERBLOCK_BYTES>()
            .ok_or(SuperblockError::Short { found: bytes.len() })?;
        let (raw, rest) = Raw::read_from_prefix(bytes).expect("the fixed part is shorter");
        if raw.magic != MAGIC {
            return Err(SuperblockError::Magic { found: raw.magic.get() });
        }
        if raw.major_version != 1 {
            return Err(SuperblockError::Version { found: raw.major_version.get() });
        }
        if raw.max_dev.get() > SLOTS_MAX {
            return Err(SuperblockError::Slots { found: raw.max_dev.get() });
        }
        let computed = checksum(bytes, raw.max_dev.get());
        let stored = raw.sb_csum.get();
        if stored != computed {
            return Err(SuperblockError::Checksum { stored, computed });
        }
        if raw.super_offset != found.0 {
            return Err(SuperblockError::Place { stored: raw.super_offset.get(), found: found.0 });
        }
        let rest = Box::new(*rest.first_chunk().expect("4096 bytes were taken"));
        Ok(Self { minor, raw, rest })
    }

    /// The bytes as they belong on the member, with their checksum.
    #[must_use]
    pub fn encode(&self) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[..FIXED_BYTES].copy_from_slice(self.raw.as_bytes());
        bytes[FIXED_BYTES..].copy_from_slice(&self.rest[..]);
        let sum = checksum(&bytes, self.raw.max_dev.get());
        let at = offset_of!(Raw, sb_csum);
        bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The checks under which md takes a member of `device_sectors` sectors (section 2).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn validate(&self, device_sectors: u64) -> Result<(), SuperblockError> {
        self.validate_features()?;
        let raw = &self.raw;
        let (slots, number) = (raw.max_dev.get(), raw.dev_number.get());
        if number >= slots {
            return Err(SuperblockError::DeviceNumber { found: number, slots });
        }
        let disks = raw.raid_disks.get();
        if disks == 0 || disks > SLOTS_MAX {
            return Err(SuperblockError::RaidDisks { found: disks });
        }

        let (offset, data_size) = (raw.data_offset.get(), raw.data_size.get());
        if data_size < DATA_SECTORS_MIN {
            return Err(SuperblockError::DataSize { found: data_size });
        }
        let super_offset = raw.super_offset.get();
        let limit = if self.minor == Minor::V0 {
            super_offset
        } else {
            let end = super_offset + u64_of(table_end(slots)).div_ceil(SECTOR);
            if offset < end {
                return Err(SuperblockError::DataOffset { found: offset, end });
            }
            device_sectors
        };
        let end = u128::from(offset) + u128::from(data_size);
        if end > u128::from(limit) {
            return Err(SuperblockError::DataEnd { end, limit });
        }
        // A journal's ring may be of any length.
        if self.size() > data_size && self.role() != Some(Role::Journal) {
            return Err(SuperblockError::Size { size: self.size(), data_size });
        }
        Ok(())
    }

    fn validate_features(&self) -> Result<(), SuperblockError> {
        let features = self.features();
        if features.unknown() != 0 {
            return Err(SuperblockError::Features { unknown: features.unknown() });
        }
        for (at, pad) in [
            (offset_of!(Raw, pad0), &self.raw.pad0[..]),
            (offset_of!(Raw, pad3), &self.raw.pad3[..]),
        ] {
            if let Some(byte) = pad.iter().position(|&byte| byte != 0) {
                return Err(SuperblockError::Pad { offset: at + byte });
            }
        }
        let ppl = [(Features::PPL, "ppl"), (Features::MULTIPLE_PPL, "multiple_ppl")];
        let others = [(Features::BITMAP, "bitmap"), (Features::JOURNAL, "journal")];
        for (first_bit, first) in ppl {
            for (second_bit, second) in others {
                if features.contains(first_bit.with(second_bit)) {
                    return Err(SuperblockError::Excluding { first, second });
                }
            }
        }
        if features.contains(Features::RAID0_LAYOUT) && self.level() != Level::Raid0 {
            return Err(SuperblockError::Raid0Layout { level: self.level() });
        }
        Ok(())
    }

    /// A new superblock with `roles` in its device table and nothing unusual.
    ///
    /// # Panics
    /// If there are more roles than [`SLOTS_MAX`].
    pub(crate) fn new(new: &NewSuperblock<'_>) -> Self {
        let slots = u32::try_from(new.roles.len()).unwrap_or(u32::MAX);
        assert!(slots <= SLOTS_MAX, "{slots} slots");
        let mut raw = Raw::new_zeroed();
        raw.magic = MAGIC.into();
        raw.major_version = 1.into();
        raw.feature_map = new.features.0.into();
        raw.set_uuid = new.set_uuid.0;
        raw.set_name = new.set_name;
        raw.ctime = new.ctime.0.into();
        raw.level = new.level.number().into();
        raw.layout = new.layout.into();
        raw.size = new.size.into();
        raw.chunksize = new.chunk_sectors.into();
        raw.raid_disks = new.raid_disks.into();
        raw.data_offset = new.data_offset.0.into();
        raw.data_size = new.data_size.into();
        raw.super_offset = new.super_offset.0.into();
        raw.dev_number = new.dev_number.into();
        raw.device_uuid = new.device_uuid.0;
        raw.bblog_size = BBLOG_SECTORS.into();
        raw.bblog_offset = new.bblog_offset.into();
        raw.utime = new.ctime.0.into();
        raw.resync_offset = new.resync.number().into();
        raw.max_dev = slots.into();
        let mut rest = Box::new([0; SUPERBLOCK_BYTES - FIXED_BYTES]);
        for (slot, role) in rest.chunks_exact_mut(2).zip(new.roles) {
            slot.copy_from_slice(&role.to_le_bytes());
        }
        let mut made = Self { minor: new.minor, raw, rest };
        made.raw.sb_csum = checksum(&made.encode(), slots).into();
        made
    }
}

/// What is its own in the superblock of a member that joins an array.
pub(crate) struct Joining {
    pub super_offset: Sector,
    pub data_offset: Sector,
    pub data_size: u64,
    pub dev_number: u32,
    pub device_uuid: Uuid,
}

impl Superblock {
    /// That of a spare, which says of the array what this one says.
    pub(crate) fn for_spare(&self, new: &Joining) -> Self {
        let mut made = self.clone();
        let raw = &mut made.raw;
        raw.super_offset = new.super_offset.0.into();
        raw.data_offset = new.data_offset.0.into();
        raw.data_size = new.data_size.into();
        raw.dev_number = new.dev_number.into();
        raw.device_uuid = new.device_uuid.0;
        raw.cnt_corrected_read = 0.into();
        raw.devflags = 0;
        made.raw.feature_map = made.features().without(Features::BAD_BLOCKS).0.into();
        made.set_recovery(None);
        made.set_replacement(false);
        made.set_role(new.dev_number, Role::Spare);
        made
    }
}

/// End of the device table in bytes.
fn table_end(slots: u32) -> usize {
    FIXED_BYTES + 2 * usize_of(u64::from(slots))
}

/// The checksum of a superblock with `slots` slots (section 2), as if its own field were zero.
fn checksum(bytes: &[u8; SUPERBLOCK_BYTES], slots: u32) -> u32 {
    let covered = &bytes[..table_end(slots)];
    let (words, tail) = covered.as_chunks::<4>();
    let own = offset_of!(Raw, sb_csum) / 4;
    let mut sum: u64 = 0;
    for (at, word) in words.iter().enumerate() {
        sum += if at == own { 0 } else { u64::from(u32::from_le_bytes(*word)) };
    }
    if let [low, high] = *tail {
        sum += u64::from(u16::from_le_bytes([low, high]));
    }
    let low = sum & u64::from(u32::MAX);
    u32::try_from((low + (sum >> 32)) & u64::from(u32::MAX)).expect("masked to 32 bits")
}

/// A slot of the device table that was never used.
pub(crate) const UNSET_ROLE: u16 = Role::Spare.number();
const MAGIC: u32 = 0xA92B_4EFC;
const FIXED_BYTES: usize = 256;
const DATA_SECTORS_MIN: u64 = 10;
/// Room that mdadm gives the bad block log.
pub(crate) const BBLOG_SECTORS: u16 = 8;

mod access;
#[cfg(test)]
mod tests;
