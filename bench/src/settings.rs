//! What is measured, how long, and where.

use clap::Parser;
use std::path::PathBuf;

/// Steadfast's speed beside its peers', measured in the same run.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Settings {
    /// Areas to measure: compute, dif, integrity, nbd, scrub; none: all
    #[arg(value_name = "AREA")]
    pub(crate) areas: Vec<String>,

    /// One JSON object per row instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Say every command that is run, on standard error
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// dif, integrity, nbd: only rows whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,

    /// nbd: where the served files lie, in a folder that goes away; /dev/shm for memory
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(crate) dir: PathBuf,

    /// nbd: size of what is served, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) size: u64,

    /// nbd: runs of each load on each side
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// nbd: length of a fio run, in seconds
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,

    /// nbd: the program under test; none: the release build of this checkout
    #[arg(long, value_name = "PATH")]
    pub(crate) steadfast: Option<PathBuf>,
}

impl Settings {
    /// Whether a row of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|text| name.contains(text.as_str()))
    }
}
