//! Puts the layers on top of each other, as decided.

use super::decide::{ArrayDecision, Decision, Rules};
use super::error::OpenError;
use crate::events::{EventLog, INTEGRITY_SUPERBLOCK, MD_SUPERBLOCK};
use crate::probe::{IntegrityFound, MdFound, Probed};
use crate::top::Top;
use crate::verified::{signed, verified};
use crate::volume::{MemberPart, Parts, Volume};
use crate::write_journal::WriteJournal;
use bio::{Bio, Buf, Device, EventKind, Events, IoError};
use integrity::superblock::{AREA_SECTORS, SUPERBLOCK_BYTES};
use layers::array::{Array, Found, Options as ArrayOptions, wall_clock};
use layers::integrity::Integrity;
use layers::linear::Linear;
use md::assemble::CannotStart;
use md::superblock::Superblock;
use std::rc::Rc;
use units::{Sector, usize_of};

/// Builds the volume; on failure everything that was opened is closed again.
pub(super) async fn build(
    mut members: Vec<Probed>,
    decision: Decision,
    rules: Rules,
    log: EventLog,
    events: Events,
) -> Result<Volume, OpenError> {
    let taking_part: Vec<usize> = match &decision {
        Decision::Single => vec![0],
        Decision::Array(array) => {
            let others = array.spares.iter().copied().chain(array.journal);
            let others = others.filter(|_| !rules.read_only);
            array.holders().map(|(_, index)| index).chain(others).collect()
        }
    };
    if rules.read_only {
        taking_part.iter().for_each(|&index| tell_damaged(&members[index], &events));
    } else {
        for &index in &taking_part {
            let alone = taking_part.len() == 1;
            if let Err(error) = make_writable(&mut members[index], alone, &events).await {
                close_all(&members).await;
                return Err(error);
            }
        }
    }
    let parts: Vec<MemberPart> = members.iter().map(MemberPart::of).collect();
    let (top, array) = match &decision {
        Decision::Single => {
            let open = members[0].open_integrity().expect("that is what a single volume is");
            (Top::integrity(&open.volume), None)
        }
        Decision::Array(array) => {
            let built = build_array(&members, array, rules, &events).await;
            let (top, running) = match built {
                Ok(built) => built,
                Err(error) => {
                    close_all(&members).await;
                    return Err(error);
                }
            };
            tell(&members, array, rules, &events);
            (top, Some((running, array)))
        }
    };
    // What a volume of one member finds out is that member's.
    let of_top = match &decision {
        Decision::Single => events.for_member(&members[0].name),
        Decision::Array(_) => events.clone(),
    };
    let given = members.iter().find_map(|member| Some(member.open_integrity()?.given.clone()));
    let freshest = array.as_ref().and_then(|(_, array)| members[array.newest].md().cloned());
    let (array, decision) = array.unzip();
    Ok(Volume::new(Parts {
        top: top.protected(&of_top),
        array,
        freshest,
        assembly: decision.map(|decision| decision.as_ref()),
        members: parts,
        read_only: rules.read_only,
        given: given.unwrap_or_default(),
        log,
        events,
    }))
}

async fn close_all(members: &[Probed]) {
    for member in members {
        if let Some(open) = member.open_integrity() {
            // The reason why opening failed is told already; what could not be closed is as after
            // a crash, which every opening deals with.
            let _told = open.volume.close().await;
        }
    }
}

/// Step 4 of the opening, for one member.
pub(crate) async fn make_writable(
    member: &mut Probed,
    alone: bool,
    events: &Events,
) -> Result<(), OpenError> {
    let events = events.for_member(&member.name);
    let name = member.name.to_string();
    let failed = |error: IoError| OpenError::Io { member: name.clone(), error };
    if let IntegrityFound::Open(open) =
        std::mem::replace(&mut member.integrity, IntegrityFound::None)
    {
        let lower = member.leaf.lower();
        let mut open = *open;
        if let Some(superblock) = open.repaired.take() {
            write_integrity_superblock(&lower.metadata, &superblock).await.map_err(failed)?;
            heal_told(&events, Sector::ZERO, AREA_SECTORS, INTEGRITY_SUPERBLOCK);
        }
        let mut options = open.given.options(open.tagger.source(), events.clone());
        if alone {
            options.memory_bytes *= 2;
        }
        let volume = Integrity::open(lower, options).await;
        let member_name = name.clone();
        open.volume = volume.map_err(|error| OpenError::Integrity {
            member: member_name,
            problem: crate::probe::IntegrityProblem::Open(error),
        })?;
        member.integrity = IntegrityFound::Open(Box::new(open));
    }
    let inner = member.inner().expect("it takes part, so it can be read");
    if let MdFound::Sound { superblock, repaired } = &mut member.md
        && std::mem::take(repaired)
    {
        let bytes = Buf::copy_of(&superblock.encode());
        let place = superblock.super_offset();
        inner.submit(&mut Bio::write_fua(place, bytes)).await.map_err(failed)?;
        heal_told(&events, place, md::superblock::SUPERBLOCK_SECTORS, MD_SUPERBLOCK);
    }
    if let (Some(Ok(journal)), MdFound::Sound { superblock, .. }) =
        (&mut member.write_journal, &member.md)
    {
        let device = signed(verified(inner, &events), &events);
        let lies = journal.lies_on(&device, superblock);
        lies.map_err(|why| OpenError::Array { why: why.to_string() })?;
    }
    Ok(())
}

