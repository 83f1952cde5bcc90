//! Rows that disagree where they should not: what redundancy alone says of them, and what an operator
//! decides.
//!
//! | | RAID 4, 5 | RAID 6 |
//! |---|---|---|
//! | every tag valid | inconsistent | inconsistent |
//! | no tags | inconsistent | P and Q name one strip: inferred; else inconsistent |
//! | `--repair inferred` | | what is inferred is written |
//! | `--trust data` | parity is made anew | the same |
//! | `--trust parity` | (refused above: one parity names no strip) | the data strip that P and Q name is written |
//! | `--trust all-but=N` | N's strip is computed from the others | the same, if P and Q then agree |
//!
//! Two wrong strips can look like a third, so a stripe is judged as a whole: if its rows name
//! different strips, or one of them names none, none is inferred. A row with damage or without a
//! member is never touched by any of this: nothing would be left over as a witness.
//!
//! One block is written at a time, and read again. A crash leaves it old or new: the row disagrees as
//! before, or agrees. No write intent is needed; of a parity that is made anew in two blocks, P and Q,
//! a crash between them leaves one wrong, which the other names.
//!
//! With a partial parity log, a record that names the row would make its parity anew from what the other
//! strips held when it was written. So:
//!
//! 1. Everything is flushed, and a record that names nothing takes its place, durably (`ppl.rs`). Crash: the
//!    row disagrees as before, and no log says anything of it.
//! 2. The block is written. Crash: old or new, as above.

use super::Inner;
use super::columns::{Block, Columns};
use super::content::Content;
use super::store::Store;
use bio::{Buf, Decision, EventKind, Extent, Finding, Findings, Trust};
use gf::Wrong;
use md::geometry::ParityLevel;
use std::rc::Rc;
use units::Sector;

/// A block that would make its row agree.
struct Instead {
    /// The row of blocks.
    index: usize,
    slot: usize,
    /// With the application's part of its tag, interleaved.
    data: Buf,
}

/// What the rows of one stripe that disagree amount to.
#[derive(Default)]
pub(super) struct Decided {
    /// Rows of blocks that agree now.
    pub(super) settled: Vec<usize>,
    /// What redundancy alone says of the others, in words; or empty.
    pub(super) inference: String,
}

impl Inner {
    /// Looks at the rows of blocks `disagreeing` of a stripe, adds what is found of single blocks, and
    /// writes what `decision` says (none: nothing is written). Called under the stripe's lock.
    pub(super) async fn decide(
        &self,
        columns: &Columns,
        disagreeing: &[usize],
        decision: Option<Decision>,
        findings: &mut Findings,
    ) -> Decided {
        let mut decided = Decided::default();
        let good =
            |&index: &usize| columns.strips.iter().all(|strip| strip.blocks[index] == Block::Good);
        if disagreeing.is_empty() || !disagreeing.iter().all(good) {
            return decided;
        }
        let named = self.named(columns, disagreeing);
        let inferred = named.filter(|&slot| !self.has_tags(slot));
        let trust = decision.and_then(|decision| decision.trust);
        let instead = match trust {
            Some(Trust::Data) => self.parity_instead(columns, disagreeing),
            Some(Trust::AllBut(slot)) => instead(columns, disagreeing, slot),
            Some(Trust::Parity) => {
                let data = named.filter(|&slot| columns.equations.data_index(slot).is_some());
                data.map_or_else(Vec::new, |slot| instead(columns, disagreeing, slot))
            }
            // Of a mirror, and refused above.
            Some(Trust::Member(_)) => Vec::new(),
            None => inferred.map_or_else(Vec::new, |slot| instead(columns, disagreeing, slot)),
        };
        let write = trust.is_some() || decision.is_some_and(|decision| decision.inferred);
        if !write {
            decided.inference = self.infer(columns, &instead, findings);
            return decided;
        }
        let source = if trust.is_some() { "the operator's word" } else { "inference" };
        let mut failed = Vec::new();
        for one in &instead {
            if self.put_instead(columns, one, source, findings).await {
                decided.settled.push(one.index);
            } else {
                failed.push(one.index);
            }
        }
        decided.settled.dedup();
        decided.settled.retain(|index| !failed.contains(index));
        decided
    }

    /// The one slot that P and Q name in all of these rows; none if they do not.
    fn named(&self, columns: &Columns, rows: &[usize]) -> Option<usize> {
        if self.geometry.level() != ParityLevel::Raid6 {
            return None;
        }
        let mut named = rows.iter().map(|&index| columns.named(index));
        let first = named.next()??;
        named.all(|slot| slot == Some(first)).then_some(first)
    }

    fn has_tags(&self, slot: usize) -> bool {
        self.array.member(slot).is_none_or(|member| member.data().limits().verified)
    }

