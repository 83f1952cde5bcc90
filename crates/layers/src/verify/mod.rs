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
//! passes (the device below then stores escapes). What is
//! escaped passes, and vouches for nothing.

use bio::{Bio, BlockDevice, Buf, Device, Events, IoResult, Limits, NoProfile, Op, Segments};
use dif::Profile;

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
    async fn read(&self, bio: &mut Bio, check: impl FnOnce(&Bio) -> IoResult) -> IoResult {
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

    /// Whether the tuples below vouch for the request's data, which is not touched.
    async fn vouch(&self, bio: &Bio) -> IoResult {
        let mut stored = Bio::read(bio.sector, bio.sectors());
        let check = |stored: &Bio| {
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
            // Which bit of an interval turned is not looked for: what disagrees stays as it is.
            Op::Peek { mend: true } => self.read(bio, |bio| bio.vouched(&self.profile)).await,
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

#[cfg(test)]
mod tests;
