//! What is written, and what must therefore be read.
//!
//! Every word of the pattern is different, so nothing that lands in the wrong place goes unseen.
//! A generation is the pattern shifted by a mebibyte: later writes differ from earlier ones.

use anyhow::{bail, ensure};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Sectors from a place in the volume on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) generation: u64,
    pub(crate) sector: u64,
    pub(crate) sectors: u64,
}

impl Write {
    /// What it writes.
    pub(crate) fn bytes(self) -> Vec<u8> {
        pattern(self.sector + self.generation * GENERATION_SECTORS, self.sectors)
    }

    /// The guest's command for it.
    pub(crate) fn command(self, device: &str) -> String {
        format!("put {device} {} {} {}\n", self.generation, self.sector, self.sectors)
    }
}

/// The pattern itself: word `i` is a mix of `i`.
pub(crate) fn pattern(sector: u64, sectors: u64) -> Vec<u8> {
    let words = sector * SECTOR / 8..(sector + sectors) * SECTOR / 8;
    words.flat_map(|index| mix(index).to_le_bytes()).collect()
}

/// The end of SplitMix64, which gives different words for different numbers.
fn mix(index: u64) -> u64 {
    let mut word = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Writes all over a volume of `sectors`: its ends, runs that cross a stripe and a run of tags,
/// pieces over older pieces, and holes between. With `block` sectors to a block, all are whole.
pub(crate) fn scattered(sectors: u64, block: u64, generation: u64) -> Vec<Write> {
    let odd = if block == 1 { 3 } else { 0 };
    let pieces = [
        (0, 64),
        (1024 + odd, 264),
        (4096, 3000),
        (4160 + odd, 40 + odd),
        (6000, 2048),
        (16384 - 128, 512),
        (32768 - 8, 16),
        (sectors / 16 * 8, 800),
        (sectors - 136, 136),
    ];
    let mut writes = Vec::new();
    for (index, (sector, length)) in (0..).zip(pieces) {
        // Later generations lie beside earlier ones, over them and into the holes.
        let sector = sector + generation * 24;
        let length = length.min(sectors.saturating_sub(sector));
        if length > 0 {
            writes.push(Write { generation: generation + index % 2, sector, sectors: length });
        }
    }
    writes
}

/// The content of a volume as it must be.
#[derive(Clone)]
pub(crate) struct Content {
    bytes: Vec<u8>,
}

impl Content {
    /// Zeroes.
    pub(crate) fn new(sectors: u64) -> Self {
        Self { bytes: vec![0; index(sectors * SECTOR)] }
    }

    /// What these writes give, from the beginning to the end of the last.
    pub(crate) fn of(writes: &[Write]) -> Self {
        let end = writes.iter().map(|write| write.sector + write.sectors).max().unwrap_or(0);
        let mut content = Self::new(end);
        content.apply(writes);
        content
    }

    pub(crate) fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            let begin = index(write.sector * SECTOR);
            let bytes = write.bytes();
            self.bytes[begin..begin + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Cut, or followed by zeroes.
    pub(crate) fn resize(&mut self, sectors: u64) {
        self.bytes.resize(index(sectors * SECTOR), 0);
    }

    pub(crate) fn sectors(&self) -> u64 {
        u64::try_from(self.bytes.len()).expect("a length") / SECTOR
    }

    /// Zeroes again.
    pub(crate) fn clear(&mut self, sector: u64, sectors: u64) {
        self.bytes[index(sector * SECTOR)..index((sector + sectors) * SECTOR)].fill(0);
    }

    /// Some of its bytes.
    pub(crate) fn piece(&self, sector: u64, sectors: u64) -> &[u8] {
        &self.bytes[index(sector * SECTOR)..index((sector + sectors) * SECTOR)]
    }

    pub(crate) fn sha256(&self) -> String {
        Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// # Errors
    /// If `found` is anything else; names the first sector that is.
    pub(crate) fn must_be(&self, found: &[u8], what: &str) -> anyhow::Result<()> {
        self.or_must_be(self, found, what)
    }

    /// # Errors
    /// If a sector of `found` is neither as here nor as in `newer`.
    pub(crate) fn or_must_be(&self, newer: &Self, found: &[u8], what: &str) -> anyhow::Result<()> {
        ensure!(
            found.len() == self.bytes.len(),
            "{what}: {} bytes, expected {}",
            found.len(),
            self.bytes.len()
        );
        let sectors = |bytes| <[u8]>::chunks(bytes, index(SECTOR));
        let both = sectors(&self.bytes).zip(sectors(&newer.bytes));
        for (sector, (found, (old, new))) in sectors(found).zip(both).enumerate() {
            if found != old && found != new {
                bail!("{what}: sector {sector} is {}, expected {}", shown(found), shown(old));
            }
        }
        Ok(())
    }
}

/// What was read, and what could not be.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) bytes: Vec<u8>,
    /// Sectors; of `bytes`, what lies there means nothing.
    pub(crate) unreadable: BTreeSet<u64>,
}

impl Found {
    /// # Errors
    /// If a sector that could be read is neither as in `old` nor as in `new`.
    pub(crate) fn must_be(&self, old: &Content, new: &Content, what: &str) -> anyhow::Result<()> {
        let mut bytes = self.bytes.clone();
        for sector in &self.unreadable {
            let begin = index(sector * SECTOR);
            let sector = begin..begin + index(SECTOR);
            bytes[sector.clone()].copy_from_slice(&old.bytes[sector]);
        }
        old.or_must_be(new, &bytes, what)
    }

    /// # Errors
    /// If other sectors cannot be read.
    pub(crate) fn must_lack(&self, sectors: &BTreeSet<u64>, who: &str) -> anyhow::Result<()> {
        let (missing, found) = (sectors, &self.unreadable);
        if missing == found {
            return Ok(());
        }
        let few = |set: Vec<&u64>| format!("{} ({:?})", set.len(), &set[..set.len().min(9)]);
        let more = few(found.difference(missing).collect());
        let less = few(missing.difference(found).collect());
        bail!(
            "{who}: sectors that it should but cannot read: {more}; that it can and should not: {less}"
        )
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

/// The beginning of a sector.
fn shown(sector: &[u8]) -> String {
    let hex: String = sector.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let zero = if sector.iter().all(|byte| *byte == 0) { " (all zero)" } else { "" };
    format!("{hex}..{zero}")
}

/// A length in memory.
pub(crate) fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("volumes here fit into memory")
}

/// Bytes of a sector.
pub(crate) const SECTOR: u64 = 512;
const GENERATION_SECTORS: u64 = 2048;
/// The largest volume here, and the generations that are written to it.
pub(crate) const VOLUME_SECTORS_MAX: u64 = 64 << 11;
pub(crate) const PATTERN_SECTORS: u64 = VOLUME_SECTORS_MAX + 32 * GENERATION_SECTORS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_writes_cover_earlier_ones() {
        let mut content = Content::new(16);
        let write = |generation, sector| Write { generation, sector, sectors: 8 };
        content.apply(&[write(0, 0), write(1, 4)]);
        let bytes = content.bytes.clone();
        assert_eq!(bytes[..2048], pattern(0, 4));
        assert_eq!(bytes[2048..6144], pattern(4 + 2048, 8));
        assert!(bytes[6144..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_sector_that_is_neither_old_nor_new_is_named() {
        let old = Content::new(8);
        let mut new = old.clone();
        new.apply(&[Write { generation: 0, sector: 2, sectors: 2 }]);
        let mut found = old.bytes.clone();
        found[1024..1536].copy_from_slice(&new.bytes[1024..1536]);
        assert!(old.or_must_be(&new, &found, "it").is_ok());
        assert!(old.must_be(&found, "it").unwrap_err().to_string().contains("sector 2"));
        found[3 * 512] = 9;
        let error = old.or_must_be(&new, &found, "it").unwrap_err().to_string();
        assert!(error.contains("sector 3"), "{error}");
    }

    #[test]
    fn scattered_writes_are_whole_blocks_within_the_volume() {
        for (sectors, block) in [(30_768, 8), (45_000, 8), (32_328, 1), (98_304, 8)] {
            for generation in 0..4 {
                for write in scattered(sectors, block, generation) {
                    assert!(write.sector + write.sectors <= sectors, "{write:?}");
                    assert_eq!(write.sector % block + write.sectors % block, 0, "{write:?}");
                }
            }
        }
    }
}
