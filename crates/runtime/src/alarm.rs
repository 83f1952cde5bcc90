//! Wakes a thread that sleeps in its driver, from any other: an eventfd that is written at most
//! once between two looks at it.

use crate::Unpark;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

/// The eventfd, and whether it has been written since the driver last looked.
pub(crate) struct Alarm {
    event: OwnedFd,
    raised: AtomicBool,
}

impl Alarm {
    pub(crate) fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event, raised: AtomicBool::new(false) })
    }

    /// What becomes readable.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.event
    }

    /// Makes the driver's current or next wait return.
    ///
    /// Whatever the driver is to find was stored before this call. If the flag was up already,
    /// then the driver has yet to take it down, and looks after that.
    pub(crate) fn raise(&self) {
        if !self.raised.swap(true, Ordering::SeqCst) {
            // It cannot fail: the counter is far from its end, and the descriptor is open.
            let _ = rustix::io::write(&self.event, &1_u64.to_le_bytes());
        }
    }

    /// The driver has woken. It looks for what there is to find after this call.
    pub(crate) fn quench(&self) {
        let mut count = [0; 8];
        // Nothing to read means that nobody has written yet: they will, and wake us once more.
        let _ = rustix::io::read(&self.event, &mut count);
        self.raised.store(false, Ordering::SeqCst);
    }
}

impl Unpark for Alarm {
    fn unpark(&self) {
        self.raise();
    }
}
