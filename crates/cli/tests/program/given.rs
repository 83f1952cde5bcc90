//! Volumes of which the disk does not say everything: keys, encrypted journals, data elsewhere.

use crate::support::given::Given;
use crate::support::volume::{hashes, on};
use crate::support::{MIB, Server, noise, other, sha256, text};

const HMAC: [&str; 3] = ["--integrity", "hmac-sha256", "--integrity-key-file=KEY"];
const MAC: [&str; 3] = ["--journal-integrity", "hmac-sha256", "--journal-integrity-key-file=OTHER"];
const CTR: [&str; 3] = ["--journal-crypt", "ctr-aes", "--journal-crypt-key-file=CIPHER"];
const CBC: [&str; 3] = ["--journal-crypt", "cbc-aes", "--journal-crypt-key-file=CIPHER"];

#[test]
fn every_algorithm_with_a_key_and_every_protection_of_the_journal() {
    let all = [&HMAC[..], &MAC, &CBC].concat();
    for (seed, options, more) in [
        (1, &HMAC[..], &["--sector-size", "512"][..]),
        (2, &["--integrity", "hmac-sha512", "--integrity-key-file=KEY"], &[]),
        (3, &["--integrity", "hmac-sha1", "--integrity-key-file=KEY"], &["--tag-size", "8"]),
        (4, &MAC, &["--sector-size", "1024"]),
        (5, &["--journal-integrity", "crc32c"], &[]),
        (6, &CTR, &["--sector-size", "2048", "--journal-size", "1M"]),
        (7, &CBC, &["--sector-size", "512"]),
        (8, &all, &["--sector-size", "512"]),
        (9, &all, &["--legacy-hmac"]),
        (10, &[], &["--legacy-padding", "--sector-size", "512"]),
        (11, &["--integrity", "blake2s-256"], &["--interleave-sectors", "4096"]),
    ] {
        Given::create(1, false, options, more).keeps_what_it_is_given(seed);
    }
}

#[test]
fn arrays_of_members_with_keys() {
    let options = [&HMAC[..], &MAC, &CTR].concat();
    for (seed, level, count) in [(1, "1", 2), (2, "5", 3), (3, "6", 4)] {
        let given = Given::create(count, false, &options, &["--level", level]);
        given.keeps_what_it_is_given(seed);
        let one_less = Given { members: given.members[1..].to_vec(), ..given };
        let said = one_less.on("export", &["-q", "--to", "-", "--length", "4M"]).ended(1);
        assert!(said.stdout == noise(4 * MIB, seed), "level {level}");
    }
}

#[test]
fn data_on_devices_of_their_own() {
    let sealed = [&MAC[..], &CBC].concat();
    for (seed, options, level, count) in
        [(1, &[][..], "none", 1), (2, &sealed, "none", 1), (3, &[], "1", 2), (4, &HMAC, "5", 3)]
    {
        let given = Given::create(count, true, options, &["--level", level]);
        given.keeps_what_it_is_given(seed);
        let place =
            &given.on("explain", &["--sector", "8", "--json"]).ended(0).object()["places"][0];
        assert_eq!(place["data_device"].as_str(), Some(text(&given.data[0])), "{place}");
    }
}

#[test]
fn a_new_member_may_have_its_data_on_a_device_of_its_own() {
    for served in [false, true] {
        let given = Given::create(2, true, &[], &["--level", "1"]);
        given.keeps_what_it_is_given(6);
        let copy = |from: &std::path::Path, name: &str| {
            let path = given.folder.path().join(name);
            let length = std::fs::metadata(from).expect("it is there").len();
            let file = std::fs::File::create(&path).expect("the folder is ours");
            file.set_len(length).expect("there is room");
            path
        };
        let (new, data) = (copy(&given.members[1], "new"), copy(&given.data[1], "data=new"));
        let pair = format!("{}={}", text(&new), text(&data));
        let left = [given.members[0].clone()];
        let opened: Vec<&str> = given.options[..2].iter().map(String::as_str).collect();
        let server = served.then(|| Server::start(&left, given.folder.path(), &opened));
        let add = [&opened[..], &["--new", text(&new), "--data-device", &pair]].concat();
        let mut bytes = vec![0; 8 << 20];
        bytes[5000] = 1;
        std::fs::write(&data, &bytes).expect("there is room");
        let said = on("add", &left, &add).ended(3).to_string();
        assert!(said.contains("data=new: is not all zero"), "{said}");
        bytes[5000] = 0;
        std::fs::write(&data, &bytes).expect("there is room");
        on("add", &left, &add).ended(0);
        if let Some(server) = server {
            assert_eq!(server.stop().code, 0);
        }
        // Alone, and where it was said to be.
        let alone = [new];
        let said =
            on("export", &alone, &["--data-device", &pair, "-q", "--to", "-", "--length", "4M"]);
        assert!(said.ended(1).stdout == noise(4 * MIB, 6));
        let explained = on("explain", &alone, &["--data-device", &pair, "--sector", "8", "--json"]);
        let place = &explained.object()["places"][1];
        assert_eq!(place["data_device"].as_str(), Some(text(&data)), "{place}");
    }
}

