//! Members that go, are rebuilt on a spare, or are replaced, while the array is used; and the power cut
//! at every boundary of that.
//!
//! What is demanded: whatever the cut left, everything that was there is read, while the rebuild goes
//! on and afterwards; and when it has come to its end, the new member is as good as the others, so
//! that as many of those may be away as the level allows.

use crate::explore::{closed, cut, fresh, schedule};
use crate::history::{Life, Step};
use crate::machine::{Outcome, Start, Watch, live};
use crate::power::survivals;
use crate::rng::Rng;
use crate::scenario::{Joining, Scenario};
use crate::violation::Violation;
use crate::workload::{Places, life};

/// Lets a member of `scenario`, which has a spare, be lost or replaced, and judges what every power cut
/// leaves. How many were judged.
///
/// # Errors
/// The first violation.
pub fn rebuild(scenario: &Scenario, seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::derived(seed, 9);
    let places = Places::draw(&mut rng, scenario.made().blocks);
    let mut rebuilding = Rebuilding {
        scenario,
        seed,
        places,
        members: scenario.members - 1,
        gone: rng.index(scenario.members - 1),
        replaced: rng.percent(40),
        cuts: 0,
    };
    let result = rebuilding.run(&mut rng);
    scenario.joining.set(Joining::Nobody);
    result.map(|()| rebuilding.cuts)
}

/// Lets a member of `scenario`, which has a bitmap and no spare, be away for a while and come back, and
/// judges what every power cut leaves. How many were judged.
///
/// # Errors
/// The first violation.
pub fn rejoin(scenario: &Scenario, seed: u64) -> Result<u64, Violation> {
    let mut rng = Rng::derived(seed, 10);
    let places = Places::draw(&mut rng, scenario.made().blocks);
    let (members, gone) = (scenario.members, rng.index(scenario.members));
    let mut away = Rebuilding { scenario, seed, places, members, gone, replaced: false, cuts: 0 };
    let result = away.rejoin(&mut rng);
    scenario.joining.set(Joining::Nobody);
    result.map(|()| away.cuts)
}

struct Rebuilding<'a> {
    scenario: &'a Scenario,
    seed: u64,
    places: Places,
    /// Without spares.
    members: usize,
    /// The member that is lost, or away.
    gone: usize,
    /// Nobody is lost: the first member is replaced.
    replaced: bool,
    cuts: u64,
}

