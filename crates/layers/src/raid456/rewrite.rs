//! The update of a stripe in which something is damaged or missing: everything that can be known of
//! the rows is gathered and healed first, then each row of blocks is written as its case allows.
//!
//! | the row, with the new data in place | data | parity | the row then is |
//! |---|---|---|---|
//! | all data known | stored | made anew | in sync |
//! | some lost, old bytes of what is written known | stored | corrected by the difference | as it was |
//! | the same, but parity of a member that is there is lost | stored | the known corrected, the lost stale | torn |
//! | some lost, old bytes of what is written lost too | stored | left alone, stale | torn |
//! | written block has no member, some other lost | refused | left alone | as it was |
//!
//! A lost block never becomes readable here but by being written whole: parity is not computed from
//! bytes that nobody vouches for, and from a torn row nothing is reconstructed.
//!
//! Stale parity is recorded as bad where its members have logs with room. Then nothing in the row passes
//! for what it is not, and it is as it was, with parity lost. Else it stays torn. In this order:
//!
//! 1. The row counts as torn, and the superblocks say dirty. Crash: as before the write.
//! 2. The data is stored. Crash: dirty.
//! 3. Stale parity is recorded as bad, durably. Crash: dirty, or what is recorded is true.
//! 4. The row is no longer torn, and the write completes. What was stored may be gone with the power until
//!    it is flushed, and the array says clean only after that.

use super::Inner;
use super::cache::Piece;
use super::columns::{Block, Columns};
use super::content::Content;
use super::heal::Healing;
use super::parity::Equations;
use super::store::Store;
use crate::array::RangeSet;
use bio::IoResult;
use std::ops::Range;
use units::Sector;

/// One row of blocks, what is to be stored and what it then is.
struct Outcome {
    stores: Vec<Store>,
    /// Parity is made from all of the data.
    made_true: bool,
    /// The slots of parity that does not belong to the data any more: with any the row is torn.
    stale: Vec<usize>,
}

impl Inner {
    /// Stores pieces of one stripe with what parity can be made. Called under the stripe's lock and
    /// a write guard.
    pub(super) async fn update_columns(
        &self,
        equations: &Equations,
        pieces: &[Piece],
        fua: bool,
    ) -> IoResult {
        let stripe = equations.stripe;
        let mut touched = RangeSet::default();
        pieces.iter().for_each(|piece| touched.insert(piece.rows.clone()));
        let (mut stores, mut refused, mut torn) = (Vec::new(), Ok(()), Vec::new());
        let mut made_true = RangeSet::default();
        for rows in touched.iter() {
            let columns = self.load(stripe, rows.clone(), false).await;
            let place = Sector(stripe * self.geometry.stripe_sectors());
            let mut columns = columns.map_err(|error| error.kind.at(place))?;
            self.settle(&mut columns, self.healing()).await;
            for index in 0..columns.height() {
                let rows = columns.rows_of(index);
                match self.outcome(&columns, index, pieces) {
                    Ok(outcome) => {
                        stores.extend(outcome.stores);
                        if !outcome.stale.is_empty() {
                            let rows = self.absolute(stripe, &rows);
                            let was_true = self.array.in_sync(&rows);
                            self.tear(rows.clone());
                            torn.extend(was_true.then_some((rows, outcome.stale)));
                        }
                        if outcome.made_true {
                            made_true.insert(rows);
                        }
                    }
                    Err(error) => refused = refused.and(Err(error)),
                }
            }
        }
        if let Err(error) = self.store(stores, fua).await {
            self.mend(equations, touched.iter()).await;
            return Err(error);
        }
        for (rows, stale) in torn {
            if self.disown(&rows, &stale).await {
                self.array.set_in_sync(rows);
            }
        }
        for rows in made_true.iter() {
            self.made_true(self.absolute(stripe, &rows));
        }
        self.forget_told(pieces, stripe);
        refused
    }

