//! The promises of the layer, each on disks that can be damaged.

mod combine;
mod combine_tags;
mod crash;
mod damage;
mod decide;
mod golden;
mod journal;
mod members;
mod ppl;
mod random;
mod rebuild;
mod resync;
mod tags;
mod writes;

use super::*;
use crate::array::testing::{DATA_OFFSET, DATA_SECTORS, Kept, Rig, tags_for};
use bio::{Buf, Device, Event};
use md::geometry::ParityLevel;
use md::superblock::Level;
use units::usize_of;

/// An array on test disks, with the layer above.
struct Bench {
    rig: Rig,
    raid: Rc<Raid456>,
    device: Device,
    geometry: Geometry,
}

const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];

fn level_of(parity: ParityLevel) -> Level {
    match parity {
        ParityLevel::Raid4 => Level::Raid4,
        ParityLevel::Raid5 => Level::Raid5,
        ParityLevel::Raid6 => Level::Raid6,
    }
}

fn geometry(level: ParityLevel, chunk: u32, count: u8) -> Geometry {
    Geometry::new(level, 2, chunk, count.into()).unwrap()
}

impl Bench {
    /// A new, clean array; `chunk` in sectors.
    fn new(level: ParityLevel, count: u8, tagged: bool, chunk: u32) -> Self {
        let rig = Rig::new(level_of(level), count, tagged);
        Self::open(rig, &ALL[..count.into()], geometry(level, chunk, count), false)
    }

    /// The same over disks that keep something for each sector.
    fn keeping(level: ParityLevel, count: u8, tagged: bool, chunk: u32, kept: Kept) -> Self {
        let rig = Rig::new(level_of(level), count, tagged).keeping(tagged, |_| kept);
        Self::open(rig, &ALL[..count.into()], geometry(level, chunk, count), false)
    }

    fn raid5(tagged: bool) -> Self {
        Self::new(ParityLevel::Raid5, 4, tagged, 8)
    }

    fn raid6(tagged: bool) -> Self {
        Self::new(ParityLevel::Raid6, 5, tagged, 8)
    }

    fn open(rig: Rig, present: &[usize], geometry: Geometry, read_only: bool) -> Self {
        Self::try_open(rig, present, geometry, read_only, false).ok().unwrap()
    }

    fn try_open(
        rig: Rig,
        present: &[usize],
        geometry: Geometry,
        read_only: bool,
        force: bool,
    ) -> Result<Self, OpenError> {
        let array = rig.open(present, read_only);
        let options =
            Options { geometry, member_sectors: DATA_SECTORS, force, cache_bytes: 256 << 10 };
        let journal = array.has_journal().then(|| rig.journal(geometry, DATA_SECTORS));
        let raid = Rc::new(Raid456::journalled(&array, &options, journal.as_ref())?);
        let device = Device::shared(Rc::clone(&raid));
        Ok(Self { rig, raid, device, geometry })
    }

    fn sectors(&self) -> u64 {
        self.device.limits().sectors
    }

    fn tagging(&self) -> Tagging {
        Tagging::of(self.device.limits())
    }

    /// Content that names its generation and place, interleaved with tags that do, too.
    fn pattern(&self, seed: u64, sector: u64, sectors: u64) -> Vec<u8> {
        let data = pattern(seed, sector, sectors);
        let mut own = pattern(seed + 7, sector, sectors);
        own.truncate(self.tagging().tag_bytes(sectors));
        let tags = tags_for(self.device.limits(), sector, &data, &own);
        let (data, tags) = (Buf::copy_of(&data), Buf::copy_of(&tags));
        self.tagging().interleave(data, &tags.into()).as_slice().to_vec()
    }

    /// Every sector has content of its own.
    async fn fill(&self) -> Vec<u8> {
        let content = self.pattern(1, 0, self.sectors());
        let mut write = self.tagging().write(Sector::ZERO, &Buf::copy_of(&content));
        self.device.submit(&mut write).await.unwrap();
        self.device.flush().await.unwrap();
        content
    }

