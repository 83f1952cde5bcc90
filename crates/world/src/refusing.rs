//! A disk that refuses so many sectors that its bad block log has two blocks, and takes them later; and the
//! power cut while the log becomes longer, and shorter. And one that refuses more than its log has room for.
//!
//! What is demanded: whatever the cut left, what the disk did not take it does not give out, even if nobody
//! else is there to ask; and once there is no room to say so, it is not asked any more while the others are.

use crate::explore::{closed, cut, fresh, schedule};
use crate::history::{Life, Step};
use crate::machine::{Outcome, Point, Start, Watch, live};
use crate::power::survivals;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::violation::Violation;

/// Lets a member of `scenario`, which is a RAID 1 of plain members with logs, refuse writes, and judges what
/// every power cut leaves. How many were judged.
///
/// # Errors
/// The first violation.
pub fn refuse(scenario: &Scenario, seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::derived(seed, 11);
    let disk = rng.index(scenario.members);
    // Sectors that do not touch: each is an entry of its own.
    let blocks: Vec<u64> = (0..ENTRIES).map(|entry| entry * 2).collect();
    let start = scenario.damageable.start;
    let refused =
        blocks.iter().map(|block| Step::Refuse { disk, sector: start + block, sectors: 1 });
    let write = |&block: &u64| Step::Write { block, blocks: 1, fua: true };
    let refusing =
        Life { steps: refused.chain(blocks.iter().map(write)).collect(), ..Life::idle() };
    let again = &blocks[..1 + rng.index(blocks.len() / 2)];
    let mut steps = vec![Step::Accept { disk }];
    steps.extend(again.iter().map(write).chain([Step::Wait(IDLE), Step::Settle]));
    let taking = Life { steps, ..Life::idle() };
    let judge = Judge { scenario, seed, disk };
    let first = judge.live(fresh(scenario, seed), &refusing, 0, Watch::All)?;
    let points: Vec<&Point> = (0..POINTS).map(|_| rng.pick(&first.points)).collect();
    let mut cuts = judge.look(&mut rng, points)?;
    let second = judge.live(closed(&first.end), &taking, 1, Watch::All)?;
    // The log is written when everything else is.
    let end = second.points.len();
    cuts += judge.look(&mut rng, second.points[end.saturating_sub(LAST)..].iter())?;
    Ok(cuts)
}

/// Lets a member of `scenario`, a RAID 1 whose bad block logs have room for `room` entries, refuse more than
/// that, and judges what power cuts leave, with that member and without it. How many were judged.
///
/// # Errors
/// The first violation.
pub fn overflow(scenario: &Scenario, room: u64, seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::derived(seed, 13);
    let disk = rng.index(scenario.members);
    let (start, blocks) = (scenario.damageable.start, (0..room + BEYOND).map(|entry| entry * 2));
    let refused = |block| Step::Refuse { disk, sector: start + block, sectors: 1 };
    let write = |block| Step::Write { block, blocks: 1, fua: true };
    let steps =
        blocks.clone().map(refused).chain(blocks.flat_map(|block| [write(block), Step::Settle]));
    let judge = Judge { scenario, seed, disk };
    let refusing = Life { steps: steps.collect(), ..Life::idle() };
    let first = judge.live(fresh(scenario, seed), &refusing, 0, Watch::All)?;
    // The log is full when nearly all is written.
    let late = &first.points[first.points.len() / 2..];
    let reads = (0..(room + BEYOND) * 2).step_by(16).map(|block| Step::Read { block, blocks: 16 });
    let look = Life { steps: reads.collect(), ..Life::idle() };
    let mut cuts = 0;
    for _ in 0..POINTS * 2 {
        let point = rng.pick(late);
        for survival in survivals(&point.disks, WAYS, &mut rng) {
            for missing in [Vec::new(), vec![disk]] {
                let look = Life { missing, ..look.clone() };
                judge.live(cut(point, survival), &look, 1, Watch::Nothing)?;
                cuts += 1;
            }
        }
    }
    Ok(cuts)
}

struct Judge<'a> {
    scenario: &'a Scenario,
    seed: u64,
    /// The one that refuses.
    disk: usize,
}

impl Judge<'_> {
    /// Cuts the power at these points, and asks that disk alone.
    fn look<'p>(
        &self,
        rng: &mut Rng,
        points: impl IntoIterator<Item = &'p Point>,
    ) -> Result<u64, Violation> {
        let missing = (0..self.scenario.members).filter(|&other| other != self.disk).collect();
        let steps = (0..ENTRIES * 2).step_by(16).map(|block| Step::Read { block, blocks: 16 });
        let look = Life { missing, steps: steps.collect(), ..Life::idle() };
        let mut cuts = 0;
        for point in points {
            for survival in survivals(&point.disks, WAYS, rng) {
                cuts += 1;
                self.live(cut(point, survival), &look, 2, Watch::Nothing)?;
            }
        }
        Ok(cuts)
    }

    fn live(
        &self,
        start: Start,
        life: &Life,
        number: usize,
        watch: Watch,
    ) -> Result<Outcome, Violation> {
        live(self.scenario, start, life, false, schedule(self.seed, number), watch).sound()
    }
}

/// Entries of the log: more than fit into one of its blocks.
const ENTRIES: u64 = 80;
/// Refused sectors for which a log has no room.
const BEYOND: u64 = 6;
/// Microseconds after which an array is clean.
const IDLE: u64 = 2_000_000;
/// Boundaries that are cut while the log grows, and at the end while it shrinks; and ways each is.
const POINTS: usize = 12;
const LAST: usize = 40;
const WAYS: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{crowded, returning};

    #[test]
    fn a_member_whose_log_is_full_gives_out_nothing_old_whatever_a_power_cut_left() {
        let (scenarios, room) = crowded();
        for scenario in &scenarios {
            for seed in 1..=4 {
                let cuts = overflow(scenario, room, seed);
                assert!(matches!(cuts, Ok(cuts) if cuts > 60), "{seed}: {cuts:?}");
            }
        }
    }

    #[test]
    fn every_power_cut_while_a_log_changes_leaves_what_is_bad_recorded() {
        let scenario = &returning()[0];
        for seed in 1..=4 {
            let cuts = refuse(scenario, seed);
            assert!(matches!(cuts, Ok(cuts) if cuts > 60), "{seed}: {cuts:?}");
        }
    }
}
