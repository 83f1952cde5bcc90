//! Where the blocks of a volume lie on its disks, and what damage there costs.
//!
//! ```text
//!   disk    0        1        2        struck: disk 0 and 2 in row 4, more than its redundancy of one
//!   row 4   block 8  block 9  parity   lost:   block 8, until it is written; not block 9
//! ```
//! A *row* is what redundancy covers as one: of parity a block of every member at one address, of copies
//! all the copies of one block. Damage counts until it is sure to be gone; so more may be excused here
//! than a volume has to lose, never less.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

/// Where everything lies.
#[derive(Debug, Default)]
pub struct Atlas {
    /// Of each disk: the rows of which something lies in each of its blocks.
    rows: Vec<BTreeMap<u64, BTreeSet<u64>>>,
    /// Sectors of a block of the disks.
    unit: u64,
    /// Of each block of the volume: its row, and the disks that hold a copy.
    homes: Vec<(u64, BTreeSet<usize>)>,
    blocks: BTreeMap<u64, Vec<u64>>,
    /// How many strips of a row parity replaces; none: there are copies, or nothing.
    parity: Option<usize>,
    /// A power cut may leave a bad block log unreadable.
    tears_logs: bool,
    /// A power cut leaves parity true.
    journalled: bool,
    /// And blocks of the volume are larger than what the disks store as one.
    tears_blocks: bool,
}

impl Atlas {
    /// Of `disks` disks with blocks of `unit` sectors, and nothing on them. `parity` strips of a row are
    /// replaced by parity.
    #[must_use]
    pub fn new(disks: usize, unit: u64, parity: Option<usize>) -> Self {
        Self { rows: vec![BTreeMap::new(); disks], unit, parity, ..Self::default() }
    }

    /// The same on disks of which a power cut may leave a bad block log unreadable: nothing is known to be
    /// good there then but what the other parts of its row say, while all of them can be read.
    #[must_use]
    pub fn tearing_logs(self) -> Self {
        Self { tears_logs: true, ..self }
    }

    /// The same where a journal makes rows whole that a power cut tore: parity is true behind every cut, unless
    /// something cannot be made whole. `tears_blocks`: what is stored then is not stored as one.
    #[must_use]
    pub fn journalled(self, tears_blocks: bool) -> Self {
        Self { journalled: true, tears_blocks, ..self }
    }

    /// Something of `row` lies in these sectors of `disk`.
    pub fn lay(&mut self, disk: usize, sectors: Range<u64>, row: u64) {
        for block in sectors.start / self.unit..sectors.end.div_ceil(self.unit) {
            self.rows[disk].entry(block).or_default().insert(row);
        }
    }

    /// The volume's next block is in `row`, and `disks` hold it.
    pub fn house(&mut self, row: u64, disks: impl IntoIterator<Item = usize>) {
        let block = units::u64_of(self.homes.len());
        self.homes.push((row, disks.into_iter().collect()));
        self.blocks.entry(row).or_default().push(block);
    }

    /// Whether every block stands for itself: there are copies of it, or one.
    #[must_use]
    pub fn has_copies(&self) -> bool {
        self.parity.is_none()
    }

    /// Blocks of the volume.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        units::u64_of(self.homes.len())
    }

    /// The sectors of `disk` on which something of the volume lies, block by block.
    pub fn sectors(&self, disk: usize) -> impl Iterator<Item = u64> + '_ {
        let blocks = self.rows.get(disk).into_iter().flat_map(BTreeMap::keys);
        blocks.flat_map(|block| block * self.unit..(block + 1) * self.unit)
    }

    fn rows_at(&self, disk: usize, sector: u64) -> impl Iterator<Item = u64> + '_ {
        let rows = self.rows.get(disk).and_then(|disk| disk.get(&(sector / self.unit)));
        rows.into_iter().flatten().copied()
    }

    fn home(&self, block: u64) -> &(u64, BTreeSet<usize>) {
        &self.homes[units::usize_of(block)]
    }
}

