//! A lone dm-integrity volume that becomes larger or smaller, as `integritysetup resize` does it.
//!
//! Nothing on the device moves ([`integrity::layout::resize`]). A file is lengthened or cut here; a
//! block device (or an NBD export) was changed before, or will be after. A volume with a data device
//! has that device's size; its metadata device only ever becomes longer.
//!
//! Growing:
//!
//! 1. [`Step::ExtendMetadata`], [`Step::Extend`]: the files are longer, durable. Crash: the old
//!    volume, on more room than it uses.
//! 2. [`Step::Zeroes`], [`Step::Tags`]: the data of the new part is zeroed, its tags are those of zero
//!    blocks; then both are made durable. A sector with tags of both parts is written whole, the old
//!    ones as they were. Crash: the old volume; what lies behind its end is nobody's.
//! 3. [`Step::Superblock`]: one sector. Crash: the old volume or the new one.
//!
//! Shrinking:
//!
//! 1. [`Step::Superblock`]. Crash: the old volume or the new one, on more room than it uses.
//! 2. [`Step::Cut`]: the file is shorter. Crash: the new volume.
//!
//! Before either, a journal that holds something is replayed and the volume closed again: nothing
//! that it names may lie behind the new end. The same command, given again, goes on after any crash.

mod error;
mod place;

pub use error::ResizeError;
pub use place::{Opened, Part, Place};

use crate::given::Given;
use crate::leaf::{Leaf, LeafKind};
use crate::member::Member;
use crate::open::OpenError;
use crate::probe::repair::repair;
use crate::probe::{IntegrityFound, MdFound, Probed, ReadIntegrity, probe};
use bio::{Bio, Device, Events};
use checksum::Key;
use integrity::layout::{DeviceSectors, resize as resized_layout};
use integrity::recalculate::STEP_SECTORS;
use integrity::{Flags, Layout, Run, Superblock};
use layers::integrity::{
    Integrity, JournalKeys, JournalState, Lower, OfZeroes, Options, Tagger, store_superblock,
};
use std::fmt;
use std::ops::ControlFlow;
use units::{SECTOR, Sector, u64_of, usize_of};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct ResizeOptions {
    /// The volume's only member.
    pub member: Member,
    /// Bytes that the member, or the device with its data, is to have: a file is made that long, a
    /// device must have at least as many.
    pub bytes: u64,
    /// What the disk does not say of it.
    pub given: Given,
    /// A part of the volume may be cut off.
    pub yes: bool,
}

/// One step, in the order in which they are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// The metadata device's file is lengthened by a hole, for more tags.
    ExtendMetadata {
        /// Bytes that it has.
        from: u64,
        /// Bytes that it will have.
        to: u64,
    },
    /// The file with the data is lengthened by a hole.
    Extend {
        /// Bytes that it has.
        from: u64,
        /// Bytes that it will have.
        to: u64,
    },
    /// The data of the new part is zeroed (as holes where possible).
    Zeroes {
        /// First byte on the member.
        byte: u64,
        /// Bytes from there to the last that is zeroed.
        span_bytes: u64,
        /// Bytes that are zeroed in that span.
        bytes: u64,
    },
    /// The tags of the new part.
    Tags {
        /// First byte on the member.
        byte: u64,
        /// Bytes from there to the last that is written.
        span_bytes: u64,
        /// Bytes of tags in that span.
        bytes: u64,
    },
    /// The dm-integrity superblock.
    Superblock,
    /// The file is cut.
    Cut {
        /// Bytes that it has.
        from: u64,
        /// Bytes that it will have.
        to: u64,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtendMetadata { from, to } => {
                write!(f, "lengthen the metadata device from {from} to {to} bytes (a hole)")
            }
            Self::Extend { from, to } => write!(f, "lengthen from {from} to {to} bytes (a hole)"),
            Self::Zeroes { byte, span_bytes, bytes } => {
                write!(f, "byte {byte}, {bytes} bytes within {span_bytes}: zeroes")
            }
            Self::Tags { byte, span_bytes, bytes } => {
                write!(f, "byte {byte}, {bytes} bytes within {span_bytes}: tags of zero blocks")
            }
            Self::Superblock => f.write_str("byte 0: dm-integrity superblock"),
            Self::Cut { from, to } => write!(f, "cut from {from} to {to} bytes"),
        }
    }
}

