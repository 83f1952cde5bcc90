//! Writes: whole stripes at once, parts through the cache, and the update of one stripe.
//!
//! ```text
//!                 rows of a stripe with 4 data strips      reads           writes
//!   d0  ##########----                 #: new              intervals of rows with the same
//!   d1  ##########----                                     strips written are planned alone:
//!   d2  ####----------                 rows 0..4:          d3 (rebuild)    d0 d1 d2 P
//!   d3  --------------                 rows 4..10:         d0 d1 P or d2 d3, whichever is less
//! ```
//!
//! - *whole*: all data is new; nothing is read.
//! - *modify*: old data and old parity are read, parity is corrected by the difference.
//! - *rebuild*: the data that stays is read, parity is computed.
//!
//! Modify keeps a disagreement between data and parity as it is, rebuild ends it: so rows that a
//! crash may have torn are rebuilt where that is possible, and rows known to be inconsistent are
//! modified. The steps and what a crash leaves between them are in the header of [`super`]; after
//! the first byte was stored nothing is read again to try once more, since old and new could mix.

use super::cache::Piece;
use super::content::Content;
use super::parity::Equations;
use super::store::Store;
use super::{Inner, is_loss};
use crate::array::checks::PARITY;
use bio::{Bio, IoError, IoResult};
use runtime::join_all;
use std::ops::Range;
use std::rc::Rc;
use units::{Sector, u64_of, usize_of};

/// Rows of a stripe in which the same data strips are written.
struct Interval {
    rows: Range<u64>,
    /// By data strip: what is written, if it is.
    new: Vec<Option<Content>>,
    how: How,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    /// Nothing is read.
    Whole,
    /// Old data of what is written, and parity, are read.
    Modify,
    /// The other data is read.
    Rebuild,
    /// Neither can be done with the members that are there.
    Neither,
}

/// Why an update did not come to its end before it stored anything.
enum Obstacle {
    /// Something could not be read: the columns must be rebuilt.
    Damage,
    /// Not something that redundancy helps with.
    Error(IoError),
}

impl Inner {
    /// Serves a write.
    pub(super) async fn write(inner: &Rc<Self>, bio: &mut Bio, fua: bool) -> IoResult {
        if let Some(profile) = inner.tagging.profile().filter(|_| !bio.tags.is_empty()) {
            bio.verify_telling(&profile, inner.array.events())?;
        }
        let (data, tags) = (std::mem::take(&mut bio.data), std::mem::take(&mut bio.tags));
        let mut given = Content { data, tags };
        let (sector, untagged) = (bio.sector.0, given.tags.is_empty());
        if untagged {
            given.tags = inner.tagging.blank(given.sectors());
        }
        let result = Self::write_all(inner, sector, &given, fua).await;
        bio.data = given.data;
        if !untagged {
            bio.tags = given.tags;
        }
        result
    }

    async fn write_all(inner: &Rc<Self>, start: u64, given: &Content, fua: bool) -> IoResult {
        let stripe_sectors = inner.geometry.stripe_sectors();
        let run_stripes = (RUN_BYTES / Sector(stripe_sectors).bytes()).max(1);
        let (first, end) = (start, start + given.sectors());
        let (mut sector, mut runs) = (first, Vec::new());
        while sector < end {
            let (stripe, start) = (sector / stripe_sectors, sector % stripe_sectors);
            let whole =
                if start == 0 { ((end - sector) / stripe_sectors).min(run_stripes) } else { 0 };
            let length = match whole {
                0 => (end - sector).min(stripe_sectors - start),
                stripes => stripes * stripe_sectors,
            };
            let from = sector - first;
            let content = given.slice(inner.tagging, &(from..from + length));
            if whole > 0 {
                runs.push((stripe..stripe + whole, content));
            } else if fua {
                inner.write_through(stripe, &[(start, content)]).await?;
            } else {
                Self::write_cached(inner, stripe, start, &content).await?;
            }
            sector += length;
        }
        let writes = runs.iter().map(|(stripes, content)| inner.write_run(stripes, content, fua));
        join_all(writes).await.into_iter().collect::<IoResult>()?;
        if fua { inner.array.recorded().await } else { Ok(()) }
    }

