//! An array in the middle of a change of shape: which sectors have the old shape, which the new.
//!
//! ```text
//!   towards the end (more members)              backwards (fewer members)
//!
//!   0            position            end        0            position            end
//!   |    after    |      before       |         |   before    |       after       |
//! ```
//! Positions are sectors of the array. The superblock is written before what it vouches for is
//! overwritten, so each sector is whole on the side that the freshest superblock puts it on. That
//! holds where old and new strips lie at different data offsets, and where the new shape has more
//! or fewer data strips and the position is far enough from where the change began: there, the old
//! strip that a new one overwrites has been copied before. Elsewhere a backup file outside of the
//! array holds what was being moved, and the members alone are not enough
//! ([`ReshapeError::Backup`]).
//!
//! Source: the md specification, section 16.

use crate::assemble::CannotStart;
use crate::geometry::{Geometry, ParityLevel};
use crate::superblock::{Features, Reshape, Superblock};
use std::fmt;
use units::{Sector, u64_of};

/// Why an array in the middle of a change of shape cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReshapeError {
    /// From or to a level that keeps no parity, or between levels: md changes the level first.
    #[error("a reshape from level {from} to {to} is not implemented")]
    Level {
        /// Number of the level before.
        from: i32,
        /// Number of the level afterwards.
        to: i32,
    },
    /// The members before would be none.
    #[error("a reshape by {delta} members to {disks}")]
    Disks {
        /// Members afterwards minus members before.
        delta: i32,
        /// Members afterwards.
        disks: u32,
    },
    /// What was being moved is in the backup file of the tool that started it.
    #[error(
        "a reshape in place at sector {position}: what was being moved is in its backup file, \
         which is not read here"
    )]
    Backup {
        /// Array sector up to which it has come.
        position: u64,
    },
}

/// Both shapes of an array, and where they meet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sides {
    /// Array sector where they meet: a whole number of chunks.
    pub position: Sector,
    /// Which shape lies below it.
    pub backwards: bool,
    /// The shape before.
    pub before: Geometry,
    /// The shape afterwards.
    pub after: Geometry,
}

impl Sides {
    /// The shape of array sector `sector`, and whether that is the one afterwards.
    #[must_use]
    pub fn at(&self, sector: Sector) -> (Geometry, bool) {
        let after = (sector < self.position) != self.backwards;
        (if after { self.after } else { self.before }, after)
    }

    /// Slots that one of the shapes has.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.before.raid_disks().max(self.after.raid_disks())
    }

    /// Sectors of the array while its shape changes: the fewer, of members that hold
    /// `member_sectors` each. `None` if a product leaves 64 bits.
    #[must_use]
    pub fn array_sectors(&self, member_sectors: u64) -> Option<u64> {
        // Only stripes that are whole in both shapes are used.
        let chunk = self.before.chunk_sectors().max(self.after.chunk_sectors());
        let member_sectors = member_sectors / chunk * chunk;
        let before = self.before.array_sectors(member_sectors)?;
        Some(before.min(self.after.array_sectors(member_sectors)?))
    }

    /// Whether new strips may have overwritten old ones that were not copied yet, at equal data
    /// offsets: one stripe around where the change began is moved through a backup file, and with
    /// as many data strips as before, every one is.
    fn needs_backup(&self, array_sectors: u64) -> bool {
        let (before, after) = (self.before.data_disks(), self.after.data_disks());
        let chunk = self.before.chunk_sectors().max(self.after.chunk_sectors());
        let widest = u64_of(before.max(after)) * chunk;
        // The strips of the new shape have left those of the old one behind once the position
        // is so far that a stripe of each lies between them.
        let apart = widest.saturating_mul(u64_of(before.max(after)));
        let moved = if self.backwards {
            array_sectors.saturating_sub(self.position.0)
        } else {
            self.position.0
        };
        before == after || moved < apart
    }
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |shape: &Geometry| {
            format!("{} members of {} KiB chunks", shape.raid_disks(), shape.chunk_sectors() / 2)
        };
        let (before, after) = (shape(&self.before), shape(&self.after));
        let towards = if self.backwards { "backwards " } else { "" };
        write!(f, "a reshape {towards}from {before} to {after} stands at sector {}", self.position)
    }
}

impl Superblock {
    /// First sector of the array's data on the member in the shape afterwards.
    #[must_use]
    pub fn data_offset_after(&self) -> Option<Sector> {
        let moved =
            if self.features().contains(Features::NEW_OFFSET) { self.new_offset() } else { 0 };
        self.data_offset().0.checked_add_signed(i64::from(moved)).map(Sector)
    }

