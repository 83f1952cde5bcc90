//! One member with dm-integrity: made, written, closed, opened again, damaged.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use stack::create::{CreateLevel, CreateOptions};
use stack::{Fault, MemberState, OpenError, OpenOptions, Verdict};
use steadfast_stack as stack;

#[test]
fn what_was_written_is_there_after_closing_and_opening() {
    for (sector_size, tag_size) in [(512, None), (4096, None), (4096, Some(3)), (1024, Some(8))] {
        let folder = tempfile::tempdir().unwrap();
        let paths = paths(folder.path(), 1);
        let options = options(&paths, CreateLevel::None, 16 << 20);
        make(&CreateOptions { sector_size, tag_size, ..options });
        let bytes = noise(3_000_000, 1);
        let written = bytes.clone();
        with_volume(OpenOptions::writable(members(&paths)), move |volume| async move {
            assert_eq!(
                volume.device().limits().logical_block.bytes(),
                512 * usize::try_from(sector_size / 512).unwrap()
            );
            write_at(&volume, 1_000_003, &written).await;
        });
        let (content, bad) =
            with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
                read_all(&volume).await
            });
        assert_eq!(bad, 0);
        assert!(content[1_000_003..4_000_003] == bytes);
        assert!(content[..1_000_003].iter().all(|&byte| byte == 0));
        assert!(content[4_000_003..].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn a_flipped_bit_is_an_unreadable_block_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 1);
    make(&options(&paths, CreateLevel::None, 16 << 20));
    // 16 MiB, 4096-byte blocks: data starts at sector 400 + 32.
    flip(&paths[0], (400 + 32) * 512 + 5 * 4096 + 17, 4);
    let (content, bad, status) =
        with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
            let (content, bad) = read_all(&volume).await;
            (content, bad, volume.status())
        });
    assert_eq!(bad, 4096);
    assert!(content.iter().all(|&byte| byte == 0));
    assert_eq!(status.members[0].counters.mismatches, 1);
    assert_eq!(status.members[0].state, MemberState::InSync);
    assert!(!status.is_healthy());
    assert_eq!(status.stack, format!("integrity(file:{})", paths[0].display()));
}

#[test]
fn read_only_opening_changes_no_byte_and_needs_no_permission_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 1);
    make(&options(&paths, CreateLevel::None, 4 << 20));
    let before = sha256(&std::fs::read(&paths[0]).unwrap());
    with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
        let error = volume.device().write(units::Sector(0), bio::Buf::zeroed(4096)).await;
        assert_eq!(error.unwrap_err().kind, bio::IoErrorKind::ReadOnly);
        read_all(&volume).await;
    });
    assert_eq!(sha256(&std::fs::read(&paths[0]).unwrap()), before);
}

#[test]
fn one_flipped_bit_of_the_superblock_is_rebuilt_and_written_back() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 1);
    make(&options(&paths, CreateLevel::None, 16 << 20));
    let good = std::fs::read(&paths[0]).unwrap();
    // Magic, interleave, tag size, size, salt.
    for (byte, mask) in [(3, 0x20), (9, 1), (10, 2), (17, 0x40), (60, 0x80)] {
        flip(&paths[0], byte, mask);
        let (_, bad) = with_volume(OpenOptions::read_only(members(&paths)), |volume| async move {
            read_all(&volume).await
        });
        assert_eq!(bad, 0, "byte {byte}");
        assert!(std::fs::read(&paths[0]).unwrap() != good, "read-only opening heals nothing");
        with_volume(OpenOptions::writable(members(&paths)), |_| async {});
        assert!(std::fs::read(&paths[0]).unwrap()[..4096] == good[..4096], "byte {byte}");
    }
}

#[test]
fn a_superblock_that_lies_is_never_opened_for_writing() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 1);
    make(&options(&paths, CreateLevel::None, 16 << 20));
    for byte in [48, 52, 60] {
        flip(&paths[0], byte, 0x55);
    }
    let before = sha256(&std::fs::read(&paths[0]).unwrap());
    let error = refused(OpenOptions::writable(members(&paths)));
    assert!(error.to_string().contains("verifies with any of crc32c, crc32, "), "{error}");
    assert_eq!(error.verdict(), Verdict::Refused);
    assert!(error.advice().is_some());
    assert_eq!(sha256(&std::fs::read(&paths[0]).unwrap()), before);
}

fn refused(options: OpenOptions) -> OpenError {
    run(async move { stack::open(&options).await.err().expect("it is refused") })
}

#[test]
fn a_volume_without_wiping_can_be_written_and_says_what_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let paths = paths(folder.path(), 1);
    let options = options(&paths, CreateLevel::None, 16 << 20);
    make(&CreateOptions { no_wipe: true, ..options });
    with_volume(OpenOptions::writable(members(&paths)), |volume| async move {
        write_at(&volume, 1 << 20, &[7; 1 << 20]).await;
        let size = volume.device().limits().sectors * 512;
        let (_, bad) = read_all(&volume).await;
        assert_eq!(bad, size - (1 << 20));
    });
}
