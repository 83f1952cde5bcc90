//! Naming the one strip that is wrong, from the errors of P and Q.

use crate::field::log;

/// Which strip explains the errors of a stripe's two syndromes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrong {
    /// Both syndromes hold.
    Nothing,
    /// Only P is off.
    P,
    /// Only Q is off.
    Q,
    /// The data strip with this exponent explains every byte.
    Data(usize),
    /// No single strip does: more than one is wrong.
    Several,
}

/// Finds the one strip that explains the errors, if one does, in a stripe of `data_count` data
/// strips. `p_error` is P as stored XOR P as computed, `q_error` likewise. (The md specification,
/// section 7.3: the exponent is log(Qerr / Perr) and the same for every byte.)
///
/// This is a hint, not evidence: two wrong strips can look like a third. A member's own tag is
/// evidence.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn locate(data_count: usize, p_error: &[u8], q_error: &[u8]) -> Wrong {
    assert_eq!(p_error.len(), q_error.len(), "strips have one length");
    let mut found = Wrong::Nothing;
    for (&p, &q) in p_error.iter().zip(q_error) {
        let here = match (log(p), log(q)) {
            (None, None) => continue,
            (Some(_), None) => Wrong::P,
            (None, Some(_)) => Wrong::Q,
            (Some(p), Some(q)) => Wrong::Data((usize::from(q) + 255 - usize::from(p)) % 255),
        };
        match found {
            Wrong::Nothing => found = here,
            _ if found == here => {}
            _ => return Wrong::Several,
        }
    }
    match found {
        Wrong::Data(exponent) if exponent >= data_count => Wrong::Several,
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pq;
    use proptest::prelude::*;

    fn errors(strips: &[Vec<u8>], stored: &[Vec<u8>; 2]) -> [Vec<u8>; 2] {
        let data: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
        let [mut p, mut q] = [vec![0; stored[0].len()], vec![0; stored[1].len()]];
        pq(&data, &mut p, &mut q);
        for (computed, stored) in [(&mut p, &stored[0]), (&mut q, &stored[1])] {
            computed.iter_mut().zip(stored).for_each(|(c, s)| *c ^= s);
        }
        [p, q]
    }

    proptest! {
        #[test]
        fn one_wrong_strip_is_named(
            count in 1usize..20,
            wrong in any::<proptest::sample::Index>(),
            flips in proptest::collection::vec((0usize..64, 1u8..), 1..6),
        ) {
            let mut strips = vec![vec![0x3C; 64]; count];
            let data: Vec<&[u8]> = strips.iter().map(Vec::as_slice).collect();
            let mut stored = [vec![0; 64], vec![0; 64]];
            let [p, q] = &mut stored;
            pq(&data, p, q);
            prop_assert_eq!(locate(count, &[0; 64], &[0; 64]), Wrong::Nothing);

            let wrong = wrong.index(count + 2);
            let (strip, expected) = match wrong.checked_sub(count) {
                None => (&mut strips[wrong], Wrong::Data(wrong)),
                Some(0) => (&mut stored[0], Wrong::P),
                Some(_) => (&mut stored[1], Wrong::Q),
            };
            let before = strip.clone();
            for (at, flip) in flips {
                strip[at] ^= flip;
            }
            prop_assume!(*strip != before);
            let [p, q] = errors(&strips, &stored);
            prop_assert_eq!(locate(count, &p, &q), expected);
        }
    }

    #[test]
    fn errors_in_two_places_by_two_strips_are_several() {
        assert_eq!(locate(4, &[1, 1], &[1, 2]), Wrong::Several);
        assert_eq!(locate(4, &[1, 0], &[0, 1]), Wrong::Several);
        assert_eq!(locate(1, &[1], &[2]), Wrong::Several, "there is no strip 1");
    }
}
