//! Writing without a journal, with or without a bitmap (bitmap.rs): data goes home at once, tags are changed in memory and follow.
//!
//! ```text
//!   a write ---> data ---> the device
//!       `------> tags ---> pages in memory ---> the device     at a flush, in time, or when they are many
//! ```
//!
//! # What a crash leaves
//!
//! 1. The data is on its way home. Crash: old, new or torn, with the old tag: old, or unreadable.
//! 2. The data was written, its tag is changed in memory: the write is complete. Crash: as in 1.
//! 3. The page with the tag is on its way. Crash: data and tag are each old or new: old, new, or
//!    unreadable.
//! 4. The device was flushed, and pages that could do harm elsewhere were read again (confirm.rs):
//!    a flush completes now. Crash: new.
//!
//! So a crash costs blocks with a write that no flush has covered: they may be unreadable, an error
//! that says so, until they are written again. It never brings back anything that was not written
//! there: data that is old, or new, in part or mixed, has a tag that vouches for it, or is not given
//! out. That is what whoever asks for this mode asks for.
//!
//! A write that fails leaves its tags as they were: where nothing was written the block is the old
//! one. Readers compare data and tag of different moments, find that they differ, and look again
//! with home held off: it is held here from before the data is written until the tag is changed.
//!
//! The journal is not used, but replayed at open if the last opening did use it. It must not be
//! replayed once more behind what is written then: if it held anything it is made anew, in the order
//! that recover.rs gives, before the first write.

use super::bitmap::{Marked, Regions};
use super::confirm::NotHome;
use super::home::{Tags, ZEROES_BYTES};
use super::tags::{PAGE, pages_of};
use super::{Inner, Journal, at, both};
use ::integrity::Run;
use bio::{Bio, Buf, IoErrorKind, IoResult, Segments};
use runtime::{Notify, RangeGuard, RangeLock, sleep, spawn};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use units::{Sector, u64_of, usize_of};

/// What writing without a journal has to remember.
pub(super) struct Direct {
    /// Held by whoever writes tags to the device: one at a time.
    settling: RangeLock,
    /// Flushes asked for so far; everything asked for up to here was done.
    asked: Cell<u64>,
    done: Cell<u64>,
    /// The device lost track of what is durable: nothing more can be promised.
    failed: Cell<Option<IoErrorKind>>,
    /// No more writes are taken.
    closing: Cell<bool>,
    /// Nothing more is to be done: closed, or dropped.
    stopped: Cell<bool>,
    /// Something was written since the timer ran out last; it ran out, and nobody has looked yet.
    armed: Cell<bool>,
    due: Cell<bool>,
    changed: Notify,
    flush_time: Duration,
    /// The bitmap, in its mode.
    pub regions: Option<Regions>,
}

impl Direct {
    /// Nothing written yet; what is, is made durable within `flush_time` by itself.
    pub fn new(flush_time: Duration, regions: Option<Regions>) -> Self {
        Self {
            settling: RangeLock::default(),
            asked: Cell::default(),
            done: Cell::default(),
            failed: Cell::default(),
            closing: Cell::default(),
            stopped: Cell::default(),
            armed: Cell::default(),
            due: Cell::default(),
            changed: Notify::default(),
            flush_time,
            regions,
        }
    }

    /// Ends the tasks.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.changed.notify_all();
        self.regions.iter().for_each(Regions::stop);
    }

    /// Whether the tasks are to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// How a flush ended, and all before it: once it failed, nothing can be promised any more.
    pub fn not_failed(&self, flushed: Result<(), IoErrorKind>) -> Result<(), IoErrorKind> {
        if let (Err(kind), None) = (flushed, self.failed.get()) {
            self.failed.set(Some(kind));
        }
        self.failed.get().map_or(Ok(()), Err)
    }

    fn check(&self, sector: Sector) -> IoResult {
        match self.failed.get() {
            Some(kind) => Err(kind.at(sector)),
            None if self.closing.get() => Err(IoErrorKind::Unavailable.at(sector)),
            None => Ok(()),
        }
    }

    /// Sees to it that what is being written is durable in time.
    pub fn arm(self: &Rc<Self>) {
        if self.armed.replace(true) {
            return;
        }
        let (this, time) = (Rc::downgrade(self), self.flush_time);
        drop(spawn(async move {
            sleep(time).await;
            if let Some(this) = this.upgrade() {
                this.armed.set(false);
                this.due.set(true);
                this.changed.notify_all();
            }
        }));
    }
}

