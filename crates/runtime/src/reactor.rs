//! Where this thread's requests go, and the [`Runtime`] that programs start with.
#![allow(unsafe_code, reason = "vouches for the memory of what it starts")]

use crate::alarm::Alarm;
use crate::operation::{Abandoned, Id, Request, Slab};
use crate::ring::Ring;
use crate::threads::Threads;
use crate::{Driver, Executor, Unpark, Wait};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Completion of the poll that watches the alarm; never an operation's (top bit set).
const ALARM: u64 = u64::MAX - 1;
/// Bytes from which a buffer is large: where page faults cost less than what is done with it.
#[cfg(target_env = "gnu")]
const LARGE_BUFFER: i32 = 256 << 10;
/// At the end, how often those that have not ended are asked again.
const INSIST: Duration = Duration::from_millis(100);

/// How this thread's files and sockets are served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Backend {
    /// By io_uring.
    IoUring,
    /// By threads and `poll`, since there is no io_uring here.
    Threads {
        /// Why not, as a clause without a full stop.
        why: String,
    },
}

enum Engine {
    Ring(Box<Ring>),
    Threads(Threads),
}

/// The production driver: operations in flight, and what makes them.
pub(crate) struct Reactor {
    origin: Instant,
    alarm: Arc<Alarm>,
    engine: Engine,
    slab: RefCell<Slab>,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

impl Reactor {
    fn on(engine: impl FnOnce(&Arc<Alarm>) -> Engine) -> io::Result<Rc<Self>> {
        let alarm = Arc::new(Alarm::new()?);
        let engine = engine(&alarm);
        let reactor = Self { origin: Instant::now(), alarm, engine, slab: RefCell::default() };
        reactor.watch_alarm();
        Ok(Rc::new(reactor))
    }

    fn watch_alarm(&self) {
        if let Engine::Ring(ring) = &self.engine {
            let call = crate::operation::Call::Ready { events: libc::POLLIN };
            // SAFETY: names no memory; the alarm is dropped after the ring has been drained.
            unsafe { ring.push(ALARM, self.alarm.fd().as_raw_fd(), call) };
        }
    }

    /// The one of the [`Runtime`] that is running on this thread.
    fn current() -> Rc<Self> {
        CURRENT.with_borrow(|current| {
            Rc::clone(current.as_ref().expect("called from within Runtime::block_on"))
        })
    }

    fn start(self: Rc<Self>, fd: &Rc<OwnedFd>, request: Request) -> Operation {
        let (id, raw, call) = self.slab.borrow_mut().insert(fd, request);
        // SAFETY: the slot keeps the memory and the descriptor until `complete` is told the
        // result, or until the engine has forgotten the call.
        unsafe {
            match &self.engine {
                Engine::Ring(ring) => ring.push(id.to_bits(), raw, call),
                Engine::Threads(threads) => threads.push(id, raw, call),
            }
        }
        Operation { reactor: self, id, taken: false }
    }

    fn complete(&self, id: Id, result: i32) {
        let waker = self.slab.borrow_mut().complete(id, result);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn abandon(&self, id: Id) {
        if self.slab.borrow_mut().abandon(id) != Abandoned::Cancel {
            return;
        }
        match &self.engine {
            Engine::Ring(ring) => ring.cancel(id.to_bits()),
            Engine::Threads(threads) => {
                if threads.forget(id) {
                    self.complete(id, -libc::ECANCELED);
                }
            }
        }
    }

    fn collect(&self, wait: Option<Option<Duration>>) {
        match &self.engine {
            Engine::Ring(ring) => {
                ring.enter(wait);
                ring.reap(|user_data, result| {
                    if user_data == ALARM {
                        self.alarm.quench();
                        self.watch_alarm();
                    } else {
                        self.complete(Id::from_bits(user_data), result);
                    }
                });
            }
            Engine::Threads(threads) => threads.turn(wait, |id, result| self.complete(id, result)),
        }
    }

    /// Waits until nobody but us knows any address: before memory is freed.
    fn drain(&self) {
        match &self.engine {
            Engine::Ring(ring) => {
                while ring.owed() > 0 {
                    for id in self.slab.borrow().running() {
                        ring.cancel(id.to_bits());
                    }
                    ring.cancel(ALARM);
                    let asked = Instant::now();
                    while ring.owed() > 0 && asked.elapsed() < INSIST {
                        ring.enter(Some(Some(INSIST)));
                        ring.reap(|user_data, result| {
                            if user_data != ALARM {
                                self.complete(Id::from_bits(user_data), result);
                            }
                        });
                    }
                }
            }
            Engine::Threads(threads) => {
                while threads.owed() > 0 {
                    self.collect(Some(Some(INSIST)));
                }
            }
        }
    }
}

impl Driver for Reactor {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn turn(&self, wait: Wait) -> bool {
        self.collect(match wait {
            Wait::No => None,
            Wait::Until(deadline) => {
                Some(deadline.map(|deadline| deadline.saturating_sub(self.now())))
            }
        });
        true
    }

