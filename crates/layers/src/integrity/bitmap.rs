//! Bitmap mode: writing without a journal (direct.rs), with a note on the disk of where.
//!
//! ```text
//!   journal area:  | bits | what was there |      bit set: tags of the region may not fit its data
//!
//!   a write --> bit durable --> data, tags (direct.rs)
//!   in time --> tags and data durable --> bits of regions without a write since are cleared
//! ```
//!
//! # What a crash leaves
//!
//! Activation, of a volume whose journal is home (recover.rs):
//!
//! 1. The flag is set, with the regions' size, in one write. Before: a journal that holds nothing
//!    new. After: the journal's bytes as bits: more is suspect than need be. (Nobody can tell them
//!    from bits, which leave most of a sector as the journal left it. A recalculation that is asked
//!    for then takes these regions for doubtful too; how much that is was told.)
//! 2. The bits are written, all clear but for those of what a recalculation has still to do. Crash:
//!    as in 1, or nothing is suspect.
//!
//! If the bitmap was in use with regions of another size, everything is suspect: first the bits of
//! both sizes are all set, then the size is changed. Crash: everything is suspect.
//!
//! A write:
//!
//! 1. The bit is set, durable. Crash: suspect, and nothing was written.
//! 2. Data and tags go home. Crash: suspect, and as direct.rs says.
//! 3. Tags and data are durable. Crash: suspect, and all is right.
//! 4. The bit is cleared, unless a write to its region began since 3 began, or is under way, or the
//!    region is suspect or was still to be recalculated when 3 began. Crash: suspect or not, and all
//!    is right.
//!
//! Closing:
//!
//! 1. Everything is flushed. Crash: as before.
//! 2. The journal is initialised. Crash: its bytes as bits, and all is home.
//! 3. The flag is cleared. Crash: as 2, or as the kernel leaves it.
//!
//! # What was suspect when it was opened
//!
//! Every read is verified, so a suspect block is right or an error. Its region's bit stays until a
//! walk over the region found every tag valid: whoever heals from peers, or recomputes because a
//! person asks, finds there what is to be looked at, and so does the next opening. Regions with a bad
//! block are walked again when something was written to them. With suspect regions left, closing
//! writes their bits and leaves the flag: the volume is as after a crash, with less to suspect.
//!
//! What lies beyond the position of a recalculation is not called suspect: its tags were never said to
//! be valid, which is more.
//!
//! Opened in another mode, what is suspect is told, once, or recalculated, if that was asked for; then
//! the journal is initialised, and the flag is cleared. Crash: the same once more. What does not verify
//! stays unreadable until it is written.

use super::direct::Direct;
use super::open::OpenError;
use super::ordering::{BITS, LEAVE_BITMAP};
use super::recover::initialise;
use super::{Inner, Journal};
use ::integrity::bitmap::{BitmapError, UNIT_BYTES};
use ::integrity::{Bitmap, Flags, Sequence};
use bio::{Bio, Buf, EventKind, IoResult};
use runtime::{Notify, RangeLock, join_all};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use units::{SECTOR, Sector, u64_of};

/// The bits of a volume that is open in this mode.
pub(super) struct Regions {
    /// What the bits on the device are to be: those of every region with a write that may not be
    /// durable, and of the suspect ones. A bit is set here before it is set there.
    wanted: RefCell<Bitmap>,
    /// Bits that are certainly set on the device.
    durable: RefCell<Bitmap>,
    /// Regions that were written to since the flush began that will clear bits.
    recent: RefCell<Bitmap>,
    /// Writes under way.
    active: RefCell<BTreeMap<u64, (Sector, u64)>>,
    next: Cell<u64>,
    /// Regions that were dirty at the crash and have not been found valid.
    suspect: RefCell<Bitmap>,
    /// Suspect regions that may have become valid since they were looked at.
    unwalked: RefCell<Bitmap>,
    /// The walk waits: whatever it would find is about to be recalculated.
    paused: Cell<bool>,
    /// A walk is under way; whoever waits for its end.
    walking: Cell<bool>,
    walked: Notify,
    /// The last unit as it was found: what lies behind the bits is kept.
    last_unit: Vec<u8>,
    /// Held by whoever writes bits.
    writing: RangeLock,
    changed: Notify,
}

