//! Area `raid`: writes and reads of arrays with parity over dm-integrity in direct mode, on one core, over
//! members in memory.
//!
//! ```text
//!   a load ---> raid456 ---+---> integrity ---> memory      six of them
//!                          +---> ...
//! ```
//!
//! The peer is what no array is without: the requests to its members, verified and tagged by the same layer,
//! one kind after the other on a volume of its own. A small write reads what it replaces, data and parity, and
//! writes all of them anew; a large one writes whole stripes. Parity and everything else that an array does is
//! the difference.

use crate::load::{self, Action, LOADS, Load, VOLUME_BYTES};
use crate::measure::{median, processor_time};
use crate::memory_array;
use crate::row::{Row, note};
use crate::settings::Settings;
use anyhow::Context;
use bio::{Buf, Device, Events, IoResult};
use checksum::Algorithm;
use integrity::FormatOptions;
use integrity::open::Mode;
use layers::integrity::{Integrity, NewVolume, Options, Wipe};
use layers::memory::MemoryDevice;
use layers::raid456::Raid456;
use md::geometry::ParityLevel;
use runtime::Runtime;
use std::rc::Rc;
use units::{BlockSize, SECTOR};

/// All rows of the area.
pub(crate) fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let mut rows = Vec::new();
    for (array, level, members) in ARRAYS {
        let name = |load: &Load| format!("{array} of direct crc32c 4096, {}", load.name);
        let wanted: Vec<(String, &Load)> = (LOADS.iter().map(|load| (name(load), load)))
            .filter(|(name, load)| !load.is_flushed() && settings.wants(name))
            .collect();
        if !wanted.is_empty() {
            rows.extend(runtime.block_on(measured(level, members, wanted)).context(array)?);
        }
    }
    Ok(rows)
}

async fn measured(
    level: ParityLevel,
    members: u8,
    wanted: Vec<(String, &Load)>,
) -> anyhow::Result<Vec<Row>> {
    let parity = u8::try_from(level.parity_count())?;
    let data = members - parity;
    let mut volumes = Vec::new();
    for _ in 0..members {
        volumes.push(member(VOLUME_BYTES / u64::from(data) + (VOLUME_BYTES >> 8)).await?);
    }
    let devices: Vec<Device> = volumes.iter().map(Integrity::device).collect();
    let member_sectors = VOLUME_BYTES / u64::from(data) / SECTOR;
    let raid: Rc<Raid456> = memory_array::array(level, &devices, member_sectors).await?;
    let top = Device::shared(Rc::clone(&raid));
    let alone = member(VOLUME_BYTES + (VOLUME_BYTES >> 8)).await?;
    load::fill(&alone.device(), &Buf::copy_of(&crate::compute::noise(load::LARGE))).await?;
    let parity = f64::from(parity);
    let mut rows = Vec::new();
    for (name, load) in wanted {
        let (reads, writes) = match (load.action, load.is_small()) {
            (Action::Read, _) => (1.0, 0.0),
            (Action::Write, true) => (1.0 + parity, 1.0 + parity),
            (Action::Write, false) => (0.0, 1.0 + parity / f64::from(data)),
        };
        let mut seconds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            seconds[0].push(seconds_of(load, &top).await?);
            let read = seconds_of(&load.twin(Action::Read), &alone.device()).await?;
            let write = seconds_of(&load.twin(Action::Write), &alone.device()).await?;
            seconds[1].push(reads * read + writes * write);
        }
        let [ours, peer] = seconds.map(|seconds| load.rate(median(seconds)));
        note(&format!("{name}: {ours:.2} beside {peer:.2} {}", load.unit()));
        rows.push(Row::new(&name, ours, (PEER, Some(peer)), load.unit()));
    }
    alone.close().await?;
    drop(top);
    Rc::try_unwrap(raid).ok().context("nobody else holds it")?.close().await?;
    Ok(rows)
}

/// Processor time that one round takes, written out to the members.
async fn seconds_of(load: &Load, device: &Device) -> IoResult<f64> {
    let before = processor_time();
    load.run(device).await?;
    device.flush().await?;
    Ok((processor_time() - before).as_secs_f64())
}

/// A member of dm-integrity in direct mode, every block of it tagged.
async fn member(bytes: u64) -> anyhow::Result<Rc<Integrity>> {
    let sectors = (bytes + bytes / 8 + JOURNAL_BYTES) / SECTOR;
    let memory = Device::new(MemoryDevice::new(sectors, BlockSize::B4096));
    let algorithm = Algorithm::Crc32c;
    let format = FormatOptions {
        journal_sectors: Some(JOURNAL_BYTES / SECTOR),
        ..FormatOptions::new(BlockSize::B4096, 4, [0x5A; 16])
    };
    let new = NewVolume::new(format, algorithm, Wipe::TagsOnly);
    layers::integrity::create(memory.clone(), &new, |_, _| ()).await?;
    let options = Options::new(algorithm, Events::none());
    Ok(Integrity::open(memory, Options { mode: Some(Mode::Direct), ..options }).await?)
}

const PEER: &str = "its members' requests";
const ARRAYS: [(&str, ParityLevel, u8); 2] =
    [("RAID 5 4+1", ParityLevel::Raid5, 5), ("RAID 6 4+2", ParityLevel::Raid6, 6)];
const JOURNAL_BYTES: u64 = 4 << 20;
const ROUNDS: u32 = 5;
