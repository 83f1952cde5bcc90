//! `steadfast status`: the volume on one screen.
//!
//! What is shown is made as one JSON object first: `--json` prints it, people get lines made of it,
//! and a running server sends it over its control socket.

use super::Context;
use super::ledger;
use super::open::{self, close, human_sectors, is_locked, sector_ranges};
use crate::control;
use crate::error::Failure;
use crate::exit::Outcome;
use crate::opened::Review;
use crate::report::Report;
use ::ledger::State;
use serde_json::{Value, json};
use stack::{MemberState, MemberStatus, Volume, VolumeStatus};
use std::rc::Rc;

/// How a volume is, as an exit code: lost data, or something wrong, or nothing.
pub fn health(status: &VolumeStatus) -> Outcome {
    if status.members.iter().any(|member| member.counters.lost_sectors > 0) {
        Outcome::DataLost
    } else if status.is_healthy() {
        Outcome::Fine
    } else {
        Outcome::Warned
    }
}

/// The volume's health with what was lost in the volume as a whole.
pub fn health_of(volume: &Volume) -> Outcome {
    if volume.lost_sectors() > 0 { Outcome::DataLost } else { health(&volume.status()) }
}

/// What is unresolved, as an exit code. What was healed, or found fine since, alarms nobody.
pub fn health_in(review: Option<&Review>) -> Outcome {
    let Some(review) = review else { return Outcome::Fine };
    let sectors = |states: [State; 2]| states.iter().any(|&state| review.sectors(state) > 0);
    if sectors([State::Lost, State::Inconsistent]) {
        Outcome::DataLost
    } else if sectors([State::Detected, State::Healable]) {
        Outcome::Warned
    } else {
        Outcome::Fine
    }
}

/// Shows it.
pub fn run(context: &Rc<Context>, arguments: open::Arguments) -> Result<Outcome, Failure> {
    let (told, asked) = (Rc::clone(context), arguments.clone());
    let opened = context.block_on(async move {
        let volume = asked.open(&told, true).await?;
        let review = volume.review().await;
        let outcome = health_of(&volume).max(health_in(review.as_ref()));
        let found = (object(&volume, review.as_ref(), &asked.spelled()), outcome);
        close(volume, Ok(found)).await
    });
    let (object, outcome) = match opened {
        Err(failure) if is_locked(&failure) => {
            match control::ask(context, &arguments.names()?, &json!({"verb": "status"}), |_, _| ())?
            {
                Some(answer) => served_answer(&answer)?,
                None => return Err(failure),
            }
        }
        opened => opened?,
    };
    for line in lines(&object) {
        context.report.line(line);
    }
    context.report.object(object);
    Ok(outcome)
}

/// What a server answered: the result and its exit code.
pub fn served_answer(answer: &Value) -> Result<(Value, Outcome), Failure> {
    let outcome = match answer["exit_code"].as_u64() {
        Some(0) => Outcome::Fine,
        Some(1) => Outcome::Warned,
        Some(2) => Outcome::DataLost,
        Some(3) => Outcome::Refused,
        _ => Outcome::Failed,
    };
    match answer["error"].as_str() {
        Some(error) => Err(Failure::new(outcome, error)),
        None => Ok((answer["result"].clone(), outcome)),
    }
}

/// All that is known of `volume`, which was named as `spelled`.
pub fn object(volume: &Volume, review: Option<&Review>, spelled: &str) -> Value {
    let status = volume.status();
    let mut object = json!(status);
    let (mut state, mut why) = state(&status);
    let unresolved = health_in(review);
    if unresolved > Outcome::Fine {
        why.push("its ledger has unresolved entries, see below".to_owned());
        if state == "healthy" {
            state = "healthy, with remarks";
        }
    }
    if volume.lost_sectors() > 0 || unresolved == Outcome::DataLost {
        state = "damaged: some data cannot be read";
    }
    object["state"] = json!(state);
    object["why"] = json!(why);
    object["action"] = json!(action(volume, &status, unresolved, spelled));
    object["bytes"] = json!(status.sectors.saturating_mul(units::SECTOR));
    if let Some(Value::Array(members)) = object.get_mut("members") {
        for (line, member) in members.iter_mut().zip(&status.members) {
            let counters = &member.counters;
            if member.data_sectors > 0 {
                line["filled_percent"] = json!(filled_percent(member));
            }
            line["mismatches"] = json!(counters.mismatches);
            line["medium_errors"] = json!(counters.medium_errors);
            line["healed_sectors"] = json!(counters.healed_sectors);
            line["healable_sectors"] = json!(counters.healable_sectors);
            line["lost_sectors"] = json!(counters.lost_sectors);
            line["device"] = json!(volume.device_identity(&member.name));
        }
    }
    object["ledger"] = json!(review.map(ledger::object));
    object["lost_sectors"] = json!(volume.lost_sectors());
    object["events"] =
        volume.log().last().iter().map(|event| Value::String(event.to_string())).collect();
    object
}

