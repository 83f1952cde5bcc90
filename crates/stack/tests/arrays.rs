//! Arrays, over dm-integrity and bare: made, written, closed, opened, degraded, damaged, refused.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use integrity::open::Mode;
use stack::create::{CreateLevel, CreateOptions};
use stack::{Fault, MemberState, OpenError, OpenOptions, Verdict};
use std::path::{Path, PathBuf};
use steadfast_stack as stack;

const MEMBER: u64 = 24 << 20;

struct Set {
    _folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn set(
    level: CreateLevel,
    count: usize,
    adjust: impl FnOnce(CreateOptions) -> CreateOptions,
) -> Set {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), count);
    make(&adjust(options(&paths, level, MEMBER)));
    Set { _folder: folder, paths }
}

fn fill(paths: &[PathBuf], offset: u64, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    with_volume(OpenOptions::writable(members(paths)), move |volume| async move {
        write_at(&volume, offset, &bytes).await;
    });
}

fn content(paths: &[PathBuf]) -> (Vec<u8>, u64) {
    with_volume(
        OpenOptions::read_only(members(paths)),
        |volume| async move { read_all(&volume).await },
    )
}

fn refused(options: OpenOptions) -> OpenError {
    run(async move { stack::open(&options).await.err().expect("it is refused") })
}

fn hashes(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect()
}

#[test]
fn every_level_and_block_size_gives_back_what_was_written() {
    for (level, count) in
        [(CreateLevel::Raid1, 2), (CreateLevel::Raid5, 3), (CreateLevel::Raid6, 5)]
    {
        for (integrity, sector_size) in [(true, 512), (true, 4096), (false, 4096)] {
            let set = set(level, count, |options| CreateOptions {
                integrity: options.integrity.filter(|_| integrity),
                sector_size,
                chunk_bytes: 16 << 10,
                ..options
            });
            let bytes = noise(5_000_000, 1);
            fill(&set.paths, 1_234_567, &bytes);
            let (read, bad) = content(&set.paths);
            assert_eq!(bad, 0);
            assert!(read[1_234_567..6_234_567] == bytes, "{level:?} {integrity} {sector_size}");
            assert!(read[..1_234_567].iter().chain(&read[6_234_567..]).all(|&byte| byte == 0));
        }
    }
}

#[test]
fn a_new_array_is_clean_and_opening_it_for_reading_changes_nothing() {
    let set = set(CreateLevel::Raid6, 6, |options| options);
    let before = hashes(&set.paths);
    let mut shuffled = members(&set.paths);
    shuffled.reverse();
    let status = with_volume(OpenOptions::read_only(shuffled), |volume| async move {
        read_all(&volume).await;
        let go_on = |_: &scrub::Progress, _: &scrub::Summary| std::ops::ControlFlow::Continue(());
        let check = scrub::Options::new(bio::ScrubMode::Check);
        let summary = volume.scrub(&check, go_on).await;
        assert_eq!(summary.outcome().exit_code(), 0, "{:?}", summary.lines);
        volume.status()
    });
    assert!(status.is_healthy(), "{status:?}");
    assert_eq!((status.missing, status.spare_redundancy, status.was_dirty), (0, 2, false));
    let names: Vec<&str> = status.members.iter().map(|member| member.name.as_str()).collect();
    let expected: Vec<&str> = set.paths.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(names, expected, "in order of slots, however they were named");
    assert!(status.stack.starts_with("raid6(integrity(file:"), "{}", status.stack);
    assert_eq!(hashes(&set.paths), before);
}

#[test]
fn missing_members_are_named_and_too_many_are_refused() {
    let set = set(CreateLevel::Raid6, 5, |options| options);
    let bytes = noise(2_000_000, 2);
    fill(&set.paths, 0, &bytes);
    let left = &set.paths[2..];
    let (read, bad) = content(left);
    assert_eq!(bad, 0);
    assert!(read[..bytes.len()] == bytes);
    let status =
        with_volume(OpenOptions::read_only(members(left)), |volume| async move { volume.status() });
    assert_eq!((status.missing, status.spare_redundancy), (2, 0));
    assert_eq!(status.members[0].state, MemberState::Missing);
    assert!(status.stack.contains("raid6(missing, missing, integrity("));

    let error = refused(OpenOptions::read_only(members(&set.paths[3..])));
    assert_eq!(error.to_string(), "3 of 5 members are missing, raid6 survives 2");
    assert_eq!((error.verdict(), error.verdict().exit_code()), (Verdict::Refused, 3));
}

