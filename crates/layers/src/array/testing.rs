//! Disks for the tests of RAID layers: memory that keeps a log of all writes, so that every crash
//! can be tried; optionally with a tag per block, like a member over dm-integrity, or with metadata
//! that travels with its block, like a disk of larger sectors.

mod journal;
mod model;

pub(crate) use model::{
    BEFORE, Kept, Model, Protected, Step, lies_as_given, on_member, profiles, step, tags_for,
};

use super::{Array, Found, Logs, Options};
use bio::{Bio, BlockDevice, Device, Event, Events, IoErrorKind, IoResult, Limits, Op};
use md::assemble::{Assembly, Candidate, Slot, assemble};
use md::bad_blocks::BadBlocks;
use md::bitmap::{Bitmap, BitmapHeader, NewBitmap};
use md::create::{LEFT_SYMMETRIC, NewArray, NewMember, create, free_number, join};
use md::superblock::{Features, Level, Minor, ResyncOffset, Role, Superblock, Time, Uuid};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use units::{BlockSize, SECTOR_BYTES, Sector, u64_of, usize_of};

/// What reached a disk, in the order over all disks.
#[derive(Clone)]
pub(crate) enum Entry {
    /// These bytes, durable at once or with the disk's next flush.
    Write { disk: usize, sector: Sector, bytes: Vec<u8>, fua: bool },
    /// Everything before is durable.
    Flush { disk: usize },
}

pub(crate) type Log = Rc<RefCell<Vec<Entry>>>;

/// A disk.
pub(crate) struct Disk {
    index: usize,
    limits: Limits,
    pub(crate) bytes: RefCell<Vec<u8>>,
    /// A hash per sector, if the disk is verified.
    tags: Option<RefCell<Vec<u64>>>,
    /// What is kept for each sector: `Limits::tag_size` bytes.
    pub(crate) metadata: RefCell<Vec<u8>>,
    /// Sectors that give medium errors until they are written.
    pub(crate) unreadable: RefCell<BTreeSet<u64>>,
    /// Sectors whose writes fail, and how.
    pub(crate) unwritable: RefCell<BTreeSet<u64>>,
    pub(crate) write_error: Cell<IoErrorKind>,
    /// Flushes fail like this.
    pub(crate) flush_error: Cell<Option<IoErrorKind>>,
    pub(crate) gone: Cell<bool>,
    pub(crate) reads: Cell<u64>,
    requests: Cell<u64>,
    log: Log,
}

