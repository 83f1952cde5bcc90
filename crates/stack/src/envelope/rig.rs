//! One stack in memory, with a place for harm at every joint.

use super::{Harm, Hop, Joint, Outcome, Scheme};
use crate::open::OpenError;
use bio::{Bio, Buf, Device, Event, EventKind, Events, IoError, Segments};
use checksum::Algorithm;
use dif::{Checks, Expected, Format, Guard, Profile, Protection, ProtectionType};
use integrity::open::Mode;
use layers::array::{Array, Found, Logs, Options as ArrayOptions};
use layers::fault::{Fault, Faults};
use layers::integrity::{Integrity, NewVolume, Options as IntegrityOptions, Wipe};
use layers::linear::Linear;
use layers::memory::MemoryDevice;
use layers::raid456::{Options as ParityOptions, Raid456};
use layers::verify::Verify;
use md::create::{LEFT_SYMMETRIC, NewArray, NewMember, create};
use md::shape::Shape;
use md::superblock::{Level, Minor, ResyncOffset, Superblock, Time, Uuid};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::rc::Rc;
use units::{BlockSize, Sector, u64_of, usize_of};

const MEMBERS: u8 = 4;
const MEMBER_SECTORS: u64 = 8192;
const CHUNK_SECTORS: u32 = 128;
pub(super) const BLOCK_SECTORS: u64 = 8;
const BLOCK: usize = 4096;
/// Where the harm is done: two blocks in the first chunk, which slot 0 has.
const PLACE: Range<u64> = 32..48;
/// So far away, in the same chunk, what strays ends up.
pub(super) const ASTRAY_SECTORS: u64 = 32;

/// The stack, from the application down.
pub(super) struct Rig {
    scheme: Scheme,
    top: Device,
    /// What can be done at each joint, and to which sectors there the place belongs.
    joints: [(Faults, Range<u64>); 3],
    noticed: Noticed,
    media: Vec<Rc<MemoryDevice>>,
    layer: Rc<Raid456>,
}

/// Who found something that disagrees.
type Noticed = Rc<RefCell<BTreeSet<Hop>>>;

fn telling(noticed: &Noticed, hop: Hop) -> Events {
    let noticed = Rc::clone(noticed);
    Events::new(move |event: Event| {
        if matches!(event.kind, EventKind::Mismatch { .. }) {
            noticed.borrow_mut().insert(hop);
        }
    })
}

fn refuse(why: impl Display) -> OpenError {
    OpenError::Array { why: why.to_string() }
}

fn failed(error: IoError) -> OpenError {
    OpenError::Io { member: "memory".to_owned(), error }
}

/// What protects the stack that has it: as a disk of 4096-byte blocks would be formatted.
fn profile() -> Profile {
    let format = Format::new(Guard::Crc16, BLOCK).expect("a block is an interval");
    Profile { format, kind: ProtectionType::One }
}

/// What the application's tuples say: where, and in the application tag of which generation.
fn protection(sector: u64, generation: u8) -> Protection {
    let expected = Expected::at(sector / BLOCK_SECTORS).with_application(generation.into());
    Protection::new(profile(), expected, Checks::ALL).expect("a generation is no escape")
}

impl Rig {
    /// A new stack.
    pub(super) async fn build(scheme: Scheme) -> Result<Self, OpenError> {
        let noticed = Noticed::default();
        let (harm_member, harm_medium) = (Faults::default(), Faults::default());
        let (mut media, mut doors) = (Vec::new(), Vec::new());
        let mut on_medium = None;
        for slot in 0..MEMBERS {
            let medium = Rc::new(match scheme {
                Scheme::EndToEnd => {
                    MemoryDevice::with_protection(MEMBER_SECTORS, BlockSize::B4096, profile())
                }
                _ => MemoryDevice::new(MEMBER_SECTORS, BlockSize::B4096),
            });
            // Slot 0 has the place; what happens to the others is nobody's doing.
            let harm = |faults: &Faults| if slot == 0 { faults.clone() } else { Faults::default() };
            let lower = Fault::new(Device::shared(Rc::clone(&medium)), &harm(&harm_medium));
            let (door, layout) = door(scheme, Device::new(lower), &noticed).await?;
            let joint = Device::new(Fault::new(door, &harm(&harm_member)));
            on_medium = on_medium.or(layout);
            media.push(medium);
            doors.push(joint);
        }
        let sectors: Vec<u64> = doors.iter().map(|door| door.limits().sectors).collect();
        let superblocks = superblocks(&sectors)?;
        let (layer, data_offset) = array(&doors, &superblocks).await?;
        let on_member = PLACE.start + data_offset.0..PLACE.end + data_offset.0;
        let on_medium = on_medium.map_or(on_member.clone(), |layout: integrity::Layout| {
            let run = layout.run(Sector(on_member.start), on_member.end - on_member.start);
            run.data.0..run.data.0 + run.sectors
        });
        let mut volume = Device::shared(Rc::clone(&layer));
        if scheme == Scheme::EndToEnd {
            let events = telling(&noticed, Hop::Volume);
            volume = Device::new(Verify::new(volume, events).map_err(refuse)?);
        }
        let harm_application = Faults::default();
        let top = Device::new(Fault::new(volume, &harm_application));
        let joints =
            [(harm_application, PLACE), (harm_member, on_member), (harm_medium, on_medium)];
        Ok(Self { scheme, top, joints, noticed, media, layer })
    }

