//! `steadfast resize`: a lone dm-integrity volume becomes larger or smaller.

use super::open::{given, human_sectors, parse_members, size};
use super::{Context, given};
use crate::error::Failure;
use crate::exit::Outcome;
use crate::report::Progress;
use serde_json::{Value, json};
use stack::Member;
use stack::resize::{ResizeOptions, ResizeProgress, Resized, Step, dry_run, resize};
use std::rc::Rc;

/// Which volume, and how large.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file or device; a file is lengthened or cut, a device must have the size already
    #[arg(value_name = "MEMBER", required = true)]
    members: Vec<String>,

    /// Bytes that the member is to have (K, M, G, T), superblock, journal and tags included; with
    /// --data-device, bytes of the data
    #[arg(long, value_name = "SIZE")]
    size: String,

    /// What the tags are made with, if it shall not be found by trial
    #[arg(long, value_name = "ALG")]
    integrity: Option<String>,

    #[command(flatten)]
    given: given::Arguments,

    /// Cut off what lies behind the new end
    #[arg(long)]
    yes: bool,

    /// Print the list of writes and do none of them
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    fn options(&self) -> Result<ResizeOptions, Failure> {
        let mut members: Vec<Member> = parse_members(&self.members)?;
        if members.len() > 1 {
            let text = "a volume of several members cannot be resized: md's own size would have to \
                        change too";
            return Err(Failure::new(Outcome::Refused, text).advise("name one member"));
        }
        let given = given(self.integrity.as_deref(), &self.given, &self.members)?;
        Ok(ResizeOptions {
            member: members.remove(0),
            bytes: size("--size", &self.size)?,
            given,
            yes: self.yes,
        })
    }
}

/// Resizes it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let options = arguments.options()?;
    let dry = arguments.dry_run;
    let told = Rc::clone(context);
    let resized = context.block_on(async move {
        if dry {
            return Ok(dry_run(&options).await?);
        }
        let mut bar: Option<(Step, Progress)> = None;
        let mut on_progress = |progress: &ResizeProgress| {
            match &bar {
                Some((step, bar)) if *step == progress.step => {
                    bar.scale(progress.done, progress.total);
                }
                _ => {
                    // The old bar is cleared before the new one is drawn.
                    bar = None;
                    let label = match progress.step {
                        Step::Zeroes { .. } => "zeroing the new part",
                        Step::Tags { .. } => "writing its tags",
                        _ => "resizing",
                    };
                    bar = Some((progress.step, told.report.percent(label)));
                }
            }
            told.go_on()
        };
        Ok(resize(&options, &mut on_progress).await?)
    })?;
    Ok(tell(context, &arguments, &resized))
}

fn tell(context: &Context, arguments: &Arguments, resized: &Resized) -> Outcome {
    let report = &context.report;
    let (from, to) = (resized.from_sectors, resized.to_sectors);
    if arguments.dry_run {
        if resized.replay {
            report.line("replay of the journal");
        }
        resized.steps.iter().for_each(|step| report.line(step.to_string()));
    }
    let stopped = !arguments.dry_run && resized.made < resized.steps.len();
    if stopped {
        report
            .warn("interrupted; the volume has its old or its new size, the same command goes on");
    } else if resized.steps.is_empty() {
        report.line(format!("nothing to do: the volume has {} ({to} sectors)", human_sectors(to)));
    } else {
        let verb = if arguments.dry_run { "would resize" } else { "resized" };
        let (old, new) = (human_sectors(from), human_sectors(to));
        report.line(format!("{verb} the volume from {old} ({from} sectors) to {new} ({to})"));
    }
    let steps: Vec<Value> = resized.steps.iter().map(step).collect();
    report.object(json!({
        "member": arguments.members[0],
        "dry_run": arguments.dry_run,
        "from_sectors": from,
        "to_sectors": to,
        "replayed": resized.replay,
        "writes": steps,
        "made": resized.made,
        "complete": !stopped && !arguments.dry_run,
    }));
    if stopped { Outcome::Interrupted } else { Outcome::Fine }
}

fn step(step: &Step) -> Value {
    let range = |what: &str, byte: &u64, span_bytes: &u64, bytes: &u64| json!({"what": what, "byte": byte, "span_bytes": span_bytes, "bytes": bytes});
    match step {
        Step::ExtendMetadata { from, to } => {
            json!({"what": "lengthen the metadata device", "from_bytes": from, "to_bytes": to})
        }
        Step::Extend { from, to } => {
            json!({"what": "lengthen", "from_bytes": from, "to_bytes": to})
        }
        Step::Cut { from, to } => json!({"what": "cut", "from_bytes": from, "to_bytes": to}),
        Step::Zeroes { byte, span_bytes, bytes } => range("zeroes", byte, span_bytes, bytes),
        Step::Tags { byte, span_bytes, bytes } => {
            range("tags of zero blocks", byte, span_bytes, bytes)
        }
        Step::Superblock => json!({"what": "dm-integrity superblock", "byte": 0}),
    }
}