    /// Stripes that are written whole. What was dirty of them is older.
    pub(super) async fn write_run(
        &self,
        stripes: &Range<u64>,
        content: &Content,
        fua: bool,
    ) -> IoResult {
        let _lock = self.locks.lock(stripes.clone()).await;
        let cached = self.cache.stripes(stripes.clone());
        cached.iter().for_each(|&stripe| drop(self.cache.take(stripe)));
        let result = self.update_run(stripes, content, fua).await;
        let failed = result.err().map(|_| runtime::now());
        cached.into_iter().for_each(|stripe| self.cache.wrote(stripe, failed));
        result
    }

    /// Stores whole stripes. Called under their locks.
    async fn update_run(&self, stripes: &Range<u64>, content: &Content, fua: bool) -> IoResult {
        if self.is_logged() {
            return self.update_each(stripes, content, fua).await;
        }
        let all = self.strips_of(stripes);
        let guard = self.array.begin_write(all.clone()).await;
        let place = Sector(stripes.start * self.geometry.stripe_sectors());
        let _guard = guard.map_err(|error| error.kind.at(place))?;
        let chunk = self.geometry.chunk_sectors();
        let rows = 0..chunk;
        let (mut stores, mut from) = (Vec::new(), 0);
        for stripe in stripes.clone() {
            let equations = self.equations(stripe);
            let new: Vec<Content> = (0..equations.data.len())
                .map(|_| {
                    from += chunk;
                    content.slice(self.tagging, &(from - chunk..from))
                })
                .collect();
            let each: Vec<&Content> = new.iter().collect();
            stores.extend(self.new_parity(&equations, &rows, &each));
            let new = new.into_iter().enumerate();
            stores.extend(new.map(|(index, new)| self.data_store(&equations, index, &rows, new)));
        }
        if let Err(error) = self.store(stores, fua).await {
            for stripe in stripes.clone() {
                self.mend(&self.equations(stripe), std::iter::once(rows.clone())).await;
            }
            return Err(error);
        }
        self.made_true(all.clone());
        for slot in 0..self.geometry.raid_disks() {
            self.told.forget(slot, all.clone());
        }
        Ok(())
    }

    /// Parts of a stripe (from which of its sectors on), durable when this returns. They join what is dirty of
    /// it.
    pub(super) async fn write_through(&self, stripe: u64, parts: &[(u64, Content)]) -> IoResult {
        let _lock = self.locks.lock(stripe..stripe + 1).await;
        for (start, content) in parts {
            self.cache.put(stripe, *start, content, runtime::now());
        }
        let pieces = self.cache.take(stripe);
        let result = self.update(stripe, pieces, true).await;
        self.cache.wrote(stripe, result.err().map(|_| runtime::now()));
        result
    }

    /// Stores whole stripes, each for itself: a strip after the other, of all of them at once.
    async fn update_each(&self, stripes: &Range<u64>, content: &Content, fua: bool) -> IoResult {
        let (chunk, each) = (self.geometry.chunk_sectors(), self.geometry.data_disks());
        let updates = stripes.clone().map(|stripe| {
            let first = (stripe - stripes.start) * self.geometry.stripe_sectors();
            let piece = |index: usize| {
                let from = first + u64_of(index) * chunk;
                let content = content.slice(self.tagging, &(from..from + chunk));
                Piece { index, rows: 0..chunk, content }
            };
            self.update(stripe, (0..each).map(piece).collect(), fua)
        });
        join_all(updates).await.into_iter().collect()
    }

    /// Stores pieces of one stripe, in order of data strips and rows, with their parity: at once, or in the
    /// steps that its log wants. Called under the stripe's lock.
    pub(super) async fn update(&self, stripe: u64, pieces: Vec<Piece>, fua: bool) -> IoResult {
        let steps = match (&self.ppl, &self.journal) {
            (Some(ppl), _) => ppl.steps(self.tagging, pieces),
            (None, Some(journal)) => self.windows(journal.sectors_at_once(), &pieces),
            (None, None) => return self.update_at_once(stripe, pieces, fua).await,
        };
        for step in steps {
            self.update_at_once(stripe, step, fua).await?;
        }
        Ok(())
    }

