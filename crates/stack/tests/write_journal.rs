//! Arrays with a write journal that the kernel was killed over: what is read is what it had acknowledged,
//! whatever a crash left at home and whoever is missing; what cannot be known is refused.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use bio::Event;
use common::*;
use md::journal::{BLOCK_BYTES, Block, Ended, Payload, Ring, Scan, Seed};
use md::superblock::{Minor, ResyncOffset, SUPERBLOCK_BYTES, Superblock};
use serde_json::Value;
use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use steadfast_stack as stack;
use steadfast_stack::{
    Explanation as Explained, Given, Member, MemberState, OpenOptions, TagVerdict, Whereabouts,
};
use units::{Sector, u64_of, usize_of};

/// Mode write-back: data that never got parity, among rows that came home.
const CACHED: &str = "md-raid5-3-r5l-write-back+unreplayed";
/// Mode write-through, RAID 6: rows that are named whole.
const COMPLETE: &str = "md-raid6-4-r5l+unreplayed";

struct Array {
    entry: Value,
    /// The journal is the last.
    paths: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

/// A meta block of the journal, where its own lie in the ring.
struct Meta {
    at: u64,
    block: Block,
    own: Vec<u64>,
}

impl Array {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let entry = entries().into_iter().find(|entry| entry["name"] == name).unwrap();
        let paths = decompress(&entry, folder.path());
        Self { entry, paths, _folder: folder }
    }

    /// What was acknowledged, the last `less` blocks of it not.
    fn content(&self, less: u64) -> Vec<u8> {
        let ranges = self.entry["ranges"].as_str().unwrap();
        let (before, last) = ranges.rsplit_once(' ').unwrap();
        let (first, count) = last.rsplit_once(':').unwrap();
        let count: u64 = count.parse().unwrap();
        let ranges = format!("{before} {first}:{}", count - less);
        generated(&ranges, self.entry["array_sectors"].as_u64().unwrap() * 512)
    }

    fn journal(&self) -> &PathBuf {
        self.paths.last().unwrap()
    }

    fn superblock(&self, index: usize) -> Superblock {
        let bytes = std::fs::read(&self.paths[index]).unwrap();
        let sectors = u64_of(bytes.len()) / 512;
        Superblock::decode(&bytes[4096..8192], Minor::V2, sectors).unwrap()
    }

    fn ring(&self) -> (Superblock, Ring) {
        let superblock = self.superblock(self.paths.len() - 1);
        let ring = Ring::new(superblock.data_size());
        (superblock, ring)
    }

    /// Reads or changes a block of the ring.
    fn in_ring(&self, at: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let (superblock, _) = self.ring();
        let file = std::fs::File::options().read(true).write(true).open(self.journal()).unwrap();
        let byte = (superblock.data_offset().0 + at) * 512;
        let mut bytes = vec![0; BLOCK_BYTES];
        file.read_exact_at(&mut bytes, byte).unwrap();
        change(&mut bytes);
        file.write_all_at(&bytes, byte).unwrap();
    }

    fn flip_in_ring(&self, at: u64) {
        self.in_ring(at, |bytes| bytes[2000] ^= 0x20);
    }

    /// Every meta block, from the tail on.
    fn chain(&self) -> Vec<Meta> {
        let (superblock, ring) = self.ring();
        let seed = Seed::of(superblock.set_uuid());
        let mut at = superblock.journal_tail().unwrap();
        let mut chain: Vec<Meta> = Vec::new();
        loop {
            let mut decoded = None;
            self.in_ring(at, |bytes| decoded = Block::decode(bytes, seed).ok());
            let next = |last: &Meta| last.block.sequence + 1;
            let follows = |block: &Block| chain.last().is_none_or(|l| next(l) == block.sequence);
            let Some(block) = decoded.filter(follows) else { return chain };
            let own: Vec<u64> = (1..=block.blocks()).map(|n| ring.after(at, n * 8)).collect();
            let after = ring.after(at, (1 + block.blocks()) * 8);
            chain.push(Meta { at, block, own });
            at = after;
        }
    }

