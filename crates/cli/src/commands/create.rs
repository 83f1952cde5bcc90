//! `steadfast create`: makes members ready.

use super::open::{self, human_sectors, parse_members, size};
use super::{Context, given};
use crate::error::Failure;
use crate::exit::Outcome;
use crate::report::Progress;
use serde_json::json;
use stack::IntegrityChoice;
use stack::create::{
    CreateBitmap, CreateLevel, CreateOptions, CreateProgress, Created, Minor, Phase,
};
use std::rc::Rc;

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files, block devices, nbd:// or nbd+unix:// URIs, or sectors:512+8:PATH (a file of sectors with 8
    /// bytes of metadata each), in the order of their slots
    #[arg(value_name = "MEMBER", required = true)]
    members: Vec<String>,

    /// Bytes of each member file to make (K, M, G, T)
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,

    /// The array over the members
    #[arg(long, default_value = "none", value_name = "none|linear|0|1|4|5|6|10")]
    level: String,

    /// How chunks go to members, as mdadm names it: left-symmetric (default), parity-last, ddf-N-restart,
    /// ... of RAID 5 and 6; n2 (default), f2, o2, n3, ... of RAID 10; original or alternate of RAID 0 over
    /// members of different sizes
    #[arg(long, value_name = "LAYOUT")]
    layout: Option<String>,

    /// Bytes of a chunk, 4K to 1M [default: 64K]
    #[arg(long, value_name = "SIZE")]
    chunk: Option<String>,

    /// What is not said otherwise is as mdadm chooses it: chunks of 512K, no integrity
    #[arg(long, value_name = "mdadm")]
    like: Option<String>,

    /// A member of a mirror that is read only if no other can be; may be given for several
    #[arg(long, value_name = "MEMBER")]
    write_mostly: Vec<String>,

    /// What the tags are made with, such as xxhash64 or sha256; t10-dif-type1-crc16 and so on: tuples, which
    /// the layer above gives; none: a plain md array [default: crc32c]
    #[arg(long, value_name = "ALG")]
    integrity: Option<String>,

    #[command(flatten)]
    given: given::Arguments,

    /// Bytes of each tag, if not the whole checksum
    #[arg(long, value_name = "N")]
    tag_size: Option<u16>,

    /// Bytes of the block that each tag covers
    #[arg(long, value_name = "512|1024|2048|4096", default_value_t = 4096)]
    sector_size: u64,

    /// How it will be run: journal, bitmap or direct; the bytes made are the same for each, and the
    /// verb that opens the volume names the mode again. Or inline: without a journal, each tag in the
    /// metadata of its block, on members that have some
    #[arg(long, value_name = "MODE", default_value = "journal")]
    mode: String,

    /// Bytes of each member's journal
    #[arg(long, value_name = "SIZE")]
    journal_size: Option<String>,

    /// Data sectors between two runs of tags
    #[arg(long, value_name = "N")]
    interleave_sectors: Option<u64>,

    /// Pad the runs of tags as kernels before 5.5 did
    #[arg(long, alias = "integrity-legacy-padding")]
    legacy_padding: bool,

    /// Hash no salt and seal no superblock, as kernels before 5.12 did
    #[arg(long, alias = "integrity-legacy-hmac")]
    legacy_hmac: bool,

    /// Version of the md superblock: at the end of each member, at its start, or 4 KiB behind that
    #[arg(long, value_name = "1.0|1.1|1.2", default_value = "1.2")]
    metadata: String,

    /// Write-intent bitmap: internal announces writes to an array with redundancy, so that after a crash
    /// only what was being written is compared; none: all of it is; ppl: a partial parity log instead (RAID
    /// 5), by which a crash costs nothing also when a member is missing [default: internal]
    #[arg(long, value_name = "internal|ppl|none")]
    bitmap: Option<String>,

    /// The same in mdadm's words; journal: what --write-journal makes
    #[arg(long, value_name = "bitmap|ppl|journal|resync", conflicts_with = "bitmap")]
    consistency_policy: Option<String>,

    /// A device on which everything is logged before it goes to the members of a RAID 4, 5 or 6, instead of a
    /// bitmap or a partial parity log: a crash costs nothing also when members are missing. A file that does
    /// not exist is made of --size, as members are; one that does may have any size
    #[arg(long, value_name = "MEMBER")]
    write_journal: Option<String>,

    /// Bytes that one bit of the bitmap stands for, from 4K on [default: 64M, more if it must fit]
    #[arg(long, value_name = "SIZE")]
    bitmap_chunk: Option<String>,

    /// The array's name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Write only superblocks and journals: what was never written stays unreadable
    #[arg(long)]
    no_wipe: bool,

    /// Overwrite what lies on the members
    #[arg(long)]
    yes: bool,

    /// Print the list of writes and do none of them
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    fn options(&self) -> Result<CreateOptions, Failure> {
        let level = match self.level.as_str() {
            "none" => CreateLevel::None,
            "linear" => CreateLevel::Linear,
            "0" | "raid0" => CreateLevel::Raid0,
            "1" | "raid1" => CreateLevel::Raid1,
            "4" | "raid4" => CreateLevel::Raid4,
            "5" | "raid5" => CreateLevel::Raid5,
            "6" | "raid6" => CreateLevel::Raid6,
            "10" | "raid10" => CreateLevel::Raid10,
            other => return Err(not_made("--level", other, "none, linear, 0, 1, 4, 5, 6, 10")),
        };
        let minor = match self.metadata.as_str() {
            "1.0" => Minor::V0,
            "1.1" => Minor::V1,
            "1.2" | "1" => Minor::V2,
            other => return Err(not_made("--metadata", other, "1.0, 1.1, 1.2")),
        };
        if let Some(like) = &self.like {
            only("--like", like, "mdadm")?;
        }
        if !["journal", "bitmap", "direct", "inline"].contains(&self.mode.as_str()) {
            return Err(not_made("--mode", &self.mode, "journal, bitmap, direct, inline"));
        }
        let mut options = CreateOptions::new(parse_members(&self.members)?, level);
        options.bitmap = self.bitmap(level)?;
        options.write_journal = parse_members(self.write_journal.as_slice())?.pop();
        options.member_bytes = self.size.as_deref().map(|s| size("--size", s)).transpose()?;
        let usual = if self.like.is_some() { "512K" } else { "64K" };
        options.chunk_bytes = size("--chunk", self.chunk.as_deref().unwrap_or(usual))?;
        options.layout.clone_from(&self.layout);
        options.minor = minor;
        options.write_mostly = parse_members(&self.write_mostly)?;
        let given = open::given(Some(self.integrity()), &self.given, &self.devices())?;
        (options.integrity, options.integrity_key) = match given.integrity {
            IntegrityChoice::Named(source, key) => (Some(source), key),
            IntegrityChoice::Find | IntegrityChoice::None => (None, None),
        };
        let is_above = options.integrity.is_some_and(|source| source.hash().is_none());
        if self.mode == "bitmap" && is_above {
            let named = self.integrity();
            return Err(Failure::usage(format!("--mode bitmap needs a hash, and {named} is none")));
        }
        options.journal = given.journal;
        options.data_devices = given.data_devices;
        if !given.superblocks.is_empty() {
            return Err(Failure::usage("--superblock: is for reading what there is"));
        }
        options.legacy_padding = self.legacy_padding;
        options.legacy_hmac = self.legacy_hmac;
        options.tag_size = self.tag_size;
        options.sector_size = self.sector_size;
        options.journal_bytes =
            self.journal_size.as_deref().map(|s| size("--journal-size", s)).transpose()?;
        options.interleave_sectors = self.interleave_sectors;
        options.inline = self.mode == "inline";
        options.name.clone_from(&self.name);
        options.no_wipe = self.no_wipe;
        options.yes = self.yes;
        Ok(options)
    }

    fn integrity(&self) -> &str {
        let usual = if self.like.is_some() { "none" } else { "crc32c" };
        self.integrity.as_deref().unwrap_or(usual)
    }

    fn bitmap(&self, level: CreateLevel) -> Result<CreateBitmap, Failure> {
        let asked = match self.consistency_policy.as_deref() {
            None => self.bitmap.as_deref(),
            Some("bitmap") => Some("internal"),
            Some("ppl") => Some("ppl"),
            Some("resync") => Some("none"),
            Some("journal") if self.write_journal.is_some() => Some("none"),
            Some("journal") => {
                let why = "--consistency-policy journal: name its device with --write-journal";
                return Err(Failure::usage(why));
            }
            Some(other) => {
                return Err(not_made(
                    "--consistency-policy",
                    other,
                    "bitmap, ppl, journal, resync",
                ));
            }
        };
        let chunk = self.bitmap_chunk.as_deref().map(|s| size("--bitmap-chunk", s)).transpose()?;
        match asked {
            None if self.write_journal.is_some() && chunk.is_none() => Ok(CreateBitmap::None),
            None if self.like.is_some() && chunk.is_none() => Ok(CreateBitmap::LikeMdadm),
            Some("internal") | None => {
                let wanted = asked.is_some() || chunk.is_some();
                if wanted && !level.has_redundancy() {
                    let why = "--bitmap internal: is for arrays with redundancy";
                    return Err(Failure::usage(why));
                }
                let chunk = chunk.map(u32::try_from).transpose();
                let chunk_bytes = chunk.map_err(|_| {
                    Failure::usage("--bitmap-chunk: is a power of two from 4K to 2G")
                })?;
                Ok(CreateBitmap::Internal { chunk_bytes })
            }
            Some("ppl" | "none") if chunk.is_some() => {
                Err(Failure::usage("--bitmap-chunk: there is no bitmap"))
            }
            Some("ppl") if level != CreateLevel::Raid5 => {
                Err(Failure::usage("--bitmap ppl: a partial parity log is for RAID 5"))
            }
            Some("ppl") => Ok(CreateBitmap::PartialParity),
            Some("none") => Ok(CreateBitmap::None),
            Some(other) => Err(not_made("--bitmap", other, "internal, ppl, none")),
        }
    }

    /// The members and the write journal's device.
    fn devices(&self) -> Vec<String> {
        self.members.iter().chain(&self.write_journal).cloned().collect()
    }

    /// The same, and what their disks will not say, on a command line.
    fn spelled(&self) -> String {
        let integrity = match self.integrity() {
            "none" | "crc32c" => String::new(),
            other => format!(" --integrity {other}"),
        };
        format!("{}{integrity}{}", self.devices().join(" "), self.given.spelled())
    }
}

