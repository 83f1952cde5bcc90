//! The partial parity log while the array runs: what is about to be written is named on the member that
//! holds its parity, before it is written.
//!
//! ```text
//!   store(data strip, parity) --> waits in a queue --+   all that wait: one batch, once the one before
//!   store(data strip, parity) --> waits in a queue --+   it has come to its end
//!                                                    v
//!        members flushed --> a record on each parity member concerned, durably --> data and parity
//! ```
//! Of each row one data strip is written at a time, with its parity: a write of several strips takes as many
//! steps (`steps`). Then whoever is missing after a crash, each of its blocks is old or new:
//!
//! - parity: the data is old or new.
//! - the strip that was written: parity is old or new, and so is what it gives back.
//! - any other: parity becomes the partial parity (which is XOR of all others) XOR what the strip holds now.
//!
//! # What a crash leaves
//!
//! 1. All that the last batch wrote is acknowledged by its members. Crash: its records name it.
//! 2. Every member is flushed. Crash: the same; parity that is made anew is what it was.
//! 3. A record is written at the start of the log of each member that holds parity of the batch, durably;
//!    that of another member names rows that nobody has touched since. Crash: the record of before or the new
//!    one, for its header changes in one block; a partial parity that is not that of the header is
//!    passed over, rightly, for nothing of it was written, or all of it is durable.
//! 4. Data and parity are written. Crash: the record names them.
//!
//! A log is believed only if everything that it does not name is in sync. So on an array that is not, which
//! superblocks cannot tell from one that a crash made dirty:
//!
//! 1. The headers of all logs are made void, durably, before a write of the next batch (or the one that
//!    tears a row). Crash: a void log, or more of them: everything is compared; degraded, it is
//!    not started.
//! 2. Once all is in sync: 2 and 3 as above, with the log emptied first. Crash before all logs are valid: 1.
//!
//! A log is emptied as well before its first record after opening: zeroes behind the header, a flush, an
//! empty header, durably. Crash: the record of before, which has been replayed or was never needed.

use super::cache::Piece;
use super::store::Store;
use super::{Inner, bytes};
use crate::array::ordering::{EMPTIED, LOGGED, RECORD, VOID};
use crate::array::{Array, Member, Tagging, ppl_place};
use bio::{Bio, Buf, IoError, IoResult};
use md::ppl::{Entry, HEADER_BYTES, encode_header, entries_at_once, void_header};
use md::superblock::{Ppl as PplPlace, ResyncOffset, Uuid};
use runtime::{Notify, join_all};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use units::{SECTOR, SECTOR_BYTES, Sector, u64_of};

/// The log of a running array.
pub(super) struct Ppl {
    set: Uuid,
    /// Sectors of the array's logical block.
    block: u64,
    /// Entries, and bytes of partial parity, that every member has room for in one record.
    entries_max: usize,
    room: usize,
    generation: Cell<u64>,
    /// The members whose logs this layer has written, and whether they can be believed.
    written: RefCell<Vec<(Weak<Member>, bool)>>,
    waiting: RefCell<VecDeque<Request>>,
    /// Somebody writes the records of a batch.
    leading: Cell<bool>,
    /// Writes of the last batch that have not come to their end.
    running: Cell<usize>,
    changed: Notify,
}

/// A write that waits for its record.
struct Request {
    /// Where parity is.
    slot: usize,
    entries: Vec<(Entry, Buf)>,
    done: Rc<Cell<Option<IoResult>>>,
}

/// Held until what was logged has been written.
pub(super) struct Logged<'a>(&'a Ppl);

impl Drop for Logged<'_> {
    fn drop(&mut self) {
        let running = self.0.running.get() - 1;
        self.0.running.set(running);
        if running == 0 {
            self.0.changed.notify_all();
        }
    }
}

impl Ppl {
    /// The log of `array`, whose logical block has `block` sectors; none: it has none.
    ///
    /// # Errors
    /// The slot of a member on which nothing can be logged.
    pub(super) fn new(array: &Array, block: u64) -> Result<Option<Self>, usize> {
        let (mut room, mut entries_max, mut set) = (usize::MAX, usize::MAX, None);
        for member in array.members() {
            let Some(superblock) = member.superblock() else { continue };
            let Some(place) = ppl_place(member.device(), &superblock) else { continue };
            let sectors = place.map_err(|_| member.slot())?.sectors;
            set = Some(superblock.set_uuid());
            room = room.min(usize::from(sectors) * SECTOR_BYTES - HEADER_BYTES);
            let unit = member.device().limits().logical_block.bytes();
            entries_max = entries_max.min(entries_at_once(unit));
        }
        // A record has at least one block of parity.
        if set.is_some() && room < bytes(block) {
            return Err(0);
        }
        let new = |set| Self {
            set,
            block,
            entries_max,
            room: room - room % bytes(block),
            generation: Cell::new(0),
            written: RefCell::default(),
            waiting: RefCell::default(),
            leading: Cell::new(false),
            running: Cell::new(0),
            changed: Notify::default(),
        };
        Ok(set.map(new))
    }

