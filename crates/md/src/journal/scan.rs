//! What a journal holds, found from its tail on. Reading is left to whoever drives the scan.
//!
//! ```text
//!   tail: meta --checksum, place, sequence--> its blocks --checksums--> the next meta ... --> what does not hold
//!                                                                                              |
//!          a later sequence within a few blocks from there: damage; none: the end  <-----------+
//! ```
//! The last thing that was written when the power went may be torn, and was promised to nobody. But
//! if something later holds, either what is damaged was once whole and its loss is the loss of what was
//! promised, or the device reordered what it had not flushed. Nobody can tell, so it is told.

use super::{BLOCK_BYTES, BLOCK_SECTORS, Block, BlockError, Rows, Seed, Senseless};
use crate::geometry::Geometry;
use std::ops::Range;
use units::{SECTOR, u64_of, usize_of};

/// The ring in which a journal lies: whole blocks, in sectors from the start of the device's data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ring {
    sectors: u64,
}

impl Ring {
    /// All whole blocks of so many sectors.
    #[must_use]
    pub const fn new(data_sectors: u64) -> Self {
        Self { sectors: data_sectors / BLOCK_SECTORS * BLOCK_SECTORS }
    }

    /// Its length in sectors.
    #[must_use]
    pub const fn sectors(self) -> u64 {
        self.sectors
    }

    /// The place `sectors` behind `at`.
    #[must_use]
    pub fn after(self, at: u64, sectors: u64) -> u64 {
        let sum = u128::from(at) + u128::from(sectors);
        u64::try_from(sum % u128::from(self.sectors.max(1))).unwrap_or(0)
    }

    /// How far it is from `from` on to `to`; nothing to the same place.
    pub(super) fn between(self, from: u64, to: u64) -> u64 {
        if from <= to { to - from } else { self.sectors - (from - to) }
    }

    /// The one or two ranges that `wanted` is.
    pub fn ranges(self, wanted: Wanted) -> impl Iterator<Item = Range<u64>> {
        let before_end = wanted.sectors.min(self.sectors.saturating_sub(wanted.at));
        let ranges = [wanted.at..wanted.at + before_end, 0..wanted.sectors - before_end];
        ranges.into_iter().filter(|range| !range.is_empty())
    }
}

/// What is to be read next: at most the ring, and over its end if it does not fit before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Where it begins in the ring, in sectors.
    pub at: u64,
    /// How much it is.
    pub sectors: u64,
}

/// What is wrong with a journal that does not simply end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// The tail lies nowhere in the ring.
    #[error("its tail is sector {tail} of {sectors}")]
    Tail {
        /// What the superblock says.
        tail: u64,
        /// The ring.
        sectors: u64,
    },
    /// The first block does not hold: where all the rest is, nobody knows.
    #[error("its first block, at sector {at}, does not hold: {error}")]
    First {
        /// Where it lies.
        at: u64,
        /// What is wrong with it.
        error: BlockError,
    },
    /// Something does not hold and something later does.
    #[error("the block at sector {at} does not hold, and one after it (sequence {later}) does")]
    Middle {
        /// Where the first one lies that does not.
        at: u64,
        /// What holds after it.
        later: u64,
    },
    /// It cannot be read.
    #[error("the block at sector {at} cannot be read")]
    Unreadable {
        /// Where it lies, or the meta block whose it is.
        at: u64,
    },
    /// It holds, and means nothing here.
    #[error("the block at sector {at} makes no sense: {why}")]
    Senseless {
        /// Where its meta block lies.
        at: u64,
        /// What it says.
        why: Senseless,
    },
}

/// How a journal ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Nothing follows, but perhaps what was torn when the power went.
    Here,
    /// What follows is lost.
    Damaged(Damage),
}

/// What a scan found.
#[derive(Clone, Debug)]
pub struct Found {
    /// What is not home, or may not be.
    pub rows: Rows,
    /// How it ended.
    pub ended: Ended,
    /// The sequence of the first meta block; none: there is none.
    pub first: Option<u64>,
    /// Meta blocks that hold.
    pub meta_blocks: u64,
    /// Sectors from the tail to the end.
    pub sectors: u64,
}

