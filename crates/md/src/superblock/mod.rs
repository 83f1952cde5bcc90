//! The superblock that each member carries: who it is, which array, and how fresh.
//!
//! `v1` knows its bytes, `fields` what single fields mean. Metadata 0.90 is out of scope.

mod fields;
mod v1;

pub use fields::{DeviceFlags, Features, Level, Minor, ResyncOffset, Role, Time, Uuid};
pub(crate) use v1::{BBLOG_SECTORS, Joining, NewSuperblock, UNSET_ROLE};
pub use v1::{
    BadBlockLog, Ppl, Reshape, SLOTS_MAX, SUPERBLOCK_BYTES, SUPERBLOCK_SECTORS, Superblock,
    SuperblockError,
};
