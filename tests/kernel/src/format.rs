//! The parameters of a dm-integrity volume, as `integritysetup` and as `steadfast` take them.
//!
//! Everything that the kernel can be asked for is here, whether `steadfast` can make it or not: the
//! kernel's side of a test needs nothing of ours.

use super::machine::boot::KEY_BYTES;
use std::fmt::Write;
use std::path::Path;

/// How writes are made whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    Journal,
    Bitmap,
    Direct,
    /// Nothing is written, compared or replayed.
    Recovery,
}

/// What a volume is made with. Disk `D0` holds it; its data, if apart, are on the next disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    /// As `integritysetup --integrity` says it.
    pub(crate) integrity: &'static str,
    pub(crate) tag_size: Option<u16>,
    /// Bytes of a block.
    pub(crate) sector_size: u64,
    pub(crate) interleave_sectors: Option<u32>,
    pub(crate) journal_bytes: Option<u64>,
    pub(crate) buffer_sectors: Option<u32>,
    pub(crate) mode: Mode,
    /// Under one bit of the bitmap.
    pub(crate) bitmap_sectors: Option<u32>,
    /// `hmac-...`: protects the sections' order of a journal, and the superblock.
    pub(crate) journal_integrity: Option<&'static str>,
    /// `cbc-aes` or `ctr-aes`.
    pub(crate) journal_crypt: Option<&'static str>,
    /// Data and tags are on two devices.
    pub(crate) data_device: bool,
    /// Zeroes are written when it is made.
    pub(crate) wipe: bool,
    /// Tags are computed from what is there, when it is first opened.
    pub(crate) recalculate: bool,
    pub(crate) allow_discards: bool,
    pub(crate) legacy_padding: bool,
    pub(crate) legacy_hmac: bool,
}

impl Format {
    /// What `integritysetup format` makes without options.
    pub(crate) const CRC32C: Self = Self {
        integrity: "crc32c",
        tag_size: None,
        sector_size: 512,
        interleave_sectors: None,
        journal_bytes: None,
        buffer_sectors: None,
        mode: Mode::Journal,
        bitmap_sectors: None,
        journal_integrity: None,
        journal_crypt: None,
        data_device: false,
        wipe: true,
        recalculate: false,
        allow_discards: false,
        legacy_padding: false,
        legacy_hmac: false,
    };

    /// The same with larger blocks.
    pub(crate) const CRC32C_4096: Self = Self { sector_size: 4096, ..Self::CRC32C };

    /// Disks of one volume.
    pub(crate) fn disks(&self) -> usize {
        if self.data_device { 2 } else { 1 }
    }

    /// Sectors of a block.
    pub(crate) fn block(&self) -> u64 {
        self.sector_size / 512
    }

    /// The guest's command that makes it on the disks from `disk` on.
    pub(crate) fn format_command(&self, disk: usize) -> String {
        let mut line = format!(
            "integritysetup format -q $D{disk} --sector-size {}{}",
            self.sector_size,
            self.common(disk)
        );
        for (option, value) in [
            ("--tag-size", self.tag_size.map(u64::from)),
            ("--interleave-sectors", self.interleave_sectors.map(u64::from)),
            ("--journal-size", self.journal_bytes),
        ] {
            if let Some(value) = value {
                let _fits = write!(line, " {option} {value}");
            }
        }
        if !self.wipe {
            line += " --no-wipe";
        }
        line + "\n"
    }

    /// The guest's command that opens it as `/dev/mapper/NAME`.
    pub(crate) fn open_command(&self, disk: usize, name: &str) -> String {
        let mode = match self.mode {
            Mode::Journal => "",
            Mode::Bitmap => " --integrity-bitmap-mode",
            Mode::Direct => " --integrity-no-journal",
            Mode::Recovery => " --integrity-recovery-mode",
        };
        let bits =
            self.bitmap_sectors.map(|sectors| format!(" --bitmap-sectors-per-bit {sectors}"));
        let bits = bits.unwrap_or_default();
        let recalculate = if self.recalculate { " --integrity-recalculate" } else { "" };
        let discards = if self.allow_discards { " --allow-discards" } else { "" };
        let common = self.common(disk);
        format!("integritysetup open $D{disk} {name}{common}{mode}{bits}{recalculate}{discards}\n")
    }

