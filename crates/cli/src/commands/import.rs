//! `steadfast import`: copies a file into the volume.

use super::Context;
use super::open::{self, close, size};
use crate::error::Failure;
use crate::exit::Outcome;
use crate::report::human;
use serde_json::json;
use stack::copy::{ImportOptions, Imported, import};
use std::fs::File;
use std::io::Read;
use std::rc::Rc;

/// What to copy in.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// The file to copy from; - is standard input
    #[arg(long, value_name = "FILE")]
    from: String,

    /// The first byte in the volume
    #[arg(long, value_name = "BYTES", default_value = "0")]
    offset: String,

    /// How many bytes, if not all
    #[arg(long, value_name = "BYTES")]
    length: Option<String>,

    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Where the bytes come from, and how many there are if that is known.
fn source(name: &str) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if name == "-" {
        return Ok((Box::new(std::io::stdin().lock()), None));
    }
    let failed = |error| Failure::io(name, &error);
    let file = File::open(name).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Failure::new(
            Outcome::Refused,
            format!("{name}: is a directory, expected a file"),
        ));
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes))
}

/// Copies it in.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let offset = size("--offset", &arguments.offset)?;
    let length = arguments.length.as_deref().map(|text| size("--length", text)).transpose()?;
    let (mut reader, source_bytes) = source(&arguments.from)?;
    let options = ImportOptions { offset, length, source_bytes };
    let Arguments { volume, from, dry_run, .. } = arguments;
    let told = Rc::clone(context);
    context.block_on(async move {
        let volume = volume.open(&told, dry_run).await?;
        let before = super::status::health(&volume.status());
        if dry_run {
            let result = rehearse(&told, &volume, &options, &from);
            return close(volume, result).await.map(|()| before);
        }
        let total = match (length, source_bytes) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap_or(0),
        };
        let bar = told.report.progress("importing", total);
        let result = import(&volume.device(), &mut *reader, &from, &options, |progress| {
            bar.set(progress.done);
            told.go_on()
        })
        .await;
        drop(bar);
        let outcome = before.max(super::status::health(&volume.status()));
        let imported = close(volume, result.map_err(Failure::from)).await?;
        Ok(tell(&told, &from, &options, imported, outcome))
    })
}

fn rehearse(
    context: &Context,
    volume: &stack::Volume,
    options: &ImportOptions,
    from: &str,
) -> Result<(), Failure> {
    let size = units::Sector(volume.device().limits().sectors).bytes();
    let length = match (options.length, options.source_bytes) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let end = length.map(|length| options.offset.saturating_add(length));
    if options.offset > size || end.is_some_and(|end| end > size) {
        let text =
            format!("{from}: does not fit into the volume's {size} bytes at {}", options.offset);
        return Err(Failure::new(Outcome::Refused, text).advise("make a larger volume"));
    }
    let bytes = length.map_or_else(|| "all bytes".to_owned(), |length| format!("{length} bytes"));
    context.report.line(format!("would write {bytes} of {from} at byte {}", options.offset));
    context.report.object(json!({"dry_run": true,
        "writes": [{"byte": options.offset, "bytes": length}]}));
    Ok(())
}

fn tell(
    context: &Context,
    from: &str,
    options: &ImportOptions,
    imported: Imported,
    outcome: Outcome,
) -> Outcome {
    let Imported { bytes, stopped } = imported;
    context.report.object(json!({"bytes": bytes, "offset": options.offset, "complete": !stopped}));
    if stopped {
        let (next, length) = (options.offset + bytes, human(bytes));
        context.report.warn(format!(
            "interrupted: {length} are in the volume; resume with the source from byte {bytes} on \
             and --offset {next}"
        ));
        return Outcome::Interrupted;
    }
    context.report.line(format!("imported {bytes} bytes of {from} at byte {}", options.offset));
    outcome
}