enum State {
    /// The next meta block is wanted.
    Meta,
    /// The blocks of this one are.
    Blocks(Block),
    /// Nothing held at the end; whether something does after it, from so many sectors on.
    Ahead {
        sectors: u64,
        unreadable: bool,
    },
    Done,
}

/// A scan in progress: read what [`wanted`](Self::wanted) says, give it to [`feed`](Self::feed), until
/// nothing is wanted any more.
pub struct Scan {
    seed: Seed,
    ring: Ring,
    /// Where the block lies that is next in the sequence.
    at: u64,
    state: State,
    found: Found,
}

impl Scan {
    /// Of the journal in `ring` from `tail` on, of an array of this shape, which uses so many sectors of
    /// each member.
    #[must_use]
    pub fn new(
        seed: Seed,
        ring: Ring,
        tail: u64,
        (geometry, member_sectors): (Geometry, u64),
    ) -> Self {
        let rows = Rows::new(geometry, member_sectors);
        let found = Found { rows, ended: Ended::Here, first: None, meta_blocks: 0, sectors: 0 };
        let mut scan = Self { seed, ring, at: tail, state: State::Meta, found };
        if tail >= ring.sectors || !tail.is_multiple_of(BLOCK_SECTORS) {
            scan.damaged(Damage::Tail { tail, sectors: ring.sectors });
        }
        scan
    }

    /// What is to be read next; none: the scan is done.
    #[must_use]
    pub fn wanted(&self) -> Option<Wanted> {
        match &self.state {
            State::Meta => Some(Wanted { at: self.at, sectors: BLOCK_SECTORS }),
            State::Blocks(block) => Some(Wanted {
                at: self.ring.after(self.at, BLOCK_SECTORS),
                sectors: block.blocks() * BLOCK_SECTORS,
            }),
            State::Ahead { sectors, .. } => {
                let left = (self.ahead_sectors()).saturating_sub(*sectors).min(AHEAD_AT_ONCE);
                Some(Wanted { at: self.ring.after(self.at, *sectors), sectors: left })
            }
            State::Done => None,
        }
    }

    /// Takes what was wanted; none: it cannot be read.
    ///
    /// # Panics
    /// If it is not as much as was wanted, or nothing was.
    pub fn feed(&mut self, bytes: Option<&[u8]>) {
        let wanted = self.wanted().expect("the scan is not done");
        assert!(
            bytes.is_none_or(|bytes| u64_of(bytes.len()) == wanted.sectors * SECTOR),
            "all that was wanted"
        );
        match std::mem::replace(&mut self.state, State::Done) {
            State::Meta => self.feed_meta(bytes),
            State::Blocks(block) => self.feed_blocks(block, bytes),
            State::Ahead { sectors, unreadable } => {
                self.feed_ahead(wanted, bytes, sectors, unreadable);
            }
            State::Done => {}
        }
    }

    /// What was found.
    ///
    /// # Panics
    /// If the scan is not done.
    #[must_use]
    pub fn finish(self) -> Found {
        assert!(self.wanted().is_none(), "the scan is done");
        self.found
    }

    /// The sequence that the next meta block must have, once there was one.
    fn expected(&self) -> Option<u64> {
        self.found.first.map(|first| first.wrapping_add(self.found.meta_blocks))
    }

    fn damaged(&mut self, damage: Damage) {
        self.found.ended = Ended::Damaged(damage);
        self.state = State::Done;
    }

