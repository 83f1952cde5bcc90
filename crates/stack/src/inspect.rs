//! What lies on paths, field by field, and what it would assemble to. Never writes.

use crate::dif_file::{Likeness, recognise};
use crate::given::Given;
use crate::journal::JournalInspection;
use crate::member::Member;
use crate::open::decide::{Decision, Rules, decide, describe_problem};
use crate::open::{kind_word, look};
use crate::places::stack_text;
use crate::probe::repair::repair;
use crate::probe::{IntegrityFound, MdFound, Probed, read_logs};
use crate::signature::Signature;
use crate::verdict::Fault;
use bio::{Events, IoError};
use layers::integrity::JournalState;
use md::superblock::{ResyncOffset, Superblock};
use serde::Serialize;
use units::Sector;

/// A field of a superblock: its usual name, and its value as text.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Field {
    /// As the format's own tools call it.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// The dm-integrity part of a member.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct IntegrityInspection {
    /// The superblock; empty if it cannot be made sense of.
    pub fields: Vec<Field>,
    /// What follows from it.
    pub geometry: Vec<Field>,
    /// What the tags are made with, and how that is known.
    pub algorithm: Option<String>,
    /// What the journal holds.
    pub journal: Option<String>,
    /// The same section by section; none where the area holds something else, or cannot be read.
    pub journal_sections: Option<JournalInspection>,
    /// First sector and sectors of the parts whose tags a crash in bitmap mode left in doubt.
    pub suspect: Vec<(u64, u64)>,
    /// Why it can only be opened read-only.
    pub restrictions: Vec<String>,
    /// Its bytes on the member are damaged; the fields are what they must have been.
    pub repaired: bool,
}

/// The md part of a member.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct MdInspection {
    /// The superblock; empty if it cannot be made sense of.
    pub fields: Vec<Field>,
    /// Whether its checksum holds.
    pub checksum_ok: bool,
    /// Why md would not take it, if so.
    pub refused: Option<String>,
    /// Its bytes on the member are damaged; the fields are what they must have been.
    pub repaired: bool,
    /// The write-intent bitmap, if the superblock names one; empty if it makes no sense.
    pub bitmap: Option<Vec<Field>>,
    /// Why the bitmap says nothing, if so.
    pub bitmap_problem: Option<String>,
    /// The partial parity log, if the superblock names one: its last record, and what that names, with
    /// whether its partial parity is whole.
    pub partial_parity: Option<Vec<Field>>,
    /// Why the log says nothing, if so.
    pub partial_parity_problem: Option<String>,
    /// The array's write journal, if this is its device.
    pub write_journal: Option<Vec<Field>>,
    /// What is wrong with the journal, if anything is.
    pub write_journal_problem: Option<String>,
    /// First sector and sectors of each entry of the bad block log, counted on the whole member.
    pub bad_blocks: Vec<(u64, u64)>,
    /// Why the log cannot be read, if so: then nothing on the member is known to be good.
    pub bad_blocks_problem: Option<String>,
}

/// A member.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemberInspection {
    /// As it was named.
    pub name: String,
    /// What it is.
    pub kind: Option<&'static str>,
    /// Its size in bytes.
    pub bytes: u64,
    /// dm-integrity, if anything like it is there.
    pub integrity: Option<IntegrityInspection>,
    /// md, if anything like it is there.
    pub md: Option<MdInspection>,
    /// Other formats, by name and byte offset.
    pub signatures: Vec<(String, u64)>,
    /// Protection information that its blocks look like, the best first, if there is nothing else.
    pub protection: Vec<Likeness>,
    /// What is wrong with it.
    pub problem: Option<String>,
}

/// Members that belong together, and what they make.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// The array's UUID; none: a volume of its own.
    pub uuid: Option<String>,
    /// Indexes of its members.
    pub members: Vec<usize>,
    /// The stack that they make, as text; none: they make nothing.
    pub stack: Option<String>,
    /// Why not, or what is missing.
    pub problem: Option<String>,
    /// What to try then.
    pub advice: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Each member, as named.
    pub members: Vec<MemberInspection>,
    /// What they make.
    pub groups: Vec<Group>,
}

