//! Images made by the real kernel: found without a word about what they are, given out as the
//! kernel gave them out, and not changed by looking.

use crate::support::volume::{hashes, on};
use crate::support::{Said, hex, other, sha256, steadfast, text};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// One entry of the manifest, unpacked.
struct Golden {
    folder: TempDir,
    files: Vec<PathBuf>,
    /// Of the files, those that are named as members.
    members: usize,
    /// What else has to be said: keys, and where the data lies.
    options: Vec<String>,
    expected: String,
    entry: Value,
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
        let expected = entry["expect_sha256"].as_str().unwrap_or("not all can be read").to_owned();
        let (members, options, entry) = (files.len(), Vec::new(), entry.clone());
        let mut golden = Self { folder, files, members, options, expected, entry };
        if name.contains("-meta") {
            golden.members = 1;
            let pair = format!("{}={}", text(&golden.files[0]), text(&golden.files[1]));
            golden.options = ["--data-device", &pair].map(str::to_owned).to_vec();
        }
        golden
    }

    /// With these options, and the manifest's key that starts with `first`, in a file.
    fn keyed(mut self, options: &[&str], first: u8) -> Self {
        let path = self.folder.path().join("key");
        std::fs::write(&path, (first..first + 32).collect::<Vec<u8>>()).expect("there is room");
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self.options.push(text(&path).to_owned());
        self
    }

    /// `steadfast VERB` on all members, with what has to be said.
    fn on(&self, verb: &str, options: &[&str]) -> Said {
        self.on_some(verb, &self.files[..self.members], options)
    }

    fn on_some(&self, verb: &str, members: &[PathBuf], options: &[&str]) -> Said {
        let all = options.iter().copied().chain(self.options.iter().map(String::as_str));
        on(verb, members, &all.collect::<Vec<&str>>())
    }

    /// Every line that `integritysetup dump` printed of it is a field of `inspect`.
    fn agrees_with_its_dump(&self, inspected: &Value) {
        let Some(dump) = self.entry["dump"].as_str() else { return };
        let fields = inspected["members"][0]["integrity"]["fields"].as_array().expect("a list");
        let ours = |name: &str| {
            let field = fields.iter().find(|field| field["name"] == name);
            field.and_then(|field| field["value"].as_str()).map(str::trim)
        };
        for line in dump.lines().skip(1) {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            assert_eq!(ours(name), Some(value.trim()), "{name}: {inspected}");
        }
    }

    /// The members without those of the given slots come out as the kernel gave them out.
    #[track_caller]
    fn comes_out(&self, without: &[usize]) {
        let there = self.files[..self.members]
            .iter()
            .enumerate()
            .filter(|(slot, _)| !without.contains(slot));
        let files: Vec<PathBuf> = there.map(|(_, path)| path.clone()).collect();
        let said = self.on_some("export", &files, &["-q", "--to", "-"]);
        assert!(said.code <= 1, "without {without:?}: {said}");
        assert_eq!(hex(&Sha256::digest(&said.stdout)), self.expected, "without {without:?}");
    }
}

/// Looks with every verb that only looks, with `missing` members fewer at most.
fn looked_at(name: &str, missing: usize) -> Golden {
    looked(Golden::unpack(name), missing)
}

/// The same with what has to be said.
fn looked(golden: Golden, missing: usize) -> Golden {
    let name = golden.entry["name"].as_str().expect("a name");
    let before = hashes(&golden.files);
    let inspected = golden.on("inspect", &["--json"]).with(&[]).object();
    golden.agrees_with_its_dump(&inspected);
    let status = golden.on("status", &["--json"]);
    assert!(status.code <= 1, "{status}");
    status.object();
    golden.comes_out(&[]);
    let count = golden.members;
    if missing >= 1 {
        (0..count).for_each(|slot| golden.comes_out(&[slot]));
    }
    if missing >= 2 {
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b]));
        pairs.for_each(|pair| golden.comes_out(&pair));
    }
    golden.on("explain", &["--sector", "4321"]).with(&[]);
    let checked = golden.on("scrub", &["--check"]);
    assert!(checked.code <= 1, "{checked}");
    assert_eq!(hashes(&golden.files), before, "{name}: looking writes nothing");
    golden
}

