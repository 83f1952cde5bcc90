//! Who holds which slot: one member, and perhaps another beside it that is to replace it; and who
//! may leave.
//!
//! ```text
//!   slot 0   slot 1            slot 2               slot 3
//!   +----+   +----+ +----+     +----+-----+          (nobody)
//!   | A  |   | B  | | E's|     | C  |holes|
//!   +----+   +----+ +----+     +----+-----+
//!            holder  replacement   filling: read where it holds something, written everywhere
//! ```
//! A slot is missing as long as nobody there holds all that is left of its content, because some of
//! that would be lost with one member more.

use super::{Array, Found, Member, RangeSet, Tagging};
use bio::{EventKind, IoError, IoErrorKind, IoResult};
use md::missed::{NotByBitmap, Running, missed};
use md::superblock::{Role, Superblock};
use std::ops::Range;
use std::rc::Rc;
use units::Sector;

/// The members in one slot.
#[derive(Default)]
pub(super) struct Seat {
    holder: Option<Rc<Member>>,
    replacement: Option<Rc<Member>>,
}

impl Seat {
    /// Everybody in it, the holder first.
    pub(super) fn members(&self) -> impl Iterator<Item = &Rc<Member>> {
        self.holder.iter().chain(&self.replacement)
    }

    /// Whether somebody else than `gone` is complete.
    fn is_complete_without(&self, gone: Option<&Rc<Member>>) -> bool {
        let is_gone = |member: &Rc<Member>| gone.is_some_and(|gone| Rc::ptr_eq(gone, member));
        self.members().any(|member| !is_gone(member) && member.is_as_complete_as_can_be())
    }

    /// Puts a member of the opening in its place. False if there are two for one place.
    fn take(&mut self, member: Rc<Member>) -> bool {
        let place = if member.replaces() { &mut self.replacement } else { &mut self.holder };
        place.replace(member).is_none()
    }

    /// A replacement without a holder is the holder.
    fn promote(&mut self) {
        if self.holder.is_none()
            && let Some(member) = self.replacement.take()
        {
            member.set_replaces(false);
            self.holder = Some(member);
        }
    }
}

/// Why a member cannot join a running array.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// Nothing is written, ever.
    #[error("the array is open read-only")]
    ReadOnly,
    /// There is no such slot.
    #[error("there is no slot {slot}")]
    NoSlot {
        /// As asked for.
        slot: usize,
    },
    /// Somebody is there already.
    #[error("slot {slot} is held{}", if *.replaces { " by a member that is being replaced" } else { "" })]
    Held {
        /// The slot.
        slot: usize,
        /// Whether it was to stand beside the holder.
        replaces: bool,
    },
    /// There is nobody to replace.
    #[error("nobody holds slot {slot}")]
    Vacant {
        /// The slot.
        slot: usize,
    },
    /// Its device number is another member's.
    #[error("its device number {number} is taken")]
    Number {
        /// The number.
        number: u32,
    },
    /// It is smaller than the others.
    #[error("it has {found} sectors for data, expected {expected}")]
    Small {
        /// Sectors found.
        found: u64,
        /// Sectors of the others.
        expected: u64,
    },
    /// It does not keep for its blocks what the others keep.
    #[error("it keeps {found}, the array's members keep {expected}")]
    Tags {
        /// What it keeps.
        found: Tagging,
        /// What the others keep.
        expected: Tagging,
    },
    /// It cannot do what the array promises.
    #[error("{what}, as the array's other members can")]
    Unfit {
        /// What it cannot do.
        what: &'static str,
    },
    /// It was to be filled with what it missed, and nobody knows what that is.
    #[error(transparent)]
    Missed(#[from] NotByBitmap),
    /// The superblocks could not be written.
    #[error("{0}")]
    Io(IoError),
}

/// The holes of a member that holds nothing.
pub const EVERYTHING: &[Range<u64>] = std::slice::from_ref(&(0..u64::MAX));

