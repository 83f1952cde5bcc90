//! Verified reads.
//!
//! ```text
//!   blocks asked for      0   1   2   3   4   5   6
//!   held by the journal   x   x           x
//!   read and verified             2   3 (4) 5   6        one read of data, one of tags, at once
//! ```
//!
//! What the journal holds is looked up once, before anything is awaited: a block that is not held
//! then was home before the request came. If it changes at home meanwhile, data and tag may be of
//! different writes; then the second look, with writing home held off, decides.

use super::coverage::Excuse;
use super::overlay::Place;
use super::section::Section;
use super::{Inner, Journal, at, both};
use ::integrity::Run;
use bio::{Bio, Buf, EventKind, IoError, IoErrorKind, IoResult, Segments};
use runtime::join_all;
use std::ops::Range;
use std::rc::Rc;
use units::{SECTOR, Sector, u64_of, usize_of};

/// A block of a request that the journal holds.
pub(super) struct Held {
    pub block: usize,
    pub section: Rc<Section>,
    pub entry: u32,
    pub trust: Trust,
}

/// How far a copy in the journal is believed.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Trust {
    /// It never left our memory.
    Memory,
    /// It was read from the device: its tag decides.
    Tag,
    /// The journal is damaged: only if what is at home verifies and is the same.
    Home,
}

/// A block of a request that cannot be given out.
pub(super) struct Bad {
    block: usize,
    why: Why,
}

enum Why {
    /// This is its tag at home, and the data there is not what it vouches for.
    Tag(Box<[u8]>),
    /// The same of its copy in the journal.
    Rotten(Box<[u8]>),
    /// Home and a damaged journal disagree.
    Uncertain,
}

/// A piece of a request on its way from the device.
pub(super) struct Piece {
    pub run: Run,
    pub data: Segments,
    /// Empty if they were not wanted.
    pub tags: Vec<u8>,
    pub result: IoResult,
}

impl Inner {
    /// Fills the request with verified data.
    pub(super) async fn read(&self, bio: &mut Bio) -> IoResult {
        self.read_counting(bio).await.map(drop)
    }

    /// The same; how many of the blocks nothing vouches for, which were asked for all the same.
    pub(super) async fn read_counting(&self, bio: &mut Bio) -> IoResult<usize> {
        let mut data = std::mem::take(&mut bio.data);
        let result = match self.read_once(bio.sector, &mut data, bio.bypass).await {
            Ok(bad) if bad.is_empty() => Ok(0),
            Ok(bad) => self.read_again(bio.sector, &mut data, &bad).await,
            Err(error) => Err(self.told(error)),
        };
        bio.data = data;
        result
    }

    /// The second look at blocks that did not verify: at the device itself, and nobody writes
    /// there meanwhile.
    async fn read_again(
        &self,
        sector: Sector,
        data: &mut Segments,
        bad: &[Bad],
    ) -> IoResult<usize> {
        let (mut unverified, mut first_error) = (0, Ok(()));
        for run in bad.chunk_by(|a, b| a.block + 1 == b.block) {
            let (start, count) = (run[0].block, run.len());
            let from = sector + self.sectors_of(start);
            let end = from + self.sectors_of(count);
            let _held = self.home.lock_shared(from.0..end.0).await;
            let mut again = Segments::from(Buf::alloc(count * self.block_bytes()));
            let result = self.read_once(from, &mut again, true).await;
            let again = again.into_single();
            data.copy_from(start * self.block_bytes(), again.as_slice());
            let error = match result {
                Ok(bad) => {
                    let refused = self.first_refused(from, again.as_slice(), &bad);
                    unverified += bad.len();
                    refused.map(|sector| IoErrorKind::Protection.at(sector))
                }
                Err(error) => Some(self.told(error)),
            };
            if let Some(error) = error {
                first_error = first_error.and(Err(error));
            }
        }
        first_error.map(|()| unverified)
    }

