//! A running machine: scripts go in, what they print comes out, the power may be cut at a line.
//!
//! Each test attaches the images it needs as disks and takes them out again, so one boot serves
//! many tests. Two sockets are handed down to qemu: one is the guest's second serial line, the
//! other qemu's monitor. The first serial line is the kernel's console and goes to a file.

use super::boot::Boot;
use super::memory::Memory;
use super::monitor::Monitor;
use anyhow::{Context, bail, ensure};
use serde_json::json;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The machine; it is off when this is dropped.
pub(crate) struct Guest {
    qemu: Child,
    line: BufReader<UnixStream>,
    monitor: Monitor,
    console: PathBuf,
    /// Disks of the running test, in logical units from zero.
    attached: usize,
    /// A debugger may connect.
    debugged: bool,
}

/// What the machine's NVMe controller holds. Namespaces stay in: qemu takes them only at its start.
pub(crate) struct Namespace {
    pub(crate) image: PathBuf,
    /// Its format, as options of qemu's `nvme-ns`.
    pub(crate) options: String,
}

/// How a script ended.
enum End {
    Exit(String),
    Marker,
}

impl Guest {
    /// Starts it. `disks` stay in, in logical units from [`FIXED_UNITS`] on, and so do `namespaces`,
    /// of which the first has the number 1; the kernel's console goes to `console`.
    ///
    /// # Errors
    /// If qemu does not start, or the guest does not speak within a minute.
    pub(crate) fn boot(
        boot: &Boot,
        disks: &[&Path],
        namespaces: &[Namespace],
        console: &Path,
    ) -> anyhow::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let (monitor, monitored) = UnixStream::pair()?;
        let mut command = Command::new("setpriv");
        command
            // However we end, it ends with us.
            .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            // Emulated, "fast strings" are slow: a byte at a time.
            .args([
                "-machine",
                "q35",
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max,la57=off,erms=off,fsrm=off",
            ])
            .args(["-smp", "2", "-m", &boot.memory_mib.to_string()])
            .arg("-kernel")
            .arg(&boot.kernel)
            .arg("-initrd")
            .arg(&boot.initramfs)
            .args(["-append", KERNEL_COMMAND_LINE])
            .arg("-serial")
            .arg(joined("file:", console))
            // Its standard input and output are these sockets: nothing else that is started meanwhile
            // inherits them.
            .args(["-chardev", "socket,id=line,fd=0"])
            .args(["-serial", "chardev:line"])
            .args(["-chardev", "socket,id=monitor,fd=1"])
            .args(["-mon", "chardev=monitor,mode=control"])
            .args(["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0"])
            .args(["-device", "virtio-scsi-pci,id=scsi0"]);
        if !namespaces.is_empty() {
            command.args(["-device", "nvme,id=nvme0,serial=steadfast"]);
        }
        for (Namespace { image, options }, number) in namespaces.iter().zip(1..) {
            let node = format!("namespace{number}");
            let blockdev = json!({"driver": "raw", "node-name": node,
                "cache": {"direct": false, "no-flush": true},
                "file": {"driver": "file", "filename": image}});
            command.args(["-blockdev", &blockdev.to_string()]);
            let device = format!("nvme-ns,bus=nvme0,drive={node},nsid={number},{options}");
            command.args(["-device", &device]);
        }
        let (line, control) = (OwnedFd::from(theirs), OwnedFd::from(monitored));
        let qemu = command.stdin(line).stdout(control).spawn();
        let qemu = qemu.context("start setpriv, of util-linux")?;
        // The command holds our copies of its ends.
        drop(command);
        let mut guest = Self {
            qemu,
            line: BufReader::new(ours),
            monitor: Monitor::new(monitor).context(
                "start qemu-system-x86_64 (`cargo xtask packages` installs qemu-system-x86)",
            )?,
            console: console.to_owned(),
            attached: 0,
            debugged: false,
        };
        for (index, disk) in disks.iter().enumerate() {
            guest.monitor.attach(FIXED_UNITS + index, disk)?;
        }
        guest.until("#ready", None, BOOT_MAX).context("the guest does not start")?;
        Ok(guest)
    }

    /// Runs `script` with `images` as D0, D1, ...; gives back what it printed.
    ///
    /// # Errors
    /// If it fails, or is not done in time; the machine should not be used any more then.
    pub(crate) fn run(&mut self, images: &[PathBuf], script: &str) -> anyhow::Result<String> {
        self.start(images, script)?;
        let said = match self.until("#end ", None, SCRIPT_MAX)? {
            (said, End::Exit(code)) if code == "0" => said,
            (said, _) => bail!("in the guest:\n{}\nconsole: {}", said, self.console.display()),
        };
        let units: Vec<String> = (0..self.attached).map(|unit| format!("forget {unit}")).collect();
        self.send(&units.join("\n"))?;
        match self.until("#end ", None, SCRIPT_MAX)? {
            (_, End::Exit(code)) if code == "0" => {}
            (said, _) => bail!("the guest still uses its disks: {said}"),
        }
        for unit in 0..std::mem::take(&mut self.attached) {
            self.monitor.detach(unit)?;
        }
        Ok(said)
    }

    /// Runs `script` until it prints the line `marker`, and kills the machine there.
    ///
    /// What the guest had written is in the images then, and nothing else ever will be.
    ///
    /// # Errors
    /// If the script ends without having printed it.
    pub(crate) fn cut_power(
        mut self,
        images: &[PathBuf],
        marker: &str,
        script: &str,
    ) -> anyhow::Result<String> {
        self.start(images, script)?;
        let (said, end) = self.until("#end ", Some(marker), SCRIPT_MAX)?;
        ensure!(matches!(end, End::Marker), "ended without '{marker}':\n{said}");
        Ok(said)
    }

    /// Its memory, between two scripts; it stands still meanwhile. `socket` is a path that may be made, and
    /// always the same.
    ///
    /// # Errors
    /// If qemu does not give it.
    pub(crate) fn memory(&mut self, socket: &Path) -> anyhow::Result<Memory> {
        // It goes on listening after a debugger has left, and cannot be asked to a second time.
        if !self.debugged {
            self.monitor.debug(socket.to_str().context("a socket's path is text")?)?;
            self.debugged = true;
        }
        Memory::connect(socket)
    }

    fn start(&mut self, images: &[PathBuf], script: &str) -> anyhow::Result<()> {
        for (unit, image) in images.iter().enumerate() {
            self.monitor.attach(unit, image)?;
            self.attached += 1;
        }
        let disks: Vec<String> =
            (0..images.len()).map(|unit| format!("D{unit}=$(unit {unit})")).collect();
        let fixed = format!("PATTERN=$(unit {FIXED_UNITS})\nOUT=$(unit {})", FIXED_UNITS + 1);
        self.send(&format!("{fixed}\n{}\n{script}", disks.join("\n")))
    }

    fn send(&mut self, script: &str) -> anyhow::Result<()> {
        let line = self.line.get_mut();
        writeln!(line, "{script}\n#run").context("the guest's serial line")
    }

    /// Reads until a line that begins with `end`, or one that is `marker`.
    fn until(
        &mut self,
        end: &str,
        marker: Option<&str>,
        limit: Duration,
    ) -> anyhow::Result<(String, End)> {
        let deadline = Instant::now() + limit;
        let mut said = String::new();
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "not done after {} s:\n{said}", limit.as_secs());
            self.line.get_ref().set_read_timeout(Some(left))?;
            match self.line.read_until(b'\n', &mut line) {
                Ok(0) => bail!("the machine is off:\n{said}\nconsole: {}", self.console.display()),
                Ok(_) => {}
                // What has come so far stays in `line`.
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error).context("the guest's serial line"),
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if let Some(code) = text.strip_prefix(end) {
                return Ok((said, End::Exit(code.to_owned())));
            }
            if Some(text.as_str()) == marker {
                return Ok((said, End::Marker));
            }
            ensure!(said.len() < SAID_MAX, "the guest talks without end:\n{said}");
            said += &text;
            said.push('\n');
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Dead or alive, it is off after this.
        let _gone = self.qemu.kill();
        let _gone = self.qemu.wait();
    }
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut text = OsString::from(prefix);
    text.push(path);
    text
}

/// Disks that stay in are out of the way of those that come and go.
const FIXED_UNITS: usize = 100;

const KERNEL_COMMAND_LINE: &str = "console=ttyS0 rdinit=/init panic=-1 quiet nokaslr \
    mitigations=off tsc=reliable no_timer_check audit=0 random.trust_cpu=on \
    rcupdate.rcu_expedited=1 cryptomgr.notests=1 raid=noautodetect pci=noaer";

/// An emulated machine on a busy host: seconds, but nobody should have to look.
const BOOT_MAX: Duration = Duration::from_secs(90);
const SCRIPT_MAX: Duration = Duration::from_secs(180);
/// Bytes that a script may print.
const SAID_MAX: usize = 1 << 20;
