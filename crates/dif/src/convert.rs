//! Guards of one kind for guards of another, verifying the old while the new is made of the same bytes:
//! converting without verifying would launder what is wrong. (Section 5, "Convert".)

use crate::pieces::{DATA_WHOLE, METADATA_WHOLE, Pieces, PiecesMut};
use crate::profile::{Checks, Mismatch, Profile, Protection};
use crate::tuple::{APPLICATION_ESCAPE, TUPLE_BYTES_MAX, Tuple};
use guard::{Guard, Running};

/// Why one profile's tuples cannot become the other's.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConvertError {
    /// They vouch for other runs of data.
    #[error("intervals of {from} and of {to} bytes: a guard is converted over the same bytes")]
    Interval {
        /// Bytes before.
        from: usize,
        /// Bytes after.
        to: usize,
    },
    /// The owner's metadata does not fit.
    #[error(
        "{from} bytes of metadata beside the tuple, and {to} afterwards: the owner's stay as many, \
         at the same end"
    )]
    Owner {
        /// Bytes before.
        from: usize,
        /// Bytes after.
        to: usize,
    },
    /// The types differ.
    #[error("type {from} to type {to}: a conversion changes the guard, not what references mean")]
    Kind {
        /// The type before.
        from: u8,
        /// The type after.
        to: u8,
    },
    /// The storage tag does not fit.
    #[error("a storage tag of {from} bits does not fit one of {to}")]
    Storage {
        /// Bits before.
        from: u8,
        /// Bits after.
        to: u8,
    },
    /// Type 3: the application owns the reference tag, and it does not fit.
    #[error(
        "type 3: a reference tag of {from} bits does not fit one of {to}, and it is the application's"
    )]
    Reference {
        /// Bits before.
        from: u8,
        /// Bits after.
        to: u8,
    },
}

/// A conversion that makes sense.
#[derive(Clone, Copy, Debug)]
pub struct Conversion {
    from: Protection,
    to: Protection,
}

impl Protection {
    /// From this profile's guard to `guard`, everything else as it is: between CRC-16 and IP.
    ///
    /// None of another guard, whose tuples have another form; see [`Self::converted_to`].
    #[must_use]
    pub fn with_other_guard(&self, guard: Guard) -> Option<Conversion> {
        let format = self.format().with_guard(guard)?;
        self.converted_to(Profile { format, ..*self.profile() }).ok()
    }

    /// From this profile to `to`.
    ///
    /// # Errors
    /// [`ConvertError`], if something would have to be lost or guessed.
    pub fn converted_to(&self, to: Profile) -> Result<Conversion, ConvertError> {
        let (old, new) = (self.format(), &to.format);
        if old.interval() != new.interval() {
            return Err(ConvertError::Interval { from: old.interval(), to: new.interval() });
        }
        let owner = |format: &crate::Format| format.metadata() - format.tuple_bytes();
        let is_placed = owner(old) == 0 || old.place() == new.place();
        if owner(old) != owner(new) || !is_placed {
            return Err(ConvertError::Owner { from: owner(old), to: owner(new) });
        }
        if self.profile().kind != to.kind {
            let (from, to) = (self.profile().kind.number(), to.kind.number());
            return Err(ConvertError::Kind { from, to });
        }
        if old.storage_bits() > new.storage_bits() {
            let (from, to) = (old.storage_bits(), new.storage_bits());
            return Err(ConvertError::Storage { from, to });
        }
        if !to.kind.counts() && old.reference_bits() > new.reference_bits() {
            let (from, to) = (old.reference_bits(), new.reference_bits());
            return Err(ConvertError::Reference { from, to });
        }
        // Whatever is not asked for: no guard is made of bytes that the old one refuses, and where an
        // address loses bits or gains them, it was the right one.
        let is_resized = old.reference_bits() != new.reference_bits();
        let asked = *self.checks();
        let checks = Checks { guard: true, reference: asked.reference || is_resized, ..asked };
        Ok(Conversion { from: self.with_checks(checks), to: self.with_profile(to) })
    }
}

