//! Every flush that the array and the layers on it ask for, and every write with FUA of their own, by
//! what it must come before; see the integrity layer's list of the same name.

/// What a client wrote to the members, before its flush completes.
pub(crate) const PROMISE: &str = "array: members before a flush completes";
/// What was written to the members, before the superblocks say clean.
pub(super) const CLEAN: &str = "array: members before clean";
/// A member's superblock, before the next member's is touched and before what it announces.
pub(super) const SUPERBLOCK: &str = "array: a superblock before the next and before data";
/// What a member was filled with, before its superblock says that it holds it.
pub(super) const FILLED: &str = "array: what was rebuilt before it is claimed";
/// A copy of an unfinished write that is on every member now, before anybody is given it.
pub(crate) const AGREED: &str = "mirror: copies made to agree before they are read";

/// All of them.
pub const ORDERINGS: &[&str] = &[PROMISE, CLEAN, SUPERBLOCK, FILLED, AGREED];
