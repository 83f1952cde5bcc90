//! A device some blocks of which lie in an array's write journal, for reading.
//!
//! ```text
//!   asked for     |----------|==block==|------|==block==|---|
//!                      |          |        |        |     |
//!                    lower      ring     lower    ring  lower
//! ```
//! Over a member it is what the member will be once the journal has come home: what a crash left half
//! written there is never seen. Over the array it is what was acknowledged and is in the journal only.
//! Every block is checked against the journal's checksum whenever it is read; what does not agree is an error
//! at that block, which whoever is above treats as damage of the member. Nothing is written.

use bio::{Allocation, Bio, BlockDevice, Buf, Device, IoErrorKind, IoResult, Limits, Op};
use md::journal::{BLOCK_BYTES, BLOCK_SECTORS, Place, Seed};
use runtime::join_all;
use std::collections::BTreeMap;
use units::{SECTOR_BYTES, Sector, usize_of};

/// The layer.
pub struct Overlay {
    lower: Device,
    ring: Device,
    seed: Seed,
    /// By the first sector of each block.
    blocks: BTreeMap<u64, Place>,
    limits: Limits,
}

impl Overlay {
    /// `lower`, with these blocks (by their first sectors, multiples of a journal block) from `ring`.
    ///
    /// # Panics
    /// If either device has larger blocks than a journal, or `lower` keeps tags: a journal has none.
    #[must_use]
    pub fn new(
        lower: Device,
        ring: Device,
        seed: Seed,
        blocks: impl Iterator<Item = (Sector, Place)>,
    ) -> Self {
        let blocks: BTreeMap<u64, Place> = blocks.map(|(sector, at)| (sector.0, at)).collect();
        let whole = |device: &Device| device.limits().logical_block.bytes() <= BLOCK_BYTES;
        assert!(whole(&lower) && whole(&ring), "a journal's block is whole blocks");
        assert_eq!(lower.limits().tag_size, 0, "a journal keeps no tags");
        let limits = Limits { read_only: true, discard: false, ..lower.limits().clone() };
        Self { lower, ring, seed, blocks, limits }
    }

    /// Cuts a request where blocks of the journal begin and end. What it has that is the journal's is named.
    fn pieces(&self, bio: &mut Bio) -> Vec<(Bio, Option<(u64, Place)>)> {
        let (op, bypass, reason, end) = (bio.op, bio.bypass, bio.reason, bio.end());
        let mut data = std::mem::take(&mut bio.data);
        let mut pieces = Vec::new();
        let mut sector = bio.sector;
        while sector < end {
            let block = sector.0 / BLOCK_SECTORS * BLOCK_SECTORS;
            let place = self.blocks.get(&block).map(|&place| (block, place));
            let next = match place {
                Some(_) => block + BLOCK_SECTORS,
                None => self.blocks.range(block..).next().map_or(u64::MAX, |(&next, _)| next),
            };
            let next = Sector(next.min(end.0));
            let rest = data.split_off(usize_of(next.0 - sector.0) * SECTOR_BYTES);
            let part = Bio { op, bypass, reason, ..Bio::read_into(sector, data) };
            pieces.push((part, place));
            (data, sector) = (rest, next);
        }
        pieces
    }

    /// A request for part of one block of the journal.
    async fn read_ring(&self, bio: &mut Bio, block: u64, place: Place) -> IoResult {
        let sector = bio.sector;
        let lost = IoErrorKind::Protection.at(sector);
        let mut read = Bio::read(Sector(place.at), BLOCK_SECTORS);
        read.bypass = bio.bypass;
        self.ring.submit(&mut read).await.map_err(|error| error.kind.at(sector))?;
        let bytes: Buf = read.data.into_single();
        let holds = self.seed.checksum(bytes.as_slice()) == place.checksum;
        let from = usize_of(sector.0 - block) * SECTOR_BYTES;
        let part = &bytes.as_slice()[from..from + bio.data.len_bytes()];
        match bio.op {
            Op::Read | Op::Peek { mend: true } if !holds => Err(lost),
            Op::Read | Op::Peek { .. } => {
                bio.data.copy_from(0, part);
                Ok(())
            }
            Op::Vouch => {
                let agrees = holds && bio.data.to_single().as_slice() == part;
                if agrees { Ok(()) } else { Err(lost) }
            }
            Op::Write { .. } | Op::Flush | Op::Discard { .. } | Op::WriteZeroes { .. } => {
                Err(IoErrorKind::ReadOnly.at(sector))
            }
        }
    }
}

impl BlockDevice for Overlay {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        if bio.op == Op::Flush {
            return Ok(());
        }
        if bio.op.is_write() {
            return Err(IoErrorKind::ReadOnly.at(bio.sector));
        }
        // A block that begins before the request may reach into it.
        let from = bio.sector.0 / BLOCK_SECTORS * BLOCK_SECTORS;
        if self.blocks.range(from..bio.end().0).next().is_none() {
            return self.lower.submit(bio).await;
        }
        let pieces = self.pieces(bio).into_iter().map(|(mut piece, place)| async move {
            let result = match place {
                Some((block, place)) => self.read_ring(&mut piece, block, place).await,
                None => self.lower.submit(&mut piece).await,
            };
            (piece, result)
        });
        let mut outcome = Ok(());
        for (piece, result) in join_all(pieces).await {
            bio.data.append(piece.data);
            outcome = outcome.and(result); // the first by address
        }
        outcome
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let from = sector.0 / BLOCK_SECTORS * BLOCK_SECTORS;
        match self.blocks.range(from..sector.0 + sectors).next() {
            None => self.lower.allocation(sector, sectors).await,
            Some((&block, _)) if block > sector.0 => {
                self.lower.allocation(sector, block - sector.0).await
            }
            Some((&block, _)) => {
                let sectors = sectors.min(block + BLOCK_SECTORS - sector.0);
                Ok(vec![Allocation { sectors, hole: false }])
            }
        }
    }
}

#[cfg(test)]
mod tests;
