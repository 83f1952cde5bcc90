//! What rows of one strip hold, data and tags, and the parity of both.
//!
//! | of a tag | on a data strip | on P and Q |
//! |---|---|---|
//! | the application's bytes | the submitter's | parity of the data strips' (application.rs) |
//! | guard and reference | the submitter's, counted on the member | the layer's, of the parity in its place |
//!
//! So what the application said of its blocks is as redundant as they are, and comes back when they are
//! reconstructed; guard and reference of a reconstructed block are the layer's, since they follow from data
//! and place.
//!
//! A guard that is made anew vouches for whatever it is made of. So everything it is made of was
//! checked: what is written, against its tuples before it is accepted (write.rs), and what members
//! give, by themselves: those that keep protection information and do not check it are refused.

use super::application::{Role, application, first_wrong, sign, spells_escape};
use super::parity::Equations;
use super::store::Store;
use super::{Inner, bytes, sectors};
use crate::array::{Member, Tagging};
use bio::{Bio, Buf, IoErrorKind, IoResult, Segments};
use std::ops::Range;
use units::Sector;

/// What some rows of one strip hold.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) data: Segments,
    /// A tag for each block; empty where members keep none, or nobody asks for them.
    pub(super) tags: Segments,
}

impl Content {
    /// Room for so many sectors and their tags.
    pub(super) fn alloc(tagging: Tagging, sectors: u64) -> Self {
        Self { data: Buf::alloc(bytes(sectors)).into(), tags: tagging.alloc(sectors) }
    }

    /// What a request carried, its data in one piece.
    pub(super) fn of(bio: Bio) -> Self {
        Self { data: bio.data.into_single().into(), tags: bio.tags }
    }

    /// Blocks that lie interleaved with the application's part of their tags, signed for the member
    /// sector `at`.
    pub(super) fn signed(tagging: Tagging, role: Role, interleaved: &Buf, at: Sector) -> Self {
        let (data, mut tags) = tagging.apart(interleaved);
        sign(tagging, role, &data, &mut tags, at);
        Self { data, tags }
    }

    /// The data, which lies in one piece.
    pub(super) fn data_bytes(&self) -> &[u8] {
        self.data.contiguous().expect("what was read lies in one piece")
    }

    /// The same with the application's part of the tags, interleaved.
    pub(super) fn interleaved(&self, tagging: Tagging, role: Role) -> Buf {
        tagging.interleave(self.data.to_single(), &application(tagging, role, &self.tags))
    }

    /// Shared handles on so many of its sectors.
    pub(super) fn slice(&self, tagging: Tagging, range: &Range<u64>) -> Self {
        let data = self.data.slice(bytes(range.start)..bytes(range.end));
        let mut tags = Segments::default();
        if !self.tags.is_empty() {
            tags = self.tags.slice(tagging.tag_bytes(range.start)..tagging.tag_bytes(range.end));
        }
        Self { data, tags }
    }

    /// Keeps the first `length` sectors and gives the others.
    pub(super) fn split_off(&mut self, tagging: Tagging, length: u64) -> Self {
        let data = self.data.split_off(bytes(length));
        let mut tags = Segments::default();
        if !self.tags.is_empty() {
            tags = self.tags.split_off(tagging.tag_bytes(length));
        }
        Self { data, tags }
    }

    /// Appends what follows.
    pub(super) fn append(&mut self, other: Self) {
        self.data.append(other.data);
        self.tags.append(other.tags);
    }

    /// Fills in `other` from sector `start` on, its tags if they are asked for.
    pub(super) fn put(&mut self, tagging: Tagging, start: u64, other: &Self) {
        fill(&mut self.data, bytes(start), &other.data);
        if !self.tags.is_empty() {
            fill(&mut self.tags, tagging.tag_bytes(start), &other.tags);
        }
    }

    /// How many sectors.
    pub(super) fn sectors(&self) -> u64 {
        sectors(self.data.len_bytes())
    }
}

