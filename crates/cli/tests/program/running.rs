//! How dm-integrity is run: with its journal, its bitmap or neither; tags computed anew, discards, and
//! journals that are damaged.

use crate::support::given::Given;
use crate::support::nbd::Client;
use crate::support::volume::{MEMBER_BYTES, located, on};
use crate::support::{MIB, PROGRAM, Said, Shape, Volume, at_home, flip, noise, qemu_io, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};

const SINGLE: Shape = Shape::tagged("none", 512);

#[test]
fn a_trim_leaves_the_kernels_filler_tags_and_only_who_allows_them_reads_there() {
    for mode in ["journal", "bitmap", "direct"] {
        let volume = Volume::create(SINGLE);
        let mut bytes = volume.fill(1);
        let server = volume.serve(&["--mode", mode, "--allow-discards"]);
        qemu_io(&server.uri, "discard 1M 1M").unwrap_or_else(|text| panic!("{mode}: {text}"));
        qemu_io(&server.uri, "read -P 0 1M 1M").unwrap_or_else(|text| panic!("{mode}: {text}"));
        server.stop().ended(0);

        let explained = volume.explain(2048 + 77);
        let tag = &explained["places"][0]["tag"];
        assert_eq!(tag["stored"], "f6f6f6f6", "{mode}: {explained}");
        assert_ne!(volume.explain(2047)["places"][0]["tag"]["stored"], "f6f6f6f6", "{mode}");
        let (code, _) = volume.export();
        assert_eq!(code, 2, "{mode}: nobody allowed them");
        bytes[1 << 20..2 << 20].fill(0);
        let allowed = ["-q", "--allow-discards", "--state", "none", "--to", "-"];
        let said = volume.run("export", &allowed).ended(0);
        assert!(said.stdout == bytes, "{mode}: all else is what it was");
        // Written again, a block is like any other.
        let part = volume.file("part", &noise(MIB, 9));
        let offset = ["-q", "--offset", "1M", "--mode", mode, "--from", text(&part)];
        volume.run("import", &offset).ended(0);
        bytes[1 << 20..2 << 20].copy_from_slice(&noise(MIB, 9));
        assert!(volume.run("export", &["-q", "--to", "-"]).stdout == bytes, "{mode}");
    }
}

/// A sparse volume that was never wiped: large, so that computing its tags takes a while.
fn unwiped() -> Volume {
    Volume::create_with(Shape::tagged("none", 4096), 3 << 30, &["--no-wipe"])
}

/// The first sector whose tag is not known to be valid; none if all are.
fn position(volume: &Volume) -> Option<u64> {
    let said = volume.run("status", &["--json", "--state", "none"]);
    said.object()["members"][0]["recalculated_below"].as_u64()
}

/// Starts `scrub` and interrupts it while it computes tags.
fn interrupted(volume: &Volume, option: &str) -> Said {
    let mut command = at_home(Command::new(PROGRAM));
    command.arg("scrub").args(&volume.members).args([option, "--progress", "json"]);
    let line = format!("{command:?}");
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
    let mut said = String::new();
    while !said.contains("computing tags") {
        let read = stderr.read_line(&mut said).expect("it can be read");
        assert_ne!(read, 0, "it ended before: {said}");
    }
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(pid, Signal::INT).expect("it runs");
    stderr.read_to_string(&mut said).expect("it can be read");
    let mut stdout = Vec::new();
    child.stdout.take().expect("it is a pipe").read_to_end(&mut stdout).expect("it can be read");
    let status = child.wait().expect("it is our child");
    Said::of(line, Output { status, stdout, stderr: said.into_bytes() })
}

#[test]
fn a_scrub_that_computes_tags_is_interrupted_and_the_next_goes_on() {
    let volume = unwiped();
    interrupted(&volume, "--recalculate-reset").ended(130);
    let first = position(&volume).expect("it was interrupted");
    interrupted(&volume, "--recalculate").ended(130);
    let second = position(&volume).expect("it was interrupted again");
    assert!(second >= first, "{second} is before {first}");
    let status = volume.run("status", &[]).ended(1).text();
    assert!(status.contains("scrub") && status.contains("--recalculate"), "{status}");
    volume.run("scrub", &["-q", "--recalculate"]).ended(0);
    assert_eq!(position(&volume), None);
    volume.run("status", &[]).ended(0);
}

#[test]
fn a_server_computes_tags_while_clients_write_and_after_a_kill_the_next_goes_on() {
    for mode in ["journal", "bitmap", "direct"] {
        let volume = unwiped();
        let server = volume.serve(&["--mode", mode, "--recalculate-reset"]);
        let mut client = Client::connect(&server.socket).expect("the server is ready");
        let last = client.bytes - MIB;
        client.write_all(&[(last, noise(MIB, 3))]).expect("it is served");
        client.flush().expect("it is served");
        server.kill();
        assert!(position(&volume).is_some(), "{mode}: it was killed in the middle");
        let server = volume.serve(&["--mode", mode, "--recalculate"]);
        let mut client = Client::connect(&server.socket).expect("the server is ready");
        client.write_all(&[(MIB, noise(MIB, 4))]).expect("it is served");
        let said = server.stop();
        assert!(said.code <= 1, "{said}");
        volume.run("scrub", &["-q", "--mode", mode, "--recalculate"]).ended(0);
        assert_eq!(position(&volume), None, "{mode}");
        for (offset, seed) in [(last, 3), (MIB, 4)] {
            let range = ["-q", "--to", "-", "--length", "1M", "--offset", &offset.to_string()];
            assert!(volume.run("export", &range).ended(0).stdout == noise(MIB, seed), "{mode}");
        }
    }
}

