//! What each block may legally hold.
//!
//! A block's history is a list of writes, each with the moments of its start and of its end. A
//! *later* write is one that started after another had ended; writes that overlap in time may land
//! in any order. From that follow two sets:
//!
//! - a read may return any write that started before the read ended, unless a later one had ended
//!   before the read started;
//! - after a crash a block may hold any write that had started, unless a later one was durable.
//!
//! A write is durable when it ended with FUA, or ended before a successful flush was submitted. What
//! is read after a crash is settled by being read: it may not change again by itself.
//!
//! Where data and tag are not written as one, a crash may also make a block unreadable: only one with
//! a write of that life which is not durable, and only until a write to it is, or it was read.
//!
//! A disk that lied about a flush, and whoever throws a journal away, may bring back anything that was
//! ever written to a block, but nothing else ([`Oracle::rewinds`]).

mod content;

use crate::atlas::{Atlas, Damage};
use crate::violation::Violation;
use std::collections::BTreeMap;
use std::rc::Rc;
use units::u64_of;

/// The judge of one volume.
#[derive(Clone, Debug)]
pub struct Oracle {
    seed: u64,
    block_bytes: usize,
    blocks: u64,
    /// Only of blocks that were ever written; the others hold zeroes.
    written: BTreeMap<u64, Vec<Entry>>,
    /// Of each block every version that it was ever given.
    ever: BTreeMap<u64, Vec<u64>>,
    /// Blocks that a crash left undecided, and until when: the end of the first write since.
    torn: BTreeMap<u64, u64>,
    clock: u64,
    version: u64,
    harmed: bool,
    /// In this life data and tag are not written as one.
    tearing: bool,
    /// When this life began.
    born: u64,
    /// Somebody lied about what is durable.
    doubtful: bool,
    /// What was read may be something else the next time: there are copies, and nobody knows which
    /// is right.
    unsettled: bool,
    /// What was done to the disks, where it is known what that costs.
    damage: Option<Damage>,
    /// In this life disks acknowledge writes that they do not do.
    tricked: bool,
    /// Bits were flipped.
    rotten: bool,
    /// This life was closed.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    version: u64,
    start: u64,
    end: u64,
    durable: bool,
    /// It failed: it supersedes nothing.
    failed: bool,
    /// One of several that a crash may have left, and nobody has read which.
    undecided: bool,
}

/// A write that is under way.
#[derive(Clone, Copy, Debug)]
pub struct WriteTicket {
    version: u64,
    start: u64,
    block: u64,
    blocks: u64,
}

impl WriteTicket {
    /// The number that its blocks carry; 0 is never used, it means zeroes.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }
}

/// A read that is under way.
#[derive(Clone, Copy, Debug)]
pub struct ReadTicket {
    start: u64,
    block: u64,
}

impl ReadTicket {
    /// One that starts now, and whose result nobody will judge.
    #[must_use]
    pub fn now(oracle: &Oracle) -> Self {
        Self { start: oracle.clock, block: 0 }
    }
}

/// A flush that is under way.
#[derive(Clone, Copy, Debug)]
pub struct FlushTicket {
    start: u64,
}

impl Oracle {
    /// A volume of `blocks` blocks, all zero and durable.
    #[must_use]
    pub fn new(seed: u64, blocks: u64, block_bytes: usize) -> Self {
        Self {
            seed,
            block_bytes,
            blocks,
            written: BTreeMap::new(),
            ever: BTreeMap::new(),
            torn: BTreeMap::new(),
            clock: 1,
            version: 0,
            harmed: false,
            tearing: false,
            born: 0,
            doubtful: false,
            unsettled: false,
            damage: None,
            tricked: false,
            rotten: false,
            closed: false,
        }
    }

    /// The same of a volume that lies where `atlas` says.
    #[must_use]
    pub fn on(self, atlas: Option<&Rc<Atlas>>) -> Self {
        Self { damage: atlas.map(Damage::none), ..self }
    }

    /// A life begins, in which data and tag are written as one or not.
    pub fn lives(&mut self, tearing: bool) {
        (self.tricked, self.closed) = (false, false);
        self.tearing = tearing;
        self.born = self.tick();
    }

    /// Whether data and tag are not written as one.
    #[must_use]
    pub fn is_tearing(&self) -> bool {
        self.tearing
    }

