//! The journal at open: read, judged, replayed or laid over.
//!
//! Replay writes the newest entry of each block home. An entry whose data is not what its tag
//! vouches for (the journal rotted) must neither be taken for good nor forgotten: its *tag* goes
//! home. If the block there is that very version, it verifies; if it is older, it becomes
//! unreadable, and says so, and redundancy above can bring back what the tag vouches for.

use super::Inner;
use super::home::newest_blocks;
use super::log::{Content, Entry, Section};
use super::overlay::Place;
use ::integrity::layout::JournalLayout;
use ::integrity::replay::Resume;
use ::integrity::{CommitIds, EntrySector, Plan, PlanError, SectionSummary, Sequence, Stamp};
use bio::{Bio, Buf, Device, EventKind, IoErrorKind, IoResult, Segments};
use checksum::BlockTagger;
use std::collections::{BTreeMap, HashMap};
use units::{Sector, u64_of, usize_of};

/// What a look at the whole journal found.
pub(super) struct Scan {
    pub plan: Result<Plan, PlanError>,
    summaries: Vec<SectionSummary>,
    /// Of each section, its used entries in order: number and sector.
    entries: Vec<Vec<(u32, u64)>>,
}

/// An entry that no kernel writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StrangeEntry {
    /// The section.
    pub section: u32,
    /// The entry in it.
    pub entry: u32,
    /// The sector that it names, which starts no block.
    pub sector: u64,
}

/// Reads the whole journal, a bounded piece at a time.
pub(super) async fn scan(lower: &Device, journal: &JournalLayout) -> IoResult<Scan> {
    let mut scan = Scan { plan: Err(PlanError::Empty), summaries: Vec::new(), entries: Vec::new() };
    for (first, count) in pieces(journal, lower.limits().max_bytes) {
        let start = journal.section_start(first);
        let piece = lower.read(start, journal.section_sectors * u64::from(count)).await?;
        let sections = piece.as_slice().chunks_exact(journal.section_bytes());
        for (number, section) in (first..).zip(sections) {
            scan.summaries.push(journal.summarise(section, number, &CommitIds::PLAIN));
            scan.entries.push(used_entries(journal, section));
        }
    }
    scan.plan = Plan::new(&scan.summaries);
    Ok(scan)
}

/// First section and number of sections of each piece of the journal that is read at once.
fn pieces(journal: &JournalLayout, max_bytes: u64) -> impl Iterator<Item = (u32, u32)> + use<> {
    let at_once = max_bytes.min(PIECE_BYTES) / u64_of(journal.section_bytes());
    let at_once = u32::try_from(at_once.max(1)).expect("a few MiB");
    let sections = journal.sections;
    (0..sections)
        .step_by(usize_of(at_once.into()))
        .map(move |first| (first, at_once.min(sections - first)))
}

fn used_entries(journal: &JournalLayout, section: &[u8]) -> Vec<(u32, u64)> {
    let used = |entry| match journal.entry_sector(section, entry) {
        EntrySector::Used(sector) => Some((entry, sector)),
        EntrySector::Unused => None,
    };
    (0..journal.entries_per_section).filter_map(used).collect()
}

impl Scan {
    /// The first entry to be replayed whose sector starts no block, below `provided`.
    pub fn strange_entry(&self, journal: &JournalLayout, provided: u64) -> Option<StrangeEntry> {
        let plan = self.plan.as_ref().ok()?;
        plan.replay_order().find_map(|section| {
            let entries = self.entries[usize_of(section.into())].iter();
            let mut strange =
                entries.filter(|(_, sector)| *sector < provided && !journal.block.divides(*sector));
            strange.next().map(|&(entry, sector)| StrangeEntry { section, entry, sector })
        })
    }

    /// Entries that replay would write home.
    pub fn entries_to_replay(&self) -> usize {
        let Ok(plan) = &self.plan else { return 0 };
        plan.replay_order().map(|section| self.entries[usize_of(section.into())].len()).sum()
    }

    /// Where the newest copy of each block lies, for laying it over.
    ///
    /// With a damaged journal, its damaged sections count as torn: what replay would write then is
    /// certain, and whatever else the journal names is not.
    pub fn places(&self, journal: &JournalLayout, provided: u64) -> HashMap<u64, Place> {
        let mut places = HashMap::new();
        let mut add = |section: u32, certain: bool| {
            for &(entry, sector) in &self.entries[usize_of(section.into())] {
                if sector < provided && journal.block.divides(sector) {
                    places.insert(sector, Place { section, entry, certain });
                }
            }
        };
        match (&self.plan, Plan::despite_damage(&self.summaries)) {
            (Ok(plan), _) => plan.replay_order().for_each(|section| add(section, true)),
            (Err(_), Ok(plan)) => {
                plan.replay_order().for_each(|section| add(section, true));
                plan.unproven_order().for_each(|section| add(section, false));
            }
            (Err(_), Err(_)) => (0..journal.sections).for_each(|section| add(section, false)),
        }
        places
    }
}

