//! What is thought of each interval that was read: checked and right, not to be checked, or bad.

use super::image::Layout;
use super::source::{Batch, Bytes, Source};
use dif::{Checks, Mismatch, Protection, Tag, Tuple};
use std::fmt;
use std::ops::Range;
use units::u64_of;

/// What is asked of an image.
#[derive(Clone, Debug)]
pub struct Request {
    /// Format, type, what the tuples ought to say, and what is checked. Its reference tag is that of the
    /// range's first interval.
    pub protection: Protection,
    /// The blocks, end excluded; see [`Source::range`].
    pub range: Range<u64>,
}

impl Request {
    /// What the tuples ought to say from interval `interval` of the image on.
    pub(super) fn protection_at(&self, source: &Source, interval: u64) -> Protection {
        self.protection.skip(interval - self.range.start * source.image().per_block())
    }

    /// The address of interval `interval`, whatever the type.
    fn address(&self, source: &Source, interval: u64) -> u64 {
        let done = interval - self.range.start * source.image().per_block();
        self.protection.expected().reference.wrapping_add(done)
    }
}

/// An interval that nothing vouches for.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Its block in the image.
    pub block: u64,
    /// Which interval of the block.
    pub interval: u64,
    /// Its address: what its reference tag ought to count to.
    pub address: u64,
    /// Where its data starts, in bytes of the file that holds it.
    pub data_byte: u64,
    /// Where its tuple starts, in bytes of the file that holds it.
    pub tuple_byte: u64,
    /// What is wrong; none: it cannot be read.
    pub mismatch: Option<Mismatch>,
}

impl fmt::Display for Finding {
    /// `block 7, interval 0, address 7: guard tag ...; data at byte 3640, tuple at byte 4152`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, interval, address, .. } = self;
        write!(f, "block {block}, interval {interval}, address {address}: ")?;
        match &self.mismatch {
            Some(mismatch) => write!(f, "{mismatch}")?,
            None => f.write_str("cannot be read")?,
        }
        write!(f, "; data at byte {}, tuple at byte {}", self.data_byte, self.tuple_byte)
    }
}

/// How many intervals are what.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// All that were looked at.
    pub intervals: u64,
    /// Escaped by whoever wrote them: not checked.
    pub escaped: u64,
    /// Never written (QEMU's layout): not checked.
    pub unwritten: u64,
    /// The medium does not give them.
    pub unreadable: u64,
    /// Bad by their guard, as the first tag that disagreed.
    pub guard: u64,
    /// Bad by their application tag.
    pub application: u64,
    /// Bad by their reference tag.
    pub reference: u64,
    /// Bad by their storage tag.
    pub storage: u64,
}

impl Tally {
    /// Intervals that were checked, whatever came of it.
    #[must_use]
    pub const fn checked(&self) -> u64 {
        self.intervals - self.escaped - self.unwritten - self.unreadable
    }

    /// Intervals that nothing vouches for though something should.
    #[must_use]
    pub const fn bad(&self) -> u64 {
        self.unreadable + self.guard + self.application + self.reference + self.storage
    }

    fn count(&mut self, tag: Tag) {
        *match tag {
            Tag::Guard => &mut self.guard,
            Tag::Application => &mut self.application,
            Tag::Reference => &mut self.reference,
            Tag::Storage => &mut self.storage,
        } += 1;
    }
}

/// What an interval is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mark {
    /// Checked, and right.
    Good,
    /// Escaped.
    Escaped,
    /// Never written: neither data nor metadata has a bit that is not zero, as in a new image of QEMU's,
    /// whose device reads such blocks as escaped.
    Unwritten,
    /// Nothing vouches for it.
    Bad,
}

/// Judges batch after batch.
pub(super) struct Judge<'a> {
    pub source: &'a Source,
    pub request: &'a Request,
    pub tally: Tally,
    pub found: &'a mut dyn FnMut(&Finding),
}

impl<'a> Judge<'a> {
    pub fn new(
        source: &'a Source,
        request: &'a Request,
        found: &'a mut dyn FnMut(&Finding),
    ) -> Self {
        Self { source, request, tally: Tally::default(), found }
    }

