//! Committing: sections go from memory to the journal, and count from then on.
//!
//! Sections are committed strictly in order, many in one write where they lie side by side. Within
//! a batch the device may store them in any order: replay believes only what has no gap before it,
//! and nothing of the batch is written home or promised before all of it is durable.

use super::Inner;
use super::log::Section;
use bio::{Bio, IoErrorKind, Segments};
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
        let Some(last) = batch.last() else {
            changed.await;
            continue;
        };
        match commit(&inner, &batch).await {
            Ok(()) => {
                writer.log.borrow_mut().committed(last.serial);
                writer.changed.notify_all();
            }
            Err(CommitError::Write(kind)) => {
                // Nothing was promised: the same sections are simply written again later.
                writer.commit_failed(kind);
                sleep(RETRY).await;
            }
            Err(CommitError::Flush(kind)) => {
                writer.fail(kind);
                return;
            }
        }
    }
}

enum CommitError {
    Write(IoErrorKind),
    Flush(IoErrorKind),
}

async fn commit(inner: &Inner, batch: &[Rc<Section>]) -> Result<(), CommitError> {
    let writer = inner.writer();
    let journal = &inner.layout.journal;
    for section in batch {
        let mut bytes = section.bytes.borrow_mut();
        let bytes = bytes.as_mut_slice();
        journal.stamp(bytes, section.number, &writer.ids, section.sequence);
    }
    let neighbours = |a: &Rc<Section>, b: &Rc<Section>| a.number + 1 == b.number;
    let writes = batch.chunk_by(neighbours).map(|run| async move {
        let data: Segments = run.iter().map(|section| section.bytes.borrow().clone()).collect();
        let start = journal.section_start(run[0].number);
        inner.lower.submit(&mut Bio::write(start, data)).await
    });
    for result in join_all(writes).await {
        result.map_err(|error| CommitError::Write(error.kind))?;
    }
    inner.lower.flush().await.map_err(|error| CommitError::Flush(error.kind))
}

/// Bytes of journal in one batch: enough to pay for the flush behind it.
const BATCH_BYTES: usize = 4 << 20;
/// Until a failed commit is tried again by itself.
const RETRY: Duration = Duration::from_secs(1);
