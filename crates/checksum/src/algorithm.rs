//! The digests by name.

use std::fmt;
use std::str::FromStr;

/// A digest that tags can be made with, named as the kernel's crypto layer names it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// CRC-32C: reflected polynomial 0x82F63B78, register starts at all ones, inverted at the
    /// end, stored little-endian. (The dm-integrity specification, section 5.)
    Crc32c,
}

impl Algorithm {
    /// Every algorithm, in the order messages list them.
    pub const ALL: &[Self] = &[Self::Crc32c];

    /// Bytes in the whole digest. A stored tag may be shorter (the digest is cut) or longer
    /// (zeros follow).
    #[must_use]
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Crc32c => 4,
        }
    }

    /// The name users and the kernel know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
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
        assert_eq!(refused.to_string(), "unknown integrity algorithm 'md5'; known: crc32c");
    }

    #[test]
    fn names_are_exact() {
        assert!(Algorithm::from_name("CRC32C").is_err());
        assert!(Algorithm::from_name("").is_err());
    }
}
