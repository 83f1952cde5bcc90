//! A device in memory: for tests, measurements and scratch volumes.
//!
//! ```text
//!   page table:   region (2 MiB) -> 512 slots -> page (4 KiB) or nothing
//! ```
//!
//! Only pages that were written take memory, so a device of any size costs nothing at first; what
//! is discarded gives its pages back. Every request is one copy and never waits. (Reads could share
//! the pages instead of copying, but the contract gives the caller its own segments back, which
//! layers above split and rejoin.)
//!
//! It can be a disk of larger sectors too, as of 520 or 4104 bytes: then it keeps metadata for each
//! block (metadata.rs), which travels in [`Bio::tags`]. A request is one step here, so a block and its
//! metadata are never apart.

mod metadata;

use bio::{Allocation, Bio, BlockDevice, IoErrorKind, IoResult, Limits, Op};
use dif::Profile;
use metadata::Metadata;
use std::cell::RefCell;
use std::collections::BTreeMap;
use units::{BlockSize, SECTOR, Sector, u64_of, usize_of};

const PAGE: usize = 4096;
const PAGE_SECTORS: u64 = 8;
const PAGES_PER_REGION: usize = 512;
const REGION_SECTORS: u64 = PAGE_SECTORS * 512;
/// Runs told at once; whoever wants to know more asks from there on.
const RUNS_MAX: usize = 1024;

type Page = Box<[u8; PAGE]>;

struct Region {
    pages: Box<[Option<Page>; PAGES_PER_REGION]>,
    stored: usize,
}

/// A device in memory.
pub struct MemoryDevice {
    limits: Limits,
    regions: RefCell<BTreeMap<u64, Region>>,
    /// What is kept for each block, if anything is.
    metadata: Option<Metadata>,
}

/// Part of a page that a request concerns.
struct Piece {
    region: u64,
    page: usize,
    /// First byte within the page.
    start: usize,
    length: usize,
}

impl MemoryDevice {
    /// All zeroes, `sectors` sectors of 512 bytes in blocks of `block`.
    ///
    /// # Panics
    /// If that is not a whole number of blocks.
    #[must_use]
    pub fn new(sectors: u64, block: BlockSize) -> Self {
        assert!(block.divides(sectors), "a device is whole blocks");
        let limits = Limits { discard: true, fast_zeroes: true, ..Limits::new(sectors, block) };
        Self { limits, regions: RefCell::default(), metadata: None }
    }

    /// The same with `tag_size` bytes of metadata for each block, all zeroes: a disk whose sectors have
    /// `block` and so many bytes more.
    ///
    /// # Panics
    /// If that is not a whole number of blocks, or `tag_size` is 0.
    #[must_use]
    pub fn with_metadata(sectors: u64, block: BlockSize, tag_size: usize) -> Self {
        assert!(tag_size > 0, "metadata has at least one byte");
        let mut device = Self::new(sectors, block);
        device.limits.tag_size = tag_size;
        device.metadata = Some(Metadata::new(tag_size, 0));
        device
    }

    /// A disk that keeps protection information of that profile: a tuple or several beside each block,
    /// escapes until they are written.
    ///
    /// # Panics
    /// If that is not a whole number of blocks, or a block not of intervals.
    #[must_use]
    pub fn with_protection(sectors: u64, block: BlockSize, profile: Profile) -> Self {
        let mut device = Self::new(sectors, block);
        device.limits.protect(profile);
        let Limits { tag_size, .. } = device.limits;
        device.metadata = Some(Metadata::new(tag_size, device.limits.blank_tag()));
        device
    }