/// What was done to the disks of a volume, and what that may cost.
#[derive(Clone, Debug)]
pub struct Damage {
    atlas: Rc<Atlas>,
    /// By row: the disks whose part of it may be damaged.
    struck: BTreeMap<u64, BTreeSet<usize>>,
    /// What a scrub has healed, not durably yet.
    healed: BTreeMap<u64, BTreeSet<usize>>,
    /// Disks of which nothing counts.
    away: BTreeSet<usize>,
    /// Parts of rows that cannot be written, and so not be healed.
    refused: BTreeSet<(usize, u64)>,
    /// Blocks that may be lost: since when, and until when: the end of the first write that began since.
    lost: BTreeMap<u64, (u64, u64)>,
    /// Blocks of which a power cut may have left sectors of several writes: since when, and until when, as above.
    torn: BTreeMap<u64, (u64, u64)>,
    /// Parity may not be true anywhere.
    dirty: bool,
}

impl Damage {
    /// None.
    #[must_use]
    pub fn none(atlas: &Rc<Atlas>) -> Self {
        Self {
            atlas: Rc::clone(atlas),
            struck: BTreeMap::new(),
            healed: BTreeMap::new(),
            away: BTreeSet::new(),
            refused: BTreeSet::new(),
            lost: BTreeMap::new(),
            torn: BTreeMap::new(),
            dirty: false,
        }
    }

    /// What lies in `sector` of `disk` is damaged, at time `now`.
    pub fn strike(&mut self, disk: usize, sector: u64, now: u64) {
        let atlas = Rc::clone(&self.atlas);
        for row in atlas.rows_at(disk, sector) {
            self.struck.entry(row).or_default().insert(disk);
            self.judge(row, now);
        }
    }

    /// `sector` of `disk` refuses to be written: damaged, and not to be healed. With `alone` that costs
    /// nothing else; else, and where no block of the volume lies, it costs the disk.
    pub fn refuse(&mut self, disk: usize, sector: u64, alone: bool, now: u64) {
        let atlas = Rc::clone(&self.atlas);
        if !alone || atlas.rows_at(disk, sector).next().is_none() {
            return self.lose(disk, now);
        }
        self.refused.extend(atlas.rows_at(disk, sector).map(|row| (disk, row)));
        self.strike(disk, sector, now);
    }

    /// Every sector of `disk` can be written again.
    pub fn accept(&mut self, disk: usize) {
        self.refused.retain(|&(other, _)| other != disk);
    }

    /// Nothing on `disk` counts any more.
    pub fn lose(&mut self, disk: usize, now: u64) {
        if self.away.insert(disk) {
            let atlas = Rc::clone(&self.atlas);
            atlas.blocks.keys().for_each(|&row| self.judge(row, now));
        }
    }

    fn struck_in(&self, row: u64) -> BTreeSet<usize> {
        let struck = self.struck.get(&row).into_iter().flatten();
        struck.chain(&self.away).copied().collect()
    }

    /// Whether nothing of `row` can be reconstructed.
    fn is_beyond(&self, struck: &BTreeSet<usize>) -> bool {
        self.atlas.parity.is_none_or(|parity| self.dirty || struck.len() > parity)
    }

    /// Whether damage of its row on `struck`, which is beyond what is survived, costs `block`.
    fn costs(&self, struck: &BTreeSet<usize>, block: u64) -> bool {
        let unread = self.dirty && self.atlas.tears_logs && !struck.is_empty();
        unread || self.atlas.home(block).1.is_subset(struck)
    }

    fn judge(&mut self, row: u64, now: u64) {
        let (atlas, struck) = (Rc::clone(&self.atlas), self.struck_in(row));
        if !self.is_beyond(&struck) {
            return;
        }
        for &block in atlas.blocks.get(&row).into_iter().flatten() {
            if self.costs(&struck, block) {
                self.lost.insert(block, (now, u64::MAX));
            }
        }
    }