    /// A disk acknowledges what it does not do. With `copies` the others do not, and nothing that a
    /// volume of them says is the last word.
    pub fn doubts(&mut self, copies: bool) {
        self.doubtful = true;
        self.unsettled |= copies;
    }

    /// Power stays on: what was acknowledged will be durable. Whether that was in doubt.
    pub fn trusts(&mut self) -> bool {
        std::mem::take(&mut self.doubtful)
    }

    /// Whether a crash may have left a block unreadable that was not read or written since.
    #[must_use]
    pub fn has_torn(&self) -> bool {
        self.torn.values().any(|&until| until == u64::MAX)
    }

    /// Whether nobody completed a write to `block` since a crash left it undecided.
    #[must_use]
    pub fn is_torn(&self, block: u64) -> bool {
        self.torn.get(&block) == Some(&u64::MAX)
    }

    /// Every block may hold whatever it was ever given, or be unreadable.
    pub fn rewinds(&mut self) {
        let now = self.tick();
        for (&block, versions) in &self.ever {
            let undecided =
                |&version: &u64| Entry { undecided: true, ..Entry::new(version, now, now) };
            self.written.insert(block, [0].iter().chain(versions).map(undecided).collect());
            self.torn.insert(block, u64::MAX);
        }
    }

    /// Members were damaged: from now on a scrub may find something.
    pub fn harm(&mut self) {
        self.harmed = true;
    }

    /// The disks were damaged as `damage` says, given the time.
    pub fn damaged(&mut self, damage: impl FnOnce(&mut Damage, u64)) {
        let now = self.tick();
        if let Some(known) = &mut self.damage {
            damage(known, now);
        }
    }

    /// From now on, in this life, a disk acknowledges writes and does not do them.
    pub fn tricks(&mut self) {
        self.tricked = true;
    }

    /// Bits were flipped: an application tag may be among them, which no guard is of.
    pub fn rots(&mut self) {
        self.rotten = true;
    }

    /// Whether bits were flipped.
    #[must_use]
    pub fn is_rotten(&self) -> bool {
        self.rotten
    }

    /// Whether one does, so that what is damaged may stay so.
    #[must_use]
    pub fn is_tricked(&self) -> bool {
        self.tricked
    }

    /// Whether parts of the volume may be lost.
    #[must_use]
    pub fn any_lost(&self) -> bool {
        self.has_torn() || self.damage.as_ref().is_some_and(Damage::any_lost)
    }

    /// Whether damage excuses that a write or a flush fails.
    #[must_use]
    pub fn excuses_writes(&self) -> bool {
        self.damage.as_ref().is_some_and(Damage::refuses_writes)
    }

    /// Whether what can be healed may stay damaged: it cannot be written.
    #[must_use]
    pub fn excuses_healable(&self) -> bool {
        self.damage.as_ref().is_some_and(Damage::is_refused)
    }

    /// A scrub went over all of it.
    pub fn scrubbed(&mut self) {
        let torn = self.has_torn();
        self.damaged(|damage, _| damage.scrubbed(torn));
    }

    /// The volume was closed: everything is durable.
    pub fn closes(&mut self) {
        let everything = self.flush_starts();
        self.flush_ends(everything);
        self.closed = true;
    }

    /// Whether members were ever damaged.
    #[must_use]
    pub fn is_harmed(&self) -> bool {
        self.harmed
    }

