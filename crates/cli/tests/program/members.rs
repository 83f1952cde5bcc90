//! Members that come and go: on the members themselves, and through the server of a served volume.

use crate::support::nbd::Client;
use crate::support::volume::{hashes, on};
use crate::support::{MIB, Shape, Volume, flip, noise, text};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An empty file in the volume's folder, as large as its members.
fn blank(volume: &Volume, name: &str) -> PathBuf {
    let path = volume.path(name);
    let length = std::fs::metadata(&volume.members[0]).expect("it is there").len();
    File::create(&path).expect("the folder is ours").set_len(length).expect("there is room");
    path
}

fn shapes() -> Vec<Shape> {
    let tagged = ["1", "5", "6"].map(|level| Shape::tagged(level, 4096));
    tagged.into_iter().chain([Shape::plain("5"), Shape::tagged("1", 512)]).collect()
}

fn status(members: &[PathBuf]) -> Value {
    on("status", members, &["--json"]).object()
}

fn states(object: &Value) -> Vec<String> {
    let members = object["members"].as_array().expect("a list");
    members.iter().map(|member| member["state"].as_str().unwrap_or_default().to_owned()).collect()
}

#[track_caller]
fn reads(members: &[PathBuf], expected: &[u8]) {
    let said = on("export", members, &["-q", "--to", "-"]);
    assert!(said.code <= 1, "{said}");
    assert!(said.stdout == expected, "other bytes");
}

#[test]
fn a_new_member_takes_the_place_of_one_that_is_gone() {
    for shape in shapes() {
        let volume = Volume::create(shape);
        let content = volume.fill(1);
        let new = blank(&volume, "new.img");
        let rest = volume.without(&[1]);
        let before = hashes(&rest);
        let options = ["--new", text(&new), "--json"];
        let planned = on("add", &rest, &[&options[..], &["--dry-run"]].concat()).ended(0).object();
        assert!(!planned["writes"].as_array().expect("a list").is_empty());
        assert_eq!(hashes(&rest), before, "a dry run writes nothing");
        let added = on("add", &rest, &options).ended(0).object();
        assert_eq!((added["slot"].as_u64(), &added["complete"]), (Some(1), &Value::Bool(true)));
        // It is as good as the others, and the old one is stale.
        let now: Vec<PathBuf> = rest.iter().chain([&new]).cloned().collect();
        reads(&now, &content);
        on("scrub", &now, &["--check", "-q"]).ended(0);
        reads(&now[1..], &content);
        let all: Vec<PathBuf> = volume.members.iter().chain([&new]).cloned().collect();
        assert!(states(&status(&all)).contains(&"left-out".to_owned()), "{}", status(&all));
    }
}

#[test]
fn a_member_is_replaced_while_it_serves_as_a_source_and_damage_is_not_copied() {
    for shape in shapes() {
        let volume = Volume::create(shape);
        let content = volume.fill(2);
        if shape.tags {
            let (slot, byte, _) = volume.place(40);
            flip(&volume.members[slot], byte);
        }
        let new = blank(&volume, "new.img");
        let (old, slot) = (text(&volume.members[0]).to_owned(), 0);
        let options = ["--old", &old, "--new", text(&new), "--json"];
        let done = volume.run("replace", &options).ended(0).object();
        assert_eq!(done["slot"].as_u64(), Some(slot));
        let mut now = volume.members.clone();
        now[0] = new;
        reads(&now, &content);
        on("scrub", &now, &["--check", "-q"]).ended(0);
        reads(&now[..now.len() - shape.redundancy()], &content);
    }
}

#[test]
fn what_lies_on_a_new_member_is_not_overwritten_unasked() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    let rest = volume.without(&[0]);
    let full = volume.file("full.img", &noise(12 * MIB, 7));
    let other = Volume::create(Shape::tagged("1", 4096));
    let before = hashes(&[full.clone(), other.members[0].clone()]);
    let add = |new: &Path| on("add", &rest, &["--new", text(new)]);
    add(&full).ended(3).with(&["not all zero", "--yes"]);
    add(&other.members[0]).ended(3).with(&["another array"]);
    add(&rest[0]).ended(3);
    add(&volume.path("nothing.img")).ended(4).with(&["no such file"]);
    let small = volume.path("small.img");
    File::create(&small).and_then(|file| file.set_len(MIB)).expect("it is ours");
    add(&small).ended(3).with(&["small.img"]);
    assert_eq!(hashes(&[full.clone(), other.members[0].clone()]), before);
    on("add", &rest, &["--new", text(&full), "--yes"]).ended(0);
}

#[test]
fn a_member_that_is_needed_is_neither_failed_nor_removed() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let [first, second] = [0, 1].map(|slot| text(&volume.members[slot]).to_owned());
    volume.run("remove", &["--member", &first]).ended(3).with(&["holds slot 0", "replace"]);
    volume.run("fail", &["--member", &first]).ended(1);
    let rest = volume.without(&[0]);
    on("fail", &rest, &["--member", &second]).ended(3).with(&["cannot be spared"]);
    volume.run("fail", &["--member", "nobody.img"]).ended(64).with(&["not a member"]);
    // It comes back: all of it is filled again, and needs no wiping.
    let added = on("add", &rest, &["--new", &first, "--json"]).ended(0).object();
    assert_eq!(added["was_member"], true);
    assert_eq!(status(&volume.members)["missing"], 0);
}

