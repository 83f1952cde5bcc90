//! A guard of bytes that come in pieces of any length.

use crate::{Guard, ip, simd};

/// A guard under way. Copying it keeps a place to come back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Running {
    guard: Guard,
    /// The CRC's register, or the sum.
    register: u64,
    /// The next byte is the second of a 16-bit word; only the checksum of IP cares.
    odd: bool,
}

impl Running {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new(guard: Guard) -> Self {
        let register = match guard {
            Guard::Crc16 | Guard::Ip => 0,
            Guard::Crc32c => u32::MAX as u64,
            Guard::Crc64 => u64::MAX,
        };
        Self { guard, register, odd: false }
    }

    /// The same from another register than the standard's: the "guard seed" of some hosts. Only the low
    /// bits count, as many as the guard has.
    #[must_use]
    pub const fn seeded(guard: Guard, seed: u64) -> Self {
        let bits = 8 * guard.bytes();
        Self { guard, register: seed & (u64::MAX >> (64 - bits)), odd: false }
    }

    /// The kind.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.guard
    }

    /// Takes the next `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.register = if self.odd {
            ip::fold(self.register + ip::swapped(simd::feed(self.guard, 0, data)))
        } else {
            simd::feed(self.guard, self.register, data)
        };
        self.odd ^= self.guard == Guard::Ip && data.len() % 2 == 1;
    }

    /// The guard of what was seen.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.finished(self.register)
    }

    pub(crate) const fn register(&self) -> u64 {
        self.register
    }

    /// The guard that another register of the same kind stands for.
    pub(crate) const fn finished(&self, register: u64) -> u64 {
        match self.guard {
            Guard::Crc16 => register,
            Guard::Ip => !ip::fold(register) & 0xffff,
            Guard::Crc32c => !register & 0xffff_ffff,
            Guard::Crc64 => !register,
        }
    }
}
