//! The superblocks of a new array, with mdadm's defaults where nothing else is said.
//!
//! What is made here is clean and in sync from the start (`resync_offset` all ones, events 0), or
//! dirty if asked: it is for the caller to have made the members' data agree, which all-zero
//! members do at every level. The bad block logs that the superblocks point to need no writing:
//! one that was never used is read by nobody.
//!
//! Source: the md specification, section 6.

use crate::geometry::{
    Geometry, GeometryError, Mirrors, MirrorsError, ParityLevel, Stripes, StripesError,
};
use crate::journal::BLOCK_SECTORS;
use crate::superblock::{
    BBLOG_SECTORS, Features, Joining, Level, Minor, NewSuperblock, ResyncOffset, Role, SLOTS_MAX,
    Superblock, Time, UNSET_ROLE, Uuid,
};
use units::{Sector, u64_of, usize_of};

/// mdadm's default chunk in sectors: 512 KiB.
pub const MDADM_CHUNK_SECTORS: u32 = 1024;
/// mdadm's default layout for RAID 5 and 6: left-symmetric.
pub const LEFT_SYMMETRIC: u32 = 2;
/// mdadm's default layout for RAID 10: two near copies.
pub const NEAR_2: u32 = 0x102;
/// mdadm's default layout for RAID 0 over members of different sizes.
pub const RAID0_ORIGINAL: u32 = 1;

/// What a new array is to be.
#[derive(Clone, Debug)]
pub struct NewArray {
    /// Its level.
    pub level: Level,
    /// How chunks go to members; linear, RAID 1 and 4 have none (0), and RAID 0 needs none for members of
    /// one size (0: none is put on record).
    pub layout: u32,
    /// Chunk in sectors; RAID 1 has none (0), linear need not have one.
    pub chunk_sectors: u32,
    /// Where the superblocks lie.
    pub minor: Minor,
    /// Its identity.
    pub set_uuid: Uuid,
    /// Its name as stored; see [`set_name`].
    pub set_name: [u8; 32],
    /// Now.
    pub ctime: Time,
    /// How far the members' data already agrees.
    pub resync: ResyncOffset,
    /// First sector of the data on each member, instead of mdadm's choice.
    pub data_offset: Option<Sector>,
    /// Whether it has a partial parity log, for which there is room then. RAID 5 only.
    pub ppl: bool,
    /// Sectors to use of each member, instead of as many as fit all; rounded down as mdadm does. Linear
    /// and RAID 0 use all of each.
    pub size: Option<u64>,
}

/// One member of a new array.
#[derive(Clone, Copy, Debug)]
pub struct NewMember {
    /// Its length in sectors.
    pub device_sectors: u64,
    /// Its identity.
    pub device_uuid: Uuid,
}

