//! Rows of which nobody knows which part is right.
//!
//! A *row* is a sector of every member at the same address: data and its parity. Rows are numbered
//! as the members' sectors. What a crash or a failed write left untrue is the array's to know
//! ([`crate::array::Array::in_sync`]); what is kept here lies where redundancy should be true: all
//! tags valid, parity disagrees, and no unfinished write explains it.
//!
//! Only a row that is neither may give back a block that nothing else vouches for.

use crate::array::RangeSet;
use std::cell::RefCell;
use std::ops::Range;

/// The rows that are inconsistent. Nothing here does I/O.
#[derive(Default)]
pub(super) struct Doubts {
    rows: RefCell<RangeSet>,
}

impl Doubts {
    /// Whether nobody knows which part of some of `rows` is right.
    pub(super) fn overlap(&self, rows: &Range<u64>) -> bool {
        self.rows.borrow().overlaps(rows)
    }

    /// Nobody knows which part of `rows` is right. Whether that is news.
    pub(super) fn add(&self, rows: Range<u64>) -> bool {
        let mut known = self.rows.borrow_mut();
        let news = !known.contains(&rows);
        known.insert(rows);
        news
    }

    /// Parity of `rows` agrees with the data.
    pub(super) fn settle(&self, rows: Range<u64>) {
        self.rows.borrow_mut().remove(rows);
    }
}
