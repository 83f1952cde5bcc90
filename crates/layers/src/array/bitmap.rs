//! The running write-intent bitmap: after a crash only the chunks whose bits are set are made to agree.
//!
//! ```text
//!   begin_write --> bits set already? --yes--> data
//!                     | no
//!                     +--> bits on the first member, then on all others, durably --> data
//!
//!   a chunk left alone, in sync, nobody missing --> members flushed --> its bit cleared
//! ```
//! In memory there is one bitmap, of which every member has a copy. It lies there behind the
//! superblock (the md specification, section 11); the header's event count says whether the copy may
//! be believed: it must not be less than the superblock's. Whoever uses this holds the array's lock.
//!
//! # What a crash leaves
//!
//! A bit is set:
//!
//! 1. The bit is in memory. Crash: the data is as it was.
//! 2. Its block is written on the first member, durably. Crash: one chunk too many is compared. If
//!    the block is lost with the power that copy is not believed, and the others are as before.
//! 3. The same on all others at once. Crash: the same.
//! 4. `begin_write` returns, and data is written. Crash: every member knows of the chunk.
//!
//! Writers that come meanwhile find their bits on the way and wait for the same writes, or for one
//! more round of them together. A bit that is on every member costs nothing.
//!
//! Bits are cleared, every `daemon_sleep` seconds, where no write is or was under way since the look
//! before, all is in sync and no member is missing:
//!
//! 1. Every member is flushed. Crash: the bits are set.
//! 2. If `events_cleared` is older than the members that are here, the header is written with a
//!    present one, durably: a member that left before must not believe that the bits tell all that it
//!    missed. Crash: the bits are set, and such a member is filled from the start.
//! 3. The bits go, on all members at once. Crash: some copies have them still, and what they say is
//!    put together. The chunks are in sync and on the media.
//!
//! With each round of superblocks the header says the new count, on each member before its
//! superblock, durably. Crash between: the count is higher than the superblock's, which is believed,
//! rightly: bits are always true. `events_cleared` follows the rounds in which no member is missing,
//! one behind, since a member may miss the round that is under way.
//!
//! A copy that is not the one in memory (it was not believed, or has fewer bits than others) is
//! written anew within the first round, before anything is written to the array:
//!
//! 1. Its bits behind the first block, and a flush. Crash: not believed as before, or more bits than
//!    necessary.
//! 2. Its first block, with the header, durably. Crash before: as 1. After: believed.

use super::ordering::{ANEW, EPOCH, HEADER, INTENT};
use super::{Found, Member, RangeSet};
use bio::{Bio, Buf, Device, EventKind, Events, IoError, IoResult};
use md::bitmap::{Bitmap, BitmapError, BitmapHeader, NewBitmap, Stale};
use md::superblock::Superblock;
use runtime::join_all;
use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use units::{SECTOR, Sector, u64_of, usize_of};

/// Why the bitmap of a member says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BitmapProblem {
    /// Its bytes make no sense, or do not fit.
    #[error(transparent)]
    Bytes(#[from] BitmapError),
    /// It is not of the array's present state.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// They cannot be read.
    #[error("the bitmap cannot be read: {0}")]
    Unreadable(IoError),
    /// It does not begin with a block of the member.
    #[error("the bitmap is at sector {sector}, within a block of {block} bytes")]
    Unaligned {
        /// Where it begins.
        sector: Sector,
        /// Logical block of the member.
        block: usize,
    },
}

/// Reads the bitmap on the member `device`; none: its superblock names none.
///
/// # Errors
/// [`BitmapProblem`] if there is none that could be looked at; whether it may be believed is another
/// question.
pub async fn read_bitmap(
    device: &Device,
    superblock: &Superblock,
) -> Option<Result<Bitmap, BitmapProblem>> {
    let sector = superblock.bitmap_sector()?;
    Some(read_at(device, sector, superblock).await)
}

async fn read_at(
    device: &Device,
    sector: Sector,
    superblock: &Superblock,
) -> Result<Bitmap, BitmapProblem> {
    let block = device.limits().logical_block;
    if !block.divides(sector.0) {
        return Err(BitmapProblem::Unaligned { sector, block: block.bytes() });
    }
    let room = superblock.bitmap_room(device.limits().sectors).unwrap_or(0);
    let unit = u64_of(block.bytes());
    if unit > room {
        return Err(BitmapError::Room { needed: unit, room }.into());
    }
    let read = async |from: u64, bytes: u64| {
        let read = device.read(sector + from / SECTOR, bytes / SECTOR).await;
        read.map_err(BitmapProblem::Unreadable)
    };
    let mut area = read(0, unit).await?.as_slice().to_vec();
    let needed = BitmapHeader::decode(&area)?.area_bytes().next_multiple_of(unit);
    if needed > room {
        return Err(BitmapError::Room { needed, room }.into());
    }
    while u64_of(area.len()) < needed {
        let from = u64_of(area.len());
        let piece = read(from, (needed - from).min(PIECE_BYTES)).await?;
        area.extend_from_slice(piece.as_slice());
    }
    Ok(Bitmap::decode(area)?)
}

