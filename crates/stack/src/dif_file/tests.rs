use super::*;
use dif::{
    Checks, Coding, Expected, Format, Guard, Place, Profile, Protection, ProtectionType, Tag,
};
use proptest::prelude::*;
use std::fs;
use std::future::Future;
use std::ops::ControlFlow::{Break, Continue};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

fn block_on<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    runtime::Runtime::new().unwrap().block_on(future)
}

fn image(layout: Layout, guard: Guard, block: usize, metadata: usize, place: Place) -> Image {
    let format = Format::new(guard, block).unwrap().with_metadata(metadata, place).unwrap();
    Image::new(layout, block, Profile { format, kind: ProtectionType::One }).unwrap()
}

/// Neither zeroes nor repeating.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn outputs<'a>(out: &'a Path, metadata: Option<&'a Path>) -> Outputs<'a> {
    Outputs { out, metadata, map: None, overwrite: false, dry_run: false }
}

fn request(source: &Source) -> Request {
    let protection = Protection::at(*source.image().profile(), 0);
    Request { protection, range: source.range(None).unwrap() }
}

fn run_on() -> impl FnMut(u64) -> ControlFlow<()> {
    |_| Continue(())
}

/// An image of `data` in `DIR/image` (and `DIR/metadata`), opened.
async fn made(files: &Files, data: &[u8], image: Image) -> Source {
    let plain = Source::open_data(&files.write("data", data), image).unwrap();
    let (out, metadata) = (files.path("image"), files.path("metadata"));
    let is_apart = image.layout() == Layout::Separate;
    let metadata = is_apart.then_some(metadata.as_path());
    insert(&plain, &request(&plain), &outputs(&out, metadata), &mut run_on()).await.unwrap();
    Source::open(&out, metadata, image).unwrap()
}

async fn bad_of(source: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut tell = |finding: &Finding| found.push(*finding);
    let done = verify(source, &request(source), &mut tell, &mut run_on()).await.unwrap();
    assert_eq!(done.tally.bad(), units::u64_of(found.len()));
    found
}

async fn stripped(files: &Files, source: &Source) -> (Vec<u8>, Tally) {
    let out = files.path("stripped");
    let outputs = Outputs { overwrite: true, ..outputs(&out, None) };
    let mut tell = |_: &Finding| {};
    let done = strip(source, &request(source), &outputs, &mut tell, &mut run_on()).await.unwrap();
    (fs::read(&out).unwrap(), done.tally)
}

/// Every layout with every guard, bare and with the owner's metadata on both sides.
fn images() -> impl Iterator<Item = Image> {
    Layout::ALL.into_iter().flat_map(|layout| {
        Guard::ALL.into_iter().flat_map(move |guard| {
            let block = if guard.bytes() == 2 { 512 } else { 4096 };
            let bare = if guard.bytes() == 2 { 8 } else { 16 };
            [(bare, Place::Last), (64, Place::First), (64, Place::Last)]
                .map(move |(metadata, place)| image(layout, guard, block, metadata, place))
        })
    })
}

