//! What a device that keeps tags should hold, block by block, and random requests to it; and arrays of
//! memory that is protected.

use super::super::{Array, Found, Logs, Options, Tagging};
use crate::linear::Linear;
use crate::memory::MemoryDevice;
use crate::verify::Verify;
use bio::{Bio, Buf, Device, Events, Limits, Op, Segments};
use dif::{Format, Guard, Profile, Protection, ProtectionType, Tuple};
use md::shape::Tolerance;
use md::superblock::{ResyncOffset, Time};
use proptest::prelude::*;
use std::rc::Rc;
use units::{BlockSize, SECTOR_BYTES, Sector, u64_of, usize_of};

/// What a disk keeps for each sector.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    /// So many bytes.
    Bytes(usize),
    /// Tuples of type 1.
    Protected,
}

impl Kept {
    pub(crate) fn of(limits: &Limits) -> Self {
        limits.protection.map_or(Self::Bytes(limits.tag_size), |_| Self::Protected)
    }

    pub(crate) fn apply(self, limits: &mut Limits) {
        match self {
            Self::Bytes(tag_size) => limits.tag_size = tag_size,
            Self::Protected => {
                let format = Format::new(Guard::Crc16, SECTOR_BYTES).unwrap();
                limits.protect(Profile { format, kind: ProtectionType::One });
            }
        }
    }
}

/// Tags for `data` from sector `at` on of a device of these limits, the application's bytes as in `own`.
pub(crate) fn tags_for(limits: &Limits, at: u64, data: &[u8], own: &[u8]) -> Vec<u8> {
    let Some(profile) = limits.protection else { return own.to_vec() };
    let (format, mut tags) = (profile.format, own.to_vec());
    let first = Sector(at).bytes() / u64_of(format.interval());
    Protection::at(profile, first).generate([data], [&mut tags[..]]);
    for (tag, own) in tags.chunks_mut(format.metadata()).zip(own.chunks(format.metadata())) {
        let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
        let own = Tuple::decode(&format, &own[place.clone()]);
        let mut tuple = Tuple::decode(&format, &tag[place.clone()]);
        (tuple.application, tuple.storage) = (own.application & 0x7FFF, own.storage);
        if profile.kind == ProtectionType::Three {
            tuple.reference = own.reference;
        }
        tuple.encode(&format, &mut tag[place]);
    }
    tags
}

/// Sectors before the data of a member of [`protected`].
pub(crate) const BEFORE: u64 = 24;

/// Members in memory whose blocks are protected.
pub(crate) struct Protected {
    pub(crate) members: Vec<Device>,
    /// They check what passes.
    pub(crate) verified: bool,
    sectors: u64,
}

impl Protected {
    /// So many, with so many sectors of data behind [`BEFORE`].
    pub(crate) fn new(profile: Profile, count: usize, sectors: u64, verified: bool) -> Self {
        let block =
            if profile.format.interval() > 512 { BlockSize::B4096 } else { BlockSize::B512 };
        let new = || MemoryDevice::with_protection(BEFORE + sectors, block, profile);
        let members = (0..count).map(|_| Device::new(new())).collect();
        Self { members, verified, sectors }
    }

    /// A clean array, without superblocks, of those in `present`.
    pub(crate) fn open(&self, present: &[usize]) -> Rc<Array> {
        let found = present.iter().map(|&slot| {
            let mut device = self.members[slot].clone();
            if self.verified {
                device = Device::new(Verify::new(device, Events::none()).unwrap());
            }
            let data = Linear::new(device.clone(), Sector(BEFORE), self.sectors).unwrap();
            let (name, data) = (format!("memory{slot}").into(), Device::new(data));
            Found { slot, name, device, data, superblock: None, logs: Logs::default() }
        });
        let count = self.members.len();
        let options = Options {
            read_only: false,
            tolerance: Tolerance::Any(count - 1),
            synced: ResyncOffset::Clean,
            events: Events::none(),
            clock: Rc::new(|| Time(0)),
        };
        Array::new(count, found.collect(), None, options)
    }
}

