//! Healing by evidence: what is reconstructed, when it is accepted, and putting it back.
//!
//! For one row of blocks, with `u` data blocks unknown and `k` parity blocks known:
//!
//! | | candidates | accepted if |
//! |---|---|---|
//! | u > k | what the damaged may be (combine.rs) | every tag agrees, and what is assumed has witnesses |
//! | u = k | one | its member's tag vouches, or the row is in sync |
//! | u = 1, k = 2 | by P and by Q | the tag vouches for one, or they agree and the row is in sync |
//! | parity damaged, data known | computed | its tag vouches, or no other parity disagrees |
//!
//! If members keep tags for whoever is above, a tag that vouches says nothing of those: there a block
//! comes back only where the row is in sync too.
//!
//! A missing member has no tag to ask. Parity of a row that may have been interrupted by a crash is
//! no witness at all, so there only tags count.
//!
//! Putting a block back, in the order of its steps:
//!
//! 1. The candidate is accepted. Crash: damaged as before.
//! 2. It is written to its member, data and tag. Crash: damaged as before, or healed.
//! 3. It is read again, past every cache, and compared. Crash: healed.
//! 4. The event is told. A block that does not come back is told as a note and stays damaged.

use super::Inner;
use super::columns::{Block, Columns};
use super::combine::Combined;
use super::content::Content;
use crate::array::Member;
use crate::array::checks::HEALED;
use bio::{Bio, Buf, Decision, EventKind, Finding, IoErrorKind};
use gf::Strip;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

/// What may be done about damage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Healing {
    /// Rewrite what was rebuilt, and what an operator decides.
    Decide(Decision),
    /// Rewrite what was rebuilt.
    Write,
    /// Only say so.
    Report,
}

/// What settling a row of blocks came to.
#[derive(Default)]
pub(super) struct Settled {
    /// What was found, where: slot and member sector of each damaged block.
    pub(super) found: Vec<(Finding, usize, Sector)>,
    /// Parity blocks that can be believed and are not the parity of the data, with what would be.
    pub(super) disagreeing: Vec<(usize, Vec<u8>)>,
}

/// What was already told, so that a block is told once: slot and member sector.
#[derive(Default)]
pub(super) struct Told {
    places: RefCell<BTreeSet<(usize, u64)>>,
}

impl Told {
    /// Whether this is news. Places beyond the bound are told every time.
    pub(super) fn first_time(&self, slot: usize, sector: Sector) -> bool {
        let mut places = self.places.borrow_mut();
        if places.len() >= TOLD_MAX {
            return !places.contains(&(slot, sector.0));
        }
        places.insert((slot, sector.0))
    }

    /// Whether it was told.
    fn knows(&self, slot: usize, sector: Sector) -> bool {
        self.places.borrow().contains(&(slot, sector.0))
    }

    /// What happens there next is news again.
    pub(super) fn forget(&self, slot: usize, range: Range<u64>) {
        let mut places = self.places.borrow_mut();
        if places.is_empty() {
            return;
        }
        let gone: Vec<_> = places.range((slot, range.start)..(slot, range.end)).copied().collect();
        for place in gone {
            places.remove(&place);
        }
    }
}

impl Inner {
    /// What may be done about damage by requests.
    pub(super) fn healing(&self) -> Healing {
        if self.limits.read_only { Healing::Report } else { Healing::Write }
    }

    /// Rebuilds what is unknown of every row of blocks, and puts it back. Called under the stripe's
    /// lock.
    pub(super) async fn settle(&self, columns: &mut Columns, healing: Healing) {
        for index in 0..columns.height() {
            let whole = columns.strips.iter().all(|strip| strip.blocks[index] == Block::Good);
            if !whole {
                self.settle_row(columns, index, healing, false).await;
            }
        }
    }

    /// One row of blocks. With `compare`, known parity is compared with the data too.
    pub(super) async fn settle_row(
        &self,
        columns: &mut Columns,
        index: usize,
        healing: Healing,
        compare: bool,
    ) -> Settled {
        let mut settled = Settled::default();
        let before: Vec<Block> = columns.strips.iter().map(|strip| strip.blocks[index]).collect();
        let mut vouched = vec![false; before.len()];
        self.rebuild_data(columns, index, &mut vouched).await;
        if columns.data_known(index) {
            self.rebuild_parity(columns, index, &mut vouched, compare, &mut settled).await;
        }
        let unread = Block::Damaged(IoErrorKind::Protection);
        if columns.strips.iter().any(|strip| strip.blocks[index] == unread) {
            let combined = self.combine(columns, index, &mut vouched).await;
            self.tell_combined(columns, index, combined);
        }
        for (slot, was) in before.into_iter().enumerate() {
            if let Block::Damaged(kind) = was {
                let found = self.put_back(columns, index, slot, kind, vouched[slot], healing).await;
                let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
                settled.found.push((found, slot, Sector(rows.start)));
            }
        }
        settled
    }

