//! CRC-32C kernels and the choice between them.
//!
//! | level | asks for | data | sector number |
//! |---|---|---|---|
//! | `Avx512` | AVX-512 F+VL, VPCLMULQDQ, SSE4.2 | folded 512 bytes at a time | one `crc32` |
//! | `Portable` | nothing | `crc-fast`, which picks its own | eight table look-ups |
//!
//! The level is found once. All levels give the same registers: tests hold them to it.
#![allow(unsafe_code, reason = "vector kernels: one of the homes of unsafe, see STYLE.md")]

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::crc::Polynomial;
use crate::hash::Blocks;
use std::sync::OnceLock;
#[cfg(target_arch = "x86_64")]
use units::SECTOR_BYTES;

/// A way of computing; ordered by preference.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Level {
    /// Carry-less multiplication of 64-byte vectors.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Anything that compiles.
    Portable,
}

impl Level {
    /// The levels this processor has, best first.
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        [
            #[cfg(target_arch = "x86_64")]
            avx512::detected().then_some(Self::Avx512),
            Some(Self::Portable),
        ]
        .into_iter()
        .flatten()
    }

    /// The best level, found once.
    pub(crate) fn best() -> Self {
        static BEST: OnceLock<Level> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().next().unwrap_or(Self::Portable))
    }
}

/// The register after `bytes`, from `register`.
pub(crate) fn feed<P: Polynomial>(register: u32, bytes: &[u8]) -> u32 {
    feed_at::<P>(Level::best(), register, bytes)
}

pub(crate) fn feed_at<P: Polynomial>(level: Level, register: u32, bytes: &[u8]) -> u32 {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if P::IS_CASTAGNOLI && bytes.len() >= SECTOR_BYTES => {
            // SAFETY: the level is only made where `detected()` held.
            unsafe { avx512::feed(register, bytes) }
        }
        _ => P::from_register(register, bytes),
    }
}

/// Calls `each` with the register after each block, which stood at `salted` before its sector
/// number, until it says false; then gives that block's index.
pub(crate) fn each_register<P: Polynomial>(
    level: Level,
    salted: u32,
    blocks: Blocks<'_>,
    each: impl FnMut(u32) -> bool,
) -> Option<usize> {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level is only made where `detected()` held.
        Level::Avx512 if P::IS_CASTAGNOLI => unsafe { avx512::each_register(salted, blocks, each) },
        _ => portable::each_register::<P>(salted, blocks, each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc::{Castagnoli, Ieee};
    use proptest::prelude::*;

    fn feeds_alike<P: Polynomial>(register: u32, bytes: &[u8]) {
        for level in Level::available() {
            let expected = P::tables().bytewise(register, bytes);
            assert_eq!(feed_at::<P>(level, register, bytes), expected, "{level:?}");
        }
    }

    fn tags_alike<P: Polynomial>(salted: u32, blocks: Blocks<'_>) {
        for level in Level::available() {
            let mut expected = blocks.iter();
            let stopped = each_register::<P>(level, salted, blocks, |register| {
                let (sector, data) = expected.next().unwrap();
                let behind_sector = P::tables().bytewise(salted, &sector.to_le_bytes());
                register == P::tables().bytewise(behind_sector, data)
            });
            assert_eq!(stopped, None, "{level:?}");
            assert!(expected.next().is_none());
        }
    }

    proptest! {
        #[test]
        fn every_level_is_the_bytewise_register_at_any_length_and_alignment(
            register: u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            skip in 0usize..80,
        ) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            feeds_alike::<Castagnoli>(register, bytes);
            feeds_alike::<Ieee>(register, bytes);
        }

        #[test]
        fn every_level_tags_every_block_alike(
            salted: u32,
            first_sector: u64,
            log2 in 0u8..4,
            count in 0usize..6,
            seed: u8,
        ) {
            let block = units::BlockSize::from_log2_sectors(log2).unwrap();
            let data: Vec<u8> = (0..count * block.bytes())
                .map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13).to_le_bytes()[0] ^ seed)
                .collect();
            let blocks = Blocks { first_sector, block, data: &data };
            tags_alike::<Castagnoli>(salted, blocks);
            tags_alike::<Ieee>(salted, blocks);
        }
    }
}
