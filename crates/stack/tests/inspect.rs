//! Looking at members: every field, every checksum, what they make; and a device that runs full.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use std::ops::ControlFlow;
use std::path::PathBuf;
use steadfast_stack as stack;
use steadfast_stack::copy::{CopyError, CopyProgress, ImportOptions, import};
use steadfast_stack::create::{CreateLevel, CreateOptions, create, dry_run};
use steadfast_stack::{Fault, Field, Given, Inspection, OpenOptions};

const MEMBER: u64 = 24 << 20;

fn inspect(paths: &[PathBuf]) -> Inspection {
    let named = members(paths);
    run(async move { stack::inspect(&named, &Given::default()).await })
}

fn value<'a>(fields: &'a [Field], name: &str) -> &'a str {
    &fields.iter().find(|field| field.name == name).unwrap().value
}

#[test]
fn members_of_several_volumes_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (name, level, count) in
        [("a", CreateLevel::Raid6, 4), ("b", CreateLevel::Raid1, 2), ("c", CreateLevel::None, 1)]
    {
        let sub = folder.path().join(name);
        std::fs::create_dir(&sub).unwrap();
        let paths = paths(&sub, count);
        make(&CreateOptions { name: Some(name.into()), ..options(&paths, level, MEMBER) });
        all.extend(paths);
    }
    all.push(folder.path().join("text"));
    std::fs::write(&all[7], "hello".repeat(10_000)).unwrap();
    all.push(folder.path().join("absent"));
    let before: Vec<_> =
        all[..8].iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect();
    let inspection = inspect(&all);
    let groups: Vec<(Vec<usize>, bool)> = inspection
        .groups
        .iter()
        .map(|group| (group.members.clone(), group.stack.is_some()))
        .collect();
    let expected =
        [(vec![0, 1, 2, 3], true), (vec![4, 5], true), (vec![6], true), (vec![7], false)];
    assert_eq!(groups, expected);
    assert!(inspection.groups[3].problem.as_ref().unwrap().contains("not a member"));
    assert!(inspection.members[8].problem.as_ref().unwrap().contains("no such file"));
    let first = &inspection.members[0];
    let (integrity, md) = (first.integrity.as_ref().unwrap(), first.md.as_ref().unwrap());
    assert_eq!(value(&integrity.fields, "sector_size"), "4096");
    assert!(integrity.algorithm.as_ref().unwrap().starts_with("crc32c"), "{integrity:?}");
    assert_eq!(value(&md.fields, "level"), "raid6");
    assert_eq!(value(&md.fields, "set_name"), "a");
    assert_eq!(value(&md.fields, "role"), "slot 0");
    assert_eq!(value(&md.fields, "resync_offset"), "clean");
    assert!(md.checksum_ok && md.refused.is_none());
    let after: Vec<_> = all[..8].iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect();
    assert_eq!(after, before, "nothing was written");
}

#[test]
fn a_damaged_checksum_is_said_and_what_it_was_is_found_from_the_peers() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 3);
    make(&CreateOptions { integrity: None, ..options(&paths, CreateLevel::Raid5, MEMBER) });
    // The level: the array's own, so that peers know it.
    flip(&paths[1], 4096 + 72, 0x0f);
    // The device's UUID: nobody else knows it.
    flip(&paths[2], 4096 + 170, 0x0f);
    let inspection = inspect(&paths);
    let md = inspection.members[1].md.as_ref().unwrap();
    assert!(md.repaired && !md.checksum_ok, "{md:?}");
    assert_eq!(value(&md.fields, "level"), "raid5");
    let problem = inspection.members[2].problem.as_ref().unwrap();
    assert!(problem.contains("checksum is 0x"), "{problem}");
    assert!(inspection.groups[0].problem.as_ref().unwrap().contains("1 of 3 slots empty"));
}

