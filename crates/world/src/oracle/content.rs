//! What a block holds: its own name and version, and noise that follows from them, so that whatever lies in a
//! place tells what it is. An odd version, and the one before any, is zeroes.

use crate::rng::mix;
use units::SECTOR_BYTES;

/// Whether `bytes` are a version of `block`.
pub(super) fn is(seed: u64, block: u64, version: u64, bytes: &[u8]) -> bool {
    if version == 0 || version & 1 == 1 {
        return bytes.iter().all(|&byte| byte == 0);
    }
    let mut words = Words::new(seed, block, version);
    bytes.chunks_exact(8).all(|chunk| chunk == words.next_word())
}

/// Whether every sector of `bytes` is that of one of the `versions` of `block`.
pub(super) fn is_mixed(seed: u64, block: u64, versions: &[u64], bytes: &[u8]) -> bool {
    let content = |&version: &u64| {
        let mut content = vec![0; bytes.len()];
        if version > 0 && version & 1 == 0 {
            fill(seed, block, version, &mut content);
        }
        content
    };
    let all: Vec<Vec<u8>> = versions.iter().map(content).collect();
    let mut sectors = (0..bytes.len()).step_by(SECTOR_BYTES);
    sectors.all(|at| {
        let sector = at..(at + SECTOR_BYTES).min(bytes.len());
        all.iter().any(|one| one[sector.clone()] == bytes[sector.clone()])
    })
}

/// Makes `bytes` a version of `block`.
pub(super) fn fill(seed: u64, block: u64, version: u64, bytes: &mut [u8]) {
    let mut words = Words::new(seed, block, version);
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&words.next_word());
    }
}

/// What these bytes are, in words.
pub(super) fn describe(seed: u64, bytes: &[u8]) -> String {
    let word = |at: usize| {
        let bytes = bytes.get(at * 8..at * 8 + 8).unwrap_or(&[0; 8]);
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    if bytes.iter().all(|&byte| byte == 0) {
        return "zeroes".into();
    }
    if word(0) != MAGIC ^ seed {
        return format!("bytes that nobody wrote ({:016x} ...)", word(0));
    }
    let (block, version) = (word(1), word(2));
    if is(seed, block, version, bytes) {
        return format!("version {version} of block {block}");
    }
    let mut words = Words::new(seed, block, version);
    let differs = bytes.chunks_exact(8).position(|chunk| chunk != words.next_word());
    format!("version {version} of block {block}, other bytes from {}", differs.unwrap_or(0) * 8)
}

/// The words of a block: magic, block, version, then noise that follows from them.
struct Words {
    header: [u64; 3],
    at: usize,
    noise: u64,
}

impl Words {
    fn new(seed: u64, block: u64, version: u64) -> Self {
        Self {
            header: [MAGIC ^ seed, block, version],
            at: 0,
            noise: mix(seed ^ block << 32, version),
        }
    }

    fn next_word(&mut self) -> [u8; 8] {
        let word = match self.header.get(self.at) {
            Some(&word) => word,
            None => {
                self.noise = self.noise.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ 0x55;
                self.noise
            }
        };
        self.at += 1;
        word.to_le_bytes()
    }
}

const MAGIC: u64 = u64::from_le_bytes(*b"STEADFST");
