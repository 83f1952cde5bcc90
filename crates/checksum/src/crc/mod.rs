//! The cyclic redundancy checks: a register, what moves it, and how to move it back.

mod backwards;
mod flipped;
pub(crate) mod polynomial;

pub use backwards::SaltRegister;
pub(crate) use flipped::flipped_bit;
pub(crate) use polynomial::{Castagnoli, Ieee, Polynomial};

use crate::hash::{Blocks, Hash};
use crate::simd;
use std::marker::PhantomData;

/// A CRC in the making.
#[derive(Clone, Copy)]
pub(crate) struct Crc<P> {
    register: u32,
    polynomial: PhantomData<P>,
}

impl<P: Polynomial> Crc<P> {
    /// Nothing fed yet.
    pub(crate) const fn new() -> Self {
        Self::at(P::MASK)
    }

    /// Goes on from `register`.
    pub(crate) const fn at(register: u32) -> Self {
        Self { register, polynomial: PhantomData }
    }

    /// The bare register.
    pub(crate) const fn register(self) -> u32 {
        self.register
    }
}

impl<P: Polynomial> Hash for Crc<P> {
    type Digest = [u8; 4];

    fn update(&mut self, bytes: &[u8]) {
        self.register = simd::feed::<P>(self.register, bytes);
    }

    fn finish(self) -> [u8; 4] {
        (self.register ^ P::MASK).to_le_bytes()
    }

    fn each_tag(
        &self,
        blocks: Blocks<'_>,
        mut each: impl FnMut(&[u8; 4]) -> bool,
    ) -> Option<usize> {
        simd::each_register::<P>(simd::Level::best(), self.register, blocks, |register| {
            each(&(register ^ P::MASK).to_le_bytes())
        })
    }
}

/// CRC-32C of `bytes`: Castagnoli, reflected, all ones at the start, inverted at the end.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = Crc::<Castagnoli>::new();
    crc.update(bytes);
    u32::from_le_bytes(crc.finish())
}

/// The bare register of a CRC-32C after `bytes`, which was `register` before them: neither set to ones at the
/// start nor inverted at the end. Parts of a message can be fed one after the other.
#[must_use]
pub fn crc32c_register(register: u32, bytes: &[u8]) -> u32 {
    let mut crc = Crc::<Castagnoli>::at(register);
    crc.update(bytes);
    crc.register()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn published_vectors_of_crc32c_hold() {
        // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&up), 0x46DD_794E);
        assert_eq!(crc32c(&down), 0x113F_DB5C);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(b""), 0);
        let parts = crc32c_register(crc32c_register(u32::MAX, b"1234"), b"56789");
        assert_eq!(parts, !0xE306_9283);
    }

    #[test]
    fn inverted_at_both_ends_the_ieee_register_is_the_catalogues_crc32() {
        // The check value of CRC-32/ISO-HDLC.
        let mut crc = Crc::<Ieee>::at(u32::MAX);
        crc.update(b"123456789");
        assert_eq!(!crc.register(), 0xCBF4_3926);
    }

    fn pieces_make_the_whole<P: Polynomial>(bytes: &[u8], cuts: &[usize]) {
        let (mut crc, mut whole) = (Crc::<P>::new(), Crc::<P>::new());
        let mut from = 0;
        for &cut in cuts {
            crc.update(&bytes[from..cut]);
            from = cut;
        }
        crc.update(&bytes[from..]);
        whole.update(bytes);
        assert_eq!(crc.finish(), whole.finish());
    }

    proptest! {
        #[test]
        fn a_crc_may_be_fed_in_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            pieces_make_the_whole::<Castagnoli>(&bytes, &cuts);
            pieces_make_the_whole::<Ieee>(&bytes, &cuts);
        }
    }
}
