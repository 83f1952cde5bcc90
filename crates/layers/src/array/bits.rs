//! What the array as a whole has to do with the bitmap and with bad sectors: when bits are cleared, and
//! what becomes of a write that a member cannot take.

use super::ordering::{CLEAN, CLEARED};
use super::{Array, Member, RangeSet};
use bio::{EventKind, IoError, IoResult};
use std::ops::Range;
use std::rc::{Rc, Weak};
use units::Sector;

impl Array {
    /// Bytes of a chunk of the write-intent bitmap, its chunks, and those of them that are dirty;
    /// none: there is no bitmap.
    #[must_use]
    pub fn bitmap_counts(&self) -> Option<(u32, u64, u64)> {
        self.intent.as_ref().map(|intent| intent.counts())
    }

    /// Whether the log of some member calls bad what was written since.
    pub(super) fn any_written_over(&self) -> bool {
        self.members().any(|member| member.bad().written().first().is_some())
    }

    /// Flushes the members before the superblocks say clean, with the lock held, and takes out of their
    /// bad block logs what is on the media then.
    pub(super) async fn flush_and_forget(&self) -> IoResult {
        let members: Vec<Rc<Member>> = self.members().collect();
        let written: Vec<RangeSet> = members.iter().map(|member| member.bad().written()).collect();
        self.flush_members(CLEAN).await?;
        for (member, written) in members.iter().zip(&written) {
            if written.first().is_none() || member.failed() {
                continue;
            }
            if let Err(error) = member.bad().forget(written).await {
                self.drop_member(member, error).inspect_err(|error| self.end_writing(*error))?;
            }
        }
        Ok(())
    }

    /// Goes on without a write to `sectors` of `member`, of which others have what was
    /// written: as bad sectors of it, or without it.
    ///
    /// # Errors
    /// As [`Self::fail`].
    pub async fn cannot_take(
        &self,
        member: &Rc<Member>,
        sectors: Range<u64>,
        error: IoError,
    ) -> IoResult {
        if error.kind.is_damage() {
            let (place, length) =
                (member.place(Sector(sectors.start)), sectors.end - sectors.start);
            if member.record_bad(sectors).await.is_ok() {
                let detail = format!("could not be written, recorded as bad: {error}");
                member.events().emit_detail(EventKind::Note, place, length, detail);
                return Ok(());
            }
        }
        self.fail(member, error).await
    }

    /// Goes on without the members that could not take a part of the bitmap, with the lock held.
    pub(super) async fn settle_bits(&self, failures: Vec<(Rc<Member>, IoError)>) -> IoResult {
        for (member, error) in failures {
            self.drop_member(&member, error).inspect_err(|error| self.end_writing(*error))?;
        }
        if self.rounds.table_changed(&self.members().collect::<Vec<_>>()) {
            self.round(self.rounds.on_disk()).await?;
        }
        Ok(())
    }

    /// Sees to it that bits are cleared that nobody needs any more.
    pub(super) fn watch_bits(&self) {
        let Some(intent) = self.intent.as_ref().filter(|_| !self.options.read_only) else { return };
        if !self.closed.get() && !intent.is_clean() && intent.watch(true) {
            drop(runtime::spawn(clear_when_idle(Weak::clone(&self.myself))));
        }
    }

    /// Clears the bits of what is in sync and idle, with the lock held; the list is in [`super::bitmap`].
    /// Whether there was anything to clear.
    pub(super) async fn clear_bits(&self) -> IoResult<bool> {
        let Some(intent) = &self.intent else { return Ok(false) };
        self.unbroken()?;
        let idle = intent.idle(&self.unsynced.borrow());
        if idle.first().is_none() || self.missing_count() > 0 {
            return Ok(false);
        }
        self.flush_members(CLEARED).await?;
        if self.missing_count() > 0 {
            return self.settle_bits(Vec::new()).await.map(|()| false);
        }
        let members = self.members().collect();
        let failures = intent.clear(idle, members, self.rounds.events()).await;
        self.settle_bits(failures).await.map(|()| true)
    }
}

/// Runs while there are bits that may be cleared.
async fn clear_when_idle(array: Weak<Array>) {
    let period = array.upgrade().and_then(|array| Some(array.intent.as_ref()?.period()));
    let Some(period) = period else { return };
    loop {
        runtime::sleep(period).await;
        let Some(array) = array.upgrade() else { return };
        let Some(intent) = &array.intent else { return };
        let _lock = array.lock.acquire(1).await;
        // What went wrong was told as an event, and is met again by whoever writes next.
        let gone = array.closed.get() || array.clear_bits().await.is_err();
        if gone || intent.is_clean() {
            intent.watch(false);
            return;
        }
    }
}
