//! Reads: the cache first, then members, then evidence.
//!
//! A healthy read takes no lock: what is dirty is copied at once, and everything else is on the
//! members at least as new as when the read began. Pieces that follow each other on one member
//! become one request, into the caller's own segments. What a member cannot give is reconstructed
//! under the stripe's lock.

use super::application::{Role, sign};
use super::columns::Block;
use super::content::Content;
use super::store::submit;
use super::{Inner, at, is_loss};
use crate::array::checks::{GIVEN, ROW};
use crate::array::{RangeSet, Tagging};
use bio::{Allocation, Bio, Buf, IoError, IoErrorKind, IoResult, Segments};
use gf::Strip;
use md::geometry::Place;
use runtime::join_all;
use std::ops::Range;
use units::{Sector, u64_of};

/// A part of a read that lies in one strip.
struct Part {
    /// In the volume.
    sector: Sector,
    place: Place,
    /// In sectors.
    length: u64,
    /// With room for tags if they are asked for.
    content: Content,
    state: State,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    /// To be asked of its member.
    Open,
    /// To be reconstructed.
    Hard,
    Done,
    Failed(IoError),
}

impl Part {
    /// Keeps `length` sectors and gives what follows them.
    fn cut_at(&mut self, tagging: Tagging, length: u64) -> Self {
        let content = self.content.split_off(tagging, length);
        let mut place = self.place;
        place.member_sector += length;
        let rest = self.length - length;
        self.length = length;
        Self { sector: self.sector + length, place, length: rest, content, state: State::Open }
    }
}

impl Inner {
    /// Serves a read.
    pub(super) async fn read(&self, bio: &mut Bio) -> IoResult {
        let stripe_sectors = self.geometry.stripe_sectors();
        let stripes = bio.sector.0 / stripe_sectors..bio.end().0.div_ceil(stripe_sectors);
        let clean = self.cache.is_clean(stripes);
        let chunk = self.geometry.chunk_sectors();
        if clean && bio.sector.0 % chunk + bio.sectors() <= chunk {
            return self.read_one(bio).await;
        }
        let mut parts = self.cut_read(bio, clean);
        self.read_parts(&mut parts, bio.bypass).await;
        let mut outcome = Ok(());
        for part in parts {
            if let State::Failed(error) = part.state {
                outcome = outcome.and(Err(error));
            }
            bio.data.append(part.content.data);
            bio.tags.append(part.content.tags);
        }
        outcome
    }

    /// The common case: one strip, nothing in the cache. One request to one member.
    async fn read_one(&self, bio: &mut Bio) -> IoResult {
        let place = self.geometry.locate(bio.sector);
        let length = bio.sectors();
        let content = taken(bio);
        let mut part = Part { sector: bio.sector, place, length, content, state: State::Hard };
        let rows = place.member_sector.0..place.member_sector.0 + length;
        if let Some(member) = self.reader(place.slot, &rows) {
            let Content { data, tags } = std::mem::take(&mut part.content);
            let mut asked = Bio::read_into(place.member_sector, data).tagged(tags).because(GIVEN);
            asked.bypass = bio.bypass;
            let result = submit(member.data(), &mut asked).await;
            part.content = taken(&mut asked);
            part.state = self.judge(&mut part, result);
        }
        if part.state == State::Hard {
            part.state = self.read_hard(&mut part).await;
        }
        (bio.data, bio.tags) = (part.content.data, part.content.tags);
        if let State::Failed(error) = part.state { Err(error) } else { Ok(()) }
    }

    /// What a member's answer means for a part.
    fn judge(&self, part: &mut Part, result: IoResult) -> State {
        match result {
            Ok(()) => self.done(part),
            Err(error) if is_loss(error.kind) => State::Hard,
            Err(error) => {
                let within = error.sector.0.saturating_sub(part.place.member_sector.0);
                let within = within.min(part.length - 1);
                State::Failed(at(error, part.sector + within))
            }
        }
    }

