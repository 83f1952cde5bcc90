//! The fields of a superblock, each with when it may be believed, and the changes that a running
//! array makes in them.

use super::super::fields::{DeviceFlags, Features, Level, Minor, ResyncOffset, Role, Time, Uuid};
use super::Superblock;
use units::{Sector, usize_of};

/// Where a change of shape stands; read with the feature bit only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reshape {
    /// Level afterwards.
    pub level: Level,
    /// Layout afterwards.
    pub layout: u32,
    /// Chunk afterwards, in sectors.
    pub chunk_sectors: u32,
    /// Members afterwards minus members before.
    pub delta_disks: i32,
    /// Array sector up to which it has come.
    pub position: Sector,
}

/// Where a member's bad block log lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BadBlockLog {
    /// First sector of the log on the member.
    pub sector: Sector,
    /// Its length in sectors.
    pub sectors: u16,
    /// Binary logarithm of the sectors that one unit of length counts.
    pub shift: u8,
}

/// Where a member's partial parity log lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ppl {
    /// First sector of the log on the member.
    pub sector: Sector,
    /// Its length in sectors.
    pub sectors: u16,
}

impl Superblock {
    /// Which metadata: 1.0, 1.1 or 1.2.
    #[must_use]
    pub const fn minor(&self) -> Minor {
        self.minor
    }

    /// Where it lies on the member.
    #[must_use]
    pub fn super_offset(&self) -> Sector {
        Sector(self.raw.super_offset.get())
    }

    /// The feature map. Believe a field that depends on a feature only if its bit is set.
    #[must_use]
    pub fn features(&self) -> Features {
        Features(self.raw.feature_map.get())
    }

    /// Which array the member belongs to.
    #[must_use]
    pub fn set_uuid(&self) -> Uuid {
        Uuid(self.raw.set_uuid)
    }

