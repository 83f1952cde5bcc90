//! Every level, layout and version of metadata: made, written, opened again, degraded, refused.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use md::geometry::layouts;
use md::superblock::Level;
use stack::create::{CreateLevel, CreateOptions, Minor, create};
use stack::{Fault, OpenOptions, Verdict, VolumeStatus};
use std::path::PathBuf;
use steadfast_stack as stack;
use units::Sector;

const MEMBER: u64 = 8 << 20;

struct Set {
    _folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn set(options: CreateOptions, count: usize) -> Set {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), count);
    make(&CreateOptions { members: members(&paths), member_bytes: Some(MEMBER), ..options });
    Set { _folder: folder, paths }
}

fn bare(level: CreateLevel) -> CreateOptions {
    CreateOptions {
        integrity: None,
        chunk_bytes: 16 << 10,
        ..CreateOptions::new(Vec::new(), level)
    }
}

/// Fills a part that begins and ends within chunks, reads it back, and says how the volume is.
fn write_and_read(paths: &[PathBuf], what: &str) -> VolumeStatus {
    let bytes = noise(3_000_000, 1);
    let written = bytes.clone();
    with_volume(OpenOptions::writable(members(paths)), move |volume| async move {
        write_at(&volume, 123_456, &written).await;
    });
    read_back(paths, &bytes, what)
}

fn read_back(paths: &[PathBuf], bytes: &[u8], what: &str) -> VolumeStatus {
    let (read, bad, status) =
        with_volume(OpenOptions::read_only(members(paths)), |volume| async move {
            let (read, bad) = read_all(&volume).await;
            (read, bad, volume.status())
        });
    assert_eq!(bad, 0, "{what}");
    assert!(read[123_456..3_123_456] == *bytes, "{what}");
    assert!(read[..123_456].iter().chain(&read[3_123_456..]).all(|&byte| byte == 0), "{what}");
    status
}

#[test]
fn every_layout_of_every_level_gives_back_what_was_written_also_without_members() {
    let named = |level| layouts(level).iter().map(|(name, _)| *name);
    let mut shapes: Vec<(CreateLevel, usize, &str, usize)> = Vec::new();
    shapes.extend(named(Level::Raid5).map(|name| (CreateLevel::Raid5, 4, name, 1)));
    shapes.extend(named(Level::Raid6).map(|name| (CreateLevel::Raid6, 5, name, 2)));
    let copies = [("n2", 3, 1), ("n3", 4, 2), ("f2", 3, 1), ("o2", 4, 1), ("o3", 4, 2)];
    shapes.extend(copies.map(|(name, count, spare)| (CreateLevel::Raid10, count, name, spare)));
    for (level, count, layout, spare) in shapes {
        let what = format!("{level:?} {layout} over {count}");
        let set = set(CreateOptions { layout: Some(layout.to_owned()), ..bare(level) }, count);
        let status = write_and_read(&set.paths, &what);
        assert!(status.is_healthy(), "{what}: {status:?}");
        assert_eq!(status.layout.as_deref(), Some(layout));
        assert_eq!((status.missing, status.spare_redundancy), (0, spare), "{what}");
        let status = read_back(&set.paths[spare..], &noise(3_000_000, 1), &what);
        assert_eq!((status.missing, status.spare_redundancy), (spare, 0), "{what}");
    }
}

#[test]
fn levels_without_a_choice_and_every_version_of_metadata_work_over_integrity_too() {
    for (level, count) in [
        (CreateLevel::Linear, 3),
        (CreateLevel::Raid0, 2),
        (CreateLevel::Raid1, 2),
        (CreateLevel::Raid4, 3),
        (CreateLevel::Raid5, 2),
        (CreateLevel::Raid10, 2),
    ] {
        for (minor, integrity) in [(Minor::V0, false), (Minor::V1, false), (Minor::V0, true)] {
            let what = format!("{level:?} over {count}, metadata {minor}, integrity {integrity}");
            let usual = CreateOptions::new(Vec::new(), level).integrity;
            let integrity = usual.filter(|_| integrity);
            let set = set(CreateOptions { minor, integrity, ..bare(level) }, count);
            let status = write_and_read(&set.paths, &what);
            assert!(status.is_healthy(), "{what}: {status:?}");
        }
    }
}

