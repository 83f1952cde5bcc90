//! Flushing the device: what was written to the journal counts from then on, and what was written
//! home need not be in the journal any more.
//!
//! One flush does for both. It concerns only what had been written before it began; what is being
//! written meanwhile waits for the next.

use super::Inner;
use std::rc::Rc;

/// Flushes whenever there is a reason, until the volume is closed or dropped.
pub(super) async fn run(inner: Rc<Inner>) {
    let writer = inner.writer();
    loop {
        let changed = writer.changed.notified();
        let flush = {
            let log = writer.log.borrow();
            if log.is_stopped() {
                return;
            }
            log.due_for_flush()
        };
        let Some(flush) = flush else {
            changed.await;
            continue;
        };
        if let Err(error) = inner.lower.flush_for(flush.reason()).await {
            writer.fail(error.kind);
            return;
        }
        writer.log.borrow_mut().flushed(flush);
        writer.changed.notify_all();
    }
}
