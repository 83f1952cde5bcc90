//! Fuzz input as a stream of small numbers.
//!
//! Where a format has checksums or commit ids, arbitrary bytes never get past them. Such targets
//! build something sound and let the input damage it.

/// Takes numbers from the front of the input; past its end they are zero.
#[derive(Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// Four bytes, little-endian.
    pub fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next bytes, as many as asked for.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let count = N.min(self.0.len());
        let (front, rest) = self.0.split_at(count);
        taken[..count].copy_from_slice(front);
        self.0 = rest;
        taken
    }
}

/// One bit of `bytes`, chosen by `number`, is flipped; returns the byte's index.
pub fn flip(bytes: &mut [u8], number: u32) -> usize {
    let index = units::usize_of(u64::from(number >> 3)) % bytes.len();
    bytes[index] ^= 1 << (number & 7);
    index
}
