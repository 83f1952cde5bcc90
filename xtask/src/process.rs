//! Other programs, run from the root of the checkout with bounded parallelism.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Cargo with one of its commands, printed before it runs so that it can be repeated by hand.
pub(crate) struct Cargo {
    command: Command,
    shown: String,
}

impl Cargo {
    pub(crate) fn new(verb: &str) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(root()).arg(verb);
        for (name, limit) in [("CARGO_BUILD_JOBS", JOBS_MAX), ("RUST_TEST_THREADS", TESTS_MAX)] {
            if std::env::var_os(name).is_none() {
                command.env(name, limit.min(processors()).to_string());
            }
        }
        Self { command, shown: format!("cargo {verb}") }
    }

    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for arg in args {
            self.command.arg(arg.as_ref());
            self.shown.push(' ');
            self.shown.push_str(arg.as_ref());
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        let value = value.as_ref();
        self.shown = format!("{name}='{}' {}", value.to_string_lossy(), self.shown);
        self.command.env(name, value);
        self
    }

    /// # Errors
    /// If it cannot be started or does not end well.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        println!("$ {}", self.shown);
        let status = self.command.status().with_context(|| format!("start {}", self.shown))?;
        if !status.success() {
            bail!("`{}`: {status}", self.shown);
        }
        Ok(())
    }

    /// What it prints.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) fn output(mut self) -> anyhow::Result<Vec<u8>> {
        let output = self.command.output().with_context(|| format!("start {}", self.shown))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            bail!("`{}`: {}: {}", self.shown, output.status, reason.trim_end());
        }
        Ok(output.stdout)
    }
}

/// Whether a program of that name is on the path, or where only root has it on the path.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.into_iter().any(|folder| folder.join(name).is_file())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Eight compilers of an optimised crate, and eight tests with a volume each, fit in 24 GB.
const JOBS_MAX: usize = 8;
const TESTS_MAX: usize = 8;
