//! What is judged: a volume, as the guest makes and opens it and as `steadfast` makes it.

use crate::format::Format;
use std::fmt::Write;

/// An array, dm-integrity, or an array over it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    /// An md level, or none for a single member.
    pub(crate) level: Option<u8>,
    /// How many members, each of [`Self::member_bytes`] and what it has more than the one before.
    pub(crate) members: usize,
    pub(crate) member_bytes: u64,
    /// By how much each member is larger than the one before.
    pub(crate) step_bytes: u64,
    pub(crate) chunk_kib: u32,
    /// md's name of it, if not the usual one.
    pub(crate) layout: Option<&'static str>,
    /// Version of md's superblocks.
    pub(crate) metadata: &'static str,
    pub(crate) integrity: Option<Format>,
    /// Options of `mdadm --create`.
    pub(crate) mdadm: &'static str,
    /// The mode of its write journal, which lies on a disk behind the members', or on what they lie on.
    pub(crate) journal: Option<&'static str>,
}

impl Subject {
    /// dm-integrity alone. Large enough for two runs of data at the usual interleave.
    pub(crate) const fn integrity(format: Format) -> Self {
        Self {
            level: None,
            members: 1,
            member_bytes: 24 << 20,
            step_bytes: 0,
            chunk_kib: 64,
            layout: None,
            metadata: "1.2",
            integrity: Some(format),
            mdadm: "--bitmap=none",
            journal: None,
        }
    }

    /// md alone.
    pub(crate) const fn md(level: u8, members: usize) -> Self {
        Self {
            level: Some(level),
            members,
            member_bytes: 16 << 20,
            step_bytes: 0,
            chunk_kib: 64,
            layout: None,
            metadata: "1.2",
            integrity: None,
            mdadm: if level == 0 { "" } else { "--bitmap=none" },
            journal: None,
        }
    }

    /// The same with a write-intent bitmap of small chunks.
    pub(crate) const fn with_intent(self) -> Self {
        Self { mdadm: "--bitmap=internal --bitmap-chunk=64", ..self }
    }

    /// The same with a partial parity log.
    pub(crate) const fn with_ppl(self) -> Self {
        Self { mdadm: "--consistency-policy=ppl", ..self }
    }

    /// The same with a write journal, in this mode.
    pub(crate) const fn with_journal(self, mode: &'static str) -> Self {
        Self { mdadm: "", journal: Some(mode), ..self }
    }

    /// Whether the kernel can compare its members.
    pub(crate) fn is_redundant(&self) -> bool {
        self.level.is_some_and(|level| level != 0)
    }

    /// Bytes of disk `index`.
    pub(crate) fn disk_bytes(&self, index: usize) -> u64 {
        let each = self.integrity.map_or(1, |format| format.disks());
        let member = u64::try_from(index / each).unwrap_or(0);
        self.member_bytes + member * self.step_bytes
    }

    /// md over dm-integrity.
    pub(crate) const fn stacked(level: u8, members: usize, format: Format) -> Self {
        Self { integrity: Some(format), ..Self::md(level, members) }
    }

    /// Disks of the guest, in order: each member's.
    pub(crate) fn disks(&self) -> usize {
        self.devices() * self.integrity.map_or(1, |format| format.disks())
    }

    /// Members, and the device of its write journal, which is the last.
    fn devices(&self) -> usize {
        self.members + usize::from(self.journal.is_some())
    }

    /// What its write journal lies on, if it has one.
    fn journal_device(&self) -> Option<String> {
        self.journal.map(|_| self.member_device(self.members))
    }

    /// The guest has its write journal work in its mode, which no disk says: each start begins in mode
    /// write-through.
    pub(crate) fn set_journal_mode(&self) -> String {
        self.journal.map_or_else(String::new, |mode| {
            format!("echo {mode} > /sys/block/md0/md/journal_mode\n")
        })
    }

    /// Sectors of the smallest write.
    pub(crate) fn block(&self) -> u64 {
        self.integrity.map_or(1, |format| format.block())
    }

