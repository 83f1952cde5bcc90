//! Other tuples for the same data: another guard, other reference tags.

use super::error::DifFileError;
use super::judge::{Finding, Judge, Mark, Request};
use super::product::{Content, Outputs, Product};
use super::source::{Bytes, Source};
use super::walk::Walk;
use super::{Done, OnProgress};
use bio::Buf;
use dif::{Checks, Format, Guard, Profile};

/// Writes the image with guards of another kind. Each interval is verified by its old tuple, while the
/// new one is made of the same bytes; what disagrees is told to `found`, and its new tuple disagrees as
/// well. Escapes stay escapes, and blocks that were never written stay so.
///
/// # Errors
/// [`DifFileError`]; nothing is written then.
pub async fn convert(
    source: &Source,
    request: &Request,
    guard: Guard,
    outputs: &Outputs<'_>,
    found: &mut dyn FnMut(&Finding),
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let from = *request.protection.profile();
    let to = Profile { format: with_guard(&from.format, guard)?, ..from };
    request.protection.converted_to(to)?;
    let image = source.image().with_profile(to);
    let product = match Product::begin(source, &request.range, (image, Content::Tuples), outputs)? {
        Ok(product) => product,
        Err(rehearsed) => return Ok(rehearsed),
    };
    let mut walk = Walk::new(source, &request.range, on_progress);
    let mut judge = Judge::new(source, request, found);
    while let Some(batch) = walk.next().await? {
        let mut batch = batch.whole(source)?;
        let is_together = matches!(batch.bytes, Bytes::Together(_));
        batch.bytes = batch.bytes.apart(&from.format);
        let Bytes::Apart(data, metadata) = &batch.bytes else { continue };
        let conversion = request.protection_at(source, batch.first).converted_to(to)?;
        let mut made = Buf::zeroed(batch.count * to.format.metadata());
        let marks = judge.judge(&batch, |found| {
            let converted = [made.as_mut_slice()];
            conversion.run([data.as_slice()], [metadata.as_slice()], converted, found);
        });
        leave_unwritten(&marks, made.as_mut_slice(), to.format.metadata());
        let made = Bytes::Apart(data.clone(), made);
        let made = if is_together { made.together(&to.format) } else { made };
        product.put(batch.first, &made, |index| marks[index] == Mark::Unwritten)?;
    }
    let (tally, stopped_at) = (judge.tally, walk.stopped_at());
    product.finish(Done { tally, stopped_at, ..Done::default() })
}

/// The format that has another guard and everything else as it was: a storage tag of as many bits, but
/// where the guard demands some; the owner's metadata at the same end.
fn with_guard(from: &Format, guard: Guard) -> Result<Format, DifFileError> {
    let format = Format::new(guard, from.interval())?;
    let bits = from.storage_bits().max(format.storage_bits());
    let owner = from.metadata() - from.tuple_bytes();
    let format = format.with_metadata(owner + format.tuple_bytes(), from.place())?;
    Ok(format.with_storage_bits(bits)?)
}

/// Writes the image with reference tags that count from `to`, where they counted as `request` says. They
/// are checked, whatever it says of that: what counts otherwise is told to `found` and left alone, so that
/// the next who checks refuses it.
///
/// # Errors
/// [`DifFileError`]; nothing is written then.
pub async fn remap(
    source: &Source,
    request: &Request,
    to: u64,
    outputs: &Outputs<'_>,
    found: &mut dyn FnMut(&Finding),
    on_progress: OnProgress<'_>,
) -> Result<Done, DifFileError> {
    let profile = *request.protection.profile();
    if !profile.kind.counts() || profile.format.reference_bits() == 0 {
        return Err(DifFileError::NoReference);
    }
    let checks = Checks { reference: true, ..*request.protection.checks() };
    let protection = request.protection.with_checks(checks);
    let request = &Request { protection, range: request.range.clone() };
    let what = (*source.image(), Content::Tuples);
    let product = match Product::begin(source, &request.range, what, outputs)? {
        Ok(product) => product,
        Err(rehearsed) => return Ok(rehearsed),
    };
    let mut walk = Walk::new(source, &request.range, on_progress);
    let mut judge = Judge::new(source, request, found);
    let start = request.range.start * source.image().per_block();
    while let Some(batch) = walk.next().await? {
        let mut batch = batch.whole(source)?;
        let marks = judge.verify(&batch);
        let from = request.protection_at(source, batch.first).expected().reference;
        let to = to.wrapping_add(batch.first - start);
        match &mut batch.bytes {
            Bytes::Together(blocks) => {
                profile.remap_interleaved([blocks.as_mut_slice()], from, to);
            }
            Bytes::Apart(_, metadata) => {
                profile.remap([metadata.as_mut_slice()], from, to);
                let bytes = profile.format.metadata();
                leave_unwritten(&marks, metadata.as_mut_slice(), bytes);
            }
        }
        product.put(batch.first, &batch.bytes, |index| marks[index] == Mark::Unwritten)?;
    }
    let (tally, stopped_at) = (judge.tally, walk.stopped_at());
    product.finish(Done { tally, stopped_at, ..Done::default() })
}

/// What was never written has no metadata either.
fn leave_unwritten(marks: &[Mark], metadata: &mut [u8], bytes: usize) {
    for (mark, metadata) in marks.iter().zip(metadata.chunks_exact_mut(bytes)) {
        if *mark == Mark::Unwritten {
            metadata.fill(0);
        }
    }
}

impl Bytes {
    /// Data and metadata apart.
    pub(super) fn apart(self, format: &Format) -> Self {
        let Self::Together(blocks) = &self else { return self };
        let count = blocks.len() / format.stride();
        let mut data = Buf::alloc(count * format.interval());
        let mut metadata = Buf::alloc(count * format.metadata());
        let places = data.as_mut_slice().chunks_exact_mut(format.interval());
        let places = places.zip(metadata.as_mut_slice().chunks_exact_mut(format.metadata()));
        for (block, (data, metadata)) in blocks.as_slice().chunks_exact(format.stride()).zip(places)
        {
            data.copy_from_slice(&block[..format.interval()]);
            metadata.copy_from_slice(&block[format.interval()..]);
        }
        Self::Apart(data, metadata)
    }

    /// Each interval with its metadata behind it.
    pub(super) fn together(self, format: &Format) -> Self {
        let Self::Apart(data, metadata) = &self else { return self };
        let count = data.len() / format.interval();
        let mut blocks = Buf::alloc(count * format.stride());
        let from = data.as_slice().chunks_exact(format.interval());
        let from = from.zip(metadata.as_slice().chunks_exact(format.metadata()));
        for (block, (data, metadata)) in
            blocks.as_mut_slice().chunks_exact_mut(format.stride()).zip(from)
        {
            block[..format.interval()].copy_from_slice(data);
            block[format.interval()..].copy_from_slice(metadata);
        }
        Self::Together(blocks)
    }
}
