//! What happened is known after a restart, and what is mended alarms nobody.

use crate::support::volume::on;
use crate::support::{SECTOR, Said, Shape, Volume, flip, program, qemu_io, text};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Damages the data of a sector of the volume; the member.
fn damage(volume: &Volume, sector: u64) -> PathBuf {
    let (slot, data, _) = volume.place(sector);
    flip(&volume.members[slot], data);
    volume.members[slot].clone()
}

fn ledger_of(said: &Said) -> Value {
    said.object()["ledger"].clone()
}

/// The counters of the only member that the ledger knows.
fn counters(ledger: &Value) -> [u64; 4] {
    let members = ledger["members"].as_array().unwrap_or_else(|| panic!("{ledger}"));
    assert_eq!(members.len(), 1, "{ledger}");
    ["mismatches", "healed_sectors", "lost_sectors", "unresolved_sectors"]
        .map(|name| members[0][name].as_u64().unwrap_or_else(|| panic!("{ledger}")))
}

#[test]
fn damage_is_remembered_until_it_is_healed_and_counted_after() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    volume.fill(30);
    let member = damage(&volume, 1000);
    let before = ledger_of(&volume.run("status", &["--json"]).ended(0));
    assert_eq!(before["members"], Value::Array(vec![]));
    assert_eq!(volume.export().0, 1);

    // Another process reads nothing of the volume's data, and knows.
    let said = volume.run("status", &["--json"]).ended(1);
    let found = ledger_of(&said);
    assert_eq!(counters(&found), [1, 0, 0, 8], "{said}");
    let entry = &found["unresolved"][0];
    assert_eq!((&entry["state"], &entry["member"]), (&"healable".into(), &text(&member).into()));
    assert_ne!(entry["stored"], entry["computed"]);
    assert_eq!(entry["sectors"], 8);
    assert_eq!(volume.export().0, 1);
    let again = ledger_of(&volume.run("status", &["--json"]).ended(1));
    assert_eq!(counters(&again), [1, 0, 0, 8], "what is seen again is not counted again");
    let lines = volume.run("status", &[]).ended(1).text();
    assert!(lines.contains("healable") && lines.contains(text(&member)), "{lines}");

    volume.run("scrub", &["-q"]).ended(1);
    let healed = ledger_of(&volume.run("status", &["--json"]).ended(0));
    assert_eq!(counters(&healed), [1, 8, 0, 0], "counted, and no alarm");
    volume.run("ledger", &[]).ended(0);
}

#[test]
fn what_was_lost_is_resolved_when_it_is_written_whole() {
    for shape in [Shape::tagged("none", 512), Shape::tagged("5", 4096), Shape::tagged("1", 4096)] {
        let volume = Volume::create(shape);
        volume.fill(31);
        let sectors = shape.block() / SECTOR;
        for place in volume.explain(800)["places"].as_array().expect("a list").iter().take(2) {
            let (slot, data, _) = crate::support::volume::located(place);
            flip(&volume.members[slot], data);
        }
        assert_eq!(volume.export().0, 2, "{shape:?}");
        let lost = ledger_of(&volume.run("status", &["--json"]).ended(2));
        let found = lost["unresolved_sectors"]["lost"].as_u64().expect("a number");
        assert!(found >= sectors, "{shape:?}: {lost}");
        let told = volume.run("ledger", &[]).ended(2).text();
        assert!(told.contains("lost"), "{told}");

        let new = volume.file("new", &vec![7; 65_536]);
        let at = (800 * SECTOR / 65_536 * 65_536).to_string();
        volume.run("import", &["-q", "--from", text(&new), "--offset", &at]);
        volume.run("scrub", &["-q"]);
        let after = ledger_of(&volume.run("status", &["--json"]).ended(0));
        assert_eq!(after["unresolved"], Value::Array(vec![]), "{shape:?}");
        assert!(after["members"].to_string().contains("\"mismatches\":1"), "{after}");
    }
}

