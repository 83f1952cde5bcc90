//! Writing home: what is durable in the journal goes to its place, data and tags.
//!
//! The newest entry of each block wins; blocks that lie side by side are written together. Data and
//! tags go in any order: until the device is flushed the journal still holds both.

use super::Inner;
use super::log::{Content, Section};
use super::tags::{Changing, PAGE, pages_of};
use bio::{Bio, Buf, EventKind, IoErrorKind, IoResult};
use runtime::{join_all, sleep};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;
use units::{Sector, u64_of, usize_of};

/// One block on its way home.
#[derive(Clone, Copy)]
pub(super) struct Homing<'a> {
    pub sector: u64,
    pub content: Content,
    pub section: &'a Rc<Section>,
    pub entry: u32,
}

/// Writes home whenever there is a reason, until the volume is closed or dropped.
pub(super) async fn run(inner: Rc<Inner>) {
    let writer = inner.writer();
    loop {
        let changed = writer.changed.notified();
        let batch = {
            let log = writer.log.borrow();
            if log.is_stopped() {
                return;
            }
            log.due_for_home()
        };
        if batch.is_empty() {
            changed.await;
            continue;
        }
        let mut newest = BTreeMap::new();
        for section in &batch {
            collect(section, &mut newest);
        }
        let blocks: Vec<Homing<'_>> = newest.into_values().collect();
        if let Err(kind) = inner.write_home(&blocks).await {
            // The journal still holds all of it.
            writer.home_failed(kind);
            sleep(RETRY).await;
            continue;
        }
        if let Err(error) = inner.lower.flush().await {
            writer.fail(error.kind);
            return;
        }
        writer.log.borrow_mut().written_home(batch.len());
        writer.changed.notify_all();
    }
}

/// Adds what `section` holds to `newest`, over what older sections hold.
pub(super) fn collect<'a>(section: &'a Rc<Section>, newest: &mut BTreeMap<u64, Homing<'a>>) {
    for entry in section.entries.borrow().iter() {
        let (sector, content) = (entry.sector, entry.content);
        newest.insert(sector, Homing { sector, content, section, entry: entry.index });
    }
}

impl Inner {
    /// Writes `blocks` (in order of their sectors, each once) and their tags to their places. Not
    /// durable yet.
    pub(super) async fn write_home(&self, blocks: &[Homing<'_>]) -> Result<(), IoErrorKind> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let spb = self.layout.block.sectors();
        let _held = self.home.lock(first.sector..last.sector + spb).await;
        let (data, tags) = (self.data_runs(blocks), self.tag_groups(blocks));
        let jobs: RefCell<Vec<Job<'_>>> = RefCell::new(
            data.into_iter().map(Job::Data).chain(tags.into_iter().map(Job::Tags)).rev().collect(),
        );
        let workers = (0..IN_FLIGHT).map(|_| async {
            loop {
                let job = jobs.borrow_mut().pop();
                match job {
                    None => return Ok(()),
                    Some(Job::Data(run)) => self.write_data(run).await?,
                    Some(Job::Tags(group)) => self.write_tags(group).await?,
                }
            }
        });
        let results: Vec<IoResult> = join_all(workers).await;
        results.into_iter().collect::<IoResult>().map_err(|error| error.kind)
    }

