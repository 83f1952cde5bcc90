use super::*;
use crate::mapfile::Status;
use crate::test_device::{TestDevice, noise};
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use units::BlockSize;

const GO_ON: fn(&CopyProgress) -> ControlFlow<()> = |_| ControlFlow::Continue(());

fn run_export(disk: &TestDevice, options: ExportOptions) -> Result<(Vec<u8>, Exported), CopyError> {
    let disk = disk.clone();
    runtime::block_on(async move {
        let mut out = Vec::new();
        let mut sink = StreamSink::new(&mut out, "stdout");
        let exported = export(&disk.device(), &mut sink, &options, GO_ON).await?;
        Ok((out, exported))
    })
}

fn run_import(
    disk: &TestDevice,
    bytes: &[u8],
    options: ImportOptions,
) -> Result<Imported, CopyError> {
    let (disk, bytes) = (disk.clone(), bytes.to_vec());
    runtime::block_on(async move {
        import(&disk.device(), &mut bytes.as_slice(), "source", &options, GO_ON).await
    })
}

#[test]
fn what_cannot_be_read_is_a_hole_and_a_line_of_the_map() {
    let content = noise(4 << 20, 1);
    let disk = TestDevice::of(content.clone(), BlockSize::B4096);
    // A block inside a chunk, two neighbours across a chunk boundary, and the very last one.
    for sector in [8 * 3 + 1, 2047, 2048, 8191] {
        disk.make_bad(sector);
    }
    let (out, exported) = run_export(&disk, ExportOptions::default()).unwrap();
    let bad: Vec<_> = exported.map.bad().map(|block| (block.position, block.bytes)).collect();
    let last = (4 << 20) - 4096;
    assert_eq!(bad, [(3 * 4096, 4096), ((1 << 20) - 4096, 8192), (last, 4096)]);
    let mut expected = content;
    for (position, bytes) in bad {
        expected[units::usize_of(position)..units::usize_of(position + bytes)].fill(0);
    }
    assert!(out == expected);
    assert!(!exported.stopped);
}

#[test]
fn a_long_stretch_that_cannot_be_read_costs_little_more_than_its_length() {
    let sectors = 8 << 11;
    let disk = TestDevice::of(noise(8 << 20, 4), BlockSize::B512);
    (1000..sectors - 1000).for_each(|sector| disk.make_bad(sector));
    let (_, exported) = run_export(&disk, ExportOptions::default()).unwrap();
    let bad: Vec<_> = exported.map.bad().map(|block| (block.position, block.bytes)).collect();
    assert_eq!(bad, [(1000 * 512, (sectors - 2000) * 512)]);
    assert!(disk.sectors_asked() < 3 * sectors, "{} sectors", disk.sectors_asked());
}

#[test]
fn a_range_outside_is_refused() {
    let disk = TestDevice::new(16, BlockSize::B512);
    let options = ExportOptions { offset: 8000, length: Some(500) };
    let error = run_export(&disk, options).unwrap_err();
    assert_eq!(error.to_string(), "bytes 8000 to 8500 were asked for, the volume has 8192");
    let options = ExportOptions { offset: u64::MAX, length: Some(u64::MAX) };
    assert!(matches!(run_export(&disk, options), Err(CopyError::Range { .. })));
}

#[test]
fn a_stopped_export_says_what_was_not_tried() {
    let disk = TestDevice::of(noise(32 << 20, 3), BlockSize::B4096);
    let exported = runtime::block_on(async move {
        let mut sink = StreamSink::new(std::io::sink(), "nowhere");
        let stop = |_: &CopyProgress| ControlFlow::Break(());
        export(&disk.device(), &mut sink, &ExportOptions::default(), stop).await.unwrap()
    });
    assert!(exported.stopped);
    assert_eq!(exported.map.bytes(Status::NonTried), 31 << 20);
}

