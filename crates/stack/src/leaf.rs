//! Opens what a member is called.

use crate::fault::parse_rule;
use crate::member::Member;
use crate::patched::Patched;
use crate::spec::Node;
use crate::verdict::{self, Verdict};
use bio::Device;
use layers::fault::{Fault, Faults};
use layers::file::{FileDevice, FileOptions, OpenError, SectorFile, SectorFormat};
use layers::integrity::Lower;
use layers::memory::MemoryDevice;
use layers::nbd::NbdDevice;
use runtime::FileKind;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use units::{BlockSize, SECTOR};

/// What a member is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeafKind {
    /// A file of a file system.
    File,
    /// A file or a block device that holds sectors with metadata.
    Sectors,
    /// A block device.
    BlockDevice,
    /// An NBD export.
    Nbd,
    /// Memory.
    Memory,
}

/// An open member.
pub(crate) struct Leaf {
    pub device: Device,
    /// The device with the data, if this one holds only what belongs to it.
    pub data: Option<DataLeaf>,
    pub kind: LeafKind,
    /// How it is accessed, in words.
    pub access: String,
}

/// An open device that holds the data of a member.
pub(crate) struct DataLeaf {
    pub node: Node,
    pub device: Device,
    pub kind: LeafKind,
}

impl Leaf {
    /// What a dm-integrity volume on it lies on.
    pub fn lower(&self) -> Lower {
        let data = self.data.as_ref().map(|data| data.device.clone());
        Lower { metadata: self.device.clone(), data }
    }
}

/// Why a member cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// There is nothing of that name.
    #[error("{member}: no such file or device")]
    NotFound {
        /// The member.
        member: String,
    },
    /// We may not.
    #[error("{member}: permission denied ({})", if *.write { "writing" } else { "reading" })]
    Permission {
        /// The member.
        member: String,
        /// Whether it was to be written.
        write: bool,
    },
    /// It is a directory.
    #[error("{member}: is a directory, expected a file or block device")]
    Directory {
        /// The member.
        member: String,
    },
    /// It is a pipe, a socket, ...
    #[error("{member}: is neither a file nor a block device")]
    Kind {
        /// The member.
        member: String,
    },
    /// Somebody else uses it.
    #[error("{member}: in use by {holder}")]
    Locked {
        /// The member.
        member: String,
        /// Who, as far as can be seen.
        holder: String,
    },
    /// One member was named twice.
    #[error("{first} and {second} are the same member")]
    Twice {
        /// One name.
        first: String,
        /// The other, perhaps the same.
        second: String,
    },
    /// The NBD server did not let us in.
    #[error("{member}: {error}")]
    Nbd {
        /// The member.
        member: String,
        /// Why.
        error: String,
    },
    /// Anything else.
    #[error("{member}: {error}")]
    Io {
        /// The member.
        member: String,
        /// What the system said.
        error: io::Error,
    },
}

impl verdict::Fault for MemberError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Locked { .. } | Self::Twice { .. } | Self::Directory { .. } => Verdict::Refused,
            Self::Kind { .. } => Verdict::Refused,
            Self::NotFound { .. } | Self::Permission { .. } => Verdict::Failed,
            Self::Nbd { .. } | Self::Io { .. } => Verdict::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Permission { write: true, .. } => "use --read-only, or a user who may write it",
            Self::Permission { write: false, .. } => "use a user who may read it",
            Self::Locked { .. } => "stop that first; a served volume is asked through its server",
            Self::Twice { .. } => "name it once",
            Self::NotFound { .. } => "leave it out to start without it, if redundancy allows",
            Self::Directory { .. } => "name the members inside it",
            Self::Nbd { .. } => "is the server running, and the export's name right?",
            Self::Kind { .. } | Self::Io { .. } => return None,
        };
        Some(text.to_owned())
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::NotFound { member }
            | Self::Permission { member, .. }
            | Self::Directory { member }
            | Self::Kind { member }
            | Self::Locked { member, .. }
            | Self::Nbd { member, .. }
            | Self::Io { member, .. } => Some(member),
            Self::Twice { first, .. } => Some(first),
        }
    }
}

/// Opens `member`, locked. `write` false: nothing here can write it, whatever is above.
pub(crate) async fn open(member: &Member, write: bool) -> Result<Leaf, MemberError> {
    match member {
        Member::Nbd(uri) => open_nbd(uri, write).await,
        Member::Path(path) => open_path(path, write, smallest_block(path)),
        Member::Sectors { format, path } => open_sectors(path, *format, write),
    }
}

/// Opens `member` and the device that holds its data, both locked.
pub(crate) async fn open_pair(
    member: &Member,
    data: Option<&Member>,
    write: bool,
) -> Result<Leaf, MemberError> {
    let mut leaf = open(member, write).await?;
    leaf.data = match data {
        None => None,
        Some(data) => Some(open_data(&Node::Member(data.clone()), member.path(), write).await?),
    };
    Ok(leaf)
}

/// Opens the device with the data of a member, whose own path says which blocks are needed.
pub(crate) async fn open_data(
    node: &Node,
    metadata: Option<&Path>,
    write: bool,
) -> Result<DataLeaf, MemberError> {
    let leaf = match (node, metadata) {
        (Node::Member(Member::Path(path)), Some(metadata)) => {
            open_path(path, write, smallest_block(metadata))?
        }
        _ => open_node(node, write).await?,
    };
    Ok(DataLeaf { node: node.clone(), device: leaf.device, kind: leaf.kind })
}

