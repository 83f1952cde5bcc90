//! From a seed to histories, and from a failure to the shortest list of events that shows it.
//!
//! One seed is a tree: a life is lived once and remembered at several boundaries; each of them is
//! cut in several ways; each of those is opened again, and may be cut during its recovery too.

mod harmed;

use crate::history::{End, History, Life, Step};
use crate::machine::{Outcome, Point, Start, Watch, live};
use crate::opening::Opening;
use crate::oracle::Oracle;
use crate::power::{Survival, settle, survivals};
use crate::rng::{Rng, mix};
use crate::scenario::{Scenario, all};
use crate::violation::Violation;
use crate::workload::{
    Harm, Places, Profile, afterlife, commit_id, damage, lies, life, profiles, tricks, wear,
};
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

/// What a seed did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// The kind of volume.
    pub scenario: String,
    /// Lives that were lived.
    pub lives: u64,
    /// Power cuts that were recovered from.
    pub cuts: u64,
    /// Requests that the disks served.
    pub requests: u64,
    /// The hash of everything that happened.
    pub trace: u64,
}

/// A history that ends in a violation.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub violation: Violation,
    /// The events that lead there.
    pub history: History,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{}", self.violation, self.history)
    }
}

/// The catalogue of volumes, made once per thread.
pub struct Catalogue {
    scenarios: Vec<Rc<Scenario>>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::of(all())
    }
}

impl Catalogue {
    /// Only these.
    #[must_use]
    pub fn of(scenarios: Vec<Scenario>) -> Self {
        Self { scenarios: scenarios.into_iter().map(Rc::new).collect() }
    }

    /// Those whose name starts with `prefix`; `None` if there are none.
    #[must_use]
    pub fn only(mut self, prefix: &str) -> Option<Self> {
        self.scenarios.retain(|scenario| scenario.name.starts_with(prefix));
        (!self.scenarios.is_empty()).then_some(self)
    }

    /// The same volumes on disks that do nothing for `reason` (`None`: that do everything).
    pub fn leave_out(&self, reason: Option<&'static str>) {
        for scenario in &self.scenarios {
            // Made whole: it is what happens to a volume that is judged, not how it came to be.
            scenario.made();
            scenario.orderings.leave_out(reason);
        }
    }

    /// What the disks of any of these volumes were asked for.
    #[must_use]
    pub fn orderings_seen(&self) -> BTreeSet<&'static str> {
        self.scenarios.iter().flat_map(|scenario| scenario.orderings.seen()).collect()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.scenarios.iter().map(|scenario| scenario.name)
    }

    /// Explores the histories of `seed`.
    ///
    /// # Errors
    /// The first violation, and the events that led there, not yet shortened.
    pub fn run(&self, seed: u64) -> Result<Report, Box<Failure>> {
        let mut rng = Rng::derived(seed, 0);
        let scenario = rng.pick(&self.scenarios);
        let mut explorer = Explorer::new(scenario, seed);
        explorer.run(&mut rng)?;
        Ok(explorer.report)
    }

    /// Explores histories of `seed` that wear the order of writes: every life wraps the journal, and
    /// is cut in many places, and again while it recovers.
    ///
    /// # Errors
    /// The first violation, and the events that led there, not yet shortened.
    pub fn wear(&self, seed: u64) -> Result<Report, Box<Failure>> {
        let mut rng = Rng::derived(seed, 0);
        let scenario = rng.pick(&self.scenarios);
        let mut explorer = Explorer::new(scenario, seed);
        let places = Places::wide(&mut rng, scenario.made().blocks);
        explorer.worn(&mut rng, &places)?;
        Ok(explorer.report)
    }

    /// Lives `history` exactly as it is written.
    ///
    /// # Errors
    /// If its scenario is unknown.
    pub fn replay(&self, history: &History) -> Result<Option<Violation>, String> {
        let scenario = self.scenario(&history.scenario)?;
        Ok(replay(&scenario, history))
    }

    /// The shortest list of events found that still shows a violation.
    ///
    /// # Errors
    /// If its scenario is unknown.
    pub fn shrink(&self, failure: Failure) -> Result<Failure, String> {
        let scenario = self.scenario(&failure.history.scenario)?;
        Ok(crate::shrink::shrink(&scenario, failure))
    }

    pub(crate) fn scenarios(&self) -> impl Iterator<Item = &Rc<Scenario>> {
        self.scenarios.iter()
    }

    pub(crate) fn scenario(&self, name: &str) -> Result<Rc<Scenario>, String> {
        let found = self.scenarios.iter().find(|scenario| scenario.name == name);
        found.cloned().ok_or_else(|| format!("there is no scenario {name}"))
    }
}