fn fill(target: &mut Segments, at: usize, source: &Segments) {
    let mut at = at;
    for piece in source.iter() {
        target.copy_from(at, piece.as_slice());
        at += piece.len();
    }
}

/// A parity strip under way.
struct Parity {
    data: Buf,
    /// The application's part of its tags, if there are any.
    tags: Option<Buf>,
}

impl Parity {
    fn tags_mut(&mut self) -> Option<&mut [u8]> {
        self.tags.as_mut().map(Buf::as_mut_slice)
    }
}

impl Inner {
    /// What of a strip's tags is in the sum.
    pub(super) fn own_tags(&self, role: Role, content: &Content) -> Segments {
        application(self.tagging, role, &content.tags)
    }

    /// Checks parity that a member passed unchecked because its application tag happens to spell the
    /// escape.
    ///
    /// # Errors
    /// `Protection` at the first sector whose guard or reference disagrees.
    pub(super) fn check_parity(
        &self,
        member: &Member,
        range: &Range<u64>,
        content: &Content,
    ) -> IoResult {
        if !member.data().limits().verified || !spells_escape(self.tagging, &content.tags) {
            return Ok(());
        }
        let chunk = self.geometry.chunk_sectors();
        for stripe in range.start / chunk..range.end.div_ceil(chunk) {
            if self.equations(stripe).role(member.slot()) == Role::Data {
                continue;
            }
            let rows = (stripe * chunk).max(range.start)..((stripe + 1) * chunk).min(range.end);
            let within = rows.start - range.start..rows.end - range.start;
            let Content { data, tags } = content.slice(self.tagging, &within);
            let wrong = first_wrong(self.tagging, &data, &tags, Sector(rows.start));
            wrong.map_or(Ok(()), |sector| Err(IoErrorKind::Protection.at(sector)))?;
        }
        Ok(())
    }

    /// What is stored of data strip `index`: its tags count the member's blocks there.
    pub(super) fn data_store(
        &self,
        equations: &Equations,
        index: usize,
        rows: &Range<u64>,
        content: Content,
    ) -> Store {
        let (slot, own) = (equations.data[index], equations.absolute(rows));
        let from = self.geometry.array_sector(equations.stripe, index, rows.start);
        let tags = self.tagging.moved(content.tags, from, Sector(own.start));
        Store { slot, rows: own, content: Content { tags, ..content } }
    }

    /// The parity of `data`, a piece for each data strip, for the members that are there, or all of it for
    /// the journal.
    pub(super) fn new_parity(
        &self,
        equations: &Equations,
        rows: &Range<u64>,
        data: &[&Content],
    ) -> Vec<Store> {
        let held = |slot: usize| self.journal.is_some() || self.array.is_held(slot);
        let wanted = [held(equations.p), equations.q.is_some_and(held)];
        let pieces: Vec<&Segments> = data.iter().map(|content| &content.data).collect();
        let [p, q] = generated(equations, &pieces, wanted);
        let mut tags = [None, None];
        if !self.tagging.is_none() {
            let own: Vec<Segments> =
                data.iter().map(|content| self.own_tags(Role::Data, content)).collect();
            tags = generated(equations, &own.iter().collect::<Vec<_>>(), wanted);
        }
        let [p_tags, q_tags] = tags;
        let p = p.map(|data| Parity { data, tags: p_tags });
        let q = q.map(|data| Parity { data, tags: q_tags });
        self.parity_stores(equations, rows, [p, q])
    }

