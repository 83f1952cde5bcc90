//! Area `integrity`: the layer itself, on one core, over a device in memory.
//!
//! ```text
//!   a load ---+---> integrity ---> what is written is counted ---> memory
//!             +-------------------------------------------------> memory
//! ```
//!
//! No disk, no socket and no second core hide anything: what the layer costs is what is seen. The
//! same loads on bare memory, in turn with ours, say what there is to be had. A kind of volume is a
//! line in `VOLUMES`, a load is a line in `LOADS`; each is measured on each.

mod counting;

use crate::load::{self, Action, LOADS, Load, VOLUME_BYTES};
use crate::measure::{median, processor_time};
use crate::row::{Row, note};
use crate::settings::Settings;
use anyhow::Context;
use bio::{Buf, Device, Events, IoResult};
use checksum::{Algorithm, Key};
use counting::Counting;
use integrity::FormatOptions;
use integrity::open::Mode;
use layers::integrity::{Integrity, NewVolume, Options, Wipe};
use layers::memory::MemoryDevice;
use runtime::Runtime;
use std::rc::Rc;
use units::{BlockSize, SECTOR};

/// All rows of the area.
pub(crate) fn rows(settings: &Settings) -> anyhow::Result<Vec<Row>> {
    let runtime = Runtime::new()?;
    let mut rows = Vec::new();
    for kind in VOLUMES {
        let name = |load: &Load| format!("{}, {}", kind.name, load.name);
        let wanted: Vec<(String, &Load)> = (LOADS.iter().map(|load| (name(load), load)))
            .filter(|(name, _)| settings.wants(name))
            .collect();
        if !wanted.is_empty() {
            rows.extend(runtime.block_on(kind.rows(wanted))?);
        }
    }
    Ok(rows)
}

/// A kind of volume: how it is made, and how it is opened.
struct Kind {
    name: &'static str,
    block: BlockSize,
    algorithm: Algorithm,
    /// What differs from the defaults.
    options: fn(Options) -> Options,
}

const VOLUMES: &[Kind] = &[
    Kind {
        name: "journal crc32c 4096",
        block: BlockSize::B4096,
        algorithm: Algorithm::Crc32c,
        options: |options| options,
    },
    Kind {
        name: "journal crc32c 512",
        block: BlockSize::B512,
        algorithm: Algorithm::Crc32c,
        options: |options| options,
    },
    Kind {
        name: "journal hmac-sha256 4096",
        block: BlockSize::B4096,
        algorithm: Algorithm::HmacSha256,
        options: |options| options,
    },
    Kind {
        name: "direct crc32c 4096",
        block: BlockSize::B4096,
        algorithm: Algorithm::Crc32c,
        options: |options| Options { mode: Some(Mode::Direct), ..options },
    },
    Kind {
        name: "bitmap crc32c 4096",
        block: BlockSize::B4096,
        algorithm: Algorithm::Crc32c,
        options: |options| Options { mode: Some(Mode::Bitmap), ..options },
    },
];

impl Kind {
    async fn rows(&self, wanted: Vec<(String, &Load)>) -> anyhow::Result<Vec<Row>> {
        let raw = Device::new(MemoryDevice::new(VOLUME_BYTES / SECTOR, self.block));
        load::fill(&raw, &Buf::copy_of(&crate::compute::noise(load::LARGE))).await?;
        let (volume, lower) = self.volume().await.context(self.name)?;
        let mut rows = Vec::new();
        for (name, load) in wanted {
            let (written, count) = (lower.written_bytes(), u64::from(ROUNDS) * load.bytes());
            let mut seconds = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                seconds[0].push(seconds_of(load, &volume.device()).await.context("ours")?);
                seconds[1].push(seconds_of(load, &raw).await.context("the peer")?);
            }
            let [ours, peer] = seconds.map(|seconds| load.rate(median(seconds)));
            note(&format!("{name}: {ours:.2} beside {peer:.2} {}", load.unit()));
            rows.push(Row::new(&name, ours, (PEER, Some(peer)), load.unit()));
            if load.action == Action::Write {
                let written = ratio(lower.written_bytes() - written, count);
                let name = format!("{name}, written");
                rows.push(Row::new(name, written, (PEER, Some(1.0)), "B/B"));
            }
        }
        volume.close().await?;
        Ok(rows)
    }

    /// A volume full of noise with nothing in its journal, and what counts below it.
    async fn volume(&self) -> anyhow::Result<(Rc<Integrity>, Rc<Counting>)> {
        let sectors = (VOLUME_BYTES + VOLUME_BYTES / 8 + JOURNAL_BYTES) / SECTOR;
        let memory = Device::new(MemoryDevice::new(sectors, self.block));
        let lower = Rc::new(Counting::new(memory));
        let device = Device::shared(Rc::clone(&lower));
        let tag_size = u16::try_from(self.algorithm.digest_len())?;
        let format = FormatOptions {
            journal_sectors: Some(JOURNAL_BYTES / SECTOR),
            ..FormatOptions::new(self.block, tag_size, [0x5A; 16])
        };
        let key = self.algorithm.is_keyed().then(|| Key::new(KEY)).transpose()?;
        let new = NewVolume::new(format, self.algorithm, Wipe::TagsOnly);
        let new = NewVolume { key: key.clone(), ..new };
        layers::integrity::create(device.clone(), &new, |_, _| ()).await?;
        let open = || {
            let options = Options::new(self.algorithm, Events::none());
            let options = Options { integrity_key: key.clone(), ..options };
            Integrity::open(device.clone(), (self.options)(options))
        };
        let volume = open().await?;
        let noise = Buf::copy_of(&crate::compute::noise(load::LARGE));
        load::fill(&volume.device(), &noise).await?;
        volume.close().await?;
        Ok((open().await?, lower))
    }
}

/// Processor time that one round of `load` takes, with all that it leaves to other tasks meanwhile.
async fn seconds_of(load: &Load, device: &Device) -> IoResult<f64> {
    let before = processor_time();
    load.run(device).await?;
    Ok((processor_time() - before).as_secs_f64())
}

fn ratio(a: u64, b: u64) -> f64 {
    std::time::Duration::from_nanos(a).as_secs_f64()
        / std::time::Duration::from_nanos(b).as_secs_f64()
}

/// Of algorithms that take one.
const KEY: &[u8] = &[0xC3; 32];
const PEER: &str = "memory";
/// What members of 8 GiB and more get by default.
const JOURNAL_BYTES: u64 = 64 << 20;
const ROUNDS: u32 = 9;
