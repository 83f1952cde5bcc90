//! Whole stripes, every strip of them: read, healed, and parity compared.
//!
//! What a disagreement between verified data and parity means depends on the row alone: where a
//! write may have been interrupted, parity is made anew; elsewhere it is listed and nothing is
//! changed, because nobody knows which part is right, unless all but one of the strips were checked (an
//! escape is not). Members without tags are judged by the same rules, as md does.

use super::application::Role;
use super::columns::{Block, Columns};
use super::content::Content;
use super::heal::{Healing, Settled};
use super::store::Store;
use super::{Inner, bytes};
use crate::array::checks::ROW;
use bio::{Buf, EventKind, Extent, Finding, Findings, IoErrorKind, IoResult};
use runtime::join_all;
use std::ops::Range;
use units::{Sector, u64_of};

/// What is to be said of, or done in, one stripe.
#[derive(Default)]
struct Verdict {
    stores: Vec<Store>,
    /// Rows to be made true.
    unfinished: Vec<Range<u64>>,
    /// Rows of blocks.
    inconsistent: Vec<usize>,
}

impl Inner {
    /// The volume's sectors of some stripes.
    pub(super) fn extent_of(&self, stripes: &Range<u64>) -> Extent {
        let each = self.geometry.stripe_sectors();
        let sector = Sector(stripes.start * each);
        Extent { sector, sectors: (stripes.end - stripes.start) * each }
    }

    /// Reads and compares whole stripes, healing as far as `healing` allows.
    ///
    /// # Errors
    /// What is neither damage nor absence.
    pub(super) async fn verify(
        &self,
        stripes: Range<u64>,
        healing: Healing,
        bypass: bool,
    ) -> IoResult<Findings> {
        let _lock = self.locks.lock(stripes.clone()).await;
        let chunk = self.geometry.chunk_sectors();
        let rows = self.strips_of(&stripes);
        let start = rows.start;
        let present = self.array.readers(&rows).len();
        let mut findings = Findings {
            checked_sectors: u64_of(present) * (rows.end - rows.start),
            found: Vec::new(),
        };
        let reads = if present == self.geometry.raid_disks() {
            let reads = (0..present).map(|slot| self.read_member(slot, rows.clone(), bypass, ROW));
            join_all(reads).await.into_iter().collect::<IoResult<Vec<Content>>>().ok()
        } else {
            None
        };
        for stripe in stripes {
            let offset = self.geometry.strip_start(stripe).0 - start;
            let agrees = reads.as_ref().is_some_and(|reads| self.agrees(stripe, reads, offset));
            if agrees {
                self.made_true(self.absolute(stripe, &(0..chunk)));
            } else {
                self.verify_stripe(stripe, healing, bypass, &mut findings).await?;
            }
        }
        Ok(findings)
    }

    /// Whether data and parity of a stripe agree, which begins `offset` sectors into `reads`.
    fn agrees(&self, stripe: u64, reads: &[Content], offset: u64) -> bool {
        let chunk = self.geometry.chunk_sectors();
        let within = bytes(offset)..bytes(offset + chunk);
        let strips: Vec<&[u8]> =
            reads.iter().map(|read| &read.data_bytes()[within.clone()]).collect();
        let equations = self.equations(stripe);
        let agree = equations.agree(&strips);
        if !agree || self.tagging.is_none() {
            return agree;
        }
        let tags = reads.iter().enumerate().map(|(slot, read)| {
            let strip = read.slice(self.tagging, &(offset..offset + chunk));
            self.own_tags(equations.role(slot), &strip).to_single()
        });
        let tags: Vec<Buf> = tags.collect();
        equations.agree(&tags.iter().map(Buf::as_slice).collect::<Vec<_>>())
    }

    async fn verify_stripe(
        &self,
        stripe: u64,
        healing: Healing,
        bypass: bool,
        findings: &mut Findings,
    ) -> IoResult {
        let chunk = self.geometry.chunk_sectors();
        let mut columns = self.load(stripe, 0..chunk, bypass).await?;
        let mut verdict = Verdict::default();
        for index in 0..columns.height() {
            let mut settled = self.settle_row(&mut columns, index, healing, true).await;
            if let Some(slot) = self.wrong_unchecked(&columns, index, &settled) {
                columns.strips[slot].blocks[index] = Block::Damaged(IoErrorKind::Protection);
                settled = self.settle_row(&mut columns, index, healing, true).await;
            }
            for (finding, slot, sector) in settled.found {
                let Some(member) = self.array.member(slot) else { continue };
                let extent = Extent { sector: member.place(sector), sectors: columns.block };
                findings.push(finding, Some(member.name().clone()), extent);
            }
            self.judge_row(&columns, index, settled.disagreeing, &mut verdict);
        }
        let extent = self.extent_of(&(stripe..stripe + 1));
        self.decide_rows(&columns, verdict.inconsistent, healing, findings).await;
        if verdict.unfinished.is_empty() {
            return Ok(());
        }
        if healing == Healing::Report {
            findings.push(Finding::Healable, None, extent);
            return Ok(());
        }
        let guard = self.array.begin_write(self.strips_of(&(stripe..stripe + 1))).await;
        let _guard = guard.map_err(|error| error.kind.at(extent.sector))?;
        self.store(verdict.stores, false).await?;
        for rows in verdict.unfinished {
            self.made_true(self.absolute(stripe, &rows));
        }
        self.array.events().emit(EventKind::Resynced, extent.sector, extent.sectors);
        findings.push(Finding::Resynced, None, extent);
        Ok(())
    }

