//! Why a volume was not opened.

use super::risk::AtRisk;
use crate::leaf::MemberError;
use crate::probe::{IntegrityProblem, MdProblem};
use crate::spec::SpecError;
use crate::verdict::{Fault, Verdict};
use bio::IoError;
use md::assemble::{CannotStart, LeftOut};
use md::superblock::Uuid;
use units::Sector;

/// Why a member takes no part in a volume that opens without it.
#[derive(Debug, thiserror::Error)]
pub enum WhyLeftOut {
    /// The array does not want it.
    #[error("{0}")]
    Array(LeftOut),
    /// Its dm-integrity part cannot be used.
    #[error("{0}")]
    Integrity(IntegrityProblem),
    /// Its md superblock cannot be used.
    #[error("{0}")]
    Md(MdProblem),
    /// Nothing on it is ours: never made, wiped, or its superblocks are gone.
    #[error("no superblock found")]
    Blank,
}

/// Why a volume was not opened. Names are those that were given.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No members were named.
    #[error("no members were named")]
    NoMembers,
    /// One of them cannot be opened.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// A stack that was spelled out makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A stack that was spelled out is not what lies on its members.
    #[error("the stack says {expected}, the members say {found}")]
    Stack {
        /// As spelled.
        expected: String,
        /// As found.
        found: String,
    },
    /// Nothing that we know how to open.
    #[error(
        "{member}: not a member: no dm-integrity and no md superblock{}",
        signature.map_or_else(String::new, |name| format!(", but {name}"))
    )]
    NotAMember {
        /// The member.
        member: String,
        /// What it holds instead, if that is known.
        signature: Option<&'static str>,
    },
    /// Its dm-integrity volume cannot be used.
    #[error("{member}: {problem}")]
    Integrity {
        /// The member.
        member: String,
        /// Why.
        problem: IntegrityProblem,
    },
    /// Its md superblock cannot be used.
    #[error("{member}: {problem}")]
    Md {
        /// The member.
        member: String,
        /// Why.
        problem: MdProblem,
    },
    /// Several volumes were named.
    #[error("{first} and {second} are not members of one array, each is a volume of its own")]
    SeveralVolumes {
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// Members of different arrays.
    #[error(
        "members of two arrays: {} belongs to {}, {} to {}",
        members[0], uuids[0], members[1], uuids[1]
    )]
    MixedArrays {
        /// One of each.
        members: [String; 2],
        /// Their arrays.
        uuids: [Uuid; 2],
    },
    /// Two copies of one member.
    #[error("{} and {} are copies of the same member (device {device_uuid})", members[0], members[1])]
    SameMember {
        /// Both.
        members: [String; 2],
        /// What they say they are.
        device_uuid: Uuid,
    },
    /// Two members in one place.
    #[error("{} and {} both claim slot {slot}", members[0], members[1])]
    SameSlot {
        /// Both.
        members: [String; 2],
        /// The slot.
        slot: u16,
    },
    /// None of them can be used.
    #[error("none of the members can be used: {}", if left_out.is_empty() {
        "they are spares, or a write journal, and the members with the array's data were not named"
            .to_owned()
    } else {
        list(left_out)
    })]
    NoneUsable {
        /// Each with its reason.
        left_out: Vec<(String, WhyLeftOut)>,
    },
    /// The array must not be started as it is.
    #[error("{why}{}{}", at_risk.as_ref().map_or_else(String::new, |risk| format!("; at risk: {risk}")),
        if left_out.is_empty() {
        String::new()
    } else {
        format!("; left out: {}", list(left_out))
    })]
    CannotStart {
        /// Why.
        why: CannotStart,
        /// What was being written, if that is why.
        at_risk: Option<AtRisk>,
        /// Members that were given and take no part.
        left_out: Vec<(String, WhyLeftOut)>,
    },
    /// The array cannot be run like this.
    #[error("{why}")]
    Array {
        /// Why.
        why: String,
    },
    /// It can be read, but not written here.
    #[error(
        "{}{why}",
        member.as_deref().map_or_else(String::new, |member| format!("{member}: "))
    )]
    CannotWrite {
        /// The member, if it is because of one.
        member: Option<String>,
        /// The feature, by name.
        why: String,
    },
    /// It can be read, but every write needs a key.
    #[error("{member}: its journal has MACs (have_journal_mac), and writing needs their key")]
    JournalKey {
        /// The member.
        member: String,
    },
    /// What was written last is in a write journal that does not hold.
    #[error("{member}: {why}")]
    WriteJournal {
        /// The journal's device.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// It can be read, but what its journal holds has to be decided on before it is written.
    #[error("{member}: {why}")]
    JournalDamaged {
        /// The member.
        member: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that nothing vouches for would get into parity.
    #[error(
        "blocks that nothing vouches for (--unverified) would get into the array's redundancy if it \
         were written"
    )]
    UnverifiedArray,
    /// A device failed while it was being opened.
    #[error("{member}: {error}")]
    Io {
        /// The member.
        member: String,
        /// What it said.
        error: IoError,
    },
}

