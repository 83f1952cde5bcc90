//! The walk: steps in order, several in flight, at the pace that was asked for.

use crate::Summary;
use bio::{Extent, Findings, Scrub, ScrubMode};
use runtime::JoinHandle;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;
use units::SECTOR;

/// How to walk.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether anything may be written.
    pub mode: ScrubMode,
    /// Only the steps that stand for these sectors of the volume; none: all of them.
    pub range: Option<Extent>,
    /// The step to begin with: a stopped walk's [`Summary::stopped_at`], or 0.
    pub first_step: u64,
    /// Bytes of all members together that are read in a second, at most.
    pub bytes_per_second: Option<u64>,
    /// Steps in flight, at least one.
    pub in_flight: usize,
    /// Lines that the summary keeps.
    pub list_max: usize,
}

impl Options {
    /// Everything, as fast as it goes.
    #[must_use]
    pub const fn new(mode: ScrubMode) -> Self {
        Self {
            mode,
            range: None,
            first_step: 0,
            bytes_per_second: None,
            in_flight: 4,
            list_max: 1000,
        }
    }
}

/// How far the walk has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Steps behind us.
    pub done: u64,
    /// Steps in all.
    pub total: u64,
    /// The first step that is not behind us: [`Options::first_step`] of who goes on from here.
    pub next_step: u64,
    /// Member sectors read and checked.
    pub checked_sectors: u64,
}

/// Walks `volume` and reports. After each step `on_progress` is told, and may stop the walk: then
/// what is in flight is waited for (nothing cancels) and the summary says where to go on.
pub async fn run(
    volume: Rc<dyn Scrub>,
    options: &Options,
    mut on_progress: impl FnMut(&Progress, &Summary) -> ControlFlow<()>,
) -> Summary {
    let mut walk = Walk::new(volume, options);
    while let Some((step, findings)) = walk.next().await {
        walk.summary.add(findings);
        walk.progress.done += 1;
        walk.progress.next_step = step + 1;
        walk.progress.checked_sectors = walk.summary.checked_sectors;
        let go_on = on_progress(&walk.progress, &walk.summary);
        if go_on.is_break() && walk.summary.stopped_at.is_none() && walk.upcoming < walk.end {
            walk.summary.stopped_at = Some(walk.upcoming);
            walk.end = walk.upcoming;
        }
        walk.keep_pace().await;
    }
    walk.summary
}

struct Walk {
    volume: Rc<dyn Scrub>,
    mode: ScrubMode,
    upcoming: u64,
    end: u64,
    in_flight: VecDeque<(u64, JoinHandle<Findings>)>,
    in_flight_max: usize,
    bytes_per_second: Option<u64>,
    started: Duration,
    progress: Progress,
    summary: Summary,
}

impl Walk {
    fn new(volume: Rc<dyn Scrub>, options: &Options) -> Self {
        let (first, end) = steps_of(&*volume, options.range);
        let first = first.max(options.first_step).min(end);
        Self {
            volume,
            mode: options.mode,
            upcoming: first,
            end,
            in_flight: VecDeque::new(),
            in_flight_max: options.in_flight.max(1),
            bytes_per_second: options.bytes_per_second,
            started: runtime::now(),
            progress: Progress {
                done: 0,
                total: end - first,
                next_step: first,
                checked_sectors: 0,
            },
            summary: Summary::new(options.list_max),
        }
    }

    /// Keeps the pipe full and waits for its oldest step.
    async fn next(&mut self) -> Option<(u64, Findings)> {
        while self.upcoming < self.end && self.in_flight.len() < self.in_flight_max {
            let (volume, mode, step) = (Rc::clone(&self.volume), self.mode, self.upcoming);
            let task = runtime::spawn(async move { volume.scrub(step, mode).await });
            self.in_flight.push_back((step, task));
            self.upcoming += 1;
        }
        let (step, task) = self.in_flight.pop_front()?;
        Some((step, task.await))
    }

    async fn keep_pace(&self) {
        let Some(rate) = self.bytes_per_second else { return };
        let bytes = u128::from(self.progress.checked_sectors) * u128::from(SECTOR);
        let nanoseconds = bytes * 1_000_000_000 / u128::from(rate.max(1));
        let due = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let ahead = due.saturating_sub(runtime::now().saturating_sub(self.started));
        if !ahead.is_zero() {
            runtime::sleep(ahead).await;
        }
    }
}