#[test]
fn a_member_that_missed_writes_is_stale_and_left_out() {
    let set = set(CreateLevel::Raid5, 4, |options| options);
    fill(&set.paths, 0, &noise(1_000_000, 3));
    let bytes = noise(1_000_000, 4);
    fill(&set.paths[..3], 0, &bytes);
    let (read, bad) = content(&set.paths);
    assert_eq!(bad, 0);
    assert!(read[..bytes.len()] == bytes, "the stale member is not believed");
    let status = with_volume(OpenOptions::read_only(members(&set.paths)), |volume| async move {
        volume.status()
    });
    let stale = status.members.iter().find(|member| member.state == MemberState::LeftOut).unwrap();
    assert_eq!(Path::new(&stale.name), set.paths[3]);
    assert!(stale.problem.as_ref().unwrap().starts_with("stale"), "{stale:?}");
    assert!(!status.is_healthy());
}

#[test]
fn what_is_ambiguous_or_foreign_is_refused_and_nothing_is_written() {
    let a = set(CreateLevel::Raid5, 3, |options| options);
    let b = set(CreateLevel::Raid5, 3, |options| options);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let copy = folder.path().join("copy.img");
    std::fs::copy(&a.paths[0], &copy).unwrap();
    let mut ext4 = vec![0; 1 << 20];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
    let link = folder.path().join("link.img");
    std::os::unix::fs::symlink(&a.paths[0], &link).unwrap();
    let with = |extra: &Path| {
        let mut paths = a.paths.clone();
        paths.push(extra.to_owned());
        paths
    };
    let cases: Vec<(Vec<PathBuf>, &str, u8)> = vec![
        (with(&b.paths[1]), "members of two arrays", 3),
        (with(&a.paths[1]), "are the same member", 3),
        (with(&link), "are the same member", 3),
        (with(&copy), "are copies of the same member", 3),
        (
            with(&file("fs.img", &ext4)),
            "not a member: no dm-integrity and no md superblock, but ext2/3/4",
            3,
        ),
        (vec![file("empty.img", &[])], "not a member", 3),
        (vec![file("tiny.img", &[7; 100])], "not a member", 3),
        (vec![file("zeroes.img", &[0; 1 << 20])], "not a member", 3),
        (vec![folder.path().to_owned()], "is a directory", 3),
        (with(&folder.path().join("absent.img")), "no such file", 4),
        (vec!["/dev/null".into()], "neither a file nor a block device", 3),
    ];
    let before = (hashes(&a.paths), hashes(&b.paths));
    for (paths, text, code) in cases {
        for options in
            [OpenOptions::read_only(members(&paths)), OpenOptions::writable(members(&paths))]
        {
            let error = refused(options);
            assert!(error.to_string().contains(text), "{error}, expected: {text}");
            assert_eq!(error.verdict().exit_code(), code, "{error}");
            assert!(!error.to_string().contains('\n'));
        }
    }
    assert_eq!((hashes(&a.paths), hashes(&b.paths)), before);
}

#[test]
fn a_truncated_member_is_left_out_and_named() {
    let set = set(CreateLevel::Raid5, 3, |options| options);
    let bytes = noise(2_000_000, 5);
    fill(&set.paths, 0, &bytes);
    let file = std::fs::OpenOptions::new().write(true).open(&set.paths[1]).unwrap();
    file.set_len(MEMBER / 2).unwrap();
    let (read, bad) = content(&set.paths);
    assert_eq!(bad, 0);
    assert!(read[..bytes.len()] == bytes);
    let status = with_volume(OpenOptions::read_only(members(&set.paths)), |volume| async move {
        volume.status()
    });
    let out = status.members.iter().find(|member| member.state == MemberState::LeftOut).unwrap();
    assert_eq!(Path::new(&out.name), set.paths[1]);
    assert!(out.problem.as_ref().unwrap().contains("needs a device of"), "{out:?}");
}

