//! Making a device into a volume.
//!
//! 1. The superblock's area is zeroed. Crash: no volume.
//! 2. The journal is initialised, and (unless it is not wanted) every block becomes zeroes with
//!    their tags. Crash: no volume.
//! 3. All of that is durable.
//! 4. The superblock. Crash: no volume, or a whole one.

use super::recover::initialise;
use ::integrity::journal::Sequence;
use ::integrity::layout::{DeviceSectors, FormatOptions};
use ::integrity::superblock::AREA_SECTORS;
use ::integrity::{FormatError, Layout, Superblock, format, superblock_area};
use bio::{Bio, Buf, Device, IoError};
use checksum::{Algorithm, BlockTagger, Key, KeyError, ZeroTags};
use runtime::join_all;
use units::{SECTOR, Sector, usize_of};

/// What becomes of the data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wipe {
    /// Every block reads as zeroes. The device is told to zero its data (holes, where it can).
    Zeroes,
    /// The same, on a device that is known to read as zeroes already: only tags are written.
    TagsOnly,
    /// Nothing is written: every block is unreadable until it is written whole.
    Nothing,
}

/// Why a volume could not be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CreateError {
    /// No such volume is possible.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The algorithm and the key do not go together.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The device failed.
    #[error("{0} of the device below")]
    Io(#[from] IoError),
}

/// Makes `lower` into a volume whose tags are made with the algorithm and its key; `progress` is told how many of the volume's sectors are done, and
/// of how many.
///
/// # Errors
/// [`CreateError`]. There is no superblock then.
pub async fn create(
    lower: &Device,
    options: &FormatOptions,
    (algorithm, key): (Algorithm, Option<&Key>),
    wipe: Wipe,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Superblock, Layout), CreateError> {
    let device = DeviceSectors::Interleaved(lower.limits().sectors);
    let (superblock, layout) = format(device, options)?;
    let tagger = BlockTagger::new(algorithm, key, superblock.hashed_salt(), layout.block)?
        .with_tag_bytes(layout.tag_bytes);
    let area = Buf::zeroed(usize_of(AREA_SECTORS * SECTOR));
    lower.write(Sector::ZERO, area).await?;
    lower.flush().await?;
    let sections: Vec<u32> = (0..layout.journal.sections).collect();
    initialise(lower, &layout.journal, &sections, Sequence::FIRST).await?;
    if wipe != Wipe::Nothing {
        let zeros = ZeroTags::new(&tagger);
        let runs: Vec<_> = layout.runs(Sector::ZERO, layout.provided_sectors).collect();
        for batch in runs.chunks(RUNS_AT_ONCE) {
            let each = batch.iter().map(|run| wipe_run(lower, &layout, &zeros, *run, wipe));
            join_all(each).await.into_iter().collect::<Result<(), IoError>>()?;
            let done = batch.last().map_or(0, |run| (run.sector + run.sectors).0);
            progress(done, layout.provided_sectors);
        }
        lower.flush().await?;
    }
    let area = Buf::copy_of(&superblock_area(&superblock));
    lower.write(Sector::ZERO, area).await?;
    lower.flush().await?;
    Ok((superblock, layout))
}

async fn wipe_run(
    lower: &Device,
    layout: &Layout,
    zeros: &ZeroTags,
    run: ::integrity::Run,
    wipe: Wipe,
) -> Result<(), IoError> {
    if wipe == Wipe::Zeroes {
        lower.submit(&mut Bio::write_zeroes(run.data, run.sectors, true)).await?;
    }
    // A run is whole, so its tags start a sector; what is behind the last one is padding.
    let blocks = usize_of(run.sectors / layout.block.sectors());
    let bytes = blocks * layout.tag_bytes;
    let mut tags = Buf::zeroed(bytes.next_multiple_of(4096));
    zeros.fill(run.sector.0, &mut tags.as_mut_slice()[..bytes]);
    let at_once = usize_of(lower.limits().max_bytes);
    let mut at = Sector::containing(run.tag_byte);
    let mut rest = tags;
    while !rest.is_empty() {
        let later = rest.split_off(at_once.min(rest.len()));
        let sectors = units::u64_of(rest.len()) / SECTOR;
        lower.write(at, std::mem::replace(&mut rest, later)).await?;
        at += sectors;
    }
    Ok(())
}

/// Metadata runs written at once.
const RUNS_AT_ONCE: usize = 16;
