//! Files and block devices.
//!
//! Opening decides everything that does not change later: the kind, whether the page cache is
//! bypassed and at what alignment, and the lock. What waits for a device is `async`; questions to
//! the file system are asked in place.

use crate::lock::{self, Holder};
use crate::operation::Request;
use crate::reactor::{checked, start};
use bio::{Buf, Segments};
use rustix::fs::{AtFlags, FallocateFlags, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;
use std::fs::Metadata;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use units::usize_of;

/// Alignment that direct I/O needs where nobody says: a page suits every file system known.
const PAGE: usize = 4096;
/// Pause before repeating a call that could not be made right now.
const SHORTAGE: Duration = Duration::from_millis(1);

/// How to open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenOptions {
    /// Read and write, else read only.
    pub write: bool,
    /// Bypass the page cache if that needs no coarser offsets than this many bytes; 0: never.
    pub direct_offset_max: usize,
    /// Refuse what another process writes, and be the only one if we write.
    pub lock: bool,
}

/// Why a path was not opened. Reads on after the path and a colon.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is a directory.
    #[error("a directory, expected a file or a block device")]
    Directory,
    /// It is a socket, a terminal, ...
    #[error("neither a file nor a block device")]
    Kind,
    /// Somebody else has it.
    #[error("in use by {0}")]
    Locked(Holder),
}

/// What was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileKind {
    /// A file of a file system.
    Regular,
    /// A whole disk, a partition, a loop device, ...
    BlockDevice,
}

/// Multiples, in bytes, that direct I/O asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Alignment {
    /// Of each buffer's address and length.
    pub memory: usize,
    /// Of the offset in the file, and of the length.
    pub offset: usize,
}

/// How space is to be changed, always to zeroes except for `Reserve`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Allocate {
    /// Give the space back; reads as zeroes. On a block device: the device itself writes zeroes,
    /// and may unmap.
    PunchHole,
    /// Keep space allocated; reads as zeroes.
    ZeroRange,
    /// Make sure that there is space. What was there stays.
    Reserve,
}

impl Allocate {
    fn mode(self) -> FallocateFlags {
        match self {
            Self::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            // These grow a file that was truncated meanwhile, as a write would.
            Self::ZeroRange => FallocateFlags::ZERO_RANGE,
            Self::Reserve => FallocateFlags::empty(),
        }
    }
}

/// An open file or block device.
#[derive(Debug)]
pub struct File {
    fd: Rc<OwnedFd>,
    kind: FileKind,
    direct: Option<Alignment>,
    logical_block: usize,
    device_number: u64,
}

impl Drop for File {
    /// The kernel may keep what a ring opened for as long as it has not forgotten the requests that it
    /// answered, which takes the ring's thread: the lock goes now. Requests in flight keep it.
    fn drop(&mut self) {
        if Rc::strong_count(&self.fd) == 1 {
            lock::unlock(&self.fd);
        }
    }
}

