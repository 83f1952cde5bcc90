//! What the members keep for each of their blocks beside the data, and a block and its tag as one.
//!
//! ```text
//!   apart (requests)      data  |block|block|block|     tags  |t|t|t|
//!   interleaved           |block|t|block|t|block|t|
//! ```
//! Requests carry data and tags apart. Where copies or strips are compared, healed and put back, a
//! block and its tag are one thing: there they lie interleaved, as on a disk of 520-byte sectors, so
//! that whoever compares, copies or computes cannot forget one of the two. Where nothing is kept,
//! interleaved is the data itself, and nothing is copied.

use super::Array;
use bio::{Bio, Buf, Limits, Segments};
use dif::{Profile, Tuple};
use std::fmt;
use units::{BlockSize, Sector, usize_of};

/// What a device keeps for each of its blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tagging {
    /// Bytes for each block; 0: nothing.
    tag_size: usize,
    /// The block, 512 bytes where nothing is kept.
    block: BlockSize,
    /// What these bytes are; none: the application's, all of them.
    profile: Option<Profile>,
}

/// Members that do not keep the same for their blocks: an array of them could keep it of some blocks
/// only.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{one} keeps {one_keeps} and {other} keeps {other_keeps}: all members of an array keep the same"
)]
pub struct Disagreement {
    /// A member.
    pub one: String,
    /// What it keeps.
    pub one_keeps: Tagging,
    /// The first that keeps something else.
    pub other: String,
    /// What that one keeps.
    pub other_keeps: Tagging,
}

impl Tagging {
    /// What a device of these limits keeps.
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        let tag_size = limits.tag_size;
        let block = if tag_size == 0 { BlockSize::B512 } else { limits.logical_block };
        Self { tag_size, block, profile: limits.protection.filter(|_| tag_size > 0) }
    }

    /// What these bytes are; none: the application's, all of them.
    #[must_use]
    pub fn profile(self) -> Option<Profile> {
        self.profile
    }

    /// Bytes for each block; 0: nothing is kept.
    #[must_use]
    pub fn tag_size(self) -> usize {
        self.tag_size
    }

    /// Whether nothing is kept.
    pub(crate) fn is_none(self) -> bool {
        self.tag_size == 0
    }

    /// Bytes of the tags of so many sectors, which are whole blocks.
    pub(crate) fn tag_bytes(self, sectors: u64) -> usize {
        usize_of(sectors / self.block.sectors()) * self.tag_size
    }

    /// Bytes of so many sectors, interleaved.
    pub(crate) fn interleaved_bytes(self, sectors: u64) -> usize {
        usize_of(Sector(sectors).bytes()) + self.tag_bytes(sectors)
    }

    /// Room for the tags of so many sectors; empty where nothing is kept.
    pub(crate) fn alloc(self, sectors: u64) -> Segments {
        match self.tag_bytes(sectors) {
            0 => Segments::default(),
            length => Buf::alloc(length).into(),
        }
    }

    /// The tags that so many sectors have when nobody gave them any ([`Bio`] has the rule).
    pub(crate) fn blank(self, sectors: u64) -> Segments {
        let mut tags = self.alloc(sectors);
        let blank = if self.profile.is_some() { u8::MAX } else { 0 };
        tags.iter_mut().for_each(|tags| tags.as_mut_slice().fill(blank));
        tags
    }

    /// A read of all that is kept of so many sectors.
    pub(crate) fn read(self, sector: Sector, sectors: u64) -> Bio {
        Bio::read(sector, sectors).tagged(self.alloc(sectors))
    }

    /// A write of what lies interleaved.
    pub(crate) fn write(self, sector: Sector, interleaved: &Buf) -> Bio {
        let (data, tags) = self.apart(interleaved);
        Bio::write(sector, data).tagged(tags)
    }

    /// What a [read](Self::read) has filled, interleaved.
    pub(crate) fn taken(self, bio: Bio) -> Buf {
        self.interleave(bio.data.into_single(), &bio.tags)
    }

    /// Data and its tags as one.
    pub(crate) fn interleave(self, data: Buf, tags: &Segments) -> Buf {
        if self.is_none() {
            return data;
        }
        let block = self.block.bytes();
        let mut both = Buf::alloc(data.len() + tags.len_bytes());
        let each = both.as_mut_slice().chunks_exact_mut(block + self.tag_size);
        for (index, (one, data)) in each.zip(data.as_slice().chunks_exact(block)).enumerate() {
            one[..block].copy_from_slice(data);
            tags.copy_to(index * self.tag_size, &mut one[block..]);
        }
        both
    }

    /// What lies interleaved as data and tags.
    pub(crate) fn apart(self, interleaved: &Buf) -> (Segments, Segments) {
        if self.is_none() {
            return (interleaved.clone().into(), Segments::default());
        }
        let block = self.block.bytes();
        let each = interleaved.as_slice().chunks_exact(block + self.tag_size);
        let mut data = Buf::alloc(each.len() * block);
        let mut tags = Buf::alloc(each.len() * self.tag_size);
        let targets = data.as_mut_slice().chunks_exact_mut(block);
        let targets = targets.zip(tags.as_mut_slice().chunks_exact_mut(self.tag_size));
        for (one, (data, tag)) in each.zip(targets) {
            data.copy_from_slice(&one[..block]);
            tag.copy_from_slice(&one[block..]);
        }
        (data.into(), tags.into())
    }

    /// Puts what lies interleaved where `sector` is in a read, with the tags if it asks for them.
    pub(crate) fn fill(self, bio: &mut Bio, sector: Sector, interleaved: &Buf) {
        let (data, tags) = self.apart(interleaved);
        let before = sector - bio.sector;
        let mut at = usize_of(Sector(before).bytes());
        for piece in data.iter() {
            bio.data.copy_from(at, piece.as_slice());
            at += piece.len();
        }
        if !bio.tags.is_empty() {
            for piece in tags.iter() {
                bio.tags.copy_from(self.tag_bytes(before), piece.as_slice());
            }
        }
    }

    /// Whether some of these tags are escapes: nobody may check their block.
    pub(crate) fn any_escape(self, tags: &[u8]) -> bool {
        let Some(Profile { format, kind }) = self.profile else { return false };
        let place = format.tuple_offset()..format.tuple_offset() + format.tuple_bytes();
        let mut each = tags.chunks_exact(format.metadata());
        each.any(|one| Tuple::decode(&format, &one[place.clone()]).is_escaped(&format, kind))
    }

    /// Whether a block of these, which lie interleaved, has an escape.
    pub(crate) fn is_escaped(self, interleaved: &[u8]) -> bool {
        let (block, tag) = (self.block.bytes(), self.tag_size);
        self.profile.is_some()
            && interleaved.chunks_exact(block + tag).any(|one| self.any_escape(&one[block..]))
    }

    /// Whether tags say where their block lies.
    pub(crate) fn counts(self) -> bool {
        self.profile.is_some_and(|profile| profile.kind.counts())
    }

    /// The tags of blocks that begin at `from`, counted as if they began at `to`.
    pub(crate) fn moved(self, tags: Segments, from: Sector, to: Sector) -> Segments {
        if tags.is_empty() || !self.counts() || from == to {
            return tags;
        }
        let mut moved = Buf::alloc(tags.len_bytes());
        tags.copy_to(0, moved.as_mut_slice());
        let mut moved = moved.into();
        self.move_within(&mut moved, from, to);
        moved
    }

    /// The same of tags that nobody else holds.
    pub(crate) fn move_within(self, tags: &mut Segments, from: Sector, to: Sector) {
        if let Some(profile) = self.profile {
            Bio::remap(tags, &profile, from, to);
        }
    }

    /// In words, the first byte in which a block that lies interleaved differs from another.
    pub(crate) fn difference(self, lies: &[u8], instead: &[u8]) -> Option<String> {
        let mut differing = lies.iter().zip(instead).enumerate();
        let (at, (lies, instead)) = differing.find(|(_, (lies, instead))| lies != instead)?;
        let (what, at) = match at.checked_sub(self.block.bytes()) {
            Some(at) if !self.is_none() => ("tag byte", at),
            _ => ("byte", at),
        };
        Some(format!("{what} {at} there is {lies:02x} and would be {instead:02x}"))
    }
}

