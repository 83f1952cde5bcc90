//! Volumes over dm-integrity alone, and the tagged members that arrays are made of.

use super::bare::{disk, only};
use super::{Scenario, Volume};
use ::integrity::FormatOptions;
use ::integrity::layout::DeviceSectors;
use ::integrity::open::Mode;
use bio::{Device, Events, IoResult, LocalFuture, Scrub};
use checksum::Algorithm;
use layers::integrity::{self, Integrity, Lower};
use std::rc::Rc;
use units::{BlockSize, Sector};

pub(super) fn all() -> Vec<Scenario> {
    let (small, large) = (BlockSize::B512, BlockSize::B4096);
    let roomy = Tagged { memory_bytes: 1 << 20, ..TAGGED_512 };
    vec![
        tagged("integrity-512", TAGGED_512, 1100, small),
        tagged("integrity-512-roomy", roomy, 1100, small),
        tagged("integrity-4096", TAGGED_4096, 1800, small),
        recalculating("integrity-512-recalculating", TAGGED_512),
        Scenario { members: 2, ..tagged("integrity-512-two", roomy, 1100, small) },
        Scenario { tearing: true, ..tagged("integrity-4096-torn", TAGGED_4096, 1800, large) },
        tagged("integrity-512-direct", Tagged { mode: Mode::Direct, ..TAGGED_512 }, 1100, small),
        tagged("integrity-512-bitmap", Tagged { mode: Mode::Bitmap, ..TAGGED_512 }, 1100, small),
        tagged("integrity-4096-bitmap", Tagged { mode: Mode::Bitmap, ..TAGGED_4096 }, 1800, small),
        tagged("inline-512", INLINE_512, 400, small),
        tagged("inline-4096", INLINE_4096, 1800, large),
        recalculating("inline-512-recalculating", INLINE_512),
    ]
}

/// Volumes whose journal is full before anything goes home, and whose tags have no padding: here
/// every ordering point counts.
pub(super) fn late() -> Vec<Scenario> {
    let small = BlockSize::B512;
    vec![
        tagged("integrity-late", LATE, 1950, small),
        Scenario { members: 2, ..tagged("integrity-late-two", LATE, 1000, small) },
    ]
}

/// The same made without wiping: only what was written can be read.
pub(super) fn unwiped() -> Scenario {
    let kind = Tagged { wipe: integrity::Wipe::Nothing, ..LATE };
    tagged("integrity-unwiped", kind, 1950, BlockSize::B512)
}

/// What a tagged member is made of: a journal of a few sections and short metadata runs, so that
/// both wrap and straddle often.
#[derive(Clone, Copy)]
pub(super) struct Tagged {
    pub block: BlockSize,
    journal_sectors: u64,
    interleave_sectors: u64,
    /// Journal in memory; the smallest makes writers wait for each other.
    memory_bytes: usize,
    pub mode: Mode,
    /// Percentage of the journal that fills before it is written home.
    watermark: u8,
    wipe: integrity::Wipe,
    /// Bytes of metadata that the disk keeps for each block.
    pub member_tags: usize,
}

pub(super) const TAGGED_512: Tagged = Tagged {
    block: BlockSize::B512,
    journal_sectors: 700,
    interleave_sectors: 64,
    memory_bytes: 1,
    mode: Mode::Journal,
    watermark: 50,
    wipe: integrity::Wipe::TagsOnly,
    member_tags: 0,
};
const LATE: Tagged = Tagged {
    journal_sectors: 900,
    interleave_sectors: 1024,
    memory_bytes: 1 << 20,
    watermark: 100,
    wipe: integrity::Wipe::Zeroes,
    ..TAGGED_512
};
pub(super) const TAGGED_4096: Tagged =
    Tagged { block: BlockSize::B4096, journal_sectors: 1200, memory_bytes: 1 << 20, ..TAGGED_512 };

/// Tags in the metadata of the disk's blocks, with some of it left over.
pub(super) const INLINE_512: Tagged = Tagged { mode: Mode::Inline, member_tags: 8, ..TAGGED_512 };
const INLINE_4096: Tagged = Tagged { block: BlockSize::B4096, ..INLINE_512 };

impl Tagged {
    fn format(&self) -> FormatOptions {
        let inline = self.mode == Mode::Inline;
        FormatOptions {
            inline,
            journal_sectors: (!inline).then_some(self.journal_sectors),
            interleave_sectors: Some(self.interleave_sectors),
            ..FormatOptions::new(self.block, 4, *b"the salt of sims")
        }
    }

