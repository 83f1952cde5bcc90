//! md arrays of plain or tagged members.

use super::bare::disk;
use super::places::Members;
use super::tagged::{ABOVE_512, INLINE_512, TAGGED_512, TAGGED_4096, Tagged};
use super::{Joining, Scenario, Volume};
use crate::atlas::Atlas;
use crate::opening::Opening;
use crate::ordering::Orderings;
use crate::unchecked::Unchecked;
use ::integrity::open::Mode;
use ::md::assemble::{Candidate, CannotStart, Slot, assemble};
use ::md::bitmap::{Bitmap, NewBitmap};
use ::md::create::{LEFT_SYMMETRIC, NEAR_2, NewArray, NewMember, create, free_number, join};
use ::md::geometry::{Geometry, Mirrors};
use ::md::ppl::encode_header;
use ::md::shape::Shape as ArrayShape;
use ::md::superblock::{Level, Minor, ResyncOffset, Role, Superblock, Time, Uuid};
use bio::{Bio, Device, Events, IoResult, LocalFuture, NoProfile, Scrub, ScrubMode};
use layers::array::{Array, EVERYTHING, Found, JoinError, Logs, Options};
use layers::integrity::Integrity;
use layers::linear::Linear;
use layers::mirror::{Mirror, Placement};
use layers::raid456::{self, Raid456};
use layers::striped::Striped;
use layers::verify::Verify;
use std::cell::Cell;
use std::rc::Rc;
use units::{BlockSize, SECTOR, Sector, usize_of};