/// The start of a history: members as made.
pub(crate) fn fresh(scenario: &Scenario, seed: u64) -> Start {
    let made = scenario.made();
    let oracle = Oracle::new(seed, made.blocks, made.block.bytes()).on(scenario.atlas.as_ref());
    Start { images: made.images.clone(), oracle }
}

/// The schedule of the n-th life of a history with `seed`.
pub(crate) fn schedule(seed: u64, life: usize) -> u64 {
    mix(seed, units::u64_of(life) + 0x11fe)
}

/// What a power cut at `point` leaves.
pub(crate) fn cut(point: &Point, survival: Survival) -> Start {
    let mut oracle = point.oracle.clone();
    oracle.crashes();
    Start { images: settle(&point.disks, survival), oracle }
}

/// What a life that was not cut leaves: its oracle says that everything is durable if it was closed
/// well, so nothing that is not may be there.
///
/// If a disk lied, that is not so, but without a power cut nothing comes of it.
pub(crate) fn closed(end: &Point) -> Start {
    let mut end = end.clone();
    let survival = if end.oracle.trusts() { u64::MAX } else { 0 };
    cut(&end, Survival::Mask(survival))
}

fn replay(scenario: &Scenario, history: &History) -> Option<Violation> {
    let mut start = fresh(scenario, history.seed);
    for (index, life) in history.lives.iter().enumerate() {
        let watch = match life.end {
            End::Close => Watch::Nothing,
            End::Cut { boundary, .. } => Watch::CutAt(boundary),
        };
        let schedule = schedule(history.seed, index);
        let outcome = live(scenario, start, life, history.honest, schedule, watch);
        if outcome.violation.is_some() {
            return outcome.violation;
        }
        start = match (life.end, outcome.points.first()) {
            (End::Cut { survival, .. }, Some(point)) => cut(point, survival),
            _ => closed(&outcome.end),
        };
    }
    None
}

struct Explorer<'a> {
    scenario: &'a Scenario,
    seed: u64,
    honest: bool,
    /// Damage that goes on after power cuts.
    harm: Option<Harm>,
    /// Damage is accounted for row by row: members may not be missed then.
    accounted: bool,
    report: Report,
}

