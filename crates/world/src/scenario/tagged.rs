//! Volumes over dm-integrity alone, and the tagged members that arrays are made of.

use super::bare::{disk, only};
use super::places::Members;
use super::{Open, Opened, Scenario, Volume};
use crate::atlas::Atlas;
use crate::opening::Opening;
use ::integrity::layout::DeviceSectors;
use ::integrity::open::Mode;
use ::integrity::{FormatOptions, Layout};
use bio::{Device, Events, IoResult, LocalFuture, Scrub};
use checksum::Algorithm;
use layers::integrity::{
    self, Integrity, JournalChoice, Lower, Recalculate, TagSource, TupleKind, Wipe,
};
use std::rc::Rc;
use units::{BlockSize, Sector};

pub(super) fn all() -> Vec<Scenario> {
    let (small, large) = (BlockSize::B512, BlockSize::B4096);
    let roomy = Tagged { memory_bytes: 1 << 20, ..TAGGED_512 };
    let torn = |name, kind| Scenario { tearing: true, ..tagged(name, kind, 1800, large) };
    vec![
        tagged("integrity-512", TAGGED_512, 1100, small),
        tagged("integrity-512-roomy", roomy, 1100, small),
        tagged("integrity-4096", TAGGED_4096, 1800, small),
        recalculating("integrity-512-recalculating", TAGGED_512, 1100),
        recalculating("integrity-512-direct-recalculating", TAGGED_512.in_mode(Mode::Direct), 1100),
        two(tagged("integrity-512-two", roomy, 1100, small)),
        torn("integrity-4096-torn", TAGGED_4096),
        tagged("integrity-512-direct", TAGGED_512.in_mode(Mode::Direct), 1100, small),
        tagged("integrity-512-bitmap", TAGGED_512.in_mode(Mode::Bitmap), 1100, small),
        tagged("integrity-4096-bitmap", TAGGED_4096.in_mode(Mode::Bitmap), 1800, small),
        torn("integrity-4096-direct-torn", TAGGED_4096.in_mode(Mode::Direct)),
        torn("integrity-4096-bitmap-torn", TAGGED_4096.in_mode(Mode::Bitmap)),
        recalculating("integrity-512-bitmap-recalculating", TAGGED_512.in_mode(Mode::Bitmap), 1100),
        discarding("integrity-512-discards", TAGGED_512, 1100),
        discarding("integrity-512-direct-discards", TAGGED_512.in_mode(Mode::Direct), 1100),
        discarding("integrity-512-bitmap-discards", TAGGED_512.in_mode(Mode::Bitmap), 1100),
        changing("integrity-512-modes", TAGGED_512, 1100),
        changing("integrity-4096-modes", TAGGED_4096, 1800),
        mending(),
        tagged("inline-512", INLINE_512, 400, small),
        tagged("inline-4096", INLINE_4096, 1800, large),
        recalculating("inline-512-recalculating", INLINE_512, 400),
        tagged("above-512", ABOVE_512, 1100, small),
        tagged("above-4096", ABOVE_4096, 1800, small),
        torn("above-4096-torn", ABOVE_4096),
        tagged("above-512-direct", ABOVE_512.in_mode(Mode::Direct), 1100, small),
    ]
}

/// Volumes whose journal is full before anything goes home, and whose tags have no padding: here
/// every ordering point of the journal counts.
pub(super) fn late() -> Vec<Scenario> {
    let small = BlockSize::B512;
    vec![
        tagged("integrity-late", LATE, 1950, small),
        two(tagged("integrity-late-two", LATE, 1000, small)),
    ]
}

/// The volumes in which the ordering points of everything else count. Their tags have no padding, or
/// the flush before they are read again would stand in for any other.
pub(super) fn unjournalled() -> Vec<Scenario> {
    let small = BlockSize::B512;
    vec![
        tagged("integrity-late-bitmap", LATE.in_mode(Mode::Bitmap), UNPADDED, small),
        changing("integrity-late-modes", LATE, UNPADDED),
        recalculating("integrity-late-recalculating", LATE, UNPADDED),
        discarding("integrity-late-discards", LATE, UNPADDED),
    ]
}

