//! A set of sectors, for parts of an array that are many or few but never all listed one by one.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of numbers, kept as ranges that neither overlap nor touch.
#[derive(Clone, Default)]
pub(crate) struct RangeSet {
    ends: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn first(&self) -> Option<u64> {
        self.ends.keys().next().copied()
    }

    /// The first range that ends behind `from`, cut to what lies there.
    pub(crate) fn next(&self, from: u64) -> Option<Range<u64>> {
        let around = self.ends.range(..=from).next_back().filter(|&(_, &end)| end > from);
        let found = around.or_else(|| self.ends.range(from..).next());
        found.map(|(&start, &end)| start.max(from)..end)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ends.iter().map(|(&start, &end)| start..end)
    }

    pub(crate) fn overlaps(&self, range: &Range<u64>) -> bool {
        let before = self.ends.range(..range.end).next_back();
        !range.is_empty() && before.is_some_and(|(_, &end)| end > range.start)
    }

    pub(crate) fn contains(&self, range: &Range<u64>) -> bool {
        let before = self.ends.range(..=range.start).next_back();
        range.is_empty() || before.is_some_and(|(_, &end)| end >= range.end)
    }

    /// Whether removing `range` would leave two ranges of one.
    pub(crate) fn cuts(&self, range: &Range<u64>) -> bool {
        let around = self.ends.range(..range.start).next_back();
        !range.is_empty() && around.is_some_and(|(_, &end)| end > range.end)
    }

    pub(crate) fn insert(&mut self, range: Range<u64>) {
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

    pub(crate) fn remove(&mut self, range: Range<u64>) {
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

impl From<Range<u64>> for RangeSet {
    fn from(range: Range<u64>) -> Self {
        let mut set = Self::default();
        set.insert(range);
        set
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
                    let next = ranges.next(start);
                    let first = model.range(start..).next().copied();
                    prop_assert_eq!(next.as_ref().map(|range| range.start), first);
                    prop_assert!(next.is_none_or(|next| ranges.contains(&next)
                        && !model.contains(&next.end)));
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
}
