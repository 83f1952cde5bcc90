//! dm-integrity without a hash: tuples are its tags. Made, found, written, damaged, healed.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use stack::create::{CreateLevel, CreateOptions};
use stack::{Given, IntegrityChoice, Member, OpenOptions, TagSource};
use std::path::PathBuf;
use steadfast_stack as stack;

fn source(name: &str) -> TagSource {
    name.parse().unwrap()
}

fn tuples(paths: &[PathBuf], level: CreateLevel, name: &str, sector_size: u64) -> CreateOptions {
    let integrity = Some(source(name));
    CreateOptions { integrity, sector_size, ..options(paths, level, 16 << 20) }
}

fn named(paths: &[PathBuf], name: &str) -> OpenOptions {
    let integrity = IntegrityChoice::Named(source(name), None);
    let given = Given { integrity, ..Given::default() };
    OpenOptions { given, ..OpenOptions::writable(members(paths)) }
}

#[test]
fn tuples_of_type_1_are_found_by_written_blocks_and_kept_for_a_plain_client() {
    for (name, sector_size) in [
        ("t10-dif-type1-crc16", 512),
        ("t10-dif-type1-ip", 4096),
        ("t10-dif-type1-crc32c", 4096),
        ("t10-dif-type1-crc64", 4096),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), 1);
        make(&tuples(&paths, CreateLevel::None, name, sector_size));
        let bytes = noise(3_000_000, 1);
        let written = bytes.clone();
        let found = with_volume(OpenOptions::writable(members(&paths)), move |volume| async move {
            write_at(&volume, 1_000_003, &written).await;
            volume.status().members[0].integrity.clone()
        });
        assert_eq!(found.as_deref(), Some(name));
        let (content, bad) =
            with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
                assert!(volume.device().limits().protection.is_some());
                read_all(&volume).await
            });
        assert_eq!(bad, 0, "{name}");
        assert!(content[1_000_003..4_000_003] == bytes);
        assert!(content[..1_000_003].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn what_a_tuple_does_not_vouch_for_is_unreadable_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 1);
    make(&tuples(&paths, CreateLevel::None, "t10-dif-type1-crc16", 4096));
    let places = with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
        let mut places = Vec::new();
        for sector in [80, 160] {
            let explained = stack::explain(&volume, units::Sector(sector)).await.unwrap();
            let tag = explained.places[0].tag.clone().unwrap();
            assert_eq!(tag.stored, tag.computed, "the tuple of a block of zeroes");
            places.push((explained.places[0].data_byte.unwrap(), tag.tag_byte.unwrap()));
        }
        places
    });
    // A byte of data; and the reference tag of another block, whose data is as it was.
    flip(&paths[0], places[0].0 + 17, 4);
    flip(&paths[0], places[1].1 + 7, 1);
    let (bad, status) = with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
        (read_all(&volume).await.1, volume.status())
    });
    assert_eq!(bad, 2 * 4096);
    assert!(!status.is_healthy());
}

#[test]
fn other_types_have_to_be_named() {
    for name in ["t10-dif-type3-crc16", "opaque"] {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), 1);
        let options = tuples(&paths, CreateLevel::None, name, 512);
        make(&CreateOptions { tag_size: Some(8), ..options });
        let written = noise(100_000, 2);
        with_volume(named(&paths, name), move |volume| async move {
            write_at(&volume, 4096, &written).await;
        });
        let open = stack::open;
        let unnamed = OpenOptions::writable(members(&paths));
        let refused = run(async move { open(&unnamed).await.err().unwrap().to_string() });
        // Tuples that fit nothing that is tried, or tags that say nothing at all.
        let why = if name == "opaque" { "was ever written" } else { "verifies with any of" };
        assert!(refused.contains(why), "{name}: {refused}");
        let (content, bad) =
            with_volume(named(&paths, name), |volume| async move { read_all(&volume).await });
        assert_eq!(bad, 0);
        assert!(content[4096..104_096] == noise(100_000, 2), "{name}");
    }
}

#[test]
fn a_mirror_heals_by_its_members_tuples() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 2);
    make(&tuples(&paths, CreateLevel::Raid1, "t10-dif-type1-crc16", 4096));
    let bytes = noise(2_000_000, 3);
    let written = bytes.clone();
    let places = with_volume(OpenOptions::writable(members(&paths)), move |volume| async move {
        write_at(&volume, 0, &written).await;
        let explained = stack::explain(&volume, units::Sector(800)).await.unwrap();
        explained.places.iter().filter_map(|place| place.data_byte).collect::<Vec<_>>()
    });
    assert_eq!(places.len(), 2);
    flip(&paths[0], places[0] + 99, 0x20);
    let (content, bad) = with_volume(OpenOptions::writable(members(&paths)), |volume| async move {
        read_all(&volume).await
    });
    assert_eq!(bad, 0);
    assert!(content[..2_000_000] == bytes);
}

/// Byte of sector `sector`, and of its tuple, in a file of sectors of 520 bytes.
fn interleaved(sector: u64) -> (u64, u64) {
    (sector * 520, sector * 520 + 512)
}

#[test]
fn superblocks_and_bitmaps_have_tuples_that_tell_when_they_rot() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 2);
    let named = |path: &PathBuf| format!("sectors:512+8/t10-dif-type1-crc16:{}", path.display());
    let members: Vec<Member> =
        paths.iter().map(|path| Member::parse(&named(path)).unwrap()).collect();
    make(&CreateOptions {
        member_bytes: Some(8 << 20),
        integrity: None,
        sector_size: 512,
        ..CreateOptions::new(members.clone(), CreateLevel::Raid1)
    });
    with_volume(OpenOptions::writable(members.clone()), |volume| async move {
        write_at(&volume, 0, &noise(200 * 512, 4)).await;
    });
    let inspect = || {
        let members = members.clone();
        let found = run(async move { stack::inspect(&members, &Given::default()).await });
        found.members[1].md.clone().unwrap()
    };
    let md = inspect();
    assert_eq!(md.bitmap_problem, None);
    let value =
        |name: &str| md.fields.iter().find(|field| field.name == name).unwrap().value.clone();
    let bytes = std::fs::read(&paths[1]).unwrap();
    for field in ["super_offset", "bitmap_sector"] {
        let (_, tuple) = interleaved(value(field).parse().unwrap());
        let tuple = usize::try_from(tuple).unwrap();
        assert_ne!(bytes[tuple..tuple + 8], [0xff; 8], "{field} has a tuple");
    }
    // A bit of the bitmap, which has no checksum of its own.
    let (byte, _) = interleaved(value("bitmap_sector").parse().unwrap());
    flip(&paths[1], byte + 300, 1);
    let problem = inspect().bitmap_problem.unwrap();
    assert!(problem.contains("cannot be read"), "{problem}");
}