/// The seats of `slots` slots, taken by `members`.
pub(super) fn seats(slots: usize, members: Vec<Rc<Member>>) -> Vec<Seat> {
    let mut seats: Vec<Seat> = std::iter::repeat_with(Seat::default).take(slots).collect();
    for member in members {
        let slot = member.slot();
        assert!(seats[slot].take(member), "one member in slot {slot}");
    }
    seats.iter_mut().for_each(Seat::promote);
    seats
}

impl Array {
    /// Slots of the array.
    #[must_use]
    pub fn raid_disks(&self) -> usize {
        self.seats.borrow().len()
    }

    /// The member that holds `slot`, perhaps only in part; none: there is none, or it failed.
    #[must_use]
    pub fn member(&self, slot: usize) -> Option<Rc<Member>> {
        self.seats.borrow().get(slot)?.holder.clone()
    }

    /// Everybody who takes part and is to be written, in order of slots.
    pub fn members(&self) -> impl Iterator<Item = Rc<Member>> + use<> {
        let seats = self.seats.borrow();
        let members: Vec<Rc<Member>> = seats.iter().flat_map(Seat::members).cloned().collect();
        members.into_iter()
    }

    /// Everybody who is to be written in `slot`.
    #[must_use]
    pub fn writers(&self, slot: usize) -> Vec<Rc<Member>> {
        let seats = self.seats.borrow();
        seats.get(slot).map_or_else(Vec::new, |seat| seat.members().cloned().collect())
    }

    /// Whether anybody is to be written in `slot`.
    #[must_use]
    pub fn is_held(&self, slot: usize) -> bool {
        self.seats.borrow().get(slot).is_some_and(|seat| seat.members().next().is_some())
    }

    /// Who can be asked for `sectors` (of its data) of `slot`.
    #[must_use]
    pub fn reader(&self, slot: usize, sectors: &Range<u64>) -> Option<Rc<Member>> {
        let seats = self.seats.borrow();
        seats.get(slot)?.members().find(|member| member.holds(sectors)).cloned()
    }

    /// Who can be asked for `sectors` (of its data), one for each slot, in order of slots.
    #[must_use]
    pub fn readers(&self, sectors: &Range<u64>) -> Vec<Rc<Member>> {
        let seats = self.seats.borrow();
        let reader = |seat: &Seat| seat.members().find(|member| member.holds(sectors)).cloned();
        seats.iter().filter_map(reader).collect()
    }

    /// Who does not hold all of `sectors` (of its data) yet.
    #[must_use]
    pub fn lacking(&self, sectors: &Range<u64>) -> Vec<Rc<Member>> {
        self.members().filter(|member| !member.holds(sectors)).collect()
    }

    /// Slots in which nobody is complete.
    #[must_use]
    pub fn missing_count(&self) -> usize {
        (0..self.raid_disks()).filter(|&slot| self.is_missing(slot, None)).count()
    }

    /// Whether nobody but `gone` is complete in `slot`.
    fn is_missing(&self, slot: usize, gone: Option<&Rc<Member>>) -> bool {
        let seats = self.seats.borrow();
        seats.get(slot).is_none_or(|seat| !seat.is_complete_without(gone))
    }

    /// Whether everything the array holds is still there without `member`.
    #[must_use]
    pub fn can_spare(&self, member: &Rc<Member>) -> bool {
        let missing = |slot: usize| self.is_missing(slot, Some(member));
        let loses = self.is_missing(member.slot(), Some(member));
        let lost = self.is_missing(member.slot(), None);
        loses == lost || self.options.tolerance.survives(self.raid_disks(), missing)
    }

    /// How many more members may go, whichever they are.
    #[must_use]
    pub fn spare_redundancy(&self) -> usize {
        let missing = |slot: usize| self.is_missing(slot, None);
        self.options.tolerance.spare_redundancy(self.raid_disks(), missing)
    }

