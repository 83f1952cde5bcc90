//! What a new volume will be, and every write that makes it. No I/O.

use super::{CreateBitmap, CreateError, CreateLevel, CreateOptions};
use crate::member::Member;
use integrity::layout::DeviceSectors;
use integrity::superblock::AREA_BYTES;
use integrity::{FormatOptions, Layout};
use layers::integrity::{Codec, CodecError, TagSource, Tagger, sealed_area};
use md::bitmap::{Bitmap, NewBitmap};
use md::create::{LEFT_SYMMETRIC, NEAR_2, NewArray, NewMember, RAID0_ORIGINAL, add_journal};
use md::journal::blank_ring;
use md::ppl::encode_header;
use md::superblock::{DeviceFlags, Level, Minor, ResyncOffset, Time, Uuid};
use std::fmt;
use std::rc::Rc;
use units::{BlockSize, SECTOR, Sector, u64_of, usize_of};

/// What is random, or of the hour, in a new volume. Tests choose it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The array.
    pub set_uuid: [u8; 16],
    /// Its members, in the order of their slots, and behind them the write journal's device.
    pub device_uuids: Vec<[u8; 16]>,
    /// The salts of their tags.
    pub salts: Vec<[u8; 16]>,
    /// Seconds since 1970.
    pub seconds: u64,
}

impl Identity {
    /// A new one for `members` members (a write journal's device counts as one), made now.
    #[must_use]
    pub fn random(members: usize) -> Self {
        let random = || uuid::Uuid::new_v4().into_bytes();
        let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            set_uuid: random(),
            device_uuids: (0..members).map(|_| random()).collect(),
            salts: (0..members).map(|_| random()).collect(),
            seconds: elapsed.map_or(0, |elapsed| elapsed.as_secs()),
        }
    }
}

/// One thing that is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteKind {
    /// The places of old superblocks, zeroed first of all.
    Erase,
    /// The whole member, zeroed: as a hole where that is possible.
    Wipe,
    /// The journal: every section initialised.
    Journal,
    /// The tags of zero blocks.
    ZeroTags,
    /// Every block, zeroed, with its tag.
    ZeroBlocks,
    /// The write-intent bitmap of the array.
    Bitmap,
    /// An empty record at the start of the partial parity log.
    PartialParity,
    /// The first block of an empty write journal.
    WriteJournal,
    /// The md superblock.
    MdSuperblock,
    /// The dm-integrity superblock.
    IntegritySuperblock,
}

impl fmt::Display for WriteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Erase => "zeroes over old superblocks",
            Self::Wipe => "zeroes (as a hole where possible)",
            Self::Journal => "journal",
            Self::ZeroTags => "tags of zero blocks",
            Self::ZeroBlocks => "zeroes with their tags",
            Self::Bitmap => "write-intent bitmap",
            Self::PartialParity => "empty partial parity log",
            Self::WriteJournal => "first block of an empty write journal",
            Self::MdSuperblock => "md superblock",
            Self::IntegritySuperblock => "dm-integrity superblock",
        })
    }
}

/// One write, or a run of equal ones, as `--dry-run` lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedWrite {
    /// The member.
    pub member: String,
    /// What.
    pub kind: WriteKind,
    /// The first byte of the member.
    pub byte: u64,
    /// Bytes from there to the last that is written.
    pub span_bytes: u64,
    /// Bytes that are written in that span.
    pub bytes: u64,
}

/// The dm-integrity part of one member.
#[derive(Clone)]
pub(crate) struct IntegrityPlan {
    pub superblock: integrity::Superblock,
    pub layout: Layout,
    pub tagger: Tagger,
    /// The superblock's area, sealed if the journal is.
    pub area: [u8; AREA_BYTES],
    pub codec: Rc<Codec>,
}

impl fmt::Debug for IntegrityPlan {
    /// Nothing of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntegrityPlan")
            .field("superblock", &self.superblock)
            .finish_non_exhaustive()
    }
}

/// Everything about one member.
#[derive(Clone, Debug)]
pub(crate) struct MemberPlan {
    pub member: Member,
    /// The device with the data, if it is another.
    pub data: Option<Member>,
    pub sectors: DeviceSectors,
    pub integrity: Option<IntegrityPlan>,
    pub md: Option<md::superblock::Superblock>,
    /// The area of its write-intent bitmap, or the first record of its partial parity log; of the write
    /// journal's device the ring's first block.
    pub bitmap: Option<Vec<u8>>,
    /// In the order in which they are made; see [`mod@super::write`].
    pub writes: Vec<PlannedWrite>,
}

