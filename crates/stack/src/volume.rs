//! An open volume: its device, what it is made of, how it is, and how it is closed.

use crate::events::{Counters, EventLog};
use crate::given::Given;
use crate::leaf::{Leaf, LeafKind};
use crate::member::Member;
use crate::open::decide::{ArrayDecision, describe_problem};
use crate::places::{array_node, place};
use crate::probe::{Probed, ReadIntegrity};
use crate::spec::Node;
use crate::top::Top;
use crate::write_journal::WriteJournalStatus;
use bio::{Device, Events, IoResult, ScrubMode};
use layers::array::Array;
use layers::integrity::{Integrity, JournalKeys};
use layers::protect::{self, Protect};
use md::superblock::{DeviceFlags, ResyncOffset, Superblock};
use serde::Serialize;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

/// An open volume. One that is open for writing must be [closed](Self::close): dropped, it is left
/// as after a crash.
pub struct Volume {
    pub(crate) top: Top,
    node: Node,
    array: Option<Rc<Array>>,
    pub(crate) freshest: Option<Superblock>,
    resync_at_open: ResyncOffset,
    pub(crate) members: RefCell<Vec<Rc<MemberPart>>>,
    read_only: bool,
    /// What the disks did not say when it was opened.
    pub(crate) given: Given,
    log: EventLog,
    events: Events,
}

/// One member, with all that is known of it.
pub(crate) struct MemberPart {
    pub name: Rc<str>,
    pub member: Option<Member>,
    pub kind: LeafKind,
    pub access: String,
    pub leaf: Device,
    /// The device that holds the data, if that is another.
    pub data: Option<Node>,
    pub integrity: Option<IntegrityPart>,
    pub md: Option<Superblock>,
    pub problem: Option<String>,
    /// The slot that it holds, once known.
    pub slot: Option<usize>,
    /// How it was when it was opened.
    pub state: MemberState,
    /// Its own cache is to be emptied at the end.
    pub is_written: bool,
}

/// The dm-integrity part of a member.
pub(crate) struct IntegrityPart {
    pub volume: Rc<Integrity>,
    pub tagger: layers::integrity::Tagger,
    /// What its journal is sealed and encrypted with.
    pub journal: JournalKeys,
}

impl MemberPart {
    pub fn of(probed: &Probed) -> Self {
        let part = |open: &ReadIntegrity| IntegrityPart {
            volume: Rc::clone(&open.volume),
            tagger: open.tagger.clone(),
            journal: open.given.journal.clone(),
        };
        Self {
            name: Rc::clone(&probed.name),
            member: probed.member.clone(),
            kind: probed.leaf.kind,
            access: probed.leaf.access.clone(),
            leaf: probed.leaf.device.clone(),
            data: probed.leaf.data.as_ref().map(|data| data.node.clone()),
            integrity: probed.open_integrity().map(part),
            md: probed.md().cloned(),
            problem: describe_problem(probed),
            slot: None,
            state: MemberState::LeftOut,
            is_written: false,
        }
    }

    pub fn node(&self) -> Node {
        let leaf = match &self.member {
            Some(member) => Node::Member(member.clone()),
            None => self.name.parse().unwrap_or(Node::Missing),
        };
        if self.integrity.is_none() {
            return leaf;
        }
        Node::Integrity(Box::new(leaf), self.data.clone().map(Box::new))
    }
}

/// How a member is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// It holds its slot, complete.
    InSync,
    /// It holds its slot, filled only in part.
    Rebuilding,
    /// It stands beside the holder of its slot, which it is to replace.
    Replacing,
    /// It was replaced.
    Replaced,
    /// It was left out.
    LeftOut,
    /// It is there and holds nothing.
    Spare,
    /// It is the array's write journal.
    Journal,
    /// It failed while the volume was open.
    Failed,
    /// Nobody holds this slot.
    Missing,
}

/// One line of a volume's status.
#[derive(Clone, Debug, Serialize)]
pub struct MemberStatus {
    /// As it was named; empty for a slot without member.
    pub name: String,
    /// Its slot.
    pub slot: Option<usize>,
    /// How it is.
    pub state: MemberState,
    /// What it is, and how it is accessed.
    pub access: String,
    /// What its tags are made with, if it has any.
    pub integrity: Option<String>,
    /// Of a mirror, it is read only if no other can be.
    pub write_mostly: bool,
    /// Why it is not in use.
    pub problem: Option<String>,
    /// Corrected sectors, as its superblock has counted over its life.
    pub corrected_sectors: u32,
    /// Sectors of its data that it was not given yet.
    pub lacking_sectors: u64,
    /// Sectors of its data that nobody could give it, recorded as bad since the volume was opened.
    pub given_up_sectors: u64,
    /// Sectors of its data that the array uses.
    pub data_sectors: u64,
    /// The first sector whose tag is not known to be valid yet, of a recalculation that did not
    /// finish; none: there is none.
    pub recalculated_below: Option<u64>,
    /// First sector and sectors of the parts whose tags a crash in bitmap mode left in doubt.
    pub suspect: Vec<(u64, u64)>,
    /// Counted since the volume was opened.
    #[serde(skip)]
    pub counters: Counters,
}

