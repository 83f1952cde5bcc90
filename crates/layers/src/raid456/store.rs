//! Asking one member: reading rows, finding which blocks of them are bad, and storing rows.
//!
//! Knows members and their errors; nothing of parity. A member that no longer answers, or that
//! cannot be written, is failed here, through the array, before the request that met it goes on.

use super::parity::Equations;
use super::{Inner, at, bytes, is_loss, sectors};
use bio::{Bio, Buf, Device, IoError, IoErrorKind, IoResult, Op, Segments};
use runtime::join_all;
use std::ops::Range;
use units::{Sector, u64_of, usize_of};

/// Bytes for rows of one slot.
pub(super) struct Store {
    pub(super) slot: usize,
    /// Member sectors.
    pub(super) rows: Range<u64>,
    pub(super) data: Segments,
}

/// Which blocks of a run could not be read, and why.
pub(super) type Bad = Vec<(Range<u64>, IoErrorKind)>;

/// Hands `bio` down in pieces that the member takes.
pub(super) async fn submit(device: &Device, bio: &mut Bio) -> IoResult {
    let max = usize_of(device.limits().max_bytes);
    if bio.data.len_bytes() <= max {
        return device.submit(bio).await;
    }
    let block = device.limits().logical_block.bytes();
    let piece = (max - max % block).max(block);
    let mut rest = std::mem::take(&mut bio.data);
    let (mut sector, mut outcome) = (bio.sector, Ok(()));
    while !rest.is_empty() {
        let next = if rest.len_bytes() > piece { rest.split_off(piece) } else { <_>::default() };
        let mut part = Bio::read_into(sector, std::mem::replace(&mut rest, next));
        (part.op, part.bypass) = (bio.op, bio.bypass);
        sector = part.end();
        if outcome.is_ok() {
            outcome = device.submit(&mut part).await;
        }
        bio.data.append(part.data);
    }
    outcome
}

impl Inner {
    /// Fails the member in `slot` if `error` says that it no longer answers.
    ///
    /// # Errors
    /// If the survivors' superblocks cannot say so. A member that cannot be spared stays; what it
    /// has is then lost to this request.
    pub(super) async fn notice(&self, slot: usize, error: IoError) -> IoResult {
        if error.kind != IoErrorKind::Unavailable || self.array.member(slot).is_none() {
            return Ok(());
        }
        if self.array.missing_count() >= self.geometry.level().parity_count() {
            return Ok(());
        }
        self.array.fail(slot, error).await
    }

    /// Reads sectors of one member. `Unavailable` if there is none.
    pub(super) async fn read_member(
        &self,
        slot: usize,
        range: Range<u64>,
        bypass: bool,
    ) -> IoResult<Buf> {
        let start = Sector(range.start);
        let Some(member) = self.member(slot) else {
            return Err(IoErrorKind::Unavailable.at(start));
        };
        let mut bio = Bio::read(start, range.end - range.start);
        bio.bypass = bypass;
        submit(member.data(), &mut bio).await?;
        Ok(bio.data.into_single())
    }

    /// Reads what can be read of sectors of one member, block by block where that is necessary.
    /// None: nothing, because there is no member.
    ///
    /// # Errors
    /// Only what is neither damage nor absence.
    pub(super) async fn read_sound(
        &self,
        slot: usize,
        range: Range<u64>,
        bypass: bool,
    ) -> IoResult<Option<(Buf, Bad)>> {
        let block = self.block.sectors();
        let mut whole = Buf::alloc(bytes(range.end - range.start));
        let (mut bad, mut todo) = (Bad::new(), vec![range.clone()]);
        while let Some(part) = todo.pop() {
            let error = match self.read_member(slot, part.clone(), bypass).await {
                Ok(data) if part == range => return Ok(Some((data, bad))),
                Ok(data) => {
                    let within = bytes(part.start - range.start)..bytes(part.end - range.start);
                    whole.as_mut_slice()[within].copy_from_slice(data.as_slice());
                    continue;
                }
                Err(error) => error,
            };
            if error.kind == IoErrorKind::Unavailable {
                self.notice(slot, error).await?;
                return Ok(None);
            }
            if !error.kind.is_damage() {
                return Err(error);
            }
            if part.end - part.start <= block {
                bad.push((part, error.kind));
                continue;
            }
            // The place that it names is asked for alone, and so are the parts around it: not
            // every device knows the place.
            let place = error.sector.0.clamp(part.start, part.end - 1);
            let first = place - (place - part.start) % block;
            let around = [part.start..first, first..first + block, first + block..part.end];
            todo.extend(around.into_iter().filter(|part| !part.is_empty()));
        }
        Ok(Some((whole, bad)))
    }

