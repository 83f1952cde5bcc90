//! Everything that is known of some rows of one stripe: a piece of each strip, and for every block
//! of it whether its bytes can be believed.
//!
//! A block is followed by the application's part of its tag here, if members keep tags: that is what
//! parity is made of, so both are compared and reconstructed as one.

use super::Inner;
use super::application::Role;
use super::content::Content;
use super::parity::Equations;
use crate::array::Tagging;
use bio::{Buf, IoErrorKind, IoResult};
use runtime::join_all;
use std::ops::Range;
use units::{Sector, u64_of, usize_of};

/// What is known of one block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Block {
    /// Read and verified.
    Good,
    /// Reconstructed and accepted.
    Rebuilt,
    /// There is a member, and it has not these bytes.
    Damaged(IoErrorKind),
    /// There is no member, or it was not given these bytes yet.
    Missing,
}

impl Block {
    /// Whether its bytes can be believed.
    pub(super) fn is_known(self) -> bool {
        matches!(self, Self::Good | Self::Rebuilt)
    }

    /// What a reader of it is told.
    pub(super) fn error(self) -> IoErrorKind {
        match self {
            Self::Damaged(kind) => kind,
            Self::Good | Self::Rebuilt | Self::Missing => IoErrorKind::Protection,
        }
    }
}

/// Rows of one stripe.
pub(super) struct Columns {
    pub(super) equations: Equations,
    /// The rows in the stripe, whole blocks.
    pub(super) rows: Range<u64>,
    /// Sectors of a block.
    pub(super) block: u64,
    pub(super) tagging: Tagging,
    /// By slot.
    pub(super) strips: Vec<Strip>,
}

/// The rows of one slot.
pub(super) struct Strip {
    /// Each block with the application's part of its tag.
    pub(super) interleaved: Buf,
    /// The tags as they lie on the member, or ought to.
    pub(super) tags: Vec<u8>,
    pub(super) blocks: Vec<Block>,
}

impl Columns {
    /// How many rows of blocks.
    pub(super) fn height(&self) -> usize {
        usize_of((self.rows.end - self.rows.start) / self.block)
    }

    /// The rows of block row `index`, in the stripe.
    pub(super) fn rows_of(&self, index: usize) -> Range<u64> {
        let start = self.rows.start + u64_of(index) * self.block;
        start..start + self.block
    }

    /// Bytes of a block with the application's part of its tag.
    pub(super) fn length(&self) -> usize {
        self.tagging.interleaved_bytes(self.block)
    }

    /// The bytes of block row `index` within each strip.
    pub(super) fn within(&self, index: usize) -> Range<usize> {
        let length = self.length();
        index * length..(index + 1) * length
    }

    /// The member sector of block row `index`.
    pub(super) fn sector_of(&self, index: usize) -> Sector {
        Sector(self.equations.absolute(&self.rows_of(index)).start)
    }

    pub(super) fn block_bytes(&self, slot: usize, index: usize) -> &[u8] {
        &self.strips[slot].interleaved.as_slice()[self.within(index)]
    }

    /// A block and its tag as they lie on the member, or ought to.
    pub(super) fn content(&self, slot: usize, index: usize) -> Content {
        let (data, _) = self.tagging.apart(&Buf::copy_of(self.block_bytes(slot, index)));
        let tags = &self.strips[slot].tags;
        let mut own = self.tagging.alloc(self.block);
        if !tags.is_empty() {
            own.copy_from(0, &tags[self.tag_of(index)]);
        }
        Content { data, tags: own }
    }

    fn tag_of(&self, index: usize) -> Range<usize> {
        let length = self.tagging.tag_bytes(self.block);
        index * length..(index + 1) * length
    }

    pub(super) fn state(&self, slot: usize, index: usize) -> Block {
        self.strips[slot].blocks[index]
    }

    /// Puts reconstructed bytes in place.
    pub(super) fn rebuilt(&mut self, slot: usize, index: usize, data: &[u8]) {
        let (within, tag) = (self.within(index), self.tag_of(index));
        let (role, at) = (self.equations.role(slot), self.sector_of(index));
        let signed = Content::signed(self.tagging, role, &Buf::copy_of(data), at);
        let strip = &mut self.strips[slot];
        strip.interleaved.as_mut_slice()[within].copy_from_slice(data);
        signed.tags.copy_to(0, &mut strip.tags[tag]);
        strip.blocks[index] = Block::Rebuilt;
    }

    /// Whether all data of the block row can be believed.
    pub(super) fn data_known(&self, index: usize) -> bool {
        self.equations.data.iter().all(|&slot| self.state(slot, index).is_known())
    }

    /// What parity of the block row ought to be: P, and Q where there is one. The data is known.
    pub(super) fn expected_parity(&self, index: usize) -> Vec<(usize, Vec<u8>)> {
        let length = self.length();
        let mut p = vec![0; length];
        let mut q = vec![0; if self.equations.q.is_some() { length } else { 0 }];
        let data: Vec<bio::Segments> = (self.equations.data.iter())
            .map(|&slot| Buf::copy_of(self.block_bytes(slot, index)).into())
            .collect();
        let data: Vec<&bio::Segments> = data.iter().collect();
        let wants_q = self.equations.q.is_some();
        self.equations.generate(&data, Some(&mut p), wants_q.then_some(&mut q[..]));
        let mut parity = vec![(self.equations.p, p)];
        parity.extend(self.equations.q.map(|slot| (slot, q)));
        parity
    }
}

impl Strip {
    fn new(tagging: Tagging, role: Role, content: &Content, blocks: Vec<Block>) -> Self {
        let mut tags = vec![0; content.tags.len_bytes()];
        content.tags.copy_to(0, &mut tags);
        Self { interleaved: content.interleaved(tagging, role), tags, blocks }
    }
}

impl Inner {
    /// Reads `rows` (whole blocks) of every strip of a stripe, as far as that can be done. Called
    /// under the stripe's lock.
    ///
    /// # Errors
    /// What is neither damage nor absence.
    pub(super) async fn load(
        &self,
        stripe: u64,
        rows: Range<u64>,
        bypass: bool,
    ) -> IoResult<Columns> {
        let range = self.absolute(stripe, &rows);
        let slots = 0..self.geometry.raid_disks();
        let reads = join_all(slots.map(|slot| self.read_sound(slot, range.clone(), bypass))).await;
        let block = self.block.sectors();
        let height = usize_of((rows.end - rows.start) / block);
        let (equations, tagging) = (self.equations(stripe), self.tagging);
        let mut strips = Vec::with_capacity(reads.len());
        for (slot, read) in reads.into_iter().enumerate() {
            let role = equations.role(slot);
            let strip = match read? {
                None => {
                    let here = self.reader(slot, &range).is_some();
                    let gone = Block::Damaged(IoErrorKind::Unavailable);
                    let state = if here { gone } else { Block::Missing };
                    let nothing = Content::alloc(tagging, rows.end - rows.start);
                    Strip::new(tagging, role, &nothing, vec![state; height])
                }
                Some((content, bad)) => {
                    let mut blocks = vec![Block::Good; height];
                    for (place, kind) in bad {
                        let first = usize_of((place.start - range.start) / block);
                        blocks[first] = kind.map_or(Block::Missing, Block::Damaged);
                    }
                    Strip::new(tagging, role, &content, blocks)
                }
            };
            strips.push(strip);
        }
        Ok(Columns { equations, rows, block, tagging, strips })
    }
}
