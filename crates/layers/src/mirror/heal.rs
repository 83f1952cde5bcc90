//! Rebuilding what one member cannot give, by evidence, and writing it back.
//!
//! 1. The range is locked: nobody writes there. Crash: as before.
//! 2. The damaged member is asked once more: somebody may have healed or rewritten it.
//! 3. The others are asked. A copy for which the damaged member's own tag vouches is what was
//!    there; failing that a copy that its own member checked; failing that the first. If all are
//!    damaged, what lies in one may be vouched for by another (crossed.rs).
//! 4. It is written back. Crash: the block is as damaged as before, or whole.
//! 5. It is read again from the medium and compared.
//!
//! No write intent is needed: at every step each copy is the right one or says that it is damaged.

use super::Inner;
use super::placement::Site;
use super::unchecked::Best;
use crate::array::checks::{COPY, COPY_HEALED, COPY_VOUCHED};
use crate::array::{Member, Tagging};
use bio::{Bio, Buf, EventKind, Extent, IoErrorKind, IoResult};
use units::Sector;

/// A copy found elsewhere, and how good the evidence for it is.
pub(super) struct Evidence {
    /// Interleaved with its tags.
    pub(super) bytes: Buf,
    /// The damaged member's own tag agrees with it.
    pub(super) vouched: bool,
}

impl Inner {
    /// What belongs in `extent`, interleaved with its tags, which `site` could not give (and said `kind`): from the others, and
    /// written back unless nothing may be written.
    ///
    /// # Errors
    /// `kind` at the first block that nobody has.
    pub(super) async fn heal(
        &self,
        site: &Site,
        extent: Extent,
        kind: IoErrorKind,
    ) -> IoResult<Buf> {
        let range = extent.sector.0..extent.sector.0 + extent.sectors;
        let _lock = self.ranges.lock(range).await;
        self.heal_locked(site, extent, kind).await
    }

    /// As [`Self::heal`], for who holds the range.
    pub(super) async fn heal_locked(
        &self,
        site: &Site,
        extent: Extent,
        kind: IoErrorKind,
    ) -> IoResult<Buf> {
        let again = self.tagging.read(extent.sector, extent.sectors).bypassing();
        let mut again = again.because(COPY);
        if site.submit(&mut again).await.is_ok() {
            return Ok(self.tagging.taken(again));
        }
        // A long run goes in one piece if the evidence for all of it is the best there is.
        let single = self.block().sectors() == extent.sectors;
        let found = self.find(site, extent).await;
        if let Some(found) = found
            && (single || found.vouched || !verified(&site.member))
        {
            let _ = self.write_back(site, extent, &found).await;
            return Ok(found.bytes);
        }
        if single {
            if let Some(bytes) = self.heal_crossed(extent).await {
                return Ok(bytes);
            }
            self.lost(extent);
            return Err(kind.at(extent.sector));
        }
        self.heal_blocks(site, extent, kind).await
    }

