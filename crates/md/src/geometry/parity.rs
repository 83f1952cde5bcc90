//! Where a sector of a RAID 4, 5 or 6 array lies, and which slot holds the parity of its stripe.
//!
//! ```text
//! RAID 5, left-symmetric, 4 members          RAID 6, left-symmetric, 5 members
//!
//!   slot     0    1    2    3                  slot     0    1    2    3    4
//! stripe 0   0    1    2    P                stripe 0   Q    0    1    2    P
//! stripe 1   4    5    P    3                stripe 1   3    4    5    P    Q
//! stripe 2   8    P    6    7                stripe 2   7    8    P    Q    6
//! ```
//! The numbers are chunks of the array; a *strip* is one member's part of a stripe. Every layout
//! of the md format is here, because each is one line of a table. Nothing here knows data offsets
//! (a member sector counts from the start of the member's data) or member sizes, and the parity
//! arithmetic itself lives in `gf`.
//!
//! Source: the md specification, section 7.3.

use std::fmt;
use units::{Sector, u64_of, usize_of};

/// The RAID levels that keep parity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParityLevel {
    /// P always on the last slot.
    Raid4,
    /// P moves from stripe to stripe.
    Raid5,
    /// P and Q move from stripe to stripe.
    Raid6,
}

impl ParityLevel {
    /// From the superblock's `level`, if it is one of the three.
    #[must_use]
    pub const fn from_level(level: i32) -> Option<Self> {
        match level {
            4 => Some(Self::Raid4),
            5 => Some(Self::Raid5),
            6 => Some(Self::Raid6),
            _ => None,
        }
    }

    /// Strips of parity in each stripe, which is also how many members may be missing.
    #[must_use]
    pub const fn parity_count(self) -> usize {
        match self {
            Self::Raid4 | Self::Raid5 => 1,
            Self::Raid6 => 2,
        }
    }
}

impl fmt::Display for ParityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raid4 => "RAID 4",
            Self::Raid5 => "RAID 5",
            Self::Raid6 => "RAID 6",
        })
    }
}

/// Why four numbers are not a geometry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GeometryError {
    /// The layout number is not one of the level's.
    #[error("{level} has no layout {layout}")]
    Layout {
        /// The level asked for.
        level: ParityLevel,
        /// The layout found.
        layout: u32,
    },
    /// md wants a power of two of at least 4 KiB.
    #[error("chunk of {found} sectors, expected a power of two of at least {CHUNK_SECTORS_MIN}")]
    Chunk {
        /// Sectors found.
        found: u32,
    },
    /// Too few members for the level, or more than the field of Q can tell apart.
    #[error("{level} over {found} members, expected {min} to {max}")]
    Disks {
        /// The level asked for.
        level: ParityLevel,
        /// Members found.
        found: u32,
        /// Least members of the level.
        min: u32,
        /// Most members of the level.
        max: u32,
    },
}

/// The shape of a parity array: pure arithmetic, valid by construction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    level: ParityLevel,
    layout: Layout,
    chunk_sectors: u64,
    raid_disks: usize,
}

/// Where one sector of the array lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// The stripe: row of strips across all members.
    pub stripe: u64,
    /// Which data strip of the stripe, in the array's order.
    pub data_index: usize,
    /// The member that holds it.
    pub slot: usize,
    /// Sector on the member, counted from the start of its data.
    pub member_sector: Sector,
}

/// What a member's strip holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strip {
    /// Data, with its index in the stripe.
    Data(usize),
    /// The XOR of the data.
    P,
    /// The Reed-Solomon syndrome of the data.
    Q,
}

impl Geometry {
    /// A geometry from the superblock's numbers: `layout`, chunk in sectors, members.
    ///
    /// # Errors
    /// [`GeometryError`] names the number that md would refuse.
    pub fn new(
        level: ParityLevel,
        layout: u32,
        chunk_sectors: u32,
        raid_disks: u32,
    ) -> Result<Self, GeometryError> {
        let known = Layout::decode(level, layout).ok_or(GeometryError::Layout { level, layout })?;
        if !chunk_sectors.is_power_of_two() || chunk_sectors < CHUNK_SECTORS_MIN {
            return Err(GeometryError::Chunk { found: chunk_sectors });
        }
        let min = if level == ParityLevel::Raid6 { 4 } else { 2 };
        if !(min..=RAID_DISKS_MAX).contains(&raid_disks) {
            let max = RAID_DISKS_MAX;
            return Err(GeometryError::Disks { level, found: raid_disks, min, max });
        }
        let raid_disks = usize_of(u64::from(raid_disks));
        Ok(Self { level, layout: known, chunk_sectors: u64::from(chunk_sectors), raid_disks })
    }

    /// The level.
    #[must_use]
    pub const fn level(&self) -> ParityLevel {
        self.level
    }

    /// Sectors in a strip.
    #[must_use]
    pub const fn chunk_sectors(&self) -> u64 {
        self.chunk_sectors
    }

