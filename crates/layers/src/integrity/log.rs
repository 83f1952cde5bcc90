//! The part of the journal that is in memory: what was written and is not home yet.
//!
//! ```text
//!   oldest                                                    newest
//!   | section | section | section | section | section (filling) |
//!    `-- durable: may be written home --'
//!                                  `-- sealed or filling: to be committed --'
//! ```
//!
//! Sections get serial numbers, one after the other for the life of the opening; a serial stands
//! for "everything up to here". Only sections without a gap from the oldest are ever durable,
//! because replay stops at the first gap.
//!
//! Knows what to do next and who waits; [`super::commit`] and [`super::home`] do it.

use ::integrity::layout::JournalLayout;
use ::integrity::{CommitIds, Sequence, Stamp};
use bio::{Buf, IoErrorKind, IoResult};
use runtime::{Notify, sleep, spawn};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::time::Duration;
use units::{Sector, usize_of};

/// One journal section in memory.
pub(super) struct Section {
    /// Its place in the journal.
    pub number: u32,
    /// What goes into its sectors' ends.
    pub stamp: Stamp,
    /// Its place in the log.
    pub serial: u64,
    /// As it lies, or will lie, in the journal. Not changed any more once it is sealed.
    pub bytes: RefCell<Buf>,
    /// What its entries hold, in order.
    pub entries: RefCell<Vec<Entry>>,
    sealed: Cell<bool>,
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
    fn new(number: u32, sequence: Sequence, serial: u64, bytes: Buf, sealed: bool) -> Self {
        Self {
            number,
            stamp: Stamp { ids: CommitIds::PLAIN, section: number, sequence },
            serial,
            bytes: RefCell::new(bytes),
            entries: RefCell::default(),
            sealed: Cell::new(sealed),
        }
    }

    /// A section read from the journal.
    pub fn found(number: u32, bytes: Buf, entries: Vec<Entry>) -> Rc<Self> {
        let section = Self::new(number, Sequence::FIRST, 0, bytes, true);
        section.entries.replace(entries);
        Rc::new(section)
    }

    /// Makes it ready to be committed.
    fn seal(&self, journal: &JournalLayout) {
        if !self.sealed.replace(true) {
            let mut bytes = self.bytes.borrow_mut();
            journal.finish(bytes.as_mut_slice(), self.used(), &self.stamp);
        }
    }

    /// How many entries are filled.
    pub fn used(&self) -> u32 {
        u32::try_from(self.entries.borrow().len()).expect("as many as fit a section")
    }
}

/// The log itself. Borrowed only between awaits.
pub(super) struct Log {
    layout: JournalLayout,
    live: VecDeque<Rc<Section>>,
    index: HashMap<u64, (u64, u32), BuildHasherDefault<SectorHasher>>,
    /// Where the next section goes, and its serial.
    next: (u32, Sequence),
    next_serial: u64,
    /// Everything up to this serial was written to the journal (or home).
    written: u64,
    /// Everything up to this serial is durable there.
    durable: u64,
    /// Everything up to this serial is asked to become durable.
    wanted: u64,
    /// Sections that may be in memory at once.
    live_max: usize,
    /// From so many sections in memory on, they are written home.
    trigger: usize,
    /// Everything is to be written home.
    draining: bool,
    /// Nothing more is to be done: closed, or dropped.
    stopped: bool,
    /// The device lost track of what is durable: nothing more can be promised.
    failed: Option<IoErrorKind>,
    /// Writing home fails; it is tried again.
    stalled: Option<IoErrorKind>,
    /// How often committing failed, and how last.
    commit_failures: (u64, Option<IoErrorKind>),
    timer_armed: bool,
}

/// The log, and who waits for it.
pub(super) struct Writer {
    pub log: RefCell<Log>,
    pub changed: Notify,
    commit_time: Duration,
}

/// How much of the log may be in memory, and when it is written home.
pub(super) struct Bounds {
    /// Bytes of journal sections in memory; at least one section fits.
    pub memory_bytes: usize,
    /// Percentage of sections that fills before they are written home.
    pub watermark: u8,
}

impl Log {
    /// An empty log that goes on at section `next.0` in lap `next.1`.
    pub fn new(layout: JournalLayout, next: (u32, Sequence), bounds: &Bounds) -> Self {
        // Buffers come in powers of two.
        let section = layout.section_bytes().next_power_of_two();
        let live_max = (bounds.memory_bytes / section).clamp(1, usize_of(layout.sections.into()));
        let trigger = live_max * usize::from(bounds.watermark.clamp(1, 100)) / 100;
        Self {
            layout,
            live: VecDeque::new(),
            index: HashMap::default(),
            next,
            next_serial: 1,
            written: 0,
            durable: 0,
            wanted: 0,
            live_max,
            trigger: trigger.max(1),
            draining: false,
            stopped: false,
            failed: None,
            stalled: None,
            commit_failures: (0, None),
            timer_armed: false,
        }
    }

