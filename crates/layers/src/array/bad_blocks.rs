//! The sectors of one member that nobody may be given: read from its bad block log, kept while the array
//! runs, recorded and forgotten (the md specification, section 12).
//!
//! ```text
//!   RAID layer --> Member::data() --> nothing bad: the data itself
//!                                 \-> else a layer that refuses to read what is bad, with `Medium`, and
//!                                     takes what is written over it out of the set
//! ```
//! To the layer above a bad sector is damage like any other: it reads others, and writes back.
//!
//! # What a crash leaves
//!
//! A write that the member could not take is recorded:
//!
//! 1. The sectors are bad in memory: nobody is given what lies there. Crash: the write is not complete.
//! 2. The log is written, sector after sector, durably. Crash: some of it is recorded; it is not yet
//!    complete, and the array dirty.
//! 3. If the superblock says that the log is empty, it is written to say that it is not, durably. Crash
//!    before: as 2, as nobody reads the log.
//! 4. The write completes. Crash: whoever opens the array knows of it.
//!
//! A write over bad sectors that succeeded takes them out of the set in memory. On disk:
//!
//! 1. The member is flushed. Crash: they are bad still, and what was written is read from others.
//! 2. The log is written without them, sector after sector in ascending order, each durable before the
//!    next: an entry that moves is in its new place before it leaves the old one. Crash: some of them
//!    are bad still.
//! 3. The next superblock says whether anything is left.
//!
//! A log that cannot be read means that any sector may be bad: all are, until they are written. But nobody
//! says so of any: where what others give is what the member's own tag vouches for, it is that. A power cut
//! leaves such logs where data and tag are not written as one. When everything else is durable, what is left
//! is put in its place:
//!
//! 1. The member is flushed. Crash: the log cannot be read.
//! 2. The log is written, each of its blocks durable before the next, the last one that which could not be
//!    read. Crash: before that block, the log cannot be read; afterwards it is whole.

use super::RangeSet;
use super::logs::is_beside;
use super::ordering::{MOVED, RECORDED};
use bio::{Allocation, Bio, BlockDevice, Buf, Device, IoErrorKind, IoResult, Limits, Op};
use md::bad_blocks::{BadBlockError, BadBlocks, ENTRY_BYTES};
use md::superblock::{Features, Superblock};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use units::{SECTOR_BYTES, Sector, u64_of, usize_of};

/// Why a member's bad block log cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadBlockProblem {
    /// Its bytes make no sense.
    #[error(transparent)]
    Bytes(#[from] BadBlockError),
    /// They cannot be read.
    #[error("the bad block log cannot be read: {0}")]
    Unreadable(bio::IoError),
    /// It does not lie where one can lie.
    #[error("the bad block log is at sector {sector}, where something else lies, or nothing")]
    Place {
        /// Where it begins.
        sector: Sector,
    },
}

/// Reads the bad block log on the member `device`; empty if its superblock says so.
///
/// # Errors
/// [`BadBlockProblem`]: then nothing on the member is known to be good.
pub async fn read_bad_blocks(
    device: &Device,
    superblock: &Superblock,
) -> Result<BadBlocks, BadBlockProblem> {
    let used = superblock.features().contains(Features::BAD_BLOCKS);
    let Some(log) = superblock.bad_block_log() else {
        // In use, and nowhere.
        let nowhere = BadBlockProblem::Place { sector: Sector::ZERO };
        return if used { Err(nowhere) } else { Ok(BadBlocks::empty(0)) };
    };
    let place = place(device, superblock);
    match place {
        None if used => Err(BadBlockProblem::Place { sector: log.sector }),
        None => Ok(BadBlocks::empty(0)),
        Some(_) if !used => Ok(BadBlocks::empty(log.sectors)),
        Some(place) => {
            let bytes = device.read(place.start, place.end - place.start).await;
            let bytes = bytes.map_err(BadBlockProblem::Unreadable)?;
            Ok(BadBlocks::decode(bytes.as_slice(), log.shift)?)
        }
    }
}

/// Where the log lies, if it can lie there: whole blocks, apart from superblock, data and other logs.
fn place(device: &Device, superblock: &Superblock) -> Option<Range<Sector>> {
    let log = superblock.bad_block_log()?;
    let (limits, start) = (device.limits(), log.sector.0);
    let sectors = u64::from(log.sectors);
    let end = start.checked_add(sectors).filter(|&end| end <= limits.sectors)?;
    let apart = |from: u64, sectors: u64| end <= from || start >= from.saturating_add(sectors);
    // A bitmap ends where the log begins, at the latest.
    let fits = is_beside(superblock, &(start..end))
        && superblock.bitmap_sector().is_none_or(|bitmap| apart(bitmap.0, 1))
        && superblock.ppl().is_none_or(|ppl| apart(ppl.sector.0, ppl.sectors.into()))
        && limits.logical_block.divides(start)
        && limits.logical_block.divides(sectors);
    fits.then_some(Sector(start)..Sector(end))
}

