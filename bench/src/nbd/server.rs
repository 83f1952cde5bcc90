//! The servers: ours over each stack, and the peers.

use super::load;
use crate::btrfs::Btrfs;
use crate::place::Place;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is served, and by whom.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Ours, from memory.
    Memory,
    /// Ours, one file as it is, past the page cache.
    Raw,
    /// Ours, one file with dm-integrity.
    Integrity,
    /// Ours, two files with dm-integrity under RAID 1.
    Raid1,
    /// Ours, six files with dm-integrity under RAID 6.
    Raid6,
    /// nbdkit's memory plugin.
    NbdkitMemory,
    /// nbdkit's file plugin.
    NbdkitFile,
    /// qemu-nbd past the page cache, with io_uring.
    QemuNbd,
    /// The same, a file on btrfs over two files in RAID 1.
    Btrfs,
}

impl Kind {
    /// As a row names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "our memory",
            Self::Raw => "our raw file",
            Self::Integrity => "our integrity",
            Self::Raid1 => "our RAID 1",
            Self::Raid6 => "our RAID 6",
            Self::NbdkitMemory => "nbdkit memory",
            Self::NbdkitFile => "nbdkit file",
            Self::QemuNbd => "qemu-nbd",
            Self::Btrfs => "qemu-nbd on btrfs",
        }
    }

    /// Makes what is to be served, and the command that serves it at `socket`; `below` is the file system
    /// that [`Kind::Btrfs`] lies on.
    fn prepare(
        self,
        place: &Place,
        socket: &str,
        below: Option<&Btrfs>,
    ) -> anyhow::Result<Command> {
        let raw = || place.raw_file(&format!("{self:?}.raw"));
        let size_mib = place.size_mib;
        let mut command;
        match self {
            Self::Memory => {
                command = place.steadfast();
                command.args(["serve", "--stack", &format!("memory:{size_mib}M")]);
            }
            Self::Raw => {
                command = place.steadfast();
                command.args(["serve", "--stack", &format!("file:{}", raw()?.display())]);
            }
            Self::Integrity => {
                let members = place.members(1, size_mib + size_mib / 32 + 80, "none")?;
                command = place.steadfast();
                command.arg("serve").args(members);
            }
            Self::Raid1 => {
                let members = place.members(2, size_mib + size_mib / 32 + 80, "1")?;
                command = place.steadfast();
                command.arg("serve").args(members);
            }
            Self::Raid6 => {
                let members = place.members(6, size_mib / 4 + size_mib / 32 + 80, "6")?;
                command = place.steadfast();
                command.arg("serve").args(members);
            }
            Self::NbdkitMemory => {
                command = Command::new("nbdkit");
                command.args(["-f", "-U", socket, "memory", &format!("{size_mib}M")]);
            }
            Self::NbdkitFile => {
                command = Command::new("nbdkit");
                command.args(["-f", "-U", socket, "file"]).arg(raw()?);
            }
            Self::QemuNbd | Self::Btrfs => {
                command = Command::new("qemu-nbd");
                command
                    .args(["--persistent", "--shared=16", "--format=raw"])
                    .args(["--cache=none", "--aio=io_uring", "--socket", socket])
                    .arg(below.map_or_else(raw, |btrfs| btrfs.file(place))?);
            }
        }
        if matches!(self, Self::Memory | Self::Raw | Self::Integrity | Self::Raid1 | Self::Raid6) {
            command.args(["--nbd", &format!("unix:{socket}")]);
        }
        Ok(command)
    }
}

/// A running server; it is stopped when this is dropped.
pub(super) struct Server {
    child: Child,
    socket: PathBuf,
    /// Size of its export.
    pub(super) bytes: u64,
    /// How long it took until a client was let in.
    pub(super) startup: Duration,
    /// Goes behind the server.
    below: Option<Btrfs>,
}

impl Server {
    /// Serves `kind`, filled with data. None: it is not installed.
    pub(super) fn start(kind: Kind, place: &Place) -> anyhow::Result<Option<Self>> {
        let socket = place.path(&format!("{kind:?}.socket"));
        let below = match kind {
            Kind::Btrfs => match Btrfs::mount(place)? {
                None => return Ok(None),
                mounted => mounted,
            },
            _ => None,
        };
        let command = kind.prepare(place, &socket.to_string_lossy(), below.as_ref())?;
        let Some(mut server) = Self::run(command, socket, place)? else { return Ok(None) };
        server.below = below;
        load::fill(&server, place)?;
        Ok(Some(server))
    }

    /// Runs `command` until it lets clients in at `socket`. None: there is no such program.
    pub(super) fn run(
        mut command: Command,
        socket: PathBuf,
        place: &Place,
    ) -> anyhow::Result<Option<Self>> {
        place.show(&command);
        let start = Instant::now();
        let output = File::create(socket.with_extension("log"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut server = Self { child, socket, bytes: 0, startup: Duration::ZERO, below: None };
        while UnixStream::connect(&server.socket).is_err() {
            if server.child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
                bail!("{command:?} serves nobody: {}", server.log());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        server.startup = start.elapsed();
        let mut info = Command::new("nbdinfo");
        let size = place.output(info.arg("--size").arg(server.uri()))?;
        server.bytes = size.trim().parse().context("nbdinfo tells a number")?;
        Ok(Some(server))
    }

    /// What clients are given.
    pub(super) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// What it has said.
    pub(super) fn log(&self) -> String {
        let log = fs::read_to_string(self.socket.with_extension("log"));
        log.unwrap_or_else(|error| error.to_string())
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The most memory that it ever had, in KiB.
    pub(super) fn peak_kib(&self) -> anyhow::Result<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB"));
        Ok(peak.context("the kernel tells it")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself, and then there is nobody to stop.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let _ = self.child.wait();
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
