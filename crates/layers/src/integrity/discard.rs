//! Discards that leave the kernel's own tags for them: without a journal entry for each block.
//!
//! Such a tag accepts whatever the device below gives back, so it must never stand beside data that
//! somebody still needs. With home held over a piece, and no other tags going home:
//!
//! 1. Blocks of which the journal may hold a copy, in memory or on the disk, are left out: replay
//!    would bring that copy back over the discard. They become zeroes through the journal, as every
//!    block does without [`super::Options::allow_discards`].
//! 2. The tags of the others are written. Crash: old, under its old tag or one that accepts it. A tag
//!    that lies in two sectors may be torn; then the block, which was given up, is unreadable.
//! 3. They are durable.
//! 4. The discard goes down. Crash: old or discarded, both accepted.
//!
//! Without a journal (direct.rs) there is no copy that replay could bring back. The block is entered as
//! by a write, in bitmap mode with its bit durable, its tag joins the others in memory, and a flush
//! makes it durable: the same steps 2 to 4. What was written there before, and what is written later,
//! may after a crash before the next flush be there in part, and the tag accepts that too: whoever
//! discards a block no longer says what it holds, until a flush covers what is written next.
//!
//! (Specification, section 5.1. The kernel leaves out step 3 in direct mode.)

use super::confirm::NotHome;
use super::direct::Direct;
use super::ordering::DISCARDED;
use super::{Inner, Journal, at};
use ::integrity::Run;
use ::integrity::discard::DiscardTags;
use bio::{Bio, IoError, IoResult};
use std::ops::Range;
use std::rc::Rc;
use units::{SECTOR, Sector, usize_of};

impl Inner {
    /// Gives up `sectors` sectors from `sector` on.
    pub(super) async fn discard(&self, sector: Sector, sectors: u64) -> IoResult {
        if !self.coverage.writes_discards() {
            return self.zero(sector, sectors, true).await;
        }
        for run in self.layout.runs(sector, sectors) {
            let end = (run.sector + run.sectors).0;
            for from in (run.sector.0..end).step_by(usize_of(STEP_SECTORS)) {
                self.discard_step(Sector(from), STEP_SECTORS.min(end - from)).await?;
            }
        }
        Ok(())
    }

    /// The same for a piece that lies in one run.
    async fn discard_step(&self, sector: Sector, sectors: u64) -> IoResult {
        if let Journal::Direct(direct) = &self.journal {
            return self.discard_direct(direct, sector, sectors).await;
        }
        let journalled = {
            let _turn = self.homing.acquire(1).await;
            let _held = self.home.lock(sector.0..(sector + sectors).0).await;
            let (free, journalled) = self.journal_free(sector, sectors);
            self.discard_blocks(sector, &free).await?;
            journalled
        };
        for blocks in journalled {
            let from = sector + self.sectors_of(blocks.start);
            self.write_zero_blocks(from, blocks.len(), true).await?;
        }
        Ok(())
    }

    /// The same without a journal.
    async fn discard_direct(&self, direct: &Rc<Direct>, sector: Sector, sectors: u64) -> IoResult {
        let _entered = self.enter(direct, sector, sectors).await?;
        let run = self.layout.run(sector, sectors);
        let tags = self.tags_of_discarded(&run);
        self.change_tags(run.tag_byte, &tags).await.map_err(|kind| at(kind, sector))?;
        self.flush_direct(direct).await.map_err(|error| at(error.kind, sector))?;
        self.give_up(&run).await
    }

    fn tags_of_discarded(&self, run: &Run) -> Vec<u8> {
        let mut tags = vec![0; self.blocks_in(run.sectors) * self.layout.tag_bytes];
        self.coverage.discards.write(self.hash(), run.sector, &mut tags);
        tags
    }

    /// Step 4.
    async fn give_up(&self, run: &Run) -> IoResult {
        let mut discard = Bio::discard(run.data, run.sectors);
        let given_up = self.data().submit(&mut discard).await;
        given_up.map_err(|error: IoError| at(error.kind, run.sector))?;
        self.forget_told(run.sector.0, run.sectors);
        Ok(())
    }

    /// Which blocks of a piece the journal has no copy of, and which it may have.
    fn journal_free(&self, sector: Sector, sectors: u64) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        let log = self.writer().log.borrow();
        let is_free = |block: usize| !log.may_be_replayed((sector + self.sectors_of(block)).0);
        let each: Vec<bool> = (0..self.blocks_in(sectors)).map(is_free).collect();
        let (mut free, mut journalled, mut from) = (Vec::new(), Vec::new(), 0);
        for alike in each.chunk_by(|a, b| a == b) {
            let into = if alike[0] { &mut free } else { &mut journalled };
            into.push(from..from + alike.len());
            from += alike.len();
        }
        (free, journalled)
    }

    /// Steps 2 to 4 for ranges of blocks, counted from `sector`.
    async fn discard_blocks(&self, sector: Sector, ranges: &[Range<usize>]) -> IoResult {
        if ranges.is_empty() {
            return Ok(());
        }
        let place = |blocks: &Range<usize>| {
            let from = sector + self.sectors_of(blocks.start);
            self.layout.run(from, self.sectors_of(blocks.len()))
        };
        let written = self.bring_home(async || {
            for blocks in ranges {
                let run = place(blocks);
                let tags = self.tags_of_discarded(&run);
                self.put_tags(run.tag_byte, tags).await.map_err(|error| error.kind)?;
            }
            Ok(())
        });
        match written.await {
            Ok(()) => {}
            Err(NotHome::Unwritten(kind)) => return Err(at(kind, sector)),
            Err(NotHome::Unflushed(kind)) => {
                self.writer().fail(kind);
                return Err(at(kind, sector));
            }
        }
        self.flush_or_fail(DISCARDED).await.map_err(|kind| at(kind, sector))?;
        for run in ranges.iter().map(place) {
            self.give_up(&run).await?;
        }
        Ok(())
    }
}

impl super::coverage::Coverage {
    /// Whether discarded blocks get tags of their own.
    fn writes_discards(&self) -> bool {
        self.discards_asked && self.discards != DiscardTags::None
    }
}

/// 8 MiB at a time.
const STEP_SECTORS: u64 = (8 << 20) / SECTOR;

const _: () = assert!(STEP_SECTORS.is_multiple_of(8), "a whole number of blocks");
