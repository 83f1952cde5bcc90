//! The Debian packages that the tests need, and what each is for.
//!
//! What counts is that the program or header is there, however it came: a package that is
//! installed, in whatever version, is neither upgraded nor downgraded.

use crate::process;
use anyhow::{Context, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// One row of the table.
pub(crate) struct Package {
    name: &'static str,
    /// A program on the path, or an absolute file.
    proof: &'static str,
    purpose: &'static str,
}

impl Package {
    pub(crate) fn is_present(&self) -> bool {
        match self.proof.starts_with('/') {
            true => Path::new(self.proof).exists(),
            false => process::has_program(self.proof),
        }
    }
}

/// Installs what is missing when run as root on Debian.
///
/// # Errors
/// If something is missing and cannot be installed from here; the message names all of it.
pub(crate) fn run() -> anyhow::Result<()> {
    let missing: Vec<_> = PACKAGES.iter().filter(|package| !package.is_present()).collect();
    if missing.is_empty() {
        println!("all {} are installed", PACKAGES.len());
        return Ok(());
    }
    for Package { name, purpose, .. } in &missing {
        println!("missing: {name:<16} {purpose}");
    }
    let names: Vec<_> = missing.iter().map(|package| package.name).collect();
    if !is_root()? || !process::has_program("apt-get") {
        bail!("install them, as root: apt-get install --no-install-recommends {}", names.join(" "));
    }

    let _quiet = NoServices::begin()?;
    if install(&names).is_err() {
        // The usual reason on a fresh machine: nobody has fetched the list of packages yet.
        apt_get(&["update"])?;
        install(&names)?;
    }
    // Some packages of one source must have the same version: installing one may take another,
    // newer one away (qemu-system-x86 and qemu-utils from backports). Both versions do, so what
    // went is asked for again.
    let gone: Vec<_> = PACKAGES.iter().filter(|package| !package.is_present()).collect();
    if !gone.is_empty() {
        install(&gone.iter().map(|package| package.name).collect::<Vec<_>>())?;
    }
    match PACKAGES.iter().find(|package| !package.is_present()) {
        None => Ok(()),
        Some(Package { name, proof, .. }) => bail!("{name} is installed, but {proof} is not there"),
    }
}

fn install(names: &[&str]) -> anyhow::Result<()> {
    let options = ["install", "--yes", "--no-install-recommends", "--no-upgrade"];
    apt_get(&[&options, names].concat())
}

fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    println!("$ apt-get {}", arguments.join(" "));
    let status = Command::new("apt-get")
        .args(["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .status()
        .context("start apt-get")?;
    if !status.success() {
        bail!("apt-get {}: {status}", arguments.join(" "));
    }
    Ok(())
}

fn is_root() -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self").context("ask /proc/self who we are")?;
    Ok(own.uid() == 0)
}

/// While it lives, packages that are installed may not start services: Debian's own way to say
/// so is this script. One that was there before is left as it is.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let created =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match created {
            Ok(mut file) => {
                let guard = Self { ours: true };
                std::io::Write::write_all(&mut file, b"#!/bin/sh\nexit 101\n")
                    .with_context(|| format!("write {POLICY}"))?;
                Ok(guard)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(Self { ours: false })
            }
            Err(error) => Err(error).with_context(|| format!("create {POLICY}")),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("remove {POLICY} by hand: {error}");
        }
    }
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The peer of the parity benchmarks, and an oracle of guards.
pub(crate) const ISA_L: Package = Package {
    name: "libisal-dev",
    proof: "/usr/include/isa-l.h",
    purpose: "dif: Intel's CRCs as an oracle; bench: its parity beside ours",
};

const fn program(name: &'static str, proof: &'static str, purpose: &'static str) -> Package {
    Package { name, proof, purpose }
}

const PACKAGES: &[Package] = &[
    program("cryptsetup-bin", "integritysetup", "integritysetup dump must accept what we create"),
    program("e2fsprogs", "mkfs.ext4", "demo: a real file system to carry"),
    program("fio", "fio", "front: random writes that verify themselves; bench: load"),
    program("g++", "g++", "fuzz: libFuzzer is C++; dif: calls Intel's CRCs"),
    ISA_L,
    program("libnbd-bin", "nbdinfo", "front: nbdinfo and nbdcopy as clients"),
    program("mdadm", "mdadm", "mdadm --examine must accept what we create"),
    program("nbdkit", "nbdkit", "our client against another server; bench: the peer"),
    program("qemu-system-x86", "qemu-system-x86_64", "kernel: the machine that the kernel runs in"),
    program("qemu-utils", "qemu-io", "front: qemu-img and qemu-io as clients; bench: qemu-nbd"),
    program("xz-utils", "xz", "kernel: its package is compressed"),
    program("zstd", "zstd", "golden: the images are compressed; kernel: so may be its package"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_sorted_and_each_says_why() {
        assert!(PACKAGES.is_sorted_by_key(|package| package.name));
        assert!(PACKAGES.iter().all(|package| package.purpose.len() > 10));
    }
}
