//! Bytes against a plain array, and damage against what was put there.

use super::super::test_device::TestDevice;
use super::*;
use bio::{IoErrorKind, Op};
use proptest::prelude::*;
use runtime::{block_on, spawn};
use std::rc::Rc;
use units::BlockSize;

const SECTORS: u64 = 256;
const BYTES: u64 = SECTORS * 512;

fn volume(block: BlockSize, max_bytes: u64) -> (TestDevice, Rc<Volume>) {
    let device = TestDevice::new(SECTORS, block, |limits| limits.max_bytes = max_bytes);
    let volume = Volume::new(device.device());
    (device, Rc::new(volume))
}

async fn write(volume: &Volume, offset: u64, bytes: &[u8]) {
    let mut payload = volume.payload(offset, u64_of(bytes.len()));
    payload.body.as_mut_slice().copy_from_slice(bytes);
    volume.write(payload, false).await.unwrap();
}

#[test]
fn a_range_knows_its_blocks() {
    let (_, volume) = volume(BlockSize::B4096, 1 << 20);
    let span = volume.span(4097, 4096);
    assert_eq!(span, Span { start: 4096, end: 12288, head: 1, tail: 4095 });
    assert!(volume.span(4096, 4096).is_whole());
}

#[test]
fn whole_blocks_are_written_without_reading() {
    let (device, volume) = volume(BlockSize::B4096, 1 << 20);
    block_on(async move {
        write(&volume, 4096, &[7; 8192]).await;
        assert!(matches!(device.take_log()[..], [(Op::Write { fua: false }, Sector(8), 16)]));
        write(&volume, 4097, &[8; 1]).await;
        let log = device.take_log();
        assert!(matches!(log[..], [(Op::Read, Sector(8), 8), (Op::Write { .. }, Sector(8), 8)]));
        write(&volume, 4095, &[9; 4098]).await;
        assert_eq!(device.take_log().len(), 3, "first and last block read, all written at once");
    });
}

#[test]
fn writes_to_parts_of_one_block_do_not_lose_each_other() {
    let (device, volume) = volume(BlockSize::B4096, 1 << 20);
    device.yield_times(3);
    let seen = device.clone();
    block_on(async move {
        let tasks: Vec<_> = (0..64u64)
            .map(|n| {
                let volume = Rc::clone(&volume);
                spawn(async move {
                    let byte = u8::try_from(n + 1).unwrap();
                    match n % 8 {
                        // Whole blocks pass each other, but none of those that only change a part.
                        7 => write(&volume, 4096 + n / 8 * 4096, &[byte; 4096]).await,
                        _ => write(&volume, n * 64, &[byte; 64]).await,
                    }
                })
            })
            .collect();
        join_all(tasks).await;
    });
    for n in (0..64usize).filter(|n| n % 8 != 7) {
        let part = &seen.bytes()[n * 64..n * 64 + 64];
        assert!(part.iter().all(|&b| usize::from(b) == n + 1), "part {n}");
    }
}

#[test]
fn a_whole_block_survives_a_partial_write_beside_it() {
    for yields in 0..6 {
        let (device, volume) = volume(BlockSize::B4096, 1 << 20);
        device.yield_times(yields);
        let seen = device.clone();
        block_on(async move {
            let (a, b) = (Rc::clone(&volume), Rc::clone(&volume));
            let part = spawn(async move { write(&a, 100, &[1; 8]).await });
            let whole = spawn(async move { write(&b, 0, &[2; 4096]).await });
            join_all([part, whole]).await;
        });
        let bytes = seen.bytes();
        let rest = bytes[..100].iter().chain(&bytes[108..4096]);
        assert!(rest.clone().all(|&b| b == 2), "the whole block was answered");
    }
}

#[test]
fn requests_larger_than_the_device_takes_are_cut() {
    let (device, volume) = volume(BlockSize::B512, 4096 + 100);
    block_on(async move {
        write(&volume, 10, &[3; 20000]).await;
        let log = device.take_log();
        assert!(log.iter().all(|&(_, _, sectors)| sectors <= 8));
        let read = volume.read(9, 20002).await.unwrap();
        assert_eq!(read.as_slice()[0], 0);
        assert!(read.as_slice()[1..20001].iter().all(|&b| b == 3));
        assert_eq!(read.as_slice()[20001], 0);
    });
}

#[test]
fn trim_touches_whole_blocks_only() {
    let (device, volume) = volume(BlockSize::B4096, 1 << 20);
    block_on(async move {
        device.bytes().fill(1);
        volume.trim(1, 4095).await.unwrap();
        assert!(device.take_log().is_empty());
        volume.trim(1, 3 * 4096).await.unwrap();
        assert!(matches!(device.take_log()[..], [(Op::Discard { .. }, Sector(8), 16)]));
        assert!(device.bytes()[..4096].iter().all(|&b| b == 1));
    });
}

