//! A dm-integrity superblock that is lost: what it must have said, from what it described.
//!
//! The journal tells the geometry, and where tags are CRCs, written blocks tell salt and algorithm
//! ([`integrity::find`]). Whether they are right is decided as everywhere: by written blocks of the
//! whole device, of which enough must verify ([`crate::trial`]).
//!
//! Nothing is written but by [`restore`], and by that only the superblock's area: whole or not at
//! all, so that a crash leaves what was there or what belongs there.

use crate::given::{Given, SuperblockArea};
use crate::inspect::Field;
use crate::leaf::{Leaf, MemberError};
use crate::member::Member;
use crate::probe::probe;
use crate::trial::{Belief, trials};
use crate::verdict::{Fault, Verdict};
use bio::{Bio, Buf, Events, IoError};
use checksum::{Algorithm, BlockTagger};
use integrity::find::{Candidate, decrypt, in_window, salt_of_crc, scan};
use integrity::layout::SECTION_METADATA_SECTORS;
use integrity::{CommitIds, Flags, Layout, Superblock, explain, superblock_area};
use layers::integrity::{Lower, Tagger};
use serde::Serialize;
use units::{SECTOR, SECTOR_BYTES, Sector, usize_of};

/// A superblock that lies somewhere.
#[derive(Clone, Debug, Serialize)]
pub struct Sighting {
    /// Its first byte on the member.
    pub byte: u64,
    /// What it says.
    pub fields: Vec<Field>,
    /// What speaks for it.
    pub agrees: Vec<&'static str>,
    /// What speaks against it.
    pub doubts: Vec<&'static str>,
}

/// A volume that may have been there.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// What its superblock must have said.
    pub fields: Vec<Field>,
    /// What its tags are made with, if that could be found.
    pub algorithm: Option<String>,
    /// What speaks for it and against it.
    pub reasons: Vec<String>,
    /// Written blocks all over the device verify with it: it is this, and nothing else.
    pub proven: bool,
    #[serde(skip)]
    superblock: Superblock,
    #[serde(skip)]
    layout: Layout,
}

impl Lost {
    /// The superblock's area as it must have been, for [`Given::superblocks`]: what it describes can
    /// be read, and nothing is written. A salt that could not be found is zero.
    #[must_use]
    pub fn area(&self) -> SuperblockArea {
        superblock_area(&self.superblock)
    }
}

/// What a search on one member brought.
#[derive(Clone, Debug, Serialize)]
pub struct Search {
    /// The member.
    pub member: String,
    /// Its superblock is where it belongs, and what it says can be used.
    pub intact: bool,
    /// Superblocks in the first bytes of the member.
    pub sightings: Vec<Sighting>,
    /// Volumes that may have been there, the likeliest first.
    pub lost: Vec<Lost>,
    /// What cannot be known, a sentence each.
    pub unknown: Vec<&'static str>,
}

impl Search {
    /// The one volume that was there; none if that is not proven.
    fn proven(&self) -> Option<&Lost> {
        let mut proven = self.lost.iter().filter(|lost| lost.proven);
        proven.next().filter(|_| proven.next().is_none())
    }
}

/// Why nothing was found, or not written back.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The member cannot be opened.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// The member failed.
    #[error("{member}: {error}")]
    Io {
        /// The member.
        member: String,
        /// What it said.
        error: IoError,
    },
    /// There is nothing to restore.
    #[error("{member}: its superblock is intact")]
    Intact {
        /// The member.
        member: String,
    },
    /// Nothing, or too much, may have been there.
    #[error("{member}: no superblock is proven to be the one that was there")]
    Unproven {
        /// The member.
        member: String,
    },
    /// The journal's MACs cover a salt that cannot be found.
    #[error("{member}: its journal has MACs, which cover the salt as it was stored")]
    Sealed {
        /// The member.
        member: String,
    },
}

impl Fault for FindError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Member(error) => error.verdict(),
            Self::Io { .. } => Verdict::Failed,
            _ => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Member(error) => error.advice(),
            Self::Unproven { .. } => Some("nothing was written; see what --find lists".to_owned()),
            _ => None,
        }
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(error) => error.member(),
            Self::Io { member, .. }
            | Self::Intact { member }
            | Self::Unproven { member }
            | Self::Sealed { member } => Some(member),
        }
    }
}

