//! The arguments that name a volume, and how it is opened.

use super::{Context, given};
use crate::error::Failure;
use crate::opened::{Keeper, Opened, Place};
use crate::report::human;
use bio::Event;
use stack::{Given, IntegrityChoice, Member, Mode, Node, OpenOptions, Running, TagSource};
use std::path::Path;
use std::rc::Rc;
use units::Sector;

/// Which volume.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "open")]
pub struct Arguments {
    /// Files, block devices, nbd:// or nbd+unix:// URIs, in any order; sectors:512+8:PATH is a file of
    /// sectors with 512 bytes of data and 8 of metadata each, nvme-qemu:512+8:PATH one of QEMU's NVMe device
    #[arg(value_name = "MEMBER", required_unless_present = "stack")]
    pub members: Vec<String>,

    /// What the tags are made with, if it shall not be found by trial
    #[arg(long, value_name = "ALG")]
    integrity: Option<String>,

    #[command(flatten)]
    pub given: given::Arguments,

    /// How dm-integrity runs while it is open: journal (a crash leaves old or new blocks), bitmap or
    /// direct (without a journal: faster, and what a crash interrupts may be unreadable), or recovery
    /// (nothing is written, verified or replayed; with --unverified it gives out what lies there).
    /// Volumes that were made with --mode inline run so without being told
    #[arg(long, value_name = "MODE", default_value = "journal", value_parser = mode)]
    mode: Mode,

    /// Also give out blocks whose tags, by the format's own rules, need not be valid: those that a
    /// recalculation did not come to, those that were being written when bitmap mode ended in a crash,
    /// and all in recovery mode. Counted and listed, exit code 1
    #[arg(long)]
    unverified: bool,

    /// Give out blocks with the kernel's filler tag as they lie there; where something is discarded,
    /// write such tags instead of making it zeroes
    #[arg(long)]
    allow_discards: bool,

    /// Start what is refused as it is; lists the consequences first
    #[arg(long)]
    force: bool,

    /// Read what exactly these members would give if each held the slot that it claims, however old it is
    /// and whatever the others say of it: one export for each choice, to compare before deciding.
    /// Writes nothing
    #[arg(long)]
    assemble: bool,

    /// The volume spelled out: 'raid1(integrity(file:a), integrity(file:b))', or with a write journal
    /// 'raid5(file:a, file:b, missing, journal=file:j)'. It is compared with what lies on the members
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["members", "data_device"])]
    stack: Option<String>,

    /// Where the volume's ledger is kept: a folder of its own; 'none' keeps none. Default:
    /// $XDG_STATE_HOME/steadfast/UUID, or below ~/.local/state; for root /var/lib/steadfast/UUID
    #[arg(long, value_name = "DIR")]
    state: Option<String>,
}

impl Arguments {
    /// The members as they were named, also those within a stack.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let Some(node) = self.node()? else { return Ok(self.members.clone()) };
        Ok(node.leaves().filter_map(Node::member).map(ToString::to_string).collect())
    }

    /// The members on a command line, for what to try next.
    pub fn spelled(&self) -> String {
        let members = match &self.stack {
            Some(text) => format!("--stack '{text}'"),
            None => self.members.join(" "),
        };
        let integrity = self.integrity.as_ref().map(|name| format!(" --integrity {name}"));
        let mode = Some(self.mode).filter(|&mode| mode != Mode::Journal);
        let mode = mode.map_or_else(String::new, |mode| format!(" --mode {}", word(mode)));
        let unverified = if self.unverified { " --unverified" } else { "" };
        let discards = if self.allow_discards { " --allow-discards" } else { "" };
        let given = self.given.spelled();
        let assemble = if self.assemble { " --assemble" } else { "" };
        let integrity = integrity.unwrap_or_default();
        format!("{members}{integrity}{given}{mode}{unverified}{discards}{assemble}")
    }

    fn node(&self) -> Result<Option<Node>, Failure> {
        let parsed = self.stack.as_deref().map(str::parse::<Node>).transpose();
        parsed.map_err(|error| Failure::usage(format!("--stack: {error}")))
    }

    /// Where the ledger is kept.
    pub fn place(&self) -> Place {
        Place::of(self.state.as_deref())
    }

    /// Whether it can only be read, whatever the verb would do.
    pub fn is_read_only(&self) -> bool {
        self.mode == Mode::Recovery || self.assemble || self.given.is_read_only()
    }

    /// How to open it; what happens is shown, and kept.
    fn options(
        &self,
        context: &Rc<Context>,
        read_only: bool,
        running: Running,
        keeper: &Rc<Keeper>,
    ) -> Result<OpenOptions, Failure> {
        let mut options = OpenOptions::read_only(Vec::new());
        options.read_only = read_only;
        options.force = self.force;
        options.as_given = self.assemble;
        options.given = given(self.integrity.as_deref(), &self.given, &self.members)?;
        let mode = Some(self.mode).filter(|&mode| mode != Mode::Journal);
        let Self { unverified, allow_discards, .. } = *self;
        options.given.running = Running { mode, unverified, allow_discards, ..running };
        let (told, keeper) = (Rc::clone(context), Rc::clone(keeper));
        options.on_event = Rc::new(move |event: &Event| {
            told.report.event(event);
            keeper.tell(event);
        });
        Ok(options)
    }

    /// Opens the volume. A named file that does not exist is a missing member if there are others.
    pub async fn open(&self, context: &Rc<Context>, read_only: bool) -> Result<Opened, Failure> {
        self.open_as(context, read_only, Running::default()).await
    }

    /// The same with what this verb lets a person say of how dm-integrity is run; the mode, whether
    /// unverified blocks are given out and whether discards leave filler tags are said here.
    pub async fn open_as(
        &self,
        context: &Rc<Context>,
        read_only: bool,
        running: Running,
    ) -> Result<Opened, Failure> {
        if self.is_read_only() && !read_only {
            let option = match (self.assemble, self.given.is_read_only()) {
                (true, _) => "--assemble",
                (false, true) => "--superblock",
                (false, false) => "--mode recovery",
            };
            let text = format!("{option} writes nothing, and this would");
            return Err(Failure::usage(text).advise("copy what it gives with 'steadfast export'"));
        }
        let keeper = Rc::new(Keeper::default());
        let mut options = self.options(context, read_only, running, &keeper)?;
        if self.force {
            context.report.warn(
                "--force: blocks of missing members may come back as they were before the last \
                 unfinished writes; stale members may bring back old data",
            );
        }
        if let Some(node) = self.node()? {
            let volume = stack::open_stack(&node, &options).await?;
            return Ok(Opened::new(context, volume, keeper, &self.place()));
        }
        let named = parse_members(&self.members)?;
        let given = options.given.clone();
        let exists = |member: &Member| member.path().is_none_or(Path::exists);
        let there = |member: &Member| exists(member) && given.data_of(member).is_none_or(exists);
        options.members = named.clone();
        if named.iter().any(there) {
            options.members.retain(there);
            for gone in named.iter().filter(|member| !there(member)) {
                let what = if exists(gone) { given.data_of(gone).unwrap_or(gone) } else { gone };
                context.report.warn(format!("{what}: no such file or device, counted as missing"));
            }
        }
        let volume = stack::open(&options).await?;
        Ok(Opened::new(context, volume, keeper, &self.place()))
    }
}