/// Everything about a new volume.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) members: Vec<MemberPlan>,
    /// Sectors of the volume.
    pub sectors: u64,
    /// The array's UUID as md prints it; none without an array.
    pub uuid: Option<String>,
    /// Whether redundancy still has to be made true (`--no-wipe`; tuples of parity).
    pub dirty: bool,
}

impl Plan {
    /// Every write, member by member. Between the last superblocks and the rest of all members
    /// lies a flush.
    pub fn writes(&self) -> impl Iterator<Item = &PlannedWrite> {
        self.members.iter().flat_map(|member| &member.writes)
    }
}

/// Plans a volume over members of these sizes, in the order of the options' members, and a write journal's
/// device of the last.
///
/// # Errors
/// What does not fit, with both numbers.
pub fn plan(
    options: &CreateOptions,
    sectors: &[DeviceSectors],
    identity: &Identity,
) -> Result<Plan, CreateError> {
    options.check()?;
    assert_eq!(options.devices().count(), sectors.len(), "one size for each member");
    let block = BlockSize::from_bytes(options.sector_size)
        .ok_or(CreateError::SectorSize { found: options.sector_size })?;
    let mut members = Vec::new();
    for (index, (member, &sectors)) in options.devices().zip(sectors).enumerate() {
        let integrity = match options.integrity {
            None => None,
            Some(tags) => {
                let salt = identity.salts[index];
                Some(plan_integrity(options, tags, member, sectors, block, salt)?)
            }
        };
        let (data, member) = (options.data_of(member).cloned(), member.clone());
        let (md, bitmap, writes) = (None, None, Vec::new());
        members.push(MemberPlan { member, data, sectors, integrity, md, bitmap, writes });
    }
    // Copies of unknown data have to be made equal; without copies nothing has. Members are made with the
    // tuples of zeroes, and parity has others: those of what the data's tuples say together.
    let mirrored = matches!(options.level, CreateLevel::Raid1 | CreateLevel::Raid10);
    let parity = options.level.md().is_some_and(Level::has_parity);
    let tuples = matches!(options.integrity, Some(TagSource::Above(Some(_))));
    let dirty = options.no_wipe && mirrored || parity && tuples;
    let mut volume_sectors = inner_sectors(&members[0]);
    if let Some(level) = options.level.md() {
        let inner: Vec<u64> = members.iter().map(inner_sectors).collect();
        let mut superblocks = plan_md(options, level, &inner, identity, dirty)?;
        // A bitmap and a journal exclude each other, so nobody's is on the journal's device.
        let bitmap = plan_bitmap(options, &mut superblocks, &inner, dirty)?;
        let data_sizes: Vec<u64> =
            superblocks.iter().map(md::superblock::Superblock::data_size).collect();
        let shape = superblocks[0].shape(&data_sizes).map_err(CreateError::Shape)?;
        volume_sectors = shape.array_sectors().expect("a shape has been checked");
        for (member, superblock) in members.iter_mut().zip(superblocks) {
            member.bitmap = blank_journal(&superblock).or_else(|| bitmap.clone());
            member.md = Some(superblock);
        }
    }
    for member in &mut members {
        member.writes = writes_of(member, options.no_wipe);
    }
    let uuid = options.level.md().map(|_| Uuid(identity.set_uuid).to_string());
    Ok(Plan { members, sectors: volume_sectors, uuid, dirty })
}

/// Plans a member that joins an array, over a device of this size; `superblock` gives its md
/// superblock for what is left of it inside dm-integrity.
///
/// # Errors
/// What does not fit, with both numbers.
pub(crate) fn plan_joining(
    options: &CreateOptions,
    sectors: DeviceSectors,
    identity: &Identity,
    superblock: impl FnOnce(u64) -> Result<md::superblock::Superblock, md::create::CreateError>,
) -> Result<Plan, CreateError> {
    let block = BlockSize::from_bytes(options.sector_size)
        .ok_or(CreateError::SectorSize { found: options.sector_size })?;
    let member = options.members[0].clone();
    let integrity = options
        .integrity
        .map(|tags| plan_integrity(options, tags, &member, sectors, block, identity.salts[0]));
    let integrity = integrity.transpose()?;
    let data = options.data_of(&member).cloned();
    let (name, writes) = (member.to_string(), Vec::new());
    let mut member =
        MemberPlan { member, data, sectors, integrity, md: None, bitmap: None, writes };
    let inner = inner_sectors(&member);
    let superblock =
        superblock(inner).map_err(|error| CreateError::Md { member: Some(name), error })?;
    let uuid = Some(superblock.set_uuid().to_string());
    member.bitmap = empty_ppl(&superblock);
    member.md = Some(superblock);
    member.writes = writes_of(&member, false);
    Ok(Plan { members: vec![member], sectors: inner, uuid, dirty: false })
}

