use super::*;
use bio::{Buf, Device, Segments};
use proptest::prelude::*;
use runtime::{Runtime, join_all, spawn};
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use tempfile::TempDir;
use units::usize_of;

/// Runs the future that `make` makes on io_uring and on threads.
fn on_both<F: Future<Output = ()> + 'static>(make: impl Fn() -> F) {
    Runtime::new().unwrap().block_on(make());
    Runtime::with_threads("a test").unwrap().block_on(make());
}

/// Directories on a disk and in memory.
fn places() -> Vec<TempDir> {
    ["/tmp", "/dev/shm"]
        .into_iter()
        .filter(|path| Path::new(path).is_dir())
        .map(|path| tempfile::tempdir_in(path).unwrap())
        .collect()
}

const WRITE: FileOptions =
    FileOptions { write: true, direct: true, block: BlockSize::B4096, lock: true };
const CACHED: FileOptions = FileOptions { direct: false, ..WRITE };
const READ: FileOptions = FileOptions { write: false, ..WRITE };

fn make(directory: &TempDir, bytes: u64) -> PathBuf {
    let path = directory.path().join("member");
    std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn open(path: &Path, options: &FileOptions) -> (Rc<FileDevice>, Device) {
    let device = Rc::new(FileDevice::open(path, options).unwrap());
    (Rc::clone(&device), Device::shared(device))
}

fn filled(length: usize, fill: u8) -> Buf {
    Buf::copy_of(&vec![fill; length])
}

fn truncate(path: &Path, bytes: u64) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

#[test]
fn blocks_are_as_large_as_the_way_of_access_demands() {
    for directory in places() {
        let path = make(&directory, 8192 + 700);
        let (file, device) = open(&path, &CACHED);
        assert_eq!((file.is_direct(), file.describe().as_str()), (false, "page cache"));
        assert_eq!(device.limits().logical_block, BlockSize::B512);
        assert_eq!(device.limits().sectors, 17);
        assert!(device.limits().discard && device.limits().fast_zeroes);
        drop((file, device));
        let (file, device) = open(&path, &WRITE);
        let block = device.limits().logical_block;
        assert!(block.divides(device.limits().sectors));
        if file.is_direct() {
            assert_eq!(file.describe(), format!("direct I/O, {block}-byte blocks"));
        }
        drop((file, device));
        // Whoever needs 512-byte blocks gets them, directly or not.
        let (_, device) = open(&path, &FileOptions { block: BlockSize::B512, ..WRITE });
        assert_eq!(device.limits().logical_block, BlockSize::B512);
    }
}

#[test]
fn unaligned_memory_is_served_and_given_back_as_it_came() {
    on_both(|| async {
        for directory in places() {
            for options in [WRITE, CACHED] {
                let (_, device) = open(&make(&directory, 1 << 20), &options);
                let bytes: Vec<u8> = (0..16384_u32).map(|i| (i % 253).to_le_bytes()[0]).collect();
                let mut first = Buf::alloc(1 + 16384);
                let mut first = first.split_off(1);
                first.as_mut_slice().copy_from_slice(&bytes);
                let second = first.split_off(777);
                let mut write = Bio::write_fua(Sector(16), Segments::from(vec![first, second]));
                device.submit(&mut write).await.unwrap();
                let lengths = |bio: &Bio| bio.data.iter().map(Buf::len).collect::<Vec<_>>();
                assert_eq!(lengths(&write), [777, 16384 - 777]);
                let mut whole = Buf::alloc(16384);
                let tail = whole.split_off(5000);
                let mut read = Bio::read_into(Sector(16), Segments::from(vec![whole, tail]));
                device.submit(&mut read).await.unwrap();
                assert_eq!(lengths(&read), [5000, 11384]);
                assert!(read.data.to_single().as_slice() == bytes);
                device.flush().await.unwrap();
            }
        }
    });
}

#[test]
fn what_a_truncated_file_lost_is_a_medium_error_at_its_place_until_it_is_written() {
    on_both(|| async {
        for directory in places() {
            for options in [WRITE, CACHED] {
                let path = make(&directory, 65536);
                let (_, device) = open(&path, &options);
                device.write(Sector::ZERO, filled(65536, 5)).await.unwrap();
                truncate(&path, 8192 + 100);
                let error = device.read(Sector(8), 32).await.unwrap_err();
                assert_eq!(error, IoErrorKind::Medium.at(Sector(16)));
                let error = device.read(Sector(64), 8).await.unwrap_err();
                assert_eq!(error, IoErrorKind::Medium.at(Sector(64)));
                // Not a hole: a hole reads as zeroes.
                let runs = device.allocation(Sector(64), 8).await.unwrap();
                assert_eq!(runs, [Allocation { sectors: 8, hole: false }]);
                device.write(Sector(64), filled(4096, 6)).await.unwrap();
                let read = device.read(Sector(64), 8).await.unwrap();
                assert!(read.as_slice().iter().all(|&byte| byte == 6));
                let mut zeroes = Bio::write_zeroes(Sector(96), 32, true);
                device.submit(&mut zeroes).await.unwrap();
                let read = device.read(Sector(96), 32).await.unwrap();
                assert!(read.as_slice().iter().all(|&byte| byte == 0));
            }
        }
    });
}

#[test]
fn zeroes_and_discards_read_as_zeroes_and_discards_give_space_back() {
    on_both(|| async {
        for directory in places() {
            for options in [WRITE, CACHED] {
                let (_, device) = open(&make(&directory, 4 << 20), &options);
                let blocks = device.limits().logical_block.sectors();
                device.write(Sector::ZERO, filled(4 << 20, 9)).await.unwrap();
                let requests = [
                    Bio::discard(Sector(128), 1024),
                    Bio::write_zeroes(Sector(2048), 3 * 1024, false),
                    Bio::write_zeroes(Sector(7 * blocks), blocks, true),
                ];
                let mut zeroed = Vec::new();
                for mut bio in requests {
                    device.submit(&mut bio).await.unwrap();
                    zeroed.push(bio.sector.0..bio.end().0);
                }
                let read = device.read(Sector::ZERO, 8192).await.unwrap();
                for (sector, bytes) in (0..).zip(read.as_slice().chunks(512)) {
                    let expected = !zeroed.iter().any(|range| range.contains(&sector));
                    assert_eq!(bytes[0] == 9 && bytes[511] == 9, expected, "sector {sector}");
                }
                let runs = device.allocation(Sector(128), 1024).await.unwrap();
                assert!(runs.iter().any(|run| run.hole), "{runs:?}");
                let all = device.allocation(Sector::ZERO, 8192).await.unwrap();
                assert_eq!(all.iter().map(|run| run.sectors).sum::<u64>(), 8192);
            }
        }
    });
}

#[test]
fn flushes_at_once_share_syncs_and_all_end() {
    on_both(|| async {
        for directory in places() {
            let (file, device) = open(&make(&directory, 1 << 20), &CACHED);
            let tasks: Vec<_> = (0..100_u64)
                .map(|n| {
                    let device = device.clone();
                    spawn(async move {
                        device.write(Sector(n * 8), filled(4096, 1)).await.unwrap();
                        device.flush().await.unwrap();
                    })
                })
                .collect();
            join_all(tasks).await;
            assert!(file.sync.is_idle());
        }
    });
}

#[test]
fn a_failed_sync_is_never_followed_by_a_success() {
    on_both(|| async {
        let directory = tempfile::tempdir().unwrap();
        let (file, device) = open(&make(&directory, 1 << 20), &CACHED);
        device.flush().await.unwrap();
        file.sync.fail(IoErrorKind::Medium);
        for _ in 0..3 {
            assert_eq!(device.flush().await, Err(IoErrorKind::Medium.at(Sector::ZERO)));
        }
        let mut fua = Bio::write_fua(Sector(8), filled(4096, 1));
        assert_eq!(device.submit(&mut fua).await, Err(IoErrorKind::Medium.at(Sector(8))));
        device.write(Sector(8), filled(4096, 1)).await.unwrap();
        assert_eq!(device.flush().await, Err(IoErrorKind::Medium.at(Sector::ZERO)));
    });
}

#[test]
fn a_flush_that_nobody_awaits_to_its_end_counts_as_failed() {
    Runtime::new().unwrap().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let (_, device) = open(&make(&directory, 1 << 20), &CACHED);
        let other = device.clone();
        let mut flush: bio::LocalFuture<'static, IoResult> =
            Box::pin(async move { other.flush().await });
        std::future::poll_fn(|context| {
            assert!(flush.as_mut().poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(flush);
        assert!(device.flush().await.is_err());
    });
}

#[test]
fn a_device_opened_for_reading_reads_and_refuses_the_rest() {
    on_both(|| async {
        let directory = tempfile::tempdir().unwrap();
        let path = make(&directory, 65536);
        let (_, device) = open(&path, &READ);
        assert!(device.limits().read_only && !device.limits().discard);
        device.read(Sector::ZERO, 128).await.unwrap();
        let error = device.write(Sector::ZERO, filled(4096, 1)).await.unwrap_err();
        assert_eq!(error.kind, IoErrorKind::ReadOnly);
        assert!(matches!(FileDevice::open(&path, &WRITE), Err(OpenError::Locked(_))));
        drop(device);
        FileDevice::open(&path, &WRITE).unwrap();
    });
}

/// Plays the process that may not write far.
#[test]
fn other_process_on_a_full_disk() {
    let Some(path) = std::env::var_os("STEADFAST_TEST_FULL") else { return };
    let limit = rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    on_both(move || {
        let path = PathBuf::from(&path);
        async move {
            for options in [WRITE, CACHED] {
                let (_, device) = open(&path, &options);
                let no_space = |sector| Err(IoErrorKind::NoSpace.at(Sector(sector)));
                assert_eq!(device.write(Sector(8), filled(8192, 1)).await, no_space(16));
                let mut fua = Bio::write_fua(Sector(16), filled(4096, 1));
                assert_eq!(device.submit(&mut fua).await, no_space(16));
                // Too little space is no reason to distrust what is there.
                device.write(Sector(8), filled(4096, 2)).await.unwrap();
                device.flush().await.unwrap();
            }
        }
    });
    println!("was full");
}

#[test]
fn a_full_disk_is_no_space_at_the_first_block_that_did_not_fit() {
    for directory in places() {
        let path = make(&directory, 65536);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "file::tests::other_process_on_a_full_disk", "--nocapture"])
            .env("STEADFAST_TEST_FULL", &path)
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("was full"), "{output:?}");
    }
}

