//! Do the tags of a dm-integrity volume mean what we think? A look at a few written blocks.
//!
//! The superblock has no checksum, and the algorithm is not on disk at all: with another algorithm,
//! or with one flipped bit in the salt or the interleave, everything decodes and every tag is
//! wrong. So before a volume is believed, some of its blocks must verify. A few that do not are
//! ordinary damage; all of them not is a superblock that lies.
//!
//! ```text
//!   sampled:  hints (where something must have been written), both ends, and evenly between
//!   a block:  tag all zero             -> unwritten, says nothing
//!             tag is 0xf6 throughout   -> discarded by the kernel, says nothing
//!             tag fits the data        -> verified
//!             else                     -> refuted
//! ```

use crate::tags;
use bio::{Device, IoError};
use checksum::DISCARD_FILLER;
use integrity::Layout;
use layers::integrity::{Evidence, Lower, Tagger};
use runtime::join_all;
use std::collections::BTreeSet;
use units::{SECTOR, Sector, u64_of, usize_of};

/// What the samples said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Trial {
    /// Blocks whose tag fits.
    pub verified: u32,
    /// Blocks with a tag that does not fit.
    pub refuted: u32,
    /// Blocks that were never written, or discarded: no evidence.
    pub unwritten: u32,
    /// Blocks that could not be read.
    pub unreadable: u32,
    /// Tags that fit by accident are as rare as two to the power of minus this, each.
    tag_bits: u32,
}

/// What a [`Trial`] amounts to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Belief {
    /// The tags are what we take them for.
    Proven,
    /// Nothing was ever written, as far as the samples reach.
    Nothing,
    /// Something was written, and nothing verifies.
    Refuted,
}

impl Trial {
    /// What it amounts to. Tags fit by accident too: four times as many as accident explains do
    /// not count, and the rest must make 32 bits together.
    #[must_use]
    pub const fn belief(&self) -> Belief {
        let written = self.verified as u64 + self.refuted as u64;
        let accidental = 4 * (written >> self.tag_bits);
        let evidence = (self.verified as u64).saturating_sub(accidental);
        if evidence * self.tag_bits as u64 >= EVIDENCE_BITS {
            Belief::Proven
        } else if self.refuted > 0 {
            Belief::Refuted
        } else {
            Belief::Nothing
        }
    }
}

/// Looks at blocks of the volume that `layout` describes on `lower`, without its journal, and asks
/// each of the taggers: one [`Trial`] for each of them, of the same blocks. `hints` are sectors of it where something must have been written, if it lies where we think.
///
/// # Errors
/// A device that fails as a whole. Blocks that cannot be read are counted instead.
pub async fn trials(
    lower: &Lower,
    layout: &Layout,
    taggers: &[Tagger],
    hints: &[Sector],
) -> Result<Vec<Trial>, IoError> {
    // A second, wider look only if the first found nothing to go by.
    sample(lower, layout, taggers, hints, &[SAMPLES, WIDER_SAMPLES]).await
}

/// The same with a handful of blocks: enough to drop a wrong guess, not to believe a right one.
///
/// # Errors
/// As [`trials`].
pub async fn trials_quick(
    lower: &Lower,
    layout: &Layout,
    taggers: &[Tagger],
    hints: &[Sector],
) -> Result<Vec<Trial>, IoError> {
    sample(lower, layout, taggers, hints, &[QUICK_SAMPLES]).await
}

async fn sample(
    lower: &Lower,
    layout: &Layout,
    taggers: &[Tagger],
    hints: &[Sector],
    counts: &[u64],
) -> Result<Vec<Trial>, IoError> {
    let none = |tagger: &Tagger| Trial { tag_bits: tagger.evidence_bits(), ..Trial::default() };
    let mut sums: Vec<Trial> = taggers.iter().map(none).collect();
    for &count in counts {
        let blocks: Vec<u64> = sample_blocks(layout, hints, count).into_iter().collect();
        for batch in blocks.chunks(usize_of(BATCH)) {
            let looks = batch.iter().map(|&block| look(lower, layout, taggers, block));
            for seen in join_all(looks).await {
                sums.iter_mut().zip(seen?).for_each(|(sum, seen)| sum.count(seen));
            }
        }
        if sums.iter().any(|sum| sum.belief() == Belief::Proven) {
            break;
        }
    }
    Ok(sums)
}