#[test]
fn a_spare_is_taken_when_a_member_is_gone_and_not_before() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let content = volume.fill(3);
    let spare = blank(&volume, "spare.img");
    let added = volume.run("add", &["--new", text(&spare), "--json"]).ended(0).object();
    assert!(added["slot"].is_null(), "{added}");
    let all: Vec<PathBuf> = volume.members.iter().chain([&spare]).cloned().collect();
    assert_eq!(states(&status(&all)), ["in-sync", "in-sync", "in-sync", "spare"]);
    on("fail", &all, &["--member", text(&all[1])]).ended(0);
    let rest: Vec<PathBuf> = all.iter().filter(|path| **path != all[1]).cloned().collect();
    assert_eq!(states(&status(&rest)), ["in-sync", "in-sync", "in-sync"]);
    reads(&rest, &content);
    reads(&rest[1..], &content);
}

#[test]
fn a_block_that_nobody_has_is_lost_on_the_new_member_too_and_nothing_else() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let mut content = volume.fill(4);
    let (slot, byte, _) = volume.place(80);
    let other = (slot + 1) % 3;
    flip(&volume.members[slot], byte);
    let new = blank(&volume, "new.img");
    let rest = volume.without(&[other]);
    let said = on("add", &rest, &["--new", text(&new), "--json"]).ended(2);
    assert_eq!(said.object()["lacking_sectors"], 8);
    let now: Vec<PathBuf> = rest.iter().chain([&new]).cloned().collect();
    let exported = on("export", &now, &["-q", "--to", "-"]).ended(2);
    let differs = |block: &usize| {
        let place = block * 4096..(block + 1) * 4096;
        exported.stdout[place.clone()] != content[place]
    };
    let bad: Vec<usize> = (0..content.len() / 4096).filter(differs).collect();
    assert!((1..=2).contains(&bad.len()), "{bad:?}");
    // Written again, whole, it is whole: all of its row, or parity would belong to none of it.
    let (first, last) = (bad[0] * 4096, (bad[bad.len() - 1] + 1) * 4096);
    for block in bad {
        content[block * 4096..][..4096].copy_from_slice(&noise(4096, 99));
    }
    let file = volume.file("piece", &content[first..last]);
    on("import", &now, &["-q", "--from", text(&file), "--offset", &first.to_string()]);
    let said = on("rebuild", &now, &[]);
    assert!(said.code == 0, "{said}");
    reads(&now, &content);
}

#[test]
fn a_served_volume_is_changed_by_its_server() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    let content = volume.fill(5);
    let server = volume.serve(&[]);
    let [new, newer] = ["new.img", "newer.img"].map(|name| blank(&volume, name));
    let old = text(&volume.members[2]).to_owned();
    let done =
        volume.run("replace", &["--old", &old, "--new", text(&new), "--json"]).ended(0).object();
    assert_eq!(done["complete"], true);
    volume.run("fail", &["--member", text(&volume.members[0])]).ended(1);
    volume.run("add", &["--new", text(&newer)]).ended(0);
    let object = volume.run("status", &["--json"]).object();
    assert_eq!(object["missing"], 0, "{object}");
    assert!(states(&object).contains(&"replaced".to_owned()), "{object}");
    for gone in [0, 2] {
        volume.run("remove", &["--member", text(&volume.members[gone])]).ended(0);
    }
    volume.run("rebuild", &[]).ended(0);
    std::thread::sleep(Duration::from_millis(50));
    server.stop().ended(0);
    let mut now = volume.members.clone();
    (now[0], now[2]) = (newer, new);
    reads(&now, &content);
    on("scrub", &now, &["--check", "-q"]).ended(0);
}

#[test]
fn a_member_that_was_away_is_filled_where_the_bitmap_says_and_nowhere_else() {
    let chunk = ["--bitmap-chunk", "64K"];
    for shape in [Shape::tagged("5", 4096), Shape::plain("1"), Shape::plain("10")] {
        let volume = Volume::create_with(shape, 12 * MIB, &chunk);
        let mut content = volume.fill(6);
        let rest = volume.without(&[1]);
        let piece = noise(100_000, 7);
        let file = volume.file("piece", &piece);
        on("import", &rest, &["-q", "--from", text(&file), "--offset", "1048576"]);
        content[1 << 20..][..100_000].copy_from_slice(&piece);
        let old = text(&volume.members[1]);
        let added = on("add", &rest, &["--new", old, "--json"]).ended(0).object();
        let missed = added["missed_sectors"].as_u64().expect("the bitmap knows");
        assert!((1..700).contains(&missed), "{added}");
        assert_eq!((&added["complete"], &added["missing"]), (&Value::Bool(true), &0.into()));
        reads(&volume.members, &content);
        reads(&volume.without(&[0]), &content);
        volume.run("scrub", &["--check", "-q"]).ended(0);
    }
}

#[test]
fn a_member_comes_back_to_a_served_volume_that_was_written_meanwhile() {
    let volume =
        Volume::create_with(Shape::tagged("1", 4096), 12 * MIB, &["--bitmap-chunk", "64K"]);
    let mut content = volume.fill(8);
    let server = volume.serve(&[]);
    let old = text(&volume.members[1]).to_owned();
    volume.run("fail", &["--member", &old]);
    let mut client = Client::connect(&server.socket).expect("the server is ready");
    let new = noise(65536, 9);
    client.write_all(&[(3 * MIB, new.clone())]).expect("it is served");
    client.flush().expect("it is served");
    content[3 << 20..][..65536].copy_from_slice(&new);
    let said = volume.run("add", &["--new", &old, "--json"]).ended(0).object();
    let missed = said["missed_sectors"].as_u64().expect("the bitmap knows");
    assert!((128..=256).contains(&missed), "{said}");
    drop(client);
    server.stop().ended(0);
    reads(&volume.members[1..], &content);
    volume.run("scrub", &["--check", "-q"]).ended(0);
}
