//! The checksum of IP: a ones' complement sum of 16-bit words (RFC 1071).
//!
//! The sum does not depend on byte order: words are summed as they are read, and the bytes of the result
//! stand as they would have. Sums here are of big-endian words, so that the number is the one that
//! tuples store big-endian.

/// Adds `data`, which starts at an even byte of the interval, to `sum` (unfolded); a last odd byte counts
/// as if a zero byte followed.
pub(crate) fn feed(sum: u64, data: &[u8]) -> u64 {
    // 32-bit words carry their own two 16-bit halves: folded, the sum is the same.
    let (words, rest) = data.as_chunks::<4>();
    let mut sum = fold(sum);
    for run in words.chunks(WORDS_MAX) {
        let wide: u64 = run.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
        sum = fold(sum + fold(wide));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    fold(sum + fold(u64::from(u32::from_be_bytes(last))))
}

/// The sum in 16 bits, carries added back.
pub(crate) const fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// The sum of the same bytes, had they started at an odd one.
pub(crate) const fn swapped(sum: u64) -> u64 {
    let sum = fold(sum);
    (sum << 8 | sum >> 8) & 0xffff
}

/// What 64 bits hold the sum of without a carry.
const WORDS_MAX: usize = 1 << 30;