    /// Runs of blocks whose data is written with one request each.
    fn data_runs<'a, 'b>(&self, blocks: &'b [Homing<'a>]) -> Vec<&'b [Homing<'a>]> {
        let spb = self.layout.block.sectors();
        let interleave = self.layout.log2_interleave.unwrap_or(63);
        let together = |a: &Homing<'_>, b: &Homing<'_>| {
            a.content == b.content
                && a.sector + spb == b.sector
                && a.sector >> interleave == b.sector >> interleave
        };
        let bytes_max = usize_of(self.lower.limits().max_bytes).min(RUN_BYTES);
        let blocks_max = (bytes_max / self.block_bytes()).max(1);
        blocks
            .chunk_by(together)
            .filter(|run| run[0].content != Content::Tag)
            .flat_map(|run| run.chunks(blocks_max))
            .collect()
    }

    async fn write_data(&self, run: &[Homing<'_>]) -> IoResult {
        let sectors = self.sectors_of(run.len());
        let place = self.layout.run(Sector(run[0].sector), sectors);
        debug_assert_eq!(place.sectors, sectors, "a run of data lies in one piece");
        let bytes = run.len() * self.block_bytes();
        if let Content::Zeroes { unmap } = run[0].content
            && (unmap || self.lower.limits().fast_zeroes)
            && bytes >= ZEROES_BYTES
        {
            return self.lower.submit(&mut Bio::write_zeroes(place.data, sectors, unmap)).await;
        }
        let mut data = Buf::alloc(bytes);
        for (block, target) in run.iter().zip(data.as_mut_slice().chunks_mut(self.block_bytes())) {
            let section = block.section.bytes.borrow();
            self.layout.journal.read_data(section.as_slice(), block.entry, target);
        }
        self.lower.write(place.data, data).await
    }

    /// Groups of blocks whose tags lie in neighbouring pages.
    fn tag_groups<'a, 'b>(&self, blocks: &'b [Homing<'a>]) -> Vec<&'b [Homing<'a>]> {
        let last_page = |block: &Homing<'_>| (self.tag_bytes_of(block).end - 1) / PAGE;
        let together = |a: &Homing<'_>, b: &Homing<'_>| {
            let (before, after) = (last_page(a), self.tag_bytes_of(b).start / PAGE);
            before == after || before + 1 == after
        };
        let cut = |group: &'b [Homing<'a>]| {
            // Cut by page number, so that no two groups share a page.
            let first = |block: &Homing<'_>| self.tag_bytes_of(block).start / PAGE / GROUP_PAGES;
            group.chunk_by(move |a, b| first(a) == first(b))
        };
        blocks.chunk_by(together).flat_map(cut).collect()
    }

    fn tag_bytes_of(&self, block: &Homing<'_>) -> Range<u64> {
        let start = self.layout.run(Sector(block.sector), self.layout.block.sectors()).tag_byte;
        start..start + u64_of(self.layout.tag_bytes)
    }

    async fn write_tags(&self, group: &[Homing<'_>]) -> IoResult {
        let start = self.tag_bytes_of(&group[0]).start;
        let end = self.tag_bytes_of(&group[group.len() - 1]).end;
        let pages = pages_of(start, usize_of(end - start));
        let mut changing = self.tags.change(pages).await?;
        if !changing.lost.is_empty() {
            self.disown_lost_tags(&mut changing, group).await;
        }
        for block in group {
            let section = block.section.bytes.borrow();
            let tag = self.layout.journal.entry_tag(section.as_slice(), block.entry);
            changing.put(self.tag_bytes_of(block).start, tag);
        }
        self.tags.write(changing).await
    }

    /// Writing a tag writes its whole sector, and this one could not be read: the tags of the
    /// neighbours are lost. Their blocks must stay unreadable, so they get a tag that cannot
    /// verify: the complement of what their data says.
    async fn disown_lost_tags(&self, changing: &mut Changing, written: &[Homing<'_>]) {
        let spb = self.layout.block.sectors();
        let mut sectors: Vec<u64> = (changing.lost.iter())
            .flat_map(|&start| start..start + units::SECTOR)
            .filter_map(|byte| self.layout.sector_of_tag(byte))
            .map(|sector| sector.0)
            .collect();
        sectors.dedup();
        sectors
            .retain(|sector| written.binary_search_by_key(sector, |block| block.sector).is_err());
        for sector in sectors {
            let place = self.layout.run(Sector(sector), spb);
            let mut tag = vec![0xff; self.layout.tag_bytes];
            if let Ok(data) = self.lower.read(place.data, spb).await {
                self.tagger.tags(sector, data.as_slice(), &mut tag);
                tag.iter_mut().for_each(|byte| *byte = !*byte);
            }
            for (at, byte) in (place.tag_byte..).zip(&tag) {
                if changing.is_lost(at) {
                    changing.put(at, std::slice::from_ref(byte));
                }
            }
            let detail = "its tag could not be read".to_owned();
            self.events.emit_detail(EventKind::Lost, Sector(sector), spb, detail);
        }
    }
}

enum Job<'a> {
    Data(&'a [Homing<'a>]),
    Tags(&'a [Homing<'a>]),
}

/// Requests below at once.
const IN_FLIGHT: usize = 16;
/// Largest write of data.
const RUN_BYTES: usize = 2 << 20;
/// Pages of tags in one write.
const GROUP_PAGES: u64 = 32;
/// From here on zeroes are a request of their own.
const ZEROES_BYTES: usize = 64 << 10;
/// Until writing home is tried again.
const RETRY: Duration = Duration::from_secs(1);
