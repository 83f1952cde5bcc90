//! When cached writes go to the members: stripe full, idle, memory short, or flush.
//!
//! A stripe is taken from the cache under its lock and answered from there until it is stored, so
//! a reader never sees old bytes again. What cannot be stored stays dirty: every flush tries it
//! again and fails again while that is so, and so does a writer that finds no room.

use super::Inner;
use super::content::Content;
use crate::array::ordering::PROMISE;
use bio::{EventKind, IoResult};
use runtime::join_all;
use std::rc::Rc;
use std::time::Duration;
use units::Sector;

impl Inner {
    /// Keeps part of a stripe in memory, after making room.
    pub(super) async fn write_cached(
        inner: &Rc<Self>,
        stripe: u64,
        start: u64,
        content: &Content,
    ) -> IoResult {
        let range = start..start + content.sectors();
        while !inner.cache.has_room(&range) {
            inner.make_room(&range).await?;
        }
        let whole = inner.cache.put(stripe, start, content, runtime::now());
        if whole && inner.cache.claim_one(stripe) {
            let behind = Rc::clone(inner);
            inner.tasks.spawn(async move { behind.flush_behind(vec![stripe]).await });
        }
        Self::tend(inner);
        Ok(())
    }

    /// Writes some stripes, or waits for those that are being written.
    async fn make_room(&self, range: &std::ops::Range<u64>) -> IoResult {
        let cache = &self.cache;
        let mut victims = Vec::new();
        if cache.is_crowded() || !cache.any_claimed() {
            victims = cache.claim(VICTIMS, Duration::MAX, runtime::now());
        }
        if victims.is_empty() && cache.any_claimed() {
            cache.changed.until(|| cache.has_room(range) || !cache.any_claimed()).await;
            return Ok(());
        }
        if victims.is_empty() {
            // All of it failed a moment ago: whoever needs the room is told why, or gets it.
            victims = cache.stripes(0..u64::MAX);
            victims.truncate(1);
        }
        let flushed = join_all(victims.into_iter().map(|stripe| self.flush_stripe(stripe))).await;
        flushed.into_iter().collect()
    }

    /// Stores what is dirty of one stripe.
    pub(super) async fn flush_stripe(&self, stripe: u64) -> IoResult {
        let _lock = self.locks.lock(stripe..stripe + 1).await;
        self.flush_locked(stripe).await
    }

    /// The same, under the stripe's lock.
    pub(super) async fn flush_locked(&self, stripe: u64) -> IoResult {
        let pieces = self.cache.take(stripe);
        let result = self.update(stripe, pieces, false).await;
        self.cache.wrote(stripe, result.err().map(|_| runtime::now()));
        result
    }

    /// Stores stripes for nobody in particular: an error is told once, and met again by a flush.
    async fn flush_behind(&self, stripes: Vec<u64>) {
        let flushed = join_all(stripes.into_iter().map(|stripe| self.flush_stripe(stripe))).await;
        for error in flushed.into_iter().filter_map(Result::err) {
            if !self.cache.failing.replace(true) {
                let detail = format!("cached writes cannot be stored and are kept: {}", error.kind);
                self.array.events().emit_detail(EventKind::Note, error.sector, 1, detail);
            }
        }
    }

    /// Serves a flush: everything that is dirty is stored, then every member is flushed, or the journal was.
    pub(super) async fn flush(&self) -> IoResult {
        let mut outcome = Ok(());
        if !self.limits.read_only {
            for some in self.cache.stripes(0..u64::MAX).chunks(STRIPES_AT_ONCE) {
                let flushed = join_all(some.iter().map(|&stripe| self.flush_stripe(stripe))).await;
                outcome = flushed.into_iter().fold(outcome, |outcome, next| outcome.and(next));
            }
            let members = self.flush_members().await;
            outcome = outcome.and(members.map_err(|error| error.kind.at(Sector::ZERO)));
            if outcome.is_ok() {
                self.cache.failing.set(false);
            }
        }
        outcome
    }

    /// Makes durable what was stored, unless the write journal has done that.
    async fn flush_members(&self) -> IoResult {
        match &self.journal {
            Some(journal) => journal.flush(&self.array).await,
            None => self.array.flush(PROMISE).await,
        }
    }

    /// Sees to it that what is left alone for a while gets stored.
    fn tend(inner: &Rc<Self>) {
        if inner.cache.tended.replace(true) {
            return;
        }
        let tasks = inner.tasks.clone();
        let inner = Rc::clone(inner);
        tasks.spawn(async move {
            while !inner.cache.is_empty() && !inner.closing.get() {
                let now = runtime::now();
                let crowded = inner.cache.is_crowded();
                let before = if crowded { now } else { now.saturating_sub(IDLE) };
                let count = if crowded { VICTIMS } else { STRIPES_AT_ONCE };
                let stripes = inner.cache.claim(count, before, now);
                if stripes.is_empty() || !crowded {
                    runtime::sleep(IDLE).await;
                }
                inner.flush_behind(stripes).await;
            }
            inner.cache.tended.set(false);
        });
    }
}

/// How long a partly written stripe waits for the rest.
const IDLE: Duration = Duration::from_millis(20);
/// Stripes that are stored at once.
const STRIPES_AT_ONCE: usize = 64;
/// Stripes that a writer without room stores itself.
const VICTIMS: usize = 16;
