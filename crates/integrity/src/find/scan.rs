//! Superblocks wherever they may lie.

use crate::journal::CommitIds;
use crate::superblock::{AREA_BYTES, Flags, MAGIC, SUPERBLOCK_BYTES, Superblock, version_for};
use units::{SECTOR_BYTES, u64_of};

/// Something that reads as a superblock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sighting {
    /// Where it starts, in bytes from the start of what was looked at.
    pub offset_bytes: u64,
    /// What it says.
    pub superblock: Superblock,
    /// What speaks for it, a clause each. Empty: the magic and fields within their ranges.
    pub agrees: Vec<&'static str>,
    /// What speaks against it.
    pub doubts: Vec<&'static str>,
}

/// Every superblock at a multiple of 512 bytes in `window`, the most plausible first. (Lower layers
/// may lie at any sector: md at 2048, a partition at 63.)
#[must_use]
pub fn scan(window: &[u8]) -> Vec<Sighting> {
    let starts = (0..window.len()).step_by(SECTOR_BYTES);
    let mut found: Vec<Sighting> = starts
        .filter(|start| window[*start..].starts_with(&MAGIC))
        .filter_map(|start| {
            let superblock = Superblock::decode(&window[start..]).ok()?;
            Some(judge(&window[start..], u64_of(start), superblock))
        })
        .collect();
    found.sort_by_key(|sighting| {
        (sighting.doubts.len(), std::cmp::Reverse(sighting.agrees.len()), sighting.offset_bytes)
    });
    found
}

fn judge(bytes: &[u8], offset_bytes: u64, superblock: Superblock) -> Sighting {
    let (mut agrees, mut doubts) = (Vec::new(), Vec::new());
    let mut say = |holds: bool, agreement, doubt| {
        if holds { agrees.push(agreement) } else { doubts.push(doubt) }
    };
    let flags = superblock.flags;
    let separate = superblock.log2_interleave.is_none();
    say(
        [false, true]
            .map(|bitmap| version_for(flags, separate, bitmap))
            .contains(&superblock.version),
        "its version goes with its flags",
        "its version does not go with its flags",
    );
    say(
        superblock.pad == [0; 2] && superblock.pad2 == [0; 8] && flags.unknown() == 0,
        "what is unused is zero",
        "what should be unused is not zero",
    );
    say(
        (superblock.salt != [0; 16]) == flags.has(Flags::FIX_HMAC),
        "it has a salt exactly if it uses one",
        "it has a salt that it does not use, or lacks one",
    );
    // Only the last of the first sector may be a MAC.
    let mac = flags.has(Flags::JOURNAL_MAC) && flags.has(Flags::FIX_HMAC);
    let zero = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    };
    let behind = if mac { SECTOR_BYTES } else { SUPERBLOCK_BYTES };
    say(
        zero(behind..AREA_BYTES),
        "the rest of its area is zero",
        "the rest of its area is not zero",
    );
    if !flags.has(Flags::INLINE) && !flags.has(Flags::DIRTY_BITMAP) {
        say(
            starts_a_journal(bytes),
            "a journal starts behind it",
            "no journal that can be read starts behind it",
        );
    }
    Sighting { offset_bytes, superblock, agrees, doubts }
}

fn starts_a_journal(bytes: &[u8]) -> bool {
    let end = AREA_BYTES + SECTOR_BYTES;
    let id = bytes.get(end - 8..end).and_then(|id| id.first_chunk());
    id.is_some_and(|id| CommitIds::PLAIN.sequence(0, 0, u64::from_le_bytes(*id)).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DeviceSectors, FormatOptions, format};
    use crate::superblock::superblock_area;
    use crate::{Sequence, Stamp};
    use units::BlockSize;

    /// A volume's first bytes: superblock and first section.
    fn head() -> Vec<u8> {
        let options = FormatOptions::new(BlockSize::B512, 4, [7; 16]);
        let (superblock, layout) = format(DeviceSectors::Interleaved(32_768), &options).unwrap();
        let mut section = vec![0; layout.journal.section_bytes()];
        layout.journal.initialise(&mut section);
        let stamp = Stamp { ids: CommitIds::PLAIN, section: 0, sequence: Sequence::FIRST };
        layout.journal.stamp(&mut section, &stamp);
        [superblock_area(&superblock).to_vec(), section].concat()
    }

    #[test]
    fn a_superblock_is_found_at_any_sector_and_copies_are_told_from_it() {
        let head = head();
        let mut window = vec![0x55; 1 << 20];
        // A copy of the first sector alone, inside a file say, comes earlier on the disk.
        window[3 * 512..4 * 512].copy_from_slice(&head[..512]);
        window[63 * 512..][..head.len()].copy_from_slice(&head);
        // One that is not at a sector is none.
        window[900 * 512 + 8..][..64].copy_from_slice(&head[..64]);
        let found = scan(&window);
        let offsets: Vec<u64> = found.iter().map(|sighting| sighting.offset_bytes).collect();
        assert_eq!(offsets, [63 * 512, 3 * 512]);
        assert_eq!((found[0].doubts.len(), found[0].agrees.len()), (0, 5));
        let doubts =
            ["the rest of its area is not zero", "no journal that can be read starts behind it"];
        assert_eq!(found[1].doubts, doubts);
        assert_eq!(found[0].superblock, found[1].superblock);
    }

    #[test]
    fn a_superblock_at_the_very_end_is_seen_with_doubts() {
        let mut window = vec![0; 1024];
        window[512..576].copy_from_slice(&head()[..64]);
        let found = scan(&window);
        assert_eq!((found.len(), found[0].offset_bytes), (1, 512));
        assert!(!found[0].doubts.is_empty());
        assert!(scan(&window[..570]).is_empty(), "cut short");
    }
}