impl Inner {
    /// Writes everything home that the plan says, and makes it durable.
    pub(super) async fn replay(&self, scan: &Scan, plan: &Plan) -> Result<(), IoErrorKind> {
        let journal = &self.layout.journal;
        // The newest entry of each block: later ones in replay order replace earlier ones.
        let mut newest: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        for section in plan.replay_order() {
            for &(entry, sector) in &scan.entries[usize_of(section.into())] {
                if sector < self.layout.provided_sectors {
                    newest.insert(sector, (section, entry));
                }
            }
        }
        if newest.is_empty() {
            return Ok(());
        }
        let mut wanted: Vec<Vec<Entry>> = vec![Vec::new(); usize_of(journal.sections.into())];
        for (&sector, &(section, index)) in &newest {
            let entry = Entry { index, sector, content: Content::Data };
            wanted[usize_of(section.into())].push(entry);
        }
        for (first, count) in pieces(journal, self.lower.limits().max_bytes) {
            let mut sections = Vec::new();
            for number in first..first + count {
                let entries = std::mem::take(&mut wanted[usize_of(number.into())]);
                if entries.is_empty() {
                    continue;
                }
                let start = journal.section_start(number);
                let bytes = self.lower.read(start, journal.section_sectors).await;
                let bytes = bytes.map_err(|error| error.kind)?;
                let entries = self.judge(bytes.as_slice(), entries);
                sections.push(Section::found(number, bytes, entries));
            }
            self.write_home(&newest_blocks(&sections)).await?;
        }
        self.lower.flush().await.map_err(|error| error.kind)?;
        let detail = format!("{} blocks written home", newest.len());
        self.events.emit_detail(EventKind::JournalReplayed, Sector::ZERO, 0, detail);
        Ok(())
    }

    /// Of entries whose data is not what their tag vouches for, only the tag is to go home.
    fn judge(&self, section: &[u8], mut entries: Vec<Entry>) -> Vec<Entry> {
        let journal = &self.layout.journal;
        let mut block = vec![0; self.block_bytes()];
        for entry in &mut entries {
            journal.read_data(section, entry.index, &mut block);
            let tag = journal.entry_tag(section, entry.index);
            if self.tagger.verify(entry.sector, &block, tag).is_some() {
                entry.content = Content::Tag;
                self.tell_mismatch(entry.sector, tag, &block);
            }
        }
        entries
    }
}

/// Writes the journal anew where the plan demands it, and says where to go on.
pub(super) async fn resume(
    lower: &Device,
    journal: &JournalLayout,
    plan: &Plan,
) -> IoResult<(u32, Sequence)> {
    match plan.resume {
        Resume::InPlace { section, sequence } => Ok((section, sequence)),
        Resume::Reinitialise { initial } => {
            for batch in plan.reinitialise_order() {
                initialise(lower, journal, &batch, initial).await?;
            }
            Ok((0, initial.plus(1)))
        }
    }
}

/// Initialises `sections` with `sequence`, durable when complete.
pub(super) async fn initialise(
    lower: &Device,
    journal: &JournalLayout,
    sections: &[u32],
    sequence: Sequence,
) -> IoResult {
    if sections.is_empty() {
        return Ok(());
    }
    let at_once = lower.limits().max_bytes.min(PIECE_BYTES) / u64_of(journal.section_bytes());
    for run in sections.chunk_by(|a, b| a + 1 == *b) {
        for piece in run.chunks(usize_of(at_once.max(1))) {
            let data: Segments = (piece.iter())
                .map(|&number| {
                    let mut section = Buf::alloc(journal.section_bytes());
                    journal.initialise(section.as_mut_slice());
                    let stamp = Stamp { ids: CommitIds::PLAIN, section: number, sequence };
                    journal.stamp(section.as_mut_slice(), &stamp);
                    section
                })
                .collect();
            lower.submit(&mut Bio::write(journal.section_start(piece[0]), data)).await?;
        }
    }
    lower.flush().await
}

/// Whether any entry of the journal verifies: then algorithm and salt are right.
pub(super) async fn some_entry_verifies(
    lower: &Device,
    journal: &JournalLayout,
    tagger: &BlockTagger,
    scan: &Scan,
) -> bool {
    let used = (0_u32..).zip(&scan.entries).filter(|(_, entries)| !entries.is_empty());
    for (number, entries) in used.take(SECTIONS_SAMPLED) {
        let start = journal.section_start(number);
        let Ok(section) = lower.read(start, journal.section_sectors).await else { continue };
        let mut block = vec![0; journal.block.bytes()];
        for &(entry, sector) in entries.iter().take(ENTRIES_SAMPLED) {
            journal.read_data(section.as_slice(), entry, &mut block);
            let tag = journal.entry_tag(section.as_slice(), entry);
            if tagger.verify(sector, &block, tag).is_none() {
                return true;
            }
        }
    }
    false
}

/// Bytes of journal read or written at once.
const PIECE_BYTES: u64 = 4 << 20;
const SECTIONS_SAMPLED: usize = 4;
const ENTRIES_SAMPLED: usize = 8;