    /// What the journal holds, by md's own reader.
    fn found(&self) -> md::journal::Found {
        let (superblock, ring) = self.ring();
        let seed = Seed::of(superblock.set_uuid());
        let shape = (superblock.geometry().unwrap().unwrap(), superblock.size());
        let mut scan = Scan::new(seed, ring, superblock.journal_tail().unwrap(), shape);
        while let Some(wanted) = scan.wanted() {
            let mut all = Vec::new();
            for range in ring.ranges(wanted) {
                for at in range.step_by(8) {
                    self.in_ring(at, |bytes| all.extend_from_slice(bytes));
                }
            }
            scan.feed(Some(&all));
        }
        scan.finish()
    }

    /// Overwrites what is at home of what the journal holds whole: `which` says of which slots.
    fn spoil_home(&self, which: impl Fn(usize, usize) -> bool) -> usize {
        let mut spoilt = 0;
        for (number, (row, held)) in self.found().rows.iter().enumerate() {
            for &(slot, _) in held.complete.iter().filter(|(slot, _)| which(number, *slot)) {
                let file = std::fs::File::options().write(true).open(&self.paths[slot]).unwrap();
                let byte = (self.superblock(slot).data_offset() + row.0).bytes();
                file.write_all_at(&noise(BLOCK_BYTES, u64_of(number) + 1), byte).unwrap();
                spoilt += 1;
            }
        }
        spoilt
    }

    /// All but these.
    fn without(&self, missing: &[usize]) -> Vec<Member> {
        let here = (0..self.paths.len()).filter(|index| !missing.contains(index));
        here.map(|index| Member::Path(self.paths[index].clone())).collect()
    }

    fn read_without(&self, missing: &[usize]) -> (Vec<u8>, u64) {
        let options = OpenOptions::read_only(self.without(missing));
        with_volume(options, |volume| async move { read_all(&volume).await })
    }

    #[track_caller]
    fn must_give(&self, expected: &[u8], missing: &[usize]) {
        let before: Vec<String> =
            self.paths.iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect();
        let (content, bad) = self.read_without(missing);
        assert_eq!(bad, 0, "without {missing:?}");
        let differs = content.chunks(4096).zip(expected.chunks(4096)).position(|(a, b)| a != b);
        assert_eq!(differs, None, "first block that differs without {missing:?}");
        for (path, before) in self.paths.iter().zip(before) {
            assert_eq!(sha256(&std::fs::read(path).unwrap()), before, "nothing is written");
        }
    }

    /// What is said of a sector of the array; a block of the ring rots once it is open.
    fn explained(
        self: &Rc<Self>,
        missing: &[usize],
        sector: Sector,
        rot: Option<u64>,
    ) -> Explained {
        let (options, array) = (OpenOptions::read_only(self.without(missing)), Rc::clone(self));
        run(async move {
            let volume = stack::open(&options).await.unwrap();
            rot.into_iter().for_each(|at| array.flip_in_ring(at));
            let explained = stack::explain(&volume, sector).await;
            volume.close().await.unwrap();
            explained.unwrap()
        })
    }

    /// The block of the journal's file that a place names.
    fn logged_block(&self, place: &stack::LoggedPlace) -> Vec<u8> {
        assert!(place.member.contains(&self.journal().display().to_string()), "{place:?}");
        let mut bytes = vec![0; BLOCK_BYTES];
        let file = std::fs::File::open(self.journal()).unwrap();
        file.read_exact_at(&mut bytes, place.byte.unwrap()).unwrap();
        bytes
    }

    /// Adds a meta block of data without parity behind the journal's end.
    fn log_alone(&self, sector: Sector, data: &[u8]) {
        let (superblock, ring) = self.ring();
        let seed = Seed::of(superblock.set_uuid());
        let chain = self.chain();
        let last = chain.last().unwrap();
        let position = ring.after(last.at, (1 + last.block.blocks()) * 8);
        let payloads = vec![Payload::Data { sector, checksums: vec![seed.checksum(data)] }];
        let block = Block { sequence: last.block.sequence + 1, position, payloads };
        self.in_ring(position, |old| old.copy_from_slice(&block.encode(seed)));
        self.in_ring(ring.after(position, 8), |old| old.copy_from_slice(data));
    }

