//! Linear and RAID 0: every sector of the array lies on exactly one member.
//!
//! ```text
//! RAID 0, members of 2, 4 and 3 chunks          linear, the same members
//!
//!   slot     0    1    2                          slot     0    1    2
//!   zone 0   0    1    2                                   0    2    6
//!            3    4    5                                   1    3    7
//!   zone 1        6    7                                        4    8
//!   zone 2        8                                             5
//! ```
//! The array is a row of zones. In each, its members take turns chunk by chunk; linear is a zone for
//! each member. Which member of a later zone comes first is what RAID 0 has two layouts for: in the
//! *original* one it depends on the number of the chunk in the array, in the *alternate* one each
//! zone begins anew.
//!
//! Source: the md specification, section 7.1. Of linear it says only that there is such a level; that
//! members follow each other, cut to whole chunks if there is one ("rounding"), is mdadm's manual page.

use units::{Sector, u64_of, usize_of};

/// Why numbers are not such a shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StripesError {
    /// There is nothing to take turns with.
    #[error("RAID 0 with a chunk of 0 sectors")]
    Chunk,
    /// There are no members.
    #[error("no members")]
    NoMembers,
    /// A layout that does not exist.
    #[error("RAID 0 has no layout {found}, expected 1 (original) or 2 (alternate)")]
    Layout {
        /// The layout found.
        found: u32,
    },
    /// Two layouts are possible and nothing says which was used. md refuses it too.
    #[error(
        "members of different sizes and no layout on record: the data from sector {sector} on lies in \
         another order in each of RAID 0's two layouts"
    )]
    Ambiguous {
        /// The first array sector that depends on it.
        sector: u64,
    },
    /// A member that holds not even one chunk.
    #[error("member {slot} has {sectors} sectors for data, less than a chunk of {chunk_sectors}")]
    Small {
        /// Its slot.
        slot: usize,
        /// Its sectors.
        sectors: u64,
        /// The chunk in sectors.
        chunk_sectors: u32,
    },
    /// The sum of the members is no 64-bit address.
    #[error("the members hold more sectors than 64 bits can count")]
    Size,
}

/// The shape of an array without redundancy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stripes {
    zones: Vec<Zone>,
    /// The array's chunk number decides who comes first, not the zone's.
    original: bool,
    chunk_sectors: u64,
}

/// Part of the array in which the same members take turns.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Zone {
    /// Array sectors.
    start: u64,
    end: u64,
    /// Where it begins on each of its members.
    member_start: u64,
    /// Slots, in order.
    slots: Vec<usize>,
}

/// A run of array sectors that lie one behind the other on one member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// The member that holds them.
    pub slot: usize,
    /// The first of them, counted from the start of the member's data.
    pub member_sector: Sector,
    /// How many there are from the sector asked for on.
    pub sectors: u64,
}

impl Stripes {
    /// Members one behind the other. Each holds so many sectors of data; with a chunk (in sectors, 0:
    /// none) only whole chunks of each are used.
    ///
    /// # Errors
    /// [`StripesError`] names what makes no sense.
    pub fn linear(chunk_sectors: u32, members: &[u64]) -> Result<Self, StripesError> {
        let heights = heights(chunk_sectors.max(1), members)?;
        let mut zones = Vec::new();
        let mut start: u64 = 0;
        for (slot, height) in heights.into_iter().enumerate() {
            let end = start.checked_add(height).ok_or(StripesError::Size)?;
            zones.push(Zone { start, end, member_start: 0, slots: vec![slot] });
            start = end;
        }
        Ok(Self { zones, original: false, chunk_sectors: u64::from(chunk_sectors.max(1)) })
    }

    /// RAID 0 over members that hold so many sectors of data, chunks of `chunk_sectors` (any number).
    /// `layout` is the superblock's, if its feature map says that it means something.
    ///
    /// # Errors
    /// [`StripesError`] names what makes no sense.
    pub fn raid0(
        layout: Option<u32>,
        chunk_sectors: u32,
        members: &[u64],
    ) -> Result<Self, StripesError> {
        if chunk_sectors == 0 {
            return Err(StripesError::Chunk);
        }
        let zones = zones(&heights(chunk_sectors, members)?)?;
        // The layouts differ only if somebody takes turns in a later zone.
        let differs = zones.get(1).filter(|zone| zone.slots.len() > 1);
        let original = match (layout, differs) {
            (Some(LAYOUT_ORIGINAL), _) | (None, None) => true,
            (Some(LAYOUT_ALTERNATE), _) => false,
            (Some(found), _) => return Err(StripesError::Layout { found }),
            (None, Some(zone)) => return Err(StripesError::Ambiguous { sector: zone.start }),
        };
        Ok(Self { zones, original, chunk_sectors: u64::from(chunk_sectors) })
    }

