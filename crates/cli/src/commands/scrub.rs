//! `steadfast scrub`: reads every sector of every member, past every cache.

use super::open::{self, close, is_locked, size};
use super::status::{health, served_answer};
use super::{Context, upkeep};
use crate::control;
use crate::error::Failure;
use crate::exit::Outcome;
use crate::opened::Opened;
use crate::position::{Position, Positions};
use bio::{Decision, Extent, ScrubMode, Trust};
use scrub::{FINDINGS, Options, Summary, Total, word};
use serde_json::{Value, json};
use stack::{Running, Volume};
use std::ops::ControlFlow;
use std::rc::Rc;
use units::Sector;

/// What to read, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// Write nothing, ever
    #[arg(long, alias = "dry-run")]
    check: bool,

    /// What to write where redundancy disagrees and no tag decides: 'inferred' is what redundancy alone
    /// names as wrong, on members without tags (P and Q of RAID 6; most of three or more copies)
    #[arg(long, value_name = "inferred", conflicts_with = "check")]
    repair: Option<Repair>,

    /// What is right where redundancy disagrees, on your word: data (parity is made anew), parity (RAID 6:
    /// the one data strip that P and Q name is computed), member=N (mirrors: the copy in slot N goes to
    /// the others), all-but=N (slot N is computed from the others, if they agree)
    #[arg(long, value_name = "data|parity|member=N|all-but=N", value_parser = trust,
        conflicts_with = "check")]
    trust: Option<Trust>,

    /// Go on where the last one was interrupted, in the part of the volume that it was to read
    #[arg(long = "continue", conflicts_with = "range")]
    go_on: bool,

    /// Only these sectors of the volume, the end excluded
    #[arg(long, value_name = "A-B")]
    range: Option<String>,

    /// Bytes of all members together in a second, at most (K, M, G)
    #[arg(long, value_name = "RATE")]
    rate: Option<String>,

    /// What becomes of a journal that is damaged; shows before what is lost either way
    #[arg(long, value_name = "replay|discard", conflicts_with = "check")]
    journal: Option<upkeep::Journal>,

    #[command(flatten)]
    recalculate: upkeep::Arguments,
}

/// What else is repaired.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Repair {
    /// What redundancy alone names
    Inferred,
}

fn trust(text: &str) -> Result<Trust, String> {
    let slot = |number: &str| number.parse().map_err(|_| format!("'{number}' is not a slot"));
    match text.split_once('=') {
        None if text == "data" => Ok(Trust::Data),
        None if text == "parity" => Ok(Trust::Parity),
        Some(("member", number)) => slot(number).map(Trust::Member),
        Some(("all-but", number)) => slot(number).map(Trust::AllBut),
        _ => Err("expected data, parity, member=N or all-but=N".to_owned()),
    }
}

fn trust_text(trust: Trust) -> String {
    match trust {
        Trust::Data => "data".to_owned(),
        Trust::Parity => "parity".to_owned(),
        Trust::Member(slot) => format!("member={slot}"),
        Trust::AllBut(slot) => format!("all-but={slot}"),
    }
}

/// Findings that are listed one by one.
const LISTED_MAX: usize = 1000;

impl Arguments {
    fn request(&self) -> Result<Value, Failure> {
        let range = self.range.as_deref().map(range).transpose()?;
        let rate = self.rate.as_deref().map(|text| size("--rate", text)).transpose()?;
        if rate == Some(0) {
            return Err(Failure::usage("--rate: 0 would never end"));
        }
        Ok(json!({"verb": "scrub", "check": self.check || self.volume.is_read_only(), "rate": rate,
            "inferred": self.repair == Some(Repair::Inferred), "continue": self.go_on,
            "trust": self.trust.map(trust_text), "range": range.map(|extent| [extent.sector.0, extent.sectors])}))
    }
}

fn range(text: &str) -> Result<Extent, Failure> {
    let wrong =
        || Failure::usage(format!("--range: '{text}' is not two sector numbers A-B, A < B"));
    let (first, end) = text.split_once('-').ok_or_else(wrong)?;
    let (first, end): (u64, u64) =
        (first.parse().map_err(|_| wrong())?, end.parse().map_err(|_| wrong())?);
    if first >= end {
        return Err(wrong());
    }
    Ok(Extent { sector: Sector(first), sectors: end - first })
}