/// What was done, or would be.
#[derive(Clone, Debug)]
pub struct Resized {
    /// Sectors of the volume before.
    pub from_sectors: u64,
    /// Sectors of the volume after.
    pub to_sectors: u64,
    /// The journal holds something that is replayed first.
    pub replay: bool,
    /// Every step, in order.
    pub steps: Vec<Step>,
    /// Steps that were made: all of them unless it was a dry run, or was stopped.
    pub made: usize,
}

/// How far one step has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResizeProgress {
    /// The step; before it begins, `done` is 0.
    pub step: Step,
    /// Sectors of the new part that are done.
    pub done: u64,
    /// Of how many.
    pub total: u64,
}

/// The new part's data and tags, before the superblock counts them.
const FILLED: &str = "resize: new blocks and tags before the superblock";

/// Every flush of its own that resizing asks for, by what it must come before; the superblock's is the
/// dm-integrity layer's.
pub const ORDERINGS: &[&str] = &[FILLED];

/// Resizes the volume. `on_progress` is told before each step, and within long ones; it may stop
/// there, which leaves what a crash there would.
///
/// # Errors
/// [`ResizeError`]. What is refused is refused before the first write.
pub async fn resize(
    options: &ResizeOptions,
    on_progress: &mut dyn FnMut(&ResizeProgress) -> ControlFlow<()>,
) -> Result<Resized, ResizeError> {
    resize_at(options, options, on_progress).await
}

/// The same for devices that lie at `place`, whatever `options` calls them.
///
/// # Errors
/// As [`resize`].
pub async fn resize_at(
    place: &impl Place,
    options: &ResizeOptions,
    on_progress: &mut dyn FnMut(&ResizeProgress) -> ControlFlow<()>,
) -> Result<Resized, ResizeError> {
    let (mut plan, mut leaf) = prepare(place, options, true).await?;
    if plan.resized.replay || options.given.journal.mac.is_some() {
        plan.replay(leaf.lower(), &options.given.journal).await?;
        drop(leaf);
        let replayed = plan.resized.replay;
        (plan, leaf) = prepare(place, options, true).await?;
        if std::mem::replace(&mut plan.resized.replay, replayed) {
            let why = "its journal is not empty after it was replayed".to_owned();
            return Err(ResizeError::Restricted { member: plan.name, why });
        }
    }
    let mut lower = leaf.lower();
    drop(leaf);
    for step in plan.resized.steps.clone() {
        let total = plan.to.provided_sectors.saturating_sub(plan.from.provided_sectors);
        if on_progress(&ResizeProgress { step, done: 0, total }).is_break() {
            break;
        }
        match step {
            Step::ExtendMetadata { to, .. } | Step::Extend { to, .. } | Step::Cut { to, .. } => {
                let metadata = matches!(step, Step::ExtendMetadata { .. });
                place.set_length(if metadata { Part::Metadata } else { Part::Data }, to)?;
                // The device has the size that the file had when it was opened.
                drop(lower);
                lower = plan.reopen(place).await?;
            }
            Step::Zeroes { .. } | Step::Tags { .. } => {
                if plan.fill(&lower, step, on_progress).await?.is_break() {
                    break;
                }
            }
            Step::Superblock => {
                let keys = &options.given.journal;
                let stored = store_superblock(&lower.metadata, &plan.to, keys).await;
                stored.map_err(|error| ResizeError::Store { member: plan.name.clone(), error })?;
                plan.now = plan.to.clone();
            }
        }
        plan.resized.made += 1;
    }
    Ok(plan.resized)
}

/// What [`resize`] would do; nothing is changed.
///
/// # Errors
/// As [`resize`], as far as can be seen without writing.
pub async fn dry_run(options: &ResizeOptions) -> Result<Resized, ResizeError> {
    Ok(prepare(options, options, false).await?.0.resized)
}

/// Everything about one resize.
struct Plan {
    name: String,
    from: Superblock,
    to: Superblock,
    /// What lies on the member.
    now: Superblock,
    layout: Layout,
    tagger: Tagger,
    key: Option<Key>,
    resized: Resized,
}

