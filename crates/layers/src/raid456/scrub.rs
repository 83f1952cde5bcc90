//! One step of a scrub: some stripes, every sector of every member, past every cache.

use super::Inner;
use super::heal::Healing;
use bio::{Finding, Findings, ScrubMode};
use std::ops::Range;

impl Inner {
    /// The stripes of a step.
    pub(super) fn step_stripes(&self, step: u64) -> Range<u64> {
        let each = self.stripes_per_step();
        let start = step.saturating_mul(each).min(self.stripes);
        start..start.saturating_add(each).min(self.stripes)
    }

    /// Does one step. What could not even be tried counts as unreadable.
    pub(super) async fn scrub(&self, step: u64, mode: ScrubMode) -> Findings {
        let stripes = self.step_stripes(step);
        if stripes.is_empty() {
            return Findings::default();
        }
        // What waits in memory belongs on the medium before that is judged. A stripe that cannot
        // be stored is judged as it is; the next flush tells.
        for stripe in self.cache.stripes(stripes.clone()) {
            let _ = self.flush_stripe(stripe).await;
        }
        let healing = match mode {
            ScrubMode::Decide(decision) if !self.limits.read_only => Healing::Decide(decision),
            ScrubMode::Repair if !self.limits.read_only => Healing::Write,
            ScrubMode::Decide(_) | ScrubMode::Repair | ScrubMode::Check => Healing::Report,
        };
        let extent = self.extent_of(&stripes);
        match self.verify(stripes, healing, true).await {
            Ok(findings) => findings,
            Err(_) => {
                let found = vec![(Finding::Unreadable, None, extent)];
                Findings { checked_sectors: 0, found }
            }
        }
    }
}
