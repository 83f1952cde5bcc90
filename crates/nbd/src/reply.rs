//! Replies: simple ones of 16 bytes, and structured ones made of chunks.
//!
//! ```text
//!    0        4        8                16
//!    +--------+--------+----------------+
//!    | magic  | error  |     cookie     |  data if a READ succeeded          simple
//!    +--------+--------+----------------+
//!    0        4      6      8                16       20
//!    +--------+------+------+----------------+--------+
//!    | magic  |flags | type |     cookie     | length |  length bytes       chunk
//!    +--------+------+------+----------------+--------+
//! ```
//!
//! The server appends replies to a buffer, all but the data of reads, which is sent from where
//! it lies. The client decodes a [`Header`], reads its payload, and decodes that.

use crate::STRING_MAX;
use crate::error::{Errno, WireError};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The type of a chunk ("Structured reply types").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChunkKind {
    /// Nothing more to say.
    None,
    /// An offset and the data that lies there.
    OffsetData,
    /// An offset and how many zeroes lie there.
    OffsetHole,
    /// A context and the states of consecutive extents.
    BlockStatus,
    /// An error.
    Error,
    /// An error and where it happened.
    ErrorOffset,
    /// Another chunk marked as an error; it can be read as far as [`ChunkKind::Error`] goes.
    OtherError(u16),
}

impl ChunkKind {
    /// From the number on the wire.
    ///
    /// # Errors
    /// [`WireError::ChunkKind`] for unknown types that are not errors: the client must hang up.
    pub const fn decode(number: u16) -> Result<Self, WireError> {
        Ok(match number {
            0 => Self::None,
            1 => Self::OffsetData,
            2 => Self::OffsetHole,
            5 => Self::BlockStatus,
            0x8001 => Self::Error,
            0x8002 => Self::ErrorOffset,
            other if other & ERROR_BIT != 0 => Self::OtherError(other),
            other => return Err(WireError::ChunkKind { found: other }),
        })
    }

    /// The number on the wire.
    #[must_use]
    pub const fn encode(self) -> u16 {
        match self {
            Self::None => 0,
            Self::OffsetData => 1,
            Self::OffsetHole => 2,
            Self::BlockStatus => 5,
            Self::Error => 0x8001,
            Self::ErrorOffset => 0x8002,
            Self::OtherError(other) => other,
        }
    }
}

/// The first bytes of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// A simple reply; the data of a successful READ follows.
    Simple {
        /// The request's.
        cookie: u64,
        /// What went wrong, if something did.
        error: Option<Errno>,
    },
    /// A chunk; `length` bytes of payload follow.
    Chunk {
        /// The request's.
        cookie: u64,
        /// Whether it is the last of its reply.
        done: bool,
        /// What the payload is.
        kind: ChunkKind,
        /// Bytes of payload.
        length: u32,
    },
}

/// Bytes of a simple reply's header.
pub const SIMPLE_BYTES: usize = size_of::<RawSimple>();
/// Bytes of a chunk's header.
pub const CHUNK_BYTES: usize = size_of::<RawChunk>();
/// Bytes of the header of an `OFFSET_DATA` chunk, with its offset.
pub const DATA_BYTES: usize = CHUNK_BYTES + 8;

impl Header {
    /// From the front of `bytes`: the header and its own length, or nothing if more bytes are
    /// needed.
    ///
    /// # Errors
    /// [`WireError`] when no reply starts like this. A chunk's length is checked against its
    /// type, so that a caller knows it is at least what the type's decoder needs.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Ok((magic, _)) = U32::read_from_prefix(bytes) else { return Ok(None) };
        match magic.get() {
            SIMPLE_MAGIC => {
                let Ok((raw, _)) = RawSimple::read_from_prefix(bytes) else { return Ok(None) };
                let error = match raw.error.get() {
                    0 => None,
                    error => Some(Errno(error)),
                };
                Ok(Some((Self::Simple { cookie: raw.cookie.get(), error }, SIMPLE_BYTES)))
            }
            CHUNK_MAGIC => {
                let Ok((raw, _)) = RawChunk::read_from_prefix(bytes) else { return Ok(None) };
                let kind = ChunkKind::decode(raw.kind.get())?;
                let length = raw.length.get();
                check_length(kind, length)?;
                let done = raw.flags.get() & DONE != 0;
                let cookie = raw.cookie.get();
                Ok(Some((Self::Chunk { cookie, done, kind, length }, CHUNK_BYTES)))
            }
            found => Err(WireError::ReplyMagic { found }),
        }
    }
}

