//! A member whose check that is left out always comes out well.
//!
//! | what is asked, for a reason that is left out | what is done |
//! |---|---|
//! | a read of verified bytes | they are read, whatever their tags say |
//! | whether a tag vouches | it does |
//! | a read of what was written for that reason | what was written is answered |
//!
//! So a layer that relies on a check finds nothing, as if it had not asked; and pays nothing for this.

use crate::ordering::Orderings;
use bio::{Allocation, Bio, BlockDevice, Device, IoResult, Limits, Op, Segments};
use layers::array::CHECKS;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use units::Sector;

/// The layer.
pub struct Unchecked {
    lower: Device,
    orderings: Rc<Orderings>,
    /// What was written for the reason that is left out, by its first sector.
    written: RefCell<BTreeMap<u64, (Segments, Segments)>>,
}

impl Unchecked {
    /// `lower`, without the check that `orderings` leaves out.
    #[must_use]
    pub fn over(lower: Device, orderings: &Rc<Orderings>) -> Device {
        let (orderings, written) = (Rc::clone(orderings), RefCell::default());
        Device::new(Self { lower, orderings, written })
    }

    async fn pretend(&self, bio: &mut Bio) -> IoResult {
        match bio.op {
            Op::Vouch => Ok(()),
            Op::Write { .. } => {
                let whole = (bio.data.to_single().into(), bio.tags.to_single().into());
                self.written.borrow_mut().insert(bio.sector.0, whole);
                self.lower.submit(bio).await
            }
            Op::Read => {
                if let Some((data, tags)) = self.written.borrow_mut().remove(&bio.sector.0) {
                    data.iter().for_each(|piece| bio.data.copy_from(0, piece.as_slice()));
                    tags.iter().for_each(|piece| bio.tags.copy_from(0, piece.as_slice()));
                    return Ok(());
                }
                // Nobody can be asked for unverified tags.
                if !self.limits().verified || !bio.tags.is_empty() {
                    return self.lower.submit(bio).await;
                }
                bio.op = Op::Peek { mend: false };
                let result = self.lower.submit(bio).await;
                bio.op = Op::Read;
                result
            }
            _ => self.lower.submit(bio).await,
        }
    }
}

impl BlockDevice for Unchecked {
    fn limits(&self) -> &Limits {
        self.lower.limits()
    }

    async fn submit(&self, bio: &mut Bio) -> IoResult {
        if CHECKS.contains(&bio.reason) && !self.orderings.honours(bio.reason) {
            return self.pretend(bio).await;
        }
        self.lower.submit(bio).await
    }

    async fn allocation(&self, sector: Sector, sectors: u64) -> IoResult<Vec<Allocation>> {
        self.lower.allocation(sector, sectors).await
    }
}
