//! One member of a running array.
//!
//! What a member does not hold yet of its part of the array are its *holes*: sectors of its data.
//! It is written everywhere, and read only where it has none. Its superblock claims that it is
//! filled below its first hole, as that was before its last flush: what was filled since is lost
//! with the power.
//!
//! Where a crash may have left members different, one that is on its way (filled only in part, or a
//! replacement) is filled anew: others are made to agree, and it would not be among them.

use super::bad_blocks::{BadSectors, Guarded};
use super::ordering::RECORDED;
use super::{Found, PplProblem, RangeSet};
use bio::{Bio, Buf, Device, EventKind, Events, IoResult};
use md::ppl::Log;
use md::superblock::{DeviceFlags, Features, Superblock};
use runtime::Semaphore;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

/// One member of a running array, until it fails or is replaced.
pub struct Member {
    slot: usize,
    name: Rc<str>,
    device: Device,
    data: Device,
    /// The same without what is bad.
    guarded: Device,
    bad: Rc<BadSectors>,
    /// Whoever writes superblocks has it.
    lock: Rc<Semaphore>,
    data_offset: Sector,
    superblock: RefCell<Option<Superblock>>,
    events: Events,
    /// It takes no part any more.
    failed: Cell<bool>,
    /// Whether the write-intent bitmap lies on it as it is in memory.
    has_bitmap: Cell<bool>,
    /// It stands beside the holder of its slot, which it is to replace.
    replaces: Cell<bool>,
    /// What it does not hold, in sectors of its data.
    holes: RefCell<RangeSet>,
    /// It lacked something when it came, and no rebuild has come to its end since.
    filling: Cell<bool>,
    /// Sectors that nobody could give it, and that are recorded as bad therefore.
    given_up: Cell<u64>,
    /// Below what it was filled, durably; none: everywhere.
    claim: Cell<Option<Sector>>,
    /// Sectors corrected since the superblock was written.
    corrected: Cell<u32>,
    /// Its partial parity log as it was found, until somebody takes it.
    ppl: RefCell<Option<Result<Log, PplProblem>>>,
}

impl Member {
    /// A member as it was found: filled as far as its superblock says.
    pub(super) fn new(found: Found, events: &Events, lock: &Rc<Semaphore>) -> Self {
        let events = events.for_member(&found.name);
        if let Err(why) = &found.logs.bad_blocks {
            let detail = format!("nothing on it is known to be good until it is written: {why}");
            events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
        }
        let superblock = found.superblock.as_ref();
        let data_offset = superblock.map_or(Sector::ZERO, Superblock::data_offset);
        let data = data_offset.0..data_offset.0.saturating_add(found.data.limits().sectors);
        let bad = BadSectors::new(&found.device, superblock, (&found.logs.bad_blocks, data));
        let claim = superblock.and_then(Superblock::recovery_offset);
        let replaces = superblock.is_some_and(|own| own.features().contains(Features::REPLACEMENT));
        let mut holes = RangeSet::default();
        let end = found.data.limits().sectors;
        if let Some(filled) = claim.filter(|filled| filled.0 < end) {
            holes.insert(filled.0..end);
        }
        Self {
            guarded: Guarded::over(found.data.clone(), &bad, data_offset),
            bad,
            lock: Rc::clone(lock),
            slot: found.slot,
            name: found.name,
            device: found.device,
            data: found.data,
            data_offset,
            superblock: RefCell::new(found.superblock),
            events,
            failed: Cell::new(false),
            has_bitmap: Cell::new(false),
            replaces: Cell::new(replaces),
            holes: RefCell::new(holes),
            filling: Cell::new(claim.is_some() || replaces),
            given_up: Cell::new(0),
            claim: Cell::new(claim),
            corrected: Cell::new(0),
            ppl: RefCell::new(found.logs.ppl),
        }
    }

