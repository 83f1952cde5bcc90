//! Zeroes and discards: the parity of zeroes is zero, so whole stripes are zeroed on every member;
//! the edges are written.
//!
//! A crash between the members leaves some strips old and some zero, as with any write: the array
//! is dirty meanwhile.

use super::content::Content;
use super::write::RUN_BYTES;
use super::{Inner, bytes};
use bio::{Bio, Buf, IoResult, Op};
use runtime::join_all;
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

impl Inner {
    /// Serves a discard or a write of zeroes.
    pub(super) async fn zero(inner: &Rc<Self>, bio: &Bio) -> IoResult {
        let stripe_sectors = inner.geometry.stripe_sectors();
        let (start, end) = (bio.sector.0, bio.end().0);
        let whole = start.div_ceil(stripe_sectors)..end / stripe_sectors;
        if whole.is_empty() {
            // At most two partial stripes.
            let cut = (start - start % stripe_sectors + stripe_sectors).min(end);
            inner.write_zeroes(start..cut).await?;
            return inner.write_zeroes(cut..end).await;
        }
        inner.write_zeroes(start..whole.start * stripe_sectors).await?;
        inner.zero_stripes(whole.clone(), bio.op).await?;
        inner.write_zeroes(whole.end * stripe_sectors..end).await
    }

    /// Zeroes within one stripe, as a write.
    async fn write_zeroes(self: &Rc<Self>, range: Range<u64>) -> IoResult {
        if range.is_empty() {
            return Ok(());
        }
        let stripe_sectors = self.geometry.stripe_sectors();
        let sectors = range.end - range.start;
        let data = Buf::zeroed(bytes(sectors)).into();
        let zeroes = Content { data, tags: self.tagging.blank(sectors) };
        let (stripe, start) = (range.start / stripe_sectors, range.start % stripe_sectors);
        Self::write_cached(self, stripe, start, &zeroes).await
    }

    /// Zeroes whole stripes on every member.
    async fn zero_stripes(&self, stripes: Range<u64>, op: Op) -> IoResult {
        if self.is_logged() {
            return self.write_stripes_of_zeroes(stripes).await;
        }
        let place = Sector(stripes.start * self.geometry.stripe_sectors());
        let _lock = self.locks.lock(stripes.clone()).await;
        let rows = self.strips_of(&stripes);
        let guard = self.array.begin_write(rows.clone()).await;
        let _guard = guard.map_err(|error| error.kind.at(place))?;
        let cached = self.cache.stripes(stripes.clone());
        cached.iter().for_each(|&stripe| drop(self.cache.take(stripe)));
        let result = self.zero_members(&rows, op, place).await;
        let failed = result.err().map(|_| runtime::now());
        cached.into_iter().for_each(|stripe| self.cache.wrote(stripe, failed));
        if result.is_ok() {
            self.made_true(rows.clone());
            for slot in 0..self.geometry.raid_disks() {
                self.told.forget(slot, rows.clone());
            }
        } else {
            self.tear(rows);
        }
        result
    }

    /// The same with a log: zeroes are written as all else is.
    async fn write_stripes_of_zeroes(&self, stripes: Range<u64>) -> IoResult {
        let most = (RUN_BYTES / Sector(self.geometry.stripe_sectors()).bytes()).max(1);
        let mut from = stripes.start;
        while from < stripes.end {
            let run = from..stripes.end.min(from + most);
            let sectors = (run.end - run.start) * self.geometry.stripe_sectors();
            let data = Buf::zeroed(bytes(sectors)).into();
            let zeroes = Content { data, tags: self.tagging.blank(sectors) };
            self.write_run(&run, &zeroes, false).await?;
            from = run.end;
        }
        Ok(())
    }

    async fn zero_members(&self, rows: &Range<u64>, op: Op, place: Sector) -> IoResult {
        let sectors = rows.end - rows.start;
        let op = match op {
            Op::Discard { .. } => Op::Discard { sectors },
            Op::WriteZeroes { unmap, .. } => Op::WriteZeroes { sectors, unmap },
            other => other,
        };
        let members: Vec<_> = self.array.members().collect();
        let zeroed = join_all(members.iter().map(|member| async move {
            let mut bio = Bio::discard(Sector(rows.start), sectors);
            bio.op = op;
            member.data().submit(&mut bio).await
        }));
        let mut outcome = Ok(());
        for (member, result) in members.iter().zip(zeroed.await) {
            let Err(error) = result else {
                member.set_filled(rows.clone());
                continue;
            };
            let result = if super::is_loss(error.kind) {
                self.array.fail(member, error).await
            } else {
                Err(error)
            };
            outcome = outcome.and(result.map_err(|error| error.kind.at(place)));
        }
        outcome
    }
}
