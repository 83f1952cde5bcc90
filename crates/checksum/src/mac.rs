//! Digests of a few pieces under one key: journal sections and superblocks.

use crate::digest::Digest;
use crate::hash::Hasher;
use crate::{Algorithm, Key, KeyError};
use std::fmt;

/// An algorithm with its key, ready to authenticate messages.
///
/// The format lets any algorithm stand where a MAC belongs, also one without a key, such as
/// CRC-32C: it then protects from accidents only.
#[derive(Clone)]
pub struct Mac {
    algorithm: Algorithm,
    /// Behind the key.
    keyed: Hasher,
}

impl Mac {
    /// Takes the key in.
    ///
    /// # Errors
    /// [`KeyError::Missing`] or [`KeyError::Unwanted`].
    pub fn new(algorithm: Algorithm, key: Option<&Key>) -> Result<Self, KeyError> {
        Ok(Self { algorithm, keyed: Hasher::new(algorithm, key)? })
    }

    /// What it is made with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Bytes of each digest, 4 to 64.
    #[must_use]
    pub const fn digest_len(&self) -> usize {
        self.algorithm.digest_len()
    }

    /// The digest of all `pieces`, one behind the other.
    #[must_use]
    pub fn digest(&self, pieces: &[&[u8]]) -> Digest {
        let mut hasher = self.keyed.clone();
        for piece in pieces {
            hasher.update(piece);
        }
        hasher.finish()
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({})", self.algorithm)
    }
}
