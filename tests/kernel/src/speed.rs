//! `--speed`: dm-integrity in the kernel beside `steadfast serve`, in the same guest, over the same
//! RAM disk, by the same fio jobs.
//!
//! ```text
//!   fio --+--> raw ------------------------------------> /dev/ram0
//!         +--> /dev/nbd0 --> serve, of raw ------------> /dev/ram0
//!         +--> dm-integrity -------------> lower ------> /dev/ram1     one volume, opened in turns
//!         +--> /dev/nbd0 --> serve ------> lower ------> /dev/ram1
//! ```
//!
//! `raw` and `lower` are linear targets of the device mapper, which count what is written to them.
//! Every processor is emulated: a rate means nothing by itself, and instructions for checksums cost
//! more than they save. So rates are told as ratios to the raw device in the same guest.

use crate::disks::Disks;
use crate::format::{Format, Mode};
use crate::lab::{Answer, Lab};
use crate::machine::boot;
use crate::program::Program;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// How long it takes.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Speed: runs of each job on each side, of which the middle one counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Speed: seconds of a run
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..60))]
    seconds: u32,

    /// Speed: one JSON object per job and side instead of tables
    #[arg(long)]
    json: bool,
}

/// Measures, and prints both tables.
///
/// # Errors
/// If the machine does not start, or a job fails.
pub(crate) fn run(folder: &Path, program: &Path, settings: &Settings) -> anyhow::Result<()> {
    let boot = boot::prepare_for_speed(folder, program)?;
    let mut lab = Lab::new(&boot, Program(program.to_owned()), &folder.join("lab"), Vec::new())?;
    script(&mut lab, &prepare())?;
    let mut measured: Vec<Vec<Vec<Run>>> = SIDES.iter().map(|_| no_runs()).collect();
    for round in 0..settings.rounds {
        for (side, runs) in SIDES.iter().zip(&mut measured) {
            script(&mut lab, &side.open()).with_context(|| side.name())?;
            for (job, runs) in JOBS.iter().zip(runs) {
                let answer = script(&mut lab, &job.script(side, settings.seconds));
                let run = answer.and_then(|answer| Run::of(&answer, job));
                let run = run.with_context(|| format!("{}, {}", side.name(), job.name))?;
                eprintln!(
                    "{}: {}, {}: {:.0} {}",
                    round + 1,
                    side.name(),
                    job.name,
                    run.rate,
                    job.unit()
                );
                runs.push(run);
            }
            script(&mut lab, &side.close()).with_context(|| side.name())?;
        }
    }
    let rate = |run: &Run| run.rate;
    let written = |run: &Run| run.written;
    if settings.json {
        for (side, runs) in SIDES.iter().zip(&measured) {
            for (job, runs) in JOBS.iter().zip(runs) {
                let row = json!({"side": side.name(), "job": job.name, "unit": job.unit(),
                    "rate": middle(runs, rate), "written_per_byte": middle(runs, written)});
                println!("{row}");
            }
        }
        return Ok(());
    }
    let raw = |job: usize| middle(&measured[0][job], rate);
    println!("Linux {}; {} runs of {} s", boot.release, settings.rounds, settings.seconds);
    let ratio = |side: usize, job: usize| middle(&measured[side][job], rate) / raw(job);
    print("speed, the raw device is 1", 3, &|_| true, &ratio);
    let bytes = |side: usize, job: usize| middle(&measured[side][job], written);
    print("bytes written per byte of data", 2, &|job| job.writes(), &bytes);
    Ok(())
}

fn no_runs() -> Vec<Vec<Run>> {
    JOBS.iter().map(|_| Vec::new()).collect()
}

fn script(lab: &mut Lab<'_>, text: &str) -> anyhow::Result<Answer> {
    lab.guest(&Disks::default(), text)
}

