//! What a scrub found, in bounded memory.

use bio::{Extent, Finding, Findings};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// The worst thing that was found; the order is that of severity.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// Everything is as it was written.
    Healthy,
    /// All data is right, but something was wrong: healed, resynced, or could be.
    Healed,
    /// Some sectors cannot be given back, or nobody knows which copy is right.
    Damaged,
}

impl Outcome {
    /// The exit code that says so.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Healed => 1,
            Self::Damaged => 2,
        }
    }

    /// How bad one finding is.
    #[must_use]
    pub const fn of(finding: Finding) -> Self {
        match finding {
            Finding::Healed | Finding::Healable | Finding::Resynced | Finding::Decided => {
                Self::Healed
            }
            Finding::Unreadable | Finding::Inconsistent | Finding::Inferred => Self::Damaged,
        }
    }
}

/// One kind of finding, summed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Total {
    /// Runs of sectors.
    pub extents: u64,
    /// Sectors in them.
    pub sectors: u64,
}

/// The sums of all kinds of findings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Totals([Total; FINDINGS.len()]);

impl Totals {
    /// The sum for one kind.
    #[must_use]
    pub fn of(&self, finding: Finding) -> Total {
        let mut each = FINDINGS.iter().zip(&self.0);
        each.find(|(kind, _)| **kind == finding).map_or_else(Total::default, |(_, total)| *total)
    }

    fn add(&mut self, finding: Finding, more: Total) {
        for (_, total) in FINDINGS.iter().zip(&mut self.0).filter(|(kind, _)| **kind == finding) {
            total.extents += more.extents;
            total.sectors += more.sectors;
        }
    }
}

/// One line of the list: a run of sectors that the same thing happened to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// What was found.
    pub finding: Finding,
    /// On which member; none: the stripe as a whole, in sectors of the volume.
    pub member: Option<Rc<str>>,
    /// Where.
    pub extent: Extent,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Extent { sector, sectors } = self.extent;
        let place = self.member.as_deref().unwrap_or("volume");
        write!(f, "{place}: {} at sector {sector} ({sectors} sectors)", word(self.finding))
    }
}

/// Every kind of finding, in the order of reports.
pub const FINDINGS: [Finding; 7] = [
    Finding::Healed,
    Finding::Healable,
    Finding::Resynced,
    Finding::Decided,
    Finding::Inferred,
    Finding::Inconsistent,
    Finding::Unreadable,
];

/// The word for a finding, in reports.
#[must_use]
pub const fn word(finding: Finding) -> &'static str {
    match finding {
        Finding::Healed => "healed",
        Finding::Healable => "healable",
        Finding::Unreadable => "unreadable",
        Finding::Inconsistent => "inconsistent",
        Finding::Inferred => "inferred",
        Finding::Decided => "decided",
        Finding::Resynced => "resynced",
    }
}

/// Everything that was found: exact totals, and a list that stops growing.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Member sectors that were read and checked.
    pub checked_sectors: u64,
    totals: Totals,
    members: BTreeMap<Rc<str>, Totals>,
    /// The findings in order of their steps, neighbours joined, the first `list_max` of them.
    pub lines: Vec<Line>,
    /// Lines that had no room in the list; the totals count them.
    pub unlisted: u64,
    /// The first step that was not done, if the walk was stopped: where to go on.
    pub stopped_at: Option<u64>,
    list_max: usize,
}

impl Summary {
    /// Nothing found so far; at most `list_max` lines will be kept.
    #[must_use]
    pub fn new(list_max: usize) -> Self {
        Self {
            checked_sectors: 0,
            totals: Totals::default(),
            members: BTreeMap::new(),
            lines: Vec::new(),
            unlisted: 0,
            stopped_at: None,
            list_max,
        }
    }

    /// Adds what a step found.
    pub fn add(&mut self, findings: Findings) {
        self.checked_sectors += findings.checked_sectors;
        for (finding, member, extent) in findings.found {
            self.add_line(Line { finding, member, extent });
        }
    }

    /// The sum for one kind of finding.
    #[must_use]
    pub fn total(&self, finding: Finding) -> Total {
        self.totals.of(finding)
    }

    /// The members on which something was found, by name, with their own sums. What concerns a whole
    /// stripe is nobody's.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Totals)> {
        self.members.iter().map(|(name, totals)| (name.as_ref(), totals))
    }

    /// The worst thing that was found.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let found = FINDINGS.into_iter().filter(|&finding| self.total(finding).sectors > 0);
        found.map(Outcome::of).max().unwrap_or(Outcome::Healthy)
    }

    fn add_line(&mut self, line: Line) {
        let joins =
            self.unlisted == 0 && self.lines.last().is_some_and(|last| follows(last, &line));
        let one = Total { extents: u64::from(!joins), sectors: line.extent.sectors };
        self.totals.add(line.finding, one);
        if let Some(name) = &line.member {
            self.members.entry(Rc::clone(name)).or_default().add(line.finding, one);
        }
        if joins && let Some(last) = self.lines.last_mut() {
            last.extent.sectors += line.extent.sectors;
            return;
        }
        if self.lines.len() < self.list_max {
            self.lines.push(line);
        } else {
            self.unlisted += 1;
        }
    }
}

fn follows(last: &Line, next: &Line) -> bool {
    last.finding == next.finding
        && last.member == next.member
        && last.extent.sector.0.checked_add(last.extent.sectors) == Some(next.extent.sector.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::Sector;

    fn found(finding: Finding, sector: u64, sectors: u64) -> Findings {
        let extent = Extent { sector: Sector(sector), sectors };
        Findings { checked_sectors: 8, found: vec![(finding, Some("a".into()), extent)] }
    }

    #[test]
    fn neighbours_are_one_line() {
        let mut summary = Summary::new(10);
        summary.add(found(Finding::Healed, 0, 8));
        summary.add(found(Finding::Healed, 8, 8));
        summary.add(found(Finding::Unreadable, 16, 8));
        assert_eq!(summary.lines.len(), 2);
        assert_eq!(summary.total(Finding::Healed), Total { extents: 1, sectors: 16 });
        assert_eq!(summary.checked_sectors, 24);
        let members: Vec<_> = summary.members().collect();
        assert_eq!((members.len(), members[0].0), (1, "a"));
        assert_eq!(members[0].1.of(Finding::Unreadable), Total { extents: 1, sectors: 8 });
        assert_eq!(summary.lines[0].to_string(), "a: healed at sector 0 (16 sectors)");
    }

    #[test]
    fn the_list_is_bounded_and_the_totals_are_not() {
        let mut summary = Summary::new(2);
        for n in 0..10 {
            summary.add(found(Finding::Healable, n * 100, 8));
        }
        assert_eq!((summary.lines.len(), summary.unlisted), (2, 8));
        assert_eq!(summary.total(Finding::Healable), Total { extents: 10, sectors: 80 });
    }

    #[test]
    fn the_worst_finding_decides() {
        let mut summary = Summary::new(2);
        assert_eq!(summary.outcome().exit_code(), 0);
        summary.add(found(Finding::Resynced, 0, 8));
        assert_eq!(summary.outcome().exit_code(), 1);
        summary.add(found(Finding::Inconsistent, 0, 8));
        summary.add(found(Finding::Healed, 64, 8));
        assert_eq!(summary.outcome().exit_code(), 2);
    }
}
