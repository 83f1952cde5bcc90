//! Arrays of the real kernel, whole and with members taken away.

use super::*;
use crate::array::{Array, Found, Logs, Options as ArrayOptions};
use crate::linear::Linear;
use crate::memory::MemoryDevice;
use bio::Events;
use md::assemble::{Candidate, assemble};
use md::shape::Tolerance;
use md::superblock::{Minor, Superblock, Time};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use units::BlockSize;

struct Image {
    superblock: Superblock,
    device: Device,
}

async fn load(name: &str) -> (Vec<Image>, String) {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["name"] == name).unwrap();
    let mut images = Vec::new();
    for file in entry["files"].as_array().unwrap() {
        let file = folder.join(file["file"].as_str().unwrap());
        let raw = Command::new("zstd").arg("-dcq").arg(file).output().unwrap();
        assert!(raw.status.success());
        let sectors = sectors(raw.stdout.len());
        let superblock = Superblock::decode(&raw.stdout[4096..8192], Minor::V2, sectors).unwrap();
        let device = Device::new(MemoryDevice::new(sectors, BlockSize::B512));
        device.write(Sector::ZERO, Buf::copy_of(&raw.stdout)).await.unwrap();
        images.push(Image { superblock, device });
    }
    (images, entry["expect_sha256"].as_str().unwrap().to_owned())
}

fn open(images: &[Image], gone: &[usize]) -> Raid456 {
    let candidates: Vec<Candidate<'_>> = images
        .iter()
        .map(|image| Candidate {
            superblock: &image.superblock,
            device_sectors: image.device.limits().sectors,
        })
        .collect();
    let assembly = assemble(&candidates).unwrap();
    let freshest = &images[assembly.newest].superblock;
    let found = assembly.in_sync().filter(|(slot, _)| !gone.contains(slot));
    let found = found.map(|(slot, member)| {
        let Image { superblock, device } = &images[member];
        let data = Linear::new(device.clone(), superblock.data_offset(), superblock.size());
        Found {
            slot,
            name: format!("disk{slot}").into(),
            device: device.clone(),
            data: Device::new(data.unwrap()),
            superblock: Some(superblock.clone()),
            logs: Logs::default(),
        }
    });
    let geometry = freshest.geometry().unwrap().unwrap();
    let options = ArrayOptions {
        read_only: true,
        tolerance: Tolerance::Any(geometry.level().parity_count()),
        synced: assembly.resync,
        events: Events::none(),
        clock: Rc::new(|| Time(0)),
    };
    let array = Array::new(geometry.raid_disks(), found.collect(), Some(freshest), options);
    let member_sectors = freshest.size();
    let options = Options { geometry, member_sectors, force: false, cache_bytes: CACHE_BYTES };
    Raid456::new(&array, &options).ok().unwrap()
}

async fn digest_of(raid: Raid456) -> String {
    let device = Device::new(raid);
    let mut hasher = Sha256::new();
    let total = device.limits().sectors;
    for at in (0..total).step_by(4096) {
        let data = device.read(Sector(at), 4096.min(total - at)).await.unwrap();
        hasher.update(data.as_slice());
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_raid_5_of_the_kernel_reads_the_same_without_any_one_member() {
    runtime::block_on(async {
        let (images, expected) = load("md-raid5-4-ls-64k").await;
        for gone in [vec![], vec![0], vec![1], vec![2], vec![3]] {
            assert_eq!(digest_of(open(&images, &gone)).await, expected, "without {gone:?}");
        }
    });
}

#[test]
fn a_degraded_raid_5_of_the_kernel_gives_what_was_written_without_its_member() {
    runtime::block_on(async {
        let (images, expected) = load("md-raid5-4-ls-64k-degraded").await;
        assert_eq!(digest_of(open(&images, &[])).await, expected);
    });
}

#[test]
fn a_raid_6_of_the_kernel_reads_the_same_without_any_two_members() {
    runtime::block_on(async {
        let (images, expected) = load("md-raid6-5-ls-64k").await;
        assert_eq!(digest_of(open(&images, &[])).await, expected);
        for a in 0..5 {
            for b in 0..a {
                assert_eq!(digest_of(open(&images, &[a, b])).await, expected, "without {a}, {b}");
            }
        }
    });
}

#[test]
fn the_kernels_parity_is_ours() {
    runtime::block_on(async {
        for name in ["md-raid5-4-ls-64k", "md-raid6-5-ls-64k"] {
            let (images, _) = load(name).await;
            let raid = open(&images, &[]);
            for step in 0..raid.steps() {
                let found = raid.scrub(step, bio::ScrubMode::Check).await;
                assert!(found.found.is_empty(), "{name}: {:?}", found.found);
            }
        }
    });
}
