//! Flipped bits, in places that `explain` names.

use super::sample::mix;
use super::stage::Stage;
use crate::commands::open::close;
use crate::error::Failure;
use crate::exit::Outcome;
use stack::{Explanation, Place};
use std::collections::BTreeSet;
use std::fmt;
use units::{SECTOR, Sector};

/// The slots of the members that are damaged first.
const DAMAGED: [usize; 2] = [1, 4];
/// Sectors of the sample around which bits are flipped.
const PLACES: u64 = 400;
/// Sector of the md superblock, on what the array sees of a member (metadata 1.2).
const MD_SUPERBLOCK_SECTOR: u64 = 8;
/// A byte within the dm-integrity superblock: of the number of provided sectors.
const INTEGRITY_SUPERBLOCK_BYTE: u64 = 17;
/// A byte within the md superblock: of the array's UUID.
const MD_SUPERBLOCK_BYTE: u64 = 20;

/// How many bits were flipped, and where.
#[derive(Debug, Default)]
pub struct Damage {
    /// In data and parity.
    pub data: u64,
    /// In tags.
    pub tags: u64,
    /// In superblocks.
    pub superblocks: u64,
}

impl Damage {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.data + self.tags + self.superblocks
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bits on members 1 and 4: {} in data and parity, {} in tags, the dm-integrity \
             superblock of one, the md superblock of the other",
            self.total(),
            self.data,
            self.tags
        )
    }
}

/// Damages two members, all over the sample and in their superblocks.
pub async fn two_members(stage: &Stage) -> Result<Damage, Failure> {
    let volume = stage.open(true).await?;
    let mut explanations = Vec::new();
    for n in 0..PLACES {
        let sector = mix(n) % (stage.sample_bytes / SECTOR).max(1);
        explanations.push(stack::explain(&volume, Sector(sector)).await?);
    }
    close(volume, Ok(())).await?;

    let mut damage = Damage::default();
    // Each block and each tag once: a bit that is flipped twice is whole again.
    let mut done = BTreeSet::new();
    let places = explanations.iter().flat_map(|explanation| &explanation.places);
    for (n, place) in (0..).zip(places) {
        let Some((slot, byte, tag_byte)) = located(place).filter(|at| DAMAGED.contains(&at.0))
        else {
            continue;
        };
        let random = mix(u64::MAX - n);
        let bit = u32::try_from(random >> 32 & 7).unwrap_or_default();
        let block = byte / 4096;
        if !done.insert((slot, block)) {
            continue;
        }
        if random.is_multiple_of(3) {
            stage.flip(slot, tag_byte + random / 3 % 4, bit)?;
            damage.tags += 1;
        } else {
            stage.flip(slot, byte + random / 3 % SECTOR, bit)?;
            damage.data += 1;
        }
    }
    damage.superblocks = superblocks(stage, &explanations)?;
    Ok(damage)
}

/// Slot, first byte of the sector, and first byte of its block's tag.
fn located(place: &Place) -> Option<(usize, u64, u64)> {
    Some((place.slot?, place.data_byte?, place.tag.as_ref()?.tag_byte?))
}

fn superblocks(stage: &Stage, explanations: &[Explanation]) -> Result<u64, Failure> {
    stage.flip(DAMAGED[0], INTEGRITY_SUPERBLOCK_BYTE, 5)?;
    // The array's first data lies in the same run of data sectors as the md superblock before it.
    let nearest = explanations
        .iter()
        .flat_map(|explanation| &explanation.places)
        .filter(|place| place.slot == Some(DAMAGED[1]))
        .min_by_key(|place| place.member_sector);
    let (sector, byte) = nearest
        .and_then(|place| Some((place.member_sector, place.data_byte?)))
        .ok_or_else(|| Failure::new(Outcome::Failed, "the demo's file is too small"))?;
    let superblock = byte - (sector - MD_SUPERBLOCK_SECTOR) * SECTOR;
    stage.flip(DAMAGED[1], superblock + MD_SUPERBLOCK_BYTE, 2)?;
    Ok(2)
}

/// Damages one block on each of three members in one stripe: all three hold data, at one height, so
/// that P and Q cannot give them back. The lost ranges of the volume (byte, bytes), in order.
pub async fn one_stripe_too_much(stage: &Stage) -> Result<Vec<(u64, u64)>, Failure> {
    let volume = stage.open(true).await?;
    let status = volume.status();
    let chunk = u64::from(status.chunk_sectors.unwrap_or(8));
    let block = units::u64_of(status.block_bytes) / SECTOR;
    // A whole stripe in the middle of the sample.
    let stripe_sectors = chunk * 4;
    let first = stage.sample_bytes / SECTOR / 2 / stripe_sectors * stripe_sectors;
    let sectors = (0..3).map(|strip| first + strip * chunk + block);
    let mut lost = Vec::new();
    let mut flips = Vec::new();
    for sector in sectors {
        let explanation = stack::explain(&volume, Sector(sector)).await?;
        flips.extend(explanation.places.first().and_then(located));
        lost.push((sector * SECTOR, block * SECTOR));
    }
    close(volume, Ok(())).await?;
    for (slot, byte, _) in flips {
        // Two bits: one would be named by the CRC, and turned back.
        stage.flip(slot, byte + 100, 3)?;
        stage.flip(slot, byte + 200, 5)?;
    }
    Ok(lost)
}