    /// Members, parity included.
    #[must_use]
    pub const fn raid_disks(&self) -> usize {
        self.raid_disks
    }

    /// Strips of data in each stripe.
    #[must_use]
    pub const fn data_disks(&self) -> usize {
        self.raid_disks - self.level.parity_count()
    }

    /// Sectors of the array in each stripe.
    #[must_use]
    pub fn stripe_sectors(&self) -> u64 {
        u64_of(self.data_disks()) * self.chunk_sectors
    }

    /// Sectors of an array whose members hold `member_sectors` each; a partial chunk is unused.
    /// `None` if the product leaves 64 bits.
    #[must_use]
    pub fn array_sectors(&self, member_sectors: u64) -> Option<u64> {
        (member_sectors / self.chunk_sectors).checked_mul(self.stripe_sectors())
    }

    /// Where sector `sector` of the array lies.
    #[must_use]
    pub fn locate(&self, sector: Sector) -> Place {
        let stripe = sector.0 / self.stripe_sectors();
        let within = sector.0 % self.stripe_sectors();
        let data_index = usize_of(within / self.chunk_sectors);
        Place {
            stripe,
            data_index,
            slot: self.data_slot(stripe, data_index),
            member_sector: self.strip_start(stripe) + within % self.chunk_sectors,
        }
    }

    /// The sector of the array `offset` sectors into data strip `data_index` of a stripe: the
    /// inverse of [`Self::locate`].
    ///
    /// # Panics
    /// If `data_index` or `offset` lies outside the stripe, or the address leaves 64 bits.
    #[must_use]
    pub fn array_sector(&self, stripe: u64, data_index: usize, offset: u64) -> Sector {
        assert!(data_index < self.data_disks() && offset < self.chunk_sectors);
        let stripe_start = stripe
            .checked_mul(self.stripe_sectors())
            .expect("a stripe of the array has a 64-bit address");
        Sector(stripe_start + u64_of(data_index) * self.chunk_sectors + offset)
    }

    /// First sector of a stripe's strips, the same on every member.
    #[must_use]
    pub const fn strip_start(&self, stripe: u64) -> Sector {
        Sector(stripe * self.chunk_sectors)
    }

    /// The slot that holds the P strip of `stripe`.
    #[must_use]
    pub fn p_slot(&self, stripe: u64) -> usize {
        let Layout { rotation, ring, .. } = self.layout;
        let ring = self.ring(ring);
        let turn = usize_of(stripe % u64_of(ring));
        match rotation {
            Rotation::First => 0,
            Rotation::Last => self.data_disks(),
            Rotation::Up => turn,
            Rotation::Down => ring - 1 - turn,
            Rotation::DownNext => ring - 1 - (turn + 1) % ring,
        }
    }

    /// The slot that holds the Q strip of `stripe`; `None` unless RAID 6.
    #[must_use]
    pub fn q_slot(&self, stripe: u64) -> Option<usize> {
        let disks = self.raid_disks;
        match self.layout.q {
            QPlace::None => None,
            QPlace::AfterP => Some((self.p_slot(stripe) + 1) % disks),
            QPlace::BeforeP => Some((self.p_slot(stripe) + disks - 1) % disks),
            QPlace::Last => Some(disks - 1),
        }
    }

    /// The slot that holds data strip `data_index` of `stripe`.
    ///
    /// # Panics
    /// If the stripe has no such strip.
    #[must_use]
    pub fn data_slot(&self, stripe: u64, data_index: usize) -> usize {
        assert!(data_index < self.data_disks(), "data strip {data_index} of {self:?}");
        let p = self.p_slot(stripe);
        match self.layout.order {
            // Data keeps to ascending slots and steps over the parity.
            Order::Asymmetric => {
                let mut slot = data_index;
                let q = self.q_slot(stripe);
                // Ascending order of the parity slots, so that each step is taken once.
                let (low, high) = match q {
                    Some(q) if q < p => (q, Some(p)),
                    _ => (p, q),
                };
                slot += usize::from(slot >= low);
                slot + usize::from(high.is_some_and(|high| slot >= high))
            }
            // Data starts right after the parity and wraps.
            Order::Symmetric => {
                let ring = self.ring(self.layout.ring);
                let parity_in_a_row = match self.layout.q {
                    QPlace::AfterP => 2,
                    QPlace::None | QPlace::BeforeP | QPlace::Last => 1,
                };
                (p + parity_in_a_row + data_index) % ring
            }
        }
    }

    /// What `slot` holds in `stripe`.
    ///
    /// # Panics
    /// If the array has no such slot.
    #[must_use]
    pub fn strip(&self, stripe: u64, slot: usize) -> Strip {
        assert!(slot < self.raid_disks, "slot {slot} of {self:?}");
        let (p, q) = (self.p_slot(stripe), self.q_slot(stripe));
        if slot == p {
            return Strip::P;
        }
        if Some(slot) == q {
            return Strip::Q;
        }
        Strip::Data(match self.layout.order {
            Order::Asymmetric => {
                slot - usize::from(slot > p) - usize::from(q.is_some_and(|q| slot > q))
            }
            Order::Symmetric => {
                let ring = self.ring(self.layout.ring);
                (slot + ring - self.data_slot(stripe, 0)) % ring
            }
        })
    }