/// Opened for writing and closed, it still gives out the same.
fn opened_for_writing(golden: &Golden) {
    let said = golden.on("scrub", &["-q"]);
    assert!(said.code <= 1, "{said}");
    golden.comes_out(&[]);
    golden.on("scrub", &["--check"]).ended(0);
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
fn raid0() {
    opened_for_writing(&looked_at("md-raid0-3-64k", 0));
}

#[test]
fn raid1() {
    opened_for_writing(&looked_at("md-raid1-2", 1));
}

#[test]
fn raid1_with_a_bitmap() {
    opened_for_writing(&looked_at("md-raid1-2-bitmap", 1));
}

#[test]
fn raid10() {
    opened_for_writing(&looked_at("md-raid10-4-n2-64k", 1));
}

#[test]
fn raid10_over_an_odd_number_of_members() {
    looked_at("md-raid10-3-n2-64k", 1);
}

#[test]
fn raid4() {
    opened_for_writing(&looked_at("md-raid4-4-64k", 1));
}

#[test]
fn raid5() {
    opened_for_writing(&looked_at("md-raid5-4-ls-64k", 1));
}

#[test]
fn raid5_that_ran_degraded_leaves_its_stale_member_out() {
    let golden = looked_at("md-raid5-4-ls-64k-degraded", 0);
    let status = golden.on("status", &["--json"]).ended(1).with(&["1.img", "stale"]);
    assert_eq!(status.object()["missing"], 1);
    golden.comes_out(&[1]);
}

#[test]
fn raid5_with_a_partial_parity_log() {
    opened_for_writing(&looked_at("md-raid5-4-ppl-64k", 1));
}

#[test]
fn raid5_right_asymmetric_with_a_bitmap() {
    opened_for_writing(&looked_at("md-raid5-4-ra-16k-bitmap", 1));
}

#[test]
fn raid6() {
    opened_for_writing(&looked_at("md-raid6-5-ls-64k", 2));
}

/// An array with a write journal, which is its last file: read with it, whoever of up to `missing` members is
/// gone, and never without it; then brought home.
fn journalled(name: &str, missing: usize) {
    let golden = Golden::unpack(name);
    let before = hashes(&golden.files);
    let [members @ .., journal] = &golden.files[..] else { panic!("{name} has files") };
    let status = golden.on("status", &[]).ended(0).text();
    let words = [text(journal), "blocks are not home"];
    words.iter().for_each(|word| assert!(status.contains(word), "'{word}' is not said: {status}"));
    let inspected = golden.on("inspect", &[]).text();
    assert!(inspected.contains("journal_tail"), "{inspected}");
    golden.comes_out(&[]);
    let count = members.len();
    (0..count).for_each(|slot| golden.comes_out(&[slot]));
    if missing >= 2 {
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b]));
        pairs.for_each(|pair| golden.comes_out(&pair));
    }
    golden.on("scrub", &["--check"]).ended(0);
    // Written among the last.
    let explained = golden.on("explain", &["--sector", "528"]).ended(0).text();
    let words = [text(journal), "the newest", "its checksum agrees", "in the write journal, with"];
    words.iter().for_each(|word| assert!(explained.contains(word), "'{word}': {explained}"));
    golden
        .on_some("export", members, &["-q", "--to", "-"])
        .one_line(3, &["its journal device is missing or stale", "export --force"]);
    // As it is spelled, with its journal and not without.
    let stack = golden.on("status", &["--json"]).ended(0).object()["stack"].clone();
    let stack = stack.as_str().expect("a text");
    let (without, _) = stack.split_once(", journal=").expect("it names the journal");
    steadfast(["export", "--stack", stack, "-q", "--to", "-"]).ended(0);
    steadfast(["status", "--stack", &format!("{without})")]).one_line(3, &["missing or stale"]);
    let member = stack.replace(", journal=", ", ");
    steadfast(["status", "--stack", &member]).one_line(3, &["journal=", "without a stack"]);
    assert_eq!(hashes(&golden.files), before, "{name}: looking writes nothing");
    // It comes home, and is the same.
    opened_for_writing(&golden);
    let status = golden.on("status", &["--json"]).ended(0).object();
    assert_eq!(status["write_journal"]["blocks"], 0, "{status}");
    (0..count).for_each(|slot| golden.comes_out(&[slot]));
}

#[test]
fn raid5_with_a_write_journal_that_holds_data_alone() {
    journalled("md-raid5-3-r5l-write-back+unreplayed", 1);
}

#[test]
fn raid6_with_a_write_journal() {
    journalled("md-raid6-4-r5l+unreplayed", 2);
}

