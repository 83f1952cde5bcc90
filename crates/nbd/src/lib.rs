//! The NBD wire protocol, both sides, as a pure codec.
//!
//! ```text
//!   server                                    client
//!     | -- NBDMAGIC IHAVEOPT handshake flags -> |     handshake: [`ServerHandshake`],
//!     | <- client flags ----------------------- |                [`ClientHandshake`]
//!     | <- option, data ----------------------- |
//!     | -- option replies --------------------> |     ... until GO or EXPORT_NAME succeeds
//!     |                                         |
//!     | <- request [payload] ------------------ |     transmission: [`Request`]
//!     | -- simple reply or chunks ------------> |                   [`reply`]
//! ```
//!
//! Everything here is bytes to meaning and back: nothing waits, nothing reads a socket, nothing
//! trusts a length. The source is the public protocol text (`doc/proto.md` and `doc/uri.md` of
//! NetworkBlockDevice/nbd); section names below are that text's. All integers are big-endian.
//!
//! The subset: fixed newstyle only, no TLS, no extended headers, no resize. What is left out is
//! refused by the error that the protocol gives for it, never by silence.

#![forbid(unsafe_code)]

mod client;
mod error;
mod export;
mod flags;
mod option;
pub mod reply;
mod request;
mod server;
mod uri;

pub use client::{ClientHandshake, ClientNegotiated, ClientStep};
pub use error::{Errno, HandshakeError, WireError};
pub use export::{BlockSizes, Export};
pub use flags::{CommandFlags, TransmissionFlags};
pub use option::OPTION_DATA_MAX;
pub use request::{Command, Request};
pub use server::{
    SelectedContext, ServerHandshake, ServerNegotiated, ServerNext, ServerStep, server_handshake,
};
pub use uri::{Uri, UriError};

/// Bytes in the longest name or message that the protocol allows ("Values", strings).
pub const STRING_MAX: usize = 4096;

/// Bytes in the largest payload of one request or reply that we offer and accept: what "Size
/// constraints" calls portable.
pub const PAYLOAD_MAX: u32 = 32 << 20;

/// The TCP port that IANA reserves for NBD.
pub const DEFAULT_PORT: u16 = 10809;

/// The metadata context that tells holes and zeroes from data.
pub const CONTEXT_ALLOCATION: &str = "base:allocation";

/// Our own metadata context: 0 where the range verified or nothing is known, [`STATE_UNREADABLE`]
/// where a verified read of it fails.
pub const CONTEXT_INTEGRITY: &str = "steadfast:integrity";

/// `base:allocation`: nothing is allocated there.
pub const STATE_HOLE: u32 = 1;
/// `base:allocation`: it reads as zeroes.
pub const STATE_ZERO: u32 = 2;
/// `steadfast:integrity`: a read of it gives an error.
pub const STATE_UNREADABLE: u32 = 1;
