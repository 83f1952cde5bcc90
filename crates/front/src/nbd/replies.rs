//! What waits to be sent on one connection, and the task that sends it.
//!
//! Headers gather in one buffer, data stays where the device put it; a batch goes out as one
//! vectored send. While one batch is on its way the next gathers, so that a busy connection
//! sends many replies per system call by itself.

use bio::{Buf, Segments};
use nbd::{Errno, reply};
use runtime::{Notify, Permit, Stream};
use std::cell::{Cell, RefCell};

/// What a request holds until its reply is sent.
pub(super) struct Held {
    /// Its share of the process's buffers; gone early where the reply carries no data.
    pub(super) budget: Option<Permit>,
    /// Its place among the connection's requests in flight.
    pub(super) _slot: Permit,
}

/// The replies of one connection, in the order in which they became ready.
#[derive(Default)]
pub(super) struct Replies {
    queue: RefCell<Queue>,
    changed: Notify,
    closed: Cell<bool>,
    dead: Cell<bool>,
    sending: Cell<bool>,
}

#[derive(Default)]
struct Queue {
    heads: Vec<u8>,
    pieces: Vec<Piece>,
    held: Vec<Held>,
}

enum Piece {
    /// So many bytes of the heads.
    Head(usize),
    Data(Buf),
}

impl Queue {
    fn head(&mut self, bytes: &[u8]) {
        self.heads.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Head(length)) => *length += bytes.len(),
            _ => self.pieces.push(Piece::Head(bytes.len())),
        }
    }

    /// The batch as one list of buffers.
    fn buffers(&mut self) -> Segments {
        let heads = Buf::copy_of(&self.heads);
        let mut at = 0;
        self.pieces
            .drain(..)
            .map(|piece| match piece {
                Piece::Head(length) => {
                    at += length;
                    heads.slice(at - length..at)
                }
                Piece::Data(buf) => buf,
            })
            .collect()
    }
}

impl Replies {
    /// A reply without data: success or a bare error.
    pub(super) fn simple(&self, held: Held, cookie: u64, error: Option<Errno>) {
        self.add(held, |queue| queue.head(&reply::simple(cookie, error)));
    }

    /// The simple reply to a READ.
    pub(super) fn simple_data(&self, held: Held, cookie: u64, data: Buf) {
        self.add(held, |queue| {
            queue.head(&reply::simple(cookie, None));
            queue.pieces.push(Piece::Data(data));
        });
    }

    /// Whole chunks, encoded already.
    pub(super) fn chunks(&self, held: Held, encoded: &[u8]) {
        self.add(held, |queue| queue.head(encoded));
    }

    /// The structured reply to a READ: its data, and what follows it in `last` (nothing if the
    /// data is all there is to say).
    pub(super) fn data_chunks(&self, held: Held, cookie: u64, data: Vec<(u64, Buf)>, last: &[u8]) {
        self.add(held, |queue| {
            let count = data.len();
            for (index, (offset, buf)) in data.into_iter().enumerate() {
                let done = last.is_empty() && index + 1 == count;
                let length = u32::try_from(buf.len()).expect("reads end at 32 MiB");
                queue.head(&reply::offset_data(cookie, done, offset, length));
                queue.pieces.push(Piece::Data(buf));
            }
            if !last.is_empty() {
                queue.head(last);
            }
        });
    }

    fn add(&self, held: Held, put: impl FnOnce(&mut Queue)) {
        if self.dead.get() {
            return;
        }
        let mut queue = self.queue.borrow_mut();
        let was_idle = queue.held.is_empty();
        put(&mut queue);
        queue.held.push(held);
        drop(queue);
        if was_idle {
            self.changed.notify_all();
        }
    }

    /// No reply will be added any more.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.changed.notify_all();
    }

    /// Whether bytes are on their way to a client that may not be taking them.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.get()
    }

    /// Sends replies until [`Self::close`]. When the client is gone, drops them instead, so that
    /// what they hold is free again.
    pub(super) async fn run(&self, stream: &Stream, progress: impl Fn()) {
        loop {
            self.changed.until(|| !self.queue.borrow().held.is_empty() || self.closed.get()).await;
            let mut batch = std::mem::take(&mut *self.queue.borrow_mut());
            if batch.held.is_empty() {
                return;
            }
            let mut buffers = batch.buffers();
            while !self.dead.get() && !buffers.is_empty() {
                let later = buffers.split_off(buffers.len_bytes().min(SEND_BYTES_MAX));
                progress();
                self.sending.set(true);
                let sent = stream.send_all(buffers).await;
                self.sending.set(false);
                progress();
                buffers = later;
                if sent.is_err() {
                    self.dead.set(true);
                    // The reader ends too; if the socket is gone already, it has ended.
                    let _ = stream.shutdown();
                }
            }
        }
    }
}

/// Bytes sent in one call: what counts as progress.
const SEND_BYTES_MAX: usize = 4 << 20;
