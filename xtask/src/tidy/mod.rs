//! The house's rules, checked on every change. A message says what to write instead.
//!
//! [`house`] holds the tables and nothing else; each other module holds one kind of rule as
//! functions over text, so that its tests are small strings.

mod docs;
mod house;
mod imports;
mod rules;
mod scan;

use crate::golden;
use crate::process::{Cargo, root};
use anyhow::{Context, bail};
use scan::{Source, TestFiles};
use std::path::{Path, PathBuf};

/// # Errors
/// With everything that is untidy in one message.
pub(crate) fn run() -> anyhow::Result<()> {
    let metadata = Cargo::new("metadata")
        .args(["--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("ask cargo for the workspace")?;
    let mut problems = imports::check(&serde_json::from_slice(&metadata)?)?;

    let mut files = Vec::new();
    walk(root(), &mut files)?;
    files.sort();
    let mut sources = Vec::new();
    for path in &files {
        let shown = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
        let read = || std::fs::read_to_string(path).with_context(|| shown.clone());
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read()?;
            sources.push(Source::scan(shown, &text));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            problems.extend(docs::check(&shown, &read()?, &|link| exists(path, link)));
        }
    }
    let tests = TestFiles::among(&sources);
    for source in &mut sources {
        if tests.contain(&source.path) {
            source.all_is_test();
        }
    }
    problems.extend(sources.iter().flat_map(rules::check));
    problems.extend(rules::stale_exceptions(&sources));
    problems.extend(golden::check(&root().join("golden"))?);

    if !problems.is_empty() {
        bail!("{}\ntidy: {} to put right", problems.join("\n"), problems.len());
    }
    println!("tidy: {} sources and documents", files.len());
    Ok(())
}

fn exists(document: &Path, link: &str) -> bool {
    document.parent().is_some_and(|folder| folder.join(link).exists())
}

/// Every Rust source and document of the checkout.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            let name = name.to_string_lossy();
            let built = name == "target" || name == "artifacts" || name == "corpus";
            if !built && !name.starts_with('.') {
                walk(&path, files)?;
            }
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "md") {
            files.push(path);
        }
    }
    Ok(())
}
