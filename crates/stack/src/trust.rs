//! What an operator may say is right, by level: the rest is refused by name.

use crate::verdict::{Fault, Verdict};
use crate::volume::Volume;
use bio::Trust;
use md::superblock::Level;

/// Why something cannot be trusted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// There is only one of everything.
    #[error("--trust: {level} keeps everything once, so nothing in it can disagree")]
    NoRedundancy {
        /// What the volume is.
        level: String,
    },
    /// Data or parity of a mirror.
    #[error("--trust: {level} has copies, not data and parity")]
    Mirror {
        /// Its level.
        level: String,
    },
    /// One parity.
    #[error("--trust parity: one parity says that a stripe is wrong, not which strip of it")]
    OneParity,
    /// One member of a stripe.
    #[error("--trust member={slot}: one member is not a whole stripe, the others decide with it")]
    Member {
        /// The slot.
        slot: usize,
    },
    /// No such slot.
    #[error("--trust: slot {slot} was named, the array has {slots}")]
    Slot {
        /// Named.
        slot: usize,
        /// Slots of the array.
        slots: usize,
    },
}

impl Fault for TrustError {
    fn verdict(&self) -> Verdict {
        Verdict::Refused
    }

    fn advice(&self) -> Option<String> {
        let advice = match self {
            Self::NoRedundancy { .. } => "leave --trust out",
            Self::Mirror { .. } => "name the copy that is right: --trust member=N",
            Self::OneParity | Self::Member { .. } => {
                "name the member that is wrong (--trust all-but=N), or the data as right (--trust data)"
            }
            Self::Slot { .. } => "see 'steadfast status' for the slots, counted from 0",
        };
        Some(advice.to_owned())
    }
}

impl Volume {
    /// Whether `trust` makes sense for this volume.
    ///
    /// # Errors
    /// [`TrustError`]: what it says is not there to be believed, or would not decide anything.
    pub fn check_trust(&self, trust: Trust) -> Result<(), TrustError> {
        let Some(md) = &self.freshest else {
            return Err(TrustError::NoRedundancy { level: "a volume without an array".into() });
        };
        let level = md.level();
        let parity = matches!(level, Level::Raid4 | Level::Raid5 | Level::Raid6);
        let mirror = matches!(level, Level::Raid1 | Level::Raid10);
        let slots = units::usize_of(md.raid_disks().into());
        match trust {
            _ if !parity && !mirror => Err(TrustError::NoRedundancy { level: level.to_string() }),
            Trust::Member(slot) | Trust::AllBut(slot) if slot >= slots => {
                Err(TrustError::Slot { slot, slots })
            }
            Trust::Data | Trust::Parity if mirror => {
                Err(TrustError::Mirror { level: level.to_string() })
            }
            Trust::Parity if level != Level::Raid6 => Err(TrustError::OneParity),
            Trust::Member(slot) if parity => Err(TrustError::Member { slot }),
            _ => Ok(()),
        }
    }
}
