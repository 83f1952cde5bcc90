//! Authentication with the journal's key: of the superblock, and of each journal section.
//!
//! ```text
//!   superblock, first sector:   | fields | zero ...              | MAC |      (with fix_hmac only)
//!                                                         512 - MAC bytes
//!   journal section:            8 bytes of the MAC at 496 of each of the 8 metadata sectors
//! ```
//!
//! A section's MAC covers the *sector numbers* of its entries and nothing else: it says that these
//! blocks were written, not what to. Their data is vouched for by the tags, which are keyed too
//! where somebody cares. With `fix_hmac` the salt and the section's number are covered, so that a
//! section cannot be moved.
//!
//! (Specification, sections 2.3 and 6.3.)

use crate::layout::JournalLayout;
use crate::superblock::{AREA_BYTES, SUPERBLOCK_BYTES};
use checksum::{Digest, Mac};
use std::fmt;
use units::SECTOR_BYTES;

/// Where each metadata sector keeps its slice of the section's MAC.
const SLICE_START: usize = 496;
const SLICE_BYTES: usize = 8;

/// Bytes of a section's MAC: the digest, then zeroes.
const SECTION_MAC_BYTES: usize = 8 * SLICE_BYTES;

const _: () = assert!(Digest::BYTES_MAX == SECTION_MAC_BYTES, "no digest is cut");
const _: () = assert!(
    SUPERBLOCK_BYTES + Digest::BYTES_MAX <= SECTOR_BYTES,
    "every digest fits beside the superblock's fields",
);

/// Something is not authentic: damaged, forged, or made with another key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MacError {
    /// The superblock's MAC is another.
    #[error("the superblock does not carry the MAC of this key")]
    Superblock,
    /// A journal section's MAC is another.
    #[error("journal section {section} does not carry the MAC of this key")]
    Section {
        /// The section.
        section: u32,
    },
}

/// Puts the superblock's MAC at the end of its first sector. To be done at every write of a
/// superblock with [`crate::Flags::FIX_HMAC`] whose journal has a MAC, and at no other.
pub fn seal_superblock(area: &mut [u8; AREA_BYTES], mac: &Mac) {
    let start = SECTOR_BYTES - mac.digest_len();
    let digest = mac.digest(&[&area[..start]]);
    area[start..SECTOR_BYTES].copy_from_slice(digest.as_bytes());
}

/// Whether the superblock's MAC is the one that its first sector should have.
///
/// # Errors
/// [`MacError::Superblock`].
pub fn verify_superblock(area: &[u8; AREA_BYTES], mac: &Mac) -> Result<(), MacError> {
    let start = SECTOR_BYTES - mac.digest_len();
    let digest = mac.digest(&[&area[..start]]);
    let same = equal(&area[start..SECTOR_BYTES], digest.as_bytes());
    if same { Ok(()) } else { Err(MacError::Superblock) }
}

/// The MACs of one journal's sections.
#[derive(Clone)]
pub struct SectionMac {
    journal: JournalLayout,
    salt: Option<[u8; 16]>,
    mac: Mac,
}

impl SectionMac {
    /// Those of a journal of these sizes (made with [`crate::Flags::JOURNAL_MAC`], so that entries
    /// leave the room), with the superblock's salt if it has [`crate::Flags::FIX_HMAC`].
    #[must_use]
    pub const fn new(journal: JournalLayout, salt: Option<[u8; 16]>, mac: Mac) -> Self {
        Self { journal, salt, mac }
    }

    /// Puts the MAC into the metadata sectors of section `number`: after the entries were filled,
    /// before the section is encrypted.
    ///
    /// # Panics
    /// If `section` is not one section long, as in all functions here.
    pub fn seal(&self, section: &mut [u8], number: u32) {
        let mac = self.compute(section, number);
        for (sector, slice) in section.chunks_exact_mut(SECTOR_BYTES).zip(mac.as_chunks::<8>().0) {
            sector[SLICE_START..SLICE_START + SLICE_BYTES].copy_from_slice(slice);
        }
    }

    /// Whether the section carries the MAC of its entries.
    ///
    /// # Errors
    /// [`MacError::Section`]. Such a section must not be replayed, and nothing behind it.
    pub fn verify(&self, section: &[u8], number: u32) -> Result<(), MacError> {
        let expected = self.compute(section, number);
        let mut found = [0; SECTION_MAC_BYTES];
        let sectors = section.chunks_exact(SECTOR_BYTES);
        for (slice, sector) in found.as_chunks_mut::<8>().0.iter_mut().zip(sectors) {
            slice.copy_from_slice(&sector[SLICE_START..SLICE_START + SLICE_BYTES]);
        }
        if equal(&found, &expected) { Ok(()) } else { Err(MacError::Section { section: number }) }
    }

    /// The MAC of section `number`, as its entries are now.
    fn compute(&self, section: &[u8], number: u32) -> [u8; SECTION_MAC_BYTES] {
        let number = u64::from(number).to_le_bytes();
        let place = self.salt.iter().flat_map(|salt| [salt.as_slice(), &number]);
        let entries = 0..self.journal.entries_per_section;
        let sectors = entries.map(|entry| self.journal.entry_sector_bytes(section, entry));
        let pieces: Vec<&[u8]> = place.chain(sectors).collect();
        self.mac.digest(&pieces).padded()
    }
}

impl fmt::Debug for SectionMac {
    /// Nothing of key and salt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SectionMac({:?})", self.mac)
    }
}

