//! The journal at open: read, judged, replayed or laid over.
//!
//! Replay writes the newest entry of each block home. An entry whose data is not what its tag
//! vouches for (the journal rotted) must neither be taken for good nor forgotten: its *tag* goes
//! home. If the block there is that very version, it verifies; if it is older, it becomes
//! unreadable, and says so, and redundancy above can bring back what the tag vouches for. An entry
//! of which one bit of the sector number rotted tells by its tag which block it was meant for.

use super::Inner;
use super::codec::Codec;
use super::confirm::{ATTEMPTS, NotHome};
use super::home::newest_blocks;
use super::mend::{SectionReport, SectionState};
use super::open::Restriction;
use super::ordering::{ANEW, REPLAYED};
use super::overlay::Place;
use super::section::{Content, Entry, Section};
use super::source::Tagger;
use ::integrity::Layout;
use ::integrity::layout::JournalLayout;
use ::integrity::replay::Resume;
use ::integrity::{EntrySector, Plan, PlanError, SectionSummary, Sequence};
use bio::{Bio, Device, EventKind, IoErrorKind, IoResult, Segments};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use units::{Sector, u64_of, usize_of};

/// What a look at the whole journal found.
pub(super) struct Scan {
    pub plan: Result<Plan, PlanError>,
    summaries: Vec<SectionSummary>,
    /// Of each section, its used entries in order.
    entries: Vec<Vec<Found>>,
}

/// Of each block, the section and the entry that hold it.
pub(super) type Places = BTreeMap<u64, (u32, u32)>;

/// Where the newest copies of blocks lie.
pub(super) struct Copies {
    /// Those that replay would write home.
    pub proven: Places,
    /// Those of sections behind damage: newer, or never promised to anybody.
    pub unproven: Places,
}

impl Copies {
    /// Of all blocks, the unproven copy where there is one.
    pub fn newest(&self) -> Places {
        let mut newest = self.proven.clone();
        newest.extend(&self.unproven);
        newest
    }
}

/// A used entry.
#[derive(Clone, Copy)]
struct Found {
    index: u32,
    /// The sector that it names, or, where only that fits its tag, one a single bit away.
    sector: u64,
    /// The lap in which it was written, if its sector of the journal says.
    lap: Option<Sequence>,
    /// Whether its data is what its tag vouches for.
    sound: bool,
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
pub(super) async fn scan(
    lower: &Device,
    journal: &JournalLayout,
    codec: &Codec,
    tagger: &Tagger,
) -> IoResult<Scan> {
    let mut scan = Scan { plan: Err(PlanError::Empty), summaries: Vec::new(), entries: Vec::new() };
    for (first, count) in pieces(journal, lower.limits().max_bytes) {
        let start = journal.section_start(first);
        let mut piece = lower.read(start, journal.section_sectors * u64::from(count)).await?;
        codec.open(first, &mut piece);
        let sections = piece.as_slice().chunks_exact(journal.section_bytes());
        for (number, section) in (first..).zip(sections) {
            let mut summary = journal.summarise(section, number, &codec.ids());
            summary.forged = codec.verify(number, section).is_err();
            scan.summaries.push(summary);
            scan.entries.push(used_entries(journal, tagger, section, |entry| {
                journal.entry_lap(section, number, entry, &codec.ids())
            }));
        }
    }
    scan.plan = Plan::new(&scan.summaries);
    Ok(scan)
}

/// First section and number of sections of each piece of the journal that is read at once.
fn pieces(journal: &JournalLayout, max_bytes: u64) -> impl Iterator<Item = (u32, u32)> + use<> {
    let at_once = sections_at_once(journal, max_bytes);
    let sections = journal.sections;
    (0..sections)
        .step_by(usize_of(at_once.into()))
        .map(move |first| (first, at_once.min(sections - first)))
}

fn sections_at_once(journal: &JournalLayout, max_bytes: u64) -> u32 {
    let at_once = max_bytes.min(PIECE_BYTES) / u64_of(journal.section_bytes());
    u32::try_from(at_once.max(1)).expect("a few MiB")
}

fn used_entries(
    journal: &JournalLayout,
    tagger: &Tagger,
    section: &[u8],
    lap: impl Fn(u32) -> Option<Sequence>,
) -> Vec<Found> {
    let mut found = Vec::new();
    let mut block = vec![0; journal.block.bytes()];
    for index in 0..journal.entries_per_section {
        let EntrySector::Used(sector) = journal.entry_sector(section, index) else { continue };
        journal.read_data(section, index, &mut block);
        let tag = journal.entry_tag(section, index);
        let fits = |sector: u64| tagger.verify(sector, &block, tag).is_none();
        let near = |bit: u32| Some(sector ^ (1 << bit)).filter(|&sector| fits(sector));
        let meant = if fits(sector) { Some(sector) } else { (0..SECTOR_BITS).find_map(near) };
        let (sector, lap) = (meant.unwrap_or(sector), lap(index));
        found.push(Found { index, sector, lap, sound: meant.is_some() });
    }
    found
}

impl Scan {
    /// The used entries of section `number`.
    fn entries_of(&self, number: u32) -> &[Found] {
        &self.entries[usize_of(number.into())]
    }