#[test]
fn a_file_gets_holes_and_is_not_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.img");
    let mut content = vec![0; 4 << 20];
    content[..4096].copy_from_slice(&noise(4096, 5));
    let disk = TestDevice::of(content.clone(), BlockSize::B4096);
    let write = |path: &Path, overwrite| {
        let (disk, path) = (disk.clone(), path.to_owned());
        runtime::block_on(async move {
            let mut sink = FileSink::create(&path, overwrite, &[])?;
            export(&disk.device(), &mut sink, &ExportOptions::default(), GO_ON).await
        })
    };
    write(&path, false).unwrap();
    assert!(std::fs::read(&path).unwrap() == content);
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20, "zeroes take no space");

    let error = write(&path, false).unwrap_err();
    assert_eq!(error.verdict(), Verdict::Refused);
    assert!(error.to_string().ends_with("copy.img: exists already"), "{error}");
    write(&path, true).unwrap();

    let metadata = std::fs::metadata(&path).unwrap();
    let member = [(metadata.dev(), metadata.ino())];
    let refused = FileSink::create(&path, true, &member);
    assert!(matches!(refused, Err(CopyError::IsMember { .. })), "not even when told to overwrite");
    let refused = FileSink::create(folder.path(), true, &[]);
    assert!(matches!(refused, Err(CopyError::NotAFile { .. })));
}

#[test]
fn a_source_that_does_not_fit_is_refused_before_anything_is_written() {
    let disk = TestDevice::new(2048, BlockSize::B512);
    let bytes = noise((1 << 20) + 1, 7);
    let known = ImportOptions { source_bytes: Some((1 << 20) + 1), ..Default::default() };
    assert!(matches!(run_import(&disk, &bytes, known), Err(CopyError::TooLarge { .. })));
    assert_eq!(disk.writes(), 0);
    let unknown = run_import(&disk, &bytes, ImportOptions::default());
    assert!(matches!(unknown, Err(CopyError::TooLarge { .. })), "{unknown:?}");
}

#[test]
fn no_space_is_an_error_with_its_place() {
    let disk = TestDevice::new(1 << 16, BlockSize::B4096);
    disk.make_full_from(3 << 11);
    let error = run_import(&disk, &noise(20 << 20, 9), ImportOptions::default()).unwrap_err();
    let CopyError::Volume { error: cause, byte, done } = &error else { panic!("{error}") };
    assert_eq!((cause.kind, *byte, *done), (bio::IoErrorKind::NoSpace, 3 << 20, 3 << 20));
    assert_eq!(error.verdict(), Verdict::Failed);
}

#[test]
fn a_partial_block_whose_rest_cannot_be_read_is_not_guessed() {
    let disk = TestDevice::new(64, BlockSize::B4096);
    disk.make_bad(9);
    let options = ImportOptions { offset: 4096 + 100, ..Default::default() };
    let error = run_import(&disk, &[1; 10], options).unwrap_err();
    assert!(matches!(error, CopyError::Volume { byte: 4608, .. }), "{error:?}");
    assert_eq!(disk.writes(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_was_copied_in_is_copied_out(
        offset in 0u64..3_000_000,
        length in 0usize..3_000_000,
        log2 in 0u8..4,
        seed in any::<u64>(),
    ) {
        let block = BlockSize::from_log2_sectors(log2).unwrap();
        let before = noise(8 << 20, seed);
        let disk = TestDevice::of(before.clone(), block);
        let mut bytes = noise(length, seed ^ 1);
        if length > 2_000_000 {
            bytes[500_000..1_900_000].fill(0);
        }
        let imported =
            run_import(&disk, &bytes, ImportOptions { offset, ..Default::default() }).unwrap();
        prop_assert_eq!(imported.bytes, units::u64_of(length));
        let mut expected = before;
        let start = units::usize_of(offset);
        expected[start..start + length].copy_from_slice(&bytes);
        prop_assert!(disk.bytes() == expected);
        let options = ExportOptions { offset, length: Some(units::u64_of(length)) };
        let (out, _) = run_export(&disk, options).unwrap();
        prop_assert!(out == bytes);
    }
}
