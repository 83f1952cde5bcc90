//! What the payloads of a journal amount to: for each row, where its newest blocks are.

use super::{BLOCK_SECTORS, Payload};
use crate::geometry::{Geometry, Strip};
use std::collections::BTreeMap;
use units::{Sector, u64_of};

/// A block in the journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    /// Where it begins in the ring, in sectors.
    pub at: u64,
    /// Its checksum, by the array's [`Seed`](super::Seed).
    pub checksum: u32,
}

/// What the journal holds of one row; at most one block of each slot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Row {
    /// What belongs home, by slots: data and the parity that goes with it. What it does not name is at
    /// home already.
    pub complete: Vec<(usize, Place)>,
    /// Newer data without parity, by slots: home, and `complete` over it, agree without it.
    pub data_only: Vec<(usize, Place)>,
}

/// Why a payload means nothing in an array of this shape.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Senseless {
    /// It lies outside the array, or across its rows.
    #[error("data for array sector {sector}, which is no row's of the array")]
    Data {
        /// Where it says that it belongs.
        sector: u64,
    },
    /// It names no row of the array.
    #[error("row {row}, expected a multiple of {BLOCK_SECTORS} below {end}")]
    Row {
        /// What it names, in sectors of a member's data.
        row: u64,
        /// Where those end.
        end: u64,
    },
    /// The level keeps another number of parities.
    #[error("{found} blocks of parity, expected {expected}")]
    Parity {
        /// How many it has.
        found: usize,
        /// How many there are.
        expected: usize,
    },
}

/// What a journal holds of an array.
#[derive(Clone, Debug)]
pub struct Rows {
    geometry: Geometry,
    member_sectors: u64,
    rows: BTreeMap<u64, Row>,
}

impl Rows {
    /// Nothing yet, of an array of this shape, which uses so many sectors of each member.
    #[must_use]
    pub const fn new(geometry: Geometry, member_sectors: u64) -> Self {
        Self { geometry, member_sectors, rows: BTreeMap::new() }
    }

    /// Every row of which the journal holds something, by its first sector in a member's data.
    pub fn iter(&self) -> impl Iterator<Item = (Sector, &Row)> {
        self.rows.iter().map(|(&row, found)| (Sector(row), found))
    }

    /// What the journal holds of the row that begins at this sector of a member's data.
    #[must_use]
    pub fn row(&self, row: Sector) -> Option<&Row> {
        self.rows.get(&row.0)
    }

    /// The blocks that belong home to the member of `slot`: sector in its data, and where it is.
    pub fn of_slot(&self, slot: usize) -> impl Iterator<Item = (Sector, Place)> {
        let own = move |(holder, _): &&(usize, Place)| *holder == slot;
        self.iter().flat_map(move |(row, found)| {
            found.complete.iter().filter(own).map(move |&(_, place)| (row, place))
        })
    }

    /// The blocks of data without parity: sector in the array, and where it is. In no order.
    pub fn data_only(&self) -> impl Iterator<Item = (Sector, Place)> {
        let (shape, chunk) = (self.geometry, self.geometry.chunk_sectors());
        self.iter().flat_map(move |(row, found)| {
            let (stripe, offset) = (row.0 / chunk, row.0 % chunk);
            // Parity never comes into this list.
            found.data_only.iter().filter_map(move |&(slot, place)| {
                match shape.strip(stripe, slot) {
                    Strip::Data(index) => Some((shape.array_sector(stripe, index, offset), place)),
                    Strip::P | Strip::Q => None,
                }
            })
        })
    }

    /// How many blocks it holds that count.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        let of_row = |row: &Row| u64_of(row.complete.len() + row.data_only.len());
        self.rows.values().map(of_row).sum()
    }

    /// Adds a payload, whose first block lies at `at`; `next` is where the block after another does.
    ///
    /// # Errors
    /// [`Senseless`]; then nothing was added.
    pub(super) fn add(
        &mut self,
        payload: &Payload,
        at: u64,
        next: impl Fn(u64) -> u64,
    ) -> Result<(), Senseless> {
        self.check(payload)?;
        let mut at = at;
        let mut places = |checksums: &[u32]| {
            let place = |&checksum: &u32| {
                let place = Place { at, checksum };
                at = next(at);
                place
            };
            checksums.iter().map(place).collect::<Vec<Place>>()
        };
        match payload {
            Payload::Data { sector, checksums } => {
                for (place, index) in places(checksums).into_iter().zip(0..) {
                    let spot = self.geometry.locate(Sector(sector.0 + index * BLOCK_SECTORS));
                    let row = self.rows.entry(spot.member_sector.0).or_default();
                    put(&mut row.data_only, spot.slot, place);
                }
            }
            Payload::Parity { row: start, checksums } => {
                let stripe = start.0 / self.geometry.chunk_sectors();
                let slots = [Some(self.geometry.p_slot(stripe)), self.geometry.q_slot(stripe)];
                let row = self.rows.entry(start.0).or_default();
                for (slot, place) in std::mem::take(&mut row.data_only) {
                    put(&mut row.complete, slot, place);
                }
                for (slot, place) in slots.into_iter().flatten().zip(places(checksums)) {
                    put(&mut row.complete, slot, place);
                }
            }
            Payload::Flush { rows } => rows.iter().for_each(|row| {
                self.rows.remove(&row.0);
            }),
        }
        Ok(())
    }

    fn check(&self, payload: &Payload) -> Result<(), Senseless> {
        let end = self.member_sectors;
        let is_row = |row: u64| row.is_multiple_of(BLOCK_SECTORS) && row < end;
        match payload {
            Payload::Data { sector, checksums } => {
                let length = u64_of(checksums.len()).checked_mul(BLOCK_SECTORS);
                let last = length.and_then(|length| sector.0.checked_add(length));
                let all = self.geometry.array_sectors(end).unwrap_or(0);
                let fits = sector.0.is_multiple_of(BLOCK_SECTORS);
                let fits = fits && last.is_some_and(|last| last <= all);
                if fits { Ok(()) } else { Err(Senseless::Data { sector: sector.0 }) }
            }
            Payload::Parity { row, checksums } => {
                let (found, expected) = (checksums.len(), self.geometry.level().parity_count());
                if !is_row(row.0) {
                    return Err(Senseless::Row { row: row.0, end });
                }
                if found == expected { Ok(()) } else { Err(Senseless::Parity { found, expected }) }
            }
            Payload::Flush { rows } => match rows.iter().find(|row| !is_row(row.0)) {
                Some(row) => Err(Senseless::Row { row: row.0, end }),
                None => Ok(()),
            },
        }
    }
}

/// The newest block of a slot takes the place of any before.
fn put(blocks: &mut Vec<(usize, Place)>, slot: usize, place: Place) {
    match blocks.iter_mut().find(|(holder, _)| *holder == slot) {
        Some((_, old)) => *old = place,
        None => blocks.push((slot, place)),
    }
}
