//! Makes the writes of a plan, and what a crash between them leaves.
//!
//! 1. [`WriteKind::Erase`] on every member, then a flush. A crash before or within: the old
//!    volume, or one with members missing. After: nothing opens.
//! 2. [`WriteKind::Wipe`], journal, tags, bitmaps, the start of a write journal's ring, and (inside dm-integrity) the md superblocks, in this
//!    order on each member, members side by side; then a flush of every member. A crash: nothing
//!    opens, because no outer superblock exists.
//! 3. The outer superblocks, one member after the other, each durable before the next: dm-integrity's
//!    where there is one, else md's. A crash: the members that have theirs are complete and agree
//!    (all data is zero, all parity too), the others are blank; what opens is a sound array with
//!    members missing, or too few to start. The write journal's device is the last: without it the array is
//!    refused, as its data might be there. `create` again, with `--yes`.

use super::plan::{
    BITMAP_PIECE, IntegrityPlan, MemberPlan, Plan, WriteKind, beside, erased, sections_at_once,
    sectors_of, tag_group_blocks,
};
use crate::tags;
use bio::{Bio, Buf, Device, IoResult};
use integrity::Sequence;
use layers::integrity::write_inline;
use runtime::join_all;
use std::cell::{Cell, RefCell};
use units::{SECTOR, Sector, u64_of, usize_of};

/// How far a creation has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CreateProgress {
    /// Bytes that are written or known to be zero.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// A member that is about to be made: its device, and whether it reads as zeroes already; the same
/// of the device with its data, if that is another.
pub(crate) struct Target {
    pub device: Device,
    pub blank: bool,
    pub data: Option<(Device, bool)>,
}

impl Target {
    /// The device that holds the data.
    fn data(&self) -> &Device {
        self.data.as_ref().map_or(&self.device, |(data, _)| data)
    }
}

/// Which member failed.
pub(crate) struct WriteFailure {
    pub member: usize,
    pub error: bio::IoError,
}

/// Makes the writes of `plan` on `targets`.
pub(crate) async fn write(
    plan: &Plan,
    targets: &[Target],
    on_progress: &mut dyn FnMut(&CreateProgress),
) -> Result<(), WriteFailure> {
    let total = plan.writes().map(|write| write.bytes).sum();
    let meter = Meter { done: Cell::new(0), total, on_progress: RefCell::new(on_progress) };
    let pairs: Vec<(&MemberPlan, &Target)> = plan.members.iter().zip(targets).collect();
    all(pairs.iter().map(|(member, target)| erase(member, target, &meter))).await?;
    all(pairs.iter().map(|(member, target)| fill(member, target, &meter))).await?;
    for (index, (member, target)) in pairs.into_iter().enumerate() {
        let committed = commit(member, &target.device, &meter).await;
        committed.map_err(|error| WriteFailure { member: index, error })?;
    }
    Ok(())
}

/// Runs one future for each member to its end; the first failure names its member.
async fn all(
    futures: impl Iterator<Item = impl Future<Output = IoResult>>,
) -> Result<(), WriteFailure> {
    for (member, result) in join_all(futures).await.into_iter().enumerate() {
        result.map_err(|error| WriteFailure { member, error })?;
    }
    Ok(())
}

struct Meter<'a> {
    done: Cell<u64>,
    total: u64,
    on_progress: RefCell<&'a mut dyn FnMut(&CreateProgress)>,
}

impl Meter<'_> {
    fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        let progress = CreateProgress { done: self.done.get(), total: self.total };
        (self.on_progress.borrow_mut())(&progress);
    }
}

async fn erase(plan: &MemberPlan, target: &Target, meter: &Meter<'_>) -> IoResult {
    for (sector, sectors) in erased(plan.sectors.metadata()) {
        if !target.blank {
            let zeroes = Buf::zeroed(usize_of(sectors * SECTOR));
            target.device.write(sector, zeroes).await?;
        }
        meter.add(sectors * SECTOR);
    }
    target.device.flush().await
}

