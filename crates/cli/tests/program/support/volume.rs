//! Volumes in scratch folders.

use super::{MIB, Said, Server, noise, sha256, steadfast, text};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What kind of volume.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// As `--level` says it.
    pub level: &'static str,
    pub sector_size: u64,
    /// Tags, or a plain md array.
    pub tags: bool,
}

impl Shape {
    pub const fn tagged(level: &'static str, sector_size: u64) -> Self {
        Self { level, sector_size, tags: true }
    }

    pub const fn plain(level: &'static str) -> Self {
        Self { level, sector_size: 4096, tags: false }
    }

    /// Every kind.
    pub fn all() -> Vec<Self> {
        let levels = ["none", "1", "5", "6"];
        let tagged = [512, 4096].map(|size| levels.map(|level| Self::tagged(level, size)));
        tagged.into_iter().flatten().chain(["1", "5", "6"].map(Self::plain)).collect()
    }

    pub fn members(self) -> usize {
        match self.level {
            "none" => 1,
            "1" => 2,
            "5" => 3,
            _ => 5,
        }
    }

    /// How many may go.
    pub fn redundancy(self) -> usize {
        match self.level {
            "none" => 0,
            "6" => 2,
            _ => 1,
        }
    }

    /// The smallest block, in bytes, that is verified or lost.
    pub fn block(self) -> u64 {
        if self.tags { self.sector_size } else { 512 }
    }
}

/// A volume of files in a folder of its own.
pub struct Volume {
    pub folder: TempDir,
    pub shape: Shape,
    pub members: Vec<PathBuf>,
    /// Its size in bytes.
    pub bytes: u64,
}

pub const MEMBER_BYTES: u64 = 12 * MIB;

impl Volume {
    /// A new one, with small chunks, so that there are many stripes.
    pub fn create(shape: Shape) -> Self {
        Self::create_with(shape, MEMBER_BYTES, &[])
    }

    pub fn create_with(shape: Shape, member_bytes: u64, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a scratch folder");
        let name = |slot: usize| folder.path().join(format!("m{slot}.img"));
        let members: Vec<PathBuf> = (0..shape.members()).map(name).collect();
        let mut volume = Self { folder, shape, members, bytes: 0 };
        let size = member_bytes.to_string();
        let mut options = volume.options();
        options.extend(["--size", &size, "--json"].map(str::to_owned));
        options.extend(more.iter().map(|&option| option.to_owned()));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let said = volume.run("create", &options).ended(0);
        volume.bytes = said.object()["bytes"].as_u64().expect("it has a size");
        volume
    }

    /// The options of `create` for this shape.
    pub fn options(&self) -> Vec<String> {
        let Shape { level, sector_size, tags } = self.shape;
        let integrity = if tags { "crc32c" } else { "none" };
        let size = sector_size.to_string();
        let options =
            ["--level", level, "--sector-size", &size, "--integrity", integrity, "--chunk", "16K"];
        options.map(str::to_owned).to_vec()
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new file in its folder.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("the folder is ours");
        path
    }

    /// `steadfast VERB` on all members.
    pub fn run(&self, verb: &str, options: &[&str]) -> Said {
        on(verb, &self.members, options)
    }

    /// The members without those of the given slots.
    pub fn without(&self, slots: &[usize]) -> Vec<PathBuf> {
        let there = self.members.iter().enumerate().filter(|(slot, _)| !slots.contains(slot));
        there.map(|(_, path)| path.clone()).collect()
    }

    /// Fills it with noise; gives that back.
    pub fn fill(&self, seed: u64) -> Vec<u8> {
        let bytes = noise(self.bytes, seed);
        let file = self.file("noise", &bytes);
        self.run("import", &["-q", "--from", text(&file)]).ended(0);
        bytes
    }

    /// All of its content, and how `export` ended.
    pub fn export(&self) -> (i32, Vec<u8>) {
        let said = self.run("export", &["-q", "--to", "-"]);
        (said.code, said.stdout)
    }

    /// The state of every member's bytes.
    pub fn hashes(&self) -> Vec<Option<String>> {
        hashes(&self.members)
    }

    pub fn serve(&self, options: &[&str]) -> Server {
        Server::start(&self.members, self.folder.path(), options)
    }

    /// Where a sector lives.
    pub fn explain(&self, sector: u64) -> Value {
        let said = self.run("explain", &["--json", "--sector", &sector.to_string()]);
        assert!(said.code <= 1, "{said}");
        said.object()
    }

    /// Where the sector of the volume lies: the member's slot, byte of the data, byte of the tag.
    pub fn place(&self, sector: u64) -> (usize, u64, Option<u64>) {
        let explained = self.explain(sector);
        located(&explained["places"][0])
    }
}

/// Slot, byte of data, byte of tag of a place that `explain` named.
pub fn located(place: &Value) -> (usize, u64, Option<u64>) {
    let slot = place["slot"].as_u64().unwrap_or(0);
    let slot = usize::try_from(slot).expect("a few slots");
    let data = place["data_byte"].as_u64().unwrap_or_else(|| panic!("no data: {place}"));
    (slot, data, place["tag"]["tag_byte"].as_u64())
}

/// `steadfast VERB` on these members.
pub fn on(verb: &str, members: &[PathBuf], options: &[&str]) -> Said {
    let names = members.iter().map(|path| text(path));
    steadfast(std::iter::once(verb).chain(names).chain(options.iter().copied()))
}

pub fn hashes(members: &[PathBuf]) -> Vec<Option<String>> {
    members.iter().map(|path: &PathBuf| sha256(Path::new(path))).collect()
}
