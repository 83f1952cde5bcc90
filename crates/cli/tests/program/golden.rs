//! Images made by the real kernel: found without a word about what they are, given out as the
//! kernel gave them out, and not changed by looking.

use crate::support::volume::{hashes, on};
use crate::support::{Server, hex, other, qemu_io, sha256, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// One entry of the manifest, unpacked.
struct Golden {
    folder: TempDir,
    files: Vec<PathBuf>,
    expected: String,
}

impl Golden {
    fn unpack(name: &str) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
        let manifest = std::fs::read_to_string(golden.join("manifest.json")).expect("it is there");
        let manifest: Value = serde_json::from_str(&manifest).expect("it is JSON");
        let entries = manifest["entries"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["name"] == name);
        let entry = entry.unwrap_or_else(|| panic!("{name} is not in the manifest"));
        let folder = tempfile::tempdir().expect("there is room");
        let mut files = Vec::new();
        for file in entry["files"].as_array().expect("a list") {
            let packed = golden.join(file["file"].as_str().expect("a name"));
            let path = folder.path().join(format!("{}.img", files.len()));
            other("zstd", "zstd", ["-dq", "--sparse", text(&packed), "-o", text(&path)]).ended(0);
            assert_eq!(sha256(&path).as_deref(), file["image_sha256"].as_str(), "{name}");
            files.push(path);
        }
        let expected = entry["expect_sha256"].as_str().expect("a hash").to_owned();
        Self { folder, files, expected }
    }

    /// The members without those of the given slots come out as the kernel gave them out.
    #[track_caller]
    fn comes_out(&self, without: &[usize]) {
        let there = self.files.iter().enumerate().filter(|(slot, _)| !without.contains(slot));
        let files: Vec<PathBuf> = there.map(|(_, path)| path.clone()).collect();
        let said = on("export", &files, &["-q", "--to", "-"]);
        assert!(said.code <= 1, "without {without:?}: {said}");
        assert_eq!(hex(&Sha256::digest(&said.stdout)), self.expected, "without {without:?}");
    }
}

/// Looks with every verb that only looks, with `missing` members fewer at most.
fn looked_at(name: &str, missing: usize) -> Golden {
    let golden = Golden::unpack(name);
    let before = hashes(&golden.files);
    on("inspect", &golden.files, &["--json"]).with(&[]).object();
    let status = on("status", &golden.files, &["--json"]);
    assert!(status.code <= 1, "{status}");
    status.object();
    golden.comes_out(&[]);
    let count = golden.files.len();
    if missing >= 1 {
        (0..count).for_each(|slot| golden.comes_out(&[slot]));
    }
    if missing >= 2 {
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b]));
        pairs.for_each(|pair| golden.comes_out(&pair));
    }
    on("explain", &golden.files, &["--sector", "4321"]).with(&[]);
    let checked = on("scrub", &golden.files, &["--check"]);
    assert!(checked.code <= 1, "{checked}");
    assert_eq!(hashes(&golden.files), before, "{name}: looking writes nothing");
    golden
}

/// A feature that is not written here: refused by name, served read-only.
fn served_read_only(name: &str, feature: &str) {
    let golden = looked_at(name, 0);
    let before = hashes(&golden.files);
    let listen = format!("unix:{}", text(&golden.folder.path().join("s")));
    on("serve", &golden.files, &["--nbd", &listen])
        .one_line(3, &[feature, "not implemented for writing", "--read-only"]);
    on("import", &golden.files, &["--from", "/dev/null"]).one_line(3, &[feature]);
    on("scrub", &golden.files, &[]).one_line(3, &[feature]);
    let server = Server::start(&golden.files, golden.folder.path(), &["--read-only"]);
    let copy = golden.folder.path().join("copy");
    other("nbdcopy", "libnbd-bin", [server.uri.as_str(), text(&copy)]).ended(0);
    assert_eq!(sha256(&copy).as_deref(), Some(golden.expected.as_str()), "{name}");
    assert!(qemu_io(&server.uri, "write 0 4k").is_err(), "{name}");
    assert!(server.stop().code <= 1, "{name}");
    assert_eq!(hashes(&golden.files), before, "{name}");
}

/// Opened for writing and closed, it still gives out the same.
fn opened_for_writing(golden: &Golden) {
    let said = on("scrub", &golden.files, &["-q"]);
    assert!(said.code <= 1, "{said}");
    golden.comes_out(&[]);
    on("scrub", &golden.files, &["--check"]).ended(0);
}

