//! Why data was not adopted.

use crate::leaf::MemberError;
use crate::open::OpenError;
use crate::signature::Signature;
use crate::verdict::{Fault, Verdict};
use checksum::{Algorithm, KeyError};
use layers::integrity::StoreError;
use units::{BlockSize, Sector};

/// Why data was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Data or metadata device cannot be opened or made.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The array that the data makes cannot be opened.
    #[error(transparent)]
    Array(#[from] OpenError),
    /// A block size that does not exist.
    #[error("--sector-size is {found}, expected 512, 1024, 2048 or 4096")]
    SectorSize {
        /// Bytes asked for.
        found: u64,
    },
    /// The algorithm takes a key.
    #[error("--integrity: {0}")]
    Key(#[from] KeyError),
    /// What is left over behind the last block would not be part of the volume.
    #[error(
        "{member}: has {found} bytes, which is not a positive number of blocks of {} bytes",
        block.bytes()
    )]
    Tail {
        /// The data.
        member: String,
        /// Its bytes.
        found: u64,
        /// The blocks asked for.
        block: BlockSize,
    },
    /// The data has tags of its own.
    #[error("{member}: is a dm-integrity volume already")]
    Tagged {
        /// The data.
        member: String,
    },
    /// No volume fits.
    #[error("{member}: {error}")]
    Format {
        /// The metadata device.
        member: String,
        /// Why.
        error: integrity::FormatError,
    },
    /// Something lies on the metadata device.
    #[error("{member}: holds {} (at byte {})", signature.name, signature.offset)]
    Signature {
        /// The metadata device.
        member: String,
        /// What was found first.
        signature: Signature,
    },
    /// Something lies there that has no known signature.
    #[error("{member}: is not all zero (first at sector {sector})")]
    NotZero {
        /// The metadata device.
        member: String,
        /// The first sector that is not zero, of those that were looked at.
        sector: Sector,
    },
    /// It was begun with other blocks.
    #[error("{member}: its adoption was begun with blocks of {found} bytes, not {wanted}")]
    OtherBlock {
        /// The metadata device.
        member: String,
        /// Bytes of its blocks.
        found: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// What was begun cannot be opened.
    #[error("{member}: {error}")]
    Open {
        /// The metadata device.
        member: String,
        /// Why.
        error: layers::integrity::OpenError,
    },
    /// Somebody wrote to the volume, and what its journal holds is not home.
    #[error("{member}: its journal holds writes that are not in the data yet")]
    Journal {
        /// The metadata device.
        member: String,
    },
    /// Not a single tag fits.
    #[error(
        "{member}: none of {refuted} sampled blocks verifies with {algorithm}: its tags are of other \
         data, or another algorithm's"
    )]
    NothingVerifies {
        /// The metadata device.
        member: String,
        /// Blocks that were sampled.
        refuted: u64,
        /// What was tried.
        algorithm: Algorithm,
    },
    /// The metadata device could not be made one.
    #[error("{member}: {error}")]
    Create {
        /// The metadata device.
        member: String,
        /// Why.
        error: layers::integrity::CreateError,
    },
    /// The position could not be stored.
    #[error("{member}: {error}")]
    Store {
        /// The metadata device.
        member: String,
        /// Why.
        error: StoreError,
    },
    /// A device failed.
    #[error("{member}: {error}")]
    Io {
        /// Data or metadata device.
        member: String,
        /// What it said.
        error: bio::IoError,
    },
}

impl Fault for AdoptError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Member(error) => error.verdict(),
            Self::Array(error) => error.verdict(),
            Self::SectorSize { .. } | Self::Key(_) => Verdict::Usage,
            Self::Create { .. } | Self::Store { .. } | Self::Io { .. } => Verdict::Failed,
            _ => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Member(error) => return error.advice(),
            Self::Array(error) => return error.advice(),
            Self::Tail { .. } => "choose a smaller --sector-size",
            Self::Format { .. } => "use a larger metadata device, or a smaller --journal-size",
            Self::Signature { .. } | Self::NotZero { .. } => {
                "look with 'steadfast inspect'; overwrite what is there with --yes"
            }
            Self::OtherBlock { .. } => "say --sector-size as it was begun",
            Self::Journal { .. } => "open it for writing and close it, which writes them home",
            Self::NothingVerifies { .. } => {
                "name the data and the --integrity that it was begun with; nothing was written"
            }
            Self::Create { .. } | Self::Store { .. } | Self::Io { .. } => {
                "the data is as it was; the same command goes on"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(error) => error.member(),
            Self::Array(error) => error.member(),
            Self::SectorSize { .. } | Self::Key(_) => None,
            Self::Tail { member, .. }
            | Self::Tagged { member }
            | Self::Format { member, .. }
            | Self::Signature { member, .. }
            | Self::NotZero { member, .. }
            | Self::OtherBlock { member, .. }
            | Self::Open { member, .. }
            | Self::Journal { member }
            | Self::NothingVerifies { member, .. }
            | Self::Create { member, .. }
            | Self::Store { member, .. }
            | Self::Io { member, .. } => Some(member),
        }
    }

    fn sector(&self) -> Option<Sector> {
        match self {
            Self::NotZero { sector, .. } => Some(*sector),
            Self::Signature { signature, .. } => Some(Sector::containing(signature.offset)),
            Self::Io { error, .. } => Some(error.sector),
            _ => None,
        }
    }
}