    fn refusal(&self, missing: &[usize], read_only: bool) -> String {
        let options = OpenOptions { read_only, ..OpenOptions::read_only(self.without(missing)) };
        run(async move { stack::open(&options).await.err().unwrap().to_string() })
    }
}

#[test]
fn what_the_kernel_acknowledged_is_what_is_read() {
    for name in [CACHED, COMPLETE] {
        let array = Array::new(name);
        let expected = array.content(0);
        assert_eq!(
            sha256(&expected),
            array.entry["expect_sha256"].as_str().unwrap(),
            "the kernel's"
        );
        array.must_give(&expected, &[]);
    }
}

#[test]
fn data_without_parity_is_read_whoever_is_missing() {
    let array = Array::new(CACHED);
    assert!(array.found().rows.data_only().count() > 50, "that is what it holds");
    for missing in 0..3 {
        array.must_give(&array.content(0), &[missing]);
    }
}

#[test]
fn home_may_be_half_written_wherever_the_journal_is_whole_and_any_two_of_a_raid6_are_missing() {
    let all: fn(usize, usize) -> bool = |_, _| true;
    let some: fn(usize, usize) -> bool = |number, slot| (number + slot) % 2 == 0;
    for which in [all, some] {
        let array = Array::new(COMPLETE);
        assert!(array.spoil_home(which) > 50);
        let expected = array.content(0);
        array.must_give(&expected, &[]);
        for first in 0..4 {
            array.must_give(&expected, &[first]);
            for second in first + 1..4 {
                array.must_give(&expected, &[first, second]);
            }
        }
    }
}

#[test]
fn rows_that_were_flushed_are_read_from_home() {
    // In the kernel's own journal all rows with parity came home: data alone is left.
    let array = Array::new(CACHED);
    let payloads: Vec<Payload> =
        array.chain().into_iter().flat_map(|meta| meta.block.payloads).collect();
    let count = |is: fn(&Payload) -> bool| payloads.iter().filter(|payload| is(payload)).count();
    assert!(count(|payload| matches!(payload, Payload::Parity { .. })) > 50);
    assert!(count(|payload| matches!(payload, Payload::Flush { .. })) > 50);
    assert!(array.found().rows.iter().all(|(_, row)| row.complete.is_empty()));

    // One more flush, and what lies at home of its row counts, whatever the journal had before it.
    let array = Array::new(COMPLETE);
    let (superblock, ring) = array.ring();
    let chain = array.chain();
    let last = chain.last().unwrap();
    let position = ring.after(last.at, (1 + last.block.blocks()) * 8);
    let geometry = superblock.geometry().unwrap().unwrap();
    let found = array.found();
    let (row, held) = found.rows.iter().next().unwrap();
    let (stripe, offset) = (row.0 / geometry.chunk_sectors(), row.0 % geometry.chunk_sectors());
    let slot = geometry.data_slot(stripe, 0);
    assert!(held.complete.iter().any(|(holder, _)| *holder == slot));
    let file = std::fs::File::options().write(true).open(&array.paths[slot]).unwrap();
    let byte = (array.superblock(slot).data_offset() + row.0).bytes();
    let home = noise(BLOCK_BYTES, 77);
    file.write_all_at(&home, byte).unwrap();
    array.must_give(&array.content(0), &[]);
    let sequence = last.block.sequence + 1;
    let block = Block { sequence, position, payloads: vec![Payload::Flush { rows: vec![row] }] };
    let bytes = block.encode(Seed::of(superblock.set_uuid()));
    array.in_ring(position, |old| old.copy_from_slice(&bytes));
    let at = usize_of(geometry.array_sector(stripe, 0, offset).bytes());
    let mut expected = array.content(0);
    expected[at..at + BLOCK_BYTES].copy_from_slice(&home);
    array.must_give(&expected, &[]);
}

