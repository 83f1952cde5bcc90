//! The encrypted journal: sections on disk are the journal's sections under a cipher.
//!
//! ```text
//!   ctr(aes):  one keystream, IV 0
//!              | section 0 | section 1 | ... | base commit ids, 32 bytes |
//!              the whole journal is XORed with it; the ids are changed too, so that a keystream
//!              that repeats is not given away by known text
//!   cbc(aes):  each section is a message of its own; IV of section i = AES(LE32 i, then zeroes)
//! ```
//!
//! (The keystream's part for the ids starts at a multiple of 4096 bytes. So does every section, of
//! eight sectors and eight times some more.) Everything is covered, commit ids too: without the key no section can be told from noise. MACs are
//! computed on the plain text. The superblock is never encrypted.
//!
//! Neither says that text is authentic, and `ctr` uses the same keystream for each lap: who sees the
//! disk twice sees the XOR of what was written. This is the kernel's format; it is read and written
//! here, not recommended. Keystreams are computed where they are needed and never stored.
//!
//! (Specification, section 6.5.)

use crate::journal::CommitIds;
use crate::layout::JournalLayout;
use aes::cipher::array::Array;
use aes::cipher::array::typenum::U16;
use aes::cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser,
    InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper,
};
use aes::{Aes128, Aes192, Aes256};
use checksum::Key;
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use std::fmt;
use std::str::FromStr;
use units::{SECTOR, u64_of};

/// Bytes that AES takes at once.
const BLOCK_BYTES: usize = 16;

/// How a journal is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CipherKind {
    /// A stream cipher: AES in counter mode.
    CtrAes,
    /// A block cipher: AES with cipher block chaining.
    CbcAes,
}

impl FromStr for CipherKind {
    type Err = CipherError;

    /// The kernel's name (`ctr(aes)`) or that of its tools (`ctr-aes`).
    fn from_str(name: &str) -> Result<Self, CipherError> {
        match name {
            "ctr(aes)" | "ctr-aes" => Ok(Self::CtrAes),
            "cbc(aes)" | "cbc-aes" => Ok(Self::CbcAes),
            _ => Err(CipherError::Unknown { found: name.to_owned() }),
        }
    }
}

impl fmt::Display for CipherKind {
    /// As device-mapper tables have it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CtrAes => "ctr(aes)",
            Self::CbcAes => "cbc(aes)",
        })
    }
}

/// Why a journal cannot be decrypted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CipherError {
    /// Not a cipher that is implemented.
    #[error("journal cipher is \"{found}\", expected \"ctr(aes)\" or \"cbc(aes)\"")]
    Unknown {
        /// The name given.
        found: String,
    },
    /// A length that AES does not have.
    #[error("the key of the journal's cipher has {found} bytes, expected 16, 24 or 32")]
    KeyLength {
        /// Bytes given.
        found: usize,
    },
}

/// A cipher with its key, for one journal.
pub struct JournalCipher {
    kind: CipherKind,
    aes: Box<dyn Modes>,
    section_bytes: u64,
    commit_ids: CommitIds,
}

impl JournalCipher {
    /// The cipher `kind` with `key` for a journal of these sizes.
    ///
    /// # Errors
    /// [`CipherError::KeyLength`]. A wrong key is no error here: it shows in the commit ids, of
    /// which none is then valid.
    pub fn new(kind: CipherKind, key: &Key, journal: &JournalLayout) -> Result<Self, CipherError> {
        Self::sized(kind, key, journal.section_sectors, journal.sectors())
    }

    /// The same from the only sizes that matter, both in sectors.
    pub(crate) fn sized(
        kind: CipherKind,
        key: &Key,
        section: u64,
        journal: u64,
    ) -> Result<Self, CipherError> {
        let aes = modes(key.as_bytes())?;
        let section_bytes = section * SECTOR;
        let commit_ids = CommitIds::PLAIN;
        let unknown_length = Self { kind, aes, section_bytes, commit_ids };
        Ok(Self { commit_ids: unknown_length.commit_ids_of(journal), ..unknown_length })
    }

    /// The ids that a journal of so many sectors carries.
    pub(crate) fn commit_ids_of(&self, journal: u64) -> CommitIds {
        match self.kind {
            CipherKind::CbcAes => CommitIds::PLAIN,
            CipherKind::CtrAes => {
                let end = position(journal * SECTOR);
                CommitIds::PLAIN.changed(|ids| self.aes.xor(end, ids))
            }
        }
    }

    /// Which cipher it is.
    #[must_use]
    pub const fn kind(&self) -> CipherKind {
        self.kind
    }

    /// The ids that this journal's sectors carry.
    #[must_use]
    pub const fn commit_ids(&self) -> CommitIds {
        self.commit_ids
    }

