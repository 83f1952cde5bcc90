//! Volumes without their superblock.

use crate::input::{Input, flip};
use checksum::{Algorithm, BlockTagger};
use integrity::find::{in_window, salt_of_crc, scan};
use integrity::layout::{DeviceSectors, FormatOptions};
use integrity::{CommitIds, Layout, Sequence, Stamp, format};
use std::sync::OnceLock;
use units::{BlockSize, SECTOR_BYTES, Sector, u64_of, usize_of};

/// A volume without its superblock, or any bytes: whatever is found lies on the device, and with
/// little damage the volume is found.
pub fn find(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (layout, image) = IMAGE.get_or_init(make);
    let device = DeviceSectors::Interleaved(SECTORS);
    let whole = input.byte() & 1 == 0;
    let mut window = image.clone();
    if whole {
        for _ in 0..FLIPS_MAX {
            if !input.is_empty() {
                flip(&mut window, input.number());
            }
        }
    } else {
        let length = input.0.len().min(window.len());
        window[..length].copy_from_slice(&input.0[..length]);
        window.truncate(usize_of(u64::from(input.number())) % window.len());
    }
    let salt_of = salt_of_crc(Algorithm::Crc32c);
    let found = in_window(&window, None, device, &CommitIds::PLAIN, &salt_of);
    for candidate in found.iter().take(50) {
        assert_eq!(Layout::of(&candidate.superblock, device).as_ref(), Ok(&candidate.layout));
        assert!(candidate.evidence.blocks_agree <= candidate.evidence.blocks_asked);
        assert!(!candidate.reasons().is_empty());
    }
    assert!(!whole || found.iter().take(3).any(|found| found.layout == *layout));
}

/// Any bytes: what is taken for a superblock is one, at a sector.
pub fn look(bytes: &[u8]) {
    for sighting in scan(bytes) {
        let at = usize_of(sighting.offset_bytes);
        assert!(at.is_multiple_of(SECTOR_BYTES));
        assert_eq!(sighting.superblock.encode(), bytes[at..at + 64]);
        assert!(sighting.agrees.len() + sighting.doubts.len() >= 4);
    }
}

fn make() -> (Layout, Vec<u8>) {
    let options = FormatOptions {
        interleave_sectors: Some(256),
        ..FormatOptions::new(BlockSize::B512, 4, [0xa5; 16])
    };
    let (superblock, layout) =
        format(DeviceSectors::Interleaved(SECTORS), &options).expect("it fits");
    let mut image = vec![0; usize_of(SECTORS) * SECTOR_BYTES];
    let salt = superblock.hashed_salt();
    let tagger = BlockTagger::new(Algorithm::Crc32c, None, salt, layout.block).expect("no key");
    for run in layout.runs(Sector::ZERO, layout.provided_sectors) {
        let data = vec![0; usize_of(run.sectors) * SECTOR_BYTES];
        let tags = usize_of(run.tag_byte)..usize_of(run.tag_byte + 4 * run.sectors);
        tagger.tags(run.sector.0, &data, &mut image[tags]);
    }
    for number in 0..layout.journal.sections {
        let start = usize_of(layout.journal.section_start(number).bytes());
        let section = &mut image[start..start + layout.journal.section_bytes()];
        layout.journal.initialise(section);
        let stamp = Stamp { ids: CommitIds::PLAIN, section: number, sequence: Sequence::FIRST };
        layout.journal.stamp(section, &stamp);
    }
    assert_eq!(u64_of(image.len()), SECTORS * 512);
    (layout, image)
}

static IMAGE: OnceLock<(Layout, Vec<u8>)> = OnceLock::new();
const SECTORS: u64 = 2048;
const FLIPS_MAX: usize = 5;
