//! One client, from its greeting to its goodbye.
//!
//! ```text
//!   socket --> input buffer --> requests --+--> polled once, here: most end at once
//!                 |                        +--> else a task each, in any order
//!                 +--> payloads straight into   |
//!                      the buffers to write     v
//!   socket <-- one vectored send <---------- replies
//! ```
//!
//! The reader takes as many requests as a single receive brought. Before it allocates for one, it
//! takes a slot of the connection and the request's bytes from the process's budget; while it
//! waits for either, nothing is read from this socket. Replies are sent by a task of their own,
//! so that waiting here never keeps anything from becoming free.

use super::replies::{Held, Replies};
use super::transmit::Session;
use super::volume::Volume;
use bio::Buf;
use nbd::{Command, Export, Request, ServerHandshake, ServerNegotiated, ServerNext};
use runtime::{Semaphore, Stream, now, spawn};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use units::usize_of;

/// Requests of one connection that are under way at once.
const IN_FLIGHT_MAX: usize = 1024;
/// Bytes received at once: many small requests with their payloads. Each connection holds as much
/// of the budget for its life.
pub(super) const INPUT_BYTES: usize = 128 << 10;
/// Bytes received at once after a large payload: what follows is probably another one, and what
/// is received here of it has to be copied.
const INPUT_BYTES_BETWEEN_PAYLOADS: usize = 4 << 10;
/// Bytes of a payload received in one call: what counts as progress.
const PAYLOAD_STEP: usize = 4 << 20;
/// Bytes of payload from which it counts as large.
const LARGE_PAYLOAD: usize = 64 << 10;

const _: () = assert!(INPUT_BYTES > nbd::OPTION_DATA_MAX as usize + 16);

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) volume: Rc<Volume>,
    pub(super) exports: Rc<[Export]>,
    pub(super) budget: Semaphore,
    /// How many connections wait for the budget.
    pub(super) waiting: Cell<usize>,
    /// Since when somebody has been waiting while nobody got any.
    pub(super) starving: Cell<Option<Duration>>,
    /// No new requests are taken.
    pub(super) stopping: Cell<bool>,
}

/// One client.
pub(super) struct Connection {
    stream: Stream,
    shared: Rc<Shared>,
    replies: Rc<Replies>,
    slots: Semaphore,
    /// When bytes last moved, either way.
    progress: Cell<Duration>,
    /// What the reader waits for, if for anything.
    reading: Cell<Reading>,
    /// Wakes the reader when it is to stop.
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    /// The next message of a handshake.
    Handshake,
    /// The next request: a client may take its time.
    Request,
    /// The rest of a payload, for which buffers are held.
    Payload,
}

/// The client cannot or must not be listened to any longer.
struct Ended;

impl Connection {
    pub(super) fn new(stream: Stream, shared: Rc<Shared>) -> Self {
        Self {
            stream,
            shared,
            replies: Rc::default(),
            slots: Semaphore::new(IN_FLIGHT_MAX),
            progress: Cell::new(now()),
            reading: Cell::new(Reading::Request),
            reader: RefCell::default(),
        }
    }

    /// Serves the client until it leaves, breaks the protocol, or the server stops. Requests
    /// under way run to their end first.
    pub(super) async fn run(self: Rc<Self>) {
        let _input = self.afford(INPUT_BYTES).await;
        let mut input = Input::new();
        self.wait_for(Reading::Handshake);
        let Ok(negotiated) = self.handshake(&mut input).await else {
            self.abort();
            return;
        };
        self.reading.set(Reading::Request);
        let export = &self.shared.exports[negotiated.export];
        let session = Rc::new(Session {
            volume: Rc::clone(&self.shared.volume),
            replies: Rc::clone(&self.replies),
            size: export.size,
            flags: negotiated.flags,
            structured: negotiated.structured,
            contexts: negotiated.contexts,
        });
        let me = Rc::clone(&self);
        let sender = spawn(async move {
            me.replies.run(&me.stream, || me.progress.set(now())).await;
        });
        // It ends in an error in any case; there is nobody to be told.
        let _: Result<(), Ended> = self.receive(&session, &mut input).await;
        self.reading.set(Reading::Request);
        // All slots free: every request has been carried out and its reply was sent.
        drop(self.slots.acquire(IN_FLIGHT_MAX).await);
        self.replies.close();
        sender.await;
        self.abort();
    }

