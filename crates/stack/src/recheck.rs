//! Is what was once found damaged damaged still? Read from the medium, on the very member: a block
//! that was written anew verifies again, whoever wrote it.

use crate::superblocks;
use crate::verified::verified;
use crate::volume::{MemberPart, MemberState, Volume};
use bio::{Bio, Device, Events, Extent, ScrubMode};
use std::rc::Rc;

/// A place that was found damaged once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Suspect {
    /// The member's lasting identity, see [`Volume::device_identity`]; none: the volume.
    pub device: Option<String>,
    /// Its superblock is meant, whatever `extent` says.
    pub superblock: bool,
    /// The sectors, as events of that member (or of the volume) count them.
    pub extent: Extent,
}

/// The longest place that is read again: 4 MiB. Events concern blocks or runs of a few.
const SECTORS_MAX: u64 = 8192;
const PIECE_SECTORS: u64 = 2048;

impl Volume {
    /// For each of `suspects`, whether it can now be read, and verified where there are tags.
    /// False too if nobody can tell: the member is not there, the place makes no sense.
    ///
    /// Writes are seen once they are flushed.
    pub async fn recheck(&self, suspects: &[Suspect]) -> Vec<bool> {
        let mut damaged = None;
        if suspects.iter().any(|suspect| suspect.superblock) {
            let findings = superblocks::scrub(self, ScrubMode::Check).await;
            let members = findings.found.into_iter().filter_map(|(_, member, _)| member);
            damaged = Some(members.collect::<Vec<Rc<str>>>());
        }
        let mut fine = Vec::new();
        for Suspect { device, superblock, extent } in suspects {
            let part = device.as_ref().and_then(|device| self.part_of(device));
            fine.push(match (device, part) {
                (None, _) => reads(&self.device(), *extent).await,
                (Some(_), None) => false,
                (Some(_), Some(part)) if *superblock => {
                    damaged.as_ref().is_some_and(|damaged| !damaged.contains(&part.name))
                }
                (Some(_), Some(part)) => match &part.integrity {
                    Some(integrity) => {
                        let device = verified(integrity.volume.device(), &Events::none());
                        reads(&device, *extent).await
                    }
                    None => reads(&part.leaf, *extent).await,
                },
            });
        }
        fine
    }

    fn part_of(&self, device: &str) -> Option<Rc<MemberPart>> {
        let here = |part: &MemberPart| matches!(self.place_of(part), (_, MemberState::InSync));
        let mut parts = self.parts().into_iter();
        parts.find(|part| here(part) && self.identity_of(part) == device)
    }
}

async fn reads(device: &Device, extent: Extent) -> bool {
    if extent.sectors == 0 || extent.sectors > SECTORS_MAX {
        return false;
    }
    let mut done = 0;
    while done < extent.sectors {
        let sectors = PIECE_SECTORS.min(extent.sectors - done);
        let Some(sector) = extent.sector.0.checked_add(done) else { return false };
        if sector.checked_add(sectors).is_none_or(|end| end > device.limits().sectors) {
            return false;
        }
        let mut bio = Bio::read(units::Sector(sector), sectors).bypassing();
        if device.submit(&mut bio).await.is_err() {
            return false;
        }
        done += sectors;
    }
    true
}