    /// The strip of a row in sync that disagrees with parity and with its tuple, an escape, says that nobody may
    /// check it, if all others were checked: then it is the one that is wrong, and they give it back.
    fn wrong_unchecked(&self, columns: &Columns, index: usize, settled: &Settled) -> Option<usize> {
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let read = columns.strips.iter().all(|strip| strip.blocks[index] == Block::Good);
        if settled.disagreeing.is_empty() || !read || !self.in_sync(&rows) {
            return None;
        }
        match self.unchecked(columns, index)[..] {
            [slot] => Some(slot),
            _ => None,
        }
    }

    /// Rows that nobody can decide, unless somebody does.
    async fn decide_rows(
        &self,
        columns: &Columns,
        mut inconsistent: Vec<usize>,
        healing: Healing,
        findings: &mut Findings,
    ) {
        let stripe = columns.equations.stripe;
        let decision = match healing {
            Healing::Decide(decision) => Some(decision),
            Healing::Write | Healing::Report => None,
        };
        let decided = self.decide(columns, &inconsistent, decision, findings).await;
        for &index in &decided.settled {
            self.made_true(self.absolute(stripe, &columns.rows_of(index)));
        }
        inconsistent.retain(|index| !decided.settled.contains(index));
        if inconsistent.is_empty() {
            return;
        }
        self.list(columns, &inconsistent, &decided.inference);
        if decided.inference.is_empty() {
            let extent = self.extent_of(&(stripe..stripe + 1));
            findings.push(Finding::Inconsistent, None, extent);
        }
    }

    /// What one row of blocks amounts to, now that it is settled.
    fn judge_row(
        &self,
        columns: &Columns,
        index: usize,
        disagreeing: Vec<(usize, Vec<u8>)>,
        verdict: &mut Verdict,
    ) {
        let rows = columns.rows_of(index);
        let absolute = self.absolute(columns.equations.stripe, &rows);
        let unfinished = self.is_unfinished(&absolute);
        let state = |slot: usize| columns.state(slot, index);
        if !columns.data_known(index) {
            let mut slots = 0..self.geometry.raid_disks();
            let damaged = slots.any(|slot| matches!(state(slot), Block::Damaged(_)));
            let unknown = columns.equations.data.iter().filter(|&&slot| !state(slot).is_known());
            let parity = columns.equations.parity().filter(|&slot| state(slot).is_known());
            // An unfinished row stays one that nothing is rebuilt from.
            if !unfinished && !damaged && unknown.count() <= parity.count() {
                // Two parities give a missing block two contents.
                verdict.inconsistent.push(index);
            }
            return;
        }
        if disagreeing.is_empty() {
            let whole = columns.equations.parity().all(|slot| state(slot).is_known());
            if whole {
                self.made_true(absolute);
            }
        } else if unfinished {
            verdict.stores.extend(disagreeing.into_iter().map(|(slot, data)| Store {
                slot,
                rows: absolute.clone(),
                content: Content::signed(
                    self.tagging,
                    Role::Parity,
                    &Buf::copy_of(&data),
                    Sector(absolute.start),
                ),
            }));
            verdict.unfinished.push(rows);
        } else {
            verdict.inconsistent.push(index);
        }
    }

    /// Says which rows nobody can decide, and what redundancy alone says of them.
    fn list(&self, columns: &Columns, inconsistent: &[usize], inference: &str) {
        let stripe = columns.equations.stripe;
        let mut rows =
            inconsistent.iter().map(|&index| self.absolute(stripe, &columns.rows_of(index)));
        let Some(first) = rows.next() else { return };
        let mut news = self.doubts.add(first.clone());
        rows.for_each(|rows| news |= self.doubts.add(rows));
        if news {
            let (blocks, first) = (inconsistent.len(), first.start);
            let mut detail =
                format!("{blocks} blocks of each strip, first at member data sector {first}");
            if !inference.is_empty() {
                detail = format!("{detail}; inferred: {inference}");
            }
            let extent = self.extent_of(&(stripe..stripe + 1));
            let events = self.array.events();
            events.emit_detail(EventKind::Inconsistent, extent.sector, extent.sectors, detail);
        }
    }
}
