//! Journal sections: entries in front, their data behind, a commit id at the end of every sector.
//!
//! ```text
//!   one section
//!   | metadata 0 | ... | metadata 7 | data of entry 0 | data of entry 1 | ...
//!
//!   metadata sector m:  entry m | entry m+8 | entry m+16 | ...   | MAC slice |  commit id
//!                       bytes 0..                                 496         504      512
//!   data sector:        the first 504 bytes of the block's sector            |  commit id
//!
//!   entry:  LE64 sector | last 8 bytes of each data sector | tag | zero to a multiple of 8
//! ```
//!
//! A section whose sectors all carry the id of one sequence was written whole. That is the only
//! proof there is: the ids are no checksum. Each entry's tag vouches for its data.
//!
//! (Specification, sections 6.1 and 6.2. The MAC slice belongs to the entries' room where no
//! journal MAC is used.)

use crate::layout::{JournalLayout, SECTION_METADATA_SECTORS};
use crate::replay::SectionSummary;
use units::{SECTOR_BYTES, u64_of, usize_of};

/// Bytes of a journal sector before its commit id.
const BODY_BYTES: usize = 504;
/// Upper half of an unused entry's sector number.
const UNUSED: u64 = 0xffff_ffff;

/// The ids that say in which lap a journal sector was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CommitIds([u64; 4]);

impl CommitIds {
    /// The ids of a journal that is not encrypted.
    pub const PLAIN: Self = Self([
        0x1111_1111_1111_1111,
        0x2222_2222_2222_2222,
        0x3333_3333_3333_3333,
        0x4444_4444_4444_4444,
    ]);

    /// Other base ids (those of an encrypted journal), made distinct as the kernel does: the later
    /// of two equal ones counts up.
    #[must_use]
    pub fn new(bases: [u64; 4]) -> Self {
        let mut ids = bases;
        for later in 1..4 {
            while ids[..later].contains(&ids[later]) {
                ids[later] = ids[later].wrapping_add(1);
            }
        }
        Self(ids)
    }

    /// The ids that become of these when `change` was applied to their bytes on disk.
    pub(crate) fn changed(self, change: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut bytes = [0; 32];
        for (bytes, id) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *bytes = id.to_le_bytes();
        }
        change(&mut bytes);
        let mut ids = [0; 4];
        for (id, bytes) in ids.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *id = u64::from_le_bytes(*bytes);
        }
        Self::new(ids)
    }

    /// The id of sector `sector` of section `section`, written in lap `sequence`.
    #[must_use]
    pub fn id(&self, section: u32, sector: u64, sequence: Sequence) -> u64 {
        self.0[usize::from(sequence.0)] ^ (u64::from(section) << 32) ^ sector
    }

    /// The lap that a found id stands for, if any.
    #[must_use]
    pub fn sequence(&self, section: u32, sector: u64, found: u64) -> Option<Sequence> {
        Sequence::ALL.into_iter().find(|&sequence| self.id(section, sector, sequence) == found)
    }
}

/// What the commit ids of one section, written in one lap, are made from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// The journal's base ids.
    pub ids: CommitIds,
    /// The section.
    pub section: u32,
    /// The lap.
    pub sequence: Sequence,
}

impl Stamp {
    fn put(&self, sector: &mut [u8], index: u64) {
        put(sector, BODY_BYTES, self.ids.id(self.section, index, self.sequence));
    }
}

/// The lap of the journal, modulo four.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
pub struct Sequence(u8);

impl Sequence {
    /// All four.
    pub const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];
    /// The lap with which a new journal is initialised.
    pub const FIRST: Self = Self(0);

    /// The lap `laps` later.
    #[must_use]
    pub const fn plus(self, laps: u8) -> Self {
        Self((self.0 + laps % 4) % 4)
    }

    /// The lap `laps` earlier.
    #[must_use]
    pub const fn minus(self, laps: u8) -> Self {
        self.plus(4 - laps % 4)
    }

    /// Its number, 0 to 3.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.0
    }

    /// Its bit in a set of sequences.
    #[must_use]
    pub const fn bit(self) -> u8 {
        1 << self.0
    }
}

