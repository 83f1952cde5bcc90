//! `steadfast ledger`: what ever happened to a volume.
//!
//! Which ledger that is, the volume says, or its server, or `--state`. The file itself is then
//! read here: readers need no permission of whoever writes.

use super::open::{self, close, is_locked};
use super::status::{health_in, served_answer};
use super::{Context, status};
use crate::control;
use crate::error::Failure;
use crate::exit::Outcome;
use crate::opened::{Place, Review};
use ::ledger::{
    Account, Book, Kind, Ledger, LedgerError, Record, State, Time, Unresolved, printable,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const ABOUT: &str = "\
List what ever happened to the volume, and what of it is unresolved.

A mismatch or medium error is 'detected' when it is seen. It is repaired when the block is rebuilt, \
written back and read again; it is resolved when the place is read again and found fine, because \
somebody wrote it anew. Until then it is unresolved: detected, healable (redundancy has it, nothing \
was written), lost (nothing has it), or inconsistent (all tags valid, parity differs). Counters say \
what happened since the ledger began, or was cleared last; what is seen again unchanged is not \
counted again.

Without options: the counters of each member, and what is unresolved, newest first. With --state \
that ledger is read, and the members are not opened.";

const AFTER: &str = "\
FILES
  DIR/ledger.jsonl    one JSON object per line; docs/ledger.md describes it
  DIR is --state, else $XDG_STATE_HOME/steadfast/UUID or ~/.local/state/steadfast/UUID, for root
  /var/lib/steadfast/UUID; 'steadfast status' names it

EXIT STATUS
  0 nothing unresolved (or cleared); 1 something unresolved, all data right; 2 some data was lost
  or is inconsistent; else as every verb

EXAMPLES
  steadfast ledger a.img b.img --all --since 24h
  steadfast ledger a.img b.img --clear --member a.img";

/// Which ledger, and what to do with it.
#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Arguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// List every line, oldest first, not only what is unresolved
    #[arg(long, conflicts_with = "clear")]
    all: bool,

    /// Set the counters to zero and forget what is unresolved; what is still damaged will be
    /// found again
    #[arg(long)]
    clear: bool,

    /// Only this member, by its name or its lasting identity
    #[arg(long, value_name = "M")]
    member: Option<String>,

    /// Only what happened since then: 2026-01-31, 2026-01-31T12:00:00Z, or 36h
    #[arg(long, value_name = "T", conflicts_with = "clear")]
    since: Option<String>,
}

/// Unresolved entries that `status` shows.
const SHOWN_MAX: usize = 10;
/// Unresolved entries in a JSON object.
const LISTED_MAX: usize = 1000;

/// Lists it, or clears it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let since = arguments.since.as_deref().map(|text| Time::now().parse_since(text)).transpose();
    let since = since.map_err(|error| Failure::usage(format!("--since: {error}")))?;
    let (folder, devices) = locate(context, &arguments.volume)?;
    let mut ledger = Ledger::new(folder.clone());
    let book = ledger.refresh().map_err(failed)?;
    let device = arguments.member.as_deref().map(|member| device_of(book, member)).transpose()?;
    if arguments.clear {
        ledger.clear(device.as_deref()).map_err(failed)?;
        context.report.line(format!("cleared {}", arguments.member.as_deref().unwrap_or("all")));
        let cleared =
            json!({"folder": folder.display().to_string(), "cleared": true, "device": device});
        context.report.object(cleared);
        return Ok(Outcome::Fine);
    }
    let devices = devices.unwrap_or_else(|| known(book));
    let book = book.clone();
    let review = Review::new(folder, book, devices);
    let chosen = |entry: Option<&str>| device.is_none() || entry == device.as_deref();
    let mut unresolved = review.book.unresolved();
    unresolved.retain(|entry| {
        chosen(entry.device.as_deref()) && since.is_none_or(|since| entry.entry.time >= since)
    });
    let mut object = object_of(&review, &unresolved);
    if arguments.all {
        let mut events = Vec::new();
        let told = ::ledger::lines(&review.folder, |line| match line {
            Ok(record) if !chosen(record.device.as_deref()) => {}
            Ok(record) if since.is_some_and(|since| record.time < since) => {}
            Ok(record) => events.push(record),
            // The book has counted them.
            Err(_) => {}
        });
        told.map_err(failed)?;
        events.iter().filter(|record| is_event(record)).for_each(|record| {
            context.report.line(record.to_string());
        });
        object["events"] = json!(events);
    } else {
        context.report.line(format!("ledger   {}", review.folder.display()));
        members(&object).into_iter().for_each(|line| context.report.line(line));
        unresolved.iter().for_each(|entry| context.report.line(line_of(&json!(entry))));
    }
    remarks(&object).into_iter().for_each(|line| context.report.line(line));
    context.report.object(object);
    Ok(health_in(Some(&review)))
}

