//! What a set of members amounts to: who takes part, who is left out and why, and what the array
//! may then be used for.
//!
//! The freshest member (highest event count) decides. A member takes part if its own view and the
//! freshest view agree and it is at most one event older: superblocks are written one after the
//! other, so a crash in between leaves exactly that. Nothing here does I/O or changes anything;
//! members are named by their index among the candidates.
//!
//! Stricter than md where md would guess: two members that both claim a slot, members of two
//! arrays, and copies of one member are refused as ambiguous instead of picking one, and a member
//! whose own role is not the one the freshest table gives it is left out.
//!
//! Source: the md specification, section 15.

use crate::geometry::{GeometryError, MirrorsError, StripesError};
use crate::reshape::ReshapeError;
use crate::shape::{Shape, Tolerance};
use crate::superblock::{
    Features, Level, ResyncOffset, Role, SLOTS_MAX, Superblock, SuperblockError, Uuid,
};
use std::mem;
use units::{Sector, usize_of};

/// A member as it was found.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its superblock.
    pub superblock: &'a Superblock,
    /// Its length in sectors.
    pub device_sectors: u64,
}

/// What holds a slot of the array.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slot {
    /// Nobody.
    Missing,
    /// This member, complete.
    InSync(usize),
    /// This member, filled only below a sector (counted from the start of its data): the slot
    /// counts as missing.
    Rebuilding {
        /// The member.
        member: usize,
        /// Where its content ends.
        filled: Sector,
    },
}

/// Why a member takes no part.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LeftOut {
    /// md would not take it either.
    #[error("its superblock is refused: {0}")]
    Refused(#[from] SuperblockError),
    /// It missed changes that the others saw.
    #[error("stale: it is at event {events}, the freshest member at {newest}")]
    Stale {
        /// Its event count.
        events: u64,
        /// The freshest.
        newest: u64,
    },
    /// The freshest member says that it failed or was missing.
    #[error("stale: the freshest member counts it as {0}")]
    Dropped(Role),
    /// It says that the freshest member failed: two halves of the array ran apart.
    #[error("it counts the freshest member as {0}: the array ran in two halves")]
    Diverged(Role),
    /// What it says of the array is not what the freshest member says.
    #[error("its {field} is {found}, the freshest member's {expected}")]
    Disagrees {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: i128,
        /// The freshest member's value.
        expected: i128,
    },
    /// Its own role is not the one that the freshest member gives it.
    #[error("it takes itself for {own}, the freshest member takes it for {expected}")]
    Role {
        /// Its own view.
        own: Role,
        /// The freshest member's.
        expected: Role,
    },
    /// Its slot does not exist.
    #[error("it claims slot {slot} of {raid_disks}")]
    Slot {
        /// The slot.
        slot: u16,
        /// Slots of the array.
        raid_disks: u32,
    },
}

/// Why the candidates are not one array at all.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AssembleError {
    /// There are none.
    #[error("no members")]
    NoMembers,
    /// They belong to different arrays.
    #[error("members of two arrays: {} and {}", .uuids[0], .uuids[1])]
    MixedArrays {
        /// One of each.
        members: [usize; 2],
        /// The two arrays.
        uuids: [Uuid; 2],
    },
    /// One member was given twice, or copied.
    #[error("the same member twice: device {device_uuid}")]
    SameMember {
        /// Both.
        members: [usize; 2],
        /// What they both say they are.
        device_uuid: Uuid,
    },
    /// Two fresh members claim one slot.
    #[error("two members claim slot {slot}")]
    SameSlot {
        /// Both.
        members: [usize; 2],
        /// The slot.
        slot: u16,
    },
    /// Nobody holds data.
    #[error("none of the members can be used")]
    NoneUsable {
        /// Why each was left out.
        left_out: Vec<(usize, LeftOut)>,
    },
}