/// A simple reply; for a successful READ its data must follow.
#[must_use]
pub fn simple(cookie: u64, error: Option<Errno>) -> [u8; SIMPLE_BYTES] {
    zerocopy::transmute!(RawSimple {
        magic: SIMPLE_MAGIC.into(),
        error: error.map_or(0, |e| e.0).into(),
        cookie: cookie.into(),
    })
}

/// The header of an `OFFSET_DATA` chunk; `length` bytes of data must follow.
///
/// # Panics
/// If `length` is zero or beyond 4 GiB - 9: no request asks for that.
#[must_use]
pub fn offset_data(cookie: u64, done: bool, offset: u64, length: u32) -> [u8; DATA_BYTES] {
    assert!(length > 0, "a content chunk has content");
    let payload = length.checked_add(8).expect("payloads end at 32 MiB");
    zerocopy::transmute!(RawData {
        chunk: chunk(cookie, done, ChunkKind::OffsetData, payload),
        offset: offset.into(),
    })
}

/// The end of a reply that was successful so far.
#[must_use]
pub fn none(cookie: u64) -> [u8; CHUNK_BYTES] {
    zerocopy::transmute!(chunk(cookie, true, ChunkKind::None, 0))
}

/// Appends an `OFFSET_HOLE` chunk.
///
/// # Panics
/// If the hole is empty.
pub fn offset_hole(out: &mut Vec<u8>, cookie: u64, done: bool, offset: u64, length: u32) {
    assert!(length > 0, "a content chunk has content");
    out.extend_from_slice(chunk(cookie, done, ChunkKind::OffsetHole, 12).as_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
}

/// Appends an ERROR chunk that ends its reply. The message is cut at the protocol's limit.
pub fn error(out: &mut Vec<u8>, cookie: u64, error: Errno, message: &str) {
    let message = cut(message);
    let length = 6 + message_length(message);
    let header = chunk(cookie, true, ChunkKind::Error, length.into());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&error.0.to_be_bytes());
    out.extend_from_slice(&message_length(message).to_be_bytes());
    out.extend_from_slice(message.as_bytes());
}

/// Appends an `ERROR_OFFSET` chunk that ends its reply: the export's byte `offset` is the first
/// that could not be had.
pub fn error_offset(out: &mut Vec<u8>, cookie: u64, error: Errno, message: &str, offset: u64) {
    let message = cut(message);
    let length = 14 + message_length(message);
    let header = chunk(cookie, true, ChunkKind::ErrorOffset, length.into());
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&error.0.to_be_bytes());
    out.extend_from_slice(&message_length(message).to_be_bytes());
    out.extend_from_slice(message.as_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
}

/// One extent of a `BLOCK_STATUS` chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// Bytes.
    pub length: u32,
    /// State, in the words of its context.
    pub state: u32,
}

/// Extents in the largest `BLOCK_STATUS` chunk that we make; the protocol allows 2^20, and so many
/// are taken.
pub const EXTENTS_MAX: usize = 1 << 16;

