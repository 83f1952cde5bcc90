//! What the tests of whole volumes share.
#![allow(dead_code, reason = "not every test file uses all of it")]

use runtime::Runtime;
use serde_json::Value;
use sha2::{Digest, Sha256};
use stack::create::{CreateLevel, CreateOptions, Created, create};
use stack::{Member, OpenOptions, Volume};
use std::path::{Path, PathBuf};
use std::process::Command;
use steadfast_stack as stack;

/// Runs `future` as the program would.
pub fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    Runtime::new().expect("a runtime").block_on(future)
}

/// Names for `count` members in `folder`.
pub fn paths(folder: &Path, count: usize) -> Vec<PathBuf> {
    (0..count).map(|n| folder.join(format!("m{n}.img"))).collect()
}

pub fn members(paths: &[PathBuf]) -> Vec<Member> {
    paths.iter().cloned().map(Member::Path).collect()
}

/// Options for a volume over new files of `bytes` bytes.
pub fn options(paths: &[PathBuf], level: CreateLevel, bytes: u64) -> CreateOptions {
    CreateOptions { member_bytes: Some(bytes), ..CreateOptions::new(members(paths), level) }
}

pub fn make(options: &CreateOptions) -> Created {
    let options = options.clone();
    run(async move { create(&options, &mut |_, _| ()).await.expect("it is made") })
}

/// Opens for reading and writing; does something; closes.
pub fn with_volume<T: 'static, F: Future<Output = T>>(
    options: OpenOptions,
    act: impl FnOnce(std::rc::Rc<Volume>) -> F + 'static,
) -> T {
    run(async move {
        let volume = stack::open(&options).await.unwrap_or_else(|error| panic!("{error}"));
        let volume = std::rc::Rc::new(volume);
        let result = act(std::rc::Rc::clone(&volume)).await;
        let volume = std::rc::Rc::into_inner(volume).expect("nobody else holds it");
        volume.close().await.expect("it closes");
        result
    })
}

pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole volume, read by an export; and how many bytes could not be read.
pub async fn read_all(volume: &Volume) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    let mut sink = stack::copy::StreamSink::new(&mut out, "memory");
    let go_on = |_: &stack::copy::CopyProgress| std::ops::ControlFlow::Continue(());
    let options = stack::copy::ExportOptions::default();
    let exported = stack::copy::export(&volume.device(), &mut sink, &options, go_on).await;
    let exported = exported.unwrap_or_else(|error| panic!("{error}"));
    (out, exported.map.bytes(stack::Status::Bad))
}

/// Writes `bytes` at `offset`, and flushes.
pub async fn write_at(volume: &Volume, offset: u64, bytes: &[u8]) {
    let options = stack::copy::ImportOptions { offset, ..Default::default() };
    let go_on = |_: &stack::copy::CopyProgress| std::ops::ControlFlow::Continue(());
    let mut source = bytes;
    stack::copy::import(&volume.device(), &mut source, "noise", &options, go_on)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Flips bits of one byte of a file.
pub fn flip(path: &Path, byte: u64, mask: u8) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut one = [0];
    file.read_exact_at(&mut one, byte).expect("the byte");
    one[0] ^= mask;
    file.write_all_at(&one, byte).expect("the byte");
}

/// What the manifest says about the images of the real kernel, in its order.
pub fn entries() -> Vec<Value> {
    let text = std::fs::read_to_string(golden().join("manifest.json")).expect("the manifest");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["entries"].as_array().expect("a list").clone()
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden")
}

/// The files of an entry, decompressed.
pub fn decompress(entry: &Value, target: &Path) -> Vec<PathBuf> {
    let files = entry["files"].as_array().expect("a list").iter();
    let paths = files.map(|file| {
        let name = file["file"].as_str().expect("a name");
        let path = target.join(name.trim_end_matches(".zst"));
        let source = golden().join(name);
        let done = Command::new("zstd").arg("-dqo").arg(&path).arg(&source).status();
        let done = done.expect("zstd runs; install the Debian package zstd");
        assert!(done.success(), "zstd decompresses {name}");
        path
    });
    paths.collect()
}

/// What the manifest's generator wrote, over zeroes.
pub fn generated(ranges: &str, bytes: u64) -> Vec<u8> {
    let mix = |index: u64, seed: u64| {
        let mut word = seed.wrapping_add((index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    };
    let mut content = vec![0; units::usize_of(bytes)];
    for range in ranges.split_whitespace() {
        let [kind, first, count] =
            range.split(':').collect::<Vec<_>>().try_into().expect("three parts");
        let [first, count] =
            [first, count].map(|text| text.parse::<u64>().expect("a number") * 4096);
        let (kind, seed) = kind.split_at(2);
        for at in (first..first + count).step_by(8) {
            let index = if kind == "sm" { at / 8 } else { at / 512 };
            let word = mix(index, seed.parse().expect("a number")).to_le_bytes();
            let at = units::usize_of(at);
            content[at..at + 8].copy_from_slice(&word);
        }
    }
    content
}
