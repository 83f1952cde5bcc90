//! A write journal that was found is brought home before anything else is done.
//!
//! # What a crash leaves
//!
//! 1. Complete rows are written home. Crash: again.
//! 2. Members are flushed; a mark is written behind what was found, and behind it what had no parity, again.
//!    Crash: again, for the tail is where it was.
//! 3. The tail points to the mark. Crash: only what had no parity is in the journal.
//! 4. That is written as any write. Crash: as any write's.

use super::{Carried, Log, Row};
use crate::raid456::Inner;
use crate::raid456::content::Content;
use crate::raid456::store::Store;
use bio::{Buf, EventKind, IoResult, Segments};
use md::geometry::Geometry;
use md::journal::{BLOCK_SECTORS, Place, Rows};
use runtime::join_all;
use std::collections::BTreeMap;
use units::Sector;

impl Inner {
    /// Brings home what the journal holds.
    pub(in crate::raid456) async fn bring_home(&self) -> IoResult {
        let Some(log) = &self.journal else { return Ok(()) };
        let Some(found) = log.found.take().filter(|found| found.blocks() > 0) else {
            return Ok(());
        };
        self.bring_complete(log, &found).await?;
        self.bring_carried(log, &found).await?;
        let detail = format!("{} blocks of the write journal are home", found.blocks());
        self.array.events().emit_detail(EventKind::JournalReplayed, Sector::ZERO, 0, detail);
        Ok(())
    }

    async fn bring_complete(&self, log: &Log, found: &Rows) -> IoResult {
        let _guard = self.array.begin_write(0..self.member_sectors()).await?;
        let of_slot = |slot| found.of_slot(slot).map(move |(row, place)| (slot, row, place));
        let all: Vec<(usize, Sector, Place)> =
            (0..self.geometry.raid_disks()).flat_map(of_slot).collect();
        for some in all.chunks(BLOCKS_AT_ONCE) {
            let stores = some.iter().map(|&(slot, row, place)| async move {
                let content = untagged(log.block(place).await?);
                Ok(Store { slot, rows: row.0..row.0 + BLOCK_SECTORS, content })
            });
            let stores = join_all(stores).await.into_iter().collect::<IoResult<Vec<Store>>>()?;
            self.store_unlogged(stores, false).await?;
        }
        Ok(())
    }

    async fn bring_carried(&self, log: &Log, found: &Rows) -> IoResult {
        log.carried.borrow_mut().extend(carried(found, &self.geometry));
        if log.carried.borrow().is_empty() {
            return Ok(());
        }
        {
            let _lead = log.lead().await;
            log.bring_tail(&self.array).await?;
        }
        let stripe_sectors = self.geometry.stripe_sectors();
        loop {
            let next = log.carried.borrow().front().cloned();
            let Some(next) = next else { return Ok(()) };
            let Row { row, data, .. } = log.row(&next).await?;
            let parts = data.into_iter();
            let parts: Vec<(u64, Content)> =
                parts.map(|(sector, block)| (sector.0 % stripe_sectors, untagged(block))).collect();
            self.write_through(row.0 / self.geometry.chunk_sectors(), &parts).await?;
            log.carried.borrow_mut().pop_front();
        }
    }
}

/// The data without parity that was found, all of a row together: the parity that is logged next is taken to be
/// true with all of it.
pub(super) fn carried(found: &Rows, geometry: &Geometry) -> impl Iterator<Item = Carried> {
    let mut rows: BTreeMap<Sector, Vec<(Sector, Place)>> = BTreeMap::new();
    for (sector, place) in found.data_only() {
        let row = geometry.locate(sector).member_sector;
        rows.entry(row).or_default().push((sector, place));
    }
    rows.into_iter().map(|(row, data)| Carried { row, data })
}

fn untagged(data: Buf) -> Content {
    Content { data: data.into(), tags: Segments::default() }
}

/// Blocks that are brought home together: 1 MiB.
const BLOCKS_AT_ONCE: usize = 256;