    /// Encrypts section `number`, complete with MAC and commit ids.
    ///
    /// # Panics
    /// If `section` is not one section long.
    pub fn encrypt(&self, number: u32, section: &mut [u8]) {
        assert_eq!(u64_of(section.len()), self.section_bytes, "one section");
        match self.kind {
            CipherKind::CtrAes => self.aes.xor(self.counter(number), section),
            CipherKind::CbcAes => self.aes.chain(self.section_iv(number), section),
        }
    }

    /// Decrypts section `number` as it lies on disk.
    ///
    /// # Panics
    /// If `section` is not one section long.
    pub fn decrypt(&self, number: u32, section: &mut [u8]) {
        assert_eq!(u64_of(section.len()), self.section_bytes, "one section");
        match self.kind {
            CipherKind::CtrAes => self.aes.xor(self.counter(number), section),
            CipherKind::CbcAes => self.aes.unchain(self.section_iv(number), section),
        }
    }

    /// The counter at the start of a section.
    fn counter(&self, number: u32) -> Block {
        position(self.section_bytes * u64::from(number))
    }

    fn section_iv(&self, number: u32) -> Block {
        let mut block = Block::default();
        block[..4].copy_from_slice(&number.to_le_bytes());
        // CBC of one block with IV 0 is the block cipher.
        self.aes.chain(Block::default(), &mut block);
        block
    }
}

impl fmt::Debug for JournalCipher {
    /// Without the key, and without the commit ids that it makes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalCipher").field("kind", &self.kind).finish_non_exhaustive()
    }
}

type Block = [u8; BLOCK_BYTES];

/// The counter at byte `offset` of the keystream, which is one of its blocks' first.
fn position(offset: u64) -> Block {
    assert!(offset.is_multiple_of(u64_of(BLOCK_BYTES)), "sectors are whole blocks of the cipher");
    u128::from(offset / u64_of(BLOCK_BYTES)).to_be_bytes()
}

/// A block cipher with its key, in the modes that are needed.
trait Modes {
    /// Counter mode, from `counter` on.
    fn xor(&self, counter: Block, bytes: &mut [u8]);
    /// Cipher block chaining, encryption. `bytes` is whole blocks.
    fn chain(&self, iv: Block, bytes: &mut [u8]);
    /// Cipher block chaining, decryption. `bytes` is whole blocks.
    fn unchain(&self, iv: Block, bytes: &mut [u8]);
}

