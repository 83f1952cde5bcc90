//! Integrity for data that exists, without moving it: everything but the data goes to a metadata
//! device, and the tags are computed from what lies there.
//!
//! ```text
//!   DATA  |......................................|   opened read-only, never written
//!   META  | superblock | journal | tags          |
//!                                  0 ... recalc sector: valid     behind: not yet
//! ```
//!
//! In the order of the steps, for each pair:
//!
//! 1. META's superblock area is zeroed, then the journal is initialised, durable. Crash: META is no
//!    volume; as it is not all zero any more, the command wants `--yes`.
//! 2. The superblock, marked as recalculating from sector 0 on, durable. Crash: the same command goes
//!    on. Whoever else opens META knows that no tag is valid.
//! 3. Tags are written, and after sixteen steps, at the end and when interrupted flushed. Crash: they
//!    lie behind the position on META, and are computed again from the same data.
//! 4. The superblock with the new position, durable. Crash: the old or the new one, both true.
//!
//! A block of DATA that cannot be read keeps whatever tag META has there, which is none of its: it
//! stays unreadable until it is written whole.
//!
//! Blessing what lies there is all that can be done, since nobody knows better; but members of an md
//! array do, so an array is checked first ([`check_array`]).

mod error;
mod prepare;

pub use error::AdoptError;
pub use prepare::{Array, Beginning, check_array, dry_run};

use crate::member::Member;
use bio::{Device, Extent, IoError, IoResult};
use checksum::{Algorithm, BlockTagger, Key};
use integrity::recalculate::Recalculation;
use integrity::{Layout, Run, Superblock};
use layers::integrity::{JournalKeys, Lower, store_superblock};
use prepare::{Prepared, prepare};
use runtime::join_all;
use std::ops::ControlFlow;
use units::{SECTOR, Sector, usize_of};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct AdoptOptions {
    /// The data and its metadata device. A metadata device that does not exist is made, as a file.
    pub pairs: Vec<Pair>,
    /// What tags are made with.
    pub integrity: Algorithm,
    /// Their key, if the algorithm takes one.
    pub integrity_key: Option<Key>,
    /// What the journals are sealed and encrypted with.
    pub journal: JournalKeys,
    /// Bytes of tag; none: the whole digest.
    pub tag_size: Option<u16>,
    /// Bytes of the block that each tag covers.
    pub sector_size: u64,
    /// Bytes of journal; none: 1/128 of the data, at most 64 MiB.
    pub journal_bytes: Option<u64>,
    /// Overwrite what lies on a metadata device, and adopt an array that is not consistent.
    pub yes: bool,
}

/// Data, and where its tags go.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The data.
    pub data: Member,
    /// Superblock, journal and tags.
    pub metadata: Member,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdoptProgress {
    /// Sectors of all data that have their tags.
    pub done: u64,
    /// Of how many.
    pub total: u64,
}

/// What became of one pair.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Data and metadata.
    pub pair: Pair,
    /// Sectors of the volume.
    pub sectors: u64,
    /// How it began.
    pub beginning: Beginning,
    /// Sectors from the start that have their tags now; all of them when it has finished.
    pub done: u64,
    /// Blocks that could not be read in this run, neighbours joined; the first [`LISTED_MAX`] runs.
    pub unreadable: Vec<Extent>,
    /// Sectors in all of them.
    pub unreadable_sectors: u64,
}

impl Adopted {
    /// Whether every block that could be read has its tag.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.done == self.sectors
    }
}

/// Runs of unreadable blocks that are listed for each pair.
pub const LISTED_MAX: usize = 1000;

/// Gives each of the data its tags, one pair after the other. `on_progress` may stop it; the same call
/// goes on later, also after a crash.
///
/// # Errors
/// [`AdoptError`]. What is refused is refused before the first write; after a failure the same call
/// goes on.
pub async fn adopt(
    options: &AdoptOptions,
    on_progress: &mut dyn FnMut(&AdoptProgress) -> ControlFlow<()>,
) -> Result<Vec<Adopted>, AdoptError> {
    let prepared = prepare(options).await?;
    let total = prepared.iter().map(Prepared::sectors).sum();
    // All are begun before the first takes its time: what was begun goes on without a new check.
    let mut works = Vec::new();
    for prepared in prepared {
        works.push(prepared.begin().await?);
    }
    let mut before = 0;
    for work in &mut works {
        let mut tell = |done| on_progress(&AdoptProgress { done: before + done, total });
        work.run(&mut tell).await?;
        if !work.adopted.is_finished() {
            break;
        }
        before += work.adopted.sectors;
    }
    Ok(works.into_iter().map(|work| work.adopted).collect())
}

/// One pair whose tags are being computed.
struct Work {
    lower: Lower,
    superblock: Superblock,
    layout: Layout,
    tagger: BlockTagger,
    journal: JournalKeys,
    adopted: Adopted,
}

