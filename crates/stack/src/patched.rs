//! A device that takes no writes, and whose first sectors may read as something else: a superblock
//! that was rebuilt in memory.

use bio::{Allocation, Bio, BlockDevice, Device, IoResult, Limits, Op};
use units::{SECTOR, Sector, u64_of, usize_of};

/// `lower`, the first bytes of which read as `head`. Nothing can be written through it.
pub(crate) struct Patched {
    lower: Device,
    head: Vec<u8>,
    limits: Limits,
}

impl Patched {
    /// `lower` as it is, for reading.
    pub(crate) fn read_only(lower: Device) -> Self {
        Self::new(lower, Vec::new())
    }

    /// `head` is a whole number of sectors.
    pub(crate) fn new(lower: Device, head: Vec<u8>) -> Self {
        debug_assert!(u64_of(head.len()).is_multiple_of(SECTOR), "whole sectors");
        let limits = Limits { read_only: true, discard: false, ..lower.limits().clone() };
        Self { lower, head, limits }
    }
}

impl BlockDevice for Patched {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        self.lower.submit(bio).await?;
        let start = usize_of(bio.sector.bytes());
        if bio.op == Op::Read && start < self.head.len() {
            let count = (self.head.len() - start).min(bio.data.len_bytes());
            bio.data.copy_from(0, &self.head[start..start + count]);
        }
        Ok(())
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.lower.allocation(sector, sectors).await
    }
}