/// The walk that `request` asks for.
fn options(request: &Value) -> Options {
    let check = request["check"].as_bool().unwrap_or(true);
    let inferred = request["inferred"].as_bool().unwrap_or(false);
    let trust = request["trust"].as_str().and_then(|text| trust(text).ok());
    let mut options = Options::new(match check {
        true => ScrubMode::Check,
        false if inferred || trust.is_some() => ScrubMode::Decide(Decision { inferred, trust }),
        false => ScrubMode::Repair,
    });
    options.list_max = LISTED_MAX;
    options.bytes_per_second = request["rate"].as_u64();
    options.range = match (request["range"][0].as_u64(), request["range"][1].as_u64()) {
        (Some(first), Some(sectors)) => Some(Extent { sector: Sector(first), sectors }),
        _ => None,
    };
    options
}

/// Walks through `volume` as `request` says, from where the last walk was stopped if that was asked for.
/// Where it is stopped is kept; the object says whether.
pub async fn walk(
    volume: &Opened,
    request: &Value,
    mut on_progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(Value, Outcome), Failure> {
    checkable(volume)?;
    let mut walk = options(request);
    if let Some(trust) = walk.mode.decision().trust {
        volume.check_trust(trust)?;
    }
    let sectors = volume.device().limits().sectors;
    if walk.range.is_some_and(|r| r.sector.0.saturating_add(r.sectors) > sectors) {
        return Err(Failure::usage(format!("--range: the volume has {sectors} sectors")));
    }
    if walk.mode.writes() && volume.is_read_only() {
        let text = "the volume is open for reading only: only --check is possible";
        return Err(Failure::new(Outcome::Refused, text.to_owned()));
    }
    let positions = Positions::new(volume.folder());
    let from = positions.load(sectors).filter(|_| request["continue"] == true);
    if let Some(from) = from {
        (walk.first_step, walk.range) = (from.next_step, from.range);
    }
    let walked = walk.range;
    let at = |next_step| Position { next_step, range: walked, sectors };
    let summary = volume
        .scrub(&walk, |progress, _| {
            positions.pass(at(progress.next_step));
            on_progress(progress.done, progress.total)
        })
        .await;
    let kept = match summary.stopped_at {
        Some(step) => positions.keep(at(step)),
        None => {
            positions.clear();
            false
        }
    };
    // What was found before it was stopped is not in this summary.
    if from.is_none() {
        volume.scrubbed(walked, &summary).await;
    }
    let mut object = object(&summary);
    object["continued_from_step"] = json!(from.map(|from| from.next_step));
    object["position_kept"] = json!(kept);
    Ok((object, outcome(&summary)))
}

/// Whether a walk makes sense: of an array whose shape is being changed, a stripe belongs to one
/// shape or to both, and is not checked.
fn checkable(volume: &Volume) -> Result<(), Failure> {
    let Some(reshape) = volume.status().reshape else { return Ok(()) };
    let text = format!("{reshape}, so its stripes cannot be checked");
    let advice = "read it all with 'steadfast export', or let the kernel finish the reshape";
    Err(Failure::new(Outcome::Refused, text).advise(advice))
}

/// Reads it all.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let request = arguments.request()?;
    let (told, asked, volume) = (Rc::clone(context), request.clone(), arguments.volume.clone());
    let check = arguments.check || arguments.volume.is_read_only();
    let (journal, recalculate) = (arguments.journal, arguments.recalculate);
    let served = journal.is_none() && !recalculate.any();
    if check && !served {
        let text = "--journal and --recalculate write, and this scrub only checks";
        return Err(Failure::usage(text).advise("leave --check or --mode recovery out"));
    }
    let scrubbed = context.block_on(async move {
        if journal.is_some() {
            upkeep::show_journals(&told, &volume).await?;
        }
        let damaged_journal = journal.map(Into::into);
        let running = Running { damaged_journal, ..recalculate.running(&told) };
        let volume = volume.open_as(&told, check, running).await?;
        if recalculate.any()
            && let Err(failure) = upkeep::recalculated(&told, &volume).await
        {
            return close(volume, Err(failure)).await;
        }
        let bar = told.report.percent(if check { "checking" } else { "scrubbing" });
        let walked = walk(&volume, &asked, |done, total| {
            bar.scale(done, total);
            told.go_on()
        });
        let walked = walked.await;
        drop(bar);
        let health = members_only(&volume.status());
        let walked = walked.map(|(object, outcome)| (object, outcome.max(health)));
        close(volume, walked).await
    });
    let (object, outcome) = match scrubbed {
        Err(failure) if served && is_locked(&failure) => {
            let bar = context.report.percent("scrubbing (by its server)");
            let names = arguments.volume.names()?;
            let on_progress = move |done, total| bar.scale(done, total);
            match control::ask_and_stop(context, &names, &request, on_progress)? {
                Some(answer) => served_answer(&answer)?,
                None => return Err(failure),
            }
        }
        scrubbed => scrubbed?,
    };
    for line in lines(&object) {
        context.report.line(line);
    }
    let stopped = object["stopped_at_step"].is_u64();
    let kept = object["position_kept"] == true;
    context.report.object(object);
    if stopped {
        context.report.warn(if kept {
            "interrupted; what was done stays done, go on with --continue"
        } else {
            "interrupted; what was done stays done, start again to go on"
        });
        return Ok(Outcome::Interrupted);
    }
    Ok(outcome)
}

