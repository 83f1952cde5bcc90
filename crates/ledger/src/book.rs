//! What the lines of a ledger amount to: counters for each member, and what is not resolved.

use crate::open::{Entry, Open, State};
use crate::record::{Area, Kind, Record, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Members that are told apart; events of more are ignored, and counted.
const ACCOUNTS_MAX: usize = 256;
/// Open entries that are remembered one by one; more are only counted.
const OPEN_MAX: usize = 16_384;

/// What was counted since the ledger began or was cleared last. A thing that was seen again
/// unchanged is not counted again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Counters {
    /// Blocks that were not what their tags vouch for.
    pub mismatches: u64,
    /// Sectors that the device could not read.
    pub medium_errors: u64,
    /// Sectors rebuilt and written back.
    pub healed_sectors: u64,
    /// Sectors that nothing could give back when they were read.
    pub lost_sectors: u64,
    /// Sectors that are not resolved and had no room among the open entries.
    pub unlisted_sectors: u64,
}

impl Counters {
    fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.mismatches, other.mismatches),
            (&mut self.medium_errors, other.medium_errors),
            (&mut self.healed_sectors, other.healed_sectors),
            (&mut self.lost_sectors, other.lost_sectors),
            (&mut self.unlisted_sectors, other.unlisted_sectors),
        ];
        for (sum, more) in pairs {
            *sum = sum.saturating_add(more);
        }
    }
}

/// What is known of one member, or of the volume as a whole.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// As it was named last; empty for the volume.
    pub name: String,
    /// What was counted.
    pub counters: Counters,
    data: Open,
    superblock: Open,
}

impl Account {
    /// What is not resolved, by sector.
    pub fn entries(&self) -> impl Iterator<Item = (Area, &Entry)> {
        let data = self.data.entries().map(|entry| (Area::Data, entry));
        data.chain(self.superblock.entries().map(|entry| (Area::Superblock, entry)))
    }

    /// Sectors that stand so.
    #[must_use]
    pub fn sectors(&self, state: State) -> u64 {
        let entries = self.entries().filter(|(_, entry)| entry.state == state);
        entries.map(|(_, entry)| entry.sectors).fold(0, u64::saturating_add)
    }

    const fn area(&mut self, area: Area) -> &mut Open {
        match area {
            Area::Data => &mut self.data,
            Area::Superblock => &mut self.superblock,
        }
    }

    fn open_count(&self) -> usize {
        self.data.len() + self.superblock.len()
    }
}

/// An open entry, and where it belongs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Unresolved {
    /// The member as it was named last; empty: the volume.
    pub member: String,
    /// The member's lasting identity; none: the volume.
    pub device: Option<String>,
    /// What its sectors count.
    pub area: Area,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What the lines amount to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Book {
    accounts: BTreeMap<Option<String>, Account>,
    since: Option<Time>,
    last_seq: u64,
    dropped: u64,
    unreadable_lines: u64,
    ignored: u64,
    open_count: usize,
}

impl Book {
    /// Since when it counts: its first line, or when it was cleared last.
    #[must_use]
    pub const fn since(&self) -> Option<Time> {
        self.since
    }