/// Looks, refuses, plans.
async fn prepare(
    place: &impl Place,
    options: &ResizeOptions,
    write: bool,
) -> Result<(Plan, Leaf), ResizeError> {
    let Opened(leaf) = place.open(write).await?;
    let name = options.member.to_string();
    if options.given.writes_nothing() {
        let why = "what was given (--superblock) is only for reading it".to_owned();
        return Err(ResizeError::Restricted { member: name, why });
    }
    if !options.bytes.is_multiple_of(SECTOR) {
        return Err(ResizeError::Bytes { found: options.bytes });
    }
    let member = Some(options.member.clone());
    let events = Events::none();
    let probed = probe(name.as_str().into(), member, leaf, &options.given, &events).await;
    let failed = |error| ResizeError::Io { member: name.clone(), error };
    let mut probed = [probed.map_err(failed)?];
    // What looks like damage to an array may be blocks that were never written.
    repair(&mut probed, &options.given, &events).await.map_err(failed)?;
    let [Probed { leaf, integrity, md, .. }] = probed;
    let open = match integrity {
        IntegrityFound::Open(open) => open,
        IntegrityFound::Problem(problem) => {
            return Err(OpenError::Integrity { member: name, problem }.into());
        }
        IntegrityFound::None if matches!(md, MdFound::None) => {
            return Err(OpenError::NotAMember { member: name, signature: None }.into());
        }
        IntegrityFound::None => return Err(ResizeError::Array { member: name }),
    };
    if !matches!(md, MdFound::None) {
        return Err(ResizeError::Array { member: name });
    }
    Ok((plan(place, options, &leaf, &open)?, leaf))
}

fn plan(
    place: &impl Place,
    options: &ResizeOptions,
    leaf: &Leaf,
    open: &ReadIntegrity,
) -> Result<Plan, ResizeError> {
    let member = options.member.to_string();
    let size = |part, device: &Device, kind, wanted| {
        let found = Sector(device.limits().sectors).bytes();
        match kind {
            LeafKind::File => Ok(place.length(part)?),
            // Of a device only what is asked for matters.
            _ if wanted <= found => Ok(wanted),
            _ => {
                let member = options.part(part).to_string();
                Err(ResizeError::Device { member, found, wanted })
            }
        }
    };
    let from = open.volume.superblock().clone();
    refuse(options, &member, open)?;
    let wanted = options.bytes;
    let (sized, sectors) = match &leaf.data {
        None => (leaf.kind, DeviceSectors::Interleaved(wanted / SECTOR)),
        // Whether the tags have room is looked at below: a file is made longer.
        Some(data) => {
            let sectors = DeviceSectors::Separate { metadata: u64::MAX, data: wanted / SECTOR };
            (data.kind, sectors)
        }
    };
    let found = size(Part::Data, leaf.lower().data(), sized, wanted)?;
    let (mut to, layout) = resized_layout(&from, sectors)
        .map_err(|error| ResizeError::Layout { member: member.clone(), error })?;
    // A recalculation that had finished has nothing to do in the new part either: its tags are made.
    if from.flags.has(Flags::RECALCULATING) && from.recalculated_until().is_none() {
        to.recalc_sector = to.provided_sectors;
    }
    let (from_sectors, to_sectors) = (from.provided_sectors, to.provided_sectors);
    if to_sectors < from_sectors && !options.yes {
        return Err(ResizeError::CutsOff { member, from: to_sectors, to: from_sectors });
    }
    let mut steps = Vec::new();
    if leaf.data.is_some() {
        let needed = Sector(layout.metadata_device_sectors()).bytes();
        let found = size(Part::Metadata, &leaf.device, leaf.kind, needed)?;
        if found < needed {
            steps.push(Step::ExtendMetadata { from: found, to: needed });
        }
    }
    if found < wanted {
        steps.push(Step::Extend { from: found, to: wanted });
    }
    if from_sectors < to_sectors {
        steps.extend(fill_steps(&layout, from_sectors));
    }
    if from != to {
        steps.push(Step::Superblock);
    }
    if found > wanted {
        steps.push(Step::Cut { from: found, to: wanted });
    }
    let replay = !matches!(open.volume.journal_state(), JournalState::Clean);
    let resized = Resized { from_sectors, to_sectors, replay, steps, made: 0 };
    let (tagger, key) = (open.tagger.clone(), open.given.integrity_key().cloned());
    Ok(Plan { name: member, now: from.clone(), from, to, layout, tagger, key, resized })
}

