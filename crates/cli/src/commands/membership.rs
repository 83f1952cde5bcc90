//! `steadfast add`, `replace`, `fail`, `remove`, `rebuild`: the members of an array change.
//!
//! A volume that is served is changed by its server, which is asked over its control socket and goes on
//! when whoever asked has left. Otherwise the volume is opened here, changed, and closed when it is
//! rebuilt or the program is interrupted; the rebuild then goes on with the next opening.

use super::create::what_lies_ahead;
use super::{Context, open, status};
use crate::control::{self, Teller};
use crate::error::Failure;
use crate::exit::Outcome;
use crate::opened::Opened;
use crate::report::Progress;
use serde_json::{Value, json};
use stack::create::{CreateProgress, Phase, PlannedWrite};
use stack::membership::{NewMember, Past};
use stack::{Member, MemberStatus};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Which member is to come.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// The file or device that is to become a member: it gets dm-integrity as the others have it, unless
    /// it was a member of this array before. With --data-device MEMBER=PATH it holds only metadata, and
    /// PATH its data
    #[arg(long, value_name = "MEMBER")]
    new: String,

    /// Overwrite what lies on it
    #[arg(long)]
    yes: bool,

    /// Print the list of writes and do none of them
    #[arg(long)]
    dry_run: bool,
}

/// Which member is to come in whose place.
#[derive(Debug, clap::Args)]
pub struct ReplaceArguments {
    /// The member that is to be replaced; it serves as a source until the new one is complete
    #[arg(long, value_name = "MEMBER")]
    old: String,

    #[command(flatten)]
    add: AddArguments,
}

/// Which member.
#[derive(Debug, clap::Args)]
pub struct MemberArguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// The member
    #[arg(long, value_name = "MEMBER")]
    member: String,

    /// Print the list of writes and do none of them
    #[arg(long)]
    dry_run: bool,
}

/// Which volume.
#[derive(Debug, clap::Args)]
pub struct RebuildArguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// Print what would be filled and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is to be changed.
#[derive(Clone, Debug)]
enum Change {
    Add(NewMember),
    Replace { old: String, new: NewMember },
    Fail(String),
    Remove(String),
    Rebuild,
}

/// Adds a member.
pub fn add(context: &Rc<Context>, mut arguments: AddArguments) -> Result<Outcome, Failure> {
    let change = Change::Add(new_member(&mut arguments)?);
    run(context, arguments.volume, change, arguments.dry_run)
}

/// Replaces a member.
pub fn replace(context: &Rc<Context>, arguments: ReplaceArguments) -> Result<Outcome, Failure> {
    let ReplaceArguments { old, mut add } = arguments;
    let change = Change::Replace { old, new: new_member(&mut add)? };
    run(context, add.volume, change, add.dry_run)
}

/// Gives a member up.
pub fn fail(context: &Rc<Context>, arguments: MemberArguments) -> Result<Outcome, Failure> {
    let MemberArguments { volume, member, dry_run } = arguments;
    run(context, volume, Change::Fail(member), dry_run)
}

/// Lets go of a member.
pub fn remove(context: &Rc<Context>, arguments: MemberArguments) -> Result<Outcome, Failure> {
    let MemberArguments { volume, member, dry_run } = arguments;
    run(context, volume, Change::Remove(member), dry_run)
}

/// Fills what is to be filled.
pub fn rebuild(context: &Rc<Context>, arguments: RebuildArguments) -> Result<Outcome, Failure> {
    run(context, arguments.volume, Change::Rebuild, arguments.dry_run)
}

fn new_member(arguments: &mut AddArguments) -> Result<NewMember, Failure> {
    let member = Member::parse(&arguments.new);
    let member = member.map_err(|error| Failure::usage(format!("--new: {error}")))?;
    let data = arguments.volume.given.take_data_device(&arguments.new)?;
    Ok(NewMember { member, data, yes: arguments.yes })
}