    /// A member that holds all but `holes`, durably.
    pub(super) fn to_fill(
        found: Found,
        holes: &RangeSet,
        replaces: bool,
        (events, lock): (&Events, &Rc<Semaphore>),
    ) -> Self {
        let member = Self::new(found, events, lock);
        member.replaces.set(replaces);
        let end = member.data.limits().sectors;
        let mut own = RangeSet::default();
        holes.iter().for_each(|hole| own.insert(hole.start.min(end)..hole.end.min(end)));
        member.holes.replace(own);
        member.claim.set(member.filled_below());
        member.filling.set(true);
        member
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// How people call it.
    #[must_use]
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// The whole of it, superblock included.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its data. What is bad of it cannot be read, and is no longer bad once it was written.
    #[must_use]
    pub fn data(&self) -> &Device {
        if self.bad.is_empty() { &self.data } else { &self.guarded }
    }

    /// Whether some of these sectors of its data are recorded as bad.
    #[must_use]
    pub fn is_bad(&self, sectors: &Range<u64>) -> bool {
        !self.bad.is_empty() && self.bad.overlap(&self.on_device(sectors))
    }

    /// Records that these sectors of its data hold nothing that anybody may be given; durable when this
    /// returns. Until they are written they read as `Medium`.
    ///
    /// # Errors
    /// `Unsupported` if there is no log that has room; else what the member says. They are bad in memory
    /// in any case.
    pub async fn record_bad(&self, sectors: Range<u64>) -> IoResult {
        let _lock = self.lock.acquire(1).await;
        self.bad.record(&self.on_device(&sectors)).await?;
        let superblock = self.superblock();
        let unsaid = |own: &Superblock| !own.features().contains(Features::BAD_BLOCKS);
        if let Some(mut own) = superblock.filter(unsaid) {
            own.set_has_bad_blocks(true);
            let bytes = Buf::copy_of(&own.encode());
            let mut write = Bio::write_fua(own.super_offset(), bytes).because(RECORDED);
            self.device.submit(&mut write).await?;
            self.set_superblock(own);
        }
        Ok(())
    }

    /// The same where the bad block log has room; elsewhere nothing changes. Whether they are recorded.
    pub(crate) async fn disown(&self, sectors: Range<u64>) -> bool {
        self.bad.has_room(&self.on_device(&sectors)) && self.record_bad(sectors).await.is_ok()
    }

    fn on_device(&self, sectors: &Range<u64>) -> Range<u64> {
        let at = |sector: u64| self.place(Sector(sector)).0;
        at(sectors.start)..at(sectors.end)
    }

    pub(super) fn bad(&self) -> &BadSectors {
        &self.bad
    }

    /// Where sector `sector` of its data lies on the whole of it: the address for events, the same
    /// that the layers below use.
    #[must_use]
    pub fn place(&self, sector: Sector) -> Sector {
        self.data_offset + sector.0
    }

    /// Events that happen on it.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Its superblock as last written.
    #[must_use]
    pub fn superblock(&self) -> Option<Superblock> {
        self.superblock.borrow().clone()
    }

    /// Whether others should be read first, as its superblock asks.
    #[must_use]
    pub fn write_mostly(&self) -> bool {
        let superblock = self.superblock.borrow();
        let flags = superblock.as_ref().map(Superblock::device_flags);
        flags.is_some_and(|flags| flags.contains(DeviceFlags::WRITE_MOSTLY))
    }

    /// Whether it stands beside the holder of its slot, which it is to replace.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.replaces.get()
    }

    pub(super) fn set_replaces(&self, replaces: bool) {
        self.replaces.set(replaces);
    }

    /// Whether it holds all of `sectors` of its data.
    #[must_use]
    pub fn holds(&self, sectors: &Range<u64>) -> bool {
        !self.holes.borrow().overlaps(sectors)
    }