/// Flushes in time, until the volume is closed or dropped.
pub(super) async fn run(inner: Rc<Inner>) {
    let Journal::Direct(direct) = &inner.journal else { return };
    loop {
        let changed = direct.changed.notified();
        if direct.stopped.get() {
            return;
        }
        if !direct.due.replace(false) {
            changed.await;
            continue;
        }
        let (result, more) = match &direct.regions {
            None => (inner.flush_direct(direct).await, false),
            Some(regions) => {
                let result = inner.clean_regions(direct, regions).await;
                (result, inner.may_clean_more(regions))
            }
        };
        // Who asks for a flush is told what fails; what is only late is tried again.
        if more || result.is_err() {
            direct.arm();
        }
    }
}

impl Inner {
    /// Stores `data`, whole blocks, from `sector` on, with the tags that were `given`, if any were.
    pub(super) async fn write_direct(
        &self,
        direct: &Rc<Direct>,
        sector: Sector,
        data: &Segments,
        given: Option<&[u8]>,
    ) -> IoResult {
        let sectors = u64_of(data.len_bytes()) / units::SECTOR;
        let tags = given.map_or_else(|| self.tags_of(sector, data), <[u8]>::to_vec);
        let mut rest = data.clone();
        self.change_home(direct, sector, sectors, tags, |run| {
            let later = rest.split_off(usize_of(Sector(run.sectors).bytes()));
            Bio::write(run.data, std::mem::replace(&mut rest, later))
        })
        .await
    }

    /// Stores zeroes; the space may be given back if `unmap` says so.
    pub(super) async fn zero_direct(
        &self,
        direct: &Rc<Direct>,
        sector: Sector,
        sectors: u64,
        unmap: bool,
    ) -> IoResult {
        if sectors == 0 {
            return Ok(());
        }
        let mut tags = vec![0; self.blocks_in(sectors) * self.layout.tag_bytes];
        self.zero_tags(sector.0, &mut tags);
        let large = Sector(sectors).bytes() >= u64_of(ZEROES_BYTES);
        let punch = unmap || (large && self.data().limits().fast_zeroes);
        self.change_home(direct, sector, sectors, tags, |run| match punch {
            true => Bio::write_zeroes(run.data, run.sectors, unmap),
            false => Bio::write(run.data, Buf::zeroed(usize_of(Sector(run.sectors).bytes()))),
        })
        .await
    }

    /// The tags of `data` from `sector` on.
    pub(super) fn tags_of(&self, sector: Sector, data: &Segments) -> Vec<u8> {
        let (block_bytes, tag_bytes) = (self.block_bytes(), self.layout.tag_bytes);
        let mut tags = vec![0; data.len_bytes() / block_bytes * tag_bytes];
        if !data.iter().all(|piece| piece.len().is_multiple_of(block_bytes)) {
            self.tagger.tags(sector.0, data.to_single().as_slice(), &mut tags);
            return tags;
        }
        let mut block = 0;
        for piece in data.iter() {
            let end = block + piece.len() / block_bytes;
            let target = &mut tags[block * tag_bytes..end * tag_bytes];
            self.tagger.tags((sector + self.sectors_of(block)).0, piece.as_slice(), target);
            block = end;
        }
        tags
    }

    /// Does to each run of a range what `change` says, and gives it `tags`.
    async fn change_home(
        &self,
        direct: &Rc<Direct>,
        sector: Sector,
        sectors: u64,
        tags: Vec<u8>,
        mut change: impl FnMut(&Run) -> Bio,
    ) -> IoResult {
        let _entered = self.enter(direct, sector, sectors).await?;
        let mut tags = tags.as_slice();
        for run in self.layout.runs(sector, sectors) {
            let (now, later) = tags.split_at(self.blocks_in(run.sectors) * self.layout.tag_bytes);
            tags = later;
            let mut bio = change(&run);
            let written = both(self.data().submit(&mut bio), self.warm(&run, now.len())).await.0;
            written.map_err(|error| at(error.kind, run.sector))?;
            self.change_tags(run.tag_byte, now).await.map_err(|kind| at(kind, run.sector))?;
        }
        Ok(())
    }

