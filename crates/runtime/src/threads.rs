//! The same operations where io_uring is forbidden.
//!
//! Files go to a pool of threads that make blocking calls; it grows when all are busy and shrinks
//! when they idle. Sockets need no threads: the driver's own wait is a `poll` of all of them, and
//! whoever is ready is served without blocking. So a request to a peer can be cancelled by
//! forgetting it, and only files have to be waited for at the end.
#![allow(unsafe_code, reason = "the kernel is given addresses")]

use crate::alarm::Alarm;
use crate::operation::{Call, Id};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// More threads than this do not help any device.
const THREADS_MAX: usize = 64;
/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(5);

/// A call to a file, for a worker.
struct Job {
    id: Id,
    fd: RawFd,
    call: Call,
}

// SAFETY: a job is numbers and addresses. The memory behind them belongs to a slot of the slab,
// which the driver's thread neither touches nor frees before it has collected the job's result.
unsafe impl Send for Job {}

#[derive(Default)]
struct Queues {
    jobs: VecDeque<Job>,
    results: Vec<(Id, i32)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

struct Pool {
    queues: Mutex<Queues>,
    work: Condvar,
    alarm: Arc<Alarm>,
}

impl Pool {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queues = self.queues();
        loop {
            if let Some(job) = queues.jobs.pop_front() {
                drop(queues);
                // SAFETY: the memory is the slot's until the result is collected.
                let result = unsafe { perform(job.fd, job.call) };
                queues = self.queues();
                queues.results.push((job.id, result));
                self.alarm.raise();
                continue;
            }
            if queues.closed {
                break;
            }
            queues.idle += 1;
            let (woken, waited) =
                self.work.wait_timeout(queues, IDLE).unwrap_or_else(PoisonError::into_inner);
            queues = woken;
            queues.idle -= 1;
            if waited.timed_out() && queues.jobs.is_empty() {
                break;
            }
        }
        queues.threads -= 1;
    }
}

/// Threads for files, `poll` for sockets.
pub(crate) struct Threads {
    pool: Arc<Pool>,
    waiting: RefCell<Vec<(Id, RawFd, Call)>>,
    /// Results that the pool owes us.
    owed: Cell<usize>,
}

impl Threads {
    pub(crate) fn new(alarm: Arc<Alarm>) -> Self {
        let pool = Pool { queues: Mutex::default(), work: Condvar::new(), alarm };
        Self { pool: Arc::new(pool), waiting: RefCell::default(), owed: Cell::new(0) }
    }

    /// Starts `call` on `fd`.
    ///
    /// # Safety
    /// The memory that the call names stays valid, and what it fills stays untouched, until its
    /// result has been collected or it has been forgotten; `fd` stays open as long.
    pub(crate) unsafe fn push(&self, id: Id, fd: RawFd, call: Call) {
        if matches!(
            call,
            Call::Receive { .. } | Call::Send { .. } | Call::Accept | Call::Ready { .. }
        ) {
            self.waiting.borrow_mut().push((id, fd, call));
            return;
        }
        self.owed.set(self.owed.get() + 1);
        let mut queues = self.pool.queues();
        queues.jobs.push_back(Job { id, fd, call });
        if queues.jobs.len() > queues.idle && queues.threads < THREADS_MAX {
            let pool = Arc::clone(&self.pool);
            let builder = std::thread::Builder::new().name("steadfast-io".to_owned());
            match builder.spawn(move || pool.work()) {
                Ok(_detached) => queues.threads += 1,
                // The host gives us no thread at all: do it here.
                Err(_) if queues.threads == 0 => {
                    queues.threads += 1;
                    drop(queues);
                    self.pool.queues().closed = true;
                    self.pool.work();
                    self.pool.queues().closed = false;
                    return;
                }
                Err(_) => {}
            }
        }
        drop(queues);
        self.pool.work.notify_one();
    }

