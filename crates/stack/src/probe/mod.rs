//! What lies on one member: dm-integrity, md (inside it, or bare), or neither.
//!
//! ```text
//!   member --> dm-integrity superblock? --yes--> layout --> do tags fit? --> its inside --+
//!                  | no                                                                   v
//!                  +------------------------------------------------------> md superblock 1.2, 1.1, 1.0?
//! ```
//!
//! Nothing here writes. A superblock that is damaged is looked at again once the other members are
//! known ([`repair`]), because they may say what it was.

mod algorithm;
pub(crate) mod repair;

use crate::given::{Given, IntegrityChoice};
use crate::leaf::Leaf;
use crate::member::Member;
use crate::trial::{Trial, read_bytes};
use crate::verified::verified;
use crate::write_journal::{self, WriteJournal};
use bio::{Buf, Device, Events, IoError};
use checksum::{Algorithm, KeyError};
use integrity::layout::JournalLayout;
use integrity::{Layout, LayoutError, SuperblockError};
use layers::array::Logs;
use layers::integrity::{Codec, Integrity, JournalState, Lower, SourceError, TagSource, Tagger};
use md::superblock::{Minor, SUPERBLOCK_SECTORS, Superblock};
use std::rc::Rc;
use units::{SECTOR_BYTES, Sector, usize_of};

/// Why a dm-integrity volume cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IntegrityProblem {
    /// Its superblock makes no sense.
    #[error("{0}")]
    Superblock(SuperblockError),
    /// It does not fit the member: truncated, or a damaged superblock.
    #[error("{0}")]
    Layout(LayoutError),
    /// Something was written, and no tag fits.
    #[error(
        "none of {} written blocks that were sampled verifies with {}: another {}, or a damaged \
         superblock (it has no checksum)",
        .trial.refuted,
        any_of(.tried),
        if .tried.iter().all(|source| source.hash().is_some_and(Algorithm::is_keyed)) {
            "key or algorithm"
        } else {
            "algorithm (those with a key are tried only if named)"
        }
    )]
    Refuted {
        /// The samples, for the first that was tried.
        trial: Trial,
        /// What was tried.
        tried: Vec<TagSource>,
    },
    /// What was written fits more than one algorithm.
    #[error("the sampled blocks verify with {}: which is right must be said", any_of(.fitting))]
    Ambiguous {
        /// They all fit.
        fitting: Vec<TagSource>,
    },
    /// Nothing was written, and the size of the tags does not say enough.
    #[error(
        "no sampled block was ever written, so nothing shows what its tags of {tag_bytes} bytes \
         are to be made with"
    )]
    Unwritten {
        /// Bytes of each.
        tag_bytes: usize,
    },
    /// What was named, the key and the volume do not go together.
    #[error(transparent)]
    Source(SourceError),
    /// What was written last may be in a journal that cannot be read.
    #[error(
        "no sector of its journal carries a commit id{}, or destroyed, and the newest writes may \
         be in it",
        if *.decrypted {
            " once it is decrypted: it was encrypted with another cipher or key, or not at all"
        } else {
            ": it is encrypted"
        }
    )]
    JournalForeign {
        /// Whether a cipher and its key were given.
        decrypted: bool,
    },
    /// The layer refuses it.
    #[error("{0}")]
    Open(layers::integrity::OpenError),
}

impl IntegrityProblem {
    /// What to try, where there is something better than a closer look.
    pub(crate) const fn advice(&self) -> Option<&'static str> {
        use layers::integrity::{CodecError, InlineError, OpenError};
        Some(match self {
            Self::Refuted { .. } => {
                "if this is right, read it as it is with --integrity none; nothing was written"
            }
            Self::Ambiguous { .. } | Self::Unwritten { .. } => "name it with --integrity",
            Self::Layout(LayoutError::Interleave { separate: false }) => {
                "name it with --data-device MEMBER=PATH"
            }
            Self::Layout(LayoutError::Interleave { separate: true }) => {
                "leave --data-device out for this member"
            }
            Self::Source(SourceError::Key(KeyError::Missing { .. })) => {
                "name its file with --integrity-key-file"
            }
            Self::JournalForeign { .. } => {
                "if it is encrypted, name its cipher and key with --journal-crypt and \
                 --journal-crypt-key-file"
            }
            Self::Open(OpenError::Journal(CodecError::Mac { stored: false })) => {
                "leave --journal-integrity out"
            }
            Self::Open(OpenError::Insecure(_)) => {
                "if nobody without the key can have written to it, say --legacy-recalculate too"
            }
            Self::Open(OpenError::Journal(CodecError::Cipher(_))) => {
                "check the file that --journal-crypt-key-file names"
            }
            Self::Open(OpenError::Inline(InlineError::NoMetadata)) => {
                "if this is the image of a disk whose sectors have metadata, name it as such: \
                 sectors:4096+8:PATH"
            }
            Self::Open(OpenError::Refused(_)) => "leave that out: inline volumes need no --mode",
            Self::Open(OpenError::Mac(_)) => {
                "check --journal-integrity and the file that --journal-integrity-key-file names"
            }
            _ => return None,
        })
    }
}

