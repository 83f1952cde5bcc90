//! `steadfast dif`: protection information in files of sectors and tuples.

mod found;
mod options;

use super::Context;
use crate::error::Failure;
use crate::exit::Outcome;
use crate::report::Progress;
use ::dif::Guard;
use found::{Found, named, writes_object};
use options::{Flags, Options, Output, coding, guard, missing, number};
use serde_json::{Value, json};
use stack::dif_file::{self, DifFileError, Done, Outlet, Outputs, Request, Run, Source};
use std::fs::File;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What to do with tuples.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = NOTES)]
pub enum Verb {
    /// Write FILE's tuples anew, whatever they said, to --out: a copy of FILE with them, or of --layout
    /// separate the metadata file
    Generate(MakeArguments),
    /// Check every interval; one line for each that is bad. Writes nothing
    Verify(VerifyArguments),
    /// Write an image of FILE, which is data alone, to --out; of --layout separate the data to --out and
    /// the metadata to --metadata-file
    Insert(MakeArguments),
    /// Write FILE's data alone to --out, checked on the way: what nothing vouches for is listed, and left
    /// as a hole
    Strip(StripArguments),
    /// Write FILE with guards of another kind to --out (of --layout separate its metadata), the old ones
    /// checked while the new ones are made: what is bad is listed, and stays bad
    Convert(ConvertArguments),
    /// Write FILE with reference tags that count from another number to --out (of --layout separate its
    /// metadata): what counted wrong is listed, and left alone
    Remap(RemapArguments),
    /// List runs of equal application tags; read the bytes in them with --to, write them with --from
    Tags(TagsArguments),
}

const NOTES: &str = "\
Numbers may be hexadecimal (0x200). An interval that its writer escaped is not checked, but counted; so is a \
block of --layout nvme-qemu that is all zero, data and metadata: it was never written.
Exit codes: 0 nothing wrong; 2 bad intervals, listed (the output is written all the same, for what is good \
in it); 3 refused, nothing written; 64 usage.";

/// Of what makes tuples.
#[derive(Debug, clap::Args)]
pub struct MakeArguments {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    output: Output,
}

/// Of what leaves tuples out.
#[derive(Debug, clap::Args)]
pub struct StripArguments {
    #[command(flatten)]
    flags: Flags,
    /// Where to write the list of what is good and bad in --out, as a ddrescue mapfile
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Of what only reads.
#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    flags: Flags,
}

