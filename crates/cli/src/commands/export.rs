//! `steadfast export`: copies the volume, or a part, out.

use super::Context;
use super::open::{self, close, size};
use crate::error::Failure;
use crate::exit::Outcome;
use serde_json::{Value, json};
use stack::VolumeStatus;
use stack::copy::{CopyProgress, ExportOptions, Exported, FileSink, Sink, StreamSink, export};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use units::Sector;

/// What to copy out.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    volume: open::Arguments,

    /// The file to write; - is standard output
    #[arg(long, value_name = "FILE")]
    to: String,

    /// The first byte of the volume
    #[arg(long, value_name = "BYTES", default_value = "0")]
    offset: String,

    /// How many bytes, if not all
    #[arg(long, value_name = "BYTES")]
    length: Option<String>,

    /// Where to write the list of what could be read, as a ddrescue mapfile
    #[arg(long, value_name = "FILE")]
    map: Option<String>,

    /// Write healed blocks back to the members
    #[arg(long)]
    heal: bool,

    /// Overwrite existing files
    #[arg(long)]
    yes: bool,

    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Unreadable ranges that are listed one by one.
const LISTED_MAX: usize = 100;

/// Copies it out.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let options = ExportOptions {
        offset: size("--offset", &arguments.offset)?,
        length: arguments.length.as_deref().map(|text| size("--length", text)).transpose()?,
    };
    if arguments.to == "-" {
        context.report.leave_stdout();
    }
    let told = Rc::clone(context);
    context.block_on(async move {
        let read_only = !arguments.heal || arguments.dry_run;
        let volume = arguments.volume.open(&told, read_only).await?;
        if arguments.dry_run {
            let files: Vec<&str> =
                [&arguments.to].into_iter().chain(&arguments.map).map(String::as_str).collect();
            told.report.line(format!("would write {} and nothing else", files.join(" and ")));
            let writes: Vec<Value> = files.iter().map(|file| json!({"file": file})).collect();
            told.report.object(json!({"dry_run": true, "writes": writes}));
            let health = super::status::health(&volume.status());
            return close(volume, Ok(health)).await;
        }
        let result = copy(&told, &volume, &arguments, &options).await;
        let status = volume.status();
        let exported = close(volume, result).await?;
        tell(&told, &arguments, &exported, &status)
    })
}

async fn copy(
    context: &Rc<Context>,
    volume: &stack::Volume,
    arguments: &Arguments,
    options: &ExportOptions,
) -> Result<Exported, Failure> {
    // All that can be refused is refused before a file is made or emptied.
    let size = Sector(volume.device().limits().sectors).bytes();
    let range = options.range(size)?;
    if let Some(map) = &arguments.map {
        refuse_map(map, arguments, volume)?;
    }
    let mut sink: Box<dyn Sink> = if arguments.to == "-" {
        Box::new(StreamSink::new(std::io::stdout().lock(), "standard output"))
    } else {
        Box::new(FileSink::create(Path::new(&arguments.to), arguments.yes, &volume.files())?)
    };
    let bar = context.report.progress("exporting", range.end - range.start);
    let on_progress = |progress: &CopyProgress| {
        bar.set(progress.done);
        context.go_on()
    };
    let exported = export(&volume.device(), &mut *sink, options, on_progress).await?;
    Ok(exported)
}

fn refuse_map(path: &str, arguments: &Arguments, volume: &stack::Volume) -> Result<(), Failure> {
    let refused = |why: &str| Failure::new(Outcome::Refused, format!("{path}: {why}"));
    let another = "choose another name for --map";
    if path == arguments.to {
        return Err(refused("is where the data goes").advise(another));
    }
    let Ok(existing) = std::fs::metadata(path) else { return Ok(()) };
    if volume.files().contains(&(existing.dev(), existing.ino())) {
        return Err(refused("is a member of the volume").advise(another));
    }
    if !arguments.yes {
        let advice = "choose another name, or overwrite it with --yes";
        return Err(refused("exists already").advise(advice));
    }
    Ok(())
}

fn tell(
    context: &Context,
    arguments: &Arguments,
    exported: &Exported,
    status: &VolumeStatus,
) -> Result<Outcome, Failure> {
    let report = &context.report;
    if let Some(path) = &arguments.map {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).create_new(!arguments.yes);
        let written = options
            .open(path)
            .and_then(|mut file| file.write_all(exported.map.to_string().as_bytes()));
        written.map_err(|error| Failure::io(path, &error))?;
    }
    let bad: Vec<Value> = exported
        .map
        .bad()
        .map(|block| json!({"byte": block.position, "bytes": block.bytes}))
        .collect();
    for block in exported.map.bad().take(LISTED_MAX) {
        let (sector, sectors) = (block.position / units::SECTOR, block.bytes / units::SECTOR);
        report.warn(format!(
            "unreadable: sector {sector}, {sectors} sectors (byte {}, {} bytes), left as a hole",
            block.position, block.bytes
        ));
    }
    if bad.len() > LISTED_MAX {
        report.warn(format!("and {} more unreadable ranges; see --map", bad.len() - LISTED_MAX));
    }
    let unreadable = exported.map.bytes(stack::Status::Bad);
    let readable = exported.map.bytes(stack::Status::Finished);
    report.object(json!({"to": arguments.to, "readable_bytes": readable,
        "unreadable_bytes": unreadable, "unreadable": bad,
        "unverified_blocks": status.unverified_blocks, "complete": !exported.stopped}));
    if exported.stopped {
        report.warn(format!(
            "interrupted at byte {}; resume with --offset {}",
            exported.map.end(),
            exported.map.end()
        ));
        return Ok(Outcome::Interrupted);
    }
    report.line(format!("exported {readable} bytes to {}", arguments.to));
    if status.unverified_blocks > 0 {
        let count = status.unverified_blocks;
        report.warn(format!("{count} blocks that nothing vouches for were given out, as asked"));
    }
    if unreadable > 0 {
        report.line(format!("{unreadable} bytes could not be read"));
        return Ok(Outcome::DataLost);
    }
    Ok(super::status::health(status))
}
