//! A lone volume becomes larger and smaller, also when it is stopped on the way.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use stack::create::{CreateLevel, CreateOptions};
use stack::resize::{ResizeError, ResizeOptions, Resized, Step, dry_run, resize};
use stack::{Fault, Given, Member, OpenOptions, Verdict};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use steadfast_stack as stack;

const MIB: u64 = 1 << 20;

fn wanted(path: &Path, bytes: u64, yes: bool) -> ResizeOptions {
    ResizeOptions { member: Member::from(path), bytes, given: Given::default(), yes }
}

/// Makes `steps_max` steps at most.
fn resize_in_part(options: ResizeOptions, steps_max: usize) -> Result<Resized, ResizeError> {
    run(async move {
        let mut begun = 0;
        let mut on_progress = |progress: &stack::resize::ResizeProgress| {
            begun += usize::from(progress.done == 0);
            if begun > steps_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        resize(&options, &mut on_progress).await
    })
}

fn resize_whole(options: ResizeOptions) -> Resized {
    let resized = resize_in_part(options, usize::MAX).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(resized.made, resized.steps.len());
    resized
}

/// A volume on a file of `mib` MiB, full of noise.
fn full(path: &Path, mib: u64, sector_size: u64) -> Vec<u8> {
    let paths = [path.to_owned()];
    let options = options(&paths, CreateLevel::None, mib * MIB);
    let created = make(&CreateOptions { sector_size, ..options });
    let bytes = noise(usize::try_from(created.sectors * 512).unwrap(), mib);
    let written = bytes.clone();
    with_volume(OpenOptions::writable(members(&paths)), move |volume| async move {
        write_at(&volume, 0, &written).await;
    });
    bytes
}

/// The whole volume; every block of it verifies.
fn content(path: &Path) -> Vec<u8> {
    let (content, bad) =
        with_volume(OpenOptions::read_only(members(&[path.to_owned()])), |volume| async move {
            read_all(&volume).await
        });
    assert_eq!(bad, 0);
    content
}

#[test]
fn what_grows_keeps_its_content_and_what_is_new_reads_as_zeroes() {
    // The larger one has several runs of data; so both a run that goes on and new ones are seen.
    for (sector_size, tag_room) in [(512, 40), (4096, 40), (4096, 25)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.img");
        let bytes = full(&path, 24, sector_size);
        // What lies behind the old end, on the member, is nobody's: it must not shine through.
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &noise(1 << 20, 9)).unwrap();
        let resized = resize_whole(wanted(&path, tag_room * MIB, false));
        assert_eq!(resized.from_sectors * 512, bytes.len() as u64);
        let now = content(&path);
        assert_eq!(now.len() as u64, resized.to_sectors * 512);
        assert!(now.len() > bytes.len());
        assert!(now[..bytes.len()] == bytes, "the old part is as it was");
        assert!(now[bytes.len()..].iter().all(|&byte| byte == 0), "the new part is zero");
        // It is a volume like any other: also the new part can be written.
        let written = noise(100_000, 3);
        let (at, copy) = (bytes.len() as u64 - 50_000, written.clone());
        with_volume(
            OpenOptions::writable(members(std::slice::from_ref(&path))),
            move |volume| async move {
                write_at(&volume, at, &copy).await;
            },
        );
        assert!(content(&path)[bytes.len() - 50_000..][..100_000] == written);
    }
}

#[test]
fn shrinking_says_what_goes_and_is_done_only_if_that_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.img");
    let bytes = full(&path, 40, 4096);
    let before = std::fs::read(&path).unwrap();
    let refused = resize_in_part(wanted(&path, 24 * MIB, false), 9).unwrap_err();
    assert_eq!(refused.verdict(), Verdict::Refused);
    assert!(refused.to_string().contains("would lose sectors"), "{refused}");
    assert!(std::fs::read(&path).unwrap() == before, "nothing was written");

    let resized = resize_whole(wanted(&path, 24 * MIB, true));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 24 * MIB);
    let now = content(&path);
    assert_eq!(now.len() as u64, resized.to_sectors * 512);
    assert!(now.len() < bytes.len() && now == bytes[..now.len()]);
    // Nothing of what was cut off comes back.
    resize_whole(wanted(&path, 40 * MIB, false));
    assert!(content(&path)[now.len()..].iter().all(|&byte| byte == 0));
}

