//! Area `dif`: protection information on one core, from a cache and from memory.
//!
//! Whole operations of `dif`, tuples and all, beside libisal with a loop over the same tuples around it, beside
//! the same work of other crates where it has none, and beside copying or reading the same bytes and nothing
//! else.

use crate::compute::noise;
use crate::isal;
use crate::measure::pair;
use crate::pages::Pages;
use crate::row::Row;
use crate::settings::Settings;
use crc_fast::CrcAlgorithm;
use dif::{Expected, Format, Guard, Profile, Protection, ProtectionType};
use std::hint::black_box;

/// The rows of the area that are wanted.
pub(crate) fn rows(settings: &Settings) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, bytes) in [("", CACHED_BYTES), (" in memory", BEYOND_CACHES_BYTES)] {
        let mut data = Pages::new(bytes);
        data.bytes_mut().copy_from_slice(&noise(bytes));
        for interval in [512, 4096] {
            let data = data.bytes();
            let mut bench = Bench { settings, place, interval, data, rows: &mut rows };
            bench.separate();
            bench.interleaved();
            bench.ip();
            if interval == 4096 {
                bench.other_guards();
            }
        }
    }
    rows
}

/// What is measured over the same data.
struct Bench<'a> {
    settings: &'a Settings,
    place: &'static str,
    interval: usize,
    data: &'a [u8],
    rows: &'a mut Vec<Row>,
}

impl Bench<'_> {
    fn separate(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let protection = protection(Guard::Crc16, interval);
        let mut tuples = vec![0; data.len() / interval * TUPLE];
        protection.generate([data], [&mut tuples[..]]);
        let (valid, mut made) = (tuples.clone(), tuples.clone());
        self.beside_isal(
            "generate",
            || protection.generate([black_box(data)], [&mut tuples[..]]),
            || isal_generate(black_box(data), interval, &mut made),
        );
        let verify = || protection.verify([black_box(data)], [&valid[..]]).expect("it is right");
        self.beside_isal("verify", verify, || {
            assert!(isal_verify(black_box(data), interval, &valid));
        });
        self.row("verify", "plain read", verify, || read(data));
    }

    fn interleaved(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let protection = protection(Guard::Crc16, interval);
        let blocks_bytes = data.len() / interval * (interval + TUPLE);
        let [mut blocks, mut theirs] = [Pages::new(blocks_bytes), Pages::new(blocks_bytes)];
        let (blocks, theirs) = (blocks.bytes_mut(), theirs.bytes_mut());
        self.beside_isal(
            "insert",
            || protection.insert([black_box(data)], [&mut blocks[..]]),
            || isal_insert(black_box(data), interval, theirs),
        );
        self.row(
            "insert",
            "memcpy",
            || protection.insert([black_box(data)], [&mut blocks[..]]),
            || copy(data, &mut theirs[..data.len()]),
        );
        protection.insert([data], [&mut blocks[..]]);
        let mut stripped = Pages::new(data.len());
        let stripped = stripped.bytes_mut();
        self.row(
            "strip",
            "memcpy",
            || protection.strip([black_box(&blocks[..])], [&mut stripped[..]], |_| panic!()),
            || copy(data, &mut theirs[..data.len()]),
        );
    }

    fn ip(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let protection = protection(Guard::Ip, interval);
        let mut tuples = vec![0; data.len() / interval * TUPLE];
        self.row(
            "ip generate",
            "plain read",
            || protection.generate([black_box(data)], [&mut tuples[..]]),
            || read(data),
        );
        protection.generate([data], [&mut tuples[..]]);
        self.row(
            "ip verify",
            "plain read",
            || protection.verify([black_box(data)], [&tuples[..]]).expect("it is right"),
            || read(data),
        );
    }

    fn other_guards(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let mut tuples = vec![0; data.len() / interval * 2 * TUPLE];
        let crc32c = protection(Guard::Crc32c, interval);
        self.beside_isal(
            "crc32c generate",
            || crc32c.generate([black_box(data)], [&mut tuples[..]]),
            || {
                let guards = black_box(data).chunks_exact(interval).map(isal::crc32c);
                black_box(guards.fold(0, |all, guard| all ^ guard));
            },
        );
        let crc64 = protection(Guard::Crc64, interval);
        self.row(
            "crc64 generate",
            "crc-fast",
            || crc64.generate([black_box(data)], [&mut tuples[..]]),
            || {
                let guards = black_box(data).chunks_exact(interval);
                let guards = guards.map(|bytes| crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes));
                black_box(guards.fold(0, |all, guard| all ^ guard));
            },
        );
    }

    fn beside_isal(&mut self, what: &str, ours: impl FnMut(), peer: impl FnMut()) {
        self.measure([what, ""], "isa-l", isal::PRESENT, ours, peer);
    }

    fn row(&mut self, what: &str, peer_name: &'static str, ours: impl FnMut(), peer: impl FnMut()) {
        let beside = format!(", beside {peer_name}");
        self.measure([what, &beside], peer_name, true, ours, peer);
    }

    /// Measures a row, if it is wanted.
    fn measure(
        &mut self,
        [what, beside]: [&str; 2],
        peer_name: &'static str,
        is_present: bool,
        ours: impl FnMut(),
        peer: impl FnMut(),
    ) {
        let name = format!("dif {what} {}{}{beside}", self.interval, self.place);
        if !self.settings.wants(&name) {
            return;
        }
        let (ours, peer) = pair(ours, peer);
        let bytes = f64::from(u32::try_from(self.data.len()).expect("it fits in 32 bits"));
        let rate = |seconds: f64| bytes / seconds / 1e9;
        let peer = is_present.then(|| rate(peer));
        self.rows.push(Row::new(name, rate(ours), (peer_name, peer), "GB/s"));
    }
}

