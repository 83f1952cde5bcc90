//! The flag fields of the protocol. Unknown bits are kept.

use std::ops::{BitOr, BitOrAssign};

/// Handshake flag: the server speaks fixed newstyle.
pub(crate) const FIXED_NEWSTYLE: u16 = 1;
/// Handshake flag: the server can leave out 124 zeroes.
pub(crate) const NO_ZEROES: u16 = 2;

/// What an export can do ("Transmission flags"), sent when it is chosen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TransmissionFlags(pub u16);

impl TransmissionFlags {
    /// Set always.
    pub const HAS_FLAGS: Self = Self(1);
    /// Writes are refused.
    pub const READ_ONLY: Self = Self(1 << 1);
    /// FLUSH is understood.
    pub const SEND_FLUSH: Self = Self(1 << 2);
    /// FUA is understood.
    pub const SEND_FUA: Self = Self(1 << 3);
    /// The medium turns.
    pub const ROTATIONAL: Self = Self(1 << 4);
    /// TRIM is understood.
    pub const SEND_TRIM: Self = Self(1 << 5);
    /// `WRITE_ZEROES` is understood.
    pub const SEND_WRITE_ZEROES: Self = Self(1 << 6);
    /// The DF flag of a READ is understood. Only with structured replies.
    pub const SEND_DF: Self = Self(1 << 7);
    /// A flush on one connection covers the writes completed on all.
    pub const CAN_MULTI_CONN: Self = Self(1 << 8);
    /// CACHE is understood.
    pub const SEND_CACHE: Self = Self(1 << 10);
    /// `FAST_ZERO` is understood.
    pub const SEND_FAST_ZERO: Self = Self(1 << 11);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for TransmissionFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TransmissionFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How a request wants to be carried out ("Command flags").
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CommandFlags(pub u16);

impl CommandFlags {
    /// No flags.
    pub const NONE: Self = Self(0);
    /// Durable before the reply.
    pub const FUA: Self = Self(1);
    /// `WRITE_ZEROES`: keep the space allocated.
    pub const NO_HOLE: Self = Self(1 << 1);
    /// READ: at most one content chunk.
    pub const DF: Self = Self(1 << 2);
    /// `BLOCK_STATUS`: exactly one extent per context.
    pub const REQ_ONE: Self = Self(1 << 3);
    /// `WRITE_ZEROES`: fail rather than write zeroes the slow way.
    pub const FAST_ZERO: Self = Self(1 << 4);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same without the bits of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for CommandFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_bits_of_the_protocol() {
        assert_eq!(TransmissionFlags::SEND_FAST_ZERO.0, 0x800);
        assert_eq!(TransmissionFlags::CAN_MULTI_CONN.0, 0x100);
        assert_eq!(CommandFlags::FAST_ZERO.0, 0x10);
        let both = TransmissionFlags::SEND_DF | TransmissionFlags::HAS_FLAGS;
        assert!(both.contains(TransmissionFlags::SEND_DF));
        assert_eq!(both.without(TransmissionFlags::SEND_DF), TransmissionFlags::HAS_FLAGS);
    }
}
