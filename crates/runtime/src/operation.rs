//! Operations in flight: what was asked, and who owns its memory meanwhile.
//!
//! A [`Request`] owns the buffers that the kernel reads or fills. From the moment it starts until
//! the kernel (or a worker thread) has said that it ended, it lives in a slot of the [`Slab`],
//! together with its file descriptor and the vectors that describe its buffers. Whoever waits for
//! it may be gone by then: the memory stays, the result is dropped, and nobody else ever sees
//! either. That is what makes handing out addresses sound.
//!
//! ```text
//!   start ----> running ----> done ----> taken by the future
//!                  |            |
//!          future dropped   future dropped
//!                  v            v
//!              abandoned ---> free
//! ```
#![allow(unsafe_code, reason = "adopts descriptors that the kernel returned")]

use bio::{Buf, Segments};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Waker;
use units::u64_of;

/// Vectors in one call, the kernel's own limit (`UIO_MAXIOV`). What is more waits for the next
/// call, like the rest of any short transfer.
const VECTORS_MAX: usize = 1024;
/// Bytes in one call, the kernel's own limit (`MAX_RW_COUNT`).
pub(crate) const CALL_BYTES_MAX: usize = 0x7fff_f000;

/// What is asked, with the memory for it. `done` bytes of the data were moved by earlier calls;
/// `offset` is that of the first byte of the data.
pub(crate) enum Request {
    Read {
        data: Segments,
        done: usize,
        offset: u64,
    },
    Write {
        data: Segments,
        done: usize,
        offset: u64,
        durable: bool,
    },
    SyncData,
    Allocate {
        mode: i32,
        offset: u64,
        length: u64,
    },
    /// Fills `data` from `done` on: whole if so told, else with what there is.
    Receive {
        data: Buf,
        done: usize,
        whole: bool,
    },
    Send {
        data: Segments,
        done: usize,
    },
    Accept,
    Ready {
        events: i16,
    },
}

impl Request {
    /// Whether it may last for ever, because it waits for a peer. Such a request is cancelled when
    /// nobody wants it any more; transfers to and from files end by themselves.
    pub(crate) fn waits_for_a_peer(&self) -> bool {
        matches!(self, Self::Receive { .. } | Self::Send { .. } | Self::Accept | Self::Ready { .. })
    }
}

impl Request {
    /// `count` more bytes of the data were moved.
    pub(crate) fn advance(&mut self, count: usize) {
        match self {
            Self::Read { done, .. }
            | Self::Write { done, .. }
            | Self::Receive { done, .. }
            | Self::Send { done, .. } => *done += count,
            Self::SyncData | Self::Allocate { .. } | Self::Accept | Self::Ready { .. } => {}
        }
    }

    /// The data given with a request that has some.
    pub(crate) fn into_data(self) -> Segments {
        match self {
            Self::Read { data, .. } | Self::Write { data, .. } | Self::Send { data, .. } => data,
            Self::Receive { data, .. } => data.into(),
            Self::SyncData | Self::Allocate { .. } | Self::Accept | Self::Ready { .. } => {
                Segments::default()
            }
        }
    }
}

/// The same in numbers and addresses, which stay valid as long as its slot is not freed.
#[derive(Clone, Copy)]
pub(crate) enum Call {
    Read { vectors: *const libc::iovec, count: u32, offset: u64 },
    Write { vectors: *const libc::iovec, count: u32, offset: u64, flags: i32 },
    SyncData,
    Allocate { mode: i32, offset: u64, length: u64 },
    Receive { start: *mut u8, length: u32, whole: bool },
    Send { message: *const libc::msghdr },
    Accept,
    Ready { events: i16 },
}

/// Names one operation, never another one in the same slot. Fits in 63 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Id(u64);

const GENERATIONS: u64 = 1 << 31;
const INDEX_MASK: u64 = 0xffff_ffff;

