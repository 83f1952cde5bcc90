//! Images of the real kernel, opened as volumes: they give the content that the kernel gave, and
//! looking at them in every way changes none of their bytes.

#![allow(clippy::unwrap_used, reason = "tests end with the first surprise")]

mod common;

use common::*;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::PathBuf;
use steadfast_stack as stack;
use steadfast_stack::{
    Algorithm, CipherKind, Given, IntegrityChoice, Key, Member, Mode, OpenOptions, Recalculate,
    Running,
};

struct Golden {
    entry: Value,
    paths: Vec<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Golden {
    fn name(&self) -> &str {
        self.entry["name"].as_str().unwrap()
    }

    /// What has to be said to open it: keys, and where the data lies.
    fn given(&self) -> Given {
        let mut given = Given::default();
        // The manifest's `/k.hmac` and `/k.jcrypt`.
        let key = |first: u8| Key::new((first..first + 32).collect::<Vec<u8>>()).unwrap();
        if self.name().starts_with("hmac-sha256") {
            given.integrity = IntegrityChoice::Named(Algorithm::HmacSha256.into(), Some(key(0)));
        }
        if self.name().starts_with("jcrypt-ctr") {
            given.journal.cipher = Some((CipherKind::CtrAes, key(0x40)));
        }
        if self.is_separate() {
            let [metadata, data] = &members(&self.paths)[..] else { panic!("two files") };
            given.data_devices = vec![(metadata.clone(), data.clone())];
        }
        given
    }

    fn is_separate(&self) -> bool {
        self.name().contains("-meta")
    }

    fn members(&self) -> Vec<Member> {
        let count = if self.is_separate() { 1 } else { self.paths.len() };
        members(&self.paths[..count])
    }

    fn read_only(&self) -> OpenOptions {
        OpenOptions { given: self.given(), ..OpenOptions::read_only(self.members()) }
    }

    fn expected(&self) -> &str {
        self.entry["expect_sha256"].as_str().unwrap()
    }

    fn hashes(&self) -> Vec<String> {
        self.paths.iter().map(|path| sha256(&std::fs::read(path).unwrap())).collect()
    }
}

/// Images of which not every tag is valid, each with tests of its own. Whatever else the manifest
/// lists gives its whole content.
const NOT_WHOLE: [&str; 4] =
    ["crc32c-512-nowipe", "crc32c-512-bitmap+unclean", "crc32c-512-nojournal+unclean", RECALC];
const RECALC: &str = "recalc-half-crc32c";

/// Decompressed into a folder of its own.
fn unpack(entry: Value) -> Golden {
    let target = tempfile::tempdir().unwrap();
    let paths = decompress(&entry, target.path());
    Golden { entry, paths, _folder: target }
}

/// The images of a family that give their whole content.
fn images(family: &str) -> Vec<Golden> {
    let is_whole = |entry: &Value| !NOT_WHOLE.contains(&entry["name"].as_str().unwrap());
    let found = entries().into_iter().filter(|entry| entry["family"] == family && is_whole(entry));
    let found: Vec<Golden> = found.map(unpack).collect();
    assert!(!found.is_empty(), "the images of {family} are there");
    found
}

/// One image by its name.
fn image(name: &str) -> Golden {
    unpack(entries().into_iter().find(|entry| entry["name"] == name).unwrap())
}

/// Inspects, opens, reads, explains and checks; gives the content.
fn look_in_every_way(golden: &Golden) -> Vec<u8> {
    let (named, given) = (golden.members(), golden.given());
    let inspection = run(async move { stack::inspect(&named, &given).await });
    for member in &inspection.members {
        assert_eq!(member.problem, None, "{}", golden.name());
        assert!(member.integrity.is_some() || member.md.is_some());
    }
    with_volume(golden.read_only(), |volume| async move {
        let (content, bad) = read_all(&volume).await;
        assert_eq!(bad, 0);
        for sector in [0, 1, 4096, volume.device().limits().sectors - 1] {
            stack::explain(&volume, units::Sector(sector)).await.unwrap();
        }
        let check = scrub::Options::new(bio::ScrubMode::Check);
        let summary = volume.scrub(&check, |_, _| ControlFlow::Continue(())).await;
        assert_eq!(summary.total(bio::Finding::Unreadable).sectors, 0, "{:?}", summary.lines);
        assert_eq!(summary.total(bio::Finding::Inconsistent).sectors, 0, "{:?}", summary.lines);
        let _status = volume.status();
        content
    })
}

fn give_the_kernels_content(family: &str) {
    for golden in images(family) {
        let before = golden.hashes();
        let content = look_in_every_way(&golden);
        assert_eq!(sha256(&content), golden.expected(), "{}", golden.name());
        assert_eq!(golden.hashes(), before, "{}: no byte was changed", golden.name());
    }
}

#[test]
fn dm_integrity_volumes_give_the_kernels_content() {
    give_the_kernels_content("dm-integrity");
}

#[test]
fn md_arrays_give_the_kernels_content() {
    give_the_kernels_content("md");
}

#[test]
fn md_arrays_with_a_write_journal_give_the_kernels_content() {
    give_the_kernels_content("md-journal");
}

#[test]
fn md_arrays_over_damaged_dm_integrity_give_the_kernels_content() {
    give_the_kernels_content("md-on-dm-integrity");
}

#[test]
fn opened_for_writing_and_closed_they_still_give_it_or_are_refused_by_name() {
    for family in ["dm-integrity", "md", "md-on-dm-integrity"] {
        for golden in images(family) {
            let options = OpenOptions { read_only: false, ..golden.read_only() };
            let refused = run(async move {
                match stack::open(&options).await {
                    Err(error) => Some(error.to_string()),
                    Ok(volume) => {
                        read_all(&volume).await;
                        volume.close().await.unwrap();
                        None
                    }
                }
            });
            let name = golden.name();
            assert_eq!(refused.as_deref(), None, "{name}");
            let content = look_in_every_way(&golden);
            assert_eq!(sha256(&content), golden.expected(), "{name}");
        }
    }
}

#[test]
fn a_volume_with_a_key_is_refused_without_it_and_names_what_was_tried() {
    let images = images("dm-integrity");
    let keyed = images.iter().find(|golden| golden.name() == "hmac-sha256-512").unwrap();
    let refused = |integrity| {
        let given = Given { integrity, ..Given::default() };
        let options = OpenOptions { given, ..keyed.read_only() };
        run(async move { stack::open(&options).await.err().unwrap().to_string() })
    };
    let text = refused(IntegrityChoice::Find);
    assert!(text.contains("any of sha256, blake2b-256, blake2s-256, crc32c, "), "{text}");
    assert!(text.contains("those with a key are tried only if named"), "{text}");
    let text = refused(IntegrityChoice::Named(Algorithm::HmacSha256.into(), None));
    assert!(text.contains("hmac-sha256 needs a key, and none was given"), "{text}");
    let other = Key::new([9; 32]).unwrap();
    let other = IntegrityChoice::Named(Algorithm::HmacSha256.into(), Some(other));
    let text = refused(other);
    assert!(text.contains("verifies with hmac-sha256: another key or algorithm"), "{text}");
}

/// Bytes of a volume.
type Bytes = std::ops::Range<u64>;

/// The ranges of a ddrescue map in the manifest that are marked with `sign`.
fn marked(map: &Value, sign: &str) -> Vec<Bytes> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let lines = map.as_array().unwrap().iter().filter_map(|line| {
        let [begin, length, found] =
            line.as_str()?.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let begin = number(begin);
        (found == sign).then(|| begin..begin + number(length))
    });
    lines.collect()
}

