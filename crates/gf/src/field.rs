//! The field: GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1, whose generator is g = x = 2.

/// g to the power `exponent`; powers repeat after 255.
#[must_use]
pub const fn exp(exponent: usize) -> u8 {
    EXP[exponent % 255]
}

/// The exponent, below 255, that makes `a` of g; zero has none.
#[must_use]
pub const fn log(a: u8) -> Option<u8> {
    if a == 0 { None } else { Some(LOG[a as usize]) }
}

/// Product.
#[must_use]
pub const fn mul(a: u8, b: u8) -> u8 {
    match (log(a), log(b)) {
        (Some(a), Some(b)) => exp(a as usize + b as usize),
        _ => 0,
    }
}

/// The number whose product with `a` is one.
///
/// # Panics
/// If `a` is zero.
#[must_use]
pub const fn inv(a: u8) -> u8 {
    match log(a) {
        Some(log) => exp(255 - log as usize),
        None => panic!("zero has no inverse"),
    }
}

/// Quotient.
///
/// # Panics
/// If `b` is zero.
#[must_use]
pub const fn div(a: u8, b: u8) -> u8 {
    mul(a, inv(b))
}

/// `a` times g.
pub(crate) const fn double(a: u8) -> u8 {
    (a << 1) ^ if a & 0x80 != 0 { REDUCTION } else { 0 }
}

/// The polynomial without its leading term.
pub(crate) const REDUCTION: u8 = 0x1D;

const EXP: [u8; 255] = {
    let mut table = [0; 255];
    let (mut exponent, mut power) = (0, 1);
    while exponent < 255 {
        table[exponent] = power;
        power = double(power);
        exponent += 1;
    }
    table
};

/// Inverse of `EXP`; the entry of zero is never read.
const LOG: [u8; 256] = {
    let mut table = [0; 256];
    let mut exponent: u8 = 0;
    while exponent < 255 {
        table[EXP[exponent as usize] as usize] = exponent;
        exponent += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// School multiplication: shift and add, reduced as it goes.
    fn by_hand(mut a: u8, b: u8) -> u8 {
        let mut product = 0;
        for bit in 0..8 {
            if b >> bit & 1 != 0 {
                product ^= a;
            }
            a = double(a);
        }
        product
    }

    #[test]
    fn products_are_those_of_polynomials() {
        for a in 0..=255 {
            for b in 0..=255 {
                assert_eq!(mul(a, b), by_hand(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn every_number_but_zero_has_an_inverse_and_a_logarithm() {
        for a in 1..=255 {
            assert_eq!(mul(a, inv(a)), 1);
            assert_eq!(div(a, a), 1);
            assert_eq!(exp(usize::from(log(a).unwrap())), a);
        }
        assert_eq!(log(0), None);
    }

    #[test]
    fn the_generator_is_two() {
        assert_eq!((exp(0), exp(1), exp(8), exp(255)), (1, 2, REDUCTION, 1));
    }
}
