//! `demo --envelope`: the table, for people and for programs.

use crate::support::steadfast;

#[test]
fn the_envelope_is_shown_and_held_to_what_it_promises() {
    let shown = steadfast(["demo", "--envelope"]).ended(0).text();
    assert!(shown.contains("refused by the volume"), "{shown}");
    let last = shown.lines().find(|line| line.starts_with("silently wrong")).unwrap_or_default();
    assert!(
        last.split_whitespace().skip(2).collect::<Vec<_>>().starts_with(&["0", "of", "24"]),
        "{shown}"
    );

    let object = steadfast(["demo", "--envelope", "--json"]).ended(0).object();
    assert_eq!(object["rows"].as_array().map(Vec::len), Some(24), "{object}");
    assert_eq!(object["silently_wrong"]["end_to_end"], 0, "{object}");
    assert!(object["silently_wrong"]["checksum_at_the_bottom"].as_u64() > Some(0), "{object}");
}

#[test]
fn it_takes_no_file() {
    steadfast(["demo", "--envelope", "sample.img"]).ended(64);
}
