//! What is read: the files of an image, batch by batch, a few batches ahead.

use super::error::DifFileError;
use super::image::{Image, Layout};
use bio::{Buf, Segments};
use runtime::{File, FileKind, JoinHandle, OpenOptions};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use units::{u64_of, usize_of};

/// What is read of each interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Content {
    /// Data and metadata.
    Protected,
    /// Data alone.
    Data,
    /// Metadata alone, where it lies apart.
    Metadata,
}

/// The open files of an image, locked, for reading.
pub struct Source {
    inner: Rc<Inner>,
    ragged: Option<DifFileError>,
}

struct Inner {
    image: Image,
    content: Content,
    blocks: u64,
    data: Opened,
    /// The metadata, where it is in a file of its own.
    metadata: Option<Opened>,
}

struct Opened {
    path: PathBuf,
    file: File,
    size: u64,
}

/// Some intervals in a row.
pub(super) struct Batch {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: usize,
    pub bytes: Bytes,
    /// Those that could not be read, counted from the first; their bytes are zeroes.
    pub unreadable: Vec<usize>,
}

/// The bytes of a batch.
pub(super) enum Bytes {
    /// Each interval with its metadata behind it.
    Together(Buf),
    /// The data, and the metadata (empty if it was not asked for).
    Apart(Buf, Buf),
}

impl Source {
    /// Opens an image: `path`, and `metadata` if it is separate.
    ///
    /// # Errors
    /// [`DifFileError::Open`], [`DifFileError::Empty`].
    ///
    /// # Panics
    /// If separate metadata is not named.
    pub fn open(path: &Path, metadata: Option<&Path>, image: Image) -> Result<Self, DifFileError> {
        Self::new(path, metadata, image, Content::Protected)
    }

    /// Opens a file of data alone, of as many blocks as `image` shall have.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_data(path: &Path, image: Image) -> Result<Self, DifFileError> {
        Self::new(path, None, image, Content::Data)
    }

    fn new(
        path: &Path,
        metadata: Option<&Path>,
        image: Image,
        content: Content,
    ) -> Result<Self, DifFileError> {
        let data = Opened::new(path)?;
        let is_alone = content == Content::Data || image.layout() == Layout::Separate;
        let unit = if is_alone { image.block() } else { image.stride() };
        let blocks = data.blocks(unit)?;
        let leftover = data.size % u64_of(unit);
        // Behind the tables of QEMU, and of whole blocks on a device, bytes may be left over.
        let may_be_left = !is_alone && image.layout() == Layout::NvmeQemu
            || data.file.kind() == FileKind::BlockDevice;
        let mut ragged = (leftover > 0 && !may_be_left).then(|| {
            data.ragged(format!("ends within block {blocks}: {leftover} of {unit} bytes"))
        });
        let (mut blocks, mut opened) = (blocks, None);
        if content == Content::Protected && image.layout() == Layout::Separate {
            let metadata = metadata.expect("separate metadata has a file");
            let metadata = Opened::new(metadata)?;
            let has = metadata.blocks(image.metadata())?;
            if has != blocks && metadata.file.kind() == FileKind::Regular {
                let text = format!("has metadata for {has} blocks, the data has {blocks}");
                ragged.get_or_insert_with(|| metadata.ragged(text));
            }
            blocks = blocks.min(has);
            opened = Some(metadata);
        }
        let inner = Inner { image, content, blocks, data, metadata: opened };
        Ok(Self { inner: Rc::new(inner), ragged })
    }

    /// What it was opened as.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.inner.image
    }

    /// Whole blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.inner.blocks
    }

    /// What is wrong with the size of its files, if that is so: not all of the last block is there.
    #[must_use]
    pub fn ragged(&self) -> Option<&DifFileError> {
        self.ragged.as_ref()
    }

    /// `range` or all blocks.
    ///
    /// # Errors
    /// [`DifFileError::Range`] for blocks that are not there, or none.
    pub fn range(&self, range: Option<Range<u64>>) -> Result<Range<u64>, DifFileError> {
        let blocks = self.blocks();
        let range = range.unwrap_or(0..blocks);
        if range.is_empty() || range.end > blocks {
            return Err(DifFileError::Range { first: range.start, end: range.end, blocks });
        }
        Ok(range)
    }

    /// The same for what is written from it: nothing may be missing, unless a range was asked for.
    ///
    /// # Errors
    /// [`DifFileError::Ragged`] as well.
    pub fn range_to_copy(&self, range: Option<Range<u64>>) -> Result<Range<u64>, DifFileError> {
        match (&self.ragged, &range) {
            (Some(DifFileError::Ragged { path, text }), None) => {
                Err(DifFileError::Ragged { path: path.clone(), text: text.clone() })
            }
            _ => self.range(range),
        }
    }

    /// The names of its files.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.inner.data), self.inner.metadata.as_ref()]
            .into_iter()
            .flatten()
            .map(|opened| opened.path.as_path())
    }

    /// The name of its data, for messages.
    pub(super) fn name(&self) -> String {
        self.inner.data.path.display().to_string()
    }

    /// Where interval `interval` has its data and its metadata.
    pub(super) fn places(&self, interval: u64) -> (u64, u64) {
        self.inner.image.places(self.inner.blocks, interval)
    }

    /// Reads the blocks of `range` in order.
    pub(super) fn read(&self, range: &Range<u64>) -> Reader {
        self.read_content(range, self.inner.content)
    }

    /// The same for whoever needs the metadata only: the data is left out where that saves anything.
    pub(super) fn read_metadata(&self, range: &Range<u64>) -> Reader {
        self.read_content(range, Content::Metadata)
    }

    fn read_content(&self, range: &Range<u64>, content: Content) -> Reader {
        let per_block = self.inner.image.per_block();
        let batch = batch_intervals(self.inner.image.profile().format.stride());
        let stride = self.inner.image.profile().format.stride();
        Reader {
            inner: Rc::clone(&self.inner),
            content,
            next: range.start * per_block,
            end: range.end * per_block,
            batch: u64_of(batch),
            ahead: (AHEAD_BYTES / (batch * stride)).clamp(1, AHEAD_MAX),
            reads: VecDeque::new(),
        }
    }
}

