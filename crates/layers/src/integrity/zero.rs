//! Zeroing and discarding: what was there reads as zeroes afterwards, verified.
//!
//! Data and tag cannot change together at home, so a block is zeroed like any other: through the
//! journal, as a block of zeroes. Only writing it home is cheaper, since its space is given back
//! instead of written.
//!
//! A block at home that has the tag of zeroes already needs no journal. With home held:
//!
//! 1. Blocks in the log, and blocks with another tag, are left for the journal.
//! 2. The data of the others is punched. Crash before or after: the tag is that of zeroes at both
//!    times, so the block is zeroes, or (if its data was damaged) unreadable until it is zeroes. The
//!    next flush is for that, too.
//!
//! That is why discarding a volume that was never written costs only reading its tags.

use super::ordering::PUNCHED;
use super::{Inner, Journal, at};
use bio::{Allocation, Bio, IoResult};
use runtime::RangeGuard;
use std::cell::Cell;
use std::ops::Range;
use units::{SECTOR, Sector, u64_of, usize_of};

/// How often space was given back outside of the journal.
#[derive(Default)]
pub(super) struct Punched {
    done: Cell<u64>,
    /// So many of them, from the first, are covered by a flush.
    durable: Cell<u64>,
}

impl Inner {
    /// Zeroes `sectors` sectors from `sector` on.
    pub(super) async fn zero(&self, sector: Sector, sectors: u64, unmap: bool) -> IoResult {
        if let Journal::Inline(inline) = &self.journal {
            return self.zero_inline(inline, sector, sectors).await;
        }
        let runs = self.layout.runs(sector, sectors);
        for run in runs {
            let step = usize_of(STEP_SECTORS);
            for at in (run.sector.0..(run.sector + run.sectors).0).step_by(step) {
                let length = STEP_SECTORS.min((run.sector + run.sectors).0 - at);
                self.zero_step(Sector(at), length, unmap).await?;
            }
        }
        Ok(())
    }

    /// The same for a piece that lies in one run.
    async fn zero_step(&self, sector: Sector, sectors: u64, unmap: bool) -> IoResult {
        let held = self.home.lock(sector.0..(sector + sectors).0).await;
        // Tags that cannot be read are not those of zeroes.
        let clean = self.clean_zero_blocks(sector, sectors, &held).await.unwrap_or_default();
        for blocks in &clean {
            let from = sector + self.sectors_of(blocks.start);
            let length = self.sectors_of(blocks.len());
            let place = self.layout.run(from, length);
            let mut punch = Bio::write_zeroes(place.data, length, unmap);
            let punched = self.data().submit(&mut punch).await;
            // Not before: a flush meanwhile would not be for it. And also if it failed, in part.
            self.punched.done.set(self.punched.done.get() + 1);
            punched.map_err(|error| at(error.kind, from))?;
            self.forget_told(from.0, length);
        }
        drop(held);
        let mut next = 0;
        let end = self.blocks_in(sectors);
        for blocks in clean.into_iter().chain(std::iter::once(end..end)) {
            let from = sector + self.sectors_of(next);
            self.write_zero_blocks(from, blocks.start - next, unmap).await?;
            next = blocks.end;
        }
        Ok(())
    }

    /// Makes durable what was given back outside of the journal before this call.
    pub(super) async fn flush_punched(&self) -> IoResult {
        let Punched { done, durable } = &self.punched;
        let wanted = done.get();
        // What another flush is still about counts only when that has ended.
        if durable.get() < wanted {
            let flushed = self.flush_or_fail(PUNCHED).await;
            flushed.map_err(|kind| kind.at(Sector::ZERO))?;
            durable.set(durable.get().max(wanted));
        }
        Ok(())
    }

