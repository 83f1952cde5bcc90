//! The file of a ledger: `FOLDER/ledger.jsonl`, a line for each event.
//!
//! Who writes holds the lock on `FOLDER/ledger.lock` for one batch of lines, and has read all that
//! others wrote before. Who reads needs no lock: lines are only added, and a smaller file takes the
//! old one's place under its name.

use crate::book::Book;
use crate::compact::compact;
use crate::record::{Draft, Kind, LineError, Record, Time};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A file that grows beyond this is compacted.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// A file larger than this was not written here, and is not read.
const READ_BYTES_MAX: u64 = 4 * FILE_BYTES_MAX;
/// How long another writer is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(10);

const LINES: &str = "ledger.jsonl";
const LOCK: &str = "ledger.lock";
const NEW: &str = "ledger.new";

/// The files that a ledger in `folder` may be made of.
#[must_use]
pub fn files(folder: &Path) -> [PathBuf; 3] {
    [LINES, LOCK, NEW].map(|name| folder.join(name))
}

/// Why a ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Something else has the name of one of its files.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The name.
        path: PathBuf,
    },
    /// A file that no version of this writes.
    #[error("{}: {bytes} bytes, a ledger has {READ_BYTES_MAX} at most", path.display())]
    Large {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Somebody else writes, and does not end.
    #[error("{}: locked by another process for {} seconds", path.display(), LOCK_WAIT.as_secs())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
}

/// A ledger, as far as it has been read.
#[derive(Debug)]
pub struct Ledger {
    folder: PathBuf,
    book: Book,
    read: Option<ReadSoFar>,
    bytes_max: u64,
    /// What the last replacement left: open entries may need more than half of the room.
    replaced_bytes: u64,
}

/// Up to where a file has been read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ReadSoFar {
    file: (u64, u64),
    /// Behind the last whole line.
    offset: u64,
}

impl Ledger {
    /// The ledger in `folder`; nothing is read or made yet.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            book: Book::default(),
            read: None,
            bytes_max: FILE_BYTES_MAX,
            replaced_bytes: 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn with_bytes_max(folder: PathBuf, bytes_max: u64) -> Self {
        Self { bytes_max, ..Self::new(folder) }
    }

    /// What the lines that were read amount to.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// Reads what was added since, by whomever. A ledger that does not exist is empty.
    ///
    /// # Errors
    /// [`LedgerError`]; what was read before is kept.
    pub fn refresh(&mut self) -> Result<&Book, LedgerError> {
        let path = self.folder.join(LINES);
        match open(&path, OFlags::RDONLY) {
            Ok(mut file) => drop(self.catch_up(&mut file, &path)?),
            Err(LedgerError::Io { error, .. }) if is_absent(&error) => {
                (self.book, self.read) = (Book::default(), None);
            }
            Err(error) => return Err(error),
        }
        Ok(&self.book)
    }