impl<'a> Explorer<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let report = Report { scenario: scenario.name.into(), trace: seed, ..Report::default() };
        Self { scenario, seed, honest: false, harm: None, accounted: false, report }
    }

    fn run(&mut self, rng: &mut Rng) -> Result<(), Box<Failure>> {
        let choices = profiles(self.scenario);
        let profile = if choices.is_empty() { Profile::Beyond } else { *rng.pick(&choices) };
        self.honest = profile == Profile::Beyond;
        let places = Places::draw(rng, self.scenario.made().blocks);
        let most = *rng.pick(&[4, 12, 40]);
        let requests = 2 + rng.below(most);
        let mut first = life(rng, self.scenario, &places, requests);
        match profile {
            Profile::Cuts => return self.cuts(rng, first, &places),
            Profile::Modes => return self.wander(rng, &places),
            Profile::Scattered | Profile::Refused | Profile::Unhealed => {
                return self.harmed(rng, profile, first, &places);
            }
            Profile::Mending => return self.mend(rng),
            Profile::Lies => {
                self.honest = true;
                lies(rng, self.scenario, &mut first);
                return self.cuts(rng, first, &places);
            }
            _ => {}
        }
        if profile == Profile::Tricks {
            self.honest = self.scenario.redundancy == 0;
            let victims = 1 + rng.index(self.scenario.redundancy.max(1));
            tricks(rng, self.scenario, victims, &mut first);
            return self.tricks(rng, first, &places);
        }
        let victims = match profile {
            Profile::Within => 1 + rng.index(self.scenario.redundancy),
            _ => 1 + rng.index(self.scenario.members),
        };
        // The same life without damage shows where damage is most telling.
        let dry = live(
            self.scenario,
            fresh(self.scenario, self.seed),
            &first,
            self.honest,
            schedule(self.seed, 0),
            Watch::Nothing,
        );
        let harm = Harm { victims, anywhere: self.honest, written: dry.written };
        damage(rng, self.scenario, &harm, &mut first);
        self.harm = self.honest.then_some(harm);
        if self.honest {
            return self.cuts(rng, first, &places);
        }
        self.within(rng, first, &places)
    }

    /// Damage within redundancy: all is right at once, and after healing also without others.
    fn within(&mut self, rng: &mut Rng, first: Life, places: &Places) -> Result<(), Box<Failure>> {
        let mut lives = vec![first];
        let away = !lives[0].missing.is_empty()
            || lives[0].steps.iter().any(|step| matches!(step, Step::Gone { .. }));
        lives[0].steps.push(Step::Settle);
        lives[0].steps.extend(places.reads());
        if away || rng.percent(50) {
            // Who was away comes back, and must not be believed; who was not is healed, and then
            // everybody is good enough to stand in for the others.
            lives[0].steps.push(Step::Scrub);
            let mut second = afterlife(rng, self.scenario, places);
            second.missing = if away { Vec::new() } else { self.missing(rng) };
            lives.push(second);
        }
        let mut start = fresh(self.scenario, self.seed);
        for index in 0..lives.len() {
            let outcome = self.live(start, &lives[..=index], Watch::Nothing)?;
            start = closed(&outcome.end);
        }
        Ok(())
    }

    /// Nobody was told of what went wrong; it is found when it is read, at the latest after opening
    /// again, and without anybody missing.
    fn tricks(
        &mut self,
        rng: &mut Rng,
        mut first: Life,
        places: &Places,
    ) -> Result<(), Box<Failure>> {
        first.steps.push(Step::Settle);
        first.steps.extend(places.reads());
        let mut lives = vec![first];
        let outcome = self.live(fresh(self.scenario, self.seed), &lives, Watch::Nothing)?;
        lives.push(afterlife(rng, self.scenario, places));
        self.live(closed(&outcome.end), &lives, Watch::Nothing).map(drop)
    }

    fn cuts(&mut self, rng: &mut Rng, first: Life, places: &Places) -> Result<(), Box<Failure>> {
        let mut path = vec![first];
        let start = fresh(self.scenario, self.seed);
        let watch = Watch::Sample(POINTS, rng.next_u64());
        let mut outcome = self.live(start, &path, watch)?;
        outcome.points.push(outcome.end.clone());
        for point in &outcome.points {
            for survival in survivals(&point.disks, SURVIVALS, rng) {
                let last = path.len() - 1;
                path[last].end = End::Cut { boundary: point.boundary, survival };
                self.report.cuts += 1;
                self.recovery(rng, cut(point, survival), &mut path, places)?;
            }
        }
        Ok(())
    }

    /// Two lives that are cut, and a third that looks: where there is redundancy without a member,
    /// which excuses errors, but not of those that log what they write.
    fn worn(&mut self, rng: &mut Rng, places: &Places) -> Result<(), Box<Failure>> {
        if !self.scenario.journal.is_empty() {
            return self.mend(rng);
        }
        // A log leaves nothing that would have to be excused.
        let whole = self.scenario.logged;
        self.honest = self.scenario.redundancy > 0 && !whole;
        let mut look = Life { steps: places.reads().collect(), ..Life::idle() };
        let mut path = Vec::new();
        let mut start = fresh(self.scenario, self.seed);
        if rng.percent(30) {
            // What was closed before: nothing of it is in the journal.
            path.push(wear(rng, places));
            start = closed(&self.live(start, &path, Watch::Nothing)?.end);
        }
        let first = path.len();
        let mut worn = Life { opening: self.opening(rng), ..wear(rng, places) };
        if first > 0 && rng.percent(50) {
            worn.steps.insert(0, places.discard(rng));
        }
        path.push(worn);
        let outcome = self.live(start, &path, Watch::All)?;
        for (point, survival) in worn_cuts(rng, &outcome) {
            path[first].end = End::Cut { boundary: point.boundary, survival };
            look.opening = self.opening(rng);
            path.push(look.clone());
            if look.opening != Opening::Usual {
                // What the last way of writing left behind must not come back over this one's.
                let steps = [wear(rng, places).steps, vec![Step::Settle], look.steps.clone()];
                path[first + 1].steps = steps.concat();
            }
            self.report.cuts += 1;
            let again = self.live(cut(point, survival), &path, Watch::All)?;
            for (point, survival) in worn_cuts(rng, &again) {
                path[first + 1].end = End::Cut { boundary: point.boundary, survival };
                look.opening = self.opening(rng);
                path.push(look.clone());
                if self.honest || whole {
                    path[first + 2].missing = self.missing(rng);
                }
                self.report.cuts += 1;
                self.live(cut(point, survival), &path, Watch::Nothing)?;
                path.pop();
            }
            path.pop();
        }
        Ok(())
    }

    /// A way to open the volume.
    fn opening(&self, rng: &mut Rng) -> Opening {
        let ways = self.scenario.openings;
        if ways.is_empty() { Opening::Usual } else { *rng.pick(ways) }
    }

    /// Chains of lives, each opened in another way, and cut or closed.
    fn wander(&mut self, rng: &mut Rng, places: &Places) -> Result<(), Box<Failure>> {
        for _ in 0..WALKS {
            let mut path = Vec::new();
            let mut start = fresh(self.scenario, self.seed);
            for _ in 0..2 + rng.below(4) {
                let mut next = afterlife(rng, self.scenario, places);
                let requests = rng.below(12);
                next.steps.extend(life(rng, self.scenario, places, requests).steps);
                next.opening = self.opening(rng);
                path.push(next);
                let watch = Watch::Sample(1, rng.next_u64());
                let outcome = self.live(start, &path, watch)?;
                start = match outcome.points.first() {
                    Some(point) if rng.percent(75) => {
                        let ways = survivals(&point.disks, 4, rng);
                        let survival = *rng.pick(&ways);
                        let end = End::Cut { boundary: point.boundary, survival };
                        path.last_mut().expect("it was just lived").end = end;
                        self.report.cuts += 1;
                        cut(point, survival)
                    }
                    _ => closed(&outcome.end),
                };
            }
            path.push(Life { opening: self.opening(rng), ..afterlife(rng, self.scenario, places) });
            self.live(start, &path, Watch::Nothing)?;
        }
        Ok(())
    }

    /// A power cut leaves something in the journal; then a commit id of it rots; then it is mended,
    /// one way and the other, and cut again meanwhile.
    fn mend(&mut self, rng: &mut Rng) -> Result<(), Box<Failure>> {
        self.honest = true;
        let places = Places::wide(rng, self.scenario.made().blocks);
        let mut path = vec![wear(rng, &places)];
        let watch = Watch::Sample(MENDED, rng.next_u64());
        let outcome = self.live(fresh(self.scenario, self.seed), &path, watch)?;
        for point in &outcome.points {
            let survival = Survival::Seeded(rng.next_u64());
            path[0].end = End::Cut { boundary: point.boundary, survival };
            let steps = vec![commit_id(rng, self.scenario, &outcome.written[0])];
            path.push(Life { opening: Opening::ReadOnly, steps, ..Life::idle() });
            let rotten = self.live(cut(point, survival), &path, Watch::Nothing)?;
            for &opening in self.scenario.openings {
                let look = Life { opening, steps: places.reads().collect(), ..Life::idle() };
                path.push(look.clone());
                let again = self.live(closed(&rotten.end), &path, Watch::All)?;
                for (point, survival) in worn_cuts(rng, &again) {
                    path[2].end = End::Cut { boundary: point.boundary, survival };
                    path.push(look.clone());
                    self.report.cuts += 1;
                    self.live(cut(point, survival), &path, Watch::Nothing)?;
                    path.pop();
                }
                path.pop();
            }
            path.pop();
        }
        Ok(())
    }

    fn recovery(
        &mut self,
        rng: &mut Rng,
        start: Start,
        path: &mut Vec<Life>,
        places: &Places,
    ) -> Result<(), Box<Failure>> {
        let mut after = afterlife(rng, self.scenario, places);
        if let Some(harm) = &self.harm {
            if rng.percent(50) {
                damage(rng, self.scenario, harm, &mut after);
            }
            // Who was away is stale, but if all others are damaged beyond opening, nobody is left
            // to say so (see docs/faults.md): it stays away.
            for life in path.iter() {
                after.missing.extend(&life.missing);
                after.missing.extend(life.steps.iter().filter_map(|step| match *step {
                    Step::Gone { disk } => Some(disk),
                    _ => None,
                }));
            }
        }
        if self.scenario.logged && !self.honest && !self.accounted {
            match path.iter().find(|life| !life.missing.is_empty()) {
                Some(life) => after.missing.clone_from(&life.missing),
                None if rng.percent(50) => after.missing = self.missing(rng),
                None => {}
            }
        }
        path.push(after);
        let deeper = path.len() == 2 && rng.percent(30);
        let watch = if deeper { Watch::Sample(3, rng.next_u64()) } else { Watch::Nothing };
        let outcome = self.live(start.clone(), path, watch)?;
        for point in &outcome.points {
            for survival in survivals(&point.disks, 3, rng) {
                let last = path.len() - 1;
                path[last].end = End::Cut { boundary: point.boundary, survival };
                self.report.cuts += 1;
                self.recovery(rng, cut(point, survival), path, places)?;
            }
        }
        let away = path.iter().any(|life| !life.missing.is_empty());
        let may_miss = !self.honest && !self.accounted && self.scenario.redundancy > 0;
        if may_miss && !away && rng.percent(20) {
            self.degraded(rng, start, path, places)?;
        }
        path.pop();
        Ok(())
    }

    /// The last life again, but with time to make redundancy true; then without some members.
    fn degraded(
        &mut self,
        rng: &mut Rng,
        start: Start,
        path: &mut Vec<Life>,
        places: &Places,
    ) -> Result<(), Box<Failure>> {
        let at = path.len() - 1;
        path[at].end = End::Close;
        path[at].steps.extend([Step::Wait(RESYNC_MICROS), Step::Settle]);
        let outcome = self.live(start, path, Watch::Nothing)?;
        let mut look = afterlife(rng, self.scenario, places);
        look.missing = self.missing(rng);
        path.push(look);
        // Where a cut made both a block and its parity unreadable, nothing stands in for the others.
        let honest = std::mem::replace(&mut self.honest, outcome.end.oracle.has_torn());
        self.live(closed(&outcome.end), path, Watch::Nothing)?;
        self.honest = honest;
        path.pop();
        Ok(())
    }

    fn missing(&self, rng: &mut Rng) -> Vec<usize> {
        let mut members: Vec<usize> = (0..self.scenario.peers()).collect();
        rng.shuffle(&mut members);
        members.truncate(1 + rng.index(self.scenario.redundancy));
        members
    }

    fn live(&mut self, start: Start, path: &[Life], watch: Watch) -> Result<Outcome, Box<Failure>> {
        let index = path.len() - 1;
        let schedule = schedule(self.seed, index);
        let mut outcome = live(self.scenario, start, &path[index], self.honest, schedule, watch);
        self.report.lives += 1;
        self.report.requests += outcome.requests;
        self.report.trace = mix(self.report.trace, outcome.trace);
        let Some(violation) = outcome.violation.take() else { return Ok(outcome) };
        let mut lives = path.to_vec();
        lives[index].end = End::Close;
        let scenario = self.scenario.name.into();
        let history = History { scenario, seed: self.seed, honest: self.honest, lives };
        Err(Box::new(Failure { violation, history }))
    }
}

