//! What a volume becomes when its device has another size than it had.
//!
//! Nothing on disk moves: interleave, tag, journal and flags stay, so every block that exists
//! before and after keeps its place and its tag. Only the exposed size is computed anew, as the
//! kernel does at every open (specification, section 3, last paragraph). The kernel's own tool opens
//! with the *stored* size; so a shrunk device is refused there until somebody writes the smaller one.
//!
//! What the new part of a grown volume holds is nobody's promise: its tags are whatever lay there.
//! Whoever grows writes it (zeroes, tags and all) before it is exposed, or lets it be recalculated
//! ([`crate::recalculate`]); a recalculation that had finished goes on by itself, for its
//! position is then below the end.

use super::format::fit_on_one;
use super::{DeviceSectors, Layout, LayoutError};
use crate::superblock::{Flags, Superblock, version_for};

/// Why a volume cannot be opened on a device of this size.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResizeError {
    /// The journal, the tags or the data's place do not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Behind the journal nothing is left.
    #[error("a device of {sectors} sectors has no room for data behind the journal")]
    TooSmall {
        /// Sectors of the device with the data.
        sectors: u64,
    },
    /// The bitmap in use would need more bits than the journal's area has. Opened once in journal
    /// mode, the volume has no bitmap any more.
    #[error("the dirty bitmap in use needs {bits} bits for the new size, there is room for {max}")]
    DirtyBitmap {
        /// Bits at the stored granularity.
        bits: u64,
        /// Bits that the journal's area holds.
        max: u64,
    },
}

/// The superblock and the layout of the volume `superblock` on devices of the sizes that they have
/// now. Equal to what was stored if nothing changed but, perhaps, the version byte.
///
/// # Errors
/// [`ResizeError`]; the volume is then to be left as it is.
pub fn resize(
    superblock: &Superblock,
    device: DeviceSectors,
) -> Result<(Superblock, Layout), ResizeError> {
    let separate = matches!(device, DeviceSectors::Separate { .. });
    let inline = superblock.flags.has(Flags::INLINE);
    if !inline && separate != superblock.log2_interleave.is_none() {
        return Err(LayoutError::Interleave { separate }.into());
    }
    let with = |sections, provided| {
        let log2_interleave = superblock.log2_interleave.filter(|_| !inline);
        let (block, flags) = (superblock.block, superblock.flags);
        Layout::unchecked(block, superblock.tag_size, flags, sections, log2_interleave, provided)
    };
    let sections = superblock.journal_sections;
    let empty = with(sections, 0);
    if !inline && !empty.journal_fits(device.metadata()) {
        let (end, device) = (empty.initial_sectors, device.metadata());
        return Err(LayoutError::Journal { sections, end, device }.into());
    }
    let block = superblock.block.sectors();
    let layout = if separate && !inline {
        let provided = device.data() / block * block;
        (provided > 0).then(|| with(sections, provided))
    } else {
        fit_on_one(device.metadata(), &with, sections)
    };
    let layout = layout.ok_or(ResizeError::TooSmall { sectors: device.data() })?;

    let mut resized = superblock.clone();
    resized.provided_sectors = layout.provided_sectors;
    resized.recalc_sector = superblock.recalc_sector.min(layout.provided_sectors);
    resized.version = version_for(superblock.flags, separate, false);
    refine_bitmap(&mut resized, &layout)?;
    // With a metadata device, this is where its tags are found to have no room.
    Layout::of(&resized, device)?;
    Ok((resized, layout))
}

/// Coarser bits where the stored ones are too many for the journal's area, unless they are in use.
fn refine_bitmap(superblock: &mut Superblock, layout: &Layout) -> Result<(), ResizeError> {
    let log2 = superblock.log2_blocks_per_bitmap_bit.saturating_add(layout.block.log2_sectors());
    let bits = layout.provided_sectors.div_ceil(1 << log2.min(63));
    let max = layout.bitmap_bits_max();
    if max == 0 || bits <= max {
        return Ok(());
    }
    if superblock.flags.has(Flags::DIRTY_BITMAP) {
        return Err(ResizeError::DirtyBitmap { bits, max });
    }
    let log2 = super::log2_sectors_per_bit(layout, Some(1 << log2.min(63)));
    superblock.log2_blocks_per_bitmap_bit = log2 - layout.block.log2_sectors();
    Ok(())
}
