//! Where the blocks of a scenario's volume lie on its disks.

use super::tagged::Tagged;
use crate::atlas::Atlas;
use md::shape::Shape;
use std::ops::Range;
use units::{SECTOR, Sector, u64_of};

/// The members of an array, all alike, or the disk of a single volume.
pub(super) struct Members {
    pub(super) count: usize,
    /// Sectors of each disk.
    pub(super) sectors: u64,
    pub(super) tagged: Option<Tagged>,
    /// Where the array's data begins on each member.
    pub(super) data_offset: u64,
    /// Sectors of the array's block, if that is larger than the members' own.
    pub(super) block_min: u64,
}

impl Members {
    /// Sectors of a member, without what its tags take.
    pub(super) fn inner_sectors(&self) -> u64 {
        self.tagged.map_or(self.sectors, |kind| kind.layout(self.sectors).provided_sectors)
    }

    fn block(&self) -> u64 {
        self.tagged.map_or(1, |kind| kind.block.sectors()).max(self.block_min)
    }

    /// Where on its disk a block lies, with its tag, that is at `sector` of a member's data.
    fn lies(&self, sector: u64) -> Vec<Range<u64>> {
        let (inner, block) = (self.data_offset + sector, self.block());
        let Some(kind) = self.tagged else { return vec![inner..inner + block] };
        let layout = kind.layout(self.sectors);
        let run = layout.run(Sector(inner), block);
        // As many tags as the block has blocks of the member; they lie in one run.
        let tags = u64_of(layout.tag_bytes) * (block / kind.block.sectors());
        let data = run.data.0..run.data.0 + block;
        if layout.inline {
            return vec![data];
        }
        let tag_end = run.tag_byte + tags;
        vec![data, run.tag_byte / SECTOR..tag_end.div_ceil(SECTOR)]
    }

    fn lay(&self, atlas: &mut Atlas, disk: usize, sector: u64, row: u64) {
        self.lies(sector).into_iter().for_each(|sectors| atlas.lay(disk, sectors, row));
    }

    /// Of a single volume on disks with blocks of `unit` sectors.
    pub(super) fn alone(&self, unit: u64) -> Atlas {
        let mut atlas = Atlas::new(1, unit, None);
        for row in 0..self.inner_sectors() / self.block() {
            self.lay(&mut atlas, 0, row * self.block(), row);
            atlas.house(row, [0]);
        }
        atlas
    }

    /// Of an array of that shape.
    pub(super) fn array(&self, shape: &Shape) -> Atlas {
        let (block, sectors) = (self.block(), shape.array_sectors().expect("it is small"));
        let blocks = (0..sectors / block).map(|index| (index, Sector(index * block)));
        if let Shape::Parity(geometry, size) = shape {
            let parity = geometry.level().parity_count();
            let mut atlas = Atlas::new(self.count, 1, Some(parity));
            for row in 0..size / block {
                (0..self.count).for_each(|disk| self.lay(&mut atlas, disk, row * block, row));
            }
            for (_, sector) in blocks {
                let place = geometry.locate(sector);
                atlas.house(place.member_sector.0 / block, [place.slot]);
            }
            return atlas;
        }
        let mut atlas = Atlas::new(self.count, 1, None);
        for (row, sector) in blocks {
            let spots = self.copies(shape, sector);
            spots.iter().for_each(|&(disk, own)| self.lay(&mut atlas, disk, own, row));
            atlas.house(row, spots.into_iter().map(|(disk, _)| disk));
        }
        atlas
    }

    /// Slot and member sector of every copy.
    fn copies(&self, shape: &Shape, sector: Sector) -> Vec<(usize, u64)> {
        match shape {
            Shape::Stripes(stripes) => {
                let run = stripes.locate(sector);
                vec![(run.slot, run.member_sector.0)]
            }
            Shape::Mirror { raid_disks, .. } => (0..*raid_disks).map(|s| (s, sector.0)).collect(),
            Shape::Mirrors(mirrors) => {
                let spots = (0..mirrors.copies()).map(|copy| mirrors.locate(sector, copy));
                spots.map(|spot| (spot.slot, spot.member_sector.0)).collect()
            }
            Shape::Parity(..) => unreachable!("it has no copies"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::all;

    #[test]
    fn every_atlas_has_the_blocks_that_its_volume_has() {
        let scenarios = all();
        let mapped: Vec<_> = scenarios.iter().filter(|scenario| scenario.atlas.is_some()).collect();
        assert!(mapped.len() > 40, "{}", mapped.len());
        for scenario in mapped {
            let atlas = scenario.atlas.as_ref().map(|atlas| atlas.blocks());
            assert_eq!(atlas, Some(scenario.made().blocks), "{}", scenario.name);
        }
    }
}
