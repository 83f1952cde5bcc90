//! The archive that the kernel unpacks as its first file system: "newc" of cpio, as the kernel's
//! documentation of the initramfs buffer format describes it.

use std::collections::BTreeSet;

/// An archive in memory.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// A folder, and those above it.
    pub(crate) fn folder(&mut self, path: &str) {
        if !self.folders.insert(path.to_owned()) {
            return;
        }
        self.above(path);
        self.entry(path, FOLDER | 0o755, (0, 0), &[]);
    }

    /// A file that everybody may read and run.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.above(path);
        self.entry(path, FILE | 0o755, (0, 0), content);
    }

    /// A character device. Nobody needs to be root to write one into an archive.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.above(path);
        self.entry(path, DEVICE | 0o600, (major, minor), &[]);
    }

    /// The archive. Several, one after the other, are unpacked one over the other.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        pad(&mut self.bytes, 512);
        self.bytes
    }

    fn above(&mut self, path: &str) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let length = |bytes: usize| u32::try_from(bytes).expect("the format has 32-bit lengths");
        let fields = [
            self.entries,           // inode
            mode,                   //
            0,                      // user
            0,                      // group
            1,                      // links
            0,                      // time
            length(content.len()),  //
            0,                      // device of the file
            0,                      //
            device.0,               // device that the file is
            device.1,               //
            length(path.len() + 1), //
            0,                      // checksum, unused
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        pad(&mut self.bytes, 4);
        self.bytes.extend_from_slice(content);
        pad(&mut self.bytes, 4);
    }
}

fn pad(bytes: &mut Vec<u8>, multiple: usize) {
    bytes.resize(bytes.len().next_multiple_of(multiple), 0);
}

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_stand_before_what_they_hold_and_only_once() {
        let mut archive = Archive::default();
        archive.file("a/b/one", b"1");
        archive.file("a/b/two", b"22");
        let bytes = archive.finish();
        let at = |name: &[u8]| bytes.windows(name.len()).position(|window| window == name);
        // A name stands behind its header's last digits.
        let (first, second, third) = (at(b"0a\0"), at(b"0a/b\0"), at(b"0a/b/one\0"));
        assert!(first.is_some() && first < second && second < third);
        let headers = bytes.windows(6).filter(|window| window == b"070701").count();
        assert_eq!(headers, 5, "two folders, two files, the end");
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn an_entry_is_laid_out_as_documented() {
        let mut archive = Archive::default();
        archive.file("f", b"hello");
        let bytes = archive.finish();
        // 110 bytes of header, "f\0", then the content at the next multiple of four.
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[54..62], b"00000005");
        assert_eq!(&bytes[94..102], b"00000002");
        assert_eq!(&bytes[112..117], b"hello");
        assert_eq!(&bytes[120..126], b"070701");
    }
}