#[test]
fn a_member_that_is_being_written_is_locked_for_all_others() {
    let set = set(CreateLevel::Raid5, 3, |options| options);
    let paths = set.paths.clone();
    run(async move {
        let volume = stack::open(&OpenOptions::writable(members(&paths))).await.unwrap();
        for options in
            [OpenOptions::read_only(members(&paths)), OpenOptions::writable(members(&paths))]
        {
            let error = stack::open(&options).await.err().expect("it is locked");
            assert!(error.to_string().contains("in use by"), "{error}");
            assert_eq!(error.verdict(), Verdict::Refused);
        }
        let create = CreateOptions { yes: true, ..options(&paths, CreateLevel::Raid5, MEMBER) };
        let error = stack::create::create(&create, &mut |_, _| ()).await.unwrap_err();
        assert!(error.to_string().contains("in use by"), "{error}");
        volume.close().await.unwrap();
    });
}

/// Nothing of a closed volume runs on, or its members would still be locked.
#[test]
fn a_closed_volume_can_be_opened_again_at_once() {
    for level in [CreateLevel::None, CreateLevel::Raid1, CreateLevel::Raid5, CreateLevel::Raid6] {
        for mode in [None, Some(Mode::Bitmap), Some(Mode::Direct)] {
            let folder = tempfile::tempdir().unwrap();
            let paths = paths(folder.path(), if level == CreateLevel::None { 1 } else { 4 });
            make(&options(&paths, level, 16 << 20));
            run(async move {
                for round in 0..4 {
                    let mut wanted = OpenOptions::writable(members(&paths));
                    wanted.given.running.mode = mode;
                    let volume =
                        stack::open(&wanted).await.unwrap_or_else(|error| panic!("{error}"));
                    write_at(&volume, 1 << 20, &noise(3_000_000 + round, round as u64)).await;
                    volume.close().await.unwrap();
                }
            });
        }
    }
}

#[test]
fn damage_on_two_members_everywhere_is_healed_and_scrubbed() {
    let set = set(CreateLevel::Raid6, 6, |options| options);
    let bytes = noise(8_000_000, 6);
    fill(&set.paths, 0, &bytes);
    let good: Vec<Vec<u8>> = set.paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // On two members: data, tags, the md superblock, the dm-integrity superblock.
    for (path, seed) in [(&set.paths[1], 1), (&set.paths[4], 2)] {
        for n in 0..40_u64 {
            // All of it lies behind the journal, in tags and data of the used part.
            flip(path, (3 << 20) + (n * 7919 * 512 + seed * 977) % (2 << 20), 1 << (n % 8));
        }
        let superblock = integrity_of(path);
        let run = superblock.run(units::Sector(8), 8);
        flip(path, run.data.bytes() + 40, 0x10);
        flip(path, run.tag_byte + 4 * 40, 0x01);
        flip(path, 48 + seed, 0x04);
    }
    let (read, bad) = content(&set.paths);
    assert_eq!(bad, 0);
    assert!(read[..bytes.len()] == bytes, "read-only, with nothing written");

    let (status, summary) =
        with_volume(OpenOptions::writable(members(&set.paths)), |volume| async move {
            let (_, bad) = read_all(&volume).await;
            assert_eq!(bad, 0);
            let go_on =
                |_: &scrub::Progress, _: &scrub::Summary| std::ops::ControlFlow::Continue(());
            let repair = scrub::Options::new(bio::ScrubMode::Repair);
            volume.scrub(&repair, go_on).await;
            let check = scrub::Options::new(bio::ScrubMode::Check);
            (volume.status(), volume.scrub(&check, go_on).await)
        });
    assert_eq!(status.missing, 0, "superblocks were rebuilt by evidence: {status:?}");
    assert_eq!(summary.outcome().exit_code(), 0, "{:?}", summary.lines);
    for (path, good) in set.paths.iter().zip(&good) {
        let now = std::fs::read(path).unwrap();
        assert!(now[..4096] == good[..4096], "{}: dm-integrity superblock", path.display());
    }
    let status = with_volume(OpenOptions::read_only(members(&set.paths)), |volume| async move {
        assert_eq!(read_all(&volume).await.1, 0);
        volume.status()
    });
    assert!(status.is_healthy(), "{status:?}");
}

