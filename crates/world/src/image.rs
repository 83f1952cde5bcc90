//! What a disk holds: sparse pages that snapshots share, and marks for sectors that cannot be read.

use crate::rng::{hash_bytes, mix};
use std::collections::BTreeSet;
use std::rc::Rc;
use units::{BlockSize, SECTOR_BYTES, Sector, usize_of};

/// The content of a disk. Cloning shares every page until it is written.
#[derive(Clone, Debug)]
pub struct Image {
    sectors: u64,
    data: Pages,
    tags: Option<Tags>,
    unreadable: BTreeSet<u64>,
    /// Sectors whose writes fail.
    refused: BTreeSet<u64>,
}

/// What a disk keeps for each block beside its data.
#[derive(Clone, Debug)]
struct Tags {
    bytes: Pages,
    block: BlockSize,
    /// Of each block, in bytes.
    size: usize,
}

impl Image {
    /// `sectors` sectors of zeroes.
    #[must_use]
    pub fn new(sectors: u64) -> Self {
        let data = Pages::new(usize_of(Sector(sectors).bytes()));
        let (unreadable, refused) = Default::default();
        Self { sectors, data, tags: None, unreadable, refused }
    }

    /// The same with `size` bytes of metadata for each block of `block`, all zeroes; 0: none.
    #[must_use]
    pub fn with_tags(self, block: BlockSize, size: usize) -> Self {
        let blocks = usize_of(self.sectors / block.sectors());
        let tags = (size > 0).then(|| Tags { bytes: Pages::new(blocks * size), block, size });
        Self { tags, ..self }
    }

    /// Size in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Bytes of metadata for each block; 0: none.
    #[must_use]
    pub fn tag_size(&self) -> usize {
        self.tags.as_ref().map_or(0, |tags| tags.size)
    }

    /// Fills `target` (whole sectors) from `sector` on; what is unreadable is filled too.
    pub fn read(&self, sector: u64, target: &mut [u8]) {
        self.data.read(usize_of(Sector(sector).bytes()), target);
    }

    /// Fills `target` with the metadata of the blocks from `sector` on.
    pub fn read_tags(&self, sector: u64, target: &mut [u8]) {
        if let Some(tags) = &self.tags {
            tags.bytes.read(tags.place(sector), target);
        }
    }

    /// Stores `source` (whole sectors) from `sector` on; they are readable again. Metadata stays.
    pub fn write(&mut self, sector: u64, source: &[u8]) {
        self.data.write(usize_of(Sector(sector).bytes()), source);
        if !self.unreadable.is_empty() {
            let end = sector + units::u64_of(source.len() / SECTOR_BYTES);
            self.unreadable.retain(|bad| !(sector..end).contains(bad));
        }
    }

    /// Stores `source` as the metadata of the blocks from `sector` on.
    pub fn write_tags(&mut self, sector: u64, source: &[u8]) {
        if let Some(tags) = &mut self.tags {
            let at = tags.place(sector);
            tags.bytes.write(at, source);
        }
    }

    /// Changes one byte of `sector` by xor with `mask`; from [`SECTOR_BYTES`] on it is one of the
    /// metadata of its block.
    pub fn flip(&mut self, sector: u64, byte: usize, mask: u8) {
        if let Some(byte) = byte.checked_sub(SECTOR_BYTES)
            && let Some(tags) = &mut self.tags
        {
            let at = tags.place(sector) + byte % tags.size;
            let mut found = [0];
            tags.bytes.read(at, &mut found);
            tags.bytes.write(at, &[found[0] ^ mask]);
            return;
        }
        let bad = self.unreadable.clone();
        let mut bytes = [0; SECTOR_BYTES];
        self.read(sector, &mut bytes);
        bytes[byte % SECTOR_BYTES] ^= mask;
        self.write(sector, &bytes);
        self.unreadable = bad;
    }

    /// The same with `sectors` sectors: cut off, or with zeroes behind.
    #[must_use]
    pub fn resized(&self, sectors: u64) -> Self {
        let mut image = self.clone();
        image.sectors = sectors;
        image.data.resize(usize_of(Sector(sectors).bytes()));
        if let Some(tags) = &mut image.tags {
            tags.bytes.resize(usize_of(sectors / tags.block.sectors()) * tags.size);
        }
        image.unreadable.retain(|&bad| bad < sectors);
        image.refused.retain(|&bad| bad < sectors);
        image
    }

    /// Marks `sector` as unreadable until it is written.
    pub fn spoil(&mut self, sector: u64) {
        self.unreadable.insert(sector);
    }

    /// From now on writes to `sector` fail, and change nothing.
    pub fn refuse(&mut self, sector: u64) {
        self.refused.insert(sector);
    }