    /// The newest entry for the block at `sector`.
    pub fn find(&self, sector: u64) -> Option<(Rc<Section>, u32)> {
        let &(serial, entry) = self.index.get(&sector)?;
        Some((Rc::clone(self.section(serial)), entry))
    }

    /// Whether nothing is in memory.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The section being filled, a new one if need be; none if there is no room.
    pub fn filling(&mut self) -> Option<Rc<Section>> {
        if let Some(last) = self.live.back()
            && !last.sealed.get()
        {
            return Some(Rc::clone(last));
        }
        if self.live.len() >= self.live_max {
            return None;
        }
        let mut bytes = Buf::alloc(self.layout.section_bytes());
        self.layout.clear_entries(bytes.as_mut_slice());
        let (number, sequence) = self.next;
        let section = Rc::new(Section::new(number, sequence, self.next_serial, bytes, false));
        self.next_serial += 1;
        self.next = match number + 1 {
            end if end == self.layout.sections => (0, sequence.plus(1)),
            following => (following, sequence),
        };
        self.live.push_back(Rc::clone(&section));
        Some(section)
    }

    /// Entries that still fit the section being filled.
    pub fn room(&self, section: &Section) -> usize {
        usize_of((self.layout.entries_per_section - section.used()).into())
    }

    /// Says that the next `count` entries of `section` were filled, with blocks from `sector` on.
    pub fn add(&mut self, section: &Section, sector: u64, count: usize, content: Content) {
        let mut entries = section.entries.borrow_mut();
        let sectors = (sector..).step_by(usize_of(self.layout.block.sectors()));
        for (index, sector) in (section_end(&entries)..).zip(sectors).take(count) {
            entries.push(Entry { index, sector, content });
            self.index.insert(sector, (section.serial, index));
        }
        let full = section_end(&entries) == self.layout.entries_per_section;
        drop(entries);
        if full {
            section.seal(&self.layout);
        }
    }

    /// The sections to write to the journal now, oldest first, each sealed; empty if there is no
    /// reason to.
    pub fn due_for_commit(&mut self, batch_max: usize) -> Vec<Rc<Section>> {
        if self.failed.is_some() {
            return Vec::new();
        }
        let pressed = self.live.len() >= self.trigger;
        let sealed = self.unwritten().filter(|section| section.sealed.get()).count();
        let due = self.wanted > self.written || (pressed && sealed > 0) || sealed >= batch_max;
        if !due {
            return Vec::new();
        }
        let mut batch = Vec::new();
        for section in self.unwritten().take(batch_max) {
            // A section that is being filled is cut short only for somebody who waits for it.
            if !section.sealed.get() {
                if self.wanted < section.serial {
                    break;
                }
                section.seal(&self.layout);
            }
            batch.push(Rc::clone(section));
        }
        batch
    }

    fn unwritten(&self) -> impl Iterator<Item = &Rc<Section>> {
        let first = self.live.partition_point(|section| section.serial <= self.written);
        self.live.range(first..)
    }

    /// The sections to write home now: durable ones, oldest first.
    pub fn due_for_home(&self) -> Vec<Rc<Section>> {
        if self.failed.is_some() || !(self.draining || self.live.len() >= self.trigger) {
            return Vec::new();
        }
        let durable = self.live.iter().take_while(|section| section.serial <= self.durable);
        durable.take(self.live_max.div_ceil(2)).cloned().collect()
    }

    /// Everything up to `serial` was written to the journal.
    pub fn written(&mut self, serial: u64) {
        self.written = serial;
        self.commit_failures.1 = None;
    }

    /// The newest that was written, if a flush would make more durable.
    pub fn due_for_flush(&self) -> Option<u64> {
        (self.failed.is_none() && self.written > self.durable).then_some(self.written)
    }

    /// Everything up to `serial` is durable in the journal.
    pub fn flushed(&mut self, serial: u64) {
        self.durable = serial;
    }

    /// The oldest `count` sections are home, and durable there.
    pub fn written_home(&mut self, count: usize) {
        for section in self.live.drain(..count) {
            for entry in section.entries.borrow().iter() {
                if let Some(&(serial, _)) = self.index.get(&entry.sector)
                    && serial == section.serial
                {
                    self.index.remove(&entry.sector);
                }
            }
        }
        self.stalled = None;
    }

    /// The serial of the newest write.
    pub fn newest(&self) -> u64 {
        self.live.back().map_or(self.durable, |section| section.serial)
    }

    /// Where the next section would go: everything before it in the lap was written.
    pub fn next(&self) -> (u32, Sequence) {
        self.next
    }

