//! The volumes under test: how their members are made, and how they are opened.

use crate::disk::SimDisk;
use crate::image::Image;
use crate::power::Power;
use crate::schedule::SimDriver;
use ::integrity::FormatOptions;
use bio::{Device, Events, IoResult, LocalFuture, Scrub};
use checksum::Algorithm;
use layers::integrity::{self, Integrity};
use runtime::Executor;
use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;
use units::BlockSize;

/// A volume that is open.
pub struct Volume {
    /// Where requests go.
    pub device: Device,
    /// How it is read whole, if it can be.
    pub scrub: Option<Rc<dyn Scrub>>,
    /// Closes it cleanly: afterwards everything that was written is durable.
    pub close: Box<dyn FnOnce() -> LocalFuture<'static, IoResult>>,
}

impl Volume {
    /// A volume that has nothing to do at its end but to flush.
    #[must_use]
    pub fn flushed(device: Device) -> Self {
        let last = device.clone();
        let close = Box::new(move || -> LocalFuture<'static, IoResult> {
            Box::pin(async move { last.flush().await })
        });
        Self { device, scrub: None, close }
    }
}

/// A missing member is `None`. The error is for people.
pub type Open = dyn Fn(Vec<Option<Device>>, Events) -> LocalFuture<'static, Result<Volume, String>>;

/// Writes whatever makes blank disks members.
pub type Format = dyn Fn(Vec<Device>) -> LocalFuture<'static, Result<(), String>>;

/// A kind of volume.
pub struct Scenario {
    /// What it is called on the command line.
    pub name: &'static str,
    /// How many members.
    pub members: usize,
    /// Sectors of each.
    pub member_sectors: u64,
    /// Their logical block.
    pub member_block: BlockSize,
    /// Power cuts tear the members' logical blocks too.
    pub tearing: bool,
    /// How many members may be damaged at the same place.
    pub redundancy: usize,
    /// Wrong bytes are noticed: bits may be flipped, and the answer must be right or an error.
    pub verified: bool,
    /// A power cut is survived with nothing but the members' honesty (no write hole, or a resync).
    pub survives_cuts: bool,
    /// The sectors of each member in which damage is done.
    pub damageable: Range<u64>,
    /// Makes the members.
    pub format: Box<Format>,
    /// Opens the volume.
    pub open: Box<Open>,
    /// The members as made, and the volume's blocks and block size.
    pub made: OnceCell<Made>,
}

/// Freshly made members.
#[derive(Clone)]
pub struct Made {
    /// Their content.
    pub images: Vec<Image>,
    /// Size of the volume in blocks.
    pub blocks: u64,
    /// Its logical block.
    pub block: BlockSize,
}

impl Scenario {
    /// The members, made once and shared from then on.
    ///
    /// # Panics
    /// If they cannot be made or do not open: nothing can be tested then.
    pub fn made(&self) -> &Made {
        self.made.get_or_init(|| self.make())
    }

    fn make(&self) -> Made {
        let driver = SimDriver::new(0);
        let power = Power::new(&driver);
        let blank = vec![Image::new(self.member_sectors); self.members];
        let disks = self.disks(&power, blank);
        let devices: Vec<Device> = disks.iter().map(SimDisk::device).collect();
        let members = devices.iter().cloned().map(Some).collect();
        let formatted = (self.format)(devices);
        let executor = Executor::new(driver);
        let name = self.name;
        let made = executor.run(formatted).expect("formatting ends");
        made.unwrap_or_else(|error| panic!("{name} cannot be made: {error}"));
        let images = disks.iter().map(|disk| disk.image()).collect();
        let opened = executor.run((self.open)(members, Events::none())).expect("opening ends");
        let volume = opened.unwrap_or_else(|error| panic!("{name} does not open: {error}"));
        let limits = volume.device.limits();
        let block = limits.logical_block;
        Made { images, blocks: limits.sectors / block.sectors(), block }
    }

    /// Disks that hold `images`.
    #[must_use]
    pub fn disks(&self, power: &Rc<Power>, images: Vec<Image>) -> Vec<Rc<SimDisk>> {
        let disk = |(index, image)| {
            let disk = SimDisk::new(power, index, image, self.member_block);
            if self.tearing { disk.tearing_blocks() } else { disk }
        };
        images.into_iter().enumerate().map(disk).collect()
    }
}

fn nothing(_: Vec<Device>) -> LocalFuture<'static, Result<(), String>> {
    Box::pin(async { Ok(()) })
}

