//! What a disk holds: sparse pages that snapshots share, and marks for sectors that cannot be read.

use crate::rng::{hash_bytes, mix};
use std::collections::BTreeSet;
use std::rc::Rc;
use units::{SECTOR_BYTES, usize_of};

/// The content of a disk. Cloning shares every page until it is written.
#[derive(Clone, Debug)]
pub struct Image {
    sectors: u64,
    pages: Vec<Option<Rc<Page>>>,
    unreadable: BTreeSet<u64>,
}

type Page = [u8; PAGE_BYTES];

impl Image {
    /// `sectors` sectors of zeroes.
    #[must_use]
    pub fn new(sectors: u64) -> Self {
        let pages = vec![None; usize_of(sectors.div_ceil(PAGE_SECTORS))];
        Self { sectors, pages, unreadable: BTreeSet::new() }
    }

    /// Size in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Fills `target` (whole sectors) from `sector` on; what is unreadable is filled too.
    pub fn read(&self, sector: u64, target: &mut [u8]) {
        self.pieces(sector, target.len(), |page, within, here| {
            match &self.pages[page] {
                Some(page) => target[here.clone()].copy_from_slice(&page[within]),
                None => target[here].fill(0),
            };
        });
    }

    /// Stores `source` (whole sectors) from `sector` on; they are readable again.
    pub fn write(&mut self, sector: u64, source: &[u8]) {
        let mut pages = std::mem::take(&mut self.pages);
        self.pieces(sector, source.len(), |page, within, here| {
            let page = pages[page].get_or_insert_with(|| Rc::new([0; PAGE_BYTES]));
            Rc::make_mut(page)[within].copy_from_slice(&source[here]);
        });
        self.pages = pages;
        if !self.unreadable.is_empty() {
            let end = sector + units::u64_of(source.len() / SECTOR_BYTES);
            self.unreadable.retain(|bad| !(sector..end).contains(bad));
        }
    }

    /// Changes one byte of `sector` by xor with `mask`.
    pub fn flip(&mut self, sector: u64, byte: usize, mask: u8) {
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
        for sector in sectors..sectors.next_multiple_of(PAGE_SECTORS).min(self.sectors) {
            image.write(sector, &[0; SECTOR_BYTES]);
        }
        image.sectors = sectors;
        image.pages.resize(usize_of(sectors.div_ceil(PAGE_SECTORS)), None);
        image.unreadable.retain(|&bad| bad < sectors);
        image
    }

    /// Marks `sector` as unreadable until it is written.
    pub fn spoil(&mut self, sector: u64) {
        self.unreadable.insert(sector);
    }

    /// The first unreadable sector among `sectors` from `sector` on.
    #[must_use]
    pub fn first_unreadable(&self, sector: u64, sectors: u64) -> Option<u64> {
        self.unreadable.range(sector..sector + sectors).next().copied()
    }

    /// A number that tells different contents apart.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = self.unreadable.iter().fold(self.sectors, |hash, &bad| mix(hash, bad));
        for (index, page) in self.pages.iter().enumerate() {
            if let Some(page) = page
                && page.iter().any(|&byte| byte != 0)
            {
                hash = hash_bytes(mix(hash, units::u64_of(index)), page.as_slice());
            }
        }
        hash
    }

    fn pieces(
        &self,
        sector: u64,
        length: usize,
        mut visit: impl FnMut(usize, std::ops::Range<usize>, std::ops::Range<usize>),
    ) {
        let mut at = usize_of(units::Sector(sector).bytes());
        assert!(
            at + length <= usize_of(units::Sector(self.sectors).bytes()),
            "the range lies on the disk"
        );
        let mut done = 0;
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
const PAGE_SECTORS: u64 = 8;

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
