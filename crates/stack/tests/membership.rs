//! Members that were away and come back, over dm-integrity and bare.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use md::missed::NotByBitmap;
use stack::create::{CreateBitmap, CreateLevel, CreateOptions};
use stack::membership::{Added, NewMember, Past};
use stack::{Member, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;
use steadfast_stack as stack;

const MEMBER: u64 = 12 << 20;
/// Where something is written while a member is away.
const PIECE: u64 = 1 << 20;

const CHUNK: CreateBitmap = CreateBitmap::Internal { chunk_bytes: Some(64 << 10) };

struct Set {
    folder: tempfile::TempDir,
    paths: Vec<PathBuf>,
}

fn set(level: CreateLevel, count: usize, integrity: bool, bitmap: CreateBitmap) -> Set {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), count);
    let mut options = CreateOptions { bitmap, ..options(&paths, level, MEMBER) };
    if !integrity {
        options.integrity = None;
    }
    make(&options);
    Set { folder, paths }
}

impl Set {
    fn without(&self, gone: usize) -> Vec<PathBuf> {
        let there = self.paths.iter().enumerate().filter(|(index, _)| *index != gone);
        there.map(|(_, path)| path.clone()).collect()
    }
}

fn fill(paths: &[PathBuf], offset: u64, bytes: &[u8]) {
    let bytes = bytes.to_vec();
    with_volume(OpenOptions::writable(members(paths)), move |volume| async move {
        write_at(&volume, offset, &bytes).await;
    });
}

/// Adds the file, and waits until it is filled. Also: how many slots are missing then.
fn add(paths: &[PathBuf], new: PathBuf) -> (Added, usize) {
    with_volume(OpenOptions::writable(members(paths)), move |volume| async move {
        let new = NewMember { member: Member::Path(new), data: None, yes: false };
        let added = volume.add(&new, &mut |_, _| ()).await.unwrap_or_else(|e| panic!("{e}"));
        while volume.rebuilding().0 {
            runtime::sleep(Duration::from_millis(5)).await;
        }
        (added, volume.status().missing)
    })
}

fn content(paths: &[PathBuf]) -> Vec<u8> {
    let options = OpenOptions::read_only(members(paths));
    let (content, bad) = with_volume(options, |volume| async move { read_all(&volume).await });
    assert_eq!(bad, 0);
    content
}

#[test]
fn a_member_that_was_away_is_given_what_it_missed() {
    let levels = [
        (CreateLevel::Raid1, 2),
        (CreateLevel::Raid5, 3),
        (CreateLevel::Raid6, 4),
        (CreateLevel::Raid10, 4),
    ];
    for ((level, count), integrity) in levels.into_iter().zip([true, true, false, false]) {
        let set = set(level, count, integrity, CHUNK);
        let before = content(&set.paths);
        let size = before.len();
        fill(&set.paths, 0, &noise(size, 1));
        let away = set.without(1);
        fill(&away, PIECE, &noise(100_000, 2));
        let (added, missing) = add(&away, set.paths[1].clone());
        let Past::Kept { slot: 1, missed_sectors } = added.past else {
            panic!("{level:?}: {added:?}")
        };
        assert_eq!((added.slot, missing), (Some(1), 0), "{level:?}");
        // At most two chunks more than what was written, and not nothing.
        let most = (100_000 + 3 * (64 << 10)) / 512;
        assert!((1..=most).contains(&missed_sectors), "{level:?}: {missed_sectors} sectors");
        let mut expected = noise(size, 1);
        expected[units::usize_of(PIECE)..][..100_000].copy_from_slice(&noise(100_000, 2));
        assert!(content(&set.paths) == expected, "{level:?}");
        // What it holds counts: another goes, and nothing is missing.
        assert!(content(&set.without(0)) == expected, "{level:?}");
    }
}

#[test]
fn a_member_of_which_the_bitmap_cannot_tell_is_filled_whole_and_that_is_said() {
    let bare = set(CreateLevel::Raid5, 3, false, CreateBitmap::None);
    let away = bare.without(1);
    fill(&away, PIECE, &noise(4096, 2));
    let (added, missing) = add(&away, bare.paths[1].clone());
    assert_eq!(added.past, Past::Forgotten { why: NotByBitmap::NoBitmap });
    assert_eq!(missing, 0);

    // Its place was taken by another for a while, and bits were cleared.
    let set = set(CreateLevel::Raid5, 3, false, CHUNK);
    let mut now = set.without(1);
    let other = set.folder.path().join("other.img");
    std::fs::File::create(&other).unwrap().set_len(MEMBER).unwrap();
    assert_eq!(add(&now, other.clone()).0.past, Past::None);
    now.push(other);
    fill(&now, PIECE, &noise(4096, 3));
    let rest = &now[..2];
    fill(rest, 2 * PIECE, &noise(4096, 4));
    let (added, missing) = add(rest, set.paths[1].clone());
    assert!(matches!(added.past, Past::Forgotten { why: NotByBitmap::Older { .. } }), "{added:?}");
    assert_eq!(missing, 0);
    let whole = content(rest);
    assert!(content(&[rest[0].clone(), set.paths[1].clone()]) == whole);

    // It went on without the other, and that without it.
    let set = self::set(CreateLevel::Raid1, 2, false, CHUNK);
    fill(&set.without(1), PIECE, &noise(4096, 5));
    fill(&set.without(0), 2 * PIECE, &noise(4096, 6));
    let whole = content(&set.without(1));
    let (added, missing) = add(&set.without(1), set.paths[1].clone());
    assert_eq!(missing, 0);
    let diverged = NotByBitmap::Diverged { number: 0 };
    assert_eq!(added.past, Past::Forgotten { why: diverged });
    assert!(content(&set.without(0)) == whole);
}
