//! RAID 10: every chunk is on several members, and the array is wider than one.
//!
//! ```text
//!        near 2 (n2)           far 2 (f2)            offset 2 (o2)         near 2, 3 members
//!
//! slot   0   1   2   3         0   1   2   3         0   1   2   3         0   1   2
//!        0   0   1   1         0   1   2   3         0   1   2   3         0   0   1
//!        2   2   3   3         4   5   6   7         3   0   1   2         1   2   2
//!        4   4   5   5         :   stride            4   5   6   7         3   3   4
//!                              3   0   1   2         7   4   5   6         4   5   5
//! ```
//! Chunks are dealt to positions row by row, each as often as there are near copies. Far copies repeat
//! all of that, each time shifted by the near copies: a *stride* further down, or in the next row with
//! the offset layout. With far sets the shift stays within a set of members.
//!
//! Shapes in which two chunks would share a place are refused by name: no tool makes them, but a
//! superblock could say them.
//!
//! Source: the md specification, section 8.

use units::{Sector, u64_of, usize_of};

/// Why numbers are not such a shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the numbers are")]
pub enum MirrorsError {
    /// Bits that mean nothing, or no copies.
    #[error("RAID 10 has no layout {layout:#x}")]
    Layout { layout: u32 },
    /// md wants a power of two of at least 4 KiB.
    #[error("chunk of {found} sectors, expected a power of two of at least {CHUNK_SECTORS_MIN}")]
    Chunk { found: u32 },
    /// Each copy needs a member of its own.
    #[error("layout {layout:#x} keeps {copies} copies, but there are {raid_disks} members")]
    Disks { layout: u32, copies: u32, raid_disks: u32 },
    /// More members than a superblock can name.
    #[error("{found} members, expected at most {DISKS_MAX}")]
    DisksMax { found: u32 },
    /// The copies of a chunk do not fit into its set.
    #[error("far sets of {set} members cannot hold {copies} copies of a chunk")]
    FarSet { set: u32, copies: u32 },
    /// Near copies that wrap into a row, or a set, in which far copies of others lie.
    #[error(
        "layout {layout:#x} over {raid_disks} members: near and far copies together need members that \
         both divide evenly"
    )]
    Uneven { layout: u32, raid_disks: u32 },
    /// The members hold no chunk, or more than 64 bits can count.
    #[error("{member_sectors} sectors of each member make no usable size")]
    Size { member_sectors: u64 },
}

/// The shape of a RAID 10.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mirrors {
    near: u64,
    far: u64,
    offset: bool,
    /// Members of a far set; the last one has the remainder too.
    set: u64,
    chunk_sectors: u64,
    raid_disks: u64,
    /// From one far copy to the next.
    stride: u64,
    array_sectors: u64,
}

/// Where one copy of a sector lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spot {
    /// The member that holds it.
    pub slot: usize,
    /// Sector on the member, counted from the start of its data.
    pub member_sector: Sector,
}

impl Mirrors {
    /// A shape from the superblock's numbers: `layout`, chunk in sectors, members, and the sectors
    /// that the array uses of each.
    ///
    /// # Errors
    /// [`MirrorsError`] names the number that makes no sense.
    pub fn new(
        layout: u32,
        chunk_sectors: u32,
        raid_disks: u32,
        member_sectors: u64,
    ) -> Result<Self, MirrorsError> {
        let (near, far, offset) = (layout & 255, layout >> 8 & 255, layout & OFFSET != 0);
        let copies = near * far;
        if copies == 0 || layout >> SETS_SHIFT > 2 {
            return Err(MirrorsError::Layout { layout });
        }
        if !chunk_sectors.is_power_of_two() || chunk_sectors < CHUNK_SECTORS_MIN {
            return Err(MirrorsError::Chunk { found: chunk_sectors });
        }
        if raid_disks > DISKS_MAX {
            return Err(MirrorsError::DisksMax { found: raid_disks });
        }
        if copies > raid_disks {
            return Err(MirrorsError::Disks { layout, copies, raid_disks });
        }
        let set = match layout >> SETS_SHIFT {
            0 => raid_disks,
            1 => raid_disks / far,
            _ => copies,
        };
        if far > 1 && set < copies {
            return Err(MirrorsError::FarSet { set, copies });
        }
        // Near copies that wrap would come to lie in the next row, where the offset layout has far
        // copies of others; and what a shift by several members does at an uneven set is nowhere said.
        let uneven =
            (offset && !raid_disks.is_multiple_of(near)) || !raid_disks.is_multiple_of(set);
        if near > 1 && far > 1 && uneven {
            return Err(MirrorsError::Uneven { layout, raid_disks });
        }
        let refuse = MirrorsError::Size { member_sectors };
        let [near, far, set] = [near, far, set].map(u64::from);
        let (chunk_sectors, raid_disks) = (u64::from(chunk_sectors), u64::from(raid_disks));
        let positions =
            (member_sectors / chunk_sectors / far).checked_mul(raid_disks).ok_or(refuse)?;
        let chunks = positions / near;
        let array_sectors = chunks.checked_mul(chunk_sectors).ok_or(refuse)?;
        if chunks == 0 {
            return Err(refuse);
        }
        let rows = (chunks * near).div_ceil(raid_disks);
        let stride = if offset { chunk_sectors } else { rows * chunk_sectors };
        Ok(Self { near, far, offset, set, chunk_sectors, raid_disks, stride, array_sectors })
    }

