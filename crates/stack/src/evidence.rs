//! What is known of every strip or copy of one row: each as it lies, its tag's verdict, and what the
//! others say it should be. Reads only; decides nothing.
//!
//! Of an array with a write journal the row is as it is once the journal has come home: that is what parity
//! is compared with. What lies at home instead is shown beside it, and so is data that has no parity yet.

use crate::explain::Part;
use crate::logged::{Logged, Whereabouts};
use crate::verified::verified;
use crate::volume::MemberPart;
use crate::write_journal::WriteJournal;
use bio::{Bio, Buf, Device, Events};
use gf::{Strip, Wrong};
use md::geometry::Geometry;
use md::journal::BLOCK_SECTORS;
use serde::Serialize;
use units::{Sector, usize_of};

/// What a member's tag says of its strip or copy, or the checksum of a write journal of a block in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TagVerdict {
    /// It agrees with what lies there.
    Valid,
    /// It does not.
    Invalid,
    /// What lies there cannot be read.
    Unreadable,
    /// The member has no tags.
    Untagged,
    /// There is no member.
    Missing,
}

/// One strip or copy of the row, as it lies. A strip of which a write journal holds blocks has several, the
/// newest first.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Candidate {
    /// What it is.
    pub part: Part,
    /// Its slot.
    pub slot: usize,
    /// Its member; none: missing.
    pub member: Option<String>,
    /// Where it lies.
    pub lies: Whereabouts,
    /// What its tag says.
    pub verdict: TagVerdict,
}

/// What the others say that a strip or copy should be.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Reconstruction {
    /// The slot that it is for.
    pub slot: usize,
    /// From what: `P`, `Q`, `P and Q`, `data`, `slot N`, or, where the write journal holds some of it,
    /// [`FROM_HOME`] (what it lies over) and [`FROM_JOURNAL`] (newer data, without parity).
    pub from: String,
    /// Whether its own tag agrees with it, the member's or the journal's; none: there is none.
    pub vouched: Option<bool>,
    /// Bytes that differ from what lies there; none: that cannot be read.
    pub differing_bytes: Option<usize>,
    /// The first lines that differ.
    pub lines: Vec<HexLine>,
}

/// Sixteen bytes of a block, in hexadecimal.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct HexLine {
    /// The first one's place in the block.
    pub offset: usize,
    /// As they lie there.
    pub lies: String,
    /// As they would be.
    pub instead: String,
}

/// All that is known of a row.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Evidence {
    /// Bytes of each block of the row.
    pub block_bytes: usize,
    /// Every strip or copy.
    pub candidates: Vec<Candidate>,
    /// Whether P agrees with the data as it lies; none: something cannot be read, or there is no P.
    pub p_agrees: Option<bool>,
    /// The same of Q.
    pub q_agrees: Option<bool>,
    /// The one slot that P and Q, or most of three or more copies, name as wrong.
    pub named: Option<usize>,
    /// What the others say of the slot that was asked for, and of every one whose tag does not agree or
    /// that is named.
    pub reconstructions: Vec<Reconstruction>,
}

/// What [`Reconstruction::from`] calls what lies on the member below the write journal.
pub const FROM_HOME: &str = "home";
/// What [`Reconstruction::from`] calls data of the write journal that has no parity yet.
pub const FROM_JOURNAL: &str = "the journal alone";

/// Lines that are shown of one difference.
const LINES_MAX: usize = 8;
const LINE_BYTES: usize = 16;

/// A strip or copy that is to be looked at.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub part: Part,
    pub slot: usize,
    pub holder: Option<&'a MemberPart>,
    /// Where the data begins in what the array sees of the member.
    pub offset: Sector,
    /// In that data.
    pub sector: Sector,
}

/// What lies at one site, or in the journal for it.
struct Lies<'a> {
    site: Site<'a>,
    first: Sector,
    logged: Option<Logged>,
    bytes: Option<Buf>,
    verdict: TagVerdict,
}

impl Lies<'_> {
    fn at(&self) -> Whereabouts {
        self.logged.map_or(Whereabouts::Home, |logged| logged.lies)
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            part: self.site.part,
            slot: self.site.slot,
            member: self.site.holder.map(|holder| holder.name.to_string()),
            lies: self.at(),
            verdict: self.verdict,
        }
    }
}