    /// Cuts pieces of a stripe into what may be written at once: parts of one strip, as many as fit.
    pub(super) fn steps(&self, tagging: Tagging, pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
        let most = u64_of(self.room) / SECTOR;
        let mut steps: Vec<Vec<Piece>> = Vec::new();
        let mut left = 0;
        for piece in pieces {
            let mut from = piece.rows.start;
            while from < piece.rows.end {
                let same = |step: &&mut Vec<Piece>| {
                    step.len() < self.entries_max
                        && step.last().is_some_and(|last| last.index == piece.index)
                };
                let step = steps.last_mut().filter(same).filter(|_| left > 0);
                let rows =
                    from..piece.rows.end.min(from + if step.is_some() { left } else { most });
                let content = piece.cut(tagging, &rows);
                let part = Piece { index: piece.index, rows: rows.clone(), content };
                left = if step.is_some() { left } else { most } - (rows.end - rows.start);
                from = rows.end;
                match step {
                    Some(step) => step.push(part),
                    None => steps.push(vec![part]),
                }
            }
        }
        steps
    }

    /// Returns when the log names `entries`, in the batch that this opens or joins.
    async fn record(
        &self,
        array: &Array,
        slot: usize,
        entries: Vec<(Entry, Buf)>,
    ) -> IoResult<Logged<'_>> {
        let done = Rc::<Cell<Option<IoResult>>>::default();
        let request = Request { slot, entries, done: Rc::clone(&done) };
        self.waiting.borrow_mut().push_back(request);
        loop {
            let free = || !self.leading.get() && self.running.get() == 0;
            self.changed.until(|| done.get().is_some() || free()).await;
            if let Some(result) = done.get() {
                return result.map(|()| Logged(self));
            }
            self.leading.set(true);
            let batch = self.take();
            let result = self.begin(array, &batch).await;
            if result.is_ok() {
                self.running.set(batch.len());
            }
            batch.iter().for_each(|request| request.done.set(Some(result)));
            self.leading.set(false);
            self.changed.notify_all();
        }
    }

    /// What waits, as far as it fits one record on each member.
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.waiting.borrow_mut();
        let mut batch: Vec<Request> = Vec::new();
        while let Some(next) = waiting.front() {
            let mut entries = next.entries.len();
            let length = |request: &Request| -> usize {
                request.entries.iter().map(|(_, parity)| parity.len()).sum()
            };
            let mut parity = length(next);
            for request in batch.iter().filter(|request| request.slot == next.slot) {
                entries += request.entries.len();
                parity += length(request);
            }
            if !batch.is_empty() && (entries > self.entries_max || parity > self.room) {
                break;
            }
            assert!(entries <= self.entries_max && parity <= self.room, "a step fits a record");
            batch.extend(waiting.pop_front());
        }
        batch
    }

    /// The header's list, 2 and 3: what the records name that are replaced is durable, and the new
    /// ones are.
    async fn begin(&self, array: &Array, batch: &[Request]) -> IoResult {
        array.flush(LOGGED).await?;
        let believed = array.synced() == ResyncOffset::Clean;
        let mut records: Vec<(Rc<Member>, Buf)> = Vec::new();
        for member in self.not_yet(array, believed) {
            if believed {
                self.empty(array, &member).await?;
            } else {
                records.push((member, Buf::copy_of(&void_header())));
            }
        }
        if believed {
            let generation = self.generation.get() + 1;
            self.generation.set(generation);
            for slot in 0..array.raid_disks() {
                let requests = || batch.iter().filter(|request| request.slot == slot);
                if requests().next().is_none() {
                    continue;
                }
                let entries = || requests().flat_map(|request| &request.entries);
                let headers: Vec<Entry> = entries().map(|(entry, _)| *entry).collect();
                let mut record = encode_header(self.set, generation, &headers);
                entries().for_each(|(_, parity)| record.extend_from_slice(parity.as_slice()));
                let writers = array.writers(slot).into_iter();
                records.extend(writers.map(|member| (member, Buf::copy_of(&record))));
            }
        }
        let reason = if believed { RECORD } else { VOID };
        let writes = records.iter().map(|(member, record)| write(member, 0, record, reason));
        for ((member, _), result) in records.iter().zip(join_all(writes).await) {
            if let Err(error) = result {
                array.fail(member, error).await?;
            } else if !believed {
                self.wrote(member, false);
            }
        }
        Ok(())
    }

    /// Members whose logs are not what they have to be.
    fn not_yet(&self, array: &Array, believed: bool) -> Vec<Rc<Member>> {
        self.written.borrow_mut().retain(|(member, _)| member.strong_count() > 0);
        let written = self.written.borrow();
        let is = |member: &Rc<Member>| {
            let same = |(known, how): &(Weak<Member>, bool)| {
                *how == believed && known.as_ptr() == Rc::as_ptr(member)
            };
            written.iter().any(same)
        };
        array.members().filter(|member| !is(member)).collect()
    }

    fn wrote(&self, member: &Rc<Member>, believed: bool) {
        let mut written = self.written.borrow_mut();
        written.retain(|(known, _)| known.as_ptr() != Rc::as_ptr(member));
        written.push((Rc::downgrade(member), believed));
    }

    /// Leaves nothing in the log of `member`.
    async fn empty(&self, array: &Array, member: &Rc<Member>) -> IoResult {
        let emptied = async {
            let sectors = place(member).map_or(0, |place| usize::from(place.sectors));
            let behind = (sectors * SECTOR_BYTES).saturating_sub(HEADER_BYTES);
            write(member, HEADER_BYTES, &Buf::zeroed(behind), "").await?;
            member.device().flush_for(EMPTIED).await?;
            let header = Buf::copy_of(&encode_header(self.set, self.generation.get(), &[]));
            write(member, 0, &header, RECORD).await
        };
        match emptied.await {
            Ok(()) => self.wrote(member, true),
            Err(error) => array.fail(member, error).await?,
        }
        Ok(())
    }
}

