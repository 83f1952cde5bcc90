//! Why the members of a volume were not changed.

use crate::create::CreateError;
use crate::leaf::MemberError;
use crate::open::OpenError;
use crate::verdict::{Fault, Verdict};
use bio::IoError;
use layers::array::JoinError;
use units::Sector;

/// Why the members of a volume were not changed.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// There is nothing that members could join or leave.
    #[error("the volume is no array with redundancy")]
    NoArray,
    /// Nothing is written, ever.
    #[error("the volume is open read-only")]
    ReadOnly,
    /// A name that is none of the volume's.
    #[error("{member}: not a member of this volume")]
    NotOurs {
        /// As it was named.
        member: String,
    },
    /// It takes part already.
    #[error("{member}: is a member of this volume already")]
    Already {
        /// The member.
        member: String,
    },
    /// Without it every write would be refused.
    #[error("{member}: is the array's write journal, and without it the array is not written")]
    WriteJournal {
        /// The journal's device.
        member: String,
    },
    /// It holds a slot, and is no failed one.
    #[error("{member}: holds slot {slot} and is in use")]
    InUse {
        /// The member.
        member: String,
        /// Its slot.
        slot: usize,
    },
    /// Without it something would be lost.
    #[error(
        "{member}: cannot be spared: {missing} of {slots} slots have no complete member already"
    )]
    Needed {
        /// The member.
        member: String,
        /// Slots without a complete member.
        missing: usize,
        /// Slots of the array.
        slots: usize,
    },
    /// It cannot join.
    #[error("{member}: {error}")]
    Join {
        /// The member.
        member: String,
        /// Why.
        error: JoinError,
    },
    /// It belongs to another array.
    #[error("{member}: is a member of another array")]
    Foreign {
        /// The member.
        member: String,
    },
    /// A new member cannot be opened.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A new member cannot be made ready.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// What was made ready cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A device failed.
    #[error("{member}: {error}")]
    Io {
        /// The member.
        member: String,
        /// What it said.
        error: IoError,
    },
}

impl Fault for MembershipError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Member(error) => error.verdict(),
            Self::Create(error) => error.verdict(),
            Self::Open(error) => error.verdict(),
            Self::Io { .. } | Self::Join { error: JoinError::Io(_), .. } => Verdict::Failed,
            Self::NotOurs { .. } => Verdict::Usage,
            _ => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Member(error) => return error.advice(),
            Self::Create(error) => return error.advice(),
            Self::Open(error) => return error.advice(),
            Self::NotOurs { .. } => "'steadfast status' lists the members",
            Self::InUse { .. } => {
                "'steadfast replace' puts another in its place; 'steadfast fail' gives it up"
            }
            Self::WriteJournal { .. } => {
                "it stays as long as the array does; 'steadfast export' and 'create' without \
                 --write-journal make one without"
            }
            Self::Needed { .. } => "add a member and let it be rebuilt first",
            Self::Foreign { .. } => "overwrite it with --yes",
            Self::Join { error: JoinError::Held { replaces: false, .. }, .. } => {
                "it can be added as a spare once all slots are held"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(error) => error.member(),
            Self::Create(error) => error.member(),
            Self::Open(error) => error.member(),
            Self::NotOurs { member }
            | Self::Already { member }
            | Self::InUse { member, .. }
            | Self::WriteJournal { member }
            | Self::Needed { member, .. }
            | Self::Join { member, .. }
            | Self::Foreign { member }
            | Self::Io { member, .. } => Some(member),
            Self::NoArray | Self::ReadOnly => None,
        }
    }

    fn sector(&self) -> Option<Sector> {
        match self {
            Self::Io { error, .. } => Some(error.sector),
            Self::Create(error) => error.sector(),
            _ => None,
        }
    }
}
