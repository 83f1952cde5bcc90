//! Whether a volume may be opened as somebody asks, and what that makes of its superblock.
//!
//! Some of what a volume needs is not on its disk: the hash, the keys, the place of its data. So
//! opening is a comparison of what is stored with what was said; everything that does not fit is a
//! refusal with a name. These are the kernel's rules (specification, section 2.4); what is out of
//! range in itself was refused by [`Superblock::decode`], and flags that this program does not know
//! are for its layers to refuse.

use crate::recalculate::{Insecure, Keys, Recalculation, permit};
use crate::superblock::{Flags, Superblock, version_for};
use units::BlockSize;

/// How writes are kept whole: the letters of device-mapper tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// `J`: through the journal; a crash leaves old or new.
    Journal,
    /// `D`: data and tag each on its own; a crash may leave blocks that do not fit their tag.
    Direct,
    /// `B`: as `D`, with a bitmap of where that may be.
    Bitmap,
    /// `R`: read only, nothing is verified, replayed or authenticated.
    Recovery,
    /// `I`: the hardware writes data and tag as one.
    Inline,
}

impl Mode {
    /// Its letter in a device-mapper table.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Journal => 'J',
            Self::Direct => 'D',
            Self::Bitmap => 'B',
            Self::Recovery => 'R',
            Self::Inline => 'I',
        }
    }
}

/// What is to happen with discards.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Discards {
    /// They are not taken, and no tag of one is accepted.
    #[default]
    Refused,
    /// They are taken; their tags are a filler that anybody can write.
    Filler,
    /// They are taken; their tags are keyed.
    Keyed,
}

/// Whether tags are to be computed anew.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Recalculate {
    /// Only if the superblock says that it was going on.
    #[default]
    AsStored,
    /// Go on, or start if none was going on.
    Start,
    /// Start again from the first sector.
    Reset,
}

/// How a volume is to be opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Request {
    /// The mode.
    pub mode: Mode,
    /// Data and metadata lie on devices of their own.
    pub separate: bool,
    /// Bytes of tag, if somebody says so.
    pub tag_size: Option<u16>,
    /// The block, if somebody says so.
    pub block: Option<BlockSize>,
    /// Tags are computed here; else they are somebody else's opaque bytes.
    pub hash: bool,
    /// The journal has a MAC.
    pub journal_mac: bool,
    /// Which of hash and MAC have keys.
    pub keys: Keys,
    /// What to do with discards.
    pub discards: Discards,
    /// What to do about recalculation.
    pub recalculate: Recalculate,
    /// Recalculate even where [`permit`] would not.
    pub legacy_recalculate: bool,
}

impl Request {
    /// A volume on one device with a hash without a key, and nothing else.
    #[must_use]
    pub const fn plain(mode: Mode) -> Self {
        Self {
            mode,
            separate: false,
            tag_size: None,
            block: None,
            hash: true,
            journal_mac: false,
            keys: Keys { integrity: false, journal_mac: false },
            discards: Discards::Refused,
            recalculate: Recalculate::AsStored,
            legacy_recalculate: false,
        }
    }
}

/// Why a volume is not opened as it was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Inline volumes are opened inline, others are not.
    #[error("the volume {} inline tags, mode {} was asked for",
        if *.stored { "has" } else { "does not have" }, .mode.letter())]
    Inline {
        /// Whether the flag is stored.
        stored: bool,
        /// Asked for.
        mode: Mode,
    },
    /// Another tag size.
    #[error("the volume's tags have {stored} bytes, {asked} were asked for")]
    TagSize {
        /// As stored.
        stored: u16,
        /// Asked for.
        asked: u16,
    },
    /// Another block size.
    #[error("the volume's blocks have {stored} bytes, {asked} were asked for")]
    Block {
        /// As stored.
        stored: BlockSize,
        /// Asked for.
        asked: BlockSize,
    },
    /// The data is on the other device, or is not.
    #[error("{}", if *.asked {
        "data and tags of this volume share one device, another was named"
    } else {
        "the data of this volume lies on another device, which must be named"
    })]
    Separate {
        /// Whether a data device was named.
        asked: bool,
    },
    /// The journal has a MAC, and none was named, or the other way round.
    #[error("{}", if *.stored {
        "the journal has a MAC: its algorithm and key must be named"
    } else {
        "a journal MAC was named, but the volume was formatted without"
    })]
    JournalMac {
        /// Whether the flag is stored.
        stored: bool,
    },
    /// Keyed discards cannot be given up once they were used.
    #[error("discarded blocks of this volume have keyed tags: that must be asked for again")]
    DiscardKeyed,
    /// Keyed discards need a key.
    #[error("keyed discards need a keyed hash")]
    DiscardKey,
    /// A thing that needs tags that can be computed.
    #[error("{what} needs the volume's hash")]
    Hash {
        /// What was asked for, or is stored.
        what: &'static str,
    },
    /// A thing that inline volumes do not have.
    #[error("{what} is not possible with inline tags")]
    InlineWith {
        /// What was asked for.
        what: &'static str,
    },
    /// Recalculation would sign what an enemy wrote.
    #[error(transparent)]
    Insecure(#[from] Insecure),
}