    /// To be called when [`Shared::stopping`] is set: no more requests are taken; those under way
    /// are finished and answered.
    pub(super) fn stop(&self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Cuts the client off. Requests under way run to their end all the same.
    pub(super) fn abort(&self) {
        // It fails where the client was faster, which is what we want anyway.
        let _ = self.stream.shutdown();
    }

    /// For how long the client has kept us waiting in the middle of something.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        let waiting = self.reading.get() == Reading::Payload || self.replies.is_sending();
        waiting.then(|| now().saturating_sub(self.progress.get()))
    }

    /// For how long it has been shaking hands without a byte.
    pub(super) fn handshake_stalled_for(&self) -> Option<Duration> {
        let waiting = self.reading.get() == Reading::Handshake;
        waiting.then(|| now().saturating_sub(self.progress.get()))
    }

    /// The client's time starts now: what was before may have been our own slowness.
    fn wait_for(&self, reading: Reading) {
        self.progress.set(now());
        self.reading.set(reading);
    }

    async fn handshake(&self, input: &mut Input) -> Result<ServerNegotiated, Ended> {
        let mut handshake = ServerHandshake::new(Rc::clone(&self.shared.exports));
        self.send(handshake.greeting()).await?;
        loop {
            let step = handshake.step(input.bytes()).map_err(|_| Ended)?;
            input.consume(step.consumed);
            self.send(step.reply).await?;
            match step.next {
                ServerNext::Continue => {}
                ServerNext::Receive => self.more(input).await?,
                ServerNext::Close => return Err(Ended),
                ServerNext::Transmit(negotiated) => return Ok(negotiated),
            }
        }
    }

    async fn send(&self, bytes: Vec<u8>) -> Result<(), Ended> {
        if bytes.is_empty() {
            return Ok(());
        }
        let sent = self.stream.send_all(Buf::copy_of(&bytes)).await;
        self.progress.set(now());
        sent.map_err(|_| Ended)
    }

    /// Receives what comes next behind what is already there.
    async fn more(&self, input: &mut Input) -> Result<(), Ended> {
        let (start, end) = input.window();
        let mut buf = std::mem::replace(&mut input.buf, Buf::alloc(0));
        let rest = buf.split_off(end);
        let (received, mut buf) = self.unless_stopping(self.stream.recv_at(buf, start)).await?;
        self.progress.set(now());
        match (received, buf.unsplit(rest)) {
            (Ok(received), Ok(())) if received > 0 => input.end += received,
            _ => return Err(Ended),
        }
        input.buf = buf;
        Ok(())
    }

    /// Waits for the client, unless the server stops; what has been received of a message that is
    /// not complete is then lost, which nobody minds.
    async fn unless_stopping<T>(&self, receive: impl Future<Output = T>) -> Result<T, Ended> {
        let mut receive = std::pin::pin!(receive);
        let outcome = std::future::poll_fn(|context| {
            if self.shared.stopping.get() {
                return Poll::Ready(Err(Ended));
            }
            let polled = receive.as_mut().poll(context);
            if polled.is_pending() {
                *self.reader.borrow_mut() = Some(context.waker().clone());
            }
            polled.map(Ok)
        })
        .await;
        self.reader.take();
        outcome
    }

