//! Every level and layout of md, and every version of its superblock. Linear is not among them: the
//! judge's kernel has lost it.

use super::Part;
use crate::format::Format;
use crate::subject::Subject;

/// Volumes that are judged in both directions: name, what, when.
pub(super) fn volumes() -> Vec<(String, Subject, Part)> {
    let mut volumes = Vec::new();
    for (level, members, layouts) in [(5, 4, PARITY_5), (6, 5, PARITY_6)] {
        for layout in layouts {
            let subject = Subject { layout: Some(layout), ..Subject::md(level, members) };
            volumes.push((format!("raid{level}-{layout}"), subject, Part::All));
        }
    }
    for (layout, members) in MIRRORS {
        let subject = Subject { layout: Some(layout), ..Subject::md(10, *members) };
        let part = if (*layout, *members) == ("f2", 4) { Part::Ci } else { Part::All };
        volumes.push((format!("raid10-{members}-{layout}"), subject, part));
    }
    for (level, members) in [(1, 2), (5, 3), (10, 3)] {
        for metadata in ["1.0", "1.1"] {
            let subject = Subject { metadata, ..Subject::md(level, members) };
            let version = metadata.replace('.', "-");
            volumes.push((format!("raid{level}-metadata-{version}"), subject, Part::All));
        }
    }
    let small = Format { journal_bytes: Some(1 << 20), ..Format::CRC32C_4096 };
    let unequal = Subject { member_bytes: 8 << 20, step_bytes: 2 << 20, ..Subject::md(0, 4) };
    let others = [
        ("raid0", Subject::md(0, 3), Part::Ci),
        ("raid0-unequal", unequal, Part::Ci),
        ("raid0-alternate", Subject { layout: Some("alternate"), ..unequal }, Part::All),
        ("raid0-chunk12k", Subject { chunk_kib: 12, ..Subject::md(0, 3) }, Part::All),
        ("raid0-metadata-1-0", Subject { metadata: "1.0", ..Subject::md(0, 2) }, Part::All),
        ("raid0-crc32c", Subject::stacked(0, 3, small), Part::All),
        ("raid1-3", Subject::md(1, 3), Part::All),
        ("raid4", Subject::md(4, 4), Part::All),
        ("raid4-crc32c", Subject::stacked(4, 3, small), Part::All),
        ("raid5-2", Subject::md(5, 2), Part::All),
        ("raid10-2", Subject::md(10, 2), Part::All),
        ("raid10-unequal", Subject { step_bytes: 1 << 20, ..Subject::md(10, 4) }, Part::All),
        ("raid10-crc32c", Subject::stacked(10, 4, small), Part::Ci),
        ("raid10-3-512", Subject::stacked(10, 3, Format::CRC32C), Part::All),
    ];
    volumes.extend(others.map(|(name, subject, part)| (name.to_owned(), subject, part)));
    volumes
}

const PARITY_5: &[&str] =
    &["left-asymmetric", "right-asymmetric", "right-symmetric", "parity-first", "parity-last"];

pub(super) const PARITY_6: &[&str] = &[
    "left-asymmetric",
    "right-asymmetric",
    "right-symmetric",
    "parity-first",
    "parity-last",
    "ddf-zero-restart",
    "ddf-N-restart",
    "ddf-N-continue",
    "left-asymmetric-6",
    "right-asymmetric-6",
    "left-symmetric-6",
    "right-symmetric-6",
    "parity-first-6",
];

const MIRRORS: &[(&str, usize)] = &[
    ("n2", 3),
    ("n2", 4),
    ("n2", 5),
    ("n3", 5),
    ("f2", 2),
    ("f2", 3),
    ("f2", 4),
    ("f3", 5),
    ("o2", 3),
    ("o2", 4),
    ("o3", 5),
];
