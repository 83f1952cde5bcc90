//! Who runs next, and what time it is: a [`runtime::Driver`] whose every decision follows from a
//! seed, and the hash of everything that the disks saw.

use crate::rng::{Rng, mix};
use runtime::{Driver, Unpark, Wait};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A seeded scheduler with a clock that jumps.
pub struct SimDriver {
    rng: RefCell<Rng>,
    now: Cell<Duration>,
    stopped: Cell<bool>,
    turns: Cell<u64>,
    trace: Cell<u64>,
}

impl SimDriver {
    /// The schedule of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            rng: RefCell::new(Rng::derived(seed, 1)),
            now: Cell::default(),
            stopped: Cell::default(),
            turns: Cell::default(),
            trace: Cell::new(seed),
        })
    }

    /// Ends the world: nobody is polled any more.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    /// Rolls the schedule's own dice.
    pub fn roll<T>(&self, roll: impl FnOnce(&mut Rng) -> T) -> T {
        roll(&mut self.rng.borrow_mut())
    }

    /// Adds to the trace.
    pub fn note(&self, what: u64) {
        self.trace.set(mix(self.trace.get(), what));
    }

    /// The hash of everything that happened. Two runs of a seed give the same.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.get()
    }

    /// Whether it ran for so long that somebody must be going round in circles.
    #[must_use]
    pub fn exhausted(&self) -> bool {
        self.turns.get() >= TURNS_MAX
    }
}

impl Driver for SimDriver {
    fn now(&self) -> Duration {
        self.now.get()
    }

    fn turn(&self, wait: Wait) -> bool {
        self.turns.set(self.turns.get() + 1);
        if self.exhausted() {
            self.stop();
            return false;
        }
        match wait {
            // Even work takes time, so that a task that polls the clock gets somewhere.
            Wait::No => self.now.set(self.now.get() + Duration::from_micros(1)),
            Wait::Until(Some(deadline)) => self.now.set(self.now.get().max(deadline)),
            Wait::Until(None) => return false,
        }
        true
    }

    fn choose(&self, ready: usize) -> usize {
        self.roll(|rng| rng.index(ready))
    }

    fn stopped(&self) -> bool {
        self.stopped.get()
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::new(OneThread)
    }
}

/// Nobody sleeps on another thread.
struct OneThread;

impl Unpark for OneThread {
    fn unpark(&self) {}
}

/// More turns than any history here takes, by two orders of magnitude.
const TURNS_MAX: u64 = 2_000_000;