    async fn heal_blocks(&self, site: &Site, extent: Extent, kind: IoErrorKind) -> IoResult<Buf> {
        let block = self.block();
        let mut bytes = Buf::alloc(self.tagging.interleaved_bytes(extent.sectors));
        let each = self.tagging.interleaved_bytes(block.sectors());
        let mut outcome = Ok(());
        for (index, target) in (0..).zip(bytes.as_mut_slice().chunks_exact_mut(each)) {
            let sector = extent.sector + index * block.sectors();
            let one = Extent { sector, sectors: block.sectors() };
            // One level deep: a single block does not come here again.
            match Box::pin(self.heal_locked(site, one, kind)).await {
                Ok(healed) => target.copy_from_slice(healed.as_slice()),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| bytes)
    }

    /// The best copy of `extent` that the other members have.
    async fn find(&self, damaged: &Site, extent: Extent) -> Option<Evidence> {
        let mut best = Best::default();
        for other in self.sites(extent) {
            if other.is(damaged) {
                continue;
            }
            let mut bio = self.tagging.read(extent.sector, extent.sectors).because(COPY);
            if other.submit(&mut bio).await.is_err() {
                continue;
            }
            let bytes = self.tagging.taken(bio);
            if vouches(damaged, extent.sector, &bytes).await {
                return Some(Evidence { bytes, vouched: true });
            }
            let checked = verified(&other.member) && !self.tagging.is_escaped(bytes.as_slice());
            best.offer(checked, bytes);
        }
        best.taken(self).map(|bytes| Evidence { bytes, vouched: false })
    }

    /// Steps 4 and 5; whether it is healed. What cannot be rewritten stays damaged, which readers notice:
    /// the member is failed only if it does not answer, or says that it wrote what it did not.
    pub(super) async fn write_back(&self, site: &Site, extent: Extent, found: &Evidence) -> bool {
        let (member, place) = (&site.member, site.place(extent.sector));
        if self.limits.read_only {
            if self.tell_once(member.slot(), extent.sector) {
                member.events().emit(EventKind::Healable, place, extent.sectors);
            }
            return false;
        }
        match self.rewrite(site, extent, &found.bytes).await {
            Ok(()) => {
                self.array.count_corrected(member, extent.sectors);
                let kind = EventKind::Healed { source: "mirror", vouched: found.vouched };
                member.events().emit(kind, place, extent.sectors);
                return true;
            }
            Err(error) if error.kind == IoErrorKind::Unavailable => {
                // If it is the last one it stays; the reader has its bytes either way.
                let _ = self.array.fail(member, error).await;
            }
            Err(error) => {
                // What lies there may be neither what was nor what should be. Without room in the log it
                // is as damaged as before.
                let bad = site.on_member(extent.sector, extent.sectors);
                let _ = member.record_bad(bad).await;
                if self.tell_once(member.slot(), extent.sector) {
                    let detail = format!("damaged and could not be rewritten: {error}");
                    member.events().emit_detail(EventKind::Note, place, extent.sectors, detail);
                }
            }
        }
        false
    }

    /// Writes `bytes`, interleaved with their tags, to one member and reads them again from the medium.
    ///
    /// # Errors
    /// What the member said; `Unavailable` if it gives back something else: it cannot be relied on.
    pub(super) async fn rewrite(&self, site: &Site, extent: Extent, bytes: &Buf) -> IoResult {
        let mut write = self.tagging.write(extent.sector, bytes).because(COPY_HEALED);
        site.submit(&mut write).await?;
        let again = self.tagging.read(extent.sector, extent.sectors).bypassing();
        let mut again = again.because(COPY_HEALED);
        site.submit(&mut again).await?;
        if self.tagging.taken(again).as_slice() != bytes.as_slice() {
            return Err(IoErrorKind::Unavailable.at(extent.sector));
        }
        Ok(())
    }

    /// Says once that nobody has it. Counted on the volume.
    pub(super) fn lost(&self, extent: Extent) {
        if self.tell_once(usize::MAX, extent.sector) {
            self.array.events().emit(EventKind::Lost, extent.sector, extent.sectors);
        }
    }

    pub(super) fn tell_once(&self, slot: usize, sector: Sector) -> bool {
        let mut told = self.told.borrow_mut();
        told.len() < TOLD_MAX && told.insert((slot, sector.0))
    }
}

/// Whether what `member` reads was checked against a tag.
pub(super) fn verified(member: &Member) -> bool {
    member.data().limits().verified
}

/// Whether the tags that `site` has stored vouch for the data of `bytes`, which are interleaved.
pub(super) async fn vouches(site: &Site, sector: Sector, bytes: &Buf) -> bool {
    if !verified(&site.member) {
        return false;
    }
    let (data, _) = Tagging::of(site.member.data().limits()).apart(bytes);
    site.submit(&mut Bio::vouch(sector, data).because(COPY_VOUCHED)).await.is_ok()
}

/// Places remembered so as not to be told twice.
const TOLD_MAX: usize = 1 << 16;