/// The exit code of what was found.
pub fn outcome(summary: &Summary) -> Outcome {
    match summary.outcome() {
        scrub::Outcome::Healthy => Outcome::Fine,
        scrub::Outcome::Healed => Outcome::Warned,
        scrub::Outcome::Damaged => Outcome::DataLost,
    }
}

/// The exit code of members alone: what they lost in the past is the summary's to say.
fn members_only(status: &stack::VolumeStatus) -> Outcome {
    health(status).min(Outcome::Warned)
}

/// What was found, as one object.
pub fn object(summary: &Summary) -> Value {
    let lines: Vec<Value> = summary
        .lines
        .iter()
        .map(|line| {
            json!({"finding": word(line.finding), "member": line.member.as_deref(),
                "sector": line.extent.sector.0, "sectors": line.extent.sectors})
        })
        .collect();
    let mut object = json!({
        "checked_sectors": summary.checked_sectors,
        "members": members(summary),
        "findings": lines,
        "unlisted": summary.unlisted,
        "stopped_at_step": summary.stopped_at,
    });
    for finding in FINDINGS {
        object[word(finding)] = total(summary.total(finding));
    }
    object
}

fn total(Total { extents, sectors }: Total) -> Value {
    json!({"extents": extents, "sectors": sectors})
}

/// The sums of each member on which something was found.
fn members(summary: &Summary) -> Value {
    let mut members = json!({});
    for (name, totals) in summary.members() {
        for finding in FINDINGS {
            members[name][word(finding)] = total(totals.of(finding));
        }
    }
    members
}

/// The object as lines for a person.
pub fn lines(object: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in object["findings"].as_array().into_iter().flatten() {
        lines.push(format!(
            "{}: {} at sector {}, {} sectors",
            finding["member"].as_str().unwrap_or("volume"),
            finding["finding"].as_str().unwrap_or_default(),
            finding["sector"],
            finding["sectors"]
        ));
    }
    if object["unlisted"].as_u64().is_some_and(|count| count > 0) {
        lines.push(format!("and {} more", object["unlisted"]));
    }
    let checked = object["checked_sectors"].as_u64().unwrap_or_default();
    let mut sum = format!("checked {} of the members", open::human_sectors(checked));
    let wrong = counted(object);
    sum += &if wrong.is_empty() {
        ": nothing wrong".to_owned()
    } else {
        format!(": {}", wrong.join(", "))
    };
    lines.push(sum);
    if let Some(members) = object["members"].as_object().filter(|members| members.len() > 1) {
        let each =
            members.iter().map(|(name, sums)| format!("  {name}: {}", counted(sums).join(", ")));
        lines.extend(each);
    }
    if object["inferred"]["sectors"].as_u64().is_some_and(|sectors| sectors > 0) {
        lines.push(
            "what is inferred is likely, not proven: 'explain --sector N' shows it, 'scrub \
                    --repair inferred' writes it"
                .to_owned(),
        );
    }
    lines
}

/// What was found, kind by kind, in words.
fn counted(object: &Value) -> Vec<String> {
    let of_kind = |finding| {
        let sectors = object[word(finding)]["sectors"].as_u64().filter(|&sectors| sectors > 0)?;
        Some(format!("{} {sectors} sectors", word(finding)))
    };
    FINDINGS.into_iter().filter_map(of_kind).collect()
}
