//! Area `dif`: protection information on one core, from a cache and from memory.
//!
//! Beside libisal with the same loop over tuples around it, beside the same work of other crates where it has
//! none, and beside copying or reading the same bytes and nothing else.

use crate::compute::noise;
use crate::isal;
use crate::measure::pair;
use crate::row::Row;
use crate::settings::Settings;
use crc_fast::CrcAlgorithm;
use guard::Guard;
use std::hint::black_box;

/// The rows of the area that are wanted.
pub(crate) fn rows(settings: &Settings) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, bytes) in [("", CACHED_BYTES), (" in memory", BEYOND_CACHES_BYTES)] {
        let data = noise(bytes);
        for interval in [512, 4096] {
            let mut bench = Bench { settings, place, interval, data: &data, rows: &mut rows };
            bench.generate_and_verify();
            bench.insert();
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
    fn generate_and_verify(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let mut ours = vec![[0; TUPLE]; data.len() / interval];
        let mut theirs = ours.clone();
        let (generate, verify) = (generate, verify);
        self.row(
            "generate",
            ISA_L,
            isal::PRESENT,
            || generate(Guard::Crc16, black_box(data), interval, &mut ours),
            || {
                isal_generate(black_box(data), interval, &mut theirs);
            },
        );
        self.row(
            "verify",
            ISA_L,
            isal::PRESENT,
            || assert!(verify(Guard::Crc16, black_box(data), interval, &ours)),
            || {
                assert!(isal_verify(black_box(data), interval, &theirs));
            },
        );
        self.row(
            "verify, beside a read",
            "plain read",
            true,
            || assert!(verify(Guard::Crc16, black_box(data), interval, &ours)),
            || {
                black_box(read(black_box(data)));
            },
        );
    }

    fn insert(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let blocks = data.len() / interval;
        let mut ours = vec![0; blocks * (interval + TUPLE)];
        let mut theirs = ours.clone();
        self.row(
            "insert",
            ISA_L,
            isal::PRESENT,
            || insert(black_box(data), interval, &mut ours),
            || {
                isal_insert(black_box(data), interval, &mut theirs);
            },
        );
        self.row(
            "insert, beside memcpy",
            "memcpy",
            true,
            || insert(black_box(data), interval, &mut ours),
            || {
                theirs[..data.len()].copy_from_slice(black_box(data));
                black_box(&theirs);
            },
        );
    }

    fn ip(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let mut tuples = vec![[0; TUPLE]; data.len() / interval];
        self.row(
            "ip generate",
            "plain read",
            true,
            || generate(Guard::Ip, black_box(data), interval, &mut tuples),
            || {
                black_box(read(black_box(data)));
            },
        );
        let mut copy = vec![0; data.len()];
        self.row(
            "ip verify, beside memcpy",
            "memcpy",
            true,
            || assert!(verify(Guard::Ip, black_box(data), interval, &tuples)),
            || {
                copy.copy_from_slice(black_box(data));
                black_box(&copy);
            },
        );
    }

    fn other_guards(&mut self) {
        let (data, interval) = (self.data, self.interval);
        let each = |guard: Guard| {
            let mut all = 0;
            guard.each(black_box(data), interval, |value| {
                all ^= value;
                true
            });
            black_box(all);
        };
        self.row(
            "crc32c guards",
            ISA_L,
            isal::PRESENT,
            || each(Guard::Crc32c),
            || {
                let guards = black_box(data).chunks_exact(interval).map(isal::crc32c);
                black_box(guards.fold(0, |all, guard| all ^ guard));
            },
        );
        self.row(
            "crc64 guards",
            "crc-fast",
            true,
            || each(Guard::Crc64),
            || {
                let guards = black_box(data).chunks_exact(interval);
                let guards = guards.map(|bytes| crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes));
                black_box(guards.fold(0, |all, guard| all ^ guard));
            },
        );
    }

    /// Measures a row, if it is wanted.
    fn row(
        &mut self,
        what: &str,
        peer_name: &'static str,
        peer_is_present: bool,
        ours: impl FnMut(),
        peer: impl FnMut(),
    ) {
        let (verb, beside) =
            what.split_once(',').map_or((what, ""), |(verb, _)| (verb, &what[verb.len()..]));
        let name = format!("dif {verb} {}{}{beside}", self.interval, self.place);
        if !self.settings.wants(&name) {
            return;
        }
        let (ours, peer) = pair(ours, peer);
        let length = f64::from(u32::try_from(self.data.len()).expect("it fits in 32 bits"));
        let rate = |seconds: f64| length / seconds / 1e9;
        let peer = peer_is_present.then(|| rate(peer));
        self.rows.push(Row::new(name, rate(ours), (peer_name, peer), "GB/s"));
    }
}

