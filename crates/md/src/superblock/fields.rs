//! What single fields of the superblock mean.

use std::fmt;
use units::Sector;

/// A UUID as it is stored: printed by md as four groups of eight hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if at > 0 && at % 4 == 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The minor version, which says where the superblock lies (section 1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Minor {
    /// Metadata 1.0: 8 to 12 KiB before the end of the member.
    V0,
    /// Metadata 1.1: at the start of the member.
    V1,
    /// Metadata 1.2: 4 KiB from the start of the member.
    V2,
}

impl Minor {
    /// The order in which a finder looks: a superblock found earlier wins.
    pub const PROBE_ORDER: [Self; 3] = [Self::V2, Self::V1, Self::V0];

    /// Sector at which a member of `device_sectors` sectors carries the superblock; `None` if the
    /// member is too small for it.
    #[must_use]
    pub fn super_offset(self, device_sectors: u64) -> Option<Sector> {
        let offset = match self {
            Self::V0 => device_sectors.checked_sub(16)? & !7,
            Self::V1 => 0,
            Self::V2 => 8,
        };
        (offset + 8 <= device_sectors).then_some(Sector(offset))
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0 => "1.0",
            Self::V1 => "1.1",
            Self::V2 => "1.2",
        })
    }
}

/// The array's level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// Members one after the other.
    Linear,
    /// Striped, no redundancy.
    Raid0,
    /// Mirrored.
    Raid1,
    /// Striped, P on the last member.
    Raid4,
    /// Striped, P rotating.
    Raid5,
    /// Striped, P and Q rotating.
    Raid6,
    /// Striped mirrors.
    Raid10,
    /// A number that the specification does not name.
    Unknown(i32),
}

impl Level {
    /// From the stored number.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        match number {
            -1 => Self::Linear,
            0 => Self::Raid0,
            1 => Self::Raid1,
            4 => Self::Raid4,
            5 => Self::Raid5,
            6 => Self::Raid6,
            10 => Self::Raid10,
            other => Self::Unknown(other),
        }
    }

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Linear => -1,
            Self::Raid0 => 0,
            Self::Raid1 => 1,
            Self::Raid4 => 4,
            Self::Raid5 => 5,
            Self::Raid6 => 6,
            Self::Raid10 => 10,
            Self::Unknown(number) => number,
        }
    }

    /// Whether a crash can leave its parity wrong while a member is missing (the write hole).
    #[must_use]
    pub const fn has_parity(self) -> bool {
        matches!(self, Self::Raid4 | Self::Raid5 | Self::Raid6)
    }

    /// How many of `raid_disks` members may be missing, whichever they are. `None` where that
    /// depends on which ones (RAID 10) or the level is unknown.
    #[must_use]
    pub const fn missing_max(self, raid_disks: u32) -> Option<u32> {
        match self {
            Self::Linear | Self::Raid0 => Some(0),
            Self::Raid1 => Some(raid_disks.saturating_sub(1)),
            Self::Raid4 | Self::Raid5 => Some(1),
            Self::Raid6 => Some(2),
            Self::Raid10 | Self::Unknown(_) => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => f.write_str("linear"),
            Self::Unknown(number) => write!(f, "unknown level {number}"),
            known => write!(f, "raid{}", known.number()),
        }
    }
}

/// What a slot of the device table says (section 4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Holds this slot of the array.
    Active(u16),
    /// Holds nothing yet. Also the filler of slots that were never used.
    Spare,
    /// Failed or absent while others were written.
    Faulty,
    /// The write journal of the array.
    Journal,
    /// A number from 0xFF00 up that the specification does not name.
    Unknown(u16),
}

impl Role {
    /// From the stored number.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            0xFFFF => Self::Spare,
            0xFFFE => Self::Faulty,
            0xFFFD => Self::Journal,
            slot if slot < 0xFF00 => Self::Active(slot),
            other => Self::Unknown(other),
        }
    }

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Spare => 0xFFFF,
            Self::Faulty => 0xFFFE,
            Self::Journal => 0xFFFD,
            Self::Active(number) | Self::Unknown(number) => number,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active(slot) => write!(f, "slot {slot}"),
            Self::Spare => f.write_str("spare"),
            Self::Faulty => f.write_str("faulty"),
            Self::Journal => f.write_str("journal"),
            Self::Unknown(number) => write!(f, "unknown role {number:#06x}"),
        }
    }
}

/// How far redundancy is known to be true. In sectors of each member (sectors of the array for
/// RAID 10), from the start of its data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResyncOffset {
    /// Everywhere: the array was closed cleanly.
    Clean,
    /// Below this sector; from there on a crash may have left copies or parity that disagree.
    Below(Sector),
}

impl ResyncOffset {
    /// From the stored number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        match number {
            u64::MAX => Self::Clean,
            sector => Self::Below(Sector(sector)),
        }
    }

    /// The stored number.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Clean => u64::MAX,
            Self::Below(sector) => sector.0,
        }
    }

    /// The one that claims less.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self::from_number(self.number().min(other.number()))
    }
}

/// A point in time: low 40 bits seconds since 1970, high 24 bits microseconds.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Time(pub u64);

