//! The write journal while the array runs (mode write-through): whole rows, data and parity, are in it
//! before any of them is written home. A crash then leaves nothing between old and new.
//!
//! ```text
//!   store(rows) --> waits in a queue --+   all that wait and fit a record, once the one before it is durable
//!   store(rows) --> waits in a queue --+
//!                                      v
//!            a record: meta block, data, parity; durable --> data and parity go home
//!
//!   the ring is full, or the array is closed:
//!            all is home, members flushed --> a mark; durable --> the tail is there --> the room is free
//! ```
//! A row of the journal is 4096 bytes of every member, so writes are of whole such blocks. The journal is flushed
//! instead of the members: what is promised is in it.
//!
//! # What a crash leaves
//!
//! 1. A record is being written. Crash: it is torn and ends the journal, its rows are old at home, and nobody
//!    was told that they are written; or it is whole, and 2.
//! 2. It is durable. Crash: all its rows are brought home, whatever is there.
//! 3. Its rows are written home. Crash: the same.
//! 4. All rows are home, and the members are flushed. Crash: all are brought home again, which changes
//!    nothing, for of each row the newest is, and what is not in a record was not stored in a row that is (6).
//! 5. The mark is written, and then the tail points there. Crash: 4, or there is nothing to bring home.
//! 6. Rows are stored that no record can name, since parity or data that belongs to them is lost, or because
//!    what is stored is no write (a resync, an operator's word). If any of their stripes is in a record, 4
//!    and 5 come first; then superblocks admit that they may be untrue (`Array::admit`). Crash: as without
//!    a journal.
//!
//! A journal that was found is brought home first (`home`).
//!
//! If the journal cannot be written, writing ends.

mod home;

use self::home::Carried;
use super::content::Content;
use super::store::Store;
use super::{Inner, OpenError, bytes};
use crate::array::Array;
use crate::array::ordering::{HOME, JOURNALLED, MARK, PROMISE};
use bio::{Bio, Buf, Device, IoError, IoErrorKind, IoResult};
use md::geometry::Geometry;
use md::journal::{BLOCK_SECTORS, Found, Full, Head, NewRow, Place, Ring, Rows, Seed, Wanted};
use runtime::Notify;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use units::{Sector, u64_of, usize_of};

/// A write journal, as it was found.
#[derive(Clone)]
pub struct Journal {
    /// The data of its device.
    pub ring: Device,
    /// How much of that is the ring.
    pub length: Ring,
    /// What its checksums start from.
    pub seed: Seed,
    /// Where it begins.
    pub tail: u64,
    /// What is in it.
    pub found: Found,
}

/// The journal of a running array.
pub(super) struct Log {
    ring: Device,
    length: Ring,
    seed: Seed,
    head: RefCell<Head>,
    /// What is to be brought home, until it is.
    found: RefCell<Option<Rows>>,
    /// What of that had no parity and is not home yet: it moves with the tail.
    carried: RefCell<Carried>,
    /// The tail is at a mark of this opening.
    begun: Cell<bool>,
    /// The stripes of which there are rows behind the tail.
    named: RefCell<BTreeSet<u64>>,
    chunk_sectors: u64,
    /// How often something was stored that is in no record, and how much of that was flushed on the members.
    beside: Cell<u64>,
    beside_flushed: Cell<u64>,
    /// Rows of one record at most, if all of their blocks are written.
    rows_at_once: u64,
    waiting: RefCell<VecDeque<Request>>,
    /// Somebody writes to the journal.
    leading: Cell<bool>,
    /// Stores that are named and not yet home.
    running: Cell<usize>,
    changed: Notify,
}

/// Rows that wait for their record.
struct Request {
    rows: Vec<Row>,
    done: Rc<Cell<Option<IoResult>>>,
}

/// A row of the array, as far as it is stored.
struct Row {
    row: Sector,
    data: Vec<(Sector, Buf)>,
    parity: Vec<Buf>,
}

/// Held until what a record names has been written home.
pub(super) struct Named<'a>(&'a Log);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let running = self.0.running.get() - 1;
        self.0.running.set(running);
        if running == 0 {
            self.0.changed.notify_all();
        }
    }
}

/// Held while somebody writes to the journal.
struct Lead<'a>(&'a Log);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.0.leading.set(false);
        self.0.changed.notify_all();
    }
}

