//! `bench [AREA] [--json]`: Steadfast's speed beside its peers', measured in the same run.
//!
//! An area is a module with one function that gives rows; `AREAS` lists them. What the numbers
//! mean, and under which conditions they were taken, is in README.md beside this crate.

mod compute;
#[cfg_attr(not(feature = "isal"), path = "isal_absent.rs")]
mod isal;
mod measure;
mod row;

use anyhow::bail;
use row::Row;

/// A set of rows that are measured together.
struct Area {
    name: &'static str,
    rows: fn() -> anyhow::Result<Vec<Row>>,
}

fn main() -> anyhow::Result<()> {
    let mut json = false;
    let mut chosen: Vec<&Area> = Vec::new();
    for argument in std::env::args().skip(1) {
        match AREAS.iter().find(|area| area.name == argument) {
            Some(area) => chosen.push(area),
            None if argument == "--json" => json = true,
            None => {
                let names: Vec<_> = AREAS.iter().map(|area| area.name).collect();
                bail!("unknown area '{argument}'; usage: bench [{}] [--json]", names.join("|"));
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(AREAS);
    }
    for area in chosen {
        let rows = (area.rows)()?;
        if json { row::print_lines(&rows)? } else { row::print_table(area.name, &rows) }
    }
    Ok(())
}

const AREAS: &[Area] = &[Area { name: "compute", rows: compute::rows }];
