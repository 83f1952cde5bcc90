//! Asking one member: reading rows, finding which blocks of them are bad, and storing rows.
//!
//! Knows members and their errors; nothing of parity. A member that no longer answers, or that
//! cannot be written, is failed here, through the array, before the request that met it goes on.

use super::content::Content;
use super::{Inner, at, bytes, is_loss};
use crate::array::Member;
use crate::array::checks::{ROW, VOUCHED};
use bio::{Bio, Buf, Device, IoError, IoErrorKind, IoResult, Op, Segments};
use runtime::join_all;
use std::ops::Range;
use std::rc::Rc;
use units::{Sector, u64_of, usize_of};

/// Bytes for rows of one slot.
pub(super) struct Store {
    pub(super) slot: usize,
    /// Member sectors.
    pub(super) rows: Range<u64>,
    pub(super) content: Content,
}

impl Store {
    /// Whether `next` is stored together with this as one request: on the same slot, beginning where this
    /// ends, and with as many bytes of tags for each sector. The profile is the array's, and the reference tags
    /// of both count the member's own intervals, so those of `next` go on where these end.
    fn goes_on_with(&self, next: &Self) -> bool {
        let is_contiguous = self.slot == next.slot && self.rows.end == next.rows.start;
        let [here, there] = [self, next].map(|store| {
            (u64_of(store.content.tags.len_bytes()), store.rows.end - store.rows.start)
        });
        is_contiguous && here.0 * there.1 == there.0 * here.1
    }
}

/// Which blocks of a run could not be read, and why; without a reason, nobody holds them.
pub(super) type Bad = Vec<(Range<u64>, Option<IoErrorKind>)>;

/// Hands `bio` down in pieces that the member takes.
pub(super) async fn submit(device: &Device, bio: &mut Bio) -> IoResult {
    let max = usize_of(device.limits().max_bytes);
    if bio.data.len_bytes() <= max {
        return device.submit(bio).await;
    }
    let block = device.limits().logical_block.bytes();
    let piece = (max - max % block).max(block);
    // A piece is whole blocks, so its tags are whole tags.
    let tags_each = bio.tags.len_bytes() * piece / bio.data.len_bytes();
    let mut rest = (std::mem::take(&mut bio.data), std::mem::take(&mut bio.tags));
    let (mut sector, mut outcome) = (bio.sector, Ok(()));
    while !rest.0.is_empty() {
        let mut next = <(Segments, Segments)>::default();
        if rest.0.len_bytes() > piece {
            next = (rest.0.split_off(piece), rest.1.split_off(tags_each));
        }
        let (data, tags) = std::mem::replace(&mut rest, next);
        let mut part = Bio::read_into(sector, data).tagged(tags);
        (part.op, part.bypass, part.reason) = (bio.op, bio.bypass, bio.reason);
        sector = part.end();
        if outcome.is_ok() {
            outcome = device.submit(&mut part).await;
        }
        bio.data.append(part.data);
        bio.tags.append(part.tags);
    }
    outcome
}

impl Inner {
    /// Fails `member` if `error` says that it no longer answers.
    ///
    /// # Errors
    /// If the survivors' superblocks cannot say so. A member that cannot be spared stays; what it
    /// has is then lost to this request.
    pub(super) async fn notice(&self, member: &Rc<Member>, error: IoError) -> IoResult {
        if error.kind != IoErrorKind::Unavailable || !self.array.can_spare(member) {
            return Ok(());
        }
        self.array.fail(member, error).await
    }

    /// Reads sectors of one slot and their tags, to check what `reason` says. `Unavailable` if nobody
    /// holds all of them.
    pub(super) async fn read_member(
        &self,
        slot: usize,
        range: Range<u64>,
        bypass: bool,
        reason: &'static str,
    ) -> IoResult<Content> {
        let Some(member) = self.reader(slot, &range) else {
            return Err(IoErrorKind::Unavailable.at(Sector(range.start)));
        };
        self.read_from(&member, range, bypass, reason).await
    }

