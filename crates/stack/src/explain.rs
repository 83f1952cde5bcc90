//! Where one sector of a volume lies: member, bytes, tag, stripe, parity, journal.

use crate::evidence::{Evidence, Site, evidence};
use crate::logged::Whereabouts;
use crate::member::Member;
use crate::spec::Node;
use crate::tags;
use crate::trial::read_bytes;
use crate::verdict::{Fault, Verdict};
use crate::volume::{IntegrityPart, MemberPart, MemberState, Volume};
use bio::{Buf, IoError};
use integrity::explain::tag_text;
use integrity::layout::SECTION_METADATA_SECTORS;
use integrity::{EntrySector, Layout, Run};
use layers::integrity::{Codec, TagSource};
use md::geometry::Strip;
use md::journal::BLOCK_SECTORS;
use md::shape::Shape;
use md::superblock::Superblock;
use serde::Serialize;
use units::{SECTOR, Sector, usize_of};

/// What a piece of a member is to the sector that was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The data itself.
    Data,
    /// One of the copies.
    Copy,
    /// The XOR of its stripe.
    P,
    /// The syndrome of its stripe.
    Q,
}

/// An entry of a journal that holds a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct JournalPlace {
    /// The section.
    pub section: u32,
    /// The entry within it.
    pub entry: u32,
    /// The lap that its section was written in, modulo four; none: torn or damaged.
    pub sequence: Option<u8>,
}

/// Where a block with its tag lies.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TagPlace {
    /// First sector of the block, as users of the dm-integrity volume count.
    pub block_sector: u64,
    /// Bytes of the block.
    pub block_bytes: usize,
    /// First byte of the tag on the member; none: it lies in the metadata of the block, which has no
    /// address (in a file of sectors with metadata it has one).
    pub tag_byte: Option<u64>,
    /// The tag as stored, in hexadecimal; none: it cannot be read.
    pub stored: Option<String>,
    /// The tag of the data as it lies there; none: it cannot be read.
    pub computed: Option<String>,
    /// Entries of the journal that hold this block, committed or not.
    pub journal: Vec<JournalPlace>,
}

/// One piece of a member that the sector depends on.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Place {
    /// What it is.
    pub part: Part,
    /// The slot; none without an array.
    pub slot: Option<usize>,
    /// The member; none: missing.
    pub member: Option<String>,
    /// The sector on what the array sees of the member (inside dm-integrity, where there is one).
    pub member_sector: u64,
    /// The device that holds the member's data, if it is another than the member.
    pub data_device: Option<String>,
    /// First byte of the sector on the member, or on that device; none: missing.
    pub data_byte: Option<u64>,
    /// Its block and tag, if it has one.
    pub tag: Option<TagPlace>,
    /// What the array's write journal holds of it, the newest first: this is what is read, not the member's.
    pub write_journal: Vec<LoggedPlace>,
}

/// Where the write journal of an array holds a sector of a strip.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct LoggedPlace {
    /// The journal's device.
    pub member: String,
    /// The first byte of the sector on it.
    pub byte: Option<u64>,
    /// Whether parity goes with it.
    pub lies: Whereabouts,
    /// Whether the journal's checksum of its block agrees; none: it cannot be read.
    pub agrees: Option<bool>,
}

/// Where a sector lies.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// The sector that was asked for.
    pub sector: u64,
    /// Its stripe; none without stripes.
    pub stripe: Option<u64>,
    /// Which data strip of the stripe.
    pub data_index: Option<usize>,
    /// The data first, then parity or the other copies.
    pub places: Vec<Place>,
    /// All that is known of the whole stripe, or of all copies; none without redundancy.
    pub evidence: Option<Evidence>,
}

/// Why nothing can be said.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExplainError {
    /// Not a sector of the volume.
    #[error("sector {sector} was asked for, the volume has {sectors}")]
    Outside {
        /// Asked for.
        sector: u64,
        /// Sectors of the volume.
        sectors: u64,
    },
    /// A member failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

impl Fault for ExplainError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::Outside { .. } => Verdict::Refused,
            Self::Io(_) => Verdict::Failed,
        }
    }

    fn advice(&self) -> Option<String> {
        None
    }
}

