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
//! [`mutation`] turns it round: each ordering flush and each check of a layer is left out, and has to be
//! missed. [`atlas`] knows what damage to the disks may cost, block by block.
//!
//! Everything follows from a seed: the same seed gives the same trace. Volumes run here on the same
//! interface, and with the same code, as on real disks.

#![forbid(unsafe_code)]

pub mod atlas;
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
pub mod refusing;
pub mod resizing;
pub mod reusing;
pub mod rng;
pub mod scenario;
pub mod schedule;
mod shrink;
mod tuples;
pub mod unchecked;
pub mod violation;
pub mod workload;

pub use explore::{Catalogue, Failure, Report};
pub use history::History;
pub use scenario::Scenario;

/// The histories that once showed a bug, in which nothing is wrong any more.
///
/// # Panics
/// If one of them cannot be read.
pub fn seeds() -> impl Iterator<Item = History> {
    let texts = include_str!("../seeds.txt").split("\n---\n").skip(1);
    texts.map(|text| text.parse().unwrap_or_else(|error| panic!("{error} in {text}")))
}

#[cfg(test)]
mod tests;