#[test]
fn a_scrub_heals_superblocks_that_were_damaged_while_the_volume_was_open() {
    for integrity in [true, false] {
        let set = set(CreateLevel::Raid1, 2, |options| CreateOptions {
            integrity: options.integrity.filter(|_| integrity),
            ..options
        });
        let paths = set.paths.clone();
        let md_byte = if integrity {
            integrity_of(&paths[1]).run(units::Sector(8), 8).data.bytes()
        } else {
            4096
        };
        let (first, second) =
            with_volume(OpenOptions::writable(members(&set.paths)), move |volume| async move {
                write_at(&volume, 0, &[1; 100_000]).await;
                flip(&paths[1], md_byte + 90, 0xff);
                if integrity {
                    flip(&paths[0], 50, 0xff);
                }
                let go_on =
                    |_: &scrub::Progress, _: &scrub::Summary| std::ops::ControlFlow::Continue(());
                let repair = scrub::Options::new(bio::ScrubMode::Repair);
                let first = volume.scrub(&repair, go_on).await;
                (first, volume.scrub(&repair, go_on).await)
            });
        let healed = if integrity { 2 } else { 1 };
        assert_eq!(
            (first.total(bio::Finding::Healed).extents, first.lines.len()),
            (healed, usize::try_from(healed).unwrap()),
            "{:?}",
            first.lines
        );
        assert_eq!(second.outcome().exit_code(), 0, "{:?}", second.lines);
        let (_, bad) = content(&set.paths);
        assert_eq!(bad, 0);
    }
}

#[test]
fn a_mirror_that_was_not_wiped_is_dirty_until_it_is_resynced() {
    let set = set(CreateLevel::Raid1, 2, |options| CreateOptions {
        no_wipe: true,
        integrity: None,
        ..options
    });
    let status = with_volume(OpenOptions::read_only(members(&set.paths)), |volume| async move {
        volume.status()
    });
    assert!(status.was_dirty && status.synced_below == Some(0), "{status:?}");
    let status = with_volume(OpenOptions::writable(members(&set.paths)), |volume| async move {
        for _ in 0..1000 {
            if volume.status().synced_below.is_none() {
                break;
            }
            runtime::sleep(std::time::Duration::from_millis(10)).await;
        }
        volume.status()
    });
    assert_eq!(status.synced_below, None);
    let status = with_volume(OpenOptions::read_only(members(&set.paths)), |volume| async move {
        volume.status()
    });
    assert!(status.is_healthy() && !status.was_dirty, "{status:?}");
}

fn integrity_of(path: &Path) -> integrity::Layout {
    let image = std::fs::read(path).unwrap();
    let superblock = integrity::Superblock::decode(&image).unwrap();
    let sectors = units::u64_of(image.len()) / 512;
    let device = integrity::layout::DeviceSectors::Interleaved(sectors);
    integrity::Layout::of(&superblock, device).unwrap()
}

#[test]
fn damage_beyond_redundancy_is_an_error_for_exactly_those_sectors() {
    let set = set(CreateLevel::Raid5, 3, |options| options);
    let bytes = noise(4_000_000, 7);
    fill(&set.paths, 0, &bytes);
    let places = {
        let paths = set.paths.clone();
        with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
            stack::explain(&volume, units::Sector(1000)).await.unwrap()
        })
    };
    assert_eq!(places.places.len(), 2, "data and P");
    for place in &places.places {
        let tag = place.tag.as_ref().unwrap();
        assert_eq!(tag.stored, tag.computed);
        flip(Path::new(place.member.as_ref().unwrap()), place.data_byte.unwrap(), 3);
    }
    let (read, bad) = content(&set.paths);
    assert_eq!(bad, 4096);
    let hole = 1000 / 8 * 8 * 512;
    let mut expected = bytes.clone();
    expected[hole..hole + 4096].fill(0);
    assert!(read[..bytes.len()] == expected);
}

#[test]
fn a_stack_as_text_is_a_claim_about_the_members() {
    let set = set(CreateLevel::Raid5, 3, |options| options);
    let text = with_volume(OpenOptions::read_only(members(&set.paths)), |volume| async move {
        volume.stack().to_string()
    });
    let open = |text: &str| {
        let node: stack::Node = text.parse().unwrap();
        let options = OpenOptions::read_only(Vec::new());
        run(async move {
            let volume = stack::open_stack(&node, &options).await?;
            let sectors = volume.device().limits().sectors;
            volume.close().await.unwrap();
            Ok::<u64, OpenError>(sectors)
        })
    };
    assert!(open(&text).unwrap() > 0);
    let wrong = open(&text.replace("raid5", "raid6")).unwrap_err();
    assert!(wrong.to_string().starts_with("the stack says raid6("), "{wrong}");
    assert_eq!(open("memory:1M").unwrap(), 2048);
}

