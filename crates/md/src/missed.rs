//! What a member missed that was away and comes back: what the write-intent bitmap says was written
//! meanwhile, if the bitmap can say that.
//!
//! Bits are set before anything is written, and none is cleared while a member is missing; the bitmap
//! knows since which event that is so. A member that left not before that event lacks nothing but what
//! the bits name. Everything else is doubt, and a member in doubt is filled whole.
//!
//! Source: the md specification, section 11.

use crate::assemble::{LeftOut, agree};
use crate::bitmap::Bitmap;
use crate::superblock::{Features, Role, Superblock, Uuid};
use std::ops::Range;
use units::Sector;

/// An array that runs without the member.
#[derive(Clone, Copy, Debug)]
pub struct Running<'a> {
    /// Of a member that takes part, as it is now.
    pub superblock: &'a Superblock,
    /// The array's bitmap, as it is now.
    pub bitmap: Option<&'a Bitmap>,
    /// Who takes part: device number and slot.
    pub members: &'a [(u32, usize)],
    /// The event count.
    pub events: u64,
    /// Whether the superblocks say that the member takes no part, with an event of its own. Else it may be
    /// as fresh as they are.
    pub recorded: bool,
}

/// Why the bitmap cannot say what a member missed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotByBitmap {
    /// There is none.
    #[error("the array has no write-intent bitmap")]
    NoBitmap,
    /// It belongs to another array.
    #[error("it belongs to array {found}, not to {expected}")]
    Array {
        /// Its array.
        found: Uuid,
        /// The one that runs.
        expected: Uuid,
    },
    /// The array had another shape when it left.
    #[error(transparent)]
    Shape(LeftOut),
    /// What lies beside the superblock was different when it left.
    #[error("its features are {found:#x}, expected {expected:#x}")]
    Features {
        /// Its feature map, of what all members have in common.
        found: u32,
        /// The others'.
        expected: u32,
    },
    /// It held no slot, or not all of what belongs there.
    #[error("it was not a complete member when it left")]
    Incomplete,
    /// Somebody else is in its slot.
    #[error("its slot {slot} is held")]
    Held {
        /// The slot.
        slot: u16,
    },
    /// Somebody else has its device number.
    #[error("its device number {number} is another member's")]
    Number {
        /// The number.
        number: u32,
    },
    /// Bits were cleared since it left.
    #[error("it left at event {events}, what was written is known only since event {cleared}")]
    Older {
        /// Its event count.
        events: u64,
        /// The bitmap's `events_cleared`.
        cleared: u64,
    },
    /// It was used without the others.
    #[error("it is at event {events}, and the array that it left at {newest}")]
    Newer {
        /// Its event count.
        events: u64,
        /// The array's.
        newest: u64,
    },
    /// The same: it says so.
    #[error("it was used without device {number}, which takes part here")]
    Diverged {
        /// The number.
        number: u32,
    },
}

/// The sectors of its data of which the member of superblock `own` may lack what the array holds; all
/// others are as they were when it left, and nobody wrote them since.
///
/// # Errors
/// [`NotByBitmap`]: then nothing on it is known to be of any use.
pub fn missed(own: &Superblock, running: &Running<'_>) -> Result<Vec<Range<u64>>, NotByBitmap> {
    let peer = running.superblock;
    let (found, expected) = (own.set_uuid(), peer.set_uuid());
    if found != expected {
        return Err(NotByBitmap::Array { found, expected });
    }
    agree(peer, own).map_err(NotByBitmap::Shape)?;
    let [found, expected] = [own, peer].map(|one| common(one.features()).0);
    if found != expected || own.roles().count() != peer.roles().count() {
        return Err(NotByBitmap::Features { found, expected });
    }
    let bitmap = running.bitmap.ok_or(NotByBitmap::NoBitmap)?;
    let slot = match own.role() {
        Some(Role::Active(slot)) if u32::from(slot) < own.slots() => slot,
        _ => return Err(NotByBitmap::Incomplete),
    };
    let replaces = own.features().contains(Features::REPLACEMENT);
    if replaces || own.recovery_offset().is_some() {
        return Err(NotByBitmap::Incomplete);
    }
    for &(number, held) in running.members {
        if held == usize::from(slot) {
            return Err(NotByBitmap::Held { slot });
        }
        if number == own.dev_number() {
            return Err(NotByBitmap::Number { number });
        }
        let there = own.role_of(number);
        if !matches!(there, Some(Role::Active(slot)) if usize::from(slot) == held) {
            return Err(NotByBitmap::Diverged { number });
        }
    }
    let (events, newest) = (own.events(), running.events);
    if events > newest || running.recorded && events == newest {
        return Err(NotByBitmap::Newer { events, newest });
    }
    let cleared = bitmap.header().events_cleared();
    if events < cleared {
        return Err(NotByBitmap::Older { events, cleared });
    }
    let slot = usize::from(slot);
    Ok(bitmap.dirty_sectors().flat_map(|sectors| on_member(peer, slot, sectors)).collect())
}

/// What all members of an array have in common.
const fn common(features: Features) -> Features {
    let own = [Features::BAD_BLOCKS, Features::RECOVERY_OFFSET, Features::REPLACEMENT];
    features.without(own[0]).without(own[1]).without(own[2])
}

/// What of the data of the member in `slot` belongs to `sectors`, as the bitmap counts them: sectors of
/// every member, or of the array for RAID 10. More of it where that would take long to say.
fn on_member(peer: &Superblock, slot: usize, sectors: Range<u64>) -> Vec<Range<u64>> {
    let Some(Ok(mirrors)) = peer.mirrors() else { return vec![sectors] };
    let chunk = mirrors.chunk_sectors();
    let chunks = sectors.start / chunk..sectors.end.min(mirrors.array_sectors()).div_ceil(chunk);
    if chunks.end.saturating_sub(chunks.start) > CHUNKS_MAX {
        return vec![0..peer.size()];
    }
    let copies = chunks.flat_map(|number| {
        (0..mirrors.copies()).map(move |copy| mirrors.locate(Sector(number * chunk), copy))
    });
    let own = copies.filter(|spot| spot.slot == slot).map(|spot| spot.member_sector.0);
    own.map(|start| start..start + chunk).collect()
}

/// Chunks of a RAID 10 that are looked up one by one for a run of dirty sectors.
const CHUNKS_MAX: u64 = 1 << 16;

#[cfg(test)]
mod tests;
