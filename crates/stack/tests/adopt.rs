//! Data that exists gets tags on a device of their own, and is never written.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use bio::{Device, Events, IoErrorKind};
use common::*;
use layers::file::{FileDevice, FileOptions};
use layers::integrity::{Integrity, JournalKeys, JournalState, Lower, Options};
use stack::adopt::{
    AdoptError, AdoptOptions, Adopted, Beginning, Pair, adopt, check_array, dry_run,
};
use stack::create::{CreateLevel, CreateOptions};
use stack::{Fault, Member, Verdict};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use steadfast_stack as stack;
use units::Sector;

fn wanted(data: &Path, metadata: &Path) -> AdoptOptions {
    AdoptOptions {
        pairs: vec![Pair { data: Member::from(data), metadata: Member::from(metadata) }],
        integrity: checksum::Algorithm::Crc32c,
        integrity_key: None,
        journal: JournalKeys::default(),
        tag_size: None,
        sector_size: 4096,
        journal_bytes: None,
        yes: false,
    }
}

/// Lets it do `steps` steps.
fn adopt_in_part(options: &AdoptOptions, steps: usize) -> Result<Vec<Adopted>, AdoptError> {
    let options = options.clone();
    run(async move {
        let mut told = 0;
        let mut on_progress = |_: &stack::adopt::AdoptProgress| {
            told += 1;
            if told > steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        adopt(&options, &mut on_progress).await
    })
}

fn adopt_whole(options: &AdoptOptions) -> Adopted {
    let mut adopted = adopt_in_part(options, usize::MAX).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(adopted.len(), 1);
    assert!(adopted[0].is_finished());
    adopted.remove(0)
}

/// Reads every block of the volume that data and metadata make; the sectors of those that are not
/// given out, and how they fail.
fn unreadable(data: &Path, metadata: &Path) -> Vec<(u64, IoErrorKind)> {
    let (data, metadata) = (data.to_owned(), metadata.to_owned());
    run(async move {
        let open =
            |path: &Path| Device::new(FileDevice::open(path, &FileOptions::default()).unwrap());
        let lower = Lower { metadata: open(&metadata), data: Some(open(&data)) };
        let options = Options::new(checksum::Algorithm::Crc32c, Events::none()).read_only();
        let volume: Rc<Integrity> = Integrity::open(lower, options).await.unwrap();
        assert_eq!(*volume.journal_state(), JournalState::Clean);
        assert_eq!(volume.superblock().recalculated_until(), None, "it has finished");
        let device = volume.device();
        let bytes = std::fs::read(&data).unwrap();
        let mut bad = Vec::new();
        for (sector, block) in (0..).step_by(8).zip(bytes.chunks(4096)) {
            match device.read(Sector(sector), 8).await {
                Ok(read) => assert!(read.as_slice() == block, "sector {sector}"),
                Err(error) => bad.push((sector, error.kind)),
            }
        }
        bad
    })
}

#[test]
fn every_block_verifies_and_the_data_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (data, metadata) = (folder.path().join("data"), folder.path().join("meta"));
    let bytes = noise(40 << 20, 1);
    std::fs::write(&data, &bytes).unwrap();
    let adopted = adopt_whole(&wanted(&data, &metadata));
    assert!(matches!(adopted.beginning, Beginning::New { .. }), "{adopted:?}");
    assert_eq!((adopted.sectors, adopted.unreadable_sectors), (40 << 11, 0));
    assert_eq!(unreadable(&data, &metadata), []);
    assert!(std::fs::read(&data).unwrap() == bytes);
    // Again: there is nothing left to do, and nothing is done.
    let before = std::fs::read(&metadata).unwrap();
    assert_eq!(adopt_whole(&wanted(&data, &metadata)).beginning, Beginning::Finished);
    assert!(std::fs::read(&metadata).unwrap() == before);
    // What rots from now on is found.
    flip(&data, 4096 * 1000 + 7, 1);
    assert_eq!(unreadable(&data, &metadata), [(8000, IoErrorKind::Protection)]);
}

