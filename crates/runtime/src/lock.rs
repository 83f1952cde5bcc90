//! Locks between processes, and who holds them.
//!
//! An open file description lock belongs to one opening of a file, so it also keeps this process
//! from opening a file twice. The kernel does not say whose it is; `/proc` does, as far as we may
//! look.
#![allow(unsafe_code, reason = "fcntl with a lock has no safe wrapper")]

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// Who has what we wanted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Holder {
    /// This process: it was opened twice.
    Ourselves,
    /// Another process.
    Process {
        /// Its number.
        pid: u32,
        /// Its name, as `ps` shows it.
        command: String,
    },
    /// The kernel: a mount, an array, a mapping, swap.
    Kernel(String),
    /// We may not see who.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ourselves => f.write_str("this very process, which opened it before"),
            Self::Process { pid, command } => write!(f, "process {pid} ({command})"),
            Self::Kernel(what) => write!(f, "the kernel ({what})"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// Locks all of the file's bytes, for writing or for reading; whoever forbids it, if somebody does.
///
/// Requests that a process had in flight when it was killed are finished by the kernel after the
/// process is gone, and hold its lock until then: so that the next one neither reads nor writes in
/// between. A lock that belongs to nobody to be seen is therefore waited for, a moment.
pub(crate) fn lock(
    file: impl AsFd,
    write: bool,
    metadata: &Metadata,
) -> io::Result<Option<Holder>> {
    let begun = Instant::now();
    while !try_lock(file.as_fd(), write)? {
        let holder = holder(metadata);
        if holder != Holder::Unknown || begun.elapsed() > GRACE {
            return Ok(Some(holder));
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

/// How long a lock is waited for whose holder is gone.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(5);

/// Gives up the lock of this opening, if it has one.
pub(crate) fn unlock(file: impl AsFd) {
    // It is closed next, which unlocks as well.
    let _unlocked = set_lock(file, libc::F_UNLCK);
}

/// Locks all of the file's bytes, for writing or for reading; false if somebody's lock forbids it.
fn try_lock(file: impl AsFd, write: bool) -> io::Result<bool> {
    set_lock(file, if write { libc::F_WRLCK } else { libc::F_RDLCK })
}

/// Makes the lock of this opening, over all of the file's bytes, one of `kind`; false if somebody's
/// lock forbids it.
fn set_lock(file: impl AsFd, kind: i32) -> io::Result<bool> {
    let short = |number: i32| libc::c_short::try_from(number).expect("a small constant");
    let range = libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the lock is a valid structure for the length of the call.
    let result =
        unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Who keeps us from what has this metadata.
pub(crate) fn holder(wanted: &Metadata) -> Holder {
    if let Some(user) = kernel_user(wanted) {
        return Holder::Kernel(user);
    }
    let mut found = Holder::Unknown;
    for process in entries(Path::new("/proc")) {
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        for open in entries(&process.join("fd")) {
            if !std::fs::metadata(&open).is_ok_and(|other| same(wanted, &other)) {
                continue;
            }
            let name = open.file_name().unwrap_or_default();
            let information = std::fs::read_to_string(process.join("fdinfo").join(name));
            if information.is_ok_and(|text| text.contains("lock:")) {
                return describe(pid, &process);
            }
            // It has it open, though without a lock: the best guess for a block device.
            if wanted.file_type().is_block_device() && pid != std::process::id() {
                found = describe(pid, &process);
            }
        }
    }
    found
}

/// What in the kernel uses a block device, if anything does and says so.
pub(crate) fn kernel_user(device: &Metadata) -> Option<String> {
    if !device.file_type().is_block_device() {
        return None;
    }
    let number = device.rdev();
    let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let holders = format!("/sys/dev/block/{number}/holders");
    if let Some(name) =
        entries(Path::new(&holders)).find_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
    {
        return Some(format!("member of {name}"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let matches = fields.next() == Some(&number);
        let place = fields.nth(1)?;
        matches.then(|| format!("mounted on {place}"))
    })
}

fn same(wanted: &Metadata, other: &Metadata) -> bool {
    if wanted.file_type().is_block_device() {
        other.file_type().is_block_device() && wanted.rdev() == other.rdev()
    } else {
        (wanted.dev(), wanted.ino()) == (other.dev(), other.ino())
    }
}

fn describe(pid: u32, process: &Path) -> Holder {
    if pid == std::process::id() {
        return Holder::Ourselves;
    }
    let command = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    Holder::Process { pid, command: command.trim().to_owned() }
}

/// The paths in a directory, as far as we may look.
fn entries(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}