/// An array caught in the middle of a reshape by side of where it stood, with any `missing` of its
/// members gone: read, never written, never checked.
fn reshaped(name: &str, missing: usize, words: &[&str]) {
    let golden = Golden::unpack(name);
    let before = hashes(&golden.files);
    let status = golden.on("status", &[]).ended(1).text();
    words.iter().for_each(|word| assert!(status.contains(word), "'{word}' is not said: {status}"));
    golden.comes_out(&[]);
    let count = golden.files.len();
    (0..count).for_each(|slot| golden.comes_out(&[slot]));
    if missing >= 2 {
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| [a, b]));
        pairs.for_each(|pair| golden.comes_out(&pair));
    }
    for sector in ["0", "20000"] {
        assert!(golden.on("explain", &["--sector", sector]).text().contains("stripe"));
    }
    golden.on("scrub", &["--check"]).one_line(3, &["reshape", "export"]);
    golden
        .on("serve", &["--nbd", "unix:/nowhere"])
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

#[test]
fn crc32() {
    opened_for_writing(&looked_at("crc32-512", 0));
}

#[test]
fn crc32c_512_interleaved_otherwise() {
    opened_for_writing(&looked_at("crc32c-512-inter8k", 0));
}

#[test]
fn crc32c_512_padded_as_of_old() {
    opened_for_writing(&looked_at("crc32c-512-legacypad", 0));
}

#[test]
fn xxhash64() {
    opened_for_writing(&looked_at("xxhash64-512", 0));
}

#[test]
fn sha256_killed_with_the_newest_data_in_the_journal() {
    opened_for_writing(&looked_at("sha256-512+unreplayed", 0));
}

/// Tags with the manifest's `/k.hmac`.
fn hmac(name: &str) -> Golden {
    let options = ["--integrity", "hmac-sha256", "--integrity-key-file"];
    looked(Golden::unpack(name).keyed(&options, 0), 0)
}

#[test]
fn hmac_sha256_512() {
    opened_for_writing(&hmac("hmac-sha256-512"));
}

#[test]
fn hmac_sha256_4k() {
    opened_for_writing(&hmac("hmac-sha256-4k"));
}

#[test]
fn hmac_sha256_without_a_salt() {
    opened_for_writing(&hmac("hmac-sha256-512-legacyhmac"));
}

#[test]
fn without_its_key_or_with_another_a_keyed_volume_is_refused() {
    let golden = Golden::unpack("hmac-sha256-512");
    let before = hashes(&golden.files);
    let keyed = ["--integrity", "hmac-sha256"];
    golden.on("status", &[]).one_line(3, &["verifies", "with a key are tried only if named"]);
    golden.on("status", &keyed).one_line(64, &["needs a key", "--integrity-key-file"]);
    let golden = golden.keyed(&["--integrity-key-file"], 1);
    let wrong = golden.on("scrub", &keyed);
    wrong.one_line(3, &["verifies with hmac-sha256: another key or algorithm"]);
    golden.on("status", &[]).one_line(64, &["no algorithm that takes a key", "--integrity"]);
    golden.on("status", &["--integrity", "sha256"]).one_line(64, &["sha256 takes no key"]);
    assert_eq!(hashes(&golden.files), before);
}

#[test]
fn an_encrypted_journal_with_the_newest_data() {
    let options = ["--journal-crypt", "ctr-aes", "--journal-crypt-key-file"];
    let name = "jcrypt-ctr-512+unreplayed";
    let golden = Golden::unpack(name);
    let before = hashes(&golden.files);
    golden.on("export", &["--to", "-"]).one_line(3, &["it is encrypted", "--journal-crypt"]);
    let golden = golden.keyed(&options, 0x41);
    golden.on("scrub", &[]).one_line(3, &["another cipher or key"]);
    assert_eq!(hashes(&golden.files), before);
    let golden = looked(Golden::unpack(name).keyed(&options, 0x40), 0);
    let explained = golden.on("explain", &["--sector", "16"]).ended(0);
    assert!(explained.text().contains("journal: section"), "{explained}");
    opened_for_writing(&golden);
}

#[test]
fn crc32c_512_with_its_data_on_another_device() {
    opened_for_writing(&looked_at("crc32c-512-meta", 0));
}

#[test]
fn crc32c_512_with_its_data_on_another_device_killed() {
    opened_for_writing(&looked_at("crc32c-512-meta+partreplayed", 0));
}

