//! btrfs in RAID 1 over two files, with checksums, as people use it who want what we give: the peer of arrays
//! on files. It takes root, loop devices and btrfs in this kernel.

use crate::place::Place;
use crate::row::note;
use anyhow::{Context, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system; it goes when this is dropped.
pub(crate) struct Btrfs {
    mounted: PathBuf,
    loops: Vec<PathBuf>,
}

impl Btrfs {
    /// Two files in `place`, with room for one file of the measured size. None: not on this machine.
    ///
    /// # Errors
    /// If it can be had, and is not.
    pub(crate) fn mount(place: &Place) -> anyhow::Result<Option<Self>> {
        if let Some(why) = missing()? {
            note(&format!("btrfs: {why}"));
            return Ok(None);
        }
        let bytes = place.bytes() + place.bytes() / 4 + (256 << 20);
        let mut btrfs = Self { mounted: place.path("btrfs"), loops: Vec::new() };
        for number in 0..2 {
            let file = place.path(&format!("btrfs-{number}.img"));
            File::create(&file)?.set_len(bytes)?;
            btrfs.loops.push(attach(place, &file)?);
        }
        let mut mkfs = Command::new("mkfs.btrfs");
        mkfs.args(["--quiet", "--data", "raid1", "--metadata", "raid1", "--csum", "crc32c"]);
        place.output(mkfs.args(&btrfs.loops))?;
        std::fs::create_dir(&btrfs.mounted)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "btrfs", "-o", "noatime"]).arg(&btrfs.loops[0]).arg(&btrfs.mounted);
        place.output(&mut mount)?;
        Ok(Some(btrfs))
    }

    /// A file of the measured size in it, every block of it written.
    ///
    /// # Errors
    /// If there is no room.
    pub(crate) fn file(&self, place: &Place) -> anyhow::Result<PathBuf> {
        let file = self.mounted.join("data");
        place.write_noise(&file)?;
        Ok(file)
    }

    /// Reads and checks both copies of everything; the bytes of data that were.
    ///
    /// # Errors
    /// If it finds errors, or does not say what it read.
    pub(crate) fn scrub(&self, place: &Place) -> anyhow::Result<u64> {
        let mut scrub = Command::new("btrfs");
        let said = place.output(scrub.args(["scrub", "start", "-B", "-R"]).arg(&self.mounted))?;
        let number = |name: &str| -> anyhow::Result<u64> {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
            let text = line.with_context(|| format!("no {name} in: {said}"))?;
            Ok(text.trim_start_matches(':').trim().parse()?)
        };
        if number("csum_errors")? != 0 {
            bail!("{said}");
        }
        number("data_bytes_scrubbed")
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        // What was never mounted or attached cannot be taken away, and nobody is told at an end.
        let _ = Command::new("umount").arg(&self.mounted).output();
        for device in &self.loops {
            let _ = Command::new("losetup").arg("--detach").arg(device).output();
        }
    }
}

/// Why there is none here.
fn missing() -> anyhow::Result<Option<&'static str>> {
    let known = std::fs::read_to_string("/proc/filesystems")?;
    if !known.lines().any(|line| line.trim() == "btrfs") {
        return Ok(Some("this kernel has none (modprobe btrfs)"));
    }
    if !rustix::process::geteuid().is_root() {
        return Ok(Some("mounting takes root"));
    }
    if Command::new("mkfs.btrfs").arg("--version").output().is_err() {
        return Ok(Some("mkfs.btrfs is not installed (btrfs-progs)"));
    }
    Ok(None)
}

/// A loop device on `file`, past the page cache where the file system below can.
fn attach(place: &Place, file: &Path) -> anyhow::Result<PathBuf> {
    let attach = |options: &[&str]| {
        let mut losetup = Command::new("losetup");
        place.output(
            losetup.args(["--find", "--show", "--sector-size", "4096"]).args(options).arg(file),
        )
    };
    let device = attach(&["--direct-io=on"]).or_else(|_| attach(&[]))?;
    Ok(PathBuf::from(device.trim()))
}
