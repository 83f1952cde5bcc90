//! The write journal of an array: found on its device, and, where nothing is written, laid over the members and
//! the array.
//!
//! ```text
//!            overlay: data without parity, in the array's sectors
//!               |
//!            raid456
//!            /  |  \
//!     overlay  overlay  overlay: data and parity that belong home, each over its member
//!        |        |        |
//!     member   member   member            journal device: read by all four
//! ```
//! Rows that the journal names whole are as if they had come home, whatever a crash left of them there. So
//! all rows are in sync, and a missing member's blocks can be made from the others. Data without
//! parity has touched nothing at home: without it rows agree as well, so it lies over everything.
//!
//! An array that is written has no overlays: the parity layer brings home what is in the journal, and then writes
//! through it (`layers::raid456`).

use crate::volume::{MemberPart, MemberState, Volume};
use bio::Device;
use layers::linear::{Linear, LinearError};
use layers::overlay::Overlay;
use layers::raid456::Journal;
use md::journal::{Damage, Ended, Found, Ring, Scan, Seed, Wanted};
use md::superblock::Superblock;
use serde::Serialize;
use std::rc::Rc;
use units::{SECTOR_BYTES, Sector, usize_of};

/// What an array's write journal holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct WriteJournalStatus {
    /// Its device, as it was named.
    pub member: String,
    /// Blocks of 4096 bytes that are not home yet and are read from there.
    pub blocks: u64,
}

impl Volume {
    /// The array's write journal, if it has one and reads it.
    pub(crate) fn write_journal(&self) -> Option<WriteJournalStatus> {
        let part = self.journal_part()?;
        let blocks = self.top.journal.as_ref().map_or(0, |journal| journal.found.rows.blocks());
        Some(WriteJournalStatus { member: part.name.to_string(), blocks })
    }

    /// The device of the array's write journal.
    pub(crate) fn journal_part(&self) -> Option<Rc<MemberPart>> {
        self.parts().into_iter().find(|part| part.state == MemberState::Journal)
    }
}

/// Why a journal cannot be read at all.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// No level that has one, or an impossible shape.
    #[error("an array of this shape has no write journal")]
    Shape,
    /// Its data lies outside the device.
    #[error("the write journal: {0}")]
    Place(LinearError),
}

/// What the device of a journal holds.
#[derive(Clone)]
pub(crate) struct WriteJournal {
    pub ring: Device,
    pub seed: Seed,
    /// Where it begins.
    pub tail: u64,
    /// How much of the device is its ring.
    length: Ring,
    pub found: Found,
}

impl WriteJournal {
    /// Reads the journal on `device`; none: the device is not one.
    pub async fn read(device: &Device, superblock: &Superblock) -> Option<Result<Self, Problem>> {
        let tail = superblock.journal_tail()?;
        Some(Self::read_from(device, superblock, tail).await)
    }

    /// Takes `device` for the one that it lies on, now that this can be written.
    ///
    /// # Errors
    /// [`Problem::Place`].
    pub fn lies_on(&mut self, device: &Device, superblock: &Superblock) -> Result<(), Problem> {
        let ring = Linear::new(device.clone(), superblock.data_offset(), self.length.sectors());
        self.ring = Device::new(ring.map_err(Problem::Place)?);
        Ok(())
    }

    /// The same for an array that writes through it.
    pub fn to_write(&self) -> Journal {
        let (ring, found) = (self.ring.clone(), self.found.clone());
        Journal { ring, length: self.length, seed: self.seed, tail: self.tail, found }
    }

    async fn read_from(
        device: &Device,
        superblock: &Superblock,
        tail: u64,
    ) -> Result<Self, Problem> {
        let Some(Ok(geometry)) = superblock.geometry() else { return Err(Problem::Shape) };
        let length = Ring::new(superblock.data_size());
        let ring = Linear::new(device.clone(), superblock.data_offset(), length.sectors());
        let ring = Device::new(ring.map_err(Problem::Place)?);
        let seed = Seed::of(superblock.set_uuid());
        let mut scan = Scan::new(seed, length, tail, (geometry, superblock.size()));
        while let Some(wanted) = scan.wanted() {
            scan.feed(read_ring(&ring, length, wanted).await.as_deref());
        }
        Ok(Self { ring, seed, tail, length, found: scan.finish() })
    }

    /// What is wrong with it, if anything is.
    pub const fn damage(&self) -> Option<Damage> {
        match self.found.ended {
            Ended::Here => None,
            Ended::Damaged(damage) => Some(damage),
        }
    }

    /// What a person wants to know of it, with its names in md's words.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let Found { rows, first, meta_blocks, sectors, .. } = &self.found;
        let complete = rows.iter().filter(|(_, row)| !row.complete.is_empty()).count();
        let data_only = rows.iter().filter(|(_, row)| !row.data_only.is_empty()).count();
        let sequence = first.map_or_else(|| "none".to_owned(), |first| first.to_string());
        vec![
            ("journal_tail", format!("{} of {} sectors", self.tail, self.length.sectors())),
            ("sequence", sequence),
            ("meta_blocks", format!("{meta_blocks}, in {sectors} sectors")),
            ("data-parity stripes", complete.to_string()),
            ("data-only stripes", data_only.to_string()),
            ("logged", format!("{} bytes that may not be home", rows.blocks() * BLOCK)),
        ]
    }

    /// The data of the member in `slot` as it is once the journal has come home.
    pub fn over_member(&self, slot: usize, lower: Device) -> Device {
        let blocks = self.found.rows.of_slot(slot);
        Device::new(Overlay::new(lower, self.ring.clone(), self.seed, blocks))
    }

    /// The array with what was acknowledged and never got parity.
    pub fn over_array(&self, lower: Device) -> Device {
        let blocks = self.found.rows.data_only();
        Device::new(Overlay::new(lower, self.ring.clone(), self.seed, blocks))
    }
}

/// Bytes of a block of the journal.
const BLOCK: u64 = md::journal::BLOCK_SECTORS * units::SECTOR;

/// What the scan asks for; none: it cannot be read.
async fn read_ring(ring: &Device, length: Ring, wanted: Wanted) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize_of(wanted.sectors) * SECTOR_BYTES);
    for range in length.ranges(wanted) {
        let part = ring.read(Sector(range.start), range.end - range.start).await.ok()?;
        bytes.extend_from_slice(part.as_slice());
    }
    Some(bytes)
}
