//! A dm-integrity volume on damaged bytes: errors, never a panic, never what nobody wrote.
//!
//! Two images are made once: one closed cleanly, one whose journal holds the only copy of the
//! newest data. The input flips bits in one of them; then it is opened and read whole. CRC-32C
//! finds every damage of up to five bits in a block of 512 bytes with its tag and salt (its
//! minimum distance is six up to 5243 bits: Koopman, "32-Bit Cyclic Redundancy Codes for Internet
//! Applications", 2002), so with so few flips this is a promise and not a probability.

use crate::input::{Input, flip};
use bio::{Buf, Device, Events};
use checksum::Algorithm;
use integrity::layout::FormatOptions;
use integrity::superblock::AREA_SECTORS;
use layers::integrity::{Integrity, NewVolume, Options, Wipe, create};
use layers::memory::MemoryDevice;
use std::rc::Rc;
use std::sync::OnceLock;
use units::{BlockSize, SECTOR_BYTES, Sector, u64_of, usize_of};

/// The input: which image and how it is opened, then flips of four bytes each.
pub fn volume(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let images = IMAGES.get_or_init(Images::make);
    let crashed = choice & 1 != 0;
    let mut image = if crashed { images.crashed.clone() } else { images.clean.clone() };
    let mut damage = Damage { superblock: false, journal: false };
    for _ in 0..FLIPS_MAX {
        if input.is_empty() {
            break;
        }
        let place = flip(&mut image, input.number());
        if place < usize_of(AREA_SECTORS) * SECTOR_BYTES {
            damage.superblock = true;
        } else if place < images.journal_end {
            damage.journal = true;
        }
    }
    let read_only = choice & 2 != 0;
    let newest = if crashed { &images.version_two } else { &images.version_one };
    let found = runtime::block_on(async move { look(image, read_only).await });
    let Some(found) = found else { return };
    for (number, block) in found.iter().enumerate() {
        let Some(block) = block else { continue };
        // A superblock is not protected by anything: with a damaged one, other blocks are read.
        // A flipped sector number in the journal hides that its block was written there.
        let known = damage.superblock
            || block[..] == newest[number]
            || (damage.journal && block[..] == images.version_one[number])
            || (damage.journal && block.iter().all(|byte| *byte == 0));
        assert!(known, "block {number} holds what was never written there");
    }
}

struct Damage {
    superblock: bool,
    journal: bool,
}

type Block = [u8; SECTOR_BYTES];

/// Every block of the volume in `image`, those that can be read, after a second look at those
/// that cannot; none if it does not open.
async fn look(image: Vec<u8>, read_only: bool) -> Option<Vec<Option<Block>>> {
    let device = memory(&image).await;
    let volume = Integrity::open(device, Options { read_only, ..options() }).await.ok()?;
    let top = volume.device();
    let mut blocks = Vec::new();
    let sectors = top.limits().sectors.min(SECTORS);
    let step = top.limits().logical_block.sectors();
    for sector in (0..sectors / step).map(|block| block * step) {
        let read = top.read(Sector(sector), step).await;
        for piece in 0..usize_of(step) {
            let bytes = read.as_ref().ok().map(|buf| &buf.as_slice()[piece * SECTOR_BYTES..]);
            blocks.push(bytes.and_then(|bytes| bytes.first_chunk().copied()));
        }
    }
    if !read_only {
        // What is written whole is readable again, whatever it was before.
        let written = Buf::copy_of(&vec![0x5a; usize_of(step) * SECTOR_BYTES]);
        if top.write(Sector::ZERO, written.clone()).await.is_ok() {
            let read = top.read(Sector::ZERO, step).await.expect("it was just written");
            assert_eq!(read.as_slice(), written.as_slice());
        }
        let _ = volume.close().await;
    }
    Some(blocks)
}

async fn memory(image: &[u8]) -> Device {
    let sectors = u64_of(image.len() / SECTOR_BYTES);
    let device = Device::new(MemoryDevice::new(sectors, BlockSize::B512));
    device.write(Sector::ZERO, Buf::copy_of(image)).await.expect("memory takes it");
    device
}

/// What is flipped, and what was written.
struct Images {
    clean: Vec<u8>,
    crashed: Vec<u8>,
    version_one: Vec<Block>,
    version_two: Vec<Block>,
    journal_end: usize,
}

static IMAGES: OnceLock<Images> = OnceLock::new();

impl Images {
    fn make() -> Self {
        runtime::block_on(async {
            let device = Device::new(MemoryDevice::new(SECTORS, BlockSize::B512));
            let options = FormatOptions {
                journal_sectors: Some(SECTORS / 2),
                interleave_sectors: Some(64),
                ..FormatOptions::new(BlockSize::B512, 4, [0xa5; 16])
            };
            let new = NewVolume::new(options, Algorithm::Crc32c, Wipe::Zeroes);
            let (_, layout) = create(device.clone(), &new, |_, _| ()).await.expect("it fits");
            let blocks = usize_of(layout.provided_sectors);
            let mut version_one = vec![[0; SECTOR_BYTES]; blocks];
            let volume = open(&device).await;
            for number in (0..blocks).step_by(3) {
                version_one[number] = pattern(number, 1);
                write(&volume, number, &version_one[number]).await;
            }
            volume.close().await.expect("memory does not fail");
            let clean = content(&device).await;

            let mut version_two = version_one.clone();
            let volume = open(&device).await;
            for number in (0..blocks).step_by(5) {
                version_two[number] = pattern(number, 2);
                write(&volume, number, &version_two[number]).await;
            }
            volume.device().flush().await.expect("memory does not fail");
            // Nobody closes it, and nothing was written home yet: the power went.
            let crashed = content(&device).await;
            let journal_end = usize_of(layout.initial_sectors) * SECTOR_BYTES;
            Self { clean, crashed, version_one, version_two, journal_end }
        })
    }
}

async fn open(device: &Device) -> Rc<Integrity> {
    Integrity::open(device.clone(), options()).await.expect("it was made just now")
}

/// Little memory: all of it is made anew for every input.
fn options() -> Options {
    Options {
        memory_bytes: 256 << 10,
        tag_cache_bytes: 64 << 10,
        ..Options::new(Algorithm::Crc32c, Events::none())
    }
}

async fn write(volume: &Rc<Integrity>, number: usize, block: &Block) {
    let written = volume.device().write(Sector(u64_of(number)), Buf::copy_of(block)).await;
    written.expect("memory does not fail");
}

async fn content(device: &Device) -> Vec<u8> {
    let all = device.read(Sector::ZERO, SECTORS).await.expect("memory does not fail");
    all.as_slice().to_vec()
}

fn pattern(number: usize, version: u8) -> Block {
    let mut block = [version; SECTOR_BYTES];
    for (index, byte) in block.iter_mut().enumerate() {
        let [low, high, ..] = (number * 31 + index * 7).to_le_bytes();
        *byte = low ^ high ^ version.wrapping_mul(0x33);
    }
    block
}

/// Of the device: room for a journal of one section and a few runs of data.
const SECTORS: u64 = 1024;
const FLIPS_MAX: usize = 5;
