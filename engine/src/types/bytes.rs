//! Sizes as people write them: `4096`, `64MiB`, `10GiB`; and ranges: `1GiB+64MiB`.
//!
//! Invariant: what is printed is exact, and parses to the same number again. Only whole numbers of binary units are
//! read; what could mean two things (`10G`, `10GB`) is refused with the two things named.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::range::ByteRange;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
pub const TIB: u64 = 1 << 40;

/// Largest first: a size prints in the first unit that divides it.
const UNITS: [(&str, u64); 6] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", TIB),
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
];

/// A number of bytes that prints and parses with binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ByteSize(pub u64);

/// Why a text is not a size or a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseBytesError {
    #[error("a size is missing: write it like 4096, 64MiB or 10GiB")]
    Empty,
    #[error("{0:?} is negative; sizes are not")]
    Negative(String),
    #[error("{0:?} is not a whole number of bytes or binary units: write it like 4096, 64MiB or 10GiB")]
    NotANumber(String),
    #[error(
        "{text:?} is ambiguous: write {number}{letter}iB for powers of 1024, \
         or the number of bytes for powers of 1000"
    )]
    Ambiguous {
        text: String,
        number: String,
        letter: char,
    },
    #[error("unknown unit {unit:?} in {text:?}: known are B, KiB, MiB, GiB, TiB, PiB, EiB")]
    UnknownUnit { text: String, unit: String },
    #[error("{0:?} does not fit in 64 bits: the largest size is 18446744073709551615 bytes (16EiB less one)")]
    Overflow(String),
    #[error("{0:?} is not a range: write it as offset+length, like 1GiB+64MiB")]
    NotARange(String),
    #[error("range {0:?} ends beyond 64 bits")]
    RangeOverflow(String),
}

impl FromStr for ByteSize {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseBytesError::Empty);
        }
        if text.starts_with('-') {
            return Err(ParseBytesError::Negative(text.into()));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() || unit.starts_with(['.', ',', '_']) {
            return Err(ParseBytesError::NotANumber(text.into()));
        }
        let unit = unit_bytes(text, number, unit)?;
        let overflow = || ParseBytesError::Overflow(text.into());
        let number: u64 = number.parse().map_err(|_| overflow())?;
        number.checked_mul(unit).map(Self).ok_or_else(overflow)
    }
}

fn unit_bytes(text: &str, number: &str, unit: &str) -> Result<u64, ParseBytesError> {
    if unit.is_empty() || unit == "B" {
        return Ok(1);
    }
    if let Some(&(_, bytes)) = UNITS.iter().find(|(name, _)| *name == unit) {
        return Ok(bytes);
    }
    if let [letter] | [letter, b'B' | b'b'] = unit.as_bytes()
        && b"KMGTPE".contains(&letter.to_ascii_uppercase())
    {
        let letter = char::from(letter.to_ascii_uppercase());
        return Err(ParseBytesError::Ambiguous {
            text: text.into(),
            number: number.into(),
            letter,
        });
    }
    Err(ParseBytesError::UnknownUnit {
        text: text.into(),
        unit: unit.into(),
    })
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match UNITS
            .iter()
            .find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes))
        {
            Some((name, bytes)) => write!(f, "{}{name}", self.0 / bytes),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteRange {
    type Err = ParseBytesError;

    /// Reads `offset+length`, both as [`ByteSize`] does.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (start, len) = text
            .split_once('+')
            .ok_or_else(|| ParseBytesError::NotARange(text.into()))?;
        let (start, len): (ByteSize, ByteSize) = (start.parse()?, len.parse()?);
        Self::new(start.0, len.0).ok_or_else(|| ParseBytesError::RangeOverflow(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(text: &str) -> Result<u64, ParseBytesError> {
        text.parse().map(|ByteSize(bytes)| bytes)
    }

    #[test]
    fn sizes_are_whole_numbers_of_bytes_or_binary_units() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("1TiB"), Ok(1 << 40));
        assert_eq!(size("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn decimal_looking_units_are_refused_as_ambiguous() {
        for text in ["10G", "10GB", "10g", "10gb", "1K", "1kB"] {
            assert!(
                matches!(size(text), Err(ParseBytesError::Ambiguous { .. })),
                "{text}"
            );
        }
        assert_eq!(
            size("10GB").unwrap_err().to_string(),
            "\"10GB\" is ambiguous: write 10GiB for powers of 1024, or the number of bytes for powers of 1000"
        );
    }

    #[test]
    fn every_other_text_is_refused_with_its_own_reason() {
        assert_eq!(size(""), Err(ParseBytesError::Empty));
        assert_eq!(size("-1"), Err(ParseBytesError::Negative("-1".into())));
        for text in ["+1", "MiB", "1.5GiB", "1_000", " 1", "x"] {
            assert_eq!(
                size(text),
                Err(ParseBytesError::NotANumber(text.into())),
                "{text}"
            );
        }
        for text in ["1gib", "1 GiB", "1YiB", "1Gi", "1µB", "1é", "4096 "] {
            assert!(
                matches!(size(text), Err(ParseBytesError::UnknownUnit { .. })),
                "{text}"
            );
        }
        for text in ["16EiB", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(size(text), Err(ParseBytesError::Overflow(text.into())));
        }
    }

    #[test]
    fn ranges_are_offset_and_length() {
        let range: ByteRange = "1GiB+64MiB".parse().unwrap();
        assert_eq!((range.start(), range.len()), (GIB, 64 * MIB));
        assert_eq!(range.to_string(), "1GiB+64MiB");
        assert!(matches!(
            "1GiB".parse::<ByteRange>(),
            Err(ParseBytesError::NotARange(_))
        ));
        assert!(matches!(
            "1GiB+".parse::<ByteRange>(),
            Err(ParseBytesError::Empty)
        ));
        assert!(matches!(
            "15EiB+1EiB".parse::<ByteRange>(),
            Err(ParseBytesError::RangeOverflow(_))
        ));
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same_size(number in any::<u64>(), shift in 0u32..64) {
            let bytes = (number >> shift) << (shift / 10 * 10);
            prop_assert_eq!(size(&ByteSize(bytes).to_string()), Ok(bytes));
        }

        #[test]
        fn what_is_printed_parses_to_the_same_range(start in any::<u64>(), len in any::<u64>()) {
            if let Some(range) = ByteRange::new(start, len) {
                prop_assert_eq!(range.to_string().parse(), Ok(range));
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = (size(&text), text.parse::<ByteRange>());
        }
    }
}
