//! Tags of the device, through a bounded cache of pages.
//!
//! A page is 4096 bytes of the device at a multiple of 4096; metadata runs start and end at such
//! multiples, so a page never holds anything but tags and their padding. With a journal, pages are
//! written through: what the cache holds is what the device holds, or is about to. Without one they
//! may be [dirty](delayed): then only the cache has what is true.
//!
//! Whoever changes pages holds their lock from reading them to the end of writing them; whoever
//! reads pages from the device holds it shared. So no stale page ever replaces a newer one.

mod delayed;

use super::checks::CONFIRMED;
use super::log::SectorHasher;
use bio::{Bio, Buf, Device, IoError, IoResult};
use checksum::crc32c;
use runtime::{RangeGuard, RangeLock, join_all};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::ops::Range;
use units::{SECTOR, SECTOR_BYTES, Sector, u64_of, usize_of};

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
pub(super) const PAGE_BYTES: usize = 4096;
const PAGE_SECTORS: u64 = PAGE / SECTOR;

pub(super) struct TagCache {
    lower: Device,
    pages: RefCell<Pages>,
    lock: RangeLock,
    pages_max: usize,
    /// Pages to be read again, and the checksum of what was written. No more than changed since the
    /// last [`TagCache::confirm`].
    unconfirmed: RefCell<BTreeMap<u64, u32>>,
    /// Pages that hold more than the device does: kept, and never replaced by what it holds.
    dirty: RefCell<BTreeSet<u64>>,
    /// There may be such pages; then unconfirmed ones are kept too, to be written again.
    delays: bool,
}

#[derive(Default)]
struct Pages {
    map: HashMap<u64, Page, BuildHasherDefault<SectorHasher>>,
    /// The order in which pages are looked at for eviction.
    clock: VecDeque<u64>,
}

struct Page {
    bytes: Box<[u8]>,
    used: Cell<bool>,
}

/// Pages read so as to be changed, and the sectors of them that the device could not read.
pub(super) struct Changing {
    /// Consecutive pages in one buffer, exclusive.
    pub bytes: Buf,
    /// Byte addresses on the device of sectors that are lost.
    pub lost: Vec<u64>,
    first_page: u64,
    _guard: RangeGuard,
}

impl TagCache {
    /// A cache of at most `bytes` bytes (at least one page).
    pub fn new(lower: Device, bytes: usize) -> Self {
        let pages_max = (bytes / PAGE_BYTES).max(1);
        let (pages, lock, unconfirmed, dirty) = Default::default();
        Self { lower, pages, lock, pages_max, unconfirmed, dirty, delays: false }
    }

    /// Copies the bytes at `address` of the device to `target`. What has to be read for that is
    /// read up to `ahead` (a byte address that ends a page), as far as that pays.
    pub async fn read(&self, address: u64, target: &mut [u8], ahead: u64) -> IoResult {
        if self.copy(address, target) {
            return Ok(());
        }
        let pages = pages_of(address, target.len());
        let wanted = pages.end - pages.start;
        let ahead_pages = if wanted > 1 { READ_AHEAD_PAGES } else { wanted };
        let end = (pages.start + wanted.max(ahead_pages)).min(ahead / PAGE).max(pages.end);
        match self.load(pages.start..end, false).await {
            Ok(bytes) => {
                let start = usize_of(address - pages.start * PAGE);
                target.copy_from_slice(&bytes.as_slice()[start..start + target.len()]);
                Ok(())
            }
            // One bad sector must not hide the tags beside it.
            Err(error) => self.read_exactly(address, target, error, false).await,
        }
    }

    /// The same from the device itself.
    pub async fn read_past_cache(&self, address: u64, target: &mut [u8]) -> IoResult {
        let pages = pages_of(address, target.len());
        match self.load(pages.clone(), true).await {
            Ok(bytes) => {
                let start = usize_of(address - pages.start * PAGE);
                target.copy_from_slice(&bytes.as_slice()[start..start + target.len()]);
                Ok(())
            }
            Err(error) => self.read_exactly(address, target, error, true).await,
        }
    }

    /// Whether the cache has all of the bytes at `address`.
    pub fn holds(&self, address: u64, length: usize) -> bool {
        let pages = self.pages.borrow();
        pages_of(address, length).all(|page| pages.map.contains_key(&page))
    }

    /// Copies from the cache, if all of it is there.
    pub fn copy(&self, address: u64, target: &mut [u8]) -> bool {
        let pages = self.pages.borrow();
        let mut at = address;
        let end = address + u64_of(target.len());
        while at < end {
            let Some(page) = pages.map.get(&(at / PAGE)) else { return false };
            page.used.set(true);
            let within = usize_of(at % PAGE);
            let length = (PAGE_BYTES - within).min(usize_of(end - at));
            let filled = usize_of(at - address);
            target[filled..filled + length].copy_from_slice(&page.bytes[within..within + length]);
            at += u64_of(length);
        }
        true
    }

