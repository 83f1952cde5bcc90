//! Everything that must hold before a change lands, step by step, each of them a word by itself.

use crate::process::Cargo;
use crate::words::Words;
use crate::{fuzz, golden, kernel, packages, tidy};
use anyhow::bail;
use std::time::{Duration, Instant};

/// One heading of the run.
struct Step {
    name: &'static str,
    purpose: &'static str,
    run: fn() -> anyhow::Result<()>,
}

/// `ci [--only STEP | --list]`.
///
/// # Errors
/// At the first step that fails; the message says how to run just that one.
pub(crate) fn run(mut words: Words) -> anyhow::Result<()> {
    let only = words.option("--only")?;
    let list = words.flag("--list");
    words.end()?;
    if list {
        for Step { name, purpose, .. } in STEPS {
            println!("{name:<10} {purpose}");
        }
        return Ok(());
    }
    let chosen: Vec<_> =
        STEPS.iter().filter(|step| only.as_ref().is_none_or(|name| name == step.name)).collect();
    if chosen.is_empty() {
        bail!("no such step: `cargo xtask ci --list` names them");
    }

    let begin = Instant::now();
    let mut times = Vec::new();
    for step in chosen {
        println!("\n== {}: {}", step.name, step.purpose);
        let begin = Instant::now();
        if let Err(error) = (step.run)() {
            let name = step.name;
            bail!("{error:#}\nci: {name} failed; just that: cargo xtask ci --only {name}");
        }
        let elapsed = begin.elapsed();
        println!("== {} took {}", step.name, shown(elapsed));
        times.push(format!("{} {}", step.name, shown(elapsed)));
    }
    println!("\nci: everything held, in {} ({})", shown(begin.elapsed()), times.join(", "));
    Ok(())
}

fn shown(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn clippy() -> anyhow::Result<()> {
    let deny = ["--", "--deny", "warnings"];
    Cargo::new("clippy").args(["--workspace", "--all-targets"]).args(deny).run()?;
    // The one feature that a build of the workspace leaves out; checking it links nothing.
    Cargo::new("clippy").args(["--package", "bench", "--features", "isal"]).args(deny).run()
}

fn words(line: &str) -> Words {
    Words::new(line.split_whitespace().map(str::to_owned))
}

const STEPS: &[Step] = &[
    Step { name: "packages", purpose: "the peers that tests run against", run: packages::run },
    Step {
        name: "fmt",
        purpose: "one layout of the code",
        run: || {
            Cargo::new("fmt").args(["--all", "--check"]).run()?;
            Cargo::new("fmt").args(["--manifest-path", "fuzz/Cargo.toml", "--check"]).run()
        },
    },
    Step { name: "tidy", purpose: "the house's rules", run: tidy::run },
    Step { name: "golden", purpose: "the kernel's images are untouched", run: golden::run },
    Step { name: "clippy", purpose: "no warning anywhere", run: clippy },
    Step {
        name: "test",
        purpose: "every test, the fuzz corpora among them",
        run: || Cargo::new("test").args(["--workspace"]).run(),
    },
    Step {
        name: "doc",
        purpose: "the documentation builds without a warning",
        run: || {
            Cargo::new("doc")
                .args(["--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "--deny warnings")
                .run()
        },
    },
    Step {
        name: "sim",
        purpose: "a fixed budget of power cuts and damage in the simulated machine",
        // The same histories every time, about a minute of them: a change is judged by what it
        // changes. `cargo xtask sim --seconds S --from N` goes looking for more.
        run: || crate::sim(words("--seeds 1000")),
    },
    Step {
        name: "orderings",
        purpose: "every ordering flush left out in turn, and the simulator misses it",
        run: || crate::sim(words("--orderings")),
    },
    Step {
        name: "fuzz",
        purpose: "60 s of arbitrary bytes, all decoders",
        run: || fuzz::run(words("--seconds 60")),
    },
    Step {
        name: "kernel",
        purpose: "the real kernel, in a machine of its own, reads what we write, and we it",
        run: || kernel::run(words("")),
    },
    Step {
        name: "demo",
        purpose: "the main job, on a real file system",
        run: || crate::demo(words("")),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_minutes_and_seconds() {
        assert_eq!(shown(Duration::from_millis(61_900)), "1:01");
    }
}
