//! Copies a volume out, and into a volume: streams with several requests in flight.
//!
//! ```text
//!   export   volume --reads, in flight--> in order --> sink (file with holes, or a stream)
//!   import   source --in order--> writes, in flight --> volume, then one flush
//! ```
//!
//! Everything of the volume goes through its verified path. What cannot be read is a hole in the
//! copy and a line in its [`crate::Map`]; a copy is never silently wrong. Offsets and lengths are bytes.

mod export;
mod import;
mod sink;

pub use export::{ExportOptions, Exported, export};
pub use import::{ImportOptions, Imported, import};
pub use sink::{FileSink, Sink, StreamSink};

use crate::verdict::{Fault, Verdict};
use bio::IoError;
use std::io;
use std::path::PathBuf;

/// Bytes of one request of a copy.
const CHUNK_BYTES: u64 = 1 << 20;
/// Requests in flight.
const IN_FLIGHT: usize = 8;

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CopyProgress {
    /// Bytes behind us, readable or not.
    pub done: u64,
    /// Bytes in all; none: the source does not say.
    pub total: Option<u64>,
    /// Bytes that could not be read so far.
    pub unreadable: u64,
}

/// Why a copy was not made, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The file to write exists, and nobody said that it may go.
    #[error("{path}: exists already")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file to write is a member of the volume.
    #[error("{path}: is a member of this volume")]
    IsMember {
        /// The file.
        path: PathBuf,
    },
    /// The file to write is a directory, or otherwise no place for bytes.
    #[error("{path}: is not a regular file or block device")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The range does not lie in the volume.
    #[error("bytes {offset} to {end} were asked for, the volume has {size}")]
    Range {
        /// First byte.
        offset: u64,
        /// The byte behind the last.
        end: u64,
        /// Bytes of the volume.
        size: u64,
    },
    /// What is to be copied in is larger than its place.
    #[error("the source has at least {source_bytes} bytes, the volume has room for {room}")]
    TooLarge {
        /// Bytes of the source, as far as known.
        source_bytes: u64,
        /// Bytes from the offset to the volume's end.
        room: u64,
    },
    /// The volume failed, not just some of its sectors.
    #[error("volume: {error} (byte {byte}), {done} bytes were copied before")]
    Volume {
        /// What it said.
        error: IoError,
        /// The first byte concerned, as the volume counts.
        byte: u64,
        /// Bytes that are done.
        done: u64,
    },
    /// The other side failed.
    #[error("{what}: {error}, {done} bytes were copied before")]
    Other {
        /// Which file or stream.
        what: String,
        /// What the system said.
        error: io::Error,
        /// Bytes that are done.
        done: u64,
    },
}

impl Fault for CopyError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Exists { .. } | Self::IsMember { .. } | Self::NotAFile { .. } => Verdict::Refused,
            Self::Range { .. } | Self::TooLarge { .. } => Verdict::Refused,
            Self::Volume { .. } | Self::Other { .. } => Verdict::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Exists { .. } => "choose another name, or overwrite it with --yes",
            Self::IsMember { .. } | Self::NotAFile { .. } => "choose another name",
            Self::Range { .. } => "see 'steadfast inspect' for the volume's size",
            Self::TooLarge { .. } => "make a larger volume",
            Self::Volume { error, .. } if error.kind == bio::IoErrorKind::NoSpace => {
                "make room where the members lie, then import again; the volume is consistent"
            }
            Self::Volume { error, .. } if error.kind.is_damage() => {
                "the first or last block is only partly overwritten and cannot be read: see \
                 'steadfast scrub --check'"
            }
            Self::Volume { .. } => "see 'steadfast status'",
            Self::Other { error, .. } if error.kind() == io::ErrorKind::StorageFull => "make room",
            Self::Other { .. } => return None,
        };
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