    /// Reads pages from the device into the cache.
    async fn load(&self, pages: Range<u64>, bypass: bool) -> IoResult<Buf> {
        let _guard = self.lock.lock_shared(pages.clone()).await;
        let sectors = (pages.end - pages.start) * PAGE_SECTORS;
        let mut bytes = self.fetch(pages.start * PAGE_SECTORS, sectors, bypass).await?;
        self.lay_over(pages.start, &mut bytes);
        self.keep(pages.start, bytes.as_slice());
        Ok(bytes)
    }

    async fn fetch(&self, sector: u64, sectors: u64, bypass: bool) -> IoResult<Buf> {
        let mut bio = Bio::read(Sector(sector), sectors);
        bio.bypass = bypass;
        self.lower.submit(&mut bio).await?;
        Ok(bio.data.into_single())
    }

    async fn read_exactly(
        &self,
        address: u64,
        target: &mut [u8],
        error: IoError,
        bypass: bool,
    ) -> IoResult {
        let first = address / SECTOR;
        let end = (address + u64_of(target.len())).div_ceil(SECTOR);
        if self.is_dirty(pages_of(address, target.len())) && self.copy(address, target) {
            return Ok(());
        }
        if !error.kind.is_damage() || !self.lower.limits().logical_block.divides(1) {
            return Err(error);
        }
        let _guard = self.lock.lock_shared(pages_of(address, target.len())).await;
        let bytes = self.fetch(first, end - first, bypass).await?;
        let start = usize_of(address - first * SECTOR);
        target.copy_from_slice(&bytes.as_slice()[start..start + target.len()]);
        self.copy_dirty(address, target);
        Ok(())
    }

