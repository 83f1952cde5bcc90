//! dm-integrity: every block has a tag, every write goes through the journal.
//!
//! ```text
//!              reads                                writes
//!                |                                     |
//!     blocks of the log, newest first        log: sections in memory (log.rs)
//!                | else                         |  commit.rs: on flush, FUA, timer, half full
//!     data and tags of the device               v
//!     compared (read.rs, tags.rs)           journal on the device
//!                                               |  home.rs: in the background
//!                                               v
//!                                           data and tags where the layout says
//! ```
//!
//! The bytes on disk are the kernel's (crate `integrity`). What may be believed when:
//!
//! - Data that left the volume was compared with its tag, or came from the log's memory.
//! - A tag that does not agree is asked for twice: the second time from the device, past every
//!   cache, with writing home held off.
//! - A block that cannot be verified stays unreadable until it is written whole. Nothing here ever
//!   computes a tag for bytes that were not just written by the layer above.
//!
//! # What a crash leaves
//!
//! A write, in the order of its steps:
//!
//! 1. It is in memory and acknowledged. Crash: old.
//! 2. Its section is on its way to the journal. Crash: the section is torn, or one before it is;
//!    replay stops there: old. (A section in flight overwrites one that had been written home.)
//! 3. The journal was flushed: all sections up to this one are whole. Flush and FUA requests
//!    complete now. Crash: replay writes it: new.
//! 4. Its data and tag are on their way home. Crash: data and tag may disagree or be torn; replay
//!    writes both again: new.
//! 5. The device was flushed, and tags that could do harm elsewhere were read again (confirm.rs);
//!    the section is free, but still on disk. Crash: replay writes the same bytes again, or newer
//!    ones after them, since the sections on disk are always the last ones of the log, without a
//!    gap: new.
//! 6. The section is overwritten. The block is home: new.
//!
//! Committing, writing home and flushing run beside each other, each for other sections. Whatever
//! becomes true by a flush (3 and 5) does so for what had been written when that flush began; home
//! is written only from sections for which 3 is true, in the order of the log.
//!
//! Zeroing a block that already has the tag of zeroes only punches its data: old (zeroes, or
//! unreadable) or new at every point. All other zeroing is a write.
//!
//! Opening (recover.rs):
//!
//! 1. Replay writes blocks and tags home. Crash: the journal is untouched, replay starts again.
//! 2. The device is flushed.
//! 3. If the journal ended in a torn section, it is made anew in three batches, each durable before
//!    the next ([`integrity::Plan::reinitialise_order`]), and read again. Crash: nothing is replayed,
//!    everything is home.
//!
//! Closing: commit, write home, flush, and only then the free part of the journal is initialised in the
//! current lap, and the part before it in the next one, in any order. Crash at any point: what replay
//! may still find is home already, and the newest (`crates/integrity/tests/crashes.rs` goes through all
//! states). The same if the disk loses any of these writes, so they need not be read again.

mod above;
mod bitmap;
mod checks;
mod close;
mod codec;
mod commit;
mod confirm;
mod coverage;
mod create;
mod direct;
mod discard;
mod home;
mod inline;
mod log;
mod lower;
mod mend;
mod on_disk;
mod open;
mod ordering;
mod overlay;
mod peek;
mod read;
mod recalculate;
mod recover;
mod scrub;
mod section;
mod source;
mod store;
mod superblock;
mod sync;
mod tags;
mod write;
mod zero;

#[cfg(test)]
mod tests;

pub use checks::CHECKS;
pub use codec::{Codec, CodecError, JournalKeys, sealed_area};
pub use create::{CreateError, NewVolume, Wipe, create};
pub use inline::{InlineError, TUPLE_BYTES_MAX, inline_fits, read_inline, write_inline};
pub use lower::Lower;
pub use mend::{JournalReport, SectionReport, SectionState};
pub use open::{JournalChoice, JournalState, OpenError, Options, Recalculate, Restriction};
pub use ordering::ORDERINGS;
pub use recover::StrangeEntry;
pub use source::{Evidence, OfZeroes, SourceError, TagSource, Tagger, TupleKind, UnknownSource};
pub use store::{StoreError, store_superblock};

use ::integrity::{Layout, Superblock, explain};
use bio::{
    Allocation, Bio, BlockDevice, Device, EventKind, Events, IoErrorKind, IoResult, Limits, Op,
};
use checksum::{BlockTagger, ZeroTags};
use coverage::Coverage;
use direct::Direct;
use inline::Inline;
use log::Writer;
use overlay::Overlay;
use runtime::{RangeLock, Semaphore, Tasks};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use superblock::Area;
use tags::TagCache;
use units::{Sector, u64_of, usize_of};

/// An open volume. Writing ones must be [closed](Self::close): dropped, they leave what a crash
/// would.
pub struct Integrity {
    inner: Rc<Inner>,
    limits: Limits,
    superblock: Superblock,
    journal_state: JournalState,
    restrictions: Vec<Restriction>,
}