impl Log {
    /// The running journal of an array of this shape.
    ///
    /// # Errors
    /// What it would need, if it cannot hold what is written at once, or has no room to be brought home.
    pub(super) fn new(
        array: &Array,
        geometry: &Geometry,
        journal: &Journal,
    ) -> Result<Self, OpenError> {
        let Journal { ring, length, seed, tail, found } = journal.clone();
        // What comes first on a blank device must not be what is left of another life of it.
        let first = (array.time().seconds() << 16).max(1);
        let head = Head::behind(seed, length, (tail, &found), first);
        let parity = geometry.level().parity_count();
        let slots = u64_of(geometry.raid_disks());
        let in_record = u64_of(Head::rows_at_once(geometry.data_disks(), parity));
        // A quarter of the ring, so that records do not wait for each other's way home one by one.
        let in_ring = (length.sectors() / BLOCK_SECTORS / 4).saturating_sub(1) / slots;
        let rows_at_once = in_record.min(in_ring);
        if rows_at_once == 0 {
            let (needed, free) = ((slots + 1) * 4 * BLOCK_SECTORS, length.sectors());
            return Err(OpenError::Journal(Full { needed, free }));
        }
        let rows = found.rows;
        let named = rows.iter().map(|(row, _)| row.0 / geometry.chunk_sectors()).collect();
        let log = Self {
            ring,
            length,
            seed,
            head: RefCell::new(head),
            named: RefCell::new(named),
            chunk_sectors: geometry.chunk_sectors(),
            found: RefCell::new(Some(rows)),
            carried: RefCell::default(),
            begun: Cell::new(false),
            beside: Cell::new(0),
            beside_flushed: Cell::new(0),
            rows_at_once,
            waiting: RefCell::default(),
            leading: Cell::new(false),
            running: Cell::new(0),
            changed: Notify::default(),
        };
        log.has_room_to_come_home(geometry).map_err(OpenError::JournalFull)?;
        Ok(log)
    }

    /// Sectors of a strip that are written at once, so that a record has room for them.
    pub(super) fn sectors_at_once(&self) -> u64 {
        self.rows_at_once * BLOCK_SECTORS
    }

    /// Makes durable what was stored before this call: what is named is, and for the rest the members are
    /// flushed.
    ///
    /// # Errors
    /// As [`Array::flush`].
    pub(super) async fn flush(&self, array: &Array) -> IoResult {
        let stored = self.beside.get();
        if self.beside_flushed.get() >= stored {
            return array.recorded().await;
        }
        array.flush(PROMISE).await?;
        self.beside_flushed.set(self.beside_flushed.get().max(stored));
        Ok(())
    }