    /// What replay would write home, oldest first: the section, and the entry.
    fn to_replay(&self) -> impl Iterator<Item = (u32, Found)> + '_ {
        let order = self.plan.as_ref().ok().map(Plan::replay_order);
        order
            .into_iter()
            .flatten()
            .flat_map(|section| self.entries_of(section).iter().map(move |&entry| (section, entry)))
    }

    /// The first entry to be replayed whose sector starts no block, below `provided`.
    pub fn strange_entry(&self, journal: &JournalLayout, provided: u64) -> Option<StrangeEntry> {
        let is_strange = |sector| sector < provided && !journal.block.divides(sector);
        let (section, Found { index: entry, sector, .. }) =
            self.to_replay().find(|(_, entry)| is_strange(entry.sector))?;
        Some(StrangeEntry { section, entry, sector })
    }

    /// Entries that replay would write home, and how many of them are sound.
    pub fn entries_to_replay(&self) -> (usize, usize) {
        (self.to_replay().count(), self.to_replay().filter(|(_, entry)| entry.sound).count())
    }

    /// The blocks whose newest entry is not what its tag vouches for.
    pub fn rotten_blocks(&self) -> Vec<u64> {
        let newest: BTreeMap<u64, bool> =
            self.to_replay().map(|(_, entry)| (entry.sector, entry.sound)).collect();
        newest.into_iter().filter(|(_, sound)| !sound).map(|(sector, _)| sector).collect()
    }

    /// Why the journal cannot be replayed with certainty, if so.
    pub fn restriction(&self, layout: &Layout) -> Option<Restriction> {
        if let Err(error) = &self.plan {
            return Some(Restriction::Journal(error.clone()));
        }
        let strange = self.strange_entry(&layout.journal, layout.provided_sectors);
        strange.map(Restriction::StrangeEntry)
    }

    /// The plan, as if damaged sections had been torn by a crash.
    ///
    /// # Errors
    /// [`PlanError`], for a journal without any order.
    pub fn despite(&self) -> Result<Plan, PlanError> {
        self.plan.clone().or_else(|_| Plan::despite_damage(&self.summaries))
    }

    /// The sections behind damage: oldest first, as far as that can be told; those without any sound
    /// sector may be anything, and count as the newest.
    fn unproven(&self) -> Vec<u32> {
        match (&self.plan, self.despite()) {
            (Ok(_), _) => Vec::new(),
            (Err(_), Ok(plan)) => self.by_age(plan.unproven_order()),
            (Err(_), Err(_)) => (0..).zip(&self.summaries).map(|(section, _)| section).collect(),
        }
    }

    /// `order` by the age of what the sections hold, the oldest first. A plan's order is that of their
    /// places, which is the same but for a section that was to be overwritten, and was not when a later
    /// one was; and for one that was being made anew.
    fn by_age(&self, order: impl Iterator<Item = u32>) -> Vec<u32> {
        let ages = self.ages();
        let mut sections: Vec<u32> = order.collect();
        sections.sort_by_key(|&section| ages[usize_of(section.into())]);
        sections
    }