    /// Whether it holds all of its part of the array.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.holes.borrow().len() == 0
    }

    /// Whether it holds all that is left of its part of the array: what it lacks is lost.
    #[must_use]
    pub fn is_as_complete_as_can_be(&self) -> bool {
        !self.filling.get() || self.is_complete()
    }

    /// A rebuild has come to its end. Whether it was the first.
    pub(super) fn end_filling(&self) -> bool {
        self.filling.replace(false)
    }

    /// Sectors of its data that it does not hold.
    #[must_use]
    pub fn lacking_sectors(&self) -> u64 {
        self.holes.borrow().iter().map(|hole| hole.end - hole.start).sum()
    }

    /// The first sectors from `from` on that it does not hold.
    #[must_use]
    pub fn next_hole(&self, from: u64) -> Option<Range<u64>> {
        self.holes.borrow().next(from)
    }

    /// Up to where it is filled; none: everywhere.
    fn filled_below(&self) -> Option<Sector> {
        self.holes.borrow().first().map(Sector)
    }

    /// Says that it was given what belongs to `sectors`.
    pub(crate) fn set_filled(&self, sectors: Range<u64>) {
        let mut holes = self.holes.borrow_mut();
        // Beyond the bound it is forgotten, and filled once more.
        if holes.len() > 0 && (holes.len() < HOLES_MAX || !holes.cuts(&sectors)) {
            holes.remove(sectors);
        }
    }

    /// Says that nobody can give it `sectors`. Where its bad block log has room they are recorded there, and
    /// it is as full as it can be; elsewhere they stay a hole.
    pub(crate) async fn give_up(&self, sectors: Range<u64>) {
        if !self.failed() && self.disown(sectors.clone()).await {
            self.given_up.set(self.given_up.get() + sectors.end - sectors.start);
            self.set_filled(sectors);
        }
    }

    /// Sectors of its data that nobody could give it since it takes part, and that are recorded as bad
    /// therefore.
    #[must_use]
    pub fn given_up_sectors(&self) -> u64 {
        self.given_up.get()
    }

    /// Makes what it holds durable, after which its superblock may claim it.
    pub(super) async fn flush(&self, reason: &'static str) -> IoResult {
        let filled = self.filled_below();
        self.device.flush_for(reason).await?;
        self.claim.set(least(filled, self.filled_below()));
        Ok(())
    }

    /// Says that what it holds of `sectors` is not to be believed: it was written when others were
    /// not, and nobody makes it agree with them.
    pub(crate) fn set_lacking(&self, sectors: Range<u64>) {
        let end = self.data.limits().sectors;
        self.holes.borrow_mut().insert(sectors.start.min(end)..sectors.end.min(end));
        self.claim.set(least(self.claim.get(), self.filled_below()));
        self.filling.set(true);
    }

    /// Whether it is on its way to be as the others, so that nothing is lost by filling it anew.
    pub(crate) fn is_on_its_way(&self) -> bool {
        self.replaces() || !self.is_complete()
    }

    /// Whether its superblock says that it holds more than it does.
    pub(super) fn overclaims(&self) -> bool {
        let superblock = self.superblock.borrow();
        let said = superblock.as_ref().map(Superblock::recovery_offset);
        said.is_some_and(|said| least(said, self.claim.get()) != said)
    }

    /// What its superblock may say of how far it is filled.
    pub(super) fn claim(&self) -> Option<Sector> {
        self.claim.get()
    }

    /// Whether its superblock says all that it may.
    pub(super) fn is_claimed(&self) -> bool {
        let superblock = self.superblock.borrow();
        superblock.as_ref().is_none_or(|own| own.recovery_offset() == self.filled_below())
    }

    /// Whether it no longer takes part.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    pub(super) fn set_failed(&self) {
        self.failed.set(true);
    }

    pub(super) fn has_bitmap(&self) -> bool {
        self.has_bitmap.get()
    }

    pub(super) fn set_has_bitmap(&self) {
        self.has_bitmap.set(true);
    }

    /// Its partial parity log as it was found; none: it has none, or that was taken.
    pub(crate) fn take_ppl(&self) -> Option<Result<Log, PplProblem>> {
        self.ppl.take()
    }

    pub(super) fn set_superblock(&self, superblock: Superblock) {
        *self.superblock.borrow_mut() = Some(superblock);
    }

    pub(super) fn count_corrected(&self, sectors: u64) {
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
        self.corrected.set(self.corrected.get().saturating_add(sectors));
    }

    pub(super) fn take_corrected(&self) -> u32 {
        self.corrected.take()
    }
}

/// The lesser of two claims; none is everything.
fn least(a: Option<Sector>, b: Option<Sector>) -> Option<Sector> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Holes, at most: beyond, no more of them are cut in two.
const HOLES_MAX: usize = 1 << 16;