    /// Stops asking `member`, if the array can spare it.
    pub(super) fn drop_member(&self, member: &Rc<Member>, error: IoError) -> IoResult {
        if member.failed() {
            return Ok(());
        }
        // A full device has lost nothing: failing its member would cost redundancy for ever, and
        // where the members share a file system all of them are full. Writing ends instead.
        if error.kind == IoErrorKind::NoSpace || !self.can_spare(member) {
            return Err(error);
        }
        self.leave(member);
        member.events().emit_detail(EventKind::MemberFailed, Sector::ZERO, 0, error.to_string());
        self.changed();
        Ok(())
    }

    /// Stops asking `member` because somebody wants that; its superblock is stale when this returns.
    ///
    /// # Errors
    /// `Unavailable` if the array cannot spare it; what the survivors said.
    pub async fn dismiss(&self, member: &Rc<Member>, why: &str) -> IoResult {
        if !self.can_spare(member) {
            return Err(IoErrorKind::Unavailable.at(Sector::ZERO));
        }
        if !member.failed() {
            self.leave(member);
            let detail = why.to_owned();
            member.events().emit_detail(EventKind::MemberFailed, Sector::ZERO, 0, detail);
            self.changed();
        }
        self.record_members().await
    }

    /// From now on nobody asks `member`.
    pub(super) fn leave(&self, member: &Rc<Member>) {
        member.set_failed();
        self.unrecorded.set(true);
        let mut seats = self.seats.borrow_mut();
        let Some(seat) = seats.get_mut(member.slot()) else { return };
        for place in [&mut seat.holder, &mut seat.replacement] {
            place.take_if(|there| Rc::ptr_eq(there, member));
        }
        seat.promote();
    }

    /// The slots that nobody holds.
    #[must_use]
    pub fn vacant(&self) -> Vec<usize> {
        let seats = self.seats.borrow();
        let numbered = seats.iter().enumerate();
        let vacant = numbered.filter(|(_, seat)| seat.members().next().is_none());
        vacant.map(|(slot, _)| slot).collect()
    }

    /// Whether `found` can hold its slot, or with `replaces` stand beside the holder.
    ///
    /// # Errors
    /// [`JoinError`] says why not.
    pub fn admits(&self, found: &Found, replaces: bool) -> Result<(), JoinError> {
        if self.read_only() {
            return Err(JoinError::ReadOnly);
        }
        let slot = found.slot;
        {
            let seats = self.seats.borrow();
            let seat = seats.get(slot).ok_or(JoinError::NoSlot { slot })?;
            match (replaces, &seat.holder, &seat.replacement) {
                (true, None, _) => return Err(JoinError::Vacant { slot }),
                (false, Some(_), _) | (_, _, Some(_)) => {
                    return Err(JoinError::Held { slot, replaces });
                }
                _ => {}
            }
        }
        let own = found.superblock.as_ref().map(|own| own.dev_number());
        let mut numbers = self.members().filter_map(|m| Some(m.superblock()?.dev_number()));
        if let Some(number) = numbers.find(|number| Some(*number) == own) {
            return Err(JoinError::Number { number });
        }
        self.fits(found)
    }

    /// Whether its data can do what the layer above was promised of all members.
    fn fits(&self, found: &Found) -> Result<(), JoinError> {
        let new = found.data.limits();
        let Some(all) = self.common_limits() else { return Ok(()) };
        let (found, expected) = (new.sectors, all.sectors);
        if found < expected {
            return Err(JoinError::Small { found, expected });
        }
        let (found, expected) = (Tagging::of(new), Tagging::of(&all));
        if found != expected {
            return Err(JoinError::Tags { found, expected });
        }
        let unfit = |what| Err(JoinError::Unfit { what });
        if new.logical_block > all.logical_block {
            return unfit("it cannot write blocks as small");
        }
        if new.max_bytes < all.max_bytes {
            return unfit("it cannot take requests as large");
        }
        if all.verified && !new.verified {
            return unfit("it cannot verify what it reads");
        }
        if all.discard && !new.discard {
            return unfit("it cannot discard");
        }
        if all.fast_zeroes && !new.fast_zeroes {
            return unfit("it cannot write zeroes at once");
        }
        Ok(())
    }

