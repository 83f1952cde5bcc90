//! What a volume and its members are called where something about them is kept: names that outlive
//! renamed files and other command lines.
//!
//! Which, and why, is `docs/decisions/0003-volume-identity.md`.

use crate::volume::{MemberPart, Volume};
use std::fmt::Write;

impl Volume {
    /// The volume's lasting identity: the UUID of the array, as md prints it; of a lone
    /// dm-integrity volume its salt, or without a salt its member's place. None: a plain device,
    /// of which nothing is known.
    #[must_use]
    pub fn identity(&self) -> Option<String> {
        if let Some(freshest) = &self.freshest {
            return Some(freshest.set_uuid().to_string());
        }
        let parts = self.parts();
        let [part] = &parts[..] else { return None };
        let salt = part.integrity.as_ref()?.volume.superblock().salt;
        Some(match salt {
            [0, ..] if salt == [0; 16] => place(part),
            salt => format!("integrity-{}", hex(&salt)),
        })
    }

    /// A member's lasting identity, by its name: the device UUID in its md superblock, else what
    /// [`Self::identity`] says for a lone volume. A member of an array without a superblock that
    /// can be used has only its place.
    #[must_use]
    pub fn device_identity(&self, member: &str) -> Option<String> {
        let parts = self.parts();
        let part = parts.iter().find(|part| *part.name == *member)?;
        Some(self.identity_of(part))
    }

    /// The members' lasting identities, each with its name.
    pub fn device_identities(&self) -> impl Iterator<Item = (String, String)> {
        self.parts().into_iter().map(|part| (part.name.to_string(), self.identity_of(&part)))
    }

    pub(crate) fn identity_of(&self, part: &MemberPart) -> String {
        match (&part.md, &self.freshest) {
            (Some(superblock), _) => superblock.device_uuid().to_string(),
            (None, None) => self.identity().unwrap_or_else(|| place(part)),
            (None, Some(_)) => place(part),
        }
    }
}

/// The hash of a member's canonical path, or of its name if it has no path. Inode and device
/// numbers would say the same for as long as the machine runs; block devices get others then.
fn place(part: &MemberPart) -> String {
    let path = part.member.as_ref().and_then(|member| member.path());
    let canonical = path.and_then(|path| std::fs::canonicalize(path).ok());
    let hash = match canonical {
        Some(path) => fnv1a(path.as_os_str().as_encoded_bytes()),
        None => fnv1a(part.name.as_bytes()),
    };
    format!("path-{hash:032x}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// FNV-1a with 128 bits, by its authors' parameters (RFC 9923): the same in every version and on
/// every machine, which the standard library's hashes do not promise.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET_BASIS, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Known answers of the algorithm's authors.
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
