//! The journal's geometry from the commit ids of its sectors.

use super::candidate::forms;
use crate::journal::{CommitIds, Sequence};
use crate::layout::SECTION_METADATA_SECTORS;
use crate::superblock::AREA_SECTORS;
use std::collections::BTreeMap;
use units::{SECTOR_BYTES, u64_of, usize_of};

/// What the ids of a journal say about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalTrace {
    /// Sectors of a section.
    pub section_sectors: u64,
    /// Sections: those of which something was seen, and all before them.
    pub sections: u32,
    /// Sectors whose id is one of their place.
    pub witnesses: u64,
    /// Sectors of the journal that lie in the window.
    pub seen: u64,
    /// Whether the window reaches beyond the journal. If not, there may be more sections.
    pub complete: bool,
}

/// A sector whose id names a place that it may be at.
struct Witness {
    /// Sectors behind the superblock's area.
    at: u64,
    section: u64,
    sector: u64,
}

impl JournalTrace {
    /// Looks at the first bytes of the (metadata) device, the superblock's area included. None if no
    /// sector carries an id that can be at its place. Needs memory for a fraction of the window only.
    ///
    /// A single section does not tell its length but by its last sector; where that is damaged, the
    /// shortest section is taken that some volume could have.
    #[must_use]
    pub fn find(window: &[u8], ids: &CommitIds) -> Option<Self> {
        let witnesses: Vec<Witness> = witnesses(window, ids).collect();
        let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
        for witness in witnesses.iter().filter(|witness| witness.section > 0) {
            let before = witness.at - witness.sector;
            if before.is_multiple_of(witness.section) {
                *votes.entry(before / witness.section).or_default() += 1;
            }
        }
        votes.retain(|sectors, _| is_section(*sectors));
        let best = votes.into_iter().max_by_key(|(_, count)| *count);
        let section_sectors = match best {
            Some((sectors, _)) => sectors,
            None => shortest_section(witnesses.iter().map(|witness| witness.sector).max()? + 1)?,
        };
        let fits = |witness: &&Witness| {
            witness.sector < section_sectors
                && witness.at == witness.section * section_sectors + witness.sector
        };
        let mut per_section: BTreeMap<u64, u64> = BTreeMap::new();
        for witness in witnesses.iter().filter(fits) {
            *per_section.entry(witness.section).or_default() += 1;
        }
        let window_sectors = u64_of(window.len() / SECTOR_BYTES) - AREA_SECTORS;
        // A stray sector of an older, longer journal is no section.
        let whole = per_section.iter().filter(|(section, count)| {
            let seen = section_sectors.min(window_sectors - *section * section_sectors);
            **count * 2 > seen
        });
        let last = whole.map(|(section, _)| *section).max();
        let last = last.or_else(|| per_section.keys().copied().max())?;
        let sections = u32::try_from(last + 1).ok()?;

        let journal = section_sectors * (last + 1);
        Some(Self {
            section_sectors,
            sections,
            witnesses: per_section.range(..=last).map(|(_, count)| count).sum(),
            seen: journal.min(window_sectors),
            complete: window_sectors > journal,
        })
    }

    /// Sectors before the first tag.
    #[must_use]
    pub fn initial_sectors(&self) -> u64 {
        AREA_SECTORS + self.section_sectors * u64::from(self.sections)
    }
}

fn witnesses<'a>(window: &'a [u8], ids: &'a CommitIds) -> impl Iterator<Item = Witness> + 'a {
    let journal = window.chunks_exact(SECTOR_BYTES).skip(usize_of(AREA_SECTORS));
    (0..).zip(journal).flat_map(move |(at, sector)| {
        let mut id = [0; 8];
        id.copy_from_slice(&sector[SECTOR_BYTES - 8..]);
        let found = u64::from_le_bytes(id);
        Sequence::ALL.into_iter().filter_map(move |lap| {
            let place = found ^ ids.id(0, 0, lap);
            let (section, sector) = (place >> 32, place & 0xffff_ffff);
            // Section s ends behind s sections of at least the sectors of this one.
            let before = section.checked_mul(sector + 1)?;
            let here =
                if section == 0 { sector == at } else { before <= at.checked_sub(sector)? };
            here.then_some(Witness { at, section, sector })
        })
    })
}

/// Whether some volume has sections of so many sectors.
fn is_section(sectors: u64) -> bool {
    sectors <= SECTION_SECTORS_MAX && !forms(sectors).is_empty()
}

fn shortest_section(sectors_min: u64) -> Option<u64> {
    let start = sectors_min.max(SECTION_METADATA_SECTORS + 1).next_multiple_of(8);
    (start..=SECTION_SECTORS_MAX).step_by(8).find(|sectors| is_section(*sectors))
}

/// Blocks of 512 bytes with a tag of one: 21 entries in each of 8 sectors, and those sectors. Larger
/// blocks have longer entries: 1024, 2048, 4096 bytes make 248, 328, 392 sectors at most.
const SECTION_SECTORS_MAX: u64 = 392;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_section_is_longer_than_the_longest() {
        let longest = (9..5000).filter(|sectors| !forms(*sectors).is_empty()).max();
        assert_eq!(longest, Some(SECTION_SECTORS_MAX));
    }
}
