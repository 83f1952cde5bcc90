//! RAID 1 and RAID 10: copies.
//!
//! ```text
//!          read                     write                         resync, scrub
//!            |                        |                                 |
//!   one member (read.rs)       range lock, intent                  range lock
//!            | damaged                |                                 |
//!   range lock, the others     all members (write.rs)        all members compared
//!   rewrite, re-read                  | one fails             (resync.rs, scrub.rs)
//!   (heal.rs)                  recorded before completion
//! ```
//! Where the copies of a sector lie is the [`Placement`]'s to say: with RAID 1 at the same sector of every
//! member, with RAID 10 chunk by chunk on some of them (`placement.rs`). All else is the same. Addresses
//! here are the array's, also those by which the array remembers what is not in sync; only a `Site`
//! knows the member's. What the superblocks must say when is [`crate::array`]'s, and whether a copy is
//! what was written is for the members to know: a member over dm-integrity answers damage with
//! `Protection`.
//!
//! What is believed when:
//!
//! - In sync, any copy that its member checked and gives out; one that it could not check (an escape) only
//!   where no other member could (unchecked.rs). Damage on one member is rebuilt from another,
//!   preferring a copy for which the damaged member's own tag vouches, then one that has a tag of
//!   its own. Where every copy is damaged, data of one for which another's tag vouches (crossed.rs). No
//!   member is failed for damage: its good sectors still help.
//! - Not in sync (after a crash): always the first copy that can be given (of RAID 1, that of the first
//!   member in slot order), for reading and for resync alike. Before a reader gets it, all members are made to hold
//!   it, durably, so that what was read once stays so, whatever then happens to the first and to
//!   the power. A flushed write is on every member; only unfinished ones can differ, and either
//!   copy of those is right.
//! - Copies that differ on a clean array: nobody knows which is right. A scrub lists them and
//!   rewrites nothing.
//!
//! Overlapping writes, and everything that writes back what it read, exclude each other by a range
//! lock; reads do not take it until they find damage.
//!
//! If the members keep tags for their blocks, a copy of a block is the block with its tag: both are
//! written everywhere and read from one member, and copies that differ in one of them differ. So
//! wherever copies are compared and given to others they lie interleaved ([`Tagging`]).

mod crossed;
mod fill;
#[cfg(test)]
mod filled_tests;
mod heal;
mod majority;
mod placement;
mod read;
mod resync;
mod scrub;
#[cfg(test)]
mod tests;
mod unchecked;
mod write;

use crate::array::ordering::PROMISE;
use crate::array::{Array, Disagreement, Tagging, in_runs, rebuild};
use bio::{Allocation, Bio, BlockDevice, Device, Extent, IoErrorKind, IoResult, Limits, Op};
pub use placement::Placement;
use runtime::{Notify, RangeLock, Tasks};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use units::{BlockSize, Sector};

/// A running mirror. Writing ones must be [closed](Self::close): dropped, they leave what a crash
/// would.
pub struct Mirror {
    inner: Rc<Inner>,
}

struct Inner {
    array: Rc<Array>,
    placement: Placement,
    limits: Limits,
    /// What is kept for each block beside the data.
    tagging: Tagging,
    /// Held by writers and by whoever writes back what it read.
    ranges: RangeLock,
    heads: Vec<Head>,
    /// What resync and scrub do at a time; whole blocks.
    window_sectors: u64,
    /// Damage that was told already and cannot be told again: slot and sector.
    told: RefCell<HashSet<(usize, u64)>>,
    stop: Cell<bool>,
    resyncing: Cell<bool>,
    resync_ended: Notify,
    tasks: Tasks,
}

/// What a member is doing for readers.
#[derive(Default)]
struct Head {
    in_flight: Cell<usize>,
    /// Where its last read ended, in its own sectors: the next one there costs it least.
    next: Cell<u64>,
    write_mostly: bool,
}

/// Why members cannot be such an array.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MirrorError {
    /// Nobody holds a slot.
    #[error("no member")]
    NoMember,
    /// Members keep different tags.
    #[error(transparent)]
    Tags(#[from] Disagreement),
    /// What a member that checks no tuples gives would be taken for checked, and given to others.
    #[error("the member in slot {slot} keeps protection information that nobody checks below")]
    Unverified {
        /// Its slot.
        slot: usize,
    },
    /// The members have no whole block in common.
    #[error("members of {sectors} sectors hold no block of {block} bytes")]
    Small {
        /// Sectors of the smallest.
        sectors: u64,
        /// The largest logical block among them, in bytes.
        block: usize,
    },
}

impl Mirror {
    /// The copies that `array`'s members hold: with RAID 1 as much as the smallest of them, with RAID
    /// 10 what their placement says. Nothing is written and no resync started yet.
    ///
    /// # Errors
    /// [`MirrorError`] if there is nothing to be made of them.
    pub fn new(array: Rc<Array>, placement: Placement) -> Result<Rc<Self>, MirrorError> {
        Self::with_window(array, placement, WINDOW_SECTORS)
    }

