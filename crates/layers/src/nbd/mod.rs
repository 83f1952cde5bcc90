//! A member on another machine, or in another process: an NBD client as a device.
//!
//! ```text
//!   submit --> request (and payload) --> outgoing --> sender ----> socket
//!      ^                                                             |
//!      +--- outcome --- pending, by cookie <--- receiver <-----------+
//! ```
//!
//! Any number of requests are under way on one connection and end in any order. Data is received
//! straight into the buffers of the request that asked for it. Nothing the server sends is
//! believed before it is checked: a reply that nobody waits for, content outside of its request
//! or twice, or less than was asked for, ends the connection.
//!
//! A connection that ended does not come back: every request, now and later, is `Unavailable`,
//! and the layers above go on without this member.

mod incoming;
mod link;
mod replies;

use bio::{
    Allocation, Bio, BlockDevice, Buf, IoError, IoErrorKind, IoResult, Limits, Op, Segments,
};
use link::{Answer, Failure, Link};
use nbd::reply::Extent;
use nbd::{
    ClientNegotiated, Command, CommandFlags, Errno, HandshakeError, STATE_HOLE, STATE_ZERO,
    TransmissionFlags, Uri,
};
use runtime::{Stream, join_all};
use std::io;
use std::net::ToSocketAddrs;
use std::rc::Rc;
use std::time::Duration;
use units::{BlockSize, SECTOR, Sector, u64_of, usize_of};

/// For how long a server may take to describe itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of one request without data (zeroes, states): a bound on what a server does at once.
const EFFECT_BYTES_MAX: u64 = 1 << 30;
/// Bytes of zeroes sent at once to a server that cannot make them itself.
const ZEROES_BYTES: u64 = 1 << 20;
/// Bytes of data in one request, however much the server takes.
const DATA_BYTES_MAX: u64 = 32 << 20;

/// Why a server cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name of the machine means nothing.
    #[error("cannot find the address of `{host}`: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens there, or the connection broke.
    #[error("cannot connect to {uri}: {source}")]
    Connect {
        /// Where.
        uri: Uri,
        /// Why.
        source: io::Error,
    },
    /// The handshake failed, or the export was refused.
    #[error("{uri}: {source}")]
    Handshake {
        /// Where.
        uri: Uri,
        /// Why.
        source: HandshakeError,
    },
    /// It does not answer.
    #[error("{uri} has not completed the handshake within {} seconds", PATIENCE.as_secs())]
    Timeout {
        /// Where.
        uri: Uri,
    },
    /// Its blocks are larger than any of ours.
    #[error("{uri} reads and writes only in units of {minimum} bytes, at most 4096 are supported")]
    BlockSize {
        /// Where.
        uri: Uri,
        /// Bytes.
        minimum: u32,
    },
}

/// A member behind an NBD server.
pub struct NbdDevice {
    link: Rc<Link>,
    limits: Limits,
    flags: TransmissionFlags,
    allocation: bool,
}

impl NbdDevice {
    /// Connects to the server and the export that `uri` names. To be called on a
    /// [`runtime::Runtime`], as everything afterwards.
    ///
    /// # Errors
    /// [`ConnectError`], which says how far it came.
    pub async fn connect(uri: &Uri) -> Result<Self, ConnectError> {
        let within = |source| ConnectError::Connect { uri: uri.clone(), source };
        let stream = match uri {
            Uri::Unix { socket, .. } => Stream::connect_unix(socket).await.map_err(within)?,
            Uri::Tcp { host, port, .. } => {
                let resolve = |source| ConnectError::Resolve { host: host.clone(), source };
                let addresses = (host.as_str(), *port).to_socket_addrs().map_err(resolve)?;
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                let mut connected = None;
                for address in addresses {
                    match Stream::connect_tcp(address).await {
                        Ok(stream) => {
                            connected = Some(stream);
                            break;
                        }
                        Err(error) => last = error,
                    }
                }
                connected.ok_or_else(|| within(last))?
            }
        };
        let handshake = incoming::handshake(&stream, uri.export());
        match incoming::within(PATIENCE, handshake).await {
            None => Err(ConnectError::Timeout { uri: uri.clone() }),
            Some(Err(incoming::Failed::Io(source))) => Err(within(source)),
            Some(Err(incoming::Failed::Handshake(source))) => {
                Err(ConnectError::Handshake { uri: uri.clone(), source })
            }
            Some(Ok((agreed, incoming))) => {
                let limits = limits_of(&agreed).ok_or(ConnectError::BlockSize {
                    uri: uri.clone(),
                    minimum: agreed.sizes.minimum,
                })?;
                let link = Link::open(stream, incoming, agreed.structured, agreed.allocation);
                let allocation = agreed.allocation.is_some();
                Ok(Self { link, limits, flags: agreed.flags, allocation })
            }
        }
    }

