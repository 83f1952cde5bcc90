//! After a crash: parity of what the logs name is made from the partial parity and what the strips hold
//! that were being written. Everything else is in sync.
//!
//! Until that is done the rows are not in sync, so a missing block of them is an error and nothing else.
//! Where nothing is written, parity is made all the same, and kept in memory: whoever reads it is given that
//! ([`InMemory`]). Where members keep tags nothing is made, since the log has no parity of those: rows stay as
//! they are.
//!
//! # What a crash leaves
//!
//! 1. Parity of some rows is made; the logs are as they were. Crash: the same parity is made again, from
//!    the same bytes.
//! 2. Members are flushed, superblocks say clean. Crash: logs are not asked.
//! 3. The first write empties the logs, after one more flush (`ppl.rs`).

use super::content::Content;
use super::store::Store;
use super::{Inner, bytes, is_loss};
use crate::array::Array;
use crate::array::checks::ROW;
use bio::{Buf, EventKind, IoResult, Segments};
use md::geometry::Geometry;
use md::ppl::{Plan, Update};
use md::superblock::ResyncOffset;
use runtime::join_all;
use std::cell::RefCell;
use std::ops::Range;
use units::{Sector, usize_of};

/// What the logs of `array` say, after a crash; none if nothing has to be done, or they cannot be
/// believed, which is told. From here on what they do not name is in sync.
pub(super) fn plan(
    array: &Array,
    geometry: &Geometry,
    (member_sectors, block): (u64, u64),
    force: bool,
) -> Option<Plan> {
    let members: Vec<_> = array.members().collect();
    let logs: Vec<_> = members.iter().map(|member| member.take_ppl()).collect();
    // Below(0) is what superblocks say while the array is written; another place is where a resync stood.
    if logs.iter().all(Option::is_none) || array.synced() != ResyncOffset::Below(Sector::ZERO) {
        return None;
    }
    let complete = |slot: usize| members.iter().any(|one| one.slot() == slot && one.is_complete());
    let pairs = members.iter().zip(&logs).filter(|(member, _)| member.is_complete());
    let each = pairs.map(|(member, log)| {
        let log = log.as_ref().and_then(|log| log.as_ref().ok());
        (member.slot(), log)
    });
    let plan = match Plan::new(geometry, member_sectors, block, each) {
        Ok(plan) => plan,
        Err(why) => {
            let detail = format!("the partial parity log is not believed: {why}");
            array.events().emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
            return None;
        }
    };
    array.set_in_sync(0..u64::MAX);
    let whole = array.missing_count() == 0;
    let unlogged = plan.unlogged.iter().filter(|_| whole);
    for update in plan.updates.iter().map(|(update, _)| update).chain(unlogged) {
        array.set_unsynced(update.member_sectors(geometry));
    }
    if force {
        plan.lost(geometry, complete).for_each(|rows| array.set_in_sync(rows));
    }
    Some(plan)
}

/// Whether some rows cannot be made true by the plan, because what is missing is lost.
pub(super) fn loses(plan: &Plan, array: &Array, geometry: &Geometry) -> bool {
    let complete = |slot: usize| array.member(slot).is_some_and(|member| member.is_complete());
    plan.lost(geometry, complete).next().is_some()
}

/// Parity that was made and is not to be written: what a member is taken to hold.
#[derive(Default)]
pub(super) struct InMemory(RefCell<Vec<Made>>);

struct Made {
    slot: usize,
    /// Member sectors.
    rows: Range<u64>,
    parity: Buf,
}

impl InMemory {
    /// All of `rows` of `slot`, if it was made.
    pub(super) fn whole(&self, slot: usize, rows: &Range<u64>) -> Option<Buf> {
        let all = self.0.borrow();
        let covers = |one: &&Made| {
            one.slot == slot && one.rows.start <= rows.start && rows.end <= one.rows.end
        };
        let made = all.iter().find(covers)?;
        let at = rows.start - made.rows.start;
        Some(made.parity.slice(bytes(at)..bytes(at + rows.end - rows.start)))
    }