pub(super) fn all() -> Vec<Scenario> {
    let mirror = |count| Shape {
        level: Level::Raid1,
        layout: 0,
        count,
        spares: 0,
        chunk_sectors: 0,
        tagged: None,
        cache_bytes: 0,
        intent: false,
        ppl: false,
    };
    let striped = |level, layout, count| Shape { level, layout, chunk_sectors: 8, ..mirror(count) };
    let parity =
        |level, count| Shape { cache_bytes: 256 << 10, ..striped(level, LEFT_SYMMETRIC, count) };
    let copies = |layout, count| striped(Level::Raid10, layout, count);
    let tight = |shape| Shape { cache_bytes: 8192, ..shape };
    let tagged = |shape| Shape { tagged: Some(TAGGED_512), ..shape };
    let inline = |shape| Shape { tagged: Some(INLINE_512), ..shape };
    let bitmap = |shape| Shape { tagged: Some(TAGGED_512.in_mode(Mode::Bitmap)), ..shape };
    let intent = |shape| Shape { intent: true, ..shape };
    let direct = |shape| Shape { tagged: Some(TAGGED_512.in_mode(Mode::Direct)), ..shape };
    let tuples = |shape| Shape { tagged: Some(ABOVE_512), ..shape };
    let torn_tuples = |shape| Shape { tagged: Some(ABOVE_512.in_mode(Mode::Direct)), ..shape };
    let ppl = |shape| Shape { ppl: true, ..shape };
    vec![
        mirror(2).scenario("raid1-2"),
        mirror(3).scenario("raid1-3"),
        tagged(mirror(2)).scenario("raid1-2-integrity"),
        tagged(mirror(3)).scenario("raid1-3-integrity"),
        Shape { tagged: Some(TAGGED_4096), ..mirror(2) }.scenario("raid1-2-integrity-4096"),
        parity(Level::Raid4, 3).scenario("raid4-3"),
        parity(Level::Raid5, 3).scenario("raid5-3"),
        tight(parity(Level::Raid5, 4)).scenario("raid5-4-tight"),
        parity(Level::Raid6, 4).scenario("raid6-4"),
        tight(parity(Level::Raid6, 5)).scenario("raid6-5-tight"),
        tagged(parity(Level::Raid5, 3)).scenario("raid5-3-integrity"),
        tagged(tight(parity(Level::Raid5, 4))).scenario("raid5-4-integrity-tight"),
        tagged(parity(Level::Raid6, 4)).scenario("raid6-4-integrity"),
        tagged(tight(parity(Level::Raid6, 5))).scenario("raid6-5-integrity-tight"),
        Shape { tagged: Some(TAGGED_4096), ..parity(Level::Raid5, 3) }
            .scenario("raid5-3-integrity-4096"),
        inline(mirror(2)).scenario("raid1-2-inline"),
        inline(parity(Level::Raid5, 3)).scenario("raid5-3-inline"),
        inline(tight(parity(Level::Raid6, 4))).scenario("raid6-4-inline-tight"),
        bitmap(mirror(2)).scenario("raid1-2-bitmap"),
        direct(mirror(3)).scenario("raid1-3-direct"),
        direct(parity(Level::Raid5, 3)).scenario("raid5-3-direct"),
        bitmap(tight(parity(Level::Raid5, 4))).scenario("raid5-4-bitmap-tight"),
        bitmap(parity(Level::Raid6, 4)).scenario("raid6-4-bitmap"),
        direct(tight(parity(Level::Raid6, 5))).scenario("raid6-5-direct-tight"),
        striped(Level::Linear, 0, 2).scenario("linear-2"),
        tagged(striped(Level::Linear, 0, 3)).scenario("linear-3-integrity"),
        striped(Level::Raid0, 0, 3).scenario("raid0-3"),
        tagged(striped(Level::Raid0, 0, 2)).scenario("raid0-2-integrity"),
        bitmap(striped(Level::Raid0, 0, 3)).scenario("raid0-3-bitmap"),
        copies(NEAR_2, 3).scenario("raid10-3-n2"),
        copies(FAR_2, 3).scenario("raid10-3-f2"),
        tagged(copies(NEAR_2, 4)).scenario("raid10-4-n2-integrity"),
        tagged(copies(NEAR_3, 4)).scenario("raid10-4-n3-integrity"),
        tagged(copies(FAR_2, 2)).scenario("raid10-2-f2-integrity"),
        Shape { tagged: Some(TAGGED_4096), ..copies(OFFSET_2, 3) }
            .scenario("raid10-3-o2-integrity-4096"),
        inline(copies(OFFSET_2, 4)).scenario("raid10-4-o2-inline"),
        direct(copies(NEAR_2, 3)).scenario("raid10-3-n2-direct"),
        intent(mirror(2)).scenario("raid1-2-intent"),
        intent(tagged(mirror(3))).scenario("raid1-3-integrity-intent"),
        intent(parity(Level::Raid5, 3)).scenario("raid5-3-intent"),
        intent(tagged(tight(parity(Level::Raid6, 5)))).scenario("raid6-5-integrity-intent-tight"),
        intent(direct(parity(Level::Raid5, 3))).scenario("raid5-3-direct-intent"),
        intent(copies(FAR_2, 3)).scenario("raid10-3-f2-intent"),
        tuples(mirror(2)).scenario("raid1-2-tuples"),
        tuples(copies(NEAR_2, 3)).scenario("raid10-3-n2-tuples"),
        tuples(parity(Level::Raid5, 3)).scenario("raid5-3-tuples"),
        tuples(tight(parity(Level::Raid6, 5))).scenario("raid6-5-tuples-tight"),
        torn_tuples(mirror(3)).scenario("raid1-3-direct-tuples"),
        torn_tuples(parity(Level::Raid5, 4)).scenario("raid5-4-direct-tuples"),
        ppl(parity(Level::Raid5, 3)).scenario("ppl-raid5-3"),
        ppl(tight(parity(Level::Raid5, 4))).scenario("ppl-raid5-4-tight"),
        ppl(tagged(parity(Level::Raid5, 4))).scenario("ppl-raid5-4-integrity"),
        ppl(direct(tight(parity(Level::Raid5, 3)))).scenario("ppl-raid5-3-direct-tight"),
    ]
}

/// Layouts of RAID 10.
const NEAR_3: u32 = 0x103;
const FAR_2: u32 = 0x201;
const OFFSET_2: u32 = 0x1_0201;

