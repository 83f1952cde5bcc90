//! Where everything of a volume lies.
//!
//! ```text
//!   sector 0      8                 init
//!   | superblock | journal sections | run 0 tags | run 0 data | run 1 tags | run 1 data | ...
//!                                    metadata_run  2^L sectors
//! ```
//!
//! With a separate metadata device that one holds superblock, journal and a single flat array of
//! tags; the data device holds the data and nothing else.
//!
//! In inline mode there is no journal and no tag on the device: the data starts behind the
//! superblock, its tags lie in the hardware's metadata of each sector.
//!
//! [`format()`] computes a new volume's numbers exactly as the kernel does (specification, section
//! 3), [`resize()`] those of a volume whose device has another size than it had; [`Layout::of`]
//! takes an existing superblock and says whether it fits its device (section 4). All sums on
//! numbers from disk are checked before they are made.

mod format;
mod resize;

pub use format::{
    BUFFER_SECTORS, FormatError, FormatOptions, buffer_sectors, format, log2_sectors_per_bit,
};
pub use resize::{ResizeError, resize};

use crate::superblock::{AREA_SECTORS, Flags, Superblock};
use units::{BlockSize, SECTOR, Sector};

/// Metadata sectors at the head of each journal section.
pub const SECTION_METADATA_SECTORS: u64 = 8;

/// The sizes of what a volume lies on, in sectors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeviceSectors {
    /// Data and metadata interleaved on one device.
    Interleaved(u64),
    /// Each on its own.
    Separate {
        /// Size of the device with superblock, journal and tags.
        metadata: u64,
        /// Size of the device with the data.
        data: u64,
    },
}

impl DeviceSectors {
    /// Sectors of the device with superblock, journal and tags.
    #[must_use]
    pub const fn metadata(self) -> u64 {
        match self {
            Self::Interleaved(sectors) | Self::Separate { metadata: sectors, .. } => sectors,
        }
    }

    /// Sectors of the device with the data.
    #[must_use]
    pub const fn data(self) -> u64 {
        match self {
            Self::Interleaved(sectors) | Self::Separate { data: sectors, .. } => sectors,
        }
    }
}

/// The geometry of a journal: nothing but the sizes of its parts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct JournalLayout {
    /// The block of each entry.
    pub block: BlockSize,
    /// Bytes of tag in each entry.
    pub tag_bytes: usize,
    /// Bytes of one entry.
    pub entry_bytes: usize,
    /// Entries in one metadata sector.
    pub entries_per_sector: u32,
    /// Entries in one section.
    pub entries_per_section: u32,
    /// Sectors of one section.
    pub section_sectors: u64,
    /// Sections; 0 in inline mode.
    pub sections: u32,
}

impl JournalLayout {
    /// The sizes that follow from block, tag and flags (steps 3 to 5), for `sections` sections.
    pub(crate) fn new(block: BlockSize, tag_size: u16, flags: Flags, sections: u32) -> Self {
        let tag_bytes = usize::from(tag_size);
        let sectors = 1_usize << block.log2_sectors();
        let entry_bytes = (8 + 8 * sectors + tag_bytes).next_multiple_of(8);
        let room = if flags.has(Flags::JOURNAL_MAC) { 496 } else { 504 };
        let per_sector = u32::try_from(room / entry_bytes).expect("at most 504");
        let entries_per_section = per_sector * 8;
        Self {
            block,
            tag_bytes,
            entry_bytes,
            entries_per_sector: per_sector,
            entries_per_section,
            section_sectors: u64::from(entries_per_section) * block.sectors()
                + SECTION_METADATA_SECTORS,
            sections,
        }
    }

    /// Sectors of the whole journal.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.section_sectors * u64::from(self.sections)
    }

    /// Entries of the whole journal.
    #[must_use]
    pub fn entries(&self) -> u64 {
        u64::from(self.entries_per_section) * u64::from(self.sections)
    }

    /// First sector of section `section` on the metadata device.
    ///
    /// # Panics
    /// If there is no such section.
    #[must_use]
    pub fn section_start(&self, section: u32) -> Sector {
        assert!(section < self.sections, "the section exists");
        Sector(AREA_SECTORS + self.section_sectors * u64::from(section))
    }
}

/// A contiguous piece of the exposed device within one metadata run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// First sector as users count.
    pub sector: Sector,
    /// How many sectors.
    pub sectors: u64,
    /// Where its data starts on the data device.
    pub data: Sector,
    /// Where its tags start on the metadata device, in bytes. They are contiguous.
    pub tag_byte: u64,
}

