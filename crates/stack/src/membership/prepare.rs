//! Making a new member ready: what lies on it is looked at, then it gets dm-integrity as its peers have
//! it, zeroes with valid tags, and the superblock of a spare.
//!
//! One that was away and comes back keeps its superblock where the write-intent bitmap tells what it
//! missed: it is the proof of when it left, until the array gives it its slot again.

use super::{MembershipError, NewMember, OnProgress, Past};
use crate::content::{Thoroughness, look};
use crate::create::{
    CreateError, CreateLevel, CreateOptions, CreateProgress, Identity, Phase, Plan, PlannedWrite,
    Target, WriteKind, plan_joining, refuse_unfit, write,
};
use crate::given::{Given, IntegrityChoice};
use crate::leaf::{self, Leaf, LeafKind};
use crate::open::{OpenError, found_in, make_writable};
use crate::probe::{IntegrityFound, MdFound, Probed, probe, read_logs};
use crate::volume::{MemberPart, MemberState, Volume};
use bio::{Bio, Buf, Device, EventKind, Events};
use integrity::Flags;
use layers::array::Found;
use layers::integrity::TagSource;
use md::create::{NewMember as NewDevice, free_number, join};
use md::missed::NotByBitmap;
use md::superblock::{Role, SUPERBLOCK_BYTES, Superblock, Uuid};
use units::{SECTOR, Sector, u64_of};

/// A member that is ready to join: a spare on disk, and open.
pub(super) struct Ready {
    probed: Probed,
    pub(super) past: Past,
    pub(super) writes: Vec<PlannedWrite>,
}

impl Ready {
    pub(super) fn name(&self) -> &str {
        &self.probed.name
    }

    /// As the array takes it.
    pub(super) fn found(&self, slot: usize, events: &Events) -> Result<Found, OpenError> {
        found_in(&self.probed, slot, events)
    }

    pub(super) fn part(&self, slot: Option<usize>, state: MemberState) -> MemberPart {
        MemberPart { slot, state, is_written: true, ..MemberPart::of(&self.probed) }
    }
}

/// What is to be written to a member.
enum Work {
    /// Everything.
    Make(Box<Plan>),
    /// One superblock: it belonged to this array before, and what it holds means nothing any more.
    Rejoin(Box<Superblock>, NotByBitmap),
    /// Nothing yet: it comes back to its slot, and its superblock is written with the others'.
    Return { slot: usize, missed: u64, super_offset: Sector },
}

