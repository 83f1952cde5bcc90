//! What redundancy alone says, what an operator says, and a scrub that goes on where it was stopped.

use crate::support::volume::{Shape, Volume};
use crate::support::{MIB, flip, program, text};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::Duration;

fn sectors(object: &serde_json::Value, finding: &str) -> u64 {
    object[finding]["sectors"].as_u64().unwrap_or_else(|| panic!("{object}"))
}

#[test]
fn raid6_without_tags_infers_the_wrong_strip_and_writes_it_when_asked() {
    let volume = Volume::create(Shape::plain("6"));
    let bytes = volume.fill(8);
    let (slot, data, _) = volume.place(2048);
    let sound = volume.hashes();
    flip(&volume.members[slot], data + 3);
    let name = volume.members[slot].to_string_lossy().into_owned();
    let checked = volume.run("scrub", &["--check", "--json"]).ended(2).object();
    assert_eq!((sectors(&checked, "inferred"), sectors(&checked, "inconsistent")), (1, 0));
    assert_eq!(checked["members"][&name]["inferred"]["sectors"], 1, "{checked}");
    let said = volume.run("scrub", &[]).ended(2).text();
    assert!(said.contains("inferred 1 sectors") && said.contains("--repair inferred"), "{said}");
    assert_ne!(volume.hashes()[slot], sound[slot]);
    let decided = volume.run("scrub", &["--repair", "inferred", "--json"]).ended(1).object();
    assert_eq!((sectors(&decided, "decided"), sectors(&decided, "inferred")), (1, 0));
    volume.run("scrub", &["--check"]).ended(0);
    assert_eq!(volume.export(), (0, bytes));
}

#[test]
fn an_operator_says_what_is_right_and_nonsense_is_refused_by_name() {
    let refused = |shape: Shape, trust: &str, words: &[&str]| {
        let volume = Volume::create(shape);
        let before = volume.hashes();
        volume.run("scrub", &["--trust", trust]).one_line(3, words);
        assert_eq!(volume.hashes(), before, "{shape:?} {trust}");
    };
    refused(Shape::plain("1"), "data", &["copies", "--trust member=N"]);
    refused(Shape::plain("5"), "parity", &["one parity", "--trust all-but=N"]);
    refused(Shape::plain("5"), "member=1", &["not a whole stripe", "--trust all-but=N"]);
    refused(Shape::plain("6"), "all-but=5", &["slot 5", "the array has 5"]);
    refused(Shape::tagged("none", 4096), "data", &["keeps everything once"]);
    let volume = Volume::create(Shape::plain("1"));
    volume.run("scrub", &["--trust", "all"]).ended(64);

    for (level, right) in [("1", "member"), ("5", "all-but")] {
        let volume = Volume::create(Shape::plain(level));
        let bytes = volume.fill(9);
        let (slot, data, _) = volume.place(2048);
        flip(&volume.members[slot], data + 3);
        volume.run("scrub", &["--check"]).ended(2);
        let slot = if right == "member" { 1 - slot } else { slot };
        let trust = format!("{right}={slot}");
        let said = volume.run("scrub", &["--trust", &trust, "--json"]).ended(1).object();
        assert_eq!(sectors(&said, "decided"), 1, "{said}");
        volume.run("scrub", &["--check"]).ended(0);
        assert_eq!(volume.export(), (0, bytes));
    }
}

