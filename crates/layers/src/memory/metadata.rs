//! What is kept for each block beside its data: a few bytes, blank until they are written.
//!
//! ```text
//!   chunk table:   number -> the metadata of 512 blocks, or nothing (blanks)
//! ```

use bio::Segments;
use std::cell::RefCell;
use std::collections::BTreeMap;
use units::{u64_of, usize_of};

/// The metadata of every block of a device.
pub(super) struct Metadata {
    /// Bytes for each block.
    tag_size: usize,
    blank: u8,
    chunks: RefCell<BTreeMap<u64, Box<[u8]>>>,
}

/// Part of a chunk that a request concerns.
struct Piece {
    chunk: u64,
    /// First byte within the chunk.
    start: usize,
    length: usize,
    /// First byte within the request's tags.
    offset: usize,
}

impl Metadata {
    /// All blank: every byte is that.
    pub fn new(tag_size: usize, blank: u8) -> Self {
        Self { tag_size, blank, chunks: RefCell::default() }
    }

    /// Fills `tags` with what is kept for the blocks from `block` on.
    pub fn read(&self, block: u64, tags: &mut Segments) {
        let chunks = self.chunks.borrow();
        for Piece { chunk, start, length, offset } in self.pieces(block, tags.len_bytes()) {
            match chunks.get(&chunk) {
                Some(bytes) => tags.copy_from(offset, &bytes[start..start + length]),
                None => tags.copy_from(offset, &vec![self.blank; length]),
            }
        }
    }

    /// Keeps `tags` for the blocks from `block` on.
    pub fn write(&self, block: u64, tags: &Segments) {
        let mut chunks = self.chunks.borrow_mut();
        for Piece { chunk, start, length, offset } in self.pieces(block, tags.len_bytes()) {
            let bytes = chunks.entry(chunk).or_insert_with(|| self.blank());
            tags.copy_to(offset, &mut bytes[start..start + length]);
        }
    }

    /// Keeps blanks for `blocks` blocks from `block` on.
    pub fn clear(&self, block: u64, blocks: u64) {
        let (mut at, end) = (block, block + blocks);
        let mut chunks = self.chunks.borrow_mut();
        // Only chunks that exist, as of data.
        while let Some((&number, bytes)) = chunks.range_mut(at / CHUNK_BLOCKS..).next() {
            let first = number * CHUNK_BLOCKS;
            let (start, stop) = (at.max(first), end.min(first + CHUNK_BLOCKS));
            if start >= stop {
                break;
            }
            let byte = |block: u64| usize_of(block - first) * self.tag_size;
            bytes[byte(start)..byte(stop)].fill(self.blank);
            if stop - start == CHUNK_BLOCKS {
                chunks.remove(&number);
            }
            at = stop;
        }
    }

    /// Memory that is taken, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        u64_of(self.chunks.borrow().values().map(|bytes| bytes.len()).sum())
    }

    fn blank(&self) -> Box<[u8]> {
        vec![self.blank; usize_of(CHUNK_BLOCKS) * self.tag_size].into()
    }

    /// The chunks that `length` bytes of tags from block `block` on lie in.
    fn pieces(&self, block: u64, length: usize) -> impl Iterator<Item = Piece> + use<> {
        let (tag_size, mut block, mut offset) = (self.tag_size, block, 0);
        std::iter::from_fn(move || {
            if offset == length {
                return None;
            }
            let (chunk, within) = (block / CHUNK_BLOCKS, block % CHUNK_BLOCKS);
            let blocks = usize_of(CHUNK_BLOCKS - within).min((length - offset) / tag_size);
            let start = usize_of(within) * tag_size;
            let piece = Piece { chunk, start, length: blocks * tag_size, offset };
            block += u64_of(blocks);
            offset += piece.length;
            Some(piece)
        })
    }
}

/// Blocks whose metadata is kept together.
const CHUNK_BLOCKS: u64 = 512;