impl Work {
    /// Computes tags until all are there or `tell` stops it. Steps 3 and 4.
    async fn run(
        &mut self,
        tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), AdoptError> {
        let mut state = Recalculation::of(&self.superblock).expect("it is marked so");
        let mut stored = state.position();
        while let Some(step) = state.step(&self.layout) {
            if tell(state.position()).is_break() {
                break;
            }
            self.tag(&step).await?;
            if state.advance(&step) {
                self.store(state.position()).await?;
                stored = state.position();
            }
        }
        if stored != state.position() {
            self.store(state.position()).await?;
        }
        if state.is_finished() {
            // There is nothing left to be stopped.
            let _asked = tell(state.position());
        }
        Ok(())
    }

    /// Gives the blocks of `step` their tags. Not durable yet.
    async fn tag(&mut self, step: &Run) -> Result<(), AdoptError> {
        let block = self.layout.block;
        let pieces: Vec<(u64, u64)> = (0..step.sectors)
            .step_by(usize_of(PIECE_SECTORS))
            .map(|offset| (step.data.0 + offset, PIECE_SECTORS.min(step.sectors - offset)))
            .collect();
        let data = self.lower.data();
        let reads =
            pieces.iter().map(|&(at, sectors)| read_blocks(data, at, sectors, block.sectors()));
        let mut tags = Vec::new();
        let mut unreadable = Vec::new();
        for (found, &(at, _)) in join_all(reads).await.into_iter().zip(&pieces) {
            let blocks = found.map_err(|error| self.data_failed(error))?;
            for (sector, bytes) in (at..).step_by(usize_of(block.sectors())).zip(&blocks) {
                tags.push(bytes.as_ref().map(|bytes| {
                    let mut tag = vec![0; self.layout.tag_bytes];
                    // With a metadata device, a sector of the volume is the same one of the data.
                    self.tagger.tags(sector, bytes, &mut tag);
                    tag
                }));
                if bytes.is_none() {
                    unreadable.push(sector);
                }
            }
        }
        unreadable.into_iter().for_each(|sector| self.tell_unreadable(sector));
        let length = tags.len() * self.layout.tag_bytes;
        let tag_bytes = self.layout.tag_bytes;
        let changed = crate::tags::change(&self.lower.metadata, step.tag_byte, length, |stored| {
            for (stored, tag) in stored.chunks_exact_mut(tag_bytes).zip(&tags) {
                if let Some(tag) = tag {
                    stored.copy_from_slice(tag);
                }
            }
        });
        let changed = changed.await;
        changed.map_err(|error| self.metadata_failed(error))
    }

    fn tell_unreadable(&mut self, sector: u64) {
        let sectors = self.layout.block.sectors();
        self.adopted.unreadable_sectors += sectors;
        let listed = &mut self.adopted.unreadable;
        let has_room = listed.len() < LISTED_MAX;
        match listed.last_mut() {
            Some(last) if last.sector.0 + last.sectors == sector => last.sectors += sectors,
            _ if has_room => {
                listed.push(Extent { sector: Sector(sector), sectors });
            }
            _ => {}
        }
    }

    /// The tags below `position` are made durable, and then the superblock says so.
    async fn store(&mut self, position: u64) -> Result<(), AdoptError> {
        let flushed = self.lower.metadata.flush().await;
        flushed.map_err(|error| self.metadata_failed(error))?;
        self.superblock.recalc_sector = position;
        let stored = store_superblock(&self.lower.metadata, &self.superblock, &self.journal).await;
        stored.map_err(|error| {
            let member = self.adopted.pair.metadata.to_string();
            AdoptError::Store { member, error }
        })?;
        self.adopted.done = position;
        Ok(())
    }

    fn data_failed(&self, error: IoError) -> AdoptError {
        AdoptError::Io { member: self.adopted.pair.data.to_string(), error }
    }

    fn metadata_failed(&self, error: IoError) -> AdoptError {
        AdoptError::Io { member: self.adopted.pair.metadata.to_string(), error }
    }
}

/// The blocks of a piece; none for those that cannot be read.
async fn read_blocks(
    data: &Device,
    at: u64,
    sectors: u64,
    spb: u64,
) -> IoResult<Vec<Option<Box<[u8]>>>> {
    match data.read(Sector(at), sectors).await {
        Ok(bytes) => {
            let blocks = bytes.as_slice().chunks_exact(usize_of(spb * SECTOR));
            return Ok(blocks.map(|block| Some(block.into())).collect());
        }
        Err(error) if error.kind.is_damage() => {}
        Err(error) => return Err(error),
    }
    let mut blocks = Vec::new();
    for sector in (at..at + sectors).step_by(usize_of(spb)) {
        match data.read(Sector(sector), spb).await {
            Ok(bytes) => blocks.push(Some(bytes.as_slice().into())),
            Err(error) if error.kind.is_damage() => blocks.push(None),
            Err(error) => return Err(error),
        }
    }
    Ok(blocks)
}

/// Sectors of one read.
const PIECE_SECTORS: u64 = (1 << 20) / SECTOR;
