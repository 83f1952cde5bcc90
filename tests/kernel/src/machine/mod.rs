//! A machine with a real kernel: where its parts come from, how it starts, how it is spoken to.
//!
//! It knows nothing of what is tested.

pub(crate) mod boot;
mod cpio;
mod debian;
pub(crate) mod guest;
pub(crate) mod memory;
mod monitor;