fn run(
    context: &Rc<Context>,
    volume: open::Arguments,
    change: Change,
    dry_run: bool,
) -> Result<Outcome, Failure> {
    let volume = Rc::new(volume);
    let resume = resume(&volume, &change);
    let (within, asked, made) = (Rc::clone(context), Rc::clone(&volume), change.clone());
    let done = context.block_on(async move {
        let opened = asked.open(&within, dry_run).await?;
        let result = if dry_run {
            plan(&within, &opened, &made).await
        } else {
            here(&within, &opened, &made).await
        };
        open::close(opened, result).await
    });
    let (object, outcome) = match done {
        Err(failure) if open::is_locked(&failure) && !dry_run => {
            there(context, &volume, &change).unwrap_or(Err(failure))?
        }
        done => done?,
    };
    tell(context, &object, outcome, &resume);
    context.report.object(object);
    Ok(outcome)
}

/// The command that goes on with what was interrupted.
fn resume(volume: &open::Arguments, change: &Change) -> String {
    let new = match change {
        Change::Add(NewMember { member, data, .. })
        | Change::Replace { new: NewMember { member, data, .. }, .. } => {
            let of_data = |data| format!(" --data-device {member}={data}");
            format!(" {member}{}", data.as_ref().map_or_else(String::new, of_data))
        }
        Change::Fail(_) | Change::Remove(_) | Change::Rebuild => String::new(),
    };
    format!("steadfast rebuild {}{new}", volume.spelled())
}

/// Changes a volume that was opened for it, and waits until it is rebuilt.
async fn here(
    context: &Rc<Context>,
    volume: &Opened,
    change: &Change,
) -> Result<(Value, Outcome), Failure> {
    let mut bar: Option<(Phase, Progress)> = None;
    let mut on_progress = |phase: Phase, progress: &CreateProgress| {
        if bar.as_ref().is_none_or(|(shown, _)| *shown != phase) {
            bar = None;
            bar = Some((phase, context.report.percent(what_lies_ahead(phase))));
        }
        if let Some((_, bar)) = &bar {
            bar.scale(progress.done, progress.total);
        }
    };
    let object = change.make(volume, &mut on_progress).await?;
    drop(bar);
    let bar = context.report.percent("rebuilding");
    let interrupted = wait(context, volume, |done, total| bar.scale(done, total)).await;
    drop(bar);
    Ok(result(volume, object, interrupted))
}

/// Answers the request of a program that asks this one, which serves the volume; none: it is another
/// request.
pub async fn answer(
    context: &Context,
    volume: &Opened,
    request: &Value,
    teller: &Teller,
) -> Option<Value> {
    let change = Change::of(request)?;
    let object = match change.make(volume, &mut |_, _| ()).await {
        Ok(object) => object,
        Err(failure) => {
            let (error, code) = (failure.to_string(), failure.outcome.code());
            return Some(json!({"error": error, "exit_code": code}));
        }
    };
    let told = Cell::new(0);
    let interrupted = wait(context, volume, |done, total| {
        let percent = done * 100 / total.max(1);
        if percent > told.replace(percent) {
            let teller = teller.clone();
            drop(runtime::spawn(async move { teller.progress(done, total).await }));
        }
    })
    .await;
    let (object, outcome) = result(volume, object, interrupted);
    Some(json!({"result": object, "exit_code": outcome.code()}))
}

/// Asks the volume's server; none: there is none.
fn there(
    context: &Context,
    volume: &open::Arguments,
    change: &Change,
) -> Option<Result<(Value, Outcome), Failure>> {
    let names = match volume.names() {
        Ok(names) => names,
        Err(failure) => return Some(Err(failure)),
    };
    context.report.detail("the volume is served: its server does it, also if this is interrupted");
    let bar = context.report.percent("rebuilding");
    let on_progress = move |done, total| bar.scale(done, total);
    match control::ask(context, &names, &change.request(), on_progress) {
        Ok(answer) => answer.map(|answer| status::served_answer(&answer)),
        Err(failure) => Some(Err(failure)),
    }
}

