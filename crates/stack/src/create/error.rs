//! Why a volume was not made, and what can be done.

use super::CreateLevel;
use crate::leaf::MemberError;
use crate::signature::Signature;
use crate::verdict::{Fault, Verdict};
use layers::integrity::{CodecError, InlineError, SourceError};
use md::assemble::CannotStart;
use md::geometry::layouts;
use units::Sector;

/// Why a volume was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// One of the members cannot be opened or made.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// Several members without an array.
    #[error("{found} members were given, but without --level there is only one")]
    OneMember {
        /// Members given.
        found: usize,
    },
    /// Too few members.
    #[error("{found} members were given, {} needs at least {min}", name_of(*.level))]
    TooFew {
        /// The level.
        level: CreateLevel,
        /// Members given.
        found: usize,
        /// Members needed.
        min: usize,
    },
    /// No such tags are possible with this key, block size or tag size.
    #[error("--integrity: {0}")]
    Source(#[from] SourceError),
    /// Nothing says how long they are.
    #[error("--integrity opaque: --tag-size must say how many bytes a tag has")]
    TagSize,
    /// The journal cannot be sealed or encrypted like this.
    #[error(transparent)]
    JournalKeys(#[from] CodecError),
    /// Something that volumes with inline tags do not have.
    #[error(
        "--mode inline has neither a journal nor another device: {option} makes no sense with it"
    )]
    InlineWith {
        /// The option.
        option: &'static str,
    },
    /// A member whose blocks have no metadata that could hold the tags.
    #[error("{member}: {error}")]
    Inline {
        /// The member.
        member: String,
        /// Why.
        error: InlineError,
    },
    /// A write-intent bitmap that cannot be made.
    #[error("--bitmap: {0}")]
    Bitmap(md::bitmap::BitmapError),
    /// A write journal for a level that has none.
    #[error("--write-journal is for RAID 4, 5 and 6, not for {}", name_of(*.level))]
    WriteJournalLevel {
        /// The level.
        level: CreateLevel,
    },
    /// A write journal beside what it excludes.
    #[error("--write-journal: an array has a write journal or {other}, not both")]
    WriteJournalWith {
        /// What it excludes.
        other: &'static str,
    },
    /// A data device for something that is no member with integrity.
    #[error("--data-device names {member}, which is no member with integrity")]
    DataDevice {
        /// As named.
        member: String,
    },
    /// Neither an array nor integrity.
    #[error("--level none with --integrity none makes nothing")]
    Nothing,
    /// A chunk that cannot be made.
    #[error(
        "--chunk is {found} bytes, expected a power of two (RAID 0: a multiple of 4K) from 4K to 1M"
    )]
    Chunk {
        /// Bytes asked for.
        found: u64,
    },
    /// A layout that the level does not have.
    #[error("--layout {found}: {}", layouts_of(*.level))]
    Layout {
        /// The level.
        level: CreateLevel,
        /// As named.
        found: String,
    },
    /// A hint about something that is no member.
    #[error("--write-mostly names {member}, which is no member")]
    WriteMostly {
        /// As named.
        member: String,
    },
    /// A hint about a member that nobody could be read instead of.
    #[error("--write-mostly is for mirrors, not for {}", name_of(*.level))]
    WriteMostlyLevel {
        /// The level.
        level: CreateLevel,
    },
    /// A block size that does not exist.
    #[error("--sector-size is {found}, expected 512, 1024, 2048 or 4096")]
    SectorSize {
        /// Bytes asked for.
        found: u64,
    },
    /// The parity of what lies on the members would be wrong.
    #[error("--no-wipe with parity is refused: parity of unknown data would be wrong")]
    NoWipeWithParity,
    /// A size that is no whole number of sectors.
    #[error("--size is {found} bytes, expected a multiple of 512")]
    MemberBytes {
        /// Bytes asked for.
        found: u64,
    },
    /// A journal that is smaller than a sector.
    #[error("--journal-size is {found} bytes, expected at least 512")]
    Journal {
        /// Bytes asked for.
        found: u64,
    },
    /// An interleave outside what the format can say.
    #[error("--interleave-sectors is {found}, expected 8 to 2147483648")]
    Interleave {
        /// Sectors asked for.
        found: u64,
    },
    /// A member that exists with another size than that of the files to make.
    #[error("{member}: exists with {found} bytes, --size says {expected}")]
    Size {
        /// The member.
        member: String,
        /// Its bytes.
        found: u64,
        /// The bytes asked for.
        expected: u64,
    },
    /// It cannot hold a dm-integrity volume.
    #[error("{member}: {error}")]
    Integrity {
        /// The member.
        member: String,
        /// Why.
        error: integrity::FormatError,
    },
    /// It cannot be a member of such an array.
    #[error("{}{error}", member.as_deref().map_or_else(String::new, |member| format!("{member}: ")))]
    Md {
        /// The member, if it is one member's fault.
        member: Option<String>,
        /// Why.
        error: md::create::CreateError,
    },
    /// The array would have no usable size.
    #[error("{0}")]
    Shape(CannotStart),
    /// Something lies there.
    #[error("{member}: holds {} (at byte {})", signature.name, signature.offset)]
    Signature {
        /// The member.
        member: String,
        /// What was found first.
        signature: Signature,
    },
    /// Something lies there that has no known signature.
    #[error("{member}: is not all zero (first at sector {sector})")]
    NotZero {
        /// The member.
        member: String,
        /// The first sector that is not zero, of those that were looked at.
        sector: Sector,
    },
    /// A member failed.
    #[error("{member}: {error}")]
    Io {
        /// The member.
        member: String,
        /// What it said.
        error: bio::IoError,
    },
}