impl fmt::Display for Tagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag_size {
            0 => f.write_str("no tags"),
            size => {
                write!(f, "{size} bytes of tag for each {} bytes", self.block.bytes())?;
                self.profile.map_or(Ok(()), |profile| write!(f, " ({profile})"))
            }
        }
    }
}

impl Array {
    /// What every member keeps for its blocks.
    ///
    /// # Errors
    /// [`Disagreement`] names two that do not keep the same.
    pub(crate) fn tagging(&self) -> Result<Tagging, Disagreement> {
        let mut members = self.members();
        let none = Tagging { tag_size: 0, block: BlockSize::B512, profile: None };
        let Some(first) = members.next() else { return Ok(none) };
        let one_keeps = Tagging::of(first.data().limits());
        let keeps = members.map(|member| (Tagging::of(member.data().limits()), member));
        match keeps.into_iter().find(|(keeps, _)| *keeps != one_keeps) {
            None => Ok(one_keeps),
            Some((other_keeps, other)) => {
                let (one, other) = (first.name().to_string(), other.name().to_string());
                Err(Disagreement { one, one_keeps, other, other_keeps })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tagging(tag_size: usize) -> Tagging {
        Tagging::of(&Limits { tag_size, ..Limits::new(64, BlockSize::B512) })
    }

    #[test]
    fn what_was_interleaved_comes_apart_as_it_was() {
        let data: Vec<u8> = (0..1536_u32).map(|at| (at / 7).to_le_bytes()[0]).collect();
        let tags: Vec<u8> = (100..112).collect();
        let both = tagging(4).interleave(Buf::copy_of(&data), &Buf::copy_of(&tags).into());
        assert_eq!(both.len(), tagging(4).interleaved_bytes(3));
        assert_eq!(&both.as_slice()[516..1028], &data[512..1024]);
        assert_eq!(&both.as_slice()[1028..1032], &tags[4..8]);
        let (again, tags_again) = tagging(4).apart(&both);
        assert_eq!(again.contiguous().unwrap(), data);
        assert_eq!(tags_again.contiguous().unwrap(), tags);
    }

    #[test]
    fn without_tags_nothing_is_copied() {
        let data = Buf::zeroed(1024);
        let start = data.as_ptr();
        let both = tagging(0).interleave(data, &Segments::default());
        let (data, tags) = tagging(0).apart(&both);
        assert_eq!((both.as_ptr(), data.iter().next().unwrap().as_ptr()), (start, start));
        assert!(tags.is_empty() && tagging(0).alloc(2).is_empty());
    }

    #[test]
    fn a_difference_is_named_where_it_is() {
        let (zeroes, mut other) = (vec![0; 520], vec![0; 520]);
        assert_eq!(tagging(8).difference(&zeroes, &other), None);
        other[515] = 9;
        let words = tagging(8).difference(&zeroes, &other).unwrap();
        assert_eq!(words, "tag byte 3 there is 00 and would be 09");
        other[4] = 1;
        let words = tagging(8).difference(&zeroes, &other).unwrap();
        assert_eq!(words, "byte 4 there is 00 and would be 01");
    }
}
