//! Every crash that a small journal can suffer, one after the other, in every order of the writes that
//! no flush keeps apart: does replay ever bring back anything older than what was promised?
//!
//! A section is what its commit ids say and the number of the log's section that it holds. Each may
//! have a newer copy of every block of any other, so replay is right only if what it writes home is
//! the end of the log, without a gap. States are counted relative to the newest promised section; laps
//! come round: there are finitely many, and all that can be reached are looked at.

use std::collections::{BTreeSet, HashSet, VecDeque};
use steadfast_integrity::replay::Resume;
use steadfast_integrity::{Plan, SectionSummary, Sequence};

/// Flushes that are not done.
#[derive(Clone, Copy, Debug, Default)]
struct Without {
    /// Sections, before they are promised.
    sections: bool,
    /// Of a journal made anew, the oldest section before the others.
    oldest: bool,
    /// And its last, before the journal is used.
    anew: bool,
    /// Of a journal made anew, those between before the newest.
    middle: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
struct Section {
    /// The laps of its sectors, a bit each.
    laps: u8,
    /// What it holds, if that is one section of the log and whole.
    holds: Option<i32>,
    /// Whether some entry is used.
    used: bool,
}

/// Parts of two sections under the commit ids of one lap; or what was lost in a crash, and read as lost.
const BAD: i32 = i32::MIN;

type Write = (usize, Section);

#[derive(Clone, Debug, Eq, PartialEq, Hash)]
struct Disk {
    sections: Vec<Section>,
    /// The newest that is home, with all before it.
    home: i32,
    /// The newest that was promised, or read.
    promised: i32,
}

#[derive(Clone, Debug, Eq, PartialEq, Hash)]
enum State {
    /// Nobody has it open.
    Down(Disk),
    /// Journalling, with writes that no flush covers.
    Up { disk: Disk, unsettled: Vec<Write>, next: usize, lap: Sequence, newest: i32 },
}

impl Section {
    fn empty(lap: Sequence) -> Self {
        Self { laps: lap.bit(), holds: None, used: false }
    }

    fn log(lap: Sequence, serial: i32) -> Self {
        Self { laps: lap.bit(), holds: Some(serial), used: true }
    }

    /// What it may be when some of `new` landed on it.
    fn torn(self, new: Self) -> Vec<Self> {
        if self == new {
            return vec![new];
        }
        let laps = self.laps | new.laps;
        let holds = (laps.count_ones() == 1).then_some(BAD);
        let torn = |used| Self { laps, holds, used };
        match self.used == new.used {
            true => vec![torn(self.used)],
            false => vec![torn(false), torn(true)],
        }
    }
}

/// All that a crash may leave of `sections` and writes to them.
fn landings(sections: &[Section], writes: &[Write]) -> Vec<Vec<Section>> {
    let mut all = vec![Vec::new()];
    for (index, &section) in sections.iter().enumerate() {
        let mut found = vec![section];
        for &(_, new) in writes.iter().filter(|(at, _)| *at == index) {
            let torn: Vec<_> = found.iter().flat_map(|section| section.torn(new)).collect();
            found.extend(torn);
            found.push(new);
        }
        let found: BTreeSet<Section> = found.into_iter().collect();
        let with = |rest: Vec<Section>| {
            let found = found.clone();
            found.into_iter().map(move |section| [rest.as_slice(), &[section]].concat())
        };
        all = all.into_iter().flat_map(with).collect();
    }
    all
}

impl Disk {
    fn settle(&mut self, writes: &mut Vec<Write>) {
        for (index, new) in writes.drain(..) {
            self.sections[index] = new;
        }
    }

    /// What a crash leaves.
    fn crashed(&self, writes: &[Write], into: &mut Vec<State>) {
        let down = |sections| State::Down(Self { sections, ..self.clone() });
        into.extend(landings(&self.sections, writes).into_iter().map(down));
    }

    /// Opens it.
    fn open(mut self, without: Without, into: &mut Vec<State>) -> Result<(), String> {
        let summary = |section: &Section| SectionSummary {
            sequences: section.laps,
            used_entries: section.used.into(),
            ..SectionSummary::default()
        };
        let summaries: Vec<SectionSummary> = self.sections.iter().map(summary).collect();
        let plan = Plan::new(&summaries).map_err(|error| format!("{error}: {self:?}"))?;
        let order = plan.replay_order().map(|section| self.sections[section as usize]);
        let replayed: Vec<i32> = order.filter_map(|section| section.holds).collect();
        self.judge(&replayed).map_err(|why| format!("{why}: {replayed:?} over {self:?}"))?;
        let forgotten = |one: &i32| *one > self.promised && !replayed.contains(one);
        let forgotten: Vec<i32> =
            self.sections.iter().filter_map(|one| one.holds).filter(forgotten).collect();
        let newest = replayed.last().copied().unwrap_or(self.home);
        (self.home, self.promised) = (newest, newest);
        let (mut unsettled, next, lap) = match plan.resume {
            Resume::InPlace { section, sequence } => (Vec::new(), section as usize, sequence),
            Resume::Reinitialise { initial } => {
                let unsettled = self.anew(&plan, initial, without, into);
                (unsettled, 0, initial.plus(1))
            }
        };
        if !without.anew {
            self.settle(&mut unsettled);
        }
        // It can be read now: what was not replayed must never be.
        for section in &mut self.sections {
            if section.holds.is_some_and(|one| forgotten.contains(&one)) {
                section.holds = Some(BAD);
            }
        }
        into.push(State::Up { newest: self.promised, disk: self, unsettled, next, lap });
        Ok(())
    }

