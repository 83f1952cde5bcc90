//! A second look at members whose superblocks are damaged, with what the others know.
//!
//! What may be believed, and why, is in [`crate::recover`]; here its candidates are tried on the
//! members. Still nothing is written.

use super::algorithm::candidates;
use super::{
    HINTS, IntegrityFound, MdFound, MdProblem, Probed, ReadIntegrity, find_md, open_read_only,
};
use crate::given::{Given, IntegrityChoice};
use crate::patched::Patched;
use crate::recover::{integrity_candidates, is_as_used, md_by_peer, md_by_tag};
use crate::tags;
use crate::trial::{Belief, read_bytes, trials, trials_quick};
use bio::{Device, EventKind, Events, IoError};
use integrity::superblock::{AREA_BYTES, SUPERBLOCK_BYTES};
use integrity::{Flags, Layout};
use layers::integrity::{Integrity, JournalState, Lower};
use md::superblock::{Minor, SUPERBLOCK_BYTES as MD_BYTES, SUPERBLOCK_SECTORS, Superblock};
use std::rc::Rc;
use units::{SECTOR_BYTES, Sector};

/// Repairs in memory what can be.
///
/// # Errors
/// A device that fails as a whole.
pub(crate) async fn repair(
    members: &mut [Probed],
    given: &Given,
    events: &Events,
) -> Result<(), IoError> {
    if !matches!(given.integrity, IntegrityChoice::None) {
        repair_integrity(members, given, events).await?;
    }
    let peers: Vec<(Superblock, Minor)> = members
        .iter()
        .filter_map(|member| member.md())
        .map(|superblock| (superblock.clone(), superblock.minor()))
        .collect();
    for member in members {
        let minor = match (&member.md, peers.first()) {
            (MdFound::Problem(MdProblem::Superblock { minor, .. }), _)
            | (MdFound::Problem(MdProblem::Unreadable { minor, .. }), _) => *minor,
            // Perhaps its magic is damaged: only peers can say that there was one.
            (MdFound::None, Some((_, minor))) => *minor,
            _ => continue,
        };
        repair_md(member, minor, &peers, events).await?;
    }
    Ok(())
}

async fn repair_integrity(
    members: &mut [Probed],
    given: &Given,
    events: &Events,
) -> Result<(), IoError> {
    let peers: Vec<integrity::Superblock> = members
        .iter()
        .filter_map(|member| member.open_integrity())
        .map(|open| open.volume.superblock().clone())
        .collect();
    for member in members {
        // A bare md member is no damaged dm-integrity one.
        let bare = matches!(member.integrity, IntegrityFound::None);
        let sound = member.open_integrity().is_some_and(|open| {
            let sectors = member.leaf.device.limits().sectors;
            let superblock = open.volume.superblock();
            let is_used =
                is_as_used(superblock, sectors) && !superblock.flags.has(Flags::DIRTY_BITMAP);
            !open.trial.is_suspicious() && is_used
        });
        // What lies on two devices is not guessed.
        if sound || (bare && member.md().is_some()) || member.leaf.data.is_some() {
            continue;
        }
        let device = member.leaf.device.clone();
        if u64::try_from(AREA_BYTES)
            .is_ok_and(|bytes| Sector(device.limits().sectors).bytes() < bytes)
        {
            continue;
        }
        let Some(area) = read_bytes(&device, 0, AREA_BYTES).await? else { continue };
        if carries_mac(&area) {
            continue;
        }
        let Some((superblock, layout)) = only_candidate(&device, &area, &peers, given).await?
        else {
            continue;
        };
        let mut head = area.clone();
        let fields = superblock.encode();
        head[..fields.len()].copy_from_slice(&fields);
        let patched = Device::new(Patched::new(device, head));
        let own_events = events.for_member(&member.name);
        let found =
            open_read_only(&patched.into(), &superblock, layout, given, &own_events).await?;
        if let IntegrityFound::Open(open) = found {
            if drops_bitmap(&area, &superblock) && !journal_is_newer(&open.volume).await? {
                continue;
            }
            let md = find_md(&open.volume.device()).await?;
            if let Some(stored) = only_smaller(&area, &superblock)
                && !goes_on_behind(&open, &md, stored).await?
            {
                continue;
            }
            let detail = "dm-integrity superblock rebuilt: written blocks vouch for it".to_owned();
            own_events.emit_detail(EventKind::Note, Sector::ZERO, 0, detail);
            let open = ReadIntegrity { repaired: Some(superblock), ..*open };
            member.md = md;
            member.integrity = IntegrityFound::Open(Box::new(open));
        }
    }
    Ok(())
}

