//! What lies on data and metadata devices, what is refused, and how each pair begins.

use super::{AdoptError, AdoptOptions, Adopted, Pair, Work};
use crate::content::{Thoroughness, look};
use crate::leaf::{self, LeafKind, system_error};
use crate::member::Member;
use crate::open::{OpenOptions, open};
use crate::probe::{MdFound, find_md};
use bio::{Device, Events, IoError};
use checksum::BlockTagger;
use integrity::layout::DeviceSectors;
use integrity::superblock::AREA_SECTORS;
use integrity::{Flags, FormatOptions, Layout, Superblock, format};
use layers::integrity::{Integrity, JournalState, Lower, NewVolume, Options, Wipe, create};
use scrub::Summary;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use units::{BlockSize, SECTOR, Sector, u64_of};

/// How a pair begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Beginning {
    /// The metadata device is made, or written anew.
    New {
        /// Bytes of the metadata device; a file that does not exist is made with as many.
        metadata_bytes: u64,
    },
    /// It was begun, and goes on at this sector.
    Resumed {
        /// The first sector without a tag.
        from: u64,
    },
    /// Every tag is there already.
    Finished,
}

/// What a check of an array found.
pub struct Array {
    /// Everything.
    pub summary: Summary,
}

impl Array {
    /// Whether its members may be adopted as they are.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.summary.outcome() == scrub::Outcome::Healthy
    }
}