#[test]
fn raid0_and_linear_use_all_of_members_of_different_sizes() {
    for (level, layout) in [
        (CreateLevel::Linear, None),
        (CreateLevel::Raid0, None),
        (CreateLevel::Raid0, Some("original")),
        (CreateLevel::Raid0, Some("alternate")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), 3);
        for (path, mib) in paths.iter().zip([6, 4, 9]) {
            std::fs::File::create(path).unwrap().set_len(mib << 20).unwrap();
        }
        // A chunk that is no power of two, of RAID 0.
        let chunk_bytes = 12 << 10;
        let layout = layout.map(str::to_owned);
        let options = CreateOptions { layout: layout.clone(), chunk_bytes, ..bare(level) };
        let made = make(&CreateOptions { members: members(&paths), ..options });
        let chunk = if level == CreateLevel::Raid0 { 24 } else { 1 };
        let used = [6, 4, 9].map(|mib| ((mib << 11) - 2048) / chunk * chunk);
        assert_eq!(made.sectors, used.iter().sum::<u64>(), "{level:?}");
        let status = write_and_read(&paths, &format!("{level:?} {layout:?}"));
        let expected = (level == CreateLevel::Raid0).then(|| layout.unwrap_or("original".into()));
        assert_eq!(status.layout, expected);
    }
}

#[test]
fn which_members_of_a_raid10_are_missing_decides() {
    let set = set(bare(CreateLevel::Raid10), 4);
    write_and_read(&set.paths, "n2");
    let pick = |slots: &[usize]| -> Vec<PathBuf> {
        slots.iter().map(|&slot| set.paths[slot].clone()).collect()
    };
    read_back(&pick(&[0, 2]), &noise(3_000_000, 1), "one of each pair");
    let options = OpenOptions::read_only(members(&pick(&[0, 1])));
    let error = run(async move { stack::open(&options).await.err().unwrap() });
    let expected = "2 of 4 members are missing, and with them every copy of array sector 32";
    assert_eq!((error.to_string().as_str(), error.verdict()), (expected, Verdict::Refused));
}

#[test]
fn without_redundancy_a_missing_member_is_named_and_refused() {
    for level in [CreateLevel::Linear, CreateLevel::Raid0] {
        let set = set(bare(level), 3);
        let options = OpenOptions::read_only(members(&set.paths[..2]));
        let error = run(async move { stack::open(&options).await.err().unwrap() });
        let name = level_name(level);
        let expected = format!("1 of 3 members are missing, {name} survives 0");
        assert_eq!(error.to_string(), expected);
    }
}

fn level_name(level: CreateLevel) -> &'static str {
    if level == CreateLevel::Linear { "linear" } else { "raid0" }
}

#[test]
fn members_of_more_than_32_bits_of_sectors_are_used_to_their_ends() {
    for (level, layout, count, spare) in [
        (CreateLevel::Linear, None, 2, 0),
        (CreateLevel::Raid0, None, 3, 0),
        (CreateLevel::Raid1, None, 2, 1),
        (CreateLevel::Raid5, None, 3, 1),
        (CreateLevel::Raid10, Some("f2"), 3, 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), count);
        let options = CreateOptions { layout: layout.map(str::to_owned), ..bare(level) };
        // Sparse files: 2 TiB is where 32 bits of sectors end.
        let member_bytes = Some((2 << 40) + (1 << 30));
        make(&CreateOptions { members: members(&paths), member_bytes, ..options });
        let bytes = noise(1 << 20, 5);
        let (first, second) = (bytes.clone(), bytes);
        with_volume(OpenOptions::writable(members(&paths)), move |volume| async move {
            let device = volume.device();
            assert!(device.limits().sectors > 1 << 32, "{level:?}");
            for at in ends(device.limits().sectors) {
                device.write(at, bio::Buf::copy_of(&first)).await.unwrap();
            }
            device.flush().await.unwrap();
        });
        let left = OpenOptions::read_only(members(&paths[spare..]));
        with_volume(left, move |volume| async move {
            let device = volume.device();
            for at in ends(device.limits().sectors) {
                let read = device.read(at, 2048).await.unwrap();
                assert!(read.as_slice() == second, "{level:?} at {at}");
            }
        });
    }
}