/// Appends a `BLOCK_STATUS` chunk.
///
/// # Panics
/// If there is no extent, or more than [`EXTENTS_MAX`].
pub fn block_status(
    out: &mut Vec<u8>,
    cookie: u64,
    done: bool,
    context_id: u32,
    extents: &[Extent],
) {
    assert!((1..=EXTENTS_MAX).contains(&extents.len()), "extents of one chunk are bounded");
    let length = u32::try_from(4 + 8 * extents.len()).expect("extents of one chunk are bounded");
    out.extend_from_slice(chunk(cookie, done, ChunkKind::BlockStatus, length).as_bytes());
    out.extend_from_slice(&context_id.to_be_bytes());
    for extent in extents {
        out.extend_from_slice(&extent.length.to_be_bytes());
        out.extend_from_slice(&extent.state.to_be_bytes());
    }
}

/// The payload of an `OFFSET_HOLE` chunk: first byte and length.
///
/// # Errors
/// [`WireError::ChunkLength`], or [`WireError::ChunkRange`] for an empty hole.
pub fn decode_hole(payload: &[u8]) -> Result<(u64, u32), WireError> {
    let length = length_of(payload);
    let Ok(raw) = RawHole::read_from_bytes(payload) else {
        return Err(WireError::ChunkLength { kind: 2, found: length, expected: 12 });
    };
    let (offset, length) = (raw.offset.get(), raw.length.get());
    if length == 0 {
        return Err(WireError::ChunkRange { offset, length: 0 });
    }
    Ok((offset, length))
}

/// The payload of a `BLOCK_STATUS` chunk: the context's id and the extents. It may be 8 MiB long;
/// whoever does not want so much at once reads the id and then [`decode_extents`].
///
/// # Errors
/// [`WireError::ChunkLength`], or [`WireError::ChunkRange`] for an empty extent.
pub fn decode_block_status(payload: &[u8]) -> Result<(u32, Vec<Extent>), WireError> {
    let malformed =
        WireError::ChunkLength { kind: 5, found: length_of(payload), expected: STATUS_LEAST };
    let (id, rest) = U32::read_from_prefix(payload).map_err(|_| malformed)?;
    let extents = decode_extents(rest)?;
    if extents.is_empty() { Err(malformed) } else { Ok((id.get(), extents)) }
}

/// Consecutive extents, [`EXTENT_BYTES`] each.
///
/// # Errors
/// [`WireError::ChunkLength`], or [`WireError::ChunkRange`] for an empty extent.
pub fn decode_extents(bytes: &[u8]) -> Result<Vec<Extent>, WireError> {
    let raw = <[RawExtent]>::ref_from_bytes(bytes).map_err(|_| WireError::ChunkLength {
        kind: 5,
        found: length_of(bytes),
        expected: STATUS_LEAST,
    })?;
    if raw.iter().any(|extent| extent.length.get() == 0) {
        return Err(WireError::ChunkRange { offset: 0, length: 0 });
    }
    let extent = |raw: &RawExtent| Extent { length: raw.length.get(), state: raw.state.get() };
    Ok(raw.iter().map(extent).collect())
}

/// What an error chunk says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ErrorChunk {
    /// The error.
    pub error: Errno,
    /// The server's words, as UTF-8 with replacements.
    pub message: String,
    /// Where, if it is an `ERROR_OFFSET`.
    pub offset: Option<u64>,
}

/// The payload of any chunk marked as an error.
///
/// # Errors
/// [`WireError::ErrorChunk`] if its message does not fit, or if it reports no error.
pub fn decode_error(kind: ChunkKind, payload: &[u8]) -> Result<ErrorChunk, WireError> {
    let (head, rest) =
        RawErrorHead::read_from_prefix(payload).map_err(|_| WireError::ErrorChunk)?;
    let length = usize::from(head.message_length.get());
    if length > STRING_MAX || length > rest.len() || head.error.get() == 0 {
        return Err(WireError::ErrorChunk);
    }
    let (message, tail) = rest.split_at(length);
    let offset = match kind {
        ChunkKind::ErrorOffset => {
            Some(U64::read_from_bytes(tail).map_err(|_| WireError::ErrorChunk)?.get())
        }
        _ => None,
    };
    let message = String::from_utf8_lossy(message).into_owned();
    Ok(ErrorChunk { error: Errno(head.error.get()), message, offset })
}