pub(crate) fn heal_told(events: &Events, sector: Sector, sectors: u64, what: &str) {
    let kind = EventKind::Healed { source: "superblock evidence", vouched: true };
    events.emit_detail(kind, sector, sectors, format!("{what} written back"));
}

/// The superblocks of a member that are damaged on it, where nothing is written.
fn tell_damaged(member: &Probed, events: &Events) {
    let events = events.for_member(&member.name);
    let tell = |place, sectors, what: &str| {
        events.emit_detail(EventKind::Healable, place, sectors, what.to_owned());
    };
    if member.open_integrity().is_some_and(|open| open.repaired.is_some()) {
        tell(Sector::ZERO, AREA_SECTORS, INTEGRITY_SUPERBLOCK);
    }
    if let MdFound::Sound { superblock, repaired: true } = &member.md {
        tell(superblock.super_offset(), md::superblock::SUPERBLOCK_SECTORS, MD_SUPERBLOCK);
    }
}

/// Writes the 64 bytes of the superblock; the rest of its area stays as it is.
async fn write_integrity_superblock(
    device: &Device,
    superblock: &integrity::Superblock,
) -> Result<(), IoError> {
    let area = device.read(Sector::ZERO, AREA_SECTORS).await?;
    let mut bytes = Buf::copy_of(area.as_slice());
    bytes.as_mut_slice()[..SUPERBLOCK_BYTES].copy_from_slice(&superblock.encode());
    device.submit(&mut Bio::write_fua(Sector::ZERO, bytes)).await?;
    device.flush().await
}

async fn build_array(
    members: &[Probed],
    decision: &ArrayDecision,
    rules: Rules,
    events: &Events,
) -> Result<(Top, Rc<Array>), OpenError> {
    let freshest = members[decision.newest].md().expect("the newest has a superblock");
    let refuse = |why: CannotStart| OpenError::Array { why: why.to_string() };
    let holders = decision.in_sync.iter().filter_map(|&(_, index)| members[index].md());
    let data_sizes: Vec<u64> = holders.map(Superblock::data_size).collect();
    let shape = freshest.shape(&data_sizes).map_err(refuse)?;
    let journal = decision.journal.and_then(|index| {
        let journal = members[index].write_journal.as_ref()?.as_ref().ok()?;
        Some((journal, &members[index]))
    });
    let overlaid = journal.map(|(journal, _)| journal).filter(|_| rules.read_only);
    let written = journal.filter(|_| !rules.read_only);
    let array = |slots: usize, data: DataOffset| -> Result<Rc<Array>, OpenError> {
        let holders = decision.holders().filter(|(slot, _)| *slot < slots);
        let found = holders.map(|(slot, index)| {
            let found = found(&members[index], slot, data, events)?;
            with_journal(overlaid, found)
        });
        let found = found.collect::<Result<Vec<Found>, OpenError>>()?;
        let options = ArrayOptions {
            read_only: rules.read_only,
            tolerance: shape.tolerance(),
            synced: decision.assembly.resync,
            events: events.clone(),
            clock: Rc::new(wall_clock),
        };
        Ok(Array::new(slots, found, Some(freshest), options))
    };
    let data_offset: DataOffset = |superblock| Some(superblock.data_offset());
    let Some(sides) = freshest.sides() else {
        let array = array(usize_of(freshest.raid_disks().into()), data_offset)?;
        for &index in decision.spares.iter().filter(|_| !rules.read_only) {
            array.add_spare(found(&members[index], 0, data_offset, events)?);
        }
        if let Some((_, member)) = written {
            let events = events.for_member(&member.name);
            let device = member.inner().expect("it takes part, so it can be read");
            let device = signed(verified(device, &events), &events);
            array.go_through_journal(device, member.md().expect("it has a role").clone());
        }
        let journal = written.map(|(journal, _)| journal.to_write());
        let force = rules.force || rules.as_given;
        let top = Top::over(&array, shape, force, journal.as_ref()).await?;
        return Ok((overlaid.into_iter().fold(top, Top::with_journal), array));
    };
    let sides = sides.map_err(refuse)?;
    let before = array(sides.before.raid_disks(), data_offset)?;
    let after = array(sides.after.raid_disks(), Superblock::data_offset_after)?;
    let top = Top::sides(&before, &after, &sides, freshest.size())?;
    let wider = if sides.slots() == sides.after.raid_disks() { after } else { before };
    Ok((top, wider))
}

