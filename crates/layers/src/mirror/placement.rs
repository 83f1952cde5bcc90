//! Where the copies of a run of the array lie, and how they are asked.

use super::Inner;
use crate::array::Member;
use bio::{Bio, Extent, IoResult};
use md::geometry::Mirrors;
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
        let sector = bio.sector;
        bio.sector = self.own(sector);
        let result = self.member.data().submit(bio).await;
        bio.sector = sector;
        result.map_err(|error| {
            let within = error.sector.0.saturating_sub(self.own.0);
            error.kind.at(self.array + within)
        })
    }

    /// Where the array's sector `sector` lies in the member's data.
    pub(super) fn own(&self, sector: Sector) -> Sector {
        self.own + (sector - self.array)
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
    /// The copies that are there of the run that begins at `sector`, in their order: the first is the
    /// one that is believed where they may differ.
    pub(super) fn sites(&self, sector: Sector) -> Vec<Site> {
        let site = |(slot, own): (usize, Sector)| {
            let member = Rc::clone(self.array.member(slot)?);
            Some(Site { member, array: sector, own })
        };
        match &self.placement {
            Placement::Everywhere => {
                (0..self.array.raid_disks()).filter_map(|slot| site((slot, sector))).collect()
            }
            Placement::Dealt(mirrors) => {
                let spots = (0..mirrors.copies()).map(|copy| mirrors.locate(sector, copy));
                spots.filter_map(|spot| site((spot.slot, spot.member_sector))).collect()
            }
        }
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