    /// The highest number of a line so far.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Events that came too fast to be written, and those of members beyond the 256th.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped.saturating_add(self.ignored)
    }

    /// Lines that could not be read: torn by a crash, damaged, or of a later version.
    #[must_use]
    pub const fn unreadable_lines(&self) -> u64 {
        self.unreadable_lines
    }

    /// Every member with its lasting identity; the volume has none.
    pub fn accounts(&self) -> impl Iterator<Item = (Option<&str>, &Account)> {
        self.accounts.iter().map(|(device, account)| (device.as_deref(), account))
    }

    /// What is known of a member, or of the volume.
    #[must_use]
    pub fn account(&self, device: Option<&str>) -> Option<&Account> {
        self.accounts.get(&device.map(str::to_owned))
    }

    /// All that is not resolved, newest first.
    #[must_use]
    pub fn unresolved(&self) -> Vec<Unresolved> {
        let mut all: Vec<Unresolved> = Vec::new();
        for (device, account) in &self.accounts {
            all.extend(account.entries().map(|(area, entry)| Unresolved {
                member: account.name.clone(),
                device: device.clone(),
                area,
                entry: entry.clone(),
            }));
        }
        all.sort_by(|a, b| (b.entry.seq, a.entry.sector).cmp(&(a.entry.seq, b.entry.sector)));
        all
    }

    /// A line that could not be read.
    pub(crate) const fn unreadable(&mut self) {
        self.unreadable_lines = self.unreadable_lines.saturating_add(1);
    }

    /// Takes `record` into account. Whether it was news: what says nothing that is not known
    /// already needs no line.
    pub fn apply(&mut self, record: &Record) -> bool {
        let news = match record.kind {
            Kind::Unknown => false,
            Kind::MemberFailed => true,
            Kind::Dropped => {
                self.dropped = self.dropped.saturating_add(record.sectors);
                true
            }
            Kind::Cleared => self.clear(record),
            _ => self.apply_place(record),
        };
        if news {
            self.last_seq = self.last_seq.max(record.seq);
            let since = self.since.unwrap_or(record.time);
            self.since =
                Some(if record.kind == Kind::Cleared { since } else { since.min(record.time) });
        }
        news
    }

    fn clear(&mut self, record: &Record) -> bool {
        if record.device.is_some() {
            let gone = self.accounts.remove(&record.device);
            self.open_count -= gone.map_or(0, |account| account.open_count());
        } else {
            let last_seq = self.last_seq;
            *self = Self { last_seq, since: Some(record.time), ..Self::default() };
        }
        true
    }

    fn apply_place(&mut self, record: &Record) -> bool {
        if record.kind == Kind::Counted && record.counters.is_none() {
            // Only says since when is counted.
            return true;
        }
        let known = self.accounts.contains_key(&record.device);
        // An entry that is cut becomes two: that has to end somewhere as well.
        if (!known && self.accounts.len() >= ACCOUNTS_MAX) || self.open_count >= 2 * OPEN_MAX {
            self.ignored = self.ignored.saturating_add(1);
            return false;
        }
        let mut account = self.accounts.remove(&record.device).unwrap_or_default();
        let before = account.open_count();
        let full = self.open_count >= OPEN_MAX;
        let news = account.apply(record, full);
        if news && let Some(name) = &record.member {
            account.name.clone_from(name);
        }
        self.open_count = self.open_count - before + account.open_count();
        if known || news {
            self.accounts.insert(record.device.clone(), account);
        }
        news
    }
}

impl Account {
    fn apply(&mut self, record: &Record, full: bool) -> bool {
        let range = record.sector..record.sector.saturating_add(record.sectors);
        match record.kind {
            Kind::Mismatch | Kind::MediumError => self.detected(record, &range, full),
            Kind::Healable => self.stands(record, State::Healable, &range, full) > 0,
            Kind::Inconsistent => self.stands(record, State::Inconsistent, &range, full) > 0,
            Kind::Lost => {
                let lost = self.stands(record, State::Lost, &range, full);
                self.counters.add(&Counters { lost_sectors: lost, ..Counters::default() });
                lost > 0
            }
            Kind::Healed => {
                self.area(record.area).close(&range);
                let healed_sectors = record.sectors;
                self.counters.add(&Counters { healed_sectors, ..Counters::default() });
                true
            }
            Kind::Resynced | Kind::Resolved => self.area(record.area).close(&range) > 0,
            Kind::Counted => {
                self.counters.add(&record.counters.unwrap_or_default());
                true
            }
            Kind::Carried => {
                let state = record.state.unwrap_or(State::Detected);
                self.open(record, state, &range, full);
                true
            }
            Kind::MemberFailed | Kind::Cleared | Kind::Dropped | Kind::Unknown => false,
        }
    }

    /// Damage was seen.
    fn detected(&mut self, record: &Record, range: &Range<u64>, full: bool) -> bool {
        if self.area(record.area).all(range, |entry| entry.says(record)) {
            return false;
        }
        self.counters.add(&match record.kind {
            Kind::Mismatch => Counters { mismatches: 1, ..Counters::default() },
            _ => Counters { medium_errors: record.sectors, ..Counters::default() },
        });
        self.open(record, State::Detected, range, full);
        true
    }

    /// All of `range` stands so from now on; how many sectors did not before.
    fn stands(&mut self, record: &Record, state: State, range: &Range<u64>, full: bool) -> u64 {
        let open = self.area(record.area);
        let mut changed: u64 = 0;
        for entry in open.within(range).filter(|entry| entry.state != state) {
            entry.state = state;
            if !record.detail.is_empty() {
                entry.detail.clone_from(&record.detail);
            }
            changed += entry.sectors;
        }
        for gap in open.gaps(range) {
            changed += gap.end - gap.start;
            self.open(record, state, &gap, full);
        }
        changed
    }

    fn open(&mut self, record: &Record, state: State, range: &Range<u64>, full: bool) {
        let known = self.area(record.area).all(range, |_| true);
        if range.is_empty() {
            return;
        }
        if full && !known {
            let unlisted_sectors = range.end - range.start;
            self.counters.add(&Counters { unlisted_sectors, ..Counters::default() });
            return;
        }
        self.area(record.area).open(Entry::new(record, state, range));
    }
}

#[cfg(test)]
mod tests;
