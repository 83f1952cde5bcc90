//! The bad block log: sectors of one member that hold nothing anybody may be given.
//!
//! ```text
//!  63                                  10 9        0
//! +--------------------------------------+----------+
//! | first sector, from the member's start| sectors  |   one entry; all ones: unused
//! +--------------------------------------+----------+
//! ```
//! Entries are dense: readers may stop at the first unused one. A change touches as few of the log's
//! sectors as it can, and an entry that has to move is in its new place before it leaves the old one if
//! the changed bytes are written in ascending order, sector after sector: at every point in between all
//! that is bad is in the log.
//!
//! Source: the md specification, section 12.

use std::ops::Range;
use units::{SECTOR_BYTES, u64_of};

/// Bytes of an entry.
pub const ENTRY_BYTES: usize = 8;
/// The most sectors of one entry.
pub const ENTRY_SECTORS_MAX: u64 = 512;

/// Why a log cannot be read. Then any sector of the member may be bad.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadBlockError {
    /// Not a whole number of sectors, or none.
    #[error("a bad block log of {found} bytes, expected whole sectors")]
    Length {
        /// Bytes given.
        found: usize,
    },
    /// Lengths in another unit than sectors, which nobody is known to write.
    #[error("the bad block log counts in units of 2^{found} sectors, expected sectors")]
    Shift {
        /// The binary logarithm of the unit.
        found: u8,
    },
    /// An entry of no sector, or of too many.
    #[error(
        "entry {index} of the bad block log is {found:#018x}: {sectors} sectors, expected 1 to 512"
    )]
    Entry {
        /// Which one.
        index: usize,
        /// The entry.
        found: u64,
        /// What it says of its length.
        sectors: u64,
    },
}

/// The log of one member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadBlocks {
    /// Member sectors, in the order of their entries.
    entries: Vec<Range<u64>>,
    /// Entries that there is room for.
    room: usize,
}

impl BadBlocks {
    /// The log in `bytes`, whose lengths count 2^`shift` sectors. To be looked at only if the
    /// superblock says that it is in use.
    ///
    /// # Errors
    /// [`BadBlockError`] with what was found.
    pub fn decode(bytes: &[u8], shift: u8) -> Result<Self, BadBlockError> {
        let found = bytes.len();
        if found == 0 || !found.is_multiple_of(SECTOR_BYTES) {
            return Err(BadBlockError::Length { found });
        }
        if shift != 0 {
            return Err(BadBlockError::Shift { found: shift });
        }
        let (raw, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let mut entries = Vec::new();
        for (index, entry) in raw.iter().enumerate() {
            let found = u64::from_le_bytes(*entry);
            // Entries behind an unused one count, whoever left the gap.
            if found == UNUSED {
                continue;
            }
            let (sector, sectors) = (found >> LENGTH_BITS, found & LENGTH_MASK);
            if !(1..=ENTRY_SECTORS_MAX).contains(&sectors) {
                return Err(BadBlockError::Entry { index, found, sectors });
            }
            entries.push(sector..sector + sectors);
        }
        Ok(Self { entries, room: raw.len() })
    }

    /// An empty log of `sectors` sectors.
    #[must_use]
    pub fn empty(sectors: u16) -> Self {
        let room = usize::from(sectors) * SECTOR_BYTES / ENTRY_BYTES;
        Self { entries: Vec::new(), room }
    }

    /// The bytes as they belong on the member.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entry = |range: &Range<u64>| range.start << LENGTH_BITS | (range.end - range.start);
        let used = self.entries.iter().map(entry);
        let all = used.chain(std::iter::repeat(UNUSED)).take(self.room);
        all.flat_map(u64::to_le_bytes).collect()
    }

    /// The bad sectors of the member, in no order; they may overlap.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.entries.iter().cloned()
    }

    /// Whether nothing is bad.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries that are used, and those that there is room for.
    #[must_use]
    pub fn used(&self) -> (usize, usize) {
        (self.entries.len(), self.room)
    }

    /// Adds `sectors`. False, and nothing changes, if there is no room or no such address.
    #[must_use]
    pub fn record(&mut self, sectors: &Range<u64>) -> bool {
        if sectors.end > SECTOR_MAX {
            return false;
        }
        if self.entries.iter().any(|one| one.start <= sectors.start && sectors.end <= one.end) {
            return true;
        }
        let mut from = sectors.start;
        let mut last = self.entries.last().cloned();
        if let Some(last) = &mut last
            && last.end == from
        {
            from = sectors.end.min(last.start + ENTRY_SECTORS_MAX);
            last.end = from;
        }
        let needed = (sectors.end - from).div_ceil(ENTRY_SECTORS_MAX);
        if u64_of(self.entries.len()).saturating_add(needed) > u64_of(self.room) {
            return false;
        }
        if let (Some(entry), Some(last)) = (self.entries.last_mut(), last) {
            *entry = last;
        }
        while from < sectors.end {
            let end = sectors.end.min(from + ENTRY_SECTORS_MAX);
            self.entries.push(from..end);
            from = end;
        }
        true
    }

    /// Takes out what `is_good` says of a whole entry, or of an end of one: it gives the part of a
    /// range that is still bad, or none. A part in the middle stays as bad as its surroundings.
    pub fn forget(&mut self, still_bad: impl Fn(Range<u64>) -> Option<Range<u64>>) {
        let mut index = 0;
        while index < self.entries.len() {
            match still_bad(self.entries[index].clone()) {
                Some(left) => {
                    self.entries[index] = left;
                    index += 1;
                }
                // The last one moves here, and is looked at next.
                None => drop(self.entries.swap_remove(index)),
            }
        }
    }
}

