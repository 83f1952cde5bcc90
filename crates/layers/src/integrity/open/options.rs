//! What somebody wants of a volume.

use crate::integrity::codec::JournalKeys;
use ::integrity::open::Mode;
use bio::Events;
use checksum::{Algorithm, Key};
use std::time::Duration;

/// How a volume is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Write nothing, ever.
    pub read_only: bool,
    /// How writes are kept whole. None: through the journal.
    pub mode: Option<Mode>,
    /// Binary logarithm of the blocks under one bit, in bitmap mode. None: as stored.
    pub log2_blocks_per_bitmap_bit: Option<u8>,
    /// What the tags were made with; the disk does not say.
    pub algorithm: Algorithm,
    /// The tags' key, if the algorithm takes one.
    pub integrity_key: Option<Key>,
    /// What the journal was made with. Without the keys of its MACs a volume can only be read.
    pub journal: JournalKeys,
    /// Where findings go, labelled with the member's name.
    pub events: Events,
    /// How long a write, or a dirty tag, may stay in memory only (the kernel's `commit_time`, and its
    /// `bitmap_flush_interval`: from then on a region counts as clean again).
    pub commit_time: Duration,
    /// Percentage of the journal that fills before it is written home.
    pub watermark: u8,
    /// Bytes of journal in memory, at least one section. What is more waits. (The default is meant
    /// for a volume of several members; one that stands alone is faster with twice as much.)
    pub memory_bytes: usize,
    /// Bytes of tags in memory.
    pub tag_cache_bytes: usize,
    /// Refuse writing if blocks look written and none verifies. To be turned off only for volumes
    /// that are known to hold nothing of their own yet.
    pub sample: bool,
}

impl Options {
    /// The defaults for `algorithm`, writable, without a key.
    #[must_use]
    pub fn new(algorithm: Algorithm, events: Events) -> Self {
        Self {
            read_only: false,
            mode: None,
            log2_blocks_per_bitmap_bit: None,
            algorithm,
            integrity_key: None,
            journal: JournalKeys::default(),
            events,
            commit_time: Duration::from_secs(10),
            watermark: 50,
            memory_bytes: 16 << 20,
            tag_cache_bytes: 8 << 20,
            sample: true,
        }
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }
}
