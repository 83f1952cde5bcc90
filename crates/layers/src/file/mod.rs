//! A file or a block device as a device: the leaf on which real members lie.
//!
//! ```text
//!   bio  --->  [ bounce, if the memory is not aligned ]  --->  pread / pwrite  --->  the file
//!   flush, fua  ------------------------------------------->  fdatasync, RWF_DSYNC
//!   discard, write zeroes  -------------------------------->  fallocate, else plain zeroes
//! ```
//!
//! Direct I/O is used if it can address the blocks that the format above needs; else the page cache
//! is, and a flush is what makes it durable. Nothing is emulated by reading, changing and writing
//! back: that would tear blocks which the caller thinks are apart.
//!
//! Files of larger sectors, with metadata for each block, are a device of their own (sectors.rs).
//!
//! Knows no format. What it does know of failures:
//!
//! - A file that ends early (it was truncated) has lost its rest: a medium error, never zeroes.
//! - A failed sync is final. The kernel tells a lost write once and then forgets it, so no later
//!   sync of this device succeeds, however often it is asked.

mod sectors;
mod space;
mod sync;
mod transfer;

use bio::{Allocation, Bio, BlockDevice, IoErrorKind, IoResult, Limits, Op};
use runtime::{Alignment, File};
use std::io;
use std::path::Path;
use sync::SyncState;
use units::{BlockSize, SECTOR, Sector, u64_of};

pub use runtime::OpenError;
pub use sectors::{SectorFile, SectorFormat, SectorFormatError, SectorLayout};

/// How to open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileOptions {
    /// Read and write, else read only.
    pub write: bool,
    /// Bypass the page cache if blocks of `block` can be addressed that way.
    pub direct: bool,
    /// The smallest block that the format above reads or writes.
    pub block: BlockSize,
    /// Exclude other processes; see [`File::open`].
    pub lock: bool,
}

impl Default for FileOptions {
    /// Read only, direct, 512-byte blocks, locked.
    fn default() -> Self {
        Self { write: false, direct: true, block: BlockSize::B512, lock: true }
    }
}

/// A file or block device. Its size is what it was when opened.
pub struct FileDevice {
    file: File,
    limits: Limits,
    sync: SyncState,
}

impl FileDevice {
    /// Opens `path`. What is left over after the last whole block is not used.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, options: &FileOptions) -> Result<Self, OpenError> {
        let direct_offset_max = if options.direct { options.block.bytes() } else { 0 };
        let file = File::open(
            path,
            &runtime::OpenOptions { write: options.write, direct_offset_max, lock: options.lock },
        )?;
        let logical_block = file
            .direct()
            .and_then(|alignment| BlockSize::from_bytes(u64_of(alignment.offset)))
            .unwrap_or(BlockSize::B512);
        let sectors = file.size_bytes()? / SECTOR;
        let sectors = sectors - sectors % logical_block.sectors();
        let punches = options.write && file.can_punch();
        let limits = Limits {
            read_only: !options.write,
            discard: punches,
            fast_zeroes: punches,
            ..Limits::new(sectors, logical_block)
        };
        Ok(Self { file, limits, sync: SyncState::default() })
    }

    /// How it is accessed, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.file.direct() {
            Some(_) => format!("direct I/O, {}-byte blocks", self.limits.logical_block),
            None => "page cache".to_owned(),
        }
    }

    /// Whether the page cache is bypassed.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.file.direct().is_some()
    }

    /// The open file, for what only a leaf has: its kind, its device number.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    fn alignment(&self) -> Option<Alignment> {
        self.file.direct()
    }
}

impl BlockDevice for FileDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Read => self.read(bio).await,
            Op::Write { fua } => self.write(bio, fua).await,
            Op::Flush => self.sync.flush(&self.file).await,
            Op::Discard { sectors } => self.zero(bio.sector, sectors, true).await,
            Op::WriteZeroes { sectors, unmap } => self.zero(bio.sector, sectors, unmap).await,
            Op::Vouch | Op::Peek { .. } => Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.find_allocation(sector, sectors)
    }
}

/// What an error of the operating system means for the layer above.
fn kind_of(error: &io::Error) -> IoErrorKind {
    error.raw_os_error().map_or(IoErrorKind::Medium, IoErrorKind::from_errno)
}

#[cfg(test)]
mod tests;
