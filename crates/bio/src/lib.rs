//! The one interface of every layer: requests, buffers, limits, errors, events.
//!
//! A layer is a [`BlockDevice`]; it is held as a [`Device`], and asked with a [`Bio`]. Nothing here
//! does I/O, and nothing here knows a format.

mod bio;
mod buf;
mod device;
mod error;
mod event;
mod limits;
mod protection;
mod scrub;

pub use bio::{Bio, Op};
pub use buf::{Buf, Segments};
pub use device::{Allocation, BlockDevice, Device, LocalFuture};
pub use error::{IoError, IoErrorKind, IoResult};
pub use event::{Event, EventKind, Events};
pub use limits::Limits;
pub use protection::NoProfile;
pub use scrub::{Decision, Extent, Finding, Findings, Scrub, ScrubMode, Trust};
