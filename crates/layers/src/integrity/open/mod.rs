//! Opening: is this a volume, may it be written, and what does its journal say.

mod error;
mod options;
mod sample;

pub use error::{JournalState, OpenError, Restriction};
pub use options::{JournalChoice, Options, Recalculate};

use super::codec::{Codec, superblock_mac, verify_area};
use super::coverage::Coverage;
use super::direct::{self, Direct};
use super::inline::{self, Inline};
use super::log::{Bounds, Log, Writer};
use super::lower::Lower;
use super::overlay::Overlay;
use super::recover::{Scan, scan};
use super::section::Content;
use super::source::Tagger;
use super::superblock::Area;
use super::tags::TagCache;
use super::zero::Punched;
use super::{Inner, Integrity, Journal, above, bitmap, commit, home, recalculate, sync};
use ::integrity::open::Mode;
use ::integrity::recalculate::{Keys, Recalculation, permit};
use ::integrity::replay::Resume;
use ::integrity::superblock::AREA_SECTORS;
use ::integrity::{Flags, Layout, Superblock, explain};
use bio::{EventKind, IoErrorKind, Limits};
use checksum::ZeroTags;
use runtime::{RangeLock, Semaphore, Tasks};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use units::Sector;

pub(super) async fn open(lower: Lower, options: Options) -> Result<Integrity, OpenError> {
    let area = lower.metadata.read(Sector::ZERO, AREA_SECTORS).await?;
    let superblock = Superblock::decode(area.as_slice())?;
    refuse_unreadable(&superblock, &lower, &options)?;
    let layout = Layout::of(&superblock, lower.sectors())?;
    let mut restrictions = restrictions(&superblock, &lower, &options);
    let recovery = options.mode == Some(Mode::Recovery);
    let mac = if recovery { None } else { superblock_mac(&superblock, &options.journal)? };
    verify_area(area.as_slice(), mac.as_ref())?;
    let codec = if recovery || restrictions.contains(&Restriction::JournalMac) {
        Codec::without_mac(&layout.journal, &options.journal)?
    } else {
        Codec::new(&superblock, &layout.journal, &options.journal)?
    };
    let codec = Rc::new(codec);
    let (key, salt) = (options.integrity_key.as_ref(), superblock.hashed_salt());
    let tagger = Tagger::new(options.tags, key, salt, layout.block, layout.tag_bytes)?;

    let coverage = Coverage::new(&superblock, &options);
    let recalculation = recalculation(&superblock, &options)?;
    if let Some(state) = recalculation {
        coverage.recalculated(state);
    }
    let unread = recovery || layout.inline || superblock.flags.has(Flags::DIRTY_BITMAP);
    let found = match unread {
        true => None,
        false => Some(scan(&lower.metadata, &layout.journal, &codec, &tagger).await?),
    };
    if let Some(found) = &found
        && mending(found, &layout, &options).is_none()
    {
        restrictions.extend(found.restriction(&layout));
    }
    if !options.writes_nothing() && !restrictions.is_empty() {
        return Err(OpenError::ReadOnlyOnly(restrictions));
    }
    let inner = Inner {
        zeros: tagger.hash().map(ZeroTags::new),
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
        area: Area::new(&superblock, area.as_slice().try_into().expect("its size"), mac),
        coverage,
        home: RangeLock::default(),
        homing: Semaphore::new(1),
        tasks: Tasks::default(),
        task: recalculate::Task::default(),
        told: RefCell::default(),
        suspect: Vec::new(),
        mismatches: Cell::default(),
        punched: Punched::default(),
        lower,
        layout,
    };
    if options.sample {
        inner.sample(&options, found.as_ref()).await?;
    }
    let (inner, journal_state) = inner.with_journal(&options, found).await?;
    if options.recalculates() {
        let started = recalculate::start(&inner, recalculation).await;
        started.map_err(|kind| kind.at(Sector::ZERO))?;
    }
    let limits = limits(&inner, &options);
    Ok(Integrity { inner, limits, superblock, journal_state, restrictions })
}

/// What makes even reading impossible.
fn refuse_unreadable(
    superblock: &Superblock,
    lower: &Lower,
    options: &Options,
) -> Result<(), OpenError> {
    let flags = superblock.flags;
    inline::admit(superblock, lower, options)?;
    above::admit(superblock, options)?;
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
    if flags.has(Flags::DISCARD_KEYED) && !options.has_key() {
        found.push(Restriction::DiscardKeyed);
    }
    if lower.is_read_only() {
        found.push(Restriction::ReadOnlyDevice);
    }
    found
}

