use super::*;
use crate::memory::MemoryDevice;
use runtime::block_on;
use units::BlockSize;

const SEED: [u8; 16] = [3; 16];

fn seed() -> Seed {
    Seed::of(md::superblock::Uuid(SEED))
}

/// So many sectors, each filled with its number plus `add`.
async fn numbered(sectors: u8, add: u8) -> Device {
    let device = Device::new(MemoryDevice::new(sectors.into(), BlockSize::B512));
    for sector in 0..sectors {
        let data = Buf::copy_of(&[sector + add; 512]);
        device.write(Sector(sector.into()), data).await.unwrap();
    }
    device
}

/// 64 sectors, those from 16 to 24 and from 24 to 32 from sectors 8 and 0 of a ring; 48 to 56 are there, too,
/// with a checksum that is not theirs.
async fn overlay() -> Device {
    let (lower, ring) = (numbered(64, 0).await, numbered(24, 100).await);
    let mut blocks = Vec::new();
    for (sector, at) in [(24, 0), (16, 8), (48, 16)] {
        let block = ring.read(Sector(at), 8).await.unwrap();
        let checksum = seed().checksum(block.as_slice()) ^ u32::from(at == 16);
        blocks.push((Sector(sector), Place { at, checksum }));
    }
    Device::new(Overlay::new(lower, ring, seed(), blocks.into_iter()))
}

fn expected(sector: u64) -> u8 {
    let number = match sector {
        16..24 => sector - 16 + 8 + 100,
        24..32 => sector - 24 + 100,
        _ => sector,
    };
    u8::try_from(number).unwrap()
}

#[test]
fn each_sector_comes_from_the_ring_if_it_is_there() {
    block_on(async {
        let device = overlay().await;
        for from in 0..48 {
            for count in 1..=48 - from {
                let read = device.read(Sector(from), count).await.unwrap();
                for (sector, bytes) in (from..).zip(read.as_slice().chunks(512)) {
                    assert_eq!(bytes, [expected(sector); 512], "{sector} of {count} from {from}");
                }
            }
        }
    });
}

#[test]
fn what_rotted_in_the_ring_is_an_error_and_never_what_is_below_it() {
    block_on(async {
        let device = overlay().await;
        for (from, count, at) in [(48, 1, 48), (50, 2, 50), (40, 24, 48), (55, 9, 55)] {
            let error = device.read(Sector(from), count).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Protection.at(Sector(at)));
        }
        device.read(Sector(56), 8).await.unwrap();
    });
}

#[test]
fn nothing_is_written() {
    block_on(async {
        let device = overlay().await;
        let refused = device.write(Sector(9), Buf::zeroed(1024)).await.unwrap_err();
        assert_eq!(refused, IoErrorKind::ReadOnly.at(Sector(9)));
        device.flush().await.unwrap();
    });
}

#[test]
fn what_lies_in_the_ring_is_no_hole() {
    block_on(async {
        let (lower, ring) = (MemoryDevice::new(64, BlockSize::B512), numbered(8, 1).await);
        let place = Place { at: 0, checksum: 0 };
        let blocks = [(Sector(16), place)].into_iter();
        let device = Device::new(Overlay::new(Device::new(lower), ring, seed(), blocks));
        let mut sector = 0;
        let mut stored = Vec::new();
        while sector < 64 {
            for run in device.allocation(Sector(sector), 64 - sector).await.unwrap() {
                stored.extend((sector..sector + run.sectors).filter(|_| !run.hole));
                sector += run.sectors;
            }
        }
        assert!((16..24).all(|sector| stored.contains(&sector)), "{stored:?}");
    });
}
