//! `kill -9` while a client writes: afterwards everything that was flushed is there, and every
//! other sector is as some write left it.

use crate::support::nbd::Client;
use crate::support::volume::on;
use crate::support::{MIB, SECTOR, Server, Shape, Volume, qemu_io};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the volume that are written.
const WRITTEN: u64 = 4 * MIB;
const BLOCK: u64 = 4096;
/// Blocks of the longest write: longer than a chunk.
const BLOCKS_MAX: u64 = 12;
/// Writes that are under way together, at most.
const BATCH_MAX: u64 = 12;

/// What each sector may hold: numbers of writes, the last flushed one first, 0 for zeroes.
struct Oracle {
    allowed: HashMap<u64, Vec<u64>>,
    write: u64,
}

impl Oracle {
    fn new() -> Self {
        Self { allowed: HashMap::new(), write: 0 }
    }

    /// What write number `write` puts into `sector`.
    fn content(write: u64, sector: u64) -> [u8; 512] {
        let mut bytes = [0; 512];
        if write == 0 {
            return bytes;
        }
        let mut state = write.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (sector << 20) | 1;
        for word in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        bytes
    }

    /// Every sector is old or new; from now on it is what it was found to be.
    fn compare(&mut self, found: &[u8], when: &str) {
        for (sector, bytes) in (0..).zip(found.chunks(512)) {
            let allowed = self.allowed.entry(sector).or_insert_with(|| vec![0]);
            let is = |write: &&u64| Self::content(**write, sector) == bytes;
            match allowed.iter().find(is) {
                Some(&write) => *allowed = vec![write],
                None => {
                    panic!("{when}: sector {sector} is none of {allowed:?}: {:02x?}", &bytes[..16])
                }
            }
        }
    }

    /// Writes and flushes until the server is gone. `done` counts what was answered.
    fn write_on(&mut self, client: &mut Client, random: &mut Random, done: &AtomicU64) {
        loop {
            let mut writes: Vec<(u64, Vec<u8>)> = Vec::new();
            let mut touched: HashMap<u64, u64> = HashMap::new();
            for _ in 0..=random.below(BATCH_MAX) {
                let first = random.below(WRITTEN / BLOCK);
                let blocks = (1 + random.below(BLOCKS_MAX)).min(WRITTEN / BLOCK - first);
                let sectors = first * BLOCK / SECTOR..(first + blocks) * BLOCK / SECTOR;
                // Which of two writes to one place comes last is nobody's promise.
                if sectors.clone().any(|sector| touched.contains_key(&sector)) {
                    continue;
                }
                self.write += 1;
                let mut data = Vec::new();
                for sector in sectors {
                    touched.insert(sector, self.write);
                    self.allowed.entry(sector).or_insert_with(|| vec![0]).push(self.write);
                    data.extend(Self::content(self.write, sector));
                }
                writes.push((first * BLOCK, data));
            }
            if client.write_all(&writes).is_err() {
                return;
            }
            done.fetch_add(1, Ordering::Relaxed);
            if random.below(3) == 0 {
                if client.flush().is_err() {
                    return;
                }
                for allowed in self.allowed.values_mut() {
                    // All writes were answered before the flush was sent: the last one stays.
                    allowed.drain(..allowed.len() - 1);
                }
            }
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// Serves, writes, kills after some batches of writes.
fn crash(volume: &Volume, oracle: &mut Oracle, random: &mut Random, force: bool) {
    let batches = 1 + random.below(40);
    let server = volume.serve(if force { &["--force"] } else { &[] });
    let done = AtomicU64::new(0);
    let mut client = Client::connect(&server.socket).expect("the server is ready");
    assert_eq!(client.bytes, volume.bytes);
    let mut own = Random(random.below(u64::MAX) | 1);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| oracle.write_on(&mut client, &mut own, &done));
        while done.load(Ordering::Relaxed) < batches && !writer.is_finished() {
            std::thread::yield_now();
        }
        server.kill();
        writer.join().expect("the server answers or is gone");
    });
    // The kernel finishes what was in flight; the members are locked until then.
    volume.run("status", &["-q"]);
}

const ROUNDS: u64 = 10;

fn crashes_lose_nothing(shape: Shape, seed: u64) {
    let volume = Volume::create(shape);
    let mut oracle = Oracle::new();
    let mut random = Random(seed);
    for round in 0..ROUNDS {
        crash(&volume, &mut oracle, &mut random, false);
        let when = format!("{shape:?}, round {round}");
        let before = volume.hashes();
        let said = volume.run("export", &["--to", "-", "-q"]);
        assert!(said.code <= 1, "{when}: {said}");
        oracle.compare(&said.stdout[..4 << 20], &when);
        assert!(said.stdout[4 << 20..].iter().all(|&byte| byte == 0), "{when}");
        assert_eq!(volume.hashes(), before, "{when}: looking writes nothing");
        // Every other time the next server meets the volume as the crash left it.
        if round % 2 == 1 {
            whole_again(&volume, &mut oracle, &when);
        }
    }
}