    /// What a part was given counts the member's blocks; its reader counts the volume's.
    fn done(&self, part: &mut Part) -> State {
        if !part.content.tags.is_empty() {
            let (from, to) = (part.place.member_sector, part.sector);
            self.tagging.move_within(&mut part.content.tags, from, to);
        }
        State::Done
    }

    /// Cuts a read at strips, and around what the cache answers.
    fn cut_read(&self, bio: &mut Bio, clean: bool) -> Vec<Part> {
        let (chunk, stripe_sectors) =
            (self.geometry.chunk_sectors(), self.geometry.stripe_sectors());
        let (mut sector, mut rest) = (bio.sector.0, taken(bio));
        let mut parts = Vec::new();
        while !rest.data.is_empty() {
            let length = rest.sectors().min(chunk - sector % chunk);
            let tail = rest.split_off(self.tagging, length);
            let content = std::mem::replace(&mut rest, tail);
            let place = self.geometry.locate(Sector(sector));
            let part = Part { sector: Sector(sector), place, length, content, state: State::Open };
            if clean {
                parts.push(part);
            } else {
                self.overlay(part, sector % stripe_sectors, &mut parts);
            }
            sector += length;
        }
        parts
    }

    /// Cuts a part, which begins `start` sectors into its stripe, around what is newer in the
    /// cache, and fills in that.
    fn overlay(&self, mut part: Part, start: u64, parts: &mut Vec<Part>) {
        let range = start..start + part.length;
        let mut newer: Vec<(Range<u64>, Content)> = Vec::new();
        self.cache.each_newer(part.place.stripe, &range, |run, content| newer.push((run, content)));
        let mut from = start;
        for (run, content) in newer {
            if run.start > from {
                let rest = part.cut_at(self.tagging, run.start - from);
                parts.push(std::mem::replace(&mut part, rest));
            }
            let rest = part.cut_at(self.tagging, run.end - run.start);
            let mut filled = std::mem::replace(&mut part, rest);
            filled.content.put(self.tagging, 0, &content);
            filled.state = State::Done;
            parts.push(filled);
            from = run.end;
        }
        if !part.content.data.is_empty() {
            parts.push(part);
        }
    }

    /// Asks the members, what follows on one member in one request, and reconstructs the rest.
    async fn read_parts(&self, parts: &mut [Part], bypass: bool) {
        let runs = self.runs(parts);
        let asked = runs.into_iter().map(|run| {
            let mut all = Content::default();
            for &index in &run {
                all.append(std::mem::take(&mut parts[index].content));
            }
            let place = parts[run[0]].place;
            async move {
                let asked = Bio::read_into(place.member_sector, all.data).tagged(all.tags);
                let mut asked = asked.because(GIVEN);
                asked.bypass = bypass;
                let rows = place.member_sector.0..asked.end().0;
                let result = match self.reader(place.slot, &rows) {
                    Some(member) => submit(member.data(), &mut asked).await,
                    None => Err(IoErrorKind::Unavailable.at(place.member_sector)),
                };
                (run, taken(&mut asked), result)
            }
        });
        let asked: Vec<_> = asked.collect();
        for (run, mut rest, result) in join_all(asked).await {
            let single = run.len() == 1;
            for index in run {
                let part = &mut parts[index];
                let tail = rest.split_off(self.tagging, part.length);
                part.content = std::mem::replace(&mut rest, tail);
                part.state = match result {
                    // Which part it was is found out by asking for each alone.
                    Err(error) if !single && !is_loss(error.kind) => State::Hard,
                    result => self.judge(part, result),
                };
            }
        }
        let hard = parts.iter_mut().filter(|part| part.state == State::Hard);
        join_all(hard.map(|part| async {
            part.state = self.read_hard(part).await;
        }))
        .await;
    }