    /// Stores rows, all at once, what follows each other on a member in one request. Slots without
    /// a member are passed over.
    ///
    /// # Errors
    /// The first error that is not the end of a member that can be spared; the rows are then torn.
    pub(super) async fn store(&self, mut stores: Vec<Store>, fua: bool) -> IoResult {
        stores.sort_by_key(|store| (store.slot, store.rows.start));
        let mut merged: Vec<Store> = Vec::with_capacity(stores.len());
        for store in stores {
            match merged.last_mut() {
                Some(last) if last.slot == store.slot && last.rows.end == store.rows.start => {
                    last.rows.end = store.rows.end;
                    last.data.append(store.data);
                }
                _ => merged.push(store),
            }
        }
        let touched: Vec<Range<u64>> = merged.iter().map(|store| store.rows.clone()).collect();
        let results = join_all(merged.into_iter().filter_map(|store| {
            let member = self.member(store.slot)?;
            Some(async move {
                let mut bio = Bio::write(Sector(store.rows.start), store.data);
                bio.op = Op::Write { fua };
                let result = submit(member.data(), &mut bio).await;
                result.map_err(|error| (store.slot, error))
            })
        }))
        .await;
        let mut outcome = Ok(());
        for (slot, error) in results.into_iter().filter_map(Result::err) {
            // A member that cannot take a write has old bytes with valid tags: it must go.
            let lost =
                if is_loss(error.kind) { self.array.fail(slot, error).await } else { Err(error) };
            if let Err(error) = lost {
                outcome = outcome.and(Err(at(error, self.volume_place(slot, error.sector))));
            }
        }
        if outcome.is_err() {
            for rows in touched {
                self.tear(rows);
            }
        }
        outcome
    }

    /// The volume's sector of a member's: of parity, its stripe's first.
    fn volume_place(&self, slot: usize, sector: Sector) -> Sector {
        let chunk = self.geometry.chunk_sectors();
        let stripe = (sector.0 / chunk).min(self.stripes - 1);
        self.volume_sector(&self.equations(stripe), slot, sector.0 % chunk)
    }

    /// Whether the member's own stored tag vouches for `data` at this sector. False also where
    /// there is no tag or no member.
    pub(super) async fn vouches(&self, slot: usize, sector: Sector, data: &Buf) -> bool {
        let Some(member) = self.member(slot) else { return false };
        if !member.data().limits().verified {
            return false;
        }
        let mut bio = Bio::vouch(sector, data.clone());
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
            let Some(member) = self.member(place.slot) else {
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

/// Cuts `data`, which starts at row `start`, to `rows`.
pub(super) fn cut(data: &Segments, start: u64, rows: &Range<u64>) -> Segments {
    debug_assert!(rows.end - start <= sectors(data.len_bytes()) && u64_of(data.len_bytes()) > 0);
    data.slice(bytes(rows.start - start)..bytes(rows.end - start))
}

/// Parity for rows of one stripe, as far as it was made.
pub(super) fn parity_stores(
    equations: &Equations,
    rows: &Range<u64>,
    p: Option<Buf>,
    q: Option<Buf>,
) -> Vec<Store> {
    let rows = equations.absolute(rows);
    let store = |slot: usize, data: Buf| Store { slot, rows: rows.clone(), data: data.into() };
    let p = p.map(|data| store(equations.p, data));
    let q = equations.q.zip(q).map(|(slot, data)| store(slot, data));
    p.into_iter().chain(q).collect()
}
