//! What a case works with: a folder, a guest, the program, and steps that many cases share.

use crate::content::{Found, PATTERN_SECTORS, SECTOR, VOLUME_SECTORS_MAX, Write, index, pattern};
use crate::disks::Disks;
use crate::machine::boot::Boot;
use crate::machine::guest::{Guest, Namespace};
use crate::machine::memory::Memory;
use crate::program::{Program, Said};
use crate::subject::Subject;
use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One case's laboratory. The guest is started when it is first needed, and kept for the next.
pub(crate) struct Lab<'a> {
    boot: &'a Boot,
    pub(crate) program: Program,
    /// What stays: the pattern, and what the guest gives out.
    shared: PathBuf,
    folder: PathBuf,
    guest: Option<Guest>,
    boots: usize,
    /// What the guest's NVMe controller holds.
    namespaces: Vec<Namespace>,
}

impl<'a> Lab<'a> {
    /// A namespace of the guest's NVMe controller is an empty image with these options of qemu's.
    ///
    /// # Errors
    /// If `shared` cannot be written.
    pub(crate) fn new(
        boot: &'a Boot,
        program: Program,
        shared: &Path,
        namespaces: Vec<String>,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(shared)?;
        std::fs::write(shared.join(PATTERN), pattern(0, PATTERN_SECTORS))?;
        File::create(shared.join(OUT))?.set_len(VOLUME_SECTORS_MAX * SECTOR)?;
        let shared = shared.to_owned();
        let folder = shared.clone();
        let namespace = |(options, number): (String, u32)| {
            let image = shared.join(format!("namespace{number}.img"));
            File::create(&image)?.set_len(NAMESPACE_BYTES)?;
            Ok(Namespace { image, options })
        };
        let namespaces = namespaces.into_iter().zip(1..).map(namespace);
        let namespaces = namespaces.collect::<anyhow::Result<_>>()?;
        Ok(Self { boot, program, shared, folder, guest: None, boots: 0, namespaces })
    }

    /// The next case works in `folder`.
    pub(crate) fn enter(&mut self, folder: &Path) {
        self.folder = folder.to_owned();
    }

    /// After a failure nobody knows what the guest still holds.
    pub(crate) fn discard_guest(&mut self) {
        self.guest = None;
    }

    /// Where the case works.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Empty disks for `subject`.
    ///
    /// # Errors
    /// If there is no room.
    pub(crate) fn blank(&self, subject: &Subject) -> anyhow::Result<Disks> {
        let disks = Disks::named(&self.folder, subject)?;
        for (index, disk) in disks.files().iter().enumerate() {
            File::create(disk)?.set_len(subject.disk_bytes(index))?;
        }
        Ok(disks)
    }

    /// Runs `script` in the guest with `disks` as D0, D1, ...
    ///
    /// # Errors
    /// If it fails.
    pub(crate) fn guest(&mut self, disks: &Disks, script: &str) -> anyhow::Result<Answer> {
        let mut guest = self.booted()?;
        let said = guest.run(disks.files(), script)?;
        self.guest = Some(guest);
        Ok(Answer(said))
    }

    /// Runs `script` until it prints `marker`, and cuts the power.
    ///
    /// # Errors
    /// If it ends before.
    pub(crate) fn cut_power(
        &mut self,
        disks: &Disks,
        marker: &str,
        script: &str,
    ) -> anyhow::Result<Answer> {
        Ok(Answer(self.booted()?.cut_power(disks.files(), marker, script)?))
    }

    fn booted(&mut self) -> anyhow::Result<Guest> {
        if let Some(guest) = self.guest.take() {
            return Ok(guest);
        }
        self.boots += 1;
        let fixed = [self.shared.join(PATTERN), self.shared.join(OUT)];
        let console = self.shared.join(format!("console-{}.log", self.boots));
        let fixed = fixed.each_ref().map(PathBuf::as_path);
        Guest::boot(self.boot, &fixed, &self.namespaces, &console)
    }

    /// The image of a namespace, which counts from 1. Between two scripts the guest holds nothing back:
    /// it reads and writes past its page cache.
    pub(crate) fn namespace(&self, number: usize) -> &Path {
        &self.namespaces[number - 1].image
    }