#[test]
fn a_dry_run_lists_every_write_and_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 4);
    let options = options(&paths, CreateLevel::Raid6, MEMBER);
    let planned = {
        let options = options.clone();
        run(async move { dry_run(&options, &mut |_, _| ()).await.unwrap() })
    };
    assert!(paths.iter().all(|path| !path.exists()));
    let made = make(&options);
    assert_eq!(planned.sectors, made.sectors);
    assert_eq!(planned.writes, made.writes);
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 3);
    let wanted = options(&paths, CreateLevel::Raid5, MEMBER);
    make(&wanted);
    let refuse = |options: CreateOptions| {
        run(async move { create(&options, &mut |_, _| ()).await.unwrap_err() })
    };
    let before: Vec<_> = paths.iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect();
    let error = refuse(wanted.clone());
    assert!(error.to_string().contains("holds dm-integrity (at byte 0)"), "{error}");
    assert_eq!(error.verdict().exit_code(), 3);
    let error = refuse(CreateOptions { member_bytes: Some(MEMBER * 2), ..wanted.clone() });
    assert!(error.to_string().contains("--size says"), "{error}");
    let mut twice = wanted.clone();
    twice.members[1] = twice.members[0].clone();
    assert!(refuse(twice).to_string().contains("are the same member"));
    let mut folder_member = wanted.clone();
    folder_member.members[1] = stack::Member::Path(folder.path().to_owned());
    assert!(refuse(folder_member).to_string().contains("is a directory"));
    let after: Vec<_> = paths.iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect();
    assert_eq!(after, before);

    // A file without signature, but not all zero.
    std::fs::write(&paths[2], [vec![0; (1 << 20) - 1], vec![1]].concat()).unwrap();
    let error = refuse(CreateOptions {
        members: members(&paths[2..]),
        level: CreateLevel::None,
        member_bytes: None,
        ..wanted.clone()
    });
    assert!(
        error.to_string().contains("is not all zero") || error.to_string().contains("too small"),
        "{error}"
    );
    let yes = CreateOptions { yes: true, member_bytes: None, ..wanted };
    let set_len = std::fs::OpenOptions::new().write(true).open(&paths[2]).unwrap();
    set_len.set_len(MEMBER).unwrap();
    make(&yes);
    let (content, bad) =
        with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
            read_all(&volume).await
        });
    assert!(bad == 0 && content.iter().all(|&byte| byte == 0));
}

#[test]
fn files_that_were_made_in_vain_are_removed_again() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 4);
    let options = options(&paths, CreateLevel::Raid6, 64 << 10);
    let error = run(async move { create(&options, &mut |_, _| ()).await.unwrap_err() });
    assert!(error.to_string().contains("too small"), "{error}");
    assert!(paths.iter().all(|path| !path.exists()));
}

#[test]
fn a_member_that_runs_full_is_an_error_and_the_volume_stays_consistent() {
    for level in [CreateLevel::None, CreateLevel::Raid5] {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), if level == CreateLevel::None { 1 } else { 3 });
        make(&options(&paths, level, MEMBER));
        let kept = noise(1_000_000, 1);
        let first = kept.clone();
        let text = with_volume(OpenOptions::writable(members(&paths)), |volume| async move {
            write_at(&volume, 0, &first).await;
            volume.stack().to_string()
        });
        let full = text.replace("m0.img", "m0.img, write:20000-40000:nospace");
        let full = full.replace("file:", "fault(file:").replace("img)", "img))");
        let full = full.replace(":nospace)", ":nospace))");
        let node: stack::Node = full.parse().unwrap_or_else(|error| panic!("{full}: {error}"));
        let error = run(async move {
            let options = OpenOptions::writable(Vec::new());
            let volume = stack::open_stack(&node, &options).await.unwrap();
            let bytes = noise(20_000_000, 2);
            let go_on = |_: &CopyProgress| ControlFlow::Continue(());
            let offset = ImportOptions { offset: 1_000_000, ..Default::default() };
            let device = volume.device();
            let result = import(&device, &mut bytes.as_slice(), "noise", &offset, go_on).await;
            drop(device);
            let _as_far_as_it_goes = volume.close().await;
            result.unwrap_err()
        });
        let CopyError::Volume { error: cause, .. } = &error else { panic!("{level:?}: {error}") };
        assert_eq!(cause.kind, bio::IoErrorKind::NoSpace, "{level:?}");
        let (content, bad) =
            with_volume(OpenOptions::writable(members(&paths)), |volume| async move {
                read_all(&volume).await
            });
        assert!(content[..kept.len()] == kept, "{level:?}: what was flushed is there");
        assert_eq!(bad, 0, "{level:?}");
    }
}