#[test]
fn a_scrub_by_the_server_ends_with_whoever_asked_and_its_position_is_kept() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    volume.fill(4);
    let state = volume.path("state");
    let server = volume.serve(&["--state", text(&state)]);
    for signal in [Signal::INT, Signal::KILL] {
        let mut command = program();
        command.arg("scrub").args(&volume.members).args(["--rate", "3M"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.expect("it starts");
        std::thread::sleep(Duration::from_millis(2500));
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not 0");
        kill_process(pid, signal).expect("it runs");
        let said = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
        if signal == Signal::INT {
            assert_eq!(said.status.code(), Some(130), "{stderr}");
            assert!(stderr.contains("--continue"), "{stderr}");
        }
        let kept = state.join("scrub.json");
        let waited = (0..100).find(|_| {
            std::thread::sleep(Duration::from_millis(100));
            kept.exists()
        });
        assert!(waited.is_some(), "the server goes on by itself");
        let rest = volume.run("scrub", &["--continue", "--json"]).ended(0).object();
        assert!(rest["continued_from_step"].as_u64() > Some(0), "{rest}");
        assert!(!kept.exists());
    }
    assert_eq!(server.stop().code, 0);
}

#[test]
fn an_interrupted_scrub_goes_on_where_it_was() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    volume.fill(3);
    let mut command = program();
    command.arg("scrub").args(&volume.members).args(["--rate", "3M"]).arg("--state");
    command.arg(volume.path("state")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(2500));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("not 0");
    kill_process(pid, Signal::INT).expect("it runs");
    let said = child.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("--continue"), "{stderr}");

    let state = volume.path("state");
    let state = ["--state", text(&state), "--json"];
    let all = volume.run("scrub", &["--check", "--json"]).ended(0).object();
    let rest = volume.run("scrub", &[&["--continue"], &state[..]].concat()).ended(0).object();
    let checked = |object: &serde_json::Value| object["checked_sectors"].as_u64().unwrap_or(0);
    assert!(rest["continued_from_step"].as_u64() > Some(0), "{rest}");
    assert!(checked(&rest) * 512 > MIB && checked(&rest) < checked(&all), "{rest} {all}");
    // It came to its end: there is nothing to go on with.
    let again = volume.run("scrub", &[&["--continue"], &state[..]].concat()).ended(0).object();
    assert!(again["continued_from_step"].is_null() && checked(&again) == checked(&all));
}

#[test]
fn explain_shows_the_whole_stripe_and_which_reconstruction_its_tag_vouches_for() {
    let volume = Volume::create(Shape::tagged("6", 4096));
    volume.fill(2);
    let (slot, data, _) = volume.place(2048);
    flip(&volume.members[slot], data + 19);
    let evidence = volume.explain(2048)["evidence"].clone();
    let candidates = evidence["candidates"].as_array().expect("a list");
    assert_eq!(candidates.len(), 5, "{evidence}");
    for candidate in candidates {
        let valid = candidate["slot"] != slot;
        assert_eq!(candidate["verdict"], if valid { "valid" } else { "invalid" }, "{evidence}");
    }
    assert_eq!(evidence["named"], slot);
    assert_eq!((&evidence["p_agrees"], &evidence["q_agrees"]), (&false.into(), &false.into()));
    let made = evidence["reconstructions"].as_array().expect("a list");
    let froms: Vec<_> = made.iter().map(|one| one["from"].as_str()).collect();
    assert_eq!(froms, [Some("P"), Some("Q")]);
    for one in made {
        assert_eq!((&one["slot"], &one["vouched"]), (&slot.into(), &true.into()), "{evidence}");
        assert_eq!(one["differing_bytes"], 1);
        assert_eq!(one["lines"][0]["offset"], 16, "{evidence}");
    }
    let said = volume.run("explain", &["--sector", "2048"]).text();
    assert!(said.contains("tag INVALID") && said.contains("its own tag agrees"), "{said}");

    // Of plain copies nobody is named; what differs is shown.
    let volume = Volume::create(Shape::plain("1"));
    volume.fill(2);
    let (slot, data, _) = volume.place(2048);
    flip(&volume.members[slot], data + 19);
    let evidence = volume.explain(2048)["evidence"].clone();
    assert!(evidence["named"].is_null() && evidence["candidates"][0]["verdict"] == "untagged");
    assert_eq!(evidence["reconstructions"][0]["differing_bytes"], 1, "{evidence}");
}
