//! Parity arithmetic of RAID 5 and 6: XOR, P+Q syndromes, erasure recovery.
//!
//! Knows strips as byte slices of one length and the data index that is a strip's exponent. Does
//! not know members, layouts or where a strip lies: those are the `md` crate's. (The md
//! specification, section 7.3, defines P, Q and the field.)
//!
//! ```text
//!   P =       d0 ^       d1 ^       d2 ^ ...      and with any two of (d.., P, Q) gone,
//!   Q = g^0 * d0 ^ g^1 * d1 ^ g^2 * d2 ^ ...      two equations are left for two unknowns
//! ```
//!
//! Everything is per byte position, so any range of a stripe can be computed alone. `unsafe` lives
//! in `simd/` only; every kernel there is tested against [`scalar`], level by level.

pub mod scalar;

mod field;
mod locate;
mod parity;
mod recover;
mod simd;

pub use field::{div, exp, inv, log, mul};
pub use locate::{Wrong, locate};
pub use parity::{agree, p, p_update, pq, pq_update, xor_into};
pub use recover::{Strip, Unrecoverable, recover};

/// Data strips that Q can tell apart: the powers of g repeat after this many.
pub const DATA_STRIPS_MAX: usize = 255;
