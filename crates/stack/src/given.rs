//! What no disk records, and a person has to say.

use crate::member::Member;
use checksum::{Algorithm, Key};
use layers::integrity::JournalKeys;

/// What tags are made with, as far as the user says.
#[derive(Clone, Debug, Default)]
pub enum IntegrityChoice {
    /// Every algorithm without a key is tried.
    #[default]
    Find,
    /// This one, with its key if it takes one.
    Algorithm(Algorithm, Option<Key>),
    /// There is no dm-integrity here, whatever the first sectors look like.
    None,
}

/// What the disks do not say; the same for all members of a volume.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// What the tags are made with.
    pub integrity: IntegrityChoice,
    /// What the journals are sealed and encrypted with.
    pub journal: JournalKeys,
    /// Members that hold only metadata, each with the device that holds its data.
    pub data_devices: Vec<(Member, Member)>,
}

impl Given {
    /// The tags' key, if one was given.
    #[must_use]
    pub fn integrity_key(&self) -> Option<&Key> {
        match &self.integrity {
            IntegrityChoice::Algorithm(_, key) => key.as_ref(),
            IntegrityChoice::Find | IntegrityChoice::None => None,
        }
    }

    /// The device with the data of `member`, if it is another.
    #[must_use]
    pub fn data_of(&self, member: &Member) -> Option<&Member> {
        self.data_devices.iter().find(|(of, _)| of == member).map(|(_, data)| data)
    }
}
