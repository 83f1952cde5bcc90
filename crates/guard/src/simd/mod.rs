//! Kernels, and the choice between them.

use crate::polynomial::Polynomial;
use crate::{Guard, Running};

/// The register after `data`.
pub(crate) fn feed(polynomial: &Polynomial, register: u64, data: &[u8]) -> u64 {
    polynomial.feed(register, data)
}

/// [`Guard::each`], checked.
pub(crate) fn each(
    guard: Guard,
    data: &[u8],
    interval: usize,
    mut found: impl FnMut(u64) -> bool,
) -> Option<usize> {
    data.chunks_exact(interval).position(|bytes| !found(guard.of(bytes)))
}

/// [`Guard::each_spaced`], checked.
pub(crate) fn each_spaced(
    guard: Guard,
    blocks: &[u8],
    interval: usize,
    stride: usize,
    mut found: impl FnMut(&[u8], u64) -> bool,
) -> Option<usize> {
    blocks.chunks_exact(stride).position(|block| {
        let (bytes, gap) = block.split_at(interval);
        !found(gap, guard.of(bytes))
    })
}

/// [`Guard::each_spaced_mut`], checked.
pub(crate) fn each_spaced_mut(
    guard: Guard,
    blocks: &mut [u8],
    interval: usize,
    stride: usize,
    mut found: impl FnMut(&mut [u8], u64),
) {
    for block in blocks.chunks_exact_mut(stride) {
        let (bytes, gap) = block.split_at_mut(interval);
        found(gap, guard.of(bytes));
    }
}

/// [`Guard::each_copied`], checked.
pub(crate) fn each_copied(
    guard: Guard,
    source: &[u8],
    interval: usize,
    target: &mut [u8],
    stride: usize,
    mut found: impl FnMut(&mut [u8], u64),
) {
    let intervals = source.len() / interval;
    let target = &mut target[..intervals * stride];
    for (bytes, place) in source.chunks_exact(interval).zip(target.chunks_exact_mut(stride)) {
        let (copy, gap) = place.split_at_mut(interval);
        copy.copy_from_slice(bytes);
        let mut running = Running::new(guard);
        running.update(copy);
        found(gap, running.value());
    }
}
