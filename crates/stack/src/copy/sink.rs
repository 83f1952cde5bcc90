//! Where an export goes.

use super::CopyError;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use units::u64_of;

/// Takes an export's bytes, in order. It may block: what it writes to is not the volume.
pub trait Sink {
    /// The next bytes.
    ///
    /// # Errors
    /// What the system says.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// The next `bytes` bytes could not be read, or are zero.
    ///
    /// # Errors
    /// What the system says.
    fn hole(&mut self, bytes: u64) -> io::Result<()>;

    /// That was all: make it last.
    ///
    /// # Errors
    /// What the system says.
    fn finish(&mut self) -> io::Result<()>;

    /// Its name, for messages.
    fn name(&self) -> String;
}

/// A file: zeroes and what could not be read are holes in it.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    path: PathBuf,
    position: u64,
    /// A new or emptied regular file, where what is not written reads as zeroes.
    sparse: bool,
}

impl FileSink {
    /// Creates `path`, or empties it if it exists and `overwrite` is set. `members` are the files
    /// of the volume, by device and inode number, which are never written.
    ///
    /// # Errors
    /// [`CopyError::Exists`], [`CopyError::IsMember`], [`CopyError::NotAFile`], or what the system
    /// says.
    pub fn create(path: &Path, overwrite: bool, members: &[(u64, u64)]) -> Result<Self, CopyError> {
        let other = |error| CopyError::Other { what: path.display().to_string(), error, done: 0 };
        let path = path.to_owned();
        match std::fs::metadata(&path) {
            Ok(existing) => {
                if members.contains(&(existing.dev(), existing.ino())) {
                    return Err(CopyError::IsMember { path });
                }
                let device = existing.file_type().is_block_device();
                if !device && !existing.is_file() {
                    return Err(CopyError::NotAFile { path });
                }
                if !overwrite {
                    return Err(CopyError::Exists { path });
                }
                let mut options = OpenOptions::new();
                let options = options.write(true).truncate(!device);
                let file = options.open(&path).map_err(other)?;
                Ok(Self { file, path: path.clone(), position: 0, sparse: !device })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut options = OpenOptions::new();
                let file = options.write(true).create_new(true).open(&path).map_err(other)?;
                Ok(Self { file, path: path.clone(), position: 0, sparse: true })
            }
            Err(error) => Err(other(error)),
        }
    }
}

impl Sink for FileSink {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(HOLE_BYTES) {
            if !self.sparse || piece.iter().any(|&byte| byte != 0) {
                self.file.write_all_at(piece, self.position)?;
            }
            self.position += u64_of(piece.len());
        }
        Ok(())
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        if self.sparse {
            self.position += bytes;
            return Ok(());
        }
        each_zero_piece(bytes, |zeroes| {
            self.file.write_all_at(zeroes, self.position)?;
            self.position += u64_of(zeroes.len());
            Ok(())
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.sparse {
            self.file.set_len(self.position)?;
        }
        self.file.sync_all()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// A stream, such as standard output: holes are written as zeroes.
pub struct StreamSink<W> {
    writer: W,
    name: String,
}

impl<W: Write> StreamSink<W> {
    /// Writes to `writer`, which messages call `name`.
    pub fn new(writer: W, name: &str) -> Self {
        Self { writer, name: name.to_owned() }
    }
}

impl<W: Write> Sink for StreamSink<W> {
    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn hole(&mut self, bytes: u64) -> io::Result<()> {
        each_zero_piece(bytes, |zeroes| self.writer.write_all(zeroes))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

fn each_zero_piece(bytes: u64, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let zeroes = [0; HOLE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let piece = left.min(u64_of(HOLE_BYTES));
        write(&zeroes[..units::usize_of(piece)])?;
        left -= piece;
    }
    Ok(())
}

/// The grain of holes: that of most file systems' blocks, times a few.
const HOLE_BYTES: usize = 16 << 10;