/// Whether the superblock in `area` says that it is authentic and something like a MAC is there: no
/// flipped bit puts it there, and to drop that flag would be to drop what the owner asked for.
fn carries_mac(area: &[u8]) -> bool {
    let superblock = integrity::Superblock::decode(area);
    let flagged = superblock.is_ok_and(|found| found.flags.has(Flags::JOURNAL_MAC));
    flagged && area[SUPERBLOCK_BYTES..SECTOR_BYTES].iter().any(|&byte| byte != 0)
}

/// Whether all that `rebuilt` changes in the superblock in `area` is the flag by which the journal's
/// area holds a bitmap. Tags do not tell that from a flipped bit: only a journal that holds newer data
/// does. (Bitmap mode leaves none: what was in the journal is home, and its sections are made anew
/// before.)
fn drops_bitmap(area: &[u8], rebuilt: &integrity::Superblock) -> bool {
    let Ok(stored) = integrity::Superblock::decode(area) else { return false };
    let flags = rebuilt.flags.with(Flags::DIRTY_BITMAP);
    stored == integrity::Superblock { flags, ..rebuilt.clone() }
}

/// The sectors that the superblock in `area` gives, if all that `rebuilt` changes is to give more.
fn only_smaller(area: &[u8], rebuilt: &integrity::Superblock) -> Option<u64> {
    let stored = integrity::Superblock::decode(area).ok()?;
    let provided_sectors = rebuilt.provided_sectors;
    let same = *rebuilt == integrity::Superblock { provided_sectors, ..stored.clone() };
    Some(stored.provided_sectors).filter(|&stored| same && stored < provided_sectors)
}

