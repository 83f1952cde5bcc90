//! RAID 4, 5 and 6: data and parity over members that verify what they read.
//!
//! ```text
//!        reads                                 writes
//!          |                                      |
//!    dirty pages (cache.rs) <---------- part of a stripe    a whole stripe
//!          | else                         |  full, idle, pressure, flush  |
//!    members (read.rs)                    v                               v
//!          | damaged or missing        stripe update under the stripe's lock (write.rs)
//!          v                                      | damaged or missing
//!    the row's columns (columns.rs) <-------------+ (rewrite.rs)
//!          |
//!    evidence, rewriting, reading again (heal.rs, combine.rs)   every stripe: verify.rs, resync.rs,
//!                                                               scrub.rs, fill.rs
//! ```
//!
//! A *row* is a sector of all members at one address: data and its parity. Parity is arithmetic on
//! each byte of a row alone, so everything here works on ranges of rows, not on whole chunks: a
//! write of 4 KiB reads and writes 4 KiB of each member concerned.
//!
//! If members keep tags for their blocks, they are part of a row: content.rs says what parity has for them.
//!
//! What may be believed when:
//!
//! - Bytes that leave the volume or enter a parity come from reads that the member verified, or
//!   were reconstructed and accepted (heal.rs).
//! - A reconstruction is accepted if the member's own tag vouches for it; without that only if the
//!   row is known to be in sync (doubts.rs) and no parity that is left over disagrees.
//! - All tags valid and parity disagreeing is an unfinished write in rows that are not yet
//!   resynced: parity is made anew. Elsewhere it is listed and left alone.
//! - A block that is lost (more damage in its row than redundancy) reads as an error until it is
//!   written whole.
//!
//! # What a crash leaves
//!
//! The update of one stripe, in the order of its steps:
//!
//! 1. The new bytes are in the cache and acknowledged, or in the request. Crash: old.
//! 2. `Array::begin_write` returned: the superblocks on all members say dirty. Crash: old; the
//!    stripe is resynced and found to agree.
//! 3. Old bytes are read, damage in them is healed: each block is rewritten with what it had.
//!    Crash: old; a block that was being rewritten is damaged as before or healed.
//! 4. Data and parity go to the members together. Crash: each block old or new, parity old or new:
//!    the write hole. The array is dirty, so nothing is reconstructed from these rows without a
//!    tag that vouches, and resync makes parity from the data. Degraded, such an array is refused
//!    at open: parity may be the only copy of a missing block and is not to be trusted. A partial
//!    parity log closes the hole (ppl.rs, replay.rs): rows that it names get parity of it first. So does
//!    a write journal (journal.rs): rows that it names come home whole, and superblocks go on saying clean.
//! 5. All members answered; the guard goes. Crash: as 4 until flushed, since members have caches
//!    and any part of the writes may be lost.
//! 6. The array was idle, its members were flushed and their superblocks say clean. Crash: new.
//!
//! What a member's medium cannot take at 4 is recorded in its bad block log, and members that cannot at
//! all fail: log or survivors' superblocks say so before the write completes. A write that
//! fails otherwise (no space) leaves rows whose parity is made anew from what the data is now; if
//! that fails too they are *torn* and the array stays dirty.
//!
//! Writing a block beside lost ones: parity cannot be made, because the lost block is part of it.
//! If the block's old bytes are known, parity is corrected by the difference and stays as true as
//! it was. Else only the data is written, the row is torn: the lost block stays an error, and only
//! its own tag can ever bring it back. So that this is still so after closing and opening, its parity
//! is recorded as bad, or, where there is no room for that, the array is not marked clean beyond it.

mod application;
mod cache;
mod columns;
mod combine;
mod content;
mod decide;
mod doubts;
mod fill;
mod flush;
mod heal;
mod journal;
mod parity;
mod ppl;
mod read;
mod replay;
mod resync;
mod rewrite;
mod scrub;
mod store;
mod verify;
mod write;
mod zero;

#[cfg(test)]
mod tests;

pub use journal::Journal;

