//! Opening: is this a volume, may it be written, and what does its journal say.

use super::codec::{Codec, CodecError, JournalKeys, superblock_mac, verify_area};
use super::log::{Bounds, Log, Writer};
use super::lower::Lower;
use super::overlay::Overlay;
use super::recover::{Scan, StrangeEntry, scan};
use super::tags::TagCache;
use super::{Inner, Integrity, Journal, commit, home, sync};
use ::integrity::superblock::AREA_SECTORS;
use ::integrity::{
    Flags, Layout, LayoutError, MacError, PlanError, Superblock, SuperblockError, explain,
};
use bio::{EventKind, Events, IoError, IoErrorKind, Limits};
use checksum::{Algorithm, BlockTagger, Key, KeyError, ZeroTags};
use runtime::{RangeLock, join_all, spawn};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use units::{BlockSize, Sector, usize_of};

/// How a volume is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Write nothing, ever.
    pub read_only: bool,
    /// What the tags were made with; the disk does not say.
    pub algorithm: Algorithm,
    /// The tags' key, if the algorithm takes one.
    pub integrity_key: Option<Key>,
    /// What the journal was made with. Without the keys of its MACs a volume can only be read.
    pub journal: JournalKeys,
    /// Where findings go, labelled with the member's name.
    pub events: Events,
    /// How long a write may stay in memory only (the kernel's `commit_time`).
    pub commit_time: Duration,
    /// Percentage of the journal that fills before it is written home.
    pub watermark: u8,
    /// Bytes of journal in memory, at least one section. What is more waits. (The default is meant
    /// for a volume of several members; one that stands alone is faster with twice as much.)
    pub memory_bytes: usize,
    /// Bytes of tags in memory.
    pub tag_cache_bytes: usize,
    /// Refuse writing if blocks look written and none verifies. To be turned off only for volumes
    /// that are known to hold nothing of their own yet.
    pub sample: bool,
}

impl Options {
    /// The defaults for `algorithm`, writable, without a key.
    #[must_use]
    pub fn new(algorithm: Algorithm, events: Events) -> Self {
        Self {
            read_only: false,
            algorithm,
            integrity_key: None,
            journal: JournalKeys::default(),
            events,
            commit_time: Duration::from_secs(10),
            watermark: 50,
            memory_bytes: 16 << 20,
            tag_cache_bytes: 8 << 20,
            sample: true,
        }
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}

/// Why a volume may be read but not written here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Restriction {
    /// Sections carry a MAC, which would have to be made, and nobody said with what.
    JournalMac,
    /// The journal's area holds the dirty bitmap.
    DirtyBitmap,
    /// Tags are not valid from this sector on.
    Recalculating {
        /// The first such sector.
        from: Sector,
    },
    /// The device below takes no writes.
    ReadOnlyDevice,
    /// The journal cannot be replayed with certainty.
    Journal(PlanError),
    /// The journal names a place that is none.
    StrangeEntry(StrangeEntry),
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JournalMac => f.write_str(
                "its journal has MACs (have_journal_mac), whose algorithm and key were not named",
            ),
            Self::DirtyBitmap => f.write_str(
                "its dirty bitmap is active (dirty_bitmap), which is not implemented for writing",
            ),
            Self::Recalculating { from } => write!(
                f,
                "recalculation of its tags has not finished (valid below sector {from}), which is \
                 not implemented for writing"
            ),
            Self::ReadOnlyDevice => f.write_str("the device below is read-only"),
            Self::Journal(error) => write!(f, "its journal cannot be replayed: {error}"),
            Self::StrangeEntry(StrangeEntry { section, entry, sector }) => write!(
                f,
                "its journal cannot be replayed: entry {entry} of section {section} names sector \
                 {sector}, which starts no block"
            ),
        }
    }
}

/// What was found in the journal at open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum JournalState {
    /// Nothing to replay.
    Clean,
    /// It was replayed.
    Replayed {
        /// Entries found, counting every version of a block.
        entries: usize,
    },
    /// Read-only: it is laid over the data in memory.
    Overlaid {
        /// Entries found, counting every version of a block.
        entries: usize,
    },
    /// Read-only: it is damaged. What it names and home does not agree with is unreadable.
    Damaged(PlanError),
    /// The area holds a bitmap instead.
    Bitmap,
}

