//! Writes that wait in memory for the rest of their stripe.
//!
//! ```text
//!   stripe 7:  page 0   [####....########]   #: dirty, newer than the members
//!              page 3   [..==############]   =: being written, still answered from here
//! ```
//!
//! A page is up to 16 KiB of one data strip. Nothing here does I/O or waits; `flush.rs` decides
//! when. A write that comes while its page is being written goes to a copy of the page, so what is
//! on its way to the members never changes. See `docs/decisions/0001-stripe-cache.md`.

use super::bytes;
use super::content::Content;
use crate::array::Tagging;
use bio::Buf;
use md::geometry::Geometry;
use runtime::Notify;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use units::{u64_of, usize_of};

/// New bytes for part of a data strip.
#[derive(Clone)]
pub(super) struct Piece {
    /// Which data strip.
    pub(super) index: usize,
    /// Its rows in the stripe.
    pub(super) rows: Range<u64>,
    /// As many bytes, with their tags if members keep any.
    pub(super) content: Content,
}

impl Piece {
    /// The part of it that lies in `rows`, which are all its.
    pub(super) fn cut(&self, tagging: Tagging, rows: &Range<u64>) -> Content {
        let start = self.rows.start;
        self.content.slice(tagging, &(rows.start - start..rows.end - start))
    }
}

/// All dirty pages.
pub(super) struct Cache {
    stripes: RefCell<BTreeMap<u64, Entry>>,
    /// Pages that are in memory.
    pages: Cell<usize>,
    pages_max: usize,
    tagging: Tagging,
    page_sectors: u64,
    chunk_sectors: u64,
    stripe_sectors: u64,
    /// Something was written to the members, or could not be.
    pub(super) changed: Notify,
    /// Whether the task that writes old pages runs.
    pub(super) tended: Cell<bool>,
    /// Whether it was told that something cannot be written.
    pub(super) failing: Cell<bool>,
}

#[derive(Default)]
struct Entry {
    pages: BTreeMap<u64, Page>,
    /// Sectors that are dirty.
    dirty: u64,
    /// When it was last written to.
    touched: Duration,
    /// Somebody will write it.
    claimed: bool,
    /// When writing it last failed.
    failed: Option<Duration>,
}

struct Page {
    data: Buf,
    /// Its blocks' tags, if members keep any.
    tags: Option<Buf>,
    /// A bit per sector: newer than the members.
    dirty: u32,
    /// A bit per sector: on its way to the members.
    writing: u32,
}

impl Cache {
    pub(super) fn new(geometry: &Geometry, tagging: Tagging, bytes_max: usize) -> Self {
        let page_sectors = geometry.chunk_sectors().min(PAGE_SECTORS_MAX);
        let stripe_sectors = geometry.stripe_sectors();
        // A stripe must fit, or a write to all but one of its sectors could never be cached.
        let least = usize_of(stripe_sectors / page_sectors);
        Self {
            stripes: RefCell::default(),
            pages: Cell::new(0),
            pages_max: (bytes_max / bytes(page_sectors)).max(least),
            tagging,
            page_sectors,
            chunk_sectors: geometry.chunk_sectors(),
            stripe_sectors,
            changed: Notify::default(),
            tended: Cell::new(false),
            failing: Cell::new(false),
        }
    }

    /// Memory in use, without tags.
    pub(super) fn bytes(&self) -> usize {
        self.pages.get() * bytes(self.page_sectors)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stripes.borrow().is_empty()
    }

    /// Whether nothing is kept of these stripes.
    pub(super) fn is_clean(&self, stripes: Range<u64>) -> bool {
        self.stripes.borrow().range(stripes).next().is_none()
    }

    /// Whether so many more sectors of a stripe find room.
    pub(super) fn has_room(&self, range: &Range<u64>) -> bool {
        self.pages.get() + self.pages_of(range) <= self.pages_max
    }

