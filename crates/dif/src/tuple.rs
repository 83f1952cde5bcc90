//! Protection tuples: the bytes that vouch for one protection interval.
//!
//! ```text
//!        0        1        2        3        4        5        6        7
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//!   |    guard tag    | application tag |    storage and reference tag      |   CRC-16, IP
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//!
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//!   |             guard tag             | application tag |                 |   CRC-32C
//!   +--------+--------+--------+--------+--------+--------+                 |
//!   |                       storage and reference tag, 80 bits              |
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//!
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//!   |                               guard tag                               |   CRC-64
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//!   | application tag |         storage and reference tag, 48 bits          |
//!   +--------+--------+--------+--------+--------+--------+--------+--------+
//! ```
//!
//! All are big-endian. Each answers one question:
//!
//! - *guard*: are these the bytes that were written?
//! - *reference*: were they meant for this block?
//! - *application*: whose are they? The owner decides what it means, except for the escape.
//! - *storage*: whatever the storage wants to know; the high bits of what it shares with the reference.
//!
//! The *escape* says: whoever wrote this interval did not protect it, so nothing in it may be checked.
//!
//! The byte maps are in `docs/formats/dif.md`; a test compares them with the declarations here.

use crate::format::Format;
use guard::Guard;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What the reference tag promises, and what turns checking off. (Section 4.)
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProtectionType {
    /// Reference is the low bits of the block's address. Escaped by the application tag.
    One,
    /// Reference counts up from a number in the command. Escaped by the application tag.
    Two,
    /// Reference is opaque. Escaped only when application and reference are both all ones.
    Three,
}

impl ProtectionType {
    /// The types, in order.
    pub const ALL: [Self; 3] = [Self::One, Self::Two, Self::Three];

    /// Whether the reference tag counts intervals, and is checked.
    #[must_use]
    pub const fn counts(self) -> bool {
        matches!(self, Self::One | Self::Two)
    }

    /// 1, 2 or 3.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// The type with that number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A tuple's values. What it says is not verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tuple {
    /// The guard, in as many bits as its kind has.
    pub guard: u64,
    /// The application tag.
    pub application: u16,
    /// The storage tag; 0 where the format has none.
    pub storage: u64,
    /// The reference tag.
    pub reference: u64,
}

/// With a 16-bit guard.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw16 {
    guard: U16,
    application: U16,
    space: U32,
}

/// With a 32-bit guard.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw32 {
    guard: U32,
    application: U16,
    space_high: U16,
    space_low: U64,
}

/// With a 64-bit guard.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw64 {
    guard: U64,
    application: U16,
    space_high: U16,
    space_low: U32,
}

const _: () =
    assert!(size_of::<Raw16>() == 8 && size_of::<Raw32>() == 16 && size_of::<Raw64>() == 16);

/// Bytes of the longest tuple.
pub const TUPLE_BYTES_MAX: usize = 16;

impl Tuple {
    /// What nothing may be checked by: all ones. Formatted and deallocated blocks have it.
    #[must_use]
    pub const fn unwritten(format: &Format) -> Self {
        Self {
            guard: u64::MAX >> (64 - 8 * format.guard().bytes()),
            application: APPLICATION_ESCAPE,
            storage: format.storage_mask(),
            reference: format.reference_mask(),
        }
    }

    /// The tuple in `bytes`.
    ///
    /// # Panics
    /// If they are not [`Format::tuple_bytes`] bytes.
    #[must_use]
    pub fn decode(format: &Format, bytes: &[u8]) -> Self {
        const WHOLE: &str = "a tuple's bytes are all there";
        let (guard, application, space) = match format.guard() {
            Guard::Crc16 | Guard::Ip => {
                let raw = Raw16::ref_from_bytes(bytes).expect(WHOLE);
                (raw.guard.get().into(), raw.application, raw.space.get().into())
            }
            Guard::Crc32c => {
                let raw = Raw32::ref_from_bytes(bytes).expect(WHOLE);
                let space =
                    u128::from(raw.space_high.get()) << 64 | u128::from(raw.space_low.get());
                (raw.guard.get().into(), raw.application, space)
            }
            Guard::Crc64 => {
                let raw = Raw64::ref_from_bytes(bytes).expect(WHOLE);
                let space = u64::from(raw.space_high.get()) << 32 | u64::from(raw.space_low.get());
                (raw.guard.get(), raw.application, space.into())
            }
        };
        Self {
            guard,
            application: application.get(),
            storage: low_half(space >> format.reference_bits()),
            reference: low_half(space) & format.reference_mask(),
        }
    }

