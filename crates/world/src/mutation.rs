//! Each ordering point left out in turn: the simulator must find what breaks.
//!
//! What is looked through for a reason is fixed, so that the same code is caught in the same place:
//!
//! | reasons of | histories |
//! |---|---|
//! | making a dm-integrity volume | cuts at every boundary, over garbage, and over a volume in use |
//! | dm-integrity | lives that wrap the journal, cut twice ([`Catalogue::wear`]), over volumes that write home late |
//! | dm-integrity with inline tags | the usual ones |
//! | arrays | the usual ones; for mirrors the same, with a member missing after the second cut |

use crate::explore::{cut, fresh, schedule};
use crate::machine::{Watch, live};
use crate::making::{garbage, make};
use crate::oracle::Violation;
use crate::power::Survival;
use crate::rng::Rng;
use crate::scenario::{Scenario, late, unwiped};
use crate::workload::{Places, wear};
use crate::{Catalogue, Failure};
use layers::{array, integrity};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The ordering points whose absence no power cut shows, and why.
pub const UNSEEN: &[(&str, &str)] = &[
    (
        "home: tags before they are read again",
        "it makes the read come from the medium, which only a disk that loses its cache while it has \
         power could tell; the journal holds everything until the flush behind it",
    ),
    (
        "replay: the middle sections anew before the newest",
        "the oldest section is anew: replay meets its number, or sections without entries, at once, \
         whatever of the others is anew",
    ),
    (
        "close: sections behind before those in front",
        "replay begins behind the last section of the newest lap and demands the lap before it: it \
         finds the end of the last lap, home and newest, and stops before older ones",
    ),
    (
        "replay: the newest section anew before the journal is used",
        "it makes the read come from the medium; before the first new section is promised its own \
         flush does the same, and until then what replay could find of the old lap is home and newest",
    ),
    (
        "close: sections in front before the end",
        "everything is home, and newest: it only lets a closed volume be found clean",
    ),
];

/// The volumes that are looked through.
pub struct Mutations {
    late: Catalogue,
    unwiped: Catalogue,
    arrays: Catalogue,
    mirrors: Catalogue,
    inline: Catalogue,
}

/// How leaving out an ordering point was noticed.
#[derive(Debug)]
pub struct Caught {
    /// The seed of the history.
    pub seed: u64,
    /// The volume, and what was wrong with it.
    pub what: String,
}

impl Default for Mutations {
    /// # Panics
    /// If there are no arrays in the catalogue.
    fn default() -> Self {
        let only = |prefix| Catalogue::default().only(prefix).expect("there are such volumes");
        Self {
            late: Catalogue::of(late()),
            unwiped: Catalogue::of(vec![unwiped()]),
            arrays: only("raid"),
            mirrors: only("raid1-"),
            inline: only("inline-4096"),
        }
    }
}

impl Mutations {
    /// Every ordering point that the layers name.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> + use<> {
        integrity::ORDERINGS.iter().chain(array::ORDERINGS).copied()
    }

    fn catalogues(&self) -> [&Catalogue; 4] {
        [&self.late, &self.unwiped, &self.arrays, &self.mirrors]
    }

    /// Looks through `seeds` seeds for something that leaving out `reason` breaks.
    #[must_use]
    pub fn hunt(&self, reason: &'static str, seeds: u64) -> Option<Caught> {
        for catalogue in self.catalogues().into_iter().chain([&self.inline]) {
            catalogue.leave_out(Some(reason));
        }
        (1..=seeds).find_map(|seed| self.one(reason, seed))
    }

    fn one(&self, reason: &str, seed: u64) -> Option<Caught> {
        let failed = |failure: Box<Failure>| Caught {
            seed,
            what: format!("{}: {}", failure.history.scenario, failure.violation),
        };
        if reason.starts_with("create") {
            let caught = |scenario: &Rc<Scenario>, made: Result<(), Violation>| {
                let what = format!("{}: {}", scenario.name, made.err()?);
                Some(Caught { seed, what })
            };
            let mut wiped = self.late.scenarios();
            let mut unwiped = self.unwiped.scenarios();
            return wiped.find_map(|scenario| caught(scenario, made_over(scenario, seed))).or_else(
                || unwiped.find_map(|scenario| caught(scenario, made_bare(scenario, seed))),
            );
        }
        if reason.starts_with("inline") {
            return self.inline.run(seed).err().map(failed);
        }
        if integrity::ORDERINGS.contains(&reason) {
            return self.late.wear(seed).err().map(failed);
        }
        let usual = self.arrays.run(seed).err();
        usual.or_else(|| self.mirrors.wear(seed).err()).map(failed)
    }

    /// The reasons that disks were given in this hunt and that no layer names, an empty one for a
    /// flush that says none. Flushes for a client of an array pass through with none.
    #[must_use]
    pub fn unnamed(&self) -> BTreeSet<&'static str> {
        let named: BTreeSet<_> = self.reasons().collect();
        let seen = self.catalogues().map(Catalogue::orderings_seen);
        seen.into_iter().flatten().filter(|reason| !named.contains(reason)).collect()
    }
}

/// Makes `scenario` over garbage, and over itself in use.
fn made_over(scenario: &Scenario, seed: u64) -> Result<(), Violation> {
    make(scenario, garbage(scenario), true, seed)?;
    let mut rng = Rng::derived(seed, 5);
    let places = Places::wide(&mut rng, scenario.made().blocks);
    let life = wear(&mut rng, &places);
    let start = fresh(scenario, seed);
    // Cut in the middle, so that its journal holds what nothing else does.
    let used = live(scenario, start, &life, false, schedule(seed, 0), Watch::Sample(1, seed));
    let point = used.points.first().unwrap_or(&used.end);
    make(scenario, cut(point, Survival::Mask(u64::MAX)), true, seed).map(drop)
}

/// Makes `scenario` over garbage, which stays in every block: it has to open, and that is all.
fn made_bare(scenario: &Scenario, seed: u64) -> Result<(), Violation> {
    make(scenario, garbage(scenario), false, seed).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_as_unseen_is_a_reason_that_a_layer_names() {
        let reasons: Vec<_> = Mutations::default().reasons().collect();
        assert!(UNSEEN.iter().all(|(reason, _)| reasons.contains(reason)));
        let distinct: BTreeSet<_> = reasons.iter().collect();
        assert_eq!(distinct.len(), reasons.len());
    }

    #[test]
    fn with_every_flush_honoured_nothing_is_found() {
        let mutations = Mutations::default();
        let nobody = ["create: nothing", "nothing"];
        assert!(nobody.iter().all(|reason| mutations.hunt(reason, 2).is_none()));
        assert!((1..=2).all(|seed| mutations.late.wear(seed).is_ok()));
        assert!(mutations.unnamed().is_empty());
    }
}