/// Where the recalculation that was asked for begins, if there is one to do.
fn recalculation(
    superblock: &Superblock,
    options: &Options,
) -> Result<Option<Recalculation>, OpenError> {
    let from = match options.recalculate {
        _ if options.writes_nothing() => None,
        Recalculate::No => None,
        Recalculate::Continue => Recalculation::of(superblock).filter(|state| !state.is_finished()),
        Recalculate::Reset => Some(Recalculation::from_the_start(superblock.provided_sectors)),
    };
    // A bitmap that is in use may say that regions are to be done, whatever the position.
    let in_doubt = options.recalculates() && superblock.flags.has(Flags::DIRTY_BITMAP);
    if from.is_some() || in_doubt {
        let mac = options.journal.mac.as_ref();
        let keys = Keys {
            integrity: options.has_key(),
            journal_mac: mac.is_some_and(|(_, key)| key.is_some()),
        };
        permit(superblock.flags, keys, options.legacy_recalculate)?;
    }
    Ok(from)
}

/// What was chosen to be done to this journal, if it is damaged and that can be done.
fn mending(found: &Scan, layout: &Layout, options: &Options) -> Option<JournalChoice> {
    let choice = options.damaged_journal.filter(|_| !options.writes_nothing());
    choice.filter(|_| found.restriction(layout).is_some() && found.despite().is_ok())
}

fn limits(inner: &Inner, options: &Options) -> Limits {
    let (below, hashed) = (inner.data().limits(), inner.tagger.hash().is_some());
    Limits {
        sectors: inner.layout.provided_sectors,
        logical_block: inner.layout.block,
        read_only: options.writes_nothing(),
        // Tags that are made here are for this layer, others for whoever gave them.
        verified: hashed,
        discard: below.discard && !options.writes_nothing() && !inner.layout.inline,
        // Zeroing goes through the journal like any write, or changes tags at least.
        fast_zeroes: false,
        tag_size: if hashed { 0 } else { inner.layout.tag_bytes },
        protection: inner.tagger.profile(),
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
        if let Some(regions) = &regions {
            regions.pause(options.recalculates());
        }
        self.tags = self.tags.delaying();
        self.journal = Journal::Direct(Rc::new(Direct::new(options.commit_time, regions)));
        let this = Rc::new(self);
        this.tasks.spawn(direct::run(Rc::clone(&this)));
        this.tasks.spawn(bitmap::walk(Rc::clone(&this)));
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
            None if options.mode == Some(Mode::Recovery) => {
                return Ok((Rc::new(self), JournalState::Ignored));
            }
            None if self.layout.inline => {
                if !options.writes_nothing() {
                    self.journal = Journal::Inline(Inline::default());
                }
                return Ok((Rc::new(self), JournalState::Absent));
            }
            None if options.read_only => {
                self.suspect = self.stored_suspects().await?;
                return Ok((Rc::new(self), JournalState::Bitmap));
            }
            None if options.mode == Some(Mode::Bitmap) => {
                return Ok((self.directly(options).await?, JournalState::Bitmap));
            }
            None => {
                self.retire_bitmap(options.recalculates()).await?;
                scan(self.metadata(), &self.layout.journal, &self.codec, &self.tagger).await?
            }
        };
        let layout = self.layout.journal;
        let (entries, _) = found.entries_to_replay();
        if options.writes_nothing() {
            let places = found.places(&self.layout);
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
        let failed = |kind: IoErrorKind| OpenError::Io(kind.at(Sector::ZERO));
        let mending = mending(&found, &self.layout, options);
        let state = match (mending, entries) {
            (Some(choice), _) => JournalState::Mended(choice),
            (None, 0) => JournalState::Clean,
            (None, entries) => JournalState::Replayed { entries },
        };
        let (next, kept) = match (mending, &found.plan) {
            (Some(choice), _) => {
                let next = self.mend(&found, choice).await.map_err(failed)?;
                // The journal holds nothing any more.
                if matches!(options.mode, Some(Mode::Direct | Mode::Bitmap)) {
                    return Ok((self.directly(options).await?, state));
                }
                (next, false)
            }
            (None, Ok(plan)) => {
                let proven = found.copies(&self.layout).proven;
                self.replay(&proven, Content::Data).await.map_err(failed)?;
                // The bitmap's flag would keep the journal from being replayed, but one flipped bit
                // must not bring back what was home long ago.
                if matches!(options.mode, Some(Mode::Direct | Mode::Bitmap)) {
                    self.resume(&plan.unjournalled()).await?;
                    return Ok((self.directly(options).await?, state));
                }
                (self.resume(plan).await?, matches!(plan.resume, Resume::InPlace { .. }))
            }
            (None, Err(error)) => {
                let why = Restriction::Journal(error.clone());
                return Err(OpenError::ReadOnlyOnly(vec![why]));
            }
        };
        let bounds = Bounds { memory_bytes: options.memory_bytes, watermark: options.watermark };
        let mut log = Log::new(layout, self.codec.ids(), next, &bounds);
        if options.allow_discards {
            log = log.remembering(found.named().filter(|_| kept));
        }
        if entries > 0 {
            log = log.after_replay();
        }
        let writer = Writer::new(log, options.commit_time);
        self.journal = Journal::Writing(Rc::new(writer));
        let this = Rc::new(self);
        this.tasks.spawn(commit::run(Rc::clone(&this)));
        this.tasks.spawn(home::run(Rc::clone(&this)));
        this.tasks.spawn(sync::run(Rc::clone(&this)));
        Ok((this, state))
    }
}
