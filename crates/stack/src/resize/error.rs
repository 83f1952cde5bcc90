//! Why a volume was not resized.

use crate::leaf::MemberError;
use crate::open::OpenError;
use crate::verdict::{Fault, Verdict};
use layers::integrity::StoreError;
use units::{SECTOR, Sector};

/// Why a volume was not resized.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// The member cannot be opened, or its length not be changed.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// It is no volume that can be opened.
    #[error(transparent)]
    Volume(#[from] OpenError),
    /// It belongs to an array.
    #[error("{member}: is a member of an array, whose own size would have to change too")]
    Array {
        /// The member.
        member: String,
    },
    /// Its state does not allow it.
    #[error("{member}: cannot be resized: {why}")]
    Restricted {
        /// The member.
        member: String,
        /// The feature, by name.
        why: String,
    },
    /// A size that is no whole number of sectors.
    #[error("--size is {found} bytes, expected a multiple of 512")]
    Bytes {
        /// Bytes asked for.
        found: u64,
    },
    /// A device that is not as large.
    #[error(
        "{member}: has {found} bytes, --size says {wanted}, and only a file is lengthened here"
    )]
    Device {
        /// The member.
        member: String,
        /// Its bytes.
        found: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// No volume fits.
    #[error("{member}: {error}")]
    Layout {
        /// The member.
        member: String,
        /// Why.
        error: integrity::layout::ResizeError,
    },
    /// What would be lost was not agreed to.
    #[error(
        "{member}: would lose sectors {from} to {} of the volume, {} bytes",
        to - 1, (to - from) * SECTOR
    )]
    CutsOff {
        /// The member.
        member: String,
        /// The first sector that would be lost.
        from: u64,
        /// Sectors of the volume now.
        to: u64,
    },
    /// Somebody else was faster.
    #[error("{member}: was changed by somebody else while its length was changed")]
    Changed {
        /// The member.
        member: String,
    },
    /// The superblock could not be stored.
    #[error("{member}: {error}")]
    Store {
        /// The member.
        member: String,
        /// Why.
        error: StoreError,
    },
    /// The member failed.
    #[error("{member}: {error}")]
    Io {
        /// The member.
        member: String,
        /// What it said.
        error: bio::IoError,
    },
}

impl Fault for ResizeError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Member(error) => error.verdict(),
            Self::Volume(error) => error.verdict(),
            Self::Bytes { .. } => Verdict::Usage,
            Self::Changed { .. } | Self::Store { .. } | Self::Io { .. } => Verdict::Failed,
            Self::Array { .. }
            | Self::Restricted { .. }
            | Self::Device { .. }
            | Self::Layout { .. }
            | Self::CutsOff { .. } => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Member(error) => return error.advice(),
            Self::Volume(error) => return error.advice(),
            Self::Array { .. } => "copy it into a larger array: 'steadfast export', 'import'",
            Self::Device { .. } => "lengthen the device first",
            Self::CutsOff { .. } => "if that may go, say --yes",
            Self::Layout { .. } => "choose a larger --size",
            Self::Changed { .. } => "look with 'steadfast status', and try again",
            Self::Io { .. } | Self::Store { .. } => {
                "the volume has its old or its new size; the same command goes on"
            }
            Self::Bytes { .. } | Self::Restricted { .. } => return None,
        };
        Some(text.to_owned())
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(error) => error.member(),
            Self::Volume(error) => error.member(),
            Self::Bytes { .. } => None,
            Self::Array { member }
            | Self::Restricted { member, .. }
            | Self::Device { member, .. }
            | Self::Layout { member, .. }
            | Self::CutsOff { member, .. }
            | Self::Changed { member }
            | Self::Store { member, .. }
            | Self::Io { member, .. } => Some(member),
        }
    }

    fn sector(&self) -> Option<Sector> {
        match self {
            Self::CutsOff { from, .. } => Some(Sector(*from)),
            Self::Io { error, .. } => Some(error.sector),
            _ => None,
        }
    }
}
