//! The on-disk format of Linux md, metadata 1.x, without any I/O.
//!
//! Bytes to meaning and back, and all arithmetic; what reads and writes them lives in `layers`.

#![forbid(unsafe_code)]

pub mod geometry;