/// What the sector field of an entry says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntrySector {
    /// Nothing is stored in this entry.
    Unused,
    /// The block that starts here. To be believed only after comparing with the provided sectors
    /// and the block size.
    Used(u64),
}

impl JournalLayout {
    /// Bytes of one section.
    #[must_use]
    pub fn section_bytes(&self) -> usize {
        usize_of(self.section_sectors) * SECTOR_BYTES
    }

    /// Where entry `entry` starts in its section, in bytes.
    fn entry_offset(&self, entry: u32) -> usize {
        debug_assert!(entry < self.entries_per_section);
        let (sector, row) = (entry % 8, entry / 8);
        usize_of(u64::from(sector)) * SECTOR_BYTES + usize_of(u64::from(row)) * self.entry_bytes
    }

    /// First byte of an entry's data in its section. (The block is not contiguous: every sector of
    /// it lends its last 8 bytes to the commit id; see [`Self::read_data`].)
    #[must_use]
    pub fn data_offset(&self, entry: u32) -> usize {
        usize_of(self.data_sector(entry)) * SECTOR_BYTES
    }

    /// A whole new section: every entry unused, no commit ids yet.
    ///
    /// # Panics
    /// If `section` is not one section long, as in all functions here.
    pub fn initialise(&self, section: &mut [u8]) {
        self.assert_length(section);
        section.fill(0);
        self.clear_entries(section);
    }

    /// Makes every entry of a section unused, without touching the data behind: what a writer does
    /// to reused memory.
    pub fn clear_entries(&self, section: &mut [u8]) {
        self.assert_length(section);
        section[..usize_of(SECTION_METADATA_SECTORS) * SECTOR_BYTES].fill(0);
        for entry in 0..self.entries_per_section {
            put(section, self.entry_offset(entry), UNUSED << 32);
        }
    }

    /// The block that entry `entry` holds.
    #[must_use]
    pub fn entry_sector(&self, section: &[u8], entry: u32) -> EntrySector {
        let sector = get(section, self.entry_offset(entry));
        if sector >> 32 == UNUSED { EntrySector::Unused } else { EntrySector::Used(sector) }
    }

