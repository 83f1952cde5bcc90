//! The verbs, a file each.

mod adopt;
mod create;
mod demo;
mod dif;
mod explain;
mod export;
mod given;
mod import;
mod inspect;
mod ledger;
mod man;
mod membership;
mod open;
mod resize;
mod scrub;
mod serve;
mod status;
mod upkeep;

use crate::error::Failure;
use crate::exit::Outcome;
use crate::report::Report;
use runtime::{Backend, Notify, Runtime, Signals};
use std::cell::Cell;
use std::future::Future;
use std::ops::ControlFlow;
use std::rc::Rc;

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make members ready, as any user, on files or devices
    Create(create::Arguments),
    /// Give data that exists integrity without moving it: tags go to a device or file of their own
    Adopt(adopt::Arguments),
    /// Show every superblock and journal that lies on the paths; writes nothing
    Inspect(inspect::Arguments),
    /// Show the volume on one screen: state, why, what to do next; writes nothing
    Status(open::Arguments),
    /// Serve the volume over NBD until SIGINT or SIGTERM
    Serve(serve::Arguments),
    /// Copy a file into the volume
    Import(import::Arguments),
    /// Copy the volume, or a part, into a file; writes nothing to the members
    Export(export::Arguments),
    /// Make, check, convert and take away protection information (T10 DIF, NVMe) in files of sectors
    #[command(subcommand)]
    Dif(dif::Verb),
    /// Read every sector of every member; heal what a checksum decides
    Scrub(scrub::Arguments),
    /// List what ever happened to the volume, and what is unresolved; clear it
    Ledger(ledger::Arguments),
    /// Show where a sector of the volume lives: members, tags, stripe, journal; writes nothing
    Explain(explain::Arguments),
    /// Make a new member ready and give it a slot that nobody holds, or keep it as a spare
    Add(membership::AddArguments),
    /// Put a new member in the place of another, which serves as a source until the new one is complete
    Replace(membership::ReplaceArguments),
    /// Give a member up: it is stale from then on
    Fail(membership::MemberArguments),
    /// Let go of a spare, or of a member that failed or is still being filled
    Remove(membership::MemberArguments),
    /// Give members what they lack, as after an interruption
    Rebuild(membership::RebuildArguments),
    /// Make a lone dm-integrity volume larger or smaller
    Resize(resize::Arguments),
    /// Write the manual's pages into a folder, for man(1)
    Man(man::Arguments),
    /// The whole story in a scratch folder: made, served, damaged, healed
    Demo(demo::Arguments),
}

impl Verb {
    /// Does it.
    pub fn run(self, context: &Rc<Context>) -> Result<Outcome, Failure> {
        match self {
            Self::Create(arguments) => create::run(context, arguments),
            Self::Adopt(arguments) => adopt::run(context, arguments),
            Self::Inspect(arguments) => inspect::run(context, arguments),
            Self::Status(arguments) => status::run(context, arguments),
            Self::Serve(arguments) => serve::run(context, arguments),
            Self::Import(arguments) => import::run(context, arguments),
            Self::Export(arguments) => export::run(context, arguments),
            Self::Dif(verb) => dif::run(context, verb),
            Self::Scrub(arguments) => scrub::run(context, arguments),
            Self::Ledger(arguments) => ledger::run(context, arguments),
            Self::Explain(arguments) => explain::run(context, arguments),
            Self::Add(arguments) => membership::add(context, arguments),
            Self::Replace(arguments) => membership::replace(context, arguments),
            Self::Fail(arguments) => membership::fail(context, arguments),
            Self::Remove(arguments) => membership::remove(context, arguments),
            Self::Rebuild(arguments) => membership::rebuild(context, arguments),
            Self::Resize(arguments) => resize::run(context, arguments),
            Self::Man(arguments) => man::run(context, &arguments),
            Self::Demo(arguments) => demo::run(context, arguments),
        }
    }
}

/// What every verb has at hand.
pub struct Context {
    /// What the program says.
    pub report: Report,
    runtime: Runtime,
    interrupted: Rc<Interrupted>,
    /// Somebody waits for signals: once for all that is run.
    watched: Cell<bool>,
}

/// SIGINT or SIGTERM came.
#[derive(Default)]
struct Interrupted {
    came: Cell<bool>,
    changed: Notify,
}

impl Context {
    /// Starts the runtime, and says so if it is not the fast one.
    pub fn new(report: Report) -> Result<Rc<Self>, (Report, Failure)> {
        let runtime = match Runtime::new() {
            Ok(runtime) => runtime,
            Err(error) => return Err((report, Failure::io("cannot start the runtime", &error))),
        };
        if let Backend::Threads { why } = runtime.backend() {
            report.warn(format!("no io_uring ({why}): using threads, which is slower"));
        }
        Ok(Rc::new(Self { report, runtime, interrupted: Rc::default(), watched: Cell::new(false) }))
    }

    /// Runs `future` to its end. SIGINT and SIGTERM only raise a flag meanwhile: see
    /// [`Self::go_on`].
    pub fn block_on<T: 'static>(
        &self,
        future: impl Future<Output = Result<T, Failure>> + 'static,
    ) -> Result<T, Failure> {
        let mut signals = None;
        if !self.watched.replace(true) {
            let new = Signals::new().map_err(|e| Failure::io("cannot watch signals", &e))?;
            signals = Some(new);
        }
        let interrupted = Rc::clone(&self.interrupted);
        self.runtime.block_on(async move {
            if let Some(signals) = signals {
                drop(runtime::spawn(async move {
                    while signals.next().await.is_ok() {
                        interrupted.came.set(true);
                        interrupted.changed.notify_all();
                    }
                }));
            }
            future.await
        })
    }

    /// Whether a long piece of work goes on: it stops cleanly after SIGINT or SIGTERM.
    pub fn go_on(&self) -> ControlFlow<()> {
        if self.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether SIGINT or SIGTERM came.
    pub fn interrupted(&self) -> bool {
        self.interrupted.came.get()
    }

    /// Ends when SIGINT or SIGTERM comes.
    pub fn until_interrupted(&self) -> impl Future<Output = ()> + 'static {
        let interrupted = Rc::clone(&self.interrupted);
        async move { interrupted.changed.until(|| interrupted.came.get()).await }
    }
}
