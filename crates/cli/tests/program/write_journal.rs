//! Arrays that are made with a write journal: what lies on the devices, what is said of it, and what is refused.

use crate::support::volume::on;
use crate::support::{MIB, Said, Shape, Volume, noise, other, qemu_io, steadfast, text};
use serde_json::Value;
use tempfile::TempDir;

/// A volume of this shape with a write journal of 4 MiB, whose device is the last of its members and lies in a
/// folder of its own.
fn create(shape: Shape, more: &[&str]) -> (Volume, TempDir) {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let journal = folder.path().join("journal.img");
    let file = std::fs::File::create(&journal).expect("the folder is ours");
    file.set_len(4 * MIB).expect("there is room");
    let options = [&["--write-journal", text(&journal)], more].concat();
    let mut volume = Volume::create_with(shape, 8 * MIB, &options);
    volume.members.push(journal);
    (volume, folder)
}

/// Its report says all of this.
#[track_caller]
fn says(said: &Said, words: &[&str]) {
    let text = said.text();
    words.iter().for_each(|word| assert!(text.contains(word), "'{word}' is not said: {said}"));
}

#[test]
fn an_array_that_is_made_with_a_write_journal_has_an_empty_one_and_is_whole() {
    for (level, metadata, tags) in [
        ("4", "1.1", false),
        ("5", "1.2", true),
        ("5", "1.0", false),
        ("6", "1.2", false),
        ("6", "1.0", true),
    ] {
        let shape = if tags { Shape::tagged(level, 4096) } else { Shape::plain(level) };
        let (volume, _folder) = create(shape, &["--metadata", metadata]);
        let journal = volume.members.last().expect("it has one").clone();
        let inspected = volume.run("inspect", &["--json"]).ended(0).object();
        let members = inspected["members"].as_array().expect("a list");
        let [members @ .., last] = &members[..] else { panic!("{inspected}") };
        assert!(members.iter().all(|member| member["md"]["write_journal"].is_null()));
        let fields = last["md"]["write_journal"].as_array().expect("it is a journal");
        let field = |name: &str| fields.iter().find(|field| field["name"] == name);
        assert!(field("journal_tail").is_some_and(|field| field["value"] != Value::Null));
        assert_eq!(field("data-parity stripes").map(|field| &field["value"]), Some(&"0".into()));
        if !tags {
            let examined = other("mdadm", "mdadm", ["--examine", text(&journal)]).ended(0);
            says(&examined, &["Device Role : Journal", "Feature Map : 0x200", "- correct"]);
        }
        let status = volume.run("status", &["--json"]).ended(0).object();
        assert_eq!(status["write_journal"]["blocks"], 0, "{status}");
        assert_eq!(status["bitmap"], Value::Null, "{status}");
        let told = volume.run("status", &[]).ended(0);
        says(&told, &["journal.img: 0 blocks are not home"]);
        assert_eq!(volume.export().0, 0);
        volume.run("scrub", &["--check"]).ended(0);
        let left = volume.without(&[0]);
        let said = on("export", &left, &["-q", "--to", "-"]).ended(1);
        assert!(said.stdout.iter().all(|&byte| byte == 0), "made of zeroes");
        let without = volume.without(&[volume.members.len() - 1]);
        on("export", &without, &["-q", "--to", "-"])
            .one_line(3, &["its journal device is missing or stale"]);
        on("status", &[journal], &[])
            .one_line(3, &["the members with the array's data were not named"]);
    }
}

#[test]
fn a_write_journal_that_makes_no_sense_is_refused_in_one_line_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let members: Vec<_> = (0..4).map(|slot| folder.path().join(format!("{slot}.img"))).collect();
    let journal = folder.path().join("journal.img");
    let journal = text(&journal);
    let asked = |level: &str, options: &[&str]| {
        let asked = ["--level", level, "--size", "4M", "--write-journal", journal];
        on("create", &members, &[&asked, options].concat())
    };
    let plain = ["--integrity", "none"];
    for (level, options, code, words) in [
        ("1", &plain[..], 64, "RAID 4, 5 and 6, not for raid1"),
        ("10", &plain, 64, "RAID 4, 5 and 6, not for raid10"),
        ("5", &["--bitmap", "internal"], 64, "write-intent bitmap, not both"),
        ("5", &["--bitmap-chunk", "64K"], 64, "write-intent bitmap, not both"),
        ("5", &["--consistency-policy", "ppl"], 64, "partial parity log, not both"),
        ("5", &["--integrity", "t10-dif-type1-crc16"], 64, "tuples beside each block, not both"),
    ] {
        asked(level, options).one_line(code, &["--write-journal", words]);
        assert!(members.iter().all(|member| !member.exists()), "{level} {options:?}");
    }
    on("create", &members, &["--level", "5", "--size", "4M", "--write-journal", text(&members[1])])
        .one_line(3, &["1.img", "name it once"]);
    std::fs::write(journal, vec![0; 1 << 20]).expect("the folder is ours");
    asked("5", &plain).one_line(3, &["journal.img", "expected at least 4096", "a larger device"]);
    assert!(members.iter().all(|member| !member.exists()), "what was made is gone again");

    // Members that keep tuples by themselves.
    let sectors: Vec<String> = (0..3)
        .map(|slot| {
            format!(
                "sectors:512+8/t10-dif-type1-crc16:{}",
                folder.path().join(format!("s{slot}")).display()
            )
        })
        .collect();
    let names = sectors.iter().map(String::as_str);
    let rest = ["--level", "5", "--size", "4M", "--integrity", "none", "--write-journal", journal];
    steadfast(std::iter::once("create").chain(names).chain(rest))
        .one_line(64, &["tuples beside each block"]);
}

