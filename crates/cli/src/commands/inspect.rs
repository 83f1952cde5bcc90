//! `steadfast inspect`: what lies on the paths, field by field.

use super::open::{given, parse_members, sector_ranges};
use super::{Context, given};
use crate::error::Failure;
use crate::exit::Outcome;
use serde_json::json;
use stack::{
    Field, Given, Inspection, JournalInspection, JournalSection, Lost, Member, MemberInspection,
    Search,
};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files, block devices, nbd:// or nbd+unix:// URIs
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,

    /// What the tags are made with, if it shall not be found by trial
    #[arg(long, value_name = "ALG")]
    integrity: Option<String>,

    #[command(flatten)]
    given: given::Arguments,

    /// Search for dm-integrity superblocks that are lost, and say what they must have been
    #[arg(long)]
    find: bool,

    /// Write a superblock back that --find proves; refused where one is intact
    #[arg(long, requires = "find", conflicts_with = "to")]
    yes: bool,

    /// Write what --find finds to FILE, for '--superblock MEMBER=FILE'; of several to FILE.1, FILE.2, ...
    #[arg(long, requires = "find", value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Sections of a journal that are shown one by one.
const SECTIONS_MAX: usize = 64;

/// Shows it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let members = parse_members(&arguments.paths)?;
    let given = given(arguments.integrity.as_deref(), &arguments.given, &arguments.paths)?;
    if arguments.find {
        if arguments.to.is_some() && members.len() != 1 {
            return Err(Failure::usage("--to: takes one member at a time"));
        }
        return search(context, members, given, arguments.yes, arguments.to);
    }
    let told = Rc::clone(context);
    let inspection = context.block_on(async move { Ok(stack::inspect(&members, &given).await) })?;
    for member in &inspection.members {
        member_lines(member).iter().for_each(|line| told.report.line(line));
    }
    group_lines(&inspection).iter().for_each(|line| told.report.line(line));
    let outcome = outcome(&inspection);
    told.report.object(json!(inspection));
    // Nothing was found that makes a volume: that is said where errors are read, too.
    let problems = inspection.members.iter().map(|member| &member.problem);
    let problems = problems.chain(inspection.groups.iter().map(|group| &group.problem));
    if let (Outcome::Failed | Outcome::Refused, Some(problem)) =
        (outcome, problems.flatten().next())
    {
        told.report.warn(problem);
    }
    Ok(outcome)
}

/// Searches on each path; with `write`, restores what is proven.
fn search(
    context: &Rc<Context>,
    members: Vec<Member>,
    given: Given,
    write: bool,
    to: Option<PathBuf>,
) -> Result<Outcome, Failure> {
    let told = Rc::clone(context);
    context.block_on(async move {
        let mut outcome = Outcome::Fine;
        let mut searches = Vec::new();
        for member in &members {
            let search = stack::find(member, &given).await?;
            search_lines(&search).iter().for_each(|line| told.report.line(line));
            if !search.intact {
                let proven = search.lost.iter().any(|lost| lost.proven);
                outcome = outcome.max(if proven { Outcome::Warned } else { Outcome::Refused });
            }
            if let Some(path) = &to {
                for (lost, path) in search.lost.iter().zip(names(path, search.lost.len())) {
                    keep(lost, &path)?;
                    told.report.line(format!(
                        "  read it with it:  steadfast export {member} --superblock {member}={} ...",
                        path.display()
                    ));
                }
            }
            let restored = write && !stack::restore(member, &given).await?.intact;
            if restored {
                told.report.line(format!("{member}: the superblock was written back"));
            }
            searches.push(json!({"search": search, "restored": restored}));
        }
        told.report.object(json!({"searches": searches}));
        Ok(outcome)
    })
}

/// One file for each of `count`: the path itself, if there is only one.
fn names(path: &Path, count: usize) -> Vec<PathBuf> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    if count == 1 { vec![path.to_owned()] } else { (1..=count).map(numbered).collect() }
}

/// Writes what was lost to a new file.
fn keep(lost: &Lost, path: &Path) -> Result<(), Failure> {
    let file = File::options().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(&lost.area()));
    written.map_err(|error| Failure::io(format_args!("--to {}", path.display()), &error))
}

