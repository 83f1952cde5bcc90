//! The write journal of a scenario's array: read as the stack reads it, and as a life in mode write-back
//! leaves it.

use super::Shape;
use crate::scenario::Joining;
use ::md::journal::{BLOCK_BYTES, BLOCK_SECTORS, Ended, Head, NewRow, Ring, Scan, Seed, Wanted};
use ::md::superblock::{Minor, Superblock};
use bio::{Buf, Device, Events};
use layers::linear::Linear;
use layers::raid456::Journal;
use std::rc::Rc;
use units::{SECTOR, Sector, usize_of};

/// The journal on `top`, whose superblock this is.
pub(super) async fn read(top: &Device, superblock: &Superblock) -> Result<Journal, String> {
    let geometry = superblock.geometry().ok_or("no parity")?.map_err(|why| why.to_string())?;
    let tail = superblock.journal_tail().ok_or("no journal")?;
    let (length, seed) = (Ring::new(superblock.data_size()), Seed::of(superblock.set_uuid()));
    let ring = Linear::new(top.clone(), superblock.data_offset(), length.sectors());
    let ring = Device::new(ring.map_err(|error| error.to_string())?);
    let mut scan = Scan::new(seed, length, tail, (geometry, superblock.size()));
    while let Some(wanted) = scan.wanted() {
        scan.feed(read_ring(&ring, length, wanted).await.as_deref());
    }
    let found = scan.finish();
    match found.ended {
        Ended::Here => Ok(Journal { ring, length, seed, tail, found }),
        Ended::Damaged(damage) => Err(damage.to_string()),
    }
}

async fn read_ring(ring: &Device, length: Ring, wanted: Wanted) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for range in length.ranges(wanted) {
        let part = ring.read(Sector(range.start), range.end - range.start).await.ok()?;
        bytes.extend_from_slice(part.as_slice());
    }
    Some(bytes)
}

impl Shape {
    /// Leaves at home what was never written, and in the journal, as data without parity, that it is zeroes: whoever
    /// does not bring that home gives out what is wrong.
    pub(super) async fn leave_data_alone(self, members: Vec<Device>) -> Result<(), String> {
        let told = |error: bio::IoError| error.to_string();
        let present = members.iter().cloned().map(Some).collect();
        let volume = self.open(present, Joining::Nobody, (Events::none(), Rc::default())).await?;
        for block in CACHED {
            let data = Buf::copy_of(&[0xA5; BLOCK_BYTES]);
            volume.device.write(Sector(block * BLOCK_SECTORS), data).await.map_err(told)?;
        }
        (volume.close)().await.map_err(told)?;
        let last = members.len() - 1;
        let device = members[last].clone();
        let present = self.open_member(last, device, Events::none()).await?;
        let mut superblock = present.superblock.clone();
        let Journal { ring, length, seed, tail, found } = read(&present.top, &superblock).await?;
        let geometry = superblock.geometry().ok_or("no parity")?.map_err(|why| why.to_string())?;
        let mut head = Head::behind(seed, length, (tail, &found), 1);
        let mark = head.at();
        let zeroes = [0; BLOCK_BYTES];
        let row = |block: u64| {
            let sector = Sector(block * BLOCK_SECTORS);
            let row = geometry.locate(sector).member_sector;
            NewRow { row, data: vec![(sector, &zeroes[..])], parity: Vec::new() }
        };
        let rows: Vec<NewRow<'_>> = CACHED.into_iter().map(row).collect();
        for record in [&[][..], &rows] {
            let (wanted, bytes) = head.append(record).map_err(|full| full.to_string())?;
            let mut at = 0;
            for range in length.ranges(wanted) {
                let count = usize_of((range.end - range.start) * SECTOR);
                let part = Buf::copy_of(&bytes[at..at + count]);
                at += count;
                ring.write(Sector(range.start), part).await.map_err(told)?;
            }
        }
        superblock.set_journal_tail(mark);
        let at = Minor::V2.super_offset(present.top.limits().sectors).ok_or("too small")?;
        let bytes = Buf::copy_of(&superblock.encode());
        present.top.write(at, bytes).await.map_err(told)?;
        let left = read(&present.top, &superblock).await?.found.rows.data_only().count();
        if left != CACHED.len() {
            return Err(format!("{left} blocks are left alone, not {}", CACHED.len()));
        }
        match present.layer {
            Some(layer) => layer.close().await.map_err(told),
            None => Ok(()),
        }
    }
}

/// Blocks of the volume of which data is left alone: some that share a row.
const CACHED: [u64; 6] = [0, 1, 6, 9, 20, 33];
