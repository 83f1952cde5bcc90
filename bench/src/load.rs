//! What is done to a device, a round at a time.

use bio::{Bio, Buf, Device, IoResult};
use runtime::join_all;
use std::cell::Cell;
use units::{SECTOR, Sector, u64_of, usize_of};

/// One kind of work.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    pub(crate) action: Action,
    order: Order,
    /// Bytes of a request.
    request: usize,
    /// Requests under way at once.
    depth: u32,
    /// Requests of a round.
    count: u32,
    /// Writes after which the device is flushed.
    flush_every: Option<u32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    Sequential,
    Random,
}

impl Load {
    /// Bytes that a round moves.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.count) * u64_of(self.request)
    }

    /// The same with the other action.
    pub(crate) fn twin(&self, action: Action) -> Self {
        Self { action, ..*self }
    }

    /// Whether it writes or reads single blocks.
    pub(crate) fn is_small(&self) -> bool {
        self.request == SMALL
    }

    /// Whether it waits for flushes.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flush_every.is_some()
    }

    /// What `rate` counts.
    pub(crate) fn unit(&self) -> &'static str {
        match self.order {
            Order::Sequential => "GB/s",
            Order::Random => "k req/s",
        }
    }

    /// The rate of a round that took so long.
    pub(crate) fn rate(&self, seconds: f64) -> f64 {
        let requests = f64::from(self.count) / seconds;
        match self.order {
            Order::Sequential => {
                let bytes = u32::try_from(self.request).expect("a request is small");
                requests * f64::from(bytes) / 1e9
            }
            Order::Random => requests / 1e3,
        }
    }

    /// One round.
    pub(crate) async fn run(&self, device: &Device) -> IoResult {
        let payload = Buf::copy_of(&vec![0xA5; self.request]);
        let (next, random) = (Cell::new(0), Cell::new(1_u64));
        let places = VOLUME_BYTES / u64_of(self.request);
        let place = |number: u32| match self.order {
            Order::Sequential => u64::from(number) % places,
            Order::Random => {
                let state = random.get();
                random.set(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
                (state >> 32) % places
            }
        };
        let workers = (0..self.depth).map(|_| async {
            while next.get() < self.count {
                let number = next.replace(next.get() + 1);
                let sector = Sector(place(number) * (u64_of(self.request) / SECTOR));
                match self.action {
                    Action::Read => {
                        device
                            .submit(&mut Bio::read_into(sector, Buf::alloc(self.request)))
                            .await?;
                    }
                    Action::Write => device.write(sector, payload.clone()).await?,
                }
                if self.flush_every.is_some_and(|every| next.get() % every == 0) {
                    device.flush().await?;
                }
            }
            Ok(())
        });
        join_all(workers).await.into_iter().collect()
    }
}

/// Overwrites all of the measured part of `device` with `noise`.
pub(crate) async fn fill(device: &Device, noise: &Buf) -> IoResult {
    for start in (0..VOLUME_BYTES).step_by(noise.len()) {
        device.write(Sector::containing(start), noise.clone()).await?;
    }
    device.flush().await
}

/// Of the measured part: beyond every cache.
pub(crate) const VOLUME_BYTES: u64 = u64_of(LARGE) * 256;
/// Bytes of a large request.
pub(crate) const LARGE: usize = 1 << 20;
const SMALL: usize = 4096;
/// Requests of a round: the measured part once.
const ALL_LARGE: u32 = 256;
const ALL_SMALL: u32 = 256 * 256;
/// The same where each takes much longer.
const FEW_SMALL: u32 = 2048;

const _: () = assert!(usize_of(VOLUME_BYTES) == ALL_LARGE as usize * LARGE);

const fn sequential(name: &'static str, action: Action) -> Load {
    let order = Order::Sequential;
    Load { name, action, order, request: LARGE, depth: 8, count: ALL_LARGE, flush_every: None }
}

const fn random(name: &'static str, action: Action) -> Load {
    let order = Order::Random;
    Load { name, action, order, request: SMALL, depth: 32, count: ALL_SMALL, flush_every: None }
}

const fn flushed(name: &'static str, every: u32) -> Load {
    let write = random(name, Action::Write);
    Load { depth: 1, count: FEW_SMALL, flush_every: Some(every), ..write }
}

/// Reads come first: the journal is empty then.
pub(crate) const LOADS: &[Load] = &[
    sequential("read 1M", Action::Read),
    random("random read 4K", Action::Read),
    sequential("write 1M", Action::Write),
    random("random write 4K", Action::Write),
    flushed("random write 4K, each flushed", 1),
    flushed("random write 4K, flush after 8", 8),
    flushed("random write 4K, flush after 32", 32),
];
