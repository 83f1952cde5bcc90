//! md arrays of plain or tagged members.

mod journal;
mod logs;
mod open;

pub(super) use logs::ROOM;

use super::bare::disk;
use super::places::Members;
use super::tagged::{ABOVE_512, INLINE_512, TAGGED_512, TAGGED_4096, Tagged};
use super::{Joining, Scenario};
use crate::atlas::Atlas;
use crate::opening::Opening;
use crate::ordering::Orderings;
use ::integrity::open::Mode;
use ::md::create::{LEFT_SYMMETRIC, NEAR_2, NewArray, NewMember, create, free_number, join};
use ::md::geometry::Mirrors;
use ::md::journal::BLOCK_SECTORS;
use ::md::superblock::{Level, Minor, ResyncOffset, Superblock, Time, Uuid};
use bio::{Device, Events, ScrubMode};
use std::cell::Cell;
use std::rc::Rc;
use units::{BlockSize, Sector, usize_of};

pub(super) fn all() -> Vec<Scenario> {
    let mirror = |count| Shape { count, cache_bytes: 0, ..Shape::MIRROR };
    let striped = |level, layout, count| Shape { level, layout, chunk_sectors: 8, ..mirror(count) };
    let parity =
        |level, count| Shape { cache_bytes: 256 << 10, ..striped(level, LEFT_SYMMETRIC, count) };
    let copies = |layout, count| striped(Level::Raid10, layout, count);
    let tight = |shape| Shape { cache_bytes: 8192, ..shape };
    let tagged = |shape| Shape { tagged: Some(TAGGED_512), ..shape };
    let inline = |shape| Shape { tagged: Some(INLINE_512), ..shape };
    let bitmap = |shape| Shape { tagged: Some(TAGGED_512.in_mode(Mode::Bitmap)), ..shape };
    let intent = |shape| Shape { beside: Beside::Intent, ..shape };
    let direct = |shape| Shape { tagged: Some(TAGGED_512.in_mode(Mode::Direct)), ..shape };
    let tuples = |shape| Shape { tagged: Some(ABOVE_512), ..shape };
    let torn_tuples = |shape| Shape { tagged: Some(ABOVE_512.in_mode(Mode::Direct)), ..shape };
    let ppl = |shape| Shape { beside: Beside::Ppl, ..shape };
    let journal = |shape| Shape { beside: Beside::Journal, ..shape };
    let cached = |shape| Shape { beside: Beside::Cached, ..shape };
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
        journal(parity(Level::Raid4, 3)).scenario("journal-raid4-3"),
        journal(parity(Level::Raid5, 3)).scenario("journal-raid5-3"),
        journal(tight(parity(Level::Raid6, 5))).scenario("journal-raid6-5-tight"),
        journal(tagged(parity(Level::Raid6, 4))).scenario("journal-raid6-4-integrity"),
        journal(Shape { tagged: Some(TAGGED_4096), ..tight(parity(Level::Raid5, 4)) })
            .scenario("journal-raid5-4-integrity-4096-tight"),
        cached(parity(Level::Raid5, 3)).scenario("journal-raid5-3-cached"),
        cached(tagged(parity(Level::Raid6, 4))).scenario("journal-raid6-4-integrity-cached"),
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

/// Arrays with a partial parity log in which records of a life before lie behind the first.
pub(super) fn aged() -> Vec<Scenario> {
    let (level, layout, beside) = (Level::Raid5, LEFT_SYMMETRIC, Beside::Aged);
    let shape = Shape { level, layout, chunk_sectors: 8, beside, ..Shape::MIRROR };
    vec![shape.scenario("ppl-raid5-3-aged")]
}

/// Mirrors whose bad block logs are all but full.
pub(super) fn crowded() -> Vec<Scenario> {
    let shape = |count| Shape { count, beside: Beside::Crowded, ..Shape::MIRROR };
    vec![shape(2).scenario("raid1-2-crowded"), shape(3).scenario("raid1-3-crowded")]
}

pub(super) fn spared() -> Vec<Scenario> {
    let array = |level, count| Shape {
        level,
        layout: if matches!(level, Level::Raid5 | Level::Raid6) { LEFT_SYMMETRIC } else { 0 },
        count,
        spares: 1,
        chunk_sectors: if level == Level::Raid1 { 0 } else { 8 },
        ..Shape::MIRROR
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
        Shape { beside: Beside::Intent, ..array(Level::Raid1, 2) }
            .scenario("spared-raid1-2-intent"),
        Shape { beside: Beside::Intent, ..array(Level::Raid5, 3) }
            .scenario("spared-raid5-3-intent"),
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
    beside: Beside,
}

/// What keeps account of writes.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Beside {
    Nothing,
    /// A write-intent bitmap, and bad block logs.
    Intent,
    /// The same with logs that have room for few entries more.
    Crowded,
    /// A partial parity log, and bad block logs.
    Ppl,
    /// The same with records of a life before, one behind the other.
    Aged,
    /// A write journal, on a disk behind the members.
    Journal,
    /// The same, in which a life in mode write-back left data without parity.
    Cached,
}

impl Beside {
    const fn intent(self) -> bool {
        matches!(self, Self::Intent | Self::Crowded)
    }

    const fn ppl(self) -> bool {
        matches!(self, Self::Ppl | Self::Aged)
    }

    const fn journal(self) -> bool {
        matches!(self, Self::Journal | Self::Cached)
    }
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
    /// Two or three alike.
    const MIRROR: Self = Self {
        level: Level::Raid1,
        layout: 0,
        count: 3,
        spares: 0,
        chunk_sectors: 0,
        tagged: None,
        cache_bytes: 256 << 10,
        beside: Beside::Nothing,
    };

    fn scenario(self, name: &'static str) -> Scenario {
        let member_sectors = match self.tagged {
            None => self.data_offset() + DATA_SECTORS,
            Some(kind) if kind.block == BlockSize::B512 => {
                1120 + if self.beside.ppl() { 48 } else { 0 }
            }
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
            members: usize::from(self.count + self.spares) + usize::from(self.beside.journal()),
            journalled: self.beside.journal(),
            member_sectors,
            redundancy: self.redundancy(),
            verified: self.tagged.is_some(),
            tuples: self.tagged.is_some_and(|kind| kind.keeps_tuples()),
            member_tags: self.tagged.map_or(0, |kind| kind.member_tags),
            damageable,
            // Where a cut makes blocks unreadable, those of the log are among them.
            logged: (self.beside.ppl() || self.beside.journal())
                && !self.tagged.is_some_and(|kind| kind.tears()),
            format: Box::new(move |members| Box::pin(self.format(members))),
            cut_writes_unreadable: self.tagged.is_some_and(|kind| kind.tears()),
            open: Box::new(move |members, _, events| {
                Box::pin(self.open(members, asked.get(), (events, Rc::clone(&left_out))))
            }),
            orderings,
            joining,
            records_bad: self.has_bad_block_logs() && !self.hides_refusals(),
            atlas: (self.spares == 0).then(|| Rc::new(self.atlas(member_sectors))),
            ..disk(name, BlockSize::B512)
        }
    }

    /// Where its blocks lie on the disks.
    fn atlas(self, sectors: u64) -> Atlas {
        let (count, tagged, data_offset) = (self.count.into(), self.tagged, self.data_offset());
        let block_min = if self.beside.journal() { BLOCK_SECTORS } else { 1 };
        let members = Members { count, sectors, tagged, data_offset, block_min };
        let member =
            NewMember { device_sectors: members.inner_sectors(), device_uuid: Uuid([1; 16]) };
        let made = create(&self.new_array(), &vec![member; count]);
        let made = made.expect("the scenario is a right array");
        let sizes: Vec<u64> = made.iter().map(Superblock::used_sectors).collect();
        let atlas = members.array(&made[0].shape(&sizes).expect("it is one that can be opened"));
        let large = tagged.is_some_and(|kind| kind.block.sectors() >= BLOCK_SECTORS);
        let atlas = if self.beside.journal() { atlas.journalled(!large) } else { atlas };
        let tears_logs = self.has_bad_block_logs() && self.tagged.is_some_and(|kind| kind.tears());
        if tears_logs { atlas.tearing_logs() } else { atlas }
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

    /// Whether what a disk does not take is not told of the block that it is: a journal keeps it, and of tags
    /// in memory a flush is told.
    fn hides_refusals(self) -> bool {
        self.tagged.is_some_and(|kind| kind.mode != Mode::Inline)
    }

    fn has_bad_block_logs(self) -> bool {
        self.beside.intent() || self.beside.ppl()
    }

    fn data_offset(self) -> u64 {
        let logs = if self.beside.intent() { LOGS } else { 0 };
        DATA_OFFSET + logs + if self.beside.ppl() { u64::from(PPL_SECTORS) + BEHIND_PPL } else { 0 }
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
            ppl: self.beside.ppl(),
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
        let (new, others) = all.split_at(self.count.into());
        let mut superblocks = create(&self.new_array(), new).map_err(|error| error.to_string())?;
        for other in others {
            let taken: Vec<u32> = superblocks.iter().map(Superblock::dev_number).collect();
            let number = free_number(&superblocks[0], &taken);
            let other = join(&superblocks[0], other, number).map_err(|error| error.to_string())?;
            superblocks.push(other);
        }
        if let Some(number) = superblocks.last().map(Superblock::dev_number)
            && self.beside.journal()
        {
            superblocks.iter_mut().for_each(|superblock| superblock.set_journal(number));
            superblocks.last_mut().into_iter().for_each(|own| own.set_journal_tail(0));
        }
        for (slot, ((top, layer), mut superblock)) in tops.iter().zip(superblocks).enumerate() {
            if self.beside.intent() {
                logs::write_bitmap(top, &mut superblock).await?;
            }
            if self.beside == Beside::Crowded {
                logs::crowd(top, &mut superblock).await?;
            }
            if self.beside.ppl() {
                // Shorter than it was made, which left the bad block log the last sectors before the data.
                superblock.set_ppl(8, PPL_SECTORS);
                let aged = self.beside == Beside::Aged;
                logs::begin_ppl(top, &superblock, aged.then_some(slot)).await?;
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
            false if self.beside == Beside::Cached => self.leave_data_alone(members).await,
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
}
