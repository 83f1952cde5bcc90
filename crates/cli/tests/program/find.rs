//! Superblocks that are lost: found again, shown, and written back only when that is asked.

use crate::support::given::Given;
use crate::support::volume::hashes;
use crate::support::{MIB, noise, text};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The superblock's area becomes zeroes; what was there.
fn lose(member: &Path) -> Vec<u8> {
    let file = OpenOptions::new().read(true).write(true).open(member).expect("it is there");
    let mut area = vec![0; 4096];
    file.read_exact_at(&mut area, 0).expect("it is longer");
    file.write_all_at(&[0; 4096], 0).expect("there is room");
    area
}

#[test]
fn a_lost_superblock_of_crcs_is_proven_and_written_back_when_asked() {
    let ctr = ["--journal-crypt", "ctr-aes", "--journal-crypt-key-file=CIPHER"];
    for (seed, separate, options, more) in [
        (1, false, &[][..], &[][..]),
        (2, false, &[], &["--sector-size", "512", "--interleave-sectors", "4096"]),
        (3, false, &["--integrity", "crc32"], &["--journal-size", "1M"]),
        (4, false, &[], &["--legacy-padding"]),
        (5, true, &[], &[]),
        (6, false, &ctr, &["--sector-size", "512"]),
    ] {
        let given = Given::create(1, separate, options, more);
        given.keeps_what_it_is_given(seed);
        let lost = lose(&given.members[0]);
        let before = hashes(&given.files());
        let said = given.on("inspect", &["--find"]).ended(1);
        let text = said.text();
        assert!(text.contains("must have been") && text.contains("--find --yes"), "{said}");
        assert_eq!(hashes(&given.files()), before, "finding writes nothing");
        given.on("inspect", &["--find", "--yes"]).ended(1);
        let area = std::fs::read(&given.members[0]).expect("it is there");
        // All but the salt, of which another may tag every block the same, and the version.
        assert_eq!(area[8..48], lost[8..48], "{options:?} {more:?}");
        let length = (4 * MIB).to_string();
        let out = given.on("export", &["-q", "--to", "-", "--length", &length]).ended(0);
        assert!(out.stdout == noise(4 * MIB, seed), "{options:?} {more:?}");
        given.on("scrub", &["--check"]).ended(0);
        given.on("inspect", &["--find", "--yes"]).one_line(3, &["is intact"]);
    }
}

#[test]
fn of_other_hashes_only_the_geometry_is_found_and_nothing_is_written() {
    let given = Given::create(1, false, &["--integrity", "sha256"], &["--sector-size", "512"]);
    given.keeps_what_it_is_given(4);
    lose(&given.members[0]);
    let before = hashes(&given.members);
    let said = given.with("inspect", &["--find"]).ended(3);
    for word in ["may have been", "integrity_tag_size         32", "cannot be known"] {
        assert!(said.text().contains(word), "{word}: {said}");
    }
    given.with("inspect", &["--find", "--yes"]).one_line(3, &["no superblock is proven"]);
    assert_eq!(hashes(&given.members), before);
}

#[test]
fn what_was_found_can_be_read_without_writing_it_back() {
    for (options, more) in
        [(&[][..], &[][..]), (&["--integrity", "sha256"], &["--mode", "recovery"])]
    {
        let given = Given::create(1, false, options, &["--sector-size", "512"]);
        given.keeps_what_it_is_given(9);
        lose(&given.members[0]);
        let before = hashes(&given.members);
        let (member, file) = (text(&given.members[0]), given.folder.path().join("found"));
        let found = given.with("inspect", &["--find", "--to", text(&file)]);
        assert!(found.text().contains("--superblock"), "{found}");
        // Where several may have been there, the likeliest comes first.
        let likeliest = given.folder.path().join("found.1");
        let file = if file.exists() { file } else { likeliest };
        let superblock = format!("{member}={}", text(&file));
        let length = (4 * MIB).to_string();
        let reading = ["-q", "--to", "-", "--length", &length, "--superblock", &superblock];
        // Nothing but the raw data is known of other hashes.
        let raw = if more.is_empty() { &[][..] } else { &["--unverified"] };
        let out = given.on("export", &[&reading[..], more, raw].concat());
        let out = out.ended(if more.is_empty() { 0 } else { 1 });
        assert!(out.stdout == noise(4 * MIB, 9), "{options:?}");
        given.on("status", &["--superblock", &superblock]);
        given
            .on("import", &["--from", text(&file), "--superblock", &superblock])
            .one_line(64, &["writes nothing"]);
        given
            .on("resize", &["--size", "64M", "--superblock", &superblock])
            .one_line(3, &["only for reading"]);
        assert_eq!(hashes(&given.members), before, "nothing was written");
        given
            .with("inspect", &["--find", "--to", text(&given.folder.path().join("found"))])
            .one_line(4, &["exists"]);
        std::fs::write(&file, [0; 100]).expect("it is ours");
        given.on("status", &["--superblock", &superblock]).one_line(64, &["4096 bytes"]);
    }
}

#[test]
fn a_sealed_journal_is_found_and_not_restored() {
    let mac = ["--journal-integrity", "hmac-sha256", "--journal-integrity-key-file=OTHER"];
    let given = Given::create(1, false, &mac, &["--sector-size", "512"]);
    given.keeps_what_it_is_given(4);
    lose(&given.members[0]);
    let before = hashes(&given.members);
    assert!(given.on("inspect", &["--find"]).ended(1).text().contains("have_journal_mac"));
    given.on("inspect", &["--find", "--yes"]).one_line(3, &["has MACs"]);
    assert_eq!(hashes(&given.members), before);
}