    /// As [`Self::new`], resynced and scrubbed in windows of so many sectors.
    fn with_window(
        array: Rc<Array>,
        placement: Placement,
        window_sectors: u64,
    ) -> Result<Rc<Self>, MirrorError> {
        let limits = limits_of(&array, &placement)?;
        let heads = (0..array.raid_disks()).map(|slot| Head {
            write_mostly: array.member(slot).is_some_and(|member| member.write_mostly()),
            ..Head::default()
        });
        let inner = Inner {
            heads: heads.collect(),
            window_sectors: window_sectors.max(limits.logical_block.sectors()),
            tagging: Tagging::of(&limits),
            limits,
            ranges: RangeLock::default(),
            told: RefCell::default(),
            stop: Cell::new(false),
            resyncing: Cell::new(false),
            resync_ended: Notify::default(),
            tasks: Tasks::default(),
            array,
            placement,
        };
        let inner = Rc::new(inner);
        let weak = Rc::downgrade(&inner);
        inner.array.on_change(move || {
            if let Some(inner) = weak.upgrade() {
                rebuild::start(&inner, &inner.tasks);
            }
        });
        Ok(Rc::new(Self { inner }))
    }

    /// As a device.
    #[must_use]
    pub fn device(self: &Rc<Self>) -> Device {
        Device::shared(Rc::clone(self))
    }

    /// The members and their superblocks.
    #[must_use]
    pub fn array(&self) -> &Rc<Array> {
        &self.inner.array
    }

    /// Starts making copies agree that a crash may have left different, and giving members what they
    /// lack, in the background. Does nothing if there is nothing to do.
    pub fn start(&self) {
        Inner::start_resync(&self.inner);
        rebuild::start(&self.inner, &self.inner.tasks);
    }

    /// Whether copies are being made to agree.
    #[must_use]
    pub fn is_resyncing(&self) -> bool {
        self.inner.resyncing.get()
    }

    /// Makes copies agree that a crash may have left different; waits for it.
    ///
    /// # Errors
    /// What stopped it. What it had done stays done, and the array stays marked.
    pub async fn resync(&self) -> IoResult {
        self.inner.resync().await
    }

    /// Stops the resync, waits for writes in flight, and leaves the superblocks saying how far the
    /// copies agree. Writes after this fail with `Unavailable`.
    ///
    /// # Errors
    /// What the members say; the array is then as after a crash, nothing is lost.
    pub async fn close(&self) -> IoResult {
        let inner = &self.inner;
        inner.stop.set(true);
        inner.resync_ended.until(|| !inner.resyncing.get()).await;
        inner.tasks.ended().await;
        inner.array.close().await
    }
}

fn limits_of(array: &Array, placement: &Placement) -> Result<Limits, MirrorError> {
    array.tagging()?;
    let mut limits = array.common_limits().ok_or(MirrorError::NoMember)?;
    if limits.protection.is_some()
        && let Some(member) = array.members().find(|member| !member.data().limits().verified)
    {
        return Err(MirrorError::Unverified { slot: member.slot() });
    }
    let block = limits.logical_block;
    if let Placement::Dealt(mirrors) = placement {
        assert!(block.divides(mirrors.chunk_sectors()), "a chunk is a page, and no block is more");
        limits.sectors = mirrors.array_sectors();
    }
    let sectors = limits.sectors;
    limits.sectors -= sectors % block.sectors();
    if limits.sectors == 0 {
        return Err(MirrorError::Small { sectors, block: block.bytes() });
    }
    Ok(limits)
}

impl Inner {
    fn block(&self) -> BlockSize {
        self.limits.logical_block
    }

    /// Whether any copy's tags vouch for `bio`, which lies in one run.
    async fn vouch(&self, bio: &mut Bio) -> IoResult {
        let mut outcome = Err(IoErrorKind::Unavailable.at(bio.sector));
        for site in self.sites(Extent { sector: bio.sector, sectors: bio.sectors() }) {
            outcome = site.submit(bio).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

impl BlockDevice for Mirror {
    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let inner = &self.inner;
        let run = |sector| inner.run_sectors(sector);
        match bio.op {
            Op::Read => in_runs(bio, run, async |piece| inner.read(piece).await).await,
            Op::Write { .. } | Op::Discard { .. } | Op::WriteZeroes { .. } => {
                inner.write(bio).await
            }
            Op::Flush if inner.limits.read_only => Ok(()),
            Op::Flush => inner.array.flush(PROMISE).await,
            Op::Vouch => in_runs(bio, run, async |piece| inner.vouch(piece).await).await,
            Op::Peek { .. } => Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let sectors = sectors.min(self.inner.run_sectors(sector));
        let sites = self.inner.sites(Extent { sector, sectors });
        let Some(first) = sites.first() else {
            // What nobody holds all of is stored somewhere.
            return Ok(vec![Allocation { sectors, hole: false }]);
        };
        let result = first.member.data().allocation(first.own(sector), sectors).await;
        result.map_err(|error| error.kind.at(sector))
    }
}

/// Sectors in a window: 1 MiB.
const WINDOW_SECTORS: u64 = 2048;
