//! Checksums that stand on disk: what they are, and how they run fast.
//!
//! Knows the digests a tag may be made with ([`Algorithm`]), how dm-integrity derives a block's
//! tag from them ([`BlockTagger`]), and the shortcut for blocks of zeros ([`ZeroTags`]). Does not
//! know where a tag lies: that is the `integrity` crate's.
//!
//! ```text
//!   tag of a block =  digest( salt, 16 bytes, if any | LE64(first sector) | the block's data )
//!                             \___ once per volume __/ \__ 8 bytes _____/   \__ all the work _/
//! ```
//!
//! `unsafe` lives in `simd/` only; every kernel there has a portable twin that it is tested
//! against.

mod algorithm;
mod crc32c;
mod polynomial;
mod simd;
mod tagger;
mod zero;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use crc32c::{Crc32c, crc32c};
pub use tagger::{BlockTagger, SALT_BYTES};
pub use zero::ZeroTags;
