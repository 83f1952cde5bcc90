//! The real Linux kernel as judge: builds the program and the cases, and runs them.

use crate::process::{self, Cargo};
use crate::words::Words;

/// `kernel [CASE... | --all | --list]`: the words are those of `tests/kernel`.
///
/// # Errors
/// If a case fails, or the machine cannot be started; the message says what is missing.
pub(crate) fn run(words: Words) -> anyhow::Result<()> {
    with(words.rest())
}

/// `bench kernel [--rounds N] [--seconds S] [--json]`: the kernel's own target and our server, timed
/// in the same machine.
///
/// # Errors
/// If the machine cannot be started; the message says what is missing.
pub(crate) fn speed(words: Words) -> anyhow::Result<()> {
    with([vec!["--speed".to_owned()], words.rest()].concat())
}

fn with(words: Vec<String>) -> anyhow::Result<()> {
    Cargo::new("build").args(["--release", "--package", "steadfast"]).run()?;
    let target = process::target_folder();
    let program = target.join("release/steadfast");
    let folder = target.join("kernel");
    Cargo::new("run")
        .args(["--package", "kernel", "--"])
        .args(["--program", &program.to_string_lossy(), "--folder", &folder.to_string_lossy()])
        .args(words)
        .run()
}