    /// The options of both.
    fn common(&self, disk: usize) -> String {
        let mut line = format!(" --integrity {}", self.integrity);
        for (option, value) in self.journal() {
            let _fits = write!(line, " --{option} {value}");
        }
        for (option, key) in self.keys() {
            let _fits = write!(line, " --{option}-key-file /{key} --{option}-key-size {KEY_BYTES}");
        }
        if let Some(sectors) = self.buffer_sectors {
            let _fits = write!(line, " --buffer-sectors {sectors}");
        }
        if self.data_device {
            let _fits = write!(line, " --data-device $D{}", disk + 1);
        }
        for (option, given) in [
            ("--integrity-legacy-padding", self.legacy_padding),
            ("--integrity-legacy-hmac", self.legacy_hmac),
        ] {
            if given {
                line = line + " " + option;
            }
        }
        line
    }

    /// What protects the journal, by the options' names, which are the same on both sides.
    fn journal(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let chosen =
            [("journal-integrity", self.journal_integrity), ("journal-crypt", self.journal_crypt)];
        chosen.into_iter().filter_map(|(option, value)| Some((option, value?)))
    }

    /// What needs a key, and that key's file.
    fn keys(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let keys = [
            ("integrity", self.is_keyed(), "k.hmac"),
            ("journal-integrity", self.journal_integrity.is_some(), "k.jmac"),
            ("journal-crypt", self.journal_crypt.is_some(), "k.jcrypt"),
        ];
        keys.into_iter().filter_map(|(option, needed, key)| needed.then_some((option, key)))
    }

    fn is_keyed(&self) -> bool {
        self.integrity.starts_with("hmac")
    }

    /// What no disk says, as options of `steadfast`. Tags without a key it must find by trial, if
    /// there are valid ones.
    pub(crate) fn open_options(&self, keys: &Path) -> Vec<String> {
        let mut options = Vec::new();
        if self.is_keyed() || !self.wipe {
            options.extend(["--integrity".into(), self.integrity.into()]);
        }
        for (option, value) in self.journal() {
            options.extend([format!("--{option}"), value.into()]);
        }
        for (option, key) in self.keys() {
            let file = keys.join(key).display().to_string();
            options.extend([format!("--{option}-key-file"), file]);
        }
        options
    }

    /// How `steadfast` runs it while it is open.
    pub(crate) fn running_options(&self) -> Vec<String> {
        let mode: &[&str] = match self.mode {
            Mode::Journal => &[],
            Mode::Bitmap => &["--mode", "bitmap"],
            Mode::Direct => &["--mode", "direct"],
            Mode::Recovery => &["--mode", "recovery", "--unverified"],
        };
        let discards = self.allow_discards.then_some("--allow-discards");
        mode.iter().copied().chain(discards).map(str::to_owned).collect()
    }

    /// What else must be said to `steadfast create`.
    pub(crate) fn create_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if !self.is_keyed() && self.wipe {
            options.extend(["--integrity".into(), self.integrity.into()]);
        }
        for (option, value) in [
            ("--sector-size", Some(self.sector_size)),
            ("--tag-size", self.tag_size.map(u64::from)),
            ("--interleave-sectors", self.interleave_sectors.map(u64::from)),
            ("--journal-size", self.journal_bytes),
        ] {
            options.extend(value.into_iter().flat_map(|value| [option.into(), value.to_string()]));
        }
        for (option, given) in [
            ("--no-wipe", !self.wipe),
            ("--legacy-padding", self.legacy_padding),
            ("--legacy-hmac", self.legacy_hmac),
        ] {
            options.extend(given.then(|| option.into()));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_says_no_more_than_it_must() {
        let format = Format::CRC32C;
        assert_eq!(
            format.format_command(0),
            "integritysetup format -q $D0 --sector-size 512 --integrity crc32c\n"
        );
        assert_eq!(format.open_command(1, "t1"), "integritysetup open $D1 t1 --integrity crc32c\n");
        let options = format.create_options().join(" ");
        assert_eq!(options, "--integrity crc32c --sector-size 512");
    }

    #[test]
    fn keys_go_with_what_needs_them() {
        let format = Format {
            integrity: "hmac-sha256",
            journal_integrity: Some("hmac-sha256"),
            data_device: true,
            mode: Mode::Direct,
            ..Format::CRC32C
        };
        let open = format.open_command(0, "t");
        for part in [
            "--integrity-key-file /k.hmac --integrity-key-size 32",
            "--journal-integrity hmac-sha256",
            "--journal-integrity-key-file /k.jmac --journal-integrity-key-size 32",
            "--data-device $D1",
            "--integrity-no-journal",
        ] {
            assert!(open.contains(part), "{part}: {open}");
        }
        assert!(!open.contains("jcrypt"));
    }
}
