//! A CRC run backwards: how a salt that was lost is found again.
//!
//! A register that is fed bytes is multiplied and summed, and both can be undone. So one good block
//! with its sector and tag says where the register stood behind the salt, and from there the CRC of
//! every other block follows: the sixteen bytes themselves are not needed, any that lead to the
//! same register tag the same.
//!
//! ```text
//!   register:   start --- salt ---> R --- LE64(sector) | data ---> tag
//!                                   ^------------- undone ---------'
//! ```

use super::{Castagnoli, Crc, Ieee, Polynomial};
use crate::hash::Hash;
use crate::{Algorithm, SALT_BYTES};

/// Where the register of a CRC stands behind a volume's salt: what the good blocks of a volume
/// agree on, and damaged ones do not.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SaltRegister {
    algorithm: Algorithm,
    register: u32,
}

impl SaltRegister {
    /// Where it stands if the block at `sector` (in sectors of 512 bytes) holds `data` and its
    /// whole tag is `tag`. None: `algorithm` is not a CRC, and cannot be run backwards.
    #[must_use]
    pub fn behind(algorithm: Algorithm, sector: u64, data: &[u8], tag: [u8; 4]) -> Option<Self> {
        let register = match algorithm {
            Algorithm::Crc32c => start::<Castagnoli>(sector, data, tag),
            Algorithm::Crc32 => start::<Ieee>(sector, data, tag),
            _ => return None,
        };
        Some(Self { algorithm, register })
    }

    /// A salt that leads there: twelve zeros and four bytes that do it. Every tag made with it is
    /// the tag made with the salt that was lost.
    #[must_use]
    pub fn salt(self) -> [u8; SALT_BYTES] {
        match self.algorithm {
            Algorithm::Crc32 => salt::<Ieee>(self.register),
            _ => salt::<Castagnoli>(self.register),
        }
    }
}

/// The register before `LE64(sector)` and `data`, if they lead to `tag`.
fn start<P: Polynomial>(sector: u64, data: &[u8], tag: [u8; 4]) -> u32 {
    let end = u32::from_le_bytes(tag) ^ P::MASK;
    let mut from_zero = Crc::<P>::at(0);
    from_zero.update(&sector.to_le_bytes());
    from_zero.update(data);
    // By linearity what is left is the register's own share, multiplied by x^8 for each byte.
    let bytes = i64::try_from(8 + data.len()).expect("a block has at most 4096 bytes");
    P::multiply(end ^ from_zero.register(), P::power_of_x(-8 * bytes))
}

fn salt<P: Polynomial>(register: u32) -> [u8; SALT_BYTES] {
    // Four bytes are summed to the register, and both are multiplied by x^32.
    let before = P::multiply(P::MASK, P::power_of_x(8 * 12));
    let last = before ^ P::multiply(register, P::power_of_x(-32));
    let mut salt = [0; SALT_BYTES];
    salt[12..].copy_from_slice(&last.to_le_bytes());
    salt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlockTagger;
    use proptest::prelude::*;
    use units::BlockSize;

    fn any_crc() -> impl Strategy<Value = Algorithm> {
        prop_oneof![Just(Algorithm::Crc32c), Just(Algorithm::Crc32)]
    }

    fn any_data() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 512)
    }

    proptest! {
        #[test]
        fn one_good_block_gives_back_a_salt_that_tags_every_other(
            algorithm in any_crc(),
            salt in proptest::option::of(any::<[u8; SALT_BYTES]>()),
            good_sector: u64,
            good in any_data(),
            other_sector: u64,
            other in any_data(),
        ) {
            let tagger = BlockTagger::new(algorithm, None, salt, BlockSize::B512).unwrap();
            let tag = tagger.tag(good_sector, &good);
            let tag = tag.as_bytes().try_into().unwrap();
            let found = SaltRegister::behind(algorithm, good_sector, &good, tag).unwrap();
            let solved = Some(found.salt());
            let solved = BlockTagger::new(algorithm, None, solved, BlockSize::B512).unwrap();
            prop_assert_eq!(solved.tag(other_sector, &other), tagger.tag(other_sector, &other));
        }

        #[test]
        fn a_damaged_block_votes_for_another_register(
            algorithm in any_crc(),
            mut data in any_data(),
            at in 0usize..512,
            bit in 0u8..8,
        ) {
            let salt = Some([7; SALT_BYTES]);
            let tagger = BlockTagger::new(algorithm, None, salt, BlockSize::B512).unwrap();
            let tag = tagger.tag(8, &data).as_bytes().try_into().unwrap();
            let good = SaltRegister::behind(algorithm, 8, &data, tag);
            data[at] ^= 1 << bit;
            prop_assert_ne!(SaltRegister::behind(algorithm, 8, &data, tag), good);
        }

        #[test]
        fn a_salt_in_the_solved_form_is_found_itself(algorithm in any_crc(), last: [u8; 4]) {
            let mut salt = [0; SALT_BYTES];
            salt[12..].copy_from_slice(&last);
            let tagger = BlockTagger::new(algorithm, None, Some(salt), BlockSize::B512).unwrap();
            let tag = tagger.tag(0, &[0; 512]).as_bytes().try_into().unwrap();
            let found = SaltRegister::behind(algorithm, 0, &[0; 512], tag).unwrap();
            prop_assert_eq!(found.salt(), salt);
        }
    }

    #[test]
    fn what_is_no_crc_cannot_be_run_backwards() {
        let found = SaltRegister::behind(Algorithm::Sha256, 0, &[0; 512], [0; 4]);
        assert_eq!(found, None);
    }
}
