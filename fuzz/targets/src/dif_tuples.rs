//! Protection information: whatever tuples say, and wherever pieces end.

use crate::input::Input;
use dif::{
    Checks, Coding, Expected, Format, Guard, Mismatch, Order, Place, Profile, Protection,
    ProtectionType, Signer, TagStream, TagStreamError, Tuple, Verifier,
};

/// Any tuples beside any data are judged the same in one piece, in any pieces, copied or not, stopped and
/// resumed or not; and what is generated verifies.
pub fn verify(bytes: &[u8]) {
    let mut input = Input(bytes);
    let protection = any_protection(&mut input);
    let request = Request::new(protection.format(), &mut input);
    let cuts = request.cuts;

    let expected = request.told(&protection);
    assert!(expected.len() <= INTERVALS);
    assert!(expected.is_sorted_by(|one, other| one.interval < other.interval));
    let (data, metadata) = (&request.data, &request.metadata);
    let blocks = request.interleaved(protection.format());
    let separate = told(|found| {
        protection.verify_each(cut(data, cuts), cut(metadata, cuts), found);
    });
    assert_eq!(separate, expected);
    let interleaved = told(|found| {
        protection.verify_interleaved_each(cut(&blocks, cuts), found);
    });
    assert_eq!(interleaved, expected);
    let resumed = told(|found| {
        let mut verifier = Verifier::new(&protection);
        for piece in cut(&blocks, cuts) {
            let kept = verifier;
            verifier.interleaved(&vec![0xa5; piece.len()], |_| ());
            verifier = kept;
            verifier.interleaved(piece, &mut *found);
        }
    });
    assert_eq!(resumed, expected);
    let mut copy = Request { data: vec![0; data.len()], metadata: vec![0; metadata.len()], cuts };
    let stripped = told(|found| {
        protection.strip(cut(&blocks, cuts), cut_mut(&mut copy.data, cuts), found);
    });
    assert_eq!(stripped, expected);
    let split = told(|found| {
        let (data, metadata) = (cut_mut(&mut copy.data, cuts), cut_mut(&mut copy.metadata, cuts));
        protection.split(cut(&blocks, cuts), data, metadata, found);
    });
    assert_eq!(split, expected);
    assert!(copy.data == *data && copy.metadata == *metadata);
    let mut joined = vec![0; blocks.len()];
    let found = told(|found| {
        protection.join(cut(data, cuts), cut(metadata, cuts), cut_mut(&mut joined, cuts), found);
    });
    assert_eq!(found, expected);
    assert!(joined == blocks);

    let mut signer = Signer::new(&protection);
    for piece in cut_mut(&mut joined, cuts) {
        signer.interleaved(piece);
    }
    protection.generate([&data[..]], cut_mut(&mut copy.metadata, cuts));
    assert!(joined == copy.interleaved(protection.format()), "signed apart and together");
    let strict = protection.with_checks(Checks { escape: false, ..Checks::ALL });
    assert_eq!(strict.verify_interleaved([&joined[..]]), Ok(()));
}

/// Any tuples that are counted anew, converted or updated: what was wrong is never right afterwards.
pub fn rewrite(bytes: &[u8]) {
    let mut input = Input(bytes);
    let protection = any_protection(&mut input);
    let (from, to) = (protection.expected().reference, u64::from(input.number()) << 7);
    let target = any_format(&mut input);
    let mut request = Request::new(protection.format(), &mut input);
    if input.byte() % 2 == 1 {
        // Sound but for one byte.
        protection.generate([&request.data[..]], [&mut request.metadata[..]]);
        crate::input::flip(&mut request.metadata, input.number());
    }

    let (profile, cuts) = (*protection.profile(), request.cuts);
    let (mut whole, mut pieces) = (request.metadata.clone(), request.metadata.clone());
    let counts = profile.remap([&mut whole[..]], from, to);
    assert_eq!(profile.remap(cut_mut(&mut pieces, cuts), from, to), counts);
    assert!(whole == pieces);
    if profile.kind.counts() && profile.format.reference_bits() > 0 {
        assert_eq!(counts.changed + counts.left, u64::try_from(INTERVALS).expect("a few"));
    }

    let to = Profile { format: target, kind: profile.kind };
    if let Ok(conversion) = protection.converted_to(to) {
        let mut converted = vec![0; INTERVALS * target.metadata()];
        let mut told = Vec::new();
        conversion.run(
            cut(&request.data, cuts),
            cut(&request.metadata, cuts),
            cut_mut(&mut converted, cuts),
            |mismatch| told.push(mismatch.interval),
        );
        let guard = Checks { guard: true, ..Checks::NONE };
        let judge = Protection::at(to, 0).with_checks(guard);
        let mut after = Vec::new();
        judge
            .verify_each([&request.data[..]], [&converted[..]], |found| after.push(found.interval));
        // Tuples that are the escape stay it, honoured or not, and are not looked at here.
        told.retain(|index| !escaped(to, &converted, *index));
        assert_eq!(after, told, "what is told is what is wrong afterwards");
        for index in (0..).take(INTERVALS) {
            assert_eq!(escaped(profile, &request.metadata, index), escaped(to, &converted, index));
        }
    }

    let offset = usize::from(input.byte());
    let old = request.data[offset..][..8].to_vec();
    let new: [u8; 8] = input.array();
    let format = protection.format();
    let before = request.told(&protection.with_checks(GUARD));
    let tuple = &mut request.metadata[format.tuple_offset()..][..format.tuple_bytes()];
    if profile.update(tuple, offset, &old, &new) {
        request.data[offset..][..8].copy_from_slice(&new);
        let after = request.told(&protection.with_checks(GUARD));
        let places = |told: &[Mismatch]| told.iter().map(|told| told.interval).collect::<Vec<_>>();
        assert_eq!(places(&after), places(&before), "as right as it was");
    }
}

