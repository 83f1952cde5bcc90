//! The io_uring of one thread: pushes calls, sleeps, collects completions.
//!
//! Knows nothing of buffers or tasks: whoever pushes a call keeps its memory until the completion.
//! What does not fit into the submission queue waits in a backlog, in order, so that nothing is
//! ever lost, least of all a cancellation.
#![allow(unsafe_code, reason = "the kernel is given addresses")]

use crate::operation::Call;
use io_uring::types::{Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Calls handed to the kernel at once. More wait in the backlog, so this is no limit.
const SUBMISSIONS: u32 = 256;
/// Completions kept before the kernel has to queue them elsewhere (which it does).
const COMPLETIONS: u32 = 4096;
/// The completion of a cancellation itself, which says nothing that we need.
const CANCELLATION: u64 = u64::MAX;
/// Pause before asking again a kernel that is short of memory.
const SHORTAGE: Duration = Duration::from_millis(1);

/// One io_uring instance. Used only by the thread that made it.
pub(crate) struct Ring {
    uring: RefCell<IoUring>,
    backlog: RefCell<VecDeque<squeue::Entry>>,
    /// Completions that the kernel owes us, or will when it has seen the backlog.
    owed: Cell<usize>,
    batch: Cell<Vec<(u64, i32)>>,
}

impl Ring {
    /// A ring, or why the host does not give us one that we can use.
    pub(crate) fn new() -> Result<Self, String> {
        Self::with_capacity(SUBMISSIONS, COMPLETIONS)
    }

    pub(crate) fn with_capacity(submissions: u32, completions: u32) -> Result<Self, String> {
        let uring =
            setup(submissions, completions).map_err(|error| match error.raw_os_error() {
                Some(libc::EPERM) => "this host forbids io_uring".to_owned(),
                Some(libc::ENOSYS) => "this kernel has no io_uring".to_owned(),
                _ => format!("io_uring cannot be set up: {error}"),
            })?;
        let parameters = uring.params();
        if !parameters.is_feature_nodrop() || !parameters.is_feature_ext_arg() {
            return Err("this kernel's io_uring is too old".to_owned());
        }
        let mut probe = Probe::new();
        uring
            .submitter()
            .register_probe(&mut probe)
            .map_err(|error| format!("this host restricts io_uring: {error}"))?;
        if !NEEDED.iter().all(|&code| probe.is_supported(code)) {
            return Err("this kernel's io_uring lacks operations".to_owned());
        }
        Ok(Self {
            uring: RefCell::new(uring),
            backlog: RefCell::default(),
            owed: Cell::new(0),
            batch: Cell::default(),
        })
    }

    /// Queues `call` on `fd`; its completion will carry `user_data`, below [`CANCELLATION`].
    ///
    /// # Safety
    /// The memory that the call names stays valid, and what it fills stays untouched, until that
    /// completion has been collected; `fd` stays open as long.
    pub(crate) unsafe fn push(&self, user_data: u64, fd: RawFd, call: Call) {
        // SAFETY: the caller's promise is the one asked for.
        let entry = unsafe { entry(Fd(fd), call) };
        self.queue(entry.user_data(user_data));
    }

    /// Asks for the call with `user_data` to end soon. It completes in any case, once.
    pub(crate) fn cancel(&self, user_data: u64) {
        self.queue(opcode::AsyncCancel::new(user_data).build().user_data(CANCELLATION));
    }

    /// Completions still to come.
    pub(crate) fn owed(&self) -> usize {
        self.owed.get()
    }

    fn queue(&self, entry: squeue::Entry) {
        self.owed.set(self.owed.get() + 1);
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            let mut uring = self.uring.borrow_mut();
            // SAFETY: what the entry points to is valid, as `push` demands.
            if unsafe { uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full. Should this submission fail, the next `enter` repeats it and acts on the error.
            let _ = uring.submit();
            // SAFETY: as above.
            if unsafe { uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        backlog.push_back(entry);
    }

    /// Moves as much of the backlog as fits; whether none is left.
    fn refill(&self) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            return true;
        }
        let mut uring = self.uring.borrow_mut();
        let mut submission = uring.submission();
        while let Some(entry) = backlog.front() {
            // SAFETY: what the entry points to is valid, as `push` demands.
            if unsafe { submission.push(entry) }.is_err() {
                return false;
            }
            backlog.pop_front();
        }
        true
    }

    /// Submits what is queued. With `wait`, sleeps until there is a completion or, if a time is
    /// given, that long. May return early; whoever calls looks again.
    pub(crate) fn enter(&self, wait: Option<Option<Duration>>) {
        loop {
            let all_queued = self.refill();
            match self.call_kernel(if all_queued { wait } else { None }) {
                Ok(()) if all_queued => return,
                Ok(()) => {
                    if !self.uring.borrow_mut().submission().is_empty() {
                        return;
                    }
                }
                Err(error) => match error.raw_os_error() {
                    // Time is up; a signal; or completions have to be collected first.
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY) => return,
                    Some(libc::EAGAIN | libc::ENOMEM) => {
                        if self.uring.borrow_mut().completion().is_empty() {
                            std::thread::sleep(SHORTAGE);
                        }
                        return;
                    }
                    _ => panic!("io_uring_enter accepts what we give it: {error}"),
                },
            }
        }
    }

    fn call_kernel(&self, wait: Option<Option<Duration>>) -> io::Result<()> {
        let mut uring = self.uring.borrow_mut();
        match wait {
            None => {
                let submission = uring.submission();
                // Deferred work and overflown completions move only when the kernel is entered.
                let quiet =
                    submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
                drop(submission);
                if !quiet {
                    uring.submit_and_wait(0)?;
                }
            }
            Some(None) => drop(uring.submit_and_wait(1)?),
            Some(Some(time)) => {
                let time = Timespec::from(time);
                uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time))?;
            }
        }
        Ok(())
    }

    /// Calls `each` with what every completion that is there carries, and its result.
    pub(crate) fn reap(&self, mut each: impl FnMut(u64, i32)) {
        // Copied out first: `each` may wake somebody who pushes or cancels.
        let mut batch = self.batch.take();
        {
            let mut uring = self.uring.borrow_mut();
            batch.extend(uring.completion().map(|entry| (entry.user_data(), entry.result())));
        }
        self.owed.set(self.owed.get() - batch.len());
        for (user_data, result) in batch.drain(..) {
            if user_data != CANCELLATION {
                each(user_data, result);
            }
        }
        self.batch.set(batch);
    }

    #[cfg(test)]
    pub(crate) fn is_overflown(&self) -> bool {
        self.uring.borrow_mut().submission().cq_overflow()
    }
}

