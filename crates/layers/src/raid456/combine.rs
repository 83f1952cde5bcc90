//! Candidates beyond the redundancy: strips that can be read and whose tags disagree.
//!
//! A strip fails its tag because its bytes rotted or because its tag did; and of rotted bytes a CRC
//! names the bit if it was one. So with more damaged strips in a row than parity replaces, some of
//! them may be *assumed* and the rest computed:
//!
//! ```text
//!   strip      0      1      2      3      P        damaged: 1 and 3, parity replaces one
//!   tag        ok     bad    ok     bad    ok
//!   try 1             lies          computed        accepted if 3's own tag vouches for it
//!   try 2             computed      lies            accepted if 1's own tag vouches for it
//!   try 3             mended        computed        accepted if 3's own tag vouches for it
//! ```
//!
//! A try is accepted if
//!
//! - every computed strip that has a tag is vouched for by it, and every mended one by its own;
//! - every parity that is left over agrees;
//! - there are at most as many assumed strips as *witnesses*: computed strips with a tag that
//!   vouches, and parities left over. Any set of so many witnesses determines so many strips (the
//!   code is MDS), so no error in what is assumed can cancel itself out. (Of two strips with the
//!   same bit turned, P says nothing: they are two, and P is one.)
//! - nothing is assumed as it lies, and nothing without a tag is computed, in a row that may have
//!   been interrupted: its parity is no witness for that.
//!
//! Where members keep tags for whoever is above, nothing is tried: what lies in a damaged strip is a
//! candidate for its data, but of its application tags nothing would be left to vouch.
//!
//! All tries are made. If two that are accepted differ, none is. So many damaged strips that there
//! are more than [`TRIES_MAX`] tries are left lost, and said to be.

use super::Inner;
use super::columns::{Block, Columns};
use bio::{Bio, Buf, IoErrorKind};
use units::Sector;

/// What trying came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Combined {
    /// No try was accepted.
    Nothing,
    /// The row is whole.
    Whole,
    /// There are too many tries.
    TooMany,
    /// Tries that were accepted differ.
    Ambiguous,
}

/// Tries for one row of blocks, at most: four damaged strips of RAID 6 take 81.
const TRIES_MAX: usize = 256;

/// What may stand in for one damaged strip.
struct Candidate {
    slot: usize,
    /// The bytes that may be assumed, and whether the strip's own tag agrees with them.
    assumed: Vec<(Buf, bool)>,
}

/// One way to fill a row.
struct Try {
    /// By slot; none: to be computed.
    row: Vec<Option<Buf>>,
    /// What is assumed as it lies.
    lies: usize,
    /// What is assumed with a bit turned.
    mended: Vec<usize>,
}

impl Inner {
    /// Tries what the damaged strips of a row of blocks may be, beyond what parity replaces, and
    /// puts it in place if it is accepted. Called when everything else is settled.
    pub(super) async fn combine(
        &self,
        columns: &mut Columns,
        index: usize,
        vouched: &mut [bool],
    ) -> Combined {
        if !self.tagging.is_none() {
            return Combined::Nothing;
        }
        let candidates = self.candidates(columns, index).await;
        let ways = |candidate: &Candidate| candidate.assumed.len() + 1;
        let tries = candidates.iter().try_fold(1usize, |n, one| n.checked_mul(ways(one)));
        let Some(tries) = tries.filter(|&tries| tries <= TRIES_MAX) else {
            return Combined::TooMany;
        };
        let mut accepted: Option<(Vec<Buf>, Vec<bool>)> = None;
        // The first is that nothing is assumed, which is what failed before.
        for number in 1..tries {
            let Some(one) = self.attempt(columns, index, &candidates, number) else { continue };
            let Some((row, by_tag)) = self.judge_try(columns, index, one).await else { continue };
            match &mut accepted {
                None => accepted = Some((row, by_tag)),
                Some((before, tags)) => {
                    if before.iter().zip(&row).any(|(a, b)| a.as_slice() != b.as_slice()) {
                        return Combined::Ambiguous;
                    }
                    tags.iter_mut().zip(by_tag).for_each(|(known, new)| *known |= new);
                }
            }
        }
        let Some((row, by_tag)) = accepted else { return Combined::Nothing };
        for (slot, data) in row.iter().enumerate() {
            if !columns.state(slot, index).is_known() {
                columns.rebuilt(slot, index, data.as_slice());
                vouched[slot] = by_tag[slot];
            }
        }
        Combined::Whole
    }

