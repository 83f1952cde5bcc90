//! Histories in which damage is accounted for row by row: what may be lost is known, and nothing else may.

use super::{Explorer, Failure, closed, fresh, schedule};
use crate::history::{Life, Step};
use crate::machine::{Watch, live};
use crate::rng::Rng;
use crate::workload::{Places, Profile, afterlife, refuse, scatter, unhealed};

impl Explorer<'_> {
    /// A life with damage, and then a look at what is left; or power cuts in it.
    pub(super) fn harmed(
        &mut self,
        rng: &mut Rng,
        profile: Profile,
        mut first: Life,
        places: &Places,
    ) -> Result<(), Box<Failure>> {
        let scenario = self.scenario;
        self.accounted = true;
        // The same life without damage shows where damage is most telling.
        let start = fresh(scenario, self.seed);
        let dry = live(scenario, start, &first, false, schedule(self.seed, 0), Watch::Nothing);
        let copies = scenario.atlas.as_ref().is_some_and(|atlas| atlas.has_copies());
        let cuts = match profile {
            Profile::Scattered => {
                scatter(rng, scenario, &dry.written, &mut first);
                rng.percent(50)
            }
            Profile::Refused => {
                // Without a journal, an array with parity is not started without a member after a cut.
                let spares = copies || scenario.journalled;
                let cuts = (spares || scenario.records_bad) && rng.percent(60);
                refuse(rng, scenario, spares || !cuts, &mut first);
                cuts
            }
            _ => {
                unhealed(rng, scenario, &dry.written, &mut first);
                false
            }
        };
        if cuts && scenario.survives_cuts {
            return self.cuts(rng, first, places);
        }
        first.steps.push(Step::Settle);
        first.steps.extend(places.reads());
        if rng.percent(50) {
            first.steps.push(Step::Scrub);
            first.steps.extend(places.reads());
        }
        let mut lives = vec![first];
        let outcome = self.live(fresh(scenario, self.seed), &lives, Watch::Nothing)?;
        let mut second = afterlife(rng, scenario, places);
        if profile == Profile::Scattered {
            scatter(rng, scenario, &dry.written, &mut second);
        }
        lives.push(second);
        self.live(closed(&outcome.end), &lives, Watch::Nothing).map(drop)
    }
}