/// Waits while members are being filled; whether that was interrupted.
async fn wait(context: &Context, volume: &Opened, on_progress: impl Fn(u64, u64)) -> bool {
    loop {
        let (is_running, done, total) = volume.rebuilding();
        if !is_running {
            return false;
        }
        if context.interrupted() {
            return true;
        }
        on_progress(done, total);
        runtime::sleep(POLL).await;
    }
}

/// What it came to.
fn result(volume: &Opened, mut object: Value, interrupted: bool) -> (Value, Outcome) {
    let status = volume.status();
    let lost = |member: &MemberStatus| member.lacking_sectors + member.given_up_sectors;
    let lacking: u64 = status.members.iter().map(lost).sum();
    object["missing"] = json!(status.missing);
    object["lacking_sectors"] = json!(lacking);
    object["complete"] = json!(!interrupted && lacking == 0);
    let outcome = match (interrupted, lacking, status.missing) {
        (true, ..) => Outcome::Interrupted,
        (false, 1.., 0) => Outcome::DataLost,
        (false, 0, 0) => Outcome::Fine,
        _ => Outcome::Warned,
    };
    (object, outcome)
}

/// What would be written.
async fn plan(
    context: &Context,
    volume: &Opened,
    change: &Change,
) -> Result<(Value, Outcome), Failure> {
    if let Change::Replace { old: name, .. } | Change::Fail(name) | Change::Remove(name) = change {
        volume.may_leave(name)?;
    }
    let mut writes = match change {
        Change::Add(new) | Change::Replace { new, .. } => {
            volume.plan_member(new, &mut |_, _| ()).await?
        }
        Change::Fail(_) | Change::Remove(_) | Change::Rebuild => Vec::new(),
    };
    writes.extend(volume.planned_superblocks());
    for write in &writes {
        let PlannedWrite { member, kind, byte, bytes, .. } = write;
        context.report.line(format!("{member}: {kind}, {bytes} bytes at byte {byte}"));
    }
    let (_, done, total) = volume.rebuilding();
    if total > done {
        let bytes = crate::report::human((total - done).saturating_mul(units::SECTOR));
        context.report.line(format!("then {bytes} of members that are filled only in part"));
    }
    let mut object = change.request();
    object["dry_run"] = json!(true);
    object["writes"] = writes.iter().map(listed).collect();
    Ok((object, Outcome::Fine))
}

fn listed(write: &PlannedWrite) -> Value {
    let PlannedWrite { member, kind, byte, span_bytes, bytes } = write;
    let what = kind.to_string();
    json!({"member": member, "what": what, "byte": byte, "span_bytes": span_bytes, "bytes": bytes})
}

fn tell(context: &Context, object: &Value, outcome: Outcome, resume: &str) {
    if object["dry_run"] == json!(true) {
        return;
    }
    let report = &context.report;
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let slot = object["slot"].as_u64();
    let place = slot.map_or_else(|| "as a spare".to_owned(), |slot| format!("to slot {slot}"));
    match object["verb"].as_str() {
        Some("add") => report.line(format!("{}: added {place}", text("new"))),
        Some("replace") => report.line(format!("{}: replaces {}", text("new"), text("old"))),
        Some("fail") => report.line(format!("{}: given up, it is stale now", text("member"))),
        Some("remove") => report.line(format!("{}: let go", text("member"))),
        _ => {}
    }
    if let Some(missed) = object["missed_sectors"].as_u64() {
        report.line(format!("it was a member before and missed {missed} sectors, by the bitmap"));
    }
    if let Some(why) = object["whole_because"].as_str() {
        report.line(format!("it was a member before, and is filled whole: {why}"));
    }
    let lacking = object["lacking_sectors"].as_u64().unwrap_or(0);
    match outcome {
        Outcome::Interrupted => report.warn(format!("interrupted; it goes on with: {resume}")),
        _ if lacking > 0 => report.warn(format!(
            "{lacking} sectors could not be rebuilt and stay unreadable; see 'steadfast status'"
        )),
        Outcome::Fine => report.line("every slot has a complete member"),
        _ => report.line(format!("slots without a complete member: {}", object["missing"])),
    }
}

