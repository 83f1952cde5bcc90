//! Writing: data and tag go into an entry of the log, and that is all.
//!
//! A request may span sections; each block is in exactly one entry, so it is never torn. The
//! request completes when all of it is in memory, or, with FUA, when all of it is committed.

use super::log::{Content, Entry, Section};
use super::{Inner, Journal};
use bio::{IoResult, Segments};
use units::{Sector, u64_of, usize_of};

impl Inner {
    /// Stores `data`, whole blocks, from `sector` on.
    pub(super) async fn write(&self, sector: Sector, data: &Segments) -> IoResult {
        self.forget_told(sector.0, u64_of(data.len_bytes()) / units::SECTOR);
        let whole = data.iter().all(|piece| piece.len().is_multiple_of(self.block_bytes()));
        if !whole {
            let single = data.to_single();
            return self.write_piece(sector, single.as_slice()).await;
        }
        let mut at = sector;
        for piece in data.iter() {
            self.write_piece(at, piece.as_slice()).await?;
            at += u64_of(piece.len()) / units::SECTOR;
        }
        Ok(())
    }

    async fn write_piece(&self, sector: Sector, data: &[u8]) -> IoResult {
        let (mut at, mut rest) = (sector, data);
        while !rest.is_empty() {
            let section = self.room(at).await?;
            let blocks = self.room_in(&section).min(rest.len() / self.block_bytes());
            let (now, later) = rest.split_at(blocks * self.block_bytes());
            self.fill(&section, at, now);
            at += self.sectors_of(blocks);
            rest = later;
        }
        Ok(())
    }

    /// Stores `blocks` blocks of zeroes.
    pub(super) async fn write_zero_blocks(
        &self,
        sector: Sector,
        blocks: usize,
        unmap: bool,
    ) -> IoResult {
        self.forget_told(sector.0, self.sectors_of(blocks));
        let (mut at, mut left) = (sector, blocks);
        while left > 0 {
            let section = self.room(at).await?;
            let blocks = self.room_in(&section).min(left);
            self.fill_zeroes(&section, at, blocks, unmap);
            at += self.sectors_of(blocks);
            left -= blocks;
        }
        Ok(())
    }

    async fn room(&self, sector: Sector) -> IoResult<std::rc::Rc<Section>> {
        self.writer().room(sector).await
    }

    fn room_in(&self, section: &Section) -> usize {
        self.writer().log.borrow().room(section)
    }

    /// Fills entries of `section`, which has room for all of `data`.
    fn fill(&self, section: &Section, sector: Sector, data: &[u8]) {
        let tag_bytes = self.layout.tag_bytes;
        let mut tags = vec![0; data.len() / self.block_bytes() * tag_bytes];
        self.tagger.tags(sector.0, data, &mut tags);
        let blocks = data.chunks_exact(self.block_bytes()).zip(tags.chunks_exact(tag_bytes));
        let mut bytes = section.bytes.borrow_mut();
        let mut filled = Filled::after(section);
        for ((block, tag), at) in blocks.zip((sector.0..).step_by(self.step())) {
            let index = filled.add(at, Content::Data);
            self.layout.journal.write_entry(bytes.as_mut_slice(), index, at, block, tag);
        }
        drop(bytes);
        self.add(section, &filled);
    }

    fn fill_zeroes(&self, section: &Section, sector: Sector, blocks: usize, unmap: bool) {
        let tag_bytes = self.layout.tag_bytes;
        let mut tags = vec![0; blocks * tag_bytes];
        self.zeros.fill(sector.0, &mut tags);
        let mut bytes = section.bytes.borrow_mut();
        let mut filled = Filled::after(section);
        for (tag, at) in tags.chunks_exact(tag_bytes).zip((sector.0..).step_by(self.step())) {
            let index = filled.add(at, Content::Zeroes { unmap });
            self.layout.journal.write_zero_entry(bytes.as_mut_slice(), index, at, tag);
        }
        drop(bytes);
        self.add(section, &filled);
    }

    fn add(&self, section: &Section, filled: &Filled) {
        let Journal::Writing(writer) = &self.journal else { return };
        {
            let mut log = writer.log.borrow_mut();
            for &entry in &filled.entries {
                log.add(section, entry);
            }
        }
        writer.filled();
    }

    fn step(&self) -> usize {
        usize_of(self.layout.block.sectors())
    }
}

/// Entries that were just filled, in order.
struct Filled {
    next: u32,
    entries: Vec<Entry>,
}

impl Filled {
    fn after(section: &Section) -> Self {
        let next = u32::try_from(section.entries.borrow().len()).expect("they fit a section");
        Self { next, entries: Vec::new() }
    }

    fn add(&mut self, sector: u64, content: Content) -> u32 {
        let index = self.next;
        self.entries.push(Entry { index, sector, content });
        self.next += 1;
        index
    }
}