    /// Memory that its pages and its metadata take, in bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        let regions = self.regions.borrow();
        let pages: usize = regions.values().map(|region| region.stored).sum();
        u64_of(pages * PAGE) + self.metadata.as_ref().map_or(0, Metadata::stored_bytes)
    }

    /// The block that `sector` starts.
    fn block_of(&self, sector: Sector) -> u64 {
        sector.0 / self.limits.logical_block.sectors()
    }

    fn read(&self, bio: &mut Bio) {
        let regions = self.regions.borrow();
        let mut sector_bytes = bio.sector.bytes();
        for buf in bio.data.iter_mut() {
            let target = buf.as_mut_slice();
            let mut filled = 0;
            for piece in pieces(sector_bytes, target.len()) {
                let target = &mut target[filled..filled + piece.length];
                let page = regions.get(&piece.region).and_then(|r| r.pages[piece.page].as_ref());
                match page {
                    Some(page) => {
                        target.copy_from_slice(&page[piece.start..piece.start + piece.length]);
                    }
                    None => target.fill(0),
                }
                filled += piece.length;
            }
            sector_bytes += u64_of(filled);
        }
    }

    fn write(&self, bio: &Bio) {
        let mut regions = self.regions.borrow_mut();
        let mut sector_bytes = bio.sector.bytes();
        for buf in bio.data.iter() {
            let source = buf.as_slice();
            let mut taken = 0;
            for piece in pieces(sector_bytes, source.len()) {
                let region = regions.entry(piece.region).or_insert_with(Region::new);
                let page = region.page(piece.page);
                page[piece.start..piece.start + piece.length]
                    .copy_from_slice(&source[taken..taken + piece.length]);
                taken += piece.length;
            }
            sector_bytes += u64_of(taken);
        }
    }

    /// Whole pages are given back, the parts at both ends are overwritten.
    fn zero(&self, sector: Sector, sectors: u64) {
        let mut regions = self.regions.borrow_mut();
        let (mut at, end) = (sector.0, sector.0 + sectors);
        // Only regions that exist: a discard of a terabyte of nothing takes no time.
        while let Some((&number, region)) = regions.range_mut(at / REGION_SECTORS..).next() {
            let start = at.max(number * REGION_SECTORS);
            let stop = end.min((number + 1) * REGION_SECTORS);
            if start >= stop {
                break;
            }
            for piece in pieces(Sector(start).bytes(), usize_of(Sector(stop - start).bytes())) {
                let slot = &mut region.pages[piece.page];
                if piece.length == PAGE {
                    region.stored -= usize::from(slot.take().is_some());
                } else if let Some(page) = slot {
                    page[piece.start..piece.start + piece.length].fill(0);
                }
            }
            if region.stored == 0 {
                regions.remove(&number);
            }
            at = stop;
        }
    }

    fn runs(&self, sector: Sector, sectors: u64) -> Vec<Allocation> {
        let regions = self.regions.borrow();
        let (mut at, end) = (sector.0, sector.0 + sectors);
        let mut runs: Vec<Allocation> = Vec::new();
        while at < end && runs.len() < RUNS_MAX {
            let (hole, stop) = match regions.range(at / REGION_SECTORS..).next() {
                None => (true, end),
                Some((&number, _)) if number * REGION_SECTORS > at => {
                    (true, number * REGION_SECTORS)
                }
                Some((_, region)) => {
                    let page = usize_of(at / PAGE_SECTORS) % PAGES_PER_REGION;
                    (region.pages[page].is_none(), (at / PAGE_SECTORS + 1) * PAGE_SECTORS)
                }
            };
            let length = stop.min(end) - at;
            match runs.last_mut() {
                Some(last) if last.hole == hole => last.sectors += length,
                _ => runs.push(Allocation { sectors: length, hole }),
            }
            at += length;
        }
        runs
    }
}

impl BlockDevice for MemoryDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Read => self.read(bio),
            Op::Write { .. } => self.write(bio),
            Op::Flush => {}
            Op::Discard { sectors } | Op::WriteZeroes { sectors, .. } => {
                self.zero(bio.sector, sectors);
            }
            Op::Vouch | Op::Peek { .. } => return Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
        let Some(metadata) = &self.metadata else { return Ok(()) };
        let block = self.block_of(bio.sector);
        match bio.op {
            Op::Read => metadata.read(block, &mut bio.tags),
            Op::Write { .. } if !bio.tags.is_empty() => metadata.write(block, &bio.tags),
            _ if bio.op.is_write() => {
                metadata.clear(block, bio.sectors() / self.limits.logical_block.sectors());
            }
            _ => {}
        }
        Ok(())
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        Ok(self.runs(sector, sectors))
    }
}

impl Region {
    fn new() -> Self {
        Self { pages: Box::new([const { None }; PAGES_PER_REGION]), stored: 0 }
    }

    fn page(&mut self, index: usize) -> &mut Page {
        let stored = &mut self.stored;
        self.pages[index].get_or_insert_with(|| {
            *stored += 1;
            Box::new([0; PAGE])
        })
    }
}

/// The pages that `length` bytes from byte `offset` on lie in.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = Piece> {
    let (mut offset, mut left) = (offset, length);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let start = usize_of(offset % u64_of(PAGE));
        let length = left.min(PAGE - start);
        let page = offset / SECTOR / PAGE_SECTORS;
        let piece = Piece {
            region: page / u64_of(PAGES_PER_REGION),
            page: usize_of(page % u64_of(PAGES_PER_REGION)),
            start,
            length,
        };
        offset += u64_of(length);
        left -= length;
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
