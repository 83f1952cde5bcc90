//! What every error of this crate can say beyond its sentence.

use units::Sector;

/// How the program ends because of an error: the exit codes of the command line's contract.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Refused, nothing written: ambiguous, unsafe, locked, a signature found.
    Refused,
    /// Failed: I/O, permissions, the environment.
    Failed,
    /// The request makes no sense.
    Usage,
}

impl Verdict {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Refused => 3,
            Self::Failed => 4,
            Self::Usage => 64,
        }
    }
}

/// An error that a person will read: its `Display` says what, where, what was found and what was
/// expected, in one sentence; the rest is here.
pub trait Fault: std::error::Error {
    /// How the program ends.
    fn verdict(&self) -> Verdict;

    /// What to try next, if anything makes sense.
    fn advice(&self) -> Option<String>;

    /// The member concerned, if it is one.
    fn member(&self) -> Option<&str> {
        None
    }

    /// The sector concerned, if it is one.
    fn sector(&self) -> Option<Sector> {
        None
    }
}
