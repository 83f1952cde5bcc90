//! `steadfast adopt`: integrity for data that exists, without moving it.

use super::open::{human_sectors, parse_members, size};
use super::{Context, given};
use crate::error::Failure;
use crate::exit::Outcome;
use serde_json::{Value, json};
use stack::Member;
use stack::adopt::{
    AdoptOptions, AdoptProgress, Adopted, Beginning, Pair, adopt, check_array, dry_run,
};
use std::rc::Rc;

/// What to adopt, and where the tags go.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Files or block devices with the data; they are never written
    #[arg(value_name = "DATA", required = true)]
    data: Vec<String>,

    /// Where superblock, journal and tags of DATA go: a new file, or one (or a device) that is zero
    #[arg(long = "metadata-device", value_name = "DATA=META", required = true)]
    metadata: Vec<String>,

    /// What the tags are made with, such as crc32c, sha256 or hmac-sha256
    #[arg(long, value_name = "ALG", default_value = "crc32c")]
    integrity: String,

    #[command(flatten)]
    keys: given::Keys,

    /// Bytes of each tag, if not the whole checksum
    #[arg(long, value_name = "N")]
    tag_size: Option<u16>,

    /// Bytes of the block that each tag covers: 512, 1024, 2048 or 4096
    #[arg(long, value_name = "N", default_value_t = 4096)]
    sector_size: u64,

    /// Bytes of the journal
    #[arg(long, value_name = "SIZE")]
    journal_size: Option<String>,

    /// Overwrite what lies on META; adopt an array that is not consistent
    #[arg(long)]
    yes: bool,

    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

impl Arguments {
    fn options(&self) -> Result<AdoptOptions, Failure> {
        let integrity = self.integrity.parse();
        let integrity = integrity.map_err(|e| Failure::usage(format!("--integrity: {e}")))?;
        Ok(AdoptOptions {
            pairs: self.pairs()?,
            integrity,
            integrity_key: self.keys.integrity(integrity)?,
            journal: self.keys.journal()?,
            tag_size: self.tag_size,
            sector_size: self.sector_size,
            journal_bytes: self
                .journal_size
                .as_deref()
                .map(|text| size("--journal-size", text))
                .transpose()?,
            yes: self.yes,
        })
    }

    /// Each of the data with its metadata device. Names may contain '=': what is in front of it must
    /// be one of the data.
    fn pairs(&self) -> Result<Vec<Pair>, Failure> {
        let option = "--metadata-device";
        let of = |text: &str, data: &str| {
            text.strip_prefix(data)?.strip_prefix('=').map(ToOwned::to_owned)
        };
        if let Some(text) =
            self.metadata.iter().find(|text| !self.data.iter().any(|data| of(text, data).is_some()))
        {
            return Err(Failure::usage(format!("{option} {text}: expected DATA=META with a DATA")));
        }
        let data_members = parse_members(&self.data)?;
        let mut pairs = Vec::new();
        for (data, name) in data_members.into_iter().zip(&self.data) {
            let found: Vec<String> =
                self.metadata.iter().filter_map(|text| of(text, name)).collect();
            let [metadata] = &found[..] else {
                let count = found.len();
                return Err(Failure::usage(format!("{option}: {count} given for {name}, not one")));
            };
            let metadata = Member::parse(metadata).map_err(|e| Failure::usage(e.to_string()))?;
            pairs.push(Pair { data, metadata });
        }
        Ok(pairs)
    }
}

/// Adopts it.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    let options = arguments.options()?;
    let dry = arguments.dry_run;
    let told = Rc::clone(context);
    let adopted = context.block_on(async move {
        if !check(&told, &options).await? {
            return Ok(None);
        }
        if dry {
            return Ok(Some(dry_run(&options).await?));
        }
        let bar = told.report.percent("computing tags");
        let mut on_progress = |progress: &AdoptProgress| {
            bar.scale(progress.done, progress.total);
            told.go_on()
        };
        Ok(Some(adopt(&options, &mut on_progress).await?))
    })?;
    let Some(adopted) = adopted else {
        context.report.warn("interrupted; nothing was begun");
        return Ok(Outcome::Interrupted);
    };
    Ok(tell(context, &arguments, &adopted))
}