    fn unparker(&self) -> Arc<dyn Unpark> {
        Arc::clone(&self.alarm) as Arc<dyn Unpark>
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.drain();
    }
}

/// A request in flight. Dropped, it leaves its memory to the kernel until it has ended.
pub(crate) struct Operation {
    reactor: Rc<Reactor>,
    id: Id,
    taken: bool,
}

impl Future for Operation {
    /// The result, negative for an errno, and the request with its memory.
    type Output = (i32, Request);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let taken = self.reactor.slab.borrow_mut().poll(self.id, context.waker());
        match taken {
            Some(output) => {
                self.taken = true;
                Poll::Ready(output)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.taken {
            self.reactor.abandon(self.id);
        }
    }
}

/// Starts `request` on `fd` with the runtime of this thread.
pub(crate) fn start(fd: &Rc<OwnedFd>, request: Request) -> Operation {
    Reactor::current().start(fd, request)
}

/// Large buffers get mappings of their own. By default glibc takes them from its heap after the
/// first few, where a small allocation behind them keeps their memory for ever: a server that was
/// busy once would stay as large as it was then.
#[cfg(target_env = "gnu")]
fn give_back_large_buffers() {
    // SAFETY: sets a number of the allocator, under its own lock.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BUFFER) };
}

#[cfg(not(target_env = "gnu"))]
fn give_back_large_buffers() {}

/// The count of a result, or its error.
pub(crate) fn checked(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// An executor with files and sockets: what a program runs on. Stays on its thread.
///
/// When it is dropped, its tasks are, and it waits until the kernel has let go of their memory.
pub struct Runtime {
    executor: Executor,
    reactor: Rc<Reactor>,
    backend: Backend,
}

impl Runtime {
    /// On io_uring where the host offers it, else on threads: see [`Self::backend`]. The
    /// environment variable `STEADFAST_NO_IO_URING=1` asks for threads.
    ///
    /// From now on, writing past the process's file size limit is an error and no signal, and
    /// memory of large buffers goes back to the system when they are freed.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        if std::env::var_os("STEADFAST_NO_IO_URING").is_some_and(|value| value == "1") {
            return Self::with_threads("STEADFAST_NO_IO_URING is set");
        }
        match Ring::new() {
            Ok(ring) => {
                Ok(Self::over(Reactor::on(|_| Engine::Ring(Box::new(ring)))?, Backend::IoUring))
            }
            Err(why) => Self::with_threads(&why),
        }
    }

    /// On threads, because of `why`.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn with_threads(why: &str) -> io::Result<Self> {
        let reactor = Reactor::on(|alarm| Engine::Threads(Threads::new(Arc::clone(alarm))))?;
        Ok(Self::over(reactor, Backend::Threads { why: why.to_owned() }))
    }

    fn over(reactor: Rc<Reactor>, backend: Backend) -> Self {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        give_back_large_buffers();
        let executor = Executor::new(Rc::clone(&reactor) as Rc<dyn Driver>);
        Self { executor, reactor, backend }
    }

    /// How files and sockets are served.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Runs `future` to its end, and with it every task that it spawns; tasks that are left go on
    /// in the next call.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        /// Restores what was current before, also when a task panics.
        struct Entered(Option<Rc<Reactor>>);
        impl Drop for Entered {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _entered = Entered(CURRENT.replace(Some(Rc::clone(&self.reactor))));
        self.executor.run(future).expect("this driver never gives up")
    }
}

#[cfg(test)]
pub(crate) mod tests;
