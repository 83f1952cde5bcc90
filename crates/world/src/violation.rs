//! What a volume must never do, and in words.

use std::fmt;

/// Something the volume must never do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Violation {
    /// A block held what it may not hold.
    Wrong {
        /// The volume's block.
        block: u64,
        /// What it held, in words.
        found: String,
        /// The versions that would have been right.
        legal: Vec<u64>,
    },
    /// A request failed, though no fault excuses it.
    Failed {
        /// What was asked.
        request: String,
        /// What came back.
        error: String,
    },
    /// The volume could not be opened, though it should.
    NotOpened(String),
    /// An application tag was another than the one that was written with its block.
    Tuple {
        /// The first block of the request.
        block: u64,
        /// What was found.
        found: String,
    },
    /// Nothing can make progress any more.
    Stuck,
    /// A block that a power cut made unreadable lies where the bitmap says that all is well.
    Unsuspected(u64),
    /// A life that was to write nothing wrote to this disk.
    Wrote(usize),
    /// A scrub of a healthy volume found something.
    Scrub(String),
    /// The program itself broke an invariant.
    Panic(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong { block, found, legal } => {
                write!(f, "block {block} holds {found}; it may hold version ")?;
                for (index, version) in legal.iter().enumerate() {
                    write!(f, "{}{version}", if index > 0 { " or " } else { "" })?;
                }
                Ok(())
            }
            Self::Failed { request, error } => write!(f, "{request} failed: {error}"),
            Self::NotOpened(error) => write!(f, "the volume did not open: {error}"),
            Self::Tuple { block, found } => write!(f, "read of block {block}: {found}"),
            Self::Stuck => f.write_str("nothing can make progress any more"),
            Self::Unsuspected(block) => {
                write!(f, "block {block} cannot be read, and its bit does not say so")
            }
            Self::Wrote(disk) => {
                write!(f, "a volume that is not to be written wrote to disk {disk}")
            }
            Self::Scrub(finding) => write!(f, "a scrub of a healthy volume: {finding}"),
            Self::Panic(message) => write!(f, "panic: {message}"),
        }
    }
}