#[test]
fn crc32c_512() {
    opened_for_writing(&looked_at("crc32c-512", 0));
}

#[test]
fn crc32c_512_with_a_larger_journal() {
    opened_for_writing(&looked_at("crc32c-512-j1m", 0));
}

#[test]
fn crc32c_512_killed_with_all_written_home() {
    opened_for_writing(&looked_at("crc32c-512+partreplayed", 0));
}

#[test]
fn crc32c_512_killed_with_the_newest_data_in_the_journal() {
    opened_for_writing(&looked_at("crc32c-512-j1m+unreplayed", 0));
}

#[test]
fn crc32c_4k() {
    opened_for_writing(&looked_at("crc32c-4k", 0));
}

#[test]
fn crc32c_4k_with_a_larger_journal() {
    opened_for_writing(&looked_at("crc32c-4k-j1m", 0));
}

#[test]
fn raid1() {
    opened_for_writing(&looked_at("md-raid1-2", 1));
}

#[test]
fn raid1_with_a_bitmap_is_served_read_only() {
    served_read_only("md-raid1-2-bitmap", "bitmap");
}

#[test]
fn raid5() {
    opened_for_writing(&looked_at("md-raid5-4-ls-64k", 1));
}

#[test]
fn raid5_that_ran_degraded_leaves_its_stale_member_out() {
    let golden = looked_at("md-raid5-4-ls-64k-degraded", 0);
    let status = on("status", &golden.files, &["--json"]).ended(1).with(&["1.img", "stale"]);
    assert_eq!(status.object()["missing"], 1);
    golden.comes_out(&[1]);
}

#[test]
fn raid5_with_a_partial_parity_log_is_served_read_only() {
    served_read_only("md-raid5-4-ppl-64k", "partial parity log");
}

#[test]
fn raid5_right_asymmetric_with_a_bitmap_is_served_read_only() {
    served_read_only("md-raid5-4-ra-16k-bitmap", "bitmap");
}

#[test]
fn raid6() {
    opened_for_writing(&looked_at("md-raid6-5-ls-64k", 2));
}

/// An array caught in the middle of a reshape by side of where it stood, with any `missing` of its
/// members gone: read, never written, never checked.
fn reshaped(name: &str, missing: usize, words: &[&str]) {
    let golden = Golden::unpack(name);
    let before = hashes(&golden.files);
    let status = on("status", &golden.files, &[]).ended(1).text();
    words.iter().for_each(|word| assert!(status.contains(word), "'{word}' is not said: {status}"));
    golden.comes_out(&[]);
    let count = golden.files.len();
    (0..count).for_each(|slot| golden.comes_out(&[slot]));
    if missing >= 2 {
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b]));
        pairs.for_each(|pair| golden.comes_out(&pair));
    }
    for sector in ["0", "20000"] {
        assert!(on("explain", &golden.files, &["--sector", sector]).text().contains("stripe"));
    }
    on("scrub", &golden.files, &["--check"]).one_line(3, &["reshape", "export"]);
    on("serve", &golden.files, &["--nbd", "unix:/nowhere"])
        .one_line(3, &["a reshape is not implemented for writing", "--read-only"]);
    assert_eq!(hashes(&golden.files), before, "{name}: looking writes nothing");
}

#[test]
fn raid5_growing_from_4_members_to_5() {
    reshaped("md-raid5-4to5-reshape", 1, &["from 4 members", "to 5 members", "sector 32768"]);
}

#[test]
fn raid6_shrinking_from_6_members_to_5() {
    let words = ["backwards from 6 members", "to 5 members", "sector 11712"];
    reshaped("md-raid6-6to5-reshape-backwards", 2, &words);
}

#[test]
fn raid6_changing_layout_and_chunk() {
    let words = ["of 64 KiB chunks", "of 128 KiB chunks", "sector 24576"];
    reshaped("md-raid6-5-ls-64k-to-ra-128k-reshape", 2, &words);
}

#[test]
fn raid1_over_dm_integrity() {
    opened_for_writing(&looked_at("stack-raid1-2", 1));
}

#[test]
fn raid5_over_dm_integrity() {
    opened_for_writing(&looked_at("stack-raid5-4", 1));
}