fn generate(guard: Guard, data: &[u8], interval: usize, tuples: &mut [[u8; TUPLE]]) {
    let mut tuples = tuples.iter_mut().zip(0..);
    guard.each(data, interval, |value| {
        if let Some((tuple, reference)) = tuples.next() {
            *tuple = of(value, reference);
        }
        true
    });
}

fn verify(guard: Guard, data: &[u8], interval: usize, tuples: &[[u8; TUPLE]]) -> bool {
    let mut tuples = tuples.iter().zip(0..);
    guard
        .each(data, interval, |value| {
            tuples.next().is_some_and(|(tuple, reference)| *tuple == of(value, reference))
        })
        .is_none()
}

fn insert(data: &[u8], interval: usize, target: &mut [u8]) {
    let mut reference = 0;
    Guard::Crc16.each_copied(data, interval, target, interval + TUPLE, |tuple, value| {
        tuple.copy_from_slice(&of(value, reference));
        reference += 1;
    });
}

/// A tuple of 16-bit guards.
fn of(guard: u64, reference: u32) -> [u8; TUPLE] {
    let [.., a, b] = guard.to_be_bytes();
    let [c, d, e, f] = reference.to_be_bytes();
    [a, b, 0, 1, c, d, e, f]
}

fn isal_generate(data: &[u8], interval: usize, tuples: &mut [[u8; TUPLE]]) {
    for ((bytes, tuple), reference) in data.chunks_exact(interval).zip(tuples).zip(0..) {
        *tuple = of(isal::crc16_t10dif(bytes).into(), reference);
    }
}

fn isal_verify(data: &[u8], interval: usize, tuples: &[[u8; TUPLE]]) -> bool {
    data.chunks_exact(interval).zip(tuples).zip(0..).all(|((bytes, tuple), reference)| {
        *tuple == of(isal::crc16_t10dif(bytes).into(), reference)
    })
}

fn isal_insert(data: &[u8], interval: usize, target: &mut [u8]) {
    let blocks = target.chunks_exact_mut(interval + TUPLE);
    for ((bytes, block), reference) in data.chunks_exact(interval).zip(blocks).zip(0..) {
        let (copy, tuple) = block.split_at_mut(interval);
        tuple.copy_from_slice(&of(isal::crc16_t10dif_copy(bytes, copy).into(), reference));
    }
}

/// Every byte looked at, by the compiler's vectors.
fn read(data: &[u8]) -> u64 {
    let (words, _) = data.as_chunks();
    words.iter().fold(0, |all, word| all ^ u64::from_le_bytes(*word))
}

/// A request that fits in the second cache.
const CACHED_BYTES: usize = 64 << 10;
/// More than any cache holds.
const BEYOND_CACHES_BYTES: usize = 256 << 20;
const ISA_L: &str = "isa-l";
/// Guard, application tag, reference tag.
const TUPLE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_right() {
        let data = noise(CACHED_BYTES);
        for guard in [Guard::Crc16, Guard::Ip] {
            let mut tuples = vec![[0; TUPLE]; data.len() / 512];
            generate(guard, &data, 512, &mut tuples);
            assert!(verify(guard, &data, 512, &tuples));
            tuples[77][0] ^= 1;
            assert!(!verify(guard, &data, 512, &tuples));
        }
    }

    #[cfg(feature = "isal")]
    #[test]
    fn libisal_makes_the_same() {
        let data = noise(CACHED_BYTES);
        for interval in [512, 4096] {
            let mut ours = vec![[0; TUPLE]; data.len() / interval];
            let mut theirs = ours.clone();
            generate(Guard::Crc16, &data, interval, &mut ours);
            isal_generate(&data, interval, &mut theirs);
            assert!(ours == theirs && isal_verify(&data, interval, &ours));
            let mut ours = vec![0; data.len() / interval * (interval + TUPLE)];
            let mut theirs = ours.clone();
            insert(&data, interval, &mut ours);
            isal_insert(&data, interval, &mut theirs);
            assert!(ours == theirs);
        }
        assert_eq!(Guard::Crc32c.of(&data), u64::from(isal::crc32c(&data)));
    }
}