    /// Calls with the pieces of `bytes` bytes from `sector` on, each at most `most` long, all at
    /// once. Gives their answers in order.
    async fn in_pieces(
        &self,
        bytes: u64,
        most: u64,
        call: impl AsyncFn(u64, u64) -> Answer,
    ) -> Vec<Answer> {
        if bytes <= most {
            return vec![call(0, bytes).await];
        }
        let starts = (0..bytes.div_ceil(most)).map(|piece| piece * most);
        join_all(starts.map(|at| call(at, most.min(bytes - at)))).await
    }

    async fn read(&self, bio: &mut Bio) -> IoResult {
        let (start, bytes) = (bio.sector.bytes(), u64_of(bio.data.len_bytes()));
        let data = std::cell::RefCell::new(std::mem::take(&mut bio.data));
        let answers = self
            .in_pieces(bytes, self.limits.max_bytes, async |at, length| {
                // Pieces are cut off in order, each when it is first polled.
                let piece = {
                    let mut all = data.borrow_mut();
                    let rest = all.split_off(usize_of(length));
                    std::mem::replace(&mut *all, rest)
                };
                let none = CommandFlags::NONE;
                self.link
                    .call(Command::Read, none, start + at, length, Segments::default(), piece)
                    .await
            })
            .await;
        let mut result = Ok(());
        for answer in answers {
            result = result.and(answer.result(bio.sector));
            bio.data.append(answer.data);
        }
        result
    }

    async fn write(&self, sector: Sector, data: &Segments, fua: bool) -> IoResult {
        let start = sector.bytes();
        let flags = self.fua(fua);
        let answers = self
            .in_pieces(u64_of(data.len_bytes()), self.limits.max_bytes, async |at, length| {
                let piece = data.slice(usize_of(at)..usize_of(at + length));
                let nothing = Segments::default();
                self.link.call(Command::Write, flags, start + at, length, piece, nothing).await
            })
            .await;
        answers.iter().try_for_each(|answer| answer.result(sector))?;
        self.flush_for(fua).await
    }

    async fn write_zeroes(&self, sector: Sector, sectors: u64, unmap: bool) -> IoResult {
        let (start, bytes) = (sector.bytes(), Sector(sectors).bytes());
        if !self.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            let zeroes = Buf::zeroed(usize_of(bytes.min(ZEROES_BYTES)));
            let mut at = 0;
            while at < bytes {
                let length = (bytes - at).min(ZEROES_BYTES);
                let piece = zeroes.slice(0..usize_of(length)).into();
                self.write(Sector::containing(start + at), &piece, false).await?;
                at += length;
            }
            return Ok(());
        }
        let flags = if unmap { CommandFlags::NONE } else { CommandFlags::NO_HOLE };
        let answers = self
            .in_pieces(bytes, EFFECT_BYTES_MAX, async |at, length| {
                self.link.effect(Command::WriteZeroes, flags, start + at, length).await
            })
            .await;
        answers.iter().try_for_each(|answer| answer.result(sector))
    }

    async fn flush(&self) -> IoResult {
        // A server that does not offer it has nothing to flush.
        if !self.flags.contains(TransmissionFlags::SEND_FLUSH) {
            return if self.link.is_lost() {
                Err(IoErrorKind::Unavailable.at(Sector::ZERO))
            } else {
                Ok(())
            };
        }
        self.link.effect(Command::Flush, CommandFlags::NONE, 0, 0).await.result(Sector::ZERO)
    }

    /// The flag for a durable write, where the server has one.
    fn fua(&self, fua: bool) -> CommandFlags {
        match fua && self.flags.contains(TransmissionFlags::SEND_FUA) {
            true => CommandFlags::FUA,
            false => CommandFlags::NONE,
        }
    }

    /// The flush that stands for the flag where the server has none.
    async fn flush_for(&self, fua: bool) -> IoResult {
        match fua && !self.flags.contains(TransmissionFlags::SEND_FUA) {
            true => self.flush().await,
            false => Ok(()),
        }
    }
}

