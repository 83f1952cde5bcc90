//! Carries out one request and hands its reply to the sender.

use super::replies::{Held, Replies};
use super::status;
use super::volume::{Payload, STEP_BYTES, Volume};
use bio::{IoError, IoErrorKind, IoResult};
use nbd::{
    CONTEXT_ALLOCATION, Command, CommandFlags, Errno, Request, SelectedContext, TransmissionFlags,
    reply,
};
use std::rc::Rc;
use units::{Sector, u64_of, usize_of};

/// What all requests of one connection share.
pub(super) struct Session {
    pub(super) volume: Rc<Volume>,
    pub(super) replies: Rc<Replies>,
    /// Bytes of the export.
    pub(super) size: u64,
    pub(super) flags: TransmissionFlags,
    pub(super) structured: bool,
    pub(super) contexts: Vec<SelectedContext>,
}

impl Session {
    /// Whether `request` may be carried out.
    pub(super) fn check(&self, request: &Request) -> Result<(), Errno> {
        request.check(self.size, self.flags, !self.contexts.is_empty())
    }

    /// Bytes of buffers that `request`, which passed [`Self::check`], will hold at once.
    pub(super) fn cost(&self, request: &Request) -> usize {
        let span = || self.volume.span(request.offset, request.length.into());
        // Two more blocks where the first and the last are read before they are written.
        let edges = 2 * usize_of(self.volume.block()).max(PAGE);
        match request.command {
            Command::Read => capacity(span().bytes()),
            Command::Write => capacity(span().bytes()) + edges,
            Command::Cache => capacity(usize_of(request.length.into()).min(STEP_BYTES)),
            Command::BlockStatus => status::COST,
            _ => 2 * edges,
        }
    }

    /// Answers a request that is not carried out.
    pub(super) fn refuse(&self, request: &Request, error: Errno, held: Held) {
        self.fail(request, error, &error.to_string(), None, held);
    }

    /// Carries out `request`, which passed [`Self::check`]; `payload` is there for writes that
    /// are not empty.
    pub(super) async fn execute(
        &self,
        request: &Request,
        payload: Option<Payload>,
        mut held: Held,
    ) {
        let result = match request.command {
            Command::Read => return self.read(request, held).await,
            Command::BlockStatus => return self.block_status(request, held).await,
            _ => self.effect(request, payload).await,
        };
        // The reply carries no data: its buffers are free before it is sent.
        held.budget = None;
        match result {
            Ok(()) => self.replies.simple(held, request.cookie, None),
            Err(Failure::Io(error)) => self.fail_io(request, error, held),
            Err(Failure::Slow) => self.refuse(request, Errno::ENOTSUP, held),
        }
    }

    async fn effect(&self, request: &Request, payload: Option<Payload>) -> Result<(), Failure> {
        let (offset, length) = (request.offset, u64::from(request.length));
        let (volume, fua) = (&self.volume, request.flags.contains(CommandFlags::FUA));
        let limits = volume.device().limits();
        match request.command {
            Command::Write => {
                if let Some(payload) = payload {
                    volume.write(payload, fua).await?;
                }
            }
            Command::Flush => volume.device().flush().await?,
            _ if length == 0 => {}
            Command::Cache => volume.touch(offset, length).await?,
            Command::Trim => {
                volume.trim(offset, length).await?;
                self.durable(fua).await?;
            }
            Command::WriteZeroes => {
                let whole =
                    offset.is_multiple_of(volume.block()) && length.is_multiple_of(volume.block());
                let fast = limits.fast_zeroes && whole;
                if request.flags.contains(CommandFlags::FAST_ZERO) && !fast {
                    return Err(Failure::Slow);
                }
                let unmap = !request.flags.contains(CommandFlags::NO_HOLE);
                volume.write_zeroes(offset, length, unmap).await?;
                self.durable(fua).await?;
            }
            Command::Read | Command::BlockStatus | Command::Disconnect | Command::Unknown(_) => {
                debug_assert!(false, "answered elsewhere");
            }
        }
        Ok(())
    }