/// Where everything lies. Made only from numbers that were checked against the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    /// The block that each tag covers.
    pub block: BlockSize,
    /// Bytes of each tag.
    pub tag_bytes: usize,
    /// The journal's sizes.
    pub journal: JournalLayout,
    /// Sectors before the first tag (or, in inline mode, before the data).
    pub initial_sectors: u64,
    /// Sectors of tags in front of each data run; 0 with a metadata device and in inline mode.
    pub metadata_run: u64,
    /// Binary logarithm of the sectors of a data run; none with a metadata device or inline.
    pub log2_interleave: Option<u8>,
    /// Size of the exposed device in sectors.
    pub provided_sectors: u64,
    /// Tags lie in the hardware's per-sector metadata: no tag address exists.
    pub inline: bool,
    separate: bool,
}

/// Why a superblock does not fit its device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// The journal alone is as large as the device, or beyond what the format can address.
    #[error("the journal of {sections} sections ends at sector {end}, the device has {device}")]
    Journal {
        /// Sections of the journal.
        sections: u32,
        /// First sector behind it.
        end: u64,
        /// Sectors of the device.
        device: u64,
    },
    /// The last sector of data or tags lies outside.
    #[error("the volume needs a device of {needed} sectors, it has {device}")]
    Device {
        /// Sectors that the stored numbers need.
        needed: u64,
        /// Sectors of the device.
        device: u64,
    },
    /// An interleave where there can be none, or none where one must be.
    #[error("{}", if *.separate {
        "an interleave is stored, but the data is said to be on another device"
    } else {
        "no interleave is stored: the data lies on another device, which must be named"
    })]
    Interleave {
        /// Whether a separate data device was given.
        separate: bool,
    },
}

impl Layout {
    /// The layout that `superblock` describes on devices of these sizes.
    ///
    /// # Errors
    /// [`LayoutError`] when it cannot lie there, with both numbers.
    pub fn of(superblock: &Superblock, device: DeviceSectors) -> Result<Self, LayoutError> {
        let separate = matches!(device, DeviceSectors::Separate { .. });
        let inline = superblock.flags.has(Flags::INLINE);
        if !inline && separate != superblock.log2_interleave.is_none() {
            return Err(LayoutError::Interleave { separate });
        }
        let layout = Self::unchecked(
            superblock.block,
            superblock.tag_size,
            superblock.flags,
            superblock.journal_sections,
            if inline { None } else { superblock.log2_interleave },
            superblock.provided_sectors,
        );
        let end = layout.initial_sectors;
        if !layout.journal_fits(device.metadata()) && !inline {
            let sections = superblock.journal_sections;
            return Err(LayoutError::Journal { sections, end, device: device.metadata() });
        }
        let needed = layout.metadata_sectors_needed();
        if needed > u128::from(device.metadata()) {
            let needed = u64::try_from(needed).unwrap_or(u64::MAX);
            return Err(LayoutError::Device { needed, device: device.metadata() });
        }
        if separate && layout.provided_sectors > device.data() {
            let needed = layout.provided_sectors;
            return Err(LayoutError::Device { needed, device: device.data() });
        }
        Ok(layout)
    }

    fn unchecked(
        block: BlockSize,
        tag_size: u16,
        flags: Flags,
        sections: u32,
        log2_interleave: Option<u8>,
        provided_sectors: u64,
    ) -> Self {
        let journal = JournalLayout::new(block, tag_size, flags, sections);
        let inline = flags.has(Flags::INLINE);
        Self {
            block,
            tag_bytes: usize::from(tag_size),
            journal,
            initial_sectors: AREA_SECTORS + journal.sectors(),
            metadata_run: log2_interleave
                .map_or(0, |log2| metadata_run(block, tag_size, log2, flags)),
            log2_interleave,
            provided_sectors,
            inline,
            separate: !inline && log2_interleave.is_none(),
        }
    }

    /// Step 7.
    fn journal_fits(&self, metadata_device: u64) -> bool {
        self.initial_sectors <= u64::from(u32::MAX) && self.initial_sectors + 8 < metadata_device
    }

    /// Bits of the dirty bitmap for which the journal's area has room (step 13).
    #[must_use]
    pub fn bitmap_bits_max(&self) -> u64 {
        (self.journal.sectors() * SECTOR * 8).min(u64::from(u32::MAX))
    }