/// Looks at members, each for itself and all together. A member that cannot be opened is reported,
/// not an error.
pub async fn inspect(members: &[Member], given: &Given) -> Inspection {
    let mut reports: Vec<MemberInspection> = Vec::new();
    let mut probed: Vec<(usize, Probed, Option<&'static str>)> = Vec::new();
    for (index, member) in members.iter().enumerate() {
        let mut report = MemberInspection { name: member.to_string(), ..Default::default() };
        match look_at(member, given).await {
            Ok((found, signatures)) => {
                report.kind = Some(kind_word(found.leaf.kind));
                report.bytes = Sector(found.leaf.device.limits().sectors).bytes();
                let named = signatures.iter().map(|found| (found.name.to_owned(), found.offset));
                report.signatures = named.collect();
                probed.push((index, found, foreign(&signatures)));
            }
            Err(problem) => report.problem = Some(problem),
        }
        reports.push(report);
    }
    let (mut indexes, mut found, mut signatures) = (Vec::new(), Vec::new(), Vec::new());
    for (index, member, foreign) in probed {
        indexes.push(index);
        found.push(member);
        signatures.push(foreign);
    }
    if let Err(error) = repair(&mut found, given, &Events::none()).await {
        for &index in &indexes {
            reports[index].problem.get_or_insert_with(|| error.to_string());
        }
    }
    read_logs(&mut found).await;
    for ((&index, member), signature) in indexes.iter().zip(&found).zip(&signatures) {
        let report = &mut reports[index];
        report.protection = protection(member, *signature, &members[index]);
        report.integrity = inspect_integrity(member).await;
        report.md = inspect_md(member);
        report.problem = report.problem.take().or_else(|| describe_problem(member));
    }
    // What is an image of sectors and tuples is no member of anything.
    let members = indexes.into_iter().zip(found).zip(signatures);
    let members = members.filter(|((index, _), _)| reports[*index].protection.is_empty());
    let (indexed, signatures): (Vec<_>, Vec<_>) = members.unzip();
    let (indexes, found) = indexed.into_iter().unzip();
    let groups = group(indexes, found, signatures);
    Inspection { members: reports, groups }
}

async fn look_at(member: &Member, given: &Given) -> Result<(Probed, Vec<Signature>), String> {
    let leaf = given.open_leaf(member, false).await.map_err(|error| error.to_string())?;
    let device = leaf.device.clone();
    let named = vec![(member.to_string().into(), Some(member.clone()), leaf)];
    let mut found = look(named, given, &Events::none()).await.map_err(|e| e.to_string())?;
    let failed = |error: IoError| error.to_string();
    let signatures = crate::content::signatures(&device).await.map_err(failed)?;
    Ok((found.remove(0), signatures))
}

/// What the blocks of a member look like on which nothing else was found.
fn protection(found: &Probed, signature: Option<&str>, member: &Member) -> Vec<Likeness> {
    let is_nothing = matches!(found.integrity, IntegrityFound::None)
        && matches!(found.md, MdFound::None)
        && signature.is_none();
    match member {
        // Whatever cannot be read has been told.
        Member::Path(path) if is_nothing => recognise(path).unwrap_or_default(),
        _ => Vec::new(),
    }
}

fn foreign(signatures: &[Signature]) -> Option<&'static str> {
    let ours = ["dm-integrity", "Linux md RAID"];
    signatures.iter().map(|found| found.name).find(|name| !ours.contains(name))
}