    /// Reconstructs the unknown data blocks and accepts what the evidence allows.
    async fn rebuild_data(&self, columns: &mut Columns, index: usize, vouched: &mut [bool]) {
        let known = |slot: usize| columns.state(slot, index).is_known();
        let unknown: Vec<usize> =
            columns.equations.data.iter().copied().filter(|&slot| !known(slot)).collect();
        let parity: Vec<usize> = columns.equations.parity().filter(|&slot| known(slot)).collect();
        if unknown.is_empty() || unknown.len() > parity.len() {
            return;
        }
        let attempts: Vec<Vec<usize>> = if unknown.len() == parity.len() {
            vec![parity]
        } else {
            parity.into_iter().map(|one| vec![one]).collect()
        };
        let mut candidates: Vec<Vec<Buf>> = Vec::new();
        for used in &attempts {
            candidates.extend(reconstruct(columns, index, &unknown, used));
        }
        let Some((first, others)) = candidates.split_first() else { return };
        let same = |a: &Buf, b: &Buf| a.as_slice() == b.as_slice();
        let agreed = others.iter().all(|other| other.iter().zip(first).all(|(a, b)| same(a, b)));
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let believed = agreed && self.in_sync(&rows);
        for (place, &slot) in unknown.iter().enumerate() {
            let mut accepted = None;
            if self.vouching_decides(&candidates, place, &rows)
                && matches!(columns.state(slot, index), Block::Damaged(_))
            {
                let tried = if agreed { &candidates[..1] } else { &candidates[..] };
                for candidate in tried {
                    if self.vouches(slot, Sector(rows.start), &candidate[place]).await {
                        vouched[slot] = true;
                        accepted = Some(candidate[place].clone());
                        break;
                    }
                }
            }
            if accepted.is_none() && believed {
                accepted = Some(first[place].clone());
            }
            if let Some(data) = accepted {
                columns.rebuilt(slot, index, data.as_slice());
            }
        }
    }

    /// Whether a tag that vouches for one of the candidates for unknown block `place` decides for it. It
    /// speaks of data: what the application said of it has no other witness than the row itself.
    fn vouching_decides(&self, candidates: &[Vec<Buf>], place: usize, rows: &Range<u64>) -> bool {
        let data = |candidate: &Vec<Buf>| candidate[place].slice(0..self.block.bytes());
        let same = |a: &Buf, b: &Buf| a.as_slice() == b.as_slice();
        let (first, others) = candidates.split_at(1);
        let told_apart = |first: &Vec<Buf>, other: &Vec<Buf>| {
            same(&first[place], &other[place]) || !same(&data(first), &data(other))
        };
        let mut each = first.iter().flat_map(|first| others.iter().map(move |o| (first, o)));
        self.tagging.is_none()
            || (self.in_sync(rows) && each.all(|(first, other)| told_apart(first, other)))
    }

    /// Computes damaged parity of known data and accepts what the evidence allows; compares known
    /// parity if that is asked, or if damaged parity needs it as a witness.
    async fn rebuild_parity(
        &self,
        columns: &mut Columns,
        index: usize,
        vouched: &mut [bool],
        compare: bool,
        settled: &mut Settled,
    ) {
        let state = |slot: usize| columns.state(slot, index);
        let damaged = |slot: usize| matches!(state(slot), Block::Damaged(_));
        if !compare && !columns.equations.parity().any(damaged) {
            return;
        }
        let expected = columns.expected_parity(index);
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let mut to_rebuild = Vec::new();
        for (slot, data) in expected {
            match state(slot) {
                Block::Good if columns.block_bytes(slot, index) != data => {
                    settled.disagreeing.push((slot, data));
                }
                Block::Damaged(_) => to_rebuild.push((slot, data)),
                // Whoever lacks it is to be given it.
                Block::Missing if self.array.is_held(slot) => to_rebuild.push((slot, data)),
                Block::Good | Block::Rebuilt | Block::Missing => {}
            }
        }
        // Making parity anew is right after an unfinished write; where all is in sync it is right
        // unless the other parity says that something is wrong with the data.
        let free = settled.disagreeing.is_empty() && !self.doubts.overlap(&rows);
        let free = free || self.is_unfinished(&rows);
        for (slot, data) in to_rebuild {
            vouched[slot] = self.vouches(slot, Sector(rows.start), &Buf::copy_of(&data)).await;
            if vouched[slot] || free {
                columns.rebuilt(slot, index, &data);
            }
        }
    }

