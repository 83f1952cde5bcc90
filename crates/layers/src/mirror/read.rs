//! Reading from one member, and from the others where that one is damaged.

use super::Inner;
use super::placement::Site;
use crate::array::checks::{COPY, GIVEN};
use crate::array::{Member, Tagging};
use bio::{Bio, Buf, Extent, IoError, IoErrorKind, IoResult, Segments};
use std::rc::Rc;
use units::Sector;

/// What one member holds of a run.
pub(super) struct Copy {
    pub(super) site: Site,
    /// First sector of the run.
    sector: Sector,
    pub(super) tagging: Tagging,
    /// The run, interleaved with its tags; unspecified where it is damaged.
    pub(super) bytes: Buf,
    /// Damaged runs of blocks, in order, and what the member said of the first block of each.
    pub(super) damaged: Vec<(Extent, IoErrorKind)>,
}

impl Copy {
    /// What it has of `extent`, which lies within, interleaved.
    pub(super) fn piece(&self, extent: Extent) -> &[u8] {
        let at = self.tagging.interleaved_bytes(extent.sector - self.sector);
        &self.bytes.as_slice()[at..at + self.tagging.interleaved_bytes(extent.sectors)]
    }

    /// Puts `bytes`, interleaved, at `sector`, which lies within.
    pub(super) fn put(&mut self, sector: Sector, bytes: &[u8]) {
        let at = self.tagging.interleaved_bytes(sector - self.sector);
        self.bytes.as_mut_slice()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Whether the block at `sector` is damaged.
    pub(super) fn damaged_at(&self, sector: Sector) -> bool {
        let mut runs = self.damaged.iter();
        runs.any(|(run, _)| run.sector <= sector && sector < run.sector + run.sectors)
    }
}

impl Inner {
    /// Reads what lies in one run.
    pub(super) async fn read(&self, bio: &mut Bio) -> IoResult {
        bio.reason = GIVEN;
        // Whether a block could be checked is in its tags.
        let asked = self.tagging.profile().is_none() || !bio.tags.is_empty();
        if !asked {
            bio.tags = self.tagging.alloc(bio.sectors());
        }
        let result = self.read_run(bio).await;
        if !asked {
            bio.tags = Segments::default();
        }
        result
    }

    async fn read_run(&self, bio: &mut Bio) -> IoResult {
        self.settle_for_reader(Extent { sector: bio.sector, sectors: bio.sectors() }).await;
        loop {
            let run = Extent { sector: bio.sector, sectors: bio.sectors() };
            if self.sites(run).is_empty() && !self.targets(run).is_empty() {
                return self.read_pieces(bio).await;
            }
            let site = self.pick(bio)?;
            let head = &self.heads[site.member.slot()];
            head.next.set(site.own(bio.end()).0);
            head.in_flight.set(head.in_flight.get() + 1);
            let result = site.submit(bio).await;
            head.in_flight.set(head.in_flight.get() - 1);
            match result {
                Err(error) if error.kind.is_damage() => {
                    if self.read_around(bio, &site).await? {
                        self.weigh(bio, &site).await;
                        return Ok(());
                    }
                }
                Err(error) if error.kind == IoErrorKind::Unavailable => {
                    self.give_up(&site.member, error).await?;
                }
                Ok(()) => {
                    self.weigh(bio, &site).await;
                    return Ok(());
                }
                settled => return settled,
            }
        }
    }

    /// The copy to ask for: where copies may differ always the first, else the one that continues
    /// where it stopped unless it is much busier, else the least busy.
    fn pick(&self, bio: &Bio) -> IoResult<Site> {
        let run = Extent { sector: bio.sector, sectors: bio.sectors() };
        let mut sites = self.sites(run).into_iter();
        let chosen = if self.array.in_sync(&(bio.sector.0..bio.end().0)) {
            sites.min_by_key(|site| {
                let head = &self.heads[site.member.slot()];
                let seek = if head.next.get() == site.own(bio.sector).0 { 0 } else { SEEK };
                (head.write_mostly, head.in_flight.get() + seek)
            })
        } else {
            sites.next()
        };
        chosen.ok_or(IoErrorKind::Unavailable.at(bio.sector))
    }

    /// Reads on without a member that no longer answers.
    ///
    /// # Errors
    /// `error` if it is the last.
    pub(super) async fn give_up(&self, member: &Rc<Member>, error: IoError) -> IoResult {
        let recorded = self.array.fail(member, error).await;
        // Reading goes on even if it could not be recorded; writing has ended then.
        if member.failed() { Ok(()) } else { recorded.and(Err(error)) }
    }

    /// Fills `bio` from `site` and, where that is damaged, from the others; false: the member went
    /// away meanwhile.
    async fn read_around(&self, bio: &mut Bio, site: &Site) -> IoResult<bool> {
        let mut copy = match self.copy_of(site, bio.sector, bio.sectors(), bio.bypass).await {
            Err(error) if error.kind == IoErrorKind::Unavailable => {
                self.give_up(&site.member, error).await?;
                return Ok(false);
            }
            other => other?,
        };
        for (extent, kind) in std::mem::take(&mut copy.damaged) {
            let healed = self.heal(site, extent, kind).await?;
            copy.put(extent.sector, healed.as_slice());
        }
        self.tagging.fill(bio, bio.sector, &copy.bytes);
        Ok(true)
    }

    /// All that `site` holds of a range: read whole, and where that fails in ever smaller parts.
    ///
    /// # Errors
    /// What the member said, unless it was about the bytes.
    pub(super) async fn copy_of(
        &self,
        site: &Site,
        sector: Sector,
        sectors: u64,
        bypass: bool,
    ) -> IoResult<Copy> {
        let block = self.block().sectors();
        let (tagging, site) = (self.tagging, site.clone());
        let bytes = Buf::alloc(0);
        let mut copy = Copy { site, sector, tagging, bytes, damaged: Vec::new() };
        let mut parts = vec![Extent { sector, sectors }];
        while let Some(part) = parts.pop() {
            let mut bio = tagging.read(part.sector, part.sectors).because(COPY);
            bio.bypass = bypass;
            let read = copy.site.submit(&mut bio).await;
            if read.is_err() && copy.bytes.is_empty() {
                copy.bytes = Buf::alloc(tagging.interleaved_bytes(sectors));
            }
            match read {
                // The usual case, in which nothing is copied.
                Ok(()) if copy.bytes.is_empty() => copy.bytes = tagging.taken(bio),
                Ok(()) => copy.put(part.sector, tagging.taken(bio).as_slice()),
                Err(error) if !error.kind.is_damage() => return Err(error),
                Err(_) if part.sectors > block => {
                    // Later parts first, so that the earlier is popped next.
                    let half = (part.sectors / 2).next_multiple_of(block);
                    let (sector, sectors) = (part.sector + half, part.sectors - half);
                    parts.push(Extent { sector, sectors });
                    parts.push(Extent { sector: part.sector, sectors: half });
                }
                Err(error) => match copy.damaged.last_mut() {
                    Some((run, _)) if run.sector + run.sectors == part.sector => {
                        run.sectors += part.sectors;
                    }
                    _ => copy.damaged.push((part, error.kind)),
                },
            }
        }
        Ok(copy)
    }
}

/// What jumping elsewhere costs a member, in requests that it could have served instead.
const SEEK: usize = 4;
