//! The simulator's dice: xoshiro256**, seeded by splitmix64, both as published by Blackman and Vigna
//! (2018, public domain). They live here so that a seed means the same history for ever.

/// One step of splitmix64: also a good mixer of two numbers.
#[must_use]
pub const fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_add(b.wrapping_mul(GOLDEN)).wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Mixes `bytes` into `hash`, in four lanes of eight bytes. Not cryptographic: it tells traces apart.
#[must_use]
pub fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let mut lanes = [hash, !hash, hash ^ GOLDEN, hash.rotate_left(32)];
    let mut rows = bytes.chunks_exact(32);
    for row in &mut rows {
        for (lane, word) in lanes.iter_mut().zip(row.as_chunks::<8>().0) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(0x9fb2_1c65_1e98_df25);
            *lane ^= *lane >> 32;
        }
    }
    let rest = rows.remainder().iter().fold(1, |rest, &byte| mix(rest, u64::from(byte)));
    let lanes = lanes.into_iter().fold(units::u64_of(bytes.len()), mix);
    mix(lanes, rest)
}

/// A stream of numbers that its seed determines.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: [mix(seed, 0), mix(seed, 1), mix(seed, 2), mix(seed, 3)] }
    }

    /// An independent stream for the purpose `label`.
    #[must_use]
    pub const fn derived(seed: u64, label: u64) -> Self {
        Self::new(mix(seed, mix(0x5eed, label)))
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// A number below `bound`, which is not zero. (The high half of a 128-bit product: the bias is
    /// below 2^-32 for every bound used here.)
    pub const fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a choice among none");
        let high = self.next_u64() >> 32;
        if bound <= 1 << 32 { (high * bound) >> 32 } else { self.next_u64() % bound }
    }

    /// An index into something of `length` elements, at least one.
    pub const fn index(&mut self, length: usize) -> usize {
        units::usize_of(self.below(units::u64_of(length)))
    }

    /// True in `percent` of a hundred cases.
    pub const fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`, at least one.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(last + 1);
            items.swap(last, other);
        }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    /// `mix(0, n)` is the published splitmix64 stream of seed 0.
    #[test]
    fn the_mixer_is_splitmix64() {
        let stream: Vec<u64> = (0..3).map(|n| mix(0, n)).collect();
        assert_eq!(stream, [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f]);
    }

    /// The reference implementation, state 1 2 3 4.
    #[test]
    fn the_stream_is_xoshiro256_starstar() {
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let stream: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(stream, [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240]);
    }

    #[test]
    fn choices_cover_their_range() {
        let mut rng = Rng::new(7);
        let mut seen = [0u32; 5];
        for _ in 0..1000 {
            seen[rng.index(5)] += 1;
        }
        assert!(seen.iter().all(|&n| n > 120), "{seen:?}");
    }
}