    /// Whether it is time to write something that nobody has claimed: what is claimed makes room by
    /// itself, and what is being filled should be left to become whole.
    pub(super) fn is_crowded(&self) -> bool {
        let limit = self.pages_max / 2;
        if self.pages.get() <= limit {
            return false;
        }
        let stripes = self.stripes.borrow();
        let waiting = stripes.values().filter(|entry| !entry.is_moving());
        waiting.map(|entry| entry.pages.len()).sum::<usize>() > limit
    }

    fn pages_of(&self, range: &Range<u64>) -> usize {
        usize_of(range.end.div_ceil(self.page_sectors) - range.start / self.page_sectors)
    }

    /// Keeps `content` for the sectors of `stripe` (counted in its data) from `start` on. Whether
    /// the stripe is dirty as a whole now.
    pub(super) fn put(&self, stripe: u64, start: u64, content: &Content, now: Duration) -> bool {
        let mut stripes = self.stripes.borrow_mut();
        let entry = stripes.entry(stripe).or_default();
        entry.touched = now;
        let end = start + content.sectors();
        let mut at = start;
        while at < end {
            let (number, within) = (at / self.page_sectors, at % self.page_sectors);
            let length = (end - at).min(self.page_sectors - within);
            let page = entry.pages.entry(number).or_insert_with(|| {
                self.pages.set(self.pages.get() + 1);
                Page::new(self.tagging, self.page_sectors)
            });
            let target = bytes(within)..bytes(within + length);
            content.data.copy_to(bytes(at - start), &mut own(&mut page.data)[target]);
            if let Some(tags) = &mut page.tags {
                let tag = |sectors: u64| self.tagging.tag_bytes(sectors);
                let target = tag(within)..tag(within + length);
                content.tags.copy_to(tag(at - start), &mut own(tags)[target]);
            }
            let mask = mask(within..within + length);
            entry.dirty += u64::from((mask & !page.dirty).count_ones());
            page.dirty |= mask;
            at += length;
        }
        entry.dirty == self.stripe_sectors
    }

    /// Shows `visit` what is newer than the members, of the sectors `range` of `stripe`: where in the
    /// stripe, and the content.
    pub(super) fn each_newer(
        &self,
        stripe: u64,
        range: &Range<u64>,
        mut visit: impl FnMut(Range<u64>, Content),
    ) {
        let stripes = self.stripes.borrow();
        let Some(entry) = stripes.get(&stripe) else { return };
        let pages = range.start / self.page_sectors..range.end.div_ceil(self.page_sectors);
        for (number, page) in entry.pages.range(pages) {
            let first = number * self.page_sectors;
            for run in runs(page.dirty | page.writing) {
                let start = (first + run.start).max(range.start);
                let end = (first + run.end).min(range.end);
                if start < end {
                    visit(start..end, page.slice(self.tagging, &(start - first..end - first)));
                }
            }
        }
    }

    /// Takes what is dirty of `stripe` to be written, in order of data strips and rows. It is
    /// answered from here until [`Self::wrote`]. Called under the stripe's lock.
    pub(super) fn take(&self, stripe: u64) -> Vec<Piece> {
        let mut stripes = self.stripes.borrow_mut();
        let Some(entry) = stripes.get_mut(&stripe) else { return Vec::new() };
        let mut pieces: Vec<Piece> = Vec::new();
        for (number, page) in &mut entry.pages {
            page.writing = std::mem::take(&mut page.dirty);
            let first = number * self.page_sectors;
            for run in runs(page.writing) {
                let content = page.slice(self.tagging, &run);
                let (start, end) = (first + run.start, first + run.end);
                let index = usize_of(start / self.chunk_sectors);
                let base = u64_of(index) * self.chunk_sectors;
                let rows = start - base..end - base;
                match pieces.last_mut() {
                    Some(last) if last.index == index && last.rows.end == rows.start => {
                        last.rows.end = rows.end;
                        last.content.append(content);
                    }
                    _ => pieces.push(Piece { index, rows, content }),
                }
            }
        }
        entry.dirty = 0;
        entry.claimed = false;
        pieces
    }