#[test]
fn a_dry_run_lists_the_journal_and_mdadms_word_for_it_is_understood() {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let members: Vec<_> = (0..3).map(|slot| folder.path().join(format!("{slot}.img"))).collect();
    let journal = folder.path().join("journal.img");
    let asked = ["--level", "5", "--size", "4M", "--like", "mdadm", "--chunk", "64K"];
    let asked = [&asked[..], &["--write-journal", text(&journal)]].concat();
    let policy = [&asked[..], &["--consistency-policy", "journal"]].concat();
    let planned = on("create", &members, &[&policy[..], &["--dry-run"]].concat()).ended(0);
    says(
        &planned,
        &["journal.img: byte 1048576, 4096 bytes", "first block of an empty write journal"],
    );
    assert!(!journal.exists());
    let made = on("create", &members, &policy).ended(0);
    says(&made, &[&format!("{} {} --nbd", text(&members[2]), text(&journal))]);
    assert_eq!(std::fs::metadata(&journal).expect("it was made").len(), 4 * MIB);
}

#[test]
fn a_write_journal_neither_leaves_its_array_nor_becomes_a_spare_of_it() {
    let (volume, _folder) = create(Shape::plain("5"), &[]);
    let [.., journal] = &volume.members[..] else { panic!("it has one") };
    let before = volume.hashes();
    let new = volume.file("new.img", &vec![0; 8 << 20]);
    for (verb, options) in [
        ("fail", &["--member", text(journal)][..]),
        ("remove", &["--member", text(journal)]),
        ("replace", &["--old", text(journal), "--new", text(&new)]),
    ] {
        let words = ["journal.img", "is the array's write journal"];
        volume.run(verb, &[options, &["--dry-run"]].concat()).one_line(3, &words);
    }
    volume
        .run("add", &["--new", text(journal), "--dry-run", "--yes"])
        .one_line(3, &["journal.img", "is a member of this volume already"]);
    let without = volume.without(&[3]);
    on("add", &without, &["--new", text(&new), "--dry-run"])
        .one_line(3, &["its journal device is missing", "mdadm --add-journal"]);
    assert_eq!(volume.hashes(), before);
}

#[test]
fn what_was_flushed_survives_a_kill_whoever_is_missing_and_comes_home() {
    for shape in [Shape::plain("5"), Shape::tagged("6", 4096), Shape::plain("4")] {
        let (volume, _folder) = create(shape, &[]);
        let mut expected = volume.fill(3);
        let status = volume.run("status", &["--json"]).ended(0).object();
        assert_eq!(status["write_journal"]["blocks"], 0, "it was closed: {status}");
        let server = volume.serve(&[]);
        let new = noise(200 << 10, 9);
        let file = volume.file("new", &new);
        // Not whole blocks of the journal; parts of stripes; whole stripes.
        for (offset, length) in
            [(20_992_u64, 1024_usize), (1 << 20, 4096), (0, 8192), (2 << 20, 200 << 10)]
        {
            let write = format!("write -s {} {offset} {length}", file.display());
            qemu_io(&server.uri, &write).expect("it is written");
            let at = usize::try_from(offset).expect("small");
            expected[at..at + length].copy_from_slice(&new[..length]);
        }
        server.kill();
        let status = volume.run("status", &["--json"]).object();
        assert!(status["write_journal"]["blocks"].as_u64() > Some(50), "{status}");
        let explained = volume.run("explain", &["--sector", "4100"]);
        let words = ["P agrees with the data as it is with the journal home", "by home: "];
        says(&explained, &["in the write journal, with parity: checksum valid"]);
        says(&explained, &words);
        says(&explained, &["by P: what lies there; the journal's checksum agrees"]);
        for gone in 0..shape.members() {
            let said = on("export", &volume.without(&[gone]), &["-q", "--to", "-"]).ended(1);
            assert!(said.stdout == expected, "without member {gone}, reading only");
        }
        // By its recovery, with a member less.
        let left = volume.without(&[1]);
        on("scrub", &left, &["-q"]).ended(1);
        let said = on("export", &left, &["-q", "--to", "-"]).ended(1);
        assert!(said.stdout == expected, "after it came home");
        let status = on("status", &left, &["--json"]).object();
        assert_eq!(status["write_journal"]["blocks"], 0, "{status}");
    }
}

#[test]
fn a_server_does_not_let_its_write_journal_go() {
    let (volume, _folder) = create(Shape::plain("5"), &[]);
    let bytes = volume.fill(4);
    let [.., journal] = &volume.members[..] else { panic!("it has one") };
    let server = volume.serve(&[]);
    for verb in ["fail", "remove"] {
        let words = ["journal.img", "is the array's write journal"];
        volume.run(verb, &["--member", text(journal)]).one_line(3, &words);
    }
    let again = ["--new", text(journal), "--yes"];
    volume.run("add", &again).one_line(3, &["is a member of this volume already"]);
    // A member may go and come, through the journal.
    let member = text(&volume.members[1]);
    volume.run("fail", &["--member", member]).ended(1);
    qemu_io(&server.uri, "write -P 7 0 1M").expect("it is written");
    volume.run("add", &["--new", member, "--yes"]).ended(0);
    assert_eq!(server.stop().code, 0);
    volume.run("scrub", &["--check"]).ended(0);
    let (code, found) = volume.export();
    assert!(code == 0 && found[1 << 20..] == bytes[1 << 20..]);
    assert!(found[..1 << 20].iter().all(|&byte| byte == 7));
}