    /// Of two sections the older one has the smaller: how many laps it lies behind the newest, and its
    /// place. One without any sound sector counts as the newest.
    fn ages(&self) -> Vec<(bool, Reverse<u8>, u32)> {
        let laps: Vec<Option<Sequence>> =
            (0..).zip(&self.summaries).map(|(section, _)| self.lap(section)).collect();
        let has = |lap: Sequence| laps.contains(&Some(lap));
        let newest = Sequence::ALL.into_iter().find(|&lap| has(lap) && !has(lap.plus(1)));
        let behind = |lap: Option<Sequence>| {
            newest.zip(lap).map_or(0, |(newest, lap)| newest.minus(lap.index()).index())
        };
        let each = (0..).zip(&laps).zip(&self.summaries);
        each.map(|((section, &lap), one)| (one.sequences == 0, Reverse(behind(lap)), section))
            .collect()
    }

    /// The lap of what a section holds, as far as it holds anything.
    fn lap(&self, section: u32) -> Option<Sequence> {
        self.counting(section).find_map(|entry| entry.lap)
    }

    /// The entries of a section but for those that were being overwritten by the next lap, since they
    /// were home before that began. And none of a section in which there is anything of the lap before
    /// the last two, which is the lap that a journal is made anew with: either that is left of a write
    /// which the newest lap overtook, and everything of it was home before; or the section was being
    /// made anew, so what was to become of its blocks is home, and of one block the newest copy may be
    /// gone and an older one left.
    fn counting(&self, section: u32) -> impl Iterator<Item = &Found> {
        let sequences = self.summaries[usize_of(section.into())].sequences;
        let is_over = move |lap: Sequence| sequences & lap.plus(1).bit() != 0;
        let gone = self.despite().map_or(0, |plan| plan.initial().bit());
        let entries = if sequences & gone != 0 { &[][..] } else { self.entries_of(section) };
        entries.iter().filter(move |entry| !entry.lap.is_some_and(is_over))
    }

    /// Every section, in the order in which a damaged journal is made anew: of each block the newest
    /// copy goes last. Of those that hold no copy that counts, the ones of the newest lap go behind all
    /// others: it is they that keep older copies from being replayed.
    pub fn renewal_order(&self, plan: &Plan) -> Vec<u32> {
        let newest = plan.initial().plus(2).bit();
        let rank = |section: u32| match self.counting(section).next() {
            Some(_) => 1,
            None if self.summaries[usize_of(section.into())].sequences & newest == 0 => 0,
            None => 2,
        };
        let mut sections = self.by_age(plan.replay_order().chain(plan.unproven_order()));
        sections.sort_by_key(|&section| rank(section));
        sections
    }

    /// Where the newest copies of blocks lie.
    pub fn copies(&self, layout: &Layout) -> Copies {
        let newest = |sections: Vec<u32>| {
            let mut places = Places::new();
            for section in sections {
                for &Found { index, sector, .. } in self.counting(section) {
                    if sector < layout.provided_sectors && layout.block.divides(sector) {
                        places.insert(sector, (section, index));
                    }
                }
            }
            places
        };
        let proven = self.despite().map(|plan| plan.replay_order().collect()).unwrap_or_default();
        let (proven, mut unproven) = (newest(proven), newest(self.unproven()));
        if !unproven.is_empty() {
            let ages = self.ages();
            let age = |section: u32| ages[usize_of(section.into())];
            unproven.retain(|sector, (section, _)| {
                proven.get(sector).is_none_or(|&(proven, _)| age(proven) < age(*section))
            });
        }
        Copies { proven, unproven }
    }

