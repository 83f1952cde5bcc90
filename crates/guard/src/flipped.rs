//! Which bit of an interval was turned.

use crate::Guard;
use crate::polynomial::{CRC16, CRC32C, CRC64};

impl Guard {
    /// The one bit of `bytes` bytes which, turned, takes their guard from `computed` to `stored`: bit `n % 8`
    /// of byte `n / 8`. None: no bit does, or more than one, or the kind does not tell which (the checksum of
    /// IP does not; CRC-16 does up to 65535 bits).
    ///
    /// That one bit explains it is no proof. Of intervals of 512 bytes with arbitrary damage so many look so:
    /// one of 2^4 to CRC-16, of 2^20 to CRC-32C, of 2^52 to CRC-64.
    #[must_use]
    pub fn flipped_bit(self, stored: u64, computed: u64, bytes: usize) -> Option<usize> {
        let polynomial = match self {
            Self::Crc16 => &CRC16,
            Self::Crc32c => &CRC32C,
            Self::Crc64 => &CRC64,
            Self::Ip => return None,
        };
        polynomial.flipped_bit(stored ^ computed, bytes)
    }
}
