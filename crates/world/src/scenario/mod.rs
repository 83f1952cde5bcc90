//! The volumes under test: how their members are made, and how they are opened.

mod array;
mod bare;
mod places;
mod tagged;

pub use bare::disk;

use crate::atlas::Atlas;
use crate::disk::SimDisk;
use crate::image::Image;
use crate::opening::Opening;
use crate::ordering::Orderings;
use crate::power::Power;
use crate::schedule::SimDriver;
use bio::{Device, Events, IoResult, LocalFuture, NoProfile, Scrub};
use layers::protect::Protect;
use runtime::Executor;
use std::cell::{Cell, OnceCell};
use std::ops::Range;
use std::rc::Rc;
use units::{BlockSize, Sector};

/// A volume that is open.
pub struct Volume {
    /// Where requests go.
    pub device: Device,
    /// How it is read whole, if it can be.
    pub scrub: Option<Rc<dyn Scrub>>,
    /// Where it says that a power cut may have made blocks unreadable, if it keeps account of that.
    pub suspects: Option<Suspects>,
    /// Closes it cleanly: afterwards everything that was written is durable.
    pub close: Box<dyn FnOnce() -> LocalFuture<'static, IoResult>>,
}

/// Tells first sectors and sectors.
pub type Suspects = Rc<dyn Fn() -> Vec<(Sector, u64)>>;

impl Volume {
    /// A volume that has nothing to do at its end but to flush.
    #[must_use]
    pub fn flushed(device: Device) -> Self {
        let last = device.clone();
        let close = Box::new(move || -> LocalFuture<'static, IoResult> {
            Box::pin(async move { last.flush().await })
        });
        Self { device, scrub: None, suspects: None, close }
    }

    /// The same with tuples made and checked at the top, if its device keeps any.
    #[must_use]
    pub fn protected(self, events: Events) -> Self {
        match Protect::new(self.device.clone(), Default::default(), events) {
            Ok(protect) => Self { device: Device::new(protect), ..self },
            Err(NoProfile) => self,
        }
    }
}

/// A missing member is `None`. The error is for people.
pub type Open = dyn Fn(Vec<Option<Device>>, Opening, Events) -> Opened;

/// What opening a volume comes to.
pub type Opened = LocalFuture<'static, Result<Volume, String>>;

/// Writes whatever makes blank disks members.
pub type Format = dyn Fn(Vec<Device>) -> LocalFuture<'static, Result<(), String>>;

