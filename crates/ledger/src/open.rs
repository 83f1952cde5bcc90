//! The entries of one run of sectors that are not resolved.
//!
//! Entries never overlap. Where a later event concerns a part of one, it is cut there first; so a
//! change applies to whole entries, and to the gaps between them.

use crate::record::{Kind, Record, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// How an entry that is not resolved stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Seen; nobody has tried, or managed, to mend it.
    Detected,
    /// Redundancy has it, and nothing was written.
    Healable,
    /// Nothing can give it back.
    Lost,
    /// All tags are valid, and the redundancy disagrees.
    Inconsistent,
}

/// Something that is not resolved.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// The number of the line that told it first.
    pub seq: u64,
    /// When it was seen first.
    pub time: Time,
    /// What was seen.
    pub kind: Kind,
    /// How it stands.
    pub state: State,
    /// The first sector.
    pub sector: u64,
    /// How many.
    pub sectors: u64,
    /// The tag on the member.
    pub stored: Option<String>,
    /// The tag of the bytes that were read.
    pub computed: Option<String>,
    /// A sentence more, or empty.
    pub detail: String,
}

impl Entry {
    /// What `record` says of `range`.
    pub(crate) fn new(record: &Record, state: State, range: &Range<u64>) -> Self {
        Self {
            seq: record.seq,
            time: record.time,
            kind: record.was.unwrap_or(record.kind),
            state,
            sector: range.start,
            sectors: range.end - range.start,
            stored: record.stored.clone(),
            computed: record.computed.clone(),
            detail: record.detail.clone(),
        }
    }

    /// Whether `record` says nothing of this that is not known.
    pub(crate) fn says(&self, record: &Record) -> bool {
        self.kind == record.kind && self.stored == record.stored && self.computed == record.computed
    }
}

/// The open entries of one run of sectors, by their first sector.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Open(BTreeMap<u64, Entry>);

impl Open {
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The entries within `range`, cut at its ends.
    pub fn within(&mut self, range: &Range<u64>) -> impl Iterator<Item = &mut Entry> {
        self.cut(range.start);
        self.cut(range.end);
        self.0.range_mut(range.clone()).map(|(_, entry)| entry)
    }

    /// Whether all of `range` is open, and `holds` for each of its entries.
    pub fn all(&self, range: &Range<u64>, holds: impl Fn(&Entry) -> bool) -> bool {
        let mut next = range.start;
        let before = self.0.range(..=range.start).next_back().map(|(start, _)| *start);
        for (&start, entry) in self.0.range(before.unwrap_or(range.start)..range.end) {
            let end = start + entry.sectors;
            if end <= range.start {
                continue;
            }
            if start > next || !holds(entry) {
                return false;
            }
            next = end;
        }
        next >= range.end
    }

    /// Closes what is open within `range`; how many sectors that was.
    pub fn close(&mut self, range: &Range<u64>) -> u64 {
        self.cut(range.start);
        self.cut(range.end);
        let closed: Vec<u64> = self.0.range(range.clone()).map(|(start, _)| *start).collect();
        closed.iter().filter_map(|start| self.0.remove(start)).map(|entry| entry.sectors).sum()
    }

    /// Opens `entry` in place of whatever is open there.
    pub fn open(&mut self, entry: Entry) {
        self.close(&(entry.sector..entry.sector + entry.sectors));
        self.0.insert(entry.sector, entry);
    }

    /// The parts of `range` where nothing is open.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut next = range.start;
        let before = self.0.range(..=range.start).next_back().map(|(start, _)| *start);
        for (&start, entry) in self.0.range(before.unwrap_or(range.start)..range.end) {
            if start > next {
                gaps.push(next..start);
            }
            next = next.max(start + entry.sectors);
        }
        if next < range.end {
            gaps.push(next..range.end);
        }
        gaps
    }

    fn cut(&mut self, at: u64) {
        let Some((&start, entry)) = self.0.range_mut(..at).next_back() else { return };
        let end = start + entry.sectors;
        if end > at {
            let tail = Entry { sector: at, sectors: end - at, ..entry.clone() };
            entry.sectors = at - start;
            self.0.insert(at, tail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Draft;
    use proptest::prelude::*;

    fn entry(range: Range<u64>) -> Entry {
        let record = Record::new(Draft::new(Kind::Lost, Time::default()), 1);
        Entry::new(&record, State::Lost, &range)
    }

    proptest! {
        /// The oracle is a set of sectors.
        #[test]
        fn entries_are_a_set_of_sectors(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..60, 1_u64..20), 0..40)
        ) {
            let mut open = Open::default();
            let mut model = std::collections::BTreeSet::new();
            for (opens, start, length) in steps {
                let range = start..start + length;
                let all = range.clone().all(|sector| model.contains(&sector));
                prop_assert_eq!(open.all(&range, |_| true), all);
                let free = range.clone().filter(|sector| !model.contains(sector)).count();
                let gaps: u64 = open.gaps(&range).iter().map(|gap| gap.end - gap.start).sum();
                prop_assert_eq!(usize::try_from(gaps).unwrap(), free);
                if opens {
                    open.open(entry(range.clone()));
                    model.extend(range);
                } else {
                    let closed = open.close(&range);
                    prop_assert_eq!(usize::try_from(closed).unwrap(), range.clone().count() - free);
                    model.retain(|sector| !range.contains(sector));
                }
                let sectors: Vec<u64> =
                    open.entries().flat_map(|e| e.sector..e.sector + e.sectors).collect();
                prop_assert_eq!(sectors, model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