/// What is refused by name.
fn refuse(options: &ResizeOptions, member: &str, open: &ReadIntegrity) -> Result<(), ResizeError> {
    let superblock = open.volume.superblock();
    let why = if superblock.flags.has(Flags::DIRTY_BITMAP) {
        "its dirty bitmap is in use (dirty_bitmap), and says nothing of another size".to_owned()
    } else if superblock.flags.has(Flags::JOURNAL_MAC) && options.given.journal.mac.is_none() {
        "its superblock has a MAC (have_journal_mac), whose algorithm and key were not named"
            .to_owned()
    } else if superblock.flags.has(Flags::INLINE) {
        "its tags are inline, and only volumes whose tags have a place of their own are resized here"
            .to_owned()
    } else if open.repaired.is_some() {
        "its superblock is damaged; a writable opening repairs it".to_owned()
    } else if let JournalState::Damaged(error) = open.volume.journal_state() {
        format!("its journal cannot be replayed: {error}")
    } else {
        return Ok(());
    };
    Err(ResizeError::Restricted { member: member.to_owned(), why })
}

/// The steps that make the sectors from `from` on.
fn fill_steps(layout: &Layout, from: u64) -> [Step; 2] {
    let spb = layout.block.sectors();
    let sectors = layout.provided_sectors - from;
    let tag = u64_of(layout.tag_bytes);
    let first = layout.run(Sector(from), spb);
    let last = layout.run(Sector(layout.provided_sectors - spb), spb);
    let data_end = (last.data + spb).bytes();
    [
        Step::Zeroes {
            byte: first.data.bytes(),
            span_bytes: data_end - first.data.bytes(),
            bytes: sectors * SECTOR,
        },
        Step::Tags {
            byte: first.tag_byte,
            span_bytes: last.tag_byte + tag - first.tag_byte,
            bytes: sectors / spb * tag,
        },
    ]
}

impl Plan {
    /// Writes home what the journal holds, and leaves it empty. (An opening with keys also sees
    /// whether the superblock is authentic.)
    async fn replay(&self, lower: Lower, journal: &JournalKeys) -> Result<(), ResizeError> {
        let failed = |error| {
            let problem = crate::probe::IntegrityProblem::Open(error);
            ResizeError::Volume(OpenError::Integrity { member: self.name.clone(), problem })
        };
        let options = Options {
            integrity_key: self.key.clone(),
            journal: journal.clone(),
            ..Options::new(self.tagger.source(), Events::none())
        };
        let volume = Integrity::open(lower, options).await.map_err(failed)?;
        volume.close().await.map_err(|error| self.io(error))
    }

    /// The member again, after its length was changed: whoever got hold of it in between must not
    /// have changed what it is.
    async fn reopen(&self, place: &impl Place) -> Result<Lower, ResizeError> {
        let Opened(leaf) = place.open(true).await?;
        let lower = leaf.lower();
        let area = lower.metadata.read(Sector::ZERO, integrity::superblock::AREA_SECTORS).await;
        let area = area.map_err(|error| self.io(error))?;
        if Superblock::decode(area.as_slice()).as_ref() != Ok(&self.now) {
            return Err(ResizeError::Changed { member: self.name.clone() });
        }
        Ok(lower)
    }

    /// Makes `step`, which is about the new part; the last of them makes all durable.
    async fn fill(
        &self,
        lower: &Lower,
        step: Step,
        on_progress: &mut dyn FnMut(&ResizeProgress) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ResizeError> {
        let from = self.from.provided_sectors;
        let total = self.to.provided_sectors - from;
        let zeros = self.tagger.of_zeroes();
        let mut done = 0;
        while done < total {
            let run = self.layout.run(Sector(from + done), (total - done).min(STEP_SECTORS));
            match step {
                Step::Tags { .. } => self.zero_tags(&lower.metadata, &zeros, &run).await,
                _ => {
                    let mut zeroes = Bio::write_zeroes(run.data, run.sectors, true);
                    lower.data().submit(&mut zeroes).await
                }
            }
            .map_err(|error| self.io(error))?;
            done += run.sectors;
            if on_progress(&ResizeProgress { step, done, total }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if matches!(step, Step::Tags { .. }) {
            lower.flush_for(FILLED).await.map_err(|error| self.io(error))?;
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn zero_tags(&self, device: &Device, zeros: &OfZeroes, run: &Run) -> bio::IoResult {
        let blocks = usize_of(run.sectors / self.layout.block.sectors());
        let bytes = blocks * self.layout.tag_bytes;
        crate::tags::change(device, run.tag_byte, bytes, |tags| zeros.fill(run.sector.0, tags))
            .await
    }

    fn io(&self, error: bio::IoError) -> ResizeError {
        ResizeError::Io { member: self.name.clone(), error }
    }
}
