//! A write journal that was found is brought home before anything else is done.
//!
//! # What a crash leaves
//!
//! 1. Complete rows are written home. Crash: again.
//! 2. Members are flushed; a mark is written behind what was found, and behind it what had no parity, again.
//!    Crash: again, for the tail is where it was.
//! 3. The tail points to the mark. Crash: only what had no parity is in the journal.
//! 4. That is written as any write. Crash: as any write's. If the ring is full before all of it is home, the
//!    rest is carried once more, as in 2 and 3.

use super::{Log, Row};
use crate::array::Array;
use crate::array::ordering::MARK;
use crate::raid456::Inner;
use crate::raid456::content::Content;
use crate::raid456::store::Store;
use bio::{Buf, EventKind, IoResult, Segments};
use md::geometry::Geometry;
use md::journal::{BLOCK_SECTORS, Full, NewRow, Place, Rows};
use runtime::join_all;
use std::collections::{BTreeMap, VecDeque};
use units::{Sector, u64_of, usize_of};

/// Data without parity: by rows, all of a row together, since the parity that is logged next is taken to be true
/// with all of it.
#[derive(Clone, Default)]
pub(super) struct Carried {
    rows: VecDeque<CarriedRow>,
    /// How many blocks all of them have.
    blocks: u64,
}

/// Data of one row: sector in the array, and where the journal holds it.
#[derive(Clone)]
struct CarriedRow {
    row: Sector,
    data: Vec<(Sector, Place)>,
}

impl Carried {
    fn of(found: &Rows, geometry: &Geometry) -> Self {
        let (mut rows, mut blocks) = (BTreeMap::<Sector, Vec<(Sector, Place)>>::new(), 0);
        for (sector, place) in found.data_only() {
            let row = geometry.locate(sector).member_sector;
            rows.entry(row).or_default().push((sector, place));
            blocks += 1;
        }
        let rows = rows.into_iter().map(|(row, data)| CarriedRow { row, data });
        Self { rows: rows.collect(), blocks }
    }

    /// The first row is home.
    fn pop(&mut self) {
        let gone = self.rows.pop_front().map_or(0, |row| row.data.len());
        self.blocks -= u64_of(gone);
    }

    /// The stripes of its rows.
    pub(super) fn stripes(&self, chunk_sectors: u64) -> impl Iterator<Item = u64> {
        self.rows.iter().map(move |row| row.row.0 / chunk_sectors)
    }
}

impl Log {
    /// Sectors that it takes to carry this: a mark, and records; none if there is nothing.
    pub(super) fn carry_sectors(&self, carried: &Carried) -> u64 {
        let rows = u64_of(carried.rows.len());
        let blocks = 1 + rows.div_ceil(self.rows_at_once) + carried.blocks;
        if rows == 0 { 0 } else { blocks * BLOCK_SECTORS }
    }

    /// Whether there is room to carry what was found, and then for a row at a time while the rest can be
    /// carried once more.
    ///
    /// # Errors
    /// [`Full`], if not.
    pub(super) fn has_room_to_come_home(&self, geometry: &Geometry) -> Result<(), Full> {
        let found = self.found.borrow();
        let carried = found.as_ref().map(|found| Carried::of(found, geometry)).unwrap_or_default();
        let carry = self.carry_sectors(&carried);
        self.head.borrow().admits_behind_mark(carry.saturating_sub(BLOCK_SECTORS))?;
        let row = (1 + u64_of(geometry.raid_disks())) * BLOCK_SECTORS;
        // A block is kept for the next mark.
        let (needed, free) = (2 * carry + row + BLOCK_SECTORS, self.length.sectors());
        if carry == 0 || needed <= free { Ok(()) } else { Err(Full { needed, free }) }
    }

    /// Writes records of what is carried. Gives where it is then. Called by whoever leads.
    pub(super) async fn carry(&self, array: &Array) -> IoResult<Carried> {
        let mut carried = self.carried.borrow().clone();
        for some in carried.rows.make_contiguous().chunks_mut(usize_of(self.rows_at_once)) {
            let mut rows = Vec::new();
            for one in &*some {
                rows.push(self.row(one).await?);
            }
            let rows: Vec<NewRow<'_>> = rows.iter().map(Row::borrowed).collect();
            let mut at = self.put(array, &rows, MARK).await?.at;
            for (_, place) in some.iter_mut().flat_map(|one| &mut one.data) {
                at = self.length.after(at, BLOCK_SECTORS);
                place.at = at;
            }
        }
        Ok(carried)
    }

    /// A row of it, as it is in the journal.
    async fn row(&self, carried: &CarriedRow) -> IoResult<Row> {
        let mut data = Vec::new();
        for &(sector, place) in &carried.data {
            data.push((sector, self.block(place).await?));
        }
        Ok(Row { row: carried.row, data, parity: Vec::new() })
    }
}

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
        let carried = Carried::of(found, &self.geometry);
        if carried.rows.is_empty() {
            return Ok(());
        }
        log.carried.replace(carried);
        {
            let _lead = log.lead().await;
            log.bring_tail(&self.array).await?;
        }
        let stripe_sectors = self.geometry.stripe_sectors();
        loop {
            let next = log.carried.borrow().rows.front().cloned();
            let Some(next) = next else { return Ok(()) };
            let Row { row, data, .. } = log.row(&next).await?;
            let parts = data.into_iter();
            let parts: Vec<(u64, Content)> =
                parts.map(|(sector, block)| (sector.0 % stripe_sectors, untagged(block))).collect();
            self.write_through(row.0 / self.geometry.chunk_sectors(), &parts).await?;
            log.carried.borrow_mut().pop();
        }
    }
}

fn untagged(data: Buf) -> Content {
    Content { data: data.into(), tags: Segments::default() }
}

/// Blocks that are brought home together: 1 MiB.
const BLOCKS_AT_ONCE: usize = 256;