impl Opened {
    fn new(path: &Path) -> Result<Self, DifFileError> {
        let failed = |error| DifFileError::Open { path: path.to_owned(), error };
        // Nothing that these sizes are aligned to: the page cache.
        let options = OpenOptions { write: false, direct_offset_max: 0, lock: true };
        let file = File::open(path, &options).map_err(failed)?;
        let size = file.size_bytes().map_err(|error| failed(error.into()))?;
        Ok(Self { path: path.to_owned(), file, size })
    }

    /// Whole blocks of `unit` bytes, at least one.
    fn blocks(&self, unit: usize) -> Result<u64, DifFileError> {
        match self.size / u64_of(unit) {
            0 => {
                let (path, bytes) = (self.path.clone(), self.size);
                Err(DifFileError::Empty { path, bytes, block: u64_of(unit) })
            }
            blocks => Ok(blocks),
        }
    }

    fn ragged(&self, text: String) -> DifFileError {
        DifFileError::Ragged { path: self.path.clone(), text }
    }

    /// `count` pieces of `length` bytes from `offset` on. Those that the medium does not give are
    /// zeroes, and `unreadable` is told which.
    async fn read(
        &self,
        offset: u64,
        (length, count): (usize, usize),
        unreadable: &mut Vec<usize>,
    ) -> Result<Buf, DifFileError> {
        match self.read_exact(offset, Buf::alloc(length * count)).await {
            Ok(buf) => return Ok(buf),
            Err(error) if is_of_medium(&error) => {}
            Err(error) => return Err(self.failed(error, offset)),
        }
        let mut whole = Buf::zeroed(length * count);
        for (index, place) in whole.as_mut_slice().chunks_exact_mut(length).enumerate() {
            let start = offset + u64_of(index * length);
            match self.read_exact(start, Buf::alloc(length)).await {
                Ok(piece) => place.copy_from_slice(piece.as_slice()),
                Err(error) if is_of_medium(&error) => unreadable.push(index),
                Err(error) => return Err(self.failed(error, start)),
            }
        }
        Ok(whole)
    }