use crate::array::{Array, Disagreement, Member, Tagging, rebuild};
use bio::{
    Allocation, Bio, BlockDevice, EventKind, IoError, IoErrorKind, IoResult, Limits, LocalFuture,
    Op, Scrub,
};
use cache::Cache;
use dif::Profile;
use doubts::Doubts;
use heal::Told;
use md::geometry::Geometry;
use md::journal::Full;
use md::ppl::Plan;
use md::superblock::ResyncOffset;
use parity::Equations;
use ppl::Ppl;
use replay::InMemory;
use runtime::{RangeLock, Tasks};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use units::{BlockSize, SECTOR, Sector, u64_of};

/// How the layer is opened.
#[derive(Clone)]
pub struct Options {
    /// The shape of the array.
    pub geometry: Geometry,
    /// Sectors that the array uses of each member.
    pub member_sectors: u64,
    /// Accept an array that is both degraded and dirty, and believe its parity, as
    /// `mdadm --assemble --force` does: what an interrupted write left may then come back wrong.
    pub force: bool,
    /// Bytes of writes that may wait in memory for the rest of their stripe.
    pub cache_bytes: usize,
}

/// The default of [`Options::cache_bytes`].
pub const CACHE_BYTES: usize = 32 << 20;

/// Why an array cannot be run.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// The array has not as many slots as its geometry.
    #[error("{found} slots, expected {expected}")]
    Slots {
        /// Slots found.
        found: usize,
        /// Members of the geometry.
        expected: usize,
    },
    /// More members are missing than parity can replace.
    #[error("{missing} members missing, parity replaces {parity}")]
    Missing {
        /// Empty slots.
        missing: usize,
        /// Strips of parity.
        parity: usize,
    },
    /// A member is smaller than its part.
    #[error("the member in slot {slot} has {found} sectors of data, expected {expected}")]
    Small {
        /// Its slot.
        slot: usize,
        /// Sectors found.
        found: u64,
        /// Sectors that the array uses.
        expected: u64,
    },
    /// The members are so large that the array's end has no 64-bit address, or hold no stripe.
    #[error("{sectors} sectors of each member make no array")]
    Size {
        /// Sectors of each member.
        sectors: u64,
    },
    /// Members keep different tags.
    #[error(transparent)]
    Tags(#[from] Disagreement),
    /// What a member that checks no tuples gives would enter parity, and be signed there.
    #[error("the member in slot {slot} keeps protection information that nobody checks below")]
    Unverified {
        /// Its slot.
        slot: usize,
    },
    /// Parity is of whole bytes, and a byte of the tags is half the layer's, half the storage's.
    #[error(
        "storage tags of {bits} bits share a byte with the reference tag, and parity keeps whole bytes"
    )]
    StorageTag {
        /// Bits of the storage tag.
        bits: u8,
    },
    /// The log has parity of data, and none of tags.
    #[error("members that keep tags, under a partial parity log that has no room for them")]
    PplTags,
    /// The journal has blocks of data and parity, and none of tags.
    #[error("members that keep tags, under a write journal that has no room for them")]
    JournalTags,
    /// The journal is shorter than what is written at once, or the array too wide for one.
    #[error("{0}, which is written at once; this array can have no such journal")]
    Journal(Full),
    /// What is in the journal has no room to be put behind its end, which is how it comes home.
    #[error("{0}, so that what it holds cannot be brought home; reading is possible")]
    JournalFull(Full),
    /// A member has no room for a partial parity log, which the array should have.
    #[error("the member in slot {slot} has no room for the partial parity log")]
    Ppl {
        /// Its slot.
        slot: usize,
    },
    /// A member is missing and writes were interrupted: parity may not belong to the data.
    #[error("degraded and dirty: blocks of the missing member cannot be proven")]
    DegradedAndDirty,
}

/// The layer.
pub struct Raid456 {
    inner: Rc<Inner>,
}

struct Inner {
    array: Rc<Array>,
    geometry: Geometry,
    limits: Limits,
    /// The largest logical block of the members.
    block: BlockSize,
    /// What is kept for each block beside the data.
    tagging: Tagging,
    doubts: Doubts,
    /// From which row the resync goes on.
    resynced_to: Cell<u64>,
    cache: Cache,
    /// The partial parity log, if the array has one.
    ppl: Option<Ppl>,
    /// The write journal, if the array has one and is written.
    journal: Option<journal::Log>,
    /// What the partial parity log asks for after a crash, until it is done.
    plan: RefCell<Option<Plan>>,
    /// What that made, if nothing is written.
    in_memory: InMemory,
    /// By stripe.
    locks: RangeLock,
    told: Told,
    stripes: u64,
    /// Whether the background resync runs.
    resyncing: Cell<bool>,
    tasks: Tasks,
    closing: Cell<bool>,
}