/// A table: a line per job, a column per side but the raw device.
fn print(
    title: &str,
    digits: usize,
    wanted: &dyn Fn(&Job) -> bool,
    value: &dyn Fn(usize, usize) -> f64,
) {
    let width = JOBS.iter().map(|job| job.name.len()).max().unwrap_or_default().max(title.len());
    print!("\n{title:<width$}");
    SIDES[1..].iter().for_each(|side| print!("  {:>14}", side.name()));
    println!();
    for (index, job) in JOBS.iter().enumerate().filter(|(_, job)| wanted(job)) {
        print!("{:<width$}", job.name);
        (1..SIDES.len()).for_each(|side| print!("  {:>14.digits$}", value(side, index)));
        println!();
    }
}

/// The middle of what some runs have.
fn middle(runs: &[Run], value: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What fio's device is.
enum Side {
    Raw,
    /// The raw device through our server: what the socket costs.
    RawServed,
    Kernel(Mode),
    Ours(Mode),
}

const SIDES: [Side; 8] = [
    Side::Raw,
    Side::RawServed,
    Side::Kernel(Mode::Journal),
    Side::Kernel(Mode::Bitmap),
    Side::Kernel(Mode::Direct),
    Side::Ours(Mode::Journal),
    Side::Ours(Mode::Bitmap),
    Side::Ours(Mode::Direct),
];

impl Side {
    fn name(&self) -> String {
        let (who, mode) = match self {
            Self::Raw => return "raw".into(),
            Self::RawServed => return "raw over NBD".into(),
            Self::Kernel(mode) => ("kernel", mode),
            Self::Ours(mode) => ("ours", mode),
        };
        format!("{who} {mode:?}").to_lowercase()
    }

    /// What fio opens.
    fn device(&self) -> &'static str {
        match self {
            Self::Raw => "/dev/mapper/raw",
            Self::Kernel(_) => "/dev/mapper/t0",
            Self::RawServed | Self::Ours(_) => "/dev/nbd0",
        }
    }

    fn open(&self) -> String {
        match self {
            Self::Raw => String::new(),
            Self::Kernel(mode) => volume(*mode).open_command(0, "t0").replace("$D0", LOWER),
            Self::RawServed => serve("--stack file:/dev/mapper/raw"),
            Self::Ours(mode) => {
                serve(&format!("{LOWER} {}", volume(*mode).running_options().join(" ")))
            }
        }
    }

    fn close(&self) -> String {
        match self {
            Self::Raw => String::new(),
            Self::Kernel(_) => "integritysetup close t0\n".into(),
            Self::RawServed | Self::Ours(_) => {
                "nbd-client -d /dev/nbd0 >/dev/null\nkill -TERM $(cat /tmp/server)\n\
                 gone() { ! kill -0 $(cat /tmp/server) 2>/dev/null; }\nwait_for gone\n"
                    .into()
            }
        }
    }
}

/// The volume in a mode.
fn volume(mode: Mode) -> Format {
    Format { mode, ..Format::CRC32C_4096 }
}

/// The guest serves something, and is its client.
fn serve(what: &str) -> String {
    format!(
        "rm -f /tmp/ready /tmp/socket
         steadfast serve {what} --state none --nbd unix:/tmp/socket >/tmp/ready 2>/tmp/failed &
         echo $! > /tmp/server
         ready() {{ grep -q ready /tmp/ready; }}
         wait_for ready || {{ cat /tmp/failed; fail serve; }}
         nbd-client -unix /tmp/socket /dev/nbd0 >/tmp/nbd 2>&1 || {{ cat /tmp/nbd; fail nbd; }}\n"
    )
}

/// The guest makes the disks and the volume, every block of both written once.
fn prepare() -> String {
    let sectors = VOLUME_MIB << 11;
    let format = volume(Mode::Journal).format_command(0).replace("$D0", LOWER);
    format!(
        "modprobe brd rd_nr=2 rd_size={}
         modprobe nbd
         dmsetup create raw --table '0 {sectors} linear /dev/ram0 0'
         dmsetup create lower --table '0 {sectors} linear /dev/ram1 0'
         dmsetup mknodes
         [ -b /dev/mapper/raw ]
         dd if=/dev/zero of=/dev/mapper/raw bs=1M count={VOLUME_MIB} 2>/dev/null
         {format}",
        VOLUME_MIB << 10,
    )
}