/// A write under way; its region is not cleaned before this is dropped, and a flush began after.
pub(super) struct Marked<'a> {
    regions: &'a Regions,
    id: u64,
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        self.regions.active.borrow_mut().remove(&self.id);
    }
}

impl Regions {
    fn new(bits: Bitmap, durable: Bitmap, suspect: Bitmap, last_unit: Vec<u8>) -> Self {
        let mut recent = bits.clone();
        recent.clean_all();
        Self {
            wanted: RefCell::new(bits),
            durable: RefCell::new(durable),
            recent: RefCell::new(recent),
            active: RefCell::default(),
            next: Cell::default(),
            unwalked: RefCell::new(suspect.clone()),
            suspect: RefCell::new(suspect),
            paused: Cell::default(),
            walking: Cell::default(),
            walked: Notify::default(),
            last_unit,
            writing: RangeLock::default(),
            changed: Notify::default(),
        }
    }

    /// A flush begins that clears the bits of what was written before.
    fn flush_begins(&self) {
        let mut recent = self.recent.borrow_mut();
        recent.clean_all();
        for &(sector, sectors) in self.active.borrow().values() {
            recent.mark(sector, sectors);
        }
    }

    /// Whether a range touches a suspect region.
    pub fn is_suspect(&self, sector: Sector, sectors: u64) -> bool {
        self.suspect.borrow().is_dirty(sector, sectors)
    }

    /// What is suspect, in order.
    pub fn suspect(&self) -> Vec<(Sector, u64)> {
        ranges(&self.suspect.borrow())
    }

    /// The same, region by region.
    pub fn suspects(&self) -> Bitmap {
        self.suspect.borrow().clone()
    }

    /// Has the walk wait, or go on.
    pub fn pause(&self, paused: bool) {
        self.paused.set(paused);
        self.changed.notify_all();
    }

    /// Ends the walk.
    pub fn stop(&self) {
        self.changed.notify_all();
        self.walked.notify_all();
    }

    /// Waits until every suspect region that may have become valid was looked at, or `ended`.
    pub async fn walked(&self, ended: impl Fn() -> bool) {
        self.changed.notify_all();
        let idle = || !self.walking.get() && self.unwalked.borrow().dirty_count() == 0;
        self.walked.until(|| ended() || idle()).await;
    }

    /// A range was found valid, or made so: the regions that lie wholly in it are not suspect.
    pub fn acquit(&self, sector: Sector, sectors: u64) {
        self.suspect.borrow_mut().clean(sector, sectors);
        self.unwalked.borrow_mut().clean(sector, sectors);
    }

    /// The unit `unit` of `bits` as it is to lie on the device.
    fn unit(&self, bits: &Bitmap, unit: u64) -> Buf {
        let mut bytes = Buf::zeroed(UNIT_BYTES);
        if unit + 1 == bits.units() {
            bytes.as_mut_slice().copy_from_slice(&self.last_unit);
        }
        bits.encode_unit(unit, bytes.as_mut_slice());
        bytes
    }
}

/// The dirty ranges of a bitmap, in order. A disk may say that every other region is dirty: from
/// some number on the last range covers all that follow.
fn ranges(bitmap: &Bitmap) -> Vec<(Sector, u64)> {
    let mut dirty = bitmap.dirty();
    let mut ranges: Vec<(Sector, u64)> = dirty.by_ref().take(RANGES_MAX).collect();
    if let (Some(last), Some((sector, sectors))) = (ranges.last_mut(), dirty.last()) {
        last.1 = sector.0 + sectors - last.0.0;
    }
    ranges
}

/// Where the bits begin.
fn place(unit: u64) -> Sector {
    Sector(::integrity::superblock::AREA_SECTORS + unit * u64_of(UNIT_BYTES) / SECTOR)
}

impl Inner {
    /// An empty bitmap with regions of `log2` blocks.
    fn bitmap_of(&self, log2: u8) -> Result<Bitmap, BitmapError> {
        Bitmap::new(&self.layout, log2)
    }