    /// Gives `found` its slot, or with `replaces` a place beside the holder; it holds nothing of
    /// `holes` yet, which are sectors of its data. The header of `rebuild` has the order.
    ///
    /// # Errors
    /// [`JoinError`]. Except for `Io` nothing was written.
    pub async fn join(
        &self,
        found: Found,
        replaces: bool,
        holes: &[Range<u64>],
    ) -> Result<Rc<Member>, JoinError> {
        let _lock = self.lock.acquire(1).await;
        self.admits(&found, replaces)?;
        self.unbroken().map_err(JoinError::Io)?;
        self.take_in(found, replaces, holes).await
    }

    /// The same for a member that was away, of which nothing was touched since: it lacks what the
    /// write-intent bitmap says was written meanwhile.
    ///
    /// # Errors
    /// [`JoinError`]; `Missed` if the bitmap cannot say it. Except for `Io` nothing was written to it.
    pub async fn rejoin(&self, mut found: Found) -> Result<Rc<Member>, JoinError> {
        let _lock = self.lock.acquire(1).await;
        self.admits(&found, false)?;
        self.unbroken().map_err(JoinError::Io)?;
        if self.rounds.table_changed(&self.members().collect::<Vec<_>>()) {
            self.round(self.rounds.on_disk()).await.map_err(JoinError::Io)?;
        }
        let own = found.superblock.as_mut();
        let holes = match &own {
            Some(own) => self.missed_by(own)?,
            None => return Err(NotByBitmap::Incomplete.into()),
        };
        if let Some(own) = own {
            // In memory as a spare of today, so that its superblock is the last of the round.
            own.set_events(self.rounds.events());
            own.set_role(own.dev_number(), Role::Spare);
        }
        self.take_in(found, false, &holes).await
    }

    /// What of its data the member of superblock `own` lacks, which was away; all the rest is as the
    /// others have it.
    ///
    /// # Errors
    /// [`NotByBitmap`], if the bitmap cannot say it.
    pub fn missed_by(&self, own: &Superblock) -> Result<Vec<Range<u64>>, NotByBitmap> {
        let members: Vec<Rc<Member>> = self.members().collect();
        let superblocks: Vec<(Superblock, usize)> =
            members.iter().filter_map(|one| Some((one.superblock()?, one.slot()))).collect();
        let (peer, _) = superblocks.first().ok_or(NotByBitmap::NoBitmap)?;
        let numbers: Vec<(u32, usize)> =
            superblocks.iter().map(|(one, slot)| (one.dev_number(), *slot)).collect();
        let bitmap = self.intent.as_ref().map(|intent| intent.bitmap());
        missed(
            own,
            &Running {
                superblock: peer,
                bitmap: bitmap.as_deref(),
                members: &numbers,
                events: self.rounds.events(),
                recorded: !self.rounds.table_changed(&members),
            },
        )
    }

    /// Gives it its place, with the lock held.
    async fn take_in(
        &self,
        found: Found,
        replaces: bool,
        holes: &[Range<u64>],
    ) -> Result<Rc<Member>, JoinError> {
        let mut lacks = RangeSet::default();
        holes.iter().for_each(|hole| lacks.insert(hole.clone()));
        let member = Rc::new(Member::to_fill(found, &lacks, replaces, (self.events(), &self.lock)));
        if let Some(seat) = self.seats.borrow_mut().get_mut(member.slot()) {
            seat.take(Rc::clone(&member));
        }
        self.round(self.rounds.on_disk()).await.map_err(JoinError::Io)?;
        self.changed();
        Ok(member)
    }
}