const UNUSED: u64 = u64::MAX;
const LENGTH_BITS: u32 = 10;
const LENGTH_MASK: u64 = (1 << LENGTH_BITS) - 1;
/// Sectors have 54 bits, and the last of them would be taken for an unused entry.
const SECTOR_MAX: u64 = (1 << 54) - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_the_specification_comes_out() {
        let mut log = BadBlocks::empty(8);
        assert_eq!((log.used(), log.encode()), ((0, 512), vec![0xFF; 4096]));
        assert!(log.record(&(1000..1008)));
        let bytes = log.encode();
        assert_eq!(bytes[..10], [0x08, 0xA0, 0x0F, 0, 0, 0, 0, 0, 0xFF, 0xFF]);
        assert_eq!(BadBlocks::decode(&bytes, 0), Ok(log));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let mut bytes = vec![0xFF; 512];
        assert_eq!(BadBlocks::decode(&bytes[1..], 0), Err(BadBlockError::Length { found: 511 }));
        assert_eq!(BadBlocks::decode(&[], 0), Err(BadBlockError::Length { found: 0 }));
        assert_eq!(BadBlocks::decode(&bytes, 3), Err(BadBlockError::Shift { found: 3 }));
        for (entry, sectors) in [(0u64, 0), (5 << 10, 0), (5 << 10 | 513, 513)] {
            bytes[8..16].copy_from_slice(&entry.to_le_bytes());
            let error = BadBlockError::Entry { index: 1, found: entry, sectors };
            assert_eq!(BadBlocks::decode(&bytes, 0), Err(error));
        }
    }

    #[test]
    fn a_full_log_takes_no_more_and_stays_as_it_is() {
        let mut log = BadBlocks::empty(1);
        assert!((0..64).all(|n| log.record(&(n * 16..n * 16 + 8))));
        let before = log.clone();
        assert!(!log.record(&(5000..5001)) && log == before);
        assert!(log.record(&(16..20)), "it is there already");
        assert!(log.record(&(63 * 16 + 8..63 * 16 + 9)), "the last entry has room");
        assert!(!BadBlocks::empty(1).record(&(SECTOR_MAX..SECTOR_MAX + 1)));
        assert!(!BadBlocks::empty(1).record(&(0..65 * 512)));
    }

    proptest! {
        #[test]
        fn what_is_recorded_and_not_forgotten_is_in_the_log_at_every_point_of_writing(
            bad in prop::collection::vec((0u64..4000, 1u64..700), 1..90),
            good in prop::collection::vec(any::<bool>(), 200),
        ) {
            let mut log = BadBlocks::empty(4);
            for (start, length) in &bad {
                let _full = log.record(&(*start..start + length));
            }
            let before = log.encode();
            let is_good = |range: &Range<u64>| good[usize::try_from(range.start % 200).unwrap()];
            log.forget(|range| (!is_good(&range)).then_some(range));
            let after = log.encode();
            prop_assert!(log.ranges().all(|range| !is_good(&range)));
            // The power fails when some of the sectors are written.
            for written in 0..=4 {
                let at = written * SECTOR_BYTES;
                let torn = [&after[..at], &before[at..]].concat();
                let found = BadBlocks::decode(&torn, 0).unwrap();
                let found: Vec<Range<u64>> = found.ranges().collect();
                prop_assert!(log.ranges().all(|range| found.contains(&range)));
            }
        }

        #[test]
        fn any_bytes_are_a_log_or_refused(bytes in prop::collection::vec(any::<u8>(), 512)) {
            if let Ok(log) = BadBlocks::decode(&bytes, 0) {
                let again = BadBlocks::decode(&log.encode(), 0).unwrap();
                prop_assert_eq!(log, again);
            }
        }
    }
}