fn inner_sectors(member: &MemberPlan) -> u64 {
    member.integrity.as_ref().map_or(member.sectors.metadata(), |plan| plan.layout.provided_sectors)
}

fn plan_integrity(
    options: &CreateOptions,
    tags: TagSource,
    member: &Member,
    sectors: DeviceSectors,
    block: BlockSize,
    salt: [u8; 16],
) -> Result<IntegrityPlan, CreateError> {
    let (superblock, layout) =
        integrity::format(sectors, &format_options(options, tags, block, salt)?)
            .map_err(|error| CreateError::Integrity { member: member.to_string(), error })?;
    let (key, salt) = (options.integrity_key.as_ref(), superblock.hashed_salt());
    let tagger = Tagger::new(tags, key, salt, block, layout.tag_bytes)?;
    let codec = Rc::new(Codec::new(&superblock, &layout.journal, &options.journal)?);
    let area = sealed_area(&superblock, &options.journal).map_err(CodecError::Key)?;
    Ok(IntegrityPlan { superblock, layout, tagger, area, codec })
}

fn format_options(
    options: &CreateOptions,
    tags: TagSource,
    block: BlockSize,
    salt: [u8; 16],
) -> Result<FormatOptions, CreateError> {
    let tag_bytes = options.tag_size.or_else(|| tags.tag_bytes()).ok_or(CreateError::TagSize)?;
    Ok(FormatOptions {
        journal_sectors: options.journal_bytes.map(|bytes| bytes / SECTOR),
        interleave_sectors: options.interleave_sectors,
        fix_padding: !options.legacy_padding,
        fix_hmac: !options.legacy_hmac,
        journal_mac: options.journal.mac.is_some(),
        inline: options.inline,
        ..FormatOptions::new(block, tag_bytes, salt)
    })
}

/// Bytes that a member must have that holds only the metadata of `data_bytes` bytes of data.
///
/// # Errors
/// [`CreateError`] if there can be no such member.
pub(crate) fn metadata_bytes(options: &CreateOptions, data_bytes: u64) -> Result<u64, CreateError> {
    let block = BlockSize::from_bytes(options.sector_size)
        .ok_or(CreateError::SectorSize { found: options.sector_size })?;
    let tags = options.integrity.expect("only members with integrity have data devices");
    let format = format_options(options, tags, block, [0; 16])?;
    // As much as the format can ever want.
    let sectors = DeviceSectors::Separate { metadata: 1 << 54, data: data_bytes / SECTOR };
    let (_, layout) = integrity::format(sectors, &format)
        .map_err(|error| CreateError::Integrity { member: "the data device".to_owned(), error })?;
    Ok(layout.metadata_device_sectors() * SECTOR)
}

