//! The tables: who may import whom, where `unsafe` lives, who prints, and the exceptions.
//!
//! Changing a row changes the house. Say why in `docs/decisions/`.

/// A crate of the house, lowest first, and what it may name outside its tests.
pub(super) struct Room {
    pub(super) name: &'static str,
    /// Crates of ours.
    pub(super) ours: &'static [&'static str],
    /// Crates of others, if they are limited.
    pub(super) others: Option<&'static [&'static str]>,
    /// Formats and arithmetic: no I/O, no waiting.
    pub(super) pure: bool,
}

const fn pure(
    name: &'static str,
    ours: &'static [&'static str],
    others: &'static [&'static str],
) -> Room {
    Room { name, ours, others: Some(others), pure: true }
}

const fn room(name: &'static str, ours: &'static [&'static str]) -> Room {
    Room { name, ours, others: None, pure: false }
}

const FORMAT: &[&str] = &["zerocopy", "thiserror"];

/// Lowest first: an import of something further down this list is an import upwards.
pub(super) const ROOMS: &[Room] = &[
    pure("units", &[], FORMAT),
    pure(
        "checksum",
        &["units"],
        &["blake2", "crc-fast", "hmac", "sha1", "sha2", "thiserror", "twox-hash", "zeroize"],
    ),
    pure("gf", &["units"], FORMAT),
    pure("guard", &[], &["cpufeatures"]),
    // Usable alone: no room of ours but the guards.
    pure("dif", &["guard"], FORMAT),
    // The kernel's journal may be encrypted with AES, which nobody should write themselves.
    pure(
        "integrity",
        &["units", "checksum", "gf"],
        &["zerocopy", "thiserror", "aes", "ctr", "cbc"],
    ),
    pure("md", &["units", "checksum", "gf"], FORMAT),
    pure("nbd", &["units", "checksum", "gf"], FORMAT),
    Room { name: "bio", ours: &["units", "dif"], others: Some(&["thiserror"]), pure: false },
    // Files of its own beside a volume, never a member: it knows events, and no layer.
    room("ledger", &["bio", "units"]),
    room("runtime", &["bio", "units"]),
    room("layers", &["bio", "runtime", "units", "checksum", "gf", "dif", "integrity", "md", "nbd"]),
    room("scrub", &["bio", "runtime", "units"]),
    room(
        "stack",
        &[
            "bio",
            "runtime",
            "layers",
            "scrub",
            "units",
            "checksum",
            "gf",
            "dif",
            "integrity",
            "md",
            "nbd",
        ],
    ),
    // A front end serves whatever device it is given: it never sees the layers.
    room("front", &["bio", "runtime", "nbd", "units"]),
    room(
        "world",
        &[
            "bio",
            "runtime",
            "layers",
            "scrub",
            "stack",
            "units",
            "checksum",
            "gf",
            "guard",
            "dif",
            "integrity",
            "md",
            "nbd",
        ],
    ),
    // The program translates: what it says about formats, it asks the stack for.
    room(
        "cli",
        &["bio", "dif", "ledger", "runtime", "layers", "scrub", "stack", "front", "units", "nbd"],
    ),
    room(
        "bench",
        &[
            "nbd",
            "bio",
            "runtime",
            "layers",
            "stack",
            "front",
            "units",
            "checksum",
            "gf",
            "guard",
            "dif",
            "integrity",
            "md",
        ],
    ),
    room(
        "fuzz-targets",
        &[
            "bio",
            "ledger",
            "runtime",
            "layers",
            "stack",
            "units",
            "checksum",
            "dif",
            "integrity",
            "md",
            "nbd",
        ],
    ),
    // The kernel's cases know the program, and nothing that it is made of.
    room("kernel", &[]),
    room("xtask", &[]),
];

/// What a folder of `layers` may name of its siblings.
pub(super) const SHARED_LAYERS: &[&str] = &["array"];

/// Where `unsafe` may be written; a name that ends in `/` is a folder.
pub(super) const UNSAFE_HOMES: &[&str] = &[
    "bench/src/isal.rs",
    "crates/bio/src/buf.rs",
    "crates/checksum/src/simd/",
    "crates/gf/src/simd/",
    "crates/guard/src/simd/",
    "crates/runtime/src/",
];

/// Who may print.
pub(super) const PRINTERS: &[&str] = &[
    "bench/src/row.rs",
    "crates/cli/src/report.rs",
    "crates/world/src/bin/",
    "tests/kernel/src/",
    "xtask/src/",
];

/// A file may have so many lines outside its tests.
pub(super) const FILE_LINES_MAX: usize = 600;

/// Files that may be longer, and why.
pub(super) const LONG_FILES: &[(&str, &str)] = &[];

/// Whether `path` is one of `places`.
pub(super) fn lies_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| match place.ends_with('/') {
        true => path.starts_with(place),
        false => path == *place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arrow_points_downwards() {
        for (index, room) in ROOMS.iter().enumerate() {
            for lower in room.ours {
                let found = ROOMS[..index].iter().any(|other| other.name == *lower);
                assert!(found, "{} may import {lower}, which is not below it", room.name);
            }
        }
    }

    #[test]
    fn pure_rooms_name_only_pure_rooms() {
        let is_pure = |name: &str| ROOMS.iter().any(|room| room.name == name && room.pure);
        for room in ROOMS.iter().filter(|room| room.pure) {
            assert!(room.ours.iter().all(|name| is_pure(name)), "{}", room.name);
        }
    }
}
