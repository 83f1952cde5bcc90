//! Where the served files lie, and how programs are run.

use crate::row::note;
use crate::settings::Settings;
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A folder for the time of the measurement, and what is measured there.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) size_mib: u64,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    steadfast: PathBuf,
    verbose: bool,
}

impl Place {
    pub(crate) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix_in(PREFIX, &settings.dir)
            .with_context(|| format!("no folder can be made in {}", settings.dir.display()))?;
        let steadfast = match &settings.steadfast {
            Some(path) => path.clone(),
            None => build()?,
        };
        let place = Self {
            folder,
            size_mib: settings.size,
            rounds: settings.rounds,
            seconds: settings.seconds,
            steadfast,
            verbose: settings.verbose,
        };
        place.write_noise(&place.source())?;
        Ok(place)
    }

    /// The same on a file system in memory, if there is one and this is not it.
    pub(crate) fn in_memory(&self) -> anyhow::Result<Option<Self>> {
        let memory = Path::new(MEMORY);
        if !memory.exists() || file_system(self.folder.path()) == file_system(memory) {
            return Ok(None);
        }
        let folder = TempDir::with_prefix_in(PREFIX, memory)?;
        let place = Self { folder, steadfast: self.steadfast.clone(), ..*self };
        place.write_noise(&place.source())?;
        Ok(Some(place))
    }

    /// Under which conditions the rows were taken.
    pub(crate) fn conditions(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!(
            "nbd: files in {} ({}), \"in memory\" in {MEMORY}, {} MiB each; medians of {} runs, \
             fio's {} s long; servers and clients share {cores} cores",
            self.folder.path().display(),
            file_system(self.folder.path()),
            self.size_mib,
            self.rounds,
            self.seconds,
        )
    }

    /// Bytes of what is served.
    pub(crate) fn bytes(&self) -> u64 {
        self.size_mib << 20
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file of the served size without zeroes.
    pub(crate) fn source(&self) -> PathBuf {
        self.path("source")
    }

    /// A new file of the served size, every block of it stored.
    pub(crate) fn raw_file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        self.write_noise(&path)?;
        Ok(path)
    }

    /// New members for a volume of at least the measured size, with the journal that a member of 8 GiB
    /// or more gets by default: small members get small ones, which would be measured instead.
    pub(crate) fn members(
        &self,
        count: usize,
        mib: u64,
        level: &str,
    ) -> anyhow::Result<Vec<PathBuf>> {
        let members: Vec<_> =
            (0..count).map(|index| self.path(&format!("{level}-{index}.img"))).collect();
        for member in &members {
            match std::fs::remove_file(member) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let mut create = self.steadfast();
        create.arg("create").args(&members).args(["--level", level, "--size", &format!("{mib}M")]);
        create.args(["--journal-size", "64M"]);
        self.output(&mut create)?;
        Ok(members)
    }

    /// The program under test.
    pub(crate) fn steadfast(&self) -> Command {
        Command::new(&self.steadfast)
    }

    /// Says what is going to be run, if that is wanted.
    pub(crate) fn show(&self, command: &Command) {
        if self.verbose {
            let words: Vec<_> = std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(OsStr::to_string_lossy)
                .collect();
            note(&words.join(" "));
        }
    }

    /// Runs `command` to its end; what it printed.
    pub(crate) fn output(&self, command: &mut Command) -> anyhow::Result<String> {
        self.show(command);
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{program} cannot be run"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{program} ended with {}: {printed}{said}", output.status);
        }
        Ok(printed)
    }

    /// `path`, full of noise, durable.
    pub(crate) fn write_noise(&self, path: &Path) -> anyhow::Result<()> {
        let noise = crate::compute::noise(1 << 20);
        let mut file = File::create(path)?;
        for _ in 0..self.size_mib {
            file.write_all(&noise)?;
        }
        Ok(file.sync_all()?)
    }
}

/// Builds the program under test; where it is then.
fn build() -> anyhow::Result<PathBuf> {
    note("building steadfast");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--package", "steadfast", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    if !output.status.success() {
        bail!("steadfast does not build");
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| {
            let ours = message["target"]["name"] == "steadfast";
            message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
        })
        .context("cargo built no program called steadfast")
}

/// The name of the file system that `path` lies on.
fn file_system(path: &Path) -> String {
    let kind = rustix::fs::statfs(path).map(|found| found.f_type);
    let known = kind.ok().and_then(|kind| FILE_SYSTEMS.iter().find(|(number, _)| *number == kind));
    match known {
        Some((_, name)) => (*name).to_owned(),
        None => "an unknown file system".to_owned(),
    }
}

/// Where Linux has a file system in memory.
const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "steadfast-bench-";
const FILE_SYSTEMS: &[(rustix::fs::FsWord, &str)] = &[
    (0xef53, "ext4"),
    (0x0102_1994, "tmpfs: memory"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "btrfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "ZFS"),
];
