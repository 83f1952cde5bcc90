//! Reading every copy of everything, past every cache, and comparing.

use super::heal::{Evidence, vouches};
use super::placement::Site;
use super::read::Copy;
use super::resync::{blocks, tell_resynced};
use super::unchecked::Best;
use super::{Inner, Mirror};
use crate::array::ordering::AGREED;
use bio::{Buf, EventKind, Extent, Finding, Findings, IoErrorKind, LocalFuture, Scrub, ScrubMode};
use std::rc::Rc;
use units::Sector;

impl Scrub for Mirror {
    fn steps(&self) -> u64 {
        self.inner.limits.sectors.div_ceil(self.inner.window_sectors)
    }

    fn step_extent(&self, step: u64) -> Extent {
        let (end, window) = (self.inner.limits.sectors, self.inner.window_sectors);
        let sector = step.saturating_mul(window).min(end);
        Extent { sector: Sector(sector), sectors: window.min(end - sector) }
    }

    fn scrub(&self, step: u64, mode: ScrubMode) -> LocalFuture<'_, Findings> {
        let window = self.step_extent(step);
        let mode = if self.inner.limits.read_only { ScrubMode::Check } else { mode };
        Box::pin(self.inner.scrub(window, mode))
    }
}

impl Inner {
    async fn scrub(&self, window: Extent, mode: ScrubMode) -> Findings {
        let mut findings = Findings::default();
        if window.sectors == 0 {
            return findings;
        }
        let _lock = self.ranges.lock(window.sector.0..window.sector.0 + window.sectors).await;
        let runs = self.runs(window).map(|run| self.scrub_run(run, mode));
        for found in runtime::join_all(runs).await {
            findings.merge(found);
        }
        findings
    }

    /// Under the range's lock.
    async fn scrub_run(&self, window: Extent, mode: ScrubMode) -> Findings {
        let mut findings = Findings::default();
        let copies = self.copies(window, &mut findings).await;
        // What is damaged everywhere, before anything is rewritten.
        let lost = self.lost_runs(&copies);
        for run in &lost {
            self.scrub_lost(&copies, *run, mode, &mut findings).await;
        }
        for index in 0..copies.len() {
            self.scrub_damage(&copies, index, &lost, mode, &mut findings).await;
        }
        self.scrub_differences(&copies, &lost, (window, mode), &mut findings).await;
        findings
    }

    /// Every copy of the run.
    async fn copies(&self, window: Extent, findings: &mut Findings) -> Vec<Copy> {
        let sites = self.sites(window).into_iter().map(|site| async move {
            let copy = self.copy_of(&site, window.sector, window.sectors, true).await;
            (site, copy)
        });
        let mut copies = Vec::new();
        for (site, copy) in runtime::join_all(sites).await {
            match copy {
                Ok(copy) => {
                    findings.checked_sectors += window.sectors;
                    copies.push(copy);
                }
                Err(error) if error.kind == IoErrorKind::Unavailable => {
                    // The last one stays, and has nothing to say here.
                    let _ = self.give_up(&site.member, error).await;
                }
                Err(error) => {
                    let place = site.place(error.sector.max(window.sector));
                    site.member.events().emit_detail(EventKind::Note, place, 0, error.to_string());
                }
            }
        }
        copies
    }

    /// Blocks that every copy has damaged.
    fn lost_runs(&self, copies: &[Copy]) -> Vec<Extent> {
        let block = self.block().sectors();
        let Some((first, others)) = copies.split_first() else { return Vec::new() };
        let runs = first.damaged.iter().flat_map(|(run, _)| blocks(*run, block));
        runs.filter(|one| others.iter().all(|copy| copy.damaged_at(one.sector))).collect()
    }

    /// A block that every copy has damaged: put together, or lost.
    async fn scrub_lost(
        &self,
        copies: &[Copy],
        one: Extent,
        mode: ScrubMode,
        findings: &mut Findings,
    ) {
        let Some(bytes) = self.crossed(one).await else {
            self.lost(one);
            findings.found.push((Finding::Unreadable, None, one));
            return;
        };
        for Copy { site, .. } in copies {
            let finding =
                written(mode != ScrubMode::Check && self.heal_one_crossed(site, one, &bytes).await);
            findings.push(finding, Some(Rc::clone(site.member.name())), place(site, one));
        }
    }

    /// Heals, or lists, what is damaged in copy `index`.
    async fn scrub_damage(
        &self,
        copies: &[Copy],
        index: usize,
        lost: &[Extent],
        mode: ScrubMode,
        findings: &mut Findings,
    ) {
        let block = self.block().sectors();
        let copy = &copies[index];
        let runs = copy.damaged.iter().flat_map(|(run, _)| blocks(*run, block));
        for one in runs.filter(|one| !lost.contains(one)) {
            let finding = match mode {
                ScrubMode::Check => Finding::Healable,
                ScrubMode::Repair | ScrubMode::Decide(_) => {
                    self.scrub_heal(copies, &copy.site, one).await
                }
            };
            let name = Rc::clone(copy.site.member.name());
            findings.found.push((finding, Some(name), place(&copy.site, one)));
        }
    }

