//! What clients do.

use super::client;
use super::server::Server;
use crate::place::Place;
use anyhow::{Context, bail};
use std::process::Command;
use std::time::Instant;

/// One kind of work for a server.
pub(super) struct Load {
    pub(super) name: &'static str,
    what: What,
    pub(super) unit: &'static str,
}

enum What {
    Fio {
        pattern: &'static str,
        block: &'static str,
        depth: u32,
        rate: Rate,
    },
    /// Random reads by a client that is no limit.
    LeanReads,
    /// All of the export to nowhere.
    CopyOut,
    /// A file without zeroes to the export, flushed at the end.
    CopyIn,
}

impl Load {
    /// Puts the load on `server` once; the rate it got, in `unit`.
    pub(super) fn run(&self, server: &Server, place: &Place) -> anyhow::Result<f64> {
        match self.what {
            What::Fio { pattern, block, depth, rate } => {
                let mut fio = Command::new("fio");
                fio.args(["--name=load", "--ioengine=nbd", "--time_based"])
                    .arg(format!("--uri={}", server.uri()))
                    .arg(format!("--rw={pattern}"))
                    .arg(format!("--bs={block}"))
                    .arg(format!("--iodepth={depth}"))
                    .arg(format!("--size={}M", place.size_mib))
                    .arg(format!("--runtime={}", place.seconds))
                    .args(["--randrepeat=0", "--norandommap", "--output-format=json"]);
                let side = if pattern.ends_with("read") { "read" } else { "write" };
                Ok(fio_rate(&place.output(&mut fio)?, side, rate.key)? / rate.per_unit)
            }
            What::LeanReads => Ok(client::random_reads(server, place.seconds)? / REQUESTS.per_unit),
            What::CopyOut => {
                let mut copy = Command::new("nbdcopy");
                copy.arg(server.uri()).arg("null:");
                mb_per_second(server.bytes, place, &mut copy)
            }
            What::CopyIn => fill(server, place),
        }
    }
}

/// Copies the file without zeroes in; MB/s.
pub(super) fn fill(server: &Server, place: &Place) -> anyhow::Result<f64> {
    let mut copy = Command::new("nbdcopy");
    copy.arg("--flush").arg(place.source()).arg(server.uri());
    mb_per_second(place.bytes(), place, &mut copy)
}

fn mb_per_second(bytes: u64, place: &Place, copy: &mut Command) -> anyhow::Result<f64> {
    let start = Instant::now();
    place.output(copy)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = u32::try_from(bytes / 1_000_000).context("too much for one measurement")?;
    Ok(f64::from(megabytes) / seconds)
}

/// The rate in fio's report, behind whatever its engine said before.
fn fio_rate(output: &str, side: &str, rate: &str) -> anyhow::Result<f64> {
    let report = output.find('{').map(|start| &output[start..]).unwrap_or_default();
    let report: serde_json::Value =
        serde_json::from_str(report).with_context(|| format!("fio said: {output}"))?;
    let job = &report["jobs"][0];
    match (job["error"].as_i64(), job[side][rate].as_f64()) {
        (Some(0), Some(rate)) if rate > 0.0 => Ok(rate),
        (error, rate) => bail!("fio got {rate:?} with error {error:?}"),
    }
}

/// A number of fio's report.
#[derive(Clone, Copy)]
struct Rate {
    key: &'static str,
    per_unit: f64,
    unit: &'static str,
}

const fn fio(
    name: &'static str,
    pattern: &'static str,
    (block, depth): (&'static str, u32),
    rate: Rate,
) -> Load {
    Load { name, what: What::Fio { pattern, block, depth, rate }, unit: rate.unit }
}

const LARGE: (&str, u32) = ("1M", 8);
const SMALL: (&str, u32) = ("4k", 32);
const BYTES: Rate = Rate { key: "bw_bytes", per_unit: 1e6, unit: "MB/s" };
const REQUESTS: Rate = Rate { key: "iops", per_unit: 1e3, unit: "k req/s" };

pub(super) const LOADS: &[Load] = &[
    fio("write 1M QD8", "write", LARGE, BYTES),
    fio("read 1M QD8", "read", LARGE, BYTES),
    fio("random write 4K QD32", "randwrite", SMALL, REQUESTS),
    fio("random read 4K QD32", "randread", SMALL, REQUESTS),
    Load { name: "random read 4K QD32, lean client", what: What::LeanReads, unit: REQUESTS.unit },
    Load { name: "nbdcopy in", what: What::CopyIn, unit: "MB/s" },
    Load { name: "nbdcopy out", what: What::CopyOut, unit: "MB/s" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_found_behind_what_the_engine_says() {
        let text = "fio: connected\n{\"jobs\":[{\"error\":0,\"read\":{\"iops\":2.5}}]}";
        assert_eq!(fio_rate(text, "read", "iops").unwrap(), 2.5);
        assert!(fio_rate(text, "write", "iops").is_err());
        assert!(fio_rate("no such engine", "read", "iops").is_err());
        let failed = text.replace("\"error\":0", "\"error\":5");
        assert!(fio_rate(&failed, "read", "iops").is_err());
    }
}
