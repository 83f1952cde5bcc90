//! What a hash comes to.

use std::fmt;

/// A digest of any algorithm: up to [`Digest::BYTES_MAX`] bytes, in the order they are stored.
///
/// What a CRC or XXH64 comes to, a number, is here already in little-endian order.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Digest {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Digest {
    /// Bytes of the longest.
    pub const BYTES_MAX: usize = 64;

    /// # Panics
    /// If there are more than [`Self::BYTES_MAX`].
    pub(crate) fn new(digest: &[u8]) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..digest.len()].copy_from_slice(digest);
        Self { bytes, len: digest.len() }
    }

    /// Its bytes; as many as its algorithm's `digest_len`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Its bytes, and zeros behind: as a journal section stores its MAC, eight bytes a sector (the
    /// dm-integrity specification, section 6.3).
    #[must_use]
    pub const fn padded(&self) -> [u8; Self::BYTES_MAX] {
        self.bytes
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes `digest` as a tag is stored: cut, or followed by zeros (the dm-integrity specification,
/// section 5).
pub(crate) fn store(stored: &mut [u8], digest: &[u8]) {
    let cut = stored.len().min(digest.len());
    let (head, rest) = stored.split_at_mut(cut);
    head.copy_from_slice(&digest[..cut]);
    rest.fill(0);
}

/// Whether `stored` is `digest` as a tag is stored.
pub(crate) fn is_stored(stored: &[u8], digest: &[u8]) -> bool {
    let (head, rest) = stored.split_at(stored.len().min(digest.len()));
    digest.starts_with(head) && rest.iter().all(|&byte| byte == 0)
}
