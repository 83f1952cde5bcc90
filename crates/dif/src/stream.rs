//! One interval after the other, in pieces of any length: what every operation is made of.
//!
//! A [`Signer`] writes tuples, a [`Verifier`] checks them. Both may stop anywhere, in the middle of an
//! interval or of a tuple, be kept (they are `Copy`), and go on with the next bytes.

use crate::format::Format;
use crate::profile::{Mismatch, Protection};
use crate::template::{Places, Template};
use crate::tuple::{TUPLE_BYTES_MAX, Tuple};
use guard::Running;

/// Where the next byte lies.
#[derive(Clone, Copy, Debug)]
struct At {
    /// Bytes of this interval and its metadata that were seen.
    offset: usize,
    /// The interval.
    index: u64,
    running: Running,
    /// Bytes of the tuple, as far as they are known.
    tuple: [u8; TUPLE_BYTES_MAX],
}

/// What the next bytes of an interval are.
enum Part {
    /// Data, or metadata before a tuple that is last: the guard covers them.
    Covered,
    /// The tuple; so many of its bytes were seen.
    Tuple(usize),
    /// Metadata behind a tuple that is first.
    Rest,
}

impl At {
    fn new(format: &Format) -> Self {
        let running = Running::new(format.guard());
        Self { offset: 0, index: 0, running, tuple: [0; TUPLE_BYTES_MAX] }
    }

    /// The part at the offset, and its bytes left.
    fn part(&self, format: &Format) -> (Part, usize) {
        let tuple = covered(format);
        let rest = tuple + format.tuple_bytes();
        if self.offset < tuple {
            (Part::Covered, tuple - self.offset)
        } else if self.offset < rest {
            (Part::Tuple(self.offset - tuple), rest - self.offset)
        } else {
            (Part::Rest, format.stride() - self.offset)
        }
    }

    fn advance(&mut self, format: &Format, bytes: usize) {
        self.offset += bytes;
        if self.offset == format.stride() {
            *self = Self { index: self.index + 1, ..Self::new(format) };
        }
    }

    fn data_left(&self, format: &Format) -> usize {
        format.interval().saturating_sub(self.offset)
    }

    fn metadata_left(&self, format: &Format) -> usize {
        if self.data_left(format) > 0 { 0 } else { format.stride() - self.offset }
    }
}

/// Bytes of an interval and its metadata that the guard covers; the tuple follows.
pub(crate) const fn covered(format: &Format) -> usize {
    format.interval() + format.covered_metadata()
}

/// Writes tuples.
#[derive(Clone, Copy, Debug)]
pub struct Signer {
    protection: Protection,
    template: Template,
    at: At,
}

impl Signer {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(protection: &Protection) -> Self {
        let (template, at) = (Template::new(protection), At::new(protection.format()));
        Self { protection: *protection, template, at }
    }

    /// Bytes of data that this interval still waits for.
    #[must_use]
    pub fn data_left(&self) -> usize {
        self.at.data_left(self.protection.format())
    }

    /// Bytes of metadata that it waits for, once it has its data.
    #[must_use]
    pub fn metadata_left(&self) -> usize {
        self.at.metadata_left(self.protection.format())
    }