/// What of one member is bad. Sectors are those of the whole member.
pub(super) struct BadSectors {
    device: Device,
    bad: RefCell<RangeSet>,
    /// No longer bad, but so on disk.
    written: RefCell<RangeSet>,
    /// As it lies on disk, and where; none: it cannot be written.
    log: RefCell<Option<(BadBlocks, Range<Sector>)>>,
    /// The one that takes the place of one that cannot be read.
    anew: RefCell<Option<Anew>>,
    /// The bytes that lie there; none: not known, since one that was never used is not even initialised.
    lies: RefCell<Option<Vec<u8>>>,
}

/// A log that is to be written where one lies that cannot be read.
#[derive(Clone)]
struct Anew {
    empty: BadBlocks,
    place: Range<Sector>,
    /// A sector of it that says nothing.
    unread: u64,
}

impl Anew {
    /// Where a log of the member `device` could not be read because of `why`; none: none can lie there.
    fn of(device: &Device, superblock: &Superblock, why: &BadBlockProblem) -> Option<Self> {
        let log = superblock.bad_block_log().filter(|log| log.shift == 0)?;
        let place = place(device, superblock)?;
        let unread = match why {
            BadBlockProblem::Unreadable(error) => error.sector.0,
            BadBlockProblem::Bytes(BadBlockError::Entry { index, .. }) => {
                place.start.0 + u64_of(index * ENTRY_BYTES / SECTOR_BYTES)
            }
            BadBlockProblem::Bytes(_) | BadBlockProblem::Place { .. } => return None,
        };
        // In the middle of a change of shape there is more data than this layer knows of.
        let empty = BadBlocks::empty(log.sectors);
        let knows =
            superblock.reshape().is_none() && (place.start.0..place.end.0).contains(&unread);
        knows.then_some(Self { empty, place, unread })
    }
}

impl BadSectors {
    /// Of the member `device`, whose data are these sectors, as its log was found.
    pub(super) fn new(
        device: &Device,
        superblock: Option<&Superblock>,
        (found, data): (&Result<BadBlocks, BadBlockProblem>, Range<u64>),
    ) -> Rc<Self> {
        let mut bad = RangeSet::default();
        match found {
            Ok(log) => log.ranges().for_each(|range| bad.insert(range)),
            Err(_) => bad.insert(data),
        }
        let place = superblock.and_then(|superblock| place(device, superblock));
        let log = found.as_ref().ok().cloned().zip(place).filter(|(log, _)| log.used().1 > 0);
        let anew = superblock.zip(found.as_ref().err());
        let anew = anew.and_then(|(superblock, why)| Anew::of(device, superblock, why));
        let (bad, log, anew) = (RefCell::new(bad), RefCell::new(log), RefCell::new(anew));
        let (written, lies) = (RefCell::default(), RefCell::default());
        Rc::new(Self { device: device.clone(), bad, written, log, anew, lies })
    }

    /// Whether every sector is good.
    pub(super) fn is_empty(&self) -> bool {
        self.bad.borrow().first().is_none()
    }

    /// Whether some of `sectors` are bad.
    pub(super) fn overlap(&self, sectors: &Range<u64>) -> bool {
        self.bad.borrow().overlaps(sectors)
    }

    /// The first bad one of `sectors`.
    fn first(&self, sectors: &Range<u64>) -> Option<u64> {
        let first = self.bad.borrow().next(sectors.start).map(|run| run.start);
        first.filter(|&first| first < sectors.end)
    }

    /// They were written, all of them.
    fn wrote(&self, sectors: Range<u64>) {
        let mut bad = self.bad.borrow_mut();
        if bad.overlaps(&sectors) {
            bad.remove(sectors.clone());
            self.written.borrow_mut().insert(sectors);
        }
    }

    /// What was written over and is bad on disk still: to be taken before the member is flushed.
    pub(super) fn written(&self) -> RangeSet {
        self.written.borrow().clone()
    }

    /// Whether the log on disk has anything in it; none: nobody knows.
    pub(super) fn any_recorded(&self) -> Option<bool> {
        self.log.borrow().as_ref().map(|(log, _)| !log.is_empty())
    }

    /// Whether there is a log, and room in it for `sectors`.
    pub(super) fn has_room(&self, sectors: &Range<u64>) -> bool {
        let log = self.log.borrow().as_ref().map(|(log, _)| log.clone());
        log.is_some_and(|mut log| log.record(sectors))
    }

    /// Steps 1 and 2 of recording.
    ///
    /// # Errors
    /// `Unsupported` if there is no log that has room; else what the member says.
    pub(super) async fn record(&self, sectors: &Range<u64>) -> IoResult {
        self.bad.borrow_mut().insert(sectors.clone());
        self.written.borrow_mut().remove(sectors.clone());
        let full = IoErrorKind::Unsupported.at(Sector(sectors.start));
        let mut log = self.log.borrow().as_ref().map(|(log, _)| log.clone()).ok_or(full)?;
        if !log.record(sectors) {
            return Err(full);
        }
        self.write(log, 0, RECORDED).await
    }