    /// What has no FUA of its own is made durable by a flush.
    async fn durable(&self, fua: bool) -> IoResult {
        if fua { self.volume.device().flush().await } else { Ok(()) }
    }

    async fn read(&self, request: &Request, held: Held) {
        let (cookie, offset, length) = (request.cookie, request.offset, request.length);
        if length == 0 {
            return match self.structured {
                true => self.replies.chunks(held, &reply::none(cookie)),
                false => self.replies.simple(held, cookie, None),
            };
        }
        let error = match self.volume.read(offset, length).await {
            Ok(data) if self.structured => {
                return self.replies.data_chunks(held, cookie, vec![(offset, data)], &[]);
            }
            Ok(data) => return self.replies.simple_data(held, cookie, data),
            Err(error) => error,
        };
        let whole_or_nothing = !self.structured || request.flags.contains(CommandFlags::DF);
        if whole_or_nothing || !error.kind.is_damage() {
            return self.fail_io(request, error, held);
        }
        let salvage = self.volume.salvage(offset, length, error).await;
        let mut last = Vec::new();
        if let Some((at, error)) = salvage.bad {
            let errno = errno_of(error.kind);
            reply::error_offset(&mut last, cookie, errno, &error.to_string(), at);
        }
        self.replies.data_chunks(held, cookie, salvage.good, &last);
    }

    async fn block_status(&self, request: &Request, mut held: Held) {
        let mut chunks = Vec::new();
        for (index, context) in self.contexts.iter().enumerate() {
            let (offset, length) = (request.offset, request.length);
            let extents = match context.name.as_str() {
                CONTEXT_ALLOCATION => status::allocation(&self.volume, offset, length).await,
                _ => status::integrity(&self.volume, offset, length).await,
            };
            let extents = match extents {
                Ok(extents) => extents,
                Err(error) => return self.fail_io(request, error, held),
            };
            let count = match request.flags.contains(CommandFlags::REQ_ONE) {
                true => 1,
                false => extents.len(),
            };
            let done = index + 1 == self.contexts.len();
            reply::block_status(&mut chunks, request.cookie, done, context.id, &extents[..count]);
        }
        held.budget = None;
        self.replies.chunks(held, &chunks);
    }

    fn fail_io(&self, request: &Request, error: IoError, held: Held) {
        let first = Sector(error.sector.0.min(u64::MAX >> 9)).bytes();
        let last = request.offset + u64::from(request.length).saturating_sub(1);
        let offset = first.clamp(request.offset, last);
        self.fail(request, errno_of(error.kind), &error.to_string(), Some(offset), held);
    }

    fn fail(
        &self,
        request: &Request,
        error: Errno,
        text: &str,
        offset: Option<u64>,
        mut held: Held,
    ) {
        held.budget = None;
        if !self.structured {
            return self.replies.simple(held, request.cookie, Some(error));
        }
        let mut chunk = Vec::new();
        match offset {
            Some(offset) if request.command != Command::Flush => {
                reply::error_offset(&mut chunk, request.cookie, error, text, offset);
            }
            _ => reply::error(&mut chunk, request.cookie, error, text),
        }
        self.replies.chunks(held, &chunk);
    }
}

enum Failure {
    Io(IoError),
    /// A fast zero that would not be fast.
    Slow,
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

/// What a client is told; "Error values" allows only these.
fn errno_of(kind: IoErrorKind) -> Errno {
    match kind {
        IoErrorKind::Medium | IoErrorKind::Protection | IoErrorKind::Unavailable => Errno::EIO,
        IoErrorKind::NoSpace => Errno::ENOSPC,
        IoErrorKind::ReadOnly => Errno::EPERM,
        IoErrorKind::Unsupported | IoErrorKind::Invalid => Errno::EINVAL,
    }
}

/// Bytes of memory that a buffer of `bytes` takes: pools keep powers of two up to the largest
/// payload.
fn capacity(bytes: usize) -> usize {
    if u64_of(bytes) <= u64::from(nbd::PAYLOAD_MAX) {
        bytes.max(PAGE).next_power_of_two()
    } else {
        bytes.next_multiple_of(PAGE)
    }
}

const PAGE: usize = 4096;