fn is_event(record: &Record) -> bool {
    !matches!(record.kind, Kind::Unknown)
}

fn failed(error: LedgerError) -> Failure {
    Failure::new(Outcome::Failed, error.to_string())
}

/// Where the ledger is, and the lasting identities of the members that are there, if it was asked.
fn locate(
    context: &Rc<Context>,
    arguments: &open::Arguments,
) -> Result<(PathBuf, Option<Vec<String>>), Failure> {
    match arguments.place() {
        Place::Folder(folder) => return Ok((folder, None)),
        Place::None => return Err(Failure::usage("--state none: then there is no ledger")),
        Place::Default => {}
    }
    let (told, asked) = (Rc::clone(context), arguments.clone());
    let opened = context.block_on(async move {
        let volume = asked.open(&told, true).await?;
        let review = volume.review().await;
        let found = status::object(&volume, review.as_ref(), &asked.spelled());
        close(volume, Ok(found)).await
    });
    let found = match opened {
        Err(failure) if is_locked(&failure) => {
            match control::ask(context, &arguments.names()?, &json!({"verb": "status"}), |_, _| ())?
            {
                Some(answer) => served_answer(&answer)?.0,
                None => return Err(failure),
            }
        }
        found => found?,
    };
    let Some(folder) = found["ledger"]["folder"].as_str() else {
        let text = "this volume has no ledger: no place is known for it, or it has no identity";
        return Err(Failure::new(Outcome::Failed, text).advise("name a folder with --state"));
    };
    let members = found["members"].as_array().into_iter().flatten();
    let devices = members.filter_map(|member| member["device"].as_str().map(str::to_owned));
    Ok((PathBuf::from(folder), Some(devices.collect())))
}

fn known(book: &Book) -> Vec<String> {
    book.accounts().filter_map(|(device, _)| device.map(str::to_owned)).collect()
}

/// The lasting identity of the member that is called `member`, now or then.
fn device_of(book: &Book, member: &str) -> Result<String, Failure> {
    let is_it = |device: &str, account: &Account| {
        let name = Path::new(&account.name);
        device == member || account.name == member || name.file_name() == Some(member.as_ref())
    };
    let mut accounts = book.accounts().filter_map(|(device, account)| Some((device?, account)));
    let found = accounts.find(|(device, account)| is_it(device, account));
    found.map(|(device, _)| device.to_owned()).ok_or_else(|| {
        let names = book.accounts().map(|(_, account)| account.name.as_str());
        let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
        let text = format!("--member {member}: the ledger knows nothing of it");
        let advice = match &names[..] {
            [] => "it is empty".to_owned(),
            names => format!("it knows {}", names.join(", ")),
        };
        Failure::new(Outcome::Usage, text).advise(advice)
    })
}

/// What `status` says of the ledger.
pub fn object(review: &Review) -> Value {
    object_of(review, &review.unresolved())
}