/// What one block said to one tagger.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    Verified,
    Refuted,
    Unwritten,
    Unreadable,
}

impl Trial {
    /// Whether more than every fifth block does not verify: worse than ordinary damage. A volume
    /// that was never wiped looks like this, and so does a wrong interleave, whose first run is
    /// where it should be.
    #[must_use]
    pub const fn is_suspicious(&self) -> bool {
        (self.refuted as u64 + self.unwritten as u64) * 4 > self.verified as u64
    }

    /// Whether most written blocks do not verify.
    #[must_use]
    pub const fn is_mostly_refuted(&self) -> bool {
        self.refuted > self.verified
    }

    const fn count(&mut self, seen: Seen) {
        match seen {
            Seen::Verified => self.verified += 1,
            Seen::Refuted => self.refuted += 1,
            Seen::Unwritten => self.unwritten += 1,
            Seen::Unreadable => self.unreadable += 1,
        }
    }
}

fn sample_blocks(layout: &Layout, hints: &[Sector], count: u64) -> BTreeSet<u64> {
    let blocks = layout.provided_sectors / layout.block.sectors();
    let hinted = hints.iter().map(|hint| hint.0 / layout.block.sectors());
    let spread = (0..count).map(|i| {
        let at = u128::from(blocks.saturating_sub(1)) * u128::from(i) / u128::from(count - 1);
        u64::try_from(at).expect("at most the last block")
    });
    hinted.chain(spread).filter(|&block| block < blocks).collect()
}

/// What `block` says to each of the taggers.
async fn look(
    lower: &Lower,
    layout: &Layout,
    taggers: &[Tagger],
    block: u64,
) -> Result<Vec<Seen>, IoError> {
    let all = |seen| Ok(vec![seen; taggers.len()]);
    let sectors = layout.block.sectors();
    let sector = Sector(block * sectors);
    let run = layout.run(sector, sectors);
    let tag = tags::stored(lower, layout, &run).await?;
    let Some(tag) = tag else { return all(Seen::Unreadable) };
    if tag.iter().all(|&byte| byte == 0) || tag.iter().all(|&byte| byte == DISCARD_FILLER) {
        return all(Seen::Unwritten);
    }
    let data = read_bytes(lower.data(), run.data.bytes(), layout.block.bytes()).await?;
    let Some(data) = data else { return all(Seen::Unreadable) };
    let ask = |tagger: &Tagger| match tagger.evidence(sector.0, &data, &tag) {
        Evidence::Fits => Seen::Verified,
        Evidence::Differs => Seen::Refuted,
        Evidence::None => Seen::Unwritten,
    };
    Ok(taggers.iter().map(ask).collect())
}