/// Volumes to be made larger and smaller: the device with the data is.
pub(super) fn resizable() -> Vec<Scenario> {
    let small = BlockSize::B512;
    vec![
        tagged("integrity-512", TAGGED_512, 1100, small),
        tagged("integrity-4096", TAGGED_4096, 1800, small),
        two(tagged("integrity-512-two", TAGGED_512, 1100, small)),
        recalculating("integrity-512-recalculating", TAGGED_512, 1100),
    ]
}

/// The same made without wiping: only what was written can be read.
pub(super) fn unwiped() -> Scenario {
    let kind = Tagged { wipe: Wipe::Nothing, ..LATE };
    tagged("integrity-unwiped", kind, 1950, BlockSize::B512)
}

/// What a tagged member is made of: a journal of a few sections and short metadata runs, so that
/// both wrap and straddle often.
#[derive(Clone, Copy)]
pub(super) struct Tagged {
    pub block: BlockSize,
    /// Tuples are given by a layer above, which checks them: there, data and tags of different writes
    /// are an error.
    tags: TagSource,
    journal_sectors: u64,
    interleave_sectors: u64,
    /// Journal in memory; the smallest makes writers wait for each other.
    memory_bytes: usize,
    pub mode: Mode,
    /// Percentage of the journal that fills before it is written home.
    watermark: u8,
    wipe: Wipe,
    /// Discards become the kernel's tags.
    discards: bool,
    /// Bytes of metadata that the disk keeps for each block.
    pub member_tags: usize,
}

pub(super) const TAGGED_512: Tagged = Tagged {
    block: BlockSize::B512,
    tags: TagSource::Hash(Algorithm::Crc32c),
    journal_sectors: 700,
    interleave_sectors: 64,
    memory_bytes: 1,
    mode: Mode::Journal,
    watermark: 50,
    wipe: Wipe::TagsOnly,
    discards: false,
    member_tags: 0,
};
const LATE: Tagged = Tagged {
    journal_sectors: 900,
    interleave_sectors: 1024,
    memory_bytes: 1 << 20,
    watermark: 100,
    wipe: Wipe::Zeroes,
    ..TAGGED_512
};
/// Sectors of a member of this kind with one metadata run, which is full.
const UNPADDED: u64 = 888 + 8 + 1024;
pub(super) const TAGGED_4096: Tagged =
    Tagged { block: BlockSize::B4096, journal_sectors: 1200, memory_bytes: 1 << 20, ..TAGGED_512 };

/// Tags in the metadata of the disk's blocks, with some of it left over.
pub(super) const INLINE_512: Tagged = Tagged { mode: Mode::Inline, member_tags: 8, ..TAGGED_512 };
/// Tags from above: tuples, whose guard and reference say to which write and block they belong.
pub(super) const ABOVE_512: Tagged =
    Tagged { tags: TagSource::Above(Some(TupleKind::FOUND[0])), wipe: Wipe::Zeroes, ..TAGGED_512 };
const ABOVE_4096: Tagged = Tagged { tags: ABOVE_512.tags, wipe: Wipe::Zeroes, ..TAGGED_4096 };
const INLINE_4096: Tagged = Tagged { block: BlockSize::B4096, ..INLINE_512 };

impl Tagged {
    /// The same, usually opened in `mode`.
    pub(super) const fn in_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    pub(super) fn format(&self) -> FormatOptions {
        let inline = self.mode == Mode::Inline;
        let tag_bytes = self.tags.tag_bytes().expect("their kind is known");
        FormatOptions {
            inline,
            journal_sectors: (!inline).then_some(self.journal_sectors),
            interleave_sectors: Some(self.interleave_sectors),
            ..FormatOptions::new(self.block, tag_bytes, *b"the salt of sims")
        }
    }

    pub(super) fn layout(&self, member_sectors: u64) -> Layout {
        let device = DeviceSectors::Interleaved(member_sectors);
        let made = ::integrity::format(device, &self.format());
        made.unwrap_or_else(|error| panic!("a member of a scenario: {error}")).1
    }

    /// Where the blocks of a volume on one such disk lie.
    fn alone(self, sectors: u64, unit: BlockSize) -> Atlas {
        let members =
            Members { count: 1, sectors, tagged: Some(self), data_offset: 0, block_min: 1 };
        members.alone(unit.sectors())
    }

