//! A new volume's numbers, as the kernel computes them (specification, section 3).

use super::{DeviceSectors, Layout};
use crate::superblock::{Flags, Superblock, tag_size_max, version_for};
use units::{BlockSize, SECTOR};

/// Journal sectors asked for when nothing else is said, at most (64 MiB).
const JOURNAL_SECTORS_MAX: u64 = 131_072;
/// Interleave when nothing else is said.
const INTERLEAVE_SECTORS: u64 = 32_768;
/// Sectors of a metadata buffer when nothing else is said.
pub const BUFFER_SECTORS: u64 = 128;
/// Binary logarithm of the sectors under one bitmap bit when nothing else is said.
const LOG2_SECTORS_PER_BIT: u8 = 15;

/// What a new volume is asked to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FormatOptions {
    /// The block that each tag covers.
    pub block: BlockSize,
    /// Bytes of each tag; the digest's length unless it is to be cut.
    pub tag_size: u16,
    /// Sectors of journal asked for; none: 1/128 of the data device, at most 64 MiB.
    pub journal_sectors: Option<u64>,
    /// Data sectors between metadata runs, rounded down to a power of two; none: 32768.
    pub interleave_sectors: Option<u64>,
    /// Sectors of a metadata buffer, rounded down to a power of two; none: 128. It is not stored;
    /// with a metadata device it decides how much room the tags are given.
    pub buffer_sectors: Option<u64>,
    /// Sectors under one bit of the dirty bitmap, rounded down to a power of two; none: 32768, or
    /// as many more as the bitmap needs to fit the journal's area.
    pub sectors_per_bit: Option<u64>,
    /// Round metadata runs to 4 KiB (every kernel since 5.5 does); with a metadata device there are none.
    pub fix_padding: bool,
    /// Hash the salt (every kernel since 5.12 does).
    pub fix_hmac: bool,
    /// Leave room for section MACs.
    pub journal_mac: bool,
    /// Keep the tags in the hardware's metadata of each sector, without a journal.
    pub inline: bool,
    /// Random bytes; stored only with `fix_hmac`.
    pub salt: [u8; 16],
}

impl FormatOptions {
    /// What a current kernel makes when nothing but the block and the tag is said.
    #[must_use]
    pub const fn new(block: BlockSize, tag_size: u16, salt: [u8; 16]) -> Self {
        Self {
            block,
            tag_size,
            journal_sectors: None,
            interleave_sectors: None,
            buffer_sectors: None,
            sectors_per_bit: None,
            fix_padding: true,
            fix_hmac: true,
            journal_mac: false,
            inline: false,
            salt,
        }
    }

    fn flags(&self, separate: bool) -> Flags {
        let wanted = [
            (self.journal_mac, Flags::JOURNAL_MAC),
            // With a metadata device there are no runs to pad, and kernels do not set it.
            (self.fix_padding && !separate, Flags::FIX_PADDING),
            (self.fix_hmac, Flags::FIX_HMAC),
            (self.inline, Flags::INLINE),
        ];
        wanted
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .fold(Flags::default(), |flags, (_, flag)| flags.with(flag))
    }
}

/// Why no such volume can be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// Nothing would be left for data.
    #[error("a device of {sectors} sectors is too small for such a volume")]
    TooSmall {
        /// Sectors of the (metadata) device.
        sectors: u64,
    },
    /// The tag cannot be stored.
    #[error("a tag of {found} bytes is not possible, 1 to {max} are")]
    TagSize {
        /// Asked for.
        found: u16,
        /// Largest for this block.
        max: u16,
    },
    /// Inline mode has neither a journal nor a device for metadata.
    #[error("inline tags leave no place for {what}")]
    Inline {
        /// What was asked for beside them.
        what: &'static str,
    },
}

/// The superblock and layout of a new volume (specification, section 3). The exposed size never
/// exceeds what fits; the journal is usually a little smaller than asked.
///
/// # Errors
/// [`FormatError`].
pub fn format(
    device: DeviceSectors,
    options: &FormatOptions,
) -> Result<(Superblock, Layout), FormatError> {
    let separate = matches!(device, DeviceSectors::Separate { .. });
    let flags = options.flags(separate);
    let (block, found, max) = (options.block, options.tag_size, tag_size_max(options.block, flags));
    if found == 0 || found > max {
        return Err(FormatError::TagSize { found, max });
    }
    if options.inline {
        refuse_beside_inline(options, separate)?;
    }
    let log2_interleave = (!separate).then(|| {
        let sectors = options.interleave_sectors.unwrap_or(INTERLEAVE_SECTORS);
        u8::try_from(sectors.max(8).ilog2()).expect("at most 63").min(31)
    });
    // Inline mode stores an interleave and does not use it.
    let used_interleave = log2_interleave.filter(|_| !options.inline);
    let with = |sections, provided| {
        Layout::unchecked(block, options.tag_size, flags, sections, used_interleave, provided)
    };
    let layout = if options.inline {
        fit_on_one(device.metadata(), &with, 0)
    } else {
        let requested = options
            .journal_sectors
            .map_or_else(|| JOURNAL_SECTORS_MAX.min(device.data() >> 7), |sectors| sectors.max(1));
        let sections = (requested / with(0, 0).journal.section_sectors).max(1);
        let sections = u32::try_from(sections).unwrap_or(u32::MAX);
        if separate {
            fit_on_two(device, &with, sections, options)
        } else {
            fit_on_one(device.metadata(), &with, sections)
        }
    };
    let layout = layout.ok_or(FormatError::TooSmall { sectors: device.metadata() })?;
    let superblock = Superblock {
        version: version_for(flags, separate, false),
        log2_interleave,
        tag_size: options.tag_size,
        journal_sections: layout.journal.sections,
        provided_sectors: layout.provided_sectors,
        flags,
        block,
        log2_blocks_per_bitmap_bit: log2_sectors_per_bit(&layout, options.sectors_per_bit)
            - block.log2_sectors(),
        recalc_sector: 0,
        salt: if options.fix_hmac { options.salt } else { [0; 16] },
        pad: [0; 2],
        pad2: [0; 8],
    };
    debug_assert_eq!(Superblock::decode(&superblock.encode()).as_ref(), Ok(&superblock));
    Ok((superblock, layout))
}