impl Raid456 {
    /// Puts the layer above the members of `array`.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was written then.
    pub fn new(array: &Rc<Array>, options: &Options) -> Result<Self, OpenError> {
        Self::journalled(array, options, None)
    }

    /// The same for an array whose writes go through `journal`, if it has one. It is not read-only, and has
    /// been told ([`Array::go_through_journal`]).
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn journalled(
        array: &Rc<Array>,
        options: &Options,
        journal: Option<&Journal>,
    ) -> Result<Self, OpenError> {
        let may_be_written = array.has_journal() && !array.read_only();
        assert!(journal.is_none() || may_be_written, "an array that was told of its journal");
        let geometry = options.geometry;
        let parity = geometry.level().parity_count();
        let (found, expected) = (array.raid_disks(), geometry.raid_disks());
        if found != expected {
            return Err(OpenError::Slots { found, expected });
        }
        let missing = array.missing_count();
        if missing > parity {
            return Err(OpenError::Missing { missing, parity });
        }
        let mut limits = Self::combined_limits(array, options)?;
        let tagging = Tagging::of(&limits);
        let members_block = limits.logical_block;
        let block = members_block.sectors();
        let ppl = Ppl::new(array, block).or_else(|slot| match array.read_only() {
            true => Ok(None),
            false => Err(OpenError::Ppl { slot }),
        })?;
        if ppl.is_some() {
            if limits.tag_size > 0 && !array.read_only() {
                return Err(OpenError::PplTags);
            }
            // Zeroes are written as all else is, one strip after the other.
            (limits.discard, limits.fast_zeroes) = (false, false);
        }
        let log = |journal: &Journal| journal::Log::new(array, &geometry, journal);
        let journal = journal.map(log).transpose()?;
        if journal.is_some() {
            if limits.tag_size > 0 {
                return Err(OpenError::JournalTags);
            }
            // Zeroes are written as all else is, and all of it in whole blocks of the journal.
            (limits.discard, limits.fast_zeroes) = (false, false);
            limits.logical_block = limits.logical_block.max(BlockSize::B4096);
        }
        let sizes = (options.member_sectors, block);
        let plan = replay::plan(array, &geometry, sizes, options.force);
        let proven = |plan: &Plan| options.force || !replay::loses(plan, array, &geometry);
        if !plan.as_ref().is_some_and(proven) {
            Self::check_parity(array, options.force)?;
        }
        let inner = Inner {
            array: Rc::clone(array),
            geometry,
            block: members_block,
            tagging,
            stripes: limits.sectors / geometry.stripe_sectors(),
            limits,
            doubts: Doubts::default(),
            resynced_to: Cell::new(0),
            cache: Cache::new(&geometry, tagging, options.cache_bytes),
            ppl,
            journal,
            plan: RefCell::new(plan),
            in_memory: InMemory::default(),
            locks: RangeLock::default(),
            told: Told::default(),
            resyncing: Cell::new(false),
            tasks: Tasks::default(),
            closing: Cell::new(false),
        };
        // Sectors that no stripe uses need no redundancy.
        array.set_in_sync(inner.member_sectors()..u64::MAX);
        let inner = Rc::new(inner);
        let weak = Rc::downgrade(&inner);
        array.on_change(move || {
            if let Some(inner) = weak.upgrade() {
                rebuild::start(&inner, &inner.tasks);
            }
        });
        Ok(Self { inner })
    }

    /// Whether parity may be relied on as far as it has to be.
    fn check_parity(array: &Rc<Array>, force: bool) -> Result<(), OpenError> {
        if array.synced() == ResyncOffset::Clean || array.missing_count() == 0 {
            return Ok(());
        }
        if force {
            let detail = "degraded and dirty: parity is believed because it was forced";
            array.events().emit_detail(EventKind::Note, Sector::ZERO, 0, detail.into());
            array.set_in_sync(0..u64::MAX);
            return Ok(());
        }
        // Reading alone does no harm: what cannot be proven is an error.
        if array.read_only() { Ok(()) } else { Err(OpenError::DegradedAndDirty) }
    }

