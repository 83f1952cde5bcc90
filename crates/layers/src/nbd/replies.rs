//! Replies, checked against the requests that they answer.

use super::incoming::Incoming;
use super::link::{Failure, Link, Pending};
use nbd::reply::{
    ChunkKind, EXTENT_BYTES, ErrorChunk, Header, decode_error, decode_extents, decode_hole,
};
use nbd::{Command, Errno, WireError};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use units::usize_of;

/// Pieces that are not next to each other, in the reply to one read. Servers send a read's content
/// in order, in a few pieces.
const PIECES_MAX: usize = 1024;

/// States kept of one reply.
const STATES_MAX: usize = 4096;
/// Bytes of states looked at at once.
const STATES_BYTES: usize = 4096 * EXTENT_BYTES;

/// Why nothing more can be received.
#[derive(Debug)]
#[allow(dead_code, reason = "told to a debugger; there is nobody else to be told")]
pub(super) enum Broken {
    Io(io::Error),
    Wire(WireError),
    /// A reply that does not answer its request, or answers none.
    Violation(&'static str),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// Which bytes of a read have come.
#[derive(Debug, Default)]
pub(super) struct Covered(Vec<Range<u64>>);

impl Covered {
    /// Adds `range`, which is not empty; refuses what has come already, and too many pieces.
    fn add(&mut self, range: Range<u64>) -> Result<(), Broken> {
        let after = self.0.partition_point(|other| other.end <= range.start);
        if self.0.get(after).is_some_and(|other| other.start < range.end) {
            return Err(Broken::Violation("content twice"));
        }
        match after.checked_sub(1).map(|before| &mut self.0[before]) {
            Some(before) if before.end == range.start => before.end = range.end,
            _ => self.0.insert(after, range),
        }
        if self.0.len() > PIECES_MAX {
            return Err(Broken::Violation("content in too many pieces"));
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }
}

impl Link {
    /// Deals with one reply or chunk.
    pub(super) async fn reply(&self, incoming: &mut Incoming) -> Result<(), Broken> {
        let (header, length) = loop {
            match Header::decode(incoming.bytes())? {
                Some(found) => break found,
                None => incoming.more().await?,
            }
        };
        incoming.consume(length);
        match header {
            Header::Simple { cookie, error } => {
                let pending = self.find(cookie).ok_or(NOBODY)?;
                self.simple(incoming, &pending, error).await
            }
            Header::Chunk { cookie, done, kind, length } => {
                if !self.structured {
                    return Err(Broken::Violation("a chunk where only simple replies were agreed"));
                }
                let pending = self.find(cookie).ok_or(NOBODY)?;
                self.chunk(incoming, &pending, kind, length).await?;
                if done { self.conclude(&pending) } else { Ok(()) }
            }
        }
    }

    async fn simple(
        &self,
        incoming: &mut Incoming,
        pending: &Rc<Pending>,
        error: Option<Errno>,
    ) -> Result<(), Broken> {
        let request = &pending.request;
        match (error, request.command) {
            (Some(error), _) => pending.fail(error, None),
            (None, Command::Read) if self.structured => {
                return Err(Broken::Violation("a simple reply to a read among structured ones"));
            }
            (None, Command::Read) => {
                let (start, length) = (request.offset, u64::from(request.length));
                content(incoming, pending, start, length).await?;
            }
            (None, Command::BlockStatus) => {
                return Err(Broken::Violation("a simple reply to a question for states"));
            }
            (None, _) => {}
        }
        self.conclude(pending)
    }

    async fn chunk(
        &self,
        incoming: &mut Incoming,
        pending: &Rc<Pending>,
        kind: ChunkKind,
        length: u32,
    ) -> Result<(), Broken> {
        let command = pending.request.command;
        match kind {
            ChunkKind::None => Ok(()),
            ChunkKind::OffsetData if command == Command::Read => {
                incoming.at_least(8).await?;
                let offset = incoming.bytes().first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
                let offset = offset.ok_or(Broken::Violation("no offset"))?;
                incoming.consume(8);
                content(incoming, pending, offset, u64::from(length) - 8).await
            }
            ChunkKind::OffsetHole if command == Command::Read => {
                let (offset, length) = with_payload(incoming, length, decode_hole).await?;
                let (at, length) = pending.place(offset, length.into())?;
                let mut progress = pending.progress.borrow_mut();
                let mut hole = progress.data.split_off(at);
                let tail = hole.split_off(length);
                hole.iter_mut().for_each(|buf| buf.as_mut_slice().fill(0));
                progress.data.append(hole);
                progress.data.append(tail);
                Ok(())
            }
            ChunkKind::BlockStatus if command == Command::BlockStatus => {
                self.states(incoming, pending, usize_of(length.into())).await
            }
            ChunkKind::Error | ChunkKind::ErrorOffset | ChunkKind::OtherError(_) => {
                let decode = |payload: &[u8]| decode_error(kind, payload);
                let ErrorChunk { error, offset, .. } =
                    with_payload(incoming, length, decode).await?;
                if let Some(offset) = offset {
                    pending.place(offset, 0)?;
                }
                pending.fail(error, offset);
                Ok(())
            }
            ChunkKind::OffsetData | ChunkKind::OffsetHole | ChunkKind::BlockStatus => {
                Err(Broken::Violation("a chunk that does not answer its request"))
            }
        }
    }

    /// Takes the first states of however many there are; whoever wants to know more asks again.
    async fn states(
        &self,
        incoming: &mut Incoming,
        pending: &Rc<Pending>,
        length: usize,
    ) -> Result<(), Broken> {
        incoming.at_least(4).await?;
        let id = incoming.bytes().first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        incoming.consume(4);
        if id != self.allocation || !pending.progress.borrow().extents.is_empty() {
            return Err(Broken::Violation("states that were not asked for"));
        }
        let mut left = length - 4;
        while left > 0 {
            let step = left.min(STATES_BYTES);
            incoming.at_least(step).await?;
            let extents = decode_extents(&incoming.bytes()[..step])?;
            incoming.consume(step);
            left -= step;
            let mut progress = pending.progress.borrow_mut();
            let room = STATES_MAX - progress.extents.len();
            progress.extents.extend(extents.into_iter().take(room));
        }
        Ok(())
    }

    /// The last of a reply has come: was it all there?
    fn conclude(&self, pending: &Rc<Pending>) -> Result<(), Broken> {
        let request = &pending.request;
        {
            let progress = pending.progress.borrow();
            let complete = match request.command {
                Command::Read => progress.covered.bytes() == u64::from(request.length),
                Command::BlockStatus => !progress.extents.is_empty(),
                _ => true,
            };
            if !complete && progress.failure.is_none() {
                return Err(Broken::Violation("success with a part of what was asked for"));
            }
        }
        self.finish(pending);
        Ok(())
    }
}

impl Pending {
    fn fail(&self, error: Errno, offset: Option<u64>) {
        let failure = &mut self.progress.borrow_mut().failure;
        let earlier = match (*failure, offset) {
            (Some(Failure::Refused { offset: Some(told), .. }), Some(offset)) => offset < told,
            (Some(_), _) => false,
            (None, _) => true,
        };
        if earlier {
            *failure = Some(Failure::Refused { error, offset });
        }
    }

    /// Where `length` bytes at the export's `offset` lie in the request.
    fn place(&self, offset: u64, length: u64) -> Result<(usize, usize), Broken> {
        let outside = WireError::ChunkRange { offset, length };
        let at = offset.checked_sub(self.request.offset).ok_or(outside)?;
        let end = at.checked_add(length).ok_or(outside)?;
        if end > u64::from(self.request.length) {
            return Err(outside.into());
        }
        if length > 0 {
            self.progress.borrow_mut().covered.add(at..end)?;
        }
        Ok((usize_of(at), usize_of(length)))
    }
}

/// Receives content into its place. The request has its buffers back whatever happens.
async fn content(
    incoming: &mut Incoming,
    pending: &Rc<Pending>,
    offset: u64,
    length: u64,
) -> Result<(), Broken> {
    let (at, length) = pending.place(offset, length)?;
    let mut head = std::mem::take(&mut pending.progress.borrow_mut().data);
    let mut middle = head.split_off(at);
    let tail = middle.split_off(length);
    let (result, middle) = incoming.fill(middle).await;
    head.append(middle);
    head.append(tail);
    pending.progress.borrow_mut().data = head;
    Ok(result?)
}

async fn with_payload<T>(
    incoming: &mut Incoming,
    length: u32,
    decode: impl FnOnce(&[u8]) -> Result<T, WireError>,
) -> Result<T, Broken> {
    let length = usize_of(length.into());
    incoming.at_least(length).await?;
    let decoded = decode(&incoming.bytes()[..length]);
    incoming.consume(length);
    Ok(decoded?)
}

const NOBODY: Broken = Broken::Violation("a reply that nobody waits for");