/// Says where `sector` lies. Reads tags, data and journals as they lie on the members, past every
/// layer; writes nothing.
///
/// # Errors
/// A sector outside; a member that fails as a whole.
pub async fn explain(volume: &Volume, sector: Sector) -> Result<Explanation, ExplainError> {
    let sectors = volume.device().limits().sectors;
    if sector.0 >= sectors {
        return Err(ExplainError::Outside { sector: sector.0, sectors });
    }
    let mut explanation = Explanation {
        sector: sector.0,
        stripe: None,
        data_index: None,
        places: Vec::new(),
        evidence: None,
    };
    let Some(md) = &volume.freshest else {
        let parts = volume.parts();
        let alone = parts.first().map(|part| &**part);
        let place = place(Part::Data, None, alone, sector, Sector::ZERO).await?;
        explanation.places.push(place);
        return Ok(explanation);
    };
    let parts = volume.parts();
    let holds = |part: &MemberPart, slot: usize| {
        let (place, state) = volume.place_of(part);
        place == Some(slot) && state != MemberState::Replacing
    };
    let holder = |slot: usize| parts.iter().find(|part| holds(part, slot)).map(|part| &**part);
    let sides = md.sides().and_then(Result::ok).map(|sides| sides.at(sector));
    let offset = |slot: usize| {
        let own = holder(slot).and_then(|part| part.md.as_ref()).unwrap_or(md);
        match sides {
            Some((_, true)) => own.data_offset_after().unwrap_or(own.data_offset()),
            _ => own.data_offset(),
        }
    };
    let mut wanted = Vec::new();
    let data_sizes: Vec<u64> = (0..usize_of(md.slots().into()))
        .filter_map(|slot| holder(slot)?.md.as_ref().map(Superblock::data_size))
        .collect();
    let shape = match sides {
        Some((geometry, _)) => Ok(Shape::Parity(geometry, md.size())),
        None => md.shape(&data_sizes),
    };
    if let Ok(Shape::Stripes(stripes)) = &shape {
        let run = stripes.locate(sector);
        wanted.push((Part::Data, run.slot, run.member_sector));
    } else if let Ok(Shape::Mirrors(mirrors)) = &shape {
        let spots = (0..mirrors.copies()).map(|copy| mirrors.locate(sector, copy));
        wanted.extend(spots.map(|spot| (Part::Copy, spot.slot, spot.member_sector)));
    } else if let Ok(Shape::Parity(geometry, _)) = &shape {
        let found = geometry.locate(sector);
        explanation.stripe = Some(found.stripe);
        explanation.data_index = Some(found.data_index);
        wanted.push((Part::Data, found.slot, found.member_sector));
        for slot in 0..geometry.raid_disks() {
            let part = match geometry.strip(found.stripe, slot) {
                Strip::Data(_) => continue,
                Strip::P => Part::P,
                Strip::Q => Part::Q,
            };
            wanted.push((part, slot, found.member_sector));
        }
    } else {
        for slot in 0..usize_of(md.raid_disks().into()) {
            wanted.push((Part::Copy, slot, sector));
        }
    }
    let site = |(part, slot, member_sector): (Part, usize, Sector)| Site {
        part,
        slot,
        holder: holder(slot),
        offset: offset(slot),
        sector: member_sector,
    };
    let journal = volume.top.journal.as_ref();
    if let Ok(Shape::Parity(geometry, _)) = &shape {
        let found = geometry.locate(sector);
        let rest = (0..geometry.raid_disks()).filter(|&slot| slot != found.slot).map(|slot| {
            let part = match geometry.strip(found.stripe, slot) {
                Strip::Data(_) => Part::Data,
                Strip::P => Part::P,
                Strip::Q => Part::Q,
            };
            (part, slot, found.member_sector)
        });
        let sites = wanted.first().copied().into_iter().chain(rest).map(site).collect();
        explanation.evidence = Some(evidence(sites, Some((geometry, found.stripe)), journal).await);
    } else if wanted.len() > 1 {
        explanation.evidence =
            Some(evidence(wanted.iter().copied().map(site).collect(), None, None).await);
    }
    for (part, slot, member_sector) in wanted {
        let start = offset(slot);
        let mut found = place(part, Some(slot), holder(slot), member_sector, start).await?;
        found.write_journal = logged_places(volume, slot, member_sector).await?;
        explanation.places.push(found);
    }
    Ok(explanation)
}

async fn place(
    part: Part,
    slot: Option<usize>,
    member: Option<&MemberPart>,
    data_sector: Sector,
    data_offset: Sector,
) -> Result<Place, IoError> {
    let inner = data_offset + data_sector.0;
    let mut place = Place {
        part,
        slot,
        member: None,
        member_sector: inner.0,
        data_device: None,
        data_byte: None,
        tag: None,
        write_journal: Vec::new(),
    };
    let Some(member) = member else { return Ok(place) };
    place.member = Some(member.name.to_string());
    place.data_device = member.data.as_ref().map(data_name);
    let Some(integrity) = &member.integrity else {
        place.data_byte = Some(on_member(member, inner.bytes()));
        return Ok(place);
    };
    let run = integrity.volume.layout().run(inner, 1);
    place.data_byte = Some(on_member(member, run.data.bytes()));
    place.tag = Some(tag_place(member, integrity, inner).await?);
    Ok(place)
}