/// With as many of the flags that suit one thread as the kernel offers.
fn setup(submissions: u32, completions: u32) -> io::Result<IoUring> {
    let attempt = |single_issuer: bool, cooperative: bool| {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(completions).dontfork();
        if cooperative {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        }
        if single_issuer {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        builder.build(submissions)
    };
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match attempt(true, true) {
        Err(error) if refused(&error) => match attempt(false, true) {
            Err(error) if refused(&error) => attempt(false, false),
            other => other,
        },
        other => other,
    }
}

const NEEDED: [u8; 11] = [
    opcode::Read::CODE,
    opcode::Readv::CODE,
    opcode::Write::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::Recv::CODE,
    opcode::SendMsg::CODE,
    opcode::Accept::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel::CODE,
];

/// The call as the kernel wants it.
///
/// # Safety
/// The vectors of a read or write are valid.
unsafe fn entry(fd: Fd, call: Call) -> squeue::Entry {
    let length = |bytes: usize| u32::try_from(bytes).expect("one call moves less than 2 GiB");
    match call {
        Call::Read { vectors, count: 1, offset } => {
            // SAFETY: the caller says so.
            let vector = unsafe { vectors.read() };
            opcode::Read::new(fd, vector.iov_base.cast(), length(vector.iov_len))
                .offset(offset)
                .build()
        }
        Call::Read { vectors, count, offset } => {
            opcode::Readv::new(fd, vectors, count).offset(offset).build()
        }
        Call::Write { vectors, count: 1, offset, flags } => {
            // SAFETY: the caller says so.
            let vector = unsafe { vectors.read() };
            opcode::Write::new(fd, vector.iov_base.cast(), length(vector.iov_len))
                .offset(offset)
                .rw_flags(flags)
                .build()
        }
        Call::Write { vectors, count, offset, flags } => {
            opcode::Writev::new(fd, vectors, count).offset(offset).rw_flags(flags).build()
        }
        Call::SyncData => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        Call::Allocate { mode, offset, length } => {
            opcode::Fallocate::new(fd, length).offset(offset).mode(mode).build()
        }
        Call::Receive { start, length, whole } => {
            let flags = if whole { libc::MSG_WAITALL } else { 0 };
            opcode::Recv::new(fd, start, length).flags(flags).build()
        }
        Call::Send { message } => {
            let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
            opcode::SendMsg::new(fd, message).flags(flags).build()
        }
        Call::Accept => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build(),
        Call::Ready { events } => {
            opcode::PollAdd::new(fd, u32::from(events.cast_unsigned())).build()
        }
    }
}
