//! What the tests of whole volumes share.
#![allow(dead_code, reason = "not every test file uses all of it")]

use runtime::Runtime;
use sha2::{Digest, Sha256};
use stack::create::{CreateLevel, CreateOptions, Created, create};
use stack::{Member, OpenOptions, Volume};
use std::path::{Path, PathBuf};
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