/// What an array's write-intent bitmap says.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct BitmapStatus {
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// How many chunks there are.
    pub chunks: u64,
    /// How many of them would be compared after a crash.
    pub dirty: u64,
}

/// How a volume is.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeStatus {
    /// The stack, as text.
    pub stack: String,
    /// Its size in sectors.
    pub sectors: u64,
    /// Its smallest block in bytes.
    pub block_bytes: usize,
    /// `linear`, `raid0`, `raid1`, ...; none without an array.
    pub level: Option<String>,
    /// What md calls its layout; none without a choice.
    pub layout: Option<String>,
    /// Sectors of a chunk; none without chunks.
    pub chunk_sectors: Option<u32>,
    /// The array's UUID, as md prints it.
    pub uuid: Option<String>,
    /// The array's name.
    pub name: Option<String>,
    /// Slots of the array, or 1.
    pub slots: usize,
    /// Slots that nobody holds.
    pub missing: usize,
    /// How many more members may go.
    pub spare_redundancy: usize,
    /// It was not closed cleanly before it was opened.
    pub was_dirty: bool,
    /// Members are being filled now.
    pub rebuilding: bool,
    /// Redundancy is true below this member sector only; none: everywhere.
    pub synced_below: Option<u64>,
    /// Its write-intent bitmap, if it has one.
    pub bitmap: Option<BitmapStatus>,
    /// Whether it has a partial parity log: a crash leaves no write hole.
    pub partial_parity: bool,
    /// Its write journal, if it has one.
    pub write_journal: Option<WriteJournalStatus>,
    /// The change of shape that it was caught in, in words.
    pub reshape: Option<String>,
    /// Nothing is written, ever.
    pub read_only: bool,
    /// Blocks that nothing vouches for and that were given out, because that was asked for.
    pub unverified_blocks: u64,
    /// In order of slots, then those left out.
    pub members: Vec<MemberStatus>,
}

impl VolumeStatus {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.missing == 0
            && self.unverified_blocks == 0
            && self.synced_below.is_none()
            && self.reshape.is_none()
            && self.members.iter().all(|member| {
                use MemberState::{InSync, Journal, Spare};
                matches!(member.state, InSync | Spare | Journal)
                    && member.problem.is_none()
                    && member.recalculated_below.is_none()
                    && member.suspect.is_empty()
                    && !member.counters.any()
            })
    }
}

/// What a volume is made of.
pub(crate) struct Parts<'a> {
    pub top: Top,
    pub array: Option<Rc<Array>>,
    pub freshest: Option<Superblock>,
    pub assembly: Option<&'a ArrayDecision>,
    pub members: Vec<MemberPart>,
    pub read_only: bool,
    pub given: Given,
    pub log: EventLog,
    pub events: Events,
}

impl Volume {
    pub(crate) fn new(parts: Parts<'_>) -> Self {
        let Parts { top, array, freshest, assembly, mut members, .. } = parts;
        let Parts { read_only, given, log, events, .. } = parts;
        let resync_at_open =
            assembly.map_or(ResyncOffset::Clean, |decision| decision.assembly.resync);
        match assembly {
            None => (members[0].state, members[0].is_written) = (MemberState::InSync, true),
            Some(decision) => place(&mut members, decision),
        }
        let node = match &freshest {
            Some(freshest) => array_node(freshest, &members),
            None => members[0].node(),
        };
        let members = RefCell::new(members.into_iter().map(Rc::new).collect());
        Self { top, node, array, freshest, resync_at_open, members, read_only, given, log, events }
    }

