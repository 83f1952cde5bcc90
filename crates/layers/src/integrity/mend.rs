//! A damaged journal: what it holds, what each way out of it costs, and the way that somebody chose.
//!
//! A section with a damaged sector may be the newest or the oldest, so what lies behind it may be
//! newer than what is home, or may never have been promised to anybody. Nobody but a person can say
//! what that is worth.
//!
//! - **Replay**: what is proven (the sections before the damage, oldest first) goes home. Of a block of
//!   which the rest of the journal names another copy, that copy's *tag* goes home, and the block says
//!   that it is unreadable, and redundancy above can bring back what the tag vouches for; unless home
//!   is that very copy already: it is left alone.
//! - **Discard**: nothing goes home. Blocks of which the journal held another copy stay as they are,
//!   after they were told.
//!
//! # What a crash leaves
//!
//! 1. Proven blocks go home, durable. Crash: the journal is as it was, and the choice is asked for
//!    again. (If it is another then: what is home is what this step proved.)
//! 2. Tags of unproven copies go home, durable. Crash: the same; both steps do the same again.
//! 3. The journal is made anew, section by section, with the lap before the last two, each durable and
//!    read again before the next: those of older laps that hold nothing which counts, then the others,
//!    oldest first, those without any sound sector behind them, and last those of the newest lap that
//!    hold nothing. Crash: of every block the newest copy is still there, or none is. The newest lap
//!    stays as long as there are copies, so no section made anew is of the lap that is expected there,
//!    and nothing is replayed that was not proven; while a damaged section is left, the choice is asked
//!    for again, and finds home as it should be. (The order of sections is that of what is left in
//!    them, not of where they lie: one that was being made anew looks like the newest by its laps, and
//!    is the oldest.) A close that a crash interrupted leaves a newest lap that holds nothing, over
//!    copies older than what is home, of the very lap that sections are made anew with: were it gone
//!    first, they would be replayed.
//!
//! A journal of four laps has no order at all; neither way is safe, and neither is taken.

use super::open::{JournalChoice, Restriction};
use super::ordering::MENDED;
use super::recover::{Places, Scan, scan};
use super::section::Content;
use super::{Inner, Integrity, Journal};
use ::integrity::Sequence;
use bio::{Bio, EventKind, IoErrorKind, IoResult};
use units::Sector;

/// What a journal holds, and what each way out of its damage costs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalReport {
    /// Every section, in the order in which they lie.
    pub sections: Vec<SectionReport>,
    /// Why it cannot be replayed with certainty; none if it can.
    pub problem: Option<Restriction>,
    /// Blocks that [`JournalChoice::Replay`] makes unreadable, by their first sectors.
    pub replay_loses: Vec<Sector>,
    /// Blocks of which [`JournalChoice::Discard`] throws away a copy that is not what is home.
    pub discard_loses: Vec<Sector>,
}

/// One section of a journal.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SectionReport {
    /// Its number.
    pub section: u32,
    /// What it is worth.
    pub state: SectionState,
    /// Whether replay would write its entries home.
    pub proven: bool,
    /// The first sectors of the blocks that its used entries name, in order.
    pub sectors: Vec<Sector>,
}

/// What a section is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SectionState {
    /// Written whole in one lap (0 to 3).
    Sound {
        /// The lap.
        lap: u8,
    },
    /// Of two laps: a crash interrupted its writing.
    Torn,
    /// A sector of it carries the id of no lap.
    Damaged {
        /// The first such sector, counted in the section.
        sector: u64,
    },
    /// Written whole, and it does not carry the MAC of its entries.
    Forged,
}

impl Integrity {
    /// What the journal holds and what each [`JournalChoice`] would cost, for somebody who has to
    /// choose. Reads the journal and the blocks that it names. Only of a read-only opening that looks
    /// at the journal; else none.
    ///
    /// # Errors
    /// What the device says of the journal.
    pub async fn journal_report(&self) -> IoResult<Option<JournalReport>> {
        let inner = &self.inner;
        let looks =
            matches!(inner.journal, Journal::Reading(_)) && self.journal_state.is_of_a_journal();
        if !looks {
            return Ok(None);
        }
        let journal = &inner.layout.journal;
        let scan = scan(inner.metadata(), journal, &inner.codec, &inner.tagger).await?;
        let copies = scan.copies(&inner.layout);
        let replay_loses = match scan.restriction(&inner.layout) {
            None => Vec::new(),
            Some(_) => inner.differing(&copies.unproven, &copies.proven).await?,
        };
        let discard_loses = inner.differing(&copies.newest(), &Places::new()).await?;
        let sectors = |blocks: Vec<u64>| blocks.into_iter().map(Sector).collect();
        Ok(Some(JournalReport {
            sections: scan.section_reports(),
            problem: scan.restriction(&inner.layout),
            replay_loses: sectors(replay_loses),
            discard_loses: sectors(discard_loses),
        }))
    }
}

