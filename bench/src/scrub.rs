//! Area `scrub`: a step of a scrub after the other, on one core, over members in memory; and whole programs on
//! files, beside `btrfs scrub`.
//!
//! What limits it in memory is copying out of the members' memory, which a disk's own transfers replace, so
//! the peer is that alone: the same bytes read from the same members. Parity itself is in `compute`.

use crate::btrfs::Btrfs;
use crate::measure::{median, processor_time};
use crate::memory_array;
use crate::place::Place;
use crate::row::{Row, note};
use crate::settings::Settings;
use anyhow::{Context, ensure};
use bio::{Bio, Device, Scrub, ScrubMode};
use layers::memory::MemoryDevice;
use md::geometry::ParityLevel;
use runtime::Runtime;
use std::rc::Rc;
use std::time::Instant;
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
    if settings.wants(ON_FILES) {
        let place = Place::new(settings)?;
        note(&place.conditions());
        rows.extend(on_files(&place, ON_FILES.to_owned())?);
        if let Some(place) = place.in_memory()? {
            rows.extend(on_files(&place, format!("{ON_FILES} in memory"))?);
        }
    }
    Ok(rows)
}

/// `steadfast scrub` of a RAID 1 of two files with checksums beside `btrfs scrub` of the same: wall-clock time
/// of the whole program, bytes of both copies. None: no btrfs here.
fn on_files(place: &Place, name: String) -> anyhow::Result<Option<Row>> {
    let Some(btrfs) = Btrfs::mount(place)? else { return Ok(None) };
    btrfs.file(place)?;
    let members = place.members(2, place.size_mib + place.size_mib / 32 + 80, "1")?;
    let mut import = place.steadfast();
    import.arg("import").args(&members).arg("--from").arg(place.source());
    place.output(&mut import)?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..place.rounds {
        let start = Instant::now();
        let mut scrub = place.steadfast();
        let said = place.output(scrub.args(["scrub", "--json"]).args(&members))?;
        rates[0].push(megabytes(scrubbed(&said)?)? / start.elapsed().as_secs_f64());
        let start = Instant::now();
        let bytes = btrfs.scrub(place)?;
        rates[1].push(megabytes(bytes)? / start.elapsed().as_secs_f64());
    }
    let [ours, peer] = rates.map(median);
    note(&format!("{name}: {ours:.0} beside {peer:.0} MB/s"));
    Ok(Some(Row::new(name, ours, ("btrfs scrub", Some(peer)), "MB/s")))
}

/// The bytes of all members that a scrub of ours read.
fn scrubbed(report: &str) -> anyhow::Result<u64> {
    let report: serde_json::Value = serde_json::from_str(report)?;
    Ok(report["checked_sectors"].as_u64().context("checked_sectors")? * SECTOR)
}

fn megabytes(bytes: u64) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(bytes / 1000)?) / 1000.0)
}

async fn row(name: &str, level: ParityLevel, members: u8) -> anyhow::Result<Row> {
    let device = |_| Device::new(MemoryDevice::new(MEMBER_SECTORS, BlockSize::B4096));
    let devices: Vec<Device> = (0..members).map(device).collect();
    let raid = memory_array::array(level, &devices, MEMBER_SECTORS).await.context("the array")?;
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
    Rc::try_unwrap(raid).ok().context("nobody else holds it")?.close().await?;
    let bytes = u32::from(members) * u32::try_from(MEMBER_SECTORS * SECTOR)?;
    let [ours, peer] = seconds.map(|seconds| f64::from(bytes) / median(seconds) / 1e9);
    note(&format!("{name}: {ours:.2} beside {peer:.2} GB/s"));
    Ok(Row::new(name, ours, ("the members read", Some(peer)), "GB/s"))
}

const ON_FILES: &str = "RAID 1 of 2 integrity, on files";
const ARRAYS: [(&str, ParityLevel, u8); 3] = [
    ("RAID 5 4+1", ParityLevel::Raid5, 5),
    ("RAID 6 4+2", ParityLevel::Raid6, 6),
    ("RAID 6 8+2", ParityLevel::Raid6, 10),
];
/// Of each member: beyond every cache.
const MEMBER_SECTORS: u64 = 64 << 11;
/// What a step reads of each member.
const PIECE_SECTORS: u64 = 2048;
const ROUNDS: u32 = 9;

const _: () = assert!(MEMBER_SECTORS.is_multiple_of(PIECE_SECTORS));
