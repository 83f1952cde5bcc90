//! The equations of one stripe: which slot is what, and `gf` over pieces of its strips.
//!
//! `gf` counts data strips by their exponent in Q; md numbers them in the array's order and leaves
//! gaps in some layouts. Here the two are matched. Nothing here does I/O.

use super::application::Role;
use bio::{Buf, Segments};
use gf::{Strip, Unrecoverable};
use md::geometry::Geometry;
use std::ops::Range;

/// Who holds what in one stripe.
pub(super) struct Equations {
    /// The stripe.
    pub(super) stripe: u64,
    /// The member sector of its first row.
    start: u64,
    /// The slot of P.
    pub(super) p: usize,
    /// The slot of Q.
    pub(super) q: Option<usize>,
    /// The slot of each data strip, in the array's order.
    pub(super) data: Vec<usize>,
    /// The data strip of each exponent of Q; none where the layout leaves a gap.
    powers: Vec<Option<usize>>,
}

impl Equations {
    pub(super) fn of(geometry: &Geometry, stripe: u64) -> Self {
        let data: Vec<usize> =
            (0..geometry.data_disks()).map(|index| geometry.data_slot(stripe, index)).collect();
        let q = geometry.q_slot(stripe);
        let mut powers = Vec::new();
        for index in 0..data.len() {
            let power = if q.is_some() { geometry.q_exponent(stripe, index) } else { index };
            if powers.len() <= power {
                powers.resize(power + 1, None);
            }
            powers[power] = Some(index);
        }
        let start = geometry.strip_start(stripe).0;
        Self { stripe, start, p: geometry.p_slot(stripe), q, data, powers }
    }

    /// The member sectors that `rows` of the stripe are.
    pub(super) fn absolute(&self, rows: &Range<u64>) -> Range<u64> {
        self.start + rows.start..self.start + rows.end
    }

    /// What `slot` holds.
    pub(super) fn role(&self, slot: usize) -> Role {
        if self.parity().any(|parity| parity == slot) { Role::Parity } else { Role::Data }
    }

