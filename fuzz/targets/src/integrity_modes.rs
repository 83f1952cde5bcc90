//! dm-integrity's bytes beside superblock and journal: the dirty bitmap, the sealed journal.

use crate::input::{Input, flip};
use checksum::{Algorithm, Key, Mac};
use integrity::bitmap::UNIT_BYTES;
use integrity::layout::{DeviceSectors, FormatOptions};
use integrity::{
    Bitmap, CipherKind, JournalCipher, Layout, SectionMac, Sequence, Stamp, Superblock, format,
};
use units::{BlockSize, Sector, u64_of, usize_of};

/// Any bytes as a bitmap of any granularity: what is decoded is encoded to the same bits, and a set
/// of regions stays one whatever is marked and cleaned.
pub fn bitmap(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (_, layout) = volume(false);
    let log2_blocks_per_bit = input.byte();
    let changes: Vec<(u32, u32)> =
        (0..input.byte() % 8).map(|_| (input.number(), input.number())).collect();
    let mut area = vec![0xff; AREA_BYTES];
    let length = input.0.len().min(area.len());
    area[..length].copy_from_slice(&input.0[..length]);
    let Ok(mut bitmap) = Bitmap::decode(&layout, log2_blocks_per_bit, &area) else { return };
    let mut again = area.clone();
    encode(&bitmap, &mut again);
    assert_eq!(again, area, "every bit survives, also those that are nobody's");
    for (place, length) in changes {
        let sector = u64::from(place) % layout.provided_sectors;
        let sectors =
            (u64::from(length) % layout.provided_sectors + 1).min(layout.provided_sectors - sector);
        let units = if place & 1 == 0 {
            let units = bitmap.mark(Sector(sector), sectors);
            assert!(bitmap.is_dirty(Sector(sector), sectors));
            units
        } else {
            bitmap.clean(Sector(sector), sectors)
        };
        assert!(units.is_none_or(|units| units.start < units.end && units.end <= bitmap.units()));
    }
    let mut end = 0;
    for (start, sectors) in bitmap.dirty() {
        assert!(start.0 >= end && sectors > 0, "in order, not empty");
        end = start.0 + sectors;
        assert!(end <= layout.provided_sectors);
    }
    encode(&bitmap, &mut area);
    assert_eq!(Bitmap::decode(&layout, log2_blocks_per_bit, &area), Ok(bitmap));
}

fn encode(bitmap: &Bitmap, area: &mut [u8]) {
    for (unit, bytes) in (0..bitmap.units()).zip(area.chunks_exact_mut(UNIT_BYTES)) {
        bitmap.encode_unit(unit, bytes);
    }
}

/// A section with a MAC under a cipher, damaged: it is decrypted without a panic, and no damage to
/// its entries' sectors or its MAC passes.
pub fn sealed(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (superblock, layout) = volume(true);
    let journal = &layout.journal;
    let kind = if input.byte() & 1 == 0 { CipherKind::CtrAes } else { CipherKind::CbcAes };
    let length = [16, 24, 32][usize::from(input.byte() % 3)];
    let key = Key::new(vec![input.byte(); length]).expect("it has a length");
    let cipher = JournalCipher::new(kind, &key, journal).expect("AES has such keys");
    let mac = Mac::new(Algorithm::HmacSha256, Some(&key)).expect("it takes a key");
    let sections = SectionMac::new(*journal, superblock.hashed_salt(), mac);

    let number = u32::from(input.byte()) % journal.sections;
    let ids = cipher.commit_ids();
    let stamp = Stamp { ids, section: number, sequence: Sequence::FIRST };
    let mut section = vec![0; journal.section_bytes()];
    journal.initialise(&mut section);
    journal.write_entry(&mut section, 3, 24, &[input.byte(); 512], &[1, 2, 3, 4], &stamp);
    sections.seal(&mut section, number);
    journal.stamp(&mut section, &stamp);
    let sound = section.clone();
    cipher.encrypt(number, &mut section);
    while !input.is_empty() {
        flip(&mut section, input.number());
    }
    cipher.decrypt(number, &mut section);
    let summary = journal.summarise(&section, number, &ids);
    assert!(summary.bad_sector.is_none_or(|sector| sector < journal.section_sectors));
    let same = (0..8 * 512).all(|at| section[at] == sound[at]);
    let verified = sections.verify(&section, number).is_ok();
    assert!(verified || !same, "what is whole verifies");
    let entry =
        |entry| journal.entry_sector(&section, entry) == journal.entry_sector(&sound, entry);
    assert!(!verified || (0..journal.entries_per_section).all(entry), "no other sectors pass");
}

fn volume(journal_mac: bool) -> (Superblock, Layout) {
    let options = FormatOptions {
        journal_mac,
        journal_sectors: Some(u64_of(AREA_BYTES) / 512),
        ..FormatOptions::new(BlockSize::B512, 4, [7; 16])
    };
    format(DeviceSectors::Interleaved(65_536), &options).expect("32 MiB hold a volume")
}

/// Of the journal: more than two units of bitmap.
const AREA_BYTES: usize = usize_of(528 * 512);