    async fn read(&self, sector: u64, sectors: u64) -> IoResult<Vec<u8>> {
        Ok(self.device.read(Sector(sector), sectors).await?.as_slice().to_vec())
    }

    /// The same interleaved with the tags.
    async fn read_all(&self, sector: u64, sectors: u64) -> IoResult<Vec<u8>> {
        let mut read = self.tagging().read(Sector(sector), sectors);
        self.device.submit(&mut read).await?;
        Ok(self.tagging().taken(read).as_slice().to_vec())
    }

    async fn write(&self, sector: u64, data: &[u8]) -> IoResult {
        self.device.write(Sector(sector), Buf::copy_of(data)).await
    }

    /// The disk and the sector on it that hold a sector of the volume.
    fn place(&self, sector: u64) -> (usize, u64) {
        let place = self.geometry.locate(Sector(sector));
        (place.slot, place.member_sector.0 + DATA_OFFSET)
    }

    fn flip(&self, sector: u64) -> (usize, u64) {
        let (disk, place) = self.place(sector);
        self.rig.disks[disk].flip(place);
        (disk, place)
    }

    /// Damages a sector of the volume so that no single bit explains it.
    fn garble(&self, sector: u64) -> (usize, u64) {
        let (disk, place) = self.place(sector);
        self.rig.disks[disk].garble(place);
        (disk, place)
    }

    fn events(&self) -> Vec<Event> {
        self.rig.events.borrow().clone()
    }

    fn count(&self, wanted: impl Fn(&EventKind) -> bool) -> usize {
        self.events().iter().filter(|event| wanted(&event.kind)).count()
    }

    fn healed(&self) -> Vec<bool> {
        let events = self.events();
        let healed = events.iter().filter_map(|event| match event.kind {
            EventKind::Healed { vouched, .. } => Some(vouched),
            _ => None,
        });
        healed.collect()
    }

    fn reads(&self) -> u64 {
        self.rig.disks.iter().map(|disk| disk.reads.get()).sum()
    }

    /// Whether parity of every row on the disks is the parity of the data on the disks.
    fn parity_is_true(&self) -> bool {
        let stripes = DATA_SECTORS / self.geometry.chunk_sectors();
        (0..stripes).all(|stripe| self.stripe_is_true(stripe))
    }

    fn stripe_is_true(&self, stripe: u64) -> bool {
        let equations = Equations::of(&self.geometry, stripe);
        let chunk = self.geometry.chunk_sectors();
        let start = usize_of((DATA_OFFSET + stripe * chunk) * SECTOR);
        let strip = |slot: usize| {
            let disk = self.rig.disks[slot].bytes.borrow();
            disk[start..start + bytes(chunk)].to_vec()
        };
        let data: Vec<bio::Segments> =
            equations.data.iter().map(|&slot| Buf::copy_of(&strip(slot)).into()).collect();
        let data: Vec<&bio::Segments> = data.iter().collect();
        let (mut p, mut q) = (vec![0; bytes(chunk)], vec![0; bytes(chunk)]);
        let wants_q = equations.q.is_some();
        equations.generate(&data, Some(&mut p), wants_q.then_some(&mut q[..]));
        strip(equations.p) == p && equations.q.is_none_or(|slot| strip(slot) == q)
    }

    /// Closes, and opens again on the disks `present`.
    async fn reopen(self, present: &[usize]) -> Self {
        self.raid.close().await.unwrap();
        Self::open(self.rig, present, self.geometry, false)
    }
}

/// Content that names its generation and place.
fn pattern(seed: u64, sector: u64, sectors: u64) -> Vec<u8> {
    let word = |n: u64| {
        let mixed =
            (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_le_bytes()
    };
    (sector * 64..(sector + sectors) * 64).flat_map(word).collect()
}