    /// The parity in `old` (by slot), corrected by what changes: `new` has a piece for each data strip that
    /// does, whose old content is known.
    pub(super) fn corrected_parity(
        &self,
        equations: &Equations,
        rows: &Range<u64>,
        new: &[Option<Content>],
        mut old: Vec<Option<Content>>,
    ) -> Vec<Store> {
        let mut parity = |slot: usize| {
            let old = old[slot].take()?;
            let own = (!self.tagging.is_none()).then(|| self.own_tags(Role::Parity, &old));
            let tags = own.map(|tags| Buf::copy_of(tags.to_single().as_slice()));
            Some(Parity { data: old.data.into_single(), tags })
        };
        let (mut p, mut q) = (parity(equations.p), equations.q.and_then(&mut parity));
        for (index, new) in new.iter().enumerate() {
            let Some(new) = new else { continue };
            let before = old[equations.data[index]].take().expect("old data was read");
            let data = (
                p.as_mut().map(|p| p.data.as_mut_slice()),
                q.as_mut().map(|q| q.data.as_mut_slice()),
            );
            equations.update(index, before.data_bytes(), &new.data, data.0, data.1);
            if self.tagging.is_none() {
                continue;
            }
            let before = self.own_tags(Role::Data, &before).to_single();
            let tags = self.own_tags(Role::Data, new);
            let own =
                (p.as_mut().and_then(Parity::tags_mut), q.as_mut().and_then(Parity::tags_mut));
            equations.update(index, before.as_slice(), &tags, own.0, own.1);
        }
        self.parity_stores(equations, rows, [p, q])
    }

    /// Parity for rows of one stripe, as far as it was made, signed.
    fn parity_stores(
        &self,
        equations: &Equations,
        rows: &Range<u64>,
        parity: [Option<Parity>; 2],
    ) -> Vec<Store> {
        let own = equations.absolute(rows);
        let slots = [Some(equations.p), equations.q].into_iter();
        let made = slots.zip(parity).filter_map(|(slot, made)| Some((slot?, made?)));
        let stores = made.map(|(slot, Parity { data, tags })| {
            let data = Segments::from(data);
            let mut tags = tags.map_or_else(Segments::default, Segments::from);
            sign(self.tagging, Role::Parity, &data, &mut tags, Sector(own.start));
            Store { slot, rows: own.clone(), content: Content { data, tags } }
        });
        stores.collect()
    }

    /// A whole stripe, or rows of one, of which `strips` has what is known, by slot: the rest computed and
    /// signed. None if that cannot be done, or parity that is known is not that of the data.
    pub(super) fn complete(
        &self,
        equations: &Equations,
        rows: &Range<u64>,
        strips: Vec<Option<Content>>,
    ) -> Option<Vec<Content>> {
        let data = strips.iter().map(|strip| strip.as_ref().map(|strip| strip.data.to_single()));
        let data = equations.complete(data.collect())?;
        if self.tagging.is_none() {
            let whole = |data: Buf| Content { data: data.into(), tags: Segments::default() };
            return Some(data.into_iter().map(whole).collect());
        }
        let roles = (0..strips.len()).map(|slot| equations.role(slot));
        let own = strips.iter().zip(roles.clone());
        let own = own.map(|(strip, role)| Some(self.own_tags(role, strip.as_ref()?).to_single()));
        let tags = equations.complete(own.collect())?;
        let at = Sector(equations.absolute(rows).start);
        let whole = strips.into_iter().zip(data).zip(tags).zip(roles);
        let whole = whole.map(|(((strip, data), own), role)| {
            strip.unwrap_or_else(|| {
                let (data, mut tags) = (Segments::from(data), Segments::from(own));
                sign(self.tagging, role, &data, &mut tags, at);
                Content { data, tags }
            })
        });
        Some(whole.collect())
    }
}

/// The parities that are wanted, P first, of pieces of all data strips.
fn generated(equations: &Equations, pieces: &[&Segments], wanted: [bool; 2]) -> [Option<Buf>; 2] {
    let length = pieces.first().map_or(0, |piece| piece.len_bytes());
    let [mut p, mut q] = wanted.map(|wanted| wanted.then(|| Buf::alloc(length)));
    let targets = (p.as_mut().map(Buf::as_mut_slice), q.as_mut().map(Buf::as_mut_slice));
    equations.generate(pieces, targets.0, targets.1);
    [p, q]
}
