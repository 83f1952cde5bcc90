use super::*;
use bio::{Buf, Device, Segments};
use proptest::prelude::*;
use runtime::block_on;
use std::rc::Rc;

const TIB_SECTORS: u64 = 1 << 31;

#[test]
fn a_tebibyte_costs_nothing_until_it_is_written() {
    block_on(async {
        let memory = Rc::new(MemoryDevice::new(TIB_SECTORS, BlockSize::B4096));
        let device = Device::shared(Rc::clone(&memory));
        device.write(Sector(TIB_SECTORS - 8), Buf::copy_of(&[7; PAGE])).await.unwrap();
        assert_eq!(memory.stored_bytes(), 4096);
        let found = device.allocation(Sector::ZERO, TIB_SECTORS).await.unwrap();
        let hole = |sectors, hole| Allocation { sectors, hole };
        assert_eq!(found, [hole(TIB_SECTORS - 8, true), hole(8, false)]);
        let mut all = Bio::discard(Sector::ZERO, TIB_SECTORS);
        device.submit(&mut all).await.unwrap();
        assert_eq!(memory.stored_bytes(), 0);
        assert!(device.read(Sector(TIB_SECTORS - 8), 8).await.unwrap().as_slice() == [0; PAGE]);
    });
}

#[test]
fn segments_need_not_be_aligned_to_anything() {
    block_on(async {
        let device = Device::new(MemoryDevice::new(64, BlockSize::B512));
        let bytes: Vec<u8> = (0..6144_u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut data = Buf::copy_of(&bytes);
        let pieces = vec![data.split_off(0), data];
        let mut odd = pieces.into_iter().next().unwrap();
        let tail = odd.split_off(1001);
        device.write(Sector(7), Segments::from(vec![odd, tail])).await.unwrap();
        let pieces = vec![Buf::alloc(3), Buf::alloc(6000), Buf::alloc(141)];
        let mut read = Bio::read_into(Sector(7), pieces);
        device.submit(&mut read).await.unwrap();
        assert_eq!(read.data.iter().count(), 3);
        assert_eq!(read.data.to_single().as_slice(), bytes);
    });
}

proptest! {
    #[test]
    fn it_behaves_like_an_array_of_sectors(
        steps in prop::collection::vec((0u8..3, 0u64..8192, 1u64..600, 1u8..255), 1..40),
    ) {
        block_on(async move {
            let sectors = 8192 + 8;
            let device = Device::new(MemoryDevice::new(sectors, BlockSize::B512));
            let mut model = vec![0_u8; usize_of(Sector(sectors).bytes())];
            for (what, sector, count, fill) in steps {
                let count = count.min(sectors - sector);
                let (from, to) = (Sector(sector).bytes(), Sector(sector + count).bytes());
                let (from, to) = (usize_of(from), usize_of(to));
                let mut bio = match what {
                    0 => Bio::write(Sector(sector), Buf::copy_of(&vec![fill; to - from])),
                    1 => Bio::discard(Sector(sector), count),
                    _ => Bio::write_zeroes(Sector(sector), count, false),
                };
                device.submit(&mut bio).await.unwrap();
                model[from..to].fill(if what == 0 { fill } else { 0 });
            }
            let read = device.read(Sector::ZERO, sectors).await.unwrap();
            assert!(read.as_slice() == model);
            let mut at = 0;
            while at < sectors {
                for run in device.allocation(Sector(at), sectors - at).await.unwrap() {
                    let range = at * SECTOR..(at + run.sectors) * SECTOR;
                    let bytes = &model[usize_of(range.start)..usize_of(range.end)];
                    assert!(!run.hole || bytes.iter().all(|&byte| byte == 0));
                    at += run.sectors;
                }
            }
            assert_eq!(at, sectors);
        });
    }
}