#[test]
fn a_damaged_read_gives_what_is_good_and_where_it_is_not() {
    let (device, volume) = volume(BlockSize::B512, 1 << 20);
    block_on(async move {
        device.bytes().fill(5);
        device.damage([10, 11, 30]);
        let (offset, length) = (512 * 2 + 7, 512 * 40);
        let error = volume.read(offset, length).await.unwrap_err();
        assert_eq!(error, IoErrorKind::Protection.at(Sector(10)));
        let salvage = volume.salvage(offset, length, error).await;
        assert_eq!(salvage.bad.unwrap().0, 5120);
        let good: u64 = salvage.good.iter().map(|(_, buf)| u64_of(buf.len())).sum();
        assert_eq!(good, u64::from(length) - 3 * 512);
        assert_eq!(salvage.good[0].0, offset);
    });
}

/// Any byte; half of them start a block.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![0..BYTES, (0..BYTES / 4096).prop_map(|block| block * 4096)]
}

/// Any length; many of them whole blocks, many shorter than one.
fn span() -> impl Strategy<Value = u64> {
    prop_oneof![1u64..20000, 1u64..600, (1u64..5).prop_map(|blocks| blocks * 4096)]
}

proptest! {
    #[test]
    fn bytes_are_an_array(
        block in 0u8..4, piece in 1u64..20,
        steps in prop::collection::vec((0u8..4, place(), span(), any::<u8>()), 1..30),
    ) {
        let block = BlockSize::from_log2_sectors(block).unwrap();
        let (device, volume) = volume(block, piece * 1000);
        block_on(async move {
            let mut model = vec![0u8; usize_of(BYTES)];
            for (kind, offset, length, byte) in steps {
                let length = length.min(BYTES - offset);
                let range = usize_of(offset)..usize_of(offset + length);
                match kind {
                    0 => {
                        write(&volume, offset, &vec![byte; usize_of(length)]).await;
                        model[range].fill(byte);
                    }
                    1 => {
                        volume.write_zeroes(offset, length, byte % 2 == 0).await.unwrap();
                        model[range].fill(0);
                    }
                    2 => {
                        volume.trim(offset, length).await.unwrap();
                        let size = u64_of(block.bytes());
                        let first = usize_of(offset.next_multiple_of(size));
                        let last = usize_of((offset + length) / size * size);
                        if first < last {
                            model[first..last].fill(0);
                        }
                    }
                    _ => {
                        let read = volume.read(offset, u32::try_from(length).unwrap()).await;
                        assert_eq!(read.unwrap().as_slice(), &model[range]);
                    }
                }
            }
            assert!(*device.bytes() == model);
        });
    }

    #[test]
    fn what_is_salvaged_is_all_that_is_good(
        block in 0u8..4, bad in prop::collection::btree_set(0..SECTORS, 1..40),
        offset in 0..BYTES - 1, length in 1..BYTES,
    ) {
        let block = BlockSize::from_log2_sectors(block).unwrap();
        let (device, volume) = volume(block, 1 << 20);
        let length = length.min(BYTES - offset);
        for (byte, value) in device.bytes().iter_mut().zip((0..251u8).cycle()) {
            *byte = value;
        }
        device.damage(bad.iter().copied());
        let is_bad = move |byte: u64| {
            let first = byte / u64_of(block.bytes()) * block.sectors();
            bad.range(first..first + block.sectors()).next().is_some()
        };
        block_on(async move {
            let Err(error) = volume.read(offset, u32::try_from(length).unwrap()).await else {
                assert!((offset..offset + length).all(|byte| !is_bad(byte)));
                return;
            };
            let salvage = volume.salvage(offset, u32::try_from(length).unwrap(), error).await;
            let mut got = vec![false; usize_of(BYTES)];
            for (at, buf) in &salvage.good {
                let range = usize_of(*at)..usize_of(*at) + buf.len();
                assert_eq!(buf.as_slice(), &device.bytes()[range.clone()]);
                assert!(got[range.clone()].iter().all(|got| !got), "no byte twice");
                got[range].fill(true);
            }
            for byte in 0..BYTES {
                let inside = (offset..offset + length).contains(&byte);
                assert_eq!(got[usize_of(byte)], inside && !is_bad(byte), "byte {byte}");
            }
            let first = (offset..offset + length).find(|&byte| is_bad(byte));
            assert_eq!(salvage.bad.map(|(at, _)| at), first);
        });
    }
}
