//! Writing a journal: where the next record goes, and how much of the ring is free.
//!
//! ```text
//!        tail                             head
//!         v                                v
//!   free  | mark | record | record | record |  free
//! ```
//! A *record* is one meta block and all that it names, whole rows. Whoever writes records makes each durable
//! before the next one is begun: then the only one that can be torn is the last, and nothing whole ever comes
//! after a torn one, which a scan would have to call damage.
//!
//! A *mark* is a meta block that names nothing. It is where the tail may go once all before it is home. Its
//! sequence is far beyond that of what comes before it, so that nothing follows what a scan finds as long as the
//! tail has not moved: after a crash before that, mark and all behind it are written once more in their places.

use super::{BLOCK_BYTES, BLOCK_SECTORS, Block, Found, LIST_BYTES, Payload, Ring, Seed, Wanted};
use units::{Sector, u64_of, usize_of};

/// Blocks of one row, for a record.
#[derive(Clone, Debug)]
pub struct NewRow<'a> {
    /// In sectors of a member's data.
    pub row: Sector,
    /// What is written of its data: sector in the array, and the block.
    pub data: Vec<(Sector, &'a [u8])>,
    /// P, and Q of a RAID 6, that are true with it. None: what is written stays data alone.
    pub parity: Vec<&'a [u8]>,
}

/// There is no room for it in the ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{needed} sectors do not fit the {free} that are free in the write journal")]
pub struct Full {
    /// Sectors that it takes.
    pub needed: u64,
    /// Sectors that are free.
    pub free: u64,
}

/// The end of a journal that is being written.
#[derive(Clone, Debug)]
pub struct Head {
    seed: Seed,
    ring: Ring,
    /// Where the next meta block goes.
    at: u64,
    /// Its sequence.
    sequence: u64,
    /// Sectors from the tail to there.
    used: u64,
}

impl Head {
    /// Behind what a scan from `tail` on `found`, with the sequences after those, or, if there are none, after
    /// `first`. A mark and then the tail come first: what may lie there is of sequences that will not come
    /// again.
    #[must_use]
    pub fn behind(seed: Seed, ring: Ring, (tail, found): (u64, &Found), first: u64) -> Self {
        // The first block of a blank ring stays as it is, so that it is blank until the tail leaves it.
        let used = found.sectors.max(BLOCK_SECTORS);
        let next = found.first.map(|own| own.wrapping_add(found.meta_blocks));
        Self { seed, ring, at: ring.after(tail, used), sequence: next.unwrap_or(first), used }
    }