    /// The first of the blocks that did not verify twice which must not be given out nevertheless;
    /// none if all of them may. Every one of them is told, not only the first.
    fn first_refused(&self, sector: Sector, data: &[u8], bad: &[Bad]) -> Option<Sector> {
        let mut first = None;
        let mut excused: Vec<(Sector, Excuse)> = Vec::new();
        for Bad { block, why } in bad {
            let at = sector + self.sectors_of(*block);
            let start = block * self.block_bytes();
            let data = &data[start..start + self.block_bytes()];
            match why {
                Why::Tag(stored) => match self.excuse(at) {
                    Some(excuse) => {
                        excused.push((at, excuse));
                        if self.gives_out_unverified() {
                            continue;
                        }
                    }
                    None => self.tell_mismatch(at.0, stored, data),
                },
                Why::Rotten(stored) => self.tell_mismatch(at.0, stored, data),
                Why::Uncertain => self.tell_uncertain(at),
            }
            first.get_or_insert(at);
        }
        self.tell_unverified(&excused);
        first
    }

    pub(super) fn told(&self, error: IoError) -> IoError {
        if error.kind == IoErrorKind::Medium && self.tell_once(error.sector.0) {
            self.events.emit(EventKind::MediumError, error.sector, self.layout.block.sectors());
        }
        error
    }

    /// Reads and verifies; which blocks did not verify, in order.
    pub(super) async fn read_once(
        &self,
        sector: Sector,
        data: &mut Segments,
        bypass: bool,
    ) -> IoResult<Vec<Bad>> {
        let blocks = data.len_bytes() / self.block_bytes();
        let held = self.held(sector, blocks, bypass).await?;
        if held.is_empty() && !bypass && !self.layout.inline {
            let run = self.layout.run(sector, u64_of(data.len_bytes()) / SECTOR);
            let is_whole = run.sectors * SECTOR == u64_of(data.len_bytes());
            if is_whole && self.tags.holds(run.tag_byte, blocks * self.layout.tag_bytes) {
                return self.read_run(run, data).await;
            }
        }
        // Rarer, and larger: what every request carries along is kept small.
        Box::pin(self.read_pieces(sector, data, &held, bypass)).await
    }

    /// The common case: home blocks of one run, whose tags are in memory. One request.
    async fn read_run(&self, run: Run, data: &mut Segments) -> IoResult<Vec<Bad>> {
        let mut tags = vec![0; self.blocks_in(run.sectors) * self.layout.tag_bytes];
        let mut bio = Bio::read_into(run.data, std::mem::take(data));
        let mut result = self.data().submit(&mut bio).await;
        result = result.map_err(|error| self.at_home(&run, error));
        // They may have changed with the data meanwhile (the second look decides then), or left memory.
        if result.is_ok() && !self.tags.copy(run.tag_byte, &mut tags) {
            result = Box::pin(self.fetch_tags(&run, &mut tags, false)).await;
        }
        let piece = Piece { run, data: bio.data, tags, result };
        let mut bad = Vec::new();
        if piece.result.is_ok() {
            self.verify(run.sector, &piece, &[], &mut bad);
        }
        *data = piece.data;
        piece.result.map(|()| bad)
    }

    async fn read_pieces(
        &self,
        sector: Sector,
        data: &mut Segments,
        held: &[Held],
        bypass: bool,
    ) -> IoResult<Vec<Bad>> {
        let blocks = data.len_bytes() / self.block_bytes();
        let mut bad = Vec::new();
        if let Some(hull) = uncovered(held, blocks) {
            let tail = data.split_off(hull.end * self.block_bytes());
            let body = data.split_off(hull.start * self.block_bytes());
            let from = sector + self.sectors_of(hull.start);
            let pieces = self.fetch_around((sector, held), from, body, (bypass, true)).await;
            let mut result = Ok(());
            for piece in pieces {
                result = result.and(piece.result);
                if result.is_ok() {
                    self.verify(sector, &piece, held, &mut bad);
                }
                data.append(piece.data);
            }
            data.append(tail);
            result?;
        }
        self.lay_over(sector, data, held, &mut bad);
        // What the journal says against a block weighs more than what its tag at home says.
        bad.sort_by_key(|bad| (bad.block, matches!(bad.why, Why::Tag(_))));
        bad.dedup_by_key(|bad| bad.block);
        Ok(bad)
    }

