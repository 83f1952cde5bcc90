//! Closing: everything goes home, and the journal is left as the kernel leaves it.

use super::ordering::CLOSED;
use super::recover::write_initialised;
use super::{Inner, Journal};
use bio::IoResult;

/// Closes a writable volume; once is enough. See the module's head for the order.
pub(super) async fn close(inner: &Inner) -> IoResult {
    let writer = match &inner.journal {
        Journal::Writing(writer) => writer,
        Journal::Direct(direct) => return inner.close_direct(direct).await,
        Journal::Inline(inline) => return inner.close_inline(inline).await,
        Journal::Reading(_) => return Ok(()),
    };
    if writer.log.borrow().is_stopped() {
        return Ok(());
    }
    let drained = writer.drain().await;
    writer.stop();
    drained?;
    inner.flush_punched().await?;
    let (next, used) = {
        let log = writer.log.borrow();
        (log.next(), log.was_used())
    };
    if !used {
        return Ok(());
    }
    let (section, sequence) = next;
    let journal = &inner.layout.journal;
    let (before, behind): (Vec<u32>, Vec<u32>) =
        (0..journal.sections).partition(|&number| number < section);
    let (metadata, codec) = (inner.metadata(), &inner.codec);
    write_initialised(metadata, codec, journal, &behind, sequence).await?;
    write_initialised(metadata, codec, journal, &before, sequence.plus(1)).await?;
    metadata.flush_for(CLOSED).await
}