    /// Waits until nobody else writes to the journal.
    async fn lead(&self) -> Lead<'_> {
        self.changed.until(|| !self.leading.get()).await;
        self.leading.set(true);
        Lead(self)
    }

    /// Returns when a durable record names `rows`.
    async fn record(&self, array: &Array, rows: Vec<Row>) -> IoResult<Named<'_>> {
        let done = Rc::<Cell<Option<IoResult>>>::default();
        self.waiting.borrow_mut().push_back(Request { rows, done: Rc::clone(&done) });
        loop {
            self.changed.until(|| done.get().is_some() || !self.leading.get()).await;
            if let Some(result) = done.get() {
                return result.map(|()| Named(self));
            }
            self.leading.set(true);
            let _lead = Lead(self);
            let batch = self.take();
            let result = self.write(array, &batch).await;
            if result.is_ok() {
                self.running.set(self.running.get() + batch.len());
            }
            batch.iter().for_each(|request| request.done.set(Some(result)));
        }
    }

    /// What waits, as far as it fits one record.
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.waiting.borrow_mut();
        let (mut batch, mut rows): (Vec<Request>, u64) = (Vec::new(), 0);
        while let Some(next) = waiting.front() {
            rows += u64_of(next.rows.len());
            if !batch.is_empty() && rows > self.rows_at_once {
                break;
            }
            batch.extend(waiting.pop_front());
        }
        batch
    }

    /// Writes records of what `batch` is: one, if everybody keeps to [`Self::sectors_at_once`]. Called by
    /// whoever leads.
    async fn write(&self, array: &Array, batch: &[Request]) -> IoResult {
        let rows: Vec<NewRow<'_>> =
            batch.iter().flat_map(|request| &request.rows).map(Row::borrowed).collect();
        let records = || rows.chunks(usize_of(self.rows_at_once));
        let needed: u64 = records().map(Head::record_sectors).sum();
        // What is carried must find room once more, should the tail have to move before it is home.
        let needed = needed + self.carry_sectors(&self.carried.borrow());
        if !self.begun.get() || needed > self.head.borrow().free() {
            self.bring_tail(array).await?;
        }
        for rows in records() {
            self.put(array, rows, JOURNALLED).await?;
        }
        Ok(())
    }

    /// Writes one meta block and what is its own, durably. Gives where it lies.
    async fn put(
        &self,
        array: &Array,
        rows: &[NewRow<'_>],
        reason: &'static str,
    ) -> IoResult<Wanted> {
        // What comes after a record that is not whole would never be found.
        array.refuse_writing()?;
        let made = self.head.borrow_mut().append(rows);
        let (wanted, bytes) = made.map_err(|full| {
            let error = IoErrorKind::NoSpace.at(Sector::ZERO);
            array.lose_journal(error, &full.to_string());
            error
        })?;
        let written = self.write_ring(wanted, &bytes, reason).await;
        written.inspect_err(|error| array.lose_journal(*error, &error.to_string()))?;
        Ok(wanted)
    }

    async fn write_ring(&self, wanted: Wanted, made: &[u8], reason: &'static str) -> IoResult {
        let mut at = 0;
        for range in self.length.ranges(wanted) {
            let length = bytes(range.end - range.start);
            let part = Buf::copy_of(&made[at..at + length]);
            at += length;
            super::store::submit(&self.ring, &mut Bio::write(Sector(range.start), part)).await?;
        }
        self.ring.flush_for(reason).await
    }

    /// The header's 4 and 5: all is home, and only what is carried is in the journal then. Called by whoever
    /// leads.
    async fn bring_tail(&self, array: &Array) -> IoResult {
        self.changed.until(|| self.running.get() == 0).await;
        array.flush(HOME).await?;
        let mark = self.head.borrow().at();
        self.put(array, &[], MARK).await?;
        let carried = self.carry(array).await?;
        let moved = array.move_journal_tail(mark).await;
        moved.inspect_err(|error| array.lose_journal(*error, &error.to_string()))?;
        self.head.borrow_mut().forget_before(mark);
        self.named.replace(carried.stripes(self.chunk_sectors).collect());
        self.carried.replace(carried);
        self.begun.set(true);
        Ok(())
    }

    /// Leaves nothing in the journal.
    pub(super) async fn close(&self, array: &Array) -> IoResult {
        if self.named.borrow().is_empty() {
            return Ok(());
        }
        let _lead = self.lead().await;
        self.bring_tail(array).await
    }

    /// Sees to it that no record names any of `stripes`: they are going to be stored without.
    async fn forget(&self, array: &Array, stripes: &BTreeSet<u64>) -> IoResult {
        let _lead = self.lead().await;
        let named = !self.named.borrow().is_disjoint(stripes);
        if named { self.bring_tail(array).await } else { Ok(()) }
    }

    /// A block that the journal holds.
    async fn block(&self, place: Place) -> IoResult<Buf> {
        let mut read = Bio::read(Sector(place.at), BLOCK_SECTORS);
        self.ring.submit(&mut read).await?;
        let block = read.data.into_single();
        let holds = self.seed.checksum(block.as_slice()) == place.checksum;
        if holds { Ok(block) } else { Err(IoErrorKind::Protection.at(Sector(place.at))) }
    }
}

impl Row {
    fn borrowed(&self) -> NewRow<'_> {
        NewRow {
            row: self.row,
            data: self.data.iter().map(|(sector, block)| (*sector, block.as_slice())).collect(),
            parity: self.parity.iter().map(Buf::as_slice).collect(),
        }
    }
}

/// What is stored of one slot in one row.
#[derive(Default)]
struct Block {
    parts: Vec<(u64, Content)>,
}

impl Block {
    /// All of it, if it is all stored.
    fn whole(&self) -> Option<Buf> {
        let stored: u64 = self.parts.iter().map(|(_, part)| part.sectors()).sum();
        match &self.parts[..] {
            [(0, all)] if stored == BLOCK_SECTORS => Some(all.data.to_single()),
            parts if stored == BLOCK_SECTORS => {
                let mut block = Buf::alloc(bytes(BLOCK_SECTORS));
                for (from, part) in parts {
                    let at = bytes(*from);
                    let part = part.data.to_single();
                    block.as_mut_slice()[at..at + part.len()].copy_from_slice(part.as_slice());
                }
                Some(block)
            }
            _ => None,
        }
    }
}

/// Held while what was named, or can have no name, is stored; then given to [`Inner::stored`].
pub(super) struct Journalled<'a> {
    log: &'a Log,
    _named: Option<Named<'a>>,
    /// What superblocks admit to be untrue because of it: rows that were true before.
    admitted: Vec<Range<u64>>,
    /// The journal makes all of it durable.
    pub(super) durable: bool,
}

