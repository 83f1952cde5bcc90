//! Tuples of a run of intervals, fast: what is the same in all of them is made once.
//!
//! A tuple is one or two big-endian words. The guard is at the top of the first, the reference tag at the
//! bottom of the last (see `tuple`); nothing else differs from interval to interval.

use crate::format::Format;
use crate::profile::Protection;
use crate::tuple::{TUPLE_BYTES_MAX, Tuple};

/// What the tuples of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    /// A tuple without guard and reference tag; the second word is 0 if there is one.
    words: [u64; 2],
    /// Bits that are checked, likewise.
    checked: [u64; 2],
    guard_shift: usize,
    /// Of interval 0.
    reference: u64,
    /// The bits of an interval's index that are added to it: none if it does not count.
    index_mask: u64,
    reference_mask: u64,
    has_two: bool,
}

impl Template {
    pub(crate) fn new(protection: &Protection) -> Self {
        let (format, checks) = (protection.format(), protection.checks());
        let expected = protection.expected();
        let all = |yes: bool, mask: u64| if yes { mask } else { 0 };
        let constant = Tuple { guard: 0, reference: 0, ..protection.tuple(0, 0) };
        let counts = protection.profile().kind.counts();
        // The order does not matter, and whether it leaves tags out neither: what disagrees is looked at
        // again.
        let checked = Tuple {
            guard: all(checks.guard, u64::MAX),
            application: if checks.application { expected.application_mask } else { 0 },
            storage: all(checks.storage, expected.storage_mask),
            reference: all(checks.reference && counts, u64::MAX),
        };
        Self {
            words: words(format, &constant),
            checked: words(format, &checked),
            guard_shift: 64 - 8 * format.guard().bytes(),
            reference: expected.reference,
            index_mask: if counts { u64::MAX } else { 0 },
            reference_mask: format.reference_mask(),
            has_two: format.tuple_bytes() == TUPLE_BYTES_MAX,
        }
    }

    /// Writes the tuples of the intervals from `index` on, with these `guards`, into their `blocks`.
    pub(crate) fn write(&self, index: u64, guards: &[u64], blocks: &mut [u8], places: Places) {
        let Places { stride, offset } = places;
        assert_eq!(blocks.len(), guards.len() * stride, "{WHOLE}");
        let intervals = guards.iter().zip(index..);
        if self.has_two {
            for (block, (guard, index)) in blocks.chunks_exact_mut(stride).zip(intervals) {
                *word_mut(block, offset) = self.high(*guard).to_be_bytes();
                *word_mut(block, offset + WORD) = self.low(index).to_be_bytes();
            }
        } else if stride == WORD {
            // Nothing but tuples: the compiler's vectors write several at once.
            for (tuple, (guard, index)) in blocks.as_chunks_mut().0.iter_mut().zip(intervals) {
                *tuple = self.only(index, *guard).to_be_bytes();
            }
        } else {
            for (block, (guard, index)) in blocks.chunks_exact_mut(stride).zip(intervals) {
                *word_mut(block, offset) = self.only(index, *guard).to_be_bytes();
            }
        }
    }

    /// Whether nothing that is checked is wrong with the tuples of the intervals from `index` on in their
    /// `blocks`. If so, [`Protection::check`] finds nothing either, unless escapes are errors; if not, it
    /// decides.
    pub(crate) fn agree(&self, index: u64, guards: &[u64], blocks: &[u8], places: Places) -> bool {
        let Places { stride, offset } = places;
        assert_eq!(blocks.len(), guards.len() * stride, "{WHOLE}");
        let intervals = guards.iter().zip(index..);
        let mut differ = [0; 2];
        if self.has_two {
            for (block, (guard, index)) in blocks.chunks_exact(stride).zip(intervals) {
                differ[0] |= u64::from_be_bytes(*word(block, offset)) ^ self.high(*guard);
                differ[1] |= u64::from_be_bytes(*word(block, offset + WORD)) ^ self.low(index);
            }
        } else if stride == WORD {
            for (tuple, (guard, index)) in blocks.as_chunks().0.iter().zip(intervals) {
                differ[0] |= u64::from_be_bytes(*tuple) ^ self.only(index, *guard);
            }
        } else {
            for (block, (guard, index)) in blocks.chunks_exact(stride).zip(intervals) {
                differ[0] |= u64::from_be_bytes(*word(block, offset)) ^ self.only(index, *guard);
            }
        }
        differ[0] & self.checked[0] | differ[1] & self.checked[1] == 0
    }

    /// The only word of a tuple that has one.
    fn only(&self, index: u64, guard: u64) -> u64 {
        self.high(guard) | self.reference_of(index)
    }

    /// The first of two.
    fn high(&self, guard: u64) -> u64 {
        self.words[0] | guard << self.guard_shift
    }

    /// The second.
    fn low(&self, index: u64) -> u64 {
        self.words[1] | self.reference_of(index)
    }

    fn reference_of(&self, index: u64) -> u64 {
        self.reference.wrapping_add(index & self.index_mask) & self.reference_mask
    }
}

/// Where tuples lie: one in every `stride` bytes, `offset` bytes into them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pub(crate) stride: usize,
    pub(crate) offset: usize,
}

fn word(block: &[u8], offset: usize) -> &[u8; WORD] {
    block[offset..].first_chunk().expect(WHOLE)
}

fn word_mut(block: &mut [u8], offset: usize) -> &mut [u8; WORD] {
    block[offset..].first_chunk_mut().expect(WHOLE)
}

const WHOLE: &str = "each guard has a block, and a block holds its tuple";
/// Bytes of a word.
const WORD: usize = 8;

fn words(format: &Format, tuple: &Tuple) -> [u64; 2] {
    let mut bytes = [0; TUPLE_BYTES_MAX];
    tuple.encode(format, &mut bytes[..format.tuple_bytes()]);
    let [high, low] = [0, 8].map(|from| bytes[from..].first_chunk().copied().unwrap_or_default());
    [u64::from_be_bytes(high), u64::from_be_bytes(low)]
}