    /// Takes data.
    ///
    /// # Panics
    /// If that is more than [`Self::data_left`].
    pub fn data(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.data_left(), "data ends where its interval does");
        self.at.running.update(bytes);
        self.at.advance(self.protection.format(), bytes.len());
    }

    /// Takes metadata: what lies before a last tuple is read, the tuple is written, what lies behind a
    /// first one is left alone.
    ///
    /// # Panics
    /// If that is more than [`Self::metadata_left`].
    pub fn metadata(&mut self, bytes: &mut [u8]) {
        assert!(bytes.len() <= self.metadata_left(), "metadata belongs to one interval");
        self.pieces(bytes);
    }

    /// Takes data and metadata as they follow each other, any number of bytes.
    pub fn interleaved(&mut self, bytes: &mut [u8]) {
        let format = *self.protection.format();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let whole = bytes.len() / format.stride();
            let length = if self.at.offset == 0 && whole > 0 {
                whole * format.stride()
            } else {
                bytes.len().min(format.stride() - self.at.offset)
            };
            let (now, rest) = bytes.split_at_mut(length);
            if self.at.offset == 0 && whole > 0 {
                let (places, mut run) = (interleaved(&format), self.run());
                let Places { stride, offset } = places;
                format.guard().each_spaced_mut(now, offset, stride, |blocks, guards| {
                    run.sign(guards, blocks, places);
                });
                self.at.index = run.index;
            } else {
                self.pieces(now);
            }
            bytes = rest;
        }
    }

    /// Whole intervals whose metadata the guard does not cover, data and metadata apart.
    pub(crate) fn whole(&mut self, data: &[u8], metadata: &mut [u8]) {
        let format = *self.protection.format();
        let (places, mut run, mut rest) = (separate(&format), self.run(), metadata);
        format.guard().each(data, format.interval(), |guards| {
            let now = rest.split_off_mut(..guards.len() * places.stride).expect(TOGETHER);
            run.sign(guards, now, places);
        });
        self.at.index = run.index;
    }

    /// The same, copying the data to where metadata follows each interval; the owner's is zeroed.
    pub(crate) fn whole_copied(&mut self, data: &[u8], blocks: &mut [u8]) {
        let format = *self.protection.format();
        let (places, mut run) = (interleaved(&format), self.run());
        let Places { stride, offset } = places;
        format.guard().each_copied(data, offset, blocks, stride, |blocks, guards| {
            run.sign(guards, blocks, places);
            let owners = offset + format.tuple_bytes();
            if owners < stride {
                blocks.chunks_exact_mut(stride).for_each(|block| block[owners..].fill(0));
            }
        });
        self.at.index = run.index;
    }

    fn run(&self) -> Run {
        Run { protection: self.protection, template: self.template, index: self.at.index }
    }

    /// Within one interval.
    fn pieces(&mut self, bytes: &mut [u8]) {
        let format = *self.protection.format();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (part, left) = self.at.part(&format);
            let (now, rest) = bytes.split_at_mut(left.min(bytes.len()));
            match part {
                Part::Covered => self.at.running.update(now),
                Part::Tuple(seen) => {
                    let made = self.protection.tuple(self.at.index, self.at.running.value());
                    let tuple = &mut self.at.tuple[..format.tuple_bytes()];
                    made.encode(&format, tuple);
                    now.copy_from_slice(&tuple[seen..seen + now.len()]);
                }
                Part::Rest => {}
            }
            self.at.advance(&format, now.len());
            bytes = rest;
        }
    }
}

/// Checks tuples. What disagrees is given to the `found` of each call, one mismatch an interval.
#[derive(Clone, Copy, Debug)]
pub struct Verifier {
    protection: Protection,
    template: Template,
    at: At,
}

impl Verifier {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(protection: &Protection) -> Self {
        let (template, at) = (Template::new(protection), At::new(protection.format()));
        Self { protection: *protection, template, at }
    }

    /// Bytes of data that this interval still waits for.
    #[must_use]
    pub fn data_left(&self) -> usize {
        self.at.data_left(self.protection.format())
    }

    /// Bytes of metadata that it waits for, once it has its data.
    #[must_use]
    pub fn metadata_left(&self) -> usize {
        self.at.metadata_left(self.protection.format())
    }