    /// All writes succeed again.
    pub fn accept(&mut self) {
        self.refused.clear();
    }

    /// The first of `sectors` sectors from `sector` on whose writes fail.
    #[must_use]
    pub fn first_refused(&self, sector: u64, sectors: u64) -> Option<u64> {
        self.refused.range(sector..sector + sectors).next().copied()
    }

    /// The first unreadable sector among `sectors` from `sector` on.
    #[must_use]
    pub fn first_unreadable(&self, sector: u64, sectors: u64) -> Option<u64> {
        self.unreadable.range(sector..sector + sectors).next().copied()
    }

    /// A number that tells different contents apart.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let hash = self.unreadable.iter().fold(self.sectors, |hash, &bad| mix(hash, bad));
        let hash = self.data.hash(hash);
        self.tags.as_ref().map_or(hash, |tags| tags.bytes.hash(hash))
    }
}

impl Tags {
    /// The first byte of the metadata of the block at `sector`.
    fn place(&self, sector: u64) -> usize {
        usize_of(sector / self.block.sectors()) * self.size
    }
}

/// Sparse bytes.
#[derive(Clone, Debug)]
struct Pages {
    length: usize,
    pages: Vec<Option<Rc<Page>>>,
}

type Page = [u8; PAGE_BYTES];

impl Pages {
    fn new(length: usize) -> Self {
        Self { length, pages: vec![None; length.div_ceil(PAGE_BYTES)] }
    }

    /// Cut off, or with zeroes behind.
    fn resize(&mut self, length: usize) {
        let end = length.next_multiple_of(PAGE_BYTES).min(self.length);
        if length < end {
            self.write(length, &vec![0; end - length]);
        }
        self.length = length;
        self.pages.resize(length.div_ceil(PAGE_BYTES), None);
    }

    fn read(&self, at: usize, target: &mut [u8]) {
        self.pieces(at, target.len(), |page, within, here| {
            match &self.pages[page] {
                Some(page) => target[here.clone()].copy_from_slice(&page[within]),
                None => target[here].fill(0),
            };
        });
    }

    fn write(&mut self, at: usize, source: &[u8]) {
        let mut pages = std::mem::take(&mut self.pages);
        self.pieces(at, source.len(), |page, within, here| {
            let page = pages[page].get_or_insert_with(|| Rc::new([0; PAGE_BYTES]));
            Rc::make_mut(page)[within].copy_from_slice(&source[here]);
        });
        self.pages = pages;
    }

    fn hash(&self, hash: u64) -> u64 {
        let written = self.pages.iter().enumerate().filter_map(|(index, page)| {
            page.as_ref()
                .filter(|page| page.iter().any(|&byte| byte != 0))
                .map(|page| (index, page))
        });
        written.fold(hash, |hash, (index, page)| {
            hash_bytes(mix(hash, units::u64_of(index)), page.as_slice())
        })
    }

    fn pieces(
        &self,
        at: usize,
        length: usize,
        mut visit: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        assert!(at + length <= self.length, "the range lies on the disk");
        let (mut at, mut done) = (at, 0);
        while done < length {
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let take = (PAGE_BYTES - within).min(length - done);
            visit(page, within..within + take, done..done + take);
            at += take;
            done += take;
        }
    }
}

const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_keeps_what_it_saw() {
        let mut image = Image::new(24);
        image.write(7, &[1; 1024]);
        let before = image.clone();
        image.write(8, &[2; 512]);
        let mut bytes = [0; 1024];
        before.read(7, &mut bytes);
        assert_eq!((bytes[0], bytes[512]), (1, 1));
        image.read(7, &mut bytes);
        assert_eq!((bytes[0], bytes[512]), (1, 2));
        assert_ne!(before.hash(), image.hash());
    }

    #[test]
    fn metadata_belongs_to_its_block() {
        let mut image = Image::new(24).with_tags(BlockSize::B4096, 3);
        let blank = image.hash();
        image.write_tags(8, &[1, 2, 3, 4, 5, 6]);
        image.flip(13, SECTOR_BYTES + 1, 0x80);
        let mut tags = [0; 9];
        image.read_tags(0, &mut tags);
        assert_eq!(tags, [0, 0, 0, 1, 0x82, 3, 4, 5, 6]);
        assert_ne!(image.hash(), blank);
    }

    #[test]
    fn writing_makes_readable_again() {
        let mut image = Image::new(8);
        image.spoil(3);
        assert_eq!(image.first_unreadable(0, 8), Some(3));
        image.flip(3, 0, 1);
        assert_eq!(image.first_unreadable(0, 8), Some(3));
        image.write(3, &[0; 512]);
        assert_eq!(image.first_unreadable(0, 8), None);
    }
}
