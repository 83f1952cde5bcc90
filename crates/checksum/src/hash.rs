//! Every algorithm as a running state that can be cloned: what a prefix has left behind is kept,
//! and each block goes on from there.

use crate::crc::{Castagnoli, Crc, Ieee};
use crate::digest::Digest;
use crate::{Algorithm, Key, KeyError};
use blake2::{Blake2b256, Blake2s256};
use hmac::{Hmac, KeyInit};
use sha1::Sha1;
use sha2::digest::{FixedOutput, Output, Update};
use sha2::{Sha256, Sha512};
use units::BlockSize;

/// A hash function in the making.
pub(crate) trait Hash: Clone {
    /// An array of as many bytes as the digest has.
    type Digest: AsRef<[u8]>;

    /// Feeds `bytes`.
    fn update(&mut self, bytes: &[u8]);

    /// What it comes to, as it is stored.
    fn finish(self) -> Self::Digest;

    /// Calls `each` with the digest of each block behind what was fed, until it says false; then
    /// gives that block's index.
    fn each_tag(
        &self,
        blocks: Blocks<'_>,
        mut each: impl FnMut(&Self::Digest) -> bool,
    ) -> Option<usize> {
        for (index, (sector, data)) in blocks.iter().enumerate() {
            let mut hash = self.clone();
            hash.update(&sector.to_le_bytes());
            hash.update(data);
            if !each(&hash.finish()) {
                return Some(index);
            }
        }
        None
    }
}

/// A run of blocks on a volume.
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'a> {
    /// Sector of the first block.
    pub(crate) first_sector: u64,
    /// Length of each.
    pub(crate) block: BlockSize,
    /// A whole number of blocks.
    pub(crate) data: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// Each block with its sector.
    pub(crate) fn iter(self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let mut next = self.first_sector;
        self.data.chunks_exact(self.block.bytes()).map(move |data| {
            let sector = next;
            next = next.wrapping_add(self.block.sectors());
            (sector, data)
        })
    }
}

impl<H: Clone + Update + FixedOutput> Hash for H {
    type Digest = Output<H>;

    fn update(&mut self, bytes: &[u8]) {
        Update::update(self, bytes);
    }

    fn finish(self) -> Output<H> {
        self.finalize_fixed()
    }
}

/// XXH64 with seed 0.
#[derive(Clone)]
pub(crate) struct Xxh64(twox_hash::XxHash64);

impl Hash for Xxh64 {
    type Digest = [u8; 8];

    fn update(&mut self, bytes: &[u8]) {
        std::hash::Hasher::write(&mut self.0, bytes);
    }

    fn finish(self) -> [u8; 8] {
        std::hash::Hasher::finish(&self.0).to_le_bytes()
    }
}

/// The state of any algorithm. Those that a key went into wipe themselves when dropped. (What is
/// beyond reach: `hmac` pads the key on the stack once, when it takes it in, and a value that is
/// moved leaves its old place as it was.)
#[derive(Clone)]
pub(crate) enum Hasher {
    Crc32c(Crc<Castagnoli>),
    Crc32(Crc<Ieee>),
    Xxh64(Xxh64),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
    Blake2b256(Blake2b256),
    Blake2s256(Blake2s256),
    HmacSha1(Hmac<Sha1>),
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Hmac<Sha512>),
}

/// Does the same with the [`Hash`] in whichever [`Hasher`].
macro_rules! with_hash {
    ($hasher:expr, $hash:ident => $does:expr) => {
        match $hasher {
            $crate::hash::Hasher::Crc32c($hash) => $does,
            $crate::hash::Hasher::Crc32($hash) => $does,
            $crate::hash::Hasher::Xxh64($hash) => $does,
            $crate::hash::Hasher::Sha1($hash) => $does,
            $crate::hash::Hasher::Sha256($hash) => $does,
            $crate::hash::Hasher::Sha512($hash) => $does,
            $crate::hash::Hasher::Blake2b256($hash) => $does,
            $crate::hash::Hasher::Blake2s256($hash) => $does,
            $crate::hash::Hasher::HmacSha1($hash) => $does,
            $crate::hash::Hasher::HmacSha256($hash) => $does,
            $crate::hash::Hasher::HmacSha512($hash) => $does,
        }
    };
}
pub(crate) use with_hash;

impl Hasher {
    /// Nothing fed but the key.
    ///
    /// # Errors
    /// [`KeyError::Missing`] or [`KeyError::Unwanted`].
    pub(crate) fn new(algorithm: Algorithm, key: Option<&Key>) -> Result<Self, KeyError> {
        if key.is_some() && !algorithm.is_keyed() {
            return Err(KeyError::Unwanted { algorithm });
        }
        Ok(match algorithm {
            Algorithm::Crc32c => Self::Crc32c(Crc::new()),
            Algorithm::Crc32 => Self::Crc32(Crc::new()),
            Algorithm::Xxhash64 => Self::Xxh64(Xxh64(twox_hash::XxHash64::with_seed(0))),
            Algorithm::Sha1 => Self::Sha1(Sha1::default()),
            Algorithm::Sha256 => Self::Sha256(Sha256::default()),
            Algorithm::Sha512 => Self::Sha512(Sha512::default()),
            Algorithm::Blake2b256 => Self::Blake2b256(Blake2b256::default()),
            Algorithm::Blake2s256 => Self::Blake2s256(Blake2s256::default()),
            Algorithm::HmacSha1 => Self::HmacSha1(keyed(algorithm, key)?),
            Algorithm::HmacSha256 => Self::HmacSha256(keyed(algorithm, key)?),
            Algorithm::HmacSha512 => Self::HmacSha512(keyed(algorithm, key)?),
        })
    }

    /// Feeds `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        with_hash!(self, hash => Hash::update(hash, bytes));
    }

    /// What it comes to.
    pub(crate) fn finish(self) -> Digest {
        with_hash!(self, hash => Digest::new(hash.finish().as_ref()))
    }
}

fn keyed<H: KeyInit>(algorithm: Algorithm, key: Option<&Key>) -> Result<H, KeyError> {
    let key = key.ok_or(KeyError::Missing { algorithm })?;
    Ok(H::new_from_slice(key.as_bytes()).expect("HMAC takes a key of any length"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::ZeroizeOnDrop;

    #[test]
    fn every_state_that_saw_a_key_is_wiped() {
        // That this compiles is the claim. HMAC is two states of its hash and a buffer; it wipes
        // them with these, but has not the trait itself.
        fn is_wiped<T: ZeroizeOnDrop>() {}
        is_wiped::<Sha1>();
        is_wiped::<Sha256>();
        is_wiped::<Sha512>();
    }
}