    /// Where the next meta block goes, in sectors of the ring.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Sectors for records, beside the block that is kept for a mark.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.unused().saturating_sub(BLOCK_SECTORS)
    }

    /// Whether there is room for a mark, and for records of so many sectors behind it.
    ///
    /// # Errors
    /// [`Full`], if not.
    pub fn admits_behind_mark(&self, sectors: u64) -> Result<(), Full> {
        let needed = BLOCK_SECTORS.saturating_add(sectors);
        let free = if sectors == 0 { self.unused() } else { self.free() };
        if needed <= free { Ok(()) } else { Err(Full { needed, free }) }
    }

    fn unused(&self) -> u64 {
        self.ring.sectors().saturating_sub(self.used)
    }

    /// Sectors of a record of `rows`.
    #[must_use]
    pub fn record_sectors(rows: &[NewRow<'_>]) -> u64 {
        let blocks: usize = rows.iter().map(|row| row.data.len() + row.parity.len()).sum();
        (1 + u64_of(blocks)) * BLOCK_SECTORS
    }

    /// Puts a record of `rows` behind what there is, as bytes, and where they go. Without rows, it is a mark.
    ///
    /// # Errors
    /// [`Full`]; then nothing has changed.
    ///
    /// # Panics
    /// If they do not fit one meta block (see [`rows_at_once`](Self::rows_at_once)), or a block has not
    /// its size.
    pub fn append(&mut self, rows: &[NewRow<'_>]) -> Result<(Wanted, Vec<u8>), Full> {
        let needed = Self::record_sectors(rows);
        let free = if rows.is_empty() { self.unused() } else { self.free() };
        if needed > free {
            return Err(Full { needed, free });
        }
        let (mut payloads, mut bytes) = (Vec::new(), vec![0; BLOCK_BYTES]);
        bytes.reserve_exact(usize_of(needed / BLOCK_SECTORS - 1) * BLOCK_BYTES);
        let mut take = |block: &[u8]| {
            assert_eq!(block.len(), BLOCK_BYTES, "a block of the journal");
            bytes.extend_from_slice(block);
            self.seed.checksum(block)
        };
        for NewRow { row, data, parity } in rows {
            // One payload for each block of data, as the kernel has it.
            payloads.extend(
                data.iter()
                    .map(|&(sector, block)| Payload::Data { sector, checksums: vec![take(block)] }),
            );
            if !parity.is_empty() {
                let checksums = parity.iter().map(|block| take(block)).collect();
                payloads.push(Payload::Parity { row: *row, checksums });
            }
        }
        if rows.is_empty() {
            self.sequence = self.sequence.wrapping_add(SEQUENCES_SKIPPED);
        }
        let meta = Block { sequence: self.sequence, position: self.at, payloads };
        bytes[..BLOCK_BYTES].copy_from_slice(&meta.encode(self.seed));
        let place = Wanted { at: self.at, sectors: needed };
        self.at = self.ring.after(self.at, needed);
        self.sequence = self.sequence.wrapping_add(1);
        self.used += needed;
        Ok((place, bytes))
    }

    /// What lies before `tail` is free: the place of a mark or record of before.
    pub fn forget_before(&mut self, tail: u64) {
        self.used = self.ring.between(tail, self.at);
    }

    /// Rows of `data` blocks and `parity` that one meta block has room for.
    #[must_use]
    pub const fn rows_at_once(data: usize, parity: usize) -> usize {
        let of_parity = PAYLOAD_BYTES + parity.saturating_sub(1) * CHECKSUM_BYTES;
        LIST_BYTES / (data * PAYLOAD_BYTES + of_parity)
    }
}

/// Bytes of a payload of one block in a meta block, and of each further checksum.
const PAYLOAD_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;
/// As the kernel does (md specification, section 13).
const SEQUENCES_SKIPPED: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::super::{Damage, Ended, Scan};
    use super::*;
    use crate::geometry::{Geometry, ParityLevel};
    use crate::superblock::Uuid;
    use proptest::prelude::*;

    const RING: Ring = Ring::new(8 * 40);
    const MEMBER_SECTORS: u64 = 1 << 10;

    fn seed() -> Seed {
        Seed::of(Uuid([7; 16]))
    }

    fn raid5() -> Geometry {
        Geometry::new(ParityLevel::Raid5, 2, 8, 3).unwrap()
    }

    fn scan(ring: &[u8], tail: u64) -> Found {
        let mut scan = Scan::new(seed(), RING, tail, (raid5(), MEMBER_SECTORS));
        while let Some(wanted) = scan.wanted() {
            let parts: Vec<u8> = RING
                .ranges(wanted)
                .flat_map(|part| &ring[usize_of(part.start) * 512..usize_of(part.end) * 512])
                .copied()
                .collect();
            scan.feed(Some(&parts));
        }
        scan.finish()
    }

    fn put(ring: &mut [u8], (wanted, bytes): &(Wanted, Vec<u8>)) {
        let mut rest = bytes.as_slice();
        for part in RING.ranges(*wanted) {
            let (now, later) = rest.split_at(usize_of(part.end - part.start) * 512);
            ring[usize_of(part.start) * 512..usize_of(part.end) * 512].copy_from_slice(now);
            rest = later;
        }
    }

    /// A block of data of row `row`, and parity.
    fn row(row: u64, blocks: &[Vec<u8>]) -> NewRow<'_> {
        let sector = raid5().array_sector(row / 8, 0, 0);
        NewRow { row: Sector(row), data: vec![(sector, &blocks[0])], parity: vec![&blocks[1]] }
    }

    fn blank() -> (Vec<u8>, Head) {
        let ring = vec![0; usize_of(RING.sectors()) * 512];
        let found = scan(&ring, 0);
        (ring, Head::behind(seed(), RING, (0, &found), 77))
    }

    #[test]
    fn what_follows_a_blank_block_does_not_count_before_the_tail_is_there() {
        let (mut ring, mut head) = blank();
        let tail = head.at();
        put(&mut ring, &head.append(&[]).unwrap());
        let blocks = [vec![1; BLOCK_BYTES], vec![2; BLOCK_BYTES]];
        put(&mut ring, &head.append(&[row(16, &blocks)]).unwrap());
        assert_eq!(scan(&ring, 0).meta_blocks, 0);
        let found = scan(&ring, tail);
        assert_eq!((found.first, found.meta_blocks, found.rows.blocks()), (Some(10_077), 2, 2));
    }

    #[test]
    fn what_was_torn_behind_an_end_is_not_taken_to_follow_again() {
        let (mut ring, mut head) = blank();
        let tail = head.at();
        put(&mut ring, &head.append(&[]).unwrap());
        let blocks = [vec![1; BLOCK_BYTES], vec![2; BLOCK_BYTES]];
        let torn = head.append(&[row(16, &blocks)]).unwrap();
        let later = head.append(&[row(24, &blocks)]).unwrap();
        // The device lost the first and kept what it had been given after it.
        put(&mut ring, &later);
        let found = scan(&ring, tail);
        assert!(matches!(found.ended, Ended::Damaged(Damage::Middle { .. })));
        let mut head = Head::behind(seed(), RING, (tail, &found), 0);
        let tail = head.at();
        put(&mut ring, &head.append(&[]).unwrap());
        assert_eq!((head.at(), found.rows.blocks()), (tail + 8, 0));
        put(&mut ring, &head.append(&[row(32, &blocks)]).unwrap());
        assert!(head.at() > torn.0.at);
        let found = scan(&ring, tail);
        assert_eq!((found.ended, found.meta_blocks, found.rows.blocks()), (Ended::Here, 2, 2));
    }

    #[test]
    fn a_block_is_kept_for_the_mark_also_if_the_tail_does_not_get_there() {
        let (mut ring, mut head) = blank();
        let blocks = [vec![1; BLOCK_BYTES], vec![2; BLOCK_BYTES]];
        let tail = head.at();
        put(&mut ring, &head.append(&[]).unwrap());
        head.forget_before(tail);
        while let Ok(record) = head.append(&[row(16, &blocks)]) {
            put(&mut ring, &record);
        }
        assert!(head.free() < 3 * BLOCK_SECTORS);
        let mark = head.append(&[]).unwrap();
        put(&mut ring, &mark);
        // Whoever finds that writes it once more.
        for _ in 0..3 {
            let found = scan(&ring, tail);
            let mut again = Head::behind(seed(), RING, (tail, &found), 0);
            assert_eq!((found.ended, again.at()), (Ended::Here, mark.0.at));
            assert_eq!(again.admits_behind_mark(0), Ok(()));
            assert!(again.admits_behind_mark(4 * BLOCK_SECTORS).is_err());
            put(&mut ring, &again.append(&[]).unwrap());
        }
        head.forget_before(mark.0.at);
        assert_eq!(head.free(), RING.sectors() - 2 * BLOCK_SECTORS);
    }

    #[test]
    fn as_many_rows_as_are_said_fit_a_meta_block() {
        for (data, parity) in [(1, 1), (2, 1), (9, 2), (150, 1), (199, 2)] {
            let most = Head::rows_at_once(data, parity);
            let place = Payload::Data { sector: Sector(8), checksums: vec![1] };
            let last = Payload::Parity { row: Sector(8), checksums: vec![1; parity] };
            let of_row = std::iter::repeat_n(place, data).chain([last]);
            let payloads = (0..most).flat_map(|_| of_row.clone()).collect();
            let block = Block { sequence: 1, position: 8, payloads };
            assert_eq!(Block::decode(&block.encode(seed()), seed()).unwrap(), block);
        }
        assert_eq!(Head::rows_at_once(203, 1), 0);
    }

    proptest! {
        /// Records, wrapped round the ring, with tails that follow: a scan finds just those since the tail.
        #[test]
        fn a_scan_finds_what_was_put_behind_the_tail(
            records in prop::collection::vec((1usize..5, any::<bool>()), 1..60),
        ) {
            let (mut ring, mut head) = blank();
            let mut tail = head.at();
            put(&mut ring, &head.append(&[]).unwrap());
            head.forget_before(tail);
            let mut expected = Vec::new();
            for (number, (rows, marked)) in (0u8..).zip(records) {
                let blocks = [vec![number; BLOCK_BYTES], vec![!number; BLOCK_BYTES]];
                let first = u64::from(number) * 8 % 256;
                let rows: Vec<NewRow<'_>> =
                    (0..u64::try_from(rows).unwrap()).map(|i| row(first + i * 8, &blocks)).collect();
                if marked || Head::record_sectors(&rows) > head.free() {
                    let mark = head.append(&[]).unwrap();
                    tail = mark.0.at;
                    put(&mut ring, &mark);
                    head.forget_before(tail);
                    expected.clear();
                }
                put(&mut ring, &head.append(&rows).unwrap());
                for row in rows {
                    expected.retain(|other| *other != row.row);
                    expected.push(row.row);
                }
                let found = scan(&ring, tail);
                prop_assert_eq!(found.ended, Ended::Here);
                let mut all: Vec<Sector> = expected.clone();
                all.sort_unstable();
                prop_assert_eq!(found.rows.iter().map(|(row, _)| row).collect::<Vec<_>>(), all);
                prop_assert!(found.rows.iter().all(|(_, row)| row.complete.len() == 2));
                let again = Head::behind(seed(), RING, (tail, &found), 0);
                prop_assert_eq!(again.at(), head.at());
                prop_assert_eq!(again.free(), head.free());
            }
        }
    }
}
