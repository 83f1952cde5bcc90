//! What ends a verb: one sentence, what to try, and the exit code.

use crate::exit::Outcome;
use stack::{Fault, Verdict};
use std::fmt;

/// Why a verb ended without a result.
#[derive(Debug)]
pub struct Failure {
    /// The sentence: what, where, found, expected.
    pub message: String,
    /// What to try, if anything makes sense.
    pub advice: Option<String>,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// How the program ends.
    pub outcome: Outcome,
}

impl Failure {
    /// A failure of the given kind.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { message: message.into(), advice: None, causes: Vec::new(), outcome }
    }

    /// The command line makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Outcome::Usage, message)
    }

    /// The same, with what to try.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// The system failed at `what`.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new(Outcome::Failed, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// The exit code of a library's verdict.
pub const fn outcome_of(verdict: Verdict) -> Outcome {
    match verdict {
        Verdict::Refused => Outcome::Refused,
        Verdict::Failed => Outcome::Failed,
        Verdict::Usage => Outcome::Usage,
    }
}

impl<E: Fault> From<E> for Failure {
    fn from(fault: E) -> Self {
        let mut causes = Vec::new();
        let mut cause = fault.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Self {
            message: fault.to_string(),
            advice: fault.advice(),
            causes,
            outcome: outcome_of(fault.verdict()),
        }
    }
}