    /// The bitmap that the device holds, and its last unit as it lies there.
    async fn read_bitmap(&self, log2: u8) -> Result<(Bitmap, Vec<u8>), OpenError> {
        let units = self.bitmap_of(log2)?.units();
        let at_once = (self.metadata().limits().max_bytes / u64_of(UNIT_BYTES)).clamp(1, 256);
        let mut area = Vec::new();
        for first in (0..units).step_by(units::usize_of(at_once)) {
            let count = at_once.min(units - first);
            let sectors = place(first + count).0 - place(first).0;
            area.extend_from_slice(self.metadata().read(place(first), sectors).await?.as_slice());
        }
        let bitmap = Bitmap::decode(&self.layout, log2, &area)?;
        Ok((bitmap, area.split_off(area.len() - UNIT_BYTES)))
    }

    /// What the bitmap on the device says is suspect; everything, if it makes no sense.
    ///
    /// # Errors
    /// What the device says.
    async fn stored_bitmap(&self) -> Result<Bitmap, OpenError> {
        match self.read_bitmap(self.area.superblock().log2_blocks_per_bitmap_bit).await {
            Ok((bitmap, _)) => Ok(bitmap),
            Err(OpenError::Bitmap(_)) => {
                let mut all = self.bitmap_of(ALL_LOG2)?;
                all.mark_all();
                Ok(all)
            }
            Err(error) => Err(error),
        }
    }

    /// The same as ranges, in order.
    ///
    /// # Errors
    /// What the device says.
    pub(super) async fn stored_suspects(&self) -> Result<Vec<(Sector, u64)>, OpenError> {
        Ok(ranges(&self.stored_bitmap().await?))
    }

    /// Makes a volume whose bitmap was in use one with a journal that holds nothing, and tells what is
    /// suspect, unless it was to be recalculated.
    pub(super) async fn retire_bitmap(&mut self, recalculate: bool) -> Result<(), OpenError> {
        let suspect = self.stored_bitmap().await?;
        if recalculate {
            self.tell_suspect(&ranges(&suspect), RECALCULATED);
            let done = self.recalculate_at_open(&suspect).await;
            done.map_err(|kind| kind.at(Sector::ZERO))?;
        } else {
            self.suspect = ranges(&suspect);
            self.tell_suspect(&self.suspect, UNREADABLE);
        }
        Ok(self.leave_bitmap().await?)
    }

    /// Tells which ranges are suspect, and what becomes of them.
    pub(super) fn tell_suspect(&self, suspect: &[(Sector, u64)], fate: &str) {
        for &(sector, sectors) in suspect.iter().take(EVENTS_MAX) {
            let detail = format!("was being written when bitmap mode ended: {fate}");
            self.events.emit_detail(EventKind::Note, sector, sectors, detail);
        }
        let rest = &suspect[EVENTS_MAX.min(suspect.len())..];
        if let (Some((first, _)), Some((last, sectors))) = (rest.first(), rest.last()) {
            let detail = format!("{} more such ranges in here", rest.len());
            let sectors = (*last + *sectors).0 - first.0;
            self.events.emit_detail(EventKind::Note, *first, sectors, detail);
        }
    }

    /// Initialises the journal, then clears the flag.
    async fn leave_bitmap(&self) -> IoResult {
        let journal = &self.layout.journal;
        let sections: Vec<u32> = (0..journal.sections).collect();
        let (metadata, first) = (self.metadata(), Sequence::FIRST);
        initialise(metadata, &self.codec, journal, &sections, first, LEAVE_BITMAP).await?;
        self.change_superblock(|superblock| {
            superblock.flags = Flags(superblock.flags.0 & !Flags::DIRTY_BITMAP.0);
        })
        .await
        .map_err(|kind| kind.at(Sector::ZERO))
    }

