//! Recalculation in the background: tags are computed from the data on disk, step by step.
//!
//! It blesses what lies there, since nobody can know better; so it runs only if the opening asked for
//! it, and touches no more than it must. A block is left as it is
//!
//! - if its tag agrees already, or says that it was discarded;
//! - if its data cannot be read: its tag, valid or not, is all that is left of it;
//! - if this opening itself put a tag there that does not agree, so that a lost block says so (replay
//!   of a rotten entry, tags lost to a bad sector). A later opening cannot tell it from others.
//!
//! Blocks that the log holds are done too. The log's copy goes home later, with its own tag; until it
//! is durable in the journal, what lies at home is what a crash leaves, and it must be readable then.
//! Without a journal (direct.rs) whoever writes holds home from before the data is there until its tag
//! is in memory, and tags computed here join the others there: what a write tagged is never
//! overwritten by a tag of older bytes, neither in memory nor on the device.
//!
//! What a crash in bitmap mode left in doubt is done first, wherever it lies: the blocks that do not
//! verify in exactly those regions, since whoever asks for recalculation asks for them too.
//!
//! # What a crash leaves
//!
//! Of a new recalculation, in the order of its steps:
//!
//! 1. The superblock says that no tag is known to be valid, durable. Crash before: nothing has begun.
//!    After: it goes on when somebody asks; blocks whose tags agree are given out as before.
//! 2. With home held over one piece, and no tags going home: data is read, tags are written. Crash:
//!    each tag is old or new. Both are beyond the position on the disk: the piece is done again, from
//!    the same data, or from newer data that brought its own tag. (Without a journal a write that no
//!    flush covers may have brought data and not its tag, or a part of either: going on blesses it as
//!    it lies there, beyond the position like any other. Below the position it stays unreadable.)
//! 3. After sixteen steps, at the end and at close tags and data are made durable. Crash: the same.
//! 4. The superblock is written with the new position. Crash: the old position or the new one; all
//!    tags below either are durable.
//!
//! In bitmap mode the bits of everything beyond the position are set, durable before step 1, and
//! cleared like others once the position has passed, by a flush that began after that: the kernel
//! goes by the bits alone. Bits of doubtful regions that were done are cleared in the same way: crash
//! before that flush: as doubtful as before, and done again.
//!
//! In another mode doubtful regions are done while the volume is being opened: tags, durable, and only
//! then is the bitmap given up. Crash: as doubtful as before.
//!
//! The flag stays set when it has finished; then the position is the end. (Specification, section 9.)

use super::confirm::NotHome;
use super::ordering::RECALCULATED;
use super::{Inner, Integrity, Journal, at};
use ::integrity::recalculate::Recalculation;
use ::integrity::{Bitmap, Flags, Run};
use bio::{EventKind, IoErrorKind, IoResult};
use runtime::Notify;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use units::{SECTOR, Sector, u64_of, usize_of};

/// The task, as the volume sees it.
#[derive(Default)]
pub(super) struct Task {
    wish: Cell<Wish>,
    changed: Notify,
    /// How it ended; none while it runs.
    ended: Cell<Option<Result<(), IoErrorKind>>>,
    /// Whether there is one at all.
    started: Cell<bool>,
    /// Blocks that could not be read.
    unreadable: Cell<u64>,
    /// Blocks that this opening gave a tag which says that they are lost.
    disowned: RefCell<HashSet<u64>>,
}

/// What is wanted of the task.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Wish {
    #[default]
    GoOn,
    /// The volume is being closed: end, and store the position.
    End,
    /// The volume was dropped: write nothing any more.
    Vanish,
}

impl Task {
    /// The block at `sector` was given a tag that says that it is lost.
    pub fn disown(&self, sector: u64) {
        self.disowned.borrow_mut().insert(sector);
    }

    /// Ends it without another write but those in flight.
    pub fn vanish(&self) {
        self.wish.set(Wish::Vanish);
    }
}

/// Starts a recalculation from `state` on, if there is one, and before that of what a crash in bitmap
/// mode left in doubt.
///
/// # Errors
/// What the device says when the superblock is written.
pub(super) async fn start(
    inner: &Rc<Inner>,
    state: Option<Recalculation>,
) -> Result<(), IoErrorKind> {
    let suspect = inner.suspect();
    let position = state.map(|state| Sector(state.position()));
    let Some(from) = position.or(suspect.first().map(|(sector, _)| *sector)) else {
        return Ok(());
    };
    inner.tell_suspect(&suspect, super::bitmap::RECALCULATED);
    if let Some(state) = state {
        inner.store_position(state).await?;
    }
    inner.events.emit_detail(EventKind::Note, from, 0, "recalculation of tags begins".to_owned());
    inner.task.started.set(true);
    let tasks = inner.tasks.clone();
    let inner = Rc::clone(inner);
    tasks.spawn(async move {
        let ended = match inner.recalculate_suspects().await {
            Ok(()) => inner.recalculate(state).await,
            Err(kind) => Err(kind),
        };
        let detail = match ended {
            Ok(()) => "recalculation of tags has finished".to_owned(),
            Err(kind) => format!("recalculation of tags stopped: {kind}"),
        };
        let position = inner.coverage.recalculation().map_or(0, |state| state.position());
        if inner.task.wish.get() != Wish::Vanish {
            inner.events.emit_detail(EventKind::Note, Sector(position), 0, detail);
        }
        inner.task.ended.set(Some(ended));
        inner.task.changed.notify_all();
    });
    Ok(())
}

