//! `steadfast man`: the manual, as pages for man(1). They are made from what `--help` says.

use super::Context;
use crate::error::Failure;
use crate::exit::Outcome;
use clap::CommandFactory;
use serde_json::json;
use std::path::PathBuf;
use std::rc::Rc;

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A folder that exists; pages of earlier versions in it are replaced
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes a page for the program and one for each verb.
pub fn run(context: &Rc<Context>, arguments: &Arguments) -> Result<Outcome, Failure> {
    let folder = &arguments.folder;
    let written = clap_mangen::generate_to(crate::Cli::command(), folder);
    written.map_err(|error| Failure::io(folder.display(), &error))?;
    let page = folder.join("steadfast.1");
    context.report.line(format!("written; read the first with 'man -l {}'", page.display()));
    context.report.object(json!({"folder": folder}));
    Ok(Outcome::Fine)
}
