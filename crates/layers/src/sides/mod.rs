//! An array in the middle of a change of shape, for reading: one shape below a sector, the other
//! from there on.
//!
//! ```text
//!   0                position              end
//!   |     below        |        above       |
//! ```
//! Both devices lie over the same members and have the same addresses; each is right only on its
//! side. Nothing is written: moving the position is the work of whoever changes the shape.

use crate::array::Tagging;
use bio::{Allocation, Bio, BlockDevice, Device, IoErrorKind, IoResult, Limits, Op};
use units::{Sector, usize_of};

/// The layer.
pub struct Sides {
    below: Device,
    above: Device,
    position: Sector,
    limits: Limits,
}

impl Sides {
    /// `below` up to sector `position`, `above` from there to sector `sectors`.
    ///
    /// # Panics
    /// If that is not whole logical blocks of both, one of them is too small for its side, or they keep
    /// different tags: they lie over the same members.
    #[must_use]
    pub fn new(below: Device, above: Device, position: Sector, sectors: u64) -> Self {
        let (a, b) = (below.limits(), above.limits());
        let larger = if a.logical_block.bytes() < b.logical_block.bytes() { b } else { a };
        let block = larger.logical_block;
        let position = Sector(position.0.min(sectors));
        assert!(block.divides(position.0) && block.divides(sectors), "whole blocks on both sides");
        assert!(position.0 <= a.sectors && sectors <= b.sectors, "each side has its sectors");
        assert_eq!(Tagging::of(a), Tagging::of(b), "both sides have the same members");
        let limits = Limits {
            sectors,
            read_only: true,
            verified: a.verified && b.verified,
            max_bytes: a.max_bytes.min(b.max_bytes),
            ..larger.clone()
        };
        Self { below, above, position, limits }
    }

    /// The device that is right at `sector`, and how many sectors from there on it is.
    fn side(&self, sector: Sector) -> (&Device, u64) {
        if sector < self.position {
            (&self.below, self.position.0 - sector.0)
        } else {
            (&self.above, self.limits.sectors - sector.0)
        }
    }
}

impl BlockDevice for Sides {
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
        let (first, length) = self.side(bio.sector);
        if bio.sectors() <= length {
            return first.submit(bio).await;
        }
        let later = bio.data.split_off(usize_of(Sector(length).bytes()));
        let mut second = Bio { bypass: bio.bypass, ..Bio::read_into(self.position, later) };
        second.op = bio.op;
        if !bio.tags.is_empty() {
            second.tags = bio.tags.split_off(Tagging::of(&self.limits).tag_bytes(length));
        }
        let results = [first.submit(bio).await, self.above.submit(&mut second).await];
        bio.data.append(second.data);
        bio.tags.append(second.tags);
        results.into_iter().collect() // the first by address
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let (device, length) = self.side(sector);
        device.allocation(sector, sectors.min(length)).await
    }
}

#[cfg(test)]
mod tests;