    /// The pieces cut into windows of so many rows.
    fn windows(&self, sectors: u64, pieces: &[Piece]) -> Vec<Vec<Piece>> {
        let starts = (0..self.geometry.chunk_sectors()).step_by(usize_of(sectors));
        let window = |start: u64| {
            let part = |piece: &Piece| {
                let rows = piece.rows.start.max(start)..piece.rows.end.min(start + sectors);
                let content = (!rows.is_empty()).then(|| piece.cut(self.tagging, &rows))?;
                Some(Piece { index: piece.index, rows, content })
            };
            pieces.iter().filter_map(part).collect()
        };
        starts.map(window).filter(|window: &Vec<Piece>| !window.is_empty()).collect()
    }

    /// Whether what is stored is named in a log first.
    pub(super) const fn is_logged(&self) -> bool {
        self.ppl.is_some() || self.journal.is_some()
    }

    async fn update_at_once(&self, stripe: u64, pieces: Vec<Piece>, fua: bool) -> IoResult {
        if pieces.is_empty() {
            return Ok(());
        }
        let place = Sector(stripe * self.geometry.stripe_sectors());
        let guard = self.array.begin_write(self.strips_of(&(stripe..stripe + 1))).await;
        let _guard = guard.map_err(|error| error.kind.at(place))?;
        let equations = self.equations(stripe);
        let intervals = self.intervals(&equations, &pieces);
        let stores = match self.prepare(&equations, &intervals).await {
            Ok(stores) => Some(stores),
            Err(Obstacle::Damage) => None,
            Err(Obstacle::Error(error)) => return Err(error.kind.at(place)),
        };
        let Some(mut stores) = stores else {
            return self.update_columns(&equations, &pieces, fua).await;
        };
        stores.extend(pieces.iter().map(|piece| {
            self.data_store(&equations, piece.index, &piece.rows, piece.content.clone())
        }));
        if let Err(error) = self.store(stores, fua).await {
            let rows = intervals.iter().map(|interval| interval.rows.clone());
            self.mend(&equations, rows).await;
            return Err(error);
        }
        for interval in &intervals {
            if matches!(interval.how, How::Whole | How::Rebuild) {
                self.made_true(self.absolute(stripe, &interval.rows));
            }
        }
        self.forget_told(&pieces, stripe);
        Ok(())
    }

    /// What is written anew was never told of.
    pub(super) fn forget_told(&self, pieces: &[Piece], stripe: u64) {
        for piece in pieces {
            let slot = self.geometry.data_slot(stripe, piece.index);
            self.told.forget(slot, self.absolute(stripe, &piece.rows));
        }
    }