    /// Sectors of the array.
    #[must_use]
    pub const fn array_sectors(&self) -> u64 {
        self.array_sectors
    }

    /// Sectors in a chunk.
    #[must_use]
    pub const fn chunk_sectors(&self) -> u64 {
        self.chunk_sectors
    }

    /// Members.
    #[must_use]
    pub fn raid_disks(&self) -> usize {
        usize_of(self.raid_disks)
    }

    /// Copies of each chunk.
    #[must_use]
    pub fn copies(&self) -> usize {
        usize_of(self.near * self.far)
    }

    /// Sectors from `sector` on that lie one behind the other in every copy.
    #[must_use]
    pub const fn run_sectors(&self, sector: Sector) -> u64 {
        if self.near == self.raid_disks {
            // Every member holds everything, as with RAID 1.
            return self.array_sectors - sector.0;
        }
        self.chunk_sectors - sector.0 % self.chunk_sectors
    }

    /// Where copy `copy` of array sector `sector` lies. The first is the one that is believed where
    /// copies may differ.
    ///
    /// # Panics
    /// If the array has no such copy or sector.
    #[must_use]
    pub fn locate(&self, sector: Sector, copy: usize) -> Spot {
        assert!(copy < self.copies() && sector.0 < self.array_sectors, "{sector} of {self:?}");
        let (near, far) = (u64_of(copy) / self.far, u64_of(copy) % self.far);
        let (chunk, within) = (sector.0 / self.chunk_sectors, sector.0 % self.chunk_sectors);
        let position = chunk * self.near + near;
        let (row, column) = (position / self.raid_disks, position % self.raid_disks);
        let row = if self.offset { row * self.far } else { row };
        Spot {
            slot: usize_of(self.shifted(column, far * self.near)),
            member_sector: Sector(row * self.chunk_sectors + far * self.stride + within),
        }
    }

    /// The sector of the array of which a copy lies at `member_sector` of the member in `slot`: the
    /// inverse of [`Self::locate`]. `None` where the array uses nothing of it.
    ///
    /// # Panics
    /// If the array has no such slot.
    #[must_use]
    pub fn array_sector(&self, slot: usize, member_sector: Sector) -> Option<Sector> {
        let slot = u64_of(slot);
        assert!(slot < self.raid_disks, "slot {slot} of {self:?}");
        let (row, within) =
            (member_sector.0 / self.chunk_sectors, member_sector.0 % self.chunk_sectors);
        let stride = self.stride / self.chunk_sectors;
        let (row, far) = match (self.offset, self.far) {
            (_, 1) => (row, 0),
            (true, far) => (row / far, row % far),
            (false, _) => (row % stride, row / stride),
        };
        if far >= self.far {
            return None;
        }
        let size = self.set_of(slot).1;
        let back = (size - far * self.near % size) % size;
        let position = row.checked_mul(self.raid_disks)? + self.shifted(slot, back);
        let sector = (position / self.near).checked_mul(self.chunk_sectors)?;
        (sector < self.array_sectors).then(|| Sector(sector + within))
    }

    /// Whether every chunk has a copy on a member that is not missing.
    #[must_use]
    pub fn survives(&self, missing: impl Fn(usize) -> bool) -> bool {
        self.first_lost(missing).is_none()
    }

    /// The first sector of the array of which every copy is on a missing member.
    #[must_use]
    pub fn first_lost(&self, missing: impl Fn(usize) -> bool) -> Option<Sector> {
        let mut chunks = self.different_chunks();
        chunks.find(|&sector| self.present(sector, &missing) == 0)
    }

    /// How many more members may go, whichever they are.
    #[must_use]
    pub fn spare_redundancy(&self, missing: impl Fn(usize) -> bool) -> usize {
        let least = self.different_chunks().map(|sector| self.present(sector, &missing)).min();
        least.unwrap_or(0).saturating_sub(1)
    }

    fn present(&self, sector: Sector, missing: &impl Fn(usize) -> bool) -> usize {
        (0..self.copies()).filter(|&copy| !missing(self.locate(sector, copy).slot)).count()
    }

    /// A chunk of each kind: who holds the copies repeats after as many chunks as there are members.
    fn different_chunks(&self) -> impl Iterator<Item = Sector> {
        let chunks = (self.array_sectors / self.chunk_sectors).min(self.raid_disks);
        let chunk_sectors = self.chunk_sectors;
        (0..chunks).map(move |chunk| Sector(chunk * chunk_sectors))
    }

    /// First slot and length of the far set that `slot` is in.
    const fn set_of(&self, slot: u64) -> (u64, u64) {
        let last = self.raid_disks / self.set - 1;
        let index = if slot / self.set < last { slot / self.set } else { last };
        let start = index * self.set;
        (start, if index == last { self.raid_disks - start } else { self.set })
    }

    /// `slot` moved by so many members within its set.
    const fn shifted(&self, slot: u64, by: u64) -> u64 {
        let (start, size) = self.set_of(slot);
        start + (slot - start + by) % size
    }
}

/// Layout bit: far copies lie in the next row.
const OFFSET: u32 = 1 << 16;
/// Where the kind of far sets is in the layout.
const SETS_SHIFT: u32 = 17;
/// Chunks are pages at least.
const CHUNK_SECTORS_MIN: u32 = 8;
/// Most members that a superblock can name.
const DISKS_MAX: u32 = crate::superblock::SLOTS_MAX;

#[cfg(test)]
mod tests;
