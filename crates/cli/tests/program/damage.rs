//! Flipped bits: found, told with the right exit code, healed where evidence allows, and otherwise
//! given back as errors in exactly the right places.

use crate::support::volume::located;
use crate::support::{SECTOR, Server, Shape, Volume, flip, noise, other, qemu_io, text};
use serde_json::Value;
use std::path::Path;

/// Runs of bytes: offset, length.
type Ranges = Vec<(u64, u64)>;

/// What a ddrescue mapfile says: runs that were read, and runs that were not. They follow each
/// other without gap.
fn mapfile(path: &Path) -> (Ranges, Ranges) {
    let text = std::fs::read_to_string(path).expect("it was made");
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    let (mut good, mut bad, mut end) = (Vec::new(), Vec::new(), 0);
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| {
            let digits = word.strip_prefix("0x").unwrap_or_else(|| panic!("{text}"));
            u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{text}"))
        };
        let run = (number(words[0]), number(words[1]));
        assert_eq!(run.0, end, "no gap: {text}");
        end = run.0 + run.1;
        match words[2] {
            "+" => good.push(run),
            "-" => bad.push(run),
            _ => panic!("{text}"),
        }
    }
    (good, bad)
}

/// What `nbdinfo --map=steadfast:integrity` calls unreadable.
fn unreadable(server: &Server) -> Ranges {
    let arguments = ["--map=steadfast:integrity", "--json", &server.uri];
    let said = other("nbdinfo", "libnbd-bin", arguments).ended(0);
    let map: Value = serde_json::from_str(&said.text()).unwrap_or_else(|e| panic!("{e}: {said}"));
    let mut found: Ranges = Vec::new();
    for extent in map.as_array().expect("a list") {
        let number = |name: &str| extent[name].as_u64().expect("a number");
        let (offset, length) = (number("offset"), number("length"));
        match number("type") {
            0 => {}
            1 => match found.last_mut() {
                Some(last) if last.0 + last.1 == offset => last.1 += length,
                _ => found.push((offset, length)),
            },
            _ => panic!("{map}"),
        }
    }
    found
}

fn sectors(object: &Value, finding: &str) -> u64 {
    object[finding]["sectors"].as_u64().unwrap_or_else(|| panic!("{object}"))
}

/// Damages data, tags and superblocks of as many members as may be damaged at once.
fn damage_what_can_be_spared(volume: &Volume) {
    let damaged: Vec<usize> = (0..volume.shape.redundancy()).map(|n| n * 2).collect();
    for n in 0..40 {
        let sector = (n * 7919) % (volume.bytes / SECTOR);
        for place in volume.explain(sector)["places"].as_array().expect("a list") {
            let (slot, data, tag) = located(place);
            if damaged.contains(&slot) {
                let tag = tag.expect("these members have tags");
                flip(&volume.members[slot], if n % 3 == 0 { tag + n % 4 } else { data + n * 11 });
            }
        }
    }
    for &slot in &damaged {
        // A byte of provided_data_sectors.
        flip(&volume.members[slot], 17);
    }
    if let &[slot] = &damaged[..] {
        // The md superblock lies in the same run of data sectors as the first sector.
        let places = volume.explain(0)["places"].clone();
        let places = places.as_array().expect("a list");
        let place =
            places.iter().find(|place| place["slot"] == slot).expect("every stripe has all");
        let first = place["member_sector"].as_u64().expect("a number");
        flip(&volume.members[slot], located(place).1 - (first - 8) * SECTOR + 20);
    }
}

fn damage_heals(shape: Shape) {
    let volume = Volume::create(shape);
    let bytes = volume.fill(1);
    damage_what_can_be_spared(&volume);
    let before = volume.hashes();

    let status = volume.run("status", &["--json"]).ended(1).object();
    assert_ne!(status["state"], "healthy", "{status}");
    let (target, map) = (volume.path("target"), volume.path("map"));
    let options = ["--to", text(&target), "--map", text(&map), "--json"];
    let said = volume.run("export", &options).ended(1).object();
    assert_eq!((&said["unreadable_bytes"], &said["complete"]), (&0.into(), &true.into()));
    assert!(std::fs::read(&target).expect("it was made") == bytes, "{shape:?}: all data right");
    assert_eq!(mapfile(&map), (vec![(0, volume.bytes)], vec![]));
    let checked = volume.run("scrub", &["--check", "--json"]).ended(1).object();
    assert!(sectors(&checked, "healable") > 0, "{checked}");
    assert_eq!((sectors(&checked, "healed"), sectors(&checked, "unreadable")), (0, 0), "{checked}");
    volume.run("explain", &["--sector", "0"]).with(&[]);
    assert_eq!(volume.hashes(), before, "{shape:?}: looking writes nothing");

    let healed = volume.run("scrub", &["--json"]).ended(1).object();
    assert!(sectors(&healed, "healed") > 0, "{healed}");
    assert_eq!((sectors(&healed, "unreadable"), sectors(&healed, "inconsistent")), (0, 0));
    let after = volume.hashes();
    volume.run("scrub", &["--check"]).ended(0);
    volume.run("scrub", &[]).ended(0).with(&[]);
    let (code, exported) = volume.export();
    assert!(code == 0 && exported == bytes, "{shape:?}: {code}");
    volume.run("status", &[]).ended(0);
    assert_eq!(volume.hashes()[0], after[0], "{shape:?}: nothing was left to heal");
}