    /// Cuts a stripe into intervals, and plans each.
    fn intervals(&self, equations: &Equations, pieces: &[Piece]) -> Vec<Interval> {
        let mut bounds: Vec<u64> =
            pieces.iter().flat_map(|piece| [piece.rows.start, piece.rows.end]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut intervals: Vec<Interval> = Vec::new();
        for pair in bounds.windows(2) {
            let rows = pair[0]..pair[1];
            let mut new: Vec<Option<Content>> = vec![None; equations.data.len()];
            for piece in pieces {
                if piece.rows.start <= rows.start && rows.end <= piece.rows.end {
                    new[piece.index] = Some(piece.cut(self.tagging, &rows));
                }
            }
            if new.iter().all(Option::is_none) {
                continue;
            }
            let how = self.plan(equations, &rows, &new);
            intervals.push(Interval { rows, new, how });
        }
        intervals
    }

    /// How parity of an interval is best made.
    fn plan(&self, equations: &Equations, rows: &Range<u64>, new: &[Option<Content>]) -> How {
        let absolute = self.absolute(equations.stripe, rows);
        let here = |slot: usize| self.reader(slot, &absolute).is_some();
        let parity = equations.parity().filter(|&slot| here(slot)).count();
        let (mut written, mut kept, mut modifies, mut rebuilds) = (0, 0, true, true);
        for (new, &slot) in new.iter().zip(&equations.data) {
            if new.is_some() {
                written += 1;
                modifies &= here(slot);
            } else {
                kept += 1;
                rebuilds &= here(slot);
            }
        }
        if self.journal.is_some() {
            // A record needs all parity, also of members that are not there.
            modifies &= parity == equations.parity().count();
        } else if parity == 0 && modifies {
            return How::Whole;
        }
        if kept == 0 {
            return How::Whole;
        }
        let prefers_rebuild = if self.is_unfinished(&absolute) {
            true
        } else if self.doubts.overlap(&absolute) {
            false
        } else {
            kept < written + parity
        };
        match (modifies, rebuilds) {
            (true, true) if prefers_rebuild => How::Rebuild,
            (true, _) => How::Modify,
            (false, true) => How::Rebuild,
            (false, false) => How::Neither,
        }
    }

    /// Reads what the plans need and computes parity. Stores nothing.
    async fn prepare(
        &self,
        equations: &Equations,
        intervals: &[Interval],
    ) -> Result<Vec<Store>, Obstacle> {
        let slots = self.geometry.raid_disks();
        let mut needed: Vec<(usize, usize)> = Vec::new();
        for (number, interval) in intervals.iter().enumerate() {
            let of = |new: bool| {
                let data = equations.data.iter().zip(&interval.new);
                data.filter(move |(_, piece)| piece.is_some() == new).map(|(&slot, _)| slot)
            };
            match interval.how {
                How::Whole => {}
                How::Rebuild => needed.extend(of(false).map(|slot| (number, slot))),
                How::Modify => {
                    let rows = self.absolute(equations.stripe, &interval.rows);
                    let parity =
                        equations.parity().filter(|&slot| self.reader(slot, &rows).is_some());
                    needed.extend(of(true).chain(parity).map(|slot| (number, slot)));
                }
                How::Neither => return Err(Obstacle::Damage),
            }
        }
        let reads = join_all(needed.iter().map(|&(number, slot)| {
            let range = self.absolute(equations.stripe, &intervals[number].rows);
            self.read_member(slot, range, false, PARITY)
        }));
        let mut old: Vec<Vec<Option<Content>>> = Vec::new();
        old.resize_with(intervals.len(), || vec![None; slots]);
        for (&(number, slot), read) in needed.iter().zip(reads.await) {
            match read {
                Ok(data) => old[number][slot] = Some(data),
                Err(error) if is_loss(error.kind) => return Err(Obstacle::Damage),
                Err(error) => return Err(Obstacle::Error(error)),
            }
        }
        let mut stores = Vec::new();
        for (interval, old) in intervals.iter().zip(old) {
            let parity = match interval.how {
                How::Modify => self.corrected_parity(equations, &interval.rows, &interval.new, old),
                How::Whole | How::Rebuild | How::Neither => self.rebuilt(equations, interval, old),
            };
            stores.extend(parity);
        }
        Ok(stores)
    }

    /// Parity of an interval whose data is all new or was read.
    fn rebuilt(
        &self,
        equations: &Equations,
        interval: &Interval,
        mut old: Vec<Option<Content>>,
    ) -> Vec<Store> {
        let kept: Vec<Option<Content>> =
            equations.data.iter().map(|&slot| old[slot].take()).collect();
        let pairs = interval.new.iter().zip(&kept);
        let data: Option<Vec<&Content>> =
            pairs.map(|(new, kept)| new.as_ref().or(kept.as_ref())).collect();
        // Some is not known only where parity has no member, so that nothing was read for it.
        data.map_or_else(Vec::new, |data| self.new_parity(equations, &interval.rows, &data))
    }
}

/// Bytes of whole stripes that become one request to each member.
pub(super) const RUN_BYTES: u64 = 4 << 20;
