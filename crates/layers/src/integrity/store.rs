//! The superblock while the volume is open: what of it changes, and how.
//!
//! Its fields lie in one sector, so a write leaves the old one or the new one. What lies behind them
//! stays as it was found; the version follows from the flags, and the MAC, if it has one, from all.

use super::Inner;
use ::integrity::mac::seal_superblock;
use ::integrity::superblock::{AREA_BYTES, SUPERBLOCK_BYTES, version_for};
use ::integrity::{Flags, Superblock};
use bio::{Bio, Buf, IoResult};
use checksum::Mac;
use runtime::RangeLock;
use std::cell::RefCell;
use units::Sector;

/// The superblock as it lies on the device.
pub(super) struct Stored {
    superblock: RefCell<Superblock>,
    area: RefCell<Box<[u8; AREA_BYTES]>>,
    mac: Option<Mac>,
    /// Held by whoever writes it.
    writing: RangeLock,
}

impl Stored {
    /// What was read: `area` decodes to `superblock` and carries the MAC.
    pub fn found(superblock: &Superblock, area: &[u8], mac: Option<Mac>) -> Self {
        let mut found = Box::new([0; AREA_BYTES]);
        found.copy_from_slice(area);
        let (superblock, area) = (RefCell::new(superblock.clone()), RefCell::new(found));
        Self { superblock, area, mac, writing: RangeLock::default() }
    }

    /// As it is on the device now.
    pub fn superblock(&self) -> Superblock {
        self.superblock.borrow().clone()
    }
}

impl Inner {
    /// Changes the superblock, durably. Crash: the old one, or the new one.
    ///
    /// # Errors
    /// What the device says; which of both is there is then unknown until it is changed again.
    pub(super) async fn change_superblock(&self, change: impl FnOnce(&mut Superblock)) -> IoResult {
        let _alone = self.stored.writing.lock(0..1).await;
        let mut superblock = self.stored.superblock();
        change(&mut superblock);
        let bitmap = superblock.flags.has(Flags::DIRTY_BITMAP);
        superblock.version = version_for(superblock.flags, self.layout.is_separate(), bitmap);
        let mut area = self.stored.area.borrow().clone();
        area[..SUPERBLOCK_BYTES].copy_from_slice(&superblock.encode());
        if let Some(mac) = &self.stored.mac {
            seal_superblock(&mut area, mac);
        }
        let bytes = Buf::copy_of(area.as_slice());
        self.metadata().submit(&mut Bio::write_fua(Sector::ZERO, bytes)).await?;
        self.stored.superblock.replace(superblock);
        self.stored.area.replace(area);
        Ok(())
    }
}