    /// Writes the tuple to `bytes`. Bits that the format has no room for are left out.
    ///
    /// # Panics
    /// If they are not [`Format::tuple_bytes`] bytes.
    pub fn encode(&self, format: &Format, bytes: &mut [u8]) {
        let storage = u128::from(self.storage & format.storage_mask());
        let reference = u128::from(self.reference & format.reference_mask());
        let space = storage << format.reference_bits() | reference;
        let (high, low) = (cut(space >> 64), low_half(space));
        let application = self.application.into();
        match format.guard() {
            Guard::Crc16 | Guard::Ip => {
                let guard = cut(self.guard.into()).into();
                let raw = Raw16 { guard, application, space: cut_32(low).into() };
                bytes.copy_from_slice(raw.as_bytes());
            }
            Guard::Crc32c => {
                let guard = cut_32(self.guard).into();
                let (space_high, space_low) = (high.into(), low.into());
                let raw = Raw32 { guard, application, space_high, space_low };
                bytes.copy_from_slice(raw.as_bytes());
            }
            Guard::Crc64 => {
                let (space_high, space_low) = (cut((low >> 32).into()).into(), cut_32(low).into());
                let guard = self.guard.into();
                let raw = Raw64 { guard, application, space_high, space_low };
                bytes.copy_from_slice(raw.as_bytes());
            }
        }
    }

    /// Whether the writer opted this interval out of every check.
    #[must_use]
    pub const fn is_escaped(&self, format: &Format, kind: ProtectionType) -> bool {
        let application = self.application == APPLICATION_ESCAPE;
        match kind {
            ProtectionType::One | ProtectionType::Two => application,
            ProtectionType::Three => application && self.reference == format.reference_mask(),
        }
    }
}

/// The application tag that says: do not check.
pub const APPLICATION_ESCAPE: u16 = u16::MAX;

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(value: u128) -> u64 {
    value as u64
}

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn cut_32(value: u64) -> u32 {
    value as u32
}

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn cut(value: u128) -> u16 {
    value as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use std::borrow::ToOwned;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    /// The rows of the table below `heading`.
    fn documented(heading: &str) -> Vec<(usize, usize, String)> {
        let text = include_str!("../../../docs/formats/dif.md");
        let lines = text.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
        let rows = lines.take_while(|line| !line.starts_with("## ")).filter_map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            let offset = cells.next()?.parse().ok()?;
            let size = cells.next()?.parse().ok()?;
            Some((offset, size, cells.next()?.trim_matches('`').to_owned()))
        });
        rows.collect()
    }

    #[test]
    fn the_byte_maps_of_the_documentation_are_the_structs() {
        macro_rules! declared {
            ($raw:ident: $($name:ident),*) => {{
                let raw = $raw::read_from_bytes(&[0; size_of::<$raw>()]).unwrap();
                vec![$((offset_of!($raw, $name), size_of_val(&raw.$name), stringify!($name).to_owned())),*]
            }};
        }
        let raw16 = declared!(Raw16: guard, application, space);
        assert_eq!(documented("## With a 16-bit guard"), raw16);
        let raw32 = declared!(Raw32: guard, application, space_high, space_low);
        assert_eq!(documented("## With a 32-bit guard"), raw32);
        let raw64 = declared!(Raw64: guard, application, space_high, space_low);
        assert_eq!(documented("## With a 64-bit guard"), raw64);
        for (raw, bytes) in [(raw16, 8), (raw32, 16), (raw64, 16)] {
            assert_eq!(raw.iter().map(|(_, size, _)| size).sum::<usize>(), bytes);
        }
    }
}