    /// The memory of the guest, which is running.
    ///
    /// # Errors
    /// If it is not, or does not give it.
    pub(crate) fn memory(&mut self) -> anyhow::Result<Memory> {
        let socket = self.shared.join("debug.sock");
        self.guest.as_mut().context("no guest is running")?.memory(&socket)
    }

    /// What `give` in the guest's last script gave out.
    ///
    /// # Errors
    /// If the answer does not say how long it is.
    pub(crate) fn given(&self, answer: &Answer) -> anyhow::Result<Vec<u8>> {
        let sectors = answer.number("sectors")?;
        ensure!(sectors <= VOLUME_SECTORS_MAX, "{sectors} sectors are more than fit");
        let mut bytes = vec![0; index(sectors * SECTOR)];
        File::open(self.shared.join(OUT))?.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// `steadfast VERB MEMBERS OPTIONS`, with all that opens them.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) fn steadfast(
        &self,
        verb: &str,
        members: &Disks,
        options: &[&str],
    ) -> anyhow::Result<Said> {
        let arguments = match verb {
            "adopt" | "create" | "inspect" | "resize" => members.arguments(),
            _ => members.opening(),
        };
        let arguments = arguments.iter().map(String::as_str);
        self.program.run(verb, arguments.chain(options.iter().copied()))
    }

    /// `steadfast create`: the members, and how many sectors the volume has.
    ///
    /// # Errors
    /// If it is not made.
    pub(crate) fn create(&self, subject: &Subject) -> anyhow::Result<(Disks, u64)> {
        let members = match subject.step_bytes {
            0 => Disks::named(&self.folder, subject)?,
            _ => self.blank(subject)?,
        };
        let options = subject.create_options();
        let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
        options.push("--json");
        if subject.journal.is_some() {
            options.extend(["--write-journal", text(members.metadata(subject.members))?]);
        }
        let slots: Vec<usize> = (0..subject.members).collect();
        let named = members.choose(&slots);
        let made = self.steadfast("create", &named, &options)?.ended(0)?.object()?;
        Ok((members, made["sectors"].as_u64().context("it has a size")?))
    }

    /// `steadfast import`, a run for every write.
    ///
    /// # Errors
    /// If one of them fails.
    pub(crate) fn import(&self, members: &Disks, writes: &[Write]) -> anyhow::Result<()> {
        self.import_ending(members, writes, 0)
    }

    /// The same while a member is missing.
    ///
    /// # Errors
    /// If one of them fails.
    pub(crate) fn import_degraded(&self, members: &Disks, writes: &[Write]) -> anyhow::Result<()> {
        self.import_ending(members, writes, 1)
    }

    fn import_ending(&self, members: &Disks, writes: &[Write], code: i32) -> anyhow::Result<()> {
        let file = self.path("piece");
        for write in writes {
            std::fs::write(&file, write.bytes())?;
            let offset = (write.sector * SECTOR).to_string();
            let from = text(&file)?;
            self.steadfast("import", members, &["-q", "--from", from, "--offset", &offset])?
                .ended(code)?;
        }
        Ok(())
    }