/// Opens, acts, and is gone without closing: what a killed process leaves.
fn killed<F: Future<Output = ()> + 'static>(
    paths: &[PathBuf],
    act: impl FnOnce(std::rc::Rc<stack::Volume>) -> F + 'static,
) {
    let options = OpenOptions::writable(members(paths));
    run(async move {
        let volume = stack::open(&options).await.unwrap();
        act(std::rc::Rc::new(volume)).await;
    });
}

#[test]
fn what_was_flushed_survives_a_kill_and_the_array_says_it_was_dirty() {
    for (level, count) in
        [(CreateLevel::Raid1, 2), (CreateLevel::Raid5, 3), (CreateLevel::Raid6, 4)]
    {
        let set = set(level, count, |options| options);
        let bytes = noise(3_000_000, 8);
        let written = bytes.clone();
        killed(&set.paths, |volume| async move { write_at(&volume, 777, &written).await });
        let (read, bad) = content(&set.paths);
        assert_eq!(bad, 0);
        assert!(read[777..777 + bytes.len()] == bytes, "{level:?}, read-only");
        let (status, read) =
            with_volume(OpenOptions::writable(members(&set.paths)), |volume| async move {
                let status = volume.status();
                (status, read_all(&volume).await.0)
            });
        assert!(status.was_dirty, "{level:?}");
        assert!(read[777..777 + bytes.len()] == bytes, "{level:?}, replayed");
    }
}

#[test]
fn dirty_and_degraded_is_refused_unless_it_is_forced() {
    let set = set(CreateLevel::Raid5, 3, |options| options);
    let bytes = noise(2_000_000, 9);
    let written = bytes.clone();
    killed(&set.paths, |volume| async move { write_at(&volume, 0, &written).await });
    let left = &set.paths[..2];
    let before = hashes(left);
    for options in [OpenOptions::read_only(members(left)), OpenOptions::writable(members(left))] {
        let error = refused(options);
        assert!(error.to_string().starts_with("degraded and not closed cleanly"), "{error}");
        assert!(error.advice().unwrap().contains("--force"));
        assert_eq!(error.verdict(), Verdict::Refused);
    }
    assert_eq!(hashes(left), before);
    let forced = OpenOptions { force: true, ..OpenOptions::writable(members(left)) };
    let (read, bad) = with_volume(forced, |volume| async move { read_all(&volume).await });
    assert_eq!(bad, 0);
    assert!(read[..bytes.len()] == bytes, "everything was flushed, so nothing was unfinished");
}

#[test]
fn any_choice_of_members_can_be_looked_at_as_it_is() {
    let set = set(CreateLevel::Raid5, 3, |options| options);
    let old = noise(3 << 20, 5);
    fill(&set.paths, 0, &old);
    // Two go on without the third, and change something at the end.
    fill(&set.paths[..2], 2 << 20, &noise(1 << 20, 6));
    let (now, _) = content(&set.paths[..2]);
    let before = hashes(&set.paths);
    let chosen = [set.paths[0].clone(), set.paths[2].clone()];
    let refusal = refused(OpenOptions::read_only(members(&chosen)));
    assert!(refusal.to_string().contains("missing"), "{refusal}");
    let given = |paths: &[PathBuf]| {
        // What is given as it is is never written, whoever asks.
        let options = OpenOptions { as_given: true, ..OpenOptions::writable(members(paths)) };
        with_volume(options, |volume| async move {
            assert!(volume.is_read_only());
            let stale = volume.log().last().iter().any(|told| told.to_string().contains("given"));
            (read_all(&volume).await, stale)
        })
    };
    let ((bytes, bad), stale) = given(&chosen);
    assert!(bad == 0 && stale);
    assert!(bytes[..2 << 20] == old[..2 << 20], "what both still have is right");
    assert!(bytes != now, "what only one of them has is not");
    let ((bytes, _), stale) = given(&set.paths[..2]);
    assert!(bytes == now && !stale);
    assert_eq!(hashes(&set.paths), before);
}
