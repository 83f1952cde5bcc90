//! The part of a scrub that no layer does: are the superblocks on the members still what the
//! volume goes by?
//!
//! A damaged superblock is noticed only when the volume is opened next, perhaps together with other
//! damage. While the volume is open, what belongs there is in memory.

use crate::events::{INTEGRITY_SUPERBLOCK, MD_SUPERBLOCK};
use crate::open::heal_told;
use crate::volume::{MemberPart, Volume};
use bio::{Bio, Buf, Device, Extent, Finding, Findings, ScrubMode};
use integrity::superblock::{AREA_SECTORS, SUPERBLOCK_BYTES};
use integrity::{Flags, Superblock};
use layers::array::{Array, Member};
use layers::integrity::{JournalKeys, sealed_area};
use md::superblock::SUPERBLOCK_SECTORS;
use std::rc::Rc;
use units::{SECTOR, SECTOR_BYTES, Sector, usize_of};

/// Compares every superblock with what belongs there, and repairs it if `mode` allows.
pub(crate) async fn scrub(volume: &Volume, mode: ScrubMode) -> Findings {
    let mode = if volume.is_read_only() { ScrubMode::Check } else { mode };
    let mut findings = Findings::default();
    for part in volume.parts() {
        if volume.array().is_none() || volume.running(&part.name).is_some() {
            integrity(&part, mode, &mut findings).await;
        }
    }
    tell(volume, &findings, INTEGRITY_SUPERBLOCK);
    if let Some(array) = volume.array() {
        let mut of_md = Findings::default();
        md(array, mode, &mut of_md).await;
        tell(volume, &of_md, MD_SUPERBLOCK);
        findings.merge(of_md);
    }
    findings
}

/// A heal is an event, wherever it happens.
fn tell(volume: &Volume, findings: &Findings, what: &str) {
    for (finding, member, extent) in &findings.found {
        if let (Finding::Healed, Some(member)) = (finding, member) {
            heal_told(&volume.events().for_member(member), extent.sector, extent.sectors, what);
        }
    }
}

/// The dm-integrity superblock, while its layer leaves it alone.
async fn integrity(part: &MemberPart, mode: ScrubMode, findings: &mut Findings) {
    let Some(open) = &part.integrity else { return };
    findings.checked_sectors += AREA_SECTORS;
    let compared = async |superblock| compare(part, &open.journal, &superblock, mode).await;
    if let Some(finding) = open.volume.holding_superblock(compared).await {
        let extent = Extent { sector: Sector::ZERO, sectors: AREA_SECTORS };
        findings.found.push((finding, Some(Rc::clone(&part.name)), extent));
    }
}

/// Compares the superblock on the member with what belongs there; none: it is that.
async fn compare(
    part: &MemberPart,
    keys: &JournalKeys,
    superblock: &Superblock,
    mode: ScrubMode,
) -> Option<Finding> {
    // With its MAC, where that is known; else only the fields can be compared.
    let sealed = sealed_area(superblock, keys).expect("it was opened with these keys");
    let has_mac = superblock.flags.has(Flags::JOURNAL_MAC);
    let is_known = !has_mac || keys.mac.is_some();
    let expected = &sealed[..if has_mac && is_known { SECTOR_BYTES } else { SUPERBLOCK_BYTES }];
    let fits = |area: &Buf| area.as_slice().starts_with(expected);
    let extent = Extent { sector: Sector::ZERO, sectors: AREA_SECTORS };
    let area = read(&part.leaf, extent).await;
    if area.as_ref().is_some_and(fits) {
        return None;
    }
    let mut finding = Finding::Healable;
    if mode.writes() {
        let mut bytes = Buf::zeroed(usize_of(AREA_SECTORS * SECTOR));
        if let Some(area) = area {
            bytes.as_mut_slice().copy_from_slice(area.as_slice());
        }
        bytes.as_mut_slice()[..expected.len()].copy_from_slice(expected);
        let written = part.leaf.submit(&mut Bio::write_fua(Sector::ZERO, bytes)).await;
        let again = read(&part.leaf, extent).await;
        let good = again.as_ref().is_some_and(fits);
        finding = if written.is_ok() && good { Finding::Healed } else { Finding::Unreadable };
    }
    Some(finding)
}

/// The md superblocks. Only the array writes them, so that an older one never overwrites a newer:
/// what is damaged is repaired by making it write a round.
async fn md(array: &Rc<Array>, mode: ScrubMode, findings: &mut Findings) {
    let mut damaged = damaged(array).await;
    let members = u64::try_from(array.members().count()).unwrap_or(0);
    findings.checked_sectors += members * SUPERBLOCK_SECTORS;
    let mut finding = Finding::Healable;
    if mode.writes() && !damaged.is_empty() {
        // Dirty, and clean again: two rounds over all members.
        let dirty = array.begin_write(0..0).await.map(drop);
        let clean = array.settle().await;
        let still = self::damaged(array).await;
        damaged.retain(|(name, extent)| {
            let healed = dirty.is_ok() && clean.is_ok() && !still.iter().any(|(n, _)| n == name);
            if healed {
                findings.found.push((Finding::Healed, Some(Rc::clone(name)), *extent));
            }
            !healed
        });
        finding = Finding::Unreadable;
    }
    for (name, extent) in damaged {
        findings.found.push((finding, Some(name), extent));
    }
}

/// The members whose superblock is not what the array has written last.
async fn damaged(array: &Rc<Array>) -> Vec<(Rc<str>, Extent)> {
    // While one is being written, the medium may have it already and the array not yet.
    let _still = array.hold_superblocks().await;
    let members: Vec<Rc<Member>> = array.members().collect();
    let mut found = Vec::new();
    for member in members {
        let Some(expected) = member.superblock() else { continue };
        let extent = Extent { sector: expected.super_offset(), sectors: SUPERBLOCK_SECTORS };
        let read = read(member.device(), extent).await;
        if read.is_none_or(|bytes| bytes.as_slice()[..] != expected.encode()) {
            found.push((Rc::clone(member.name()), extent));
        }
    }
    found
}

/// The medium's own bytes; none: damaged.
async fn read(device: &Device, extent: Extent) -> Option<Buf> {
    let mut bio = Bio::read(extent.sector, extent.sectors).bypassing();
    device.submit(&mut bio).await.ok()?;
    Some(bio.data.into_single())
}
