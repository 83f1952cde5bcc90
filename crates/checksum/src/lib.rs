//! Checksums that stand on disk: what they are, and how they run fast.
//!
//! Knows the digests a tag may be made with ([`Algorithm`]), their keys ([`Key`]), how dm-integrity
//! derives a block's tag from them ([`BlockTagger`]) and authenticates its journal ([`Mac`]), the
//! tags of blocks of zeros ([`ZeroTags`]), and how a CRC gives back a lost salt ([`SaltRegister`]).
//! Does not know where a tag lies: that is the `integrity` crate's.
//!
//! ```text
//!   tag of a block = H( key, if any | salt, 16 bytes, if any | LE64(first sector) | the block's data )
//!                       \______ once per volume, kept ______/ \__ 8 bytes _____/   \__ all the work
//! ```
//!
//! The hash functions are other people's crates, but for the CRCs' kernels: `unsafe` lives in
//! `simd/` only, and every kernel there has a portable twin that it is tested against.

mod algorithm;
mod crc;
mod digest;
mod hash;
mod key;
mod mac;
mod simd;
mod tagger;
mod zero;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use crc::{SaltRegister, crc32c, crc32c_register};
pub use digest::Digest;
pub use key::{KEY_BYTES_MAX, Key, KeyError};
pub use mac::Mac;
pub use tagger::{BlockTagger, DISCARD_FILLER, SALT_BYTES};
pub use zero::ZeroTags;

#[cfg(test)]
mod tests;