/// Why an array cannot be made like this.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CreateError {
    /// The level is none of those that can be made here.
    #[error("arrays of {0} cannot be made")]
    Level(Level),
    /// The shape is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The same of RAID 10.
    #[error(transparent)]
    Mirrors(#[from] MirrorsError),
    /// The same of linear and RAID 0.
    #[error(transparent)]
    Stripes(#[from] StripesError),
    /// A mirror has no chunks.
    #[error("a mirror has no chunk and no layout, found chunk {chunk_sectors}, layout {layout}")]
    MirrorShape {
        /// Chunk asked for, in sectors.
        chunk_sectors: u32,
        /// Layout asked for.
        layout: u32,
    },
    /// Only RAID 5 has a partial parity log.
    #[error("a partial parity log is for RAID 5, not for {0}")]
    Ppl(Level),
    /// Only parity has a write hole to close.
    #[error("a write journal is for RAID 4, 5 and 6, not for {0}")]
    JournalLevel(Level),
    /// A write journal beside what does the same.
    #[error("a write journal and a partial parity log exclude each other")]
    JournalAndPpl,
    /// A journal device without room for a ring.
    #[error("the journal device has {found} sectors, expected at least {min}")]
    JournalSmall {
        /// Its sectors.
        found: u64,
        /// Least sectors for this array.
        min: u64,
    },
    /// No members, or more than a superblock can name.
    #[error("an array of {found} members, expected 1 to {SLOTS_MAX}")]
    Members {
        /// Members given.
        found: usize,
    },
    /// A member cannot hold the metadata and one chunk.
    #[error("member {member} has {found} sectors, expected at least {min}")]
    Small {
        /// Index of the member.
        member: usize,
        /// Its sectors.
        found: u64,
        /// Least sectors for this array.
        min: u64,
    },
    /// The size asked for does not fit every member.
    #[error("{size} sectors of each member do not fit: member {member} has {available}")]
    Size {
        /// Sectors asked for.
        size: u64,
        /// Index of the member.
        member: usize,
        /// Sectors that it has for data.
        available: u64,
    },
    /// The data would overlap the metadata.
    #[error("data at sector {found} would overlap the metadata, which ends at {min}")]
    DataOffset {
        /// Sector asked for.
        found: u64,
        /// Least possible.
        min: u64,
    },
    /// The device table has no room for one more.
    #[error("all {slots} numbers of the device table are taken")]
    Numbers {
        /// Numbers that there are.
        slots: usize,
    },
    /// The name is too long.
    #[error("the name has {found} bytes, at most 32 fit")]
    Name {
        /// Its length in bytes.
        found: usize,
    },
}

/// The stored form of an array's name: `homehost:name` if that fits 31 bytes and `name` has no
/// colon of its own, else `name`.
///
/// # Errors
/// [`CreateError::Name`] if `name` alone does not fit 32 bytes.
pub fn set_name(homehost: Option<&str>, name: &str) -> Result<[u8; 32], CreateError> {
    let full = homehost
        .filter(|_| !name.contains(':'))
        .map(|homehost| format!("{homehost}:{name}"))
        .filter(|full| full.len() <= 31);
    let chosen = full.as_deref().unwrap_or(name).as_bytes();
    let mut stored = [0; 32];
    stored
        .get_mut(..chosen.len())
        .ok_or(CreateError::Name { found: chosen.len() })?
        .copy_from_slice(chosen);
    Ok(stored)
}

/// The superblocks of `members`, whose order is the order of their slots.
///
/// # Errors
/// [`CreateError`] says which number is impossible.
pub fn create(array: &NewArray, members: &[NewMember]) -> Result<Vec<Superblock>, CreateError> {
    let raid_disks = check_shape(array, members.len())?;
    let unit = unit(array);
    let places = members
        .iter()
        .enumerate()
        .map(|(index, member)| place(array, index, member.device_sectors, unit))
        .collect::<Result<Vec<Place>, CreateError>>()?;
    let data_sizes: Vec<u64> = places.iter().map(|place| place.data_size).collect();
    let (mut size, mut features) = (0, Features::default());
    match array.level {
        Level::Linear => drop(Stripes::linear(array.chunk_sectors, &data_sizes)?),
        Level::Raid0 => {
            let layout = Some(array.layout).filter(|&layout| layout != 0);
            Stripes::raid0(layout, array.chunk_sectors, &data_sizes)?;
            features = layout.map_or(features, |_| Features::RAID0_LAYOUT);
        }
        _ => size = common_size(array, &data_sizes, unit)?,
    }
    if array.level == Level::Raid10 {
        Mirrors::new(array.layout, array.chunk_sectors, raid_disks, size)?;
    }

    let roles = device_table(raid_disks);
    let superblocks = members.iter().zip(&places).zip(0..).map(|((member, place), dev_number)| {
        let mut made = Superblock::new(&NewSuperblock {
            minor: array.minor,
            features,
            super_offset: place.super_offset,
            set_uuid: array.set_uuid,
            set_name: array.set_name,
            ctime: array.ctime,
            level: array.level,
            layout: array.layout,
            size,
            chunk_sectors: array.chunk_sectors,
            raid_disks,
            data_offset: place.data_offset,
            data_size: place.data_size,
            dev_number,
            device_uuid: member.device_uuid,
            bblog_offset: place.bblog_offset,
            resync: array.resync,
            roles: &roles,
        });
        if array.ppl {
            made.set_ppl(if array.minor == Minor::V0 { PPL_BEFORE } else { 8 }, PPL_SECTORS);
        }
        made
    });
    Ok(superblocks.collect())
}

/// Gives a new array a write journal on `device`: the superblocks of its members, as [`create`] made them,
/// say so from then on, and this is the device's. Its ring begins with what
/// [`crate::journal::blank_ring`] gives, at the first sector of its data.
///
/// # Errors
/// [`CreateError`] if the level has none, if there is a partial parity log, if the device is too small, or if
/// the device table is full; then the members' superblocks are as they were.
pub fn add_journal(
    array: &NewArray,
    members: &mut [Superblock],
    device: &NewMember,
) -> Result<Superblock, CreateError> {
    if !array.level.has_parity() {
        return Err(CreateError::JournalLevel(array.level));
    }
    if array.ppl {
        return Err(CreateError::JournalAndPpl);
    }
    let first = members.first().ok_or(CreateError::Members { found: 0 })?;
    let slots = first.roles().count();
    let dev_number = free_number(first, &[]).ok_or(CreateError::Numbers { slots })?;
    let least = ring_sectors_min(members.len());
    let place = place(array, members.len(), device.device_sectors, least);
    let place = place.map_err(|error| match error {
        CreateError::Small { found, min, .. } => CreateError::JournalSmall { found, min },
        other => other,
    })?;
    let mut roles: Vec<u16> = first.roles().map(Role::number).collect();
    roles[usize_of(dev_number.into())] = Role::Journal.number();
    let made = Superblock::new(&NewSuperblock {
        minor: array.minor,
        features: Features::JOURNAL,
        super_offset: place.super_offset,
        set_uuid: array.set_uuid,
        set_name: array.set_name,
        ctime: array.ctime,
        level: array.level,
        layout: array.layout,
        size: first.size(),
        chunk_sectors: array.chunk_sectors,
        raid_disks: first.raid_disks(),
        data_offset: place.data_offset,
        data_size: place.data_size,
        dev_number,
        device_uuid: device.device_uuid,
        bblog_offset: place.bblog_offset,
        resync: array.resync,
        roles: &roles,
    });
    members.iter_mut().for_each(|member| member.set_journal(dev_number));
    Ok(made)
}

/// The least sectors of a write journal's ring: four rows of all members, each with its meta block, for the
/// kernel frees a quarter at once; and not less than 1 MiB. mdadm and the kernel state no least.
fn ring_sectors_min(members: usize) -> u64 {
    (4 * (u64_of(members) + 2) * BLOCK_SECTORS).max(2048)
}

/// The superblock of a member that joins the array of which `peer` speaks: a spare, until the array
/// gives it a slot. Its data begins where the peer's does, and what lies beside the superblock too.
///
/// # Errors
/// [`CreateError::Small`] if the array's part does not fit; [`CreateError::Numbers`] if the device
/// table is full.
pub fn join(
    peer: &Superblock,
    member: &NewMember,
    dev_number: Option<u32>,
) -> Result<Superblock, CreateError> {
    let (found, minor, offset) = (member.device_sectors, peer.minor(), peer.data_offset());
    // What metadata 1.0 has between data and superblock, the bitmap and the log.
    let peer_end = offset.0.saturating_add(peer.data_size());
    let between =
        if minor == Minor::V0 { peer.super_offset().0.saturating_sub(peer_end) } else { 0 };
    let before = offset.0.saturating_add(between);
    let behind = if minor == Minor::V0 { 24 } else { 0 };
    let min = before.saturating_add(peer.size()).saturating_add(behind);
    let small = CreateError::Small { member: 0, found, min };
    let super_offset = minor.super_offset(found).ok_or(small)?;
    let end = if minor == Minor::V0 { super_offset.0 } else { found };
    let data_size = end.checked_sub(before).filter(|&left| left >= peer.size()).ok_or(small)?;
    let dev_number = dev_number.ok_or(CreateError::Numbers { slots: peer.roles().count() })?;
    Ok(peer.for_spare(&Joining {
        super_offset,
        data_offset: offset,
        data_size,
        dev_number,
        device_uuid: member.device_uuid,
    }))
}

/// The number for a member that joins the array of which `peer` speaks: the first that was never
/// used and is none of `taken`, else the first whose device is gone.
#[must_use]
pub fn free_number(peer: &Superblock, taken: &[u32]) -> Option<u32> {
    let free = |wanted: Role| {
        let mut numbered = (0..).zip(peer.roles());
        let found = numbered.find(|(number, role)| *role == wanted && !taken.contains(number));
        found.map(|(number, _)| number)
    };
    free(Role::Spare).or_else(|| free(Role::Faulty))
}

/// Sizes are whole numbers of so many sectors: chunks, of RAID 1 64 KiB.
fn unit(array: &NewArray) -> u64 {
    match (array.level, array.chunk_sectors) {
        (Level::Linear, chunk) => u64::from(chunk.max(8)),
        (_, 0) => 128,
        (_, chunk) => u64::from(chunk),
    }
}

/// What is used of each member, where that is the same of all.
fn common_size(array: &NewArray, data_sizes: &[u64], unit: u64) -> Result<u64, CreateError> {
    let asked = array.size.unwrap_or_else(|| data_sizes.iter().copied().min().unwrap_or(0));
    let size = asked / unit * unit;
    for (member, &available) in data_sizes.iter().enumerate() {
        if size == 0 || size > available {
            return Err(CreateError::Size { size: asked, member, available });
        }
    }
    Ok(size)
}

/// The least sectors that a member of such an array must have: metadata and one chunk.
#[must_use]
pub fn member_sectors_min(array: &NewArray) -> u64 {
    let unit = unit(array);
    // The choice of offset grows with the member, so the least member is found from below.
    let mut sectors = unit;
    while let Err(CreateError::Small { min, .. }) = place(array, 0, sectors, unit) {
        sectors = min.max(sectors + 1);
    }
    sectors
}

struct Place {
    super_offset: Sector,
    data_offset: Sector,
    data_size: u64,
    bblog_offset: i32,
}

fn check_shape(array: &NewArray, members: usize) -> Result<u32, CreateError> {
    let NewArray { level, layout, chunk_sectors, .. } = *array;
    if array.ppl && level != Level::Raid5 {
        return Err(CreateError::Ppl(level));
    }
    let raid_disks = u32::try_from(members).unwrap_or(u32::MAX);
    if let Some(parity) = ParityLevel::from_level(level.number()) {
        Geometry::new(parity, layout, chunk_sectors, raid_disks)?;
        return Ok(raid_disks);
    }
    match level {
        Level::Raid1 if chunk_sectors != 0 || layout != 0 => {
            return Err(CreateError::MirrorShape { chunk_sectors, layout });
        }
        Level::Linear | Level::Raid0 | Level::Raid1 | Level::Raid10 => {}
        _ => return Err(CreateError::Level(level)),
    }
    if !(1..=SLOTS_MAX).contains(&raid_disks) {
        return Err(CreateError::Members { found: members });
    }
    Ok(raid_disks)
}

/// Where superblock, data and bad block log of a member of `device_sectors` sectors go.
fn place(
    array: &NewArray,
    member: usize,
    device_sectors: u64,
    unit: u64,
) -> Result<Place, CreateError> {
    let small = |min: u64| CreateError::Small { member, found: device_sectors, min };
    let super_offset = array.minor.super_offset(device_sectors).ok_or(small(16 + unit))?;
    // Without redundancy there is nothing that a bitmap could speed up.
    let redundant = !matches!(array.level, Level::Linear | Level::Raid0);
    let bitmap = match redundant {
        true if array.ppl => PPL_SECTORS.into(),
        true => bitmap_space(device_sectors),
        false => 0,
    };
    let log = u64::from(BBLOG_SECTORS);
    if array.minor == Minor::V0 {
        let data_offset = array.data_offset.unwrap_or(Sector::ZERO);
        let reserved = bitmap + log + data_offset.0;
        let data_size = super_offset.0.checked_sub(reserved).filter(|&left| left >= unit);
        let data_size =
            data_size.ok_or(small(reserved.saturating_add(unit).saturating_add(23) & !7))?;
        return Ok(Place { super_offset, data_offset, data_size, bblog_offset: -8 });
    }
    let metadata_end = super_offset.0 + 8;
    let data_offset = match array.data_offset {
        Some(asked) if asked.0 < metadata_end => {
            return Err(CreateError::DataOffset { found: asked.0, min: metadata_end });
        }
        Some(asked) => asked,
        None => default_data_offset(device_sectors, array.chunk_sectors, bitmap),
    };
    let data_size = device_sectors.checked_sub(data_offset.0).filter(|&left| left >= unit);
    let data_size = data_size.ok_or(small(data_offset.0.saturating_add(unit)))?;
    // The log lies after the room for a bitmap if it fits before the data, else as late as it can.
    let room = data_offset.0 - super_offset.0;
    let bblog = if 8 + bitmap + log <= room { 8 + bitmap } else { room.saturating_sub(log) };
    // No room at all, or on the superblock itself: no log.
    let bblog = if bblog < 8 { 0 } else { bblog };
    let bblog_offset = i32::try_from(bblog).unwrap_or(0);
    Ok(Place { super_offset, data_offset, data_size, bblog_offset })
}

/// Sectors of a partial parity log, as mdadm makes it.
pub const PPL_SECTORS: u16 = 2048;
/// Where it lies if the superblock is at the end: before the bad block log.
const PPL_BEFORE: i16 = -2056;

/// Sectors that mdadm leaves for a bitmap, whether there is one or not.
pub(crate) const fn bitmap_space(device_sectors: u64) -> u64 {
    const GIB: u64 = 2 << 20;
    match device_sectors {
        0..128 => 0,
        small if small <= 8 * GIB => 8,
        middle if middle < 200 * GIB => 128,
        _ => 256,
    }
}

/// mdadm's headroom before the data: up to 128 MiB, a thousandth of the member, but not less than
/// a few chunks; room to move the data in a later reshape.
fn default_data_offset(device_sectors: u64, chunk_sectors: u32, bitmap: u64) -> Sector {
    let floor = 2 * u64::from(chunk_sectors);
    let mut headroom: u64 = 1 << 18;
    while headroom << 10 > device_sectors && (floor == 0 || headroom / 2 >= floor) {
        headroom /= 2;
    }
    Sector((24 + bitmap + headroom).next_multiple_of(2048))
}

/// Device `n` holds slot `n`; the table is filled up to the next 512 bytes of superblock.
fn device_table(raid_disks: u32) -> Vec<u16> {
    let used = usize_of(u64::from(raid_disks));
    let slots = ((256 + 2 * used).next_multiple_of(512) - 256) / 2;
    debug_assert!(u64_of(slots) <= u64::from(SLOTS_MAX));
    let active = (0..).take(used);
    active.chain(std::iter::repeat_n(UNSET_ROLE, slots - used)).collect()
}

#[cfg(test)]
mod tests;
