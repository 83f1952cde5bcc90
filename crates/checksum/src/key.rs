//! Keys of integrity tags and of the journal.

use crate::Algorithm;
use std::fmt;
use zeroize::Zeroizing;

/// The bytes of a key, wiped from memory when dropped and never shown.
///
/// Whether it belongs to tags or to the journal is the owner's to know.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// Takes the bytes; they are wiped also if they are refused. A caller who passes a slice still
    /// has its own to wipe.
    ///
    /// # Errors
    /// [`KeyError::Length`] if there are none, or more than [`KEY_BYTES_MAX`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(bytes.into());
        match bytes.len() {
            1..=KEY_BYTES_MAX => Ok(Self(bytes)),
            found => Err(KeyError::Length { found }),
        }
    }

    /// The bytes: not to be copied to where nobody wipes them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Bytes a key may have (the dm-integrity specification, section 11).
pub const KEY_BYTES_MAX: usize = 4096;

/// A key that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// It is empty or too long.
    #[error("a key of {found} bytes; it has 1 to {KEY_BYTES_MAX}")]
    Length {
        /// Its bytes.
        found: usize,
    },
    /// There is none.
    #[error("{algorithm} needs a key, and none was given")]
    Missing {
        /// What needs it.
        algorithm: Algorithm,
    },
    /// There is one for an algorithm that has no use for it: what the user takes for protected by
    /// it would not be.
    #[error("a key was given, and {algorithm} takes none")]
    Unwanted {
        /// What it was given to.
        algorithm: Algorithm,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_to_4096_bytes() {
        assert_eq!(Key::new([]).unwrap_err(), KeyError::Length { found: 0 });
        assert_eq!(Key::new([7; 4097]).unwrap_err(), KeyError::Length { found: 4097 });
        assert_eq!(Key::new([7]).unwrap().as_bytes(), [7]);
        assert_eq!(Key::new(vec![7; 4096]).unwrap().as_bytes(), [7; 4096]);
    }

    #[test]
    fn a_key_is_not_shown() {
        let shown = format!("{:?}", Key::new(*b"secret").unwrap());
        assert_eq!(shown, "Key(..)");
    }
}