    /// Does the harm once, at the joint, to a write or to a read of it, and sees what comes of it.
    pub(super) async fn suffer(self, harm: Harm, joint: Joint) -> Result<Outcome, OpenError> {
        let chunk = u64::from(CHUNK_SECTORS);
        self.write(0..chunk, 1).await.map_err(failed)?;
        self.top.flush().await.map_err(failed)?;
        self.noticed.borrow_mut().clear();
        let before = self.stored().await.map_err(failed)?;

        let (faults, place) = &self.joints[joint as usize];
        if !harm.is_read() {
            faults.add(harm.rule(place.clone()));
        }
        let written = self.write(PLACE, 2).await;
        if written.is_err() {
            let untouched = self.stored().await.map_err(failed)? == before;
            let hop = self.noticed.borrow().first().copied().unwrap_or(Hop::Volume);
            let outcome = if untouched { Outcome::Refused(hop) } else { Outcome::Error(hop) };
            return self.ended(outcome).await;
        }
        self.top.flush().await.map_err(failed)?;
        if harm.is_read() {
            faults.add(harm.rule(place.clone()));
        }
        let outcome = self.read_back(chunk).await;
        self.ended(outcome).await
    }

    async fn ended(self, outcome: Outcome) -> Result<Outcome, OpenError> {
        // What it was is known; a stack in memory needs no more than to let go of its tasks.
        let _closed = self.layer.close().await;
        Ok(outcome)
    }

    /// Writes a generation, as the application does: signed, where it can be.
    async fn write(&self, sectors: Range<u64>, generation: u8) -> Result<(), IoError> {
        let data = content(&sectors, generation);
        let mut bio = Bio::write(Sector(sectors.start), Buf::copy_of(&data));
        if self.scheme == Scheme::EndToEnd {
            let mut tags = Buf::zeroed(data.len() / BLOCK * profile().format.metadata());
            protection(sectors.start, generation).generate([&data[..]], [tags.as_mut_slice()]);
            bio.tags = tags.into();
        }
        self.top.submit(&mut bio).await
    }

    /// Reads everything as the application does, and compares it with what was written.
    async fn read_back(&self, sectors: u64) -> Outcome {
        let pieces = usize_of((PLACE.end - PLACE.start).min(sectors));
        let (mut failed, mut wrong) = (None, false);
        for start in (0..sectors).step_by(pieces) {
            let range = start..start + u64_of(pieces);
            let generation = if range == PLACE { 2 } else { 1 };
            match self.read(&range, generation).await {
                Ok(data) => wrong |= data.as_slice() != content(&range, generation),
                Err(hop) => failed = Some(hop),
            }
        }
        let noticed = self.noticed.borrow().last().copied();
        match (wrong, failed, noticed) {
            (true, ..) => Outcome::Silent,
            (false, Some(hop), _) => Outcome::Error(hop),
            (false, None, Some(hop)) => Outcome::Healed(hop),
            (false, None, None) => Outcome::Unharmed,
        }
    }

    /// # Errors
    /// Who refused to give it.
    async fn read(&self, sectors: &Range<u64>, generation: u8) -> Result<Buf, Hop> {
        let length = sectors.end - sectors.start;
        // Past every cache: it is about what lies on the media.
        let mut bio = Bio::read(Sector(sectors.start), length).bypassing();
        if self.scheme == Scheme::EndToEnd {
            let blocks = usize_of(length / BLOCK_SECTORS);
            bio.tags = Buf::alloc(blocks * profile().format.metadata()).into();
        }
        if self.top.submit(&mut bio).await.is_err() {
            return Err(self.noticed.borrow().first().copied().unwrap_or(Hop::Volume));
        }
        if self.scheme == Scheme::EndToEnd {
            let pieces = |segments: &Segments| segments.to_single();
            let (data, tags) = (pieces(&bio.data), pieces(&bio.tags));
            let protection = protection(sectors.start, generation);
            protection
                .verify([data.as_slice()], [tags.as_slice()])
                .map_err(|_| Hop::Application)?;
        }
        Ok(bio.data.into_single())
    }