#[test]
fn a_ring_that_goes_on_at_its_start_is_read_to_its_end() {
    for name in [CACHED, COMPLETE] {
        let array = Array::new(name);
        let (superblock, ring) = array.ring();
        let chain = array.chain();
        let offset = usize_of(superblock.data_offset().bytes());
        let old = std::fs::read(array.journal()).unwrap();
        // The third block that follows a meta block with many is behind the ring's end.
        let large = chain.iter().find(|meta| meta.own.len() > 8).unwrap();
        let turn = ring.sectors() - large.own[2];
        let mut new = old.clone();
        let place = |at: u64| offset + usize_of(at * 512);
        for at in (0..ring.sectors()).step_by(8) {
            let (from, to) = (place(at), place(ring.after(at, turn)));
            new[to..to + BLOCK_BYTES].copy_from_slice(&old[from..from + BLOCK_BYTES]);
        }
        for Meta { at, block, .. } in &chain {
            let position = ring.after(*at, turn);
            let bytes = Block { position, ..block.clone() }.encode(Seed::of(superblock.set_uuid()));
            new[place(position)..place(position) + BLOCK_BYTES].copy_from_slice(&bytes);
        }
        let tail = ring.after(superblock.journal_tail().unwrap(), turn);
        new[4096 + 152..4096 + 160].copy_from_slice(&tail.to_le_bytes());
        reseal(&mut new[4096..4096 + SUPERBLOCK_BYTES]);
        std::fs::write(array.journal(), new).unwrap();
        assert!(array.chain().iter().any(|meta| meta.own.contains(&0)), "it goes over the end");
        array.must_give(&array.content(0), &[]);
        array.must_give(&array.content(0), &[1]);
    }
}

/// The checksum of a superblock that was changed (the md specification, section 2).
fn reseal(superblock: &mut [u8]) {
    superblock[216..220].fill(0);
    let slots = u32::from_le_bytes(superblock[220..224].try_into().unwrap());
    let summed = &superblock[..256 + 2 * usize_of(slots.into())];
    let words = summed.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    let sum: u64 = words.map(u64::from).sum();
    let folded = (sum & 0xFFFF_FFFF) + (sum >> 32);
    superblock[216..220].copy_from_slice(&folded.to_le_bytes()[..4]);
}

#[test]
fn what_was_torn_at_the_end_is_old_and_all_before_it_is_there() {
    for name in [CACHED, COMPLETE] {
        let array = Array::new(name);
        let mut chain = array.chain();
        // The mark of the flush that acknowledged it goes with it.
        let is_flush_mark = |meta: &Meta| meta.block.payloads.is_empty();
        if let Some(mark) = chain.pop_if(|meta| is_flush_mark(meta)) {
            array.in_ring(mark.at, |bytes| bytes.fill(0));
        }
        let last = chain.last().unwrap();
        for torn in last.own.iter().chain([&last.at]) {
            array.flip_in_ring(*torn);
            let (content, bad) = array.read_without(&[]);
            assert_eq!(bad, 0);
            if name == CACHED {
                assert!(content == array.content(1), "the last block is as it was");
            } else {
                // It had come home meanwhile.
                assert!(content == array.content(0));
            }
            array.flip_in_ring(*torn);
        }
    }
}

#[test]
fn damage_in_the_middle_is_refused_by_name_and_force_reads_what_comes_before_it() {
    let array = Array::new(CACHED);
    let chain = array.chain();
    let first_data = |meta: &&Meta| {
        let wanted = |payload: &Payload| matches!(payload, Payload::Data { sector, .. } if *sector == Sector(5600));
        meta.block.payloads.iter().any(wanted)
    };
    let rotten = chain.iter().find(first_data).unwrap();
    for at in [rotten.at, rotten.own[0]] {
        array.flip_in_ring(at);
        let refused = array.refusal(&[], true);
        let words = [
            "3.img: the write journal: ",
            &format!("the block at sector {} does not hold", rotten.at),
        ];
        assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
        let told = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&told);
        let on_event = Rc::new(move |event: &Event| seen.borrow_mut().push(event.detail.clone()));
        let options = OpenOptions::read_only(array.without(&[]));
        let options = OpenOptions { force: true, on_event, ..options };
        let (content, bad) = with_volume(options, |volume| async move { read_all(&volume).await });
        let ranges = "se1:0:640 se2:3:4 se1:768:192 se2:40:3 se2:320:32";
        assert!(bad == 0 && content == generated(ranges, u64_of(content.len())));
        assert!(told.borrow().iter().any(|line| line.contains("is lost: ")), "{told:?}");
        array.flip_in_ring(at);
    }
    array.flip_in_ring(chain[0].at);
    let refused = array.refusal(&[], true);
    assert!(refused.contains("its first block, at sector"), "{refused}");
}

