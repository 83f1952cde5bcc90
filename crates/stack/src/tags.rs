//! Tags on a device that nobody has open as a volume.

use bio::{Buf, Device, IoResult};
use units::{SECTOR, Sector, u64_of, usize_of};

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
