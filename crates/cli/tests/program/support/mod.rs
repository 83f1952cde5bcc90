//! What the tests share: the program and what it said, volumes in scratch folders, and the
//! programs of others.

pub mod given;
pub mod nbd;
pub mod server;
pub mod volume;

pub use server::Server;
pub use volume::{Shape, Volume};

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_steadfast");
pub const MIB: u64 = 1 << 20;
pub const SECTOR: u64 = 512;

/// What a program said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; a signal is minus its number.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Said {
    pub fn of(command: String, output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or_else(|| Some(-output.status.signal()?));
        Self {
            command,
            code: code.expect("it ended one way or the other"),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended like this.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Its result for programs: one line, one object, and nothing else on standard output.
    #[track_caller]
    pub fn object(&self) -> Value {
        let text = self.text();
        assert_eq!(text.lines().count(), 1, "one object and nothing else: {self}");
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {self}"));
        assert_eq!(value["schema"], 1, "{self}");
        value
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// It ended like this, with exactly one line on standard error, in which all of this is said.
    #[track_caller]
    pub fn one_line(self, code: i32, wanted: &[&str]) -> Self {
        let said = self.ended(code);
        let lines: Vec<&str> = said.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "one line: {said}");
        assert!(lines[0].starts_with("steadfast: "), "{said}");
        said.with(wanted)
    }

    /// Standard error says all of this.
    #[track_caller]
    pub fn with(self, wanted: &[&str]) -> Self {
        for wanted in wanted {
            assert!(self.stderr.contains(wanted), "'{wanted}' is not said: {self}");
        }
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out = if self.stdout.len() > 4096 { "(long)".to_owned() } else { self.text() };
        write!(f, "{}\nexit code {}\n{}\n{out}", self.command, self.code, self.stderr)
    }
}

/// The program, which keeps its ledgers where the tests' files are.
pub fn program() -> Command {
    at_home(Command::new(PROGRAM))
}

/// The command with a home of the tests' own.
pub fn at_home(mut command: Command) -> Command {
    let home = format!("{}/state-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    command.env("XDG_STATE_HOME", home);
    command
}

/// Runs the program.
pub fn steadfast<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Said {
    let mut command = program();
    command.args(arguments);
    finish(command)
}

/// Runs a command to its end.
pub fn finish(mut command: Command) -> Said {
    let text = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("{text}: {error}"));
    Said::of(text, output)
}

/// Runs another program, of a Debian package, to its end.
pub fn other<I: AsRef<OsStr>>(
    program: &str,
    package: &str,
    arguments: impl IntoIterator<Item = I>,
) -> Said {
    let mut command = Command::new(program);
    // Administrators' programs are not on everybody's path.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("TZ", "UTC").env("LC_ALL", "C");
    command.args(arguments);
    let text = format!("{command:?}");
    match command.output() {
        Ok(output) => Said::of(text, output),
        Err(error) => panic!("{program} does not start ({error}): apt-get install {package}"),
    }
}

/// Runs qemu-io on an NBD URI. Older ones exit with success whatever was read.
pub fn qemu_io(uri: &str, command: &str) -> Result<(), String> {
    let said = other("qemu-io", "qemu-utils", ["-f", "raw", "-t", "none", "-c", command, uri]);
    let text = said.to_string();
    let bad = ["failed", "rror", "invalid"].iter().any(|word| text.contains(word));
    if said.code == 0 && !bad { Ok(()) } else { Err(text) }
}

/// The hash of a file, or none if there is no such file, or it is no file.
pub fn sha256(path: &Path) -> Option<String> {
    if !path.is_file() {
        return None;
    }
    Some(hex(&Sha256::digest(std::fs::read(path).ok()?)))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Neither zeroes nor repeating: what is misplaced is noticed.
pub fn noise(length: u64, seed: u64) -> Vec<u8> {
    let length = usize::try_from(length).expect("it fits into memory");
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Turns some bits of the byte: more than one, which a CRC would name.
pub fn flip(path: &Path, byte: u64) {
    let mut found = [0];
    let file = File::options().read(true).write(true).open(path).expect("it is ours");
    file.read_exact_at(&mut found, byte).expect("the byte is there");
    file.write_all_at(&[found[0] ^ 0x9A], byte).expect("it can be written");
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("scratch folders have plain names")
}
