//! Writing the superblocks of all members, one after the other.
//!
//! With each superblock goes the header of the write-intent bitmap, if there is one, before it.
//!
//! This module keeps the two rules that the header of [`super`] relies on: members that take part
//! are never more than one event apart on disk, and each superblock is durable before the next one
//! is touched. It decides nothing about when.

use super::Member;
use super::bitmap::Intent;
use super::journal::Journal;
use super::ordering::SUPERBLOCK;
use bio::{Bio, Buf, IoError, IoResult};
use md::superblock::{ResyncOffset, Role, Superblock, Time};
use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

/// What the superblocks say, and the means to change it.
pub(super) struct Rounds {
    events: Cell<u64>,
    /// The array's bitmap.
    intent: Option<Rc<Intent>>,
    /// The device of the array's write journal.
    journal: OnceCell<Journal>,
    /// What they say of redundancy; the least that any of them says.
    on_disk: Cell<ResyncOffset>,
    /// The device table of the freshest.
    table: RefCell<Vec<Role>>,
}

impl Rounds {
    pub(super) fn new<'a>(
        freshest: Option<&Superblock>,
        members: impl Iterator<Item = &'a Rc<Member>>,
        intent: Option<Rc<Intent>>,
    ) -> Self {
        let own: Vec<Superblock> = members.filter_map(|member| member.superblock()).collect();
        let freshest = freshest.or_else(|| own.iter().rev().max_by_key(|own| own.events()));
        let resync = own.iter().map(Superblock::resync).reduce(ResyncOffset::least);
        Self {
            events: Cell::new(freshest.map_or(0, Superblock::events)),
            intent,
            journal: OnceCell::new(),
            on_disk: Cell::new(resync.unwrap_or(ResyncOffset::Clean)),
            table: RefCell::new(freshest.map(|f| f.roles().collect()).unwrap_or_default()),
        }
    }

    /// The device of the write journal takes part from now on.
    pub(super) fn go_through_journal(&self, journal: Journal) {
        assert!(self.journal.set(journal).is_ok(), "an array has one journal");
    }

    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.get()
    }

    /// The event count of the last round.
    pub(super) fn events(&self) -> u64 {
        self.events.get()
    }

    /// What the superblocks say of redundancy.
    pub(super) fn on_disk(&self) -> ResyncOffset {
        self.on_disk.get()
    }

    /// Whether the device table names members that do not take part.
    pub(super) fn table_changed(&self, members: &[Rc<Member>]) -> bool {
        *self.table.borrow() != self.table_of(members)
    }

    /// The freshest table with the slots of all members, and every device faulty that claims one
    /// and is not here.
    fn table_of(&self, members: &[Rc<Member>]) -> Vec<Role> {
        let here: Vec<(u32, usize)> =
            superblocks(members).map(|(member, own)| (own.dev_number(), member.slot())).collect();
        let table = self.table.borrow();
        let roles = table.iter().zip(0..).map(|(role, number)| {
            let slot = here.iter().find(|(here, _)| *here == number).map(|(_, slot)| *slot);
            match (slot.and_then(|slot| u16::try_from(slot).ok()), role) {
                (Some(slot), _) => Role::Active(slot),
                (None, Role::Active(_)) => Role::Faulty,
                (None, other) => *other,
            }
        });
        roles.collect()
    }

    /// One round: every member's superblock one event on, saying `resync` and who takes part.
    /// Gives the members that could not be written; the others all have the new count. `whole`: no
    /// member is missing, so that nobody can come back later and miss what the bitmap forgets.
    ///
    /// # Errors
    /// If the device of the write journal could not be written, which is the last.
    pub(super) async fn write(
        &self,
        members: &[Rc<Member>],
        whole: bool,
        resync: ResyncOffset,
        time: Time,
    ) -> IoResult<Vec<(Rc<Member>, IoError)>> {
        let mut failures = self.level(members, time).await?;
        let table = self.table_of(members);
        // A crash within the round leaves both; until its end only the lesser is promised.
        self.on_disk.set(self.on_disk.get().least(resync));
        let (before, events) = (self.events.get(), self.events.get() + 1);
        if let Some(intent) = &self.intent {
            intent.follow(events, (whole && failures.is_empty()).then_some(before));
        }
        let new = Change { events, resync, time, table: &table, intent: self.intent.as_deref() };
        for (member, own) in superblocks(members).collect::<Vec<_>>() {
            if failures.iter().any(|(failed, _)| Rc::ptr_eq(failed, &member)) {
                continue;
            }
            if let Err(error) = new.apply(&member, own).await {
                failures.push((member, error));
            }
        }
        // Last: behind the members by one event it is still theirs; before them it could call one faulty that
        // is the freshest.
        if let Some(journal) = self.journal() {
            journal.follow(&new).await?;
        }
        self.events.set(events);
        *self.table.borrow_mut() = table;
        if failures.is_empty() {
            self.on_disk.set(resync);
        }
        Ok(failures)
    }

    /// Brings members that a crash left behind to the present count and view.
    async fn level(
        &self,
        members: &[Rc<Member>],
        time: Time,
    ) -> IoResult<Vec<(Rc<Member>, IoError)>> {
        let mut failures = Vec::new();
        let events = self.events.get();
        let table = self.table.borrow().clone();
        let (resync, intent) = (self.on_disk.get(), self.intent.as_deref());
        let new = Change { events, resync, time, table: &table, intent };
        for (member, own) in superblocks(members).collect::<Vec<_>>() {
            if own.events() == events {
                continue;
            }
            if let Err(error) = new.apply(&member, own).await {
                failures.push((member, error));
            }
        }
        if let Some(journal) = self.journal().filter(|journal| journal.events() < events) {
            journal.follow(&new).await?;
        }
        Ok(failures)
    }
}