impl Time {
    /// Of so many seconds since 1970 and microseconds; seconds beyond 40 bits are cut.
    #[must_use]
    pub const fn new(seconds: u64, microseconds: u32) -> Self {
        Self((seconds & SECONDS) | ((microseconds as u64 & 0xFF_FFFF) << 40))
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 & SECONDS
    }

    /// Microseconds beyond the seconds, as stored.
    #[must_use]
    pub const fn microseconds(self) -> u64 {
        self.0 >> 40
    }
}

const SECONDS: u64 = (1 << 40) - 1;

macro_rules! bits {
    ($(#[$doc:meta])* $type:ident: $int:ty { $($(#[$flag_doc:meta])* $name:ident = $bit:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
        pub struct $type(pub $int);

        impl $type {
            $($(#[$flag_doc])* pub const $name: Self = Self($bit);)*
            const NAMES: &[(Self, &str)] = &[$((Self::$name, $text)),*];

            /// Whether every bit of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// These bits and those of `other`.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These bits without those of `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// The bits that the specification does not name.
            #[must_use]
            pub fn unknown(self) -> $int {
                Self::NAMES.iter().fold(self.0, |left, (known, _)| left & !known.0)
            }

            /// Names of the known bits that are set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMES.iter().filter(move |(bit, _)| self.contains(*bit)).map(|(_, name)| *name)
            }
        }
    };
}

bits! {
    /// The feature map (section 3). A bit that is set changes what other fields mean, so an
    /// unknown one forbids using the member.
    Features: u32 {
        /// A write-intent bitmap lies at `bitmap_offset`.
        BITMAP = 1, "bitmap";
        /// This member is filled only below `recovery_offset`.
        RECOVERY_OFFSET = 2, "recovery_offset";
        /// The array is changing shape.
        RESHAPE = 4, "reshape";
        /// The bad block log is not empty.
        BAD_BLOCKS = 8, "bad_blocks";
        /// This member is being filled to replace another of the same slot.
        REPLACEMENT = 16, "replacement";
        /// The reshape runs towards the start.
        RESHAPE_BACKWARDS = 32, "reshape_backwards";
        /// `new_offset` is valid.
        NEW_OFFSET = 64, "new_offset";
        /// Recovery is guided by the bitmap.
        RECOVERY_BITMAP = 128, "recovery_bitmap";
        /// Used by several hosts at once.
        CLUSTERED = 256, "clustered";
        /// Writes go through a journal device.
        JOURNAL = 512, "journal";
        /// A partial parity log lies where the bitmap would.
        PPL = 1024, "ppl";
        /// As PPL, several entries in turn.
        MULTIPLE_PPL = 2048, "multiple_ppl";
        /// The layout of a RAID 0 is meaningful.
        RAID0_LAYOUT = 4096, "raid0_layout";
    }
}

bits! {
    /// Hints about one member.
    DeviceFlags: u8 {
        /// Read from others first.
        WRITE_MOSTLY = 1, "write_mostly";
        /// Fail at once rather than retry.
        FAILFAST = 2, "failfast";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_their_meaning() {
        for number in 0..=u16::MAX {
            assert_eq!(Role::from_number(number).number(), number);
        }
        for number in -2000..2000 {
            assert_eq!(Level::from_number(number).number(), number);
        }
        for number in [0, 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(ResyncOffset::from_number(number).number(), number);
        }
    }

    #[test]
    fn superblocks_lie_where_the_minor_version_says() {
        // The 40 MiB member of the specification's section 6.
        assert_eq!(Minor::V0.super_offset(81920), Some(Sector(81904)));
        assert_eq!(Minor::V0.super_offset(81923), Some(Sector(81904)));
        assert_eq!(Minor::V1.super_offset(81920), Some(Sector(0)));
        assert_eq!(Minor::V2.super_offset(16), Some(Sector(8)));
        for minor in Minor::PROBE_ORDER {
            assert_eq!(minor.super_offset(7), None);
        }
        assert_eq!(Minor::V2.super_offset(15), None);
        assert_eq!(Minor::V0.super_offset(u64::MAX), Some(Sector((u64::MAX - 16) & !7)));
    }

    #[test]
    fn what_claims_less_wins() {
        let at = |sector| ResyncOffset::Below(Sector(sector));
        assert_eq!(ResyncOffset::Clean.least(at(8)), at(8));
        assert_eq!(at(0).least(at(8)), at(0));
        assert_eq!(ResyncOffset::Clean.least(ResyncOffset::Clean), ResyncOffset::Clean);
    }

    #[test]
    fn unnamed_features_are_told_apart() {
        let features = Features(0x8000_1001);
        assert_eq!(features.unknown(), 0x8000_0000);
        assert_eq!(features.names().collect::<Vec<_>>(), ["bitmap", "raid0_layout"]);
        assert_eq!(features.without(Features::BITMAP).with(Features::PPL).0, 0x8000_1400);
    }

    #[test]
    fn a_uuid_reads_as_md_prints_it() {
        let uuid = Uuid([0xbf, 0xe0, 5, 0x43, 0xb2, 0xde, 0x16, 0x2c, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(uuid.to_string(), "bfe00543:b2de162c:00010203:04050607");
    }

    #[test]
    fn a_time_is_forty_bits_of_seconds() {
        let time = Time::new(1_795_243_000, 999_999);
        assert_eq!((time.seconds(), time.microseconds()), (1_795_243_000, 999_999));
    }
}
