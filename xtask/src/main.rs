//! The project's habits, each one word: `cargo xtask` lists them, `cargo xtask WORD` does one.
//!
//! No job of the continuous integration does anything that a developer cannot run with the same
//! word. A habit is a row of [`HABITS`] and a function that takes the words after its own.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "these are programs for people")]

mod ci;
mod fuzz;
mod golden;
mod kernel;
mod packages;
mod process;
mod tidy;
mod words;

use anyhow::bail;
use process::Cargo;
use std::process::ExitCode;
use words::Words;

/// One word of `cargo xtask`.
struct Habit {
    name: &'static str,
    /// What may follow the word.
    usage: &'static str,
    purpose: &'static str,
    run: fn(Words) -> anyhow::Result<()>,
}

fn main() -> ExitCode {
    let mut words = Words::new(std::env::args().skip(1));
    match words.next() {
        None => {
            list();
            ExitCode::SUCCESS
        }
        Some(name) => match dispatch(&name, words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn dispatch(name: &str, words: Words) -> anyhow::Result<()> {
    match HABITS.iter().find(|habit| habit.name == name) {
        Some(habit) => (habit.run)(words),
        None => bail!("no habit is called '{name}': `cargo xtask` lists them"),
    }
}

fn list() {
    println!("cargo xtask WORD, from anywhere in the checkout:\n");
    for Habit { name, usage, purpose, .. } in HABITS {
        println!("  {:<34} {purpose}", format!("{name} {usage}").trim_end());
    }
}

/// `sim [--seed N | --seconds S ...]`: the words are the simulator's own.
fn sim(words: Words) -> anyhow::Result<()> {
    let mut words = words.rest();
    if words.is_empty() {
        words = ["--seconds", "60"].map(str::to_owned).into();
    }
    Cargo::new("run")
        .args(["--release", "--package", "steadfast-world", "--bin", "sim", "--"])
        .args(words)
        .run()
}

/// `bench [AREA] [--json]`: beside libisal where its headers are installed. `bench kernel` is measured
/// where the kernel is, in the machine of the cases.
fn bench(words: Words) -> anyhow::Result<()> {
    let mut words = words;
    if words.flag("kernel") {
        return kernel::speed(words);
    }
    let mut cargo = Cargo::new("run").args(["--release", "--package", "bench"]);
    if packages::ISA_L.is_present() {
        cargo = cargo.args(["--features", "isal"]);
    }
    cargo.args(["--"]).args(words.rest()).run()
}

/// `demo [FILE]`: the whole story, told by the program itself.
fn demo(words: Words) -> anyhow::Result<()> {
    Cargo::new("run").args(["--release", "--", "demo"]).args(words.rest()).run()
}

const HABITS: &[Habit] = &[
    Habit {
        name: "ci",
        usage: "[--only STEP | --list]",
        purpose: "every check and every test; as root it installs what they need",
        run: ci::run,
    },
    Habit {
        name: "tidy",
        usage: "",
        purpose: "imports downwards, pure formats, unsafe at home, links and images whole",
        run: |words| {
            words.end()?;
            tidy::run()
        },
    },
    Habit {
        name: "sim",
        usage: "[--seed N | --seconds S ...]",
        purpose: "power cuts and damage in the simulated machine; without words, 60 s of seeds",
        run: sim,
    },
    Habit {
        name: "fuzz",
        usage: "[TARGET] [--seconds S]",
        purpose: "arbitrary bytes for every decoder; without words, 60 s over all targets",
        run: fuzz::run,
    },
    Habit {
        name: "bench",
        usage: "[AREA] [--json]",
        purpose: "speed beside the peers', measured in the same run",
        run: bench,
    },
    Habit {
        name: "golden",
        usage: "",
        purpose: "the images of the real kernel against their manifest",
        run: |words| {
            words.end()?;
            golden::run()
        },
    },
    Habit {
        name: "kernel",
        usage: "[CASE... | --all | --list]",
        purpose: "the real Linux kernel reads what we write, and we what it writes",
        run: kernel::run,
    },
    Habit {
        name: "packages",
        usage: "",
        purpose: "the Debian packages that the tests need; as root it installs what is missing",
        run: |words| {
            words.end()?;
            packages::run()
        },
    },
    Habit {
        name: "demo",
        usage: "[FILE]",
        purpose: "make a volume, serve it, damage it, watch it heal",
        run: demo,
    },
];
