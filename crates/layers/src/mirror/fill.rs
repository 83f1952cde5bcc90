//! Giving members what they lack: the copy that readers are given, healed where it is damaged; and
//! reading where nobody holds all that is asked for.
//!
//! A block that no copy has is recorded as bad, or stays a hole. No write intent is needed: nothing that
//! anybody is given changes. What a crash leaves is in the header of [`crate::array::rebuild`].

use super::Inner;
use super::placement::Placement;
use super::resync::blocks;
use crate::array::rebuild::{Filler, STEPS_MIN};
use crate::array::{Array, RangeSet};
use bio::{Bio, Buf, EventKind, Extent, IoErrorKind, IoResult};
use runtime::join_all;
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

impl Filler for Inner {
    fn array(&self) -> &Rc<Array> {
        &self.array
    }

    fn member_sectors(&self) -> u64 {
        let sizes = self.array.members().map(|member| member.data().limits().sectors);
        match &self.placement {
            Placement::Everywhere => self.limits.sectors,
            Placement::Dealt(_) => sizes.max().unwrap_or(0),
        }
    }

    fn window_sectors(&self) -> u64 {
        let unit = match &self.placement {
            Placement::Everywhere => self.block().sectors(),
            Placement::Dealt(mirrors) => mirrors.chunk_sectors(),
        };
        (self.window_sectors.min(self.member_sectors() / STEPS_MIN) / unit).max(1) * unit
    }

    fn is_busy(&self) -> bool {
        self.array.in_flight() > 0
    }

    fn is_closing(&self) -> bool {
        self.stop.get()
    }

    async fn fill(&self, sectors: Range<u64>) -> IoResult {
        let block = self.block().sectors();
        let whole = sectors.start / block * block..sectors.end.next_multiple_of(block);
        for member in self.array.lacking(&whole) {
            let parts = self.parts_of(member.slot(), whole.clone());
            let filled = parts.into_iter().map(|(own, run)| {
                let member = &member;
                async move {
                    match run {
                        Some(run) if !member.holds(&own) => self.fill_run(run).await,
                        Some(_) => Ok(()),
                        None => {
                            member.set_filled(own);
                            Ok(())
                        }
                    }
                }
            });
            join_all(filled).await.into_iter().collect::<IoResult>()?;
        }
        Ok(())
    }

    fn filled(self: &Rc<Self>) {
        Self::start_resync(self);
    }
}

impl Inner {
    /// Reads what nobody holds all of, block by block.
    ///
    /// # Errors
    /// `Protection` at the first block that nobody holds; else what reading it says.
    pub(super) async fn read_pieces(&self, bio: &mut Bio) -> IoResult {
        let window = Extent { sector: bio.sector, sectors: bio.sectors() };
        let mut outcome = Ok(());
        for one in blocks(window, self.block().sectors()) {
            if self.sites(one).is_empty() {
                outcome = outcome.and(Err(IoErrorKind::Protection.at(one.sector)));
                continue;
            }
            let mut part = self.tagging.read(one.sector, one.sectors);
            part.bypass = bio.bypass;
            match Box::pin(self.read(&mut part)).await {
                Ok(()) => self.tagging.fill(bio, one.sector, &self.tagging.taken(part)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Fills a run of whole blocks on every member that lacks it.
    async fn fill_run(&self, run: Extent) -> IoResult {
        let _lock = self.ranges.lock(run.sector.0..run.sector.0 + run.sectors).await;
        if !self.sites(run).is_empty() {
            return self.fill_from_reference(run).await;
        }
        // Nobody has all of it; somebody may have a part.
        for one in blocks(run, self.block().sectors()) {
            if !self.sites(one).is_empty() {
                self.fill_from_reference(one).await?;
            }
        }
        Ok(())
    }

    async fn fill_from_reference(&self, run: Extent) -> IoResult {
        let range = run.sector.0..run.sector.0 + run.sectors;
        if !self.array.in_sync(&range) && self.sites(run).len() > 1 {
            // Else two members could be given different copies of an unfinished write.
            self.agree(run).await?;
            self.array.set_in_sync(range.clone());
        }
        let (first, lost) = self.reference(run).await?;
        let mut known = RangeSet::default();
        known.insert(range);
        lost.iter().for_each(|one| known.remove(one.sector.0..one.sector.0 + one.sectors));
        for target in self.targets(run).into_iter().filter(|target| !target.holds(run)) {
            for part in known.iter() {
                let extent = Extent { sector: Sector(part.start), sectors: part.end - part.start };
                let bytes = Buf::copy_of(first.piece(extent));
                match target.submit(&mut self.tagging.write(extent.sector, &bytes)).await {
                    Ok(()) => target.set_filled(extent),
                    Err(error) if error.kind == IoErrorKind::NoSpace => return Err(error),
                    Err(error) => {
                        self.array.fail(&target.member, error).await?;
                        break;
                    }
                }
            }
            for one in lost.iter().filter(|_| !target.member.failed()) {
                if self.tell_once(target.member.slot(), one.sector) {
                    let place = target.place(one.sector);
                    let detail = "no copy can give it back, it is not rebuilt".to_owned();
                    let events = target.member.events();
                    events.emit_detail(EventKind::Lost, place, one.sectors, detail);
                }
                target.member.give_up(target.on_member(one.sector, one.sectors)).await;
            }
        }
        Ok(())
    }
}
