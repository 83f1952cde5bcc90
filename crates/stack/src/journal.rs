//! A journal for a person who looks at it: which sections are sound, and which blocks they hold.

use layers::integrity::{JournalReport, SectionReport, SectionState};
use serde::Serialize;
use units::Sector;

/// What a dm-integrity journal holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct JournalInspection {
    /// Every section, in the order in which they lie.
    pub sections: Vec<JournalSection>,
    /// Why it cannot be replayed with certainty; none if it can.
    pub problem: Option<String>,
    /// First sector and sectors of what becomes unreadable if it is replayed (`scrub --journal replay`).
    pub replay_loses: Vec<(u64, u64)>,
    /// The same of what another copy is thrown away of if it is not (`scrub --journal discard`).
    pub discard_loses: Vec<(u64, u64)>,
}

/// One section of a journal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct JournalSection {
    /// Its number.
    pub section: u32,
    /// Whether it was written whole, once, by whom it claims.
    pub sound: bool,
    /// What it is worth, in words.
    pub state: String,
    /// Whether replay would write its entries home.
    pub proven: bool,
    /// First sector and sectors of the blocks that its entries name, in order, neighbours together.
    pub holds: Vec<(u64, u64)>,
}

impl JournalInspection {
    /// Of a journal of blocks of `block_sectors` sectors.
    pub(crate) fn of(report: &JournalReport, block_sectors: u64) -> Self {
        let ranges = |sectors: &[Sector]| ranges(sectors, block_sectors);
        let section = |section: &SectionReport| JournalSection {
            section: section.section,
            sound: matches!(section.state, SectionState::Sound { .. }),
            state: words(section.state),
            proven: section.proven,
            holds: ranges(&section.sectors),
        };
        Self {
            sections: report.sections.iter().map(section).collect(),
            problem: report.problem.as_ref().map(ToString::to_string),
            replay_loses: ranges(&report.replay_loses),
            discard_loses: ranges(&report.discard_loses),
        }
    }
}

fn words(state: SectionState) -> String {
    match state {
        SectionState::Sound { lap } => format!("sound, lap {lap}"),
        SectionState::Torn => "torn: of two laps, a crash interrupted its writing".to_owned(),
        SectionState::Damaged { sector } => {
            format!("damaged: its sector {sector} carries the id of no lap")
        }
        SectionState::Forged => "damaged: it does not carry the MAC of its entries".to_owned(),
    }
}

/// Blocks as ranges, each of neighbours that follow each other.
fn ranges(sectors: &[Sector], block_sectors: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for sector in sectors {
        match ranges.last_mut() {
            Some((first, length)) if *first + *length == sector.0 => *length += block_sectors,
            _ => ranges.push((sector.0, block_sectors)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range_and_a_block_that_comes_again_is_not_lost() {
        let sectors = [8, 16, 24, 8, 16, 64].map(Sector);
        assert_eq!(ranges(&sectors, 8), [(8, 24), (8, 16), (64, 8)]);
        assert_eq!(ranges(&[], 8), []);
    }
}