fn search_lines(search: &Search) -> Vec<String> {
    let mut lines = vec![search.member.clone()];
    let fields = |lines: &mut Vec<String>, fields: &[Field]| {
        lines.extend(fields.iter().map(|field| format!("    {:<26} {}", field.name, field.value)));
    };
    for found in &search.sightings {
        lines.push(format!("  a dm-integrity superblock at byte {}", found.byte));
        fields(&mut lines, &found.fields);
        let clauses = found.agrees.iter().map(|text| ("for it", text));
        let clauses = clauses.chain(found.doubts.iter().map(|text| ("against it", text)));
        lines.extend(clauses.map(|(side, text)| format!("    {side:<26} {text}")));
    }
    if search.intact {
        lines.push("  the superblock at its start is intact".to_owned());
        return lines;
    }
    for lost in &search.lost {
        let word = if lost.proven { "must have been" } else { "may have been" };
        lines.push(format!("  its superblock {word}"));
        fields(&mut lines, &lost.fields);
        let tags = lost.algorithm.as_deref().unwrap_or("not known");
        lines.push(format!("    {:<26} {tags}", "tags"));
        lines.extend(lost.reasons.iter().map(|text| format!("    {:<26} {text}", "because")));
    }
    if search.lost.is_empty() {
        lines.push("  no journal is left from which a volume could be found".to_owned());
    }
    lines.extend(search.unknown.iter().map(|text| format!("  cannot be known: {text}")));
    if search.lost.iter().any(|lost| lost.proven) {
        let name = &search.member;
        lines.push(format!("  write it back:  steadfast inspect {name} --find --yes"));
    }
    lines
}

/// 0: a volume, all of it, or an image of sectors and tuples. 1: a volume with something wrong. 3:
/// nothing that makes a volume; 4: a member could not be read.
fn outcome(inspection: &Inspection) -> Outcome {
    let found = |member: &MemberInspection| {
        member.integrity.is_some() || member.md.is_some() || !member.protection.is_empty()
    };
    let problem = inspection.members.iter().any(|member| member.problem.is_some())
        || inspection.groups.iter().any(|group| group.problem.is_some());
    if !inspection.members.iter().any(found) {
        let unread = inspection.members.iter().any(|member| member.kind.is_none());
        return if unread { Outcome::Failed } else { Outcome::Refused };
    }
    if problem { Outcome::Warned } else { Outcome::Fine }
}

fn member_lines(member: &MemberInspection) -> Vec<String> {
    let kind = member.kind.unwrap_or("not readable");
    let mut lines = vec![format!("{}: {kind}, {} bytes", member.name, member.bytes)];
    let fields = |lines: &mut Vec<String>, fields: &[Field]| {
        lines.extend(fields.iter().map(|field| format!("    {:<26} {}", field.name, field.value)));
    };
    if let Some(integrity) = &member.integrity {
        let note =
            if integrity.repaired { " (damaged on the member; as it must have been)" } else { "" };
        lines.push(format!("  dm-integrity superblock{note}"));
        fields(&mut lines, &integrity.fields);
        fields(&mut lines, &integrity.geometry);
        for (name, text) in [("tags", &integrity.algorithm), ("journal", &integrity.journal)] {
            lines.extend(text.as_ref().map(|text| format!("    {name:<26} {text}")));
        }
        if let Some(journal) = &integrity.journal_sections {
            lines.extend(journal_lines(journal));
        }
        lines.extend(listed("in doubt", &integrity.suspect));
        for restriction in &integrity.restrictions {
            lines.push(format!("    {:<26} {restriction}", "read-only because"));
        }
    }
    if let Some(md) = &member.md {
        let note = if md.repaired { " (damaged on the member; as it must have been)" } else { "" };
        lines.push(format!("  md superblock{note}"));
        fields(&mut lines, &md.fields);
        let checksum = if md.checksum_ok { "correct" } else { "WRONG" };
        lines.push(format!("    {:<26} {checksum}", "checksum"));
        lines.extend(md.refused.as_ref().map(|why| format!("    {:<26} {why}", "refused because")));
        if let Some(bitmap) = &md.bitmap {
            lines.push("  write-intent bitmap".to_owned());
            fields(&mut lines, bitmap);
            let why = md.bitmap_problem.as_ref();
            lines.extend(why.map(|why| format!("    {:<26} {why}", "not believed because")));
        }
        if let Some(log) = &md.partial_parity {
            lines.push("  partial parity log".to_owned());
            fields(&mut lines, log);
            let why = md.partial_parity_problem.as_ref();
            lines.extend(why.map(|why| format!("    {:<26} {why}", "not believed because")));
        }
        if let Some(journal) = &md.write_journal {
            lines.push("  write journal".to_owned());
            fields(&mut lines, journal);
            let why = md.write_journal_problem.as_ref();
            lines.extend(why.map(|why| format!("    {:<26} {why}", "damaged")));
        }
        lines.extend(listed("bad blocks", &md.bad_blocks));
        let why = md.bad_blocks_problem.as_ref();
        lines.extend(why.map(|why| format!("    {:<26} {why}", "all bad because")));
    }
    for (name, offset) in &member.signatures {
        lines.push(format!("  signature: {name} at byte {offset}"));
    }
    lines.extend(protection_lines(member));
    lines.extend(member.problem.as_ref().map(|problem| format!("  problem: {problem}")));
    lines
}