fn name_of(level: CreateLevel) -> String {
    level.md().map_or_else(|| "no array".to_owned(), |level| level.to_string())
}

/// What could have been asked for.
fn layouts_of(level: CreateLevel) -> String {
    let known = level.md().map_or(&[][..], layouts).iter().map(|(name, _)| *name);
    let known: Vec<&str> = known.collect();
    match (level, &known[..]) {
        (CreateLevel::Raid10, _) => {
            "expected n, f or o (near, far, offset) and the number of copies, such as n2".to_owned()
        }
        (_, []) => format!("{} has no choice of layouts", name_of(level)),
        _ => format!("{} has {}", name_of(level), known.join(", ")),
    }
}

impl Fault for CreateError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::OneMember { .. }
            | Self::TooFew { .. }
            | Self::Nothing
            | Self::Source(_)
            | Self::TagSize
            | Self::JournalKeys(_)
            | Self::DataDevice { .. }
            | Self::InlineWith { .. }
            | Self::Chunk { .. }
            | Self::Layout { .. }
            | Self::WriteMostly { .. }
            | Self::WriteMostlyLevel { .. }
            | Self::WriteJournalLevel { .. }
            | Self::WriteJournalWith { .. }
            | Self::SectorSize { .. }
            | Self::MemberBytes { .. }
            | Self::Journal { .. }
            | Self::Interleave { .. } => Verdict::Usage,
            Self::Io { .. } => Verdict::Failed,
            Self::Member(error) => error.verdict(),
            _ => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Member(error) => return error.advice(),
            Self::OneMember { .. } => "choose a level: linear, 0, 1, 4, 5, 6 or 10",
            Self::Nothing => "choose a level, or leave --integrity at crc32c",
            Self::NoWipeWithParity => "leave it out: on files and most devices wiping is fast",
            Self::Signature { .. } | Self::NotZero { .. } => {
                "look with 'steadfast inspect'; overwrite what is there with --yes"
            }
            Self::InlineWith { .. } => "leave one of them out",
            Self::Inline { error, .. } => match error {
                InlineError::NoMetadata => {
                    "name members that have metadata, such as sectors:4096+8:PATH"
                }
                InlineError::Interval { .. } => "choose the device's block with --sector-size",
                InlineError::TooSmall { .. } => {
                    "choose shorter tags with --tag-size, or another --integrity"
                }
                InlineError::TooLarge { .. } => return None,
            },
            Self::WriteJournalWith { .. } => "leave one of them out",
            Self::Md { error: md::create::CreateError::JournalSmall { .. }, .. } => {
                "name a larger device with --write-journal"
            }
            Self::Integrity { .. } | Self::Md { .. } => "use larger members, or a smaller journal",
            Self::Size { .. } => "leave --size out, or choose another name",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(error) => error.member(),
            Self::Size { member, .. }
            | Self::Inline { member, .. }
            | Self::Integrity { member, .. }
            | Self::Signature { member, .. }
            | Self::NotZero { member, .. }
            | Self::Io { member, .. } => Some(member),
            Self::Md { member, .. } => member.as_deref(),
            _ => None,
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