    /// Sectors that the metadata device must have at least.
    fn metadata_sectors_needed(&self) -> u128 {
        let provided = u128::from(self.provided_sectors);
        let init = u128::from(self.initial_sectors);
        if self.inline {
            init + provided
        } else if self.separate {
            init + (provided / u128::from(self.block.sectors()) * self.tag_bytes as u128)
                .div_ceil(u128::from(SECTOR))
        } else {
            // The test of step 10 for the last sector.
            let log2 = self.log2_interleave.expect("interleaved, by the two branches above");
            let last = provided - 1;
            let runs_before = last >> log2;
            init + last + (runs_before + 1) * u128::from(self.metadata_run) + 1
        }
    }

    /// Sectors that a metadata device is made with: superblock, journal, and the tags in whole buffers
    /// ([`BUFFER_SECTORS`]).
    #[must_use]
    pub fn metadata_device_sectors(&self) -> u64 {
        let tags = self.metadata_sectors_needed() - u128::from(self.initial_sectors);
        let tags = u64::try_from(tags).unwrap_or(u64::MAX);
        self.initial_sectors.saturating_add(
            tags.saturating_add(BUFFER_SECTORS - 1) / BUFFER_SECTORS * BUFFER_SECTORS,
        )
    }

    /// The first piece of `sectors` sectors from `sector` on that lies in one run.
    ///
    /// # Panics
    /// If the range is empty or ends beyond the device: the joint above checks requests.
    #[must_use]
    pub fn run(&self, sector: Sector, sectors: u64) -> Run {
        assert!(sectors > 0 && sectors <= self.provided_sectors, "a range within the device");
        assert!(sector.0 <= self.provided_sectors - sectors, "a range within the device");
        let spb = self.block.sectors();
        let tag_bytes = units::u64_of(self.tag_bytes);
        let Some(log2) = self.log2_interleave else {
            let data = if self.inline { sector + self.initial_sectors } else { sector };
            let tag_byte = self.initial_sectors * SECTOR + sector.0 / spb * tag_bytes;
            return Run { sector, sectors, data, tag_byte };
        };
        let interleave = 1_u64 << log2;
        let (run, offset) = (sector.0 >> log2, sector.0 & (interleave - 1));
        let run_start = self.initial_sectors + run * (interleave + self.metadata_run);
        Run {
            sector,
            sectors: sectors.min(interleave - offset),
            data: Sector(run_start + self.metadata_run + offset),
            tag_byte: run_start * SECTOR + offset / spb * tag_bytes,
        }
    }

    /// Every piece of a range, in order. Panics as [`Self::run`] does.
    pub fn runs(&self, sector: Sector, sectors: u64) -> impl Iterator<Item = Run> + use<> {
        let layout = *self;
        let (mut at, mut left) = (sector, sectors);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let run = layout.run(at, left);
            at += run.sectors;
            left -= run.sectors;
            Some(run)
        })
    }

    /// First byte behind the last tag that can follow `run`'s tags without a gap: where reading
    /// ahead has to stop.
    #[must_use]
    pub fn tags_end(&self, run: &Run) -> u64 {
        match self.log2_interleave {
            Some(log2) => {
                let offset = run.sector.0 & ((1 << log2) - 1);
                Sector(run.data.0 - offset).bytes()
            }
            None => {
                let blocks = self.provided_sectors / self.block.sectors();
                self.initial_sectors * SECTOR + blocks * units::u64_of(self.tag_bytes)
            }
        }
    }

    /// The first sector of the block whose tag covers byte `byte` of the metadata device; none for
    /// padding, and outside of the tags.
    #[must_use]
    pub fn sector_of_tag(&self, byte: u64) -> Option<Sector> {
        let offset = byte.checked_sub(self.initial_sectors * SECTOR)?;
        let tag_bytes = units::u64_of(self.tag_bytes);
        let spb = self.block.sectors();
        let sector = match self.log2_interleave {
            None => offset / tag_bytes * spb,
            Some(log2) => {
                let stride = ((1 << log2) + self.metadata_run) * SECTOR;
                let within = offset % stride / tag_bytes * spb;
                if within >= 1 << log2 {
                    return None;
                }
                ((offset / stride) << log2) + within
            }
        };
        (!self.inline && sector < self.provided_sectors).then_some(Sector(sector))
    }

    /// Whether the data lies on a device of its own.
    #[must_use]
    pub const fn is_separate(&self) -> bool {
        self.separate
    }
}

/// Step 9.
fn metadata_run(block: BlockSize, tag_size: u16, log2_interleave: u8, flags: Flags) -> u64 {
    let bytes = u64::from(tag_size) * ((1_u64 << log2_interleave) / block.sectors());
    let pad = if flags.has(Flags::FIX_PADDING) { 4096 } else { 512 << 8 };
    bytes.next_multiple_of(pad) / SECTOR
}

#[cfg(test)]
mod tests;
