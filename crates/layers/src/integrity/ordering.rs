//! Every flush that this layer asks for, by what it must come before.
//!
//! Each is a constant here and nowhere else, so that the simulator can leave out one after the other
//! and must find what breaks (`cargo xtask sim --orderings`).

/// Sections of the journal, before anybody is promised them and before they are written home. A flush
/// that is also for [`HOME`] has this reason.
pub(super) const SECTIONS: &str = "journal: sections before promise and home";
/// Blocks at home, before their sections are overwritten or made anew.
pub(super) const HOME: &str = "home: blocks before their sections go";
/// Tags at home, before they are read again.
pub(super) const CONFIRM: &str = "home: tags before they are read again";
/// Replayed blocks, before the journal that holds them is made anew.
pub(super) const REPLAYED: &str = "replay: blocks before the journal is made anew";
/// The batches of a journal made anew, each before the next, the last before the journal is used.
pub(super) const ANEW: [&str; 3] = [
    "replay: the oldest section anew before the middle",
    "replay: the middle sections anew before the newest",
    "replay: the newest section anew before the journal is used",
];
/// Space given back outside of the journal, before a flush is answered and before the volume counts as
/// closed.
pub(super) const PUNCHED: &str = "zero: space given back before promise and end";
/// At close, the journal made anew, before the volume counts as closed.
pub(super) const CLOSED: &str = "close: the journal anew before the end";
/// At creation, the old superblock's end, before anything that it described is overwritten.
pub(super) const CREATE_ERASED: &str = "create: no superblock before anything is written";
/// At creation, the journal, before the superblock.
pub(super) const CREATE_JOURNAL: &str = "create: journal before superblock";
/// At creation, blocks and tags, before the superblock.
pub(super) const CREATE_WIPED: &str = "create: blocks and tags before superblock";
/// At creation, the superblock, before its maker is told.
pub(super) const CREATE_DONE: &str = "create: superblock before the end";

/// Without a journal: tags and data, before a flush is answered or bits are cleared.
pub(super) const DIRECT: &str = "direct: tags and data before promise and bits";
/// With inline tags, at close: what was written, before the volume counts as closed. (Other flushes have
/// the reason of whoever is above.)
pub(super) const INLINE_CLOSE: &str = "inline: everything before the end";
/// The journal made anew where it gives way to a bitmap that is no longer in use.
pub(super) const LEAVE_BITMAP: &str = "bitmap: journal anew before the flag goes";
/// Bits of the bitmap that are set, before the writes that they announce, and before the superblock
/// says how large their regions are.
pub(super) const BITS: &str = "bitmap: bits before what they announce";
/// Sections of a damaged journal made anew, each before the next.
pub(super) const MENDED: &str = "mend: a section anew before the next";
/// Computed tags, before the superblock says that they are valid.
pub(super) const RECALCULATED: &str = "recalculate: tags before the position behind them";
/// Tags that accept whatever lies below, before it is given up.
pub(super) const DISCARDED: &str = "discard: tags before what they accept goes";
/// A changed superblock, before anybody counts on it.
pub(super) const SUPERBLOCK: &str = "superblock: it before what follows";

/// All of them. The simulator leaves out each in turn.
pub const ORDERINGS: &[&str] = &[
    SECTIONS,
    HOME,
    CONFIRM,
    REPLAYED,
    ANEW[0],
    ANEW[1],
    ANEW[2],
    PUNCHED,
    CLOSED,
    CREATE_ERASED,
    CREATE_JOURNAL,
    CREATE_WIPED,
    CREATE_DONE,
    INLINE_CLOSE,
    DIRECT,
    LEAVE_BITMAP,
    BITS,
    MENDED,
    RECALCULATED,
    DISCARDED,
    SUPERBLOCK,
];