/// Content, and what of it could not be read.
async fn read_with_holes(volume: &stack::Volume) -> (Vec<u8>, Vec<Bytes>) {
    let mut out = Vec::new();
    let mut sink = stack::copy::StreamSink::new(&mut out, "memory");
    let go_on = |_: &stack::copy::CopyProgress| ControlFlow::Continue(());
    let options = stack::copy::ExportOptions::default();
    let exported = stack::copy::export(&volume.device(), &mut sink, &options, go_on).await;
    let bad = exported.unwrap().map.bad().map(|b| b.position..b.position + b.bytes).collect();
    (out, bad)
}

/// The same of an image that is not to be changed by it.
fn looked_at(golden: &Golden, running: Running) -> (Vec<u8>, Vec<Bytes>) {
    let before = golden.hashes();
    let given = Given { running, ..golden.given() };
    let options = OpenOptions { given, ..golden.read_only() };
    let found = with_volume(options, |volume| async move { read_with_holes(&volume).await });
    assert_eq!(golden.hashes(), before, "{}: no byte was changed", golden.name());
    found
}

/// What lies there, whatever its tags say: recovery mode.
fn raw(golden: &Golden) -> Vec<u8> {
    let running = Running { mode: Some(Mode::Recovery), unverified: true, ..Running::default() };
    let (content, bad) = looked_at(golden, running);
    assert_eq!(bad, [], "{}: recovery mode compares nothing", golden.name());
    content
}

