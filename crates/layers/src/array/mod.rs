//! What the RAID layers share: the members, and what their superblocks say while the array runs.
//!
//! ```text
//!   write --> begin_write() --> superblocks say "dirty", on every member, durably --> data
//!                  |                                                                   |
//!            guard held until all members have the data <------------------------------+
//!                  |
//!        200 ms without a write: flush --> superblocks say "clean" (or how far it is in sync)
//! ```
//! An [`Array`] is held by one RAID layer. It knows slots, members, superblocks and when they must
//! be written; it knows nothing of stripes or copies. Arrays that were put together without
//! superblocks (a textual stack of bare devices) keep the same states in memory only.
//!
//! # What a crash leaves
//!
//! Superblocks are written one member after the other, each durable before the next (`round`), so
//! that there is always a last good copy of what was true before or after. A round raises the event
//! count by one, and never starts before every present member has the count of the round before:
//! at no time are two members that take part more than one event apart, which assembly allows for.
//!
//! The first write to a clean array:
//!
//! 1. Members that a crash left one event behind get the present count. Crash: as before.
//! 2. If a slot is empty that the superblocks call held: round with its device marked faulty.
//!    Crash: the absent member is stale from the first superblock on (the freshest calls it
//!    faulty); the others are at most one event apart, and no data was written yet.
//! 3. Round with `resync_offset` 0. Crash: some say dirty, and the freshest are among them:
//!    a resync that finds nothing to do. An absent member is now two events behind.
//! 4. Only now does `begin_write` return, and data is written. Crash: dirty.
//!
//! Becoming clean, after 200 ms without a write, and when closing:
//!
//! 1. No write is in flight, and none can start until the end (they wait for the lock, and then
//!    find the array clean). Crash: dirty.
//! 2. Every member is flushed. Crash: dirty.
//! 3. Round with `resync_offset` as far as redundancy is true, all ones when everywhere. Crash:
//!    the freshest say clean, which is true; if none was written yet, dirty.
//!
//! A member that fails while the array runs:
//!
//! 1. It is asked nothing any more. The write that found it does not complete. Crash: dirty with
//!    all members; no acknowledged write is missing on any of them.
//! 2. Round on the survivors with its device marked faulty. Crash: as 1, or it is stale.
//! 3. The write completes. From here on the member is stale for ever.
//!
//! Writes that begin meanwhile go to the survivors alone, and complete; but no flush does, and no write
//! with FUA, before 2 is done. Crash: they were promised to nobody.
//!
//! A member that joins, is filled, or replaces another: the header of `rebuild`.
//!
//! If a superblock cannot be written, that member is the one that failed; the round goes on to the
//! remaining members first, so that they stay one event apart, and is then repeated with the new
//! device table. If too few would be left, nobody is failed: writing ends with an error, and
//! reading goes on.
//!
//! Event counts never go back. md takes one back on a clean shutdown to keep spares quiet; here a
//! restored copy of a member must never look fresh again. See
//! `docs/decisions/0002-write-intent.md`.

mod bad_blocks;
mod bitmap;
mod bits;
pub(crate) mod checks;
mod journal;
mod limits;
mod logs;
mod member;
pub(crate) mod ordering;
mod ppl;
mod ranges;
pub(crate) mod rebuild;
mod rounds;
mod runs;
mod seats;
mod tags;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use bad_blocks::BadBlockProblem;
pub use bitmap::{BitmapProblem, believed};
pub use checks::CHECKS;
pub use logs::Logs;
pub use member::Member;
pub use ordering::ORDERINGS;
pub use ppl::PplProblem;
pub(crate) use ppl::place as ppl_place;
pub(crate) use ranges::RangeSet;
pub(crate) use runs::{in_runs, submit_at};
pub use seats::{EVERYTHING, JoinError};
pub use tags::{Disagreement, Tagging};

use bio::{Device, EventKind, Events, IoError, IoErrorKind, IoResult};
use bitmap::Intent;
use md::shape::Tolerance;
use md::superblock::{ResyncOffset, Superblock, Time};
use rounds::Rounds;
use runtime::{Notify, Permit, Semaphore};
use seats::{Seat, seats};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use units::Sector;

