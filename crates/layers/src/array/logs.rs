//! What a member carries beside its superblock.

use super::bad_blocks::{BadBlockProblem, read_bad_blocks};
use super::bitmap::{BitmapProblem, read_bitmap};
use super::ppl::{PplProblem, read_ppl};
use bio::Device;
use md::bad_blocks::BadBlocks;
use md::bitmap::Bitmap;
use md::ppl::Log;
use md::superblock::{SUPERBLOCK_SECTORS, Superblock};
use std::ops::Range;

/// What a member carries beside its superblock, as it was found.
#[derive(Clone, Debug)]
pub struct Logs {
    /// Its copy of the write-intent bitmap, or why that says nothing; none: the array has none.
    pub bitmap: Option<Result<Bitmap, BitmapProblem>>,
    /// Its bad block log, or why that cannot be read.
    pub bad_blocks: Result<BadBlocks, BadBlockProblem>,
    /// Its partial parity log, or why that says nothing; none: the array has none.
    pub ppl: Option<Result<Log, PplProblem>>,
}

impl Default for Logs {
    /// None.
    fn default() -> Self {
        Self { bitmap: None, bad_blocks: Ok(BadBlocks::empty(0)), ppl: None }
    }
}

impl Logs {
    /// Reads them from the member `device` with this superblock. What cannot be read is a finding, not
    /// an error.
    pub async fn read(device: &Device, superblock: &Superblock) -> Self {
        Self {
            bitmap: read_bitmap(device, superblock).await,
            bad_blocks: read_bad_blocks(device, superblock).await,
            ppl: read_ppl(device, superblock).await,
        }
    }
}

/// Whether nothing of the superblock, and of the data that it names, lies in these sectors of its member:
/// whatever is written to a log must not go there.
pub(super) fn is_beside(superblock: &Superblock, sectors: &Range<u64>) -> bool {
    let apart =
        |from: u64, count: u64| sectors.end <= from || sectors.start >= from.saturating_add(count);
    apart(superblock.super_offset().0, SUPERBLOCK_SECTORS)
        && apart(superblock.data_offset().0, superblock.data_size())
}