fn opened_and_closed(golden: &Golden, running: Running) {
    let given = Given { running, ..golden.given() };
    let options = OpenOptions { given, read_only: false, ..golden.read_only() };
    with_volume(options, |volume| async move {
        volume.recalculated(|_, _| ControlFlow::Continue(())).await.unwrap();
    });
}

#[test]
fn a_volume_that_was_never_wiped_gives_what_was_written_and_nothing_else() {
    let golden = image("crc32c-512-nowipe");
    let (content, bad) = looked_at(&golden, Running::default());
    assert_eq!(bad, marked(&golden.entry["readable"], "-"));
    let expected =
        generated(golden.entry["ranges"].as_str().unwrap(), units::u64_of(content.len()));
    assert!(content == expected, "holes are given out as zeroes");
    opened_and_closed(&golden, Running::default());
    assert!(looked_at(&golden, Running::default()) == (content, bad), "and after writing");
}

#[test]
fn after_a_crash_without_a_journal_what_the_kernel_cannot_read_is_unreadable_until_it_is_written() {
    let golden = image("crc32c-512-nojournal+unclean");
    let (content, bad) = looked_at(&golden, Running::default());
    assert_eq!(bad, marked(&golden.entry["unreadable_map"], "-"));
    let newest = generated(golden.entry["ranges"].as_str().unwrap(), units::u64_of(content.len()));
    let is_bad = |at: u64| bad.iter().any(|range| range.contains(&at));
    let differs = (0..).step_by(512).zip(content.chunks(512).zip(newest.chunks(512)));
    assert!(differs.filter(|(_, (a, b))| a != b).all(|(at, _)| is_bad(at)));
    for mode in [Mode::Direct, Mode::Journal] {
        opened_and_closed(&golden, Running { mode: Some(mode), ..Running::default() });
        assert!(
            looked_at(&golden, Running::default()) == (content.clone(), bad.clone()),
            "{mode:?}"
        );
    }
    written_whole(&golden, bad, &newest);
}

#[test]
fn after_a_crash_in_bitmap_mode_nothing_that_was_dirty_is_blessed_in_any_mode() {
    for mode in [Mode::Journal, Mode::Direct, Mode::Bitmap] {
        let golden = image("crc32c-512-bitmap+unclean");
        let (content, bad) = looked_at(&golden, Running::default());
        assert_ne!(bad, [], "blocks were being written");
        let newest = raw(&golden);
        assert_eq!(sha256(&newest), golden.expected(), "as the kernel read it, blessed");
        opened_and_closed(&golden, Running { mode: Some(mode), ..Running::default() });
        let found = looked_at(&golden, Running::default());
        assert!(found == (content, bad.clone()), "{mode:?}: {:?}", found.1);
        // What is suspect is kept in mind by the mode that can.
        let flags = std::fs::read(&golden.paths[0]).unwrap()[24];
        assert_eq!(flags & 0x04 != 0, mode == Mode::Bitmap, "{mode:?}");
        written_whole(&golden, bad, &newest);
    }
}