async fn inspect_integrity(member: &Probed) -> Option<IntegrityInspection> {
    let owned = |fields: Vec<(&'static str, String)>| {
        fields.into_iter().map(|(name, value)| Field { name, value }).collect()
    };
    match &member.integrity {
        IntegrityFound::None => None,
        IntegrityFound::Problem(_) => Some(IntegrityInspection::default()),
        IntegrityFound::Open(open) => {
            let trial = &open.trial;
            let algorithm = format!(
                "{} ({} of {} sampled blocks verify, {} were never written)",
                open.tagger.source(),
                trial.verified,
                trial.verified + trial.refuted,
                trial.unwritten
            );
            let restrictions = open.volume.restrictions().iter();
            let restrictions = restrictions
                .filter(|restriction| {
                    **restriction != layers::integrity::Restriction::ReadOnlyDevice
                })
                .map(ToString::to_string);
            // That it cannot be read says its state, as text.
            let report = open.volume.journal_report().await.ok().flatten();
            let block = open.layout.block.sectors();
            let suspect = open.volume.suspect().into_iter();
            Some(IntegrityInspection {
                journal_sections: report.map(|report| JournalInspection::of(&report, block)),
                suspect: suspect.map(|(sector, sectors)| (sector.0, sectors)).collect(),
                fields: owned(integrity::explain::fields(open.volume.superblock())),
                geometry: owned(integrity::explain::geometry(&open.layout)),
                algorithm: Some(algorithm),
                journal: Some(journal_text(open.volume.journal_state())),
                restrictions: restrictions.collect(),
                repaired: open.repaired.is_some(),
            })
        }
    }
}

fn journal_text(state: &JournalState) -> String {
    match state {
        JournalState::Clean => "clean".to_owned(),
        JournalState::Replayed { entries } => format!("{entries} entries were replayed"),
        JournalState::Overlaid { entries } => format!("{entries} entries not yet replayed"),
        JournalState::Damaged(error) => format!("damaged: {error}"),
        JournalState::Mended(_) => "was damaged and is made anew".to_owned(),
        JournalState::Bitmap => "holds the dirty bitmap".to_owned(),
        JournalState::Absent => "none: each tag lies with its block".to_owned(),
        JournalState::Ignored => "not looked at (recovery mode)".to_owned(),
    }
}

fn inspect_md(member: &Probed) -> Option<MdInspection> {
    match &member.md {
        MdFound::None => None,
        MdFound::Problem(_) => Some(MdInspection::default()),
        MdFound::Sound { superblock, repaired } => {
            let sectors = member.inner().map_or(0, |inner| inner.limits().sectors);
            let (bitmap, bitmap_problem) = inspect_bitmap(member, superblock).unzip();
            let (partial_parity, partial_parity_problem) = inspect_ppl(member).unzip();
            let (write_journal, write_journal_problem) = inspect_journal(member).unzip();
            let log = member.logs.bad_blocks.as_ref();
            let entries = log.map(|log| log.ranges().map(|bad| (bad.start, bad.end - bad.start)));
            Some(MdInspection {
                bad_blocks: entries.map(Iterator::collect).unwrap_or_default(),
                bad_blocks_problem: log.err().map(ToString::to_string),
                bitmap,
                bitmap_problem: bitmap_problem.flatten(),
                partial_parity,
                partial_parity_problem: partial_parity_problem.flatten(),
                write_journal,
                write_journal_problem: write_journal_problem.flatten(),
                fields: md_fields(superblock),
                checksum_ok: !repaired,
                refused: superblock.validate(sectors).err().map(|error| error.to_string()),
                repaired: *repaired,
            })
        }
    }
}

/// The header of the bitmap and what its bits amount to, as `mdadm --examine-bitmap` has them; and why
/// they say nothing, if so.
fn inspect_bitmap(
    member: &Probed,
    superblock: &Superblock,
) -> Option<(Vec<Field>, Option<String>)> {
    let bitmap = match member.logs.bitmap.as_ref()? {
        Ok(bitmap) => bitmap,
        Err(problem) => return Some((Vec::new(), Some(problem.to_string()))),
    };
    let header = bitmap.header();
    let (count, dirty) = (header.bit_count(), bitmap.dirty_count());
    let mut fields = Vec::new();
    let mut push = |name, value: String| fields.push(Field { name, value });
    push("version", header.version().to_string());
    push("uuid", header.set_uuid().to_string());
    push("events", header.events().to_string());
    push("events_cleared", header.events_cleared().to_string());
    push("state", format!("{:#x}", header.state()));
    push("chunksize", format!("{} bytes", header.chunk_bytes()));
    push("daemon_sleep", format!("{} s", header.daemon_sleep_seconds()));
    push("write_behind", header.write_behind().to_string());
    push("sync_size", header.sync_sectors().to_string());
    push("bits", format!("{count} (chunks), {dirty} dirty"));
    Some((fields, header.believe(superblock).err().map(|why| why.to_string())))
}