#[test]
fn what_rots_in_the_journal_while_the_array_is_open_is_an_error_or_made_from_parity() {
    let array = Array::new(CACHED);
    let last = array.found().rows.data_only().find(|(sector, _)| *sector == Sector(528)).unwrap();
    let options = OpenOptions::read_only(array.without(&[]));
    let expected = array.content(0);
    let (content, bad) = with_volume(options, move |volume| async move {
        array.flip_in_ring(last.1.at);
        read_all(&volume).await
    });
    assert_eq!(bad, 4096, "data without parity is nowhere else");
    let lost = 528 * 512..528 * 512 + 4096;
    assert!(content[..lost.start] == expected[..lost.start]);
    assert!(content[lost.end..] == expected[lost.end..]);

    let array = Array::new(COMPLETE);
    array.spoil_home(|_, _| true);
    let place = |(_, row): (Sector, &md::journal::Row)| row.complete[0].1;
    let places: Vec<md::journal::Place> = array.found().rows.iter().map(place).collect();
    let options = OpenOptions::read_only(array.without(&[]));
    let expected = array.content(0);
    let (content, bad) = with_volume(options, move |volume| async move {
        places.iter().for_each(|place| array.flip_in_ring(place.at));
        read_all(&volume).await
    });
    assert!(bad == 0 && content == expected, "each row has one block that rotted");
}

#[test]
fn without_its_journal_an_array_is_refused_though_it_calls_itself_clean() {
    let array = Array::new(CACHED);
    let journal = array.paths.len() - 1;
    let refused = array.refusal(&[journal], true);
    assert!(refused.contains("its journal device is missing or stale"), "{refused}");
    let options = OpenOptions { force: true, ..OpenOptions::read_only(array.without(&[journal])) };
    let (content, bad) = with_volume(options, |volume| async move { read_all(&volume).await });
    assert!(bad == 0 && content != array.content(0), "the newest is in the journal only");
}

#[test]
fn without_its_journal_no_array_is_written_not_even_by_force() {
    let array = Array::new(CACHED);
    let members = array.without(&[array.paths.len() - 1]);
    let options = OpenOptions { read_only: false, force: true, ..OpenOptions::read_only(members) };
    let refused = run(async move { stack::open(&options).await.err().unwrap().to_string() });
    assert!(
        refused.contains("without its journal device is not implemented for writing"),
        "{refused}"
    );
}

#[test]
fn opened_for_writing_it_comes_home_and_what_is_written_then_goes_through_the_journal() {
    for (name, missing) in [(CACHED, &[][..]), (CACHED, &[1]), (COMPLETE, &[]), (COMPLETE, &[0, 2])]
    {
        let array = Array::new(name);
        if name == COMPLETE {
            assert!(array.spoil_home(|_, _| true) > 50);
        }
        let mut expected = array.content(0);
        let writable = |array: &Array| OpenOptions {
            read_only: false,
            ..OpenOptions::read_only(array.without(missing))
        };
        let (content, bad) =
            with_volume(writable(&array), |volume| async move { read_all(&volume).await });
        assert!(bad == 0 && content == expected);
        assert_eq!((array.found().ended, array.found().rows.blocks()), (Ended::Here, 0));
        array.must_give(&expected, missing);

        let new = noise(40 * BLOCK_BYTES, 3);
        let data = bio::Buf::copy_of(&new);
        // Never closed: what was flushed is in the journal, and may be nowhere else.
        let options = writable(&array);
        run(async move {
            let volume = stack::open(&options).await.unwrap();
            volume.device().write(Sector(128), data).await.unwrap();
            volume.device().flush().await.unwrap();
        });
        expected[128 * 512..128 * 512 + new.len()].copy_from_slice(&new);
        assert!(array.found().rows.blocks() >= 40 && array.found().ended == Ended::Here);
        let spoilt = array.spoil_home(|_, slot| !missing.contains(&slot));
        assert!(spoilt >= 20, "{spoilt}");
        array.must_give(&expected, missing);
        let clean = (0..array.paths.len()).filter(|index| !missing.contains(index));
        for index in clean {
            assert_eq!(array.superblock(index).resync(), ResyncOffset::Clean);
        }
    }
}