    /// What was taken of `stripe` is on the members, or could not be written at `failed` and is
    /// dirty again.
    pub(super) fn wrote(&self, stripe: u64, failed: Option<Duration>) {
        let mut stripes = self.stripes.borrow_mut();
        if let Some(entry) = stripes.get_mut(&stripe) {
            entry.failed = failed;
            let before = entry.pages.len();
            entry.pages.retain(|_, page| {
                let written = std::mem::take(&mut page.writing);
                if failed.is_some() {
                    entry.dirty += u64::from((written & !page.dirty).count_ones());
                    page.dirty |= written;
                }
                page.dirty != 0
            });
            self.pages.set(self.pages.get() - (before - entry.pages.len()));
            if entry.pages.is_empty() {
                stripes.remove(&stripe);
            }
        }
        drop(stripes);
        self.changed.notify_all();
    }

    /// Stripes that have something dirty or on its way, of these.
    pub(super) fn stripes(&self, range: Range<u64>) -> Vec<u64> {
        self.stripes.borrow().range(range).map(|(stripe, _)| *stripe).collect()
    }

    /// Claims up to `count` stripes to be written that nobody claimed, those that were touched
    /// longest ago first, none that was touched after `before`.
    pub(super) fn claim(&self, count: usize, before: Duration, now: Duration) -> Vec<u64> {
        let mut stripes = self.stripes.borrow_mut();
        let mut ready: Vec<(Duration, u64)> = stripes
            .iter()
            .filter(|(_, entry)| entry.dirty > 0 && !entry.claimed && entry.touched <= before)
            .filter(|(_, entry)| entry.failed.is_none_or(|failed| failed + RETRY <= now))
            .map(|(stripe, entry)| (entry.touched, *stripe))
            .collect();
        ready.sort_unstable();
        ready.truncate(count);
        for (_, stripe) in &ready {
            if let Some(entry) = stripes.get_mut(stripe) {
                entry.claimed = true;
            }
        }
        ready.into_iter().map(|(_, stripe)| stripe).collect()
    }

    /// Claims this stripe; whether nobody had.
    pub(super) fn claim_one(&self, stripe: u64) -> bool {
        let mut stripes = self.stripes.borrow_mut();
        let entry = stripes.get_mut(&stripe);
        entry.is_some_and(|entry| !std::mem::replace(&mut entry.claimed, true))
    }

    /// Whether some stripe is on its way, so that room will come by waiting.
    pub(super) fn any_claimed(&self) -> bool {
        self.stripes.borrow().values().any(Entry::is_moving)
    }
}

impl Entry {
    /// Whether it is being written or soon will be.
    fn is_moving(&self) -> bool {
        self.claimed || self.pages.values().any(|page| page.writing != 0)
    }
}

impl Page {
    fn new(tagging: Tagging, sectors: u64) -> Self {
        let tags = (!tagging.is_none()).then(|| Buf::alloc(tagging.tag_bytes(sectors)));
        Self { data: Buf::alloc(bytes(sectors)), tags, dirty: 0, writing: 0 }
    }

    /// Shared handles on some of its sectors.
    fn slice(&self, tagging: Tagging, range: &Range<u64>) -> Content {
        let tag = |sectors: u64| tagging.tag_bytes(sectors);
        let tags = self.tags.as_ref().map(|tags| tags.slice(tag(range.start)..tag(range.end)));
        let data = self.data.slice(bytes(range.start)..bytes(range.end));
        Content { data: data.into(), tags: tags.into_iter().collect() }
    }
}

/// The bytes to be changed, of a copy if somebody else reads them.
fn own(buf: &mut Buf) -> &mut [u8] {
    if !buf.make_exclusive() {
        *buf = Buf::copy_of(buf.as_slice());
    }
    buf.as_mut_slice()
}

/// The bits of sectors `range` of a page.
fn mask(range: Range<u64>) -> u32 {
    range.fold(0, |mask, sector| mask | 1 << sector)
}