/// Section 8: what inline mode excludes.
fn refuse_beside_inline(options: &FormatOptions, separate: bool) -> Result<(), FormatError> {
    let excluded = [
        (separate, "a metadata device"),
        (options.journal_sectors.is_some(), "a journal"),
        (options.journal_mac, "a journal MAC"),
    ];
    match excluded.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(FormatError::Inline { what }),
        None => Ok(()),
    }
}

/// Step 10 without a metadata device: the provided size, bit by bit from the top down to 8.
pub(super) fn fit_on_one(
    device: u64,
    with: &impl Fn(u32, u64) -> Layout,
    sections: u32,
) -> Option<Layout> {
    let empty = with(sections, 0);
    if !empty.inline && !empty.journal_fits(device) {
        return None;
    }
    let mut provided = 0_u64;
    for bit in (3..64).rev() {
        let candidate = provided | 1 << bit;
        if candidate <= device
            && with(sections, candidate).metadata_sectors_needed() <= u128::from(device)
        {
            provided = candidate;
        }
    }
    (provided > 0).then(|| with(sections, provided))
}

/// Steps 10 and 11 with a metadata device: all of the data, the longest journal that leaves room
/// for the tags, read in buffers as large as fit.
fn fit_on_two(
    device: DeviceSectors,
    with: &impl Fn(u32, u64) -> Layout,
    sections_max: u32,
    options: &FormatOptions,
) -> Option<Layout> {
    let spb = options.block.sectors();
    let provided = device.data() / spb * spb;
    let tags = u128::from(provided / spb) * u128::from(options.tag_size);
    let log2_wanted = log2_buffer(options.buffer_sectors);
    for log2_buffer in (log2_wanted.min(3)..=log2_wanted).rev() {
        let buffer = u128::from(SECTOR) << log2_buffer;
        let tag_sectors = tags.next_multiple_of(buffer) / u128::from(SECTOR);
        let mut sections = 0_u32;
        for bit in (0..32).rev() {
            let candidate = sections | 1 << bit;
            if candidate > sections_max {
                continue;
            }
            let layout = with(candidate, provided);
            let end = u128::from(layout.initial_sectors) + tag_sectors;
            if layout.journal_fits(device.metadata()) && end <= u128::from(device.metadata()) {
                sections = candidate;
            }
        }
        if sections > 0 && provided > 0 {
            return Some(with(sections, provided));
        }
    }
    None
}

fn log2_buffer(requested: Option<u64>) -> u32 {
    requested.unwrap_or(BUFFER_SECTORS).max(1).ilog2().min(22)
}

/// Step 12: the sectors in which tags are read and written, a power of two. Nothing on disk depends
/// on it; without a metadata device a buffer never reaches beyond its run.
#[must_use]
pub fn buffer_sectors(layout: &Layout, requested: Option<u64>) -> u64 {
    let log2 = match layout.metadata_run {
        0 => log2_buffer(requested),
        run => log2_buffer(requested).min(run.trailing_zeros()),
    };
    1 << log2
}

/// Step 13: binary logarithm of the sectors under one bit of the dirty bitmap, as few as asked
/// (none: 32768) or as many as let the bitmap fit the journal's area. The superblock stores it less
/// the logarithm of the sectors in a block.
///
/// Where there is no journal there can be no bitmap; what is asked for is given back.
#[must_use]
pub fn log2_sectors_per_bit(layout: &Layout, requested: Option<u64>) -> u8 {
    let wanted = requested.map_or(LOG2_SECTORS_PER_BIT, |sectors| {
        u8::try_from(sectors.max(1).ilog2()).expect("at most 63")
    });
    let mut log2_sectors = wanted.max(layout.block.log2_sectors());
    let bits_max = layout.bitmap_bits_max();
    while bits_max > 0
        && log2_sectors < 63
        && layout.provided_sectors.div_ceil(1 << log2_sectors) > bits_max
    {
        log2_sectors += 1;
    }
    log2_sectors
}
