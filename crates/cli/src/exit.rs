//! How the program ends: the exit codes of the command line's contract.

use std::process::ExitCode;

/// How a verb ended.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// Done, nothing wrong.
    Fine,
    /// All data right, but something was wrong: healed, healable, a member missing or stale.
    Warned,
    /// Some data cannot be read, or is inconsistent.
    DataLost,
    /// Refused, nothing written.
    Refused,
    /// Failed: I/O, permissions, environment.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Interrupted, resumable.
    Interrupted,
}

impl Outcome {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Warned => 1,
            Self::DataLost => 2,
            Self::Refused => 3,
            Self::Failed => 4,
            Self::Usage => 64,
            Self::Interrupted => 130,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}