/// A mebibyte on either side of where 32 bits end on the first member, and the last one.
fn ends(sectors: u64) -> [Sector; 3] {
    [Sector((1 << 32) - 2048), Sector(1 << 32), Sector(sectors - 2048)]
}

#[test]
fn an_array_of_384_members_is_one() {
    for (level, integrity) in [(CreateLevel::Raid10, true), (CreateLevel::Raid0, false)] {
        let usual = CreateOptions::new(Vec::new(), level).integrity;
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), 384);
        let options = CreateOptions { integrity: usual.filter(|_| integrity), ..bare(level) };
        let member_bytes = Some(2 << 20);
        make(&CreateOptions { members: members(&paths), member_bytes, ..options });
        let status = write_and_read(&paths, "384 members");
        assert_eq!((status.slots, status.missing), (384, 0));
    }
}

#[test]
fn a_write_mostly_member_is_read_only_if_no_other_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 2);
    let members = members(&paths);
    let options =
        CreateOptions { write_mostly: vec![members[0].clone()], ..bare(CreateLevel::Raid1) };
    make(&CreateOptions { members, member_bytes: Some(MEMBER), ..options });
    let status = write_and_read(&paths, "the other");
    let hints: Vec<bool> = status.members.iter().map(|member| member.write_mostly).collect();
    assert_eq!(hints, [true, false]);
    // Its copies are never looked at: garbage in them goes unnoticed.
    let mut garbage = std::fs::read(&paths[0]).unwrap();
    garbage[2 << 20..].fill(0xEE);
    std::fs::write(&paths[0], &garbage).unwrap();
    read_back(&paths, &noise(3_000_000, 1), "only the other was read");
}

#[test]
fn what_cannot_be_made_is_refused_by_name() {
    let refuse = |options: CreateOptions, count: usize| {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), count);
        let options =
            CreateOptions { members: members(&paths), member_bytes: Some(MEMBER), ..options };
        let error = run(async move { create(&options, &mut |_, _| ()).await.err().unwrap() });
        assert!(paths.iter().all(|path| !path.exists()), "nothing was made");
        (error.to_string(), error.verdict())
    };
    let layout = |level, name: &str| CreateOptions { layout: Some(name.to_owned()), ..bare(level) };
    for (options, count, says) in [
        (layout(CreateLevel::Raid5, "ddf-N-restart"), 3, "raid5 has left-symmetric, "),
        (layout(CreateLevel::Raid1, "n2"), 2, "raid1 has no choice of layouts"),
        (layout(CreateLevel::Raid10, "x2"), 4, "expected n, f or o"),
        (bare(CreateLevel::Raid6), 3, "raid6 needs at least 4"),
        (bare(CreateLevel::Raid0), 1, "raid0 needs at least 2"),
        (
            CreateOptions { chunk_bytes: 12 << 10, ..bare(CreateLevel::Raid10) },
            2,
            "--chunk is 12288",
        ),
        (CreateOptions { chunk_bytes: 6 << 10, ..bare(CreateLevel::Raid0) }, 2, "--chunk is 6144"),
        (CreateOptions { no_wipe: true, ..bare(CreateLevel::Raid4) }, 3, "--no-wipe with parity"),
    ] {
        let (text, verdict) = refuse(options, count);
        assert!(text.contains(says), "{text}, expected {says}");
        assert!(verdict == Verdict::Usage || says.contains("no-wipe"), "{text}: {verdict:?}");
    }
    let (text, verdict) = refuse(layout(CreateLevel::Raid10, "n3"), 2);
    assert!(text.contains("keeps 3 copies, but there are 2 members"), "{text}");
    assert_eq!(verdict, Verdict::Refused);
    let stranger = members(&["elsewhere".into()]);
    let options = CreateOptions { write_mostly: stranger, ..bare(CreateLevel::Raid1) };
    assert!(refuse(options, 2).0.contains("elsewhere, which is no member"));
}