    /// Which blocks of a piece in one run are not in the log and have the tag of zeroes at home.
    async fn clean_zero_blocks(
        &self,
        sector: Sector,
        sectors: u64,
        _held: &RangeGuard,
    ) -> IoResult<Vec<Range<usize>>> {
        // A tag from above does not vouch for zeroes, even if it is that of zeroes without one.
        let Some(zeros) = &self.zeros else { return Ok(Vec::new()) };
        let run = self.layout.run(sector, sectors);
        let (blocks, tag_bytes) = (self.blocks_in(sectors), self.layout.tag_bytes);
        let mut tags = vec![0; blocks * tag_bytes];
        self.tags.read(run.tag_byte, &mut tags, self.layout.tags_end(&run)).await?;
        let mut zeroes = vec![0; tags.len()];
        zeros.fill(sector.0, &mut zeroes);
        let mut clean: Vec<Range<usize>> = Vec::new();
        let both = tags.chunks_exact(tag_bytes).zip(zeroes.chunks_exact(tag_bytes));
        for (block, (tag, zero)) in both.enumerate() {
            if tag != zero || self.is_pending(sector + self.sectors_of(block)) {
                continue;
            }
            match clean.last_mut() {
                Some(last) if last.end == block => last.end = block + 1,
                _ => clean.push(block..block + 1),
            }
        }
        Ok(clean)
    }

    /// What is stored where. Data that the device below does not store is a hole only if it has the
    /// tags of zeroes: who skips a hole must not miss that it cannot be read.
    pub(super) async fn allocation(
        &self,
        sector: Sector,
        sectors: u64,
    ) -> IoResult<Vec<Allocation>> {
        let spb = self.layout.block.sectors();
        let run = self.layout.run(sector, sectors);
        let sectors = run.sectors.min(STEP_SECTORS) / spb * spb;
        // With inline tags nothing is a hole: what the device does not store has no tag.
        if sectors == 0 || self.layout.inline {
            return Ok(vec![Allocation { sectors: run.sectors, hole: false }]);
        }
        let held = self.home.lock_shared(sector.0..(sector + sectors).0).await;
        let below = self.data().allocation(run.data, sectors).await;
        let below = below.map_err(|error| at(error.kind, sector))?;
        let clean = self.clean_zero_blocks(sector, sectors, &held).await.unwrap_or_default();
        Ok(intersect(&below, &clean, spb, self.blocks_in(sectors)))
    }
}

/// Holes below that cover whole blocks with the tags of zeroes; everything else is stored.
fn intersect(
    below: &[Allocation],
    clean: &[Range<usize>],
    spb: u64,
    blocks: usize,
) -> Vec<Allocation> {
    let mut hole = vec![false; blocks];
    for range in clean {
        hole[range.clone()].fill(true);
    }
    let (mut at, mut known) = (0_u64, 0_usize);
    for run in below {
        let end = at + run.sectors;
        if !run.hole {
            let touched = usize_of(at / spb)..usize_of(end.div_ceil(spb)).min(blocks);
            hole[touched.start.min(blocks)..touched.end].fill(false);
        }
        at = end;
        known = usize_of(at / spb).min(blocks);
    }
    // What was not told about is left for the next question, but one block must be answered for.
    if known == 0 {
        return vec![Allocation { sectors: spb, hole: false }];
    }
    hole[..known]
        .chunk_by(|a, b| a == b)
        .map(|run| Allocation { sectors: u64_of(run.len()) * spb, hole: run[0] })
        .collect()
}

/// Sectors looked at in one step: 8 MiB. At most 64 KiB of tags.
const STEP_SECTORS: u64 = (8 << 20) / SECTOR;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_one_only_where_tags_say_zeroes_for_whole_blocks() {
        let below = [
            Allocation { sectors: 4, hole: true },
            Allocation { sectors: 8, hole: false },
            Allocation { sectors: 20, hole: true },
        ];
        // Blocks of 8 sectors: 0 is half stored, 1 half, 2 and 3 are holes; 3 has another tag.
        let found = intersect(&below, std::slice::from_ref(&(0..3)), 8, 4);
        let stored = |sectors| Allocation { sectors, hole: false };
        let hole = |sectors| Allocation { sectors, hole: true };
        assert_eq!(found, [stored(16), hole(8), stored(8)]);
        assert_eq!(intersect(&below[..1], std::slice::from_ref(&(0..3)), 8, 4), [stored(8)]);
    }
}