    /// The power of g that multiplies data strip `data_index` of `stripe` in Q, below 255 and
    /// different for each strip of the stripe.
    ///
    /// Standard layouts count the data strips from the slot after Q, upwards with wrap; DDF
    /// layouts use the slot itself, which leaves gaps where P and Q lie.
    ///
    /// # Panics
    /// If the array has no Q or the stripe has no such strip.
    #[must_use]
    pub fn q_exponent(&self, stripe: u64, data_index: usize) -> usize {
        let disks = self.raid_disks;
        let (p, q) = (self.p_slot(stripe), self.q_slot(stripe).expect("only RAID 6 has exponents"));
        let slot = self.data_slot(stripe, data_index);
        if self.layout.ddf {
            return slot;
        }
        let from_q = |slot: usize| (slot + disks - q - 1) % disks;
        from_q(slot) - usize::from(from_q(p) < from_q(slot))
    }

    /// Slots that take part in the rotation of P.
    const fn ring(&self, ring: Ring) -> usize {
        match ring {
            Ring::AllDisks => self.raid_disks,
            Ring::AllButLast => self.raid_disks - 1,
        }
    }
}

/// One row of the specification's table: a layout is how P turns, where Q goes and how data runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Layout {
    rotation: Rotation,
    ring: Ring,
    q: QPlace,
    order: Order,
    ddf: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rotation {
    First,
    Last,
    Up,
    Down,
    /// As `Down`, one stripe ahead (ddf-N-restart).
    DownNext,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ring {
    AllDisks,
    /// The "-6" layouts: a RAID 5 with Q beside it on the last slot.
    AllButLast,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum QPlace {
    None,
    AfterP,
    BeforeP,
    Last,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    Asymmetric,
    Symmetric,
}

impl Layout {
    const fn decode(level: ParityLevel, layout: u32) -> Option<Self> {
        use Order::{Asymmetric, Symmetric};
        use QPlace::{AfterP, BeforeP, Last};
        use Ring::{AllButLast, AllDisks};
        use Rotation::{Down, DownNext, First, Up};
        let (rotation, ring, q, order, ddf) = match (level, layout) {
            (ParityLevel::Raid4, _) => (Rotation::Last, AllDisks, QPlace::None, Asymmetric, false),
            (ParityLevel::Raid5, 0) => (Down, AllDisks, QPlace::None, Asymmetric, false),
            (ParityLevel::Raid5, 1) => (Up, AllDisks, QPlace::None, Asymmetric, false),
            (ParityLevel::Raid5, 2) => (Down, AllDisks, QPlace::None, Symmetric, false),
            (ParityLevel::Raid5, 3) => (Up, AllDisks, QPlace::None, Symmetric, false),
            (ParityLevel::Raid5, 4) => (First, AllDisks, QPlace::None, Asymmetric, false),
            (ParityLevel::Raid5, 5) => (Rotation::Last, AllDisks, QPlace::None, Asymmetric, false),
            (ParityLevel::Raid6, 0) => (Down, AllDisks, AfterP, Asymmetric, false),
            (ParityLevel::Raid6, 1) => (Up, AllDisks, AfterP, Asymmetric, false),
            (ParityLevel::Raid6, 2) => (Down, AllDisks, AfterP, Symmetric, false),
            (ParityLevel::Raid6, 3) => (Up, AllDisks, AfterP, Symmetric, false),
            (ParityLevel::Raid6, 4) => (First, AllDisks, AfterP, Asymmetric, false),
            (ParityLevel::Raid6, 5) => (Rotation::Last, AllDisks, AfterP, Asymmetric, false),
            (ParityLevel::Raid6, 8) => (Up, AllDisks, AfterP, Asymmetric, true),
            (ParityLevel::Raid6, 9) => (DownNext, AllDisks, AfterP, Asymmetric, true),
            (ParityLevel::Raid6, 10) => (Down, AllDisks, BeforeP, Symmetric, true),
            (ParityLevel::Raid6, 16) => (Down, AllButLast, Last, Asymmetric, false),
            (ParityLevel::Raid6, 17) => (Up, AllButLast, Last, Asymmetric, false),
            (ParityLevel::Raid6, 18) => (Down, AllButLast, Last, Symmetric, false),
            (ParityLevel::Raid6, 19) => (Up, AllButLast, Last, Symmetric, false),
            (ParityLevel::Raid6, 20) => (First, AllButLast, Last, Asymmetric, false),
            _ => return None,
        };
        Some(Self { rotation, ring, q, order, ddf })
    }
}

/// Chunks are pages at least.
const CHUNK_SECTORS_MIN: u32 = 8;
/// Exponents of Q repeat after 255; with at most 255 slots they differ in every layout.
const RAID_DISKS_MAX: u32 = 255;

#[cfg(test)]
mod tests;
