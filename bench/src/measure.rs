//! Timing two things against each other on a machine that others use too.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Median seconds that one call of `ours` and of `peer` take, the two alternating in rounds.
///
/// The clock is the thread's own processor time, so that whoever else has the core in between is
/// not counted; what they do to caches and clock frequency hits both sides alike.
pub(crate) fn pair(mut ours: impl FnMut(), mut peer: impl FnMut()) -> (f64, f64) {
    let calls = [calls_of(&mut ours), calls_of(&mut peer)];
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        rounds[0].push(seconds_of(calls[0], &mut ours));
        rounds[1].push(seconds_of(calls[1], &mut peer));
    }
    let [ours, peer] = rounds.map(median);
    (ours, peer)
}

/// Calls that fill a round.
fn calls_of(work: &mut impl FnMut()) -> u32 {
    let mut calls = 1;
    loop {
        let seconds = seconds_of(calls, work) * f64::from(calls);
        if seconds >= ROUND.as_secs_f64() || calls >= CALLS_MAX {
            return calls;
        }
        calls *= 2;
    }
}

/// Seconds for one of `calls` calls.
fn seconds_of(calls: u32, work: &mut impl FnMut()) -> f64 {
    let before = processor_time();
    for _ in 0..calls {
        work();
    }
    (processor_time() - before).as_secs_f64() / f64::from(calls)
}

/// How long this thread has had a core so far.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("processor time is not negative")
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Ends a round even if a call takes no time, as an absent peer's does.
const CALLS_MAX: u32 = 1 << 20;
const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
    }
}