/// Bytes from anywhere on a device; none: damaged there.
pub async fn read_bytes(
    device: &Device,
    offset: u64,
    length: usize,
) -> Result<Option<Vec<u8>>, IoError> {
    let block = u64_of(device.limits().logical_block.bytes());
    let start = offset / block * block;
    let end = (offset + u64_of(length)).div_ceil(block) * block;
    match device.read(Sector(start / SECTOR), (end - start) / SECTOR).await {
        Ok(buf) => {
            let from = usize_of(offset - start);
            Ok(Some(buf.as_slice()[from..from + length].to_vec()))
        }
        Err(error) if error.kind.is_damage() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Blocks looked at to drop a guess.
const QUICK_SAMPLES: u64 = 4;
/// Blocks looked at first.
const SAMPLES: u64 = 64;
/// Blocks looked at if those said nothing.
const WIDER_SAMPLES: u64 = 1024;
/// Blocks looked at together.
const BATCH: u64 = 32;
/// Bits of tag that must fit before it is no accident.
const EVIDENCE_BITS: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{TestDevice, noise};
    use checksum::{Algorithm, BlockTagger};
    use integrity::FormatOptions;
    use integrity::layout::DeviceSectors;
    use layers::integrity::TagSource;
    use units::BlockSize;

    const SECTORS: u64 = 8192;

    struct Volume {
        disk: TestDevice,
        layout: Layout,
        tagger: BlockTagger,
    }

    /// A volume on which `written` blocks hold noise with the tags that belong to it.
    fn volume(tag_size: u16, written: impl Fn(u64) -> bool) -> Volume {
        let options = FormatOptions::new(BlockSize::B4096, tag_size, [9; 16]);
        let (superblock, layout) =
            integrity::format(DeviceSectors::Interleaved(SECTORS), &options).unwrap();
        let tagger = crc32c(superblock.salt).with_tag_bytes(layout.tag_bytes);
        let mut image = vec![0; usize_of(SECTORS * SECTOR)];
        for block in (0..layout.provided_sectors / 8).filter(|&block| written(block)) {
            let run = layout.run(Sector(block * 8), 8);
            let data = noise(4096, block);
            let at = usize_of(run.tag_byte);
            tagger.tags(block * 8, &data, &mut image[at..at + layout.tag_bytes]);
            let at = usize_of(run.data.bytes());
            image[at..at + 4096].copy_from_slice(&data);
        }
        Volume { disk: TestDevice::of(image, BlockSize::B512), layout, tagger }
    }

    fn crc32c(salt: [u8; 16]) -> BlockTagger {
        BlockTagger::new(Algorithm::Crc32c, None, Some(salt), BlockSize::B4096).unwrap()
    }

    fn belief(volume: &Volume, tagger: &BlockTagger, hints: &'static [Sector]) -> Belief {
        tried(volume, tagger, hints).belief()
    }

    fn tried(volume: &Volume, tagger: &BlockTagger, hints: &'static [Sector]) -> Trial {
        let (device, layout) = (volume.disk.clone(), volume.layout);
        let taggers = [Tagger::Hash(tagger.clone())];
        runtime::block_on(async move {
            trials(&device.device().into(), &layout, &taggers, hints).await.unwrap()[0]
        })
    }

    #[test]
    fn a_volume_in_use_is_proven_and_another_salt_refuted() {
        let volume = volume(4, |_| true);
        assert_eq!(belief(&volume, &volume.tagger, &[]), Belief::Proven);
        let other = crc32c([8; 16]);
        assert_eq!(belief(&volume, &other, &[]), Belief::Refuted);
    }

    #[test]
    fn an_empty_volume_says_nothing() {
        let volume = volume(4, |_| false);
        assert_eq!(belief(&volume, &volume.tagger, &[]), Belief::Nothing);
    }

    #[test]
    fn one_written_block_is_found_by_its_hint_or_by_the_wider_look() {
        let volume = volume(4, |block| block == 1);
        assert_eq!(belief(&volume, &volume.tagger, &[Sector(8)]), Belief::Proven);
        assert_eq!(belief(&volume, &volume.tagger, &[]), Belief::Proven);
    }

    #[test]
    fn damaged_samples_do_not_refute_a_volume() {
        let volume = volume(4, |_| true);
        for block in 0..100 {
            let run = volume.layout.run(Sector(block * 8), 8);
            volume.disk.flip(usize_of(run.data.bytes()), 1);
        }
        volume.disk.make_bad(volume.layout.run(Sector(800), 8).data.0);
        assert_eq!(belief(&volume, &volume.tagger, &[]), Belief::Proven);
    }

    #[test]
    fn short_tags_need_more_blocks() {
        let volume = volume(1, |_| true);
        assert_eq!(belief(&volume, &volume.tagger, &[]), Belief::Proven);
        // Of a thousand wrong tags of one byte, about four fit by accident.
        let other = crc32c([8; 16]).with_tag_bytes(1);
        let one = tried(&volume, &other, &[]);
        assert!(one.refuted > 500 && one.belief() == Belief::Refuted, "{one:?}");
    }

    #[test]
    fn the_same_blocks_tell_algorithms_apart() {
        let volume = volume(4, |_| true);
        let named = |algorithm| {
            Tagger::new(TagSource::Hash(algorithm), None, Some([9; 16]), BlockSize::B4096, 4)
                .unwrap()
        };
        let taggers: Vec<Tagger> = Algorithm::UNKEYED.iter().copied().map(named).collect();
        let (device, layout) = (volume.disk.clone(), volume.layout);
        let found = runtime::block_on(async move {
            trials(&device.device().into(), &layout, &taggers, &[]).await.unwrap()
        });
        for (algorithm, trial) in Algorithm::UNKEYED.iter().zip(found) {
            let right = *algorithm == Algorithm::Crc32c;
            let expected = if right { Belief::Proven } else { Belief::Refuted };
            assert_eq!(trial.belief(), expected, "{algorithm}");
        }
    }
}