    /// Whether `id` waited for a peer and will now never be touched again.
    pub(crate) fn forget(&self, id: Id) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let before = waiting.len();
        waiting.retain(|(waiting, _, _)| *waiting != id);
        waiting.len() < before
    }

    /// Results that are still to come from the pool.
    pub(crate) fn owed(&self) -> usize {
        self.owed.get()
    }

    /// Collects results into `each`. With `wait`, sleeps until there is one or the alarm rings or,
    /// if a time is given, that long. May return early.
    pub(crate) fn turn(&self, wait: Option<Option<Duration>>, mut each: impl FnMut(Id, i32)) {
        let mut ready = self.poll(wait);
        let results = std::mem::take(&mut self.pool.queues().results);
        self.owed.set(self.owed.get() - results.len());
        ready.extend(results);
        for (id, result) in ready {
            each(id, result);
        }
    }

    /// Serves the sockets that are ready.
    fn poll(&self, wait: Option<Option<Duration>>) -> Vec<(Id, i32)> {
        let mut waiting = self.waiting.borrow_mut();
        let alarm = self.pool.alarm.fd().as_raw_fd();
        let mut fds = vec![libc::pollfd { fd: alarm, events: libc::POLLIN, revents: 0 }];
        fds.extend(waiting.iter().map(|&(_, fd, call)| {
            let events = match call {
                Call::Ready { events } => events,
                Call::Send { .. } => libc::POLLOUT,
                _ => libc::POLLIN,
            };
            libc::pollfd { fd, events, revents: 0 }
        }));
        let milliseconds = match wait {
            None => 0,
            Some(None) => -1,
            // Rounded up: waking early would be to spin.
            Some(Some(time)) => i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
        };
        let count = libc::nfds_t::try_from(fds.len()).expect("descriptors are counted in an int");
        // SAFETY: `fds` is an array of so many entries.
        let found = unsafe { libc::poll(fds.as_mut_ptr(), count, milliseconds) };
        if found <= 0 {
            return Vec::new();
        }
        if fds[0].revents != 0 {
            self.pool.alarm.quench();
        }
        let mut served = Vec::new();
        let mut polled = fds[1..].iter();
        waiting.retain(|&(id, fd, call)| {
            let revents = polled.next().expect("one for each who waits").revents;
            if revents == 0 {
                return true;
            }
            let result = match call {
                Call::Ready { .. } => i32::from(revents),
                // SAFETY: the memory is the slot's until the result is collected.
                _ => unsafe { perform(fd, call) },
            };
            let again = result == -libc::EAGAIN;
            if !again {
                served.push((id, result));
            }
            again
        });
        served
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.pool.queues().closed = true;
        self.pool.work.notify_all();
    }
}

/// Makes the call; its result as a completion carries it: negative is an errno. Sockets never
/// block.
///
/// # Safety
/// The memory that the call names is valid, and nobody else touches what it fills.
unsafe fn perform(fd: RawFd, call: Call) -> i32 {
    let offset = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    let signed = |count: u32| i32::try_from(count).expect("at most VECTORS_MAX");
    loop {
        // SAFETY: the caller's promise is the one asked for; all else is plain numbers.
        let result: i64 = unsafe {
            match call {
                Call::Read { vectors, count, offset: at } => {
                    retype(libc::preadv(fd, vectors, signed(count), offset(at)))
                }
                Call::Write { vectors, count, offset: at, flags: 0 } => {
                    retype(libc::pwritev(fd, vectors, signed(count), offset(at)))
                }
                Call::Write { vectors, count, offset: at, flags } => {
                    retype(libc::pwritev2(fd, vectors, signed(count), offset(at), flags))
                }
                Call::SyncData => libc::fdatasync(fd).into(),
                Call::Allocate { mode, offset: at, length } => {
                    libc::fallocate(fd, mode, offset(at), offset(length)).into()
                }
                Call::Receive { start, length, .. } => {
                    let length = usize::try_from(length).expect("32 bits fit");
                    retype(libc::recv(fd, start.cast(), length, libc::MSG_DONTWAIT))
                }
                Call::Send { message } => {
                    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                    retype(libc::sendmsg(fd, message, flags))
                }
                Call::Accept => {
                    // Another process may have taken the connection that `poll` saw.
                    let flags = libc::fcntl(fd, libc::F_GETFL);
                    libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
                    let nobody = std::ptr::null_mut();
                    libc::accept4(fd, nobody, nobody.cast(), libc::SOCK_CLOEXEC).into()
                }
                Call::Ready { .. } => unreachable!("poll itself answers this"),
            }
        };
        if result >= 0 {
            return i32::try_from(result).expect("one call moves less than 2 GiB");
        }
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if errno != libc::EINTR {
            return -errno;
        }
    }
}

fn retype(count: isize) -> i64 {
    i64::try_from(count).expect("isize is 64 bits")
}