impl<C> Modes for C
where
    C: BlockCipherEncrypt + BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Clone,
{
    fn xor(&self, counter: Block, bytes: &mut [u8]) {
        let core = CtrCore::<C, Ctr128BE>::inner_iv_init(self.clone(), &counter.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(bytes);
    }

    fn chain(&self, iv: Block, bytes: &mut [u8]) {
        let mut mode = cbc::Encryptor::inner_iv_init(self.clone(), &iv.into());
        mode.encrypt_blocks(whole_blocks(bytes));
    }

    fn unchain(&self, iv: Block, bytes: &mut [u8]) {
        let mut mode = cbc::Decryptor::inner_iv_init(self.clone(), &iv.into());
        mode.decrypt_blocks(whole_blocks(bytes));
    }
}

fn whole_blocks(bytes: &mut [u8]) -> &mut [Array<u8, U16>] {
    let (blocks, rest) = Array::slice_as_chunks_mut(bytes);
    assert!(rest.is_empty(), "sectors are whole blocks of the cipher");
    blocks
}

fn modes(key: &[u8]) -> Result<Box<dyn Modes>, CipherError> {
    let wrong = |_| CipherError::KeyLength { found: key.len() };
    Ok(match key.len() {
        16 => Box::new(Aes128::new_from_slice(key).map_err(wrong)?),
        24 => Box::new(Aes192::new_from_slice(key).map_err(wrong)?),
        _ => Box::new(Aes256::new_from_slice(key).map_err(wrong)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DeviceSectors, FormatOptions, format};
    use proptest::prelude::*;
    use units::BlockSize;

    fn journal(journal_sectors: Option<u64>) -> JournalLayout {
        let options =
            FormatOptions { journal_sectors, ..FormatOptions::new(BlockSize::B512, 4, [0; 16]) };
        format(DeviceSectors::Interleaved(131_072), &options).unwrap().1.journal
    }

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let pair = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
        digits.chunks(2).map(|digits| pair(digits).unwrap()).collect()
    }

    /// The text of NIST SP 800-38A, appendix F.
    const TEXT: &str = "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
                        30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710";

    #[test]
    fn the_modes_are_those_of_the_standard() {
        let keys = [
            "2b7e151628aed2a6abf7158809cf4f3c",
            "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
            "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
        ];
        // F.5.1, F.5.3, F.5.5 and F.2.1, F.2.3, F.2.5: the first block of each.
        let counter = [
            "874d6191b620e3261bef6864990db6ce",
            "1abc932417521ca24f2b0459fe7e6e0b",
            "601ec313775789a5b7a7f504bbf3d228",
        ];
        let chained = [
            "7649abac8119b246cee98e9b12e9197d",
            "4f021db243bc633d7178183a9fa071e8",
            "f58c4c04d6e5f1ba779eabfb5f7bfbd6",
        ];
        for ((key, counter), chained) in keys.into_iter().zip(counter).zip(chained) {
            let aes = modes(&bytes_of(key)).unwrap();
            let mut text = bytes_of(TEXT);
            let start: Block = bytes_of("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").try_into().unwrap();
            aes.xor(start, &mut text);
            assert_eq!(text[..16], bytes_of(counter));
            let mut text = bytes_of(TEXT);
            let iv: Block = bytes_of("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
            aes.chain(iv, &mut text);
            assert_eq!(text[..16], bytes_of(chained));
            aes.unchain(iv, &mut text);
            assert_eq!(text, bytes_of(TEXT));
        }
    }

    #[test]
    fn only_keys_of_aes_are_taken() {
        let journal = journal(None);
        for length in 1..70 {
            let key = Key::new(vec![1; length]).unwrap();
            let made = JournalCipher::new(CipherKind::CtrAes, &key, &journal);
            match length {
                16 | 24 | 32 => assert!(made.is_ok()),
                _ => assert_eq!(made.err(), Some(CipherError::KeyLength { found: length })),
            }
        }
    }

    #[test]
    fn names_are_the_kernels_and_its_tools() {
        assert_eq!("ctr(aes)".parse(), Ok(CipherKind::CtrAes));
        assert_eq!("cbc-aes".parse(), Ok(CipherKind::CbcAes));
        assert_eq!(CipherKind::CbcAes.to_string().parse(), Ok(CipherKind::CbcAes));
        let found = "xts(aes)".to_owned();
        assert_eq!("xts(aes)".parse::<CipherKind>(), Err(CipherError::Unknown { found }));
    }

    #[test]
    fn the_ids_follow_the_keystream_of_the_journal() {
        let options = FormatOptions {
            journal_sectors: Some(400),
            ..FormatOptions::new(BlockSize::B512, 60, [0; 16])
        };
        let (_, layout) = format(DeviceSectors::Interleaved(131_072), &options).unwrap();
        let journal = layout.journal;
        let bytes = journal.sectors() * 512;
        assert_eq!((journal.sections, bytes % 4096), (7, 0));
        let key = Key::new([3; 32]).unwrap();
        let cipher = JournalCipher::new(CipherKind::CtrAes, &key, &journal).unwrap();
        // The whole keystream in one piece.
        let mut keystream = vec![0; units::usize_of(bytes) + 32];
        modes(&[3; 32]).unwrap().xor(Block::default(), &mut keystream);
        let ids = CommitIds::PLAIN.changed(|ids| {
            ids.iter_mut().zip(&keystream[units::usize_of(bytes)..]).for_each(|(a, b)| *a ^= b);
        });
        assert_eq!(cipher.commit_ids(), ids);
        let mut section = vec![0; journal.section_bytes()];
        cipher.encrypt(2, &mut section);
        assert_eq!(section, keystream[2 * section.len()..][..section.len()]);
        let cbc = JournalCipher::new(CipherKind::CbcAes, &key, &journal).unwrap();
        assert_eq!(cbc.commit_ids(), CommitIds::PLAIN);
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = Key::new([0x77; 16]).unwrap();
        let cipher = JournalCipher::new(CipherKind::CtrAes, &key, &journal(None)).unwrap();
        assert_eq!(format!("{cipher:?}"), "JournalCipher { kind: CtrAes, .. }");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_was_encrypted_is_decrypted_at_its_place_only(
            chained in any::<bool>(),
            length in 2usize..=4,
            seed in any::<u8>(),
            number in 0u32..5,
        ) {
            let kind = if chained { CipherKind::CbcAes } else { CipherKind::CtrAes };
            let journal = journal(None);
            let key = Key::new(vec![seed; 8 * length]).unwrap();
            let cipher = JournalCipher::new(kind, &key, &journal).unwrap();
            let section = vec![seed ^ 0x5a; journal.section_bytes()];
            let mut text = section.clone();
            cipher.encrypt(number, &mut text);
            prop_assert!(text != section);
            let mut elsewhere = text.clone();
            cipher.decrypt(number, &mut text);
            prop_assert!(text == section);
            cipher.decrypt((number + 1) % 5, &mut elsewhere);
            prop_assert!(elsewhere != section);
        }
    }
}
