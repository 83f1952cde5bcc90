//! md's bytes: superblocks, what several of them amount to, the bitmap, the bad block log, the partial parity
//! log and the write journal.

use crate::input::Input;
use md::assemble::{Candidate, Slot};
use md::bad_blocks::BadBlocks;
use md::bitmap::{Bitmap, BitmapHeader};
use md::geometry::{Geometry, Mirrors, ParityLevel, Strip, Stripes};
use md::journal::{BLOCK_BYTES, BLOCK_SECTORS, Block, Ended, Payload, Ring, Scan, Seed};
use md::ppl::{ENTRIES_MAX, Entry, HEADER_BYTES, Log, Plan, encode_header};
use md::shape::Shape;
use md::superblock::{Minor, SUPERBLOCK_BYTES, Superblock, SuperblockError, Uuid};
use units::{Sector, u64_of, usize_of};

/// Any bytes as a superblock, with a checksum and a place that fit: what decodes is encoded to the
/// same bytes.
pub fn superblock(bytes: &[u8]) {
    for minor in Minor::PROBE_ORDER {
        for device_sectors in [DEVICE_SECTORS, u64::MAX, 16, 0] {
            if let Ok(superblock) = Superblock::decode(bytes, minor, device_sectors) {
                check_superblock(&superblock, &bytes[..SUPERBLOCK_BYTES], device_sectors);
            }
        }
        if let Some(sound) = mended(bytes, minor, DEVICE_SECTORS) {
            let superblock = Superblock::decode(&sound, minor, DEVICE_SECTORS)
                .expect("mended until nothing was said against it");
            check_superblock(&superblock, &sound, DEVICE_SECTORS);
        }
    }
}

fn check_superblock(superblock: &Superblock, bytes: &[u8], device_sectors: u64) {
    assert_eq!(superblock.encode(), bytes, "every bit survives");
    for sectors in [device_sectors, 0, 2048, u64::MAX] {
        let _ = superblock.validate(sectors);
    }
    assert!(superblock.roles().count() <= SUPERBLOCK_BYTES);
    let words = format!(
        "{:?} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        superblock.features(),
        superblock.set_uuid(),
        superblock.name(),
        superblock.level(),
        superblock.ctime(),
        superblock.bitmap_sector(),
        superblock.ppl(),
        superblock.reshape(),
        superblock.recovery_offset(),
        superblock.bad_block_log(),
        superblock.role(),
    );
    assert!(!words.is_empty());
    if superblock.validate(device_sectors).is_ok() {
        // Members of two sizes, at most so many that zones stay few.
        let members = usize_of(u64::from(superblock.raid_disks()).min(64));
        let sizes = (0..u64_of(members)).map(|slot| superblock.data_size() >> (slot % 2));
        let Ok(shape) = superblock.shape(&sizes.collect::<Vec<u64>>()) else { return };
        let sectors = shape.array_sectors().expect("a shape has a size");
        match &shape {
            Shape::Parity(geometry, size) => check_geometry(geometry, sectors, *size),
            Shape::Mirror { .. } => {}
            Shape::Mirrors(mirrors) => check_mirrors(mirrors, superblock.size()),
            Shape::Stripes(stripes) => check_stripes(stripes),
        }
    }
}

/// Ends and middle of an array.
fn probes(sectors: u64) -> [Sector; 3] {
    [Sector(0), Sector(sectors / 2), Sector(sectors - 1)]
}

/// Every copy lies within its member, and knows what it is a copy of.
fn check_mirrors(mirrors: &Mirrors, member_sectors: u64) {
    for sector in probes(mirrors.array_sectors()) {
        assert!(mirrors.run_sectors(sector) <= mirrors.array_sectors() - sector.0);
        for copy in 0..mirrors.copies() {
            let spot = mirrors.locate(sector, copy);
            assert!(spot.member_sector.0 < member_sectors);
            assert_eq!(mirrors.array_sector(spot.slot, spot.member_sector), Some(sector));
        }
    }
}

/// Every sector has one place, which knows it.
fn check_stripes(stripes: &Stripes) {
    for sector in probes(stripes.array_sectors()) {
        let run = stripes.locate(sector);
        assert!(run.sectors > 0 && run.sectors <= stripes.array_sectors() - sector.0);
        assert_eq!(stripes.array_sector(run.slot, run.member_sector), Some(sector));
    }
}