/// Cuts of a life: some while it opens, some while it closes, some between.
fn worn_cuts<'a>(rng: &mut Rng, outcome: &'a Outcome) -> Vec<(&'a Point, Survival)> {
    let points = &outcome.points;
    let edge = WORN_EDGE.min(points.len());
    let mut cuts = Vec::new();
    for part in [&points[..edge], points, &points[points.len() - edge..]] {
        for _ in 0..if part.is_empty() { 0 } else { WORN_POINTS } {
            let point = rng.pick(part);
            cuts.extend((0..WORN_SURVIVALS).map(|_| (point, Survival::Seeded(rng.next_u64()))));
        }
    }
    cuts
}

/// Places for a power cut in the first life of a seed, and the ways each is cut.
const POINTS: usize = 8;
const SURVIVALS: u64 = 4;
/// The same for each third of a life that wears the order of writes, and where its first ends and
/// its last begins.
const WORN_POINTS: usize = 3;
const WORN_SURVIVALS: u64 = 3;
const WORN_EDGE: usize = 24;
/// Chains of lives of one seed.
const WALKS: u64 = 8;
/// Cuts whose journal is damaged, of one seed.
const MENDED: usize = 3;
/// Longer than any resync of these tiny arrays takes, in simulated time.
pub(crate) const RESYNC_MICROS: u64 = 120_000_000;
