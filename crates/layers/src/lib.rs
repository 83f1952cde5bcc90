//! The layers: leaves, integrity, RAID, and the small ones between.

pub mod array;
pub mod fault;
pub mod file;
pub mod integrity;
pub mod limit;
pub mod linear;
pub mod memory;
pub mod mirror;
pub mod nbd;
pub mod overlay;
pub mod protect;
pub mod raid456;
pub mod sides;
pub mod striped;
pub mod verify;