    /// Every section, with the blocks that it names.
    pub fn named(&self) -> impl Iterator<Item = (u32, Box<[u64]>)> + '_ {
        let sectors = |found: &Vec<Found>| found.iter().map(|entry| entry.sector).collect();
        (0..).zip(self.entries.iter().map(sectors))
    }

    /// Every section, for people.
    pub fn section_reports(&self) -> Vec<SectionReport> {
        let proven: Vec<u32> =
            self.despite().map_or(Vec::new(), |plan| plan.replay_order().collect());
        let each = (0_u32..).zip(self.summaries.iter().zip(self.named()));
        each.map(|(section, (summary, (_, sectors)))| {
            let lap = Sequence::ALL.iter().find(|lap| lap.bit() == summary.sequences);
            let state = match (summary.bad_sector, lap) {
                (Some(sector), _) => SectionState::Damaged { sector },
                (None, Some(_)) if summary.forged => SectionState::Forged,
                (None, Some(lap)) => SectionState::Sound { lap: lap.index() },
                (None, _) => SectionState::Torn,
            };
            let sectors = sectors.iter().map(|&sector| Sector(sector)).collect();
            SectionReport { section, state, proven: proven.contains(&section), sectors }
        })
        .collect()
    }

    /// Where the newest copy of each block lies, for laying it over.
    ///
    /// With a damaged journal, its damaged sections count as torn: what replay would write then is
    /// certain, and whatever else the journal names is not.
    pub fn places(&self, layout: &Layout) -> HashMap<u64, Place> {
        let Copies { proven, unproven } = self.copies(layout);
        let place =
            |certain| move |(sector, (section, entry))| (sector, Place { section, entry, certain });
        proven.into_iter().map(place(true)).chain(unproven.into_iter().map(place(false))).collect()
    }
}

impl Inner {
    /// Writes home what entries of the journal hold, and makes it durable: data and tag, or only the
    /// tag.
    pub(super) async fn replay(
        &self,
        places: &Places,
        content: Content,
    ) -> Result<(), IoErrorKind> {
        if places.is_empty() {
            return Ok(());
        }
        let replayed =
            self.bring_home(async || self.write_places_home(places, content).await).await;
        replayed.map_err(|(NotHome::Unwritten(kind) | NotHome::Unflushed(kind))| kind)?;
        self.lower.flush_for(REPLAYED).await.map_err(|error| error.kind)?;
        let what = if content == Content::Tag { "tags" } else { "blocks" };
        let detail = format!("{} {what} written home", places.len());
        self.events.emit_detail(EventKind::JournalReplayed, Sector::ZERO, 0, detail);
        Ok(())
    }

    async fn write_places_home(
        &self,
        places: &Places,
        content: Content,
    ) -> Result<(), IoErrorKind> {
        let journal = &self.layout.journal;
        let mut wanted: Vec<Vec<Entry>> = vec![Vec::new(); usize_of(journal.sections.into())];
        for (&sector, &(section, index)) in places {
            wanted[usize_of(section.into())].push(Entry { index, sector, content });
        }
        for (first, count) in pieces(journal, self.metadata().limits().max_bytes) {
            let mut sections = Vec::new();
            for number in first..first + count {
                let entries = std::mem::take(&mut wanted[usize_of(number.into())]);
                if entries.is_empty() {
                    continue;
                }
                let start = journal.section_start(number);
                let bytes = self.metadata().read(start, journal.section_sectors).await;
                let mut bytes = bytes.map_err(|error| error.kind)?;
                self.codec.open(number, &mut bytes);
                let entries = self.judge(bytes.as_slice(), entries);
                sections.push(Section::found(number, bytes, entries));
            }
            self.write_home(&newest_blocks(&sections)).await?;
        }
        Ok(())
    }

    /// Of entries whose data is not what their tag vouches for, only the tag is to go home.
    fn judge(&self, section: &[u8], mut entries: Vec<Entry>) -> Vec<Entry> {
        let journal = &self.layout.journal;
        let mut block = vec![0; self.block_bytes()];
        for entry in &mut entries {
            if entry.content == Content::Tag {
                self.task.disown(entry.sector);
                continue;
            }
            journal.read_data(section, entry.index, &mut block);
            let tag = journal.entry_tag(section, entry.index);
            if self.tagger.verify(entry.sector, &block, tag).is_some() {
                entry.content = Content::Tag;
                self.task.disown(entry.sector);
                self.tell_mismatch(entry.sector, tag, &block);
            }
        }
        entries
    }
}

