//! The on-disk format of Linux's dm-integrity, without any I/O.
//!
//! - [`superblock`]: the 64 bytes that describe a volume, and what they may be believed for.
//! - [`layout`]: where everything lies, computed from them; making a new volume's numbers, and those
//!   of one whose device was resized.
//! - [`open`]: whether a volume may be opened as somebody asks.
//! - [`journal`]: sections, entries and commit ids.
//! - [`journal_crypt`]: the encrypted journal.
//! - [`mac`]: the authentic superblock, the authentic journal.
//! - [`replay`]: what a journal found at open means.
//! - [`bitmap`]: the dirty bitmap in the journal's place.
//! - [`recalculate`]: which tags are valid while they are computed anew.
//! - [`discard`]: the tags of blocks that were given up.
//! - [`find`]: a volume's numbers without its superblock.
//! - [`explain`]: the same facts in words.
//!
//! Section numbers in comments are those of the dm-integrity specification that the project was
//! written from. All integers on disk are little-endian; a *sector* is 512 bytes, always.
//!
//! What is not here: reading and writing (`layers::integrity`), and the tag functions (`checksum`).

#![forbid(unsafe_code)]

pub mod bitmap;
pub mod discard;
pub mod explain;
pub mod find;
pub mod journal;
pub mod journal_crypt;
pub mod layout;
pub mod mac;
pub mod open;
pub mod recalculate;
pub mod replay;
pub mod superblock;

pub use bitmap::Bitmap;
pub use journal::{CommitIds, EntrySector, Sequence, Stamp};
pub use journal_crypt::{CipherKind, JournalCipher};
pub use layout::{
    FormatError, FormatOptions, Layout, LayoutError, ResizeError, Run, format, resize,
};
pub use mac::{MacError, SectionMac};
pub use replay::{Plan, PlanError, SectionSummary};
pub use superblock::{Flags, Superblock, SuperblockError, superblock_area};