    /// Reads data, and tags if they are wanted, of one contiguous range, in as many pieces as it has
    /// runs.
    async fn fetch(&self, sector: Sector, data: Segments, bypass: bool, tags: bool) -> Vec<Piece> {
        let sectors = u64_of(data.len_bytes()) / SECTOR;
        let mut rest = data;
        let mut pieces = Vec::new();
        for run in self.layout.runs(sector, sectors) {
            let later = rest.split_off(usize_of(Sector(run.sectors).bytes()));
            pieces.push((run, std::mem::replace(&mut rest, later)));
        }
        join_all(pieces.into_iter().map(|(run, data)| self.fetch_run(run, data, bypass, tags)))
            .await
    }

    /// The same as [`Self::fetch`] within a request from `sector` on, of which the journal holds `held`: what
    /// cannot be read whole is read without them, as nobody asks for their copies at home.
    pub(super) async fn fetch_around(
        &self,
        (sector, held): (Sector, &[Held]),
        from: Sector,
        data: Segments,
        (bypass, tags): (bool, bool),
    ) -> Vec<Piece> {
        let mut pieces = self.fetch(from, data, bypass, tags).await;
        for piece in &mut pieces {
            if !held.is_empty() && piece.result.is_err_and(|error| error.kind.is_damage()) {
                Box::pin(self.fetch_gaps((sector, held), piece, (bypass, tags))).await;
            }
        }
        pieces
    }

    async fn fetch_gaps(
        &self,
        (sector, held): (Sector, &[Held]),
        piece: &mut Piece,
        (bypass, tags): (bool, bool),
    ) {
        let (block_bytes, tag_bytes) = (self.block_bytes(), self.layout.tag_bytes);
        let first = self.blocks_in(piece.run.sector - sector);
        piece.result = Ok(());
        for gap in gaps(held, first..first + self.blocks_in(piece.run.sectors)) {
            let from = sector + self.sectors_of(gap.start);
            let run = self.layout.run(from, self.sectors_of(gap.len()));
            let data = Buf::alloc(gap.len() * block_bytes);
            let part = self.fetch_run(run, data.into(), bypass, tags).await;
            piece.result = piece.result.and(part.result);
            let at = gap.start - first;
            piece.data.copy_from(at * block_bytes, part.data.into_single().as_slice());
            if tags {
                piece.tags[at * tag_bytes..][..part.tags.len()].copy_from_slice(&part.tags);
            }
        }
    }

    async fn fetch_run(&self, run: Run, data: Segments, bypass: bool, tags: bool) -> Piece {
        if self.layout.inline {
            let (result, data, tags) = self.fetch_inline(&run, data, bypass).await;
            return Piece { run, data, tags, result };
        }
        let wanted = if tags { self.blocks_in(run.sectors) } else { 0 };
        let mut tags = vec![0; wanted * self.layout.tag_bytes];
        let mut bio = Bio::read_into(run.data, data);
        bio.bypass = bypass;
        let (from_data, from_tags) =
            both(self.data().submit(&mut bio), self.fetch_tags(&run, &mut tags, bypass)).await;
        let from_data = from_data.map_err(|error| self.at_home(&run, error));
        Piece { run, data: bio.data, tags, result: from_data.and(from_tags) }
    }

    /// An error of the device below, as one of the block of the volume that it is about.
    pub(super) fn at_home(&self, run: &Run, error: IoError) -> IoError {
        let into = error.sector.0.saturating_sub(run.data.0).min(run.sectors - 1);
        let into = into / self.layout.block.sectors() * self.layout.block.sectors();
        at(error.kind, run.sector + into)
    }

    async fn fetch_tags(&self, run: &Run, tags: &mut [u8], bypass: bool) -> IoResult {
        if tags.is_empty() {
            return Ok(());
        }
        if self.layout.inline {
            // They come with their data, or not at all.
            let data = Buf::alloc(usize_of(Sector(run.sectors).bytes()));
            let (result, _, found) = self.fetch_inline(run, data.into(), bypass).await;
            tags.copy_from_slice(&found);
            return result;
        }
        let result = if bypass {
            self.tags.read_past_cache(run.tag_byte, tags).await
        } else {
            self.tags.read(run.tag_byte, tags, self.layout.tags_end(run)).await
        };
        result.map_err(|error| at(error.kind, run.sector))
    }