    /// The slots of parity.
    pub(super) fn parity(&self) -> impl Iterator<Item = usize> + '_ {
        [Some(self.p), self.q].into_iter().flatten()
    }

    /// The data strip of each exponent of Q; none where the layout leaves a gap.
    pub(super) fn powers(&self) -> &[Option<usize>] {
        &self.powers
    }

    /// Which data strip `slot` holds, if it holds one.
    pub(super) fn data_index(&self, slot: usize) -> Option<usize> {
        self.data.iter().position(|&data| data == slot)
    }

    /// Whether the parity of `strips`, given by slot, is that of their data.
    pub(super) fn agree(&self, strips: &[&[u8]]) -> bool {
        let length = strips[self.p].len();
        let q = self.q.map(|slot| strips[slot]);
        if self.powers.len() == self.data.len() || q.is_none() {
            let by_power = self.powers.iter().flatten().map(|&index| strips[self.data[index]]);
            return gf::agree(&by_power.collect::<Vec<_>>(), strips[self.p], q);
        }
        // A layout that leaves gaps: zeroes stand there.
        (0..length).step_by(ZEROS.len()).all(|from| {
            let piece = from..length.min(from + ZEROS.len());
            let by_power = self.powers.iter().map(|index| match index {
                Some(index) => &strips[self.data[*index]][piece.clone()],
                None => &ZEROS[..piece.len()],
            });
            let by_power: Vec<&[u8]> = by_power.collect();
            gf::agree(&by_power, &strips[self.p][piece.clone()], q.map(|q| &q[piece.clone()]))
        })
    }

    /// Computes the parity that is asked for of `data`, one piece for each data strip, all of one
    /// length.
    pub(super) fn generate(
        &self,
        data: &[&Segments],
        mut p: Option<&mut [u8]>,
        mut q: Option<&mut [u8]>,
    ) {
        let length = data.first().map_or(0, |piece| piece.len_bytes());
        let mut scratch = Vec::new();
        let mut at = 0;
        while at < length && (p.is_some() || q.is_some()) {
            let slices: Vec<&[u8]> = data.iter().map(|piece| tail(piece, at)).collect();
            let step = slices.iter().map(|slice| slice.len()).min().unwrap_or(0).min(ZEROS.len());
            let part = at..at + step;
            let p = p.as_mut().map(|p| &mut p[part.clone()]);
            match &mut q {
                None => {
                    let cut: Vec<&[u8]> = slices.iter().map(|slice| &slice[..step]).collect();
                    if let Some(p) = p {
                        gf::p(&cut, p);
                    }
                }
                Some(q) => {
                    let by_power: Vec<&[u8]> = (self.powers.iter())
                        .map(|index| index.map_or(&ZEROS[..step], |index| &slices[index][..step]))
                        .collect();
                    let p = p.unwrap_or_else(|| {
                        scratch.resize(ZEROS.len(), 0);
                        &mut scratch[..step]
                    });
                    gf::pq(&by_power, p, &mut q[part]);
                }
            }
            at += step;
        }
    }

    /// Corrects the parity that is there for data strip `index` changing from `old` to `new`.
    pub(super) fn update(
        &self,
        index: usize,
        old: &[u8],
        new: &Segments,
        p: Option<&mut [u8]>,
        q: Option<&mut [u8]>,
    ) {
        let power = self.powers.iter().position(|&at| at == Some(index));
        let power = power.expect("every data strip has its exponent");
        let mut scratch = Vec::new();
        let (mut p, mut q) = (p, q);
        let mut at = 0;
        for piece in new.iter() {
            let part = at..at + piece.len();
            let p = p.as_mut().map(|p| &mut p[part.clone()]);
            let q = q.as_mut().map(|q| &mut q[part.clone()]);
            match (p, q) {
                (Some(p), None) => gf::p_update(&old[part], piece.as_slice(), p),
                (p, Some(q)) => {
                    let p = p.unwrap_or_else(|| {
                        scratch.resize(piece.len(), 0);
                        &mut scratch[..]
                    });
                    gf::pq_update(power, &old[part], piece.as_slice(), p, q);
                }
                (None, None) => {}
            }
            at += piece.len();
        }
    }

    /// Computes what is wanted of `strips`, given by slot, all of `length` bytes.
    pub(super) fn recover(
        &self,
        length: usize,
        strips: Vec<Strip<'_>>,
    ) -> Result<(), Unrecoverable> {
        let zeros = if self.powers.len() > self.data.len() { vec![0; length] } else { Vec::new() };
        let mut strips: Vec<Option<Strip<'_>>> = strips.into_iter().map(Some).collect();
        let mut take = |slot: usize| strips[slot].take().unwrap_or(Strip::Absent);
        let p = take(self.p);
        let q = self.q.map_or(Strip::Absent, &mut take);
        let mut data: Vec<Strip<'_>> = (self.powers.iter())
            .map(|index| match index {
                Some(index) => take(self.data[*index]),
                None => Strip::Known(&zeros),
            })
            .collect();
        gf::recover(&mut data, p, q)
    }

    /// All strips, given by slot as far as they are known, with the rest computed. None if that cannot be
    /// done, or parity that is known is not that of the data.
    pub(super) fn complete(&self, mut strips: Vec<Option<Buf>>) -> Option<Vec<Buf>> {
        let length = strips.iter().flatten().next()?.len();
        let absent: Vec<usize> =
            self.data.iter().copied().filter(|&slot| strips[slot].is_none()).collect();
        if !absent.is_empty() {
            let mut wanted: Vec<Buf> = absent.iter().map(|_| Buf::alloc(length)).collect();
            let mut parts: Vec<Strip<'_>> = strips
                .iter()
                .map(|strip| strip.as_ref().map_or(Strip::Absent, |s| Strip::Known(s.as_slice())))
                .collect();
            for (&slot, buf) in absent.iter().zip(&mut wanted) {
                parts[slot] = Strip::Wanted(buf.as_mut_slice());
            }
            self.recover(length, parts).ok()?;
            for (slot, buf) in absent.into_iter().zip(wanted) {
                strips[slot] = Some(buf);
            }
        }
        let data: Option<Vec<Segments>> =
            self.data.iter().map(|&slot| strips[slot].clone().map(Segments::from)).collect();
        let data = data?;
        let (mut p, mut q) = (Buf::alloc(length), self.q.map(|_| Buf::alloc(length)));
        let pieces: Vec<&Segments> = data.iter().collect();
        self.generate(&pieces, Some(p.as_mut_slice()), q.as_mut().map(Buf::as_mut_slice));
        for (slot, computed) in [(self.p, p)].into_iter().chain(self.q.zip(q)) {
            match &strips[slot] {
                Some(known) if known.as_slice() != computed.as_slice() => return None,
                Some(_) => {}
                None => strips[slot] = Some(computed),
            }
        }
        strips.into_iter().collect()
    }
}

