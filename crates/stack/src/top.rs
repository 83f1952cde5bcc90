//! The layer that makes members an array, chosen by level.

use crate::open::OpenError;
use crate::write_journal::WriteJournal;
use bio::{Device, Events, IoResult, LocalFuture, Scrub};
use layers::array::Array;
use layers::integrity::Integrity;
use layers::mirror::{Mirror, Placement};
use layers::protect::{Options as ProtectOptions, Protect};
use layers::raid456::{CACHE_BYTES, Journal, Options, Raid456};
use layers::striped::Striped;
use md::geometry::{Geometry, Stripes};
use md::reshape::Sides;
use md::shape::Shape;
use std::fmt::Display;
use std::rc::Rc;

/// The uppermost layer, whichever it is.
pub(crate) struct Top {
    pub device: Device,
    pub scrub: Option<Rc<dyn Scrub>>,
    /// The write journal that lies over it.
    pub journal: Option<WriteJournal>,
    resyncing: Box<dyn Fn() -> bool>,
    close: Box<dyn Fn() -> LocalFuture<'static, IoResult>>,
}

impl Top {
    /// A device without anything to check or to close.
    pub fn plain(device: Device) -> Self {
        let close = Box::new(|| -> LocalFuture<'static, IoResult> { Box::pin(async { Ok(()) }) });
        let resyncing = Box::new(|| false);
        Self { device, scrub: None, journal: None, resyncing, close }
    }

    /// A single dm-integrity volume. It is closed as every member's is.
    pub fn integrity(layer: &Rc<Integrity>) -> Self {
        let scrub = Rc::clone(layer) as Rc<dyn Scrub>;
        Self { scrub: Some(scrub), ..Self::plain(layer.device()) }
    }

    /// The array of this shape over its members. What a partial parity log asks for is done, what is in the
    /// journal through which it is written comes home; a resync that is due starts in the background.
    ///
    /// # Errors
    /// What the layer refuses.
    pub async fn over(
        array: &Rc<Array>,
        shape: Shape,
        force: bool,
        journal: Option<&Journal>,
    ) -> Result<Self, OpenError> {
        match shape {
            Shape::Stripes(stripes) => Self::striped(array, stripes),
            Shape::Mirror { .. } => Self::mirror(array, Placement::Everywhere),
            Shape::Mirrors(mirrors) => Self::mirror(array, Placement::Dealt(mirrors)),
            Shape::Parity(geometry, member_sectors) => {
                let cache_bytes = CACHE_BYTES;
                let options = Options { geometry, member_sectors, force, cache_bytes };
                Self::parity(array, &options, journal).await
            }
        }
    }

    fn striped(array: &Rc<Array>, stripes: Stripes) -> Result<Self, OpenError> {
        let layer = Striped::new(Rc::clone(array), stripes).map_err(refuse)?;
        let (device, scrub) = (layer.device(), Rc::clone(&layer) as Rc<dyn Scrub>);
        let close = move || -> LocalFuture<'static, IoResult> {
            let layer = Rc::clone(&layer);
            Box::pin(async move { layer.close().await })
        };
        Ok(Self { scrub: Some(scrub), close: Box::new(close), ..Self::plain(device) })
    }

    fn mirror(array: &Rc<Array>, placement: Placement) -> Result<Self, OpenError> {
        let layer = Mirror::new(Rc::clone(array), placement).map_err(refuse)?;
        layer.start();
        let (device, scrub) = (layer.device(), Rc::clone(&layer) as Rc<dyn Scrub>);
        let mirror = Rc::clone(&layer);
        let resyncing = Box::new(move || mirror.is_resyncing());
        let close = move || -> LocalFuture<'static, IoResult> {
            let layer = Rc::clone(&layer);
            Box::pin(async move { layer.close().await })
        };
        let close = Box::new(close);
        Ok(Self { scrub: Some(scrub), resyncing, close, ..Self::plain(device) })
    }

    async fn parity(
        array: &Rc<Array>,
        options: &Options,
        journal: Option<&Journal>,
    ) -> Result<Self, OpenError> {
        let layer = Rc::new(Raid456::journalled(array, options, journal).map_err(refuse)?);
        layer.replay().await.map_err(refuse)?;
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
        let close = Box::new(close);
        Ok(Self { scrub: Some(scrub), resyncing, close, ..Self::plain(device) })
    }

    /// The array with what only its write journal has.
    #[must_use]
    pub fn with_journal(self, journal: &WriteJournal) -> Self {
        let device = journal.over_array(self.device);
        Self { device, journal: Some(journal.clone()), ..self }
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
        let shape = |array: &Rc<Array>, geometry: Geometry| -> Result<Device, OpenError> {
            let options =
                Options { geometry, member_sectors, force: false, cache_bytes: CACHE_BYTES };
            Ok(Device::new(Raid456::new(array, &options).map_err(refuse)?))
        };
        let (before, after) = (shape(before, sides.before)?, shape(after, sides.after)?);
        let (below, above) = if sides.backwards { (before, after) } else { (after, before) };
        let sectors = sides.array_sectors(member_sectors).expect("each shape has its sectors");
        let block = below.limits().logical_block;
        if !block.divides(sides.position.0) {
            let (position, block) = (sides.position, block.bytes());
            let why = format!("the reshape stands at sector {position}, within a block of {block}");
            return Err(OpenError::Array { why });
        }
        Ok(Self::plain(Device::new(layers::sides::Sides::new(
            below,
            above,
            sides.position,
            sectors,
        ))))
    }

    /// The same with tuples made for whoever gives none and checked for whoever asks for none, if that is
    /// what it keeps beside its blocks. Mismatches go to `events`.
    pub fn protected(mut self, events: &Events) -> Self {
        let protect = Protect::new(self.device.clone(), ProtectOptions::default(), events.clone());
        if let Ok(protect) = protect {
            self.device = Device::new(protect);
        }
        self
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

fn refuse(why: impl Display) -> OpenError {
    OpenError::Array { why: why.to_string() }
}
