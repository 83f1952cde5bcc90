use super::*;
use crate::array::testing::{
    DATA_OFFSET, DATA_SECTORS, Entry, Kept, Model, Protected, Rig, lies_as_given, profiles, step,
};
use bio::Buf;
use md::superblock::{Level, ResyncOffset};
use proptest::prelude::*;
use runtime::block_on;
use units::{SECTOR_BYTES, u64_of};

const LEVELS: [Level; 2] = [Level::Linear, Level::Raid0];

fn rig(level: Level) -> Rc<Rig> {
    Rc::new(Rig::new(level, 3, true))
}

fn stripes(level: Level) -> Stripes {
    let members = [DATA_SECTORS; 3];
    match level {
        Level::Linear => Stripes::linear(8, &members),
        _ => Stripes::raid0(None, 8, &members),
    }
    .unwrap()
}

fn open(rig: &Rig, level: Level, read_only: bool) -> Rc<Striped> {
    Striped::new(rig.open(&[0, 1, 2], read_only), stripes(level)).unwrap()
}

fn bytes(sector: u64, sectors: u64) -> Vec<u8> {
    let value = |sector: u64| u8::try_from(sector % 251).unwrap();
    (sector..sector + sectors).flat_map(|sector| [value(sector); SECTOR_BYTES]).collect()
}

async fn fill(layer: &Rc<Striped>) {
    let all = bytes(0, layer.limits.sectors);
    layer.device().write(Sector(0), Buf::copy_of(&all)).await.unwrap();
}

