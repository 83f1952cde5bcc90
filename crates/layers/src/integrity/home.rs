//! Writing home: what is durable in the journal goes to its place, data and tags.
//!
//! The newest entry of each block wins; blocks that lie side by side are written together, from
//! where they lie in the sections. Data and tags go in any order: until the device is flushed
//! ([`super::sync`]) the journal still holds both. One batch at a time: of two that have the same
//! block, the later one is the newer.

use super::Inner;
use super::confirm::NotHome;
use super::section::{Content, Section};
use super::tags::{Changing, PAGE, PAGE_BYTES, pages_of};
use bio::{Bio, Buf, EventKind, IoErrorKind, IoResult, Segments};
use runtime::{join_all, sleep};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;
use units::{Sector, u64_of, usize_of};

/// One block on its way home.
#[derive(Clone, Copy)]
pub(super) struct Homing<'a> {
    sector: u64,
    content: Content,
    section: &'a Rc<Section>,
    entry: u32,
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
        let Some(newest) = batch.last() else {
            changed.await;
            continue;
        };
        let blocks = newest_blocks(&batch);
        let turn = inner.homing.acquire(1).await;
        match inner.bring_home(async || inner.write_home(&blocks).await).await {
            Ok(()) => writer.log.borrow_mut().homed(newest.serial),
            Err(NotHome::Unwritten(kind)) => {
                // The journal still holds all of it.
                drop(turn);
                writer.home_failed(kind);
                sleep(RETRY).await;
                continue;
            }
            Err(NotHome::Unflushed(kind)) => {
                writer.fail(kind);
                return;
            }
        }
        writer.changed.notify_all();
    }
}

/// The newest entry of each block that `sections`, oldest first, hold, in order of the blocks.
pub(super) fn newest_blocks(sections: &[Rc<Section>]) -> Vec<Homing<'_>> {
    let mut blocks = Vec::new();
    for section in sections {
        blocks.extend(section.entries.borrow().iter().map(|entry| Homing {
            sector: entry.sector,
            content: entry.content,
            section,
            entry: entry.index,
        }));
    }
    // The sort is stable: of equal sectors the newest comes last.
    blocks.sort_by_key(|block| block.sector);
    blocks.dedup_by(|later, kept| {
        let same = later.sector == kept.sector;
        if same {
            *kept = *later;
        }
        same
    });
    blocks
}

/// Neighbouring tags, and where they belong.
pub(super) struct Tags {
    pub address: u64,
    pub bytes: Vec<u8>,
}

enum Job<'a, 'b> {
    /// Blocks side by side, of one kind.
    Data(&'b [Homing<'a>]),
    /// Tags whose pages are neighbours.
    Tags(&'b [Tags]),
}