fn plan_md(
    options: &CreateOptions,
    level: Level,
    inner: &[u64],
    identity: &Identity,
    dirty: bool,
) -> Result<Vec<md::superblock::Superblock>, CreateError> {
    let chunk = u32::try_from(options.chunk_bytes / SECTOR).unwrap_or(u32::MAX);
    let (inner, journal) = inner.split_at(options.members.len());
    let unequal = inner.iter().any(|sectors| *sectors != inner[0]);
    let usual = match level {
        Level::Raid5 | Level::Raid6 => LEFT_SYMMETRIC,
        Level::Raid10 => NEAR_2,
        // Put on record only where it makes a difference, as mdadm does.
        Level::Raid0 if unequal => RAID0_ORIGINAL,
        _ => 0,
    };
    let array = NewArray {
        level,
        layout: options.layout_number()?.unwrap_or(usual),
        chunk_sectors: if options.level.has_chunk() { chunk } else { 0 },
        minor: options.minor,
        set_uuid: Uuid(identity.set_uuid),
        set_name: md::create::set_name(None, options.name.as_deref().unwrap_or_default())
            .map_err(|error| CreateError::Md { member: None, error })?,
        ctime: Time::new(identity.seconds, 0),
        resync: if dirty { ResyncOffset::Below(Sector::ZERO) } else { ResyncOffset::Clean },
        data_offset: None,
        ppl: options.bitmap == CreateBitmap::PartialParity,
        size: None,
    };
    let device = |(&device_sectors, &uuid)| NewMember { device_sectors, device_uuid: Uuid(uuid) };
    let members: Vec<NewMember> = inner.iter().zip(&identity.device_uuids).map(device).collect();
    let made = md::create::create(&array, &members).map_err(|error| {
        let index = match error {
            md::create::CreateError::Small { member, .. }
            | md::create::CreateError::Size { member, .. } => Some(member),
            _ => None,
        };
        let member = index.map(|index| options.members[index].to_string());
        CreateError::Md { member, error }
    });
    let mut superblocks = made?;
    for (superblock, member) in superblocks.iter_mut().zip(&options.members) {
        if options.write_mostly.contains(member) {
            superblock.set_device_flags(DeviceFlags::WRITE_MOSTLY);
        }
    }
    let journal = journal.iter().zip(&identity.device_uuids[members.len()..]).map(device).next();
    if let Some(journal) = journal {
        let name = options.write_journal.as_ref().map(Member::to_string);
        let made = add_journal(&array, &mut superblocks, &journal);
        superblocks.push(made.map_err(|error| CreateError::Md { member: name, error })?);
    }
    Ok(superblocks)
}

/// The first block of the ring, if this is a write journal's superblock.
fn blank_journal(superblock: &md::superblock::Superblock) -> Option<Vec<u8>> {
    superblock.journal_tail()?;
    // As random as its UUID is.
    let Uuid([a, b, c, d, ..]) = superblock.device_uuid();
    Some(blank_ring(superblock.set_uuid(), u32::from_le_bytes([a, b, c, d])))
}

/// Says in the superblocks where the array's bitmap lies, and gives its area, the same for all members; or
/// the first record of their partial parity logs.
fn plan_bitmap(
    options: &CreateOptions,
    superblocks: &mut [md::superblock::Superblock],
    inner: &[u64],
    dirty: bool,
) -> Result<Option<Vec<u8>>, CreateError> {
    let least = inner.iter().min().copied().unwrap_or(0);
    let chunk_bytes = match options.bitmap {
        CreateBitmap::Internal { chunk_bytes } => chunk_bytes,
        CreateBitmap::LikeMdadm if least >= MDADM_BITMAP_SECTORS => None,
        CreateBitmap::PartialParity => return Ok(superblocks.first().and_then(empty_ppl)),
        CreateBitmap::LikeMdadm | CreateBitmap::None => return Ok(None),
    };
    if !options.level.has_redundancy() {
        return Ok(None);
    }
    let mut rooms = Vec::new();
    for (superblock, &sectors) in superblocks.iter_mut().zip(inner) {
        superblock.place_bitmap(sectors);
        rooms.extend(superblock.bitmap_room(sectors));
    }
    let room_bytes = rooms.into_iter().min().unwrap_or(0);
    let new = NewBitmap { superblock: &superblocks[0], room_bytes, chunk_bytes, dirty };
    let mut bitmap = Bitmap::new(&new).map_err(CreateError::Bitmap)?;
    bitmap.pad_to(BITMAP_PIECE);
    Ok(Some(bitmap.encode(0..bitmap.area_bytes())))
}

/// A partial parity log in which nothing was logged yet, if the array has one.
fn empty_ppl(superblock: &md::superblock::Superblock) -> Option<Vec<u8>> {
    superblock.ppl().map(|_| encode_header(superblock.set_uuid(), 0, &[]))
}