/// Looks at the row that `sites` are, the one that was asked for first; of a stripe, with its geometry, and
/// with what a write journal holds of it.
pub(crate) async fn evidence(
    sites: Vec<Site<'_>>,
    stripe: Option<(&Geometry, u64)>,
    journal: Option<&WriteJournal>,
) -> Evidence {
    let block = |site: &Site<'_>| {
        let integrity = site.holder.and_then(|holder| holder.integrity.as_ref());
        integrity.map_or(1, |part| part.volume.layout().block.sectors())
    };
    let sectors = sites.iter().map(block).max().unwrap_or(1);
    let asked = sites.first().copied();
    // What a journal lies over has no larger blocks than its own.
    let journal =
        journal.filter(|journal| asked.is_some_and(|site| journal.names_row(site.sector)));
    let sectors = if journal.is_some() { BLOCK_SECTORS } else { sectors };
    let (mut row, mut beside) = (Vec::new(), Vec::new());
    for site in sites {
        let home = look(site, sectors).await;
        let mut all = look_logged(site, journal).await;
        all.push(home);
        let counts = all.iter().position(|lies| lies.at() != Whereabouts::JournalAlone);
        row.push(all.remove(counts.expect("home is among them")));
        beside.append(&mut all);
    }
    let candidates = row.iter().chain(&beside).map(Lies::candidate);
    let mut candidates: Vec<Candidate> = candidates.collect();
    candidates.sort_by_key(|candidate| (candidate.slot, std::cmp::Reverse(candidate.lies)));
    let mut evidence = Evidence {
        block_bytes: usize_of(Sector(sectors).bytes()),
        candidates,
        p_agrees: None,
        q_agrees: None,
        named: None,
        reconstructions: Vec::new(),
    };
    match stripe {
        Some((geometry, stripe)) => judge_stripe(&row, geometry, stripe, &mut evidence),
        None => evidence.named = outvoted(&row),
    }
    for lies in &row {
        let doubtful = !matches!(lies.verdict, TagVerdict::Valid | TagVerdict::Untagged);
        let slot = lies.site.slot;
        let is_asked = asked.is_some_and(|asked| asked.slot == slot);
        if is_asked || doubtful || Some(slot) == evidence.named {
            reconstruct(lies, &row, stripe, &mut evidence.reconstructions).await;
            let own = beside.iter().filter(|other| other.site.slot == slot);
            evidence.reconstructions.extend(own.filter_map(|other| instead(lies, other)));
        }
    }
    evidence
}

/// What lies on the member.
async fn look(site: Site<'_>, sectors: u64) -> Lies<'_> {
    let first = site.offset + site.sector.0 / sectors * sectors;
    let lies = |bytes, verdict| Lies { site, first, logged: None, bytes, verdict };
    let Some(device) = device(&site) else { return lies(None, TagVerdict::Missing) };
    let tagged = device.limits().verified;
    let mut bio = match tagged {
        true => Bio::peek(first, sectors, false),
        false => Bio::read(first, sectors).bypassing(),
    };
    let bytes = device.submit(&mut bio).await.ok().map(|()| bio.data.into_single());
    let verdict = match &bytes {
        None => TagVerdict::Unreadable,
        Some(_) if !tagged => TagVerdict::Untagged,
        Some(bytes) if vouches(&device, first, bytes).await => TagVerdict::Valid,
        Some(_) => TagVerdict::Invalid,
    };
    lies(bytes, verdict)
}

/// What the journal holds of a site, the newest first.
async fn look_logged<'a>(site: Site<'a>, journal: Option<&WriteJournal>) -> Vec<Lies<'a>> {
    let mut all = Vec::new();
    let Some(journal) = journal else { return all };
    let first = site.offset + site.sector.0 / BLOCK_SECTORS * BLOCK_SECTORS;
    for logged in journal.logged(site.slot, site.sector) {
        let bytes = journal.read_logged(&logged).await;
        let verdict = match &bytes {
            None => TagVerdict::Unreadable,
            Some(bytes) if logged.vouches(bytes.as_slice()) => TagVerdict::Valid,
            Some(_) => TagVerdict::Invalid,
        };
        all.push(Lies { site, first, logged: Some(logged), bytes, verdict });
    }
    all
}