/// Of another guard.
#[derive(Debug, clap::Args)]
pub struct ConvertArguments {
    #[command(flatten)]
    flags: Flags,
    /// The guard to make: crc16, ip, crc32c or crc64
    #[arg(long, value_name = "GUARD")]
    to_guard: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Of other reference tags.
#[derive(Debug, clap::Args)]
pub struct RemapArguments {
    #[command(flatten)]
    flags: Flags,
    /// The reference tag that the first interval shall have
    #[arg(long, value_name = "N")]
    to_ref_tag: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Of application tags.
#[derive(Debug, clap::Args)]
pub struct TagsArguments {
    #[command(flatten)]
    flags: Flags,
    /// How bytes lie in the tags: plain (as they are; the escape cannot be written) or safe (the first bit
    /// of every application tag stays 0)
    #[arg(long, value_name = "CODING", default_value = "plain")]
    coding: String,
    /// Write an image with the bytes of this file in its tags to --out; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    from: Option<PathBuf>,
    /// Write the bytes in the tags to this file; - is standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// Does it.
pub fn run(context: &Rc<Context>, verb: Verb) -> Result<Outcome, Failure> {
    match verb {
        Verb::Verify(arguments) => verify(context, &arguments),
        Verb::Generate(arguments) => make(context, arguments, Make::Generate),
        Verb::Insert(arguments) => make(context, arguments, Make::Insert),
        Verb::Strip(arguments) => {
            let StripArguments { flags, map, output } = arguments;
            change(context, &flags, output, Change::Strip(map))
        }
        Verb::Convert(arguments) => {
            let to = guard("--to-guard", arguments.to_guard.as_deref())?;
            change(context, &arguments.flags, arguments.output, Change::Convert(to))
        }
        Verb::Remap(arguments) => {
            let expected = "the reference tag that the first interval shall have";
            let to = arguments.to_ref_tag.as_deref();
            let to = number("--to-ref-tag", to.ok_or_else(|| missing("--to-ref-tag", expected))?)?;
            change(context, &arguments.flags, arguments.output, Change::Remap(to))
        }
        Verb::Tags(arguments) => tags(context, arguments),
    }
}

fn verify(context: &Rc<Context>, arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let options = arguments.flags.options()?;
    let told = Rc::clone(context);
    context.block_on(async move {
        let source = options.source()?;
        let range = source.range(options.blocks(&source))?;
        told.report.detail(options.describe(&range));
        let request = options.request(range.clone())?;
        let mut found = Found::new(&told);
        let bar = Bar::new(&told, "verifying", &options, &range);
        let mut tell = |finding: &dif_file::Finding| found.tell(finding);
        let done = dif_file::verify(&source, &request, &mut tell, &mut |at| bar.go_on(at)).await?;
        drop(bar);
        Ok(found.end(&options, &source, (&range, true), &done))
    })
}

/// What makes tuples of data.
#[derive(Clone, Copy)]
enum Make {
    Generate,
    Insert,
}

fn make(context: &Rc<Context>, arguments: MakeArguments, how: Make) -> Result<Outcome, Failure> {
    let MakeArguments { flags, output } = arguments;
    let options = flags.options()?;
    let told = Rc::clone(context);
    context.block_on(async move {
        let (source, metadata) = match how {
            Make::Generate => {
                output.outputs(None)?;
                (options.source_to_sign()?, None)
            }
            Make::Insert => {
                output.outputs(None)?;
                let metadata = options.metadata_file()?;
                (options.data_source()?, metadata)
            }
        };
        let outputs = output.outputs(metadata)?;
        let range = source.range_to_copy(options.blocks(&source))?;
        told.report.detail(options.describe(&range));
        let request = options.request(range.clone())?;
        let bar = Bar::new(&told, "making tuples", &options, &range);
        let mut go_on = |at| bar.go_on(at);
        let done = match how {
            Make::Generate => dif_file::generate(&source, &request, &outputs, &mut go_on).await?,
            Make::Insert => dif_file::insert(&source, &request, &outputs, &mut go_on).await?,
        };
        drop(bar);
        if outputs.dry_run {
            return Ok(rehearsed(&told, &done));
        }
        Ok(written(&told, &options, &range, &done))
    })
}

/// What copies, and checks what it copies.
enum Change {
    /// With a map, if it has a name.
    Strip(Option<PathBuf>),
    Convert(Guard),
    Remap(u64),
}

fn change(
    context: &Rc<Context>,
    flags: &Flags,
    output: Output,
    how: Change,
) -> Result<Outcome, Failure> {
    let options = flags.options()?;
    let told = Rc::clone(context);
    context.block_on(async move {
        let outputs = Outputs { map: how.map(), ..output.outputs(None)? };
        let source = options.source()?;
        let range = source.range_to_copy(options.blocks(&source))?;
        told.report.detail(options.describe(&range));
        let request = options.request(range.clone())?;
        let mut found = Found::new(&told);
        let bar = Bar::new(&told, how.label(), &options, &range);
        let done = how.run(&source, &request, &outputs, &mut found, &bar).await?;
        drop(bar);
        if outputs.dry_run {
            return Ok(rehearsed(&told, &done));
        }
        Ok(found.end(&options, &source, (&range, false), &done))
    })
}

impl Change {
    fn map(&self) -> Option<&Path> {
        match self {
            Self::Strip(map) => map.as_deref(),
            Self::Convert(_) | Self::Remap(_) => None,
        }
    }

    const fn label(&self) -> &'static str {
        match self {
            Self::Strip(_) => "stripping",
            Self::Convert(_) => "converting",
            Self::Remap(_) => "remapping",
        }
    }

