//! The `steadfast` program: arguments, reports, exit codes. Everything else is a library's work.
//!
//! ```text
//!   commands/<verb>.rs    arguments -> options of a library -> its answer -> report and exit code
//!   opened.rs             an open volume and its ledger
//!   report.rs             everything that is printed
//!   exit.rs               exit codes
//! ```

mod commands;
mod control;
mod error;
mod exit;
mod opened;
mod position;
mod report;

use clap::Parser;
use clap::error::ErrorKind;
use commands::{Context, Verb};
use error::Failure;
use exit::Outcome;
use report::{ProgressMode, Report};
use std::process::ExitCode;

/// End-to-end data integrity for block storage: gives back exactly what was written, or says which
/// sectors it cannot.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    /// One JSON object instead of lines for a person
    #[arg(long, global = true)]
    json: bool,

    /// Say nothing but errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// Say more: the chain of causes, every event
    #[arg(short, long, global = true)]
    verbose: bool,

    /// How progress is shown on standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "MANNER")]
    progress: ProgressMode,

    #[command(subcommand)]
    verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 nothing wrong; 1 all data right, but something was wrong; 2 some data cannot be read \
or is inconsistent; 3 refused, nothing written; 4 failed; 64 usage; 130 interrupted, resumable.";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // The message goes where clap wants it; if nobody listens any more, so be it.
            let _closed = error.print();
            return if shown { Outcome::Fine } else { Outcome::Usage }.into();
        }
    };
    let report = Report::new(cli.json, cli.quiet, cli.verbose, cli.progress);
    let context = match Context::new(report) {
        Ok(context) => context,
        Err((report, failure)) => return tell(&report, &failure).into(),
    };
    match cli.verb.run(&context) {
        Ok(outcome) => outcome,
        Err(failure) => tell(&context.report, &failure),
    }
    .into()
}

/// One line that says what, where, what was expected and what to try; with `-v` the causes.
fn tell(report: &Report, failure: &Failure) -> Outcome {
    report.failure(failure);
    failure.outcome
}
