//! `integritysetup dump` and `mdadm --examine`, which read plain files, agree field by field with
//! what `inspect` says of what `create` made.

use crate::support::volume::on;
use crate::support::{SECTOR, Shape, Volume, other, text};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The fields of one part of a member, by name.
fn fields(part: &Value) -> HashMap<String, String> {
    let fields = part["fields"].as_array().unwrap_or_else(|| panic!("no fields: {part}"));
    let text = |value: &Value| value.as_str().expect("text").trim().to_owned();
    fields.iter().map(|field| (text(&field["name"]), text(&field["value"]))).collect()
}

fn inspect(members: &[PathBuf]) -> Vec<Value> {
    let object = on("inspect", members, &["--json"]).ended(0).object();
    object["members"].as_array().expect("a list").clone()
}

/// Every line of the dump is a field of ours; what we say beyond it, the tool does not print.
#[track_caller]
fn integritysetup_agrees(path: &Path, ours: &HashMap<String, String>) {
    let said = other("integritysetup", "cryptsetup-bin", ["dump", text(path)]).ended(0);
    let text = said.text();
    let mut lines = text.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with("Info for integrity")), "{said}");
    let mut seen = 0;
    for line in lines {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        assert_eq!(ours.get(name).map(String::as_str), Some(value.trim()), "{name}: {said}");
        seen += 1;
    }
    assert!(seen >= 8, "{said}");
}

/// What `mdadm --examine` prints, by name.
fn examine(path: &Path) -> HashMap<String, String> {
    let said = other("mdadm", "mdadm", ["--examine", text(path)]).ended(0);
    let lines = said.text();
    let pairs = lines.lines().filter_map(|line| line.split_once(" : "));
    pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

/// The first word of a value.
fn word(value: &str) -> &str {
    value.split_whitespace().next().unwrap_or_default()
}

#[track_caller]
fn mdadm_agrees(path: &Path, ours: &HashMap<String, String>, status: &Value) {
    let theirs = examine(path);
    let their = |name: &str| theirs.get(name).unwrap_or_else(|| panic!("{name}: {theirs:?}"));
    let our = |name: &str| ours.get(name).unwrap_or_else(|| panic!("{name}: {ours:?}")).as_str();
    assert_eq!(their("Magic"), "a92b4efc");
    assert_eq!(their("Version"), our("version"));
    assert_eq!(their("Feature Map"), word(our("feature_map")));
    assert_eq!(their("Array UUID"), our("set_uuid"));
    assert_eq!(word(their("Name")), our("set_name"));
    assert_eq!(their("Raid Level"), our("level"));
    assert_eq!(their("Raid Devices"), our("raid_disks"));
    assert_eq!(word(their("Avail Dev Size")), our("data_size"));
    assert_eq!(word(their("Data Offset")), our("data_offset"));
    assert_eq!(word(their("Super Offset")), our("super_offset"));
    assert_eq!(their("Device UUID"), our("device_uuid"));
    assert_eq!(their("Events"), our("events"));
    assert_eq!((their("State").as_str(), our("resync_offset")), ("clean", "clean"));
    let checksum = u32::from_str_radix(word(their("Checksum")), 16).expect("hexadecimal");
    assert!(their("Checksum").ends_with("correct"), "{theirs:?}");
    assert_eq!(format!("{checksum:#010x}"), our("sb_csum"));
    let role = our("role").replace("slot ", "Active device ");
    assert_eq!(their("Device Role"), &role);
    let all = "A".repeat(our("raid_disks").parse().expect("a number"));
    assert_eq!(word(their("Array State")), all);
    let kibibytes: u64 = word(their("Array Size")).parse().expect("a number");
    assert_eq!(kibibytes * 1024, status["bytes"].as_u64().expect("a number"));
    if our("level") != "raid1" {
        assert_eq!(
            (their("Layout").as_str(), our("layout")),
            ("left-symmetric", "2 (left-symmetric)")
        );
        let sectors: u64 = our("chunksize").parse().expect("a number");
        assert_eq!(their("Chunk Size"), &format!("{}K", sectors / 2));
    }
    // A line that is there only when sizes differ.
    if let Some(used) = theirs.get("Used Dev Size") {
        assert_eq!(word(used), our("size"));
    } else {
        assert_eq!(our("size"), our("data_size"));
    }
}

#[test]
fn integritysetup_agrees_with_inspect() {
    for (size, more) in [
        (512, &[][..]),
        (4096, &[]),
        (4096, &["--journal-size", "2M"]),
        (512, &["--interleave-sectors", "1024"]),
        (4096, &["--tag-size", "4"]),
        (4096, &["--no-wipe"]),
        (1024, &[]),
        (2048, &["--journal-size", "1M"]),
        (512, &["--legacy-padding"]),
        (512, &["--legacy-hmac"]),
        (4096, &["--legacy-padding", "--legacy-hmac", "--interleave-sectors", "8192"]),
    ] {
        let volume = Volume::create_with(Shape::tagged("none", size), 12 << 20, more);
        let ours = fields(&inspect(&volume.members)[0]["integrity"]);
        integritysetup_agrees(&volume.members[0], &ours);
        assert_eq!(ours["sector_size"], size.to_string());
        // Also after it was used.
        volume.fill(1);
        let ours = fields(&inspect(&volume.members)[0]["integrity"]);
        integritysetup_agrees(&volume.members[0], &ours);
    }
}

#[test]
fn mdadm_agrees_with_inspect() {
    for (level, chunk) in [("1", "16K"), ("5", "4K"), ("5", "1M"), ("6", "64K")] {
        let more = ["--name", "shelf", "--chunk", chunk];
        let folder = Volume::create(Shape::plain(level));
        let mut options = vec!["--level", level, "--integrity", "none", "--size", "12M"];
        options.extend(more);
        let members: Vec<PathBuf> =
            (0..folder.members.len()).map(|slot| folder.path(&format!("named{slot}"))).collect();
        on("create", &members, &options).ended(0);
        for used in [false, true] {
            if used {
                let file = folder.file("source", &vec![7; 3 << 20]);
                on("import", &members, &["-q", "--from", text(&file)]).ended(0);
            }
            let status = on("status", &members, &["--json"]).ended(0).object();
            for (path, member) in members.iter().zip(inspect(&members)) {
                assert_eq!(member["md"]["checksum_ok"], true, "{member}");
                mdadm_agrees(path, &fields(&member["md"]), &status);
            }
        }
    }
}

#[test]
fn both_agree_on_an_array_over_tagged_members() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    volume.fill(2);
    let status = volume.run("status", &["--json"]).ended(0).object();
    let mut seen = 0;
    let explained = volume.explain(0);
    let places = explained["places"].as_array().expect("a list");
    for (slot, member) in inspect(&volume.members).iter().enumerate() {
        let ours = fields(&member["integrity"]);
        integritysetup_agrees(&volume.members[slot], &ours);
        // mdadm reads files, so that it is given the inside of the tagged member as one. Members
        // this small have a single run of data, which begins where its sector 0 would lie.
        let number = |value: &Value| value.as_u64().expect("a number");
        let first = places
            .iter()
            .filter(|place| number(&place["slot"]) == slot as u64)
            .map(|place| number(&place["data_byte"]) - number(&place["member_sector"]) * SECTOR)
            .map(|byte| usize::try_from(byte).expect("it fits into memory"))
            .next();
        let Some(first) = first else { continue };
        let sectors: usize = ours["provided_data_sectors"].parse().expect("a number");
        let bytes = std::fs::read(&volume.members[slot]).expect("it is there");
        let inner = volume.file(&format!("inner{slot}"), &bytes[first..first + sectors * 512]);
        mdadm_agrees(&inner, &fields(&member["md"]), &status);
        seen += 1;
    }
    assert_eq!(seen, 3, "explain named data, P and Q");
}

