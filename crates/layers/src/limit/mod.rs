//! Bounds the bytes in flight, and splits requests that are too large for the device below.
//!
//! ```text
//!   bio of 5 pieces:   |1111|2222|3333|4444|55|
//!   in flight below:    ^^^^ ^^^^               (room for two; the others wait in line)
//! ```
//!
//! This is the smallest complete layer of the house: a new one starts as a copy of it. It knows
//! nothing of formats, and everything a layer must do is here once: it declares its limits, takes
//! segments out of a request, hands them down, puts them back in order, and answers with the first
//! error by address.

use bio::{Bio, BlockDevice, Device, IoResult, Limits, Op};
use runtime::{Semaphore, join_all};
use units::{u64_of, usize_of};

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Largest data of one request that is handed down, in bytes; at least a logical block, and
    /// never more than the lower device's own `max_bytes`.
    pub max_bytes: u64,
    /// Data in flight below, over all requests, in bytes. At least `max_bytes`.
    pub in_flight_bytes: u64,
}

/// The layer.
pub struct Limit {
    lower: Device,
    limits: Limits,
    piece: usize,
    room: Semaphore,
}

impl Limit {
    /// Puts bounds on `lower`.
    #[must_use]
    pub fn new(lower: Device, options: Options) -> Self {
        let mut limits = lower.limits().clone();
        let block = u64_of(limits.logical_block.bytes());
        let piece = options.max_bytes.min(limits.max_bytes).max(block);
        let piece = piece - piece % block;
        limits.max_bytes = u64::MAX; // of any size: that is what this layer is for
        let room = Semaphore::new(usize_of(options.in_flight_bytes.max(piece)));
        Self { lower, limits, piece: usize_of(piece), room }
    }

    async fn submit_in_pieces(&self, bio: &mut Bio) -> IoResult {
        let pieces = self.split(bio);
        let done = join_all(pieces.into_iter().map(|mut piece| async move {
            let _room = self.room.acquire(piece.data.len_bytes()).await;
            let result = self.lower.submit(&mut piece).await;
            (piece, result)
        }));
        let mut outcome = Ok(());
        for (piece, result) in done.await {
            bio.data.append(piece.data);
            bio.tags.append(piece.tags);
            outcome = outcome.and(result); // the first by address
        }
        outcome
    }

    fn split(&self, bio: &mut Bio) -> Vec<Bio> {
        let tags_per_piece = bio.tags.len_bytes() * self.piece / bio.data.len_bytes();
        let mut rest = Bio {
            op: bio.op,
            sector: bio.sector,
            data: std::mem::take(&mut bio.data),
            tags: std::mem::take(&mut bio.tags),
            bypass: bio.bypass,
            reason: bio.reason,
        };
        let mut pieces = Vec::with_capacity(rest.data.len_bytes().div_ceil(self.piece));
        while rest.data.len_bytes() > self.piece {
            let data = rest.data.split_off(self.piece);
            let tags = rest.tags.split_off(tags_per_piece);
            let sector = rest.end();
            let Bio { op, bypass, reason, .. } = rest;
            let next = Bio { op, sector, data, tags, bypass, reason };
            pieces.push(std::mem::replace(&mut rest, next));
        }
        pieces.push(rest);
        pieces
    }
}

impl BlockDevice for Limit {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Flush | Op::Discard { .. } | Op::WriteZeroes { .. } => self.lower.submit(bio).await,
            Op::Read | Op::Write { .. } | Op::Vouch | Op::Peek { .. } => {
                if bio.data.len_bytes() > self.piece {
                    return self.submit_in_pieces(bio).await;
                }
                let _room = self.room.acquire(bio.data.len_bytes()).await;
                self.lower.submit(bio).await
            }
        }
    }

    async fn allocation(
        &self,
        sector: units::Sector,
        sectors: u64,
    ) -> IoResult<Vec<bio::Allocation>> {
        self.lower.allocation(sector, sectors).await
    }
}

#[cfg(test)]
mod tests;