/// How an array is run.
#[derive(Clone)]
pub struct Options {
    /// Nothing is written, ever.
    pub read_only: bool,
    /// Which slots may be empty; without another, writing ends.
    pub tolerance: Tolerance,
    /// How far redundancy is true as the array is opened; from [`md::assemble::Assembly`].
    pub synced: ResyncOffset,
    /// Where events go.
    pub events: Events,
    /// The time of day, for superblocks only.
    pub clock: Rc<dyn Fn() -> Time>,
}

/// A member, as it was found. Its superblock says how far it is filled, and whether it is to replace
/// the holder of its slot.
pub struct Found {
    /// The slot that it holds.
    pub slot: usize,
    /// How people call it.
    pub name: Rc<str>,
    /// The whole member, superblock included.
    pub device: Device,
    /// Its data only.
    pub data: Device,
    /// Its superblock, if the array has any.
    pub superblock: Option<Superblock>,
    /// What lies beside it.
    pub logs: Logs,
}

/// The members of a running array.
pub struct Array {
    /// For what runs in the background.
    myself: Weak<Self>,
    seats: RefCell<Vec<Seat>>,
    /// Members that hold nothing.
    spares: RefCell<Vec<Found>>,
    options: Options,
    rounds: Rounds,
    intent: Option<Rc<Intent>>,
    /// One permit: whoever writes superblocks.
    lock: Rc<Semaphore>,
    /// The superblocks say dirty, so writes may go ahead.
    active: Cell<bool>,
    /// Where members may differ because a crash or a failure interrupted writes.
    unsynced: RefCell<RangeSet>,
    in_flight: Cell<usize>,
    quiet: Notify,
    /// Counts writes that began or ended.
    activity: Cell<u64>,
    /// A member left, and the superblocks do not all say so yet.
    unrecorded: Cell<bool>,
    /// Why writing ended, once it has.
    broken: Cell<Option<IoErrorKind>>,
    closed: Cell<bool>,
    counters_changed: Cell<bool>,
    /// Members are being filled.
    rebuilding: Cell<bool>,
    /// Counts members that came or went, and who wants to know of it.
    changes: Cell<u64>,
    on_change: RefCell<Option<Rc<dyn Fn()>>>,
}

/// Held while a write is under way: the array stays marked dirty.
pub struct WriteGuard {
    array: Rc<Array>,
    /// Its number among the writes that the bitmap knows of.
    number: Option<u64>,
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        let array = &self.array;
        array.activity.set(array.activity.get() + 1);
        array.in_flight.set(array.in_flight.get() - 1);
        if let (Some(intent), Some(number)) = (&array.intent, self.number) {
            intent.end(number);
        }
        if array.in_flight.get() == 0 {
            array.quiet.notify_all();
        }
    }
}

/// The time of day.
#[must_use]
pub fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::new(since.as_secs(), since.subsec_micros())
}

