//! What is made of a range of blocks, and where its bytes go.

use super::error::DifFileError;
use super::image::{Image, Layout};
use super::source::{Bytes, Source};
use super::target::Target;
use super::{Done, Write};
use crate::mapfile::{Map, Status};
use std::ops::Range;
use std::path::Path;
use units::u64_of;

/// The files to write.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// The one that always is.
    pub out: &'a Path,
    /// That of the metadata, where both files of an image in two are written.
    pub metadata: Option<&'a Path>,
    /// That of a map of bad intervals, in bytes of `out`, of what leaves holes for them.
    pub map: Option<&'a Path>,
    /// Files that are there may be replaced.
    pub overwrite: bool,
    /// Only say what would be written.
    pub dry_run: bool,
}

/// What is written of each interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Data and metadata, as the layout has them.
    Image,
    /// Of an image in two files the metadata alone; of others all.
    Tuples,
    /// Data alone.
    Data,
}

/// Files under way.
pub(super) struct Product {
    image: Image,
    content: Content,
    range: Range<u64>,
    main: Target,
    /// Beside it, where an image is in two files.
    metadata: Option<Target>,
    map: Option<(Target, Map)>,
    writes: Vec<Write>,
}

impl Product {
    /// Begins to write `content` of the blocks in `range`, as `image`; none: it is only rehearsed, and
    /// the answer is what would be written.
    pub fn begin(
        source: &Source,
        range: &Range<u64>,
        (image, content): (Image, Content),
        outputs: &Outputs<'_>,
    ) -> Result<Result<Self, Done>, DifFileError> {
        let blocks = range.end - range.start;
        let (data, metadata) = (u64_of(image.block()), u64_of(image.metadata()));
        let is_apart = image.layout() == Layout::Separate;
        let per_block = match content {
            Content::Data => data,
            Content::Image if is_apart => data,
            Content::Tuples if is_apart => metadata,
            _ => data + metadata,
        };
        let file = |path: &Path, per_block| Write {
            path: path.to_owned(),
            bytes: Some(blocks * per_block),
        };
        let mut writes = vec![file(outputs.out, per_block)];
        let has_two = content == Content::Image && is_apart;
        if has_two {
            let path = outputs.metadata.expect("metadata in a file of its own has a name");
            writes.push(file(path, metadata));
        }
        writes.extend(outputs.map.map(|path| Write { path: path.to_owned(), bytes: None }));
        let mut taken: Vec<&Path> = source.paths().collect();
        if outputs.dry_run {
            for write in &writes {
                Target::check(&write.path, outputs.overwrite, taken.iter().copied())?;
                taken.push(&write.path);
            }
            return Ok(Err(Done { writes, ..Done::default() }));
        }
        let mut targets = Vec::new();
        for write in &writes {
            let others = taken.iter().copied();
            let bytes = write.bytes.unwrap_or_default();
            targets.push(Target::create(&write.path, outputs.overwrite, others, bytes)?);
            taken.push(&write.path);
        }
        let mut targets = targets.into_iter();
        let main = targets.next().expect("one file is always written");
        let metadata = if has_two { targets.next() } else { None };
        let map = targets.next().map(|target| (target, Map::from(0)));
        Ok(Ok(Self { image, content, range: range.clone(), main, metadata, map, writes }))
    }

    /// Writes intervals from `first` of the source on. `is_hole` says of which nothing is written.
    pub fn put(
        &self,
        first: u64,
        bytes: &Bytes,
        is_hole: impl Fn(usize) -> bool,
    ) -> Result<(), DifFileError> {
        let format = &self.image.profile().format;
        let (data, metadata) = self.places(first);
        match bytes {
            Bytes::Together(blocks) => self.main.write(blocks.as_slice(), data),
            Bytes::Apart(data_bytes, tuples) => {
                if self.writes_data() {
                    let pieces = (data_bytes.as_slice(), format.interval());
                    runs(&self.main, pieces, data, &is_hole)?;
                }
                if self.content != Content::Data {
                    let target = self.metadata.as_ref().unwrap_or(&self.main);
                    runs(target, (tuples.as_slice(), format.metadata()), metadata, &is_hole)?;
                }
                Ok(())
            }
        }
    }

    /// The next `bytes` bytes of what is written have this status; for the map, if there is one.
    pub fn chart(&mut self, bytes: u64, status: Status) {
        if let Some((_, map)) = &mut self.map {
            map.push(bytes, status);
        }
    }

    /// The files get their names, those that tell of the data first: a crash between leaves them without
    /// data, and not the other way round.
    pub fn finish(mut self, done: Done) -> Result<Done, DifFileError> {
        if done.stopped_at.is_some() {
            return Ok(done);
        }
        if let (Some((target, map)), Some(write)) = (self.map, self.writes.last_mut()) {
            let text = map.to_string();
            let bytes = u64_of(text.len());
            target.write(text.as_bytes(), 0)?;
            target.finish(bytes)?;
            write.bytes = Some(bytes);
        }
        let mut sizes = self.writes.iter().filter_map(|write| write.bytes);
        let main = sizes.next().expect("one file is always written");
        if let (Some(metadata), Some(bytes)) = (self.metadata, sizes.next()) {
            metadata.finish(bytes)?;
        }
        self.main.finish(main)?;
        Ok(Done { writes: self.writes, ..done })
    }

    fn writes_data(&self) -> bool {
        self.content != Content::Tuples || self.image.layout() != Layout::Separate
    }

    /// As the image's, counted from the range's start.
    fn places(&self, interval: u64) -> (u64, u64) {
        let interval = interval - self.range.start * self.image.per_block();
        let image = match self.content {
            Content::Data => self.image.with_layout(Layout::Separate),
            Content::Image | Content::Tuples => self.image,
        };
        image.places(self.range.end - self.range.start, interval)
    }
}

/// Writes pieces of `length` bytes, those together that are no holes.
fn runs(
    target: &Target,
    (bytes, length): (&[u8], usize),
    offset: u64,
    is_hole: &impl Fn(usize) -> bool,
) -> Result<(), DifFileError> {
    let count = bytes.len() / length;
    let mut start = 0;
    while start < count {
        let hole = is_hole(start);
        let end = (start..count).find(|&index| is_hole(index) != hole).unwrap_or(count);
        let (run, place) = (start * length..end * length, offset + u64_of(start * length));
        if hole {
            target.hole(run.len(), place)?;
        } else {
            target.write(&bytes[run], place)?;
        }
        start = end;
    }
    Ok(())
}