#[test]
fn raid1_over_512_byte_blocks_heals() {
    damage_heals(Shape::tagged("1", 512));
}

#[test]
fn raid1_over_4096_byte_blocks_heals() {
    damage_heals(Shape::tagged("1", 4096));
}

#[test]
fn raid5_over_512_byte_blocks_heals() {
    damage_heals(Shape::tagged("5", 512));
}

#[test]
fn raid5_over_4096_byte_blocks_heals() {
    damage_heals(Shape::tagged("5", 4096));
}

#[test]
fn raid6_over_512_byte_blocks_heals_two_members() {
    damage_heals(Shape::tagged("6", 512));
}

#[test]
fn raid6_over_4096_byte_blocks_heals_two_members() {
    damage_heals(Shape::tagged("6", 4096));
}

#[test]
fn what_a_client_reads_is_healed_on_the_way() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    let bytes = volume.fill(2);
    damage_what_can_be_spared(&volume);
    let server = volume.serve(&[]);
    let copy = volume.path("copy");
    other("nbdcopy", "libnbd-bin", [server.uri.as_str(), text(&copy)]).ended(0);
    assert!(std::fs::read(&copy).expect("it was made") == bytes);
    assert_eq!(unreadable(&server), []);
    volume.run("status", &[]).ended(1);
    let said = volume.run("scrub", &["--json"]);
    assert!(said.code <= 1, "what readers did not touch may be left: {said}");
    server.stop().ended(1);
    volume.run("scrub", &["--check"]).ended(0);
}

#[test]
fn export_heals_only_when_asked() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let bytes = volume.fill(3);
    let (slot, data, _) = volume.place(1000);
    flip(&volume.members[slot], data + 5);
    let before = volume.hashes();
    let (code, exported) = volume.export();
    assert!(code == 1 && exported == bytes);
    assert_eq!(volume.hashes(), before);
    let said = volume.run("export", &["-q", "--heal", "--to", "-"]).ended(1);
    assert!(said.stdout == bytes);
    assert_ne!(volume.hashes(), before);
    volume.run("scrub", &["--check"]).ended(0);
    assert_eq!(volume.export(), (0, bytes));
}

/// Damages all that could give these sectors' blocks back; gives the lost runs of bytes.
fn lose(volume: &Volume, lost: &[u64]) -> Ranges {
    let block = volume.shape.block();
    let mut ranges = Ranges::new();
    for (n, &sector) in (0_u64..).zip(lost) {
        for (n, place) in (n..).zip(volume.explain(sector)["places"].as_array().expect("a list")) {
            let (slot, data, tag) = located(place);
            let tag = tag.expect("these members have tags");
            // All of the data, and some of the tags: what lies there is right nowhere.
            flip(&volume.members[slot], data + n);
            if n % 2 == 1 {
                flip(&volume.members[slot], tag);
            }
        }
        ranges.push((sector * SECTOR / block * block, block));
    }
    ranges.sort_unstable();
    ranges
}

/// The sectors that are lost: far from each other, so that each is lost alone.
const LOST: [u64; 3] = [3210, 17, 12_345];

fn damage_beyond_redundancy(shape: Shape) {
    let volume = Volume::create(shape);
    let bytes = volume.fill(4);
    let lost = lose(&volume, &LOST);
    let before = volume.hashes();
    let mut wanted = bytes.clone();
    for &(offset, length) in &lost {
        wanted[index(offset)..index(offset + length)].fill(0);
    }

    let (target, map) = (volume.path("target"), volume.path("map"));
    let options = ["--to", text(&target), "--map", text(&map), "--json"];
    let said = volume.run("export", &options).ended(2);
    for &(offset, length) in &lost {
        let line = format!("unreadable: sector {}, {} sectors", offset / SECTOR, length / SECTOR);
        assert!(said.stderr.contains(&line), "{line}: {said}");
    }
    let object = said.object();
    let listed: Ranges = object["unreadable"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| (run["byte"].as_u64().unwrap_or(0), run["bytes"].as_u64().unwrap_or(0)))
        .collect();
    assert_eq!(listed, lost, "{shape:?}");
    assert_eq!(mapfile(&map).1, lost, "{shape:?}");
    assert!(std::fs::read(&target).expect("it was made") == wanted, "{shape:?}: zeroes, the rest");
    let checked = volume.run("scrub", &["--check", "--json"]).ended(2).object();
    assert!(sectors(&checked, "unreadable") > 0, "{checked}");
    assert_eq!(volume.hashes(), before, "{shape:?}: looking writes nothing");

    // A scrub cannot help, and does not bless what is lost.
    volume.run("scrub", &[]).ended(2);
    volume.run("scrub", &["--check"]).ended(2);
    assert_eq!(volume.export(), (2, wanted));
    served_with_losses(&volume, &lost, bytes);
}

