//! Computing strips from other strips: whatever is wanted from whatever is known.
//!
//! A stripe obeys two equations, P and Q. Each unknown strip stands in them with a column:
//!
//! ```text
//!              data strip i     P      Q
//!   equation P       1          1      0       any two columns are independent (i < 255), so any
//!   equation Q      g^i         0      1       two unknown strips are determined by the known
//! ```
//!
//! The known strips are summed into both equations in one pass, and each wanted strip is a fixed
//! combination of the two sums: a row of the inverse of the unknowns' columns. Generation of
//! parity, degraded reads, rebuilds and double failures are all this one computation.

use crate::simd::{self, Job, Level, SOLVE_BYTES_MAX};
use crate::{DATA_STRIPS_MAX, div, exp, mul};
use std::ops::Range;

/// What is known of one strip, or of the same range of each strip of a stripe.
#[derive(Debug)]
pub enum Strip<'a> {
    /// Its bytes, verified.
    Known(&'a [u8]),
    /// Unknown; its bytes are to be computed into this buffer.
    Wanted(&'a mut [u8]),
    /// Unknown and not asked for, or not there at all, as Q in RAID 5.
    Absent,
}

/// More strips are unknown than parity can determine.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{data_unknown} data strips unknown, {parity_known} parity strips known")]
pub struct Unrecoverable {
    /// Data strips that are not known.
    pub data_unknown: usize,
    /// Of P and Q, how many are known.
    pub parity_known: usize,
}

/// Computes every wanted strip from the known ones. The data strip at index i has exponent i. The
/// buffers are taken out of `data`, which holds nothing of use afterwards.
///
/// # Errors
/// [`Unrecoverable`] if more data strips are unknown than parity strips known; then nothing was
/// written.
///
/// # Panics
/// If the lengths of known and wanted strips differ, or there are more than [`DATA_STRIPS_MAX`]
/// data strips where Q is needed.
pub fn recover<'a>(
    data: &mut [Strip<'a>],
    p: Strip<'a>,
    q: Strip<'a>,
) -> Result<(), Unrecoverable> {
    recover_at(Level::best(), data, p, q)
}

fn recover_at<'a>(
    level: Level,
    data: &mut [Strip<'a>],
    mut p: Strip<'a>,
    mut q: Strip<'a>,
) -> Result<(), Unrecoverable> {
    let [first, second] = Unknown::two_of(data, &p, &q)?;
    // The inverse of [first | second] is [[second.q, second.p], [first.q, first.p]] / determinant.
    let (a, b) = (first.column(), second.column());
    let determinant = mul(a.p, b.q) ^ mul(b.p, a.q);
    let rows = [
        Row { p: div(b.q, determinant), q: div(b.p, determinant) },
        Row { p: div(a.q, determinant), q: div(a.p, determinant) },
    ];

    let wanted = [first, second].map(|unknown| unknown.take_wanted(data, &mut p, &mut q));
    let parity = [p.known(), q.known()];
    match wanted {
        [None, None] => {}
        [Some(target), None] => one(level, data, parity, rows[0], target),
        [None, Some(target)] => one(level, data, parity, rows[1], target),
        [Some(x), Some(y)] => solve(level, data, parity, rows, x, Some(y)),
    }
    Ok(())
}

/// One strip of the stripe that is not known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Unknown {
    Data(usize),
    P,
    Q,
}

/// How an unknown strip counts in the two equations.
struct Column {
    p: u8,
    q: u8,
}

/// How the two sums make a strip.
#[derive(Clone, Copy)]
struct Row {
    p: u8,
    q: u8,
}

