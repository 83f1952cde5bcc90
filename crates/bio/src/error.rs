//! Why a request failed, as far as the layer above needs to know to act.

use units::Sector;

/// The outcome of a request.
pub type IoResult<T = ()> = Result<T, IoError>;

/// What failed, and the first sector for which it did, as the device that answers counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind} at sector {sector}")]
pub struct IoError {
    /// Whose fault it was.
    pub kind: IoErrorKind,
    /// The first sector concerned, in the address space of the device that was asked.
    pub sector: Sector,
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IoErrorKind {
    /// The device could not read or write it: redundancy may repair it.
    #[error("medium error")]
    Medium,
    /// It was read, but it is not what was written, or belongs elsewhere: redundancy must repair it.
    #[error("protection error")]
    Protection,
    /// The member is gone: degrade.
    #[error("device unavailable")]
    Unavailable,
    /// No space left below: tell the client.
    #[error("no space left")]
    NoSpace,
    /// The device takes no writes.
    #[error("read only")]
    ReadOnly,
    /// The device cannot do this.
    #[error("operation not supported")]
    Unsupported,
    /// The request broke the contract: a bug above.
    #[error("invalid request")]
    Invalid,
}

impl IoErrorKind {
    /// This kind at `sector`.
    #[must_use]
    pub const fn at(self, sector: Sector) -> IoError {
        IoError { kind: self, sector }
    }

    /// Whether the bytes are lost here but other copies may have them.
    #[must_use]
    pub const fn is_damage(self) -> bool {
        matches!(self, Self::Medium | Self::Protection)
    }

    /// The errno that an operating system's caller expects (Linux numbers).
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Medium => 5,
            Self::Protection => 84,
            Self::Unavailable => 6,
            Self::NoSpace => 28,
            Self::ReadOnly => 30,
            Self::Unsupported => 95,
            Self::Invalid => 22,
        }
    }

    /// The kind that a Linux errno means, for a leaf.
    #[must_use]
    pub const fn from_errno(errno: i32) -> Self {
        match errno {
            84 => Self::Protection,
            6 | 19 | 107 | 104 | 32 => Self::Unavailable,
            28 | 122 | 27 => Self::NoSpace,
            1 | 13 | 30 => Self::ReadOnly,
            95 | 25 => Self::Unsupported,
            22 => Self::Invalid,
            _ => Self::Medium,
        }
    }
}
