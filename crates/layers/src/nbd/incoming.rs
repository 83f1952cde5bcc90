//! Bytes as they come in: the handshake, and the buffer in front of the socket.

use bio::{Buf, Segments};
use nbd::{ClientHandshake, ClientNegotiated, HandshakeError};
use runtime::{Stream, sleep};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Bytes received at once: many small replies with their data.
const INPUT_BYTES: usize = 256 << 10;
/// Bytes received at once after a large piece of data, of which the next one probably follows:
/// what is received here of it has to be copied.
const INPUT_BYTES_BETWEEN_DATA: usize = 4 << 10;
/// Bytes from which data is received straight into its place.
const DIRECT_BYTES: usize = 32 << 10;

/// Why there is no connection.
pub(super) enum Failed {
    Io(io::Error),
    Handshake(HandshakeError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Shakes hands for `export`; what came after the last message stays in the buffer.
pub(super) async fn handshake(
    stream: &Stream,
    export: &str,
) -> Result<(ClientNegotiated, Incoming), Failed> {
    let mut incoming = Incoming::new(stream.clone());
    let mut handshake = ClientHandshake::new(export);
    loop {
        let step = handshake.step(incoming.bytes()).map_err(Failed::Handshake)?;
        incoming.consume(step.consumed);
        if !step.request.is_empty() {
            stream.send_all(Buf::copy_of(&step.request)).await?;
        }
        if let Some(negotiated) = step.negotiated {
            return Ok((negotiated, incoming));
        }
        if step.consumed == 0 {
            incoming.more().await?;
        }
    }
}

/// Runs `future`, but not longer than `limit`.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut timer) = (pin!(future), pin!(sleep(limit)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// The socket's incoming side, with a buffer in front.
pub(super) struct Incoming {
    stream: Stream,
    buf: Buf,
    start: usize,
    end: usize,
    limit: usize,
}

impl Incoming {
    fn new(stream: Stream) -> Self {
        Self { stream, buf: Buf::alloc(INPUT_BYTES), start: 0, end: 0, limit: INPUT_BYTES }
    }

    /// What has come and is not dealt with yet.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf.as_slice()[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "only what came is dealt with");
    }

    /// Waits for more.
    pub(super) async fn more(&mut self) -> io::Result<()> {
        let (start, end) = (self.start, self.end);
        self.buf.as_mut_slice().copy_within(start..end, 0);
        (self.start, self.end) = (0, end - start);
        if self.end == self.buf.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut window = std::mem::replace(&mut self.buf, Buf::alloc(0));
        let room = window.len() - self.end;
        let rest = window.split_off(self.end + self.limit.min(room));
        let (received, mut window) = self.stream.recv_at(window, self.end).await;
        // Cut from one another just now: they fit.
        let joined = window.unsplit(rest);
        self.buf = window;
        match received? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ if joined.is_err() => Err(io::ErrorKind::InvalidData.into()),
            received => {
                self.end += received;
                Ok(())
            }
        }
    }

    /// Waits until `count` bytes are there; at most [`INPUT_BYTES`] ever are.
    pub(super) async fn at_least(&mut self, count: usize) -> io::Result<()> {
        while self.bytes().len() < count {
            self.limit = self.limit.max(count);
            self.more().await?;
        }
        Ok(())
    }

    /// Fills `data` with what comes next; gives it back whatever happens.
    pub(super) async fn fill(&mut self, data: Segments) -> (io::Result<()>, Segments) {
        let large = data.len_bytes() >= DIRECT_BYTES;
        let (mut left, mut filled) = (data, Segments::default());
        let mut result = Ok(());
        while let Some(length) = left.iter().next().map(Buf::len) {
            let rest = left.split_off(length);
            let mut buf = left.into_single();
            left = rest;
            if result.is_ok() {
                (result, buf) = self.fill_one(buf).await;
            }
            filled.push(buf);
        }
        self.limit = if large { INPUT_BYTES_BETWEEN_DATA } else { INPUT_BYTES };
        (result, filled)
    }

    async fn fill_one(&mut self, mut buf: Buf) -> (io::Result<()>, Buf) {
        let mut at = 0;
        loop {
            let here = self.bytes().len().min(buf.len() - at);
            buf.as_mut_slice()[at..at + here].copy_from_slice(&self.bytes()[..here]);
            self.consume(here);
            at += here;
            if at == buf.len() {
                return (Ok(()), buf);
            }
            if buf.len() - at >= DIRECT_BYTES {
                return self.stream.recv_exact_at(buf, at).await;
            }
            if let Err(error) = self.more().await {
                return (Err(error), buf);
            }
        }
    }
}