/// Checks the array that the data makes, writing nothing; none if it makes none. Only adoption that
/// has not begun on any pair asks for it: what was begun is not judged anew.
///
/// # Errors
/// [`AdoptError`]: among others, data of which only a part belongs to an array.
pub async fn check_array(
    options: &AdoptOptions,
    mut on_progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Array>, AdoptError> {
    let mut of_array = 0;
    for pair in &options.pairs {
        let leaf = leaf::open(&pair.data, false).await?;
        let found = find_md(&leaf.device).await.map_err(|error| failed(&pair.data, error))?;
        of_array += usize::from(!matches!(found, MdFound::None));
        if is_begun(options, pair, &leaf.device).await? {
            return Ok(None);
        }
    }
    if of_array == 0 {
        return Ok(None);
    }
    let members = options.pairs.iter().map(|pair| pair.data.clone()).collect();
    let volume = open(&OpenOptions::read_only(members)).await?;
    let walk = scrub::Options::new(bio::ScrubMode::Check);
    let summary =
        volume.scrub(&walk, |progress, _| on_progress(progress.done, progress.total)).await;
    // Nothing was written, so nothing can be lost by closing.
    let _closed = volume.close().await;
    Ok(Some(Array { summary }))
}

/// Whether the pair's metadata device is one that this adoption made.
async fn is_begun(options: &AdoptOptions, pair: &Pair, data: &Device) -> Result<bool, AdoptError> {
    if pair.metadata.path().is_some_and(is_absent) {
        return Ok(false);
    }
    let metadata = leaf::open(&pair.metadata, false).await?.device;
    let lower = Lower { metadata, data: Some(data.clone()) };
    Ok(begun(options, pair, &lower).await?.is_some())
}

/// What [`super::adopt`] would begin with; nothing is changed.
///
/// # Errors
/// As [`super::adopt`], as far as can be seen without writing.
pub async fn dry_run(options: &AdoptOptions) -> Result<Vec<Adopted>, AdoptError> {
    let members = options.pairs.iter().flat_map(|pair| [&pair.data, &pair.metadata]);
    leaf::refuse_twice(members)?;
    let mut planned = Vec::new();
    for pair in &options.pairs {
        planned.push(look_at(options, pair, false).await?.adopted);
    }
    Ok(planned)
}

/// A pair that was looked at, and may be adopted.
pub(super) struct Prepared {
    adopted: Adopted,
    new: NewVolume,
    data: Device,
    /// None: the file is to be made.
    metadata: Option<Device>,
    begun: Option<(Superblock, Layout)>,
}

impl Prepared {
    pub fn sectors(&self) -> u64 {
        self.adopted.sectors
    }

    /// Makes the metadata device what it shall be, unless it is. Steps 1 and 2.
    pub async fn begin(self) -> Result<Work, AdoptError> {
        let Self { adopted, new, data, metadata, begun } = self;
        let metadata = match (metadata, adopted.beginning) {
            (None, Beginning::New { metadata_bytes }) => {
                make(&adopted.pair.metadata, metadata_bytes)?;
                leaf::open(&adopted.pair.metadata, true).await?.device
            }
            (metadata, _) => metadata.expect("only a new one is made"),
        };
        let lower = Lower { metadata, data: Some(data) };
        let (superblock, layout) = match begun {
            Some(begun) => begun,
            None => create(lower.clone(), &new, |_, _| ()).await.map_err(|error| {
                AdoptError::Create { member: adopted.pair.metadata.to_string(), error }
            })?,
        };
        let algorithm = new.tags.hash().expect("what is adopted is hashed here");
        let (key, salt) = (new.key.as_ref(), superblock.hashed_salt());
        let tagger =
            BlockTagger::new(algorithm, key, salt, layout.block)?.with_tag_bytes(layout.tag_bytes);
        Ok(Work { lower, superblock, layout, tagger, journal: new.journal, adopted })
    }
}

/// Looks at every pair; refuses before anything is written.
pub(super) async fn prepare(options: &AdoptOptions) -> Result<Vec<Prepared>, AdoptError> {
    let members = options.pairs.iter().flat_map(|pair| [&pair.data, &pair.metadata]);
    leaf::refuse_twice(members)?;
    let mut prepared = Vec::new();
    for pair in &options.pairs {
        prepared.push(look_at(options, pair, true).await?);
    }
    Ok(prepared)
}

async fn look_at(options: &AdoptOptions, pair: &Pair, write: bool) -> Result<Prepared, AdoptError> {
    let data = leaf::open(&pair.data, false).await?.device;
    let format = format_of(options)?;
    refuse_data(pair, &data, format.block).await?;
    let new = NewVolume {
        key: options.integrity_key.clone(),
        journal: options.journal.clone(),
        ..NewVolume::new(format, options.integrity, Wipe::Recalculate)
    };
    // Keys are refused before anything is made.
    BlockTagger::new(options.integrity, options.integrity_key.as_ref(), None, format.block)?;
    let data_sectors = data.limits().sectors;
    let (metadata, begun, metadata_sectors) = if pair.metadata.path().is_some_and(is_absent) {
        (None, None, metadata_sectors(pair, data_sectors, &format)?)
    } else {
        let leaf = leaf::open(&pair.metadata, write).await?;
        let metadata = leaf.device;
        let lower = Lower { metadata: metadata.clone(), data: Some(data.clone()) };
        let begun = begun(options, pair, &lower).await?;
        match &begun {
            Some((superblock, _)) => refuse_other(options, pair, &lower, superblock).await?,
            None if options.yes => {}
            None => refuse_used(pair, &metadata, leaf.kind).await?,
        }
        let sectors = metadata.limits().sectors;
        (Some(metadata), begun, sectors)
    };
    let (beginning, sectors, done) = match &begun {
        None => {
            let device = DeviceSectors::Separate { metadata: metadata_sectors, data: data_sectors };
            let (_, layout) = self::format(device, &format).map_err(|error| unfit(pair, error))?;
            let metadata_bytes = metadata_sectors * SECTOR;
            (Beginning::New { metadata_bytes }, layout.provided_sectors, 0)
        }
        Some((superblock, layout)) => {
            let from = superblock.recalculated_until();
            let beginning = from.map_or(Beginning::Finished, |from| Beginning::Resumed { from });
            let sectors = layout.provided_sectors;
            (beginning, sectors, from.unwrap_or(sectors))
        }
    };
    let (unreadable, unreadable_sectors) = (Vec::new(), 0);
    let pair = pair.clone();
    let adopted = Adopted { pair, sectors, beginning, done, unreadable, unreadable_sectors };
    Ok(Prepared { adopted, new, data, metadata, begun })
}

fn format_of(options: &AdoptOptions) -> Result<FormatOptions, AdoptError> {
    let found = options.sector_size;
    let block = BlockSize::from_bytes(found).ok_or(AdoptError::SectorSize { found })?;
    let digest = u16::try_from(options.integrity.digest_len()).expect("a few bytes");
    let salt = uuid::Uuid::new_v4().into_bytes();
    Ok(FormatOptions {
        journal_sectors: options.journal_bytes.map(|bytes| bytes / SECTOR),
        journal_mac: options.journal.mac.is_some(),
        ..FormatOptions::new(block, options.tag_size.unwrap_or(digest), salt)
    })
}

/// Data that has integrity already, or a tail that would have none.
async fn refuse_data(pair: &Pair, data: &Device, block: BlockSize) -> Result<(), AdoptError> {
    let sectors = data.limits().sectors;
    if !block.divides(sectors) || sectors == 0 {
        let found = Sector(sectors).bytes();
        return Err(AdoptError::Tail { member: pair.data.to_string(), found, block });
    }
    if let Some(area) = superblock_area(data).await.map_err(|error| failed(&pair.data, error))?
        && Superblock::decode(&area).is_ok()
    {
        return Err(AdoptError::Tagged { member: pair.data.to_string() });
    }
    Ok(())
}

/// The first sectors of a device; none if it has no such or they cannot be read.
async fn superblock_area(device: &Device) -> Result<Option<Vec<u8>>, IoError> {
    if device.limits().sectors < AREA_SECTORS {
        return Ok(None);
    }
    match device.read(Sector::ZERO, AREA_SECTORS).await {
        Ok(area) => Ok(Some(area.as_slice().to_vec())),
        Err(error) if error.kind.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The superblock of an adoption that was begun for data of this size; none if there is none.
async fn begun(
    options: &AdoptOptions,
    pair: &Pair,
    lower: &Lower,
) -> Result<Option<(Superblock, Layout)>, AdoptError> {
    let area = superblock_area(&lower.metadata).await;
    let Some(area) = area.map_err(|error| failed(&pair.metadata, error))? else { return Ok(None) };
    let Ok(superblock) = Superblock::decode(&area) else { return Ok(None) };
    let Ok(layout) = Layout::of(&superblock, lower.sectors()) else { return Ok(None) };
    let is_whole = layout.provided_sectors == lower.data().limits().sectors;
    let same_seal = superblock.flags.has(Flags::JOURNAL_MAC) == options.journal.mac.is_some();
    let recalculating = superblock.flags.has(Flags::RECALCULATING);
    if !(recalculating && layout.is_separate() && is_whole && same_seal) {
        return Ok(None);
    }
    let found = u64_of(layout.block.bytes());
    let wanted = options.sector_size;
    if found != wanted {
        return Err(AdoptError::OtherBlock { member: pair.metadata.to_string(), found, wanted });
    }
    Ok(Some((superblock, layout)))
}

/// What was begun with another algorithm or for other data, or has been written since.
async fn refuse_other(
    options: &AdoptOptions,
    pair: &Pair,
    lower: &Lower,
    superblock: &Superblock,
) -> Result<(), AdoptError> {
    let member = || pair.metadata.to_string();
    let opening = Options {
        sample: false,
        integrity_key: options.integrity_key.clone(),
        journal: options.journal.clone(),
        tag_cache_bytes: 1 << 20,
        ..Options::new(options.integrity, Events::none()).read_only()
    };
    let volume = Integrity::open(lower.clone(), opening).await;
    let volume = volume.map_err(|error| AdoptError::Open { member: member(), error })?;
    if *volume.journal_state() != JournalState::Clean {
        return Err(AdoptError::Journal { member: member() });
    }
    let end = superblock.recalculated_until().unwrap_or(superblock.provided_sectors);
    let (mut verified, mut refuted) = (0, 0);
    for sector in samples(end, superblock.block.sectors()) {
        match volume.device().read(Sector(sector), superblock.block.sectors()).await {
            Ok(_) => verified += 1,
            Err(error) if error.kind == bio::IoErrorKind::Protection => refuted += 1,
            Err(error) if error.kind.is_damage() => {}
            Err(error) => return Err(failed(&pair.data, error)),
        }
    }
    if verified == 0 && refuted > 0 {
        let algorithm = options.integrity;
        return Err(AdoptError::NothingVerifies { member: member(), refuted, algorithm });
    }
    Ok(())
}

/// Blocks, evenly spread below sector `end`.
fn samples(end: u64, spb: u64) -> BTreeSet<u64> {
    let blocks = end / spb;
    let count = SAMPLES.min(blocks);
    (0..count).map(|n| blocks / count * n * spb).collect()
}

async fn refuse_used(pair: &Pair, metadata: &Device, kind: LeafKind) -> Result<(), AdoptError> {
    let member = || pair.metadata.to_string();
    let thoroughness = match kind {
        LeafKind::File | LeafKind::Sectors | LeafKind::Memory => Thoroughness::Full,
        LeafKind::BlockDevice | LeafKind::Nbd => Thoroughness::Sampled,
    };
    let content = look(metadata, thoroughness, &mut |_, _| ()).await;
    let content = content.map_err(|error| failed(&pair.metadata, error))?;
    if let Some(&signature) = content.signatures.first() {
        return Err(AdoptError::Signature { member: member(), signature });
    }
    match content.not_zero {
        Some(sector) => Err(AdoptError::NotZero { member: member(), sector }),
        None => Ok(()),
    }
}

/// Sectors of a new metadata device: the journal that is wanted, and the tags in whole buffers.
fn metadata_sectors(pair: &Pair, data: u64, options: &FormatOptions) -> Result<u64, AdoptError> {
    let device = DeviceSectors::Separate { metadata: u64::MAX, data };
    let (_, layout) = format(device, options).map_err(|error| unfit(pair, error))?;
    Ok(layout.metadata_device_sectors())
}

/// Makes the file of a metadata device, all hole, and its name durable.
fn make(member: &Member, bytes: u64) -> Result<(), AdoptError> {
    let path = member.path().expect("only a path can be absent");
    let made = File::options().write(true).create_new(true).open(path).and_then(|file| {
        file.set_len(member.file_bytes(bytes))?;
        file.sync_all()?;
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    });
    made.map_err(|error| AdoptError::Member(system_error(path.display().to_string(), true, error)))
}

fn is_absent(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn failed(member: &Member, error: IoError) -> AdoptError {
    AdoptError::Io { member: member.to_string(), error }
}

fn unfit(pair: &Pair, error: integrity::FormatError) -> AdoptError {
    AdoptError::Format { member: pair.metadata.to_string(), error }
}

/// Blocks that are read to see whether tags and data belong together.
const SAMPLES: u64 = 256;
