//! `resize` and `adopt`: what exists gets another size, or tags.

use crate::support::volume::on;
use crate::support::{MIB, Shape, Volume, flip, noise, text};

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
