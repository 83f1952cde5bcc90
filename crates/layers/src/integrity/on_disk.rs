//! Which blocks the journal names as it lies on the disk, home or not: replay after a crash may write
//! them home once more.

use super::log::SectorHasher;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// The blocks of every section. No more of them than the journal has entries.
#[derive(Default)]
pub(super) struct OnDisk {
    sections: HashMap<u32, Box<[u64]>>,
    /// How many entries name a block.
    counts: HashMap<u64, u32, BuildHasherDefault<SectorHasher>>,
}

impl OnDisk {
    /// Whether some section names the block at `sector`.
    pub fn names(&self, sector: u64) -> bool {
        self.counts.contains_key(&sector)
    }

    /// Section `number` names `sectors` from now on, and nothing else.
    pub fn replace(&mut self, number: u32, sectors: Box<[u64]>) {
        for &sector in &sectors {
            *self.counts.entry(sector).or_default() += 1;
        }
        for sector in self.sections.insert(number, sectors).into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&sector) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&sector);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_named_until_the_last_section_that_does_is_overwritten() {
        let mut all = OnDisk::default();
        all.replace(0, Box::new([8, 8, 16]));
        all.replace(1, Box::new([16]));
        all.replace(0, Box::new([24]));
        assert_eq!([8, 16, 24].map(|sector| all.names(sector)), [false, true, true]);
        all.replace(1, Box::new([]));
        assert!(!all.names(16));
    }
}