/// What the bitmaps of an array's members say, put together; none: the array has none.
///
/// # Errors
/// Why none of them may be believed: then every chunk may be out of sync.
pub fn believed<'a>(
    freshest: &Superblock,
    found: impl Iterator<Item = &'a Result<Bitmap, BitmapProblem>>,
) -> Result<Option<Bitmap>, BitmapProblem> {
    let (mut joined, mut why): (Option<Bitmap>, _) = (None, None);
    for one in found {
        let judged = one.as_ref().map_err(|why| *why).and_then(|bitmap| {
            bitmap.header().believe(freshest)?;
            Ok(bitmap)
        });
        match (&mut joined, judged) {
            (None, Ok(bitmap)) => joined = Some(bitmap.clone()),
            // Two of the present state that differ in their chunks have nothing in common.
            (Some(joined), Ok(bitmap)) if joined.covers_as(bitmap) => joined.join(bitmap),
            (Some(joined), Ok(_)) => joined.fill(true),
            (_, Err(problem)) => drop(why.get_or_insert(problem)),
        }
    }
    match (joined, why) {
        (None, Some(why)) => Err(why),
        (joined, _) => Ok(joined),
    }
}

/// The bitmap of a running array.
pub(super) struct Intent {
    bitmap: RefCell<Bitmap>,
    /// Bytes of the largest logical block among the members.
    unit: usize,
    /// Sectors of the writes that hold a guard, by number.
    in_flight: RefCell<BTreeMap<u64, Range<u64>>>,
    next_number: Cell<u64>,
    /// Chunks that were written since the last look.
    recent: RefCell<RangeSet>,
    /// Chunks whose bits somebody waits for, and that nobody writes yet.
    wanted: RefCell<RangeSet>,
    /// Chunks whose bits are being written.
    under_way: RefCell<RangeSet>,
    /// Whether somebody looks for bits that can go.
    watched: Cell<bool>,
}

impl Intent {
    /// The bitmap of the array of `freshest`, from the copies on its `members`; where none of them is
    /// believed a new one, in which all chunks are dirty if `dirty`, which is told. None if the array
    /// has none, or there is no room for one.
    pub(super) fn new(
        freshest: &Superblock,
        members: &[Found],
        dirty: bool,
        events: &Events,
    ) -> Option<Self> {
        freshest.bitmap_sector()?;
        let limits = || members.iter().map(|found| found.device.limits());
        let unit = limits().map(|limits| limits.logical_block.bytes()).max()?;
        let copies = || members.iter().filter_map(|found| found.logs.bitmap.as_ref());
        let mut bitmap = match believed(freshest, copies()) {
            Ok(Some(bitmap)) => bitmap,
            Ok(None) => return None,
            Err(why) => {
                let rest = if dirty { ", so everything counts as dirty" } else { "" };
                let detail = format!("the write-intent bitmap is not believed{rest}: {why}");
                events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
                let room = members.iter().filter_map(|found| {
                    found.superblock.as_ref()?.bitmap_room(found.device.limits().sectors)
                });
                let room_bytes = room.min()? / u64_of(unit) * u64_of(unit);
                anew(freshest, copies().flatten().next(), room_bytes, dirty)?
            }
        };
        bitmap.pad_to(unit);
        Some(Self {
            bitmap: RefCell::new(bitmap),
            unit,
            in_flight: RefCell::default(),
            next_number: Cell::new(0),
            recent: RefCell::default(),
            wanted: RefCell::default(),
            under_way: RefCell::default(),
            watched: Cell::new(false),
        })
    }

    /// Whether `found` has it as it is in memory.
    pub(super) fn lies_on(&self, found: &Found) -> bool {
        matches!(&found.logs.bitmap, Some(Ok(copy)) if *copy == *self.bitmap.borrow())
    }

    /// What may be out of sync from sector `from` on, after a crash.
    pub(super) fn unsynced(&self, from: u64) -> RangeSet {
        let bitmap = self.bitmap.borrow();
        let mut unsynced = RangeSet::default();
        for sectors in bitmap.dirty_sectors() {
            if unsynced.len() >= super::UNSYNCED_MAX {
                unsynced.insert(sectors.start..u64::MAX);
                break;
            }
            unsynced.insert(sectors.start.max(from)..sectors.end.max(from));
        }
        unsynced
    }