    /// Where data and tags of everything from `sector` of the volume on lie, rounded up to a whole
    /// metadata run.
    pub(super) fn body(&self, member_sectors: u64, sector: Sector) -> std::ops::Range<u64> {
        let layout = self.layout(member_sectors);
        if layout.inline {
            return layout.run(sector, 8).data.0..member_sectors;
        }
        let next = sector.0.next_multiple_of(self.interleave_sectors);
        let run = layout.run(Sector(next), 8);
        Sector::containing(run.tag_byte).0..member_sectors
    }

    /// Whether its tags are tuples, which a layer above gives.
    pub(super) const fn keeps_tuples(&self) -> bool {
        matches!(self.tags, TagSource::Above(_))
    }

    /// Whether a power cut may leave data and tag of different writes.
    pub(super) const fn tears(&self) -> bool {
        matches!(self.mode, Mode::Direct | Mode::Bitmap)
    }

    pub(super) async fn make(self, device: Device) -> Result<(), String> {
        self.make_over(device.into()).await
    }

    pub(super) async fn make_over(self, lower: Lower) -> Result<(), String> {
        let new = integrity::NewVolume::new(self.format(), self.tags, self.wipe);
        let made = integrity::create(lower, &new, |_, _| {});
        made.await.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn open(
        self,
        lower: impl Into<Lower>,
        opening: Opening,
        events: Events,
    ) -> Result<Rc<Integrity>, String> {
        let opened = Integrity::open(lower, self.options(opening, events)).await;
        opened.map_err(|error| error.to_string())
    }

    fn options(&self, opening: Opening, events: Events) -> integrity::Options {
        let mode = match opening {
            Opening::Usual | Opening::ReadOnly => self.mode,
            Opening::Journal | Opening::Replay | Opening::Discard => Mode::Journal,
            Opening::Bitmap | Opening::Coarse => Mode::Bitmap,
            Opening::Direct => Mode::Direct,
            Opening::Recovery => Mode::Recovery,
        };
        integrity::Options {
            read_only: opening == Opening::ReadOnly,
            memory_bytes: self.memory_bytes,
            watermark: self.watermark,
            sample: self.wipe != Wipe::Nothing,
            tag_cache_bytes: 8192,
            mode: Some(mode),
            allow_discards: self.discards,
            damaged_journal: match opening {
                Opening::Replay => Some(JournalChoice::Replay),
                Opening::Discard => Some(JournalChoice::Discard),
                _ => None,
            },
            // Some regions of a few blocks.
            log2_blocks_per_bitmap_bit: Some(if opening == Opening::Coarse { 5 } else { 3 }),
            ..integrity::Options::new(self.tags, events)
        }
    }
}

/// One tagged volume: whatever is damaged is an error, and a power cut costs nothing flushed.
fn tagged(name: &'static str, kind: Tagged, sectors: u64, member_block: BlockSize) -> Scenario {
    let format = move |members: Vec<Device>| -> LocalFuture<'static, Result<(), String>> {
        Box::pin(async move { kind.make_over(lower(members.into_iter().map(Some))?).await })
    };
    Scenario {
        member_sectors: sectors,
        verified: true,
        tuples: kind.keeps_tuples(),
        cut_writes_unreadable: kind.tears(),
        member_tags: kind.member_tags,
        damageable: 0..sectors,
        atlas: Some(Rc::new(kind.alone(sectors, member_block))),
        format: Box::new(format),
        open: opens(move |opening, events| kind.options(opening, events)),
        ..disk(name, member_block)
    }
}

/// Opens with the options that `options` gives.
fn opens(options: impl Fn(Opening, Events) -> integrity::Options + 'static) -> Box<Open> {
    Box::new(move |members: Vec<Option<Device>>, opening, events| -> Opened {
        let options = options(opening, events);
        // What was unreadable before it was opened in another mode is told only then.
        let keeps_account = opening == Opening::Usual && options.mode == Some(Mode::Bitmap);
        let events = options.events.clone();
        Box::pin(async move {
            let opened = Integrity::open(lower(members.into_iter())?, options).await;
            let volume = closing(opened.map_err(|error| error.to_string())?, keeps_account);
            Ok(volume.protected(events))
        })
    })
}

