//! The layers: leaves, integrity, RAID, and the small ones between.

pub mod fault;
pub mod file;
pub mod limit;
pub mod memory;