/// What an opening will do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opening {
    /// The flags to be stored while it is open; what they were in recovery mode.
    pub flags: Flags,
    /// The version that goes with them.
    pub version: u8,
    /// From where on tags are not valid; the end if none is. To be stored with
    /// [`Flags::RECALCULATING`] only. A dirty bitmap may want more: [`crate::bitmap::verdict`].
    pub recalculation: Option<Recalculation>,
    /// The journal is read and, if it holds something, replayed.
    pub replays: bool,
    /// Reads are compared with their tags.
    pub verifies: bool,
}

/// Decides.
///
/// # Errors
/// [`Refusal`], the first that applies in the order of section 2.4.
pub fn open(superblock: &Superblock, request: &Request) -> Result<Opening, Refusal> {
    compare(superblock, request)?;
    check_discards(superblock, request)?;
    let flags = superblock.flags;
    if request.mode == Mode::Bitmap && !request.hash {
        return Err(Refusal::Hash { what: "bitmap mode" });
    }
    let recalculation = match request.recalculate {
        Recalculate::Start if !flags.has(Flags::RECALCULATING) => {
            Some(Recalculation::from_the_start(superblock.provided_sectors))
        }
        Recalculate::AsStored | Recalculate::Start => Recalculation::of(superblock),
        Recalculate::Reset => Some(Recalculation::from_the_start(superblock.provided_sectors)),
    };
    if recalculation.is_some() && !request.hash {
        return Err(Refusal::Hash { what: "recalculation" });
    }
    if recalculation.is_some_and(|recalculation| !recalculation.is_finished()) {
        permit(flags, request.keys, request.legacy_recalculate)?;
    }

    let recovery = request.mode == Mode::Recovery;
    let bitmap = request.mode == Mode::Bitmap;
    let stored = if recovery {
        flags
    } else {
        let wanted = [
            (recalculation.is_some(), Flags::RECALCULATING),
            (bitmap, Flags::DIRTY_BITMAP),
            (request.discards == Discards::Keyed, Flags::DISCARD_KEYED),
        ];
        let kept = Flags(flags.0 & !Flags::DIRTY_BITMAP.0);
        wanted.into_iter().filter(|(wanted, _)| *wanted).fold(kept, |all, (_, flag)| all.with(flag))
    };
    Ok(Opening {
        flags: stored,
        version: version_for(stored, request.separate, bitmap),
        recalculation,
        replays: !flags.has(Flags::DIRTY_BITMAP)
            && !matches!(request.mode, Mode::Recovery | Mode::Inline),
        verifies: request.hash && !recovery,
    })
}

/// What is stored against what was said.
fn compare(superblock: &Superblock, request: &Request) -> Result<(), Refusal> {
    let stored = superblock.flags.has(Flags::INLINE);
    if stored != (request.mode == Mode::Inline) {
        return Err(Refusal::Inline { stored, mode: request.mode });
    }
    if let Some(asked) = request.tag_size.filter(|asked| *asked != superblock.tag_size) {
        return Err(Refusal::TagSize { stored: superblock.tag_size, asked });
    }
    if let Some(asked) = request.block.filter(|asked| *asked != superblock.block) {
        return Err(Refusal::Block { stored: superblock.block, asked });
    }
    if stored && request.separate {
        return Err(Refusal::InlineWith { what: "a metadata device" });
    }
    if !stored && request.separate != superblock.log2_interleave.is_none() {
        return Err(Refusal::Separate { asked: request.separate });
    }
    let stored = superblock.flags.has(Flags::JOURNAL_MAC);
    if stored != request.journal_mac {
        return Err(Refusal::JournalMac { stored });
    }
    Ok(())
}

fn check_discards(superblock: &Superblock, request: &Request) -> Result<(), Refusal> {
    if superblock.flags.has(Flags::DISCARD_KEYED) && request.discards != Discards::Keyed {
        return Err(Refusal::DiscardKeyed);
    }
    if request.discards == Discards::Refused {
        return Ok(());
    }
    if request.mode == Mode::Inline {
        return Err(Refusal::InlineWith { what: "discarding" });
    }
    if !request.hash {
        return Err(Refusal::Hash { what: "discarding" });
    }
    if request.discards == Discards::Keyed && !request.keys.integrity {
        return Err(Refusal::DiscardKey);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