    fn combined_limits(array: &Rc<Array>, options: &Options) -> Result<Limits, OpenError> {
        let geometry = &options.geometry;
        let expected = options.member_sectors;
        let size = OpenError::Size { sectors: expected };
        let sectors = geometry.array_sectors(expected).filter(|s| s.checked_mul(SECTOR).is_some());
        let sectors = sectors.filter(|&sectors| sectors > 0).ok_or(size)?;
        let mut limits = Limits::new(sectors, BlockSize::B512);
        limits.preferred_bytes = Sector(geometry.stripe_sectors()).bytes();
        limits.read_only = array.read_only();
        let tagging = array.tagging()?;
        (limits.tag_size, limits.protection) = (tagging.tag_size(), tagging.profile());
        let split = |profile: &Profile| {
            profile.kind.counts() && !profile.format.reference_bits().is_multiple_of(8)
        };
        if let Some(profile) = limits.protection.filter(split) {
            return Err(OpenError::StorageTag { bits: profile.format.storage_bits() });
        }
        (limits.verified, limits.discard, limits.fast_zeroes) = (true, true, true);
        for member in array.members() {
            let lower = member.data().limits();
            if lower.sectors < expected {
                let (slot, found) = (member.slot(), lower.sectors);
                return Err(OpenError::Small { slot, found, expected });
            }
            if limits.protection.is_some() && !lower.verified {
                return Err(OpenError::Unverified { slot: member.slot() });
            }
            let block = limits.logical_block.log2_sectors().max(lower.logical_block.log2_sectors());
            limits.logical_block =
                BlockSize::from_log2_sectors(block).unwrap_or(limits.logical_block);
            limits.verified &= lower.verified;
            limits.discard &= lower.discard;
            limits.fast_zeroes &= lower.fast_zeroes;
        }
        Ok(limits)
    }

    /// The members and their states.
    #[must_use]
    pub fn array(&self) -> &Rc<Array> {
        &self.inner.array
    }

    /// Up to which member sector redundancy is known to be true; none: everywhere.
    #[must_use]
    pub fn resynced(&self) -> Option<Sector> {
        match self.inner.array.synced() {
            ResyncOffset::Clean => None,
            ResyncOffset::Below(sector) => Some(sector),
        }
    }

    /// Sectors of each member that stripes take.
    #[must_use]
    pub fn member_sectors(&self) -> u64 {
        self.inner.member_sectors()
    }

    /// Bytes of writes that wait in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> usize {
        self.inner.cache.bytes()
    }

    /// Makes parity of what was being written when the array stopped from its partial parity log, or brings home
    /// what its write journal holds, if it has one: to be called before anything is read. Then all of it is in
    /// sync, but for what is lost.
    ///
    /// # Errors
    /// What is neither damage nor absence; the array is then as it was.
    pub async fn replay(&self) -> IoResult {
        self.inner.replay().await?;
        self.inner.bring_home().await
    }

    /// Makes redundancy true in the background, if the array was found dirty, and gives members what
    /// they lack. The tasks end at the end, on [`Self::close`], or when a member is missing.
    pub fn start_resync(&self) {
        resync::start(&self.inner);
        rebuild::start(&self.inner, &self.inner.tasks);
    }

    /// Whether that task runs.
    #[must_use]
    pub fn is_resyncing(&self) -> bool {
        self.inner.resyncing.get()
    }

    /// One step of that, a few MiB: false when there is nothing more to do, or a member missing.
    ///
    /// # Errors
    /// What stopped it; the position stays before the stripes concerned.
    pub async fn resync_step(&self) -> IoResult<bool> {
        self.inner.resync_step().await
    }

    /// Writes what is in memory, flushes the members and leaves their superblocks clean, or saying
    /// up to where they are.
    ///
    /// # Errors
    /// What could not be written; the array is then as after a crash.
    pub async fn close(&self) -> IoResult {
        self.inner.closing.set(true);
        self.inner.tasks.ended().await;
        let mut stored = self.inner.flush().await;
        if stored.is_ok() {
            stored = self.inner.close_log().await;
        }
        if stored.is_ok() {
            stored = self.inner.close_journal().await;
        }
        if let Err(error) = stored {
            self.inner.array.abandon().await;
            return Err(error);
        }
        self.inner.array.close().await
    }
}