    /// Reads what can be read of sectors of one slot, block by block where that is necessary.
    /// None: nothing, because nobody holds any of it.
    ///
    /// # Errors
    /// Only what is neither damage nor absence.
    pub(super) async fn read_sound(
        &self,
        slot: usize,
        range: Range<u64>,
        bypass: bool,
    ) -> IoResult<Option<(Content, Bad)>> {
        let block = self.block.sectors();
        let mut whole = Content::alloc(self.tagging, range.end - range.start);
        let (mut bad, mut todo) = (Bad::new(), vec![range.clone()]);
        while let Some(part) = todo.pop() {
            let Some(member) = self.reader(slot, &part) else {
                if self.is_hole(slot, &part) {
                    bad.extend(blocks(part, block).map(|one| (one, None)));
                } else {
                    todo.extend(halves(part, block));
                }
                continue;
            };
            let error = match self.read_from(&member, part.clone(), bypass, ROW).await {
                Ok(content) if part == range => return Ok(Some((content, bad))),
                Ok(content) => {
                    whole.put(self.tagging, part.start - range.start, &content);
                    continue;
                }
                Err(error) => error,
            };
            if error.kind == IoErrorKind::Unavailable {
                self.notice(&member, error).await?;
                return Ok(None);
            }
            if !error.kind.is_damage() {
                return Err(error);
            }
            if part.end - part.start <= block {
                bad.push((part, Some(error.kind)));
                continue;
            }
            // The place that it names is asked for alone, and so are the parts around it: not
            // every device knows the place.
            let place = error.sector.0.clamp(part.start, part.end - 1);
            let first = place - (place - part.start) % block;
            let around = [part.start..first, first..first + block, first + block..part.end];
            todo.extend(around.into_iter().filter(|part| !part.is_empty()));
        }
        let nobody = bad.iter().filter(|(_, kind)| kind.is_none());
        let lacking: u64 = nobody.map(|(part, _)| part.end - part.start).sum();
        Ok(if lacking == range.end - range.start { None } else { Some((whole, bad)) })
    }

    /// Reads sectors of one member's data and their tags.
    async fn read_from(
        &self,
        member: &Member,
        range: Range<u64>,
        bypass: bool,
        reason: &'static str,
    ) -> IoResult<Content> {
        if let Some(made) = self.in_memory.whole(member.slot(), &range) {
            return Ok(Content { data: made.into(), tags: Segments::default() });
        }
        let sectors = range.end - range.start;
        let mut bio = self.tagging.read(Sector(range.start), sectors).because(reason);
        bio.bypass = bypass;
        submit(member.data(), &mut bio).await?;
        self.in_memory.overlay(member.slot(), &range, &mut bio.data);
        let content = Content::of(bio);
        self.check_parity(member, &range, &content)?;
        Ok(content)
    }

    /// Whether nobody in `slot` holds any block of `rows` (member sectors).
    fn is_hole(&self, slot: usize, rows: &Range<u64>) -> bool {
        let held = |member: &Rc<Member>| {
            let hole = member.next_hole(rows.start);
            !hole.is_some_and(|hole| hole.start == rows.start && hole.end >= rows.end)
        };
        rows.end - rows.start <= self.block.sectors() || !self.array.writers(slot).iter().any(held)
    }

    /// Stores rows, all at once, what follows each other on a member in one request. Slots without
    /// a member are passed over.
    ///
    /// # Errors
    /// The first error that is not the end of a member that can be spared; the rows are then torn.
    pub(super) async fn store(&self, stores: Vec<Store>, fua: bool) -> IoResult {
        let _logged = self.log(&stores).await?;
        let journalled = self.journal(&stores).await?;
        let durable = journalled.as_ref().is_some_and(|journalled| journalled.durable);
        self.store_unlogged(stores, fua && !durable).await?;
        self.stored(journalled);
        Ok(())
    }

