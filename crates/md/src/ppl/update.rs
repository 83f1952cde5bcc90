//! What the entries of a log mean for an array of some shape, and what they leave open.

use super::{Entry, Log, Logged};
use crate::geometry::Geometry;
use checksum::crc32c;
use std::ops::Range;
use units::{SECTOR, Sector, u64_of, usize_of};

/// Rows of one stripe of which some strips were about to be written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Update {
    /// The stripe.
    pub stripe: u64,
    /// The rows in the stripe, in sectors.
    pub rows: Range<u64>,
    /// The data strips that were written, in the array's order; all of them, if no partial parity is
    /// logged.
    pub strips: Range<usize>,
}

/// Why an entry means nothing in this array.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EntryError {
    /// It lies behind the end of the array, or within a block.
    #[error("data sector {sector} is not where a block of the array begins")]
    Place {
        /// Where it begins.
        sector: u64,
    },
    /// Its lengths are not those of whole strips of the same rows.
    #[error("{data_bytes} bytes of data and {parity_bytes} of parity are not rows of one stripe")]
    Lengths {
        /// Bytes of data.
        data_bytes: u32,
        /// Bytes of partial parity.
        parity_bytes: u32,
    },
    /// Parity of the stripe is somewhere else.
    #[error("parity in slot {found}, expected slot {expected}")]
    Slot {
        /// The slot that it names.
        found: u32,
        /// The slot that holds it.
        expected: usize,
    },
}

impl Entry {
    /// The entry for a write of `rows` (sectors in the strip) of data strip `strip`. `parity` is the
    /// partial parity. `block_sectors` is the array's logical block.
    ///
    /// # Panics
    /// If there are 4 GiB of it, or rows of part of a block.
    #[must_use]
    pub fn new(
        geometry: &Geometry,
        (stripe, strip): (u64, usize),
        rows: &Range<u64>,
        parity: &[u8],
        block_sectors: u64,
    ) -> Self {
        let sector = geometry.array_sector(stripe, strip, rows.start).0;
        let length = u32::try_from(parity.len()).expect("a strip is less than 4 GiB");
        let slot = geometry.p_slot(stripe);
        assert!(sector.is_multiple_of(block_sectors), "whole blocks are written");
        assert!(u64::from(length) == (rows.end - rows.start) * SECTOR, "each row has its parity");
        Self {
            data_sector: sector,
            parity_bytes: length,
            data_bytes: length,
            parity_slot: u32::try_from(slot).expect("slots are few"),
            checksum: crc32c(parity),
        }
    }

    /// What it means in an array of this shape, of so many sectors of each member, whose logical block
    /// has `block_sectors` sectors.
    ///
    /// # Errors
    /// [`EntryError`] with what was found.
    pub fn update(
        &self,
        geometry: &Geometry,
        member_sectors: u64,
        block_sectors: u64,
    ) -> Result<Update, EntryError> {
        let (data_bytes, parity_bytes) = (self.data_bytes, self.parity_bytes);
        let place = EntryError::Place { sector: self.data_sector };
        let lengths = EntryError::Lengths { data_bytes, parity_bytes };
        let (chunk, disks) = (geometry.chunk_sectors(), u64_of(geometry.data_disks()));
        let sector = self.data_sector;
        let end = geometry.array_sectors(member_sectors).unwrap_or(0);
        let found = Sector(sector);
        if sector >= end || !sector.is_multiple_of(block_sectors) {
            return Err(place);
        }
        let at = geometry.locate(found);
        let first = at.member_sector.0 % chunk;
        let (data, parity) = (u64::from(data_bytes), u64::from(parity_bytes));
        let (count, strips) = match parity {
            0 if at.data_index == 0 => (data / disks, disks),
            0 => return Err(lengths),
            each => (each, data / each),
        };
        let whole =
            count > 0 && count.is_multiple_of(SECTOR) && count.checked_mul(strips) == Some(data);
        let (rows, strips) = (first..first + count / SECTOR, usize_of(strips));
        let last = at.data_index.saturating_add(strips);
        if !whole || strips == 0 || rows.end > chunk || last > geometry.data_disks() {
            return Err(lengths);
        }
        let expected = geometry.p_slot(at.stripe);
        if u64::from(self.parity_slot) != u64_of(expected) {
            return Err(EntryError::Slot { found: self.parity_slot, expected });
        }
        Ok(Update { stripe: at.stripe, rows, strips: at.data_index..last })
    }
}