    /// Where data and tags of everything from `sector` of the volume on lie, rounded up to a whole
    /// metadata run.
    pub(super) fn body(&self, member_sectors: u64, sector: Sector) -> std::ops::Range<u64> {
        let device = DeviceSectors::Interleaved(member_sectors);
        let made = ::integrity::format(device, &self.format());
        let (_, layout) = made.unwrap_or_else(|error| panic!("a member of a scenario: {error}"));
        if layout.inline {
            return layout.run(sector, 8).data.0..member_sectors;
        }
        let next = sector.0.next_multiple_of(self.interleave_sectors);
        let run = layout.run(Sector(next), 8);
        Sector::containing(run.tag_byte).0..member_sectors
    }

    pub(super) async fn make(self, device: Device) -> Result<(), String> {
        self.make_over(device.into()).await
    }

    async fn make_over(self, lower: Lower) -> Result<(), String> {
        let new = integrity::NewVolume::new(self.format(), Algorithm::Crc32c, self.wipe);
        let made = integrity::create(lower, &new, |_, _| {});
        made.await.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn open(
        self,
        lower: impl Into<Lower>,
        events: Events,
    ) -> Result<Rc<Integrity>, String> {
        let opened = Integrity::open(lower, self.options(events)).await;
        opened.map_err(|error| error.to_string())
    }

    fn options(&self, events: Events) -> integrity::Options {
        integrity::Options {
            memory_bytes: self.memory_bytes,
            watermark: self.watermark,
            sample: self.wipe != integrity::Wipe::Nothing,
            tag_cache_bytes: 8192,
            mode: Some(self.mode),
            // Some regions of a few blocks.
            log2_blocks_per_bitmap_bit: Some(3),
            ..integrity::Options::new(Algorithm::Crc32c, events)
        }
    }
}

/// A volume that was never wiped, over zeroes, recalculated from its first opening on, each opening
/// going on where the last one's superblock says. What is not done yet is asked for unverified: then
/// every block must be what was written, whatever the power cuts, done or not. (Damage is not for
/// this scenario: recalculation blesses it.)
fn recalculating(name: &'static str, kind: Tagged) -> Scenario {
    let format = move |members: Vec<Device>| -> LocalFuture<'static, Result<(), String>> {
        Box::pin(async move {
            let device = only(members.into_iter().map(Some).collect())?;
            let wipe = integrity::Wipe::Nothing;
            let new = integrity::NewVolume::new(kind.format(), Algorithm::Crc32c, wipe);
            let made = integrity::create(device, &new, |_, _| {});
            made.await.map(drop).map_err(|error| error.to_string())
        })
    };
    let open = move |members, events: Events| -> LocalFuture<'static, Result<Volume, String>> {
        Box::pin(async move {
            let device = only(members)?;
            let begun = begun(&device).await?;
            let recalculate = if begun {
                integrity::Recalculate::Continue
            } else {
                integrity::Recalculate::Reset
            };
            let options =
                integrity::Options { recalculate, unverified: true, ..kind.options(events) };
            let opened = Integrity::open(device, options).await;
            Ok(closing(opened.map_err(|error| error.to_string())?))
        })
    };
    Scenario {
        verified: false,
        format: Box::new(format),
        open: Box::new(open),
        ..tagged(name, kind, 1100, BlockSize::B512)
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

/// A tagged volume, as the machine wants it.
fn closing(layer: Rc<Integrity>) -> Volume {
    let device = layer.device();
    let scrub: Rc<dyn Scrub> = layer.clone();
    let close = Box::new(move || -> LocalFuture<'static, IoResult> {
        Box::pin(async move { layer.close().await })
    });
    Volume { device, scrub: Some(scrub), close }
}

/// One device, or one for everything else and one for the data.
fn lower(mut members: impl Iterator<Item = Option<Device>>) -> Result<Lower, String> {
    let metadata = members.next().flatten().ok_or("the device is missing")?;
    let data = members.next().map(|data| data.ok_or("the data device is missing")).transpose()?;
    Ok(Lower { metadata, data })
}

/// One tagged volume: whatever is damaged is an error, and a power cut costs nothing flushed.
fn tagged(name: &'static str, kind: Tagged, sectors: u64, member_block: BlockSize) -> Scenario {
    let format = move |members: Vec<Device>| -> LocalFuture<'static, Result<(), String>> {
        Box::pin(async move { kind.make_over(lower(members.into_iter().map(Some))?).await })
    };
    let open = move |members: Vec<Option<Device>>,
                     events|
          -> LocalFuture<'static, Result<Volume, String>> {
        Box::pin(async move { Ok(closing(kind.open(lower(members.into_iter())?, events).await?)) })
    };
    Scenario {
        member_sectors: sectors,
        verified: true,
        cut_writes_unreadable: matches!(kind.mode, Mode::Direct | Mode::Bitmap),
        member_tags: kind.member_tags,
        damageable: 0..sectors,
        format: Box::new(format),
        open: Box::new(open),
        ..disk(name, member_block)
    }
}
