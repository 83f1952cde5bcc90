//! The checksum of IP: a ones' complement sum of 16-bit words (RFC 1071).
//!
//! The sum does not depend on byte order: words are summed as they are read, and the bytes of the result
//! stand as they would have. So it is made of little-endian words, and its bytes change places at the end:
//! tuples store the sum of big-endian ones, big-endian. Wider words carry their 16-bit parts along.
//!
//! These loops are written for the compiler to make vectors of, of whatever the function around them
//! switches on (`simd`): adding them up takes less than loading them.

/// The sum of `data`, which starts at an even byte of the interval; a last odd byte counts as if a zero
/// byte followed.
#[inline(always)]
pub(crate) fn sum(data: &[u8]) -> u64 {
    let (words, rest) = data.as_chunks();
    let mut sum = last(rest);
    for words in words.chunks(WORDS_MAX) {
        let mut sums = Sums::default();
        for word in words {
            sums.add(*word);
        }
        sum += sums.folded();
    }
    swapped(sum)
}

/// The same, and `source` is copied to `target`.
///
/// # Panics
/// If they differ in length.
#[inline(always)]
pub(crate) fn sum_copied(source: &[u8], target: &mut [u8]) -> u64 {
    assert_eq!(source.len(), target.len(), "a copy has a place");
    let (words, rest) = source.as_chunks();
    let (places, place) = target.as_chunks_mut();
    place.copy_from_slice(rest);
    let mut sum = last(rest);
    for (words, places) in words.chunks(WORDS_MAX).zip(places.chunks_mut(WORDS_MAX)) {
        let mut sums = Sums::default();
        for (word, place) in words.iter().zip(places) {
            *place = *word;
            sums.add(*word);
        }
        sum += sums.folded();
    }
    swapped(sum)
}

/// The sum in 16 bits, carries added back.
pub(crate) const fn fold(sum: u64) -> u64 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32); // 33 bits
    let sum = (sum & 0xffff) + (sum >> 16); // 18 bits
    let sum = (sum & 0xffff) + (sum >> 16); // 0x10002 at most
    (sum & 0xffff) + (sum >> 16)
}

/// The sum of the same bytes, had they started at an odd one, or of words of the other byte order.
pub(crate) const fn swapped(sum: u64) -> u64 {
    let sum = fold(sum);
    (sum << 8 | sum >> 8) & 0xffff
}

/// The sums of the high halves of 64-bit words, and of the words, without what does not fit: so the sum of
/// the low halves is known, too, for two additions and a shift a word.
#[derive(Clone, Copy, Default)]
struct Sums {
    words: u64,
    high_halves: u64,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, word: [u8; 8]) {
        let word = u64::from_le_bytes(word);
        self.words = self.words.wrapping_add(word);
        self.high_halves += word >> 32;
    }

    #[inline(always)]
    fn folded(self) -> u64 {
        let low_halves = self.words.wrapping_sub(self.high_halves << 32);
        fold(low_halves) + fold(self.high_halves)
    }
}

/// The word that fewer than eight bytes begin.
#[inline(always)]
fn last(rest: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    fold(u64::from_le_bytes(word))
}

/// Halves of so many words have a sum that 64 bits hold.
const WORDS_MAX: usize = 1 << 31;
