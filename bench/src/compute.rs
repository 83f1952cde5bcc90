//! Area `compute`: tags and parity on one core, from and to memory.

use crate::isal;
use crate::measure::pair;
use crate::pages::Pages;
use crate::row::Row;
use checksum::{Algorithm, BlockTagger, Key, ZeroTags};
use crc_fast::CrcAlgorithm;
use gf::Strip;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use std::cell::Cell;
use std::hint::black_box;
use units::BlockSize;

/// All rows of the area.
pub(crate) fn rows() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for block in [BlockSize::B512, BlockSize::B4096] {
        rows.extend(tags(block));
    }
    rows.extend(hash_tags());
    rows.push(zero_tags());
    for data_count in [4, 8] {
        rows.extend(parity(data_count, 1, "in cache"));
    }
    for data_count in [4, 8] {
        let stripe_count = BEYOND_CACHES_BYTES / (data_count * STRIP_BYTES);
        rows.extend(parity(data_count, stripe_count, "in memory"));
        rows.extend(checks(data_count, stripe_count));
    }
    Ok(rows)
}

/// Tags of a request's worth of blocks, beside the bare CRC of each block.
fn tags(block: BlockSize) -> [Row; 2] {
    let data = noise(REQUEST_BYTES);
    let tagger = BlockTagger::new(Algorithm::Crc32c, None, SALT, block).expect("it takes no key");
    let mut tags = vec![0; data.len() / block.bytes() * tagger.tag_bytes()];
    let bare = || {
        let crcs = data.chunks_exact(block.bytes());
        let crcs = crcs.map(|block| crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, block));
        black_box(crcs.fold(0, |all, crc| all ^ crc));
    };
    let (ours, peer) = pair(|| tagger.tags(FIRST_SECTOR, black_box(&data), &mut tags), bare);
    let generate = rate_row(format!("crc32c tags {block}"), data.len(), ours, CRC_FAST, Some(peer));
    let (ours, peer) =
        pair(|| assert_eq!(tagger.verify(FIRST_SECTOR, black_box(&data), &tags), None), bare);
    let verify = rate_row(format!("crc32c verify {block}"), data.len(), ours, CRC_FAST, Some(peer));
    [generate, verify]
}

/// Tags of the same request with other algorithms, beside the bare hash of each block.
fn hash_tags() -> [Row; 4] {
    let key = Key::new([0x4B; 32]).expect("a key may have 32 bytes");
    let keyed = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length will do");
    [
        hash_row(Algorithm::Crc32, None, CRC_FAST, |block| {
            black_box(crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, block));
        }),
        hash_row(Algorithm::Xxhash64, None, "twox-hash", |block| {
            black_box(twox_hash::XxHash64::oneshot(0, block));
        }),
        hash_row(Algorithm::Sha256, None, "sha2", |block| {
            black_box(Sha256::digest(block));
        }),
        hash_row(Algorithm::HmacSha256, Some(&key), "hmac", |block| {
            black_box(keyed.clone().chain_update(block).finalize());
        }),
    ]
}

fn hash_row(
    algorithm: Algorithm,
    key: Option<&Key>,
    peer_name: &'static str,
    bare: impl Fn(&[u8]),
) -> Row {
    let block = BlockSize::B4096;
    let data = noise(REQUEST_BYTES);
    let tagger = BlockTagger::new(algorithm, key, SALT, block).expect("a key where one belongs");
    let mut tags = vec![0; data.len() / block.bytes() * tagger.tag_bytes()];
    let (ours, peer) = pair(
        || tagger.tags(FIRST_SECTOR, black_box(&data), &mut tags),
        || data.chunks_exact(block.bytes()).for_each(&bare),
    );
    rate_row(format!("{algorithm} tags {block}"), data.len(), ours, peer_name, Some(peer))
}