/// The steps that stand for `range`: first, and behind the last. Steps follow the volume's order,
/// so both ends are found by halving.
fn steps_of(volume: &dyn Scrub, range: Option<Extent>) -> (u64, u64) {
    let steps = volume.steps();
    let Some(range) = range else { return (0, steps) };
    let range_end = range.sector.0.saturating_add(range.sectors);
    let ends_after = |step| {
        let extent = volume.step_extent(step);
        // Steps beyond the volume's end stand for nothing and lie behind every range.
        extent.sectors == 0 || extent.sector.0.saturating_add(extent.sectors) > range.sector.0
    };
    let starts_after = |step| {
        let extent = volume.step_extent(step);
        extent.sectors == 0 || extent.sector.0 >= range_end
    };
    let first = first_where(steps, ends_after);
    (first, first_where(steps, starts_after).max(first))
}

/// The first of `count` numbers for which `holds`, which once it holds does so for all that follow.
fn first_where(count: u64, holds: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use bio::{Finding, LocalFuture};
    use std::cell::{Cell, RefCell};
    use units::Sector;

    /// Ten steps of 16 sectors over a volume of 100: the last steps lie beyond its end.
    #[derive(Default)]
    struct Ten {
        asked: RefCell<Vec<u64>>,
        running: Cell<usize>,
        running_max: Cell<usize>,
    }

    impl Scrub for Ten {
        fn steps(&self) -> u64 {
            10
        }
        fn step_extent(&self, step: u64) -> Extent {
            let start = (step * 16).min(100);
            Extent { sector: Sector(start), sectors: (100 - start).min(16) }
        }
        fn scrub(&self, step: u64, _mode: ScrubMode) -> LocalFuture<'_, Findings> {
            Box::pin(async move {
                self.asked.borrow_mut().push(step);
                self.running.set(self.running.get() + 1);
                self.running_max.set(self.running_max.get().max(self.running.get()));
                // Later steps end first.
                runtime::sleep(Duration::from_millis(100 - 10 * step)).await;
                self.running.set(self.running.get() - 1);
                let found = vec![(Finding::Healed, None, self.step_extent(step))];
                Findings { checked_sectors: 1024, found }
            })
        }
    }

    fn walk(
        options: Options,
        on_progress: impl FnMut(&Progress, &Summary) -> ControlFlow<()> + 'static,
    ) -> (Rc<Ten>, Summary, Duration) {
        runtime::block_on(async move {
            let volume = Rc::new(Ten::default());
            let start = runtime::now();
            let summary = run(Rc::clone(&volume) as Rc<dyn Scrub>, &options, on_progress).await;
            (volume, summary, runtime::now() - start)
        })
    }

    #[test]
    fn every_step_is_done_once_and_findings_come_in_order() {
        let options = Options::new(ScrubMode::Repair);
        let (volume, summary, _) = walk(options, |_, _| ControlFlow::Continue(()));
        assert_eq!(*volume.asked.borrow(), (0..10).collect::<Vec<_>>());
        assert_eq!(volume.running_max.get(), 4);
        assert_eq!(summary.lines.len(), 1, "neighbours join only if they come in order");
        assert_eq!(summary.total(Finding::Healed).sectors, 100);
        assert_eq!(summary.stopped_at, None);
    }

    #[test]
    fn a_range_walks_the_steps_that_touch_it() {
        for (range, expected) in [((16, 16), vec![1]), ((15, 2), vec![0, 1]), ((96, 4), vec![6])] {
            let range = Extent { sector: Sector(range.0), sectors: range.1 };
            let options = Options { range: Some(range), ..Options::new(ScrubMode::Check) };
            let (volume, ..) = walk(options, |_, _| ControlFlow::Continue(()));
            assert_eq!(*volume.asked.borrow(), expected, "{range:?}");
        }
    }

    #[test]
    fn a_stopped_walk_finishes_what_it_started_and_can_go_on() {
        let stop = |progress: &Progress, _: &Summary| match progress.done {
            2.. => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let (volume, summary, _) = walk(Options::new(ScrubMode::Check), stop);
        assert_eq!(volume.running.get(), 0);
        let next = summary.stopped_at.unwrap();
        assert_eq!(*volume.asked.borrow(), (0..next).collect::<Vec<_>>());
        let rest = Options { first_step: next, ..Options::new(ScrubMode::Check) };
        let (volume, summary, _) = walk(rest, |_, _| ControlFlow::Continue(()));
        assert_eq!(*volume.asked.borrow(), (next..10).collect::<Vec<_>>());
        assert_eq!(summary.stopped_at, None);
    }

    #[test]
    fn the_rate_is_kept() {
        let rate = Some(1024 * 512);
        let options = Options { bytes_per_second: rate, ..Options::new(ScrubMode::Check) };
        let (_, _, elapsed) = walk(options, |_, _| ControlFlow::Continue(()));
        assert_eq!(elapsed, Duration::from_secs(10));
    }
}
