//! Each ordering point and each check left out in turn: the simulator must find what breaks.
//!
//! What is looked through for a reason is fixed, so that the same code is caught in the same place:
//!
//! | reasons of | histories |
//! |---|---|
//! | making a dm-integrity volume | cuts at every boundary, over garbage, and over a volume in use |
//! | its journal | lives that wrap it, cut twice ([`Catalogue::wear`]), over volumes that write home late |
//! | its other modes, recalculation, discards | the same, over volumes that are run so |
//! | mending its journal | the same, with damage between, over a volume that is mended |
//! | resizing it | cuts at every boundary ([`resize`]) |
//! | dm-integrity with inline tags | the usual ones |
//! | checks of its journal | the histories of bugs that were found ([`crate::seeds`]) |
//! | bad block logs | a disk that refuses writes ([`refuse`]) |
//! | write journals | lives that wrap them, cut twice, with members missing after the second cut |
//! | emptying partial parity logs | one write over records of a life before, cut everywhere ([`reuse`]) |
//! | the checks of parity, and of mirrors | the usual ones |
//! | arrays | the usual ones; for mirrors the same, with a member missing after the second cut; members that are lost, rebuilt and replaced, or come back |

use crate::explore::{cut, fresh, schedule};
use crate::machine::{Watch, live};
use crate::making::{garbage, make};
use crate::power::Survival;
use crate::rebuilding::{rebuild, rejoin};
use crate::refusing::refuse;
use crate::resizing::resize;
use crate::reusing::reuse;
use crate::rng::Rng;
use crate::scenario::{
    Scenario, aged, all, late, mending, resizable, returning, spared, unjournalled, unwiped,
};
use crate::violation::Violation;
use crate::workload::{Places, wear};
use crate::{Catalogue, Failure};
use layers::{array, integrity};
use std::collections::BTreeSet;
use std::rc::Rc;

/// The ordering points and checks whose absence no history shows, and why.
pub const UNSEEN: &[(&str, &str)] = &[
    (
        "home: tags before they are read again",
        "it makes the read come from the medium, which only a disk that loses its cache while it has \
         power could tell; the journal holds everything until the flush behind it",
    ),
    (
        "replay: the middle sections anew before the newest",
        "it takes three crashes in a row, each within the recovery from the last: those of all small \
         journals are gone through in crates/integrity/tests/crashes.rs, and there it is missed",
    ),
    (
        "replay: the newest section anew before the journal is used",
        "the same, and a journal of two sections",
    ),
    (
        "zero: space given back before promise and end",
        "too rare for the hunt: a power cut without a journal has to leave a block with the tag of zeroes \
         and other data, which is then trimmed; two such lives are kept in crates/world/seeds.txt",
    ),
    (
        "array: the bitmap's header before the superblock",
        "without it the bitmap is not believed, and all is compared",
    ),
    (
        "array: events_cleared before bits are cleared",
        "it keeps a member that left long ago from coming back with too few bits, which takes three \
         members and two changes of them: a unit test looks at the order",
    ),
    (
        "array: a bitmap's bits before its header",
        "bitmaps here have one block, which is written as one; a unit test cuts one of more",
    ),
    (
        "bitmap: journal anew before the flag goes",
        "the bits that a history closes with name a sector beyond the end if they pass for an entry, and \
         nothing is lost: a unit test closes with others, and there it is missed",
    ),
    (
        "close: the journal anew before the end",
        "everything is home, and newest: it only lets a closed volume be found clean",
    ),
    (
        "ppl: void before what no record names",
        "too rare for the hunt: a cut within a write that no record names, after one that a record does name, in \
         the same row, and the member missing whose block only the log has; a unit test in \
         crates/layers/src/raid456/tests/ppl.rs looks at the log",
    ),
    (
        "mirror: the damaged copy's own tag, before another is chosen",
        "it chooses between copies that their own members vouch for: they are the same, or both right, or a disk \
         lied, which nobody promises to see; a unit test in crates/layers/src/mirror/tests.rs has three that differ",
    ),
];

/// The volumes that are looked through.
pub struct Mutations {
    late: Catalogue,
    unwiped: Catalogue,
    unjournalled: Catalogue,
    mending: Catalogue,
    resizable: Catalogue,
    arrays: Catalogue,
    mirrors: Catalogue,
    spared: Catalogue,
    /// Their members come back.
    returning: Catalogue,
    /// Its members refuse writes.
    refusing: Catalogue,
    inline: Catalogue,
    logged: Catalogue,
    /// Their partial parity log holds records of a life before.
    aged: Catalogue,
    journalled: Catalogue,
    /// Those of the histories that are kept.
    kept: Catalogue,
    /// Arrays with parity, and arrays with copies.
    parity: Catalogue,
    copies: Catalogue,
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
        let levels = |levels: [&str; 2]| {
            let checked = |one: &Scenario| levels.iter().any(|level| one.name.starts_with(level));
            // Nobody can be asked for tuples that are not checked.
            Catalogue::of(all().into_iter().filter(|one| checked(one) && !one.tuples).collect())
        };
        Self {
            late: Catalogue::of(late()),
            unwiped: Catalogue::of(vec![unwiped()]),
            unjournalled: Catalogue::of(unjournalled()),
            mending: Catalogue::of(vec![mending()]),
            resizable: Catalogue::of(resizable()),
            arrays: only("raid"),
            mirrors: only("raid1-"),
            spared: Catalogue::of(spared()),
            returning: Catalogue::of(returning()),
            refusing: only("raid1-2-intent"),
            inline: only("inline-4096"),
            // Elsewhere a power cut leaves logs that cannot be read.
            logged: Catalogue::of(
                all().into_iter().filter(|one| one.logged && !one.journalled).collect(),
            ),
            aged: Catalogue::of(aged()),
            journalled: Catalogue::of(all().into_iter().filter(|one| one.journalled).collect()),
            kept: Catalogue::default(),
            parity: levels(["raid5", "raid6"]),
            copies: levels(["raid1-", "raid10"]),
        }
    }
}