    async fn run(
        &self,
        source: &Source,
        request: &Request,
        outputs: &Outputs<'_>,
        found: &mut Found,
        bar: &Bar,
    ) -> Result<Done, DifFileError> {
        let tell = &mut |finding: &dif_file::Finding| found.tell(finding);
        let go_on = &mut |at| bar.go_on(at);
        match self {
            Self::Strip(_) => dif_file::strip(source, request, outputs, tell, go_on).await,
            Self::Convert(guard) => {
                dif_file::convert(source, request, *guard, outputs, tell, go_on).await
            }
            Self::Remap(to) => dif_file::remap(source, request, *to, outputs, tell, go_on).await,
        }
    }
}

fn tags(context: &Rc<Context>, arguments: TagsArguments) -> Result<Outcome, Failure> {
    let options = arguments.flags.options()?;
    let coding = coding(&arguments.coding)?;
    let TagsArguments { from, to, output, .. } = arguments;
    if to.as_deref() == Some(Path::new("-")) {
        context.report.leave_stdout();
    }
    let told = Rc::clone(context);
    context.block_on(async move {
        match (&from, &to) {
            (Some(from), _) => write_tags(&told, &options, (coding, from), &output).await,
            (None, Some(to)) => {
                output.refuse()?;
                read_tags(&told, &options, (coding, to), &output).await
            }
            (None, None) => {
                output.refuse()?;
                list_tags(&told, &options).await
            }
        }
    })
}

async fn write_tags(
    context: &Rc<Context>,
    options: &Options,
    (coding, from): (::dif::Coding, &Path),
    output: &Output,
) -> Result<Outcome, Failure> {
    let outputs = output.outputs(None)?;
    let source = options.source()?;
    let range = source.range_to_copy(options.blocks(&source))?;
    let request = options.request(range.clone())?;
    let name = from.display().to_string();
    let mut reader: Box<dyn Read> = match name.as_str() {
        "-" => Box::new(std::io::stdin().lock()),
        name => Box::new(File::open(from).map_err(|error| Failure::io(name, &error))?),
    };
    let mut found = Found::new(context);
    let bar = Bar::new(context, "writing tags", options, &range);
    let mut tell = |finding: &dif_file::Finding| found.tell(finding);
    let from = (&mut reader as &mut dyn Read, name.as_str());
    let go_on = &mut |at| bar.go_on(at);
    let done =
        dif_file::write_tags(&source, &request, coding, from, &outputs, &mut tell, go_on).await?;
    drop(bar);
    if outputs.dry_run {
        return Ok(rehearsed(context, &done));
    }
    Ok(found.end(options, &source, (&range, false), &done))
}

async fn read_tags(
    context: &Rc<Context>,
    options: &Options,
    (coding, to): (::dif::Coding, &Path),
    output: &Output,
) -> Result<Outcome, Failure> {
    let source = options.source()?;
    let range = source.range(options.blocks(&source))?;
    let bar = Bar::new(context, "reading tags", options, &range);
    let mut stdout = std::io::stdout();
    let is_stream = to == Path::new("-");
    let outlet = match is_stream {
        true => Outlet::Stream(&mut stdout),
        false => Outlet::File(output.to(to, None)),
    };
    let go_on = &mut |at| bar.go_on(at);
    let done = dif_file::read_tags(&source, &range, coding, outlet, go_on).await?;
    drop(bar);
    if output.to(to, None).dry_run && !is_stream {
        return Ok(rehearsed(context, &done));
    }
    Ok(written(context, options, &range, &done))
}

async fn list_tags(context: &Rc<Context>, options: &Options) -> Result<Outcome, Failure> {
    let source = options.source()?;
    let range = source.range(options.blocks(&source))?;
    let bar = Bar::new(context, "reading tags", options, &range);
    let digits = 2 * options.image.profile().application_bytes();
    let (mut listed, mut count) = (Vec::new(), 0_u64);
    let mut tell = |run: &Run| {
        let last = run.first + run.intervals - 1;
        let (first, tag) = (run.first, format!("0x{:0digits$x}", run.tag));
        let escaped = if run.escaped { ", escaped" } else { "" };
        context.report.line(match run.intervals {
            1 => format!("interval {first}: {tag}{escaped}"),
            _ => format!("intervals {first} to {last}: {tag}{escaped}"),
        });
        count += 1;
        if listed.len() < RUNS_MAX {
            listed.push(json!({"first": first, "intervals": run.intervals, "tag": tag,
                "escaped": run.escaped}));
        }
    };
    let go_on = &mut |at| bar.go_on(at);
    let done = dif_file::list_tags(&source, &range, &mut tell, go_on).await?;
    drop(bar);
    let mut result = options.object(&range);
    result["intervals"] = json!(done.tally.intervals);
    result["run_count"] = json!(count);
    result["runs"] = json!(listed);
    result["complete"] = json!(done.stopped_at.is_none());
    context.report.object(result);
    Ok(stopped(context, options, &range, &done).unwrap_or(Outcome::Fine))
}

/// Runs that one object lists; all are counted.
const RUNS_MAX: usize = 10_000;

/// Tells what would be written.
fn rehearsed(context: &Context, done: &Done) -> Outcome {
    for write in &done.writes {
        context.report.line(format!("would write {}", named(write)));
    }
    context.report.object(json!({"dry_run": true, "writes": writes_object(done)}));
    Outcome::Fine
}

/// Tells what was written, where nothing was checked.
fn written(context: &Context, options: &Options, range: &Range<u64>, done: &Done) -> Outcome {
    for write in &done.writes {
        context.report.line(format!("wrote {}", named(write)));
    }
    let mut result: Value = options.object(range);
    result["intervals"] = json!(done.tally.intervals);
    result["writes"] = writes_object(done);
    result["complete"] = json!(done.stopped_at.is_none());
    context.report.object(result);
    let stopped = done.stopped_at.map(|block| {
        context.report.warn(format!("interrupted at block {block}; {NOTHING_WRITTEN}"));
        Outcome::Interrupted
    });
    stopped.unwrap_or(Outcome::Fine)
}

/// Tells that it was interrupted, where nothing is written, and how to go on.
fn stopped(
    context: &Context,
    options: &Options,
    range: &Range<u64>,
    done: &Done,
) -> Option<Outcome> {
    let block = done.stopped_at?;
    let rest = options.resume(range, block);
    context.report.warn(format!("interrupted at block {block}; resume with {rest}"));
    Some(Outcome::Interrupted)
}

/// Of what writes files.
const NOTHING_WRITTEN: &str = "no file was written; the same command starts anew";

/// Shows how far it is, and hears whether to stop.
struct Bar {
    progress: Progress,
    context: Rc<Context>,
    block: u64,
}

impl Bar {
    fn new(context: &Rc<Context>, label: &str, options: &Options, range: &Range<u64>) -> Self {
        let block = units::u64_of(options.image.block());
        let progress = context.report.progress(label, (range.end - range.start) * block);
        Self { progress, context: Rc::clone(context), block }
    }

    fn go_on(&self, blocks: u64) -> ControlFlow<()> {
        self.progress.set(blocks * self.block);
        self.context.go_on()
    }
}
