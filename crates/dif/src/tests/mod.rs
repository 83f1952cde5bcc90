//! What the tests of every room share: an oracle that knows the specification and none of the code, the
//! formats that there are, and pieces of any length.

mod application;
mod cases;
mod checks;
mod convert;
mod copies;
mod dix;
mod pieces;
mod remap;
mod template;
mod update;
mod vectors;

use crate::{
    Checks, Expected, Format, Guard, Mismatch, Place, Profile, Protection, ProtectionType, Tag,
};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// A guard bit by bit, as its definition has it. (Section 3.)
fn bit_serial(guard: Guard, data: &[u8]) -> u64 {
    let (width, polynomial, start, reflected) = match guard {
        Guard::Crc16 => (16, 0x8bb7_u64, 0, false),
        Guard::Crc32c => (32, 0x1edc_6f41, 0xffff_ffff, true),
        Guard::Crc64 => (64, 0xad93_d235_94c9_3659, u64::MAX, true),
        Guard::Ip => return rfc1071(data),
    };
    let mask = u64::MAX >> (64 - width);
    let mut register: u64 = start;
    for byte in data {
        for bit in 0..8 {
            let bit = u64::from(if reflected { byte >> bit } else { byte >> (7 - bit) } & 1);
            let carry = register >> (width - 1) & 1;
            register = register << 1 & mask;
            if carry ^ bit == 1 {
                register ^= polynomial;
            }
        }
    }
    if reflected { !register.reverse_bits() >> (64 - width) & mask } else { register }
}

