//! A device seen as bytes: what NBD asks for at any offset and length, done in whole blocks.
//!
//! ```text
//!            |<------------ request ------------>|
//!   +--------+--------+--------+--------+--------+--------+
//!   |   first block   |     whole blocks         |  last  |     blocks of the device
//!   +--------+--------+--------+--------+--------+--------+
//!    read first, kept                              read first, kept
//! ```
//!
//! A write that covers blocks only in part reads them through the verified path, changes its
//! bytes, and writes them back, all under an exclusive lock on the blocks, so that two such
//! writes to one block do not lose each other's bytes. Whole-block writes take the same lock
//! shared: they may pass each other, but not a read-modify-write of the same blocks.

use bio::{Allocation, Bio, Buf, Device, IoError, IoResult};
use runtime::{RangeGuard, RangeLock, join_all};
use std::ops::Range;
use units::{Sector, u64_of, usize_of};

/// Bytes that are read in one step when only the outcome counts (CACHE, states).
pub(super) const STEP_BYTES: usize = 1 << 20;

/// A device, byte by byte.
pub(super) struct Volume {
    device: Device,
    lock: RangeLock,
    /// Bytes.
    block: u64,
    /// Bytes: the largest piece that the device takes at once, a whole number of blocks.
    piece: usize,
}

/// The blocks that a range of bytes touches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Span {
    /// First block's first byte.
    pub(super) start: u64,
    /// First byte after the last block.
    pub(super) end: u64,
    /// Bytes of the first block before the range.
    pub(super) head: usize,
    /// Bytes of the last block after the range.
    pub(super) tail: usize,
}

impl Span {
    pub(super) fn bytes(&self) -> usize {
        usize_of(self.end - self.start)
    }

    fn sectors(&self) -> Range<u64> {
        Sector::containing(self.start).0..Sector::containing(self.end).0
    }

    fn is_whole(&self) -> bool {
        self.head == 0 && self.tail == 0
    }
}

/// What a client wants written, received where it will be written from: in the middle of a
/// buffer of whole blocks.
pub(super) struct Payload {
    span: Span,
    head: Buf,
    /// The client's bytes.
    pub(super) body: Buf,
    tail: Buf,
}

/// A read that could not be had whole.
pub(super) struct Salvage {
    /// What could be read: offset and bytes, in order.
    pub(super) good: Vec<(u64, Buf)>,
    /// The first byte of the request that could not be read, and why. None: this time all of it
    /// could.
    pub(super) bad: Option<(u64, IoError)>,
}

