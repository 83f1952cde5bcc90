//! Writing: data and tag go into an entry of the log, and that is all.
//!
//! A request may span sections; each block is in exactly one entry, so it is never torn. The
//! request completes when all of it is in memory, or, with FUA, when all of it is committed.
//! (Without a journal: direct.rs.)

use super::section::{Content, Section};
use super::{Inner, Journal};
use bio::{Buf, IoResult, Segments};
use std::rc::Rc;
use units::{Sector, u64_of, usize_of};

impl Inner {
    /// Stores `data`, whole blocks, from `sector` on, with `tags` if they were given.
    pub(super) async fn write(&self, sector: Sector, data: &Segments, tags: &Segments) -> IoResult {
        self.forget_told(sector.0, u64_of(data.len_bytes()) / units::SECTOR);
        let given = (!tags.is_empty()).then(|| tags.to_single());
        let mut given = given.as_ref().map(Buf::as_slice);
        if let Journal::Direct(direct) = &self.journal {
            return self.write_direct(direct, sector, data, given).await;
        }
        let whole = data.iter().all(|piece| piece.len().is_multiple_of(self.block_bytes()));
        if !whole {
            let single = data.to_single();
            return self.write_piece(sector, single.as_slice(), given).await;
        }
        let mut at = sector;
        for piece in data.iter() {
            let tag_bytes = piece.len() / self.block_bytes() * self.layout.tag_bytes;
            let now = given.map(|given| given.split_at(tag_bytes));
            self.write_piece(at, piece.as_slice(), now.map(|(now, _)| now)).await?;
            given = now.map(|(_, later)| later);
            at += u64_of(piece.len()) / units::SECTOR;
        }
        Ok(())
    }

    async fn write_piece(&self, sector: Sector, data: &[u8], tags: Option<&[u8]>) -> IoResult {
        let (mut at, mut rest, mut given) = (sector, data, tags);
        while !rest.is_empty() {
            let section = self.room(at).await?;
            let blocks = self.room_in(&section).min(rest.len() / self.block_bytes());
            let (now, later) = rest.split_at(blocks * self.block_bytes());
            let tags = given.map(|given| given.split_at(blocks * self.layout.tag_bytes));
            self.fill(&section, at, now, tags.map(|(now, _)| now));
            (rest, given) = (later, tags.map(|(_, later)| later));
            at += self.sectors_of(blocks);
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
        if let Journal::Direct(direct) = &self.journal {
            return self.zero_direct(direct, sector, self.sectors_of(blocks), unmap).await;
        }
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

    async fn room(&self, sector: Sector) -> IoResult<Rc<Section>> {
        self.writer().room(sector).await
    }

    fn room_in(&self, section: &Section) -> usize {
        self.writer().log.borrow().room(section)
    }

    /// Fills entries of `section`, which has room for all of `data`.
    fn fill(&self, section: &Section, sector: Sector, data: &[u8], given: Option<&[u8]>) {
        let (journal, tag_bytes) = (&self.layout.journal, self.layout.tag_bytes);
        let count = data.len() / self.block_bytes();
        let mut tags = self.writer().tags.take();
        tags.resize(count * tag_bytes, 0);
        match given {
            Some(given) => tags.copy_from_slice(given),
            None => self.tagger.tags(sector.0, data, &mut tags),
        }
        let blocks = data.chunks_exact(self.block_bytes()).zip(tags.chunks_exact(tag_bytes));
        let mut bytes = section.bytes.borrow_mut();
        let target = bytes.as_mut_slice();
        for (((block, tag), at), index) in blocks.zip(self.firsts(sector)).zip(section.used()..) {
            journal.write_entry(target, index, at, block, tag, &section.stamp);
        }
        drop(bytes);
        self.writer().tags.set(tags);
        self.add(section, sector, count, Content::Data);
    }

    fn fill_zeroes(&self, section: &Section, sector: Sector, count: usize, unmap: bool) {
        let (journal, tag_bytes) = (&self.layout.journal, self.layout.tag_bytes);
        let mut tags = vec![0; count * tag_bytes];
        self.zero_tags(sector.0, &mut tags);
        let mut bytes = section.bytes.borrow_mut();
        let target = bytes.as_mut_slice();
        let each = tags.chunks_exact(tag_bytes).zip(self.firsts(sector)).zip(section.used()..);
        for ((tag, at), index) in each {
            journal.write_zero_entry(target, index, at, tag, &section.stamp);
        }
        drop(bytes);
        self.add(section, sector, count, Content::Zeroes { unmap });
    }

    fn add(&self, section: &Section, sector: Sector, count: usize, content: Content) {
        let writer = self.writer();
        writer.log.borrow_mut().add(section, sector.0, count, content);
        writer.filled();
    }

    /// The first sectors of blocks from `sector` on.
    fn firsts(&self, sector: Sector) -> impl Iterator<Item = u64> + use<> {
        (sector.0..).step_by(usize_of(self.layout.block.sectors()))
    }
}
