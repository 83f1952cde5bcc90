//! Every read and question by which the array and the layers on it check something, by what they check.
//!
//! That what a member answers was checked is what [`bio::Limits::verified`] promises of it; these are the
//! places where a layer relies on that, or asks more. Each is a constant here and nowhere else, so that the
//! simulator can leave out one after the other and must find what breaks (`cargo xtask sim --orderings`).

/// What a client is given, against the tag of the member that gives it.
pub(crate) const GIVEN: &str = "array: what a client is given, against its tag";
/// Old data and old parity, against their tags, before new parity is made from them.
pub(crate) const PARITY: &str = "raid456: old bytes against their tags, before parity";
/// A row, against its tags, before any of it is given out, compared, or reconstructed from the rest.
pub(crate) const ROW: &str = "raid456: a row against its tags, before it is believed";
/// What was reconstructed, against the damaged member's own tag, before it is written back.
pub(crate) const VOUCHED: &str = "raid456: the damaged block's own tag, before write-back";
/// A healed block, read again, before it counts as healed.
pub(crate) const HEALED: &str = "raid456: a healed block, read again";
/// A copy, against its tag, before others are compared with it or given it.
pub(crate) const COPY: &str = "mirror: a copy against its tag, before others are given it";
/// A copy, against the damaged member's own tag, before it is preferred to others.
pub(crate) const COPY_VOUCHED: &str =
    "mirror: the damaged copy's own tag, before another is chosen";
/// A copy that was put back, read again, before it counts as healed.
pub(crate) const COPY_HEALED: &str = "mirror: a healed copy, read again";

/// All of them.
pub const CHECKS: &[&str] = &[GIVEN, PARITY, ROW, VOUCHED, HEALED, COPY, COPY_VOUCHED, COPY_HEALED];