/// How much of what belongs on a member is there.
fn filled_percent(member: &MemberStatus) -> u64 {
    let filled = u128::from(member.data_sectors - member.lacking_sectors.min(member.data_sectors));
    let percent = filled * 100 / u128::from(member.data_sectors.max(1));
    u64::try_from(percent).unwrap_or(100)
}

fn state(status: &VolumeStatus) -> (&'static str, Vec<String>) {
    let mut why = Vec::new();
    for member in &status.members {
        if let Some(problem) = &member.problem {
            why.push(format!("{}: {problem}", member.name));
        }
        match member.state {
            MemberState::Missing => {
                let slot = member.slot.unwrap_or_default();
                why.push(format!("slot {slot} has no member"));
            }
            MemberState::Failed => why.push(format!("{} stopped answering", member.name)),
            MemberState::Rebuilding => {
                let (name, filled) = (&member.name, filled_percent(member));
                why.push(format!("{name} is filled only in part: {filled} %"));
            }
            MemberState::Replacing => {
                let (name, filled) = (&member.name, filled_percent(member));
                let slot = member.slot.unwrap_or_default();
                why.push(format!("{name} is to replace the member in slot {slot}: {filled} %"));
            }
            MemberState::Replaced => why.push(format!("{} was replaced", member.name)),
            MemberState::InSync
            | MemberState::Spare
            | MemberState::Journal
            | MemberState::LeftOut => {}
        }
        if let Some(sector) = member.recalculated_below {
            let from = &member.name;
            why.push(format!(
                "{from} has tags that are known to be valid below sector {sector} only"
            ));
        }
        if !member.suspect.is_empty() {
            let sectors: u64 = member.suspect.iter().map(|(_, sectors)| sectors).sum();
            let (name, where_) = (&member.name, sector_ranges(&member.suspect));
            why.push(format!(
                "{name} was in bitmap mode at a crash: {sectors} sectors in doubt, its {where_}"
            ));
        }
        if member.counters.any() {
            why.push(format!("{} has damaged blocks, see its counters", member.name));
        }
    }
    if status.unverified_blocks > 0 {
        let count = status.unverified_blocks;
        why.push(format!("{count} blocks that nothing vouches for were given out, as asked"));
    }
    if let Some(sector) = status.synced_below {
        why.push(format!(
            "it was not closed cleanly: redundancy is true below member sector {sector} only"
        ));
    }
    if let Some(reshape) = &status.reshape {
        why.push(format!("{reshape}; it is read on both sides, and not continued here"));
    }
    let degraded = status.missing > 0;
    let state = match (degraded, status.synced_below, why.is_empty()) {
        (true, Some(_), _) => "degraded, not in sync",
        (true, None, _) => "degraded",
        (false, Some(_), _) => "not in sync",
        (false, None, false) => "healthy, with remarks",
        (false, None, true) => "healthy",
    };
    (state, why)
}

/// What to do next: a command where there is one.
fn action(volume: &Volume, status: &VolumeStatus, unresolved: Outcome, spelled: &str) -> String {
    if volume.lost_sectors() > 0 || unresolved == Outcome::DataLost {
        return format!(
            "steadfast scrub --check {spelled}   (lists what is lost; write it again, whole, from \
             a copy)"
        );
    }
    if volume.is_read_only() && status.synced_below.is_some() {
        return format!("steadfast scrub {spelled}   (makes redundancy true again)");
    }
    let state = |wanted| status.members.iter().find(|member| member.state == wanted);
    let filling = state(MemberState::Rebuilding).or_else(|| state(MemberState::Replacing));
    if filling.is_some() && status.rebuilding {
        return "nothing; it is being rebuilt, see the members below".to_owned();
    }
    if filling.is_some() {
        return format!("steadfast rebuild {spelled}   (fills what is filled only in part)");
    }
    if let (0, Some(old)) = (status.missing, state(MemberState::Replaced)) {
        let name = &old.name;
        return format!("steadfast remove {spelled} --member {name}   (it is not needed any more)");
    }
    if status.missing > 0 {
        let more = status.spare_redundancy;
        return format!(
            "bring the missing members back and name them too, or give the array another: \
             steadfast add {spelled} --new MEMBER; {more} more may fail before data is lost"
        );
    }
    if status.reshape.is_some() {
        return format!(
            "steadfast export {spelled} --to FILE   (or let the kernel finish the reshape)"
        );
    }
    if status.members.iter().any(|member| member.recalculated_below.is_some()) {
        return format!("steadfast scrub {spelled} --recalculate   (computes the other tags)");
    }
    if status.members.iter().any(|member| !member.suspect.is_empty()) {
        let mode = if spelled.contains(" --mode ") { "" } else { " --mode bitmap" };
        let rest = match status.level {
            Some(_) => "redundancy heals what does not fit",
            None => "--recalculate too takes for right what lies there",
        };
        return format!("steadfast scrub {spelled}{mode}   (what fits is not in doubt; {rest})");
    }
    let damaged = status.members.iter().any(|member| member.counters.any());
    if damaged || unresolved > Outcome::Fine {
        return format!("steadfast scrub {spelled}");
    }
    format!("nothing; read everything now and then: steadfast scrub {spelled}")
}