    /// A write of `blocks`, begun at `start`, ended at `end`.
    pub fn wrote(&mut self, blocks: Range<u64>, start: u64, end: u64) {
        let lost = self.lost.range_mut(blocks.clone());
        for (_, (since, until)) in lost.chain(self.torn.range_mut(blocks)) {
            if start > *since {
                *until = end.min(*until);
            }
        }
    }

    /// Whether `block` may be lost to a read that began at `start`.
    #[must_use]
    pub fn excuses(&self, block: u64, start: u64) -> bool {
        self.lost.get(&block).is_some_and(|&(_, until)| until >= start)
    }

    /// Whether a power cut may have left sectors of several writes in `block`: its row had more damage than any
    /// journal can name, and its members have smaller blocks.
    #[must_use]
    pub fn tears(&self, block: u64, start: u64) -> bool {
        self.torn.get(&block).is_some_and(|&(_, until)| until >= start)
    }

    /// Whether anything may be lost that was not written since.
    #[must_use]
    pub fn any_lost(&self) -> bool {
        self.dirty || self.lost.values().any(|&(_, until)| until == u64::MAX)
    }

    /// Whether some rows have more than they survive, and a member that takes no writes: those may be
    /// refused to a client then.
    #[must_use]
    pub fn refuses_writes(&self) -> bool {
        (!self.away.is_empty() || !self.refused.is_empty()) && self.is_doomed()
    }