    /// Replay writes home what is promised, and after it nothing older.
    fn judge(&self, replayed: &[i32]) -> Result<(), &'static str> {
        let newer = |than: i32| than + 1..=self.promised;
        if replayed.contains(&BAD) {
            Err("brings back what nobody has any more")
        } else if !replayed.is_sorted() {
            Err("replays the newer first")
        } else if !newer(self.home).all(|one| replayed.contains(&one)) {
            Err("forgets what was promised")
        } else if !replayed
            .first()
            .is_none_or(|&first| newer(first).all(|one| replayed.contains(&one)))
        {
            Err("brings back something older")
        } else {
            Ok(())
        }
    }

    /// Makes every section anew; what is not settled in the end.
    fn anew(
        &mut self,
        plan: &Plan,
        initial: Sequence,
        without: Without,
        into: &mut Vec<State>,
    ) -> Vec<Write> {
        let mut unsettled = Vec::new();
        let kept = [without.oldest, without.middle, true];
        for (batch, without) in plan.reinitialise_order().iter().zip(kept) {
            unsettled.extend(batch.iter().map(|&at| (at as usize, Section::empty(initial))));
            self.crashed(&unsettled, into);
            if !without {
                self.settle(&mut unsettled);
            }
        }
        unsettled
    }

    /// Closes it: everything is home. No flush is needed between the sections behind the end of the log
    /// and those in front.
    fn close(mut self, next: usize, lap: Sequence, into: &mut Vec<State>) {
        let write = |at: usize| {
            let lap = if at < next { lap.plus(1) } else { lap };
            (at, Section::empty(lap))
        };
        let mut unsettled: Vec<Write> = (0..self.sections.len()).map(write).collect();
        self.crashed(&unsettled, into);
        self.settle(&mut unsettled);
        into.push(State::Down(self));
    }
}

impl State {
    /// The same, with the newest promised section as number 0.
    fn normal(mut self) -> Self {
        let (disk, unsettled, newest) = match &mut self {
            Self::Down(disk) => (disk, None, None),
            Self::Up { disk, unsettled, newest, .. } => (disk, Some(unsettled), Some(newest)),
        };
        let by = disk.promised;
        let shift = |section: &mut Section| {
            section.holds = section.holds.map(|one| if one == BAD { one } else { one - by });
        };
        disk.sections.iter_mut().for_each(shift);
        unsettled.into_iter().flatten().for_each(|(_, section)| shift(section));
        (disk.home, disk.promised) = (disk.home - by, 0);
        if let Some(newest) = newest {
            *newest -= by;
        }
        self
    }

    /// All that may come next.
    fn successors(self, without: Without) -> Result<Vec<Self>, String> {
        let mut into = Vec::new();
        let (disk, unsettled, next, lap, newest) = match self {
            Self::Down(disk) => {
                disk.open(without, &mut into)?;
                return Ok(into);
            }
            Self::Up { disk, unsettled, next, lap, newest } => (disk, unsettled, next, lap, newest),
        };
        disk.crashed(&unsettled, &mut into);
        let up = |disk, unsettled| Self::Up { disk, unsettled, next, lap, newest };
        // Another section is written, over one that is home.
        let free = disk.sections[next].holds.is_none_or(|one| one <= disk.home);
        let in_flight = unsettled.iter().filter(|(_, section)| section.used).count();
        if free && in_flight < 2 && unsettled.iter().all(|&(at, one)| at != next || !one.used) {
            let log = (next, Section::log(lap, newest + 1));
            let unsettled = [unsettled.as_slice(), &[log]].concat();
            let wraps = next + 1 == disk.sections.len();
            let (next, lap) = if wraps { (0, lap.plus(1)) } else { (next + 1, lap) };
            into.push(Self::Up { disk: disk.clone(), unsettled, next, lap, newest: newest + 1 });
        }
        if disk.promised < newest {
            let mut promised = Disk { promised: newest, ..disk.clone() };
            let mut unsettled = unsettled.clone();
            if !without.sections {
                promised.settle(&mut unsettled);
            }
            into.push(up(promised, unsettled));
        }
        if disk.home < disk.promised {
            into.push(up(Disk { home: disk.home + 1, ..disk.clone() }, unsettled.clone()));
        }
        if unsettled.is_empty() && disk.home == newest {
            disk.close(next, lap, &mut into);
        }
        Ok(into)
    }
}

/// How many states a journal of `sections` sections can be in; or the first in which replay is wrong.
fn explore(sections: usize, without: Without) -> Result<usize, String> {
    let sections = vec![Section::empty(Sequence::FIRST); sections];
    let new = State::Down(Disk { sections, home: 0, promised: 0 });
    let mut seen = HashSet::from([new.clone()]);
    let mut open = VecDeque::from([new]);
    while let Some(state) = open.pop_front() {
        for next in state.successors(without)? {
            let next = next.normal();
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    Ok(seen.len())
}

#[test]
fn no_crash_however_often_brings_back_anything_older_than_what_was_promised() {
    for (sections, states) in [(1, 52), (2, 612), (3, 4130), (4, 29480)] {
        assert_eq!(explore(sections, Without::default()), Ok(states));
    }
}

/// The last two take three crashes in a row, each in the middle of the recovery from the one before:
/// no other test gets there.
#[test]
fn without_any_of_these_flushes_some_crash_does() {
    let all = Without::default();
    for without in [
        Without { sections: true, ..all },
        Without { oldest: true, ..all },
        Without { middle: true, ..all },
        Without { anew: true, ..all },
    ] {
        let found = (1..=4).find_map(|sections| explore(sections, without).err());
        assert!(found.is_some(), "{without:?}");
    }
}