async fn fill(plan: &MemberPlan, target: &Target, meter: &Meter<'_>) -> IoResult {
    let device = &target.device;
    let has = |kind| plan.writes.iter().any(|write| write.kind == kind);
    if has(WriteKind::Wipe) {
        wipe(plan.sectors.metadata(), device, target.blank, meter).await?;
        if let Some((data, blank)) = &target.data {
            wipe(plan.sectors.data(), data, *blank, meter).await?;
        }
    }
    if let Some(integrity) = &plan.integrity {
        journal(integrity, device, meter).await?;
        if has(WriteKind::ZeroBlocks) {
            zero_blocks(integrity, device, meter).await?;
        }
        if has(WriteKind::ZeroTags) {
            zero_tags(integrity, device, meter).await?;
        }
        bitmap(plan, target, meter).await?;
        if let Some(superblock) = &plan.md {
            let bytes = superblock.encode();
            write_tagged(integrity, target, superblock.super_offset(), &bytes).await?;
            meter.add(u64_of(bytes.len()));
        }
    } else {
        bitmap(plan, target, meter).await?;
    }
    if let Some((data, _)) = &target.data {
        data.flush().await?;
    }
    device.flush().await
}

async fn bitmap(plan: &MemberPlan, target: &Target, meter: &Meter<'_>) -> IoResult {
    let place = plan.md.as_ref().and_then(beside);
    let (Some(area), Some((_, sector))) = (&plan.bitmap, place) else { return Ok(()) };
    for (piece, bytes) in (0..).zip(area.chunks(BITMAP_PIECE)) {
        let sector = sector + piece * sectors_of(BITMAP_PIECE);
        match &plan.integrity {
            Some(integrity) => write_tagged(integrity, target, sector, bytes).await?,
            None => target.device.write(sector, Buf::copy_of(bytes)).await?,
        }
        meter.add(u64_of(bytes.len()));
    }
    Ok(())
}

async fn wipe(sectors: u64, device: &Device, blank: bool, meter: &Meter<'_>) -> IoResult {
    // A device may end in less than one of its blocks; that tail is beyond every layout.
    let block = device.limits().logical_block;
    let end = sectors / block.sectors() * block.sectors();
    let mut at = 0;
    while at < end {
        let piece = (end - at).min(WIPE_SECTORS);
        if !blank {
            let mut bio = Bio::write_zeroes(Sector(at), piece, true);
            device.submit(&mut bio).await?;
        }
        meter.add(piece * SECTOR);
        at += piece;
    }
    meter.add((sectors - end) * SECTOR);
    Ok(())
}

async fn journal(plan: &IntegrityPlan, device: &Device, meter: &Meter<'_>) -> IoResult {
    let journal = plan.layout.journal;
    let at_once = sections_at_once(journal.section_bytes());
    let mut section = 0;
    while section < journal.sections {
        let count = at_once.min(journal.sections - section);
        let mut buf = Buf::zeroed(journal.section_bytes() * usize_of(u64::from(count)));
        let sections = buf.as_mut_slice().chunks_exact_mut(journal.section_bytes());
        for (number, bytes) in (section..).zip(sections) {
            let section = plan.codec.initialised(number, Sequence::FIRST);
            bytes.copy_from_slice(section.as_slice());
        }
        let bytes = u64_of(buf.len());
        device.write(journal.section_start(section), buf).await?;
        meter.add(bytes);
        section += count;
    }
    Ok(())
}