/// Why a volume could not be opened as asked.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No superblock here.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// It does not fit the device.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A feature without which nothing can be read.
    #[error("the volume uses {0}, which is not implemented")]
    Unimplemented(String),
    /// The algorithm and the key do not go together.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The device's blocks are larger than the volume's.
    #[error("the volume has blocks of {block} bytes, the device below {device}")]
    LogicalBlock {
        /// The volume's.
        block: BlockSize,
        /// The device's.
        device: BlockSize,
    },
    /// It can be read, but writing was asked for.
    #[error("the volume can only be opened read-only: {}", join(.0))]
    ReadOnlyOnly(Vec<Restriction>),
    /// Blocks look written, and not one verifies: the algorithm is another, or the superblock's
    /// salt or interleave is damaged. Healing would destroy everything.
    #[error(
        "none of {sampled} written blocks that were sampled verifies with {algorithm}: another \
         algorithm, or a damaged superblock"
    )]
    NothingVerifies {
        /// Blocks looked at.
        sampled: usize,
        /// What was tried.
        algorithm: Algorithm,
    },
    /// The journal cannot be used with what was said of it.
    #[error(transparent)]
    Journal(#[from] CodecError),
    /// The superblock is not authentic.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// The device failed.
    #[error("{0} of the device below")]
    Io(#[from] IoError),
}

fn join(restrictions: &[Restriction]) -> String {
    restrictions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

pub(super) async fn open(lower: Lower, options: Options) -> Result<Integrity, OpenError> {
    let area = lower.metadata.read(Sector::ZERO, AREA_SECTORS).await?;
    let superblock = Superblock::decode(area.as_slice())?;
    refuse_unreadable(&superblock, &lower)?;
    let layout = Layout::of(&superblock, lower.sectors())?;
    let mut restrictions = restrictions(&superblock, &lower, &options);
    let mac = superblock_mac(&superblock, &options.journal)?;
    verify_area(area.as_slice(), mac.as_ref())?;
    let codec = if restrictions.contains(&Restriction::JournalMac) {
        Codec::without_mac(&layout.journal, &options.journal)?
    } else {
        Codec::new(&superblock, &layout.journal, &options.journal)?
    };
    let codec = Rc::new(codec);
    let (key, salt) = (options.integrity_key.as_ref(), superblock.hashed_salt());
    let tagger = BlockTagger::new(options.algorithm, key, salt, layout.block)?
        .with_tag_bytes(layout.tag_bytes);

    let bitmap = superblock.flags.has(Flags::DIRTY_BITMAP);
    let found = match bitmap {
        true => None,
        false => Some(scan(&lower.metadata, &layout.journal, &codec, &tagger).await?),
    };
    if let Some(found) = &found {
        restrictions.extend(found.restriction(&layout));
    }
    if !options.read_only && !restrictions.is_empty() {
        return Err(OpenError::ReadOnlyOnly(restrictions));
    }
    let inner = Inner {
        zeros: ZeroTags::new(&tagger),
        tagger,
        tags: TagCache::new(lower.metadata.clone(), options.tag_cache_bytes),
        events: options.events.clone(),
        journal: Journal::Reading(Overlay::new(
            lower.metadata.clone(),
            layout.journal,
            Rc::clone(&codec),
            Default::default(),
        )),
        codec,
        home: RangeLock::default(),
        told: RefCell::default(),
        mismatches: Cell::default(),
        lower,
        layout,
    };
    if options.sample {
        inner.sample(&options, found.as_ref()).await?;
    }
    let (inner, journal_state) = inner.with_journal(&options, found).await?;
    let limits = limits(&inner, &options);
    Ok(Integrity { inner, limits, superblock, journal_state, restrictions })
}

/// What makes even reading impossible.
fn refuse_unreadable(superblock: &Superblock, lower: &Lower) -> Result<(), OpenError> {
    let flags = superblock.flags;
    let named = [
        (Flags::INLINE, "tags in the hardware's sector metadata (inline)"),
        (Flags::DISCARD_KEYED, "keyed discard tags (discard_keyed, superblock version 7)"),
    ];
    for (flag, name) in named {
        if flags.has(flag) {
            return Err(OpenError::Unimplemented(name.to_owned()));
        }
    }
    if flags.unknown() != 0 {
        let names = explain::flag_names(Flags(flags.unknown()));
        return Err(OpenError::Unimplemented(format!("unknown flags {names}")));
    }
    let (block, device) = (superblock.block, lower.data().limits().logical_block);
    if device.bytes() > block.bytes() {
        return Err(OpenError::LogicalBlock { block, device });
    }
    Ok(())
}

/// What allows only reading, as far as superblock and device say.
fn restrictions(superblock: &Superblock, lower: &Lower, options: &Options) -> Vec<Restriction> {
    let flags = superblock.flags;
    let mut found = Vec::new();
    if flags.has(Flags::JOURNAL_MAC) && options.journal.mac.is_none() {
        found.push(Restriction::JournalMac);
    }
    if flags.has(Flags::DIRTY_BITMAP) {
        found.push(Restriction::DirtyBitmap);
    }
    if let Some(from) = superblock.recalculated_until() {
        found.push(Restriction::Recalculating { from: Sector(from) });
    }
    if lower.is_read_only() {
        found.push(Restriction::ReadOnlyDevice);
    }
    found
}

impl Scan {
    fn restriction(&self, layout: &Layout) -> Option<Restriction> {
        if let Err(error) = &self.plan {
            return Some(Restriction::Journal(error.clone()));
        }
        let strange = self.strange_entry(&layout.journal, layout.provided_sectors);
        strange.map(Restriction::StrangeEntry)
    }
}

fn limits(inner: &Inner, options: &Options) -> Limits {
    let below = inner.data().limits();
    Limits {
        sectors: inner.layout.provided_sectors,
        logical_block: inner.layout.block,
        read_only: options.read_only,
        verified: true,
        discard: below.discard && !options.read_only,
        // Zeroing goes through the journal like any write.
        fast_zeroes: false,
        tag_size: 0,
        ..below.clone()
    }
}

impl Inner {
    /// Replays the journal and starts writing, or lays it over.
    async fn with_journal(
        mut self,
        options: &Options,
        found: Option<Scan>,
    ) -> Result<(Rc<Self>, JournalState), OpenError> {
        let Some(found) = found else { return Ok((Rc::new(self), JournalState::Bitmap)) };
        let layout = self.layout.journal;
        let (entries, _) = found.entries_to_replay();
        if options.read_only {
            let places = found.places(&layout, self.layout.provided_sectors);
            let (lower, codec) = (self.metadata().clone(), Rc::clone(&self.codec));
            self.journal = Journal::Reading(Overlay::new(lower, layout, codec, places));
            let state = match found.plan {
                Err(error) => {
                    self.events.emit_detail(EventKind::Note, Sector::ZERO, 0, error.to_string());
                    JournalState::Damaged(error)
                }
                Ok(_) if entries == 0 => JournalState::Clean,
                Ok(_) => {
                    let detail = format!("{entries} entries, laid over in memory");
                    self.events.emit_detail(EventKind::JournalReplayed, Sector::ZERO, 0, detail);
                    for sector in found.rotten_blocks() {
                        let detail = "its copy in the journal is damaged".to_owned();
                        let (sector, sectors) = (Sector(sector), layout.block.sectors());
                        self.events.emit_detail(EventKind::Lost, sector, sectors, detail);
                    }
                    JournalState::Overlaid { entries }
                }
            };
            return Ok((Rc::new(self), state));
        }
        let plan = match &found.plan {
            Ok(plan) => *plan,
            Err(error) => {
                let why = Restriction::Journal(error.clone());
                return Err(OpenError::ReadOnlyOnly(vec![why]));
            }
        };
        let failed = |kind: IoErrorKind| OpenError::Io(kind.at(Sector::ZERO));
        self.replay(&found).await.map_err(failed)?;
        let next = self.resume(&plan).await?;
        let bounds = Bounds { memory_bytes: options.memory_bytes, watermark: options.watermark };
        let log = Log::new(layout, self.codec.ids(), next, &bounds);
        let writer = Writer::new(log, options.commit_time);
        self.journal = Journal::Writing(Rc::new(writer));
        let this = Rc::new(self);
        drop(spawn(commit::run(Rc::clone(&this))));
        drop(spawn(home::run(Rc::clone(&this))));
        drop(spawn(sync::run(Rc::clone(&this))));
        let state =
            if entries == 0 { JournalState::Clean } else { JournalState::Replayed { entries } };
        Ok((this, state))
    }

    /// Looks at some blocks that seem to have been written: does any verify?
    ///
    /// The superblock has no checksum. If its salt or interleave is damaged, or the algorithm is
    /// another one, every block is a mismatch, and whoever heals would overwrite everything.
    async fn sample(&self, options: &Options, found: Option<&Scan>) -> Result<(), OpenError> {
        let (journalled, sound) = found.map_or((0, 0), Scan::entries_to_replay);
        if sound > 0 {
            return Ok(());
        }
        let sectors = self.sample_sectors().await;
        let mut sampled = journalled;
        for batch in sectors.chunks(SAMPLES_AT_ONCE) {
            let verdicts = join_all(batch.iter().map(|&sector| self.look_at(sector))).await;
            if verdicts.contains(&Look::Verifies) {
                return Ok(());
            }
            sampled += verdicts.iter().filter(|look| **look == Look::Mismatch).count();
        }
        if sampled < SAMPLES_MIN {
            return Ok(());
        }
        if options.read_only {
            let algorithm = options.algorithm;
            let detail = format!("none of {sampled} sampled blocks verifies with {algorithm}");
            self.events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
            return Ok(());
        }
        Err(OpenError::NothingVerifies { sampled, algorithm: options.algorithm })
    }

    /// Blocks to look at: spread over what the device below stores, the first ones always.
    async fn sample_sectors(&self) -> Vec<u64> {
        let (provided, spb) = (self.layout.provided_sectors, self.layout.block.sectors());
        let mut sectors: Vec<u64> = (0..8.min(provided / spb)).map(|block| block * spb).collect();
        let mut at = 0;
        // Jump over holes: the questions are bounded, and so is what is asked about.
        let stride = (provided / SAMPLES / spb * spb).max(spb);
        for _ in 0..SAMPLES * 2 {
            if at >= provided {
                break;
            }
            let run = self.layout.run(Sector(at), provided - at);
            let Ok(below) = self.data().allocation(run.data, run.sectors).await else { break };
            let mut offset = 0;
            for piece in below {
                if !piece.hole {
                    let middle = at + (offset + piece.sectors / 2) / spb * spb;
                    sectors.push(middle.min(provided - spb));
                }
                offset += piece.sectors;
            }
            at = (at + offset.max(spb)).max(at + stride.min(run.sectors)).next_multiple_of(spb);
        }
        sectors.sort_unstable();
        sectors.dedup();
        let keep = sectors.len().div_ceil(usize_of(SAMPLES)).max(1);
        sectors
            .into_iter()
            .enumerate()
            .filter(|(i, _)| *i < 8 || i % keep == 0)
            .map(|(_, s)| s)
            .collect()
    }

    async fn look_at(&self, sector: u64) -> Look {
        let run = self.layout.run(Sector(sector), self.layout.block.sectors());
        let mut tag = vec![0; self.layout.tag_bytes];
        let (Ok(data), Ok(())) = (
            self.data().read(run.data, run.sectors).await,
            self.tags.read(run.tag_byte, &mut tag, 0).await,
        ) else {
            return Look::Nothing;
        };
        if self.tagger.verify(sector, data.as_slice(), &tag).is_none() {
            return Look::Verifies;
        }
        let untouched = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        if untouched(data.as_slice()) && untouched(&tag) { Look::Nothing } else { Look::Mismatch }
    }
}

/// What one sampled block says.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Look {
    /// Data and tag agree.
    Verifies,
    /// They do not.
    Mismatch,
    /// Both are zero (never written, never wiped), or cannot be read.
    Nothing,
}

/// Blocks sampled, about.
const SAMPLES: u64 = 64;
const SAMPLES_AT_ONCE: usize = 16;
/// Fewer blocks prove nothing: they may be damaged.
const SAMPLES_MIN: usize = 4;

const _: () = assert!(SAMPLES_AT_ONCE > SAMPLES_MIN);