#[test]
fn a_data_device_that_was_not_named_is_asked_for() {
    let mut golden = Golden::unpack("crc32c-512-meta");
    let before = hashes(&golden.files);
    golden.options.clear();
    let words = ["0.img", "on another device", "--data-device MEMBER=PATH"];
    golden.on("status", &[]).one_line(3, &words);
    golden.on("status", &["--data-device", "x=y"]).one_line(64, &["does not start with a member"]);
    let stack =
        format!("integrity(file:{}, data=file:{})", text(&golden.files[0]), text(&golden.files[1]));
    on("status", &[], &["--stack", &stack]).ended(0);
    assert_eq!(hashes(&golden.files), before);
}

/// Opened for writing in `mode` and closed, it still gives out the same.
fn run_in(mode: &str, name: &str) {
    let mut golden = looked_at(name, 0);
    golden.options = ["--mode", mode].map(str::to_owned).to_vec();
    opened_for_writing(&golden);
}

#[test]
fn crc32c_512_with_a_bitmap() {
    run_in("bitmap", "crc32c-512-bitmap");
}

#[test]
fn crc32c_512_without_a_journal() {
    run_in("direct", "crc32c-512-nojournal");
}

#[test]
fn a_volume_that_was_never_wiped_is_read_where_the_kernel_reads_it() {
    let golden = Golden::unpack("crc32c-512-nowipe");
    let out = golden.folder.path().join("out");
    let said = golden.on("export", &["--json", "--to", text(&out)]).ended(2);
    let listed = golden.entry["readable"].as_array().expect("a list").iter();
    let listed = listed.filter_map(|line| line.as_str()?.strip_suffix('-')).map(|line| {
        let numbers = line.split_whitespace().map(|number| {
            u64::from_str_radix(number.trim_start_matches("0x"), 16).expect("a number")
        });
        numbers.collect::<Vec<u64>>()
    });
    let ours = said.object()["unreadable"].as_array().expect("a list").clone();
    let ours = ours.iter().map(|range| {
        ["byte", "bytes"].map(|name| range[name].as_u64().expect("a number")).to_vec()
    });
    assert_eq!(ours.collect::<Vec<_>>(), listed.collect::<Vec<_>>());
}

#[test]
fn what_a_recalculation_did_not_come_to_is_given_out_only_when_asked_and_then_told() {
    let golden = Golden::unpack("recalc-half-crc32c");
    let before = hashes(&golden.files);
    golden
        .on("export", &["--state", "none", "--to", "-"])
        .ended(2)
        .with(&["unreadable: sector 98304"]);
    let status = golden.on("status", &[]).ended(1).text();
    assert!(status.contains("valid below sector 98304 only"), "{status}");
    let said = golden.on("export", &["--unverified", "--state", "none", "--to", "-"]).ended(1);
    assert_eq!(hex(&Sha256::digest(&said.stdout)), golden.expected);
    said.with(&["never said to be valid: given out as it is", "that nothing vouches for"]);
    assert_eq!(hashes(&golden.files), before);
}

#[test]
fn after_a_crash_in_bitmap_mode_recovery_gives_out_what_lies_there() {
    let golden = Golden::unpack("crc32c-512-bitmap+unclean");
    let before = hashes(&golden.files);
    golden.on("export", &["-q", "--to", "-"]).ended(2);
    let recovery = ["--mode", "recovery", "--unverified", "-q", "--to", "-"];
    let said = golden.on("export", &recovery).ended(1);
    assert_eq!(hex(&Sha256::digest(&said.stdout)), golden.expected);
    let import = ["--mode", "recovery", "--from", "/dev/null"];
    golden.on("import", &import).one_line(64, &["recovery writes nothing", "export"]);
    golden.on("status", &["--mode", "online"]).ended(64).with(&["direct, inline, recovery"]);
    assert_eq!(hashes(&golden.files), before);
}

#[test]
fn a_scrub_goes_on_with_a_recalculation_that_did_not_finish() {
    let golden = Golden::unpack("recalc-half-crc32c");
    golden.on("scrub", &["--check", "--recalculate"]).one_line(64, &["--recalculate write"]);
    golden.on("scrub", &["-q", "--recalculate"]).ended(0);
    let said = golden.on("export", &["-q", "--to", "-"]).ended(0);
    assert_eq!(hex(&Sha256::digest(&said.stdout)), golden.expected);
}

#[test]
fn computing_all_tags_anew_says_that_damage_becomes_right() {
    let golden = Golden::unpack("crc32c-512");
    let reset = golden.on("scrub", &["-q", "--recalculate-reset"]).ended(0);
    reset.with(&["can no longer be told from what is right"]);
    golden.comes_out(&[]);
    golden.on("scrub", &["--check"]).ended(0);
}
