//! A window onto part of a device: what a member has for data between its metadata.
//!
//! ```text
//!   lower  |--------|==================|-----|
//!                   ^ start            ^ start + sectors
//! ```
//! Knows nothing of formats. Every operation passes with its address moved; errors come back in the
//! window's own addresses, and reference tags are counted anew on the way down and back.

use crate::array::submit_at;
use bio::{Allocation, Bio, BlockDevice, Device, IoResult, Limits};
use units::Sector;

/// The layer.
pub struct Linear {
    lower: Device,
    start: Sector,
    limits: Limits,
}

/// Why a window cannot be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinearError {
    /// It is not within the device.
    #[error("sectors {start} to {end} of a device of {device} sectors")]
    Outside {
        /// First sector asked for.
        start: u64,
        /// The end asked for.
        end: u128,
        /// Sectors of the device.
        device: u64,
    },
    /// It does not begin and end with a logical block.
    #[error("sectors {start} and {sectors} more are not whole blocks of {block} bytes")]
    Unaligned {
        /// First sector asked for.
        start: u64,
        /// Length asked for.
        sectors: u64,
        /// Logical block of the device in bytes.
        block: usize,
    },
}

impl Linear {
    /// The `sectors` sectors of `lower` from `start` on.
    ///
    /// # Errors
    /// [`LinearError`] if they are not all there, or not whole logical blocks.
    pub fn new(lower: Device, start: Sector, sectors: u64) -> Result<Self, LinearError> {
        let mut limits = lower.limits().clone();
        let (device, block) = (limits.sectors, limits.logical_block);
        let end = u128::from(start.0) + u128::from(sectors);
        if end > u128::from(device) {
            return Err(LinearError::Outside { start: start.0, end, device });
        }
        if !block.divides(start.0) || !block.divides(sectors) {
            let block = block.bytes();
            return Err(LinearError::Unaligned { start: start.0, sectors, block });
        }
        limits.sectors = sectors;
        Ok(Self { lower, start, limits })
    }
}

impl BlockDevice for Linear {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let at = self.start + bio.sector.0;
        submit_at(&self.lower, bio, at).await
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let result = self.lower.allocation(self.start + sector.0, sectors).await;
        result.map_err(|error| error.kind.at(Sector(error.sector.0.saturating_sub(self.start.0))))
    }
}

#[cfg(test)]
mod tests;