/// The writes of one member, in order.
fn writes_of(member: &MemberPlan, no_wipe: bool) -> Vec<PlannedWrite> {
    let name = member.member.to_string();
    let mut writes = Vec::new();
    let mut push = |kind, byte: u64, span_bytes, bytes| {
        writes.push(PlannedWrite { member: name.clone(), kind, byte, span_bytes, bytes });
    };
    let sectors = member.sectors.metadata();
    for (sector, sectors) in erased(sectors) {
        push(WriteKind::Erase, sector.bytes(), sectors * SECTOR, sectors * SECTOR);
    }
    let inline = member.integrity.as_ref().is_some_and(|plan| plan.layout.inline);
    if !no_wipe && !inline {
        push(WriteKind::Wipe, 0, sectors * SECTOR, sectors * SECTOR);
    }
    if let Some(plan) = member.integrity.as_ref().filter(|_| inline && !no_wipe) {
        let bytes = plan.layout.provided_sectors * SECTOR;
        push(WriteKind::ZeroBlocks, plan.layout.initial_sectors * SECTOR, bytes, bytes);
    }
    if let Some(plan) = member.integrity.as_ref().filter(|_| !inline) {
        let journal = plan.layout.journal.sectors() * SECTOR;
        push(WriteKind::Journal, integrity::superblock::AREA_SECTORS * SECTOR, journal, journal);
        if !no_wipe {
            let (first, end, bytes) = tag_span(&plan.layout);
            push(WriteKind::ZeroTags, first, end - first, bytes);
        }
    }
    let place = |sector: Sector| {
        let integrity = member.integrity.as_ref();
        integrity.map_or(sector.bytes(), |plan| plan.layout.run(sector, 8).data.bytes())
    };
    if let Some(superblock) = &member.md {
        if let (Some(area), Some((kind, sector))) = (&member.bitmap, beside(superblock)) {
            push(kind, place(sector), u64_of(area.len()), u64_of(area.len()));
        }
        let bytes = u64_of(superblock.encode().len());
        push(WriteKind::MdSuperblock, place(superblock.super_offset()), bytes, bytes);
    }
    if let Some(plan) = &member.integrity {
        let bytes = u64_of(plan.area.len());
        push(WriteKind::IntegritySuperblock, 0, bytes, bytes);
    }
    if let Some(data) = member.data.as_ref().filter(|_| !no_wipe) {
        let (member, bytes) = (data.to_string(), member.sectors.data() * SECTOR);
        let kind = WriteKind::Wipe;
        writes.push(PlannedWrite { member, kind, byte: 0, span_bytes: bytes, bytes });
    }
    writes
}

/// What lies beside a superblock from the start, and where.
pub(crate) fn beside(superblock: &md::superblock::Superblock) -> Option<(WriteKind, Sector)> {
    if superblock.journal_tail().is_some() {
        return Some((WriteKind::WriteJournal, superblock.data_offset()));
    }
    let bitmap = superblock.bitmap_sector().map(|sector| (WriteKind::Bitmap, sector));
    bitmap.or_else(|| Some((WriteKind::PartialParity, superblock.ppl()?.sector)))
}

/// First byte, byte behind the last, and count of all tags.
fn tag_span(layout: &Layout) -> (u64, u64, u64) {
    let last = layout.run(Sector(layout.provided_sectors - layout.block.sectors()), 1);
    let tag = u64_of(layout.tag_bytes);
    let bytes = layout.provided_sectors / layout.block.sectors() * tag;
    (layout.run(Sector::ZERO, 1).tag_byte, last.tag_byte + tag, bytes)
}

/// Where superblocks that we would open could lie: dm-integrity's and md's 1.1 and 1.2 at the
/// start, md's 1.0 near the end.
pub(crate) fn erased(sectors: u64) -> Vec<(Sector, u64)> {
    let mut places = vec![(Sector::ZERO, 16.min(sectors / 8 * 8))];
    if let Some(end) = Minor::V0.super_offset(sectors).filter(|end| end.0 >= 16) {
        places.push((end, 8));
    }
    places.retain(|(_, sectors)| *sectors > 0);
    places
}

/// Tags of this many blocks are written together: whole sectors whatever the tag's size, and about
/// a MiB.
pub(crate) fn tag_group_blocks(tag_bytes: usize) -> u64 {
    const UNIT: usize = 4096;
    u64_of(UNIT * ((1 << 20) / (UNIT * tag_bytes)).max(1))
}

/// Sectors of one section's worth of journal, at most this many sections at once.
pub(crate) fn sections_at_once(section_bytes: usize) -> u32 {
    u32::try_from(((1 << 20) / section_bytes).max(1)).expect("at most a few thousand")
}

/// Length of a buffer in sectors; it is a whole number of them.
pub(crate) fn sectors_of(bytes: usize) -> u64 {
    debug_assert!(bytes.is_multiple_of(usize_of(SECTOR)), "whole sectors");
    u64_of(bytes) / SECTOR
}

/// The least members for which mdadm makes a bitmap by itself: 100 GiB (the md specification, section 6).
const MDADM_BITMAP_SECTORS: u64 = (100 << 30) / SECTOR;
/// The bitmap is written in pieces of this many bytes: as many as a superblock has, so that none of
/// them crosses a run of tags.
pub(crate) const BITMAP_PIECE: usize = 4096;