/// What the layer's tasks share.
struct Inner {
    lower: Lower,
    layout: Layout,
    codec: Rc<Codec>,
    area: Area,
    coverage: Coverage,
    tagger: Tagger,
    /// Of the hash, where there is one.
    zeros: Option<ZeroTags>,
    tags: TagCache,
    events: Events,
    journal: Journal,
    /// Held by whoever changes blocks at home; shared by readers that look twice.
    home: RangeLock,
    /// Held by whoever brings tags home ([`Inner::bring_home`]), before any of `home`.
    homing: Semaphore,
    task: recalculate::Task,
    tasks: Tasks,
    /// Blocks whose damage was told already.
    told: RefCell<HashSet<u64>>,
    /// What the bitmap said when the volume was opened, unless it is in use.
    suspect: Vec<(Sector, u64)>,
    mismatches: Cell<u64>,
    punched: zero::Punched,
}

/// What becomes of writes, and what the journal has to do with it.
enum Journal {
    /// They go through it.
    Writing(Rc<Writer>),
    /// There are none; what it holds is laid over the data.
    Reading(Overlay),
    /// They go straight home, and it holds nothing.
    Direct(Rc<Direct>),
    /// They go straight home, data and tag as one, and there is none.
    Inline(Inline),
}

impl Integrity {
    /// Opens the volume on `lower` (a device, or a [`Lower`] of two). A read-only opening writes
    /// nothing, ever.
    ///
    /// # Errors
    /// [`OpenError`], naming what stands in the way.
    pub async fn open(lower: impl Into<Lower>, options: Options) -> Result<Rc<Self>, OpenError> {
        open::open(lower.into(), options).await.map(Rc::new)
    }

    /// As a device.
    #[must_use]
    pub fn device(self: &Rc<Self>) -> Device {
        Device::shared(Rc::clone(self))
    }

    /// The superblock as found.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// What was found in the journal.
    #[must_use]
    pub fn journal_state(&self) -> &JournalState {
        &self.journal_state
    }

    /// Why it could only be opened read-only; empty if it could be written.
    #[must_use]
    pub fn restrictions(&self) -> &[Restriction] {
        &self.restrictions
    }

    /// The parts of the volume, first sector and sectors in order, whose tags a crash in bitmap mode
    /// left in doubt: opened in that mode, those that are not known to be valid yet; else those found
    /// at open. Every read is verified, there as elsewhere.
    #[must_use]
    pub fn suspect(&self) -> Vec<(Sector, u64)> {
        self.inner.suspect()
    }

    /// Reads that found a block whose tag does not agree, since opening.
    #[must_use]
    pub fn mismatches(&self) -> u64 {
        self.inner.mismatches.get()
    }

    /// Of a volume that is open for reading: whether the newest copies of `sectors` sectors from
    /// `sector` on lie at home, and not in the journal.
    #[must_use]
    pub fn lies_home(&self, sector: Sector, sectors: u64) -> bool {
        let block = self.inner.layout.block.sectors();
        let first = sector.0 - sector.0 % block;
        let mut blocks = (first..sector.0 + sectors).step_by(units::usize_of(block));
        match &self.inner.journal {
            Journal::Reading(overlay) => blocks.all(|block| overlay.find(block).is_none()),
            Journal::Direct(_) | Journal::Inline(_) => true,
            Journal::Writing(_) => false,
        }
    }

    /// What it lies on.
    #[must_use]
    pub fn lower(&self) -> &Lower {
        &self.inner.lower
    }

    /// Commits, writes everything home and leaves the journal as the kernel leaves it. Requests
    /// after this fail with `Unavailable`. Does nothing for a volume that is open read-only.
    ///
    /// # Errors
    /// What the device below says; the volume is then as after a crash, nothing is lost.
    pub async fn close(&self) -> IoResult {
        recalculate::stop(&self.inner).await;
        let closed = close::close(&self.inner).await;
        self.inner.tasks.ended().await;
        closed
    }
}

impl Drop for Integrity {
    fn drop(&mut self) {
        self.inner.task.vanish();
        match &self.inner.journal {
            Journal::Writing(writer) => writer.stop(),
            Journal::Direct(direct) => direct.stop(),
            Journal::Reading(_) | Journal::Inline(_) => {}
        }
    }
}

impl BlockDevice for Integrity {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Read if self.inner.tagger.hash().is_none() => self.inner.read_above(bio).await,
            Op::Read => self.inner.read(bio).await,
            Op::Vouch => self.inner.vouch(bio).await,
            Op::Peek { mend } => self.inner.peek(bio, mend).await,
            Op::Flush if let Journal::Inline(inline) = &self.inner.journal => {
                self.inner.flush_inline(inline, bio.reason).await
            }
            Op::Write { .. } if let Journal::Inline(inline) = &self.inner.journal => {
                self.inner.write_inline(inline, bio).await
            }
            Op::Flush => self.inner.flush().await,
            Op::Write { fua } => {
                self.inner.write(bio.sector, &bio.data, &bio.tags).await?;
                if fua { self.inner.flush().await } else { Ok(()) }
            }
            Op::Discard { sectors } => self.inner.discard(bio.sector, sectors).await,
            Op::WriteZeroes { sectors, unmap } => self.inner.zero(bio.sector, sectors, unmap).await,
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.inner.allocation(sector, sectors).await
    }
}