/// Ends a running recalculation: what it did is durable and its position stored, or it is done again
/// some time.
pub(super) async fn stop(inner: &Inner) {
    inner.task.wish.set(Wish::End);
    // How it ended was told; here all that counts is that it did.
    let _told = inner.task.wait().await;
}

impl Task {
    async fn wait(&self) -> Result<(), IoErrorKind> {
        if !self.started.get() {
            return Ok(());
        }
        self.changed.until(|| self.ended.get().is_some()).await;
        self.ended.get().expect("it ended")
    }
}

impl Integrity {
    /// Waits for a recalculation that this opening started; at once if there is none.
    ///
    /// # Errors
    /// Why it ended before its end: what a device says, or `Unavailable` if the volume was closed.
    /// What was done is kept either way.
    pub async fn recalculation_done(&self) -> IoResult {
        let ended = self.inner.task.wait().await;
        ended.map_err(|kind| at(kind, self.recalculated().unwrap_or(Sector::ZERO)))
    }

    /// Blocks that a recalculation of this opening could not read, and left without a valid tag
    /// unless they had one.
    #[must_use]
    pub fn recalculation_unreadable(&self) -> u64 {
        self.inner.task.unreadable.get()
    }
}

impl Inner {
    /// Gives the blocks of doubtful regions the tags of their data; region by region they are
    /// doubtful no more.
    async fn recalculate_suspects(&self) -> Result<(), IoErrorKind> {
        let Journal::Direct(direct) = &self.journal else { return Ok(()) };
        let Some(regions) = &direct.regions else { return Ok(()) };
        let suspect = regions.suspects();
        let mut result = Ok(());
        for (sector, sectors) in suspect.dirty() {
            result = self.recalculate_range(sector, sectors).await;
            if result.is_err() {
                break;
            }
            regions.acquit(sector, sectors);
            direct.arm();
        }
        regions.pause(false);
        result
    }

    async fn recalculate_range(&self, sector: Sector, sectors: u64) -> Result<(), IoErrorKind> {
        for run in self.layout.runs(sector, sectors) {
            if !self.recalculate_step(&run).await? {
                return Err(IoErrorKind::Unavailable);
            }
        }
        Ok(())
    }

    /// The same for a bitmap that is about to be given up. Durable when complete.
    pub(super) async fn recalculate_at_open(&self, suspect: &Bitmap) -> Result<(), IoErrorKind> {
        for (sector, sectors) in suspect.dirty() {
            self.recalculate_range(sector, sectors).await?;
        }
        self.flush_or_fail(RECALCULATED).await
    }

    async fn recalculate(&self, state: Option<Recalculation>) -> Result<(), IoErrorKind> {
        let Some(mut state) = state else { return Ok(()) };
        let mut stored = true;
        while let Some(step) = state.step(&self.layout) {
            if !self.recalculate_step(&step).await? {
                if !stored && self.task.wish.get() == Wish::End {
                    self.store_position(state).await?;
                }
                return Err(IoErrorKind::Unavailable);
            }
            let due = state.advance(&step);
            self.coverage.recalculated(state);
            if let Journal::Direct(direct) = &self.journal {
                direct.arm();
            }
            if due {
                self.store_position(state).await?;
            }
            stored = due;
        }
        Ok(())
    }

    /// Whether the step was done; else the task is to end.
    async fn recalculate_step(&self, step: &Run) -> Result<bool, IoErrorKind> {
        let end = step.sector + step.sectors;
        for from in (step.sector.0..end.0).step_by(usize_of(PIECE_SECTORS)) {
            if self.task.wish.get() != Wish::GoOn {
                return Ok(false);
            }
            let piece = self.layout.run(Sector(from), PIECE_SECTORS.min(end.0 - from));
            self.recalculate_piece(&piece).await?;
        }
        Ok(true)
    }

    async fn recalculate_piece(&self, piece: &Run) -> Result<(), IoErrorKind> {
        if let Journal::Direct(direct) = &self.journal {
            self.relieve(direct, piece.sector).await.map_err(|error| error.kind)?;
            return self.retag(piece).await;
        }
        // Of tags that landed elsewhere only those who wrote them know: one at a time.
        let _turn = self.homing.acquire(1).await;
        match self.bring_home(async || self.retag(piece).await).await {
            Ok(()) => Ok(()),
            Err(NotHome::Unwritten(kind)) => Err(kind),
            Err(NotHome::Unflushed(kind)) => {
                if let Journal::Writing(writer) = &self.journal {
                    writer.fail(kind);
                }
                Err(kind)
            }
        }
    }

