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

async fn submit(device: &Device, mut bio: Bio) -> IoResult<Bio> {
    device.submit(&mut bio).await?;
    Ok(bio)
}

async fn tags_of(device: &Device, sector: u64, blocks: usize) -> Vec<u8> {
    let limits = device.limits();
    let sectors = u64_of(blocks) * limits.logical_block.sectors();
    let bio = Bio::read(Sector(sector), sectors).tagged(Buf::alloc(blocks * limits.tag_size));
    submit(device, bio).await.unwrap().tags.into_single().as_slice().to_vec()
}

#[test]
fn what_is_written_without_tags_has_zeroes_for_them() {
    block_on(async {
        let device = Device::new(MemoryDevice::with_metadata(64, BlockSize::B512, 8));
        let tagged =
            || Bio::write(Sector(4), Buf::copy_of(&[1; 2048])).tagged(Buf::copy_of(&[9; 32]));
        let over = [
            Bio::write(Sector(5), Buf::copy_of(&[2; 512])),
            Bio::write_zeroes(Sector(5), 1, false),
            Bio::discard(Sector(5), 1),
        ];
        for bio in over {
            submit(&device, tagged()).await.unwrap();
            assert_eq!(tags_of(&device, 4, 4).await, [9; 32]);
            submit(&device, bio).await.unwrap();
            let expected = [[9; 8], [0; 8], [9; 8], [9; 8]].concat();
            assert_eq!(tags_of(&device, 4, 4).await, expected);
        }
        // A read that asks for none leaves them where they are.
        assert_eq!(device.read(Sector(6), 1).await.unwrap().as_slice(), [1; 512]);
        assert_eq!(tags_of(&device, 6, 1).await, [9; 8]);
    });
}

#[test]
fn tags_that_do_not_fit_are_refused_and_nothing_is_stored() {
    block_on(async {
        let with = Device::new(MemoryDevice::with_metadata(64, BlockSize::B4096, 8));
        let without = Device::new(MemoryDevice::new(64, BlockSize::B4096));
        let data = || Buf::copy_of(&[1; 8192]);
        for length in [1, 7, 8, 15, 17, 24, 128] {
            let bio = Bio::write(Sector(8), data()).tagged(Buf::alloc(length));
            let error = submit(&with, bio).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Invalid.at(Sector(8)), "{length} bytes");
            let bio = Bio::read(Sector(8), 16).tagged(Buf::alloc(length));
            assert_eq!(submit(&with, bio).await.unwrap_err().kind, IoErrorKind::Invalid);
        }
        let bio = Bio::write(Sector(8), data()).tagged(Buf::alloc(16));
        assert_eq!(submit(&without, bio).await.unwrap_err().kind, IoErrorKind::Invalid);
        for bio in [Bio::flush(), Bio::discard(Sector(8), 8), Bio::write_zeroes(Sector(8), 8, true)]
        {
            let bio = bio.tagged(Buf::alloc(8));
            assert_eq!(submit(&with, bio).await.unwrap_err().kind, IoErrorKind::Invalid);
        }
        assert!(
            with.read(Sector::ZERO, 64).await.unwrap().as_slice().iter().all(|&byte| byte == 0)
        );
    });
}

#[test]
fn metadata_costs_nothing_until_it_is_written_and_goes_with_its_blocks() {
    block_on(async {
        let memory = Rc::new(MemoryDevice::with_metadata(TIB_SECTORS, BlockSize::B4096, 64));
        let device = Device::shared(Rc::clone(&memory));
        let bio = Bio::write(Sector(TIB_SECTORS - 8), Buf::copy_of(&[7; PAGE]));
        submit(&device, bio.tagged(Buf::copy_of(&[5; 64]))).await.unwrap();
        assert_eq!(tags_of(&device, TIB_SECTORS - 16, 2).await, [[0; 64], [5; 64]].concat());
        assert!(memory.stored_bytes() < 1 << 16, "{}", memory.stored_bytes());
        submit(&device, Bio::discard(Sector::ZERO, TIB_SECTORS)).await.unwrap();
        assert_eq!(memory.stored_bytes(), 0);
        assert_eq!(tags_of(&device, TIB_SECTORS - 16, 2).await, [0; 128]);
    });
}

proptest! {
    #[test]
    fn metadata_behaves_like_an_array_of_tags(
        steps in prop::collection::vec((0u8..3, 0u64..2000, 1u64..1300, 1u8..255), 1..30),
        tag_size in 1usize..20,
        cut in 0usize..20_000,
    ) {
        block_on(async move {
            let blocks = 2000;
            let device =
                Device::new(MemoryDevice::with_metadata(blocks, BlockSize::B512, tag_size));
            let mut model = vec![0_u8; usize_of(blocks) * tag_size];
            for (what, block, count, fill) in steps {
                let count = count.min(blocks - block);
                let range = usize_of(block) * tag_size..usize_of(block + count) * tag_size;
                let data = Buf::alloc(usize_of(Sector(count).bytes()));
                let bio = match what {
                    0 => {
                        let mut tags = Segments::from(Buf::copy_of(&vec![fill; range.len()]));
                        let tail = tags.split_off(cut.min(range.len()));
                        let pieces: Vec<Buf> = tags.into_iter().chain(tail).collect();
                        Bio::write(Sector(block), data).tagged(pieces)
                    }
                    1 => Bio::write(Sector(block), data),
                    _ => Bio::discard(Sector(block), count),
                };
                submit(&device, bio).await.unwrap();
                model[range].fill(if what == 0 { fill } else { 0 });
            }
            assert!(tags_of(&device, 0, usize_of(blocks)).await == model);
        });
    }

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