/// Clients get errors in exactly the lost places, until these are written whole.
fn served_with_losses(volume: &Volume, lost: &Ranges, mut bytes: Vec<u8>) {
    let block = volume.shape.block();
    let server = volume.serve(&[]);
    assert_eq!(&unreadable(&server), lost);
    for &(offset, length) in lost {
        let read = |offset, length| qemu_io(&server.uri, &format!("read {offset} {length}"));
        assert!(read(offset, length).is_err(), "byte {offset} is lost");
        assert!(read(offset - block, 3 * block).is_err(), "also within a longer read");
        read(offset - block, block).unwrap_or_else(|text| panic!("its neighbour: {text}"));
        read(offset + length, block).unwrap_or_else(|text| panic!("its neighbour: {text}"));
    }
    let status = volume.run("status", &["--json"]).ended(2).object();
    assert!(status["lost_sectors"].as_u64() > Some(0), "{status}");
    for &(offset, length) in lost {
        let write = format!("write -P 77 {offset} {length}");
        qemu_io(&server.uri, &write).unwrap_or_else(|text| panic!("{text}"));
        bytes[index(offset)..index(offset + length)].fill(77);
    }
    assert_eq!(unreadable(&server), []);
    server.stop();
    assert_eq!(volume.export(), (0, bytes));
    volume.run("scrub", &["--check"]).ended(0);
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("it fits into memory")
}

#[test]
fn a_single_member_of_512_byte_blocks_loses_what_is_damaged_and_no_more() {
    damage_beyond_redundancy(Shape::tagged("none", 512));
}

#[test]
fn a_single_member_of_4096_byte_blocks_loses_what_is_damaged_and_no_more() {
    damage_beyond_redundancy(Shape::tagged("none", 4096));
}

#[test]
fn raid1_loses_what_is_damaged_on_both_and_no_more() {
    damage_beyond_redundancy(Shape::tagged("1", 4096));
}

#[test]
fn raid5_loses_what_is_damaged_twice_and_no_more() {
    damage_beyond_redundancy(Shape::tagged("5", 4096));
}

#[test]
fn raid5_over_512_byte_blocks_loses_what_is_damaged_twice_and_no_more() {
    damage_beyond_redundancy(Shape::tagged("5", 512));
}

#[test]
fn raid6_loses_what_is_damaged_three_times_and_no_more() {
    damage_beyond_redundancy(Shape::tagged("6", 4096));
}

/// On plain arrays nothing tells which of two copies is right: that is said, and nothing is
/// decided.
#[test]
fn plain_arrays_that_disagree_are_told_and_left_alone() {
    for level in ["1", "5", "6"] {
        let volume = Volume::create(Shape::plain(level));
        volume.fill(5);
        let (slot, data, _) = volume.place(2048);
        flip(&volume.members[slot], data + 3);
        let before = volume.hashes();
        let checked = volume.run("scrub", &["--check", "--json"]).ended(2).object();
        let found = if level == "6" { "inferred" } else { "inconsistent" };
        assert!(sectors(&checked, found) > 0, "{level}: {checked}");
        volume.run("scrub", &[]).ended(2);
        let after = volume.hashes();
        assert_eq!(after[slot], before[slot], "raid{level}");
        volume.run("scrub", &["--check"]).ended(2);
    }
}

#[test]
fn a_member_full_of_noise_behind_its_superblocks_is_still_a_member() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    let bytes = volume.fill(6);
    // 2 MiB of noise over data and tags, well behind the superblocks.
    let path = &volume.members[3];
    let mut found = std::fs::read(path).expect("it is there");
    found[6 << 20..8 << 20].copy_from_slice(&noise(2 << 20, 7));
    std::fs::write(path, found).expect("it is ours");
    assert_eq!(volume.export(), (1, bytes.clone()));
    volume.run("scrub", &["-q"]).ended(1);
    volume.run("scrub", &["--check"]).ended(0);
    assert_eq!(volume.export(), (0, bytes));
}