    /// After a store that failed: parity is made anew from what the data is now, where all of it
    /// can be had. What cannot be mended stays torn. Called under the stripe's lock and a guard.
    pub(super) async fn mend(&self, equations: &Equations, rows: impl Iterator<Item = Range<u64>>) {
        for rows in rows {
            let Ok(mut columns) = self.load(equations.stripe, rows, false).await else { continue };
            self.settle(&mut columns, Healing::Report).await;
            let nothing = vec![None; equations.data.len()];
            for index in (0..columns.height()).filter(|&index| columns.data_known(index)) {
                let parity = self.parity_anew(&columns, index, &nothing);
                if self.store(parity, false).await.is_ok() {
                    self.made_true(self.absolute(equations.stripe, &columns.rows_of(index)));
                }
            }
        }
    }

    /// Records that parity of `rows` in the slots `stale` is nothing that anybody may be given. Whether
    /// all of it could be.
    async fn disown(&self, rows: &Range<u64>, stale: &[usize]) -> bool {
        let mut all = true;
        for member in stale.iter().flat_map(|&slot| self.array.writers(slot)) {
            all &= member.failed() || member.disown(rows.clone()).await;
        }
        all
    }

    /// The case of one row of blocks.
    fn outcome(&self, columns: &Columns, index: usize, pieces: &[Piece]) -> IoResult<Outcome> {
        let equations = &columns.equations;
        let rows = columns.rows_of(index);
        let new: Vec<Option<Content>> =
            (0..equations.data.len()).map(|strip| self.new_content(pieces, strip, &rows)).collect();
        let known = |slot: usize| columns.state(slot, index).is_known();
        let here = |slot: usize| self.array.is_held(slot);
        let mut stores: Vec<Store> = (new.iter().enumerate())
            .filter_map(|(strip, new)| Some(self.data_store(equations, strip, &rows, new.clone()?)))
            .collect();
        let mut each = new.iter().zip(&equations.data);
        if each.all(|(new, &slot)| new.is_some() || known(slot)) {
            stores.extend(self.parity_anew(columns, index, &new));
            return Ok(Outcome { stores, made_true: true, stale: Vec::new() });
        }
        let written = || new.iter().zip(&equations.data).filter(|(new, _)| new.is_some());
        if let Some((_, &slot)) = written().find(|&(_, &slot)| !here(slot) && !known(slot)) {
            let error = columns.strips.iter().map(|strip| strip.blocks[index]);
            let error = error.filter(|block| !block.is_known()).map(|block| block.error()).next();
            let sector = self.volume_sector(equations, slot, rows.start);
            return Err(error.unwrap_or(bio::IoErrorKind::Protection).at(sector));
        }
        if written().all(|(_, &slot)| known(slot)) {
            let old = (0..columns.strips.len())
                .map(|slot| known(slot).then(|| columns.content(slot, index)))
                .collect();
            stores.extend(self.corrected_parity(equations, &rows, &new, old));
            // Lost parity stays as it was, and may be readable again when its member's fault goes.
            let damaged = |slot| matches!(columns.state(slot, index), Block::Damaged(_));
            let stale = equations.parity().filter(|&slot| damaged(slot)).collect();
            return Ok(Outcome { stores, made_true: false, stale });
        }
        Ok(Outcome { stores, made_true: false, stale: equations.parity().collect() })
    }

    /// Parity of a block row whose data is known, with what is new in its place.
    fn parity_anew(&self, columns: &Columns, index: usize, new: &[Option<Content>]) -> Vec<Store> {
        let equations = &columns.equations;
        let data: Vec<Content> = (new.iter().zip(&equations.data))
            .map(|(new, &slot)| new.clone().unwrap_or_else(|| columns.content(slot, index)))
            .collect();
        let data: Vec<&Content> = data.iter().collect();
        self.new_parity(equations, &columns.rows_of(index), &data)
    }

    /// What is new of a block, if it is written.
    fn new_content(&self, pieces: &[Piece], strip: usize, rows: &Range<u64>) -> Option<Content> {
        let covers = |piece: &&Piece| {
            piece.index == strip && piece.rows.start <= rows.start && rows.end <= piece.rows.end
        };
        Some(pieces.iter().find(covers)?.cut(self.tagging, rows))
    }
}
