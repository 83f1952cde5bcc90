//! What happened to a volume while it was open: the last events, and counters for each member.

use bio::{Event, EventKind, Events};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// What was counted for one member since the volume was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Blocks that were not what their tags vouch for.
    pub mismatches: u64,
    /// Sectors that the device could not read.
    pub medium_errors: u64,
    /// Sectors rebuilt and written back.
    pub healed_sectors: u64,
    /// Sectors that could be rebuilt, where nothing may be written.
    pub healable_sectors: u64,
    /// Sectors that nothing could give back.
    pub lost_sectors: u64,
}

impl Counters {
    /// Whether anything was counted.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    fn count(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Mismatch { .. } => self.mismatches += 1,
            EventKind::MediumError => self.medium_errors += event.sectors,
            EventKind::Healed { .. } => self.healed_sectors += event.sectors,
            EventKind::Healable => self.healable_sectors += event.sectors,
            EventKind::Lost => self.lost_sectors += event.sectors,
            _ => {}
        }
    }
}

/// The last events, and what was counted. Cheap to clone: clones are the same log.
#[derive(Clone, Default)]
pub struct EventLog(Rc<Inner>);

#[derive(Default)]
struct Inner {
    last: RefCell<VecDeque<Event>>,
    dropped: Cell<u64>,
    members: RefCell<BTreeMap<Rc<str>, Counters>>,
    volume: Cell<Counters>,
}

impl EventLog {
    /// Where events go: into this log, and then to `also`.
    pub(crate) fn events(&self, also: Rc<dyn Fn(&Event)>) -> Events {
        let log = self.clone();
        Events::new(move |event| {
            log.add(&event);
            also(&event);
            let mut last = log.0.last.borrow_mut();
            if last.len() == KEPT {
                last.pop_front();
                log.0.dropped.set(log.0.dropped.get() + 1);
            }
            last.push_back(event);
        })
    }

    fn add(&self, event: &Event) {
        if let Some(member) = &event.member {
            let mut members = self.0.members.borrow_mut();
            members.entry(Rc::clone(member)).or_default().count(event);
        } else {
            let mut volume = self.0.volume.get();
            volume.count(event);
            self.0.volume.set(volume);
        }
    }

    /// The last events, oldest first.
    #[must_use]
    pub fn last(&self) -> Vec<Event> {
        self.0.last.borrow().iter().cloned().collect()
    }

    /// Events that are no longer in [`Self::last`].
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// What was counted for a member.
    #[must_use]
    pub fn counters(&self, member: &str) -> Counters {
        self.0.members.borrow().get(member).copied().unwrap_or_default()
    }

    /// What was counted for the volume as a whole, in its own sectors.
    #[must_use]
    pub fn volume_counters(&self) -> Counters {
        self.0.volume.get()
    }
}

/// Begins what is said of a damaged dm-integrity superblock.
pub(crate) const INTEGRITY_SUPERBLOCK: &str = "dm-integrity superblock";
/// Begins what is said of a damaged md superblock.
pub(crate) const MD_SUPERBLOCK: &str = "md superblock";

/// Whether an event is about a superblock as a whole, not about the sectors in which it lies: these
/// are the device's own below dm-integrity, which are not the sectors of the same number above.
#[must_use]
pub fn is_of_superblock(event: &Event) -> bool {
    [INTEGRITY_SUPERBLOCK, MD_SUPERBLOCK].iter().any(|name| event.detail.starts_with(name))
}

/// Events that are kept.
const KEPT: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use units::Sector;

    #[test]
    fn events_are_counted_for_their_member_and_passed_on() {
        let log = EventLog::default();
        let passed = Rc::new(Cell::new(0));
        let count = Rc::clone(&passed);
        let events = log.events(Rc::new(move |_| count.set(count.get() + 1)));
        let healed = EventKind::Healed { source: "parity", vouched: true };
        events.for_member("a").emit(healed, Sector(8), 8);
        events.emit(EventKind::Lost, Sector(0), 16);
        assert_eq!(log.counters("a").healed_sectors, 8);
        assert_eq!(log.volume_counters().lost_sectors, 16);
        assert!(!log.counters("b").any());
        assert_eq!((passed.get(), log.last().len()), (2, 2));
    }

    #[test]
    fn the_log_is_bounded() {
        let log = EventLog::default();
        let events = log.events(Rc::new(|_| ()));
        for sector in 0..1500 {
            events.emit(EventKind::Note, Sector(sector), 1);
        }
        assert_eq!((log.last().len(), log.dropped()), (1000, 500));
        assert_eq!(log.last()[0].sector, Sector(500));
    }
}
