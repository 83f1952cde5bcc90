//! Serving a volume takes memory for what is under way, not for what there is.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a server may have at its worst, however large its volume.
const PEAK_KIB_MAX: u64 = 256 << 10;

#[test]
fn a_volume_of_1_tib_under_load_takes_less_than_256_mib() {
    let folder = tempfile::tempdir().unwrap();
    let member = folder.path().join("member.img");
    let mut create = steadfast();
    create.arg("create").arg(&member).args(["--level", "none", "--size", "1T", "--no-wipe"]);
    succeed(&mut create);

    let server = Server::start(&member, &folder.path().join("socket"));
    // All of it is read back: what was never written has no tags and could not be read.
    let everywhere = ["--rw=randwrite", "--random_generator=lfsr", "--size=100%"];
    server.load(&[&["--bs=4k", "--iodepth=128", "--number_ios=5000"], &everywhere[..]].concat());
    // More under way than the server's buffers hold: four clients with 256 MiB and more.
    let four = ["--rw=write", "--numjobs=4", "--offset_increment=1G", "--size=1G"];
    server.load(&[&["--bs=1M", "--iodepth=64", "--number_ios=80"], &four[..]].concat());
    server.load(&[&["--bs=16M", "--iodepth=6", "--number_ios=6"], &four[..]].concat());
    let peak = server.peak_kib();
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB of memory at the worst");
}

/// A server, killed when the test is over.
struct Server {
    child: Child,
    uri: String,
}

impl Server {
    fn start(member: &Path, socket: &Path) -> Self {
        let mut command = steadfast();
        command.arg("serve").arg(member).arg("--nbd").arg(format!("unix:{}", socket.display()));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let uri = ready.split_whitespace().find(|word| word.starts_with("nbd+unix:"));
        let uri = uri.unwrap_or_else(|| panic!("no URI in {ready:?}")).to_owned();
        Self { child, uri }
    }

    /// Writes and verifies.
    fn load(&self, arguments: &[&str]) {
        let mut fio = Command::new("fio");
        fio.args([
            "--name=load",
            "--ioengine=nbd",
            "--verify=crc32c",
            "--eta=never",
            "--verify_state_save=0",
        ])
        .arg(format!("--uri={}", self.uri))
        .args(arguments);
        succeed(&mut fio);
    }

    /// The most memory that it ever had.
    fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whether it still runs or not: afterwards it does not.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn steadfast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (`cargo xtask packages` lists what the tests need)")
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
}