/// What the write journal holds of a sector of the data of the member in `slot`.
async fn logged_places(
    volume: &Volume,
    slot: usize,
    sector: Sector,
) -> Result<Vec<LoggedPlace>, IoError> {
    let mut places = Vec::new();
    let (Some(journal), Some(device)) = (&volume.top.journal, volume.journal_part()) else {
        return Ok(places);
    };
    let offset = device.md.as_ref().map_or(Sector::ZERO, Superblock::data_offset);
    for logged in journal.logged(slot, sector) {
        let at = Sector(logged.at() + sector.0 % BLOCK_SECTORS);
        let place = place(Part::Data, None, Some(&device), at, offset).await?;
        let bytes = journal.read_logged(&logged).await;
        places.push(LoggedPlace {
            member: device.name.to_string(),
            byte: place.data_byte,
            lies: logged.lies,
            agrees: bytes.map(|bytes| logged.vouches(bytes.as_slice())),
        });
    }
    Ok(places)
}

/// Byte `byte` of the data of a member without a data device, as its file counts.
fn on_member(member: &MemberPart, byte: u64) -> u64 {
    match &member.member {
        Some(name) if member.data.is_none() => name.file_byte(byte),
        _ => byte,
    }
}

/// First byte of the tag of the block at `run`, if it has an address, on a member of `sectors` sectors.
fn tag_byte(member: &MemberPart, layout: &Layout, run: &Run, sectors: u64) -> Option<u64> {
    if !layout.inline {
        return Some(on_member(member, run.tag_byte));
    }
    let Some(Member::Sectors { format, .. }) = &member.member else { return None };
    Some(format.metadata_byte(run.data.bytes(), sectors / format.block.sectors()))
}

/// The data device's name, as it was given.
fn data_name(node: &Node) -> String {
    node.member().map_or_else(|| node.to_string(), Member::to_string)
}

async fn tag_place(
    member: &MemberPart,
    integrity: &IntegrityPart,
    sector: Sector,
) -> Result<TagPlace, IoError> {
    let layout = integrity.volume.layout();
    let spb = layout.block.sectors();
    let block = Sector(sector.0 / spb * spb);
    let run = layout.run(block, spb);
    let lower = integrity.volume.lower();
    let stored = tags::stored(lower, layout, &run).await?;
    let data = read_bytes(lower.data(), run.data.bytes(), layout.block.bytes()).await?;
    let is_known = integrity.tagger.source() != TagSource::Above(None);
    let computed = data.filter(|_| is_known).map(|data| {
        let mut tag = vec![0; layout.tag_bytes];
        integrity.tagger.sign(block.0, &data, &mut tag);
        tag_text(&tag)
    });
    Ok(TagPlace {
        block_sector: block.0,
        block_bytes: layout.block.bytes(),
        tag_byte: tag_byte(member, layout, &run, lower.data().limits().sectors),
        stored: stored.map(|tag| tag_text(&tag)),
        computed,
        journal: journal_places(member, integrity, block).await?,
    })
}

/// Every entry of the journal that names `block`.
async fn journal_places(
    member: &MemberPart,
    integrity: &IntegrityPart,
    block: Sector,
) -> Result<Vec<JournalPlace>, IoError> {
    let journal = integrity.volume.layout().journal;
    let mut found = Vec::new();
    let codec = Codec::without_mac(&journal, &integrity.journal).expect("it was opened with it");
    // A cipher chains over the whole section.
    let is_encrypted = integrity.journal.cipher.is_some();
    let sectors = if is_encrypted { journal.section_sectors } else { SECTION_METADATA_SECTORS };
    for section in 0..journal.sections {
        let start = journal.section_start(section).bytes();
        let length = usize_of(sectors * SECTOR);
        let Some(metadata) = read_bytes(&member.leaf, start, length).await? else { continue };
        let mut metadata = Buf::copy_of(&metadata);
        codec.open(section, &mut metadata);
        let metadata = metadata.as_slice();
        for entry in 0..journal.entries_per_section {
            if journal.entry_sector(metadata, entry) == EntrySector::Used(block.0) {
                // The lap of its metadata sector; replay also looks at the data's.
                let within = u64::from(entry % 8);
                let at = usize_of(within * SECTOR) + 504;
                let mut id = [0; 8];
                id.copy_from_slice(&metadata[at..at + 8]);
                let lap = codec.ids().sequence(section, within, u64::from_le_bytes(id));
                found.push(JournalPlace { section, entry, sequence: lap.map(|lap| lap.index()) });
            }
        }
    }
    Ok(found)
}
