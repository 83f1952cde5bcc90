//! Opening: is this a volume, may it be written, and what does its journal say.

mod error;
mod options;
mod sample;

pub use error::{JournalState, OpenError, Restriction};
pub use options::Options;

use super::codec::{Codec, superblock_mac, verify_area};
use super::direct::{self, Direct};
use super::log::{Bounds, Log, Writer};
use super::lower::Lower;
use super::overlay::Overlay;
use super::recover::{Scan, scan};
use super::store::Stored;
use super::tags::TagCache;
use super::{Inner, Integrity, Journal, bitmap, commit, home, sync};
use ::integrity::open::Mode;
use ::integrity::superblock::AREA_SECTORS;
use ::integrity::{Flags, Layout, Superblock, explain};
use bio::{EventKind, IoErrorKind, Limits};
use checksum::{BlockTagger, ZeroTags};
use runtime::{RangeLock, spawn};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use units::Sector;

pub(super) async fn open(lower: Lower, options: Options) -> Result<Integrity, OpenError> {
    let area = lower.metadata.read(Sector::ZERO, AREA_SECTORS).await?;
    let superblock = Superblock::decode(area.as_slice())?;
    refuse_unreadable(&superblock, &lower)?;
    if let Some(mode @ (Mode::Recovery | Mode::Inline)) = options.mode {
        return Err(OpenError::Unimplemented(format!("mode {}", mode.letter())));
    }
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
        suspect: Vec::new(),
        mismatches: Cell::default(),
        stored: Stored::found(&superblock, area.as_slice(), mac),
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
        // Zeroing goes through the journal like any write, or changes tags at least.
        fast_zeroes: false,
        tag_size: 0,
        ..below.clone()
    }
}

impl Inner {
    /// Starts writing without a journal.
    async fn directly(mut self, options: &Options) -> Result<Rc<Self>, OpenError> {
        let regions = match options.mode {
            Some(Mode::Bitmap) => {
                Some(self.activate_bitmap(options.log2_blocks_per_bitmap_bit).await?)
            }
            _ => None,
        };
        self.tags = self.tags.delaying();
        self.journal = Journal::Direct(Rc::new(Direct::new(options.commit_time, regions)));
        let this = Rc::new(self);
        drop(spawn(direct::run(Rc::clone(&this))));
        drop(spawn(bitmap::walk(Rc::clone(&this))));
        Ok(this)
    }

    /// Replays the journal and starts writing, or lays it over.
    async fn with_journal(
        mut self,
        options: &Options,
        found: Option<Scan>,
    ) -> Result<(Rc<Self>, JournalState), OpenError> {
        let found = match found {
            Some(found) => found,
            None if options.read_only => {
                self.suspect = self.stored_suspects().await?;
                return Ok((Rc::new(self), JournalState::Bitmap));
            }
            None if options.mode == Some(Mode::Bitmap) => {
                return Ok((self.directly(options).await?, JournalState::Bitmap));
            }
            None => {
                self.retire_bitmap().await?;
                scan(self.metadata(), &self.layout.journal, &self.codec, &self.tagger).await?
            }
        };
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
        let state =
            if entries == 0 { JournalState::Clean } else { JournalState::Replayed { entries } };
        match options.mode {
            // The flag keeps the journal from being replayed again.
            Some(Mode::Bitmap) => return Ok((self.directly(options).await?, state)),
            Some(Mode::Direct) => {
                self.resume(&plan.unjournalled()).await?;
                return Ok((self.directly(options).await?, state));
            }
            _ => {}
        }
        let next = self.resume(&plan).await?;
        let bounds = Bounds { memory_bytes: options.memory_bytes, watermark: options.watermark };
        let log = Log::new(layout, self.codec.ids(), next, &bounds);
        let writer = Writer::new(log, options.commit_time);
        self.journal = Journal::Writing(Rc::new(writer));
        let this = Rc::new(self);
        drop(spawn(commit::run(Rc::clone(&this))));
        drop(spawn(home::run(Rc::clone(&this))));
        drop(spawn(sync::run(Rc::clone(&this))));
        Ok((this, state))
    }
}
