//! What happened, said once, with the place.

use std::fmt;
use std::rc::Rc;
use units::Sector;

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EventKind {
    /// A block is not what its stored tag vouches for (tags in hexadecimal, as stored and as
    /// computed from the data).
    Mismatch {
        /// The tag on the member.
        stored: String,
        /// The tag of the bytes that were read.
        computed: String,
    },
    /// Nothing vouches for these blocks, by the rules of their format: their tags need not be valid.
    Unverified,
    /// The device could not read it.
    MediumError,
    /// Rebuilt from redundancy, written back and read again.
    Healed {
        /// Where the good bytes came from: `mirror`, `parity`, ...
        source: &'static str,
        /// Whether the member's own stored tag vouched for the rebuilt bytes before they were
        /// written.
        vouched: bool,
    },
    /// Could be rebuilt, but this opening writes nothing.
    Healable,
    /// Nothing here can give these bytes back.
    Lost,
    /// Every tag is valid and the redundancy disagrees: nobody knows which part is right.
    Inconsistent,
    /// A member is not there.
    MemberMissing,
    /// A member is older than the others and was left out.
    MemberStale,
    /// A member no longer answers.
    MemberFailed,
    /// The array was not closed cleanly.
    Dirty,
    /// A member without content is given what belongs on it, from redundancy.
    RebuildStarted,
    /// A member that had no content has all of it now.
    Rebuilt,
    /// Redundancy was made true again for this range.
    Resynced,
    /// An unreplayed journal was replayed, or overlaid in memory.
    JournalReplayed,
    /// Anything else worth a line.
    Note,
}

/// Something that a person may want to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The member's name, if it happened on one; else it concerns the volume.
    pub member: Option<Rc<str>>,
    /// First sector, counted on that member (or volume) as its users count.
    pub sector: Sector,
    /// How many sectors; 0 when no place is meant.
    pub sectors: u64,
    /// A sentence more, or empty.
    pub detail: String,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(member) = &self.member {
            write!(f, "{member}: ")?;
        }
        match &self.kind {
            EventKind::Mismatch { stored, computed } => {
                write!(f, "tag mismatch, stored {stored}, the data says {computed}")?;
            }
            EventKind::Unverified => f.write_str("unverified")?,
            EventKind::MediumError => f.write_str("medium error")?,
            EventKind::Healed { source, vouched } => {
                write!(f, "healed from {source}")?;
                if *vouched {
                    f.write_str(", vouched for by the member's own tag")?;
                }
            }
            EventKind::Healable => f.write_str("damaged, redundancy has it, nothing written")?,
            EventKind::Lost => f.write_str("lost: no copy or parity can give it back")?,
            EventKind::Inconsistent => {
                f.write_str("inconsistent: all tags valid, parity differs")?
            }
            EventKind::MemberMissing => f.write_str("member missing")?,
            EventKind::MemberStale => f.write_str("member stale, left out")?,
            EventKind::MemberFailed => f.write_str("member failed")?,
            EventKind::Dirty => f.write_str("was not closed cleanly")?,
            EventKind::RebuildStarted => f.write_str("rebuild started")?,
            EventKind::Rebuilt => f.write_str("rebuilt")?,
            EventKind::Resynced => f.write_str("resynced")?,
            EventKind::JournalReplayed => f.write_str("journal replayed")?,
            EventKind::Note => f.write_str("note")?,
        }
        if self.sectors > 0 {
            write!(f, " at sector {}", self.sector)?;
            if self.sectors > 1 {
                write!(f, " ({} sectors)", self.sectors)?;
            }
        }
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Where events go: cheap to clone, carried by every layer, labelled with the member it works for.
#[derive(Clone)]
pub struct Events {
    sink: Rc<dyn Fn(Event)>,
    member: Option<Rc<str>>,
}

impl Events {
    /// Sends every event to `sink`, which must not block nor submit requests.
    pub fn new(sink: impl Fn(Event) + 'static) -> Self {
        Self { sink: Rc::new(sink), member: None }
    }

    /// Drops every event; for tests.
    #[must_use]
    pub fn none() -> Self {
        Self::new(drop)
    }

    /// The same sink, for what happens on `member`.
    #[must_use]
    pub fn for_member(&self, member: &str) -> Self {
        Self { sink: Rc::clone(&self.sink), member: Some(member.into()) }
    }

    /// Says that `kind` happened to `sectors` sectors from `sector` on.
    pub fn emit(&self, kind: EventKind, sector: Sector, sectors: u64) {
        self.emit_detail(kind, sector, sectors, String::new());
    }

    /// The same with a sentence more.
    pub fn emit_detail(&self, kind: EventKind, sector: Sector, sectors: u64, detail: String) {
        (self.sink)(Event { kind, member: self.member.clone(), sector, sectors, detail });
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("member", &self.member).finish_non_exhaustive()
    }
}