/// Compares without telling by its duration how much agreed.
fn equal(found: &[u8], expected: &[u8]) -> bool {
    let difference = found.iter().zip(expected).fold(0, |sum, (a, b)| sum | (a ^ b));
    found.len() == expected.len() && std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DeviceSectors, FormatOptions, format};
    use crate::superblock::superblock_area;
    use crate::{CommitIds, Flags, Sequence, Stamp};
    use checksum::{Algorithm, Key};
    use hmac::{Hmac, KeyInit, Mac as _};
    use units::BlockSize;

    /// The bytes of /k.jmac, as the images' manifest gives them.
    fn key() -> Vec<u8> {
        (0x20..0x40).collect()
    }

    fn mac(algorithm: Algorithm, key: &[u8]) -> Mac {
        Mac::new(algorithm, Some(&Key::new(key).unwrap())).unwrap()
    }

    /// Somebody else's.
    fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        mac.finalize().into_bytes().to_vec()
    }

    fn options(block: BlockSize) -> FormatOptions {
        FormatOptions { journal_mac: true, ..FormatOptions::new(block, 4, [7; 16]) }
    }

    #[test]
    fn a_superblocks_mac_covers_its_first_sector_up_to_itself() {
        let device = DeviceSectors::Interleaved(131_072);
        let (superblock, _) = format(device, &options(BlockSize::B512)).unwrap();
        let mac = |key: &[u8]| mac(Algorithm::HmacSha256, key);
        let (mac, other) = (mac(&key()), mac(b"another key"));
        let mut area = superblock_area(&superblock);
        assert_eq!(verify_superblock(&area, &mac), Err(MacError::Superblock));
        seal_superblock(&mut area, &mac);
        assert_eq!(area[480..512], hmac_sha256(&key(), &area[..480]));
        assert_eq!(area[..480], superblock_area(&superblock)[..480]);
        assert_eq!(verify_superblock(&area, &mac), Ok(()));
        for place in [8, 63, 100, 479, 480, 511] {
            let mut damaged = area;
            damaged[place] ^= 0x10;
            assert_eq!(verify_superblock(&damaged, &mac), Err(MacError::Superblock), "{place}");
        }
        area[512] = 1;
        assert_eq!(verify_superblock(&area, &mac), Ok(()), "only the first sector is covered");
        assert_eq!(verify_superblock(&area, &other), Err(MacError::Superblock));
    }

    #[test]
    fn a_sections_mac_is_of_its_place_and_its_sector_numbers_only() {
        let device = DeviceSectors::Interleaved(131_072);
        let (superblock, layout) = format(device, &options(BlockSize::B512)).unwrap();
        assert!(superblock.flags.has(Flags::JOURNAL_MAC));
        let journal = &layout.journal;
        let mut section = vec![0; journal.section_bytes()];
        journal.initialise(&mut section);
        let stamp = Stamp { ids: CommitIds::PLAIN, section: 2, sequence: Sequence::FIRST };
        journal.write_entry(&mut section, 1, 0x1234, &[9; 512], &[1, 2, 3, 4], &stamp);
        let mac = mac(Algorithm::HmacSha256, &key());
        let sections = SectionMac::new(*journal, superblock.hashed_salt(), mac);
        sections.seal(&mut section, 2);
        journal.stamp(&mut section, &stamp);
        assert_eq!(sections.verify(&section, 2), Ok(()));
        assert_eq!(sections.verify(&section, 3), Err(MacError::Section { section: 3 }), "moved");

        // The message, put together by hand: 20 entries a sector, entry 1 alone is used.
        let mut message = [[7; 16].as_slice(), &2_u64.to_le_bytes()].concat();
        for entry in 0..160 {
            let sector = if entry == 1 { 0x1234 } else { 0xffff_ffff_0000_0000_u64 };
            message.extend_from_slice(&sector.to_le_bytes());
        }
        let expected = hmac_sha256(&key(), &message);
        for (index, slice) in expected.chunks(8).enumerate() {
            assert_eq!(section[index * 512 + 496..][..8], *slice);
        }
        assert_eq!(section[7 * 512 + 496..][..8], [0; 8], "32 bytes fill four sectors");

        let mut data = section.clone();
        data[9 * 512] ^= 1;
        assert_eq!(sections.verify(&data, 2), Ok(()), "data is the tags' business");
        for place in [512, 512 + 7, 496, 7 * 512 + 503] {
            let mut damaged = section.clone();
            damaged[place] ^= 1;
            assert_eq!(sections.verify(&damaged, 2), Err(MacError::Section { section: 2 }));
        }
    }

    #[test]
    fn without_fix_hmac_neither_salt_nor_place_is_covered() {
        let device = DeviceSectors::Interleaved(131_072);
        let options = FormatOptions { fix_hmac: false, ..options(BlockSize::B4096) };
        let (superblock, layout) = format(device, &options).unwrap();
        let mut section = vec![0; layout.journal.section_bytes()];
        layout.journal.initialise(&mut section);
        let mac = mac(Algorithm::HmacSha512, &key());
        let sections = SectionMac::new(layout.journal, superblock.hashed_salt(), mac.clone());
        sections.seal(&mut section, 0);
        assert_eq!(sections.verify(&section, 5), Ok(()));
        let entries = usize::try_from(layout.journal.entries_per_section).unwrap();
        let message = 0xffff_ffff_0000_0000_u64.to_le_bytes().repeat(entries);
        let expected = mac.digest(&[&message]);
        assert_eq!(section[7 * 512 + 496..][..8], expected.as_bytes()[56..], "64 bytes fill all");
    }
}