impl Mutations {
    /// Every ordering point and check that the layers and the stack name.
    pub fn reasons(&self) -> impl Iterator<Item = &'static str> + use<> {
        let below = integrity::ORDERINGS.iter().chain(array::ORDERINGS);
        let checks = integrity::CHECKS.iter().chain(array::CHECKS);
        below.chain(stack::resize::ORDERINGS).chain(checks).copied()
    }

    /// All but the one with inline tags.
    fn catalogues(&self) -> [&Catalogue; 15] {
        [
            &self.late,
            &self.unwiped,
            &self.unjournalled,
            &self.mending,
            &self.resizable,
            &self.arrays,
            &self.mirrors,
            &self.spared,
            &self.returning,
            &self.refusing,
            &self.parity,
            &self.copies,
            &self.logged,
            &self.aged,
            &self.journalled,
        ]
    }

    /// Looks through `seeds` seeds for something that leaving out `reason` breaks.
    ///
    /// # Panics
    /// If a history that is kept is none.
    #[must_use]
    pub fn hunt(&self, reason: &'static str, seeds: u64) -> Option<Caught> {
        if integrity::CHECKS.contains(&reason) {
            self.kept.leave_out(Some(reason));
            return crate::seeds().find_map(|history| {
                let found = self.kept.replay(&history).expect("its scenario exists")?;
                Some(Caught { seed: history.seed, what: format!("{}: {found}", history.scenario) })
            });
        }
        for catalogue in self.catalogues().into_iter().chain([&self.inline]) {
            catalogue.leave_out(Some(reason));
        }
        (1..=seeds).find_map(|seed| self.one(reason, seed))
    }

    fn one(&self, reason: &str, seed: u64) -> Option<Caught> {
        let (kind, _) = reason.split_once(':').unwrap_or((reason, ""));
        let each = |catalogue: &Catalogue, judge: fn(&Scenario, u64) -> Result<(), Violation>| {
            catalogue.scenarios().find_map(|scenario: &Rc<Scenario>| {
                let what = format!("{}: {}", scenario.name, judge(scenario, seed).err()?);
                Some(Caught { seed, what })
            })
        };
        let failed = |failure: Box<Failure>| Caught {
            seed,
            what: format!("{}: {}", failure.history.scenario, failure.violation),
        };
        match kind {
            "create" => each(&self.late, made_over).or_else(|| each(&self.unwiped, made_bare)),
            "resize" => each(&self.resizable, |scenario, seed| resize(scenario, seed).map(drop)),
            "journal" if array::ORDERINGS.contains(&reason) => {
                self.journalled.wear(seed).err().map(failed)
            }
            "journal" | "home" | "replay" | "close" => self.late.wear(seed).err().map(failed),
            "mend" => self.mending.wear(seed).err().map(failed),
            "inline" => self.inline.run(seed).err().map(failed),
            "ppl" if reason == EMPTIED => each(&self.aged, |one, seed| reuse(one, seed).map(drop)),
            "ppl" => self.logged.wear(seed).err().map(failed),
            "raid456" => self.parity.run(seed).err().map(failed),
            "mirror" if array::CHECKS.contains(&reason) => self.copies.run(seed).err().map(failed),
            "array" if reason.starts_with(BAD_BLOCKS) => {
                each(&self.refusing, |one, seed| refuse(one, seed).map(drop))
            }
            _ if integrity::ORDERINGS.contains(&reason) => {
                self.unjournalled.wear(seed).err().map(failed)
            }
            _ => {
                let usual = self.arrays.run(seed).err();
                let usual = usual.or_else(|| self.mirrors.wear(seed).err()).map(failed);
                let rebuilt =
                    usual.or_else(|| each(&self.spared, |one, seed| rebuild(one, seed).map(drop)));
                rebuilt.or_else(|| each(&self.returning, |one, seed| rejoin(one, seed).map(drop)))
            }
        }
    }

    /// The reasons that disks were given in this hunt and that no layer names, an empty one for a
    /// flush that says none. Flushes for a client of an array pass through with none.
    #[must_use]
    pub fn unnamed(&self) -> BTreeSet<&'static str> {
        let named: BTreeSet<_> = self.reasons().collect();
        // A volume with inline tags hands on what its client says, who gives no reason.
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

/// The reason for which a partial parity log is emptied.
const EMPTIED: &str = "ppl: an emptied log before its first record";
/// What begins the reasons of the bad block log.
const BAD_BLOCKS: &str = "array: a bad block";

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
    fn with_every_point_honoured_nothing_is_found() {
        let mutations = Mutations::default();
        let nobody = ["create: nothing", "resize: nothing", "mend: nothing", "nothing"];
        for reason in nobody {
            let found = mutations.hunt(reason, 2);
            assert!(found.is_none(), "{reason}: {found:?}");
        }
        for reason in ["raid456: nothing", "ppl: nothing"] {
            let found = mutations.hunt(reason, 6);
            assert!(found.is_none(), "{reason}: {found:?}");
        }
        for catalogue in [&mutations.late, &mutations.unjournalled] {
            for seed in 1..=2 {
                let found = catalogue.wear(seed);
                assert!(found.is_ok(), "{seed}: {}", found.expect_err("it is not"));
            }
        }
        assert!(mutations.unnamed().is_empty(), "{:?}", mutations.unnamed());
    }
}
