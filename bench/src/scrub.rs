//! Area `scrub`: a step of a scrub after the other, on one core, over members in memory.
//!
//! What limits it there is copying out of the members' memory, which a disk's own transfers replace, so
//! the peer is that alone: the same bytes read from the same members. Parity itself is in `compute`.

use crate::measure::{median, processor_time};
use crate::row::{Row, note};
use crate::settings::Settings;
use anyhow::{Context, ensure};
use bio::{Bio, Buf, Device, Events, Scrub, ScrubMode};
use layers::array::{Array, Found, Logs, Options};
use layers::memory::MemoryDevice;
use layers::raid456::{self, Raid456};
use md::geometry::{Geometry, ParityLevel};
use md::shape::Tolerance;
use md::superblock::{ResyncOffset, Time};
use runtime::Runtime;
use std::rc::Rc;
use units::{BlockSize, SECTOR, Sector, usize_of};

/// All rows of the area.
pub(crate) fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let mut rows = Vec::new();
    for (name, level, members) in ARRAYS {
        if settings.wants(name) {
            rows.push(runtime.block_on(row(name, level, members))?);
        }
    }
    Ok(rows)
}

async fn row(name: &str, level: ParityLevel, members: u8) -> anyhow::Result<Row> {
    let (raid, devices) = array(level, members).await.context("the array")?;
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let before = processor_time();
        for step in 0..raid.steps() {
            let found = raid.scrub(step, ScrubMode::Check).await;
            ensure!(found.found.is_empty(), "{:?}", found.found);
        }
        seconds[0].push((processor_time() - before).as_secs_f64());
        let before = processor_time();
        for start in (0..MEMBER_SECTORS).step_by(usize_of(PIECE_SECTORS)) {
            let mut held = Vec::new();
            for device in &devices {
                let mut bio = Bio::read(Sector(start), PIECE_SECTORS);
                device.submit(&mut bio).await?;
                held.push(bio);
            }
        }
        seconds[1].push((processor_time() - before).as_secs_f64());
    }
    raid.close().await?;
    let bytes = u32::from(members) * u32::try_from(MEMBER_SECTORS * SECTOR)?;
    let [ours, peer] = seconds.map(|seconds| f64::from(bytes) / median(seconds) / 1e9);
    note(&format!("{name}: {ours:.2} beside {peer:.2} GB/s"));
    Ok(Row::new(name, ours, ("the members read", Some(peer)), "GB/s"))
}

/// An array of members in memory, full of noise.
async fn array(level: ParityLevel, members: u8) -> anyhow::Result<(Raid456, Vec<Device>)> {
    let geometry = Geometry::new(level, LEFT_SYMMETRIC, CHUNK_SECTORS, members.into())?;
    let device = |_| Device::new(MemoryDevice::new(MEMBER_SECTORS, BlockSize::B4096));
    let devices: Vec<Device> = (0..members).map(device).collect();
    let found = (0..).zip(&devices).map(|(slot, device): (usize, &Device)| Found {
        slot,
        name: format!("m{slot}").into(),
        device: device.clone(),
        data: device.clone(),
        superblock: None,
        logs: Logs::default(),
    });
    let options = Options {
        read_only: false,
        tolerance: Tolerance::Any(level.parity_count()),
        synced: ResyncOffset::Clean,
        events: Events::none(),
        clock: Rc::new(|| Time(0)),
    };
    let array = Array::new(usize::from(members), found.collect(), None, options);
    let cache_bytes = raid456::CACHE_BYTES;
    let member_sectors = MEMBER_SECTORS;
    let options = raid456::Options { geometry, member_sectors, force: false, cache_bytes };
    let raid = Rc::new(Raid456::new(&array, &options)?);
    let noise = Buf::copy_of(&crate::compute::noise(1 << 20));
    let top = Device::shared(Rc::clone(&raid));
    let end = top.limits().sectors * SECTOR;
    for start in (0..end).step_by(noise.len()) {
        let length = noise.len().min(usize_of(end - start));
        top.write(Sector::containing(start), noise.slice(0..length)).await?;
    }
    top.flush().await?;
    drop(top);
    let raid = Rc::try_unwrap(raid).ok().context("nobody else holds it")?;
    Ok((raid, devices))
}

const ARRAYS: [(&str, ParityLevel, u8); 3] = [
    ("RAID 5 4+1", ParityLevel::Raid5, 5),
    ("RAID 6 4+2", ParityLevel::Raid6, 6),
    ("RAID 6 8+2", ParityLevel::Raid6, 10),
];
const LEFT_SYMMETRIC: u32 = 2;
const CHUNK_SECTORS: u32 = 128;
/// Of each member: beyond every cache.
const MEMBER_SECTORS: u64 = 64 << 11;
/// What a step reads of each member.
const PIECE_SECTORS: u64 = 2048;
const ROUNDS: u32 = 9;

const _: () = assert!(MEMBER_SECTORS.is_multiple_of(PIECE_SECTORS));