/// Any bytes as a stream over any tags.
pub fn stream(bytes: &[u8]) {
    let mut input = Input(bytes);
    let profile = *any_protection(&mut input).profile();
    let coding = if input.byte() % 2 == 0 { Coding::Plain } else { Coding::Safe };
    let length = usize::from(input.byte());
    let request = Request::new(&profile.format, &mut input);
    let stream = TagStream::new(profile, coding);

    // Tags that anybody wrote are read or refused.
    let mut read = vec![0; length];
    let foreign = stream.read(&request.metadata, &mut read);
    assert_eq!(
        matches!(foreign, Err(TagStreamError::TooLong { .. })),
        length > stream.capacity(INTERVALS)
    );

    let value: Vec<u8> = input.0.iter().copied().cycle().take(length).collect();
    let mut written = request.metadata.clone();
    if stream.write(&value, INTERVALS, cut_mut(&mut written, request.cuts)).is_err() {
        assert!(written == request.metadata, "nothing was written");
        return;
    }
    let mut back = vec![0; value.len()];
    assert_eq!(stream.read(&written, &mut back), Ok(()));
    assert!(back == value);
    assert!((0..).take(INTERVALS).all(|index| !escaped(profile, &written, index)));
}

fn told(run: impl FnOnce(&mut dyn FnMut(Mismatch))) -> Vec<Mismatch> {
    let mut told = Vec::new();
    run(&mut |mismatch| told.push(mismatch));
    told
}

fn tuple(profile: Profile, metadata: &[u8], index: u64) -> Tuple {
    let format = &profile.format;
    let at = usize::try_from(index).expect("a few") * format.metadata() + format.tuple_offset();
    Tuple::decode(format, &metadata[at..][..format.tuple_bytes()])
}

fn escaped(profile: Profile, metadata: &[u8], index: u64) -> bool {
    tuple(profile, metadata, index).is_escaped(&profile.format, profile.kind)
}

/// Data and metadata of [`INTERVALS`] intervals, filled from the input over and over.
struct Request {
    data: Vec<u8>,
    metadata: Vec<u8>,
    cuts: [usize; 3],
}

impl Request {
    fn new(format: &Format, input: &mut Input<'_>) -> Self {
        let cuts = [input.byte(), input.byte(), input.byte()];
        // A piece of a few bytes, one of many, an empty one now and then.
        let cuts = [1 + usize::from(cuts[0]), 20 * usize::from(cuts[1]), usize::from(cuts[2] % 9)];
        let filler = if input.is_empty() { &[0][..] } else { input.0 };
        let filled = |length| filler.iter().copied().cycle().take(length).collect();
        let data = filled(INTERVALS * format.interval());
        Self { data, metadata: filled(INTERVALS * format.metadata()), cuts }
    }

    fn interleaved(&self, format: &Format) -> Vec<u8> {
        let metadata = self.metadata.chunks(format.metadata());
        let each = self.data.chunks(format.interval()).zip(metadata);
        each.flat_map(|(data, metadata)| [data, metadata].concat()).collect()
    }

    fn told(&self, protection: &Protection) -> Vec<Mismatch> {
        told(|found| protection.verify_each([&self.data[..]], [&self.metadata[..]], found))
    }
}

fn any_format(input: &mut Input<'_>) -> Format {
    let [guard, interval, owner, place, bits] = input.array();
    let guard = Guard::ALL[usize::from(guard) % 4];
    let interval = if guard.bytes() == 2 { [512, 4096][usize::from(interval) % 2] } else { 4096 };
    let format = Format::new(guard, interval).expect("intervals that every guard has");
    let place = if place % 2 == 0 { Place::First } else { Place::Last };
    let metadata = format.tuple_bytes() + usize::from(owner) % 40;
    let format = format.with_metadata(metadata, place).expect("it has room for the tuple");
    format.with_storage_bits(bits).unwrap_or(format)
}

fn any_protection(input: &mut Input<'_>) -> Protection {
    let format = any_format(input);
    let [kind, checks] = input.array();
    let kind = ProtectionType::ALL[usize::from(kind) % 3];
    let is_on = |bit: u8| checks >> bit & 1 == 1;
    let checks = Checks {
        guard: is_on(0),
        application: is_on(1),
        reference: is_on(2),
        storage: is_on(3),
        escape: is_on(4),
        order: if is_on(5) { Order::Linux } else { Order::Guard },
    };
    let expected = Expected {
        application: u16::from_be_bytes(input.array()),
        application_mask: u16::from_be_bytes(input.array()),
        reference: u64::from_be_bytes(input.array()),
        storage: u64::from(input.byte()),
        storage_mask: u64::from_be_bytes(input.array()),
    };
    let profile = Profile { format, kind };
    Protection::new(profile, expected, checks)
        .unwrap_or_else(|_| Protection::at(profile, expected.reference).with_checks(checks))
}

fn cut(mut bytes: &[u8], cuts: [usize; 3]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    for length in cuts.into_iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn cut_mut(mut bytes: &mut [u8], cuts: [usize; 3]) -> Vec<&mut [u8]> {
    let mut pieces = Vec::new();
    for length in cuts.into_iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at_mut(length.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// The guard alone, also of escapes.
const GUARD: Checks = Checks { guard: true, ..Checks::NONE };
/// Intervals of a request: enough for a neighbour on both sides.
const INTERVALS: usize = 3;