    /// Step 2 of forgetting `written`, which is on the medium; or a log anew.
    ///
    /// # Errors
    /// What the member says.
    pub(super) async fn forget(&self, written: &RangeSet) -> IoResult {
        let Some((mut log, _)) = self.log.borrow().clone() else { return self.begin_anew().await };
        // What became bad again meanwhile is not in the set any more.
        let mut still_written = RangeSet::default();
        for range in written.iter() {
            let known = self.written.borrow();
            let mut at = range.start;
            while let Some(run) = known.next(at).filter(|run| run.start < range.end) {
                still_written.insert(run.start..run.end.min(range.end));
                at = run.end;
            }
        }
        log.forget(|range| {
            let mut left = RangeSet::from(range.clone());
            still_written.iter().for_each(|good| left.remove(good));
            match left.len() {
                0 => None,
                1 => left.next(0),
                _ => Some(range),
            }
        });
        let left: Vec<Range<u64>> = log.ranges().collect();
        self.write(log, 0, MOVED).await?;
        let mut written = self.written.borrow_mut();
        for range in still_written.iter() {
            if !left.iter().any(|left| left.start < range.end && range.start < left.end) {
                written.remove(range);
            }
        }
        Ok(())
    }

    /// Step 2 of putting a log in the place of one that cannot be read, if there is room in it for all that
    /// is bad.
    async fn begin_anew(&self) -> IoResult {
        let Some(Anew { empty: mut log, place, unread }) = self.anew.borrow().clone() else {
            return Ok(());
        };
        if !self.bad.borrow().iter().all(|range| log.record(&range)) {
            return Ok(());
        }
        let block = self.device.limits().logical_block.sectors();
        let last = usize_of((unread - place.start.0) / block);
        self.log.replace(Some((log.clone(), place)));
        let written = self.write(log, last + 1, MOVED).await;
        match written {
            Ok(()) => {
                self.anew.take();
                self.written.take();
            }
            Err(_) => drop(self.log.take()),
        }
        written
    }

    /// Whether nobody knows what is bad.
    fn is_unread(&self) -> bool {
        self.log.borrow().is_none() && self.anew.borrow().is_some()
    }

    /// Writes what differs from what lies there, block after block from `first` on and around, each durable
    /// before the next.
    async fn write(&self, log: BadBlocks, first: usize, reason: &'static str) -> IoResult {
        let Some(place) = self.log.borrow().as_ref().map(|(_, place)| place.clone()) else {
            return Ok(());
        };
        let before = self.lies.take();
        let (after, block) = (log.encode(), self.device.limits().logical_block.bytes());
        let blocks: Vec<(usize, &[u8])> = after.chunks(block).enumerate().collect();
        let (later, sooner) = blocks.split_at(first.min(blocks.len()));
        for &(index, bytes) in sooner.iter().chain(later) {
            let lies = before.as_ref().map(|before| &before[index * block..][..bytes.len()]);
            if lies == Some(bytes) {
                continue;
            }
            let sector = place.start + u64_of(index * block / SECTOR_BYTES);
            let mut write = Bio::write_fua(sector, Buf::copy_of(bytes)).because(reason);
            self.device.submit(&mut write).await?;
        }
        *self.lies.borrow_mut() = Some(after);
        *self.log.borrow_mut() = Some((log, place));
        Ok(())
    }
}

/// The data of a member of which some is bad.
pub(super) struct Guarded {
    data: Device,
    bad: Rc<BadSectors>,
    /// Where the data begins on the member.
    start: Sector,
}

impl Guarded {
    pub(super) fn over(data: Device, bad: &Rc<BadSectors>, start: Sector) -> Device {
        Device::new(Self { data, bad: Rc::clone(bad), start })
    }
}

impl BlockDevice for Guarded {
    fn limits(&self) -> &Limits {
        self.data.limits()
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let sectors = (self.start + bio.sector.0).0..(self.start + bio.end().0).0;
        let kind = match bio.op {
            Op::Read | Op::Peek { .. } => IoErrorKind::Medium,
            // The tag is of what the write should have replaced, if there was one.
            Op::Vouch if self.bad.is_unread() => return self.data.submit(bio).await,
            Op::Vouch => IoErrorKind::Protection,
            Op::Flush => return self.data.submit(bio).await,
            Op::Write { .. } | Op::Discard { .. } | Op::WriteZeroes { .. } => {
                self.data.submit(bio).await?;
                self.bad.wrote(sectors);
                return Ok(());
            }
        };
        match self.bad.first(&sectors) {
            Some(first) => Err(kind.at(Sector(first - self.start.0))),
            None => self.data.submit(bio).await,
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.data.allocation(sector, sectors).await
    }
}

#[cfg(test)]
mod tests;