    /// The sector field of entry `entry` as it lies there: what a section's MAC covers.
    pub(crate) fn entry_sector_bytes<'a>(&self, section: &'a [u8], entry: u32) -> &'a [u8] {
        self.assert_length(section);
        &section[self.entry_offset(entry)..][..8]
    }

    /// All bytes of entry `entry`.
    pub(crate) fn entry_header<'a>(&self, section: &'a [u8], entry: u32) -> &'a [u8] {
        &section[self.entry_offset(entry)..][..self.entry_bytes]
    }

    /// The lap of the sector that holds entry `entry` of section number `number`; none if its commit id
    /// is of no lap.
    #[must_use]
    pub fn entry_lap(
        &self,
        section: &[u8],
        number: u32,
        entry: u32,
        ids: &CommitIds,
    ) -> Option<Sequence> {
        let sector = self.entry_offset(entry) / SECTOR_BYTES;
        ids.sequence(number, u64_of(sector), get(section, sector * SECTOR_BYTES + BODY_BYTES))
    }

    /// The tag that entry `entry` holds.
    #[must_use]
    pub fn entry_tag<'a>(&self, section: &'a [u8], entry: u32) -> &'a [u8] {
        let start = self.entry_offset(entry) + 8 + 8 * usize_of(self.block.sectors());
        &section[start..start + self.tag_bytes]
    }

    /// Copies the block that entry `entry` holds to `block`.
    ///
    /// # Panics
    /// If `block` is not one block long.
    pub fn read_data(&self, section: &[u8], entry: u32, block: &mut [u8]) {
        let sectors = self.data_offset(entry);
        self.join(section, entry, &section[sectors..sectors + self.block.bytes()], block);
    }

    /// The same where the data sectors were read on their own: only the metadata sectors of
    /// `section` are looked at.
    pub fn join(&self, section: &[u8], entry: u32, sectors: &[u8], block: &mut [u8]) {
        assert_eq!(block.len(), self.block.bytes(), "the target is one block");
        block.copy_from_slice(sectors);
        let last_bytes = self.entry_offset(entry) + 8;
        for (index, sector) in block.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let saved = &section[last_bytes + 8 * index..][..8];
            sector[BODY_BYTES..].copy_from_slice(saved);
        }
    }

    /// Undoes the stamps of the first `used` entries' data: every sector has its own last bytes
    /// again, and a block lies in one piece from [`Self::data_offset`] on. [`Self::read_data`] gives
    /// the same before and after; but the section is no longer one that the journal may hold.
    ///
    /// # Panics
    /// If a section has not so many entries.
    pub fn restore(&self, section: &mut [u8], used: u32) {
        self.assert_length(section);
        assert!(used <= self.entries_per_section, "a section has so many entries");
        let (metadata, data) = section.split_at_mut(self.data_offset(0));
        for (entry, block) in (0..used).zip(data.chunks_exact_mut(self.block.bytes())) {
            let (saved, _) = metadata[self.entry_offset(entry) + 8..].as_chunks::<8>();
            for (sector, saved) in block.chunks_exact_mut(SECTOR_BYTES).zip(saved) {
                sector[BODY_BYTES..].copy_from_slice(saved);
            }
        }
    }

    /// Fills entry `entry`, and stamps its data while that is at hand.
    ///
    /// # Panics
    /// If `block` is not one block or `tag` not one tag long, or `sector` is no address.
    pub fn write_entry(
        &self,
        section: &mut [u8],
        entry: u32,
        sector: u64,
        block: &[u8],
        tag: &[u8],
        stamp: &Stamp,
    ) {
        assert_eq!(block.len(), self.block.bytes(), "the data is one block");
        let (metadata, data) = self.split(section, entry);
        let last_bytes = self.write_header(metadata, entry, sector, tag);
        let (saved, _) = last_bytes.as_chunks_mut::<8>();
        let sectors = data.chunks_exact_mut(SECTOR_BYTES).zip(block.chunks_exact(SECTOR_BYTES));
        for (((target, source), saved), index) in sectors.zip(saved).zip(self.data_sector(entry)..)
        {
            target.copy_from_slice(source);
            saved.copy_from_slice(&source[BODY_BYTES..]);
            stamp.put(target, index);
        }
    }

    /// Fills entry `entry` with a block of zeroes, and stamps it.
    pub fn write_zero_entry(
        &self,
        section: &mut [u8],
        entry: u32,
        sector: u64,
        tag: &[u8],
        stamp: &Stamp,
    ) {
        let (metadata, data) = self.split(section, entry);
        self.write_header(metadata, entry, sector, tag).fill(0);
        data.fill(0);
        for (target, index) in data.chunks_exact_mut(SECTOR_BYTES).zip(self.data_sector(entry)..) {
            stamp.put(target, index);
        }
    }

    /// Completes a section of which the first `used` entries were filled: what is behind them
    /// becomes zeroes, and every sector that is not stamped yet is.
    pub fn finish(&self, section: &mut [u8], used: u32, stamp: &Stamp) {
        self.assert_length(section);
        let (metadata, data) = section.split_at_mut(self.data_offset(0));
        for (sector, index) in metadata.chunks_exact_mut(SECTOR_BYTES).zip(0..) {
            stamp.put(sector, index);
        }
        let unused = &mut data[self.data_offset(used) - self.data_offset(0)..];
        unused.fill(0);
        for (sector, index) in unused.chunks_exact_mut(SECTOR_BYTES).zip(self.data_sector(used)..) {
            stamp.put(sector, index);
        }
    }

    /// The metadata of a section, and the data of one of its entries.
    fn split<'a>(&self, section: &'a mut [u8], entry: u32) -> (&'a mut [u8], &'a mut [u8]) {
        let (metadata, data) = section.split_at_mut(self.data_offset(0));
        let start = self.data_offset(entry) - self.data_offset(0);
        (metadata, &mut data[start..start + self.block.bytes()])
    }

    /// The sector in its section where an entry's data starts.
    fn data_sector(&self, entry: u32) -> u64 {
        SECTION_METADATA_SECTORS + u64::from(entry) * self.block.sectors()
    }

    /// Fills sector and tag, and gives the room for the last bytes.
    fn write_header<'a>(
        &self,
        metadata: &'a mut [u8],
        entry: u32,
        sector: u64,
        tag: &[u8],
    ) -> &'a mut [u8] {
        assert!(sector >> 32 < UNUSED - 1, "the sector is an address");
        let start = self.entry_offset(entry);
        let header = &mut metadata[start..start + self.entry_bytes];
        put(header, 0, sector);
        let tag_start = 8 + 8 * usize_of(self.block.sectors());
        header[tag_start..tag_start + self.tag_bytes].copy_from_slice(tag);
        &mut header[8..tag_start]
    }

    /// Stamps every sector of a section.
    pub fn stamp(&self, section: &mut [u8], stamp: &Stamp) {
        self.assert_length(section);
        for (sector, index) in section.chunks_exact_mut(SECTOR_BYTES).zip(0..) {
            stamp.put(sector, index);
        }
    }

    /// What a section found on disk is worth.
    #[must_use]
    pub fn summarise(&self, section: &[u8], number: u32, ids: &CommitIds) -> SectionSummary {
        self.assert_length(section);
        let mut summary = SectionSummary::default();
        for (index, sector) in section.chunks_exact(SECTOR_BYTES).enumerate() {
            match ids.sequence(number, u64_of(index), get(sector, BODY_BYTES)) {
                Some(sequence) => summary.sequences |= sequence.bit(),
                None if summary.bad_sector.is_none() => summary.bad_sector = Some(u64_of(index)),
                None => {}
            }
        }
        summary.used_entries = (0..self.entries_per_section)
            .map(|entry| self.entry_sector(section, entry))
            .filter(|sector| *sector != EntrySector::Unused)
            .count();
        summary
    }

    fn assert_length(&self, section: &[u8]) {
        assert_eq!(section.len(), self.section_bytes(), "one section");
    }
}

