//! Copies a volume out.

use super::{CHUNK_BYTES, CopyError, CopyProgress, IN_FLIGHT, Sink};
use crate::mapfile::{Map, Status};
use bio::{Buf, Device, IoError, IoErrorKind};
use runtime::JoinHandle;
use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use units::{SECTOR, Sector, u64_of, usize_of};

/// Which part of a volume to copy out; bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExportOptions {
    /// The first byte.
    pub offset: u64,
    /// How many; none: up to the volume's end.
    pub length: Option<u64>,
}

impl ExportOptions {
    /// First byte, and the byte behind the last, in a volume of `size` bytes.
    ///
    /// # Errors
    /// [`CopyError::Range`].
    pub fn range(&self, size: u64) -> Result<Range<u64>, CopyError> {
        let offset = self.offset;
        let length = self.length.unwrap_or_else(|| size.saturating_sub(offset));
        let end = offset.checked_add(length).filter(|&end| end <= size && offset <= size);
        let wrong = CopyError::Range { offset, end: offset.saturating_add(length), size };
        end.map(|end| offset..end).ok_or(wrong)
    }
}

/// What was copied out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exported {
    /// What could be read and what not; positions are the volume's.
    pub map: Map,
    /// Whether it was stopped before its end.
    pub stopped: bool,
}

/// Copies a range of `device` to `sink`. What cannot be read becomes a hole there. After each
/// chunk `on_progress` is told, and may stop the copy.
///
/// # Errors
/// A range outside the volume; a sink that fails; a volume that fails as a whole.
pub async fn export(
    device: &Device,
    sink: &mut dyn Sink,
    options: &ExportOptions,
    mut on_progress: impl FnMut(&CopyProgress) -> ControlFlow<()>,
) -> Result<Exported, CopyError> {
    let size = Sector(device.limits().sectors).bytes();
    let Range { start: offset, end } = options.range(size)?;
    let length = end - offset;
    let mut map = Map::from(offset);
    let mut reads: VecDeque<JoinHandle<Result<Vec<Piece>, IoError>>> = VecDeque::new();
    let (mut upcoming, mut stopped) = (offset, false);
    loop {
        while upcoming < end && reads.len() < IN_FLIGHT && !stopped {
            let next = ((upcoming / CHUNK_BYTES + 1) * CHUNK_BYTES).min(end);
            let (device, range) = (device.clone(), upcoming..next);
            reads.push_back(runtime::spawn(async move { read_chunk(&device, range).await }));
            upcoming = next;
        }
        let Some(read) = reads.pop_front() else { break };
        let done = map.end() - offset;
        let pieces = read.await;
        if stopped {
            continue;
        }
        let pieces = pieces.map_err(|error| CopyError::Volume {
            error,
            byte: error.sector.bytes(),
            done,
        })?;
        for piece in &pieces {
            let taken = match piece {
                Piece::Data(buf) => sink.data(buf.as_slice()),
                Piece::Bad(bytes) => sink.hole(*bytes),
            };
            taken.map_err(|error| CopyError::Other { what: sink.name(), error, done })?;
            map.push(piece.bytes(), piece.status());
        }
        let progress = CopyProgress {
            done: map.end() - offset,
            total: Some(length),
            unreadable: map.bytes(Status::Bad),
        };
        stopped = on_progress(&progress).is_break();
    }
    let done = map.end() - offset;
    sink.finish().map_err(|error| CopyError::Other { what: sink.name(), error, done })?;
    stopped &= done < length;
    map.push(length - done, Status::NonTried);
    Ok(Exported { map, stopped })
}

/// A run of a chunk.
enum Piece {
    Data(Buf),
    Bad(u64),
}

impl Piece {
    fn bytes(&self) -> u64 {
        match self {
            Self::Data(buf) => u64_of(buf.len()),
            Self::Bad(bytes) => *bytes,
        }
    }

    const fn status(&self) -> Status {
        match self {
            Self::Data(_) => Status::Finished,
            Self::Bad(_) => Status::Bad,
        }
    }
}

/// Reads bytes `range`, around every block that cannot be read.
async fn read_chunk(device: &Device, range: Range<u64>) -> Result<Vec<Piece>, IoError> {
    let block = device.limits().logical_block;
    let block_bytes = u64_of(block.bytes());
    let first = range.start / block_bytes * block.sectors();
    let end = range.end.div_ceil(block_bytes) * block.sectors();
    let mut pieces = Vec::new();
    let mut at = first;
    // Where there is a bad block there are more: after one of them blocks are read one by one, and
    // twice as many each time that goes well.
    let mut step = end - first;
    while at < end {
        let limit = (at + step).min(end);
        match device.read(Sector(at), limit - at).await {
            Ok(buf) => {
                pieces.push(Piece::Data(cut(buf, at, &range)));
                at = limit;
                step *= 2;
            }
            Err(error) if error.kind.is_damage() => {
                let failed = error.sector.0.clamp(at, limit - 1) / block.sectors();
                let failed = (failed * block.sectors()).max(at);
                if failed > at {
                    step = failed - at;
                    continue;
                }
                let bad = at * SECTOR..(at + block.sectors()) * SECTOR;
                let bytes = bad.end.min(range.end) - bad.start.max(range.start);
                pieces.push(Piece::Bad(bytes));
                at += block.sectors();
                step = block.sectors();
            }
            Err(error) if error.kind == IoErrorKind::Invalid => {
                unreachable!("the range lies in the volume, in whole blocks: {error}")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(pieces)
}

/// The part of `buf`, read from sector `at`, that lies in the byte range asked for.
fn cut(buf: Buf, at: u64, range: &Range<u64>) -> Buf {
    let start = at * SECTOR;
    let end = start + u64_of(buf.len());
    if start >= range.start && end <= range.end {
        return buf;
    }
    let from = usize_of(range.start.max(start) - start);
    buf.slice(from..usize_of(range.end.min(end) - start))
}