/// The last record of the partial parity log, and what its entries name; and why it says nothing, if so.
fn inspect_ppl(member: &Probed) -> Option<(Vec<Field>, Option<String>)> {
    let log = match member.logs.ppl.as_ref()? {
        Ok(log) => log,
        Err(problem) => return Some((Vec::new(), Some(problem.to_string()))),
    };
    let (last, records) = (log.last(), log.records().len());
    let field = |name, value: String| Field { name, value };
    let mut fields = vec![
        field("records", format!("{records}, the last at byte {}", last.start_bytes)),
        field("generation", last.generation.to_string()),
        field("entries", last.entries.len().to_string()),
    ];
    for logged in &last.entries {
        let md::ppl::Entry { data_sector, parity_bytes, data_bytes, parity_slot, checksum } =
            logged.entry;
        let whole = if logged.is_intact() { "correct" } else { "WRONG: nothing of it was written" };
        let value = format!(
            "data_sector {data_sector}, data_size {data_bytes}, pp_size {parity_bytes}, parity_disk \
             {parity_slot}, checksum {checksum:#010x} {whole}"
        );
        fields.push(field("entry", value));
    }
    Some((fields, None))
}

/// What the array's write journal holds; and what is wrong with it, if anything is.
fn inspect_journal(member: &Probed) -> Option<(Vec<Field>, Option<String>)> {
    let journal = match member.write_journal.as_ref()? {
        Ok(journal) => journal,
        Err(problem) => return Some((Vec::new(), Some(problem.to_string()))),
    };
    let fields = journal.fields().into_iter().map(|(name, value)| Field { name, value });
    Some((fields.collect(), journal.damage().map(|damage| damage.to_string())))
}

/// The fields of an md superblock (the md specification, section 2), in the order of their bytes.
fn md_fields(superblock: &Superblock) -> Vec<Field> {
    let features = superblock.features();
    let names: Vec<&str> = features.names().collect();
    let roles = superblock.roles().zip(0..).filter(|(role, number): &(_, u32)| {
        *number < superblock.raid_disks() || *role != md::superblock::Role::Spare
    });
    let roles: Vec<String> = roles.map(|(role, number)| format!("{number}: {role}")).collect();
    let resync = match superblock.resync() {
        ResyncOffset::Clean => "clean".to_owned(),
        ResyncOffset::Below(sector) => format!("{sector} (not in sync from there on)"),
    };
    let role = superblock.role().map_or_else(|| "outside".to_owned(), |role| role.to_string());
    let time = |time: md::superblock::Time| {
        format!("{}.{:06} (seconds since 1970)", time.seconds(), time.microseconds())
    };
    let mut fields = Vec::new();
    let mut push = |name, value: String| fields.push(Field { name, value });
    push("version", superblock.minor().to_string());
    push("feature_map", format!("{:#x} {}", features.0, names.join(" ")).trim_end().to_owned());
    push("set_uuid", superblock.set_uuid().to_string());
    push("set_name", superblock.name());
    push("ctime", time(superblock.ctime()));
    push("level", superblock.level().to_string());
    let layout = superblock.layout_name().map_or_else(String::new, |name| format!(" ({name})"));
    push("layout", format!("{}{layout}", superblock.layout()));
    push("size", superblock.size().to_string());
    push("chunksize", superblock.chunk_sectors().to_string());
    push("raid_disks", superblock.raid_disks().to_string());
    if let Some(sector) = superblock.bitmap_sector() {
        push("bitmap_sector", sector.to_string());
    }
    if let Some(ppl) = superblock.ppl() {
        push("ppl", format!("{} sectors at {}", ppl.sectors, ppl.sector));
    }
    push("data_offset", superblock.data_offset().to_string());
    push("data_size", superblock.data_size().to_string());
    push("super_offset", superblock.super_offset().to_string());
    if let Some(sector) = superblock.recovery_offset() {
        push("recovery_offset", sector.to_string());
    }
    push("dev_number", superblock.dev_number().to_string());
    push("role", role);
    push("cnt_corrected_read", superblock.corrected_reads().to_string());
    push("device_uuid", superblock.device_uuid().to_string());
    let flags = superblock.device_flags();
    let names: Vec<&str> = flags.names().collect();
    push("devflags", format!("{:#x} {}", flags.0, names.join(" ")).trim_end().to_owned());
    push("utime", time(superblock.utime()));
    push("events", superblock.events().to_string());
    push("resync_offset", resync);
    push("sb_csum", format!("{:#010x}", superblock.stored_checksum()));
    push("dev_roles", roles.join(", "));
    fields
}

