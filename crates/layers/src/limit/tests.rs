use super::*;
use bio::{Buf, IoErrorKind};
use runtime::block_on;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use units::{BlockSize, Sector};

/// Remembers what it was asked, takes a while, and holds a block's number in each block.
struct Witness {
    limits: Limits,
    sizes: RefCell<Vec<usize>>,
    in_flight: Cell<usize>,
    most: Cell<usize>,
    bad: u64,
}

impl Witness {
    fn new() -> Rc<Self> {
        let mut limits = Limits::new(1 << 20, BlockSize::B512);
        limits.max_bytes = 8192;
        Rc::new(Self {
            limits,
            sizes: RefCell::default(),
            in_flight: Cell::default(),
            most: Cell::default(),
            bad: u64::MAX,
        })
    }
}

impl BlockDevice for Witness {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let bytes = bio.data.len_bytes();
        self.sizes.borrow_mut().push(bytes);
        self.in_flight.set(self.in_flight.get() + bytes);
        self.most.set(self.most.get().max(self.in_flight.get()));
        runtime::sleep(Duration::from_micros(10)).await;
        self.in_flight.set(self.in_flight.get() - bytes);
        if (bio.sector.0..bio.end().0).contains(&self.bad) {
            return Err(IoErrorKind::Medium.at(Sector(self.bad)));
        }
        if bio.op == Op::Read {
            for index in 0..bio.sectors() {
                let number = (bio.sector.0 + index).to_le_bytes();
                bio.data.copy_from(usize_of(index * 512), &number);
            }
        }
        Ok(())
    }
}

fn limit(witness: &Rc<Witness>, in_flight_bytes: u64) -> Device {
    let options = Options { max_bytes: 4096, in_flight_bytes };
    Device::new(Limit::new(Device::shared(Rc::clone(witness)), options))
}

#[test]
fn a_large_read_comes_back_in_order() {
    let witness = Witness::new();
    let device = limit(&witness, 8192);
    let bytes = block_on(async move { device.read(Sector(5), 37).await.unwrap() });
    for (index, sector) in bytes.as_slice().chunks(512).enumerate() {
        assert_eq!(sector[..8], (u64_of(index) + 5).to_le_bytes());
    }
    let sizes = witness.sizes.take();
    assert_eq!(sizes.iter().sum::<usize>(), 37 * 512);
    assert!(sizes.iter().all(|&bytes| bytes <= 4096), "{sizes:?}");
}

#[test]
fn never_more_in_flight_than_allowed() {
    let witness = Witness::new();
    let device = limit(&witness, 12288);
    block_on(async move {
        let writes = (0..8).map(|n| device.write(Sector(n * 64), Buf::zeroed(32768)));
        for result in runtime::join_all(writes).await {
            result.unwrap();
        }
    });
    assert_eq!(witness.most.get(), 12288);
    assert_eq!(witness.in_flight.get(), 0);
}

#[test]
fn the_first_error_by_address_is_told_and_the_buffers_come_back() {
    let mut witness = Witness::new();
    Rc::get_mut(&mut witness).unwrap().bad = 21;
    let device = limit(&witness, 1 << 20);
    block_on(async move {
        let mut bio = Bio::write(Sector::ZERO, Buf::zeroed(64 * 512));
        let result = device.submit(&mut bio).await;
        assert_eq!(result, Err(IoErrorKind::Medium.at(Sector(21))));
        assert_eq!(bio.data.len_bytes(), 64 * 512);
        assert_eq!(bio.data.iter().count(), 1, "pieces of one buffer are one buffer again");
    });
}

#[test]
fn requests_without_data_pass_while_all_room_is_taken() {
    let witness = Witness::new();
    let device = limit(&witness, 4096);
    block_on(async move {
        let (writer, flusher) = (device.clone(), device);
        let write = runtime::spawn(async move {
            writer.write(Sector::ZERO, Buf::zeroed(4096 * 8)).await.unwrap();
            runtime::now()
        });
        let flush = runtime::spawn(async move {
            flusher.flush().await.unwrap();
            runtime::now()
        });
        assert!(flush.await < write.await);
    });
}
