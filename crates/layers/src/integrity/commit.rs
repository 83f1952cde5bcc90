//! Committing: sections go from memory to the journal, and count from then on.
//!
//! Sections are written strictly in order, many in one write where they lie side by side, and the
//! device is flushed behind them. While it is, the next ones are written already: the device may
//! store sections in flight in any order, since replay believes only what has no gap before it,
//! and nothing is written home or promised before all up to it is durable.

use super::log::Section;
use super::{Inner, both};
use bio::{Bio, IoResult, Segments};
use runtime::{join_all, sleep};
use std::rc::Rc;
use std::time::Duration;

/// Commits whenever there is a reason, until the volume is closed or dropped.
pub(super) async fn run(inner: Rc<Inner>) {
    let writer = inner.writer();
    let batch_max = (BATCH_BYTES / inner.layout.journal.section_bytes()).max(1);
    loop {
        let changed = writer.changed.notified();
        let (batch, flush) = {
            let mut log = writer.log.borrow_mut();
            if log.is_stopped() {
                return;
            }
            (log.due_for_commit(batch_max), log.due_for_flush())
        };
        if batch.is_empty() && flush.is_none() {
            changed.await;
            continue;
        }
        let flushing = async { if flush.is_some() { inner.lower.flush().await } else { Ok(()) } };
        let (flushed, written) = both(flushing, write(&inner, &batch)).await;
        if let Err(error) = flushed {
            writer.fail(error.kind);
            return;
        }
        if let Some(serial) = flush {
            writer.log.borrow_mut().flushed(serial);
        }
        match (written, batch.last()) {
            (Ok(()), Some(last)) => writer.log.borrow_mut().written(last.serial),
            (Ok(()), None) => {}
            (Err(error), _) => {
                // Nothing was promised: the same sections are simply written again later.
                writer.commit_failed(error.kind);
                sleep(RETRY).await;
            }
        }
        writer.changed.notify_all();
    }
}

/// Writes `batch` to its place in the journal.
async fn write(inner: &Inner, batch: &[Rc<Section>]) -> IoResult {
    let neighbours = |a: &Rc<Section>, b: &Rc<Section>| a.number + 1 == b.number;
    let writes = batch.chunk_by(neighbours).map(|run| async move {
        let data: Segments = run.iter().map(|section| section.bytes.borrow().clone()).collect();
        let start = inner.layout.journal.section_start(run[0].number);
        inner.lower.submit(&mut Bio::write(start, data)).await
    });
    join_all(writes).await.into_iter().collect()
}

/// Bytes of journal in one batch: enough to pay for the flush behind it.
const BATCH_BYTES: usize = 8 << 20;
/// Until a failed commit is tried again by itself.
const RETRY: Duration = Duration::from_secs(1);
