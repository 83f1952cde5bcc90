//! The bytes that an application keeps in the application tags of an image.

use super::error::DifFileError;
use super::judge::{Finding, Judge, Mark, Request};
use super::product::{Content, Outputs, Product};
use super::source::{Batch, Bytes, Source};
use super::target::Target;
use super::walk::Walk;
use super::{Done, OnProgress, Write};
use bio::Buf;
use dif::{Coding, Format, TagStream, TagStreamError, Tuple};
use std::io::{self, Read};
use std::ops::Range;
use units::{u64_of, usize_of};

/// Neighbours with the same application tag.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// The first interval of the image.
    pub first: u64,
    /// How many there are.
    pub intervals: u64,
    /// The application tag; of type 3 with the reference tag behind it, which is the application's too.
    pub tag: u128,
    /// They are escaped.
    pub escaped: bool,
}

/// Tells `found` of every run of equal application tags. Nothing is checked: guards do not cover them.
///
/// # Errors
/// [`DifFileError::Io`].
pub async fn list_tags(
    source: &Source,
    range: &Range<u64>,
    found: &mut dyn FnMut(&Run),
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let profile = source.image().profile();
    let format = &profile.format;
    let reference_bits = 8 * (profile.application_bytes() - 2);
    let mut walk = Walk::metadata(source, range, on_progress);
    let mut done = Done::default();
    let mut run: Option<Run> = None;
    while let Some(batch) = walk.next().await? {
        let batch = batch.whole(source)?;
        done.tally.intervals += u64_of(batch.count);
        let (first, metadata) = (batch.first, metadata(batch, format));
        for (interval, metadata) in
            (first..).zip(metadata.as_slice().chunks_exact(format.metadata()))
        {
            let tuple = &metadata[format.tuple_offset()..][..format.tuple_bytes()];
            let tuple = Tuple::decode(format, tuple);
            let escaped = tuple.is_escaped(format, profile.kind);
            done.tally.escaped += u64::from(escaped);
            let reference = u128::from(tuple.reference) & ((1 << reference_bits) - 1);
            let tag = u128::from(tuple.application) << reference_bits | reference;
            match &mut run {
                Some(run) if (run.tag, run.escaped) == (tag, escaped) => run.intervals += 1,
                other => {
                    other.iter().for_each(&mut *found);
                    *other = Some(Run { first: interval, intervals: 1, tag, escaped });
                }
            }
        }
    }
    run.iter().for_each(found);
    done.stopped_at = walk.stopped_at();
    Ok(done)
}

/// Where the application's bytes go.
pub enum Outlet<'a> {
    /// To a file.
    File(Outputs<'a>),
    /// To a stream, as they come.
    Stream(&'a mut dyn io::Write),
}

/// Gives out the application's bytes of the range, in order: as many as the tags hold. Nothing is
/// checked, as in [`list_tags`].
///
/// # Errors
/// [`DifFileError`]; no file is written then.
pub async fn read_tags(
    source: &Source,
    range: &Range<u64>,
    coding: Coding,
    to: Outlet<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let tags = TagStream::new(*source.image().profile(), coding);
    let intervals = (range.end - range.start) * source.image().per_block();
    let bytes = u64_of(tags.capacity(usize_of(intervals)));
    let (mut pipe, writes) = match to {
        Outlet::Stream(stream) => (Pipe::Stream(stream), Vec::new()),
        Outlet::File(outputs) => {
            let path = outputs.out.to_owned();
            let writes = vec![Write { path: path.clone(), bytes: Some(bytes) }];
            if outputs.dry_run {
                Target::check(&path, outputs.overwrite, source.paths())?;
                return Ok(Done { writes, ..Done::default() });
            }
            let target = Target::create(&path, outputs.overwrite, source.paths(), bytes)?;
            (Pipe::File(target), writes)
        }
    };
    let mut walk = Walk::metadata(source, range, on_progress);
    let (mut done, mut position) = (Done::default(), 0);
    while let Some(batch) = walk.next().await? {
        let batch = batch.whole(source)?;
        let mut bytes = vec![0; tags.capacity(batch.count)];
        done.tally.intervals += u64_of(batch.count);
        let first = batch.first;
        let metadata = metadata(batch, &source.image().profile().format);
        let read = tags.read(metadata.as_slice(), &mut bytes);
        read.map_err(|error| told(error, &source.name(), first, position))?;
        pipe.give(&bytes, position)?;
        position += u64_of(bytes.len());
    }
    done.stopped_at = walk.stopped_at();
    match pipe {
        Pipe::File(target) if done.stopped_at.is_none() => {
            target.finish(bytes)?;
            done.writes = writes;
        }
        Pipe::File(_) | Pipe::Stream(_) => {}
    }
    Ok(done)
}

enum Pipe<'a> {
    File(Target),
    Stream(&'a mut dyn io::Write),
}

impl Pipe<'_> {
    fn give(&mut self, bytes: &[u8], position: u64) -> Result<(), DifFileError> {
        match self {
            Self::File(target) => target.write(bytes, position),
            Self::Stream(stream) => stream.write_all(bytes).map_err(|error| DifFileError::Io {
                path: "standard output".into(),
                error,
                byte: position,
            }),
        }
    }
}