impl File {
    /// Opens `path`, locks it and finds out how it can be used.
    ///
    /// Files get an open file description lock on all of their bytes: a write lock for writing, a
    /// read lock for reading. Block devices get the same on their node and, for writing, are opened
    /// `O_EXCL`, which also excludes mounts, md and device-mapper; for reading, a device that these
    /// use is refused too.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing stays open.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, OpenError> {
        let kind = kind_of(&std::fs::metadata(path)?)?;
        let exclusive = kind == FileKind::BlockDevice && options.write && options.lock;
        let extra = if exclusive { libc::O_EXCL } else { 0 };
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(options.write)
            // Not to wait for a peer, should the path have become a pipe meanwhile.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | extra)
            .open(path);
        let file = match file {
            Err(error) if exclusive && error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(OpenError::Locked(lock::holder(&std::fs::metadata(path)?)));
            }
            other => other?,
        };
        let metadata = file.metadata()?;
        if kind_of(&metadata)? != kind {
            return Err(OpenError::Kind);
        }
        if options.lock {
            let in_use = (kind == FileKind::BlockDevice && !options.write)
                .then(|| lock::kernel_user(&metadata))
                .flatten();
            if let Some(user) = in_use {
                return Err(OpenError::Locked(Holder::Kernel(user)));
            }
            if let Some(holder) = lock::lock(&file, options.write, &metadata)? {
                return Err(OpenError::Locked(holder));
            }
        }
        let fd = OwnedFd::from(file);
        let logical_block = match kind {
            FileKind::Regular => 512,
            FileKind::BlockDevice => {
                usize_of(rustix::fs::ioctl_blksszget(&fd).map_err(io::Error::from)?.into())
            }
        };
        let direct = set_direct(&fd, kind, logical_block, options.direct_offset_max)?;
        let device_number =
            if kind == FileKind::BlockDevice { metadata.rdev() } else { metadata.dev() };
        Ok(Self { fd: Rc::new(fd), kind, direct, logical_block, device_number })
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// The alignment that reads and writes must have since they bypass the page cache; none: they
    /// go through it, in any alignment.
    #[must_use]
    pub fn direct(&self) -> Option<Alignment> {
        self.direct
    }

    /// The device's logical sector in bytes; 512 for a regular file.
    #[must_use]
    pub fn logical_block(&self) -> usize {
        self.logical_block
    }

    /// Number of the block device that this is, or that its file system lies on.
    #[must_use]
    pub fn device_number(&self) -> u64 {
        self.device_number
    }

    /// Its size now.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn size_bytes(&self) -> io::Result<u64> {
        match self.kind {
            FileKind::Regular => {
                let size = rustix::fs::fstat(&self.fd)?.st_size;
                u64::try_from(size).map_err(|_| io::ErrorKind::InvalidData.into())
            }
            FileKind::BlockDevice => Ok(rustix::fs::seek(&self.fd, SeekFrom::End(0))?),
        }
    }

    /// Whether [`Allocate::PunchHole`] can be expected to work here.
    #[must_use]
    pub fn can_punch(&self) -> bool {
        match self.kind {
            // Behind the end there is nothing to lose.
            FileKind::Regular => self.size_bytes().is_ok_and(|size| {
                let length = units::u64_of(PAGE);
                rustix::fs::fallocate(&self.fd, Allocate::PunchHole.mode(), size, length).is_ok()
            }),
            FileKind::BlockDevice => {
                let number = self.device_number;
                let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
                // A partition's queue is that of its disk, one folder up.
                ["queue", "../queue"].into_iter().any(|queue| {
                    let limit =
                        format!("/sys/dev/block/{major}:{minor}/{queue}/write_zeroes_max_bytes");
                    std::fs::read_to_string(limit)
                        .is_ok_and(|text| text.trim().parse().is_ok_and(|bytes: u64| bytes > 0))
                })
            }
        }
    }

    /// The first byte at or after `offset` that is stored; none: there is a hole up to the end.
    /// What does not know of holes says `offset`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(offset)),
            Err(error) => Err(error.into()),
        }
    }

    /// The first byte at or after `offset` that is not stored, at the latest the file's end; none:
    /// `offset` is at or past the end, or nothing here knows of holes.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn next_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.fd, SeekFrom::Hole(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Fills `data` from `offset` on. Fewer bytes than asked: the file ends there, or there is an
    /// error; asking for the rest tells which (0 bytes: the end).
    ///
    /// # Panics
    /// If a buffer is shared.
    pub async fn read_at(&self, data: Segments, offset: u64) -> (io::Result<usize>, Segments) {
        self.read_rest_at(data, 0, offset).await
    }

    /// The same when the first `done` bytes are there already; counts the others. `offset` is where
    /// the first byte of all lies.
    ///
    /// # Panics
    /// If a buffer is shared or there are fewer bytes than `done`.
    pub async fn read_rest_at(
        &self,
        data: Segments,
        done: usize,
        offset: u64,
    ) -> (io::Result<usize>, Segments) {
        let left = data.len_bytes().checked_sub(done).expect("done is part of the data");
        self.transfer(Request::Read { data, done, offset }, left).await
    }

    /// Stores `data` from `offset` on, durable when complete if so told. Fewer bytes than given:
    /// there was an error after them; giving the rest tells which.
    pub async fn write_at(
        &self,
        data: Segments,
        offset: u64,
        durable: bool,
    ) -> (io::Result<usize>, Segments) {
        self.write_rest_at(data, 0, offset, durable).await
    }

    /// The same when the first `done` bytes are stored already; counts the others. `offset` is
    /// where the first byte of all lies.
    ///
    /// # Panics
    /// If there are fewer bytes than `done`.
    pub async fn write_rest_at(
        &self,
        data: Segments,
        done: usize,
        offset: u64,
        durable: bool,
    ) -> (io::Result<usize>, Segments) {
        let left = data.len_bytes().checked_sub(done).expect("done is part of the data");
        self.transfer(Request::Write { data, done, offset, durable }, left).await
    }

    async fn transfer(&self, request: Request, left: usize) -> (io::Result<usize>, Segments) {
        let (mut request, mut total) = (request, 0);
        let outcome = loop {
            if total == left {
                break Ok(total);
            }
            let (result, back) = start(&self.fd, request).await;
            request = back;
            match checked(result) {
                Ok(0) => break Ok(total),
                Ok(count) => {
                    total += count;
                    request.advance(count);
                }
                Err(error) if again(&error).await => {}
                Err(error) if total == 0 => break Err(error),
                Err(_) => break Ok(total),
            }
        };
        (outcome, request.into_data())
    }

    /// Forgets what the page cache holds of a range, in bytes, so that the next read asks the
    /// medium. What has yet to be written stays. No effect past the page cache or in memory.
    pub fn forget_cached(&self, offset: u64, length: u64) {
        if self.direct.is_none() {
            // Advice: where it is not understood, the cache is all there is to read.
            let length = NonZeroU64::new(length);
            let _ = rustix::fs::fadvise(&self.fd, offset, length, rustix::fs::Advice::DontNeed);
        }
    }

    /// Makes every write that has completed durable, as `fdatasync` does.
    ///
    /// # Errors
    /// What the operating system says. The kernel tells a lost write once: who sees an error here
    /// must not believe a later success.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.repeat(|| Request::SyncData).await
    }

    /// Changes the space of a range, in bytes.
    ///
    /// # Errors
    /// What the operating system says; `EOPNOTSUPP` if this file system or device cannot.
    pub async fn allocate(&self, how: Allocate, offset: u64, length: u64) -> io::Result<()> {
        let mode = how.mode().bits().cast_signed();
        self.repeat(|| Request::Allocate { mode, offset, length }).await
    }

    async fn repeat(&self, request: impl Fn() -> Request) -> io::Result<()> {
        loop {
            let (result, _) = start(&self.fd, request()).await;
            match checked(result) {
                Ok(_) => return Ok(()),
                Err(error) if again(&error).await => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether the call was not made at all, and is to be repeated.
async fn again(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::Interrupted => true,
        io::ErrorKind::WouldBlock => {
            crate::sleep(SHORTAGE).await;
            true
        }
        _ => false,
    }
}

fn kind_of(metadata: &Metadata) -> Result<FileKind, OpenError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Ok(FileKind::Regular)
    } else if kind.is_block_device() {
        Ok(FileKind::BlockDevice)
    } else if kind.is_dir() {
        Err(OpenError::Directory)
    } else {
        Err(OpenError::Kind)
    }
}

