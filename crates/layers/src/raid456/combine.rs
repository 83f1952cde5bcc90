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
//! Where members keep protection information, a strip's own tag is its stored tuple, which vouches by guard
//! and place. What the application said is a row of its own, with the same equations: it is known of strips
//! that were read and of those whose tuple vouches for what was computed, and nothing of it is assumed. Then:
//!
//! - a tuple that is escaped vouches for nothing, so a strip that was read with one is assumed as well: it
//!   wants a witness more. What its tag says is one, too, if it is the truth: in the other row as many
//!   equations as in this are left over for it.
//! - a strip whose tuple cannot be read has no tag.
//! - a bit is turned only where the guard is wide enough to name it (`layers::verify`).
//!
//! Where members keep bytes for whoever is above that are no protection information, nothing is tried: no
//! tag would be left to vouch for them.
//!
//! All tries are made. If two that are accepted differ, none is. So many damaged strips that there
//! are more than [`TRIES_MAX`] tries are left lost, and said to be.

use super::Inner;
use super::application::{application, vouch_for_nothing};
use super::columns::{Block, Columns};
use super::content::Content;
use bio::{Bio, Buf, IoErrorKind, Segments};

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
    /// The blocks that may be assumed, and whether the strip's own tag agrees with them. As everywhere here,
    /// a block is followed by the application's part of its tag.
    assumed: Vec<(Buf, bool)>,
    /// Its tag as it lies, where members keep some; none: it cannot be read.
    tag: Option<Segments>,
}

impl Candidate {
    /// The tag that lies in `slot`, if there is one that may vouch for something.
    fn tag<'a>(all: &'a [Self], columns: &Columns, slot: usize) -> Option<&'a Segments> {
        let role = columns.equations.role(slot);
        let tag = all.iter().find(|one| one.slot == slot)?.tag.as_ref();
        tag.filter(|tag| !vouch_for_nothing(columns.tagging, role, tag))
    }
}

/// One way to fill a row.
struct Try {
    /// By slot; none: to be computed.
    row: Vec<Option<Buf>>,
    /// What is assumed as it lies.
    lies: Vec<usize>,
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
        if !self.tagging.is_none() && self.tagging.profile().is_none() {
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
            let judged = self.judge_try(columns, index, &candidates, one).await;
            let Some((row, by_tag)) = judged else { continue };
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
        let mut candidates = Vec::new();
        for slot in 0..columns.strips.len() {
            if columns.state(slot, index) != Block::Damaged(IoErrorKind::Protection) {
                continue;
            }
            let (mut assumed, mut tag) = (Vec::new(), None);
            for mend in [false, true] {
                let peek = Bio::peek(columns.sector_of(index), columns.block, mend);
                let Some(lies) = self.peek(slot, peek).await else { continue };
                let whole = lies.interleaved(self.tagging, columns.equations.role(slot));
                assumed.push((whole, mend));
                tag.get_or_insert(lies.tags);
            }
            candidates.push(Candidate { slot, assumed, tag });
        }
        candidates
    }

    async fn peek(&self, slot: usize, bio: Bio) -> Option<Content> {
        let member = self.reader(slot, &(bio.sector.0..bio.end().0))?;
        let tags = self.tagging.alloc(bio.sectors());
        let mut bio = bio.tagged(tags);
        member.data().submit(&mut bio).await.ok()?;
        Some(Content::of(bio))
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
        let mut one = Try { row: row.collect(), lies: Vec::new(), mended: Vec::new() };
        let mut rest = number;
        for Candidate { slot, assumed, .. } in candidates {
            let digit = rest % (assumed.len() + 1);
            rest /= assumed.len() + 1;
            let Some((data, mended)) = digit.checked_sub(1).map(|digit| &assumed[digit]) else {
                continue;
            };
            one.row[*slot] = Some(data.clone());
            if *mended {
                one.mended.push(*slot);
            } else {
                one.lies.push(*slot);
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
        candidates: &[Candidate],
        one: Try,
    ) -> Option<(Vec<Buf>, Vec<bool>)> {
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let computed = (0..one.row.len()).filter(|&slot| one.row[slot].is_none());
        let tagged = |slot: &usize| match self.tagging.is_none() {
            true => self.reader(*slot, &rows).is_some_and(|member| member.data().limits().verified),
            false => Candidate::tag(candidates, columns, *slot).is_some(),
        };
        let (asked, blind): (Vec<usize>, Vec<usize>) = computed.partition(tagged);
        let parities = self.geometry.level().parity_count();
        let witnesses = parities - blind.len();
        let assumed = one.lies.len() + self.unchecked(columns, index).len();
        if assumed + one.mended.len() > witnesses
            || (!self.in_sync(&rows) && assumed + blind.len() > 0)
        {
            return None;
        }
        let split = |whole: &Option<Buf>| whole.as_ref().map(|whole| self.tagging.apart(whole));
        let (data, mut own): (Vec<_>, Vec<_>) =
            one.row.iter().map(|whole| split(whole).unzip()).unzip();
        let single = |all: Vec<Option<Segments>>| -> Vec<Option<Buf>> {
            all.into_iter().map(|one| one.map(Segments::into_single)).collect()
        };
        let data = columns.equations.complete(single(data))?;
        let mut by_tag = vec![false; data.len()];
        for &slot in asked.iter().chain(&one.mended) {
            own[slot] =
                self.own_if_vouched(columns, index, candidates, (slot, &data[slot])).await?.into();
            by_tag[slot] = true;
        }
        if self.tagging.is_none() {
            return Some((data, by_tag));
        }
        one.lies.iter().for_each(|&slot| own[slot] = None);
        let own = columns.equations.complete(single(own))?;
        let row = data.into_iter().zip(own);
        Some((row.map(|(data, own)| self.tagging.interleave(data, &own.into())).collect(), by_tag))
    }

    /// The slots of strips of a row that were read, and nobody could check them.
    pub(super) fn unchecked(&self, columns: &Columns, index: usize) -> Vec<usize> {
        let unchecked = |&slot: &usize| {
            let (role, tags) = (columns.equations.role(slot), columns.content(slot, index).tags);
            columns.state(slot, index).is_known() && vouch_for_nothing(self.tagging, role, &tags)
        };
        (0..columns.strips.len()).filter(unchecked).collect()
    }

    /// The application's part of a strip's own tag, if that vouches for the data that a row gives for it.
    async fn own_if_vouched(
        &self,
        columns: &Columns,
        index: usize,
        candidates: &[Candidate],
        (slot, data): (usize, &Buf),
    ) -> Option<Segments> {
        let (at, role) = (columns.sector_of(index), columns.equations.role(slot));
        if self.tagging.is_none() {
            return self.vouches(slot, at, data).await.then(Segments::default);
        }
        let tag = Candidate::tag(candidates, columns, slot)?;
        let own = application(self.tagging, role, tag);
        let whole = self.tagging.interleave(data.clone(), &own);
        let ought = Content::signed(self.tagging, role, &whole, at).tags;
        (ought.to_single().as_slice() == tag.to_single().as_slice()).then_some(own)
    }
}
