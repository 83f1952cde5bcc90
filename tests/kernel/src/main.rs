//! The real Linux kernel as judge: what `steadfast` writes, dm-integrity and md must read, and the
//! other way round, also after the power was cut.
//!
//! `cargo xtask kernel` runs it; `docs/kernel.md` says how it works and how a case is added.
//!
//! ```text
//!   cases      table of what is judged; each case is a function of a Lab
//!     |
//!    lab       folder, guest, program; the steps that cases share
//!     |
//!   subject, format, disks, content      what the volume is, and what must be in it
//!     |
//!   machine    Debian's kernel under qemu, a shell at its serial line
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a program for people")]

mod cases;
mod content;
mod disks;
mod format;
mod lab;
mod machine;
mod program;
mod speed;
mod subject;

use anyhow::{Context, anyhow, bail};
use cases::{Case, Part};
use clap::Parser;
use lab::Lab;
use machine::boot::Boot;
use program::Program;
use std::fs::File;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

/// The real Linux kernel as judge, in a virtual machine
#[derive(Parser)]
struct Arguments {
    /// Cases to run, by the beginnings of their names; without any, those of the CI
    #[arg(value_name = "CASE")]
    cases: Vec<String>,

    /// Every case
    #[arg(long, conflicts_with = "cases")]
    all: bool,

    /// No cases: how fast the kernel's target and our server are, in the same machine
    #[arg(long, conflicts_with_all = ["cases", "all", "list"])]
    speed: bool,

    #[command(flatten)]
    measured: speed::Settings,

    /// Machines at a time; without it, as many as there are processors, at most four
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    /// Only name the cases
    #[arg(long)]
    list: bool,

    /// The program `steadfast`
    #[arg(long, value_name = "PATH")]
    program: PathBuf,

    /// Where the kernel and everything that is made may lie
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let table = cases::table();
    let width = table.iter().map(|case| case.name.len()).max().unwrap_or_default();
    if arguments.list {
        for Case { name, what, part, .. } in &table {
            println!("{name:<width$}  {part:<4}  {what}");
        }
        return Ok(());
    }
    if arguments.speed {
        let _alone = lock(&arguments.folder)?;
        return speed::run(&arguments.folder, &arguments.program, &arguments.measured);
    }
    let chosen = choose(table, arguments)?;
    let _alone = lock(&arguments.folder)?;
    let boot = machine::boot::prepare(&arguments.folder)?;
    println!("{} cases against Linux {}", chosen.len(), boot.release);
    let begin = Instant::now();
    let rows = judge_all(&chosen, &boot, arguments)?;
    println!();
    for Row { case, failure, elapsed } in &rows {
        let verdict = if failure.is_some() { "FAILED" } else { "ok" };
        let seconds = elapsed.as_secs_f64();
        println!("{:<width$}  {verdict:<6}  {seconds:>5.1} s  {}", case.name, case.what);
    }
    let failed: Vec<&str> =
        rows.iter().filter(|row| row.failure.is_some()).map(|row| row.case.name.as_str()).collect();
    println!(
        "{} of {} held, in {:.0} s",
        rows.len() - failed.len(),
        rows.len(),
        begin.elapsed().as_secs_f64()
    );
    if !failed.is_empty() {
        bail!("just those: cargo xtask kernel {}", failed.join(" "));
    }
    Ok(())
}

/// One run at a time uses the folder.
fn lock(folder: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    file.try_lock().with_context(|| format!("{}: another run works there", folder.display()))?;
    Ok(file)
}

fn choose(table: Vec<Case>, arguments: &Arguments) -> anyhow::Result<Vec<Case>> {
    for name in &arguments.cases {
        if !table.iter().any(|case| case.name.starts_with(name)) {
            bail!("no case begins with '{name}': `cargo xtask kernel --list` names them");
        }
    }
    let named = |case: &Case| arguments.cases.iter().any(|name| case.name.starts_with(name));
    let default = |case: &Case| arguments.cases.is_empty() && case.part == Part::Ci;
    let chosen = table.into_iter().filter(|case| arguments.all || named(case) || default(case));
    Ok(chosen.collect())
}

/// Runs the cases, several at a time: each thread has a lab of its own, and takes the next case when it
/// is done with one.
fn judge_all<'a>(
    chosen: &'a [Case],
    boot: &Boot,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Row<'a>>> {
    let processors = available_parallelism().map_or(1, NonZeroUsize::get).min(JOBS_MAX);
    let jobs = arguments.jobs.map_or(processors, NonZeroUsize::get).min(chosen.len());
    let next = Mutex::new(chosen.iter());
    // The lock goes before the case begins.
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = |number: usize| -> anyhow::Result<Vec<Row<'a>>> {
        let program = Program(arguments.program.clone());
        let shared = arguments.folder.join(format!("lab{number}"));
        let mut lab = Lab::new(boot, program, &shared, cases::namespaces())?;
        Ok(std::iter::from_fn(take).map(|case| judge(case, &mut lab, arguments)).collect())
    };
    let parts: Vec<_> = thread::scope(|scope| {
        let each: Vec<_> = (0..jobs).map(|number| scope.spawn(move || work(number))).collect();
        each.into_iter()
            .map(|one| one.join().map_err(|_| anyhow!("a lab's thread panicked")))
            .collect()
    });
    let mut rows = Vec::new();
    for part in parts {
        rows.extend(part??);
    }
    let place = |row: &Row<'_>| chosen.iter().position(|case| case.name == row.case.name);
    rows.sort_by_key(place);
    Ok(rows)
}

/// A machine takes 768 MiB and a processor.
const JOBS_MAX: usize = 4;

/// What came out.
struct Row<'a> {
    case: &'a Case,
    failure: Option<anyhow::Error>,
    elapsed: Duration,
}

/// Runs one case in a folder of its own, which stays if it fails.
fn judge<'a>(case: &'a Case, lab: &mut Lab<'_>, arguments: &Arguments) -> Row<'a> {
    let begin = Instant::now();
    let folder = arguments.folder.join("cases").join(&case.name);
    let result = clean(&folder).and_then(|()| {
        lab.enter(&folder);
        // A panic is one row's failure. What it left half done in the lab is the guest, which goes.
        let run = AssertUnwindSafe(|| (case.run)(lab));
        catch_unwind(run).unwrap_or_else(|_| Err(anyhow!("it panicked, see above")))
    });
    let elapsed = begin.elapsed();
    let seconds = elapsed.as_secs_f64();
    let failure = match result.and_then(|()| if case.keeps { Ok(()) } else { remove(&folder) }) {
        Ok(()) => {
            println!("{}: ok, {seconds:.1} s", case.name);
            None
        }
        Err(error) => {
            lab.discard_guest();
            println!("{}: FAILED, {seconds:.1} s: {error:#}", case.name);
            println!("{}: its disks: {}", case.name, folder.display());
            Some(error)
        }
    };
    Row { case, failure, elapsed }
}

fn clean(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        remove(folder)?;
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}
