//! `steadfast demo`: the whole story on a file, in a scratch folder.
//!
//! 1. Six members, RAID 6 over dm-integrity, made from user space.
//! 2. Served over NBD on a Unix socket; the file is copied in through our own NBD client.
//! 3. Bits are flipped on two members: in data, in tags, in parity, in both superblocks.
//! 4. Served again: everything is read back, identical; a scrub finds and heals the rest.
//! 5. Three members are damaged in one stripe: exactly those blocks are errors, the rest is served.
//! 6. The lost blocks are written again, whole: nothing is wrong any more.
//!
//! Every step is checked; the demo ends with 0 only if all of them held.

mod damage;
mod envelope;
mod sample;
mod sinks;
mod stage;

use super::{Context, scrub as scrub_verb, status};
use crate::error::Failure;
use crate::exit::Outcome;
use crate::report::human;
use bio::ScrubMode;
use damage::Damage;
use sample::Sample;
use serde_json::json;
use sinks::{Compare, Hash};
use stack::copy::{ExportOptions, ImportOptions};
use stage::Stage;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

/// What to show it on.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A file to put through it all; without it a file system image is made
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// Instead: harm at each joint of a stack, and who notices it, under three kinds of protection
    #[arg(long, conflicts_with_all = ["file", "keep"])]
    envelope: bool,

    /// Leave the scratch folder for a closer look
    #[arg(long)]
    keep: bool,
}

/// Tells the story.
pub fn run(context: &Rc<Context>, arguments: Arguments) -> Result<Outcome, Failure> {
    if arguments.envelope {
        return envelope::run(context);
    }
    let begun = Instant::now();
    let scratch = Scratch::make(arguments.keep)?;
    let told = Rc::clone(context);
    told.report.line(format!("scratch folder  {}", scratch.0.display()));
    let folder = scratch.0.clone();
    let numbers = context.block_on(async move {
        let sample = Sample::find_or_make(&told.report, arguments.file, &folder)?;
        let stage = Stage::new(Rc::clone(&told), folder, &sample);
        Story { context: told, stage, sample }.tell().await
    })?;
    summary(context, &numbers, begun.elapsed().as_secs_f64());
    if arguments.keep {
        context.report.line(format!("kept: {}", scratch.0.display()));
    }
    Ok(Outcome::Fine)
}

/// The folder; gone at the end unless it is kept.
struct Scratch(PathBuf, bool);

