//! What parity is made of in tags, and tags made of that again.
//!
//! Where tags have no profile, all their bytes are the application's, and parity is of them as they are.
//! Else, of each interval's metadata:
//!
//! | bytes | in the sum, of data | in the sum, of parity | of a block that was computed |
//! |---|---|---|---|
//! | guard | zeroes | zeroes | of its data |
//! | reference of types 1 and 2 | zeroes | zeroes | of its place on the member |
//! | application tag | complement, folded | as they are | from the sum |
//! | reference of type 3, storage tag, what is beyond the tuple | complement | as they are | from the sum |
//!
//! A block that nobody gave tags has all ones (the blank), so its part in the sum is nothing, and a stripe that
//! was never written, or was discarded, has blank parity and agrees. (All ones are nothing in the sum for parity too.
//! As a sum they would need guard and reference of all ones as well.) A tag that is escaped comes back as the blank:
//! its guard and reference have no meaning.
//!
//! Folded, the low byte of the application tag is the sum of both. It keeps parity of the most usual tags, all the same or
//! all zeroes, from spelling the escape, for which members would pass it unchecked. Where a sum does all the
//! same, guard and reference are checked here.

use crate::array::Tagging;
use bio::{Buf, Segments};
use dif::{Profile, Protection, Tuple};
use std::ops::Range;
use units::{SECTOR, Sector, u64_of};

/// What a strip is in its stripe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Of the submitter.
    Data,
    /// P or Q.
    Parity,
}

/// The part that `tags` have in the sum.
pub(super) fn application(tagging: Tagging, role: Role, tags: &Segments) -> Segments {
    let Some(profile) = tagging.profile() else { return tags.clone() };
    let mut own = Buf::alloc(tags.len_bytes());
    tags.copy_to(0, own.as_mut_slice());
    for one in own.as_mut_slice().chunks_exact_mut(profile.format.metadata()) {
        match role {
            Role::Parity if is_blank(one) => one.fill(0),
            Role::Parity => with_tuple(&profile, one, |tuple| forget(&profile, tuple)),
            Role::Data => {
                one.iter_mut().for_each(|byte| *byte = !*byte);
                with_tuple(&profile, one, |tuple| {
                    forget(&profile, tuple);
                    fold(tuple);
                });
            }
        }
    }
    own.into()
}

/// Makes the tags of `data`, which lies at member sector `at`, of their part in the sum.
pub(super) fn sign(tagging: Tagging, role: Role, data: &Segments, tags: &mut Segments, at: Sector) {
    let Some(profile) = tagging.profile() else { return };
    let mut own = Buf::alloc(tags.len_bytes());
    tags.copy_to(0, own.as_mut_slice());
    let metadata = profile.format.metadata();
    if role == Role::Data {
        for one in own.as_mut_slice().chunks_exact_mut(metadata) {
            with_tuple(&profile, one, fold);
            one.iter_mut().for_each(|byte| *byte = !*byte);
        }
    }
    let mut signed = Buf::copy_of(own.as_slice());
    let pieces = data.iter().map(Buf::as_slice);
    let first = at.bytes() / u64_of(profile.format.interval());
    Protection::at(profile, first).generate(pieces, [signed.as_mut_slice()]);
    // That made all of a tuple; its guard does not cover the rest of it.
    let each = own.as_slice().chunks_exact(metadata);
    for (own, one) in each.zip(signed.as_mut_slice().chunks_exact_mut(metadata)) {
        let own = Tuple::decode(&profile.format, &own[tuple_range(&profile)]);
        with_tuple(&profile, one, |tuple| {
            (tuple.application, tuple.storage) = (own.application, own.storage);
            if !profile.kind.counts() {
                tuple.reference = own.reference;
            }
            if role == Role::Data && tuple.is_escaped(&profile.format, profile.kind) {
                *tuple = Tuple { storage: own.storage, ..Tuple::unwritten(&profile.format) };
            }
        });
    }
    *tags = signed.into();
}

/// Whether some of these tags of parity spell the escape, and are not blank.
pub(super) fn spells_escape(tagging: Tagging, tags: &Segments) -> bool {
    let Some(profile) = tagging.profile() else { return false };
    let tags = tags.to_single();
    let mut each = tags.as_slice().chunks_exact(profile.format.metadata());
    each.any(|one| {
        let tuple = Tuple::decode(&profile.format, &one[tuple_range(&profile)]);
        tuple.is_escaped(&profile.format, profile.kind) && !is_blank(one)
    })
}

/// The first sector of parity at member sector `at` that is not blank, and whose guard or reference
/// disagrees, whatever its application tag spells.
pub(super) fn first_wrong(
    tagging: Tagging,
    data: &Segments,
    tags: &Segments,
    at: Sector,
) -> Option<Sector> {
    let profile = tagging.profile()?;
    let mut ought = application(tagging, Role::Parity, tags);
    sign(tagging, Role::Parity, data, &mut ought, at);
    let (stored, ought) = (tags.to_single(), ought.into_single());
    let each = profile.format.metadata();
    let mut pairs = stored.as_slice().chunks_exact(each).zip(ought.as_slice().chunks_exact(each));
    let wrong = pairs.position(|(stored, ought)| !is_blank(stored) && stored != ought)?;
    Some(at + u64_of(wrong * profile.format.interval()) / SECTOR)
}

/// Shows `change` the tuple in an interval's metadata, and keeps what it makes of it.
fn with_tuple(profile: &Profile, metadata: &mut [u8], change: impl FnOnce(&mut Tuple)) {
    let bytes = &mut metadata[tuple_range(profile)];
    let mut tuple = Tuple::decode(&profile.format, bytes);
    change(&mut tuple);
    tuple.encode(&profile.format, bytes);
}

/// Takes out what follows from data and place.
fn forget(profile: &Profile, tuple: &mut Tuple) {
    tuple.guard = 0;
    if profile.kind.counts() {
        tuple.reference = 0;
    }
}

/// Twice is not at all.
fn fold(tuple: &mut Tuple) {
    tuple.application ^= tuple.application >> 8;
}

/// Whether nobody gave an interval any tags.
fn is_blank(metadata: &[u8]) -> bool {
    metadata.iter().all(|byte| *byte == u8::MAX)
}

/// Where the tuple lies in an interval's metadata.
fn tuple_range(profile: &Profile) -> Range<usize> {
    let start = profile.format.tuple_offset();
    start..start + profile.format.tuple_bytes()
}