    /// Rewrites one damaged block with the best copy of the same reading.
    async fn scrub_heal(&self, copies: &[Copy], site: &Site, one: Extent) -> Finding {
        let (mut best, mut proof) = (Best::default(), None);
        for copy in copies.iter().filter(|copy| !copy.damaged_at(one.sector)) {
            let bytes = Buf::copy_of(copy.piece(one));
            if vouches(site, one.sector, &bytes).await {
                proof = Some(Evidence { bytes, vouched: true });
                break;
            }
            best.offer(copy.is_checked(one), bytes);
        }
        let unproven = || best.taken(self).map(|bytes| Evidence { bytes, vouched: false });
        let Some(found) = proof.or_else(unproven) else { return Finding::Unreadable };
        written(self.write_back(site, one, &found).await)
    }

    /// Heals, or lists, copies without tags that differ from those that were checked. Whether that is all
    /// there is to be said of the block.
    async fn scrub_unchecked(
        &self,
        copies: &[Copy],
        one: Extent,
        mode: ScrubMode,
        findings: &mut Findings,
    ) -> bool {
        let Some((right, wrong)) = Self::by_tags(copies, one) else { return false };
        let bytes = Buf::copy_of(copies[right].piece(one));
        for Copy { site, .. } in wrong.into_iter().map(|index| &copies[index]) {
            let found = Evidence { bytes: bytes.clone(), vouched: false };
            let finding =
                written(mode != ScrubMode::Check && self.write_back(site, one, &found).await);
            findings.push(finding, Some(Rc::clone(site.member.name())), place(site, one));
        }
        true
    }

    /// Lists copies that are all readable and differ; where the array is not in sync, makes them
    /// agree.
    async fn scrub_differences(
        &self,
        copies: &[Copy],
        lost: &[Extent],
        (window, mode): (Extent, ScrubMode),
        findings: &mut Findings,
    ) {
        let block = self.block().sectors();
        let mut inconsistent: Vec<(Extent, String)> = Vec::new();
        for one in blocks(window, block).filter(|one| !lost.contains(one)) {
            let mut whole = copies.iter().filter(|copy| !copy.damaged_at(one.sector));
            let Some(first) = whole.next() else { continue };
            let bytes = first.piece(one);
            let differing: Vec<&Copy> = whole.filter(|copy| copy.piece(one) != bytes).collect();
            if differing.is_empty() {
                continue;
            }
            if self.array.in_sync(&(one.sector.0..one.sector.0 + block)) {
                if self.scrub_unchecked(copies, one, mode, findings).await {
                    continue;
                }
                let whole = copies.iter().all(|copy| !copy.damaged_at(one.sector));
                let verdict = whole.then(|| Self::verdict(copies, one, mode)).flatten();
                let mut words = String::new();
                if let Some(verdict) = verdict {
                    if self.carry_out(copies, (one, &verdict), mode, findings).await {
                        continue;
                    }
                    words = Self::inference(copies, one, &verdict);
                }
                match inconsistent.last_mut() {
                    Some((run, of))
                        if run.sector + run.sectors == one.sector
                            && of.is_empty() == words.is_empty() =>
                    {
                        run.sectors += block;
                    }
                    _ => inconsistent.push((one, words)),
                }
                continue;
            }
            for copy in differing {
                let finding = match mode {
                    ScrubMode::Check => Finding::Healable,
                    ScrubMode::Repair | ScrubMode::Decide(_) => {
                        self.scrub_align(&copy.site, one, bytes).await
                    }
                };
                let name = Rc::clone(copy.site.member.name());
                findings.found.push((finding, Some(name), place(&copy.site, one)));
            }
        }
        if findings.found.iter().any(|(finding, ..)| *finding == Finding::Resynced) {
            // As in resync: what readers are given now is on every member, and stays there.
            if let Err(error) = self.array.flush(AGREED).await {
                let detail = format!("copies made to agree may not stay so: {error}");
                self.array.events().emit_detail(EventKind::Note, window.sector, 0, detail);
            }
        }
        for (run, words) in inconsistent {
            let (events, inferred) = (self.array.events(), !words.is_empty());
            events.emit_detail(EventKind::Inconsistent, run.sector, run.sectors, words);
            // What is inferred was listed with its members.
            if !inferred {
                findings.found.push((Finding::Inconsistent, None, run));
            }
        }
    }

    /// Gives a member the copy of an unfinished write that the first one has.
    async fn scrub_align(&self, site: &Site, one: Extent, bytes: &[u8]) -> Finding {
        match self.rewrite(site, one, &Buf::copy_of(bytes)).await {
            Ok(()) => {
                tell_resynced(site, one);
                Finding::Resynced
            }
            Err(_) => Finding::Healable,
        }
    }
}

/// An extent in the member's own sectors, as events name it.
pub(super) fn place(site: &Site, extent: Extent) -> Extent {
    Extent { sector: site.place(extent.sector), sectors: extent.sectors }
}

/// What became of a block that was written back, or could be.
const fn written(healed: bool) -> Finding {
    if healed { Finding::Healed } else { Finding::Healable }
}
