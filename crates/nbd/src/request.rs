//! Requests: 28 bytes that ask for one thing, and the rules by which they are refused.
//!
//! ```text
//!    0        4      6      8                16               24       28
//!    +--------+------+------+----------------+----------------+--------+
//!    | magic  |flags | type |     cookie     |     offset     | length |  payload if a WRITE
//!    +--------+------+------+----------------+----------------+--------+
//! ```

use crate::PAYLOAD_MAX;
use crate::error::{Errno, WireError};
use crate::flags::{CommandFlags, TransmissionFlags};
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a request asks for ("Request types").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Bytes, please.
    Read,
    /// Here are bytes; `length` bytes of payload follow the request.
    Write,
    /// Goodbye; no reply.
    Disconnect,
    /// Every write that was answered becomes durable.
    Flush,
    /// The range is no longer needed.
    Trim,
    /// The range will be needed soon.
    Cache,
    /// The range becomes zeroes.
    WriteZeroes,
    /// What is known about the range.
    BlockStatus,
    /// Anything else, by its number.
    Unknown(u16),
}

impl Command {
    /// From the number on the wire.
    #[must_use]
    pub const fn decode(number: u16) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn encode(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::Cache => 5,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
            Self::Unknown(other) => other,
        }
    }

    /// Whether it changes the export.
    #[must_use]
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::Trim | Self::WriteZeroes)
    }
}

/// One request, without its payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// How.
    pub flags: CommandFlags,
    /// What.
    pub command: Command,
    /// The client's own number for it, returned in every reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

impl Request {
    /// Bytes on the wire.
    pub const BYTES: usize = size_of::<Raw>();

    /// From its bytes.
    ///
    /// # Errors
    /// [`WireError::RequestMagic`]: the stream has lost its frame, nothing after this can be read.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, WireError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.magic.get() != MAGIC {
            return Err(WireError::RequestMagic { found: raw.magic.get(), expected: MAGIC });
        }
        Ok(Self {
            flags: CommandFlags(raw.flags.get()),
            command: Command::decode(raw.command.get()),
            cookie: raw.cookie.get(),
            offset: raw.offset.get(),
            length: raw.length.get(),
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        zerocopy::transmute!(Raw {
            magic: MAGIC.into(),
            flags: self.flags.0.into(),
            command: self.command.encode().into(),
            cookie: self.cookie.into(),
            offset: self.offset.into(),
            length: self.length.into(),
        })
    }

    /// Bytes of payload that follow it on the wire.
    #[must_use]
    pub const fn payload(&self) -> u32 {
        match self.command {
            Command::Write => self.length,
            _ => 0,
        }
    }

    /// Whether an export of `size` bytes and these `flags` carries it out at all.
    ///
    /// # Errors
    /// The error that "Error values" names for each case. An export without metadata contexts
    /// chosen refuses `BLOCK_STATUS`.
    pub fn check(
        &self,
        size: u64,
        flags: TransmissionFlags,
        contexts_chosen: bool,
    ) -> Result<(), Errno> {
        // FUA is to be accepted with every command; clients exist that set it everywhere.
        let allowed = match self.command {
            Command::Read if flags.contains(TransmissionFlags::SEND_DF) => CommandFlags::DF,
            Command::WriteZeroes if flags.contains(TransmissionFlags::SEND_FAST_ZERO) => {
                CommandFlags::NO_HOLE | CommandFlags::FAST_ZERO
            }
            Command::WriteZeroes => CommandFlags::NO_HOLE,
            Command::BlockStatus => CommandFlags::REQ_ONE,
            _ => CommandFlags::NONE,
        };
        if self.flags.without(allowed | CommandFlags::FUA) != CommandFlags::NONE {
            return Err(Errno::EINVAL);
        }
        match self.command {
            Command::Unknown(_) => return Err(Errno::EINVAL),
            Command::BlockStatus if !contexts_chosen || self.length == 0 => {
                return Err(Errno::EINVAL);
            }
            Command::Flush if self.offset != 0 || self.length != 0 => return Err(Errno::EINVAL),
            _ => {}
        }
        if self.command.is_write() && flags.contains(TransmissionFlags::READ_ONLY) {
            return Err(Errno::EPERM);
        }
        let inside = self.offset.checked_add(self.length.into()).is_some_and(|end| end <= size);
        match self.command {
            Command::Write | Command::WriteZeroes if !inside => Err(Errno::ENOSPC),
            _ if !inside => Err(Errno::EINVAL),
            Command::Read if self.length > PAYLOAD_MAX => Err(Errno::EOVERFLOW),
            Command::Write if self.length > PAYLOAD_MAX => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }
}

/// As it travels.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: U32,
    flags: U16,
    command: U16,
    cookie: U64,
    offset: U64,
    length: U32,
}

const _: () = assert!(size_of::<Raw>() == 28);