/// Why the array must not be started as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CannotStart {
    /// Too little is left.
    #[error("{missing} of {raid_disks} members are missing, {level} survives {allowed}")]
    Missing {
        /// Slots without a complete member.
        missing: u32,
        /// Slots of the array.
        raid_disks: u32,
        /// The level.
        level: Level,
        /// How many may be missing.
        allowed: u32,
    },
    /// Every copy of something is missing.
    #[error(
        "{missing} of {raid_disks} members are missing, and with them every copy of array sector \
         {sector}"
    )]
    MissingCopies {
        /// Slots without a complete member.
        missing: u32,
        /// Slots of the array.
        raid_disks: u32,
        /// The first sector that nobody has.
        sector: u64,
    },
    /// A crash and a missing member at once: stripes that were being written cannot be told from
    /// the others, and the missing member's blocks in them cannot be trusted (the write hole).
    #[error(
        "degraded and not closed cleanly: the missing member's blocks in stripes that were being \
         written when it stopped cannot be trusted"
    )]
    DirtyAndDegraded,
    /// The newest data may be in the journal device only. Superblocks say nothing of that: they call such
    /// an array clean at all times.
    #[error("its journal device is missing or stale, and what was written last may be only in it")]
    JournalMissing,
    /// A change of shape is under way that cannot be read across.
    #[error(transparent)]
    Reshape(#[from] ReshapeError),
    /// Not a level that is implemented.
    #[error("{0} is not implemented")]
    Level(Level),
    /// The level's shape is impossible.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// The same of RAID 10.
    #[error(transparent)]
    Mirrors(#[from] MirrorsError),
    /// The same of linear and RAID 0.
    #[error(transparent)]
    Stripes(#[from] StripesError),
    /// The size is zero or leaves 64 bits.
    #[error("{size} sectors of each member make no usable size")]
    Size {
        /// Sectors used of each member.
        size: u64,
    },
}

impl CannotStart {
    /// Whether an operator may accept the consequences and start it all the same.
    #[must_use]
    pub const fn forceable(&self) -> bool {
        matches!(self, Self::DirtyAndDegraded | Self::JournalMissing)
    }
}

/// Why the array must not be written: something on disk would become untrue.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} is not implemented for writing{}", .feature, match .member { Some(member) => format!(" (member {member})"), None => String::new() })]
pub struct CannotWrite {
    /// What it is, in md's words.
    pub feature: &'static str,
    /// Whose, if it is one member's; an index among the candidates.
    pub member: Option<usize>,
}

/// What a set of members amounts to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Assembly {
    /// The freshest member, whose superblock speaks for the array.
    pub newest: usize,
    /// Who holds each slot.
    pub slots: Vec<Slot>,
    /// Members that hold nothing yet.
    pub spares: Vec<usize>,
    /// Members that are the array's journal.
    pub journals: Vec<usize>,
    /// Members that are being filled to replace the holder of their slot, which is there.
    pub replacements: Vec<usize>,
    /// Members that take no part, and why.
    pub left_out: Vec<(usize, LeftOut)>,
    /// How far redundancy is known to be true.
    pub resync: ResyncOffset,
    /// Empty if the array may be started.
    pub cannot_start: Vec<CannotStart>,
    /// Empty if the array may be written.
    pub cannot_write: Vec<CannotWrite>,
}

impl Assembly {
    /// Slots without a complete member.
    #[must_use]
    pub fn missing_count(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot, Slot::InSync(_))).count()
    }

    /// The complete members, with their slots, in order of slots.
    pub fn in_sync(&self) -> impl Iterator<Item = (usize, usize)> {
        self.slots.iter().enumerate().filter_map(|(slot, holder)| match holder {
            Slot::InSync(member) => Some((slot, *member)),
            Slot::Missing | Slot::Rebuilding { .. } => None,
        })
    }
}