#[test]
fn every_sector_is_where_the_geometry_says_and_superblocks_are_left_alone() {
    for level in LEVELS {
        let rig = rig(level);
        let before: Vec<_> = (0..3).map(|disk| rig.superblock(disk)).collect();
        let held = Rc::clone(&rig);
        block_on(async move {
            let layer = open(&held, level, false);
            assert_eq!(layer.limits.sectors, 3 * DATA_SECTORS);
            fill(&layer).await;
            layer.device().flush().await.unwrap();
            for (sector, sectors) in [(0, 768), (5, 30), (255, 2), (767, 1)] {
                let read = layer.device().read(Sector(sector), sectors).await.unwrap();
                assert_eq!(read.as_slice(), bytes(sector, sectors), "{level}");
            }
            let mut zeroes = Bio::write_zeroes(Sector(250), 20, true);
            layer.device().submit(&mut zeroes).await.unwrap();
            let read = layer.device().read(Sector(249), 22).await.unwrap();
            let expected = [bytes(249, 1), vec![0; 20 * SECTOR_BYTES], bytes(270, 1)].concat();
            assert_eq!(read.as_slice(), expected);
            layer.close().await.unwrap();
            let error = layer.device().write(Sector(7), Buf::zeroed(512)).await.unwrap_err();
            assert_eq!(error, IoErrorKind::Unavailable.at(Sector(7)));
        });
        for sector in (0..768).filter(|sector| !(250..270).contains(sector)) {
            let run = stripes(level).locate(Sector(sector));
            let found = rig.disks[run.slot].sector(DATA_OFFSET + run.member_sector.0);
            assert_eq!(found, bytes(sector, 1), "{level} {sector}");
        }
        let after: Vec<_> = (0..3).map(|disk| rig.superblock(disk)).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn what_a_member_cannot_give_is_an_error_for_that_sector_and_told_once() {
    for level in LEVELS {
        let rig = rig(level);
        let held = Rc::clone(&rig);
        block_on(async move {
            let layer = open(&held, level, false);
            fill(&layer).await;
            let run = stripes(level).locate(Sector(300));
            held.disks[run.slot].flip(DATA_OFFSET + run.member_sector.0);
            for _ in 0..2 {
                let error = layer.device().read(Sector(290), 100).await.unwrap_err();
                assert_eq!(error, IoErrorKind::Protection.at(Sector(300)), "{level}");
            }
            assert_eq!(
                layer.device().read(Sector(299), 1).await.unwrap().as_slice(),
                bytes(299, 1)
            );
            let lost: Vec<Sector> = held
                .events
                .borrow()
                .iter()
                .filter(|event| event.kind == EventKind::Lost)
                .map(|event| event.sector)
                .collect();
            assert_eq!(lost, [Sector(300)]);
            assert_eq!(layer.array.missing_count(), 0, "no member is failed for damage");
            // Written whole it is sound again.
            layer.device().write(Sector(300), Buf::copy_of(&bytes(300, 1))).await.unwrap();
            layer.device().read(Sector(290), 100).await.unwrap();
        });
    }
}

#[test]
fn a_scrub_reads_everything_and_lists_what_is_unreadable() {
    for level in LEVELS {
        let rig = rig(level);
        let held = Rc::clone(&rig);
        block_on(async move {
            let layer = open(&held, level, true);
            for sector in [11, 12, 600] {
                let run = stripes(level).locate(Sector(sector));
                held.disks[run.slot]
                    .unreadable
                    .borrow_mut()
                    .insert(DATA_OFFSET + run.member_sector.0);
            }
            assert_eq!((layer.steps(), layer.step_extent(0).sectors), (1, 768));
            let findings = layer.scrub(0, ScrubMode::Repair).await;
            assert_eq!(findings.checked_sectors, 768);
            let one =
                |sector| (Finding::Unreadable, None, Extent { sector: Sector(sector), sectors: 1 });
            assert_eq!(findings.found, [one(11), one(12), one(600)], "{level}");
        });
    }
}

#[test]
fn a_flush_that_failed_ends_writing() {
    let rig = rig(Level::Raid0);
    let held = Rc::clone(&rig);
    block_on(async move {
        let layer = open(&held, Level::Raid0, false);
        fill(&layer).await;
        held.disks[1].flush_error.set(Some(IoErrorKind::Medium));
        assert!(layer.device().flush().await.is_err());
        held.disks[1].flush_error.set(None);
        assert!(layer.device().flush().await.is_err(), "never retried as success");
        assert!(layer.device().write(Sector(0), Buf::zeroed(512)).await.is_err());
        layer.device().read(Sector(0), 768).await.unwrap();
    });
}

#[test]
fn closing_makes_durable_what_was_written() {
    let rig = rig(Level::Raid0);
    let held = Rc::clone(&rig);
    block_on(async move {
        let layer = open(&held, Level::Raid0, false);
        fill(&layer).await;
        layer.close().await.unwrap();
    });
    let log = rig.log.borrow();
    for disk in 0..3 {
        let last = log
            .iter()
            .rposition(|entry| matches!(entry, Entry::Write { disk: d, .. } if *d == disk));
        let flush =
            log.iter().rposition(|entry| matches!(entry, Entry::Flush { disk: d } if *d == disk));
        assert!(last < flush, "disk {disk}");
    }
}

#[test]
fn every_member_is_needed() {
    let rig = rig(Level::Raid0);
    let array = rig.open(&[0, 1, 2], false);
    block_on(async move {
        let error = IoErrorKind::Unavailable.at(Sector(0));
        assert_eq!(
            array.fail(&array.member(1).unwrap(), error).await,
            Err(error),
            "it cannot be spared"
        );
    });
    let assembly = rig.assembly(&[0, 2]);
    assert!(!assembly.cannot_start.is_empty());
}

#[test]
fn blocks_that_would_lie_on_two_members_are_refused() {
    let rig = rig(Level::Raid0);
    let odd = Stripes::raid0(None, 3, &[255; 3]).unwrap();
    assert!(Striped::new(rig.open(&[0, 1, 2], true), odd).is_ok(), "of 512 bytes none does");
    let memory = |slot: usize| {
        let device = Device::new(crate::memory::MemoryDevice::new(256, units::BlockSize::B4096));
        let name = format!("memory{slot}").into();
        let logs = crate::array::Logs::default();
        let superblock = None;
        crate::array::Found { slot, name, device: device.clone(), data: device, superblock, logs }
    };
    let options = crate::array::Options {
        read_only: false,
        tolerance: md::shape::Tolerance::Any(0),
        synced: ResyncOffset::Clean,
        events: bio::Events::none(),
        clock: Rc::new(crate::array::wall_clock),
    };
    let array = |slots| Array::new(slots, (0..2).map(memory).collect(), None, options.clone());
    let shape = |chunk| Stripes::raid0(None, chunk, &[240; 2]).unwrap();
    let refused = Striped::new(array(2), shape(12)).err();
    assert_eq!(refused, Some(StripedError::Unaligned { sectors: 12, block: 4096 }));
    assert!(Striped::new(array(2), shape(24)).is_ok(), "no power of two is needed");
    let missing = Striped::new(array(3), shape(24)).err();
    assert_eq!(missing, Some(StripedError::Missing { slot: 2 }));
}

/// The levels over disks that keep 8 bytes for each sector.
fn keeping(level: Level) -> (Rc<Rig>, Model) {
    let rig = Rc::new(Rig::new(level, 3, true).keeping(true, |_| Kept::Bytes(8)));
    let model = Model::new(open(&rig, level, false).device());
    (rig, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tags_stay_with_their_blocks(steps in proptest::collection::vec(step(), 1..40)) {
        for level in LEVELS {
            let (rig, model) = keeping(level);
            let steps = steps.clone();
            let model = block_on(async move {
                let mut model = model;
                for step in steps {
                    model.step(&step).await;
                }
                model.check().await;
                model
            });
            for (sector, block) in (0..).zip(&model.blocks) {
                let run = stripes(level).locate(Sector(sector));
                let kept = rig.disks[run.slot].kept(DATA_OFFSET + run.member_sector.0);
                assert_eq!(kept, &block[SECTOR_BYTES..], "{level} {sector}");
            }
        }
    }
}

#[test]
fn members_that_keep_different_tags_are_refused_and_named() {
    for level in LEVELS {
        for (tag_sizes, words) in [
            ([8, 8, 16], "disk0 keeps 8 bytes of tag for each 512 bytes and disk2 keeps 16 bytes"),
            ([0, 8, 8], "disk0 keeps no tags and disk1 keeps 8 bytes of tag for each 512 bytes"),
        ] {
            let rig = rig(level).keeping(true, |disk| Kept::Bytes(tag_sizes[disk]));
            let refused = Striped::new(rig.open(&[0, 1, 2], false), stripes(level)).err().unwrap();
            assert!(refused.to_string().starts_with(words), "{refused}");
        }
    }
}

#[test]
fn guard_and_application_tag_reach_the_member_and_the_reference_is_the_members_block() {
    for level in LEVELS {
        for profile in profiles() {
            block_on(async move {
                let rig = Protected::new(profile, 3, DATA_SECTORS, true);
                let layer = Striped::new(rig.open(&[0, 1, 2]), stripes(level)).unwrap();
                let mut model = Model::new(layer.device());
                model.fill().await;
                model.check().await;
                let block = layer.limits.logical_block.sectors();
                for number in 0..model.blocks.len() {
                    let run = stripes(level).locate(Sector(u64_of(number) * block));
                    let member = &rig.members[run.slot];
                    lies_as_given(&model, number, member, run.member_sector).await;
                }
            });
        }
    }
}