impl Volume {
    pub(super) fn new(device: Device) -> Self {
        let limits = device.limits();
        let block = limits.logical_block.bytes();
        let most = usize_of(limits.max_bytes.min(64 << 20));
        let piece = (most / block * block).max(block);
        Self { block: u64_of(block), piece, lock: RangeLock::default(), device }
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes of a logical block.
    pub(super) fn block(&self) -> u64 {
        self.block
    }

    /// The blocks that `length` bytes at `offset` touch; the range lies within the device.
    pub(super) fn span(&self, offset: u64, length: u64) -> Span {
        let start = offset / self.block * self.block;
        let end = (offset + length).next_multiple_of(self.block);
        Span { start, end, head: usize_of(offset - start), tail: usize_of(end - offset - length) }
    }

    /// A buffer for a write of `length` bytes, at least one, at `offset`.
    pub(super) fn payload(&self, offset: u64, length: u64) -> Payload {
        let span = self.span(offset, length);
        let mut head = Buf::alloc(span.bytes());
        let mut body = head.split_off(span.head);
        let tail = body.split_off(usize_of(length));
        Payload { span, head, body, tail }
    }

    /// Reads bytes.
    pub(super) async fn read(&self, offset: u64, length: u32) -> IoResult<Buf> {
        let span = self.span(offset, length.into());
        let (result, mut whole) = self.fill(span.start, Buf::alloc(span.bytes())).await;
        result?;
        let mut body = whole.split_off(span.head);
        drop(body.split_off(usize_of(length.into())));
        Ok(body)
    }

    /// Reads what can be read of a range for which [`Self::read`] failed with `error`, in pieces:
    /// a few reads per bad block, and no more after [`BAD_MAX`] of them.
    pub(super) async fn salvage(&self, offset: u64, length: u32, error: IoError) -> Salvage {
        let end = offset + u64::from(length);
        let span = self.span(offset, length.into());
        let mut probe = Probe::after(self, span.start..span.end, error);
        let (mut good, mut first_bad, mut bad) = (Vec::new(), None, 0);
        while let Some(piece) = probe.next() {
            let buf = Buf::alloc(usize_of(piece.end - piece.start));
            let (result, buf) = self.fill(piece.start, buf).await;
            probe.saw(&piece, &result);
            match result {
                Ok(()) => good.extend(clip(piece.start, buf, offset..end)),
                // A piece of several blocks that failed is asked again, block by block.
                Err(_) if probe.at() == piece.start => {}
                Err(error) => {
                    first_bad.get_or_insert((piece.start.max(offset), error));
                    bad += 1;
                    if bad >= BAD_MAX || !error.kind.is_damage() {
                        break;
                    }
                }
            }
        }
        Salvage { good, bad: first_bad }
    }

    /// Writes what a client sent.
    pub(super) async fn write(&self, payload: Payload, fua: bool) -> IoResult {
        let _guard = self.lock_for(&payload.span).await;
        self.write_locked(payload, fua).await
    }

    /// Stores zeroes; `unmap` lets the space go.
    pub(super) async fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> IoResult {
        let span = self.span(offset, length);
        let _guard = self.lock_for(&span).await;
        let (inner, edges) = self.cut(offset, length);
        for edge in edges.into_iter().filter(|edge| !edge.is_empty()) {
            let mut payload = self.payload(edge.start, edge.end - edge.start);
            payload.body.as_mut_slice().fill(0);
            self.write_locked(payload, false).await?;
        }
        match sectors(&inner) {
            Some((first, sectors)) => {
                self.device.submit(&mut Bio::write_zeroes(first, sectors, unmap)).await
            }
            None => Ok(()),
        }
    }

    /// Discards the whole blocks of the range; the rest of it stays as it is.
    pub(super) async fn trim(&self, offset: u64, length: u64) -> IoResult {
        let (inner, _) = self.cut(offset, length);
        let Some((first, sectors)) = sectors(&inner) else { return Ok(()) };
        let _guard = self.lock.lock_shared(first.0..first.0 + sectors).await;
        self.device.submit(&mut Bio::discard(first, sectors)).await
    }

    /// Reads the range for its effect: what can be healed below is healed.
    pub(super) async fn touch(&self, offset: u64, length: u64) -> IoResult {
        let span = self.span(offset, length);
        let step = self.step();
        let mut at = span.start;
        let mut buf = Buf::alloc(usize_of(step.min(span.end - span.start)));
        while at < span.end {
            let take = step.min(span.end - at);
            drop(buf.split_off(usize_of(take)));
            let (result, back) = self.fill(at, buf).await;
            result?;
            buf = back;
            at += take;
        }
        Ok(())
    }

    /// What is stored in the range: runs from the block on that holds `offset`.
    pub(super) async fn allocation(&self, span: &Span) -> IoResult<Vec<Allocation>> {
        let sectors = span.sectors();
        self.device.allocation(Sector(sectors.start), sectors.end - sectors.start).await
    }

    /// Reads a piece of whole blocks at byte `start` for the outcome alone.
    pub(super) async fn check(&self, start: u64, bytes: u64) -> IoResult {
        self.fill(start, Buf::alloc(usize_of(bytes))).await.0
    }

    /// Bytes of a step: [`STEP_BYTES`], or less if the device takes less.
    pub(super) fn step(&self) -> u64 {
        u64_of(self.piece.min(STEP_BYTES))
    }

    async fn lock_for(&self, span: &Span) -> RangeGuard {
        match span.is_whole() {
            true => self.lock.lock_shared(span.sectors()).await,
            false => self.lock.lock(span.sectors()).await,
        }
    }

    async fn write_locked(&self, payload: Payload, fua: bool) -> IoResult {
        let Payload { span, mut head, body, mut tail } = payload;
        if !span.is_whole() {
            self.keep(&span, &mut head, &mut tail).await?;
        }
        let joined = head.unsplit(body).and_then(|()| head.unsplit(tail));
        debug_assert!(joined.is_ok(), "cut from one buffer in `payload`");
        let op = |sector, data: Buf| match fua {
            true => Bio::write_fua(sector, data),
            false => Bio::write(sector, data),
        };
        self.in_pieces(span.start, head, op).await.0
    }

    /// Reads what lies before and after the client's bytes in the first and the last block.
    async fn keep(&self, span: &Span, head: &mut Buf, tail: &mut Buf) -> IoResult {
        let block = usize_of(self.block);
        let last = span.end - self.block;
        let mut kept = None;
        if span.head > 0 {
            let (result, first) = self.fill(span.start, Buf::alloc(block)).await;
            result?;
            head.as_mut_slice().copy_from_slice(&first.as_slice()[..span.head]);
            kept = Some(first);
        }
        if span.tail > 0 {
            let block_of_tail = match kept {
                Some(first) if last == span.start => first,
                _ => {
                    let (result, block) = self.fill(last, Buf::alloc(block)).await;
                    result?;
                    block
                }
            };
            tail.as_mut_slice().copy_from_slice(&block_of_tail.as_slice()[block - span.tail..]);
        }
        Ok(())
    }

    /// Whole blocks inside the range, if any, and what is left at its edges: without a whole
    /// block, all of it.
    fn cut(&self, offset: u64, length: u64) -> (Range<u64>, [Range<u64>; 2]) {
        let end = offset + length;
        let first = offset.next_multiple_of(self.block);
        let last = end / self.block * self.block;
        if first < last {
            (first..last, [offset..first, last..end])
        } else {
            (0..0, [offset..end, 0..0])
        }
    }

    async fn fill(&self, start: u64, buf: Buf) -> (IoResult, Buf) {
        self.in_pieces(start, buf, Bio::read_into).await
    }

    /// Submits `buf` at byte `start` in pieces that the device takes, and gives it back whole.
    /// The error is the one of the lowest address.
    async fn in_pieces(
        &self,
        start: u64,
        mut buf: Buf,
        op: impl Fn(Sector, Buf) -> Bio,
    ) -> (IoResult, Buf) {
        let sector = Sector::containing(start);
        if buf.len() <= self.piece {
            let mut bio = op(sector, buf);
            let result = self.device.submit(&mut bio).await;
            return (result, bio.data.into_single());
        }
        let mut pieces = Vec::new();
        let mut at = sector;
        while !buf.is_empty() {
            let rest = buf.split_off(self.piece.min(buf.len()));
            let sectors = Sector::containing(u64_of(buf.len())).0;
            pieces.push(op(at, buf));
            at += sectors;
            buf = rest;
        }
        let device = &self.device;
        let done = join_all(pieces.into_iter().map(|mut bio| async move {
            let result = device.submit(&mut bio).await;
            (result, bio.data)
        }))
        .await;
        let mut result = Ok(());
        let mut data = bio::Segments::default();
        for (outcome, piece) in done {
            result = result.and(outcome);
            data.append(piece);
        }
        (result, data.into_single())
    }
}

/// Walks a range in which something cannot be read: big steps where it is good, single blocks
/// where it is bad, growing again. Bounds the work to a few reads per bad block.
pub(super) struct Probe {
    block: u64,
    most: u64,
    at: u64,
    end: u64,
    /// Bytes of the next piece.
    size: u64,
}

impl Probe {
    /// A walk over whole blocks, of which nothing is known.
    pub(super) fn new(volume: &Volume, range: Range<u64>) -> Self {
        let (block, most) = (volume.block, volume.step().max(volume.block));
        Self { block, most, at: range.start, end: range.end, size: most }
    }