    /// The same of what no log has to name.
    ///
    /// # Errors
    /// As [`Self::store`].
    pub(super) async fn store_unlogged(&self, mut stores: Vec<Store>, fua: bool) -> IoResult {
        stores.sort_by_key(|store| (store.slot, store.rows.start));
        let mut merged: Vec<Store> = Vec::with_capacity(stores.len());
        for store in stores {
            match merged.last_mut() {
                Some(last) if last.goes_on_with(&store) => {
                    last.rows.end = store.rows.end;
                    last.content.append(store.content);
                }
                _ => merged.push(store),
            }
        }
        let touched: Vec<Range<u64>> = merged.iter().map(|store| store.rows.clone()).collect();
        let writes = merged.iter().flat_map(|store| {
            let writers = self.array.writers(store.slot).into_iter();
            writers.map(move |member| async move {
                let Content { data, tags } = store.content.clone();
                let mut bio = Bio::write(Sector(store.rows.start), data).tagged(tags);
                bio.op = Op::Write { fua };
                let failures = self.store_one(&member, &mut bio).await;
                if failures.is_empty() {
                    member.set_filled(store.rows.clone());
                }
                let each = failures.into_iter();
                each.map(|(rows, error)| (Rc::clone(&member), rows, error)).collect::<Vec<_>>()
            })
        });
        let results = join_all(writes).await;
        let mut outcome = Ok(());
        for (member, rows, error) in results.into_iter().flatten() {
            // A member that cannot take a write has old bytes with valid tags: they are recorded as bad,
            // or it must go.
            let lost = match is_loss(error.kind) {
                true => self.cannot_take(&member, rows.clone(), error).await,
                false => Err(error),
            };
            if let Err(error) = lost {
                if member.is_on_its_way() {
                    member.set_lacking(rows);
                }
                let place = self.volume_place(member.slot(), error.sector);
                outcome = outcome.and(Err(at(error, place)));
            }
        }
        if outcome.is_err() {
            for rows in touched {
                self.tear(rows);
            }
        }
        outcome
    }

    /// Stores on one member, and block by block what its medium does not take at once. Gives the rows
    /// that it did not take.
    async fn store_one(&self, member: &Member, bio: &mut Bio) -> Vec<(Range<u64>, IoError)> {
        let rows = bio.sector.0..bio.end().0;
        let Err(error) = submit(member.data(), bio).await else { return Vec::new() };
        if !error.kind.is_damage() {
            return vec![(rows, error)];
        }
        let (block, mut failures) = (self.block.sectors(), Vec::new());
        let all = Content { data: bio.data.clone(), tags: bio.tags.clone() };
        for start in rows.clone().step_by(usize_of(block)) {
            let at = start - rows.start;
            let Content { data, tags } = all.slice(self.tagging, &(at..at + block));
            let mut one = Bio::write(Sector(start), data).tagged(tags);
            one.op = bio.op;
            if let Err(error) = member.data().submit(&mut one).await {
                failures.push((start..start + block, error));
            }
        }
        failures
    }

    /// Goes on without `rows` of `member`, if the rest of the row has what was written.
    async fn cannot_take(&self, member: &Rc<Member>, rows: Range<u64>, error: IoError) -> IoResult {
        let reader = |slot: usize| self.array.reader(slot, &rows);
        let bad = |slot: &usize| reader(*slot).is_none_or(|other| other.is_bad(&rows));
        let others = (0..self.geometry.raid_disks()).filter(|&slot| slot != member.slot());
        if others.filter(bad).count() >= self.geometry.level().parity_count() {
            return Err(error);
        }
        self.array.cannot_take(member, rows, error).await
    }

    /// The volume's sector of a member's: of parity, its stripe's first.
    fn volume_place(&self, slot: usize, sector: Sector) -> Sector {
        let chunk = self.geometry.chunk_sectors();
        let stripe = (sector.0 / chunk).min(self.stripes - 1);
        self.volume_sector(&self.equations(stripe), slot, sector.0 % chunk)
    }

