//! The part of the journal that is in memory: what was written and is not home yet.
//!
//! ```text
//!   oldest                                                              newest
//!   | section | section | section | section | section | section (filling) |
//!     homed                durable             written   sealed
//!      `- free after the    `- may be written   `- durable after the next flush
//!         next flush           home
//! ```
//!
//! Sections get serial numbers, one after the other for the life of the opening; a serial stands
//! for "everything up to here". Only sections without a gap from the oldest are ever durable,
//! because replay stops at the first gap.
//!
//! Knows what to do next and who waits; [`super::commit`], [`super::home`] and [`super::sync`] do
//! it, each on its own: while one batch is written home, the next is committed, and the device is
//! flushed once for both.

use super::on_disk::OnDisk;
use super::ordering;
use super::section::{Content, Entry, Section};
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

/// The log itself. Borrowed only between awaits.
pub(super) struct Log {
    layout: JournalLayout,
    ids: CommitIds,
    live: VecDeque<Rc<Section>>,
    index: HashMap<u64, (u64, u32), BuildHasherDefault<SectorHasher>>,
    /// The blocks that each section names as it lies on the disk, home or not; none unless
    /// somebody has to know.
    on_disk: Option<OnDisk>,
    /// Where the next section goes, and its serial.
    next: (u32, Sequence),
    /// The journal on the disk holds what was replayed at opening.
    replayed: bool,
    next_serial: u64,
    /// Everything up to this serial was written to the journal (or home).
    written: u64,
    /// Everything up to this serial is durable there.
    durable: u64,
    /// Everything up to this serial was written home.
    homed: u64,
    /// Everything up to this serial is asked to become durable.
    wanted: u64,
    /// The last section that was cut short.
    cut: u64,
    /// Sections that may be in memory at once.
    live_max: usize,
    /// From so many sections in memory that are not home on, they are written home.
    trigger: usize,
    /// So many sections are worth a request, or a flush, that nobody waits for.
    batch: usize,
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
    /// Room for the tags of what is being put into a section.
    pub tags: Cell<Vec<u8>>,
    commit_time: Duration,
}

/// What a flush that is about to begin makes durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flush {
    /// The newest that was written to the journal, or home.
    written: u64,
    /// The newest that was written home.
    homed: u64,
    reason: &'static str,
}

impl Flush {
    /// What it must come before.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
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
    pub fn new(
        layout: JournalLayout,
        ids: CommitIds,
        next: (u32, Sequence),
        bounds: &Bounds,
    ) -> Self {
        // Buffers come in powers of two.
        let section = layout.section_bytes().next_power_of_two();
        let live_max = (bounds.memory_bytes / section).clamp(1, usize_of(layout.sections.into()));
        let trigger = live_max * usize::from(bounds.watermark.clamp(1, 100)) / 100;
        Self {
            layout,
            ids,
            live: VecDeque::new(),
            index: HashMap::default(),
            on_disk: None,
            next,
            replayed: false,
            next_serial: 1,
            written: 0,
            durable: 0,
            homed: 0,
            wanted: 0,
            cut: 0,
            live_max,
            trigger: trigger.max(1),
            batch: (live_max / BATCHES).max(1),
            draining: false,
            stopped: false,
            failed: None,
            stalled: None,
            commit_failures: (0, None),
            timer_armed: false,
        }
    }

    /// The same log, which from now on knows what the journal on the disk names; `found` are the
    /// blocks that each of its sections names now.
    pub fn remembering(self, found: impl Iterator<Item = (u32, Box<[u64]>)>) -> Self {
        let mut on_disk = OnDisk::default();
        found.for_each(|(section, sectors)| on_disk.replace(section, sectors));
        Self { on_disk: Some(on_disk), ..self }
    }

    /// Whether a copy of the block at `sector` is in memory, or may lie in the journal on the disk,
    /// so that replay after a crash may write it home.
    pub fn may_be_replayed(&self, sector: u64) -> bool {
        let on_disk = self.on_disk.as_ref();
        self.index.contains_key(&sector) || on_disk.is_none_or(|all| all.names(sector))
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
            && !last.is_sealed()
        {
            return Some(Rc::clone(last));
        }
        if self.live.len() >= self.live_max {
            return None;
        }
        let mut bytes = Buf::alloc(self.layout.section_bytes());
        self.layout.clear_entries(bytes.as_mut_slice());
        let (number, sequence) = self.next;
        let stamp = Stamp { ids: self.ids, section: number, sequence };
        let section = Rc::new(Section::new(stamp, self.next_serial, bytes, false));
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
        let first = section.used();
        let mut entries = section.entries.borrow_mut();
        let sectors = (sector..).step_by(usize_of(self.layout.block.sectors()));
        for (index, sector) in (first..).zip(sectors).take(count) {
            entries.push(Entry { index, sector, content });
            self.index.insert(sector, (section.serial, index));
        }
        drop(entries);
        if section.used() == self.layout.entries_per_section {
            section.seal(&self.layout);
        }
    }