impl Id {
    fn new(index: usize, generation: u64) -> Self {
        Self(generation << 32 | u64_of(index))
    }
    fn index(self) -> usize {
        units::usize_of(self.0 & INDEX_MASK)
    }
    fn generation(self) -> u64 {
        self.0 >> 32
    }
    /// As a completion carries it; the top bit is clear.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }
    /// The reverse.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

enum State {
    Free,
    Running { request: Request, _fd: Rc<OwnedFd>, waker: Option<Waker>, abandoned: bool },
    Done { request: Request, result: i32 },
}

struct Slot {
    generation: u64,
    state: State,
    /// Kept with the slot, so that a request costs no allocation.
    vectors: Vec<libc::iovec>,
    message: Option<Box<libc::msghdr>>,
}

/// All operations of one reactor.
#[derive(Default)]
pub(crate) struct Slab {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

/// What became of an operation that nobody wants any more.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Abandoned {
    /// It had ended.
    Freed,
    /// It runs on and ends by itself.
    Runs,
    /// It runs and may never end: cancel it.
    Cancel,
}

impl Slab {
    /// Takes the request in; the call is to be made on `fd`.
    pub(crate) fn insert(&mut self, fd: &Rc<OwnedFd>, request: Request) -> (Id, RawFd, Call) {
        let index = self.free.pop().unwrap_or_else(|| {
            let vectors = Vec::with_capacity(1);
            let slot = Slot { generation: 0, state: State::Free, vectors, message: None };
            self.slots.push(slot);
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.state = State::Running { request, _fd: Rc::clone(fd), waker: None, abandoned: false };
        let call = slot.call();
        (Id::new(index, slot.generation), fd.as_raw_fd(), call)
    }

    /// The result and the request, if the operation has ended; else `waker` is woken when it does.
    pub(crate) fn poll(&mut self, id: Id, waker: &Waker) -> Option<(i32, Request)> {
        let slot = self.slot(id);
        if let State::Running { waker: stored, .. } = &mut slot.state {
            match stored {
                Some(stored) => stored.clone_from(waker),
                None => *stored = Some(waker.clone()),
            }
            return None;
        }
        match self.vacate(id) {
            State::Done { request, result } => Some((result, request)),
            State::Free | State::Running { .. } => unreachable!("it runs or it is done"),
        }
    }

    /// The operation has ended. Whom to wake, if anybody waits.
    pub(crate) fn complete(&mut self, id: Id, result: i32) -> Option<Waker> {
        let slot = self.slot(id);
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Running { request, waker, abandoned, .. } => {
                slot.state = State::Done { request, result };
                if abandoned {
                    self.discard(id);
                }
                waker
            }
            State::Free | State::Done { .. } => unreachable!("an operation ends once"),
        }
    }

    /// Nobody waits for the operation any more.
    pub(crate) fn abandon(&mut self, id: Id) -> Abandoned {
        match &mut self.slot(id).state {
            State::Running { request, waker, abandoned, .. } => {
                *waker = None;
                *abandoned = true;
                if request.waits_for_a_peer() { Abandoned::Cancel } else { Abandoned::Runs }
            }
            State::Free | State::Done { .. } => {
                self.discard(id);
                Abandoned::Freed
            }
        }
    }

    /// Those that have not ended.
    pub(crate) fn running(&self) -> Vec<Id> {
        let running = |(index, slot): (usize, &Slot)| {
            matches!(slot.state, State::Running { .. }).then(|| Id::new(index, slot.generation))
        };
        self.slots.iter().enumerate().filter_map(running).collect()
    }

    fn slot(&mut self, id: Id) -> &mut Slot {
        let slot = &mut self.slots[id.index()];
        assert_eq!(slot.generation, id.generation(), "an operation keeps its slot until it ends");
        slot
    }

    fn vacate(&mut self, id: Id) -> State {
        let slot = self.slot(id);
        slot.generation = (slot.generation + 1) % GENERATIONS;
        let state = std::mem::replace(&mut slot.state, State::Free);
        self.free.push(id.index());
        state
    }

    fn discard(&mut self, id: Id) {
        if let State::Done { request: Request::Accept, result } = self.vacate(id)
            && result >= 0
        {
            // SAFETY: the kernel made this descriptor for us, and nobody else has seen its number.
            drop(unsafe { OwnedFd::from_raw_fd(result) });
        }
    }
}

impl Slot {
    /// The running request in numbers and addresses.
    fn call(&mut self) -> Call {
        let State::Running { request, .. } = &mut self.state else {
            unreachable!("only a running request is called");
        };
        match request {
            Request::Read { data, done, offset } => {
                for buf in data.iter_mut() {
                    assert!(buf.make_exclusive(), "only an exclusive buffer can be filled");
                }
                let offset = *offset + u64_of(*done);
                fill(&mut self.vectors, data, *done);
                Call::Read { vectors: self.vectors.as_ptr(), count: count(&self.vectors), offset }
            }
            Request::Write { data, done, offset, durable } => {
                let offset = *offset + u64_of(*done);
                let flags = if *durable { libc::RWF_DSYNC } else { 0 };
                fill(&mut self.vectors, data, *done);
                let (vectors, count) = (self.vectors.as_ptr(), count(&self.vectors));
                Call::Write { vectors, count, offset, flags }
            }
            Request::Send { data, done } => {
                fill(&mut self.vectors, data, *done);
                let message = self.message.get_or_insert_with(empty_message);
                message.msg_iov = self.vectors.as_mut_ptr();
                message.msg_iovlen = self.vectors.len();
                Call::Send { message: &raw const **message }
            }
            Request::Receive { data, done, whole } => {
                assert!(data.make_exclusive(), "only an exclusive buffer can be filled");
                let start = data.as_ptr().cast_mut().wrapping_add(*done);
                let length = (data.len() - *done).min(CALL_BYTES_MAX);
                let length = u32::try_from(length).expect("bounded just now");
                Call::Receive { start, length, whole: *whole }
            }
            Request::SyncData => Call::SyncData,
            Request::Allocate { mode, offset, length } => {
                Call::Allocate { mode: *mode, offset: *offset, length: *length }
            }
            Request::Accept => Call::Accept,
            Request::Ready { events } => Call::Ready { events: *events },
        }
    }
}

fn count(vectors: &[libc::iovec]) -> u32 {
    u32::try_from(vectors.len()).expect("at most VECTORS_MAX")
}

fn empty_message() -> Box<libc::msghdr> {
    Box::new(libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: std::ptr::null_mut(),
        msg_iovlen: 0,
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    })
}

/// Describes the bytes of `data` from `skip` on, as many as one call can take.
fn fill(vectors: &mut Vec<libc::iovec>, data: &Segments, skip: usize) {
    vectors.clear();
    let (mut skip, mut left) = (skip, CALL_BYTES_MAX);
    for buf in data.iter() {
        if skip >= buf.len() {
            skip -= buf.len();
            continue;
        }
        let length = (buf.len() - skip).min(left);
        if length == 0 || vectors.len() == VECTORS_MAX {
            break;
        }
        let start = buf.as_ptr().wrapping_add(skip).cast_mut().cast();
        vectors.push(libc::iovec { iov_base: start, iov_len: length });
        left -= length;
        skip = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_fd() -> Rc<OwnedFd> {
        Rc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()))
    }

