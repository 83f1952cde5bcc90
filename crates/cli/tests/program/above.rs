//! Tuples as the tags of dm-integrity: an ordinary file as a disk that keeps protection information.

use crate::support::{Said, flip, hex, noise, other, steadfast, text};
use std::path::{Path, PathBuf};

const TUPLES: &str = "t10-dif-type1-crc16";

struct Member {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Member {
    fn create(integrity: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a scratch folder");
        let path = folder.path().join("m.img");
        let member = Self { folder, path };
        let made =
            member.run("create", &[&["--size", "12M", "--integrity", integrity], more].concat());
        made.ended(0);
        member
    }

    fn run(&self, verb: &str, options: &[&str]) -> Said {
        steadfast([&[verb, text(&self.path)][..], options].concat())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fill(&self, seed: u64) -> Vec<u8> {
        let bytes = noise(4 << 20, seed);
        let from = self.file("from");
        std::fs::write(&from, &bytes).expect("there is room");
        self.run("import", &["-q", "--from", text(&from)]).ended(0);
        bytes
    }

    fn export(&self, options: &[&str]) -> (Said, Vec<u8>) {
        let to = self.file("to");
        let said = self.run("export", &[&["-q", "--yes", "--to", text(&to)], options].concat());
        (said, std::fs::read(&to).unwrap_or_default())
    }

    /// Where the data and the tag of a sector lie.
    fn place(&self, sector: u64) -> (u64, u64) {
        let sector = sector.to_string();
        let explained = self.run("explain", &["--json", "--sector", &sector]).ended(0).object();
        let place = &explained["places"][0];
        assert_eq!(place["tag"]["stored"], place["tag"]["computed"], "{explained}");
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        (number(&place["data_byte"]), number(&place["tag"]["tag_byte"]))
    }
}

fn bytes_at(path: &Path, byte: u64, length: usize) -> Vec<u8> {
    let content = std::fs::read(path).expect("the member");
    let start = usize::try_from(byte).expect("a small file");
    content[start..start + length].to_vec()
}

#[test]
fn every_verb_works_on_tuples_and_finds_by_itself_what_they_are() {
    let wide = "t10-dif-type1-crc64";
    for (integrity, sector_size) in [(TUPLES, "512"), (wide, "512"), (wide, "4096")] {
        let member = Member::create(integrity, &["--sector-size", sector_size]);
        let bytes = member.fill(1);
        let (said, found) = member.export(&[]);
        said.ended(0);
        assert!(found[..bytes.len()] == bytes);
        assert!(found[bytes.len()..].iter().all(|&byte| byte == 0), "and zeroes behind it");
        member.run("scrub", &["-q", "--check"]).ended(0);
        let status = member.run("status", &["--json"]).ended(0).object();
        assert_eq!(status["members"][0]["integrity"], integrity, "{status}");
        let inspected = member.run("inspect", &[]).ended(0);
        assert!(inspected.text().contains(integrity), "{inspected}");
        member.place(8);
    }
}

#[test]
fn a_tuple_has_the_guard_of_its_block_and_its_number() {
    let member = Member::create(TUPLES, &["--sector-size", "512"]);
    let bytes = member.fill(2);
    let (data, tag) = member.place(1000);
    let block = bytes_at(&member.path, data, 512);
    assert!(block == bytes[1000 * 512..1001 * 512]);
    let tuple = bytes_at(&member.path, tag, 8);
    // CRC-16/T10-DIF bit by bit: polynomial 8bb7, from 0, not reflected (pi specification, section 3).
    let crc = block.iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => crc << 1 ^ 0x8bb7,
        })
    });
    assert_eq!(hex(&tuple), format!("{crc:04x}0000{:08x}", 1000));
}

#[test]
fn damage_is_named_and_read_as_an_error() {
    let member = Member::create(TUPLES, &["--sector-size", "4096"]);
    let bytes = member.fill(3);
    // A byte of data, the guard of one block, the reference of another.
    let (data, _) = member.place(80);
    let (_, guard) = member.place(160);
    let (_, reference) = member.place(240);
    flip(&member.path, data + 5);
    flip(&member.path, guard);
    flip(&member.path, reference + 7);
    let map = member.file("map");
    let (said, found) = member.export(&["--map", text(&map)]);
    said.ended(2);
    for (block, found) in (0..).zip(found.chunks(4096).take(bytes.len() / 4096)) {
        let expected = match block {
            10 | 20 | 30 => &[0; 4096][..],
            _ => &bytes[block * 4096..][..4096],
        };
        assert!(found == expected, "block {block}");
    }
    let scrubbed = member.run("scrub", &["--check"]).ended(2);
    for sector in ["80", "160", "240"] {
        assert!(scrubbed.text().contains(sector), "{scrubbed}");
    }
}

