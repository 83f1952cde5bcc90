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

    /// Writes the tuple of interval `index` with that guard to `bytes`, of which there are as many as it has.
    pub(crate) fn write(&self, index: u64, guard: u64, bytes: &mut [u8]) {
        let [first, second] = self.filled(index, guard);
        let (words, _) = bytes.as_chunks_mut();
        match words {
            [only] if !self.has_two => *only = first.to_be_bytes(),
            [high, low] if self.has_two => {
                (*high, *low) = (first.to_be_bytes(), second.to_be_bytes());
            }
            _ => panic!("a tuple's bytes are all there"),
        }
    }

    /// Whether nothing that is checked is wrong with the tuple of interval `index` in `bytes`. If so, [`Protection::check`]
    /// finds nothing either, unless escapes are errors; if not, it decides.
    pub(crate) fn agrees(&self, index: u64, guard: u64, bytes: &[u8]) -> bool {
        let filled = self.filled(index, guard);
        let differ = |word: usize, bytes: &[u8; 8]| {
            (u64::from_be_bytes(*bytes) ^ filled[word]) & self.checked[word] != 0
        };
        let (words, _) = bytes.as_chunks();
        match words {
            [only] if !self.has_two => !differ(0, only),
            [high, low] if self.has_two => !differ(0, high) && !differ(1, low),
            _ => panic!("a tuple's bytes are all there"),
        }
    }

    fn filled(&self, index: u64, guard: u64) -> [u64; 2] {
        let reference = self.reference.wrapping_add(index & self.index_mask) & self.reference_mask;
        let first = guard << self.guard_shift;
        let [high, low] = self.words;
        if self.has_two { [high | first, low | reference] } else { [high | first | reference, 0] }
    }
}

fn words(format: &Format, tuple: &Tuple) -> [u64; 2] {
    let mut bytes = [0; TUPLE_BYTES_MAX];
    tuple.encode(format, &mut bytes[..format.tuple_bytes()]);
    let [high, low] = [0, 8].map(|from| bytes[from..].first_chunk().copied().unwrap_or_default());
    [u64::from_be_bytes(high), u64::from_be_bytes(low)]
}
