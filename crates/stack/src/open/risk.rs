//! What an array that is both dirty and degraded cannot be believed about.

use crate::probe::Probed;
use layers::array::believed;
use md::ppl::Plan;
use md::shape::Shape;
use md::superblock::{ResyncOffset, Superblock};
use std::fmt;
use std::ops::Range;

/// Which part of an array was being written when it stopped, as far as that is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AtRisk {
    /// Any of it: there is no bitmap, or none that is believed.
    Unknown,
    /// These member data sectors, as the write-intent bitmap or the partial parity log says.
    Sectors {
        /// In order; of the array for RAID 10.
        sectors: Vec<Range<u64>>,
        /// Sectors of a chunk, by which stripes are counted; 0: there are no chunks.
        chunk_sectors: u64,
    },
}

impl AtRisk {
    /// Of the array of which `members[newest]` speaks, from what `in_sync` members (slot, member) say.
    pub(super) fn of(
        members: &[Probed],
        newest: usize,
        in_sync: &[(usize, usize)],
        resync: ResyncOffset,
    ) -> Self {
        let Some(freshest) = members[newest].md() else { return Self::Unknown };
        if freshest.ppl().is_some() {
            return Self::by_partial_parity(members, freshest, in_sync);
        }
        let found = in_sync.iter().filter_map(|&(_, index)| members[index].logs.bitmap.as_ref());
        let Ok(Some(bitmap)) = believed(freshest, found) else { return Self::Unknown };
        let from = match resync {
            ResyncOffset::Clean => u64::MAX,
            ResyncOffset::Below(sector) => sector.0,
        };
        let sectors = bitmap.dirty_sectors().map(|run| run.start.max(from)..run.end);
        let sectors = sectors.filter(|run| !run.is_empty()).take(RUNS_MAX + 1).collect();
        Self::Sectors { sectors, chunk_sectors: chunk(freshest) }
    }

    /// What of a RAID 5 with a partial parity log is lost: a missing strip that was being written together
    /// with others.
    fn by_partial_parity(
        members: &[Probed],
        freshest: &Superblock,
        in_sync: &[(usize, usize)],
    ) -> Self {
        let Ok(Shape::Parity(geometry, size)) = freshest.shape(&[]) else { return Self::Unknown };
        let devices = in_sync.iter().filter_map(|&(_, index)| members[index].inner());
        let block = devices.map(|device| device.limits().logical_block.sectors()).max();
        let logs = in_sync.iter().map(|&(slot, index)| {
            let log = members[index].logs.ppl.as_ref();
            (slot, log.and_then(|log| log.as_ref().ok()))
        });
        let Ok(plan) = Plan::new(&geometry, size, block.unwrap_or(1), logs) else {
            return Self::Unknown;
        };
        let has = |slot: usize| in_sync.iter().any(|&(held, _)| held == slot);
        let sectors = plan.lost(&geometry, has).take(RUNS_MAX + 1).collect();
        Self::Sectors { sectors, chunk_sectors: chunk(freshest) }
    }

    /// Whether it is known that nothing is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Sectors { sectors, .. } if sectors.is_empty())
    }
}

fn chunk(superblock: &Superblock) -> u64 {
    if superblock.level().has_parity() { superblock.chunk_sectors().into() } else { 0 }
}

impl fmt::Display for AtRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Sectors { sectors, chunk_sectors } = self else {
            return f.write_str("unknown, so all of it");
        };
        let what = if *chunk_sectors > 0 { "stripes" } else { "sectors" };
        write!(f, "{what} ")?;
        let unit = (*chunk_sectors).max(1);
        for (index, run) in sectors.iter().take(RUNS_MAX).enumerate() {
            let (first, last) = (run.start / unit, (run.end - 1) / unit);
            write!(f, "{}{first}-{last}", if index > 0 { ", " } else { "" })?;
        }
        if sectors.len() > RUNS_MAX {
            f.write_str(" and more")?;
        }
        if *chunk_sectors > 0 {
            let (first, last) = (sectors.first(), sectors.last());
            let first = first.map_or(0, |run| run.start);
            let last = last.map_or(0, |run| run.end.saturating_sub(1));
            write!(f, " (within member data sectors {first}-{last})")?;
        }
        Ok(())
    }
}

/// Runs that are named one by one.
const RUNS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_at_risk_is_told_in_stripes_or_sectors() {
        let of = |sectors, chunk_sectors| AtRisk::Sectors { sectors, chunk_sectors }.to_string();
        assert_eq!(
            of(vec![0..256, 512..520], 128),
            "stripes 0-1, 4-4 (within member data sectors 0-519)"
        );
        assert_eq!(of(vec![8..16], 0), "sectors 8-15");
        assert_eq!(of((0..70).map(|n| n * 2..n * 2 + 1).collect(), 0).matches(", ").count(), 63);
        assert_eq!(AtRisk::Unknown.to_string(), "unknown, so all of it");
        assert!(AtRisk::Sectors { sectors: vec![], chunk_sectors: 8 }.is_none());
        assert!(!AtRisk::Unknown.is_none());
    }
}