    /// The volume has so many blocks now: the first are as they were, and new ones hold zeroes.
    pub fn resize(&mut self, blocks: u64) {
        self.blocks = blocks;
        self.written.split_off(&blocks);
        self.ever.split_off(&blocks);
        self.torn.split_off(&blocks);
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes in a block.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A write of new content (or of `zeroes`) to `blocks` blocks starts.
    pub fn write_starts(&mut self, block: u64, blocks: u64, zeroes: bool) -> WriteTicket {
        let start = self.tick();
        self.version += 1;
        let version = self.version << 1 | u64::from(zeroes);
        let entry = Entry::new(version, start, u64::MAX);
        for block in block..block + blocks {
            assert!(block < self.blocks, "the block is on the volume");
            self.written.entry(block).or_insert_with(|| vec![ZERO]).push(entry);
            self.ever.entry(block).or_default().push(version);
        }
        WriteTicket { version, start, block, blocks }
    }

    /// It ended well; with FUA it is durable.
    pub fn write_ends(&mut self, ticket: &WriteTicket, fua: bool) {
        let end = self.tick();
        self.each(ticket, |entry| {
            entry.end = end;
            entry.durable = fua;
        });
        for (_, until) in self.torn.range_mut(ticket.block..ticket.block + ticket.blocks) {
            *until = end.min(*until);
        }
        if let Some(damage) = &mut self.damage {
            let blocks = ticket.block..ticket.block + ticket.blocks;
            damage.wrote(blocks, ticket.start, end);
        }
        self.prune(ticket.block, ticket.blocks);
    }

    /// It failed: each block is old, new or unreadable, whoever excuses that.
    pub fn write_fails(&mut self, ticket: &WriteTicket) {
        let end = self.tick();
        self.each(ticket, |entry| {
            entry.end = end;
            entry.failed = true;
        });
    }

    fn each(&mut self, ticket: &WriteTicket, change: impl Fn(&mut Entry)) {
        for block in ticket.block..ticket.block + ticket.blocks {
            let entries = self.written.entry(block).or_default();
            entries.iter_mut().filter(|entry| entry.version == ticket.version).for_each(&change);
        }
    }

    /// A flush is submitted.
    pub fn flush_starts(&mut self) -> FlushTicket {
        FlushTicket { start: self.tick() }
    }

    /// It succeeded.
    pub fn flush_ends(&mut self, ticket: FlushTicket) {
        for entries in self.written.values_mut() {
            for entry in entries.iter_mut().filter(|entry| entry.end < ticket.start) {
                entry.durable = true;
            }
        }
        if let Some(damage) = &mut self.damage {
            damage.flushed(ticket.start);
        }
        self.prune(0, self.blocks);
    }

    /// Forgets what can neither be read nor survive any more. A read that started long ago may still
    /// return it, so the list is only shortened far behind.
    fn prune(&mut self, block: u64, blocks: u64) {
        let clock = self.clock;
        for (_, entries) in self.written.range_mut(block..block + blocks) {
            if entries.len() >= PRUNE_FROM {
                let newest = newest_durable(entries);
                entries.retain(|entry| entry.end >= newest || clock - entry.end < PRUNE_DISTANCE);
            }
        }
    }

    /// A read of blocks from `block` on starts.
    pub fn read_starts(&mut self, block: u64) -> ReadTicket {
        ReadTicket { start: self.tick(), block }
    }

    /// It returned `bytes`.
    ///
    /// # Errors
    /// The first block that holds what it may not.
    pub fn read_ends(&mut self, ticket: ReadTicket, bytes: &[u8]) -> Result<(), Violation> {
        for (index, bytes) in bytes.chunks_exact(self.block_bytes).enumerate() {
            let block = ticket.block + u64_of(index);
            let entries = self.written.get(&block).map_or(&[ZERO][..], Vec::as_slice);
            let legal: Vec<u64> =
                readable(entries, ticket.start).map(|entry| entry.version).collect();
            let found = legal.iter().copied().find(|&version| self.is(block, version, bytes));
            let tears = |damage: &Damage| damage.tears(block, ticket.start);
            if found.is_none()
                && self.damage.as_ref().is_some_and(tears)
                && content::is_mixed(self.seed, block, &legal, bytes)
            {
                continue;
            }
            let Some(version) = found else {
                let found = self.describe(bytes);
                return Err(Violation::Wrong { block, found, legal });
            };
            // A later write that was read instead may be lost again, and the block torn still.
            let is_left = is_undecided(entries, version);
            self.settle(block, version);
            if is_left && !self.unsettled {
                self.torn.remove(&block);
            }
        }
        Ok(())
    }

    /// Somebody who looks at what is at home only, whatever is newer, was given `bytes` from `block`
    /// on.
    ///
    /// # Errors
    /// The first block that holds what it never held.
    pub fn read_ever(&self, block: u64, bytes: &[u8]) -> Result<(), Violation> {
        for (block, bytes) in (block..).zip(bytes.chunks_exact(self.block_bytes)) {
            let versions = self.ever.get(&block).map_or(&[][..], Vec::as_slice);
            let mut all = [0].iter().chain(versions);
            if !all.any(|&version| self.is(block, version, bytes)) {
                let (found, legal) = (self.describe(bytes), versions.to_vec());
                return Err(Violation::Wrong { block, found, legal });
            }
        }
        Ok(())
    }

    /// Whether a crash excuses that `block` could not be read, where crashes may do that.
    #[must_use]
    pub fn excuses(&self, block: u64, ticket: &ReadTicket) -> bool {
        self.torn.get(&block).is_some_and(|&until| until >= ticket.start)
            || self.damage.as_ref().is_some_and(|damage| damage.excuses(block, ticket.start))
    }

    /// What was read after a crash stays: of the writes that the crash left undecided, this one.
    fn settle(&mut self, block: u64, version: u64) {
        if self.unsettled {
            return;
        }
        let Some(entries) = self.written.get_mut(&block) else { return };
        let undecided = |entry: &Entry| entry.undecided && entry.version == version;
        if entries.len() > 1 && entries.iter().any(undecided) {
            entries.retain(|entry| !entry.undecided || entry.version == version);
            for entry in entries.iter_mut().filter(|entry| entry.undecided) {
                (entry.durable, entry.undecided) = (true, false);
            }
        }
    }

    /// Power was cut: what was not durable may be gone, and what was under way may be there.
    pub fn crashes(&mut self) {
        // What cannot be made whole keeps parity from being called true.
        if !self.closed || self.damage.as_ref().is_some_and(Damage::is_doomed) {
            self.damaged(Damage::crashed);
        }
        if std::mem::take(&mut self.doubtful) {
            return self.rewinds();
        }
        let now = self.tick();
        for (&block, entries) in &mut self.written {
            let newest = newest_durable(entries);
            entries.retain(|entry| entry.end >= newest);
            let sole = entries.len() == 1;
            let tears = self.tearing && entries.iter().any(|entry| entry.start > self.born);
            let covered = entries.iter().any(|entry| entry.durable && !entry.undecided);
            let was_torn = self.torn.remove(&block).is_some();
            if !sole && (tears || was_torn && !covered) {
                self.torn.insert(block, u64::MAX);
            }
            for entry in entries.iter_mut() {
                (entry.start, entry.end) = (now, now);
                (entry.durable, entry.undecided) = (sole, !sole);
                entry.failed = false;
            }
        }
    }

    fn is(&self, block: u64, version: u64, bytes: &[u8]) -> bool {
        content::is(self.seed, block, version, bytes)
    }

    /// The content of `block` as written by `ticket`.
    pub fn fill(&self, block: u64, version: u64, bytes: &mut [u8]) {
        content::fill(self.seed, block, version, bytes);
    }

    /// What these bytes are, in words.
    fn describe(&self, bytes: &[u8]) -> String {
        content::describe(self.seed, bytes)
    }
}

impl Entry {
    const fn new(version: u64, start: u64, end: u64) -> Self {
        Self { version, start, end, durable: false, failed: false, undecided: false }
    }
}

/// What a read that started at `start` may return.
fn readable(entries: &[Entry], start: u64) -> impl Iterator<Item = &Entry> {
    let ended = entries.iter().filter(|entry| entry.end < start && !entry.failed);
    let latest = ended.map(|entry| entry.start).max().unwrap_or(0);
    entries.iter().filter(move |entry| entry.end >= latest)
}

/// Whether `version` is one that a crash may have left.
fn is_undecided(entries: &[Entry], version: u64) -> bool {
    entries.iter().any(|entry| entry.version == version && entry.undecided)
}

fn newest_durable(entries: &[Entry]) -> u64 {
    let durable = entries.iter().filter(|entry| entry.durable && !entry.failed);
    durable.map(|entry| entry.start).max().unwrap_or(0)
}

/// A block that nobody wrote.
const ZERO: Entry = Entry { durable: true, ..Entry::new(0, 0, 0) };
const PRUNE_FROM: usize = 6;
const PRUNE_DISTANCE: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn content(oracle: &Oracle, block: u64, version: u64) -> Vec<u8> {
        let mut bytes = vec![0; oracle.block_bytes()];
        if version & 1 == 0 && version > 0 {
            oracle.fill(block, version, &mut bytes);
        }
        bytes
    }

