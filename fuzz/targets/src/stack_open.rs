//! Whole volumes on damaged members: they heal, or they say what they cannot give; they never lie.
//!
//! A RAID 6 and a RAID 1, both over dm-integrity, are made once. The input flips a few bits on
//! their members, then the volume is opened, as a person would, and read whole. As in
//! [`crate::integrity_volume`] the flips are few enough for CRC-32C to find every one of them.

use crate::input::{Input, flip};
use integrity::layout::DeviceSectors;
use integrity::superblock::SUPERBLOCK_BYTES;
use integrity::{Layout, Superblock};
use runtime::Runtime;
use stack::create::{CreateLevel, CreateOptions, create};
use stack::{Member, OpenOptions, Volume, open};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;
use units::{SECTOR_BYTES, Sector, u64_of, usize_of};

/// The input: which volume and how it is opened, then flips: member and region, place.
pub fn open_damaged(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let made = MADE.get_or_init(|| [CreateLevel::Raid6, CreateLevel::Raid1].map(Made::new));
    let made = &made[usize::from(choice & 1)];
    let mut images = made.images.clone();
    let mut damaged = BTreeSet::new();
    for _ in 0..FLIPS_MAX {
        if input.is_empty() {
            break;
        }
        let (where_to, number) = (input.byte(), input.number());
        let member = usize::from(where_to & 0x0f) % images.len();
        damaged.insert(member);
        let (start, end) = made.regions[usize::from(where_to >> 4) % made.regions.len()];
        flip(&mut images[member][start..end], number);
    }
    let read_only = choice & 2 != 0;
    let mut left_out = 0;
    if choice & 4 != 0 {
        images.remove(usize::from(choice >> 4) % images.len());
        left_out = 1;
    }

    let folder = scratch();
    let members = store(folder.path(), &images);
    let options = OpenOptions { read_only, ..OpenOptions::read_only(members) };
    let found = Runtime::new().expect("a runtime").block_on(async move {
        let volume = open(&options).await.map_err(|error| error.to_string())?;
        let blocks = read_all(&volume).await;
        volume.close().await.expect("its files do not fail");
        Ok::<_, String>(blocks)
    });
    let Ok(found) = found else { return };
    assert_eq!(found.len(), made.content.len(), "the volume has its size");
    for (number, (found, written)) in found.iter().zip(&made.content).enumerate() {
        match found {
            Some(found) => assert!(found == written, "block {number} is not what was written"),
            None => assert!(
                damaged.len() + left_out > made.redundancy,
                "block {number} is an error, and only {damaged:?} are damaged"
            ),
        }
    }
}

type Block = [u8; SECTOR_BYTES];

/// Every block that can be read.
async fn read_all(volume: &Volume) -> Vec<Option<Block>> {
    let device = volume.device();
    let sectors = device.limits().sectors;
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < sectors {
        let piece = PIECE_SECTORS.min(sectors - at);
        match device.read(Sector(at), piece).await {
            Ok(data) => {
                let (whole, _) = data.as_slice().as_chunks();
                blocks.extend(whole.iter().copied().map(Some));
            }
            Err(_) => {
                for sector in at..at + piece {
                    let data = device.read(Sector(sector), 1).await.ok();
                    blocks.push(data.and_then(|data| data.as_slice().first_chunk().copied()));
                }
            }
        }
        at += piece;
    }
    blocks
}

/// A volume as it was closed.
struct Made {
    images: Vec<Vec<u8>>,
    content: Vec<Block>,
    /// Members that may be lost.
    redundancy: usize,
    /// What flips aim at: everything; dm-integrity's superblock; its journal; md's superblock.
    regions: [(usize, usize); 4],
}

static MADE: OnceLock<[Made; 2]> = OnceLock::new();

impl Made {
    fn new(level: CreateLevel) -> Self {
        let (count, redundancy) = if level == CreateLevel::Raid6 { (4, 2) } else { (2, 1) };
        let folder = scratch();
        let paths: Vec<PathBuf> = (0..count).map(|n| path(folder.path(), n)).collect();
        let members: Vec<Member> = paths.iter().cloned().map(Member::Path).collect();
        let content = Runtime::new().expect("a runtime").block_on(make(level, members));
        let read = |path: &PathBuf| std::fs::read(path).expect("the member was made");
        let images: Vec<_> = paths.iter().map(read).collect();
        let regions = regions(&images[0]);
        Self { images, content, redundancy, regions }
    }
}

/// Makes the volume and fills it; gives its content.
async fn make(level: CreateLevel, members: Vec<Member>) -> Vec<Block> {
    let options = CreateOptions {
        member_bytes: Some(MEMBER_BYTES),
        chunk_bytes: 4096,
        sector_size: u64_of(SECTOR_BYTES),
        journal_bytes: Some(64 << 10),
        interleave_sectors: Some(256),
        ..CreateOptions::new(members.clone(), level)
    };
    create(&options, &mut |_, _| ()).await.expect("it can be made");
    let volume = open(&OpenOptions::writable(members)).await.expect("it was made");
    let device = volume.device();
    let mut content = Vec::new();
    for sector in 0..device.limits().sectors {
        let [low, high, ..] = (sector * 37).to_le_bytes();
        let block = if sector % 7 == 3 { [0; SECTOR_BYTES] } else { [low ^ high; SECTOR_BYTES] };
        let written = device.write(Sector(sector), bio::Buf::copy_of(&block)).await;
        written.expect("its files do not fail");
        content.push(block);
    }
    volume.close().await.expect("its files do not fail");
    content
}

fn regions(image: &[u8]) -> [(usize, usize); 4] {
    let superblock = Superblock::decode(image).expect("the member has dm-integrity");
    let device = DeviceSectors::Interleaved(u64_of(image.len() / SECTOR_BYTES));
    let layout = Layout::of(&superblock, device).expect("the member has dm-integrity");
    let byte = |sector: u64| usize_of(sector) * SECTOR_BYTES;
    // The superblock of md 1.2 lies in the volume's sector 8, what is used of it in one sector.
    let md = layout.run(Sector(8), 1).data.0;
    [
        (0, image.len()),
        (0, SUPERBLOCK_BYTES),
        (byte(8), byte(layout.initial_sectors)),
        (byte(md), byte(md + 1)),
    ]
}

fn store(folder: &Path, images: &[Vec<u8>]) -> Vec<Member> {
    let mut members = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let path = path(folder, number);
        std::fs::write(&path, image).expect("the scratch folder takes it");
        members.push(Member::Path(path));
    }
    members
}

fn path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("member-{number}.img"))
}

/// In memory where the system has a place for that.
fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    made.expect("a scratch folder")
}

const MEMBER_BYTES: u64 = 2 << 20;
const PIECE_SECTORS: u64 = 128;
const FLIPS_MAX: usize = 5;