/// What the blocks look like, and how that is checked.
fn protection_lines(member: &MemberInspection) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, like) in member.protection.iter().enumerate() {
        let also = if index == 0 { "" } else { "or, which fits as well: " };
        let (layout, profile, verified) = (like.layout, &like.profile, like.verified);
        let sampled = verified + like.refuted;
        lines.push(format!(
            "  {also}protection information, {layout}, {profile} ({verified} of {sampled} sampled \
             intervals fit their guard)"
        ));
        let (path, options) = (&member.name, like.options());
        lines.push(format!(
            "    {:<26} steadfast dif verify {path} {options}",
            "check all of it with"
        ));
    }
    lines
}

/// The sections that hold something, or are not sound; the others are counted.
fn journal_lines(journal: &JournalInspection) -> Vec<String> {
    let telling = |section: &&JournalSection| !section.sound || !section.holds.is_empty();
    let told: Vec<&JournalSection> = journal.sections.iter().filter(telling).collect();
    let mut lines = Vec::new();
    for section in told.iter().take(SECTIONS_MAX) {
        let fate = if section.proven || section.holds.is_empty() { "" } else { ", not replayed" };
        let (number, state) = (section.section, &section.state);
        lines.push(format!("    {:<26} {state}{fate}", format!("section {number}")));
        lines.extend(listed("  holds", &section.holds));
    }
    if told.len() > SECTIONS_MAX {
        let more = told.len() - SECTIONS_MAX;
        lines.push(format!("    {more} more sections; --json has all of them"));
    }
    if journal.problem.is_some() {
        for (name, loses) in
            [("replay loses", &journal.replay_loses), ("discard loses", &journal.discard_loses)]
        {
            let nothing = loses.is_empty().then(|| format!("    {name:<26} nothing"));
            lines.extend(nothing.into_iter().chain(listed(name, loses)));
        }
    }
    lines
}

/// Ranges of sectors in one line, as many as a person reads; no line for none.
fn listed(name: &str, ranges: &[(u64, u64)]) -> Option<String> {
    let text = sector_ranges(ranges);
    (!ranges.is_empty()).then(|| format!("    {name:<26} {text}"))
}

fn group_lines(inspection: &Inspection) -> Vec<String> {
    let mut lines = Vec::new();
    for group in &inspection.groups {
        let names: Vec<&str> = group
            .members
            .iter()
            .filter_map(|&index| inspection.members.get(index).map(|member| member.name.as_str()))
            .collect();
        let uuid = group.uuid.as_deref().unwrap_or("no array");
        lines.push(format!("volume ({uuid}): {}", names.join(", ")));
        lines.extend(group.stack.as_ref().map(|stack| format!("  stack    {stack}")));
        lines.extend(group.problem.as_ref().map(|problem| format!("  problem  {problem}")));
        lines.extend(group.advice.as_ref().map(|advice| format!("  try      {advice}")));
    }
    lines
}