/// What `candidates` amount to.
///
/// # Errors
/// [`AssembleError`] if they are not one array, or it is ambiguous who is who.
pub fn assemble(candidates: &[Candidate<'_>]) -> Result<Assembly, AssembleError> {
    assemble_by(candidates, place)
}

/// What `candidates` would amount to if each held the slot that it claims, whatever the others say of
/// it and however old it is: what reading the array could give with exactly these members.
///
/// # Errors
/// As [`assemble`].
pub fn assemble_as_given(candidates: &[Candidate<'_>]) -> Result<Assembly, AssembleError> {
    assemble_by(candidates, place_as_given)
}

fn assemble_by(
    candidates: &[Candidate<'_>],
    place: fn(&Superblock, &Superblock) -> Result<Role, LeftOut>,
) -> Result<Assembly, AssembleError> {
    one_array_of_different_members(candidates)?;
    let mut left_out = Vec::new();
    let mut valid = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        match candidate.superblock.validate(candidate.device_sectors) {
            Ok(()) => valid.push(index),
            Err(error) => left_out.push((index, LeftOut::Refused(error))),
        }
    }
    let of = |index: usize| candidates[index].superblock;
    // Spares do not follow the array's events; only a member with a slot can speak for it.
    let holders = valid.iter().filter(|&&index| matches!(of(index).role(), Some(Role::Active(_))));
    // Among equals the first: they say the same but for a crash that `resync` below allows for.
    let Some(&newest) = holders.rev().max_by_key(|&&index| of(index).events()) else {
        return Err(AssembleError::NoneUsable { left_out });
    };

    let freshest = of(newest);
    let mut assembly = Assembly {
        newest,
        slots: vec![Slot::Missing; usize_of(u64::from(freshest.slots()))],
        spares: Vec::new(),
        journals: Vec::new(),
        replacements: Vec::new(),
        left_out,
        resync: freshest.resync(),
        cannot_start: Vec::new(),
        cannot_write: Vec::new(),
    };
    for index in valid {
        match place(freshest, of(index)) {
            Ok(Role::Active(slot)) => assembly.seat(index, slot, of(index))?,
            Ok(Role::Journal) => assembly.journals.push(index),
            Ok(_) => assembly.spares.push(index),
            Err(why) => assembly.left_out.push((index, why)),
        }
    }
    assembly.left_out.sort_by_key(|(index, _)| *index);
    assembly.promote(candidates)?;
    for (_, member) in assembly.in_sync().collect::<Vec<_>>() {
        if of(member).events() == freshest.events() {
            assembly.resync = assembly.resync.least(of(member).resync());
        }
    }
    assembly.judge(candidates);
    Ok(assembly)
}

fn one_array_of_different_members(candidates: &[Candidate<'_>]) -> Result<(), AssembleError> {
    let first = candidates.first().ok_or(AssembleError::NoMembers)?.superblock;
    for (index, candidate) in candidates.iter().enumerate() {
        let uuids = [first.set_uuid(), candidate.superblock.set_uuid()];
        if uuids[0] != uuids[1] {
            return Err(AssembleError::MixedArrays { members: [0, index], uuids });
        }
        let device_uuid = candidate.superblock.device_uuid();
        let earlier = candidates[..index]
            .iter()
            .position(|earlier| earlier.superblock.device_uuid() == device_uuid);
        if let Some(earlier) = earlier {
            return Err(AssembleError::SameMember { members: [earlier, index], device_uuid });
        }
    }
    Ok(())
}

/// The role that `member` takes in the array of which `freshest` speaks.
fn place(freshest: &Superblock, member: &Superblock) -> Result<Role, LeftOut> {
    let own = member.role().unwrap_or(Role::Faulty);
    let expected = freshest.role_of(member.dev_number()).unwrap_or(Role::Faulty);
    // Spares do not follow the events; whoever claims a slot must.
    if own == Role::Spare && matches!(expected, Role::Spare | Role::Active(_)) {
        return agree(freshest, member).map(|()| Role::Spare);
    }
    let (events, newest) = (member.events(), freshest.events());
    if events.saturating_add(1) < newest {
        return Err(LeftOut::Stale { events, newest });
    }
    agree(freshest, member)?;
    match expected {
        Role::Faulty | Role::Spare => return Err(LeftOut::Dropped(expected)),
        _ if own != expected => return Err(LeftOut::Role { own, expected }),
        _ => {}
    }
    if let Some(view @ (Role::Faulty | Role::Spare)) = member.role_of(freshest.dev_number()) {
        return Err(LeftOut::Diverged(view));
    }
    match own {
        Role::Active(slot) if u32::from(slot) >= freshest.slots() => {
            Err(LeftOut::Slot { slot, raid_disks: freshest.slots() })
        }
        Role::Unknown(_) => Err(LeftOut::Role { own, expected: Role::Spare }),
        placed => Ok(placed),
    }
}

/// The role that `member` claims in the array of which `freshest` speaks.
fn place_as_given(freshest: &Superblock, member: &Superblock) -> Result<Role, LeftOut> {
    agree(freshest, member)?;
    match member.role() {
        Some(Role::Active(slot)) if u32::from(slot) >= freshest.slots() => {
            Err(LeftOut::Slot { slot, raid_disks: freshest.slots() })
        }
        Some(placed @ (Role::Active(_) | Role::Journal)) => Ok(placed),
        _ => Ok(Role::Spare),
    }
}

/// Whether both describe the same array.
pub(crate) fn agree(freshest: &Superblock, member: &Superblock) -> Result<(), LeftOut> {
    let fields = |superblock: &Superblock| {
        [
            ("level", i128::from(superblock.level().number())),
            ("layout", i128::from(superblock.layout())),
            ("chunk", i128::from(superblock.chunk_sectors())),
            ("raid_disks", i128::from(superblock.raid_disks())),
            ("size", i128::from(superblock.size())),
        ]
    };
    for ((field, expected), (_, found)) in fields(freshest).into_iter().zip(fields(member)) {
        if expected != found {
            return Err(LeftOut::Disagrees { field, found, expected });
        }
    }
    Ok(())
}

impl Assembly {
    fn seat(
        &mut self,
        member: usize,
        slot: u16,
        superblock: &Superblock,
    ) -> Result<(), AssembleError> {
        if superblock.features().contains(Features::REPLACEMENT) {
            self.replacements.push(member);
            return Ok(());
        }
        self.hold(member, slot, superblock)
    }

    /// Replacements whose holder is gone hold the slot from now on, as far as they are filled.
    fn promote(&mut self, candidates: &[Candidate<'_>]) -> Result<(), AssembleError> {
        let role = |member: usize| candidates[member].superblock.role();
        let mut seen: Vec<(usize, u16)> = Vec::new();
        for member in mem::take(&mut self.replacements) {
            let Some(Role::Active(slot)) = role(member) else { continue };
            if let Some(&(other, _)) = seen.iter().find(|(_, taken)| *taken == slot) {
                return Err(AssembleError::SameSlot { members: [other, member], slot });
            }
            seen.push((member, slot));
            if self.slots[usize::from(slot)] == Slot::Missing {
                self.hold(member, slot, candidates[member].superblock)?;
            } else {
                self.replacements.push(member);
            }
        }
        Ok(())
    }

    fn hold(
        &mut self,
        member: usize,
        slot: u16,
        superblock: &Superblock,
    ) -> Result<(), AssembleError> {
        let holder = &mut self.slots[usize::from(slot)];
        if let Slot::InSync(other) | Slot::Rebuilding { member: other, .. } = *holder {
            return Err(AssembleError::SameSlot { members: [other, member], slot });
        }
        *holder = match superblock.recovery_offset() {
            Some(filled) => Slot::Rebuilding { member, filled },
            None => Slot::InSync(member),
        };
        Ok(())
    }

    /// Slots without a complete member, of the first `raid_disks`.
    fn missing_among(&self, raid_disks: u32) -> u32 {
        let slots = self.slots.iter().take(usize_of(raid_disks.into()));
        let missing = slots.filter(|slot| !matches!(slot, Slot::InSync(_))).count();
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Whether the array has a shape, and that all it needs is there.
    fn refuse_shape(
        &self,
        freshest: &Superblock,
        candidates: &[Candidate<'_>],
    ) -> Result<(), CannotStart> {
        let level = freshest.level();
        // In the middle of a reshape, the shape that fares worse.
        let (missing, raid_disks) = freshest
            .shapes()
            .map(|raid_disks| (self.missing_among(raid_disks), raid_disks))
            .max()
            .expect("there is a shape");
        if let Some(allowed) = level.missing_max(raid_disks).filter(|&allowed| missing > allowed) {
            return Err(CannotStart::Missing { missing, raid_disks, level, allowed });
        }
        if let Some(sides) = freshest.sides() {
            return sides.map(drop);
        }
        let tolerance = self.shape(candidates)?.tolerance();
        let is_missing = |slot: usize| !matches!(self.slots[slot], Slot::InSync(_));
        match tolerance {
            Tolerance::Any(_) => Ok(()),
            Tolerance::Copies(mirrors) => match mirrors.first_lost(is_missing) {
                None => Ok(()),
                Some(Sector(sector)) => {
                    Err(CannotStart::MissingCopies { missing, raid_disks, sector })
                }
            },
        }
    }

    /// The array's shape; in the middle of a reshape, the one afterwards.
    ///
    /// # Errors
    /// [`CannotStart`] if it is impossible, or, without redundancy, a member is missing.
    pub fn shape(&self, candidates: &[Candidate<'_>]) -> Result<Shape, CannotStart> {
        let data_sizes =
            self.in_sync().map(|(_, member)| candidates[member].superblock.data_size());
        candidates[self.newest].superblock.shape(&data_sizes.collect::<Vec<u64>>())
    }

    fn judge(&mut self, candidates: &[Candidate<'_>]) {
        let freshest = candidates[self.newest].superblock;
        let dirty = self.resync != ResyncOffset::Clean;
        let features = freshest.features();
        if features.contains(Features::JOURNAL) && self.journals.is_empty() {
            self.cannot_start.push(CannotStart::JournalMissing);
        }
        if let Err(why) = self.refuse_shape(freshest, candidates) {
            self.cannot_start.push(why);
        } else if dirty && freshest.level().has_parity() && self.missing_count() > 0 {
            self.cannot_start.push(CannotStart::DirtyAndDegraded);
        }

        for (bit, feature) in ARRAY_FEATURES {
            let is_here = *bit == Features::JOURNAL && !self.journals.is_empty();
            if features.contains(*bit) && !is_here {
                self.cannot_write.push(CannotWrite { feature, member: None });
            }
        }
        if freshest.ppl().is_some() && freshest.level() != Level::Raid5 {
            let feature = "a partial parity log of another level than RAID 5";
            self.cannot_write.push(CannotWrite { feature, member: None });
        }
    }
}

impl Superblock {
    /// The slots of each shape that the array has: one, or two in the middle of a reshape.
    fn shapes(&self) -> impl Iterator<Item = u32> {
        let before = self.reshape().map(|reshape| {
            self.raid_disks().saturating_add_signed(reshape.delta_disks.saturating_neg())
        });
        before.into_iter().chain([self.raid_disks()]).map(|slots| slots.min(SLOTS_MAX))
    }

    /// Slots that members may hold: those of the larger shape.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.shapes().max().expect("there is a shape")
    }
}

/// Features of the array that forbid writing as long as they are not maintained here.
const ARRAY_FEATURES: &[(Features, &str)] = &[
    (Features::JOURNAL, "an array without its journal device"),
    (Features::RESHAPE, "a reshape"),
    (Features::NEW_OFFSET, "a change of data offset"),
    (Features::RECOVERY_BITMAP, "a recovery guided by a bitmap"),
    (Features::CLUSTERED, "use by several hosts"),
];

#[cfg(test)]
mod tests;
