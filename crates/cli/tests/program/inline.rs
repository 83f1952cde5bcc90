//! Volumes whose tags lie in the metadata of their members' blocks, on files of such sectors.

use crate::support::volume::located;
use crate::support::{MIB, SECTOR, Shape, Volume, flip, noise, qemu_io, steadfast, text};
use std::path::{Path, PathBuf};

/// A volume, and the files that its members are.
struct Inline {
    volume: Volume,
    files: Vec<PathBuf>,
}

impl Inline {
    /// Members of `sector_size` bytes and 8 more for each sector.
    fn create(level: &'static str, sector_size: u64) -> Self {
        let shape = Shape::tagged(level, sector_size);
        let folder = tempfile::tempdir().expect("there is room for a scratch folder");
        let file = |slot: usize| folder.path().join(format!("m{slot}.img"));
        let files: Vec<PathBuf> = (0..shape.members()).map(file).collect();
        let named = |path: &PathBuf| format!("sectors:{sector_size}+8:{}", text(path)).into();
        let members = files.iter().map(named).collect();
        let mut volume = Volume { folder, shape, members, bytes: 0 };
        let mut options = volume.options();
        options.extend(["--size", "12M", "--mode", "inline", "--json"].map(str::to_owned));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let said = volume.run("create", &options).ended(0);
        volume.bytes = said.object()["bytes"].as_u64().expect("it has a size");
        let wanted = 12 * MIB / sector_size * (sector_size + 8);
        for file in &files {
            assert_eq!(std::fs::metadata(file).expect("it was made").len(), wanted);
        }
        Self { volume, files }
    }
}

/// What a ddrescue mapfile calls unreadable: offset and length.
fn unreadable(path: &Path) -> Vec<(u64, u64)> {
    let number = |word: &str| {
        u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number of a mapfile")
    };
    let lines = std::fs::read_to_string(path).expect("it was made");
    let words = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let bad = words.filter(|words| words.len() == 3 && words[2] == "-");
    bad.map(|words| (number(words[0]), number(words[1]))).collect()
}

#[test]
fn every_verb_works_on_tags_that_lie_with_their_blocks() {
    for (level, sector_size) in [("none", 512), ("none", 4096), ("1", 512), ("5", 4096), ("6", 512)]
    {
        let made = Inline::create(level, sector_size);
        let volume = &made.volume;
        let bytes = volume.fill(3);
        assert!(volume.export() == (0, bytes), "level {level}, {sector_size}");
        volume.run("scrub", &["-q"]).ended(0);
        let status = volume.run("status", &["--json", "--mode", "inline"]).ended(0).object();
        assert!(status["stack"].as_str().expect("a stack").contains("sectors:"), "{status}");
        let stack = status["stack"].as_str().expect("a stack");
        steadfast(["scrub", "-q", "--check", "--stack", stack]).ended(0);
        let inspected = volume.run("inspect", &["--json"]).ended(0);
        for word in ["fix_hmac inline", "each tag lies with its block", "sectors with metadata"] {
            assert!(inspected.text().contains(word), "{word}: {inspected}");
        }
        for sector in [0, volume.bytes / SECTOR - 1] {
            let explained = volume.explain(sector);
            let tag = &explained["places"][0]["tag"];
            assert_eq!(tag["stored"], tag["computed"], "{explained}");
            assert_eq!(tag["journal"].as_array().map(Vec::len), Some(0), "{explained}");
        }
    }
}

#[test]
fn what_was_flushed_over_nbd_is_there_after_a_kill() {
    for level in ["none", "5"] {
        let made = Inline::create(level, 512);
        let server = made.volume.serve(&[]);
        qemu_io(&server.uri, "write -P 0x5a 1M 2M").expect("it takes writes");
        qemu_io(&server.uri, "write -z 1536k 512k").expect("and zeroes");
        qemu_io(&server.uri, "flush").expect("and flushes");
        server.kill();
        let (code, found) = made.volume.export();
        // An array that was not closed says so.
        assert_eq!(code, i32::from(level == "5"));
        let mib = usize::try_from(MIB).expect("a MiB fits");
        let expected = |at: usize| match at * 2 / mib {
            2 | 4 | 5 => 0x5a,
            _ => 0,
        };
        let wrong = found.iter().enumerate().find(|(at, byte)| **byte != expected(*at));
        assert_eq!(wrong, None);
    }
}

#[test]
fn a_flipped_bit_of_data_or_tag_costs_exactly_its_block() {
    for sector_size in [512, 4096] {
        let made = Inline::create("none", sector_size);
        let volume = &made.volume;
        let bytes = volume.fill(5);
        let mut expected = Vec::new();
        for (index, sector) in [0, 2000, 8008, volume.bytes / SECTOR - 8].into_iter().enumerate() {
            let (_, data, tag) = volume.place(sector);
            let tag = tag.expect("a file has an address for it");
            flip(&made.files[0], if index % 2 == 0 { data + 77 } else { tag + 3 });
            let block = sector * SECTOR / sector_size * sector_size;
            expected.push((block, sector_size));
        }
        let (copy, map) = (volume.path("copy"), volume.path("map"));
        volume.run("export", &["-q", "--to", text(&copy), "--map", text(&map)]).ended(2);
        assert_eq!(unreadable(&map), expected);
        let copied = std::fs::read(&copy).expect("it was made");
        for (at, (found, wanted)) in (0..).zip(copied.iter().zip(&bytes)) {
            let lost =
                expected.iter().any(|(start, length)| (*start..start + length).contains(&at));
            assert!(lost || found == wanted, "byte {at}");
        }
        let said = volume.run("scrub", &["--check", "--json"]);
        assert!(said.code != 0, "{said}");
    }
}