fn not_made(option: &str, found: &str, known: &str) -> Failure {
    Failure::usage(format!("{option} {found} is not among what can be made: {known}"))
}

fn only(option: &str, found: &str, known: &str) -> Result<(), Failure> {
    if found == known { Ok(()) } else { Err(not_made(option, found, known)) }
}

/// What a phase is called.
pub fn what_lies_ahead(phase: Phase) -> &'static str {
    match phase {
        Phase::Looking => "looking at the members",
        Phase::Writing => "writing",
    }
}

/// Makes it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let options = arguments.options()?;
    let dry_run = arguments.dry_run;
    let told = Rc::clone(context);
    let created = context.block_on(async move {
        let mut bar: Option<(Phase, Progress)> = None;
        let mut on_progress = |phase: Phase, progress: &CreateProgress| {
            let total = progress.total;
            match &bar {
                Some((current, bar)) if *current == phase => bar.set(progress.done),
                _ => {
                    // The old bar is cleared before the new one is drawn.
                    bar = None;
                    bar = Some((phase, told.report.progress(what_lies_ahead(phase), total)));
                }
            }
        };
        let made = if dry_run {
            stack::create::dry_run(&options, &mut on_progress).await
        } else {
            stack::create::create(&options, &mut on_progress).await
        };
        Ok(made?)
    })?;
    tell(context, &arguments, &created);
    Ok(Outcome::Fine)
}

