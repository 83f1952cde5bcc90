//! Counts what is written to the device below.

use bio::{Allocation, Bio, BlockDevice, Device, IoResult, Limits, Op};
use std::cell::Cell;
use units::{Sector, u64_of};

/// A device that does nothing but count.
pub(super) struct Counting {
    lower: Device,
    written_bytes: Cell<u64>,
}

impl Counting {
    pub(super) fn new(lower: Device) -> Self {
        Self { lower, written_bytes: Cell::new(0) }
    }

    /// Bytes written through it so far.
    pub(super) fn written_bytes(&self) -> u64 {
        self.written_bytes.get()
    }
}

impl BlockDevice for Counting {
    fn limits(&self) -> &Limits {
        self.lower.limits()
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        if let Op::Write { .. } = bio.op {
            self.written_bytes.set(self.written_bytes.get() + u64_of(bio.data.len_bytes()));
        }
        self.lower.submit(bio).await
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.lower.allocation(sector, sectors).await
    }
}