impl Conversion {
    /// Verifies every interval by its old tuple and makes the new one. What disagrees is given to `found`
    /// and gets a tuple that disagrees as well; escapes stay escapes, told of if they are not honoured; the
    /// owner's metadata is copied.
    ///
    /// # Panics
    /// If the data is not whole intervals with old and new metadata for each.
    pub fn run<'d, 'm, 'c>(
        &self,
        data: impl IntoIterator<Item = &'d [u8]>,
        metadata: impl IntoIterator<Item = &'m [u8]>,
        converted: impl IntoIterator<Item = &'c mut [u8]>,
        mut found: impl FnMut(Mismatch),
    ) {
        let (mut data, mut metadata) =
            (Pieces::new(data.into_iter()), Pieces::new(metadata.into_iter()));
        let mut converted = PiecesMut::new(converted.into_iter());
        let mut index = 0;
        while !data.is_done() {
            self.interval(index, &mut data, &mut metadata, &mut converted, &mut found);
            index += 1;
        }
        assert!(metadata.is_done() && converted.is_done(), "{METADATA_WHOLE}");
    }

    /// The format before.
    pub(crate) const fn old_format(&self) -> &crate::Format {
        self.from.format()
    }

    /// The address of interval `index`, by the old counting.
    pub(crate) const fn reference(&self, index: u64) -> u64 {
        self.from.expected().reference.wrapping_add(index)
    }

    /// Interval `index` alone, in one piece each.
    pub(crate) fn one(
        &self,
        index: u64,
        data: &[u8],
        metadata: &[u8],
        converted: &mut [u8],
        found: &mut impl FnMut(Mismatch),
    ) {
        self.interval(
            index,
            &mut Pieces::new([data].into_iter()),
            &mut Pieces::new([metadata].into_iter()),
            &mut PiecesMut::new([converted].into_iter()),
            found,
        );
    }

    fn interval<'d, 'm, 'c>(
        &self,
        index: u64,
        data: &mut Pieces<'d, impl Iterator<Item = &'d [u8]>>,
        metadata: &mut Pieces<'m, impl Iterator<Item = &'m [u8]>>,
        converted: &mut PiecesMut<'c, impl Iterator<Item = &'c mut [u8]>>,
        found: &mut impl FnMut(Mismatch),
    ) {
        let (from, to) = (self.from.format(), self.to.format());
        let (mut old, mut new) = (Running::new(from.guard()), Running::new(to.guard()));
        let mut left = from.interval();
        while left > 0 {
            let piece = data.take(left, DATA_WHOLE);
            old.update(piece);
            new.update(piece);
            left -= piece.len();
        }
        let mut tuple = [0; TUPLE_BYTES_MAX];
        let tuple = &mut tuple[..from.tuple_bytes()];
        copy(from.covered_metadata(), metadata, converted, |bytes| {
            old.update(bytes);
            new.update(bytes);
        });
        let mut seen = 0;
        while seen < tuple.len() {
            let piece = metadata.take(tuple.len() - seen, METADATA_WHOLE);
            tuple[seen..seen + piece.len()].copy_from_slice(piece);
            seen += piece.len();
        }
        let old_tuple = Tuple::decode(from, tuple);
        let mut bytes = [0; TUPLE_BYTES_MAX];
        let mut rest = &mut bytes[..to.tuple_bytes()];
        self.tuple(index, &old_tuple, old.value(), new.value(), found).encode(to, rest);
        while !rest.is_empty() {
            let place = converted.take(rest.len(), METADATA_WHOLE);
            let (now, behind) = rest.split_at_mut(place.len());
            place.copy_from_slice(now);
            rest = behind;
        }
        let behind = from.metadata() - from.tuple_offset() - from.tuple_bytes();
        copy(behind, metadata, converted, |_| {});
    }

    fn tuple(
        &self,
        index: u64,
        old: &Tuple,
        computed: u64,
        guard: u64,
        found: &mut impl FnMut(Mismatch),
    ) -> Tuple {
        let (from, kind) = (self.from.format(), self.from.profile().kind);
        let verdict = self.from.check(index, old, computed);
        if let Err(mismatch) = verdict {
            found(mismatch);
        }
        if old.is_escaped(from, kind) {
            let reference =
                if kind.counts() { old.reference } else { self.to.format().reference_mask() };
            // Of the same form it is copied; the guard of an escape says nothing in either.
            return Tuple { application: APPLICATION_ESCAPE, reference, ..*old };
        }
        match verdict {
            // Off by one bit: of the checksum of IP the inverse may mean the same.
            Err(_) => Tuple { guard: guard ^ 1, ..*old },
            // A longer reference tag has more of the address; it is known, now that the low bits agree.
            Ok(()) if kind.counts() && self.from.checks().reference => {
                Tuple { guard, reference: self.to.tuple(index, guard).reference, ..*old }
            }
            Ok(()) => Tuple { guard, ..*old },
        }
    }
}

/// The owner's next `bytes` on their way from one metadata to the other.
fn copy<'m, 'c>(
    bytes: usize,
    metadata: &mut Pieces<'m, impl Iterator<Item = &'m [u8]>>,
    converted: &mut PiecesMut<'c, impl Iterator<Item = &'c mut [u8]>>,
    mut seen: impl FnMut(&[u8]),
) {
    let mut left = bytes;
    while left > 0 {
        let place = converted.take(left.min(metadata.now().len()), METADATA_WHOLE);
        place.copy_from_slice(metadata.take(place.len(), METADATA_WHOLE));
        seen(place);
        left -= place.len();
    }
}