/// The same on one device for the data and one for everything else.
fn two(scenario: Scenario) -> Scenario {
    Scenario { members: 2, atlas: None, ..scenario }
}

/// A volume that is opened in one mode and then in another.
fn changing(name: &'static str, kind: Tagged, sectors: u64) -> Scenario {
    use Opening::{Bitmap, Coarse, Direct, Journal, ReadOnly, Recovery};
    let openings = &[Journal, Bitmap, Coarse, Direct, Journal, Bitmap, Direct, ReadOnly, Recovery];
    Scenario { openings, atlas: None, ..tagged(name, kind, sectors, BlockSize::B512) }
}

/// A volume whose journal is damaged, so that a person has to say what becomes of it.
pub(super) fn mending() -> Scenario {
    let (name, sectors) = ("integrity-512-mending", 1950);
    let layout = LATE.layout(sectors);
    let journal = layout.journal.section_start(0).0..layout.initial_sectors;
    Scenario {
        openings: &[Opening::Replay, Opening::Discard],
        journal,
        atlas: None,
        ..tagged(name, LATE, sectors, BlockSize::B512)
    }
}

/// Discards become the kernel's own tags for them, which accept whatever lies there: damage is not
/// for this scenario.
fn discarding(name: &'static str, kind: Tagged, sectors: u64) -> Scenario {
    let kind = Tagged { discards: true, memory_bytes: 1 << 20, ..kind };
    Scenario { verified: false, atlas: None, ..tagged(name, kind, sectors, BlockSize::B512) }
}

/// A volume that was never wiped, over zeroes, recalculated from its first opening on, each opening
/// going on where the last one's superblock says. What is not done yet is asked for unverified: then
/// every block must be what was written, whatever the power cuts, done or not. (Damage is not for
/// this scenario: recalculation blesses it.)
fn recalculating(name: &'static str, kind: Tagged, sectors: u64) -> Scenario {
    let kind = Tagged { wipe: Wipe::Nothing, ..kind };
    let open = move |members: Vec<Option<Device>>, opening, events: Events| -> Opened {
        Box::pin(async move {
            let device = only(members)?;
            let begun = begun(&device).await?;
            let recalculate = if begun { Recalculate::Continue } else { Recalculate::Reset };
            let options = integrity::Options {
                recalculate,
                unverified: true,
                sample: true,
                ..kind.options(opening, events)
            };
            let opened = Integrity::open(device, options).await;
            Ok(closing(opened.map_err(|error| error.to_string())?, false))
        })
    };
    Scenario {
        verified: false,
        atlas: None,
        open: Box::new(open),
        ..tagged(name, kind, sectors, BlockSize::B512)
    }
}

/// Whether the superblock says that recalculation began.
async fn begun(device: &Device) -> Result<bool, String> {
    let area = device.read(Sector::ZERO, ::integrity::superblock::AREA_SECTORS).await;
    let area = area.map_err(|error| error.to_string())?;
    let superblock = ::integrity::Superblock::decode(area.as_slice());
    let superblock = superblock.map_err(|error| error.to_string())?;
    Ok(superblock.flags.has(::integrity::Flags::RECALCULATING))
}

/// A tagged volume, as the machine wants it. With `keeps_account` it says where a power cut may have
/// made blocks unreadable, until they are whole.
pub(super) fn closing(layer: Rc<Integrity>, keeps_account: bool) -> Volume {
    let device = layer.device();
    let scrub: Rc<dyn Scrub> = layer.clone();
    let suspects = keeps_account.then(|| -> super::Suspects {
        // Not to be kept open by being asked.
        let layer = Rc::downgrade(&layer);
        Rc::new(move || layer.upgrade().map(|layer| layer.suspect()).unwrap_or_default())
    });
    let close = Box::new(move || -> LocalFuture<'static, IoResult> {
        Box::pin(async move { layer.close().await })
    });
    Volume { device, scrub: Some(scrub), suspects, close }
}

/// One device, or one for everything else and one for the data.
fn lower(mut members: impl Iterator<Item = Option<Device>>) -> Result<Lower, String> {
    let metadata = members.next().flatten().ok_or("the device is missing")?;
    let data = members.next().map(|data| data.ok_or("the data device is missing")).transpose()?;
    Ok(Lower { metadata, data })
}
