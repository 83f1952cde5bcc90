//! A device in memory with sectors that can be made unreadable, for tests of this crate.

use bio::{Bio, BlockDevice, Device, IoErrorKind, IoResult, Limits, Op};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use units::{BlockSize, SECTOR_BYTES, usize_of};

/// The device; clones are the same bytes.
#[derive(Clone)]
pub struct TestDevice(Rc<Inner>);

struct Inner {
    limits: Limits,
    bytes: RefCell<Vec<u8>>,
    bad: RefCell<BTreeSet<u64>>,
    full_from: Cell<u64>,
    writes: Cell<u64>,
    sectors_asked: Cell<u64>,
}

impl TestDevice {
    /// So many sectors of zeroes.
    pub fn new(sectors: u64, block: BlockSize) -> Self {
        Self::of(vec![0; usize_of(sectors) * SECTOR_BYTES], block)
    }

    /// These bytes.
    pub fn of(bytes: Vec<u8>, block: BlockSize) -> Self {
        let sectors = units::u64_of(bytes.len() / SECTOR_BYTES);
        let limits = Limits { fast_zeroes: true, discard: true, ..Limits::new(sectors, block) };
        Self(Rc::new(Inner {
            limits,
            bytes: RefCell::new(bytes),
            bad: RefCell::default(),
            full_from: Cell::new(u64::MAX),
            writes: Cell::new(0),
            sectors_asked: Cell::new(0),
        }))
    }

    pub fn device(&self) -> Device {
        Device::new(self.clone())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes.borrow().clone()
    }

    /// Reads of this sector fail until it is written.
    pub fn make_bad(&self, sector: u64) {
        self.0.bad.borrow_mut().insert(sector);
    }

    /// Writes from this sector on find no space.
    pub fn make_full_from(&self, sector: u64) {
        self.0.full_from.set(sector);
    }

    pub fn flip(&self, byte: usize, mask: u8) {
        self.0.bytes.borrow_mut()[byte] ^= mask;
    }

    /// Sectors that were to be read, whether they could be or not.
    pub fn sectors_asked(&self) -> u64 {
        self.0.sectors_asked.get()
    }

    /// Requests that changed something.
    pub fn writes(&self) -> u64 {
        self.0.writes.get()
    }
}

impl BlockDevice for TestDevice {
    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        runtime::yield_now().await;
        let inner = &*self.0;
        let start = usize_of(bio.sector.0) * SECTOR_BYTES;
        let sectors = bio.sector.0..bio.end().0;
        if bio.op.is_write() {
            if sectors.end > inner.full_from.get() {
                return Err(IoErrorKind::NoSpace.at(bio.sector));
            }
            inner.writes.set(inner.writes.get() + 1);
            inner.bad.borrow_mut().retain(|sector| !sectors.contains(sector));
        }
        let mut bytes = inner.bytes.borrow_mut();
        match bio.op {
            Op::Read => {
                inner.sectors_asked.set(inner.sectors_asked.get() + sectors.end - sectors.start);
                if let Some(&bad) = inner.bad.borrow().range(sectors).next() {
                    return Err(IoErrorKind::Medium.at(units::Sector(bad)));
                }
                let length = bio.data.len_bytes();
                bio.data.copy_from(0, &bytes[start..start + length]);
            }
            Op::Write { .. } => {
                let length = bio.data.len_bytes();
                bio.data.copy_to(0, &mut bytes[start..start + length]);
            }
            Op::Discard { sectors } | Op::WriteZeroes { sectors, .. } => {
                bytes[start..start + usize_of(sectors) * SECTOR_BYTES].fill(0);
            }
            Op::Flush => {}
            Op::Vouch | Op::Peek { .. } => return Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
        Ok(())
    }
}

/// Bytes without a pattern that a mistake could keep.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}
