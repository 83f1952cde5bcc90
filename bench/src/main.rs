//! `bench [AREA]... [--json]`: Steadfast's speed beside its peers', measured in the same run.
//!
//! An area is a module with one function that gives rows; `AREAS` lists them. What the numbers
//! mean, and under which conditions they were taken, is in README.md beside this crate.

mod btrfs;
mod compute;
mod dif;
mod integrity;
#[cfg_attr(not(feature = "isal"), path = "isal_absent.rs")]
mod isal;
mod load;
mod measure;
mod memory_array;
mod nbd;
mod pages;
mod place;
mod raid;
mod row;
mod scrub;
mod settings;

use anyhow::bail;
use clap::Parser;
use row::Row;
use settings::Settings;

/// A set of rows that are measured together.
struct Area {
    name: &'static str,
    rows: fn(&Settings) -> anyhow::Result<Vec<Row>>,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let mut chosen: Vec<&Area> = Vec::new();
    for name in &settings.areas {
        match AREAS.iter().find(|area| area.name == name) {
            Some(area) => chosen.push(area),
            None => {
                let names: Vec<_> = AREAS.iter().map(|area| area.name).collect();
                bail!("unknown area '{name}', expected one of {}", names.join(", "));
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(AREAS);
    }
    for area in chosen {
        let rows = (area.rows)(&settings)?;
        if settings.json { row::print_lines(&rows)? } else { row::print_table(area.name, &rows) }
    }
    Ok(())
}

const AREAS: &[Area] = &[
    Area { name: "compute", rows: |_| compute::rows() },
    Area { name: "dif", rows: |settings| Ok(dif::rows(settings)) },
    Area { name: "integrity", rows: integrity::rows },
    Area { name: "nbd", rows: nbd::rows },
    Area { name: "raid", rows: raid::rows },
    Area { name: "scrub", rows: scrub::rows },
];
