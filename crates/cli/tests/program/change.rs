//! `resize` and `adopt`: what exists gets another size, or tags.

use crate::support::volume::on;
use crate::support::{MIB, Shape, Volume, finish, flip, noise, program, text};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::Duration;

#[test]
fn a_resize_lists_its_writes_and_cuts_nothing_off_unasked() {
    let volume = Volume::create_with(Shape::tagged("none", 4096), 24 * MIB, &[]);
    volume.fill(1);
    let before = volume.hashes();
    let planned = volume.run("resize", &["--size", "40M", "--dry-run", "--json"]).ended(0).object();
    let named = |n: usize| planned["writes"][n]["what"].as_str().expect("a name").to_owned();
    let writes: Vec<String> = (0..4).map(named).collect();
    let wanted = ["lengthen", "zeroes", "tags of zero blocks", "dm-integrity superblock"];
    assert_eq!(writes, wanted, "{planned}");
    assert_eq!((&planned["complete"], &planned["made"]), (&false.into(), &0.into()));
    let refused = volume.run("resize", &["--size", "16M"]);
    refused.one_line(3, &["would lose sectors", "--yes"]);
    volume.run("resize", &["--size", "64K", "--yes"]).one_line(3, &["--size"]);
    assert_eq!(volume.hashes(), before, "nothing was written");
    let grown = volume.run("resize", &["--size", "40M", "--json"]).ended(0).object();
    assert_eq!(grown["to_sectors"], planned["to_sectors"]);
    assert_eq!(grown["complete"], true);
    let again = volume.run("resize", &["--size", "40M"]).ended(0);
    assert!(again.text().contains("nothing to do"), "{again}");
    volume.run("scrub", &["--check"]).ended(0);
}

#[test]
fn an_array_is_not_resized() {
    let volume = Volume::create(Shape::tagged("1", 4096));
    let before = volume.hashes();
    volume.run("resize", &["--size", "40M"]).one_line(3, &["md's own size"]);
    on("resize", &volume.members[..1], &["--size", "40M"]).one_line(3, &["member of an array"]);
    assert_eq!(volume.hashes(), before);
}

#[test]
fn what_was_adopted_says_so_and_the_data_is_as_it_was() {
    let volume = Volume::create(Shape::plain("1"));
    let bytes = noise(20 * MIB, 2);
    let (data, metadata) = (volume.file("data=1", &bytes), volume.path("meta"));
    let pair = format!("{}={}", text(&data), text(&metadata));
    let adopt = |more: &[&str]| {
        let options: Vec<&str> =
            ["--metadata-device", &pair].into_iter().chain(more.iter().copied()).collect();
        on("adopt", std::slice::from_ref(&data), &options)
    };
    let said = adopt(&["--dry-run"]).ended(0);
    assert!(said.text().contains("would get superblock") && !metadata.exists(), "{said}");
    let object = adopt(&["--json"]).ended(0).object();
    assert_eq!(
        (&object["complete"], &object["volumes"][0]["sectors"]),
        (&true.into(), &40960.into())
    );
    let said = adopt(&[]).ended(0);
    assert!(said.text().contains("nothing to do"), "{said}");
    assert!(std::fs::read(&data).expect("it is there") == bytes);
    on("adopt", std::slice::from_ref(&data), &["--metadata-device", "elsewhere"])
        .one_line(64, &["DATA=META"]);
    adopt(&["--integrity", "hmac-sha256"]).one_line(64, &["key"]);
}

#[test]
fn an_array_that_is_not_consistent_is_adopted_only_if_that_is_said() {
    let volume = Volume::create(Shape::plain("5"));
    volume.fill(3);
    let (slot, byte, _) = volume.place(64);
    flip(&volume.members[slot], byte);
    let pairs: Vec<String> =
        volume.members.iter().map(|path| format!("{}={}.meta", text(path), text(path))).collect();
    let options = |more: &'static str| {
        let pairs = pairs.iter().flat_map(|pair| ["--metadata-device", pair]);
        pairs.chain([more]).collect::<Vec<&str>>()
    };
    let before = volume.hashes();
    let refused = volume.run("adopt", &options("--quiet")).ended(3).with(&["not consistent"]);
    assert!(refused.stderr.contains("--yes"), "{refused}");
    volume.run("adopt", &options("--yes")).ended(0);
    assert_eq!(volume.hashes(), before, "the members are as they were");
}

#[test]
fn an_adoption_that_is_killed_or_interrupted_goes_on_with_the_same_command() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let [data, metadata, key] = ["data", "meta", "key"].map(|name| folder.path().join(name));
    let bytes = noise(96 * MIB, 7);
    std::fs::write(&data, &bytes).expect("there is room");
    std::fs::write(&key, [7; 32]).expect("there is room");
    let sealed = ["--integrity", "hmac-sha256", "--integrity-key-file", text(&key)];
    let journal =
        ["--journal-integrity", "hmac-sha256", "--journal-integrity-key-file", text(&key)];
    let pair = format!("{}={}", text(&data), text(&metadata));
    let command = || {
        let mut command = program();
        command.args(["adopt", text(&data), "--metadata-device", &pair]).args(sealed).args(journal);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let (mut stopped, mut ended) = (0, false);
    for attempt in 1..=40u64 {
        let mut child = command().spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(40 + 15 * attempt));
        let signal = if attempt % 3 == 0 { Signal::KILL } else { Signal::INT };
        let pid = Pid::from_child(&child);
        // It may have ended by itself.
        let _gone = kill_process(pid, signal);
        let status = child.wait().expect("our child");
        stopped += u32::from(status.code() == Some(130));
        ended |= status.success();
        if ended && stopped > 0 {
            break;
        }
    }
    assert!(stopped > 0, "none of them was stopped in the middle");
    finish(command()).ended(0);
    assert!(std::fs::read(&data).expect("it is there") == bytes, "the data was never written");
    let members = [metadata.clone()];
    let place = format!("{}={}", text(&metadata), text(&data));
    let given: Vec<&str> =
        sealed.into_iter().chain(journal).chain(["--data-device", &place]).collect();
    let exported = on("export", &members, &[&given[..], &["--to", "-"]].concat()).ended(0);
    assert!(exported.stdout == bytes, "every block verifies");
    flip(&data, 50 * MIB);
    on("export", &members, &[&given[..], &["--to", "-"]].concat()).ended(2);
}