    /// A leaf as it is, without a look at what lies on it. Where it is said to keep protection information,
    /// that is made on write and checked on read.
    pub(crate) fn plain(
        name: Rc<str>,
        member: Option<Member>,
        leaf: Leaf,
        node: Node,
        read_only: bool,
        (log, events): (EventLog, Events),
    ) -> Self {
        let Leaf { device, kind, access, .. } = leaf;
        let told = events.for_member(&name);
        let protect = Protect::new(device.clone(), protect::Options::default(), told);
        let top = protect.map_or_else(|_none| device.clone(), Device::new);
        let part = MemberPart {
            name,
            member,
            kind,
            access,
            leaf: device.clone(),
            data: None,
            integrity: None,
            md: None,
            problem: None,
            slot: None,
            state: MemberState::InSync,
            is_written: true,
        };
        Self {
            top: Top::plain(top),
            node,
            array: None,
            freshest: None,
            resync_at_open: ResyncOffset::Clean,
            members: RefCell::new(vec![Rc::new(part)]),
            read_only,
            given: Given::default(),
            log,
            events,
        }
    }

    /// The volume as a device.
    #[must_use]
    pub fn device(&self) -> Device {
        self.top.device.clone()
    }

    /// The stack; its text is `raid6(integrity(file:a), ...)`.
    #[must_use]
    pub fn stack(&self) -> &Node {
        &self.node
    }