/// A member's data as it is once the journal has come home.
///
/// # Errors
/// If it keeps what no journal keeps.
fn with_journal(journal: Option<&WriteJournal>, found: Found) -> Result<Found, OpenError> {
    let Some(journal) = journal else { return Ok(found) };
    if found.data.limits().tag_size > 0 {
        let why = format!("{}: a write journal keeps no tags beside its blocks", found.name);
        return Err(OpenError::Array { why });
    }
    Ok(Found { data: journal.over_member(found.slot, found.data), ..found })
}

/// Where a member's data starts, in one of the array's shapes.
type DataOffset = fn(&Superblock) -> Option<Sector>;

/// A member as the array takes it.
///
/// # Errors
/// If its data lies where it has none.
pub(crate) fn found_in(member: &Probed, slot: usize, events: &Events) -> Result<Found, OpenError> {
    found(member, slot, |superblock| Some(superblock.data_offset()), events)
}

fn found(
    member: &Probed,
    slot: usize,
    data: DataOffset,
    events: &Events,
) -> Result<Found, OpenError> {
    let superblock = member.md().expect("it takes part").clone();
    let device = member.inner().expect("it takes part, so it can be read");
    let events = events.for_member(&member.name);
    let device = verified(device, &events);
    let sectors = superblock.used_sectors();
    let start = data(&superblock).ok_or_else(|| OpenError::Array {
        why: format!("{}: its data starts before its first sector", member.name),
    })?;
    let data = Linear::new(device.clone(), start, sectors)
        .map_err(|error| OpenError::Array { why: format!("{}: {error}", member.name) })?;
    let name = Rc::clone(&member.name);
    let (data, superblock, logs) = (Device::new(data), Some(superblock), member.logs.clone());
    let device = signed(device, &events);
    Ok(Found { slot, name, device, data, superblock, logs })
}

/// What a person should know about who is not there.
fn tell(members: &[Probed], decision: &ArrayDecision, rules: Rules, events: &Events) {
    for (index, why) in &decision.left_out {
        let kind = if is_stale(why) { EventKind::MemberStale } else { EventKind::MemberMissing };
        let events = events.for_member(&members[*index].name);
        events.emit_detail(kind, Sector::ZERO, 0, format!("left out: {why}"));
    }
    let newest = members[decision.newest].md().map_or(0, Superblock::events);
    for &(_, index) in decision.in_sync.iter().filter(|_| rules.as_given) {
        let events_of = members[index].md().map_or(0, Superblock::events);
        if events_of < newest {
            let detail = format!(
                "taken as given: it is at event {events_of}, the freshest at {newest}, so what it \
                 missed comes as it was"
            );
            let events = events.for_member(&members[index].name);
            events.emit_detail(EventKind::MemberStale, Sector::ZERO, 0, detail);
        }
    }
    let empty = decision
        .assembly
        .slots
        .iter()
        .enumerate()
        .filter(|(slot, _)| !decision.holders().any(|(held, _)| held == *slot));
    for (slot, _) in empty {
        let detail = format!("slot {slot} has no member, the array is degraded");
        events.emit_detail(EventKind::MemberMissing, Sector::ZERO, 0, detail);
    }
    if let Some(index) = decision.journal {
        tell_journal(&members[index], rules, events);
    }
    if decision.assembly.resync != md::superblock::ResyncOffset::Clean {
        let detail = if rules.read_only {
            "redundancy may not be true everywhere until it is opened for writing"
        } else {
            "redundancy is made true again in the background"
        };
        events.emit_detail(EventKind::Dirty, Sector::ZERO, 0, detail.to_owned());
    }
}

/// What the write journal adds, and what is wrong with it.
fn tell_journal(member: &Probed, rules: Rules, events: &Events) {
    let Some(Ok(journal)) = &member.write_journal else { return };
    let events = events.for_member(&member.name);
    let blocks = journal.found.rows.blocks();
    if blocks > 0 && rules.read_only {
        let detail = format!("{blocks} blocks are read from the write journal");
        events.emit_detail(EventKind::JournalReplayed, Sector::ZERO, 0, detail);
    }
    if let Some(damage) = journal.damage() {
        let detail = format!("what the write journal held from there on is lost: {damage}");
        events.emit_detail(EventKind::Dirty, Sector::ZERO, 0, detail);
    }
}

fn is_stale(why: &super::error::WhyLeftOut) -> bool {
    use super::error::WhyLeftOut;
    use md::assemble::LeftOut;
    matches!(why, WhyLeftOut::Array(LeftOut::Stale { .. } | LeftOut::Dropped(_)))
}
