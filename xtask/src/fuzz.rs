//! Fuzzing: cargo-fuzz on the toolchain that builds everything else.
//!
//! libFuzzer writes what it learns into the first corpus folder it is given. That is a scratch
//! one below the target folder; the committed seeds in `fuzz/corpus` are only read. An input that
//! fails lands in `fuzz/artifacts/TARGET`: replay it with `cargo test -p fuzz-targets`, fix the
//! bug, and keep the input as a seed.

use crate::process::{self, Cargo, root};
use crate::words::Words;
use anyhow::{Context, bail};

/// `fuzz [TARGET] [--seconds S]`: the time is shared by all targets that run.
///
/// # Errors
/// If a target fails, or does not exist.
pub(crate) fn run(mut words: Words) -> anyhow::Result<()> {
    let seconds = match words.option("--seconds")? {
        Some(text) => text.parse().context("--seconds")?,
        None => SECONDS,
    };
    let all = targets()?;
    let chosen = match words.next() {
        None => all,
        Some(name) if all.contains(&name) => vec![name],
        Some(name) => bail!("no target '{name}'; there are: {}", all.join(" ")),
    };
    words.end()?;

    install()?;
    if chosen.len() > 1 {
        // All at once: the linker of one target does not wait for another's run.
        sanitized("build").run()?;
    }
    let each = (seconds / u64::try_from(chosen.len())?).max(1);
    for target in &chosen {
        fuzz(target, each)?;
    }
    Ok(())
}

/// Every target: the binaries of the fuzz project.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(stem) = path.file_stem()
        {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn install() -> anyhow::Result<()> {
    if process::has_program("cargo-fuzz") {
        return Ok(());
    }
    Cargo::new("install").args(["cargo-fuzz", "--locked", "--version", CARGO_FUZZ_VERSION]).run()
}

/// A word of cargo-fuzz.
fn sanitized(word: &str) -> Cargo {
    // The sanitizers' flags are not stable; they have worked unchanged for years.
    Cargo::new("fuzz").args([word]).env("RUSTC_BOOTSTRAP", "1")
}

fn fuzz(target: &str, seconds: u64) -> anyhow::Result<()> {
    let learned = process::target_folder().join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&learned).with_context(|| learned.display().to_string())?;
    let seeds = root().join("fuzz/corpus").join(target);
    sanitized("run")
        .args([target])
        .args([learned.to_string_lossy(), seeds.to_string_lossy()])
        .args(["--", &format!("-max_total_time={seconds}"), "-timeout=10", "-rss_limit_mb=2048"])
        .args(["-verbosity=0", "-print_final_stats=1"])
        .run()
        .with_context(|| format!("target {target}"))
}

const CARGO_FUZZ_VERSION: &str = "0.13.2";
const SECONDS: u64 = 60;