impl Unknown {
    /// The unknown strips of the stripe, made up to two by setting a known parity strip aside: Q
    /// first, because P alone is the cheaper way to one strip.
    fn two_of(data: &[Strip<'_>], p: &Strip, q: &Strip) -> Result<[Self; 2], Unrecoverable> {
        let mut unknown_data =
            data.iter().enumerate().filter(|(_, strip)| strip.known().is_none()).map(|(i, _)| i);
        let mut two = [unknown_data.next(), unknown_data.next()].map(|i| i.map(Self::Data));
        let data_unknown = two.iter().flatten().count() + unknown_data.count();
        let parity_known = [p, q].iter().filter(|strip| strip.known().is_some()).count();
        if data_unknown > parity_known {
            return Err(Unrecoverable { data_unknown, parity_known });
        }
        let spares = [(p, Self::P), (q, Self::Q)];
        let unknown = spares.iter().filter(|(strip, _)| strip.known().is_none());
        let aside = spares.iter().rev().filter(|(strip, _)| strip.known().is_some());
        let mut parity = unknown.chain(aside).map(|&(_, parity)| parity);
        for slot in &mut two {
            *slot = slot.or_else(|| parity.next());
        }
        Ok(two.map(|slot| slot.expect("two parity strips fill two slots")))
    }

    fn column(self) -> Column {
        match self {
            Self::Data(i) => Column { p: 1, q: exp(i) },
            Self::P => Column { p: 1, q: 0 },
            Self::Q => Column { p: 0, q: 1 },
        }
    }

    /// The buffer it is wanted in, if it is.
    fn take_wanted<'a>(
        self,
        data: &mut [Strip<'a>],
        p: &mut Strip<'a>,
        q: &mut Strip<'a>,
    ) -> Option<&'a mut [u8]> {
        let strip = match self {
            Self::Data(i) => &mut data[i],
            Self::P => p,
            Self::Q => q,
        };
        match strip {
            Strip::Wanted(buffer) => Some(std::mem::take(buffer)),
            Strip::Known(_) | Strip::Absent => None,
        }
    }
}

impl<'a> Strip<'a> {
    const fn known(&self) -> Option<&'a [u8]> {
        match self {
            Self::Known(bytes) => Some(bytes),
            Self::Wanted(_) | Self::Absent => None,
        }
    }
}

/// Computes one strip. A parity strip that was set aside has no part in it: its sum has factor
/// zero in `row`.
fn one(level: Level, data: &[Strip<'_>], parity: [Option<&[u8]>; 2], row: Row, target: &mut [u8]) {
    if (row.p, row.q) == (1, 0) {
        let [p, _] = parity;
        with_slots(data.len() + 1, |slots| {
            let known = data.iter().filter_map(Strip::known).chain(p);
            let mut count = 0;
            for (slot, bytes) in slots.iter_mut().zip(known) {
                *slot = bytes;
                count += 1;
            }
            simd::run(level, Job::Sum { sources: &slots[..count], target, keep: false });
        });
    } else {
        solve(level, data, parity, [row, Row { p: 0, q: 0 }], target, None);
    }
}

/// Sums both equations over the known strips and combines the sums to one or two strips. Unknown
/// strips take part as zeros, a piece at a time, so that the kernel's inner loop has no gaps.
fn solve(
    level: Level,
    data: &[Strip<'_>],
    parity: [Option<&[u8]>; 2],
    rows: [Row; 2],
    x: &mut [u8],
    mut y: Option<&mut [u8]>,
) {
    assert!(data.len() <= DATA_STRIPS_MAX, "Q tells 255 data strips apart");
    let length = x.len();
    let mut known = data.iter().filter_map(Strip::known).chain(parity.into_iter().flatten());
    assert!(
        known.all(|strip| strip.len() == length) && y.as_ref().is_none_or(|y| y.len() == length),
        "strips have one length"
    );
    let rows = rows.map(|row| [row.p, row.q]);
    with_slots(data.len(), |slots| {
        let mut from = 0;
        for x in x.chunks_mut(SOLVE_BYTES_MAX) {
            let piece = from..from + x.len();
            for (slot, strip) in slots.iter_mut().zip(data) {
                *slot = piece_of(strip.known(), piece.clone());
            }
            let [p, q] = parity.map(|strip| piece_of(strip, piece.clone()));
            let y = y.as_mut().map(|y| &mut y[piece.clone()]);
            simd::run(level, Job::Solve { data: slots, p, q, rows, x, y });
            from = piece.end;
        }
    });
}

/// A piece of a strip, of zeros if it is unknown.
fn piece_of(strip: Option<&[u8]>, piece: Range<usize>) -> &[u8] {
    strip.map_or(&ZEROS[..piece.len()], |bytes| &bytes[piece])
}

/// Runs `body` with room for `count` slices: on the stack for every array people really have.
fn with_slots<'a, T>(count: usize, body: impl FnOnce(&mut [&'a [u8]]) -> T) -> T {
    let mut few: [&[u8]; 18] = [&[]; 18];
    match few.get_mut(..count) {
        Some(few) => body(few),
        None => body(&mut vec![[].as_slice(); count]),
    }
}

static ZEROS: [u8; SOLVE_BYTES_MAX] = [0; SOLVE_BYTES_MAX];

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