    /// Writes a line for each of `drafts` that is news, durably. How many that were.
    ///
    /// 1. The lines are added. A crash leaves some of them, the last one perhaps torn: the next
    ///    writer ends it, and readers skip and count it.
    /// 2. The file is made durable, and so is its folder if the file is new. A crash before that
    ///    loses this batch at most, never a line of an earlier one.
    /// 3. A file that has grown too large is replaced, old lines becoming counts.
    ///
    /// # Errors
    /// [`LedgerError`]; then none of the drafts may be taken as written.
    pub fn append(&mut self, drafts: &[Draft]) -> Result<usize, LedgerError> {
        // To say nothing new, nothing has to be writable.
        self.refresh()?;
        if book_lines(&mut self.book.clone(), drafts).0 == 0 {
            return Ok(0);
        }
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|error| LedgerError::Io { path: self.folder.clone(), error })?;
        let _lock = self.lock()?;
        let path = self.folder.join(LINES);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::APPEND;
        let mut file = open(&path, flags)?;
        let is_torn = self.catch_up(&mut file, &path)?;
        let (count, mut lines) = book_lines(&mut self.book, drafts);
        if is_torn {
            lines.insert(0, b'\n');
        }
        // Whatever fails from here on, the file says what is known, not the book.
        let read = self.read.take();
        let failed = |error| LedgerError::Io { path: path.clone(), error };
        file.write_all(&lines).and_then(|()| file.sync_data()).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if read.is_none_or(|read| read.offset == 0) {
            self.sync_folder()?;
        }
        // What a torn line turns out to be with an end, reading tells.
        self.read = read.filter(|_| !is_torn).map(|read| ReadSoFar { offset: length, ..read });
        if length > self.bytes_max.max(self.replaced_bytes / 2 * 3) {
            self.replaced_bytes = self.replace(&mut file)?;
        }
        Ok(count)
    }

    /// Sets the counters to zero and forgets what is open: of one member, by its lasting identity,
    /// or of all. What is still damaged will be found again.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is cleared.
    pub fn clear(&mut self, device: Option<&str>) -> Result<(), LedgerError> {
        self.refresh()?;
        if self.read.is_some() {
            let mut draft = Draft::new(Kind::Cleared, Time::now());
            draft.device = device.map(str::to_owned);
            self.append(&[draft])?;
        }
        Ok(())
    }

    /// Puts a smaller file in the place of the file; how many bytes that has.
    ///
    /// 1. The smaller one is written under a name of its own and made durable. A crash leaves it
    ///    beside the old one; the next replacement begins anew.
    /// 2. It takes the old one's name. A crash leaves one or the other, whole.
    /// 3. The folder is made durable. A crash before that may bring the old one back, whole; lines
    ///    that were added to the new one since are durable only after this step, and none are.
    fn replace(&mut self, file: &mut File) -> Result<u64, LedgerError> {
        let (path, new) = (self.folder.join(LINES), self.folder.join(NEW));
        self.read = None;
        let failed = |error| LedgerError::Io { path: path.clone(), error };
        let mut lines = Vec::new();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.take(READ_BYTES_MAX).read_to_end(&mut lines).map_err(failed)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut target = open(&new, flags)?;
        let compacted = compact(&lines);
        let written = target.write_all(&compacted).and_then(|()| target.sync_all());
        written.map_err(|error| LedgerError::Io { path: new.clone(), error })?;
        fs::rename(&new, &path).map_err(failed)?;
        self.sync_folder()?;
        Ok(units::u64_of(compacted.len()))
    }

    fn sync_folder(&self) -> Result<(), LedgerError> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| LedgerError::Io { path: self.folder.clone(), error })
    }

    fn lock(&self) -> Result<File, LedgerError> {
        let path = self.folder.join(LOCK);
        let file = open(&path, OFlags::RDWR | OFlags::CREATE)?;
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() > LOCK_WAIT => {
                    return Err(LedgerError::Locked { path });
                }
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(LOCK_POLL),
                Err(error) => return Err(LedgerError::Io { path, error: error.into() }),
            }
        }
    }

    /// Reads on, or anew if it is another file; whether its last line is torn.
    fn catch_up(&mut self, file: &mut File, path: &Path) -> Result<bool, LedgerError> {
        let failed = |error| LedgerError::Io { path: path.to_owned(), error };
        let found = file.metadata().map_err(failed)?;
        let (number, length) = ((found.dev(), found.ino()), found.len());
        let known = self.read.filter(|read| read.file == number && read.offset <= length);
        let offset = known.map_or(0, |read| read.offset);
        let tail = read_from(file, offset, path)?;
        if known.is_none() {
            self.book = Book::default();
        }
        let whole = fold(&mut self.book, &tail);
        self.read = Some(ReadSoFar { file: number, offset: offset + units::u64_of(whole) });
        Ok(whole < tail.len())
    }
}

fn book_lines(book: &mut Book, drafts: &[Draft]) -> (usize, Vec<u8>) {
    let (mut count, mut lines) = (0, Vec::new());
    for draft in drafts {
        let record = Record::new(draft.clone(), book.last_seq().saturating_add(1));
        if book.apply(&record) {
            count += 1;
            lines.extend(record.encode());
        }
    }
    (count, lines)
}

/// Takes the whole lines of `bytes` into account; how many bytes they have.
pub(crate) fn fold(book: &mut Book, bytes: &[u8]) -> usize {
    each_line(bytes, |line| match line {
        Ok(record) => drop(book.apply(&record)),
        Err(_) => book.unreadable(),
    })
}

fn each_line(bytes: &[u8], mut tell: impl FnMut(Result<Record, LineError>)) -> usize {
    let Some(last) = bytes.iter().rposition(|&byte| byte == b'\n') else { return 0 };
    bytes[..last].split(|&byte| byte == b'\n').for_each(|line| tell(Record::decode(line)));
    last + 1
}

/// Tells `tell` of every whole line of the ledger in `folder`, oldest first.
///
/// # Errors
/// [`LedgerError`].
pub fn lines(
    folder: &Path,
    tell: impl FnMut(Result<Record, LineError>),
) -> Result<(), LedgerError> {
    let path = folder.join(LINES);
    match open(&path, OFlags::RDONLY) {
        Ok(mut file) => {
            let bytes = read_from(&mut file, 0, &path)?;
            each_line(&bytes, tell);
            Ok(())
        }
        Err(LedgerError::Io { error, .. }) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

fn read_from(file: &mut File, offset: u64, path: &Path) -> Result<Vec<u8>, LedgerError> {
    let failed = |error| LedgerError::Io { path: path.to_owned(), error };
    let bytes = file.metadata().map_err(failed)?.len();
    if bytes > READ_BYTES_MAX {
        return Err(LedgerError::Large { path: path.to_owned(), bytes });
    }
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    file.take(READ_BYTES_MAX).read_to_end(&mut tail).map_err(failed)?;
    Ok(tail)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Opens a regular file of our own: not through a link, and without waiting for a pipe's peer.
fn open(path: &Path, flags: OFlags) -> Result<File, LedgerError> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR);
    let failed = |error: io::Error| LedgerError::Io { path: path.to_owned(), error };
    let file = File::from(opened.map_err(|error| failed(error.into()))?);
    let found = file.metadata().map_err(failed)?;
    if found.is_file() { Ok(file) } else { Err(LedgerError::NotAFile { path: path.to_owned() }) }
}

#[cfg(test)]
mod tests;
