//! A guard when a part of its interval changes, without reading the rest.

use crate::polynomial::{CRC16, CRC32C, CRC64, Polynomial};
use crate::{Guard, ip, simd};

impl Guard {
    /// The guard of an interval whose guard was `guard`, when the bytes `old` become `new` and `behind`
    /// bytes follow them in the interval. Only as right as `guard` and `old` are: whoever has not
    /// verified them launders.
    ///
    /// None where the old guard does not tell: the checksum of IP writes the sums of an interval that is
    /// all zeroes and of one that only sums up to zero differently, and cannot know which one it became;
    /// nor, if it was one of them, whether it was the right one.
    ///
    /// # Panics
    /// If `old` and `new` differ in length.
    #[must_use]
    pub fn updated(self, guard: u64, old: &[u8], new: &[u8], behind: usize) -> Option<u64> {
        assert_eq!(old.len(), new.len(), "bytes are replaced, not inserted");
        let crc = |polynomial: &Polynomial| {
            let change = simd::feed(self, 0, old) ^ simd::feed(self, 0, new);
            Some(guard ^ polynomial.feed_zeroes(change, behind))
        };
        match self {
            Self::Crc16 => crc(&CRC16),
            Self::Crc32c => crc(&CRC32C),
            Self::Crc64 => crc(&CRC64),
            Self::Ip => {
                // Words are counted from the interval's start; intervals have an even length.
                let at_odd = (old.len() + behind) % 2 == 1;
                let sum = |data| {
                    let sum = simd::feed(self, 0, data);
                    if at_odd { ip::swapped(sum) } else { sum }
                };
                let without = 0xffff - sum(old);
                let sum = ip::fold((!guard & 0xffff) + without + sum(new));
                let is_zero = |sum: u64| sum.is_multiple_of(0xffff);
                (!is_zero(guard) && !is_zero(sum)).then_some(!sum & 0xffff)
            }
        }
    }
}