/// Where the log of `member` lies.
fn place(member: &Member) -> Option<PplPlace> {
    ppl_place(member.device(), &member.superblock()?)?.ok()
}

/// Writes to the log of `member`, `from` bytes behind its start; durably if there is a reason.
async fn write(member: &Member, from: usize, data: &Buf, reason: &'static str) -> IoResult {
    let Some(place) = place(member) else { return Ok(()) };
    let sector = place.sector + u64_of(from) / SECTOR;
    let mut bio = match reason {
        "" => Bio::write(sector, data.clone()),
        reason => Bio::write_fua(sector, data.clone()).because(reason),
    };
    super::store::submit(member.device(), &mut bio).await
}

impl Inner {
    /// Names in the log what `stores` are about to change of one stripe, if there is a log. To be held
    /// until they have.
    ///
    /// # Errors
    /// If that cannot be made durable: nothing may be stored then.
    pub(super) async fn log(&self, stores: &[Store]) -> IoResult<Option<Logged<'_>>> {
        let (Some(ppl), Some(first)) = (&self.ppl, stores.first()) else { return Ok(None) };
        let stripe = first.rows.start / self.geometry.chunk_sectors();
        let entries = self.entries(ppl, stripe, stores);
        let slot = self.geometry.p_slot(stripe);
        let logged = ppl.record(&self.array, slot, entries).await;
        let place = Sector(stripe * self.geometry.stripe_sectors());
        logged.map(Some).map_err(|error: IoError| error.kind.at(place))
    }

    /// The entries for `stores` of `stripe`: one for the rows of each parity that is stored together with a
    /// strip. Parity that is stored alone has none, and none of before.
    fn entries(&self, ppl: &Ppl, stripe: u64, stores: &[Store]) -> Vec<(Entry, Buf)> {
        let equations = self.equations(stripe);
        let start = self.geometry.strip_start(stripe).0;
        let mut runs: Vec<(usize, std::ops::Range<u64>, Vec<u8>)> = Vec::new();
        for parity in stores.iter().filter(|store| store.slot == equations.p) {
            let rows = &parity.rows;
            let of_row = |store: &&Store| {
                store.slot != equations.p
                    && store.rows.start <= rows.start
                    && rows.end <= store.rows.end
            };
            let mut written = stores.iter().filter(of_row);
            let Some(data) = written.next() else { continue };
            assert!(written.next().is_none(), "one strip of a row is written at a time");
            let strip = equations.data_index(data.slot).expect("what is not parity is data");
            let within = rows.start - data.rows.start..rows.end - data.rows.start;
            let new = data.content.slice(self.tagging, &within).data;
            let mut partial = vec![0; new.len_bytes()];
            equations.generate(&[&parity.content.data, &new], Some(&mut partial), None);
            match runs.last_mut() {
                Some((last, run, bytes)) if *last == strip && run.end == rows.start => {
                    run.end = rows.end;
                    bytes.extend(partial);
                }
                _ => runs.push((strip, rows.clone(), partial)),
            }
        }
        let entry = |(strip, rows, partial): (usize, std::ops::Range<u64>, Vec<u8>)| {
            let rows = rows.start - start..rows.end - start;
            let entry = Entry::new(&self.geometry, (stripe, strip), &rows, &partial, ppl.block);
            (entry, Buf::copy_of(&partial))
        };
        runs.into_iter().map(entry).collect()
    }

    /// Sees to it that logs that were made void can be believed again, if everything is in sync: nothing is
    /// written any more.
    pub(super) async fn close_log(&self) -> IoResult {
        let Some(ppl) = &self.ppl else { return Ok(()) };
        let void = ppl.written.borrow().iter().any(|(_, believed)| !believed);
        if void && self.array.synced() == ResyncOffset::Clean {
            ppl.begin(&self.array, &[]).await?;
        }
        Ok(())
    }
}