    /// Gives the blocks of a piece the tags of their data. Not durable yet.
    async fn retag(&self, piece: &Run) -> Result<(), IoErrorKind> {
        if self.layout.inline {
            return self.retag_inline(piece).await;
        }
        let _held = self.home.lock(piece.sector.0..(piece.sector + piece.sectors).0).await;
        let tag_bytes = self.layout.tag_bytes;
        let mut tags = self.stored_tags(piece).await?;
        let data = self.readable_data(piece).await?;
        let mut changed: Option<(usize, usize)> = None;
        let spb = usize_of(self.layout.block.sectors());
        let sectors = (piece.sector.0..).step_by(spb);
        let blocks = data.iter().zip(tags.chunks_exact_mut(tag_bytes)).zip(sectors).enumerate();
        for (block, ((data, tag), sector)) in blocks {
            let Some(data) = data else { continue };
            let says_so = self.is_discarded(Sector(sector), tag)
                || self.task.disowned.borrow().contains(&sector);
            if says_so || self.tagger.verify(sector, data, tag).is_none() {
                continue;
            }
            self.tagger.tags(sector, data, tag);
            changed = Some((changed.map_or(block, |(first, _)| first), block + 1));
        }
        let Some((first, end)) = changed else { return Ok(()) };
        let changed = &tags[first * tag_bytes..end * tag_bytes];
        let address = piece.tag_byte + u64_of(first * tag_bytes);
        match &self.journal {
            Journal::Direct(_) => self.change_tags(address, changed).await,
            _ => self.put_tags(address, changed.to_vec()).await.map_err(|error| error.kind),
        }
    }

    /// The stored tags of a piece; one that cannot be read is such that no block has it.
    async fn stored_tags(&self, piece: &Run) -> Result<Vec<u8>, IoErrorKind> {
        let mut tags = vec![0; self.blocks_in(piece.sectors) * self.layout.tag_bytes];
        match self.tags.read(piece.tag_byte, &mut tags, self.layout.tags_end(piece)).await {
            Ok(()) => return Ok(tags),
            Err(error) if error.kind.is_damage() => {}
            Err(error) => return Err(error.kind),
        }
        let each = (piece.tag_byte..).step_by(self.layout.tag_bytes);
        for (address, tag) in each.zip(tags.chunks_exact_mut(self.layout.tag_bytes)) {
            match self.tags.read(address, tag, 0).await {
                Ok(()) => {}
                Err(error) if error.kind.is_damage() => tag.fill(0xff),
                Err(error) => return Err(error.kind),
            }
        }
        Ok(tags)
    }

    /// The data of a piece, block by block; none for those that cannot be read, which are told.
    async fn readable_data(&self, piece: &Run) -> Result<Vec<Option<Box<[u8]>>>, IoErrorKind> {
        match self.data().read(piece.data, piece.sectors).await {
            Ok(data) => {
                let blocks = data.as_slice().chunks_exact(self.block_bytes());
                return Ok(blocks.map(|block| Some(block.into())).collect());
            }
            Err(error) if error.kind.is_damage() => {}
            Err(error) => return Err(error.kind),
        }
        let spb = self.layout.block.sectors();
        let mut blocks = Vec::new();
        for offset in (0..piece.sectors).step_by(usize_of(spb)) {
            match self.data().read(piece.data + offset, spb).await {
                Ok(data) => blocks.push(Some(data.as_slice().into())),
                Err(error) if error.kind.is_damage() => {
                    self.tell_unreadable(piece.sector + offset);
                    blocks.push(None);
                }
                Err(error) => return Err(error.kind),
            }
        }
        Ok(blocks)
    }

    pub(super) fn tell_unreadable(&self, sector: Sector) {
        self.task.unreadable.set(self.task.unreadable.get() + 1);
        if self.tell_once(sector.0) {
            let detail = "no tag can be computed for it".to_owned();
            let sectors = self.layout.block.sectors();
            self.events.emit_detail(EventKind::MediumError, sector, sectors, detail);
        }
    }

    /// Steps 3 and 4 (or 1): what was done is durable, and then the superblock says so.
    async fn store_position(&self, state: Recalculation) -> Result<(), IoErrorKind> {
        match &self.journal {
            Journal::Direct(direct) => {
                self.flush_direct(direct).await.map_err(|error| error.kind)?;
            }
            _ => self.flush_or_fail(RECALCULATED).await?,
        }
        self.change_superblock(|superblock| {
            superblock.flags = superblock.flags.with(Flags::RECALCULATING);
            superblock.recalc_sector = state.position();
        })
        .await
    }
}

/// 1 MiB is read, and its tags written, with home held.
const PIECE_SECTORS: u64 = (1 << 20) / SECTOR;

const _: () = assert!(PIECE_SECTORS.is_multiple_of(8), "a whole number of blocks");
