//! The tags of a request as protection information: made, and checked.
//!
//! A device's tuples count its own intervals: the reference tag of the interval at byte `n` of the device
//! is `n / interval`. Whoever maps addresses counts them anew ([`Bio::remap`]); a request that strays on
//! the way has tuples that say so.

use crate::{Bio, Buf, EventKind, Events, IoErrorKind, IoResult};
use dif::{Checks, Mismatch, Profile, Protection};
use units::{SECTOR, Sector, u64_of};

/// A device has no integrity profile where one is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the device keeps no protection information")]
pub struct NoProfile;

impl Bio {
    /// What its tuples ought to say at `sector` of a device of that profile.
    fn protection(profile: &Profile, sector: Sector) -> Protection {
        Protection::at(*profile, sector.bytes() / u64_of(profile.format.interval()))
    }

    /// Gives the request tags: a tuple for every interval of its data. Where references do not count
    /// (type 3) they are 0: a number of the request's first interval would look like type 1.
    ///
    /// # Panics
    /// If its data is not whole intervals.
    pub fn sign(&mut self, profile: &Profile) {
        let format = &profile.format;
        let intervals = self.data.len_bytes() / format.interval();
        let mut tags = Buf::zeroed(intervals * format.metadata());
        let protection = match profile.kind.counts() {
            true => Self::protection(profile, self.sector),
            false => Protection::at(*profile, 0),
        };
        protection.generate(self.data.iter().map(Buf::as_slice), [tags.as_mut_slice()]);
        self.tags = tags.into();
    }

    /// Checks its data against its tags, and gives every interval that disagrees to `found`: its mismatch,
    /// whose address counts intervals of the device.
    ///
    /// # Errors
    /// `Protection`, at the first sector of the first such interval.
    ///
    /// # Panics
    /// If its tags are not those of its data.
    pub fn verify(&self, profile: &Profile, found: impl FnMut(Mismatch)) -> IoResult {
        self.check(profile, &Self::protection(profile, self.sector), found)
    }

    fn check(
        &self,
        profile: &Profile,
        protection: &Protection,
        mut found: impl FnMut(Mismatch),
    ) -> IoResult {
        let mut first = None;
        protection.verify_each(
            self.data.iter().map(Buf::as_slice),
            self.tags.iter().map(Buf::as_slice),
            |mismatch| {
                first.get_or_insert(mismatch.interval);
                found(mismatch);
            },
        );
        let Some(interval) = first else { return Ok(()) };
        let bytes = interval * u64_of(profile.format.interval());
        Err(IoErrorKind::Protection.at(self.sector + bytes / SECTOR))
    }

    /// Whether its tags vouch for its data: as [`Self::verify`], and an escape, which says that nothing may be
    /// checked, vouches for nothing.
    ///
    /// # Errors
    /// As [`Self::verify`].
    ///
    /// # Panics
    /// As [`Self::verify`].
    pub fn vouched(&self, profile: &Profile) -> IoResult {
        let strict = Checks { escape: false, ..Checks::ALL };
        let protection = Self::protection(profile, self.sector).with_checks(strict);
        self.check(profile, &protection, drop)
    }

    /// [`Self::verify`], telling `events` of every interval that disagrees.
    ///
    /// # Errors
    /// As it.
    pub fn verify_telling(&self, profile: &Profile, events: &Events) -> IoResult {
        let sectors = u64_of(profile.format.interval()) / SECTOR;
        self.verify(profile, |mismatch| {
            let kind = EventKind::Mismatch {
                stored: format!("{} {:#x}", mismatch.tag.name(), mismatch.stored),
                computed: format!("{:#x}", mismatch.expected),
            };
            events.emit(kind, Sector(mismatch.address * sectors), sectors);
        })
    }

    /// Counts the reference tags of `tags`, which are those of blocks from `from` on, as from `to` on: of
    /// another device, or another place. What does not count as from `from` is left alone, for the next
    /// check to refuse.
    ///
    /// # Panics
    /// If a buffer is shared: tags that somebody else relies on are copied first.
    pub fn remap(tags: &mut crate::Segments, profile: &Profile, from: Sector, to: Sector) {
        let interval = |sector: Sector| sector.bytes() / u64_of(profile.format.interval());
        profile.remap(tags.iter_mut().map(Buf::as_mut_slice), interval(from), interval(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dif::{Format, Guard, ProtectionType, Tag};

    fn profile() -> Profile {
        Profile { format: Format::new(Guard::Crc16, 512).unwrap(), kind: ProtectionType::One }
    }

    #[test]
    fn what_was_signed_verifies_there_and_nowhere_else() {
        let mut bio = Bio::write(Sector(8), Buf::copy_of(&[7; 4096]));
        bio.sign(&profile());
        assert_eq!(bio.tags.len_bytes(), 64);
        assert_eq!(bio.verify(&profile(), |_| panic!("nothing is wrong")), Ok(()));

        bio.sector = Sector(16);
        let mut found = Vec::new();
        let refused =
            bio.verify(&profile(), |mismatch| found.push((mismatch.tag, mismatch.address)));
        assert_eq!(refused, Err(IoErrorKind::Protection.at(Sector(16))));
        assert!(found.iter().copied().eq((16..24).map(|address| (Tag::Reference, address))));
    }

    #[test]
    fn an_escape_passes_and_vouches_for_nothing() {
        let mut bio = Bio::write(Sector(8), Buf::copy_of(&[7; 1024]));
        bio.sign(&profile());
        assert_eq!(bio.vouched(&profile()), Ok(()));
        bio.tags.copy_from(8 + 2, &[0xff; 2]);
        assert_eq!(bio.verify(&profile(), |_| panic!("an escape is not looked at")), Ok(()));
        assert_eq!(bio.vouched(&profile()), Err(IoErrorKind::Protection.at(Sector(9))));
    }

    #[test]
    fn counted_anew_it_verifies_elsewhere() {
        let mut bio = Bio::write(Sector(8), Buf::copy_of(&[7; 4096]));
        bio.sign(&profile());
        Bio::remap(&mut bio.tags, &profile(), Sector(8), Sector(1 << 40));
        bio.sector = Sector(1 << 40);
        assert_eq!(bio.verify(&profile(), |_| panic!("nothing is wrong")), Ok(()));
    }

    #[test]
    fn the_first_sector_that_is_wrong_is_named() {
        let mut bio = Bio::write(Sector(8), Buf::copy_of(&[7; 4096]));
        bio.sign(&profile());
        bio.data.copy_from(1024 + 5, &[8]);
        let refused = bio.verify(&profile(), |mismatch| assert_eq!(mismatch.tag, Tag::Guard));
        assert_eq!(refused, Err(IoErrorKind::Protection.at(Sector(10))));
    }
}
