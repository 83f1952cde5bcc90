//! A disk that remembers every write and flush, so that a test can cut the power anywhere.

use bio::{Allocation, Bio, BlockDevice, Device, IoErrorKind, IoResult, Limits, Op};
use runtime::yield_now;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use units::{BlockSize, Sector, u64_of, usize_of};

/// What happened, in order.
#[derive(Clone, Debug)]
pub enum Step {
    /// Bytes were stored; not durable yet unless they were `forced`.
    Write { at: usize, bytes: Rc<[u8]>, forced: bool },
    /// Everything stored before is durable.
    Flush,
    /// The test says something.
    Mark(usize),
}

pub struct Disk {
    limits: Limits,
    content: RefCell<Vec<u8>>,
    steps: RefCell<Vec<Step>>,
    recording: Cell<bool>,
    /// Sectors that cannot be read; writing them heals.
    pub bad: RefCell<BTreeSet<u64>>,
    /// Sectors from which on nothing can be stored.
    pub full_from: Cell<u64>,
    pub fail_flush: Cell<bool>,
    /// Writes that begin at the first sector begin at the second instead (or are lost), so often.
    pub astray: Cell<(u64, Option<u64>, usize)>,
    pub reads: Cell<u64>,
    chaos: Cell<u64>,
}

impl Disk {
    pub fn new(sectors: u64) -> Rc<Self> {
        Self::holding(vec![0; usize_of(sectors * 512)])
    }

    pub fn holding(content: Vec<u8>) -> Rc<Self> {
        let mut limits = Limits::new(u64_of(content.len()) / 512, BlockSize::B512);
        limits.discard = true;
        limits.fast_zeroes = true;
        Rc::new(Self {
            limits,
            content: RefCell::new(content),
            steps: RefCell::default(),
            recording: Cell::new(false),
            bad: RefCell::default(),
            full_from: Cell::new(u64::MAX),
            fail_flush: Cell::new(false),
            astray: Cell::new((0, None, 0)),
            reads: Cell::new(0),
            chaos: Cell::new(1),
        })
    }

    pub fn device(self: &Rc<Self>) -> Device {
        Device::shared(Rc::clone(self))
    }

    pub fn content(&self) -> Vec<u8> {
        self.content.borrow().clone()
    }

    pub fn flip(&self, byte: u64, mask: u8) {
        self.content.borrow_mut()[usize_of(byte)] ^= mask;
    }

    pub fn set(&self, byte: u64, bytes: &[u8]) {
        let at = usize_of(byte);
        self.content.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Remembers steps from now on; `seed` decides who is slow.
    pub fn record(&self, seed: u64) {
        self.recording.set(true);
        self.steps.borrow_mut().clear();
        self.chaos.set(seed | 1);
    }

    pub fn mark(&self, mark: usize) {
        self.steps.borrow_mut().push(Step::Mark(mark));
    }

    pub fn steps(&self) -> Vec<Step> {
        self.steps.take()
    }

    fn dice(&self) -> u64 {
        let next = self.chaos.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        self.chaos.set(next);
        next >> 60
    }

    /// Where a write that is sent to `sector` begins; nowhere if it is lost.
    fn arrives(&self, sector: u64) -> Option<u64> {
        let (sent_to, arrives, times) = self.astray.get();
        if times == 0 || sector != sent_to {
            return Some(sector);
        }
        self.astray.set((sent_to, arrives, times - 1));
        arrives
    }

    fn store(&self, at: u64, bytes: &[u8], forced: bool) -> IoResult {
        let sectors = at..at + u64_of(bytes.len()) / 512;
        if sectors.end > self.full_from.get() {
            return Err(IoErrorKind::NoSpace.at(Sector(at)));
        }
        let start = usize_of(at * 512);
        self.content.borrow_mut()[start..start + bytes.len()].copy_from_slice(bytes);
        self.bad.borrow_mut().retain(|sector| !sectors.contains(sector));
        if self.recording.get() {
            self.steps.borrow_mut().push(Step::Write { at: start, bytes: bytes.into(), forced });
        }
        Ok(())
    }
}

impl BlockDevice for Disk {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        for _ in 0..self.dice() % 4 {
            yield_now().await;
        }
        match bio.op {
            Op::Read => {
                self.reads.set(self.reads.get() + 1);
                let (start, end) = (bio.sector.0, bio.end().0);
                if let Some(&sector) = self.bad.borrow().range(start..end).next() {
                    return Err(IoErrorKind::Medium.at(Sector(sector)));
                }
                let content = self.content.borrow();
                bio.data.copy_from(0, &content[usize_of(start * 512)..usize_of(end * 512)]);
                Ok(())
            }
            Op::Write { fua } => {
                let data = bio.data.to_single();
                let Some(sector) = self.arrives(bio.sector.0) else { return Ok(()) };
                // Two halves, so that a cut may come between them.
                let half = data.len() / 1024 * 512;
                self.store(sector, &data.as_slice()[..half], fua)?;
                if self.dice().is_multiple_of(2) {
                    yield_now().await;
                }
                self.store(sector + u64_of(half) / 512, &data.as_slice()[half..], fua)
            }
            Op::Discard { sectors } | Op::WriteZeroes { sectors, .. } => {
                self.store(bio.sector.0, &vec![0; usize_of(sectors * 512)], false)
            }
            Op::Flush if self.fail_flush.get() => Err(IoErrorKind::Medium.at(Sector::ZERO)),
            Op::Flush => {
                if self.recording.get() {
                    self.steps.borrow_mut().push(Step::Flush);
                }
                Ok(())
            }
            Op::Vouch | Op::Peek { .. } => unreachable!("not supported here"),
        }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let content = self.content.borrow();
        let range = usize_of(sector.0 * 512)..usize_of((sector.0 + sectors) * 512);
        let holes: Vec<bool> =
            content[range].chunks(512).map(|sector| sector.iter().all(|&b| b == 0)).collect();
        let runs = holes.chunk_by(|a, b| a == b);
        Ok(runs.map(|run| Allocation { sectors: u64_of(run.len()), hole: run[0] }).collect())
    }
}