/// The bytes from `at` on, as far as they lie in one piece.
fn tail(segments: &Segments, at: usize) -> &[u8] {
    let mut skip = at;
    for buf in segments.iter() {
        if skip < buf.len() {
            return &Buf::as_slice(buf)[skip..];
        }
        skip -= buf.len();
    }
    &[]
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;
    use md::geometry::ParityLevel;

    fn segments(seed: usize, length: usize, cut: usize) -> Segments {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7 + seed * 31).to_le_bytes()[0]).collect();
        Segments::from(vec![Buf::copy_of(&bytes[..cut]), Buf::copy_of(&bytes[cut..])])
    }

    /// Every layout of RAID 6: parity made, updated and recovered over ragged pieces agrees.
    #[test]
    fn exponents_are_those_of_the_layout() {
        let layouts = [0, 1, 2, 3, 4, 5, 8, 9, 10, 16, 17, 18, 19, 20];
        for (layout, stripe) in layouts.into_iter().flat_map(|l| (0..6).map(move |s| (l, s))) {
            let geometry = Geometry::new(ParityLevel::Raid6, layout, 8, 6).unwrap();
            let equations = Equations::of(&geometry, stripe);
            let mut data: Vec<Segments> = (0..4).map(|i| segments(i, 100, 10 + i)).collect();
            let (mut p, mut q) = (vec![0; 100], vec![0; 100]);
            let all: Vec<&Segments> = data.iter().collect();
            equations.generate(&all, Some(&mut p), Some(&mut q));
            for byte in 0..100 {
                let mut expected = (0, 0);
                for (index, piece) in data.iter().enumerate() {
                    let byte = piece.to_single().as_slice()[byte];
                    let power = geometry.q_exponent(stripe, index);
                    expected.0 ^= byte;
                    expected.1 ^= gf::mul(byte, gf::exp(power));
                }
                assert_eq!((p[byte], q[byte]), expected);
            }
            let (old, new) = (data[1].to_single(), segments(9, 100, 77));
            equations.update(1, old.as_slice(), &new, Some(&mut p), Some(&mut q));
            data[1] = new;
            let all: Vec<&Segments> = data.iter().collect();
            let mut again = vec![0; 100];
            equations.generate(&all, None, Some(&mut again));
            assert_eq!(again, q);
            let bufs: Vec<Buf> = data.iter().map(Segments::to_single).collect();
            let (mut x, mut y) = (vec![0; 100], vec![0; 100]);
            let mut strips: Vec<Strip<'_>> = (0..6).map(|_| Strip::Absent).collect();
            strips[equations.p] = Strip::Known(&p);
            strips[equations.q.unwrap()] = Strip::Known(&q);
            strips[equations.data[0]] = Strip::Wanted(&mut x);
            strips[equations.data[1]] = Strip::Known(bufs[1].as_slice());
            strips[equations.data[2]] = Strip::Wanted(&mut y);
            strips[equations.data[3]] = Strip::Known(bufs[3].as_slice());
            equations.recover(100, strips).unwrap();
            assert_eq!((&x[..], &y[..]), (bufs[0].as_slice(), bufs[2].as_slice()));
        }
    }
}
