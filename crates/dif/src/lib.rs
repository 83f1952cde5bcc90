//! Protection information: T10 DIF and DIX, and NVMe's end-to-end protection, over bytes.
//!
//! Beside each protection interval (a block of data, or a power-of-two part of it) travels a tuple that
//! says what the bytes are (guard), where they belong (reference) and whose they are (application). Who
//! holds the data at any place between the application and the medium can check it against its tuple,
//! and refuse to pass on what is wrong while the original is still there.
//!
//! - [`Format`]: the bytes; [`Profile`]: a format with its [`ProtectionType`].
//! - [`Protection`]: a profile, what tuples ought to say ([`Expected`]), and what is checked ([`Checks`]).
//!   Its methods are the operations: generate, verify, insert, strip, overwrite, split, join.
//! - [`Signer`] and [`Verifier`]: the same for bytes that come when they come, also in the middle of an
//!   interval.
//! - [`Profile::remap`], [`Protection::converted_to`], [`Profile::update`], [`TagStream`], [`dix`].
//! - [`Mismatch`]: what disagrees; [`Tag::sense`], [`Tag::nvme_status`], [`Tag::errno`]: its names outside.
//!
//! ```
//! use steadfast_dif::{Format, Guard, Profile, Protection, ProtectionType};
//!
//! // Type 1 with 512-byte intervals; the first interval has address 1000.
//! let profile = Profile {
//!     format: Format::new(Guard::Crc16, 512)?,
//!     kind: ProtectionType::One,
//! };
//! let protection = Protection::at(profile, 1000);
//! let (mut data, mut tuples) = ([0x5a; 4096], [0; 8 * 8]);
//! protection.generate([&data[..]], [&mut tuples[..]]);
//! assert_eq!(protection.verify([&data[..]], [&tuples[..]]), Ok(()));
//!
//! data[700] ^= 1;
//! let mismatch = protection.verify([&data[..]], [&tuples[..]]).unwrap_err();
//! assert_eq!((mismatch.tag, mismatch.address), (steadfast_dif::Tag::Guard, 1001));
//! assert_eq!(mismatch.tag.errno(), 84);
//! # Ok::<(), steadfast_dif::FormatError>(())
//! ```
//!
//! Everything that a caller promises (lengths that go together) is asserted; everything that comes from
//! a wire or a medium is checked and reported. Source of all rules: the specification of protection
//! information (`spec/pi.md`), whose sections are named where they apply. No `std`, no allocation.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod application;
mod codes;
mod convert;
pub mod dix;
mod format;
mod operations;
mod pieces;
mod profile;
mod remap;
mod stream;
mod template;
mod tuple;
mod update;

pub use application::{Coding, TagStream, TagStreamError};
pub use codes::{
    EILSEQ, EIO, INVALID_FIELD_IN_CDB, NVME_COMPARE_FAILURE, NVME_INVALID_PROTECTION, Noticed,
    Sense,
};
pub use convert::{Conversion, ConvertError};
pub use format::{Format, FormatError, Place};
pub use guard::{Guard, Running};
pub use profile::{Checks, Expected, Mismatch, Order, Profile, Protection, ProtectionError, Tag};
pub use remap::Remapped;
pub use stream::{Signer, Verifier};
pub use tuple::{APPLICATION_ESCAPE, ProtectionType, TUPLE_BYTES_MAX, Tuple};

#[cfg(test)]
mod tests;