/// Searches on `member` for superblocks, and for what one must have said that is lost. Writes
/// nothing.
///
/// # Errors
/// A member that cannot be opened, or fails as a whole.
pub async fn find(member: &Member, given: &Given) -> Result<Search, FindError> {
    let leaf = given.open_leaf(member, false).await?;
    search(member, &leaf.lower(), leaf, given).await
}

/// Writes the superblock back that `find` proves, and says which.
///
/// # Errors
/// As [`find`]; where one is intact, none is proven, or the journal's MACs forbid it.
pub async fn restore(member: &Member, given: &Given) -> Result<Search, FindError> {
    let leaf = given.open_leaf(member, true).await?;
    let lower = leaf.lower();
    let search = search(member, &lower, leaf, given).await?;
    let name = || member.to_string();
    if search.intact {
        return Err(FindError::Intact { member: name() });
    }
    let lost = search.proven().ok_or_else(|| FindError::Unproven { member: name() })?;
    if lost.superblock.flags.has(Flags::JOURNAL_MAC) {
        return Err(FindError::Sealed { member: name() });
    }
    let area = Buf::copy_of(&lost.area());
    let mut bio = Bio::write_fua(Sector::ZERO, area);
    let written = lower.metadata.submit(&mut bio).await;
    written.map_err(|error| FindError::Io { member: name(), error })?;
    let flushed = lower.metadata.flush().await;
    flushed.map_err(|error| FindError::Io { member: name(), error })?;
    Ok(search)
}

async fn search(
    member: &Member,
    lower: &Lower,
    leaf: Leaf,
    given: &Given,
) -> Result<Search, FindError> {
    let name = member.to_string();
    let failed = |error| FindError::Io { member: name.clone(), error };
    let probed = probe(name.as_str().into(), None, leaf, given, &Events::none()).await;
    let intact = probed.map_err(failed)?.open_integrity().is_some();
    let mut window = first_bytes(&lower.metadata).await.map_err(failed)?;
    let sightings = scan(&window).into_iter().map(|found| Sighting {
        byte: found.offset_bytes,
        fields: fields(&found.superblock),
        agrees: found.agrees,
        doubts: found.doubts,
    });
    let sightings = sightings.collect();
    let mut lost = Vec::new();
    if !intact {
        let ids = match &given.journal.cipher {
            None => None,
            Some((kind, key)) => decrypt(&mut window, *kind, key).unwrap_or(None),
        };
        let ids = ids.unwrap_or(CommitIds::PLAIN);
        let data = match &lower.data {
            Some(data) => Some(first_bytes(data).await.map_err(failed)?),
            None => None,
        };
        for algorithm in CRCS {
            let salt_of = salt_of_crc(algorithm);
            let found = in_window(&window, data.as_deref(), lower.sectors(), &ids, &salt_of);
            for candidate in found.into_iter().take(CANDIDATES_MAX) {
                if !contradicted(&window, &candidate) {
                    lost.push(tried(lower, candidate, algorithm).await.map_err(failed)?);
                }
            }
        }
        // Of what places all blocks alike, the first is kept: the one that is proven, if one is.
        lost.sort_by_key(|lost: &Lost| (!lost.proven, lost.algorithm.is_none()));
        let mut seen: Vec<Layout> = Vec::new();
        lost.retain(|lost| {
            let new = !seen.iter().any(|layout| same_places(layout, &lost.layout));
            seen.push(lost.layout);
            new
        });
        if lost.iter().any(|lost| lost.proven) {
            lost.retain(|lost| lost.proven);
        }
        lost.truncate(LISTED_MAX);
    }
    Ok(Search { member: name.clone(), intact, sightings, lost, unknown: UNKNOWN.to_vec() })
}