    /// What lies in the damaged strips that can be read.
    async fn candidates(&self, columns: &Columns, index: usize) -> Vec<Candidate> {
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let mut candidates = Vec::new();
        for slot in 0..columns.strips.len() {
            if columns.state(slot, index) != Block::Damaged(IoErrorKind::Protection) {
                continue;
            }
            let mut assumed = Vec::new();
            for mend in [false, true] {
                let peek = Bio::peek(Sector(rows.start), columns.block, mend);
                if let Some(data) = self.peek(slot, peek).await {
                    assumed.push((data, mend));
                }
            }
            candidates.push(Candidate { slot, assumed });
        }
        candidates
    }

    async fn peek(&self, slot: usize, mut bio: Bio) -> Option<Buf> {
        let member = self.reader(slot, &(bio.sector.0..bio.end().0))?;
        member.data().submit(&mut bio).await.ok()?;
        Some(bio.data.into_single())
    }

    /// Try `number`: its digits, one for each candidate, say what is assumed. None if it leaves more
    /// to compute than there are equations.
    fn attempt(
        &self,
        columns: &Columns,
        index: usize,
        candidates: &[Candidate],
        number: usize,
    ) -> Option<Try> {
        let known = |slot: usize| columns.state(slot, index).is_known();
        let row = (0..columns.strips.len())
            .map(|slot| known(slot).then(|| Buf::copy_of(columns.block_bytes(slot, index))));
        let mut one = Try { row: row.collect(), lies: 0, mended: Vec::new() };
        let mut rest = number;
        for Candidate { slot, assumed } in candidates {
            let digit = rest % (assumed.len() + 1);
            rest /= assumed.len() + 1;
            let Some((data, mended)) = digit.checked_sub(1).map(|digit| &assumed[digit]) else {
                continue;
            };
            one.row[*slot] = Some(data.clone());
            if *mended {
                one.mended.push(*slot);
            } else {
                one.lies += 1;
            }
        }
        let unknown = one.row.iter().filter(|data| data.is_none()).count();
        (unknown <= self.geometry.level().parity_count()).then_some(one)
    }

    /// The whole row that a try gives, and which strips' own tags vouch for it; none if the evidence
    /// does not allow it.
    async fn judge_try(
        &self,
        columns: &Columns,
        index: usize,
        one: Try,
    ) -> Option<(Vec<Buf>, Vec<bool>)> {
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let in_sync = self.in_sync(&rows);
        let computed: Vec<usize> =
            (0..one.row.len()).filter(|&slot| one.row[slot].is_none()).collect();
        let tagged = |slot: usize| {
            self.reader(slot, &rows).is_some_and(|member| member.data().limits().verified)
        };
        let (asked, blind): (Vec<usize>, Vec<usize>) =
            computed.iter().partition(|&&slot| tagged(slot));
        let left_over = self.geometry.level().parity_count() - computed.len();
        let witnesses = asked.len() + left_over;
        if one.lies + one.mended.len() > witnesses || (!in_sync && one.lies + blind.len() > 0) {
            return None;
        }
        let row = columns.equations.complete(one.row)?;
        let mut by_tag = vec![false; row.len()];
        for &slot in asked.iter().chain(&one.mended) {
            if !self.vouches(slot, Sector(rows.start), &row[slot]).await {
                return None;
            }
            by_tag[slot] = true;
        }
        Some((row, by_tag))
    }
}