#[test]
fn what_is_inserted_is_verified_and_stripped_in_every_layout() {
    for image in images() {
        block_on(async move {
            let files = Files::new();
            // More than a batch, and not a whole number of them.
            let data = noise(2_500_000 / image.block() * image.block());
            let source = made(&files, &data, image).await;
            assert_eq!(bad_of(&source).await.len(), 0, "{image:?}");
            assert!(stripped(&files, &source).await.0 == data, "{image:?}");
        });
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    // Section 2.7: 512 bytes 00..ff,00..ff at address 0x23456789.
    block_on(async {
        let files = Files::new();
        let data: Vec<u8> = (0..512).map(|at: u16| at.to_le_bytes()[0]).collect();
        let image = image(Layout::Interleaved, Guard::Crc16, 512, 8, Place::Last);
        let plain = Source::open_data(&files.write("data", &data), image).unwrap();
        let protection = Protection::at(*image.profile(), 0x1_2345_6789);
        let (asked, out) = (Request { protection, range: 0..1 }, files.path("out"));
        insert(&plain, &asked, &outputs(&out, None), &mut run_on()).await.unwrap();
        let tuple = [0x4f, 0x10, 0, 0, 0x23, 0x45, 0x67, 0x89];
        assert!(fs::read(&out).unwrap() == [&data[..], &tuple].concat());
    });
}

#[test]
fn each_bad_interval_is_named_with_its_bytes_and_is_a_hole_when_stripped() {
    for layout in Layout::ALL {
        block_on(async move {
            let files = Files::new();
            let image = image(layout, Guard::Crc16, 512, 8, Place::Last);
            let data = noise(5000 * 512);
            let source = made(&files, &data, image).await;
            let holder = if layout == Layout::Separate { "metadata" } else { "image" };
            let flip = |name: &str, byte: u64| {
                let file =
                    fs::File::options().read(true).write(true).open(files.path(name)).unwrap();
                let mut found = [0];
                file.read_exact_at(&mut found, byte).unwrap();
                file.write_all_at(&[found[0] ^ 0x10], byte).unwrap();
            };
            // The data of block 7, the guard of block 4000 and the reference tag of the last.
            flip("image", source.places(7).0 + 100);
            flip(holder, source.places(4000).1);
            flip(holder, source.places(4999).1 + 7);
            let found = bad_of(&source).await;
            let told: Vec<(u64, Tag, (u64, u64))> = found
                .iter()
                .map(|one| (one.block, one.mismatch.unwrap().tag, (one.data_byte, one.tuple_byte)))
                .collect();
            let expected = [(7, Tag::Guard), (4000, Tag::Guard), (4999, Tag::Reference)];
            let expected = expected.map(|(block, tag)| (block, tag, source.places(block)));
            assert_eq!(told, expected, "{layout}");
            assert_eq!(found[1].address, 4000);
            let (out, tally) = stripped(&files, &source).await;
            let mut left = data.clone();
            for block in [7, 4000, 4999] {
                left[block * 512..][..512].fill(0);
            }
            assert!(out == left, "{layout}");
            assert_eq!((tally.guard, tally.reference, tally.checked()), (2, 1, 5000));
        });
    }
}

#[test]
fn the_map_of_stripped_data_has_its_holes_but_for_what_was_never_written() {
    block_on(async {
        let files = Files::new();
        let image = image(Layout::NvmeQemu, Guard::Crc16, 512, 8, Place::Last);
        let source = made(&files, &noise(4000 * 512), image).await;
        let file = fs::File::options().write(true).open(files.path("image")).unwrap();
        for block in [12, 13, 3999] {
            file.write_all_at(&[0xa5; 512], source.places(block).0).unwrap();
        }
        // Nobody wrote this one.
        file.write_all_at(&[0; 512], source.places(20).0).unwrap();
        file.write_all_at(&[0; 8], source.places(20).1).unwrap();
        let asked = Request {
            protection: Protection::at(*image.profile(), 10),
            range: source.range(Some(10..4000)).unwrap(),
        };
        let (out, map) = (files.path("out"), files.path("map"));
        let to = Outputs { map: Some(&map), ..outputs(&out, None) };
        let done = strip(&source, &asked, &to, &mut |_| (), &mut run_on()).await.unwrap();
        assert_eq!((done.tally.guard, done.tally.unwritten), (3, 1));
        let text = fs::read_to_string(&map).unwrap();
        let blocks: Vec<&str> = text.lines().skip(4).collect();
        let bytes = units::u64_of(text.len());
        // Counted from the start of what is written.
        let expected = [
            "0x00000000  0x00000400  +",
            "0x00000400  0x00000400  -",
            "0x00000800  0x001F2200  +",
            "0x001F2A00  0x00000200  -",
        ];
        assert_eq!(blocks, expected);
        let written: Vec<_> = done.writes.iter().map(|write| (&*write.path, write.bytes)).collect();
        assert_eq!(written, [(&*out, Some(3990 * 512)), (&*map, Some(bytes))]);

        // Who is interrupted leaves neither.
        let [out, map] = [files.path("other"), files.path("other map")];
        let to = Outputs { map: Some(&map), ..outputs(&out, None) };
        strip(&source, &asked, &to, &mut |_| (), &mut |_| Break(())).await.unwrap();
        assert!(!out.exists() && !map.exists());
    });
}

#[test]
fn a_range_is_read_and_written_as_if_there_were_no_more() {
    block_on(async {
        let files = Files::new();
        let image = image(Layout::NvmeQemu, Guard::Crc16, 512, 8, Place::Last);
        let data = noise(100 * 512);
        let source = made(&files, &data, image).await;
        let protection = Protection::at(*image.profile(), 30);
        let asked = Request { protection, range: source.range(Some(30..60)).unwrap() };
        let (out, mut tell) = (files.path("part"), |_: &Finding| panic!("nothing is wrong"));
        strip(&source, &asked, &outputs(&out, None), &mut tell, &mut run_on()).await.unwrap();
        assert!(fs::read(&out).unwrap() == data[30 * 512..60 * 512]);
        let out = files.path("image of a part");
        generate(&source, &asked, &outputs(&out, None), &mut run_on()).await.unwrap();
        let part = Source::open(&out, None, image).unwrap();
        assert_eq!(part.blocks(), 30);
        let asked = Request { protection, range: 0..30 };
        let done = verify(&part, &asked, &mut tell, &mut run_on()).await.unwrap();
        assert_eq!(done.tally.checked(), 30);
        for wrong in [0..101, 100..101, 7..7] {
            assert!(matches!(source.range(Some(wrong)), Err(DifFileError::Range { .. })));
        }
    });
}

#[test]
fn a_guard_that_is_converted_and_back_is_what_it_was_and_bad_stays_bad() {
    for layout in Layout::ALL {
        for (from, to, metadata) in [
            (Guard::Crc16, Guard::Ip, 8),
            (Guard::Crc16, Guard::Crc64, 24),
            (Guard::Ip, Guard::Crc32c, 8),
        ] {
            block_on(async move {
                let files = Files::new();
                let old = image(layout, from, 4096, metadata, Place::Last);
                let source = made(&files, &noise(700 * 4096), old).await;
                let file = fs::File::options().write(true).open(files.path("image")).unwrap();
                file.write_all_at(b"damage", source.places(600).0).unwrap();
                let (out, mut bad) = (files.path("converted"), Vec::new());
                let mut tell = |one: &Finding| bad.push(one.block);
                let asked = request(&source);
                let outputs_of = outputs(&out, None);
                convert(&source, &asked, to, &outputs_of, &mut tell, &mut run_on()).await.unwrap();
                assert_eq!(bad, [600]);
                let added = if to.bytes() == 2 { 0 } else { 8 };
                let new = image(layout, to, 4096, metadata + added, Place::Last);
                let data = files.path("image");
                let converted = match layout {
                    Layout::Separate => Source::open(&data, Some(&out), new),
                    _ => Source::open(&out, None, new),
                };
                let bad: Vec<u64> =
                    bad_of(&converted.unwrap()).await.iter().map(|one| one.block).collect();
                assert_eq!(bad, [600], "{layout} {from} {to}");
            });
        }
    }
}

#[test]
fn references_are_counted_anew_and_back_and_what_counted_wrong_is_left_alone() {
    for layout in Layout::ALL {
        block_on(async move {
            let files = Files::new();
            let image = image(layout, Guard::Crc16, 512, 16, Place::First);
            let source = made(&files, &noise(3000 * 512), image).await;
            let holder = if layout == Layout::Separate { "metadata" } else { "image" };
            let file = fs::File::options().write(true).open(files.path(holder)).unwrap();
            file.write_all_at(&[0xab; 4], source.places(2500).1 + 4).unwrap();
            let before = fs::read(files.path(holder)).unwrap();
            let (there, back) = (files.path("there"), files.path("back"));
            let mut left = Vec::new();
            let mut tell = |one: &Finding| left.push(one.block);
            // Whatever is asked to be checked: a reference that is not checked cannot be counted anew.
            let asked = request(&source);
            let protection = asked.protection.with_checks(Checks::NONE);
            let asked = Request { protection, ..asked };
            let to = outputs(&there, None);
            remap(&source, &asked, 0xffff_fff0, &to, &mut tell, &mut run_on()).await.unwrap();
            let open = |path: &Path| match layout {
                Layout::Separate => Source::open(&files.path("image"), Some(path), image).unwrap(),
                _ => Source::open(path, None, image).unwrap(),
            };
            let moved = open(&there);
            let protection = Protection::at(*image.profile(), 0xffff_fff0);
            let asked = Request { protection, range: asked.range };
            let to = outputs(&back, None);
            remap(&moved, &asked, 0, &to, &mut tell, &mut run_on()).await.unwrap();
            assert_eq!(left, [2500, 2500], "{layout}");
            assert!(fs::read(&back).unwrap() == before, "{layout}");
        });
    }
}

#[test]
fn what_qemu_never_wrote_stays_unwritten_and_is_no_error() {
    block_on(async {
        let files = Files::new();
        let image = image(Layout::NvmeQemu, Guard::Crc16, 512, 8, Place::Last);
        let source = made(&files, &noise(50 * 512), image).await;
        let (mut data, mut tuples) = (fs::read(files.path("data")).unwrap(), Vec::new());
        tuples.extend_from_slice(&fs::read(files.path("image")).unwrap()[50 * 512..]);
        drop(source);
        data.resize(200 * 512, 0);
        tuples.resize(200 * 8, 0);
        // A rest that is no block.
        let bytes = [data.clone(), tuples, vec![7; 519]].concat();
        let source = Source::open(&files.write("image", &bytes), None, image).unwrap();
        assert_eq!(bad_of(&source).await.len(), 0);
        let (out, tally) = stripped(&files, &source).await;
        assert!(out == data);
        assert_eq!((tally.unwritten, tally.checked()), (150, 50));
        let (moved, mut tell) = (files.path("moved"), |_: &Finding| panic!("nothing is wrong"));
        let asked = request(&source);
        let to = outputs(&moved, None);
        remap(&source, &asked, 7, &to, &mut tell, &mut run_on()).await.unwrap();
        let ip = files.path("ip");
        let to = outputs(&ip, None);
        convert(&source, &asked, Guard::Ip, &to, &mut tell, &mut run_on()).await.unwrap();
        for path in [moved, ip] {
            let bytes = fs::read(path).unwrap();
            assert_eq!(bytes.len(), 200 * 520);
            assert!(bytes[200 * 512 + 50 * 8..].iter().all(|&byte| byte == 0));
        }
        // Whoever knows that all was written is told.
        let strict = Checks { escape: false, ..Checks::ALL };
        let asked = Request { protection: asked.protection.with_checks(strict), ..asked };
        let mut bad = 0;
        let done = verify(&source, &asked, &mut |_| bad += 1, &mut run_on()).await.unwrap();
        assert_eq!((bad, done.tally.unwritten), (150, 0));
    });
}

#[test]
fn an_escape_is_counted_copied_and_not_given_tags() {
    block_on(async {
        let files = Files::new();
        let image = image(Layout::Interleaved, Guard::Crc16, 512, 8, Place::Last);
        let source = made(&files, &noise(20 * 512), image).await;
        let file = fs::File::options().write(true).open(files.path("image")).unwrap();
        file.write_all_at(&[0xff; 8], source.places(5).1).unwrap();
        let (out, tally) = stripped(&files, &source).await;
        assert!(out == fs::read(files.path("data")).unwrap());
        assert_eq!((tally.escaped, tally.checked(), tally.bad()), (1, 19, 0));
        let (out, mut tell) = (files.path("tagged"), |_: &Finding| {});
        let (mut bytes, to) = (&b"owner"[..], outputs(&out, None));
        let from = (&mut bytes as &mut dyn std::io::Read, "bytes");
        let (asked, mut go_on) = (request(&source), run_on());
        let coding = Coding::Plain;
        let written = write_tags(&source, &asked, coding, from, &to, &mut tell, &mut go_on).await;
        assert!(matches!(written, Err(DifFileError::Unprotected { block: 5 })));
        assert!(!out.exists());
    });
}

#[test]
fn what_is_stopped_or_fails_leaves_nothing_behind_and_nothing_changed() {
    block_on(async {
        let files = Files::new();
        let image = image(Layout::Interleaved, Guard::Crc16, 512, 8, Place::Last);
        let source = made(&files, &noise(10_000 * 512), image).await;
        files.write("old", b"what was there");
        let before = files.names();
        let old = files.path("old");
        let replace = Outputs { overwrite: true, ..outputs(&old, None) };
        let mut seen = 0;
        let mut stop = |done: u64| {
            seen = done;
            if done > 0 { Break(()) } else { Continue(()) }
        };
        let asked = request(&source);
        let done = generate(&source, &asked, &replace, &mut stop).await.unwrap();
        assert_eq!((done.stopped_at, done.writes.len()), (Some(seen), 0));
        assert_eq!(files.names(), before);
        assert_eq!(fs::read(&old).unwrap(), b"what was there");
        let to = outputs(&old, None);
        let taken = generate(&source, &asked, &to, &mut run_on()).await;
        assert!(matches!(taken, Err(DifFileError::Exists { .. })));
        let itself = files.path("image");
        let to = Outputs { overwrite: true, ..outputs(&itself, None) };
        let taken = generate(&source, &asked, &to, &mut run_on()).await;
        assert!(matches!(taken, Err(DifFileError::Twice { .. })));
        let folder = files.folder.path().to_owned();
        let to = Outputs { overwrite: true, ..outputs(&folder, None) };
        let taken = generate(&source, &asked, &to, &mut run_on()).await;
        assert!(matches!(taken, Err(DifFileError::NotAFile { .. })));
        // Shorter than when it was opened.
        let file = fs::File::options().write(true).open(&itself).unwrap();
        file.set_len(9_000 * 520).unwrap();
        let failed = generate(&source, &asked, &replace, &mut run_on()).await;
        assert!(matches!(failed, Err(DifFileError::Io { .. })));
        assert_eq!(files.names(), before);
        assert_eq!(fs::read(&old).unwrap(), b"what was there");
    });
}

#[test]
fn a_file_that_ends_within_a_block_is_not_copied_as_if_it_were_whole() {
    block_on(async {
        let files = Files::new();
        let interleaved = image(Layout::Interleaved, Guard::Crc16, 512, 8, Place::Last);
        let source = made(&files, &noise(20 * 512), interleaved).await;
        assert!(source.ragged().is_none());
        let file = fs::File::options().write(true).open(files.path("image")).unwrap();
        drop(source);
        file.set_len(19 * 520 + 300).unwrap();
        let source = Source::open(&files.path("image"), None, interleaved).unwrap();
        assert_eq!(source.blocks(), 19);
        assert!(source.ragged().unwrap().to_string().contains("within block 19: 300 of 520 bytes"));
        assert!(matches!(source.range_to_copy(None), Err(DifFileError::Ragged { .. })));
        assert!(source.range_to_copy(Some(0..19)).is_ok());
        let apart = interleaved.with_layout(Layout::Separate);
        let (data, tuples) = (files.write("d", &[0; 512 * 3]), files.write("t", &[0; 16]));
        let source = Source::open(&data, Some(&tuples), apart).unwrap();
        assert_eq!(source.blocks(), 2);
        assert!(source.ragged().is_some());
        for empty in [&b""[..], &[0; 519]] {
            let path = files.write("empty", empty);
            let opened = Source::open(&path, None, interleaved);
            assert!(matches!(opened.err(), Some(DifFileError::Empty { .. })));
        }
    });
}

#[test]
fn tags_hold_what_was_put_into_them_and_runs_are_listed() {
    for coding in [Coding::Plain, Coding::Safe] {
        block_on(async move {
            let files = Files::new();
            let image = image(Layout::Interleaved, Guard::Crc16, 512, 8, Place::Last);
            let source = made(&files, &noise(5003 * 512), image).await;
            let bytes = noise(5003 * 15 / 8 - 9);
            let (out, to_file) = (files.path("tagged"), files.path("bytes"));
            let (mut from, to) = (&bytes[..], outputs(&out, None));
            let mut tell = |_: &Finding| panic!("nothing is wrong");
            let from = (&mut from as &mut dyn std::io::Read, "bytes");
            let asked = request(&source);
            write_tags(&source, &asked, coding, from, &to, &mut tell, &mut run_on()).await.unwrap();
            let tagged = Source::open(&out, None, image).unwrap();
            assert_eq!(bad_of(&tagged).await.len(), 0);
            let to = Outlet::File(outputs(&to_file, None));
            read_tags(&tagged, &asked.range, coding, to, &mut run_on()).await.unwrap();
            let read = fs::read(&to_file).unwrap();
            assert!(read.starts_with(&bytes) && read[bytes.len()..].iter().all(|&byte| byte == 0));
            let mut streamed = Vec::new();
            let to = Outlet::Stream(&mut streamed);
            read_tags(&tagged, &asked.range, coding, to, &mut run_on()).await.unwrap();
            assert!(streamed == read);
            let (mut from, to) = (&noise(5003 * 2 + 1)[..], files.path("more"));
            let from = (&mut from as &mut dyn std::io::Read, "bytes");
            let to = outputs(&to, None);
            let long =
                write_tags(&source, &asked, Coding::Safe, from, &to, &mut tell, &mut run_on())
                    .await;
            assert!(matches!(long, Err(DifFileError::TooLong { capacity: 9380, .. })), "{long:?}");
            let mut runs = Vec::new();
            let mut list = |run: &Run| runs.push((run.first, run.intervals, run.tag));
            list_tags(&source, &asked.range, &mut list, &mut run_on()).await.unwrap();
            assert_eq!(runs, [(0, 5003, 0)]);
        });
    }
}

#[test]
fn the_owners_metadata_is_kept_when_tuples_are_made_anew() {
    block_on(async {
        let files = Files::new();
        for layout in Layout::ALL {
            let image = image(layout, Guard::Crc64, 4096, 64, Place::Last);
            let unsigned = Files::new();
            let source = made(&unsigned, &noise(40 * 4096), image).await;
            let holder = if layout == Layout::Separate { "metadata" } else { "image" };
            let file = fs::File::options().write(true).open(unsigned.path(holder)).unwrap();
            file.write_all_at(b"owner's words", source.places(33).1).unwrap();
            assert_eq!(bad_of(&source).await.len(), 1, "the guard covers them");
            let out = files.path(layout.name());
            generate(&source, &request(&source), &outputs(&out, None), &mut run_on())
                .await
                .unwrap();
            let signed = match layout {
                Layout::Separate => Source::open(&unsigned.path("image"), Some(&out), image),
                _ => Source::open(&out, None, image),
            };
            assert_eq!(bad_of(&signed.unwrap()).await.len(), 0, "{layout}");
            let bytes = fs::read(&out).unwrap();
            assert!(bytes.windows(13).any(|window| window == b"owner's words"), "{layout}");
        }
    });
}

#[test]
fn an_image_is_recognised_as_what_it_is_and_noise_as_nothing() {
    for image in images().filter(|image| image.layout() != Layout::Separate) {
        // Noise fits whatever the owner's bytes are; an IP guard is not a CRC.
        let likes = block_on(async move {
            let files = Files::new();
            let source = made(&files, &noise(300 * image.block()), image).await;
            drop(source);
            recognise(&files.path("image")).unwrap()
        });
        let [like] = &likes[..] else { panic!("{image:?}: {likes:?}") };
        let format = &image.profile().format;
        assert_eq!(like.layout, image.layout().name());
        assert_eq!((like.block_size, like.metadata_size), (image.block(), image.metadata()));
        assert_eq!((like.guard, like.kind, like.refuted), (format.guard().name(), 1, 0));
        if image.metadata() > format.tuple_bytes() {
            assert_eq!(like.tuple == "first", format.place() == Place::First, "{image:?}");
        }
    }
    let files = Files::new();
    for bytes in [noise(1 << 20), vec![0; 1 << 20], Vec::new(), noise(1), vec![0xff; 1 << 20]] {
        let path = files.write("something", &bytes);
        assert_eq!(recognise(&path).unwrap(), []);
    }
}

#[test]
fn a_type_is_recognised_by_what_its_references_count() {
    for (kind, reference, expected) in [
        (ProtectionType::Two, 0xffff_fff0, (2, Some(0xffff_fff0))),
        (ProtectionType::Three, 0, (3, None)),
        (ProtectionType::One, 0, (1, None)),
    ] {
        let likes = block_on(async move {
            let files = Files::new();
            let format = Format::new(Guard::Crc16, 512).unwrap();
            let profile = Profile { format, kind };
            let image = Image::new(Layout::Interleaved, 512, profile).unwrap();
            let plain = Source::open_data(&files.write("data", &noise(90 * 512)), image).unwrap();
            let expected = Expected::at(reference);
            let protection = Protection::new(profile, expected, Checks::ALL).unwrap();
            let (asked, out) = (Request { protection, range: 0..90 }, files.path("image"));
            insert(&plain, &asked, &outputs(&out, None), &mut run_on()).await.unwrap();
            recognise(&out).unwrap()
        });
        assert_eq!((likes[0].kind, likes[0].ref_tag), expected);
        assert_eq!((likes[0].block_size, likes[0].metadata_size), (512, 8));
        // CRC-16 of bytes with their own guard behind them is 0, and zeroes leave it so: with tags of zeroes,
        // eight blocks of 520 bytes are as well one of 4096 + 64 with the tuple last.
        let others: Vec<usize> = likes[1..].iter().map(|like| like.metadata_size).collect();
        assert_eq!(others, if kind == ProtectionType::Three { vec![64] } else { vec![] });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn hostile_bytes_are_judged_and_never_panic(
        bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xff), any::<u8>()], 520..6000),
        layout in 0_usize..3,
        kind in 1_u8..4,
    ) {
        block_on(async move {
            let files = Files::new();
            let format = Format::new(Guard::Crc16, 512).unwrap();
            let kind = ProtectionType::from_number(kind).unwrap();
            let image = Image::new(Layout::ALL[layout], 512, Profile { format, kind }).unwrap();
            let (path, metadata) = (files.write("image", &bytes), files.write("metadata", &bytes));
            let source = Source::open(&path, Some(&metadata), image).unwrap();
            let found = bad_of(&source).await;
            let (data, tally) = stripped(&files, &source).await;
            assert_eq!(units::u64_of(data.len()), source.blocks() * 512);
            assert_eq!(tally.bad(), units::u64_of(found.len()));
            let mut runs = 0;
            let range = source.range(None).unwrap();
            let mut list = |run: &Run| runs += run.intervals;
            let done = list_tags(&source, &range, &mut list, &mut run_on()).await.unwrap();
            assert_eq!(done.tally.intervals, runs);
            recognise(&path).unwrap();
        });
    }
}