fn check_geometry(geometry: &Geometry, sectors: u64, member_sectors: u64) {
    for sector in [0, sectors / 2, sectors - 1] {
        let place = geometry.locate(Sector(sector));
        assert!(place.slot < geometry.raid_disks());
        assert!(place.member_sector.0 < member_sectors, "{place:?} of {member_sectors}");
        assert_eq!(geometry.strip(place.stripe, place.slot), Strip::Data(place.data_index));
        let offset = place.member_sector.0 % geometry.chunk_sectors();
        let back = geometry.array_sector(place.stripe, place.data_index, offset);
        assert_eq!(back, Sector(sector));
        assert_ne!(geometry.p_slot(place.stripe), place.slot);
        assert_ne!(geometry.q_slot(place.stripe), Some(place.slot));
    }
}

/// `bytes` with what decoding checks put right, so that fields get looked at; none if they are
/// too few or of another format.
fn mended(bytes: &[u8], minor: Minor, device_sectors: u64) -> Option<[u8; SUPERBLOCK_BYTES]> {
    let mut sound = *bytes.first_chunk::<SUPERBLOCK_BYTES>()?;
    let place = minor.super_offset(device_sectors)?;
    put(&mut sound, SUPER_OFFSET_AT, &place.0.to_le_bytes());
    match Superblock::decode(&sound, minor, device_sectors) {
        Ok(_) => Some(sound),
        Err(SuperblockError::Checksum { computed, .. }) => {
            put(&mut sound, CHECKSUM_AT, &computed.to_le_bytes());
            Some(sound)
        }
        Err(_) => None,
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Copies of one superblock, each changed here and there: what they amount to names every member
/// at most once, and starts only if it has a size.
///
/// The input is a superblock, then changes: member, place (two bytes), value.
pub fn assemble(bytes: &[u8]) {
    let Some((base, changes)) = bytes.split_first_chunk::<SUPERBLOCK_BYTES>() else { return };
    let mut copies = [*base; MEMBERS];
    for (number, copy) in (0_u32..).zip(&mut copies) {
        put(copy, DEV_NUMBER_AT, &number.to_le_bytes());
        put(copy, DEVICE_UUID_AT, &number.to_le_bytes());
    }
    let mut changes = Input(changes);
    while !changes.is_empty() {
        let [member, low, high, value] = changes.array();
        let place = usize::from(u16::from_le_bytes([low, high])) % SUPERBLOCK_BYTES;
        copies[usize::from(member) % MEMBERS][place] = value;
    }
    let members: Vec<Superblock> = copies
        .iter()
        .filter_map(|copy| mended(copy, Minor::V2, DEVICE_SECTORS))
        .filter_map(|copy| Superblock::decode(&copy, Minor::V2, DEVICE_SECTORS).ok())
        .collect();
    for count in 0..=members.len() {
        let candidates: Vec<_> = members[..count]
            .iter()
            .map(|superblock| Candidate { superblock, device_sectors: DEVICE_SECTORS })
            .collect();
        check_assembly(&candidates);
    }
}

fn check_assembly(candidates: &[Candidate<'_>]) {
    let assembly = match md::assemble::assemble(candidates) {
        Ok(assembly) => assembly,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let newest = candidates[assembly.newest].superblock;
    assert_eq!(u64_of(assembly.slots.len()), u64::from(newest.slots()));

    let held = assembly.slots.iter().filter_map(|slot| match slot {
        Slot::Missing => None,
        Slot::InSync(member) | Slot::Rebuilding { member, .. } => Some(*member),
    });
    let mut named: Vec<usize> = held
        .chain(assembly.spares.iter().copied())
        .chain(assembly.journals.iter().copied())
        .chain(assembly.replacements.iter().copied())
        .chain(assembly.left_out.iter().map(|(member, _)| *member))
        .collect();
    named.sort_unstable();
    let all: Vec<usize> = (0..candidates.len()).collect();
    assert_eq!(named, all, "each member has one part");

    let complete = assembly.in_sync().count();
    assert_eq!(complete + assembly.missing_count(), assembly.slots.len());
    if assembly.cannot_start.is_empty() {
        let shape = assembly.shape(candidates);
        let sectors = shape.ok().and_then(|shape| shape.array_sectors());
        assert!(sectors.is_some_and(|sectors| sectors > 0), "it has a size");
        assert!(complete > 0, "somebody holds its data");
        if let Some(Ok(sides)) = newest.sides() {
            assert!(sides.slots() <= assembly.slots.len(), "each shape's slots are there");
        }
    }
}

/// Any bytes as a bitmap: all of it survives, and its bits are a set.
pub fn bitmap(bytes: &[u8]) {
    let Ok(header) = BitmapHeader::decode(bytes) else { return };
    let encoded = header.encode();
    assert_eq!(encoded, bytes[..encoded.len()], "every bit survives");
    let Ok(mut bitmap) = Bitmap::decode(bytes.to_vec()) else {
        return assert!(header.area_bytes() > u64_of(bytes.len()), "all of it was there");
    };
    assert_eq!(bitmap.encode(0..bytes.len()), bytes, "every bit survives");
    let (count, dirty) = (header.bit_count(), bitmap.dirty_count());
    assert!(dirty <= count);
    let each = bitmap.dirty().map(|run| run.end - run.start).sum::<u64>();
    assert_eq!(each, dirty, "what is walked is what is counted");
    for sectors in bitmap.dirty_sectors() {
        assert!(sectors.start < sectors.end && sectors.end <= header.sync_sectors());
    }
    // A run of the bitmap's own choice is cleared and set: nothing else changes.
    let chunks = bitmap.chunks(&(header.events()..header.events_cleared()));
    bitmap.clear(chunks.clone());
    let others = bitmap.dirty_count();
    bitmap.set(chunks.clone());
    assert_eq!(bitmap.dirty_count(), others + (chunks.end - chunks.start));
    assert!(bitmap.is_set(&chunks));
    bitmap.fill(false);
    assert_eq!((bitmap.dirty_count(), bitmap.dirty().next()), (0, None));
}

/// Any bytes as a bad block log: what is used of it survives, recorded sectors are in it, and forgetting
/// them all leaves the log that was never used.
pub fn bad_blocks(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (shift, sector, sectors) = (input.byte(), input.number(), u64::from(input.byte()));
    let Ok(mut log) = BadBlocks::decode(input.0, shift) else {
        return;
    };
    let (used, room) = log.used();
    assert!(used <= room && log.encode().len() == input.0.len(), "as much as there was");
    let dense = log.encode();
    assert_eq!(BadBlocks::decode(&dense, 0), Ok(log.clone()), "what it says survives");
    assert_eq!(log.ranges().count(), used);
    let (first, before) = (u64::from(sector), log.clone());
    if log.record(&(first..first + sectors)) {
        let is_bad = |at: u64| log.ranges().any(|range| range.contains(&at));
        assert!((first..first + sectors).all(is_bad), "all of it is recorded");
        let kept = |range: std::ops::Range<u64>| is_bad(range.start) && is_bad(range.end - 1);
        assert!(before.ranges().all(kept), "nothing is forgotten");
        assert_eq!(BadBlocks::decode(&log.encode(), 0), Ok(log.clone()));
    } else {
        assert_eq!(log, before, "it is full");
    }
    log.forget(Some);
    assert_eq!(log.used().1, room);
    log.forget(|_| None);
    assert!(log.is_empty() && log.encode().iter().all(|&byte| byte == 0xFF));
}

const MEMBERS: usize = 4;
/// Of every member: 8 GiB.
const DEVICE_SECTORS: u64 = 1 << 24;

// Places in the superblock (the md specification, section 2).
const SUPER_OFFSET_AT: usize = 144;
const DEV_NUMBER_AT: usize = 160;
const DEVICE_UUID_AT: usize = 168;
const CHECKSUM_AT: usize = 216;

/// Any bytes as a partial parity log: behind a shape and a set UUID, with signatures and checksums that
/// fit. What it is a plan of lies within the array.
pub fn ppl(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (layout, disks, block) = (input.byte() % 6, 2 + input.byte() % 7, 1 << (input.byte() % 4));
    let set = Uuid([input.byte(); 16]);
    let mut area = input.0.to_vec();
    drop(Log::decode(&area, set));
    let sound = encode_header(set, 0, &[]);
    for header in area.chunks_exact_mut(HEADER_BYTES) {
        header[..520].copy_from_slice(&sound[..520]);
        header[529..532].fill(0);
        header[532..536].fill(0);
        let sum = checksum::crc32c(header).to_le_bytes();
        header[532..536].copy_from_slice(&sum);
    }
    let Ok(log) = Log::decode(&area, set) else { return };
    for record in log.records() {
        let entries: Vec<Entry> = record.entries.iter().map(|logged| logged.entry).collect();
        assert!(entries.len() <= ENTRIES_MAX);
        let again = encode_header(set, record.generation, &entries);
        assert_eq!(again[528..532], area[usize_of(record.start_bytes)..][528..532]);
    }
    let geometry = Geometry::new(ParityLevel::Raid5, layout.into(), 128, disks.into());
    let geometry = geometry.expect("a shape that there is");
    let logs = (0..geometry.raid_disks()).map(|slot| (slot, Some(&log)));
    drop(Plan::new(&geometry, PPL_MEMBER_SECTORS, block, logs));
    for slot in 0..geometry.raid_disks() {
        let logs = [(slot, Some(&log))].into_iter();
        let Ok(plan) = Plan::new(&geometry, PPL_MEMBER_SECTORS, block, logs) else { continue };
        for (update, parity) in &plan.updates {
            let sectors = update.member_sectors(&geometry);
            assert!(sectors.end <= PPL_MEMBER_SECTORS && !sectors.is_empty());
            assert!(update.strips.end <= geometry.data_disks() && !update.strips.is_empty());
            let rows = usize_of((sectors.end - sectors.start) * 512);
            assert!(parity.is_empty() || parity.len() == rows);
        }
        assert_eq!(plan.lost(&geometry, |_| true).next(), None, "nobody is missing");
    }
}

const PPL_MEMBER_SECTORS: u64 = 128 * 64;

/// Any bytes as a write journal: behind a shape and a tail, blocks whose magic, place and checksums fit where
/// they begin with a mark. What it holds lies in the ring and in the array, and each block of a row is one of its own.
pub fn journal(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (layout, disks, tail) = (input.byte() % 6, 4 + input.byte() % 5, input.byte() % 32);
    let level = if input.byte() % 2 == 0 { ParityLevel::Raid5 } else { ParityLevel::Raid6 };
    let seed = Seed::of(Uuid([7; 16]));
    let mut area = input.0.to_vec();
    area.truncate(JOURNAL_BLOCKS * BLOCK_BYTES);
    area.resize(JOURNAL_BLOCKS * BLOCK_BYTES, 0);
    let sound = Block { sequence: 0, position: 0, payloads: vec![] }.encode(seed);
    for (number, block) in (0..).zip(area.chunks_exact_mut(BLOCK_BYTES)) {
        if block[0] == 0x09 {
            block[..12].copy_from_slice(&sound[..12]);
            block[24..32].copy_from_slice(&(number * BLOCK_SECTORS).to_le_bytes());
            block[4..8].fill(0);
            let sum = seed.checksum(block).to_le_bytes();
            block[4..8].copy_from_slice(&sum);
        }
    }
    for number in 0..JOURNAL_BLOCKS {
        let place = |number: usize| number % JOURNAL_BLOCKS * BLOCK_BYTES;
        let block = &area[place(number)..][..BLOCK_BYTES];
        let Ok(mut found) = Block::decode(block, seed) else { continue };
        assert_eq!(Block::decode(&found.encode(seed), seed).as_ref(), Ok(&found));
        let mut own = number;
        for payload in &mut found.payloads {
            let (Payload::Data { checksums, .. } | Payload::Parity { checksums, .. }) = payload
            else {
                continue;
            };
            for checksum in checksums {
                own += 1;
                *checksum = seed.checksum(&area[place(own)..][..BLOCK_BYTES]);
            }
        }
        area[place(number)..][..BLOCK_BYTES].copy_from_slice(&found.encode(seed));
    }
    let geometry = Geometry::new(level, layout.into(), 128, disks.into());
    let geometry = geometry.expect("a shape that there is");
    let ring = Ring::new(u64_of(JOURNAL_BLOCKS) * BLOCK_SECTORS);
    let tail = u64::from(tail) * BLOCK_SECTORS;
    let mut scan = Scan::new(seed, ring, tail, (geometry, PPL_MEMBER_SECTORS));
    let mut steps = 0;
    while let Some(wanted) = scan.wanted() {
        let part = |range: std::ops::Range<u64>| {
            area[usize_of(range.start * 512)..usize_of(range.end * 512)].iter().copied()
        };
        let read: Vec<u8> = ring.ranges(wanted).flat_map(part).collect();
        scan.feed(Some(&read));
        steps += 1;
        assert!(steps < JOURNAL_BLOCKS * 4, "each step goes on");
    }
    let found = scan.finish();
    assert!(found.sectors <= ring.sectors() && (found.first.is_some() || found.meta_blocks == 0));
    for (row, held) in found.rows.iter() {
        assert!(row.0 < PPL_MEMBER_SECTORS && row.0 % BLOCK_SECTORS == 0);
        for list in [&held.complete, &held.data_only] {
            for (index, (slot, place)) in list.iter().enumerate() {
                assert!(*slot < geometry.raid_disks() && place.at < ring.sectors());
                assert!(list[..index].iter().all(|(earlier, _)| earlier != slot));
            }
        }
    }
    let end = geometry.array_sectors(PPL_MEMBER_SECTORS).expect("a size");
    assert!(found.rows.data_only().all(|(sector, _)| sector.0 + BLOCK_SECTORS <= end));
    if let Ended::Damaged(damage) = found.ended {
        assert!(!damage.to_string().is_empty());
    }
}

/// Blocks of the ring.
const JOURNAL_BLOCKS: usize = 32;