impl Update {
    /// The member sectors that its rows are.
    #[must_use]
    pub fn member_sectors(&self, geometry: &Geometry) -> Range<u64> {
        let start = geometry.strip_start(self.stripe).0;
        start + self.rows.start..start + self.rows.end
    }
}

/// What an array that was not closed is to be given by its logs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// What was about to be written, with the partial parity to make parity from.
    pub updates: Vec<(Update, Vec<u8>)>,
    /// Of what was about to be written the log does not give parity any more: it was never finished, and
    /// then nothing was written, or it is damaged. Parity is made from the data, if all of it is there.
    pub unlogged: Vec<Update>,
}

/// Why the logs do not say what was being written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unproven {
    /// A member has none that is believed.
    #[error("the member in slot {slot} has no partial parity log that can be believed")]
    Log {
        /// Its slot.
        slot: usize,
    },
    /// An entry that means nothing.
    #[error("in the partial parity log of slot {slot}: {why}")]
    Entry {
        /// The slot of the log's member.
        slot: usize,
        /// What is wrong.
        why: EntryError,
    },
}

impl Plan {
    /// What the logs of the members say, each with its slot; none, if it cannot be believed.
    ///
    /// # Errors
    /// [`Unproven`]: anything may have been in the middle of being written.
    pub fn new<'a>(
        geometry: &Geometry,
        member_sectors: u64,
        block_sectors: u64,
        logs: impl Iterator<Item = (usize, Option<&'a Log>)>,
    ) -> Result<Self, Unproven> {
        let mut plan = Self::default();
        for (slot, log) in logs {
            let log = log.ok_or(Unproven::Log { slot })?;
            for logged in &log.last().entries {
                let update = logged.entry.update(geometry, member_sectors, block_sectors);
                let update = update.map_err(|why| Unproven::Entry { slot, why })?;
                if usize_of(logged.entry.parity_slot.into()) != slot {
                    let why = EntryError::Slot { found: logged.entry.parity_slot, expected: slot };
                    return Err(Unproven::Entry { slot, why });
                }
                plan.add(update, logged);
            }
        }
        Ok(plan)
    }

    fn add(&mut self, update: Update, logged: &Logged) {
        if logged.is_intact() {
            self.updates.push((update, logged.parity.clone()));
        } else {
            self.unlogged.push(update);
        }
    }

    /// Everything that was about to be written.
    pub fn all(&self) -> impl Iterator<Item = &Update> {
        self.updates.iter().map(|(update, _)| update).chain(&self.unlogged)
    }

    /// The member sectors in which a missing member's blocks cannot be told from the others: it is one of
    /// several that were being written at once. `has` says who is there.
    pub fn lost<'a>(
        &'a self,
        geometry: &'a Geometry,
        has: impl Fn(usize) -> bool + 'a,
    ) -> impl Iterator<Item = Range<u64>> + 'a {
        let lost = move |update: &&Update| update.loses(geometry, &has);
        let updates = self.updates.iter().map(|(update, _)| update).filter(lost);
        updates.map(|update| update.member_sectors(geometry))
    }
}

impl Update {
    /// Whether a member is missing that was being written together with others.
    pub fn loses(&self, geometry: &Geometry, has: impl Fn(usize) -> bool) -> bool {
        let mut slots = self.strips.clone().map(|strip| geometry.data_slot(self.stripe, strip));
        self.strips.len() > 1 && slots.any(|slot| !has(slot)) && has(geometry.p_slot(self.stripe))
    }
}