    /// Which open parts follow each other on one member.
    fn runs(&self, parts: &[Part]) -> Vec<Vec<usize>> {
        let mut runs: Vec<Vec<usize>> = Vec::new();
        let mut last_run: Vec<Option<usize>> = vec![None; self.geometry.raid_disks()];
        for (index, part) in parts.iter().enumerate().filter(|(_, p)| p.state == State::Open) {
            let last = &mut last_run[part.place.slot];
            let follows = last.filter(|&run| {
                let before = &parts[runs[run][runs[run].len() - 1]];
                before.place.member_sector + before.length == part.place.member_sector
            });
            match follows {
                Some(run) => runs[run].push(index),
                None => {
                    *last = Some(runs.len());
                    runs.push(vec![index]);
                }
            }
        }
        runs
    }

    /// What the strip's own member cannot give at once: reconstructed, and healed where damaged.
    async fn read_hard(&self, part: &mut Part) -> State {
        let place = part.place;
        let start = place.member_sector.0 - self.geometry.strip_start(place.stripe).0;
        let rows = start..start + part.length;
        if self.reader(place.slot, &self.absolute(place.stripe, &rows)).is_none() {
            let _shared = self.locks.lock_shared(place.stripe..place.stripe + 1).await;
            if let Some(content) = self.reconstruct(place, &rows).await {
                part.content.put(self.tagging, 0, &content);
                return self.done(part);
            }
        }
        let _lock = self.locks.lock(place.stripe..place.stripe + 1).await;
        match self.read_healing(part, &rows).await {
            Ok(()) => self.done(part),
            Err(error) => State::Failed(error),
        }
    }

    /// Rows of a strip that nobody holds, if everything else that is needed is sound.
    async fn reconstruct(&self, place: Place, rows: &Range<u64>) -> Option<Content> {
        let range = self.absolute(place.stripe, rows);
        if !self.in_sync(&range) {
            return None;
        }
        let equations = self.equations(place.stripe);
        let present = |slot: &usize| self.reader(*slot, &range).is_some();
        let unknown = equations.data.iter().filter(|slot| !present(slot)).count();
        let parity = equations.parity().filter(present).take(unknown);
        let needed: Vec<usize> =
            equations.data.iter().copied().filter(present).chain(parity).collect();
        let reads = needed.iter().map(|&slot| self.read_member(slot, range.clone(), false, ROW));
        let reads: IoResult<Vec<Content>> = join_all(reads).await.into_iter().collect();
        let reads = reads.ok()?;
        // Data, and then what the application said of it.
        let recovered = |known: Vec<Segments>| {
            let known: Vec<Buf> = known.into_iter().map(Segments::into_single).collect();
            let mut wanted = Buf::alloc(known.first()?.len());
            let mut strips: Vec<Strip<'_>> =
                (0..self.geometry.raid_disks()).map(|_| Strip::Absent).collect();
            for (&slot, known) in needed.iter().zip(&known) {
                strips[slot] = Strip::Known(known.as_slice());
            }
            let length = wanted.len();
            strips[place.slot] = Strip::Wanted(wanted.as_mut_slice());
            equations.recover(length, strips).ok()?;
            Some(wanted)
        };
        let data = recovered(reads.iter().map(|read| read.data.clone()).collect())?.into();
        let mut tags = Segments::default();
        if !self.tagging.is_none() {
            let own = needed.iter().zip(&reads);
            let own = own.map(|(&slot, read)| self.own_tags(equations.role(slot), read));
            tags = recovered(own.collect())?.into();
            sign(self.tagging, Role::Data, &data, &mut tags, Sector(range.start));
        }
        Some(Content { data, tags })
    }

