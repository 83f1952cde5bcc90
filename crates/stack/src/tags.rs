//! Tags on a device that nobody has open as a volume.

use crate::trial::read_bytes;
use bio::{Buf, Device, IoError, IoResult};
use integrity::Layout;
use integrity::layout::Run;
use layers::integrity::{Lower, inline_fits, read_inline};
use units::{SECTOR, Sector, u64_of, usize_of};

/// The tags of `run`, whole blocks, as they are stored; none: damaged there, or nothing on this device
/// can hold them.
///
/// # Errors
/// A device that fails as a whole.
pub(crate) async fn stored(
    lower: &Lower,
    layout: &Layout,
    run: &Run,
) -> Result<Option<Vec<u8>>, IoError> {
    if !layout.inline {
        let blocks = usize_of(run.sectors / layout.block.sectors());
        return read_bytes(&lower.metadata, run.tag_byte, blocks * layout.tag_bytes).await;
    }
    let device = lower.data();
    if inline_fits(device.limits(), layout.block, layout.tag_bytes).is_err() {
        return Ok(None);
    }
    match read_inline(device, layout, run).await {
        Ok((_, tags)) => Ok(Some(tags)),
        Err(error) if error.kind.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Changes the `length` bytes of tags at byte `start` of `metadata`. The blocks of the device around
/// them are read first and written whole, unless nothing changed; whoever calls sees to it that
/// nobody else changes their rest meanwhile. Not durable yet.
///
/// # Errors
/// What the device says.
pub(crate) async fn change(
    metadata: &Device,
    start: u64,
    length: usize,
    change: impl FnOnce(&mut [u8]),
) -> IoResult {
    let block = u64_of(metadata.limits().logical_block.bytes());
    let first = start / block * block;
    let end = (start + u64_of(length)).next_multiple_of(block);
    let found = metadata.read(Sector(first / SECTOR), (end - first) / SECTOR).await?;
    let mut around = Buf::copy_of(found.as_slice());
    let at = usize_of(start - first);
    change(&mut around.as_mut_slice()[at..at + length]);
    if around.as_slice() == found.as_slice() {
        return Ok(());
    }
    metadata.write(Sector(first / SECTOR), around).await
}
