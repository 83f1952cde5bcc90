//! The superblock on the disk, and how it changes while the volume is open.
//!
//! Its fields lie in one sector, which a device stores whole or not at all: a crash leaves the old
//! one or the new one. What the new one says must be durable before it is written; that is for the
//! caller to see to.

use super::ordering::SUPERBLOCK;
use super::{Inner, Integrity, Journal};
use ::integrity::mac::seal_superblock;
use ::integrity::superblock::{AREA_BYTES, version_for};
use ::integrity::{Flags, Superblock};
use bio::{Buf, IoErrorKind};
use checksum::Mac;
use runtime::Semaphore;
use std::cell::RefCell;
use units::Sector;

/// The superblock's area as it lies on the disk.
pub(super) struct Area {
    /// The last that was written, or found.
    superblock: RefCell<Superblock>,
    bytes: RefCell<Box<[u8; AREA_BYTES]>>,
    /// What it is sealed with, if it is.
    mac: Option<Mac>,
    /// One change at a time.
    turn: Semaphore,
}

impl Area {
    /// That of an open volume. What of `bytes` is not the superblock's own is kept.
    pub fn new(superblock: &Superblock, bytes: [u8; AREA_BYTES], mac: Option<Mac>) -> Self {
        Self {
            superblock: RefCell::new(superblock.clone()),
            bytes: RefCell::new(Box::new(bytes)),
            mac,
            turn: Semaphore::new(1),
        }
    }

    /// The superblock as it is on the device now.
    pub fn superblock(&self) -> Superblock {
        self.superblock.borrow().clone()
    }
}

impl Integrity {
    /// Does `work` with the superblock as it is on the device now, and keeps it so meanwhile: modes
    /// and recalculation change it while the volume is open.
    pub async fn holding_superblock<T>(&self, work: impl AsyncFnOnce(Superblock) -> T) -> T {
        let area = &self.inner.area;
        let _turn = area.turn.acquire(1).await;
        work(area.superblock()).await
    }
}

impl Inner {
    /// Writes a changed superblock, sealed anew, durable when complete. If the device cannot be
    /// flushed, the volume takes no more writes.
    ///
    /// # Errors
    /// What the device says. It holds the old superblock or the new one then.
    pub(super) async fn change_superblock(
        &self,
        change: impl FnOnce(&mut Superblock),
    ) -> Result<(), IoErrorKind> {
        let area = &self.area;
        let _turn = area.turn.acquire(1).await;
        let mut superblock = area.superblock.borrow().clone();
        change(&mut superblock);
        let bitmap = superblock.flags.has(Flags::DIRTY_BITMAP);
        superblock.version = version_for(superblock.flags, self.layout.is_separate(), bitmap);
        let mut bytes = area.bytes.borrow().clone();
        let fields = superblock.encode();
        bytes[..fields.len()].copy_from_slice(&fields);
        if let Some(mac) = &area.mac {
            seal_superblock(&mut bytes, mac);
        }
        let written = self.metadata().write(Sector::ZERO, Buf::copy_of(bytes.as_slice())).await;
        written.map_err(|error| error.kind)?;
        self.flush_or_fail(SUPERBLOCK).await?;
        area.superblock.replace(superblock);
        area.bytes.replace(bytes);
        Ok(())
    }

    /// Flushes the device for the sake of `reason`. If it cannot, nothing can be promised any more, by
    /// anybody.
    ///
    /// # Errors
    /// What the device says now, or said to somebody else before: what it had taken until then is of
    /// unknown fate.
    pub(super) async fn flush_or_fail(&self, reason: &'static str) -> Result<(), IoErrorKind> {
        let flushed = self.lower.flush_for(reason).await.map_err(|error| error.kind);
        match &self.journal {
            Journal::Writing(writer) => {
                if let Err(kind) = flushed {
                    writer.fail(kind);
                }
                writer.failure().map_or(Ok(()), Err)
            }
            Journal::Direct(direct) => direct.not_failed(flushed),
            Journal::Inline(inline) => flushed.inspect_err(|kind| inline.fail(*kind)),
            Journal::Reading(_) => flushed,
        }
    }
}
