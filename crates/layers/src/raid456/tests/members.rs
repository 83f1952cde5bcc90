//! Members of other kinds than the test disks: without superblocks, with large blocks, with holes;
//! and many clients at once.

use super::*;
use crate::array::{Array, Found, Logs, Options as ArrayOptions};
use crate::fault::{Effect, Fault, Faults, Kind, Rule};
use crate::memory::MemoryDevice;
use bio::Events;
use md::shape::Tolerance;
use md::superblock::Time;
use units::BlockSize;

const MEMBER_SECTORS: u64 = 1024;

/// A RAID 6 of memory with blocks of 4096 bytes, each member below `above`.
fn in_memory(above: impl Fn(usize, Device) -> Device) -> Rc<Raid456> {
    let members = (0..5).map(|slot| {
        let memory = Device::new(MemoryDevice::new(MEMBER_SECTORS, BlockSize::B4096));
        let device = above(slot, memory);
        let name = format!("memory{slot}").into();
        Found {
            slot,
            name,
            device: device.clone(),
            data: device,
            superblock: None,
            logs: Logs::default(),
        }
    });
    let options = ArrayOptions {
        read_only: false,
        tolerance: Tolerance::Any(2),
        synced: ResyncOffset::Clean,
        events: Events::none(),
        clock: Rc::new(|| Time(0)),
    };
    let array = Array::new(5, members.collect(), None, options);
    let options = Options {
        geometry: geometry(ParityLevel::Raid6, 128, 5),
        member_sectors: MEMBER_SECTORS,
        force: false,
        cache_bytes: CACHE_BYTES,
    };
    Rc::new(Raid456::new(&array, &options).ok().unwrap())
}

#[test]
fn blocks_are_as_large_as_the_largest_of_the_members() {
    runtime::block_on(async {
        let faults: Vec<Faults> = (0..5).map(|_| Faults::default()).collect();
        let raid = in_memory(|slot, memory| Device::new(Fault::new(memory, &faults[slot])));
        let device = Device::shared(Rc::clone(&raid));
        assert_eq!(device.limits().logical_block, BlockSize::B4096);
        assert_eq!(device.limits().preferred_bytes, 3 * 65536);
        let mut content = pattern(1, 0, device.limits().sectors);
        device.write(Sector::ZERO, Buf::copy_of(&content)).await.unwrap();
        for at in [8u64, 120, 384, 1000] {
            let new = pattern(at, at, 16);
            device.write(Sector(at), Buf::copy_of(&new)).await.unwrap();
            content[usize_of(at) * 512..][..new.len()].copy_from_slice(&new);
        }
        device.flush().await.unwrap();
        let unreadable = Effect::Fail(IoErrorKind::Medium);
        faults[1].add(Rule::always(Kind::Read, 64..72, unreadable));
        faults[4].add(Rule::always(Kind::Read, 60..65, unreadable));
        let read = device.read(Sector::ZERO, device.limits().sectors).await.unwrap();
        assert!(read.as_slice() == content);
        let error = device.submit(&mut Bio::read(Sector(1), 8)).await.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::Invalid);
    });
}

#[test]
fn what_was_never_written_is_a_hole() {
    runtime::block_on(async {
        let raid = in_memory(|_, memory| memory);
        let device = Device::shared(Rc::clone(&raid));
        let total = device.limits().sectors;
        let hole = |hole, sectors| Allocation { sectors, hole };
        assert_eq!(device.allocation(Sector::ZERO, total).await.unwrap(), [hole(true, total)]);
        device.write(Sector(400), Buf::copy_of(&pattern(1, 400, 8))).await.unwrap();
        let runs = [hole(true, 384), hole(false, 384), hole(true, total - 768)];
        assert_eq!(device.allocation(Sector::ZERO, total).await.unwrap(), runs);
        device.flush().await.unwrap();
        let first = device.allocation(Sector(200), 300).await.unwrap();
        assert_eq!(first[..1], [hole(true, 184)]);
        device.submit(&mut Bio::discard(Sector(384), 384)).await.unwrap();
        assert_eq!(device.allocation(Sector::ZERO, total).await.unwrap(), [hole(true, total)]);
    });
}

/// Several clients with sectors of their own, interleaved within the same blocks of rows, while
/// sectors go bad and a member leaves. Whoever reads sees what he wrote last.
#[test]
fn clients_do_not_see_each_other() {
    for level in [ParityLevel::Raid5, ParityLevel::Raid6] {
        runtime::block_on(async move {
            let bench = Rc::new(Bench::new(level, 5, true, 32));
            let content = bench.fill().await;
            let clients = (0..6u64).map(|client| {
                let (bench, content) = (Rc::clone(&bench), content.clone());
                runtime::spawn(async move { run_client(&bench, client, content).await })
            });
            let clients: Vec<_> = clients.collect();
            for round in 0..40u64 {
                runtime::sleep(std::time::Duration::from_millis(3)).await;
                bench.rig.disks[2].flip(DATA_OFFSET + round * 5);
                if round == 30 && level == ParityLevel::Raid6 {
                    bench.rig.disks[4].gone.set(true);
                }
            }
            runtime::join_all(clients).await;
            bench.device.flush().await.unwrap();
            assert_eq!(bench.count(|kind| *kind == EventKind::Lost), 0);
            for step in 0..bench.raid.steps() {
                bench.raid.scrub(step, bio::ScrubMode::Repair).await;
            }
            assert_eq!(bench.count(|kind| *kind == EventKind::Inconsistent), 0);
            assert!(level == ParityLevel::Raid6 || bench.parity_is_true());
        });
    }
}

async fn run_client(bench: &Bench, client: u64, mut content: Vec<u8>) {
    let mut state = client + 1;
    for turn in 0..150u64 {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(client * 2 + 1);
        let random = state >> 33;
        let slice = bench.sectors() / 6;
        // Runs of 1 to 4 sectors, dealt to the clients in turn.
        let length = 1 + random % 4;
        let at = (random / 7 % (slice / 4)) * 24 + client * 4;
        if at + length > bench.sectors() {
            continue;
        }
        let place = usize_of(at) * 512..usize_of(at + length) * 512;
        match random / 3 % 8 {
            0..4 => {
                let new = pattern(client * 1000 + turn, at, length);
                bench.write(at, &new).await.unwrap();
                content[place].copy_from_slice(&new);
            }
            4 => {
                let zeroes = &mut Bio::write_zeroes(Sector(at), length, false);
                bench.device.submit(zeroes).await.unwrap();
                content[place].fill(0);
            }
            5 => bench.device.flush().await.unwrap(),
            6 => runtime::sleep(std::time::Duration::from_millis(random % 9)).await,
            _ => assert!(bench.read(at, length).await.unwrap() == content[place], "{at}"),
        }
        assert!(
            bench.read(at, length).await.unwrap()
                == content[usize_of(at) * 512..usize_of(at + length) * 512],
            "client {client}, turn {turn}, sector {at}"
        );
    }
}