/// Tags of zero blocks, beside reading the zeros.
fn zero_tags() -> Row {
    let block = BlockSize::B512;
    let tagger = BlockTagger::new(Algorithm::Crc32c, None, SALT, block).expect("it takes no key");
    let zeros = ZeroTags::new(&tagger);
    let mut tags = vec![0; REQUEST_BYTES];
    let data = vec![0; REQUEST_BYTES];
    let mut few = vec![0; REQUEST_BYTES / block.bytes() * tagger.tag_bytes()];
    let (ours, peer) = pair(
        || zeros.fill(FIRST_SECTOR, black_box(&mut tags)),
        || tagger.tags(FIRST_SECTOR, &data, black_box(&mut few)),
    );
    let ours = millions(tags.len() / tagger.tag_bytes()) / ours;
    let peer = millions(few.len() / tagger.tag_bytes()) / peer;
    Row::new("tags of zero blocks 512", ours, ("the zeros tagged", Some(peer)), "Mtags/s")
}

/// P, P+Q and the recovery of two data strips, over `stripe_count` stripes in turn.
fn parity(data_count: usize, stripe_count: usize, place: &str) -> [Row; 3] {
    let stripes: Vec<Stripe> = (0..stripe_count).map(|_| Stripe::new(data_count)).collect();
    let next = cycle(&stripes);
    let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| Pages::new(STRIP_BYTES));
    let [a, b, c, d] = [&mut a, &mut b, &mut c, &mut d].map(Pages::bytes_mut);
    let decoder = isal::Decoder::new(data_count, [0, data_count - 1]);

    let p = beside_isal(|| gf::p(&next().data(), a), || isal::xor_gen(&next().data(), c));
    let pq = beside_isal(|| gf::pq(&next().data(), a, b), || isal::pq_gen(&next().data(), c, d));
    let two = beside_isal(
        || next().recover_first_and_last(a, b),
        || decoder.decode(&next().all_but_first_and_last(), c, d),
    );
    let row = |what: &str, parity_count: usize, (ours, peer): (f64, Option<f64>)| {
        let name = format!("{what} {data_count}+{parity_count} {place}");
        rate_row(name, data_count * STRIP_BYTES, ours, "libisal", peer)
    };
    [row("P", 1, p), row("P+Q", 2, pq), row("two data strips of", 2, two)]
}

/// Parity compared, as a scrub does it, over `stripe_count` stripes in turn; GB/s of all strips.
fn checks(data_count: usize, stripe_count: usize) -> [Row; 2] {
    let stripes: Vec<Stripe> = (0..stripe_count).map(|_| Stripe::new(data_count)).collect();
    let next = cycle(&stripes);
    let p =
        beside_isal(|| assert!(next().p_agrees()), || assert!(isal::xor_check(&next().with_p())));
    let pq = beside_isal(|| assert!(next().agrees()), || assert!(isal::pq_check(&next().all())));
    let row = |what: &str, parity_count: usize, (ours, peer): (f64, Option<f64>)| {
        let name = format!("{what} {data_count}+{parity_count} checked in memory");
        rate_row(name, (data_count + parity_count) * STRIP_BYTES, ours, "libisal", peer)
    };
    [row("P", 1, p), row("P+Q", 2, pq)]
}

/// Median seconds of ours and, where it is linked, of libisal.
fn beside_isal(ours: impl FnMut(), peer: impl FnMut()) -> (f64, Option<f64>) {
    let (ours, peer) = pair(ours, peer);
    (ours, isal::PRESENT.then_some(peer))
}

fn rate_row(
    name: String,
    bytes: usize,
    ours: f64,
    peer_name: &'static str,
    peer: Option<f64>,
) -> Row {
    let rate = |seconds| millions(bytes) / seconds / 1000.0;
    Row::new(name, rate(ours), (peer_name, peer.map(rate)), "GB/s")
}

fn millions(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a round's worth fits in 32 bits")) / 1e6
}

/// Stripes one after the other, for ever.
fn cycle<'a, T>(stripes: &'a [T]) -> impl Fn() -> &'a T {
    let turn = Cell::new(0);
    move || {
        turn.set((turn.get() + 1) % stripes.len());
        &stripes[turn.get()]
    }
}

/// Data strips with their true parity.
struct Stripe {
    data: Vec<Pages>,
    p: Pages,
    q: Pages,
}