fn object_of(review: &Review, unresolved: &[Unresolved]) -> Value {
    let book = &review.book;
    let states = [State::Detected, State::Healable, State::Lost, State::Inconsistent];
    let members: Vec<Value> = book
        .accounts()
        .map(|(device, account)| {
            let mut line = json!(account.counters);
            line["name"] = json!(account.name);
            line["device"] = json!(device);
            let sectors = states.iter().map(|&state| account.sectors(state));
            line["unresolved_sectors"] = json!(sectors.fold(0, u64::saturating_add));
            line
        })
        .collect();
    let sectors = |state| review.sectors(state);
    json!({
        "folder": review.folder.display().to_string(),
        "since": book.since(),
        "members": members,
        "unresolved_sectors": {
            "detected": sectors(State::Detected),
            "healable": sectors(State::Healable),
            "lost": sectors(State::Lost),
            "inconsistent": sectors(State::Inconsistent),
        },
        "unresolved": unresolved.iter().take(LISTED_MAX).collect::<Vec<_>>(),
        "unresolved_entries": unresolved.len(),
        "unreadable_lines": book.unreadable_lines(),
        "dropped_events": book.dropped(),
        "error": review.error,
    })
}

/// The counters of each member as lines for a person.
fn members(ledger: &Value) -> Vec<String> {
    let Some(since) = ledger["since"].as_str() else {
        return vec!["         nothing has happened".to_owned()];
    };
    let mut lines = vec![format!("since    {since}")];
    lines.push(format!(
        "counted  {:>9} {:>7} {:>8} {:>7} {:>10}  name",
        "mismatch", "medium", "healed", "lost", "unresolved"
    ));
    for member in ledger["members"].as_array().into_iter().flatten() {
        lines.push(format!(
            "         {:>9} {:>7} {:>8} {:>7} {:>10}  {}",
            member["mismatches"].to_string(),
            member["medium_errors"].to_string(),
            member["healed_sectors"].to_string(),
            member["lost_sectors"].to_string(),
            member["unresolved_sectors"].to_string(),
            match member["name"].as_str() {
                Some("") | None => "(volume)".to_owned(),
                Some(name) => printable(name),
            },
        ));
    }
    lines
}

fn line_of(entry: &Value) -> String {
    let text = |name: &str| printable(entry[name].as_str().unwrap_or_default());
    let first = entry["sector"].as_u64().unwrap_or_default();
    let end = first.saturating_add(entry["sectors"].as_u64().unwrap_or_default());
    let member = Some(text("member")).filter(|name| !name.is_empty());
    let mut line = format!(
        "         {}  {:<12} {}{}: sectors {first}-{end}",
        text("time"),
        text("state"),
        member.as_deref().unwrap_or("volume"),
        if text("area") == "superblock" { ", superblock" } else { "" },
    );
    if let (Some(stored), Some(computed)) = (entry["stored"].as_str(), entry["computed"].as_str()) {
        let (stored, computed) = (printable(stored), printable(computed));
        line += &format!(", stored {stored}, the data says {computed}");
    }
    let detail = text("detail");
    if !detail.is_empty() {
        line += &format!(" ({detail})");
    }
    line
}

fn remarks(ledger: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |name: &str, what: &str| {
        if let Some(count) = ledger[name].as_u64().filter(|&count| count > 0) {
            lines.push(format!("         {count} {what}"));
        }
    };
    tell("unreadable_lines", "lines of it cannot be read and were left out");
    tell("dropped_events", "events were too many to be written");
    if let Some(error) = ledger["error"].as_str() {
        lines.push(format!("         not complete: {error}"));
    }
    lines
}

/// What `status` says of it to a person: `ledger` as [`object`] made it, perhaps elsewhere.
pub fn summary(ledger: &Value) -> Vec<String> {
    if ledger.is_null() {
        return vec!["ledger   none is kept".to_owned()];
    }
    let mut lines = vec![format!("ledger   {}", ledger["folder"].as_str().unwrap_or_default())];
    lines.extend(members(ledger));
    let entries = ledger["unresolved"].as_array().map_or(&[][..], Vec::as_slice);
    if !entries.is_empty() {
        lines.push(format!("newest   of {} unresolved", ledger["unresolved_entries"]));
        lines.extend(entries.iter().take(SHOWN_MAX).map(line_of));
    }
    lines.extend(remarks(ledger));
    lines
}
