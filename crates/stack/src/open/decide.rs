//! What a set of members amounts to, and whether it may be opened as asked. No I/O.

use super::error::{OpenError, WhyLeftOut};
use super::risk::AtRisk;
use crate::probe::{IntegrityFound, MdFound, Probed};
use layers::array::BitmapProblem;
use layers::integrity::{JournalState, Restriction};
use md::assemble::{
    AssembleError, Assembly, Candidate, CannotStart, Slot, assemble, assemble_as_given,
};
use md::bitmap::BitmapError;
use md::superblock::{Features, Role};
use std::mem;

/// What the members are.
pub(crate) enum Decision {
    /// One member, one dm-integrity volume.
    Single,
    /// One array.
    Array(Box<ArrayDecision>),
}

/// What an array amounts to. Indexes are those of the probed members.
pub(crate) struct ArrayDecision {
    /// The members that hold a complete slot: slot, member.
    pub in_sync: Vec<(usize, usize)>,
    /// The member whose superblock speaks for the array.
    pub newest: usize,
    /// The members that hold a slot and are filled only in part: slot, member.
    pub rebuilding: Vec<(usize, usize)>,
    /// The members that are to replace the holder of a slot: slot, member.
    pub replacing: Vec<(usize, usize)>,
    /// The members that hold nothing.
    pub spares: Vec<usize>,
    /// The member that is the array's journal.
    pub journal: Option<usize>,
    /// For its other findings; its indexes are not those of the members.
    pub assembly: Assembly,
    pub left_out: Vec<(usize, WhyLeftOut)>,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Rules {
    pub read_only: bool,
    pub force: bool,
    /// The members hold what they claim, however old they are; read-only.
    pub as_given: bool,
}

impl ArrayDecision {
    /// Everybody who has content of the array: slot, member.
    pub fn holders(&self) -> impl Iterator<Item = (usize, usize)> {
        self.in_sync.iter().chain(&self.rebuilding).chain(&self.replacing).copied()
    }
}

/// Decides. `foreign` names, for each member, the signature of another format that it carries.
pub(crate) fn decide(
    members: &mut [Probed],
    foreign: &[Option<&'static str>],
    rules: Rules,
) -> Result<Decision, OpenError> {
    if members.iter().all(|member| member.md().is_none()) {
        return single(members, foreign, rules);
    }
    let with_md: Vec<usize> =
        (0..members.len()).filter(|&index| members[index].md().is_some()).collect();
    let candidates: Vec<Candidate<'_>> = with_md
        .iter()
        .filter_map(|&index| {
            let superblock = members[index].md()?;
            let device_sectors = members[index].inner()?.limits().sectors;
            Some(Candidate { superblock, device_sectors })
        })
        .collect();
    let assembled =
        if rules.as_given { assemble_as_given(&candidates) } else { assemble(&candidates) };
    let mut assembly = match assembled {
        Ok(assembly) => assembly,
        Err(error) => return Err(not_an_array(error, &with_md, members)),
    };
    let mut left_out: Vec<(usize, WhyLeftOut)> = assembly
        .left_out
        .iter()
        .map(|&(index, why)| (with_md[index], WhyLeftOut::Array(why)))
        .collect();
    for index in 0..members.len() {
        if let Some(why) = not_an_md_member(&mut members[index], foreign[index])? {
            left_out.push((index, why));
        }
    }
    left_out.sort_by_key(|(index, _)| *index);
    // From here on, indexes of the assembly are those of the members.
    let newest = with_md[assembly.newest];
    let in_sync: Vec<(usize, usize)> =
        assembly.in_sync().map(|(slot, index)| (slot, with_md[index])).collect();
    let slots = assembly.slots.iter().enumerate();
    let rebuilding = slots.filter_map(|(slot, holder)| match *holder {
        Slot::Rebuilding { member, .. } => Some((slot, with_md[member])),
        Slot::Missing | Slot::InSync(_) => None,
    });
    let rebuilding: Vec<(usize, usize)> = rebuilding.collect();
    let role = |index: usize| members[with_md[index]].md().and_then(|own| own.role());
    let replacements = assembly.replacements.iter().filter_map(|&index| match role(index) {
        Some(Role::Active(slot)) => Some((slot.into(), with_md[index])),
        _ => None,
    });
    let replacing: Vec<(usize, usize)> = replacements.collect();
    let named = |list: &[usize]| list.iter().map(|&index| with_md[index]).collect::<Vec<_>>();
    let mut spares = named(&assembly.spares);
    let journal = journal(members, newest, &named(&assembly.journals), rules)?;
    let names = |left_out: Vec<(usize, WhyLeftOut)>| {
        left_out.into_iter().map(|(index, why)| (members[index].name.to_string(), why)).collect()
    };
    for why in mem::take(&mut assembly.cannot_start) {
        let mut at_risk = None;
        if why == CannotStart::DirtyAndDegraded {
            let risk = AtRisk::of(members, newest, &in_sync, assembly.resync);
            if risk.is_none() {
                // Nothing was being written when it stopped.
                continue;
            }
            at_risk = Some(risk);
        }
        if !(why.forceable() && (rules.force || rules.as_given)) {
            return Err(OpenError::CannotStart { why, at_risk, left_out: names(left_out) });
        }
    }
    if !rules.read_only {
        if let Some(why) = assembly.cannot_write.first() {
            let member = why.member.map(|index| members[with_md[index]].name.to_string());
            let why = format!("{} is not implemented for writing", why.feature);
            return Err(OpenError::CannotWrite { member, why });
        }
        let keeps = members[newest].md().map(|own| own.features().contains(Features::JOURNAL));
        if keeps == Some(true) && journal.is_none() {
            // Its device is here, and was accepted for reading.
            let why = "an array whose write journal says nothing is not written".to_owned();
            return Err(OpenError::CannotWrite { member: None, why });
        }
        let holders = in_sync.iter().chain(&rebuilding).chain(&replacing);
        for index in holders.map(|&(_, index)| index).chain(journal) {
            refuse_newer_bitmap(&members[index])?;
            refuse_restricted(&members[index])?;
        }
        // A spare that cannot be written is of no use.
        spares.retain(|&index| refuse_restricted(&members[index]).is_ok());
    }
    let decision = ArrayDecision {
        in_sync,
        newest,
        rebuilding,
        replacing,
        spares,
        journal,
        assembly,
        left_out,
    };
    Ok(Decision::Array(Box::new(decision)))
}

/// The device of the write journal, if the array has one that can be used.
///
/// # Errors
/// [`OpenError::WriteJournal`] if what was promised may be lost with it, unless that is accepted.
fn journal(
    members: &[Probed],
    newest: usize,
    journals: &[usize],
    rules: Rules,
) -> Result<Option<usize>, OpenError> {
    let freshest = members[newest].md().expect("the newest has a superblock");
    let kept = freshest.features().contains(Features::JOURNAL);
    // Taken as given, members may be of any age: what an old journal holds has long been overwritten.
    let is_current = |&&index: &&usize| {
        members[index].md().is_some_and(|own| own.events().saturating_add(1) >= freshest.events())
    };
    let mut current = journals.iter().filter(is_current).filter(|_| kept);
    let Some(&index) = current.next() else { return Ok(None) };
    let refuse = |index: usize, why: String| {
        let member = members[index].name.to_string();
        Err(OpenError::WriteJournal { member, why })
    };
    if let Some(&other) = current.next() {
        return refuse(other, "the array has two write journals".to_owned());
    }
    let accepted = rules.force || rules.as_given;
    match &members[index].write_journal {
        Some(Ok(found)) => match found.damage() {
            Some(damage) if !accepted => refuse(index, format!("the write journal: {damage}")),
            _ => Ok(Some(index)),
        },
        Some(Err(problem)) if !accepted => refuse(index, problem.to_string()),
        Some(Err(_)) | None => Ok(None),
    }
}

/// A bitmap whose bytes are of another version is not made anew: somebody's work is in it.
fn refuse_newer_bitmap(member: &Probed) -> Result<(), OpenError> {
    match member.logs.bitmap {
        Some(Err(BitmapProblem::Bytes(why @ BitmapError::Version { .. }))) => {
            let (member, why) = (Some(member.name.to_string()), why.to_string());
            Err(OpenError::CannotWrite { member, why })
        }
        _ => Ok(()),
    }
}

/// Without a single md superblock: one dm-integrity volume, or nothing.
fn single(
    members: &mut [Probed],
    foreign: &[Option<&'static str>],
    rules: Rules,
) -> Result<Decision, OpenError> {
    for (member, signature) in members.iter_mut().zip(foreign) {
        let name = member.name.to_string();
        match mem::replace(&mut member.integrity, IntegrityFound::None) {
            IntegrityFound::Problem(problem) => {
                return Err(OpenError::Integrity { member: name, problem });
            }
            found => member.integrity = found,
        }
        if let MdFound::Problem(problem) = member.md {
            return Err(OpenError::Md { member: name, problem });
        }
        if member.open_integrity().is_none() {
            return Err(OpenError::NotAMember { member: name, signature: *signature });
        }
    }
    if let [first, second, ..] = members {
        let (first, second) = (first.name.to_string(), second.name.to_string());
        return Err(OpenError::SeveralVolumes { first, second });
    }
    if !rules.read_only {
        refuse_restricted(&members[0])?;
    }
    Ok(Decision::Single)
}

/// Why a member has no md superblock that counts, if it has none. A member that plainly is
/// something else is a mistake to be told, not a member to do without.
fn not_an_md_member(
    member: &mut Probed,
    foreign: Option<&'static str>,
) -> Result<Option<WhyLeftOut>, OpenError> {
    if member.md().is_some() {
        return Ok(None);
    }
    let name = member.name.to_string();
    match mem::replace(&mut member.integrity, IntegrityFound::None) {
        IntegrityFound::Problem(problem) => return Ok(Some(WhyLeftOut::Integrity(problem))),
        found => member.integrity = found,
    }
    if let MdFound::Problem(problem) = member.md {
        return Ok(Some(WhyLeftOut::Md(problem)));
    }
    if let Some(signature) = foreign {
        return Err(OpenError::NotAMember { member: name, signature: Some(signature) });
    }
    Ok(Some(WhyLeftOut::Blank))
}

fn refuse_restricted(member: &Probed) -> Result<(), OpenError> {
    let Some(open) = member.open_integrity() else { return Ok(()) };
    let real = open.volume.restrictions().iter();
    // The probe read through a device that takes no writes; that one is not the volume's own.
    // A damaged journal stands in nobody's way who has said what is to become of it.
    let decided = open.given.running.damaged_journal.is_some();
    let mut real = real.filter(|restriction| match restriction {
        Restriction::ReadOnlyDevice => false,
        Restriction::Journal(_) | Restriction::StrangeEntry(_) => !decided,
        Restriction::JournalMac | Restriction::DiscardKeyed => true,
    });
    let Some(restriction) = real.next() else { return Ok(()) };
    if *restriction == Restriction::JournalMac {
        return Err(OpenError::JournalKey { member: member.name.to_string() });
    }
    let (member, why) = (member.name.to_string(), restriction.to_string());
    Err(match restriction {
        Restriction::Journal(_) | Restriction::StrangeEntry(_) => {
            OpenError::JournalDamaged { member, why }
        }
        _ => OpenError::CannotWrite { member: Some(member), why },
    })
}

fn not_an_array(error: AssembleError, with_md: &[usize], members: &[Probed]) -> OpenError {
    let name = |index: usize| members[with_md[index]].name.to_string();
    match error {
        AssembleError::NoMembers => OpenError::NoMembers,
        AssembleError::MixedArrays { members, uuids } => {
            OpenError::MixedArrays { members: members.map(name), uuids }
        }
        AssembleError::SameMember { members, device_uuid } => {
            OpenError::SameMember { members: members.map(name), device_uuid }
        }
        AssembleError::SameSlot { members, slot } => {
            OpenError::SameSlot { members: members.map(name), slot }
        }
        AssembleError::NoneUsable { left_out } => {
            let named = left_out.into_iter();
            let left_out = named.map(|(index, why)| (name(index), WhyLeftOut::Array(why)));
            OpenError::NoneUsable { left_out: left_out.collect() }
        }
    }
}

/// The problem of a member that has none of its own, for reports.
pub(crate) fn describe_problem(member: &Probed) -> Option<String> {
    match (&member.integrity, &member.md) {
        (IntegrityFound::Problem(problem), _) => Some(problem.to_string()),
        (_, MdFound::Problem(problem)) => Some(problem.to_string()),
        (IntegrityFound::Open(open), _) => match open.volume.journal_state() {
            JournalState::Damaged(error) => {
                Some(format!("{error}; blocks that only it may hold are unreadable"))
            }
            _ => None,
        },
        _ => None,
    }
}
