//! Why nothing was done with an image, or not to its end.

use crate::verdict::{Fault, Verdict};
use runtime::OpenError;
use std::io;
use std::path::PathBuf;

/// Why nothing was done with an image, or not to its end. Every byte is one of the file named.
#[derive(Debug, thiserror::Error)]
pub enum DifFileError {
    /// A file to read cannot be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        error: OpenError,
    },
    /// A file holds no block.
    #[error("{}: {bytes} bytes, expected at least one block of {block}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Bytes of a block there.
        block: u64,
    },
    /// What is to be made from a file needs all of its last block.
    #[error("{}: {text}", path.display())]
    Ragged {
        /// The file.
        path: PathBuf,
        /// What is missing.
        text: String,
    },
    /// The range is none of the image's.
    #[error("blocks {first} to {end} (end excluded) were asked for, the image has {blocks}")]
    Range {
        /// The first block.
        first: u64,
        /// The block behind the last.
        end: u64,
        /// What there is.
        blocks: u64,
    },
    /// The file to write exists, and nobody said that it may go.
    #[error("{}: exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file to write is read, too, or is written twice.
    #[error("{}: is named twice, expected a file of its own for what is written", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
    },
    /// The file to write is a directory, or otherwise no place for bytes.
    #[error("{}: is not a regular file or block device", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The device to write is too small.
    #[error("{}: has {size} bytes, {needed} are needed", path.display())]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its bytes.
        size: u64,
        /// What is to be written.
        needed: u64,
    },
    /// What is read or written failed.
    #[error("{}: {error} (byte {byte})", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
        /// Where.
        byte: u64,
    },
    /// References that are not counted cannot be counted anew.
    #[error("type 3: its reference tags are the application's, and do not count blocks")]
    NoReference,
    /// The other guard has no such tuples.
    #[error(transparent)]
    Format(#[from] dif::FormatError),
    /// The tuples cannot become those of the other guard.
    #[error(transparent)]
    Convert(#[from] dif::ConvertError),
    /// The application's bytes do not fit.
    #[error(
        "{what}: more bytes than the application tags of {intervals} intervals hold, {capacity}"
    )]
    TooLong {
        /// Where they come from.
        what: String,
        /// Intervals.
        intervals: u64,
        /// Bytes that they hold.
        capacity: u64,
    },
    /// The application's bytes would turn checking off.
    #[error("{what}: the bytes from {offset} on would spell the escape in interval {interval}")]
    Escape {
        /// Where they come from.
        what: String,
        /// Which of the bytes.
        offset: u64,
        /// The interval.
        interval: u64,
    },
    /// The tags are no stream.
    #[error("{what}: the application tag of interval {interval} was not written as such a stream")]
    Foreign {
        /// Where they are.
        what: String,
        /// The interval.
        interval: u64,
    },
    /// An interval that nobody protected cannot have tags.
    #[error("block {block}: is not protected, and with other tags its guard would be believed")]
    Unprotected {
        /// The block.
        block: u64,
    },
}

impl Fault for DifFileError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Open { error: OpenError::Io(_), .. } | Self::Io { .. } => Verdict::Failed,
            Self::Format(_) | Self::Convert(_) | Self::NoReference => Verdict::Usage,
            _ => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Exists { .. } => "choose another name, or overwrite it with --yes",
            Self::Twice { .. } | Self::NotAFile { .. } | Self::TooSmall { .. } => {
                "choose another name"
            }
            Self::Open { error: OpenError::Locked(_), .. } => "stop that first",
            Self::Empty { .. } => "is the file whole, and --block-size right?",
            Self::Ragged { .. } => {
                "is the file whole, and --block-size right? Or take what is \
                whole with --range"
            }
            Self::Range { .. } => "name others with --range",
            Self::Io { error, .. } if error.kind() == io::ErrorKind::StorageFull => "make room",
            Self::NoReference => "only types 1 and 2 can be remapped",
            Self::Format(dif::FormatError::Interval { .. }) => {
                "choose another --interval or --block-size"
            }
            Self::Format(_) | Self::Convert(_) => "choose another --to-guard",
            Self::TooLong { .. } => "give fewer bytes, or more blocks",
            Self::Escape { .. } => "--coding safe takes any bytes, and holds a little less",
            Self::Foreign { .. } => "give the --coding that they were written with, or a --range",
            Self::Unprotected { .. } => "'steadfast dif generate' protects it, as it is",
            Self::Open { .. } | Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }
}
