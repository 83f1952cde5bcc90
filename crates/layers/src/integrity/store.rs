//! A volume's superblock changed while nobody has the volume open.

use super::codec::{JournalKeys, superblock_mac, verify_area};
use super::ordering::SUPERBLOCK;
use ::integrity::mac::seal_superblock;
use ::integrity::superblock::{AREA_BYTES, AREA_SECTORS};
use ::integrity::{MacError, Superblock};
use bio::{Bio, Buf, Device, IoError};
use checksum::KeyError;
use units::Sector;

/// Why a superblock was not stored.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// The MAC's algorithm and the key do not go together.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What would be replaced is not authentic.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// The device failed.
    #[error("{0} of the device below")]
    Io(#[from] IoError),
}

/// Replaces the superblock on `metadata`, which must not be open as a volume, and makes that
/// durable. What else lies in its area stays; its MAC, if it has one, is made anew with the keys of
/// `keys` (dm-integrity specification, section 2.3).
///
/// What must be true before the new superblock is (tags, say) is to be durable before this call.
/// Only the first sector changes, so a crash leaves the old superblock or the new one.
///
/// # Errors
/// [`StoreError`].
///
/// # Panics
/// If `superblock` has a journal with MACs and `keys` does not say how they are made: without that
/// nobody opens it, and nobody would again.
pub async fn store_superblock(
    metadata: &Device,
    superblock: &Superblock,
    keys: &JournalKeys,
) -> Result<(), StoreError> {
    let has_mac = superblock.flags.has(::integrity::Flags::JOURNAL_MAC);
    assert_eq!(has_mac, keys.mac.is_some(), "the journal's keys are those of the superblock");
    let mac = superblock_mac(superblock, keys)?;
    let found = metadata.read(Sector::ZERO, AREA_SECTORS).await?;
    verify_area(found.as_slice(), mac.as_ref())?;
    let mut area: [u8; AREA_BYTES] = found.as_slice().try_into().expect("that much was read");
    let fields = superblock.encode();
    area[..fields.len()].copy_from_slice(&fields);
    if let Some(mac) = &mac {
        seal_superblock(&mut area, mac);
    }
    let mut stored = Bio::write_fua(Sector::ZERO, Buf::copy_of(&area)).because(SUPERBLOCK);
    Ok(metadata.submit(&mut stored).await?)
}