    /// Sectors of the array.
    #[must_use]
    pub fn array_sectors(&self) -> u64 {
        self.zones.last().expect("there is a member, so there is a zone").end
    }

    /// The lengths of all runs: of a chunk, where members take turns, else of the whole zone.
    pub fn run_lengths(&self) -> impl Iterator<Item = u64> {
        self.zones.iter().map(|zone| match zone.slots.len() {
            1 => zone.end - zone.start,
            _ => self.chunk_sectors,
        })
    }

    /// Where sector `sector` of the array lies, and how far the run goes.
    ///
    /// # Panics
    /// If the array has no such sector.
    #[must_use]
    pub fn locate(&self, sector: Sector) -> Run {
        let index = self.zones.partition_point(|zone| zone.end <= sector.0);
        let zone = self.zones.get(index).expect("a sector of the array");
        let within = sector.0 - zone.start;
        if let [slot] = *zone.slots {
            let member_sector = Sector(zone.member_start + within);
            return Run { slot, member_sector, sectors: zone.end - sector.0 };
        }
        let (chunk, offset) = (within / self.chunk_sectors, within % self.chunk_sectors);
        let members = u64_of(zone.slots.len());
        let turn = (chunk + self.first_turn(zone)) % members;
        Run {
            slot: zone.slots[usize_of(turn)],
            member_sector: Sector(
                zone.member_start + chunk / members * self.chunk_sectors + offset,
            ),
            sectors: self.chunk_sectors - offset,
        }
    }

    /// The sector of the array that lies at `member_sector` of the member in `slot`: the inverse of
    /// [`Self::locate`]. `None` where the array uses nothing of it.
    #[must_use]
    pub fn array_sector(&self, slot: usize, member_sector: Sector) -> Option<Sector> {
        let at = member_sector.0;
        let mut zones = self.zones.iter();
        let (zone, turn) = zones.find_map(|zone| {
            let height = (zone.end - zone.start) / u64_of(zone.slots.len());
            let here = (zone.member_start..zone.member_start + height).contains(&at);
            let turn = zone.slots.iter().position(|&of| here && of == slot)?;
            Some((zone, u64_of(turn)))
        })?;
        let (members, within) = (u64_of(zone.slots.len()), at - zone.member_start);
        if members == 1 {
            return Some(Sector(zone.start + within));
        }
        let (row, offset) = (within / self.chunk_sectors, within % self.chunk_sectors);
        let chunk = row * members + (turn + members - self.first_turn(zone)) % members;
        Some(Sector(zone.start + chunk * self.chunk_sectors + offset))
    }

    /// Whose turn is first in `zone`.
    fn first_turn(&self, zone: &Zone) -> u64 {
        if self.original { zone.start / self.chunk_sectors % u64_of(zone.slots.len()) } else { 0 }
    }
}

/// What is used of each member.
fn heights(chunk_sectors: u32, members: &[u64]) -> Result<Vec<u64>, StripesError> {
    if members.is_empty() {
        return Err(StripesError::NoMembers);
    }
    let chunk = u64::from(chunk_sectors);
    let whole = members.iter().enumerate().map(|(slot, &sectors)| match sectors / chunk * chunk {
        0 => Err(StripesError::Small { slot, sectors, chunk_sectors }),
        height => Ok(height),
    });
    whole.collect()
}

fn zones(heights: &[u64]) -> Result<Vec<Zone>, StripesError> {
    let mut ends = heights.to_vec();
    ends.sort_unstable();
    ends.dedup();
    let (mut zones, mut start, mut member_start) = (Vec::new(), 0u64, 0);
    for member_end in ends {
        let reaching = heights.iter().enumerate().filter(|(_, height)| **height >= member_end);
        let slots: Vec<usize> = reaching.map(|(slot, _)| slot).collect();
        let sectors = (member_end - member_start).checked_mul(u64_of(slots.len()));
        let end = sectors.and_then(|sectors| start.checked_add(sectors));
        let end = end.ok_or(StripesError::Size)?;
        zones.push(Zone { start, end, member_start, slots });
        (start, member_start) = (end, member_end);
    }
    Ok(zones)
}

/// The superblock's number of the layout in which the array's chunk numbers decide.
pub(crate) const LAYOUT_ORIGINAL: u32 = 1;
/// The superblock's number of the layout in which each zone begins anew.
pub(crate) const LAYOUT_ALTERNATE: u32 = 2;

#[cfg(test)]
mod tests;