    /// Checks a batch.
    pub fn verify(&mut self, batch: &Batch) -> Vec<Mark> {
        let protection = self.request.protection_at(self.source, batch.first);
        self.judge(batch, |found| match &batch.bytes {
            Bytes::Together(blocks) => {
                protection.verify_interleaved_each([blocks.as_slice()], found);
            }
            Bytes::Apart(data, metadata) => {
                protection.verify_each([data.as_slice()], [metadata.as_slice()], found);
            }
        })
    }

    /// Takes what `check` finds in a batch, and what can be seen without it.
    pub fn judge(
        &mut self,
        batch: &Batch,
        check: impl FnOnce(&mut dyn FnMut(Mismatch)),
    ) -> Vec<Mark> {
        let mut marks = self.unchecked(batch);
        for &index in &batch.unreadable {
            marks[index] = Mark::Bad;
            self.tally.unreadable += 1;
        }
        let mut found: Vec<Mismatch> = Vec::new();
        check(&mut |mismatch| {
            let mark = &mut marks[units::usize_of(mismatch.interval)];
            // What is not to be checked, or could not be read, has been judged.
            if *mark == Mark::Good {
                *mark = Mark::Bad;
                found.push(mismatch);
            }
        });
        let mut unread = batch.unreadable.iter().map(|&index| u64_of(index)).peekable();
        for mismatch in found {
            while let Some(index) = unread.next_if(|&index| index < mismatch.interval) {
                self.tell(batch.first + index, None);
            }
            self.tally.count(mismatch.tag);
            self.tell(batch.first + mismatch.interval, Some(mismatch));
        }
        unread.for_each(|index| self.tell(batch.first + index, None));
        self.tally.intervals += u64_of(batch.count);
        let count = |mark| u64_of(marks.iter().filter(|&&each| each == mark).count());
        self.tally.escaped += count(Mark::Escaped);
        self.tally.unwritten += count(Mark::Unwritten);
        marks
    }

    fn tell(&mut self, interval: u64, mismatch: Option<Mismatch>) {
        let per_block = self.source.image().per_block();
        let (data_byte, metadata_byte) = self.source.places(interval);
        let address = self.request.address(self.source, interval);
        let mismatch = mismatch.map(|mut mismatch| {
            (mismatch.interval, mismatch.address) = (interval, address);
            mismatch
        });
        (self.found)(&Finding {
            block: interval / per_block,
            interval: interval % per_block,
            address,
            data_byte,
            tuple_byte: metadata_byte + u64_of(self.request.protection.format().tuple_offset()),
            mismatch,
        });
    }

    /// What may not be checked.
    fn unchecked(&self, batch: &Batch) -> Vec<Mark> {
        let Checks { escape, .. } = *self.request.protection.checks();
        let may_be_unwritten = self.source.image().layout() == Layout::NvmeQemu && escape;
        let mut marks = vec![Mark::Good; batch.count];
        if !escape {
            return marks;
        }
        let profile = self.request.protection.profile();
        let format = &profile.format;
        for ((data, metadata), mark) in batch.intervals(format).zip(&mut marks) {
            let tuple = &metadata[format.tuple_offset()..][..format.tuple_bytes()];
            // A look at the application tag is enough for nearly all of them.
            let application = &tuple[format.guard().bytes()..][..2];
            if application == [0xff; 2]
                && Tuple::decode(format, tuple).is_escaped(format, profile.kind)
            {
                *mark = Mark::Escaped;
            }
            if may_be_unwritten && is_zero(metadata) && is_zero(data) {
                *mark = Mark::Unwritten;
            }
        }
        marks
    }
}

impl Batch {
    /// Data and metadata of each interval.
    pub fn intervals(&self, format: &dif::Format) -> Box<dyn Iterator<Item = (&[u8], &[u8])> + '_> {
        let (interval, metadata) = (format.interval(), format.metadata());
        match &self.bytes {
            Bytes::Together(blocks) => {
                let each = blocks.as_slice().chunks_exact(format.stride());
                Box::new(each.map(move |block| block.split_at(interval)))
            }
            Bytes::Apart(data, tuples) => Box::new(
                data.as_slice()
                    .chunks_exact(interval)
                    .zip(tuples.as_slice().chunks_exact(metadata)),
            ),
        }
    }
}

/// In pieces that the compiler looks at as wholes.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(64).all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}
