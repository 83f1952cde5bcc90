//! Answers to `BLOCK_STATUS`: what is allocated, and what can be read.
//!
//! States are looked up from the requested offset on, in whole blocks; the first and the last
//! extent are cut to the request. An answer may end early, and the client asks on from there.

use super::volume::{Probe, Volume};
use bio::IoResult;
use nbd::reply::{EXTENTS_MAX, Extent};
use nbd::{STATE_HOLE, STATE_UNREADABLE, STATE_ZERO};
use units::Sector;

/// Bytes of metadata and buffers that a request may need.
pub(super) const COST: usize = 4 << 20;

/// `base:allocation` of `length` bytes, at least one, at `offset`.
pub(super) async fn allocation(volume: &Volume, offset: u64, length: u32) -> IoResult<Vec<Extent>> {
    let length = u64::from(length).min(ALLOCATION_BYTES_MAX);
    let span = volume.span(offset, length);
    let mut extents = Extents::new(offset, length);
    let mut at = span.start;
    for run in volume.allocation(&span).await? {
        at += Sector(run.sectors).bytes();
        let state = if run.hole { STATE_HOLE | STATE_ZERO } else { 0 };
        if !extents.extend_to(at, state) {
            break;
        }
    }
    Ok(extents.done())
}

/// `steadfast:integrity` of `length` bytes, at least one, at `offset`: every block is read
/// through the verified path. On a device without tags nothing is known, and nothing is read.
pub(super) async fn integrity(volume: &Volume, offset: u64, length: u32) -> IoResult<Vec<Extent>> {
    let mut extents = Extents::new(offset, length.into());
    if !volume.device().limits().verified {
        extents.extend_to(u64::MAX, 0);
        return Ok(extents.done());
    }
    let length = u64::from(length).min(INTEGRITY_BYTES_MAX);
    let span = volume.span(offset, length);
    let mut probe = Probe::new(volume, span.start..span.end);
    for _ in 0..READS_MAX {
        let Some(piece) = probe.next() else { break };
        let result = volume.check(piece.start, piece.end - piece.start).await;
        probe.saw(&piece, &result);
        let state = match result {
            Ok(()) => 0,
            Err(error) if error.kind.is_damage() => STATE_UNREADABLE,
            Err(error) => return Err(error),
        };
        // A piece of several blocks that failed is asked again, block by block.
        if probe.at() > piece.start && !extents.extend_to(probe.at(), state) {
            break;
        }
    }
    Ok(extents.done())
}

/// Consecutive extents within a request.
struct Extents {
    at: u64,
    end: u64,
    extents: Vec<Extent>,
}

impl Extents {
    fn new(offset: u64, length: u64) -> Self {
        Self { at: offset, end: offset + length, extents: Vec::new() }
    }

    /// From where it stands to `to` it is `state`; whether there is room for more.
    fn extend_to(&mut self, to: u64, state: u32) -> bool {
        let to = to.min(self.end);
        if to > self.at {
            let length = u32::try_from(to - self.at).expect("a request is at most 4 GiB long");
            match self.extents.last_mut() {
                Some(last) if last.state == state => last.length += length,
                _ => self.extents.push(Extent { length, state }),
            }
            self.at = to;
        }
        self.at < self.end && self.extents.len() < EXTENTS_MAX
    }

    fn done(self) -> Vec<Extent> {
        self.extents
    }
}

/// Bytes looked up per request: bounds the list of runs that a device makes, 4 MiB at worst.
const ALLOCATION_BYTES_MAX: u64 = 1 << 30;
/// Bytes read per request, so that each answers in a fraction of a second.
const INTEGRITY_BYTES_MAX: u64 = 64 << 20;
/// Reads per request: bounds the search in a badly damaged range.
const READS_MAX: usize = 4096;