/// Who joins an array when it is opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Joining {
    /// Nobody; spares take vacant slots.
    #[default]
    Nobody,
    /// A spare, beside its first member, to replace it.
    Replacement,
    /// Members that were away: with what they missed by the bitmap, or else with everything.
    Returned,
}

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
    /// Bytes of metadata that they keep for each block. What vouches for a block lies there: a write
    /// that vanishes takes both, and nobody can notice.
    pub member_tags: usize,
    /// Power cuts tear the members' logical blocks too.
    pub tearing: bool,
    /// How many members may be damaged at the same place.
    pub redundancy: usize,
    /// Wrong bytes are noticed: bits may be flipped, and the answer must be right or an error.
    pub verified: bool,
    /// Members keep tuples: what an application says in them is noticed by nobody if it changes there.
    pub tuples: bool,
    /// A power cut is survived with nothing but the members' honesty (no write hole, or a resync).
    pub survives_cuts: bool,
    /// A power cut is survived without a member as well.
    pub logged: bool,
    /// The last member is the array's write journal, which nothing replaces.
    pub journalled: bool,
    /// Opened as usual, a power cut may make blocks unreadable that have a write which no flush
    /// covered.
    pub cut_writes_unreadable: bool,
    /// The ways in which a life may open it; empty: only the usual one.
    pub openings: &'static [Opening],
    /// Where each member's journal is, if that may be damaged and a person decides what becomes of it.
    pub journal: Range<u64>,
    /// The sectors of each member in which damage is healed; elsewhere it costs at least the member.
    pub damageable: Range<u64>,
    /// Members have bad block logs: a sector that cannot be written costs no more than that.
    pub records_bad: bool,
    /// Where its blocks lie, if it is known what damage costs there.
    pub atlas: Option<Rc<Atlas>>,
    /// Makes the members.
    pub format: Box<Format>,
    /// Opens the volume.
    pub open: Box<Open>,
    /// What its disks are asked for, and what they are not to do.
    pub orderings: Rc<Orderings>,
    /// Who joins the array when it is opened.
    pub joining: Rc<Cell<Joining>>,
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
        let blank = Image::new(self.member_sectors).with_tags(self.member_block, self.member_tags);
        let blank = vec![blank; self.members];
        let disks = self.disks(&power, blank);
        let devices: Vec<Device> = disks.iter().map(SimDisk::device).collect();
        let members = devices.iter().cloned().map(Some).collect();
        let formatted = (self.format)(devices);
        let executor = Executor::new(driver);
        let name = self.name;
        let made = executor.run(formatted).expect("formatting ends");
        made.unwrap_or_else(|error| panic!("{name} cannot be made: {error}"));
        let images = disks.iter().map(|disk| disk.image()).collect();
        let opened = executor
            .run((self.open)(members, Opening::Usual, Events::none()))
            .expect("opening ends");
        let volume = opened.unwrap_or_else(|error| panic!("{name} does not open: {error}"));
        let limits = volume.device.limits();
        let block = limits.logical_block;
        Made { images, blocks: limits.sectors / block.sectors(), block }
    }

    /// The members that others can replace, the first ones.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.members - usize::from(self.journalled)
    }

    /// Whether any bit below may be flipped: it is noticed, or, where copies or parity of tuples would disagree
    /// with nobody to say which is right, it is not among what is done.
    #[must_use]
    pub fn rots(&self) -> bool {
        self.verified && !(self.tuples && self.redundancy > 0)
    }

    /// Whether a power cut may make blocks unreadable in a life opened as `opening`.
    #[must_use]
    pub fn tears(&self, opening: Opening) -> bool {
        opening.tears_writes() || (opening == Opening::Usual && self.cut_writes_unreadable)
    }

    /// Disks that hold `images`.
    #[must_use]
    pub fn disks(&self, power: &Rc<Power>, images: Vec<Image>) -> Vec<Rc<SimDisk>> {
        let disk = |(index, image)| {
            let disk = SimDisk::new(power, index, image, self.member_block);
            let disk = disk.heeding(&self.orderings);
            if self.tearing { disk.tearing_blocks() } else { disk }
        };
        images.into_iter().enumerate().map(disk).collect()
    }
}

/// Volumes in which the order of writes is worn most; not among [`all`].
#[must_use]
pub fn late() -> Vec<Scenario> {
    tagged::late()
}

/// Volumes in which the order of writes without a journal is worn most.
#[must_use]
pub fn unjournalled() -> Vec<Scenario> {
    tagged::unjournalled()
}

/// The volume whose journal is damaged and mended.
#[must_use]
pub fn mending() -> Scenario {
    tagged::mending()
}

/// Volumes to be made larger and smaller.
#[must_use]
pub fn resizable() -> Vec<Scenario> {
    tagged::resizable()
}

/// Arrays with a spare, their last member; not among [`all`].
#[must_use]
pub fn spared() -> Vec<Scenario> {
    array::spared()
}

/// Arrays with a bitmap, whose members are away and come back; not among [`all`].
#[must_use]
pub fn returning() -> Vec<Scenario> {
    array::returning()
}

/// Arrays with a partial parity log that holds records of a life before; not among [`all`].
#[must_use]
pub fn aged() -> Vec<Scenario> {
    array::aged()
}

/// Mirrors whose bad block logs are all but full, and for how many entries they have room; not among [`all`].
#[must_use]
pub fn crowded() -> (Vec<Scenario>, u64) {
    (array::crowded(), array::ROOM)
}

/// A volume that was made without wiping; not among [`all`].
#[must_use]
pub fn unwiped() -> Scenario {
    tagged::unwiped()
}

/// Every kind of volume.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let mut all = bare::all();
    all.extend(tagged::all());
    all.extend(array::all());
    all
}