#[test]
fn stopped_between_any_two_steps_it_has_its_old_or_its_new_size_and_the_same_goes_on() {
    for (from, to) in [(24, 40), (40, 24)] {
        let folder = tempfile::tempdir().unwrap();
        let original = folder.path().join("original.img");
        let bytes = full(&original, from, 4096);
        let plan = wanted(&original, to * MIB, true);
        let steps = run(async move { dry_run(&plan).await }).unwrap().steps;
        assert_eq!(steps.len(), if from < to { 4 } else { 2 }, "{steps:?}");
        let superblock = steps.iter().position(|step| *step == Step::Superblock).unwrap();
        for made in 0..=steps.len() {
            let path: PathBuf = folder.path().join("m.img");
            std::fs::copy(&original, &path).unwrap();
            let resized = resize_in_part(wanted(&path, to * MIB, true), made).unwrap();
            assert_eq!((resized.made, &resized.steps), (made, &steps));
            let sectors = if made > superblock { resized.to_sectors } else { resized.from_sectors };
            let now = content(&path);
            assert_eq!(now.len() as u64, sectors * 512, "after {made} steps");
            let kept = now.len().min(bytes.len());
            assert!(now[..kept] == bytes[..kept], "after {made} steps");

            resize_whole(wanted(&path, to * MIB, true));
            assert_eq!(std::fs::metadata(&path).unwrap().len(), to * MIB);
            assert_eq!(content(&path).len() as u64, resized.to_sectors * 512);
        }
    }
}

#[test]
fn a_journal_that_holds_writes_is_replayed_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.img");
    let bytes = full(&path, 40, 4096);
    // Copied while it is open, after a flush: as a crash leaves it.
    let crashed = folder.path().join("crashed.img");
    let (from, to) = (path.clone(), crashed.clone());
    let (last, written) = (bytes.len() as u64 - 8192, noise(8192, 5));
    let (named, copy) = (members(std::slice::from_ref(&path)), written.clone());
    run(async move {
        let volume = stack::open(&OpenOptions::writable(named)).await.unwrap();
        write_at(&volume, 0, &copy).await;
        write_at(&volume, last, &copy).await;
        std::fs::copy(from, to).unwrap();
        volume.close().await.unwrap();
    });
    let resized = resize_whole(wanted(&crashed, 24 * MIB, true));
    assert!(resized.replay, "there was something to replay");
    let now = content(&crashed);
    assert!(now[..8192] == written && now[8192..] == bytes[8192..now.len()]);
}

#[test]
fn a_recalculation_that_was_interrupted_stays_where_it_was() {
    use std::os::unix::fs::FileExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.img");
    full(&path, 24, 4096);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let store = |position: u64| {
        let mut flags = [0];
        file.read_exact_at(&mut flags, 24).unwrap();
        file.write_all_at(&[flags[0] | 2], 24).unwrap();
        file.write_all_at(&position.to_le_bytes(), 32).unwrap();
    };
    let position = || {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 32).unwrap();
        u64::from_le_bytes(bytes)
    };
    store(4096);
    resize_whole(wanted(&path, 32 * MIB, false));
    assert_eq!(position(), 4096);
    // One that had finished has finished: the new part has its tags.
    let old = resize_whole(wanted(&path, 32 * MIB, false)).to_sectors;
    store(old);
    let resized = resize_whole(wanted(&path, 40 * MIB, false));
    assert_eq!(position(), resized.to_sectors);
}

#[test]
fn members_of_an_array_and_what_does_not_fit_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 2);
    make(&options(&paths, CreateLevel::Raid1, 24 * MIB));
    let refused = resize_in_part(wanted(&paths[0], 40 * MIB, true), 9).unwrap_err();
    assert!(matches!(refused, ResizeError::Array { .. }), "{refused}");
    let lone = folder.path().join("lone.img");
    full(&lone, 24, 4096);
    for (bytes, said) in [(100 * 512, "journal"), (24 * MIB + 1, "multiple of 512")] {
        let refused = resize_in_part(wanted(&lone, bytes, true), 9).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
    }
    assert_eq!(std::fs::metadata(&lone).unwrap().len(), 24 * MIB);
}