/// What fio does.
struct Job {
    name: &'static str,
    fio: &'static str,
}

const JOBS: [Job; 6] = [
    Job { name: "write 1M QD8", fio: "--rw=write --bs=1M --iodepth=8" },
    Job { name: "read 1M QD8", fio: "--rw=read --bs=1M --iodepth=8" },
    Job { name: "random write 4K QD32", fio: "--rw=randwrite --bs=4k --iodepth=32" },
    Job { name: "random read 4K QD32", fio: "--rw=randread --bs=4k --iodepth=32" },
    Job {
        name: "random write 4K, each flushed",
        fio: "--rw=randwrite --bs=4k --iodepth=1 --fsync=1",
    },
    Job {
        name: "random write 4K QD32, flush after 32",
        fio: "--rw=randwrite --bs=4k --iodepth=32 --fsync=32",
    },
];

impl Job {
    fn writes(&self) -> bool {
        self.fio.contains("write")
    }

    fn unit(&self) -> &'static str {
        if self.fio.contains("bs=1M") { "MB/s" } else { "req/s" }
    }

    /// Runs it, and says what was written below meanwhile, all of it flushed.
    fn script(&self, side: &Side, seconds: u32) -> String {
        let counted = match side {
            Side::Raw | Side::RawServed => "raw",
            Side::Kernel(_) | Side::Ours(_) => "lower",
        };
        format!(
            "minor=$(dmsetup info -c --noheadings -o minor {counted})
             written() {{ echo $1 $(awk '{{ print $7 }}' /sys/block/dm-$minor/stat); }}
             sync_to {device}
             written before
             fio --name=load --filename={device} --ioengine=libaio --direct=1 --time_based \\
               --runtime={seconds} --randrepeat=0 --norandommap --end_fsync=1 \\
               --output-format=json --output=/tmp/fio {job} >/tmp/said 2>&1 || {{ cat /tmp/said; fail fio; }}
             written after
             echo json $(cat /tmp/fio)\n",
            device = side.device(),
            job = self.fio,
        )
    }
}

/// What one run of a job was.
struct Run {
    /// In the job's unit.
    rate: f64,
    /// Bytes written below for each byte of data; 0 for reads.
    written: f64,
}

impl Run {
    fn of(answer: &Answer, job: &Job) -> anyhow::Result<Self> {
        let text = answer.all("json").last().context("fio said nothing")?;
        // Warnings may stand before the object.
        let begin = text.find('{').context("fio's JSON")?;
        let said: Value = serde_json::from_str(&text[begin..]).context("fio's JSON")?;
        let done = &said["jobs"][0][if job.writes() { "write" } else { "read" }];
        let number = |name: &str| done[name].as_f64().with_context(|| format!("fio: {name}"));
        let rate = match job.unit() {
            "MB/s" => number("bw_bytes")? / 1e6,
            _ => number("iops")?,
        };
        ensure!(rate > 0.0, "nothing was done: {done}");
        let below = (answer.number("after")? - answer.number("before")?) * 512;
        let written = if job.writes() { count(below) / number("io_bytes")? } else { 0.0 };
        Ok(Self { rate, written })
    }
}

/// Bytes as a number to divide: far below what a double holds exactly.
fn count(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes >> 12).expect("less than 16 TiB")) * 4096.0
}

const LOWER: &str = "/dev/mapper/lower";
const VOLUME_MIB: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_three_runs_counts() {
        let run = |rate| Run { rate, written: 0.0 };
        assert_eq!(middle(&[run(9.0), run(1.0), run(2.0)], |run| run.rate), 2.0);
    }

    #[test]
    fn sides_are_told_apart_by_their_names() {
        let names: Vec<String> = SIDES.iter().map(Side::name).collect();
        assert_eq!(names[2], "kernel journal");
        assert_eq!(names[6], "ours bitmap");
    }
}
