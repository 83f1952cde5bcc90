//! CRC-32C of byte strings of any length.

use crate::simd;

/// A CRC-32C in the making.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Crc32c {
    register: u32,
}

impl Crc32c {
    /// Nothing fed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { register: u32::MAX }
    }

    /// Feeds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.register = simd::feed(self.register, bytes);
    }

    /// The checksum of all that was fed; more may follow.
    #[must_use]
    pub const fn finish(self) -> u32 {
        !self.register
    }

    /// The bare register, for kernels that go on from it.
    pub(crate) const fn register(self) -> u32 {
        self.register
    }
}

impl Default for Crc32c {
    fn default() -> Self {
        Self::new()
    }
}

/// CRC-32C of `bytes`: Castagnoli, reflected, all ones at the start, inverted at the end.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(bytes);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn published_vectors_hold() {
        // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&up), 0x46DD_794E);
        assert_eq!(crc32c(&down), 0x113F_DB5C);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut crc, mut from) = (Crc32c::default(), 0);
            for cut in cuts {
                crc.update(&bytes[from..cut]);
                from = cut;
            }
            crc.update(&bytes[from..]);
            prop_assert_eq!(crc.finish(), crc32c(&bytes));
        }
    }
}
