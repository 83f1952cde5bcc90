//! The on-disk format of Linux md, metadata 1.x, without any I/O.
//!
//! Bytes to meaning and back, and all arithmetic; what reads and writes them lives in `layers`.
//!
//! - [`superblock`]: what each member carries;
//! - [`assemble`](mod@assemble): what a set of members amounts to;
//! - [`create`](mod@create): the superblocks of a new array;
//! - [`geometry`]: where a sector of an array lies;
//! - [`shape`]: the array's size, and which members it can do without;
//! - [`reshape`]: the two shapes of an array whose shape is being changed;
//! - [`bad_blocks`]: the log of sectors that a member cannot give;
//! - [`bitmap`]: the write-intent bitmap, read and written;
//! - [`journal`]: the write journal of a RAID 4, 5 or 6, read;
//! - [`missed`](mod@missed): what a member missed that comes back;
//! - [`ppl`]: the partial parity log of a RAID 5, read and written.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod bad_blocks;
pub mod bitmap;
pub mod create;
pub mod geometry;
pub mod journal;
pub mod missed;
pub mod ppl;
pub mod reshape;
pub mod shape;
pub mod superblock;
