//! The envelope, shown: what goes wrong at each joint of a stack, and who notices.
//!
//! ```text
//!   application                  signs what it writes, checks what it reads
//!       |  <-- joint 1
//!   volume: RAID 5               checks tuples on their way in and out
//!       |  <-- joint 2
//!   members                      check tuples on their way in and out
//!       |  <-- joint 3
//!   media                        keep data and tuples
//! ```
//!
//! The same harm is done at the same joint of three stacks: one with protection information from the
//! application to the media, one with a checksum at the bottom only (dm-integrity), one with nothing. Every
//! cell of the table is an experiment on a new stack in memory: what the table says is what happened.

mod rig;

use crate::open::OpenError;
use layers::fault::{Effect, Kind, Rule};
use rig::Rig;
use std::fmt;

/// How data is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Tuples from the application's buffer to the medium.
    EndToEnd,
    /// A checksum that each member makes of whatever reaches it.
    Bottom,
    /// Parity, and nothing that says which part of a stripe is wrong.
    Nothing,
}

impl Scheme {
    /// All, best first.
    pub const ALL: [Self; 3] = [Self::EndToEnd, Self::Bottom, Self::Nothing];

    /// As a heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::EndToEnd => "end to end",
            Self::Bottom => "checksum at the bottom",
            Self::Nothing => "nothing",
        }
    }
}

/// Between which two layers the harm is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Joint {
    /// Between application and volume.
    Application,
    /// Between volume and member.
    Member,
    /// Between member and medium.
    Medium,
}

impl Joint {
    /// From the top.
    pub const ALL: [Self; 3] = [Self::Application, Self::Member, Self::Medium];

    /// As the table says it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Application => "application | volume",
            Self::Member => "volume | member",
            Self::Medium => "member | medium",
        }
    }
}

/// What is done there, once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Harm {
    /// Bits of what is written change.
    CorruptWrite,
    /// Two blocks that are written change places.
    SwapWrite,
    /// A write goes elsewhere.
    MisdirectWrite,
    /// Only the first block of a write is stored.
    TearWrite,
    /// A write is not done.
    LoseWrite,
    /// Bits of what is read change.
    CorruptRead,
    /// Two blocks that are read change places.
    SwapRead,
    /// A read comes from elsewhere.
    MisdirectRead,
}

impl Harm {
    /// In the order of the table.
    pub const ALL: [Self; 8] = [
        Self::CorruptWrite,
        Self::SwapWrite,
        Self::MisdirectWrite,
        Self::TearWrite,
        Self::LoseWrite,
        Self::CorruptRead,
        Self::SwapRead,
        Self::MisdirectRead,
    ];

    /// As the table says it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::CorruptWrite => "write, a bit changes",
            Self::SwapWrite => "write, two blocks swapped",
            Self::MisdirectWrite => "write goes elsewhere",
            Self::TearWrite => "write is torn",
            Self::LoseWrite => "write is dropped",
            Self::CorruptRead => "read, a bit changes",
            Self::SwapRead => "read, two blocks swapped",
            Self::MisdirectRead => "read comes from elsewhere",
        }
    }

    const fn is_read(self) -> bool {
        matches!(self, Self::CorruptRead | Self::SwapRead | Self::MisdirectRead)
    }

    /// The rule that does it to the first request that touches these sectors.
    fn rule(self, sectors: std::ops::Range<u64>) -> Rule {
        let effect = match self {
            Self::CorruptWrite | Self::CorruptRead => Effect::Corrupt { byte: 100, mask: 0x10 },
            Self::SwapWrite | Self::SwapRead => Effect::Swap,
            Self::MisdirectWrite | Self::MisdirectRead => {
                Effect::Misdirect { sectors: rig::ASTRAY_SECTORS }
            }
            Self::TearWrite => Effect::Tear { sectors: rig::BLOCK_SECTORS },
            Self::LoseWrite => Effect::Lose,
        };
        Rule::nth(0, if self.is_read() { Kind::Read } else { Kind::Write }, sectors, effect)
    }
}

/// Who noticed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Hop {
    /// The application, checking what it read.
    Application,
    /// The volume's own check.
    Volume,
    /// A member's check.
    Member,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Application => "the application",
            Self::Volume => "the volume",
            Self::Member => "the member",
        })
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Nothing went wrong.
    Unharmed,
    /// The write was refused while its owner still had the data; no medium has any of it.
    Refused(Hop),
    /// It was noticed, and the right data was given all the same.
    Healed(Hop),
    /// It was noticed, and the data that is wrong was not given: an error.
    Error(Hop),
    /// Other data than was written was given as if it were right.
    Silent,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unharmed => f.write_str("no harm came of it"),
            Self::Refused(hop) => write!(f, "refused by {hop}"),
            Self::Healed(hop) => write!(f, "caught by {hop}, healed"),
            Self::Error(hop) => write!(f, "error from {hop}"),
            Self::Silent => f.write_str("SILENTLY WRONG"),
        }
    }
}

/// One harm at one joint, and what became of it under each scheme, in the order of [`Scheme::ALL`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Row {
    /// What was done.
    pub harm: Harm,
    /// Where.
    pub joint: Joint,
    /// What came of it.
    pub outcomes: [Outcome; 3],
}

/// Does every harm at every joint of every stack, and gives each row to `done` when it is known.
///
/// # Errors
/// If a stack cannot be built.
pub async fn experiment(mut done: impl FnMut(&Row)) -> Result<Vec<Row>, OpenError> {
    let mut rows = Vec::new();
    for harm in Harm::ALL {
        for joint in Joint::ALL {
            let mut outcomes = [Outcome::Unharmed; 3];
            for (outcome, scheme) in outcomes.iter_mut().zip(Scheme::ALL) {
                *outcome = Rig::build(scheme).await?.suffer(harm, joint).await?;
            }
            let row = Row { harm, joint, outcomes };
            done(&row);
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests;