    /// Reads rows of a strip, healing the blocks that are damaged. Called under the stripe's lock.
    async fn read_healing(&self, part: &mut Part, rows: &Range<u64>) -> IoResult {
        let place = part.place;
        let range = self.absolute(place.stripe, rows);
        let bad = match self.read_sound(place.slot, range.clone(), false).await {
            Ok(Some((content, bad))) => {
                part.content.put(self.tagging, 0, &content);
                let mut ranges = RangeSet::default();
                bad.into_iter().for_each(|(bad, _)| ranges.insert(bad));
                ranges.iter().collect()
            }
            Ok(None) => vec![range.clone()],
            Err(error) => {
                let within = error.sector.0.clamp(range.start, range.end - 1) - range.start;
                return Err(at(error, part.sector + within));
            }
        };
        let mut outcome: IoResult = Ok(());
        for bad in bad {
            let first = bad.start - range.start;
            let wanted = rows.start + first..rows.start + (bad.end - range.start);
            let columns = match self.load(place.stripe, wanted, false).await {
                Ok(columns) => columns,
                Err(error) => {
                    outcome = earlier(outcome, at(error, part.sector + first));
                    continue;
                }
            };
            let mut columns = columns;
            self.settle(&mut columns, self.healing()).await;
            let block = columns.block;
            for index in 0..columns.height() {
                let row = first + u64_of(index) * block;
                match columns.state(place.slot, index) {
                    Block::Good | Block::Rebuilt => {
                        let content = columns.content(place.slot, index);
                        part.content.put(self.tagging, row, &content);
                    }
                    lost => outcome = earlier(outcome, lost.error().at(part.sector + row)),
                }
            }
        }
        outcome
    }

    /// What is stored: runs of whole strips as their members tell, as long as they agree.
    pub(super) async fn allocation(
        &self,
        sector: Sector,
        sectors: u64,
    ) -> IoResult<Vec<Allocation>> {
        let stripe_sectors = self.geometry.stripe_sectors();
        let (mut at, end) = (sector.0, sector.0 + sectors);
        let mut runs: Vec<Allocation> = Vec::new();
        while at < end && runs.len() < RUNS_MAX {
            let stripe = at / stripe_sectors;
            let (hole, stripes) = self.hole(stripe, end.div_ceil(stripe_sectors) - stripe).await;
            let length = ((stripe + stripes) * stripe_sectors).min(end) - at;
            match runs.last_mut() {
                Some(last) if last.hole == hole => last.sectors += length,
                _ => runs.push(Allocation { sectors: length, hole }),
            }
            at += length;
        }
        Ok(runs)
    }

    /// Whether nothing is stored of `stripe`, and for how many stripes that may be said at least.
    async fn hole(&self, stripe: u64, stripes: u64) -> (bool, u64) {
        let chunk = self.geometry.chunk_sectors();
        let dirty = self.cache.stripes(stripe..stripe + stripes);
        let clean = dirty.first().map_or(stripes, |first| first - stripe);
        if self.array.missing_count() > 0 {
            return (false, stripes);
        }
        if clean == 0 {
            return (false, 1);
        }
        let start = self.geometry.strip_start(stripe);
        let members: Vec<_> = self.array.members().collect();
        let asked = members.iter().map(|m| m.data().allocation(start, clean * chunk));
        let (mut all_holes, mut any_stored) = (clean, clean);
        for answer in join_all(asked).await {
            // What a member does not know is stored.
            let first = answer.ok().and_then(|runs| runs.first().copied());
            match first {
                Some(run) if run.hole => all_holes = all_holes.min(run.sectors / chunk),
                Some(run) => {
                    all_holes = 0;
                    any_stored = any_stored.min(run.sectors.div_ceil(chunk));
                }
                None => return (false, 1),
            }
        }
        if all_holes > 0 { (true, all_holes) } else { (false, any_stored.max(1)) }
    }
}

/// What a request carries.
fn taken(bio: &mut Bio) -> Content {
    Content { data: std::mem::take(&mut bio.data), tags: std::mem::take(&mut bio.tags) }
}

/// The error that comes first by address.
fn earlier(outcome: IoResult, error: IoError) -> IoResult {
    match outcome {
        Err(other) if other.sector <= error.sector => Err(other),
        _ => Err(error),
    }
}

/// Runs told at once; whoever wants to know more asks from there on.
const RUNS_MAX: usize = 256;