    fn feed_meta(&mut self, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return self.ends_here(None) };
        match (Block::decode(bytes, self.seed), self.expected()) {
            (Ok(block), _) if block.position != self.at => {
                let (found, expected) = (block.position, self.at);
                self.ends_here(Some(BlockError::Position { found, expected }));
            }
            (Ok(block), None) => {
                self.found.first = Some(block.sequence);
                self.begin(block);
            }
            (Ok(block), Some(expected)) if block.sequence == expected => self.begin(block),
            // One of an earlier round.
            (Ok(_), Some(_)) => self.ends_here(Some(BlockError::Named)),
            // What mdadm makes, before any kernel has started it.
            (Err(BlockError::Magic { .. }), None) if self.at == 0 && is_blank(bytes) => {}
            (Err(error), _) => self.ends_here(Some(error)),
        }
    }

    /// A meta block that holds, and is the next.
    fn begin(&mut self, block: Block) {
        let length = (1 + block.blocks()) * BLOCK_SECTORS;
        // A ring that is full comes back to its tail; what would go on there is from before.
        if self.found.sectors + length > self.ring.sectors {
            self.ends_here(Some(BlockError::Named));
        } else if block.blocks() == 0 {
            self.take(&block);
        } else {
            self.state = State::Blocks(block);
        }
    }

    fn feed_blocks(&mut self, block: Block, bytes: Option<&[u8]>) {
        let Some(bytes) = bytes else { return self.ends_here(None) };
        let checksums = block.payloads.iter().flat_map(|payload| match payload {
            super::Payload::Data { checksums, .. } | super::Payload::Parity { checksums, .. } => {
                checksums.as_slice()
            }
            super::Payload::Flush { .. } => &[],
        });
        let mut blocks = bytes.chunks_exact(BLOCK_BYTES).zip(checksums);
        if blocks.all(|(bytes, &checksum)| self.seed.checksum(bytes) == checksum) {
            self.take(&block);
        } else {
            self.ends_here(Some(BlockError::Named));
        }
    }

    /// A meta block that holds with all that is its own.
    fn take(&mut self, block: &Block) {
        let ring = self.ring;
        let mut at = ring.after(self.at, BLOCK_SECTORS);
        for payload in &block.payloads {
            let next = |at| ring.after(at, BLOCK_SECTORS);
            if let Err(why) = self.found.rows.add(payload, at, next) {
                return self.damaged(Damage::Senseless { at: self.at, why });
            }
            at = ring.after(at, payload.blocks() * BLOCK_SECTORS);
        }
        self.at = at;
        self.found.meta_blocks += 1;
        self.found.sectors += (1 + block.blocks()) * BLOCK_SECTORS;
        self.state = State::Meta;
    }

    /// The block at `self.at` does not hold, or one of its own does not; no error: it cannot be read.
    fn ends_here(&mut self, error: Option<BlockError>) {
        let at = self.at;
        // The tail is moved only to what has come home, so it cannot be torn.
        if self.found.meta_blocks == 0 {
            let unreadable = Damage::Unreadable { at };
            self.damaged(error.map_or(unreadable, |error| Damage::First { at, error }));
        } else if self.ahead_sectors() > BLOCK_SECTORS {
            let unreadable = error.is_none();
            self.state = State::Ahead { sectors: BLOCK_SECTORS, unreadable };
        } else if error.is_none() {
            self.damaged(Damage::Unreadable { at });
        }
    }

    /// How far behind the end something later is looked for: as far as the largest meta block with all
    /// that is its own reaches, several times.
    fn ahead_sectors(&self) -> u64 {
        AHEAD_SECTORS.min(self.ring.sectors - self.found.sectors)
    }

    fn feed_ahead(&mut self, wanted: Wanted, bytes: Option<&[u8]>, sectors: u64, unreadable: bool) {
        let expected = self.expected().expect("something held before");
        let blocks = bytes.unwrap_or_default().chunks_exact(BLOCK_BYTES).enumerate();
        let later = blocks.filter_map(|(index, bytes)| {
            let behind = u64_of(index) * BLOCK_SECTORS;
            let block = Block::decode(bytes, self.seed).ok()?;
            // What one could be there that follows, and not from before the ring was begun anew.
            let possible = 1..=(sectors + behind) / BLOCK_SECTORS;
            let follows = possible.contains(&block.sequence.wrapping_sub(expected));
            let there = block.position == self.ring.after(wanted.at, behind);
            (there && follows).then_some(block.sequence)
        });
        if let Some(later) = later.min() {
            return self.damaged(Damage::Middle { at: self.at, later });
        }
        let sectors = sectors + wanted.sectors;
        if sectors < self.ahead_sectors() {
            self.state = State::Ahead { sectors, unreadable };
        } else if unreadable {
            self.damaged(Damage::Unreadable { at: self.at });
        }
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// 16 MiB: a meta block has room for a thousand checksums, so it and its own are at most 4 MiB.
const AHEAD_SECTORS: u64 = 32768;
/// Read at once, in sectors.
const AHEAD_AT_ONCE: u64 = 512;
const _: () = assert!(usize_of(AHEAD_AT_ONCE) >= BLOCK_BYTES / 512);
