//! Guards: the checksums that vouch for the bytes of a protection interval.
//!
//! | guard | bits | polynomial | starts at | reflected | inverted at the end |
//! |---|---|---|---|---|---|
//! | [`Guard::Crc16`], CRC-16/T10-DIF | 16 | 0x8BB7 | 0 | no | no |
//! | [`Guard::Ip`], the checksum of IP | 16 | ones' complement sum of big-endian words (RFC 1071) | 0 | | yes |
//! | [`Guard::Crc32c`], Castagnoli | 32 | 0x1EDC6F41 | all ones | yes | yes |
//! | [`Guard::Crc64`], CRC-64/NVME | 64 | 0xAD93D23594C93659 | all ones | yes | yes |
//!
//! (The specification of protection information, section 3.) A guard is a number here; tuples store it
//! big-endian. Three ways of making one: of bytes at once ([`Guard::of`]), of bytes that come in pieces
//! ([`Running`]), and of many intervals in a row ([`Guard::each`], [`Guard::each_copied`]), which is the
//! fast one, since several intervals are under way together. [`Guard::updated`] makes one from another
//! when a part of the interval changes; [`Guard::flipped_bit`] names the bit that explains a difference.
//!
//! Nothing here knows what a tuple is; crate `dif` does. No `std`, no allocation.
#![no_std]

#[cfg(test)]
extern crate std;

mod flipped;
mod ip;
mod polynomial;
mod running;
mod simd;
mod update;

pub use running::Running;

#[cfg(test)]
mod tests;

/// A kind of guard.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Guard {
    /// CRC-16/T10-DIF: SCSI, and the 16-bit format of NVMe.
    Crc16,
    /// The checksum of IP: only between an application and its host adapter. It does not notice words
    /// that change places.
    Ip,
    /// CRC-32C: the 32-bit format of NVMe.
    Crc32c,
    /// CRC-64/NVME: the 64-bit format of NVMe.
    Crc64,
}

impl Guard {
    /// Every kind, in the order messages list them.
    pub const ALL: [Self; 4] = [Self::Crc16, Self::Ip, Self::Crc32c, Self::Crc64];

    /// The bytes that a guard takes in a tuple.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Crc16 | Self::Ip => 2,
            Self::Crc32c => 4,
            Self::Crc64 => 8,
        }
    }

    /// The name users know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc16 => "crc16",
            Self::Ip => "ip",
            Self::Crc32c => "crc32c",
            Self::Crc64 => "crc64",
        }
    }

    /// The kind called `name`, exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| guard.name() == name)
    }

    /// The guard of `data`.
    #[must_use]
    pub fn of(self, data: &[u8]) -> u64 {
        let mut running = Running::new(self);
        running.update(data);
        running.value()
    }

    /// Calls `found` with the guards of the intervals of `data` in order, some dozens of them at a time.
    ///
    /// # Panics
    /// If `interval` (bytes) is 0 or `data` is not whole intervals.
    pub fn each(self, data: &[u8], interval: usize, mut found: impl FnMut(&[u64])) {
        self.each_spaced(data, interval, interval, |_, guards| found(guards));
    }

    /// The same of intervals at the start of blocks of `stride` bytes; `found` is given the blocks, too: what
    /// lies behind their intervals is, where blocks carry it, metadata.
    ///
    /// # Panics
    /// If `interval` (bytes) is 0 or more than `stride`, or `blocks` is not whole strides.
    pub fn each_spaced(
        self,
        blocks: &[u8],
        interval: usize,
        stride: usize,
        found: impl FnMut(&[u8], &[u64]),
    ) {
        spaced(blocks.len(), interval, stride);
        simd::each_spaced(self, blocks, interval, stride, found);
    }

    /// [`Self::each_spaced`], and `found` may write to the blocks.
    ///
    /// # Panics
    /// As it does.
    pub fn each_spaced_mut(
        self,
        blocks: &mut [u8],
        interval: usize,
        stride: usize,
        found: impl FnMut(&mut [u8], &[u64]),
    ) {
        spaced(blocks.len(), interval, stride);
        simd::each_spaced_mut(self, blocks, interval, stride, found);
    }

    /// [`Self::each_spaced`], and the intervals are copied to `target`, without gaps; the guards are those of
    /// the bytes copied.
    ///
    /// # Panics
    /// As it does, or if `target` is too short for the intervals.
    pub fn each_gathered(
        self,
        blocks: &[u8],
        interval: usize,
        stride: usize,
        target: &mut [u8],
        found: impl FnMut(&[u8], &[u64]),
    ) {
        spaced(blocks.len(), interval, stride);
        simd::each_gathered(self, blocks, interval, stride, target, found);
    }

    /// Copies each interval of `source` to `target`, one every `stride` bytes, and calls `found` with the
    /// blocks that it has begun, some dozens at a time, and the guards of the bytes copied. What lies behind
    /// the intervals is left as it is.
    ///
    /// # Panics
    /// If `interval` (bytes) is 0 or more than `stride`, `source` is not whole intervals, or `target` is
    /// too short for them.
    pub fn each_copied(
        self,
        source: &[u8],
        interval: usize,
        target: &mut [u8],
        stride: usize,
        found: impl FnMut(&mut [u8], &[u64]),
    ) {
        assert!(interval > 0 && source.len().is_multiple_of(interval), "source is whole intervals");
        assert!(stride >= interval, "intervals do not overlap");
        simd::each_copied(self, source, interval, target, stride, found);
    }
}

fn spaced(bytes: usize, interval: usize, stride: usize) {
    assert!(interval > 0 && stride >= interval, "intervals have a length and do not overlap");
    assert!(bytes.is_multiple_of(stride), "blocks are whole strides");
}

impl core::fmt::Display for Guard {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}