impl Volume {
    /// Makes `new` ready.
    pub(super) async fn prepare(
        &self,
        new: &NewMember,
        may_return: bool,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Ready, MembershipError> {
        let name = new.member.to_string();
        self.release(&name).await?;
        let given = self.given_for_new(new);
        leaf::refuse_twice([&new.member].into_iter().chain(&new.data))?;
        let leaf = given.open_leaf(&new.member, true).await?;
        let kind = leaf.kind;
        let io = |error| MembershipError::Io { member: name.clone(), error };
        let mut probed = self.look(&new.member, leaf, &given).await?;
        let work = self.work(new, &probed, (kind, may_return), on_progress).await?;
        let (past, writes) = (past(&work), writes(&work, &name));
        match work {
            Work::Make(plan) => {
                let device = probed.leaf.device.clone();
                let blank = |kind| !new.yes && kind_is_looked_through(kind);
                let data = probed.leaf.data.as_ref();
                let data = data.map(|data| (data.device.clone(), blank(data.kind)));
                let targets = [Target { device, blank: blank(kind), data }];
                let mut told = |progress: &CreateProgress| on_progress(Phase::Writing, progress);
                let written = write(&plan, &targets, &mut told).await;
                written.map_err(|failure| io(failure.error))?;
                let Probed { leaf, .. } = probed;
                probed = self.look(&new.member, leaf, &given).await?;
                make_writable(&mut probed, false, self.events()).await?;
            }
            Work::Return { .. } => make_writable(&mut probed, false, self.events()).await?,
            Work::Rejoin(superblock, why) => {
                let detail = format!("was a member before, and is filled whole: {why}");
                self.events().for_member(&probed.name).emit_detail(
                    EventKind::Note,
                    Sector::ZERO,
                    0,
                    detail,
                );
                make_writable(&mut probed, false, self.events()).await?;
                let inner = probed.inner().expect("it was opened");
                let bytes = Buf::copy_of(&superblock.encode());
                let place = superblock.super_offset();
                inner.submit(&mut Bio::write_fua(place, bytes)).await.map_err(io)?;
                probed.md = MdFound::Sound { superblock, repaired: false };
            }
        }
        if probed.md().is_none() {
            let why = "what was just written does not read back".to_owned();
            return Err(OpenError::Array { why: format!("{name}: {why}") }.into());
        }
        read_logs(std::slice::from_mut(&mut probed)).await;
        Ok(Ready { probed, past, writes })
    }

    /// What making `new` ready would write.
    pub(super) async fn plan_new(
        &self,
        new: &NewMember,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Vec<PlannedWrite>, MembershipError> {
        self.refuse_current(&new.member.to_string())?;
        let given = self.given_for_new(new);
        leaf::refuse_twice([&new.member].into_iter().chain(&new.data))?;
        let leaf = given.open_leaf(&new.member, false).await?;
        let kind = leaf.kind;
        let probed = self.look(&new.member, leaf, &given).await?;
        let work = self.work(new, &probed, (kind, true), on_progress).await?;
        Ok(writes(&work, &new.member.to_string()))
    }

    /// Lets go of a member of that name that takes no part, so that it can be opened anew.
    async fn release(&self, name: &str) -> Result<(), MembershipError> {
        self.refuse_current(name)?;
        let Ok(part) = self.part(name) else { return Ok(()) };
        self.let_go(&part.name);
        let _closed = self.close_part(&part).await;
        Ok(())
    }

    /// Refuses who takes part already: as a member, as a spare, or as the write journal.
    fn refuse_current(&self, name: &str) -> Result<(), MembershipError> {
        let Ok(part) = self.part(name) else { return Ok(()) };
        let is_kept = matches!(self.place_of(&part).1, MemberState::Spare | MemberState::Journal);
        if self.running(&part.name).is_some() || is_kept {
            return Err(MembershipError::Already { member: name.to_owned() });
        }
        Ok(())
    }

    async fn look(
        &self,
        member: &crate::member::Member,
        leaf: Leaf,
        given: &Given,
    ) -> Result<Probed, MembershipError> {
        let name = member.to_string();
        let probed =
            probe(name.as_str().into(), Some(member.clone()), leaf, given, self.events()).await;
        probed.map_err(|error| MembershipError::Io { member: name, error })
    }

    async fn work(
        &self,
        new: &NewMember,
        probed: &Probed,
        (kind, may_return): (LeafKind, bool),
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Work, MembershipError> {
        let name = new.member.to_string();
        let peer = self.peer().ok_or(MembershipError::NoArray)?;
        let of_md = |error| CreateError::Md { member: Some(name.clone()), error };
        if let (Some(own), Some(inner)) = (probed.md(), probed.inner()) {
            if own.set_uuid() == peer.set_uuid() && self.is_like_peers(probed) {
                let why = match self.missed(own, may_return) {
                    Ok(work) => return Ok(work),
                    Err(why) => why,
                };
                let device = NewDevice {
                    device_sectors: inner.limits().sectors,
                    device_uuid: own.device_uuid(),
                };
                let taken = self.numbers();
                let number = Some(own.dev_number()).filter(|number| !taken.contains(number));
                let number = number.or_else(|| free_number(&peer, &taken));
                let superblock = join(&peer, &device, number).map_err(of_md)?;
                return Ok(Work::Rejoin(Box::new(superblock), why));
            }
            if own.set_uuid() != peer.set_uuid() && !new.yes {
                return Err(MembershipError::Foreign { member: name });
            }
        }
        if !new.yes {
            refuse_content(&name, &probed.leaf.device, kind, on_progress).await?;
            if let (Some(data), Some(named)) = (&probed.leaf.data, &new.data) {
                let named = named.to_string();
                refuse_content(&named, &data.device, data.kind, on_progress).await?;
            }
        }
        let options = self.options_for(new);
        if new.data.is_some() && (options.integrity.is_none() || options.inline) {
            return Err(CreateError::DataDevice { member: name }.into());
        }
        refuse_unfit(&options, &new.member, probed.leaf.device.limits())?;
        let sectors = probed.leaf.lower().sectors();
        let taken = self.numbers();
        let identity = Identity::random(1);
        let plan = plan_joining(&options, sectors, &identity, |inner| {
            let device_uuid = Uuid(identity.device_uuids[0]);
            let device = NewDevice { device_sectors: inner, device_uuid };
            join(&peer, &device, free_number(&peer, &taken))
        })?;
        Ok(Work::Make(Box::new(plan)))
    }

    /// The work of having a member come back by the bitmap, if it can.
    fn missed(&self, own: &Superblock, may_return: bool) -> Result<Work, NotByBitmap> {
        let array = self.array().filter(|_| may_return).ok_or(NotByBitmap::Incomplete)?;
        let holes = array.missed_by(own)?;
        let Some(Role::Active(slot)) = own.role() else { return Err(NotByBitmap::Incomplete) };
        let missed = holes.iter().map(|hole| hole.end - hole.start).sum();
        Ok(Work::Return { slot: slot.into(), missed, super_offset: own.super_offset() })
    }

    /// A member that speaks for the array.
    fn peer(&self) -> Option<Superblock> {
        let mut members = self.array()?.members();
        members.find_map(|member| member.superblock())
    }

    /// Device numbers that are in use.
    fn numbers(&self) -> Vec<u32> {
        let parts = self.parts();
        let known = parts.iter().filter_map(|part| match self.running(&part.name) {
            Some(running) => running.superblock(),
            None => part.md.clone(),
        });
        known.map(|superblock| superblock.dev_number()).collect()
    }

    /// Whether it has the tags that its peers have.
    fn is_like_peers(&self, probed: &Probed) -> bool {
        let wanted = self.integrity_of_peers();
        let found = probed.open_integrity();
        match (wanted, found) {
            (None, None) => matches!(probed.integrity, IntegrityFound::None),
            (Some((source, superblock)), Some(open)) => {
                open.tagger.source() == source
                    && open.layout.tag_bytes == usize::from(superblock.tag_size)
                    && open.layout.block == superblock.block
            }
            _ => false,
        }
    }

    /// Where the tags of the members come from, and one of their superblocks.
    fn integrity_of_peers(&self) -> Option<(TagSource, integrity::Superblock)> {
        let parts = self.parts();
        let running = parts.iter().filter(|part| self.running(&part.name).is_some());
        let mut with = running.filter_map(|part| part.integrity.as_ref());
        with.next().map(|part| (part.tagger.source(), part.volume.superblock().clone()))
    }

    fn given_for_new(&self, new: &NewMember) -> Given {
        let mut given = self.given.clone();
        given.data_devices.retain(|(of, _)| *of != new.member);
        given.data_devices.extend(new.data.clone().map(|data| (new.member.clone(), data)));
        given.integrity = match self.integrity_of_peers() {
            Some((source, _)) => {
                IntegrityChoice::Named(source, self.given.integrity_key().cloned())
            }
            None => IntegrityChoice::None,
        };
        given
    }

    fn options_for(&self, new: &NewMember) -> CreateOptions {
        let mut options = CreateOptions::new(vec![new.member.clone()], CreateLevel::None);
        options.yes = new.yes;
        options.data_devices =
            new.data.iter().map(|data| (new.member.clone(), data.clone())).collect();
        options.integrity = None;
        let Some((source, superblock)) = self.integrity_of_peers() else { return options };
        options.integrity = Some(source);
        options.integrity_key = self.given.integrity_key().cloned();
        options.journal = self.given.journal.clone();
        options.tag_size = Some(superblock.tag_size);
        options.sector_size = u64_of(superblock.block.bytes());
        options.inline = superblock.flags.has(Flags::INLINE);
        options.legacy_padding = !options.inline && !superblock.flags.has(Flags::FIX_PADDING);
        options.legacy_hmac = !options.inline && !superblock.flags.has(Flags::FIX_HMAC);
        options.interleave_sectors = superblock.log2_interleave.map(|log2| 1 << log2);
        let mut parts = self.parts().into_iter().filter_map(|part| {
            let layout = *part.integrity.as_ref()?.volume.layout();
            Some(layout.journal.sectors() * SECTOR)
        });
        options.journal_bytes = parts.next().filter(|_| !options.inline);
        options
    }
}

fn writes(work: &Work, name: &str) -> Vec<PlannedWrite> {
    match work {
        Work::Make(plan) => plan.writes().cloned().collect(),
        Work::Rejoin(superblock, _) => vec![superblock_write(name, superblock.super_offset())],
        Work::Return { super_offset, .. } => vec![superblock_write(name, *super_offset)],
    }
}

fn superblock_write(name: &str, place: Sector) -> PlannedWrite {
    let (bytes, member) = (u64_of(SUPERBLOCK_BYTES), name.to_owned());
    let kind = WriteKind::MdSuperblock;
    PlannedWrite { member, kind, byte: place.bytes(), span_bytes: bytes, bytes }
}

fn past(work: &Work) -> Past {
    match work {
        Work::Make(_) => Past::None,
        Work::Rejoin(_, why) => Past::Forgotten { why: *why },
        Work::Return { slot, missed, .. } => Past::Kept { slot: *slot, missed_sectors: *missed },
    }
}

/// Refuses what holds anything.
async fn refuse_content(
    name: &str,
    device: &Device,
    kind: LeafKind,
    on_progress: &mut OnProgress<'_>,
) -> Result<(), MembershipError> {
    let full = kind_is_looked_through(kind);
    let thoroughness = if full { Thoroughness::Full } else { Thoroughness::Sampled };
    let mut told = |done, total| on_progress(Phase::Looking, &CreateProgress { done, total });
    let content = look(device, thoroughness, &mut told).await;
    let content =
        content.map_err(|error| MembershipError::Io { member: name.to_owned(), error })?;
    let member = name.to_owned();
    if let Some(&signature) = content.signatures.first() {
        return Err(CreateError::Signature { member, signature }.into());
    }
    if let Some(sector) = content.not_zero {
        return Err(CreateError::NotZero { member, sector }.into());
    }
    Ok(())
}

/// Whether all of it is read before it counts as blank.
const fn kind_is_looked_through(kind: LeafKind) -> bool {
    matches!(kind, LeafKind::File | LeafKind::Sectors | LeafKind::Memory)
}
