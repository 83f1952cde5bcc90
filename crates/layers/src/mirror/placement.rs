//! Where the copies of a run of the array lie, and how they are asked.

use super::Inner;
use crate::array::{Member, submit_at};
use bio::{Bio, Extent, IoResult};
use md::geometry::Mirrors;
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

/// How copies are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Placement {
    /// RAID 1: sector n of the array is sector n of each member.
    Everywhere,
    /// RAID 10: each chunk on some of the members.
    Dealt(Mirrors),
}

/// A member's copy of a run of the array. Its addresses are the array's.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) member: Rc<Member>,
    /// The array's sector at which the run begins, and the member's.
    array: Sector,
    own: Sector,
}

impl Site {
    /// Does `bio` on the member. Errors come back in the array's addresses.
    pub(super) async fn submit(&self, bio: &mut Bio) -> IoResult {
        let at = self.own(bio.sector);
        submit_at(self.member.data(), bio, at).await
    }

    /// Where the array's sector `sector` lies in the member's data.
    pub(super) fn own(&self, sector: Sector) -> Sector {
        self.own + (sector - self.array)
    }

    /// The same for `sectors` sectors from there on.
    pub(super) fn on_member(&self, sector: Sector, sectors: u64) -> Range<u64> {
        let own = self.own(sector).0;
        own..own + sectors
    }

    /// Whether the member holds all of a run.
    pub(super) fn holds(&self, run: Extent) -> bool {
        self.member.holds(&self.range(run))
    }

    /// Says that the member was given all of a run.
    pub(super) fn set_filled(&self, run: Extent) {
        self.member.set_filled(self.range(run));
    }

    /// Says that what the member holds of a run is not to be believed.
    pub(super) fn set_lacking(&self, run: Extent) {
        self.member.set_lacking(self.range(run));
    }

    fn range(&self, run: Extent) -> Range<u64> {
        let start = self.own(run.sector).0;
        start..start + run.sectors
    }

    /// Where it lies on the whole member: the address for events.
    pub(super) fn place(&self, sector: Sector) -> Sector {
        self.member.place(self.own(sector))
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.member, &other.member)
    }
}

impl Inner {
    /// The copies that can be asked for of a run, in their order: the first is the one that is believed
    /// where they may differ.
    pub(super) fn sites(&self, run: Extent) -> Vec<Site> {
        let site = |(slot, own): (usize, Sector)| {
            let member = self.array.reader(slot, &(own.0..own.0 + run.sectors))?;
            Some(Site { member, array: run.sector, own })
        };
        self.spots(run.sector).into_iter().filter_map(site).collect()
    }

    /// Every place to which a run is to be written.
    pub(super) fn targets(&self, run: Extent) -> Vec<Site> {
        let sites = self.spots(run.sector).into_iter().flat_map(|(slot, own)| {
            let writers = self.array.writers(slot).into_iter();
            writers.map(move |member| Site { member, array: run.sector, own })
        });
        sites.collect()
    }

    /// Slot and member sector of every copy of `sector`.
    fn spots(&self, sector: Sector) -> Vec<(usize, Sector)> {
        match &self.placement {
            Placement::Everywhere => {
                (0..self.array.raid_disks()).map(|slot| (slot, sector)).collect()
            }
            Placement::Dealt(mirrors) => {
                let spots = (0..mirrors.copies()).map(|copy| mirrors.locate(sector, copy));
                spots.map(|spot| (spot.slot, spot.member_sector)).collect()
            }
        }
    }

    /// What belongs to `sectors` of the data of a member in `slot`: each part with the run of the array
    /// that it is a copy of; none: the array uses nothing of it.
    pub(super) fn parts_of(
        &self,
        slot: usize,
        sectors: Range<u64>,
    ) -> Vec<(Range<u64>, Option<Extent>)> {
        let Placement::Dealt(mirrors) = &self.placement else {
            let end = sectors.end.min(self.limits.sectors);
            let length = end.saturating_sub(sectors.start);
            let run = Extent { sector: Sector(sectors.start), sectors: length };
            return vec![(sectors, (length > 0).then_some(run))];
        };
        let chunk = mirrors.chunk_sectors();
        let (mut at, mut parts) = (sectors.start, Vec::new());
        while at < sectors.end {
            let end = ((at / chunk + 1) * chunk).min(sectors.end);
            let sector = mirrors.array_sector(slot, Sector(at));
            parts.push((at..end, sector.map(|sector| Extent { sector, sectors: end - at })));
            at = end;
        }
        parts
    }

    /// Sectors from `sector` on whose copies each lie in one run.
    pub(super) fn run_sectors(&self, sector: Sector) -> u64 {
        match &self.placement {
            Placement::Everywhere => self.limits.sectors - sector.0,
            Placement::Dealt(mirrors) => mirrors.run_sectors(sector),
        }
    }

    /// `extent` in parts whose copies each lie in one run.
    pub(super) fn runs(&self, extent: Extent) -> impl Iterator<Item = Extent> {
        let (mut at, end) = (extent.sector, extent.sector + extent.sectors);
        std::iter::from_fn(move || {
            let sectors = (end - at).min(if at < end { self.run_sectors(at) } else { 0 });
            let run = Extent { sector: at, sectors };
            at += sectors;
            (sectors > 0).then_some(run)
        })
    }
}
