//! Copies that differ where they should agree: what most of them say, and what an operator decides.
//!
//! | the copies of one block, all readable, differ | |
//! |---|---|
//! | those that were checked agree, the others have escapes for tags | healed (unchecked.rs) |
//! | the ones outvoted have no tags, and more than half of three or more agree | inferred |
//! | the same, with `--repair inferred` | the outvoted are given what most hold |
//! | `--trust member=N` | every other is given N's |
//! | `--trust all-but=N`, and all but N agree | N is given theirs |
//! | anything else: two copies, no majority, or a valid tag on what is outvoted | inconsistent |
//!
//! A copy is written and read again, one after the other. A crash leaves each old or new; while they
//! differ they are judged as before. Copies of a block with damage in one of them are not judged by
//! votes: that one is healed first.

use super::Inner;
use super::read::Copy;
use super::scrub::place;
use bio::{Buf, EventKind, Extent, Finding, Findings, ScrubMode, Trust};
use std::rc::Rc;

/// A block whose copies differ and of which redundancy alone says something.
pub(super) struct Verdict {
    /// What they should hold, as a place among the copies.
    pub(super) winner: usize,
    /// The copies that hold something else.
    pub(super) outvoted: Vec<usize>,
}

impl Inner {
    /// What is to be said of the copies of block `one`, which all can be read and differ: by votes, or
    /// as an operator says. None: nobody knows.
    pub(super) fn verdict(copies: &[Copy], one: Extent, mode: ScrubMode) -> Option<Verdict> {
        let slot = |index: usize| copies[index].site.member.slot();
        let alike = |a: usize, b: usize| copies[a].piece(one) == copies[b].piece(one);
        let all = 0..copies.len();
        let winner = match mode.decision().trust {
            // They are parity's.
            Some(Trust::Data | Trust::Parity) => None,
            Some(Trust::Member(wanted)) => all.clone().find(|&index| slot(index) == wanted),
            Some(Trust::AllBut(wrong)) => {
                let mut others = all.clone().filter(|&index| slot(index) != wrong);
                let first = others.next()?;
                others.all(|other| alike(first, other)).then_some(first)
            }
            None => all.clone().find(|&index| {
                let votes = all.clone().filter(|&other| alike(index, other)).count();
                copies.len() >= 3 && votes * 2 > copies.len()
            }),
        }?;
        let outvoted: Vec<usize> = all.filter(|&index| !alike(winner, index)).collect();
        let by_votes = mode.decision().trust.is_none();
        let has_tag = outvoted.iter().any(|&index| copies[index].is_checked(one));
        (!(by_votes && has_tag)).then_some(Verdict { winner, outvoted })
    }

    /// Lists what is inferred, or writes it if that was decided. Whether the copies agree now.
    pub(super) async fn carry_out(
        &self,
        copies: &[Copy],
        (one, verdict): (Extent, &Verdict),
        mode: ScrubMode,
        findings: &mut Findings,
    ) -> bool {
        let decision = mode.decision();
        let write = decision.trust.is_some() || decision.inferred;
        let source = if decision.trust.is_some() { "the operator's word" } else { "inference" };
        let bytes = Buf::copy_of(copies[verdict.winner].piece(one));
        let mut agree = write;
        for &index in &verdict.outvoted {
            let site = &copies[index].site;
            let member = &site.member;
            let (name, extent) = (Rc::clone(member.name()), place(site, one));
            if !write {
                findings.push(Finding::Inferred, Some(name), extent);
                continue;
            }
            if let Err(why) = self.rewrite(site, one, &bytes).await {
                let detail = format!("could not be written as decided: {why}");
                let (sector, sectors) = (extent.sector, extent.sectors);
                member.events().emit_detail(EventKind::Note, sector, sectors, detail);
                agree = false;
                continue;
            }
            self.array.count_corrected(member, one.sectors);
            let healed = EventKind::Healed { source, vouched: false };
            member.events().emit(healed, extent.sector, extent.sectors);
            findings.push(Finding::Decided, Some(name), extent);
        }
        agree
    }

    /// In words: who is outvoted, and what would be written.
    pub(super) fn inference(copies: &[Copy], one: Extent, verdict: &Verdict) -> String {
        let names = verdict.outvoted.iter().map(|&index| copies[index].site.member.name().as_ref());
        let names = names.collect::<Vec<_>>().join(", ");
        let votes = copies.len() - verdict.outvoted.len();
        let (lies, instead) =
            (copies[verdict.outvoted[0]].piece(one), copies[verdict.winner].piece(one));
        let difference = copies[verdict.winner].tagging.difference(lies, instead);
        let bytes = difference.map_or_else(String::new, |difference| format!("; {difference}"));
        format!("inferred: {votes} of {} copies agree against {names}{bytes}", copies.len())
    }
}
