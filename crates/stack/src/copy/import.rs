//! Copies into a volume.

use super::{CHUNK_BYTES, CopyError, CopyProgress, IN_FLIGHT};
use bio::{Bio, Buf, Device, IoError, IoResult};
use runtime::JoinHandle;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::ControlFlow;
use units::{SECTOR, Sector, u64_of, usize_of};

/// Where to copy to; bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ImportOptions {
    /// The first byte in the volume.
    pub offset: u64,
    /// How many bytes to take from the source; none: up to its end.
    pub length: Option<u64>,
    /// Bytes that the source has, where known: for progress, and to refuse what does not fit
    /// before anything is written.
    pub source_bytes: Option<u64>,
}

/// What was copied in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Imported {
    /// Bytes, from the offset on, that are in the volume and durable.
    pub bytes: u64,
    /// Whether it was stopped before the source's end.
    pub stopped: bool,
}

/// Copies `source` (which may block) to `device`, and flushes. A first or last block that is only
/// partly overwritten is read, verified, and written whole. After each chunk `on_progress` is
/// told, and may stop the copy.
///
/// A copy that fails leaves each block of its range old or new: the volume is as consistent as
/// after any other writes.
///
/// # Errors
/// A source that does not fit or cannot be read; what the volume says.
pub async fn import(
    device: &Device,
    source: &mut dyn Read,
    source_name: &str,
    options: &ImportOptions,
    mut on_progress: impl FnMut(&CopyProgress) -> ControlFlow<()>,
) -> Result<Imported, CopyError> {
    let size = Sector(device.limits().sectors).bytes();
    let offset = options.offset;
    if offset > size {
        return Err(CopyError::Range { offset, end: offset, size });
    }
    let room = size - offset;
    let known = match (options.length, options.source_bytes) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    if let Some(source_bytes) = known.filter(|&bytes| bytes > room) {
        return Err(CopyError::TooLarge { source_bytes, room });
    }
    let length = options.length.unwrap_or(u64::MAX);
    let mut copy =
        Copy { device: device.clone(), writes: VecDeque::new(), read: 0, done: 0, stopped: false };
    loop {
        let position = offset + copy.read;
        let wanted = (CHUNK_BYTES - position % CHUNK_BYTES).min(length - copy.read);
        let other = |error, done| CopyError::Other { what: source_name.to_owned(), error, done };
        let chunk = read_up_to(source, wanted).map_err(|error| other(error, copy.done))?;
        if chunk.is_empty() {
            break;
        }
        let bytes = u64_of(chunk.len());
        if bytes > size - position {
            copy.drain(&mut |_| ControlFlow::Continue(())).await?;
            let source_bytes = copy.read + bytes;
            return Err(CopyError::TooLarge { source_bytes, room });
        }
        copy.start(position, chunk);
        let mut tell = |done| on_progress(&CopyProgress { done, total: known, unreadable: 0 });
        while copy.writes.len() >= IN_FLIGHT {
            copy.finish_one(&mut tell).await?;
        }
        if copy.stopped {
            break;
        }
    }
    copy.drain(&mut |done| on_progress(&CopyProgress { done, total: known, unreadable: 0 }))
        .await?;
    let done = copy.done;
    let failed = |error: IoError| CopyError::Volume { error, byte: offset, done };
    device.flush().await.map_err(failed)?;
    Ok(Imported { bytes: done, stopped: copy.stopped })
}

struct Copy {
    device: Device,
    writes: VecDeque<(u64, JoinHandle<IoResult>)>,
    read: u64,
    done: u64,
    stopped: bool,
}

impl Copy {
    fn start(&mut self, position: u64, chunk: Buf) {
        let bytes = u64_of(chunk.len());
        let device = self.device.clone();
        let task = runtime::spawn(async move { write_chunk(&device, position, chunk).await });
        self.writes.push_back((bytes, task));
        self.read += bytes;
    }

    async fn finish_one(
        &mut self,
        tell: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), CopyError> {
        let Some((bytes, task)) = self.writes.pop_front() else { return Ok(()) };
        if let Err(error) = task.await {
            // Nothing cancels: what else is in flight runs to its end first.
            while let Some((_, task)) = self.writes.pop_front() {
                let _later = task.await;
            }
            let (byte, done) = (error.sector.bytes(), self.done);
            return Err(CopyError::Volume { error, byte, done });
        }
        self.done += bytes;
        self.stopped |= tell(self.done).is_break();
        Ok(())
    }

    async fn drain(
        &mut self,
        tell: &mut impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), CopyError> {
        while !self.writes.is_empty() {
            self.finish_one(tell).await?;
        }
        Ok(())
    }
}

/// Up to `wanted` bytes; fewer only at the source's end.
fn read_up_to(source: &mut dyn Read, wanted: u64) -> io::Result<Buf> {
    let mut buf = Buf::alloc(usize_of(wanted));
    let mut filled = 0;
    while filled < buf.len() {
        match source.read(&mut buf.as_mut_slice()[filled..]) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let _rest = buf.split_off(filled);
    Ok(buf)
}

/// Writes `chunk` at byte `position`, completing partial blocks at both ends from the volume.
async fn write_chunk(device: &Device, position: u64, chunk: Buf) -> IoResult {
    let limits = device.limits();
    let block = limits.logical_block;
    let block_bytes = u64_of(block.bytes());
    let end = position + u64_of(chunk.len());
    let first = position / block_bytes;
    let last = end.div_ceil(block_bytes);
    let sector = Sector(first * block.sectors());
    let aligned = first * block_bytes == position && last * block_bytes == end;
    if aligned {
        if limits.fast_zeroes && chunk.as_slice().iter().all(|&byte| byte == 0) {
            let sectors = u64_of(chunk.len()) / SECTOR;
            return device.submit(&mut Bio::write_zeroes(sector, sectors, true)).await;
        }
        return device.write(sector, chunk).await;
    }
    let mut whole = Buf::zeroed(usize_of((last - first) * block_bytes));
    for edge in [first, last - 1] {
        let start = edge * block_bytes;
        if start >= position && start + block_bytes <= end {
            continue;
        }
        let old = device.read(Sector(edge * block.sectors()), block.sectors()).await?;
        let at = usize_of(start - first * block_bytes);
        whole.as_mut_slice()[at..at + old.len()].copy_from_slice(old.as_slice());
    }
    let at = usize_of(position - first * block_bytes);
    whole.as_mut_slice()[at..at + chunk.len()].copy_from_slice(chunk.as_slice());
    device.write(sector, whole).await
}