    /// Reads `pages` so that they can be changed; nobody else reads or changes them until
    /// [`Self::write`] is through, or the result is dropped.
    pub async fn change(&self, pages: Range<u64>) -> IoResult<Changing> {
        let guard = self.lock.lock(pages.clone()).await;
        let count = usize_of(pages.end - pages.start);
        let mut bytes = Buf::alloc(count * PAGE_BYTES);
        let (first_page, mut lost) = (pages.start, Vec::new());
        if !self.copy(first_page * PAGE, bytes.as_mut_slice()) {
            match self.fetch(first_page * PAGE_SECTORS, u64_of(count) * PAGE_SECTORS, false).await {
                Ok(fetched) => bytes = fetched,
                Err(error) if error.kind.is_damage() => {
                    lost = self.fetch_readable(first_page, &mut bytes).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Changing { bytes, lost, first_page, _guard: guard })
    }

    /// Reads what can be read of pages that could not be read at once.
    async fn fetch_readable(&self, first_page: u64, bytes: &mut Buf) -> IoResult<Vec<u64>> {
        let step = self.lower.limits().logical_block;
        let mut lost = Vec::new();
        for (piece, sector) in bytes
            .as_mut_slice()
            .chunks_mut(step.bytes())
            .zip((first_page * PAGE_SECTORS..).step_by(usize_of(step.sectors())))
        {
            match self.fetch(sector, step.sectors(), false).await {
                Ok(fetched) => piece.copy_from_slice(fetched.as_slice()),
                Err(error) if error.kind.is_damage() => {
                    piece.fill(0);
                    lost.extend((sector..sector + step.sectors()).map(|s| Sector(s).bytes()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Writes changed pages through. If that fails, the cache forgets them.
    pub async fn write(&self, changing: Changing) -> IoResult {
        let Changing { bytes, first_page, _guard, .. } = changing;
        self.keep(first_page, bytes.as_slice());
        let count = u64_of(bytes.len()) / PAGE;
        let result = self.put_down(first_page, bytes).await;
        if result.is_err() {
            let mut pages = self.pages.borrow_mut();
            for page in first_page..first_page + count {
                pages.map.remove(&page);
            }
        }
        result
    }

    /// Writes pages that nobody else reads or writes meanwhile, and remembers those to be confirmed.
    async fn put_down(&self, first_page: u64, bytes: Buf) -> IoResult {
        let count = u64_of(bytes.len()) / PAGE;
        let mut checksums = Vec::new();
        if bytes.as_slice().chunks_exact(SECTOR_BYTES).any(is_uniform) {
            checksums.extend(bytes.as_slice().chunks_exact(PAGE_BYTES).map(crc32c));
        }
        let result = self.lower.write(Sector(first_page * PAGE_SECTORS), bytes).await;
        // What an earlier write brought is not there any more.
        let mut unconfirmed = self.unconfirmed.borrow_mut();
        for page in first_page..first_page + count {
            unconfirmed.remove(&page);
        }
        if result.is_ok() {
            unconfirmed.extend((first_page..).zip(checksums));
        }
        result
    }

    /// Whether [`Self::confirm`] has something to do.
    pub fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.borrow().is_empty()
    }

    /// Reads again, past every cache, what was written since the last call with a sector of one byte
    /// repeated in it ([`super::confirm`] says why). Returns the pages' first bytes on the device, of those that
    /// hold something else.
    ///
    /// # Errors
    /// What the device says, unless it is about the bytes.
    pub async fn confirm(&self) -> IoResult<Vec<u64>> {
        let written: Vec<(u64, u32)> =
            self.unconfirmed.borrow().iter().map(|(page, sum)| (*page, *sum)).collect();
        let runs = written.chunk_by(|(a, _), (b, _)| a + 1 == *b);
        let reads: Vec<_> = runs.flat_map(|run| run.chunks(CONFIRM_PAGES)).collect();
        let mut astray = Vec::new();
        for reads in reads.chunks(CONFIRM_IN_FLIGHT) {
            for found in join_all(reads.iter().map(|run| self.differing(run))).await {
                astray.extend(found?);
            }
        }
        if self.delays {
            self.dirty.borrow_mut().extend(astray.iter().map(|address| address / PAGE));
        }
        let mut unconfirmed = self.unconfirmed.borrow_mut();
        for (page, _) in &written {
            unconfirmed.remove(page);
        }
        Ok(astray)
    }

    /// Of consecutive pages with their checksums, the first bytes of those that hold something else.
    async fn differing(&self, run: &[(u64, u32)]) -> IoResult<Vec<u64>> {
        let (first, count) = (run[0].0, u64_of(run.len()));
        let _guard = self.lock.lock_shared(first..first + count).await;
        let read = Bio::read(Sector(first * PAGE_SECTORS), count * PAGE_SECTORS).bypassing();
        let mut read = read.because(CONFIRMED);
        let bytes = match self.lower.submit(&mut read).await {
            Ok(()) => read.data.into_single(),
            Err(error) if error.kind.is_damage() => {
                return Ok(run.iter().map(|(page, _)| page * PAGE).collect());
            }
            Err(error) => return Err(error),
        };
        let found = run.iter().zip(bytes.as_slice().chunks_exact(PAGE_BYTES));
        let differing = found.filter(|((_, written), bytes)| crc32c(bytes) != *written);
        Ok(differing.map(|((page, _), _)| page * PAGE).collect())
    }

    /// Puts pages into the cache, making room for them.
    fn keep(&self, first_page: u64, bytes: &[u8]) {
        let mut pages = self.pages.borrow_mut();
        let Pages { map, clock } = &mut *pages;
        for (number, bytes) in (first_page..).zip(bytes.chunks_exact(PAGE_BYTES)) {
            if let Some(page) = map.get_mut(&number) {
                page.bytes.copy_from_slice(bytes);
                continue;
            }
            // Twice round finds every page that may go.
            let mut looks = 2 * clock.len();
            while map.len() >= self.pages_max && looks > 0 {
                let Some(oldest) = clock.pop_front() else { break };
                looks -= 1;
                let recently = map.get(&oldest).is_some_and(|page| page.used.replace(false));
                if recently || self.is_pinned(oldest) {
                    clock.push_back(oldest);
                } else {
                    map.remove(&oldest);
                }
            }
            map.insert(number, Page { bytes: bytes.into(), used: Cell::new(false) });
            clock.push_back(number);
        }
    }
}

impl Changing {
    /// Byte address of the first page.
    pub fn start(&self) -> u64 {
        self.first_page * PAGE
    }

    /// Overwrites what of `bytes`, which belong at `address`, lies in these pages.
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        let (start, end) = (self.start(), self.start() + u64_of(self.bytes.len()));
        let from = address.max(start);
        let to = (address + u64_of(bytes.len())).min(end);
        if from < to {
            let source = &bytes[usize_of(from - address)..usize_of(to - address)];
            let at = usize_of(from - start);
            self.bytes.as_mut_slice()[at..at + source.len()].copy_from_slice(source);
        }
    }

    /// Whether byte `address` lies in a sector that could not be read.
    pub fn is_lost(&self, address: u64) -> bool {
        self.lost.contains(&(address / SECTOR * SECTOR))
    }
}

/// The pages that hold `length` bytes (at least one) at `address`.
pub(super) fn pages_of(address: u64, length: usize) -> Range<u64> {
    address / PAGE..(address + u64_of(length)).div_ceil(PAGE)
}

fn is_uniform(sector: &[u8]) -> bool {
    sector.iter().all(|&byte| byte == sector[0])
}

const _: () = assert!(PAGE_BYTES.is_multiple_of(SECTOR_BYTES));
/// Pages read at once by a request that needs more than one.
const READ_AHEAD_PAGES: u64 = 16;
/// Pages read again at once, and such requests at a time.
const CONFIRM_PAGES: usize = 32;
const CONFIRM_IN_FLIGHT: usize = 16;
