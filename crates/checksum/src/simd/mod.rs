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

use std::sync::OnceLock;
use units::{BlockSize, SECTOR_BYTES};

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

/// A run of blocks on a volume: what the tags of each start from, and its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Blocks<'a> {
    /// Register after the salt.
    pub(crate) salted: u32,
    /// Sector of the first block.
    pub(crate) first_sector: u64,
    /// Length of each.
    pub(crate) block: BlockSize,
    /// A whole number of blocks.
    pub(crate) data: &'a [u8],
}

/// The register after `bytes`, from `register`.
pub(crate) fn feed(register: u32, bytes: &[u8]) -> u32 {
    feed_at(Level::best(), register, bytes)
}

pub(crate) fn feed_at(level: Level, register: u32, bytes: &[u8]) -> u32 {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if bytes.len() >= SECTOR_BYTES => {
            // SAFETY: the level is only made where `detected()` held.
            unsafe { avx512::feed(register, bytes) }
        }
        _ => portable::feed(register, bytes),
    }
}

/// Calls `each(index, tag)` block by block, until it says false; then gives that index.
pub(crate) fn each_tag(
    level: Level,
    blocks: Blocks<'_>,
    each: impl FnMut(usize, u32) -> bool,
) -> Option<usize> {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level is only made where `detected()` held.
        Level::Avx512 => unsafe { avx512::each_tag(blocks, each) },
        Level::Portable => portable::each_tag(blocks, each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::polynomial::TABLES;
    use proptest::prelude::*;

    fn bytewise(register: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(register, |register, &byte| {
            let [low, ..] = register.to_le_bytes();
            (register >> 8) ^ TABLES[0][usize::from(low ^ byte)]
        })
    }

    proptest! {
        #[test]
        fn every_level_is_the_bytewise_register_at_any_length_and_alignment(
            register: u32,
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            skip in 0usize..80,
        ) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            for level in Level::available() {
                prop_assert_eq!(
                    feed_at(level, register, bytes), bytewise(register, bytes), "{:?}", level
                );
            }
        }

        #[test]
        fn every_level_tags_every_block_alike(
            salted: u32,
            first_sector: u64,
            log2 in 0u8..4,
            count in 0usize..6,
            seed: u8,
        ) {
            let block = BlockSize::from_log2_sectors(log2).unwrap();
            let data: Vec<u8> = (0..count * block.bytes())
                .map(|i| (i.wrapping_mul(0x9E37_79B9) >> 13).to_le_bytes()[0] ^ seed)
                .collect();
            let blocks = Blocks { salted, first_sector, block, data: &data };
            for level in Level::available() {
                let mut sector = first_sector;
                let mut chunks = data.chunks(block.bytes());
                let stopped = each_tag(level, blocks, |_, tag| {
                    let register = bytewise(salted, &sector.to_le_bytes());
                    sector = sector.wrapping_add(block.sectors());
                    tag == !bytewise(register, chunks.next().unwrap())
                });
                prop_assert_eq!(stopped, None, "{:?}", level);
                prop_assert!(chunks.next().is_none());
            }
        }
    }
}
