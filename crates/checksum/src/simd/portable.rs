//! Without special instructions of ours: `crc-fast` for the data, a table for the sector number.

use super::Blocks;
use crate::polynomial::feed_u64;
use crc_fast::{CrcAlgorithm, Digest};

/// The register after `bytes`, from `register`.
pub(super) fn feed(register: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(register));
    digest.update(bytes);
    u32::try_from(digest.get_state()).expect("a 32-bit CRC has a 32-bit register")
}

/// See [`super::each_tag`].
pub(super) fn each_tag(
    blocks: Blocks<'_>,
    mut each: impl FnMut(usize, u32) -> bool,
) -> Option<usize> {
    let mut sector = blocks.first_sector;
    for (index, data) in blocks.data.chunks_exact(blocks.block.bytes()).enumerate() {
        if !each(index, !feed(feed_u64(blocks.salted, sector), data)) {
            return Some(index);
        }
        sector = sector.wrapping_add(blocks.block.sectors());
    }
    None
}