    /// Whether nothing is written, ever.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What happened since it was opened.
    #[must_use]
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The files that are its members, by device and inode number.
    #[must_use]
    pub fn files(&self) -> Vec<(u64, u64)> {
        let parts = self.parts();
        let members = parts.iter().filter_map(|part| part.member.as_ref());
        let data = parts.iter().filter_map(|part| part.data.as_ref()?.member());
        crate::leaf::file_numbers(members.chain(data))
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> VolumeStatus {
        let device = self.device();
        let limits = device.limits();
        let md = self.freshest.as_ref();
        let slots = self.array.as_ref().map_or(1, |array| array.raid_disks());
        let missing = self.array.as_ref().map_or(0, |array| array.missing_count());
        let synced = self.array.as_ref().map_or(ResyncOffset::Clean, |array| array.synced());
        VolumeStatus {
            stack: self.node.to_string(),
            sectors: limits.sectors,
            block_bytes: limits.logical_block.bytes(),
            level: md.map(|md| md.level().to_string()),
            layout: md.and_then(Superblock::layout_name),
            chunk_sectors: md.map(Superblock::chunk_sectors).filter(|&sectors| sectors > 0),
            uuid: md.map(|md| md.set_uuid().to_string()),
            name: md.map(Superblock::name).filter(|name| !name.is_empty()),
            slots,
            missing,
            rebuilding: self.array.as_ref().is_some_and(|array| array.is_rebuilding()),
            spare_redundancy: self.array.as_ref().map_or(0, |array| array.spare_redundancy()),
            was_dirty: self.resync_at_open != ResyncOffset::Clean,
            synced_below: match synced {
                ResyncOffset::Clean => None,
                ResyncOffset::Below(sector) => Some(sector.0),
            },
            bitmap: self.array.as_ref().and_then(|array| {
                let (chunk_bytes, chunks, dirty) = array.bitmap_counts()?;
                Some(BitmapStatus { chunk_bytes, chunks, dirty })
            }),
            partial_parity: md.and_then(Superblock::ppl).is_some(),
            write_journal: self.write_journal(),
            reshape: md.and_then(Superblock::sides).and_then(Result::ok).map(|s| s.to_string()),
            read_only: self.read_only,
            unverified_blocks: self.integrity().map(|(_, part)| part.unverified()).sum(),
            members: self.member_lines(slots),
        }
    }

    fn member_lines(&self, slots: usize) -> Vec<MemberStatus> {
        let mut lines: Vec<MemberStatus> =
            self.parts().iter().map(|part| self.line(part)).collect();
        for slot in 0..slots {
            let there = |line: &MemberStatus| line.slot == Some(slot) || self.array.is_none();
            if !lines.iter().any(there) {
                lines.push(missing_line(slot));
            }
        }
        // In order of slots, then who has none.
        lines.sort_by_key(|line| line.slot.unwrap_or(usize::MAX));
        lines
    }

    fn line(&self, part: &MemberPart) -> MemberStatus {
        let running = self.running(&part.name);
        let (slot, state) = self.place_of(part);
        let current = running.as_ref().and_then(|member| member.superblock());
        let superblock = current.as_ref().or(part.md.as_ref());
        MemberStatus {
            name: part.name.to_string(),
            slot,
            state,
            access: format!("{}, {}", crate::open::kind_word(part.kind), part.access),
            integrity: part.integrity.as_ref().map(|part| part.tagger.source().to_string()),
            write_mostly: superblock.is_some_and(|superblock| {
                superblock.device_flags().contains(DeviceFlags::WRITE_MOSTLY)
            }),
            problem: part.problem.clone(),
            corrected_sectors: superblock.map_or(0, Superblock::corrected_reads),
            lacking_sectors: running.as_ref().map_or(0, |member| member.lacking_sectors()),
            given_up_sectors: running.as_ref().map_or(0, |member| member.given_up_sectors()),
            data_sectors: running.as_ref().map_or(0, |member| member.data().limits().sectors),
            recalculated_below: part.integrity.as_ref().and_then(unfinished),
            suspect: part.integrity.as_ref().map_or_else(Vec::new, |part| {
                let regions = part.volume.suspect().into_iter();
                regions.map(|(sector, sectors)| (sector.0, sectors)).collect()
            }),
            counters: self.counters(part),
        }
    }

    /// The members' dm-integrity volumes, by the members' names.
    pub(crate) fn integrity(&self) -> impl Iterator<Item = (Rc<str>, Rc<Integrity>)> + use<> {
        let parts = self.parts().into_iter();
        parts.filter_map(|part| {
            let volume = &part.integrity.as_ref()?.volume;
            Some((Rc::clone(&part.name), Rc::clone(volume)))
        })
    }

    /// What was counted for a member. Without redundancy, what is damaged is lost.
    fn counters(&self, part: &MemberPart) -> Counters {
        let mut counters = self.log.counters(&part.name);
        if self.array.is_none() {
            let block = self.top.device.limits().logical_block.sectors();
            counters.lost_sectors += counters.mismatches * block + counters.medium_errors;
        }
        counters
    }

    /// Sectors, of data or parity, that nothing could give back when they were read since it was
    /// opened.
    #[must_use]
    pub fn lost_sectors(&self) -> u64 {
        let parts = self.parts();
        let members = parts.iter().map(|part| self.counters(part).lost_sectors);
        self.log.volume_counters().lost_sectors + members.sum::<u64>()
    }

    /// Reads the whole volume, or a part of it, past every cache; see [`scrub::run`]. The
    /// superblocks of all members are always looked at too.
    ///
    /// A repairing walk through the whole of an array that was found dirty also waits for its
    /// resync: only then is everything true that the superblocks will say.
    ///
    /// A plain device has nothing to check: its summary is empty.
    pub async fn scrub(
        &self,
        options: &scrub::Options,
        mut on_progress: impl FnMut(&scrub::Progress, &scrub::Summary) -> ControlFlow<()>,
    ) -> scrub::Summary {
        debug_assert!(
            !self.read_only || options.mode == ScrubMode::Check,
            "a read-only volume is checked, not repaired"
        );
        let Some(layer) = &self.top.scrub else { return scrub::Summary::new(options.list_max) };
        let superblocks = crate::superblocks::scrub(self, options.mode).await;
        let mut last = None;
        let mut summary = scrub::run(Rc::clone(layer), options, |progress, summary| {
            last = Some(*progress);
            on_progress(progress, summary)
        })
        .await;
        summary.add(superblocks);
        let whole = options.mode.writes() && options.range.is_none();
        while let Some(progress) = last.filter(|_| whole && summary.stopped_at.is_none()) {
            if !self.top.is_resyncing() {
                break;
            }
            if on_progress(&progress, &summary).is_break() {
                summary.stopped_at = Some(progress.total);
            }
            runtime::sleep(RESYNC_POLL).await;
        }
        summary
    }

    /// Where what happens to it is told.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// The running array; none without one.
    pub(crate) fn array(&self) -> Option<&Rc<Array>> {
        self.array.as_ref()
    }

    /// Leaves everything as the formats' own tools leave it: data written home, journals clean,
    /// superblocks saying how far redundancy is true.
    ///
    /// # Errors
    /// The first failure; everything is closed as far as it can be, and nothing that was flushed
    /// is lost.
    pub async fn close(self) -> IoResult {
        let mut result = self.top.close().await;
        for part in self.parts() {
            result = result.and(self.close_part(&part).await);
        }
        result
    }
}

/// How often a resync is asked whether it is done.
const RESYNC_POLL: Duration = Duration::from_millis(5);

/// The position of a recalculation that did not finish.
fn unfinished(part: &IntegrityPart) -> Option<u64> {
    let position = part.volume.recalculated()?.0;
    Some(position).filter(|&position| position < part.volume.layout().provided_sectors)
}

fn missing_line(slot: usize) -> MemberStatus {
    MemberStatus {
        name: String::new(),
        slot: Some(slot),
        state: MemberState::Missing,
        access: String::new(),
        integrity: None,
        write_mostly: false,
        problem: None,
        corrected_sectors: 0,
        lacking_sectors: 0,
        given_up_sectors: 0,
        data_sectors: 0,
        recalculated_below: None,
        suspect: Vec::new(),
        counters: Counters::default(),
    }
}