#[test]
fn a_key_signs_what_lies_there_only_for_who_insists() {
    let hmac = ["--integrity", "hmac-sha256", "--integrity-key-file=KEY"];
    let given = Given::create(1, false, &hmac, &[]);
    given.on("scrub", &["--legacy-recalculate"]).ended(64);
    let refused = given.on("scrub", &["--recalculate-reset", "--state", "none"]).ended(3);
    refused.with(&["would sign whatever lies on the disk", "--legacy-recalculate"]);
    let insists = ["-q", "--recalculate-reset", "--legacy-recalculate"];
    given.on("scrub", &insists).ended(0);
    given.keeps_what_it_is_given(1);
}

/// Kills a server in `mode` with a write whose tags are not on the disk yet.
fn killed_while_written(mode: &str) -> (Volume, Vec<u8>) {
    let volume = Volume::create(SINGLE);
    let mut bytes = volume.fill(1);
    let server = volume.serve(&["--mode", mode]);
    let mut client = Client::connect(&server.socket).expect("the server is ready");
    client.write_all(&[(MIB, noise(MIB / 2, 5))]).expect("it is served");
    server.kill();
    bytes[1 << 20..3 << 19].copy_from_slice(&noise(MIB / 2, 5));
    (volume, bytes)
}

#[test]
fn what_bitmap_mode_left_in_doubt_is_listed_and_given_out_only_if_asked_for() {
    let (volume, bytes) = killed_while_written("bitmap");
    let before = volume.hashes();
    let status = volume.run("status", &["--state", "none"]).ended(1).text();
    for words in ["in bitmap mode at a crash", "its sectors 0-", "--mode bitmap"] {
        assert!(status.contains(words), "{words}: {status}");
    }
    let inspected = volume.run("inspect", &[]).text();
    assert!(inspected.contains("in doubt"), "{inspected}");
    let inspected = volume.run("inspect", &["--json"]).object();
    let suspect = &inspected["members"][0]["integrity"]["suspect"];
    assert_eq!(suspect[0][0], 0, "{inspected}");
    let export = ["--state", "none", "--to", "-"];
    let said = volume.run("export", &export).ended(2);
    assert!(said.stdout[..1 << 20] == bytes[..1 << 20], "what fits its tag is given out");
    said.with(&["unreadable: sector 2048, 1024 sectors"]);
    let asked = ["--unverified", "--state", "none", "--to", "-"];
    let said = volume.run("export", &asked).ended(1);
    assert!(said.stdout == bytes, "what lies there");
    said.with(&["when bitmap mode ended", "1024 blocks that nothing vouches for"]);
    assert_eq!(volume.hashes(), before, "looking writes nothing");

    // Opened again in its mode it stays in doubt, also where somebody asked to see it.
    let server = volume.serve(&["--mode", "bitmap", "--unverified"]);
    qemu_io(&server.uri, "read 0 4M").expect("it is asked for");
    assert_eq!(server.stop().code, 1);
    volume.run("scrub", &["-q", "--mode", "bitmap", "--state", "none"]).ended(2);
    assert_eq!(volume.run("export", &export).code, 2);
    volume.run("scrub", &["-q", "--mode", "bitmap", "--recalculate"]).ended(0);
    let said = volume.run("export", &["-q", "--to", "-"]).ended(0);
    assert!(said.stdout == bytes, "taken for right, as asked");
    volume.run("status", &[]).ended(0);
}

#[test]
fn through_the_journal_too_what_is_in_doubt_is_given_out_or_taken_for_right_if_asked_for() {
    for (mode, option) in [("journal", "--unverified"), ("direct", "--recalculate")] {
        let (volume, bytes) = killed_while_written("bitmap");
        if option == "--unverified" {
            let server = volume.serve(&["--mode", mode, option]);
            let mut client = Client::connect(&server.socket).expect("the server is ready");
            client.flush().expect("it is served");
            qemu_io(&server.uri, "read 1M 512k").expect("it is asked for");
            assert_eq!(server.stop().code, 1, "{mode}");
            // Its bitmap is given up: what was in doubt is now like any damage.
            let said = volume.run("export", &["-q", option, "--state", "none", "--to", "-"]);
            assert_eq!(said.code, 2, "{said}");
        } else {
            volume.run("scrub", &["-q", "--mode", mode, option]).ended(0);
            let said = volume.run("export", &["-q", "--to", "-"]).ended(0);
            assert!(said.stdout == bytes, "{mode}");
        }
    }
}

