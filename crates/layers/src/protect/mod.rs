//! Protection information for whoever has none: made at the top on write, checked at the top on read.
//!
//! ```text
//!   write  data --> tuples made --> data + tuples below
//!   read   data <-- checked <------ data + tuples
//! ```
//!
//! Requests that bring their own tags pass as they are: their submitter's envelope is the wider one. The
//! two halves can be switched off, as the kernel's `write_generate` and `read_verify` can.
//!
//! Zeroes are written as data with tuples: a device below would store escapes for them, and nobody could
//! check them any more. For the same reason nothing is discarded.

use bio::{Bio, BlockDevice, Buf, Device, Events, IoResult, Limits, NoProfile, Op, Segments};
use dif::Profile;
use units::{SECTOR, Sector, usize_of};

/// What is done for requests without tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// Writes are given tuples. If not, the device below stores escapes.
    pub write_generate: bool,
    /// Reads are checked against the tuples that are stored.
    pub read_verify: bool,
}

impl Default for Options {
    /// Both.
    fn default() -> Self {
        Self { write_generate: true, read_verify: true }
    }
}

/// The layer.
pub struct Protect {
    lower: Device,
    profile: Profile,
    limits: Limits,
    options: Options,
    events: Events,
}

impl Protect {
    /// Protects what is written to `lower`; mismatches go to `events`.
    ///
    /// # Errors
    /// [`NoProfile`].
    pub fn new(lower: Device, options: Options, events: Events) -> Result<Self, NoProfile> {
        let mut limits = lower.limits().clone();
        let profile = limits.protection.ok_or(NoProfile)?;
        limits.discard &= !options.write_generate;
        limits.fast_zeroes &= !options.write_generate;
        Ok(Self { lower, profile, limits, options, events })
    }

    async fn write(&self, bio: &mut Bio) -> IoResult {
        bio.sign(&self.profile);
        let result = self.lower.submit(bio).await;
        bio.tags = Segments::default();
        result
    }

    async fn read(&self, bio: &mut Bio) -> IoResult {
        let blocks = bio.data.len_bytes() / self.limits.logical_block.bytes();
        bio.tags = Buf::alloc(blocks * self.limits.tag_size).into();
        let result = self.lower.submit(bio).await;
        let result = result.and_then(|()| bio.verify_telling(&self.profile, &self.events));
        bio.tags = Segments::default();
        result
    }

    async fn write_zeroes(&self, sector: Sector, sectors: u64) -> IoResult {
        let most = self.limits.max_bytes.min(ZEROES_BYTES) / SECTOR;
        let piece = most - most % self.limits.logical_block.sectors();
        let zeroes = Buf::zeroed(usize_of(Sector(piece.min(sectors)).bytes()));
        let (mut at, mut left) = (sector, sectors);
        while left > 0 {
            let now = left.min(piece);
            let bytes = usize_of(Sector(now).bytes());
            self.write(&mut Bio::write(at, zeroes.slice(0..bytes))).await?;
            (at, left) = (at + now, left - now);
        }
        Ok(())
    }
}

impl BlockDevice for Protect {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            _ if !bio.tags.is_empty() => self.lower.submit(bio).await,
            Op::Write { .. } if self.options.write_generate => self.write(bio).await,
            Op::WriteZeroes { sectors, .. } if self.options.write_generate => {
                self.write_zeroes(bio.sector, sectors).await
            }
            Op::Read if self.options.read_verify => self.read(bio).await,
            _ => self.lower.submit(bio).await,
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<bio::Allocation>> {
        self.lower.allocation(sector, sectors).await
    }
}

/// Zeroes written at once; at least any logical block.
const ZEROES_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