    /// Compares every block of `piece` that is not held with its tag.
    fn verify(&self, sector: Sector, piece: &Piece, held: &[Held], bad: &mut Vec<Bad>) {
        let (block_bytes, tag_bytes) = (self.block_bytes(), self.layout.tag_bytes);
        let first = self.blocks_in(piece.run.sector - sector);
        let gaps = gaps(held, first..first + self.blocks_in(piece.run.sectors));
        let whole = piece.data.iter().all(|buf| buf.len().is_multiple_of(block_bytes));
        let joined;
        let bufs = if whole {
            &piece.data
        } else {
            joined = Segments::from(piece.data.to_single());
            &joined
        };
        let mut start = first;
        for buf in bufs.iter() {
            let end = start + buf.len() / block_bytes;
            for gap in &gaps {
                let part = gap.start.max(start)..gap.end.min(end);
                if part.is_empty() {
                    continue;
                }
                let data = (part.start - start) * block_bytes..(part.end - start) * block_bytes;
                let tags = (part.start - first) * tag_bytes..(part.end - first) * tag_bytes;
                let (data, tags) = (&buf.as_slice()[data], &piece.tags[tags]);
                self.verify_blocks(sector, part.start, data, tags, bad);
            }
            start = end;
        }
    }

    fn verify_blocks(
        &self,
        sector: Sector,
        first: usize,
        data: &[u8],
        tags: &[u8],
        bad: &mut Vec<Bad>,
    ) {
        let (block_bytes, tag_bytes) = (self.block_bytes(), self.layout.tag_bytes);
        let mut from = 0;
        let blocks = data.len() / block_bytes;
        while from < blocks {
            let at = sector + self.sectors_of(first + from);
            let found =
                self.tagger.verify(at.0, &data[from * block_bytes..], &tags[from * tag_bytes..]);
            let Some(offset) = found else { return };
            let block = from + offset;
            let stored = &tags[block * tag_bytes..][..tag_bytes];
            let at = sector + self.sectors_of(first + block);
            if !self.is_discarded(at, stored) {
                bad.push(Bad { block: first + block, why: Why::Tag(stored.into()) });
            }
            from = block + 1;
        }
    }

    /// Which of `blocks` blocks from `sector` on the journal holds, in order.
    pub(super) async fn held(
        &self,
        sector: Sector,
        blocks: usize,
        bypass: bool,
    ) -> IoResult<Vec<Held>> {
        let each = (0..blocks).map(|block| (block, (sector + self.sectors_of(block)).0));
        match &self.journal {
            Journal::Writing(writer) => {
                let log = writer.log.borrow();
                if log.is_empty() {
                    return Ok(Vec::new());
                }
                let held = each.filter_map(|(block, sector)| {
                    let (section, entry) = log.find(sector)?;
                    Some(Held { block, section, entry, trust: Trust::Memory })
                });
                Ok(held.collect())
            }
            Journal::Direct(_) | Journal::Inline(_) => Ok(Vec::new()),
            Journal::Reading(overlay) => {
                let mut held = Vec::new();
                if overlay.is_empty() {
                    return Ok(held);
                }
                for (block, sector) in each {
                    let Some(Place { section, entry, certain }) = overlay.find(sector) else {
                        continue;
                    };
                    let section = overlay.section(section, bypass).await;
                    let section = section.map_err(|error| at(error.kind, Sector(sector)))?;
                    let trust = if certain { Trust::Tag } else { Trust::Home };
                    held.push(Held { block, section, entry, trust });
                }
                Ok(held)
            }
        }
    }

    /// Whether a block of the log is not home yet, or the journal of a read-only opening has it.
    pub(super) fn is_pending(&self, sector: Sector) -> bool {
        match &self.journal {
            Journal::Writing(writer) => writer.log.borrow().find(sector.0).is_some(),
            Journal::Direct(_) | Journal::Inline(_) => false,
            Journal::Reading(overlay) => overlay.find(sector.0).is_some(),
        }
    }