    /// Whether anything was ever logged.
    pub fn was_used(&self) -> bool {
        self.next_serial > 1
    }

    /// Whether everything is home.
    pub fn is_drained(&self) -> bool {
        self.live.is_empty()
    }

    /// Whether the tasks are to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn section(&self, serial: u64) -> &Rc<Section> {
        let oldest = self.live.front().expect("the index names live sections").serial;
        &self.live[usize_of(serial - oldest)]
    }
}

impl Writer {
    /// A writer over `log`. Its tasks are started by whoever opens the volume.
    pub fn new(log: Log, commit_time: Duration) -> Self {
        let (log, changed) = (RefCell::new(log), Notify::default());
        Self { log, changed, commit_time }
    }

    /// Waits for room for at least one entry.
    pub async fn room(&self, sector: Sector) -> IoResult<Rc<Section>> {
        loop {
            let changed = self.changed.notified();
            {
                let mut log = self.log.borrow_mut();
                if log.stopped || log.draining {
                    return Err(IoErrorKind::Unavailable.at(sector));
                }
                if let Some(kind) = log.failed {
                    return Err(kind.at(sector));
                }
                if let Some(section) = log.filling() {
                    return Ok(section);
                }
                if let Some(kind) = log.stalled.or(log.commit_failures.1) {
                    return Err(kind.at(sector));
                }
            }
            changed.await;
        }
    }

    /// After filling: tells the tasks if there is a reason, and sees to it that it is committed in
    /// time.
    pub fn filled(self: &Rc<Self>) {
        let mut log = self.log.borrow_mut();
        if log.live.back().is_some_and(|newest| newest.sealed.get()) {
            self.changed.notify_all();
        }
        if !std::mem::replace(&mut log.timer_armed, true) {
            let (this, time) = (Rc::downgrade(self), self.commit_time);
            drop(spawn(async move {
                sleep(time).await;
                let Some(this) = this.upgrade() else { return };
                {
                    let mut log = this.log.borrow_mut();
                    log.timer_armed = false;
                    log.wanted = log.newest();
                }
                this.changed.notify_all();
            }));
        }
    }

    /// Makes everything durable that was written before this call.
    pub async fn flush(&self) -> IoResult {
        let (target, failures) = {
            let mut log = self.log.borrow_mut();
            let target = log.newest();
            log.wanted = log.wanted.max(target);
            (target, log.commit_failures.0)
        };
        self.changed.notify_all();
        loop {
            let changed = self.changed.notified();
            {
                let log = self.log.borrow();
                if let Some(kind) = log.failed {
                    return Err(kind.at(Sector::ZERO));
                }
                if log.durable >= target {
                    return Ok(());
                }
                if log.stopped {
                    return Err(IoErrorKind::Unavailable.at(Sector::ZERO));
                }
                if let (count, Some(kind)) = log.commit_failures
                    && count > failures
                {
                    return Err(kind.at(Sector::ZERO));
                }
            }
            changed.await;
        }
    }

    /// A commit failed; it will be tried again when somebody asks.
    pub fn commit_failed(&self, kind: IoErrorKind) {
        let mut log = self.log.borrow_mut();
        log.commit_failures = (log.commit_failures.0 + 1, Some(kind));
        drop(log);
        self.changed.notify_all();
    }

    /// Writing home failed; it will be tried again.
    pub fn home_failed(&self, kind: IoErrorKind) {
        self.log.borrow_mut().stalled = Some(kind);
        self.changed.notify_all();
    }

    /// A flush of the device failed: what it had taken before is of unknown fate, for ever.
    pub fn fail(&self, kind: IoErrorKind) {
        self.log.borrow_mut().failed = Some(kind);
        self.changed.notify_all();
    }

    /// Takes no more writes, and waits until everything is home.
    pub async fn drain(&self) -> IoResult {
        self.log.borrow_mut().draining = true;
        self.flush().await?;
        loop {
            let changed = self.changed.notified();
            {
                let log = self.log.borrow();
                if log.is_drained() {
                    return Ok(());
                }
                if let Some(kind) = log.failed.or(log.stalled) {
                    return Err(kind.at(Sector::ZERO));
                }
            }
            changed.await;
        }
    }

    /// Ends the tasks.
    pub fn stop(&self) {
        self.log.borrow_mut().stopped = true;
        self.changed.notify_all();
    }
}

fn section_end(entries: &[Entry]) -> u32 {
    entries.last().map_or(0, |last| last.index + 1)
}

/// Spreads sector numbers: cheaper than a keyed hash, and enough for numbers without a pattern in
/// their high bits.
#[derive(Default)]
pub(super) struct SectorHasher(u64);

impl Hasher for SectorHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte) ^ self.0);
        }
    }

    fn write_u64(&mut self, number: u64) {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }
}
