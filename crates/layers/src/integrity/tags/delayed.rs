//! Dirty pages: tags that are in memory and not on the device yet.
//!
//! A dirty page is only ever changed in place, without waiting, so that it needs no lock. To write
//! it, its lock is taken, which keeps out everybody who reads it from the device; then, in one
//! step, it is copied and counts as clean. Whoever changes it from then on makes it dirty again; if
//! the write fails, or is found astray when it is confirmed, it is dirty again too. So the device gets
//! versions of a page in their order, and the newest is either there, or on its way, or dirty.

use super::{Changing, PAGE, PAGE_BYTES, PAGE_SECTORS, Page, TagCache, pages_of};
use bio::{Buf, IoResult};
use runtime::join_all;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ops::Range;
use units::{u64_of, usize_of};

impl TagCache {
    /// The same cache, for tags that are [stored](Self::store) and written later.
    pub fn delaying(mut self) -> Self {
        self.delays = true;
        self
    }

    /// Overwrites `bytes` at `address`, which lie in one page, in memory; `false` if the page is not
    /// there: then it has to be [read](Self::change) and [admitted](Self::admit) first.
    pub fn store(&self, address: u64, bytes: &[u8]) -> bool {
        let (number, within) = (address / PAGE, usize_of(address % PAGE));
        let mut pages = self.pages.borrow_mut();
        let Some(page) = pages.map.get_mut(&number) else { return false };
        page.bytes[within..within + bytes.len()].copy_from_slice(bytes);
        page.used.set(true);
        self.dirty.borrow_mut().insert(number);
        true
    }

    /// Keeps a page that was read so as to be changed; what is in memory of it already is newer.
    pub fn admit(&self, changing: Changing) {
        let Changing { bytes, first_page, lost, _guard } = changing;
        for (number, bytes) in (first_page..).zip(bytes.as_slice().chunks_exact(PAGE_BYTES)) {
            if self.pages.borrow().map.contains_key(&number) {
                continue;
            }
            self.keep(number, bytes);
            // What could not be read was made up, and is to be written.
            if lost.iter().any(|address| address / PAGE == number) {
                self.dirty.borrow_mut().insert(number);
            }
        }
    }

    /// Whether so many pages wait to be written or confirmed that some must be before there are more.
    pub fn is_pressed(&self) -> bool {
        let waiting = self.dirty.borrow().len() + self.unconfirmed.borrow().len();
        waiting >= (self.pages_max / 2).max(1)
    }

    /// Writes the pages that are dirty now, in as large pieces as they make. One call at a time. Not
    /// durable yet.
    ///
    /// # Errors
    /// What the device says. What was not written is still dirty.
    pub async fn write_back(&self) -> IoResult {
        let pages: Vec<u64> = self.dirty.borrow().iter().copied().collect();
        let most = usize_of(self.lower.limits().max_bytes / PAGE).clamp(1, WRITE_PAGES);
        let runs = pages.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(most));
        let runs = RefCell::new(runs.collect::<VecDeque<_>>());
        let workers = (0..IN_FLIGHT).map(|_| async {
            loop {
                let run = runs.borrow_mut().pop_front();
                let Some(run) = run else { return Ok(()) };
                self.write_run(run[0]..run[0] + u64_of(run.len())).await?;
            }
        });
        join_all(workers).await.into_iter().collect()
    }

    /// Writes consecutive dirty pages.
    async fn write_run(&self, run: Range<u64>) -> IoResult {
        let _guard = self.lock.lock(run.clone()).await;
        let mut bytes = Buf::alloc(usize_of(run.end - run.start) * PAGE_BYTES);
        {
            let (pages, mut dirty) = (self.pages.borrow(), self.dirty.borrow_mut());
            for (number, target) in
                run.clone().zip(bytes.as_mut_slice().chunks_exact_mut(PAGE_BYTES))
            {
                let page = pages.map.get(&number).expect("a dirty page stays in memory");
                target.copy_from_slice(&page.bytes);
                dirty.remove(&number);
            }
        }
        let result = self.put_down(run.start, bytes.clone()).await;
        if result.is_err() {
            self.dirty.borrow_mut().extend(run.clone());
        }
        // While it was being written, memory may have made room for others with a page that is to be
        // written again, or perhaps will be.
        let mut pages = self.pages.borrow_mut();
        let super::Pages { map, clock } = &mut *pages;
        for (number, bytes) in run.zip(bytes.as_slice().chunks_exact(PAGE_BYTES)) {
            if self.is_pinned(number) {
                map.entry(number).or_insert_with(|| {
                    clock.push_back(number);
                    Page { bytes: bytes.into(), used: Cell::new(false) }
                });
            }
        }
        result
    }

    /// Whether memory must keep a page.
    pub(super) fn is_pinned(&self, page: u64) -> bool {
        self.delays
            && (self.dirty.borrow().contains(&page)
                || self.unconfirmed.borrow().contains_key(&page))
    }

    /// Whether one of `pages` is dirty.
    pub(super) fn is_dirty(&self, pages: Range<u64>) -> bool {
        self.dirty.borrow().range(pages).next().is_some()
    }

    /// Puts what is dirty over pages that were read from the device.
    pub(super) fn lay_over(&self, first_page: u64, bytes: &mut Buf) {
        if !self.is_dirty(first_page..first_page + u64_of(bytes.len()) / PAGE) {
            return;
        }
        if !bytes.make_exclusive() {
            *bytes = Buf::copy_of(bytes.as_slice());
        }
        self.copy_dirty(first_page * PAGE, bytes.as_mut_slice());
    }

    /// Puts what is dirty over bytes that were read from `address` of the device on.
    pub(super) fn copy_dirty(&self, address: u64, target: &mut [u8]) {
        let (pages, end) = (self.pages.borrow(), address + u64_of(target.len()));
        for &number in self.dirty.borrow().range(pages_of(address, target.len())) {
            let page = pages.map.get(&number).expect("a dirty page stays in memory");
            let (from, to) = (address.max(number * PAGE), end.min((number + 1) * PAGE));
            let source = usize_of(from - number * PAGE)..usize_of(to - number * PAGE);
            target[usize_of(from - address)..usize_of(to - address)]
                .copy_from_slice(&page.bytes[source]);
        }
    }
}

/// Pages written at once, at most: 1 MiB.
const WRITE_PAGES: usize = 256;
/// Such writes at a time.
const IN_FLIGHT: usize = 16;

const _: () = assert!(PAGE_SECTORS == 8);