#[test]
fn the_data_of_a_lone_volume_lies_where_a_user_would_look_for_it() {
    let given = Given::create(1, true, &[], &[]);
    given.keeps_what_it_is_given(5);
    let data = std::fs::read(&given.data[0]).expect("it is there");
    assert!(data[..4 << 20] == noise(4 * MIB, 5), "sector n is sector n");
    assert!(data[4 << 20..].iter().all(|&byte| byte == 0));
    let metadata = std::fs::metadata(&given.members[0]).expect("it is there").len();
    assert!(metadata < MIB, "only metadata: {metadata} bytes");
}

#[test]
fn a_member_whose_data_was_not_named_is_named() {
    let lone = Given::create(1, true, &[], &[]);
    let before = hashes(&lone.files());
    lone.with("scrub", &[]).one_line(3, &["m0", "on another device", "--data-device"]);
    let swapped = format!("{}={}", text(&lone.members[0]), text(&lone.members[0]));
    lone.with("scrub", &["--data-device", &swapped]).one_line(3, &["same member"]);
    assert_eq!(hashes(&lone.files()), before);
    // An array does without it, and says which.
    let array = Given::create(2, true, &[], &["--level", "1"]);
    array.keeps_what_it_is_given(3);
    let said =
        array.with("status", &array.options[..2].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.ended(1).text().contains("on another device"));
    // So it does if the data device is gone.
    std::fs::remove_file(&array.data[1]).expect("it was there");
    array.on("status", &[]).ended(1).with(&["data=1: no such file or device, counted as missing"]);
}

#[test]
fn a_data_device_for_a_member_that_needs_none_is_refused() {
    let given = Given::create(1, false, &[], &[]);
    let other = given.folder.path().join("other");
    std::fs::write(&other, vec![0; 8 << 20]).expect("there is room");
    let pair = format!("{}={}", text(&given.members[0]), text(&other));
    given
        .with("scrub", &["--data-device", &pair])
        .one_line(3, &["an interleave is stored", "leave --data-device out"]);
}

#[test]
fn the_device_with_the_data_is_locked_too() {
    let given = Given::create(1, true, &[], &[]);
    let options: Vec<&str> = given.options.iter().map(String::as_str).collect();
    let server = Server::start(&given.members, given.folder.path(), &options);
    let copy = given.folder.path().join("copy");
    std::fs::copy(&given.members[0], &copy).expect("there is room");
    let pair = format!("{}={}", text(&copy), text(&given.data[0]));
    on("scrub", &[copy], &["--data-device", &pair]).one_line(3, &["data=0", "in use by"]);
    assert_eq!(server.stop().code, 0);
}

#[test]
fn macs_of_the_journal_that_are_named_and_not_there_and_the_reverse() {
    let plain = Given::create(1, false, &[], &[]);
    plain.with("scrub", &MAC).one_line(3, &["has no MACs", "leave --journal-integrity out"]);
    // With a tag of which as many entries fit beside MACs as without them: the flag alone decides.
    for more in [&["--integrity", "sha256", "--sector-size", "512"][..], &[]] {
        let sealed = Given::create(
            1,
            false,
            &[&MAC[..], &more[..more.len().min(2)]].concat(),
            &more[more.len().min(2)..],
        );
        sealed.keeps_what_it_is_given(2);
        let before = hashes(&sealed.members);
        let words = ["have_journal_mac", "--journal-integrity-key-file", "--read-only"];
        sealed.with("scrub", &[]).one_line(3, &words);
        sealed.with("export", &["-q", "--to", "-"]).ended(0);
        let wrong = ["--journal-integrity", "hmac-sha256", "--journal-integrity-key-file=WRONG"];
        sealed
            .with("scrub", &wrong)
            .one_line(3, &["MAC of this key", "--journal-integrity-key-file"]);
        sealed.with("scrub", &MAC[..2]).one_line(64, &["needs a key"]);
        assert_eq!(hashes(&sealed.members), before);
    }
}

#[test]
fn a_key_file_is_taken_whole_or_not_at_all() {
    let given = Given::create(1, false, &HMAC, &[]);
    let empty = given.folder.path().join("EMPTY");
    std::fs::write(&empty, b"").expect("the folder is ours");
    let long = given.folder.path().join("LONG");
    std::fs::write(&long, vec![7; 4097]).expect("the folder is ours");
    let with = |name: &str| {
        let file = format!("--integrity-key-file={name}");
        given.with("status", &["--integrity", "hmac-sha256", &file])
    };
    with("EMPTY").one_line(64, &["a key of 0 bytes"]);
    with("LONG").one_line(64, &["a key of 4097 bytes"]);
    with("NONE").one_line(4, &["NONE", "No such file"]);
    // A cipher's key has a length that it takes.
    let cipher = ["--journal-crypt", "ctr-aes", "--journal-crypt-key-file=KEY"];
    let refused = given.folder.path().join("new");
    let options = given.resolved(&cipher);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.extend(["--size", "8M"]);
    on("create", std::slice::from_ref(&refused), &options)
        .one_line(64, &["journal encryption", "40"]);
    assert_eq!(sha256(&refused), None, "nothing was made");
}

#[test]
fn what_is_to_be_tried_next_names_the_options_and_no_key() {
    let given = Given::create(1, true, &HMAC, &[]);
    let status = given.on("status", &[]).ended(0).text();
    for word in ["--integrity hmac-sha256", "--integrity-key-file", "--data-device"] {
        assert!(status.contains(word), "{word}: {status}");
    }
    let dump = other("integritysetup", "cryptsetup-bin", ["dump", text(&given.members[0])]);
    assert!(dump.ended(0).text().contains("log2_interleave_sectors 0"));
}