impl Inner {
    fn block_bytes(&self) -> usize {
        self.layout.block.bytes()
    }

    /// Sectors that `blocks` blocks make.
    fn sectors_of(&self, blocks: usize) -> u64 {
        u64_of(blocks) * self.layout.block.sectors()
    }

    /// Blocks that `sectors` sectors make.
    fn blocks_in(&self, sectors: u64) -> usize {
        usize_of(sectors / self.layout.block.sectors())
    }

    /// The tags of blocks of zeroes that come without any.
    fn zero_tags(&self, sector: u64, tags: &mut [u8]) {
        match &self.zeros {
            Some(zeros) => zeros.fill(sector, tags),
            None => tags.fill(self.tagger.blank()),
        }
    }

    /// Whether the tag `stored` says that the block at `sector` was discarded.
    fn is_discarded(&self, sector: Sector, stored: &[u8]) -> bool {
        let hash = self.tagger.hash();
        hash.is_some_and(|hash| self.coverage.discards.accept(hash, sector, stored))
    }

    /// What makes the tags, in requests that only volumes get whose tags are made here.
    fn hash(&self) -> &BlockTagger {
        self.tagger.hash().expect("without a hash the mode, or the joint above, refuses this")
    }

    /// The writer, in requests that only a writable volume gets.
    fn writer(&self) -> &Rc<Writer> {
        match &self.journal {
            Journal::Writing(writer) => writer,
            Journal::Reading(_) => unreachable!("the joint above refuses writes: read_only is set"),
            Journal::Direct(_) | Journal::Inline(_) => {
                unreachable!("write.rs asks for it only where there is a journal")
            }
        }
    }

    /// What a crash in bitmap mode left in doubt, in order.
    fn suspect(&self) -> Vec<(Sector, u64)> {
        match &self.journal {
            Journal::Direct(direct) if let Some(regions) = &direct.regions => regions.suspect(),
            _ => self.suspect.clone(),
        }
    }

    /// Makes everything durable that was written before this call.
    async fn flush(&self) -> IoResult {
        match &self.journal {
            Journal::Writing(writer) => {
                writer.flush().await?;
                self.flush_punched().await
            }
            Journal::Direct(direct) => self.flush_direct(direct).await,
            Journal::Inline(inline) => self.flush_inline(inline, "").await,
            Journal::Reading(_) => Ok(()),
        }
    }

    /// Tells once that the block at `sector` is not what its tag vouches for.
    fn tell_mismatch(&self, sector: u64, stored: &[u8], data: &[u8]) {
        self.mismatches.set(self.mismatches.get() + 1);
        if !self.tell_once(sector) {
            return;
        }
        let mut computed = vec![0; self.layout.tag_bytes];
        self.tagger.tags(sector, data, &mut computed);
        let kind = EventKind::Mismatch {
            stored: explain::tag_text(stored),
            computed: explain::tag_text(&computed),
        };
        self.events.emit(kind, Sector(sector), self.layout.block.sectors());
    }

    /// Whether nobody was told about this block since it was last written.
    fn tell_once(&self, sector: u64) -> bool {
        let mut told = self.told.borrow_mut();
        if told.len() >= TOLD_MAX && !told.contains(&sector) {
            return true;
        }
        told.insert(sector)
    }

    /// Forgets what was told about blocks that are written anew.
    fn forget_told(&self, sector: u64, sectors: u64) {
        let mut told = self.told.borrow_mut();
        if told.is_empty() {
            return;
        }
        let blocks = u64_of(self.blocks_in(sectors));
        if blocks < u64_of(told.len()) {
            for block in 0..blocks {
                told.remove(&(sector + block * self.layout.block.sectors()));
            }
        } else {
            told.retain(|&one| !(sector..sector + sectors).contains(&one));
        }
    }
}

/// Damaged blocks that are remembered so as to be told once; beyond, they are told each time.
const TOLD_MAX: usize = 1 << 16;

/// The device's error as an error of the volume: same kind, at `sector`.
fn at(kind: IoErrorKind, sector: Sector) -> bio::IoError {
    kind.at(sector)
}

/// Runs both futures together.
async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut from_a, mut from_b) = (None, None);
    poll_fn(move |context| {
        if from_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(context)
        {
            from_a = Some(value);
        }
        if from_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(context)
        {
            from_b = Some(value);
        }
        match (from_a.take(), from_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (from_a, from_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
