//! How an array gets over a crash: what `create` is told, what lies on the members then, and what `inspect` and
//! `status` say of it.

use crate::support::volume::on;
use crate::support::{MIB, Shape, Volume, noise, qemu_io};
use serde_json::Value;

const RAID5: Shape = Shape::plain("5");

/// What `inspect` says of a member's md superblock and what lies beside it.
fn md(volume: &Volume, slot: usize) -> Value {
    volume.run("inspect", &["--json"]).object()["members"][slot]["md"].take()
}

/// The values of a field of that name.
fn values<'a>(fields: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = fields.as_array().into_iter().flatten();
    fields
        .filter(|field| field["name"] == name)
        .filter_map(|field| field["value"].as_str())
        .collect()
}

#[test]
fn what_mdadm_calls_a_policy_is_what_bitmap_names() {
    for (options, policy) in [
        (&["--consistency-policy", "ppl"][..], "ppl"),
        (&["--bitmap", "ppl"], "ppl"),
        (&["--consistency-policy", "bitmap"], "bitmap"),
        (&["--bitmap", "internal"], "bitmap"),
        (&[], "bitmap"),
        (&["--consistency-policy", "resync"], "resync"),
        (&["--bitmap", "none"], "resync"),
    ] {
        let volume = Volume::create_with(RAID5, 4 * MIB, options);
        for slot in 0..volume.members.len() {
            let md = md(&volume, slot);
            let features = values(&md["fields"], "feature_map").join(" ");
            let has = |name: &str| features.split(' ').any(|feature| feature == name);
            assert_eq!(
                (has("multiple_ppl"), has("bitmap")),
                (policy == "ppl", policy == "bitmap"),
                "{md}"
            );
            assert_eq!(md["partial_parity"].is_array(), policy == "ppl", "{md}");
            assert_eq!(md["bitmap"].is_array(), policy == "bitmap", "{md}");
            assert!(md["partial_parity_problem"].is_null() && md["bitmap_problem"].is_null());
            assert_eq!(values(&md["partial_parity"], "entry"), [""; 0]);
        }
        let status = volume.run("status", &["--json"]).ended(0).object();
        assert_eq!(status["partial_parity"] == true, policy == "ppl", "{status}");
    }
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("there is room for a scratch folder");
    let members: Vec<_> = (0..4).map(|slot| folder.path().join(format!("{slot}.img"))).collect();
    for (level, options, words) in [
        ("6", &["--consistency-policy", "ppl"][..], "is for RAID 5"),
        ("1", &["--bitmap", "ppl"], "is for RAID 5"),
        ("5", &["--consistency-policy", "journal"], "name its device with --write-journal"),
        ("5", &["--consistency-policy", "dirty"], "bitmap, ppl, journal, resync"),
        ("5", &["--bitmap", "ppl", "--consistency-policy", "ppl"], "cannot be used with"),
        ("5", &["--bitmap", "ppl", "--bitmap-chunk", "64K"], "there is no bitmap"),
    ] {
        let asked = ["--level", level, "--size", "4M", "--integrity", "none"];
        let said = on("create", &members, &[&asked, options].concat()).ended(64);
        assert!(said.to_string().contains(words), "{said}");
        assert!(members.iter().all(|member| !member.exists()));
    }
}

#[test]
fn after_a_kill_inspect_lists_what_the_log_names_and_any_member_may_be_missing() {
    let volume = Volume::create_with(RAID5, 4 * MIB, &["--consistency-policy", "ppl"]);
    let mut expected = volume.fill(3);
    let server = volume.serve(&[]);
    // Two chunks of one stripe, each with a record of its own before it.
    let new = noise(8192, 9);
    let file = volume.file("new", &new);
    for (offset, length) in [(20_480_u64, 4096_usize), (0, 8192)] {
        let write = format!("write -s {} {offset} {length}", file.display());
        qemu_io(&server.uri, &write).expect("it is written");
        let at = usize::try_from(offset).expect("small");
        expected[at..at + length].copy_from_slice(&new[..length]);
    }
    server.kill();
    let logs: Vec<Value> = (0..3).map(|slot| md(&volume, slot)["partial_parity"].take()).collect();
    let entries: Vec<&str> = logs.iter().flat_map(|log| values(log, "entry")).collect();
    // The last one: the first strip, whose log is on the stripe's parity member.
    assert_eq!(entries.len(), 1, "{logs:?}");
    for words in ["data_sector 0", "data_size 8192", "pp_size 8192", "checksum 0x", "correct"] {
        assert!(entries[0].contains(words), "{words}: {}", entries[0]);
    }
    let said = volume.run("inspect", &[]).text();
    assert!(said.contains("partial parity log") && said.contains(entries[0]), "{said}");
    // Without writing, and by its recovery.
    for gone in 0..3 {
        let left = volume.without(&[gone]);
        let said = on("export", &left, &["-q", "--to", "-"]).ended(1);
        assert!(said.stdout == expected, "without member {gone}, reading only");
    }
    let left = volume.without(&[1]);
    on("scrub", &left, &["-q"]).ended(1);
    assert!(on("export", &left, &["-q", "--to", "-"]).ended(1).stdout == expected);
}
