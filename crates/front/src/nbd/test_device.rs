//! A device in memory for tests: it remembers what was asked, yields before it answers, and has
//! bad sectors where a test puts them.

use bio::{Allocation, Bio, BlockDevice, IoErrorKind, IoResult, Limits, Op};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use units::{BlockSize, Sector, usize_of};

/// A device in memory, and the handles by which a test looks at it.
#[derive(Clone)]
pub struct TestDevice(Rc<Inner>);

struct Inner {
    limits: Limits,
    bytes: RefCell<Vec<u8>>,
    stored: RefCell<Vec<bool>>,
    bad: RefCell<BTreeSet<u64>>,
    log: RefCell<Vec<(Op, Sector, u64)>>,
    busy: Cell<usize>,
    busiest: Cell<usize>,
    yields: Cell<usize>,
}

#[allow(dead_code, reason = "shared by several test programs, each of which uses a part")]
impl TestDevice {
    /// With `sectors` sectors; `limits` changes what it says of itself.
    pub fn new(sectors: u64, block: BlockSize, limits: impl FnOnce(&mut Limits)) -> Self {
        let mut given = Limits::new(sectors, block);
        given.discard = true;
        given.fast_zeroes = true;
        limits(&mut given);
        Self(Rc::new(Inner {
            bytes: RefCell::new(vec![0; usize_of(Sector(sectors).bytes())]),
            stored: RefCell::new(vec![false; usize_of(sectors)]),
            bad: RefCell::default(),
            log: RefCell::default(),
            busy: Cell::new(0),
            busiest: Cell::new(0),
            yields: Cell::new(0),
            limits: given,
        }))
    }

    /// To be served.
    pub fn device(&self) -> bio::Device {
        bio::Device::new(self.clone())
    }

    /// Its content.
    pub fn bytes(&self) -> std::cell::RefMut<'_, Vec<u8>> {
        self.0.bytes.borrow_mut()
    }

    /// Sectors that cannot be read until they are written.
    pub fn damage(&self, sectors: impl IntoIterator<Item = u64>) {
        self.0.bad.borrow_mut().extend(sectors);
    }

    /// From now on every request lets others run this many times first.
    pub fn yield_times(&self, times: usize) {
        self.0.yields.set(times);
    }

    /// What was asked since the last time.
    pub fn take_log(&self) -> Vec<(Op, Sector, u64)> {
        self.0.log.take()
    }

    /// The most requests that were under way at once.
    pub fn busiest(&self) -> usize {
        self.0.busiest.get()
    }

    fn serve(&self, bio: &mut Bio) -> IoResult {
        let inner = &self.0;
        let (first, end) = (usize_of(bio.sector.bytes()), usize_of(bio.end().bytes()));
        let sectors = bio.sector.0..bio.end().0;
        inner.log.borrow_mut().push((bio.op, bio.sector, bio.sectors()));
        match bio.op {
            Op::Read => {
                if let Some(&bad) = inner.bad.borrow().range(sectors).next() {
                    return Err(IoErrorKind::Protection.at(Sector(bad)));
                }
                bio.data.copy_from(0, &inner.bytes.borrow()[first..end]);
            }
            Op::Write { .. } => {
                bio.data.copy_to(0, &mut inner.bytes.borrow_mut()[first..end]);
                self.store(sectors, true);
            }
            Op::Discard { .. } => {
                inner.bytes.borrow_mut()[first..end].fill(0);
                self.store(sectors, false);
            }
            Op::WriteZeroes { unmap, .. } => {
                inner.bytes.borrow_mut()[first..end].fill(0);
                self.store(sectors, !unmap);
            }
            Op::Flush => {}
            Op::Vouch | Op::Peek { .. } => return Err(IoErrorKind::Unsupported.at(bio.sector)),
        }
        Ok(())
    }

    fn store(&self, sectors: std::ops::Range<u64>, stored: bool) {
        self.0.bad.borrow_mut().retain(|bad| !sectors.contains(bad));
        let range = usize_of(sectors.start)..usize_of(sectors.end);
        self.0.stored.borrow_mut()[range].fill(stored);
    }
}

impl BlockDevice for TestDevice {
    fn limits(&self) -> &Limits {
        &self.0.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let inner = &self.0;
        inner.busy.set(inner.busy.get() + 1);
        inner.busiest.set(inner.busiest.get().max(inner.busy.get()));
        for _ in 0..inner.yields.get() {
            runtime::yield_now().await;
        }
        inner.busy.set(inner.busy.get() - 1);
        self.serve(bio)
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let stored = self.0.stored.borrow();
        let stored = &stored[usize_of(sector.0)..usize_of(sector.0 + sectors)];
        let runs = stored.chunk_by(|a, b| a == b);
        let run = |run: &[bool]| Allocation { sectors: units::u64_of(run.len()), hole: !run[0] };
        Ok(runs.map(run).collect())
    }
}