/// After a repairing scrub nothing is wrong, and all is as it was.
fn whole_again(volume: &Volume, oracle: &mut Oracle, when: &str) {
    let said = volume.run("scrub", &["--json"]);
    assert!(said.code <= 1, "{when}: {said}");
    let scrubbed = said.object();
    assert_eq!(scrubbed["unreadable"]["sectors"], 0, "{when}: {said}");
    assert_eq!(scrubbed["inconsistent"]["sectors"], 0, "{when}: {said}");
    volume.run("scrub", &["--check"]).ended(0);
    let (code, exported) = volume.export();
    assert_eq!(code, 0, "{when}");
    oracle.compare(&exported[..4 << 20], when);
}

#[test]
fn a_single_member_of_4096_byte_blocks_survives_kill_9() {
    crashes_lose_nothing(Shape::tagged("none", 4096), 1);
}

#[test]
fn a_single_member_of_512_byte_blocks_survives_kill_9() {
    crashes_lose_nothing(Shape::tagged("none", 512), 2);
}

#[test]
fn raid1_survives_kill_9() {
    crashes_lose_nothing(Shape::tagged("1", 4096), 3);
}

#[test]
fn raid1_without_tags_survives_kill_9() {
    crashes_lose_nothing(Shape::plain("1"), 4);
}

#[test]
fn raid5_survives_kill_9() {
    crashes_lose_nothing(Shape::tagged("5", 4096), 5);
}

#[test]
fn raid5_over_512_byte_blocks_survives_kill_9() {
    crashes_lose_nothing(Shape::tagged("5", 512), 6);
}

#[test]
fn raid5_without_tags_survives_kill_9() {
    crashes_lose_nothing(Shape::plain("5"), 7);
}

#[test]
fn raid6_survives_kill_9() {
    crashes_lose_nothing(Shape::tagged("6", 4096), 8);
}

#[test]
fn raid6_without_tags_survives_kill_9() {
    crashes_lose_nothing(Shape::plain("6"), 9);
}

/// Kills the server of a volume whose first MiB is written and flushed, while the array is dirty:
/// it is clean before the first write reaches a member, and again a moment after the last.
fn left_dirty(volume: &Volume) -> Oracle {
    let data = |write: u64, sectors: Range<u64>| -> Vec<u8> {
        sectors.flat_map(|sector| Oracle::content(write, sector)).collect()
    };
    let flushed = (0..2048).map(|sector| (sector, vec![1]));
    let allowed = flushed.chain((2048..4096).map(|sector| (sector, vec![0, 2]))).collect();
    for _ in 0..20 {
        let server = volume.serve(&[]);
        let mut client = Client::connect(&server.socket).expect("the server is ready");
        client.write_all(&[(0, data(1, 0..2048))]).expect("it is served");
        client.flush().expect("it is served");
        client.write_all(&[(MIB, data(2, 2048..4096))]).expect("it is served");
        server.kill();
        if volume.run("status", &["--json"]).object()["was_dirty"] == true {
            return Oracle { allowed, write: 2 };
        }
    }
    panic!("twenty kills, and the array was clean each time");
}

#[test]
fn an_interrupted_scrub_of_a_dirty_array_goes_on_later() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let mut oracle = left_dirty(&volume);
    whole_again(&volume, &mut oracle, "after the crash");
    let said = volume.run("status", &["--json"]).ended(0).object();
    assert_eq!((&said["was_dirty"], &said["state"]), (&false.into(), &"healthy".into()), "{said}");
}

#[test]
fn degraded_and_dirty_is_refused_unless_forced() {
    for shape in [Shape::tagged("5", 4096), Shape::plain("5"), Shape::tagged("6", 4096)] {
        let volume = Volume::create(shape);
        let mut oracle = left_dirty(&volume);
        let gone: Vec<usize> = (0..shape.redundancy()).collect();
        let rest = volume.without(&gone);
        let before = volume.hashes();
        let listen = format!("unix:{}", crate::support::text(&volume.path("s")));
        on("serve", &rest, &["--nbd", &listen]).one_line(3, &["not closed cleanly", "--force"]);
        let file = volume.file("source", b"x");
        let source = crate::support::text(&file);
        on("import", &rest, &["--from", source]).one_line(3, &["--force"]);
        on("scrub", &rest, &[]).one_line(3, &["--force"]);
        assert_eq!(volume.hashes(), before, "{shape:?}");

        let server = Server::start(&rest, volume.folder.path(), &["--force"]);
        assert!(server.stderr().contains("--force"), "the consequences are told first");
        qemu_io(&server.uri, "read 0 1M").unwrap_or_else(|text| panic!("{shape:?}: {text}"));
        let said = server.stop();
        assert!((1..=2).contains(&said.code), "{said}");
        let said = on("export", &rest, &["-q", "--force", "--to", "-"]);
        assert!((1..=2).contains(&said.code), "{said}");
        oracle.compare(&said.stdout[..1 << 20], "forced");
    }
}