/// Whether the first section of the (decrypted) journal speaks against the candidate's MACs: every
/// section that was ever written carries its own, where a journal has them, and without them these
/// bytes stay zero unless an entry reaches into them (specification, sections 6.1 and 6.3).
fn contradicted(window: &[u8], candidate: &Candidate) -> bool {
    let journal = &candidate.layout.journal;
    let start = usize_of(journal.section_start(0).bytes());
    let length = usize_of(SECTION_METADATA_SECTORS * SECTOR);
    let Some(metadata) = window.get(start..start + length) else { return false };
    let mut sectors = metadata.chunks_exact(SECTOR_BYTES);
    let is_zero = sectors.all(|sector| sector[MAC_SLICE].iter().all(|&byte| byte == 0));
    let entries_end = usize_of(journal.entries_per_sector.into()) * journal.entry_bytes;
    if candidate.superblock.flags.has(Flags::JOURNAL_MAC) {
        is_zero
    } else {
        !is_zero && entries_end <= MAC_SLICE.start
    }
}

/// Whether two layouts put every block and tag in the same place: what fits into one run is the same
/// volume with every longer interleave. The likelier one is as good as the one that was there.
fn same_places(one: &Layout, other: &Layout) -> bool {
    let runs_once = |layout: &Layout| {
        layout.log2_interleave.is_some_and(|log2| layout.provided_sectors <= 1 << log2)
    };
    let both_once = runs_once(one) && runs_once(other);
    let mut adjusted = *one;
    adjusted.log2_interleave = other.log2_interleave;
    one == other || (both_once && adjusted == *other)
}

/// Asks written blocks of the whole device.
async fn tried(lower: &Lower, candidate: Candidate, algorithm: Algorithm) -> Result<Lost, IoError> {
    let (superblock, layout) = (candidate.superblock.clone(), candidate.layout);
    let has_salt = candidate.evidence.salt.is_some();
    let proven = if has_salt {
        let salt = superblock.hashed_salt();
        let tagger = BlockTagger::new(algorithm, None, salt, layout.block);
        let tagger = tagger.expect("CRCs take no key").with_tag_bytes(layout.tag_bytes);
        let trial = trials(lower, &layout, &[Tagger::Hash(tagger)], &[]).await?[0];
        trial.belief() == Belief::Proven && !trial.is_suspicious()
    } else {
        false
    };
    let mut fields = fields(&superblock);
    if !has_salt {
        // A salt that nothing speaks for is not shown as if it were one.
        fields.retain(|field| field.name != "salt");
    }
    let algorithm = has_salt.then(|| algorithm.to_string());
    let reasons = candidate.reasons();
    Ok(Lost { fields, algorithm, reasons, proven, superblock, layout })
}

fn fields(superblock: &Superblock) -> Vec<Field> {
    let fields = explain::fields(superblock).into_iter();
    fields.map(|(name, value)| Field { name, value }).collect()
}

/// The first bytes of a device; what cannot be read is zero.
async fn first_bytes(device: &bio::Device) -> Result<Vec<u8>, IoError> {
    let block = device.limits().logical_block.sectors();
    let sectors = device.limits().sectors.min(WINDOW_SECTORS) / block * block;
    let mut bytes = vec![0; usize_of(sectors * SECTOR)];
    let pieces = bytes.chunks_mut(usize_of(PIECE_SECTORS * SECTOR));
    for (start, piece) in (0..).step_by(usize_of(PIECE_SECTORS)).zip(pieces) {
        let count = units::u64_of(piece.len()) / SECTOR;
        match device.read(Sector(start), count).await {
            Ok(buf) => piece.copy_from_slice(buf.as_slice()),
            Err(error) if error.kind.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Where each metadata sector of a section has its piece of the section's MAC.
const MAC_SLICE: std::ops::Range<usize> = 496..504;
/// The checksums that can be run backwards.
const CRCS: [Algorithm; 2] = [Algorithm::Crc32c, Algorithm::Crc32];
/// Looked at of a member: the longest journal that is made by default, 64 MiB, and some data.
const WINDOW_SECTORS: u64 = (72 << 20) / SECTOR;
const PIECE_SECTORS: u64 = (1 << 20) / SECTOR;
/// Candidates that are asked on the whole device, for each algorithm.
const CANDIDATES_MAX: usize = 8;
/// Candidates that are told.
const LISTED_MAX: usize = 5;
const UNKNOWN: [&str; 3] = [
    "which algorithm made the tags, unless it is a CRC: of other hashes only the geometry is found",
    "whether the volume was smaller than the device allows: the largest size is taken",
    "the salt as it was stored: one that tags every block the same is as good, but for journal MACs",
];