    /// Copies what the journal holds over the data; blocks that it cannot vouch for become bad.
    fn lay_over(&self, sector: Sector, data: &mut Segments, held: &[Held], bad: &mut Vec<Bad>) {
        let journal = &self.layout.journal;
        let mut block = vec![0; self.block_bytes()];
        let mut home = vec![0; self.block_bytes()];
        for held in held {
            let bytes = held.section.bytes.borrow();
            journal.read_data(bytes.as_slice(), held.entry, &mut block);
            let offset = held.block * self.block_bytes();
            if held.trust == Trust::Home {
                data.copy_to(offset, &mut home);
                if home != block {
                    bad.push(Bad { block: held.block, why: Why::Uncertain });
                }
                continue;
            }
            data.copy_from(offset, &block);
            let at = sector + self.sectors_of(held.block);
            let tag = journal.entry_tag(bytes.as_slice(), held.entry);
            if held.trust == Trust::Tag && self.tagger.verify(at.0, &block, tag).is_some() {
                bad.push(Bad { block: held.block, why: Why::Rotten(tag.into()) });
            }
        }
    }

    /// Whether the tags stored for these blocks, the journal's where it is newer, vouch for the
    /// request's data.
    pub(super) async fn vouch(&self, bio: &Bio) -> IoResult {
        if self.vouch_once(bio, bio.bypass).await.is_ok() {
            return Ok(());
        }
        let _held = self.home.lock_shared(bio.sector.0..bio.end().0).await;
        self.vouch_once(bio, true).await
    }

    async fn vouch_once(&self, bio: &Bio, bypass: bool) -> IoResult {
        let (block_bytes, tag_bytes) = (self.block_bytes(), self.layout.tag_bytes);
        let tags = self.tags_for(bio, bypass).await?;
        bio.data.try_each_block(block_bytes, |block, data| {
            let at = bio.sector + self.sectors_of(block);
            let tag = &tags[block * tag_bytes..][..tag_bytes];
            match self.tagger.verify(at.0, data, tag) {
                None => Ok(()),
                Some(_) => Err(IoErrorKind::Protection.at(at)),
            }
        })
    }

    /// The tags that are stored for the blocks of a request, the journal's where it is newer.
    pub(super) async fn tags_for(&self, bio: &Bio, bypass: bool) -> IoResult<Vec<u8>> {
        let tag_bytes = self.layout.tag_bytes;
        let held = self.held(bio.sector, self.blocks_in(bio.sectors()), bypass).await?;
        let mut tags = Vec::new();
        for run in self.layout.runs(bio.sector, bio.sectors()) {
            let mut of_run = vec![0; self.blocks_in(run.sectors) * tag_bytes];
            self.fetch_tags(&run, &mut of_run, bypass).await?;
            tags.extend(of_run);
        }
        for held in held {
            let bytes = held.section.bytes.borrow();
            let newer = self.layout.journal.entry_tag(bytes.as_slice(), held.entry);
            let stored = &mut tags[held.block * tag_bytes..][..tag_bytes];
            if held.trust == Trust::Home && stored != newer {
                return Err(IoErrorKind::Protection.at(bio.sector + self.sectors_of(held.block)));
            }
            stored.copy_from_slice(newer);
        }
        Ok(tags)
    }
}

/// The blocks whose home copy is not looked at, in order.
fn skipped(held: &[Held]) -> impl Iterator<Item = usize> + '_ {
    held.iter().filter(|held| held.trust != Trust::Home).map(|held| held.block)
}

/// The smallest range of blocks outside of which everything is skipped; none if all is.
pub(super) fn uncovered(held: &[Held], blocks: usize) -> Option<Range<usize>> {
    let skipped: Vec<usize> = skipped(held).collect();
    let first = (0..).zip(&skipped).take_while(|(at, block)| at == *block).count();
    let ends = (0..blocks).rev().zip(skipped.iter().rev());
    let last = blocks - ends.take_while(|(at, block)| at == *block).count();
    (first < last).then_some(first..last)
}

/// The parts of `range` that are not skipped.
fn gaps(held: &[Held], range: Range<usize>) -> Vec<Range<usize>> {
    let mut gaps = Vec::new();
    let mut from = range.start;
    for block in skipped(held).filter(|block| range.contains(block)) {
        gaps.push(from..block);
        from = block + 1;
    }
    gaps.push(from..range.end);
    gaps.retain(|gap| !gap.is_empty());
    gaps
}