    /// Takes data.
    ///
    /// # Panics
    /// If that is more than [`Self::data_left`].
    pub fn data(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.data_left(), "data ends where its interval does");
        self.cover(bytes);
        self.at.advance(self.protection.format(), bytes.len());
    }

    /// Takes metadata.
    ///
    /// # Panics
    /// If that is more than [`Self::metadata_left`].
    pub fn metadata(&mut self, bytes: &[u8], found: impl FnMut(Mismatch)) {
        assert!(bytes.len() <= self.metadata_left(), "metadata belongs to one interval");
        self.pieces(bytes, found);
    }

    /// Takes data and metadata as they follow each other, any number of bytes.
    pub fn interleaved(&mut self, bytes: &[u8], mut found: impl FnMut(Mismatch)) {
        let format = *self.protection.format();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let whole = bytes.len() / format.stride();
            let is_fast = self.at.offset == 0 && whole > 0;
            let length = if is_fast {
                whole * format.stride()
            } else {
                bytes.len().min(format.stride() - self.at.offset)
            };
            let (now, rest) = bytes.split_at(length);
            if is_fast {
                let (places, mut run) = (interleaved(&format), self.run());
                let Places { stride, offset } = places;
                if self.protection.checks().guard {
                    format.guard().each_spaced(now, offset, stride, |blocks, guards| {
                        run.judge(guards, blocks, places, &mut found);
                    });
                } else {
                    run.judge_unseen(now, places, &mut found);
                }
                self.at.index = run.index;
            } else {
                self.pieces(now, &mut found);
            }
            bytes = rest;
        }
    }

    /// Whole intervals whose metadata the guard does not cover, data and metadata apart.
    pub(crate) fn whole(&mut self, data: &[u8], metadata: &[u8], mut found: impl FnMut(Mismatch)) {
        let format = *self.protection.format();
        let (places, mut run, mut rest) = (separate(&format), self.run(), metadata);
        if self.protection.checks().guard {
            format.guard().each(data, format.interval(), |guards| {
                let now = rest.split_off(..guards.len() * places.stride).expect(TOGETHER);
                run.judge(guards, now, places, &mut found);
            });
        } else {
            run.judge_unseen(metadata, places, &mut found);
        }
        self.at.index = run.index;
    }

    /// Whole blocks whose metadata the guard does not cover, copying the data to where it stands alone.
    pub(crate) fn whole_gathered(
        &mut self,
        blocks: &[u8],
        data: &mut [u8],
        mut found: impl FnMut(Mismatch),
    ) {
        let format = *self.protection.format();
        let (places, mut run) = (interleaved(&format), self.run());
        let Places { stride, offset } = places;
        format.guard().each_gathered(blocks, offset, stride, data, |blocks, guards| {
            run.judge(guards, blocks, places, &mut found);
        });
        self.at.index = run.index;
    }

    fn run(&self) -> Run {
        Run { protection: self.protection, template: self.template, index: self.at.index }
    }

    fn cover(&mut self, bytes: &[u8]) {
        if self.protection.checks().guard {
            self.at.running.update(bytes);
        }
    }

    /// Within one interval.
    fn pieces(&mut self, bytes: &[u8], mut found: impl FnMut(Mismatch)) {
        let format = *self.protection.format();
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (part, left) = self.at.part(&format);
            let (now, rest) = bytes.split_at(left.min(bytes.len()));
            match part {
                Part::Covered => self.cover(now),
                Part::Tuple(seen) => {
                    self.at.tuple[seen..seen + now.len()].copy_from_slice(now);
                    if now.len() == left {
                        let tuple = Tuple::decode(&format, &self.at.tuple[..format.tuple_bytes()]);
                        let guard = self.at.running.value();
                        if let Err(mismatch) = self.protection.check(self.at.index, &tuple, guard) {
                            found(mismatch);
                        }
                    }
                }
                Part::Rest => {}
            }
            self.at.advance(&format, now.len());
            bytes = rest;
        }
    }
}

/// Whole intervals in a row, apart from what holds them, so that a loop keeps it at hand.
struct Run {
    protection: Protection,
    template: Template,
    /// The next.
    index: u64,
}

impl Run {
    fn sign(&mut self, guards: &[u64], blocks: &mut [u8], places: Places) {
        self.template.write(self.index, guards, blocks, places);
        self.skip(guards.len());
    }

    fn judge(
        &mut self,
        guards: &[u64],
        blocks: &[u8],
        places: Places,
        found: &mut impl FnMut(Mismatch),
    ) {
        let is_escape_an_error = !self.protection.checks().escape;
        if is_escape_an_error || !self.template.agree(self.index, guards, blocks, places) {
            return self.look_again(guards, blocks, places, found);
        }
        self.skip(guards.len());
    }

    /// Where the guards are not checked, and so were not made.
    fn judge_unseen(&mut self, blocks: &[u8], places: Places, found: &mut impl FnMut(Mismatch)) {
        for block in blocks.chunks_exact(places.stride) {
            self.judge(&[0], block, places, found);
        }
    }

    #[cold]
    fn look_again(
        &mut self,
        guards: &[u64],
        blocks: &[u8],
        places: Places,
        found: &mut impl FnMut(Mismatch),
    ) {
        let format = *self.protection.format();
        for (block, guard) in blocks.chunks_exact(places.stride).zip(guards) {
            let tuple = Tuple::decode(&format, &block[places.offset..][..format.tuple_bytes()]);
            if let Err(mismatch) = self.protection.check(self.index, &tuple, *guard) {
                found(mismatch);
            }
            self.index += 1;
        }
    }

    fn skip(&mut self, intervals: usize) {
        self.index += u64::try_from(intervals).expect("a count of what lies in memory has 64 bits");
    }
}

/// Where the tuples are in blocks that data and metadata make together.
const fn interleaved(format: &Format) -> Places {
    Places { stride: format.stride(), offset: covered(format) }
}

/// Where they are in metadata alone, of which none is covered.
const fn separate(format: &Format) -> Places {
    Places { stride: format.metadata(), offset: 0 }
}

const TOGETHER: &str = "there is metadata for each interval";