impl BlockDevice for Raid456 {
    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Read => self.inner.read(bio).await,
            Op::Write { fua } => Inner::write(&self.inner, bio, fua).await,
            Op::Flush => self.inner.flush().await,
            Op::Discard { .. } | Op::WriteZeroes { .. } => Inner::zero(&self.inner, bio).await,
            Op::Vouch => self.inner.vouch(bio).await,
            Op::Peek { .. } => Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.inner.allocation(sector, sectors).await
    }
}

impl Scrub for Raid456 {
    fn steps(&self) -> u64 {
        self.inner.stripes.div_ceil(self.inner.stripes_per_step())
    }

    fn step_extent(&self, step: u64) -> bio::Extent {
        let stripes = self.inner.step_stripes(step);
        self.inner.extent_of(&stripes)
    }

    fn scrub(&self, step: u64, mode: bio::ScrubMode) -> LocalFuture<'_, bio::Findings> {
        Box::pin(self.inner.scrub(step, mode))
    }
}

impl Inner {
    fn equations(&self, stripe: u64) -> Equations {
        Equations::of(&self.geometry, stripe)
    }

    /// Who can be asked for `rows` (member sectors) of `slot`.
    fn reader(&self, slot: usize, rows: &Range<u64>) -> Option<Rc<Member>> {
        self.array.reader(slot, rows)
    }

    fn member_sectors(&self) -> u64 {
        self.stripes * self.geometry.chunk_sectors()
    }

    /// The member sectors of the strips of `stripes`.
    fn strips_of(&self, stripes: &Range<u64>) -> Range<u64> {
        self.geometry.strip_start(stripes.start).0..self.geometry.strip_start(stripes.end).0
    }

    /// The member sectors that `rows` of `stripe` are.
    fn absolute(&self, stripe: u64, rows: &Range<u64>) -> Range<u64> {
        let start = self.geometry.strip_start(stripe).0;
        start + rows.start..start + rows.end
    }

    /// The volume's sector of row `row` in the strip of `slot`; the stripe's first for parity.
    fn volume_sector(&self, equations: &Equations, slot: usize, row: u64) -> Sector {
        let stripe = equations.stripe;
        match equations.data_index(slot) {
            Some(index) => self.geometry.array_sector(stripe, index, row),
            None => Sector(stripe * self.geometry.stripe_sectors()),
        }
    }

    /// Whether parity of `rows` may be believed without another witness.
    fn in_sync(&self, rows: &Range<u64>) -> bool {
        self.array.in_sync(rows) && !self.doubts.overlap(rows)
    }

    /// Whether an unfinished write may be the reason for parity to disagree, so that it is right
    /// to make it anew from the data.
    fn is_unfinished(&self, rows: &Range<u64>) -> bool {
        !self.array.in_sync(rows)
    }

    /// Parity of these rows does not belong to the data any more. Called under a write guard.
    fn tear(&self, rows: Range<u64>) {
        self.array.set_unsynced(rows);
    }

    /// Parity of these rows is that of the data.
    fn made_true(&self, rows: Range<u64>) {
        self.doubts.settle(rows.clone());
        self.array.set_in_sync(rows);
    }
}

/// An error at a place of the volume.
fn at(error: IoError, sector: Sector) -> IoError {
    error.kind.at(sector)
}

/// Bytes of so many sectors.
fn bytes(sectors: u64) -> usize {
    units::usize_of(Sector(sectors).bytes())
}

/// Sectors of so many bytes.
fn sectors(bytes: usize) -> u64 {
    u64_of(bytes) / SECTOR
}

/// Whether a member's answer means that the bytes are lost there, and not that the request is wrong.
fn is_loss(kind: IoErrorKind) -> bool {
    kind.is_damage() || kind == IoErrorKind::Unavailable
}
