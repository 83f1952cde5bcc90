//! Tuples made, checked, and left out.

use super::error::DifFileError;
use super::image::Layout;
use super::judge::{Finding, Judge, Mark, Request};
use super::product::{Content, Outputs, Product};
use super::source::{Batch, Bytes, Source};
use super::walk::Walk;
use super::{Done, OnProgress};
use crate::mapfile::Status;
use bio::Buf;
use dif::Protection;
use units::u64_of;

/// Checks every interval, and tells `found` of each that nothing vouches for.
///
/// # Errors
/// [`DifFileError::Io`]: what the medium alone does not give is told as found instead.
pub async fn verify(
    source: &Source,
    request: &Request,
    found: &mut dyn FnMut(&Finding),
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let mut walk = Walk::new(source, &request.range, on_progress);
    let mut judge = Judge::new(source, request, found);
    while let Some(batch) = walk.next().await? {
        judge.verify(&batch);
    }
    Ok(Done { tally: judge.tally, stopped_at: walk.stopped_at(), ..Done::default() })
}

/// Writes the image with tuples made anew, whatever they said; the owner's metadata is kept. Of separate
/// metadata that file alone is written, and the owner's is zeroes if the source was opened without.
///
/// # Errors
/// [`DifFileError`]; nothing is written then.
pub async fn generate(
    source: &Source,
    request: &Request,
    outputs: &Outputs<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    make(source, request, Content::Tuples, outputs, on_progress).await
}

/// Writes an image of the data in the source, which was opened as such.
///
/// # Errors
/// [`DifFileError`]; nothing is written then.
pub async fn insert(
    source: &Source,
    request: &Request,
    outputs: &Outputs<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    make(source, request, Content::Image, outputs, on_progress).await
}

async fn make(
    source: &Source,
    request: &Request,
    content: Content,
    outputs: &Outputs<'_>,
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let what = (*source.image(), content);
    let product = match Product::begin(source, &request.range, what, outputs)? {
        Ok(product) => product,
        Err(rehearsed) => return Ok(rehearsed),
    };
    let mut walk = Walk::new(source, &request.range, on_progress);
    let mut done = Done::default();
    while let Some(batch) = walk.next().await? {
        let batch = batch.whole(source)?;
        done.tally.intervals += units::u64_of(batch.count);
        let protection = request.protection_at(source, batch.first);
        let first = batch.first;
        let made = signed(batch, &protection, source.image().layout());
        product.put(first, &made, |_| false)?;
    }
    done.stopped_at = walk.stopped_at();
    product.finish(done)
}

/// The batch with tuples, as the layout has them.
fn signed(batch: Batch, protection: &Protection, layout: Layout) -> Bytes {
    let format = protection.format();
    match batch.bytes {
        Bytes::Together(mut blocks) => {
            protection.generate_interleaved([blocks.as_mut_slice()]);
            Bytes::Together(blocks)
        }
        Bytes::Apart(data, _) if layout == Layout::Interleaved => {
            let mut blocks = Buf::alloc(batch.count * format.stride());
            protection.insert([data.as_slice()], [blocks.as_mut_slice()]);
            Bytes::Together(blocks)
        }
        Bytes::Apart(data, metadata) => {
            let is_new = metadata.is_empty();
            let mut metadata =
                if is_new { Buf::zeroed(batch.count * format.metadata()) } else { metadata };
            protection.generate([data.as_slice()], [metadata.as_mut_slice()]);
            Bytes::Apart(data, metadata)
        }
    }
}

/// Writes the data alone, checked on the way. What nothing vouches for is told to `found`, and is a hole:
/// zeroes, as [`crate::copy::export`] leaves them, and bad in the map, if one is asked for. Escaped data is
/// copied as it is.
///
/// # Errors
/// [`DifFileError`]; nothing is written then.
pub async fn strip(
    source: &Source,
    request: &Request,
    outputs: &Outputs<'_>,
    found: &mut dyn FnMut(&Finding),
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let what = (*source.image(), Content::Data);
    let mut product = match Product::begin(source, &request.range, what, outputs)? {
        Ok(product) => product,
        Err(rehearsed) => return Ok(rehearsed),
    };
    let mut walk = Walk::new(source, &request.range, on_progress);
    let mut judge = Judge::new(source, request, found);
    let interval = source.image().profile().format.interval();
    while let Some(batch) = walk.next().await? {
        let protection = request.protection_at(source, batch.first);
        let mut data = Buf::alloc(0);
        let marks = match &batch.bytes {
            Bytes::Apart(..) => judge.verify(&batch),
            Bytes::Together(blocks) => {
                data = Buf::alloc(batch.count * interval);
                judge.judge(&batch, |found| {
                    protection.strip([blocks.as_slice()], [data.as_mut_slice()], found);
                })
            }
        };
        let data = match batch.bytes {
            Bytes::Apart(data, _) => data,
            Bytes::Together(_) => data,
        };
        let is_hole = |index: usize| matches!(marks[index], Mark::Bad | Mark::Unwritten);
        product.put(batch.first, &Bytes::Apart(data, Buf::alloc(0)), is_hole)?;
        for mark in &marks {
            let status = if *mark == Mark::Bad { Status::Bad } else { Status::Finished };
            product.chart(u64_of(interval), status);
        }
    }
    let (tally, stopped_at) = (judge.tally, walk.stopped_at());
    product.finish(Done { tally, stopped_at, ..Done::default() })
}
