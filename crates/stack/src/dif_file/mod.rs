//! Protection information in files: images of sectors and tuples, checked, made, taken apart.
//!
//! ```text
//!   interleaved    | data | tuple | data | tuple | ...           a disk of 520-byte sectors, imaged
//!   separate       | data | data | ...     | tuple | tuple | ... two files
//!   nvme-qemu      | data | data | ... | tuple | tuple | ... |   QEMU's NVMe device; a rest at the end
//!
//!   source (reads ahead) --batches--> the operation, judged interval by interval --> product (targets)
//! ```
//!
//! | operation | reads | writes |
//! |---|---|---|
//! | [`verify`] | an image | |
//! | [`generate`] | an image, of which only the data counts | the image with tuples made anew; of separate metadata that file alone |
//! | [`insert`] | data alone | an image; of separate metadata both files |
//! | [`strip`] | an image | its data; what nothing vouches for is a hole, and named in a map |
//! | [`convert`], [`remap`], [`write_tags`] | an image | the image with other tuples; of separate metadata that file alone |
//! | [`read_tags`], [`list_tags`] | an image | the application's bytes |
//!
//! Whatever reads tuples checks them on the way, all but [`generate`], which makes valid whatever lies
//! there. What disagrees is told, and stays as wrong in what is written as it was: nothing is laundered.
//! A range of blocks is read and written as if there were no others.
//!
//! In QEMU's layout a block of nothing but zeroes, data and metadata, was never written: the device reads
//! it as escaped, though the file does not say so. It is counted apart and not checked, as an escape is.

mod change;
mod error;
mod image;
mod judge;
mod make;
mod product;
mod recognise;
mod source;
mod tags;
mod target;
mod walk;

pub use change::{convert, remap};
pub use error::DifFileError;
pub use image::{Image, ImageError, Layout};
pub use judge::{Finding, Request, Tally};
pub use make::{generate, insert, strip, verify};
pub use product::Outputs;
pub use recognise::{Likeness, recognise};
pub use source::Source;
pub use tags::{Outlet, Run, list_tags, read_tags, write_tags};

use std::ops::ControlFlow;
use std::path::PathBuf;

/// Is told of every block that is done, counted from the range's start, and may stop the work.
pub type OnProgress<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// A file that is written, whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// The file.
    pub path: PathBuf,
    /// Its bytes; none: a map that is yet to be written, of what was yet to be found.
    pub bytes: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Done {
    /// What was seen.
    pub tally: Tally,
    /// The files that were written, or would be; none if it was stopped.
    pub writes: Vec<Write>,
    /// The first block that was not done, if it was stopped.
    pub stopped_at: Option<u64>,
}

#[cfg(test)]
mod tests;
