//! Every seed and every input that ever failed, through its target; and a little noise on each.

use fuzz_targets::{TARGETS, Target};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn fuzz_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("targets/ is a folder of fuzz/")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

fn inputs(target: &Target) -> Vec<PathBuf> {
    let folder = |kind: &str| fuzz_folder().join(kind).join(target.name);
    [files(&folder("corpus")), files(&folder("artifacts"))].concat()
}

fn run(target: &Target, input: &[u8], what: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    assert!(outcome.is_ok(), "target {} fails on {what}", target.name);
}

#[test]
fn nothing_in_the_corpus_breaks_its_target() {
    for target in TARGETS {
        for path in inputs(target) {
            run(target, &std::fs::read(&path).unwrap(), &path.display().to_string());
        }
    }
}

#[test]
fn a_little_noise_breaks_no_target() {
    for target in TARGETS {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random >> 8).unwrap() % below.max(1)
        };
        let files = inputs(target);
        let seeds: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
        for (round, (path, seed)) in files.iter().zip(&seeds).cycle().take(NOISY).enumerate() {
            let mut input = seed.clone();
            for _ in 0..=next(4) {
                match next(4) {
                    0 => input.truncate(next(input.len() + 1)),
                    1 => input.push(next(256).to_le_bytes()[0]),
                    _ if input.is_empty() => {}
                    _ => {
                        let place = next(input.len());
                        input[place] ^= 1 << next(8);
                    }
                }
            }
            let what = format!("{}, round {round}: {input:02x?}", path.display());
            run(target, &input, &what);
        }
    }
}

#[test]
fn every_target_has_a_binary_and_seeds() {
    let binaries: BTreeSet<String> = files(&fuzz_folder().join("fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(binaries, targets);
    for target in TARGETS {
        assert!(!files(&fuzz_folder().join("corpus").join(target.name)).is_empty());
    }
}

/// Noisy copies of seeds, for each target.
const NOISY: usize = 200;
