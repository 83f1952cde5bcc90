//! One batch after the other, until the end or until somebody stops it.

use super::OnProgress;
use super::error::DifFileError;
use super::source::{Batch, Reader, Source};
use std::ops::Range;

/// Walks through a range of blocks.
pub(super) struct Walk<'a> {
    reader: Reader,
    on_progress: OnProgress<'a>,
    range: Range<u64>,
    per_block: u64,
    /// The first interval that is not done.
    next: u64,
    stopped: bool,
}

impl<'a> Walk<'a> {
    pub fn new(source: &Source, range: &Range<u64>, on_progress: OnProgress<'a>) -> Self {
        Self::through(source, source.read(range), range, on_progress)
    }

    /// The same for whoever needs the metadata only.
    pub fn metadata(source: &Source, range: &Range<u64>, on_progress: OnProgress<'a>) -> Self {
        Self::through(source, source.read_metadata(range), range, on_progress)
    }

    fn through(
        source: &Source,
        reader: Reader,
        range: &Range<u64>,
        on_progress: OnProgress<'a>,
    ) -> Self {
        let per_block = source.image().per_block();
        let next = range.start * per_block;
        Self { reader, on_progress, range: range.clone(), per_block, next, stopped: false }
    }

    /// The next intervals; none at the end, or when it was stopped: the last ones are done then.
    pub async fn next(&mut self) -> Result<Option<Batch>, DifFileError> {
        // So that whoever wants to stop us is heard, however fast the reads are.
        runtime::yield_now().await;
        let done = self.next / self.per_block - self.range.start;
        if (self.on_progress)(done).is_break() && self.next < self.range.end * self.per_block {
            self.stopped = true;
            return Ok(None);
        }
        let batch = self.reader.next().await?;
        if let Some(batch) = &batch {
            self.next += units::u64_of(batch.count);
        }
        Ok(batch)
    }

    /// The first block that was not done, if it was stopped.
    pub fn stopped_at(&self) -> Option<u64> {
        self.stopped.then_some(self.next / self.per_block)
    }
}
