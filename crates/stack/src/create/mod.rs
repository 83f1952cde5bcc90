//! Makes members into a volume: no kernel, no root.
//!
//! First everything is looked at (names, sizes, signatures, content), then everything is planned
//! ([`Plan`], the list that `--dry-run` prints), then it is written (`write.rs`). Whatever is
//! refused is refused before the first write.

mod error;
mod plan;
mod run;
mod write;

pub use error::CreateError;
pub use md::superblock::Minor;
pub(crate) use plan::plan_joining;
pub use plan::{Identity, Plan, PlannedWrite, WriteKind, plan};
pub(crate) use run::refuse_unfit;
pub use run::{Created, Phase, create, dry_run};
pub use write::CreateProgress;
pub(crate) use write::{Target, write};

use crate::member::Member;
use checksum::{Algorithm, Key};
use layers::integrity::{JournalKeys, TagSource};
use md::geometry::layout_number;
use md::superblock::Level;
use units::SECTOR;

/// The levels that can be made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CreateLevel {
    /// No array: one member with integrity.
    #[default]
    None,
    /// One member behind the other.
    Linear,
    /// RAID 0.
    Raid0,
    /// RAID 1.
    Raid1,
    /// RAID 4.
    Raid4,
    /// RAID 5.
    Raid5,
    /// RAID 6.
    Raid6,
    /// RAID 10.
    Raid10,
}

impl CreateLevel {
    const fn md(self) -> Option<Level> {
        match self {
            Self::None => None,
            Self::Linear => Some(Level::Linear),
            Self::Raid0 => Some(Level::Raid0),
            Self::Raid1 => Some(Level::Raid1),
            Self::Raid4 => Some(Level::Raid4),
            Self::Raid5 => Some(Level::Raid5),
            Self::Raid6 => Some(Level::Raid6),
            Self::Raid10 => Some(Level::Raid10),
        }
    }

    const fn members_min(self) -> usize {
        match self {
            Self::None => 1,
            Self::Linear | Self::Raid0 | Self::Raid1 => 2,
            Self::Raid4 | Self::Raid5 | Self::Raid10 => 2,
            Self::Raid6 => 4,
        }
    }

    /// Whether an array of it survives a member.
    #[must_use]
    pub const fn has_redundancy(self) -> bool {
        !matches!(self, Self::None | Self::Linear | Self::Raid0)
    }

    const fn has_chunk(self) -> bool {
        !matches!(self, Self::None | Self::Linear | Self::Raid1)
    }
}

/// By what a new array knows after a crash what was being written. Levels without redundancy have nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CreateBitmap {
    /// Beside each superblock.
    Internal {
        /// Bytes of a chunk, a power of two of at least 4 KiB; none: 64 MiB, or as many as make it fit.
        chunk_bytes: Option<u32>,
    },
    /// The same if the members have 100 GiB or more, else none: mdadm's own choice.
    LikeMdadm,
    /// A partial parity log instead, which closes the write hole; RAID 5 only.
    PartialParity,
    /// None: after a crash everything is compared.
    None,
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// The members, in the order of their slots.
    pub members: Vec<Member>,
    /// Bytes of each member file to make; none: the members exist. Where the data lies on a device
    /// of its own, that is what has this size, and the member is as large as it must be.
    pub member_bytes: Option<u64>,
    /// The array.
    pub level: CreateLevel,
    /// Bytes of a chunk: a power of two (of RAID 0 a multiple of 4 KiB), 4 KiB to 1 MiB. Linear and RAID
    /// 1 have none and ignore it.
    pub chunk_bytes: u64,
    /// How chunks go to members, by md's name of it; none: mdadm's choice.
    pub layout: Option<String>,
    /// Where the md superblocks lie.
    pub minor: Minor,
    /// Members that are read only if no other can be.
    pub write_mostly: Vec<Member>,
    /// Whether writes are announced, so that a crash leaves less to compare.
    pub bitmap: CreateBitmap,
    /// A device that everything written is logged on first, which closes the write hole: RAID 4, 5 and 6, without
    /// bitmap and partial parity log. It gets the integrity that the members get.
    pub write_journal: Option<Member>,
    /// Where tags come from; none: no dm-integrity.
    pub integrity: Option<TagSource>,
    /// The tags' key, if the algorithm takes one.
    pub integrity_key: Option<Key>,
    /// What journals are sealed and encrypted with.
    pub journal: JournalKeys,
    /// Members that shall hold only metadata, each with the device that holds its data.
    pub data_devices: Vec<(Member, Member)>,
    /// Metadata runs are padded as kernels before 5.5 did.
    pub legacy_padding: bool,
    /// No salt is hashed, and the superblock carries no MAC, as before kernel 5.12.
    pub legacy_hmac: bool,
    /// Bytes of tag; none: the whole digest.
    pub tag_size: Option<u16>,
    /// Bytes of the block that each tag covers.
    pub sector_size: u64,
    /// Bytes of journal; none: 1/128 of the member, at most 64 MiB.
    pub journal_bytes: Option<u64>,
    /// Data sectors between metadata runs; none: 32768.
    pub interleave_sectors: Option<u64>,
    /// The array's name.
    pub name: Option<String>,
    /// Tags lie in the metadata of each member's blocks, and there is no journal.
    pub inline: bool,
    /// Leave the data area as it is.
    pub no_wipe: bool,
    /// Overwrite signatures and data.
    pub yes: bool,
}