impl Inner {
    /// Writes the journal anew where the plan demands it, and says where to go on.
    ///
    /// Each batch is read again: of the oldest section the next lap has the same number as the entries
    /// that it held. If the disk lost the batch while saying that all is well, they would be replayed
    /// after the next crash, behind everything newer.
    pub(super) async fn resume(&self, plan: &Plan) -> IoResult<(u32, Sequence)> {
        match plan.resume {
            Resume::InPlace { section, sequence } => Ok((section, sequence)),
            Resume::Reinitialise { initial } => {
                for (batch, reason) in plan.reinitialise_order().iter().zip(ANEW) {
                    self.initialise_for_certain(batch, initial, reason).await?;
                }
                Ok((0, initial.plus(1)))
            }
        }
    }

    pub(super) async fn initialise_for_certain(
        &self,
        sections: &[u32],
        sequence: Sequence,
        reason: &'static str,
    ) -> IoResult {
        let Some(&first) = sections.first() else { return Ok(()) };
        let start = self.layout.journal.section_start(first);
        for _ in 0..ATTEMPTS {
            let journal = &self.layout.journal;
            initialise(self.metadata(), &self.codec, journal, sections, sequence, reason).await?;
            if self.is_initialised(sections, sequence).await? {
                return Ok(());
            }
            let detail = format!("journal from section {first} on was not initialised: again");
            self.events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
        }
        Err(IoErrorKind::Medium.at(start))
    }

    /// Whether `sections` were initialised with `sequence`, as the device itself says.
    async fn is_initialised(&self, sections: &[u32], sequence: Sequence) -> IoResult<bool> {
        let journal = &self.layout.journal;
        for piece in consecutive(journal, sections, self.metadata().limits().max_bytes) {
            let sectors = journal.section_sectors * u64_of(piece.len());
            let mut again = Bio::read(journal.section_start(piece[0]), sectors).bypassing();
            match self.metadata().submit(&mut again).await {
                Err(error) if error.kind.is_damage() => return Ok(false),
                result => result?,
            }
            let mut bytes = again.data.into_single();
            self.codec.open(piece[0], &mut bytes);
            let found = piece.iter().zip(bytes.as_slice().chunks_exact(journal.section_bytes()));
            for (&number, section) in found {
                let summary = journal.summarise(section, number, &self.codec.ids());
                if summary.used_entries > 0 || !summary.holds(sequence) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// Initialises `sections` with `sequence`, durable when complete, for the sake of `reason`.
pub(super) async fn initialise(
    lower: &Device,
    codec: &Codec,
    journal: &JournalLayout,
    sections: &[u32],
    sequence: Sequence,
    reason: &'static str,
) -> IoResult {
    if sections.is_empty() {
        return Ok(());
    }
    write_initialised(lower, codec, journal, sections, sequence).await?;
    lower.flush_for(reason).await
}

/// The same, not durable yet.
pub(super) async fn write_initialised(
    lower: &Device,
    codec: &Codec,
    journal: &JournalLayout,
    sections: &[u32],
    sequence: Sequence,
) -> IoResult {
    for piece in consecutive(journal, sections, lower.limits().max_bytes) {
        let data: Segments =
            (piece.iter()).map(|&number| codec.initialised(number, sequence)).collect();
        lower.submit(&mut Bio::write(journal.section_start(piece[0]), data)).await?;
    }
    Ok(())
}

/// `sections` in pieces that lie side by side and are read or written at once.
fn consecutive<'a>(
    journal: &JournalLayout,
    sections: &'a [u32],
    max_bytes: u64,
) -> impl Iterator<Item = &'a [u32]> + use<'a> {
    let at_once = usize_of(sections_at_once(journal, max_bytes).into());
    sections.chunk_by(|a, b| a + 1 == *b).flat_map(move |run| run.chunks(at_once))
}

/// Bytes of journal read or written at once.
const PIECE_BYTES: u64 = 4 << 20;
/// Bits of a sector number that some device needs.
const SECTOR_BITS: u32 = 55;
