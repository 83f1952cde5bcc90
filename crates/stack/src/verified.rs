//! Members whose tags are tuples, seen by whoever needs to know which of their blocks are right.

use bio::{Device, Events, NoProfile};
use layers::protect::{Options, Protect};
use layers::verify::Verify;

/// `member` with every tuple checked in passing, if it keeps tuples: then its blocks are vouched for as
/// those of a member with a hash are, and redundancy above heals by that. Mismatches go to `events`.
pub(crate) fn verified(member: Device, events: &Events) -> Device {
    match Verify::new(member.clone(), events.clone()) {
        Ok(verify) => Device::new(verify),
        Err(NoProfile) => member,
    }
}

/// `member` for whoever keeps superblocks, bitmaps and logs on it and gives no tuples: they are made, so that a
/// block of these that rots is noticed by [`verified`] as one of data is. Nothing changes for who gives
/// tuples, or where none are kept.
pub(crate) fn signed(member: Device, events: &Events) -> Device {
    // Reads are checked below.
    let options = Options { read_verify: false, ..Options::default() };
    match Protect::new(member.clone(), options, events.clone()) {
        Ok(protect) => Device::new(protect),
        Err(NoProfile) => member,
    }
}