/// The runs of bits that are set.
fn runs(mut mask: u32) -> impl Iterator<Item = Range<u64>> {
    let mut at = 0u64;
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let skip = mask.trailing_zeros();
        mask >>= skip;
        let length = mask.trailing_ones();
        mask = mask.checked_shr(length).unwrap_or(0);
        let start = at + u64::from(skip);
        at = start + u64::from(length);
        Some(start..at)
    })
}

/// 16 KiB, a bit of a `u32` for each sector.
const PAGE_SECTORS_MAX: u64 = 32;
/// A stripe that could not be written is tried again on its own after this; a flush, or a write
/// that finds no room, reports the error before.
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use md::geometry::ParityLevel;

    fn cache() -> Cache {
        let keeps_none = Tagging::of(&bio::Limits::new(1, units::BlockSize::B512));
        Cache::new(&Geometry::new(ParityLevel::Raid5, 2, 64, 3).unwrap(), keeps_none, 1 << 20)
    }

    fn filled(byte: u8, sectors: u64) -> Content {
        let data = Buf::copy_of(&vec![byte; bytes(sectors)]).into();
        Content { data, ..Content::default() }
    }

    fn newer(cache: &Cache, range: Range<u64>) -> Vec<(Range<u64>, u8)> {
        let mut seen = Vec::new();
        cache.each_newer(0, &range, |range, content| {
            seen.push((range, content.data_bytes()[0]));
        });
        seen
    }

    #[test]
    fn runs_of_bits_are_found_whole() {
        assert_eq!(runs(0).count(), 0);
        assert!(runs(u32::MAX).eq(std::iter::once(0..32)));
        assert_eq!(runs(0b1100_0101).collect::<Vec<_>>(), [0..1, 2..3, 6..8]);
    }

    #[test]
    fn writes_that_touch_become_one_piece_and_a_whole_stripe_is_noticed() {
        let cache = cache();
        assert!(!cache.put(0, 0, &filled(1, 60), Duration::ZERO));
        assert!(cache.put(0, 60, &filled(2, 68), Duration::ZERO));
        let pieces = cache.take(0);
        let places: Vec<_> = pieces.iter().map(|p| (p.index, p.rows.clone())).collect();
        assert_eq!(places, [(0, 0..64), (1, 0..64)]);
        assert_eq!(pieces[0].content.data.len_bytes(), bytes(64));
    }

    #[test]
    fn a_write_during_a_write_changes_nothing_of_it_and_stays_dirty() {
        let cache = cache();
        cache.put(0, 8, &filled(1, 8), Duration::ZERO);
        let pieces = cache.take(0);
        cache.put(0, 12, &filled(2, 8), Duration::ZERO);
        assert!(pieces[0].content.data.to_single().as_slice().iter().all(|&byte| byte == 1));
        assert_eq!(newer(&cache, 0..64), [(8..20, 1)]);
        cache.wrote(0, None);
        assert_eq!(newer(&cache, 0..64), [(12..20, 2)]);
        assert_eq!(newer(&cache, 0..16), [(12..16, 2)]);
        drop(pieces);
        assert_eq!(cache.take(0).len(), 1);
        cache.wrote(0, None);
        assert!(cache.is_empty() && cache.bytes() == 0);
    }

    #[test]
    fn what_could_not_be_written_stays() {
        let cache = cache();
        cache.put(0, 0, &filled(1, 4), Duration::ZERO);
        assert_eq!(cache.claim(8, Duration::MAX, Duration::ZERO), [0]);
        assert!(cache.claim(8, Duration::MAX, Duration::ZERO).is_empty());
        drop(cache.take(0));
        cache.wrote(0, Some(Duration::ZERO));
        assert_eq!(newer(&cache, 0..8), [(0..4, 1)]);
        assert!(cache.claim(8, Duration::MAX, Duration::ZERO).is_empty());
        assert_eq!(cache.claim(8, Duration::MAX, RETRY), [0]);
    }
}