    async fn receive(&self, session: &Rc<Session>, input: &mut Input) -> Result<(), Ended> {
        loop {
            let Some(bytes) = input.bytes().first_chunk::<{ Request::BYTES }>() else {
                self.more(input).await?;
                continue;
            };
            let request = Request::decode(bytes).map_err(|_| Ended)?;
            input.consume(Request::BYTES);
            if request.command == Command::Disconnect {
                return Err(Ended);
            }
            let slot = match self.slots.try_acquire(1) {
                Some(slot) => slot,
                None => self.slots.acquire(1).await,
            };
            let mut held = Held { budget: None, _slot: slot };
            if let Err(error) = session.check(&request) {
                self.skip(input, request.payload()).await?;
                session.refuse(&request, error, held);
                continue;
            }
            held.budget = Some(self.afford(session.cost(&request)).await);
            let payload = match request.payload() {
                0 => None,
                length => {
                    let mut payload = session.volume.payload(request.offset, length.into());
                    self.payload(input, &mut payload.body).await?;
                    Some(payload)
                }
            };
            let session = Rc::clone(session);
            start(async move { session.execute(&request, payload, held).await });
        }
    }

    /// Takes `bytes` of the process's buffers, in line behind everybody who came first.
    async fn afford(&self, bytes: usize) -> runtime::Permit {
        if let Some(permit) = self.shared.budget.try_acquire(bytes) {
            return permit;
        }
        let shared = &self.shared;
        shared.waiting.set(shared.waiting.get() + 1);
        if shared.starving.get().is_none() {
            shared.starving.set(Some(now()));
        }
        let permit = shared.budget.acquire(bytes).await;
        // Whoever waits behind us starts to count anew: something has become free.
        shared.waiting.set(shared.waiting.get() - 1);
        shared.starving.set((shared.waiting.get() > 0).then(now));
        permit
    }

    /// Fills `body` with the payload: what has been received already is copied, the rest goes
    /// straight to its place.
    async fn payload(&self, input: &mut Input, body: &mut Buf) -> Result<(), Ended> {
        let length = body.len();
        let mut filled = input.bytes().len().min(length);
        body.as_mut_slice()[..filled].copy_from_slice(&input.bytes()[..filled]);
        input.consume(filled);
        self.wait_for(Reading::Payload);
        while filled < length {
            let mut part = std::mem::replace(body, Buf::alloc(0));
            let rest = part.split_off(length.min(filled + PAYLOAD_STEP));
            let end = part.len();
            let (received, mut part) =
                self.unless_stopping(self.stream.recv_exact_at(part, filled)).await?;
            self.progress.set(now());
            if received.is_err() || part.unsplit(rest).is_err() {
                return Err(Ended);
            }
            *body = part;
            filled = end;
        }
        self.reading.set(Reading::Request);
        input.expect_payloads(length >= LARGE_PAYLOAD);
        Ok(())
    }

    /// Drops a payload that nobody wants; it may be 4 GiB long, and none of it is kept.
    async fn skip(&self, input: &mut Input, length: u32) -> Result<(), Ended> {
        let mut left = usize_of(length.into());
        loop {
            let here = input.bytes().len().min(left);
            input.consume(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.more(input).await?;
        }
    }
}

/// Received bytes that are not dealt with yet.
struct Input {
    buf: Buf,
    start: usize,
    end: usize,
    limit: usize,
}

impl Input {
    fn new() -> Self {
        Self { buf: Buf::alloc(INPUT_BYTES), start: 0, end: 0, limit: INPUT_BYTES }
    }

    fn bytes(&self) -> &[u8] {
        &self.buf.as_slice()[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "only what was received is dealt with");
    }

    /// Where to receive more: makes room by moving what is left, an incomplete message at most,
    /// to the front.
    fn window(&mut self) -> (usize, usize) {
        let (start, end) = (self.start, self.end);
        self.buf.as_mut_slice().copy_within(start..end, 0);
        (self.start, self.end) = (0, end - start);
        (self.end, self.limit.max(self.end + Request::BYTES))
    }

    fn expect_payloads(&mut self, large: bool) {
        self.limit = if large { INPUT_BYTES_BETWEEN_PAYLOADS } else { INPUT_BYTES };
    }
}

/// Runs `future` at once as far as it goes, and if it has to wait, on as a task.
///
/// The first poll is told to wake nobody: the task polls again before anything can have happened.
fn start(future: impl Future<Output = ()> + 'static) {
    let mut future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
    if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
        drop(spawn(future));
    }
}
