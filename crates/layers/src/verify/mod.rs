//! Checks protection information in passing: between any two layers.
//!
//! ```text
//!   write  data + tuples --> checked --> below         refused here, while its owner still has the data
//!   read   data + tuples <-- checked <-- below
//! ```
//!
//! It stores nothing and makes nothing: what it is given, or what is kept below, has to agree. A read
//! without tags asks for them and checks all the same, so above this layer a device of tuples is one whose
//! every byte is verified: redundancy above it heals by that. A write without tags has nothing to check and
//! passes (the device below then stores escapes). What is escaped passes, and vouches for nothing.

use bio::{Bio, BlockDevice, Buf, Device, Events, IoResult, Limits, NoProfile, Op, Segments};
use dif::{Profile, Tag};
use units::usize_of;

/// The layer.
pub struct Verify {
    lower: Device,
    profile: Profile,
    limits: Limits,
    events: Events,
}

impl Verify {
    /// Checks what passes to and from `lower`; mismatches go to `events`.
    ///
    /// # Errors
    /// [`NoProfile`].
    pub fn new(lower: Device, events: Events) -> Result<Self, NoProfile> {
        let mut limits = lower.limits().clone();
        let profile = limits.protection.ok_or(NoProfile)?;
        limits.verified = true;
        Ok(Self { lower, profile, limits, events })
    }

    fn check(&self, bio: &Bio) -> IoResult {
        bio.verify_telling(&self.profile, &self.events)
    }

    /// Reads data with tags, asked for or not, and shows both to `check`.
    async fn read(&self, bio: &mut Bio, check: impl FnOnce(&mut Bio) -> IoResult) -> IoResult {
        let asked = !bio.tags.is_empty();
        if !asked {
            let blocks = bio.data.len_bytes() / self.limits.logical_block.bytes();
            bio.tags = Buf::alloc(blocks * self.limits.tag_size).into();
        }
        let op = std::mem::replace(&mut bio.op, Op::Read);
        let result = self.lower.submit(bio).await.and_then(|()| check(bio));
        bio.op = op;
        if !asked {
            bio.tags = Segments::default();
        }
        result
    }

    /// Turns the one bit in each interval whose guard disagrees that makes it agree.
    ///
    /// Only where that says something: one of 16 arbitrarily damaged intervals of 512 bytes looks to CRC-16 as if
    /// one bit had been turned, and every second of 4096. To the wider guards one of a million does, or fewer.
    ///
    /// # Errors
    /// `Protection` at the first interval that no single bit explains, or that is escaped.
    fn mend(&self, bio: &mut Bio) -> IoResult {
        let format = &self.profile.format;
        if format.guard().bytes() < WIDE_BYTES {
            return bio.vouched(&self.profile);
        }
        let mut wrong = Vec::new();
        // The verdict is in the list, and given anew below.
        let _ = bio.verify(&self.profile, |mismatch| wrong.push(mismatch));
        let covered = format.interval() + format.covered_metadata();
        for mismatch in wrong.iter().filter(|mismatch| mismatch.tag == Tag::Guard) {
            let (stored, computed) = (mismatch.stored, mismatch.expected);
            let bit = format.guard().flipped_bit(stored, computed, covered);
            let Some(bit) = bit else { continue };
            let (index, byte) = (usize_of(mismatch.interval), bit / 8);
            // The guard covers the data, then the owner's bytes before the tuple.
            let (bytes, at) = match byte.checked_sub(format.interval()) {
                None => (&mut bio.data, index * format.interval() + byte),
                Some(owner) => (&mut bio.tags, index * format.metadata() + owner),
            };
            let mut turned = [0];
            bytes.copy_to(at, &mut turned);
            turned[0] ^= 1 << (bit % 8);
            bytes.copy_from(at, &turned);
        }
        bio.vouched(&self.profile)
    }

    /// Whether the tuples below vouch for the request's data, which is not touched.
    async fn vouch(&self, bio: &Bio) -> IoResult {
        let mut stored = Bio::read(bio.sector, bio.sectors());
        let check = |stored: &mut Bio| {
            let given = Bio::write(bio.sector, bio.data.clone()).tagged(stored.tags.clone());
            given.vouched(&self.profile)
        };
        self.read(&mut stored, check).await
    }
}

impl BlockDevice for Verify {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Write { .. } if !bio.tags.is_empty() => {
                self.check(bio)?;
                self.lower.submit(bio).await
            }
            Op::Read => self.read(bio, |bio| self.check(bio)).await,
            Op::Vouch => self.vouch(bio).await,
            Op::Peek { mend: false } => self.read(bio, |_| Ok(())).await,
            Op::Peek { mend: true } => self.read(bio, |bio| self.mend(bio)).await,
            _ => self.lower.submit(bio).await,
        }
    }

    async fn allocation(
        &self,
        sector: units::Sector,
        sectors: u64,
    ) -> IoResult<Vec<bio::Allocation>> {
        self.lower.allocation(sector, sectors).await
    }
}

/// Bytes of a guard to which a bit that explains a difference is no accident.
const WIDE_BYTES: usize = 4;

#[cfg(test)]
mod tests;
