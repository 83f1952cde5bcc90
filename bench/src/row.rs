//! One comparison, and how a set of them is printed.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is this program's output")]

use serde::Serialize;

/// Ours beside a peer's. Rates: higher is better.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) name: String,
    /// Our rate.
    pub(crate) ours: f64,
    /// Who it is compared with.
    pub(crate) peer_name: &'static str,
    /// Their rate; none if they are not in this build or not on this machine.
    pub(crate) peer: Option<f64>,
    /// Ours divided by theirs.
    pub(crate) ratio: Option<f64>,
    /// Of both rates.
    pub(crate) unit: &'static str,
}

impl Row {
    /// A row from two rates.
    pub(crate) fn new(
        name: impl Into<String>,
        ours: f64,
        (peer_name, peer): (&'static str, Option<f64>),
        unit: &'static str,
    ) -> Self {
        let ratio = peer.map(|peer| ours / peer);
        Self { name: name.into(), ours, peer_name, peer, ratio, unit }
    }
}

/// Tells a person who waits; never part of the rows.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// For people: a table under the area's name.
pub(crate) fn print_table(area: &str, rows: &[Row]) {
    let names = rows.iter().map(|row| row.name.len()).chain([area.len()]);
    let width = names.max().unwrap_or_default();
    println!("{area:<width$}  {:>9}  {:>9}  {:>5}  {:<9}  peer", "ours", "peer", "ratio", "unit");
    for row in rows {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        println!(
            "{:<width$}  {:>9}  {:>9}  {:>5}  {:<9}  {}",
            row.name,
            number(Some(row.ours), 1),
            number(row.peer, 1),
            number(row.ratio, 2),
            row.unit,
            row.peer_name,
        );
    }
}

/// For programs: one JSON object a line.
pub(crate) fn print_lines(rows: &[Row]) -> anyhow::Result<()> {
    for row in rows {
        println!("{}", serde_json::to_string(row)?);
    }
    Ok(())
}
