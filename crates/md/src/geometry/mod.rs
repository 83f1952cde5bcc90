//! Where a sector of an array lies on its members: pure arithmetic, valid by construction.
//!
//! - [`Geometry`] (`parity`): RAID 4, 5 and 6, every layout;
//! - [`Stripes`] (`stripes`): linear and RAID 0, members of any sizes;
//! - [`Mirrors`] (`mirrors`): RAID 10, near, far and offset;
//! - [`layout_name`] and [`layout_number`] (`names`): what people call the layouts.
//!
//! A *member sector* counts from the start of a member's data; nothing here knows data offsets.
//! RAID 1 needs no arithmetic: sector n of the array is sector n of each member.

mod mirrors;
mod names;
mod parity;
mod stripes;

pub use mirrors::{Mirrors, MirrorsError, Spot};
pub use names::{layout_name, layout_number, layouts};
pub use parity::{Geometry, GeometryError, ParityLevel, Place, Strip};
pub use stripes::{Run, Stripes, StripesError};
