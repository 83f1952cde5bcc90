//! The digests by name.

use std::fmt;
use std::str::FromStr;

/// A digest that tags can be made with, named as the kernel's own tools name it on their command
/// lines. (The dm-integrity specification, section 5.)
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// CRC-32C: reflected polynomial 0x82F63B78, register starts at all ones, inverted at the
    /// end, stored little-endian.
    Crc32c,
    /// CRC-32 as dm-integrity has it: reflected polynomial 0xEDB88320, register starts at zero, no
    /// inversion, stored little-endian. Not the CRC-32 of zlib and Ethernet.
    Crc32,
    /// XXH64 with seed 0, stored little-endian.
    Xxhash64,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// BLAKE2b with a digest of 256 bits.
    Blake2b256,
    /// BLAKE2s with a digest of 256 bits.
    Blake2s256,
    /// HMAC with SHA-1.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
}

impl Algorithm {
    /// Every algorithm, in the order messages list them.
    pub const ALL: &[Self] = &[
        Self::Crc32c,
        Self::Crc32,
        Self::Xxhash64,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Blake2b256,
        Self::Blake2s256,
        Self::HmacSha1,
        Self::HmacSha256,
        Self::HmacSha512,
    ];

    /// Those that need no key, in the same order: what can be found out by trying.
    pub const UNKEYED: &[Self] = Self::ALL.split_at(8).0;

    /// Bytes in the whole digest. A stored tag may be shorter (the digest is cut) or longer
    /// (zeros follow).
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Crc32c | Self::Crc32 => 4,
            Self::Xxhash64 => 8,
            Self::Sha1 | Self::HmacSha1 => 20,
            Self::Sha256 | Self::Blake2b256 | Self::Blake2s256 | Self::HmacSha256 => 32,
            Self::Sha512 | Self::HmacSha512 => 64,
        }
    }

    /// Whether it takes a key: only then does a tag also keep out who means harm.
    #[must_use]
    pub const fn is_keyed(self) -> bool {
        matches!(self, Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha512)
    }

    /// The name users know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
            Self::Crc32 => "crc32",
            Self::Xxhash64 => "xxhash64",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake2b256 => "blake2b-256",
            Self::Blake2s256 => "blake2s-256",
            Self::HmacSha1 => "hmac-sha1",
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha512 => "hmac-sha512",
        }
    }

    /// The algorithm called `name`, exactly.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`], whose text names the known ones.
    pub fn from_name(name: &str) -> Result<Self, UnknownAlgorithm> {
        let known = Self::ALL.iter().copied().find(|algorithm| algorithm.name() == name);
        known.ok_or_else(|| UnknownAlgorithm { name: name.to_owned() })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        Self::from_name(name)
    }
}

/// The user asked for a digest that is not known here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown integrity algorithm '{name}'; known: {}", known_names())]
pub struct UnknownAlgorithm {
    /// What was asked for.
    pub name: String,
}

fn known_names() -> String {
    Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_algorithm() {
        for &algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::from_name(algorithm.name()), Ok(algorithm));
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
    }

    #[test]
    fn an_unknown_name_is_refused_naming_the_known_ones() {
        let refused = Algorithm::from_name("md5").unwrap_err();
        let text = "unknown integrity algorithm 'md5'; known: crc32c, crc32, xxhash64, sha1, sha256, \
                    sha512, blake2b-256, blake2s-256, hmac-sha1, hmac-sha256, hmac-sha512";
        assert_eq!(refused.to_string(), text);
    }

    #[test]
    fn those_without_a_key_are_all_but_the_keyed_ones() {
        let unkeyed = Algorithm::ALL.iter().filter(|algorithm| !algorithm.is_keyed());
        assert!(unkeyed.eq(Algorithm::UNKEYED));
    }

    #[test]
    fn names_are_exact() {
        assert!(Algorithm::from_name("CRC32C").is_err());
        assert!(Algorithm::from_name("").is_err());
    }
}
