//! Giving members what they lack: reconstructed from verified reads of the others, or copied from the
//! member that is to be replaced.
//!
//! A window is filled in one go if all that is needed can be read and no evidence speaks against
//! it: the data that is missing is computed, then parity of all data is compared with the parity
//! that is there. Otherwise each row of blocks is settled as a reader's would be (heal.rs), damage
//! in the sources is healed, and only blocks that are believed are written. A block that nobody can
//! vouch for is recorded as bad, or stays a hole: never is anything written there that would pass for data.
//!
//! No write intent is needed: nothing that anybody is given changes. What a crash leaves is in the
//! header of [`crate::array::rebuild`].

use super::columns::Block;
use super::content::Content;
use super::heal::Healing;
use super::store::submit;
use super::{Inner, is_loss};
use crate::array::checks::ROW;
use crate::array::rebuild::{Filler, STEPS_MIN, WINDOW_SECTORS};
use crate::array::{Array, Member};
use bio::{Bio, EventKind, IoErrorKind, IoResult};
use runtime::join_all;
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

impl Filler for Inner {
    fn array(&self) -> &Rc<Array> {
        &self.array
    }

    fn member_sectors(&self) -> u64 {
        self.member_sectors()
    }

    fn window_sectors(&self) -> u64 {
        let chunk = self.geometry.chunk_sectors();
        (WINDOW_SECTORS.min(self.member_sectors() / STEPS_MIN) / chunk).max(1) * chunk
    }

    fn is_busy(&self) -> bool {
        self.locks.entries() > 0
    }

    fn is_closing(&self) -> bool {
        self.closing.get()
    }

    async fn fill(&self, sectors: Range<u64>) -> IoResult {
        let chunk = self.geometry.chunk_sectors();
        let stripes = sectors.start / chunk..sectors.end.div_ceil(chunk).min(self.stripes);
        let _lock = self.locks.lock(stripes.clone()).await;
        if !self.fill_whole(&stripes).await? {
            for stripe in stripes {
                self.fill_stripe(stripe).await?;
            }
        }
        Ok(())
    }

    fn filled(self: &Rc<Self>) {
        super::resync::start(self);
    }
}

impl Inner {
    /// Fills whole stripes at once; false, with nothing written, if that takes a closer look.
    /// Called under their locks.
    async fn fill_whole(&self, stripes: &Range<u64>) -> IoResult<bool> {
        let rows = self.strips_of(stripes);
        if !self.in_sync(&rows) {
            return Ok(false);
        }
        let reads = (0..self.geometry.raid_disks()).map(|slot| {
            let rows = rows.clone();
            async move {
                match self.array.reader(slot, &rows) {
                    Some(_) => self.read_member(slot, rows, false, ROW).await.map(Some),
                    None => Ok(None),
                }
            }
        });
        let reads: IoResult<Vec<Option<Content>>> = join_all(reads).await.into_iter().collect();
        let Ok(reads) = reads else { return Ok(false) };
        let mut whole: Vec<Content> = vec![Content::default(); reads.len()];
        for stripe in stripes.clone() {
            let Some(strips) = self.whole_stripe(stripe, &reads, rows.start) else {
                return Ok(false);
            };
            for (all, strip) in whole.iter_mut().zip(strips) {
                all.append(strip);
            }
        }
        let lacking = self.array.lacking(&rows);
        let writes = lacking.iter().map(|member| {
            let content = whole[member.slot()].clone();
            self.fill_member(member, rows.clone(), content)
        });
        join_all(writes).await.into_iter().collect::<IoResult>()?;
        Ok(true)
    }

    /// Every strip of a stripe, those that are not in `reads` (which begin at member sector `start`)
    /// computed. None if that is not enough, or parity disagrees.
    fn whole_stripe(
        &self,
        stripe: u64,
        reads: &[Option<Content>],
        start: u64,
    ) -> Option<Vec<Content>> {
        let chunk = self.geometry.chunk_sectors();
        let from = self.geometry.strip_start(stripe).0 - start;
        let strips = reads.iter().map(|read| {
            let read = read.as_ref()?;
            Some(read.slice(self.tagging, &(from..from + chunk)))
        });
        self.complete(&self.equations(stripe), &(0..chunk), strips.collect())
    }

    /// Fills what can be believed of one stripe, block by block. Called under its lock.
    async fn fill_stripe(&self, stripe: u64) -> IoResult {
        let chunk = self.geometry.chunk_sectors();
        let mut columns = self.load(stripe, 0..chunk, false).await?;
        for index in 0..columns.height() {
            self.settle_row(&mut columns, index, Healing::Write, true).await;
        }
        let gone = |block: &Block| *block == Block::Damaged(IoErrorKind::Unavailable);
        if columns.strips.iter().any(|strip| strip.blocks.iter().any(gone)) {
            // All that it had would be lost to this member for good.
            return Err(IoErrorKind::Unavailable.at(self.geometry.strip_start(stripe)));
        }
        for member in self.array.lacking(&self.strips_of(&(stripe..stripe + 1))) {
            let slot = member.slot();
            for index in 0..columns.height() {
                let rows = self.absolute(stripe, &columns.rows_of(index));
                if member.holds(&rows) {
                    continue;
                }
                if columns.state(slot, index).is_known() {
                    let content = columns.content(slot, index);
                    self.fill_member(&member, rows, content).await?;
                } else {
                    self.give_up(&member, rows).await;
                }
            }
        }
        Ok(())
    }

    /// Goes on without `rows` of `member`, which nobody can give it.
    async fn give_up(&self, member: &Member, rows: Range<u64>) {
        if self.told.first_time(member.slot(), Sector(rows.start)) {
            let place = member.place(Sector(rows.start));
            let detail = "redundancy cannot give it back, it is not rebuilt".to_owned();
            member.events().emit_detail(EventKind::Lost, place, rows.end - rows.start, detail);
        }
        member.give_up(rows).await;
    }

    /// Writes what belongs on `member`, which lacks it. One that cannot take it is failed.
    async fn fill_member(
        &self,
        member: &Rc<Member>,
        rows: Range<u64>,
        Content { data, tags }: Content,
    ) -> IoResult {
        let mut bio = Bio::write(Sector(rows.start), data).tagged(tags);
        match submit(member.data(), &mut bio).await {
            Ok(()) => member.set_filled(rows),
            Err(error) if is_loss(error.kind) => self.array.fail(member, error).await?,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