impl Array {
    /// An array of `slots` slots held by `members`. `freshest` is the superblock that speaks for
    /// it, which need not be one of theirs (a member that is still being filled may be fresher);
    /// none: the first of the freshest among theirs.
    ///
    /// # Panics
    /// If two members have one slot, or one has a slot that does not exist: assembly has seen to
    /// that.
    #[must_use]
    pub fn new(
        slots: usize,
        members: Vec<Found>,
        freshest: Option<&Superblock>,
        options: Options,
    ) -> Rc<Self> {
        let dirty = options.synced != ResyncOffset::Clean;
        let own = members.iter().filter_map(|found| found.superblock.as_ref());
        let speaks = freshest.or_else(|| own.rev().max_by_key(|own| own.events()));
        let unwhole = dirty || members.len() < slots;
        let intent = |speaks| Intent::new(speaks, &members, unwhole, &options.events);
        let intent = speaks.and_then(intent).map(Rc::new);
        let unsynced = match options.synced {
            ResyncOffset::Clean => RangeSet::default(),
            ResyncOffset::Below(sector) => match &intent {
                Some(intent) => intent.unsynced(sector.0),
                None => RangeSet::from(sector.0..u64::MAX),
            },
        };
        let lock = Rc::new(Semaphore::new(1));
        let new = |found: Found| {
            let has_bitmap = intent.as_ref().is_some_and(|intent| intent.lies_on(&found));
            let member = Member::new(found, &options.events, &lock);
            if has_bitmap {
                member.set_has_bitmap();
            }
            Rc::new(member)
        };
        let members: Vec<Rc<Member>> = members.into_iter().map(new).collect();
        let seats = seats(slots, members.clone());
        if unsynced.first().is_some() {
            let on_their_way = seats.iter().flat_map(Seat::members).filter(|m| m.is_on_its_way());
            on_their_way.for_each(|member| member.set_lacking(0..u64::MAX));
        }
        let rounds = Rounds::new(freshest, members.iter(), intent.clone());
        Rc::new_cyclic(|myself| Self {
            myself: Weak::clone(myself),
            seats: RefCell::new(seats),
            spares: RefCell::default(),
            rounds,
            intent,
            lock,
            active: Cell::new(false),
            unsynced: RefCell::new(unsynced),
            in_flight: Cell::new(0),
            quiet: Notify::default(),
            activity: Cell::new(0),
            unrecorded: Cell::new(false),
            broken: Cell::new(None),
            closed: Cell::new(false),
            counters_changed: Cell::new(false),
            rebuilding: Cell::new(false),
            changes: Cell::new(0),
            on_change: RefCell::default(),
            options,
        })
    }

