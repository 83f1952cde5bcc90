//! The shortest list of events: delta debugging over the steps, with the cuts searched anew.
//!
//! When a step goes, the boundaries after it move. So the cut of a candidate is not the old one: the
//! life is lived once, and of the boundaries that are remembered and the ways to cut there the first
//! that still fails is taken. Seed and schedule stay as they are.

use crate::explore::{Failure, RESYNC_MICROS, closed, cut, fresh, schedule};
use crate::history::{End, History, Life, Step};
use crate::machine::{Start, Watch, live};
use crate::power::survivals;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::violation::Violation;

/// Shortens `failure` as far as it goes.
pub(crate) fn shrink(scenario: &Scenario, failure: Failure) -> Failure {
    let mut best = failure;
    let mut budget = BUDGET_LIVES;
    loop {
        let before = best.history.clone();
        drop_lives(scenario, &mut best, &mut budget);
        drop_steps(scenario, &mut best, &mut budget);
        calm(scenario, &mut best, &mut budget);
        if best.history == before || budget == 0 {
            return best;
        }
    }
}

fn attempt(scenario: &Scenario, best: &mut Failure, lives: Vec<Life>, budget: &mut u64) -> bool {
    let candidate = History { lives, ..best.history.clone() };
    match search(scenario, &candidate, budget) {
        Some(failure) => {
            *best = failure;
            true
        }
        None => false,
    }
}

fn drop_lives(scenario: &Scenario, best: &mut Failure, budget: &mut u64) {
    let mut index = 0;
    while index < best.history.lives.len() && best.history.lives.len() > 1 {
        let mut lives = best.history.lives.clone();
        let healed = lives.remove(index).steps.into_iter().any(mends);
        let relied_on = lives[index..].iter().any(|later| !later.missing.is_empty());
        if healed && relied_on || !attempt(scenario, best, lives, budget) {
            index += 1;
        }
    }
}

/// Halves, quarters, ... single steps of each life.
fn drop_steps(scenario: &Scenario, best: &mut Failure, budget: &mut u64) {
    for life in 0..best.history.lives.len() {
        let mut size = best.history.lives.get(life).map_or(0, |life| life.steps.len());
        while size > 0 {
            let mut at = 0;
            while best.history.lives.get(life).is_some_and(|life| at < life.steps.len()) {
                let mut lives = best.history.lives.clone();
                let relied_on = lives[life + 1..].iter().any(|later| !later.missing.is_empty());
                let steps = &mut lives[life].steps;
                let end = (at + size).min(steps.len());
                let kept = |step: &Step| relied_on && mends(*step);
                let kept: Vec<Step> = steps[at..end].iter().copied().filter(kept).collect();
                steps.splice(at..end, kept);
                if lives == best.history.lives || !attempt(scenario, best, lives, budget) {
                    at += size;
                }
            }
            size /= 2;
        }
    }
}

/// What makes redundancy true: members may only be missed after it.
fn mends(step: Step) -> bool {
    matches!(step, Step::Scrub | Step::Wait(RESYNC_MICROS))
}

/// One request at a time, if that fails too, and nobody missing.
fn calm(scenario: &Scenario, best: &mut Failure, budget: &mut u64) {
    for index in 0..best.history.lives.len() {
        let mut lives = best.history.lives.clone();
        let Some(life) = lives.get_mut(index) else { return };
        if life.window > 1 {
            life.window = 1;
            attempt(scenario, best, lives, budget);
        }
        let mut lives = best.history.lives.clone();
        if lives.get_mut(index).is_some_and(|life| life.missing.pop().is_some()) {
            attempt(scenario, best, lives, budget);
        }
    }
}

/// A way to cut the lives of `history` such that something is violated.
fn search(scenario: &Scenario, history: &History, budget: &mut u64) -> Option<Failure> {
    let mut path = history.clone();
    let violation = descend(scenario, &mut path, 0, fresh(scenario, history.seed), budget)?;
    Some(Failure { violation, history: path })
}

fn descend(
    scenario: &Scenario,
    path: &mut History,
    index: usize,
    start: Start,
    budget: &mut u64,
) -> Option<Violation> {
    *budget = budget.checked_sub(1)?;
    let schedule = schedule(path.seed, index);
    let cuts = matches!(path.lives[index].end, End::Cut { .. });
    let watch = if cuts { Watch::All } else { Watch::Nothing };
    let outcome = live(scenario, start, &path.lives[index], path.honest, schedule, watch);
    if let Some(violation) = outcome.violation {
        path.lives.truncate(index + 1);
        path.lives[index].end = End::Close;
        return Some(violation);
    }
    if index + 1 == path.lives.len() {
        return None;
    }
    if !cuts {
        return descend(scenario, path, index + 1, closed(&outcome.end), budget);
    }
    let mut rng = Rng::new(path.seed);
    for point in outcome.points.iter().chain([&outcome.end]) {
        for survival in survivals(&point.disks, WAYS, &mut rng) {
            let start = cut(point, survival);
            path.lives[index].end = End::Cut { boundary: point.boundary, survival };
            let later = path.lives.clone();
            if let Some(violation) = descend(scenario, path, index + 1, start, budget) {
                return Some(violation);
            }
            path.lives = later;
        }
    }
    None
}

const BUDGET_LIVES: u64 = 20_000;
const WAYS: u64 = 16;
