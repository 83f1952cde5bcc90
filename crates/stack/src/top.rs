//! The layer that makes members an array, chosen by level.

use crate::open::OpenError;
use bio::{Device, IoResult, LocalFuture, Scrub};
use layers::array::Array;
use layers::integrity::Integrity;
use layers::mirror::Mirror;
use layers::raid456::{CACHE_BYTES, Options, Raid456};
use md::geometry::Geometry;
use md::reshape::Sides;
use md::superblock::Superblock;
use std::rc::Rc;

/// The uppermost layer, whichever it is.
pub(crate) struct Top {
    pub device: Device,
    pub scrub: Option<Rc<dyn Scrub>>,
    resyncing: Box<dyn Fn() -> bool>,
    close: Box<dyn Fn() -> LocalFuture<'static, IoResult>>,
}

impl Top {
    /// A device without anything to check or to close.
    pub fn plain(device: Device) -> Self {
        let close = Box::new(|| -> LocalFuture<'static, IoResult> { Box::pin(async { Ok(()) }) });
        Self { device, scrub: None, resyncing: Box::new(|| false), close }
    }

    /// A single dm-integrity volume. It is closed as every member's is.
    pub fn integrity(layer: &Rc<Integrity>) -> Self {
        let scrub = Rc::clone(layer) as Rc<dyn Scrub>;
        Self { scrub: Some(scrub), ..Self::plain(layer.device()) }
    }

    /// The array whose superblock is `freshest`, over its members. A resync that is due starts in
    /// the background.
    ///
    /// # Errors
    /// What the layer refuses.
    pub fn over(array: &Rc<Array>, freshest: &Superblock, force: bool) -> Result<Self, OpenError> {
        let refuse = |why: String| OpenError::Array { why };
        let Some(geometry) = freshest.geometry() else {
            let layer = Mirror::new(Rc::clone(array)).map_err(|error| refuse(error.to_string()))?;
            layer.start();
            let (device, scrub) = (layer.device(), Rc::clone(&layer) as Rc<dyn Scrub>);
            let mirror = Rc::clone(&layer);
            let resyncing = Box::new(move || mirror.is_resyncing());
            let close = move || -> LocalFuture<'static, IoResult> {
                let layer = Rc::clone(&layer);
                Box::pin(async move { layer.close().await })
            };
            return Ok(Self { device, scrub: Some(scrub), resyncing, close: Box::new(close) });
        };
        let geometry = geometry.map_err(|error| refuse(error.to_string()))?;
        let options =
            Options { geometry, member_sectors: freshest.size(), force, cache_bytes: CACHE_BYTES };
        let layer = Raid456::new(array, &options).map_err(|error| refuse(error.to_string()))?;
        let layer = Rc::new(layer);
        if !array.read_only() {
            layer.start_resync();
        }
        let (device, scrub) = (Device::shared(Rc::clone(&layer)), Rc::clone(&layer));
        let parity = Rc::clone(&layer);
        let resyncing = Box::new(move || parity.is_resyncing());
        let close = move || -> LocalFuture<'static, IoResult> {
            let layer = Rc::clone(&layer);
            Box::pin(async move { layer.close().await })
        };
        Ok(Self { device, scrub: Some(scrub), resyncing, close: Box::new(close) })
    }

    /// The array in the middle of a change of shape, over the members as each shape has them. It is
    /// read only, and not scrubbed: a stripe belongs to one of two shapes, or to both.
    ///
    /// # Errors
    /// What the layer refuses.
    pub fn sides(
        before: &Rc<Array>,
        after: &Rc<Array>,
        sides: &Sides,
        member_sectors: u64,
    ) -> Result<Self, OpenError> {
        let refuse = |why: String| OpenError::Array { why };
        let shape = |array: &Rc<Array>, geometry: Geometry| -> Result<Device, OpenError> {
            let options =
                Options { geometry, member_sectors, force: false, cache_bytes: CACHE_BYTES };
            let layer = Raid456::new(array, &options).map_err(|error| refuse(error.to_string()))?;
            Ok(Device::new(layer))
        };
        let (before, after) = (shape(before, sides.before)?, shape(after, sides.after)?);
        let (below, above) = if sides.backwards { (before, after) } else { (after, before) };
        let sectors = sides.array_sectors(member_sectors).expect("each shape has its sectors");
        let block = below.limits().logical_block;
        if !block.divides(sides.position.0) {
            let (position, block) = (sides.position, block.bytes());
            let why = format!("the reshape stands at sector {position}, within a block of {block}");
            return Err(refuse(why));
        }
        Ok(Self::plain(Device::new(layers::sides::Sides::new(
            below,
            above,
            sides.position,
            sectors,
        ))))
    }

    /// Whether redundancy is being made true in the background.
    pub fn is_resyncing(&self) -> bool {
        (self.resyncing)()
    }

    /// Leaves the array as it should be left.
    ///
    /// # Errors
    /// What the layer says.
    pub async fn close(&self) -> IoResult {
        (self.close)().await
    }
}