/// Type 1 with an application tag, all of it checked.
fn protection(guard: Guard, interval: usize) -> Protection {
    let format = Format::new(guard, interval).expect("such intervals there are");
    let profile = Profile { format, kind: ProtectionType::One };
    let expected = Expected::at(0).with_application(APPLICATION);
    Protection::new(profile, expected, dif::Checks::ALL).expect("no escape")
}

/// A tuple of 16-bit guards, as `protection` has it.
fn tuple(guard: u16, reference: u32) -> [u8; TUPLE] {
    let ([a, b], [c, d]) = (guard.to_be_bytes(), APPLICATION.to_be_bytes());
    let [e, f, g, h] = reference.to_be_bytes();
    [a, b, c, d, e, f, g, h]
}

fn isal_generate(data: &[u8], interval: usize, tuples: &mut [u8]) {
    let (tuples, _) = tuples.as_chunks_mut();
    for ((bytes, place), reference) in data.chunks_exact(interval).zip(tuples).zip(0..) {
        *place = tuple(isal::crc16_t10dif(bytes), reference);
    }
}

fn isal_verify(data: &[u8], interval: usize, tuples: &[u8]) -> bool {
    let (tuples, _) = tuples.as_chunks();
    let mut intervals = data.chunks_exact(interval).zip(tuples).zip(0..);
    intervals
        .all(|((bytes, place), reference)| *place == tuple(isal::crc16_t10dif(bytes), reference))
}

fn isal_insert(data: &[u8], interval: usize, blocks: &mut [u8]) {
    let blocks = blocks.chunks_exact_mut(interval + TUPLE);
    for ((bytes, block), reference) in data.chunks_exact(interval).zip(blocks).zip(0..) {
        let (copy, place) = block.split_at_mut(interval);
        place.copy_from_slice(&tuple(isal::crc16_t10dif_copy(bytes, copy), reference));
    }
}

/// Every byte is looked at, by the compiler's vectors.
fn read(data: &[u8]) {
    let (words, _) = black_box(data).as_chunks();
    black_box(words.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word)));
}

fn copy(data: &[u8], target: &mut [u8]) {
    target.copy_from_slice(black_box(data));
    black_box(target);
}

const APPLICATION: u16 = 0x5afe;
/// A request that fits in the second cache.
const CACHED_BYTES: usize = 64 << 10;
/// More than goes through a cache at once.
const BEYOND_CACHES_BYTES: usize = 256 << 20;
/// Bytes of a tuple with a 16-bit guard.
const TUPLE: usize = 8;

#[cfg(all(test, feature = "isal"))]
mod tests {
    use super::*;

    #[test]
    fn libisal_makes_the_same() {
        let data = noise(CACHED_BYTES);
        for interval in [512, 4096] {
            let protection = protection(Guard::Crc16, interval);
            let mut ours = vec![0; data.len() / interval * TUPLE];
            let mut theirs = ours.clone();
            protection.generate([&data[..]], [&mut ours[..]]);
            isal_generate(&data, interval, &mut theirs);
            assert!(ours == theirs && isal_verify(&data, interval, &ours));
            let mut ours = vec![0; data.len() / interval * (interval + TUPLE)];
            let mut theirs = ours.clone();
            protection.insert([&data[..]], [&mut ours[..]]);
            isal_insert(&data, interval, &mut theirs);
            assert!(ours == theirs);
        }
        assert_eq!(Guard::Crc32c.of(&data), u64::from(isal::crc32c(&data)));
    }
}