impl Drop for Journalled<'_> {
    fn drop(&mut self) {
        // Only now: a flush that came before this had nothing of it to make durable.
        let beside = self.log.beside.get() + u64::from(!self.durable);
        self.log.beside.set(beside);
    }
}

impl Inner {
    /// Names in the journal what `stores` are about to change, as far as it can be, if there is a journal. To be
    /// held until they have.
    ///
    /// # Errors
    /// If that cannot be made durable: nothing may be stored then.
    pub(super) async fn journal(&self, stores: &[Store]) -> IoResult<Option<Journalled<'_>>> {
        let (Some(log), Some(first)) = (&self.journal, stores.first()) else { return Ok(None) };
        let place = Sector(
            first.rows.start / self.geometry.chunk_sectors() * self.geometry.stripe_sectors(),
        );
        let (rows, rest) = self.rows_of(stores);
        let journalled = async {
            let admitted = self.bypass(log, &rest).await?;
            let _named = if rows.is_empty() {
                None
            } else {
                let stripes = rows.iter().map(|row| row.row.0 / self.geometry.chunk_sectors());
                let stripes: Vec<u64> = stripes.collect();
                let named = log.record(&self.array, rows).await?;
                log.named.borrow_mut().extend(stripes);
                Some(named)
            };
            Ok(Journalled { log, _named, admitted, durable: rest.is_empty() })
        };
        journalled.await.map(Some).map_err(|error: IoError| error.kind.at(place))
    }

    /// What was named, or can have no name, is stored.
    pub(super) fn stored(&self, journalled: Option<Journalled<'_>>) {
        let admitted = journalled.iter().flat_map(|journalled| &journalled.admitted);
        admitted.for_each(|rows| self.array.set_in_sync(rows.clone()));
    }

    /// Leaves nothing in the journal: nothing is written any more.
    pub(super) async fn close_journal(&self) -> IoResult {
        match &self.journal {
            Some(log) => log.close(&self.array).await,
            None => Ok(()),
        }
    }

    /// The rows that a record can name, and those (in member sectors) that none can.
    fn rows_of(&self, stores: &[Store]) -> (Vec<Row>, Vec<Range<u64>>) {
        let mut all: BTreeMap<u64, BTreeMap<usize, Block>> = BTreeMap::new();
        for store in stores {
            let mut from = store.rows.start;
            while from < store.rows.end {
                let row = from - from % BLOCK_SECTORS;
                let to = store.rows.end.min(row + BLOCK_SECTORS);
                let within = from - store.rows.start..to - store.rows.start;
                let part = store.content.slice(self.tagging, &within);
                let block = all.entry(row).or_default().entry(store.slot).or_default();
                block.parts.push((from - row, part));
                from = to;
            }
        }
        let (mut rows, mut rest) = (Vec::new(), Vec::new());
        for (row, blocks) in all {
            match self.row_of(row, &blocks) {
                Some(row) => rows.push(row),
                None => rest.push(row..row + BLOCK_SECTORS),
            }
        }
        (rows, rest)
    }

    fn row_of(&self, row: u64, blocks: &BTreeMap<usize, Block>) -> Option<Row> {
        let equations = self.equations(row / self.geometry.chunk_sectors());
        let whole = |slot: usize| blocks.get(&slot)?.whole();
        let parity = equations.parity().map(whole).collect::<Option<Vec<Buf>>>()?;
        let offset = row % self.geometry.chunk_sectors();
        let data = blocks.keys().filter_map(|&slot| Some((slot, equations.data_index(slot)?)));
        let data = data.map(|(slot, index)| {
            let sector = self.geometry.array_sector(equations.stripe, index, offset);
            Some((sector, whole(slot)?))
        });
        let data = data.collect::<Option<Vec<(Sector, Buf)>>>()?;
        // Parity alone is no write.
        (!data.is_empty()).then_some(Row { row: Sector(row), data, parity })
    }

    /// The header's 6, for `rows`. Gives those that were true.
    async fn bypass(&self, log: &Log, rows: &[Range<u64>]) -> IoResult<Vec<Range<u64>>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let stripes = rows.iter().map(|rows| rows.start / self.geometry.chunk_sectors());
        log.forget(&self.array, &stripes.collect()).await?;
        // A block of the journal may have rows of both kinds.
        let block = self.block.sectors();
        let each = rows.iter().flat_map(|rows| rows.clone().step_by(usize_of(block)));
        let each = each.map(|start| start..start + block);
        let sure: Vec<Range<u64>> = each.filter(|rows| self.array.in_sync(rows)).collect();
        sure.iter().for_each(|rows| self.array.set_unsynced(rows.clone()));
        self.array.admit().await?;
        Ok(sure)
    }
}