    fn reads(oracle: &mut Oracle, block: u64, version: u64) -> bool {
        let ticket = oracle.read_starts(block);
        let bytes = content(oracle, block, version);
        oracle.read_ends(ticket, &bytes).is_ok()
    }

    #[test]
    fn a_completed_write_is_what_is_read() {
        let mut oracle = Oracle::new(1, 4, 512);
        let write = oracle.write_starts(2, 1, false);
        assert!(reads(&mut oracle, 2, 0) && reads(&mut oracle, 2, write.version()));
        oracle.write_ends(&write, false);
        assert!(!reads(&mut oracle, 2, 0));
        assert!(reads(&mut oracle, 2, write.version()));
    }

    #[test]
    fn a_crash_leaves_what_was_flushed_or_anything_since() {
        let mut oracle = Oracle::new(1, 1, 512);
        let a = oracle.write_starts(0, 1, false);
        oracle.write_ends(&a, false);
        let flush = oracle.flush_starts();
        oracle.flush_ends(flush);
        let b = oracle.write_starts(0, 1, false);
        oracle.write_ends(&b, false);
        let c = oracle.write_starts(0, 1, false);
        oracle.crashes();
        for version in [a, b, c].map(|ticket| ticket.version()) {
            assert!(reads(&mut oracle.clone(), 0, version), "{version}");
        }
        assert!(!reads(&mut oracle, 0, 0));
    }