    /// Puts what was made of `rows` of `slot` in place of what was read.
    pub(super) fn overlay(&self, slot: usize, rows: &Range<u64>, data: &mut Segments) {
        for made in self.0.borrow().iter().filter(|made| made.slot == slot) {
            let both = made.rows.start.max(rows.start)..made.rows.end.min(rows.end);
            if both.is_empty() {
                continue;
            }
            let from = bytes(both.start - made.rows.start);
            let length = bytes(both.end - both.start);
            let parity = &made.parity.as_slice()[from..from + length];
            data.copy_from(bytes(both.start - rows.start), parity);
        }
    }
}

impl Inner {
    /// Does what the logs ask for.
    ///
    /// # Errors
    /// What is neither damage nor absence.
    pub(super) async fn replay(&self) -> IoResult {
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let read_only = self.limits.read_only;
        if read_only && !self.tagging.is_none() {
            return Ok(());
        }
        let mut sectors = 0;
        for (update, partial) in &plan.updates {
            self.replay_one(update, partial).await?;
            sectors += update.rows.end - update.rows.start;
        }
        if sectors > 0 {
            let mut detail = "parity made from the partial parity log".to_owned();
            if read_only {
                detail += ", in memory";
            }
            let first = plan.updates.iter().map(|(update, _)| update.stripe).min().unwrap_or(0);
            let extent = self.extent_of(&(first..first + 1));
            self.array.events().emit_detail(EventKind::Resynced, extent.sector, sectors, detail);
        }
        let settles = !read_only && self.array.synced() == ResyncOffset::Clean;
        if settles { self.array.settle().await } else { Ok(()) }
    }

    async fn replay_one(&self, update: &Update, partial: &[u8]) -> IoResult {
        let _lock = self.locks.lock(update.stripe..update.stripe + 1).await;
        let (all, block) = (update.member_sectors(&self.geometry), self.block.sectors());
        let mut todo = vec![all.clone()];
        while let Some(rows) = todo.pop() {
            let within = bytes(rows.start - all.start)..bytes(rows.end - all.start);
            let partial = partial.get(within).unwrap_or_default();
            // Whoever lacks some of them has the others, which may disagree: each stands for itself.
            if !self.replay_rows(update, &rows, partial).await? && rows.end - rows.start > block {
                let starts = rows.clone().step_by(usize_of(block));
                todo.extend(starts.map(|start| start..rows.end.min(start + block)));
            }
        }
        Ok(())
    }

    /// Makes parity of `rows`, or sees that a block needs none. False: it cannot be made of all of them.
    async fn replay_rows(
        &self,
        update: &Update,
        rows: &Range<u64>,
        partial: &[u8],
    ) -> IoResult<bool> {
        let equations = self.equations(update.stripe);
        let is_block = rows.end - rows.start <= self.block.sectors();
        if self.array.in_sync(rows) {
            return Ok(true);
        }
        if self.reader(equations.p, rows).is_none() {
            // There is no parity that could be wrong.
            if is_block {
                self.made_true(rows.clone());
            }
            return Ok(is_block);
        }
        let slots: Vec<usize> = update.strips.clone().map(|strip| equations.data[strip]).collect();
        let reads = slots.iter().map(|&slot| self.read_member(slot, rows.clone(), false, ROW));
        let mut written: Vec<Segments> = Vec::new();
        for read in join_all(reads).await {
            match read {
                Ok(content) => written.push(content.data),
                Err(error) if is_loss(error.kind) => {
                    // Alone, it is what parity says: old or new.
                    let alone = is_block && slots.len() == 1;
                    if alone {
                        self.made_true(rows.clone());
                    }
                    return Ok(alone);
                }
                Err(error) => return Err(error),
            }
        }
        if !partial.is_empty() {
            written.push(Buf::copy_of(partial).into());
        }
        let mut parity = Buf::alloc(bytes(rows.end - rows.start));
        let each: Vec<&Segments> = written.iter().collect();
        equations.generate(&each, Some(parity.as_mut_slice()), None);
        if self.limits.read_only {
            let made = Made { slot: equations.p, rows: rows.clone(), parity };
            self.in_memory.0.borrow_mut().push(made);
        } else {
            let _guard = self.array.begin_write(rows.clone()).await?;
            let content = Content { data: parity.into(), tags: Segments::default() };
            let store = Store { slot: equations.p, rows: rows.clone(), content };
            self.store_unlogged(vec![store], false).await?;
        }
        self.made_true(rows.clone());
        Ok(true)
    }
}