/// Opens a leaf of a stack that was spelled out, with the faults above it.
pub(crate) async fn open_node(node: &Node, write: bool) -> Result<Leaf, MemberError> {
    match node {
        Node::Member(member) => open(member, write).await,
        Node::Fault(lower, rules) => {
            let leaf = Box::pin(open_node(lower, write)).await?;
            let faults = Faults::default();
            for rule in rules.iter().filter_map(|rule| parse_rule(rule).ok()) {
                faults.add(rule);
            }
            let device = Device::new(Fault::new(leaf.device, &faults));
            Ok(Leaf { device, access: format!("{}, with faults", leaf.access), ..leaf })
        }
        Node::Memory(bytes) => {
            let sectors = bytes / SECTOR / 8 * 8;
            let device = Device::new(MemoryDevice::new(sectors, BlockSize::B512));
            let access = "memory".to_owned();
            Ok(Leaf { device, data: None, kind: LeafKind::Memory, access })
        }
        other => {
            let member = other.to_string();
            Err(MemberError::Kind { member })
        }
    }
}

fn open_path(path: &Path, write: bool, block: BlockSize) -> Result<Leaf, MemberError> {
    let options = FileOptions { write, block, ..FileOptions::default() };
    let device = FileDevice::open(path, &options).map_err(|error| refused(path, write, error))?;
    let kind = match device.file().kind() {
        FileKind::Regular => LeafKind::File,
        FileKind::BlockDevice => LeafKind::BlockDevice,
    };
    let access = device.describe();
    Ok(Leaf { device: Device::new(device), data: None, kind, access })
}

fn open_sectors(path: &Path, format: SectorFormat, write: bool) -> Result<Leaf, MemberError> {
    let device = SectorFile::open(path, format, write);
    let device = device.map_err(|error| refused(path, write, error))?;
    let access = device.describe();
    Ok(Leaf { device: Device::new(device), data: None, kind: LeafKind::Sectors, access })
}

/// The block that the format on `path` needs at the finest, so that the page cache is bypassed
/// where that is possible. Only a guess: whatever cannot be read or is not ours needs 512 bytes.
fn smallest_block(path: &Path) -> BlockSize {
    let mut area = [0; integrity::superblock::SUPERBLOCK_BYTES];
    // Not to wait for a peer, if it is a pipe.
    let regular = std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() || metadata.file_type().is_block_device());
    let read = regular
        && std::fs::File::open(path).and_then(|file| file.read_exact_at(&mut area, 0)).is_ok();
    let superblock = read.then(|| integrity::Superblock::decode(&area).ok()).flatten();
    superblock.map_or(BlockSize::B512, |superblock| superblock.block)
}

fn refused(path: &Path, write: bool, error: OpenError) -> MemberError {
    let member = path.display().to_string();
    match error {
        OpenError::Directory => MemberError::Directory { member },
        OpenError::Kind => MemberError::Kind { member },
        OpenError::Locked(holder) => MemberError::Locked { member, holder: holder.to_string() },
        OpenError::Io(error) => system_error(member, write, error),
    }
}

/// What the operating system said about a member.
pub(crate) fn system_error(member: String, write: bool, error: io::Error) -> MemberError {
    match error.kind() {
        io::ErrorKind::NotFound => MemberError::NotFound { member },
        io::ErrorKind::PermissionDenied => MemberError::Permission { member, write },
        io::ErrorKind::ReadOnlyFilesystem => MemberError::Permission { member, write: true },
        io::ErrorKind::IsADirectory => MemberError::Directory { member },
        _ => MemberError::Io { member, error },
    }
}

async fn open_nbd(uri: &nbd::Uri, write: bool) -> Result<Leaf, MemberError> {
    let failed = |error: String| MemberError::Nbd { member: uri.to_string(), error };
    let connected = NbdDevice::connect(uri).await.map_err(|error| failed(error.to_string()))?;
    let device = Device::new(connected);
    if write && device.limits().read_only {
        return Err(failed("the server exports it read-only".to_owned()));
    }
    let device = if write { device } else { Device::new(Patched::read_only(device)) };
    let access = "one connection".to_owned();
    Ok(Leaf { device, data: None, kind: LeafKind::Nbd, access })
}

/// The file or device behind a path, whatever it is called: device and inode number, or the number
/// of the block device that it is.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    let block = metadata.file_type().is_block_device();
    Some(if block { (u64::MAX, metadata.rdev()) } else { (metadata.dev(), metadata.ino()) })
}

/// Refuses a member that is named twice, by whatever names.
pub(crate) fn refuse_twice<'a>(
    members: impl IntoIterator<Item = &'a Member>,
) -> Result<(), MemberError> {
    let mut seen: Vec<(&Member, Option<(u64, u64)>)> = Vec::new();
    for member in members {
        let identity = member.path().and_then(identity);
        let earlier = seen
            .iter()
            .find(|(other, known)| *other == member || (identity.is_some() && *known == identity));
        if let Some((first, _)) = earlier {
            let (first, second) = (first.to_string(), member.to_string());
            return Err(MemberError::Twice { first, second });
        }
        seen.push((member, identity));
    }
    Ok(())
}

/// The files of members, as [`crate::copy::FileSink`] must not write them.
pub(crate) fn file_numbers<'a>(members: impl IntoIterator<Item = &'a Member>) -> Vec<(u64, u64)> {
    let paths: Vec<PathBuf> =
        members.into_iter().filter_map(|member| member.path().map(Path::to_owned)).collect();
    let numbers = paths.iter().filter_map(|path| std::fs::metadata(path).ok());
    numbers.map(|metadata| (metadata.dev(), metadata.ino())).collect()
}