/// The object as lines for a person.
pub fn lines(object: &Value) -> Vec<String> {
    let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
    let level = match object["level"].as_str() {
        Some(level) => {
            let chunk = object["chunk_sectors"].as_u64().map_or_else(String::new, |sectors| {
                format!(", chunk {}", stack::format_size(sectors * units::SECTOR))
            });
            let layout = object["layout"].as_str();
            let layout = layout.map_or_else(String::new, |layout| format!(" {layout}"));
            format!("{level}{layout}, {} slots{chunk}", object["slots"])
        }
        None => "one member, no array".to_owned(),
    };
    let size = human_sectors(object["sectors"].as_u64().unwrap_or_default());
    let mut lines = vec![
        format!(
            "volume   {}{size}, blocks of {} bytes, {level}",
            object["name"].as_str().map_or_else(String::new, |name| format!("{name}: ")),
            object["block_bytes"]
        ),
        format!("state    {}", text("state")),
    ];
    for why in object["why"].as_array().into_iter().flatten() {
        lines.push(format!("why      {}", why.as_str().unwrap_or_default()));
    }
    lines.push(format!("do       {}", text("action")));
    if let Some(uuid) = object["uuid"].as_str() {
        lines.push(format!("uuid     {uuid}"));
    }
    if let Some(bitmap) = object.get("bitmap").filter(|bitmap| bitmap.is_object()) {
        let chunk = bitmap["chunk_bytes"].as_u64().map_or_else(String::new, stack::format_size);
        lines.push(format!(
            "bitmap   {} of {} chunks of {chunk} are being written",
            bitmap["dirty"], bitmap["chunks"]
        ));
    }
    if object["partial_parity"] == true {
        lines.push("ppl      what is being written is in the partial parity log".to_owned());
    }
    if let Some(journal) = object.get("write_journal").filter(|journal| journal.is_object()) {
        let member = journal["member"].as_str().unwrap_or_default();
        lines.push(format!("journal  {member}: {} blocks are not home", journal["blocks"]));
    }
    lines.push(format!("stack    {}", text("stack")));
    lines.push(format!(
        "members  {:<4} {:<11} {:>9} {:>7} {:>8} {:>7}  name",
        "slot", "state", "mismatch", "healed", "healable", "lost"
    ));
    for member in object["members"].as_array().into_iter().flatten() {
        let slot = member["slot"].as_u64().map_or_else(|| "-".to_owned(), |slot| slot.to_string());
        let kinds = [
            member["integrity"].as_str(),
            member["write_mostly"].as_bool().unwrap_or_default().then_some("write-mostly"),
        ];
        let kinds: Vec<&str> = kinds.into_iter().flatten().collect();
        let kinds =
            if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        lines.push(format!(
            "         {slot:<4} {:<11} {:>9} {:>7} {:>8} {:>7}  {}{kinds}{}",
            member["state"].as_str().unwrap_or_default(),
            member["mismatches"].to_string(),
            member["healed_sectors"].to_string(),
            member["healable_sectors"].to_string(),
            member["lost_sectors"].to_string(),
            member["name"].as_str().unwrap_or_default(),
            match (member["filled_percent"].as_u64(), member["lacking_sectors"].as_u64()) {
                (Some(percent), Some(1..)) => format!(", {percent} % filled"),
                _ => String::new(),
            },
        ));
    }
    let lost = object["lost_sectors"].as_u64().unwrap_or_default();
    lines.push(match lost {
        0 => "data     no errors known since it was opened".to_owned(),
        lost => format!("data     {lost} sectors, of data or parity, could not be given back"),
    });
    lines.extend(ledger::summary(&object["ledger"]));
    lines
}

/// One line for a served volume's end.
pub fn farewell(report: &Report, volume: &Volume) {
    let status = volume.status();
    let healed: u64 = status.members.iter().map(|m| m.counters.healed_sectors).sum();
    let mismatches: u64 = status.members.iter().map(|m| m.counters.mismatches).sum();
    if healed + mismatches > 0 {
        report.line(format!("{mismatches} mismatches seen, {healed} sectors healed"));
    }
}
