//! A layer, and how it is held.
//!
//! Durability, once for the whole house: a completed write is visible to every later read; when a
//! flush completes, every write that had completed before the flush was *submitted* is durable; a
//! write with `fua` is durable at completion; otherwise nothing is ordered. A write that failed, or
//! that a crash interrupted, leaves each logical block old, new or unreadable, never a mixture
//! within one logical block. That goes for a block's tags too, where the device keeps some: they are
//! part of the block ([`Bio`] has the rules).
//!
//! A submitted request runs to its end. Nothing cancels; a front end that loses its client detaches
//! its tasks.

use crate::{Bio, IoErrorKind, IoResult, Limits, Op};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use units::Sector;

/// A boxed future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A run of sectors and whether anything is stored there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allocation {
    /// Length in sectors, at least one.
    pub sectors: u64,
    /// Nothing is stored: the run takes no space and reads as zeroes.
    pub hole: bool,
}

/// A layer.
pub trait BlockDevice: 'static {
    /// What it can do, fixed for its life.
    fn limits(&self) -> &Limits;

    /// Runs `bio` to completion. Until then its buffers belong to whoever is doing the work.
    ///
    /// Called through [`Device::submit`] only, which has checked range, alignment and support.
    fn submit(&self, bio: &mut Bio) -> impl Future<Output = IoResult>;

    /// What is stored in `sectors` sectors from `sector` on: runs in order, covering at least the
    /// first sector and at most the range asked. Devices that do not know say "stored".
    fn allocation(
        &self,
        sector: Sector,
        sectors: u64,
    ) -> impl Future<Output = IoResult<Vec<Allocation>>> {
        let _ = sector;
        async move { Ok(vec![Allocation { sectors, hole: false }]) }
    }
}

trait Erased {
    fn limits(&self) -> &Limits;
    fn submit<'a>(&'a self, bio: &'a mut Bio) -> LocalFuture<'a, IoResult>;
    fn allocation(
        &self,
        sector: Sector,
        sectors: u64,
    ) -> LocalFuture<'_, IoResult<Vec<Allocation>>>;
}

impl<T: BlockDevice> Erased for T {
    fn limits(&self) -> &Limits {
        BlockDevice::limits(self)
    }
    fn submit<'a>(&'a self, bio: &'a mut Bio) -> LocalFuture<'a, IoResult> {
        Box::pin(BlockDevice::submit(self, bio))
    }
    fn allocation(
        &self,
        sector: Sector,
        sectors: u64,
    ) -> LocalFuture<'_, IoResult<Vec<Allocation>>> {
        Box::pin(BlockDevice::allocation(self, sector, sectors))
    }
}

/// How a layer is held: cheap to clone, no type parameters above it.
#[derive(Clone)]
pub struct Device(Rc<dyn Erased>);

impl Device {
    /// Holds `layer`.
    pub fn new(layer: impl BlockDevice) -> Self {
        Self(Rc::new(layer))
    }

    /// Holds a layer that somebody else holds too, by its own type.
    pub fn shared<T: BlockDevice>(layer: Rc<T>) -> Self {
        Self(layer)
    }

    /// What it can do.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        self.0.limits()
    }

    /// Runs `bio` to completion, after checking it once: range, alignment, tags, support.
    ///
    /// # Errors
    /// What the layer says; `Invalid` for a request that breaks the contract.
    pub async fn submit(&self, bio: &mut Bio) -> IoResult {
        self.check(bio)?;
        let before = (bio.data.len_bytes(), bio.tags.len_bytes());
        let result = self.0.submit(bio).await;
        let after = (bio.data.len_bytes(), bio.tags.len_bytes());
        debug_assert_eq!(before, after, "a layer gives back the buffers it took");
        result
    }

    /// Reads `sectors` sectors into one buffer.
    ///
    /// # Errors
    /// What the layer says.
    pub async fn read(&self, sector: Sector, sectors: u64) -> IoResult<crate::Buf> {
        let mut bio = Bio::read(sector, sectors);
        self.submit(&mut bio).await?;
        Ok(bio.data.into_single())
    }

    /// Writes `data`.
    ///
    /// # Errors
    /// What the layer says.
    pub async fn write(&self, sector: Sector, data: impl Into<crate::Segments>) -> IoResult {
        self.submit(&mut Bio::write(sector, data)).await
    }

    /// Flushes.
    ///
    /// # Errors
    /// What the layer says. A failed flush is never retried as success.
    pub async fn flush(&self) -> IoResult {
        self.submit(&mut Bio::flush()).await
    }

    /// Flushes for the sake of an order; see [`Bio::flush_for`].
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn flush_for(&self, reason: &'static str) -> IoResult {
        self.submit(&mut Bio::flush_for(reason)).await
    }

    /// What is stored where; see [`BlockDevice::allocation`].
    ///
    /// # Errors
    /// `Invalid` outside the device or for an empty range; else what the layer says.
    pub async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        let end = sector.0.checked_add(sectors);
        if sectors == 0 || end.is_none_or(|end| end > self.limits().sectors) {
            return Err(IoErrorKind::Invalid.at(sector));
        }
        self.0.allocation(sector, sectors).await
    }

    fn check(&self, bio: &Bio) -> IoResult {
        let limits = self.limits();
        let refuse = |kind: IoErrorKind| Err(kind.at(bio.sector));
        if !self.tags_fit(bio) {
            return refuse(IoErrorKind::Invalid);
        }
        if bio.op == Op::Flush {
            return Ok(());
        }
        let bytes = bio.data.len_bytes();
        if bio.op.has_data() && (bytes == 0 || !bytes.is_multiple_of(limits.logical_block.bytes()))
        {
            return refuse(IoErrorKind::Invalid);
        }
        let sectors = bio.sectors();
        if !limits.logical_block.divides(bio.sector.0) || !limits.logical_block.divides(sectors) {
            return refuse(IoErrorKind::Invalid);
        }
        let end = bio.sector.0.checked_add(sectors);
        if sectors == 0 || end.is_none_or(|end| end > limits.sectors) {
            return refuse(IoErrorKind::Invalid);
        }
        if bio.op.is_write() && limits.read_only {
            return refuse(IoErrorKind::ReadOnly);
        }
        let unsupported = match bio.op {
            Op::Discard { .. } => !limits.discard,
            Op::Vouch | Op::Peek { .. } => !limits.verified,
            _ => false,
        };
        if unsupported { refuse(IoErrorKind::Unsupported) } else { Ok(()) }
    }

    /// Whether the tags are such as [`Bio`] says: none, or all that the device keeps for the data.
    fn tags_fit(&self, bio: &Bio) -> bool {
        let tags = bio.tags.len_bytes();
        if tags == 0 {
            return true;
        }
        let limits = self.limits();
        let blocks = bio.data.len_bytes() / limits.logical_block.bytes();
        matches!(bio.op, Op::Read | Op::Write { .. } | Op::Peek { .. })
            && blocks.checked_mul(limits.tag_size) == Some(tags)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(self.limits()).finish()
    }
}