/// The only member of a volume without redundancy.
fn only(members: Vec<Option<Device>>) -> Result<Device, String> {
    members.into_iter().next().flatten().ok_or_else(|| "the only member is missing".into())
}

/// A bare disk: what the simulator itself is held against.
#[must_use]
pub fn disk(name: &'static str, block: BlockSize) -> Scenario {
    Scenario {
        name,
        members: 1,
        member_sectors: 256,
        member_block: block,
        tearing: false,
        redundancy: 0,
        verified: false,
        survives_cuts: true,
        damageable: 0..256,
        format: Box::new(nothing),
        open: Box::new(|members, _| Box::pin(async { Ok(Volume::flushed(only(members)?)) })),
        made: OnceCell::new(),
    }
}

/// A bare disk below the limiting layer.
fn limited() -> Scenario {
    let open: Box<Open> = Box::new(|members, _| {
        Box::pin(async {
            let options = layers::limit::Options { max_bytes: 1024, in_flight_bytes: 2048 };
            let layer = layers::limit::Limit::new(only(members)?, options);
            Ok(Volume::flushed(Device::new(layer)))
        })
    });
    Scenario { open, ..disk("limit", BlockSize::B512) }
}

/// What a tagged member is made of: a journal of a few sections and short metadata runs, so that
/// both wrap and straddle often.
#[derive(Clone, Copy)]
struct Tagged {
    block: BlockSize,
    journal_sectors: u64,
    interleave_sectors: u64,
    /// Journal in memory; the smallest makes writers wait for each other.
    memory_bytes: usize,
}

const TAGGED_512: Tagged = Tagged {
    block: BlockSize::B512,
    journal_sectors: 700,
    interleave_sectors: 64,
    memory_bytes: 1,
};
const TAGGED_4096: Tagged =
    Tagged { block: BlockSize::B4096, journal_sectors: 1200, memory_bytes: 1 << 20, ..TAGGED_512 };

impl Tagged {
    fn format(&self) -> FormatOptions {
        FormatOptions {
            block: self.block,
            tag_size: 4,
            journal_sectors: Some(self.journal_sectors),
            interleave_sectors: Some(self.interleave_sectors),
            fix_padding: true,
            fix_hmac: true,
            journal_mac: false,
            salt: *b"the salt of sims",
        }
    }

    async fn make(self, device: Device) -> Result<(), String> {
        let options = self.format();
        let made = integrity::create(&device, &options, integrity::Wipe::TagsOnly, |_, _| {});
        made.await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(self, device: Device, events: Events) -> Result<Rc<Integrity>, String> {
        let mut options = integrity::Options::new(Algorithm::Crc32c, events);
        options.memory_bytes = self.memory_bytes;
        options.tag_cache_bytes = 8192;
        Integrity::open(device, options).await.map_err(|error| error.to_string())
    }
}

/// One tagged volume: whatever is damaged is an error, and a power cut costs nothing flushed.
fn tagged(name: &'static str, kind: Tagged, sectors: u64, member_block: BlockSize) -> Scenario {
    let format = move |members: Vec<Device>| -> LocalFuture<'static, Result<(), String>> {
        Box::pin(async move { kind.make(only(members.into_iter().map(Some).collect())?).await })
    };
    let open = move |members, events| -> LocalFuture<'static, Result<Volume, String>> {
        Box::pin(async move {
            let layer = kind.open(only(members)?, events).await?;
            let device = layer.device();
            let scrub: Rc<dyn Scrub> = layer.clone();
            let close = Box::new(move || -> LocalFuture<'static, IoResult> {
                Box::pin(async move { layer.close().await })
            });
            Ok(Volume { device, scrub: Some(scrub), close })
        })
    };
    Scenario {
        member_sectors: sectors,
        verified: true,
        damageable: 0..sectors,
        format: Box::new(format),
        open: Box::new(open),
        ..disk(name, member_block)
    }
}

/// Every kind of volume.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let (small, large) = (BlockSize::B512, BlockSize::B4096);
    let roomy = Tagged { memory_bytes: 1 << 20, ..TAGGED_512 };
    vec![
        disk("disk-512", small),
        disk("disk-4096", large),
        limited(),
        tagged("integrity-512", TAGGED_512, 1100, small),
        tagged("integrity-512-roomy", roomy, 1100, small),
        tagged("integrity-4096", TAGGED_4096, 1800, small),
        Scenario { tearing: true, ..tagged("integrity-4096-torn", TAGGED_4096, 1800, large) },
    ]
}