async fn zero_tags(plan: &IntegrityPlan, device: &Device, meter: &Meter<'_>) -> IoResult {
    let layout = &plan.layout;
    let zeroes = plan.tagger.of_zeroes();
    let spb = layout.block.sectors();
    let group = tag_group_blocks(layout.tag_bytes) * spb;
    let mut pieces = layout.runs(Sector::ZERO, layout.provided_sectors).flat_map(|run| {
        let tag = u64_of(layout.tag_bytes);
        let starts = (0..run.sectors).step_by(usize_of(group));
        starts.map(move |offset| {
            let blocks = group.min(run.sectors - offset) / spb;
            (run.sector + offset, run.tag_byte + offset / spb * tag, blocks)
        })
    });
    loop {
        let batch: Vec<_> = pieces.by_ref().take(IN_FLIGHT).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let writes = batch.into_iter().map(|(sector, tag_byte, blocks)| {
            let bytes = usize_of(blocks) * layout.tag_bytes;
            // The rest of the last block of tags is padding: zero, as after a wipe.
            let mut buf = Buf::zeroed(bytes.next_multiple_of(TAG_ALIGN));
            zeroes.fill(sector.0, &mut buf.as_mut_slice()[..bytes]);
            async move {
                device.write(Sector(tag_byte / SECTOR), buf).await?;
                meter.add(u64_of(bytes));
                Ok(())
            }
        });
        for written in join_all(writes).await {
            written?;
        }
    }
}

/// The whole of a volume with inline tags, whatever the device is known to hold.
async fn zero_blocks(plan: &IntegrityPlan, device: &Device, meter: &Meter<'_>) -> IoResult {
    let layout = &plan.layout;
    let zeroes = plan.tagger.of_zeroes();
    let zeroed = Buf::zeroed(usize_of(Sector(BLOCKS_SECTORS).bytes()));
    for start in (0..layout.provided_sectors).step_by(usize_of(BLOCKS_SECTORS)) {
        let sectors = BLOCKS_SECTORS.min(layout.provided_sectors - start);
        let run = layout.run(Sector(start), sectors);
        let mut tags = vec![0; usize_of(sectors / layout.block.sectors()) * layout.tag_bytes];
        zeroes.fill(start, &mut tags);
        let data = zeroed.slice(0..usize_of(Sector(sectors).bytes()));
        write_inline(device, layout, &run, data, &tags).await?;
        meter.add(sectors * SECTOR);
    }
    Ok(())
}

/// Writes `bytes` at `sector` of the volume that `plan` describes, with tags that fit, past the
/// journal: nobody has it open yet.
async fn write_tagged(
    plan: &IntegrityPlan,
    target: &Target,
    sector: Sector,
    bytes: &[u8],
) -> IoResult {
    let run = plan.layout.run(sector, sectors_of(bytes.len()));
    assert_eq!(run.sectors, sectors_of(bytes.len()), "a superblock does not cross a run");
    let blocks = bytes.len() / plan.layout.block.bytes();
    let tag_bytes = blocks * plan.layout.tag_bytes;
    if plan.layout.inline {
        let mut tags = vec![0; tag_bytes];
        plan.tagger.sign(sector.0, bytes, &mut tags);
        let data = Buf::copy_of(bytes);
        return write_inline(target.data(), &plan.layout, &run, data, &tags).await;
    }
    tags::change(&target.device, run.tag_byte, tag_bytes, |tags| {
        plan.tagger.sign(sector.0, bytes, tags);
    })
    .await?;
    target.data().write(run.data, Buf::copy_of(bytes)).await
}

/// Step 3: makes the member one.
async fn commit(plan: &MemberPlan, device: &Device, meter: &Meter<'_>) -> IoResult {
    let (sector, bytes) = match (&plan.integrity, &plan.md) {
        (Some(integrity), _) => (Sector::ZERO, integrity.area),
        (None, Some(superblock)) => (superblock.super_offset(), superblock.encode()),
        (None, None) => return Ok(()),
    };
    let length = u64_of(bytes.len());
    device.submit(&mut Bio::write_fua(sector, Buf::copy_of(&bytes))).await?;
    device.flush().await?;
    meter.add(length);
    Ok(())
}

/// Sectors that are wiped by one request: small enough for progress on a device that has to write
/// them.
const WIPE_SECTORS: u64 = (256 << 20) / SECTOR;
/// Sectors with inline tags that are written by one request: 1 MiB.
const BLOCKS_SECTORS: u64 = (1 << 20) / SECTOR;
/// Writes of tags in flight on each member.
const IN_FLIGHT: usize = 8;
/// Tags are written in whole pieces of this many bytes; every run of tags starts at one (with
/// padding fixed, which is how volumes are made here).
const TAG_ALIGN: usize = 4096;
