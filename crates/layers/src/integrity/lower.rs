//! What a volume lies on: one device, or one for the data and one for everything else.

use super::{Inner, both};
use ::integrity::layout::DeviceSectors;
use bio::{Device, IoResult};

/// The device of superblock, journal or bitmap and tags, and that of the data.
#[derive(Clone)]
pub struct Lower {
    /// Superblock, journal or bitmap, and tags; the data too unless it has a device of its own.
    pub metadata: Device,
    /// The data, if it lies on a device of its own: sector n of the volume is its sector n.
    pub data: Option<Device>,
}

impl Lower {
    /// The device that holds the data.
    #[must_use]
    pub fn data(&self) -> &Device {
        self.data.as_ref().unwrap_or(&self.metadata)
    }

    /// The sizes that a layout is computed from.
    #[must_use]
    pub fn sectors(&self) -> DeviceSectors {
        let metadata = self.metadata.limits().sectors;
        match &self.data {
            None => DeviceSectors::Interleaved(metadata),
            Some(data) => DeviceSectors::Separate { metadata, data: data.limits().sectors },
        }
    }

    /// Makes durable what was written to either, for the sake of an order ([`bio::Bio::flush_for`]).
    ///
    /// # Errors
    /// What a device says, the data's first.
    pub async fn flush_for(&self, reason: &'static str) -> IoResult {
        match &self.data {
            None => self.metadata.flush_for(reason).await,
            Some(data) => {
                let flushes = both(data.flush_for(reason), self.metadata.flush_for(reason));
                let (data, metadata) = flushes.await;
                data.and(metadata)
            }
        }
    }

    /// Whether either takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        self.metadata.limits().read_only || self.data().limits().read_only
    }
}

impl From<Device> for Lower {
    fn from(device: Device) -> Self {
        Self { metadata: device, data: None }
    }
}

impl Inner {
    /// The device that holds superblock, journal and tags.
    pub(super) fn metadata(&self) -> &Device {
        &self.lower.metadata
    }

    /// The device that holds the data.
    pub(super) fn data(&self) -> &Device {
        self.lower.data()
    }
}