    /// All that lies where the array keeps data, on every medium.
    async fn stored(&self) -> Result<Vec<Vec<u8>>, IoError> {
        let mut stored = Vec::new();
        let (_, on_medium) = &self.joints[2];
        for medium in &self.media {
            let start = on_medium.start - PLACE.start;
            let device = Device::shared(Rc::clone(medium));
            let data = device.read(Sector(start), CHUNK_SECTORS.into()).await?;
            stored.push(data.as_slice().to_vec());
        }
        Ok(stored)
    }
}

/// What checks at a member's door, and how that lays out the medium if it does.
async fn door(
    scheme: Scheme,
    medium: Device,
    noticed: &Noticed,
) -> Result<(Device, Option<integrity::Layout>), OpenError> {
    let events = telling(noticed, Hop::Member);
    match scheme {
        Scheme::EndToEnd => Ok((Device::new(Verify::new(medium, events).map_err(refuse)?), None)),
        Scheme::Bottom => {
            let format = integrity::FormatOptions::new(BlockSize::B4096, 4, [7; 16]);
            let volume = NewVolume::new(format, Algorithm::Crc32c, Wipe::Zeroes);
            let created = layers::integrity::create(medium.clone(), &volume, |_, _| {}).await;
            created.map_err(refuse)?;
            // Without a journal what is written lies at home at once, where the harm is waiting.
            let options = IntegrityOptions {
                mode: Some(Mode::Direct),
                ..IntegrityOptions::new(Algorithm::Crc32c, events)
            };
            let volume = Integrity::open(medium, options).await.map_err(refuse)?;
            Ok((volume.device(), Some(*volume.layout())))
        }
        Scheme::Nothing => Ok((medium, None)),
    }
}

fn superblocks(sectors: &[u64]) -> Result<Vec<Superblock>, OpenError> {
    let array = NewArray {
        level: Level::Raid5,
        layout: LEFT_SYMMETRIC,
        chunk_sectors: CHUNK_SECTORS,
        minor: Minor::V2,
        set_uuid: Uuid([1; 16]),
        set_name: [0; 32],
        ctime: Time(0),
        resync: ResyncOffset::Clean,
        ppl: false,
        data_offset: Some(Sector(CHUNK_SECTORS.into())),
        size: None,
    };
    let member =
        |(slot, &device_sectors)| NewMember { device_sectors, device_uuid: Uuid([slot; 16]) };
    let members: Vec<NewMember> = (0..).zip(sectors).map(member).collect();
    create(&array, &members).map_err(refuse)
}

/// The array over its members, and where their data begins.
async fn array(
    doors: &[Device],
    superblocks: &[Superblock],
) -> Result<(Rc<Raid456>, Sector), OpenError> {
    let mut found = Vec::new();
    for (slot, (device, superblock)) in doors.iter().zip(superblocks).enumerate() {
        let bytes = Buf::copy_of(&superblock.encode());
        device.write(superblock.super_offset(), bytes).await.map_err(failed)?;
        let (start, sectors) = (superblock.data_offset(), superblock.used_sectors());
        let data = Linear::new(device.clone(), start, sectors).map_err(refuse)?;
        found.push(Found {
            slot,
            name: format!("member {slot}").into(),
            device: device.clone(),
            data: Device::new(data),
            superblock: Some(superblock.clone()),
            logs: Logs::read(device, superblock).await,
        });
    }
    let speaks = &superblocks[0];
    let data_sizes: Vec<u64> = superblocks.iter().map(Superblock::data_size).collect();
    let shape = speaks.shape(&data_sizes).map_err(refuse)?;
    let Shape::Parity(geometry, member_sectors) = shape else {
        return Err(refuse("RAID 5 has parity"));
    };
    let options = ArrayOptions {
        read_only: false,
        tolerance: shape.tolerance(),
        synced: ResyncOffset::Clean,
        events: Events::none(),
        clock: Rc::new(|| Time(0)),
    };
    let array = Array::new(doors.len(), found, Some(speaks), options);
    let options = ParityOptions { geometry, member_sectors, force: false, cache_bytes: 1 << 20 };
    let layer = Raid456::new(&array, &options).map_err(refuse)?;
    Ok((Rc::new(layer), speaks.data_offset()))
}

/// What the application writes: every block says which it is, and of which generation.
fn content(sectors: &Range<u64>, generation: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in sectors.start / BLOCK_SECTORS..sectors.end / BLOCK_SECTORS {
        let number = u8::try_from(block).unwrap_or(u8::MAX);
        bytes.extend((0..BLOCK).map(|at| {
            let at = u8::try_from(at % 251).unwrap_or(0);
            at ^ number.wrapping_mul(37) ^ generation.wrapping_mul(101)
        }));
    }
    bytes
}
