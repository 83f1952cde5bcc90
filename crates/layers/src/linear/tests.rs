use super::*;
use bio::{Buf, IoErrorKind};
use runtime::block_on;
use std::cell::RefCell;
use std::rc::Rc;
use units::BlockSize;

/// Remembers where it was asked; fails at sector 100.
struct Witness(Limits, RefCell<Vec<(bio::Op, u64)>>);

impl BlockDevice for Witness {
    fn limits(&self) -> &Limits {
        &self.0
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        self.1.borrow_mut().push((bio.op, bio.sector.0));
        let bad = bio.sector.0 <= 100 && bio.end().0 > 100;
        if bad { Err(IoErrorKind::Medium.at(Sector(100))) } else { Ok(()) }
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.1.borrow_mut().push((bio::Op::Flush, sector.0));
        Ok(vec![Allocation { sectors, hole: true }])
    }
}

fn witness() -> Rc<Witness> {
    let mut limits = Limits::new(1000, BlockSize::B4096);
    limits.discard = true;
    limits.verified = true;
    Rc::new(Witness(limits, RefCell::default()))
}

#[test]
fn every_operation_passes_moved() {
    let lower = witness();
    let window = Linear::new(Device::shared(Rc::clone(&lower)), Sector(64), 800).unwrap();
    let device = Device::new(window);
    assert_eq!((device.limits().sectors, device.limits().verified), (800, true));
    block_on(async move {
        device.read(Sector(0), 8).await.unwrap();
        device.write(Sector(8), Buf::zeroed(4096)).await.unwrap();
        device.submit(&mut Bio::discard(Sector(792), 8)).await.unwrap();
        device.submit(&mut Bio::write_zeroes(Sector(16), 8, true)).await.unwrap();
        let mut vouch = Bio::vouch(Sector(24), Buf::zeroed(4096));
        device.submit(&mut vouch).await.unwrap();
        assert_eq!(vouch.sector, Sector(24));
        device.flush().await.unwrap();
        assert!(device.allocation(Sector(40), 8).await.unwrap()[0].hole);
        assert!(device.read(Sector(800), 8).await.is_err());
    });
    let sectors: Vec<u64> = lower.1.borrow().iter().map(|(_, sector)| *sector).collect();
    assert_eq!(sectors, [64, 72, 856, 80, 88, 64, 104]);
}

#[test]
fn errors_come_back_in_the_windows_addresses() {
    let window = Linear::new(Device::shared(witness()), Sector(64), 800).unwrap();
    let device = Device::new(window);
    let error = block_on(async move { device.read(Sector(32), 16).await.unwrap_err() });
    assert_eq!(error, IoErrorKind::Medium.at(Sector(36)));
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let open =
        |start, sectors| Linear::new(Device::shared(witness()), Sector(start), sectors).err();
    assert_eq!(open(8, 992), None);
    let outside = LinearError::Outside { start: 16, end: 1008, device: 1000 };
    assert_eq!(open(16, 992), Some(outside));
    assert!(matches!(open(u64::MAX, u64::MAX), Some(LinearError::Outside { .. })));
    let unaligned = LinearError::Unaligned { start: 4, sectors: 8, block: 4096 };
    assert_eq!(open(4, 8), Some(unaligned));
    assert!(open(8, 12).is_some());
}