    /// Parity made anew, where it differs.
    fn parity_instead(&self, columns: &Columns, rows: &[usize]) -> Vec<Instead> {
        let of_row = |&index: &usize| {
            let expected = columns.expected_parity(index).into_iter();
            let differ = expected
                .filter(move |(slot, data)| columns.block_bytes(*slot, index) != data.as_slice());
            differ.map(move |(slot, data)| Instead { index, slot, data: Buf::copy_of(&data) })
        };
        rows.iter().flat_map(of_row).collect()
    }

    /// Lists what could be written. In words, what that is.
    fn infer(&self, columns: &Columns, instead: &[Instead], findings: &mut Findings) -> String {
        let Some(first) = instead.first() else { return String::new() };
        let Some(member) = self.array.member(first.slot) else { return String::new() };
        for one in instead {
            let extent = self.place_of(columns, one);
            findings.push(Finding::Inferred, Some(Rc::clone(member.name())), extent);
        }
        let extent = self.place_of(columns, first);
        let both =
            |content: Content| self.tagging.interleave(content.data.into_single(), &content.tags);
        let lies = both(columns.content(first.slot, first.index));
        let instead = both(self.signed(columns, first));
        let difference = self.tagging.difference(lies.as_slice(), instead.as_slice());
        let bytes = difference.map_or_else(String::new, |difference| format!(", {difference}"));
        let (name, count, sector) = (member.name(), instead.len(), extent.sector);
        format!("P and Q name {name}, {count} blocks, the first at its sector {sector}{bytes}")
    }

    /// Writes one block and reads it again. Whether it is there then.
    async fn put_instead(
        &self,
        columns: &Columns,
        one: &Instead,
        source: &'static str,
        findings: &mut Findings,
    ) -> bool {
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(one.index));
        let Some(member) = self.reader(one.slot, &rows) else { return false };
        let extent = self.place_of(columns, one);
        let sector = Sector(rows.start);
        let content = self.signed(columns, one);
        let store = Store { slot: one.slot, rows: rows.clone(), content: content.clone() };
        let stores = [store];
        let written = async {
            let _logged = self.log(&stores).await.map_err(|error| error.to_string())?;
            let journalled = self.journal(&stores).await.map_err(|error| error.to_string())?;
            self.rewrite(&member, sector, content).await?;
            self.stored(journalled);
            Ok::<(), String>(())
        };
        if let Err(why) = written.await {
            let detail = format!("could not be written as decided: {why}");
            let (sector, sectors) = (extent.sector, extent.sectors);
            member.events().emit_detail(EventKind::Note, sector, sectors, detail);
            return false;
        }
        self.array.count_corrected(&member, extent.sectors);
        let healed = EventKind::Healed { source, vouched: false };
        member.events().emit(healed, extent.sector, extent.sectors);
        findings.push(Finding::Decided, Some(Rc::clone(member.name())), extent);
        true
    }

    fn signed(&self, columns: &Columns, one: &Instead) -> Content {
        let role = columns.equations.role(one.slot);
        Content::signed(self.tagging, role, &one.data, columns.sector_of(one.index))
    }

    /// Where a block lies, in its member's sectors.
    fn place_of(&self, columns: &Columns, one: &Instead) -> Extent {
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(one.index));
        let sector = Sector(rows.start);
        let sector = self.array.member(one.slot).map_or(sector, |member| member.place(sector));
        Extent { sector, sectors: columns.block }
    }
}

impl Columns {
    /// The slot that P and Q name as the only wrong one of a row whose strips can all be read.
    fn named(&self, index: usize) -> Option<usize> {
        let mut errors = self.expected_parity(index).into_iter().map(|(slot, mut error)| {
            let stored = self.block_bytes(slot, index);
            error.iter_mut().zip(stored).for_each(|(error, stored)| *error ^= stored);
            error
        });
        let (p, q) = (errors.next()?, errors.next()?);
        match gf::locate(self.equations.powers().len(), &p, &q) {
            Wrong::Nothing | Wrong::Several => None,
            Wrong::P => Some(self.equations.p),
            Wrong::Q => self.equations.q,
            Wrong::Data(power) => {
                self.equations.powers()[power].map(|index| self.equations.data[index])
            }
        }
    }
}

/// What the others say of `slot`, in rows where they agree among themselves.
fn instead(columns: &Columns, rows: &[usize], slot: usize) -> Vec<Instead> {
    let of_row = |&index: &usize| {
        let others = (0..columns.strips.len())
            .map(|at| (at != slot).then(|| Buf::copy_of(columns.block_bytes(at, index))));
        let row = columns.equations.complete(others.collect())?;
        Some(Instead { index, slot, data: row.into_iter().nth(slot)? })
    };
    rows.iter().filter_map(of_row).collect()
}