    /// Makes way for a change of a range: home is held, and in bitmap mode its bits are durable, as
    /// long as the result is kept.
    pub(super) async fn enter<'a>(
        &self,
        direct: &'a Rc<Direct>,
        sector: Sector,
        sectors: u64,
    ) -> IoResult<(RangeGuard, Option<Marked<'a>>)> {
        self.relieve(direct, sector).await?;
        let held = self.home.lock(sector.0..(sector + sectors).0).await;
        direct.check(sector)?;
        direct.arm();
        let marked = match &direct.regions {
            None => None,
            Some(regions) => {
                let marked = self.mark(regions, sector, sectors).await;
                Some(marked.map_err(|error| at(error.kind, sector))?)
            }
        };
        Ok((held, marked))
    }

    /// Reads the pages that the tags of a run are in, so that they are there when its data was
    /// written. If that fails, it is no matter: they are read again then.
    async fn warm(&self, run: &Run, length: usize) {
        let mut tags = vec![0; length];
        let _read_again = self.tags.read(run.tag_byte, &mut tags, 0).await;
    }

    /// Changes tags in memory, page by page.
    pub(super) async fn change_tags(&self, address: u64, tags: &[u8]) -> Result<(), IoErrorKind> {
        let (mut address, mut rest) = (address, tags);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(usize_of(PAGE - address % PAGE).min(rest.len()));
            while !self.tags.store(address, now) {
                let pages = pages_of(address, now.len());
                let changing = self.tags.change(pages).await;
                let mut changing = changing.map_err(|error| error.kind)?;
                if !changing.lost.is_empty() {
                    let written = Tags { address, bytes: now.to_vec() };
                    self.disown_lost_tags(&mut changing, &[written]).await;
                }
                self.tags.admit(changing);
            }
            address += u64_of(now.len());
            rest = later;
        }
        Ok(())
    }

    /// Writes dirty tags if there are many: what is more waits.
    pub(super) async fn relieve(&self, direct: &Direct, sector: Sector) -> IoResult {
        if !self.tags.is_pressed() {
            return Ok(());
        }
        let _one = direct.settling.lock(0..1).await;
        direct.check(sector)?;
        if self.tags.is_pressed() {
            self.settle(direct).await.map_err(|kind| at(kind, sector))?;
        }
        Ok(())
    }

    /// Writes dirty tags, and sees to it that they are there (`settling` is held).
    async fn settle(&self, direct: &Direct) -> Result<(), IoErrorKind> {
        let write_back = async || self.tags.write_back().await.map_err(|error| error.kind);
        match self.bring_home(write_back).await {
            Ok(()) => Ok(()),
            Err(NotHome::Unwritten(kind)) => Err(kind),
            Err(NotHome::Unflushed(kind)) => {
                direct.failed.set(Some(kind));
                Err(kind)
            }
        }
    }

    /// Makes everything durable that was written before this call. Who comes while others are at it
    /// shares the next one.
    pub(super) async fn flush_direct(&self, direct: &Direct) -> IoResult {
        let mine = direct.asked.get() + 1;
        direct.asked.set(mine);
        let _one = direct.settling.lock(0..1).await;
        if let Some(kind) = direct.failed.get() {
            return Err(kind.at(Sector::ZERO));
        }
        if direct.done.get() >= mine {
            return Ok(());
        }
        let covers = direct.asked.get();
        self.settle(direct).await.map_err(|kind| kind.at(Sector::ZERO))?;
        if let Err(error) = self.lower.flush_for(super::ordering::DIRECT).await {
            direct.failed.set(Some(error.kind));
            return Err(error.kind.at(Sector::ZERO));
        }
        direct.done.set(covers);
        Ok(())
    }

    /// Takes no more writes, and makes everything durable. Without a bitmap the journal holds nothing:
    /// it stays as it is.
    pub(super) async fn close_direct(&self, direct: &Direct) -> IoResult {
        if direct.closing.replace(true) {
            return Ok(());
        }
        // Whoever writes holds home; who comes later finds it closing.
        drop(self.home.lock(0..self.layout.provided_sectors).await);
        let flushed = self.flush_direct(direct).await;
        direct.stop();
        flushed?;
        match &direct.regions {
            None => Ok(()),
            Some(regions) => self.close_bitmap(direct, regions).await,
        }
    }
}