fn hash(sector: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sector ^ 0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

impl Disk {
    pub(crate) fn new(index: usize, bytes: Vec<u8>, tagged: bool, log: &Log) -> Rc<Self> {
        Self::keeping(index, bytes, (tagged, Kept::Bytes(0)), log)
    }

    /// The same with metadata for each sector, blank.
    fn keeping(index: usize, bytes: Vec<u8>, (tagged, kept): (bool, Kept), log: &Log) -> Rc<Self> {
        let mut limits = Limits::new(u64_of(bytes.len() / SECTOR_BYTES), BlockSize::B512);
        limits.verified = tagged;
        kept.apply(&mut limits);
        let metadata = vec![limits.blank_tag(); bytes.len() / SECTOR_BYTES * limits.tag_size];
        let metadata = RefCell::new(metadata);
        let tags = (0..).zip(bytes.chunks(SECTOR_BYTES)).map(|(at, sector)| hash(at, sector));
        let tags = tagged.then(|| RefCell::new(tags.collect()));
        Rc::new(Self {
            index,
            limits,
            bytes: RefCell::new(bytes),
            tags,
            metadata,
            unreadable: RefCell::default(),
            unwritable: RefCell::default(),
            write_error: Cell::new(IoErrorKind::Medium),
            flush_error: Cell::new(None),
            gone: Cell::new(false),
            reads: Cell::new(0),
            requests: Cell::new(0),
            log: Rc::clone(log),
        })
    }

    pub(crate) fn device(self: &Rc<Self>) -> Device {
        Device::shared(Rc::clone(self))
    }

    /// Flips a bit behind the tag's back.
    pub(crate) fn flip(&self, sector: u64) {
        self.bytes.borrow_mut()[usize_of(sector) * SECTOR_BYTES] ^= 1;
    }

    /// Turns many bits behind the tag's back, other ones on each disk; twice is not at all.
    pub(crate) fn garble(&self, sector: u64) {
        let at = usize_of(sector) * SECTOR_BYTES;
        let seed = u8::try_from(self.index).unwrap() * 31 + 7;
        let mut bytes = self.bytes.borrow_mut();
        (1..).zip(&mut bytes[at..at + 40]).for_each(|(n, byte)| *byte ^= seed.wrapping_mul(n) | 1);
    }

    /// Damages the tag, not the data.
    pub(crate) fn flip_tag(&self, sector: u64) {
        self.tags.as_ref().unwrap().borrow_mut()[usize_of(sector)] ^= 1;
    }

    /// Other bytes with a valid tag: what an unfinished or lost write leaves.
    pub(crate) fn replace(&self, sector: u64, with: &[u8]) {
        let at = usize_of(sector) * SECTOR_BYTES;
        self.bytes.borrow_mut()[at..at + with.len()].copy_from_slice(with);
        self.retag(sector, u64_of(with.len() / SECTOR_BYTES));
    }

    pub(crate) fn sector(&self, sector: u64) -> Vec<u8> {
        let at = usize_of(sector) * SECTOR_BYTES;
        self.bytes.borrow()[at..at + SECTOR_BYTES].to_vec()
    }

    /// What is kept for a sector.
    pub(crate) fn kept(&self, sector: u64) -> Vec<u8> {
        let range = self.metadata_of(sector..sector + 1);
        self.metadata.borrow()[range].to_vec()
    }

    /// Other metadata, and nobody notices.
    pub(crate) fn keep(&self, sector: u64, kept: &[u8]) {
        let range = self.metadata_of(sector..sector + 1);
        self.metadata.borrow_mut()[range].copy_from_slice(kept);
    }

    fn metadata_of(&self, sectors: std::ops::Range<u64>) -> std::ops::Range<usize> {
        let at = |sector: u64| usize_of(sector) * self.limits.tag_size;
        at(sectors.start)..at(sectors.end)
    }

    /// Whether the tag agrees with the data.
    pub(crate) fn intact(&self, sector: u64) -> bool {
        let tags = self.tags.as_ref().unwrap().borrow();
        tags[usize_of(sector)] == hash(sector, &self.sector(sector))
    }

    fn retag(&self, sector: u64, sectors: u64) {
        if let Some(tags) = &self.tags {
            for at in sector..sector + sectors {
                tags.borrow_mut()[usize_of(at)] = hash(at, &self.sector(at));
            }
        }
    }

    fn read(&self, bio: &mut Bio) -> IoResult {
        self.reads.set(self.reads.get() + 1);
        let range = bio.sector.0..bio.end().0;
        for at in range.clone() {
            if self.unreadable.borrow().contains(&at) {
                return Err(IoErrorKind::Medium.at(Sector(at)));
            }
            if self.tags.is_some() && !self.intact(at) {
                return Err(IoErrorKind::Protection.at(Sector(at)));
            }
        }
        let bytes = self.bytes.borrow();
        let at = usize_of(bio.sector.bytes());
        bio.data.copy_from(0, &bytes[at..at + bio.data.len_bytes()]);
        if !bio.tags.is_empty() {
            bio.tags.copy_from(0, &self.metadata.borrow()[self.metadata_of(range)]);
        }
        Ok(())
    }

    fn write(&self, bio: &Bio, bytes: Vec<u8>, fua: bool) -> IoResult {
        let range = bio.sector.0..bio.end().0;
        if let Some(at) = self.unwritable.borrow().range(range.clone()).next() {
            return Err(self.write_error.get().at(Sector(*at)));
        }
        self.unreadable.borrow_mut().retain(|at| !range.contains(at));
        let at = usize_of(bio.sector.bytes());
        self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(&bytes);
        self.retag(bio.sector.0, bio.sectors());
        let kept = &mut self.metadata.borrow_mut()[self.metadata_of(range)];
        kept.fill(self.limits.blank_tag());
        if !bio.tags.is_empty() {
            bio.tags.copy_to(0, kept);
        }
        let write = Entry::Write { disk: self.index, sector: bio.sector, bytes, fua };
        self.log.borrow_mut().push(write);
        Ok(())
    }

    fn peek(&self, bio: &mut Bio, mend: bool) -> IoResult {
        for at in bio.sector.0..bio.end().0 {
            if self.unreadable.borrow().contains(&at) {
                return Err(IoErrorKind::Medium.at(Sector(at)));
            }
            let mut bytes = self.sector(at);
            if mend && !self.intact(at) {
                let stored = self.tags.as_ref().unwrap().borrow()[usize_of(at)];
                let turns = |bit: &usize| {
                    bytes[bit / 8] ^= 1 << (bit % 8);
                    let agrees = hash(at, &bytes) == stored;
                    bytes[bit / 8] ^= u8::from(!agrees) << (bit % 8);
                    agrees
                };
                let found = (0..SECTOR_BYTES * 8).find(turns);
                found.ok_or_else(|| IoErrorKind::Protection.at(Sector(at)))?;
            }
            bio.data.copy_from(usize_of(at - bio.sector.0) * SECTOR_BYTES, &bytes);
        }
        if !bio.tags.is_empty() {
            let range = bio.sector.0..bio.end().0;
            bio.tags.copy_from(0, &self.metadata.borrow()[self.metadata_of(range)]);
        }
        Ok(())
    }

    fn vouch(&self, bio: &Bio) -> IoResult {
        let tags = self.tags.as_ref().unwrap().borrow();
        bio.data.try_each_block(SECTOR_BYTES, |index, bytes| {
            let at = bio.sector.0 + u64_of(index);
            let agrees = tags[usize_of(at)] == hash(at, bytes);
            if agrees { Ok(()) } else { Err(IoErrorKind::Protection.at(Sector(at))) }
        })
    }
}

impl BlockDevice for Disk {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        // Requests overtake each other, on one disk and between disks, always in the same way.
        let number = self.requests.replace(self.requests.get() + 1);
        let delay = (number * 16 + u64_of(self.index)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61;
        for _ in 0..delay {
            runtime::yield_now().await;
        }
        if self.gone.get() {
            return Err(IoErrorKind::Unavailable.at(bio.sector));
        }
        match bio.op {
            Op::Read => self.read(bio),
            Op::Write { fua } => {
                let bytes = bio.data.to_single().as_slice().to_vec();
                self.write(bio, bytes, fua)
            }
            Op::WriteZeroes { .. } | Op::Discard { .. } => {
                let zeroes = vec![0; usize_of(Sector(bio.sectors()).bytes())];
                self.write(bio, zeroes, false)
            }
            Op::Flush => {
                if let Some(kind) = self.flush_error.get() {
                    return Err(kind.at(Sector::ZERO));
                }
                self.log.borrow_mut().push(Entry::Flush { disk: self.index });
                Ok(())
            }
            Op::Vouch => self.vouch(bio),
            Op::Peek { mend } => self.peek(bio, mend),
        }
    }
}

/// What a crash after the first `length` entries of the log leaves on disk `disk`, of the writes
/// that were not durable those that `keep` says (by their place in the log).
pub(crate) fn crashed(
    start: &[u8],
    log: &[Entry],
    length: usize,
    disk: usize,
    keep: impl Fn(usize) -> bool,
) -> Vec<u8> {
    let mut image = start.to_vec();
    let entries = &log[..length];
    let flushed = entries
        .iter()
        .rposition(|entry| matches!(entry, Entry::Flush { disk: which } if *which == disk))
        .unwrap_or(0);
    for (at, entry) in entries.iter().enumerate() {
        if let Entry::Write { disk: which, sector, bytes, fua } = entry
            && *which == disk
            && (*fua || at < flushed || keep(at))
        {
            let start = usize_of(sector.bytes());
            image[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }
    image
}

fn superblocks(
    level: Level,
    layout: u32,
    count: u8,
    sectors: u64,
    data_offset: u64,
) -> Vec<Superblock> {
    let array = NewArray {
        level,
        layout,
        chunk_sectors: if level == Level::Raid1 { 0 } else { 8 },
        minor: Minor::V2,
        set_uuid: Uuid([1; 16]),
        set_name: [0; 32],
        ctime: Time(0),
        resync: ResyncOffset::Clean,
        data_offset: Some(Sector(data_offset)),
        ppl: false,
        size: None,
    };
    let members: Vec<NewMember> = (0..count)
        .map(|n| NewMember { device_sectors: sectors, device_uuid: Uuid([n; 16]) })
        .collect();
    create(&array, &members).unwrap()
}

fn image(superblock: &Superblock, sectors: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize_of(Sector(sectors).bytes())];
    bytes[4096..8192].copy_from_slice(&superblock.encode());
    bytes
}

/// Members on disks, with the superblocks of a new array.
pub(crate) struct Rig {
    pub(crate) disks: Vec<Rc<Disk>>,
    pub(crate) log: Log,
    pub(crate) events: Rc<RefCell<Vec<Event>>>,
}

/// Sectors of each test disk; its data begins at [`DATA_OFFSET`].
pub(crate) const DEVICE_SECTORS: u64 = 272;
pub(crate) const DATA_OFFSET: u64 = 16;
/// The same behind a bitmap and a bad block log of 8 sectors each.
pub(crate) const BEHIND_LOGS: u64 = 32;
/// Sectors of a partial parity log: a header, and a few blocks.
pub(crate) const PPL_SECTORS: u16 = 20;
/// Sectors that the array uses of each member.
pub(crate) const DATA_SECTORS: u64 = DEVICE_SECTORS - DATA_OFFSET;

impl Rig {
    /// A new, clean array of all-zero members.
    pub(crate) fn new(level: Level, count: u8, tagged: bool) -> Self {
        let layout = if level.has_parity() { LEFT_SYMMETRIC } else { 0 };
        Self::shaped(level, layout, count, tagged)
    }

    /// The same of a layout.
    pub(crate) fn shaped(level: Level, layout: u32, count: u8, tagged: bool) -> Self {
        let superblocks = superblocks(level, layout, count, DEVICE_SECTORS, DATA_OFFSET);
        let images = superblocks.iter().map(|superblock| image(superblock, DEVICE_SECTORS));
        Self::of_images(images.collect(), tagged)
    }

    /// The same with a write-intent bitmap of chunks of so many bytes, on members of so many sectors
    /// whose data begins at [`BEHIND_LOGS`].
    pub(crate) fn with_bitmap(level: Level, count: u8, sectors: u64, chunk_bytes: u32) -> Self {
        let superblocks = superblocks(level, 0, count, sectors, BEHIND_LOGS);
        let images = superblocks.into_iter().map(|mut superblock| {
            superblock.place_bitmap(sectors);
            let new = NewBitmap {
                superblock: &superblock,
                room_bytes: superblock.bitmap_room(sectors).unwrap(),
                chunk_bytes: Some(chunk_bytes),
                dirty: false,
            };
            let mut bitmap = Bitmap::new(&new).unwrap();
            bitmap.pad_to(512);
            let area = bitmap.encode(0..bitmap.area_bytes());
            let mut bytes = image(&superblock, sectors);
            bytes[8192..8192 + area.len()].copy_from_slice(&area);
            bytes
        });
        Self::of_images(images.collect(), false)
    }

    /// The same of RAID 5 with a partial parity log of [`PPL_SECTORS`] sectors behind the data.
    pub(crate) fn with_ppl(count: u8, tagged: bool) -> Self {
        let superblocks =
            superblocks(Level::Raid5, LEFT_SYMMETRIC, count, DEVICE_SECTORS, DATA_OFFSET);
        let images = superblocks.into_iter().map(|mut superblock| {
            superblock.set_ppl(i16::try_from(DEVICE_SECTORS - 8).unwrap(), PPL_SECTORS);
            let mut bytes = image(&superblock, DEVICE_SECTORS + u64::from(PPL_SECTORS));
            let header = md::ppl::encode_header(superblock.set_uuid(), 0, &[]);
            let at = usize_of(Sector(DEVICE_SECTORS).bytes());
            bytes[at..at + header.len()].copy_from_slice(&header);
            bytes
        });
        Self::of_images(images.collect(), tagged)
    }

    pub(crate) fn of_images(images: Vec<Vec<u8>>, tagged: bool) -> Self {
        let log = Log::default();
        let disks = images
            .into_iter()
            .enumerate()
            .map(|(index, bytes)| Disk::new(index, bytes, tagged, &log));
        Self { disks: disks.collect(), log, events: Rc::default() }
    }

    /// The same images on disks that keep something for each sector, by disk.
    pub(crate) fn keeping(&self, tagged: bool, kept: impl Fn(usize) -> Kept) -> Self {
        let log = Log::default();
        let images = self.images().into_iter().enumerate();
        let disks =
            images.map(|(index, bytes)| Disk::keeping(index, bytes, (tagged, kept(index)), &log));
        Self { disks: disks.collect(), log, events: Rc::default() }
    }

    pub(crate) fn images(&self) -> Vec<Vec<u8>> {
        self.disks.iter().map(|disk| disk.bytes.borrow().clone()).collect()
    }

    /// The same disks, each with an empty bad block log in its first sectors.
    pub(crate) fn with_logs(&self, tagged: bool) -> Self {
        let images = self.images().into_iter().map(|mut bytes| {
            let own = &mut bytes[4096..8192];
            own[188..192].copy_from_slice(&(-8i32).to_le_bytes());
            own[216..220].fill(0);
            let covered = 256 + 2 * usize::from(own[220]);
            let word = |word: &[u8]| word.iter().rev().fold(0, |sum, &b| sum << 8 | u64::from(b));
            let sum: u64 = own[..covered].chunks(4).map(word).sum();
            let sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
            own[216..220].copy_from_slice(&sum.to_le_bytes()[..4]);
            bytes
        });
        Self::of_images(images.collect(), tagged)
    }

    fn sectors(&self) -> u64 {
        self.disks[0].limits.sectors
    }

    /// The superblock on a disk.
    pub(crate) fn superblock(&self, disk: usize) -> Superblock {
        let bytes = self.disks[disk].bytes.borrow();
        Superblock::decode(&bytes[4096..8192], Minor::V2, self.sectors()).unwrap()
    }

    /// What lies beside it.
    pub(crate) fn logs(&self, disk: usize) -> Logs {
        let (bytes, superblock) = (self.disks[disk].bytes.borrow(), self.superblock(disk));
        let area = |sector: Sector| {
            let area = &bytes[usize_of(sector.bytes())..];
            let length = BitmapHeader::decode(area)?.area_bytes().next_multiple_of(512);
            Bitmap::decode(area[..usize_of(length)].to_vec())
        };
        let bitmap = superblock.bitmap_sector().map(area);
        let log = superblock.bad_block_log().filter(|_| self.sectors() > BEHIND_LOGS);
        let used = superblock.features().contains(Features::BAD_BLOCKS);
        let bad_blocks = match log {
            Some(log) if used => {
                let at = usize_of(log.sector.bytes());
                let length = usize::from(log.sectors) * SECTOR_BYTES;
                BadBlocks::decode(&bytes[at..at + length], log.shift).map_err(Into::into)
            }
            log => Ok(BadBlocks::empty(log.map_or(0, |log| log.sectors))),
        };
        let ppl = superblock.ppl().map(|place| {
            let start = usize_of(place.sector.bytes());
            let area = &bytes[start..start + usize::from(place.sectors) * SECTOR_BYTES];
            md::ppl::Log::decode(area, superblock.set_uuid()).map_err(Into::into)
        });
        Logs { bitmap: bitmap.map(|bitmap| bitmap.map_err(Into::into)), bad_blocks, ppl }
    }

    /// What the disks `present` amount to; members are named by their place in `present`.
    pub(crate) fn assembly(&self, present: &[usize]) -> Assembly {
        let superblocks: Vec<Superblock> =
            present.iter().map(|disk| self.superblock(*disk)).collect();
        let candidates: Vec<Candidate<'_>> = superblocks
            .iter()
            .map(|superblock| Candidate { superblock, device_sectors: self.sectors() })
            .collect();
        assemble(&candidates).unwrap()
    }

    /// Opens the array on the disks `present`.
    pub(crate) fn open(&self, present: &[usize], read_only: bool) -> Rc<Array> {
        let assembly = self.assembly(present);
        let fatal = assembly.cannot_start.iter().find(|why| !why.forceable());
        assert!(fatal.is_none(), "{fatal:?}");
        let holder = |slot: &Slot| match *slot {
            Slot::Missing => None,
            Slot::InSync(member) | Slot::Rebuilding { member, .. } => Some(member),
        };
        let holders = assembly.slots.iter().filter_map(holder);
        let members = holders.chain(assembly.replacements.iter().copied());
        let found: Vec<Found> = members.map(|member| self.found(present[member])).collect();
        let freshest = self.superblock(present[assembly.newest]);
        let data_sizes: Vec<u64> =
            present.iter().map(|disk| self.superblock(*disk).data_size()).collect();
        let shape = freshest.shape(&data_sizes).unwrap();
        let events = Rc::clone(&self.events);
        let options = Options {
            read_only,
            tolerance: shape.tolerance(),
            synced: assembly.resync,
            events: Events::new(move |event| events.borrow_mut().push(event)),
            clock: Rc::new(|| Time(0)),
        };
        let array = Array::new(assembly.slots.len(), found, Some(&freshest), options);
        let spares = assembly.spares.iter().map(|&member| self.found(present[member]));
        spares.for_each(|spare| array.add_spare(spare));
        for &member in assembly.journals.iter().filter(|_| !read_only) {
            let disk = present[member];
            array.go_through_journal(self.disks[disk].device(), self.superblock(disk));
        }
        array
    }

    /// A disk as it is given to an array.
    pub(crate) fn found(&self, disk: usize) -> Found {
        let superblock = self.superblock(disk);
        let slot = match superblock.role() {
            Some(Role::Active(slot)) => slot.into(),
            _ => 0,
        };
        let (device, offset) = (self.disks[disk].device(), superblock.data_offset());
        let window = crate::linear::Linear::new(device.clone(), offset, superblock.used_sectors());
        let (name, data) = (format!("disk{disk}").into(), Device::new(window.unwrap()));
        let (superblock, logs) = (Some(superblock), self.logs(disk));
        Found { slot, name, device, data, superblock, logs }
    }

    /// The same disks and one more, a spare with garbage where its data goes.
    pub(crate) fn with_spare(&self, tagged: bool) -> Self {
        let mut images = self.images();
        let peer = self.superblock(0);
        let uuid = Uuid([0x50 + u8::try_from(images.len()).unwrap(); 16]);
        let new = NewMember { device_sectors: DEVICE_SECTORS, device_uuid: uuid };
        let taken: Vec<u32> = (0..images.len()).map(|n| n.try_into().unwrap()).collect();
        let spare = join(&peer, &new, free_number(&peer, &taken)).unwrap();
        let mut bytes = vec![0xA5; usize_of(Sector(DEVICE_SECTORS).bytes())];
        bytes[4096..8192].copy_from_slice(&spare.encode());
        images.push(bytes);
        let kept = Kept::of(&self.disks[0].limits);
        let rig = Self::of_images(images, tagged).keeping(tagged, |_| kept);
        for (disk, from) in rig.disks.iter().zip(&self.disks) {
            disk.metadata.replace(from.metadata.borrow().clone());
        }
        rig
    }
}
