//! Committing: sections go from memory to the journal, strictly in order, many in one write where
//! they lie side by side.
//!
//! The next ones are written while the device is being flushed for those before ([`super::sync`]):
//! the device may store sections in flight in any order, since replay believes only what has no gap
//! before it, and nothing is written home or promised before all up to it is durable.

use super::Inner;
use super::section::Section;
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
        let batch = {
            let mut log = writer.log.borrow_mut();
            if log.is_stopped() {
                return;
            }
            log.due_for_commit(batch_max)
        };
        let Some(newest) = batch.last() else {
            changed.await;
            continue;
        };
        match write(&inner, &batch).await {
            Ok(()) => writer.log.borrow_mut().written(newest.serial),
            Err(error) => {
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
        let data: Segments = run.iter().map(|section| section.for_journal(&inner.codec)).collect();
        let start = inner.layout.journal.section_start(run[0].number);
        inner.metadata().submit(&mut Bio::write(start, data)).await
    });
    join_all(writes).await.into_iter().collect()
}

/// Bytes of journal in one batch, at most.
const BATCH_BYTES: usize = 8 << 20;
/// Until a failed commit is tried again by itself.
const RETRY: Duration = Duration::from_secs(1);