    #[test]
    fn a_crash_excuses_only_blocks_that_it_left_undecided_until_they_are_written_or_read() {
        let mut oracle = Oracle::new(1, 3, 512);
        oracle.lives(true);
        let flushed = oracle.write_starts(0, 3, false);
        oracle.write_ends(&flushed, true);
        let cut = oracle.write_starts(1, 2, false);
        let before = oracle.read_starts(1);
        assert!(!oracle.excuses(1, &before));
        oracle.crashes();
        let ticket = oracle.read_starts(0);
        assert_eq!([0, 1, 2].map(|block| oracle.excuses(block, &ticket)), [false, true, true]);
        assert!(reads(&mut oracle, 2, cut.version()));
        let again = oracle.write_starts(1, 1, false);
        let meanwhile = oracle.read_starts(1);
        oracle.write_ends(&again, false);
        assert!(oracle.excuses(1, &meanwhile));
        let after = oracle.read_starts(1);
        assert!(reads(&mut oracle.clone(), 1, again.version()));
        let mut lost = oracle.clone();
        assert!(reads(&mut lost, 1, again.version()));
        lost.lives(false);
        lost.crashes();
        assert!(lost.is_torn(1) && !lost.is_torn(2), "the write that was read may be lost");
        assert_eq!([1, 2].map(|block| oracle.excuses(block, &after)), [false, false]);
    }

    #[test]
    fn what_was_read_after_a_crash_does_not_change() {
        let mut oracle = Oracle::new(1, 1, 512);
        let a = oracle.write_starts(0, 1, false);
        oracle.crashes();
        assert!(reads(&mut oracle, 0, a.version()));
        oracle.crashes();
        assert!(!reads(&mut oracle, 0, 0));
    }

    #[test]
    fn a_flush_says_nothing_about_writes_that_ended_after_it_began() {
        let mut oracle = Oracle::new(1, 1, 512);
        let write = oracle.write_starts(0, 1, false);
        let flush = oracle.flush_starts();
        oracle.write_ends(&write, false);
        oracle.flush_ends(flush);
        oracle.crashes();
        assert!(reads(&mut oracle, 0, 0));
    }

    #[test]
    fn overlapping_writes_may_land_in_any_order() {
        let mut oracle = Oracle::new(1, 1, 512);
        let (a, b) = (oracle.write_starts(0, 1, false), oracle.write_starts(0, 1, true));
        oracle.write_ends(&b, true);
        oracle.write_ends(&a, true);
        let (mut first, mut second) = (oracle.clone(), oracle);
        assert!(reads(&mut first, 0, a.version()) && reads(&mut second, 0, b.version()));
    }

    #[test]
    fn a_wrong_block_is_named() {
        let mut oracle = Oracle::new(9, 4, 512);
        let write = oracle.write_starts(3, 1, false);
        oracle.write_ends(&write, false);
        let bytes = content(&oracle, 3, write.version());
        let ticket = oracle.read_starts(1);
        let Err(Violation::Wrong { block: 1, found, .. }) = oracle.read_ends(ticket, &bytes) else {
            panic!("accepted")
        };
        assert_eq!(found, "version 2 of block 3");
    }
}