fn chunk(cookie: u64, done: bool, kind: ChunkKind, length: u32) -> RawChunk {
    RawChunk {
        magic: CHUNK_MAGIC.into(),
        flags: if done { DONE } else { 0 }.into(),
        kind: kind.encode().into(),
        cookie: cookie.into(),
        length: length.into(),
    }
}

fn check_length(kind: ChunkKind, length: u32) -> Result<(), WireError> {
    let (least, most) = match kind {
        ChunkKind::None => (0, 0),
        ChunkKind::OffsetData => (9, u32::MAX),
        ChunkKind::OffsetHole => (12, 12),
        ChunkKind::BlockStatus => (STATUS_LEAST, 4 + 8 * (1 << 20)),
        ChunkKind::Error => (6, ERROR_MAX),
        ChunkKind::ErrorOffset => (14, ERROR_MAX),
        ChunkKind::OtherError(_) => (6, ERROR_MAX),
    };
    if (least..=most).contains(&length) {
        return Ok(());
    }
    Err(WireError::ChunkLength { kind: kind.encode(), found: length, expected: least })
}

/// At most as much of `message` as may travel, cut between characters.
fn cut(message: &str) -> &str {
    let mut end = message.len().min(STRING_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn message_length(message: &str) -> u16 {
    u16::try_from(message.len()).expect("messages are cut at 4096 bytes")
}

fn length_of(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSimple {
    magic: U32,
    error: U32,
    cookie: U64,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawChunk {
    magic: U32,
    flags: U16,
    kind: U16,
    cookie: U64,
    length: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawData {
    chunk: RawChunk,
    offset: U64,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHole {
    offset: U64,
    length: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtent {
    length: U32,
    state: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawErrorHead {
    error: U32,
    message_length: U16,
}

/// Bytes of an extent.
pub const EXTENT_BYTES: usize = size_of::<RawExtent>();

const _: () = assert!(SIMPLE_BYTES == 16 && CHUNK_BYTES == 20 && size_of::<RawData>() == 28);

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668e_33ef;
const DONE: u16 = 1;
const ERROR_BIT: u16 = 0x8000;
/// A context and one extent.
const STATUS_LEAST: u32 = 12;
/// Head, message, and room for fields of error chunks yet unknown.
const ERROR_MAX: u32 = 6 + 4096 + 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_simple_reply_is_16_bytes() {
        let bytes = simple(0x0102_0304_0506_0708, Some(Errno::EIO));
        assert_eq!(bytes, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_data_chunk_counts_its_offset() {
        let bytes = offset_data(9, true, 4096, 512);
        assert_eq!(bytes[..8], [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1]);
        assert_eq!(bytes[16..20], 520u32.to_be_bytes());
        assert_eq!(bytes[20..], 4096u64.to_be_bytes());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut out = Vec::new();
        error(&mut out, 1, Errno::EIO, &"ö".repeat(3000));
        let decoded = decode_error(ChunkKind::Error, &out[CHUNK_BYTES..]).unwrap();
        assert_eq!(decoded.message, "ö".repeat(2048));
        let mut out = Vec::new();
        error(&mut out, 1, Errno::EIO, &format!("x{}", "ö".repeat(3000)));
        let decoded = decode_error(ChunkKind::Error, &out[CHUNK_BYTES..]).unwrap();
        assert_eq!(decoded.message.len(), 4095);
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut bytes = none(1);
        bytes[19] = 1;
        assert!(matches!(Header::decode(&bytes), Err(WireError::ChunkLength { kind: 0, .. })));
        let mut bytes = offset_data(1, true, 0, 1);
        bytes[19] = 8;
        assert!(matches!(Header::decode(&bytes), Err(WireError::ChunkLength { kind: 1, .. })));
        assert!(decode_error(ChunkKind::Error, &[0, 0, 0, 5, 0, 1]).is_err());
        assert!(decode_error(ChunkKind::Error, &[0, 0, 0, 0, 0, 0]).is_err());
        assert!(decode_error(ChunkKind::ErrorOffset, &[0, 0, 0, 5, 0, 0, 1]).is_err());
        assert!(decode_hole(&[0; 12]).is_err());
        assert!(decode_block_status(&[0; 4]).is_err());
        assert!(decode_block_status(&[0; 13]).is_err());
    }

    #[test]
    fn an_unknown_error_chunk_is_still_an_error() {
        assert_eq!(ChunkKind::decode(0x8123), Ok(ChunkKind::OtherError(0x8123)));
        assert_eq!(ChunkKind::decode(0x0123), Err(WireError::ChunkKind { found: 0x0123 }));
        let decoded = decode_error(ChunkKind::OtherError(0x8123), &[0, 0, 0, 5, 0, 1, b'x', 9, 9]);
        let wanted = ErrorChunk { error: Errno::EIO, message: "x".into(), offset: None };
        assert_eq!(decoded, Ok(wanted));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Header::decode(&bytes);
            let _ = decode_hole(&bytes);
            let _ = decode_block_status(&bytes);
            for kind in [ChunkKind::Error, ChunkKind::ErrorOffset, ChunkKind::OtherError(0x8007)] {
                let _ = decode_error(kind, &bytes);
            }
        }

        #[test]
        fn headers_decode_whole_and_never_before(cookie: u64, number in 0u32..200, at in 0usize..16) {
            let error = (number != 0).then_some(Errno(number));
            let bytes = simple(cookie, error);
            prop_assert_eq!(
                Header::decode(&bytes),
                Ok(Some((Header::Simple { cookie, error }, SIMPLE_BYTES)))
            );
            prop_assert_eq!(Header::decode(&bytes[..at]), Ok(None));
        }

        #[test]
        fn chunks_round_trip(
            cookie: u64, done: bool, offset: u64, length in 1u32..=crate::PAYLOAD_MAX,
            id: u32, states in prop::collection::vec((1u32.., any::<u32>()), 1..20),
            message in ".{0,40}", number in 1u32..,
        ) {
            let data = offset_data(cookie, done, offset, length);
            let kind = ChunkKind::OffsetData;
            prop_assert_eq!(
                Header::decode(&data),
                Ok(Some((Header::Chunk { cookie, done, kind, length: length + 8 }, CHUNK_BYTES)))
            );

            let mut hole = Vec::new();
            offset_hole(&mut hole, cookie, done, offset, length);
            prop_assert!(Header::decode(&hole).unwrap().is_some());
            prop_assert_eq!(decode_hole(&hole[CHUNK_BYTES..]), Ok((offset, length)));

            let extents: Vec<_> =
                states.into_iter().map(|(length, state)| Extent { length, state }).collect();
            let mut status = Vec::new();
            block_status(&mut status, cookie, done, id, &extents);
            prop_assert_eq!(decode_block_status(&status[CHUNK_BYTES..]), Ok((id, extents)));

            let mut bytes = Vec::new();
            error_offset(&mut bytes, cookie, Errno(number), &message, offset);
            let Ok(Some((Header::Chunk { kind, length, done: true, .. }, at))) =
                Header::decode(&bytes) else { panic!("{bytes:?}") };
            prop_assert_eq!(bytes.len() - at, units_of(length));
            let wanted = ErrorChunk { error: Errno(number), message, offset: Some(offset) };
            prop_assert_eq!(decode_error(kind, &bytes[at..]), Ok(wanted));
        }
    }

    fn units_of(length: u32) -> usize {
        usize::try_from(length).unwrap()
    }
}