impl Scratch {
    fn make(keep: bool) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("steadfast-demo-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| Failure::io(path.display(), &error))?;
        Ok(Self(path, keep))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.1 {
            // Whatever is left is in the system's folder for temporary files.
            let _left = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// What the summary says.
#[derive(Debug, Default)]
struct Numbers {
    sample: String,
    bytes: u64,
    sha256: String,
    import_seconds: f64,
    read_seconds: f64,
    flips: Damage,
    healed_on_read: u64,
    healed_by_scrub: u64,
    lost_bytes: u64,
}

struct Story {
    context: Rc<Context>,
    stage: Stage,
    sample: Sample,
}

impl Story {
    async fn tell(self) -> Result<Numbers, Failure> {
        let mut numbers = Numbers {
            sample: self.sample.what.clone(),
            bytes: self.sample.bytes,
            ..Numbers::default()
        };
        self.say("1  make six members: RAID 6 over dm-integrity, without a kernel or root");
        self.stage.create().await?;
        self.say("2  serve the volume over NBD and copy the file in through our own client");
        self.copy_in(&mut numbers).await?;
        self.show_status("before the damage", Outcome::Fine).await?;
        let scrubbed = self.scrub("before the damage", ScrubMode::Check).await?;
        expect(scrubbed.0 == Outcome::Fine, "the scrub before the damage finds nothing")?;
        self.say("3  flip bits on two members: data, tags, parity, and both superblocks");
        numbers.flips = damage::two_members(&self.stage).await?;
        self.line(numbers.flips.to_string());
        self.say("4  serve it again and read everything back");
        self.read_back(&mut numbers).await?;
        let (outcome, healed) = self.scrub("heals what nobody read", ScrubMode::Repair).await?;
        expect(outcome <= Outcome::Warned, "the scrub can heal everything")?;
        numbers.healed_by_scrub = healed;
        let again = self.scrub("once more", ScrubMode::Check).await?;
        expect(again.0 == Outcome::Fine, "after healing nothing is wrong")?;
        self.show_status("after healing", Outcome::Fine).await?;
        self.say("5  damage three members in one stripe: one more than RAID 6 can take");
        self.lose_and_restore(&mut numbers).await?;
        Ok(numbers)
    }

    fn say(&self, heading: &str) {
        self.context.report.line(format!("\n{heading}"));
    }

    fn line(&self, text: impl AsRef<str>) {
        self.context.report.line(format!("   {}", text.as_ref()));
    }

    async fn copy_in(&self, numbers: &mut Numbers) -> Result<(), Failure> {
        let volume = self.stage.open(false).await?;
        let (report, sample) = (&self.context.report, &self.sample);
        let begun = Instant::now();
        let import = async |device: bio::Device| {
            let options = ImportOptions { source_bytes: Some(sample.bytes), ..Default::default() };
            let mut source = sample.open()?;
            let bar = report.progress("copying in over NBD", sample.bytes);
            let imported = stack::copy::import(&device, &mut source, "sample", &options, |p| {
                bar.set(p.done);
                self.context.go_on()
            });
            let imported = imported.await?;
            if imported.stopped { Err(interrupted()) } else { Ok(()) }
        };
        self.stage.serve(volume, import).await?;
        numbers.import_seconds = begun.elapsed().as_secs_f64();
        numbers.sha256 = sample.sha256()?;
        let rate = rate(sample.bytes, numbers.import_seconds);
        self.line(format!("{} in, {rate}; sha256 {}", human(sample.bytes), numbers.sha256));
        Ok(())
    }

    async fn read_back(&self, numbers: &mut Numbers) -> Result<(), Failure> {
        let volume = self.stage.open(false).await?;
        let begun = Instant::now();
        let mut hash = Hash::default();
        let read = async |device: bio::Device| {
            let bar = self.context.report.progress("reading back over NBD", self.sample.bytes);
            let options = ExportOptions { offset: 0, length: Some(self.sample.bytes) };
            let exported = stack::copy::export(&device, &mut hash, &options, |p| {
                bar.set(p.done);
                self.context.go_on()
            });
            let exported = exported.await?;
            let unreadable = exported.map.bytes(stack::Status::Bad);
            expect(unreadable == 0, "every sector could be read")?;
            if exported.stopped { Err(interrupted()) } else { Ok(()) }
        };
        numbers.healed_on_read = self.stage.serve(volume, read).await?;
        numbers.read_seconds = begun.elapsed().as_secs_f64();
        let sha256 = hash.hex();
        expect(sha256 == numbers.sha256, "what is read back has the checksum of what was written")?;
        let rate = rate(self.sample.bytes, numbers.read_seconds);
        self.line(format!("identical: sha256 {sha256}, {rate}"));
        self.line(format!("{} sectors were healed on the way", numbers.healed_on_read));
        expect(numbers.healed_on_read > 0, "damaged blocks were healed while they were read")
    }

    async fn lose_and_restore(&self, numbers: &mut Numbers) -> Result<(), Failure> {
        let lost = damage::one_stripe_too_much(&self.stage).await?;
        let volume = self.stage.open(false).await?;
        let sample = &self.sample;
        let mut compare = Compare::new(sample.open()?);
        let mut bad = Vec::new();
        let read = async |device: bio::Device| {
            let bar = self.context.report.progress("reading what is left", sample.bytes);
            let options = ExportOptions { offset: 0, length: Some(sample.bytes) };
            let exported = stack::copy::export(&device, &mut compare, &options, |p| {
                bar.set(p.done);
                self.context.go_on()
            });
            bad = exported.await?.map.bad().copied().collect();
            Ok(())
        };
        self.stage.serve(volume, read).await?;
        for block in &bad {
            self.line(format!("error at byte {}: {} bytes are lost", block.position, block.bytes));
            numbers.lost_bytes += block.bytes;
        }
        let found: Vec<(u64, u64)> = bad.iter().map(|b| (b.position, b.bytes)).collect();
        expect(found == lost, "exactly the damaged blocks are errors")?;
        expect(compare.differing() == 0, "everything else is identical")?;
        self.line(format!("everything else, {}, is identical", human(compare.compared())));
        let scrubbed = self.scrub("names what is lost", ScrubMode::Check).await?;
        expect(scrubbed.0 == Outcome::DataLost, "the scrub says that data is lost")?;
        self.say("6  write the lost blocks again, whole");
        self.stage.restore(sample, &lost).await?;
        let restored = self.scrub("after that", ScrubMode::Check).await?;
        expect(restored.0 == Outcome::Fine, "nothing is wrong any more")
    }

    async fn show_status(&self, when: &str, expected: Outcome) -> Result<(), Failure> {
        let volume = self.stage.open(true).await?;
        let object = status::object(&volume, None, "MEMBERS");
        let health = status::health_of(&volume);
        super::open::close(volume, Ok(())).await?;
        self.line(format!("status, {when}:"));
        for line in status::lines(&object) {
            self.line(format!("  {line}"));
        }
        expect(health == expected, "the status is as it should be")
    }

    /// The scrub's outcome, and how many sectors it healed.
    async fn scrub(&self, when: &str, mode: ScrubMode) -> Result<(Outcome, u64), Failure> {
        let volume = self.stage.open(mode == ScrubMode::Check).await?;
        let bar = self.context.report.percent("scrubbing");
        let mut options = scrub::Options::new(mode);
        options.list_max = 5;
        let summary = volume
            .scrub(&options, |progress, _| {
                bar.scale(progress.done, progress.total);
                self.context.go_on()
            })
            .await;
        drop(bar);
        super::open::close(volume, Ok(())).await?;
        if summary.stopped_at.is_some() {
            return Err(interrupted());
        }
        let object = scrub_verb::object(&summary);
        self.line(format!("scrub, {when}:"));
        for line in scrub_verb::lines(&object) {
            self.line(format!("  {line}"));
        }
        Ok((scrub_verb::outcome(&summary), summary.total(bio::Finding::Healed).sectors))
    }
}

/// A claim of the story. If it does not hold, the demo has failed.
fn expect(held: bool, claim: &str) -> Result<(), Failure> {
    if held {
        return Ok(());
    }
    Err(Failure::new(Outcome::DataLost, format!("the demo failed: it is not true that {claim}"))
        .advise("please report this, with the output of 'steadfast demo --keep -v'"))
}

fn interrupted() -> Failure {
    Failure::new(Outcome::Interrupted, "interrupted").advise("start the demo again")
}

#[allow(clippy::cast_precision_loss, reason = "a rate for a person")]
fn rate(bytes: u64, seconds: f64) -> String {
    format!("{:.0} MB/s", bytes as f64 / seconds / 1e6)
}

fn summary(context: &Context, numbers: &Numbers, seconds: f64) {
    let report = &context.report;
    let flips = &numbers.flips;
    report.line(format!(
        "\n\
         what was written    {} ({})\n\
         over NBD            {} in, {} out\n\
         damage              {} bits flipped on two members: {} in data and parity, {} in tags, {} in superblocks\n\
         read back           identical, {} sectors healed while reading, {} by the scrub\n\
         beyond redundancy   {} bytes lost, named to the byte, never given out wrong; all else served\n\
         after rewriting     nothing wrong\n\
         \n\
         every step held, in {seconds:.0} seconds",
        human(numbers.bytes),
        numbers.sample,
        rate(numbers.bytes, numbers.import_seconds),
        rate(numbers.bytes, numbers.read_seconds),
        flips.total(),
        flips.data,
        flips.tags,
        flips.superblocks,
        numbers.healed_on_read,
        numbers.healed_by_scrub,
        numbers.lost_bytes,
    ));
    report.object(json!({
        "held": true, "bytes": numbers.bytes, "sha256": numbers.sha256,
        "import_seconds": numbers.import_seconds, "read_seconds": numbers.read_seconds,
        "flipped_bits": flips.total(), "healed_on_read_sectors": numbers.healed_on_read,
        "healed_by_scrub_sectors": numbers.healed_by_scrub, "lost_bytes": numbers.lost_bytes,
        "seconds": seconds,
    }));
}