/// Arrays with a bitmap and no spare.
pub(super) fn returning() -> Vec<Scenario> {
    let names =
        ["raid1-2-intent", "raid1-3-integrity-intent", "raid5-3-intent", "raid10-3-f2-intent"];
    all().into_iter().filter(|scenario| names.contains(&scenario.name)).collect()
}

pub(super) fn spared() -> Vec<Scenario> {
    let array = |level, count| Shape {
        level,
        layout: if matches!(level, Level::Raid5 | Level::Raid6) { LEFT_SYMMETRIC } else { 0 },
        count,
        spares: 1,
        chunk_sectors: if level == Level::Raid1 { 0 } else { 8 },
        tagged: None,
        cache_bytes: 256 << 10,
        intent: false,
        ppl: false,
    };
    let tagged = |shape| Shape { tagged: Some(TAGGED_512), ..shape };
    let dealt = |count, layout| Shape { layout, ..array(Level::Raid10, count) };
    vec![
        array(Level::Raid1, 2).scenario("spared-raid1-2"),
        tagged(array(Level::Raid1, 3)).scenario("spared-raid1-3-integrity"),
        array(Level::Raid5, 3).scenario("spared-raid5-3"),
        tagged(array(Level::Raid5, 3)).scenario("spared-raid5-3-integrity"),
        array(Level::Raid6, 4).scenario("spared-raid6-4"),
        tagged(array(Level::Raid6, 4)).scenario("spared-raid6-4-integrity"),
        dealt(4, NEAR_2).scenario("spared-raid10-n2-4"),
        Shape { intent: true, ..array(Level::Raid1, 2) }.scenario("spared-raid1-2-intent"),
        Shape { intent: true, ..array(Level::Raid5, 3) }.scenario("spared-raid5-3-intent"),
        tagged(dealt(3, OFFSET_2)).scenario("spared-raid10-o2-3-integrity"),
    ]
}

/// What kind of array.
#[derive(Clone, Copy)]
struct Shape {
    level: Level,
    layout: u32,
    count: u8,
    /// Members more, which hold nothing.
    spares: u8,
    chunk_sectors: u32,
    tagged: Option<Tagged>,
    /// Memory for parts of stripes; the smallest makes writers wait.
    cache_bytes: usize,
    /// Whether it has a write-intent bitmap.
    intent: bool,
    /// Whether it has a partial parity log.
    ppl: bool,
}

/// Where the data of each member begins: behind the superblock, and the bitmap and the bad block log of
/// 8 sectors each where there is a bitmap.
const DATA_OFFSET: u64 = 16;
const LOGS: u64 = 16;
/// A partial parity log of a few blocks: records are as short as they may be. Behind it lies a bad block log.
const PPL_SECTORS: u16 = 24;
const BEHIND_PPL: u64 = 8;
/// Sectors used of each member.
const DATA_SECTORS: u64 = 256;

impl Shape {
    fn scenario(self, name: &'static str) -> Scenario {
        let member_sectors = match self.tagged {
            None => self.data_offset() + DATA_SECTORS,
            Some(kind) if kind.block == BlockSize::B512 => 1120 + if self.ppl { 48 } else { 0 },
            Some(_) => 1700,
        };
        let damageable = match self.tagged {
            None => self.data_offset()..member_sectors,
            Some(kind) => kind.body(member_sectors, Sector(self.data_offset())),
        };
        let joining = Rc::<Cell<Joining>>::default();
        let orderings = Rc::<Orderings>::default();
        let (asked, left_out) = (Rc::clone(&joining), Rc::clone(&orderings));
        Scenario {
            members: (self.count + self.spares).into(),
            member_sectors,
            redundancy: self.redundancy(),
            verified: self.tagged.is_some(),
            tuples: self.tagged.is_some_and(|kind| kind.keeps_tuples()),
            member_tags: self.tagged.map_or(0, |kind| kind.member_tags),
            damageable,
            // Where a cut makes blocks unreadable, those of the log are among them.
            logged: self.ppl && !self.tagged.is_some_and(|kind| kind.tears()),
            format: Box::new(move |members| Box::pin(self.format(members))),
            cut_writes_unreadable: self.tagged.is_some_and(|kind| kind.tears()),
            open: Box::new(move |members, _, events| {
                Box::pin(self.open(members, asked.get(), (events, Rc::clone(&left_out))))
            }),
            orderings,
            joining,
            records_bad: self.intent || self.ppl,
            atlas: (self.spares == 0).then(|| Rc::new(self.atlas(member_sectors))),
            ..disk(name, BlockSize::B512)
        }
    }

