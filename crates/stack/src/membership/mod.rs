//! Members that come and go while a volume is open: added, replaced, failed, removed, rebuilt.
//!
//! ```text
//!   look (signatures, content) --> make ready (prepare.rs): dm-integrity like its peers', a spare's
//!   superblock --> open --> vacant slot: it is given that, and filled in the background
//!                           none vacant: a spare
//!                           replacing:   beside the holder, filled in the background
//! ```
//! What a crash leaves of making ready is in [`crate::create`]'s list of writes: nothing opens on
//! it until its last superblock is written, and then it is a spare. From there on the array has the
//! list (`layers::array::rebuild`).
//!
//! A member of this array that was left out or failed, and comes back to its slot, is given what the
//! write-intent bitmap says it missed, if the bitmap can say that (`md::missed`): nothing is written to it
//! before the array takes it in. Otherwise it is made a spare by one write, its own superblock; its content
//! means nothing any more from then on, and why is said.

mod error;
mod parts;
mod prepare;

pub use error::MembershipError;

use crate::create::{CreateProgress, Phase, PlannedWrite, WriteKind};
use crate::member::Member;
use crate::volume::{MemberPart, MemberState, Volume};
use layers::array::{Array, EVERYTHING, JoinError};
use md::missed::NotByBitmap;
use md::superblock::{Level, SUPERBLOCK_BYTES};
use std::rc::Rc;
use units::u64_of;

/// A member that is to come.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// What it is called.
    pub member: Member,
    /// The device that is to hold its data, if it holds only what belongs to it.
    pub data: Option<Member>,
    /// Overwrite what lies there.
    pub yes: bool,
}

/// What became of a member that came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Added {
    /// The slot that it was given; none: it is a spare.
    pub slot: Option<usize>,
    /// What it was before.
    pub past: Past,
    /// What was written to make it ready, or would be.
    pub writes: Vec<PlannedWrite>,
}

/// What a member that came was before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Past {
    /// No member of this array.
    None,
    /// A member of this array, and what it holds is of no use.
    Forgotten {
        /// Why not.
        why: NotByBitmap,
    },
    /// A member of this array that lacks only what was written meanwhile.
    Kept {
        /// The slot that it held.
        slot: usize,
        /// Sectors that the write-intent bitmap says it missed.
        missed_sectors: u64,
    },
}

/// How far the making ready of a member has come.
pub type OnProgress<'a> = dyn FnMut(Phase, &CreateProgress) + 'a;

