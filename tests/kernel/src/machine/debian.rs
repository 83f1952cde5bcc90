//! The kernel and the guest's tools, by the names of their Debian packages.
//!
//! Packages are downloaded with apt and unpacked with dpkg below the target folder. Nothing is
//! installed, nobody has to be root, and what is there already is not asked for again.

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The unpacked package of a 6.12 kernel: the newest that apt offers, or the one that is there.
///
/// # Errors
/// If there is none and apt does not bring one; the message says what to do.
pub(crate) fn kernel(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut unpacked = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        unpacked.extend(release(&name).map(|release| (release, name)));
    }
    if let Some((_, name)) = unpacked.into_iter().max() {
        return Ok(folder.join(name));
    }
    let offered = apt("apt-cache", &["search", "--names-only", KERNEL_PATTERN], folder)?;
    let names = offered.lines().filter_map(|line| line.split_whitespace().next());
    let newest = names.filter_map(|name| Some((release(name)?, name))).max();
    let Some((_, name)) = newest else {
        bail!("apt knows no package {KERNEL_PATTERN}; as root: apt-get update");
    };
    unpack(folder, name, &[name.to_owned()])
}

/// The unpacked packages `tools`, with the libraries that they need.
///
/// # Errors
/// If apt does not bring them.
pub(crate) fn tools(folder: &Path, tools: &[&str]) -> anyhow::Result<PathBuf> {
    let name = format!("tools-{}", fingerprint(tools));
    let unpacked = folder.join(&name);
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let hard = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
    let hard: Vec<_> = hard.iter().map(|kind| format!("--no-{kind}")).collect();
    let mut arguments = vec!["depends", "--recurse"];
    arguments.extend(hard.iter().map(String::as_str));
    arguments.extend(tools);
    let closure = apt("apt-cache", &arguments, folder)?;
    // Names stand at the beginning of a line; virtual ones are in angle brackets. Of what tools
    // depend on, a machine without an administrator needs the libraries, and nothing in Perl.
    let library = |name: &str| name.starts_with("lib") || name == "zlib1g";
    let wanted = |name: &str| library(name) && !name.contains("perl");
    let mut names: Vec<String> = closure
        .lines()
        .filter(|line| tools.contains(line) || wanted(line))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    unpack(folder, &name, &names)
}

/// A word for a list: what was made from another one has another name.
pub(crate) fn fingerprint(list: &[&str]) -> String {
    let digest = Sha256::digest(list.join("\n"));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The version of a kernel package, for comparing.
fn release(package: &str) -> Option<[u32; 3]> {
    let rest = package.strip_prefix("linux-image-")?.strip_suffix("-amd64-unsigned")?;
    let (version, distribution) = rest.split_once("+deb")?;
    distribution.parse::<u32>().ok()?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    (numbers.next().is_none() && version[..2] == KERNEL_SERIES).then_some(version)
}

/// Downloads `packages` and unpacks them into `folder/name`, which is there whole or not at all.
fn unpack(folder: &Path, name: &str, packages: &[String]) -> anyhow::Result<PathBuf> {
    println!("fetching {name}: {} Debian packages", packages.len());
    let scratch = tempfile::tempdir_in(folder)?;
    let arguments: Vec<&str> =
        std::iter::once("download").chain(packages.iter().map(String::as_str)).collect();
    apt("apt-get", &arguments, scratch.path())?;
    let tree = scratch.path().join("tree");
    for entry in std::fs::read_dir(scratch.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let status = Command::new("dpkg").arg("-x").args([&path, &tree]).status();
            if !status.context("start dpkg")?.success() {
                bail!("dpkg -x {}", path.display());
            }
        }
    }
    let target = folder.join(name);
    std::fs::rename(&tree, &target).with_context(|| target.display().to_string())?;
    Ok(target)
}

/// What a program of apt prints.
fn apt(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        // Root downloads as itself: apt's own user may not write below the target folder.
        .args(["-q", "-o", "APT::Sandbox::User=root"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .with_context(|| {
            format!("start {program}: the kernel and its tools are Debian packages")
        })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{program} {}: {}\nas root, `apt-get update` may help",
            arguments.join(" "),
            reason.trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const KERNEL_PATTERN: &str = r"^linux-image-6\.12\.[0-9]+\+deb[0-9]+-amd64-unsigned$";
const KERNEL_SERIES: [u32; 2] = [6, 12];

/// The kernel's own tools for what we imitate, a shell, and a file system as a passenger.
pub(crate) const TOOLS: &[&str] = &[
    "busybox-static",
    "cryptsetup-bin",
    "dmsetup",
    "e2fsprogs",
    "mdadm",
    "nbd-client",
    "nvme-cli",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_greatest_number() {
        let old = release("linux-image-6.12.99+deb12-amd64-unsigned");
        let new = release("linux-image-6.12.117+deb12-amd64-unsigned");
        assert!(old < new && old.is_some());
    }

    #[test]
    fn other_packages_are_no_kernel_for_us() {
        for name in [
            "linux-image-6.1.0-9-amd64-unsigned",
            "linux-image-6.12.9+deb12-cloud-amd64-unsigned",
            "linux-image-6.13.1+deb12-amd64-unsigned",
            "tools",
        ] {
            assert_eq!(release(name), None, "{name}");
        }
    }
}
