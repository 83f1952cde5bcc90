//! What is written: a file that has its name only when it is whole.
//!
//! 1. The bytes go to `NAME.partial-PID` beside it, a new file. A crash leaves that, and what had the
//!    name before.
//! 2. It is given its length and synced. The same.
//! 3. It is renamed. A crash leaves the old file or the new one, whole.
//! 4. The folder is synced. Now the new one is there.
//!
//! Whoever gives up earlier, on an error or because he was interrupted, removes the partial file. A
//! block device has no other name: it is written in place, and is whole only when that was said.

use super::error::DifFileError;
use runtime::{OpenError, OpenOptions};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

/// A file under way.
pub struct Target {
    file: File,
    /// Its name in the end; of a file that is there, without symbolic links.
    path: PathBuf,
    /// Its name until then; none: a device.
    partial: Option<PathBuf>,
    /// What is there, locked, so that nobody's file loses its name.
    _replaced: Option<runtime::File>,
}

impl Target {
    /// Refuses what [`Self::create`] would refuse; makes nothing.
    pub(super) fn check<'a>(
        path: &Path,
        overwrite: bool,
        others: impl IntoIterator<Item = &'a Path>,
    ) -> Result<Option<fs::Metadata>, DifFileError> {
        let existing = match fs::metadata(path) {
            Ok(existing) => existing,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if others.into_iter().any(|other| other == path) {
                    return Err(DifFileError::Twice { path: path.to_owned() });
                }
                return Ok(None);
            }
            Err(error) => return Err(io_error(path, error)),
        };
        if !existing.file_type().is_block_device() && !existing.is_file() {
            return Err(DifFileError::NotAFile { path: path.to_owned() });
        }
        let this = crate::leaf::identity(path);
        if others.into_iter().any(|other| crate::leaf::identity(other) == this) {
            return Err(DifFileError::Twice { path: path.to_owned() });
        }
        if !overwrite {
            return Err(DifFileError::Exists { path: path.to_owned() });
        }
        Ok(Some(existing))
    }

    /// Makes ready to write `bytes` bytes to `path`, which must not be there unless `overwrite` is set,
    /// and must be none of `others`.
    ///
    /// # Errors
    /// [`DifFileError`]; nothing is left behind then.
    pub(super) fn create<'a>(
        path: &Path,
        overwrite: bool,
        others: impl IntoIterator<Item = &'a Path>,
        bytes: u64,
    ) -> Result<Self, DifFileError> {
        let failed = |error| io_error(path, error);
        let Some(existing) = Self::check(path, overwrite, others)? else {
            return Self::partial(path, None).map_err(failed);
        };
        let options = OpenOptions { write: true, direct_offset_max: 0, lock: true };
        let locked = match runtime::File::open(path, &options) {
            Ok(locked) => locked,
            Err(OpenError::Io(error)) => return Err(failed(error)),
            Err(error) => return Err(DifFileError::Open { path: path.to_owned(), error }),
        };
        let path = fs::canonicalize(path).map_err(failed)?;
        if !existing.file_type().is_block_device() {
            return Self::partial(&path, Some(locked)).map_err(failed);
        }
        let size = locked.size_bytes().map_err(failed)?;
        if size < bytes {
            return Err(DifFileError::TooSmall { path, size, needed: bytes });
        }
        let file = File::options().write(true).open(&path).map_err(failed)?;
        Ok(Self { file, path, partial: None, _replaced: Some(locked) })
    }

    fn partial(path: &Path, replaced: Option<runtime::File>) -> io::Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not the name of a file"));
        };
        let mut name = name.to_owned();
        name.push(format!(".partial-{}", std::process::id()));
        let partial = path.with_file_name(name);
        let file = File::options().write(true).create_new(true).open(&partial)?;
        let path = path.to_owned();
        Ok(Self { file, path, partial: Some(partial), _replaced: replaced })
    }

    /// Writes `bytes` at `offset`.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), DifFileError> {
        self.file.write_all_at(bytes, offset).map_err(|error| DifFileError::Io {
            path: self.path.clone(),
            error,
            byte: offset,
        })
    }

    /// Leaves `bytes` bytes at `offset` a hole.
    pub(super) fn hole(&self, bytes: usize, offset: u64) -> Result<(), DifFileError> {
        // In a new file, what is not written is one.
        if self.partial.is_some() { Ok(()) } else { self.write(&vec![0; bytes], offset) }
    }

    /// Gives it its length, and its name.
    pub(super) fn finish(mut self, bytes: u64) -> Result<(), DifFileError> {
        let Some(partial) = self.partial.clone() else {
            return self.file.sync_all().map_err(|error| io_error(&self.path, error));
        };
        let renamed = self
            .file
            .set_len(bytes)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&partial, &self.path));
        renamed.map_err(|error| io_error(&self.path, error))?;
        self.partial = None;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| io_error(folder, error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _gone = fs::remove_file(partial);
        }
    }
}

fn io_error(path: &Path, error: io::Error) -> DifFileError {
    DifFileError::Io { path: path.to_owned(), error, byte: 0 }
}
