//! `steadfast scrub`: reads every sector of every member, past every cache.

use super::open::{self, close, is_locked, size};
use super::status::{health, served_answer};
use super::{Context, upkeep};
use crate::control;
use crate::error::Failure;
use crate::exit::Outcome;
use bio::{Extent, Finding, ScrubMode};
use scrub::{Options, Summary, Total, word};
use serde_json::{Value, json};
use stack::{Running, Volume};
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
            "range": range.map(|extent| [extent.sector.0, extent.sectors])}))
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
pub fn options(request: &Value) -> Options {
    let check = request["check"].as_bool().unwrap_or(true);
    let mut options = Options::new(if check { ScrubMode::Check } else { ScrubMode::Repair });
    options.list_max = LISTED_MAX;
    options.bytes_per_second = request["rate"].as_u64();
    options.range = match (request["range"][0].as_u64(), request["range"][1].as_u64()) {
        (Some(first), Some(sectors)) => Some(Extent { sector: Sector(first), sectors }),
        _ => None,
    };
    options
}

/// Whether a walk makes sense: of an array whose shape is being changed, a stripe belongs to one
/// shape or to both, and is not checked.
pub fn checkable(volume: &Volume) -> Result<(), Failure> {
    let Some(reshape) = volume.status().reshape else { return Ok(()) };
    let text = format!("{reshape}, so its stripes cannot be checked");
    let advice = "read it all with 'steadfast export', or let the kernel finish the reshape";
    Err(Failure::new(Outcome::Refused, text).advise(advice))
}

/// Reads it all.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let request = arguments.request()?;
    let (told, walk, volume) = (Rc::clone(context), options(&request), arguments.volume.clone());
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
        if let Err(refused) = checkable(&volume) {
            return close(volume, Err(refused)).await;
        }
        let sectors = volume.device().limits().sectors;
        if walk.range.is_some_and(|r| r.sector.0.saturating_add(r.sectors) > sectors) {
            let wrong = Failure::usage(format!("--range: the volume has {sectors} sectors"));
            return close(volume, Err(wrong)).await;
        }
        let bar = told.report.percent(if check { "checking" } else { "scrubbing" });
        let summary = volume
            .scrub(&walk, |progress, _| {
                bar.scale(progress.done, progress.total);
                told.go_on()
            })
            .await;
        drop(bar);
        volume.scrubbed(walk.range, &summary).await;
        let outcome = outcome(&summary).max(members_only(&volume.status()));
        close(volume, Ok((object(&summary), outcome))).await
    });
    let (object, outcome) = match scrubbed {
        Err(failure) if served && is_locked(&failure) => {
            let bar = context.report.percent("scrubbing (by its server)");
            let names = arguments.volume.names()?;
            match control::ask(&names, &request, |done, total| bar.scale(done, total))? {
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
    context.report.object(object);
    if stopped {
        context.report.warn("interrupted; what was done stays done, start again to go on");
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
    let total = |Total { extents, sectors }| json!({"extents": extents, "sectors": sectors});
    let lines: Vec<Value> = summary
        .lines
        .iter()
        .map(|line| {
            json!({"finding": word(line.finding), "member": line.member.as_deref(),
                "sector": line.extent.sector.0, "sectors": line.extent.sectors})
        })
        .collect();
    json!({
        "checked_sectors": summary.checked_sectors,
        "healed": total(summary.total(Finding::Healed)),
        "healable": total(summary.total(Finding::Healable)),
        "resynced": total(summary.total(Finding::Resynced)),
        "unreadable": total(summary.total(Finding::Unreadable)),
        "inconsistent": total(summary.total(Finding::Inconsistent)),
        "findings": lines,
        "unlisted": summary.unlisted,
        "stopped_at_step": summary.stopped_at,
    })
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
    let words = ["healed", "healable", "resynced", "unreadable", "inconsistent"];
    let wrong: Vec<String> = words
        .into_iter()
        .filter_map(|word| {
            let sectors = object[word]["sectors"].as_u64().filter(|&sectors| sectors > 0)?;
            Some(format!("{word} {sectors} sectors"))
        })
        .collect();
    sum += &if wrong.is_empty() {
        ": nothing wrong".to_owned()
    } else {
        format!(": {}", wrong.join(", "))
    };
    lines.push(sum);
    lines
}