fn tell(context: &Context, arguments: &Arguments, created: &Created) {
    let report = &context.report;
    if arguments.dry_run {
        for write in &created.writes {
            report.line(format!(
                "{}: byte {}, {} bytes within {}: {}",
                write.member, write.byte, write.bytes, write.span_bytes, write.kind
            ));
        }
    }
    let verb = if arguments.dry_run { "would make" } else { "made" };
    let size = human_sectors(created.sectors);
    let uuid = created.uuid.as_deref().map_or_else(String::new, |uuid| format!(", UUID {uuid}"));
    report.line(format!("{verb} a volume of {size} ({} sectors){uuid}", created.sectors));
    if created.dirty {
        report.line("its redundancy will be made true in the background when it is first opened");
    }
    let members = arguments.spelled();
    if !arguments.dry_run {
        report.line(format!("serve it:  steadfast serve {members} --nbd unix:PATH"));
    }
    let writes: Vec<_> = created
        .writes
        .iter()
        .map(|write| {
            json!({"member": write.member, "what": write.kind.to_string(), "byte": write.byte,
                "span_bytes": write.span_bytes, "bytes": write.bytes})
        })
        .collect();
    report.object(json!({
        "created": !arguments.dry_run,
        "dry_run": arguments.dry_run,
        "sectors": created.sectors,
        "bytes": created.sectors.saturating_mul(units::SECTOR),
        "uuid": created.uuid,
        "dirty": created.dirty,
        "members": arguments.members,
        "write_journal": arguments.write_journal,
        "writes": writes,
    }));
}
