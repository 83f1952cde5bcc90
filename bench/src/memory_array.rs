//! An array with parity whose members are devices in memory.

use anyhow::Context;
use bio::{Buf, Device, Events};
use layers::array::{Array, Found, Logs, Options};
use layers::raid456::{self, Raid456};
use md::geometry::{Geometry, ParityLevel};
use md::shape::Tolerance;
use md::superblock::{ResyncOffset, Time};
use std::rc::Rc;
use units::{SECTOR, Sector, usize_of};

/// Over `members`, of which `member_sectors` are used, full of noise and clean.
pub(crate) async fn array(
    level: ParityLevel,
    members: &[Device],
    member_sectors: u64,
) -> anyhow::Result<Rc<Raid456>> {
    let count = u8::try_from(members.len())?;
    let geometry = Geometry::new(level, LEFT_SYMMETRIC, CHUNK_SECTORS, count.into())?;
    let found = (0..).zip(members).map(|(slot, device): (usize, &Device)| Found {
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
    let array = Array::new(members.len(), found.collect(), None, options);
    let cache_bytes = raid456::CACHE_BYTES;
    let options = raid456::Options { geometry, member_sectors, force: false, cache_bytes };
    let raid = Rc::new(Raid456::new(&array, &options)?);
    let noise = Buf::copy_of(&crate::compute::noise(1 << 20));
    let top = Device::shared(Rc::clone(&raid));
    let end = top.limits().sectors * SECTOR;
    for start in (0..end).step_by(noise.len()) {
        let length = noise.len().min(usize_of(end - start));
        top.write(Sector::containing(start), noise.slice(0..length)).await?;
    }
    top.flush().await.context("filling it")?;
    Ok(raid)
}

const LEFT_SYMMETRIC: u32 = 2;
const CHUNK_SECTORS: u32 = 128;