impl Volume {
    /// Makes `new` a member: it is given a slot that nobody holds, and filled in the background, or
    /// is kept as a spare.
    ///
    /// # Errors
    /// [`MembershipError`]. What is refused is refused before anything is written.
    pub async fn add(
        &self,
        new: &NewMember,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Added, MembershipError> {
        let array = self.changeable()?;
        let ready = self.prepare(new, true, on_progress).await?;
        let kept = match ready.past {
            Past::Kept { slot, .. } => Some(slot),
            _ => None,
        };
        let slot = kept.or_else(|| array.vacant().first().copied());
        let added = Added { slot, past: ready.past, writes: ready.writes.clone() };
        let found = ready.found(slot.unwrap_or(0), self.events())?;
        let Some(slot) = slot else {
            self.take_in(ready.part(None, MemberState::Spare));
            array.add_spare(found);
            return Ok(added);
        };
        let joined = match kept {
            Some(_) => array.rejoin(found).await,
            None => array.join(found, false, EVERYTHING).await,
        };
        if let Err(error) = joined {
            return Err(self.refused(ready, error).await);
        }
        self.take_in(ready.part(Some(slot), MemberState::Rebuilding));
        Ok(added)
    }

    /// Puts `new` beside the member `old`, fills it in the background, and lets it take over.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub async fn replace(
        &self,
        old: &str,
        new: &NewMember,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Added, MembershipError> {
        self.may_leave(old)?;
        let array = self.changeable()?;
        let part = self.part(old)?;
        let (slot, state) = self.place_of(&part);
        let slot = slot.filter(|_| state != MemberState::Replacing);
        let slot = slot.ok_or(MembershipError::NotOurs { member: old.to_owned() })?;
        // One that failed or is missing is not replaced but followed.
        let replaces = array.member(slot).is_some();
        let ready = self.prepare(new, false, on_progress).await?;
        let added = Added { slot: Some(slot), past: ready.past, writes: ready.writes.clone() };
        let found = ready.found(slot, self.events())?;
        if let Err(error) = array.join(found, replaces, EVERYTHING).await {
            return Err(self.refused(ready, error).await);
        }
        let state = if replaces { MemberState::Replacing } else { MemberState::Rebuilding };
        self.take_in(ready.part(Some(slot), state));
        Ok(added)
    }

    /// What [`Self::add`] or [`Self::replace`] would write to make `new` ready.
    ///
    /// # Errors
    /// As they say, as far as can be seen without writing.
    pub async fn plan_member(
        &self,
        new: &NewMember,
        on_progress: &mut OnProgress<'_>,
    ) -> Result<Vec<PlannedWrite>, MembershipError> {
        self.array().ok_or(MembershipError::NoArray)?;
        self.plan_new(new, on_progress).await
    }

    /// Stops using `name`, which is stale from then on.
    ///
    /// # Errors
    /// [`MembershipError`]; `Needed` if something would be lost.
    pub async fn fail(&self, name: &str) -> Result<(), MembershipError> {
        self.may_leave(name)?;
        let array = self.changeable()?;
        let part = self.part(name)?;
        let running = self.running(&part.name);
        let running = running.ok_or(MembershipError::NotOurs { member: name.to_owned() })?;
        if !array.can_spare(&running) {
            let (missing, slots) = (array.missing_count(), array.raid_disks());
            return Err(MembershipError::Needed { member: name.to_owned(), missing, slots });
        }
        array
            .dismiss(&running, "given up by request")
            .await
            .map_err(|error| MembershipError::Io { member: name.to_owned(), error })
    }

    /// Lets go of `name`: a spare, a member that failed or was left out, or one that is still being
    /// filled.
    ///
    /// # Errors
    /// [`MembershipError`]; `InUse` if it holds a slot.
    pub async fn remove(&self, name: &str) -> Result<(), MembershipError> {
        self.may_leave(name)?;
        let array = self.changeable()?;
        let part = self.part(name)?;
        if let Some(running) = self.running(&part.name) {
            if running.is_complete() && !running.replaces() {
                let (member, slot) = (name.to_owned(), running.slot());
                return Err(MembershipError::InUse { member, slot });
            }
            let failed = |error| MembershipError::Io { member: name.to_owned(), error };
            array.dismiss(&running, "removed by request").await.map_err(failed)?;
        }
        array.remove_spare(&part.name);
        self.let_go(&part.name);
        // It is gone: whatever it says now concerns nobody.
        let _closed = self.close_part(&part).await;
        Ok(())
    }

    /// Whether `name` is one that may be replaced, given up or let go at all, as far as its role says.
    ///
    /// # Errors
    /// [`MembershipError::NotOurs`], [`MembershipError::WriteJournal`].
    pub fn may_leave(&self, name: &str) -> Result<(), MembershipError> {
        if self.part(name)?.state == MemberState::Journal {
            return Err(MembershipError::WriteJournal { member: name.to_owned() });
        }
        Ok(())
    }

    /// Starts what there is to rebuild. Whether anything is.
    ///
    /// # Errors
    /// [`MembershipError::NoArray`], [`MembershipError::ReadOnly`].
    pub fn rebuild(&self) -> Result<bool, MembershipError> {
        self.changeable()?.rebuild();
        Ok(self.rebuilding().0)
    }

    /// The superblocks that every change of the members rewrites, as `--dry-run` lists them.
    #[must_use]
    pub fn planned_superblocks(&self) -> Vec<PlannedWrite> {
        let bytes = u64_of(SUPERBLOCK_BYTES);
        let members = self.array().into_iter().flat_map(|array| array.members());
        let superblocks = members.filter_map(|member| {
            let byte = member.superblock()?.super_offset().bytes();
            let (member, kind) = (member.name().to_string(), WriteKind::MdSuperblock);
            Some(PlannedWrite { member, kind, byte, span_bytes: bytes, bytes })
        });
        superblocks.collect()
    }

    fn changeable(&self) -> Result<Rc<Array>, MembershipError> {
        let array = self.array().ok_or(MembershipError::NoArray)?;
        let level = self.freshest.as_ref().map(|freshest| freshest.level());
        if matches!(level, None | Some(Level::Linear | Level::Raid0 | Level::Unknown(_))) {
            return Err(MembershipError::NoArray);
        }
        if self.is_read_only() {
            return Err(MembershipError::ReadOnly);
        }
        Ok(Rc::clone(array))
    }

    /// The member that `name` means: as it was named, or another name of the same file.
    fn part(&self, name: &str) -> Result<Rc<MemberPart>, MembershipError> {
        let parts = self.parts();
        let same = |part: &&Rc<MemberPart>| *part.name == *name;
        let file = |member: &Member| crate::leaf::file_numbers([member]).first().copied();
        let wanted = Member::parse(name).ok().as_ref().and_then(file);
        let linked = |part: &&Rc<MemberPart>| {
            wanted.is_some() && part.member.as_ref().and_then(file) == wanted
        };
        let found = parts.iter().find(same).or_else(|| parts.iter().find(linked));
        found.cloned().ok_or_else(|| MembershipError::NotOurs { member: name.to_owned() })
    }

    /// A member that was made ready and did not get in.
    async fn refused(&self, ready: prepare::Ready, error: JoinError) -> MembershipError {
        let member = ready.name().to_owned();
        let part = ready.part(None, MemberState::LeftOut);
        let _closed = self.close_part(&part).await;
        MembershipError::Join { member, error }
    }
}
