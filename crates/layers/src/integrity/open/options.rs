//! What somebody wants of a volume.

use crate::integrity::codec::JournalKeys;
use crate::integrity::source::TagSource;
use ::integrity::open::Mode;
use bio::Events;
use checksum::{Algorithm, Key};
use std::time::Duration;

/// How a volume is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Write nothing, ever.
    pub read_only: bool,
    /// Binary logarithm of the blocks under one bit, in bitmap mode. None: as stored.
    pub log2_blocks_per_bitmap_bit: Option<u8>,
    /// Where the tags come from; the disk does not say.
    pub tags: TagSource,
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
    /// How writes are kept whole; none: through the journal. In [`Mode::Recovery`] nothing is ever
    /// written, the journal is neither replayed nor laid over, and the superblock's MAC is not checked.
    pub mode: Option<Mode>,
    /// Give out blocks that nothing vouches for where the format itself says that their tags need not
    /// be valid: beyond the recalculation's position, in the regions that a crash in bitmap mode left
    /// in doubt, and in recovery mode. They are counted
    /// ([`Integrity::unverified`](super::super::Integrity::unverified)) and told.
    pub unverified: bool,
    /// Discards become the kernel's filler tags, and such tags are accepted: whatever lies below. Else
    /// a discarded block becomes one of zeroes with the tag of zeroes.
    pub allow_discards: bool,
    /// Whether tags are computed anew, from whatever lies on the disk.
    pub recalculate: Recalculate,
    /// Recalculate even where that signs with a key what somebody without it may have written.
    pub legacy_recalculate: bool,
    /// What is to become of a journal that cannot be replayed with certainty; none: such a volume is
    /// not opened for writing.
    pub damaged_journal: Option<JournalChoice>,
}

/// Whether tags are computed anew. It blesses what lies there, so only a person may ask for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Recalculate {
    /// Not in this opening, whatever the superblock says.
    #[default]
    No,
    /// Go on with one that did not finish, and do what a crash in bitmap mode left in doubt; nothing
    /// if there is neither.
    Continue,
    /// Begin one, at the first sector.
    Reset,
}

/// What is to become of a damaged journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JournalChoice {
    /// What is proven goes home. A block of which the rest of the journal holds another copy becomes
    /// unreadable: nobody knows which is newer.
    Replay,
    /// Nothing goes home: every block stays as it is there, even if the journal held a newer copy.
    Discard,
}

impl Options {
    /// The defaults for tags from this source, writable, without a key.
    #[must_use]
    pub fn new(tags: impl Into<TagSource>, events: Events) -> Self {
        Self {
            read_only: false,
            log2_blocks_per_bitmap_bit: None,
            tags: tags.into(),
            integrity_key: None,
            journal: JournalKeys::default(),
            events,
            commit_time: Duration::from_secs(10),
            watermark: 50,
            memory_bytes: 16 << 20,
            tag_cache_bytes: 8 << 20,
            sample: true,
            mode: None,
            unverified: false,
            allow_discards: false,
            recalculate: Recalculate::No,
            legacy_recalculate: false,
            damaged_journal: None,
        }
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Whether nothing may be written: asked for, or by the mode.
    pub(in crate::integrity) fn writes_nothing(&self) -> bool {
        self.read_only || self.mode == Some(Mode::Recovery)
    }

    /// Whether tags are to be computed anew.
    pub(in crate::integrity) fn recalculates(&self) -> bool {
        self.recalculate != Recalculate::No && !self.writes_nothing()
    }

    /// Whether the tags are made with a key that is here.
    pub(in crate::integrity) fn has_key(&self) -> bool {
        self.tags.hash().is_some_and(Algorithm::is_keyed) && self.integrity_key.is_some()
    }
}