impl Inner {
    /// Writes `blocks` (in order of their sectors, each once) and their tags to their places. Not
    /// durable yet.
    pub(super) async fn write_home(&self, blocks: &[Homing<'_>]) -> Result<(), IoErrorKind> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let spb = self.layout.block.sectors();
        let _held = self.home.lock(first.sector..last.sector + spb).await;
        let tags = self.gather_tags(blocks);
        let data = self.data_runs(blocks).into_iter().map(Job::Data);
        let groups = tags.chunk_by(Tags::share_a_group).map(Job::Tags);
        let jobs = RefCell::new(data.chain(groups).collect::<VecDeque<_>>());
        let workers = (0..IN_FLIGHT).map(|_| async {
            loop {
                let job = jobs.borrow_mut().pop_front();
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

    /// Whether two blocks lie side by side, in one run of the layout.
    fn adjacent(&self, a: &Homing<'_>, b: &Homing<'_>) -> bool {
        let interleave = self.layout.log2_interleave.unwrap_or(63);
        a.sector + self.layout.block.sectors() == b.sector
            && a.sector >> interleave == b.sector >> interleave
    }

    /// Runs of blocks whose data is written with one request each.
    fn data_runs<'a, 'b>(&self, blocks: &'b [Homing<'a>]) -> Vec<&'b [Homing<'a>]> {
        let bytes_max = usize_of(self.data().limits().max_bytes).min(RUN_BYTES);
        let blocks_max = (bytes_max / self.block_bytes()).max(1);
        blocks
            .chunk_by(|a, b| a.content == b.content && self.adjacent(a, b))
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
            && (unmap || self.data().limits().fast_zeroes)
            && bytes >= ZEROES_BYTES
        {
            return self.data().submit(&mut Bio::write_zeroes(place.data, sectors, unmap)).await;
        }
        let mut data: Segments = (run.chunk_by(Homing::lies_before))
            .map(|part| part[0].section.blocks(&self.layout.journal, part[0].entry, part.len()))
            .collect();
        // Many small pieces cost more below than a copy here.
        if bytes < data.iter().len() * PAGE_BYTES {
            data = data.to_single().into();
        }
        self.data().write(place.data, data).await
    }

    /// The tags of `blocks`, in pieces that do not cross from one group of pages to the next.
    fn gather_tags(&self, blocks: &[Homing<'_>]) -> Vec<Tags> {
        let journal = &self.layout.journal;
        let mut pieces = Vec::new();
        for run in blocks.chunk_by(|a, b| self.adjacent(a, b)) {
            let place = self.layout.run(Sector(run[0].sector), self.sectors_of(run.len()));
            let mut bytes = Vec::with_capacity(run.len() * self.layout.tag_bytes);
            for block in run {
                let section = block.section.bytes.borrow();
                bytes.extend_from_slice(journal.entry_tag(section.as_slice(), block.entry));
            }
            pieces.extend(in_groups(place.tag_byte, bytes));
        }
        pieces
    }

    /// Writes tags that belong at `address` of the device. The caller holds home over their blocks,
    /// and [`Inner::homing`]. Not durable yet.
    pub(super) async fn put_tags(&self, address: u64, bytes: Vec<u8>) -> IoResult {
        for tags in in_groups(address, bytes) {
            self.write_tags(std::slice::from_ref(&tags)).await?;
        }
        Ok(())
    }

    async fn write_tags(&self, group: &[Tags]) -> IoResult {
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let pages = pages_of(first.address, usize_of(last.end() - first.address));
        let mut changing = self.tags.change(pages).await?;
        if !changing.lost.is_empty() {
            self.disown_lost_tags(&mut changing, group).await;
        }
        for tags in group {
            changing.put(tags.address, &tags.bytes);
        }
        self.tags.write(changing).await
    }

    /// Writing a tag writes its whole sector, and this one could not be read: the tags of the
    /// neighbours are lost. Their blocks must stay unreadable, so they get a tag that cannot
    /// verify ([`super::source::Tagger::disowning`]).
    pub(super) async fn disown_lost_tags(&self, changing: &mut Changing, written: &[Tags]) {
        let spb = self.layout.block.sectors();
        let mut sectors: Vec<u64> = (changing.lost.iter())
            .flat_map(|&start| start..start + units::SECTOR)
            .filter_map(|byte| self.layout.sector_of_tag(byte))
            .map(|sector| sector.0)
            .collect();
        sectors.dedup();
        for sector in sectors {
            let place = self.layout.run(Sector(sector), spb);
            if written.iter().any(|tags| (tags.address..tags.end()).contains(&place.tag_byte)) {
                continue;
            }
            let data = self.data().read(place.data, spb).await.ok();
            let tag = self.tagger.disowning(sector, data.as_ref().map(Buf::as_slice));
            for (at, byte) in (place.tag_byte..).zip(&tag) {
                if changing.is_lost(at) {
                    changing.put(at, std::slice::from_ref(byte));
                }
            }
            self.task.disown(sector);
            let detail = "its tag could not be read".to_owned();
            self.events.emit_detail(EventKind::Lost, Sector(sector), spb, detail);
        }
    }
}

/// The same tags in pieces, each in one group of pages.
fn in_groups(mut address: u64, mut bytes: Vec<u8>) -> Vec<Tags> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let in_group = usize_of(GROUP_BYTES - address % GROUP_BYTES).min(bytes.len());
        let later = bytes.split_off(in_group);
        let bytes = std::mem::replace(&mut bytes, later);
        pieces.push(Tags { address, bytes });
        address += u64_of(in_group);
    }
    pieces
}

impl Homing<'_> {
    /// Whether `next` is the next entry of the same section.
    fn lies_before(&self, next: &Self) -> bool {
        Rc::ptr_eq(self.section, next.section) && self.entry + 1 == next.entry
    }
}

impl Tags {
    fn end(&self) -> u64 {
        self.address + u64_of(self.bytes.len())
    }

    /// Whether both are written at once: in one group, with no page between them.
    fn share_a_group(&self, next: &Self) -> bool {
        let last_page = (self.end() - 1) / PAGE;
        self.address / GROUP_BYTES == next.address / GROUP_BYTES
            && next.address / PAGE <= last_page + 1
    }
}

/// Requests below at once.
const IN_FLIGHT: usize = 16;
/// Largest write of data.
const RUN_BYTES: usize = 2 << 20;
/// Tags written at once, at most: no two groups share a page.
const GROUP_BYTES: u64 = 32 * PAGE;
/// From here on zeroes are a request of their own.
pub(super) const ZEROES_BYTES: usize = 64 << 10;
/// Until writing home is tried again.
const RETRY: Duration = Duration::from_secs(1);