fn rfc1071(data: &[u8]) -> u64 {
    let mut sum = 0;
    for word in data.chunks(2) {
        sum += u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum & 0xffff
}

/// A format and what its tuples say, in numbers, and the bytes that the specification makes of them:
/// interval by interval, with nothing in common with the code that it judges.
#[derive(Clone, Copy, Debug)]
struct Oracle {
    guard: Guard,
    interval: usize,
    metadata: usize,
    first: bool,
    storage_bits: u8,
    kind: ProtectionType,
    application: u16,
    storage: u64,
    reference: u64,
}

impl Oracle {
    fn new(guard: Guard, interval: usize, kind: ProtectionType) -> Self {
        Self {
            guard,
            interval,
            metadata: if guard.bytes() == 2 { 8 } else { 16 },
            first: false,
            storage_bits: if guard == Guard::Crc32c { 16 } else { 0 },
            kind,
            application: 0,
            storage: 0,
            reference: 0,
        }
    }

    fn tuple_bytes(&self) -> usize {
        if self.guard.bytes() == 2 { 8 } else { 16 }
    }

    fn tuple_at(&self) -> usize {
        if self.first { 0 } else { self.metadata - self.tuple_bytes() }
    }

    fn reference_bits(&self) -> u8 {
        let space = match self.guard {
            Guard::Crc16 | Guard::Ip => 32,
            Guard::Crc32c => 80,
            Guard::Crc64 => 48,
        };
        space - self.storage_bits
    }

    fn reference_of(&self, index: u64) -> u64 {
        let counted = if self.kind == ProtectionType::Three {
            self.reference
        } else {
            self.reference.wrapping_add(index)
        };
        counted & ones(self.reference_bits())
    }

    /// The bytes of a tuple: guard, application tag, storage and reference tag as one number.
    fn tuple(&self, guard: u64, application: u16, storage: u64, reference: u64) -> Vec<u8> {
        let mut bytes = guard.to_be_bytes()[8 - self.guard.bytes()..].to_vec();
        bytes.extend(application.to_be_bytes());
        let space = u128::from(storage) << self.reference_bits() | u128::from(reference);
        let left = self.tuple_bytes() - bytes.len();
        bytes.extend(&space.to_be_bytes()[16 - left..]);
        bytes
    }

    fn guard_of(&self, data: &[u8], metadata: &[u8]) -> u64 {
        bit_serial(self.guard, &[data, &metadata[..self.tuple_at()]].concat())
    }

    /// Makes `metadata` what it ought to be; the owner's bytes in it stay.
    fn sign(&self, data: &[u8], metadata: &mut [u8]) {
        let intervals = data.chunks(self.interval).zip(metadata.chunks_mut(self.metadata));
        for (index, (data, metadata)) in (0..).zip(intervals) {
            let guard = self.guard_of(data, metadata);
            let reference = self.reference_of(index);
            let tuple = self.tuple(guard, self.application, self.storage, reference);
            metadata[self.tuple_at()..][..tuple.len()].copy_from_slice(&tuple);
        }
    }

    fn interleaved(&self, data: &[u8], metadata: &[u8]) -> Vec<u8> {
        let each = data.chunks(self.interval).zip(metadata.chunks(self.metadata));
        each.flat_map(|(data, metadata)| [data, metadata].concat()).collect()
    }

    fn format(&self) -> Format {
        let place = if self.first { Place::First } else { Place::Last };
        let format = Format::new(self.guard, self.interval).unwrap();
        let format = format.with_metadata(self.metadata, place).unwrap();
        format.with_storage_bits(self.storage_bits).unwrap()
    }

    fn profile(&self) -> Profile {
        Profile { format: self.format(), kind: self.kind }
    }

    /// With every tag checked, all bits.
    fn protection(&self) -> Protection {
        let expected = Expected {
            application: self.application,
            application_mask: u16::MAX,
            reference: self.reference,
            storage: self.storage,
            storage_mask: u64::MAX,
        };
        Protection::new(self.profile(), expected, Checks::ALL).unwrap()
    }

    /// As much of the data and signed metadata as `intervals` have, of noise.
    fn filled(&self, intervals: usize, seed: u64) -> (Vec<u8>, Vec<u8>) {
        let data = noise(intervals * self.interval, seed);
        let mut metadata = noise(intervals * self.metadata, !seed);
        self.sign(&data, &mut metadata);
        (data, metadata)
    }
}

fn ones(bits: u8) -> u64 {
    if bits == 0 { 0 } else { u64::MAX >> (64 - bits) }
}

/// Bytes that look random and are not.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb).to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

fn ascending(length: usize) -> Vec<u8> {
    (0..=255).cycle().take(length).collect()
}

fn any_kind() -> impl Strategy<Value = ProtectionType> {
    prop::sample::select(&ProtectionType::ALL[..])
}

/// Every format: guards, lengths, places, storage tags, and tags that are not the escape.
fn any_oracle() -> impl Strategy<Value = Oracle> {
    let guard = prop::sample::select(&Guard::ALL[..]);
    let tags = (0..u16::MAX, any::<u64>(), any::<u64>());
    (guard, any::<(bool, prop::sample::Index, prop::sample::Index)>(), any_kind(), 0_u8..65, tags)
        .prop_map(
            |(guard, (first, interval, owner), kind, bits, (application, storage, reference))| {
                let interval = *interval.get(&[512, 1024, 4096]);
                let (fewest, most) = match guard {
                    Guard::Crc16 | Guard::Ip => (0, 32),
                    Guard::Crc32c => (16, 64),
                    Guard::Crc64 => (0, 48),
                };
                let mut made = Oracle::new(guard, interval, kind);
                made.metadata += owner.get(&[0, 0, 1, 8, 13, 56, 600]);
                // Where both ends are the same it lies at the last.
                made.first = first && made.metadata > made.tuple_bytes();
                made.storage_bits =
                    if bits > 48 { fewest } else { fewest + bits % (most - fewest + 1) };
                made.application = application;
                made.storage = storage & ones(made.storage_bits);
                made.reference = reference;
                made
            },
        )
}

/// Lengths of pieces, used over and over; some are empty.
fn any_cuts() -> impl Strategy<Value = Vec<usize>> {
    let lengths = prop::collection::vec(prop_oneof![0_usize..20, 0_usize..5000], 1..8);
    let lengths = lengths.prop_filter("pieces have bytes", |cuts| cuts.iter().any(|&cut| cut > 0));
    prop_oneof![1 => Just(vec![1]), 1 => Just(vec![usize::MAX]), 4 => lengths]
}

fn cut<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for length in cuts.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn cut_mut<'a>(mut bytes: &'a mut [u8], cuts: &[usize]) -> Vec<&'a mut [u8]> {
    let mut pieces = Vec::new();
    for length in cuts.iter().cycle() {
        if bytes.is_empty() {
            break;
        }
        let (piece, rest) = bytes.split_at_mut((*length).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// What a mismatch says, as far as others may know it.
fn said(mismatch: &Mismatch) -> (Tag, u64, u64, u64, u64) {
    let Mismatch { tag, interval, address, stored, expected, .. } = *mismatch;
    (tag, interval, address, stored, expected)
}

/// All that is found in separate buffers.
fn found(protection: &Protection, data: &[u8], metadata: &[u8]) -> Vec<Mismatch> {
    let mut found = Vec::new();
    protection.verify_each([data], [metadata], |mismatch| found.push(mismatch));
    found
}
