//! Making a device into a volume.
//!
//! 1. The superblock's area is zeroed. Crash: no volume.
//! 2. The journal is initialised, and (unless it is not wanted) every block becomes zeroes with
//!    their tags. Crash: no volume.
//! 3. All of that is durable.
//! 4. The superblock. Crash: no volume, or a whole one.

use super::above;
use super::codec::{Codec, CodecError, JournalKeys, sealed_area};
use super::inline::{InlineError, inline_fits, write_inline};
use super::lower::Lower;
use super::ordering::{CREATE_DONE, CREATE_ERASED, CREATE_JOURNAL, CREATE_WIPED};
use super::recover::initialise;
use super::source::{OfZeroes, SourceError, TagSource, Tagger};
use ::integrity::journal::Sequence;
use ::integrity::layout::FormatOptions;
use ::integrity::open::Refusal;
use ::integrity::superblock::{AREA_BYTES, version_for};
use ::integrity::{Flags, FormatError, Layout, Run, Superblock, format};
use bio::{Bio, Buf, IoError};
use checksum::{Key, KeyError};
use runtime::join_all;
use units::{SECTOR, Sector, u64_of, usize_of};

/// What becomes of the data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wipe {
    /// Every block reads as zeroes. The device is told to zero its data (holes, where it can).
    Zeroes,
    /// The same, on a device that is known to read as zeroes already: only tags are written.
    TagsOnly,
    /// Nothing is written: every block is unreadable until it is written whole.
    Nothing,
    /// Nothing is written, and the superblock says that no tag is valid yet
    /// ([`Flags::RECALCULATING`], from sector 0 on): they are to be computed from what lies there.
    Recalculate,
}

