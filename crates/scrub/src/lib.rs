//! Reads a volume whole, through its verified path, and adds up what is found.
//!
//! The volume's top layer knows how (its [`bio::Scrub`]); here live the walk, its pace, its
//! progress, and the [`Summary`] with the verdict. Which layers there are is not known here.
//!
//! ```text
//!   step   0    1    2    3    4    5    6    7    8   ...
//!          done done [  several in flight  ]  not yet
//!                ^ findings are taken in this order, whichever ends first
//! ```

#![forbid(unsafe_code)]

mod summary;
mod walk;

pub use summary::{FINDINGS, Line, Outcome, Summary, Total, Totals, word};
pub use walk::{Options, Progress, run};
