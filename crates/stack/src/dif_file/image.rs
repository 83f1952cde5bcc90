//! What the bytes of an image are: a layout, a block, a profile. Arithmetic only.

use dif::Profile;
use std::fmt;
use units::{u64_of, usize_of};

/// Where an image keeps its metadata.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Layout {
    /// Behind each interval.
    #[default]
    Interleaved,
    /// In a file of its own.
    Separate,
    /// Behind all data, in the same file: how QEMU's NVMe device keeps a namespace.
    NvmeQemu,
}

impl Layout {
    /// The layouts, in the order messages list them.
    pub const ALL: [Self; 3] = [Self::Interleaved, Self::Separate, Self::NvmeQemu];

    /// The name users know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interleaved => "interleaved",
            Self::Separate => "separate",
            Self::NvmeQemu => "nvme-qemu",
        }
    }

    /// The layout called `name`, exactly.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A layout with a profile, and a logical block of one or more of its intervals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Image {
    layout: Layout,
    profile: Profile,
    per_block: u64,
}

/// Why a block has no such intervals.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "blocks of {block} bytes with intervals of {interval}; an interval is the block, or half of it, \
     a quarter, and so on"
)]
pub struct ImageError {
    /// Bytes of a block.
    pub block: usize,
    /// Bytes of an interval.
    pub interval: usize,
}

impl Image {
    /// Blocks of `block` bytes. (The specification of protection information, section 1: a block has
    /// 2^n intervals.)
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn new(layout: Layout, block: usize, profile: Profile) -> Result<Self, ImageError> {
        let interval = profile.format.interval();
        let per_block = block / interval;
        if !block.is_multiple_of(interval) || !per_block.is_power_of_two() {
            return Err(ImageError { block, interval });
        }
        Ok(Self { layout, profile, per_block: u64_of(per_block) })
    }

    /// The same bytes of data and metadata in another layout.
    #[must_use]
    pub const fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The same layout and block with another profile of the same interval.
    pub(super) const fn with_profile(self, profile: Profile) -> Self {
        Self { profile, ..self }
    }

    /// Where the metadata is.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Format and type.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Intervals of a block.
    #[must_use]
    pub const fn per_block(&self) -> u64 {
        self.per_block
    }

    /// Bytes of a block's data.
    #[must_use]
    pub const fn block(&self) -> usize {
        self.profile.format.interval() * usize_of(self.per_block)
    }

    /// Bytes of a block's metadata.
    #[must_use]
    pub const fn metadata(&self) -> usize {
        self.profile.format.metadata() * usize_of(self.per_block)
    }

    /// Bytes of a block with its metadata.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.block() + self.metadata()
    }

    /// Where interval `interval` of an image of `blocks` blocks has its data, and its metadata: bytes in
    /// the file that holds either.
    #[must_use]
    pub fn places(&self, blocks: u64, interval: u64) -> (u64, u64) {
        let format = &self.profile.format;
        let (data, metadata) = (u64_of(format.interval()), u64_of(format.metadata()));
        match self.layout {
            Layout::Interleaved => {
                let start = interval * (data + metadata);
                (start, start + data)
            }
            Layout::Separate => (interval * data, interval * metadata),
            Layout::NvmeQemu => {
                (interval * data, blocks * u64_of(self.block()) + interval * metadata)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dif::{Format, Guard, Place, ProtectionType};

    fn image(layout: Layout, block: usize, interval: usize, metadata: usize) -> Image {
        let format = Format::new(Guard::Crc16, interval).unwrap();
        let format = format.with_metadata(metadata, Place::Last).unwrap();
        Image::new(layout, block, Profile { format, kind: ProtectionType::Two }).unwrap()
    }

    #[test]
    fn places_are_those_of_the_layouts_picture() {
        // Four intervals a block: 512, 8, 512, 8, ... on the wire.
        let wire = image(Layout::Interleaved, 2048, 512, 8);
        assert_eq!((wire.stride(), wire.metadata()), (2080, 32));
        assert_eq!(wire.places(10, 5), (2600, 3112));
        assert_eq!(wire.with_layout(Layout::Separate).places(10, 5), (2560, 40));
        // QEMU: the table of metadata starts behind the data of all blocks.
        let nvme = image(Layout::NvmeQemu, 4096, 4096, 64);
        assert_eq!(nvme.places(1008, 3), (12_288, 1008 * 4096 + 192));
    }

    #[test]
    fn an_interval_is_a_power_of_two_part_of_its_block() {
        let format = Format::new(Guard::Crc16, 512).unwrap();
        let profile = Profile { format, kind: ProtectionType::One };
        for block in [0, 256, 768, 1536, 4608] {
            assert!(Image::new(Layout::Interleaved, block, profile).is_err(), "{block}");
        }
        for block in [512, 1024, 4096] {
            assert!(Image::new(Layout::Interleaved, block, profile).is_ok(), "{block}");
        }
    }
}