impl Rebuilding<'_> {
    fn run(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let scenario = self.scenario;
        let mut first = life(rng, scenario, &self.places, 12);
        first.steps.insert(0, Step::Write { block: 0, blocks: 24, fua: false });
        let start = closed(&self.live(fresh(scenario, self.seed), &first, 0, Watch::Nothing)?.end);
        if self.replaced {
            scenario.joining.set(Joining::Replacement);
        }
        // Parity that was being written without a member is not believed after a cut: such an array is
        // not started, which is right and shows nothing.
        let is_spoiled = self.replaced && rng.percent(40);
        let is_written = (self.is_mirror() || self.replaced) && !is_spoiled;
        let second = self.used(rng, is_written, is_spoiled);
        let watch = Watch::Sample(POINTS, rng.next_u64());
        let outcome = self.live(start, &second, 1, watch)?;
        for point in outcome.points.iter().chain([&outcome.end]) {
            for survival in survivals(&point.disks, WAYS, rng) {
                self.cuts += 1;
                self.recovered(rng, cut(point, survival))?;
            }
        }
        Ok(())
    }

    /// Somebody is away while the array is written, comes back, and is given what it missed.
    fn rejoin(&mut self, rng: &mut Rng) -> Result<(), Violation> {
        let scenario = self.scenario;
        let mut first = life(rng, scenario, &self.places, 12);
        first.steps.insert(0, Step::Write { block: 0, blocks: 24, fua: false });
        let start = closed(&self.live(fresh(scenario, self.seed), &first, 0, Watch::Nothing)?.end);
        let mut second = life(rng, scenario, &self.places, 12);
        second.missing = vec![self.gone];
        let start = closed(&self.live(start, &second, 1, Watch::Nothing)?.end);
        scenario.joining.set(Joining::Returned);
        // As above: parity that is being written without a member is not believed after a cut.
        let third = Life { missing: Vec::new(), ..self.used(rng, self.is_mirror(), false) };
        let watch = Watch::Sample(POINTS, rng.next_u64());
        let outcome = self.live(start, &third, 2, watch)?;
        for point in outcome.points.iter().chain([&outcome.end]) {
            for survival in survivals(&point.disks, WAYS, rng) {
                self.cuts += 1;
                self.returned(rng, cut(point, survival))?;
            }
        }
        Ok(())
    }

    /// After a cut: all is there, the member is filled to the end, and then the others may go.
    fn returned(&self, rng: &mut Rng, start: Start) -> Result<(), Violation> {
        self.scenario.joining.set(Joining::Returned);
        let mut steps: Vec<Step> = self.places.reads().collect();
        steps.extend([Step::Wait(LONG), Step::Settle]);
        steps.extend(self.places.read_all());
        let fourth = Life { steps, ..Life::idle() };
        let end = self.live(start, &fourth, 3, Watch::Nothing)?.end;
        self.scenario.joining.set(Joining::Nobody);
        let missing = self.others(rng, self.gone);
        let last = Life { missing, steps: self.places.read_all().collect(), ..Life::idle() };
        self.live(closed(&end), &last, 4, Watch::Nothing).map(drop)
    }

    /// As many of the members as redundancy survives, without `kept`.
    fn others(&self, rng: &mut Rng, kept: usize) -> Vec<usize> {
        let mut others: Vec<usize> = (0..self.members).filter(|&disk| disk != kept).collect();
        rng.shuffle(&mut others);
        others.truncate(self.scenario.redundancy);
        others
    }

    /// A life in which somebody is gone and the rebuild comes to its end.
    fn used(&self, rng: &mut Rng, is_written: bool, is_spoiled: bool) -> Life {
        let mut steps = match is_written {
            true => life(rng, self.scenario, &self.places, 10).steps,
            false => self.places.reads().collect(),
        };
        if is_spoiled {
            // A source is damaged: that must not be copied.
            let sectors = &self.scenario.damageable;
            let sector = sectors.start + rng.below(sectors.end - sectors.start);
            steps.insert(0, Step::Spoil { disk: 0, sector });
        }
        steps.extend([Step::Wait(LONG), Step::Settle]);
        steps.extend(self.places.reads());
        Life { missing: self.missing(), steps, window: 4, ..Life::idle() }
    }

    fn missing(&self) -> Vec<usize> {
        if self.replaced { Vec::new() } else { vec![self.gone] }
    }

    fn is_mirror(&self) -> bool {
        self.scenario.name.contains("raid1")
    }

    /// After a cut: all is there, the rebuild goes on, and then others may go.
    fn recovered(&self, rng: &mut Rng, start: Start) -> Result<(), Violation> {
        let mut third =
            Life { missing: self.missing(), steps: self.places.reads().collect(), ..Life::idle() };
        third.steps.extend([Step::Wait(LONG), Step::Settle]);
        third.steps.extend(self.places.read_all());
        let end = self.live(start, &third, 2, Watch::Nothing)?.end;
        let first = if self.replaced { 0 } else { self.gone };
        let missing = self.others(rng, first).into_iter().chain([first]).collect();
        let steps = self.places.read_all().collect();
        let last = Life { missing, steps, ..Life::idle() };
        self.live(closed(&end), &last, 3, Watch::Nothing).map(drop)
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

/// Boundaries that are cut, and ways each is.
const POINTS: usize = 12;
const WAYS: u64 = 3;
/// Microseconds in which every rebuild comes to its end.
const LONG: u64 = 30_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;
    use crate::scenario::{returning, spared};

    #[test]
    fn every_power_cut_during_a_rebuild_leaves_all_that_was_there() {
        for scenario in spared() {
            for seed in 1..=6 {
                let cuts = rebuild(&scenario, seed);
                assert!(
                    matches!(cuts, Ok(cuts) if cuts > 12),
                    "{} {seed}: {cuts:?}",
                    scenario.name
                );
            }
        }
    }

    #[test]
    fn every_power_cut_while_a_member_comes_back_leaves_all_that_was_there() {
        let scenarios = returning();
        assert_eq!(scenarios.len(), 4);
        for scenario in scenarios {
            for seed in 1..=6 {
                let cuts = rejoin(&scenario, seed);
                let name = scenario.name;
                assert!(matches!(cuts, Ok(cuts) if cuts > 12), "{name} {seed}: {cuts:?}");
            }
        }
    }

    #[test]
    fn a_claim_that_comes_before_the_flush_is_noticed() {
        let reason = "array: what was rebuilt before it is claimed";
        assert!(layers::array::ORDERINGS.contains(&reason));
        let catalogue = Catalogue::of(spared());
        catalogue.leave_out(Some(reason));
        let noticed = (1..=SEEDS)
            .any(|seed| catalogue.scenarios().any(|scenario| rebuild(scenario, seed).is_err()));
        assert!(noticed, "in {SEEDS} seeds");
    }

    const SEEDS: u64 = 40;
}