#[test]
fn the_journal_is_named_and_counted() {
    for (name, data_parity, data_only) in [(CACHED, "0", "53"), (COMPLETE, "41", "0")] {
        let array = Array::new(name);
        let named = array.without(&[]);
        let inspection = run(async move { stack::inspect(&named, &Given::default()).await });
        let md = inspection.members.last().unwrap().md.as_ref().unwrap();
        assert_eq!(md.write_journal_problem, None);
        let field = |name: &str| {
            let fields = md.write_journal.as_ref().unwrap();
            fields.iter().find(|field| field.name == name).unwrap().value.clone()
        };
        // As the kernel counted when it recovered the same images; six rows twice, which were logged twice.
        assert_eq!(field("data-parity stripes"), data_parity);
        assert_eq!(field("data-only stripes"), data_only);
        assert!(inspection.members[0].md.as_ref().unwrap().write_journal.is_none());
        assert_eq!(inspection.groups[0].problem, None);

        let blocks = array.found().rows.blocks();
        let journal = array.journal().display().to_string();
        let options = OpenOptions::read_only(array.without(&[]));
        let status = with_volume(options, |volume| async move { volume.status() });
        let told = status.write_journal.as_ref().unwrap();
        assert!(status.is_healthy() && told.blocks == blocks && told.member.contains(&journal));
        assert_eq!(status.members.last().unwrap().state, MemberState::Journal);
    }
}

/// Where the candidates of `slot` lie, and what their tags or checksums say.
fn candidates(explained: &Explained, slot: usize) -> Vec<(Whereabouts, TagVerdict)> {
    let all = &explained.evidence.as_ref().unwrap().candidates;
    all.iter().filter(|one| one.slot == slot).map(|one| (one.lies, one.verdict)).collect()
}

fn parity_agrees(explained: &Explained) -> (Option<bool>, Option<bool>) {
    let evidence = explained.evidence.as_ref().unwrap();
    (evidence.p_agrees, evidence.q_agrees)
}

/// Bytes in which what `from` says differs, and whether its tag or checksum agrees.
fn instead(explained: &Explained, from: &str) -> Option<(Option<usize>, Option<bool>)> {
    let all = &explained.evidence.as_ref().unwrap().reconstructions;
    let found = all.iter().find(|one| one.from == from)?;
    Some((found.differing_bytes, found.vouched))
}

#[test]
fn explain_shows_data_without_parity_as_the_newest_and_home_which_parity_agrees_with_beside_it() {
    let array = Rc::new(Array::new(CACHED));
    let expected = array.content(0);
    let sector = Sector(528);
    let explained = array.explained(&[], sector, None);
    let slot = explained.places[0].slot.unwrap();
    let [logged] = &explained.places[0].write_journal[..] else { panic!("{explained:?}") };
    assert_eq!((logged.lies, logged.agrees), (Whereabouts::JournalAlone, Some(true)));
    let from = usize_of(sector.bytes());
    assert!(array.logged_block(logged) == expected[from..from + BLOCK_BYTES]);
    let newest = (Whereabouts::JournalAlone, TagVerdict::Valid);
    let home = (Whereabouts::Home, TagVerdict::Untagged);
    assert_eq!(candidates(&explained, slot), [newest, home]);
    assert_eq!(parity_agrees(&explained), (Some(true), None), "of what is home");
    let (differing, vouched) = instead(&explained, stack::FROM_JOURNAL).unwrap();
    assert!(differing > Some(4000) && vouched == Some(true), "{explained:?}");
    assert!(explained.places[1].write_journal.is_empty(), "it has no parity");

    // Its member is missing: it is there all the same.
    let explained = array.explained(&[slot], sector, None);
    assert_eq!(explained.places[0].member, None);
    assert_eq!(explained.places[0].write_journal.len(), 1);
    let missing = (Whereabouts::Home, TagVerdict::Missing);
    assert_eq!(candidates(&explained, slot), [newest, missing]);

    // What nobody wrote lately is home alone.
    let (geometry, found) = (array.ring().0.geometry().unwrap().unwrap(), array.found());
    let mut rows = (0..).step_by(8).map(Sector);
    let row = rows.find(|&row| found.rows.row(row).is_none()).unwrap();
    let (stripe, offset) = (row.0 / geometry.chunk_sectors(), row.0 % geometry.chunk_sectors());
    let untouched = array.explained(&[], geometry.array_sector(stripe, 0, offset), None);
    assert!(untouched.places.iter().all(|place| place.write_journal.is_empty()));
    let all = &untouched.evidence.as_ref().unwrap().candidates;
    assert!(all.len() == 3 && all.iter().all(|one| one.lies == Whereabouts::Home), "{all:?}");
}