    /// Where its blocks lie on the disks.
    fn atlas(self, sectors: u64) -> Atlas {
        let (count, tagged, data_offset) = (self.count.into(), self.tagged, self.data_offset());
        let members = Members { count, sectors, tagged, data_offset };
        let member =
            NewMember { device_sectors: members.inner_sectors(), device_uuid: Uuid([1; 16]) };
        let made = create(&self.new_array(), &vec![member; count]);
        let made = made.expect("the scenario is a right array");
        let sizes: Vec<u64> = made.iter().map(Superblock::used_sectors).collect();
        members.array(&made[0].shape(&sizes).expect("it is one that can be opened"))
    }

    /// Members that may be missing, whichever they are.
    fn redundancy(self) -> usize {
        let count = self.count.into();
        match self.level.missing_max(count) {
            Some(most) => usize_of(most.into()),
            None => Mirrors::new(self.layout, self.chunk_sectors, count, DATA_SECTORS)
                .map_or(0, |mirrors| mirrors.spare_redundancy(|_| false)),
        }
    }

    fn data_offset(self) -> u64 {
        let logs = if self.intent { LOGS } else { 0 };
        DATA_OFFSET + logs + if self.ppl { u64::from(PPL_SECTORS) + BEHIND_PPL } else { 0 }
    }

    fn new_array(self) -> NewArray {
        NewArray {
            level: self.level,
            layout: self.layout,
            chunk_sectors: self.chunk_sectors,
            minor: Minor::V2,
            set_uuid: Uuid([7; 16]),
            set_name: [0; 32],
            ctime: Time(0),
            resync: match self.parity_is_untrue() {
                true => ResyncOffset::Below(Sector::ZERO),
                false => ResyncOffset::Clean,
            },
            data_offset: Some(Sector(self.data_offset())),
            ppl: self.ppl,
            size: Some(DATA_SECTORS),
        }
    }

    async fn format(self, members: Vec<Device>) -> Result<(), String> {
        let mut tops = Vec::new();
        for member in &members {
            match self.tagged {
                None => tops.push((member.clone(), None)),
                Some(kind) => {
                    kind.make(member.clone()).await?;
                    let layer = kind.open(member.clone(), Opening::Usual, Events::none()).await?;
                    tops.push((layer.device(), Some(layer)));
                }
            }
        }
        let member = |(uuid, (top, _)): (u8, &(Device, _))| NewMember {
            device_sectors: top.limits().sectors,
            device_uuid: Uuid([uuid; 16]),
        };
        let all: Vec<NewMember> = (1..).zip(&tops).map(member).collect();
        let (new, spares) = all.split_at(self.count.into());
        let mut superblocks = create(&self.new_array(), new).map_err(|error| error.to_string())?;
        for spare in spares {
            let taken: Vec<u32> = superblocks.iter().map(Superblock::dev_number).collect();
            let number = free_number(&superblocks[0], &taken);
            let spare = join(&superblocks[0], spare, number).map_err(|error| error.to_string())?;
            superblocks.push(spare);
        }
        for ((top, layer), mut superblock) in tops.iter().zip(superblocks) {
            if self.intent {
                write_bitmap(top, &mut superblock).await?;
            }
            if self.ppl {
                // Shorter than it was made, which left the bad block log the last sectors before the data.
                superblock.set_ppl(8, PPL_SECTORS);
                let empty = encode_header(superblock.set_uuid(), 0, &[]);
                let at = superblock.ppl().ok_or("no log")?.sector;
                let written = top.write(at, bio::Buf::copy_of(&empty)).await;
                written.map_err(|error| error.to_string())?;
            }
            let bytes = bio::Buf::copy_of(&superblock.encode());
            let at = Minor::V2.super_offset(top.limits().sectors).ok_or("too small")?;
            top.write(at, bytes).await.map_err(|error| error.to_string())?;
            if let Some(layer) = layer {
                layer.close().await.map_err(|error| error.to_string())?;
            }
        }
        match self.parity_is_untrue() {
            true => self.make_true(members).await,
            false => Ok(()),
        }
    }

