use super::*;
use crate::reactor::tests::on_both;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Directories on a disk and in memory.
fn places() -> Vec<TempDir> {
    ["/tmp", "/dev/shm"]
        .into_iter()
        .filter(|path| Path::new(path).is_dir())
        .map(|path| tempfile::tempdir_in(path).unwrap())
        .collect()
}

const WRITE: OpenOptions = OpenOptions { write: true, direct_offset_max: 4096, lock: true };
const READ: OpenOptions = OpenOptions { write: false, direct_offset_max: 4096, lock: true };
const CACHED: OpenOptions = OpenOptions { write: true, direct_offset_max: 0, lock: true };

fn make(directory: &TempDir, bytes: u64) -> std::path::PathBuf {
    let path = directory.path().join("member");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn pattern(length: usize, seed: u8) -> Buf {
    let mut buf = Buf::alloc(length);
    for (index, byte) in buf.as_mut_slice().iter_mut().enumerate() {
        *byte = u8::try_from(index / 512 % 200).unwrap() ^ seed;
    }
    buf
}

#[test]
fn what_was_written_is_read_in_any_pieces_cached_or_direct() {
    on_both(|| async {
        for directory in places() {
            for options in [WRITE, CACHED] {
                let path = make(&directory, 1 << 20);
                let file = File::open(&path, &options).unwrap();
                assert_eq!(file.kind(), FileKind::Regular);
                assert_eq!(file.size_bytes().unwrap(), 1 << 20);
                if options == CACHED {
                    assert_eq!(file.direct(), None);
                }
                let data = Segments::from(vec![pattern(4096, 1), pattern(12288, 2)]);
                let (result, data) = file.write_at(data, 8192, false).await;
                assert_eq!(result.unwrap(), 16384);
                let (result, _) = file.write_at(pattern(4096, 3).into(), 24576, true).await;
                assert_eq!(result.unwrap(), 4096);
                file.sync_data().await.unwrap();
                let pieces = (0..5).map(|_| Buf::alloc(4096)).collect();
                let (result, read) = file.read_at(pieces, 8192).await;
                assert_eq!(result.unwrap(), 20480);
                let read = read.to_single();
                assert_eq!(&read.as_slice()[..16384], data.to_single().as_slice());
                assert_eq!(&read.as_slice()[16384..], pattern(4096, 3).as_slice());
            }
        }
    });
}

#[test]
fn reading_past_the_end_says_how_much_there_was() {
    on_both(|| async {
        for directory in places() {
            for (options, size) in [(WRITE, 8192 + 512), (CACHED, 8192 + 100), (WRITE, 8192)] {
                let path = make(&directory, size);
                let file = File::open(&path, &options).unwrap();
                let (result, _) = file.read_at(Buf::alloc(16384).into(), 4096).await;
                assert_eq!(result.unwrap(), usize_of(size) - 4096);
                let (result, _) = file.read_at(Buf::alloc(4096).into(), 16384).await;
                assert_eq!(result.unwrap(), 0);
                // Truncated while open.
                std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
                let (result, _) = file.read_at(Buf::alloc(4096).into(), 0).await;
                assert_eq!(result.unwrap(), 0);
            }
        }
    });
}

#[test]
fn more_buffers_than_one_call_takes_are_all_moved() {
    on_both(|| async {
        for directory in places() {
            let file = File::open(&make(&directory, 4 << 20), &CACHED).unwrap();
            let data = (0..3000_u16).map(|i| pattern(512, i.to_le_bytes()[0])).collect();
            let (result, data) = file.write_at(data, 512, false).await;
            assert_eq!(result.unwrap(), 3000 * 512);
            let pieces = (0..1500).map(|_| Buf::alloc(1024)).collect();
            let (result, read) = file.read_at(pieces, 512).await;
            assert_eq!(result.unwrap(), 3000 * 512);
            assert_eq!(read.to_single().as_slice(), data.to_single().as_slice());
        }
    });
}

#[test]
fn space_is_punched_zeroed_and_found() {
    on_both(|| async {
        for directory in places() {
            let file = File::open(&make(&directory, 1 << 20), &CACHED).unwrap();
            assert_eq!(file.next_data(0).unwrap(), None);
            let (result, _) = file.write_at(pattern(65536, 7).into(), 65536, false).await;
            assert_eq!(result.unwrap(), 65536);
            assert_eq!(file.next_data(0).unwrap(), Some(65536));
            assert_eq!(file.next_hole(65536).unwrap(), Some(131_072));
            file.allocate(Allocate::PunchHole, 65536, 32768).await.unwrap();
            assert_eq!(file.next_data(0).unwrap(), Some(98304));
            match file.allocate(Allocate::ZeroRange, 98304, 32768).await {
                Ok(()) => {}
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
            }
            file.allocate(Allocate::Reserve, 0, 1 << 20).await.unwrap();
            let (result, read) = file.read_at(Buf::alloc(98304).into(), 0).await;
            assert_eq!(result.unwrap(), 98304);
            assert!(read.to_single().as_slice().iter().all(|&byte| byte == 0));
            assert_eq!(file.next_hole(1 << 20).unwrap(), None);
        }
    });
}

#[test]
fn what_was_forgotten_is_read_from_the_medium() {
    on_both(|| async {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let file = File::open(&make(&directory, 65536), &CACHED).unwrap();
        let (result, _) = file.write_at(pattern(65536, 4).into(), 0, false).await;
        assert_eq!(result.unwrap(), 65536);
        let cached = || {
            let mut byte = [0];
            let mut vector = [io::IoSliceMut::new(&mut byte)];
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            rustix::io::preadv2(&file.fd, &mut vector, 32768, flags)
        };
        file.sync_data().await.unwrap();
        // Not every file system can say.
        if cached() == Ok(1) {
            file.forget_cached(0, 65536);
            assert_ne!(cached(), Ok(1));
        }
        let (result, read) = file.read_at(Buf::alloc(65536).into(), 0).await;
        assert_eq!(result.unwrap(), 65536);
        assert_eq!(read.to_single().as_slice(), pattern(65536, 4).as_slice());
    });
}

#[test]
fn one_writes_or_several_read() {
    for directory in places() {
        let path = make(&directory, 4096);
        let refused = |options: &OpenOptions| match File::open(&path, options) {
            Err(OpenError::Locked(holder)) => holder == Holder::Ourselves,
            Err(error) => panic!("{error}"),
            Ok(_) => false,
        };
        let writer = File::open(&path, &WRITE).unwrap();
        assert!(refused(&WRITE) && refused(&READ));
        assert!(!refused(&OpenOptions { lock: false, ..READ }));
        drop(writer);
        let _readers = (File::open(&path, &READ).unwrap(), File::open(&path, &READ).unwrap());
        assert!(refused(&WRITE));
    }
}

/// Plays the other process of the test below.
#[test]
fn other_process_that_holds_a_lock() {
    let Some(path) = std::env::var_os("STEADFAST_TEST_LOCK") else { return };
    let _held = File::open(Path::new(&path), &WRITE).unwrap();
    println!("held");
    std::io::read_to_string(std::io::stdin()).unwrap();
}

#[test]
fn the_holder_of_a_lock_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = make(&directory, 4096);
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "file::tests::other_process_that_holds_a_lock", "--nocapture"])
        .env("STEADFAST_TEST_LOCK", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(other.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("held")));
    let error = File::open(&path, &WRITE).unwrap_err();
    let OpenError::Locked(Holder::Process { pid, command }) = &error else { panic!("{error}") };
    assert_eq!(*pid, other.id());
    assert!("other_process_that_holds".starts_with(command.as_str()) || !command.is_empty());
    assert_eq!(error.to_string(), format!("in use by process {pid} ({command})"));
    other.kill().unwrap();
    other.wait().unwrap();
    File::open(&path, &WRITE).unwrap();
}

#[test]
fn what_is_no_member_is_refused_by_kind() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(File::open(directory.path(), &READ), Err(OpenError::Directory)));
    assert!(matches!(File::open(Path::new("/dev/full"), &WRITE), Err(OpenError::Kind)));
    let missing = File::open(&directory.path().join("missing"), &READ).unwrap_err();
    let OpenError::Io(error) = missing else { panic!("{missing}") };
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// Plays the process that may not write far.
#[test]
fn other_process_with_a_file_size_limit() {
    let Some(path) = std::env::var_os("STEADFAST_TEST_FULL") else { return };
    let limit = rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    on_both(move || {
        let path = path.clone();
        async move {
            let file = File::open(Path::new(&path), &CACHED).unwrap();
            let (result, data) = file.write_at(pattern(16384, 1).into(), 0, false).await;
            assert_eq!(result.unwrap(), 8192, "what fits is written");
            let (result, _) = file.write_at(data, 8192, false).await;
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EFBIG));
        }
    });
}

#[test]
fn a_full_device_is_an_error_after_what_fitted() {
    let directory = tempfile::tempdir().unwrap();
    let path = make(&directory, 0);
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "file::tests::other_process_with_a_file_size_limit"])
        .env("STEADFAST_TEST_FULL", &path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