fn list(left_out: &[(String, WhyLeftOut)]) -> String {
    let lines: Vec<String> = left_out.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    lines.join(", ")
}

impl Fault for OpenError {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoMembers | Self::Spec(_) => Verdict::Usage,
            Self::Member(error) => error.verdict(),
            Self::Io { .. } => Verdict::Failed,
            _ => Verdict::Refused,
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Member(error) => return error.advice(),
            Self::NoMembers => "name the members, or spell the stack out with --stack",
            Self::NotAMember { .. } => "'steadfast create' makes members; 'inspect' looks closer",
            Self::Integrity { problem, .. } if let Some(advice) = problem.advice() => advice,
            Self::Integrity { .. } | Self::Md { .. } => {
                "look with 'steadfast inspect'; if an array can spare it, leave it out"
            }
            Self::SeveralVolumes { .. } => "name one",
            Self::MixedArrays { .. } | Self::SameSlot { .. } => {
                "name the members of one array; 'steadfast inspect' shows who belongs where"
            }
            Self::SameMember { .. } => "name only the newer one",
            Self::WriteJournal { .. } => {
                "look at it with 'inspect'; 'export --force' reads the array with what the journal holds \
                 before that place, and what was acknowledged after it is lost"
            }
            Self::CannotStart { why: CannotStart::JournalMissing, .. } => {
                "name its device too; 'export --force' reads the array without it: what was \
                 acknowledged last is missing, and rows that were being written may be half old and \
                 half new; a new one is given to the array by 'mdadm --assemble --force' and \
                 'mdadm --add-journal', which compare nothing: have it repaired then"
            }
            Self::CannotStart { why, .. } if why.forceable() => {
                "look at it with 'inspect'; --force starts it all the same, and stripes that were \
                 being written may then give wrong data of the missing member, or errors"
            }
            Self::CannotStart { why: CannotStart::Missing { .. }, .. } => {
                "name more of its members"
            }
            Self::JournalKey { .. } => {
                "name them with --journal-integrity and --journal-integrity-key-file, or open it \
                 with --read-only"
            }
            Self::JournalDamaged { member, .. } => {
                return Some(format!(
                    "decide with 'steadfast scrub {member} --journal replay' (or 'discard'; all \
                     members, if there are more), which shows before what is lost either way; \
                     reading needs no decision"
                ));
            }
            Self::UnverifiedArray => "leave --unverified out, or export what it gives read-only",
            Self::CannotWrite { .. } => "open it with --read-only, or 'steadfast export' it",
            Self::Stack { .. } => "name the members without a stack to see what they are",
            _ => return None,
        };
        Some(text.to_owned())
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Member(error) => error.member(),
            Self::NotAMember { member, .. }
            | Self::Integrity { member, .. }
            | Self::Md { member, .. }
            | Self::JournalKey { member }
            | Self::JournalDamaged { member, .. }
            | Self::WriteJournal { member, .. }
            | Self::Io { member, .. } => Some(member),
            Self::CannotWrite { member, .. } => member.as_deref(),
            Self::MixedArrays { members, .. }
            | Self::SameMember { members, .. }
            | Self::SameSlot { members, .. } => Some(&members[1]),
            _ => None,
        }
    }

    fn sector(&self) -> Option<Sector> {
        match self {
            Self::Io { error, .. } => Some(error.sector),
            _ => None,
        }
    }
}