    #[test]
    fn a_slot_is_reused_under_another_name() {
        let (mut slab, fd) = (Slab::default(), some_fd());
        let (first, _, _) = slab.insert(&fd, Request::SyncData);
        assert!(slab.complete(first, 0).is_none());
        assert_eq!(slab.abandon(first), Abandoned::Freed);
        let (second, _, _) = slab.insert(&fd, Request::SyncData);
        assert_eq!(first.index(), second.index());
        assert_ne!(first, second);
        assert_eq!(second.to_bits() >> 63, 0);
    }

    #[test]
    fn an_abandoned_request_keeps_its_memory_and_descriptor_until_it_ends() {
        let (mut slab, fd) = (Slab::default(), some_fd());
        let kept = Buf::alloc(4096);
        let data = Segments::from(vec![kept.clone(), Buf::alloc(512)]);
        let request = Request::Write { data, done: 0, offset: 0, durable: false };
        let (id, _, _) = slab.insert(&fd, request);
        assert_eq!(slab.abandon(id), Abandoned::Runs);
        let mut kept = kept;
        assert!(!kept.make_exclusive());
        assert_eq!(Rc::strong_count(&fd), 2);
        assert!(slab.complete(id, 4608).is_none());
        assert!(kept.make_exclusive());
        assert_eq!(Rc::strong_count(&fd), 1);
        assert!(slab.running().is_empty());
    }

    #[test]
    fn vectors_describe_the_bytes_that_are_left() {
        let data = Segments::from(vec![Buf::alloc(10), Buf::alloc(0), Buf::alloc(7)]);
        let mut vectors = Vec::new();
        for skip in 0..=17 {
            fill(&mut vectors, &data, skip);
            let bytes: usize = vectors.iter().map(|vector| vector.iov_len).sum();
            assert_eq!(bytes, 17 - skip);
            assert!(vectors.iter().all(|vector| vector.iov_len > 0));
        }
        let many: Segments = (0..VECTORS_MAX + 5).map(|_| Buf::alloc(1)).collect();
        fill(&mut vectors, &many, 3);
        assert_eq!(vectors.len(), VECTORS_MAX);
    }

    #[test]
    #[should_panic(expected = "only an exclusive buffer")]
    fn a_shared_buffer_is_never_filled() {
        let buf = Buf::alloc(512);
        let data = Segments::from(buf.clone());
        let request = Request::Read { data, done: 0, offset: 0 };
        let _call = Slab::default().insert(&some_fd(), request);
    }
}
