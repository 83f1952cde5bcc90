//! The checksum of IP: a ones' complement sum of 16-bit words (RFC 1071).
//!
//! The sum does not depend on byte order: words are summed as they are read, and the bytes of the result
//! stand as they would have. So it is made of little-endian words, and its bytes change places at the end:
//! tuples store the sum of big-endian ones, big-endian. Wider words carry their 16-bit parts along.

/// The sum of `data`, which starts at an even byte of the interval; a last odd byte counts as if a zero
/// byte followed.
pub(crate) fn sum(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut sum = fold(u64::from_le_bytes(last));
    for words in words.chunks(WORDS_MAX) {
        // The sum of the high halves, and of the words without what does not fit, which is that of the low
        // halves, too: two additions and a shift a word.
        let (mut total, mut high_halves) = (0_u64, 0);
        for word in words {
            let word = u64::from_le_bytes(*word);
            total = total.wrapping_add(word);
            high_halves += word >> 32;
        }
        let low_halves = total.wrapping_sub(high_halves << 32);
        sum += fold(low_halves) + fold(high_halves);
    }
    swapped(sum)
}

/// The sum in 16 bits, carries added back: each half is added to the other, so that the carry of the lower
/// one is where it belongs, in the upper one.
pub(crate) const fn fold(sum: u64) -> u64 {
    let sum = sum.wrapping_add(sum.rotate_left(32)) >> 32;
    (sum + (sum << 16 | sum >> 16)) >> 16 & 0xffff
}

/// The sum of the same bytes, had they started at an odd one, or of words of the other byte order.
pub(crate) const fn swapped(sum: u64) -> u64 {
    let sum = fold(sum);
    (sum << 8 | sum >> 8) & 0xffff
}

/// All low or all high halves of so many words have a sum that 64 bits hold.
const WORDS_MAX: usize = 1 << 31;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn folding_adds_carries_back_until_there_are_none(sum: u64, few in 0_u64..0x30000) {
            for sum in [sum, few, !few, sum >> 31, 0xffff_ffff, 0xffff_0000_0000, u64::MAX] {
                let mut left = sum;
                while left > 0xffff {
                    left = (left & 0xffff) + (left >> 16);
                }
                prop_assert_eq!(fold(sum), left, "{:#x}", sum);
            }
        }
    }
}