    /// Takes the journal's area for bits, of `wanted` blocks per region if that is said.
    pub(super) async fn activate_bitmap(&self, wanted: Option<u8>) -> Result<Regions, OpenError> {
        let superblock = self.area.superblock();
        let stored = superblock.log2_blocks_per_bitmap_bit;
        let log2 = wanted.unwrap_or(stored);
        let (found, last_unit) = self.read_bitmap(log2).await?;
        let mut clear = found.clone();
        clear.clean_all();
        let in_use = superblock.flags.has(Flags::DIRTY_BITMAP);
        if in_use && log2 == stored {
            let (mut bits, mut suspect) = (found.clone(), found.clone());
            self.mark_uncovered(&mut bits);
            if let Some((sector, sectors)) = self.coverage.to_be_recalculated() {
                suspect.clean(sector, sectors);
            }
            let regions = Regions::new(bits.clone(), bits.clone(), suspect, last_unit);
            self.write_bits(&regions, &bits, bits.differing_units(&found)).await?;
            return Ok(regions);
        }
        let set_up = |superblock: &mut ::integrity::Superblock| {
            superblock.flags = superblock.flags.with(Flags::DIRTY_BITMAP);
            superblock.log2_blocks_per_bitmap_bit = log2;
        };
        if !in_use {
            self.change_superblock(set_up).await.map_err(|kind| kind.at(Sector::ZERO))?;
            let mut bits = clear.clone();
            self.mark_uncovered(&mut bits);
            let regions = Regions::new(bits.clone(), bits.clone(), clear, last_unit);
            self.write_bits(&regions, &bits, 0..bits.units()).await?;
            return Ok(regions);
        }
        let mut all = clear.clone();
        all.mark_all();
        if let Ok((mut old, last_unit)) = self.read_bitmap(stored).await {
            old.mark_all();
            let nothing = Regions::new(old.clone(), old.clone(), old.clone(), last_unit);
            self.write_bits(&nothing, &old, 0..old.units()).await?;
        }
        let (_, last_unit) = self.read_bitmap(log2).await?;
        let regions = Regions::new(all.clone(), all.clone(), all.clone(), last_unit);
        self.write_bits(&regions, &all, 0..all.units()).await?;
        self.change_superblock(set_up).await.map_err(|kind| kind.at(Sector::ZERO))?;
        Ok(regions)
    }

    /// Writes units of `bits`, durably.
    async fn write_bits(
        &self,
        regions: &Regions,
        bits: &Bitmap,
        units: impl IntoIterator<Item = u64>,
    ) -> IoResult {
        let units: Vec<u64> = units.into_iter().collect();
        for units in units.chunks(UNITS_IN_FLIGHT) {
            let writes = units.iter().map(|&unit| async move {
                let bytes = regions.unit(bits, unit);
                let mut bio = Bio::write_fua(place(unit), bytes).because(BITS);
                self.metadata().submit(&mut bio).await
            });
            join_all(writes).await.into_iter().collect::<IoResult>()?;
        }
        Ok(())
    }

