//! Everything the program says: results on standard output, the rest on standard error.
//!
//! A verb makes one result: lines for a person, or with `--json` one object (`"schema": 1`).
//! Warnings and progress never mix with it. Progress is a bar on a terminal, plain lines elsewhere,
//! and a JSON object per line with `--progress json`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

use crate::error::Failure;
use bio::{Event, EventKind};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Nothing.
    None,
}

/// Events that are shown one by one.
const EVENTS_MAX: u64 = 20;

/// What the program says, and how.
pub struct Report {
    json: bool,
    quiet: bool,
    verbose: bool,
    progress: ProgressMode,
    /// Standard output carries data (`export --to -`): results go to standard error.
    stdout_taken: Cell<bool>,
    /// Events so far.
    events: Cell<u64>,
}

impl Report {
    /// A report in the given manner.
    pub fn new(json: bool, quiet: bool, verbose: bool, progress: ProgressMode) -> Self {
        Self {
            json,
            quiet,
            verbose,
            progress,
            stdout_taken: Cell::new(false),
            events: Cell::new(0),
        }
    }

    /// From now on results go to standard error: standard output carries data.
    pub fn leave_stdout(&self) {
        self.stdout_taken.set(true);
    }

    /// A line of the result, for a person.
    pub fn line(&self, text: impl AsRef<str>) {
        if self.json || self.quiet {
            return;
        }
        let text = text.as_ref();
        if self.stdout_taken.get() {
            eprintln!("{text}");
        } else {
            // A closed pipe (`| head`) is the reader's choice, not an error.
            let _closed = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// The result, for a program; `value` is an object and gets its `schema`.
    pub fn object(&self, mut value: Value) {
        if !self.json {
            return;
        }
        if let Value::Object(map) = &mut value {
            map.insert("schema".into(), json!(1));
        }
        if self.stdout_taken.get() {
            eprintln!("{value}");
        } else {
            let _closed = writeln!(std::io::stdout(), "{value}");
        }
    }

    /// Something that went wrong along the way.
    pub fn warn(&self, text: impl AsRef<str>) {
        eprintln!("steadfast: {}", text.as_ref());
    }

    /// Why the verb ended without a result: one line, and with `-v` the causes.
    pub fn failure(&self, failure: &Failure) {
        eprintln!("steadfast: {failure}");
        if self.verbose {
            for cause in &failure.causes {
                eprintln!("  because: {cause}");
            }
        }
        self.object(json!({
            "error": {
                "message": failure.message,
                "advice": failure.advice,
                "exit_code": failure.outcome.code(),
            }
        }));
    }

    /// Something that happened to the volume. After [`EVENTS_MAX`] of them only `-v` shows more.
    pub fn event(&self, event: &Event) {
        let noteworthy = !matches!(event.kind, EventKind::Note | EventKind::JournalReplayed);
        if self.verbose || (noteworthy && self.events.get() < EVENTS_MAX) {
            eprintln!("steadfast: {event}");
        } else if noteworthy && self.events.get() == EVENTS_MAX {
            eprintln!("steadfast: further events are counted, not shown; -v shows them all");
        }
        self.events.set(self.events.get() + u64::from(noteworthy));
    }

    /// A remark that only `-v` shows.
    pub fn detail(&self, text: impl AsRef<str>) {
        if self.verbose {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Progress of one step of `total` bytes.
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        let template = "{msg:<28} [{bar:32}] {percent:>3}%  {bytes_per_sec:>13}  ETA {eta}";
        self.bar(label, total, template)
    }

    /// Progress of one step whose units mean nothing to a person; see [`Progress::scale`].
    pub fn percent(&self, label: &str) -> Progress {
        self.bar(label, 1000, "{msg:<28} [{bar:32}] {percent:>3}%  ETA {eta}")
    }

    fn bar(&self, label: &str, total: u64, template: &str) -> Progress {
        let style = match self.progress {
            ProgressMode::Json => Style::Json,
            ProgressMode::Auto if !self.quiet && std::io::stderr().is_terminal() => {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                let style = ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                bar.set_style(style.progress_chars("=> "));
                bar.set_message(label.to_owned());
                Style::Bar(bar)
            }
            ProgressMode::Auto if !self.quiet => Style::Lines,
            _ => Style::Nothing,
        };
        let now = Instant::now();
        Progress { label: label.to_owned(), total, style, begun: now, said: Cell::new(now) }
    }
}

enum Style {
    Bar(ProgressBar),
    Lines,
    Json,
    Nothing,
}

/// Time between two progress lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two progress objects.
const JSON_INTERVAL: Duration = Duration::from_millis(500);

/// How far one step is.
pub struct Progress {
    label: String,
    total: u64,
    style: Style,
    begun: Instant,
    said: Cell<Instant>,
}

impl Progress {
    /// `done` bytes of the total are done.
    pub fn set(&self, done: u64) {
        match &self.style {
            Style::Bar(bar) => bar.set_position(done),
            Style::Lines => self.every(LINE_INTERVAL, || {
                let percent = (done * 100).checked_div(self.total).unwrap_or(100);
                eprintln!("{}: {percent} %", self.label);
            }),
            Style::Json => self.every(JSON_INTERVAL, || self.object(done, false)),
            Style::Nothing => {}
        }
    }

    /// `done` of `total` units are done, whatever a unit is.
    pub fn scale(&self, done: u64, total: u64) {
        let share = u128::from(self.total) * u128::from(done) / u128::from(total.max(1));
        self.set(u64::try_from(share).unwrap_or(self.total));
    }

    fn every(&self, interval: Duration, say: impl FnOnce()) {
        let now = Instant::now();
        if now - self.said.get() >= interval {
            self.said.set(now);
            say();
        }
    }

    fn object(&self, done: u64, finished: bool) {
        let object = json!({"task": self.label, "done": done, "total": self.total,
            "seconds": self.begun.elapsed().as_secs_f64(), "finished": finished});
        eprintln!("{object}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &self.style {
            Style::Bar(bar) => bar.finish_and_clear(),
            Style::Json => self.object(self.total, true),
            Style::Lines | Style::Nothing => {}
        }
    }
}

/// Bytes for a person: `10.0 GiB`.
pub fn human(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}
