//! The words of option haggling, as both sides need them.
//!
//! ```text
//!    0                8        12       16
//!    +----------------+--------+--------+
//!    |    IHAVEOPT    | option | length |  data              client: option
//!    +----------------+--------+--------+
//!    0                8        12       16       20
//!    +----------------+--------+--------+--------+
//!    |  reply magic   | option |  type  | length |  data     server: reply
//!    +----------------+--------+--------+--------+
//! ```

use crate::STRING_MAX;
use crate::export::{BlockSizes, Export};
use crate::flags::TransmissionFlags;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the longest option, or option reply, that is read into memory: a name, a description
/// and a handful of requests fit several times.
pub const OPTION_DATA_MAX: u32 = 64 << 10;

/// `NBDMAGIC`.
pub(crate) const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What an oldstyle server sends in place of `IHAVEOPT`.
pub(crate) const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
/// Starts a reply to an option.
pub(crate) const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

pub(crate) const OPT_EXPORT_NAME: u32 = 1;
pub(crate) const OPT_ABORT: u32 = 2;
pub(crate) const OPT_LIST: u32 = 3;
pub(crate) const OPT_STARTTLS: u32 = 5;
pub(crate) const OPT_INFO: u32 = 6;
pub(crate) const OPT_GO: u32 = 7;
pub(crate) const OPT_STRUCTURED_REPLY: u32 = 8;
pub(crate) const OPT_LIST_META_CONTEXT: u32 = 9;
pub(crate) const OPT_SET_META_CONTEXT: u32 = 10;

pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_SERVER: u32 = 2;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const REP_META_CONTEXT: u32 = 4;
pub(crate) const REP_ERROR_BIT: u32 = 1 << 31;
pub(crate) const REP_ERR_UNSUP: u32 = REP_ERROR_BIT + 1;
pub(crate) const REP_ERR_POLICY: u32 = REP_ERROR_BIT + 2;
pub(crate) const REP_ERR_INVALID: u32 = REP_ERROR_BIT + 3;
pub(crate) const REP_ERR_UNKNOWN: u32 = REP_ERROR_BIT + 6;
pub(crate) const REP_ERR_TOO_BIG: u32 = REP_ERROR_BIT + 9;

pub(crate) const INFO_EXPORT: u16 = 0;
pub(crate) const INFO_NAME: u16 = 1;
pub(crate) const INFO_DESCRIPTION: u16 = 2;
pub(crate) const INFO_BLOCK_SIZE: u16 = 3;

/// The protocol's word for an error reply.
pub(crate) fn error_name(kind: u32) -> &'static str {
    match kind ^ REP_ERROR_BIT {
        1 => "option not supported",
        2 => "forbidden by policy",
        3 => "invalid option",
        4 => "not supported on the server's platform",
        5 => "TLS required",
        6 => "export unknown",
        7 => "server is shutting down",
        8 => "block sizes must be asked for",
        9 => "too big",
        10 => "extended headers required",
        _ => "unknown error",
    }
}

/// The head of an option, as it travels.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct OptionHead {
    pub(crate) magic: U64,
    pub(crate) option: U32,
    pub(crate) length: U32,
}

/// The head of an option reply, as it travels.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ReplyHead {
    pub(crate) magic: U64,
    pub(crate) option: U32,
    pub(crate) kind: U32,
    pub(crate) length: U32,
}

const _: () = assert!(size_of::<OptionHead>() == 16 && size_of::<ReplyHead>() == 20);

/// Appends an option.
pub(crate) fn put_option(out: &mut Vec<u8>, option: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).expect("options that we send are short");
    let head =
        OptionHead { magic: OPTION_MAGIC.into(), option: option.into(), length: length.into() };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(data);
}

/// Appends an option reply.
pub(crate) fn put_reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    let length = u32::try_from(data.len()).expect("option replies that we send are short");
    let head = ReplyHead {
        magic: REPLY_MAGIC.into(),
        option: option.into(),
        kind: kind.into(),
        length: length.into(),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(data);
}

/// Appends a 32-bit length and the string itself.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &str) {
    let length = u32::try_from(string.len()).expect("strings end at 4096 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(string.as_bytes());
}

