//! One section of the journal in memory, from being filled to being home.
//!
//! 1. Filled: entry by entry, each with its commit ids at once.
//! 2. Sealed: as it is to lie in the journal, and written there.
//! 3. Durable there: the blocks get their own last bytes back and are written home from here.

use super::codec::Codec;
use ::integrity::layout::JournalLayout;
use ::integrity::{CommitIds, Sequence, Stamp};
use bio::Buf;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// One journal section in memory.
pub(super) struct Section {
    /// Its place in the journal.
    pub number: u32,
    /// What goes into its sectors' ends.
    pub stamp: Stamp,
    /// Its place in the log.
    pub serial: u64,
    /// As it lies, or will lie, in the journal but for MAC and encryption: not changed any more from when it is sealed until
    /// it is durable there and its blocks are [taken home](Self::blocks).
    pub bytes: RefCell<Buf>,
    /// What its entries hold, in order.
    pub entries: RefCell<Vec<Entry>>,
    sealed: Cell<bool>,
    /// The blocks have their own last bytes, not the commit ids.
    restored: Cell<bool>,
}

/// What one entry holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// Its number in the section.
    pub index: u32,
    /// The block's first sector.
    pub sector: u64,
    /// What is to be written home.
    pub content: Content,
}

/// What of an entry is to be written home.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Data and tag.
    Data,
    /// Zeroes and their tag; the space may be given back.
    Zeroes {
        /// Whether it may.
        unmap: bool,
    },
    /// The tag alone: the data in the journal is not what the tag vouches for (replay only).
    Tag,
}

impl Section {
    /// A new one in the place that its stamp names, to be filled unless it is `sealed`.
    pub fn new(stamp: Stamp, serial: u64, bytes: Buf, sealed: bool) -> Self {
        Self {
            number: stamp.section,
            stamp,
            serial,
            bytes: RefCell::new(bytes),
            entries: RefCell::default(),
            sealed: Cell::new(sealed),
            restored: Cell::new(false),
        }
    }

    /// A section read from the journal.
    pub fn found(number: u32, bytes: Buf, entries: Vec<Entry>) -> Rc<Self> {
        // It is not written to the journal again: its stamp means nothing.
        let (ids, sequence) = (CommitIds::PLAIN, Sequence::FIRST);
        let section = Self::new(Stamp { ids, section: number, sequence }, 0, bytes, true);
        section.entries.replace(entries);
        Rc::new(section)
    }

    /// Makes it ready to be committed.
    pub fn seal(&self, journal: &JournalLayout) {
        if !self.sealed.replace(true) {
            let mut bytes = self.bytes.borrow_mut();
            journal.finish(bytes.as_mut_slice(), self.used(), &self.stamp);
        }
    }

    /// The section as the journal is to hold it: here, and only here, its bytes are made ready for
    /// the device.
    ///
    /// # Panics
    /// If its blocks were taken home: then the journal holds it already.
    pub fn for_journal(&self, codec: &Codec) -> Buf {
        assert!(self.sealed.get() && !self.restored.get(), "a sealed section is written once");
        codec.ready(self.number, &self.bytes.borrow())
    }

    /// The data of `count` entries from `first` on, to be written home from where it lies. The
    /// journal must hold the section already: it is never written there again.
    pub fn blocks(&self, journal: &JournalLayout, first: u32, count: usize) -> Buf {
        let mut bytes = self.bytes.borrow_mut();
        if !self.restored.replace(true) {
            // Some device below may still hold what it was given to write.
            if !bytes.make_exclusive() {
                *bytes = Buf::copy_of(bytes.as_slice());
            }
            // Replay lists the entries in another order than they lie.
            let used = self.entries.borrow().iter().map(|entry| entry.index + 1).max();
            journal.restore(bytes.as_mut_slice(), used.unwrap_or_default());
        }
        let start = journal.data_offset(first);
        bytes.slice(start..start + count * journal.block.bytes())
    }

    /// Whether no entry will be added any more.
    pub fn is_sealed(&self) -> bool {
        self.sealed.get()
    }

    /// How many entries are filled.
    pub fn used(&self) -> u32 {
        u32::try_from(self.entries.borrow().len()).expect("as many as fit a section")
    }
}
