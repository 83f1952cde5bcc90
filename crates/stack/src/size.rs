//! Sizes as people write them: `64K`, `4G`, `1048576`.

/// Why a text is no size.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SizeError {
    /// Not digits and at most one unit.
    #[error("'{0}' is not a size: digits, then K, M, G, T or nothing (bytes)")]
    Malformed(String),
    /// More than 2^63 - 1 bytes, the longest file there is.
    #[error("'{0}' is larger than any device")]
    TooLarge(String),
}

/// Bytes in `text`: decimal digits, then `K`, `M`, `G`, `T` (powers of 1024; lower case and a
/// following `iB` or `B` are understood) or nothing.
///
/// # Errors
/// [`SizeError`], quoting the text.
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let malformed = || SizeError::Malformed(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(malformed());
    }
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(malformed()),
    };
    let too_large = || SizeError::TooLarge(text.to_owned());
    let number: u64 = number.parse().map_err(|_| too_large())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(too_large)?;
    if bytes > i64::MAX.unsigned_abs() { Err(too_large()) } else { Ok(bytes) }
}

/// The shortest text that [`parse_size`] reads as `bytes`.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_binary() {
        assert_eq!(parse_size("64K"), Ok(65_536));
        assert_eq!(parse_size("3g"), Ok(3 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
    }

    #[test]
    fn what_is_no_size_is_quoted() {
        for text in ["", "K", "1.5G", "-1", "1X", "1 G", "0x10"] {
            assert_eq!(parse_size(text), Err(SizeError::Malformed(text.into())));
        }
        for text in ["99999999999999999999", "8388608T", "9223372036854775808"] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge(text.into())));
        }
    }

    proptest! {
        #[test]
        fn a_formatted_size_is_read_back(bytes in 0..i64::MAX.unsigned_abs()) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
    }
}
