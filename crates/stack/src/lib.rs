//! The one crate that knows all layers: finds what members make, opens it, makes it.

#![forbid(unsafe_code)]

pub mod adopt;
mod content;
pub mod copy;
pub mod create;
pub mod dif_file;
pub mod envelope;
mod events;
mod evidence;
mod explain;
mod fault;
mod find;
mod given;
mod identity;
mod inspect;
mod journal;
mod leaf;
mod logged;
mod mapfile;
mod member;
pub mod membership;
mod open;
mod patched;
mod places;
mod probe;
mod recheck;
mod recover;
pub mod resize;
mod signature;
mod size;
mod spec;
mod superblocks;
mod tags;
#[cfg(test)]
mod test_device;
mod top;
mod trial;
mod trust;
mod upkeep;
mod verdict;
mod verified;
mod volume;
mod write_journal;

pub use ::integrity::CipherKind;
pub use ::integrity::open::Mode;
pub use checksum::{Algorithm, KEY_BYTES_MAX, Key, KeyError};
pub use events::{Counters, EventLog, is_of_superblock};
pub use evidence::{
    Candidate, Evidence, FROM_HOME, FROM_JOURNAL, HexLine, Reconstruction, TagVerdict,
};
pub use explain::{
    ExplainError, Explanation, JournalPlace, LoggedPlace, Part, Place, TagPlace, explain,
};
pub use fault::{RuleError, parse_rule};
pub use find::{FindError, Lost, Search, Sighting, find, restore};
pub use given::{Given, IntegrityChoice, Running, SuperblockArea};
pub use inspect::{
    Field, Group, Inspection, IntegrityInspection, MdInspection, MemberInspection, inspect,
};
pub use journal::{JournalInspection, JournalSection};
pub use layers::file::{SectorFormat, SectorFormatError, SectorLayout};
pub use layers::integrity::{
    JournalChoice, JournalKeys, JournalReport, Recalculate, SectionReport, SectionState, TagSource,
    TupleKind, UnknownSource,
};
pub use leaf::{LeafKind, MemberError};
pub use logged::Whereabouts;
pub use mapfile::{Block, Map, Status};
pub use member::{Member, NameError};
pub use open::{AtRisk, OpenError, OpenOptions, WhyLeftOut, open, open_stack};
pub use probe::{IntegrityProblem, MdProblem};
pub use recheck::Suspect;
pub use signature::Signature;
pub use size::{SizeError, format_size, parse_size};
pub use spec::{ArrayLevel, Node, SpecError};
pub use trial::{Belief, Trial};
pub use trust::TrustError;
pub use verdict::{Fault, Verdict};
pub use volume::{BitmapStatus, MemberState, MemberStatus, Volume, VolumeStatus};
pub use write_journal::WriteJournalStatus;