/// A volume whose server was killed with flushed writes in the journal; one sector of the section
/// that holds the second of them is damaged.
fn damaged_journal() -> (Volume, Vec<u8>) {
    // Of eleven sections.
    let more = ["--journal-size", "1M"];
    let volume = Volume::create_with(SINGLE, MEMBER_BYTES, &more);
    let bytes = volume.fill(1);
    let server = volume.serve(&[]);
    let mut client = Client::connect(&server.socket).expect("the server is ready");
    for (offset, seed) in [(MIB, 11), (2 * MIB, 12), (3 * MIB, 13)] {
        client.write_all(&[(offset, noise(4096, seed))]).expect("it is served");
        client.flush().expect("it is served");
    }
    server.kill();
    let sound = volume.run("inspect", &["--json"]).object();
    let integrity = &sound["members"][0]["integrity"];
    assert_eq!(integrity["journal_sections"]["problem"], Value::Null, "{sound}");
    let sections = integrity["journal_sections"]["sections"].as_array().expect("a list");
    let holds = |section: &&Value| section["holds"] == serde_json::json!([[4096, 8]]);
    let number =
        sections.iter().find(holds).unwrap_or_else(|| panic!("{sound}"))["section"].clone();
    let fields = integrity["geometry"].as_array().expect("a list").iter();
    let length = fields.filter(|field| field["name"] == "section_sectors");
    let length: u64 = length
        .map(|f| f["value"].as_str().expect("text").parse())
        .next()
        .expect("it is there")
        .expect("a number");
    let first = 8 + number.as_u64().expect("a number") * length;
    flip(&volume.members[0], (first + 9) * 512 + 511);
    (volume, bytes)
}

#[test]
fn a_damaged_journal_is_shown_refused_and_decided_on() {
    for (choice, mode) in
        [("replay", "journal"), ("replay", "bitmap"), ("discard", "journal"), ("discard", "direct")]
    {
        let (volume, mut bytes) = damaged_journal();
        let before = volume.hashes();
        let shown = volume.run("inspect", &[]).text();
        for words in ["damaged: its sector 9", "sectors 4096-4103", "discard loses"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
        let part = volume.file("part", &noise(4096, 20));
        let import = ["-q", "--mode", mode, "--from", text(&part)];
        let words = ["cannot be replayed", "scrub", "--journal replay"];
        volume.run("import", &import).one_line(3, &words);
        assert_eq!(volume.hashes(), before);

        let decided = ["--journal", choice, "--mode", mode, "--state", "none"];
        let said = volume.run("scrub", &decided);
        assert!(said.text().contains("--journal discard throws away"), "{said}");
        volume.run("import", &import).ended(0);
        bytes[..4096].copy_from_slice(&noise(4096, 20));
        let said = volume.run("export", &["--state", "none", "--to", "-"]);
        let holds = |offset: usize, wanted: &[u8]| said.stdout[offset..offset + 4096] == *wanted;
        if choice == "replay" {
            assert_eq!(said.code, 2, "{said}");
            assert!(holds(1 << 20, &noise(4096, 11)), "it was proven");
            assert!(said.stderr.contains("unreadable: sector 4096, 8 sectors"), "{said}");
            assert!(said.stderr.contains("unreadable: sector 6144, 8 sectors"), "{said}");
        } else {
            assert_eq!(said.code, 0, "{said}");
            assert!(said.stdout == bytes, "as it was at home");
        }
    }
}

#[test]
fn a_scrub_writes_a_damaged_superblock_back_sealed_as_it_was() {
    let sealed = ["--journal-integrity", "hmac-sha256", "--journal-integrity-key-file=OTHER"];
    let given = Given::create(1, false, &sealed, &[]);
    given.keeps_what_it_is_given(1);
    let mut area = vec![0; 4096];
    let member = File::open(&given.members[0]).expect("it is there");
    member.read_exact_at(&mut area, 0).expect("it is as long");
    // A field; a byte of the MAC; all of it.
    for damaged in [16..17, 490..491, 0..512] {
        let options: Vec<&str> = given.options.iter().map(String::as_str).collect();
        let server = crate::support::Server::start(&given.members, given.folder.path(), &options);
        damaged.for_each(|byte| flip(&given.members[0], byte));
        let said = given.on("scrub", &["--json"]).ended(1).object();
        assert_eq!(said["healed"]["sectors"], 8, "{said}");
        server.stop();
        let mut found = vec![0; 4096];
        member.read_exact_at(&mut found, 0).expect("it is as long");
        assert!(found == area, "sealed with its key, and all else as it was");
        given.on("scrub", &["-q"]).ended(0);
    }
}

#[test]
fn an_array_is_not_written_with_bytes_that_nothing_vouches_for() {
    let volume = Volume::create(Shape::tagged("5", 4096));
    let before = volume.hashes();
    let refused = on("scrub", &volume.members, &["--unverified"]);
    refused.one_line(3, &["--unverified", "redundancy"]);
    assert_eq!(volume.hashes(), before);
    volume.run("export", &["-q", "--unverified", "--to", "-"]).ended(0);
    // Its members say where they lie all the same.
    assert!(located(&volume.explain(0)["places"][0]).2.is_some());
}
