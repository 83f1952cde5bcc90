//! What people call the layouts: the names that mdadm takes and prints.
//!
//! Source: the md specification, sections 6 to 8.

use super::stripes::{LAYOUT_ALTERNATE, LAYOUT_ORIGINAL};
use crate::superblock::Level;

const RAID6: &[(&str, u32)] = &[
    ("left-symmetric", 2),
    ("left-asymmetric", 0),
    ("right-asymmetric", 1),
    ("right-symmetric", 3),
    ("parity-first", 4),
    ("parity-last", 5),
    ("ddf-zero-restart", 8),
    ("ddf-N-restart", 9),
    ("ddf-N-continue", 10),
    ("left-asymmetric-6", 16),
    ("right-asymmetric-6", 17),
    ("left-symmetric-6", 18),
    ("right-symmetric-6", 19),
    ("parity-first-6", 20),
];

/// The named layouts of a level with their numbers, mdadm's default first; empty for levels without a
/// choice, and for RAID 10, whose names are built from its copies.
#[must_use]
pub const fn layouts(level: Level) -> &'static [(&'static str, u32)] {
    match level {
        Level::Raid0 => &[("original", LAYOUT_ORIGINAL), ("alternate", LAYOUT_ALTERNATE)],
        // Those of RAID 6 begin with them.
        Level::Raid5 => RAID6.split_at(6).0,
        Level::Raid6 => RAID6,
        _ => &[],
    }
}

/// What layout `layout` of `level` is called; `None` where there is no choice or no name.
#[must_use]
pub fn layout_name(level: Level, layout: u32) -> Option<String> {
    if level == Level::Raid10 {
        let copies = [(layout & 255, "n"), (layout >> 8 & 255, "f")];
        let name = match (copies, layout >> 16) {
            ([(near, _), (1, _)], 0) => format!("n{near}"),
            ([(1, _), (far, _)], 0) => format!("f{far}"),
            ([(1, _), (far, _)], 1) => format!("o{far}"),
            _ => return None,
        };
        return Some(name);
    }
    let named = layouts(level).iter().find(|(_, number)| *number == layout);
    named.map(|(name, _)| (*name).to_owned())
}

/// The number of the layout of `level` that is called `name`; `None` if there is none.
#[must_use]
pub fn layout_number(level: Level, name: &str) -> Option<u32> {
    if level == Level::Raid10 {
        let kind = name.get(..1)?;
        let copies: u8 = name.get(1..)?.parse().ok().filter(|&copies| copies > 0)?;
        let copies = u32::from(copies);
        return match kind {
            "n" => Some(1 << 8 | copies),
            "f" => Some(copies << 8 | 1),
            "o" => Some(1 << 16 | copies << 8 | 1),
            _ => None,
        };
    }
    layouts(level).iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_the_name_of_its_number() {
        for level in [Level::Raid0, Level::Raid5, Level::Raid6] {
            for &(name, number) in layouts(level) {
                assert_eq!(layout_number(level, name), Some(number));
                assert_eq!(layout_name(level, number).as_deref(), Some(name));
            }
        }
        for (name, number) in [("n2", 0x102), ("n3", 0x103), ("f2", 0x201), ("o3", 0x1_0301)] {
            assert_eq!(layout_number(Level::Raid10, name), Some(number));
            assert_eq!(layout_name(Level::Raid10, number).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_is_no_name_has_no_number() {
        for name in ["", "n", "n0", "n-1", "x2", "n256", "far", "\u{e9}2"] {
            assert_eq!(layout_number(Level::Raid10, name), None, "{name:?}");
        }
        assert_eq!(layout_number(Level::Raid5, "left-symmetric-6"), None);
        assert_eq!(layout_number(Level::Raid1, "left-symmetric"), None);
        assert_eq!(layout_name(Level::Raid10, 0x202), None, "near and far at once has no name");
    }
}