    /// Tells, once, why combinations were not gone through to the end.
    fn tell_combined(&self, columns: &Columns, index: usize, combined: Combined) {
        let why = match combined {
            Combined::Nothing | Combined::Whole => return,
            Combined::TooMany => "more combinations of damaged strips than are tried",
            Combined::Ambiguous => "combinations of damaged strips that all agree differ",
        };
        let rows = self.absolute(columns.equations.stripe, &columns.rows_of(index));
        let mut slots = 0..columns.strips.len();
        let damaged = |slot: &usize| !columns.state(*slot, index).is_known();
        if slots.find(damaged).is_some_and(|slot| !self.told.knows(slot, Sector(rows.start))) {
            let stripe = self.extent_of(&(columns.equations.stripe..columns.equations.stripe + 1));
            let detail = format!("member data sector {}: {why}", rows.start);
            let events = self.array.events();
            events.emit_detail(EventKind::Note, stripe.sector, stripe.sectors, detail);
        }
    }

    /// Tells of one damaged block, and writes it if it was rebuilt.
    async fn put_back(
        &self,
        columns: &Columns,
        index: usize,
        slot: usize,
        kind: IoErrorKind,
        vouched: bool,
        healing: Healing,
    ) -> Finding {
        let stripe = columns.equations.stripe;
        let range = self.absolute(stripe, &columns.rows_of(index));
        let sector = Sector(range.start);
        let Some(member) = self.reader(slot, &range) else { return Finding::Unreadable };
        let place = member.place(sector);
        let length = range.end - range.start;
        if !columns.state(slot, index).is_known() {
            if kind != IoErrorKind::Unavailable && self.told.first_time(slot, sector) {
                let volume =
                    self.volume_sector(&columns.equations, slot, columns.rows_of(index).start);
                let detail = match columns.equations.data_index(slot) {
                    Some(_) => format!("volume sector {volume}"),
                    None => format!("parity of the stripe at volume sector {volume}"),
                };
                member.events().emit_detail(EventKind::Lost, place, length, detail);
            }
            return Finding::Unreadable;
        }
        if healing == Healing::Report || kind == IoErrorKind::Unavailable {
            if kind != IoErrorKind::Unavailable && self.told.first_time(slot, sector) {
                member.events().emit(EventKind::Healable, place, length);
            }
            return Finding::Healable;
        }
        match self.rewrite(&member, sector, columns.content(slot, index)).await {
            Ok(()) => {
                self.told.forget(slot, range);
                self.array.count_corrected(&member, length);
                let healed = EventKind::Healed { source: "parity", vouched };
                member.events().emit(healed, place, length);
                Finding::Healed
            }
            Err(why) => {
                // Without room in the log it is as damaged as before.
                let _ = member.record_bad(range).await;
                if self.told.first_time(slot, sector) {
                    let detail = format!("could not be healed, is served from parity: {why}");
                    member.events().emit_detail(EventKind::Note, place, length, detail);
                }
                Finding::Healable
            }
        }
    }

    /// Writes a block and its tag and reads them back from the medium.
    pub(super) async fn rewrite(
        &self,
        member: &Rc<Member>,
        sector: Sector,
        content: Content,
    ) -> Result<(), String> {
        let device = member.data();
        let told = |error: bio::IoError| error.kind.to_string();
        let again = self.tagging.read(sector, content.sectors()).bypassing();
        let mut again = again.because(HEALED);
        let mut write = Bio::write(sector, content.data).tagged(content.tags).because(HEALED);
        device.submit(&mut write).await.map_err(told)?;
        device.submit(&mut again).await.map_err(told)?;
        let whole = |bio: Bio| self.tagging.taken(bio);
        if whole(again).as_slice() == whole(write).as_slice() {
            Ok(())
        } else {
            Err("other bytes came back".into())
        }
    }
}

/// The unknown data blocks of a row, computed with the parity `used`. None if that is not enough.
fn reconstruct(
    columns: &Columns,
    index: usize,
    unknown: &[usize],
    used: &[usize],
) -> Option<Vec<Buf>> {
    let length = columns.length();
    let mut wanted: Vec<Buf> = unknown.iter().map(|_| Buf::alloc(length)).collect();
    let mut strips: Vec<Strip<'_>> = (0..columns.strips.len())
        .map(|slot| {
            let data = columns.equations.data_index(slot).is_some();
            let known = columns.state(slot, index).is_known() && (data || used.contains(&slot));
            if known { Strip::Known(columns.block_bytes(slot, index)) } else { Strip::Absent }
        })
        .collect();
    for (&slot, buf) in unknown.iter().zip(&mut wanted) {
        strips[slot] = Strip::Wanted(buf.as_mut_slice());
    }
    columns.equations.recover(length, strips).ok()?;
    Some(wanted)
}

/// Places that are remembered as told.
const TOLD_MAX: usize = 1 << 16;