fn any_of(sources: &[TagSource]) -> String {
    match sources {
        [only] => only.to_string(),
        several => {
            let names: Vec<String> = several.iter().map(ToString::to_string).collect();
            format!("any of {}", names.join(", "))
        }
    }
}

/// A dm-integrity volume, open for reading.
pub(crate) struct ReadIntegrity {
    pub layout: Layout,
    pub tagger: Tagger,
    pub trial: Trial,
    pub volume: Rc<Integrity>,
    /// What was given to open it.
    pub given: Given,
    /// The superblock was damaged, and rebuilt in memory; this is what belongs on the member.
    pub repaired: Option<integrity::Superblock>,
}

/// The dm-integrity part of a member.
pub(crate) enum IntegrityFound {
    /// None is there, or it was not asked for.
    None,
    /// There is one that cannot be used.
    Problem(IntegrityProblem),
    /// There is one.
    Open(Box<ReadIntegrity>),
}

/// Why an md superblock cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MdProblem {
    /// Its bytes are wrong.
    #[error("md superblock {minor}: {error}")]
    Superblock {
        /// Where it lies.
        minor: Minor,
        /// What is wrong.
        error: md::superblock::SuperblockError,
    },
    /// It cannot be read.
    #[error("md superblock {minor}: {error}")]
    Unreadable {
        /// Where it lies.
        minor: Minor,
        /// What the device said.
        error: IoError,
    },
}

/// The md part of a member.
pub(crate) enum MdFound {
    /// None is there.
    None,
    /// One is there, or was, and cannot be used.
    Problem(MdProblem),
    /// One is there.
    Sound {
        superblock: Box<Superblock>,
        /// It was damaged, and rebuilt in memory.
        repaired: bool,
    },
}

/// A member that was looked at.
pub(crate) struct Probed {
    pub name: Rc<str>,
    pub member: Option<Member>,
    pub leaf: Leaf,
    pub integrity: IntegrityFound,
    pub md: MdFound,
    /// What lies beside the md superblock; see [`read_logs`].
    pub logs: Logs,
    /// The array's write journal, if this is its device; see [`read_logs`].
    pub write_journal: Option<Result<WriteJournal, write_journal::Problem>>,
}

impl Probed {
    /// What holds the md superblock and the data, for reading: the inside of the dm-integrity
    /// volume, or the member itself. None if the one is damaged.
    pub fn inner(&self) -> Option<Device> {
        match &self.integrity {
            IntegrityFound::None => Some(self.leaf.device.clone()),
            IntegrityFound::Open(open) => Some(open.volume.device()),
            IntegrityFound::Problem(_) => None,
        }
    }

    /// The dm-integrity volume, if there is one that can be used.
    pub fn open_integrity(&self) -> Option<&ReadIntegrity> {
        match &self.integrity {
            IntegrityFound::Open(open) => Some(open),
            IntegrityFound::None | IntegrityFound::Problem(_) => None,
        }
    }

    /// The md superblock, if there is one that can be used.
    pub fn md(&self) -> Option<&Superblock> {
        match &self.md {
            MdFound::Sound { superblock, .. } => Some(superblock),
            MdFound::None | MdFound::Problem(_) => None,
        }
    }
}

/// Looks at `leaf`. Findings go to `events`, labelled with the member's name.
///
/// # Errors
/// A device that fails as a whole.
pub(crate) async fn probe(
    name: Rc<str>,
    member: Option<Member>,
    leaf: Leaf,
    given: &Given,
    events: &Events,
) -> Result<Probed, IoError> {
    let events = events.for_member(&name);
    let integrity = match given.integrity {
        IntegrityChoice::None => IntegrityFound::None,
        _ => find_integrity(&leaf.lower(), given, &events).await?,
    };
    let (md, logs) = (MdFound::None, Logs::default());
    let write_journal = None;
    let mut probed = Probed { name, member, leaf, integrity, md, logs, write_journal };
    if let Some(inner) = probed.inner() {
        probed.md = find_md(&inner).await?;
    }
    Ok(probed)
}

async fn find_integrity(
    lower: &Lower,
    given: &Given,
    events: &Events,
) -> Result<IntegrityFound, IoError> {
    let device = &lower.metadata;
    if device.limits().sectors < integrity::superblock::AREA_SECTORS {
        return Ok(IntegrityFound::None);
    }
    let area = match device.read(Sector::ZERO, integrity::superblock::AREA_SECTORS).await {
        Ok(area) => area,
        Err(error) if error.kind.is_damage() => return Ok(IntegrityFound::None),
        Err(error) => return Err(error),
    };
    let superblock = match integrity::Superblock::decode(area.as_slice()) {
        Ok(superblock) => superblock,
        Err(SuperblockError::Magic { .. } | SuperblockError::Blank) => {
            return Ok(IntegrityFound::None);
        }
        Err(error) => return Ok(IntegrityFound::Problem(IntegrityProblem::Superblock(error))),
    };
    let layout = match Layout::of(&superblock, lower.sectors()) {
        Ok(layout) => layout,
        Err(error) => return Ok(IntegrityFound::Problem(IntegrityProblem::Layout(error))),
    };
    open_read_only(lower, &superblock, layout, given, events).await
}