#[test]
fn damage_heals_from_the_peers_as_with_any_tags() {
    for (level, sector_size) in [("1", 512), ("5", 4096), ("6", 512)] {
        let made = Inline::create(level, sector_size);
        let volume = &made.volume;
        let bytes = volume.fill(7);
        for n in 0..30 {
            let sector = (n * 7919) % (volume.bytes / SECTOR);
            for place in volume.explain(sector)["places"].as_array().expect("a list") {
                let (slot, data, tag) = located(place);
                if slot < volume.shape.redundancy() {
                    let tag = tag.expect("a file has an address for it");
                    flip(&made.files[slot], if n % 3 == 0 { tag + n % 4 } else { data + n });
                }
            }
        }
        let (code, found) = volume.export();
        assert!(code <= 1 && found == bytes, "level {level}");
        assert!(volume.run("scrub", &["-q"]).code <= 1);
        volume.run("scrub", &["-q", "--check"]).ended(0);
        // Healed: whoever was damaged can stand in for the others.
        let others: Vec<usize> =
            (0..volume.shape.members()).rev().take(volume.shape.redundancy()).collect();
        let said =
            crate::support::volume::on("export", &volume.without(&others), &["-q", "--to", "-"]);
        assert!(said.stdout == bytes, "level {level}: {}", said.stderr);
    }
}

#[test]
fn what_inline_tags_cannot_be_is_one_clear_line_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let path = folder.path().join("m.img");
    let (plain, file) = (text(&path).to_owned(), text(&path));
    let (small, large) = (format!("sectors:512+8:{file}"), format!("sectors:512+2049:{file}"));
    let other = folder.path().join("data");
    let data = format!("{small}={}", text(&other));
    let cases: [(&str, i32, &[&str], &[&str]); 8] = [
        (&plain, 3, &[], &["keeps none", "sectors:4096+8:PATH"]),
        (&small, 3, &["--integrity", "sha256"], &["32 bytes", "8 bytes", "--tag-size"]),
        (&small, 3, &["--sector-size", "4096"], &["4096", "each 512", "--sector-size"]),
        (&large, 3, &[], &["2049", "at most 2048"]),
        (&small, 64, &["--journal-size", "1M"], &["--mode inline", "--journal-size"]),
        (&small, 64, &["--integrity", "none", "--level", "1"], &["--mode inline"]),
        (&small, 64, &["--data-device", &data], &["--mode inline", "--data-device"]),
        (&small, 64, &["--journal-integrity", "crc32c"], &["--mode inline", "--journal-integrity"]),
    ];
    for (member, code, options, wanted) in cases {
        let base = ["create", member, "--size", "8M", "--mode", "inline"];
        let mut arguments = base.to_vec();
        arguments.extend(options);
        if !options.contains(&"--sector-size") {
            arguments.extend(["--sector-size", "512"]);
        }
        if options.contains(&"--level") {
            arguments.insert(2, "sectors:512+8:another");
        }
        for more in [&[][..], &["--dry-run"]] {
            let said = steadfast(arguments.iter().chain(more));
            said.one_line(code, wanted);
            assert!(!path.exists() && !other.exists(), "{arguments:?}");
        }
    }
    for name in ["sectors:520:x", "sectors:512+8", "sectors:512+0:x", "sectors:4104:x"] {
        steadfast(["status", name]).one_line(64, &["512+8"]);
    }
}

#[test]
fn an_inline_volume_is_opened_as_one_or_refused_by_name() {
    let made = Inline::create("none", 4096);
    let volume = &made.volume;
    let bytes = noise(MIB, 9);
    let file = volume.file("noise", &bytes);
    volume.run("import", &["-q", "--from", text(&file)]).ended(0);
    let before = std::fs::read(&made.files[0]).expect("it is there");
    for mode in ["bitmap", "direct"] {
        volume.run("scrub", &["--mode", mode]).one_line(3, &["inline tags", "--mode"]);
    }
    let socket = format!("unix:{}", text(&volume.path("socket")));
    let discarding = ["--allow-discards", "--nbd", &socket];
    volume.run("serve", &discarding).one_line(3, &["discarding is not possible with inline tags"]);
    let key = volume.file("key", b"sixteen bytes of");
    let crypt = ["--journal-crypt", "ctr-aes", "--journal-crypt-key-file", text(&key)];
    volume.run("status", &crypt).one_line(3, &["an encrypted journal", "inline"]);
    volume.run("resize", &["--size", "8M", "--yes"]).one_line(3, &["inline"]);
    // The same file, not named as what it is.
    steadfast(["status", text(&made.files[0])]).one_line(3, &["keeps none", "sectors:4096+8:PATH"]);
    let recovery = ["--mode", "recovery", "--unverified", "-q", "--to", "-"];
    let said = volume.run("export", &recovery);
    assert!(said.stdout.starts_with(&bytes), "{}", said.stderr);
    assert!(std::fs::read(&made.files[0]).expect("it is there") == before);
}
