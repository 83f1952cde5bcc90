use super::*;
use crate::memory::MemoryDevice;
use bio::Buf;
use runtime::block_on;
use units::BlockSize;

/// 64 sectors, each filled with its number plus `add`.
async fn numbered(add: u8) -> Device {
    let device = Device::new(MemoryDevice::new(64, BlockSize::B512));
    for sector in 0..64_u8 {
        let data = Buf::copy_of(&[sector + add; 512]);
        device.write(Sector(sector.into()), data).await.unwrap();
    }
    device
}

async fn sides(position: u64) -> Device {
    let (below, above) = (numbered(0).await, numbered(100).await);
    Device::new(Sides::new(below, above, Sector(position), 48))
}

#[test]
fn each_sector_comes_from_its_side() {
    block_on(async {
        let device = sides(10).await;
        for (from, count) in [(0, 10), (10, 38), (9, 1), (10, 1), (3, 30), (0, 48)] {
            let read = device.read(Sector(from), count).await.unwrap();
            for (sector, bytes) in (from..).zip(read.as_slice().chunks(512)) {
                let expected = u8::try_from(sector).unwrap() + if sector < 10 { 0 } else { 100 };
                assert_eq!(bytes, [expected; 512], "sector {sector} of {count} from {from}");
            }
        }
    });
}

#[test]
fn a_position_at_either_end_leaves_one_side() {
    block_on(async {
        for (position, first) in [(0, 100), (48, 0), (1000, 0)] {
            let read = sides(position).await.read(Sector::ZERO, 48).await.unwrap();
            assert_eq!((read.as_slice()[0], read.as_slice()[47 * 512]), (first, first + 47));
        }
    });
}

#[test]
fn nothing_is_written() {
    block_on(async {
        let device = sides(10).await;
        let refused = device.write(Sector(9), Buf::zeroed(1024)).await.unwrap_err();
        assert_eq!(refused, IoErrorKind::ReadOnly.at(Sector(9)));
        device.flush().await.unwrap();
    });
}

#[test]
fn allocation_ends_at_the_position() {
    block_on(async {
        let runs = sides(10).await.allocation(Sector(2), 40).await.unwrap();
        assert_eq!(runs.iter().map(|run| run.sectors).sum::<u64>(), 8);
    });
}

#[test]
fn tags_come_with_their_blocks_from_their_side() {
    block_on(async {
        let kept = |add: u8| async move {
            let device = Device::new(MemoryDevice::with_metadata(64, BlockSize::B512, 2));
            for sector in 0..64_u8 {
                let mut write = Bio::write(Sector(sector.into()), Buf::zeroed(512))
                    .tagged(Buf::copy_of(&[sector, add]));
                device.submit(&mut write).await.unwrap();
            }
            device
        };
        let device = Device::new(Sides::new(kept(1).await, kept(2).await, Sector(10), 48));
        let mut read = Bio::read(Sector(8), 4).tagged(Buf::alloc(8));
        device.submit(&mut read).await.unwrap();
        assert_eq!(read.tags.into_single().as_slice(), [8, 1, 9, 1, 10, 2, 11, 2]);
    });
}
