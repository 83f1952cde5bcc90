//! One member of a running array.

use super::Found;
use bio::{Device, Events};
use md::superblock::{DeviceFlags, Superblock};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use units::Sector;

/// One member of a running array: complete, and holding its slot until it fails.
pub struct Member {
    slot: usize,
    name: Rc<str>,
    device: Device,
    data: Device,
    data_offset: Sector,
    superblock: RefCell<Option<Superblock>>,
    events: Events,
    failed: Cell<bool>,
    /// Sectors corrected since the superblock was written.
    corrected: Cell<u32>,
}

impl Member {
    pub(super) fn new(found: Found, events: &Events) -> Self {
        let events = events.for_member(&found.name);
        let data_offset = found.superblock.as_ref().map_or(Sector::ZERO, Superblock::data_offset);
        Self {
            slot: found.slot,
            name: found.name,
            device: found.device,
            data: found.data,
            data_offset,
            superblock: RefCell::new(found.superblock),
            events,
            failed: Cell::new(false),
            corrected: Cell::new(0),
        }
    }

    /// Its slot.
    #[must_use]
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// How people call it.
    #[must_use]
    pub fn name(&self) -> &Rc<str> {
        &self.name
    }

    /// The whole of it, superblock included.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its data.
    #[must_use]
    pub fn data(&self) -> &Device {
        &self.data
    }

    /// Where sector `sector` of its data lies on the whole of it: the address for events, the same
    /// that the layers below use.
    #[must_use]
    pub fn place(&self, sector: Sector) -> Sector {
        self.data_offset + sector.0
    }

    /// Events that happen on it.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Its superblock as last written.
    #[must_use]
    pub fn superblock(&self) -> Option<Superblock> {
        self.superblock.borrow().clone()
    }

    /// Whether others should be read first, as its superblock asks.
    #[must_use]
    pub fn write_mostly(&self) -> bool {
        let superblock = self.superblock.borrow();
        let flags = superblock.as_ref().map(Superblock::device_flags);
        flags.is_some_and(|flags| flags.contains(DeviceFlags::WRITE_MOSTLY))
    }

    /// Whether it no longer takes part.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    pub(super) fn set_failed(&self) {
        self.failed.set(true);
    }

    pub(super) fn set_superblock(&self, superblock: Superblock) {
        *self.superblock.borrow_mut() = Some(superblock);
    }

    pub(super) fn count_corrected(&self, sectors: u64) {
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX);
        self.corrected.set(self.corrected.get().saturating_add(sectors));
    }

    pub(super) fn take_corrected(&self) -> u32 {
        self.corrected.take()
    }
}
