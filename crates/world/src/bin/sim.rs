//! Runs the simulated world: `sim --seconds 60`, `sim --seed 7`, `sim --replay FILE`.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use steadfast_world::mutation::{Mutations, UNSEEN};
use steadfast_world::{Catalogue, Failure};

const USAGE: &str = "\
usage: sim [--scenario NAME] (--seed N | --seconds S | --seeds N) [--from SEED]
       sim --replay FILE | --list | --orderings | --without REASON
  --seed N        the histories of one seed, twice, and the hash of their trace
  --seconds S     seeds from --from on (default 1) for so long
  --seeds N       so many seeds from --from on
  --replay FILE   the events that a failure printed
  --scenario NAME only volumes whose name starts so
  --list          the names
  --orderings     leaves out every ordering flush in turn: each has to be missed
  --without WORDS the same for those whose reason starts with these words";

enum Task {
    Seed(u64),
    Seconds(u64),
    Seeds(u64),
    Replay(String),
    List,
    Without(String),
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|(task, from, only)| {
        let catalogue = match &only {
            Some(name) => {
                Catalogue::default().only(name).ok_or(format!("no scenario is called {name}"))?
            }
            None => Catalogue::default(),
        };
        match task {
            Task::Seed(seed) => one(&catalogue, seed),
            Task::Seconds(seconds) => many(&catalogue, from.., Duration::from_secs(seconds)),
            Task::Seeds(count) => many(&catalogue, from..from.saturating_add(count), Duration::MAX),
            Task::Replay(path) => replay(&catalogue, &path),
            Task::Without(words) => without(&words),
            Task::List => {
                catalogue.names().for_each(say);
                Ok(true)
            }
        }
    }) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(error);
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<(Task, u64, Option<String>), String> {
    let (mut task, mut from, mut only) = (None, 1, None);
    while let Some(word) = words.next() {
        if word == "--list" {
            task = Some(Task::List);
            continue;
        }
        if word == "--orderings" {
            task = Some(Task::Without(String::new()));
            continue;
        }
        let value = words.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|_| format!("{value} is not a number"));
        match word.as_str() {
            "--seed" => task = Some(Task::Seed(number()?)),
            "--seconds" => task = Some(Task::Seconds(number()?)),
            "--seeds" => task = Some(Task::Seeds(number()?)),
            "--from" => from = number()?,
            "--scenario" => only = Some(value),
            "--without" => task = Some(Task::Without(value)),
            "--replay" => task = Some(Task::Replay(value)),
            _ => return Err(USAGE.into()),
        }
    }
    Ok((task.ok_or(USAGE)?, from, only))
}

fn one(catalogue: &Catalogue, seed: u64) -> Result<bool, String> {
    let report = match catalogue.run(seed) {
        Ok(report) => report,
        Err(failure) => return shorten(catalogue, seed, *failure),
    };
    let again =
        catalogue.run(seed).map_err(|failure| format!("only the second time: {failure}"))?;
    say(format_args!(
        "seed {seed}: {}, {} lives, {} power cuts, {} requests, trace {:016x}",
        report.scenario, report.lives, report.cuts, report.requests, report.trace
    ));
    if again.trace != report.trace {
        say(format_args!("the second run differs: trace {:016x}", again.trace));
    }
    Ok(again.trace == report.trace)
}

fn many(
    catalogue: &Catalogue,
    seeds: impl Iterator<Item = u64>,
    budget: Duration,
) -> Result<bool, String> {
    let started = Instant::now();
    let (mut count, mut lives, mut cuts, mut requests) = (0u64, 0, 0, 0);
    for seed in seeds {
        if started.elapsed() >= budget {
            break;
        }
        match catalogue.run(seed) {
            Ok(report) => {
                count += 1;
                lives += report.lives;
                cuts += report.cuts;
                requests += report.requests;
            }
            Err(failure) => return shorten(catalogue, seed, *failure),
        }
    }
    let seconds = started.elapsed().as_secs();
    say(format_args!(
        "{count} seeds: {lives} lives, {cuts} power cuts, {requests} requests in {seconds} s, \
         nothing wrong"
    ));
    Ok(true)
}

fn shorten(catalogue: &Catalogue, seed: u64, failure: Failure) -> Result<bool, String> {
    say(format_args!("seed {seed}: {}", failure.violation));
    say("looking for the shortest list of events ...");
    let short = catalogue.shrink(failure)?;
    say(format_args!(
        "\n{short}\nreplay: cargo xtask sim --seed {seed}, or these lines with --replay FILE"
    ));
    Ok(false)
}

fn replay(catalogue: &Catalogue, path: &str) -> Result<bool, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let violation = catalogue.replay(&text.parse()?)?;
    match &violation {
        Some(violation) => say(violation),
        None => say("nothing wrong"),
    }
    Ok(violation.is_none())
}

/// Leaves out the ordering points whose reason starts with `words`, one after the other.
fn without(words: &str) -> Result<bool, String> {
    let mutations = Mutations::default();
    let mut reasons = mutations.reasons().filter(|reason| reason.starts_with(words)).peekable();
    if reasons.peek().is_none() {
        return Err(format!("no ordering point is called '{words}'"));
    }
    let mut sound = true;
    for reason in reasons {
        let why = UNSEEN.iter().find(|(unseen, _)| *unseen == reason).map(|(_, why)| why);
        let seeds = if why.is_some() { SEEDS_UNSEEN } else { SEEDS };
        let caught = mutations.hunt(reason, seeds);
        sound &= caught.is_some() != why.is_some();
        match (caught, why) {
            (Some(caught), None) => {
                say(format_args!("without '{reason}': seed {}, {}", caught.seed, caught.what))
            }
            (None, Some(why)) => say(format_args!("without '{reason}': unseen: {why}")),
            (Some(caught), Some(_)) => say(format_args!(
                "without '{reason}': seed {}, {}: it is listed as unseen, wrongly",
                caught.seed, caught.what
            )),
            (None, None) => say(format_args!(
                "without '{reason}': nothing in {seeds} seeds notices: it is redundant, or untested"
            )),
        }
    }
    for reason in mutations.unnamed() {
        say(format_args!("a flush for '{reason}', which is in no layer's list"));
        sound = false;
    }
    Ok(sound)
}

/// Histories looked through for each ordering point, and for one that is known to be unseen.
const SEEDS: u64 = 150;
const SEEDS_UNSEEN: u64 = 5;

fn say(line: impl std::fmt::Display) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}
