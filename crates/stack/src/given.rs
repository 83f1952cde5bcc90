//! What no disk records, and a person has to say.

use crate::leaf::{self, Leaf, MemberError};
use crate::member::Member;
use crate::patched::Patched;
use ::integrity::open::Mode;
use ::integrity::superblock::AREA_BYTES;
use bio::{Device, Events};
use checksum::Key;
use layers::integrity::{JournalChoice, JournalKeys, Options, Recalculate, TagSource};

/// What tags are made with, as far as the user says.
#[derive(Clone, Debug, Default)]
pub enum IntegrityChoice {
    /// Every algorithm without a key is tried, and tuples that say where a block belongs.
    #[default]
    Find,
    /// These, with their key if they take one.
    Named(TagSource, Option<Key>),
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
    /// What lies in the superblock's area of a member, instead of what the disk says: for looking at
    /// what was lost. Nothing is written to such a volume.
    pub superblocks: Vec<(Member, SuperblockArea)>,
    /// How dm-integrity is run, which is a choice of each opening.
    pub running: Running,
}

/// The bytes of a dm-integrity superblock's area.
pub type SuperblockArea = [u8; AREA_BYTES];

/// How dm-integrity is run; the same for all members of a volume. The default takes no risk.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// How writes are kept whole; none: through the journal. [`Mode::Recovery`] is for openings that
    /// write nothing.
    pub mode: Option<Mode>,
    /// Give out blocks of which the format itself says that their tags need not be valid. They are
    /// counted ([`VolumeStatus::unverified_blocks`](crate::VolumeStatus)) and told.
    pub unverified: bool,
    /// Discards become the kernel's filler tags, and such tags are accepted.
    pub allow_discards: bool,
    /// Whether tags are computed anew from the data as it is, once it is opened for writing.
    pub recalculate: Recalculate,
    /// Compute them even where that signs with a key what somebody without it may have written.
    pub legacy_recalculate: bool,
    /// What becomes of a journal that cannot be replayed with certainty; none: such a volume is not
    /// opened for writing.
    pub damaged_journal: Option<JournalChoice>,
}

impl Running {
    /// Whether blocks are given out as they lie there, whatever their tags say.
    pub(crate) fn compares_nothing(&self) -> bool {
        self.mode == Some(Mode::Recovery) && self.unverified
    }
}

impl Given {
    /// The tags' key, if one was given.
    #[must_use]
    pub fn integrity_key(&self) -> Option<&Key> {
        match &self.integrity {
            IntegrityChoice::Named(_, key) => key.as_ref(),
            IntegrityChoice::Find | IntegrityChoice::None => None,
        }
    }

    /// How a dm-integrity volume with such tags is opened, for writing.
    pub(crate) fn options(&self, tags: TagSource, events: Events) -> Options {
        Options {
            // Whether blocks verify was looked at before.
            sample: false,
            integrity_key: self.integrity_key().cloned(),
            journal: self.journal.clone(),
            mode: self.running.mode,
            unverified: self.running.unverified,
            allow_discards: self.running.allow_discards,
            recalculate: self.running.recalculate,
            legacy_recalculate: self.running.legacy_recalculate,
            damaged_journal: self.running.damaged_journal,
            ..Options::new(tags, events)
        }
    }

    /// The device with the data of `member`, if it is another.
    #[must_use]
    pub fn data_of(&self, member: &Member) -> Option<&Member> {
        self.data_devices.iter().find(|(of, _)| of == member).map(|(_, data)| data)
    }

    /// Whether this allows no writing.
    #[must_use]
    pub fn writes_nothing(&self) -> bool {
        self.running.mode == Some(Mode::Recovery) || !self.superblocks.is_empty()
    }

    /// Opens `member` and the device that holds its data, as they were given.
    pub(crate) async fn open_leaf(
        &self,
        member: &Member,
        write: bool,
    ) -> Result<Leaf, MemberError> {
        let area = self.superblocks.iter().find(|(of, _)| of == member).map(|(_, area)| area);
        let write = write && area.is_none();
        let mut leaf = leaf::open_pair(member, self.data_of(member), write).await?;
        if let Some(area) = area {
            leaf.device = Device::new(Patched::new(leaf.device, area.to_vec()));
        }
        Ok(leaf)
    }
}