    /// Whether nothing is written, ever.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.options.read_only
    }

    /// Where events go.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.options.events
    }

    /// The time of day.
    pub(crate) fn time(&self) -> Time {
        (self.options.clock)()
    }

    /// Up to where redundancy is true: what superblocks can say of it.
    #[must_use]
    pub fn synced(&self) -> ResyncOffset {
        let first = self.unsynced.borrow().first();
        first.map_or(ResyncOffset::Clean, |sector| ResyncOffset::Below(Sector(sector)))
    }

    /// Whether redundancy is true of `sectors` (of each member). Elsewhere members may differ
    /// because writes were interrupted.
    #[must_use]
    pub fn in_sync(&self, sectors: &Range<u64>) -> bool {
        !self.unsynced.borrow().overlaps(sectors)
    }

    /// The first sectors from `from` on of which redundancy may not be true. What is not known to
    /// end within the members reaches to the end of all numbers.
    #[must_use]
    pub fn next_unsynced(&self, from: u64) -> Option<Range<u64>> {
        self.unsynced.borrow().next(from)
    }

    /// Says that redundancy was made true of `sectors`. On disk with the next round.
    pub fn set_in_sync(&self, sectors: Range<u64>) {
        let mut unsynced = self.unsynced.borrow_mut();
        // Beyond the bound it is forgotten, which makes only more work and stricter reads.
        if unsynced.len() < UNSYNCED_MAX || !unsynced.cuts(&sectors) {
            unsynced.remove(sectors);
        }
        drop(unsynced);
        self.watch_bits();
    }

    /// Says that members may differ in `sectors`, because a write could not be finished. Called
    /// while its guard is held, so the superblocks say dirty already, or a journal names what was written.
    pub fn set_unsynced(&self, sectors: Range<u64>) {
        self.unsynced.borrow_mut().insert(sectors);
    }

    /// Writes that hold a guard.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// While the permit is held nobody writes superblocks: what lies on the members is what
    /// [`Member::superblock`] says. Not to be held over anything that changes the array.
    pub async fn hold_superblocks(&self) -> Permit {
        self.lock.acquire(1).await
    }

    /// To be called, and the guard held, around everything that writes new content to `sectors` of
    /// the members.
    ///
    /// # Errors
    /// `ReadOnly`; `Unavailable` after closing, and once too few members took their superblocks.
    pub async fn begin_write(self: &Rc<Self>, sectors: Range<u64>) -> IoResult<WriteGuard> {
        self.refuse_writing()?;
        self.activity.set(self.activity.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        let intent = self.intent.as_deref();
        let number = intent.map(|intent| intent.begin(sectors.clone()));
        let guard = WriteGuard { array: Rc::clone(self), number };
        if self.active.get() && intent.is_none_or(|intent| intent.covers(&sectors)) {
            return Ok(guard);
        }
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        if !self.active.get() {
            self.become_active().await?;
        }
        if let Some(intent) = intent {
            let members = self.members().collect();
            self.settle_bits(intent.set_wanted(members).await).await?;
            self.watch_bits();
        }
        Ok(guard)
    }

    /// Whether something may be written at all: for layers whose writes leave nothing untrue in the
    /// superblocks; others [begin](Self::begin_write).
    ///
    /// # Errors
    /// As [`Self::begin_write`].
    pub fn refuse_writing(&self) -> IoResult {
        if self.options.read_only {
            return Err(IoErrorKind::ReadOnly.at(Sector::ZERO));
        }
        if self.closed.get() {
            return Err(IoErrorKind::Unavailable.at(Sector::ZERO));
        }
        self.unbroken()
    }

    /// The header's first list.
    async fn become_active(self: &Rc<Self>) -> IoResult {
        let changed = self.rounds.table_changed(&self.members().collect::<Vec<_>>());
        if changed {
            self.round(self.rounds.on_disk()).await?;
        }
        let resync = self.while_written();
        let said = self.has_journal() && resync == self.rounds.on_disk();
        if changed || !said {
            self.round(resync).await?;
        }
        self.active.set(true);
        let array = Rc::downgrade(self);
        drop(runtime::spawn(settle_when_idle(array)));
        Ok(())
    }

    /// Records on disk how far redundancy is true, all of it if it is everywhere; does nothing
    /// while writes are in flight or if it is recorded already. The header's second list.
    ///
    /// # Errors
    /// What the last members said; the superblocks then say less than is true.
    pub async fn settle(&self) -> IoResult {
        if self.options.read_only {
            return Ok(());
        }
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        let settled = self.rounds.on_disk() == self.synced() && !self.any_written_over();
        if self.in_flight.get() > 0 || settled {
            // With a journal that is so after every write.
            self.active.set(self.active.get() && (self.in_flight.get() > 0 || !self.has_journal()));
            return Ok(());
        }
        if self.members().any(|member| member.overclaims()) {
            // Before anything says that all is in sync.
            self.round(self.rounds.on_disk()).await?;
        }
        self.active.set(false);
        let synced = self.synced();
        self.flush_and_forget().await?;
        self.round(synced).await
    }

    /// Makes every completed write durable on every member, for the sake of `reason`. A member that cannot is failed: what
    /// it acknowledged may be gone.
    ///
    /// # Errors
    /// What a member said that cannot be spared; writing then ends, since a flush that failed is
    /// never repeated as if it had not. `NoSpace` fails nobody: the client may make room.
    pub async fn flush(&self, reason: &'static str) -> IoResult {
        self.unbroken()?;
        for (member, error) in self.flush_each(reason).await {
            match error.kind {
                IoErrorKind::NoSpace => return Err(error),
                _ => self.fail(&member, error).await.inspect_err(|e| self.end_writing(*e))?,
            }
        }
        self.recorded().await
    }

    /// Waits until the superblocks know of every member that left: what is durable on the others alone
    /// may only then be promised, or the one that left could speak for it after a crash.
    ///
    /// # Errors
    /// What the survivors said.
    pub async fn recorded(&self) -> IoResult {
        if self.unrecorded.get() { self.record_members().await } else { Ok(()) }
    }

    async fn flush_each(&self, reason: &'static str) -> Vec<(Rc<Member>, IoError)> {
        let flushes = self.members().map(|member| async move {
            let result = member.flush(reason).await;
            result.err().map(|error| (member, error))
        });
        runtime::join_all(flushes).await.into_iter().flatten().collect()
    }

    /// As [`Self::flush`], with the lock held and the round still to come.
    async fn flush_members(&self, reason: &'static str) -> IoResult {
        for (member, error) in self.flush_each(reason).await {
            match error.kind {
                IoErrorKind::NoSpace => return Err(error),
                _ => self.drop_member(&member, error).inspect_err(|e| self.end_writing(*e))?,
            }
        }
        Ok(())
    }

    /// Says that `member` no longer answers or cannot be written. When this returns
    /// Ok, the survivors' superblocks know; only then may a write that it missed complete. The
    /// header's third list.
    ///
    /// # Errors
    /// `error`, if the array cannot spare the member: it then stays; or what the survivors said.
    pub async fn fail(&self, member: &Rc<Member>, error: IoError) -> IoResult {
        self.drop_member(member, error)?;
        self.record_members().await
    }

    /// Writes down who takes part, if the superblocks say something else.
    async fn record_members(&self) -> IoResult {
        if self.options.read_only {
            return Ok(());
        }
        let _lock = self.lock.acquire(1).await;
        self.unbroken()?;
        if self.rounds.table_changed(&self.members().collect::<Vec<_>>()) {
            self.round(self.rounds.on_disk()).await?;
        }
        Ok(())
    }

    /// Counts `sectors` sectors of `member` as corrected; on disk with the next round.
    pub fn count_corrected(&self, member: &Member, sectors: u64) {
        member.count_corrected(sectors);
        self.counters_changed.set(true);
    }

    /// Waits for the writes in flight, refuses further ones, and leaves the superblocks saying how
    /// far redundancy is true. Whoever resyncs has stopped before.
    ///
    /// # Errors
    /// What the members said; the array is then as after a crash, nothing is lost.
    pub async fn close(&self) -> IoResult {
        if self.closed.replace(true) || self.options.read_only {
            return Ok(());
        }
        self.quiet.until(|| self.in_flight.get() == 0).await;
        self.settle().await?;
        if self.counters_changed.get() || !self.members().all(|member| member.is_claimed()) {
            let _lock = self.lock.acquire(1).await;
            // What was healed on an array that was never dirty is in the members' caches still.
            self.flush_and_forget().await?;
            self.round(self.rounds.on_disk()).await?;
        }
        let Some(intent) = &self.intent else { return Ok(()) };
        let _lock = self.lock.acquire(1).await;
        intent.forget_recent();
        while self.clear_bits().await? {}
        Ok(())
    }

    /// Ends without a claim about redundancy, as after a crash: when this returns nothing touches the
    /// members any more, which may be closed.
    pub async fn abandon(&self) {
        self.closed.set(true);
        drop(self.lock.acquire(1).await);
    }

    /// One change of the superblocks, with the lock held. Repeated while members fail on it.
    async fn round(&self, resync: ResyncOffset) -> IoResult {
        self.try_round(resync).await.inspect_err(|error| self.end_writing(*error))
    }

    fn unbroken(&self) -> IoResult {
        self.broken.get().map_or(Ok(()), |kind| Err(kind.at(Sector::ZERO)))
    }

    fn end_writing(&self, error: IoError) {
        self.active.set(false);
        if self.broken.replace(Some(error.kind)).is_none() {
            let detail = format!("the members cannot be kept in step, writing ends: {error}");
            self.options.events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
        }
    }

    async fn try_round(&self, resync: ResyncOffset) -> IoResult {
        self.counters_changed.set(false);
        loop {
            let time = self.time();
            // Each failure removes a member, so this ends.
            let whole = self.missing_count() == 0;
            let members: Vec<Rc<Member>> = self.members().collect();
            let failures = self.rounds.write(&members, whole, resync, time).await?;
            if failures.is_empty() {
                let members: Vec<Rc<Member>> = self.members().collect();
                self.unrecorded.set(self.rounds.table_changed(&members));
                return Ok(());
            }
            for (member, error) in failures {
                self.drop_member(&member, error)?;
            }
        }
    }
}

/// Runs while the array is marked dirty.
async fn settle_when_idle(array: Weak<Array>) {
    let mut seen = None;
    loop {
        runtime::sleep(IDLE).await;
        let Some(array) = array.upgrade().filter(|array| !array.closed.get()) else { return };
        let now = Some(array.activity.get());
        if array.in_flight.get() == 0 && now == seen {
            // An error was told as an event, and is met again by whoever writes next.
            let _ = array.settle().await;
        }
        if !array.active.get() || array.closed.get() {
            return;
        }
        seen = now;
    }
}

/// Ranges that are not in sync, at most: beyond, no more of them are cut in two.
const UNSYNCED_MAX: usize = 1 << 18;
/// md's safe mode delay.
const IDLE: Duration = Duration::from_millis(200);