/// A request; what does not lie on the device is cut to it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Of data with tags, or of data alone.
    Write { at: u64, length: u64, tagged: bool, fua: bool },
    /// Of both, or of data alone.
    Read { at: u64, length: u64, tagged: bool },
    /// A write of zeroes.
    Zero { at: u64, length: u64 },
    /// A flush.
    Flush,
}

/// Any request.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let place = || (0u64..800, prop_oneof![1u64..6, 1u64..120]);
    prop_oneof![
        8 => (place(), 0u8..5, any::<bool>()).prop_map(|((at, length), plain, fua)| {
            Step::Write { at, length, tagged: plain > 0, fua }
        }),
        5 => (place(), any::<bool>())
            .prop_map(|((at, length), tagged)| Step::Read { at, length, tagged }),
        1 => place().prop_map(|(at, length)| Step::Zero { at, length }),
        1 => Just(Step::Flush),
    ]
}

/// The device, and what it should hold.
pub(crate) struct Model {
    pub(crate) device: Device,
    tagging: Tagging,
    /// Bytes and sectors of a block.
    block: (usize, u64),
    /// Each block followed by its tag.
    pub(crate) blocks: Vec<Vec<u8>>,
    seed: u64,
}

impl Model {
    /// Of a device of zeroes.
    pub(crate) fn new(device: Device) -> Self {
        let tagging = Tagging::of(device.limits());
        let block = device.limits().logical_block;
        let mut zero = vec![0; tagging.interleaved_bytes(block.sectors())];
        zero[block.bytes()..].fill(device.limits().blank_tag());
        let blocks = vec![zero; usize_of(device.limits().sectors / block.sectors())];
        Self { device, tagging, block: (block.bytes(), block.sectors()), blocks, seed: 0 }
    }

    /// Everything is written, with tags.
    pub(crate) async fn fill(&mut self) {
        let length = u64_of(self.blocks.len());
        self.step(&Step::Write { at: 0, length, tagged: true, fua: false }).await;
        self.device.flush().await.unwrap();
    }

    /// Does a request, which has to succeed and to give what the model says; places are blocks.
    pub(crate) async fn step(&mut self, step: &Step) {
        let total = u64_of(self.blocks.len());
        let clip = |at: u64, length: u64| (at % total, length.min(total - at % total));
        match *step {
            Step::Write { at, length, tagged, fua } => {
                let (at, length) = clip(at, length);
                self.write(at, length, tagged, fua).await;
            }
            Step::Read { at, length, tagged } => {
                let (at, length) = clip(at, length);
                self.read(at, length, tagged).await;
            }
            Step::Zero { at, length } => {
                let (at, length) = clip(at, length);
                let (sector, sectors) = (Sector(at * self.block.1), length * self.block.1);
                self.device.submit(&mut Bio::write_zeroes(sector, sectors, true)).await.unwrap();
                for block in &mut self.blocks[usize_of(at)..usize_of(at + length)] {
                    block[..self.block.0].fill(0);
                    block[self.block.0..].fill(self.device.limits().blank_tag());
                }
            }
            Step::Flush => self.device.flush().await.unwrap(),
        }
    }