fn device(site: &Site<'_>) -> Option<Device> {
    let holder = site.holder?;
    let inner = holder.integrity.as_ref();
    let inner = inner.map(|part| verified(part.volume.device(), &Events::none()));
    Some(inner.unwrap_or_else(|| holder.leaf.clone()))
}

async fn vouches(device: &Device, sector: Sector, bytes: &Buf) -> bool {
    device.submit(&mut Bio::vouch(sector, bytes.clone())).await.is_ok()
}

/// The strips of a stripe by slot.
fn strips<'a>(row: &'a [Lies<'_>], slots: usize) -> Vec<Option<&'a [u8]>> {
    let mut strips = vec![None; slots];
    for lies in row.iter().filter(|lies| lies.site.slot < slots) {
        strips[lies.site.slot] = lies.bytes.as_ref().map(Buf::as_slice);
    }
    strips
}

/// Whether parity agrees, and whom P and Q name.
fn judge_stripe(row: &[Lies<'_>], geometry: &Geometry, stripe: u64, evidence: &mut Evidence) {
    let known = strips(row, geometry.raid_disks());
    let error = |slot: usize| {
        let made = solve(&known, geometry, stripe, slot, None)?;
        let error: Vec<u8> = made.iter().zip(known[slot]?).map(|(a, b)| a ^ b).collect();
        Some(error)
    };
    let zero = |error: &Vec<u8>| error.iter().all(|&byte| byte == 0);
    let p = error(geometry.p_slot(stripe));
    let q = geometry.q_slot(stripe).and_then(error);
    evidence.p_agrees = p.as_ref().map(zero);
    evidence.q_agrees = q.as_ref().map(zero);
    if let (Some(p), Some(q)) = (p, q) {
        let powers = powers(geometry, stripe);
        evidence.named = match gf::locate(powers.len(), &p, &q) {
            Wrong::Nothing | Wrong::Several => None,
            Wrong::P => Some(geometry.p_slot(stripe)),
            Wrong::Q => geometry.q_slot(stripe),
            Wrong::Data(power) => powers[power],
        };
    }
}

/// The copy that more than half of three or more disagree with, if it is one.
fn outvoted(row: &[Lies<'_>]) -> Option<usize> {
    let copies: Option<Vec<&[u8]>> =
        row.iter().map(|lies| lies.bytes.as_ref().map(Buf::as_slice)).collect();
    let copies = copies.filter(|copies| copies.len() >= 3)?;
    let votes = |bytes: &[u8]| copies.iter().filter(|&&other| other == bytes).count();
    let mut odd = row.iter().zip(&copies).filter(|(_, bytes)| votes(bytes) * 2 <= copies.len());
    let (first, others) = (odd.next()?, odd.count());
    (others == 0).then_some(first.0.site.slot)
}

async fn reconstruct(
    lies: &Lies<'_>,
    row: &[Lies<'_>],
    stripe: Option<(&Geometry, u64)>,
    reconstructions: &mut Vec<Reconstruction>,
) {
    let slot = lies.site.slot;
    let mut made: Vec<(String, Vec<u8>)> = Vec::new();
    if let Some((geometry, stripe)) = stripe {
        let known = strips(row, geometry.raid_disks());
        let (p, q) = (geometry.p_slot(stripe), geometry.q_slot(stripe));
        if slot == p || Some(slot) == q {
            let of_data = solve(&known, geometry, stripe, slot, None);
            made.extend(of_data.map(|bytes| ("data".to_owned(), bytes)));
        } else {
            for (name, aside) in [("P", q), ("Q", Some(p))] {
                let exists = name == "P" || q.is_some();
                let bytes = exists.then(|| solve(&known, geometry, stripe, slot, aside)).flatten();
                made.extend(bytes.map(|bytes| (name.to_owned(), bytes)));
            }
            if made.is_empty() {
                let both = solve(&known, geometry, stripe, slot, None);
                made.extend(both.map(|bytes| ("P and Q".to_owned(), bytes)));
            }
        }
    } else {
        for other in row.iter().filter(|other| other.site.slot != slot) {
            let bytes = other.bytes.as_ref().map(|bytes| bytes.as_slice().to_vec());
            made.extend(bytes.map(|bytes| (format!("slot {}", other.site.slot), bytes)));
        }
    }
    for (from, bytes) in made {
        let device = device(&lies.site).filter(|device| device.limits().verified);
        let vouched = match (lies.logged, device) {
            (Some(logged), _) => Some(logged.vouches(&bytes)),
            (None, Some(device)) => Some(vouches(&device, lies.first, &Buf::copy_of(&bytes)).await),
            (None, None) => None,
        };
        reconstructions.push(reconstruction(lies, (from, &bytes), vouched));
    }
}

/// What else there is of the same strip; none: it cannot be read.
fn instead(lies: &Lies<'_>, other: &Lies<'_>) -> Option<Reconstruction> {
    let bytes = other.bytes.as_ref()?;
    // With parity it is what the row is made of, and so beside nothing.
    let from = if other.at() == Whereabouts::Home { FROM_HOME } else { FROM_JOURNAL };
    let vouched = match other.verdict {
        TagVerdict::Untagged => None,
        verdict => Some(verdict == TagVerdict::Valid),
    };
    Some(reconstruction(lies, (from.to_owned(), bytes.as_slice()), vouched))
}

fn reconstruction(
    lies: &Lies<'_>,
    (from, bytes): (String, &[u8]),
    vouched: Option<bool>,
) -> Reconstruction {
    let there = lies.bytes.as_ref().map(Buf::as_slice);
    let differing_bytes =
        there.map(|there| there.iter().zip(bytes).filter(|(a, b)| a != b).count());
    let lines = there.map_or_else(Vec::new, |there| difference(there, bytes));
    Reconstruction { slot: lies.site.slot, from, vouched, differing_bytes, lines }
}

/// The first lines in which two blocks differ.
fn difference(lies: &[u8], instead: &[u8]) -> Vec<HexLine> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lines = lies.chunks(LINE_BYTES).zip(instead.chunks(LINE_BYTES)).enumerate();
    let differing = lines.filter(|(_, (lies, instead))| lies != instead);
    let line = |(number, (lies, instead)): (usize, (&[u8], &[u8]))| HexLine {
        offset: number * LINE_BYTES,
        lies: hex(lies),
        instead: hex(instead),
    };
    differing.take(LINES_MAX).map(line).collect()
}

/// The slot of each exponent of Q; none where the layout leaves a gap.
fn powers(geometry: &Geometry, stripe: u64) -> Vec<Option<usize>> {
    let mut powers = Vec::new();
    for index in 0..geometry.data_disks() {
        let q = geometry.q_slot(stripe).is_some();
        let power = if q { geometry.q_exponent(stripe, index) } else { index };
        if powers.len() <= power {
            powers.resize(power + 1, None);
        }
        powers[power] = Some(geometry.data_slot(stripe, index));
    }
    powers
}

/// The strip of `wanted` from the others, without the one in `aside`; none if they are too few.
fn solve(
    known: &[Option<&[u8]>],
    geometry: &Geometry,
    stripe: u64,
    wanted: usize,
    aside: Option<usize>,
) -> Option<Vec<u8>> {
    let length = known.iter().flatten().next()?.len();
    let (mut target, zeros) = (vec![0; length], vec![0; length]);
    let mut buffer = Some(target.as_mut_slice());
    let mut strip = |slot: usize| match known[slot] {
        _ if slot == wanted => buffer.take().map_or(Strip::Absent, Strip::Wanted),
        Some(bytes) if Some(slot) != aside => Strip::Known(bytes),
        _ => Strip::Absent,
    };
    let p = strip(geometry.p_slot(stripe));
    let q = geometry.q_slot(stripe).map_or(Strip::Absent, &mut strip);
    let powers = powers(geometry, stripe);
    let data = powers.iter().map(|slot| slot.map_or(Strip::Known(&zeros), &mut strip));
    let mut data: Vec<Strip<'_>> = data.collect();
    gf::recover(&mut data, p, q).ok()?;
    drop(data);
    Some(target)
}
