//! What can be wrong with the bytes of a peer, and the numbers by which errors travel.

use std::fmt;

/// An error as it travels in a reply ("Error values"). Zero means success and is not an error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Errno(pub u32);

impl Errno {
    /// Operation not permitted: a write to a read-only export.
    pub const EPERM: Self = Self(1);
    /// Input/output error: the bytes could not be had.
    pub const EIO: Self = Self(5);
    /// Out of memory.
    pub const ENOMEM: Self = Self(12);
    /// The request breaks the protocol or the export's bounds.
    pub const EINVAL: Self = Self(22);
    /// No space left, or a write beyond the end.
    pub const ENOSPC: Self = Self(28);
    /// The reply would be larger than can be sent in one piece.
    pub const EOVERFLOW: Self = Self(75);
    /// A fast zero that would be a plain write.
    pub const ENOTSUP: Self = Self(95);
    /// The server is going away.
    pub const ESHUTDOWN: Self = Self(108);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::EPERM => f.write_str("operation not permitted"),
            Self::EIO => f.write_str("input/output error"),
            Self::ENOMEM => f.write_str("out of memory"),
            Self::EINVAL => f.write_str("invalid request"),
            Self::ENOSPC => f.write_str("no space left"),
            Self::EOVERFLOW => f.write_str("value too large"),
            Self::ENOTSUP => f.write_str("not supported"),
            Self::ESHUTDOWN => f.write_str("server is shutting down"),
            Self(other) => write!(f, "error {other}"),
        }
    }
}

impl std::error::Error for Errno {}

/// Bytes in the transmission phase that no peer may send. The connection cannot continue: where
/// the next message starts is no longer known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// A request does not start with its magic.
    #[error("request magic is {found:#010x}, expected {expected:#010x}")]
    RequestMagic {
        /// What came.
        found: u32,
        /// What had to come.
        expected: u32,
    },
    /// A reply starts with none of the two magics.
    #[error("reply magic {found:#010x} is neither a simple reply's nor a chunk's")]
    ReplyMagic {
        /// What came.
        found: u32,
    },
    /// A chunk's payload is too short or too long for its type.
    #[error("chunk of type {kind} has {found} bytes of payload, expected {expected} or more")]
    ChunkLength {
        /// The chunk's type.
        kind: u16,
        /// Bytes of payload found.
        found: u32,
        /// The least (or only) length that its type allows.
        expected: u32,
    },
    /// A chunk type that is neither known nor marked as an error.
    #[error("chunk type {found} is unknown")]
    ChunkKind {
        /// The type.
        found: u16,
    },
    /// A content chunk, hole or extent lies outside of what was asked for.
    #[error("chunk covers {length} bytes at {offset}, outside of the request")]
    ChunkRange {
        /// First byte that it covers.
        offset: u64,
        /// Bytes that it covers.
        length: u64,
    },
    /// An error chunk says that there was no error, or its message is longer than its chunk.
    #[error("error chunk contradicts itself")]
    ErrorChunk,
}

/// Why a handshake ended without a connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The first bytes are not an NBD server's.
    #[error("greeting is {found:#018x}, expected {expected:#018x}: not an NBD server")]
    Greeting {
        /// What came.
        found: u64,
        /// What had to come.
        expected: u64,
    },
    /// The server speaks the old handshake, which cannot name an export.
    #[error("the server speaks only the oldstyle handshake, which is not supported")]
    Oldstyle,
    /// The client set flags that were never offered.
    #[error("client flags {found:#010x} contain bits that were not offered")]
    ClientFlags {
        /// The flags.
        found: u32,
    },
    /// An option does not start with its magic.
    #[error("option magic is {found:#018x}, expected {expected:#018x}")]
    OptionMagic {
        /// What came.
        found: u64,
        /// What had to come.
        expected: u64,
    },
    /// An option reply does not start with its magic.
    #[error("option reply magic is {found:#018x}, expected {expected:#018x}")]
    ReplyMagic {
        /// What came.
        found: u64,
        /// What had to come.
        expected: u64,
    },
    /// A reply to another option than the one that was sent.
    #[error("reply is to option {found}, the option sent was {expected}")]
    ReplyOption {
        /// What came.
        found: u32,
        /// What had to come.
        expected: u32,
    },
    /// A reply whose type or length does not fit its option.
    #[error("reply of type {kind:#x} to option {option} with {length} bytes is malformed")]
    Reply {
        /// The option.
        option: u32,
        /// The reply's type.
        kind: u32,
        /// Bytes of its data.
        length: u32,
    },
    /// More options or replies than any honest peer sends.
    #[error("more than {limit} messages in one handshake")]
    TooLong {
        /// How many are allowed.
        limit: u32,
    },
    /// A client of the old newstyle sent something else than an export name.
    #[error("option {found} came without fixed newstyle, where only an export name may come")]
    NotFixed {
        /// The option.
        found: u32,
    },
    /// `EXPORT_NAME` asked for an export that does not exist; the protocol has no reply for it.
    #[error("no export of the name asked for")]
    UnknownExport,
    /// The server refused the export.
    #[error("server refused export `{export}`: {reason}")]
    Refused {
        /// The export asked for.
        export: String,
        /// The protocol's word for the error, and the server's own message if it sent one.
        reason: String,
    },
    /// The server acknowledged an export without describing it.
    #[error("server accepted the export without saying its size")]
    NoExportInfo,
    /// The server's block sizes break the rules of "Size constraints".
    #[error("block sizes minimum {minimum}, preferred {preferred}, maximum {maximum} are invalid")]
    BlockSizes {
        /// As sent.
        minimum: u32,
        /// As sent.
        preferred: u32,
        /// As sent.
        maximum: u32,
    },
}