impl Inner {
    /// Does to a damaged journal what was chosen, and says where journalling goes on.
    ///
    /// # Errors
    /// What the device says; the journal is then as it was, or partly made anew.
    pub(super) async fn mend(
        &self,
        scan: &Scan,
        choice: JournalChoice,
    ) -> Result<(u32, Sequence), IoErrorKind> {
        let plan = scan.despite().map_err(|_| IoErrorKind::Unavailable)?;
        let copies = scan.copies(&self.layout);
        let nothing = Places::new();
        match choice {
            JournalChoice::Replay => {
                // A block that is home as its unproven copy says is the newest there can be.
                let open = self.differing(&copies.unproven, &nothing).await;
                let open = open.map_err(|error| error.kind)?;
                let is_open = |sector: &u64| open.binary_search(sector).is_ok();
                let (mut proven, mut unproven) = (copies.proven, copies.unproven);
                proven.retain(|sector, _| !unproven.contains_key(sector) || is_open(sector));
                self.replay(&proven, Content::Data).await?;
                unproven.retain(|sector, _| is_open(sector));
                let lost = self.differing(&unproven, &nothing).await;
                let lost = lost.map_err(|error| error.kind)?;
                unproven.retain(|sector, _| lost.binary_search(sector).is_ok());
                self.tell_lost(&lost, "only the damaged journal may hold its newest copy");
                self.replay(&unproven, Content::Tag).await?;
            }
            JournalChoice::Discard => {
                let differing = self.differing(&copies.newest(), &nothing).await;
                let differing = differing.map_err(|error| error.kind)?;
                let detail = "another copy in the discarded journal: left as it is at home";
                self.tell_lost(&differing, detail);
            }
        }
        let initial = plan.initial();
        for section in scan.renewal_order(&plan) {
            let anew = self.initialise_for_certain(&[section], initial, MENDED).await;
            anew.map_err(|error| error.kind)?;
        }
        Ok((0, initial.plus(1)))
    }

    fn tell_lost(&self, sectors: &[u64], detail: &str) {
        for &sector in sectors {
            let sectors = self.layout.block.sectors();
            self.events.emit_detail(EventKind::Lost, Sector(sector), sectors, detail.to_owned());
        }
    }

    /// Of the blocks of which the journal holds `copies`, those that are something else at home, or
    /// cannot be verified there; but for those of which it holds the same in `proven`, too.
    async fn differing(&self, copies: &Places, proven: &Places) -> IoResult<Vec<u64>> {
        let mut differing = Vec::new();
        for (&sector, &place) in copies {
            let copy = self.journal_copy(sector, place).await?;
            let at_home = copy.is_some() && copy == self.home_copy(sector).await;
            let is_proven = match proven.get(&sector) {
                Some(&place) if copy.is_some() => copy == self.journal_copy(sector, place).await?,
                _ => false,
            };
            if !at_home && !is_proven {
                differing.push(sector);
            }
        }
        Ok(differing)
    }

    /// What an entry of the journal holds for the block at `sector`, and behind it its tag; none if that
    /// is not what its tag vouches for.
    async fn journal_copy(&self, sector: u64, place: (u32, u32)) -> IoResult<Option<Vec<u8>>> {
        let Journal::Reading(overlay) = &self.journal else {
            unreachable!("the journal is looked at before anything is written to it");
        };
        let section = overlay.section(place.0, false).await?;
        let bytes = section.bytes.borrow();
        let mut block = vec![0; self.block_bytes()];
        self.layout.journal.read_data(bytes.as_slice(), place.1, &mut block);
        let tag = self.layout.journal.entry_tag(bytes.as_slice(), place.1);
        let is_sound = self.tagger.verify(sector, &block, tag).is_none();
        block.extend(tag);
        Ok(is_sound.then_some(block))
    }

    /// What is at home for the block at `sector`, and behind it its tag; none if it cannot be verified
    /// there.
    async fn home_copy(&self, sector: u64) -> Option<Vec<u8>> {
        let run = self.layout.run(Sector(sector), self.layout.block.sectors());
        let mut tag = vec![0; self.layout.tag_bytes];
        self.tags.read_past_cache(run.tag_byte, &mut tag).await.ok()?;
        let mut bio = Bio::read(run.data, run.sectors).bypassing();
        self.data().submit(&mut bio).await.ok()?;
        let mut data = bio.data.into_single().as_slice().to_vec();
        let is_sound = self.tagger.verify(sector, &data, &tag).is_none();
        data.extend(tag);
        is_sound.then_some(data)
    }
}