    /// Members are made with the tuples of zeroes, and parity has others.
    fn parity_is_untrue(self) -> bool {
        self.tagged.is_some_and(|kind| kind.keeps_tuples()) && self.level.has_parity()
    }

    async fn make_true(self, members: Vec<Device>) -> Result<(), String> {
        let members = members.into_iter().map(Some).collect();
        let volume = self.open(members, Joining::Nobody, (Events::none(), Rc::default())).await?;
        let scrub = volume.scrub.ok_or("parity can be scrubbed")?;
        for step in 0..scrub.steps() {
            scrub.scrub(step, ScrubMode::Repair).await;
        }
        (volume.close)().await.map_err(|error| error.to_string())
    }

    async fn open(
        self,
        members: Vec<Option<Device>>,
        joining: Joining,
        (events, orderings): (Events, Rc<Orderings>),
    ) -> Result<Volume, String> {
        let mut present = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            let events = events.for_member(&format!("disk{index}"));
            if let Some(member) = member
                && let Ok(member) = self.open_member(index, member, events).await
            {
                present.push(member);
            }
        }
        let candidates: Vec<Candidate<'_>> = present
            .iter()
            .map(|member| Candidate {
                superblock: &member.superblock,
                device_sectors: member.top.limits().sectors,
            })
            .collect();
        let assembly = assemble(&candidates).map_err(|error| error.to_string())?;
        // With a partial parity log it is for the layer to say.
        let refuses = |why: &&CannotStart| !(self.ppl && **why == CannotStart::DirtyAndDegraded);
        if let Some(why) = assembly.cannot_start.iter().find(refuses) {
            return Err(why.to_string());
        }
        if let Some(why) = assembly.cannot_write.first() {
            return Err(why.to_string());
        }
        let freshest = present[assembly.newest].superblock.clone();
        let shape = assembly.shape(&candidates).map_err(|error| error.to_string())?;
        let holders = assembly.slots.iter().filter_map(|slot| match *slot {
            Slot::Missing => None,
            Slot::InSync(member) | Slot::Rebuilding { member, .. } => Some(member),
        });
        let holders = holders.chain(assembly.replacements.iter().copied());
        let found = |member: usize| present[member].found(&orderings);
        let members: Result<Vec<Found>, String> = holders.map(found).collect();
        let spares: Result<Vec<Found>, String> =
            assembly.spares.iter().copied().map(found).collect();
        let options = Options {
            read_only: false,
            tolerance: shape.tolerance(),
            synced: assembly.resync,
            events,
            clock: Rc::new(|| Time(0)),
        };
        let (slots, told) = (assembly.slots.len(), options.events.clone());
        let array = Array::new(slots, members?, Some(&freshest), options);
        let mut spares = spares?;
        if joining == Joining::Returned {
            for &(member, _) in &assembly.left_out {
                bring_back(&array, &freshest, found(member)?).await?;
            }
        }
        if joining == Joining::Replacement
            && array.vacant().is_empty()
            && let Some(mut spare) = spares.pop()
        {
            spare.slot = 0;
            // It may be under way since an earlier life.
            let joined = array.join(spare, true, EVERYTHING).await;
            drop(joined.map_err(|error| error.to_string())?);
        }
        spares.into_iter().for_each(|spare| array.add_spare(spare));
        let layers = present.into_iter().filter_map(|member| member.layer).collect();
        Ok(self.start(array, shape, layers).await?.protected(told))
    }

    async fn open_member(
        self,
        index: usize,
        device: Device,
        events: Events,
    ) -> Result<Present, String> {
        let (top, layer) = match self.tagged {
            None => (device, None),
            Some(kind) => {
                let layer = kind.open(device, Opening::Usual, events.clone()).await?;
                let top = match Verify::new(layer.device(), events) {
                    Ok(verify) => Device::new(verify),
                    Err(NoProfile) => layer.device(),
                };
                (top, Some(layer))
            }
        };
        let sectors = top.limits().sectors;
        let at = Minor::V2.super_offset(sectors).ok_or("too small")?;
        let decode = |bytes: &bio::Buf| {
            let decoded = Superblock::decode(bytes.as_slice(), Minor::V2, sectors);
            decoded.map_err(|error| error.to_string())
        };
        let superblock = match (top.read(at, 4096 / SECTOR).await, &layer, self.tagged) {
            (Ok(bytes), ..) => decode(&bytes)?,
            // As the stack does it: a power cut came between its data and its tag, and its own checksum
            // vouches for it.
            (Err(error), Some(layer), Some(kind))
                if error.kind.is_damage() && kind.mode != Mode::Journal =>
            {
                let place = layer.layout().run(at, 4096 / SECTOR);
                let bytes = layer.lower().data().read(place.data, place.sectors).await;
                let superblock = decode(&bytes.map_err(|error| error.to_string())?)?;
                let back = bio::Buf::copy_of(&superblock.encode());
                top.write(at, back).await.map_err(|error| error.to_string())?;
                superblock
            }
            (Err(error), ..) => return Err(error.to_string()),
        };
        let logs = Logs::read(&top, &superblock).await;
        Ok(Present { index, top, layer, superblock, logs })
    }

    async fn start(
        self,
        array: Rc<Array>,
        shape: ArrayShape,
        layers: Vec<Rc<Integrity>>,
    ) -> Result<Volume, String> {
        let placement = match shape {
            ArrayShape::Stripes(stripes) => {
                let layer = Striped::new(array, stripes).map_err(|error| error.to_string())?;
                let (scrub, device) = (Rc::clone(&layer), layer.device());
                return Ok(volume(device, scrub, layers, async move { layer.close().await }));
            }
            ArrayShape::Parity(geometry, member_sectors) => {
                return self.start_parity(&array, geometry, member_sectors, layers).await;
            }
            ArrayShape::Mirror { .. } => Placement::Everywhere,
            ArrayShape::Mirrors(mirrors) => Placement::Dealt(mirrors),
        };
        let raid = Mirror::new(array, placement).map_err(|error| error.to_string())?;
        raid.start();
        let (scrub, device) = (Rc::clone(&raid), raid.device());
        Ok(volume(device, scrub, layers, async move { raid.close().await }))
    }

    async fn start_parity(
        self,
        array: &Rc<Array>,
        geometry: Geometry,
        member_sectors: u64,
        layers: Vec<Rc<Integrity>>,
    ) -> Result<Volume, String> {
        let cache_bytes = self.cache_bytes;
        let options = raid456::Options { geometry, member_sectors, force: false, cache_bytes };
        let raid = Raid456::new(array, &options).map_err(|error| error.to_string())?;
        raid.replay().await.map_err(|error| error.to_string())?;
        raid.start_resync();
        let raid = Rc::new(raid);
        let (scrub, device) = (Rc::clone(&raid), Device::shared(Rc::clone(&raid)));
        Ok(volume(device, scrub, layers, async move { raid.close().await }))
    }
}

