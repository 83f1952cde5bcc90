//! What a server offers under one name.

use crate::flags::TransmissionFlags;
use crate::{PAYLOAD_MAX, STRING_MAX};

/// The three numbers of "Size constraints".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockSizes {
    /// Bytes: the unit of every offset and length.
    pub minimum: u32,
    /// Bytes: the smallest unit that costs no read-modify-write.
    pub preferred: u32,
    /// Bytes: the largest payload.
    pub maximum: u32,
}

impl BlockSizes {
    /// What holds when nothing was said.
    pub const DEFAULT: Self = Self { minimum: 1, preferred: 4096, maximum: PAYLOAD_MAX };

    /// Whether they obey the protocol: minimum a power of two up to 65536, preferred a power of
    /// two at least as large as 512 and the minimum, maximum at least as large as preferred.
    #[must_use]
    pub fn are_valid(&self) -> bool {
        self.minimum.is_power_of_two()
            && self.minimum <= 1 << 16
            && self.preferred.is_power_of_two()
            && self.preferred >= self.minimum.max(512)
            && self.maximum >= self.preferred
    }
}

/// One export, as the handshake describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Export {
    /// Its name; the empty name is the default export. A server with a single export gives it
    /// under the empty name too.
    pub name: String,
    /// A line for human beings; empty for none.
    pub description: String,
    /// Bytes.
    pub size: u64,
    /// What it can do. [`TransmissionFlags::SEND_DF`] is withheld from clients without
    /// structured replies.
    pub flags: TransmissionFlags,
    /// Its block sizes.
    pub sizes: BlockSizes,
    /// Names of the metadata contexts that it answers.
    pub contexts: Vec<String>,
}

impl Export {
    /// Whether its strings and sizes may travel at all.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let strings = [&self.name, &self.description].into_iter().chain(&self.contexts);
        self.sizes.are_valid()
            && strings.into_iter().all(|s| s.len() <= STRING_MAX && !s.contains('\0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_obey_the_protocol() {
        let valid =
            |minimum, preferred, maximum| BlockSizes { minimum, preferred, maximum }.are_valid();
        assert!(BlockSizes::DEFAULT.are_valid());
        assert!(valid(1, 512, 512));
        assert!(valid(1 << 16, 1 << 16, u32::MAX));
        assert!(!valid(0, 512, 512));
        assert!(!valid(3, 512, 512));
        assert!(!valid(1, 256, 512));
        assert!(!valid(4096, 512, 4096));
        assert!(!valid(1 << 17, 1 << 17, 1 << 17));
        assert!(!valid(1, 4096, 2048));
    }

    #[test]
    fn a_name_beyond_4096_bytes_cannot_travel() {
        let export = |name: String| Export {
            name,
            description: String::new(),
            size: 0,
            flags: TransmissionFlags::HAS_FLAGS,
            sizes: BlockSizes::DEFAULT,
            contexts: Vec::new(),
        };
        assert!(export("x".repeat(4096)).is_valid());
        assert!(!export("x".repeat(4097)).is_valid());
        assert!(!export("a\0b".to_owned()).is_valid());
    }
}
