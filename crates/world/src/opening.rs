//! In which way a life opens its volume. A volume may be opened in another way each time, in any order.

use std::fmt;
use std::str::FromStr;

/// How a life opens its volume.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Opening {
    /// As its scenario does by itself.
    #[default]
    Usual,
    /// Writes go through the journal.
    Journal,
    /// Writes go home at once, and a bitmap says where.
    Bitmap,
    /// The same with regions of another size.
    Coarse,
    /// Writes go home at once.
    Direct,
    /// Nothing is written, and the journal is laid over.
    ReadOnly,
    /// Nothing is written, and nobody looks at the journal.
    Recovery,
    /// Through the journal; one that is damaged is mended by bringing home what it proves.
    Replay,
    /// Through the journal; one that is damaged is thrown away.
    Discard,
}

impl Opening {
    /// Whether a life so opened writes nothing, ever.
    #[must_use]
    pub fn writes_nothing(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Recovery)
    }

    /// Whether data and tag are not written as one, so that a power cut may make a block unreadable.
    #[must_use]
    pub fn tears_writes(self) -> bool {
        matches!(self, Self::Bitmap | Self::Coarse | Self::Direct)
    }
}

const NAMES: [(Opening, &str); 9] = [
    (Opening::Usual, "usual"),
    (Opening::Journal, "journal"),
    (Opening::Bitmap, "bitmap"),
    (Opening::Coarse, "coarse"),
    (Opening::Direct, "direct"),
    (Opening::ReadOnly, "read-only"),
    (Opening::Recovery, "recovery"),
    (Opening::Replay, "replay"),
    (Opening::Discard, "discard"),
];

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(opening, _)| opening == self).map(|(_, name)| *name);
        f.write_str(name.expect("every opening has a name"))
    }
}

impl FromStr for Opening {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(_, name)| *name == text).map(|(opening, _)| *opening);
        found.ok_or_else(|| format!("{text} is no way to open a volume"))
    }
}
