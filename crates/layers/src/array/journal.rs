//! The device of the array's write journal: its superblock goes with those of the members, and says where
//! the journal begins. What is in the journal, and when its tail moves, is the parity layer's.
//!
//! As long as all that changes is named there first, redundancy is true at all times once the journal is home:
//! the superblocks go on saying clean while the array is written. What is stored without being named is
//! admitted before ([`Array::admit`]).

use super::Array;
use super::ordering::{SUPERBLOCK, TAIL};
use super::rounds::Change;
use bio::{Bio, Buf, Device, EventKind, IoError, IoResult};
use md::superblock::{ResyncOffset, Superblock};
use std::cell::RefCell;
use units::Sector;

/// The device, and the superblock that lies on it.
pub(super) struct Journal {
    device: Device,
    superblock: RefCell<Superblock>,
}

impl Journal {
    /// What its superblock says of that.
    pub(super) fn events(&self) -> u64 {
        self.superblock.borrow().events()
    }

    /// Says what all say; the tail stays.
    pub(super) async fn follow(&self, change: &Change<'_>) -> IoResult {
        let mut own = self.superblock.borrow().clone();
        change.say(&mut own);
        self.put(own, SUPERBLOCK).await
    }

    async fn put(&self, own: Superblock, reason: &'static str) -> IoResult {
        let bytes = Buf::copy_of(&own.encode());
        let mut write = Bio::write_fua(own.super_offset(), bytes).because(reason);
        let written = self.device.submit(&mut write).await;
        if written.is_ok() {
            self.superblock.replace(own);
        }
        written
    }
}

impl Array {
    /// From now on all that changes is named first in the write journal on `device` with this superblock.
    pub fn go_through_journal(&self, device: Device, superblock: Superblock) {
        let journal = Journal { device, superblock: RefCell::new(superblock) };
        self.rounds.go_through_journal(journal);
    }

    /// Whether all that changes is named in a write journal first.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.rounds.journal().is_some()
    }

    /// Moves the start of the write journal to `tail`, in sectors of its ring; durable when this returns.
    ///
    /// # Errors
    /// What its device says; the start is then the old or the new one.
    ///
    /// # Panics
    /// If there is no journal.
    pub async fn move_journal_tail(&self, tail: u64) -> IoResult {
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        let journal = self.rounds.journal().expect("an array with a journal");
        let mut own = journal.superblock.borrow().clone();
        own.set_journal_tail(tail);
        journal.put(own, TAIL).await
    }

    /// Sees to it that the superblocks do not claim redundancy where it may be untrue from now on. Where there is no
    /// journal they do not while anything is written.
    ///
    /// # Errors
    /// What the members say.
    pub async fn admit(&self) -> IoResult {
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        let claimed = self.rounds.on_disk();
        let admitted = claimed.least(self.synced());
        if admitted == claimed { Ok(()) } else { self.round(admitted).await }
    }

    /// What the superblocks say of redundancy while the array is written.
    pub(super) fn while_written(&self) -> ResyncOffset {
        if self.has_journal() { self.synced() } else { ResyncOffset::Below(Sector::ZERO) }
    }

    /// Ends writing, because the write journal can take nothing any more.
    pub fn lose_journal(&self, error: IoError, why: &str) {
        let detail = format!("the write journal can take nothing any more: {why}");
        self.events().emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
        self.end_writing(error);
    }
}