/// The members that take part and have superblocks, those last that are given their slot now: as long
/// as the others do not know of it, they would not believe a fresher member that they take for a spare.
fn superblocks(members: &[Rc<Member>]) -> impl Iterator<Item = (Rc<Member>, Superblock)> + '_ {
    let members = members.iter().filter(|member| !member.failed());
    let mut all: Vec<(Rc<Member>, Superblock)> =
        members.filter_map(|member| Some((Rc::clone(member), member.superblock()?))).collect();
    all.sort_by_key(|(_, own)| !matches!(own.role(), Some(Role::Active(_))));
    all.into_iter()
}

/// What a superblock is to say.
pub(super) struct Change<'a> {
    events: u64,
    resync: ResyncOffset,
    time: Time,
    table: &'a [Role],
    intent: Option<&'a Intent>,
}

impl Change<'_> {
    /// Puts into `own` what all superblocks say.
    pub(super) fn say(&self, own: &mut Superblock) {
        own.set_events(self.events);
        own.set_resync(self.resync);
        own.set_utime(self.time);
        let slots = u32::try_from(own.roles().count()).unwrap_or(u32::MAX);
        for (number, role) in (0..slots).zip(self.table) {
            own.set_role(number, *role);
        }
    }

    async fn apply(&self, member: &Member, mut own: Superblock) -> IoResult {
        self.say(&mut own);
        if let Some(any) = member.bad().any_recorded() {
            own.set_has_bad_blocks(any);
        }
        own.set_recovery(member.claim());
        own.set_replacement(member.replaces());
        own.add_corrected_reads(member.take_corrected());
        if let Some(intent) = self.intent {
            intent.write_header(member).await?;
        }
        let bytes = Buf::copy_of(&own.encode());
        let mut write = Bio::write_fua(own.super_offset(), bytes).because(SUPERBLOCK);
        let written = member.device().submit(&mut write).await;
        if written.is_ok() {
            member.set_superblock(own);
        }
        written
    }
}