/// Writes the image with the bytes that `from` (called `what`) gives in its application tags, and zeroes
/// in those behind. Guards do not cover them, so what was bad stays bad, and is told to `found`.
///
/// # Errors
/// [`DifFileError`]; nothing is written then. [`DifFileError::Unprotected`]: an interval is escaped or was
/// never written. Its guard means nothing, and would be believed with another application tag.
pub async fn write_tags(
    source: &Source,
    request: &Request,
    coding: Coding,
    (from, what): (&mut dyn Read, &str),
    outputs: &Outputs<'_>,
    found: &mut dyn FnMut(&Finding),
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let profile = *request.protection.profile();
    let (format, per_block) = (&profile.format, source.image().per_block());
    let tags = TagStream::new(profile, coding);
    let shape = (*source.image(), Content::Tuples);
    let product = match Product::begin(source, &request.range, shape, outputs)? {
        Ok(product) => product,
        Err(rehearsed) => return Ok(rehearsed),
    };
    let mut walk = Walk::new(source, &request.range, on_progress);
    let mut judge = Judge::new(source, request, found);
    let mut offset = 0;
    while let Some(batch) = walk.next().await? {
        let mut batch = batch.whole(source)?;
        let marks = judge.verify(&batch);
        let first = batch.first;
        let unprotected = |mark: &Mark| matches!(mark, Mark::Escaped | Mark::Unwritten);
        if let Some(index) = marks.iter().position(unprotected) {
            return Err(DifFileError::Unprotected { block: (first + u64_of(index)) / per_block });
        }
        let bytes = read_up_to(from, tags.capacity(batch.count))
            .map_err(|error| DifFileError::Io { path: what.into(), error, byte: offset })?;
        let is_together = matches!(batch.bytes, Bytes::Together(_));
        batch.bytes = batch.bytes.apart(format);
        if let Bytes::Apart(_, metadata) = &mut batch.bytes {
            let written = tags.write(&bytes, batch.count, [metadata.as_mut_slice()]);
            written.map_err(|error| told(error, what, first, offset))?;
        }
        if is_together {
            batch.bytes = batch.bytes.together(format);
        }
        product.put(first, &batch.bytes, |_| false)?;
        offset += u64_of(bytes.len());
    }
    let (tally, stopped_at) = (judge.tally, walk.stopped_at());
    if stopped_at.is_none() && !matches!(read_up_to(from, 1).as_deref(), Ok([])) {
        let intervals = (request.range.end - request.range.start) * per_block;
        let capacity = u64_of(tags.capacity(usize_of(intervals)));
        return Err(DifFileError::TooLong { what: what.to_owned(), intervals, capacity });
    }
    product.finish(Done { tally, stopped_at, ..Done::default() })
}

/// What is wrong with bytes that are `offset` bytes into all, in a batch from `first` on.
fn told(error: TagStreamError, what: &str, first: u64, offset: u64) -> DifFileError {
    let what = what.to_owned();
    match error {
        TagStreamError::Escape { interval, offset: within } => {
            let (interval, offset) = (first + interval, offset + u64_of(within));
            DifFileError::Escape { what, offset, interval }
        }
        TagStreamError::Foreign { interval } => {
            DifFileError::Foreign { what, interval: first + interval }
        }
        TagStreamError::TooLong { intervals, capacity, .. } => {
            let (intervals, capacity) = (u64_of(intervals), u64_of(capacity));
            DifFileError::TooLong { what, intervals, capacity }
        }
    }
}

fn read_up_to(from: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(u64_of(most)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The metadata of a batch.
fn metadata(batch: Batch, format: &Format) -> Buf {
    match batch.bytes.apart(format) {
        Bytes::Apart(_, metadata) => metadata,
        Bytes::Together(blocks) => blocks,
    }
}