/// Lets a member that was away come back, as the program's `add` does: it is given what the bitmap says that
/// it missed; if that cannot say it, it joins as one that holds nothing.
async fn bring_back(array: &Array, freshest: &Superblock, stale: Found) -> Result<(), String> {
    let Some(&slot) = array.vacant().first() else { return Ok(()) };
    let whole = Found {
        slot,
        name: Rc::clone(&stale.name),
        device: stale.device.clone(),
        data: stale.data.clone(),
        superblock: None,
        logs: stale.logs.clone(),
    };
    let own = stale.superblock.clone().ok_or("it has a superblock")?;
    match array.rejoin(stale).await {
        Ok(_) => return Ok(()),
        Err(JoinError::Io(error)) => return Err(error.to_string()),
        Err(_) => {}
    }
    let (device_sectors, device_uuid) = (whole.device.limits().sectors, own.device_uuid());
    let taken = array.members().filter_map(|member| Some(member.superblock()?.dev_number()));
    let number = free_number(freshest, &taken.collect::<Vec<_>>());
    let mut spare = join(freshest, &NewMember { device_sectors, device_uuid }, number)
        .map_err(|error| error.to_string())?;
    spare.place_bitmap(device_sectors);
    let bytes = bio::Buf::copy_of(&spare.encode());
    let mut write = Bio::write_fua(spare.super_offset(), bytes);
    whole.device.submit(&mut write).await.map_err(|error| error.to_string())?;
    let logs = Logs::read(&whole.device, &spare).await;
    let joined = array.join(Found { superblock: Some(spare), logs, ..whole }, false, EVERYTHING);
    joined.await.map(drop).map_err(|error| error.to_string())
}