/// A volume whose data lies elsewhere has the size of that; the metadata device gets room for tags.
#[test]
fn with_a_data_device_both_files_become_longer() {
    let folder = tempfile::tempdir().unwrap();
    let [data, metadata] = ["data", "meta"].map(|name| folder.path().join(name));
    let bytes = noise(24 << 20, 7);
    let pairs = vec![(Member::from(metadata.as_path()), Member::from(data.as_path()))];
    let given = Given { data_devices: pairs.clone(), ..Given::default() };
    let paths = [metadata.clone()];
    std::fs::write(&data, vec![0; 24 << 20]).unwrap();
    std::fs::write(&metadata, vec![0; 384 << 10]).unwrap();
    let options = CreateOptions::new(members(&paths), CreateLevel::None);
    make(&CreateOptions { data_devices: pairs, journal_bytes: Some(256 << 10), ..options });
    let open = |read_only| OpenOptions {
        given: given.clone(),
        read_only,
        ..OpenOptions::writable(members(&paths))
    };
    let written = bytes.clone();
    with_volume(open(false), move |volume| async move { write_at(&volume, 0, &written).await });
    let whole = |size: u64| {
        let (content, bad) =
            with_volume(open(true), |volume| async move { read_all(&volume).await });
        assert_eq!((content.len() as u64, bad), (size, 0));
        assert!(
            content[..bytes.len().min(content.len())] == bytes[..bytes.len().min(content.len())]
        );
        assert!(content[bytes.len().min(content.len())..].iter().all(|&byte| byte == 0));
    };
    // One block of tags more than the metadata device has room for, and stopped after each step.
    let wanted = |size, yes| ResizeOptions { given: given.clone(), ..wanted(&metadata, size, yes) };
    let grown = 200 * MIB;
    let planned = {
        let options = wanted(grown, false);
        run(async move { dry_run(&options).await }).unwrap()
    };
    assert!(matches!(planned.steps[0], Step::ExtendMetadata { from: 393216, .. }), "{planned:?}");
    // Stopped after each step, it goes on with those that are left.
    for steps in 0..planned.steps.len() {
        resize_in_part(wanted(grown, false), steps).unwrap();
    }
    resize_whole(wanted(grown, false));
    whole(grown);
    let refused = resize_in_part(wanted(8 * MIB, false), usize::MAX).unwrap_err();
    assert!(matches!(refused, ResizeError::CutsOff { .. }), "{refused}");
    resize_whole(wanted(8 * MIB, true));
    assert_eq!(std::fs::metadata(&data).unwrap().len(), 8 * MIB);
    whole(8 * MIB);
}

#[test]
fn a_size_that_is_one_bit_from_what_the_device_would_hold_is_a_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.img");
    let bytes = full(&path, 24, 4096);
    // Some blocks less, so that one bit of the number of sectors goes.
    let target = (1..64).map(|blocks| 24 * MIB - blocks * 4096).find(|&target| {
        let plan = wanted(&path, target, true);
        let planned = run(async move { dry_run(&plan).await }).unwrap();
        (planned.from_sectors ^ planned.to_sectors).count_ones() == 1
    });
    let resized = resize_whole(wanted(&path, target.unwrap(), true));
    // As on a disk that was never cut, with something else behind the volume.
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let cut = usize::try_from(24 * MIB - target.unwrap()).unwrap();
    std::io::Write::write_all(&mut file, &noise(cut, 3)).unwrap();
    let before = sha256(&std::fs::read(&path).unwrap());
    let now = content(&path);
    assert_eq!(now.len() as u64, resized.to_sectors * 512);
    assert!(now == bytes[..now.len()]);
    with_volume(OpenOptions::writable(members(std::slice::from_ref(&path))), |_| async {});
    assert_eq!(sha256(&std::fs::read(&path).unwrap()), before, "nothing was \"repaired\"");
}