/// What an export says about itself under `flags`, one information reply per item asked for;
/// INFO_EXPORT always.
pub(crate) fn info_items(export: &Export, flags: TransmissionFlags, asked: &[u16]) -> Vec<Vec<u8>> {
    let mut items = Vec::new();
    let mut item = |kind: u16, parts: &[&[u8]]| {
        let mut bytes = kind.to_be_bytes().to_vec();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        items.push(bytes);
    };
    item(INFO_EXPORT, &[&export.size.to_be_bytes(), &flags.0.to_be_bytes()]);
    if asked.contains(&INFO_NAME) {
        item(INFO_NAME, &[export.name.as_bytes()]);
    }
    if asked.contains(&INFO_DESCRIPTION) && !export.description.is_empty() {
        item(INFO_DESCRIPTION, &[export.description.as_bytes()]);
    }
    if asked.contains(&INFO_BLOCK_SIZE) {
        let BlockSizes { minimum, preferred, maximum } = export.sizes;
        let sizes = [minimum.to_be_bytes(), preferred.to_be_bytes(), maximum.to_be_bytes()];
        item(INFO_BLOCK_SIZE, &[sizes.as_flattened()]);
    }
    items
}

/// Reads the fields of an option's data, never past its end.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn u16(&mut self) -> Option<u16> {
        let (value, rest) = U16::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value.get())
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let (value, rest) = U32::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value.get())
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let (value, rest) = U64::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value.get())
    }

    /// A 32-bit length and a string: UTF-8, without NUL, at most [`STRING_MAX`] bytes.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        string(bytes)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// A string of the protocol: UTF-8, without NUL, at most [`STRING_MAX`] bytes.
pub(crate) fn string(bytes: &[u8]) -> Option<&str> {
    let string = std::str::from_utf8(bytes).ok()?;
    (string.len() <= STRING_MAX && !string.contains('\0')).then_some(string)
}

/// The data of INFO and GO: the export's name and what is asked about it.
pub(crate) fn decode_info_request(data: &[u8]) -> Option<(&str, Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u16()?;
    let asked = (0..count).map(|_| fields.u16()).collect::<Option<Vec<_>>>()?;
    fields.end()?;
    Some((name, asked))
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT: the export's name and the queries.
pub(crate) fn decode_context_request(data: &[u8]) -> Option<(&str, Vec<&str>)> {
    let mut fields = Fields(data);
    let name = fields.string()?;
    let count = fields.u32()?;
    // Each query costs at least the four bytes of its length, which the data bounds; nothing is
    // allocated on the word of `count`.
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(fields.string()?);
    }
    fields.end()?;
    Some((name, queries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_magics_spell_their_words() {
        assert_eq!(GREETING_MAGIC.to_be_bytes(), *b"NBDMAGIC");
        assert_eq!(OPTION_MAGIC.to_be_bytes(), *b"IHAVEOPT");
        assert_eq!(REPLY_MAGIC, 0x3e889045565a9);
        assert_eq!(OLDSTYLE_MAGIC, 0x00420281861253);
    }

    #[test]
    fn a_count_that_lies_is_refused_without_allocating() {
        let mut data = Vec::new();
        put_string(&mut data, "x");
        data.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(decode_context_request(&data), None);
    }

    #[test]
    fn names_are_utf8_without_nul_up_to_4096_bytes() {
        assert!(string(&[b'x'; 4096]).is_some());
        assert!(string(&[b'x'; 4097]).is_none());
        assert!(string(b"a\0").is_none());
        assert!(string(&[0xff]).is_none());
    }

    proptest! {
        #[test]
        fn any_data_is_read_within_its_bounds(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_info_request(&data);
            let _ = decode_context_request(&data);
        }

        #[test]
        fn requests_round_trip(
            name in "[^\0]{0,30}", asked: [u16; 5],
            queries in prop::collection::vec("[a-z:]{0,9}", 0..5),
        ) {
            let mut data = Vec::new();
            put_string(&mut data, &name);
            data.extend_from_slice(&5u16.to_be_bytes());
            asked.iter().for_each(|a| data.extend_from_slice(&a.to_be_bytes()));
            prop_assert_eq!(decode_info_request(&data), Some((&name[..], asked.to_vec())));

            let mut data = Vec::new();
            put_string(&mut data, &name);
            data.extend_from_slice(&u32::try_from(queries.len()).unwrap().to_be_bytes());
            queries.iter().for_each(|q| put_string(&mut data, q));
            let queries: Vec<_> = queries.iter().map(String::as_str).collect();
            prop_assert_eq!(decode_context_request(&data), Some((&name[..], queries)));
        }
    }
}