fn get(bytes: &[u8], offset: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(word)
}

fn put(bytes: &mut [u8], offset: usize, value: u64) {
    bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{DeviceSectors, FormatOptions, format};
    use proptest::prelude::*;
    use units::BlockSize;

    fn journal(block: BlockSize, tag_size: u16) -> JournalLayout {
        let options = FormatOptions::new(block, tag_size, [7; 16]);
        format(DeviceSectors::Interleaved(131_072), &options).unwrap().1.journal
    }

    fn stamp(section: u32, sequence: u8) -> Stamp {
        Stamp { ids: CommitIds::PLAIN, section, sequence: Sequence(sequence) }
    }

    #[test]
    fn the_worked_section_has_168_entries_in_176_sectors() {
        let journal = journal(BlockSize::B512, 4);
        assert_eq!((journal.entry_bytes, journal.entries_per_sector), (24, 21));
        assert_eq!((journal.entries_per_section, journal.section_sectors), (168, 176));
        // Section 6.1: entry k is in metadata sector k mod 8, its data in sector 8 + k.
        assert_eq!(journal.entry_offset(9), 512 + 24);
        assert_eq!(journal.data_offset(9), 17 * 512);
    }

    #[test]
    fn ids_name_their_place_and_lap() {
        let ids = CommitIds::PLAIN;
        let id = ids.id(3, 5, Sequence(2));
        assert_eq!(id, 0x3333_3333_3333_3333 ^ (3 << 32) ^ 5);
        assert_eq!(ids.sequence(3, 5, id), Some(Sequence(2)));
        assert_eq!(ids.sequence(3, 6, id), None, "another sector");
        assert_eq!(ids.sequence(4, 5, id), None, "another section");
    }

    #[test]
    fn equal_base_ids_are_made_distinct() {
        assert_eq!(CommitIds::new([7, 7, 8, 7]).0, [7, 8, 9, 10]);
        assert_eq!(CommitIds::new(CommitIds::PLAIN.0), CommitIds::PLAIN);
    }

    #[test]
    fn sequences_count_modulo_four() {
        assert_eq!(Sequence(3).plus(1), Sequence(0));
        assert_eq!(Sequence(0).minus(1), Sequence(3));
        assert_eq!(Sequence(1).minus(2), Sequence(3));
    }

    #[test]
    fn one_wrong_sector_is_reported_with_its_number() {
        let journal = journal(BlockSize::B4096, 4);
        let mut section = vec![0; journal.section_bytes()];
        journal.initialise(&mut section);
        journal.stamp(&mut section, &stamp(1, 1));
        let sound = journal.summarise(&section, 1, &CommitIds::PLAIN);
        assert_eq!((sound.sequences, sound.bad_sector, sound.used_entries), (2, None, 0));
        section[11 * 512 - 1] ^= 0x80;
        let summary = journal.summarise(&section, 1, &CommitIds::PLAIN);
        assert_eq!(summary.bad_sector, Some(10));
    }

    #[test]
    fn an_entry_in_progress_counts_as_used() {
        let journal = journal(BlockSize::B512, 4);
        let mut section = vec![0; journal.section_bytes()];
        journal.initialise(&mut section);
        put(&mut section, journal.entry_offset(1), 0xffff_fffe_0000_0000);
        assert_eq!(journal.summarise(&section, 0, &CommitIds::PLAIN).used_entries, 1);
    }

    fn low(number: u32) -> u8 {
        number.to_le_bytes()[0]
    }

    fn byte_of(number: usize) -> u8 {
        number.to_le_bytes()[0]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_whatever_the_ids(
            log2_block in 0u8..4,
            tag_size in 1u16..64,
            seed in any::<u8>(),
            sequence in 0u8..4,
            part in 0u32..=100,
        ) {
            let block = BlockSize::from_log2_sectors(log2_block).unwrap();
            let journal = journal(block, tag_size);
            let mut section = vec![seed; journal.section_bytes()];
            journal.clear_entries(&mut section);
            let used = journal.entries_per_section * part / 100;
            let blocks: Vec<Vec<u8>> = (0..used)
                .map(|k| (0..block.bytes()).map(|i| byte_of(i * 7 + i / 256) ^ low(k) ^ seed).collect())
                .collect();
            let tag_of = |k: u32| vec![low(k) ^ seed; usize::from(tag_size)];
            for (k, data) in (0..).zip(&blocks) {
                let (sector, stamp) = (u64::from(k) * block.sectors(), stamp(2, sequence));
                journal.write_entry(&mut section, k, sector, data, &tag_of(k), &stamp);
            }
            journal.finish(&mut section, used, &stamp(2, sequence));
            let complete = section.clone();
            journal.stamp(&mut section, &stamp(2, sequence));
            prop_assert!(section == complete, "every sector was stamped");
            let summary = journal.summarise(&section, 2, &CommitIds::PLAIN);
            prop_assert!(summary.holds(Sequence(sequence)));
            prop_assert_eq!(summary.used_entries, blocks.len());
            let mut read = vec![0; block.bytes()];
            for (k, data) in (0..).zip(&blocks) {
                prop_assert_eq!(
                    journal.entry_sector(&section, k),
                    EntrySector::Used(u64::from(k) * block.sectors())
                );
                prop_assert_eq!(journal.entry_tag(&section, k), tag_of(k));
                journal.read_data(&section, k, &mut read);
                prop_assert!(&read == data);
            }
            journal.restore(&mut section, used);
            for (k, data) in (0..).zip(&blocks) {
                prop_assert!(section[journal.data_offset(k)..].starts_with(data));
                journal.read_data(&section, k, &mut read);
                prop_assert!(&read == data);
            }
        }

        #[test]
        fn no_bytes_make_summarising_panic(seed in any::<u64>()) {
            let journal = journal(BlockSize::B512, 4);
            let mut word = seed;
            let section: Vec<u8> = (0..journal.section_bytes())
                .map(|_| {
                    word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    word.to_le_bytes()[7]
                })
                .collect();
            let summary = journal.summarise(&section, 0, &CommitIds::PLAIN);
            prop_assert!(summary.used_entries > 0);
        }
    }
}