/// Checks the array that the data makes, if it makes one. Whether it was checked to its end.
async fn check(context: &Rc<Context>, options: &AdoptOptions) -> Result<bool, Failure> {
    let bar = context.report.percent("checking the array");
    let array = check_array(options, |done, total| {
        bar.scale(done, total);
        context.go_on()
    });
    let array = array.await?;
    drop(bar);
    let Some(array) = array else { return Ok(true) };
    if array.summary.stopped_at.is_some() {
        return Ok(false);
    }
    if array.is_consistent() {
        return Ok(true);
    }
    for line in super::scrub::lines(&super::scrub::object(&array.summary)) {
        context.report.warn(line);
    }
    if options.yes {
        return Ok(true);
    }
    let text = "the array is not consistent: tags would vouch for what is wrong";
    let advice = "let 'steadfast scrub' or the kernel repair it first, or adopt it with --yes";
    Err(Failure::new(Outcome::Refused, text).advise(advice))
}

fn tell(context: &Context, arguments: &Arguments, adopted: &[Adopted]) -> Outcome {
    let dry = arguments.dry_run;
    for one in adopted {
        tell_one(context, dry, one);
    }
    let finished = adopted.iter().all(Adopted::is_finished);
    let objects: Vec<Value> = adopted.iter().map(object).collect();
    let object = json!({"dry_run": dry, "complete": finished, "volumes": objects});
    context.report.object(object);
    if !finished && !dry {
        context.report.warn("interrupted; the same command goes on");
        return Outcome::Interrupted;
    }
    if adopted.iter().any(|one| one.unreadable_sectors > 0) {
        Outcome::Warned
    } else {
        Outcome::Fine
    }
}

fn tell_one(context: &Context, dry: bool, one: &Adopted) {
    let report = &context.report;
    let Pair { data, metadata } = &one.pair;
    for extent in &one.unreadable {
        let (sector, sectors) = (extent.sector.0, extent.sectors);
        report
            .warn(format!("{data}: unreadable: sector {sector}, {sectors} sectors, without tags"));
    }
    let size = human_sectors(one.sectors);
    if dry {
        report.line(match one.beginning {
            Beginning::New { metadata_bytes } => format!(
                "{metadata}: would get superblock, journal and tags of {data} ({size}) within \
                 {metadata_bytes} bytes"
            ),
            Beginning::Resumed { from } => {
                format!("{metadata}: would get the tags of {data} from sector {from} on")
            }
            Beginning::Finished => format!("{metadata}: holds every tag of {data} already"),
        });
    } else if one.beginning == Beginning::Finished {
        report.line(format!("{data}: adopted already ({size}), nothing to do"));
    } else if one.is_finished() {
        report.line(format!("{data}: adopted ({size}), its tags are in {metadata}"));
    } else {
        report.line(format!("{data}: has tags up to sector {} of {}", one.done, one.sectors));
    }
}

fn object(one: &Adopted) -> Value {
    let from = match one.beginning {
        Beginning::New { .. } => None,
        Beginning::Resumed { from } => Some(from),
        Beginning::Finished => Some(one.sectors),
    };
    let unreadable: Vec<Value> = one
        .unreadable
        .iter()
        .map(|extent| json!({"sector": extent.sector.0, "sectors": extent.sectors}))
        .collect();
    json!({
        "data": one.pair.data.to_string(),
        "metadata": one.pair.metadata.to_string(),
        "sectors": one.sectors,
        "resumed_from": from,
        "done_sectors": one.done,
        "unreadable": unreadable,
        "unreadable_sectors": one.unreadable_sectors,
    })
}