const MAGIC: u32 = 0x2560_9513;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: TransmissionFlags = TransmissionFlags(0x0ffd);

    fn request(command: Command, offset: u64, length: u32) -> Request {
        Request { flags: CommandFlags::NONE, command, cookie: 7, offset, length }
    }

    #[test]
    fn a_request_is_28_big_endian_bytes() {
        let bytes = Request {
            flags: CommandFlags::FUA,
            command: Command::Write,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1112_1314_1516_1718,
            length: 0x2122_2324,
        }
        .encode();
        assert_eq!(
            bytes,
            [
                0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14,
                0x15, 0x16, 0x17, 0x18, 0x21, 0x22, 0x23, 0x24
            ]
        );
    }

    #[test]
    fn a_lost_frame_is_noticed_by_its_magic() {
        let mut bytes = request(Command::Read, 0, 512).encode();
        bytes[3] ^= 1;
        assert_eq!(
            Request::decode(&bytes),
            Err(WireError::RequestMagic { found: 0x2560_9512, expected: MAGIC })
        );
    }

    #[test]
    fn the_end_of_the_export_is_the_end() {
        let check =
            |command, offset, length| request(command, offset, length).check(4096, ALL, true);
        assert_eq!(check(Command::Read, 4095, 1), Ok(()));
        assert_eq!(check(Command::Read, 4095, 2), Err(Errno::EINVAL));
        assert_eq!(check(Command::Read, u64::MAX, 2), Err(Errno::EINVAL));
        assert_eq!(check(Command::Write, 4096, 1), Err(Errno::ENOSPC));
        assert_eq!(check(Command::WriteZeroes, 0, u32::MAX), Err(Errno::ENOSPC));
        assert_eq!(check(Command::Trim, 1, 4096), Err(Errno::EINVAL));
        assert_eq!(check(Command::Flush, 0, 0), Ok(()));
        assert_eq!(check(Command::Flush, 1, 0), Err(Errno::EINVAL));
        assert_eq!(check(Command::BlockStatus, 0, 0), Err(Errno::EINVAL));
    }

    #[test]
    fn payloads_end_at_32_mib_and_effects_do_not() {
        let check = |command, length| request(command, 0, length).check(1 << 40, ALL, true);
        assert_eq!(check(Command::Read, PAYLOAD_MAX), Ok(()));
        assert_eq!(check(Command::Read, PAYLOAD_MAX + 1), Err(Errno::EOVERFLOW));
        assert_eq!(check(Command::Write, PAYLOAD_MAX + 1), Err(Errno::EINVAL));
        for command in [Command::Trim, Command::WriteZeroes, Command::Cache, Command::BlockStatus] {
            assert_eq!(check(command, u32::MAX), Ok(()), "{command:?}");
        }
    }

    #[test]
    fn a_read_only_export_permits_no_change() {
        let flags = ALL | TransmissionFlags::READ_ONLY;
        for command in [Command::Write, Command::Trim, Command::WriteZeroes] {
            assert_eq!(request(command, 0, 512).check(4096, flags, true), Err(Errno::EPERM));
        }
        for command in [Command::Read, Command::Cache, Command::BlockStatus] {
            assert_eq!(request(command, 0, 512).check(4096, flags, true), Ok(()));
        }
    }

    #[test]
    fn each_command_takes_only_its_own_flags() {
        let ok = |command, flags| {
            Request { flags, ..request(command, 0, 512) }.check(4096, ALL, true).is_ok()
        };
        for bit in 0..16 {
            let flag = CommandFlags(1 << bit);
            let fua = flag == CommandFlags::FUA;
            let zero = flag == CommandFlags::NO_HOLE || flag == CommandFlags::FAST_ZERO;
            assert_eq!(ok(Command::Read, flag), fua || flag == CommandFlags::DF);
            assert_eq!(ok(Command::Write, flag), fua);
            assert_eq!(ok(Command::Trim, flag), fua);
            assert_eq!(ok(Command::Cache, flag), fua);
            assert_eq!(ok(Command::WriteZeroes, flag), fua || zero);
            assert_eq!(ok(Command::BlockStatus, flag), fua || flag == CommandFlags::REQ_ONE);
        }
    }

    #[test]
    fn flags_that_were_not_offered_are_refused() {
        let bare = TransmissionFlags::HAS_FLAGS;
        let df = Request { flags: CommandFlags::DF, ..request(Command::Read, 0, 512) };
        assert_eq!(df.check(4096, bare, false), Err(Errno::EINVAL));
        let status = request(Command::BlockStatus, 0, 512);
        assert_eq!(status.check(4096, ALL, false), Err(Errno::EINVAL));
    }

    proptest! {
        #[test]
        fn what_was_encoded_decodes(
            flags: u16, command: u16, cookie: u64, offset: u64, length: u32,
        ) {
            let command = Command::decode(command);
            let request =
                Request { flags: CommandFlags(flags), command, cookie, offset, length };
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }

        #[test]
        fn any_bytes_decode_or_name_their_magic(bytes: [u8; 28], size: u64, flags: u16) {
            if let Ok(request) = Request::decode(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
                let _ = request.check(size, TransmissionFlags(flags), true);
            }
        }

        #[test]
        fn what_passes_lies_inside(
            command in 0u16..9, offset: u64, length: u32, size: u64, flags in 0u16..32,
        ) {
            let command = Command::decode(command);
            let request =
                Request { flags: CommandFlags(flags), command, cookie: 0, offset, length };
            if request.check(size, ALL, true).is_ok() {
                prop_assert!(u128::from(offset) + u128::from(length) <= u128::from(size));
            }
        }
    }
}