/// Bypasses the page cache if that works at offsets of `offset_max` bytes; and takes back what
/// opening needed.
fn set_direct(
    fd: &OwnedFd,
    kind: FileKind,
    logical_block: usize,
    offset_max: usize,
) -> io::Result<Option<Alignment>> {
    rustix::fs::fcntl_setfl(fd, OFlags::empty())?;
    let stated = stated_alignment(fd);
    let alignment = stated.unwrap_or(match kind {
        FileKind::BlockDevice => Alignment { memory: logical_block, offset: logical_block },
        FileKind::Regular => Alignment { memory: PAGE, offset: PAGE },
    });
    if alignment.offset == 0 || alignment.offset > offset_max {
        return Ok(None);
    }
    if rustix::fs::fcntl_setfl(fd, OFlags::DIRECT).is_err() {
        return Ok(None);
    }
    if stated.is_none() {
        // Some file systems agree and then refuse every read.
        let mut trial = Buf::alloc(alignment.offset.max(alignment.memory));
        if rustix::io::pread(fd, trial.as_mut_slice(), 0).is_err() {
            rustix::fs::fcntl_setfl(fd, OFlags::empty())?;
            return Ok(None);
        }
    }
    Ok(Some(alignment))
}

/// What `statx` says (Linux 6.1 and later, not every file system): zeroes if it cannot be done.
fn stated_alignment(fd: &OwnedFd) -> Option<Alignment> {
    let found = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let stated = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::DIOALIGN);
    stated.then(|| Alignment {
        memory: usize_of(found.stx_dio_mem_align.into()),
        offset: usize_of(found.stx_dio_offset_align.into()),
    })
}

#[cfg(test)]
mod tests;
