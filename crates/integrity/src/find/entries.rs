//! What the entries of a journal say for and against a block and a tag size.

use super::SaltOf;
use super::candidate::{Form, JournalWindow, Votes};
use crate::journal::EntrySector;
use crate::layout::JournalLayout;
use units::{SECTOR_BYTES, Sector, usize_of};

/// Entries whose data is hashed, at most.
const HASHED_MAX: u32 = 64;
/// Sections that are looked at, at most.
const SECTIONS_MAX: u32 = 64;
const UNUSED_MARK: [u8; 4] = [0xff; 4];

/// What was found where a form says that entries are.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    /// Unused, as a writer leaves them, or used with numbers that can be.
    pub(super) fit: u32,
    /// Neither: no entry, or not of this form.
    pub(super) odd: u32,
    /// Used entries.
    pub(super) used: u32,
    /// Used entries whose tag ends with a zero byte.
    pub(super) tag_ends_zero: u32,
    /// Metadata sectors in which something lies where only a MAC's slice can.
    pub(super) slices: u32,
    /// The salts of used entries.
    pub(super) votes: Votes,
}

pub(super) fn look(
    journal: &JournalLayout,
    form: Form,
    window: JournalWindow,
    salt_of: SaltOf,
) -> Findings {
    let mut findings = Findings::default();
    let mut block = vec![0; journal.block.bytes()];
    for number in 0..journal.sections.min(SECTIONS_MAX) {
        let Some(section) = window.section(journal, number) else { break };
        findings.slices += slices(journal, section);
        for entry in 0..journal.entries_per_section {
            let header = journal.entry_header(section, entry);
            match journal.entry_sector(section, entry) {
                // The kernel leaves zeroes behind the mark, or what was there before.
                EntrySector::Unused if header[4..8] == UNUSED_MARK => findings.fit += 1,
                EntrySector::Used(sector) if can_be(sector, header, form, window.sectors) => {
                    findings.fit += 1;
                    findings.used += 1;
                    let tag = journal.entry_tag(section, entry);
                    findings.tag_ends_zero += u32::from(tag.last() == Some(&0));
                    if findings.votes.asked < HASHED_MAX {
                        journal.read_data(section, entry, &mut block);
                        findings.votes.count(salt_of(Sector(sector), &block, tag));
                    }
                }
                _ => findings.odd += 1,
            }
        }
    }
    findings
}

/// An address of a block within the device, and zeroes behind the tag.
fn can_be(sector: u64, header: &[u8], form: Form, device: u64) -> bool {
    let tag_end = 8 + 8 * usize_of(form.block.sectors()) + usize::from(form.tag_size);
    let blank = header.iter().all(|byte| *byte == 0);
    !blank
        && form.block.divides(sector)
        && sector < device
        && header[tag_end..].iter().all(|byte| *byte == 0)
}

/// Metadata sectors of a section with something in the MAC's place, if entries never reach there.
fn slices(journal: &JournalLayout, section: &[u8]) -> u32 {
    let room = usize_of(journal.entries_per_sector.into()) * journal.entry_bytes;
    if room > 496 {
        return 0;
    }
    let metadata = section.chunks_exact(SECTOR_BYTES).take(8);
    let filled = metadata.filter(|sector| sector[496..504].iter().any(|byte| *byte != 0));
    u32::try_from(filled.count()).expect("at most eight")
}
