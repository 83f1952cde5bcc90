//! What is known about the truth of parity, row by row.
//!
//! A *row* is a sector of every member at the same address: data and its parity. Rows are numbered
//! as the members' sectors. Nothing here does I/O.
//!
//! ```text
//!   0                     position                             end
//!   |---- in sync ------------|-- not known -----[proven]-------|      of an array found dirty
//!          [torn]  [inconsistent]                                       exceptions, anywhere
//! ```
//!
//! - *proven*: beyond the position, but parity was since computed from all of the data.
//! - *torn*: parity is known not to belong to the data, and could not be made to: a data block of
//!   the row was lost before a sibling was written. The array stays dirty on disk meanwhile.
//! - *inconsistent*: all tags valid, parity disagrees, and no unfinished write explains it.
//!
//! Only a row that is in sync and none of the exceptions may give back a block that nothing else
//! vouches for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;

/// Entries that `proven` may have: beyond, rows are forgotten, which only makes reads stricter.
const PROVEN_MAX: usize = 1 << 18;

/// The state of all rows.
pub(super) struct Rows {
    /// Rows from here on are not known to be in sync; none: all are.
    position: Cell<Option<u64>>,
    proven: RefCell<RangeSet>,
    torn: RefCell<RangeSet>,
    inconsistent: RefCell<RangeSet>,
}

impl Rows {
    pub(super) fn new(position: Option<u64>) -> Self {
        Self {
            position: Cell::new(position),
            proven: RefCell::default(),
            torn: RefCell::default(),
            inconsistent: RefCell::default(),
        }
    }

    /// Up to where the array is in sync; none: everywhere.
    pub(super) fn position(&self) -> Option<u64> {
        self.position.get()
    }

    /// The resync came so far; none: to the end.
    pub(super) fn set_position(&self, position: Option<u64>) {
        self.position.set(position);
        self.proven.borrow_mut().remove(0..position.unwrap_or(u64::MAX));
    }

    /// Whether parity of `rows` may be believed without another witness.
    pub(super) fn in_sync(&self, rows: &Range<u64>) -> bool {
        !self.is_unfinished(rows) && !self.is_inconsistent(rows)
    }

    /// Whether an unfinished write may be the reason for parity to disagree, so that it is right
    /// to make it anew from the data.
    pub(super) fn is_unfinished(&self, rows: &Range<u64>) -> bool {
        if self.torn.borrow().overlaps(rows) {
            return true;
        }
        match self.position.get() {
            Some(position) if rows.end > position => {
                !self.proven.borrow().contains(&(rows.start.max(position)..rows.end))
            }
            _ => false,
        }
    }

    pub(super) fn is_inconsistent(&self, rows: &Range<u64>) -> bool {
        self.inconsistent.borrow().overlaps(rows)
    }

    pub(super) fn is_torn(&self, rows: &Range<u64>) -> bool {
        self.torn.borrow().overlaps(rows)
    }

    /// Whether parity of some row is known not to belong to its data.
    pub(super) fn any_torn(&self) -> bool {
        !self.torn.borrow().is_empty()
    }

    /// The first row whose parity does not belong to its data.
    pub(super) fn first_torn(&self) -> Option<u64> {
        self.torn.borrow().first()
    }

    /// Parity of `rows` was computed from all of the data and stored.
    pub(super) fn made_true(&self, rows: Range<u64>) {
        self.torn.borrow_mut().remove(rows.clone());
        self.inconsistent.borrow_mut().remove(rows.clone());
        let Some(position) = self.position.get() else { return };
        let mut proven = self.proven.borrow_mut();
        if rows.end > position && proven.len() < PROVEN_MAX {
            proven.insert(rows.start.max(position)..rows.end);
        }
    }

    /// Parity of `rows` does not belong to the data any more.
    pub(super) fn tear(&self, rows: Range<u64>) {
        self.proven.borrow_mut().remove(rows.clone());
        self.torn.borrow_mut().insert(rows);
    }

    /// Nobody knows which part of `rows` is right. Whether that is news.
    pub(super) fn doubt(&self, rows: Range<u64>) -> bool {
        let mut inconsistent = self.inconsistent.borrow_mut();
        let news = !inconsistent.contains(&rows);
        inconsistent.insert(rows);
        news
    }

    /// `rows` were compared and parity agrees.
    pub(super) fn agreed(&self, rows: Range<u64>) {
        self.torn.borrow_mut().remove(rows.clone());
        self.inconsistent.borrow_mut().remove(rows);
    }
}

/// A set of numbers, kept as ranges that neither overlap nor touch.
#[derive(Default)]
pub(super) struct RangeSet {
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.ends.keys().next().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    pub(super) fn overlaps(&self, range: &Range<u64>) -> bool {
        let before = self.ends.range(..range.end).next_back();
        !range.is_empty() && before.is_some_and(|(_, &end)| end > range.start)
    }

    pub(super) fn contains(&self, range: &Range<u64>) -> bool {
        let before = self.ends.range(..=range.start).next_back();
        range.is_empty() || before.is_some_and(|(_, &end)| end >= range.end)
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&s, &e)) = self.ends.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.ends.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.ends.insert(start, end);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&s, &e)) = self.ends.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ends.remove(&s);
            if e > range.end {
                self.ends.insert(range.end, e);
            }
            if s < range.start {
                self.ends.insert(s, range.start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_range_set_is_a_set(
            steps in proptest::collection::vec((any::<bool>(), 0u64..40, 0u64..10), 1..40),
        ) {
            let (mut ranges, mut model) = (RangeSet::default(), BTreeSet::new());
            for (insert, start, length) in steps {
                let range = start..start + length;
                if insert {
                    ranges.insert(range.clone());
                    model.extend(range);
                } else {
                    ranges.remove(range.clone());
                    model.retain(|n| !range.contains(n));
                }
                for start in 0..50 {
                    for end in start..50 {
                        let range = start..end;
                        prop_assert_eq!(
                            ranges.overlaps(&range),
                            range.clone().any(|n| model.contains(&n))
                        );
                        prop_assert_eq!(
                            ranges.contains(&range),
                            range.clone().all(|n| model.contains(&n))
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn beyond_the_position_only_what_was_proven_is_in_sync() {
        let rows = Rows::new(Some(100));
        assert!(rows.in_sync(&(0..100)) && !rows.in_sync(&(99..101)));
        rows.made_true(96..120);
        assert!(rows.in_sync(&(96..120)) && !rows.in_sync(&(119..121)));
        rows.tear(104..108);
        assert!(!rows.in_sync(&(104..105)) && rows.in_sync(&(108..120)));
        rows.set_position(None);
        assert!(rows.any_torn() && !rows.in_sync(&(104..105)));
        rows.made_true(104..108);
        assert!(rows.in_sync(&(0..1000)));
    }

    #[test]
    fn an_inconsistent_row_is_not_an_unfinished_write() {
        let rows = Rows::new(None);
        assert!(rows.doubt(8..16));
        assert!(!rows.doubt(8..16));
        assert!(!rows.in_sync(&(8..9)) && !rows.is_unfinished(&(8..9)));
    }
}