    /// Both shapes of an array whose shape is being changed; `None` for others.
    ///
    /// # Errors
    /// [`CannotStart`] if one of them is impossible, or the members are not enough to read it.
    pub fn sides(&self) -> Option<Result<Sides, CannotStart>> {
        self.reshape().map(|reshape| self.both_sides(&reshape))
    }

    fn both_sides(&self, reshape: &Reshape) -> Result<Sides, CannotStart> {
        let (from, to) = (self.level().number(), reshape.level.number());
        let level = ParityLevel::from_level(from).filter(|_| from == to);
        let level = level.ok_or(ReshapeError::Level { from, to })?;
        let (disks, delta) = (self.raid_disks(), reshape.delta_disks);
        let before = disks.checked_add_signed(delta.wrapping_neg());
        let before = before.filter(|_| delta != i32::MIN);
        let before = before.ok_or(ReshapeError::Disks { delta, disks })?;
        let sides = Sides {
            position: reshape.position,
            backwards: delta < 0 || self.features().contains(Features::RESHAPE_BACKWARDS),
            before: Geometry::new(level, self.layout(), self.chunk_sectors(), before)?,
            after: Geometry::new(level, reshape.layout, reshape.chunk_sectors, disks)?,
        };
        let size = self.size();
        let sectors = sides.array_sectors(size).ok_or(CannotStart::Size { size })?;
        let in_place = self.data_offset_after() == Some(self.data_offset());
        if in_place && sides.needs_backup(sectors) {
            return Err(ReshapeError::Backup { position: reshape.position.0 }.into());
        }
        Ok(sides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sides(before: u32, after: u32, position: u64, backwards: bool) -> Sides {
        let shape = |disks| Geometry::new(ParityLevel::Raid5, 2, 128, disks).unwrap();
        let position = Sector(position);
        Sides { position, backwards, before: shape(before), after: shape(after) }
    }

    #[test]
    fn below_the_position_is_the_new_shape_unless_it_runs_backwards() {
        let growing = sides(4, 5, 1024, false);
        assert_eq!(growing.at(Sector(1023)), (growing.after, true));
        assert_eq!(growing.at(Sector(1024)), (growing.before, false));
        let shrinking = sides(5, 4, 1024, true);
        assert_eq!(shrinking.at(Sector(1023)), (shrinking.before, false));
        assert_eq!(shrinking.at(Sector(1024)), (shrinking.after, true));
        assert_eq!((growing.slots(), shrinking.slots()), (5, 5));
    }

    #[test]
    fn the_array_is_as_large_as_its_smaller_shape() {
        assert_eq!(sides(4, 5, 0, false).array_sectors(1000), Some(7 * 128 * 3));
        assert_eq!(sides(5, 4, 0, true).array_sectors(1000), Some(7 * 128 * 3));
    }

    proptest! {
        /// At equal data offsets, in the model that the module's head describes: everything on the
        /// new side is stored before the position is recorded, and the strips there overwrite old
        /// ones. What the old side still needs must not be among them.
        #[test]
        fn what_needs_no_backup_file_was_not_overwritten(
            before in 3u32..9, delta in -3i32..4, stripe in 0u64..200,
        ) {
            let Some(after) = before.checked_add_signed(delta).filter(|&after| after >= 3) else {
                return Ok(());
            };
            let backwards = delta < 0;
            let mut sides = sides(before, after, 0, backwards);
            let total = sides.array_sectors(200 * 128).unwrap();
            sides.position = Sector(stripe * sides.after.stripe_sectors()).min(Sector(total));
            if !sides.needs_backup(total) {
                let position = sides.position;
                if backwards {
                    // The new side is [position, end): its rows, and the last row still needed.
                    let first_new = sides.after.locate(position).stripe;
                    let last_old = sides.before.locate(Sector(position.0.max(1) - 1)).stripe;
                    prop_assert!(last_old < first_new || position.0 == 0, "{sides:?}");
                } else {
                    let last_new = sides.after.locate(Sector(position.0.max(1) - 1)).stripe;
                    let first_old = sides.before.locate(position).stripe;
                    prop_assert!(last_new < first_old, "{sides:?}");
                }
            }
        }
    }

    #[test]
    fn moved_in_place_with_as_many_data_strips_everything_needs_the_backup() {
        assert!(sides(4, 4, 1 << 20, false).needs_backup(1 << 21));
        assert!(sides(4, 5, 128, false).needs_backup(1 << 21), "too near the start");
        assert!(!sides(4, 5, 1 << 20, false).needs_backup(1 << 21));
    }
}
