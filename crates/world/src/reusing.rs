//! One write of an array whose partial parity logs hold records of a life before, cut at every boundary, and then
//! looked at without each of the members.
//!
//! The first record of a life may end where an older one begins, which is then taken for the last, if it was not
//! made sure that it is gone.

use crate::explore::{cut, fresh, schedule};
use crate::history::{Life, Step};
use crate::machine::{Watch, live};
use crate::power::survivals;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::violation::Violation;

/// Writes one block of `scenario`, and judges what every power cut leaves. How many were judged.
///
/// # Errors
/// The first violation.
pub fn reuse(scenario: &Scenario, seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::derived(seed, 12);
    let blocks = scenario.made().blocks;
    let write = Step::Write { block: rng.below(blocks), blocks: 1, fua: true };
    let life = Life { steps: vec![write, Step::Settle], ..Life::idle() };
    let all = || (0..blocks).step_by(32).map(|block| Step::Read { block, blocks: 32 });
    let start = fresh(scenario, seed);
    let first = live(scenario, start, &life, false, schedule(seed, 0), Watch::All).sound()?;
    let mut cuts = 0;
    for point in &first.points {
        for survival in survivals(&point.disks, WAYS, &mut rng) {
            for gone in 0..scenario.members {
                let look = Life { missing: vec![gone], steps: all().collect(), ..Life::idle() };
                let (start, schedule) = (cut(point, survival), schedule(seed, 1));
                live(scenario, start, &look, false, schedule, Watch::Nothing).sound()?;
                cuts += 1;
            }
        }
    }
    Ok(cuts)
}

/// Ways in which each boundary is cut.
const WAYS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::aged;

    #[test]
    fn records_of_a_life_before_are_not_taken_for_those_of_this_one() {
        for scenario in &aged() {
            for seed in 1..=6 {
                let cuts = reuse(scenario, seed);
                assert!(matches!(cuts, Ok(cuts) if cuts > 100), "{seed}: {cuts:?}");
            }
        }
    }
}