#[test]
fn explain_shows_what_the_journal_brings_home_and_compares_parity_with_that() {
    let array = Rc::new(Array::new(COMPLETE));
    assert!(array.spoil_home(|_, _| true) > 50);
    let expected = array.content(0);
    let (superblock, _) = array.ring();
    let geometry = superblock.geometry().unwrap().unwrap();
    let found = array.found();
    let (row, _) = found.rows.iter().next().unwrap();
    let (stripe, offset) = (row.0 / geometry.chunk_sectors(), row.0 % geometry.chunk_sectors());
    let slot = geometry.data_slot(stripe, 0);
    // Not the first sector of its block.
    let sector = geometry.array_sector(stripe, 0, offset) + 3;
    let explained = array.explained(&[], sector, None);
    let [logged] = &explained.places[0].write_journal[..] else { panic!("{explained:?}") };
    assert_eq!((logged.lies, logged.agrees), (Whereabouts::Journal, Some(true)));
    let from = usize_of(sector.bytes());
    assert!(array.logged_block(logged)[..512] == expected[from..from + 512]);
    let newest = (Whereabouts::Journal, TagVerdict::Valid);
    let home = (Whereabouts::Home, TagVerdict::Untagged);
    assert_eq!(candidates(&explained, slot), [newest, home]);
    assert_eq!(parity_agrees(&explained), (Some(true), Some(true)), "home is noise");
    assert_eq!(instead(&explained, "P"), Some((Some(0), Some(true))));
    let (differing, vouched) = instead(&explained, stack::FROM_HOME).unwrap();
    assert!(differing > Some(4000) && vouched.is_none(), "{explained:?}");
    assert!(explained.places[1..].iter().all(|parity| parity.write_journal.len() == 1));

    // Data without parity that came after it is the newest of three.
    array.log_alone(Sector(sector.0 - 3), &noise(BLOCK_BYTES, 5));
    let explained = array.explained(&[], sector, None);
    let alone = (Whereabouts::JournalAlone, TagVerdict::Valid);
    assert_eq!(candidates(&explained, slot), [alone, newest, home]);
    let [first, second] = &explained.places[0].write_journal[..] else { panic!("{explained:?}") };
    assert_eq!((first.lies, second.lies), (Whereabouts::JournalAlone, Whereabouts::Journal));
    assert!(array.logged_block(first)[..512] == noise(BLOCK_BYTES, 5)[3 * 512..4 * 512]);
    assert_eq!(parity_agrees(&explained), (Some(true), Some(true)));

    // It rots while the array is open.
    let place = found.rows.row(row).unwrap().complete.iter().find(|one| one.0 == slot).unwrap().1;
    let explained = array.explained(&[], sector, Some(place.at));
    assert_eq!(explained.places[0].write_journal[1].agrees, Some(false));
    let rotten = (Whereabouts::Journal, TagVerdict::Invalid);
    assert_eq!(candidates(&explained, slot), [alone, rotten, home]);
    assert_eq!(parity_agrees(&explained), (Some(false), Some(false)));
    assert_eq!(instead(&explained, "P"), Some((Some(1), Some(true))), "it is made from the others");
}