    /// The array's name, usually `homehost:name`; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn name(&self) -> String {
        let end = self.raw.set_name.iter().position(|&byte| byte == 0).unwrap_or(32);
        String::from_utf8_lossy(&self.raw.set_name[..end]).into_owned()
    }

    /// When the array was made.
    #[must_use]
    pub fn ctime(&self) -> Time {
        Time(self.raw.ctime.get())
    }

    /// The array's level.
    #[must_use]
    pub fn level(&self) -> Level {
        Level::from_number(self.raw.level.get())
    }

    /// How chunks go to members; see [`crate::geometry`].
    #[must_use]
    pub fn layout(&self) -> u32 {
        self.raw.layout.get()
    }

    /// Sectors that the array uses of each member; 0 for RAID 0 and linear.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.raw.size.get()
    }

    /// Chunk in sectors; 0 for RAID 1.
    #[must_use]
    pub fn chunk_sectors(&self) -> u32 {
        self.raw.chunksize.get()
    }

    /// Slots of the array. At most `SLOTS_MAX` once validated.
    #[must_use]
    pub fn raid_disks(&self) -> u32 {
        self.raw.raid_disks.get()
    }

    /// First sector of the write-intent bitmap on the member, with feature `BITMAP` only.
    #[must_use]
    pub fn bitmap_sector(&self) -> Option<Sector> {
        if !self.features().contains(Features::BITMAP) {
            return None;
        }
        self.beside(i64::from(i32::from_le_bytes(self.raw.bitmap_offset)))
    }

    /// The partial parity log, with a PPL feature only.
    #[must_use]
    pub fn ppl(&self) -> Option<Ppl> {
        let features = self.features();
        if !features.contains(Features::PPL) && !features.contains(Features::MULTIPLE_PPL) {
            return None;
        }
        let [a, b, c, d] = self.raw.bitmap_offset;
        let sector = self.beside(i64::from(i16::from_le_bytes([a, b])))?;
        Some(Ppl { sector, sectors: u16::from_le_bytes([c, d]) })
    }

    /// Says that there is a partial parity log of `sectors` sectors, `offset` sectors from here: with room for
    /// several records one after the other.
    pub fn set_ppl(&mut self, offset: i16, sectors: u16) {
        let ([a, b], [c, d]) = (offset.to_le_bytes(), sectors.to_le_bytes());
        self.raw.bitmap_offset = [a, b, c, d];
        self.raw.feature_map = self.features().with(Features::MULTIPLE_PPL).0.into();
    }

    /// The change of shape under way, with feature `RESHAPE` only.
    #[must_use]
    pub fn reshape(&self) -> Option<Reshape> {
        let raw = &self.raw;
        self.features().contains(Features::RESHAPE).then(|| Reshape {
            level: Level::from_number(raw.new_level.get()),
            layout: raw.new_layout.get(),
            chunk_sectors: raw.new_chunk.get(),
            delta_disks: raw.delta_disks.get(),
            position: Sector(raw.reshape_position.get()),
        })
    }

    /// First sector of the array's data on the member.
    #[must_use]
    pub fn data_offset(&self) -> Sector {
        Sector(self.raw.data_offset.get())
    }

    /// How far the data starts elsewhere on the member after a reshape, with feature `NEW_OFFSET`
    /// only.
    #[must_use]
    pub fn new_offset(&self) -> i32 {
        self.raw.new_offset.get()
    }

    /// Sectors of the member that the array could use.
    #[must_use]
    pub fn data_size(&self) -> u64 {
        self.raw.data_size.get()
    }

    /// Sectors of the member's data that are filled, with feature `RECOVERY_OFFSET` only; without
    /// it, all of them.
    #[must_use]
    pub fn recovery_offset(&self) -> Option<Sector> {
        let filled = self.features().contains(Features::RECOVERY_OFFSET);
        filled.then(|| Sector(self.raw.recovery_offset.get()))
    }

    /// Of the device that is the array's journal: the sector of its data at which the journal begins.
    #[must_use]
    pub fn journal_tail(&self) -> Option<u64> {
        (self.role() == Some(Role::Journal)).then(|| self.raw.recovery_offset.get())
    }

    /// Says that device `dev_number` is the array's write journal.
    ///
    /// # Panics
    /// If the table has no such number.
    pub fn set_journal(&mut self, dev_number: u32) {
        self.set_role(dev_number, Role::Journal);
        self.set_feature(Features::JOURNAL, true);
    }

    /// The member's own index into the device table, which is not its slot.
    #[must_use]
    pub fn dev_number(&self) -> u32 {
        self.raw.dev_number.get()
    }

    /// Sectors that were corrected by rewriting them, over the member's life.
    #[must_use]
    pub fn corrected_reads(&self) -> u32 {
        self.raw.cnt_corrected_read.get()
    }

    /// The member itself.
    #[must_use]
    pub fn device_uuid(&self) -> Uuid {
        Uuid(self.raw.device_uuid)
    }

    /// Hints about the member.
    #[must_use]
    pub fn device_flags(&self) -> DeviceFlags {
        DeviceFlags(self.raw.devflags)
    }

    /// Where the bad block log lies, if there is one. Its content means something only with
    /// feature `BAD_BLOCKS`: a log that was never used is not even initialised.
    #[must_use]
    pub fn bad_block_log(&self) -> Option<BadBlockLog> {
        let offset = self.raw.bblog_offset.get();
        let sectors = self.raw.bblog_size.get();
        if offset == 0 || sectors == 0 {
            return None;
        }
        let sector = self.beside(i64::from(offset))?;
        Some(BadBlockLog { sector, sectors, shift: self.raw.bblog_shift })
    }

    /// When it was last written.
    #[must_use]
    pub fn utime(&self) -> Time {
        Time(self.raw.utime.get())
    }

    /// How often the array's superblocks changed: the higher is the fresher.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.raw.events.get()
    }

    /// How far the array's redundancy was known to be true when this was written. Believe the
    /// freshest member.
    #[must_use]
    pub fn resync(&self) -> ResyncOffset {
        ResyncOffset::from_number(self.raw.resync_offset.get())
    }

    /// The checksum that was stored, or that a new superblock will carry; stale after a setter.
    #[must_use]
    pub fn stored_checksum(&self) -> u32 {
        self.raw.sb_csum.get()
    }

    /// What the device table says of device `dev_number`, as far as this member knew.
    #[must_use]
    pub fn role_of(&self, dev_number: u32) -> Option<Role> {
        if dev_number >= self.raw.max_dev.get() {
            return None;
        }
        let at = 2 * usize_of(u64::from(dev_number));
        Some(Role::from_number(u16::from_le_bytes([self.rest[at], self.rest[at + 1]])))
    }

    /// What the member believes of itself; `None` if its own number is outside the table.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.role_of(self.dev_number())
    }

    /// The device table, in order of device numbers.
    pub fn roles(&self) -> impl Iterator<Item = Role> {
        (0..self.raw.max_dev.get()).map_while(|number| self.role_of(number))
    }

    /// Sets the hints about the member.
    pub fn set_device_flags(&mut self, flags: DeviceFlags) {
        self.raw.devflags = flags.0;
    }

    /// Sets the event count.
    pub fn set_events(&mut self, events: u64) {
        self.raw.events = events.into();
    }

    /// Sets how far redundancy is true.
    pub fn set_resync(&mut self, resync: ResyncOffset) {
        self.raw.resync_offset = resync.number().into();
    }

    /// Says that the member is filled only below `filled` (from the start of its data); with none,
    /// that it is filled everywhere. A recovery that a bitmap guided is over with that.
    pub fn set_recovery(&mut self, filled: Option<Sector>) {
        let features = self.features().without(Features::RECOVERY_BITMAP);
        let features = match filled {
            Some(_) => features.with(Features::RECOVERY_OFFSET),
            None => features.without(Features::RECOVERY_OFFSET),
        };
        self.raw.feature_map = features.0.into();
        self.raw.recovery_offset = filled.map_or(0, |sector| sector.0).into();
    }

    /// Says whether the member stands beside another that it is to replace.
    pub fn set_replacement(&mut self, replaces: bool) {
        let features = match replaces {
            true => self.features().with(Features::REPLACEMENT),
            false => self.features().without(Features::REPLACEMENT),
        };
        self.raw.feature_map = features.0.into();
    }

    /// Of the device that is the journal: the sector of its data at which it begins.
    pub fn set_journal_tail(&mut self, tail: u64) {
        self.raw.recovery_offset = tail.into();
    }

    /// Sets the time of the last write.
    pub fn set_utime(&mut self, utime: Time) {
        self.raw.utime = utime.0.into();
    }

    /// Says that a write-intent bitmap lies `offset` sectors from the superblock.
    pub(crate) fn set_bitmap_offset(&mut self, offset: i32) {
        self.raw.bitmap_offset = offset.to_le_bytes();
        self.set_feature(Features::BITMAP, true);
    }

    /// Says whether the member's bad block log has anything in it.
    pub fn set_has_bad_blocks(&mut self, any: bool) {
        self.set_feature(Features::BAD_BLOCKS, any);
    }

    fn set_feature(&mut self, feature: Features, on: bool) {
        let features = self.features();
        let features = if on { features.with(feature) } else { features.without(feature) };
        self.raw.feature_map = features.0.into();
    }

    /// Counts `sectors` more sectors as corrected; the count saturates.
    pub fn add_corrected_reads(&mut self, sectors: u32) {
        self.raw.cnt_corrected_read = self.corrected_reads().saturating_add(sectors).into();
    }

    /// Changes what the device table says of device `dev_number`.
    ///
    /// # Panics
    /// If the table has no such slot: validated members lie within it.
    pub fn set_role(&mut self, dev_number: u32, role: Role) {
        assert!(dev_number < self.raw.max_dev.get(), "device {dev_number} is in the table");
        let at = 2 * usize_of(u64::from(dev_number));
        self.rest[at..at + 2].copy_from_slice(&role.number().to_le_bytes());
    }

    /// The sector `offset` sectors from the superblock, if there is one.
    fn beside(&self, offset: i64) -> Option<Sector> {
        self.raw.super_offset.get().checked_add_signed(offset).map(Sector)
    }
}
