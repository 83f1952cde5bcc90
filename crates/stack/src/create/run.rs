//! From options to a made volume: names, files, content, plan, writes.

use super::plan::{Identity, Plan, PlannedWrite, metadata_bytes, plan};
use super::write::{CreateProgress, Target, write};
use super::{CreateError, CreateOptions, TUPLES};
use crate::content::{Thoroughness, look};
use crate::leaf::{self, Leaf, LeafKind, system_error};
use crate::member::Member;
use bio::{Device, Limits};
use integrity::layout::DeviceSectors;
use layers::integrity::inline_fits;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use units::{BlockSize, SECTOR};

/// What creation is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Looking whether anything lies on the members.
    Looking,
    /// Writing.
    Writing,
}

/// A volume that was made, or would be.
#[derive(Clone, Debug)]
pub struct Created {
    /// Sectors of the volume.
    pub sectors: u64,
    /// The array's UUID as md prints it; none without an array.
    pub uuid: Option<String>,
    /// Redundancy still has to be made true (`--no-wipe`), in the background of the first opening.
    pub dirty: bool,
    /// Every write, member by member, in order.
    pub writes: Vec<PlannedWrite>,
}

impl From<Plan> for Created {
    fn from(plan: Plan) -> Self {
        let writes = plan.writes().cloned().collect();
        Self { sectors: plan.sectors, uuid: plan.uuid, dirty: plan.dirty, writes }
    }
}

/// Makes the members into a volume.
///
/// # Errors
/// [`CreateError`]. Before the first write nothing is changed; after a failed write nothing opens
/// that is not whole. Member files that were made for this are removed again.
pub async fn create(
    options: &CreateOptions,
    on_progress: &mut dyn FnMut(Phase, &CreateProgress),
) -> Result<Created, CreateError> {
    options.check()?;
    leaf::refuse_twice(all_members(options))?;
    let mut made = MadeFiles::default();
    for (member, bytes) in to_make(options)? {
        made.make(member, bytes)?;
    }
    let mut opened = Vec::new();
    for member in options.devices() {
        opened.push(leaf::open_pair(member, options.data_of(member), true).await?);
    }
    for (member, leaf) in options.devices().zip(&opened) {
        refuse_unfit(options, member, leaf.device.limits())?;
    }
    let sizes: Vec<DeviceSectors> = opened.iter().map(|leaf| leaf.lower().sectors()).collect();
    let plan = plan(options, &sizes, &Identity::random(options.devices().count()))?;
    let mut targets = Vec::new();
    for (member, leaf) in options.devices().zip(opened) {
        let Leaf { device, data, kind, .. } = leaf;
        let blank =
            made.contains(member) || is_blank(member, &device, kind, options, on_progress).await?;
        let data = match (data, options.data_of(member)) {
            (Some(leaf), Some(named)) => {
                let blank = made.contains(named)
                    || is_blank(named, &leaf.device, leaf.kind, options, on_progress).await?;
                Some((leaf.device, blank))
            }
            _ => None,
        };
        targets.push(Target { device, blank, data });
    }
    let mut writing = |progress: &CreateProgress| on_progress(Phase::Writing, progress);
    let written = write(&plan, &targets, &mut writing).await;
    written.map_err(|failure| CreateError::Io {
        member: plan.members[failure.member].member.to_string(),
        error: failure.error,
    })?;
    made.keep()?;
    Ok(plan.into())
}

/// What [`create`] would do; nothing is changed, and no file is made.
///
/// # Errors
/// As [`create`], as far as can be seen without writing.
pub async fn dry_run(
    options: &CreateOptions,
    on_progress: &mut dyn FnMut(Phase, &CreateProgress),
) -> Result<Created, CreateError> {
    options.check()?;
    leaf::refuse_twice(all_members(options))?;
    let mut sizes = Vec::new();
    for member in options.devices() {
        let limits = would_have(member, options, on_progress).await?;
        refuse_unfit(options, member, &limits)?;
        let metadata = limits.sectors;
        sizes.push(match options.data_of(member) {
            None => DeviceSectors::Interleaved(metadata),
            Some(data) => {
                let data = would_have(data, options, on_progress).await?.sectors;
                DeviceSectors::Separate { metadata, data }
            }
        });
    }
    Ok(plan(options, &sizes, &Identity::random(options.devices().count()))?.into())
}

/// Members, and the devices with their data.
fn all_members(options: &CreateOptions) -> impl Iterator<Item = &Member> {
    options.devices().chain(options.data_devices.iter().map(|(_, data)| data))
}

/// The files to make if they do not exist, each with its bytes.
fn to_make(options: &CreateOptions) -> Result<Vec<(&Member, Bytes)>, CreateError> {
    let Some(bytes) = options.member_bytes else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for member in options.devices() {
        match options.data_of(member) {
            // A ring may have any length, so a journal's file that exists may.
            None if options.write_journal.as_ref() == Some(member) => {
                files.push((member, Bytes::Enough(bytes)));
            }
            None => files.push((member, Bytes::Exactly(bytes))),
            Some(data) => {
                files.push((data, Bytes::Exactly(bytes)));
                files.push((member, Bytes::Enough(metadata_bytes(options, bytes)?)));
            }
        }
    }
    Ok(files)
}

/// How large a file is to be made.
#[derive(Clone, Copy)]
enum Bytes {
    /// One that exists has this size too.
    Exactly(u64),
    /// One that exists may have any size.
    Enough(u64),
}