impl Change {
    /// As a server is asked for it.
    fn request(&self) -> Value {
        let asked = |verb: &str, new: &NewMember| {
            let mut asked = json!({"verb": verb, "yes": new.yes});
            asked["new"] = json!(absolute(&new.member).to_string());
            if let Some(data) = &new.data {
                asked["data_device"] = json!(absolute(data).to_string());
            }
            asked
        };
        match self {
            Self::Add(new) => asked("add", new),
            Self::Replace { old, new } => {
                let mut asked = asked("replace", new);
                asked["old"] = json!(absolute_name(old));
                asked
            }
            Self::Fail(member) => json!({"verb": "fail", "member": absolute_name(member)}),
            Self::Remove(member) => json!({"verb": "remove", "member": absolute_name(member)}),
            Self::Rebuild => json!({"verb": "rebuild"}),
        }
    }

    /// What is asked for; none: something else, or nonsense.
    fn of(request: &Value) -> Option<Self> {
        let text = |key: &str| request[key].as_str().map(ToOwned::to_owned);
        let new = || {
            let member = Member::parse(request["new"].as_str()?).ok()?;
            let data = match request.get("data_device") {
                Some(data) => Some(Member::parse(data.as_str()?).ok()?),
                None => None,
            };
            Some(NewMember { member, data, yes: request["yes"] == json!(true) })
        };
        Some(match request["verb"].as_str()? {
            "add" => Self::Add(new()?),
            "replace" => Self::Replace { old: text("old")?, new: new()? },
            "fail" => Self::Fail(text("member")?),
            "remove" => Self::Remove(text("member")?),
            "rebuild" => Self::Rebuild,
            _ => return None,
        })
    }

    /// Makes it; the rebuild that follows is waited for elsewhere.
    async fn make(
        &self,
        volume: &Opened,
        on_progress: &mut dyn FnMut(Phase, &CreateProgress),
    ) -> Result<Value, Failure> {
        let mut object = self.request();
        let added = match self {
            Self::Add(new) => volume.add(new, on_progress).await?,
            Self::Replace { old, new } => volume.replace(old, new, on_progress).await?,
            Self::Fail(member) => {
                volume.fail(member).await?;
                return Ok(object);
            }
            Self::Remove(member) => {
                volume.remove(member).await?;
                return Ok(object);
            }
            Self::Rebuild => {
                volume.rebuild()?;
                return Ok(object);
            }
        };
        object["slot"] = json!(added.slot);
        object["was_member"] = json!(added.past != Past::None);
        match added.past {
            Past::None => {}
            Past::Kept { missed_sectors, .. } => object["missed_sectors"] = json!(missed_sectors),
            Past::Forgotten { why } => object["whole_because"] = json!(why.to_string()),
        }
        object["writes"] = added.writes.iter().map(listed).collect();
        Ok(object)
    }
}

/// So that it means the same to a server, which runs elsewhere.
fn absolute(member: &Member) -> Member {
    let absolute = |path: &std::path::Path| std::path::absolute(path).unwrap_or(path.to_owned());
    match member {
        Member::Path(path) => Member::Path(absolute(path)),
        Member::Sectors { format, path } => {
            Member::Sectors { format: *format, path: absolute(path) }
        }
        other @ Member::Nbd(_) => other.clone(),
    }
}

fn absolute_name(name: &str) -> String {
    Member::parse(name).map_or_else(|_| name.to_owned(), |member| absolute(&member).to_string())
}

/// How often a rebuild is asked how far it is.
const POLL: Duration = Duration::from_millis(50);