    async fn write(&mut self, at: u64, length: u64, tagged: bool, fua: bool) {
        self.seed += 1;
        let (mut data, mut tags) = (Vec::new(), Vec::new());
        for (index, block) in (at..).zip(&mut self.blocks[usize_of(at)..usize_of(at + length)]) {
            let mut word = (self.seed << 32 ^ index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            for byte in &mut *block {
                word = (word ^ word >> 27).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(7);
                *byte = word.to_le_bytes()[7];
            }
            let (bytes, tag) = block.split_at_mut(self.block.0);
            let own = tags_for(self.device.limits(), index * self.block.1, bytes, tag);
            tag.copy_from_slice(&own);
            if !tagged {
                tag.fill(self.device.limits().blank_tag());
            }
            data.extend_from_slice(bytes);
            tags.extend_from_slice(tag);
        }
        let mut bio = Bio::write(Sector(at * self.block.1), ragged(&data, 1000));
        bio.op = Op::Write { fua };
        if tagged {
            bio.tags = ragged(&tags, 13);
        }
        self.device.submit(&mut bio).await.unwrap();
    }

    async fn read(&self, at: u64, length: u64, tagged: bool) {
        let mut bio = Bio::read(Sector(at * self.block.1), length * self.block.1);
        if tagged {
            bio.tags = self.tagging.alloc(length * self.block.1);
        }
        self.device.submit(&mut bio).await.unwrap();
        let (data, tags) = (bio.data.into_single(), bio.tags.into_single());
        for (index, expected) in self.blocks[usize_of(at)..][..usize_of(length)].iter().enumerate()
        {
            let (number, length) = (usize_of(at) + index, self.block.0);
            let found = &data.as_slice()[index * length..][..length];
            assert!(found == &expected[..length], "data of block {number}");
            if tagged {
                let tag_size = self.tagging.tag_size();
                let found = &tags.as_slice()[index * tag_size..][..tag_size];
                assert_eq!(found, &expected[length..], "tags of block {number}");
            }
        }
    }

    /// All of it is as it should be.
    pub(crate) async fn check(&self) {
        let total = u64_of(self.blocks.len());
        self.read(0, total, true).await;
        for at in (0..total).step_by(7) {
            self.read(at, (total - at).min(7), true).await;
        }
    }
}

/// The same bytes in pieces.
fn ragged(bytes: &[u8], each: usize) -> Segments {
    bytes.chunks(each).map(Buf::copy_of).collect()
}

/// What lies on a member of [`protected`] at sector `sector` of its data is what the model has in its block
/// `number`, but for the reference tag, which is the member's own.
pub(crate) async fn lies_as_given(model: &Model, number: usize, device: &Device, sector: Sector) {
    let Limits { protection, logical_block, .. } = *device.limits();
    let profile = protection.unwrap();
    let at = Sector(BEFORE + sector.0);
    let (data, tags) = on_member(device, at).await;
    let (block, given) = model.blocks[number].split_at(logical_block.bytes());
    assert!(data == block, "data of block {number}");
    let (format, first) = (profile.format, at.bytes() / u64_of(profile.format.interval()));
    let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
    let each = tags.chunks(format.metadata()).zip(given.chunks(format.metadata()));
    for (interval, (found, given)) in (first..).zip(each) {
        let found = Tuple::decode(&format, &found[place.clone()]);
        let given = Tuple::decode(&format, &given[place.clone()]);
        let mut expected = given;
        if profile.kind.counts() {
            expected.reference = interval & format.reference_mask();
        }
        assert_eq!(found, expected, "tuple of block {number}");
    }
}

/// What a member of [`protected`] holds at its sector `at`: a block and its tags.
pub(crate) async fn on_member(device: &Device, at: Sector) -> (Vec<u8>, Vec<u8>) {
    let tagging = Tagging::of(device.limits());
    let mut read = tagging.read(at, device.limits().logical_block.sectors());
    device.submit(&mut read).await.unwrap();
    let (data, tags) = (read.data.into_single(), read.tags.into_single());
    (data.as_slice().to_vec(), tags.as_slice().to_vec())
}

/// Profiles that differ in all that there is.
pub(crate) fn profiles() -> Vec<Profile> {
    use dif::Place::{First, Last};
    let format = |guard, interval| Format::new(guard, interval).unwrap();
    let of = |kind, format| Profile { format, kind };
    vec![
        of(ProtectionType::One, format(Guard::Crc16, 512)),
        of(ProtectionType::Two, format(Guard::Ip, 512).with_metadata(16, First).unwrap()),
        of(ProtectionType::Three, format(Guard::Crc16, 512).with_metadata(24, Last).unwrap()),
        of(ProtectionType::One, format(Guard::Crc64, 4096).with_metadata(64, Last).unwrap()),
        of(ProtectionType::One, format(Guard::Crc32c, 4096)),
        of(ProtectionType::One, format(Guard::Crc64, 4096).with_storage_bits(16).unwrap()),
    ]
}