/// What was said for `--integrity` and beside it, about these members.
pub fn given(
    integrity: Option<&str>,
    arguments: &given::Arguments,
    members: &[String],
) -> Result<Given, Failure> {
    let integrity = match integrity {
        Some(name) if name != "none" => {
            let source = name.parse::<TagSource>();
            let source = source.map_err(|e| Failure::usage(format!("--integrity: {e}, none")))?;
            let key = match source.hash() {
                Some(algorithm) => arguments.keys.integrity(algorithm)?,
                None => arguments.keys.without_integrity().map(|()| None)?,
            };
            IntegrityChoice::Named(source, key)
        }
        none => {
            arguments.keys.without_integrity()?;
            if none.is_some() { IntegrityChoice::None } else { IntegrityChoice::Find }
        }
    };
    let journal = arguments.keys.journal()?;
    let data_devices = arguments.data_devices(members)?;
    let superblocks = arguments.superblocks(members)?;
    Ok(Given { integrity, journal, data_devices, superblocks, running: Running::default() })
}

/// The mode that a word means.
fn mode(text: &str) -> Result<Mode, String> {
    let known = MODES.iter().find(|(name, _)| *name == text);
    known.map(|(_, mode)| *mode).ok_or_else(|| {
        let names: Vec<&str> = MODES.iter().map(|(name, _)| *name).collect();
        format!("not among what can be run: {}", names.join(", "))
    })
}

fn word(mode: Mode) -> &'static str {
    let known = MODES.iter().find(|(_, known)| *known == mode);
    known.expect("every mode has a name").0
}

/// The modes that can be run, as they are called.
const MODES: [(&str, Mode); 5] = [
    ("journal", Mode::Journal),
    ("bitmap", Mode::Bitmap),
    ("direct", Mode::Direct),
    ("inline", Mode::Inline),
    ("recovery", Mode::Recovery),
];

/// Members from what a person typed.
pub fn parse_members(names: &[String]) -> Result<Vec<Member>, Failure> {
    // The error names what was typed.
    let parse =
        |name: &String| Member::parse(name).map_err(|error| Failure::usage(error.to_string()));
    names.iter().map(parse).collect()
}

/// Closes `volume`, after whatever happened before.
pub async fn close<T>(volume: impl Into<Opened>, result: Result<T, Failure>) -> Result<T, Failure> {
    let closed = volume.into().close().await;
    let value = result?;
    match closed {
        Ok(()) => Ok(value),
        Err(error) => Err(Failure::new(
            crate::exit::Outcome::Failed,
            format!("the volume could not be closed cleanly: {error}"),
        )
        .advise("nothing that was flushed is lost; see 'steadfast status'")),
    }
}

/// Bytes in `text`, given for `option`.
pub fn size(option: &str, text: &str) -> Result<u64, Failure> {
    stack::parse_size(text).map_err(|error| Failure::usage(format!("{option}: {error}")))
}

/// A volume's size for a person.
pub fn human_sectors(sectors: u64) -> String {
    human(Sector(sectors).bytes())
}

/// Ranges of sectors for a person, the end included, as many as fit a few lines.
pub fn sector_ranges(ranges: &[(u64, u64)]) -> String {
    let range = |&(first, sectors): &(u64, u64)| match sectors {
        1 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(sectors) - 1),
    };
    let named: Vec<String> = ranges.iter().take(RANGES_MAX).map(range).collect();
    let what = if matches!(ranges, [(_, 1)]) { "sector" } else { "sectors" };
    match ranges.len().saturating_sub(RANGES_MAX) {
        0 => format!("{what} {}", named.join(", ")),
        more => format!("{what} {} and {more} more ranges", named.join(", ")),
    }
}

/// Ranges that are named.
const RANGES_MAX: usize = 20;

/// Whether an error says that somebody else holds the members.
pub fn is_locked(failure: &Failure) -> bool {
    failure.outcome == crate::exit::Outcome::Refused && failure.message.contains("in use by")
}