    /// `steadfast export` of everything, which must all be readable.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn export(&self, members: &Disks) -> anyhow::Result<Vec<u8>> {
        let file = self.path("export");
        self.steadfast("export", members, &["-q", "--yes", "--to", text(&file)?])?.ended(0)?;
        std::fs::read(&file).context("what was exported")
    }

    /// `steadfast export` of what can be read, which ends with one of `codes`.
    ///
    /// # Errors
    /// If it does not.
    pub(crate) fn salvage(
        &self,
        members: &Disks,
        options: &[&str],
        codes: &[i32],
    ) -> anyhow::Result<Found> {
        let (file, map) = (self.path("export"), self.path("map"));
        let to = ["-q", "--yes", "--to", text(&file)?, "--map", text(&map)?];
        self.steadfast("export", members, &[&to, options].concat())?.ended_within(codes)?;
        let map = std::fs::read_to_string(&map)?;
        let mut unreadable = BTreeSet::new();
        // "0xPOSITION 0xBYTES -": a ddrescue mapfile's bad blocks.
        for line in map.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [position, bytes, "-"] = words[..] else { continue };
            let number = |text: &str| -> anyhow::Result<u64> {
                let digits = text.strip_prefix("0x").with_context(|| line.to_owned())?;
                Ok(u64::from_str_radix(digits, 16)?)
            };
            let (first, count) = (number(position)? / SECTOR, number(bytes)? / SECTOR);
            unreadable.extend(first..first + count);
        }
        Ok(Found { bytes: std::fs::read(&file)?, unreadable })
    }

    /// What `salvage` in the guest's last script gave out, and the sectors with EILSEQ.
    ///
    /// # Errors
    /// If there was another error.
    pub(crate) fn salvaged(&self, answer: &Answer) -> anyhow::Result<Found> {
        let mut unreadable = BTreeSet::new();
        for line in answer.all("bad") {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [sector, sectors, "EILSEQ"] = words[..] else {
                bail!("another error than EILSEQ: {line}");
            };
            let (sector, sectors): (u64, u64) = (sector.parse()?, sectors.parse()?);
            unreadable.extend(sector..sector + sectors);
        }
        Ok(Found { bytes: self.given(answer)?, unreadable })
    }

    /// `steadfast scrub --check` finds nothing.
    ///
    /// # Errors
    /// If it does.
    pub(crate) fn must_be_sound(&self, members: &Disks) -> anyhow::Result<()> {
        self.steadfast("scrub", members, &["--check"])?.ended(0)?;
        Ok(())
    }

    /// `steadfast inspect` of one member.
    ///
    /// # Errors
    /// If it cannot be inspected.
    pub(crate) fn inspect(&self, member: &Disks) -> anyhow::Result<Value> {
        let found = self.steadfast("inspect", member, &["--json"])?;
        Ok(found.object()?["members"][0].take())
    }

    /// Where sector `sector` of a volume of one member lies: the byte of the data, and of the tag.
    ///
    /// # Errors
    /// If `steadfast explain` does not say.
    pub(crate) fn place(&self, members: &Disks, sector: u64) -> anyhow::Result<Place> {
        let options = ["--json", "--sector", &sector.to_string()];
        let explained = self.steadfast("explain", members, &options)?.object()?;
        let place = &explained["places"][0];
        let number = |value: &Value| value.as_u64().with_context(|| format!("{place}"));
        Ok(Place {
            member: index(place["slot"].as_u64().unwrap_or(0)),
            data: number(&place["data_byte"])?,
            tag: number(&place["tag"]["tag_byte"])?,
        })
    }
}

/// Where a sector lies.
pub(crate) struct Place {
    pub(crate) member: usize,
    pub(crate) data: u64,
    pub(crate) tag: u64,
}

/// What a guest's script printed: lines of a word and its value.
#[derive(Debug)]
pub(crate) struct Answer(String);

impl Answer {
    /// Every line as a word and the rest.
    pub(crate) fn fields(&self) -> BTreeMap<&str, &str> {
        self.0.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
    }

    /// What follows each line `title`, by itself.
    pub(crate) fn parts(&self, title: &str) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        for line in self.0.lines() {
            match parts.last_mut() {
                _ if line == title => parts.push(Self(String::new())),
                Some(part) => part.0 = format!("{}{line}\n", part.0),
                None => {}
            }
        }
        parts
    }

    /// The values of all lines that begin with `word`.
    pub(crate) fn all<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
    }

    /// # Errors
    /// If the word was not printed, or is no number.
    pub(crate) fn number(&self, word: &str) -> anyhow::Result<u64> {
        let value =
            self.all(word).last().with_context(|| format!("no '{word}' in:\n{}", self.0))?;
        value.trim().parse().with_context(|| format!("{word} {value}"))
    }

    /// # Errors
    /// If the number is another.
    pub(crate) fn must_say(&self, word: &str, number: u64) -> anyhow::Result<()> {
        let found = self.number(word)?;
        ensure!(found == number, "{word} is {found}, expected {number}");
        Ok(())
    }
}

/// Flips one bit of a byte.
///
/// # Errors
/// If it is not there.
pub(crate) fn flip(path: &Path, byte: u64) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut found = [0];
    file.read_exact_at(&mut found, byte)?;
    Ok(file.write_all_at(&[found[0] ^ 0x10], byte)?)
}

/// A path as text.
///
/// # Errors
/// If it is none.
pub(crate) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// Bytes of the image of a namespace, data and metadata.
pub(crate) const NAMESPACE_BYTES: u64 = 4 << 20;
const PATTERN: &str = "pattern.img";
const OUT: &str = "out.img";
