//! The one crate that knows all layers: finds what members make, opens it, makes it.

#![forbid(unsafe_code)]

mod content;
pub mod copy;
pub mod create;
mod mapfile;
mod member;
mod signature;
mod size;
mod spec;
#[cfg(test)]
mod test_device;
mod trial;
mod verdict;

pub use mapfile::{Block, Map, Status};
pub use member::Member;
pub use signature::Signature;
pub use size::{SizeError, format_size, parse_size};
pub use spec::{ArrayLevel, Node, SpecError};
pub use verdict::{Fault, Verdict};