/// Puts members together: those of one array, and each other volume for itself. Members without a
/// superblock go with the only array there is, as what is left of them may be its own.
fn group(
    indexes: Vec<usize>,
    found: Vec<Probed>,
    signatures: Vec<Option<&'static str>>,
) -> Vec<Group> {
    type Sorted = (Option<String>, Vec<usize>, Vec<Probed>, Vec<Option<&'static str>>);
    let mut groups: Vec<Sorted> = Vec::new();
    let mut rest: Vec<(usize, Probed, Option<&'static str>)> = Vec::new();
    for ((index, member), signature) in indexes.into_iter().zip(found).zip(signatures) {
        let uuid = member.md().map(|superblock| superblock.set_uuid().to_string());
        if uuid.is_none() {
            rest.push((index, member, signature));
            continue;
        }
        match groups.iter_mut().find(|group| group.0 == uuid) {
            Some(group) => {
                group.1.push(index);
                group.2.push(member);
                group.3.push(signature);
            }
            None => groups.push((uuid, vec![index], vec![member], vec![signature])),
        }
    }
    let only_array = groups.len() == 1;
    for (index, member, signature) in rest {
        if only_array && member.open_integrity().is_none() && signature.is_none() {
            groups[0].1.push(index);
            groups[0].2.push(member);
            groups[0].3.push(signature);
        } else {
            groups.push((None, vec![index], vec![member], vec![signature]));
        }
    }
    let judge = |(uuid, members, mut probed, foreign): Sorted| {
        let rules = Rules { read_only: true, force: false, as_given: false };
        match decide(&mut probed, &foreign, rules) {
            Ok(decision) => {
                let problem = degraded_text(&probed, &decision);
                let stack = Some(stack_text(&probed, &decision));
                Group { uuid, members, stack, problem, advice: None }
            }
            Err(error) => {
                let (problem, advice) = (Some(error.to_string()), error.advice());
                Group { uuid, members, stack: None, problem, advice }
            }
        }
    };
    groups.into_iter().map(judge).collect()
}

fn degraded_text(members: &[Probed], decision: &Decision) -> Option<String> {
    let Decision::Array(array) = decision else { return None };
    let missing = array.assembly.missing_count();
    let mut lines: Vec<String> = Vec::new();
    if missing > 0 {
        lines.push(format!("degraded, {missing} of {} slots empty", array.assembly.slots.len()));
    }
    if array.assembly.resync != ResyncOffset::Clean {
        lines.push("was not closed cleanly".to_owned());
    }
    for (index, why) in &array.left_out {
        lines.push(format!("{} is left out: {why}", members[*index].name));
    }
    (!lines.is_empty()).then(|| lines.join("; "))
}
