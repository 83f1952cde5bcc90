use super::*;
use bio::Buf;
use runtime::block_on;
use units::BlockSize;

/// Sixteen sectors of memory.
struct Memory {
    limits: Limits,
    bytes: RefCell<Vec<u8>>,
    flushes: Cell<u64>,
}

impl BlockDevice for Memory {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        let range = usize_of(bio.sector.bytes())..usize_of(bio.end().bytes());
        match bio.op {
            Op::Read => bio.data.copy_from(0, &self.bytes.borrow()[range]),
            Op::Write { .. } => bio.data.copy_to(0, &mut self.bytes.borrow_mut()[range]),
            Op::Flush => self.flushes.set(self.flushes.get() + 1),
            _ => self.bytes.borrow_mut()[range].fill(0),
        }
        Ok(())
    }
}

fn faulty() -> (Device, Faults, Rc<Memory>) {
    let limits = Limits::new(16, BlockSize::B512);
    let memory =
        Rc::new(Memory { limits, bytes: vec![7; 16 * 512].into(), flushes: Cell::default() });
    let faults = Faults::default();
    let device = Device::new(Fault::new(Device::shared(Rc::clone(&memory)), &faults));
    (device, faults, memory)
}

#[test]
fn only_the_nth_request_fails_and_names_the_place() {
    let (device, faults, _) = faulty();
    faults.add(Rule::nth(1, Kind::Read, 4..6, Effect::Fail(IoErrorKind::Medium)));
    block_on(async move {
        assert!(device.read(Sector(2), 4).await.is_ok());
        assert!(device.read(Sector(6), 4).await.is_ok(), "not in the range");
        let refused = device.read(Sector(2), 4).await.err();
        assert_eq!(refused, Some(IoErrorKind::Medium.at(Sector(4))));
        assert!(device.read(Sector(2), 4).await.is_ok());
    });
    assert_eq!(faults.harmed(), 1);
}

#[test]
fn a_corrupted_read_leaves_the_medium_as_it_is() {
    let (device, faults, memory) = faulty();
    faults.add(Rule::nth(0, Kind::Read, 3..4, Effect::Corrupt { byte: 9, mask: 0x80 }));
    let bytes = block_on(async move { device.read(Sector(2), 4).await.unwrap() });
    assert_eq!(bytes.as_slice()[512 + 9], 7 ^ 0x80);
    assert_eq!(bytes.as_slice().iter().filter(|&&byte| byte != 7).count(), 1);
    assert!(memory.bytes.borrow().iter().all(|&byte| byte == 7));
}

#[test]
fn a_corrupted_write_stores_other_bytes_than_the_submitter_holds() {
    let (device, faults, memory) = faulty();
    faults.add(Rule::nth(0, Kind::Write, 0..16, Effect::Corrupt { byte: 0, mask: 1 }));
    block_on(async move {
        let mut bio = Bio::write(Sector(1), Buf::zeroed(512));
        device.submit(&mut bio).await.unwrap();
        assert!(bio.data.contiguous().unwrap().iter().all(|&byte| byte == 0));
    });
    assert_eq!(memory.bytes.borrow()[512], 1);
}

#[test]
fn lost_torn_and_misdirected_writes_say_that_all_is_well() {
    let (device, faults, memory) = faulty();
    faults.add(Rule::nth(0, Kind::Write, 0..1, Effect::Lose));
    faults.add(Rule::nth(0, Kind::Write, 2..3, Effect::Tear { sectors: 1 }));
    faults.add(Rule::nth(0, Kind::Write, 8..9, Effect::Misdirect { sectors: 4 }));
    faults.add(Rule::nth(0, Kind::Write, 9..10, Effect::Misdirect { sectors: 40 }));
    block_on(async move {
        device.write(Sector(0), Buf::zeroed(512)).await.unwrap();
        device.write(Sector(2), Buf::zeroed(1024)).await.unwrap();
        device.write(Sector(8), Buf::zeroed(512)).await.unwrap();
        device.write(Sector(9), Buf::zeroed(512)).await.unwrap();
    });
    let zeroed: Vec<_> = (0..16).filter(|n| memory.bytes.borrow()[n * 512] == 0).collect();
    assert_eq!(zeroed, [2, 12]);
}

#[test]
fn a_flush_may_lie_and_rules_can_be_taken_back() {
    let (device, faults, memory) = faulty();
    faults.add(Rule::always(Kind::Flush, 0..0, Effect::Lose));
    let handle = faults.clone();
    block_on(async move {
        device.flush().await.unwrap();
        handle.clear();
        device.flush().await.unwrap();
    });
    assert_eq!((memory.flushes.get(), faults.harmed()), (1, 1));
}

#[test]
fn a_delayed_request_is_done_in_the_end() {
    let (device, faults, memory) = faulty();
    faults.add(Rule::always(Kind::Any, 0..16, Effect::Delay(Duration::from_secs(3))));
    let took = block_on(async move {
        device.write(Sector(0), Buf::zeroed(512)).await.unwrap();
        runtime::now()
    });
    assert_eq!((took.as_secs(), memory.bytes.borrow()[0]), (3, 0));
}

#[test]
fn two_blocks_change_places_on_the_way_in_either_direction() {
    let (device, faults, memory) = faulty();
    let written: Vec<u8> = [1, 2, 3].into_iter().flat_map(|fill| [fill; 512]).collect();
    faults.add(Rule::nth(0, Kind::Write, 0..16, Effect::Swap));
    block_on(async move {
        device.write(Sector(4), Buf::copy_of(&written)).await.unwrap();
        let stored = device.read(Sector(4), 3).await.unwrap();
        let firsts: Vec<u8> = stored.as_slice().chunks(512).map(|block| block[0]).collect();
        assert_eq!(firsts, [2, 1, 3]);
        faults.add(Rule::always(Kind::Read, 0..16, Effect::Swap));
        assert_eq!(device.read(Sector(4), 3).await.unwrap().as_slice(), written);
        assert_eq!(
            device.read(Sector(4), 1).await.unwrap().as_slice(),
            [2; 512],
            "one block stays"
        );
    });
    assert_eq!(memory.bytes.borrow()[4 * 512], 2);
}