    /// As it is now.
    pub(super) fn bitmap(&self) -> Ref<'_, Bitmap> {
        self.bitmap.borrow()
    }

    /// Bytes of a chunk, chunks, and those of them that are dirty.
    pub(super) fn counts(&self) -> (u32, u64, u64) {
        let bitmap = self.bitmap.borrow();
        let header = bitmap.header();
        (header.chunk_bytes(), header.bit_count(), bitmap.dirty_count())
    }

    /// Whether no chunk is dirty.
    pub(super) fn is_clean(&self) -> bool {
        self.bitmap.borrow().dirty().next().is_none()
    }

    /// The time between two looks.
    pub(super) fn period(&self) -> Duration {
        let seconds = self.bitmap.borrow().header().daemon_sleep_seconds();
        Duration::from_secs(seconds.into()).clamp(PERIOD_MIN, PERIOD_MAX)
    }

    /// Says that somebody looks for bits that can go; false: somebody does already.
    pub(super) fn watch(&self, watched: bool) -> bool {
        self.watched.replace(watched) != watched
    }

    /// A write to `sectors` begins: until [`Self::end`] with the number its bits stay.
    pub(super) fn begin(&self, sectors: Range<u64>) -> u64 {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        if !self.covers(&sectors) {
            let chunks = self.bitmap.borrow().chunks(&sectors);
            self.wanted.borrow_mut().insert(chunks);
        }
        self.in_flight.borrow_mut().insert(number, sectors);
        number
    }

    /// The write of this number ended.
    pub(super) fn end(&self, number: u64) {
        if let Some(sectors) = self.in_flight.borrow_mut().remove(&number) {
            let chunks = self.bitmap.borrow().chunks(&sectors);
            self.recent.borrow_mut().insert(chunks);
        }
    }

    /// Whether the bits of `sectors` are on every member.
    pub(super) fn covers(&self, sectors: &Range<u64>) -> bool {
        let bitmap = self.bitmap.borrow();
        let chunks = bitmap.chunks(sectors);
        bitmap.is_set(&chunks) && !self.under_way.borrow().overlaps(&chunks)
    }

    /// Sets the bits that somebody waits for, on all `members`. Gives those that could not take it.
    pub(super) async fn set_wanted(
        &self,
        mut members: Vec<Rc<Member>>,
    ) -> Vec<(Rc<Member>, IoError)> {
        let wanted = self.wanted.take();
        let mut changed = RangeSet::default();
        for chunks in wanted.iter() {
            let bytes = self.bitmap.borrow_mut().set(chunks);
            changed.insert(self.blocks(bytes));
        }
        if changed.first().is_none() || members.is_empty() {
            return Vec::new();
        }
        self.under_way.replace(wanted);
        let others = members.split_off(1);
        let mut failures = self.write(members, &changed, INTENT).await;
        failures.extend(self.write(others, &changed, INTENT).await);
        self.under_way.take();
        failures
    }

    /// Chunks whose bits may go once the members are flushed: dirty, left alone since the last look,
    /// and not in `unsynced`. This is a look.
    pub(super) fn idle(&self, unsynced: &RangeSet) -> RangeSet {
        let mut idle = RangeSet::default();
        let bitmap = self.bitmap.borrow();
        bitmap.dirty().take(RUNS_AT_ONCE).for_each(|chunks| idle.insert(chunks));
        unsynced.iter().for_each(|sectors| idle.remove(bitmap.chunks(&sectors)));
        self.without_active(&mut idle);
        self.recent.take();
        idle
    }

    /// Forgets what was written a while ago: nobody writes any more.
    pub(super) fn forget_recent(&self) {
        self.recent.take();
    }

    fn without_active(&self, chunks: &mut RangeSet) {
        let bitmap = self.bitmap.borrow();
        self.recent.borrow().iter().for_each(|recent| chunks.remove(recent));
        let in_flight = self.in_flight.borrow();
        in_flight.values().for_each(|sectors| chunks.remove(bitmap.chunks(sectors)));
    }

    /// Steps 2 and 3 of clearing `idle`. Gives the members that could not take it.
    pub(super) async fn clear(
        &self,
        mut idle: RangeSet,
        members: Vec<Rc<Member>>,
        events: u64,
    ) -> Vec<(Rc<Member>, IoError)> {
        if self.bitmap.borrow().header().events_cleared() + 1 < events {
            self.bitmap.borrow_mut().set_events_cleared(events);
            let mut first = RangeSet::default();
            first.insert(0..u64_of(self.unit));
            let failures = self.write(members.clone(), &first, EPOCH).await;
            if !failures.is_empty() {
                return failures;
            }
        }
        // Who came meanwhile keeps the bits; who comes from here on sets them again.
        self.without_active(&mut idle);
        let mut changed = RangeSet::default();
        for chunks in idle.iter() {
            let bytes = self.bitmap.borrow_mut().clear(chunks);
            changed.insert(self.blocks(bytes));
        }
        self.write(members, &changed, "").await
    }

    /// Says which events the header is to have; `whole`: no member is missing, and all that are here
    /// have the count `before`.
    pub(super) fn follow(&self, events: u64, whole: Option<u64>) {
        let mut bitmap = self.bitmap.borrow_mut();
        bitmap.set_events(events);
        if let Some(before) = whole {
            bitmap.set_events_cleared(before);
        }
    }

    /// Writes the header to `member`, or all of the bitmap if it has another one.
    pub(super) async fn write_header(&self, member: &Member) -> IoResult {
        let Some(place) = self.place(member) else { return Ok(()) };
        // What a crash cannot tear.
        let first = member.device().limits().logical_block.bytes();
        let rest = first..self.bitmap.borrow().area_bytes();
        if !member.has_bitmap() && !rest.is_empty() {
            self.write_one(member, place, rest, "").await?;
            member.device().flush_for(ANEW).await?;
        }
        self.write_one(member, place, 0..first, HEADER).await?;
        member.set_has_bitmap();
        Ok(())
    }

    /// Where the bitmap lies on `member`; none: it has no room for one.
    fn place(&self, member: &Member) -> Option<Sector> {
        let superblock = member.superblock()?;
        let (sector, limits) = (superblock.bitmap_sector()?, member.device().limits());
        let room = superblock.bitmap_room(limits.sectors)?;
        let fits = room >= u64_of(self.bitmap.borrow().area_bytes());
        (fits && limits.logical_block.divides(sector.0)).then_some(sector)
    }

    /// Writes parts of the area to all `members` at once; durably, if there is a reason for it.
    async fn write(
        &self,
        members: Vec<Rc<Member>>,
        parts: &RangeSet,
        reason: &'static str,
    ) -> Vec<(Rc<Member>, IoError)> {
        let writes = members.into_iter().map(|member| async move {
            let place = self.place(&member)?;
            for part in parts.iter() {
                let part = usize_of(part.start)..usize_of(part.end);
                if let Err(error) = self.write_one(&member, place, part, reason).await {
                    return Some((member, error));
                }
            }
            None
        });
        join_all(writes).await.into_iter().flatten().collect()
    }

    async fn write_one(
        &self,
        member: &Member,
        place: Sector,
        part: Range<usize>,
        reason: &'static str,
    ) -> IoResult {
        for start in part.clone().step_by(usize_of(PIECE_BYTES)) {
            let end = part.end.min(start + usize_of(PIECE_BYTES));
            let bytes = Buf::copy_of(&self.bitmap.borrow().encode(start..end));
            let sector = place + u64_of(start) / SECTOR;
            let mut write = match reason {
                "" => Bio::write(sector, bytes),
                reason => Bio::write_fua(sector, bytes).because(reason),
            };
            member.device().submit(&mut write).await?;
        }
        Ok(())
    }

    /// The blocks of the area in which `bytes` lie.
    fn blocks(&self, bytes: Option<Range<usize>>) -> Range<u64> {
        let bytes = bytes.unwrap_or_default();
        let start = bytes.start / self.unit * self.unit;
        u64_of(start)..u64_of(bytes.end.next_multiple_of(self.unit))
    }
}

/// A bitmap in place of one that is not believed: with its chunks, if they are known and fit.
fn anew(
    freshest: &Superblock,
    old: Option<&Bitmap>,
    room_bytes: u64,
    dirty: bool,
) -> Option<Bitmap> {
    let old = old.map(Bitmap::header);
    let new = |chunk_bytes| {
        Bitmap::new(&NewBitmap { superblock: freshest, room_bytes, chunk_bytes, dirty }).ok()
    };
    let kept = old.and_then(|old| new(Some(old.chunk_bytes())));
    let mut bitmap = kept.or_else(|| new(None))?;
    if let Some(old) = old {
        bitmap.set_daemon_sleep(old.daemon_sleep_seconds());
    }
    Some(bitmap)
}

/// Bytes of the bitmap that are read or written at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Runs of dirty chunks that one look takes in.
const RUNS_AT_ONCE: usize = 1 << 16;
/// The time between two looks, whatever the header says.
const PERIOD_MIN: Duration = Duration::from_millis(50);
const PERIOD_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
