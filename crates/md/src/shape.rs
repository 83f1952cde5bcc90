//! The shape of an array of whichever level: its size, and which members it can do without.
//!
//! Levels with redundancy use equally much of each member, and one superblock says how much. Linear and
//! RAID 0 use what each member has, so their shape follows from all of them together.

use crate::assemble::CannotStart;
use crate::geometry::{
    Geometry, GeometryError, Mirrors, MirrorsError, ParityLevel, Stripes, layout_name,
};
use crate::superblock::{Features, Level, Superblock};
use units::usize_of;

/// Where an array's sectors lie.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Linear and RAID 0.
    Stripes(Stripes),
    /// RAID 1: the same sector on each of so many members, of so many sectors.
    Mirror {
        /// Members.
        raid_disks: usize,
        /// Sectors of each.
        sectors: u64,
    },
    /// RAID 10.
    Mirrors(Mirrors),
    /// RAID 4, 5 and 6, with the sectors that are used of each member.
    Parity(Geometry, u64),
}

/// Which members an array can do without.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tolerance {
    /// So many, whichever they are.
    Any(usize),
    /// Those that leave a copy of every chunk.
    Copies(Mirrors),
}

impl Tolerance {
    /// Whether the array, of so many slots, can do without the members of the slots that are
    /// `missing`.
    #[must_use]
    pub fn survives(&self, raid_disks: usize, missing: impl Fn(usize) -> bool) -> bool {
        match self {
            Self::Any(most) => (0..raid_disks).filter(|&slot| missing(slot)).count() <= *most,
            Self::Copies(mirrors) => mirrors.survives(missing),
        }
    }

    /// How many more members may go, whichever they are.
    #[must_use]
    pub fn spare_redundancy(&self, raid_disks: usize, missing: impl Fn(usize) -> bool) -> usize {
        match self {
            Self::Any(most) => {
                most.saturating_sub((0..raid_disks).filter(|&slot| missing(slot)).count())
            }
            Self::Copies(mirrors) => mirrors.spare_redundancy(missing),
        }
    }
}

impl Shape {
    /// Sectors of the array; `None` if that leaves 64 bits.
    #[must_use]
    pub fn array_sectors(&self) -> Option<u64> {
        match self {
            Self::Stripes(stripes) => Some(stripes.array_sectors()),
            Self::Mirror { sectors, .. } => Some(*sectors),
            Self::Mirrors(mirrors) => Some(mirrors.array_sectors()),
            Self::Parity(geometry, size) => geometry.array_sectors(*size),
        }
    }

    /// Which members it can do without.
    #[must_use]
    pub const fn tolerance(&self) -> Tolerance {
        match self {
            Self::Stripes(_) => Tolerance::Any(0),
            Self::Mirror { raid_disks, .. } => Tolerance::Any(raid_disks.saturating_sub(1)),
            Self::Mirrors(mirrors) => Tolerance::Copies(*mirrors),
            Self::Parity(geometry, _) => Tolerance::Any(geometry.level().parity_count()),
        }
    }
}

impl Superblock {
    /// The shape of the array that this superblock describes; while that is being changed, the shape
    /// afterwards (see [`Self::sides`]). `data_sizes` are the members' own, in order of slots; only
    /// levels without redundancy need them.
    ///
    /// # Errors
    /// [`CannotStart`] if the level is not implemented or the shape or size is impossible.
    pub fn shape(&self, data_sizes: &[u64]) -> Result<Shape, CannotStart> {
        let (level, chunk, size) = (self.level(), self.chunk_sectors(), self.size());
        let shape = match level {
            Level::Linear => Shape::Stripes(Stripes::linear(chunk, data_sizes)?),
            Level::Raid0 => {
                let layout = self.features().contains(Features::RAID0_LAYOUT);
                let layout = layout.then(|| self.layout());
                Shape::Stripes(Stripes::raid0(layout, chunk, data_sizes)?)
            }
            Level::Raid1 => {
                Shape::Mirror { raid_disks: usize_of(self.raid_disks().into()), sectors: size }
            }
            Level::Raid10 => Shape::Mirrors(self.mirrors().expect("that is the level")?),
            Level::Raid4 | Level::Raid5 | Level::Raid6 => {
                Shape::Parity(self.geometry().expect("the level has parity")?, size)
            }
            Level::Unknown(_) => return Err(CannotStart::Level(level)),
        };
        // Byte addresses must fit too.
        let fits = |sectors: &u64| (1..=u64::MAX / units::SECTOR).contains(sectors);
        shape.array_sectors().filter(fits).map(|_| shape).ok_or(CannotStart::Size { size })
    }

    /// The shape of a parity array; `None` for other levels. While the shape is being changed it
    /// has two: see [`Self::sides`].
    ///
    /// # Errors
    /// [`GeometryError`] if the stored shape is impossible.
    pub fn geometry(&self) -> Option<Result<Geometry, GeometryError>> {
        let level = ParityLevel::from_level(self.level().number())?;
        Some(Geometry::new(level, self.layout(), self.chunk_sectors(), self.raid_disks()))
    }

    /// The shape of a RAID 10; `None` for other levels.
    ///
    /// # Errors
    /// [`MirrorsError`] if the stored shape is impossible.
    pub fn mirrors(&self) -> Option<Result<Mirrors, MirrorsError>> {
        let (layout, chunk) = (self.layout(), self.chunk_sectors());
        let mirrors = || Mirrors::new(layout, chunk, self.raid_disks(), self.size());
        (self.level() == Level::Raid10).then(mirrors)
    }

    /// What md calls the array's layout; `None` where there is no choice, or no name.
    #[must_use]
    pub fn layout_name(&self) -> Option<String> {
        let on_record =
            self.level() != Level::Raid0 || self.features().contains(Features::RAID0_LAYOUT);
        on_record.then(|| layout_name(self.level(), self.layout())).flatten()
    }

    /// Sectors of the member's data that the array uses: as many as of every other, or, without
    /// redundancy, all its whole chunks.
    #[must_use]
    pub fn used_sectors(&self) -> u64 {
        match self.level() {
            Level::Linear | Level::Raid0 => {
                let chunk = u64::from(self.chunk_sectors().max(1));
                self.data_size() / chunk * chunk
            }
            _ => self.size(),
        }
    }
}