    /// Whether the member's own stored tag vouches for the data of a block, interleaved, at this sector.
    /// False also where there is no tag or no member.
    pub(super) async fn vouches(&self, slot: usize, sector: Sector, interleaved: &Buf) -> bool {
        let (data, _) = self.tagging.apart(interleaved);
        let rows = sector.0..sector.0 + self.block.sectors();
        let Some(member) = self.reader(slot, &rows) else { return false };
        if !member.data().limits().verified {
            return false;
        }
        let mut bio = Bio::vouch(sector, data).because(VOUCHED);
        submit(member.data(), &mut bio).await.is_ok()
    }

    /// Asks the members whether their tags vouch for what is asked.
    pub(super) async fn vouch(&self, bio: &mut Bio) -> IoResult {
        let stripe_sectors = self.geometry.stripe_sectors();
        let stripes = bio.sector.0 / stripe_sectors..bio.end().0.div_ceil(stripe_sectors);
        for stripe in self.cache.stripes(stripes) {
            self.flush_stripe(stripe).await?;
        }
        let chunk = self.geometry.chunk_sectors();
        let (mut sector, end) = (bio.sector.0, bio.end().0);
        while sector < end {
            let place = self.geometry.locate(Sector(sector));
            let length = (end - sector).min(chunk - sector % chunk);
            let rows = place.member_sector.0..place.member_sector.0 + length;
            let Some(member) = self.reader(place.slot, &rows) else {
                return Err(IoErrorKind::Unavailable.at(Sector(sector)));
            };
            let from = bytes(sector - bio.sector.0);
            let data = bio.data.slice(from..from + bytes(length));
            let mut part = Bio::vouch(place.member_sector, data);
            submit(member.data(), &mut part).await.map_err(|error| {
                let within = error.sector.0.saturating_sub(place.member_sector.0);
                at(error, Sector(sector + within.min(length - 1)))
            })?;
            sector += length;
        }
        Ok(())
    }
}

/// The blocks of a run.
fn blocks(run: Range<u64>, block: u64) -> impl Iterator<Item = Range<u64>> {
    (0..(run.end - run.start) / block).map(move |index| {
        let start = run.start + index * block;
        start..start + block
    })
}

/// A run of several blocks in two.
fn halves(run: Range<u64>, block: u64) -> [Range<u64>; 2] {
    let middle = run.start + ((run.end - run.start) / 2).next_multiple_of(block);
    [run.start..middle, middle..run.end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use dif::{Format, Guard, Profile, ProtectionType};

    fn profile() -> Profile {
        let format = Format::new(Guard::Crc16, 512).unwrap();
        Profile { format, kind: ProtectionType::One }
    }

    fn store(slot: usize, rows: Range<u64>) -> Store {
        let data = Buf::copy_of(&vec![7; usize_of(Sector(rows.end - rows.start).bytes())]);
        let mut bio = Bio::write(Sector(rows.start), data);
        bio.sign(&profile());
        Store { slot, rows, content: Content::of(bio) }
    }

    #[test]
    fn rows_with_tuples_go_together_where_they_are_contiguous_and_alike() {
        let first = store(1, 8..16);
        assert!(first.goes_on_with(&store(1, 16..17)));
        for (why, other) in [
            ("another member", store(2, 16..24)),
            ("a gap", store(1, 17..24)),
            ("the order", store(1, 0..8)),
        ] {
            assert!(!first.goes_on_with(&other), "{why}");
        }
        // Application tags go with the data or not at all.
        let mut bare = store(1, 16..24);
        bare.content.tags = Segments::default();
        assert!(!first.goes_on_with(&bare) && !bare.goes_on_with(&store(1, 24..25)));
        let mut more = store(1, 16..24);
        more.content.tags = Buf::zeroed(8 * 16).into();
        assert!(!first.goes_on_with(&more));
    }

    #[test]
    fn what_went_together_verifies_as_one_request() {
        let (mut whole, next) = (store(1, 8..16), store(1, 16..24));
        assert!(whole.goes_on_with(&next));
        whole.content.append(next.content);
        let Content { data, tags } = whole.content;
        let one = Bio::write(Sector(8), data).tagged(tags);
        assert_eq!(one.verify(&profile(), |_| panic!("nothing is wrong")), Ok(()));
    }
}