/// Tries the algorithms on the volume, and opens it for reading with the one that fits.
pub(super) async fn open_read_only(
    lower: &Lower,
    superblock: &integrity::Superblock,
    layout: Layout,
    given: &Given,
    events: &Events,
) -> Result<IntegrityFound, IoError> {
    let (tagger, trial) = match algorithm::choose(lower, superblock, &layout, given).await? {
        Ok(chosen) => chosen,
        Err(problem) => return Ok(IntegrityFound::Problem(problem)),
    };
    let options = given.options(tagger.source(), events.clone());
    match Integrity::open(lower.clone(), options.read_only()).await {
        Ok(volume) => {
            if matches!(volume.journal_state(), JournalState::Damaged(_))
                && journal_is_foreign(&lower.metadata, &layout.journal, given).await?
            {
                let decrypted = given.journal.cipher.is_some();
                return Ok(IntegrityFound::Problem(IntegrityProblem::JournalForeign { decrypted }));
            }
            let (given, repaired) = (given.clone(), None);
            let open = ReadIntegrity { layout, tagger, trial, volume, given, repaired };
            Ok(IntegrityFound::Open(Box::new(open)))
        }
        Err(layers::integrity::OpenError::Io(error)) if !error.kind.is_damage() => Err(error),
        Err(error) => Ok(IntegrityFound::Problem(IntegrityProblem::Open(error))),
    }
}

/// Whether not a single sector of the first section carries a commit id. Damage leaves some; a
/// journal that is encrypted otherwise than was given has none (the dm-integrity specification, section 6.5), and which blocks it
/// holds newer than home cannot be known.
async fn journal_is_foreign(
    device: &Device,
    journal: &JournalLayout,
    given: &Given,
) -> Result<bool, IoError> {
    let start = journal.section_start(0).bytes();
    let length = usize_of(Sector(journal.section_sectors).bytes());
    let Some(section) = read_bytes(device, start, length).await? else { return Ok(false) };
    let mut section = Buf::copy_of(&section);
    let codec = Codec::without_mac(journal, &given.journal).expect("the volume was opened with it");
    codec.open(0, &mut section);
    let ids = codec.ids();
    let carries_id = |(sector, bytes): (u64, &[u8])| {
        let mut id = [0; 8];
        id.copy_from_slice(&bytes[SECTOR_BYTES - 8..]);
        ids.sequence(0, sector, u64::from_le_bytes(id)).is_some()
    };
    Ok(!(0..).zip(section.as_slice().chunks_exact(SECTOR_BYTES)).any(carries_id))
}

/// Reads what lies beside the md superblocks of `members`, once it is known what they are. They have no
/// checksums, but tuples where members keep some.
pub(crate) async fn read_logs(members: &mut [Probed]) {
    for member in members {
        if let (Some(inner), Some(superblock)) = (member.inner(), member.md()) {
            let logs = Logs::read(&verified(inner.clone(), &Events::none()), superblock).await;
            member.write_journal = WriteJournal::read(&inner, superblock).await;
            member.logs = logs;
        }
    }
}

/// Looks for an md superblock at each of its places.
pub(crate) async fn find_md(inner: &Device) -> Result<MdFound, IoError> {
    let sectors = inner.limits().sectors;
    let mut problem = None;
    for minor in Minor::PROBE_ORDER {
        let Some(place) = minor.super_offset(sectors) else { continue };
        let bytes = match inner.read(place, SUPERBLOCK_SECTORS).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind.is_damage() => {
                problem.get_or_insert(MdProblem::Unreadable { minor, error });
                continue;
            }
            Err(error) => return Err(error),
        };
        match Superblock::decode(bytes.as_slice(), minor, sectors) {
            Ok(superblock) => {
                let superblock = Box::new(superblock);
                return Ok(MdFound::Sound { superblock, repaired: false });
            }
            Err(md::superblock::SuperblockError::Magic { .. }) => {}
            Err(error) => {
                // A superblock that makes no sense is worth more than a place that cannot be read.
                problem = Some(MdProblem::Superblock { minor, error });
            }
        }
    }
    Ok(problem.map_or(MdFound::None, MdFound::Problem))
}

/// Where something was written if the volume holds an md member: its superblock, 1.2 or 1.1.
const HINTS: [Sector; 2] = [Sector(8), Sector(0)];
