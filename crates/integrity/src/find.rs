//! A volume's numbers without its superblock: salvage.
//!
//! The superblock is 64 bytes without a copy. What it says can be found again from what it describes:
//!
//! 1. Every sector of the journal ends with an id that names its section and its place in it. From
//!    these, [`JournalTrace`] has the sectors of a section, the sections, and where the tags start.
//! 2. Few block and tag sizes make sections of that length ([`forms`]); what lies in the entries
//!    leaves fewer.
//! 3. With each interleave ([`candidates`]), data and tags lie elsewhere. A tag, its sector number and
//!    its data lead back to a salt that makes this tag; one that many blocks lead to proves all
//!    numbers at once ([`Candidate::judge`]).
//!
//! [`in_window`] does all of it; before, [`decrypt()`] makes an encrypted journal readable. [`scan()`]
//! looks for superblocks at unusual places: behind a partition table that is gone, in the middle of
//! an image.
//!
//! Inline volumes have neither a journal nor tags that can be read; nothing can be found of them.
//! Nothing here writes, or says that a candidate is right: it says what speaks for it.

mod candidate;
mod decrypt;
mod entries;
mod scan;
mod trace;

pub use candidate::{Block, Candidate, Evidence, Form, Place, candidates, forms};
pub use decrypt::decrypt;
pub use scan::{Sighting, scan};
pub use trace::JournalTrace;

use crate::journal::CommitIds;
use crate::layout::DeviceSectors;
use checksum::{Algorithm, SaltRegister};
use units::{SECTOR, Sector, usize_of};

/// From sector, data and tag of a block, the salt behind which the tag fits: the same for every sound
/// block of a volume. None where the tag does not fit, or nothing leads back. Who knows the salt (or
/// that there is none: any constant) gives it for every block that verifies.
pub type SaltOf<'a> = &'a dyn Fn(Sector, &[u8], &[u8]) -> Option<[u8; 16]>;

/// The salt of CRCs, which can be run backwards. Not always the one that was stored, but one that
/// tags every block the same; if nothing was hashed before blocks, one that changes nothing.
pub fn salt_of_crc(
    algorithm: Algorithm,
) -> impl Fn(Sector, &[u8], &[u8]) -> Option<[u8; 16]> + use<> {
    move |sector, data, tag| {
        let (tag, rest) = tag.split_first_chunk()?;
        // A longer tag ends with zeroes.
        let whole = rest.iter().all(|byte| *byte == 0);
        let register = SaltRegister::behind(algorithm, sector.0, data, *tag).filter(|_| whole)?;
        Some(register.salt())
    }
}

/// What a volume of which `metadata` holds the first bytes may have been, best first. `data` are the
/// first bytes of the data device, if that is another; `device` is the size of both. `ids` are
/// [`CommitIds::PLAIN`], or what [`decrypt()`] gave. Blocks of which data or tag lie behind what
/// is given are not asked.
#[must_use]
pub fn in_window(
    metadata: &[u8],
    data: Option<&[u8]>,
    device: DeviceSectors,
    ids: &CommitIds,
    salt_of: SaltOf,
) -> Vec<Candidate> {
    let Some(trace) = JournalTrace::find(metadata, ids) else { return Vec::new() };
    let mut found = candidates(&trace, metadata, device, salt_of);
    for candidate in &mut found {
        let data = if candidate.layout.is_separate() { data } else { Some(metadata) };
        let (block_bytes, tag_bytes) = (candidate.layout.block.bytes(), candidate.layout.tag_bytes);
        let places = candidate.places();
        let read = |place: &Place| {
            let start = place.data.0.checked_mul(SECTOR)?;
            let data = piece(data?, start, block_bytes)?;
            let tag = piece(metadata, place.tag_byte, tag_bytes)?;
            Some(Block { sector: place.sector, data, tag })
        };
        let blocks: Vec<Block> = places.iter().filter_map(read).collect();
        candidate.judge(&blocks, salt_of);
    }
    rank(&mut found);
    found
}

fn piece(bytes: &[u8], start: u64, length: usize) -> Option<&[u8]> {
    let start = usize_of(start);
    bytes.get(start..start.checked_add(length)?)
}

/// Sorts candidates, best first.
pub fn rank(found: &mut [Candidate]) {
    found.sort_by(|a, b| b.evidence.compare(&a.evidence));
}

#[cfg(test)]
mod tests;