#[test]
fn a_cleared_ledger_begins_anew_and_a_member_can_be_cleared_alone() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    volume.fill(32);
    let first = damage(&volume, 0);
    let second =
        (1..).map(|n| n * 32).find(|&sector| volume.members[volume.place(sector).0] != first);
    let second = damage(&volume, second.expect("strips lie on several members"));
    volume.run("scrub", &["-q"]).ended(1);
    let all = volume.run("ledger", &["--json"]).ended(0).object();
    assert_eq!(all["members"].as_array().map(Vec::len), Some(2), "{all}");
    volume.run("ledger", &["--clear", "--member", text(&first)]).ended(0);
    let one = volume.run("ledger", &["--json"]).ended(0).object();
    assert_eq!(one["members"][0]["name"], text(&second), "{one}");
    assert_eq!(counters(&one), [1, 8, 0, 0]);
    volume.run("ledger", &["--clear"]).ended(0);
    let none = volume.run("ledger", &["--json"]).ended(0).object();
    assert_eq!(none["members"], Value::Array(vec![]));
    assert!(none["since"].is_string(), "{none}");
    volume.run("ledger", &["--member", "nobody"]).one_line(64, &["nobody", "empty"]);
}

#[test]
fn every_line_can_be_listed_and_chosen_by_time() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    volume.fill(33);
    damage(&volume, 0);
    volume.run("scrub", &["-q"]).ended(1);
    let kinds = |options: &[&str]| -> Vec<String> {
        let said = volume.run("ledger", options).ended(0).object();
        let events = said["events"].as_array().expect("a list").iter();
        events.map(|event| event["kind"].as_str().expect("a word").to_owned()).collect()
    };
    assert_eq!(kinds(&["--all", "--json"]), ["mismatch", "healed"]);
    assert_eq!(kinds(&["--all", "--json", "--since", "1h"]), ["mismatch", "healed"]);
    assert!(kinds(&["--all", "--json", "--since", "2999-01-01"]).is_empty());
    volume.run("ledger", &["--since", "yesteryear"]).one_line(64, &["--since"]);
    let lines = volume.run("ledger", &["--all"]).ended(0).text();
    assert_eq!(lines.lines().count(), 2, "{lines}");
}

#[test]
fn a_server_keeps_the_ledger_and_killed_has_kept_it() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    volume.fill(34);
    let second = 32 * 100;
    for sector in [0, second] {
        damage(&volume, sector);
    }
    let server = volume.serve(&[]);
    qemu_io(&server.uri, "read 0 64k").expect("parity has it");
    let served = ledger_of(&volume.run("status", &["--json"]).ended(1));
    assert_eq!(counters(&served), [1, 8, 0, 0]);
    volume.run("ledger", &["--clear"]).ended(0);
    let cleared = ledger_of(&volume.run("status", &["--json"]));
    assert_eq!(cleared["members"], Value::Array(vec![]), "the server sees what others wrote");

    qemu_io(&server.uri, &format!("read {} 64k", second * SECTOR)).expect("parity has it");
    let folder = PathBuf::from(cleared["folder"].as_str().expect("a path"));
    let begun = Instant::now();
    let written = || fs::read_to_string(folder.join("ledger.jsonl")).expect("it is there");
    // Nobody asks: it is written by itself, within a second on a machine that is not busy.
    while !written().lines().last().is_some_and(|line| line.contains("healed")) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", written());
        std::thread::sleep(Duration::from_millis(50));
    }
    server.kill();
    let after = ledger_of(&volume.run("status", &["--json"]));
    assert_eq!(counters(&after), [1, 8, 0, 0]);
}

