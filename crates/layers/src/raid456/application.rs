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
//! A block that nobody gave tags has all ones (the blank), so its part in the sum is nothing, and a stripe
//! that was never written, or was discarded, has blank parity and agrees. (All ones are nothing in the sum
//! for parity too: as a sum they would need a guard and a reference of all ones as well.) A tag that is
//! escaped comes back as the blank: its guard and reference have no meaning.
//!
//! Folded, the low byte of the application tag is the sum of both. It keeps parity of the most usual tags,
//! all of them zero, from spelling the escape, for which members would pass it unchecked. Where a sum spells
//! it all the same, guard and reference are checked here.

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
    any(tagging, tags, |tagging, one| tagging.any_escape(one) && !is_blank(one))
}

/// Whether some of these tags vouch for nothing: of data those that are escaped, of parity the blank. (What
/// else spells the escape there is checked here.)
pub(super) fn vouch_for_nothing(tagging: Tagging, role: Role, tags: &Segments) -> bool {
    match role {
        Role::Data => tagging.any_escape(tags.to_single().as_slice()),
        Role::Parity => any(tagging, tags, |_, one| is_blank(one)),
    }
}

fn any(tagging: Tagging, tags: &Segments, what: impl Fn(Tagging, &[u8]) -> bool) -> bool {
    let Some(profile) = tagging.profile() else { return false };
    let tags = tags.to_single();
    tags.as_slice().chunks_exact(profile.format.metadata()).any(|one| what(tagging, one))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::testing::{profiles, tags_for};
    use bio::Limits;
    use units::BlockSize;

    /// Limits of a device with that profile, and eight blocks of it with tags.
    fn blocks(profile: Profile) -> (Limits, Segments, Vec<u8>) {
        let block =
            if profile.format.interval() > 512 { BlockSize::B4096 } else { BlockSize::B512 };
        let mut limits = Limits::new(1 << 40, block);
        limits.protect(profile);
        let noise = |length: usize, seed: usize| -> Vec<u8> {
            (0..length).map(|at| (at * at * 31 + at * seed).to_le_bytes()[0]).collect()
        };
        let (data, own) = (noise(8 * block.bytes(), 7), noise(8 * limits.tag_size, 11));
        let tags = tags_for(&limits, AT.0, &data, &own);
        (limits, Buf::copy_of(&data).into(), tags)
    }

    const AT: Sector = Sector(8 * 1000);

    fn bytes(segments: &Segments) -> Vec<u8> {
        segments.to_single().as_slice().to_vec()
    }

    #[test]
    fn what_is_in_the_sum_and_the_data_make_the_same_tags_again() {
        for profile in profiles() {
            let (limits, data, tags) = blocks(profile);
            let tagging = Tagging::of(&limits);
            let given = Segments::from(Buf::copy_of(&tags));
            let mut made = application(tagging, Role::Data, &given);
            assert!(bytes(&made) != tags);
            sign(tagging, Role::Data, &data, &mut made, AT);
            assert_eq!(bytes(&made), tags, "{profile}");
            // Of parity any bytes are there again.
            let sum = application(tagging, Role::Data, &given);
            let mut parity = Segments::from(Buf::copy_of(&bytes(&sum)));
            sign(tagging, Role::Parity, &data, &mut parity, AT);
            assert_eq!(bytes(&application(tagging, Role::Parity, &parity)), bytes(&sum));
            assert_eq!(first_wrong(tagging, &data, &parity, AT), None);
            let elsewhere = first_wrong(tagging, &data, &parity, AT + 8);
            assert_eq!(elsewhere.is_some(), profile.kind.counts());
        }
    }

    #[test]
    fn a_blank_is_nothing_in_the_sum_and_an_escape_comes_back_blank() {
        for profile in profiles() {
            let (limits, data, mut tags) = blocks(profile);
            let tagging = Tagging::of(&limits);
            let blank = tagging.blank(8 * limits.logical_block.sectors());
            for role in [Role::Data, Role::Parity] {
                assert!(bytes(&application(tagging, role, &blank)).iter().all(|byte| *byte == 0));
            }
            let mut made = application(tagging, Role::Data, &blank);
            sign(tagging, Role::Data, &data, &mut made, AT);
            assert_eq!(bytes(&made), bytes(&blank), "{profile}");
            // The first is escaped, with a guard and a reference as they happen to be.
            with_tuple(&profile, &mut tags[..profile.format.metadata()], |tuple| {
                tuple.application = u16::MAX;
                if !profile.kind.counts() {
                    tuple.reference = profile.format.reference_mask();
                }
            });
            let mut made = application(tagging, Role::Data, &Buf::copy_of(&tags).into());
            sign(tagging, Role::Data, &data, &mut made, AT);
            let (first, rest) = tags.split_at_mut(profile.format.metadata());
            with_tuple(&profile, first, |tuple| {
                let storage = tuple.storage;
                *tuple = Tuple { storage, ..Tuple::unwritten(&profile.format) };
            });
            assert_eq!(bytes(&made), [first, rest].concat(), "{profile}");
        }
    }

    #[test]
    fn tags_that_are_all_zero_are_no_escape_in_parity() {
        let profile = profiles()[0];
        let (limits, _, _) = blocks(profile);
        let tagging = Tagging::of(&limits);
        let one = bytes(&application(tagging, Role::Data, &Buf::zeroed(8).into()));
        for strips in 1..9 {
            let (mut p, mut q) = (vec![0; 8], vec![0; 8]);
            let strips: Vec<&[u8]> = (0..strips).map(|_| &one[..]).collect();
            gf::pq(&strips, &mut p, &mut q);
            for sum in [p, q] {
                assert!(!spells_escape(tagging, &Buf::copy_of(&sum).into()));
            }
        }
    }
}