#[test]
fn a_flipped_bit_that_says_bitmap_does_not_lose_what_the_journal_holds() {
    let golden = image("crc32c-512-j1m+unreplayed");
    flip(&golden.paths[0], 24, 0x04);
    let options = golden.read_only();
    let content = with_volume(options, |volume| async move { read_with_holes(&volume).await.0 });
    assert_eq!(sha256(&content), golden.expected());
    opened_and_closed(&golden, Running::default());
    assert_eq!(sha256(&look_in_every_way(&golden)), golden.expected());
}

#[test]
fn where_no_tag_fits_recovery_opens_and_so_does_computing_all_anew_with_an_algorithm_that_is_named()
{
    let golden = image("crc32c-512");
    // Two bits of the salt: what it was cannot be found out by trying.
    flip(&golden.paths[0], 48, 0x10);
    flip(&golden.paths[0], 60, 0x10);
    let recovery = Running { mode: Some(Mode::Recovery), unverified: true, ..Running::default() };
    let reset = Running { recalculate: Recalculate::Reset, ..Running::default() };
    let options = |integrity, running, read_only| OpenOptions {
        given: Given { integrity, running, ..golden.given() },
        read_only,
        ..golden.read_only()
    };
    let named = || IntegrityChoice::Named(Algorithm::Crc32c.into(), None);
    for (integrity, running) in [
        (named(), Running::default()),
        (IntegrityChoice::Find, Running::default()),
        (IntegrityChoice::Find, reset.clone()),
    ] {
        let options = options(integrity, running, false);
        let refused = run(async move { stack::open(&options).await.err().unwrap().to_string() });
        assert!(refused.contains("sampled verifies"), "{refused}");
    }
    let read =
        |options| with_volume(options, |volume| async move { read_with_holes(&volume).await });
    let (content, bad) = read(options(named(), recovery, true));
    assert_eq!((sha256(&content).as_str(), bad), (golden.expected(), vec![]));
    with_volume(options(named(), reset, false), |volume| async move {
        volume.recalculated(|_, _| ControlFlow::Continue(())).await.unwrap();
    });
    assert_eq!(sha256(&look_in_every_way(&golden)), golden.expected());
}

/// Writing the blocks that could not be read makes the volume whole.
fn written_whole(golden: &Golden, bad: Vec<Bytes>, newest: &[u8]) {
    let options = OpenOptions { read_only: false, ..golden.read_only() };
    let pieces: Vec<(u64, Vec<u8>)> = bad
        .into_iter()
        .map(|range| {
            let bytes = units::usize_of(range.start)..units::usize_of(range.end);
            (range.start, newest[bytes].to_vec())
        })
        .collect();
    with_volume(options, |volume| async move {
        for (offset, bytes) in pieces {
            write_at(&volume, offset, &bytes).await;
        }
    });
    let content = look_in_every_way(golden);
    assert!(content == newest, "{}", golden.name());
}

#[test]
fn what_the_kernel_had_not_recalculated_is_given_out_only_when_asked_and_finished_here() {
    let golden = image(RECALC);
    let position = 98_304 * 512;
    let (content, bad) = looked_at(&golden, Running::default());
    let beyond = position..units::u64_of(content.len());
    assert_eq!(bad, std::slice::from_ref(&beyond));
    let running = Running { unverified: true, ..Running::default() };
    let (content, bad) = looked_at(&golden, running);
    assert_eq!((sha256(&content).as_str(), bad), (golden.expected(), vec![]));
    // Not asked to go on, it does not.
    opened_and_closed(&golden, Running::default());
    assert_eq!(looked_at(&golden, Running::default()).1, std::slice::from_ref(&beyond));
    let running = Running { recalculate: Recalculate::Continue, ..Running::default() };
    opened_and_closed(&golden, running);
    assert!(look_in_every_way(&golden) == content);
}