impl Stripe {
    fn new(data_count: usize) -> Self {
        let data = (0..data_count).map(|_| Pages::new(STRIP_BYTES)).collect();
        let mut stripe = Self { data, p: Pages::new(STRIP_BYTES), q: Pages::new(STRIP_BYTES) };
        for (i, strip) in stripe.data.iter_mut().enumerate() {
            strip.bytes_mut().copy_from_slice(&noise(STRIP_BYTES + i)[i..]);
        }
        let data: Vec<&[u8]> = stripe.data.iter().map(Pages::bytes).collect();
        gf::pq(&data, stripe.p.bytes_mut(), stripe.q.bytes_mut());
        stripe
    }

    fn data(&self) -> Vec<&[u8]> {
        self.data.iter().map(Pages::bytes).collect()
    }

    fn with_p(&self) -> Vec<&[u8]> {
        self.data.iter().chain([&self.p]).map(Pages::bytes).collect()
    }

    fn all(&self) -> Vec<&[u8]> {
        self.data.iter().chain([&self.p, &self.q]).map(Pages::bytes).collect()
    }

    fn p_agrees(&self) -> bool {
        gf::agree(&self.data(), self.p.bytes(), None)
    }

    fn agrees(&self) -> bool {
        gf::agree(&self.data(), self.p.bytes(), Some(self.q.bytes()))
    }

    fn all_but_first_and_last(&self) -> Vec<&[u8]> {
        let known = &self.data[1..self.data.len() - 1];
        known.iter().chain([&self.p, &self.q]).map(Pages::bytes).collect()
    }

    fn recover_first_and_last(&self, first: &mut [u8], last: &mut [u8]) {
        let mut data: Vec<Strip<'_>> = self.data.iter().map(known).collect();
        let end = data.len() - 1;
        data[0] = Strip::Wanted(first);
        data[end] = Strip::Wanted(last);
        gf::recover(&mut data, known(&self.p), known(&self.q))
            .expect("two are lost, two are known");
    }
}

fn known(strip: &Pages) -> Strip<'_> {
    Strip::Known(strip.bytes())
}

/// Bytes without pattern, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [.., high] = state.to_le_bytes();
        high
    };
    (0..length).map(|_| next()).collect()
}

/// Data to go through in turn so that none of it is still in a cache.
const BEYOND_CACHES_BYTES: usize = 256 << 20;
const CRC_FAST: &str = "crc-fast";
const FIRST_SECTOR: u64 = 1 << 33;
const REQUEST_BYTES: usize = 256 << 10;
const SALT: Option<[u8; 16]> = Some([0x5A; 16]);
const STRIP_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_right() {
        let stripe = Stripe::new(4);
        let [mut x, mut y] = [Pages::new(STRIP_BYTES), Pages::new(STRIP_BYTES)];
        stripe.recover_first_and_last(x.bytes_mut(), y.bytes_mut());
        assert!(x.bytes() == stripe.data[0].bytes() && y.bytes() == stripe.data[3].bytes());
        assert!(stripe.p_agrees() && stripe.agrees());
    }

    #[cfg(feature = "isal")]
    #[test]
    fn libisal_makes_and_recovers_the_same_strips() {
        for data_count in [2, 3, 4, 8, 17] {
            let stripe = Stripe::new(data_count);
            let [mut x, mut y] = [Pages::new(STRIP_BYTES), Pages::new(STRIP_BYTES)];
            let (x, y) = (x.bytes_mut(), y.bytes_mut());
            assert!(isal::xor_check(&stripe.with_p()) && isal::pq_check(&stripe.all()));
            isal::pq_gen(&stripe.data(), x, y);
            assert!(*x == *stripe.p.bytes() && *y == *stripe.q.bytes());
            x.fill(0);
            isal::xor_gen(&stripe.data(), x);
            assert!(*x == *stripe.p.bytes());
            let decoder = isal::Decoder::new(data_count, [0, data_count - 1]);
            decoder.decode(&stripe.all_but_first_and_last(), x, y);
            assert!(*x == *stripe.data[0].bytes());
            assert!(*y == *stripe.data[data_count - 1].bytes());
        }
    }
}