impl CreateOptions {
    /// The defaults: integrity with CRC-32C over blocks of 4096 bytes, chunks of 64 KiB, a bitmap.
    #[must_use]
    pub const fn new(members: Vec<Member>, level: CreateLevel) -> Self {
        Self {
            members,
            member_bytes: None,
            level,
            chunk_bytes: 64 << 10,
            layout: None,
            minor: Minor::V2,
            write_mostly: Vec::new(),
            bitmap: CreateBitmap::Internal { chunk_bytes: None },
            write_journal: None,
            integrity: Some(TagSource::Hash(Algorithm::Crc32c)),
            integrity_key: None,
            journal: JournalKeys { mac: None, cipher: None },
            data_devices: Vec::new(),
            legacy_padding: false,
            legacy_hmac: false,
            tag_size: None,
            sector_size: 4096,
            journal_bytes: None,
            interleave_sectors: None,
            name: None,
            inline: false,
            no_wipe: false,
            yes: false,
        }
    }

    /// Everything that gets a superblock: the members, and behind them the write journal's device.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().chain(&self.write_journal)
    }

    /// The device with the data of `member`, if it is another.
    pub(crate) fn data_of(&self, member: &Member) -> Option<&Member> {
        self.data_devices.iter().find(|(of, _)| of == member).map(|(_, data)| data)
    }

    /// Whether they make sense together.
    fn check(&self) -> Result<(), CreateError> {
        let (found, level) = (self.members.len(), self.level);
        if level == CreateLevel::None && found != 1 {
            return Err(CreateError::OneMember { found });
        }
        if found < level.members_min() {
            return Err(CreateError::TooFew { level, found, min: level.members_min() });
        }
        if level == CreateLevel::None && self.integrity.is_none() {
            return Err(CreateError::Nothing);
        }
        let is_member =
            |of: &Member| self.devices().any(|one| one == of) && self.integrity.is_some();
        if let Some((of, _)) = self.data_devices.iter().find(|(of, _)| !is_member(of)) {
            return Err(CreateError::DataDevice { member: of.to_string() });
        }
        let chunk = self.chunk_bytes;
        let fits = match level {
            CreateLevel::Raid0 => chunk.is_multiple_of(CHUNK_MIN),
            _ => chunk.is_power_of_two(),
        };
        if level.has_chunk() && !(fits && (CHUNK_MIN..=CHUNK_MAX).contains(&chunk)) {
            return Err(CreateError::Chunk { found: chunk });
        }
        self.layout_number()?;
        if let Some(member) = self.write_mostly.iter().find(|of| !self.members.contains(of)) {
            return Err(CreateError::WriteMostly { member: member.to_string() });
        }
        let mirrored = matches!(level, CreateLevel::Raid1 | CreateLevel::Raid10);
        if !self.write_mostly.is_empty() && !mirrored {
            return Err(CreateError::WriteMostlyLevel { level });
        }
        let parity = level.md().is_some_and(Level::has_parity);
        if parity && self.no_wipe {
            return Err(CreateError::NoWipeWithParity);
        }
        if let Some(found) = self.member_bytes.filter(|bytes| !bytes.is_multiple_of(SECTOR)) {
            return Err(CreateError::MemberBytes { found });
        }
        self.check_inline()?;
        self.check_journal()?;
        if let Some(found) = self.journal_bytes.filter(|&bytes| bytes < SECTOR) {
            return Err(CreateError::Journal { found });
        }
        if let Some(found) = self.interleave_sectors.filter(|s| !(8..=1 << 31).contains(s)) {
            return Err(CreateError::Interleave { found });
        }
        Ok(())
    }
}

impl CreateOptions {
    /// The number of the layout that was asked for, if one was.
    fn layout_number(&self) -> Result<Option<u32>, CreateError> {
        let Some(found) = self.layout.clone() else { return Ok(None) };
        let level = self.level;
        let number = level.md().and_then(|level| layout_number(level, &found));
        number.map(Some).ok_or(CreateError::Layout { level, found })
    }

    /// What a write journal excludes.
    fn check_journal(&self) -> Result<(), CreateError> {
        let level = self.level;
        if self.write_journal.is_none() {
            return Ok(());
        }
        if !level.md().is_some_and(Level::has_parity) {
            return Err(CreateError::WriteJournalLevel { level });
        }
        let excluded = [
            (self.bitmap == CreateBitmap::PartialParity, "a partial parity log"),
            (self.bitmap != CreateBitmap::None, "a write-intent bitmap"),
            (matches!(self.integrity, Some(TagSource::Above(_))), TUPLES),
        ];
        match excluded.into_iter().find(|(given, _)| *given) {
            Some((_, other)) => Err(CreateError::WriteJournalWith { other }),
            None => Ok(()),
        }
    }

    /// What inline tags exclude (the dm-integrity specification, section 8).
    fn check_inline(&self) -> Result<(), CreateError> {
        let excluded = [
            (self.integrity.is_none(), "--integrity none"),
            (matches!(self.integrity, Some(TagSource::Above(_))), "tags of the layer above"),
            (self.journal_bytes.is_some(), "--journal-size"),
            (self.journal.mac.is_some(), "--journal-integrity"),
            (self.journal.cipher.is_some(), "--journal-crypt"),
            (!self.data_devices.is_empty(), "--data-device"),
        ];
        match excluded.into_iter().find(|(given, _)| self.inline && *given) {
            Some((_, option)) => Err(CreateError::InlineWith { option }),
            None => Ok(()),
        }
    }
}

/// What no block of a write journal has room for.
const TUPLES: &str = "tuples beside each block";
/// The smallest chunk.
const CHUNK_MIN: u64 = 4 << 10;
/// The largest chunk.
const CHUNK_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests;