/// Why a volume could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CreateError {
    /// No such volume is possible.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No such tags are possible with this key, block size or tag size.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Something that needs tags which are made here.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The journal MAC's algorithm and its key do not go together.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Inline tags cannot lie on this device.
    #[error(transparent)]
    Inline(#[from] InlineError),
    /// The journal cannot be made as asked.
    #[error(transparent)]
    Journal(#[from] CodecError),
    /// The device failed.
    #[error("{0} of the device below")]
    Io(#[from] IoError),
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Its numbers.
    pub format: FormatOptions,
    /// Where its tags come from. Those of the layer above are made so that they fit blocks of zeroes
    /// ([`Tagger::sign`]): nothing in a new volume is unchecked, as it would be under escapes.
    pub tags: TagSource,
    /// Their key, if the algorithm takes one.
    pub key: Option<Key>,
    /// What its journal is sealed and encrypted with. MACs go with `format.journal_mac`.
    pub journal: JournalKeys,
    /// What becomes of the data.
    pub wipe: Wipe,
}

impl NewVolume {
    /// One whose tags have no key and whose journal is plain.
    #[must_use]
    pub fn new(format: FormatOptions, tags: impl Into<TagSource>, wipe: Wipe) -> Self {
        Self { format, tags: tags.into(), key: None, journal: JournalKeys::default(), wipe }
    }
}

/// Makes `lower` into a volume; `progress` is told how many of the volume's sectors are done, and of
/// how many.
///
/// # Errors
/// [`CreateError`]. There is no superblock then.
pub async fn create(
    lower: impl Into<Lower>,
    new: &NewVolume,
    mut progress: impl FnMut(u64, u64),
) -> Result<(Superblock, Layout), CreateError> {
    let lower = lower.into();
    let (mut superblock, layout) = format(lower.sectors(), &new.format)?;
    if layout.inline {
        if new.journal.cipher.is_some() {
            return Err(FormatError::Inline { what: "an encrypted journal" }.into());
        }
        inline_fits(lower.data().limits(), layout.block, layout.tag_bytes)?;
    }
    if new.wipe == Wipe::Recalculate {
        superblock.flags = superblock.flags.with(Flags::RECALCULATING);
        superblock.version = version_for(superblock.flags, layout.is_separate(), false);
    }
    let salt = superblock.hashed_salt();
    let tagger = Tagger::new(new.tags, new.key.as_ref(), salt, layout.block, layout.tag_bytes)?;
    above::creatable(&layout, new)?;
    let codec = Codec::new(&superblock, &layout.journal, &new.journal)?;
    let area = sealed_area(&superblock, &new.journal)?;
    let metadata = &lower.metadata;
    metadata.write(Sector::ZERO, Buf::zeroed(AREA_BYTES)).await?;
    metadata.flush_for(CREATE_ERASED).await?;
    let sections: Vec<u32> = (0..layout.journal.sections).collect();
    initialise(metadata, &codec, &layout.journal, &sections, Sequence::FIRST, CREATE_JOURNAL)
        .await?;
    if matches!(new.wipe, Wipe::Zeroes | Wipe::TagsOnly) {
        let zeros = tagger.of_zeroes();
        let runs: Vec<_> = pieces(&layout).collect();
        for batch in runs.chunks(RUNS_AT_ONCE) {
            let each = batch.iter().map(|run| wipe_run(&lower, &layout, &zeros, *run, new.wipe));
            join_all(each).await.into_iter().collect::<Result<(), IoError>>()?;
            let done = batch.last().map_or(0, |run| (run.sector + run.sectors).0);
            progress(done, layout.provided_sectors);
        }
        lower.flush_for(CREATE_WIPED).await?;
    }
    metadata.write(Sector::ZERO, Buf::copy_of(&area)).await?;
    metadata.flush_for(CREATE_DONE).await?;
    Ok((superblock, layout))
}

/// The volume in pieces whose tags start a sector: whole runs, or as much where there are none.
fn pieces(layout: &Layout) -> impl Iterator<Item = Run> + use<> {
    let (layout, whole) = (*layout, u64_of(PAGE_BYTES) * layout.block.sectors());
    let runs = layout.runs(Sector::ZERO, layout.provided_sectors);
    runs.flat_map(move |run| {
        // A page's worth of blocks has a whole number of pages of tags.
        let step = if layout.log2_interleave.is_some() { run.sectors } else { whole * PIECE_PAGES };
        let starts = (run.sector.0..(run.sector + run.sectors).0).step_by(usize_of(step));
        let end = run.sector + run.sectors;
        starts.map(move |start| layout.run(Sector(start), step.min(end.0 - start)))
    })
}

async fn wipe_run(
    lower: &Lower,
    layout: &Layout,
    zeros: &OfZeroes,
    run: Run,
    wipe: Wipe,
) -> Result<(), IoError> {
    if layout.inline {
        return wipe_inline(lower, layout, zeros, run).await;
    }
    if wipe == Wipe::Zeroes {
        lower.data().submit(&mut Bio::write_zeroes(run.data, run.sectors, true)).await?;
    }
    // What is behind the last tag is padding.
    let blocks = usize_of(run.sectors / layout.block.sectors());
    let bytes = blocks * layout.tag_bytes;
    let mut tags = Buf::zeroed(bytes.next_multiple_of(PAGE_BYTES));
    zeros.fill(run.sector.0, &mut tags.as_mut_slice()[..bytes]);
    let at_once = usize_of(lower.metadata.limits().max_bytes);
    let mut at = Sector::containing(run.tag_byte);
    let mut rest = tags;
    while !rest.is_empty() {
        let later = rest.split_off(at_once.min(rest.len()));
        let sectors = units::u64_of(rest.len()) / SECTOR;
        lower.metadata.write(at, std::mem::replace(&mut rest, later)).await?;
        at += sectors;
    }
    Ok(())
}

/// Zeroes and their tags, whatever is known of the device: what it zeroes by itself has no tag.
async fn wipe_inline(
    lower: &Lower,
    layout: &Layout,
    zeros: &OfZeroes,
    run: Run,
) -> Result<(), IoError> {
    let zeroes = Buf::zeroed(usize_of(Sector(run.sectors.min(INLINE_SECTORS)).bytes()));
    for offset in (0..run.sectors).step_by(usize_of(INLINE_SECTORS)) {
        let piece = layout.run(run.sector + offset, INLINE_SECTORS.min(run.sectors - offset));
        let blocks = usize_of(piece.sectors / layout.block.sectors());
        let mut tags = vec![0; blocks * layout.tag_bytes];
        zeros.fill(piece.sector.0, &mut tags);
        let data = zeroes.slice(0..usize_of(Sector(piece.sectors).bytes()));
        write_inline(lower.data(), layout, &piece, data, &tags).await?;
    }
    Ok(())
}

/// Metadata runs written at once.
const RUNS_AT_ONCE: usize = 16;
/// Bytes that metadata is written in.
const PAGE_BYTES: usize = 4096;
/// Tags written at once where no runs divide them: for so many times 4096 blocks.
const PIECE_PAGES: u64 = 8;
/// Data written at once where the tags are inline: 1 MiB.
const INLINE_SECTORS: u64 = (1 << 20) / SECTOR;
