//! What `scrub` and `serve` may be told to do to dm-integrity before anything else.

use super::{Context, open};
use crate::error::Failure;
use crate::opened::Opened;
use stack::{JournalChoice, JournalReport, Recalculate, Running};
use std::rc::Rc;

/// Whether tags are computed anew.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "upkeep")]
pub struct Arguments {
    /// Go on with a recalculation of tags that did not finish, and compute the tags that a crash in
    /// bitmap mode left in doubt, from what lies there; nothing if there is neither
    #[arg(long, group = "recalculation")]
    recalculate: bool,

    /// Compute all tags anew. What is damaged now counts as right from then on
    #[arg(long, group = "recalculation")]
    recalculate_reset: bool,

    /// Compute them even where the key then signs what somebody without it may have written
    #[arg(long, requires = "recalculation")]
    legacy_recalculate: bool,
}

impl Arguments {
    /// Whether it was asked for.
    pub const fn any(self) -> bool {
        self.recalculate || self.recalculate_reset
    }

    /// How to open a volume for it; whoever asks for all of it is told what that means.
    pub fn running(self, context: &Context) -> Running {
        let recalculate = match self {
            Self { recalculate_reset: true, .. } => Recalculate::Reset,
            Self { recalculate: true, .. } => Recalculate::Continue,
            _ => Recalculate::No,
        };
        if recalculate == Recalculate::Reset {
            context.report.warn(
                "--recalculate-reset: tags are computed from whatever lies on the members; what is \
                 damaged now can no longer be told from what is right",
            );
        }
        let legacy_recalculate = self.legacy_recalculate;
        Running { recalculate, legacy_recalculate, ..Running::default() }
    }
}

/// Waits for it, with its progress; an interruption ends the waiting, and closing keeps the position.
pub async fn recalculated(context: &Context, volume: &Opened) -> Result<(), Failure> {
    let bar = context.report.percent("computing tags");
    let waited = volume.recalculated(|done, total| {
        bar.scale(done, total);
        context.go_on()
    });
    let unreadable = waited.await.map_err(|error| {
        let text = format!("the recalculation of tags stopped: {error}");
        Failure::new(crate::exit::Outcome::Failed, text).advise("go on with --recalculate")
    })?;
    drop(bar);
    if unreadable > 0 {
        context.report.warn(format!("{unreadable} blocks could not be read and got no new tag"));
    }
    Ok(())
}

/// What is to become of a damaged journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Journal {
    /// What is proven goes home; what may be newer or not becomes unreadable
    Replay,
    /// Nothing goes home
    Discard,
}

impl From<Journal> for JournalChoice {
    fn from(journal: Journal) -> Self {
        match journal {
            Journal::Replay => Self::Replay,
            Journal::Discard => Self::Discard,
        }
    }
}

/// Blocks that are named one by one.
const NAMED_MAX: usize = 20;

/// Shows what is lost either way, with nothing written.
pub async fn show_journals(context: &Rc<Context>, named: &open::Arguments) -> Result<(), Failure> {
    let volume = named.open(context, true).await?;
    let journals = volume.journals().await;
    let journals = open::close(volume, Ok(journals)).await?;
    let journals = journals.map_err(|error| {
        let text = format!("a journal cannot be read: {error}");
        Failure::new(crate::exit::Outcome::Failed, text)
    })?;
    for (member, journal) in &journals {
        lines(member, journal).iter().for_each(|line| context.report.line(line));
    }
    Ok(())
}

fn lines(member: &str, journal: &JournalReport) -> Vec<String> {
    let Some(problem) = &journal.problem else {
        return vec![format!("{member}: its journal is sound, there is nothing to decide")];
    };
    let lost = |sectors: &[units::Sector]| {
        let named: Vec<String> = sectors.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        match sectors.len() {
            0 => "nothing".to_owned(),
            count if count > NAMED_MAX => {
                format!("{count} blocks, at sectors {} ...", named.join(" "))
            }
            count => format!("{count} blocks, at sectors {}", named.join(" ")),
        }
    };
    vec![
        format!("{member}: {problem}"),
        format!("  --journal replay makes unreadable   {}", lost(&journal.replay_loses)),
        format!("  --journal discard throws away       {}", lost(&journal.discard_loses)),
    ]
}
