//! One connection and what is under way on it.

use super::incoming::Incoming;
use super::replies::Covered;
use bio::{Buf, Segments};
use nbd::reply::Extent;
use nbd::{Command, CommandFlags, Errno, Request};
use runtime::{Notify, Permit, Semaphore, Stream, spawn};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Requests under way at once; more wait here.
const IN_FLIGHT_MAX: usize = 1024;

/// Why a request failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The connection is gone, and nobody knows what became of the request.
    Lost,
    /// The server says so, and where, if it does.
    Refused { error: Errno, offset: Option<u64> },
}

/// How a request ended, with the buffers that it was given to fill.
pub(super) struct Answer {
    pub(super) outcome: Result<(), Failure>,
    pub(super) data: Segments,
    pub(super) extents: Vec<Extent>,
}

/// A request that waits for its reply.
pub(super) struct Pending {
    pub(super) request: Request,
    pub(super) progress: RefCell<Progress>,
    _slot: Permit,
}

/// What has come of the reply.
#[derive(Default)]
pub(super) struct Progress {
    /// The buffers to fill, as long as the request is a read.
    pub(super) data: Segments,
    pub(super) covered: Covered,
    pub(super) extents: Vec<Extent>,
    /// The first failure told.
    pub(super) failure: Option<Failure>,
    done: bool,
    waker: Option<Waker>,
}

/// The connection, shared by the device and its two tasks.
pub(super) struct Link {
    stream: Stream,
    pub(super) structured: bool,
    /// The number of `base:allocation`.
    pub(super) allocation: Option<u32>,
    next: Cell<u64>,
    slots: Semaphore,
    pending: RefCell<BTreeMap<u64, Rc<Pending>>>,
    outgoing: RefCell<Segments>,
    changed: Notify,
    closing: Cell<bool>,
    lost: Cell<bool>,
}

impl Link {
    /// Starts the two tasks of a connection whose handshake is done.
    pub(super) fn open(
        stream: Stream,
        incoming: Incoming,
        structured: bool,
        allocation: Option<u32>,
    ) -> Rc<Self> {
        let link = Rc::new(Self {
            stream,
            structured,
            allocation,
            next: Cell::new(1),
            slots: Semaphore::new(IN_FLIGHT_MAX),
            pending: RefCell::default(),
            outgoing: RefCell::default(),
            changed: Notify::default(),
            closing: Cell::new(false),
            lost: Cell::new(false),
        });
        let (receiver, sender) = (Rc::clone(&link), Rc::clone(&link));
        drop(spawn(async move { receiver.receive(incoming).await }));
        drop(spawn(async move { sender.send().await }));
        link
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.get()
    }

    /// A request without data either way.
    pub(super) async fn effect(
        &self,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        length: u64,
    ) -> Answer {
        let nothing = Segments::default;
        self.call(command, flags, offset, length, nothing(), nothing()).await
    }

    /// Sends a request with its payload and waits for its reply, which fills `data`.
    pub(super) async fn call(
        &self,
        command: Command,
        flags: CommandFlags,
        offset: u64,
        length: u64,
        payload: Segments,
        data: Segments,
    ) -> Answer {
        let slot = self.slots.acquire(1).await;
        if self.lost.get() {
            return Answer { outcome: Err(Failure::Lost), data, extents: Vec::new() };
        }
        let cookie = self.next.get();
        self.next.set(cookie.wrapping_add(1));
        let length = u32::try_from(length).expect("requests are cut to what the server takes");
        let request = Request { flags, command, cookie, offset, length };
        let progress = RefCell::new(Progress { data, ..Progress::default() });
        let pending = Rc::new(Pending { request, progress, _slot: slot });
        self.pending.borrow_mut().insert(cookie, Rc::clone(&pending));
        {
            let mut outgoing = self.outgoing.borrow_mut();
            outgoing.push(Buf::copy_of(&request.encode()));
            outgoing.append(payload);
        }
        self.changed.notify_all();
        std::future::poll_fn(|context| {
            let mut progress = pending.progress.borrow_mut();
            if progress.done {
                return Poll::Ready(());
            }
            progress.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        let mut progress = pending.progress.borrow_mut();
        Answer {
            outcome: progress.failure.map_or(Ok(()), Err),
            data: std::mem::take(&mut progress.data),
            extents: std::mem::take(&mut progress.extents),
        }
    }

    /// The request with this cookie.
    pub(super) fn find(&self, cookie: u64) -> Option<Rc<Pending>> {
        self.pending.borrow().get(&cookie).map(Rc::clone)
    }

    /// The reply is complete.
    pub(super) fn finish(&self, pending: &Pending) {
        self.pending.borrow_mut().remove(&pending.request.cookie);
        pending.finish();
    }

    /// Says goodbye when what was asked has been sent; replies are not waited for.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.changed.notify_all();
    }

    async fn send(&self) {
        loop {
            let idle = || self.outgoing.borrow().is_empty();
            self.changed.until(|| !idle() || self.closing.get() || self.lost.get()).await;
            if self.lost.get() {
                return;
            }
            let mut batch = std::mem::take(&mut *self.outgoing.borrow_mut());
            let last = batch.is_empty();
            if last {
                let (command, flags) = (Command::Disconnect, CommandFlags::NONE);
                let goodbye = Request { flags, command, cookie: 0, offset: 0, length: 0 };
                batch.push(Buf::copy_of(&goodbye.encode()));
            }
            if self.stream.send_all(batch).await.is_err() || last {
                return self.lose();
            }
        }
    }

    async fn receive(&self, mut incoming: Incoming) {
        // Whatever the reason, the connection is of no use any more. The one who hangs up does
        // not tell the server why: the protocol has no words for it.
        while self.reply(&mut incoming).await.is_ok() {}
        self.lose();
    }

    /// Ends the connection: whoever waits is told.
    fn lose(&self) {
        self.lost.set(true);
        // It fails where the server was faster.
        let _ = self.stream.shutdown();
        let pending = std::mem::take(&mut *self.pending.borrow_mut());
        for pending in pending.into_values() {
            pending.progress.borrow_mut().failure = Some(Failure::Lost);
            pending.finish();
        }
        self.changed.notify_all();
    }
}

impl Pending {
    fn finish(&self) {
        let waker = {
            let mut progress = self.progress.borrow_mut();
            progress.done = true;
            progress.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