#[test]
fn integritysetup_agrees_with_inspect_after_a_resize() {
    for (size, to) in [(512, "40M"), (4096, "40M"), (4096, "16M")] {
        let volume = Volume::create_with(Shape::tagged("none", size), 24 << 20, &[]);
        let bytes = volume.fill(3);
        volume.run("resize", &["--size", to, "--yes"]).ended(0);
        let ours = fields(&inspect(&volume.members)[0]["integrity"]);
        integritysetup_agrees(&volume.members[0], &ours);
        // It is what would have been made with this size, but for the journal, which stays.
        let (code, content) = volume.export();
        assert_eq!(code, 0);
        let sectors: usize = ours["provided_data_sectors"].parse().expect("a number");
        assert_eq!(content.len(), sectors * 512);
        let kept = bytes.len().min(content.len());
        assert!(content[..kept] == bytes[..kept]);
        assert!(content[kept..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn integritysetup_agrees_with_what_was_adopted() {
    let volume = Volume::create(Shape::plain("1"));
    let data = volume.file("data", &crate::support::noise(24 << 20, 4));
    let metadata = volume.path("meta");
    let pair = format!("{}={}", text(&data), text(&metadata));
    on("adopt", &[data], &["--metadata-device", &pair]).ended(0);
    let dumped = other("integritysetup", "cryptsetup-bin", ["dump", text(&metadata)]).ended(0);
    let said = dumped.text();
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {said}")).trim().to_owned()
    };
    assert_eq!(value("provided_data_sectors"), (24 << 11).to_string());
    assert_eq!(value("recalc_sector"), (24 << 11).to_string());
    assert!(value("flags").contains("recalculating"), "{said}");
}
