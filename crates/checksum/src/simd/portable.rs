//! `crc-fast` for the data, tables for the sector number.

use crate::crc::Polynomial;
use crate::hash::Blocks;

/// See [`super::each_register`].
///
/// `crc-fast` starts from a given register only by way of a large state; a third of the time at
/// 512 bytes. So each block's CRC starts at all ones, and linearity does the rest: the register
/// that should have been there and the one that was differ, and the difference goes through a block
/// of zeros.
pub(super) fn each_register<P: Polynomial>(
    salted: u32,
    blocks: Blocks<'_>,
    mut each: impl FnMut(u32) -> bool,
) -> Option<usize> {
    for (index, (sector, data)) in blocks.iter().enumerate() {
        let difference = P::feed_u64(salted, sector) ^ u32::MAX;
        if !each(P::from_ones(data) ^ P::feed_zero_block(difference, blocks.block)) {
            return Some(index);
        }
    }
    None
}