impl Bytes {
    const fn count(self) -> u64 {
        match self {
            Self::Exactly(bytes) | Self::Enough(bytes) => bytes,
        }
    }

    fn refuse_other(self, member: &Member, path: &Path) -> Result<(), CreateError> {
        match self {
            Self::Exactly(bytes) => refuse_other_size(path, member.file_bytes(bytes)),
            Self::Enough(_) => Ok(()),
        }
    }
}

/// Refuses a member whose blocks have no metadata for the tags that it is to hold.
pub(crate) fn refuse_unfit(
    options: &CreateOptions,
    member: &Member,
    limits: &Limits,
) -> Result<(), CreateError> {
    let keeps_tuples = options.integrity.is_none() && limits.tag_size > 0;
    if options.write_journal.is_some() && keeps_tuples {
        return Err(CreateError::WriteJournalWith { other: TUPLES });
    }
    let (Some(tags), true) = (options.integrity, options.inline) else { return Ok(()) };
    let block = BlockSize::from_bytes(options.sector_size)
        .ok_or(CreateError::SectorSize { found: options.sector_size })?;
    let tag_bytes = options.tag_size.or_else(|| tags.tag_bytes()).ok_or(CreateError::TagSize)?;
    inline_fits(limits, block, tag_bytes.into())
        .map_err(|error| CreateError::Inline { member: member.to_string(), error })
}

/// The limits of a member, or of the file that would be made; what exists is looked at.
async fn would_have(
    member: &Member,
    options: &CreateOptions,
    on_progress: &mut dyn FnMut(Phase, &CreateProgress),
) -> Result<Limits, CreateError> {
    let bytes = to_make(options)?.into_iter().find(|(of, _)| *of == member);
    if let (Some(path), Some((_, bytes))) = (member.path(), bytes) {
        if is_absent(path) {
            return Ok(limits_of_new(member, bytes.count()));
        }
        bytes.refuse_other(member, path)?;
    }
    let opened = leaf::open(member, false).await?;
    is_blank(member, &opened.device, opened.kind, options, on_progress).await?;
    Ok(opened.device.limits().clone())
}

/// Of a file that is not there yet and will hold `bytes` bytes of data.
fn limits_of_new(member: &Member, bytes: u64) -> Limits {
    match member {
        Member::Sectors { format, .. } => {
            let blocks = bytes / units::u64_of(format.block.bytes());
            let limits = Limits::new(blocks * format.block.sectors(), format.block);
            Limits { tag_size: format.metadata.into(), protection: format.protection, ..limits }
        }
        Member::Path(_) | Member::Nbd(_) => Limits::new(bytes / SECTOR, BlockSize::B512),
    }
}

/// Whether the member is known to be zero; refuses one that is not, unless it may be overwritten.
async fn is_blank(
    member: &Member,
    device: &Device,
    kind: LeafKind,
    options: &CreateOptions,
    on_progress: &mut dyn FnMut(Phase, &CreateProgress),
) -> Result<bool, CreateError> {
    if options.yes {
        return Ok(false);
    }
    let thoroughness = match kind {
        LeafKind::File | LeafKind::Sectors | LeafKind::Memory => Thoroughness::Full,
        LeafKind::BlockDevice | LeafKind::Nbd => Thoroughness::Sampled,
    };
    let name = member.to_string();
    let mut tell = |done, total| on_progress(Phase::Looking, &CreateProgress { done, total });
    let content = look(device, thoroughness, &mut tell).await;
    let content = content.map_err(|error| CreateError::Io { member: name.clone(), error })?;
    if let Some(&signature) = content.signatures.first() {
        return Err(CreateError::Signature { member: name, signature });
    }
    if let Some(sector) = content.not_zero {
        return Err(CreateError::NotZero { member: name, sector });
    }
    Ok(content.blank)
}

fn is_absent(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn refuse_other_size(path: &Path, expected: u64) -> Result<(), CreateError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() != expected => {
            let member = path.display().to_string();
            Err(CreateError::Size { member, found: metadata.len(), expected })
        }
        _ => Ok(()),
    }
}

/// Member files made here; removed again unless they are kept.
#[derive(Default)]
struct MadeFiles(Vec<PathBuf>);

impl MadeFiles {
    fn make(&mut self, member: &Member, bytes: Bytes) -> Result<(), CreateError> {
        let Some(path) = member.path() else { return Ok(()) };
        if !is_absent(path) {
            return bytes.refuse_other(member, path);
        }
        let failed =
            |error| CreateError::Member(system_error(path.display().to_string(), true, error));
        let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
        self.0.push(path.to_owned());
        file.set_len(member.file_bytes(bytes.count())).map_err(failed)
    }

    fn contains(&self, member: &Member) -> bool {
        member.path().is_some_and(|path| self.0.iter().any(|made| made == path))
    }

    /// Keeps them, and makes their names durable.
    fn keep(mut self) -> Result<(), CreateError> {
        let made = std::mem::take(&mut self.0);
        for path in &made {
            let folder = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| {
                CreateError::Member(system_error(path.display().to_string(), true, error))
            })?;
        }
        Ok(())
    }
}

impl Drop for MadeFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // Already failing: that a useless file stays is the lesser evil.
            let _left = std::fs::remove_file(path);
        }
    }
}