#[test]
fn errors_of_the_system_become_kinds() {
    let kind = |errno| kind_of(&io::Error::from_raw_os_error(errno));
    assert_eq!(kind(libc_errno::ENOSPC), IoErrorKind::NoSpace);
    assert_eq!(kind(libc_errno::EIO), IoErrorKind::Medium);
    assert_eq!(kind(libc_errno::EILSEQ), IoErrorKind::Protection);
    assert_eq!(kind(libc_errno::ENODEV), IoErrorKind::Unavailable);
    assert_eq!(kind(libc_errno::ENXIO), IoErrorKind::Unavailable);
    assert_eq!(kind_of(&io::ErrorKind::UnexpectedEof.into()), IoErrorKind::Medium);
}

/// Linux's numbers.
mod libc_errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const ENXIO: i32 = 6;
    pub(super) const ENODEV: i32 = 19;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EILSEQ: i32 = 84;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn it_behaves_like_an_array_of_blocks(
        steps in prop::collection::vec((0u8..5, 0u64..200, 1u64..64, 1u8..255), 1..25),
        direct: bool,
        threads: bool,
    ) {
        let runtime = if threads { Runtime::with_threads("a test") } else { Runtime::new() };
        runtime.unwrap().block_on(async move {
            for directory in places() {
                let sectors = 256 * 8;
                let path = make(&directory, Sector(sectors).bytes());
                let (_, device) = open(&path, if direct { &WRITE } else { &CACHED });
                let mut model = vec![0_u8; usize_of(Sector(sectors).bytes())];
                for &(what, block, count, fill) in &steps {
                    let (sector, count) = (block * 8, (count * 8).min(sectors - block * 8));
                    let bytes = usize_of(Sector(sector).bytes());
                    let range = bytes..bytes + usize_of(Sector(count).bytes());
                    let data = filled(range.len(), fill);
                    let mut bio = match what {
                        0 => Bio::write(Sector(sector), data),
                        1 => Bio::write_fua(Sector(sector), data),
                        2 => Bio::discard(Sector(sector), count),
                        3 => Bio::write_zeroes(Sector(sector), count, false),
                        _ => Bio::read(Sector(sector), count),
                    };
                    device.submit(&mut bio).await.unwrap();
                    match what {
                        0 | 1 => model[range].fill(fill),
                        2 | 3 => model[range].fill(0),
                        _ => assert!(bio.data.to_single().as_slice() == &model[range]),
                    }
                }
                let read = device.read(Sector::ZERO, sectors).await.unwrap();
                assert!(read.as_slice() == model);
                device.flush().await.unwrap();
                assert!(std::fs::read(&path).unwrap() == model);
            }
        });
    }
}
