//! Journal sections between memory, where they are plain, and the device, where they may carry a MAC
//! and be encrypted.
//!
//! ```text
//!   memory: entries, data, commit ids  --ready-->  + MAC, encrypted  --> device
//!                                      <--open---  decrypted         <-- device
//! ```

use ::integrity::journal_crypt::CipherError;
use ::integrity::layout::JournalLayout;
use ::integrity::superblock::AREA_BYTES;
use ::integrity::{
    CipherKind, CommitIds, Flags, JournalCipher, MacError, SectionMac, Sequence, Stamp, Superblock,
    mac, superblock_area,
};
use bio::Buf;
use checksum::{Algorithm, Key, KeyError, Mac};

/// What the journal was made with, which the disk does not say.
#[derive(Clone, Debug, Default)]
pub struct JournalKeys {
    /// The algorithm of the MACs and its key, if the journal has MACs.
    pub mac: Option<(Algorithm, Option<Key>)>,
    /// The cipher and its key, if it is encrypted.
    pub cipher: Option<(CipherKind, Key)>,
}

/// Why a journal cannot be used with what was said of it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// The superblock says that there are MACs, and nobody said which, or the other way round.
    #[error("{}", if *.stored {
        "its journal has MACs (have_journal_mac): name their algorithm and key"
    } else {
        "its journal has no MACs, but an algorithm for them was named"
    })]
    Mac {
        /// Whether the flag is stored.
        stored: bool,
    },
    /// The key does not go with the algorithm of the MACs.
    #[error("journal MAC: {0}")]
    Key(#[from] KeyError),
    /// The key does not go with the cipher.
    #[error("journal encryption: {0}")]
    Cipher(#[from] CipherError),
}

/// Makes sections ready for the device, and readable again.
pub struct Codec {
    layout: JournalLayout,
    mac: Option<SectionMac>,
    cipher: Option<JournalCipher>,
}

impl Codec {
    /// For the journal of `superblock`.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn new(
        superblock: &Superblock,
        layout: &JournalLayout,
        keys: &JournalKeys,
    ) -> Result<Self, CodecError> {
        let stored = superblock.flags.has(Flags::JOURNAL_MAC);
        if stored != keys.mac.is_some() {
            return Err(CodecError::Mac { stored });
        }
        let mac = match &keys.mac {
            None => None,
            Some((algorithm, key)) => {
                let mac = Mac::new(*algorithm, key.as_ref())?;
                Some(SectionMac::new(*layout, superblock.hashed_salt(), mac))
            }
        };
        Ok(Self { mac, ..Self::without_mac(layout, keys)? })
    }

    /// The same for reading a journal whose MACs nobody can check: each entry's tag decides.
    ///
    /// # Errors
    /// [`CodecError::Cipher`].
    pub fn without_mac(layout: &JournalLayout, keys: &JournalKeys) -> Result<Self, CodecError> {
        let cipher = match &keys.cipher {
            None => None,
            Some((kind, key)) => Some(JournalCipher::new(*kind, key, layout)?),
        };
        Ok(Self { layout: *layout, mac: None, cipher })
    }

    /// The commit ids of this journal.
    #[must_use]
    pub fn ids(&self) -> CommitIds {
        self.cipher.as_ref().map_or(CommitIds::PLAIN, JournalCipher::commit_ids)
    }

    /// What goes to the device for section `number`: itself where nothing is added to it.
    #[must_use]
    pub fn ready(&self, number: u32, section: &Buf) -> Buf {
        if self.mac.is_none() && self.cipher.is_none() {
            return section.clone();
        }
        let mut ready = Buf::copy_of(section.as_slice());
        self.finish(number, ready.as_mut_slice());
        ready
    }

    /// An initialised section as it lies on the device.
    #[must_use]
    pub fn initialised(&self, number: u32, sequence: Sequence) -> Buf {
        let mut section = Buf::alloc(self.layout.section_bytes());
        let bytes = section.as_mut_slice();
        self.layout.initialise(bytes);
        self.layout.stamp(bytes, &Stamp { ids: self.ids(), section: number, sequence });
        self.finish(number, bytes);
        section
    }

    fn finish(&self, number: u32, section: &mut [u8]) {
        if let Some(mac) = &self.mac {
            mac.seal(section, number);
        }
        if let Some(cipher) = &self.cipher {
            cipher.encrypt(number, section);
        }
    }

    /// Makes sections that were read from the device plain, the first of them number `first`.
    pub fn open(&self, first: u32, sections: &mut Buf) {
        let Some(cipher) = &self.cipher else { return };
        if !sections.make_exclusive() {
            *sections = Buf::copy_of(sections.as_slice());
        }
        let each = sections.as_mut_slice().chunks_exact_mut(self.layout.section_bytes());
        for (number, section) in (first..).zip(each) {
            cipher.decrypt(number, section);
        }
    }

    /// Whether a plain section carries the MAC that it should have.
    ///
    /// # Errors
    /// [`MacError`].
    pub fn verify(&self, number: u32, section: &[u8]) -> Result<(), MacError> {
        self.mac.as_ref().map_or(Ok(()), |mac| mac.verify(section, number))
    }
}

/// The superblock's area as it lies on the device: with its MAC if it has one and its key is known.
///
/// # Errors
/// [`KeyError`] if the key does not go with the algorithm of the MACs.
pub fn sealed_area(
    superblock: &Superblock,
    keys: &JournalKeys,
) -> Result<[u8; AREA_BYTES], KeyError> {
    let mut area = superblock_area(superblock);
    if let Some(mac) = superblock_mac(superblock, keys)? {
        mac::seal_superblock(&mut area, &mac);
    }
    Ok(area)
}

/// The MAC of the superblock's area, which has one exactly if journal sections have them and
/// [`Flags::FIX_HMAC`] is set.
pub(super) fn superblock_mac(
    superblock: &Superblock,
    keys: &JournalKeys,
) -> Result<Option<Mac>, KeyError> {
    match &keys.mac {
        Some((algorithm, key))
            if superblock.flags.has(Flags::JOURNAL_MAC)
                && superblock.flags.has(Flags::FIX_HMAC) =>
        {
            Mac::new(*algorithm, key.as_ref()).map(Some)
        }
        _ => Ok(None),
    }
}

/// Whether the area's MAC, if it should have one, is right.
pub(super) fn verify_area(area: &[u8], mac: Option<&Mac>) -> Result<(), MacError> {
    let Some(mac) = mac else { return Ok(()) };
    let area: &[u8; AREA_BYTES] = area.try_into().expect("the area's size");
    mac::verify_superblock(area, mac)
}
