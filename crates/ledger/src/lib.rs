//! What ever happened to a volume: every mismatch, heal and loss, over restarts, and what of it is
//! unresolved.
//!
//! ```text
//!   events of an open volume                         steadfast status, steadfast ledger
//!        |  never waits                                   ^
//!   +----v-----+   batches    +--------+   lines    +-----+-----+
//!   | Recorder |------------->| Ledger |----------->|   Book    |  counters, open entries
//!   +----------+  its thread  +--------+   folded   +-----------+
//!                                  | append, fdatasync; one writer at a time
//!                             FOLDER/ledger.jsonl
//! ```
//!
//! The file is the truth, a [`Book`] is what its lines amount to, and one function decides both
//! what a line means and whether an event deserves one: [`Book::apply`]. The format, what a crash
//! leaves and who may write when are in `docs/ledger.md`.

#![forbid(unsafe_code)]

mod book;
mod compact;
mod file;
mod folder;
mod open;
mod record;
mod recorder;

pub use book::{Account, Book, Counters, Unresolved};
pub use file::{FILE_BYTES_MAX, Ledger, LedgerError, files, lines};
pub use folder::{default_folder, is_clear_of};
pub use open::{Entry, State};
pub use record::{Area, Draft, Kind, LINE_BYTES_MAX, LineError, Record, Time, printable};
pub use recorder::{FLUSH_AFTER, Recorder, Snapshot};