impl Drop for NbdDevice {
    fn drop(&mut self) {
        self.link.close();
    }
}

impl BlockDevice for NbdDevice {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Read => self.read(bio).await,
            Op::Write { fua } => self.write(bio.sector, &bio.data, fua).await,
            Op::Flush => self.flush().await,
            // TRIM promises nothing of what is read afterwards; zeroes that may become holes do.
            Op::Discard { sectors } => self.write_zeroes(bio.sector, sectors, true).await,
            Op::WriteZeroes { sectors, unmap } => {
                self.write_zeroes(bio.sector, sectors, unmap).await
            }
            Op::Vouch | Op::Peek { .. } => Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let unknown = vec![Allocation { sectors, hole: false }];
        if !self.allocation {
            return Ok(unknown);
        }
        let bytes = Sector(sectors).bytes().min(EFFECT_BYTES_MAX);
        let none = CommandFlags::NONE;
        let answer = self.link.effect(Command::BlockStatus, none, sector.bytes(), bytes).await;
        match answer.outcome {
            Ok(()) => Ok(runs(&answer.extents, bytes / SECTOR)),
            Err(Failure::Lost) => Err(IoErrorKind::Unavailable.at(sector)),
            // It may answer for some ranges and not for others; its data is there all the same.
            Err(Failure::Refused { .. }) => Ok(unknown),
        }
    }
}

impl Answer {
    fn result(&self, sector: Sector) -> IoResult {
        match self.outcome {
            Ok(()) => Ok(()),
            Err(Failure::Lost) => Err(IoErrorKind::Unavailable.at(sector)),
            Err(Failure::Refused { error, offset }) => Err(IoError {
                kind: kind_of(error),
                sector: offset.map_or(sector, Sector::containing).max(sector),
            }),
        }
    }
}

/// What an error of the server means for the layer above. Requests were checked before they were
/// sent, so that one that the server finds invalid is the server's fault.
fn kind_of(error: Errno) -> IoErrorKind {
    match error {
        Errno::EPERM => IoErrorKind::ReadOnly,
        Errno::ENOSPC => IoErrorKind::NoSpace,
        Errno::ENOTSUP => IoErrorKind::Unsupported,
        Errno::ESHUTDOWN => IoErrorKind::Unavailable,
        _ => IoErrorKind::Medium,
    }
}

/// None: its smallest unit is larger than our largest block.
fn limits_of(agreed: &ClientNegotiated) -> Option<Limits> {
    let block = BlockSize::from_bytes(u64::from(agreed.sizes.minimum).max(SECTOR))?;
    // What is left at the end of an odd size cannot be addressed.
    let sectors = agreed.size / u64_of(block.bytes()) * block.sectors();
    let writable = !agreed.flags.contains(TransmissionFlags::READ_ONLY);
    let zeroes = writable && agreed.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES);
    let most = u64::from(agreed.sizes.maximum).min(DATA_BYTES_MAX);
    let block_bytes = u64_of(block.bytes());
    Some(Limits {
        preferred_bytes: u64::from(agreed.sizes.preferred).max(block_bytes),
        max_bytes: (most / block_bytes * block_bytes).max(block_bytes),
        read_only: !writable,
        discard: zeroes,
        fast_zeroes: zeroes,
        ..Limits::new(sectors, block)
    })
}

/// Extents, in bytes from the start of a sector on, as runs of sectors, at most `sectors` in all.
/// A sector is a hole only if all of it is.
fn runs(extents: &[Extent], sectors: u64) -> Vec<Allocation> {
    let mut runs: Vec<Allocation> = Vec::new();
    let mut add = |sectors: u64, hole: bool| match runs.last_mut() {
        _ if sectors == 0 => {}
        Some(last) if last.hole == hole => last.sectors += sectors,
        _ => runs.push(Allocation { sectors, hole }),
    };
    let (mut at, mut told) = (0u64, 0u64);
    for extent in extents {
        at += u64::from(extent.length);
        let hole = extent.state & (STATE_HOLE | STATE_ZERO) == STATE_HOLE | STATE_ZERO;
        // Data ends with the sector that it begins; holes end before one that is not all theirs.
        let end = if hole { at / SECTOR } else { at.div_ceil(SECTOR) }.min(sectors);
        if end > told {
            add(end - told, hole);
            told = end;
        }
    }
    // The answer ended within the first sector.
    add(u64::from(told == 0), false);
    runs
}

#[cfg(test)]
mod tests;
