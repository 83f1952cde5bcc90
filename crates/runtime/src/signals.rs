//! Being asked to stop: SIGINT and SIGTERM as something to wait for.
//!
//! The handler writes the signal's number into a pipe that lives as long as the process; so it
//! works whichever thread the signal hits, and children inherit nothing.
#![allow(unsafe_code, reason = "installs a signal handler")]

use crate::operation::Request;
use crate::reactor::{checked, start};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
/// The writing end, where a handler can read it.
static WRITER: AtomicI32 = AtomicI32::new(-1);
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A request to stop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What `kill` and service managers send.
    Terminate,
}

/// Catches SIGINT and SIGTERM as long as it lives; afterwards they act as before.
pub struct Signals {
    reader: Rc<OwnedFd>,
    before: [(i32, libc::sigaction); 2],
}

extern "C" fn handle(signal: i32) {
    // SAFETY: only calls that are allowed in a signal handler; the descriptor is never closed. A
    // full pipe means that many requests to stop are waiting already.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let byte = u8::try_from(signal).unwrap_or_default();
        libc::write(WRITER.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *errno = saved;
    }
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// `AlreadyExists` if somebody in this process does; else what the operating system says.
    pub fn new() -> io::Result<Self> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let caught = Self::install();
        if caught.is_err() {
            TAKEN.store(false, Ordering::SeqCst);
        }
        caught
    }

    fn install() -> io::Result<Self> {
        if PIPE.get().is_none() {
            let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let (_, writer) = PIPE.get_or_init(|| pipe);
            WRITER.store(writer.as_raw_fd(), Ordering::SeqCst);
        }
        let (reader, _) = PIPE.get().expect("made just now");
        let reader = Rc::new(reader.try_clone()?);
        let before = [libc::SIGINT, libc::SIGTERM].map(|signal| {
            // SAFETY: zeroes are a valid structure; the handler has the type that it asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let mut before = std::mem::zeroed();
                let handler: extern "C" fn(i32) = handle;
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, &raw mut before);
                (signal, before)
            }
        });
        Ok(Self { reader, before })
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            let mut byte = [0];
            match rustix::io::read(&self.reader, &mut byte) {
                Ok(_) if i32::from(byte[0]) == libc::SIGINT => return Ok(Signal::Interrupt),
                Ok(_) => return Ok(Signal::Terminate),
                Err(Errno::AGAIN) => {
                    let request = Request::Ready { events: libc::POLLIN };
                    let (result, _) = start(&self.reader, request).await;
                    checked(result)?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: what the system gave us is given back.
            unsafe { libc::sigaction(*signal, before, std::ptr::null_mut()) };
        }
        TAKEN.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::tests::on_both;
    use crate::{spawn, yield_now};

    #[test]
    fn a_signal_wakes_who_waits_and_one_sent_before_is_kept() {
        on_both(|| async {
            let signals = Signals::new().unwrap();
            assert_eq!(Signals::new().err().unwrap().kind(), io::ErrorKind::AlreadyExists);
            let waiting = spawn(async move {
                let first = signals.next().await.unwrap();
                (first, signals.next().await.unwrap())
            });
            yield_now().await;
            // SAFETY: both are caught.
            unsafe {
                libc::raise(libc::SIGTERM);
                libc::raise(libc::SIGINT);
            }
            assert_eq!(waiting.await, (Signal::Terminate, Signal::Interrupt));
        });
    }
}
