//! The journal of a read-only opening: what it holds is laid over the data, and stays where it is.
//!
//! Only the index is in memory; sections are read again when needed, a few are kept.

use super::codec::Codec;
use super::section::Section;
use ::integrity::layout::JournalLayout;
use bio::{Bio, Device, IoResult};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Where the newest copy of a block lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub section: u32,
    pub entry: u32,
    /// Replay would write it home. If not, a part of the journal is damaged, and nobody knows
    /// whether this or what is at home is newer: only if both agree may it be given out.
    pub certain: bool,
}

/// Everything that the journal holds.
pub(super) struct Overlay {
    lower: Device,
    layout: JournalLayout,
    codec: Rc<Codec>,
    places: HashMap<u64, Place>,
    recent: RefCell<VecDeque<Rc<Section>>>,
}

impl Overlay {
    pub fn new(
        lower: Device,
        layout: JournalLayout,
        codec: Rc<Codec>,
        places: HashMap<u64, Place>,
    ) -> Self {
        Self { lower, layout, codec, places, recent: RefCell::default() }
    }

    /// Where the newest copy of the block at `sector` lies, if the journal has one.
    pub fn find(&self, sector: u64) -> Option<Place> {
        self.places.get(&sector).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Section `number`, from memory if it was read lately and `bypass` is not asked for.
    pub async fn section(&self, number: u32, bypass: bool) -> IoResult<Rc<Section>> {
        let found = self.recent.borrow().iter().find(|kept| kept.number == number).map(Rc::clone);
        if let Some(section) = found
            && !bypass
        {
            return Ok(section);
        }
        let start = self.layout.section_start(number);
        let mut bio = Bio::read(start, self.layout.section_sectors);
        bio.bypass = bypass;
        self.lower.submit(&mut bio).await?;
        let mut bytes = bio.data.into_single();
        self.codec.open(number, &mut bytes);
        let section = Section::found(number, bytes, Vec::new());
        let mut recent = self.recent.borrow_mut();
        recent.retain(|kept| kept.number != number);
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Rc::clone(&section));
        Ok(section)
    }
}

/// Sections kept in memory.
const RECENT_MAX: usize = 8;