#[test]
fn stopped_anywhere_it_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::write(&data, noise(70 << 20, 2)).unwrap();
    for stop in 0..5 {
        let metadata = folder.path().join(format!("meta{stop}"));
        let first = adopt_in_part(&wanted(&data, &metadata), stop).unwrap().remove(0);
        assert_eq!(first.done, 32768 * stop as u64, "a step is so many sectors");
        let second = adopt_whole(&wanted(&data, &metadata));
        assert_eq!(second.beginning, Beginning::Resumed { from: first.done });
        assert_eq!(unreadable(&data, &metadata), []);
    }
}

#[test]
fn going_on_does_not_bless_what_rotted_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, metadata) = (folder.path().join("data"), folder.path().join("meta"));
    std::fs::write(&data, noise(40 << 20, 3)).unwrap();
    adopt_in_part(&wanted(&data, &metadata), 1).unwrap();
    flip(&data, 4096 * 10, 0x80);
    adopt_whole(&wanted(&data, &metadata));
    assert_eq!(unreadable(&data, &metadata), [(80, IoErrorKind::Protection)]);
}

#[test]
fn tags_of_other_data_and_what_is_not_empty_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [data, other, metadata] = ["data", "other", "meta"].map(|name| folder.path().join(name));
    std::fs::write(&data, noise(40 << 20, 4)).unwrap();
    std::fs::write(&other, noise(40 << 20, 5)).unwrap();
    std::fs::write(&metadata, [vec![0; 1 << 20], vec![1], vec![0; 4 << 20]].concat()).unwrap();
    let refuse = |options: &AdoptOptions, said: &str| {
        let before = std::fs::read(&metadata).unwrap();
        let refused = adopt_in_part(options, usize::MAX).unwrap_err();
        assert_eq!(refused.verdict(), Verdict::Refused, "{refused}");
        assert!(refused.to_string().contains(said), "{refused}");
        assert!(std::fs::read(&metadata).unwrap() == before, "nothing was written");
    };
    let options = wanted(&data, &metadata);
    refuse(&options, "is not all zero");
    adopt_in_part(&AdoptOptions { yes: true, ..options.clone() }, 1).unwrap();
    refuse(&wanted(&other, &metadata), "none of");
    let sha1 = checksum::Algorithm::Sha1;
    refuse(&AdoptOptions { integrity: sha1, ..options.clone() }, "none of");
    refuse(&AdoptOptions { sector_size: 512, ..options.clone() }, "blocks of 4096 bytes");
    let small = wanted(&data, &folder.path().join("small"));
    std::fs::write(folder.path().join("small"), vec![0; 8192]).unwrap();
    refuse(&small, "too small");
    std::fs::write(&other, noise((40 << 20) + 512, 5)).unwrap();
    refuse(&wanted(&other, &folder.path().join("new")), "not a positive number of blocks");
    assert!(!folder.path().join("new").exists());
    adopt_whole(&options);
    assert_eq!(unreadable(&data, &metadata), []);
}

#[test]
fn an_array_is_checked_before_its_members_are_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 3);
    make(&CreateOptions { integrity: None, ..options(&paths, CreateLevel::Raid5, 16 << 20) });
    let pairs: Vec<Pair> = paths
        .iter()
        .map(|path| Pair {
            data: Member::from(path.as_path()),
            metadata: Member::from(path.with_extension("meta")),
        })
        .collect();
    let options = AdoptOptions { pairs, ..wanted(&paths[0], &paths[0]) };
    let check = |options: &AdoptOptions| {
        let options = options.clone();
        let go_on = |_, _| ControlFlow::Continue(());
        run(async move { check_array(&options, go_on).await }).unwrap()
    };
    assert!(check(&options).expect("they make one").is_consistent());
    flip(&paths[1], 8 << 20, 1);
    let found = check(&options).expect("they make one");
    assert!(!found.is_consistent() && found.summary.total(bio::Finding::Inconsistent).sectors > 0);
    flip(&paths[1], 8 << 20, 1);

    let plan = options.clone();
    let planned = run(async move { dry_run(&plan).await }).unwrap();
    assert_eq!(planned.len(), 3);
    assert!(!paths[0].with_extension("meta").exists(), "a dry run makes nothing");
    let adopted = adopt_in_part(&options, usize::MAX).unwrap();
    assert!(adopted.iter().all(Adopted::is_finished));
    for path in &paths {
        assert_eq!(unreadable(path, &path.with_extension("meta")), []);
    }
    assert!(check(&options).is_none(), "what was begun is not judged anew");
}