    /// Whether some sectors cannot be written, so that damage may stay.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether some row has more damage than it survives.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        let mut rows = self.atlas.blocks.keys();
        rows.any(|&row| self.is_lost_in(row, &self.struck_in(row)))
    }

    /// Whether a block of `row` is lost if that is damaged on `struck`.
    fn is_lost_in(&self, row: u64, struck: &BTreeSet<usize>) -> bool {
        let mut blocks = self.atlas.blocks.get(&row).into_iter().flatten();
        self.is_beyond(struck) && blocks.any(|&block| self.costs(struck, block))
    }

    /// A scrub has healed what can be. `torn`: a power cut left something that it cannot judge.
    pub fn scrubbed(&mut self, torn: bool) {
        if self.dirty && !torn && !self.lost.values().any(|&(_, until)| until == u64::MAX) {
            self.dirty = false;
        }
        for (row, disks) in std::mem::take(&mut self.struck) {
            let all = disks.union(&self.away).copied().collect();
            let doomed = self.is_lost_in(row, &all);
            let stays = |disk: &usize| doomed || self.refused.contains(&(*disk, row));
            let (kept, gone): (BTreeSet<_>, BTreeSet<_>) = disks.into_iter().partition(stays);
            self.healed.entry(row).or_default().extend(gone);
            if !kept.is_empty() {
                self.struck.insert(row, kept);
            }
        }
    }

    /// What was healed, or written, before `start` is durable.
    pub fn flushed(&mut self, start: u64) {
        self.healed.clear();
        self.lost.retain(|_, (_, until)| *until >= start);
    }

    /// Power was cut at time `now`.
    pub fn crashed(&mut self, now: u64) {
        for (row, disks) in std::mem::take(&mut self.healed) {
            self.struck.entry(row).or_default().extend(disks);
        }
        if self.atlas.tears_blocks {
            let beyond = |row: &&u64| self.is_beyond(&self.struck_in(**row));
            let rows = self.atlas.blocks.iter().filter(|(row, _)| beyond(row));
            let blocks: Vec<u64> = rows.flat_map(|(_, blocks)| blocks).copied().collect();
            self.torn.extend(blocks.into_iter().map(|block| (block, (now, u64::MAX))));
        }
        // What is stored beside lost blocks is in no journal, and superblocks admit that from there on.
        self.dirty |= self.atlas.parity.is_some() && (!self.atlas.journalled || self.is_doomed());
        // What was written since may be lost again.
        self.lost.values_mut().for_each(|(since, until)| (*since, *until) = (now, u64::MAX));
        let atlas = Rc::clone(&self.atlas);
        atlas.blocks.keys().for_each(|&row| self.judge(row, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two data blocks and parity in each of two rows.
    fn parity() -> Damage {
        let mut atlas = Atlas::new(3, 1, Some(1));
        for row in 0..2 {
            (0..3).for_each(|disk| atlas.lay(disk, row..row + 1, row));
            atlas.house(row, [0]);
            atlas.house(row, [1]);
        }
        Damage::none(&Rc::new(atlas))
    }

    fn lost(damage: &Damage, now: u64) -> Vec<u64> {
        (0..4).filter(|&block| damage.excuses(block, now)).collect()
    }

    #[test]
    fn a_row_with_more_than_its_redundancy_loses_what_was_struck_until_it_is_written() {
        let mut damage = parity();
        damage.strike(1, 1, 1);
        assert!(lost(&damage, 2).is_empty());
        damage.strike(2, 1, 2);
        assert_eq!(lost(&damage, 3), [3]);
        damage.wrote(3..4, 1, 4);
        assert_eq!(lost(&damage, 5), [3], "it began before");
        damage.wrote(3..4, 5, 6);
        assert_eq!((lost(&damage, 6), lost(&damage, 7)), (vec![3], vec![]));
    }

    #[test]
    fn a_cut_that_tears_logs_costs_all_of_the_rows_that_are_damaged_and_no_other() {
        let mut damage = parity();
        damage.strike(0, 0, 1);
        damage.crashed(2);
        assert_eq!(lost(&damage, 3), [0]);
        let mut damage = parity();
        damage.atlas = Rc::new(Rc::into_inner(damage.atlas).expect("its own").tearing_logs());
        damage.strike(0, 0, 1);
        assert!(lost(&damage, 2).is_empty());
        damage.crashed(2);
        assert_eq!(lost(&damage, 3), [0, 1]);
        damage.strike(1, 1, 3);
        assert_eq!(lost(&damage, 4), [0, 1, 2, 3]);
    }

    #[test]
    fn behind_a_journal_a_cut_costs_nothing_that_parity_replaces() {
        let mut damage = parity();
        damage.atlas = Rc::new(Rc::into_inner(damage.atlas).expect("its own").journalled(false));
        damage.strike(0, 0, 1);
        damage.crashed(2);
        assert!(lost(&damage, 3).is_empty());
        damage.strike(1, 0, 3);
        assert_eq!(lost(&damage, 4), [0, 1]);
        damage.strike(0, 1, 4);
        damage.crashed(5);
        assert_eq!(lost(&damage, 6), [0, 1, 2]);
    }

    #[test]
    fn what_is_healed_counts_until_it_is_durable() {
        let mut damage = parity();
        damage.strike(0, 0, 1);
        damage.scrubbed(false);
        let mut cut = damage.clone();
        cut.crashed(2);
        assert_eq!(lost(&cut, 3), [0], "parity of an array that was being written is no witness");
        damage.flushed(2);
        damage.crashed(2);
        assert!(lost(&damage, 3).is_empty());
    }

    #[test]
    fn a_copy_is_lost_with_the_last_of_its_disks_only() {
        let mut atlas = Atlas::new(2, 8, None);
        (0..2).for_each(|disk| atlas.lay(disk, 8..16, 0));
        atlas.house(0, [0, 1]);
        let mut damage = Damage::none(&Rc::new(atlas));
        damage.strike(0, 9, 1);
        damage.crashed(2);
        damage.strike(1, 16, 3);
        assert!(!damage.excuses(0, 4));
        damage.strike(1, 15, 4);
        assert!(damage.excuses(0, 5));
    }

    #[test]
    fn a_sector_that_refuses_writes_costs_its_block_or_the_disk() {
        let mut damage = parity();
        damage.refuse(1, 0, true, 1);
        damage.scrubbed(false);
        damage.flushed(2);
        damage.strike(0, 0, 2);
        assert_eq!(lost(&damage, 3), [0, 1]);
        let mut damage = parity();
        damage.refuse(1, 0, false, 1);
        damage.strike(0, 1, 2);
        assert_eq!(lost(&damage, 3), [2, 3]);
    }
}