    async fn read_exact(&self, offset: u64, buf: Buf) -> io::Result<Buf> {
        let (mut data, mut done) = (Segments::from(buf), 0);
        while done < data.len_bytes() {
            let result;
            (result, data) = self.file.read_rest_at(data, done, offset).await;
            match result? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file ends early",
                    ));
                }
                count => done += count,
            }
        }
        Ok(data.into_single())
    }

    fn failed(&self, error: io::Error, byte: u64) -> DifFileError {
        DifFileError::Io { path: self.path.clone(), error, byte }
    }
}

/// The medium does not give these bytes; others it may.
fn is_of_medium(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::ILSEQ | Errno::NODATA))
}

/// Reads ahead.
pub(super) struct Reader {
    inner: Rc<Inner>,
    content: Content,
    next: u64,
    end: u64,
    batch: u64,
    ahead: usize,
    reads: VecDeque<JoinHandle<Result<Batch, DifFileError>>>,
}

impl Reader {
    /// The next intervals; none at the end.
    pub async fn next(&mut self) -> Result<Option<Batch>, DifFileError> {
        while self.next < self.end && self.reads.len() < self.ahead {
            let (inner, content, first) = (Rc::clone(&self.inner), self.content, self.next);
            let count = self.batch.min(self.end - first);
            self.next += count;
            let read = async move { inner.read(content, first, usize_of(count)).await };
            self.reads.push_back(runtime::spawn(read));
        }
        match self.reads.pop_front() {
            Some(read) => read.await.map(Some),
            None => Ok(None),
        }
    }
}

impl Inner {
    async fn read(
        &self,
        content: Content,
        first: u64,
        count: usize,
    ) -> Result<Batch, DifFileError> {
        let format = &self.image.profile().format;
        let (data_at, metadata_at) = self.image.places(self.blocks, first);
        let mut unreadable = Vec::new();
        if content != Content::Data && self.image.layout() == Layout::Interleaved {
            let size = (format.stride(), count);
            let bytes = Bytes::Together(self.data.read(data_at, size, &mut unreadable).await?);
            return Ok(Batch { first, count, bytes, unreadable });
        }
        let (mut data, mut metadata) = (Buf::alloc(0), Buf::alloc(0));
        if content != Content::Metadata {
            // Data alone lies as if there were nothing else.
            let alone = first * u64_of(format.interval());
            let data_at = if content == Content::Data { alone } else { data_at };
            data = self.data.read(data_at, (format.interval(), count), &mut unreadable).await?;
        }
        if content != Content::Data {
            let from = self.metadata.as_ref().unwrap_or(&self.data);
            let size = (format.metadata(), count);
            metadata = from.read(metadata_at, size, &mut unreadable).await?;
            unreadable.sort_unstable();
            unreadable.dedup();
        }
        Ok(Batch { first, count, bytes: Bytes::Apart(data, metadata), unreadable })
    }
}

impl Batch {
    /// Refuses intervals that could not be read: what is made of them would not be what they were.
    pub fn whole(self, source: &Source) -> Result<Self, DifFileError> {
        let Some(&index) = self.unreadable.first() else { return Ok(self) };
        let (byte, _) = source.places(self.first + u64_of(index));
        Err(source.inner.data.failed(Errno::IO.into(), byte))
    }
}

/// Intervals that are read at once: about a MiB, and always whole bytes of tags of 15 bits.
fn batch_intervals(stride: usize) -> usize {
    (BATCH_BYTES / stride / 8).max(1) * 8
}

const BATCH_BYTES: usize = 1 << 20;
/// Batches that are read ahead, at most, and their bytes.
const AHEAD_MAX: usize = 4;
const AHEAD_BYTES: usize = 16 << 20;