/// Whether the volume that is `open` is more than its first `sectors`: an array needs it, or the blocks
/// there and at its end are blocks of it. (A volume that was made smaller on a device that was not, to a
/// size one bit away, looks the same: then it has its old size again, with all that it held.)
async fn goes_on_behind(open: &ReadIntegrity, md: &MdFound, sectors: u64) -> Result<bool, IoError> {
    if let MdFound::Sound { superblock, .. } = md {
        let end = superblock.data_offset().0.saturating_add(superblock.data_size());
        if end.max(superblock.super_offset().0.saturating_add(SUPERBLOCK_SECTORS)) > sectors {
            return Ok(true);
        }
    }
    let device = open.volume.device();
    let block = device.limits().logical_block.sectors();
    for sector in [sectors, device.limits().sectors - block] {
        match device.read(Sector(sector), block).await {
            Ok(_) => {}
            Err(error) if error.kind.is_damage() => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether the journal of `volume`, which is open for reading, holds a block whose tag vouches for it
/// and that is not what lies at home.
async fn journal_is_newer(volume: &Rc<Integrity>) -> Result<bool, IoError> {
    let report = match volume.journal_report().await {
        Ok(Some(report)) => report,
        Ok(None) => return Ok(false),
        Err(error) if error.kind.is_damage() => return Ok(false),
        Err(error) => return Err(error),
    };
    let device = volume.device();
    let block = device.limits().logical_block.sectors();
    for sector in report.discard_loses {
        if device.read(sector, block).await.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The one candidate for which written blocks vouch; none if there is none, or more than one.
async fn only_candidate(
    device: &Device,
    area: &[u8],
    peers: &[integrity::Superblock],
    given: &Given,
) -> Result<Option<(integrity::Superblock, Layout)>, IoError> {
    if area.iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let mut found = None;
    let lower = Lower::from(device.clone());
    for (superblock, layout) in integrity_candidates(area, peers, device.limits().sectors) {
        let Ok(taggers) = candidates(given, &superblock, &layout) else { return Ok(None) };
        let quick = trials_quick(&lower, &layout, &taggers, &HINTS).await?;
        if quick.iter().all(|trial| trial.verified == 0) {
            continue;
        }
        let trials = trials(&lower, &layout, &taggers, &HINTS).await?;
        let mut proven = trials.iter().filter(|trial| trial.belief() == Belief::Proven);
        if proven.next().is_none_or(|trial| trial.is_suspicious()) || proven.next().is_some() {
            continue;
        }
        if found.replace((superblock, layout)).is_some() {
            return Ok(None);
        }
    }
    Ok(found)
}

async fn repair_md(
    member: &mut Probed,
    minor: Minor,
    peers: &[(Superblock, Minor)],
    events: &Events,
) -> Result<(), IoError> {
    let Some(inner) = member.inner() else { return Ok(()) };
    let sectors = inner.limits().sectors;
    let Some(place) = minor.super_offset(sectors) else { return Ok(()) };
    if let Some(open) = member.open_integrity() {
        let newest = match open.volume.journal_state() {
            JournalState::Clean
            | JournalState::Absent
            | JournalState::Bitmap
            | JournalState::Ignored => true,
            JournalState::Overlaid { .. } => open.volume.lies_home(place, SUPERBLOCK_SECTORS),
            JournalState::Replayed { .. } | JournalState::Damaged(_) | JournalState::Mended(_) => {
                false
            }
        };
        if !newest {
            // What lies at home must not be taken for the newest copy.
            return Ok(());
        }
    }
    let open = member.open_integrity();
    // The bytes as they lie there, past their tags.
    let (device, byte) = match open {
        Some(open) => {
            let run = open.layout.run(place, SUPERBLOCK_SECTORS);
            if run.sectors < SUPERBLOCK_SECTORS {
                return Ok(());
            }
            (open.volume.lower().data().clone(), run.data.bytes())
        }
        None => (inner.clone(), place.bytes()),
    };
    let Some(raw) = read_bytes(&device, byte, MD_BYTES).await? else { return Ok(()) };
    let mut found = Superblock::decode(&raw, minor, sectors).ok();
    if found.is_none()
        && let Some(open) = open
    {
        let run = open.layout.run(place, SUPERBLOCK_SECTORS);
        let tags = tags::stored(open.volume.lower(), &open.layout, &run).await?;
        let fits = |bytes: &[u8], tags: &[u8]| open.tagger.vouches(place.0, bytes, tags);
        found = tags.and_then(|tags| md_by_tag(&raw, minor, sectors, |bytes| fits(bytes, &tags)));
    }
    let by_peers = || {
        let fitting = peers.iter().filter(|(_, other)| *other == minor);
        fitting.filter_map(|(peer, _)| md_by_peer(&raw, peer, minor, sectors)).next()
    };
    if let Some(superblock) = found.or_else(by_peers) {
        let detail = "md superblock rebuilt: its checksum vouches for it".to_owned();
        let own_events = events.for_member(&member.name);
        own_events.emit_detail(EventKind::Note, place, 0, detail);
        member.md = MdFound::Sound { superblock: Box::new(superblock), repaired: true };
    } else if let MdFound::Problem(MdProblem::Unreadable { .. }) = member.md
        && peers.is_empty()
        && !resembles_md(&raw)
    {
        // A block of data that is damaged, and nothing that says it ever was a superblock.
        member.md = MdFound::None;
    }
    Ok(())
}

/// Whether `bytes` start like a superblock of metadata 1.x, but for a few bits. What is damaged and
/// no superblock does so about once in 2^32 times.
fn resembles_md(bytes: &[u8]) -> bool {
    let differing = bytes.iter().zip(MD_START).map(|(found, known)| (found ^ known).count_ones());
    bytes.len() >= MD_START.len() && differing.sum::<u32>() <= 8
}

/// Magic and major version (the md specification, section 2), as they lie there.
const MD_START: [u8; 8] = *b"\xfc\x4e\x2b\xa9\x01\0\0\0";