    /// The sections to write to the journal now, oldest first, each sealed; empty if there is no
    /// reason to.
    pub fn due_for_commit(&mut self, batch_max: usize) -> Vec<Rc<Section>> {
        if self.failed.is_some() {
            return Vec::new();
        }
        let sealed = self.after(self.written).filter(|section| section.is_sealed()).count();
        if self.wanted <= self.written && !self.is_worth(sealed) {
            return Vec::new();
        }
        let mut batch = Vec::new();
        let first = self.live.partition_point(|section| section.serial <= self.written);
        for section in self.live.range(first..).take(batch_max) {
            // A section that is being filled is cut short only for somebody who waits for it, and
            // not before the last one that was is durable: all who come meanwhile share the next.
            if !section.is_sealed() {
                if self.wanted < section.serial || self.cut > self.durable {
                    break;
                }
                section.seal(&self.layout);
                self.cut = section.serial;
            }
            batch.push(Rc::clone(section));
        }
        batch
    }

    /// The sections to write home now: durable ones, oldest first.
    pub fn due_for_home(&self) -> Vec<Rc<Section>> {
        let (left, ready) = (self.after(self.homed).len(), self.count(self.homed, self.durable));
        let pressed = left >= self.trigger && self.is_worth(ready);
        if self.failed.is_some() || !(self.draining || pressed) {
            return Vec::new();
        }
        self.after(self.homed).take(ready.min(self.live_max.div_ceil(2))).cloned().collect()
    }

    /// What a flush of the device would make durable now, if there is a reason for one.
    pub fn due_for_flush(&self) -> Option<Flush> {
        let written = self.count(self.durable, self.written);
        let homed = self.count(0, self.homed);
        let waited_for = written > 0 && self.wanted > self.durable;
        let due = waited_for || self.is_worth(written + homed) || (self.draining && homed > 0);
        let reason = if written > 0 { ordering::SECTIONS } else { ordering::HOME };
        let flush = Flush { written: self.written, homed: self.homed, reason };
        (due && self.failed.is_none()).then_some(flush)
    }

    /// Whether something is to be done with `sections` sections though nobody waits for it.
    fn is_worth(&self, sections: usize) -> bool {
        sections >= self.batch || (sections > 0 && self.live.len() >= self.live_max)
    }

    /// The sections behind `serial`.
    fn after(&self, serial: u64) -> std::collections::vec_deque::Iter<'_, Rc<Section>> {
        self.live.range(self.live.partition_point(|section| section.serial <= serial)..)
    }

    /// How many sections there are behind `from` up to `to`.
    fn count(&self, from: u64, to: u64) -> usize {
        self.after(from).len() - self.after(to.max(from)).len()
    }

    /// Everything up to `serial` was written to the journal.
    pub fn written(&mut self, serial: u64) {
        self.written = serial;
        self.commit_failures.1 = None;
    }

    /// Everything up to `serial` was written home.
    pub fn homed(&mut self, serial: u64) {
        self.homed = serial;
        self.stalled = None;
    }

    /// The device was flushed: what is in the journal counts, what is home is free.
    pub fn flushed(&mut self, flush: Flush) {
        if let Some(on_disk) = &mut self.on_disk {
            // What lay there before is gone for certain only now.
            let first = self.live.partition_point(|section| section.serial <= self.durable);
            let end = self.live.partition_point(|section| section.serial <= flush.written);
            for section in self.live.range(first..end.max(first)) {
                let entries = section.entries.borrow();
                on_disk.replace(section.number, entries.iter().map(|one| one.sector).collect());
            }
        }
        self.durable = flush.written;
        for section in self.live.drain(..self.count(0, flush.homed)) {
            for entry in section.entries.borrow().iter() {
                if let Some(&(serial, _)) = self.index.get(&entry.sector)
                    && serial == section.serial
                {
                    self.index.remove(&entry.sector);
                }
            }
        }
    }

    /// The serial of the newest write.
    pub fn newest(&self) -> u64 {
        self.live.back().map_or(self.durable, |section| section.serial)
    }

    /// Where the next section would go: everything before it in the lap was written.
    pub fn next(&self) -> (u32, Sequence) {
        self.next
    }

    /// The same log, over a journal that still holds what was replayed.
    pub fn after_replay(self) -> Self {
        Self { replayed: true, ..self }
    }

    /// Whether the journal on the disk may hold anything.
    pub fn was_used(&self) -> bool {
        self.replayed || self.next_serial > 1
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
        Self { log, changed, tags: Cell::default(), commit_time }
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
        if log.live.back().is_some_and(|newest| newest.is_sealed()) {
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

    /// Why nothing can be promised any more, if so.
    pub fn failure(&self) -> Option<IoErrorKind> {
        self.log.borrow().failed
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

/// In so many steps the log's memory is filled, committed and written home: each waits for a flush,
/// and the others go on meanwhile.
const BATCHES: usize = 4;

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