/// A bitmap of chunks of 4 KiB, whose bits are cleared as soon as possible.
async fn write_bitmap(top: &Device, superblock: &mut Superblock) -> Result<(), String> {
    let sectors = top.limits().sectors;
    superblock.place_bitmap(sectors);
    let room_bytes = superblock.bitmap_room(sectors).ok_or("no bitmap")?;
    let new = NewBitmap { superblock, room_bytes, chunk_bytes: Some(4096), dirty: false };
    let mut bitmap = Bitmap::new(&new).map_err(|error| error.to_string())?;
    bitmap.set_daemon_sleep(0);
    bitmap.pad_to(top.limits().logical_block.bytes());
    let bytes = bio::Buf::copy_of(&bitmap.encode(0..bitmap.area_bytes()));
    let at = superblock.bitmap_sector().ok_or("no bitmap")?;
    top.write(at, bytes).await.map_err(|error| error.to_string())
}

fn volume(
    device: Device,
    scrub: Rc<dyn Scrub>,
    layers: Vec<Rc<Integrity>>,
    raid: impl Future<Output = IoResult> + 'static,
) -> Volume {
    let close = Box::new(move || -> LocalFuture<'static, IoResult> {
        Box::pin(async move {
            let array = raid.await;
            close_members(layers).await?;
            array
        })
    });
    Volume { device, scrub: Some(scrub), suspects: None, close }
}

/// A member that could be opened.
struct Present {
    index: usize,
    top: Device,
    layer: Option<Rc<Integrity>>,
    superblock: Superblock,
    logs: Logs,
}

impl Present {
    /// As an array takes it.
    fn found(&self, orderings: &Rc<Orderings>) -> Result<Found, String> {
        let slot = match self.superblock.role() {
            Some(Role::Active(slot)) => slot.into(),
            _ => 0,
        };
        let (start, sectors) = (self.superblock.data_offset(), self.superblock.used_sectors());
        let top = Unchecked::over(self.top.clone(), orderings);
        let data = Linear::new(top.clone(), start, sectors);
        Ok(Found {
            slot,
            name: format!("disk{}", self.index).into(),
            device: top,
            data: Device::new(data.map_err(|error| error.to_string())?),
            superblock: Some(self.superblock.clone()),
            logs: self.logs.clone(),
        })
    }
}

/// Members that are gone cannot be closed: the array has said what that means.
async fn close_members(layers: Vec<Rc<Integrity>>) -> IoResult {
    for layer in layers {
        match layer.close().await {
            Err(error) if error.kind != bio::IoErrorKind::Unavailable => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
