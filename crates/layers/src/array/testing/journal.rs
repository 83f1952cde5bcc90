//! Arrays with a write journal, on the last of their disks.

use super::{DATA_OFFSET, DEVICE_SECTORS, Rig, image, superblocks};
use crate::linear::Linear;
use crate::raid456::Journal;
use bio::Device;
use md::create::{LEFT_SYMMETRIC, NewMember, join};
use md::geometry::Geometry;
use md::journal::{Ring, Scan, Seed};
use md::superblock::{Level, Uuid};
use units::{SECTOR, SECTOR_BYTES, Sector, u64_of, usize_of};

/// The ring of the journal, in sectors: 32 blocks.
pub(crate) const RING_SECTORS: u64 = DEVICE_SECTORS - DATA_OFFSET;

impl Rig {
    /// A new, clean array of so many all-zero members, and one disk more that is its blank journal.
    pub(crate) fn with_journal(level: Level, count: u8, tagged: bool) -> Self {
        let mut all = superblocks(level, LEFT_SYMMETRIC, count, DEVICE_SECTORS, DATA_OFFSET);
        let number = u32::from(count);
        let new = NewMember { device_sectors: DEVICE_SECTORS, device_uuid: Uuid([0x4A; 16]) };
        all.push(join(&all[0], &new, Some(number)).unwrap());
        all.iter_mut().for_each(|own| own.set_journal(number));
        all[usize::from(count)].set_journal_tail(0);
        let images = all.iter().map(|superblock| image(superblock, DEVICE_SECTORS));
        Self::of_images(images.collect(), tagged)
    }

    /// What the journal on the last disk holds, for an array of this shape.
    pub(crate) fn journal(&self, geometry: Geometry, member_sectors: u64) -> Journal {
        let disk = self.disks.len() - 1;
        let superblock = self.superblock(disk);
        let (tail, offset) = (superblock.journal_tail().unwrap(), superblock.data_offset());
        let (length, seed) = (Ring::new(RING_SECTORS), Seed::of(superblock.set_uuid()));
        let mut scan = Scan::new(seed, length, tail, (geometry, member_sectors));
        while let Some(wanted) = scan.wanted() {
            let sectors = length.ranges(wanted).flatten();
            let bytes = sectors.flat_map(|sector| self.disks[disk].sector(offset.0 + sector));
            scan.feed(Some(&bytes.collect::<Vec<u8>>()));
        }
        let ring = Linear::new(self.disks[disk].device(), offset, RING_SECTORS).unwrap();
        Journal { ring: Device::new(ring), length, seed, tail, found: scan.finish() }
    }

    /// Puts bytes into the ring, and its tail somewhere.
    pub(crate) fn put_in_journal(&self, at: Sector, bytes: &[u8], tail: u64) {
        let disk = self.disks.len() - 1;
        let mut superblock = self.superblock(disk);
        let sectors = u64_of(bytes.len() / SECTOR_BYTES);
        assert!(at.0 + sectors <= RING_SECTORS);
        let from = usize_of((superblock.data_offset().0 + at.0) * SECTOR);
        superblock.set_journal_tail(tail);
        let mut all = self.disks[disk].bytes.borrow_mut();
        all[from..from + bytes.len()].copy_from_slice(bytes);
        all[4096..8192].copy_from_slice(&superblock.encode());
    }
}
