//! The flushes and FUA writes that disks are asked for, the reads and questions by which layers check, by
//! their reasons; and the one that is not done.
//!
//! A layer asks for an order by a flush that says what it must come before, and checks something by a read
//! that says what ([`bio::Bio::reason`]). A point that can be left out without any history noticing is
//! either redundant, or untested.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// What the disks of a scenario were asked for, in all its lives.
#[derive(Debug, Default)]
pub struct Orderings {
    without: Cell<Option<&'static str>>,
    seen: RefCell<BTreeSet<&'static str>>,
}

impl Orderings {
    /// From now on disks acknowledge the flushes of `reason` and do nothing, and take FUA from the
    /// writes of `reason`; and what is checked for `reason` comes out well.
    pub fn leave_out(&self, reason: Option<&'static str>) {
        self.without.set(reason);
    }

    /// The reasons that flushes, named FUA writes and checks had so far; an empty one is a flush that says
    /// none.
    #[must_use]
    pub fn seen(&self) -> BTreeSet<&'static str> {
        self.seen.borrow().clone()
    }

    /// Whether `reason` is the one that is left out.
    pub(crate) fn omits(&self, reason: &'static str) -> bool {
        self.without.get() == Some(reason)
    }

    /// Whether a disk is to honour what it is asked for `reason`.
    pub(crate) fn honours(&self, reason: &'static str) -> bool {
        self.seen.borrow_mut().insert(reason);
        self.without.get() != Some(reason)
    }
}
