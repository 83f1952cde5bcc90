//! An encrypted journal of unknown sizes.
//!
//! Both ciphers give away the commit ids without knowing where sections start: the stream's position
//! is the byte's, and a chained block needs only the one before it, which lies in the same sector. With
//! the stream cipher the ids themselves follow from the journal's length: every length is tried.

use super::JournalTrace;
use crate::journal::CommitIds;
use crate::journal_crypt::{CipherError, CipherKind, JournalCipher};
use crate::superblock::AREA_BYTES;
use checksum::Key;
use units::{SECTOR_BYTES, u64_of, usize_of};

/// The longest journal that is tried, in sectors: 512 MiB. Nobody has one by default of more than 64.
const JOURNAL_SECTORS_MAX: u64 = 1 << 20;
/// Journals are a multiple of so many sectors long.
const STEP_SECTORS: u64 = 8;
/// Sectors of the first section that are asked for the ids.
const PROBES: usize = 64;

/// Decrypts the journal in the first bytes of a (metadata) device, in place, and gives its ids. None,
/// with everything as it was, if there is no journal under this cipher and key.
///
/// # Errors
/// [`CipherError::KeyLength`].
pub fn decrypt(
    metadata: &mut [u8],
    kind: CipherKind,
    key: &Key,
) -> Result<Option<CommitIds>, CipherError> {
    // As if it were one section from the start of the journal to the end of what is there.
    let sectors = u64_of(metadata.len() / SECTOR_BYTES).saturating_sub(u64_of(AREA_BYTES) / 512);
    let whole = JournalCipher::sized(kind, key, sectors, sectors)?;
    let mut text = metadata[..metadata.len() / SECTOR_BYTES * SECTOR_BYTES].to_vec();
    if sectors == 0 {
        return Ok(None);
    }
    whole.decrypt(0, &mut text[AREA_BYTES..]);
    let Some((ids, length)) = ids(&whole, &text[AREA_BYTES..]) else { return Ok(None) };
    let Some(trace) = JournalTrace::find(&text, &ids) else { return Ok(None) };
    drop(text);

    // The ids know the length better than sectors that may be damaged.
    let section = trace.section_sectors;
    let found = section * u64::from(trace.sections);
    let journal = length.filter(|length| length.is_multiple_of(section)).unwrap_or(found);
    let cipher = JournalCipher::sized(kind, key, section, journal)?;
    let sections = metadata[AREA_BYTES..].chunks_exact_mut(usize_of(section) * SECTOR_BYTES);
    for (number, section) in (0..).zip(sections.take(usize_of(journal / section))) {
        cipher.decrypt(number, section);
    }
    Ok(Some(ids))
}

/// The ids, and the length of the journal in sectors if they tell it.
fn ids(whole: &JournalCipher, journal: &[u8]) -> Option<(CommitIds, Option<u64>)> {
    if whole.kind() == CipherKind::CbcAes {
        return Some((CommitIds::PLAIN, None));
    }
    let probes: Vec<(u64, u64)> = (0..)
        .zip(journal.chunks_exact(SECTOR_BYTES).take(PROBES))
        .filter_map(|(index, sector)| Some((index, u64::from_le_bytes(*sector.last_chunk()?))))
        .collect();
    let mut lengths = (STEP_SECTORS..=JOURNAL_SECTORS_MAX).step_by(usize_of(STEP_SECTORS));
    lengths.find_map(|length| {
        let ids = whole.commit_ids_of(length);
        let fits = |(index, found): &(u64, u64)| ids.sequence(0, *index, *found).is_some();
        probes.iter().any(fits).then_some((ids, Some(length)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DeviceSectors, FormatOptions, format};
    use crate::{Sequence, Stamp};
    use units::BlockSize;

    #[test]
    fn a_journal_is_decrypted_without_knowing_its_sizes() {
        let key = Key::new([0x31; 32]).unwrap();
        for kind in [CipherKind::CtrAes, CipherKind::CbcAes] {
            for (block, tag, journal_sectors) in
                [(BlockSize::B512, 4, 1000), (BlockSize::B4096, 32, 1), (BlockSize::B512, 20, 400)]
            {
                let options = FormatOptions {
                    journal_sectors: Some(journal_sectors),
                    ..FormatOptions::new(block, tag, [7; 16])
                };
                let device = DeviceSectors::Interleaved(16_384);
                let (_, layout) = format(device, &options).unwrap();
                let journal = &layout.journal;
                let cipher = JournalCipher::new(kind, &key, journal).unwrap();
                let ids = cipher.commit_ids();
                let mut image = vec![0x5a; 2 << 20];
                for number in 0..journal.sections {
                    let start = usize_of(journal.section_start(number).bytes());
                    let section = &mut image[start..start + journal.section_bytes()];
                    journal.initialise(section);
                    let stamp = Stamp { ids, section: number, sequence: Sequence::FIRST };
                    journal.stamp(section, &stamp);
                }
                let plain = image.clone();
                for number in 0..journal.sections {
                    let start = usize_of(journal.section_start(number).bytes());
                    cipher.encrypt(number, &mut image[start..start + journal.section_bytes()]);
                }
                assert!(image != plain);
                assert_eq!(decrypt(&mut image, kind, &key), Ok(Some(ids)), "{kind} {layout:?}");
                assert!(image == plain, "{kind} {layout:?}");
            }
        }
    }

    #[test]
    fn with_another_key_nothing_is_changed() {
        let key = Key::new([0x32; 32]).unwrap();
        let mut image: Vec<u8> = (0..1 << 16).map(|at: u32| at.to_le_bytes()[0] ^ 0x5a).collect();
        let untouched = image.clone();
        for kind in [CipherKind::CtrAes, CipherKind::CbcAes] {
            assert_eq!(decrypt(&mut image, kind, &key), Ok(None));
            assert!(image == untouched);
        }
    }

    #[test]
    fn what_is_too_short_holds_no_journal() {
        let key = Key::new([0x31; 16]).unwrap();
        for length in [0, 100, 4096, 4097, 4608, 5000] {
            let mut bytes = vec![1; length];
            assert_eq!(decrypt(&mut bytes, CipherKind::CtrAes, &key), Ok(None));
            assert_eq!(decrypt(&mut bytes, CipherKind::CbcAes, &key), Ok(None));
            assert!(bytes.iter().all(|byte| *byte == 1));
        }
        let refused = decrypt(&mut [], CipherKind::CtrAes, &Key::new([1; 5]).unwrap());
        assert_eq!(refused, Err(CipherError::KeyLength { found: 5 }));
    }
}