#[test]
fn a_folder_can_be_named_or_none_be_kept() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    volume.fill(35);
    damage(&volume, 0);
    let (folder, before) = (volume.path("ledger of it"), volume.hashes());
    let verb = |state: &str| volume.run("scrub", &["--check", "-q", "--state", state]).ended(1);
    verb("none");
    let own = volume.run("ledger", &["--json"]).ended(0).object();
    assert_eq!(own["members"], Value::Array(vec![]), "none was kept");
    verb(text(&folder));
    assert!(folder.join("ledger.jsonl").is_file());
    let own = volume.run("ledger", &["--json"]).ended(0).object();
    assert_eq!(own["members"], Value::Array(vec![]), "it is kept where it was said");
    // The members may be gone.
    let gone = [volume.path("gone")];
    let named = on("ledger", &gone, &["--json", "--state", text(&folder)]).ended(1).object();
    assert_eq!(counters(&named)[0], 1);
    volume.run("ledger", &["--state", "none"]).one_line(64, &["--state none"]);
    assert_eq!(volume.hashes(), before, "writing there is not writing the volume");
}

#[test]
fn a_ledger_that_cannot_be_kept_is_one_warning() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    volume.fill(36);
    damage(&volume, 0);
    let file = volume.file("no folder", b"precious");
    let options = ["--check", "-q", "--state", text(&file)];
    let said = volume.run("scrub", &options).ended(1).with(&["could not be written", "--state"]);
    assert_eq!(said.stderr.matches("ledger").count(), 1, "{said}");
    assert_eq!(fs::read(&file).expect("it is there"), b"precious");
    // Nowhere to live: no home at all, for those who are not root.
    let mut command = program();
    command.arg("status").args(&volume.members).env_remove("HOME").env("XDG_STATE_HOME", "");
    command.args(["--json", "--state", "none"]);
    let said = crate::support::finish(command).ended(0);
    assert_eq!(ledger_of(&said), Value::Null);
}

#[test]
fn a_member_is_never_taken_for_the_ledger() {
    let folder = tempfile::tempdir().expect("there is room");
    let member = folder.path().join("ledger.jsonl");
    let create = ["create", text(&member), "--size", "12M", "--level", "none", "-q"];
    crate::support::steadfast(create).ended(0);
    flip(&member, 4 << 20);
    let before = crate::support::sha256(&member);
    let state = text(folder.path()).to_owned();
    on("scrub", std::slice::from_ref(&member), &["--check", "--state", &state]).with(&["is kept"]);
    assert_eq!(crate::support::sha256(&member), before);
}

#[test]
fn torn_and_senseless_lines_are_counted_and_harm_nothing() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    volume.fill(37);
    damage(&volume, 0);
    volume.run("scrub", &["-q"]).ended(1);
    let found = ledger_of(&volume.run("status", &["--json"]).ended(0));
    let path = PathBuf::from(found["folder"].as_str().expect("a path")).join("ledger.jsonl");
    let mut bytes = fs::read(&path).expect("it is there");
    bytes.extend_from_slice(b"\0\0{\n{\"v\":1,\"seq\":9,\"time\":\"2026-01");
    fs::write(&path, bytes).expect("it is ours");
    damage(&volume, 64);
    volume.run("scrub", &["-q"]).ended(1);
    let after = ledger_of(&volume.run("status", &["--json"]).ended(0));
    assert_eq!(after["unreadable_lines"], 2, "{after}");
    let mismatches = after["members"].as_array().expect("a list").iter();
    let mismatches = mismatches.map(|member| member["mismatches"].as_u64().expect("a number"));
    assert_eq!(mismatches.sum::<u64>(), 2);
}

#[test]
fn the_folder_is_named_after_the_array_and_made_when_something_happens() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    let status = volume.run("status", &["--json"]).ended(0).object();
    let folder = PathBuf::from(status["ledger"]["folder"].as_str().expect("a path"));
    let uuid = status["uuid"].as_str().expect("it is an array");
    assert!(folder.ends_with(format!("steadfast/{uuid}")), "{status}");
    assert!(!folder.exists());
    damage(&volume, 0);
    volume.run("scrub", &["-q"]).ended(1);
    assert!(folder.join("ledger.jsonl").is_file());
}