    /// A walk after a first read that failed with `error`: up to there it may be good.
    fn after(volume: &Volume, range: Range<u64>, error: IoError) -> Self {
        let mut probe = Self::new(volume, range);
        probe.failed_at(error);
        probe
    }

    /// Where the next piece starts; a piece that failed is passed when it was a single block.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next piece to read.
    pub(super) fn next(&self) -> Option<Range<u64>> {
        (self.at < self.end).then(|| self.at..(self.at + self.size).min(self.end))
    }

    /// Learns how reading `piece` went.
    pub(super) fn saw(&mut self, piece: &Range<u64>, result: &IoResult) {
        match result {
            Ok(()) => {
                self.at = piece.end;
                self.size = (self.size * 2).min(self.most);
            }
            Err(_) if piece.end - piece.start <= self.block => {
                self.at = piece.end;
                self.size = self.block;
            }
            Err(error) => self.failed_at(*error),
        }
    }

    fn failed_at(&mut self, error: IoError) {
        let bad = error.sector.0.saturating_mul(units::SECTOR) / self.block * self.block;
        // Everything before the first bad sector may be good; the bad block itself is asked alone.
        self.size = match bad > self.at && bad < self.end {
            true => (bad - self.at).min(self.most),
            false => self.block,
        };
    }
}

/// The part of `buf`, which holds what lies at byte `start`, that lies in `range`.
fn clip(start: u64, mut buf: Buf, range: Range<u64>) -> Option<(u64, Buf)> {
    let end = start + u64_of(buf.len());
    let (from, to) = (start.max(range.start), end.min(range.end));
    if from >= to {
        return None;
    }
    drop(buf.split_off(usize_of(to - start)));
    Some((from, buf.split_off(usize_of(from - start))))
}

fn sectors(range: &Range<u64>) -> Option<(Sector, u64)> {
    let first = Sector::containing(range.start);
    let sectors = Sector::containing(range.end) - first;
    (sectors > 0).then_some((first, sectors))
}

/// Bad blocks after which a read gives up looking for more that is good.
const BAD_MAX: usize = 64;

#[cfg(test)]
mod tests;