    /// Sees to it that the bits of a range are durable. They stay at least as long as the result.
    pub(super) async fn mark<'a>(
        &self,
        regions: &'a Regions,
        sector: Sector,
        sectors: u64,
    ) -> IoResult<Marked<'a>> {
        let id = regions.next.get();
        regions.next.set(id + 1);
        regions.active.borrow_mut().insert(id, (sector, sectors));
        let marked = Marked { regions, id };
        regions.recent.borrow_mut().mark(sector, sectors);
        if regions.suspect.borrow().is_dirty(sector, sectors) {
            // Marks a neighbour that is not suspect too: it is passed over.
            regions.unwalked.borrow_mut().mark(sector, sectors);
        }
        if regions.durable.borrow().is_all_dirty(sector, sectors) {
            return Ok(marked);
        }
        regions.wanted.borrow_mut().mark(sector, sectors);
        let _alone = regions.writing.lock(0..1).await;
        // Whoever had the lock before may have written the bits of all who waited.
        if !regions.durable.borrow().is_all_dirty(sector, sectors) {
            let bits = regions.wanted.borrow().clone();
            let units: Vec<u64> = bits.differing_units(&regions.durable.borrow()).collect();
            self.write_bits(regions, &bits, units).await?;
            regions.durable.replace(bits);
        }
        Ok(marked)
    }

    /// Makes dirty what a recalculation has still to do.
    fn mark_uncovered(&self, bits: &mut Bitmap) {
        if let Some((sector, sectors)) = self.coverage.to_be_recalculated() {
            bits.mark(sector, sectors);
        }
    }

    /// The bits that no flush clears now: of suspect regions, and of what a recalculation has still to
    /// do.
    fn kept_bits(&self, regions: &Regions) -> Bitmap {
        let mut kept = regions.suspect.borrow().clone();
        self.mark_uncovered(&mut kept);
        kept
    }

    /// Whether bits are set that a flush might clear.
    pub(super) fn may_clean_more(&self, regions: &Regions) -> bool {
        let set = regions.wanted.borrow().dirty_count();
        set > self.kept_bits(regions).dirty_count()
    }

    /// Flushes, and clears the bits of what is durable then. What is found valid or recalculated while
    /// the flush is under way may not be: its bits are the next one's.
    pub(super) async fn clean_regions(&self, direct: &Direct, regions: &Regions) -> IoResult {
        regions.flush_begins();
        let kept = self.kept_bits(regions);
        self.flush_direct(direct).await?;
        regions.changed.notify_all();
        let _alone = regions.writing.lock(0..1).await;
        let mut bits = regions.recent.borrow().clone();
        bits.merge(&kept);
        let units: Vec<u64> = {
            let mut durable = regions.durable.borrow_mut();
            let units = bits.differing_units(&durable).collect();
            durable.restrict(&bits);
            units
        };
        regions.wanted.replace(bits.clone());
        self.write_bits(regions, &bits, units).await?;
        regions.durable.replace(bits);
        Ok(())
    }

    /// Leaves the area as the kernel does, or, with suspect regions left, with their bits. Everything
    /// is durable, and nothing is written any more.
    pub(super) async fn close_bitmap(&self, direct: &Direct, regions: &Regions) -> IoResult {
        regions.stop();
        if regions.suspect.borrow().dirty_count() > 0 {
            return self.clean_regions(direct, regions).await;
        }
        self.leave_bitmap().await
    }

    /// Looks at every block of a region; whether all of them verify, also of those that are given out
    /// anyhow.
    async fn is_valid(&self, direct: &Direct, sector: Sector, sectors: u64) -> bool {
        for at in (sector.0..(sector + sectors).0).step_by(units::usize_of(WALK_SECTORS)) {
            let length = WALK_SECTORS.min((sector + sectors).0 - at);
            let mut look = Bio::read(Sector(at), length).bypassing();
            if direct.is_stopped() || self.read_counting(&mut look).await != Ok(0) {
                return false;
            }
        }
        true
    }
}

/// Walks over suspect regions, until the volume is closed or dropped.
pub(super) async fn walk(inner: Rc<Inner>) {
    let Journal::Direct(direct) = &inner.journal else { return };
    let Some(regions) = &direct.regions else { return };
    loop {
        let changed = regions.changed.notified();
        if direct.is_stopped() {
            return;
        }
        let first = match regions.paused.get() {
            true => None,
            false => regions.unwalked.borrow().dirty().next(),
        };
        regions.walking.set(first.is_some());
        let Some((sector, sectors)) = first else {
            regions.walked.notify_all();
            changed.await;
            continue;
        };
        let sectors = sectors.min(regions.unwalked.borrow().sectors_per_bit());
        regions.unwalked.borrow_mut().clean(sector, sectors);
        if regions.suspect.borrow().is_dirty(sector, sectors)
            && inner.is_valid(direct, sector, sectors).await
        {
            regions.acquit(sector, sectors);
            direct.arm();
        }
    }
}

/// What becomes of suspect blocks whose tags do not fit.
const UNREADABLE: &str = "blocks may be unreadable";
pub(super) const RECALCULATED: &str = "what does not fit gets the tag of what lies there";
/// Ranges told of, at most: the rest is told as one.
const EVENTS_MAX: usize = 256;
/// Ranges that are told apart.
const RANGES_MAX: usize = 1 << 16;
/// Binary logarithm of the blocks of a region where all of a volume is one region, or a few.
const ALL_LOG2: u8 = 48;
/// Units of the bitmap written at once.
const UNITS_IN_FLIGHT: usize = 16;
/// 1 MiB at a time.
const WALK_SECTORS: u64 = (1 << 20) / SECTOR;
