//! What an opening found, and why it is refused.

use super::JournalChoice;
use crate::integrity::codec::CodecError;
use crate::integrity::inline::InlineError;
use crate::integrity::recover::StrangeEntry;
use crate::integrity::source::{SourceError, TagSource};
use ::integrity::bitmap::BitmapError;
use ::integrity::open::Refusal;
use ::integrity::recalculate::Insecure;
use ::integrity::{LayoutError, MacError, PlanError, SuperblockError};
use bio::IoError;
use checksum::KeyError;
use std::fmt;
use units::BlockSize;

/// Why a volume may be read but not written here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Restriction {
    /// Sections carry a MAC, which would have to be made, and nobody said with what.
    JournalMac,
    /// Discarded blocks carry keyed tags, which nobody can write without the key.
    DiscardKeyed,
    /// The device below takes no writes.
    ReadOnlyDevice,
    /// The journal cannot be replayed with certainty.
    Journal(PlanError),
    /// The journal names a place that is none.
    StrangeEntry(StrangeEntry),
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalMac => f.write_str(
                "its journal has MACs (have_journal_mac), whose algorithm and key were not named",
            ),
            Self::DiscardKeyed => f.write_str(
                "its discarded blocks have keyed tags (discard_keyed), and the key was not named",
            ),
            Self::ReadOnlyDevice => f.write_str("the device below is read-only"),
            Self::Journal(error) => write!(f, "its journal cannot be replayed: {error}"),
            Self::StrangeEntry(StrangeEntry { section, entry, sector }) => write!(
                f,
                "its journal cannot be replayed: entry {entry} of section {section} names sector \
                 {sector}, which starts no block"
            ),
        }
    }
}

/// What was found in the journal at open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JournalState {
    /// Nothing to replay.
    Clean,
    /// It was replayed.
    Replayed {
        /// Entries found, counting every version of a block.
        entries: usize,
    },
    /// Read-only: it is laid over the data in memory.
    Overlaid {
        /// Entries found, counting every version of a block.
        entries: usize,
    },
    /// Read-only: it is damaged. What it names and home does not agree with is unreadable.
    Damaged(PlanError),
    /// It was damaged, and made anew as somebody chose.
    Mended(JournalChoice),
    /// The area holds a bitmap instead.
    Bitmap,
    /// Recovery mode: it was not looked at.
    Ignored,
    /// The tags are inline: there is none.
    Absent,
}

impl JournalState {
    /// Whether there is a journal, and it was looked at.
    pub(in crate::integrity) fn is_of_a_journal(&self) -> bool {
        !matches!(self, Self::Bitmap | Self::Ignored | Self::Absent)
    }
}

/// Why a volume could not be opened as asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No superblock here.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// It does not fit the device.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A feature without which nothing can be read.
    #[error("the volume uses {0}, which is not implemented")]
    Unimplemented(String),
    /// What was asked for is not for volumes with inline tags, or only for those.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its inline tags cannot lie on this device.
    #[error(transparent)]
    Inline(#[from] InlineError),
    /// No such tags are possible with this key, block size or tag size.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The journal MAC's algorithm and its key do not go together.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The device's blocks are larger than the volume's.
    #[error("the volume has blocks of {block} bytes, the device below {device}")]
    LogicalBlock {
        /// The volume's.
        block: BlockSize,
        /// The device's.
        device: BlockSize,
    },
    /// It can be read, but writing was asked for.
    #[error("the volume can only be opened read-only: {}", join(.0))]
    ReadOnlyOnly(Vec<Restriction>),
    /// Blocks look written, and not one verifies: the algorithm is another, or the superblock's
    /// salt or interleave is damaged. Healing would destroy everything.
    #[error(
        "none of {sampled} written blocks that were sampled verifies with {tried}: another \
         algorithm, or a damaged superblock"
    )]
    NothingVerifies {
        /// Blocks looked at.
        sampled: usize,
        /// What was tried.
        tried: TagSource,
    },
    /// The journal cannot be used with what was said of it.
    #[error(transparent)]
    Journal(#[from] CodecError),
    /// Recalculation would sign what an enemy wrote; `Options::legacy_recalculate` overrides.
    #[error(transparent)]
    Insecure(#[from] Insecure),
    /// There is no such bitmap.
    #[error(transparent)]
    Bitmap(#[from] BitmapError),
    /// The superblock is not authentic.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// The device failed.
    #[error("{0} of the device below")]
    Io(#[from] IoError),
}

fn join(restrictions: &[Restriction]) -> String {
    restrictions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
