//! The simulated machine: disks that lose power, flip bits and forget, and the oracle that judges.
//!
//! ```text
//!   seed -> workload -> history: lives of steps, cuts, damage
//!                          |
//!      scenario (volume) --+--> machine: schedule (who runs, what time), power (where it is cut)
//!                          |        disks (cache, damage)           |
//!                          |        oracle (what each block may hold)
//!                          v                                        v
//!                       explore: a tree of cuts per seed        Violation -> shrink
//! ```
//!
//! [`mutation`] turns it round: each ordering flush of a layer is left out, and has to be missed.
//!
//! Everything follows from a seed: the same seed gives the same trace. Volumes run here on the same
//! interface, and with the same code, as on real disks.

#![forbid(unsafe_code)]

pub mod disk;
pub mod explore;
pub mod history;
pub mod image;
pub mod machine;
pub mod making;
pub mod mutation;
pub mod opening;
pub mod oracle;
pub mod ordering;
pub mod power;
pub mod rebuilding;
pub mod resizing;
pub mod rng;
pub mod scenario;
pub mod schedule;
mod shrink;
pub mod workload;

pub use explore::{Catalogue, Failure, Report};
pub use history::History;
pub use scenario::Scenario;

#[cfg(test)]
mod tests;