#[test]
fn a_server_that_is_killed_leaves_data_and_tuples_of_one_write() {
    let member = Member::create(TUPLES, &["--sector-size", "512", "--journal-size", "4M"]);
    member.fill(4);
    let members = [member.path.clone()];
    let server = crate::support::server::Server::start(&members, member.folder.path(), &[]);
    crate::support::qemu_io(&server.uri, "write -P 0x5a 1M 1M").expect("it takes writes");
    crate::support::qemu_io(&server.uri, "write -z 1536k 128k").expect("and zeroes");
    server.kill();
    let (said, found) = member.export(&[]);
    said.ended(0);
    assert!(found[1 << 20..3 << 19].iter().all(|&byte| byte == 0x5a));
    assert!(found[3 << 19..(3 << 19) + (128 << 10)].iter().all(|&byte| byte == 0));
    member.run("scrub", &["-q"]).ended(0);
    member.run("scrub", &["-q", "--check"]).ended(0);
}

#[test]
fn what_is_not_possible_with_tags_from_above_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let path = folder.path().join("m.img");
    let create = |options: &[&str]| {
        steadfast([&["create", text(&path), "--size", "12M"][..], options].concat())
    };
    create(&["--integrity", TUPLES, "--mode", "bitmap"]).one_line(64, &["--mode bitmap", TUPLES]);
    create(&["--integrity", TUPLES, "--mode", "inline"]).one_line(64, &["--mode inline"]);
    create(&["--integrity", TUPLES, "--tag-size", "16"]).one_line(64, &["8 bytes", "16"]);
    create(&["--integrity", "opaque"]).one_line(64, &["--tag-size"]);
    create(&["--integrity", "t10-dif-type4-crc16"]).one_line(64, &["t10-dif-type1-crc16"]);
    assert!(!path.exists(), "nothing was made");

    let member = Member::create(TUPLES, &[]);
    member.fill(5);
    let before = std::fs::read(&member.path).expect("the member");
    for (options, what) in [
        (&["--mode", "bitmap"][..], "bitmap mode needs the volume's hash"),
        (&["--allow-discards"], "discarding needs the volume's hash"),
        (&["--integrity", "t10-dif-type1-ip"], "t10-dif-type1-ip"),
        (&["--integrity", "t10-dif-type1-crc64"], "tuples of 16 bytes"),
    ] {
        member.run("scrub", options).with(&[what]);
    }
    assert!(std::fs::read(&member.path).expect("the member") == before);
}

#[test]
fn other_tools_read_the_superblock() {
    let member = Member::create(TUPLES, &["--sector-size", "4096"]);
    let dump = other("integritysetup", "cryptsetup-bin", ["dump", text(&member.path)]);
    for line in ["integrity_tag_size 8", "sector_size 4096"] {
        assert!(dump.text().contains(line), "{dump}");
    }
}

#[test]
fn parity_of_tuples_is_made_true_and_gives_everything_back() {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let path = |name: &str| folder.path().join(name);
    let names: Vec<PathBuf> = ["a", "b", "c", "d"].map(path).into();
    let on = |verb: &str, members: &[PathBuf], options: &[&str]| {
        let members = members.iter().map(|member| text(member));
        steadfast([verb].into_iter().chain(members).chain(options.iter().copied()))
    };
    let made = ["--size", "12M", "--level", "5", "--integrity", TUPLES];
    on("create", &names, &made).ended(0);
    // What was never written has to agree as well.
    on("scrub", &names, &["-q"]).ended(1);
    let (bytes, from, to) = (noise(3 << 20, 4), path("from"), path("to"));
    std::fs::write(&from, &bytes).expect("there is room");
    on("import", &names, &["-q", "--from", text(&from)]).ended(0);
    on("scrub", &names, &["-q", "--check"]).ended(0);
    let missing = [&names[..2], &names[3..]].concat();
    on("export", &missing, &["-q", "--to", text(&to), "--length", "3M"]).ended(1);
    assert!(std::fs::read(&to).expect("it was written") == bytes);
}