    /// Where the guest finds the volume once it is open.
    pub(crate) fn device(&self) -> &'static str {
        if self.level.is_some() { "/dev/md0" } else { "/dev/mapper/t0" }
    }

    /// The guest makes it, and it is open.
    pub(crate) fn make(&self) -> String {
        let mut script = String::new();
        if let Some(format) = &self.integrity {
            for member in 0..self.devices() {
                script += &format.format_command(member * format.disks());
            }
        }
        script += &self.open_members();
        if let Some(level) = self.level {
            let chunk = match level {
                1 => String::new(),
                _ => format!(" --chunk={}", self.chunk_kib),
            };
            let layout = self.layout.map_or_else(String::new, |name| format!(" --layout={name}"));
            let journal = self.journal_device();
            let journal =
                journal.map_or_else(String::new, |disk| format!(" --write-journal {disk}"));
            let _fits = writeln!(
                script,
                "mdadm --create /dev/md0 --run --quiet --metadata={} --homehost=any --name=it \
                 --level={level}{layout}{chunk} {} --raid-devices={} {}{journal}\nmd_settled",
                self.metadata,
                self.mdadm,
                self.members,
                self.member_devices()
            );
        }
        script
    }

    /// The guest opens it.
    pub(crate) fn open(&self) -> String {
        let mut script = self.open_members();
        if self.level.is_some() {
            let journal = self.journal_device();
            let devices = [Some(self.member_devices()), journal].map(Option::unwrap_or_default);
            let devices = devices.join(" ");
            let _fits = writeln!(script, "mdadm --assemble /dev/md0 --quiet {devices}\nmd_settled");
        }
        script
    }

    /// The same without a member that was there when it was last open.
    pub(crate) fn open_degraded(&self) -> String {
        self.open().replace("mdadm --assemble", "mdadm --assemble --run")
    }

    /// The guest makes dm-integrity, if there is any, for one member more, and opens it.
    pub(crate) fn make_member(&self, member: usize) -> String {
        let Some(format) = &self.integrity else { return String::new() };
        let disk = member * format.disks();
        format.format_command(disk) + &format.open_command(disk, &format!("t{member}"))
    }

    /// The guest closes that.
    pub(crate) fn close_member(&self, member: usize) -> String {
        self.integrity.map_or_else(String::new, |_| format!("integritysetup close t{member}\n"))
    }

    /// What the array has a member on.
    pub(crate) fn member_device(&self, member: usize) -> String {
        match self.integrity {
            Some(_) => format!("/dev/mapper/t{member}"),
            None => format!("$D{member}"),
        }
    }

    /// The guest closes it cleanly.
    pub(crate) fn close(&self) -> String {
        let mut script = String::new();
        if self.level.is_some() {
            script += "mdadm --stop --quiet /dev/md0\n";
        }
        if self.integrity.is_some() {
            for member in 0..self.devices() {
                let _fits = writeln!(script, "integritysetup close t{member}");
            }
        }
        script
    }

    /// The guest checks that copies or parity agree; for one member there is nothing to do.
    pub(crate) fn check(&self) -> &'static str {
        if self.is_redundant() { "check\n" } else { "" }
    }

    /// What `steadfast create` must be told besides what opens it.
    pub(crate) fn create_options(&self) -> Vec<String> {
        let mut options = vec!["--level".into(), "none".into()];
        if let Some(level) = self.level {
            options[1] = level.to_string();
            options.extend(["--chunk".into(), format!("{}K", self.chunk_kib)]);
            options.extend(["--metadata".into(), self.metadata.into()]);
            if self.mdadm.contains("internal") {
                options.extend(["--bitmap-chunk".into(), "64K".into()]);
            } else if self.mdadm.contains("ppl") {
                options.extend(["--consistency-policy".into(), "ppl".into()]);
            } else {
                options.extend(["--bitmap".into(), "none".into()]);
            }
        }
        if let Some(layout) = self.layout {
            options.extend(["--layout".into(), layout.into()]);
        }
        // Members of several sizes are there before.
        if self.step_bytes == 0 {
            options.extend(["--size".into(), self.member_bytes.to_string()]);
        }
        match &self.integrity {
            Some(format) => options.extend(format.create_options()),
            None => options.extend(["--integrity".into(), "none".into()]),
        }
        options
    }

    fn open_members(&self) -> String {
        let Some(format) = &self.integrity else { return String::new() };
        (0..self.devices())
            .map(|member| format.open_command(member * format.disks(), &format!("t{member}")))
            .collect()
    }

    fn member_devices(&self) -> String {
        (0..self.members).map(|member| self.member_device(member)).collect::<Vec<_>>().join(" ")
    }
}
