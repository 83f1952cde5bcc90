//! Without special instructions of ours: `crc-fast` for the data, tables for what precedes it.

use super::Blocks;
use crate::polynomial::{feed_u64, feed_zero_block};
use crc_fast::{CrcAlgorithm, Digest};

/// The register after `bytes`, from `register`.
pub(super) fn feed(register: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(register));
    digest.update(bytes);
    u32::try_from(digest.get_state()).expect("a 32-bit CRC has a 32-bit register")
}

/// See [`super::each_tag`].
///
/// `crc-fast` starts from a given register only by way of a large state; a third of the time at
/// 512 bytes. So each block's CRC starts afresh, and linearity does the rest: the register that
/// should have been there and the one that was differ, and the difference goes through a block of
/// zeros.
pub(super) fn each_tag(
    blocks: Blocks<'_>,
    mut each: impl FnMut(usize, u32) -> bool,
) -> Option<usize> {
    let mut sector = blocks.first_sector;
    for (index, data) in blocks.data.chunks_exact(blocks.block.bytes()).enumerate() {
        let difference = feed_u64(blocks.salted, sector) ^ u32::MAX;
        let tag = crc_fast::crc32_iscsi(data) ^ feed_zero_block(difference, blocks.block);
        if !each(index, tag) {
            return Some(index);
        }
        sector = sector.wrapping_add(blocks.block.sectors());
    }
    None
}
