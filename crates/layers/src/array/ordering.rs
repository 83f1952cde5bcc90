//! Every flush that the array and the layers on it ask for, and every write with FUA of their own, by
//! what it must come before; see the integrity layer's list of the same name.

/// What a client wrote to the members, before its flush completes.
pub(crate) const PROMISE: &str = "array: members before a flush completes";
/// What was written to the members, before the superblocks say clean.
pub(super) const CLEAN: &str = "array: members before clean";
/// A member's superblock, before the next member's is touched and before what it announces.
pub(super) const SUPERBLOCK: &str = "array: a superblock before the next and before data";
/// A bit of the bitmap on every member, before the data that it is for.
pub(super) const INTENT: &str = "array: a bit on every member before data";
/// What was written to the members, before bits that call it unfinished are cleared.
pub(super) const CLEARED: &str = "array: members before bits are cleared";
/// A member's header of the bitmap, before its superblock.
pub(super) const HEADER: &str = "array: the bitmap's header before the superblock";
/// Since when bits were cleared, before they are.
pub(super) const EPOCH: &str = "array: events_cleared before bits are cleared";
/// The bits of a bitmap that is written anew, before its header says that they may be believed.
pub(super) const ANEW: &str = "array: a bitmap's bits before its header";
/// That a member could not take a write, before the write completes.
pub(super) const RECORDED: &str = "array: a bad block before its write completes";
/// A bad block's new place in the log, before it leaves the old one.
pub(super) const MOVED: &str = "array: a bad block's new place before the old one";
/// What a member was filled with, before its superblock says that it holds it.
pub(super) const FILLED: &str = "array: what was rebuilt before it is claimed";
/// What a record of the partial parity log names, before another takes its place.
pub(crate) const LOGGED: &str = "ppl: members before the next record";
/// A record of the partial parity log, before data and parity that it names.
pub(crate) const RECORD: &str = "ppl: a record before what it names";
/// That a log is not to be believed, before anything becomes untrue that it does not name.
pub(crate) const VOID: &str = "ppl: void before what no record names";
/// Zeroes over older records, before a first one that they could be taken to follow.
pub(crate) const EMPTIED: &str = "ppl: an emptied log before its first record";
/// A record of the write journal, before what it names goes home.
pub(crate) const JOURNALLED: &str = "journal: a record before what it names";
/// What records of the write journal name, on the members, before the tail leaves them behind.
pub(crate) const HOME: &str = "journal: members before the tail moves";
/// The mark at the end of the write journal, before the tail is there.
pub(crate) const MARK: &str = "journal: a mark before the tail is there";
/// Where the write journal begins, before what lay before it is written over.
pub(super) const TAIL: &str = "journal: the tail before what it left behind is written over";
/// A copy of an unfinished write that is on every member now, before anybody is given it.
pub(crate) const AGREED: &str = "mirror: copies made to agree before they are read";

/// All of them.
pub const ORDERINGS: &[&str] = &[
    PROMISE, CLEAN, SUPERBLOCK, INTENT, CLEARED, HEADER, EPOCH, ANEW, RECORDED, MOVED, FILLED,
    LOGGED, RECORD, VOID, EMPTIED, JOURNALLED, HOME, MARK, TAIL, AGREED,
];
